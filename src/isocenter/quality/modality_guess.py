"""A guess at the kind of image where neither files nor data set nor a person says it: from names and values.

It is cautious: a wrong guess would mirror what has a side, or take numbers for Hounsfield units. Hounsfield units, the
dark border and the colours of a fundus photograph and the stains of a section show in values; a radiograph does only
together with a name, because ultrasound, OCT and slices of any scanner are grey pictures too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from isocenter.files import UNKNOWN_MODALITY, modality_word
from isocenter.values import Dataset, Fingerprint, Floats, Problem

# Of two letters or more that data sets are rarely called by for another reason: "us" and "pt" may be anything.
SHORT_WORDS = ("mr", "ct")
# October with its year or day, which is no optical coherence tomography.
DATE = re.compile(r"\d[^a-z0-9]*oct(?![a-z0-9])|(?<![a-z0-9])oct[^a-z0-9]*\d")
# What is imaged, where pictures of it are radiographs, or seen through an endoscope.
RADIOGRAPHED = (
    "chest thorax lung pneumonia covid covid19 tuberculosis cardiomegaly fracture hand wrist elbow shoulder knee hip "
    "bone teeth tooth dental panoramic scoliosis"
)
ENDOSCOPIC = "polyp polyps colon gastric stomach esophagus bowel endoscopic"
STATED = "neither the files nor the data set say it"
# Air lies at -1000 HU; scanners fill what they have not seen with -1024 to -3024. Metal ends at 3071 or far above.
AIR, FILLED, METAL = -850.0, -3100.0, 33000.0
# What must hold of so many of the images.
NEARLY_ALL = 0.9
# Single objects in the median picture: so many are cells or nuclei, but no organs, vertebrae or lesions.
SWARM = 10
# Grey levels of 0 to 255: a dark border, a bright background, and the middle of a radiograph.
DARK, BRIGHT, RADIOGRAPH = 12.0, 130.0, (80.0, 200.0)


@dataclass(frozen=True)
class Guess:
    """DICOM's word for the kind of image, and what tells it."""

    modality: str
    because: str


def guessed_modality(dataset: Dataset, fingerprint: Fingerprint) -> Guess | None:
    """The kind of image of these cases; None where nothing tells it.

    fingerprint: of the cases that may have a say
    A name goes before colours and objects, of which several kinds of image have the same, and after Hounsfield units.
    """
    named, measured = _by_name(dataset.name, fingerprint), _by_hounsfield(fingerprint)
    if named is not None and measured is not None and named.modality != measured.modality:
        unlike = f"although {named.because}, which would be {named.modality}"
        return replace(measured, because=f"{measured.because}, {unlike}")
    if named is not None or measured is not None:
        return named or measured
    labels = [label.name for own in dataset.classes.values() for label in own]
    words = [word for name in (dataset.name, *labels) for word in _words(name)]
    if not fingerprint.cases or len({len(case.channels) for case in fingerprint.cases}) > 1:
        return None
    return _by_values(fingerprint, words) or _by_objects(fingerprint, words)


def _by_name(name: str, fingerprint: Fingerprint) -> Guess | None:
    is_dated = DATE.search(name.lower()) is not None and not _flat(fingerprint)
    for word in _words(name):
        if (len(word) < 3 and word not in SHORT_WORDS) or (word == "oct" and is_dated):
            continue
        if (modality := modality_word(word)) != UNKNOWN_MODALITY:
            return Guess(modality, f'the data set\'s name holds "{word}"')
    return None


def _by_hounsfield(fingerprint: Fingerprint) -> Guess | None:
    if {len(case.intensity) for case in fingerprint.cases} != {1}:
        return None
    low, high, most = (_values(fingerprint, name) for name in ("low", "high", "max"))
    if not _nearly((low > FILLED) & (low < AIR) & (high > 0) & (most < METAL)):
        return None
    return Guess("CT", "its values are those of Hounsfield units: air at -1000, nothing below what scanners fill")


def _by_values(fingerprint: Fingerprint, words: Sequence[str]) -> Guess | None:
    low, middle, mean = (_values(fingerprint, name) for name in ("low", "median", "mean"))
    least, most = _values(fingerprint, "min"), _values(fingerprint, "max")
    if not _flat(fingerprint) or least.min() < 0 or most.max() > 255:
        return None
    grey = least.shape[1] == 1 or bool(np.ptp(mean, axis=1).max() < 1.0)
    if not grey and least.shape[1] == 3:
        return _coloured(low, middle, mean, words)
    word = next((word for word in words if word in RADIOGRAPHED.split()), "")
    if word and _nearly((middle[:, :1] > RADIOGRAPH[0]) & (middle[:, :1] < RADIOGRAPH[1])):
        return Guess("DX", f'they are grey pictures, bright as radiographs are, and the name "{word}" suggests them')
    return None


def _by_objects(fingerprint: Fingerprint, words: Sequence[str]) -> Guess | None:
    """Cells and nuclei by their number; as many are teeth and a hand's bones, so no name may suggest a radiograph."""
    many = fingerprint.crowd
    if many < SWARM or not _flat(fingerprint) or not {*RADIOGRAPHED.split()}.isdisjoint(words):
        return None
    return Guess("GM", f"they are pictures, and the median one holds {many:g} single objects: cells or nuclei")


def _coloured(low: Floats, middle: Floats, mean: Floats, words: Sequence[str]) -> Guess | None:
    """low, middle, mean: (cases, 3) of red, green and blue, 0 to 255"""
    red, green, blue = mean.T
    if word := next((word for word in words if word in ENDOSCOPIC.split()), ""):
        return Guess("ES", f'they are colour pictures, and the name "{word}" suggests an endoscope')
    if _nearly((low.max(axis=1) < DARK) & (red > 1.2 * green) & (green > blue) & (blue < 0.6 * red)):
        return Guess("OP", "they are colour pictures, red before green before blue, with a dark border: the fundus")
    if _nearly((middle.min(axis=1) > BRIGHT) & (green < red) & (green < blue)):
        return Guess("SM", "they are colour pictures of little green on a bright ground: stained sections or smears")
    return None


def modality_problems(dataset: Dataset, fingerprint: Fingerprint) -> Iterator[Problem]:
    """A warning where nothing tells the kind of image, and what that costs; series have none."""
    if dataset.modality != UNKNOWN_MODALITY or not fingerprint.cases or not dataset.kinds:
        return
    unknown = all(case.modality == UNKNOWN_MODALITY and len(case.shape) > 1 for case in fingerprint.cases)
    if unknown and guessed_modality(dataset, fingerprint) is None:
        yield Problem(
            "warning",
            f"the kind of image is not known: {STATED}, and neither names nor values tell it",
            why="images are then not mirrored, and augmentation is not specific to a modality: where cases are few, "
            "a network learns less",
            remedy="Give it, as in --modality MR, CT, DX, US or OP",
        )


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z]+[0-9]*", name.lower())


def _flat(fingerprint: Fingerprint) -> bool:
    """Whether all images are pictures, or single slices."""
    return all(len(case.shape) == 2 or 1 in case.shape for case in fingerprint.cases)


def _values(fingerprint: Fingerprint, name: str) -> Floats:
    """(cases, channels)"""
    return np.array([[channel[name] for channel in case.intensity] for case in fingerprint.cases], dtype=float)


def _nearly(holds: np.ndarray) -> bool:
    """Whether it holds of nearly all images."""
    return bool(np.mean(holds) >= NEARLY_ALL)
