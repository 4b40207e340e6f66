"""Shortcuts: what predicts a label without the disease, such as image size, borders and the scanner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isocenter.lazy import ndimage
from isocenter.quality.covariates import words_of
from isocenter.quality.discrimination import FOLDS, discrimination, holm
from isocenter.quality.outcomes import MOST_MEASURED, Outcome, Question, questions
from isocenter.quality.thumbnail import Look
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
# Voxels of the small image (16 or 32 a side) that are border: 6 % of the field on each side.
BORDER = {2: 2, 3: 1}
# Columns that say how an image was made, not who the patient is.
MADE = frozenset(
    {
        "site", "scanner", "center", "centre", "hospital", "institution", "clinic", "manufacturer", "vendor",
        "model", "device", "machine", "station", "kvp", "exposure", "protocol", "sequence", "field", "strength",
        "tesla", "coil", "view", "position", "location", "source", "folder", "batch", "url", "license",
        "licence", "modality",
    }
)  # fmt: skip
# Where in the body something lies is no scanner.
BODY = frozenset({"tumor", "tumour", "lesion", "tissue", "biopsy", "body", "anatomic", "anatomical"})
MOST_LEVELS = 20


@dataclass(frozen=True)
class Seen:
    """What preprocessing leaves to be seen: `aspect` and `border` of the plan, and the shape that all get."""

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
    seen: Seen | None = None,
    seed: int = 0,
) -> tuple[Shortcut, ...]:
    """All that was tried, the strongest first; nothing where nothing is to be predicted, or with too few patients.

    ids:  of these cases only; else of all but the set's own test part
    seen: after this preprocessing; else of the images as they are
    """
    wanted = ids if ids is not None else {case.id for case in dataset if dataset.splits.get(case.id) != "test"}
    tested = []
    for subjects in _subjects(dataset, fingerprint, looks, wanted):
        outcome = subjects.outcome
        for thing, values in _things(subjects, seen):
            auc, p = discrimination(values, outcome, subjects.patient, seed=seed)
            tested.append(replace(thing, auc=auc, p=p))
    adjusted = holm([one.p for one in tested])
    judged = [
        replace(one, p=p, standing=p < LEVEL and one.auc.value >= PREDICTIVE)
        for one, p in zip(tested, adjusted, strict=True)
    ]
    return tuple(sorted(judged, key=lambda shortcut: (-shortcut.auc.value, shortcut.what, shortcut.name)))


def shortcut_problems(shortcuts: Sequence[Shortcut]) -> Iterator[Problem]:
    """One finding for each thing that predicts what the images should show."""
    for shortcut in shortcuts:
        if shortcut.p < LEVEL and shortcut.auc.value > 0.5:
            yield Problem(
                "warning" if shortcut.standing else "note",
                f"{shortcut.what} {'' if shortcut.standing else 'a little '}by {shortcut.name} alone: "
                f"{shortcut.figure} {shortcut.auc.value:.2f}{_interval(shortcut.auc)}, p {shortcut.p_text} after Holm",
                (),
                "a model may learn it instead of the disease, and fail where it is absent",
                "Nothing to do yet: the plan tries to remove it, and the report states whether that helped"
                if shortcut.standing and shortcut.removable
                else "Balance the cases over it, or report results within each of its values",
            )


def _interval(auc: Estimate) -> str:
    return f" ({auc.low:.2f} to {auc.high:.2f})" if auc.low is not None and auc.high is not None else ""


def _subjects(
    dataset: Dataset, fingerprint: Fingerprint, looks: Mapping[str, Look], wanted: set[str]
) -> Iterator[Subjects]:
    """For each question the cases that answer it; none where too few patients do, or images differ in axes."""
    cases = {case.id: case for case in dataset}
    facts = [one for one in fingerprint.cases if one.id in wanted]
    asked = list(questions(facts))
    for question in asked:
        own = [one for one in facts if one.id in question.answers]
        own = _enough(own, question, cases)
        most = max(MOST_CASES // len(asked), MOST_MEASURED) if not question.is_measured else MOST_MEASURED
        own = own[:: max(1, -(-len(own) // most))]
        if own and len({len(one.shape) for one in own}) == 1:
            chosen = [one.id for one in own]
            yield Subjects(question, tuple(cases[n] for n in chosen), tuple(own), tuple(looks[n] for n in chosen))


def _enough(facts: Sequence[CaseFacts], question: Question, cases: Mapping[str, Case]) -> list[CaseFacts]:
    """Those whose answer enough patients gave; nothing where all gave the same. Of measures all, or nothing."""
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
    nothing = Estimate(0.5, method="none: the same for all")
    for name, values, setting in (
        ("image size", _size(subjects, seen), "aspect"),
        ("aspect ratio", _aspect(subjects, seen), "aspect"),
        ("spacing", _spacing(subjects), ""),
        ("border pixels", _strips(subjects, seen, corners=False), "border"),
        ("corner pixels", _strips(subjects, seen, corners=True), "border"),
        *((f"column {name}", values, "") for name, values in _columns(subjects)),
    ):
        if values.size:
            question = subjects.question
            removable = bool(setting) and not question.is_measured
            figure = "c" if question.is_measured else "AUC"
            yield Shortcut(name, nothing, 1.0, removable, False, setting, question.what, figure), values


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


def _strips(subjects: Subjects, seen: Seen | None, *, corners: bool) -> Floats:
    """Mean and deviation along each side of the image (or in each corner), after z-score as a network sees it."""
    pairs = zip(subjects.looks, subjects.facts, strict=True)
    images = np.stack([_as_seen(one.small.astype(np.float32), facts.shape, seen) for one, facts in pairs])
    axes = images.ndim - 1
    if axes not in BORDER:
        return np.empty((len(images), 0))
    flat = tuple(range(1, axes + 1))
    images = (images - images.mean(axis=flat, keepdims=True)) / (images.std(axis=flat, keepdims=True) + 1e-6)
    ends = (slice(0, BORDER[axes]), slice(-BORDER[axes], None))
    if corners:
        regions: list[tuple[slice, ...]] = [tuple(ends[n >> axis & 1] for axis in range(axes)) for n in range(2**axes)]
    else:
        regions = [(*(slice(None),) * axis, end) for axis in range(axes) for end in ends]
    parts = [images[(slice(None), *region)].reshape(len(images), -1) for region in regions]
    return np.stack([figure for part in parts for figure in (part.mean(axis=1), part.std(axis=1))], axis=1)


def _as_seen(small: Floats, shape: Sequence[int], seen: Seen | None) -> Floats:
    """The small image after the plan's border and aspect were cut from (or padded to) the whole."""
    if seen is None:
        return small
    share = np.full(small.ndim, 1 - 2 * seen.border)
    if seen.aspect != "stretch" and seen.shape is not None and len(seen.shape) == len(shape):
        ratio = np.asarray(shape) / np.asarray(seen.shape)
        share = share * (ratio.min() if seen.aspect == "crop" else ratio.max()) / ratio
    if np.allclose(share, 1):
        return small
    offset = (np.asarray(small.shape) - 1) / 2 * (1 - share)
    return np.asarray(ndimage.affine_transform(small, share, offset, order=1, mode="nearest"))


def _columns(subjects: Subjects) -> Iterator[tuple[str, Floats]]:
    """Numbers of each column that says how the image was made; a gap is a value too."""
    names = dict.fromkeys(name for case in subjects.cases for name in case.covariates if _says_how(name))
    for name in names:
        yield name, _numbers([case.covariates.get(name) for case in subjects.cases])
    if any(case.group for case in subjects.cases):
        yield "group", _numbers([case.group for case in subjects.cases])


def _says_how(column: str) -> bool:
    words = words_of(column)
    return bool(words & MADE) and not words & BODY


def _numbers(values: Sequence[Any]) -> Floats:
    """(cases, numbers) of a column: one for each of its commonest values. With one value, or one a case, nothing."""
    words = np.array(["" if is_missing(value) else str(value) for value in values])
    levels, counts = np.unique(words, return_counts=True)
    if len(levels) < 2 or counts.max() < 2:
        return np.empty((len(words), 0))
    common = levels[np.argsort(-counts, kind="stable")][:MOST_LEVELS]
    return (words[:, None] == common).astype(np.float64)
