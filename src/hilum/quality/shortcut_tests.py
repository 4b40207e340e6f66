"""Shortcuts: what predicts a label without the disease, such as image size, borders, marks and the scanner.

A few numbers of each case are asked how well they predict an outcome, against chance.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol, cast

import numpy as np

from hilum import errors
from hilum.evaluation import classification, intervals, survival
from hilum.evaluation.significance import testing
from hilum.lazy import ndimage, stats
from hilum.quality import _small_marks, covariate_checks, references
from hilum.quality._small_marks import CORNERS, PLACES
from hilum.quality.image_descriptors import ImageLook
from hilum.report import wording
from hilum.transforms import random_draws
from hilum.values import Array, Case, CaseFacts, Dataset, Estimate, Fingerprint, Floats, Problem, covariate_values
from hilum.values.dataset_fingerprint import Shortcut

FOLDS = 5
# Shuffles tell mean and deviation of chance; the tail follows from the normal law, so few are enough.
SHUFFLES, DRAWS = 200, 500
# Fewer that hold every class tell neither: where the first images of all patients are of one class, none does.
FEWEST_SHUFFLES = 20
# Numbers that are predicted at once, 128 MiB: of a hundred classes and all shuffles they would be many GiB.
AT_ONCE = 2**24
# Further out in the tail nobody knows whether the normal law still holds.
SMALLEST_P = 1e-6
# More cases than this add nothing to a concordance of 0.7, and pairs grow with their square.
MOST_MEASURED = 400
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
class SeenPart:
    """The part of an image that preprocessing leaves: `aspect` and `border` of the plan, and the shape that all get."""

    aspect: str = "stretch"
    border: float = 0.0
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Subjects:
    """Cases of which something is known, side by side."""

    question: OutcomeQuestion
    cases: tuple[Case, ...]
    facts: tuple[CaseFacts, ...]
    looks: tuple[ImageLook, ...]

    @property
    def outcome(self) -> DealtOutcome:
        """The answers of the cases."""
        return self.question.for_cases([one.id for one in self.facts])

    @property
    def patient(self) -> Array:
        """(cases,) index of the person."""
        return np.unique([case.patient for case in self.cases], return_inverse=True)[1]


def find_shortcuts(
    dataset: Dataset,
    fingerprint: Fingerprint,
    looks: Mapping[str, ImageLook],
    *,
    ids: set[str] | None = None,
    kinds: Collection[str] | None = None,
    framing: SeenPart | None = None,
    seed: int = 0,
) -> tuple[Shortcut, ...]:
    """All that was tried, the strongest first; nothing where nothing is to be predicted, or with too few patients.

    ids:  of these cases only; else of all but the set's own test part
    kinds: of reference that state what is predicted; else all
    framing: after this preprocessing; else of the images as they are
    """
    ids_wanted = ids if ids is not None else {case.id for case in dataset if dataset.splits.get(case.id) != "test"}
    tested = []
    for subjects in _subjects(dataset, fingerprint, looks, ids_wanted, kinds):
        outcome = subjects.outcome
        for thing, values in _things(subjects, framing):
            auc, p = measure_discrimination(values, outcome, subjects.patient, seed=seed)
            tested.append(replace(thing, auc=auc, p=p))
        tested.extend(_marks(subjects, framing, seed))
    adjusted = testing.holm([one.p for one in tested]).tolist()
    judged = (replace(one, p=p) for one, p in zip(tested, adjusted, strict=True))
    standing = (replace(one, standing=one.p < LEVEL and one.auc.value >= PREDICTIVE) for one in judged)
    return tuple(sorted(standing, key=_order))


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
        (one, f"{one.figure} {wording.value_text(one.auc)}, {wording.interval_text(one.auc)}")
        for one in shortcuts
        if one.standing
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
    looks: Mapping[str, ImageLook],
    ids: set[str],
    kinds: Collection[str] | None,
) -> Iterator[Subjects]:
    """The cases that answer each question; none where too few patients do, or images differ in axes."""
    cases = {case.id: case for case in dataset}
    facts = [one for one in fingerprint.cases if one.id in ids]
    asked = _questions(facts, kinds)
    for question in asked:
        with_answer = [one for one in facts if one.id in question.answers]
        with_answer = _enough(with_answer, question, cases)
        most = max(MOST_CASES // len(asked), MOST_MEASURED) if not question.is_measured else MOST_MEASURED
        with_answer = _thin(with_answer, question, most)
        if with_answer and len({len(one.shape) for one in with_answer}) == 1:
            chosen = [one.id for one in with_answer]
            yield Subjects(
                question, tuple(cases[n] for n in chosen), tuple(with_answer), tuple(looks[n] for n in chosen)
            )


def _questions(facts: Sequence[CaseFacts], kinds: Collection[str] | None) -> list[OutcomeQuestion]:
    return [one for one in outcome_questions(facts) if kinds is None or one.kind in kinds]


def _thin(facts: Sequence[CaseFacts], question: OutcomeQuestion, most: int) -> list[CaseFacts]:
    """Take at most so many of the cases, evenly of each answer, and of a rare one as many as there may be of each."""
    strata: dict[Any, list[int]] = {}
    for index, case in enumerate(facts):
        strata.setdefault(question.stratum(case.id), []).append(index)
    rest, chosen = most, set[int]()
    for left, stratum in zip(range(len(strata), 0, -1), sorted(strata.values(), key=len), strict=True):
        count = min(len(stratum), rest // left)
        chosen.update(stratum[n * len(stratum) // count] for n in range(count))
        rest -= count
    return [case for place, case in enumerate(facts) if place in chosen]


def unanswerable_questions(
    dataset: Dataset, fingerprint: Fingerprint, kinds: Collection[str] | None = None
) -> tuple[str, ...]:
    """A sentence for each question that too few patients answer to say whether anything else than the disease does.

    kinds: of reference that state what is predicted; else all
    """
    cases = {case.id: case for case in dataset if dataset.splits.get(case.id) != "test"}
    facts = [one for one in fingerprint.cases if one.id in cases]
    sentences = []
    for question in _questions(facts, kinds):
        with_answer = [one for one in facts if one.id in question.answers]
        if len({question.answers[one.id] for one in with_answer}) > 1 and not _enough(with_answer, question, cases):
            unit = "patient" if dataset.patients_known else "case"
            few = errors.count_phrase(len({cases[one.id].patient for one in with_answer}), unit)
            needed = f"{FEWEST_MEASURED} {unit}s" if question.is_measured else f"{FEWEST_PATIENTS} {unit}s of each"
            sentences.append(f"whether {question.what} by a shortcut is not measurable with {few}: it takes {needed}")
    return tuple(sentences)


def standing_shortcuts(before: Sequence[Shortcut], after: Sequence[Shortcut]) -> tuple[Shortcut, ...]:
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


def _enough(facts: Sequence[CaseFacts], question: OutcomeQuestion, cases: Mapping[str, Case]) -> list[CaseFacts]:
    """The cases whose answer enough patients gave; none where all gave the same. Of measures all, or none."""
    people: dict[Any, set[str]] = {}
    for case in facts:
        people.setdefault(question.stratum(case.id), set()).add(cases[case.id].patient)
    if question.is_measured:
        differ = len({question.answers[one.id] for one in facts}) > 1
        return list(facts) if differ and len(people.get(True, ())) >= FEWEST_MEASURED else []
    enough = {answer for answer, owners in people.items() if len(owners) >= FEWEST_PATIENTS}
    return [one for one in facts if question.answers[one.id] in enough] if len(enough) > 1 else []


def _things(subjects: Subjects, framing: SeenPart | None) -> Iterator[tuple[Shortcut, Floats]]:
    """Each thing and its numbers, (cases, numbers)."""
    for name, values, setting in (
        ("image size", _size(subjects, framing), "aspect"),
        ("aspect ratio", _aspect(subjects, framing), "aspect"),
        ("spacing", _spacing(subjects), ""),
        *((name, values, "border") for name, values in _strips(subjects, framing)),
        *((f"column {name}", values, "") for name, values in _columns(subjects)),
    ):
        if values.size:
            yield _untested_shortcut(name, setting, subjects.question), values


def _untested_shortcut(name: str, setting: str, question: OutcomeQuestion, where: str = "") -> Shortcut:
    nothing = Estimate(0.5, method="none: the same for all")
    removable = bool(setting) and not question.is_measured
    figure = "c" if question.is_measured else "AUC"
    return Shortcut(name, nothing, 1.0, removable, False, setting, question.what, figure, where, question.kind)


def _marks(subjects: Subjects, framing: SeenPart | None, seed: int) -> Iterator[Shortcut]:
    """A small mark at one place of the pictures, if one predicts the outcome far better than any patch elsewhere."""
    with_patches = [n for n, look in enumerate(subjects.looks) if look.patches is not None]
    subjects = replace(
        subjects,
        cases=tuple(subjects.cases[n] for n in with_patches),
        facts=tuple(subjects.facts[n] for n in with_patches),
        looks=tuple(subjects.looks[n] for n in with_patches),
    )
    if not _enough(subjects.facts, subjects.question, {case.id: case for case in subjects.cases}):
        return
    pairs = zip(subjects.looks, subjects.facts, strict=True)
    marks = np.stack([_patches_seen(look.patches, facts.shape, framing) for look, facts in pairs])
    shapes = [one.shape for one in subjects.facts]
    corners = CORNERS if len(set(shapes)) > 1 else ()
    frames = {"": marks} | {name: _small_marks.anchor_patches(marks, shapes, name) for name in corners}
    outcome, best = subjects.outcome, None
    truth = outcome.truth(np.arange(len(outcome)))
    for corner, patches in frames.items():
        mark = _small_marks.separating_mark(ranks := _small_marks.rank_patches(patches), truth)
        if mark is not None and (best is None or mark.strength > best[0].strength):
            best = replace(mark, corner=corner), ranks
    if best is not None:
        mark, ranks = best
        predict = _small_marks.predicted_by_best
        auc, p = measure_discrimination(ranks, outcome, subjects.patient, seed=seed, predict=predict)
        setting = "border" if max(abs(share - 0.5) for share in mark.place) > 0.5 - MARGIN else ""
        # Each way of counting places has had its chance.
        shortcut = _untested_shortcut(MARK, setting, subjects.question, str(mark))
        yield replace(shortcut, auc=auc, p=min(1.0, p * len(frames)))


def _patches_seen(patches: Array | None, shape: Sequence[int], framing: SeenPart | None) -> Array:
    """The patches of a picture without those that the plan's border and aspect cut away."""
    assert patches is not None  # noqa: S101 - only such pictures are asked
    places = np.arange(1, PLACES + 1) / (PLACES + 1)
    outermost = np.abs(places - 0.5) + 1 / (PLACES + 1)
    rows, columns = ((share >= 1) | (outermost <= share / 2) for share in _share_seen(shape, framing).tolist())
    return np.where(np.outer(rows, columns), patches, 0)


def _logs(subjects: Subjects) -> Floats:
    return np.log(np.array([one.shape for one in subjects.facts], dtype=np.float64))


def _size(subjects: Subjects, framing: SeenPart | None) -> Floats:
    """Number of voxels; after all are brought to one shape, how far the small ones were stretched, and their aspect."""
    logs = _logs(subjects)
    if framing is None or framing.shape is None:
        return cast("Floats", logs.sum(axis=1, keepdims=True))
    if logs.shape[1] != len(framing.shape):
        return logs[:, :0]
    stretched = np.maximum(np.log(framing.shape) - logs, 0.0)  # what was larger lost its size with its finest detail
    return np.hstack([stretched, _aspect(subjects, framing)])


def _aspect(subjects: Subjects, framing: SeenPart | None) -> Floats:
    logs = _logs(subjects)
    ratios = logs[:, 1:] - logs[:, :1]
    return np.zeros_like(ratios) if framing is not None and framing.aspect == "crop" else ratios


def _spacing(subjects: Subjects) -> Floats:
    if not all(one.physical for one in subjects.facts):
        return np.empty((len(subjects.facts), 0))
    return cast("Floats", np.log(np.array([one.steps for one in subjects.facts])))


def _strips(subjects: Subjects, framing: SeenPart | None) -> Iterator[tuple[str, Floats]]:
    """Mean and deviation of the border's ranks along each side of the images, and in each corner.

    A voxel's rank is among those of its image's margin. What lies further inside changes the scale of all intensities,
    as a bright lesion makes every border darker, but no rank.
    """
    axes = subjects.looks[0].small.ndim
    if axes not in BORDER:
        return
    pairs = zip(subjects.looks, subjects.facts, strict=True)
    ranks = np.stack(
        [_rank_margin(_as_seen(one.small.astype(np.float32), facts.shape, framing)) for one, facts in pairs]
    )
    ends = (slice(0, BORDER[axes]), slice(-BORDER[axes], None))
    sides: list[tuple[slice, ...]] = [(*(slice(None),) * axis, end) for axis in range(axes) for end in ends]
    corners = [tuple(ends[n >> axis & 1] for axis in range(axes)) for n in range(2**axes)]
    for name, regions in (("border pixels", sides), ("corner pixels", corners)):
        parts = [ranks[(slice(None), *region)].reshape(len(ranks), -1) for region in regions]
        yield name, np.stack([figure for part in parts for figure in (part.mean(axis=1), part.std(axis=1))], axis=1)


def _rank_margin(small: Floats) -> Floats:
    """A small image with ranks from 0 to 1 in its margin; in half precision, as it was kept, even parts stay even."""
    depth = DEPTH * BORDER[small.ndim]
    margin = np.pad(np.zeros([size - 2 * depth for size in small.shape], dtype=bool), depth, constant_values=True)
    ranks = np.zeros(small.shape, dtype=np.float32)
    ranks[margin] = stats.rankdata(small[margin].astype(np.float16)) / np.count_nonzero(margin)
    return ranks


def _as_seen(small: Floats, shape: Sequence[int], framing: SeenPart | None) -> Floats:
    """The small image after the plan's border and aspect were cut from (or padded to) the whole."""
    share = _share_seen(shape, framing)
    if np.allclose(share, 1):
        return small
    offset = (np.asarray(small.shape) - 1) / 2 * (1 - share)
    return np.asarray(ndimage.affine_transform(small, share, offset, order=1, mode="nearest"))


def _share_seen(shape: Sequence[int], framing: SeenPart | None) -> Floats:
    """(axes,) how much of the whole is left after the plan's border and aspect; above 1 where it is padded."""
    if framing is None:
        return np.ones(len(shape))
    share = np.full(len(shape), 1 - 2 * framing.border)
    if framing.aspect != "stretch" and framing.shape is not None and len(framing.shape) == len(shape):
        ratio = np.asarray(shape) / np.asarray(framing.shape)
        share = share * (ratio.min() if framing.aspect == "crop" else ratio.max()) / ratio
    return share


def _columns(subjects: Subjects) -> Iterator[tuple[str, Floats]]:
    """Numbers of each column that says how the image was made; a gap is a value too."""
    names = filter(
        covariate_checks.describes_imaging, dict.fromkeys(name for case in subjects.cases for name in case.covariates)
    )
    for name in names:
        yield name, _numbers([case.covariates.get(name) for case in subjects.cases])
    if any(case.group for case in subjects.cases):
        yield "group", _numbers([case.group for case in subjects.cases])


def _numbers(values: Sequence[Any]) -> Floats:
    """(cases, numbers) of a column: one for each of its commonest values. With one value, or one a case, nothing."""
    words = np.array(
        ["" if covariate_values.is_missing(value) else covariate_values.level_in(value) for value in values]
    )
    levels, counts = np.unique(words, return_counts=True)
    if len(levels) < 2 or counts.max() < 2:
        return np.empty((len(words), 0))
    common = levels[np.argsort(-counts, kind="stable")][:MOST_LEVELS]
    return cast("Floats", (words[:, None] == common).astype(np.float64))


# From (cases, numbers), (shuffles, cases, columns) to be predicted and (cases,) fold: (shuffles, cases, columns), each
# fold from the others.
Predict = Callable[[Floats, Floats, Array], Floats]


def predict_by_ridge(values: Floats, truth: Floats, fold: Array) -> Floats:
    """Ridge regression of all numbers."""
    return _predict(_design(values), truth, fold)


def measure_discrimination(
    values: Floats, outcome: DealtOutcome, patient: Array, *, seed: int, predict: Predict = predict_by_ridge
) -> tuple[Estimate, float]:
    """The figure by which these numbers predict the outcome (0.5 is chance), and p against chance.

    values:  (cases, numbers)
    patient: (cases,) index of the person
    p is 1 where patients cannot be given each other's outcome: their first images are alike.
    """
    if np.ptp(values, axis=0).max() < 1e-9:
        return Estimate(0.5, n=len(outcome), patients=len(np.unique(patient)), method="none: the same for all"), 1.0
    rows, fold = np.arange(len(outcome)), _folds(outcome.strata, patient, seed)
    orders = _orders(tuple(patient.tolist()), seed)
    reached, scores = _reach(values, outcome, orders, fold, predict)
    by_chance, p = reached[1:][np.isfinite(reached[1:])], 1.0
    if len(by_chance) >= FEWEST_SHUFFLES:
        spread = max(float(by_chance.std(ddof=1)), 1e-6)
        p = float(stats.norm.sf((reached[0] - by_chance.mean()) / spread))
    estimate = intervals.bootstrap_statistic(
        lambda weights: outcome.score_order(scores, rows, weights),
        patient,
        strata=outcome.strata,
        seed=seed,
        draws=DRAWS,
    )
    return estimate, max(p, SMALLEST_P)


def _reach(
    values: Floats, outcome: DealtOutcome, orders: Array, fold: Array, predict: Predict
) -> tuple[Floats, Floats]:
    """(1 + shuffles,) how well the answers in each order are predicted; (cases, columns) predictions in the first."""
    count = max(1, AT_ONCE // outcome.truth(orders[0]).size)
    reached, first = list[Floats](), np.empty(0)
    for start in range(0, len(orders), count):
        some = orders[start : start + count]
        scores = predict(values, np.stack([outcome.truth(order) for order in some]), fold)
        reached.append(outcome.each_reached(scores, some))
        first = scores[0].copy() if start == 0 else first
    return np.concatenate(reached), first


def _design(values: Floats) -> Floats:
    """Standardised; one or a few numbers with their squares, because the middle may be the odd one out."""
    spread = values.std(axis=0)
    scaled = ((values - values.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0))[:, spread > 1e-9]
    return np.hstack([scaled, scaled**2]) if scaled.shape[1] <= 3 else scaled


def _folds(label: Array, patient: Array, seed: int) -> Array:
    """(cases,) fold; the patients of each stratum are dealt out in turn."""
    owner = label[np.unique(patient, return_index=True)[1]]
    fold = np.empty(len(owner), dtype=np.intp)
    for stratum in np.unique(owner):
        rows = np.flatnonzero(owner == stratum)
        fold[random_draws.sample_generator(seed, 11, int(stratum)).permutation(rows)] = np.arange(len(rows)) % FOLDS
    return fold[patient]


@lru_cache(maxsize=8)  # of the same patients everything is asked that might predict
def _orders(patient: tuple[int, ...], seed: int) -> Array:
    """(1 + shuffles, cases) whose answer each case gets: first its own, then that of another patient's first image."""
    first = np.unique(patient, return_index=True)[1]
    others = [
        random_draws.sample_generator(seed, 12, draw).permutation(first)[list(patient)] for draw in range(SHUFFLES)
    ]
    orders = np.stack([np.arange(len(patient)), *others])
    orders.setflags(write=False)
    return orders


def _predict(design: Floats, truth: Floats, fold: Array) -> Floats:
    """(shuffles, cases, columns) by ridge regression from the other folds, for all shuffles in one solution."""
    flat = truth.transpose(1, 0, 2).reshape(len(design), -1)
    scores = np.empty_like(flat)
    for held in range(FOLDS):
        is_held_out, rest = fold == held, fold != held
        centre, mean = design[rest].mean(axis=0), flat[rest].mean(axis=0)
        centred = design[rest] - centre
        gram = centred.T @ centred + np.eye(centred.shape[1])  # a ridge of one case: numbers here are standardised
        weights = np.linalg.solve(gram, centred.T @ (flat[rest] - mean))
        # Without the mean of the fold's training cases, which is lower where the held-out fold has more of a class.
        scores[is_held_out] = (design[is_held_out] - centre) @ weights
    return scores.reshape(len(design), *truth.shape[::2]).transpose(1, 0, 2)


class DealtOutcome(Protocol):
    """An answer of each case, dealt into folds by strata."""

    @property
    def strata(self) -> Array:
        """(cases,) number of the stratum."""

    def __len__(self) -> int: ...

    def truth(self, order: Array) -> Floats:
        """(cases, columns) numbers for a regression; each case has the answer of the case that `order` names."""

    def score_order(self, scores: Floats, order: Array, weights: Floats | None = None) -> Floats:
        """The figure by which (cases, columns) scores predict the answers in this order: 0.5 is chance, 1 perfect."""

    def each_reached(self, scores: Floats, orders: Array) -> Floats:
        """The same of (shuffles, cases, columns) scores and (shuffles, cases) orders: (shuffles,)."""


@dataclass(frozen=True, eq=False)
class CalledOutcome:
    """One of several classes; label: (cases,) its index. Judged by the AUC, with several one against the rest."""

    label: Array

    @property
    def strata(self) -> Array:
        """The classes."""
        return self.label

    def __len__(self) -> int:
        return len(self.label)

    def truth(self, order: Array) -> Floats:
        """A column for each class."""
        return np.eye(int(self.label.max()) + 1)[self.label[order]]

    def score_order(self, scores: Floats, order: Array, weights: Floats | None = None) -> Floats:
        """The AUC."""
        return classification.one_against_rest(classification.auroc, scores, self.label[order], weights)

    def each_reached(self, scores: Floats, orders: Array) -> Floats:
        """The AUC of each shuffle, by the sum of the ranks of a class (Mann and Whitney, Ann Math Stat 1947).

        NaN of a shuffle in which a class has no case, or all of them.
        """
        truths, classes = self.label[orders], scores.shape[2]
        reached = []
        for label in range(classes) if classes > 2 else (1,):
            is_label = truths == label
            count, ranks = is_label.sum(axis=1), stats.rankdata(scores[:, :, label], axis=1)
            below = (ranks * is_label).sum(axis=1) - count * (count + 1) / 2
            pairs = (count * (is_label.shape[1] - count)).astype(np.float64)
            reached.append(np.divide(below, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))
        return np.asarray(np.mean(reached, axis=0))


@dataclass(frozen=True, eq=False)
class OrderedOutcome:
    """A number, or the time to an event that not all had. Judged by the share of pairs in the right order (Harrell).

    times:    (cases,) above 0
    happened: (cases,) whether the event came then; else later. Of a measured number all
    """

    times: Floats
    happened: Array

    @property
    def strata(self) -> Array:
        """Whether the event happened."""
        return self.happened.astype(np.intp)

    def __len__(self) -> int:
        return len(self.times)

    def truth(self, order: Array) -> Floats:
        """Log-rank scores: 1 for an event less the cumulative hazard until then. Peto and Peto, J R Stat Soc A 1972"""
        risk = (self.times[:, None] <= self.times).sum(axis=1)
        weights = np.where(self.happened, 1 / risk, 0.0)
        hazard = (weights * (self.times <= self.times[:, None])).sum(axis=1)
        return cast("Floats", (self.happened - hazard)[order, None])

    def score_order(self, scores: Floats, order: Array, weights: Floats | None = None) -> Floats:
        """Harrell's c."""
        return survival.harrell_c(scores[:, 0], self.times[order], self.happened[order], weights)

    def each_reached(self, scores: Floats, orders: Array) -> Floats:
        """Harrell's c of each shuffle."""
        return np.array([float(self.score_order(*one)) for one in zip(scores, orders, strict=True)])


@dataclass(frozen=True, eq=False)
class OutcomeQuestion:
    """An outcome to be predicted, and the answers of the cases in which it is known.

    what:        in words that end before "by ... alone"
    is_measured: what is cut from an image may be what a measure is taken of; what is called is text
    answers:     {case id: text, or (number, whether it is reached)}
    kind:        of reference that answers it
    """

    what: str
    is_measured: bool
    answers: Mapping[str, Any]
    kind: str = ""

    def for_cases(self, ids: Sequence[str]) -> DealtOutcome:
        """The outcome of these cases, in their order."""
        own_answers = [self.answers[name] for name in ids]
        if not self.is_measured:
            return CalledOutcome(np.unique(own_answers, return_inverse=True)[1])
        numbers, reached = zip(*own_answers, strict=True)
        # By ranks: a value far outside counts like any other.
        return OrderedOutcome(np.asarray(stats.rankdata(numbers)), np.array(reached, dtype=bool))

    def stratum(self, case: str) -> Any:
        """Its class, or whether its number is reached: a time until which nothing happened says less."""
        answer = self.answers[case]
        return answer[1] if self.is_measured else answer


def outcome_questions(facts: Sequence[CaseFacts]) -> Iterator[OutcomeQuestion]:
    """All that the references of these cases state about an image as a whole."""
    for kind in references.reference_kinds():
        summaries = {case.id: case.references[kind.name] for case in facts if kind.name in case.references}
        answers = {case: kind.facts.answers(summary) for case, summary in summaries.items()}
        for name in dict.fromkeys(name for own in answers.values() for name in own):
            with_name = {case: own[name] for case, own in answers.items() if name in own}
            yield OutcomeQuestion(kind.words.question.format(name=name), kind.facts.is_measured, with_name, kind.name)
