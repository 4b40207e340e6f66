"""Times to an event from a table to a package, on small pictures in which the size of a square is the hazard."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import PIL.Image
import pytest

import hilum
import trained
from hilum.errors import DatasetError, PlanError
from hilum.evaluation import survival
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions
from hilum.planning import plan_file
from hilum.runs import covariate_baseline
from hilum.runs.run_folder import RunFolder
from hilum.runs.tuning import UnseenPredictions
from hilum.runtime import Model
from hilum.tasks import task_catalogue, task_settings
from hilum.tasks.survival import question
from hilum.training import member_weighting
from hilum.training.training_state import CommandClock
from hilum.verbs import ensemble_members
from packages import CONFIG, no_export, without_hilum
from trained import SMALL_RESNET

COLUMN = {"image": "file", "time": "days", "event": "died", "patient": "person"}
FEW = {"training.steps": 8, "training.validations": 2, "training.batch": 12, "network.size": SMALL_RESNET}
READING = {"column": COLUMN, "device": "cpu", "threads": 1}


def cohort(root: Path, count: int = 60) -> Path:
    """Pictures in which a larger square means sooner: exponential times, a quarter of them censored."""
    root.mkdir(parents=True)
    random, rows = np.random.default_rng(0), []
    for n in range(count):
        side = int(random.integers(2, 15))
        pixels = random.normal(60, 8, (20, 20))
        pixels[3 : 3 + side, 3 : 3 + side] += 120
        PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{n:02}.png")
        time, limit = random.exponential(300 * np.exp((8 - side) / 3)), random.exponential(1200)
        rows.append((f"{n:02}.png", f"p{n // 2}", round(min(time, limit)) + 1, "dead" if time <= limit else "alive"))
    pd.DataFrame(rows, columns=["file", "person", "days", "died"]).to_csv(root / "table.csv", index=False)
    return root


def site(root: Path) -> Path:
    """A cohort of which no picture is one that trained."""
    for path in cohort(root, 24).glob("*.png"):
        PIL.Image.fromarray(np.rot90(np.asarray(PIL.Image.open(path)))).save(path)
    return root


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A run of a few steps, and its data."""
    root = tmp_path_factory.mktemp("followed")
    data = cohort(root / "data")
    given = {**FEW, "task.unit": "days"}
    hilum.train(data, out=root / "run", assignments=given, **READING)
    return data, root / "run"


@pytest.mark.whole
def test_several_networks_are_the_mean_of_their_log_hazard_ratios_with_one_slope_and_baseline(
    followed, tmp_path, monkeypatch
):
    data, run = followed[0], tmp_path / "run"
    hilum.train(data, out=run, assignments={**FEW, "task.unit": "days", "training.networks": 2}, **READING)
    models = [hilum.load(run, "cpu", fold=number) for number in (0, 1, None)]
    first, second, mean = (model.predict(data / "00.png").confidence.uncalibrated["risk"] for model in models)
    assert first != second
    assert mean == pytest.approx((first + second) / 2, abs=1e-6)
    assert task_settings.settings_of(models[0].task)["slope"] == task_settings.settings_of(models[2].task)["slope"]
    assert (
        task_settings.settings_of(models[2].task)["baseline"] == plan_file.read_plan(run / "plan.yaml")["task.baseline"]
    )
    caught = list[Model]()
    monkeypatch.setattr(
        "hilum.runtime.package.package_writing.write_package", lambda model, *rest: caught.append(model)
    )
    others = site(tmp_path / "site")
    table = pd.read_csv(others / "table.csv")
    table.assign(days=table["days"].max() + 1 - table["days"]).to_csv(others / "table.csv", index=False)
    hilum.calibrate(run, others, out=tmp_path / "package", backends=(), column=COLUMN)
    assert task_settings.settings_of(caught[0].task)["slope"] != task_settings.settings_of(models[2].task)["slope"]
    each = [caught[0].with_run(one).predict(data / "00.png").values["risk"] for one in caught[0].networks.members]
    assert caught[0].predict(data / "00.png").confidence.epistemic == pytest.approx(np.var(each), rel=1e-3)


@pytest.mark.whole
def test_slope_and_baseline_are_of_validation_cases_and_of_training_cases_that_inner_folds_have_not_seen(
    followed, tmp_path
):
    data, run = followed[0], tmp_path / "run"
    given = {**FEW, "training.steps": 2, "training.validations": 1, "split.inner_folds": 2, "guard.gate": False}
    hilum.train(data, out=run, assignments=given, **READING)
    cases = {case.id: case for case in dataset_layouts.read_dataset(data, DatasetOptions(column=COLUMN))}
    val = pd.read_csv(run / "split.csv", dtype=str).query("split == 'val'")["case"].tolist()
    folds = pd.read_csv(run / "inner" / "split.csv", dtype={"case": str})

    def ratios(place: Path, names: list[str]) -> np.ndarray:
        model = hilum.load(place / "checkpoints" / "best", "cpu")
        return np.array([model.predict(cases[name]).confidence.uncalibrated["risk"] for name in names])

    own = dict(zip(val, ratios(run, val), strict=True))
    zero = np.mean(list(own.values()))
    for fold, rows in folds.groupby("fold"):
        unseen, place = rows["case"].tolist(), run / "inner" / f"fold_{fold}"
        own |= dict(zip(unseen, ratios(place, unseen) + zero - ratios(place, val).mean(), strict=True))
    outcomes = np.array([cases[case].references["event"] for case in own], dtype=float).T
    plan = plan_file.read_plan(run / "plan.yaml")
    made = question.calibrate_hazards(*outcomes, list(own.values()), plan["task.event_free"])
    assert len(own) == len(val) + len(folds) > 30
    assert plan["task.slope"] == pytest.approx(made["task.slope"].value, rel=1e-4)
    assert plan["task.baseline"]["hazard"] == pytest.approx(made["task.baseline"].value["hazard"], rel=1e-4)
    assert f"{len(folds)} training cases predicted by 2 networks" in plan.decision("task.slope").because


@pytest.fixture(scope="module")
def crossed(followed, tmp_path_factory):
    """A run of two folds on the same data."""
    given = {**FEW, "training.steps": 2, "training.validations": 1, "guard.gate": False}
    out = tmp_path_factory.mktemp("crossed") / "run"
    return hilum.train(followed[0], out=out, folds=2, assignments=given, **READING).out


@pytest.mark.whole
def test_slope_and_baseline_of_the_mean_of_folds_take_no_zero_of_a_fold_for_a_difference_between_cases(
    followed, crossed
):
    run = crossed
    cases = {case.id: case for case in dataset_layouts.read_dataset(followed[0], DatasetOptions(column=COLUMN))}
    split = pd.read_csv(run / "split.csv", dtype={"case": str}).query("split == 'val'")
    ratios, outcomes = list[float](), list[tuple[float, bool]]()
    for fold, rows in split.groupby("fold"):
        own, mean = (
            np.array([model.predict(cases[name]).confidence.uncalibrated["risk"] for name in rows["case"]])
            for model in (hilum.load(run, "cpu", fold=int(fold)), hilum.load(run, "cpu"))
        )
        ratios += (own - own.mean() + mean.mean()).tolist()
        outcomes += [cases[name].references["event"] for name in rows["case"]]
    plan = plan_file.read_plan(run / "plan.yaml")
    made = question.calibrate_hazards(*np.array(outcomes, dtype=float).T, ratios, plan["task.event_free"])
    assert plan["task.slope"] == pytest.approx(made["task.slope"].value, rel=1e-4)
    assert plan["task.baseline"]["hazard"] == pytest.approx(made["task.baseline"].value["hazard"], rel=1e-4)


@pytest.mark.parametrize(("model", "folds"), [("cox", 3), ("weibull", 0)])
@pytest.mark.whole
def test_a_small_set_has_inner_folds_where_a_baseline_is_to_be_found(followed, model, folds):
    plan = hilum.plan(followed[0], minutes=30, assignments={"task.model": model}, **READING).plan
    assert plan["split.inner_folds"] == folds


def test_a_look_at_the_data_counts_the_events(tmp_path):
    data = cohort(tmp_path / "data")
    found, table = hilum.check(data, column=COLUMN), pd.read_csv(data / "table.csv")
    assert found.passed
    assert found.facts["references"] == "event"
    died, days = (table["died"] == "dead").sum(), table["days"]
    assert found.facts["events"] == f"{died} of 60 cases, at times from {days.min()} to {days.max()}"


@pytest.mark.whole
def test_the_plan_says_why_a_batch_is_so_large_and_where_its_horizons_lie(followed):
    planned = hilum.plan(followed[0], **READING)
    batch = planned.plan.decision("training.batch")
    assert batch.value > 12
    assert "compared with the cases of its batch alone" in batch.because
    assert planned.plan["task.name"] == "survival"
    assert planned.plan["evaluation.primary"] == "uno_c"
    with pytest.raises(PlanError, match="no training case was followed"):
        hilum.plan(followed[0], assignments={"task.horizons": [1e5]}, **READING)
    with pytest.raises(PlanError, match="no classes"):
        hilum.plan(followed[0], assignments={"training.sampling": "balanced"}, **READING)


def test_who_had_the_event_is_in_every_part_by_his_share(followed):
    table, parts = pd.read_csv(followed[0] / "table.csv"), pd.read_csv(followed[1] / "split.csv", dtype=str)
    died = dict(zip(table["file"].str.removesuffix(".png"), table["died"] == "dead", strict=True))
    shares = parts.assign(died=parts["case"].map(died)).groupby("split")["died"].mean()
    assert np.ptp(shares) < 0.4  # two images a patient, who may have died between them


def test_a_run_keeps_what_its_validation_cases_told_and_states_every_figure_with_an_interval(followed):
    _, run = followed
    rows = json.loads((run / "evaluation" / "summary.json").read_text())["rows"]
    assert (rows[0]["metric"], rows[0]["label"]) == ("uno_c", "all")
    assert {"harrell_c", "integrated_brier", "dynamic_auc", "brier", "expected_over_observed", "calibration_slope"} <= {
        row["metric"] for row in rows
    }
    cases = pd.read_csv(run / "evaluation" / "cases.csv")
    assert {"time", "event", "risk", "median_survival", "brier"} <= set(cases)
    task = hilum.load(run, "cpu").task
    assert task.baseline is not None
    assert task.median_risk is not None
    validated = (pd.read_csv(run / "split.csv")["split"] == "val").sum()
    assert (
        f"the log hazard ratios of {validated} cases"
        in plan_file.read_plan(run / "plan.yaml").decision("task.slope").because
    )
    assert task.unit == "days"
    assert "Survival by predicted risk" in (run / "report.html").read_text()


def test_a_prediction_states_risk_and_survival_by_the_horizons(followed, tmp_path):
    data, run = followed
    predicted = hilum.predict(run, data / "00.png", out=tmp_path / "out", device="cpu")
    task = hilum.load(run, "cpu").task
    columns = [f"survival_{horizon:g}" for horizon in task.horizons]
    assert list(predicted.table.columns)[2:] == ["risk", *columns, "median_survival", "time_low", *trained.OF_THE_GATE]
    chances = predicted.table[columns].iloc[0].tolist()
    assert chances == sorted(chances, reverse=True)
    assert 0 < chances[-1] < 1


@pytest.mark.whole
def test_other_data_are_evaluated_with_their_own_columns_and_a_time_of_nothing_is_named(followed, tmp_path):
    data = cohort(tmp_path / "other", 24)
    table = pd.read_csv(data / "table.csv")
    table.loc[3, "days"] = 0
    table.to_csv(data / "table.csv", index=False)
    found = hilum.evaluate(followed[1], data, column=COLUMN, split="all", device="cpu")
    assert [problem.cases for problem in found.failures] == [("03",)]
    assert found.primary == "uno_c"


@pytest.mark.whole
def test_a_package_predicts_as_its_run_does_and_without_hilum(followed, tmp_path):
    data, run = followed
    with no_export():
        package = hilum.package(run, out=tmp_path / "package", backends=())
    ours = hilum.predict(run, data / "00.png", device="cpu").table.iloc[0]
    there = hilum.load(package.out, "cpu").predict(data / "00.png").values
    assert there["risk"] == pytest.approx(ours["risk"], abs=1e-6)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "00.png").write_bytes((data / "00.png").read_bytes())
    words = ("-m", "monai.bundle", "run", "--config_file", CONFIG, "--dataset_dir", tmp_path / "images")
    done = without_hilum(package.out, *words, "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "out" / "predictions.csv").iloc[0]
    for name in ours.index[2:].difference(trained.OF_THE_GATE):
        assert table[name] == pytest.approx(ours[name], rel=1e-4, nan_ok=True), name


@pytest.mark.parametrize("model", ["hazards", "weibull"])
@pytest.mark.whole
def test_the_other_models_train_and_predict_too(model, followed, tmp_path):
    given = {**FEW, "training.steps": 3, "training.validations": 1, "task.model": model}
    run = hilum.train(followed[0], out=tmp_path / "run", assignments=given, **READING)
    assert run.primary == "uno_c"
    values = hilum.predict(tmp_path / "run", followed[0] / "01.png", device="cpu").table.iloc[0]
    assert 0 < values.filter(like="survival_").iloc[0] < 1


@pytest.mark.whole
def test_each_fold_has_the_baseline_of_its_own_validation_cases_and_their_mean_one_of_all(followed, crossed):
    mean = hilum.load(crossed, "cpu")
    assert mean.task.baseline is not None
    assert len(mean.networks.members) == 2
    table = pd.read_csv(crossed / "evaluation" / "cases.csv")
    assert len(table) == 60
    assert table.filter(like="survival_").notna().all().iloc[:-1].all()
    split = pd.read_csv(crossed / "split.csv", dtype=str)
    followed_for = pd.read_csv(followed[0] / "table.csv").assign(case=lambda table: table["file"].str[:-4])
    for fold in ("0", "1"):  # the baseline of a fold goes by the times of its own training cases
        trained_on = split[(split["fold"] == fold) & (split["split"] == "train")]["case"]
        own = followed_for[followed_for["case"].isin(trained_on)]
        free = json.loads((crossed / f"fold_{fold}" / "task.json").read_text())["event_free"]
        assert free == question.curve_to_plain(survival.kaplan_meier(own["days"], own["died"] == "dead"), "share")


@pytest.mark.whole
def test_where_every_case_trains_the_baseline_is_known_and_the_slope_is_one(followed, tmp_path):
    given = {**FEW, "training.steps": 2, "training.validations": 1}
    hilum.train(followed[0], out=tmp_path / "run", everything=True, assignments=given, **READING)
    task = hilum.load(tmp_path / "run", "cpu").task
    assert task.baseline is not None
    assert task.slope == 1.0
    assert "every case trains" in plan_file.read_plan(tmp_path / "run" / "plan.yaml").decision("task.slope").because


def test_an_ensemble_all_of_whose_cases_have_trained_promises_nothing_by_them(followed):
    model = hilum.load(followed[1], "cpu")
    cases = list(dataset_layouts.read_dataset(followed[0], DatasetOptions(column=COLUMN)))[:24]
    joined = SimpleNamespace(
        model=SimpleNamespace(task=task_catalogue.untuned_task(model.task)),
        cases=lambda part: cases if part == "train" else [],
        counting=lambda shares: model,
    )
    task, decisions = ensemble_members.tuned_task(
        UnseenPredictions(), joined, member_weighting.equal_weights(2, "no case is left")
    )
    assert "task.baseline" in decisions and "task.conformal" not in decisions
    assert task.certainty.conformal is None


def test_an_event_that_is_neither_yes_nor_no_and_a_time_in_words_are_refused(tmp_path):
    data = cohort(tmp_path / "data", 12)
    table = pd.read_csv(data / "table.csv", dtype=str)
    for column, stated, match in (("died", "2", "neither yes nor no"), ("days", "3 months", "not a number")):
        changed = table.copy()
        changed.loc[5, column] = stated
        changed.to_csv(data / "table.csv", index=False)
        with pytest.raises(DatasetError, match=match):
            hilum.check(data, column=COLUMN)


@pytest.fixture(scope="module")
def uneventful(followed, tmp_path_factory):
    """The run, calibrated on a site where nobody had the event."""
    root = tmp_path_factory.mktemp("uneventful")
    data = site(root / "site")
    pd.read_csv(data / "table.csv").assign(died="alive").to_csv(data / "table.csv", index=False)
    with no_export():
        return hilum.calibrate(followed[1], data, out=root / "package", backends=(), column=COLUMN)


@pytest.mark.whole
def test_a_site_where_nobody_had_the_event_leaves_the_baseline_as_it_was(followed, uneventful):
    before, after = (hilum.load(place, "cpu").task for place in (followed[1], uneventful.out))
    for name in ("baseline", "slope", "median_risk"):
        assert (
            task_settings.settings_of(before)[name] is not None
            and task_settings.settings_of(after)[name] == task_settings.settings_of(before)[name]
        )
    assert after.certainty.conformal.n == {"all": 12}


@pytest.mark.whole
def test_patients_of_a_site_with_the_names_of_those_who_trained_are_stated(followed, uneventful):
    table = pd.read_csv(followed[1] / "split.csv")
    trained_it = set(table.loc[table["split"] != "test", "patient"])
    count = len(trained_it & {f"p{n}" for n in range(12)})
    assert count > 1
    [note] = [one for one in uneventful.unkept if f"{count} patients have the names of patients with whose" in one]
    limits = json.loads((uneventful.out / "hilum" / "model.json").read_text())["record"]["limits"]
    assert note in limits


@pytest.mark.whole
def test_covariates_without_images_have_the_horizons_of_the_run_in_every_fold(tmp_path):
    data = cohort(tmp_path / "data")
    table = pd.read_csv(data / "table.csv")
    table.assign(age=40 + np.arange(60) % 7).to_csv(data / "table.csv", index=False)
    made = hilum.plan(data, folds=2, assignments={"network.context": "all"}, **READING)
    fitted = [
        covariate_baseline._fit_baseline(RunFolder(tmp_path / "run", made, CommandClock(0.0)), fold) for fold in (0, 1)
    ]
    settings = [task_settings.settings_of(one.model.task) for one in fitted]
    for name in ("horizons", "censoring", "scale"):
        assert [own[name] for own in settings] == [made.plan[f"task.{name}"]] * 2
    assert settings[0]["event_free"] != settings[1]["event_free"]
