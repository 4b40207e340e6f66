from __future__ import annotations

import json
import math
import shutil
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch

import hilum
import trained
from hilum.errors import PlanError, ResourceError, UsageError
from hilum.planning import plan_checks, plan_file
from hilum.planning.search_domains import Between
from hilum.runs import _training_order, search_trials, training_loop
from hilum.runs._run_minutes import RunStages, SearchLength
from hilum.runs.run_folder import RunFolder
from hilum.runs.search_trials import SearchResult
from hilum.runs.training_loop import TrainingLoop
from hilum.training import search_study as study
from hilum.training.search_study import IMPOSSIBLE, SearchStudy
from hilum.training.training_state import CommandClock
from hilum.values import Decision
from hilum.verbs import train

# Of few enough steps for a second, and without a clock, so that two of them can be compared.
TINY = {
    "training.steps": 6,
    "training.validations": 2,
    "training.batch": 4,
    "training.deterministic": True,
    "network.size": trained.SMALL_RESNET,
    "search.trials": 2,
    "search.steps": 6,
}
# The same by the clock.
TIMED = {"training.steps": None, "search.steps": None, "search.trials": None, "training.deterministic": False}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return trained.pictures(tmp_path_factory.mktemp("searched") / "data", 100)


def planned(data, **given):
    assignments = {**TINY, **given.pop("assignments", {})}
    return hilum.plan(data, device="cpu", threads=1, assignments=assignments, **given)


def with_(plan, values):
    for name, value in values.items():
        plan = plan.with_decision(name, Decision(value, "a test"))
    return plan


def search(made, out, plan=None):
    """What the trials before a training come to, which itself does not begin."""
    run = RunFolder(out, made if plan is None else replace(made, plan=plan), CommandClock(time.monotonic()))
    loop = TrainingLoop(run, RunStages(run.clock))
    while (training := _training_order.next_training(loop.run.made, loop.finished)).role.is_of_search:
        loop.take_step(training)
    return search_trials.read_search_result(out)


def reported(found):
    """All that a search has found but how long it took."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found.rows]


def spoiled(data, copy, names):
    """The same folder in which these cases are noise."""
    shutil.copytree(data, copy)
    for path in copy.rglob("*.png"):
        if path.stem in names:
            noise = np.random.default_rng(int(path.stem)).normal(120, 40, np.array(PIL.Image.open(path)).shape)
            PIL.Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(path)
    return copy


@pytest.fixture(scope="module")
def made(data):
    return planned(data, minutes=120)


@pytest.fixture(scope="module")
def whole(made, tmp_path_factory):
    """What a search that nobody disturbed has found."""
    return search(made, tmp_path_factory.mktemp("whole"))


def test_the_first_trial_is_the_plan_as_it_stands_and_the_others_are_other_plans(whole):
    first, second = whole.rows
    assert (first["state"], json.loads(first["changed"])) == ("the plan", {})
    assert "training.learning_rate" in json.loads(second["changed"])


def test_a_trial_whose_validations_never_had_a_number_has_none_either(made):
    assert math.isnan(search_trials.selection_metric(_training_order.training_of(made, {}, None), {}))


@pytest.mark.whole
def test_a_search_cannot_see_a_test_case(data, made, whole, tmp_path):
    tested = [case for case, part in made.parts.items() if part == "test"]
    other = planned(spoiled(data, tmp_path / "spoiled", tested), minutes=120)
    assert other.parts == made.parts and other.plan.data_hash != made.plan.data_hash
    assert reported(search(other, tmp_path / "run")) == reported(whole)


@pytest.mark.whole
def test_a_search_that_was_stopped_goes_on_with_the_trial_at_hand_as_if_it_had_not_been(made, whole, tmp_path):
    seen, watched = [], []

    def stops(moment):
        seen.append(moment.step)
        if len(seen) == 6 + 4:
            raise KeyboardInterrupt

    with trained.watching(stops), pytest.raises(KeyboardInterrupt):
        search(made, tmp_path)
    with trained.watching(lambda moment: watched.append(moment.step)):
        assert reported(search(made, tmp_path)) == reported(whole)
    assert watched == [4, 5, 6]  # the second from its last checkpoint


@pytest.mark.whole
def test_a_search_that_was_killed_while_its_file_was_made_tries_what_it_would_have_tried(made, whole, tmp_path):
    def dies(study, name, value):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as killed:
        killed.setattr(SearchStudy, "keep", dies)
        with pytest.raises(KeyboardInterrupt):
            search(made, tmp_path)
    assert (tmp_path / "search" / "study.db").is_file()
    assert reported(search(made, tmp_path)) == reported(whole)


@pytest.mark.whole
def test_a_trial_for_which_memory_is_too_small_is_impossible_and_the_search_goes_on(made, whole, tmp_path):
    """Else the search would end with it, and begin with it again whenever the run is resumed."""
    steps = []

    def full(moment):
        steps.append(moment.step)
        if len(steps) == 6 + 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee the documentation")

    with trained.watching(full):
        first, second = search(made, tmp_path).rows
    assert first["value"] == whole.rows[0]["value"]
    assert (second["state"], second["why"]) == (IMPOSSIBLE, "CUDA out of memory. Tried to allocate 20.00 GiB.")


def learning_nothing(made, folder):
    """A plan whose rate is too low, and a search that has not begun and tries higher ones."""
    plan = made.plan.with_decision("training.learning_rate", Decision(1e-7, "too low to learn anything"))
    with SearchStudy(
        folder / "search" / "study.db", {"training.learning_rate": Between(1e-7, 1e-7, 2e-2, log=False)}, 0
    ):
        pass
    return with_(plan, {"search.steps": 30, "training.steps": 30})


@pytest.mark.whole
def test_what_is_better_beyond_chance_takes_the_plans_place_and_says_why(made, tmp_path):
    """A plan that learns nothing, beside rates that do: better over the cases, and once more from another seed."""
    plan = learning_nothing(made, tmp_path)
    found = search(made, tmp_path, plan)
    assert set(found.changed) == {"training.learning_rate"}
    edited = plan.with_decisions(found.decided)
    assert edited["training.learning_rate"] > 1e-4
    because = edited.decision("training.learning_rate").because
    assert "validation cases, the plan's own" in because and "once more from another seed" in because
    assert "trial" in edited.decision("training.learning_rate").source


@pytest.mark.parametrize(
    ("given", "folds", "seconds", "steps", "ends"),
    [
        ({"search.minutes": 30}, 1, 100.0, None, 7 + 1800),
        ({"search.minutes": 3}, 1, 30.0, None, 7 + 180),
        ({"search.minutes": 30, "search.trials": 10}, 1, 150.0, None, None),
        ({"search.minutes": 30}, 2, 60.0, None, 7 + 900),
        ({"search.minutes": 30, "training.steps": 400}, 1, None, 100, 7 + 1800),
        ({"search.minutes": 30, "search.steps": 50}, 1, None, 50, 7 + 1800),
    ],
)
def test_trials_have_equal_times_or_where_steps_decide_equal_steps(made, given, folds, seconds, steps, ends):
    length = SearchLength.from_settings(plan_checks.checked_settings(with_(made.plan, {**TIMED, **given})), 7.0, folds)
    assert (length.seconds, length.steps, length.ends) == (seconds, steps, ends)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A run that was killed after its search, before its plan said what had been found, and went on later."""
    out = tmp_path_factory.mktemp("tuned") / "run"

    def dies(run, plan):
        raise RuntimeError("the machine went down")

    with pytest.MonkeyPatch.context() as killed:
        killed.setattr(RunFolder, "write_plan", dies)
        with pytest.raises(RuntimeError, match="went down"):
            hilum.train(data, out=out, device="cpu", threads=1, assignments=TINY)
    record = json.loads((out / "search" / "result.json").read_text())
    record["changed"] = {"training.weight_decay": {"value": 0.3, "because": "trial 1 of 2", "source": "search"}}
    (out / "search" / "result.json").write_text(json.dumps(record))
    return train.train(resume=out)


@pytest.mark.whole
def test_what_was_found_is_followed_wherever_the_run_was_killed(run):
    plan = plan_file.read_plan(run.out / "plan.yaml")
    decision = plan.decision("training.weight_decay")
    assert (decision.value, decision.because) == (0.3, "trial 1 of 2")
    assert not plan_checks.checked_settings(plan).search.is_on  # who trains by this plan does not search again


@pytest.mark.whole
def test_a_run_shows_every_trial_and_what_came_of_them(run):
    assert pd.read_csv(run.out / "search" / "trials.csv")["trial"].tolist() == [0, 1]
    page = run.report.read_text(encoding="utf-8")
    assert ">Search</h2>" in page and "Searched:" in page
    assert 'href="search/trials.csv"' in page.partition(">Search</h2>")[2].partition("</h2>")[0]
    assert any(note.startswith("Searched:") for note in run.notes)
    assert sorted(path.name for path in (run.out / "search").iterdir()) == [
        *("plan.yaml", "result.json", "study.db", "trial_000", "trial_001", "trials.csv")
    ]
    assert not list((run.out / "search").rglob("weights.safetensors"))  # they would fill the disk


def test_too_few_validation_cases_to_tell_luck_from_skill_are_refused_before_anything_is_trained(tmp_path):
    data = trained.pictures(tmp_path / "data", 30)
    with pytest.raises(UsageError, match="4 validation patients"):
        train.train(data, out=tmp_path / "run", device="cpu", assignments=TINY)
    assert not (tmp_path / "run").exists()


@pytest.mark.whole
def test_many_validation_cases_of_few_patients_are_refused_because_no_draw_of_them_can_change_the_plan(data, tmp_path):
    rows = [f"{path},{path.parent.name},p{n % 20}" for n, path in enumerate(sorted(data.rglob("*.png")))]
    table = tmp_path / "cases.csv"
    table.write_text("\n".join(["image,label,patient", *rows]))
    with pytest.raises(UsageError, match=r"2 validation patients.*Give more patients"):
        train.train(table, out=tmp_path / "run", device="cpu", assignments=TINY)


def test_a_clock_may_not_decide_what_is_to_be_alike_to_the_bit(tmp_path):
    steps = {"training.steps": 10}
    with pytest.raises(PlanError, match=r"search\.trials=20"):
        train.train(tmp_path, out=tmp_path / "run", tune=1, deterministic=True, assignments=steps)


@pytest.mark.whole
def test_a_search_leaves_time_to_train(cli, data, tmp_path):
    ended = cli("train", data, "--tune", 5, "--minutes", 5, "--device", "cpu", "--out", tmp_path / "run")
    assert ended.code == 2
    assert "5 of 5 minutes leave none to train with what was found" in ended.last


def test_a_run_to_resume_takes_no_other_search(tmp_path):
    with pytest.raises(UsageError, match="cannot be given with a run to resume"):
        train.train(resume=tmp_path, tune=5)


@pytest.mark.whole
def test_without_the_extra_the_install_line_is_the_remedy(data, tmp_path, monkeypatch):
    monkeypatch.setattr(study.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ResourceError, match=r"hilum\[tune\]"):
        train.train(data, out=tmp_path / "run", tune=1, minutes=5, device="cpu")


def test_the_plan_of_folds_names_what_each_ones_search_has_put_in_place_and_keeps_its_own(made, tmp_path):
    found = Decision(0.3, "trial 1 of 2", "search/trials.csv, trial 1")
    edited = made.plan.with_decisions(SearchResult({"training.weight_decay": found}, "").plan_decisions)
    plan = training_loop.with_searches(made.plan, [made.plan, edited])
    decision = plan.decision("training.weight_decay")
    assert decision.value == made.plan["training.weight_decay"]
    assert decision.because.endswith("0.3 in fold 1")
    assert (
        training_loop.with_searches(plan, [plan, edited]).decision("training.weight_decay") == decision
    )  # as a resumed run does
    assert plan_checks.checked_settings(plan).search.is_on and not plan_checks.checked_settings(edited).search.is_on
    assert plan.decision("training.learning_rate") == made.plan.decision("training.learning_rate")
