"""Shortcuts: what predicts a label without the disease, such as image size, borders, marks and the scanner."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isocenter.errors import counted
from isocenter.evaluation import holm
from isocenter.lazy import ndimage, stats
from isocenter.quality.covariates import says_how
from isocenter.quality.discrimination import FOLDS, MOST_MEASURED, Outcome, Question, discrimination, questions
from isocenter.quality.small_marks import CORNERS, PLACES, anchored, mark_in, predicted_by_best, ranked
from isocenter.quality.thumbnail import Look
from isocenter.report import interval_text, value_text
from isocenter.values import (
    Array,
    Case,
    CaseFacts,
    Dataset,
    Estimate,
    Fingerprint,
    Floats,
    Problem,
    Shortcut,
    is_missing,
)

# Fewer patients of a class cannot be in every fold.
FEWEST_PATIENTS = FOLDS
# With fewer values, or events, the order of pairs says little.
FEWEST_MEASURED = 20
# After Holm; below an AUC of 0.7 a thing predicts too little to be learnt instead of the disease: discrimination is not
# even acceptable (Hosmer and Lemeshow, Applied Logistic Regression 2000).
LEVEL, PREDICTIVE = 0.05, 0.7
# More cases than this add nothing to an AUC of 0.7.
MOST_CASES = 6000
# Of patches, which are thousands of numbers a case.
MOST_PICTURES = 1000
# Voxels of the small image (16 or 32 a side) that are border: 6 % of the field on each side.
BORDER = {2: 2, 3: 1}
# It is ranked in a margin so many times as deep, 19 % of the field on each side: frames are mostly less deep.
DEPTH = 3
# Of the field on each side: what lies there the plan may cut away.
MARGIN = 0.1
MARK = "small mark"
# With it a note on a shortcut begins.
SHORTCUT = "Shortcut"
MOST_LEVELS = 20


@dataclass(frozen=True)
class Seen:
    """The part of an image that preprocessing leaves: `aspect` and `border` of the plan, and the shape that all get."""

    aspect: str = "stretch"
    border: float = 0.0
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Subjects:
    """Cases of which something is known, side by side."""

    question: Question
    cases: tuple[Case, ...]
    facts: tuple[CaseFacts, ...]
    looks: tuple[Look, ...]

    @property
    def outcome(self) -> Outcome:
        """The answers of the cases."""
        return self.question.of([one.id for one in self.facts])

    @property
    def patient(self) -> Array:
        """(cases,) index of the person."""
        return np.unique([case.patient for case in self.cases], return_inverse=True)[1]


def shortcuts(
    dataset: Dataset,
    fingerprint: Fingerprint,
    looks: Mapping[str, Look],
    *,
    ids: set[str] | None = None,
    kinds: Collection[str] | None = None,
    seen: Seen | None = None,
    seed: int = 0,
) -> tuple[Shortcut, ...]:
    """All that was tried, the strongest first; nothing where nothing is to be predicted, or with too few patients.

    ids:  of these cases only; else of all but the set's own test part
    kinds: of reference that state what is predicted; else all
    seen: after this preprocessing; else of the images as they are
    """
    wanted = ids if ids is not None else {case.id for case in dataset if dataset.splits.get(case.id) != "test"}
    tested = []
    for subjects in _subjects(dataset, fingerprint, looks, wanted, kinds):
        outcome = subjects.outcome
        for thing, values in _things(subjects, seen):
            auc, p = discrimination(values, outcome, subjects.patient, seed=seed)
            tested.append(replace(thing, auc=auc, p=p))
        tested.extend(_marks(subjects, seen, seed))
    adjusted = holm([one.p for one in tested]).tolist()
    judged = [
        replace(one, p=p, standing=p < LEVEL and one.auc.value >= PREDICTIVE)
        for one, p in zip(tested, adjusted, strict=True)
    ]
    return tuple(sorted(judged, key=_order))


def shortcut_problems(shortcuts: Sequence[Shortcut]) -> Iterator[Problem]:
    """One finding for each thing that predicts what the images should show; that nothing is to be done stands once."""
    predicting = [one for one in shortcuts if one.p < LEVEL and one.auc.value > 0.5]
    removed = [one for one in predicting if one.standing and one.removable]
    for shortcut in predicting:
        yield Problem(
            "warning" if shortcut.standing else "note",
            f"{shortcut.sentence}{'' if shortcut.standing else ', a little'}: "
            f"{shortcut.figure} {shortcut.auc.value:.2f}{_interval(shortcut.auc)}, p {shortcut.p_text} after Holm",
            (),
            "a model may learn it instead of the disease, and fail where it is absent",
            "" if shortcut in removed[1:] else _remedy(shortcut, len(removed)),
        )


def shortcut_notes(shortcuts: Sequence[Shortcut]) -> list[str]:
    """Notes for the reader of a model's figures on each shortcut that stands."""
    standing = [
        (one, f"{one.figure} {value_text(one.auc)}, {interval_text(one.auc)}") for one in shortcuts if one.standing
    ]
    return [f"{SHORTCUT}: {one.sentence} ({figure}); the figures may rest on it." for one, figure in standing]


def _remedy(shortcut: Shortcut, removed: int) -> str:
    """The remedy; where preprocessing may remove several, for all of them."""
    if shortcut.standing and shortcut.removable:
        them = "it" if removed == 1 else f"these {removed}"
        return f"Nothing to do yet: the plan tries to remove {them}, and the report states whether that helped"
    if shortcut.name == MARK:
        return "Look at that place: if it shows a letter, a clip or a frame, paint it over in all images"
    return "Choose cases so that it no longer goes with the label, or report results for its values separately"


def _interval(auc: Estimate) -> str:
    return f" ({auc.low:.2f} to {auc.high:.2f})" if auc.low is not None and auc.high is not None else ""


def _subjects(
    dataset: Dataset,
    fingerprint: Fingerprint,
    looks: Mapping[str, Look],
    wanted: set[str],
    kinds: Collection[str] | None,
) -> Iterator[Subjects]:
    """The cases that answer each question; none where too few patients do, or images differ in axes."""
    cases = {case.id: case for case in dataset}
    facts = [one for one in fingerprint.cases if one.id in wanted]
    asked = _asked(facts, kinds)
    for question in asked:
        own = [one for one in facts if one.id in question.answers]
        own = _enough(own, question, cases)
        most = max(MOST_CASES // len(asked), MOST_MEASURED) if not question.is_measured else MOST_MEASURED
        own = _thinned(own, question, most)
        if own and len({len(one.shape) for one in own}) == 1:
            chosen = [one.id for one in own]
            yield Subjects(question, tuple(cases[n] for n in chosen), tuple(own), tuple(looks[n] for n in chosen))


def _asked(facts: Sequence[CaseFacts], kinds: Collection[str] | None) -> list[Question]:
    return [one for one in questions(facts) if kinds is None or one.kind in kinds]


def _thinned(facts: Sequence[CaseFacts], question: Question, most: int) -> list[CaseFacts]:
    """Take at most so many of the cases, evenly of each answer, and of a rare one as many as there may be of each."""
    strata: dict[Any, list[int]] = {}
    for place, case in enumerate(facts):
        strata.setdefault(question.stratum(case.id), []).append(place)
    rest, kept = most, set[int]()
    for left, own in zip(range(len(strata), 0, -1), sorted(strata.values(), key=len), strict=True):
        count = min(len(own), rest // left)
        kept.update(own[n * len(own) // count] for n in range(count))
        rest -= count
    return [case for place, case in enumerate(facts) if place in kept]


def not_measurable(dataset: Dataset, fingerprint: Fingerprint, kinds: Collection[str] | None = None) -> tuple[str, ...]:
    """A sentence for each question that too few patients answer to say whether anything else than the disease does.

    kinds: of reference that state what is predicted; else all
    """
    cases = {case.id: case for case in dataset if dataset.splits.get(case.id) != "test"}
    facts = [one for one in fingerprint.cases if one.id in cases]
    sentences = []
    for question in _asked(facts, kinds):
        own = [one for one in facts if one.id in question.answers]
        if len({question.answers[one.id] for one in own}) > 1 and not _enough(own, question, cases):
            unit = "patient" if dataset.patients_known else "case"
            few = counted(len({cases[one.id].patient for one in own}), unit)
            needed = f"{FEWEST_MEASURED} {unit}s" if question.is_measured else f"{FEWEST_PATIENTS} {unit}s of each"
            sentences.append(f"whether {question.what} by a shortcut is not measurable with {few}: it takes {needed}")
    return tuple(sentences)


def still_standing(before: Sequence[Shortcut], after: Sequence[Shortcut]) -> tuple[Shortcut, ...]:
    """The shortcuts after preprocessing: each stands until it is shown to be gone.

    It is gone where it was measured again and predicts too little; not where it could not be measured, nor where only
    its p is larger. A mark that is cut away is in no picture any more.
    """
    again = {(one.name, one.what): one for one in after}
    for shortcut in before:
        left = again.get((shortcut.name, shortcut.what))
        if shortcut.standing and left is None and shortcut.name != MARK:
            again[shortcut.name, shortcut.what] = shortcut
        elif shortcut.standing and left is not None and left.auc.value >= PREDICTIVE:
            again[shortcut.name, shortcut.what] = replace(left, standing=True)
    return tuple(sorted(again.values(), key=_order))


def _order(shortcut: Shortcut) -> tuple[float, str, str]:
    return -shortcut.auc.value, shortcut.what, shortcut.name


def _enough(facts: Sequence[CaseFacts], question: Question, cases: Mapping[str, Case]) -> list[CaseFacts]:
    """The cases whose answer enough patients gave; none where all gave the same. Of measures all, or none."""
    people: dict[Any, set[str]] = {}
    for case in facts:
        people.setdefault(question.stratum(case.id), set()).add(cases[case.id].patient)
    if question.is_measured:
        differ = len({question.answers[one.id] for one in facts}) > 1
        return list(facts) if differ and len(people.get(True, ())) >= FEWEST_MEASURED else []
    enough = {answer for answer, owners in people.items() if len(owners) >= FEWEST_PATIENTS}
    return [one for one in facts if question.answers[one.id] in enough] if len(enough) > 1 else []


def _things(subjects: Subjects, seen: Seen | None) -> Iterator[tuple[Shortcut, Floats]]:
    """Each thing and its numbers, (cases, numbers)."""
    for name, values, setting in (
        ("image size", _size(subjects, seen), "aspect"),
        ("aspect ratio", _aspect(subjects, seen), "aspect"),
        ("spacing", _spacing(subjects), ""),
        *((name, values, "border") for name, values in _strips(subjects, seen)),
        *((f"column {name}", values, "") for name, values in _columns(subjects)),
    ):
        if values.size:
            yield _untested(name, setting, subjects.question), values


def _untested(name: str, setting: str, question: Question, where: str = "") -> Shortcut:
    nothing = Estimate(0.5, method="none: the same for all")
    removable = bool(setting) and not question.is_measured
    figure = "c" if question.is_measured else "AUC"
    return Shortcut(name, nothing, 1.0, removable, False, setting, question.what, figure, where, question.kind)


def _marks(subjects: Subjects, seen: Seen | None, seed: int) -> Iterator[Shortcut]:
    """A small mark at one place of the pictures, if one predicts the outcome far better than any patch elsewhere."""
    own = [n for n, look in enumerate(subjects.looks) if look.patches is not None]
    subjects = replace(
        subjects,
        cases=tuple(subjects.cases[n] for n in own),
        facts=tuple(subjects.facts[n] for n in own),
        looks=tuple(subjects.looks[n] for n in own),
    )
    if not _enough(subjects.facts, subjects.question, {case.id: case for case in subjects.cases}):
        return
    pairs = zip(subjects.looks, subjects.facts, strict=True)
    marks = np.stack([_patches_seen(look.patches, facts.shape, seen) for look, facts in pairs])
    shapes = [one.shape for one in subjects.facts]
    frames = {"": marks} | {name: anchored(marks, shapes, name) for name in CORNERS if len(set(shapes)) > 1}
    outcome, best = subjects.outcome, None
    truth = outcome.truth(np.arange(len(outcome)))
    for corner, patches in frames.items():
        mark = mark_in(ranks := ranked(patches), truth)
        if mark is not None and (best is None or mark.strength > best[0].strength):
            best = replace(mark, corner=corner), ranks
    if best is not None:
        mark, ranks = best
        auc, p = discrimination(ranks, outcome, subjects.patient, seed=seed, predict=predicted_by_best)
        setting = "border" if max(abs(share - 0.5) for share in mark.place) > 0.5 - MARGIN else ""
        # Each way of counting places has had its chance.
        yield replace(_untested(MARK, setting, subjects.question, str(mark)), auc=auc, p=min(1.0, p * len(frames)))


def _patches_seen(patches: Array | None, shape: Sequence[int], seen: Seen | None) -> Array:
    """The patches of a picture without those that the plan's border and aspect cut away."""
    assert patches is not None  # noqa: S101 - only such pictures are asked
    places = np.arange(1, PLACES + 1) / (PLACES + 1)
    outermost = np.abs(places - 0.5) + 1 / (PLACES + 1)
    rows, columns = ((share >= 1) | (outermost <= share / 2) for share in _share_seen(shape, seen).tolist())
    return np.where(np.outer(rows, columns), patches, 0)


def _logs(subjects: Subjects) -> Floats:
    return np.log(np.array([one.shape for one in subjects.facts], dtype=np.float64))


def _size(subjects: Subjects, seen: Seen | None) -> Floats:
    """Number of voxels; after all are brought to one shape, how far the small ones were stretched, and their aspect."""
    logs = _logs(subjects)
    if seen is None or seen.shape is None:
        return logs.sum(axis=1, keepdims=True)
    if logs.shape[1] != len(seen.shape):
        return logs[:, :0]
    stretched = np.maximum(np.log(seen.shape) - logs, 0.0)  # what was larger lost its size with its finest detail
    return np.hstack([stretched, _aspect(subjects, seen)])


def _aspect(subjects: Subjects, seen: Seen | None) -> Floats:
    logs = _logs(subjects)
    ratios = logs[:, 1:] - logs[:, :1]
    return np.zeros_like(ratios) if seen is not None and seen.aspect == "crop" else ratios


def _spacing(subjects: Subjects) -> Floats:
    if not all(one.physical for one in subjects.facts):
        return np.empty((len(subjects.facts), 0))
    return np.log(np.array([one.steps for one in subjects.facts]))


def _strips(subjects: Subjects, seen: Seen | None) -> Iterator[tuple[str, Floats]]:
    """Mean and deviation of the border's ranks along each side of the images, and in each corner.

    A voxel's rank is among those of its image's margin. What lies further inside changes the scale of all intensities,
    as a bright lesion makes every border darker, but no rank.
    """
    axes = subjects.looks[0].small.ndim
    if axes not in BORDER:
        return
    pairs = zip(subjects.looks, subjects.facts, strict=True)
    ranks = np.stack([_ranked(_as_seen(one.small.astype(np.float32), facts.shape, seen)) for one, facts in pairs])
    ends = (slice(0, BORDER[axes]), slice(-BORDER[axes], None))
    sides: list[tuple[slice, ...]] = [(*(slice(None),) * axis, end) for axis in range(axes) for end in ends]
    corners = [tuple(ends[n >> axis & 1] for axis in range(axes)) for n in range(2**axes)]
    for name, regions in (("border pixels", sides), ("corner pixels", corners)):
        parts = [ranks[(slice(None), *region)].reshape(len(ranks), -1) for region in regions]
        yield name, np.stack([figure for part in parts for figure in (part.mean(axis=1), part.std(axis=1))], axis=1)


def _ranked(small: Floats) -> Floats:
    """A small image with ranks from 0 to 1 in its margin; in half precision, as it was kept, even parts stay even."""
    depth = DEPTH * BORDER[small.ndim]
    margin = np.pad(np.zeros([size - 2 * depth for size in small.shape], dtype=bool), depth, constant_values=True)
    ranks = np.zeros(small.shape, dtype=np.float32)
    ranks[margin] = stats.rankdata(small[margin].astype(np.float16)) / np.count_nonzero(margin)
    return ranks


def _as_seen(small: Floats, shape: Sequence[int], seen: Seen | None) -> Floats:
    """The small image after the plan's border and aspect were cut from (or padded to) the whole."""
    share = _share_seen(shape, seen)
    if np.allclose(share, 1):
        return small
    offset = (np.asarray(small.shape) - 1) / 2 * (1 - share)
    return np.asarray(ndimage.affine_transform(small, share, offset, order=1, mode="nearest"))


def _share_seen(shape: Sequence[int], seen: Seen | None) -> Floats:
    """(axes,) how much of the whole is left after the plan's border and aspect; above 1 where it is padded."""
    if seen is None:
        return np.ones(len(shape))
    share = np.full(len(shape), 1 - 2 * seen.border)
    if seen.aspect != "stretch" and seen.shape is not None and len(seen.shape) == len(shape):
        ratio = np.asarray(shape) / np.asarray(seen.shape)
        share = share * (ratio.min() if seen.aspect == "crop" else ratio.max()) / ratio
    return share


def _columns(subjects: Subjects) -> Iterator[tuple[str, Floats]]:
    """Numbers of each column that says how the image was made; a gap is a value too."""
    names = filter(says_how, dict.fromkeys(name for case in subjects.cases for name in case.covariates))
    for name in names:
        yield name, _numbers([case.covariates.get(name) for case in subjects.cases])
    if any(case.group for case in subjects.cases):
        yield "group", _numbers([case.group for case in subjects.cases])


def _numbers(values: Sequence[Any]) -> Floats:
    """(cases, numbers) of a column: one for each of its commonest values. With one value, or one a case, nothing."""
    words = np.array(["" if is_missing(value) else str(value) for value in values])
    levels, counts = np.unique(words, return_counts=True)
    if len(levels) < 2 or counts.max() < 2:
        return np.empty((len(words), 0))
    common = levels[np.argsort(-counts, kind="stable")][:MOST_LEVELS]
    return (words[:, None] == common).astype(np.float64)
