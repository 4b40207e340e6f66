"""The methods of explanation tested on a model, with some of its cases."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from isocenter.errors import IsocenterError
from isocenter.explanation import FEWEST, CaseOnGrid, Method, UnfitError, Window, tried, verdict_of
from isocenter.report import Tracker
from isocenter.runtime import Differentiable, Model
from isocenter.transforms import stacked
from isocenter.values import Case


@dataclass(frozen=True, eq=False)
class Tested:
    """The results of the tests of methods.

    records: {method: for `explanations.json`}
    cases:   {(case, method): what was found}
    refused: {method: why it cannot explain this model}
    """

    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cases: Mapping[tuple[str, str], Mapping[str, float]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


def spread_out(cases: Sequence[Case], count: int) -> list[Case]:
    """A number of cases, spread evenly over all."""
    return [cases[n * len(cases) // count] for n in range(count)] if count < len(cases) else list(cases)


def _reached(done: int, seconds: float, cases: int, at_most: float) -> int:
    """The number of cases that can be tested within `at_most` at the speed so far, but enough to judge."""
    if not done or done * at_most >= cases * seconds:
        return cases
    return min(cases, max(FEWEST, int(done * at_most / seconds) + 1))


def tested_methods(
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
) -> Tested:
    """Each method on each of the cases; one that cannot explain the model is not there.

    at_most: seconds after which no further case begins, once there are enough to judge
    """
    measures: dict[str, dict[str, Mapping[str, float]]] = {}
    refused: dict[str, str] = {}
    began = time.monotonic()
    for number, case in enumerate(cases):
        if number >= FEWEST and time.monotonic() - began > at_most:
            break
        tracker(number, _reached(number, time.monotonic() - began, len(cases), at_most))
        try:
            image = stacked(case.images, case.id)
            still = image.frame((image.frames or 1) // 2) if model.goes_by_frame(image) else case
            grid = CaseOnGrid.of(model, still, target, torch_model)
            window = Window(grid.subjects(grid.fullest_window()), grid.shares)
        except IsocenterError:
            continue  # it is reported where it is explained
        for method in methods:
            try:
                measures.setdefault(method.name, {})[case.id] = tried(window, method, seed, seconds)
            except UnfitError as error:
                refused[error.method] = error.reason
    patients = {case.id: case.patient for case in cases}
    return Tested(
        {
            name: verdict_of(list(own.values()), [patients[case] for case in own], seed=seed).record
            for name, own in measures.items()
        },
        {(case, name): measured for name, own in measures.items() for case, measured in own.items()},
        refused,
    )
