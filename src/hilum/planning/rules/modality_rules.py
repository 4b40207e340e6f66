"""Several images of a case, of which some cases lack some: what may be absent, and how training gets used to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from hilum import errors
from hilum.runtime.covariate_encoding import Presence, PresenceSettings
from hilum.transforms import COLOUR, channel_stack
from hilum.values import Dataset, Decision, StatedSettings

# Each image is left out half the time, so that nearly every subset of them is seen as often as any other.
DROPOUT = 0.5
MMFORMER = "arXiv:2206.02425"
HEMIS = "arXiv:1607.05194"
# From this share of cases that lack an image on it is said why no network is built around them.
FEW = 0.05
# bench/findings/covariates.md.
EARLY = (
    "images are channels of one network, zeros where one is absent, which in as many minutes outlined structures "
    "better with every subset of two images than a network with an encoder for each (--set network.name=fusion)"
)


APART = (
    "the images of a case share no place (--align apart), so that each has an encoder of its own, and each position of "
    "each view that is there attends to all others"
)


@dataclass(frozen=True)
class MissingImages:
    """The images that cases lack, where a case has several.

    channels: of the network; several images only where there are two, and they are no colours of one
    lacking:  {channel: cases without it}, of those that some case lacks
    cases:    all there are
    trained:  {channel: share of the training cases that have it}, of those that some of these lack
    dropout:  how often training leaves an image out
    apart:    whether the images share no place: views of an exam
    """

    channels: tuple[str, ...]
    lacking: Mapping[str, int]
    cases: int
    trained: Mapping[str, float] = field(default_factory=dict)
    dropout: float = field(default=0.0)
    apart: bool = False

    @classmethod
    def from_dataset(
        cls, dataset: Dataset, channels: Sequence[str], training: Collection[str], *, apart: bool = False
    ) -> MissingImages:
        """Modalities by the names of all cases' images: nothing is read. training: ids of the cases that train"""
        having = {case.id: _channels(list(case.images), channels) for case in dataset if len(case.images)}
        lacking = _lacking(channels, list(having.values()))
        channels_of_trained = [found for case, found in having.items() if case in training]
        shares = {
            name: 1 - count / len(channels_of_trained)
            for name, count in _lacking(channels, channels_of_trained).items()
        }
        return cls(tuple(channels), lacking, len(having), shares, apart=apart)

    @property
    def several(self) -> bool:
        """Whether a case has several images."""
        return len(self.channels) > 1 and self.channels != COLOUR

    @property
    def many(self) -> bool:
        """Whether many cases lack one of them."""
        return self.several and max(self.lacking.values(), default=0) >= FEW * self.cases

    @property
    def absent(self) -> list[str]:
        """The channels that a case may lack: those that training leaves out, or that a case lacks."""
        if not self.several:
            return []
        return list(self.channels) if self.dropout > 0 or self.apart else list(self.lacking)

    @property
    def words(self) -> str:
        """Who lacks what, as "channel T2: 12 of 60 cases lack it"."""
        lacks = (
            f"channel {name}: {count} of {errors.count_phrase(self.cases, 'case')} lack it"
            for name, count in self.lacking.items()
        )
        return "; ".join(lacks) or "every case has all images"

    @property
    def presence(self) -> Mapping[str, PresenceSettings]:
        """The columns of `network.context` that say which images a case has."""
        columns = [Presence.of_channel(name, round(self.trained.get(name, 1.0), 6)) for name in self.channels]
        return {one.name: one.settings for one in columns} if self.several else {}


def _lacking(channels: Sequence[str], having: Sequence[Collection[str]]) -> dict[str, int]:
    """{channel: cases without it}, of those that any lacks; having: of each case its channels"""
    counts = {name: sum(name not in found for found in having) for name in channels}
    return {name: count for name, count in counts.items() if count}


def _channels(images: Sequence[str], channels: Sequence[str]) -> set[str]:
    """The channels of a case's images; of one that has several channels these are called IMAGE:CHANNEL."""
    if len(images) == 1 and channel_stack.channel_places(images, channels) is None:
        return set(channels)  # one image with channels of its own
    numbers = {channels[place] for name in images for place in channel_stack.channel_places([name], channels) or ()}
    return numbers | {name for name in channels if name.partition(":")[0] in images}


def dropout_decision(holes: MissingImages) -> Decision:
    """The decision how often training leaves an image of a case out."""
    if not holes.several:
        return Decision(0.0, "each case has one image: nothing could be left out")
    if holes.apart:
        because = (
            f"{holes.words}; the answer of a case rests on the views that it has, and a finding may show in one alone"
        )
        return Decision(0.0, f"{because}, so that training leaves none out")
    if not holes.lacking:
        remedy = f"a new patient who lacks one is refused (--set training.modality_dropout={DROPOUT} trains for such)"
        return Decision(0.0, f"{holes.words}; {remedy}")
    because = f"{holes.words}: each image of a case is left out half the time, never all of them"
    return Decision(DROPOUT, f"{because}, so that the network learns from every subset what it shows", MMFORMER)


def absent_decision(holes: MissingImages) -> Decision:
    """The channels that a case may lack."""
    if not holes.several:
        return Decision([], "each case has one image")
    if holes.apart:
        return Decision(holes.absent, f"{holes.words}; each view has an encoder, and what is not there has no effect")
    taught = "training leaves each of them out in turn" if holes.dropout > 0 else "training leaves none out"
    return Decision(holes.absent, f"{holes.words}, and {taught}")


def aspect_decision(decided: Decision, holes: MissingImages) -> Decision:
    """How images of other proportions get one shape; views keep theirs, whichever of an exam is the first."""
    if not holes.apart or decided.value != "stretch":
        return decided
    return Decision("pad", "each view of an exam keeps its proportions, also where the view is missing that came first")


def with_presence(covariates: Decision, context: StatedSettings | None, holes: MissingImages, family: str) -> Decision:
    """The covariates of the network, with those that say which images a case has, if the family takes them."""
    names = " and ".join(holes.channels)
    if context != covariates.value:
        asked = "" if covariates.value is None else f"{covariates.because}; "
        return Decision(dict(context or {}), f"{asked}the network also gets which of {names} a case has", HEMIS)
    if not holes.absent:
        return covariates
    because = f"{covariates.because}; {family} sees images alone: of {names} it sees zeros for what is absent"
    return Decision(covariates.value, because, covariates.source)
