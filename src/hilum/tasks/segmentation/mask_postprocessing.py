"""Post-processing of label maps, chosen on validation cases: pieces of a label go, or holes become part of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.belief import voxel_belief
from hilum.belief.voxel_belief import FEWEST_PATIENTS, MARGIN
from hilum.evaluation import mask_overlap
from hilum.lazy import ndimage
from hilum.values import Array, Case, Decision, Deferred, Geometry, Label, Prediction, StatedSettings
from hilum.values.voxel_images import ReferenceMap

# Where more of the references have several pieces, keeping the largest would lose a lesion.
RARELY = 0.02
LARGEST = "largest piece kept"
NNUNET = "doi:10.1038/s41592-020-01008-z"
NONE_OF_REGIONS = Decision({}, "off: regions overlap, and what is taken from one would open another")


def parse_rules(rules: Mapping[str, StatedSettings] | None) -> dict[str, Tidying] | None:
    """{label: rule} of a plan or a record, or None; ValueError for what is no rule."""
    return None if rules is None else {name: _rule_from(rule) for name, rule in rules.items()}


def _rule_from(rule: StatedSettings) -> Tidying:
    tidying = Tidying(**rule)
    steps = (tidying.largest, tidying.holes, tidying.in_voxels)
    if not all(isinstance(one, bool) for one in steps) or not float(tidying.smallest) >= 0:
        raise ValueError(f"{dict(rule)} is not a post-processing rule")
    return replace(tidying, smallest=float(tidying.smallest))


def postprocess_map(
    data: Array | Deferred, labels: Sequence[Label], postprocessing: Mapping[str, Tidying], geometry: Geometry
) -> Array | None:
    """The label map after the rules of its labels; None where none changes anything.

    A connected piece can reach from one end to the other: it takes the whole map, of a byte a voxel. That of a slide
    stays as it is: it does not fit into memory.
    """
    if geometry.is_picture and isinstance(data, Deferred):
        return None
    rules = {label.value: rule for label in labels if (rule := postprocessing.get(label.name))}
    if all(rule == Tidying() for rule in rules.values()):
        return None
    return apply_rules(np.asarray(data), rules, geometry.voxel_volume or 1.0)


@dataclass(frozen=True, eq=False)
class _Pair:
    predicted: Array
    reference: ReferenceMap
    voxel: float
    patient: str


def choose_rules(
    predictions: Sequence[Prediction],
    cases: Sequence[Case],
    labels: Sequence[Label],
    truth: Callable[[Case], ReferenceMap],
    several: Mapping[str, float],
) -> tuple[dict[str, Tidying], Decision]:
    """{label name: rule that helps it}, empty where none does, and the decision with the reasons.

    truth:   of a case, the reference map; a label is looked at in the cases that know it
    several: share of the training references in which a label has several pieces, by its name, where it is known
    A step is taken where the label's mean Dice over all cases rises by `MARGIN` and most of the cases that it changes
    get better. The largest piece alone is kept only where references seldom have several, and where the gain is sure by
    a bootstrap bound over patients, whose cases are alike. A label that neither side has counts as 1: what is removed
    there is a gain.
    """
    patients = len({case.patient for case in cases})
    if patients < FEWEST_PATIENTS:
        few = errors.cases_of_patients(len(cases), patients, "validation case")
        because = f"off: {few} are too few to choose it on (at least {FEWEST_PATIENTS} patients are needed)"
        return {}, Decision({}, because, NNUNET)
    # Volumes of some cases in mm³ and of others in voxels cannot be set side by side.
    in_voxels = any(one.geometry.voxel_volume is None for one in predictions)
    pairs = [
        _Pair(np.asarray(one.data), truth(case), 1.0 if in_voxels else one.geometry.voxel_volume or 1.0, case.patient)
        for one, case in zip(predictions, cases, strict=True)
    ]
    chosen: dict[str, Tidying] = {}
    reasons = []
    for index, label in enumerate(labels):
        knowing = [pair for pair in pairs if pair.reference.knows(index)]
        if len({pair.patient for pair in knowing}) < FEWEST_PATIENTS:
            continue
        rule, steps = _chosen_for(label.value, knowing, several.get(label.name, 0.0), in_voxels)
        reasons += [f"{label.name}: {step}" for step in steps]
        if rule != Tidying():
            chosen[label.name] = rule
    because = "; ".join(reasons) if reasons else f"off: no step raised a label's mean Dice by {MARGIN}"
    plain = {name: asdict(rule) for name, rule in chosen.items()}
    return chosen, Decision(plain, f"{because} ({len(cases)} validation cases)", NNUNET)


def _chosen_for(value: int, pairs: Sequence[_Pair], several: float, in_voxels: bool) -> tuple[Tidying, list[str]]:
    rule = Tidying()
    reasons = []
    before = _dice(value, rule, pairs)
    pieces = [_piece_sizes(pair.reference.values == value) * pair.voxel for pair in pairs]
    several = max(several, sum(len(own) > 1 for own in pieces) / len(pieces))
    # Half the volume of the smallest true piece: no expert marks a single piece as small as that.
    smallest = round(min((float(own.min()) for own in pieces if len(own)), default=0.0) / 2, 6)
    steps: dict[str, Callable[[Tidying], Tidying]] = {
        "small pieces removed": lambda so_far: replace(so_far, smallest=smallest, in_voxels=in_voxels),
        LARGEST: lambda so_far: replace(so_far, largest=True),
        "holes filled": lambda so_far: replace(so_far, holes=True),
    }
    if several > RARELY:
        del steps[LARGEST]
    for words, step in steps.items():
        tried = step(rule)
        after = _dice(value, tried, pairs)
        changed = after != before
        gain = float((after - before).mean())
        rises = gain > MARGIN and (
            words != LARGEST or voxel_belief.is_surely_positive(after - before, [pair.patient for pair in pairs])
        )
        if rises and (after > before).sum() > changed.sum() / 2:
            reasons.append(
                f"{words}, mean Dice {before.mean():.4f} to {after.mean():.4f}, "
                f"{int((after > before).sum())} of {int(changed.sum())} changed cases better"
            )
            rule = tried
            before = after
    return rule, reasons


def _dice(value: int, rule: Tidying, pairs: Sequence[_Pair]) -> np.ndarray:
    """(cases,)"""
    scores = []
    for pair in pairs:
        mask = apply_rules(pair.predicted, {value: rule}, pair.voxel)
        predicted = mask == value if pair.reference.voxels is None else (mask == value) & pair.reference.voxels
        score = mask_overlap.overlap_of_masks(predicted, pair.reference.values == value).dice
        scores.append(1.0 if np.isnan(score) else score)
    return np.array(scores)


def _piece_sizes(mask: Array) -> Array:
    """(pieces,) voxels of each connected piece."""
    pieces, _ = ndimage.label(mask, np.ones((3,) * mask.ndim))
    return np.bincount(pieces.ravel())[1:]


# Tidy label maps: rules by which pieces of a label go, or holes become part of it.
#
# NumPy and SciPy only, and nothing of ours: a packaged model carries a copy of this file.


@dataclass(frozen=True)
class Tidying:
    """The post-processing of one label of a finished label map; by default none.

    largest:  only the largest connected piece stays
    holes:    background that the label encloses becomes the label
    smallest: connected pieces of less than this volume go (mm³, in 2D mm²; voxels where their size is not known)
    in_voxels: whether that counts voxels whatever their size, as where nobody knew it when the rule was chosen
    """

    largest: bool = False
    holes: bool = False
    smallest: float = 0.0
    in_voxels: bool = False


def apply_rules(mask: NDArray[np.integer], rules: Mapping[int, Tidying], voxel: float = 1.0) -> NDArray[np.integer]:
    """A label map (*spatial) with each label's rules applied, small pieces first, then the rest, then holes.

    rules: by label value
    voxel: volume of one, in the unit of `smallest`
    What is taken from a label becomes background; a hole gives way only where it is background.
    """
    result = mask
    for value, rule in rules.items():
        boxes = [] if rule == Tidying() else ndimage.find_objects((result == value).view(np.uint8))
        if not boxes:
            continue
        if result is mask:
            result = mask.copy()
        region = result[boxes[0]]
        inside = region == value
        remaining = _pieces(inside, rule, 1.0 if rule.in_voxels else voxel)
        region[inside & ~remaining] = 0
        if rule.holes:
            region[ndimage.binary_fill_holes(remaining) & (region == 0)] = value
    return result


def _pieces(inside: NDArray[np.bool_], rule: Tidying, voxel: float) -> NDArray[np.bool_]:
    """The connected pieces (touching corners connect) that the rule keeps."""
    if not rule.largest and not rule.smallest:
        return inside
    pieces, _ = ndimage.label(inside, np.ones((3,) * inside.ndim))
    sizes = np.bincount(pieces.ravel()) * voxel
    sizes[0] = 0
    keep = sizes >= max(rule.smallest, voxel)
    if rule.largest:
        keep &= np.arange(len(sizes)) == sizes.argmax()
    return np.asarray(keep[pieces])
