"""The map of one case by one method, on the grid of its source."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isocenter.explanation.case_on_grid import AUTO, WHOLE, CaseOnGrid, mean_and_spread
from isocenter.explanation.faithfulness import Window, curves
from isocenter.explanation.methods import Method
from isocenter.explanation.subject import Subject
from isocenter.explanation.unfit import UnfitError
from isocenter.lazy import torch
from isocenter.runtime import Differentiable, Model, image_of
from isocenter.transforms import COLOUR
from isocenter.values import Case, Image

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Explanation:
    """What an answer rests on, by one method.

    data:         (*spatial) float32 on the source's grid, of a clip (frames, *spatial); more is more for the target
    images:       {name: the same}, of a case with several images
    disagreement: standard deviation over the members' maps; None of one network
    covariates:   {name: how much lower the score is without its value}
    deletion, insertion: of the map in the window that says most for the target, as the tests of methods measure them;
                  None where nobody asked, NaN where a blur of the window does not change the score
    """

    case: str
    method: str
    target: str
    data: NDArray[np.float32]
    seconds: float
    images: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    disagreement: NDArray[np.float32] | None = None
    covariates: Mapping[str, float] = field(default_factory=dict)
    deletion: float | None = None
    insertion: float | None = None


@dataclass(eq=False)
class _FullestWindow:
    """The window of a map that says most for the target, through all members, and what the map marks in it."""

    score: float = -math.inf
    window: Window | None = None
    marked: Tensor | None = None

    def see(self, window: Window, maps: Tensor) -> None:
        """A further window with its maps, (members, channels, *window)."""
        first = window.subjects[0]
        score = float(first.scores(first.image)) * first.objective.extent
        if self.window is None or score > self.score:
            shares = torch.tensor(window.shares).to(maps).reshape(-1, *[1] * (maps.ndim - 1))
            self.score, self.window, self.marked = score, window, (shares * maps).sum(dim=(0, 1))

    @property
    def curves(self) -> tuple[float, float] | tuple[None, None]:
        """Its deletion and insertion; None before any window was seen."""
        return (None, None) if self.window is None or self.marked is None else curves(self.window, self.marked)


def explained(
    model: Model,
    case: Case | Image,
    method: Method,
    *,
    target: str = AUTO,
    seconds: float | None = None,
    torch_model: Differentiable | None = None,
    tell: Callable[[int, int], None] | None = None,
    measured: bool = False,
) -> Explanation:
    """The map of a case on its own grid.

    seconds:     for which the method draws, where it draws at random
    torch_model: `model.differentiable()`, made once for many cases; a method that needs no gradients does without
    measured:    whether deletion and insertion are, with some 24 predictions of one window
    Raises UsageError for an unknown target, UnfitError where the method cannot explain this model.
    """
    image, where = image_of(case)
    if method.module and torch_model is None:
        torch_model = model.differentiable()
    started, fullest = time.perf_counter(), _FullestWindow() if measured else None
    if model.goes_by_frame(image):
        whole, chosen = _of_frames(model, image, method, target, seconds, torch_model, fullest), target
    else:
        grid = CaseOnGrid.of(model, case, target, torch_model)
        whole, chosen = _mapped(grid, method, seconds, fullest, tell), grid.target or WHOLE
    seconds = time.perf_counter() - started
    mean, spread = mean_and_spread(whole, (1.0,) if torch_model is None else torch_model.shares)
    deletion, insertion = (None, None) if fullest is None else fullest.curves
    names = model.preprocessing.channels
    several = len(mean) == len(names) > 1 and names != COLOUR
    return Explanation(
        where,
        method.name,
        chosen,
        mean.sum(axis=0),
        seconds,
        dict(zip(names, mean, strict=True)) if several else {},
        None if spread is None else np.sqrt((spread**2).sum(axis=0)),
        deletion=deletion,
        insertion=insertion,
    )


def _of_frames(
    model: Model,
    image: Image,
    method: Method,
    target: str,
    seconds: float | None,
    torch_model: Differentiable | None,
    fullest: _FullestWindow | None,
) -> NDArray[np.float32]:
    """(members, images, frames, *spatial) of a clip that a model of still images predicts frame by frame."""
    made, count = [], image.frames or 1
    for number in range(count):
        grid = CaseOnGrid.of(model, image.frame(number), target, torch_model)
        made.append(_mapped(grid, method, None if seconds is None else seconds / count, fullest))
    return np.stack(made, axis=2)


def _mapped(
    grid: CaseOnGrid,
    method: Method,
    seconds: float | None,
    fullest: _FullestWindow | None,
    tell: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """(members, images[, frames], *spatial) of a case."""
    own = None if seconds is None else seconds / grid.looks

    def mapped(subjects: Sequence[Subject]) -> Tensor:
        made = torch.stack([method(subject, own)[0] for subject in subjects])
        if fullest is not None:
            fullest.see(Window(subjects, grid.shares), made)
        return made

    return _placed(grid, grid.on_source(mapped, tell), method.name)


def _placed(grid: CaseOnGrid, whole: NDArray[np.float32], method: str) -> NDArray[np.float32]:
    """(members * channels, *spatial) to (members, images[, frames], *spatial): each frame where the clip has it."""
    members, spatial = len(grid.shares), whole.shape[1:]
    names, slots = grid.model.preprocessing.channels, grid.frames
    made = whole.reshape(members, -1, *spatial)
    if made.shape[1] > 1 and made.shape[1] == len(names) * len(slots or [0]) + 1:
        made = made[:, :-1]  # the last channel holds the labels of a first stage
    if slots is None:
        return made
    if made.shape[1] == 1:
        raise UnfitError(method, "it has one map for all frames of a clip")
    each = made.reshape(members, -1, len(slots), *spatial)
    frames = np.zeros((members, each.shape[1], grid.image.frames or 1, *spatial), dtype=np.float32)
    for slot, number in enumerate(slots):
        if number is not None:
            frames[:, :, number] += each[:, :, slot]
    return frames
