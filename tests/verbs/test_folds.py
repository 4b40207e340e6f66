from __future__ import annotations

import json
import shutil
import signal
import time
from dataclasses import asdict, dataclass, replace

import nibabel
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

import hilum
import trained
from hilum.errors import UsageError
from hilum.evaluation import classification
from hilum.evaluation import conformal as evaluation_conformal
from hilum.planning import plan_file
from hilum.planning.plan_result import SCALE
from hilum.reading import ReadingOptions, dataset_reading
from hilum.report.figures import charts
from hilum.runs import _training_order, gate, run_end, run_folder, training_jobs, training_loop
from hilum.runs.run_end import TrainedRun
from hilum.runs.run_folder import RunFolder
from hilum.runtime import Preprocessing, record_files
from hilum.scoring import answered_cases, case_scoring, image_subsets, model_comparison
from hilum.scoring.answered_cases import ScoringFold
from hilum.tasks import fitting, task_catalogue, task_settings
from hilum.tasks.classification.question import Classification
from hilum.tasks.fitting import PredictedCases
from hilum.training.training_state import CommandClock, TrainingOutcome
from hilum.values import Case, Decision, Geometry, Image, Prediction
from hilum.verbs import package, train


@pytest.fixture
def crossed(cross_validated):
    """A run of three folds on small volumes: its data and its folder; tests only read them."""
    return cross_validated.data, cross_validated.out


def test_a_run_of_folds_leaves_what_the_design_lists(crossed):
    _, run = crossed
    assert sorted(path.name for path in run.iterdir()) == [
        "data.json",
        "dataset.csv",
        "dataset.toml",
        "environment.json",
        "evaluation",
        "fold_0",
        "fold_1",
        "fold_2",
        "plan.yaml",
        "report.html",
        "run.json",
        "split.csv",
        "trainings.json",
    ]
    for fold in range(3):
        assert sorted(path.name for path in (run / f"fold_{fold}").iterdir()) == [
            "checkpoints",
            "log.csv",
            "task.json",
            "tensorboard",
        ]


def test_a_run_keeps_what_each_of_its_trainings_came_to(crossed):
    _, run = crossed
    rows = record_files.read_json(run / "trainings.json", "hilum.trainings")["rows"]
    facts = [(row["name"], row["role"], row["state"], row["steps"]) for row in rows]
    assert facts == [(f"fold_{fold}", "fold", "finished", 6) for fold in range(3)]
    assert all(row["seconds"] > 0 for row in rows)


def test_every_case_is_tested_in_exactly_one_fold_and_trains_in_the_others(crossed):
    _, run = crossed
    table = pd.read_csv(run / "split.csv", dtype=str)
    assert list(table.columns) == ["case", "patient", "split", "fold"]
    assert sorted(table["fold"].unique()) == ["0", "1", "2"]
    assert (table.groupby("case")["split"].apply(lambda parts: (parts == "test").sum()) == 1).all()
    assert (table.groupby("case").size() == 3).all()


def test_the_evaluation_is_out_of_fold(crossed):
    """Each case scored by the model of the fold that tested it, as the other folds' cases have tuned it."""
    data, run = crossed
    scored = pd.read_csv(run / "evaluation" / "cases.csv")
    assert scored["case"].nunique() == 12
    split = pd.read_csv(run / "split.csv", dtype=str)
    tested = split[split["split"] == "test"].set_index("case")["fold"]
    cases = {case.id: case for case in hilum.plan(data, labels=trained.LABELS, device="cpu").examination.dataset}
    for name in ("case00", "case07"):
        model = hilum.load(run / f"fold_{tested[name]}", "cpu")
        assert model.record["fold"] == int(tested[name])
        model = replace(model, task=model_comparison.read_task(run / f"fold_{tested[name]}"))
        again = model.task.score([model.predict(cases[name])], [cases[name]]).set_index("label")["dice"]
        ours = scored[scored["case"] == name].set_index("label")["dice"]
        for label in ("shell", "core"):
            assert ours[label] == pytest.approx(again[label], abs=1e-9)


def test_the_folds_have_learnt_from_different_cases(crossed):
    _, run = crossed
    first, second = (load_file(run / f"fold_{n}" / "checkpoints" / "last" / "weights.safetensors") for n in (0, 1))
    assert not all(np.array_equal(first[key], second[key]) for key in first)


def test_the_report_says_how_far_the_folds_lie_apart(crossed):
    _, run = crossed
    text = (run / "report.html").read_text(encoding="utf-8")
    assert [f'href="fold_{fold}/log.csv"' in text for fold in range(3)] == [True] * 3
    for fold in range(3):
        assert f"Dice, fold {fold}" in text
    assert "Dice over folds" in text


def test_the_report_says_that_each_case_was_scored_by_a_fold_that_had_not_seen_it(crossed):
    _, run = crossed
    assert "Each case was scored by the one of 3 folds that had not seen it" in (run / "report.html").read_text("utf-8")


def test_the_training_curve_shows_every_fold(crossed):
    _, run = crossed
    folders = [run / f"fold_{fold}" for fold in range(3)]
    table = run_end.average_fold_logs(folders)
    assert table["step"].tolist() == [1, 2, 3, 4, 5, 6]
    logs = [pd.read_csv(folder / "log.csv") for folder in folders]
    assert table["loss"].to_numpy() == pytest.approx(np.mean([log["loss"] for log in logs], axis=0))
    for fold, log in enumerate(logs):
        assert table[f"fold {fold}"].dropna().tolist() == log["validation"].dropna().tolist()
        assert table[f"fold {fold} loss"].tolist() == pytest.approx(log["loss"].tolist())
    assert charts.training_curves(table).alt


@pytest.mark.whole
def test_an_evaluation_shows_how_the_folds_were_trained(crossed, tmp_path):
    data, run = crossed
    hilum.evaluate(run, data, out=tmp_path / "evaluated", device="cpu")
    assert ">Training</h2>" in (tmp_path / "evaluated" / "report.html").read_text(encoding="utf-8")


def test_a_run_of_folds_is_one_model(crossed):
    _, run = crossed
    joint = hilum.load(run, "cpu")
    image, _ = trained.blob(3)
    batch = np.asarray(image[None, None], np.float32)
    apart = [hilum.load(run / f"fold_{n}", "cpu").networks.run(batch) for n in range(3)]
    assert np.allclose(joint.networks.run(batch)["mask"], joint.task.average(apart)["mask"])


@pytest.mark.whole
def test_each_fold_has_the_window_of_its_own_training_cases_and_their_mean_the_widest(tmp_path):
    data = trained.blobs(tmp_path / "data")
    for path in (data / "images").iterdir():  # air to bone, with a spread of its own in each case
        image = nibabel.load(path)
        units = image.get_fdata() * (1 + int(path.name[4:6]) / 10) - 500
        nibabel.Nifti1Image(units.astype(np.int16), image.affine).to_filename(path)
    run = trained.segmenting(data, tmp_path / "run", folds=2, modality="CT").out
    planned = hilum.plan(data, labels=trained.LABELS, device="cpu", folds=2, modality="CT")
    [[first], [second]] = [hilum.load(run / f"fold_{n}", "cpu").preprocessing.normalisation for n in range(2)]
    for n, own in enumerate((first, second)):
        [stated] = planned.of_fold(n).plan["preprocessing.normalisation"]
        assert {"tails": None, **stated} == asdict(own)  # a plan names tails only where they are kept
    assert first.method == "window" and first != second
    [both] = hilum.load(run, "cpu").preprocessing.normalisation
    assert (both.low, both.high) == (min(first.low, second.low), max(first.high, second.high))
    assert "goes by its own" in plan_file.read_plan(run / "plan.yaml").decision("preprocessing.normalisation").because


@pytest.mark.whole
def test_a_run_of_folds_that_was_killed_goes_on_with_the_fold_at_hand(crossed, tmp_path):
    data, whole = crossed
    seen, watched = [], []

    def dies(moment):
        seen.append(moment.step)
        if len(seen) == 6 + 4:
            raise RuntimeError("the machine went down")

    with trained.watching(dies), pytest.raises(RuntimeError, match="went down"):
        trained.segmenting(data, tmp_path / "run", folds=3)
    with trained.watching(lambda moment: watched.append(moment.step)):
        train.train(resume=tmp_path / "run")
    assert watched == [4, 5, 6, 1, 2, 3, 4, 5, 6]  # the second from its checkpoint at 3, then the third
    for fold in range(3):
        ours, theirs = (
            load_file(run / f"fold_{fold}" / "checkpoints" / "best" / "weights.safetensors")
            for run in (whole, tmp_path / "run")
        )
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
    assert (whole / "evaluation" / "summary.json").read_text() == (
        tmp_path / "run" / "evaluation" / "summary.json"
    ).read_text()


@pytest.mark.whole
def test_each_fold_begins_from_the_given_weights_though_the_run_was_stopped_before_it(classified, tmp_path):
    given = shutil.copytree(classified.out / "checkpoints" / "best", tmp_path / "model")

    def pressed(moment):
        signal.raise_signal(signal.SIGINT)

    flags = {"folds": 2, "assignments": {**trained.TWO_STEPS, "guard.gate": False}}
    with trained.watching(pressed), pytest.raises(KeyboardInterrupt):
        trained.classifying(classified.data, tmp_path / "run", start=given / "weights.safetensors", **flags)
    shutil.rmtree(given)
    train.train(resume=tmp_path / "run")
    began = [hilum.load(tmp_path / "run", "cpu", fold=fold).record["began_from"] for fold in range(2)]
    assert began[0] == began[1]
    assert "weights.safetensors with SHA-256" in began[1]
    assert not (tmp_path / "run" / "start").exists()


@pytest.mark.whole
def test_the_first_fold_shares_the_time_that_a_stopped_search_has_left_and_keeps_its_turn(classified, tmp_path):
    chosen = {"guard.gate": False, "network.size": trained.SMALL_RESNET, "training.batch": 2}
    chosen |= {"training.compute": "eager", "training.epochs": 5}
    made = hilum.plan(classified.data, folds=2, minutes=60, device="cpu", threads=1, assignments=chosen)
    run = run_folder.new_run(tmp_path / "run", made, CommandClock(time.monotonic(), spent=2400.0))

    def pressed(moment):
        signal.raise_signal(signal.SIGINT)

    with trained.watching(pressed), pytest.raises(KeyboardInterrupt):
        training_loop.train_by_plan(run)
    state = json.loads((run.out / "fold_0" / "checkpoints" / "last" / "state.json").read_text())
    assert 2400 <= state["turn"] <= state["seconds"]
    half = (0.98 * 3600 - state["turn"]) / 2  # of what is left, without what follows training
    assert 0 < state["deadline"] - state["turn"] < half


def test_a_plan_states_the_smaller_batches_of_folds_and_what_they_did_not_show_is_counted_by_these(tmp_path):
    data = trained.pictures(tmp_path / "data", 24)
    run = RunFolder(tmp_path / "run", hilum.plan(data, folds=2, device="cpu"), CommandClock(0.0))
    outcomes = [TrainingOutcome(run.out, "", steps=4, batch=2), TrainingOutcome(run.out, "", steps=1000)]
    plan = training_loop.with_reasons(run.plan, [run.plan] * 2, outcomes)
    planned, cases = run.plan["training.batch"], len(run.cases("train", 0))
    assert plan["training.batch"] == planned
    assert plan["training.steps"] is None
    assert plan.decision("training.steps").because == "a probe in each fold turned the minutes into steps: 4, 1000"
    assert f"the folds had batches of 2, {planned}" in plan.decision("training.batch").because
    assert training_loop.with_reasons(plan, [plan] * 2, outcomes).decision("training.batch") == plan.decision(
        "training.batch"
    )
    other = run.plan.with_decision(SCALE, Decision([{"method": "zscore"}], "of fold 1"))
    plan = training_loop.with_reasons(run.plan, [run.plan, other], outcomes)
    assert plan.decision(SCALE).because.endswith("in fold 0; each fold goes by its own training cases")
    assert training_loop.with_reasons(plan, [plan, other], outcomes).decision(SCALE) == plan.decision(
        SCALE
    )  # as a resumed run does
    [short] = run_end.unseen_cases_notes(run, TrainedRun(plan, None, outcomes))
    assert f"4 steps with a batch of 2 show 8 of {cases} training cases in fold 0" in short


@pytest.fixture(scope="module")
def halved(tmp_path_factory):
    """A run of two folds on pictures with a test part of their own."""
    root, rng, arrays = tmp_path_factory.mktemp("halved"), np.random.default_rng(0), {}
    for part, count in (("train", 18), ("val", 6), ("test", 8)):
        labels = np.arange(count) % 2
        images = rng.normal(60 + 120 * labels[:, None, None], 30, (count, 12, 12)).clip(0, 255).astype(np.uint8)
        arrays |= {f"{part}_images": images, f"{part}_labels": labels[:, None]}
    np.savez(root / "twelve.npz", **arrays)
    return trained.classifying(root / "twelve.npz", root / "run", folds=2).out


@pytest.fixture(scope="module")
def packaged(halved, tmp_path_factory):
    """The package of that run, with its graph in ONNX; tests only read it."""
    return hilum.package(halved, out=tmp_path_factory.mktemp("packaged") / "package", backends=()).out


@pytest.mark.whole
def test_where_the_set_has_its_own_test_part_the_mean_of_the_folds_is_scored_on_it(halved):
    run = halved
    own = pd.read_csv(run / "evaluation" / "cases.csv")
    out_of_fold = pd.read_csv(run / "out_of_fold" / "cases.csv")
    assert (len(own), len(out_of_fold)) == (8, 24)
    assert not set(own["case"]) & set(out_of_fold["case"])
    split = pd.read_csv(run / "split.csv", dtype=str, keep_default_na=False)
    assert set(split.loc[split["fold"] == "", "case"]) == set(own["case"])
    # Scores of two models make no common order: what ranks cases is the mean of what it is in each fold.
    each = [
        classification.auroc(
            part[f"probability_{part['reference'].max()}"], part["reference"] == part["reference"].max()
        )
        for _, part in out_of_fold.groupby("fold")
    ]
    assert len(each) == 2 and "fold" not in own
    rows = json.loads((run / "out_of_fold" / "summary.json").read_text())["rows"]
    [stated] = [row for row in rows if (row["metric"], row["label"]) == ("auroc", "all")]
    assert stated["value"] == pytest.approx(np.mean(each))
    assert "mean over 2 folds" in stated["method"]


@pytest.mark.whole
def test_its_package_states_that_the_mean_was_scored_on_that_part(halved):
    limits = package.run_evidence(halved, hilum.load(halved, "cpu"), package.finished_plan(halved)).limits
    assert limits[0].startswith("24 cases, trained by cross-validation, and 8 cases of the set's own test part")
    assert not [one for one in limits if "was not scored itself" in one]


@pytest.mark.whole
def test_a_run_of_folds_that_was_killed_before_its_report_lets_no_fold_be_tuned_by_the_cases_that_it_tests(
    halved, tmp_path
):
    """The plan states by then what all cases have found for the mean."""
    shutil.copy(halved.parent / "twelve.npz", tmp_path)
    run = shutil.copytree(halved, tmp_path / "run")
    (run / "report.html").unlink()
    train.train(resume=run)
    for file in ("fold_0/task.json", "fold_1/task.json", "out_of_fold/summary.json", "evaluation/summary.json"):
        assert (run / file).read_text() == (halved / file).read_text()
    assert (
        plan_file.read_plan(run / "plan.yaml")["task.calibration"]
        == plan_file.read_plan(halved / "plan.yaml")["task.calibration"]
    )


@pytest.mark.whole
def test_the_mean_of_folds_states_sets_by_what_each_fold_says_and_its_package_does_too(halved, packaged):
    decision = plan_file.read_plan(halved / "plan.yaml").decision("task.conformal")
    steps = decision.value["crossed"]["all"]
    assert [sum(share for _, share in one) for one in steps] == [12, 12]  # each case by the fold that has not seen it
    assert "those of the 24 cases that were scored by the fold that had not seen them" in decision.because
    assert decision.because[1:] in (halved / "report.html").read_text(encoding="utf-8")
    mean, folds = hilum.load(halved, "cpu"), [hilum.load(halved, "cpu", fold=n) for n in range(2)]
    both = [hilum.load(packaged, "cpu", backend=name) for name in ("torch", "onnx")]
    conformal, classes, found = mean.task.certainty.conformal, mean.task.classes, set()
    for level in np.linspace(0, 255, 12):
        image = Image(np.full((1, 12, 12), level, np.float32), Geometry.of_pixels((12, 12)))
        each = [list(one.predict(image).confidence.uncalibrated.values()) for one in folds]
        offered = 1 - np.array(each)
        kept = evaluation_conformal.cross_sets(conformal.steps("all", 2), offered, 0.9)
        expected = tuple(name for name, one in zip(classes, kept, strict=True) if one)
        assert [one.predict(image).confidence.set[""] for one in (mean, *both)] == [expected] * 3
        found.add(expected)
    assert len(found) > 1


@pytest.mark.whole
def test_each_fold_gets_from_the_cases_of_the_other_folds_what_is_found_after_training(halved):
    """Of two folds each has what the other one says of the cases that it has not seen; their mean has both."""
    split = pd.read_csv(halved / "split.csv", dtype=str, keep_default_na=False)
    dataset = {case.id: case for case in dataset_reading.open_dataset(halved.parent / "twelve.npz", ReadingOptions())}
    models = [hilum.load(halved, "cpu", fold=n) for n in range(2)]
    predictions, cases = [], []
    for fold, model in enumerate(models):
        tested = set(split.loc[(split["fold"] == str(fold)) & (split["split"] == "test"), "case"])
        unseen = [case for name, case in dataset.items() if name in tested]
        plain = replace(model, task=task_catalogue.untuned_task(model.task))
        of_fold = [plain.predict(case) for case in unseen]
        own, _ = fitting.with_fitted_calibration(plain.task, PredictedCases(of_fold, unseen))
        other = json.loads((halved / f"fold_{1 - fold}" / "task.json").read_text())
        assert other["thresholds"] == pytest.approx(task_settings.settings_of(own)["thresholds"], abs=1e-6)
        assert other["calibration"]["cases"] == task_settings.settings_of(own)["calibration"]["cases"] == 12
        predictions, cases = [*predictions, *of_fold], [*cases, *unseen]
    mean, _ = fitting.with_fitted_calibration(plain.task, PredictedCases(predictions, cases))
    plan = plan_file.read_plan(halved / "plan.yaml")
    assert plan["task.thresholds"] == pytest.approx(task_settings.settings_of(mean)["thresholds"], abs=1e-6)
    assert "of 24 cases, each predicted by the fold that has not seen it" in plan.decision("task.thresholds").because


@pytest.mark.whole
def test_the_mean_of_folds_and_its_package_have_a_gate_by_cases_that_the_first_fold_has_not_seen(
    halved, packaged, caplog
):
    split = pd.read_csv(halved / "split.csv", dtype=str, keep_default_na=False)
    unseen = int(((split["fold"] == "0") & (split["split"] == "test")).sum())
    image = Image(np.full((1, 12, 12), 250, np.float32) + np.eye(12), Geometry.of_pixels((12, 12)))
    models = [hilum.load(place, "cpu") for place in (halved, packaged)]
    for model in models:
        assert model.guard.exact and len(model.guard.held_out["features"]) == unseen
    assert (
        f"with {unseen} cases that chose nothing"
        in plan_file.read_plan(halved / "plan.yaml").decision("guard.gate").because
    )
    first, second = (model.predict(image).confidence.gate_p for model in models)
    assert first == pytest.approx(second) and first < 0.5
    with caplog.at_level("WARNING", "hilum"):
        assert hilum.load(packaged, "cpu", fold=1).guard is None
    assert "one fold alone is without the gate of the package: every image gets an answer" in caplog.text


def test_a_models_fingerprint_does_not_change_with_a_test_case(tmp_path):
    """Nor with a validation case: it is that of the training cases alone, of each fold its own."""
    data, found = trained.blobs(tmp_path / "data", 9), []
    for louder in (1, 3):
        made = hilum.plan(data, labels=trained.LABELS, device="cpu", threads=1, folds=3)
        run = run_folder.new_run(tmp_path / f"run{louder}", made, CommandClock(0.0))
        jobs = [training_jobs.job_for_training(run, _training_order.training_of(made, {}, fold)) for fold in run.folds]
        found.append([job.record["fingerprint"] for job in jobs])
        assert [one["cases"] for one in found[-1]] == [len(job.train) for job in jobs]
        changed = {case.id for case in (*jobs[0].test, *jobs[0].val)}
        for case in changed:
            image = nibabel.load(data / "images" / f"{case}.nii.gz")
            grown = np.pad(image.get_fdata() * 5, 2).astype(np.int16)
            mask = nibabel.load(data / "labels" / f"{case}.nii.gz")
            nibabel.Nifti1Image(grown, image.affine).to_filename(data / "images" / f"{case}.nii.gz")
            nibabel.Nifti1Image(np.pad(mask.dataobj, 2), image.affine).to_filename(data / "labels" / f"{case}.nii.gz")
    before, after = found
    assert before[0] == after[0]
    assert before[1] != after[1]  # whose training cases they are


@dataclass(frozen=True, eq=False)
class Certain:
    """Gives every case the probability that its name ends in."""

    task: Classification
    guard: None = None

    def predict(self, subject):
        likely = float(subject.id.partition("@")[2])
        return Prediction(Geometry((4, 4), np.eye(3)), probabilities={"well": 1 - likely, "ill": likely})


def called_apart() -> tuple[Certain, list[Case], dict[str, ScoringFold]]:
    """The same probabilities of cases of two images, called from 0.2 on by one fold and from 0.7 on by the other."""
    task = Classification(("well", "ill"))
    likely, ill = [0.1, 0.3, 0.6, 0.9] * 2, [False, True, True, True, False, False, True, True]
    images = dict.fromkeys(("CT", "PT"), Image(np.zeros((1, 4, 4)), Geometry.of_pixels((4, 4))))
    cases = [
        Case(f"{n}@{one}", f"{n}", images, {"class": "ill" if sick else "well"})
        for n, (one, sick) in enumerate(zip(likely, ill, strict=True))
    ]
    tasks = [replace(task, thresholds={"ill": level}) for level in (0.2, 0.7)]
    folds = {case.id: ScoringFold(n // 4, tasks[n // 4]) for n, case in enumerate(cases)}
    return Certain(replace(task, thresholds={"ill": 0.95})), cases, folds


def test_each_fold_is_scored_at_its_own_threshold():
    model, cases, folds = called_apart()
    scored = case_scoring.score_cases(model, cases, {}, seed=0, patients_known=True, folds=folds, draws_figures=False)
    rows = {(row.metric, row.label): row.estimate for row in scored.rows}
    # Fold 0 finds all three of its ill; fold 1 finds 0.9 and misses 0.6. None of the three well is called.
    assert rows["sensitivity", "ill"].value == pytest.approx(4 / 5)
    assert rows["specificity", "ill"].value == pytest.approx(1.0)
    assert "ill from 0.2 to 0.7 on, each fold's own (youden, unseen cases)" in rows["sensitivity", "ill"].method
    assert scored.table["threshold_ill"].tolist() == [0.2] * 4 + [0.7] * 4
    again = case_scoring.summarise_table(model.task, scored.table, seed=0, patients_known=True)
    before = [row.estimate.value for row in scored.rows]
    assert [row.estimate.value for row in again] == pytest.approx(before, rel=0, abs=0, nan_ok=True)


def test_with_images_left_out_each_fold_calls_by_its_own_threshold_too():
    model, cases, folds = called_apart()
    scored = case_scoring.score_cases(model, cases, {}, seed=0, patients_known=True, folds=folds, draws_figures=False)
    absent = Preprocessing(2, ("CT", "PT"), (), absent=("CT", "PT"))
    made = image_subsets.with_subsets(scored, model, absent, cases, folds, seed=0, patients_known=True).subsets
    found = {
        images: next(row.estimate.value for row in rows if (row.metric, row.label) == ("sensitivity", "ill"))
        for images, rows in made
    }
    assert found == pytest.approx({("CT",): 4 / 5, ("PT",): 4 / 5, ("CT", "PT"): 4 / 5})


def test_folds_beside_all_are_wrong_use(crossed, tmp_path):
    with pytest.raises(UsageError, match="every case trains"):
        trained.segmenting(crossed[0], tmp_path / "run", folds=3, everything=True)


def test_folds_are_not_taken_by_a_run_to_resume(crossed, tmp_path):
    run = shutil.copytree(crossed[1], tmp_path / "run")
    (run / "report.html").unlink()
    with pytest.raises(UsageError, match="folds"):
        train.train(resume=run, folds=2)


@pytest.fixture(scope="module")
def careful(tmp_path_factory):
    """A run of two folds that answers only where it is sure, with validation cases enough for a gate of each."""
    root = tmp_path_factory.mktemp("careful")
    wishes = {**trained.TWO_STEPS, "guard.error": 0.9, "guard.delta": 0.5}
    data = trained.pictures(root / "data", 80)
    return data, trained.classifying(data, root / "run", folds=2, assignments=wishes).out


@pytest.mark.whole
def test_no_case_of_a_fold_judges_itself_when_the_run_is_evaluated_again(careful):
    """The models of the folds keep gates that are fitted to the cases which they test, for new images."""
    data, run = careful
    split = pd.read_csv(run / "split.csv", dtype=str)
    for fold in range(2):
        of_fold = split[split["fold"] == str(fold)]
        tested = int((of_fold["split"] == "test").sum())
        assert hilum.load(run, "cpu", fold=fold).guard.answers.cases == tested
        assert (
            answered_cases.read_fold_gate(run / f"fold_{fold}").answers.cases
            == int((of_fold["split"] == "val").sum())
            < tested
        )
    before = pd.read_csv(run / "evaluation" / "cases.csv", dtype={"case": str}, keep_default_na=False)
    again = hilum.evaluate(run, data, device="cpu").scored.table.set_index("case").loc[before["case"]]
    assert again["gate_p"].to_numpy() == pytest.approx(before["gate_p"].to_numpy(), rel=1e-4)
    assert (again["abstained"] == "").tolist() == (before["abstained"] == "").tolist()


@pytest.mark.whole
def test_the_plan_states_the_sureness_that_every_fold_asks_for(careful):
    _, run = careful
    each = [hilum.load(run, "cpu", fold=fold).guard for fold in range(2)]
    because = plan_file.read_plan(run / "plan.yaml").decision("guard.error").because
    surest = max((one.answers for one in each), key=lambda answers: answers.least)
    assert hilum.load(run, "cpu").guard.answers == surest
    assert because.startswith(surest.words(exact=True))
    looser = [replace(one, answers=replace(one.answers, least=0.1 * (1 + n))) for n, one in enumerate(each)]
    assert "a sureness of 0.200 or more" in gate.error_note(looser, folds=True)
