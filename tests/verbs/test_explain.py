"""`explain`: the files and columns that it writes, and what it refuses."""

from __future__ import annotations

import json
import logging
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import tifffile

import hilum
from explanation.looking import corner_model, textured
from hilum.errors import UsageError
from hilum.explanation import explanation_methods
from hilum.explanation.explanation_methods import METHODS as ALL_METHODS
from hilum.explanation.faithfulness import FEWEST, TESTED, TESTS_VERSION
from hilum.runtime import record_files
from hilum.runtime.torch_networks import Differentiable
from hilum.scoring.explaining import cohort_explanation, explanation_report, kept_tests
from hilum.values import Case
from packages import no_export

METHODS = "gradcam,occlusion,integrated_gradients"
COLUMNS = [
    "case",
    "target",
    "method",
    "passed",
    "deletion",
    "insertion",
    "stability",
    "pointing",
    "energy",
    "border_share",
    "seconds",
]


def test_pictures_have_a_map_a_picture_and_a_row_for_each_method(classified, tmp_path, cli):
    picture = sorted((classified.data / "bright").glob("*.png"))[0]
    ended = cli("explain", classified.out, picture, "--method", METHODS, "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    files = {path.name for path in (tmp_path / "out").iterdir()}
    each = {f"{picture.stem}_{name}{end}" for name in METHODS.split(",") for end in (".tiff", ".png")}
    assert files == {*each, "explanations.csv", "explanations.json", "report.html"}
    table = pd.read_csv(tmp_path / "out" / "explanations.csv")
    assert list(table.columns) == COLUMNS
    assert table["method"].tolist() == METHODS.split(",")
    assert table["target"].isin(["bright", "dark"]).all()
    assert table["border_share"].between(0, 1).all()
    data = tifffile.imread(tmp_path / "out" / f"{picture.stem}_occlusion.tiff")
    assert data.dtype == np.float32
    record = json.loads((tmp_path / "out" / "explanations.json").read_text())
    assert {"methods", "findings", "refused"} <= set(record)
    assert record["sha256"] == hilum.load(classified.out).sha256
    assert record["sha256"] in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert set(record["files"]) == each  # as they lie in the folder of the record


def test_the_record_on_standard_output_is_json_in_which_what_is_not_known_is_null(classified, tmp_path, cli):
    picture = sorted((classified.data / "bright").glob("*.png"))[0]
    ended = cli("explain", classified.out, picture, "--method", "gradcam", "--json", "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    [row] = json.loads(ended.out)["rows"]
    assert list(row) == COLUMNS
    assert (row["method"], row["passed"], row["deletion"], row["pointing"]) == ("gradcam", None, None, None)


def test_volumes_have_maps_on_the_grid_of_their_source(segmented, tmp_path):
    source = sorted((segmented.data / "images").glob("*.nii.gz"))[0]
    hilum.explain(segmented.out, source, method="gradcam", target="core", out=tmp_path / "out")
    made, given = nibabel.load(tmp_path / "out" / "case00_gradcam.nii.gz"), nibabel.load(source)
    assert made.shape == given.shape
    assert made.get_data_dtype() == np.float32
    np.testing.assert_allclose(made.affine, given.affine, atol=1e-4)


def test_ctrl_c_keeps_the_cases_that_were_explained_by_then(classified, tmp_path, monkeypatch, caplog):
    written, begun = cohort_explanation._write_map, []

    def pressed(made, image, name, folder, pictures):
        first, *others = written(made, image, name, folder, pictures)
        begun.append(name)
        yield first
        if len(begun) == 3:
            raise KeyboardInterrupt
        yield from others

    monkeypatch.setattr(cohort_explanation, "_write_map", pressed)
    with pytest.raises(KeyboardInterrupt):
        hilum.explain(classified.out, classified.data / "bright", method="gradcam", tests=0, out=tmp_path / "out")
    assert pd.read_csv(tmp_path / "out" / "explanations.csv", dtype=str)["case"].tolist() == begun[:2]
    kept = {f"{case}_gradcam{end}" for case in begun[:2] for end in (".tiff", ".png")}
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {*kept, "explanations.csv", "explanations.json", "report.html"}
    assert f"2 cases explained before the stop: {tmp_path / 'out'}" in caplog.text


def test_without_a_folder_nothing_is_written_and_the_maps_are_kept(classified):
    picture = sorted((classified.data / "dark").glob("*.png"))[0]
    result = hilum.explain(classified.out, picture, method=["gradcam"], target="dark")
    [(key, made)] = result.maps.items()
    assert key == (picture.stem, "gradcam")
    assert made.target == "dark"
    assert "explained by gradcam" in repr(result)


def test_an_unknown_method_or_target_is_refused_with_those_that_there_are(classified):
    picture = sorted((classified.data / "dark").glob("*.png"))[0]
    with pytest.raises(UsageError, match=r"no method 'lime'.*gradcam"):
        hilum.explain(classified.out, picture, method="lime")
    with pytest.raises(UsageError, match=r"no target 'cat'.*bright, dark"):
        hilum.explain(classified.out, picture, method="gradcam", target="cat")


def test_a_family_without_attention_is_refused_by_name_with_the_reason(classified, cli, tmp_path):
    picture = sorted((classified.data / "dark").glob("*.png"))[0]
    ended = cli("explain", classified.out, picture, "--method", "attention", "--out", tmp_path / "out")
    assert ended.code == 2
    assert "attention cannot explain this model: its answer is not computed by attention" in ended.last
    assert ended.last.count("cannot explain") == 1
    assert not (tmp_path / "out").exists()


def test_a_model_that_computes_without_torch_has_occlusion_and_rise_and_refuses_gradients_by_name(packaged, segmented):
    source = sorted((segmented.data / "images").glob("*.nii.gz"))[0]
    with pytest.raises(UsageError, match=r"computes without torch .*no gradients.*occlusion or rise"):
        hilum.explain(packaged.out, source, method="gradcam", backend="onnx")
    result = hilum.explain(packaged.out, source, backend="onnx", seconds=0.5, method="occlusion,rise")
    assert result.table["method"].tolist() == ["occlusion", "rise"]


@pytest.mark.whole
def test_methods_are_tested_once_a_model_and_what_was_found_travels_with_its_package(classified, tmp_path):
    run, few, out = shutil.copytree(classified.out, tmp_path / "run"), tmp_path / "few", tmp_path / "out"
    few.mkdir()
    for path in sorted((classified.data / "dark").glob("*.png"))[:7]:
        shutil.copy(path, few)
    first = hilum.explain(run, few, method="integrated_gradients", tests=6, out=out)
    record = json.loads((out / "explanations.json").read_text())
    [(name, found)] = record["methods"].items()
    assert name == "integrated_gradients"
    assert {"passed", "because", "randomisation", "deletion", "insertion", "stability", "infidelity"} <= set(found)
    assert set(found["randomisation"]) == {"value", "low", "high", "n", "method"}
    rows = pd.read_csv(out / "explanations.csv")
    assert rows["deletion"].notna().sum() == 6
    assert rows["passed"].nunique() == 1
    assert {"kind", "share", "area", "p", "cases"} <= set(record["findings"][0])
    again = hilum.explain(run, few, method="integrated_gradients", tests=6)
    assert again.methods == first.methods
    assert again.table["deletion"].isna().all()  # nothing was tested once more
    codes = tmp_path / "codes.csv"
    codes.write_text("name,scheme,value,meaning\ndark,99SITE,7,Dark\n")
    with no_export():
        made = hilum.package(run, out=tmp_path / "package", backends=(), codes=codes)
    kept = json.loads((made.out / "hilum" / "explanations.json").read_text())
    assert kept["methods"]["integrated_gradients"]["because"] == found["because"]
    other = hilum.explain(made.out, sorted((classified.data / "dark").glob("*.png"))[0])
    assert set(other.methods) == {"integrated_gradients"}
    assert set(other.table["method"]) == {"integrated_gradients"}  # what "auto" believes


def test_verdicts_on_a_model_are_not_those_of_another_one_with_the_same_weights(tmp_path):
    model = corner_model()
    kept_tests.keep_records(tmp_path, model, {"gradcam": {"passed": True, "because": "as given"}}, {})
    turned = replace(model, record={**model.record, "description_sha256": "0" * 64})
    assert kept_tests.kept_records(tmp_path, turned) == ({}, {})
    assert kept_tests.kept_content(tmp_path, turned) == {}
    assert kept_tests.kept_content(tmp_path, model)["sha256"] == model.sha256


@pytest.mark.parametrize("former", [{}, {"tests": TESTS_VERSION - 1}])
def test_verdicts_of_tests_that_have_changed_since_are_not_kept(segmented, tmp_path, former):
    model, judged = hilum.load(segmented.out), {"gradcam": {"passed": True, "because": "as given"}}
    kept_tests.keep_records(tmp_path, model, judged, {"attention": "it has none"})
    assert kept_tests.kept_records(tmp_path, model) == (judged, {"attention": "it has none"})
    content = record_files.read_json(tmp_path / "explanations.json", "hilum.explanations")
    record_files.write_json(tmp_path / "explanations.json", "hilum.explanations", {**content, "tests": None, **former})
    assert kept_tests.kept_records(tmp_path, model) == ({}, {})


def test_what_tests_found_is_all_that_becomes_part_of_a_package(packaged, tmp_path, caplog):
    folder = shutil.copytree(packaged.out, tmp_path / "package")
    (folder / "notes.txt").write_text("of a stranger")
    model, judged = hilum.load(folder, "cpu"), {"gradcam": {"passed": True, "because": "as given"}}
    kept_tests.keep_records(folder, model, judged, {})
    caplog.clear()
    hilum.load(folder, "cpu")
    assert "holds notes.txt, which its maker did not write" in caplog.text
    assert "explanations.json" not in caplog.text
    assert kept_tests.kept_records(folder, model) == (judged, {})


def test_a_package_stays_whole_where_no_space_is_left_for_what_tests_found(packaged, tmp_path, caplog):
    resource = pytest.importorskip("resource")  # POSIX has it
    folder = shutil.copytree(packaged.out, tmp_path / "package")
    model = hilum.load(folder, "cpu")
    kept_tests.keep_records(folder, model, {"gradcam": {"passed": True, "because": "as given"}}, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        kept_tests.keep_records(folder, model, {"occlusion": {"passed": True, "because": "long" * 50_000}}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "what the tests of methods found is not kept" in caplog.text
    hilum.load(folder, "cpu")
    assert set(kept_tests.kept_records(folder, model)[0]) == {"gradcam"}


def test_maps_are_compared_with_masks_and_masks_on_another_grid_are_a_failure_with_its_case(segmented, tmp_path):
    few = tmp_path / "few"
    for folder in ("images", "labels"):
        (few / folder).mkdir(parents=True)
        for n in range(2):
            shutil.copy(segmented.data / folder / f"case{n:02}.nii.gz", few / folder)
    other = nibabel.load(few / "labels" / "case01.nii.gz")
    nibabel.Nifti1Image(other.get_fdata().astype(np.uint8), other.affine + np.eye(4)).to_filename(
        few / "labels" / "case01.nii.gz"
    )
    result = hilum.explain(segmented.out, few / "images", references=few, method="gradcam")
    [row] = result.table.to_dict("records")
    assert row["case"] == "case00"
    assert row["pointing"] in (0, 1)
    assert 0 <= row["energy"] <= 1
    [failure] = result.failures
    assert "case01" in failure.what
    assert "another grid" in failure.what
    assert set(result.methods["gradcam"]) >= {"pointing", "energy", "area"}


@pytest.mark.whole
def test_evaluate_shows_maps_beside_its_best_and_worst_cases_by_methods_that_were_tested(segmented, tmp_path):
    run = shutil.copytree(segmented.out, tmp_path / "run")
    methods = {name: {"passed": name == "gradcam", "because": "as given"} for name in ALL_METHODS}
    content = {"sha256": hilum.load(run).sha256, "methods": methods}
    content |= {"tests": TESTS_VERSION, "refused": {}}
    record_files.write_json(run / "explanations.json", "hilum.explanations", content)
    made = hilum.evaluate(run, segmented.data, labels="1=shell,2=core", explain=True, out=tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "explanations.csv")
    assert list(table.columns) == COLUMNS
    assert set(table["method"]) == {"gradcam"}
    assert table["pointing"].isin([0, 1]).all()  # the masks of the cases are references
    best = {case for word, case, _, _ in made.scored.shown if word in ("best", "worst")}
    assert set(table["case"]) <= best
    record = json.loads((tmp_path / "out" / "explanations.json").read_text())
    assert record["methods"]["gradcam"]["passed"] is True
    page = (tmp_path / "out" / "report.html").read_text()
    assert "What answers rest on" in page
    assert page.count("gradcam passed its tests on this model") == 1
    assert not any("passed its tests" in note for note in (*made.notes, *made.verdict.against))


@pytest.mark.whole
def test_evaluate_says_before_it_tests_methods_that_it_takes_long_and_happens_once(segmented, tmp_path, caplog):
    run = shutil.copytree(segmented.out, tmp_path / "run")
    methods = {name: {"passed": False, "because": "as given"} for name in ALL_METHODS if name != "gradcam"}
    attention = {name: "as given" for name in methods if name.startswith("attention")}
    content = {"sha256": hilum.load(run).sha256, "refused": attention}
    content["tests"] = TESTS_VERSION
    content["methods"] = {name: one for name, one in methods.items() if name not in attention}
    record_files.write_json(run / "explanations.json", "hilum.explanations", content)
    options = {"labels": "1=shell,2=core", "split": "all", "device": "cpu", "explain": True}
    with caplog.at_level(logging.INFO, logger="hilum"):
        hilum.evaluate(run, segmented.data, **options, out=tmp_path / "first")
        [line] = [record.message for record in caplog.records if "may take minutes" in record.message]
        caplog.clear()
        hilum.evaluate(run, segmented.data, **options, out=tmp_path / "again")
        assert not [record for record in caplog.records if "may take minutes" in record.message]
    cases = min(TESTED, len(list((segmented.data / "images").iterdir())))
    assert line == f"testing 1 method of explanation on {cases} cases, once for this model: this may take minutes"
    kept = json.loads((run / "explanations.json").read_text())
    assert kept["methods"]["gradcam"]["passed"] is not None
    assert set(kept["refused"]) == set(attention) != set()


def test_places_on_which_methods_agree_come_first_and_those_of_one_method_are_named_apart():
    def row(method, kind, p):
        return {"method": method, "kind": kind, "target": "ill", "share": 0.5, "area": 0.1, "p": p, "cases": 9}

    rows = [row("rise", "corner", 0.01), row("occlusion", "corner", 0.02), row("rise", "border", 0.04)]
    rows += [
        row("occlusion", "border", 0.3),
        row("rise", "cluster of ill", 0.2),
        row("occlusion", "cluster of ill", 0.2),
    ]
    assert explanation_report.findings_sentence(rows) == (
        "Maps hold more evidence than chance would put there: corners in maps of ill (rise, occlusion). "
        "By one of 2 methods only, which may be how that method samples: borders in maps of ill (rise)."
    )
    third = [row("gradcam", "corner", 0.4), row("gradcam", "border", 0.6)]
    assert "corners in maps of ill (rise, occlusion). By one of 3 methods" in explanation_report.findings_sentence(
        [*rows, *third]
    )
    of_one = [one for one in rows if one["method"] == "rise"]
    assert explanation_report.findings_sentence(of_one).count("By one of") == 0
    assert explanation_report.findings_sentence(rows[-2:]) == ""


def test_tests_that_take_long_end_once_there_are_enough_cases_to_judge():
    of, tracked = corner_model(), []
    cases = [Case(str(n), str(n), {"image": textured(n)}) for n in range(8)]
    tested = kept_tests.assess_methods(
        of,
        explanation_methods.named_methods("smoothgrad"),
        cases,
        Differentiable.from_networks(of.networks),
        lambda *given: tracked.append(given),
        at_most=0.0,
    )
    # What is shown as ahead are no cases that the time does not reach.
    assert tracked == [(0, 8), (1, FEWEST), (2, FEWEST), (3, FEWEST), (4, FEWEST)]
    assert tested.records["smoothgrad"]["deletion"]["n"] == FEWEST


@pytest.mark.whole
def test_what_tests_find_of_a_zip_is_kept_in_the_cache_for_the_same_weights_alone(classified, tmp_path, caplog):
    with no_export():
        package = hilum.package(classified.out, out=tmp_path / "package", backends=()).out
    archive = Path(shutil.make_archive(str(tmp_path / "model"), "zip", package))
    few = sorted((classified.data / "dark").glob("*.png"))[:FEWEST]
    how = {"method": "gradcam", "tests": FEWEST, "device": "cpu"}
    with caplog.at_level(logging.INFO, logger="hilum"):
        first = hilum.explain(archive, [*few], **how)
        assert [one for one in caplog.messages if "once for this model" in one]
        caplog.clear()
        again = hilum.explain(archive, [*few], **how)
        assert not [one for one in caplog.messages if "this may take minutes" in one]
    assert first.methods["gradcam"]["passed"] is not None
    assert again.methods == first.methods
    other = replace(hilum.load(archive, "cpu"), record={"weights_sha256": "0" * 64})
    assert kept_tests.kept_records(archive, other) == ({}, {})


@pytest.mark.parametrize("weights", [None, "../../elsewhere", "f" * 64])
def test_verdicts_on_weights_without_a_hash_or_in_a_cache_that_cannot_be_written_are_not_kept(
    weights, tmp_path, monkeypatch, caplog
):
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("hilum/manifest.json", "{}")
    (tmp_path / "cache").write_text("a file in the place of the folder")
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    of = replace(corner_model(), record={"weights_sha256": weights})
    kept_tests.keep_records(archive, of, {"gradcam": {"passed": True}}, {})
    assert [one for one in caplog.messages if "is not kept" in one] == caplog.messages
    assert bool(caplog.messages) == (weights == "f" * 64)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "model.zip"]
