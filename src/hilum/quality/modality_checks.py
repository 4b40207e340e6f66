"""The kind of images where nobody states it, and the scale of CT: a guess from names and values, and mixed intercepts.

The guess is cautious: a wrong one would mirror what has a side, or take numbers for Hounsfield units. Hounsfield units,
the dark border and the colours of a fundus photograph and the stains of a section show in values; a radiograph does
only together with a name, because ultrasound, OCT and slices of any scanner are grey pictures too.

Values are compared case by case. Cases with air or lung, which alone lie far below fat, are the measure of the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from hilum.files import modality_words
from hilum.files.modality_words import UNKNOWN_MODALITY
from hilum.values import CaseFacts, Dataset, Fingerprint, Floats, Problem

# What `--accept` calls the finding.
MIXED_SCALE = "mixed-scale"
CT = "CT"
# Below lie air (-1000) and lung; below the second value nothing that was measured, only what scanners fill in.
AIR, FILLED = -200.0, -1500.0
# Cases without air or lung are the measure where none has any: bone alone, or metal, would lie above this value.
DENSE = 500.0
# What turns stored numbers into Hounsfield units (PS3.3 C.11.1.1.2): scanners state -1024,
# or -1000, which is named where it fits so well.
INTERCEPTS, SURE = (-1024.0, -1000.0), 6.0
# Hounsfield units never span so little, and hardly a voxel of them lies so high; numbers of eight bits end at 255.
SMALLEST_RANGE, HIGHEST, EIGHT_BITS = 20.0, 20_000.0, 255.0
# A case lacks its intercept where that brings most of its percentiles so near to those of the measure, its highest too.
# None of them lies below fat then, at -50 and less: a part of the body without air is no shift.
NEAR, FAT = 200.0, -50.0
PERCENTILES = ("low", "p5", "p25", "median", "p75", "p95", "high")
# Hounsfield units, and whatever is not known to be of another scale.
USUAL = ""
LACKING = "their numbers may lack the intercept of {:g}"
TWICE = "the intercept of {:g} may have been added twice to their numbers"

# In deviations of an image, the distance of what is labelled from its mean that is clear; cases that are no accident.
CLEARLY, FEWEST_UNLIKE = 0.3, 2

Levels = Mapping[str, float]


def ct_scale_problems(dataset: Dataset, fingerprint: Fingerprint) -> Iterator[Problem]:
    """An error for each group of CT whose numbers are of another scale than the rest; a warning once it is accepted."""
    guess = guess_modality(dataset, fingerprint)
    is_guessed = guess is not None and guess.modality == CT
    levels_of = {
        case.id: levels for case in fingerprint.cases if (levels := _levels_of_ct(case, is_guessed)) is not None
    }
    groups: dict[str, list[str]] = {}
    for case, scale in zip(levels_of, ct_scales(list(levels_of.values())), strict=True):
        groups.setdefault(scale, []).append(case)
    usual = USUAL if USUAL in groups else max(groups, key=lambda scale: len(groups[scale]), default=USUAL)
    for scale, cases in groups.items():
        if scale != usual:
            start, others = (_start_of([levels_of[case] for case in groups[one]]) for one in (scale, usual))
            yield Problem(
                "warning" if MIXED_SCALE in dataset.accepted else "error",
                f"{len(cases)} of {len(levels_of)} CT begin at about {start}, the others at about {others}: {scale}",
                tuple(cases),
                "a number means something else in each group, and no window fits both",
                "Convert these files again with their slope and intercept, or leave them out; --accept "
                f"{MIXED_SCALE} trains on them as they are, each image scaled by itself",
            )


def ct_scales(levels_of_images: Sequence[Levels]) -> list[str]:
    """The scale of each CT in words, by its intensities; "" for Hounsfield units."""
    if not levels_of_images:
        return []
    names = [name for name in PERCENTILES if all(name in one for one in levels_of_images)]
    values = np.array([[one[name] for name in names] for one in levels_of_images], dtype=np.float64)
    # What scanners fill in is no measurement, unless there is nothing else.
    values[(values <= FILLED) & (values > FILLED).any(axis=1, keepdims=True)] = np.nan
    scales = [_own_scale(one) for one in levels_of_images]
    usual = np.array([scale == USUAL for scale in scales])
    apart = values - _measure(values[usual])
    lacking = usual & (np.nanmin(values, axis=1) > FAT) & _are_nearer(apart, INTERCEPTS[0])
    twice = usual & ~lacking & _are_nearer(apart, -INTERCEPTS[0])
    for odd, words in ((lacking, LACKING), (twice, TWICE)):
        if odd.any():
            shift = abs(float(np.nanmedian(apart[odd])))
            intercept = next((one for one in INTERCEPTS if abs(shift + one) <= SURE), INTERCEPTS[0])
            scales = [words.format(intercept) if is_odd else own for is_odd, own in zip(odd, scales, strict=True)]
    return scales


def _measure(values: Floats) -> Floats:
    """(percentiles,) of the usual case with air or lung and soft tissue; NaN where nothing can be the measure."""
    if not len(values):
        return np.full(values.shape[1], np.nan)
    lowest, highest = np.nanmin(values, axis=1), np.nanmax(values, axis=1)
    kinds = ((lowest < AIR) & (highest > AIR), lowest < AIR, lowest < DENSE)
    chosen = next((kind for kind in kinds if kind.any()), np.zeros(len(values), dtype=bool))
    finite = (column[np.isfinite(column)] for column in values[chosen].T)
    return np.array([np.median(column) if column.size else np.nan for column in finite])


def _are_nearer(apart: Floats, intercept: float) -> NDArray[np.bool_]:
    """(cases,) whether an intercept brings most percentiles, and the highest, nearer to those of the others."""
    is_finite = np.isfinite(apart)
    before, after = ((is_finite & (np.abs(one) < NEAR)).sum(axis=1) for one in (apart, apart + intercept))
    highest = apart[:, -1]
    return cast(
        "NDArray[np.bool_]",
        (after > np.maximum(before, is_finite.sum(axis=1) / 2)) & (np.abs(highest + intercept) < np.abs(highest)),
    )


def _own_scale(levels: Levels) -> str:
    """The scale that a case's own numbers prove; "" where they may be Hounsfield units."""
    if levels["min"] == levels["max"]:
        return USUAL
    if levels["max"] - levels["min"] <= SMALLEST_RANGE:
        return "their numbers span too little for Hounsfield units: they were scaled, as to 0 to 1"
    if levels["min"] >= 0 and levels["low"] <= 1 and levels["max"] <= EIGHT_BITS:
        return "their numbers are grey values of 0 to 255"
    if levels["high"] > HIGHEST:
        return "their numbers are too high for Hounsfield units: they were scaled"
    return USUAL


def _levels_of_ct(case: CaseFacts, is_guessed: bool) -> Levels | None:
    """The intensities of the CT among a case's channels: one that is called so, else the first of a CT."""
    named = [
        levels
        for name, levels in zip(case.channels, case.intensity, strict=False)
        if modality_words.modality_word(name) == CT
    ]
    return next(iter(named or (case.intensity if case.modality == CT or is_guessed else ())), None)


def _start_of(levels_of_images: Sequence[Levels]) -> str:
    """The usual lowest value of a group, rounded to one or two digits."""
    lowest = float(np.median([one["low"] for one in levels_of_images]))
    return f"{round(lowest, -2 if abs(lowest) > 50 else 0) + 0:.0f}"


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
AIR_BELOW, FILLED_BELOW, METAL = -850.0, -3100.0, 33000.0
# What must hold of so many of the images.
NEARLY_ALL = 0.9
# Single objects in the median picture: so many are cells or nuclei, but no organs, vertebrae or lesions.
SWARM = 10
# Grey levels of 0 to 255: a dark border, a bright background, and the middle of a radiograph.
DARK, BRIGHT, RADIOGRAPH = 12.0, 130.0, (80.0, 200.0)


@dataclass(frozen=True)
class ModalityGuess:
    """DICOM's word for the kind of image, and what tells it."""

    modality: str
    because: str


def guess_modality(dataset: Dataset, fingerprint: Fingerprint) -> ModalityGuess | None:
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


def _by_name(name: str, fingerprint: Fingerprint) -> ModalityGuess | None:
    is_dated = DATE.search(name.lower()) is not None and not _flat(fingerprint)
    for word in _words(name):
        if (len(word) < 3 and word not in SHORT_WORDS) or (word == "oct" and is_dated):
            continue
        if (modality := modality_words.modality_word(word)) != UNKNOWN_MODALITY:
            return ModalityGuess(modality, f'the data set\'s name holds "{word}"')
    return None


def _by_hounsfield(fingerprint: Fingerprint) -> ModalityGuess | None:
    if {len(case.intensity) for case in fingerprint.cases} != {1}:
        return None
    low, high, most = (_values(fingerprint, name) for name in ("low", "high", "max"))
    if not _nearly((low > FILLED_BELOW) & (low < AIR_BELOW) & (high > 0) & (most < METAL)):
        return None
    return ModalityGuess(
        "CT", "its values are those of Hounsfield units: air at -1000, nothing below what scanners fill"
    )


def _by_values(fingerprint: Fingerprint, words: Sequence[str]) -> ModalityGuess | None:
    low, middle, mean = (_values(fingerprint, name) for name in ("low", "median", "mean"))
    least, most = _values(fingerprint, "min"), _values(fingerprint, "max")
    if not _flat(fingerprint) or least.min() < 0 or most.max() > 255:
        return None
    grey = least.shape[1] == 1 or bool(np.ptp(mean, axis=1).max() < 1.0)
    if not grey and least.shape[1] == 3:
        return _guess_colour(low, middle, mean, words)
    word = next((word for word in words if word in RADIOGRAPHED.split()), "")
    if word and _nearly((middle[:, :1] > RADIOGRAPH[0]) & (middle[:, :1] < RADIOGRAPH[1])):
        return ModalityGuess(
            "DX", f'they are grey pictures, bright as radiographs are, and the name "{word}" suggests them'
        )
    return None


def _by_objects(fingerprint: Fingerprint, words: Sequence[str]) -> ModalityGuess | None:
    """Cells and nuclei by their number; as many are teeth and a hand's bones, so no name may suggest a radiograph."""
    many = fingerprint.crowd
    if many < SWARM or not _flat(fingerprint) or not {*RADIOGRAPHED.split()}.isdisjoint(words):
        return None
    return ModalityGuess("GM", f"they are pictures, and the median one holds {many:g} single objects: cells or nuclei")


def _guess_colour(low: Floats, middle: Floats, mean: Floats, words: Sequence[str]) -> ModalityGuess | None:
    """low, middle, mean: (cases, 3) of red, green and blue, 0 to 255"""
    red, green, blue = mean.T
    if word := next((word for word in words if word in ENDOSCOPIC.split()), ""):
        return ModalityGuess("ES", f'they are colour pictures, and the name "{word}" suggests an endoscope')
    if _nearly((low.max(axis=1) < DARK) & (red > 1.2 * green) & (green > blue) & (blue < 0.6 * red)):
        return ModalityGuess(
            "OP", "they are colour pictures, red before green before blue, with a dark border: the fundus"
        )
    if _nearly((middle.min(axis=1) > BRIGHT) & (green < red) & (green < blue)):
        return ModalityGuess(
            "SM", "they are colour pictures of little green on a bright ground: stained sections or smears"
        )
    return None


def modality_problems(dataset: Dataset, fingerprint: Fingerprint) -> Iterator[Problem]:
    """A warning where nothing tells the kind of image, and what that costs; series have none."""
    if dataset.modality != UNKNOWN_MODALITY or not fingerprint.cases or not dataset.kinds:
        return
    unknown = all(case.modality == UNKNOWN_MODALITY and len(case.shape) > 1 for case in fingerprint.cases)
    if unknown and guess_modality(dataset, fingerprint) is None:
        yield Problem.warning(
            f"the kind of image is not known: {STATED}, and neither names nor values tell it",
            why="images are then not mirrored, and augmentation is not specific to a modality: where cases are few, "
            "a network learns less",
            remedy="Give it, as in --modality MR, CT, DX, US or OP",
        )


def unlike_contrasts(dataset: Dataset, fingerprint: Fingerprint) -> Iterator[Problem]:
    """A warning where structures are brighter than the rest of the image in some cases, and darker in others.

    Such a set has images of several contrasts under one name. Nothing is said where many cases lie in between.
    """
    if dataset.painted:
        return
    above: dict[str, list[float]] = {}
    for case in fingerprint.cases:
        for place, (inside, everywhere) in enumerate(zip(case.foreground, case.intensity, strict=False)):
            apart = (inside["mean"] - everywhere["mean"]) / max(everywhere["deviation"], 1e-6)
            above.setdefault(case.channels[place] if place < len(case.channels) else "", []).append(apart)
    named = [case.id for case in fingerprint.cases if case.foreground]
    for channel, values in above.items():
        brighter, darker = (np.array(values) * sign > CLEARLY for sign in (1, -1))
        fewer = min(brighter, darker, key=np.count_nonzero)
        if len(values) != len(named) or not _nearly(brighter | darker) or np.count_nonzero(fewer) < FEWEST_UNLIKE:
            continue
        where = f" in channel {channel}" if len(above) > 1 else ""
        yield Problem.warning(
            f"what is labelled is clearly brighter than the image{where} in {np.count_nonzero(brighter)} cases and "
            f"darker in {np.count_nonzero(darker)}: contrasts are unlike",
            tuple(name for name, is_one in zip(named, fewer, strict=True) if is_one),
            "a network fails on a contrast of which it saw few",
            "Train for any by --any-contrast, or give each contrast as a channel or a data set of its own",
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
