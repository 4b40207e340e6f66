"""A segmentation that another program trained: its outputs are decoded as that program decodes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from isocenter.belief import FOUND, USUAL_RISK, VoxelAnswers
from isocenter.errors import PlanError
from isocenter.lazy import ndimage
from isocenter.tasks.answers import Decoding, Origin, Traits
from isocenter.tasks.segmentation.task import Segmentation
from isocenter.tasks.shared import Shares, log_mean, mean_of, reading
from isocenter.values import (
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
    Slabs,
)

OWN = ("writes", "exclusive", "averaged", "weighed", "largest", "sampled")
# What a site's own cases find beside the calibration; a setting that is cleared for it is `sampled`.
TUNES = ("expected_dice", "covering", "conformal", "sampled")
# While the largest piece is looked for: two label maps, what belongs to the group, the numbers of pieces, what is kept.
LARGEST_BYTES = 10


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
    averaged: Literal["logits", "probabilities"] = "logits"
    weighed: Merge = "gaussian"
    largest: tuple[tuple[int, ...], ...] = ()
    sampled: bool = False

    name: ClassVar[str] = "imported_segmentation"
    # Which pieces stay its maker has decided; what its probabilities are worth a site's own cases say.
    traits: ClassVar[Traits] = replace(Segmentation.traits, tunes=(*FOUND, *TUNES))

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Always raises PlanError: nothing is trained as this kind."""
        raise PlanError("a model of another program is not trained here", "task.name", "Choose segmentation")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> ImportedSegmentation:
        """A segmentation with the other program's decoding; PlanError names the setting that cannot be."""
        given = {key: value for key, value in settings.items() if key not in OWN}
        made = super().of({"risk": USUAL_RISK, **given})
        assert isinstance(made, cls)  # noqa: S101 - `of` makes what it is called on
        own = {key: settings[key] for key in OWN if key in settings}
        with reading(own, OWN, "an imported segmentation"):
            own["writes"] = tuple(int(value) for value in own["writes"])
            own["largest"] = tuple(tuple(int(value) for value in group) for group in own.get("largest", ()))
            own["sampled"] = own.get("sampled", False) in (True, None)
            task = replace(made, **own)
        known = {0, *(label.value for label in task.classes)}
        if not set(task.writes) <= known or task.averaged not in ("logits", "probabilities"):
            raise PlanError("outputs and labels do not fit together", "task.writes", "Adopt the model again")
        if task.weighed not in get_args(Merge):
            raise PlanError(f"windows are not weighed by {task.weighed!r}", "task.weighed", "Adopt the model again")
        return task

    @property
    def settings(self) -> dict[str, Any]:
        """Those of a segmentation, and how outputs are decoded."""
        return {
            **super().settings,
            "writes": list(self.writes),
            "exclusive": self.exclusive,
            "averaged": self.averaged,
            "weighed": self.weighed,
            "largest": [list(group) for group in self.largest],
            "sampled": self.sampled,
        }

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
    def mirrored(self) -> tuple[int, ...] | None:
        """Its maker decided along which axes it may be mirrored: no output changes places."""
        return tuple(range(len(self.writes)))

    @property
    def decoding(self) -> Decoding:
        """Windows, networks and views are averaged as the other program does."""
        averaged = ("mask",) if self._averages_probabilities else ()
        held = LARGEST_BYTES if self.largest else None
        return replace(super().decoding, merge=self.weighed, averaged=averaged, bytes_per_voxel=held)

    @property
    def tells_structures(self) -> bool:
        """Not where regions have only the values that mark them: nobody knows what else lies in them."""
        known = self.regions is not None or (self.exclusive and super().writes == self.writes)
        return self.sampled and known

    @property
    def _averages_probabilities(self) -> bool:
        return self.averaged == "probabilities" and self.exclusive

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The mean of outputs, or the logarithm of the mean probability."""
        each = [one["mask"] for one in outputs]
        if self._averages_probabilities:
            return {"mask": log_mean(each, shares=shares)}
        return {"mask": mean_of(each, shares)}

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """As any segmentation, with a note on each region of which the label map does not hold all."""
        if self.exclusive or self.regions is not None:
            return super().decode(slabs, geometry)
        counts = np.zeros((2, len(self.writes)), dtype=np.int64)
        made = super().decode(_counted(slabs, counts), geometry)
        names = [label.name for label in self.channel_labels]
        notes = [
            f"{name} overlaps regions that are written over it: {lost} of its {marked} voxels are marked as these "
            "alone, and its mask, volume and measurements are of the rest"
            for name, marked, lost in zip(names, *counts.tolist(), strict=True)
            if lost
        ]
        return replace(made, notes=(*made.notes, *notes))

    def settled(self, data: Array | Deferred, geometry: Geometry) -> Array | None:
        """The label map of which only the largest piece of each group stays; None where there is no group."""
        if not self.largest:
            return super().settled(data, geometry)
        mask = np.array(data)
        for group in self.largest:
            own = np.isin(mask, group)
            mask[own & ~_largest_pieces(own)] = 0
        return mask

    def fitted(self, predictions: Sequence[Prediction], cases: Sequence[Case], origin: Origin) -> dict[str, Decision]:
        """Nothing: its maker has decided what is marked."""
        return {}

    @property
    def answers(self) -> VoxelAnswers | None:
        """Labels of voxels, whose map stays as its maker has decided."""
        answers = super().answers
        return None if answers is None else replace(answers, calibrated_map=False)


def _counted(slabs: Slabs, counts: Array) -> Slabs:
    """The same slabs of regions, whose voxels are added to `counts` on the way.

    counts: (2, regions) voxels of each, and those of them that later ones are written over
    """
    for region, arrays in slabs:
        outputs = np.asarray(arrays["mask"])
        over = np.zeros(outputs.shape[1:], dtype=bool)
        for place in reversed(range(len(outputs))):
            own = outputs[place] > 0
            counts[:, place] += np.count_nonzero(own), np.count_nonzero(own & over)
            over |= own
        yield region, {**arrays, "mask": outputs}


def _largest_pieces(own: Array) -> Array:
    """The connected piece with the most voxels (touching corners connect), or all that have as many."""
    pieces, count = ndimage.label(own, np.ones((3,) * own.ndim))
    sizes = np.zeros(count + 1, dtype=np.int64)
    for rows in pieces:  # counting makes numbers of eight bytes of all that it is given
        sizes += np.bincount(rows.ravel(), minlength=count + 1)
    sizes[0] = 0
    return np.asarray((sizes == sizes.max())[pieces] & own)
