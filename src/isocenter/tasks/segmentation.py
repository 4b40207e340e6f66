"""Segmentation: one label for every voxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from isocenter.errors import DatasetError, GeometryError, PlanError
from isocenter.evaluation import Table, volume_unit
from isocenter.files import Spool
from isocenter.lazy import pandas as pd
from isocenter.lazy import torch
from isocenter.report import Figure, figures
from isocenter.tasks.exclusive import Tidying, log_mean, softmax, tidied
from isocenter.tasks.label_maps import label_from, label_values, plain, refuse_other_names
from isocenter.tasks.losses import label_loss
from isocenter.tasks.segmentation_plan import check_settings, settings_for
from isocenter.tasks.segmentation_scores import METRICS, case_rows, summary_rows, voxel_in_unit
from isocenter.tasks.segmentation_tidying import choose
from isocenter.tasks.sides import crossed
from isocenter.tasks.task import Outputs, Task, stated_image
from isocenter.transforms import winners
from isocenter.values import (
    Array,
    Case,
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
    blocks,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Segmentation:
    """Every voxel gets one of the labels, or background (0).

    classes:        the labels, without the background
    loss_name:      of `losses.LOSSES`
    tolerance:      mm within which a surface counts as found (pixels where no size is known), for all or by label name
    weights:        by label name, and "background": how much a voxel counts in the loss; 1 where none is given
    postprocessing: by label name; None until validation cases have decided
    """

    classes: tuple[Label, ...]
    loss_name: str = "dice+ce"
    tolerance: Mapping[str, float] | float = 2.0
    weights: Mapping[str, float] | None = None
    postprocessing: Mapping[str, Tidying] | None = None

    name: ClassVar[str] = "segmentation"
    needs: ClassVar[frozenset[str]] = frozenset({"mask"})
    metrics: ClassVar[frozenset[str]] = METRICS
    selects_by: ClassVar[str] = "dice"

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        return settings_for(dataset, fingerprint)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Segmentation:
        known = ("labels", "loss", "tolerance", "weights", "postprocessing")
        if unknown := sorted(set(settings) - set(known)):
            raise PlanError("there is no such setting", f"task.{unknown[0]}", f"Choose one of {', '.join(known)}")
        try:
            labels = tuple(label_from(entry) for entry in settings["labels"])
            rules = settings.get("postprocessing")
            task = cls(
                labels,
                settings["loss"],
                _each(settings["tolerance"]),
                None if settings.get("weights") is None else {k: float(v) for k, v in settings["weights"].items()},
                None if rules is None else {name: _tidying(rule) for name, rule in rules.items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PlanError(
                f"impossible settings of a segmentation ({error})", "task", "Plan anew, or mend it"
            ) from error
        tolerance = task.tolerance if isinstance(task.tolerance, Mapping) else dict.fromkeys(task.names, task.tolerance)
        check_settings(labels, task.loss_name, tolerance, task.weights or {}, task.postprocessing or {})
        return task

    @property
    def settings(self) -> dict[str, Any]:
        rules = self.postprocessing
        return {
            "labels": [plain(label) for label in self.classes],
            "loss": self.loss_name,
            "tolerance": dict(self.tolerance) if isinstance(self.tolerance, Mapping) else self.tolerance,
            "weights": None if self.weights is None else dict(self.weights),
            "postprocessing": None if rules is None else {name: asdict(rule) for name, rule in rules.items()},
        }

    @property
    def target_settings(self) -> Mapping[str, Any]:
        return {"labels": [label.value for label in self.classes]}

    @property
    def heads(self) -> Mapping[str, Head]:
        return {"mask": Dense(len(self.classes) + 1)}

    @property
    def labels(self) -> tuple[Label, ...]:
        return self.classes

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.classes)

    @property
    def merge(self) -> Literal["gaussian", "mean", "nnunet"]:
        return "gaussian"

    @property
    def mirrored(self) -> tuple[int, ...] | None:
        order = crossed(self.names)
        return None if order is None else (0, *(place + 1 for place in order))

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        return {
            "network.name": Decision("unet", "it gives an output for every voxel", "arXiv:1505.04597"),
            "training.selection": Decision("dice", "it is the mean over labels of the validation cases"),
            "evaluation.primary": Decision(
                "dice", "overlap is what the task asks for", "doi:10.1038/s41592-023-02151-z"
            ),
        }

    def under(self, sampling: str) -> dict[str, Decision]:
        return {}

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
        values = label_values(mask.data, case.id)
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
        logits, weights = outputs["mask"].float(), None
        if self.weights is not None:
            weights = logits.new_tensor([self.weights.get(name, 1.0) for name in ("background", *self.names)])
        return label_loss(self.loss_name, logits, target.long(), weights)

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

    def marked(self, outputs: Array) -> Array:
        """(channels, ...) outputs of a part of the grid to label values: that of the largest."""
        values = [0, *(label.value for label in self.classes)]
        return np.array(values, dtype=np.min_scalar_type(max(values)))[winners(outputs)]

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """The label with the largest logit, tidied; what no slab covers (cut away before the network) is background."""
        mask = Spool(geometry.shape, np.min_scalar_type(max(label.value for label in self.classes)))
        for region, arrays in slabs:
            mask[region] = self.marked(arrays["mask"])
        given = self.postprocessing or {}
        rules = {label.value: given[label.name] for label in self.classes if label.name in given}
        if all(rule == Tidying() for rule in rules.values()):
            return Prediction(geometry, data=mask.data, labels=self.classes)
        # A connected piece can reach from one end to the other: it takes the whole map, of a byte a voxel.
        whole = tidied(np.asarray(mask.data), rules, geometry.voxel_volume or 1.0)
        return Prediction(geometry, data=whole, labels=self.classes)

    def tuned(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> tuple[Task, dict[str, Decision]]:
        """With the post-processing that helps these cases; one that is set already stays."""
        if self.postprocessing is not None:
            return self, {}
        rules, decision = choose(predictions, cases, self.classes)
        return replace(self, postprocessing=rules), {"task.postprocessing": decision}

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
        refuse_other_names(self.classes, reference.labels, case.id)
        predicted, truth = np.asarray(prediction.data), label_values(reference.data, case.id)
        given = self.tolerance
        tolerances = given if isinstance(given, Mapping) else dict.fromkeys(self.names, given)
        return [
            {"case": case.id, "patient": case.patient, **row}
            for row in case_rows(predicted, truth, self.classes, reference.geometry, tolerances)
        ]

    def summary(self, table: Table, *, seed: int) -> list[Row]:
        """Each metric over all labels (mean of their means), then by label; patients are resampled."""
        return summary_rows(table, self.tolerance, seed=seed)

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
        voxel, found = voxel_in_unit(prediction.geometry), np.zeros(max(one.value for one in self.classes) + 1)
        assert prediction.data is not None  # noqa: S101 - as decoded
        for _, part in blocks(prediction.data):
            found += np.bincount(np.ravel(part), minlength=len(found))
        unit = volume_unit(prediction.geometry).replace("mm²", "mm2")
        return {f"{label.name}_{unit}": round(float(found[label.value]) * voxel, 6) for label in self.classes}

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


def _each(tolerance: Any) -> Mapping[str, float] | float:
    if isinstance(tolerance, Mapping):
        return {str(name): float(value) for name, value in tolerance.items()}
    return float(tolerance)


def _tidying(rule: Mapping[str, Any]) -> Tidying:
    made = Tidying(**rule)
    if not isinstance(made.largest, bool) or not isinstance(made.holes, bool) or not float(made.smallest) >= 0:
        raise ValueError(f"{dict(rule)} is no post-processing")
    return replace(made, smallest=float(made.smallest))
