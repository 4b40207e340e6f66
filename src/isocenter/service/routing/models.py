"""The facts of a model that routing needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# Of a model of one image, the role that its series plays.
IMAGE = "image"
COLOUR = ("red", "green", "blue")


@dataclass(frozen=True)
class ModelFacts:
    """What routing asks of a model.

    hash:     of weights and settings: another hash is another model
    modality: DICOM's word, or "" where it takes any
    channels: names of its images
    labels:   {name: value} of the label map of its answers; empty where they are none
    findings: names of what its answers state with a probability
    """

    name: str
    hash: str
    modality: str = ""
    channels: Sequence[str] = (IMAGE,)
    task: str = ""
    labels: Mapping[str, int] = field(default_factory=dict)
    findings: Sequence[str] = ()

    @property
    def roles(self) -> Sequence[str]:
        """Names of the images that it needs, each a series."""
        return self.channels if len(self.channels) > 1 and tuple(self.channels) != COLOUR else (IMAGE,)
