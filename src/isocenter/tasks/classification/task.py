"""Classification: one of several classes that exclude each other, with or without an order, for the whole image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from isocenter.belief import (
    CERTAINTY,
    PREVALENCE,
    SET,
    SETS,
    THRESHOLDS,
    Calls,
    Certainty,
    Classes,
    GroupThresholds,
    OperatingPoint,
    Rows,
    in_json,
    probabilities_of,
    uncalibrated_of,
)
from isocenter.evaluation import Metrics
from isocenter.lazy import torch
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
    BOUNDS,
    by_class,
    check_grouped,
    check_settings,
    judged,
    prevalences,
    prior_shift,
    sampling,
    settings_for,
)
from isocenter.tasks.classification.positive import names_in, plain_names, positive_of, usual_positives
from isocenter.tasks.classification.scores import METRICS, class_index, primaries_of, selected
from isocenter.tasks.classification.scoring import ClassScoring
from isocenter.tasks.settings import CLASSES, COUNTS, LOSS, WEIGHTS
from isocenter.tasks.shared import Shares, crossed, log_mean, mean_of, of_one, one_answer_length
from isocenter.tasks.task import Outputs, Uncertain
from isocenter.values import (
    COMPARED,
    Array,
    Case,
    Dataset,
    Decision,
    Fingerprint,
    Floats,
    Geometry,
    Head,
    Label,
    Merge,
    Prediction,
    Sentence,
    Slabs,
    Target,
    Vector,
    setting,
    settings_group,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Classification(ClassScoring):
    """One of several classes that exclude each other.

    classes:     in the order of every probability column
    loss_name:   of `losses.LOSSES`
    smoothing:   share of each target that is spread over all classes
    positive:    the classes that sensitivity, predictive values and thresholds are of, of two exactly one; empty: their
                 names decide (`positive.usual_positives`)
    point:       the rule by which validation cases decide from which probability on a class is called
    counts:      {class: training cases}
    weights:     {class: how much a case counts in the loss}; 1 where none is given
    prior_shift: {class: added to its logit}, so that probabilities refer to the shares of the training cases
    thresholds:  {class: the probability from which on it is called}; None until validation cases have decided
    prevalence:  {class: share of all people} for predictive values; None: of the cases that are scored
    order:       how a network predicts classes that are grades (`ordinal.ORDERS`); "none": they have no order
    is_ranked:   whether the order of the classes is known; otherwise they can be no grades
    costs:       (classes, classes) of calling a reference (row) so (column); None: all mistakes cost alike, of grades
                 one unit for each that they miss by
    grouped:     thresholds of groups of people, of two classes, which these then part
    certainty:   how far its probabilities can be believed, and what makes them so
    priced:      as `costs`, by which mistakes are counted, whatever calls were made by; None: by its own

    The class that is called is the most probable one; with costs the one that costs least on average if the
    probabilities are right; of grades that of the least squared distance, which is what the quadratic kappa counts.
    """

    classes: tuple[str, ...] = setting(words=CLASSES, compared=True, target=True)
    # Not the losses whose probabilities are not to be believed: a metric of ranks would not notice.
    loss_name: str = setting("ce", LOSS, name="loss", search=("ce", "class_balanced", "logit_adjusted"))
    smoothing: float = setting(
        0.0, Sentence("{percent} of each target is spread over all classes", "No target is smoothed")
    )
    positive: tuple[str, ...] = setting(
        (),
        Sentence(
            "Sensitivity, predictive values and thresholds are those of {value}",
            "Sensitivity, predictive values and thresholds are those of each class against the rest",
            always=True,
        ),
        read=names_in,
        plain=plain_names,
        registered="positive class",
        compared=True,
    )
    point: OperatingPoint = settings_group(OperatingPoint)
    counts: Mapping[str, int] | None = setting(None, COUNTS)
    weights: Mapping[str, float] | None = setting(None, WEIGHTS)
    prior_shift: Mapping[str, float] | None = setting(
        None, Sentence("Log odds are corrected by {each}", "Probabilities need no correction of the prior")
    )
    thresholds: Mapping[str, float] | None = setting(None, THRESHOLDS, tuned=True)
    prevalence: Mapping[str, float] | None = setting(
        None, PREVALENCE, read=prevalences, registered="prevalence", compared=True
    )
    order: str = setting(
        NONE, Sentence("Grades are taught and measured in their order by {value}", "The classes have no order")
    )
    is_ranked: bool = setting(
        True, Sentence("The order of the classes is known", only_with=("task.order",)), name="ranked"
    )
    costs: tuple[tuple[float, ...], ...] | None = setting(
        None, Sentence("Mistakes cost {value}", "No costs of mistakes are stated"), registered="costs of mistakes"
    )
    grouped: GroupThresholds = settings_group(GroupThresholds)
    certainty: Certainty = settings_group(Certainty, *CERTAINTY, *SETS)
    priced: tuple[tuple[float, ...], ...] | None = field(default=None, compare=False, metadata={COMPARED: True})

    name: ClassVar[str] = "classification"
    needs: ClassVar[frozenset[str]] = frozenset({"class"})
    merge: ClassVar[Merge] = "mean"
    uncertainty: ClassVar[Uncertain] = "classes"
    metrics: ClassVar[Metrics] = METRICS

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Classes, loss, operating point and the like for these training cases; DatasetError where all are alike."""
        return settings_for(dataset, fingerprint)

    def checked(self) -> Classification:
        """With numbers for each class, and prices; PlanError names the setting that cannot be."""
        positive = positive_of(self.positive, self.classes)
        costs = costs_of(self.costs, len(self.classes))
        prevalence = by_class(self.prevalence, self.classes, (positive or usual_positives(self.classes) or ("",))[0])
        priced = prices_of(self.order, costs, len(self.classes))
        check_order(self.order, self.classes, self.smoothing, is_ranked=self.is_ranked)
        task = replace(self, positive=positive, costs=costs, prevalence=prevalence, priced=priced)
        check_settings(self.classes, self.smoothing, {name: getattr(task, name) for name in BOUNDS})
        check_grouped(self.grouped, self.classes, parted=self.order == NONE and costs is None)
        goes_with = {"weighted": bool(self.weights), "counted": self.counts is not None}
        check_loss(self.loss_name, smoothing=self.smoothing, **goes_with, between=self.order in BETWEEN)
        return task

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
    def selects_by(self) -> str:
        """AUROC, of grades the quadratic kappa."""
        return "quadratic_kappa" if self.is_ordered else "auroc"

    @property
    def weighs_classes(self) -> bool:
        """Whether the loss does, by weights or by its name."""
        return bool(self.weights) or LOSSES[self.loss_name].weighs or ORDERS[self.order].conditional

    def natural(self, outputs: Outputs) -> Outputs:
        """Logits in the shares of the training cases."""
        shifts = {} if self.order in BETWEEN else self.prior_shift or {}
        return as_they_come(self.loss_name, self.classes, shifts, self.weights or {}, outputs)

    @property
    def probability_heads(self) -> tuple[str, ...]:
        """The head, unless its outputs lie between grades."""
        return () if self.order in BETWEEN else ("class",)

    @property
    def saliency_targets(self) -> tuple[str, ...]:
        """The classes, or the ends of their order."""
        return ends(self.classes) if self.order in BETWEEN else self.classes

    @property
    def crossed(self) -> Mapping[str, int]:
        """What sets of the mean of folds go by."""
        return self.certainty.crossed("class")

    @property
    def states_evidence(self) -> bool:
        """Whether the loss teaches evidence."""
        return LOSSES[self.loss_name].states_evidence

    @property
    def primaries(self) -> frozenset[str]:
        """Those of classes, and of grades and costs what they add."""
        return primaries_of(ordered=self.is_ordered, costly=bool(self.costs))

    @property
    def prices(self) -> tuple[tuple[float, ...], ...] | None:
        """The costs by which mistakes are counted."""
        return self.priced or prices_of(self.order, self.costs, len(self.classes))

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """A network with one answer for the image, how cases are drawn, and AUROC or kappa to select and judge."""
        return {
            "network.name": Decision("resnet", "it gives one answer for the whole image", "arXiv:1512.03385"),
            "training.sampling": sampling(fingerprint),
            **one_answer_length(),
            **judged(self.is_ordered),
        }

    def under(self, drawn: str) -> dict[str, Decision]:
        """The prior shift of this sampling; PlanError where the loss would balance the classes once more."""
        check_drawn(self.loss_name, drawn)
        shift = prior_shift(self.counts or dict.fromkeys(self.classes, 1), self.weights, drawn, self.loss_name)
        return {"task.prior_shift": shift, **(judged(True) if self.is_ordered else {})}

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
        return selected(probabilities, target, self.calling, ordered=self.is_ordered)

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The logarithm of the mean probability; of outputs between grades the mean itself."""
        each = [one["class"] for one in outputs]
        return {"class": mean_of(each, shares) if self.order in BETWEEN else log_mean(each, shares=shares)}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """(classes, ...) probabilities, brought back to the shares of the training cases."""
        return {"class": np.moveaxis(self._likelihood(np.moveaxis(np.asarray(arrays["class"]), 0, -1)), -1, 0)}

    def rows(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Rows:
        """Probabilities of the classes before calibration, and the index of the class."""
        outputs = [[uncalibrated_of(one)[name] for name in self.classes] for one in predictions]
        truth, patients = ([self._index(case) for case in cases], [case.patient for case in cases])
        return Rows(np.array(outputs), np.array(truth), np.array(patients), [case.covariates for case in cases])

    @property
    def answers(self) -> Classes:
        """Classes, with thresholds of the positive ones."""
        instead = "0.5" if len(self.classes) == 2 else "the class that is called"
        calls = Calls(self.point, self.thresholds, self.grouped, instead)
        return Classes(self.certainty, self.classes, self.is_ordered, self.positives, calls)

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """(classes,) logits of one case to probabilities."""
        [(_, arrays)] = slabs  # a vector head is one slab
        return self._likelihood.decoded(arrays, "class", geometry)

    def outputs(self, prediction: Prediction) -> Mapping[str, Any]:
        """The class that is called, the probability of each, and the set of those that are not ruled out."""
        probabilities = probabilities_of(prediction)
        predicted = self.classes[self.calling.of_prediction(prediction, self.classes, self.thresholds or {})]
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
    def is_ordered(self) -> bool:
        return self.order != NONE

    @property
    def calling(self) -> Calling:
        by_group_of = self.positives[0] if self.grouped.levels else ""
        return Calling.of(self.order, self.costs, len(self.classes), by_group_of=by_group_of)

    @property
    def _likelihood(self) -> Likelihood:
        return Likelihood(self.classes, self.order, self.prior_shift or {}, self.certainty)
