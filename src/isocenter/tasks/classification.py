"""Classification: one of several classes that exclude each other, for the whole image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd

from isocenter.errors import DatasetError, PlanError, counted
from isocenter.evaluation import (
    Confusion,
    Table,
    auroc,
    average_precision,
    bootstrap,
    bootstrap_statistic,
    brier,
    calibration_error,
    one_against_rest,
    proportion,
)
from isocenter.lazy import torch
from isocenter.report import Figure, figures
from isocenter.tasks.exclusive import log_mean, softmax
from isocenter.tasks.sides import crossed
from isocenter.tasks.task import Outputs, Task, stated_image
from isocenter.values import (
    Array,
    Case,
    Dataset,
    Decision,
    Estimate,
    Finding,
    Fingerprint,
    Floats,
    Geometry,
    Head,
    Label,
    Prediction,
    Row,
    Slabs,
    Target,
    Vector,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Classification:
    """One of several classes that exclude each other.

    classes:   in the order of every probability column
    smoothing: share of each target that is spread over all classes
    """

    classes: tuple[str, ...]
    smoothing: float = 0.0

    name: ClassVar[str] = "classification"
    needs: ClassVar[frozenset[str]] = frozenset({"class"})
    metrics: ClassVar[frozenset[str]] = frozenset(
        {"auroc", "accuracy", "average_precision", "balanced_accuracy", "mcc", "brier", "ece"}
    )
    selects_by: ClassVar[str] = "auroc"

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        counts = fingerprint.counts()
        declared = [label.name for label in dataset.classes.get("class", ())] or list(counts)
        if sum(count > 0 for count in counts.values()) < 2:
            raise DatasetError(
                f"the training cases have {counted(len(counts), 'class', 'classes')} ({', '.join(counts) or 'none'})",
                str(dataset.root or dataset.name),
                "Give cases of at least two classes",
            )
        shares = ", ".join(f"{name} {counts.get(name, 0)}" for name in declared)
        return {
            "classes": Decision(declared, f"of {sum(counts.values())} training cases: {shares}"),
            "smoothing": Decision(0.0, "probabilities are to be believed as they are"),
        }

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Classification:
        try:
            task = cls(tuple(str(name) for name in settings["classes"]), float(settings["smoothing"]))
        except (KeyError, TypeError, ValueError) as error:
            raise PlanError(
                f"impossible settings of a classification ({error})", "task", "Plan anew, or mend it"
            ) from error
        if len(set(task.classes)) < max(2, len(task.classes)):
            raise PlanError("at least two different classes are needed", "task.classes", "Name each class once")
        if not 0 <= task.smoothing < 1:
            raise PlanError(f"smoothing {task.smoothing} is not in [0, 1)", "task.smoothing", "Give a share")
        return task

    @property
    def settings(self) -> dict[str, Any]:
        return {"classes": list(self.classes), "smoothing": self.smoothing}

    @property
    def heads(self) -> Mapping[str, Head]:
        return {"class": Vector(len(self.classes))}

    @property
    def labels(self) -> tuple[Label, ...]:
        return tuple(Label(value, name) for value, name in enumerate(self.classes))

    @property
    def merge(self) -> Literal["gaussian", "mean"]:
        return "mean"

    @property
    def mirrored(self) -> tuple[int, ...] | None:
        return crossed(self.classes)

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        return {
            "network.name": Decision("resnet", "one answer for the whole image", "arXiv:1512.03385"),
            "training.selection": Decision("auroc", "ranks cases without a threshold, and shows more than accuracy"),
            "evaluation.primary": Decision(
                "auroc", "no operating point was asked for", "doi:10.1038/s41592-023-02151-z"
            ),
        }

    def target(self, case: Case) -> Target:
        """Index of the case's class."""
        return Target(self.heads["class"], np.asarray(self._index(case)))

    def loss(self, outputs: Outputs, target: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(
            outputs["class"].float(), target.long(), label_smoothing=self.smoothing
        )

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        return {"probabilities": outputs["class"].float().softmax(dim=1), "target": target.long()}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """AUROC over the validation cases; where one class is missing among them, minus the log loss."""
        probabilities, target = collected["probabilities"].cpu().numpy(), collected["target"].cpu().numpy()
        area = float(one_against_rest(auroc, probabilities, target))
        if np.isfinite(area):
            return area
        return float(np.log(probabilities[np.arange(len(target)), target].clip(1e-7)).mean())

    def average(self, outputs: Sequence[Mapping[str, Array]]) -> Mapping[str, Array]:
        return {"class": log_mean([one["class"] for one in outputs])}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"class": softmax(np.asarray(arrays["class"], dtype=np.float64))}

    def tuned(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> tuple[Task, dict[str, Decision]]:
        return self, {}

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """(classes,) logits of one case to probabilities."""
        [(_, arrays)] = slabs  # a vector head is one slab
        probabilities = self.probabilities(arrays)["class"].tolist()
        return Prediction(geometry, probabilities=dict(zip(self.classes, probabilities, strict=True)))

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case: reference, predicted, the probability of each class, brier."""
        rows = []
        for prediction, case in zip(predictions, cases, strict=True):
            index = self._index(case)
            probabilities = [self._probabilities(prediction)[name] for name in self.classes]
            rows.append(
                {
                    "case": case.id,
                    "patient": case.patient,
                    "label": "all",
                    "reference": self.classes[index],
                    "predicted": self.classes[int(np.argmax(probabilities))],
                    **{f"probability_{name}": p for name, p in zip(self.classes, probabilities, strict=True)},
                    "brier": float(brier([probabilities], [index])),
                }
            )
        return pd.DataFrame(rows)

    def summary(self, table: Table, *, seed: int) -> list[Row]:
        """AUROC and the like with patients resampled within the classes; then one class against the rest."""
        probabilities, reference = self._arrays(table)
        patients = table["patient"].to_numpy(str)
        predicted = probabilities.argmax(axis=1)
        size = len(self.classes)

        def interval(statistic: Callable[[Floats], Floats], exact: bool = True) -> Estimate:
            return bootstrap_statistic(statistic, patients, strata=reference, seed=seed, exact=exact)

        def confused(weights: Floats) -> Confusion:
            return Confusion.of(predicted, reference, size, weights)

        rows = [
            Row("auroc", "all", interval(partial(one_against_rest, auroc, probabilities, reference))),
            Row("accuracy", "all", proportion(predicted == reference, patients, seed=seed)),
            Row(
                "average_precision",
                "all",
                interval(partial(one_against_rest, average_precision, probabilities, reference)),
            ),
            Row("balanced_accuracy", "all", interval(lambda weights: confused(weights).balanced_accuracy)),
            Row("mcc", "all", interval(lambda weights: confused(weights).mcc, exact=False)),
            Row("brier", "all", bootstrap(table["brier"], patients, seed=seed)),
            Row("ece", "all", self._calibration(probabilities, reference, patients, seed)),
        ]
        for index, name in enumerate(self.classes):
            truth, said = reference == index, predicted == index
            for metric, figure in (("auroc", auroc), ("average_precision", average_precision)):
                rows.append(Row(metric, name, interval(partial(figure, probabilities[:, index], truth))))
            if truth.any():
                rows.append(Row("sensitivity", name, proportion(said[truth], patients[truth], seed=seed)))
            if not truth.all():
                rows.append(Row("specificity", name, proportion(~said[~truth], patients[~truth], seed=seed)))
        return rows

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        probabilities = self._probabilities(prediction)
        said = ", ".join(f"{name} {p:.2f}" for name, p in probabilities.items())
        reference = case.references.get("class")
        caption = f"{said}; reference {reference}" if reference else said
        return [figures.contours(stated_image(case), None, None, (), title=case.id, caption=caption)]

    def overview(self, table: Table) -> list[Figure]:
        probabilities, reference = self._arrays(table)
        shown = range(len(self.classes)) if len(self.classes) > 2 else (1,)
        curves = {self.classes[n]: (reference == n, probabilities[:, n]) for n in shown}
        top = probabilities.argmax(axis=1)
        happened = (reference == 1) if len(self.classes) == 2 else (top == reference)
        chance = probabilities[:, 1] if len(self.classes) == 2 else probabilities.max(axis=1)
        counts = Confusion.of(top, reference, len(self.classes)).counts
        return [
            figures.roc(curves, "Receiver operating characteristic"),
            figures.reliability(happened, chance, "Can the probabilities be believed?"),
            figures.confusion(counts, self.classes, "What was taken for what"),
        ]

    def rank(self, table: Table) -> list[str]:
        return table.sort_values("brier", kind="stable")["case"].tolist()

    def outputs(self, prediction: Prediction) -> Mapping[str, Any]:
        probabilities = self._probabilities(prediction)
        predicted = max(probabilities, key=lambda name: probabilities[name])
        return {"predicted": predicted, **{f"probability_{name}": p for name, p in probabilities.items()}}

    def saliency(self, outputs: Outputs) -> Tensor:
        """(batch,) what a heat map explains: the winning class's logit."""
        return outputs["class"].amax(dim=-1)

    def results(self, prediction: Prediction) -> list[Finding]:
        return [Finding(name, probability=p) for name, p in self._probabilities(prediction).items()]

    def _index(self, case: Case) -> int:
        """The number of the case's class; DatasetError for one that was not trained."""
        name = case.references["class"]
        if name not in self.classes:
            raise DatasetError(
                f"class {name!r} is none of {', '.join(self.classes)}", case.id, "Declare it, or mend it"
            )
        return self.classes.index(name)

    def _probabilities(self, prediction: Prediction) -> Mapping[str, float]:
        assert prediction.probabilities is not None  # noqa: S101 - `decode` always gives them
        return prediction.probabilities

    def _arrays(self, table: Table) -> tuple[Floats, np.ndarray]:
        """(cases, classes) probabilities and (cases,) index of the reference."""
        probabilities = table[[f"probability_{name}" for name in self.classes]].to_numpy(float)
        return probabilities, np.array([self.classes.index(name) for name in table["reference"]])

    @staticmethod
    def _calibration(probabilities: Floats, reference: np.ndarray, patients: np.ndarray, seed: int) -> Estimate:
        """Of the second of two classes; of several, of the one that was said."""
        if probabilities.shape[1] == 2:
            return calibration_error(probabilities[:, 1], reference == 1, patients, seed=seed)
        right = probabilities.argmax(axis=1) == reference
        return calibration_error(probabilities.max(axis=1), right, patients, seed=seed)
