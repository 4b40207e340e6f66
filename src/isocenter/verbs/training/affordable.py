"""Parts of a plan that are given up where its minutes are few, by what this machine was measured to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from isocenter.runtime import use_threads
from isocenter.training import NARROWER, narrower
from isocenter.values import BY_HAND, Decision, Plan
from isocenter.verbs.training.decisions import PlanLog, with_decisions
from isocenter.verbs.training.part import Part
from isocenter.verbs.training.run_folder import SEARCH, RunFolder, state_of
from isocenter.verbs.training.time_budget import AS_STEPS, REPORT_SECONDS, Afterwards, Costs

MEMORY, SIZE, VIEWS = "training.memory", "network.size", "inference.flips"
# Of the minutes, what predictions may take before the mirrored views of each window are given up.
FOLLOWING_SHARE = 0.25


def afforded(
    run: RunFolder, parts: Sequence[Part], after: Afterwards | None, trainings: float, log: PlanLog
) -> tuple[Sequence[Part], Costs | None]:
    """The parts, narrower or without mirrored views where the minutes are few, and the measured costs of the first.

    Nothing is measured where the plan fixes the steps, or where an earlier session has already decided.
    trainings: that share the time equally
    """
    if after is None or any(state_of(part.job.out) for part in parts):
        return parts, None
    use_threads(parts[0].job.settings.training.threads)
    seen, costs = _with_fewer_views(parts, after)
    left = (after.first_deadline(costs) - run.clock.seconds) / trainings
    if (size := narrower_network(seen[0], left)) is not None:
        plan = run.made.room.fitted(with_decisions(seen[0].job.plan, {SIZE: size}))
        decisions = {SIZE: size, MEMORY: plan.decision(MEMORY)}
        log(decisions)
        seen, costs = _with_fewer_views([part.deciding(decisions) for part in parts], after)
    views = seen[0].job.plan.decision(VIEWS)
    if views != parts[0].job.plan.decision(VIEWS):
        log({VIEWS: views})
    return seen, costs


def _with_fewer_views(parts: Sequence[Part], after: Afterwards) -> tuple[Sequence[Part], Costs]:
    costs = after.costs(parts[0].fresh_model)
    if (views := fewer_views(parts[0].job.plan, after, costs)) is None:
        return parts, costs
    parts = [part.deciding({VIEWS: views}) for part in parts]
    return parts, replace(costs, predict=after.predicting(parts[0].fresh_model))


def fewer_views(plan: Plan, after: Afterwards, costs: Costs) -> Decision | None:
    """To see no window mirrored, where that would take too much of the time; None where the plan stays.

    What was set by hand stays, and so does what no clock may decide.
    """
    flips = plan.decision(VIEWS)
    if not flips.value or flips.because == BY_HAND or plan["training.deterministic"]:
        return None
    following = after.seconds(replace(costs, score=0.0, tune=0.0)) - REPORT_SECONDS
    if following <= FOLLOWING_SHARE * 60 * after.minutes:
        return None
    because = (
        f"with {2 ** len(flips.value)} views of each window the predictions after training would take "
        f"{following:.0f} s, more than {FOLLOWING_SHARE:.0%} of {after.minutes:g} minutes: {AS_STEPS}"
    )
    return Decision([], because)


def narrower_network(part: Part, left: float) -> Decision | None:
    """A narrower network, where there is time for few steps of the planned one; None where the plan stays.

    What was set by hand stays, what weights are loaded into or a search has found, the width that both stages of a
    cascade have, and that of an earlier session, which has halved it already.
    left: s that its training has
    """
    plan, job = part.job.plan, part.job
    size = plan.decision(SIZE)
    given = part.stage is not None or job.start is not None or plan["network.pretrained"] is not None
    if given or size.source.startswith(SEARCH) or size.because == BY_HAND or size.because.endswith(NARROWER):
        return None
    return narrower(job.settings, left)
