"""A segmentation that another program trained: its outputs are decoded as that program decodes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal, Self

import numpy as np

from hilum.belief import Certainty
from hilum.belief.certainties import OF_VOXELS, USUAL_RISK
from hilum.belief.dice_decoding import ARGMAX, Decoding
from hilum.belief.voxel_belief import VoxelBelief
from hilum.errors import PlanError
from hilum.evaluation import Metrics
from hilum.lazy import ndimage
from hilum.tasks.prompted.scoring import METRICS, PromptedScoring
from hilum.tasks.segmentation import mask_postprocessing
from hilum.tasks.segmentation.mask_postprocessing import Tidying
from hilum.tasks.segmentation.question import Segmentation
from hilum.tasks.shared import averages
from hilum.tasks.shared.averages import Shares
from hilum.tasks.task import Origin
from hilum.values import (
    Array,
    Case,
    Dataset,
    Decision,
    Deferred,
    Dense,
    Fingerprint,
    Geometry,
    Head,
    Label,
    Merge,
    Prediction,
    Setting,
    SettingsGroup,
    Slabs,
)

# While the largest piece is looked for: two label maps, what belongs to the group, the numbers of pieces, what is kept.
LARGEST_BYTES = 10


def _is_sampled(settings: bool | None) -> bool:
    """Whether voxels are sampled: also where what they have found is cleared."""
    return settings in (True, None)


@dataclass(frozen=True)
class ImportedSegmentation(Segmentation):
    """Every voxel gets one of the labels, or background (0). It is applied and scored, and not trained here.

    writes:    for each output the value that it marks; a later output overwrites an earlier one
    exclusive: the outputs are classes, of which the largest wins; else regions, each marked where it is likelier
               than not
    averaged:  whether the mean of several networks and mirrored views is of their outputs, or of their probabilities
    weighed:   where overlapping windows lie and how they are weighted
    largest:   groups of values; of the voxels of a group only the largest connected piece stays
    sampled:   whether voxels are sampled while a label map is made, by which its probabilities are calibrated and
               scored; it takes all outputs, which the label map alone does without. `untuned` sets it
    """

    writes: tuple[int, ...] = (0, 1)
    exclusive: bool = True
    averaged: Annotated[Literal["logits", "probabilities"], Setting(noun="average of")] = "logits"
    weighed: Annotated[Merge, Setting(noun="weighting of windows")] = "gaussian"
    largest: tuple[tuple[int, ...], ...] = ()
    sampled: Annotated[bool, Setting(read=_is_sampled, tuned=True)] = False
    # Which pieces stay its maker has decided; what its probabilities are worth a site's own cases say.
    postprocessing: Annotated[
        Mapping[str, Tidying] | None, Setting(always=True, read=mask_postprocessing.parse_rules)
    ] = None
    calibrated_map: bool | None = None
    decoding: Decoding | None = None
    certainty: Annotated[Certainty, SettingsGroup(OF_VOXELS, {"risk": {"default": USUAL_RISK}})] = field(
        default_factory=Certainty
    )

    name: ClassVar[str] = "imported_segmentation"

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Always raises PlanError: nothing is trained as this kind."""
        raise PlanError("a model of another program is not trained here", "task.name", "Choose segmentation")

    def check_and_fill(self) -> Self:
        """Check it like any segmentation; PlanError where its outputs do not fit its labels."""
        if not self.writes or not set(self.writes) <= {0, *(label.value for label in self.classes)}:
            raise PlanError("outputs and labels do not fit together", "task.writes", "Adopt the model again")
        return super().check_and_fill()

    @property
    def heads(self) -> Mapping[str, Head]:
        """One dense head, with the outputs of the other program."""
        return {"mask": Dense(len(self.writes))}

    @property
    def channel_labels(self) -> tuple[Label, ...]:
        """The meaning of the outputs, without the background's: of regions in the order in which they are written."""
        if self.exclusive or self.regions is not None:
            return super().channel_labels
        named = {label.value: label for label in self.classes}
        return tuple(named[value] for value in self.writes)

    @property
    def channels_when_mirrored(self) -> tuple[int, ...] | None:
        """Its maker decided along which axes it may be mirrored: no output changes places."""
        return tuple(range(len(self.writes)))

    @property
    def merge(self) -> Merge:
        """Windows are weighted as the other program does."""
        return self.weighed

    @property
    def probability_heads(self) -> tuple[str, ...]:
        """The mask, where the other program averages probabilities."""
        return ("mask",) if self._averages_probabilities else ()

    @property
    def bytes_per_voxel(self) -> int | None:
        """Memory for groups of which only the largest piece stays."""
        return LARGEST_BYTES if self.largest else super().bytes_per_voxel

    @property
    def tells_structures(self) -> bool:
        """Not where regions have only the values that mark them: nobody knows what else lies in them."""
        all_told = self.regions is not None or (self.exclusive and super().writes == self.writes)
        return self.sampled and all_told

    @property
    def _averages_probabilities(self) -> bool:
        return self.averaged == "probabilities" and self.exclusive

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The mean of outputs, or the logarithm of the mean probability."""
        logits = [one["mask"] for one in outputs]
        if self._averages_probabilities:
            return {"mask": averages.log_mean(logits, shares=shares)}
        return {"mask": averages.mean_output(logits, shares)}

    def average_members(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The mean probability of classes, as nnU-Net joins configurations."""
        return super().average(outputs, shares)

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """Decode it like any segmentation, with a note on each region of which the label map does not hold all."""
        if self.exclusive or self.regions is not None:
            return super().decode(slabs, geometry)
        counts = np.zeros((2, len(self.writes)), dtype=np.int64)
        prediction = super().decode(_count_voxels(slabs, counts), geometry)
        names = [label.name for label in self.channel_labels]
        notes = [
            f"{name} overlaps regions that are written over it: {lost} of its {marked} voxels are marked as these "
            "alone, and its mask, volume and measurements are of the rest"
            for name, marked, lost in zip(names, *counts.tolist(), strict=True)
            if lost
        ]
        return replace(prediction, notes=(*prediction.notes, *notes))

    def tidy_map(self, data: Array | Deferred, geometry: Geometry) -> Array | None:
        """The label map of which only the largest piece of each group stays; None where there is no group."""
        if not self.largest:
            return super().tidy_map(data, geometry)
        mask = np.array(data)
        for group in self.largest:
            inside = np.isin(mask, group)
            mask[inside & ~_largest_pieces(inside)] = 0
        return mask

    def fit_settings(
        self, predictions: Sequence[Prediction], cases: Sequence[Case], origin: Origin
    ) -> dict[str, Decision]:
        """Nothing: its maker has decided what is marked."""
        return {}

    @property
    def answers(self) -> VoxelBelief | None:
        """Labels of voxels, whose map stays as its maker has decided."""
        answers = super().answers
        return None if answers is None else replace(answers, calibrated_map=False, decoding=self.decoding or ARGMAX)


@dataclass(frozen=True)
class ImportedPrompted(PromptedScoring, ImportedSegmentation):
    """What a person points at in an image, each label by its own prompts; the background's output is 0."""

    name: ClassVar[str] = "imported_prompted"
    metrics: ClassVar[Metrics] = METRICS
    takes_prompts: ClassVar[bool] = True

    def with_labels(self, names: Sequence[str]) -> Self:
        """The same for these labels, numbered from 1."""
        labels = tuple(Label(number, name) for number, name in enumerate(names, start=1))
        return replace(self, classes=labels, writes=tuple(range(len(labels) + 1)))


def _count_voxels(slabs: Slabs, counts: Array) -> Slabs:
    """The same slabs of regions, whose voxels are added to `counts` on the way.

    counts: (2, regions) voxels of each, and those of them that later ones are written over
    """
    for region, arrays in slabs:
        outputs = np.asarray(arrays["mask"])
        over = np.zeros(outputs.shape[1:], dtype=bool)
        for index in reversed(range(len(outputs))):
            inside = outputs[index] > 0
            counts[:, index] += np.count_nonzero(inside), np.count_nonzero(inside & over)
            over |= inside
        yield region, {**arrays, "mask": outputs}


def _largest_pieces(inside: Array) -> Array:
    """The connected piece with the most voxels (touching corners connect), or all that have as many."""
    pieces, count = ndimage.label(inside, np.ones((3,) * inside.ndim))
    sizes = np.zeros(count + 1, dtype=np.int64)
    for rows in pieces:  # counting makes numbers of eight bytes of all that it is given
        sizes += np.bincount(rows.ravel(), minlength=count + 1)
    sizes[0] = 0
    return np.asarray((sizes == sizes.max())[pieces] & inside)
