"""Classification: one of several classes that exclude each other, with or without an order, for the whole image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from isocenter.errors import DatasetError
from isocenter.evaluation import THRESHOLD, Seed, Table, folds_of
from isocenter.lazy import pandas as pd
from isocenter.lazy import torch
from isocenter.report import Figure, figures
from isocenter.tasks.answers import Decoding, Guess, Outputs, Scoring, Teaching, Traits, stated_image
from isocenter.tasks.classification.losses import check_drawn, check_loss, class_loss
from isocenter.tasks.classification.ordinal import (
    BETWEEN,
    NONE,
    Calling,
    check_order,
    costs_of,
    expected_grade,
    log_probabilities,
    ordinal_loss,
    outputs_of,
)
from isocenter.tasks.classification.plan import (
    BY_CLASS,
    SENTENCES,
    by_class,
    check_settings,
    epochs,
    judged,
    prior_shift,
    sampling,
    settings_for,
    thresholds,
)
from isocenter.tasks.classification.scores import (
    NAMES,
    Answers,
    case_scores,
    levels_of,
    metrics_of,
    overview,
    selected,
    summary_rows,
)
from isocenter.tasks.shared import Shares, crossed, log_mean, mean_of, reading, softmax, unkept_rule
from isocenter.tasks.task import Task
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
    order:           how a network predicts classes that are grades (`ordinal.ORDERS`); "none": they have no order
    costs:           (classes, classes) of calling a reference (row) so (column); None: all mistakes cost alike, of
                     grades one unit for each that they miss by
    loss_name:       of `losses.LOSSES`

    The class that is called is the most probable one; with costs the one that costs least on average if the
    probabilities are right; of grades that of the least squared distance, which is what the quadratic kappa counts.
    """

    classes: tuple[str, ...]
    smoothing: float = 0.0
    counts: Mapping[str, int] | None = None
    weights: Mapping[str, float] | None = None
    prior_shift: Mapping[str, float] | None = None
    operating_point: str = "youden"
    thresholds: Mapping[str, float] | None = None
    prevalence: Mapping[str, float] | None = None
    order: str = NONE
    costs: tuple[tuple[float, ...], ...] | None = None
    loss_name: str = "ce"

    name: ClassVar[str] = "classification"
    needs: ClassVar[frozenset[str]] = frozenset({"class"})
    traits: ClassVar[Traits] = Traits(
        tunes=("thresholds",),
        registers={
            "operating_point": "operating point",
            "prevalence": "prevalence",
            "costs": "costs of mistakes",
        },
        case_metric="brier",
        # Not the losses whose probabilities are not to be believed: a metric of ranks would not notice.
        search_values={"loss": ("ce", "class_balanced", "logit_adjusted")},
        unkept=unkept_rule,
        sentences=SENTENCES,
        metric_names=NAMES,
        errors=frozenset({"brier", "ece", "mae", "rps", "expected_cost"}),
        label_word="class",
    )

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Classes, loss, operating point and the like for these training cases; DatasetError where all are alike."""
        return settings_for(dataset, fingerprint)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Classification:
        """A classification with these settings; PlanError names the one that cannot be."""
        known = ("classes", "smoothing", "operating_point", "order", "costs", "loss", *BY_CLASS)
        with reading(settings, known, "a classification"):
            classes = tuple(str(name) for name in settings["classes"])
            rule, order = settings.get("operating_point", "youden"), settings.get("order", NONE)
            each = {name: by_class(name, settings.get(name), classes) for name in BY_CLASS}
            costs = costs_of(settings.get("costs"), len(classes))
            loss, smoothing = str(settings.get("loss", "ce")), float(settings["smoothing"])
            given = {"operating_point": rule, "order": order, "costs": costs, "loss_name": loss, **each}
            task = cls(classes, smoothing, **given)
        check_settings(classes, task.smoothing, rule, each)
        check_order(order, classes, task.smoothing)
        goes_with = {"weighted": bool(task.weights), "counted": task.counts is not None, "between": order in BETWEEN}
        check_loss(loss, smoothing=task.smoothing, **goes_with)
        return task

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values from which `of` makes an equal classification."""
        each = {name: getattr(self, name) for name in BY_CLASS}
        return {
            "classes": list(self.classes),
            "loss": self.loss_name,
            "smoothing": self.smoothing,
            "operating_point": self.operating_point,
            **{name: None if given is None else dict(given) for name, given in each.items()},
            "order": self.order,
            "costs": None if self.costs is None else [list(row) for row in self.costs],
        }

    @property
    def heads(self) -> Mapping[str, Head]:
        """One vector: an output a class, or one between each two grades."""
        return {"class": Vector(outputs_of(self.order, len(self.classes)))}

    @property
    def labels(self) -> tuple[Label, ...]:
        """The classes, numbered from 0."""
        return tuple(Label(value, name) for value, name in enumerate(self.classes))

    @property
    def mirrored(self) -> tuple[int, ...] | None:
        """The class that each becomes in a mirrored image; None where a side has no counterpart among the names."""
        order = crossed(self.classes)
        if self.order not in BETWEEN or order is None:
            return order
        # Between grades no output belongs to one of them, so that none could change places with another.
        return tuple(range(len(order) - 1)) if order == tuple(range(len(order))) else None

    @property
    def teaching(self) -> Teaching:
        """AUROC over the validation cases selects, of grades the quadratic kappa."""
        return Teaching(
            selects_by="quadratic_kappa" if self._ordered else "auroc",
            quality=self.quality,
            selection=self.selection,
            target_settings={"classes": list(self.classes)},
        )

    @property
    def decoding(self) -> Decoding:
        """Logits become probabilities in the shares of the training cases."""
        return Decoding(
            merge="mean",
            mirrored=self.mirrored,
            average=self.average,
            probabilities=self.probabilities,
            decode=self.decode,
            outputs=self.outputs,
            averaged=() if self.order in BETWEEN else ("class",),
        )

    @property
    def scoring(self) -> Scoring:
        """Discrimination, calibration and calls at the operating point; of grades and costs what they add."""
        return Scoring(
            metrics=metrics_of(ordered=self._ordered, costly=bool(self.costs)),
            score=self.score,
            summary=self.summary,
            rank=self.rank,
            figures=self.figures,
            overview=self.overview,
            results=self.results,
            guess=self.guess,
        )

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """A network with one answer for the image, how cases are drawn, and AUROC or kappa to select and judge."""
        return {
            "network.name": Decision("resnet", "it gives one answer for the whole image", "arXiv:1512.03385"),
            "training.sampling": sampling(fingerprint),
            "training.epochs": epochs(),
            **judged(self._ordered),
        }

    def under(self, drawn: str) -> dict[str, Decision]:
        """The prior shift of this sampling; PlanError where the loss would balance the classes once more."""
        check_drawn(self.loss_name, drawn)
        shift = prior_shift(self.counts or dict.fromkeys(self.classes, 1), self.weights, drawn, self.loss_name)
        return {"task.prior_shift": shift, **(judged(True) if self._ordered else {})}

    def target(self, case: Case) -> Target:
        """Index of the case's class."""
        return Target(self.heads["class"], np.asarray(self._index(case)))

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """The named loss; of outputs between grades the loss of each question. target: (batch,) indices"""
        logits, weights = outputs["class"].float(), None
        if self.weights is not None:
            weights = logits.new_tensor([self.weights.get(name, 1.0) for name in self.classes])
        truth = target.long()
        if self.order in BETWEEN:
            return ordinal_loss(self.order, logits, truth, weights)
        if self.smoothing:
            return torch.nn.functional.cross_entropy(logits, truth, weight=weights, label_smoothing=self.smoothing)
        return class_loss(self.loss_name, logits, truth, self._counts, weights)

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        """(batch, classes) probabilities and (batch,) classes."""
        probabilities = self._likely(outputs["class"].detach().float().cpu().numpy())
        return {"probabilities": torch.from_numpy(probabilities), "target": target.long()}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """AUROC over the validation cases, of grades the quadratic kappa; minus the log loss where classes lack."""
        probabilities, target = collected["probabilities"].cpu().numpy(), collected["target"].cpu().numpy()
        return selected(probabilities, target, self._calling, ordered=self._ordered)

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The logarithm of the mean probability; of outputs between grades the mean itself."""
        each = [one["class"] for one in outputs]
        return {"class": mean_of(each, shares) if self.order in BETWEEN else log_mean(each, shares=shares)}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """(classes, ...) probabilities, brought back to the shares of the training cases."""
        return {"class": np.moveaxis(self._likely(np.moveaxis(np.asarray(arrays["class"]), 0, -1)), -1, 0)}

    def tuned(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> tuple[Task, dict[str, Decision]]:
        """The task with thresholds by the operating point's rule; those that are set already stay."""
        if self.thresholds is not None or not cases:
            return self, {}
        own = self._answers(self.score(predictions, cases))
        levels, decision = thresholds(self.operating_point, self.classes, own.probabilities, own.reference)
        return replace(self, thresholds=levels), {"task.thresholds": decision}

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """(classes,) logits of one case to probabilities."""
        [(_, arrays)] = slabs  # a vector head is one slab
        probabilities = self.probabilities(arrays)["class"].tolist()
        return Prediction(geometry, probabilities=dict(zip(self.classes, probabilities, strict=True)))

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case: reference, predicted, the probability of each class, brier, and rps of grades."""
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
                    "predicted": self.classes[int(self._calling(probabilities))],
                    **{f"probability_{name}": p for name, p in zip(self.classes, probabilities, strict=True)},
                    **{f"{THRESHOLD}_{name}": level for name, level in (self.thresholds or {}).items()},
                    **case_scores(probabilities, index, ordered=self._ordered),
                }
            )
        return pd.DataFrame(rows)

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """AUROC and the like with patients resampled within the classes; then one class against the rest."""
        return summary_rows(self._answers(table), seed=seed)

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """The image, with the probabilities and the reference in the caption."""
        probabilities = self._probabilities(prediction)
        named = self.classes[int(self._calling([probabilities[name] for name in self.classes]))]
        caption = f"Called {named} ({probabilities[named]:.2f})"
        if reference := case.references.get("class"):
            caption += (
                f", reference {reference} ({probabilities.get(reference, 0.0):.2f})"
                if reference != named
                else ", as the reference"
            )
        return [figures.contours(stated_image(case), None, None, (), title=case.id, caption=caption)]

    def overview(self, table: Table) -> list[Figure]:
        """Discrimination, calibration and confusion of all cases."""
        return overview(self._answers(table), folds_of(table))

    def guess(self, table: Table) -> Guess:
        """The shares of the classes among the training cases, as if no image had been looked at."""
        counted = self.counts or table["reference"].value_counts()
        counts = np.array([float(counted.get(name, 0)) for name in self.classes])
        shares = (counts / counts.sum()).tolist()
        named = self.classes[int(self._calling(shares))]
        rows = [case_scores(shares, self.classes.index(name), ordered=self._ordered) for name in table["reference"]]
        guessed = table.assign(
            predicted=named, **{f"probability_{n}": p for n, p in zip(self.classes, shares, strict=True)}
        )
        guessed = guessed.assign(**{name: [row[name] for row in rows] for name in rows[0]})
        metrics = ("quadratic_kappa", "mae") if self._ordered else ("auroc", "accuracy")
        return Guess(guessed, {"": f"always calling {named}"}, metrics)

    def rank(self, table: Table) -> list[str]:
        """Case ids by the Brier score, of grades by the ranked probability score."""
        return table.sort_values("rps" if self._ordered else "brier", kind="stable")["case"].tolist()

    def outputs(self, prediction: Prediction) -> Mapping[str, Any]:
        """The class that is called, and the probability of each."""
        probabilities = self._probabilities(prediction)
        predicted = self.classes[int(self._calling([probabilities[name] for name in self.classes]))]
        return {"predicted": predicted, **{f"probability_{name}": p for name, p in probabilities.items()}}

    def saliency(self, outputs: Outputs) -> Tensor:
        """(batch,) what a heat map explains: the winning class's logit, of outputs between grades the mean grade."""
        logits = outputs["class"]
        return expected_grade(self.order, logits) if self.order in BETWEEN else logits.amax(dim=-1)

    def results(self, prediction: Prediction) -> list[Finding]:
        """The probability of each class."""
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

    def _answers(self, table: Table) -> Answers:
        return Answers(
            self.classes,
            table[[f"probability_{name}" for name in self.classes]].to_numpy(float),
            np.array([self.classes.index(name) for name in table["reference"]]),
            self._calling,
            table["patient"].to_numpy(str),
            {name: table[name].to_numpy(float) for name in ("brier", *(["rps"] * self._ordered))},
            self.operating_point,
            levels_of(table, self.classes, self.thresholds or {}),
            self.prevalence or {},
            None if self.costs is None else np.array(self.costs),
        )

    @property
    def _counts(self) -> Floats | None:
        return None if self.counts is None else np.array([self.counts[name] for name in self.classes], dtype=float)

    @property
    def _ordered(self) -> bool:
        return self.order != NONE

    @property
    def _calling(self) -> Calling:
        return Calling.of(self.order, self.costs, len(self.classes))

    def _likely(self, outputs: Floats) -> Floats:
        """(..., outputs) to (..., classes) probabilities, brought back to the shares of the training cases."""
        shift = [(self.prior_shift or {}).get(name, 0.0) for name in self.classes]
        return softmax(log_probabilities(self.order, outputs) + np.array(shift), axis=-1)
