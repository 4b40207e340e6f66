"""Scales of CT: whether all cases hold Hounsfield units, or some lack their intercept or were brought to another range.

Values are compared case by case. Cases with air or lung, which alone lie far below fat, are the measure of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from isocenter.files import modality_word
from isocenter.quality.modality_guess import guessed_modality
from isocenter.values import CaseFacts, Dataset, Fingerprint, Floats, Problem

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

Levels = Mapping[str, float]


def mixed_scales(dataset: Dataset, fingerprint: Fingerprint) -> Iterator[Problem]:
    """An error for each group of CT whose numbers are of another scale than the rest; a warning once it is accepted."""
    guess = guessed_modality(dataset, fingerprint)
    is_guessed = guess is not None and guess.modality == CT
    levels_of = {
        case.id: levels for case in fingerprint.cases if (levels := _levels_of_ct(case, is_guessed)) is not None
    }
    groups: dict[str, list[str]] = {}
    for case, scale in zip(levels_of, scales_of(list(levels_of.values())), strict=True):
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


def scales_of(levels_of_images: Sequence[Levels]) -> list[str]:
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
    return (after > np.maximum(before, is_finite.sum(axis=1) / 2)) & (np.abs(highest + intercept) < np.abs(highest))


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
    named = [levels for name, levels in zip(case.channels, case.intensity, strict=False) if modality_word(name) == CT]
    return next(iter(named or (case.intensity if case.modality == CT or is_guessed else ())), None)


def _start_of(levels_of_images: Sequence[Levels]) -> str:
    """The usual lowest value of a group, rounded to one or two digits."""
    lowest = float(np.median([one["low"] for one in levels_of_images]))
    return f"{round(lowest, -2 if abs(lowest) > 50 else 0) + 0:.0f}"
