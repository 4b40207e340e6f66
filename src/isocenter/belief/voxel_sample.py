"""A weighted sample of an image's voxels, drawn while their outputs stream by, that stands for the whole image.

NumPy and SciPy only: a packaged model carries a copy of this file.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isocenter.lazy import ndimage
from isocenter.values import Array, Deferred, Geometry, Region

# Voxels of an image, half of them near edges between labels: to calibrate, and afterwards to be scored.
SAMPLED, SCORED = 50_000, 10_000
# mm (voxels where their size is not known), along each axis, from an edge.
NEAR = 5.0
# Voxels that are looked at together: what they take beside outputs is 30 bytes each.
AT_ONCE = 2**20
# What a prediction keeps beside a sample: (axes, 2) where the parts begin and end that came.
LOOKED_AT = "looked_at"
# Keys, places (n, axes) and outputs (n, channels).
_Drawn = tuple[Array, Array, Array]


@dataclass(frozen=True, eq=False)
class VoxelSample:
    """Voxels of one image.

    places:  (n, axes) their indices
    outputs: (n, channels) of the network, float32
    weights: (n,) how many voxels each stands for: one over the probability that it was drawn
    """

    places: NDArray[np.int32]
    outputs: NDArray[np.float32]
    weights: NDArray[np.float32]

    @classmethod
    def of(cls, untuned: Mapping[str, Array | Deferred]) -> VoxelSample:
        """Read a sample as a prediction keeps it."""
        return cls(*(np.asarray(untuned[one.name]) for one in fields(cls)))

    def at(self, grid: Array) -> Array:
        """(n,) what a map (*spatial) holds there."""
        return np.asarray(grid)[tuple(self.places.T)]


class Sampler:
    """Draws about `most` voxels of an image of which the parts come one by one, half of them near edges of its labels.

    Every voxel near an edge has a random key by its place, and those with the smallest keys are kept: a simple random
    sample, however many there will be. The others are drawn one by one, each with the same probability.
    Cohen and Kaplan, Summarizing data using bottom-k sketches, doi:10.1145/1281100.1281133
    """

    def __init__(self, geometry: Geometry, most: int = SAMPLED) -> None:
        self._geometry, self._most = geometry, most // 2
        self._seed = zlib.crc32(repr(geometry.shape).encode() + geometry.affine.tobytes())
        self._share = min(1.0, self._most / math.prod(geometry.shape))
        self._near, self._limit = 0, 2**32
        self._ends: list[list[tuple[int, int]]] = []
        self._kept: list[_Drawn] = []
        self._others: list[_Drawn] = []

    def take(self, region: Region, labels: Array, outputs: Array) -> None:
        """A part of the image: (*region) its label map, and (channels, *region)."""
        near = near_edges(labels, self._geometry)
        ends = [part.indices(size)[:2] for part, size in zip(region, self._geometry.shape, strict=True)]
        starts = [start for start, _ in ends]
        self._ends.append(ends)
        step = max(1, AT_ONCE * len(labels) // max(1, labels.size))
        for row in range(0, len(labels), step):
            rows = slice(row, row + step)
            self._draw([starts[0] + row, *starts[1:]], near[rows], outputs[:, rows])

    @property
    def drawn(self) -> dict[str, Array] | None:
        """The fields of a `VoxelSample`, and what part of the image was looked at; None where no part came."""
        self._shrink()
        each = [(*part, 1 / self._share) for part in self._others]
        each += [(*part, self._near / max(1, len(part[0]))) for part in self._kept]
        if not each:
            return None
        weights = [np.full(len(keys), weight, dtype=np.float32) for keys, *_, weight in each]
        places, outputs = (np.concatenate([part[n] for part in each]) for n in (1, 2))
        ends = np.array(self._ends)
        box = np.stack([ends[..., 0].min(axis=0), ends[..., 1].max(axis=0)], axis=1)
        return {"places": places, "outputs": outputs, "weights": np.concatenate(weights), LOOKED_AT: box}

    def _draw(self, starts: Sequence[int], near: NDArray[np.bool_], outputs: Array) -> None:
        indices = np.nonzero(near)
        places = np.zeros(len(indices[0]), dtype=np.uint32)
        for own, start, size in zip(indices, starts, self._geometry.shape, strict=True):
            places = places * np.uint32(size) + (own + start).astype(np.uint32)
        keys = _mixed(places ^ np.uint32(self._seed))
        self._near += len(keys)
        chosen = keys <= self._limit
        self._kept.append(_drawn(keys[chosen], [own[chosen] for own in indices], starts, outputs))
        if sum(len(part[0]) for part in self._kept) > 2 * self._most:
            self._shrink()
        # Gaps between voxels that are drawn one by one with a probability have a geometric law.
        random = np.random.default_rng([self._seed, *starts])
        expected = self._share * near.size
        gaps = random.geometric(self._share, size=int(expected + 6 * expected**0.5 + 10))
        others = np.add.accumulate(gaps) - 1  # `cumsum` keeps some 60 bytes each time: a film would show it
        others = others[others < near.size]
        others = others[~near.reshape(-1)[others]]
        self._others.append(_drawn(others, np.unravel_index(others, near.shape), starts, outputs))

    def _shrink(self) -> None:
        """Keep those near edges that have the smallest keys."""
        if self._kept:
            keys, places, outputs = (np.concatenate(each) for each in zip(*self._kept, strict=True))
            if len(keys) > self._most:
                least = np.argpartition(keys, self._most - 1)[: self._most]
                keys, places, outputs = keys[least], places[least], outputs[least]
                self._limit = int(keys.max())
            self._kept = [(keys, places, outputs)]


def _drawn(keys: Array, indices: Sequence[Array], starts: Sequence[int], outputs: Array) -> _Drawn:
    index: tuple[Any, ...] = (slice(None), *indices)
    values = outputs[index].T.astype(np.float32)
    return keys, np.stack(indices, axis=1).astype(np.int32) + np.array(starts, dtype=np.int32), values


def near_edges(labels: Array, geometry: Geometry) -> NDArray[np.bool_]:
    """(*spatial) where the label changes within `NEAR` along every axis, in a label map or a part of it."""
    edges = np.zeros(labels.shape, dtype=np.uint8)
    for axis in range(labels.ndim):
        along, marked = np.moveaxis(labels, axis, 0), np.moveaxis(edges, axis, 0)
        changes = along[1:] != along[:-1]
        marked[1:] |= changes
        marked[:-1] |= changes
    boxes = ndimage.find_objects(edges)
    if not boxes:
        return edges.view(np.bool_)
    steps = geometry.spacing or (1.0,) * labels.ndim
    reach = [max(1, round(NEAR / step)) for step in steps]
    box = tuple(slice(max(0, part.start - n), part.stop + n) for part, n in zip(boxes[0], reach, strict=True))
    part = edges[box].copy()
    for axis, n in enumerate(reach):
        ndimage.maximum_filter1d(part, 2 * n + 1, axis=axis, output=part, mode="constant")
    edges[box] = part
    return edges.view(np.bool_)


def _mixed(numbers: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Numbers that look drawn at random, each in its place (lowbias32 of the Hash Function Prospector)."""
    mixed = numbers ^ (numbers >> np.uint32(16))
    mixed *= np.uint32(0x7FEB352D)
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0x846CA68B)
    return np.asarray(mixed ^ (mixed >> np.uint32(16)))
