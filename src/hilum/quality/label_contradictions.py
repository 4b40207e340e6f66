"""Labels that contradict those of like images, or the words of their case's own name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hilum import errors
from hilum.evaluation import label_errors
from hilum.lazy import special
from hilum.quality import image_descriptors
from hilum.quality.image_descriptors import ImageLook
from hilum.values import Array, Case, CaseFacts, Dataset, Fingerprint, Floats, Problem

# How often a set of right labels has one that is named, at the most; measured lies below it (bench/label_faults.py).
FALSE = 0.01
# Labels that a class must have, and cases in all; of more cases than the last none is judged, which would take minutes.
FEWEST_OF_CLASS, FEWEST, MOST = 5, 20, 20_000
# Axes along which small images differ most, robust deviations beyond which a number says no more.
COMPONENTS, FARTHEST = 40, 4.0
# Cases on which the kernels of all others stand, ridge beside these kernels, and how sharp answers become
# probabilities, which are calibrated afterwards.
LANDMARKS, RIDGE, SHARPNESS = 500, 0.3, 4.0
# A share of variance below which an axis of the kernel is rounding.
ROUNDING = 1e-8
# Names that hold the name of a class, of which so many at least, and this share, must agree with the label.
FEWEST_NAMED, AGREEING = 10, 0.9
WORDS = re.compile(r"[^\W\d_]+")
SHOWN = 3


@dataclass(frozen=True, eq=False)
class LikeImages:
    """One question of one answer a case, and how probable each answer is by other patients' images.

    ids:     (cases,)
    classes: that a case can have
    labels:  (cases,) index of the class that each is labelled as
    chances: (cases, classes) by the images that are like it, without those of its patient
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    labels: Array
    chances: Floats

    @property
    def doubts(self) -> Floats:
        """(cases,) how doubtful each label is, 0 to 1."""
        return label_errors.label_doubts(self.chances, self.labels)


def contradiction_problems(
    dataset: Dataset, fingerprint: Fingerprint, looks: Mapping[str, ImageLook]
) -> Iterator[Problem]:
    """Warnings about labels that are unlike those of like images, and about names that say another class."""
    for question in compare_like_images(dataset, fingerprint, looks):
        probable = label_errors.probable_label_errors(question.chances, question.labels, false=FALSE)
        places = np.flatnonzero(probable >= 0).tolist()
        if places:
            pairs = [(question.classes[question.labels[n]], question.classes[probable[n]]) for n in places]
            counted = Counter(pairs).most_common()
            words = [f"{count} labelled {label!r} where like images are {other!r}" for (label, other), count in counted]
            yield Problem.warning(
                f"the label contradicts those of like images: {errors.list_phrase(words[:SHOWN])}",
                tuple(question.ids[n] for n in places),
                "a model learns them, and is judged by them",
                "Look at these images: a right label stays; `hilum check --minutes` ranks all cases",
                kind="label",
            )
    yield from _named_otherwise(dataset)


def compare_like_images(
    dataset: Dataset, fingerprint: Fingerprint, looks: Mapping[str, ImageLook]
) -> Iterator[LikeImages]:
    """Probabilities of the classes, and of each finding, by the images of other patients that are alike.

    Leave-one-out answers of a kernel ridge regression on plain features: intensities, sharpness, size, and the small
    image along its main axes. Classes with few labels are left out.
    """
    facts = [one for one in fingerprint.cases if one.id in looks]
    by_id = {case.id: case for case in dataset}
    cases = [by_id[one.id] for one in facts]
    if not FEWEST <= len(cases) <= MOST:
        return
    features: Floats | None = None
    for labels in _questions(cases):
        counts = Counter(label for label in labels if label is not None)
        classes = tuple(sorted(name for name, count in counts.items() if count >= FEWEST_OF_CLASS))
        judged = [n for n, label in enumerate(labels) if label in classes]
        if len(classes) < 2 or len(judged) < FEWEST:
            continue
        if features is None:
            features = _describe(facts, [looks[one.id] for one in facts])
        index = np.array([classes.index(str(labels[n])) for n in judged])
        _, patients = np.unique([cases[n].patient for n in judged], return_inverse=True)
        chances = _leave_one_out(features[judged], index, patients, len(classes))
        yield LikeImages(tuple(cases[n].id for n in judged), classes, index, chances)


def _questions(cases: Sequence[Case]) -> Iterator[list[str | None]]:
    """The answer of each case to each question that has one of several words: its class, and each finding."""
    yield [None if (name := case.references.get("class")) is None else str(name) for case in cases]
    findings = [case.references.get("findings") or {} for case in cases]
    for name in dict.fromkeys(name for found in findings for name in found):
        answers = [found.get(name) for found in findings]
        yield [None if answer is None else f"{'' if answer else 'no '}{name}" for answer in answers]


def _describe(facts: Sequence[CaseFacts], looks: Sequence[ImageLook]) -> Floats:
    """(cases, features) of equal weight: what is measured of an image, and its small image along its main axes."""
    rows = image_descriptors.describe_cases(facts, looks)
    middle = np.median(rows, axis=0)
    spread = 1.4826 * np.median(np.abs(rows - middle), axis=0)
    spread = np.where(spread > 0, spread, rows.std(axis=0))
    differs = spread > ROUNDING
    measured = ((rows - middle)[:, differs] / spread[differs]).clip(-FARTHEST, FARTHEST)
    shapes = {look.small.shape for look in looks}
    if len(shapes) > 1:  # pictures beside volumes
        return _unit(measured)
    small = np.stack([np.asarray(look.small, dtype=np.float32).ravel() for look in looks])
    return np.concatenate([_unit(measured), _unit(_main_axes(small))], axis=1)


def _main_axes(pixels: Floats) -> Floats:
    """(cases, components) of (cases, pixels)."""
    centred = pixels - pixels.mean(axis=0)
    if len(centred) < centred.shape[1]:
        variances, axes = np.linalg.eigh(centred @ centred.T)
        return np.asarray(axes[:, -COMPONENTS:] * np.sqrt(variances[-COMPONENTS:].clip(0)))
    _, axes = np.linalg.eigh(centred.T @ centred)
    return np.asarray(centred @ axes[:, -COMPONENTS:])


def _unit(rows: Floats) -> Floats:
    """Rows of a mean square length of 1, so that two groups of features count alike."""
    return np.asarray(rows / max(float(np.sqrt((rows**2).sum(axis=1).mean())), ROUNDING), dtype=np.float64)


def _leave_one_out(features: Floats, labels: Array, patients: Array, classes: int) -> Floats:
    """(cases, classes) probabilities by a kernel ridge regression without the cases of the same patient.

    In closed form: the answer without some cases follows from the residuals with them and the hat matrix. Kernels
    stand on some of the cases where there are many (Williams and Seeger, NeurIPS 2000).
    """
    landmarks = np.random.default_rng(0).permutation(len(features))[:LANDMARKS]
    squares = (features**2).sum(axis=1)
    distances = squares[:, None] + squares[landmarks] - 2 * features @ features[landmarks].T
    kernels = np.exp(-distances.clip(0) / max(float(np.median(distances)), ROUNDING))
    variances, axes = np.linalg.eigh(kernels[landmarks])
    is_real = variances > ROUNDING * variances[-1]
    basis = kernels @ (axes[:, is_real] / np.sqrt(variances[is_real]))

    answers = np.eye(classes)[labels]
    shares = answers.mean(axis=0)
    inverse = np.linalg.inv(basis.T @ basis + RIDGE * np.eye(basis.shape[1]))
    residuals = answers - shares - basis @ (inverse @ (basis.T @ (answers - shares)))
    unseen = np.empty_like(answers)
    order = np.argsort(patients, kind="stable")
    for members in np.split(order, np.cumsum(np.bincount(patients))[:-1]):
        hat = basis[members] @ inverse @ basis[members].T
        left_out = np.linalg.solve(np.eye(len(members)) - hat, residuals[members])
        unseen[members] = answers[members] - left_out
    return np.asarray(special.softmax(SHARPNESS * unseen, axis=1))


def _named_otherwise(dataset: Dataset) -> Iterator[Problem]:
    """Cases whose name holds another class's name, where names of cases nearly always agree with the class."""
    labelled = {case.id: str(case.references["class"]) for case in dataset if "class" in case.references}
    names = {name: " ".join(_words(name)) for name in set(labelled.values()) if _words(name)}
    stated_classes = {case: found for case in labelled if (found := _class_in(Path(case).name, names)) is not None}
    other = tuple(case for case, name in stated_classes.items() if name != labelled[case])
    agreeing = len(stated_classes) - len(other)
    if not other or agreeing < FEWEST_NAMED or agreeing < AGREEING * len(stated_classes):
        return
    first = f"{Path(other[0]).name} is labelled {labelled[other[0]]!r}"
    yield Problem.warning(
        f"the name of the file says another class than its label, as in: {first}",
        other,
        f"the names of {agreeing} other files say their class",
        "Look at these images, and move or rename them",
        kind="file-name",
    )


def _class_in(name: str, classes: Mapping[str, str]) -> str | None:
    """The only class whose words stand in a name; of "no tumour" and "tumour" the longer one counts."""
    text = f" {' '.join(_words(name))} "
    found = [one for one, words in classes.items() if f" {words} " in text]
    longest = [one for one in found if not any(classes[one] in classes[other] for other in found if other != one)]
    return longest[0] if len(longest) == 1 else None


def _words(name: str) -> list[str]:
    return WORDS.findall(name.casefold())
