from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

import hilum
import trained
from hilum.errors import HilumError
from hilum.files.storage import atomic
from hilum.networks import network_family
from hilum.planning import plan_changes, plan_checks, plan_file
from hilum.runs import _case_costs, run_folder, training_jobs
from hilum.runs import _run_minutes as minutes_of_runs
from hilum.runs._run_minutes import Minutes
from hilum.runs._run_trainings import RunTraining
from hilum.runs._training_order import MAIN
from hilum.runs.plan_request import PlanRequest
from hilum.runtime import model_files, record_files
from hilum.tasks import task_catalogue
from hilum.training import checkpoint_files
from hilum.training._training_session import TrainingSession
from hilum.training.checkpoint_files import Validation
from hilum.training.length import step_probe
from hilum.training.length.schedule import FEWEST_STEPS, Speed, TrainingPace
from hilum.training.session_length import Length
from hilum.training.training_state import COLUMNS, State
from hilum.values import Decision


@dataclass(frozen=True, eq=False, kw_only=True)
class Planned(Length):
    """A length that believes in so many steps of a ms without a probe."""

    steps: int

    def plan_steps(self, session: TrainingSession) -> State:
        return State(0, TrainingPace(self.steps), 4, speed=Speed(0.001, 0.0))


@dataclass(frozen=True, eq=False, kw_only=True)
class Unchanged(Planned):
    """One that stays as it is."""

    def adjust(self, session: TrainingSession, state: State, step: float) -> tuple[Length, State]:
        return self, state


@dataclass(frozen=True, eq=False, kw_only=True)
class Watched(Length):
    """A length that notes the samples of a step whenever it is looked at."""

    batches: list[int]

    def plan_steps(self, session: TrainingSession) -> State:
        self.batches.append(session.loader.batch)
        return super().plan_steps(session)

    def adjust(self, session: TrainingSession, state: State, step: float) -> tuple[Length, State]:
        self.batches.append(session.loader.batch)
        return super().adjust(session, state, step)


def test_the_metric_of_a_validation_is_the_tasks_own_score(segmented):
    """Where the network's grid is the image's own, up to its order of axes, nothing is lost on the way."""
    model = hilum.load(segmented.out / "checkpoints" / "last", "cpu")
    scored = hilum.evaluate(segmented.out / "checkpoints" / "last", segmented.data, labels=trained.LABELS, device="cpu")
    parts = pd.read_csv(segmented.out / "split.csv", dtype=str)
    val = parts.loc[parts["split"] == "val", "case"]
    table = scored.scored.table
    expected = table[table["case"].isin(val)]["dice"].mean()
    logged = pd.read_csv(segmented.out / "log.csv")["validation"].iloc[-1]
    assert model.record["step"] == 6
    assert logged == pytest.approx(expected, abs=0.02)  # validation runs in the precision of the training


def test_the_log_has_a_row_a_step_and_the_validations_that_were_planned(segmented):
    log = pd.read_csv(segmented.out / "log.csv")
    assert list(log.columns) == list(COLUMNS)
    assert log["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert log["seconds"].is_monotonic_increasing
    assert log.loc[log["validation"].notna(), "step"].tolist() == [3, 6]
    assert log["training_metric"].notna().tolist() == log["validation"].notna().tolist()
    assert log["gradient_norm"].gt(0).all()


def test_the_best_checkpoint_holds_the_weights_of_the_validation_it_names(segmented):
    log = pd.read_csv(segmented.out / "log.csv").dropna().set_index("step")["validation"]
    record = record_files.read_json(segmented.out / "checkpoints" / "best" / "model.json", "hilum.model")["record"]
    assert record["validation"] == pytest.approx(log[record["step"]])
    assert record["step"] in (log.idxmax(), log.index[-1])  # the last, where earlier ones are not surely better


@pytest.mark.parametrize(("lucky", "taken"), [(1, 6), (8, 3)])
@pytest.mark.whole
def test_earlier_weights_are_taken_where_validation_cases_show_surely_that_they_are_better(
    segmented, tmp_path, monkeypatch, lucky, taken
):
    looks = []

    def looked(session, cases, compute, windows=None):
        """At step 3 some of eight cases are better than at step 6, the rest are alike."""
        looks.append(torch.full((8, 2), 0.5))
        if len(looks) == 1:
            looks[0][:lucky] = 0.9
        return {"dice": looks[-1]}

    monkeypatch.setattr(TrainingSession, "validate", looked)
    monkeypatch.setattr(
        task_catalogue.task_class("segmentation"), "selection", lambda task, collected: collected["dice"].mean().item()
    )
    images = sorted((segmented.data / "images").iterdir())
    rows = [f"{one},{segmented.data}/labels/{one.name},{'val' if n < 8 else 'train'}" for n, one in enumerate(images)]
    (tmp_path / "cases.csv").write_text("\n".join(["image,mask,split", *rows]))
    run = trained.segmenting(tmp_path / "cases.csv", tmp_path / "run")
    record = record_files.read_json(run.out / "checkpoints" / "best" / "model.json", "hilum.model")["record"]
    assert record["step"] == taken
    assert ("earlier ones had" in run.report.read_text()) == (taken == 6)


@pytest.mark.parametrize(("validations", "because"), [(2, ""), (10, "asked of the best of 9")])
def test_the_best_of_many_looks_has_to_be_surer_than_the_better_of_two(
    segmented, tmp_path, monkeypatch, validations, because
):
    """Of 20 patients 5 gain by the earlier weights and 1 loses: they are better in 97 % of draws."""
    last = torch.full((20, 2), 0.5)
    earlier = last.clone()
    earlier[:5], earlier[5] = 0.9, 0.1
    monkeypatch.setattr(
        task_catalogue.task_class("segmentation"), "selection", lambda task, made: made["dice"].mean().item()
    )
    best = checkpoint_files.best_checkpoint(tmp_path)
    best.mkdir(parents=True)
    record_files.write_tensors(best / checkpoint_files.VALIDATION, {"dice": earlier})
    state = State(step=6, pace=TrainingPace(6, 6), validations=validations, best=earlier.mean().item())
    found = Validation(0.5, {"dice": last}, [str(n) for n in range(20)])
    after = checkpoint_files.judge_validation(
        state, found, plan_checks.checked_settings(plan_file.read_plan(segmented.out / "plan.yaml")), tmp_path
    )
    assert because in after.preferred
    assert bool(after.preferred) == bool(because)


def test_earlier_weights_are_not_taken_for_a_figure_that_the_last_ones_do_not_have(segmented, tmp_path):
    """Nothing is there in the validation cases: early on something was marked, in the end rightly nothing."""
    chosen, none = (
        plan_checks.checked_settings(plan_file.read_plan(segmented.out / "plan.yaml")),
        torch.zeros(8, 2, dtype=torch.long),
    )
    early, last = {"both": none, "size": none + 5}, {"both": none, "size": none}
    first, score = (chosen.task.selection(one) for one in (early, last))
    assert first == 0 and math.isnan(score)
    best = checkpoint_files.best_checkpoint(tmp_path)
    best.mkdir(parents=True)
    record_files.write_tensors(best / checkpoint_files.VALIDATION, early)
    for step in (5, 6):
        state = State(step=step, pace=TrainingPace(6, 6), validations=6, best=first)
        after = checkpoint_files.judge_validation(
            state, Validation(score, last, [str(n) for n in range(8)]), chosen, tmp_path
        )
        assert (after.best, after.without) == (0.0, 0)
        assert ("is not a number" in after.preferred) == (step == 6)


@pytest.mark.whole
def test_another_seed_gives_other_weights(segmented, tmp_path):
    trained.segmenting(segmented.data, tmp_path / "again", seed=1)
    ours, theirs = (
        load_file(run / "checkpoints" / "last" / "weights.safetensors") for run in (segmented.out, tmp_path / "again")
    )
    assert not all(np.array_equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.whole
def test_steps_are_planned_anew_where_the_machine_is_slower_than_the_probe_said(classified, tmp_path, monkeypatch):
    """Simulated: the probe has seen a thousand steps a second, and each then takes a tenth of one."""

    now = [time.monotonic()]

    def slowly(moment):
        now[0] += 0.1

    def simulated(clock, *given):
        return Planned(replace(clock, now=lambda: now[0]), *given, steps=400)

    monkeypatch.setattr(training_jobs, "Length", simulated)
    monkeypatch.setattr(minutes_of_runs, "REPORT_SECONDS", 0.0)
    asked, measured = [], _case_costs.measured_costs
    monkeypatch.setattr(_case_costs, "measured_costs", lambda *given: (asked.append(given[0]), measured(*given))[1])
    alone = {"training.steps": None, "training.networks": 1}
    with trained.watching(slowly):
        run = trained.classifying(classified.data, tmp_path / "run", minutes=0.2, assignments=alone)
    decision = plan_file.read_plan(run.out / "plan.yaml").decision("training.steps")
    assert run.steps == decision.value != 400
    assert re.search(r"were planned; after \d+ a step takes 0\.\d+ s", decision.because)
    log = pd.read_csv(run.out / "log.csv")
    assert log["step"].tolist() == list(range(1, run.steps + 1))
    assert (log["learning_rate"].diff().iloc[30:] <= 1e-12).all()  # it falls without a jump upwards
    state = record_files.read_json(run.out / "checkpoints" / "last" / "state.json", "hilum.state")
    assert state["pace"]["steps"] == run.steps
    assert state["pace"]["since"] > 0
    # What follows is estimated with fresh weights, and once more half-way with those that were trained.
    assert len(asked) == 2
    assert asked[0] is not asked[1]


@pytest.mark.whole
def test_a_run_by_minutes_that_was_killed_keeps_its_time_and_its_pace(classified, tmp_path, monkeypatch):
    seen = []

    def dies(moment):
        if moment.step == 15:
            raise RuntimeError("the machine went down")

    monkeypatch.setattr(training_jobs, "Length", partial(Unchanged, steps=40))
    with trained.watching(dies), pytest.raises(RuntimeError, match="went down"):
        trained.classifying(
            classified.data, tmp_path / "run", minutes=2, assignments={"training.steps": None, "training.networks": 1}
        )
    before = record_files.read_json(tmp_path / "run" / "checkpoints" / "last" / "state.json", "hilum.state")
    assert before["step"] == 12
    with trained.watching(seen.append):
        run = hilum.train(resume=tmp_path / "run")
    assert (seen[0].step, run.steps, before["pace"]["steps"]) == (13, 40, 40)
    after = record_files.read_json(tmp_path / "run" / "checkpoints" / "last" / "state.json", "hilum.state")
    assert after["deadline"] == before["deadline"]
    assert seen[0].seconds > before["seconds"]  # the time before the kill counts


@pytest.mark.whole
def test_where_there_is_time_for_few_steps_their_samples_are_fewer_and_stay_so_after_a_kill(
    segmented, tmp_path, monkeypatch
):
    batches = []

    def dies(moment):
        if moment.step == 5:
            raise RuntimeError("the machine went down")

    monkeypatch.setattr(training_jobs, "Length", partial(Watched, batches=batches))
    given = {"labels": trained.LABELS, "device": "cpu", "threads": 1, "minutes": 0.05}  # less than a report takes
    small = {"network.size": trained.SMALL_UNET, "training.validations": 2}
    with trained.watching(dies), pytest.raises(RuntimeError, match="went down"):
        hilum.train(segmented.data, out=tmp_path / "run", assignments=small, **given)
    decision = plan_file.read_plan(tmp_path / "run" / "plan.yaml").decision("training.batch")
    assert decision.value == 1
    assert "fewer samples bring more steps" in decision.because
    planned, *smaller = batches
    assert set(smaller) == {1} != {planned}
    assert hilum.train(resume=tmp_path / "run").steps == FEWEST_STEPS
    assert set(batches[1:]) == {1}
    assert len(batches) > 1 + len(smaller)
    for minutes, batch in ((60, planned), (None, 1)):  # other minutes are no reason for fewer samples
        anew = run_folder.planned_from(tmp_path / "run" / "plan.yaml", PlanRequest(minutes))
        assert anew.plan["training.batch"] == batch
    batches.clear()
    hilum.train(segmented.data, out=tmp_path / "set", assignments={**small, "training.batch": 2}, **given)
    assert set(batches) == {2}


@pytest.mark.whole
def test_where_there_is_time_for_few_steps_the_network_is_half_as_wide_and_stays_so_after_a_kill(segmented, tmp_path):
    def dies(moment):
        if moment.step == 5:
            raise RuntimeError("the machine went down")

    given = {"labels": trained.LABELS, "device": "cpu", "threads": 1, "minutes": 0.05}  # less than a report takes
    planned = hilum.plan(segmented.data, **given).plan
    half = network_family.widen_settings(planned["network.size"], 0.5)
    with trained.watching(dies), pytest.raises(RuntimeError, match="went down"):
        hilum.train(segmented.data, out=tmp_path / "run", assignments={"training.validations": 2}, **given)
    plan = plan_file.read_plan(tmp_path / "run" / "plan.yaml")
    assert plan["network.size"] == half != planned["network.size"]
    assert "half the width" in plan.decision("network.size").because
    assert plan["training.memory"] < planned["training.memory"]
    hilum.train(resume=tmp_path / "run")
    assert model_files.load(tmp_path / "run", "cpu").networks.architecture["size"] == half
    for minutes, size in ((60, planned["network.size"]), (None, half)):
        assert (
            run_folder.planned_from(tmp_path / "run" / "plan.yaml", PlanRequest(minutes)).plan["network.size"] == size
        )


def test_only_a_width_that_leaves_enough_features_is_halved_and_only_where_few_steps_fit(segmented):
    given = {"labels": trained.LABELS, "device": "cpu", "threads": 1}
    plan = hilum.plan(segmented.data, **given).plan
    assert step_probe.narrower_width(plan_checks.checked_settings(plan), 3600.0) is None
    half = step_probe.narrower_width(plan_checks.checked_settings(plan), 0.01)
    assert half.value == network_family.widen_settings(plan["network.size"], 0.5)
    assert (
        step_probe.narrower_width(plan_checks.checked_settings(plan.with_decision("network.size", half)), 0.01) is None
    )
    found = Decision(plan["network.size"], "trial 1 of 9 was better", "search/trials.csv, trial 1")
    searched = plan.with_decision("network.size", found)  # cases have shown that it is better so
    trainings = [RunTraining("", MAIN, one, {}, 1.0) for one in (plan, searched)]
    planned, kept = (minutes_of_runs.narrower_network(one, 0.01, is_given=False) for one in trainings)
    assert planned.value == half.value
    assert kept is None


@pytest.mark.whole
def test_what_follows_training_is_timed_with_as_many_threads_as_it_will_have(segmented, tmp_path, monkeypatch):
    threads, costs = [], Minutes.costs

    def watched(after, model):
        threads.append(torch.get_num_threads())
        return costs(after, model)

    monkeypatch.setattr(Minutes, "costs", watched)
    torch.set_num_threads(2)
    small = {"network.size": trained.SMALL_UNET, "training.validations": 2}
    given = {"labels": trained.LABELS, "device": "cpu", "threads": 1, "minutes": 0.05}
    hilum.train(segmented.data, out=tmp_path / "run", assignments=small, **given)
    assert set(threads) == {1}


@pytest.mark.whole
def test_mirrored_views_that_few_minutes_have_given_up_are_taken_again_with_other_minutes(segmented, tmp_path):
    plan = hilum.plan(segmented.data, labels=trained.LABELS, out=tmp_path / "plan.yaml", device="cpu").plan
    mirrored, given_up = [0], Decision([], "with 2 views the predictions would take 60 s: they serve better as steps")
    plan = plan_changes.with_settings(plan_file.read_plan(tmp_path / "plan.yaml"), {"augmentation.flips": mirrored})
    atomic.write_text(
        tmp_path / "plan.yaml", plan_file.plan_text(plan.with_decision("inference.flips", given_up)), overwrite=True
    )
    for minutes, flips in ((60, mirrored), (None, [])):
        assert run_folder.planned_from(tmp_path / "plan.yaml", PlanRequest(minutes)).plan["inference.flips"] == flips


@pytest.mark.whole
def test_no_clock_changes_a_width_that_a_person_set(segmented, tmp_path):
    given = {"labels": trained.LABELS, "device": "cpu", "threads": 1, "minutes": 0.05}
    size = {**trained.SMALL_UNET, "width": 16, "widest": 32}
    by_hand = {"network.size": size, "training.validations": 1}
    hilum.train(segmented.data, out=tmp_path / "run", assignments=by_hand, **given)
    plan = plan_file.read_plan(tmp_path / "run" / "plan.yaml")
    assert plan["network.size"] == size
    assert step_probe.narrower_width(plan_checks.checked_settings(plan), 0.01).value == network_family.widen_settings(
        size, 0.5
    )  # a planned one would have been halved


@pytest.mark.whole
def test_steps_that_a_person_set_are_never_changed(classified, tmp_path):
    seen = []
    with trained.watching(seen.append):
        run = trained.classifying(classified.data, tmp_path / "run", minutes=0.05)
    assert run.steps == 6
    assert {moment.steps for moment in seen} == {6}


def test_a_training_whose_loss_is_no_number_ends_with_what_to_do(classified, tmp_path):
    assignments = {"training.learning_rate": 1e30, "training.steps": 60, "training.clip": 1e30}
    with pytest.raises(HilumError, match=r"is not a number.*smaller --set training.learning_rate"):
        trained.classifying(classified.data, tmp_path / "run", assignments=assignments)


def test_a_gradient_that_is_no_number_costs_one_step_and_not_every_weight(classified, tmp_path, monkeypatch):
    kind, calls = task_catalogue.task_class("classification"), []
    loss = kind.loss

    def odd(task, outputs, targets, spacing):
        calls.append(None)
        nothing = sum(output.sum() for output in outputs.values()) * 0
        root = nothing.sqrt() * 0  # 0, and its slope is no number
        return loss(task, outputs, targets, spacing) + (root if len(calls) == 3 else 0)

    monkeypatch.setattr(kind, "loss", odd)
    run = trained.classifying(classified.data, tmp_path / "run")
    losses = pd.read_csv(tmp_path / "run" / "log.csv")["loss"]
    assert losses.isna().tolist() == [n == 2 for n in range(6)]
    assert run.steps == 6
    weights = load_file(tmp_path / "run" / "checkpoints" / "last" / "weights.safetensors")
    assert all(np.isfinite(one).all() for one in weights.values())
