"""Representation: what a network sees in an image, learnt without references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from isocenter.errors import DatasetError, UsageError
from isocenter.evaluation import Metrics
from isocenter.tasks.representation.scoring import LOSS, METRICS, RANK, RepresentationScoring
from isocenter.tasks.task import Outputs
from isocenter.values import (
    Case,
    CaseFacts,
    Dataset,
    Decision,
    Dense,
    Fingerprint,
    Head,
    Label,
    Merge,
    Sentence,
    Target,
    Vector,
    setting,
)

if TYPE_CHECKING:
    from torch import Tensor

# The two heads: the image itself at every voxel, or so many numbers for the whole image (arXiv:2002.05709).
IMAGE, EMBEDDING, NUMBERS = "image", "embedding", 128
RANKME, WOLF = "arXiv:2210.02885", "arXiv:2412.17041"


@dataclass(frozen=True)
class Representation(RepresentationScoring):
    """The pooled features of a network for an image, taught by objectives that need no reference.

    head:     "image": a number a channel for every voxel; "embedding": 128 numbers for the image. Training needs it,
              and the result does not depend on it
    channels: of a voxel
    """

    head: Literal["image", "embedding"] = setting(words=Sentence("While it learns, the network gives the {value}"))
    channels: int = setting(1, Sentence("A voxel has channels: {value}"))

    name: ClassVar[str] = "representation"
    needs: ClassVar[frozenset[str]] = frozenset()
    by_name: ClassVar[bool] = True
    selects_by: ClassVar[str] = LOSS
    metrics: ClassVar[Metrics] = METRICS

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """The head that suits the images: volumes get what masks would get, pictures and clips what classes would."""
        if not fingerprint.cases:
            raise DatasetError("there is no image to learn from", str(dataset.root or dataset.name), "Give images")
        volumes = sum(is_volume(case) for case in fingerprint.cases)
        head = IMAGE if 2 * volumes > len(fingerprint) else EMBEDDING
        kind = "volumes" if head == IMAGE else "pictures, series or clips"
        because = f"most of {len(fingerprint)} images are {kind}: the network is that of a plan for "
        return {
            "head": Decision(head, because + ("masks" if head == IMAGE else "classes")),
            "channels": Decision(max(len(case.channels) for case in fingerprint.cases), "the images have so many"),
        }

    @property
    def heads(self) -> Mapping[str, Head]:
        """One head, as `head` says."""
        return {IMAGE: Dense(self.channels)} if self.head == IMAGE else {EMBEDDING: Vector(NUMBERS)}

    @property
    def labels(self) -> tuple[Label, ...]:
        """None: no value of a result is a class."""
        return ()

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """The network, the objective that teaches it, and what selects and judges."""
        unet = Decision("unet", "it gives an output for every voxel", "arXiv:1505.04597")
        resnet = Decision("resnet", "it gives numbers for the whole image", "arXiv:1512.03385")
        masked = Decision(["masked"], "the network gives an output for every voxel, so it can restore an image", WOLF)
        contrast = Decision(["contrast"], "the network gives numbers for the whole image, so views are compared", WOLF)
        is_dense = self.head == IMAGE
        return {
            "network.name": unet if is_dense else resnet,
            "objectives.terms": masked if is_dense else contrast,
            "training.selection": Decision(LOSS, "nothing else is known of images without references"),
            "evaluation.primary": Decision(RANK, "features that use many directions serve later tasks best", RANKME),
        }

    def target(self, case: Case) -> Target:
        """Nothing: a single zero, whatever is known of the case."""
        return Target(Vector(1), np.zeros((), dtype=np.int64))

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """UsageError: it is the objectives that have losses."""
        raise UsageError("has no loss of its own", self.name, "Name objectives that need no reference")

    def quality(self, outputs: Outputs, target: Any) -> Mapping[str, Tensor]:
        """Nothing: the losses of objectives are measured in its place."""
        return {}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """Minus the mean loss of the objectives over the validation images."""
        return float(collected[LOSS].double().mean())

    @property
    def merge(self) -> Merge:
        """Windows count alike."""
        return "mean"

    @property
    def mirrored(self) -> tuple[int, ...]:
        """No number has a side."""
        return tuple(range(self.channels if self.head == IMAGE else NUMBERS))

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """The length of the outputs."""
        if target is not None:
            raise UsageError(f"there is no {target!r} to explain", self.name, "Leave the target out")
        return next(iter(outputs.values())).flatten(1).norm(dim=1)


def is_volume(case: CaseFacts) -> bool:
    """Whether an image has three axes and no time."""
    return case.frames is None and sum(size > 1 for size in case.shape) > 2
