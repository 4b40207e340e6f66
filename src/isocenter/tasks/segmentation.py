"""Segmentation: one label for every voxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd

from isocenter.errors import DatasetError, GeometryError, PlanError
from isocenter.evaluation import Table, mean_rows, metric_columns, overlaps, pooled_rows, surface_distance, volume_unit
from isocenter.lazy import torch
from isocenter.report import Figure, figures
from isocenter.tasks.exclusive import label_map, log_mean, softmax
from isocenter.tasks.sides import crossed
from isocenter.tasks.task import Outputs, Task, stated_image
from isocenter.values import (
    Array,
    Case,
    Code,
    Dataset,
    Decision,
    Dense,
    Finding,
    Fingerprint,
    Geometry,
    Head,
    Label,
    Prediction,
    Row,
    Slabs,
    Target,
)

if TYPE_CHECKING:
    from torch import Tensor

# Below this, the two terms of the Dice loss would divide by nothing.
SMOOTH = 1e-5


@dataclass(frozen=True)
class Segmentation:
    """Every voxel gets one of the labels, or background (0).

    classes:   the labels, without the background
    loss_name: "dice+ce" or "ce"
    tolerance: mm within which a surface counts as found (pixels where no size is known)
    """

    classes: tuple[Label, ...]
    loss_name: Literal["dice+ce", "ce"] = "dice+ce"
    tolerance: float = 2.0

    name: ClassVar[str] = "segmentation"
    needs: ClassVar[frozenset[str]] = frozenset({"mask"})
    metrics: ClassVar[frozenset[str]] = frozenset(
        {
            *("dice", "iou", "sensitivity", "precision", "detected", "dice_pooled"),
            *(f"{name}{unit}" for name in ("hd95", "assd", "nsd") for unit in ("", "_pixels")),
            *(f"{name}{unit}" for name in ("volume_error", "false_positive_volume") for unit in ("", "_voxels")),
        }
    )
    selects_by: ClassVar[str] = "dice"

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        voxels = {value: count for value, count in fingerprint.voxels().items() if value != 0}
        where = str(dataset.root or dataset.name)
        if not voxels:
            raise DatasetError("every training mask is empty", where, "Give masks that mark something")
        declared = tuple(label for label in dataset.classes.get("mask", ()) if label.value != 0)
        if declared:
            because = "the declared set"
        else:
            declared = tuple(Label(value, str(value)) for value in voxels)
            because = f"the values of {len(fingerprint)} training masks; none were declared"
        steps = float(np.median(fingerprint.steps))
        physical = all(case.physical for case in fingerprint.cases)
        return {
            "labels": Decision([_plain(label) for label in declared], because),
            "loss": Decision(
                "dice+ce",
                "overlap and voxel-wise terms together train stably with small and with large structures",
                "doi:10.1038/s41592-020-01008-z",
            ),
            "tolerance": Decision(
                round(2 * steps, 3),
                f"two voxels of the median spacing {steps:.3g} {'mm' if physical else 'pixels'}",
                "doi:10.1038/s41592-023-02151-z",
            ),
        }

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Segmentation:
        try:
            labels = tuple(_label(entry) for entry in settings["labels"])
            task = cls(labels, settings["loss"], float(settings["tolerance"]))
        except (KeyError, TypeError, ValueError) as error:
            raise PlanError(
                f"impossible settings of a segmentation ({error})", "task", "Plan anew, or mend it"
            ) from error
        if task.loss_name not in ("dice+ce", "ce"):
            raise PlanError(f"there is no loss {task.loss_name!r}", "task.loss", "Choose dice+ce or ce")
        if not task.tolerance > 0:
            raise PlanError(f"a tolerance of {task.tolerance}", "task.tolerance", "Give more than 0")
        if not labels or len({label.value for label in labels}) < len(labels) or 0 in {label.value for label in labels}:
            raise PlanError("labels must be different and not 0", "task.labels", "Give each structure its own value")
        return task

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "labels": [_plain(label) for label in self.classes],
            "loss": self.loss_name,
            "tolerance": self.tolerance,
        }

    @property
    def heads(self) -> Mapping[str, Head]:
        return {"mask": Dense(len(self.classes) + 1)}

    @property
    def labels(self) -> tuple[Label, ...]:
        return self.classes

    @property
    def merge(self) -> Literal["gaussian", "mean"]:
        return "gaussian"

    @property
    def mirrored(self) -> tuple[int, ...] | None:
        order = crossed([label.name for label in self.classes])
        return None if order is None else (0, *(place + 1 for place in order))

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        return {
            "network.name": Decision("unet", "an output for every voxel", "arXiv:1505.04597"),
            "training.selection": Decision("dice", "mean over labels of the validation cases"),
            "evaluation.primary": Decision(
                "dice", "overlap is what the task asks for", "doi:10.1038/s41592-023-02151-z"
            ),
        }

    def target(self, case: Case) -> Target:
        """Label values to channel numbers, background 0.

        Raises GeometryError where mask and image lie on different grids, DatasetError for a value without a label.
        """
        mask, image = case.references["mask"], stated_image(case)
        if not mask.geometry.equals(image.geometry):
            raise GeometryError(
                f"mask ({mask.geometry!r}) and image ({image.geometry!r}) lie on different grids",
                case.id,
                "Resample one onto the other, or leave the case out",
            )
        values = _label_map(mask.data, case.id)
        unknown = sorted(set(np.unique(values).tolist()) - {0, *(label.value for label in self.classes)})
        if unknown:
            raise DatasetError(
                f"the mask holds {unknown}, which have no label", case.id, "Declare them with --labels, or correct it"
            )
        channels = np.zeros(values.shape, dtype=np.uint8)
        for channel, label in enumerate(self.classes, start=1):
            channels[values == label.value] = channel
        return Target(self.heads["mask"], channels)

    def loss(self, outputs: Outputs, target: Tensor) -> Tensor:
        """Cross-entropy, and with it the soft Dice of each label over the batch (Milletari, arXiv:1606.04797)."""
        logits = outputs["mask"].float()
        entropy = torch.nn.functional.cross_entropy(logits, target.long())
        if self.loss_name == "ce":
            return entropy
        probabilities = logits.softmax(dim=1)[:, 1:]
        truth = torch.stack([target == channel for channel in range(1, logits.shape[1])], dim=1)
        axes = (0, *range(2, logits.ndim))
        both = (probabilities * truth).sum(dim=axes)
        size = probabilities.sum(dim=axes) + truth.sum(dim=axes)
        return entropy + 1 - ((2 * both + SMOOTH) / (size + SMOOTH)).mean()

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        predicted = outputs["mask"].argmax(dim=1)
        axes = tuple(range(1, target.ndim))
        counts = (
            [((predicted == c) & (target == c)).sum(dim=axes) for c in range(1, len(self.classes) + 1)],
            [(predicted == c).sum(dim=axes) + (target == c).sum(dim=axes) for c in range(1, len(self.classes) + 1)],
        )
        return {"both": torch.stack(counts[0], dim=1), "size": torch.stack(counts[1], dim=1)}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """Mean Dice over cases and labels; a label that neither side has is left out."""
        there = collected["size"] > 0
        dice = 2 * collected["both"] / collected["size"].clamp(min=1)
        return float(dice[there].mean()) if there.any() else float("nan")

    def average(self, outputs: Sequence[Mapping[str, Array]]) -> Mapping[str, Array]:
        return {"mask": log_mean([one["mask"] for one in outputs])}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"mask": softmax(arrays["mask"])}

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """The label with the largest logit; what no slab covers (cut away before the network) is background."""
        values = [0, *(label.value for label in self.classes)]
        mask = np.zeros(geometry.shape, dtype=np.min_scalar_type(max(values)))
        for region, arrays in slabs:
            mask[region] = label_map(arrays["mask"], values)
        return Prediction(geometry, data=mask, labels=self.classes)

    def tuned(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> tuple[Task, dict[str, Decision]]:
        return self, {}

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case and label, on the reference's own grid."""
        rows = [row for pair in zip(predictions, cases, strict=True) for row in self._score(*pair)]
        return pd.DataFrame(rows)

    def _score(self, prediction: Prediction, case: Case) -> list[dict[str, Any]]:
        reference = case.references["mask"]
        if not prediction.geometry.equals(reference.geometry):
            raise GeometryError(
                "prediction and reference lie on different grids", case.id, "Predict on the image that was labelled"
            )
        self._refuse_other_names(reference.labels, case.id)
        predicted, truth = np.asarray(prediction.data), _label_map(reference.data, case.id)
        spacing = reference.geometry.spacing
        counted = overlaps(predicted, truth, [label.value for label in self.classes])
        # A distance that counts pixels must not be read as mm: the column's name says which it is.
        pixels, voxels = ("_pixels", "_voxels") if spacing is None else ("", "")
        rows = []
        for label in self.classes:
            overlap = counted[label.value]
            surface = surface_distance(predicted == label.value, truth == label.value, spacing)
            rows.append(
                {
                    "case": case.id,
                    "patient": case.patient,
                    "label": label.name,
                    "dice": overlap.dice,
                    "iou": overlap.iou,
                    "sensitivity": overlap.sensitivity,
                    "precision": overlap.precision,
                    f"hd95{pixels}": surface.hd95,
                    f"assd{pixels}": surface.assd,
                    f"nsd{pixels}": surface.nsd(self.tolerance),
                    f"volume_error{voxels}": overlap.volume_error(spacing),
                    f"false_positive_volume{voxels}": overlap.false_positive_volume(spacing),
                    "detected": overlap.detected,
                    "voxels_both": overlap.both,
                    "voxels_predicted": overlap.predicted,
                    "voxels_reference": overlap.reference,
                }
            )
        return rows

    def _refuse_other_names(self, declared: Sequence[Label], where: str) -> None:
        """DatasetError where a value means something else than in training; a bare number is no name."""
        ours = {label.value: label.name for label in self.classes}
        for label in declared:
            name = ours.get(label.value, label.name)
            if name.casefold() != label.name.casefold() and str(label.value) not in (name, label.name):
                raise DatasetError(
                    f"the value {label.value} is {label.name!r} in the reference and {name!r} in the model",
                    where,
                    "Renumber the masks, or say with --labels what their values mean",
                )

    def summary(self, table: Table, *, seed: int) -> list[Row]:
        """Each metric over all labels (mean of their means), then by label; patients are resampled."""
        metrics = [name for name in metric_columns(table) if not name.startswith("voxels_")]
        return mean_rows(table, {metric: self._unit(metric) for metric in metrics}, seed=seed) + pooled_rows(
            table, seed=seed
        )

    @staticmethod
    def _unit(metric: str) -> str:
        if metric.endswith(("_pixels", "_voxels")):
            return metric.rsplit("_", 1)[1]
        if metric in ("hd95", "assd"):
            return "mm"
        return "ml" if metric in ("volume_error", "false_positive_volume") else ""

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        reference = case.references["mask"].data[0] if "mask" in case.references else None
        return [
            figures.contours(stated_image(case), reference, np.asarray(prediction.data), self.classes, title=case.id)
        ]

    def overview(self, table: Table) -> list[Figure]:
        groups = {one.name: table.loc[table["label"] == one.name, "dice"].to_numpy(float) for one in self.classes}
        return [figures.histogram(groups, "Dice of the cases", axis="Dice", caption="One count a case and label.")]

    def rank(self, table: Table) -> list[str]:
        return (
            table.groupby("case")["dice"].mean().fillna(1.0).sort_values(ascending=False, kind="stable").index.tolist()
        )

    def outputs(self, prediction: Prediction) -> Mapping[str, Any]:
        """The volume of each structure, in ml where the size of a voxel is known."""
        mask, spacing = np.asarray(prediction.data), prediction.geometry.spacing
        unit = {"ml": "ml", "mm²": "mm2"}.get(volume_unit(spacing), "voxels")
        voxel = 1.0 if spacing is None else float(np.prod(spacing)) / (1000.0 if len(spacing) == 3 else 1.0)
        return {
            f"{label.name}_{unit}": round(float(np.count_nonzero(mask == label.value)) * voxel, 6)
            for label in self.classes
        }

    def saliency(self, outputs: Outputs) -> Tensor:
        """(batch,) mean logit of what was marked as any structure."""
        logits = outputs["mask"]
        marked = (logits.argmax(dim=1, keepdim=True) > 0).to(logits.dtype)
        best = logits[:, 1:].amax(dim=1, keepdim=True)
        return (best * marked).flatten(1).sum(dim=1) / marked.flatten(1).sum(dim=1).clamp(min=1)

    def results(self, prediction: Prediction) -> list[Finding]:
        volumes = self.outputs(prediction)
        return [
            Finding(label.name, value=value, unit=column.rsplit("_", 1)[-1], code=label.code)
            for label, (column, value) in zip(self.classes, volumes.items(), strict=True)
        ]


def _label_map(data: Array, where: str) -> Array:
    """(1, *spatial) as whole numbers (*spatial); a float file may hold them too."""
    if len(data) != 1:
        raise DatasetError(f"a mask with {len(data)} channels", where, "Give one label map a case")
    values = data[0]
    if values.dtype.kind == "f":
        whole = np.rint(values)
        if not np.array_equal(whole, values):
            raise DatasetError("a mask with values that are not whole numbers", where, "Give a label map")
        values = whole.astype(np.int64)
    return values.astype(np.uint8) if values.dtype.kind == "b" else values


def _plain(label: Label) -> dict[str, Any]:
    kept = {key: value for key, value in asdict(label).items() if value is not None}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}


def _label(entry: Mapping[str, Any]) -> Label:
    colour = tuple(int(part) for part in entry["colour"]) if entry.get("colour") else None
    code = Code(**entry["code"]) if entry.get("code") else None
    return Label(int(entry["value"]), str(entry["name"]), colour, code)  # type: ignore[arg-type]
