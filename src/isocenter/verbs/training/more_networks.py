"""Further networks, of other seeds, for the minutes that one training leaves; the model is their mean.

The loss of a mean of probabilities is never above the mean of their losses, so that no case has to decide whether it
is taken: Lakshminarayanan et al., arXiv:1612.01474.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from isocenter.errors import counted
from isocenter.runtime import Model, load, write_members
from isocenter.training import Outcome, Several
from isocenter.transforms import generator
from isocenter.values import Decision, Plan
from isocenter.verbs.training.decisions import with_decisions
from isocenter.verbs.training.fit import Job, More
from isocenter.verbs.training.image_only_control import is_wanted
from isocenter.verbs.training.run_folder import MORE, RunFolder, state_of
from isocenter.verbs.training.time_budget import Afterwards, Costs, training_deadline

log = logging.getLogger("isocenter")
NETWORKS = "training.networks"
# More of them gain little over these: Lakshminarayanan et al., arXiv:1612.01474, figures 2 and 3.
MOST = 5
# s that all of them together may take for a case: whoever predicts with a slow machine waits for each.
PATIENCE = 1.0
# Sets the draw of their seeds apart from others of the same seed.
NETWORK_DRAW = 2**27


def stated_count(plan: Plan) -> int:
    """How many networks the plan states, so that they share the minutes; 1 where it leaves their number open."""
    return int(plan[NETWORKS] or 1) if NETWORKS in plan else 1


def number_of_networks(
    run: RunFolder, plan: Plan, job: Job, outcome: Outcome, after: Afterwards | None, began: float
) -> Decision:
    """How many networks there are where the plan leaves it open and the first has been trained.

    began: s of the clock before it, with what prepares its cases
    """
    if (why := why_single(run, job, minutes_decide=after is not None)) or after is None:
        return Decision(1, why)
    costs, now = after.costs(load(outcome.checkpoint, job.settings.training.device)), run.clock.seconds
    share = state_of(job.out).get("share")
    return networks_in_time(plan, after, costs, now, now - (share["began"] if share else began))


def networks_in_time(plan: Plan, after: Afterwards, costs: Costs, now: float, each: float) -> Decision:
    """How many networks there are, the first included, where minutes decide.

    now:  s since the command's start
    each: s that one network took, with those of its inner folds
    """
    chosen, left = plan.decision(NETWORKS), 0.0
    for count in range(MOST, 1, -1):
        several = replace(costs, predict=count * costs.predict)
        left = training_deadline(after.minutes, after.seconds(several)) - now
        if several.predict <= PATIENCE and (count - 1) * each <= left:
            break
    else:
        count = 1
    because = (
        f"one took {each:.0f} s to train and predicts a case in {costs.predict:.2f} s, where all together may take "
        f"{PATIENCE:g} s; after the first {max(0.0, left):.0f} s were left"
    )
    return Decision(count, f"{chosen.because}: {because}", chosen.source)


def may_share(run: RunFolder, job: Job, after: Afterwards, costs: Costs | None) -> Several | None:
    """The networks for every voxel that may share the minutes of a run whose plan leaves their number open.

    costs: of a prediction by fresh weights; None where an earlier session has decided
    """
    several_open = NETWORKS in job.plan and job.plan[NETWORKS] is None
    if costs is None or not several_open or job.settings.training.epochs or why_single(run, job, minutes_decide=True):
        return None
    most = int(min(MOST, PATIENCE / max(costs.predict, PATIENCE / MOST)))
    extra = after.seconds(replace(costs, predict=2 * costs.predict)) - after.seconds(costs)
    return Several(most, extra) if most > 1 else None


def why_single(run: RunFolder, job: Job, *, minutes_decide: bool) -> str:
    """Why a training has one network although its plan leaves the number open; empty where minutes decide it."""
    if run.made.folds:
        return "the networks of the folds are one model already"
    if job.settings.preprocessing.cascade is not None:
        return "each stage of a cascade is one network"
    if is_wanted(run, job.test):
        return "its control without covariates is one network"
    if job.settings.inference.uncertainty not in ("auto", "members"):
        return f"inference.uncertainty is {job.settings.inference.uncertainty}, of a single network"
    if job.settings.task.states_evidence:
        return "its network states evidence, which several networks have no mean of"
    if job.settings.training.snapshots > 1 or job.settings.training.swag:
        return "one training leaves several members already"
    if run.clock.spent and not state_of(job.out).get("share"):
        return "the run was stopped before it was decided, so that nobody knows how long one takes"
    return "" if minutes_decide else "the number of steps decides, so that no minutes are left"


def more_jobs(job: Job, outcome: Outcome, count: int) -> list[Job]:
    """The trainings of the networks after the first of a job, which differ from it by their seeds alone.

    The seeds are drawn by that of the first: were they the next numbers, runs of the seeds 0 and 1 would have networks
    in common, which an ensemble of both would count twice.
    outcome: of the first
    """
    seed = int(job.plan["training.seed"])
    because = "as the first network was trained"
    alike = {"training.steps": Decision(outcome.steps, because), "training.compute": Decision(outcome.compute, because)}
    if outcome.batch is not None:
        alike["training.batch"] = Decision(outcome.batch, because)
    jobs = []
    for number in range(1, count):
        drawn = int(generator(seed, 0, number, NETWORK_DRAW).integers(2**31))
        own = Decision(drawn, f"of network {number + 1} of {count}, drawn by the seed {seed} of the first")
        plan = with_decisions(job.plan, {**alike, "training.seed": own})
        what = f"{job.what}, network {number + 1} of {count}"
        jobs.append(replace(job, out=job.out / MORE / str(number), plan=plan, what=what))
    return jobs


def with_members(trainings: Sequence[tuple[Job, Outcome]], more: More) -> More:
    """Further networks of trainings, with the members that each of them and each training has left by itself."""
    made = dict[Path, Sequence[Outcome]]()
    for job, outcome in trainings:
        each = [outcome, *more.get(job.out, ())]
        own = [replace(one, checkpoint=path, members=()) for one in each for path in one.members]
        if others := [*each[1:], *own]:
            made[job.out] = others
    return made


def write_mean(out: Path, networks: Sequence[Sequence[Outcome]], model: Model) -> None:
    """The networks of a run, or of each of its folds, as one model, which `load` then takes in place of the first.

    model: with the task that they have in common
    """
    checkpoints = [one.checkpoint for own in networks for one in own]
    ends = list(accumulate(map(len, networks)))
    folds = [[*range(end - len(own), end)] for own, end in zip(networks, ends, strict=True)]
    write_members(checkpoints, model, {"folds": folds} if len(folds) > 1 else {}, out)
    log.info("the model is the mean of %s", counted(len(checkpoints), "network"))
