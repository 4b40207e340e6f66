"""Decisions that fall while trainings run: in the log, and in the plan of their run."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from isocenter.planning import ENDED_EARLY, FOLD_BATCHES, FOLD_SCALES, FOLD_SEARCHES, SCALE, before_run
from isocenter.runs.training import SEARCH
from isocenter.training import Outcome
from isocenter.values import Decision, Plan

log = logging.getLogger("isocenter")
EARLY_STOP = "training.early_stop"
# {decision: its line in the log}, in the order in which they are logged.
DECIDED = {
    "network.size": "{what} with a narrower network: {because}",
    "training.compute": "{what} is computed {value}: {because}",
    "training.batch": "{what} in steps of {value}: {because}",
    "inference.flips": "{what}: no window is mirrored in prediction: {because}",
    "training.steps": "{what} for {value} steps: {because}",
}


def log_decisions(what: str, decisions: Mapping[str, Decision]) -> None:
    """Log what was decided while this training ran."""
    for name, line in DECIDED.items():
        if (decision := decisions.get(name)) is not None:
            log.info(line.format(what=what, value=decision.value, because=decision.because))


def with_stop(plan: Plan, outcome: Outcome) -> Plan:
    """The plan with why training ended early, if it did."""
    return _stopped(plan, outcome.stopped) if outcome.stopped else plan


def _stopped(plan: Plan, why: str) -> Plan:
    """The plan with why trainings ended early, after the reason why they may."""
    early = plan.decision(EARLY_STOP)
    return plan.with_decision(EARLY_STOP, replace(early, because=f"{before_run(early)}{ENDED_EARLY} {why}"))


def with_reasons(plan: Plan, plans: Sequence[Plan], outcomes: Sequence[Outcome]) -> Plan:
    """The plan with what holds of folds: steps and batch of each, what ended one early, whose intensities count.

    plans: of each fold
    """
    if plan["training.steps"] is None:
        each = ", ".join(str(outcome.steps) for outcome in outcomes)
        because = f"a probe in each fold turned the minutes into steps: {each}"
        plan = plan.with_decision("training.steps", Decision(None, because))
        fastest = f"a probe in each fold found the fastest: {', '.join(outcome.compute for outcome in outcomes)}"
        plan = plan.with_decision("training.compute", Decision(None, fastest))
    if any(outcome.batch for outcome in outcomes):
        batch = plan.decision("training.batch")
        each = ", ".join(str(outcome.batch or batch.value) for outcome in outcomes)
        because = f"{before_run(batch)}{FOLD_BATCHES} {each}"
        plan = plan.with_decision("training.batch", Decision(batch.value, because, batch.source))
    if any(own[SCALE] != plan[SCALE] for own in plans):
        scale = plan.decision(SCALE)
        plan = plan.with_decision(SCALE, replace(scale, because=f"{before_run(scale)}{FOLD_SCALES}"))
    stopped = [f"fold {fold}: {outcome.stopped}" for fold, outcome in enumerate(outcomes) if outcome.stopped]
    return _stopped(plan, "; ".join(stopped)) if stopped else plan


def with_searches(plan: Plan, plans: Sequence[Plan]) -> Plan:
    """The plan with what each fold's own search has put in the place of a decision.

    plans: of each fold
    """
    for name, planned in plan:
        own = {fold: one.decision(name) for fold, one in enumerate(plans)}
        changed = {fold: decision for fold, decision in own.items() if decision.source.startswith(SEARCH)}
        if changed:
            values = ", ".join(f"{decision.value} in fold {fold}" for fold, decision in changed.items())
            because = f"{before_run(planned)}{FOLD_SEARCHES} {values}"
            plan = plan.with_decision(name, Decision(planned.value, because, planned.source))
    return plan
