"""Several images of a case, of which some cases lack some: what may be absent, and how training gets used to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from isocenter.errors import counted
from isocenter.runtime import Presence
from isocenter.transforms import COLOUR, placed
from isocenter.values import Dataset, Decision

# Each image is left out half the time, so that nearly every subset of them is seen as often as any other.
DROPOUT, MMFORMER = 0.5, "arXiv:2206.02425"
HEMIS = "arXiv:1607.05194"


def lacking(dataset: Dataset, channels: Sequence[str]) -> dict[str, int]:
    """{channel: cases that lack it}, of those that some case lacks; seen from names, so that nothing is read."""
    having = [_channels(list(case.images), channels) for case in dataset if len(case.images)]
    counts = {name: sum(name not in found for found in having) for name in channels}
    return {name: count for name, count in counts.items() if count}


def _channels(images: Sequence[str], channels: Sequence[str]) -> set[str]:
    """The channels of a case's images; of one that has several channels these are called IMAGE:CHANNEL."""
    if len(images) == 1 and placed(images, channels) is None:
        return set(channels)  # one image with channels of its own
    numbers = {channels[place] for name in images for place in placed([name], channels) or ()}
    return numbers | {name for name in channels if name.partition(":")[0] in images}


def dropout_decision(channels: Sequence[str], holes: Mapping[str, int], cases: int) -> Decision:
    """How often training leaves an image of a case out."""
    if len(channels) < 2 or tuple(channels) == COLOUR:
        return Decision(0.0, "each case has one image: nothing could be left out")
    if not holes:
        because = "every case has all images; a new patient who lacks one is refused"
        return Decision(0.0, f"{because} (--set training.modality_dropout={DROPOUT} trains for such)")
    because = f"{said(holes, cases)}: each image of a case is left out half the time, never all of them"
    return Decision(DROPOUT, f"{because}, so that the network learns from every subset what it shows", MMFORMER)


def absent_decision(channels: Sequence[str], holes: Mapping[str, int], cases: int, dropout: float) -> Decision:
    """The channels that a case may lack: those that training left out, or that a case has lacked."""
    if len(channels) < 2 or tuple(channels) == COLOUR:
        return Decision([], "each case has one image")
    because = said(holes, cases) if holes else "every case has all of them"
    if dropout > 0:
        return Decision(list(channels), f"{because}, and training leaves each of them out in turn")
    return Decision(list(holes), f"{because}, and training leaves none out")


def presence(channels: Sequence[str], absent: Collection[str], holes: Mapping[str, int], cases: int) -> dict[str, Any]:
    """What tells the network which images a case has, as part of `network.context`; nothing where none is absent."""
    columns = [Presence.of(name, round(1 - holes.get(name, 0) / max(1, cases), 6)) for name in channels]
    return {one.name: one.settings for one in columns} if absent else {}


def with_presence(
    beside: Decision, context: Mapping[str, Any] | None, channels: Sequence[str], family: str
) -> Decision:
    """What the network is told: the covariates, and which images a case has, if the family takes it."""
    names = " and ".join(channels)
    if context == beside.value:
        because = f"{beside.because}; {family} sees images alone: of {names} it sees zeros for what is absent"
        return Decision(beside.value, because, beside.source)
    asked = "" if beside.value is None else f"{beside.because}; "
    return Decision(dict(context or {}), f"{asked}a case may lack some of {names}: which are there is told", HEMIS)


def said(holes: Mapping[str, int], cases: int) -> str:
    """Who lacks what, as "channel T2: 12 of 60 cases lack it"."""
    return "; ".join(f"channel {name}: {count} of {counted(cases, 'case')} lack it" for name, count in holes.items())
