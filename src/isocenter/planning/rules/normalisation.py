"""Rules of normalisation: by what a number means in this kind of image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from isocenter.errors import DatasetError
from isocenter.files import modality_word
from isocenter.planning.rules.anatomy import WINDOWS, window_for
from isocenter.planning.rules.profiles import NNUNET, UNKNOWN_MODALITY, WINDOW, profile_for
from isocenter.transforms import COLOUR, Normalisation, placed
from isocenter.values import CaseFacts, Decision, Fingerprint

RADIOPAEDIA = "radiopaedia.org: Windowing (CT)"
# Air is -1000 HU and fat -100; what begins above has been brought to another scale.
MOST_LOWEST = -50.0
# Below this deviation an image is as good as constant.
LEAST = 1e-6


def normalisation(
    fingerprint: Fingerprint, channels: Sequence[str], modality: str, structures: Sequence[str]
) -> Decision:
    """One entry a channel, each with its method.

    fingerprint: of training cases alone
    structures:  names of what is to be seen; of a CT they may tell the window
    """
    if tuple(channels) == COLOUR:
        made = [_range(fingerprint, n, channels) for n in range(len(channels))]
        return _decision(made, "colours keep their relation to each other, by mean and deviation of the training cases")
    schemes = [profile_for(_modality(channel, modality)).scheme for channel in channels]
    if WINDOW not in schemes:
        because = "intensities have no common unit: each image is scaled by its own mean and standard deviation"
        return _decision([Normalisation("zscore") for _ in channels], because)
    window = schemes.index(WINDOW)
    lowest = float(np.median([one["min"] for one in _facts_of(fingerprint, window, channels, inside=False)]))
    if lowest > MOST_LOWEST:
        because = f"the median CT begins at {lowest:g}: those are no Hounsfield units, so each goes by its own mean"
        return _decision([Normalisation("zscore") for _ in channels], because)
    known = window_for(structures)
    if known is not None:
        tissue, word = known
        fixed, source = _fixed(*WINDOWS[tissue]), RADIOPAEDIA
        because = (
            f'"{word}" is to be seen, so Hounsfield units are windowed for {tissue}, {fixed.low:g} to {fixed.high:g}'
        )
        made = [fixed if scheme == WINDOW else Normalisation("zscore") for scheme in schemes]
        return _decision(made, because, source)
    made = [
        _percentiles(fingerprint, n, channels) if scheme == WINDOW else Normalisation("zscore")
        for n, scheme in enumerate(schemes)
    ]
    marked = sum(bool(case.foreground) for case in fingerprint.cases)
    where = f"inside the structures of {marked} training cases" if marked else f"of {len(fingerprint)} training cases"
    return _decision(made, f"Hounsfield units mean the same in every CT: one window, the middle 99 % {where}")


def _modality(channel: str, modality: str) -> str:
    """Of one channel: the data set's, or where that is not known what the channel is called ("CT" beside "PET")."""
    return modality if modality != UNKNOWN_MODALITY else modality_word(channel)


def _decision(made: Sequence[Normalisation], because: str, source: str = NNUNET) -> Decision:
    return Decision([_plain(one) for one in made], because, source)


def _plain(entry: Normalisation) -> dict[str, Any]:
    """Without what is not set; rounded, because nobody reads or edits sixteen digits."""
    settings = {key: value for key, value in asdict(entry).items() if value is not None}
    return {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in settings.items()}


def _fixed(low: float, high: float) -> Normalisation:
    """The window from -2 to 2."""
    return Normalisation("window", low, high, (low + high) / 2, (high - low) / 4)


def _range(fingerprint: Fingerprint, channel: int, channels: Sequence[str]) -> Normalisation:
    mean, deviation = (_median(fingerprint, channel, channels, key) / 255 for key in ("mean", "deviation"))
    return Normalisation("range", 0.0, 255.0, mean, max(deviation, LEAST))


def _percentiles(fingerprint: Fingerprint, channel: int, channels: Sequence[str]) -> Normalisation:
    keys = ("low", "high", "mean", "deviation")
    low, high, mean, deviation = (_median(fingerprint, channel, channels, key) for key in keys)
    return Normalisation("window", low, max(high, low + LEAST), mean, max(deviation, LEAST))


def _median(fingerprint: Fingerprint, channel: int, channels: Sequence[str], key: str) -> float:
    """Over the training cases that have it, of what is inside their structures where they have any."""
    return float(np.median([one[key] for one in _facts_of(fingerprint, channel, channels, inside=True)]))


def _facts_of(
    fingerprint: Fingerprint, channel: int, channels: Sequence[str], *, inside: bool
) -> list[Mapping[str, float]]:
    """What is known of a channel in each training case that has it; inside structures alone, where any are marked."""
    marked = [case for case in fingerprint.cases if case.foreground] if inside else []
    known = [_facts(case, channel, channels, inside=inside) for case in marked or fingerprint.cases]
    facts = [one for one in known if one is not None]
    if facts or inside:
        return facts or _facts_of(fingerprint, channel, channels, inside=False)
    problem = f"no training case has channel {channels[channel]}"
    raise DatasetError(problem, "preprocessing.normalisation", "Give cases that have it, or leave it out")


def _facts(case: CaseFacts, channel: int, channels: Sequence[str], *, inside: bool) -> Mapping[str, float] | None:
    facts = (case.foreground if inside else ()) or case.intensity
    places = placed(case.channels, channels)
    if places is None:  # a grey image among colour ones has one channel, which stands for all
        return facts[min(channel, len(facts) - 1)]
    return facts[places.index(channel)] if channel in places else None
