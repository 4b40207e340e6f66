"""Models that stay loaded between jobs, as many as the memory is meant to hold."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, cast

import psutil

from hilum import errors
from hilum.errors import MEMORY_ERRORS, IntegrityError, MemoryShortageError, UsageError
from hilum.files import code_file
from hilum.files.dicom import dictionary_codes
from hilum.prediction import model_advice, result_files
from hilum.runtime import Model, model_files, result_codes
from hilum.scoring.explaining import kept_tests
from hilum.service.configuration import ModelSection
from hilum.service.model_facts import ModelFacts
from hilum.service.work import answer_tensors
from hilum.tasks import properties
from hilum.values import Label
from hilum.values.finding import CodedName
from hilum.work_state import log

if TYPE_CHECKING:
    from hilum.scoring.explaining.kept_tests import AnswerMaps


def facts_of_model(name: str, model: Model) -> ModelFacts:
    """The facts of a model for routing.

    Raises UsageError for a model that no node can ask.
    """
    if model.task.takes_prompts:
        problem = "the model answers what a person points at, and nobody does at a node"
        raise UsageError(problem, f"model {name!r}", "Name another one, and use this one by `hilum predict`")
    modality = str(model.preprocessing.settings.get("modality") or "")
    mapped = next(iter(properties.leaf_tasks(model.task).values()))  # of several tasks the one with a label map
    labels = {label.name: label.value for label in mapped.labels} if properties.marks_labels(mapped) else {}
    words = model_advice.words_of_model(model)
    axes, frames = model.preprocessing.ndim, model.preprocessing.frames
    return ModelFacts(
        name,
        model.sha256,
        "" if modality == "unknown" else modality,
        tuple(model.preprocessing.channels),
        model.task.name,
        labels,
        model.task.probable_findings,
        _values(model),
        axes,
        answer_tensors.output_axes(model.task, axes) if frames is None else {},
        str(model.gate),
        model.gate.is_fitted,
        [*_label_faults(model, mapped.labels if labels else ()), *_stray_codes(model)],
        result_files.model_identity(model)["version"],
        tuple(cast("Sequence[str]", model.preprocessing.settings.get("absent") or ())),
        words.grades,
        words.units,
    )


def _label_faults(model: Model, labels: Sequence[Label]) -> Iterator[str]:
    """Labels of a label map that DICOM objects cannot name: a segment without a code goes out as tissue."""
    codes = result_codes.codes_of_model(model)
    for label in labels:
        own = label.code or next(iter(codes.get(label.name, CodedName()).codes), None)
        title = f"label {label.value}" if label.is_bare else f"label {label.value}, {label.name!r},"
        if label.value == 0 or label.is_ignored:
            continue
        if label.is_bare and own is None:
            yield f'{title} has neither name nor code: its segment goes out as "Tissue"'
        elif label.is_bare:
            yield f"{title} has no name"
        elif own is None:
            yield f'{title} has no code: its segment goes out as "Tissue"'
        elif not dictionary_codes.names_structure(own):
            yield f"{title} has the code {own.scheme} {own.value}, {own.meaning}, which names no structure"


def _stray_codes(model: Model) -> Iterator[str]:
    """Names with codes that the model's answers never state, as where they are misspelt."""
    labels = {
        label.name
        for part in properties.leaf_tasks(model.task).values()
        for label in (*part.channel_labels, *part.labels)
    }
    names = {*labels, *model.task.probable_findings, *_values(model)}
    for name in result_codes.codes_of_model(model).keys() - names:
        near = get_close_matches(name, sorted(labels), n=1)
        yield f"a code is given for {name!r}, which the model does not state{f'; {near[0]!r} is near' if near else ''}"


def _values(model: Model) -> list[str]:
    """The names of what a model's answers state as a number: those of its task, and its ratios."""
    names = list(model_advice.words_of_model(model).units)
    channels = model.preprocessing.channels if len(model.preprocessing.channels) > 1 else ()
    of_channels = [f"{name} of {channel}" for name in names if name.endswith("intensity") for channel in channels]
    return list(dict.fromkeys([*names, *of_channels]))


class WarmModels:
    """Models by name, loaded when they are first asked for; the longest unused goes where memory runs short.

    sections:  {name: its section of the settings}
    memory_gb: which this process should not exceed while it holds more than one
    packages:  of a name and a hash the folder of the package that was deployed, as `package_finder` gives it
    """

    def __init__(
        self,
        sections: Mapping[str, ModelSection],
        memory_gb: float,
        device: str = "auto",
        packages: Callable[[str, str | None], Path | None] = lambda name, digest: None,
    ) -> None:
        self.sections, self.memory, self.device, self.packages = sections, memory_gb * 1e9, device, packages
        self._loaded: OrderedDict[tuple[str, Path], tuple[Model, ModelFacts]] = OrderedDict()
        self._maps: dict[tuple[str, Path], AnswerMaps] = {}

    def __getitem__(self, name: str) -> tuple[Model, ModelFacts]:
        """The model that answers now, and its facts.

        Raises UsageError for a name that is not there, and what loading raises.
        """
        return self._at(self._key(name, None))

    def model_for_job(self, name: str, digest: str) -> Model:
        """The model that a job was made for. Raises IntegrityError where the folder holds another one by now."""
        key = self._key(name, digest)
        model, facts = self._at(key)
        if facts.hash != digest:
            self._forget(key)
            problem, where = "is another model than the one that the job was made for", str(key[1])
            raise IntegrityError(problem, where, "Route the study again, and the new one answers it")
        return model

    def maps_of(self, name: str, digest: str) -> AnswerMaps | None:
        """Maps that explain the answers of a model, kept as long as the model is; None where nobody asks for maps."""
        section = self.sections.get(name)
        if section is None or section.explain == "none":
            return None
        key = self._key(name, digest)
        return self._maps.setdefault(key, kept_tests.AnswerMaps(key[1], self.device))

    def _key(self, name: str, digest: str | None) -> tuple[str, Path]:
        """A model's name and folder. Raises UsageError for a name that is not there."""
        if name not in self.sections:
            raise UsageError("the node has no such model", name, "Name it in node.toml")
        return name, self.packages(name, digest) or self.sections[name].path

    def _at(self, key: tuple[str, Path]) -> tuple[Model, ModelFacts]:
        if key not in self._loaded:
            model = self._load(key)
            self._loaded[key] = model, facts_of_model(key[0], model)
            while len(self._loaded) > 1 and psutil.Process().memory_info().rss > self.memory:
                self._make_room()
        self._loaded.move_to_end(key)
        return self._loaded[key]

    def _load(self, key: tuple[str, Path]) -> Model:
        """Load a model; where memory runs out, as that of a GPU, the others go one after the other until it fits."""
        name, folder = key
        while True:
            try:
                codes, model = self.sections[name].codes, model_files.load(folder, self.device)
                model = replace(model, record={**model.record, "name": name})  # as the node calls it
                return model if codes is None else result_codes.with_codes(model, code_file.read_codes(codes))
            except (MemoryShortageError, *MEMORY_ERRORS) as error:
                if not (self._loaded and errors.is_out_of_memory(error)):
                    raise
            self._make_room()

    def _make_room(self) -> None:
        key = next(iter(self._loaded))
        self._forget(key)
        log.info("model %s makes room", key[0])

    def _forget(self, key: tuple[str, Path]) -> None:
        self._loaded.pop(key)
        self._maps.pop(key, None)
