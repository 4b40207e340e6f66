"""The part of the body that names suggest, and whether its two sides are alike."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from isocenter.tasks import numbered_teeth
from isocenter.values import Dataset, Decision, Fingerprint, Label

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
ALIKE, DIFFERENT, NUMBERED = "alike", "different", "numbered"


@dataclass(frozen=True)
class Anatomy:
    """sides: whether they are "alike", "different", or told by the numbers of what is named; None where no name tells

    word: the name that tells
    """

    sides: Literal["alike", "different", "numbered"] | None
    word: str = ""


def anatomy(names: Iterable[str]) -> Anatomy:
    """The anatomy that names suggest; one word of the trunk outweighs all others."""
    words_shown = list(names)
    if word := numbered_teeth(words_shown):
        return Anatomy("numbered", word)
    if word := _first(words_shown, ONE_SIDED):
        return Anatomy("different", word)
    if word := _first(words_shown, PAIRED):
        return Anatomy("alike", word)
    return Anatomy(None)


def names_of(dataset: Dataset, labels: Iterable[Label]) -> list[str]:
    """The names of a data set, its structures and classes, and the part of the body that its files name."""
    parts = {str(case.covariates["body_part"]) for case in dataset if case.covariates.get("body_part")}
    return [dataset.name, *(label.name for label in labels), *sorted(parts)]


def window_for(names: Iterable[str]) -> tuple[str, str] | None:
    """(kind of tissue, name that tells it) that a CT should be windowed for; None where none does, or several do."""
    words_shown = list(names)
    tissues = {kind: word for kind, words in WINDOWED.items() if (word := _first(words_shown, words))}
    return next(iter(tissues.items())) if len(tissues) == 1 else None


def left_right(fingerprint: Fingerprint, ndim: int) -> Decision:
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
