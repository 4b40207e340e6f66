"""A marker beside a picture, from a table to a package: the class lies half in the one and half in the other."""

from __future__ import annotations

import json
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest

import forked
import hilum
import trained
from hilum.errors import DatasetError, PlanError
from hilum.planning import plan_file
from hilum.runs import covariate_baseline, run_folder
from hilum.runs.plan_request import PlanRequest
from hilum.runs.run_folder import RunFolder
from hilum.runtime import record_files
from hilum.training.checkpoint_files import STATE_SCHEMA
from hilum.training.training_state import CommandClock
from packages import CONFIG, no_export, without_hilum

COLUMN = {"image": "file", "label": "state", "patient": "person"}
FEW = {**trained.FEW_STEPS, "network.size": trained.SMALL_RESNET, "training.batch": 8}
READING = {"column": COLUMN, "device": "cpu", "threads": 1}


def cohort(root: Path, count: int = 40) -> Path:
    """Pictures whose brightness, with a marker, makes the class; a sex that does not, an id, and a constant."""
    root.mkdir(parents=True)
    rows = []
    for n in range(count):
        rng = np.random.default_rng(n)
        bright, marker = rng.normal(size=2)
        pixels = rng.normal(100 + 20 * bright, 10, (16, 16)).clip(0, 255).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(root / f"{n:02}.png")
        ill = bright + 2 * marker + rng.normal(0, 0.7) > 0
        shown = None if n % 10 == 3 else round(marker, 3)
        rows.append((f"{n:02}.png", f"p{n}", "ill" if ill else "well", shown, "FM"[n % 2], f"key{n}", "here"))
    names = ["file", "person", "state", "marker", "sex", "key", "place"]
    pd.DataFrame(rows, columns=names).to_csv(root / "table.csv", index=False)
    return root


@pytest.fixture(scope="module")
def informed(tmp_path_factory):
    """Data, and a run on them that is told marker and sex; tests only read them."""
    root = tmp_path_factory.mktemp("told")
    data = cohort(root / "data")
    hilum.train(data, out=root / "run", assignments={**FEW, "network.context": "all"}, **READING)
    return data, root / "run"


def test_the_plan_says_what_the_network_is_told_and_what_was_left_out(informed):
    plan = hilum.plan(informed[0], assignments={"network.context": "all"}, **READING).plan
    assert set(plan["network.context"]) == {"marker", "sex"}
    because = plan.decision("network.context").because
    assert "key (" in because
    assert "place (constant in the training cases)" in because
    assert hilum.plan(informed[0], **READING).plan["network.context"] is None
    assert plan["network.context_fusion"] == "concatenate"
    assert "--set network.context_fusion" in plan.decision("network.context_fusion").because
    with pytest.raises(PlanError, match="no covariates"):
        hilum.plan(informed[0], assignments={"network.context": "all", "network.name": "vnet"}, **READING)
    with pytest.raises(PlanError, match="Choose concatenate or film or attention"):
        hilum.plan(informed[0], assignments={"network.context": "all", "network.context_fusion": "tokens"}, **READING)


def test_a_run_states_beside_itself_what_the_covariates_tell_alone(informed):
    _, run = informed
    single = json.loads((run / "evaluation" / "covariates.json").read_text())["rows"]
    ours = json.loads((run / "evaluation" / "summary.json").read_text())["rows"]
    of_doubt = {f"{name}{of}" for name in ("error_detection", "aurc", "excess_aurc") for of in ("", "_epistemic")}
    assert {row["metric"] for row in single} == {row["metric"] for row in ours} - of_doubt
    assert "of the covariates alone, without images" in (run / "report.html").read_text()


def test_a_run_states_what_images_tell_alone_and_what_each_half_adds(informed):
    _, run = informed
    without = hilum.load(run / "image_only", "cpu")
    assert not without.networks.context
    assert record_files.read_json(run / "image_only" / "checkpoints" / "last" / "state.json", STATE_SCHEMA)["step"] == 6
    record = json.loads((run / "evaluation" / "covariates.json").read_text())
    by_hand = hilum.compare([run / "image_only", run]).as_record()
    assert by_hand["primary"] == "auroc"
    # The same differences; a comparison by hand has the intervals of its tests.
    added, compared = record["added"]["to the images"], by_hand["differences"]["run"]
    assert [(row["metric"], row["label"]) for row in added] == [(row["metric"], row["label"]) for row in compared]
    assert [row["value"] for row in added] == pytest.approx([row["value"] for row in compared])
    assert {row["metric"] for row in record["added"]["to the covariates"]} == {row["metric"] for row in record["rows"]}
    report = (run / "report.html").read_text()
    for notes in (
        "what the images add to the covariates",
        "what the covariates add to the images",
        "no difference shown",
    ):
        assert notes in report


@pytest.mark.whole
def test_a_run_that_was_killed_in_its_second_training_ends_as_if_it_had_not_been(informed, tmp_path):
    (tmp_path / "data").symlink_to(informed[0])
    run = Path(shutil.copytree(informed[1], tmp_path / "run"))
    shutil.rmtree(run / "image_only")
    shutil.rmtree(run / "evaluation")
    (run / "report.html").unlink()
    hilum.train(resume=run)
    for part in ("checkpoints/last", "image_only/checkpoints/last"):
        whole, resumed = (record_files.read_tensors(one / part / "weights.safetensors") for one in (informed[1], run))
        assert all((whole[name] == resumed[name]).all() for name in whole)
    assert (run / "evaluation" / "covariates.json").is_file()


def test_a_prediction_needs_the_covariates_and_says_what_it_filled_in(informed, tmp_path):
    data, run = informed
    picture = data / "00.png"
    with pytest.raises(DatasetError, match="trained with marker, sex beside the image"):
        hilum.predict(run, picture, device="cpu")
    table = tmp_path / "patients.csv"
    table.write_text("case,marker,sex\n00,-1.5,F\n01,,X\n")
    found = hilum.predict(run, [picture, data / "01.png"], covariates=table, device="cpu")
    notes = [problem.what for problem in found.problems]
    assert not found.failures
    assert any("01: marker is missing: taken as" in one for one in notes)
    assert any("01: sex is 'X', which few or no training cases had" in one for one in notes)
    assert not any(one.startswith("00") for one in notes)
    other = hilum.predict(run, picture, covariates={"marker": 1.5, "sex": "F"}, device="cpu")
    assert other.table["probability_ill"][0] != found.table["probability_ill"][0]
    table.write_text("case,marker\n05,1\n")
    with pytest.raises(DatasetError, match="has no row for 00"):
        hilum.predict(run, picture, covariates=table, device="cpu")


def test_a_marker_in_another_unit_is_refused_by_the_gate_and_named_without_one(informed, tmp_path):
    data, run = informed
    plan = plan_file.read_plan(run / "plan.yaml")["network.context"]["marker"]
    assert plan["low"] < plan["mean"] < plan["high"]
    table, grams = tmp_path / "patients.csv", 1000 * plan["high"] * 0.9
    table.write_text(f"case,marker,sex\n00,{grams},F\n01,0.5,F\n")
    pictures = [data / "00.png", data / "01.png"]
    words = f"marker is {grams:g}, far outside of the training cases, which lie between {plan['low']:g} and"

    gated = hilum.predict(run, pictures, covariates=table, device="cpu")
    refused = {row["case"]: row["abstained"] or "" for _, row in gated.table.fillna("").iterrows()}
    assert refused["00"].startswith(words) and "divided by 1000 it is" in refused["00"]
    assert "marker" not in refused["01"]
    ungated = hilum.predict(run, pictures, covariates=table, device="cpu", abstain="off")
    assert any(problem.what.startswith(f"00: {words}") for problem in ungated.problems)
    assert ungated.table["probability_ill"].notna().all()


def test_an_evaluation_gives_no_answer_to_patients_in_another_unit_and_says_why(informed, tmp_path):
    data, run = informed
    rows = pd.read_csv(data / "table.csv")
    rows["file"] = [str(data / name) for name in rows["file"]]
    rows.assign(marker=rows["marker"] * 1000 + 5000).head(6).to_csv(tmp_path / "other.csv", index=False)
    found = hilum.evaluate(run, tmp_path / "other.csv", split="all", **READING)
    said = repr(found)
    assert "far outside of the training cases" in said, said


def test_each_image_has_its_own_row_where_its_results_are_called_otherwise(informed, tmp_path):
    """The results of `a b` are called a_b_2, which is the name of another image."""
    data, run = informed
    markers = {"a_b": -1.5, "a b": 0.0, "a_b_2": 1.5}
    pictures = [shutil.copy(data / "00.png", tmp_path / f"{name}.png") for name in markers]
    table = tmp_path / "patients.csv"
    table.write_text("case,marker,sex\n" + "".join(f"{name},{marker},F\n" for name, marker in markers.items()))
    found = hilum.predict(run, [*pictures], covariates=table, device="cpu")
    ill = [
        hilum.predict(run, pictures[0], covariates={"marker": marker, "sex": "F"}, device="cpu").table
        for marker in markers.values()
    ]
    assert [float(one["probability_ill"][0]) for one in ill] == list(found.table["probability_ill"])


@pytest.mark.whole
def test_a_package_takes_two_inputs_in_onnx_and_a_table_without_hilum(informed, tmp_path):
    data, run = informed
    with forked.trials():
        packaged = hilum.package(run, out=tmp_path / "package", backends=("onnx",), threads=1)
    table = tmp_path / "patients.csv"
    table.write_text("case,marker,sex\n00,-1.5,F\n01,,M\n")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("00.png", "01.png"):
        (pictures / name).write_bytes((data / name).read_bytes())
    ours = hilum.predict(run, pictures, covariates=table, device="cpu").table.set_index("case")
    onnx = hilum.predict(packaged.out, pictures, covariates=table, device="cpu", backend="onnx")
    assert onnx.table["probability_ill"].tolist() == pytest.approx(ours["probability_ill"].tolist(), abs=1e-5)
    certificate = json.loads((packaged.out / "hilum" / "certificate.json").read_text())
    assert "onnx" in json.dumps(certificate)
    words = ("-m", "monai.bundle", "run", "--config_file", CONFIG, "--dataset_dir", pictures, "--covariates", table)
    done = without_hilum(packaged.out, *words, "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    theirs = pd.read_csv(tmp_path / "out" / "predictions.csv", dtype={"case": str}).set_index("case")
    assert theirs.loc[ours.index, "probability_ill"].tolist() == pytest.approx(
        ours["probability_ill"].tolist(), rel=1e-4
    )
    notes = json.loads((tmp_path / "out" / "predictions.json").read_text())["notes"]
    assert notes["01"][0].startswith("marker is missing")
    assert "second input, `context`" in (packaged.out / "docs" / "README.md").read_text()


@pytest.mark.whole
def test_a_cohort_is_evaluated_with_the_covariates_of_its_own_table(informed, tmp_path):
    data = cohort(tmp_path / "other", 12)
    found = hilum.evaluate(informed[1], data, column=COLUMN, split="all", device="cpu")
    assert len(found.scored.table) == 12
    assert any("marker is missing" in problem.what for problem in found.scored.problems)


def test_patients_whose_other_images_trained_the_model_are_counted_in_a_note(informed, tmp_path):
    _, run = informed
    split = pd.read_csv(run / "split.csv")
    seen = sorted(split.loc[split["split"] != "test", "patient"])[:2]
    tested = sorted(split.loc[split["split"] == "test", "patient"])[:1]
    rows = ["file,person,state,marker,sex"]
    for n, person in enumerate([*seen, *tested, "stranger"]):
        pixels = np.random.default_rng(100 + n).integers(0, 255, (16, 16)).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / f"{n}.png")
        rows.append(f"{n}.png,{person},{['ill', 'well'][n % 2]},0,F")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    result = hilum.evaluate(run, tmp_path, **READING)
    assert len(result.scored.table) == 4
    assert [note for note in result.notes if note.startswith("2 patients have the names of patients with whose images")]


@pytest.mark.whole
def test_the_answer_of_a_network_that_gets_the_sex_is_looked_at_with_the_other_one_too(informed, tmp_path):
    data, out = cohort(tmp_path / "other", 12), tmp_path / "out"
    found = hilum.evaluate(informed[1], data, column=COLUMN, split="all", device="cpu", out=out, groups="sex")
    [row] = json.loads((out / "fairness.json").read_text())["swapped"]
    model, table = hilum.load(informed[1], "cpu"), pd.read_csv(data / "table.csv")
    moved, calls = [], []
    for case in table.itertuples():
        who = [{"marker": case.marker, "sex": sex} for sex in (case.sex, {"F": "M", "M": "F"}[case.sex])]
        both = [model.predict(data / case.file, covariates=one).probabilities for one in who]
        moved.append(np.mean([abs(both[0][name] - both[1][name]) for name in ("ill", "well")]))
        calls.append(max(both[0], key=both[0].get) != max(both[1], key=both[1].get))
    # A tenth of twelve predictions is one: five cases are looked at, so that something can be stated.
    assert (row["attribute"], row["cases"]) == ("sex", 5) and row["moved"] > 0
    stated = pytest.approx((row["moved"], row["changed"]), rel=1e-4)
    each = np.stack([moved, calls], axis=1).astype(float)
    assert any(tuple(each[list(five)].mean(axis=0)) == stated for five in combinations(range(12), 5))
    page = (out / "report.html").read_text()
    assert "With the sex of another group and everything else unchanged, the answer changes by" in page
    assert "(5 cases)" in page
    assert found.scored.table["covariate_sex"].tolist() == table["sex"].tolist()


@pytest.mark.parametrize(("role", "column"), [("value:score", "score"), ("time", "days")])
@pytest.mark.whole
def test_numbers_and_times_are_told_covariates_too_and_of_one_training_nothing_is_said_of_images(
    role, column, informed, tmp_path
):
    table = pd.read_csv(informed[0] / "table.csv")
    rng = np.random.default_rng(0)
    table["score"] = table["marker"].fillna(0) + rng.normal(size=len(table))
    table["days"] = rng.exponential(300, len(table)).round() + 1
    table["died"] = (rng.random(len(table)) < 0.7).astype(int)
    table["file"] = [str(informed[0] / name) for name in table["file"]]
    table.to_csv(tmp_path / "table.csv", index=False)
    roles = {"image": "file", "patient": "person", role: column, **({"event": "died"} if role == "time" else {})}
    given = {**FEW, "training.steps": 2, "training.validations": 1, "network.context": ["marker"]}
    given["evaluation.image_only"] = False
    hilum.train(tmp_path / "table.csv", out=tmp_path / "run", column=roles, device="cpu", threads=1, assignments=given)
    assert (tmp_path / "run" / "evaluation" / "covariates.json").is_file()
    assert not (tmp_path / "run" / "image_only").exists()
    report = (tmp_path / "run" / "report.html").read_text()
    assert "not measured: evaluation.image_only is off" in report
    assert "what the images add to the covariates" in report


@pytest.fixture(scope="module")
def crossed(informed, tmp_path_factory):
    """A run of two folds, which are told marker and sex."""
    out = tmp_path_factory.mktemp("told in folds") / "run"
    given = {**FEW, "training.steps": 2, "training.validations": 1, "network.context": ["marker", "sex"]}
    return hilum.train(informed[0], out=out, folds=2, assignments=given, **READING).out


@pytest.mark.whole
def test_the_covariates_of_folds_are_compared_with_the_model_fold_by_fold(crossed):
    record = json.loads((crossed / "evaluation" / "covariates.json").read_text())
    [alone] = [row for row in record["rows"] if (row["metric"], row["label"]) == ("auroc", "all")]
    [added] = [row for row in record["added"]["to the covariates"] if (row["metric"], row["label"]) == ("auroc", "all")]
    assert "mean over 2 folds" in alone["method"]
    assert added["low"] < added["value"] < added["high"]


@pytest.mark.whole
def test_each_fold_takes_covariates_as_its_own_training_cases_have_them(informed, crossed):
    table = pd.read_csv(informed[0] / "table.csv").set_index(pd.Index([f"{n:02}" for n in range(40)]))
    split = pd.read_csv(crossed / "split.csv", dtype=str)
    medians = set()
    for fold in range(2):
        own = split.query(f"split == 'train' and fold == '{fold}'")["case"]
        marker = table.loc[own, "marker"]
        model = hilum.load(crossed / f"fold_{fold}", "cpu")
        [column] = [one for one in model.networks.context.columns if one.name == "marker"]
        filled = marker.fillna(marker.median())
        assert column.median == pytest.approx(marker.median(), rel=1e-4)
        assert (column.mean, column.deviation) == pytest.approx((filled.mean(), filled.std(ddof=0)), rel=1e-4)
        assert column.missing == pytest.approx(marker.isna().mean(), rel=1e-4)
        assert model.record["fingerprint"]["cases"] == len(own)
        medians.add(column.median)
    assert len(medians) == 2
    assert "each fold" in plan_file.read_plan(crossed / "plan.yaml").decision("network.context").because


@pytest.mark.whole
def test_folds_that_are_added_to_a_plan_take_covariates_each_as_its_own_training_cases_have_them(informed, tmp_path):
    hilum.plan(informed[0], out=tmp_path / "plan.yaml", assignments={"network.context": "all"}, **READING)
    made = run_folder.planned_from(tmp_path / "plan.yaml", PlanRequest(folds=2))
    medians = {made.of_fold(fold).plan["network.context"]["marker"]["median"] for fold in range(2)}
    assert len({made.plan["network.context"]["marker"]["median"], *medians}) == 3


@pytest.mark.whole
def test_of_folds_each_scores_the_covariates_alone_by_its_own_model_and_the_difference_has_an_interval(crossed):
    record = json.loads((crossed / "evaluation" / "covariates.json").read_text())
    chosen = [
        next(row for row in rows if (row["metric"], row["label"]) == ("auroc", "all"))
        for rows in (record["rows"], record["images"], *record["added"].values())
    ]
    assert all("mean over 2 folds" in row["method"] for row in chosen[:2])
    assert [row["method"] for row in chosen[2:] if row["low"] is None] == []


@pytest.mark.whole
def test_the_mean_of_folds_prepares_covariates_for_each_as_that_fold_learnt_them(informed, crossed, tmp_path):
    with no_export():
        packaged = hilum.package(crossed, out=tmp_path / "package", backends=()).out
    joint = [hilum.load(place, "cpu") for place in (crossed, packaged)]
    apart = [hilum.load(place, "cpu", fold=n) for place in (crossed, packaged) for n in range(2)]
    assert len(hilum.load(crossed / "image_only", "cpu").networks.members) == 2
    assert len(json.loads((crossed / "evaluation" / "covariates.json").read_text())["images"]) > 0
    assert {model.networks.context.names for model in (*joint, *apart)} == {("marker", "sex")}
    for known in ({"marker": 0.3, "sex": "F"}, {"sex": "M"}):
        # Before calibration: the mean has one of its own, and each fold another.
        each = [one.predict(informed[0] / "00.png", covariates=known).confidence.uncalibrated["ill"] for one in apart]
        assert each[:2] == pytest.approx(each[2:]) and each[0] != each[1]
        for model in joint:
            found = model.predict(informed[0] / "00.png", covariates=known)
            assert found.confidence.uncalibrated["ill"] == pytest.approx(np.mean(each[:2]), abs=1e-6)
            assert len(found.notes) == ("marker" not in known)
    assert "each of 2 networks by its own" in joint[0].predict(informed[0] / "00.png", covariates=known).notes[0]
    table, pictures = tmp_path / "patients.csv", tmp_path / "pictures"
    table.write_text("case,marker,sex\n00,,M\n")
    pictures.mkdir()
    shutil.copyfile(informed[0] / "00.png", pictures / "00.png")
    words = ("-m", "monai.bundle", "run", "--config_file", CONFIG, "--dataset_dir", pictures, "--covariates", table)
    done = without_hilum(packaged, *words, "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    theirs = pd.read_csv(tmp_path / "out" / "predictions.csv")["probability_ill"]
    assert theirs.tolist() == pytest.approx([found.probabilities["ill"]], rel=1e-4)


@pytest.mark.whole
def test_covariates_alone_are_as_probable_however_the_network_samples_its_cases(informed, tmp_path):
    stated = []
    for sampling in ("natural", "balanced"):
        given = {"network.context": "all", "training.sampling": sampling, "task.calibration_method": "none"}
        made = hilum.plan(informed[0], assignments=given, **READING)
        model, cases, _ = covariate_baseline._fit_baseline(
            RunFolder(tmp_path / sampling, made, CommandClock(0.0)), None
        )
        stated.append([model.predict(case).probabilities["ill"] for case in cases])
    assert any(made.plan["task.prior_shift"].values())
    assert stated[1] == pytest.approx(stated[0])
