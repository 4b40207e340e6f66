"""Rules of normalisation: by what a number means in this kind of image."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict

import numpy as np

from hilum import errors
from hilum.errors import DatasetError
from hilum.files import modality_words
from hilum.files.modality_words import UNKNOWN_MODALITY
from hilum.planning.rules import anatomy_rules, image_profiles
from hilum.planning.rules.anatomy_rules import WINDOWS
from hilum.planning.rules.image_profiles import NNUNET, UNKNOWN, UPTAKE, WINDOW
from hilum.quality import modality_checks
from hilum.transforms import COLOUR, channel_stack
from hilum.transforms.intensity import Normalisation
from hilum.values import CaseFacts, Decision, Fingerprint, PlainValue, Problem

RADIOPAEDIA = "radiopaedia.org: Windowing (CT)"
# Air is -1000 HU and fat -100; what begins above has been brought to another scale.
MOST_LOWEST = -50.0
# The hottest voxel of a body in SUV lies at some 100 (the bladder after FDG); Bq/ml and counts reach thousands.
MOST_SUV = 300.0
# By its definition a body has 1 on average: what reaches no more has been brought to another scale, as 0 to 1.
LEAST_SUV = 1.0
# Liver has an SUV of 2, most lesions 5 to 25; what is hotter is the bladder, or a brain.
SUV = Normalisation("window", 0.0, 50.0, 0.0, 5.0)
ZSCORE = Normalisation("zscore", tails="log")
# What a colour reaches in pictures of 8, 16 and 32 bits a colour.
DEPTHS = (2.0**8 - 1, 2.0**16 - 1, 2.0**32 - 1)
# What a fingerprint keeps of the distribution of a case's intensities.
QUANTILES = {
    **{"min": 0.0, "low": 0.005, "p5": 0.05, "p25": 0.25, "median": 0.5},
    **{"p75": 0.75, "p95": 0.95, "high": 0.995, "max": 1.0},
}
# Kinds that hybrid scanners and registrations put beside each other: a channel that is called so is one of them,
# whatever the first image of its case is.
BESIDE = frozenset({"CT", "PT", "MR", "NM"})
# Where fewer of the training cases are of one scale, their numbers have none in common.
NEARLY_ALL = 0.9
# Below this deviation an image is as good as constant.
LEAST = 1e-6


def decide_normalisation(
    fingerprint: Fingerprint,
    channels: Sequence[str],
    modality: str,
    structures: Sequence[str],
    *,
    brightest: float = 0.0,
) -> Decision:
    """One entry a channel, each with its method.

    fingerprint: of training cases alone
    structures:  names of what is to be seen; of a CT they may tell the window
    brightest:   value that colours reach at least, also where those of these cases do not
    """
    if tuple(channels) == COLOUR and fingerprint.is_of_slides:
        scales = [Normalisation("range", 0.0, DEPTHS[0])] * len(channels)
        return _decision(scales, "colours of tissue tell something by themselves, and slides have 8 bits")
    if tuple(channels) == COLOUR:
        most = max(brightest, *_brightest(fingerprint, channels).values())
        depth = next((one for one in DEPTHS if most <= one), DEPTHS[-1])
        scales = [_range(fingerprint, n, channels, depth) for n in range(len(channels))]
        colours = "colours keep their relation to each other, by mean and deviation of the training cases"
        dark = [problem.what for problem in depth_problems(fingerprint, channels)]
        return _decision(scales, "; ".join([colours, *dark, *_constant(fingerprint, channels, scales)]))
    rules = [_rule_for(name, modality, fingerprint) for name in channels]
    by_channel = [rule(fingerprint, n, channels, structures) for n, rule in enumerate(rules)]
    # What a unit decides goes before what holds for lack of one.
    reasons = {
        because: source for rule, (_, because, source) in zip(rules, by_channel, strict=True) if rule is not _by_image
    }
    [(because, source), *others] = reasons.items() or [by_channel[0][1:]]
    scales = [one for one, _, _ in by_channel]
    words = [because, *(reason for reason, _ in others), *_constant(fingerprint, channels, scales)]
    return _decision(scales, "; ".join(words), source)


Rule = tuple[Normalisation, str, str]


def _rule_for(channel: str, modality: str, fingerprint: Fingerprint) -> Callable[..., Rule]:
    """The rule for the scale of the channel's kind of image; by each image itself where cases have several scales."""
    cases = Counter[str]()
    for kind, count in _kinds(fingerprint).items():
        cases[image_profiles.profile_for(kind).scheme] += count
    if (
        modality_words.modality_word(channel) not in BESIDE
        and max(cases.values(), default=0) < NEARLY_ALL * cases.total()
    ):
        return _by_image
    return _RULES.get(image_profiles.profile_for(_modality(channel, modality)).scheme, _by_image)


def mixed_kinds(fingerprint: Fingerprint) -> str:
    """The kinds of image in which a number means different things, "60 CT, 40 MR"; empty where it means the same."""
    kinds = _kinds(fingerprint)
    several = len({image_profiles.profile_for(kind).scheme for kind in kinds}) > 1
    return errors.list_phrase(f"{count} {kind}" for kind, count in kinds.most_common()) if several else ""


def _kinds(fingerprint: Fingerprint) -> Counter[str]:
    """{modality: cases}, of those that have a profile."""
    counts = Counter(case.modality for case in fingerprint.cases)
    return Counter({kind: count for kind, count in counts.items() if image_profiles.profile_for(kind) != UNKNOWN})


def _by_image(fingerprint: Fingerprint, channel: int, channels: Sequence[str], structures: Sequence[str]) -> Rule:
    mixed = mixed_kinds(fingerprint)
    why = f"{mixed} have no scale in common" if mixed else "intensities have no common unit"
    because = f"{why}: each image is scaled by its own mean and standard deviation"
    return ZSCORE, because, NNUNET


def _hounsfield(fingerprint: Fingerprint, channel: int, channels: Sequence[str], structures: Sequence[str]) -> Rule:
    facts = _facts_of(fingerprint, channel, channels, inside=False)
    if len(set(modality_checks.ct_scales(facts))) > 1:
        because = "the numbers of CT are of several scales, as was accepted: each image is scaled by its own mean and "
        return ZSCORE, f"{because}deviation", NNUNET
    lowest = float(np.median([one["min"] for one in facts]))
    if lowest > MOST_LOWEST:
        because = (
            f"the median CT begins at {lowest:g}: those are not Hounsfield units, so each image is "
            "scaled by its own mean and deviation"
        )
        return ZSCORE, because, NNUNET
    window = anatomy_rules.tissue_window(structures)
    if window is not None:
        tissue, word = window
        low, high = WINDOWS[tissue]
        because = f'"{word}" is to be seen, so Hounsfield units are windowed for {tissue}, {low:g} to {high:g}'
        return _fix_window(low, high), because, RADIOPAEDIA
    marked = sum(bool(case.foreground) for case in fingerprint.cases)
    where = f"inside the structures of {marked} training cases" if marked else f"of {len(fingerprint)} training cases"
    because = f"Hounsfield units mean the same in every CT: one window, the middle 99 % {where}"
    return _percentiles(fingerprint, channel, channels), because, NNUNET


def _uptake(fingerprint: Fingerprint, channel: int, channels: Sequence[str], structures: Sequence[str]) -> Rule:
    highest = float(np.median([one["max"] for one in _facts_of(fingerprint, channel, channels, inside=False)]))
    if not LEAST_SUV < highest <= MOST_SUV:
        because = (
            f"the median PET reaches {highest:g}: that is not a standardised uptake value, so each image is "
            "scaled by its own mean and deviation"
        )
        return ZSCORE, because, NNUNET
    because = f"standardised uptake values mean the same in every PET: 0 to {SUV.high:g} on one scale"
    return SUV, because, "doi:10.2967/jnumed.108.057307"


_RULES = {WINDOW: _hounsfield, UPTAKE: _uptake}


def constant_problems(
    fingerprint: Fingerprint, channels: Sequence[str], scales: Sequence[Normalisation]
) -> Iterator[Problem]:
    """An error for cases that become one value although their files hold more; constant files are known before.

    scales: how each channel is normalised
    """
    empty = _one_value(fingerprint, channels, scales)
    varied = [case.id for case in fingerprint.cases if any(own["min"] < own["max"] for own in case.intensity)]
    if lost := tuple(case for case in varied if case in empty):
        yield Problem.warning(
            "the image is one value everywhere once it is normalised: all of it lies on one side of the window",
            lost,
            "the network sees nothing of it",
            "Check the unit of its values (rescale slope and intercept), or leave it out",
        )


def _constant(fingerprint: Fingerprint, channels: Sequence[str], scales: Sequence[Normalisation]) -> list[str]:
    """The number of training cases that become one value, in words: packages keep reasons, and name no case."""
    empty = _one_value(fingerprint, channels, scales)
    if not empty:
        return []
    return [
        f"{errors.count_phrase(len(empty), 'training case')} will be one value everywhere: leave out what `check` names"
    ]


def _one_value(fingerprint: Fingerprint, channels: Sequence[str], scales: Sequence[Normalisation]) -> list[str]:
    """The cases that become one value in every channel."""
    empty = []
    for case in fingerprint.cases:
        facts = [_facts(case, n, channels, inside=False) for n in range(len(channels))]
        pairs = [(one, scale) for one, scale in zip(facts, scales, strict=True) if one is not None]
        if all(_is_one_value(one, scale) for one, scale in pairs):
            empty.append(case.id)
    return empty


def _is_one_value(facts: Mapping[str, float], scale: Normalisation) -> bool:
    """Whether an image is constant, or lies wholly on one side of a window."""
    low, high = (-np.inf if scale.low is None else scale.low), (np.inf if scale.high is None else scale.high)
    return facts["min"] == facts["max"] or facts["max"] <= low or facts["min"] >= high


def _modality(channel: str, modality: str) -> str:
    """The modality of one channel: its name ("CT" beside "PET"), else that of the data set."""
    word = modality_words.modality_word(channel)
    return word if word in BESIDE or modality == UNKNOWN_MODALITY else modality


def _decision(scales: Sequence[Normalisation], because: str, source: str = NNUNET) -> Decision:
    return Decision([plain_entry(one) for one in scales], because, source)


def plain_entry(entry: Normalisation) -> dict[str, PlainValue]:
    """Without what is not set; rounded, because nobody reads or edits sixteen digits."""
    settings = {key: value for key, value in asdict(entry).items() if value is not None}
    return {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in settings.items()}


def _fix_window(low: float, high: float) -> Normalisation:
    """The window from -2 to 2."""
    return Normalisation("window", low, high, (low + high) / 2, (high - low) / 4)


def depth_problems(fingerprint: Fingerprint, channels: Sequence[str]) -> Iterator[Problem]:
    """Colour pictures that do not go beyond 8 bits a colour among others that do, beside which they are black."""
    brightest = _brightest(fingerprint, channels)
    deep = [case for case, most in brightest.items() if most > DEPTHS[0]]
    # What reaches 1 at the most is black by itself, or no integers.
    dark = tuple(case for case, most in brightest.items() if 1 < most <= DEPTHS[0])
    if deep and dark:
        yield Problem.warning(
            f"{errors.count_phrase(len(dark), 'colour picture')} without a value above {DEPTHS[0]:g}, as of 8 bits a "
            f"colour, beside {len(deep)} of more bits",
            dark,
            "beside the others the network sees them as black",
            "Bring all to one number of bits, unless they are as dark as that",
        )


def _brightest(fingerprint: Fingerprint, channels: Sequence[str]) -> dict[str, float]:
    """{case: the highest value of all its colours}"""
    places = range(len(channels))
    facts = {case.id: [_facts(case, n, channels, inside=False) for n in places] for case in fingerprint.cases}
    return {case: max(one["max"] for one in own if one is not None) for case, own in facts.items()}


def _range(fingerprint: Fingerprint, channel: int, channels: Sequence[str], depth: float) -> Normalisation:
    mean, deviation = (_median(fingerprint, channel, channels, key) / depth for key in ("mean", "deviation"))
    return Normalisation("range", 0.0, depth, mean, max(deviation, LEAST))


def _percentiles(fingerprint: Fingerprint, channel: int, channels: Sequence[str]) -> Normalisation:
    """The middle 99 % of the voxels of all cases pooled, of each case as many, with their mean and deviation."""
    facts = _facts_of(fingerprint, channel, channels, inside=True)
    low, high = pooled_quantiles(facts, (0.005, 0.995))
    means, deviations = (np.array([one[key] for one in facts]) for key in ("mean", "deviation"))
    mean = float(means.mean())
    deviation = math.sqrt(max(float((deviations**2 + means**2).mean()) - mean**2, 0.0))
    return Normalisation("window", low, max(high, low + LEAST), mean, max(deviation, LEAST))


def pooled_quantiles(facts: Sequence[Mapping[str, float]], shares: Sequence[float]) -> list[float]:
    """Values below which these shares of the voxels of all cases lie, by what is known of each case's distribution."""
    names = [name for name in QUANTILES if all(name in one for one in facts)]
    places = [QUANTILES[name] for name in names]
    rows = np.array([[one[name] for name in names] for one in facts])
    edges = np.unique(rows)
    below = np.mean([np.interp(edges, own, places, left=0.0, right=1.0) for own in rows], axis=0)
    return [float(value) for value in np.interp(shares, below, edges)]


def _median(fingerprint: Fingerprint, channel: int, channels: Sequence[str], key: str) -> float:
    """Over the training cases that have it, of what is inside their structures where they have any."""
    return float(np.median([one[key] for one in _facts_of(fingerprint, channel, channels, inside=True)]))


def _facts_of(
    fingerprint: Fingerprint, channel: int, channels: Sequence[str], *, inside: bool
) -> list[Mapping[str, float]]:
    """The facts of a channel in each training case that has it; inside structures alone, where any are marked."""
    marked = [case for case in fingerprint.cases if case.foreground] if inside else []
    measured = [_facts(case, channel, channels, inside=inside) for case in marked or fingerprint.cases]
    facts = [one for one in measured if one is not None]
    if facts or inside:
        return facts or _facts_of(fingerprint, channel, channels, inside=False)
    problem = f"no training case has channel {channels[channel]}"
    raise DatasetError(problem, "preprocessing.normalisation", "Give cases that have it, or leave it out")


def _facts(case: CaseFacts, channel: int, channels: Sequence[str], *, inside: bool) -> Mapping[str, float] | None:
    facts = (case.foreground if inside else ()) or case.intensity
    places = channel_stack.channel_places(case.channels, channels)
    if places is None:  # a grey image among colour ones has one channel, which stands for all
        return facts[min(channel, len(facts) - 1)]
    return facts[places.index(channel)] if channel in places else None
