"""Prompts sampled from a mask: the first ones, and the next one where an answer is most wrong.

All work on the device of the mask; what is sampled is a function of the generator alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hilum.lazy import torch
from hilum.transforms import prompt_channels
from hilum.values import Array, Floats

if TYPE_CHECKING:
    from torch import Tensor

# Shares of the first prompts that are boxes, clicks and strokes; of the rest a part of the object is known already, as
# in a window beside one that was answered.
BOXES = 0.4
CLICKS = 0.4
STROKES = 0.1
# Clicks that are sampled together, at the most: so that the network knows answers that several have corrected.
MOST_CLICKS = 3
# By how much of its side an end of a box is further in, or further out, than what it holds.
INWARDS = 0.05
OUTWARDS = 0.15
# Of further prompts those that are strokes, and those of which there is none: an answer is then only looked at again.
FURTHER_STROKES = 0.15
NO_FURTHER = 0.15


def sample_object(numbers: Tensor, rng: np.random.Generator) -> Tensor:
    """(*spatial) the mask of one of the objects that a map of their numbers shows; empty where it shows none."""
    present = numbers[numbers > 0].unique()
    return numbers == present[int(rng.integers(len(present)))] if len(present) else numbers > 0


def sample_channels(mask: Tensor, rng: np.random.Generator) -> Tensor:
    """(7, *spatial) first prompts of a mask; of an empty one a click outside."""
    channels = torch.zeros((prompt_channels.COUNT, *mask.shape), device=mask.device)
    voxels = mask.nonzero()
    kind = rng.random()
    if not len(voxels):
        prompt_channels.render_points(channels, rng.integers(mask.shape)[None], np.array([False]))
    elif kind < BOXES:
        low, high = (one.cpu().numpy() for one in (voxels.amin(dim=0), voxels.amax(dim=0) + 1))
        moved = rng.uniform(-INWARDS, OUTWARDS, size=(2, len(low))) * (high - low)
        prompt_channels.render_box(channels, np.rint(low - moved[0]), np.rint(high + moved[1]))
    elif kind < BOXES + CLICKS:
        _add_clicks(channels, mask, int(rng.integers(1, MOST_CLICKS + 1)), rng, inside=True)
    elif kind < BOXES + CLICKS + STROKES:
        _add_stroke(channels, voxels, rng, inside=True)
    else:
        centre = _any_of(voxels, rng)
        direction = rng.normal(size=mask.ndim)
        along = ((voxels.cpu().numpy() - centre) @ direction) < 0
        channels[(prompt_channels.PREVIOUS, *voxels[torch.from_numpy(along).to(mask.device)].T)] = 1
    return channels


def correct_channels(channels: Tensor, mask: Tensor, answer: Tensor, rng: np.random.Generator) -> Tensor:
    """The channels with an answer as the earlier mask, and mostly a prompt in the larger of its two errors."""
    corrected = channels.clone()
    corrected[prompt_channels.PREVIOUS] = answer
    error, is_missed = larger_error(mask, answer)
    kind = rng.random()
    if kind < NO_FURTHER or not error.any():
        return corrected
    if kind < NO_FURTHER + FURTHER_STROKES:
        _add_stroke(corrected, error.nonzero(), rng, inside=is_missed)
    else:
        _add_clicks(corrected, error, int(rng.integers(1, MOST_CLICKS + 1)), rng, inside=is_missed)
    return corrected


def larger_error(mask: Tensor, answer: Tensor) -> tuple[Tensor, bool]:
    """What an answer misses, or what it marks too much, whichever has more voxels; and whether it is missed."""
    missed = mask & ~answer
    beyond = answer & ~mask
    is_missed = bool(missed.sum() >= beyond.sum())
    return (missed if is_missed else beyond), is_missed


def innermost_voxels(mask: Tensor) -> Tensor:
    """(n, axes) the voxels that are left last where the border of a mask is taken away layer by layer.

    So they lie in its thickest piece. What lies beyond the edge of the mask's grid is taken for outside.
    """
    voxels = mask.nonzero()
    low, high = voxels.amin(dim=0), voxels.amax(dim=0) + 1
    cut = mask[tuple(slice(*ends) for ends in zip(low.tolist(), high.tolist(), strict=True))]
    left = torch.nn.functional.pad(cut[None, None].float(), [1, 1] * mask.ndim)
    pool = getattr(torch.nn.functional, f"max_pool{mask.ndim}d")
    while (inner := -pool(-left, 3, stride=1, padding=1)).any():
        left = inner
    return left[0, 0].nonzero() - 1 + low


def next_click(mask: Array, answer: Array) -> tuple[tuple[int, ...], bool] | None:
    """The voxel in the middle of the larger error of an answer, and whether it is inside; None where nothing is wrong.

    Without chance: what scores take.
    """
    error, is_missed = larger_error(torch.from_numpy(mask), torch.from_numpy(answer))
    if not error.any():
        return None
    left = innermost_voxels(error).double()
    place = left[(left - left.mean(dim=0)).norm(dim=1).argmin()]
    return tuple(int(one) for one in place.tolist()), is_missed


def _add_clicks(channels: Tensor, mask: Tensor, count: int, rng: np.random.Generator, *, inside: bool) -> None:
    """Half of them in the middle of the mask, the others anywhere in it."""
    voxels = innermost_voxels(mask) if rng.random() < 0.5 else mask.nonzero()
    places = np.array([_any_of(voxels, rng) for _ in range(count)])
    prompt_channels.render_points(channels, places, np.full(count, inside))


def _add_stroke(channels: Tensor, voxels: Tensor, rng: np.random.Generator, *, inside: bool) -> None:
    """The voxels of a mask along a line between two of them."""
    start, end = (_any_of(voxels, rng) for _ in range(2))
    steps = np.linspace(0, 1, 2 + 2 * int(np.abs(end - start).max()))[:, None]
    line = torch.from_numpy(np.unique(np.rint(start + steps * (end - start)).astype(np.int64), axis=0))
    shown = torch.zeros(channels.shape[1:], dtype=torch.bool, device=channels.device)
    shown[tuple(voxels.T)] = True
    kept = line[shown[tuple(line.to(shown.device).T)].cpu()].numpy()
    prompt_channels.render_strokes(channels, kept, np.full(len(kept), inside))


def _any_of(voxels: Tensor, rng: np.random.Generator) -> Floats:
    return voxels[int(rng.integers(len(voxels)))].cpu().numpy().astype(np.float64)
