"""Grades, which are classes with an order: outputs, probabilities, losses and calls.

softmax:    an output a grade, as of classes without an order; the order counts only in what is called and measured
corn:       whether the grade is above k, taught only to cases that reach k (Shi, Cao and Raschka, arXiv:2111.08851)
cumulative: whether the grade is above k, taught to every case: a cumulative link (McCullagh, J R Stat Soc B 1980) that
            is taught like CORAL (Cao, Mirjalili and Raschka, arXiv:1901.07884). The first output is the log odds of
            being above the lowest grade, each further one how far these fall to the next, which is kept above 0: where
            CORAL has one distance for all images, these follow the image
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from hilum.belief import certainties
from hilum.errors import PlanError
from hilum.evaluation import classification
from hilum.lazy import torch
from hilum.tasks.shared import saliency
from hilum.values import Floats, Prediction, grading

if TYPE_CHECKING:
    from torch import Tensor

NONE = "none"


@dataclass(frozen=True)
class OrdinalMethod:
    """A method by which a network predicts grades.

    between:     an output stands between two grades, so that there is one less of them
    conditional: an output is the probability of going on, for cases that reach its grade
    """

    between: bool = False
    conditional: bool = False


ORDERS: Mapping[str, OrdinalMethod] = {
    NONE: OrdinalMethod(),
    "softmax": OrdinalMethod(),
    "corn": OrdinalMethod(between=True, conditional=True),
    "cumulative": OrdinalMethod(between=True),
}
BETWEEN = frozenset(name for name, order in ORDERS.items() if order.between)
# Two thresholds never meet: the grade between them would be impossible, and its logarithm infinite.
CLOSEST = float(np.finfo(np.float32).tiny)
COSTS = "task.costs"


@dataclass(frozen=True, eq=False)
class CallingRule:
    """The rule by which a class is called.

    costs: (classes, classes) of calling a reference (row) so (column): the class of the least cost on average, if the
           probabilities are right; None calls the most probable one
    by:    the rule, in words
    by_group_of: the class that groups of people have thresholds of, at which two classes are parted; empty for none
    """

    costs: Floats | None
    by: str
    by_group_of: str = ""

    @classmethod
    def from_costs(cls, order: str, costs: ArrayLike | None, classes: int, *, by_group_of: str = "") -> CallingRule:
        """Costs as they are given; of grades without any the squared distance, as the quadratic kappa counts.

        by_group_of: the class that groups have thresholds of; empty where they have none
        """
        if by_group_of:
            return cls(None, "; by the threshold of each group", by_group_of)
        if costs is not None:
            return cls(np.asarray(costs, dtype=np.float64), "; by the least expected cost")
        if order != NONE:
            return cls(classification.grade_distances(classes, 2), "; by the least expected squared distance")
        return cls(None, "; by the most probable class")

    def __call__(self, probabilities: ArrayLike) -> np.ndarray:
        """(..., classes) to (...) index of the class."""
        if self.costs is None:
            return np.asarray(np.argmax(probabilities, axis=-1))
        return classification.least_cost_class(probabilities, self.costs)

    def of_prediction(self, prediction: Prediction, classes: Sequence[str], thresholds: Mapping[str, float]) -> int:
        """Index of the class: by the rule, or by the threshold of the patient's group."""
        probabilities = certainties.stated_probabilities(prediction)
        if positive := self.by_group_of:
            levels = {**thresholds, **prediction.confidence.thresholds}
            is_called = probabilities[positive] >= levels.get(positive, 0.5)
            return next(n for n, name in enumerate(classes) if (name == positive) == is_called)
        return int(self([probabilities[name] for name in classes]))


def count_outputs(order: str, classes: int) -> int:
    """The number of outputs that a network has for so many classes."""
    return classes - 1 if order in BETWEEN else classes


def log_probabilities(order: str, outputs: ArrayLike) -> Floats:
    """(..., outputs) to (..., classes) logarithms of probabilities, short of a number that is common to all classes."""
    logits = np.asarray(outputs, dtype=np.float64)
    if order not in BETWEEN:
        return logits
    none = np.zeros_like(logits[..., :1])
    if ORDERS[order].conditional:
        reached = np.concatenate([none, np.cumsum(_log_sigmoid(logits), axis=-1)], axis=-1)
        return np.asarray(reached + np.concatenate([_log_sigmoid(-logits), none], axis=-1))
    falls = np.maximum(np.logaddexp(0.0, logits[..., 1:]), CLOSEST)
    above = np.concatenate([logits[..., :1], logits[..., :1] - np.cumsum(falls, axis=-1)], axis=-1)
    # sigmoid(a) - sigmoid(b) = sigmoid(a) * sigmoid(-b) * (1 - exp(b - a)), which also holds far from 0
    between = np.concatenate([none, np.log(-np.expm1(-falls)), none], axis=-1)
    reached = np.concatenate([none, _log_sigmoid(above)], axis=-1)
    return np.asarray(between + reached + np.concatenate([_log_sigmoid(-above), none], axis=-1))


def ordinal_loss(order: str, outputs: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of every question that a case answers, the mean over all of them.

    outputs: (batch, grades - 1); target: (batch,) index of the grade
    weights: (grades,) how much a case of each counts
    """
    grade = target[:, None]
    steps = torch.arange(outputs.shape[1], device=outputs.device)
    costs = torch.nn.functional.binary_cross_entropy_with_logits(
        _log_odds(order, outputs), (grade > steps).to(outputs.dtype), reduction="none"
    )
    counts = (grade >= steps).to(outputs.dtype) if ORDERS[order].conditional else torch.ones_like(costs)
    if weights is not None:
        counts = counts * weights[target][:, None]
    return (costs * counts).sum() / counts.sum()


def expected_grade(order: str, outputs: Tensor) -> Tensor:
    """(batch,) mean place of the grade: the sum of the probabilities of being above each."""
    above = _log_odds(order, outputs).sigmoid()
    return (above.cumprod(dim=1) if ORDERS[order].conditional else above).sum(dim=1)


def extreme_grades(classes: Sequence[str]) -> tuple[str, str]:
    """The lowest and the highest grade: what an explanation of outputs between grades can speak for."""
    return classes[0], classes[-1]


def signed_grade(order: str, outputs: Tensor, classes: Sequence[str], end: str | None) -> Tensor:
    """(batch,) mean place of the grade; negative where the lowest grade is what is asked about."""
    sign = 1 if end is None else 2 * saliency.place_of_target(end, extreme_grades(classes)) - 1
    return sign * expected_grade(order, outputs)


def check_order(order: Any, classes: Sequence[str], smoothing: float, *, is_ranked: bool) -> None:
    """PlanError for an order that is none, or that does not go with these classes or with smoothed targets.

    is_ranked: whether the order of the classes is known, by a person or a known scale; two classes have but one
    """
    if order not in ORDERS:
        raise PlanError(f"there is no order {order!r}", "task.order", f"Choose one of {', '.join(ORDERS)}")
    numbers = grading.grades_in_names(classes)
    if order != NONE and numbers is not None and list(numbers) != sorted(numbers):
        problem = f"the classes stand in the order {', '.join(classes)}, and their numbers do not rise"
        raise PlanError(problem, "task.order", "Name them in their order with --labels 0=NAME,1=NAME,...")
    if order != NONE and not is_ranked and len(classes) > 2:
        scale = grading.order_by_grade(classes)
        why = "their scale rises otherwise" if scale else "that is the alphabet's, and none of grades"
        problem = f"the classes stand in the order {', '.join(classes)}, and {why}"
        example = ",".join(scale or ("mild", "moderate", "severe"))
        remedy = f"Name them from the lowest grade to the highest, as in --order {example}"
        raise PlanError(problem, "task.order", remedy)
    if order in BETWEEN and smoothing > 0:
        problem = f"{order} asks yes or no between grades, and smoothing spreads targets over all grades alike"
        raise PlanError(problem, "task.smoothing", "Give 0, or --set task.order=softmax")


def parse_costs(stated_costs: Any, classes: int) -> tuple[tuple[float, ...], ...] | None:
    """A table of costs from a plan: a row for each reference, in it what each call costs; PlanError for another."""
    if stated_costs is None:
        return None
    table = np.asarray(stated_costs, dtype=np.float64)
    if table.shape != (classes, classes) or not np.isfinite(table).all() or (table < 0).any() or np.diag(table).any():
        problem = f"{stated_costs} are not costs of {classes} classes"
        remedy = f"Give {classes} rows of {classes} numbers from 0, of each reference what each call costs, 0 if right"
        raise PlanError(problem, COSTS, remedy)
    return tuple(tuple(row) for row in table.tolist())


def costs_of_mistakes(
    order: str, costs: tuple[tuple[float, ...], ...] | None, classes: int
) -> tuple[tuple[float, ...], ...] | None:
    """The costs by which mistakes are counted: as stated, of grades one unit for each that they miss by; or None."""
    if costs is not None or order == NONE:
        return costs
    return tuple(tuple(row) for row in classification.grade_distances(classes).tolist())


def _log_odds(order: str, outputs: Tensor) -> Tensor:
    """(batch, grades - 1) of each question."""
    if ORDERS[order].conditional:
        return outputs
    # One after the other: a GPU has no cumulative sum that gives the same bits each time.
    falls = torch.nn.functional.softplus(outputs[:, 1:]).unbind(dim=1)
    return torch.stack(list(accumulate((outputs[:, 0], *falls), torch.sub)), dim=1)


def _log_sigmoid(values: Floats) -> Floats:
    return np.asarray(-np.logaddexp(0.0, -values))
