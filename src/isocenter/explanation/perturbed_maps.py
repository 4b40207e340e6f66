"""Maps from what a network says of images in which something is hidden: occlusion by captum, and RISE.

They need no gradients, so every backend has them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import count as numbers

import torch
from captum.attr import Occlusion
from torch import Tensor
from torch.nn.functional import pad

from isocenter.explanation.baselines import blurred, stretched
from isocenter.explanation.subject import Subject

BATCH = 8
# Blocks along each axis that are hidden one after the other, by the number of axes; each overlaps the next by half.
BLOCKS = {1: 32, 2: 8, 3: 4}
# RISE, arXiv:1806.07421 section 4: masks of 7 cells an axis, half of them shown; in volumes fewer cells.
CELLS, SHOWN, MASKS = {1: 12, 2: 7, 3: 5}, 0.5, 256
# Images that occlusion shows the network at most, where nobody limits the time.
MOST = 1024


def occlusion(subject: Subject, seconds: float | None = None) -> Tensor:
    """(1, channels, *window) how much lower the score is where a block is blurred away.

    Blocks begin outside the image, so that as many hide a voxel at its border as any other: means of fewer vary more,
    and the border would seem to matter.
    seconds: in which it should be done: the blocks become larger where they have to
    """
    blocks, channels = BLOCKS[len(subject.spatial)], subject.joined
    pictures = subject.image.shape[1] // channels
    most = MOST if seconds is None else seconds / _seconds_of_one(subject)
    while blocks > 2 and pictures * (2 * blocks + 1) ** len(subject.spatial) > most:
        blocks -= 1
    sides = [max(1, math.ceil(size / blocks)) for size in subject.spatial]
    steps = [max(1, side // 2) for side in sides]
    outside = [(math.ceil(side / step) - 1) * step for side, step in zip(sides, steps, strict=True)]
    inside = (..., *(slice(far, far + size) for far, size in zip(outside, subject.spatial, strict=True)))
    around = [far for far in reversed(outside) for _ in range(2)]
    with torch.no_grad():
        attributed = Occlusion(lambda padded: subject.score(padded[inside])).attribute(
            pad(subject.image, around),
            sliding_window_shapes=(channels, *sides),
            strides=(channels, *steps),
            baselines=pad(blurred(subject.image), around),
            perturbations_per_eval=BATCH,
        )
    return torch.nan_to_num(attributed[inside].float())


def rise(subject: Subject, seconds: float | None = None, seed: int = 0) -> Tensor:
    """(1, channels, *window) mean score of random masks that show each voxel, less that of all masks.

    seconds: for which masks are drawn; a number of masks if not said
    """
    random = torch.Generator().manual_seed(seed)
    base, started = blurred(subject.image), time.perf_counter()
    total = torch.zeros_like(subject.image)
    shown, scores = torch.zeros_like(total), list[float]()
    for _ in numbers() if seconds is not None else range(MASKS // BATCH):
        masks = _masks(subject, random)
        own = subject.scores(masks * subject.image + (1 - masks) * base, BATCH)
        total += (masks * own.reshape(-1, *[1] * (masks.ndim - 1))).sum(dim=0, keepdim=True)
        shown += masks.sum(dim=0, keepdim=True)
        scores += own.tolist()
        if seconds is not None and time.perf_counter() - started > seconds:
            break
    return total / shown.clamp(min=1e-6) - sum(scores) / len(scores)


def _masks(subject: Subject, random: torch.Generator) -> Tensor:
    """(BATCH, channels, *window) of 0 (hidden) to 1 (shown), from coarse grids that are shifted at random."""
    cells = [min(CELLS[len(subject.spatial)], size) for size in subject.spatial]
    pictures = subject.image.shape[1] // subject.joined
    coarse = (torch.rand((BATCH, pictures, *[n + 1 for n in cells]), generator=random) < SHOWN).float()
    sides = [math.ceil(size / n) for size, n in zip(subject.spatial, cells, strict=True)]
    wide = stretched(coarse, [(n + 1) * side for n, side in zip(cells, sides, strict=True)])
    masks = torch.stack(list(_shifted(wide, sides, subject.spatial, random)))
    return masks.repeat_interleave(subject.joined, dim=1).to(subject.image.device)


def _shifted(wide: Tensor, sides: list[int], spatial: tuple[int, ...], random: torch.Generator) -> Iterator[Tensor]:
    for mask in wide:
        starts = [int(torch.randint(side, (1,), generator=random)) for side in sides]
        yield mask[(slice(None), *(slice(start, start + size) for start, size in zip(starts, spatial, strict=True)))]


def _seconds_of_one(subject: Subject) -> float:
    subject.scores(subject.image)  # the first call prepares more than later ones
    started = time.perf_counter()
    subject.scores(subject.image)
    return time.perf_counter() - started
