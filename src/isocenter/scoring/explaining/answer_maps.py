"""The map of what an answer rests on, by the best method of explanation that passed its tests on the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from isocenter.errors import IsocenterError, UsageError
from isocenter.explanation import METHODS, WHOLE, Method, explained
from isocenter.prediction import EXPLANATION
from isocenter.runtime import Differentiable, Model, Request, fitting_memory, load
from isocenter.scoring.explaining.kept_tests import Records, kept_records
from isocenter.values import Case, Image, Map, Prediction

NO_MAP = "no map explains the answer"
# How much better a map is than random ones, as the tests of methods measure it.
GAINS = ("deletion_over_random", "insertion_over_random")


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

    def __call__(self, model: Model, case: Case, image: Image, request: Request, prediction: Prediction) -> Prediction:
        """The prediction with its map; image: of the case, as it was predicted"""
        if self._chosen is None:
            self._chosen = _chosen(model, self.path, self.device)
        chosen = self._chosen
        if chosen.method is None:
            return _noted(prediction, chosen.because)
        fitting_model = replace(chosen.model or model, request=replace(request, mirror=None, seconds=None))
        subject = Case(case.id, case.patient, {EXPLANATION: image}, covariates=case.covariates)
        try:
            fitting = fitting_memory(fitting_model, image, case.id, request.region)
            explanation = explained(fitting, subject, chosen.method, torch_model=chosen.networks)
        except IsocenterError as error:  # a result holds without its map
            return _noted(prediction, f"{chosen.method.name}: {error.problem}")
        target = "the answer as a whole" if explanation.target == WHOLE else explanation.target
        words = f"{chosen.method.name} of {target}, {chosen.method.words}; the method passed its tests on this model"
        if not np.isfinite(explanation.data).all():
            return _noted(prediction, f"the map of {chosen.method.name} has values that are not finite")
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


def _chosen(model: Model, path: Path | None, device: str) -> _Chosen:
    """The best method that passed its tests and that a backend of the model can make."""
    records, _ = kept_records(path, model)
    if not (passed := _passed(records)):
        return _Chosen(because=_without(records))
    if not any(method.module for method in passed):
        return _Chosen(passed[0])
    with_gradients, networks = _with_gradients(model, path, device)
    fit = passed if networks is not None else [method for method in passed if not method.module]
    if not fit:
        names = ", ".join(method.name for method in passed)
        return _Chosen(because=f"{names} passed the tests on this model, and its backends have no gradients")
    return _Chosen(fit[0], model=with_gradients, networks=networks)


def _passed(records: Records) -> list[Method]:
    """The methods that passed, the one with the largest gains first."""
    names = [name for name, record in records.items() if record.get("passed") is True and name in METHODS]
    return [METHODS[name] for name in sorted(names, key=lambda name: -_gain(records[name]))]


def _gain(record: Mapping[str, Any]) -> float:
    """The mean of what a method's maps gain over random ones in deletion and insertion."""
    values = [(record.get(name) or {}).get("value") for name in GAINS]
    return float(np.mean([value for value in values if value is not None] or [0.0]))


def _without(records: Records) -> str:
    names = [name for name in records if name in METHODS]
    if not names:
        return "no method of explanation was tested on this model"
    return f"no method of explanation passed its tests on this model ({', '.join(names)})"


def _with_gradients(model: Model, path: Path | None, device: str) -> tuple[Model | None, Differentiable | None]:
    """The networks with gradients, and the model that they are of where it had to be loaded once more."""
    try:
        return None, Differentiable.of(model.networks)
    except UsageError:
        if path is None:
            return None, None
    try:
        loaded = load(path, device, backend="torch")
        return loaded, Differentiable.of(loaded.networks)
    except IsocenterError:  # a foreign model that has no other backend
        return None, None


def _noted(prediction: Prediction, because: str) -> Prediction:
    return replace(prediction, notes=(*prediction.notes, f"{NO_MAP}: {because}"))
