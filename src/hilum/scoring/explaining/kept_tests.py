"""Tests of the methods of explanation on a model, kept beside it, and the map of the best that passed them.

They lie in a run's folder, or in a package's `hilum/`.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hilum.errors import HilumError, IntegrityError, UsageError
from hilum.explanation import answer_maps, faithfulness
from hilum.explanation.case_on_grid import WHOLE, CaseOnGrid, UnfitError
from hilum.explanation.explanation_methods import METHODS, Method
from hilum.explanation.faithfulness import FEWEST, TESTS_VERSION, FaithfulnessWindow
from hilum.files.storage import atomic, cache
from hilum.prediction.result_files import EXPLANATION
from hilum.report.progress_tracking import Tracker
from hilum.runtime import Model, ModelRequest, model_files, predicted_memory, record_files
from hilum.runtime.foreign import detect
from hilum.runtime.package.package_contents import EXPLANATIONS, PACKAGED
from hilum.runtime.torch_networks import Differentiable
from hilum.transforms import channel_stack
from hilum.values import Case, Image, Map, Prediction
from hilum.values.explanation_records import EXPLANATIONS_SCHEMA, ExplanationsRecord, MethodRecord
from hilum.work_state import log

Records = Mapping[str, MethodRecord]
SHA_256 = re.compile(r"[0-9a-f]{64}")


def kept_records(path: Path | None, model: Model) -> tuple[dict[str, MethodRecord], dict[str, str]]:
    """{method: what its tests found} and {method: why it could not explain} of this model.

    Both are empty where it was not tested, or only by tests that have changed since, or another model was.
    """
    if path is None or not path.exists():
        return {}, {}
    records, refused = dict[str, MethodRecord](), dict[str, str]()
    if not (path.is_file() and detect.is_foreign(path)):  # beside a single file of another program nothing is kept
        with record_files.unpack(path) as folder:
            records, refused = _records_in(_place(folder), model)
    if _is_writable(path) or (entry := _cache_entry(model)) is None:
        return records, refused
    others, also_refused = _records_in(entry, model)
    return others | records, also_refused | refused


def is_kept(path: Path | None, model: Model) -> bool:
    """Whether what tests find can be kept: beside the model, or in the cache by its hash."""
    return path is not None and (_is_writable(path) or _cache_entry(model) is not None)


def keep_records(path: Path | None, model: Model, records: Records, refused: Mapping[str, str]) -> None:
    """Beside the model, or in the cache where its package cannot be written, such as a zip.

    refused: {method: why it cannot explain the model}
    """
    if path is None:
        return
    judged = {name: one for name, one in records.items() if one.get("passed") is not None}
    content = ExplanationsRecord(sha256=model.sha256, tests=TESTS_VERSION, methods=judged, refused=dict(refused))
    folder = _place(path) if _is_writable(path) else _cache_entry(model)
    try:
        if folder is not None and folder.parent == path / PACKAGED:
            record_files.amend_record(path, folder.relative_to(path).as_posix(), EXPLANATIONS_SCHEMA, content)
        elif folder is not None:
            with (
                atomic.write_whole(folder, overwrite=True)
                if _is_writable(path)
                else cache.write_cache_entry(folder) as partial
            ):
                record_files.write_json(partial, EXPLANATIONS_SCHEMA, content)
    except HilumError as error:  # what was found holds all the same, and is only found again next time
        log.warning("what the tests of methods found is not kept: %s", error)


def kept_content(folder: Path, model: Model) -> ExplanationsRecord:
    """The tests that a folder keeps of its model, for a package of it; empty where they are of another model."""
    records = _place(folder)
    kept = record_files.read_json(records, EXPLANATIONS_SCHEMA) if records.is_file() else ExplanationsRecord()
    return kept if kept.get("sha256") == model.sha256 else ExplanationsRecord()


def _records_in(folder: Path, model: Model) -> tuple[dict[str, MethodRecord], dict[str, str]]:
    """The records in a file that are of this model and of the tests of today.

    Nothing of another model or of former tests, of a damaged file and of one that is not there.
    """
    if not folder.is_file():
        return {}, {}
    try:
        record = record_files.read_json(folder, EXPLANATIONS_SCHEMA)
    except IntegrityError:
        return {}, {}
    same = record["sha256"] == model.sha256 and record["tests"] == TESTS_VERSION
    return (dict(record["methods"]), dict(record["refused"])) if same else ({}, {})


def _is_writable(path: Path) -> bool:
    return path.is_dir() and os.access(path, os.W_OK)


def _cache_entry(model: Model) -> Path | None:
    """The file of a model in the cache; None where the hash of its weights is not known, by which it is another."""
    weights = str(model.record.get("weights_sha256") or "")
    is_known = SHA_256.fullmatch(weights) is not None
    return cache.cache_folder() / "explanations" / f"{model.sha256}.json" if is_known else None


def _place(folder: Path) -> Path:
    inside = folder / PACKAGED
    return (inside if inside.is_dir() else folder) / EXPLANATIONS


@dataclass(frozen=True, eq=False)
class MethodTests:
    """The results of the tests of methods.

    records: {method: for `explanations.json`}
    cases:   {(case, method): what was found}
    refused: {method: why it cannot explain this model}
    """

    records: Records = field(default_factory=dict)
    cases: Mapping[tuple[str, str], Mapping[str, float]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


def spread_cases(cases: Sequence[Case], count: int) -> list[Case]:
    """A number of cases, spread evenly over all."""
    return [cases[n * len(cases) // count] for n in range(count)] if count < len(cases) else list(cases)


def _reachable_cases(done: int, seconds: float, cases: int, at_most: float) -> int:
    """The number of cases that can be tested within `at_most` at the speed so far, but enough to judge."""
    if not done or done * at_most >= cases * seconds:
        return cases
    return min(cases, max(FEWEST, int(done * at_most / seconds) + 1))


def assess_methods(
    model: Model,
    methods: Sequence[Method],
    cases: Sequence[Case],
    torch_model: Differentiable | None,
    tracker: Tracker,
    *,
    target: str = "auto",
    seconds: float | None = None,
    seed: int = 0,
    at_most: float = math.inf,
) -> MethodTests:
    """Each method on each of the cases; one that cannot explain the model is not there.

    at_most: seconds after which no further case begins, once there are enough to judge
    """
    measures: dict[str, dict[str, Mapping[str, float]]] = {}
    refused: dict[str, str] = {}
    began = time.monotonic()
    for number, case in enumerate(cases):
        if number >= FEWEST and time.monotonic() - began > at_most:
            break
        tracker(number, _reachable_cases(number, time.monotonic() - began, len(cases), at_most))
        try:
            image = channel_stack.stack_images(case.images, case.id)
            still = image.frame((image.frames or 1) // 2) if model.goes_by_frame(image) else case
            grid = CaseOnGrid.from_case(model, still, target, torch_model)
            window = FaithfulnessWindow(grid.subjects(grid.fullest_window()), grid.shares)
        except HilumError:
            continue  # it is reported where it is explained
        for method in methods:
            try:
                measures.setdefault(method.name, {})[case.id] = faithfulness.assess_method(
                    window, method, seed, seconds
                )
            except UnfitError as error:
                refused[error.method] = error.reason
    patients = {case.id: case.patient for case in cases}
    return MethodTests(
        {
            name: faithfulness.method_verdict(list(own.values()), [patients[case] for case in own], seed=seed).record
            for name, own in measures.items()
        },
        {(case, name): measured for name, own in measures.items() for case, measured in own.items()},
        refused,
    )


NO_MAP = "no map explains the answer"


@dataclass(eq=False)
class AnswerMaps:
    """Adds the map of what an answer rests on to predictions of one model; without one, a note that says why.

    path:   of the model, beside which lies what tests found of the methods; None of a model in memory
    device: where a package is loaded once more, as its fastest backend may have no gradients
    Nothing is loaded before the first prediction.
    """

    path: Path | None
    device: str = "auto"
    _chosen: _Chosen | None = field(default=None, init=False, repr=False)

    def __call__(
        self, model: Model, case: Case, image: Image, request: ModelRequest, prediction: Prediction
    ) -> Prediction:
        """The prediction with its map; image: of the case, as it was predicted"""
        if self._chosen is None:
            self._chosen = _choose(model, self.path, self.device)
        chosen = self._chosen
        if chosen.method is None:
            return _with_note(prediction, chosen.because)
        fitting_model = replace(chosen.model or model, request=replace(request, mirror=None, seconds=None))
        subject = Case(case.id, case.patient, {EXPLANATION: image}, covariates=case.covariates)
        try:
            fitting = predicted_memory.fit_batch_to_memory(fitting_model, image, case.id, request.region)
            explanation = answer_maps.explain_case(fitting, subject, chosen.method, torch_model=chosen.networks)
        except HilumError as error:  # a result holds without its map
            return _with_note(prediction, f"{chosen.method.name}: {error.problem}")
        target = "the answer as a whole" if explanation.target == WHOLE else explanation.target
        words = f"{chosen.method.name} of {target}, {chosen.method.words}; the method passed its tests on this model"
        if not np.isfinite(explanation.data).all():
            return _with_note(prediction, f"the map of {chosen.method.name} has values that are not finite")
        return replace(prediction, maps={**prediction.maps, EXPLANATION: Map(explanation.data, words=words)})


@dataclass(frozen=True, eq=False)
class _Chosen:
    """Explanation that was chosen for a model.

    method:   None where none can, and `because` says why
    model:    the model once more where its backend has no gradients; None stands for the one that predicts
    networks: with gradients, for a method that needs them
    """

    method: Method | None = None
    because: str = ""
    model: Model | None = None
    networks: Differentiable | None = None


def _choose(model: Model, path: Path | None, device: str) -> _Chosen:
    """The best method that passed its tests and that a backend of the model can make."""
    records, _ = kept_records(path, model)
    if not (passed := _passed_methods(records)):
        return _Chosen(because=_without(records))
    if not any(method.module for method in passed):
        return _Chosen(passed[0])
    with_gradients, networks = _with_gradients(model, path, device)
    fit = passed if networks is not None else [method for method in passed if not method.module]
    if not fit:
        names = ", ".join(method.name for method in passed)
        return _Chosen(because=f"{names} passed the tests on this model, and its backends have no gradients")
    return _Chosen(fit[0], model=with_gradients, networks=networks)


def _passed_methods(records: Records) -> list[Method]:
    """The methods that passed, the one with the largest gains first."""
    names = [name for name, record in records.items() if record.get("passed") is True and name in METHODS]
    return [METHODS[name] for name in sorted(names, key=lambda name: -_gain(records[name]))]


def _gain(record: MethodRecord) -> float:
    """The mean of what a method's maps gain over random ones in deletion and insertion."""
    gains = [record.get("deletion_over_random"), record.get("insertion_over_random")]
    return float(np.mean([value for one in gains if one and (value := one.get("value")) is not None] or [0.0]))


def _without(records: Records) -> str:
    names = [name for name in records if name in METHODS]
    if not names:
        return "no method of explanation was tested on this model"
    return f"no method of explanation passed its tests on this model ({', '.join(names)})"


def _with_gradients(model: Model, path: Path | None, device: str) -> tuple[Model | None, Differentiable | None]:
    """The networks with gradients, and the model that they are of where it had to be loaded once more."""
    try:
        return None, Differentiable.from_networks(model.networks)
    except UsageError:
        if path is None:
            return None, None
    try:
        loaded = model_files.load(path, device, backend="torch")
        return loaded, Differentiable.from_networks(loaded.networks)
    except HilumError:  # a foreign model that has no other backend
        return None, None


def _with_note(prediction: Prediction, because: str) -> Prediction:
    return replace(prediction, notes=(*prediction.notes, f"{NO_MAP}: {because}"))
