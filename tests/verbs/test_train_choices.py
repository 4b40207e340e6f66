"""What a person may choose beside the data: each choice is followed, recorded, and refused where it cannot be."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import hilum
import trained
from hilum.errors import PlanError, UsageError
from hilum.planning import plan_file
from hilum.runs import run_folder
from hilum.runs.plan_request import PlanRequest
from hilum.runtime import record_files
from hilum.tasks import task_settings
from hilum.tasks.segmentation.question import Segmentation
from hilum.values import Decision
from hilum.verbs import train
from hilum.verbs.train import Run


def weights(run, name="last/weights"):
    return load_file(run / "checkpoints" / f"{name}.safetensors")


def alike(first, second) -> bool:
    ours, theirs = weights(first), weights(second)
    return all(np.array_equal(ours[key], theirs[key]) for key in ours)


@pytest.fixture(scope="module")
def deterministic(classified, tmp_path_factory) -> list[Run]:
    """Two runs by the plan of another, alike to the bit; minutes are asked for too."""
    plan, room = classified.out / "plan.yaml", tmp_path_factory.mktemp("deterministic")
    return [train.train(plan, out=room / name, deterministic=True, minutes=0.5) for name in "ab"]


@pytest.mark.whole
def test_two_deterministic_runs_are_alike_to_the_bit(deterministic):
    assert alike(*(run.out for run in deterministic))
    assert plan_file.read_plan(deterministic[0].out / "plan.yaml")["training.deterministic"] is True


def test_minutes_alone_make_no_two_runs_alike_and_are_refused(classified, tmp_path):
    for given in ({"minutes": 1.0}, {}):
        with pytest.raises(PlanError, match="two equal runs need"):
            hilum.train(classified.data, out=tmp_path / "run", deterministic=True, device="cpu", **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.whole
def test_a_deterministic_run_takes_its_steps_from_a_plan(deterministic):
    assert deterministic[0].steps == 6  # the plan's: minutes do not move them


@pytest.mark.whole
def test_a_plan_says_of_its_minutes_whether_somebody_asked_for_them(classified):
    for given, value, because in (({}, 60, "no other time was asked for"), ({"minutes": 60}, 60, "asked for")):
        decision = hilum.plan(classified.data, device="cpu", **given).plan.decision("training.minutes")
        assert (decision.value, decision.because) == (value, because)


@pytest.mark.whole
def test_minutes_to_spare_are_left_over_once_the_epochs_are_done(classified, tmp_path):
    chosen = {"training.steps": None, "training.epochs": 5, "training.networks": 1}
    run = trained.classifying(classified.data, tmp_path / "run", minutes=30, assignments=chosen)
    plan = plan_file.read_plan(run.out / "plan.yaml")
    cases = sum(plan["task.counts"].values())
    assert run.steps == plan["training.steps"] == max(10, math.ceil(5 * cases / plan["training.batch"]))
    assert f"{run.steps} are all that there may be" in plan.decision("training.steps").because
    assert run.minutes < 5
    rates = pd.read_csv(run.out / "log.csv")["learning_rate"]
    assert rates.iloc[-1] < 0.05 * rates.max()


@pytest.mark.parametrize(("schedule", "sampling"), [("cosine", "balanced"), ("poly", "natural")])
@pytest.mark.whole
def test_sgd_its_schedule_and_the_sampling_are_followed(classified, tmp_path, schedule, sampling):
    chosen = {"training.optimiser": "sgd", "training.schedule": schedule, "training.learning_rate": 0.01}
    chosen["training.sampling"] = sampling
    run = trained.classifying(classified.data, tmp_path / "run", assignments=chosen).out
    assert plan_file.read_plan(run / "plan.yaml")["training.sampling"] == sampling
    rates = pd.read_csv(run / "log.csv")["learning_rate"]
    assert rates.max() == pytest.approx(0.01)
    assert rates.iloc[-1] < 0.005
    assert all(name.endswith("/momentum_buffer") for name in weights(run, "last/optimiser"))


@pytest.fixture(scope="module")
def stopped(segmented, tmp_path_factory) -> Run:
    """A run that an early stop ends: at a rate of nearly nothing, no validation is better than the first."""
    chosen = {
        "training.steps": 40,
        "training.validations": 20,
        "training.early_stop": 3,
        "training.learning_rate": 1e-12,
        "training.ema": 0.0,
    }
    return trained.segmenting(segmented.data, tmp_path_factory.mktemp("stopped") / "run", assignments=chosen)


@pytest.mark.whole
def test_an_early_stop_is_recorded_with_its_reason_and_said_in_the_report(stopped):
    assert stopped.steps < 40
    decision = plan_file.read_plan(stopped.out / "plan.yaml").decision("training.early_stop")
    assert decision.value == 3
    assert f"ended after step {stopped.steps} of 40" in decision.because
    assert "the schedule is cut at" in decision.because
    assert any("the schedule is cut" in note for note in stopped.notes)
    other = run_folder.planned_from(
        stopped.out / "plan.yaml", PlanRequest()
    ).plan  # another training has not stopped yet
    assert other.decision("training.early_stop") == Decision(3, "set by hand")
    assert "the schedule is cut" in stopped.report.read_text(encoding="utf-8")


@pytest.mark.whole
def test_a_run_that_stopped_early_and_was_killed_before_its_report_trains_no_further(stopped):
    stopped.report.unlink()
    again = train.train(resume=stopped.out)
    assert again.steps == stopped.steps
    assert len(pd.read_csv(stopped.out / "log.csv")) == stopped.steps
    assert any("the schedule is cut" in note for note in again.notes)


@pytest.mark.whole
def test_coarser_outputs_are_learnt_from(segmented, tmp_path):
    size = {**trained.SMALL_UNET, "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]], "deep_supervision": 1}
    run = trained.segmenting(segmented.data, tmp_path / "run", assignments={"network.size": size}).out
    image, _ = trained.blob(1)
    outputs = hilum.load(run, "cpu").networks.run(np.asarray(image[None, None], np.float32))
    # Only the finest once it is trained; what a gate looks at is none of the answers.
    assert {name for name in outputs if not name.startswith(":")} == {"mask"}


@pytest.mark.whole
def test_tensorboard_has_every_step_once_also_after_a_kill(classified, tmp_path):

    def dies(moment):
        if moment.step == 5:
            raise RuntimeError("the machine went down")

    with trained.watching(dies), pytest.raises(RuntimeError, match="went down"):
        trained.classifying(classified.data, tmp_path / "run")
    # TensorBoard orders files of one second by a number without leading zeros: the tenth would come before the ninth.
    time.sleep(1 - time.time() % 1)
    train.train(resume=tmp_path / "run")
    seen = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    seen.Reload()
    table = pd.read_csv(tmp_path / "run" / "log.csv")
    losses = seen.Scalars("loss")
    assert [event.step for event in losses] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in losses] == pytest.approx(table["loss"].tolist(), rel=1e-5)
    assert [event.step for event in seen.Scalars("validation")] == [3, 6]


def test_mlflow_gets_the_same_numbers(classified, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database would need more of MLflow than its client
    run = trained.classifying(classified.data, tmp_path / "run").out
    client = mlflow.MlflowClient()
    number = (run / "mlflow.txt").read_text()
    assert [one.step for one in client.get_metric_history(number, "validation")] == [3, 6]


def test_what_is_promised_is_hashed_before_training(segmented, tmp_path):
    plan = plan_file.read_plan(segmented.out / "plan.yaml")
    assert plan["evaluation.preregistered"] == plan_file.preregistration_digest(plan)
    assert plan["evaluation.preregistered"] in (segmented.out / "report.html").read_text(encoding="utf-8")


def test_measured_memory_stands_in_the_environment_and_the_report(segmented):
    record = json.loads((segmented.out / "environment.json").read_text())
    assert 0.1 < record["peak_memory_gib"] < 64
    text = (segmented.out / "report.html").read_text(encoding="utf-8")
    assert "peak memory" in text
    assert "waiting for data" in text


@pytest.mark.whole
def test_what_validation_cases_decide_goes_into_checkpoints_and_plan(segmented, tmp_path, monkeypatch):
    """A task that decides on a tolerance of 7 mm from its validation cases, and on nothing else."""
    asked = []

    def fitted(task, predictions, cases, origin):
        asked.append((len(predictions), [case.id for case in cases]))
        return {"task.tolerance": Decision(7.0, "the validation cases say so")}

    monkeypatch.setattr(Segmentation, "fit_settings", fitted)
    run = trained.segmenting(segmented.data, tmp_path / "run").out
    split = pd.read_csv(run / "split.csv", dtype=str)
    val = split.loc[split["split"] == "val", "case"].tolist()
    assert asked[-1] == (len(val), val)
    for name in ("best", "last"):
        record_files.verify_seal(run / "checkpoints" / name)
        assert (
            record_files.read_json(run / "checkpoints" / name / "model.json", "hilum.model")["task"]["tolerance"] == 7.0
        )
    assert plan_file.read_plan(run / "plan.yaml").decision("task.tolerance").because == "the validation cases say so"
    assert task_settings.settings_of(hilum.load(run, "cpu").task)["tolerance"] == 7.0


def test_nothing_is_tuned_where_nothing_selects(tmp_path, monkeypatch):
    def refused(task, predictions, cases, origin):
        assert not predictions or len(cases) == 1  # one case, to know how long it takes
        return {}

    data = trained.blobs(tmp_path / "data", 6)
    monkeypatch.setattr(Segmentation, "fit_settings", refused)
    assert trained.segmenting(data, tmp_path / "run", everything=True).rows == ()


@pytest.mark.whole
def test_a_file_of_weights_is_begun_from_and_named_in_the_model(segmented, tmp_path):
    given = tmp_path / "given.safetensors"
    module = hilum.load(segmented.out, "cpu").networks.run.module
    save_file({name: torch.full_like(value, 0.25) for name, value in module.state_dict().items()}, given)
    few = {"training.steps": 1, "training.validations": 1, "training.learning_rate": 1e-12, "training.ema": 0.0}
    run = trained.segmenting(segmented.data, tmp_path / "run", pretrained=given, assignments=few).out
    assert all(np.allclose(value, 0.25, atol=1e-5) for value in weights(run).values() if value.dtype == np.float32)
    record = record_files.read_json(run / "checkpoints" / "last" / "model.json", "hilum.model")["record"]
    assert "given.safetensors" in record["began_from"]
    assert plan_file.read_plan(run / "plan.yaml")["network.pretrained"] == str(given)


def test_weights_that_are_not_there_are_refused_before_a_run_begins(segmented, tmp_path):
    with pytest.raises(UsageError):
        trained.segmenting(segmented.data, tmp_path / "run", pretrained=tmp_path / "none.safetensors")
    assert not (tmp_path / "run").exists()


def test_the_flags_of_the_command_line_are_followed_or_refused_by_name(cli, classified, tmp_path):
    done = cli("train", classified.data, "--out", tmp_path / "run", "--deterministic", "--minutes", 1)
    assert (done.code, "training.steps" in done.last) == (2, True)
    done = cli("train", classified.data, "--out", tmp_path / "run", "--folds", 1)
    assert (done.code, "folds" in done.last) == (2, True)
    done = cli("train", classified.data, "--out", tmp_path / "run", "--pretrained", tmp_path / "none.safetensors")
    assert (done.code, "none.safetensors" in done.last) == (2, True)
    assert not (tmp_path / "run").exists()


@pytest.mark.whole
def test_a_training_too_short_for_one_pass_over_its_cases_says_so_before_any_figure(classified, tmp_path):
    run = trained.classifying(classified.data, tmp_path / "run", assignments=trained.TWO_STEPS)
    cases = sum(plan_file.read_plan(run.out / "plan.yaml")["task.counts"].values())
    [warning] = [note for note in run.verdict.against if "not even one pass" in note]
    assert warning.startswith(f"2 steps with a batch of 2 show 4 of {cases} training cases")
    passes = {"training.steps": -(-cases // 2)}  # of two cases each
    longer = trained.classifying(classified.data, tmp_path / "longer", assignments=passes)
    assert not [note for note in longer.notes if "not even one pass" in note]
