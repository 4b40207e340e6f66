"""`package` on runs that were trained, and what the other verbs do with its result."""

from __future__ import annotations

import getpass
import json
import platform
import re
import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import hilum
import trained
from hilum.errors import UsageError
from hilum.runtime import model_files, record_files
from hilum.values import Decision, Plan
from hilum.verbs.package import _decisions
from packages import CONFIG, no_export, of_a_fresh_python


@pytest.fixture(scope="module")
def zipped(classified, tmp_path_factory):
    """The zip of a run on pictures."""
    out = tmp_path_factory.mktemp("zipped") / "pictures.zip"
    with no_export():
        return hilum.package(classified.out, out=out, backends=())


@pytest.fixture
def own(packaged, tmp_path):
    """A package of one's own, to be damaged."""
    return Path(shutil.copytree(packaged.out, tmp_path / "shells"))


@pytest.mark.whole
def test_monais_own_command_gives_what_predict_gives_without_hilum(segmented, packaged, tmp_path):
    images = Path(shutil.copytree(segmented.data / "images", tmp_path / "images"))
    coarse = nibabel.load(images / "case00.nii.gz")
    affine = coarse.affine @ np.diag([1.5, 1.25, 0.8, 1])  # to be resampled: the spacing is another than in training
    nibabel.Nifti1Image(np.asarray(coarse.dataobj), affine).to_filename(images / "coarse.nii.gz")
    words = ("-m", "monai.bundle", "run", "--config_file", CONFIG, "--dataset_dir", images)
    done = of_a_fresh_python(packaged.out, tmp_path / "blocked", *words, "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    ours = hilum.predict(segmented.out, images, device="cpu")
    assert len(ours.predictions) == 13
    for case, prediction in ours.predictions.items():
        found = nibabel.load(tmp_path / "out" / f"{case}.nii.gz")
        assert_array_equal(np.asarray(found.dataobj), np.asarray(prediction.data))
        assert_allclose(found.affine, prediction.geometry.affine, atol=1e-4)
        assert prediction.data.any()
    table = pd.read_csv(tmp_path / "out" / "predictions.csv").set_index("case")
    for row in ours.table.itertuples():
        assert table.loc[row.case, "shell_ml"] == pytest.approx(row.shell_ml)


def test_it_says_where_it_lies_and_how_to_run_it(packaged, zipped):
    assert str(packaged.out) in repr(packaged)
    assert f"hilum predict {packaged.out}" in repr(packaged)
    assert "python -m monai.bundle run --config_file configs/inference.json" in repr(packaged)
    assert f"unpack {zipped.out}" in repr(zipped)
    assert packaged.as_record()["onnx"]["exported"]


@pytest.mark.whole
def test_the_command_line_does_the_same(segmented, tmp_path, cli):
    with no_export():
        done = cli("package", segmented.out, "--out", tmp_path / "out", "--backends", "none", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["out"] == str(tmp_path / "out")
    assert (tmp_path / "out" / "configs" / "inference.json").is_file()


def test_codes_and_ratios_of_a_package_are_in_its_findings_with_the_measurements(segmented, tmp_path, cli):
    codes = tmp_path / "codes.csv"
    codes.write_text("name,scheme,value,meaning\ncore,99SITE,7,Core\ncore,RADLEX,RID1,core\n")
    flags = ["--codes", codes, "--measure", "share = core.volume_ml / shell.volume_ml", "--backends", "none"]
    with no_export():
        done = cli("package", segmented.out, "--out", tmp_path / "package", *flags)
    assert done.code == 0, done.err
    lines = [line for line in done.out.splitlines() if line.startswith("code of")]
    assert lines[0] == "code of core: 99SITE 7, Core; RADLEX RID1, core (codes.csv)"
    assert lines[1].startswith("code of shell: private (99HILUM)")
    image = sorted((segmented.data / "images").iterdir())[0]
    hilum.predict(tmp_path / "package", image, out=tmp_path / "out", device="cpu")
    rows = json.loads((tmp_path / "out" / "findings.json").read_text())["rows"]
    core = [row for row in rows if row["group"] == "core"]
    assert [code["scheme"] for code in core[0]["codes"]] == ["99SITE", "RADLEX"] and core[0]["label"] == 2
    assert {"short axis", "number of pieces", "sphericity"} <= {row["concept"] for row in core}
    [shell] = [row["value"] for row in rows if row["concept"] == "shell"]
    assert rows[-1]["concept"] == "share"
    assert rows[-1]["value"] == pytest.approx(core[0]["value"] / shell, rel=1e-3)


@pytest.mark.parametrize("kind", ["packaged", "zipped"])
def test_a_package_predicts_as_its_run_does(kind, segmented, classified, request):
    package, run = request.getfixturevalue(kind), segmented if kind == "packaged" else classified
    path = next(one for one in sorted(run.data.rglob("*")) if one.is_file())
    there, here = hilum.load(package.out, "cpu").predict(path), hilum.load(run.out, "cpu").predict(path)
    assert there.probabilities == here.probabilities
    if here.data is not None:
        assert_array_equal(np.asarray(there.data), np.asarray(here.data))


@pytest.mark.parametrize("kind", ["packaged", "zipped"])
@pytest.mark.whole
def test_a_package_that_is_evaluated_leaves_out_the_images_that_trained_it(kind, segmented, classified, request):
    package, run = request.getfixturevalue(kind), segmented if kind == "packaged" else classified
    parts = pd.read_csv(run.out / "split.csv", dtype=str).set_index("case")["split"]
    found = hilum.evaluate(
        package.out, run.data, device="cpu", **({"labels": trained.LABELS} if kind == "packaged" else {})
    )
    assert {parts[case] for case in found.scored.table["case"]} == {"test"}
    assert any("that trained this model" in note for note in found.notes)


@pytest.mark.parametrize("backend", ["onnx", "torch"])
@pytest.mark.whole
def test_a_package_is_scored_by_the_backend_that_is_asked_for(backend, segmented, packaged, monkeypatch):
    asked, load = [], model_files.load
    monkeypatch.setattr(model_files, "load", lambda *given, **how: asked.append(how["backend"]) or load(*given, **how))
    given = {"device": "cpu", "labels": trained.LABELS, "backend": backend}
    dice = hilum.evaluate(packaged.out, segmented.data, **given).rows[0].estimate.value
    assert asked == [backend]
    own = hilum.evaluate(segmented.out, segmented.data, device="cpu").rows[0].estimate.value
    assert dice == pytest.approx(own, abs=1e-3)


def test_it_says_what_was_measured_and_where_that_ends(segmented, packaged):
    page = (packaged.out / "docs" / "README.md").read_text()
    rows = json.loads((segmented.out / "evaluation" / "summary.json").read_text())["rows"]
    dice = next(row for row in rows if (row["metric"], row["label"]) == ("dice", "all"))
    assert f"Dice {dice['value']:.3f} (95 % interval" in page
    assert "Patients unknown, split by case: leakage cannot be excluded." in page
    assert "9 for training, 1 for selection, 2 for testing" in page
    verdict = record_files.read_json(segmented.out / "run.json", "hilum.run")["verdict"]
    assert verdict["against"]
    assert all(f"- {one}\n" in page for one in (*verdict["training"], *verdict["against"]))
    assert "not a medical device" in page
    model = hilum.load(packaged.out, "cpu")
    assert model.guard is not None and str(model.guard.state) in page
    assert f"| model (SHA-256) | {model.sha256} |" in page
    assert not re.search(r"\| *\|", page)  # no cell of a table is empty
    assert f"| its weights (SHA-256) | {model.record['weights_sha256']} |" in page


def test_the_record_holds_what_is_known_of_the_model(segmented, packaged):
    record = record_files.read_json(packaged.out / "hilum" / "model.json", "hilum.model")
    assert [label["name"] for label in record["labels"]] == ["shell", "core"]
    assert record["record"]["data_hash"] == hilum.load(segmented.out, "cpu").record["data_hash"]
    assert record["record"]["fingerprint"]["cases"] == 9  # that trained
    assert record["record"]["fingerprint"]["shape"]["median"] == [16, 16, 16]
    assert {"value", "because", "source"} == set(record["decisions"]["network.name"])
    assert record["evaluation"][0]["low"] is not None
    assert "torch" in record["environment"]["versions"]


def test_no_case_no_patient_and_no_path_of_this_machine_stands_in_it(segmented, packaged):
    cases = pd.read_csv(segmented.out / "split.csv", dtype=str)
    names = {*cases["case"], *cases["patient"]}
    for path in (one for one in packaged.out.rglob("*") if one.suffix in (".json", ".md", ".py")):
        text = path.read_text()
        assert not [name for name in names if name in text], path
        assert str(segmented.out.parent) not in text, path


def test_no_byte_of_a_run_or_a_package_names_the_machine_or_its_user(segmented, packaged):
    """Paths are the checkout's, Python's, the user's and those of the data; short names stand in any text by chance."""
    places = [Path(hilum.__file__).parents[2], Path(sys.prefix), Path.home(), segmented.data, packaged.out]
    names = [name for name in (platform.node(), getpass.getuser()) if len(name) >= 6]
    words = [re.escape(f"{place}/") for place in places] + [rf"\b{re.escape(name)}\b" for name in names]
    named = re.compile("|".join(words).encode())
    files = [path for folder in (segmented.out, packaged.out) for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"model.onnx", "report.html", "environment.json", "model.json"}
    assert not [(str(path), found[0]) for path in files if (found := named.search(path.read_bytes()))]


def test_files_that_were_added_to_a_package_are_named(own, segmented, caplog):
    (own / "scripts" / "extra.py").write_text("print('hello')")
    (own / ".DS_Store").write_bytes(b"of the system")
    hilum.load(own, device="cpu")
    [line] = [line for line in caplog.messages if "did not write" in line]
    assert "scripts/extra.py" in line
    assert "DS_Store" not in line


def test_a_run_of_folds_becomes_the_mean_of_its_networks_and_says_what_was_scored(segmented, tmp_path):
    run, table = tmp_path / "run", pd.read_csv(segmented.out / "split.csv", dtype=str)
    shutil.copytree(segmented.out, run, ignore=shutil.ignore_patterns("checkpoints"))
    for fold, kind in enumerate(("best", "last")):
        shutil.copytree(segmented.out / "checkpoints" / kind, run / f"fold_{fold}" / "checkpoints" / "best")
    pd.concat([table.assign(fold=str(n)) for n in range(2)]).to_csv(run / "split.csv", index=False)
    with no_export():
        made = hilum.package(run, out=tmp_path / "out", backends=())
    assert made.networks == 2
    image = segmented.data / "images" / "case01.nii.gz"
    there, here = (hilum.load(one, "cpu").predict(image).data for one in (made.out, run))
    assert_array_equal(np.asarray(there), np.asarray(here))
    page = (made.out / "docs" / "README.md").read_text()
    assert "12 cases, trained and tested by cross-validation" in page
    assert "was not scored itself" in page


def test_an_unfinished_run_is_refused(segmented, tmp_path):
    run = Path(shutil.copytree(segmented.out, tmp_path / "run"))
    (run / "report.html").unlink()
    with pytest.raises(UsageError, match=r"not finished.*--resume"):
        hilum.package(run, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "problem"), [("images", "holds no run"), ("nothing", "no such file or folder")])
def test_what_is_no_run_is_refused(segmented, tmp_path, name, problem):
    with pytest.raises(UsageError, match=problem):
        hilum.package(segmented.data / name, out=tmp_path / "out")


@pytest.mark.whole
def test_what_is_there_is_not_overwritten_unless_asked_for(segmented, own):
    before = (own / "manifest.json").read_text()
    with pytest.raises(UsageError, match="exists already"):
        hilum.package(segmented.out, out=own)
    assert (own / "manifest.json").read_text() == before
    (own / "left.txt").write_text("x")
    with no_export():
        hilum.package(segmented.out, out=own, overwrite=True, backends=())
    assert not (own / "left.txt").exists()


def test_another_folder_is_never_replaced(segmented, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="not overwritten"):
        hilum.package(segmented.out, out=tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").is_file()


def test_a_run_with_a_damaged_model_leaves_nothing_half_written(segmented, tmp_path, cli):
    run = Path(shutil.copytree(segmented.out, tmp_path / "run"))
    weights = run / "checkpoints" / "best" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    done = cli("package", run, "--out", tmp_path / "out", "--backends", "none")
    assert done.code == 1
    assert "SHA-256" in done.last
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_archive_that_is_no_zip_is_refused_before_the_run_is_read(segmented, tmp_path, cli):
    done = cli("package", segmented.out, "--out", tmp_path / "model.tar")
    assert done.code == 2
    assert "a package is never written as .tar" in done.last
    assert not list(tmp_path.iterdir())


def test_none_stands_alone(segmented, tmp_path, cli):
    done = cli("package", segmented.out, "--out", tmp_path / "out", "--backends", "onnx,none")
    assert done.code == 2
    assert "'none' is mixed with other names: 'onnx,none'" in done.last


def test_a_decision_on_files_keeps_no_more_than_their_names():
    one, several = "/home/someone/weights.pt", ["/home/someone/scans", "/home/someone/more"]
    sections = {
        "network": {"pretrained": Decision(one, f"from {one}")},
        "objectives": {"target": Decision(several, f"{several[0]} and others"), "terms": Decision(["dann"], "asked")},
    }
    kept = _decisions(Plan(sections))
    assert kept["network.pretrained"] == Decision("weights.pt", "from a file")
    assert kept["objectives.target"] == Decision(["scans", "more"], "a file and others")
    assert kept["objectives.terms"] == Decision(["dann"], "asked")
