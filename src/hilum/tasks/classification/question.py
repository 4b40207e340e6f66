"""Classification: one of several classes that exclude each other, with or without an order, for the whole image."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np

from hilum import errors
from hilum.belief import Certainty, certainties, operating_points, prediction_sets
from hilum.belief.certainties import CERTAINTY, SETS
from hilum.belief.operating_points import NOBODY, GroupThresholds, OperatingPoint
from hilum.errors import DatasetError, PlanError
from hilum.evaluation import Metrics
from hilum.lazy import torch
from hilum.tasks.classification import answering, losses, ordinal, scoring
from hilum.tasks.classification.losses import LOSSES
from hilum.tasks.classification.ordinal import BETWEEN, NONE, ORDERS
from hilum.tasks.classification.scoring import METRICS, ClassScoring
from hilum.tasks.shared import grid_and_length, left_right, saliency
from hilum.tasks.task import Outputs, Uncertain
from hilum.values import (
    Case,
    Dataset,
    Decision,
    Fingerprint,
    Floats,
    Head,
    Label,
    Merge,
    Setting,
    SettingsGroup,
    Target,
    Vector,
    grading,
)

if TYPE_CHECKING:
    from torch import Tensor


# A class with less than this part of its equal share is seen too seldom to be learnt from cases as they come.
SCARCE = 0.3
# A class with so many times fewer cases than the largest would, sampled as often, be learnt by heart.
SCARCEST = 50.0
# By which power of its share a class is seen.
SEEN = {"natural": 1.0, "square_root": 0.5, "balanced": 0.0, "oversampled": 0.0, "undersampled": 0.0}
# Saerens et al., Neural Comput 2002: how probabilities follow from another prior.
SAERENS = "doi:10.1162/089976602753284446"
SHIFT_DIGITS = 6
# By which the sum of shares may differ from 1: they are written in a few digits.
ROUNDING = 0.01
MAIER_HEIN = "doi:10.1038/s41592-023-02151-z"
CORN = "arXiv:2111.08851"
# The settings that hold one number a class, and their bounds.
BOUNDS: Mapping[str, tuple[float, float]] = {
    "counts": (0, 10**12),
    "weights": (1e-6, 1e6),
    "prior_shift": (-100, 100),
    "thresholds": (0, NOBODY),
    "prevalence": (0, 1),
}
# Names of the class of people who have nothing of what is looked for; whole names, in any case, with or without blanks.
ABSENT = frozenset(
    {
        *(
            "normal",
            "normals",
            "healthy",
            "well",
            "negative",
            "neg",
            "benign",
            "control",
            "controls",
            "healthy control",
        ),
        *("healthy controls", "none", "no", "no finding", "no findings", "absent", "0", "false"),
    }
)
# Before a word, it says that this is absent: no_tumor, without fracture. "non" only does before another class's name:
# of non_small_cell and adenocarcinoma neither is healthy.
WITHOUT = ("no ", "without ")
NOT = ("non ", "not ")
SIGNS = re.compile(r"[\s_-]+")
DECIDES = "--positive NAME decides otherwise"


def positive_names(positives: Any) -> tuple[str, ...]:
    """The classes that a plan states as positive, one name or several; none where it states none."""
    if positives is None:
        return ()
    if not (names := [positives] if isinstance(positives, str | int) else list(positives)):
        raise PlanError("no class is positive", "task.positive", "Name one of task.classes, or give null")
    return tuple(dict.fromkeys(str(name) for name in names))


def plain_names(positive: Sequence[str]) -> str | list[str] | None:
    """Positive classes as a plan states them."""
    return positive[0] if len(positive) == 1 else list(positive) or None


def stated_prevalences(stated_shares: Any) -> Mapping[str, float] | None:
    """{class: share of all people} as a plan states it; one number is the share of the positive class, named ""."""
    if stated_shares is None:
        return None
    shares = stated_shares if isinstance(stated_shares, Mapping) else {"": stated_shares}
    return {str(name): float(share) for name, share in shares.items()}


@dataclass(frozen=True)
class Classification(ClassScoring):
    """One of several classes that exclude each other.

    classes:     in the order of every probability column
    loss_name:   of `losses.LOSSES`
    smoothing:   share of each target that is spread over all classes
    positive:    the classes that sensitivity, predictive values and thresholds are of, of two exactly one; empty: their
                 names decide (`usual_positives`)
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

    classes: Annotated[tuple[str, ...], Setting(compared=True, target=True)]
    # Not the losses whose probabilities are not to be believed: a metric of ranks would not notice.
    loss_name: Annotated[str, Setting(name="loss", search=("ce", "class_balanced", "logit_adjusted"))] = "ce"
    smoothing: float = 0.0
    positive: Annotated[
        tuple[str, ...],
        Setting(always=True, read=positive_names, plain=plain_names, preregistered="positive class", compared=True),
    ] = ()
    point: Annotated[OperatingPoint, SettingsGroup()] = field(default_factory=OperatingPoint)
    counts: Mapping[str, int] | None = None
    weights: Annotated[Mapping[str, float] | None, Setting(always=True)] = None
    prior_shift: Mapping[str, float] | None = None
    thresholds: Annotated[Mapping[str, float] | None, Setting(always=True, tuned=True)] = None
    prevalence: Annotated[
        Mapping[str, float] | None, Setting(read=stated_prevalences, preregistered="prevalence", compared=True)
    ] = None
    order: str = NONE
    is_ranked: Annotated[bool, Setting(only_with=("task.order",), name="ranked")] = True
    costs: Annotated[tuple[tuple[float, ...], ...] | None, Setting(preregistered="costs of mistakes")] = None
    grouped: Annotated[GroupThresholds, SettingsGroup()] = field(default_factory=GroupThresholds)
    certainty: Annotated[Certainty, SettingsGroup((*CERTAINTY, *SETS))] = field(default_factory=Certainty)
    priced: Annotated[tuple[tuple[float, ...], ...] | None, Setting(is_kept=False, compared=True)] = field(
        default=None, compare=False
    )
    name: ClassVar[str] = "classification"
    needs: ClassVar[frozenset[str]] = frozenset({"class"})
    merge: ClassVar[Merge] = "mean"
    uncertainty: ClassVar[Uncertain] = "classes"
    metrics: ClassVar[Metrics] = METRICS

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Classes, loss, operating point and the like for these training cases; DatasetError where all are alike."""
        counts = fingerprint.counts()
        declared = [label.name for label in dataset.classes.get("class", ())] or list(counts)
        if sum(count > 0 for count in counts.values()) < 2:
            class_count = errors.count_phrase(len(counts), "class", "classes")
            raise DatasetError(
                f"the training cases have {class_count} ({', '.join(counts) or 'none'})",
                str(dataset.root or dataset.name),
                "Give cases of at least two classes",
            )
        shares = ", ".join(f"{counts.get(name, 0)} are {name}" for name in declared)
        here = {name: counts.get(name, 0) for name in declared}
        taught = decide_loss(fingerprint)
        return {
            "classes": Decision(declared, f"among {sum(counts.values())} training cases {shares}"),
            "positive": positive_decision(declared, here),
            "counts": Decision(here, "their shares are what probabilities refer to"),
            "loss": taught,
            "smoothing": Decision(0.0, "smoothed targets would distort the probabilities"),
            "weights": Decision(None, "where a class is scarce its cases are sampled more often instead"),
            "prior_shift": prior_shift(here, None, str(decide_sampling(fingerprint).value), str(taught.value)),
            **operating_points.calling_decisions(),
            "order": decide_order(declared),
            "ranked": decide_ranking(declared, is_stated=dataset.ranked),
            "costs": Decision(None, "all mistakes cost alike; of grades one unit for each grade that they miss by"),
            **operating_points.grouped_decisions(),
            **certainties.certainty_decisions(),
            **prediction_sets.prediction_set_decisions(),
        }

    def check_and_fill(self) -> Classification:
        """Fill numbers for each class, and prices; PlanError names the setting that cannot be."""
        positive = ordered_positives(self.positive, self.classes)
        costs = ordinal.parse_costs(self.costs, len(self.classes))
        prevalence = complete_prevalences(
            self.prevalence, self.classes, (positive or usual_positives(self.classes) or ("",))[0]
        )
        priced = ordinal.costs_of_mistakes(self.order, costs, len(self.classes))
        ordinal.check_order(self.order, self.classes, self.smoothing, is_ranked=self.is_ranked)
        task = replace(self, positive=positive, costs=costs, prevalence=prevalence, priced=priced)
        check_settings(self.classes, self.smoothing, {name: getattr(task, name) for name in BOUNDS})
        check_grouped(self.grouped, self.classes, parted=self.order == NONE and costs is None)
        goes_with = {"weighted": bool(self.weights), "counted": self.counts is not None}
        losses.check_class_loss(self.loss_name, smoothing=self.smoothing, **goes_with, between=self.order in BETWEEN)
        return task

    @property
    def positives(self) -> tuple[str, ...]:
        """The classes that figures of one class against the rest are of: of two one, of several any."""
        return self.positive or usual_positives(self.classes)

    @property
    def heads(self) -> Mapping[str, Head]:
        """One vector: an output a class, or one between each two grades."""
        return {"class": Vector(ordinal.count_outputs(self.order, len(self.classes)))}

    @property
    def labels(self) -> tuple[Label, ...]:
        """The classes, numbered from 0."""
        return tuple(Label(value, name) for value, name in enumerate(self.classes))

    @property
    def channels_when_mirrored(self) -> tuple[int, ...] | None:
        """The class that each becomes in a mirrored image; None where a side has no counterpart among the names."""
        order = left_right.counterpart_places(self.classes)
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
        return losses.logits_at_training_shares(self.loss_name, self.classes, shifts, self.weights or {}, outputs)

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """A network with one answer for the image, how cases are sampled, and AUROC or kappa to select and judge."""
        return {
            "network.name": Decision("resnet", "it gives one answer for the whole image", "arXiv:1512.03385"),
            "training.sampling": decide_sampling(fingerprint),
            **grid_and_length.decide_epochs_and_networks(),
            **decide_metrics(self.is_ordered),
        }

    def under(self, sampling: str) -> dict[str, Decision]:
        """The prior shift of this sampling; PlanError where the loss would balance the classes once more."""
        losses.check_sampling(self.loss_name, sampling)
        shift = prior_shift(self.counts or dict.fromkeys(self.classes, 1), self.weights, sampling, self.loss_name)
        return {"task.prior_shift": shift, **(decide_metrics(True) if self.is_ordered else {})}

    def target(self, case: Case) -> Target:
        """Index of the case's class."""
        return Target(self.heads["class"], np.asarray(answering.class_index(case, self.classes)))

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """The named loss; of outputs between grades the loss of each question. target: (batch,) indices"""
        logits = outputs["class"].float()
        weights = None
        if self.weights is not None:
            weights = logits.new_tensor([self.weights.get(name, 1.0) for name in self.classes])
        truth = target.long()
        if self.order in BETWEEN:
            return ordinal.ordinal_loss(self.order, logits, truth, weights)
        if self.smoothing:
            return torch.nn.functional.cross_entropy(logits, truth, weight=weights, label_smoothing=self.smoothing)
        return losses.class_loss(self.loss_name, logits, truth, self._counts, weights)

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        """(batch, classes) probabilities and (batch,) classes."""
        probabilities = self._likely(outputs["class"].detach().float().cpu().numpy())
        return {"probabilities": torch.from_numpy(probabilities), "target": target.long()}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """AUROC over the validation cases, of grades the quadratic kappa; minus the log loss where classes lack."""
        probabilities = collected["probabilities"].cpu().numpy()
        target = collected["target"].cpu().numpy()
        return scoring.class_selection_score(probabilities, target, self.calling, ordered=self.is_ordered)

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """(batch,) the logit of the class, without a target of the winning one; between grades the mean grade."""
        options = (outputs["class"], self.classes, target)
        return ordinal.signed_grade(self.order, *options) if self.order in BETWEEN else saliency.target_logit(*options)

    @property
    def _counts(self) -> Floats | None:
        return None if self.counts is None else np.array([self.counts[name] for name in self.classes], dtype=float)


def decide_order(classes: Sequence[str]) -> Decision:
    """None unless a person says so: numbers alone may be those of classes (BloodMNIST numbers eight kinds of cells)."""
    is_numbered = grading.grades_in_names(classes) is not None
    scale = grading.order_by_grade(classes)
    if len(classes) > 2 and scale is not None and not is_numbered:
        remedy = "--set task.order=corn (or cumulative, softmax) teaches and measures their order"
        return Decision(NONE, f"{', '.join(scale)} are grades of a known scale: {remedy}", CORN)
    if len(classes) > 2 and is_numbered:
        remedy = "if they are grades, --set task.order=corn (or cumulative, softmax) teaches and measures their order"
        return Decision(NONE, f"{', '.join(classes)} may be grades or the numbers of classes: {remedy}", CORN)
    return Decision(NONE, "no order of the classes was stated")


def decide_ranking(classes: Sequence[str], *, is_stated: bool) -> Decision:
    """Whether the order of the classes is known: as a person states it, or by a known scale. The alphabet is none."""
    if is_stated:
        return Decision(True, "the order of the classes was stated")
    scale = grading.order_by_grade(classes)
    if scale == tuple(classes):
        return Decision(True, "their names are those of a known scale, and rise")
    if scale is None and list(classes) != sorted(classes):
        return Decision(True, "the data set declares their order")
    return Decision(False, "their scale rises otherwise" if scale else "they stand in the order of the alphabet")


def decide_metrics(ordered: bool) -> dict[str, Decision]:
    """The metrics that select a checkpoint and judge the model."""
    if ordered:
        selecting = "it counts a miss by the square of the grades between, as agreement beyond chance"
        judging = f"{selecting}; accuracy would not tell a miss by one grade from one by all"
        kappa = {"training.selection": selecting, "evaluation.primary": judging}
        return {name: Decision("quadratic_kappa", because, MAIER_HEIN) for name, because in kappa.items()}
    because = "it ranks cases without a threshold, and shows more than accuracy"
    return {
        "training.selection": Decision("auroc", because),
        "evaluation.primary": Decision("auroc", "no operating point was asked for", MAIER_HEIN),
    }


def decide_loss(fingerprint: Fingerprint) -> Decision:
    """Cross-entropy, with the logits adjusted where a class is too scarce to be sampled as often as the others."""
    counts = fingerprint.counts()
    rarest = min(counts, key=lambda name: counts[name])
    ratio = max(counts.values()) / counts[rarest]
    if ratio >= SCARCEST:
        because = f"{rarest} has {ratio:.0f} times fewer training cases than the largest class: sampled as often they "
        because += f"would be memorised; {LOSSES['logit_adjusted'].because}"
        return Decision("logit_adjusted", because, LOSSES["logit_adjusted"].source)
    others = ", ".join(name for name in LOSSES if name != "ce")
    return Decision("ce", f"{LOSSES['ce'].because} (for scarce or hard classes: {others})", LOSSES["ce"].source)


def decide_sampling(fingerprint: Fingerprint) -> Decision:
    """Cases as they come, or class by class where one is scarce and the loss does not see to it."""
    counts = fingerprint.counts()
    rarest = min(counts, key=lambda name: counts[name])
    share = counts[rarest] / sum(counts.values())
    equal = 1 / len(counts)
    scarcity = f"{rarest} has {counts[rarest]} of {sum(counts.values())} training cases ({100 * share:.1f} %)"
    if LOSSES[decide_loss(fingerprint).value].adjusts:
        return Decision(
            "natural", f"{scarcity}: the loss balances them, and each case is sampled as often as any other"
        )
    if share < SCARCE * equal:
        return Decision(
            "balanced",
            f"{scarcity}: classes are sampled equally often, and probabilities are corrected",
            "arXiv:1710.05381",
        )
    return Decision("natural", f"{scarcity}: each case is sampled as often as any other")


def prior_shift(
    counts: Mapping[str, int], weights: Mapping[str, float] | None, sampling: str, taught: str = "ce"
) -> Decision:
    """{class: what is added to its logit}: log of its share of the training cases less log of that which it had.

    sampling, taught: the sampling and the loss
    The largest is 0; None where training saw the classes as they come.
    """
    loss = LOSSES[taught]
    if weights is None and sampling == "natural" and not loss.balances:
        return Decision(None, "training sees the classes in their shares of the training cases")
    here = losses.training_shares(np.array(list(counts.values()), dtype=np.float64))
    in_training = here ** SEEN[sampling] * np.array([(weights or {}).get(name, 1.0) for name in counts])
    if loss.adjusts:  # it has taken the shares out of the outputs
        in_training = in_training / here
    if loss.weighs:
        in_training = in_training * losses.effective_weights(np.array(list(counts.values()), dtype=np.float64))
    shifts = np.log(here) - np.log(in_training)
    value = {name: round(float(shift), SHIFT_DIGITS) for name, shift in zip(counts, shifts - shifts.max(), strict=True)}
    causes = {
        f"{sampling} sampling": sampling != "natural",
        "weights": bool(weights),
        f"the loss {taught}": loss.balances,
    }
    named = " and ".join(cause for cause, holds in causes.items() if holds)
    return Decision(value, f"{named} made rare classes seem common: back to the shares of the training cases", SAERENS)


def complete_prevalences(
    shares: Mapping[str, float] | None, classes: Sequence[str], positive: str
) -> Mapping[str, float] | None:
    """Prevalences of which that of one class of two is that of the other too; positive: the class named ""."""
    if shares is None or len(classes) != 2 or len(shares) != 1:
        return shares
    by_name = {name or positive: share for name, share in shares.items()}
    if set(by_name) < set(classes):
        return {name: by_name.get(name, 1 - sum(by_name.values())) for name in classes}
    return by_name


def check_settings(
    classes: Sequence[str], smoothing: float, by_class_numbers: Mapping[str, Mapping[str, float] | None]
) -> None:
    """PlanError names the setting that cannot be; by_class_numbers: {setting: {class: number}}"""
    if len(set(classes)) < max(2, len(classes)):
        raise PlanError("at least two different classes are needed", "task.classes", "Name each class once")
    if not 0 <= smoothing < 1:
        raise PlanError(f"smoothing {smoothing} is not in [0, 1)", "task.smoothing", "Give a share")
    for name, numbers in by_class_numbers.items():
        operating_points.check_thresholds(f"task.{name}", numbers or {}, classes, *BOUNDS[name])
    shares = by_class_numbers.get("prevalence") or {}
    if (total := sum(shares.values())) > 1 + ROUNDING or (len(shares) == len(classes) and total < 1 - ROUNDING):
        problem = f"prevalences of {', '.join(shares)} add up to {total:g}, and one of the classes is right"
        raise PlanError(problem, "task.prevalence", "Give shares of all people that add up to 1")


def check_grouped(grouped: GroupThresholds, classes: Sequence[str], *, parted: bool) -> None:
    """PlanError for thresholds of groups that cannot be; parted: neither an order nor costs decide what is called."""
    if grouped.groups is not None and (len(classes) != 2 or not parted):
        problem = "thresholds exist only for two classes, without an order or costs"
        raise PlanError(problem, "task.group_thresholds", "Give none, or training.fairness for more classes")
    grouped.check(classes)


def positive_decision(classes: Sequence[str], counts: Mapping[str, int]) -> Decision:
    """The positive class of two, or the positive classes of several, for these training cases.

    counts: {class: training cases}
    The other class of two is positive where one name is a word of absence; else the rarer one is. Of several classes
    with one word of absence all others are; None where each class is compared with the rest.
    """
    absent = _absent(classes)
    if len(absent) == 1:
        others = [name for name in classes if name not in absent]
        because = f"{absent[0]} is a word of absence, so that it is the negative class; {DECIDES}"
        return Decision(others[0] if len(classes) == 2 else others, because)
    words = (
        f"{errors.list_phrase(absent)} are words of absence" if absent else "no class is called by a word of absence"
    )
    if len(classes) > 2:
        return Decision(None, f"{words}, so that each class is compared with the rest; {DECIDES}")
    # The first of the least: of two that are as frequent the last one, as where nothing is known of them.
    rarer = min(reversed(classes), key=lambda name: counts.get(name, 0))
    other = next(name for name in classes if name != rarer)
    here = counts.get(rarer, 0)
    cases_of_other = counts.get(other, 0)
    rank = "the rarer" if here < cases_of_other else "the last of two equally frequent classes"
    return Decision(rarer, f"{words}, and it is {rank} ({here} {rarer}, {cases_of_other} {other}); {DECIDES}")


def ordered_positives(asked: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    """The positive classes that are stated, in the order of all; PlanError for what cannot be."""
    if unknown := [name for name in asked if name not in classes]:
        raise PlanError(f"there is no class {unknown[0]!r}", "task.positive", f"Name one of {', '.join(classes)}")
    if len(classes) == 2 and len(asked) == 2:
        problem = f"{len(asked)} of {len(classes)} classes are positive"
        raise PlanError(problem, "task.positive", f"Name one of {', '.join(classes)}")
    return tuple(name for name in classes if name in asked)


def usual_positives(classes: Sequence[str]) -> tuple[str, ...]:
    """The positive classes by their names alone: without a word of absence the last of two, of several each one."""
    absent = _absent(classes)
    if len(absent) == 1:
        return tuple(name for name in classes if name not in absent)
    return tuple(classes[1:] if len(classes) == 2 else classes)


def _absent(classes: Sequence[str]) -> list[str]:
    """The classes whose names say that something is absent; bare numbers of several classes only number them."""
    if len(classes) > 2 and grading.grades_in_names(classes) is not None:
        return []
    plain = {name: SIGNS.sub(" ", name).strip().casefold() for name in classes}
    words = (
        ABSENT | {word.replace(" ", "") for word in ABSENT} | {f"{sign}{one}" for sign in NOT for one in plain.values()}
    )
    return [name for name, own in plain.items() if own in words or own.startswith(WITHOUT)]
