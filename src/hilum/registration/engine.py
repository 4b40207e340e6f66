"""The registration of two images, from the first guess to the transform and its inverse; each choice has its reason."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import GeometryError, UsageError
from hilum.lazy import torch
from hilum.registration import _pyramid, deformable, harm_checks, linear, similarity_measures
from hilum.registration._pyramid import LEAST_OVERLAP, NO_OVERLAP, ImagePair, PyramidLevel
from hilum.registration.deformable import SMOOTHNESS, STEPS, FittedVelocity
from hilum.registration.linear import FINE_STEPS, FirstGuess, Initial
from hilum.registration.similarity_measures import (
    OF_MOTION,
    OFFSETS,
    REACH,
    SIMILARITIES,
    Similarity,
    SimilarityName,
)
from hilum.transforms import spatial_transforms
from hilum.values import Affine, Decision, Displacement, Geometry, Image, SpatialTransform

if TYPE_CHECKING:
    from torch import Tensor

TransformKind = Literal["rigid", "affine", "deformable"]
LEVELS = 3
# Voxels of the finest grid on which images are compared: beyond, a step takes seconds and a place gains nothing.
MOST_LINEAR = 2**18
MOST_DEFORMABLE = 2**20
# Of the grid of the last step of a rigid or affine motion, and how many are sampled. Twenty heads of 2 mm were
# placed by .53 mm (median) on a grid of 4.3 mm, two of them by more than 1 mm.
MOST_VOXELS = 2**22
SAMPLED = 2**16
# Of a level's spacing: a grid that is hardly finer tells nothing more.
FINER = 0.8
# Of the loss: a mirrored image that fits by so much better is a finding.
MIRRORED = 0.85
# Of the local correlation, 1 at its best: unlike images of one modality, and noise, come to less.
LEAST_CORRELATION = 0.1
SIDES = ("left and right", "front and back", "head and feet")
LNCC_SOURCE = "doi:10.1016/j.media.2007.06.004"
MI_SOURCE = "doi:10.1109/TMI.2003.809072"
# The modality of an image that states none.
UNKNOWN = "unknown"
# The measure across contrasts, beside which MIND has to agree.
ACROSS: SimilarityName = "mi"


@dataclass(frozen=True)
class RegistrationSettings:
    """The choices of a registration.

    transform:  rigid, affine or deformable
    similarity: lncc, mse, mind, mi or nmi; auto: by the modalities and the contrasts of both images
    initial:    world, centres or moments; auto: the best of them
    seconds:    at most so long for the deformable part; the result then depends on the machine. None: all steps
    """

    transform: TransformKind = "deformable"
    similarity: SimilarityName | Literal["auto"] = "auto"
    initial: Initial | Literal["auto"] = "auto"
    seconds: float | None = None


@dataclass(frozen=True, eq=False)
class ImageRegistration:
    """The result for two images.

    transform, inverse: from the fixed image to the moving one, and back
    first_guess:        the transform from which similarity before is measured
    before, after:      similarity where the images lay in the world or, without a common one, centre on centre; larger
                        is better for lncc (0 to 1), mi (nats) and nmi (1 to 2), smaller for mse and mind
    applied:            whether the transform is the one that was found; False: it is the start, and a note says why;
                        "linear": only its linear part
    """

    transform: SpatialTransform
    inverse: SpatialTransform
    first_guess: SpatialTransform
    decisions: Mapping[str, Decision]
    similarity: SimilarityName
    before: float
    after: float
    notes: tuple[str, ...] = field(default_factory=tuple)
    applied: bool | Literal["linear"] = True

    @property
    def gains(self) -> bool:
        """Whether the images agree better than before."""
        return _is_better(self.similarity, self.after, self.before)


def register_images(
    fixed: Image,
    moving: Image,
    settings: RegistrationSettings | None = None,
    mask: NDArray[np.bool_] | None = None,
    where: str = "register",
) -> ImageRegistration:
    """The transform that lays a moving image on a fixed one. mask: (*spatial) of the fixed one, where they are compared

    What is sampled is sampled alike: the same images give the same bits on one machine with one number of threads.
    Raises GeometryError for images that cannot lie on one another, UsageError for what holds nothing to compare.
    """
    settings = settings or RegistrationSettings()
    spatial_transforms.refuse_unlike_axes((fixed.geometry, moving.geometry), where)
    _refuse_unfit(fixed, moving, settings, where)
    similarity = choose_similarity(fixed, moving, settings)
    if mask is not None and not mask.any():
        raise UsageError("the mask of the fixed image is empty", where, "Give a mask of what is compared, or none")
    pair = _pyramid.prepare_pair(fixed, moving, mask, one_scale=similarity.value == "mse")
    _refuse_constant(pair, where)
    initials, initial = _initials(fixed.geometry, moving.geometry, settings, where)
    levels = [pair.level(spacing) for spacing in _pyramid.level_spacings(pair.fixed_grid, LEVELS, MOST_LINEAR)]
    guesses = list(linear.first_guesses(pair, initials))
    # The place of both images before anything was found: turned guesses are none.
    untouched = next(one for one in guesses if np.array_equal(one.matrix, np.eye(len(one.shift))))
    if settings.similarity == "auto" and similarity.value == "lncc":
        similarity = _by_contrast(similarity, levels[0], guesses)
    notes = [] if mask is None else list(_compared_in_mask(levels, guesses[0], where))
    is_across = settings.similarity == "auto" and similarity.value == ACROSS
    linear_fit = _fit_across if is_across else _fit_linear
    fit = linear_fit(pair, levels, guesses, similarity.value, settings, where)
    if settings.similarity == "auto" and similarity.value == "lncc" and fixed.modality == moving.modality == UNKNOWN:
        fit, doubt = _by_either_measure(fit, pair, levels, guesses, settings, where)
        if fit.other is not None:
            similarity = Decision(ACROSS, doubt, MI_SOURCE)
            is_across = True
        notes += [doubt] if doubt else []
    notes += fit.notes
    measure = SIMILARITIES[similarity.value]
    start = fit.found
    refusal = _harm_of(levels, untouched, fit, similarity.value)
    if refusal is not None:
        notes += [refusal] if refusal else []
        start = untouched
    elif settings.transform != "deformable":
        start = _settle(pair, levels[-1], start, similarity.value, settings)
    if pair.fixed_grid.has_sides and (turn := linear.rotation_degrees(start.matrix)) > linear.USUAL_TURN:
        notes.append(f"the moving image was turned by {turn:.0f} degrees: patients seldom lie so, look at the pictures")
    decisions = {
        "transform": Decision(settings.transform, "the kind that was asked for"),
        "similarity": similarity,
        "initial": Decision(start.name, initial.because),
    }
    parts: tuple[Affine | Displacement, ...] = (start.affine(pair),)
    before = _value(levels[-1], untouched, measure, similarity.value)
    after = _value(levels[-1], start, measure, similarity.value)
    applied: bool | Literal["linear"] = not refusal
    if settings.transform == "deformable" and refusal is None:
        # Where intensities cannot be compared their neighbourhoods still can, voxel by voxel.
        name: SimilarityName = "mind" if is_across else similarity.value
        bent, more = _deform(pair, start, SIMILARITIES[name], name, settings.seconds)
        curved = spatial_transforms.right_angled_field(deformable.field_of_velocity(bent))
        bent_value = _after(levels[-1], bent, start, measure, similarity.value)
        if is_across and not _is_better(similarity.value, bent_value, after):
            notes.append("the bent images share no more than those that were only turned and shifted: nothing is bent")
            applied = "linear"
        else:
            parts = (curved, *parts)
            after = bent_value
            decisions = decisions | more
        if bent.is_cut:
            notes.append(f"{settings.seconds:g} s were over before all steps were done: another machine gets further")
    transform = SpatialTransform(parts, fixed.geometry, moving.geometry)
    if similarity.value == "lncc" and after < LEAST_CORRELATION:
        notes.append(f"the images hardly agree (similarity {after:.2g}, at best 1): what is compared may be noise")
    if refusal is None and not _is_better(similarity.value, after, before):
        notes.append("the images agree no better than before: do not use the transform unseen")
    if not fixed.geometry.physical:
        notes.append("no size in mm is known: lengths are pixels, x the column and y the row")
    guess = SpatialTransform((untouched.affine(pair),), fixed.geometry, moving.geometry)
    back = spatial_transforms.invert_transform(transform)
    return ImageRegistration(transform, back, guess, decisions, similarity.value, before, after, tuple(notes), applied)


@dataclass(frozen=True, eq=False)
class _LinearFit:
    """A linear motion that was found. other: that by another measure, across contrasts; notes: on mirrored images"""

    found: FirstGuess
    other: FirstGuess | None = None
    notes: tuple[str, ...] = ()


def _fit_linear(
    pair: ImagePair,
    levels: Sequence[PyramidLevel],
    guesses: Sequence[FirstGuess],
    name: SimilarityName,
    settings: RegistrationSettings,
    where: str,
) -> _LinearFit:
    """The motion by one measure, from the coarsest level to the finest."""
    measure = SIMILARITIES[name]
    start = linear.best_first_guess(pair, levels[0], guesses, measure)
    if not start.loss < NO_OVERLAP:
        remedy = "Give --initial centres or moments, or images of one part of the body"
        raise GeometryError("the images do not overlap", where, remedy)
    start = linear.descend_from_guess(levels[1], start, measure, rigid=True, steps=FINE_STEPS)
    upright = [one for one in guesses if np.array_equal(one.matrix, np.eye(len(one.shift)))]
    notes = tuple(_check_mirrored(pair, levels[1], upright, start.loss, measure))
    if not notes and pair.fixed_grid.is_picture:
        notes = tuple(_check_mirrored_and_turned(pair, levels[1], start.loss, measure))
    return _LinearFit(_descend(levels, start, name, settings), notes=notes)


def _descend(
    levels: Sequence[PyramidLevel], start: FirstGuess, name: SimilarityName, settings: RegistrationSettings
) -> FirstGuess:
    """The motion by one measure on each level after the coarsest."""
    rigid = settings.transform == "rigid"
    measure = SIMILARITIES[name]
    for level in levels[1:]:
        # Under a field the start matters less than the contents of every window, which the field is fitted to.
        is_last = settings.transform != "deformable"
        seen, by = (level.smoothed_level, OF_MOTION[name]) if is_last else (level, measure)
        start = linear.descend_from_guess(seen, start, by, rigid=rigid, steps=FINE_STEPS)
    return start


def _settle(
    pair: ImagePair, level: PyramidLevel, start: FirstGuess, name: SimilarityName, settings: RegistrationSettings
) -> FirstGuess:
    """The motion after a last step on voxels sampled from a finer grid than the last level's, where there is one.

    By information where the measure needs neighbours; it is taken where self-similarity asks for it as well, since a
    bias of the field leads information astray by up to half a voxel.
    """
    (spacing,) = _pyramid.level_spacings(pair.fixed_grid, 1, MOST_VOXELS)
    coarse = min(step for step, size in zip(level.fixed.grid.steps, level.fixed.grid.shape, strict=True) if size > 1)
    if spacing > FINER * coarse:
        return start
    sampled = pair.level(spacing).smoothed_level.sample_voxels(SAMPLED)
    by = SIMILARITIES[ACROSS if name in ("lncc", "mind") else name]
    end = linear.descend_from_guess(sampled, start, by, rigid=settings.transform == "rigid", steps=FINE_STEPS)
    before, after = (harm_checks.loss_at(level, one, SIMILARITIES["mind"]) for one in (start, end))
    return end if after < before else start


def _fit_across(
    pair: ImagePair,
    levels: Sequence[PyramidLevel],
    guesses: Sequence[FirstGuess],
    name: SimilarityName,
    settings: RegistrationSettings,
    where: str,
) -> _LinearFit:
    """The motion by information from where either measure leads, and where self-similarity would move it from there.

    Of two contrasts one measure alone errs too often; the one is kept that both leave nearest to where it is.
    """
    usual = [one for one in guesses if linear.rotation_degrees(one.matrix) <= linear.USUAL_TURN]
    first = _fit_linear(pair, levels, usual, name, settings, where)
    near = [first.found]
    with suppress(GeometryError):  # which has found none by the other measure
        other = linear.best_first_guess(pair, levels[0], usual, SIMILARITIES["mind"])
        near.append(_descend(levels, other, name, settings))
    ends = [
        linear.descend_from_guess(levels[-1], one, SIMILARITIES["mind"], rigid=True, steps=FINE_STEPS) for one in near
    ]
    apart = [harm_checks.distance_apart(levels[1], one, end) for one, end in zip(near, ends, strict=True)]
    losses = [harm_checks.loss_at(levels[1], one, SIMILARITIES[name]) for one in near]
    best = min(range(len(near)), key=lambda one: (apart[one] > harm_checks.AGREED, losses[one]))
    return _LinearFit(near[best], ends[best], first.notes)


def _by_either_measure(
    fit: _LinearFit,
    pair: ImagePair,
    levels: Sequence[PyramidLevel],
    guesses: Sequence[FirstGuess],
    settings: RegistrationSettings,
    where: str,
) -> tuple[_LinearFit, str]:
    """The motion of images that state no modality, by whichever measure is right, and a note where they disagree.

    fit: by local correlation, which takes both for one contrast
    Where information would move it by more than a voxel, both are tried from the beginning; that across contrasts is
    kept where information and self-similarity both say so.
    """
    finest = levels[-1]
    by = SIMILARITIES[ACROSS]
    moved = linear.descend_from_guess(finest, fit.found, by, rigid=settings.transform == "rigid", steps=FINE_STEPS)
    step = min(step for step, size in zip(finest.fixed.grid.steps, finest.fixed.grid.shape, strict=True) if size > 1)
    if harm_checks.distance_apart(finest, fit.found, moved) <= step:
        return fit, ""
    try:
        across = _fit_across(pair, levels, guesses, ACROSS, settings, where)
    except GeometryError:  # which has found none by information
        return fit, ""
    is_better = all(
        harm_checks.loss_at(finest, across.found, measure) < harm_checks.loss_at(finest, fit.found, measure)
        for measure in (by, SIMILARITIES["mind"])
    )
    unit = "mm" if finest.fixed.grid.physical else "pixels"
    apart = harm_checks.distance_apart(finest, fit.found, across.found)
    words = f"neither image states its modality, and lncc and mi lay them {apart:.2g} {unit} apart"
    if is_better:
        return across, f"{words}: mi is kept, by which and by self-similarity they are more alike"
    if apart <= harm_checks.AGREED:
        return fit, ""
    return fit, f"{words}: lncc is kept; of two contrasts give --similarity mi"


def _by_contrast(similarity: Decision, level: PyramidLevel, guesses: Sequence[FirstGuess]) -> Decision:
    """The decision, or information where one modality has two contrasts, after a coarse alignment by information."""
    upright = [one for one in guesses if np.array_equal(one.matrix, np.eye(len(one.shift)))]
    by = SIMILARITIES[ACROSS]
    near = min(upright, key=lambda one: harm_checks.loss_at(level, one, by))
    near = linear.descend_from_guess(level, near, by, rigid=True, steps=FINE_STEPS)
    if not near.loss < NO_OVERLAP or harm_checks.shares_contrast(level, near):
        return similarity
    because = "what is bright in one image is not bright in the other"
    return Decision(ACROSS, because, MI_SOURCE)


def _harm_of(
    levels: Sequence[PyramidLevel], untouched: FirstGuess, fit: _LinearFit, name: SimilarityName
) -> str | None:
    """Why the motion is not applied; empty where the images lay right before, None where it is applied."""
    measure = SIMILARITIES[name]
    unit = "mm" if levels[0].fixed.grid.physical else "pixels"
    kept = "nothing was moved"
    if (share := harm_checks.share_of_smaller(levels[-1], fit.found)) < harm_checks.LEAST_SHARE:
        least = f"{harm_checks.LEAST_SHARE:.0%} are needed"
        return f"only {share:.0%} of the smaller image would lie in the other, and {least}: {kept}"
    lead, _ = harm_checks.lead_on_shuffled(levels[0], untouched, fit.found, measure)
    if not lead > 0:
        return f"the images agree no better than shuffled ones would: {kept}"
    if fit.other is None:
        # Of ten pairs of two organs the measure that was optimised believed seven. By self-similarity they led by at
        # most .4 times what shuffled images gain, and 47 good pairs by at least 2.7 times.
        lead, gain = harm_checks.lead_on_shuffled(levels[1], untouched, fit.found, SIMILARITIES["mind"])
        return None if lead > gain else f"in detail the images are no more alike than shuffled ones: {kept}"
    fine = [harm_checks.loss_at(levels[-1], one, measure) for one in (untouched, fit.found)]
    if fine[0] < NO_OVERLAP:  # of images that never met every place is a gain
        chance = harm_checks.shuffled_reach(levels[-1], untouched, measure)
        moved = harm_checks.distance_apart(levels[-1], untouched, fit.found)
        if fine[0] - fine[1] < harm_checks.BEYOND * chance.gain:
            lies_near = chance.lowest - fine[0] > harm_checks.BEYOND * chance.gain
            lay_right = fine[0] < chance.lowest and moved <= harm_checks.AGREED
            if not lies_near:
                return "" if lay_right else f"the images gain little more than shuffled ones would: {kept}"
            # Nearly in place little is left to gain; what both measures ask for is a motion all the same.
            if not harm_checks.asked_by_both(levels[-1], untouched, fit.found, fit.other):
                return ""
    if fault := harm_checks.unlikely_motion(fit.found.matrix):
        return f"{fault}: {kept}"
    apart = harm_checks.distance_apart(levels[-1], fit.found, fit.other)
    if apart > harm_checks.AGREED:
        limit = f"more than {harm_checks.AGREED:g}"
        return f"information and self-similarity disagree by {apart:.3g} {unit}, {limit}: {kept}"
    return None


def _refuse_unfit(fixed: Image, moving: Image, settings: RegistrationSettings, where: str) -> None:
    ours = fixed.geometry
    theirs = moving.geometry
    if ours.is_series:
        raise GeometryError("a series of one axis", where, "Give pictures or volumes")
    if ours.physical != theirs.physical:
        problem = f"the size of a voxel is known of the {'fixed' if ours.physical else 'moving'} image only"
        raise GeometryError(problem, where, "Give two images with a size in mm, or two without")
    frames = ours.frame_of_reference, theirs.frame_of_reference
    if None not in frames and frames[0] != frames[1] and settings.initial == "auto":
        raise GeometryError(
            "the images lie in different frames of reference",
            where,
            "Give --initial centres or moments, or --initial world if the patient did not move in between",
        )


def _compared_in_mask(levels: Sequence[PyramidLevel], guess: FirstGuess, where: str) -> Iterator[str]:
    """A finding where a mask holds few voxels.

    UsageError where they are fewer than one window of the local correlation, GeometryError where the headers share a
    world and the moving image does not reach the mask there.
    """
    finest = levels[-1].fixed
    coarsest = levels[0].fixed
    count, coarse = (int((side.weight > 0).sum()) for side in (finest, coarsest))
    window = (2 * REACH + 1) ** sum(size > 1 for size in finest.grid.shape)
    unit = "mm" if finest.grid.physical else "pixels"
    words = f"{errors.count_phrase(count, 'voxel')} of {' x '.join(f'{step:.3g}' for step in finest.grid.steps)} {unit}"
    remedy = "Give a mask of what both images show, with a margin, or none"
    if count < window:
        raise UsageError(f"the mask leaves {words} to compare, and {window} are needed", where, remedy)
    if guess.name == "world":
        _, weight = levels[-1].read_moving(_places(levels[-1], guess))
        share = float(weight.sum() / finest.weight.sum())
        if share < LEAST_OVERLAP:
            problem = (
                f"the images do not overlap where they are compared: the moving one reaches {share:.0%} of the mask, "
                f"and {LEAST_OVERLAP:.0%} are needed"
            )
            raise GeometryError(problem, where, f"{remedy}, or --initial centres if a header is wrong")
    if coarse < window:
        yield f"only {words} were compared, as the mask says: too few to be sure of turns, look at the pictures"


def _refuse_constant(pair: ImagePair, where: str) -> None:
    for name, values, is_valid in (
        ("fixed", pair.fixed, pair.fixed_known),
        ("moving", pair.moving, pair.moving_known),
    ):
        inside = values if is_valid.all() else values[is_valid]
        if not inside.size or float(np.ptp(inside)) == 0:
            raise UsageError(f"the {name} image is constant where it is compared", where, "Give an image with contents")


def choose_similarity(fixed: Image, moving: Image, settings: RegistrationSettings) -> Decision:
    """Similarity by which the images are compared, and the reason."""
    first, second = fixed.modality, moving.modality
    match settings.similarity:
        case "auto" if first == second == "CT":
            return Decision("mse", "CT and CT: HU mean the same in both")
        case "auto" if first == second:
            named = "of unknown modality, taken as one" if first == UNKNOWN else f"of one modality ({first})"
            return Decision("lncc", f"both images are {named}", LNCC_SOURCE)
        case "auto":
            return Decision(ACROSS, f"{first} on {second}: intensities cannot be compared", MI_SOURCE)
        case chosen:
            return Decision(chosen, "chosen by hand")


def _initials(
    ours: Geometry, theirs: Geometry, settings: RegistrationSettings, where: str
) -> tuple[list[Initial], Decision]:
    """Bases of the first guess; similarity before registration is measured from the first of them."""
    if settings.initial != "auto":
        return [settings.initial], Decision(settings.initial, "chosen by hand")
    is_world = ours.physical and ours.oriented and theirs.oriented
    shared = ours.frame_of_reference is not None and ours.frame_of_reference == theirs.frame_of_reference
    if shared and not ours.meets(theirs):
        raise GeometryError(
            "the images do not overlap in the frame of reference that they share",
            where,
            "Give images of one part of the body, or --initial centres if the header is wrong",
        )
    if is_world and ours.meets(theirs):
        return ["world", "centres", "moments"], Decision(
            "auto", "the best of the world's axes, centres and centres of mass"
        )
    return ["centres", "moments"], Decision("auto", "the best of centres and centres of mass: they share no world")


def _deform(
    pair: ImagePair, start: FirstGuess, measure: Similarity, name: SimilarityName, seconds: float | None
) -> tuple[FittedVelocity, dict[str, Decision]]:
    finest = _pyramid.level_spacings(pair.fixed_grid, LEVELS, MOST_DEFORMABLE)
    until = math.inf if seconds is None else time.monotonic() + seconds
    bent: FittedVelocity | None = None
    for spacing, steps in zip(finest, STEPS, strict=True):
        level = pair.level(spacing)
        bent = deformable.fit_velocity(
            level, start, measure, smoothness=SMOOTHNESS[name], steps=steps, before=bent, until=until
        )
    assert bent is not None  # noqa: S101 - there are levels
    unit = "mm" if pair.fixed_grid.physical else "pixels"
    words = (
        "the fixed image's own" if math.isclose(finest[-1], min(pair.fixed_grid.steps)) else "the most that is compared"
    )
    return bent, {
        "spacing": Decision(round(finest[-1], 4), f"{unit} of the finest grid, {words}; the velocity on half of it"),
        "smoothness": Decision(
            SMOOTHNESS[name], f"weight of the diffusion energy for {name}", "measured on pairs of MR"
        ),
        "steps": Decision(list(STEPS), "of Adam on each level, the coarsest first"),
    }


def _places(level: PyramidLevel, start: FirstGuess, moved: Tensor | None = None) -> Tensor:
    points = level.points if moved is None else level.points + moved
    return points @ torch.as_tensor(start.matrix.T.copy(), dtype=torch.float32) + torch.as_tensor(
        start.shift, dtype=torch.float32
    )


def _value(level: PyramidLevel, start: FirstGuess, measure: Similarity, name: SimilarityName) -> float:
    with torch.no_grad():
        loss = float(level.loss(_places(level, start), measure))
    return math.nan if loss >= NO_OVERLAP else similarity_measures.figure_of_loss(name, loss)


def _after(
    level: PyramidLevel, bent: FittedVelocity, start: FirstGuess, measure: Similarity, name: SimilarityName
) -> float:
    curved = deformable.field_of_velocity(bent)
    points = level.fixed.grid.to_world(
        np.stack(np.meshgrid(*map(np.arange, level.fixed.grid.shape), indexing="ij"), axis=-1)
    )
    with torch.no_grad():
        moved = torch.as_tensor(spatial_transforms.displacements_at(curved, points), dtype=torch.float32)
        loss = float(level.loss(_places(level, start, moved), measure))
    return similarity_measures.figure_of_loss(name, loss)


def _is_better(name: SimilarityName, after: float, before: float) -> bool:
    if math.isnan(before):
        return True
    return after > before if name in OFFSETS else after < before


def _check_mirrored_and_turned(pair: ImagePair, level: PyramidLevel, best: float, measure: Similarity) -> Iterator[str]:
    """A finding where a picture, which may lie at any angle, fits clearly better mirrored; it is never applied."""
    mirror = np.diag([-1.0, 1.0])  # along the other axis it is this one with half a turn more
    guesses = [one.mirror(mirror) for one in linear.first_guesses(pair, ("centres", "moments"))]
    start = linear.best_first_guess(pair, level, guesses, measure, steps=FINE_STEPS)
    if start.loss < MIRRORED * best:
        yield (
            f"the moving image fits clearly better mirrored and turned (loss {start.loss:.3g} against {best:.3g}): "
            "look at the picture; nothing was mirrored"
        )


def _check_mirrored(
    pair: ImagePair, level: PyramidLevel, guesses: Sequence[FirstGuess], best: float, measure: Similarity
) -> Iterator[str]:
    """A finding for each axis along which the moving image, mirrored, fits clearly better; it is never applied.

    best: the loss of the rigid fit on this level
    """
    names = SIDES if pair.fixed_grid.has_sides else ("the first axis", "the second axis", "the third axis")
    for axis in range(level.fixed.grid.ndim):
        if level.fixed.grid.shape[axis] == 1:
            continue
        mirror = np.eye(level.fixed.grid.ndim)
        mirror[axis, axis] = -1
        start = linear.best_first_guess(
            pair, level, [one.mirror(mirror) for one in guesses], measure, followed=1, steps=FINE_STEPS
        )
        if start.loss < MIRRORED * best:
            yield (
                f"the moving image fits clearly better with {names[axis]} exchanged "
                f"(loss {start.loss:.3g} against {best:.3g}): check its header; nothing was mirrored"
            )
