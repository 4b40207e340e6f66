"""Connectedness of vessels: centrelines, pieces and loops of masks with any number of axes.

A centreline is what thinning leaves: voxels are taken from a mask, a layer at a time, as long as neither its pieces nor
its loops nor its cavities change and no end becomes shorter (Kong and Rosenfeld, Comput Vis Graph Image Process 1989,
doi:10.1016/0734-189X(89)90147-3, for when a voxel is simple; Bertrand and Aktouf, Vision Geometry III 1995,
doi:10.1117/12.198599, for the subfields, in each of which all simple voxels can go at once).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum.errors import GeometryError
from hilum.evaluation.metric import Metric
from hilum.lazy import ndimage

Mask = NDArray[np.bool_]
CENTRELINE_METRICS = (
    Metric("cldice", "Centreline Dice", worst=0.0),
    Metric("centreline_recall", worst=0.0),
    Metric("centreline_precision", worst=0.0),
    Metric("components_error", better="less", unit="pieces"),
    Metric("loops_error", better="less", unit="loops"),
)


@dataclass(frozen=True)
class Centreline:
    """Agreement of a prediction with the centreline of a reference; NaN where both are empty, 0 where one is.

    recall:     share of the reference's centreline that lies in the prediction
    precision:  share of the prediction's centreline that lies in the reference
    components: connected pieces of the prediction, less those of the reference (Betti number 0)
    loops:      the same of loops (Betti number 1)
    """

    recall: float
    precision: float
    components: int
    loops: int

    @property
    def dice(self) -> float:
        """Centreline Dice (clDice): Shit et al., arXiv:2003.07311."""
        total = self.recall + self.precision
        return 2 * self.recall * self.precision / total if total else total


def compare_centrelines(prediction: ArrayLike, reference: ArrayLike) -> Centreline:
    """The figures of two masks (*spatial) of one grid."""
    called = np.asarray(prediction, dtype=bool)
    true = np.asarray(reference, dtype=bool)
    if called.shape != true.shape:
        problem = f"a prediction of {called.shape} for a reference of {true.shape}"
        raise GeometryError(problem, "centreline", "Score on the reference's own grid")
    for box in ndimage.find_objects((called | true).view(np.uint8)):
        called = called[box]
        true = true[box]
    pieces, loops = (ours - theirs for ours, theirs in zip(betti_numbers(called), betti_numbers(true), strict=True))
    return Centreline(_inside(true, called), _inside(called, true), pieces, loops)


def skeleton(mask: ArrayLike) -> Mask:
    """The centreline of a mask (*spatial), one voxel thin; a membrane becomes the lines that hold it together."""
    inside = np.asarray(mask, dtype=bool)
    thinned = np.pad(inside, 1)
    while True:
        # Of each layer only what lies at the surface when it begins, so that all sides are eaten alike.
        border = thinned & ~ndimage.binary_erosion(thinned)
        before = np.count_nonzero(thinned)
        for field in product((0, 1), repeat=thinned.ndim):
            _thin(thinned, border, field)
        if np.count_nonzero(thinned) == before:
            return np.asarray(thinned[(slice(1, -1),) * thinned.ndim])


def betti_numbers(mask: ArrayLike) -> tuple[int, int]:
    """Pieces and loops of a mask (*spatial), corners touching: Betti numbers 0 and 1.

    Loops follow from the Euler characteristic of the union of closed voxels: pieces less loops (plus cavities in 3D).
    """
    inside = np.pad(np.asarray(mask, dtype=bool), 1)
    pieces = int(ndimage.label(inside, np.ones((3,) * inside.ndim))[1])
    cavities = int(ndimage.label(~inside)[1]) - 1 if inside.ndim > 2 else 0
    return pieces, pieces + cavities - _euler(inside)


def _inside(lines_of: Mask, mask: Mask) -> float:
    """Share of the centreline of one mask that lies in another."""
    if not lines_of.any():
        return float("nan") if not mask.any() else 0.0
    lines = skeleton(lines_of)
    return float(np.count_nonzero(lines & mask) / np.count_nonzero(lines))


def _euler(inside: Mask) -> int:
    """Corners less edges, plus faces, less ... of the union of closed voxels; no voxel lies at the grid's border."""
    total = 0
    axes = inside.ndim
    for across in product((False, True), repeat=axes):  # along these axes a cell has no length
        cells = inside
        for axis in np.flatnonzero(across):
            later, earlier = [slice(None)] * axes, [slice(None)] * axes
            later[axis] = slice(1, None)
            earlier[axis] = slice(None, -1)
            cells = cells[tuple(later)] | cells[tuple(earlier)]
        total += (-1) ** (axes - sum(across)) * int(np.count_nonzero(cells))
    return total


def _thin(thinned: Mask, border: Mask, field: tuple[int, ...]) -> None:
    """Take away, in place, the border voxels of a subfield that may go: no two of them are neighbours."""
    part = tuple(slice(start, None, 2) for start in field)
    places = np.argwhere(border[part] & thinned[part]) * 2 + np.array(field)
    if not len(places):
        return
    around = _offsets(thinned.ndim)
    codes = np.zeros(len(places), dtype=np.int64)
    for bit, offset in enumerate(around):
        codes |= thinned[tuple((places + offset).T)].astype(np.int64) << bit
    distinct, owner = np.unique(codes, return_inverse=True)
    going = np.array([_may_go(int(code), thinned.ndim) for code in distinct])[owner]
    thinned[tuple(places[going].T)] = False


@cache
def _offsets(axes: int) -> tuple[tuple[int, ...], ...]:
    """To each neighbour, corners included."""
    return tuple(offset for offset in product((-1, 0, 1), repeat=axes) if any(offset))


@cache
def _may_go(code: int, axes: int) -> bool:
    """Whether a voxel with these neighbours can go: it is no end, and what is around it stays connected as it was."""
    around = _offsets(axes)
    voxels = np.zeros((3,) * axes, dtype=bool)
    for bit, offset in enumerate(around):
        voxels[tuple(np.add(offset, 1))] = bool(code >> bit & 1)
    if np.count_nonzero(voxels) < 2:  # alone, or the end of a line
        return False
    if ndimage.label(voxels, np.ones((3,) * axes))[1] != 1:
        return False
    # The background around it: pieces that touch the voxel by a face, through neighbours that share at least an edge.
    outside = ~voxels & (np.abs(np.indices(voxels.shape) - 1).sum(axis=0) < max(3, axes))
    outside[(1,) * axes] = False
    pieces, _ = ndimage.label(outside)
    faces = [pieces[tuple(np.add(offset, 1))] for offset in around if np.abs(offset).sum() == 1]
    return len({int(piece) for piece in faces} - {0}) == 1
