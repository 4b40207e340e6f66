"""Changes of a model: the parts that differ, rules of acceptance, a regulator's questions, and triggers to retrain.

How far models drift where each is compared with the last alone: bench/claims/creep.py.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import TypedDict

from hilum import errors
from hilum.errors import PlanError
from hilum.evaluation import ALL
from hilum.evaluation.intervals import FEW_PATIENTS
from hilum.evaluation.significance import margins
from hilum.evaluation.significance.testing import DifferenceTest
from hilum.files.storage import structured_text
from hilum.lazy import stats
from hilum.monitoring.case_stream import CONCEPT
from hilum.monitoring.change_plan import AT_LEAST, NON_INFERIOR, Acceptance, ChangePlan, LockedPlan
from hilum.monitoring.monitoring_record import MonitoringRecord
from hilum.tasks import Task, properties
from hilum.tasks.multitask import LABEL_SEPARATOR
from hilum.values import Estimate, grouping
from hilum.values.record_schema import RecordHead, RecordSchema

UNJUDGED = "cannot be judged"
ALLOWED = "allowed"
REFUSED = "refused"
OUTSIDE = "outside"
# The file with a check of a change, and its schema.


class HashedFile(TypedDict):
    """A file with its SHA-256: of a package that of its manifest."""

    path: str
    sha256: str


class LockedSet(TypedDict):
    """The locked set of a check."""

    path: str
    hash: str
    cases: int


class ChangeFacts(TypedDict, total=False):
    """The plan, the packages and the locked set of a check, and which of how many looks at it this was."""

    plan: HashedFile
    approved: HashedFile
    current: HashedFile
    new: HashedFile
    data: LockedSet
    look: int
    looks: int
    alpha_of_look: float


class ChangeCheckRecord(RecordHead, ChangeFacts):
    """Whether another package may take the place of one: allowed, refused or outside of the plan."""

    verdict: str
    because: str
    rows: list[ChangeRow]
    questions: list[RegulatoryAnswer]
    notes: list[str]


CHANGE_RECORD = "change.json"
CHANGE_SCHEMA = RecordSchema("hilum.change", ChangeCheckRecord)
# What of a model's record says where it comes from, and what it was measured to be: this may always differ.
FREE = frozenset({"schema", "version", "record", "environment", "evaluation", "onnx"})
# Entries that are whole parts, by the name of the part. What is fitted to the weights goes with them.
WHOLE = {
    "guard": "guard",
    "laplace": "weights.laplace",
    "directions": "weights.directions",
    "members": "network.members",
    "architectures": "network.architectures",
    "shares": "network.shares",
    "own_scales": "network.own_scales",
    "labels": "task.labels",
}


@dataclass(frozen=True)
class ChangeRow:
    """One row of `change.json`: a rule, what it asks for, what was found, whether it holds, and the evidence.

    part: of the model, in a row on what changed
    """

    rule: str
    wanted: str
    found: str
    holds: bool
    evidence: str
    part: str = ""

    @property
    def kind(self) -> str:
        """The kind of what changed, such as `decisions.training`; of a rule whether it could be judged."""
        words = self.part.split(".")
        if self.part:
            return ".".join(words[: 2 if words[0] == "decisions" else 1])
        return UNJUDGED if UNJUDGED in self.found else "broken"


def rows_by_kind(rows: Iterable[ChangeRow]) -> dict[str, list[ChangeRow]]:
    """The rows of each kind, the kind with the most rows first."""
    kinds = grouping.by_key((row.kind, row) for row in rows)
    return dict(sorted(kinds.items(), key=lambda one: -len(one[1])))


def changed_parts(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Names of the parts in which two models differ, such as `task.calibration`.

    old, new: `model.json`, with the SHA-256 of the arrays of each part under `arrays`
    Of decisions the values are compared: their reasons name the data.
    """
    before, now = (_flat(one) for one in (old, new))
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """{part: its value}; what is null counts as absent."""
    parts = dict[str, Any]()
    for name, value in record.items():
        if name == "arrays":
            # A part is its settings and its arrays.
            names = {part: WHOLE.get(part, part) for part in value}
            parts |= {name: (parts.get(name), value[part]) for part, name in names.items()}
        elif name == "decisions":
            parts |= {f"{name}.{key}": one.get("value") for key, one in value.items()}
        elif name in WHOLE:
            parts[WHOLE[name]] = value
        elif isinstance(value, Mapping) and name not in FREE:
            parts |= {f"{name}.{key}": one for key, one in value.items()}
        elif name not in FREE:
            parts[name] = value
    return {name: value for name, value in parts.items() if value is not None}


def refuse_impossible(
    rules: Sequence[Acceptance], where: str, evaluated: Collection[tuple[str, str]], task: Task
) -> None:
    """PlanError, with its line, for a rule that no evaluation of a model can decide: it costs a look at the locked set.

    where:     the file of the plan
    evaluated: (metric, label) of each figure of the model's own evaluation
    That is a metric or a label that the model lacks, a metric that has no better side, and a value or margin that its
    scale has not: a Dice of 85, or one of at least -1, which always holds.
    """
    metrics = {metric for metric, _ in evaluated} | {metric.name for metric in task.metrics}
    for number, rule in enumerate(rules):
        metric = task.metrics.metric_named(rule.metric)
        if rule.metric not in metrics:
            problem = f"acceptance by {rule.metric!r}, which the evaluation lacks"
            raise _impossible_rule(where, number, "metric", problem, f"Use {', '.join(sorted(metrics))}")
        if metric.better == "aim":
            problem = f"{rule.metric} is right at a value of its own: neither more nor less of it is better"
            raise _impossible_rule(where, number, "metric", problem, "Name a metric of which more or less is better")
        labels = _labels_of_metric(rule.metric, evaluated, task)
        if rule.label not in labels:
            problem = f"{rule.metric} of {rule.label!r}, of which the model states none"
            raise _impossible_rule(where, number, "label", problem, f"Use {', '.join(labels)}")
        scale = f"{rule.metric} lies between {metric.least:g} and {metric.most:g}"
        if rule.rule == AT_LEAST and not metric.least <= rule.value <= metric.most:
            problem = f"{rule.metric} of {rule.value:g}, which it cannot have"
            raise _impossible_rule(where, number, "value", problem, scale)
        if rule.rule == NON_INFERIOR and rule.margin >= metric.most - metric.least:
            problem = f"{rule.metric} worse by {rule.margin:g}, which no model can be"
            raise _impossible_rule(where, number, "margin", problem, scale)


def _labels_of_metric(name: str, evaluated: Collection[tuple[str, str]], task: Task) -> list[str]:
    """The labels of which a figure can be stated: those of the evaluation, and others of the task beside them."""
    stated = dict.fromkeys(label for metric, label in evaluated if metric == name)
    named = list[str]()
    for part, leaf in properties.leaf_tasks(task).items():
        before = f"{part}{LABEL_SEPARATOR}" if part else ""
        labels = dict.fromkeys(label.name for label in (*leaf.labels, *leaf.channel_labels) if not label.is_ignored)
        named += [f"{before}{label}" for label in (ALL, *labels)]
    if not stated:
        return list(dict.fromkeys([ALL, *named]))
    has_labels = bool((stated.keys() & set(named)) - {ALL})
    return list(dict.fromkeys([*stated, *(named if has_labels else ())]))


def _impossible_rule(where: str, number: int, key: str, problem: str, remedy: str) -> PlanError:
    line = structured_text.line_of_key(Path(where).read_text(encoding="utf-8"), ["acceptance", str(number), key])
    return PlanError(problem, f"{where}, line {line}", remedy)


def part_rows(parts: Sequence[str], plan: ChangePlan, against: str) -> Iterator[ChangeRow]:
    """A row for each part that differs, which a modification of the plan has to name.

    against: the model from which it differs
    """
    for part in parts:
        name = plan.modification_of(part)
        found = f"changed, as {name!r} has it" if name else "changed, and no modification names it"
        wanted = "named by may_change, or unchanged"
        yield ChangeRow(
            f"change of {part}", wanted, found, name is not None, f"manifest.json and model.json: {against}", part
        )


def judge_rule(
    rule: Acceptance, estimate: Estimate, test: DifferenceTest | None, plan: LockedPlan, *, more: bool, where: str
) -> ChangeRow:
    """Whether a rule of acceptance holds.

    estimate: of the new model
    test:     of the new model less the one that it is compared with; None for the rule at_least
    more:     whether more of the metric is better
    where:    in words: against which model, in which group
    A rule holds at the level of one look, `alpha_of_look`; one-sided at half of it. What cannot be judged,
    as of too few patients, does not hold.
    Models that no patient tells apart have no interval: by Clopper and Pearson so many patients exclude that the models
    answer more than a share of patients otherwise, and this share has to lie within the margin of a ratio.
    """
    alpha = plan.alpha_of_look
    words = f"{rule.metric} of {rule.label}{f', {where}' if where else ''}"
    if rule.rule == AT_LEAST:
        return _at_least(rule, estimate, alpha, words, more=more)
    if test is None:
        return ChangeRow(f"{words}: {rule.rule}", "a difference", "there is no such figure", False, "no test")
    found = _difference(test, alpha)
    if rule.rule == NON_INFERIOR:
        wanted = f"worse by less than {rule.margin:g}, one-sided p below {alpha / 2:.4g}"
        if test.unfit:
            return ChangeRow(f"{words}: {rule.rule}", wanted, f"{found}; {test.unfit}", False, test.method)
        if test.low is None and test.difference == 0 and test.p == 1 and not estimate.unit:
            people = max(estimate.patients or estimate.n, 1)
            share = 1 - (alpha / 2) ** (1 / people)
            same = f"no patient tells them apart: at most {share:.3g} of patients do"
            if share > rule.margin:
                same += f"; {UNJUDGED} by {people} patients, but by {_enough(rule.margin, alpha)}"
            return ChangeRow(f"{words}: {rule.rule}", wanted, same, share <= rule.margin, test.method)
        shown = margins.non_inferiority(test, rule.margin, more=more)
        p = shown.p
        holds = bool(shown.p < alpha / 2)
        method = shown.method
    else:
        wanted = f"better, two-sided p below {alpha:.4g}"
        beyond = test.low is not None and test.high is not None and (test.low > 0 if more else test.high < 0)
        p = test.p
        holds = bool(test.p < alpha and beyond)
        method = test.method
    reason = margins.reason_against_margins(test) or "there is no interval"
    known = f"p {p:.3g}" if np.isfinite(p) else f"{UNJUDGED}: {reason}"
    return ChangeRow(f"{words}: {rule.rule}", wanted, f"{found}, {known}", holds, method)


def _at_least(rule: Acceptance, estimate: Estimate, alpha: float, words: str, *, more: bool) -> ChangeRow:
    low, high = interval_at_level(estimate, 1 - alpha)
    wanted = f"the {100 * (1 - alpha):.4g} % interval {'at least' if more else 'at most'} {rule.value:g}"
    end = low if more else high
    holds = end is not None and (end >= rule.value if more else end <= rule.value)
    found = f"{estimate.value:.4g}"
    found += f" ({low:.4g} to {high:.4g})" if low is not None and high is not None else " (no interval)"
    if "unreliable" in estimate.method:
        reason = estimate.method.partition("unreliable: ")[2].partition(";")[0]
        holds = False
        found = f"{found}, {UNJUDGED}: {reason}, and {FEW_PATIENTS} are needed"
    return ChangeRow(
        f"{words}: {rule.rule} {rule.value:g}", wanted, found, holds, f"{estimate.method}; n = {estimate.n}"
    )


def _enough(margin: float, alpha: float) -> int:
    """How many patients, none of whom tells two models apart, exclude that more than a margin of all do."""
    return math.ceil(math.log(alpha / 2) / math.log1p(-margin)) if margin < 1 else 1


def interval_at_level(estimate: Estimate, level: float) -> tuple[float | None, float | None]:
    """The ends of an estimate's interval at another level: each side as far out as the normal law has it."""
    if estimate.low is None or estimate.high is None:
        return None, None
    ratio = float(stats.norm.ppf((1 + level) / 2) / stats.norm.ppf((1 + estimate.level) / 2))
    low, high = (estimate.value + ratio * (end - estimate.value) for end in (estimate.low, estimate.high))
    return float(low), float(high)


def _difference(test: DifferenceTest, alpha: float) -> str:
    if test.low is None or test.high is None:
        return f"difference {test.difference:+.4g} (no interval)"
    low, high = interval_at_level(Estimate(test.difference, test.low, test.high), 1 - alpha)
    return f"difference {test.difference:+.4g} ({100 * (1 - alpha):.4g} % interval {low:+.4g} to {high:+.4g})"


def verdict_of_change(rows: Iterable[ChangeRow]) -> str:
    """Allowed where every rule of acceptance holds, else refused."""
    return ALLOWED if all(row.holds for row in rows) else REFUSED


YES = "yes"
NO = "no"
MISSING = "missing"
# Parts in which the intended use lies: what is found, and in which images.
USE = ("task.name", "task.classes", "task.findings", "task.labels", "task.values", "preprocessing.modality")


@dataclass(frozen=True)
class RegulatoryAnswer:
    """A question, its answer (yes, no or missing), and the evidence, or what has to be given."""

    number: str
    question: str
    answer: str
    evidence: str


def regulatory_answers(parts: Sequence[str]) -> list[RegulatoryAnswer]:
    """The answers for a model that differs in these parts.

    A question is answered only where the difference of the records settles it.
    """
    named = ", ".join(parts)
    use = [part for part in parts if part.startswith(USE)]
    rows = [
        (
            "use",
            "Does the change touch the intended use: what is found, or in which images?",
            *((YES, f"changed: {', '.join(use)}") if use else (MISSING, "state whether the intended use stays")),
        ),
        ("1", "Is the change made solely to strengthen cybersecurity?", NO, f"the model itself changed: {named}"),
        (
            "2",
            "Is the change made solely to return to the specification of the approved device?",
            MISSING,
            "state the specification, and where the device departed from it",
        ),
        (
            "3a",
            "Does the change bring a new cause of a hazardous situation with significant harm, or alter one?",
            MISSING,
            "give the risk analysis of the change",
        ),
        (
            "3b",
            "Does the change bring a new hazardous situation with significant harm?",
            MISSING,
            "give the risk analysis of the change",
        ),
        (
            "4",
            "Does the change bring or alter a risk control for a hazardous situation with significant harm?",
            *(
                (YES, "changed: guard, which refuses images unlike those of the training")
                if any(part.split(".")[0] == "guard" for part in parts)
                else (MISSING, "give the risk analysis of the change")
            ),
        ),
        (
            "5",
            "Could the change significantly affect clinical function or performance for the intended use?",
            *(
                (YES, f"changed: {', '.join(use)}")
                if use
                else (MISSING, f"evaluate both models on the same cases; changed: {named}")
            ),
        ),
    ]
    return [RegulatoryAnswer(*row) for row in rows]


def fired_triggers(plan: ChangePlan, monitored: MonitoringRecord) -> Iterator[tuple[str, str]]:
    """(trigger, evidence) of each trigger of the plan that a `monitor.json` bears out."""
    alerts = monitored["alerts"]
    for trigger, kind in (("bound", "performance"), ("concept", CONCEPT)):
        for alert in alerts if plan.retrain.get(trigger) else ():
            if alert["kind"] == kind:
                yield trigger, f"alert {alert['alert']} of {alert['at']}: {alert['because']}"
    wanted = plan.retrain.get("labels")
    labels = monitored["labels"]
    if wanted and labels >= wanted:
        yield "labels", f"{errors.count_phrase(labels, 'labelled case')}, {wanted} are asked for"
