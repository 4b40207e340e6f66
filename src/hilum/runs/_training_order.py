"""The trainings of a run, in their order: each role says in one function which ones there are.

A role is asked again after every training, and by then all trainings before it have ended. So it may go by what they
came to: a search changes the plan of the trainings after it, the time that the first network took decides how many
follow, and these take as many steps as the first one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from hilum.planning import PlannedTraining, plan_changes
from hilum.planning.rules import cascade_rules, split_rules
from hilum.planning.rules.cascade_rules import CASCADE, CROSS_FITS
from hilum.runs import _run_trainings
from hilum.runs._run_minutes import Minutes, SearchLength
from hilum.runs._run_trainings import (
    CONFIGURED,
    IMAGE_ONLY,
    INNER,
    MORE,
    NETWORKS,
    SEARCH,
    FinishedTraining,
    Role,
    RunTraining,
)
from hilum.runs.search_trials import OF_TRIALS, SearchProgress
from hilum.runtime import Context
from hilum.runtime.model_files import BEFORE
from hilum.runtime.model_schema import ModelOrigin
from hilum.transforms import random_draws
from hilum.values import Decision, Plan, Split

CONFIGURATIONS = "search.configurations"
SLICES, VOLUMES, BOTH = "unet_slices", "unet", "ensemble"
BY_SLICES, BY_VOLUMES = "2d", "3d"
# That the configuration was chosen by a comparison.
NNUNET = "doi:10.1038/s41592-020-01008-z"
# Cases of a fold whose label maps are predicted, at most.
MOST_UNSEEN = 30
# Sets the draw of the seeds of further networks apart from others of the same seed.
NETWORK_DRAW = 2**27
# Reasons of a control without covariates.
CONTROLLED = "trained for comparison with what the covariates add"
Done = Mapping[str, FinishedTraining]

CONFIGURATION = Role("configuration", "candidate")  # a fold of slices, volumes or a cascade, which are compared
TRIAL = Role("trial", is_of_search=True)  # short, by another plan
SEARCH_RESULT = Role("search", is_of_search=True, trains=False)  # the best trial may take the plan's place
STAGE = Role("stage", recounts=False, starts_given=False, shares_plan=True)  # marks what the next network sees
MAIN = Role("main", "model", has_repeats=True, decides=True)
FOLD = Role("fold", "model")
CONTROL = Role("control", "control", stands_beside=True)  # the same without the covariates
# Without a part of the training cases, which it then predicts.
INNER_FOLD = Role("inner", "unseen", stands_beside=True, has_repeats=True)
MEMBER = Role("member", repeats=True)  # of another seed, for the mean with the first


def next_training(
    planned: PlannedTraining, finished: Sequence[FinishedTraining], minutes: Minutes | None = None
) -> RunTraining | None:
    """The training that follows those that have ended; None where all have.

    planned: the plan as it stands by then
    minutes: of the run; None where the plan fixes the steps
    """
    done = {one.training.name: one for one in finished}
    return next((one for one in _trainings(planned, done, minutes) if one.name not in done), None)


def _trainings(planned: PlannedTraining, done: Done, minutes: Minutes | None) -> Iterator[RunTraining]:
    """All trainings in their order, as far as they are known: each only once those before it have ended."""
    if compares_configurations(planned):
        for name in configuration_names(planned):
            for fold in planned.numbers:
                yield from configuration_trainings(planned, done, name, fold)
        return
    for fold in planned.numbers:
        yield from search_trainings(planned, done, fold)
    for fold in planned.numbers:
        main = training_of(planned, done, fold)
        yield from stage_trainings(planned, done, main)
        yield main
    for fold in planned.numbers:
        yield from control_trainings(planned, done, fold)
    yield from inner_trainings(planned, done)
    yield from member_trainings(planned, done, minutes)
    if CONFIGURATIONS in planned.plan and planned.plan[CONFIGURATIONS] == BOTH:
        for fold in planned.numbers:  # these have ended, and are further networks of the folds
            yield from configuration_trainings(planned, done, BY_SLICES, fold)


def training_of(planned: PlannedTraining, done: Done, fold: int | None) -> RunTraining:
    """The training of the run's model, or of a fold of it."""
    name = "" if fold is None else f"fold_{fold}"
    if name in done:
        return done[name].training
    plan, searched = planned.plan_of(fold), done.get(_search_name(name))
    plan = plan if searched is None else plan.with_decisions(searched.decided)
    cases, share = _cases(planned, fold), 1 / _lengths(planned) / _fits(plan)
    if fold is None:
        return RunTraining(name, MAIN, plan, cases, share)
    total = len(planned.folds)
    what, record = f"training fold {fold} ({fold + 1} of {total})", ModelOrigin(fold=fold, folds=total)
    return RunTraining(name, FOLD, plan, cases, share, what, fold, record)


def _cases(planned: PlannedTraining, fold: int | None) -> dict[Split, tuple[str, ...]]:
    """{part: ids}, in the order of the data set."""
    parts, order = planned.parts_of(fold), [case.id for case in planned.examination.dataset]
    names: tuple[Split, ...] = ("train", "val", "test", "calibration")
    return {name: tuple(case for case in order if parts.get(case) == name) for name in names}


def _lengths(planned: PlannedTraining) -> float:
    """Length of all trainings together, where one of the model has the length 1."""
    models, inner_lengths = len(planned.numbers), _inner_lengths(planned)
    further = (stated_networks(planned.plan) - 1) * (models + inner_lengths)
    return models * (1 + wants_control(planned)) + inner_lengths + further


def _inner_lengths(planned: PlannedTraining) -> float:
    """Length of all inner folds together, in the same unit."""
    chosen = planned.settings.split
    share = chosen.inner_share if chosen.inner_folds else 0.0
    return len(planned.numbers) * (1 + wants_control(planned)) * share / (1 - share)


def _fits(plan: Plan) -> int:
    """Number of fits that share the time of a model: those at low resolution, and its own."""
    return 1 if plan["preprocessing.cascade"] is None else CROSS_FITS + 1


def search_trainings(planned: PlannedTraining, done: Done, fold: int | None) -> Iterator[RunTraining]:
    """The trials before a training, each as the one before asks for it, and the best once more; then their result.

    Their time is their own, and no share of that of the others.
    """
    name = _search_name("" if fold is None else f"fold_{fold}")
    if name in done:
        yield done[name].training
    if name in done or not planned.settings.search.is_on:
        return
    found = search_progress(planned, done, fold)
    yield from (ended.training for ended in found.trials)
    if (asked := found.next_trial) is not None:
        yield trial_training(planned, found.main, *asked)
        return  # the next trial is asked for when this one has ended
    for number in found.confirmation_numbers:
        yield from _again(planned, found.main, found.trials[number].training, number)
    yield replace(found.main, name=name, role=SEARCH_RESULT)


def search_progress(planned: PlannedTraining, done: Done, fold: int | None) -> SearchProgress:
    """The trials before a training that have ended."""
    main = replace(training_of(planned, {}, fold), share=0.0)
    first, repeated = (main.below(f"{SEARCH}/{name}_") for name in ("trial", "again"))
    again = defaultdict[int, list[FinishedTraining]](list)
    for name, ended in done.items():
        if name.startswith(repeated):
            again[int(name.removeprefix(repeated).partition("_")[0])].append(ended)
    return SearchProgress(planned, main, [ended for name, ended in done.items() if name.startswith(first)], again)


def trial_training(planned: PlannedTraining, main: RunTraining, number: int, plan: Plan) -> RunTraining:
    """A trial of a plan in place of that of a training."""
    length = SearchLength.from_settings(main.settings, 0.0, len(planned.numbers))
    if length.steps is not None:
        plan = plan.with_decision("training.steps", Decision(length.steps, OF_TRIALS))
    name, what = main.below(f"{SEARCH}/trial_{number:03}"), f"{main.what}, trial {number}"
    return replace(main, name=name, role=TRIAL, plan=plan, what=what)


def _again(planned: PlannedTraining, main: RunTraining, training: RunTraining, number: int) -> Iterator[RunTraining]:
    """A trial trained once more from another seed: on the same cases, or in every inner fold."""
    seed = Decision(int(main.plan["training.seed"]) + 1, "it differs from the seed of the trials")
    plan, name = training.plan.with_decision("training.seed", seed), main.below(f"{SEARCH}/again_{number:03}")
    repeated = replace(main, name=name, role=TRIAL, plan=plan, what=f"{main.what}, trial {number} once more")
    folds = [replace(repeated, name=f"{name}_fold_{fold}", cases={**inner.cases, "val": inner.cases["test"]})
             for fold, inner in enumerate(inner_fold_trainings(planned, main))]  # fmt: skip
    yield from folds or [repeated]


def _search_name(name: str) -> str:
    return f"{name}/{SEARCH}" if name else SEARCH


def stage_trainings(planned: PlannedTraining, done: Done, second: RunTraining) -> Iterator[RunTraining]:
    """The networks at low resolution, each of which marks the cases that it has not seen.

    The second stage learns to read what the first one marks. Of a case that trained it a network marks too well, and
    would be trusted blindly: so the training cases are parted as for a cross-validation. Cases that select or test are
    marked by the mean of these networks, which none of them has trained. Nothing selects: no case decides on what is
    shown of it.
    """
    if second.plan["preprocessing.cascade"] is None:
        return
    names = [second.below(f"{BEFORE}/fold_{number}") for number in range(CROSS_FITS)]
    if all(name in done for name in names):
        yield from (done[name].training for name in names)
        return
    plan, parts = first_stage_plan(planned, second.plan, second.fold), fold_by_case(planned, second, CROSS_FITS)
    for number, name in enumerate(names):
        train = tuple(case for case in second.cases["train"] if parts[case] != number)
        yield replace(
            second,
            name=name,
            role=STAGE,
            plan=plan,
            cases={**second.cases, "train": train, "val": ()},
            what=f"{second.what} at low resolution ({number + 1} of {CROSS_FITS})",
            record={**second.record, "fold": number, "folds": CROSS_FITS},
            joins=None,
        )


def first_stage_plan(planned: PlannedTraining, second: Plan, fold: int | None) -> Plan:
    """The plan of the networks at low resolution, as it follows from that of the second stage."""
    # All folds have one grid at low resolution too: what their first stages say of a new case is averaged.
    room = planned.room
    plan = room.fit_plan(cascade_rules.low_resolution_plan(second, room.fingerprint, room.machine))
    return plan if fold is None else plan_changes.shared_by_folds(plan)


def fold_by_case(planned: PlannedTraining, training: RunTraining, count: int) -> dict[str, int]:
    """{case id: fold} of the training cases, by patient."""
    dataset = replace(planned.examination.dataset.only(set(training.cases["train"])), splits={})
    folds = split_rules.split_folds(
        dataset, count, seed=training.settings.training.seed, twins=planned.examination.twins
    )
    return {case: number for number, parts in enumerate(folds) for case, part in parts.items() if part == "test"}


def control_trainings(planned: PlannedTraining, done: Done, fold: int | None) -> Iterator[RunTraining]:
    """The same network, trained as long on the same cases, without the covariates."""
    if not wants_control(planned):
        return
    main = done["" if fold is None else f"fold_{fold}"]
    training = main.training
    yield replace(
        training,
        name=f"{IMAGE_ONLY}/{training.name}" if training.name else IMAGE_ONLY,
        role=CONTROL,
        plan=without_covariates(planned.plan if fold is None else training.plan, by_clock=main.by_clock),
        what=f"{training.what} without the covariates",
        record={**training.record, "untold": CONTROLLED},
    )


def wants_control(planned: PlannedTraining) -> bool:
    """Whether a control is trained too: where the plan says so, and something is tested."""
    plan = planned.plan
    decision = "evaluation.image_only" in plan and plan["evaluation.image_only"]
    tested = any(part == "test" for part in planned.parts_of(planned.numbers[0]).values())
    takes_covariates = Context.from_settings(plan["network.context"]).names
    return bool(decision and takes_covariates and tested and plan["preprocessing.cascade"] is None)


def without_covariates(plan: Plan, *, by_clock: bool) -> Plan:
    """The same plan, but for the covariates of patients.

    by_clock: minutes decide, so that this training finds its own number of steps for them
    """
    of_images = Context.from_settings(plan["network.context"]).of_images
    context, nothing, zero = (Decision(value, CONTROLLED) for value in (of_images.settings or None, None, 0.0))
    decided = {"network.context": context, "evaluation.image_only": Decision(False, CONTROLLED)}
    if not len(of_images):
        decided |= {"network.context_fusion": nothing, "network.narrow": nothing, "network.sparsity": zero}
    decided |= {"training.steps": nothing, "training.compute": nothing} if by_clock else {}
    return plan.with_decisions({name: one for name, one in decided.items() if name in plan})


def inner_trainings(planned: PlannedTraining, done: Done) -> Iterator[RunTraining]:
    """Inner folds: each training case is predicted by a network that has not seen it.

    The networks are those of the plan, each trained without its part of the training cases, which is its test part. The
    validation cases choose their checkpoints, as they choose the main network's; the part itself chooses nothing.
    """
    count = planned.settings.split.inner_folds
    names = [f"{INNER}/fold_{number}" for number in range(count)]
    if all(name in done for name in names):
        yield from (done[name].training for name in names)
        return
    main, plan = done[""], planned.plan
    if main.by_clock:
        plan = plan.with_decision("training.steps", Decision(None, "a probe turns this fold's minutes into steps"))
    yield from inner_fold_trainings(planned, replace(main.training, plan=plan))


def inner_fold_trainings(planned: PlannedTraining, main: RunTraining) -> Iterator[RunTraining]:
    """The inner folds of a training; none where its plan has none."""
    count = planned.settings.split.inner_folds
    folds = fold_by_case(planned, main, count) if count else {}
    for number in range(count):
        part = [case for case in main.cases["train"] if folds[case] == number]
        # Label maps take their time: so many of each fold, from all over it, are enough.
        test = tuple(_run_trainings.evenly(part, MOST_UNSEEN) if has_dense_result(main) else part)
        train = tuple(case for case in main.cases["train"] if folds[case] != number)
        yield replace(
            main,
            name=main.below(f"{INNER}/fold_{number}"),
            role=INNER_FOLD,
            cases={**main.cases, "train": train, "test": test},
            share=_inner_lengths(planned) / count / _lengths(planned),
            what=f"{main.what}, inner fold {number}",
            record={**main.record, "inner_fold": number},
        )


def has_dense_result(training: RunTraining) -> bool:
    """Whether a result has values at every voxel."""
    return any(head.is_dense for head in training.settings.task.heads.values())


def member_trainings(planned: PlannedTraining, done: Done, minutes: Minutes | None) -> Iterator[RunTraining]:
    """Further networks, of other seeds, for a run's training and for each of its inner folds; their mean is the model.

    The loss of a mean of probabilities is never above the mean of their losses, so that no case has to decide whether
    it is taken: Lakshminarayanan et al., arXiv:1612.01474.
    """
    count = int(networks_decision(planned, done, minutes).value or 1)
    if count == 1 or planned.folds:
        return
    is_stated = stated_networks(planned.plan) > 1
    for finished in [one for one in done.values() if one.training.role.has_repeats]:
        main = finished.training
        for number in range(1, count):
            yield replace(
                main,
                name=main.below(f"{MORE}/{number}"),
                role=MEMBER,
                plan=_of_network(planned.plan if main.role.decides else main.plan, finished, number, count),
                share=main.share if is_stated else 0.0,
                what=f"{main.what}, network {number + 1} of {count}",
                joins=main.name,
            )


def _of_network(plan: Plan, first: FinishedTraining, number: int, count: int) -> Plan:
    """The plan of a further network, which differs from the first by its seed alone.

    The seeds are sampled by that of the first: were they the next numbers, runs of seeds 0 and 1 would have networks
    in common, which an ensemble of both would count twice.
    """
    seed, outcome, because = int(plan["training.seed"]), first.model_outcome, "as the first network was trained"
    seed_of_network = int(random_draws.sample_generator(seed, 0, number, NETWORK_DRAW).integers(2**31))
    alike = {"training.steps": outcome.steps, "training.compute": outcome.compute}
    alike |= {} if outcome.batch is None else {"training.batch": outcome.batch}
    decision = Decision(seed_of_network, f"of network {number + 1} of {count}, sampled by the seed {seed} of the first")
    return plan.with_decisions(
        {**{name: Decision(value, because) for name, value in alike.items()}, "training.seed": decision}
    )


def stated_networks(plan: Plan) -> int:
    """Number of networks that the plan states, which share the minutes; 1 where it leaves their number open."""
    return int(plan[NETWORKS] or 1) if NETWORKS in plan else 1


def networks_decision(planned: PlannedTraining, done: Done, minutes: Minutes | None) -> Decision:
    """Number of networks: stated by the plan, or by the time that the first one took."""
    plan = planned.plan
    if NETWORKS not in plan or plan[NETWORKS] is not None:
        return Decision(stated_networks(plan), "the plan states it")
    first, last = next(iter(done.values())), list(done.values())[-1]
    main = done.get("", first)
    if why := why_single_network(planned, main.training, by_clock=main.by_clock):
        return Decision(1, why)
    assert minutes is not None and main.costs is not None  # noqa: S101 - measured where minutes decide
    took = sum(ended.seconds for ended in done.values() if ended.training.role.has_repeats)
    return minutes.networks_in_time(plan.decision(NETWORKS), main.costs, last.ended, took)


def why_single_network(planned: PlannedTraining, main: RunTraining, *, by_clock: bool) -> str:
    """Why a training has one network although its plan leaves the number open; empty where minutes decide it."""
    chosen = main.settings
    if planned.folds:
        return "the networks of the folds are one model already"
    if chosen.preprocessing.cascade is not None:
        return "each stage of a cascade is one network"
    if wants_control(planned):
        return "its control without covariates is one network"
    if chosen.inference.uncertainty not in ("auto", "members"):
        return f"inference.uncertainty is {chosen.inference.uncertainty}, of a single network"
    return "" if by_clock else "the number of steps decides, so that no minutes are left"


def compares_configurations(planned: PlannedTraining) -> bool:
    """Whether folds compare networks of slices, of volumes, their mean and a cascade before one is taken.

    nnU-Net chooses its best configuration so (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z).
    """
    if CONFIGURATIONS not in planned.plan:
        return False
    decision = planned.plan.decision(CONFIGURATIONS)
    return decision.value == "auto" or (decision.value == BOTH and decision.source != NNUNET)


def configuration_names(planned: PlannedTraining) -> tuple[str, ...]:
    """The names of those that are trained, from the simplest on."""
    return cascade_rules.compared_configurations(cascade=has_cascade(planned))


def configuration_trainings(planned: PlannedTraining, done: Done, name: str, fold: int | None) -> Iterator[RunTraining]:
    """A fold by one configuration, with the networks before it; all have equal parts of the minutes."""
    folder = f"{CONFIGURED}/{name}/fold_{fold}"
    if folder in done:
        training = done[folder].training
    else:
        training = training_of(replace(planned, plan=configuration_plan(planned, name)), {}, fold)
        share = 1 / len(configuration_names(planned)) / len(planned.folds) / _fits(training.plan)
        what, joins = f"{training.what}, {name}", training.name
        training = replace(training, name=folder, role=CONFIGURATION, share=share, what=what, joins=joins)
    yield from stage_trainings(planned, done, training)
    yield training


def configuration_plan(planned: PlannedTraining, name: str) -> Plan:
    """The plan of a configuration; the plan's own network is one of them."""
    plan, network_name, room = planned.plan, str(planned.plan["network.name"]), planned.room
    family = SLICES if name == BY_SLICES else VOLUMES if network_name == SLICES else network_name
    because = f"the configuration {name}, which is compared with others"
    if family != network_name:
        size = {"network.size": Decision(dict(room.size(plan, family)), because)}
        plan = plan.with_decisions({"network.name": Decision(family, because), **size})
    if name != CASCADE and has_cascade(planned):
        plan = plan_changes.without_cascade(plan, because)
    return plan if plan is planned.plan else room.fit_plan(plan)


def has_cascade(planned: PlannedTraining) -> bool:
    """Whether the plan has a cascade, which is compared too."""
    return planned.plan["preprocessing.cascade"] is not None
