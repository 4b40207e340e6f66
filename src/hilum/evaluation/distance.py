"""Distances between two surfaces, in mm, or in pixels or voxels where the size of one is not known.

A surface is made of one element at each corner of voxels where inside and outside meet. Every face between them gives
an equal share of its area vector to each of its corners, and the length of their sum is the element's area. So the
elements of a flat or a diagonal plane add up to the plane's own area, in 2D as in 3D. Each lies in the middle of the
faces' centres around its corner: between the corners themselves the nearest is too near, by up to half a voxel, and
only `nsd` keeps to them, because the published figures do.

The surface of a structure in a volume of a single slice is its outline, as in a picture: above and below the slice
there is nothing to be found.

Where the truth is not known in some voxels, elements with such a voxel around their corner do not count, on either
surface: there both masks end because nothing is known beyond, which says neither that they agree nor that they do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum.errors import GeometryError
from hilum.evaluation import _weighting
from hilum.evaluation.metric import Metric
from hilum.lazy import ndimage, spatial
from hilum.values import Floats, grid_geometry

# Distances are sums of floats: what lies exactly at the tolerance must not fall out by rounding.
ROUNDING = 1e-6
# The code of a corner is a byte: a bit for each of the eight voxels around it in 3D.
AXES = range(1, 4)
SURFACE_METRICS = (
    Metric("hd95", "HD95", "less", unit="mm", least=0.0),
    Metric("hd95_points", "HD95 over boundary points", "less", unit="mm", least=0.0),
    Metric("hd", "HD", "less", unit="mm", least=0.0),
    Metric("assd", "ASSD", "less", unit="mm", least=0.0),
    Metric("nsd", "NSD", worst=0.0),
)

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class MaskSurface:
    """The elements of a mask's surface, in mm from the mask's first corner.

    places:  (elements, axes) the middle of each
    corners: (elements, axes) the corner of voxels that it belongs to
    areas:   (elements,) mm², in 2D lengths in mm
    voxels:  (boundary voxels, axes) the centre of each voxel of the mask that has a face outside
    is_empty: whether the mask holds nothing; one that lies in unknown voxels all around has no element either
    """

    places: Floats
    corners: Floats
    areas: Floats
    voxels: Floats
    is_empty: bool

    @classmethod
    def from_mask(cls, mask: Mask, spacing: ArrayLike, known: Mask | None = None) -> MaskSurface:
        """spacing: (axes,) mm, or (axes, axes) as for `surface_distance`

        known: as the mask with a margin of one voxel, where the truth is known; the mask holds known voxels only
        """
        codes = _codes(np.pad(mask, 1))  # what touches the border of the image ends there
        steps = _weighting.spacing_steps(spacing)
        areas, offsets = surface_elements(tuple(map(tuple, steps.tolist())))
        counted = (codes > 0) & (codes < len(areas) - 1)
        goes_on = mask
        if known is not None:
            counted &= _codes(known) == len(areas) - 1
            goes_on = mask | ~known[(slice(1, -1),) * mask.ndim]
        corners = np.nonzero(counted)
        index = np.stack(corners, axis=1)
        code = codes[corners]
        boundary = np.argwhere(mask & ~ndimage.binary_erosion(goes_on)) + 0.5
        places = (index + offsets[code]) @ steps.T
        return cls(places, index @ steps.T, areas[code], boundary @ steps.T, not mask.any())


@dataclass(frozen=True, eq=False)
class SurfaceDistance:
    """Two surfaces, and figures of how far each lies from the other, weighted by area.

    worst: the diagonal of the image, which stands for a distance where one surface is missing
    unit:  "mm"; without a spacing "pixels", of volumes "voxels"
    Where both surfaces are missing the figures are NaN, and where a mask has voxels but nothing known around them.
    Weighting by area: Nikolov et al., J Med Internet Res 2021, doi:10.2196/26151
    """

    prediction: MaskSurface
    reference: MaskSurface
    worst: float
    unit: str

    @property
    def hd95(self) -> float:
        """The larger of the two directed distances within which 95 % of a surface lie.

        Huttenlocher et al., IEEE PAMI 1993, doi:10.1109/34.232073
        """
        if (instead := self._where_missing(self.worst)) is not None:
            return instead
        forth, back = self._distances
        return max(_quantile(forth, self.prediction.areas, 0.95), _quantile(back, self.reference.areas, 0.95))

    @property
    def hd(self) -> float:
        """The Hausdorff distance: the largest from either surface to the other. A single wrong voxel decides it."""
        if (instead := self._where_missing(self.worst)) is not None:
            return instead
        return max(float(distances.max()) for distances in self._distances)

    @property
    def hd95_points(self) -> float:
        """The larger of the two 95th percentiles over boundary voxels, each counted once: as MONAI computes it.

        The usual figure of publications; voxels that are long across slices make it depend on the grid.
        """
        if (instead := self._where_missing(self.worst)) is not None:
            return instead
        both = _both_directions(self.prediction.voxels, self.reference.voxels)
        return max(float(np.percentile(distances, 95)) for distances in both)

    @property
    def assd(self) -> float:
        """Average symmetric surface distance: the mean over the area of both surfaces."""
        if (instead := self._where_missing(self.worst)) is not None:
            return instead
        return float(np.average(np.concatenate(self._distances), weights=self._areas))

    def nsd(self, tolerance: float) -> float:
        """Normalised surface distance: share of both surfaces no further than `tolerance` (in `unit`) from the other.

        0 where one is missing. Measured between corners, as published:
        Nikolov et al., J Med Internet Res 2021, doi:10.2196/26151
        """
        if (instead := self._where_missing(0.0)) is not None:
            return instead
        near = np.concatenate(self._corner_distances) <= tolerance + ROUNDING
        return float(np.average(near, weights=self._areas))

    @cached_property
    def _distances(self) -> tuple[Floats, Floats]:
        return _both_directions(self.prediction.places, self.reference.places)

    @cached_property
    def _corner_distances(self) -> tuple[Floats, Floats]:
        return _both_directions(self.prediction.corners, self.reference.corners)

    @property
    def _areas(self) -> Floats:
        return np.concatenate([self.prediction.areas, self.reference.areas])

    def _where_missing(self, worst: float) -> float | None:
        """The value instead: the worst where one mask is empty, NaN where a surface is missing, else None."""
        if self.prediction.is_empty != self.reference.is_empty:
            return worst
        return None if len(self.prediction.areas) and len(self.reference.areas) else float("nan")


def surface_distance(
    prediction: ArrayLike,
    reference: ArrayLike,
    spacing: ArrayLike | None = None,
    *,
    known: ArrayLike | None = None,
    extent: Sequence[int] | None = None,
) -> SurfaceDistance:
    """The surfaces of two masks of one grid, (*spatial) with one to three axes, against each other.

    spacing: mm per axis; or (axes, axes), whose columns are the steps of one index in mm, as in an affine: under a
             tilted gantry they do not stand at right angles. Without it the distances count pixels or voxels
    known:   (*spatial) where the truth is known; what borders on other voxels is no surface. None for everywhere
    extent:  voxels per axis of the whole image, where the masks are a box of it with a voxel around each structure
    A volume of a single slice is measured in its plane.
    Raises GeometryError for masks of two grids.
    """
    predicted = np.asarray(prediction, dtype=bool)
    true = np.asarray(reference, dtype=bool)
    steps = _weighting.spacing_steps(np.ones(true.ndim) if spacing is None else spacing)
    if true.ndim not in AXES:
        raise GeometryError(f"a mask with {true.ndim} axes", "surface_distance", "Give one to three, without channels")
    if predicted.shape != true.shape or len(steps) != true.ndim:
        problem = (
            f"a prediction of {predicted.shape} and a spacing of {len(steps)} axes for a reference of {true.shape}"
        )
        raise GeometryError(problem, "surface_distance", "Score on the reference's own grid")
    unit = "mm" if spacing is not None else grid_geometry.pixels_or_voxels(true.ndim)
    sizes = tuple(extent or true.shape)
    where = None if known is None else np.asarray(known, dtype=bool)
    if where is not None:
        predicted = predicted & where
        true = true & where
    if true.ndim == 3 and 1 in sizes:
        # The faces of a slice, which both masks share, would hide how far apart their outlines are.
        flat = max(axis for axis, size in enumerate(sizes) if size == 1)
        predicted = predicted.squeeze(flat)
        true = true.squeeze(flat)
        steps = _within_plane(steps, flat)
        sizes = sizes[:flat] + sizes[flat + 1 :]
        where = None if where is None else where.squeeze(flat)
    region = _bounding_box(predicted | true)
    around = None if where is None else _with_margin(where, region)
    return SurfaceDistance(
        prediction=MaskSurface.from_mask(predicted[region], steps, around),
        reference=MaskSurface.from_mask(true[region], steps, around),
        worst=_diagonal(sizes, steps),
        unit=unit,
    )


@lru_cache(maxsize=64)
def surface_elements(spacing: tuple[float, ...] | tuple[tuple[float, ...], ...]) -> tuple[Floats, Floats]:
    """Area (codes,) and offset in voxels (codes, axes) of the element at a corner, by which voxels around are inside.

    spacing: as for `surface_distance`
    code:    bit k is the k-th of the 2**axes voxels around the corner, the last axis running fastest
    Voxels that meet only at this corner or along an edge have surfaces of their own: a thin diagonal line has both
    its sides.
    """
    steps = _weighting.spacing_steps(spacing)
    axes = len(steps)
    bits = np.arange(2 ** (2**axes))[:, None] >> np.arange(2**axes) & 1
    around = bits.astype(bool).reshape(-1, *(2,) * axes)
    # An area vector counted in faces becomes one in mm² by the cofactors of the steps.
    faces_to_mm = abs(np.linalg.det(steps)) * np.linalg.inv(steps).T / 2 ** (axes - 1)
    areas = [max(_area_of_pieces(voxels, faces_to_mm), _area_of_pieces(~voxels, faces_to_mm)) for voxels in around]
    return np.array(areas), np.array([_middle_of_faces(voxels) for voxels in around])


def _codes(padded: Mask) -> NDArray[np.uint8]:
    """Code of each inner corner of a mask, for `surface_elements`."""
    codes = np.zeros(tuple(size - 1 for size in padded.shape), dtype=np.uint8)
    for bit, offset in enumerate(product((0, 1), repeat=padded.ndim)):
        voxel = padded[tuple(slice(o, o + size) for o, size in zip(offset, codes.shape, strict=True))]
        codes |= voxel.view(np.uint8) << np.uint8(bit)
    return codes


def _area_of_pieces(voxels: Mask, faces_to_mm: Floats) -> float:
    pieces, count = ndimage.label(voxels)
    vectors = [faces_to_mm @ _faces(pieces == piece) for piece in range(1, count + 1)]
    return float(sum(np.linalg.norm(vector) for vector in vectors))


def _faces(piece: Mask) -> Floats:
    """(axes,) faces of the piece across each axis, those that look back counted against those that look forth.

    Each gives an equal share to every corner that it has; this is the sum around one.
    """
    return np.array([np.diff(piece.astype(np.int8), axis=axis).sum() for axis in range(piece.ndim)], dtype=float)


def _within_plane(steps: Floats, flat: int) -> Floats:
    """(2, 2) steps of the axes of a slice within its plane, which may stand obliquely in space."""
    return np.asarray(np.linalg.qr(np.delete(steps, flat, axis=1))[1])


def _diagonal(shape: Sequence[int], steps: Floats) -> float:
    """The longest of the grid's diagonals, mm."""
    turns = np.array(list(product((-1, 1), repeat=len(shape))))
    return float(np.linalg.norm(turns * np.asarray(shape) @ steps.T, axis=1).max())


def _middle_of_faces(voxels: Mask) -> Floats:
    """Mean offset from the corner to the centres of the faces around it, in voxels; none where there is no face."""
    centres = []
    for axis in range(voxels.ndim):
        faces = np.argwhere(np.diff(voxels, axis=axis)) - 0.5
        faces[:, axis] = 0.0
        centres.append(faces)
    middles = np.concatenate(centres)
    return np.asarray(middles.mean(axis=0)) if len(middles) else np.zeros(voxels.ndim)


def _both_directions(places: Floats, others: Floats) -> tuple[Floats, Floats]:
    """Distance from each place to the nearest of the others, and from each of the others to the nearest place."""
    return np.asarray(spatial.KDTree(others).query(places)[0]), np.asarray(spatial.KDTree(places).query(others)[0])


def _quantile(distances: Floats, areas: Floats, share: float) -> float:
    """The smallest distance within which at least this share of the area lies."""
    order = np.argsort(distances)
    covered = np.cumsum(areas[order])
    position = np.searchsorted(covered, share * covered[-1] * (1 - ROUNDING))
    return float(distances[order][position])


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    boxes = ndimage.find_objects(mask.view(np.uint8))
    return boxes[0] if boxes and boxes[0] else (slice(0, 0),) * mask.ndim


def _with_margin(mask: Mask, region: tuple[slice, ...]) -> Mask:
    """The region and the voxels next to it; beyond the image, where structures end, nothing is unknown."""
    wide = tuple(slice(max(0, own.start - 1), own.stop + 1) for own in region)
    beyond = [(int(own.start == 0), int(own.stop >= size)) for own, size in zip(region, mask.shape, strict=True)]
    return np.pad(mask[wide], beyond, constant_values=True)
