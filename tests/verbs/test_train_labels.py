"""Grades and findings through every verb: from a folder or a table to a package that runs without Hilum."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch

import forked
import hilum
import trained
from hilum.errors import PlanError
from hilum.planning import plan_file
from hilum.runs import _run_minutes
from packages import CONFIG, no_export, without_hilum

torch.set_num_threads(1)

GRADES = ("0", "1", "2")
FOUND = ("bright", "left spot", "right spot")


def findings_table(root: Path, count: int = 48) -> Path:
    """Pictures that are bright or not, with a spot on one side, on both or on none; every seventh cell is blank."""
    rows = []
    for n in range(count):
        rng = np.random.default_rng(n)
        has = [bool(n % 2), bool(n // 2 % 2), bool(n // 4 % 2)]
        pixels = rng.normal(150 if has[0] else 60, 10, (24, 24))
        for present, columns in zip(has[1:], (slice(2, 8), slice(16, 22)), strict=True):
            pixels[8:16, columns] = 250 if present else 0
        (root / "images").mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{n:02}.png")
        cells = ["" if (3 * n + place) % 7 == 0 else str(int(one)) for place, one in enumerate(has)]
        rows.append([f"images/{n:02}.png", f"p{n // 2}", *cells])
    columns = ["image", "patient", *(name.upper() for name in FOUND)]
    pd.DataFrame(rows, columns=columns).to_csv(root / "findings.csv", index=False)
    return root / "findings.csv"


COLUMN = {f"finding:{name}": name.upper() for name in FOUND}
SMALL = {**trained.FEW_STEPS, "network.size": trained.SMALL_RESNET}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A table of findings, and the run on it."""
    root = tmp_path_factory.mktemp("findings")
    table = findings_table(root / "data")
    hilum.train(table, out=root / "run", column=COLUMN, device="cpu", threads=1, assignments=SMALL)
    return root


@pytest.fixture(scope="module")
def packaged(found, tmp_path_factory):
    """The package of that run."""
    out = tmp_path_factory.mktemp("packaged") / "package"
    with forked.trials():
        return hilum.package(found / "run", out=out, backends=("onnx",)).out


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """Pictures in three grades, the run on them with a cumulative link, and the run's package."""
    root = tmp_path_factory.mktemp("grades")
    trained.pictures(root / "data", 60, GRADES)
    trained.classifying(root / "data", root / "run", assignments={"task.order": "cumulative"})
    with no_export():
        hilum.package(root / "run", out=root / "packaged", backends=())
    return root


def values(run: Path) -> dict[tuple[str, str], dict]:
    rows = json.loads((run / "evaluation" / "summary.json").read_text())["rows"]
    return {(row["metric"], row["label"]): row for row in rows}


@pytest.mark.whole
def test_minutes_that_are_left_train_a_further_network_of_findings(found, tmp_path, monkeypatch):
    monkeypatch.setattr(_run_minutes, "MOST_NETWORKS", 2)  # five take too long for a test
    chosen = {**SMALL, "training.steps": None, "training.epochs": 1, "split.inner_folds": 0, "guard.gate": False}
    chosen["training.compute"] = "eager"
    reading = {"column": COLUMN, "device": "cpu", "threads": 1}
    hilum.train(found / "data" / "findings.csv", out=tmp_path / "run", minutes=30, assignments=chosen, **reading)
    assert plan_file.read_plan(tmp_path / "run" / "plan.yaml")["training.networks"] == 2
    picture = next((found / "data" / "images").iterdir())
    assert set(hilum.load(tmp_path / "run", "cpu").predict(picture).probabilities) == set(FOUND)


def test_check_counts_each_finding_where_it_is_known(found, tmp_path):
    stated = hilum.check(found / "data" / "findings.csv", column=COLUMN, out=tmp_path / "check")
    table = pd.read_csv(found / "data" / "findings.csv", dtype=str)
    counts = ", ".join(f"{n} {(table[n.upper()] == '1').sum()} of {table[n.upper()].notna().sum()}" for n in FOUND)
    assert stated.facts["findings"] == counts
    assert "Cases that have each; a case can have several." in (tmp_path / "check" / "check.html").read_text()
    record = json.loads((tmp_path / "check" / "check.json").read_text())
    assert all(set(case["references"]) == {"findings"} for case in record["cases"].values())


def test_findings_are_scored_where_they_are_known(found):
    rows = values(found / "run")
    cases = pd.read_csv(found / "run" / "evaluation" / "cases.csv", dtype=str)
    for name in FOUND:
        assert rows["auroc", name]["n"] == (cases["label"] == name).sum()
    assert rows["auroc", "all"]["n"] == cases["case"].nunique()
    assert "auroc" in (found / "run" / "plan.yaml").read_text()
    assert (found / "run" / "report.html").is_file()


def test_every_finding_is_in_every_part_and_no_patient_in_two(found):
    split = pd.read_csv(found / "run" / "split.csv", dtype=str)
    assert split.groupby("patient")["split"].nunique().max() == 1
    table = pd.read_csv(found / "data" / "findings.csv", dtype=str).assign(
        case=lambda one: one["image"].str[len("images/") : -len(".png")]
    )
    joined = table.merge(split, on="case")
    for name in FOUND:
        assert set(joined.loc[joined[name.upper()] == "1", "split"]) == {"train", "val", "test"}


@pytest.mark.whole
def test_a_prediction_of_findings_is_the_same_from_the_run_the_package_and_without_hilum(found, packaged, tmp_path):
    images = found / "data" / "images"
    ours = hilum.predict(found / "run", images, device="cpu", out=tmp_path / "predicted").table
    columns = [f"{kind}_{name}" for kind in ("probability", "called", "set") for name in FOUND]
    assert list(ours.columns)[2:] == [*columns, *trained.OF_CERTAINTY]
    of_package = hilum.predict(packaged, images, device="cpu").table
    words = ("-m", "monai.bundle", "run", "--config_file", CONFIG, "--dataset_dir", images)
    done = without_hilum(packaged, *words, "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    single = pd.read_csv(tmp_path / "out" / "predictions.csv")
    for column in [name for name in ours if name.startswith("probability_")]:
        assert of_package[column].to_numpy() == pytest.approx(ours[column].to_numpy(), abs=1e-6)
        assert single[column].to_numpy() == pytest.approx(ours[column].to_numpy(), abs=1e-6)
    for column in [name for name in ours if name.startswith("called_")]:
        assert single[column].tolist() == ours[column].tolist()


@pytest.mark.whole
def test_a_package_of_findings_is_certified(packaged):
    record = json.loads((packaged / "hilum" / "certificate.json").read_text())
    [plain] = [one for one in record["trials"] if one["backend"] == "onnx"]
    assert plain["passed"], plain["because"]


@pytest.mark.whole
def test_findings_go_through_evaluation_again_with_the_same_figures(found):
    again = hilum.evaluate(found / "run", found / "data" / "findings.csv", device="cpu")
    first = values(found / "run")["auroc", "all"]
    assert again.rows[0].estimate.value == pytest.approx(first["value"])


def test_sampling_findings_by_class_is_refused_with_what_to_do_instead(found):
    with pytest.raises(PlanError, match=r"task\.loss=class_balanced"):
        hilum.plan(
            found / "data" / "findings.csv", column=COLUMN, device="cpu", assignments={"training.sampling": "balanced"}
        )


@pytest.mark.whole
def test_a_weighted_loss_and_mixed_images_train(found, tmp_path):
    mixed = {**SMALL, "task.loss": "class_balanced", "training.steps": 2, "augmentation.mixup": 0.4}
    run = hilum.train(
        found / "data" / "findings.csv", out=tmp_path / "run", column=COLUMN, device="cpu", threads=1, assignments=mixed
    )
    assert np.isfinite(pd.read_csv(run.out / "log.csv")["loss"]).all()


@pytest.mark.whole
def test_an_order_brings_its_own_metrics_and_class_probabilities(graded):
    rows = values(graded / "run")
    assert next(iter(rows)) == ("quadratic_kappa", "all")
    for metric in ("mae", "rps", "expected_cost", "auroc"):
        assert rows[metric, "all"]["n"] == rows["quadratic_kappa", "all"]["n"]
    cases = pd.read_csv(graded / "run" / "evaluation" / "cases.csv")
    chances = cases[[f"probability_{name}" for name in GRADES]].to_numpy()
    assert chances.sum(axis=1) == pytest.approx(np.ones(len(cases)))
    assert cases["predicted"].tolist() == (chances @ np.arange(3)).round().astype(int).tolist()
    log = (graded / "run" / "plan.yaml").read_text()
    assert log.count("value: quadratic_kappa") == 2


@pytest.mark.whole
def test_grades_are_predicted_alike_by_the_run_the_package_and_without_hilum(graded, tmp_path):
    images = Path(shutil.copytree(graded / "data" / "1", tmp_path / "images"))
    ours = hilum.predict(graded / "run", images, device="cpu", abstain="off").table
    packaged = hilum.predict(graded / "packaged", images, device="cpu", abstain="off").table
    words = ("-m", "monai.bundle", "run", "--config_file", CONFIG, "--dataset_dir", images)
    done = without_hilum(graded / "packaged", *words, "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    single = pd.read_csv(tmp_path / "out" / "predictions.csv")
    for name in GRADES:
        column = f"probability_{name}"
        assert packaged[column].to_numpy() == pytest.approx(ours[column].to_numpy(), abs=1e-6)
        assert single[column].to_numpy() == pytest.approx(ours[column].to_numpy(), abs=1e-6)
    assert single["predicted"].astype(str).tolist() == ours["predicted"].tolist()


@pytest.mark.whole
def test_the_networks_outputs_are_named_in_the_package_though_they_are_no_grades(graded):
    record = json.loads((graded / "packaged" / "configs" / "metadata.json").read_text())["network_data_format"]
    pred = record["outputs"]["pred"]
    assert (pred["num_channels"], pred["channel_def"]) == (2, {"0": "output 0", "1": "output 1"})


@pytest.mark.whole
def test_folds_of_grades_become_one_model_that_can_be_packaged(tmp_path):
    trained.pictures(tmp_path / "data", 36, GRADES)
    few = {"task.order": "corn", "training.steps": 2, "training.validations": 1, "augmentation.mixup": 0.4}
    run = trained.classifying(tmp_path / "data", tmp_path / "run", folds=2, assignments=few)
    with no_export():
        packaged = hilum.package(run.out, out=tmp_path / "packaged", backends=())
    assert packaged.networks == 2
    image = tmp_path / "data" / "0" / "00.png"
    ours, theirs = (hilum.load(path, "cpu").predict(image).probabilities for path in (run.out, packaged.out))
    assert list(theirs.values()) == pytest.approx(list(ours.values()), abs=1e-6)
