"""The part of the body that names suggest, and whether its two sides are alike."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from hilum.tasks.shared import left_right
from hilum.values import Dataset, Decision, Fingerprint, Label

# Organs of which there is one, or whose two sides differ, and words for the trunk that holds them.
ONE_SIDED = (
    "chest thorax thoracic lung pulmon pneumon covid tuberculosis effusion atelectas cardiomegaly trachea bronch heart "
    "cardiac cardio myocard atrium aorta coronary vena cava abdomen abdominal liver hepat spleen splen stomach gastr "
    "pancrea gallbladder biliary colon bowel intestin duodenum rectum appendi esophag oesophag kidney renal adrenal "
    "torso trunk organ"
)
# Parts whose mirror image is the other side of the body.
PAIRED = (
    "brain cerebr head skull hippocamp glioma glioblastoma amygdala thalam caudate putamen cortex tumor_core "
    "white_matter breast mammo retina fundus macula optic eye orbit ear cochlea hand wrist finger elbow shoulder "
    "humerus knee hip femur tibia fibula ankle foot toe leg arm thigh muscle prostate pelvis uterus bladder spine "
    "vertebra disc tooth teeth dental mandib thyroid larynx parotid neck skin"
)
# What a CT is windowed for: the first Hounsfield unit that is black, the first that is white.
WINDOWS = {"lung": (-1350.0, 150.0), "bone": (-500.0, 1300.0), "soft tissue": (-160.0, 240.0), "brain": (0.0, 80.0)}
WINDOWED = {
    "lung": "lung upper_lobe middle_lobe lower_lobe airway trachea bronch emphysema nodule pneumon covid",
    "bone": "bone rib vertebra spine femur tibia skull pelvis sacrum fracture hip mandib tooth teeth",
    "soft tissue": (
        "liver hepat spleen pancrea kidney renal gallbladder stomach colon bowel duodenum aorta vena heart myocard "
        "atrium ventricle adrenal bladder prostate muscle esophag lymph"
    ),
    "brain": "brain hemorrhage haemorrhage haematoma hematoma stroke ischemi ischaemi cerebr intracranial",
}
# A shorter word is found only where it stands alone: "hip" is not in "hippocampus".
SHORT = 4
# Training cases of which a label may keep to one half by chance: beside another in the other half, in halves of all
# that is contoured, and with nothing in the other half.
BESIDE_ANOTHER = 2
OF_THE_CONTOURED = 6
ALONE = 10
ALIKE = "alike"
DIFFERENT = "different"
NUMBERED = "numbered"


@dataclass(frozen=True)
class Anatomy:
    """sides: whether they are "alike", "different", or told by the numbers of what is named; None where no name tells

    word:   the name that tells
    placed: why labels have sides by their places, in words; empty where they have none
    """

    sides: Literal["alike", "different", "numbered"] | None
    word: str = ""
    placed: str = ""


def suggest_anatomy(names: Iterable[str]) -> Anatomy:
    """The anatomy that names suggest; one word of the trunk outweighs all others."""
    words_shown = list(names)
    if word := left_right.numbered_teeth(words_shown):
        return Anatomy("numbered", word)
    if word := _first(words_shown, ONE_SIDED):
        return Anatomy("different", word)
    if word := _first(words_shown, PAIRED):
        return Anatomy("alike", word)
    return Anatomy(None)


def sided_by_place(fingerprint: Fingerprint, labels: Iterable[Label]) -> str:
    """Why labels have sides though no name says so, by the halves of the training images in which they lie.

    Empty where they have none. Halves are those of the image, or of all contours of a case: heads lie off centre.
    """
    every = list(labels)
    sided = left_right.sided_names([label.name for label in every])
    names = {label.value: label.name for label in every if label.name not in sided}
    cases = [{value: place for value, place in case.places.items() if value in names} for case in fingerprint.cases]
    for of_contoured, fewest in ((False, BESIDE_ANOTHER), (True, OF_THE_CONTOURED)):
        kept = _kept_halves(cases, of_contoured=of_contoured)
        left, right = ([value for value, own in kept.items() if own[0] == half and own[1] >= fewest] for half in (0, 1))
        if left and right:
            pair = sorted((min(left), min(right)))
            both = " and ".join(names[value] for value in pair)
            count = min(kept[value][1] for value in pair)
            whole = "what is contoured in " if of_contoured else ""
            halves = f"the two halves of {whole}all {count} training cases"
            return f"{both} keep to {halves}, and in the mirror each would lie where the other does"
        if single := [value for value, (_, count) in kept.items() if count >= ALONE and not of_contoured]:
            where = f"one half of all {kept[single[0]][1]} training cases"
            return f"{names[single[0]]} keeps to {where}, and its counterpart in the other half would be learnt too"
    return ""


def _kept_halves(
    cases: Iterable[Mapping[int, tuple[float, float]]], *, of_contoured: bool
) -> dict[int, tuple[int, int]]:
    """{label value: (half, cases)} of labels that lie in the same half, 0 or 1, in each case that has them."""
    halves = defaultdict[int, list[int | None]](list)
    for places in cases:
        edges = [edge for place in places.values() for edge in place] if of_contoured else [0.0, 1.0]
        middle = (min(edges, default=0.0) + max(edges, default=1.0)) / 2
        for value, (low, high) in places.items():
            halves[value].append(0 if high <= middle else 1 if low >= middle else None)
    return {value: (own[0], len(own)) for value, own in halves.items() if own[0] is not None and len({*own}) == 1}


def anatomy_hints(dataset: Dataset, labels: Iterable[Label]) -> list[str]:
    """The names of a data set, its structures and classes, and the part of the body that its files name."""
    parts = {str(case.covariates["body_part"]) for case in dataset if case.covariates.get("body_part")}
    return [dataset.name, *(label.name for label in labels), *sorted(parts)]


def tissue_window(names: Iterable[str]) -> tuple[str, str] | None:
    """(kind of tissue, name that tells it) that a CT should be windowed for; None where none does, or several do."""
    words_shown = list(names)
    tissues = {kind: word for kind, words in WINDOWED.items() if (word := _first(words_shown, words))}
    return next(iter(tissues.items())) if len(tissues) == 1 else None


def left_right_axis(fingerprint: Fingerprint, ndim: int) -> Decision:
    """The axis of the network's grid that runs from left to right: of RAS+ the first, of a picture the horizontal."""
    cases = fingerprint.cases
    if all(len(case.shape) == 1 for case in cases):
        return Decision(None, "a series has no sides, and its axis runs one way")
    if all(len(case.shape) == 2 for case in cases):
        return Decision(1, "the horizontal axis of a picture is its second")
    if not all(case.oriented for case in cases):
        unknown = sum(not case.oriented for case in cases)
        return Decision(None, f"the orientation of {unknown} of {len(cases)} training cases is not known")
    if ndim == 3:
        return Decision(0, "volumes are brought to the order RAS+, whose first axis runs from left to right")
    if any(case.shape[0] == 1 for case in cases):
        return Decision(None, "the slices are sagittal: left and right lie outside them")
    return Decision(0, "slices are brought to the order RAS+, whose first axis runs from left to right")


def _first(names: Iterable[str], words: str) -> str:
    """The name that holds the first of the words, parted by blanks, that any name holds; empty where none does."""
    text = {name: name.lower().replace("-", "_").replace(" ", "_") for name in names}
    for word in words.split():
        for name, plain in text.items():
            if word in plain if len(word) >= SHORT else word in re.split(r"[^a-z]+", plain):
                return name
    return ""
