"""Images that do not look like the others of their set: reversed, inverted, rolled, of another kind, or partly blank.

Each small image is compared with the mean of all others, as it is and changed in the ways in which files go wrong. A
set whose images have no common pose has no such mean, and only blank slabs are looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hilum.quality import axis_words, outlier_limits
from hilum.quality.image_descriptors import ImageLook
from hilum.values import CaseFacts, Floats, Problem

# Chance that any image of a right set is named: by what would suit it better, and by its likeness.
CHANGE_ALPHA, LIKENESS_ALPHA = 0.02, 0.005
# Deviations of correlations count as at least this, and they as at most that.
LEAST_CORRELATION, MOST_CORRELATION = 0.05, 0.999
# In a set whose middle image is less like the others (after Fisher's transformation; a correlation of .46), images have
# no common pose.
LEAST_LIKENESS = 0.5
# A plane of the small image whose values differ by less is of one value; so many next to each other are a slab.
BLANK, FEWEST_BLANK = 1e-3, 2
REMEDY = "Look at them; correct or leave out what is wrong, or confirm that such images belong to the data"


@dataclass(frozen=True)
class _Change:
    """A way in which an image may have gone wrong, undone by `undo`."""

    words: str
    undo: Callable[[Floats], Floats]


def unlike_images(facts: Sequence[CaseFacts], looks: Mapping[str, ImageLook]) -> Iterator[Problem]:
    """Cases whose image is unlike those of the same modality, channels and number of axes, each with what is likely."""
    kinds: dict[tuple[str, tuple[str, ...], int], list[CaseFacts]] = {}
    for case in facts:
        kinds.setdefault((case.modality, case.channels, len(case.shape)), []).append(case)
    for alike in kinds.values():
        if len(alike) >= outlier_limits.FEWEST:
            names = [case.id for case in alike]
            small = np.stack([np.asarray(looks[name].small, dtype=np.float64) for name in names])
            yield from _blank_slabs(names, small)
            yield from _changed(names, small, oriented=alike[0].oriented)


def _changed(names: Sequence[str], small: Floats, *, oriented: bool) -> Iterator[Problem]:
    changes = _changes(small.ndim - 1, oriented=oriented)
    likeness, changed = correlations(small, [change.undo for change in changes])
    if np.median(likeness) < LEAST_LIKENESS:
        return
    gains = changed.max(axis=1) - likeness
    better = outlier_limits.upper_deviations(gains, LEAST_CORRELATION)
    worse = outlier_limits.upper_deviations(-likeness, LEAST_CORRELATION)
    is_changed = (better > outlier_limits.threshold(len(names), 1, CHANGE_ALPHA)) & (gains > 0)
    is_unlike = worse > outlier_limits.threshold(len(names), 1, LIKENESS_ALPHA)
    for number in np.flatnonzero(is_changed | is_unlike).tolist():
        if is_changed[number]:
            what = f"the image looks {changes[int(changed[number].argmax())].words}, compared with the other images"
        else:
            what = "the image looks unlike the others: another organ, view or contrast, or a part of it is missing"
        yield Problem.warning(
            what, (names[number],), "a model learns from it what is not so elsewhere", REMEDY, kind="unlike-image"
        )


def correlations(small: Floats, undoings: Sequence[Callable[[Floats], Floats]]) -> tuple[Floats, Floats]:
    """(cases,) and (cases, changes) correlation of each image with the mean of the others, as it is and undone.

    After Fisher's transformation, without which the tail of high correlations is long.

    small: (cases, *spatial)
    """
    standard = np.stack([_standardise(image) for image in small])
    total = standard.sum(axis=0)
    likeness = np.empty(len(small))
    changed = np.empty((len(small), len(undoings)))
    for number, image in enumerate(standard):
        mean = _standardise(total - image)
        likeness[number] = (mean * image).sum()
        for place, undo in enumerate(undoings):
            changed[number, place] = (mean * undo(image)).sum()
    return _fisher(likeness), _fisher(changed)


def _fisher(correlation: Floats) -> Floats:
    return np.asarray(np.arctanh(np.clip(correlation, -MOST_CORRELATION, MOST_CORRELATION)))


def _standardise(image: Floats) -> Floats:
    centred = image - image.mean()
    return np.asarray(centred / max(float(np.linalg.norm(centred)), 1e-12))


def _changes(axes: int, *, oriented: bool) -> list[_Change]:
    """Reversed along each axis, rolled by half of it, and inverted."""
    changes = [_Change("inverted in its grey values", np.negative)]
    for axis, how in enumerate(axis_words.mirror_words(axes, oriented=oriented)):
        changes.append(_Change(f"mirrored {how}", _flip_along(axis)))
        changes.append(_Change(f"rolled by half of axis {axis + 1}", _roll_along(axis)))
    return changes


def _flip_along(axis: int) -> Callable[[Floats], Floats]:
    return lambda image: np.flip(image, axis)


def _roll_along(axis: int) -> Callable[[Floats], Floats]:
    return lambda image: np.roll(image, image.shape[axis] // 2, axis)


def _blank_slabs(names: Sequence[str], small: Floats) -> Iterator[Problem]:
    """Images with neighbouring slices of one value between slices that show something, where hardly any other has."""
    slabs = np.array([[blank_planes(image, axis) for axis in range(image.ndim)] for image in small])
    has_slab = slabs.max(axis=1) >= FEWEST_BLANK
    if not 0 < has_slab.sum() <= max(1, len(names) // 10):
        return
    for number in np.flatnonzero(has_slab).tolist():
        axis = int(slabs[number].argmax())
        share = slabs[number, axis] / small.shape[axis + 1]
        yield Problem.warning(
            f"slices of one value lie within the image, about {100 * share:.0f} % along axis {axis + 1}",
            (names[number],),
            "a part of the image was lost; a mask there marks nothing",
            REMEDY,
            kind="blank-slab",
        )


def blank_planes(image: Floats, axis: int) -> int:
    """The longest run of planes of one value along an axis between planes that show something."""
    planes = np.moveaxis(image, axis, 0).reshape(image.shape[axis], -1)
    is_blank = np.ptp(planes, axis=1) < BLANK
    shown = np.flatnonzero(~is_blank)
    if not len(shown):
        return 0
    inner = is_blank[shown[0] : shown[-1] + 1]
    longest = run = 0
    for blank in inner:
        run = run + 1 if blank else 0
        longest = max(longest, run)
    return longest
