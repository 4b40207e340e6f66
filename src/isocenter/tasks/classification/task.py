"""Classification: one of several classes that exclude each other, with or without an order, for the whole image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from isocenter.belief import (
    BELIEF,
    BY_GROUP,
    CALLING,
    CERTAINTY,
    FOUND,
    GROUPED,
    OF_SETS,
    SET,
    SET_ERRORS,
    SETS,
    Calls,
    Certainty,
    Classes,
    GroupThresholds,
    OperatingPoint,
    Rows,
    calling_of,
    in_json,
    probabilities_of,
    suited_certainty,
    uncalibrated_of,
    unkept_rule,
)
from isocenter.lazy import torch
from isocenter.tasks.answers import Decoding, Origin, Outputs, Scoring, Teaching, Traits
from isocenter.tasks.classification.likelihood import Likelihood
from isocenter.tasks.classification.losses import LOSSES, as_they_come, check_drawn, check_loss, class_loss
from isocenter.tasks.classification.ordinal import (
    BETWEEN,
    NONE,
    ORDERS,
    Calling,
    check_order,
    costs_of,
    ends,
    ordinal_loss,
    outputs_of,
    prices_of,
    towards,
)
from isocenter.tasks.classification.plan import (
    BY_CLASS,
    SENTENCES,
    by_class,
    check_grouped,
    check_settings,
    judged,
    prior_shift,
    sampling,
    settings_for,
)
from isocenter.tasks.classification.positive import positive_of, usual_positives
from isocenter.tasks.classification.scores import NAMES, class_index, metrics_of, selected
from isocenter.tasks.classification.scoring import ClassScoring
from isocenter.tasks.shared import Shares, crossed, log_mean, mean_of, of_one, one_answer_length, reading
from isocenter.values import (
    Array,
    Case,
    Dataset,
    Decision,
    Fingerprint,
    Floats,
    Geometry,
    Head,
    Label,
    Prediction,
    Slabs,
    Target,
    Vector,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Classification:
    """One of several classes that exclude each other.

    classes:         in the order of every probability column
    smoothing:       share of each target that is spread over all classes
    counts:          {class: training cases}
    weights:         {class: how much a case counts in the loss}; 1 where none is given
    prior_shift:     {class: added to its logit}, so that probabilities refer to the shares of the training cases
    operating_point: the rule by which validation cases decide from which probability on a class is called
    operating_confidence: with which the rule holds in a single training; None: on average over trainings
    thresholds:      {class: that probability}; None until they have decided
    prevalence:      {class: share of all people} for predictive values; None: of the cases that are scored
    order:           how a network predicts classes that are grades (`ordinal.ORDERS`); "none": they have no order
    is_ranked:       whether the order of the classes is known; otherwise they can be no grades
    costs:           (classes, classes) of calling a reference (row) so (column); None: all mistakes cost alike, of
                     grades one unit for each that they miss by
    loss_name:       of `losses.LOSSES`
    certainty:       how far its probabilities can be believed, and what makes them so
    grouped:         thresholds of groups of people, of two classes, which these then part
    positive:        the classes that sensitivity, predictive values and thresholds are of, of two exactly one; empty:
                     their names decide (`positive.usual_positives`)
    priced:          as `costs`, by which mistakes are counted, whatever calls were made by; None: by its own

    The class that is called is the most probable one; with costs the one that costs least on average if the
    probabilities are right; of grades that of the least squared distance, which is what the quadratic kappa counts.
    """

    classes: tuple[str, ...]
    smoothing: float = 0.0
    counts: Mapping[str, int] | None = None
    weights: Mapping[str, float] | None = None
    prior_shift: Mapping[str, float] | None = None
    operating_point: str = "youden"
    operating_confidence: float | None = None
    thresholds: Mapping[str, float] | None = None
    prevalence: Mapping[str, float] | None = None
    order: str = NONE
    is_ranked: bool = True
    costs: tuple[tuple[float, ...], ...] | None = None
    loss_name: str = "ce"
    certainty: Certainty = field(default_factory=Certainty)
    grouped: GroupThresholds = field(default_factory=GroupThresholds)
    positive: tuple[str, ...] = ()
    priced: tuple[tuple[float, ...], ...] | None = field(default=None, compare=False)

    name: ClassVar[str] = "classification"
    needs: ClassVar[frozenset[str]] = frozenset({"class"})
    traits: ClassVar[Traits] = Traits(
        tunes=(*FOUND, "thresholds", BY_GROUP, "conformal"),
        registers={
            "positive": "positive class",
            "operating_point": "operating point",
            "operating_confidence": "confidence of the operating point",
            "prevalence": "prevalence",
            "costs": "costs of mistakes",
            "group_thresholds": "groups with thresholds of their own",
        },
        case_metric="brier",
        # Not the losses whose probabilities are not to be believed: a metric of ranks would not notice.
        search_values={"loss": ("ce", "class_balanced", "logit_adjusted")},
        suited=suited_certainty,
        audited=("auroc", "calibration_slope", "coverage"),
        belief=(*OF_SETS, *BELIEF),
        calibration=("ece",),
        compared_by=("classes", "positive", "prevalence", "priced"),
        unkept=unkept_rule,
        sentences=SENTENCES,
        metric_names=NAMES,
        errors=frozenset({"brier", "ece", "log_loss", "mce", "ace", "mae", "rps", "expected_cost"}) | SET_ERRORS,
        label_word="class",
    )

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Classes, loss, operating point and the like for these training cases; DatasetError where all are alike."""
        return settings_for(dataset, fingerprint)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Classification:
        """A classification with these settings; PlanError names the one that cannot be."""
        own = ("classes", "smoothing", *CALLING, "order", "ranked", "costs", "loss", "positive")
        known = (*own, *BY_CLASS, *GROUPED, *CERTAINTY, *SETS)
        with reading(settings, known, "a classification"):
            classes = tuple(str(name) for name in settings["classes"])
            order = settings.get("order", NONE)
            positive = positive_of(settings.get("positive"), classes)
            yes = (positive or usual_positives(classes) or ("",))[0]
            each = {name: by_class(name, settings.get(name), classes, yes) for name in BY_CLASS}
            costs = costs_of(settings.get("costs"), len(classes))
            loss, smoothing = str(settings.get("loss", "ce")), float(settings["smoothing"])
            given = {**calling_of(settings), "order": order, "costs": costs, "loss_name": loss, **each}
            given |= {"is_ranked": bool(settings.get("ranked", True))}
            given |= {"certainty": Certainty.of(settings), "grouped": GroupThresholds.of(settings)}
            given |= {"priced": prices_of(order, costs, len(classes)), "positive": positive}
            task = cls(classes, smoothing, **given)
        check_settings(classes, task.smoothing, each)
        check_order(order, classes, task.smoothing, is_ranked=task.is_ranked)
        check_grouped(task.grouped, classes, parted=order == NONE and costs is None)
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
            "positive": self.positive[0] if len(self.positive) == 1 else list(self.positive) or None,
            "operating_point": self.operating_point,
            "operating_confidence": self.operating_confidence,
            **{name: None if given is None else dict(given) for name, given in each.items()},
            "order": self.order,
            "ranked": self.is_ranked,
            "costs": None if self.costs is None else [list(row) for row in self.costs],
            **self.grouped.settings,
            **self.certainty.settings,
            **self.certainty.of_sets,
        }

    @property
    def _point(self) -> OperatingPoint:
        """What thresholds keep to."""
        return OperatingPoint(self.operating_point, self.operating_confidence)

    @property
    def positives(self) -> tuple[str, ...]:
        """The classes that figures of one class against the rest are of: of two one, of several any."""
        return self.positive or usual_positives(self.classes)

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
        shifts = {} if self.order in BETWEEN else self.prior_shift or {}
        return Teaching(
            selects_by="quadratic_kappa" if self._ordered else "auroc",
            quality=self.quality,
            selection=self.selection,
            target_settings={"classes": list(self.classes)},
            weighs_classes=bool(self.weights) or LOSSES[self.loss_name].weighs or ORDERS[self.order].conditional,
            natural=partial(as_they_come, self.loss_name, self.classes, shifts, self.weights or {}),
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
            targets=ends(self.classes) if self.order in BETWEEN else self.classes,
            picks=self.order not in BETWEEN,
            crossed=self.certainty.crossed("class"),
            uncertainty="classes",
            states_evidence=LOSSES[self.loss_name].states_evidence,
        )

    @property
    def scoring(self) -> Scoring:
        """Discrimination, calibration and calls at the operating point; of grades and costs what they add."""
        shown = self._scores
        own = (shown.score, shown.summary, shown.rank, shown.figures, shown.overview, shown.results, shown.guess)
        metrics = metrics_of(ordered=self._ordered, costly=bool(self.costs))
        named, asked, values = self.classes, self.positives, shown.case_values
        return Scoring(metrics, *own, case_values=values, probable_findings=named, positives=asked)

    @property
    def _scores(self) -> ClassScoring:
        rules = (self.classes, self._calling, self._index, self._ordered, self.counts, str(self._point))
        prices = self.priced or prices_of(self.order, self.costs, len(self.classes))
        return ClassScoring(*rules, self.thresholds or {}, self.prevalence or {}, prices, self.positives)

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """A network with one answer for the image, how cases are drawn, and AUROC or kappa to select and judge."""
        return {
            "network.name": Decision("resnet", "it gives one answer for the whole image", "arXiv:1512.03385"),
            "training.sampling": sampling(fingerprint),
            **one_answer_length(),
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
        probabilities = self._likelihood(outputs["class"].detach().float().cpu().numpy())
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
        return {"class": np.moveaxis(self._likelihood(np.moveaxis(np.asarray(arrays["class"]), 0, -1)), -1, 0)}

    def fitted(self, predictions: Sequence[Prediction], cases: Sequence[Case], origin: Origin) -> dict[str, Decision]:
        """Nothing: decoding finds nothing by itself."""
        return {}

    def rows(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Rows:
        """Probabilities of the classes before calibration, and the index of the class."""
        outputs = [[uncalibrated_of(one)[name] for name in self.classes] for one in predictions]
        truth, patients = ([self._index(case) for case in cases], [case.patient for case in cases])
        return Rows(np.array(outputs), np.array(truth), np.array(patients), [case.covariates for case in cases])

    @property
    def answers(self) -> Classes:
        """Classes, with thresholds of the positive ones."""
        instead = "0.5" if len(self.classes) == 2 else "the class that is called"
        calls = Calls(self._point, self.thresholds, self.grouped, instead)
        return Classes(self.certainty, self.classes, self._ordered, self.positives, calls)

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """(classes,) logits of one case to probabilities."""
        [(_, arrays)] = slabs  # a vector head is one slab
        return self._likelihood.decoded(arrays, "class", geometry)

    def outputs(self, prediction: Prediction) -> Mapping[str, Any]:
        """The class that is called, the probability of each, and the set of those that are not ruled out."""
        probabilities = probabilities_of(prediction)
        predicted = self.classes[self._calling.of_prediction(prediction, self.classes, self.thresholds or {})]
        chances = {f"probability_{name}": p for name, p in probabilities.items()}
        return {"predicted": predicted, **chances, SET: in_json(prediction.confidence.set.get(""))}

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """(batch,) the logit of the class, without a target of the winning one; between grades the mean grade."""
        given = (outputs["class"], self.classes, target)
        return towards(self.order, *given) if self.order in BETWEEN else of_one(*given)

    def _index(self, case: Case) -> int:
        return class_index(case, self.classes)

    @property
    def _counts(self) -> Floats | None:
        return None if self.counts is None else np.array([self.counts[name] for name in self.classes], dtype=float)

    @property
    def _ordered(self) -> bool:
        return self.order != NONE

    @property
    def _calling(self) -> Calling:
        by_group_of = self.positives[0] if self.grouped.levels else ""
        return Calling.of(self.order, self.costs, len(self.classes), by_group_of=by_group_of)

    @property
    def _likelihood(self) -> Likelihood:
        return Likelihood(self.classes, self.order, self.prior_shift or {}, self.certainty)
