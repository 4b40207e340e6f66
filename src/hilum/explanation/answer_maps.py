"""The map of one case by one method, on the grid of its source."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hilum.explanation import case_on_grid
from hilum.explanation.case_on_grid import AUTO, WHOLE, CaseOnGrid, ExplainedWindow, UnfitError
from hilum.explanation.explanation_methods import Method
from hilum.lazy import torch
from hilum.runtime import Model, model_assembly
from hilum.runtime.torch_networks import Differentiable
from hilum.transforms import COLOUR
from hilum.values import Case, Image

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Explanation:
    """A map of what an answer rests on, by one method.

    data:         (*spatial) float32 on the source's grid, of a clip (frames, *spatial); more is more for the target
    images:       {name: the same}, of a case with several images
    disagreement: standard deviation over the members' maps; None of one network
    covariates:   {name: how much lower the score is without its value}
    """

    case: str
    method: str
    target: str
    data: NDArray[np.float32]
    seconds: float
    images: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    disagreement: NDArray[np.float32] | None = None
    covariates: Mapping[str, float] = field(default_factory=dict)


def explain_case(
    model: Model,
    case: Case | Image,
    method: Method,
    *,
    target: str = AUTO,
    seconds: float | None = None,
    torch_model: Differentiable | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> Explanation:
    """The map of a case on its own grid.

    seconds:     for which the method samples, where it is random
    torch_model: the networks with gradients, made once for many cases; a method that needs no gradients does without
    Raises UsageError for an unknown target, UnfitError where the method cannot explain this model.
    """
    image, where = model_assembly.subject_image(case)
    if model.preprocessing.tiles is not None:
        raise UnfitError(
            method.name, "a bag of tiles has no map; <case>_attention.csv of predict has the share of each"
        )
    if method.module and torch_model is None:
        torch_model = Differentiable.from_networks(model.networks)
    started = time.perf_counter()
    if model.goes_by_frame(image):
        array, chosen = _of_frames(model, image, method, target, seconds, torch_model)
    else:
        grid = CaseOnGrid.from_case(model, case, target, torch_model)
        array, chosen = _map(grid, method, seconds, tell), grid.target or WHOLE
    shares = (1.0,) if torch_model is None else torch_model.shares
    mean, _ = case_on_grid.mean_and_spread(array, shares)
    # Members that agree on one image agree on the others too: the deviation of a sum is not made of those of its parts.
    _, spread = (mean, None) if len(shares) == 1 else case_on_grid.mean_and_spread(array.sum(axis=1), shares)
    names = model.preprocessing.channels
    several = len(mean) == len(names) > 1 and names != COLOUR
    return Explanation(
        where,
        method.name,
        chosen,
        mean[0] if len(mean) == 1 else mean.sum(axis=0),
        time.perf_counter() - started,
        dict(zip(names, mean, strict=True)) if several else {},
        spread,
    )


def _of_frames(
    model: Model, image: Image, method: Method, target: str, seconds: float | None, torch_model: Differentiable | None
) -> tuple[NDArray[np.float32], str]:
    """(members, images, frames, *spatial) of a clip that a model of still images predicts frame by frame.

    And the target, which "auto" takes from the first frame: of two frames no map is of another answer.
    """
    maps, count, chosen = [], image.frames or 1, target
    for still in image.still_frames():
        grid = CaseOnGrid.from_case(model, still, chosen, torch_model)
        chosen = grid.target or WHOLE
        maps.append(_map(grid, method, None if seconds is None else seconds / count))
    return np.stack(maps, axis=2), chosen


def _map(
    grid: CaseOnGrid, method: Method, seconds: float | None, tell: Callable[[int, int], None] | None = None
) -> NDArray[np.float32]:
    """(members, images[, frames], *spatial) of a case."""
    seconds_of_look = None if seconds is None else seconds / grid.looks

    def mapped(subjects: Sequence[ExplainedWindow]) -> Tensor:
        return torch.stack([method(subject, seconds_of_look)[0] for subject in subjects])

    return _place(grid, grid.on_source(mapped, tell), method.name)


def _place(grid: CaseOnGrid, array: NDArray[np.float32], method: str) -> NDArray[np.float32]:
    """(members * channels, *spatial) to (members, images[, frames], *spatial): each frame where the clip has it."""
    members, spatial = len(grid.shares), array.shape[1:]
    names, slots = grid.model.preprocessing.channels, grid.frames
    by_member = array.reshape(members, -1, *spatial)
    if by_member.shape[1] > 1 and by_member.shape[1] == len(names) * len(slots or [0]) + 1:
        by_member = by_member[:, :-1]  # the last channel holds the labels of a first stage
    if slots is None:
        return by_member
    if by_member.shape[1] == 1:
        raise UnfitError(method, "it has one map for all frames of a clip")
    by_slot = by_member.reshape(members, -1, len(slots), *spatial)
    frames = np.zeros((members, by_slot.shape[1], grid.image.frames or 1, *spatial), dtype=np.float32)
    for slot, number in enumerate(slots):
        if number is not None:
            frames[:, :, number] += by_slot[:, :, slot]
    return frames
