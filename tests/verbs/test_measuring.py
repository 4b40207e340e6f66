"""Measured values all the way: from a table of pictures to a package that runs without Hilum."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import PIL.Image
import pytest

import forked
import hilum
import trained
from packages import bundle_checked_and_run

COLUMNS = {"value:area": "area_px", "value:brightness": "brightness (percent)"}
NOISY = {**trained.FEW_STEPS, "network.size": trained.SMALL_RESNET, "task.noise": "gaussian"}


def discs(root: Path, count: int = 24) -> Path:
    """A table of pictures of a disc, with its area and, for two in three, the brightness of all."""
    (root / "pictures").mkdir(parents=True)
    rows = ["image,patient,area_px,brightness (percent)"]
    for n in range(count):
        rng = np.random.default_rng(n)
        away = np.hypot(*(np.indices((24, 24)) - rng.uniform(9, 14, size=(2, 1, 1))))
        inside = away < rng.uniform(3, 8)
        pixels = (40 + 150 * inside + rng.normal(0, 6, inside.shape)).clip(0, 255).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(root / "pictures" / f"disc{n:02}.png")
        bright = f"{100 * pixels.mean() / 255:.2f}" if n % 3 else ""
        rows.append(f"pictures/disc{n:02}.png,p{n},{inside.sum()},{bright}")
    (root / "cases.csv").write_text("\n".join(rows))
    return root / "cases.csv"


@pytest.fixture(scope="module")
def measuring(tmp_path_factory):
    """A table of discs and the folder of the run on it; tests only read them."""
    root = tmp_path_factory.mktemp("measuring")
    data = discs(root / "data")
    hilum.train(data, out=root / "run", device="cpu", threads=1, column=COLUMNS, assignments=NOISY)
    return data, root / "run"


@pytest.fixture(scope="module")
def packaged(measuring, tmp_path_factory):
    """The package of the run; tests only read it."""
    with forked.trials():
        return hilum.package(measuring[1], out=tmp_path_factory.mktemp("packaged") / "discs", backends=("onnx",))


def test_a_check_says_where_the_values_lie(measuring, tmp_path):
    found = hilum.check(measuring[0], column=COLUMNS, out=tmp_path / "check", threads=1)
    assert found.passed
    assert found.facts["references"] == "value"
    assert "(24 cases); brightness" in found.facts["values"]
    record = json.loads((tmp_path / "check" / "check.json").read_text())
    assert set(record["cases"]["disc01"]["references"]["value"]) == {"area", "brightness"}
    assert "Values: area" in (tmp_path / "check" / "check.html").read_text()


def test_the_plan_standardises_by_the_training_cases_and_scales_no_image(measuring):
    plan = hilum.plan(measuring[0], column=COLUMNS, device="cpu", threads=1).plan
    assert plan["task.name"] == "regression"
    assert plan["task.targets"] == ["area", "brightness"]
    assert plan["task.units"] == {"brightness": "%"}
    assert plan["augmentation.scale"] == 0
    assert (plan["training.selection"], plan["evaluation.primary"]) == ("r2", "mae")
    assert plan["network.name"] == "resnet"


def test_a_run_has_figures_for_each_value_with_unit_and_interval(measuring):
    _, run = measuring
    rows = json.loads((run / "evaluation" / "summary.json").read_text())["rows"]
    assert (rows[0]["metric"], rows[0]["label"], rows[0]["unit"]) == ("mae", "all", "SD")
    [own] = [row for row in rows if (row["metric"], row["label"]) == ("rmse", "brightness")]
    assert own["unit"] == "%"
    assert own["low"] <= own["value"] <= own["high"]
    table = pd.read_csv(run / "evaluation" / "cases.csv")
    assert set(table["label"]) == {"area", "brightness"}
    assert np.allclose(table["difference"], table["predicted"] - table["reference"])
    page = (run / "report.html").read_text()
    assert "area: differences" in page
    assert "Bland-Altman plot of" in page


def test_predictions_have_a_column_for_each_value_and_each_error_bar(measuring, cli, tmp_path):
    data, run = measuring
    done = cli("predict", run, data.parent / "pictures", "--out", tmp_path / "out", "--device", "cpu", "--json")
    assert done.code == 0, done.err
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    names = [f"{kind}_{name}" for kind in ("value", "error", "low", "high") for name in ("area", "brightness")]
    assert list(table.columns) == ["case", "image", *names, "gate_p", "abstained"]
    assert (table[["error_area", "error_brightness"]] > 0).all(axis=None)
    assert table["low_area"].isna().all()  # five validation cases rule nothing out
    assert len(json.loads(done.out)["rows"]) == len(table) == 24
    model = hilum.load(run, "cpu")
    prediction = model.predict(data.parent / "pictures" / "disc03.png")
    assert prediction.values["area"] == pytest.approx(table["value_area"][3])
    assert prediction.confidence.deviations.tolist() == pytest.approx(table.loc[3, names[2:4]].tolist())


@pytest.mark.whole
def test_other_data_are_scored_on_the_values_that_they_have(measuring, cli, tmp_path):
    other, run = discs(tmp_path / "other", 6), measuring[1]
    done = cli("evaluate", run, other, "--column", "value:area=area_px", "--out", tmp_path / "out", "--device", "cpu",
               "--split", "all")  # fmt: skip
    assert done.code == 0, done.err
    assert set(pd.read_csv(tmp_path / "out" / "cases.csv")["label"]) == {"area"}
    assert "MAE, area " in done.out
    assert "Not scored, because no case here says anything of them: brightness." in done.out


def test_a_table_without_the_values_of_the_model_is_refused(measuring, cli, tmp_path):
    data, run = measuring
    done = cli("evaluate", run, data, "--column", "value:size=area_px", "--out", tmp_path / "out", "--device", "cpu")
    assert done.code == 1
    assert "has no value of area, brightness, only size" in done.last


@pytest.mark.whole
def test_a_package_says_the_same_with_onnx_and_its_certificate_judges_numbers(measuring, packaged):
    data, run = measuring
    torchs, onnxs = packaged.certificate.trials
    assert (torchs.passed, onnxs.passed) == (True, True)
    assert (onnxs.difference.voxels, onnxs.difference.dice) == (0, {})
    assert 0 < onnxs.difference.largest < 1e-4
    image = hilum.read(data.parent / "pictures" / "disc03.png")
    ours, theirs = (
        hilum.load(run, "cpu").predict(image),
        hilum.load(packaged.out, "cpu", backend="onnx").predict(image),
    )
    assert theirs.values == pytest.approx(ours.values, rel=1e-4)
    assert theirs.confidence.deviations.tolist() == pytest.approx(ours.confidence.deviations.tolist(), rel=1e-4)
    record = json.loads((packaged.out / "configs" / "metadata.json").read_text())["network_data_format"]["outputs"][
        "pred"
    ]
    assert (record["type"], record["format"], record["num_channels"]) == ("tuples", "magnitude", 4)
    assert record["channel_def"] == {"0": "area", "1": "brightness", "2": "about area", "3": "about brightness"}
    assert "| output | quantity | code |" in (packaged.out / "docs" / "README.md").read_text()


@pytest.mark.whole
def test_a_package_measures_under_monai_without_hilum(measuring, packaged, tmp_path):
    data, run = measuring
    done = bundle_checked_and_run(packaged.out, data.parent / "pictures", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    assert "missing properties: []" in done.stdout
    theirs = pd.read_csv(tmp_path / "results" / "predictions.csv").set_index("case")
    ours = hilum.predict(run, data.parent / "pictures", device="cpu").table.set_index("case")
    assert list(theirs.columns) == list(ours.columns)
    for name in ("value_area", "error_brightness"):
        np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-4)


@pytest.mark.whole
def test_volumes_of_different_size_keep_their_scale(tmp_path):
    """Two images of the same ball, one with half the voxels on each side: in mm they are one."""
    (tmp_path / "volumes").mkdir()
    rows = ["image,volume_mm3"]
    for n in range(12):
        size, step = ((16, 16, 16), 2.0) if n % 2 else ((20, 24, 16), 1.0)
        voxels = np.random.default_rng(n).normal(100, 20, size).astype(np.float32)
        nibabel.Nifti1Image(voxels, np.diag([step, step, step, 1])).to_filename(tmp_path / "volumes" / f"{n:02}.nii.gz")
        rows.append(f"volumes/{n:02}.nii.gz,{1000 + 37.5 * n}")
    (tmp_path / "cases.csv").write_text("\n".join(rows))
    column = {"value": "volume_mm3"}
    plan = hilum.plan(tmp_path / "cases.csv", column=column, device="cpu", threads=1).plan
    assert plan["preprocessing.shape"] is None
    spacing, patch = plan["preprocessing.spacing"], plan["training.patch"]
    assert len(set(spacing)) == 1
    assert all(spacing[0] * n >= 32 for n in patch)  # the larger of them is seen as a whole
    assert patch == plan["inference.patch"] == plan["preprocessing.smallest"]
    assert "keeps its own" in plan.decision("preprocessing.spacing").because
    few = {**trained.FEW_STEPS, "network.size": trained.SMALL_RESNET}
    run = hilum.train(
        tmp_path / "cases.csv", out=tmp_path / "run", column=column, device="cpu", threads=1, assignments=few
    )
    assert {row.estimate.unit for row in run.rows if row.metric == "mae"} == {"mm³"}


@pytest.mark.whole
def test_folds_share_the_scale_of_the_values(tmp_path):
    data = discs(tmp_path / "data", 14)
    few = {**trained.FEW_STEPS, "network.size": trained.SMALL_RESNET, "training.batch": 4}
    hilum.train(
        data, out=tmp_path / "run", column={"value": "area_px"}, folds=2, device="cpu", threads=1, assignments=few
    )
    model = hilum.load(tmp_path / "run", "cpu")
    image = hilum.read(data.parent / "pictures" / "disc00.png")
    each = [hilum.load(tmp_path / "run", "cpu", fold=n).predict(image).values["area_px"] for n in range(2)]
    assert model.predict(image).values["area_px"] == pytest.approx(np.mean(each), rel=1e-5)
    assert len(pd.read_csv(tmp_path / "run" / "evaluation" / "cases.csv")) == 14
