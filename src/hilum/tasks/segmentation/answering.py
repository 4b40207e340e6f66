"""The answers of a segmentation: outputs for every voxel to a label map, with volumes and the Dice to expect.

A copy of this file travels with a packaged model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np

from hilum.belief import Certainty, UnseenCases, certainties, voxel_calibration
from hilum.belief.dice_decoding import DICE, Decoding, VoxelCodes
from hilum.belief.prediction_sets import HIGH, LOW
from hilum.belief.voxel_belief import VoxelBelief
from hilum.belief.voxel_calibration import VoxelCalibration, VoxelStream
from hilum.evaluation import mask_overlap
from hilum.files.storage.spool import Spool
from hilum.tasks.segmentation import mask_postprocessing, partial_labels
from hilum.tasks.segmentation.mask_postprocessing import Tidying
from hilum.tasks.segmentation.targets import Truth
from hilum.tasks.shared import averages, structure_findings
from hilum.tasks.shared.averages import EACH, Shares
from hilum.tasks.task import Task
from hilum.values import (
    Array,
    Case,
    Deferred,
    Finding,
    Geometry,
    Label,
    Measurements,
    Merge,
    Prediction,
    Slabs,
    voxel_images,
)
from hilum.values.table_cells import TableRow

# Difference between the outputs of what is surely there and of what is not.
SURE = 30.0


class MaskAnswering(Task):
    """The answers of a segmentation; the fields are those of `Segmentation`."""

    classes: tuple[Label, ...]
    postprocessing: Mapping[str, Tidying] | None
    regions: Mapping[str, tuple[int, ...]] | None
    ignore: int | None
    background: int
    sparse: Literal["voxels", "slices"] | None
    partial: tuple[tuple[str, ...], ...] | None
    readers: str
    observers: tuple[str, ...]
    certainty: Certainty
    expected_dice: Mapping[str, float] | None
    calibrated_map: bool | None
    decoding: Decoding | None

    @property
    def channel_labels(self) -> tuple[Label, ...]:
        """The meaning of the outputs, without the background's."""
        regions = (self.regions or {}).items()
        return self.classes if self.exclusive else tuple(Label(values[0], name) for name, values in regions)

    @property
    def structures(self) -> Mapping[str, tuple[int, ...]]:
        """{name: values} of what is scored and measured, and about which patches are centred."""
        return {one.name: (one.value,) for one in self.channel_labels} if self.regions is None else self.regions

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the structures."""
        return tuple(self.structures)

    @property
    def exclusive(self) -> bool:
        """Whether its outputs are classes, of which the largest wins; else each is a structure of its own."""
        return self.regions is None

    @property
    def tells_structures(self) -> bool:
        """Whether label maps say what is true of the outputs, of which voxels are sampled."""
        return True

    @property
    def is_divided(self) -> bool:
        """Whether the share of the readers is taught."""
        return self.readers == "soft" and len(self.observers) > 1

    @property
    def writes(self) -> tuple[int, ...]:
        """Value that each output marks; where they overlap a later one overwrites an earlier one."""
        return (*([0] if self.exclusive else []), *(label.value for label in self.channel_labels))

    @property
    def truth(self) -> Truth:
        """The reading of masks, for training and for scoring."""
        values = tuple(label.value for label in self.classes)
        readers = len(self.observers) if self.is_divided else 1
        marking = (self.ignore, self.background, self.sparse, self.readers)
        known_sets = partial_labels.known_combinations(self.partial, self.names)
        return Truth(values, tuple(self.structures.values()), self.names, *marking, readers, known_sets)

    @property
    def merge(self) -> Merge:
        """Windows are merged by Gaussian weights."""
        return "gaussian"

    @property
    def probability_heads(self) -> tuple[str, ...]:
        """The mask, unless structures overlap."""
        return ("mask",) if self.exclusive else ()

    @property
    def saliency_targets(self) -> tuple[str, ...]:
        """The structures."""
        return tuple(self.structures)

    @property
    def marks(self) -> Mapping[str, tuple[int, ...]]:
        """The values of the structures."""
        return self.structures

    @property
    def folds_by_head(self) -> Mapping[str, int]:
        """{head: folds} whose intervals of volumes their mean combines."""
        return self.certainty.folds_by_head("mask")

    @property
    def background_outputs(self) -> Mapping[str, Sequence[float]]:
        """No structure, but for about one voxel in a trillion."""
        nothing = [-SURE] * len(self.channel_labels)
        return {"mask": [0.0, *nothing] if self.exclusive else nothing}

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The logarithm of the mean probability of classes; of regions the mean of their log odds."""
        logits = [one["mask"] for one in outputs]
        return {
            "mask": averages.log_mean(logits, shares=shares) if self.exclusive else averages.mean_output(logits, shares)
        }

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """(channels, ...) calibrated probability of the background and each label, or of each region."""
        return {"mask": self.probable(arrays["mask"])}

    @property
    def codes(self) -> VoxelCodes | None:
        """The codes in which probabilities wait for masks that are decoded for Dice; None for others."""
        return VoxelCodes(len(self.writes), self.exclusive) if self.decoding == DICE else None

    @property
    def bytes_per_voxel(self) -> int | None:
        """Memory for codes beside the label."""
        label = np.min_scalar_type(max(self.writes)).itemsize
        return None if self.codes is None else label + 2 * self.codes.words

    @property
    def probable(self) -> VoxelCalibration:
        """Map from outputs to probabilities and label maps."""
        names = ("background", *self.names) if self.exclusive else self.names
        is_for_dice = self.decoding == DICE
        return VoxelCalibration(
            names, self.exclusive, self.certainty.calibrator, self.writes, bool(self.calibrated_map), is_for_dice
        )

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """Label values, tidied; background where no slab is. Calibrated probabilities say what Dice is expected."""
        structures = tuple(self.structures.values())
        belief = (self.probable, self.certainty, self.expected_dice)
        codes = None if self.codes is None else Spool((self.codes.words, *geometry.shape), np.dtype(np.uint16))
        stream = VoxelStream(geometry, structures, *belief, samples=self.tells_structures, codes=codes)
        mask = Spool(geometry.shape, np.min_scalar_type(max(self.writes)))
        for region, arrays in slabs:
            mask[region] = stream.take(region, arrays["mask"], arrays.get(f"mask{EACH}"))
        for region, labels in stream.decode_for_dice():
            mask[region] = labels
        settled = self.tidy_map(mask.data, geometry)
        confidence, untuned = stream.state_confidence(settled)
        data = mask.data if settled is None else settled
        return Prediction(geometry, data=data, labels=self.classes, confidence=confidence, untuned=untuned)

    def tidy_map(self, data: Array | Deferred, geometry: Geometry) -> Array | None:
        """The tidied label map; None where all stays."""
        return mask_postprocessing.postprocess_map(data, self.classes, self.postprocessing or {}, geometry)

    def outputs(self, prediction: Prediction) -> TableRow:
        """The volume of each structure, in ml where voxels have a size, its interval, and the Dice that is expected."""
        return mask_columns(prediction, self.structures)

    def results(self, prediction: Prediction, measured: Measurements = ()) -> list[Finding]:
        """The volume of each structure with its interval, and its measurements after it."""
        return structure_results(prediction, self.classes, self.structures, measured)

    @property
    def valued_findings(self) -> Mapping[str, str]:
        """The structures, of which the value is the size, and their measurements."""
        return {**dict.fromkeys(self.structures, ""), **structure_findings.measurement_units()}

    @property
    def answers(self) -> VoxelBelief | None:
        """Labels of voxels; None where the share of divided readers is taught, which is no class."""
        if self.is_divided or not self.tells_structures:
            return None
        found = (self.calibrated_map, self.expected_dice, self.decoding)
        options = (tuple(self.structures.values()), self.probable, *found)
        return VoxelBelief(self.certainty, "mask", *options, self.tidy_map)

    def rows(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> UnseenCases:
        """Predictions with their sampled voxels, and functions that read reference maps."""
        truth = [partial(self.truth.reference_map, case) for case in cases]
        return UnseenCases(predictions, truth, np.array([case.patient for case in cases]))


def structure_results(
    prediction: Prediction,
    labels: Sequence[Label],
    structures: Mapping[str, Sequence[int]],
    measured: Measurements,
) -> list[Finding]:
    """The volume of each structure with its interval; after it, of one that is a label, its measurements.

    labels: of the label map; of a structure that overlaps others measurements are those of its own part
    """
    by_name = {label.name: label for label in labels}
    confidence = prediction.confidence
    findings = list[Finding]()
    for name, (column, volume) in zip(structures, structure_volumes(prediction, structures).items(), strict=True):
        row = by_name.pop(name, None)
        size = Finding(
            name,
            volume,
            column.rsplit("_", 1)[-1],
            codes=(row.code,) if row is not None and row.code is not None else (),
            low=certainties.finite_end(confidence.low.get(name)),
            high=certainties.finite_end(confidence.high.get(name)),
            group=name,
            label=None if row is None else row.value,
        )
        findings += [size, *(structure_findings.measured_findings(row, measured) if row is not None else ())]
    return [
        *findings,
        *(finding for label in by_name.values() for finding in structure_findings.measured_findings(label, measured)),
    ]


def structure_volumes(prediction: Prediction, structures: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """{<structure>_<unit>: its volume} of a label map, in ml where the size of a voxel is known."""
    assert prediction.data is not None  # noqa: S101 - as decoded
    voxels = np.zeros(1 + max(value for values in structures.values() for value in values))
    for _, part in voxel_images.walk_blocks(prediction.data):
        voxels += np.bincount(np.ravel(part), minlength=len(voxels))[: len(voxels)]
    size = voxel_calibration.voxel_volume_in_unit(prediction.geometry)
    unit = mask_overlap.volume_unit(prediction.geometry).replace("mm²", "mm2")
    return {f"{name}_{unit}": round(float(voxels[list(values)].sum()) * size, 6) for name, values in structures.items()}


def mask_columns(prediction: Prediction, structures: Mapping[str, Sequence[int]]) -> dict[str, float | None]:
    """The volume of each structure, the ends of its interval (blank without), and the Dice that is expected of it."""
    volumes = structure_volumes(prediction, structures)
    confidence = prediction.confidence
    columns = dict[str, float | None](volumes)
    for column, name in zip(volumes, structures, strict=True):
        for side, ends in ((LOW, confidence.low), (HIGH, confidence.high)):
            end = certainties.finite_end(ends.get(name))
            columns[f"{column}_{side}"] = None if end is None else round(end, 6)
    return {**columns, **{f"expected_dice_{name}": round(dice, 4) for name, dice in confidence.expected.items()}}
