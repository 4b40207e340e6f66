"""Targets: the image that an image should become, on its own field, with a grid as fine as its or finer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.lazy import ndimage
from hilum.transforms import resampling
from hilum.values import (
    Array,
    CaseReference,
    Cohort,
    Floats,
    Geometry,
    Image,
    Problem,
    ReferenceChecks,
    ReferenceFacts,
    ReferenceKind,
    ReferenceWords,
)
from hilum.values.reference_kind import ReferenceMeasures, TargetMeasures
from hilum.values.voxel_images import SCALE, UNKNOWN_TARGET

KIND = "target"
# Voxels along each axis of the middle of an image in which shifts are looked for.
LOOKED_AT = 128
# A shift of more voxels is reported, where the edges of both images then agree better by so much of a correlation.
MOST_SHIFT, GAINED = 0.5, 0.02
# By how much finer than a voxel shifts are found, and how far they are looked for in voxels.
FINENESS, FARTHEST = 4, 8
# Targets of this slope on their inputs, and correlated at least so, have the unit of their inputs.
SAME_UNIT, CORRELATED = (0.8, 1.25), 0.5
# Of one case in a set whose others have the unit of their inputs.
OTHER_UNIT = (0.5, 2.0)
# Voxels by which the fields of an image and its target may differ.
FIELD = 0.5


def grid_scale(image: Geometry, target: Geometry) -> tuple[int, ...] | None:
    """By which whole factor the grid of a target is finer along each axis; None where its field is another.

    Of pictures without a size the numbers of pixels alone say it.
    """
    if image.ndim != target.ndim or image.physical != target.physical:
        return None
    scale = [new / old for new, old in zip(target.shape, image.shape, strict=True)]
    if any(one < 1 or one != round(one) for one in scale):
        return None
    if image.physical:
        ends = list(product(*[(-0.5, n - 0.5) for n in image.shape]))
        finer = list(product(*[(-0.5, n - 0.5) for n in target.shape]))
        apart = np.linalg.norm(image.to_world(ends) - target.to_world(finer), axis=1).max()
        if apart > FIELD * min(image.steps):
            return None
    return tuple(int(one) for one in scale)


def coarse_target(target: Array, shape: tuple[int, ...]) -> Floats:
    """(*spatial) of a target on the grid of its input."""
    return np.asarray(resampling.resample(np.asarray(target, np.float32)[None], shape)[0], dtype=np.float64)


def _measure(reference: CaseReference) -> ReferenceMeasures:
    """Statistics of each channel, the grid, how it depends on the input, and by how many voxels it is shifted."""
    target, image = reference.value, reference.image
    data, valid = target.data, target.valid
    measured = [
        own[known].astype(np.float64) if known.any() else np.zeros(1) for own, known in zip(data, valid, strict=True)
    ]
    first = coarse_target(np.where(valid[0], data[0], 0), image.geometry.shape)
    given = np.asarray(image.data[0], dtype=np.float64)
    slope, correlation = _dependence(first, np.where(reference.valid[0], given, 0))
    return ReferenceMeasures(
        TargetMeasures(
            mean=[float(one.mean()) for one in measured],
            deviation=[float(one.std()) for one in measured],
            low=[float(one.min()) for one in measured],
            high=[float(one.max()) for one in measured],
            channels=list(target.channels),
            modality=target.modality,
            scale=list(image.facts.get(SCALE, [1] * image.geometry.ndim)),
            measured=float(valid.mean()),
            same_unit=SAME_UNIT[0] <= slope <= SAME_UNIT[1] and correlation >= CORRELATED,
            other_unit=correlation >= CORRELATED and not OTHER_UNIT[0] <= slope <= OTHER_UNIT[1],
            shift=shift_between(given, first),
            equal=UNKNOWN_TARGET not in target.facts
            and data.shape == image.shape
            and bool(np.array_equal(data, image.data)),
        )
    )


def _dependence(target: Floats, image: Floats) -> tuple[float, float]:
    """The slope of an image on its target, which noise in the image leaves, and their correlation; 0 of a constant."""
    both = np.cov(target.ravel(), image.ravel())
    if min(both[0, 0], both[1, 1]) <= 0:
        return 0.0, 0.0
    return float(both[0, 1] / both[0, 0]), float(both[0, 1] / math.sqrt(both[0, 0] * both[1, 1]))


def shift_between(image: Floats, target: Floats) -> list[float]:
    """Voxels along each axis by which a target lies beside its image; zeros where no shift makes them agree better.

    By the phase correlation of their edges, which other contrasts share (Kuglin and Hines 1975), and as few voxels as
    noise in the images permits: a shift has to gain something.
    """
    middle = tuple(
        slice(max(0, (n - LOOKED_AT) // 2), min(n, (n + LOOKED_AT) // 2)) if n > 2 else slice(None) for n in image.shape
    )
    edges = [_edges(one[middle]) for one in (image, target)]
    nothing = [0.0] * image.ndim
    if min(one.std() for one in edges) == 0:
        return nothing
    spectra = [np.fft.fftn(one - one.mean()) for one in edges]
    product_of_both = spectra[0] * np.conj(spectra[1])
    peak = np.fft.ifftn(product_of_both / np.maximum(np.abs(product_of_both), 1e-12)).real
    far = np.array([np.minimum(FARTHEST, n // 4) for n in peak.shape])
    near = np.fft.fftshift(peak)[tuple(slice(n // 2 - f, n // 2 + f + 1) for n, f in zip(peak.shape, far, strict=True))]
    whole = np.array(np.unravel_index(near.argmax(), near.shape)) - far
    best = max(_around(whole), key=lambda shift: _agreement(spectra, shift))
    gained = _agreement(spectra, best) - _agreement(spectra, np.zeros(image.ndim))
    return (0.0 - best).tolist() if gained > GAINED else nothing


def _edges(image: Floats) -> Floats:
    """(*spatial) the length of the gradient of a slightly smoothed image."""
    smooth = ndimage.gaussian_filter(np.nan_to_num(image), [1.0 if n > 2 else 0.0 for n in image.shape])
    slopes = [np.gradient(smooth, axis=axis) for axis, n in enumerate(image.shape) if n > 1]
    return np.asarray(np.sqrt(sum(np.square(one) for one in slopes)))


def _around(whole: NDArray[Any]) -> Iterator[Floats]:
    """Shifts by parts of a voxel around a whole one, one axis after the other."""
    yield whole.astype(np.float64)
    for axis in range(len(whole)):
        for part in range(1 - FINENESS, FINENESS):
            yield whole + np.eye(len(whole))[axis] * part / FINENESS


def _agreement(spectra: list[NDArray[np.complex128]], shift: Floats) -> float:
    """The correlation of two images of which the second is moved by a shift, by their spectra."""
    moved = ndimage.fourier_shift(spectra[1], shift)
    scale = math.sqrt(float((np.abs(spectra[0]) ** 2).sum() * (np.abs(spectra[1]) ** 2).sum()))
    return float((spectra[0] * np.conj(moved)).real.sum()) / scale


def _unusable(reference: CaseReference) -> Iterator[Problem]:
    target, image = reference.value, reference.image
    case, remedy = (reference.case,), "Give the target of this image, resampled onto its field"
    if image.frames is not None or target.frames is not None:
        yield Problem.error("an image or its target has frames", case, "only still images are enhanced", remedy)
        return
    frames = {one.geometry.frame_of_reference for one in (image, target)} - {None}
    if len(frames) > 1:
        what = "the target lies in another frame of reference than its image"
        yield Problem.error(what, case, "it may be of another patient", remedy)
    elif grid_scale(image.geometry, target.geometry) != (1,) * image.geometry.ndim:
        what = f"the target shows another field than its image: {_other_field(image, target)}"
        yield Problem.error(what, case, "nobody knows which voxel becomes which", remedy)
    elif not target.valid.any():
        yield Problem.error("nothing is measured in the target", case, "it teaches nothing", remedy)


def _other_field(image: Image, target: Image) -> str:
    return target.geometry.difference(image.geometry)


def _case_problems(reference: CaseReference, measures: ReferenceMeasures) -> Iterator[Problem]:
    summary, case = measures.summary, (reference.case,)
    if summary["equal"]:
        yield Problem.warning(
            "the target equals its image", case, "the network learns to change nothing", "Give its target", "target"
        )
    if max(map(abs, summary["shift"])) > MOST_SHIFT:
        by = " x ".join(f"{one:g}" for one in summary["shift"])
        yield Problem.warning(
            f"the target is shifted against its image by {by} voxels",
            case,
            "what is taught is blurred by as much",
            "Align them, as hilum register does, or leave the case out",
            kind="target",
        )


def _cohort_problems(cohort: Cohort) -> Iterator[Problem]:
    """Targets of another unit among those that have the unit of their inputs."""
    own = cohort.summaries(KIND)
    same = sum(one["same_unit"] for one in own.values())
    strange = tuple(name for name, one in own.items() if one["other_unit"])
    if strange and 2 * same > len(own):
        yield Problem.warning(
            f"{errors.count_phrase(len(strange), 'target seems', 'targets seem')} to have another unit than the image",
            strange,
            "the network would learn to change the unit",
            "Correct its values, or leave the case out",
            kind="target",
        )


def _lines(cohort: Cohort) -> Mapping[str, str]:
    own = list(cohort.summaries(KIND).values())
    if not own:
        return {}
    same = sum(one["same_unit"] for one in own)
    finer = sum(max(one["scale"]) > 1 for one in own)
    grids = f", {finer} on a finer grid" if finer else ""
    return {"targets": f"{len(own)}, {same} in the unit of their image{grids}"}


def _nowhere(value: Any) -> None:
    """Nothing is outlined: a target is an image of its own."""


TARGET = ReferenceKind(
    KIND,
    facts=ReferenceFacts(_measure),
    checks=ReferenceChecks(unusable=_unusable, odd=_case_problems, cohort=_cohort_problems),
    words=ReferenceWords("targets", lines=_lines, outlined=_nowhere),
    is_image=True,
)
