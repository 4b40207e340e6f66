"""What is trained next, by what the trainings before have come to: nothing is trained here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import hilum
import trained
from hilum.planning import PlannedTraining
from hilum.runs import _training_order
from hilum.runs._case_costs import SecondsPerCase
from hilum.runs._run_minutes import Minutes
from hilum.runs._run_trainings import FinishedTraining, Role, RunTraining, TrialResult
from hilum.runs._training_order import CONTROL, MAIN, NETWORKS, NNUNET, SEARCH_RESULT, STAGE, TRIAL
from hilum.training.search_study import COMPLETE, StudyTrial
from hilum.training.training_state import TrainingOutcome
from hilum.values import Decision, Plan

STEPS = {"training.steps": 6, "network.size": trained.SMALL_RESNET}
SMALL = {"training.steps": 6, "network.size": trained.SMALL_UNET}
BY_CLOCK = {"network.size": trained.SMALL_RESNET, "split.inner_folds": 0}
QUICK = SecondsPerCase(predict=0.01, score=0.0, tune=0.0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return trained.pictures(tmp_path_factory.mktemp("pictures"), 30)


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    return trained.blobs(tmp_path_factory.mktemp("blobs"), 8)


@pytest.fixture(scope="module")
def aged(pictures, tmp_path_factory):
    """A table of the same pictures with an age."""
    rows = [f"{path},{path.parent.name},p{n},{40 + n % 9}.0" for n, path in enumerate(sorted(pictures.rglob("*.png")))]
    table = tmp_path_factory.mktemp("aged") / "cases.csv"
    table.write_text("\n".join(["image,label,patient,age", *rows]))
    return table


def plan(data: Path, assignments: Mapping[str, Any] = STEPS, **given: Any) -> PlannedTraining:
    return hilum.plan(data, device="cpu", threads=1, assignments=assignments, **given)


def ended(training: RunTraining, **known: Any) -> FinishedTraining:
    """A training that took a minute."""
    outcome = TrainingOutcome(Path(training.name), "", steps=40, compute="eager")
    return FinishedTraining(training, **{"outcome": outcome, "seconds": 60.0, "ended": 60.0, **known})


def everything(
    planned: PlannedTraining, minutes: Minutes | None = None, end: Callable[[RunTraining], FinishedTraining] = ended
) -> list[RunTraining]:
    """All trainings, each of which ends as `end` says."""
    finished = list[FinishedTraining]()
    while (training := _training_order.next_training(planned, finished, minutes)) is not None:
        finished.append(end(training))
    return [one.training for one in finished]


def test_a_plan_of_steps_has_one_training_that_never_sees_its_test_cases(pictures):
    planned = plan(pictures)
    [main] = everything(planned)
    assert (main.name, main.role, main.share, main.fold) == ("", MAIN, 1.0, None)
    assert {part: set(ids) for part, ids in main.cases.items()} == {
        part: {case for case, own in planned.parts.items() if own == part} for part in main.cases
    }
    assert not set(main.cases["train"]) & set(main.cases["test"])


def test_every_case_is_tested_by_one_fold_and_all_folds_share_the_time_evenly(pictures):
    planned = plan(pictures, folds=3)
    folds = everything(planned)
    assert [one.name for one in folds] == ["fold_0", "fold_1", "fold_2"]
    assert [one.share for one in folds] == pytest.approx([1 / 3] * 3)
    tested = Counter(case for one in folds for case in one.cases["test"])
    assert tested == Counter(case.id for case in planned.examination.dataset)
    assert [one.record for one in folds] == [{"fold": fold, "folds": 3} for fold in range(3)]


def test_a_control_follows_with_what_its_model_has_decided_but_for_the_covariates_and_its_own_steps(aged):
    planned = plan(aged, {**STEPS, "network.context": "all"})
    main, control = everything(planned, None, lambda one: ended(one, by_clock=True))
    assert (main.share, control.share) == (0.5, 0.5)
    assert (control.name, control.role, control.cases) == ("image_only", CONTROL, main.cases)
    assert main.plan["network.context"] and control.plan["network.context"] is None
    assert control.plan["training.steps"] is None  # its own minutes decide
    by_steps = _training_order.next_training(planned, [ended(main)])
    assert by_steps.plan["training.steps"] == 6


def test_the_controls_of_folds_follow_all_of_them(aged):
    found = everything(plan(aged, {**STEPS, "network.context": "all"}, folds=2))
    assert [one.name for one in found] == ["fold_0", "fold_1", "image_only/fold_0", "image_only/fold_1"]
    assert [one.share for one in found] == pytest.approx([0.25] * 4)


def test_each_inner_fold_trains_without_the_part_that_it_predicts(pictures):
    planned = plan(pictures, {**STEPS, "split.inner_folds": 3, "split.inner_share": 0.25})
    main, *inner = everything(planned)
    assert [one.name for one in inner] == [f"inner/fold_{n}" for n in range(3)]
    for one in inner:
        assert set(one.cases["train"]) | set(one.cases["test"]) == set(main.cases["train"])
        assert not set(one.cases["train"]) & set(one.cases["test"])
        assert one.cases["val"] == main.cases["val"]
    assert Counter(case for one in inner for case in one.cases["test"]) == Counter(main.cases["train"])
    assert main.share == pytest.approx(0.75) and sum(one.share for one in inner) == pytest.approx(0.25)


def test_minutes_that_are_left_train_further_networks_which_differ_by_their_seeds(pictures):
    planned, minutes = plan(pictures, BY_CLOCK, minutes=30), Minutes(30.0, None, 0, [])
    main, *others = everything(planned, minutes, lambda one: ended(one, by_clock=True, costs=QUICK))
    assert [one.name for one in others] == [f"more/{n}" for n in range(1, 5)]
    assert {(one.plan["training.steps"], one.plan["training.compute"]) for one in others} == {(40, "eager")}
    assert len({one.plan["training.seed"] for one in (main, *others)}) == 5
    assert [one.share for one in others] == [0.0] * 4


@pytest.mark.parametrize(
    ("known", "planned_by"),
    [
        ({"costs": SecondsPerCase(5.0, 0.0, 0.0)}, {}),  # a case would take too long
        ({"costs": QUICK, "seconds": 1700.0, "ended": 1700.0}, {}),  # no time is left
        ({"by_clock": False}, {}),
        ({}, {"inference.uncertainty": "none"}),
    ],
)
def test_one_network_stays_alone_where_more_would_take_too_long_or_mean_nothing(pictures, known, planned_by):
    planned, minutes = plan(pictures, {**BY_CLOCK, **planned_by}, minutes=30), Minutes(30.0, None, 0, [])
    assert len(everything(planned, minutes, lambda one: ended(one, **{"by_clock": True, **known}))) == 1


def test_a_stated_number_of_networks_shares_the_time_and_the_inner_folds_have_as_many(pictures):
    planned = plan(pictures, {**STEPS, NETWORKS: 2, "split.inner_folds": 2, "split.inner_share": 0.5})
    found = everything(planned)
    assert [one.name for one in found] == [
        *("", "inner/fold_0", "inner/fold_1", "more/1", "inner/fold_0/more/1", "inner/fold_1/more/1")
    ]
    assert sum(one.share for one in found) == pytest.approx(1.0)


def test_further_networks_have_the_batch_to_which_few_steps_have_brought_the_first(pictures):
    planned = plan(pictures, {**STEPS, NETWORKS: 3})
    for batch, taken in ((1, 1), (None, planned.plan["training.batch"])):
        outcome = TrainingOutcome(Path(), "", steps=40, batch=batch)
        found = everything(planned, None, lambda one, own=outcome: ended(one, outcome=own))
        assert [one.plan["training.batch"] for one in found[1:]] == [taken] * 2


def test_runs_of_neighbouring_seeds_have_no_network_in_common(pictures):
    found = [
        one.plan["training.seed"]
        for n in range(4)
        for one in everything(plan(pictures, {**STEPS, NETWORKS: 5}, seed=n))
    ]
    assert len(set(found)) == 4 * 5


def test_the_networks_at_low_resolution_come_first_and_part_the_training_cases(blobs):
    planned = plan(blobs, {**SMALL, "preprocessing.cascade": 2.0}, labels=trained.LABELS)
    first, second, main = everything(planned)
    assert [one.name for one in (first, second, main)] == ["low_resolution/fold_0", "low_resolution/fold_1", ""]
    assert {first.role, second.role} == {STAGE} and first.plan["preprocessing.cascade"] is None
    assert sorted([*first.cases["train"], *second.cases["train"]]) == sorted(main.cases["train"])
    assert not first.cases["val"]
    assert [one.share for one in (first, second, main)] == pytest.approx([1 / 3] * 3)


def test_no_stage_of_a_fold_sees_the_cases_that_it_scores_and_all_first_stages_have_one_grid(blobs):
    planned = plan(blobs, {**SMALL, "preprocessing.cascade": 2.0}, folds=2, labels=trained.LABELS)
    found = everything(planned)
    assert [one.name for one in found][:3] == ["fold_0/low_resolution/fold_0", "fold_0/low_resolution/fold_1", "fold_0"]
    for one in found:
        tested = {case for case, part in planned.folds[one.fold].items() if part == "test"}
        assert tested and not tested & {*one.cases["train"], *one.cases["val"]}
    stages = [one for one in found if one.role is STAGE]
    for name in ("training.patch", "inference.patch", "network.size"):
        assert len({str(one.plan[name]) for one in stages}) == 1
        assert stages[-1].plan.decision(name).because.count("of fold 0, for all folds alike") == 1


SEARCHED = {**STEPS, "search.trials": 3, "search.steps": 4}


def tried(
    number: int, value: float | None, state: str = COMPLETE, asked: tuple[int, Plan] | None = None
) -> TrialResult:
    numbers = {"right": torch.full((9,), bool(value and value > 0.5)), "weight": torch.ones(9)}
    return TrialResult(StudyTrial(number, {}, state, value, {"said": "a faster rate", "seconds": 1.0}), numbers, asked)


def test_a_search_asks_for_one_trial_after_the_other_and_then_states_its_result(pictures):
    planned = plan(pictures, SEARCHED)
    faster = planned.plan.with_decision("training.learning_rate", Decision(0.1, "tried"))
    first = _training_order.next_training(planned, [])
    assert (first.name, first.role, first.share) == ("search/trial_000", TRIAL, 0.0)
    assert first.plan["training.steps"] == 4
    assert first.plan["training.learning_rate"] == planned.plan["training.learning_rate"]
    own = ended(first, trial=tried(0, 0.8, asked=(2, faster)))  # the second could not be followed
    second = _training_order.next_training(planned, [own])
    assert (second.name, second.plan["training.learning_rate"]) == ("search/trial_002", 0.1)
    worse = [own, ended(second, trial=tried(2, 0.7))]
    result = _training_order.next_training(planned, worse)
    assert (result.name, result.role) == ("search", SEARCH_RESULT)
    found = _training_order.search_progress(planned, {one.training.name: one for one in worse}, None).result
    assert not found.changed and "0.8000, is the highest of 2 trials" in found.statement


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (tried(0, None, "impossible"), "nothing can be compared with the plan's own trial"),
        (tried(0, 0.8), "leaves no time for another and its confirmation: the plan stays"),
    ],
)
def test_nothing_is_compared_with_a_plan_that_cannot_be_tried_or_by_minutes_for_one_trial(pictures, own, says):
    planned = plan(pictures, SEARCHED)
    only = ended(_training_order.next_training(planned, []), trial=own)
    assert _training_order.next_training(planned, [only]).role is SEARCH_RESULT
    found = _training_order.search_progress(planned, {only.training.name: only}, None).result
    assert not found.changed and says in found.statement


def test_with_inner_folds_the_best_trial_and_the_plan_are_trained_once_more_in_each(pictures):
    planned = plan(pictures, {**SEARCHED, "split.inner_folds": 2})
    faster = planned.plan.with_decision("training.learning_rate", Decision(0.1, "tried"))
    finished = [ended(_training_order.next_training(planned, []), trial=tried(0, 0.4, asked=(1, faster)))]
    finished.append(ended(_training_order.next_training(planned, finished), trial=tried(1, 0.9)))
    while (again := _training_order.next_training(planned, finished)).role is TRIAL:
        truth = torch.arange(len(again.cases["val"])) % 2
        called = truth if again.name.startswith("search/again_001") else 1 - truth
        numbers = {"target": truth, "probabilities": torch.nn.functional.one_hot(called, 2).double()}
        finished.append(ended(again, trial=TrialResult(None, numbers)))
        assert not set(again.cases["val"]) & set(again.cases["train"])
    assert [one.training.name for one in finished[2:]] == [
        f"search/again_{trial}_fold_{fold}" for trial in ("001", "000") for fold in (0, 1)
    ]
    assert len({one.training.plan["training.seed"] for one in finished}) == 2
    count = list(planned.parts.values()).count("train")
    [decision] = _training_order.search_progress(
        planned, {one.training.name: one for one in finished}, None
    ).result.changed.values()
    assert (decision.value, f"on {count} training cases in inner folds" in decision.because) == (0.1, True)
    assert "of bootstrap draws" not in decision.because  # the validation cases only choose the trial


def test_a_search_changes_the_plan_of_its_own_fold_alone(pictures):
    planned = plan(pictures, SEARCHED, folds=2)
    decided = {"training.weight_decay": Decision(0.3, "trial 1 of 2")}
    by_fold = {"fold_0/search": {}, "fold_1/search": decided}
    found = everything(planned, None, lambda one: ended(one, decided=by_fold.get(one.name, {}), trial=tried(0, 0.5)))
    assert [one.name for one in found] == [
        *("fold_0/search/trial_000", "fold_0/search", "fold_1/search/trial_000", "fold_1/search", "fold_0", "fold_1")
    ]
    assert [one.share for one in found] == pytest.approx([0, 0, 0, 0, 0.5, 0.5])
    for one in found[:4]:
        tested = {case for case, part in planned.folds[one.fold].items() if part == "test"}
        assert tested and not tested & {*one.cases["train"], *one.cases["val"]}
    own, other = (found[place].plan["training.weight_decay"] for place in (5, 4))
    assert own == 0.3 != other == planned.plan["training.weight_decay"]


def test_configurations_are_trained_fold_by_fold_and_then_nothing_until_one_is_chosen(blobs):
    given = {"training.steps": 6, "search.configurations": "auto"}
    planned = plan(blobs, given, folds=2, labels=trained.LABELS)
    found = everything(planned)
    assert [one.name for one in found] == [f"configurations/{name}/fold_{k}" for name in ("2d", "3d") for k in (0, 1)]
    assert sum(one.share for one in found) == pytest.approx(1.0)
    assert [one.plan["network.name"] for one in found[::2]] == ["unet_slices", "unet"]
    for chosen, more in (("3d", []), ("ensemble", [one.name for one in found[:2]])):
        decision = Decision(chosen, "the simplest that is not surely worse", NNUNET)
        taken = _training_order.configuration_plan(planned, "3d").with_decision("search.configurations", decision)
        after = PlannedTraining(taken, planned.examination, planned.parts, folds=planned.folds)
        assert [one.name for one in everything(after)] == ["fold_0", "fold_1", *more]


def test_nothing_follows_the_last_training(pictures):
    planned = plan(pictures)
    assert _training_order.next_training(planned, [ended(_training_order.training_of(planned, {}, None))]) is None


@pytest.mark.parametrize(
    ("states", "batches"), [({}, []), ({"has_repeats": True}, [7]), ({"has_repeats": True, "decides": True}, [4])]
)
def test_what_follows_a_training_of_a_role_that_nobody_knows_is_what_its_role_states(pictures, states, batches):
    planned = plan(pictures, {**STEPS, NETWORKS: 2, "training.batch": 4})
    main = _training_order.training_of(planned, {}, None)
    own = planned.plan.with_decision("training.batch", Decision(7, "of this round alone"))
    one_round = replace(main, name="rounds/0", role=Role("round", **states), plan=own)
    finished = [ended(main), ended(one_round)]
    while (training := _training_order.next_training(planned, finished)) is not None:
        finished.append(ended(training))
    found = [(one.training.name, one.training.joins, one.training.plan["training.batch"]) for one in finished[2:]]
    assert found == [("more/1", "", 4), *(("rounds/0/more/1", "rounds/0", batch) for batch in batches)]
