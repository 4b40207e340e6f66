"""Prompted segmentation: the voxels of what a person points at, whatever it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from hilum.errors import DatasetError
from hilum.evaluation import Metrics
from hilum.lazy import torch
from hilum.tasks.prompted import sampled_prompts
from hilum.tasks.prompted.scoring import BY_CLICKS, METRICS, OBJECT, PromptedScoring
from hilum.tasks.segmentation import partial_labels
from hilum.tasks.segmentation import question as segmentation
from hilum.tasks.shared import reference_labels
from hilum.tasks.task import Outputs
from hilum.transforms import prompt_channels
from hilum.values import Case, Dataset, Decision, Fingerprint, Label, Split, Target
from hilum.values.prediction import Instances

if TYPE_CHECKING:
    from torch import Tensor

NNINTERACTIVE = "arXiv:2503.08373"


@dataclass(frozen=True)
class Prompted(PromptedScoring):
    """What a person points at, or background (0); a sample of training is one structure or object of its patch.

    Each label of a result has prompts of its own, which the network gets as channels after those of the image.
    """

    name: ClassVar[str] = "prompted"
    alternatives: ClassVar[tuple[frozenset[str], ...]] = (frozenset({"mask"}), frozenset({"instances"}))
    tuned_on: ClassVar[tuple[Split, ...]] = ()
    by_name: ClassVar[bool] = True
    takes_prompts: ClassVar[bool] = True
    metrics: ClassVar[Metrics] = METRICS

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """One label for all that may be pointed at; DatasetError where masks leave voxels open, or mark nothing."""
        where = str(dataset.root or dataset.name)
        partly = partial_labels.decide_partial_settings(dataset, fingerprint)
        if partly["ignore"].value is not None or partly["sparse"].value is not None:
            problem = "its masks leave voxels open, and nobody can point at what may go on there"
            raise DatasetError(problem, where, "Give masks that are known as a whole, or train a segmentation")
        if "mask" in dataset.kinds and not fingerprint.voxels().keys() - {0, partly["background"].value}:
            raise DatasetError("every training mask is empty", where, "Give masks that mark something")
        labels = reference_labels.plain_labels((Label(1, OBJECT),))
        return {
            "labels": Decision(labels, "whoever points says what a result is called"),
            "loss": Decision("dice+ce", "overlap and voxel-wise terms together train stably", NNINTERACTIVE),
            "background": partly["background"],
        }

    @property
    def channels_when_mirrored(self) -> tuple[int, ...]:
        """What is pointed at stays that in a mirrored image, whatever its name."""
        return tuple(range(len(self.writes)))

    @property
    def tells_structures(self) -> bool:
        """No probability is calibrated: it depends on who points, and where."""
        return False

    def with_labels(self, names: Sequence[str]) -> Self:
        """The same for these labels, numbered from 1."""
        return replace(self, classes=tuple(Label(number, name) for number, name in enumerate(names, start=1)))

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Further channels, patches about objects, and nothing that is fitted while nobody points."""
        found = [Label(int(value), str(value)) for value in fingerprint.voxels() if value not in (0, self.background)]
        pointed = "what the network sees depends on who points, and where"
        return {
            **segmentation.decide_mask_settings(found or self.labels, fingerprint),
            "preprocessing.prompts": Decision(
                prompt_channels.COUNT,
                "the mask before, then a box, points and strokes inside and outside, in this order",
                NNINTERACTIVE,
            ),
            "preprocessing.cascade": Decision(None, "whoever points says where to look"),
            "training.foreground": Decision(1.0, "a patch without an object teaches nobody to point"),
            "training.networks": Decision(1, "whoever points waits for each network"),
            "training.validations": Decision(5, "prompts that stay the same tell checkpoints apart roughly"),
            "training.selection": Decision("dice", "of validation objects, with prompts that stay the same"),
            "evaluation.primary": Decision(BY_CLICKS[-1], "a person points until it is right", NNINTERACTIVE),
            "inference.flips": Decision([], "whoever points waits for each mirrored view"),
            "inference.uncertainty": Decision("none", pointed),
            "guard.gate": Decision(False, f"{pointed}: no image is refused"),
        }

    def target(self, case: Case) -> Target:
        """Numbers of the objects, of which training samples one; GeometryError where they lie on another grid."""
        return Target(Instances(), self.reference_objects(case)[0])

    def point_at(
        self, images: Tensor, targets: Any, generators: Sequence[np.random.Generator], answer: Outputs | None = None
    ) -> tuple[Tensor, Any]:
        """The images with seven further channels, and masks of one object each; after an answer a further prompt."""
        if answer is None:
            masks = [sampled_prompts.sample_object(one, rng) for one, rng in zip(targets, generators, strict=True)]
            prompt_maps = [
                sampled_prompts.sample_channels(one, rng) for one, rng in zip(masks, generators, strict=True)
            ]
            return torch.cat([images, torch.stack(prompt_maps).to(images.dtype)], dim=1), torch.stack(masks).to(
                torch.uint8
            )
        found = answer["mask"][:, 1] > answer["mask"][:, 0]
        image, prompts_before = images.tensor_split([images.shape[1] - prompt_channels.COUNT], dim=1)
        each = zip(prompts_before, targets == 1, found, generators, strict=True)
        return torch.cat([image, torch.stack([sampled_prompts.correct_channels(*one) for one in each])], dim=1), targets
