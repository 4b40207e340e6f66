"""Synthesis: images that a network draws out of noise, of a class or by a mask, for rare classes of a training set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from isocenter import errors
from isocenter.errors import DatasetError, UsageError
from isocenter.evaluation import Metrics
from isocenter.tasks import properties
from isocenter.tasks.representation import LOSS, METRICS, RANK, RANKME, RepresentationScoring
from isocenter.tasks.shared import left_right, reference_labels
from isocenter.tasks.task import Outputs
from isocenter.transforms.augment import INTENSITY, SPATIAL
from isocenter.values import (
    Case,
    Dataset,
    Decision,
    DrawnImage,
    Fingerprint,
    Head,
    Label,
    Merge,
    Sentence,
    Target,
    Vector,
    setting_fields,
)

if TYPE_CHECKING:
    from torch import Tensor

FLOW, CLASS, MASK = "arXiv:2209.03003", "class", "mask"
IMAGE = "image"
# Of fewer images a network learns each by heart.
FEWEST = 20


@dataclass(frozen=True)
class Synthesis(RepresentationScoring):
    """Images out of noise. Its answer about an image is what the network sees in it, as of a representation.

    channels:   of an image
    condition:  what an image may be asked to show: a class, the structures of a mask, or nothing
    classes:    of which images are drawn
    structures: labels of the masks by which images are drawn
    """

    channels: int = setting_fields.setting(1, Sentence("An image has channels: {value}"))
    condition: Literal["class", "mask", "none"] = setting_fields.setting(
        "none", Sentence("What is drawn follows this condition: {value}"), target=True
    )
    classes: tuple[str, ...] = setting_fields.setting((), Sentence("Classes are {value}"), target=True)
    structures: tuple[Label, ...] = setting_fields.setting(
        (),
        Sentence("Structures of masks are {value}"),
        name="labels",
        read=reference_labels.labels_from,
        plain=reference_labels.plain_labels,
        target=True,
    )

    name: ClassVar[str] = "synthesis"
    needs: ClassVar[frozenset[str]] = frozenset({CLASS, MASK})
    alternatives: ClassVar[tuple[frozenset[str], ...]] = (frozenset({CLASS}), frozenset({MASK}), frozenset())
    by_name: ClassVar[bool] = True
    answers_features: ClassVar[bool] = True
    selects_by: ClassVar[str] = LOSS
    metrics: ClassVar[Metrics] = METRICS

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """The condition that the training cases have; DatasetError without any image."""
        count = len(fingerprint)
        if not count:
            raise DatasetError("there is no image to learn from", str(dataset.root or dataset.name), "Give images")
        counts = {name: n for name, n in fingerprint.counts(CLASS).items() if n}
        values = [value for value in fingerprint.voxels(MASK) if value]
        condition = MASK if values else CLASS if counts else "none"
        shares = ", ".join(f"{n} are {name}" for name, n in counts.items())
        words = {
            MASK: f"{len(fingerprint.summaries(MASK))} of {errors.count_phrase(count, 'training image')} have a mask",
            CLASS: f"of {errors.count_phrase(count, 'training image')} {shares}",
            "none": "no training image has a class or a mask",
        }
        few = min(counts.values(), default=count) if condition == CLASS else count
        risk = f"; {few} images of a kind are few: drawn ones may be copies of them" if few < FEWEST else ""
        declared = [label for label in dataset.classes.get(MASK, ()) if label.value in values]
        structures = declared or [Label(value, str(value)) for value in values]
        return {
            "channels": Decision(max(len(case.channels) for case in fingerprint.cases), "the images have this number"),
            "condition": Decision(condition, words[condition] + risk),
            "classes": Decision(list(counts) if condition == CLASS else [], words[condition]),
            "labels": Decision(reference_labels.plain_labels(structures if values else []), words[condition]),
        }

    @property
    def heads(self) -> Mapping[str, Head]:
        """One head, which draws."""
        names = tuple(label.name for label in self.structures)
        return {IMAGE: DrawnImage(self.channels, drawn_classes=self.classes, drawn_labels=names)}

    @property
    def labels(self) -> tuple[Label, ...]:
        """None: no value of a result is a class."""
        return ()

    @property
    def why_uncut(self) -> str:
        """The reason why a patch holds the whole image."""
        return "images are drawn whole"

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Images as they are, on one scale that can be undone, and what selects and judges."""
        seen = "what training changes in images, drawn ones would show"
        changes = {f"augmentation.{kind}": Decision(0.0, seen) for kind in (*SPATIAL, *INTENSITY) if kind != "flips"}
        return {
            "network.name": Decision("diffusion_unet", "it draws images out of noise", FLOW),
            "objectives.terms": Decision(["flow"], "a straight way from noise to image needs few steps", FLOW),
            "preprocessing.normalisation": Decision(
                _scales(fingerprint), "the range of the training images becomes -1 to 1, from which it comes back"
            ),
            "preprocessing.crop": Decision("none", "an image is drawn whole"),
            **changes,
            "augmentation.quarter_turns": Decision(False, seen),
            "training.selection": Decision(LOSS, "nothing else is known of images that nobody has drawn yet"),
            "training.weight_decay": Decision(0.0, "as flows are trained", FLOW),
            "evaluation.primary": Decision(RANK, "features that use many directions serve later tasks best", RANKME),
            "guard.gate": Decision(False, "it answers nothing about an image"),
        }

    def target(self, case: Case) -> Target:
        """The number of the case's class, or of the structure of each voxel; what is unknown asks for nothing."""
        if self.condition != MASK:
            known = str(case.references.get(CLASS, ""))
            number = self.classes.index(known) if known in self.classes else len(self.classes)
            return Target(Vector(len(self.classes) + 1), np.asarray(number, dtype=np.int64))
        image, mask = properties.first_image(case), case.references.get(MASK)
        numbers = np.zeros(image.geometry.shape, dtype=np.uint8)
        if mask is not None:
            reference_labels.refuse_other_image_grid(MASK, mask, image, case.id)
            values = reference_labels.label_values(mask.data, case.id)
            for number, label in enumerate(self.structures, start=1):
                numbers[values == label.value] = number
        return Target(self.heads[IMAGE], numbers)

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """UsageError: it is the objective that has a loss."""
        raise UsageError("has no loss of its own", self.name, "Name the objective flow")

    def quality(self, outputs: Outputs, target: Any) -> Mapping[str, Tensor]:
        """Nothing: the loss of the objective is measured in its place."""
        return {}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """Minus the mean loss of the objective over the validation images."""
        return float(collected[LOSS].double().mean())

    @property
    def merge(self) -> Merge:
        """Windows count alike."""
        return "mean"

    @property
    def channels_when_mirrored(self) -> tuple[int, ...] | None:
        """Unchanged, unless a class or a structure names a side."""
        names = [*self.classes, *(label.name for label in self.structures)]
        return None if left_right.have_sides(names) else tuple(range(self.channels))

    @property
    def target_sides(self) -> tuple[int, ...] | None:
        """Unchanged, as no class or structure that a mirrored image may show has a side."""
        return tuple(range(len(self.classes) + len(self.structures) + 1))

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """The length of the outputs."""
        if target is not None:
            raise UsageError(f"there is no {target!r} to explain", self.name, "Leave the target out")
        return next(iter(outputs.values())).flatten(1).norm(dim=1)


def _scales(fingerprint: Fingerprint) -> list[dict[str, Any]]:
    """A window a channel: from the lowest to the highest of the training cases, without half a percent of each end."""
    channels = max(len(case.channels) for case in fingerprint.cases)
    scales = list[dict[str, Any]]()
    for n in range(channels):
        facts = [case.intensity[min(n, len(case.intensity) - 1)] for case in fingerprint.cases]
        low, high = min(one["low"] for one in facts), max(one["high"] for one in facts)
        middle, half = (low + high) / 2, max((high - low) / 2, 1e-6)
        scale = {"low": low, "high": high, "mean": middle, "deviation": half}
        scales.append({"method": "window", **{name: float(f"{value:.6g}") for name, value in scale.items()}})
    return scales
