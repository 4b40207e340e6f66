"""Cases through methods of explanation: a map of each, its row and its picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import UsageError
from isocenter.explanation import (
    USUAL,
    WHOLE,
    CaseOnGrid,
    Explanation,
    Method,
    Small,
    UnfitError,
    against,
    explained,
    map_measures,
    marked_in,
)
from isocenter.prediction import write_maps
from isocenter.quality import letters_in
from isocenter.report import Figure, figures
from isocenter.runtime import Differentiable, Model, fitting_memory
from isocenter.transforms import stacked
from isocenter.values import Case, Image, Map
from isocenter.verbs.explaining.tests_of_methods import Tested

# Of `explanations.csv`.
COLUMNS = (
    "case",
    "target",
    "method",
    "passed",
    "deletion",
    "insertion",
    "stability",
    "pointing",
    "energy",
    "border_share",
    "seconds",
)


@dataclass(frozen=True, eq=False)
class Made:
    """What became of one case.

    rows:    of `explanations.csv`
    figures: of each method, and of covariates
    refused: {method: why it cannot explain this model}
    small:   {method: the map brought down, for what the cohort looks at}
    """

    case: str
    rows: Sequence[Mapping[str, Any]]
    figures: Sequence[Figure]
    files: Sequence[Path]
    refused: Mapping[str, str] = field(default_factory=dict)
    explanations: Sequence[Explanation] = ()
    small: Mapping[str, Small] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Explainer:
    """How cases of a cohort are explained.

    by_name:     whether a person asked for these methods: one that cannot be is then refused, else left out
    torch_model: the model's networks with gradients; None of a backend without torch
    tested:      what tests found of the methods on this model; one that is not there was not tested
    references:  {case: the same with what experts marked}
    folder:      where maps and pictures are written
    keeps:       whether the maps are kept where they are not written
    """

    model: Model
    methods: Sequence[Method]
    target: str = "auto"
    seconds: float | None = None
    by_name: bool = True
    torch_model: Differentiable | None = None
    tested: Tested = field(default_factory=Tested)
    references: Mapping[str, Case] = field(default_factory=dict)
    folder: Path | None = None
    keeps: bool = True

    @classmethod
    def of(cls, model: Model, methods: Sequence[Method], *, by_name: bool, **more: Any) -> Explainer:
        """UsageError where a method was asked for by name that needs gradients, and the backend has none."""
        try:
            return cls(model, methods, by_name=by_name, torch_model=model.differentiable(), **more)
        except UsageError:
            if by_name and any(method.module for method in methods):
                raise
            return cls(model, [method for method in methods if not method.module], by_name=by_name, **more)

    @property
    def believed(self) -> list[Method]:
        """The methods that passed their tests; of none those that were tested; without tests the usual ones."""
        passed = {name: record.get("passed") for name, record in self.tested.records.items()}
        for wanted in ({True}, {None}, {False}):
            if methods := [one for one in self.methods if passed.get(one.name, "untested") in wanted]:
                return methods
        return [one for one in self.methods if one.name in USUAL]

    def __call__(self, case: Case) -> Made:
        """The case by each method."""
        image = stacked(case.images, case.id)
        model = fitting_memory(self.model, image, case.id)
        rows, drawn, files = list[Mapping[str, Any]](), list[Figure](), list[Path]()
        refused, maps, small = dict[str, str](), list[Explanation](), dict[str, Small]()
        letters = _letters(image)
        how: dict[str, Any] = {"target": self.target, "seconds": self.seconds, "torch_model": self.torch_model}
        for method in self.methods:
            try:
                made = explained(model, case, method, **how)
            except UnfitError as error:
                if self.by_name:
                    raise
                refused[method.name] = error.reason
                continue
            rows.append(self._row(case, image, made))
            target = "the answer as a whole" if made.target == WHOLE else made.target
            title, failed = f"{method.name}: {target}", rows[-1]["passed"] is False
            drawn.append(figures.heat(image, made.data, title, caption=method.words, failed=failed))
            small[method.name] = Small.of(case.id, made.target, made.data, image.geometry.ndim, letters)
            if self.folder is not None:
                files += _written(made, image, case.id, self.folder, drawn[-1])
            elif self.keeps:
                maps.append(made)
        if not model.goes_by_frame(image) and model.context.names:
            bars = CaseOnGrid.of(model, case, self.target, self.torch_model).covariates()
            drawn.append(figures.bars(bars, "Covariates", axis="score lost without the value"))
        return Made(case.id, rows, drawn, files, refused, maps, small)

    def _row(self, case: Case, image: Image, made: Explanation) -> dict[str, Any]:
        """Of `explanations.csv`, and the share of the image that experts marked (`area`)."""
        record, measures = self.tested.records.get(made.method, {}), self.tested.cases.get((case.id, made.method), {})
        own = {"case": case.id, "target": made.target, "method": made.method, "passed": record.get("passed")}
        own |= {name: measures.get(name) for name in ("deletion", "insertion", "stability")}
        own |= map_measures(made.data, image.geometry.ndim)
        if (reference := self.references.get(case.id)) is not None:
            inside = marked_in(reference, image, made.target, self.model.task.labels)
            own |= {} if inside is None else against(made.data, inside)
        return dict.fromkeys(COLUMNS) | own | {"seconds": round(made.seconds, 3)}


def _letters(image: Image) -> NDArray[np.bool_] | None:
    """(*spatial) where letters are burned into a picture; None of any other image, and of a picture without."""
    if not image.geometry.is_picture or image.frames is not None:
        return None
    return letters_in(np.nan_to_num(image.data.astype(np.float64).mean(axis=0)))


def _written(made: Explanation, image: Image, name: str, folder: Path, figure: Figure) -> Iterator[Path]:
    """The files of a map: itself, those of single images, the members' disagreement, a picture."""
    each = {made.method: Map(made.data)}
    each |= {f"{made.method}_{one}": Map(data) for one, data in made.images.items()}
    each |= {} if made.disagreement is None else {f"{made.method}_disagreement": Map(made.disagreement)}
    yield from write_maps(each, image, folder, name)
    picture = folder / f"{name}_{made.method}.png"
    picture.write_bytes(figure.png)
    yield picture
