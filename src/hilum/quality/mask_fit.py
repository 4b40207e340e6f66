"""Masks that do not fit their image, told by the other cases of the set, with the likely cause.

How an image looks along the surface of a mask that lies where it should is learnt from the other cases: their masks as
they are, against the same masks moved. A case stands out where its mask would fit as well or better elsewhere, by how
much it does so in other cases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from hilum import errors
from hilum.errors import HilumError
from hilum.quality import axis_words, mask_placement, outlier_limits
from hilum.quality.image_descriptors import ImageLook
from hilum.quality.mask_placement import NEAR, MaskPlacement, Surface, TriedPlace
from hilum.quality.references import instances, masks
from hilum.transforms import channel_stack, label_maps
from hilum.values import Array, Case, Cohort, Floats, Geometry, Image, Problem

# Chance that anything is named in a set in which all is right: by places, by contrast, and by pairs of structures.
PLACE_ALPHA, CONTRAST_ALPHA, PAIR_ALPHA = 0.02, 0.01, 0.02
# Weight of each feature's own variance beside the covariance that few cases cannot show.
SHRINKAGE = 1.0
# Deviations count as at least this: of contrasts in ranks, of logarithms of volumes' ratios; those of scores as at
# least this share of what a mirrored mask usually loses.
LEAST_CONTRAST, LEAST_RATIO = 0.05, 0.1
LEAST_GAIN = 0.2
# In a set where the middle case fits no better than elsewhere by so much, nothing can be called unusual.
LEAST_LIFT = 0.5
# Structures of which each pair is compared, and other cases whose masks are tried on a case.
MOST_PAIRED, MOST_EXCHANGED = 8, 10
FITS_NOWHERE = "the mask fits the image no better than it would elsewhere, unlike the other cases' masks"
WRONG_PLACE = "a structure would be learnt, and scored, in the wrong place"
LOOK_AT = "Look at mask and image together"


@dataclass(frozen=True, eq=False)
class PlacedCases:
    """Cases of one number of axes with a mask, and how well each fits at every place.

    scores:   (cases, placements) in standard deviations of what a move does to the other cases
    weights:  {value: (cases, features)} learnt without that case
    """

    cases: tuple[Case, ...]
    placements: tuple[MaskPlacement, ...]
    scores: Floats
    weights: Mapping[int, Floats]

    @classmethod
    def of_placements(cls, measured: Sequence[tuple[Case, MaskPlacement]]) -> PlacedCases:
        """Scores of all cases, each by what the others teach; structures that few cases have do not count."""
        cases = tuple(case for case, _ in measured)
        placements = tuple(placement for _, placement in measured)
        axes = len(placements[0].unit)
        totals = np.zeros((len(cases), len(mask_placement.tried_placements(axes))))
        structures = np.zeros(len(cases))
        weights: dict[int, Floats] = {}
        for value in sorted({value for placement in placements for value in placement.surfaces}):
            has_it = [number for number, placement in enumerate(placements) if value in placement.surfaces]
            if len(has_it) < outlier_limits.FEWEST:
                continue
            surfaces = np.stack([placements[number].surfaces[value] for number in has_it]).astype(np.float64)
            learnt = leave_one_out_weights(surfaces, axes)
            weights[value] = np.full((len(cases), surfaces.shape[-1]), np.nan)
            weights[value][has_it] = learnt
            totals[has_it] += np.einsum("cpf,cf->cp", surfaces, learnt)
            structures[has_it] += 1
        scores = np.full_like(totals, np.nan)
        is_scored = structures > 0
        scores[is_scored] = totals[is_scored] / np.sqrt(structures[is_scored])[:, None]
        return cls(cases, placements, scores, weights)

    def only_scored(self) -> PlacedCases:
        """Without the cases of which no structure could be scored."""
        kept = np.flatnonzero(np.isfinite(self.scores[:, 0]))
        return PlacedCases(
            tuple(self.cases[number] for number in kept),
            tuple(self.placements[number] for number in kept),
            self.scores[kept],
            {value: learnt[kept] for value, learnt in self.weights.items()},
        )

    @property
    def axes(self) -> int:
        """Of the images."""
        return len(self.placements[0].unit)

    @property
    def tried(self) -> list[TriedPlace]:
        """The placements of the scores."""
        return mask_placement.tried_placements(self.axes)

    def score_on(self, number: int, pixels: Array, labels: Array, tried: Sequence[TriedPlace]) -> Floats:
        """(placements,) scores of label values on intensities, by what was learnt for the case of this number."""
        total = np.zeros(len(tried))
        structures = 0
        for value, box in label_maps.boxes_of_labels(labels).items():
            learnt = self.weights.get(value)
            surface = Surface.of_structure(labels, value, box)
            if learnt is None or surface is None or not np.isfinite(learnt[number]).all():
                continue
            total += surface.features(pixels, tried, np.ones(pixels.ndim)) @ learnt[number]
            structures += 1
        return total / np.sqrt(structures) if structures else np.full(len(tried), -np.inf)


def unfit_masks(cohort: Cohort, looks: Mapping[str, ImageLook]) -> Iterator[Problem]:
    """Cases whose mask does not fit their image, or whose structures lie to one another as in no other case."""
    for placements in _placements_by_axes(cohort, looks):
        placed = PlacedCases.of_placements(placements).only_scored()
        if len(placed.cases) < outlier_limits.FEWEST:
            continue
        unlike_pairs = _unlike_pairs(placed, cohort)
        if -float(np.median(_mirror_gain(placed))) < LEAST_LIFT:
            yield Problem.note(
                f"masks of {errors.count_phrase(len(placed.cases), 'case')} fit their images no better than elsewhere",
                (),
                "the cases disagree: no mask can be called unusual",
                "Look at a few; where the mask marks no visible border this is as it should be",
            )
            misplaced = {}
        else:
            misplaced = _misplaced(placed)
        for case in placed.cases:
            in_place = misplaced.get(case.id)
            in_pair = unlike_pairs.get(case.id)
            # That two structures are exchanged says more than that nothing fits.
            if in_place is not None and (in_pair is None or in_place.what != FITS_NOWHERE):
                yield in_place
            elif in_pair is not None:
                yield in_pair


def judged_cases(cohort: Cohort, looks: Mapping[str, ImageLook]) -> int:
    """The number of cases whose masks can be judged by the others."""
    return sum(map(len, _placements_by_axes(cohort, looks)))


def _placements_by_axes(cohort: Cohort, looks: Mapping[str, ImageLook]) -> list[list[tuple[Case, MaskPlacement]]]:
    """The cases whose masks were measured, by the number of axes of their images; too few are left out."""
    groups: dict[int, list[tuple[Case, MaskPlacement]]] = {}
    for case in cohort.dataset.cases:
        look = looks.get(case.id)
        if look is not None and look.placement is not None:
            groups.setdefault(len(look.placement.unit), []).append((case, look.placement))
    return [measured for measured in groups.values() if len(measured) >= outlier_limits.FEWEST]


def leave_one_out_weights(surfaces: Floats, axes: int) -> Floats:
    """(cases, features) weights by which a mask in its place is told best from one that was moved, without that case.

    surfaces: (cases, placements, features), the first placement as it is
    Fisher's discriminant on the differences within each case, so that no case has to look like another.
    """
    moved = surfaces[:, 1 : 1 + mask_placement.count_shifts(axes)]
    differences = surfaces[:, :1] - moved
    sums = differences.sum(axis=1)
    products = np.einsum("cpf,cpg->cfg", differences, differences)
    count = (len(surfaces) - 1) * differences.shape[1]
    means = (sums.sum(axis=0) - sums) / count
    covariances = (products.sum(axis=0) - products) / count - means[:, :, None] * means[:, None, :]
    features = surfaces.shape[-1]
    variances = np.einsum("cff->cf", covariances)
    least = 1e-3 * variances.mean(axis=1) + 1e-9
    diagonal = SHRINKAGE * variances + least[:, None]
    covariances = covariances + diagonal[:, :, None] * np.eye(features)
    weights = np.linalg.solve(covariances, means[:, :, None])[:, :, 0]
    spread = np.sqrt(np.einsum("cf,cfg,cg->c", weights, covariances, weights))
    return np.asarray(weights / np.maximum(spread, 1e-12)[:, None])


def _shift_gain(placed: PlacedCases) -> Floats:
    """(cases,) by how much a moved mask fits better than the mask as it is; mostly negative."""
    moved = placed.scores[:, 1 : 1 + mask_placement.count_shifts(placed.axes)]
    return np.asarray(moved.max(axis=1) - placed.scores[:, 0])


def _mirror_gain(placed: PlacedCases) -> Floats:
    """(cases,) by how much a mirrored mask fits better than the mask as it is; mostly negative."""
    mirrored = placed.scores[:, 1 + mask_placement.count_shifts(placed.axes) :]
    return np.asarray(mirrored.max(axis=1) - placed.scores[:, 0])


def _contrast(placement: MaskPlacement) -> float:
    """Rank of what lies just inside the structures less that of what lies just outside."""
    inside = [number for number, offset in enumerate(NEAR) if offset <= 0]
    outside = [number for number, offset in enumerate(NEAR) if offset > 0]
    of_structures = [
        float(surface[0, inside].mean() - surface[0, outside].mean()) for surface in placement.surfaces.values()
    ]
    return float(np.mean(of_structures))


def _misplaced(placed: PlacedCases) -> dict[str, Problem]:
    """{case id: finding} of cases whose mask fits unusually badly, with the likely cause."""
    count = len(placed.cases)
    shift_gains = _shift_gain(placed)
    mirror_gains = _mirror_gain(placed)
    least = LEAST_GAIN * abs(float(np.median(mirror_gains)))
    gains = np.maximum(
        outlier_limits.upper_deviations(shift_gains, least), outlier_limits.upper_deviations(mirror_gains, least)
    )
    contrasts = np.array([_contrast(placement) for placement in placed.placements])
    contrast_deviations = outlier_limits.deviations_from_others(contrasts, LEAST_CONTRAST)
    is_unfit = gains > outlier_limits.threshold(count, 2, PLACE_ALPHA)
    is_unlike = np.abs(contrast_deviations) > outlier_limits.threshold(count, 1, CONTRAST_ALPHA / 2)
    unusual = [int(number) for number in np.argsort(-gains)[:MOST_EXCHANGED]]
    usual_contrast = float(np.median(contrasts))
    found: dict[str, Problem] = {}
    for number in np.flatnonzero(is_unfit | is_unlike).tolist():
        case = placed.cases[number]
        if is_unlike[number] and usual_contrast * contrasts[number] < 0:
            inner = "darker" if contrasts[number] < 0 else "brighter"
            found[case.id] = Problem.warning(
                f"structures are {inner} than what lies around them, in the other cases the reverse",
                (case.id,),
                "an image that is inverted, or of another contrast, teaches the reverse",
                f"{LOOK_AT}; correct the image, or confirm that such images belong to the data",
                kind="contrast",
            )
        elif is_unfit[number]:
            found[case.id] = _cause(placed, number, [other for other in unusual if other != number])
    return found


def _cause(placed: PlacedCases, number: int, others: Sequence[int]) -> Problem:
    """The finding on a mask that does not fit, with what would fit about as well as masks of this set do."""
    case = placed.cases[number]
    as_it_is = placed.scores[number, 0]
    usual = float(np.median(placed.scores[:, 0]))
    # What explains less than half of the lack is no cause.
    least = (usual + as_it_is) / 2
    nothing_fits = Problem.warning(
        FITS_NOWHERE,
        (case.id,),
        WRONG_PLACE,
        f"{LOOK_AT}: mask of another case, another organ, another contrast, or an image of which a part is missing",
        kind="mask-place",
    )
    try:
        image = channel_stack.stack_images(case.images, case.id)
        image = image.with_pixels(image.data)
        pixels, labels = _mask_on(case, image)
    except HilumError:
        return nothing_fits
    best = int(placed.scores[number, 1:].argmax()) + 1
    placement = placed.tried[best]
    best_score = float(placed.scores[number, best])
    shift: Floats = np.zeros(len(placement.shift))
    if not any(placement.mirrored):
        shift, best_score = _best_shift(placed, number, placement, pixels, labels)
    other, other_score = _fitting_mask(placed, number, others, image)
    if max(best_score, other_score) < least:
        return nothing_fits
    if other_score > best_score:
        what = f"the mask does not fit the image; that of {other} does"
        remedy = f"{LOOK_AT}: the masks, or the images, of two cases may be exchanged"
    elif any(placement.mirrored):
        what = f"the mask fits the image mirrored {_mirrored_words(image.geometry, placement)}"
        remedy = f"{LOOK_AT}: one of them was reversed when it was written"
    else:
        what = f"the mask fits the image better {_shift_words(image.geometry, shift)}"
        remedy = f"{LOOK_AT}; correct the position of one of them"
    return Problem.warning(what, (case.id,), WRONG_PLACE, remedy, kind="mask-place")


def _mask_on(case: Case, image: Image) -> tuple[Array, Array]:
    """(*spatial) intensities of an image and labels of a case's mask, which may be another case's; HilumError."""
    name = mask_name(case)
    mask: Image = case.references[name]
    return mask_placement.canonical_arrays(image, mask.with_pixels(mask.data), is_objects=name == instances.KIND)


def mask_name(case: Case) -> str:
    """The name of the reference that is compared with the image: the first mask, or the map of objects; else empty."""
    of_structures = [name for name in case.references if name.partition(":")[0] == masks.KIND]
    of_objects = [name for name in case.references if name == instances.KIND]
    return next(iter([*of_structures, *of_objects]), "")


def _fitting_mask(placed: PlacedCases, number: int, others: Sequence[int], image: Image) -> tuple[str, float]:
    """The case among others whose mask fits this image best, and its score; minus infinity where none can be tried."""
    best = ("", -np.inf)
    for other in others:
        candidate = placed.cases[other]
        try:
            if candidate.references[mask_name(candidate)].geometry.shape != image.geometry.shape:
                continue
            pixels, labels = _mask_on(candidate, image)
        except HilumError:
            continue
        score = float(placed.score_on(number, pixels, labels, placed.tried[:1])[0])
        if score > best[1]:
            best = (placed.cases[other].id, score)
    return best


def _best_shift(
    placed: PlacedCases, number: int, start: TriedPlace, pixels: Array, labels: Array
) -> tuple[Floats, float]:
    """(axes,) voxels by which the mask fits best, searched from a guess along each axis in turn, and its score."""
    unit = placed.placements[number].unit
    shift = np.round(np.asarray(start.shift) * np.maximum(unit, 1.0))
    score = -np.inf
    upright = (False,) * len(shift)
    for step in (np.maximum(1, np.round(unit)), np.ones(len(unit))):
        for axis in range(len(shift)):
            candidates = []
            for times in range(-3, 4):
                moved = shift.copy()
                moved[axis] += times * step[axis]
                candidates.append(moved)
            tried = [TriedPlace(tuple(candidate.tolist()), upright) for candidate in candidates]
            scores = placed.score_on(number, pixels, labels, tried)
            shift = candidates[int(scores.argmax())]
            score = float(scores.max())
    return shift, score


def _shift_words(geometry: Geometry, shift: Floats) -> str:
    """A shift in canonical axes as people say it: "3.0 mm further back and 2.0 mm to the left"."""
    grid = geometry.canonical
    directions = axis_words.direction_words(grid.ndim, oriented=grid.oriented)
    words = []
    for axis, voxels in enumerate(shift):
        if not voxels:
            continue
        amount = f"{abs(voxels) * grid.steps[axis]:.1f} mm" if grid.physical else errors.count_phrase(
            int(abs(voxels)), "pixel" if grid.is_picture else "voxel"
        )  # fmt: skip
        words.append(f"{amount} {directions[axis][int(voxels > 0)]}")
    return errors.list_phrase(words) if words else "a little aside"


def _mirrored_words(geometry: Geometry, placement: TriedPlace) -> str:
    words = axis_words.mirror_words(geometry.ndim, oriented=geometry.oriented)
    return errors.list_phrase([words[axis] for axis, is_mirrored in enumerate(placement.mirrored) if is_mirrored])


def _unlike_pairs(placed: PlacedCases, cohort: Cohort) -> dict[str, Problem]:
    """{case id: finding} of cases whose structures lie to one another, or differ in size, as in no other case."""
    counts: dict[int, int] = {}
    for placement in placed.placements:
        for value in placement.centres:
            counts[value] = counts.get(value, 0) + 1
    values = sorted(value for value, count in counts.items() if count >= outlier_limits.FEWEST)[:MOST_PAIRED]
    pairs = list(combinations(values, 2))
    if not pairs:
        return {}
    limit = outlier_limits.threshold(len(placed.cases), len(pairs) * (placed.axes + 1), PAIR_ALPHA / 2)
    found: dict[str, Problem] = {}
    names = {label.value: label.name for label in cohort.dataset.classes.get(masks.KIND, ())}
    for first, second in pairs:
        with_both = [
            number for number, placement in enumerate(placed.placements) if {first, second} <= set(placement.centres)
        ]
        if len(with_both) < outlier_limits.FEWEST:
            continue
        measures = np.array([_pair_measures(placed.placements[number], first, second) for number in with_both])
        least = [*_least_shifts(placed), LEAST_RATIO]
        deviations = _all_deviations(measures, least)
        for place in np.flatnonzero((np.abs(deviations) > limit).any(axis=1)):
            case = placed.cases[with_both[place]]
            reversed_measures = measures.copy()
            reversed_measures[place] *= -1
            after = np.abs(_all_deviations(reversed_measures, least)[place]).max()
            before = np.abs(deviations[place]).max()
            of_pair = f"{names.get(first, first)} and {names.get(second, second)}"
            if after < min(limit, before / 2):
                what = f"{of_pair} seem to be exchanged: they lie to one another the other way round than elsewhere"
                remedy = f"{LOOK_AT}; exchange the two values, or confirm that this person is so"
            else:
                what = f"{of_pair} lie to one another, or differ in size, as in no other case"
                remedy = f"{LOOK_AT}; correct the mask, or confirm that this person is so"
            why = "a class would be learnt for another"
            found.setdefault(case.id, Problem.warning(what, (case.id,), why, remedy, kind="mask-values"))
    return found


def _pair_measures(placement: MaskPlacement, first: int, second: int) -> list[float]:
    """From the centre of one structure to that of another along each axis, and the logarithm of the volumes' ratio."""
    between = placement.centres[second] - placement.centres[first]
    ratio = float(np.log(placement.sizes[second] / placement.sizes[first]))
    return [*between.tolist(), ratio]


def _least_shifts(placed: PlacedCases) -> list[float]:
    """Per axis the usual unit of shifts, at least a voxel, in the unit of the centres."""
    lengths = [np.maximum(placement.unit, 1.0) * placement.steps for placement in placed.placements]
    return [float(length) for length in np.median(lengths, axis=0)]


def _all_deviations(measures: Floats, least: Sequence[float]) -> Floats:
    """(cases, measures) with sign."""
    columns = [
        outlier_limits.deviations_from_others(column, floor) for column, floor in zip(measures.T, least, strict=True)
    ]
    return np.stack(columns, axis=1)
