"""Classification: one of several classes that exclude each other, for the whole image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from isocenter.errors import DatasetError, PlanError
from isocenter.evaluation import Confusion, Table, auroc, brier, one_against_rest, roc_band
from isocenter.lazy import pandas as pd
from isocenter.lazy import torch
from isocenter.report import Figure, figures
from isocenter.tasks.classification_plan import check_settings, prior_shift, sampling, settings_for, thresholds
from isocenter.tasks.classification_scores import METRICS, Answers, summary_rows
from isocenter.tasks.exclusive import log_mean, softmax
from isocenter.tasks.sides import crossed
from isocenter.tasks.task import Outputs, Task, stated_image
from isocenter.values import (
    Array,
    Case,
    Dataset,
    Decision,
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


# More bands than these would hide one another.
MOST_BANDS = 4
# The settings that hold one number a class.
BY_CLASS = ("counts", "weights", "prior_shift", "thresholds", "prevalence")


@dataclass(frozen=True)
class Classification:
    """One of several classes that exclude each other.

    classes:         in the order of every probability column; of two the second is the positive one
    smoothing:       share of each target that is spread over all classes
    counts:          {class: training cases}
    weights:         {class: how much a case counts in the loss}; 1 where none is given
    prior_shift:     {class: added to its logit}, so that probabilities refer to the shares of the training cases
    operating_point: the rule by which validation cases decide from which probability on a class is called
    thresholds:      {class: that probability}; None until they have decided
    prevalence:      {class: share of all people} for predictive values; None: of the cases that are scored
    """

    classes: tuple[str, ...]
    smoothing: float = 0.0
    counts: Mapping[str, int] | None = None
    weights: Mapping[str, float] | None = None
    prior_shift: Mapping[str, float] | None = None
    operating_point: str = "youden"
    thresholds: Mapping[str, float] | None = None
    prevalence: Mapping[str, float] | None = None

    name: ClassVar[str] = "classification"
    needs: ClassVar[frozenset[str]] = frozenset({"class"})
    metrics: ClassVar[frozenset[str]] = METRICS
    selects_by: ClassVar[str] = "auroc"

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        return settings_for(dataset, fingerprint)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Classification:
        known = ("classes", "smoothing", "operating_point", *BY_CLASS)
        if unknown := sorted(set(settings) - set(known)):
            raise PlanError("there is no such setting", f"task.{unknown[0]}", f"Choose one of {', '.join(known)}")
        try:
            classes = tuple(str(name) for name in settings["classes"])
            rule = settings.get("operating_point", "youden")
            by_class = {name: _by_class(name, settings.get(name), classes) for name in BY_CLASS}
            task = cls(classes, float(settings["smoothing"]), operating_point=rule, **by_class)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PlanError(
                f"impossible settings of a classification ({error})", "task", "Plan anew, or mend it"
            ) from error
        check_settings(classes, task.smoothing, rule, by_class)
        return task

    @property
    def settings(self) -> dict[str, Any]:
        by_class = {name: getattr(self, name) for name in BY_CLASS}
        return {
            "classes": list(self.classes),
            "smoothing": self.smoothing,
            "operating_point": self.operating_point,
            **{name: None if given is None else dict(given) for name, given in by_class.items()},
        }

    @property
    def target_settings(self) -> Mapping[str, Any]:
        return {"classes": list(self.classes)}

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
            "network.name": Decision("resnet", "it gives one answer for the whole image", "arXiv:1512.03385"),
            "training.sampling": sampling(fingerprint),
            "training.selection": Decision("auroc", "it ranks cases without a threshold, and shows more than accuracy"),
            "evaluation.primary": Decision(
                "auroc", "no operating point was asked for", "doi:10.1038/s41592-023-02151-z"
            ),
        }

    def under(self, drawn: str) -> dict[str, Decision]:
        return {"task.prior_shift": prior_shift(self.counts or dict.fromkeys(self.classes, 1), self.weights, drawn)}

    def target(self, case: Case) -> Target:
        """Index of the case's class."""
        return Target(self.heads["class"], np.asarray(self._index(case)))

    def loss(self, outputs: Outputs, target: Tensor) -> Tensor:
        logits, weights = outputs["class"].float(), None
        if self.weights is not None:
            weights = logits.new_tensor([self.weights.get(name, 1.0) for name in self.classes])
        return torch.nn.functional.cross_entropy(logits, target.long(), weight=weights, label_smoothing=self.smoothing)

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        logits = outputs["class"].float()
        return {"probabilities": (logits + logits.new_tensor(self._shift)).softmax(dim=1), "target": target.long()}

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
        logits = np.asarray(arrays["class"], dtype=np.float64)
        return {"class": softmax(logits + np.reshape(self._shift, (-1, *[1] * (logits.ndim - 1))))}

    def tuned(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> tuple[Task, dict[str, Decision]]:
        """With the thresholds that the operating point's rule finds; those that are set already stay."""
        if self.thresholds is not None or not cases:
            return self, {}
        probabilities, reference = self._arrays(self.score(predictions, cases))
        found, decision = thresholds(self.operating_point, self.classes, probabilities, reference)
        return replace(self, thresholds=found), {"task.thresholds": decision}

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
        return summary_rows(self._answers(table), seed=seed)

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
        counts = Confusion.of(top, reference, len(self.classes)).counts.astype(int)
        patients = table["patient"].to_numpy(str)
        found = {name: roc_band(scores, truth, patients, seed=0) for name, (truth, scores) in curves.items()}
        bands = {name: band for name, band in found.items() if band is not None} if len(curves) < MOST_BANDS else {}
        return [
            figures.roc(curves, "Receiver operating characteristic", bands=bands),
            figures.precision_recall(curves, "Precision and recall"),
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

    def _answers(self, table: Table) -> Answers:
        probabilities, reference = self._arrays(table)
        return Answers(
            self.classes,
            probabilities,
            reference,
            table["patient"].to_numpy(str),
            table["brier"].to_numpy(float),
            self.operating_point,
            self.thresholds or {},
            self.prevalence or {},
        )

    @property
    def _shift(self) -> list[float]:
        return [(self.prior_shift or {}).get(name, 0.0) for name in self.classes]


def _by_class(setting: str, given: Any, classes: tuple[str, ...]) -> dict[str, Any] | None:
    if given is None:
        return None
    if setting == "prevalence" and not isinstance(given, Mapping) and len(classes) == 2:
        return {classes[0]: 1 - float(given), classes[1]: float(given)}  # of the positive class
    return {str(name): int(value) if setting == "counts" else float(value) for name, value in given.items()}
