from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pandas as pd
import PIL.Image
import pytest

import isocenter
import trained
from isocenter.errors import PlanError, ResourceError, UsageError
from isocenter.planning import Between, read_plan
from isocenter.training import Clock, Study, logs, study
from isocenter.values import Decision
from isocenter.verbs.fit import Job
from isocenter.verbs.plan import room_of
from isocenter.verbs.search import length_of, searched
from isocenter.verbs.train import train

# Of few enough steps for a second, and without a clock, so that two of them can be compared.
TINY = {
    "training.steps": 10,
    "training.validations": 5,
    "training.batch": 4,
    "training.deterministic": True,
    "network.size": trained.SMALL_RESNET,
    "search.trials": 3,
    "search.steps": 10,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return trained.pictures(tmp_path_factory.mktemp("searched") / "data", 100)


def planned(data, **given):
    assignments = {**TINY, **given.pop("assignments", {})}
    return isocenter.plan(data, device="cpu", threads=1, assignments=assignments, **given)


def job_of(made, out, plan=None):
    learning, selecting = (
        [case for case in made.examination.dataset if made.parts.get(case.id) == part] for part in ("train", "val")
    )
    return Job(out, plan or made.plan, learning, selecting, {})


def search(made, out, plan=None, **given):
    return searched(job_of(made, out, plan), Clock(time.monotonic()), room_of(made), **given)


def told(found):
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
def whole(data, tmp_path_factory):
    """What a search that nobody disturbed has found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOCENTER_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        return search(planned(data), tmp_path_factory.mktemp("whole"))


def test_the_first_trial_is_the_plan_as_it_stands_and_the_others_are_other_plans(whole):
    first, *others = whole.rows
    assert (first["state"], json.loads(first["changed"])) == ("the plan", {})
    assert len(others) == 2
    assert all("training.learning_rate" in json.loads(row["changed"]) for row in others)


def test_a_search_cannot_see_a_test_case(data, whole, tmp_path):
    made = planned(data)
    tested = [case for case, part in made.parts.items() if part == "test"]
    other = planned(spoiled(data, tmp_path / "spoiled", tested))
    assert other.parts == made.parts and other.plan.data_hash != made.plan.data_hash
    assert told(search(other, tmp_path / "run")) == told(whole)


def test_no_case_of_an_outer_folds_test_part_is_seen_by_its_search(data, tmp_path):
    made = planned(data, folds=2, assignments={"search.trials": 2})
    tested = [case for case, part in made.folds[1].items() if part == "test"]
    other = planned(spoiled(data, tmp_path / "spoiled", tested), folds=2, assignments={"search.trials": 2})
    assert other.folds == made.folds
    ours, theirs = (
        search(one.of_fold(1), tmp_path / name, folds=2) for one, name in ((made, "ours"), (other, "theirs"))
    )
    assert told(ours) == told(theirs)


def test_a_search_that_was_stopped_goes_on_with_the_trial_at_hand_as_if_it_had_not_been(
    data, whole, tmp_path, monkeypatch
):
    add, seen = logs.CsvLog.add, []

    def stops(log, moment):
        add(log, moment)
        seen.append(moment.step)
        if len(seen) == 10 + 5:
            raise KeyboardInterrupt

    made = planned(data)
    monkeypatch.setattr(logs.CsvLog, "add", stops)
    with pytest.raises(KeyboardInterrupt):
        search(made, tmp_path)
    watched = []
    monkeypatch.setattr(logs.CsvLog, "add", lambda log, moment: (add(log, moment), watched.append(moment.step)))
    assert told(search(made, tmp_path)) == told(whole)
    assert watched[0] == 5 and len(watched) == 6 + 10  # the second from its last checkpoint, then the third


def test_what_is_better_beyond_chance_takes_the_plans_place_and_says_why(data, tmp_path):
    """A plan that learns nothing, beside rates that do: better over the cases, and once more from another seed."""
    made = planned(data, assignments={"search.trials": 4, "search.steps": 40, "training.steps": 40})
    plan = made.plan.with_decision("training.learning_rate", Decision(1e-7, "too low to learn anything"))
    with Study(tmp_path / "search" / "study.db", {"training.learning_rate": Between(1e-7, 1e-7, 2e-2)}, 0):
        pass
    found = search(made, tmp_path, plan)
    assert set(found.changed) == {"training.learning_rate"}
    edited = found.applied(plan)
    assert edited["training.learning_rate"] > 1e-4
    because = edited.decision("training.learning_rate").because
    assert "validation cases, the plan's own" in because and "once more from another seed" in because
    assert "trial" in edited.decision("training.learning_rate").source


def test_minutes_for_one_trial_alone_leave_the_plan_and_say_so(data, tmp_path):
    quick = {"training.deterministic": False, "training.steps": None, "search.trials": None, "search.steps": None}
    made = planned(data, minutes=1, assignments={**quick, "search.minutes": 0.002})
    found = search(made, tmp_path)
    assert (len(found.rows), found.changed) == (1, {})
    assert "no time was left for another: the plan stays" in found.said


@pytest.mark.parametrize(
    ("given", "folds", "seconds", "steps", "ends"),
    [
        ({"search.minutes": 30, "search.trials": None}, 1, 100.0, None, 7 + 1800),
        ({"search.minutes": 3, "search.trials": None}, 1, 30.0, None, 7 + 180),
        ({"search.minutes": 30, "search.trials": 10}, 1, 150.0, None, None),
        ({"search.minutes": 30, "search.trials": None}, 2, 60.0, None, 7 + 900),
        ({"search.minutes": 30, "search.trials": None, "training.steps": 400}, 1, None, 100, 7 + 1800),
        ({"search.minutes": 30, "search.trials": None, "search.steps": 50}, 1, None, 50, 7 + 1800),
    ],
)
def test_trials_have_equal_times_or_where_steps_decide_equal_steps(data, given, folds, seconds, steps, ends):
    plan = planned(data, minutes=120).plan
    free = {"training.steps": None, "search.steps": None, "training.deterministic": False}
    for name, value in {**free, **given}.items():
        plan = plan.with_decision(name, Decision(value, "a test"))
    length = length_of(plan, 7.0, folds)
    assert (length.seconds, length.steps, length.ends) == (seconds, steps, ends)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A run with a search before it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOCENTER_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        out = tmp_path_factory.mktemp("tuned") / "run"
        return isocenter.train(data, out=out, device="cpu", threads=1, assignments=TINY)


def test_a_run_shows_every_trial_and_what_came_of_them(run):
    table = pd.read_csv(run.out / "search" / "trials.csv")
    assert table["trial"].tolist() == [0, 1, 2]
    page = run.report.read_text(encoding="utf-8")
    assert ">Search</h2>" in page and "Searched:" in page
    assert any(note.startswith("Searched:") for note in run.notes)
    assert sorted(path.name for path in (run.out / "search").iterdir()) == [
        *("plan.yaml", "result.json", "study.db", "trial_000", "trial_001", "trial_002", "trials.csv")
    ]
    assert not list((run.out / "search").rglob("weights.safetensors"))  # they would fill the disk


def test_a_run_whose_plan_was_edited_by_its_search_reads_so_after_resume(run, data, tmp_path):
    """Between the search and the training: what was found is there, and the plan does not say so yet."""
    out = shutil.copytree(run.out, tmp_path / "run")
    for name in ("checkpoints", "evaluation", "tensorboard"):
        shutil.rmtree(out / name)
    (out / "report.html").unlink()
    record = json.loads((out / "search" / "result.json").read_text())
    record["changed"] = {"training.weight_decay": {"value": 0.3, "because": "trial 2 of 3", "source": "search"}}
    (out / "search" / "result.json").write_text(json.dumps(record))
    plan = read_plan(out / "plan.yaml")
    (out / "plan.yaml").write_text((out / "plan.yaml").read_text().replace(plan.data, str(data)))
    train(resume=out)
    decision = read_plan(out / "plan.yaml").decision("training.weight_decay")
    assert (decision.value, decision.because) == (0.3, "trial 2 of 3")


def test_too_few_validation_cases_to_tell_luck_from_skill_are_refused_before_anything_is_trained(tmp_path):
    data = trained.pictures(tmp_path / "data", 30)
    with pytest.raises(UsageError, match="validation cases"):
        train(data, out=tmp_path / "run", device="cpu", assignments=TINY)
    assert not (tmp_path / "run").exists()


def test_a_clock_may_not_decide_what_is_to_be_alike_to_the_bit(tmp_path):
    steps = {"training.steps": 10}
    with pytest.raises(PlanError, match=r"search\.trials=20"):
        train(tmp_path, out=tmp_path / "run", tune=1, deterministic=True, assignments=steps)


def test_a_search_leaves_time_to_train(data, tmp_path):
    with pytest.raises(PlanError, match="leave none to train"):
        train(data, out=tmp_path / "run", tune=5, minutes=5, device="cpu")


def test_a_run_to_resume_takes_no_other_search(tmp_path):
    with pytest.raises(UsageError, match="cannot be given with a run to resume"):
        train(resume=tmp_path, tune=5)


def test_without_the_extra_the_install_line_is_the_remedy(data, tmp_path, monkeypatch):
    monkeypatch.setattr(study.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ResourceError, match=r"isocenter\[tune\]"):
        train(data, out=tmp_path / "run", tune=1, minutes=5, device="cpu")
