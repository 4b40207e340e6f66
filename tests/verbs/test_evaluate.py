from __future__ import annotations

import json
import shutil
from dataclasses import replace
from html import escape

import numpy as np
import pandas as pd
import PIL.Image
import pytest

import hilum
import trained
from hilum.errors import DatasetError, UsageError
from hilum.reading import ReadingOptions, dataset_reading
from hilum.runtime import record_files
from hilum.scoring import case_scoring, case_selection, evaluation_notes
from hilum.tasks import task_catalogue
from hilum.values import Case, Geometry, Image, Problem
from hilum.values.covariate_values import Course
from hilum.verbs import evaluate
from packages import no_export


def evaluated(run, data, **flags):
    return hilum.evaluate(run.out, data, device="cpu", **{"labels": trained.LABELS, **flags})


def parts(run) -> dict[str, set[str]]:
    table = pd.read_csv(run.out / "split.csv", dtype=str)
    return {part: set(rows["case"]) for part, rows in table.groupby("split")}


def cases(result) -> set[str]:
    return set(result.scored.table["case"])


def strangers(root, count):
    """Cases of which the run has seen none, under names that it knows."""
    return trained.blobs(root, count, first=100)


def test_of_the_runs_own_data_the_test_cases_are_scored_wherever_they_lie(segmented, tmp_path):
    moved = shutil.copytree(segmented.data, tmp_path / "elsewhere")
    result = evaluated(segmented, moved)
    assert cases(result) == parts(segmented)["test"]
    assert result.which == "the test cases of the run's own data"


@pytest.mark.whole
def test_the_evaluation_repeats_what_the_run_measured(segmented):
    again = evaluated(segmented, segmented.data).scored.table
    kept = pd.read_csv(segmented.out / "evaluation" / "cases.csv")
    pd.testing.assert_frame_equal(again[kept.columns].reset_index(drop=True), kept, check_dtype=False)


@pytest.mark.whole
def test_the_evaluation_repeats_what_the_run_says_of_shortcuts(classified, tmp_path):
    """In its pictures a square at one place gives the class away."""
    notes = json.loads((classified.out / "run.json").read_text())["notes"]
    [known] = [note for note in notes if note.startswith("Shortcut: ") and "small mark (bright" in note]
    with no_export():
        model = hilum.package(classified.out, out=tmp_path / "package", backends=()).out
    for place in (classified.out, model):
        result = hilum.evaluate(place, classified.data, split="all", device="cpu")
        assert known in result.notes
        assert known in str(result)


@pytest.mark.whole
def test_references_that_the_model_wrote_itself_are_no_evidence_and_that_is_said(segmented, data, tmp_path):
    series = data / "dicom" / "series" / "mr_hippocampus_001"
    shutil.copytree(series, tmp_path / "study" / "series")
    hilum.predict(segmented.out, series, out=tmp_path / "study" / "seg", format="dcm", device="cpu", abstain="off")
    result = evaluated(segmented, tmp_path / "study")
    [note] = [note for note in result.notes if "written by this model" in note]
    assert note.startswith("The references of 1 case")
    assert note in str(result)


@pytest.mark.whole
def test_of_other_data_all_cases_are_scored(segmented, tmp_path):
    other = strangers(tmp_path / "other", 3)
    (other / "images" / "case00.nii.gz").write_bytes((other / "images" / "case01.nii.gz").read_bytes())
    assert cases(evaluated(segmented, other)) == {"case00", "case01", "case02"}


def test_of_other_data_the_models_own_figure_stands_beside_the_new_one(segmented, tmp_path):
    own = hilum.evaluate(segmented.out, segmented.data)
    assert own.own_figure == ""
    other = hilum.evaluate(segmented.out, trained.blobs(tmp_path / "other", count=3, first=50), out=tmp_path / "out")
    there, here = own.rows[0].estimate, other.rows[0].estimate
    assert f"on the model's own test cases: Dice {there.value:.3f}" in other.own_figure
    apart = f"{here.value - there.value:+.3f}".replace("-", "\N{MINUS SIGN}")
    assert f"on these cases it is {apart} from that" in other.own_figure and other.own_figure in repr(other)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "own test cases: Dice" in page
    model = hilum.load(segmented.out)
    stated = record_files.read_json(tmp_path / "out" / "summary.json", "hilum.summary")["model"]
    assert (stated["sha256"], stated["weights_sha256"]) == (model.sha256, model.record["weights_sha256"])
    assert stated == other.as_record()["model"] and model.sha256 in page
    assert escape(case_selection.BY_CONTENT) in page


def test_one_changed_file_makes_them_other_data_and_cases_that_trained_are_left_out(segmented, tmp_path):
    changed = shutil.copytree(segmented.data, tmp_path / "changed")
    known = parts(segmented)
    [first, second, *_] = sorted(known["test"])
    shutil.copy(changed / "images" / f"{first}.nii.gz", changed / "images" / f"{second}.nii.gz")
    result = evaluated(segmented, changed)
    assert cases(result) == known["test"]
    assert "other data" in result.which
    [note] = result.notes
    assert note.startswith(f"{len(known['train'] | known['val'])} cases that trained this model (by content")
    assert note in str(result)


def frame_of(root, patients: int = 2) -> pd.DataFrame:
    """The table of a folder of pictures in class folders, so many of a patient."""
    files = sorted(root.rglob("*.png"))
    rows = [(str(file), file.parent.name, f"P{n // patients}") for n, file in enumerate(files)]
    return pd.DataFrame(rows, columns=["image_path", "label", "patient_id"])


def test_a_data_frame_is_scored_as_the_folder_of_its_files_and_by_its_patients(classified, tmp_path):
    root = trained.pictures(tmp_path / "other", 12, first=100)
    frame = frame_of(root)
    of_frame = hilum.evaluate(classified.out, frame, device="cpu").scored.table.sort_values("case")
    of_folder = hilum.evaluate(classified.out, root, device="cpu").scored.table.sort_values("case")
    measured = ["reference", "predicted", "probability_bright", "brier"]
    pd.testing.assert_frame_equal(
        of_frame[measured].reset_index(drop=True), of_folder[measured].reset_index(drop=True), check_exact=False
    )
    assert of_frame["reference"].value_counts().to_dict() == frame["label"].value_counts().to_dict()
    assert of_frame["patient"].nunique() == 6


def test_of_a_data_frame_the_cases_that_trained_are_left_out(classified):
    frame = frame_of(classified.data, patients=1)
    scored = hilum.evaluate(classified.out, frame, device="cpu").scored.table
    assert set(scored["case"]) == parts(classified)["test"]


def test_cases_that_trained_are_known_by_content_whatever_they_are_called(segmented, tmp_path):
    known = parts(segmented)
    seen, unseen = sorted(known["train"])[0], sorted(known["test"])[0]
    other = tmp_path / "other"
    for folder in ("images", "labels"):
        (other / folder).mkdir(parents=True)
        shutil.copy(segmented.data / folder / f"{seen}.nii.gz", other / folder / "stranger.nii.gz")
        shutil.copy(segmented.data / folder / f"{unseen}.nii.gz", other / folder / f"{seen}.nii.gz")
    result = evaluated(segmented, other)
    assert cases(result) == {seen}
    assert "1 case that trained this model (by content, whatever their names) left out." in result.notes
    with_it = evaluated(segmented, other, split="all")
    assert cases(with_it) == {seen, "stranger"}
    assert "the figures say nothing about new patients" in " ".join(with_it.notes)


def test_an_image_that_was_labelled_anew_is_still_the_image_that_trained(segmented, tmp_path):
    seen = sorted(parts(segmented)["train"])[0]
    other = strangers(tmp_path / "other", 2)
    shutil.copy(segmented.data / "images" / f"{seen}.nii.gz", other / "images" / "case00.nii.gz")
    shutil.copy(segmented.data / "images" / f"{seen}.nii.gz", other / "images" / "case01.nii.gz")
    with pytest.raises(UsageError, match="holds only 2 cases that trained this model"):
        evaluated(segmented, other)


@pytest.mark.whole
def test_each_opening_of_a_test_is_counted_wherever_it_lies_and_training_cases_are_no_test(
    segmented, tmp_path, monkeypatch
):
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    moved = shutil.copytree(segmented.data, tmp_path / "elsewhere")
    assert evaluated(segmented, segmented.data).scored.openings == 1
    assert evaluated(segmented, segmented.data, split="train").scored.openings == 0
    second = evaluated(segmented, moved, out=tmp_path / "out")
    assert second.scored.openings == second.as_record()["openings"] == 2
    assert "opened 2 times" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    # Other cases have a count of their own.
    assert evaluated(segmented, strangers(tmp_path / "new", 3), split="all").scored.openings == 1


def test_a_case_that_cannot_be_scored_is_an_exit_of_1_and_the_rest_is_written(cli, segmented, tmp_path):
    data = shutil.copytree(segmented.data, tmp_path / "data")
    bad = sorted(parts(segmented)["test"])[0]
    (data / "images" / f"{bad}.nii.gz").write_bytes(b"no image")
    done = cli(
        "evaluate", segmented.out, data, "--out", tmp_path / "out", "--labels", trained.LABELS, "--device", "cpu"
    )
    assert done.code == 1
    assert bad in done.last
    assert bad not in set(pd.read_csv(tmp_path / "out" / "cases.csv")["case"])
    assert (tmp_path / "out" / "report.html").is_file()


def test_ctrl_c_keeps_the_figures_of_the_cases_that_were_scored_by_then(segmented, tmp_path, monkeypatch, caplog):
    measured, begun = case_scoring.measure_case, []

    def pressed(model, fold, case):
        begun.append(case.id)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return measured(model, fold, case)

    monkeypatch.setattr(case_scoring, "measure_case", pressed)
    with pytest.raises(KeyboardInterrupt):
        hilum.evaluate(segmented.out, segmented.data, split="all", out=tmp_path / "out")
    assert list(pd.read_csv(tmp_path / "out" / "cases.csv")["case"].unique()) == begun[:2]
    against = json.loads((tmp_path / "out" / "summary.json").read_text())["verdict"]["against"]
    left = len(pd.read_csv(segmented.out / "split.csv")) - 2
    assert any(f"stopped before its end: {left} cases are not scored" in one for one in against)
    assert "as far as they were scored" in (tmp_path / "out" / "report.html").read_text()
    assert f"2 cases scored before the stop: {tmp_path / 'out'}" in caplog.text


@pytest.mark.whole
def test_ctrl_c_in_an_audit_keeps_the_figures_of_all_cases(segmented, tmp_path, monkeypatch):
    def pressed(audit, explained):
        raise KeyboardInterrupt

    monkeypatch.setattr("hilum.scoring.auditing.all_audits.run_audits", pressed)
    with pytest.raises(KeyboardInterrupt):
        hilum.evaluate(segmented.out, segmented.data, out=tmp_path / "out")
    against = json.loads((tmp_path / "out" / "summary.json").read_text())["verdict"]["against"]
    assert any("no audit was made" in one for one in against)


@pytest.mark.whole
def test_training_cases_are_scored_only_when_asked_for_and_the_report_says_so(segmented, tmp_path):
    result = evaluated(segmented, segmented.data, split="train", out=tmp_path / "out")
    assert cases(result) == parts(segmented)["train"]
    assert "used in training" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    evaluated(segmented, segmented.data, out=tmp_path / "test")
    assert "used in training" not in (tmp_path / "test" / "report.html").read_text(encoding="utf-8")


@pytest.mark.whole
def test_an_evaluation_leaves_its_records(segmented, tmp_path):
    evaluated(segmented, segmented.data, out=tmp_path / "out")
    written = {path.name for path in (tmp_path / "out").iterdir()}
    audits = {"relabel.csv", "weak_groups.csv"}
    assert written == {"cases.csv", "report.html", "summary.json", "task.json", "views"} | audits
    rows = json.loads((tmp_path / "out" / "summary.json").read_text())["rows"]
    assert rows == json.loads((segmented.out / "evaluation" / "summary.json").read_text())["rows"]


@pytest.mark.whole
def test_nothing_is_written_without_out(segmented, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evaluated(segmented, segmented.data)
    assert not list(tmp_path.iterdir())


@pytest.mark.whole
def test_data_without_the_models_references_are_refused(segmented, classified):
    with pytest.raises(DatasetError, match="mask"):
        hilum.evaluate(segmented.out, classified.data, device="cpu")


def test_where_no_images_are_known_that_trained_a_model_none_is_looked_for(classified):
    model = replace(hilum.load(classified.out), record={})
    dataset = dataset_reading.open_dataset(classified.data, ReadingOptions())
    chosen = case_selection.choose_cases(model, dataset, None, None)
    assert chosen.search == case_selection.NOT_LOOKED_FOR


def test_an_unknown_split_is_wrong_use(segmented):
    with pytest.raises(UsageError, match="practice"):
        evaluated(segmented, segmented.data, split="practice")


def test_masks_whose_numbers_mean_something_else_are_refused(segmented):
    with pytest.raises(DatasetError, match="the value 2 is 'rind' in the reference and 'core' in the model"):
        evaluated(segmented, segmented.data, labels="1=shell,2=rind")


@pytest.mark.whole
def test_numbers_are_no_names_that_could_differ(segmented, tmp_path):
    other = strangers(tmp_path / "other", 2)
    assert cases(hilum.evaluate(segmented.out, other, device="cpu")) == {"case00", "case01"}


def test_a_class_that_was_not_trained_is_named_and_the_others_are_scored(classified, tmp_path):
    other = trained.pictures(tmp_path / "other", 6)
    for path in other.rglob("*.png"):  # else they would be those that trained
        PIL.Image.fromarray(np.asarray(PIL.Image.open(path)) // 2 * 2).save(path)
    (other / "grey").mkdir()
    for name in ("00.png", "02.png"):
        (other / "bright" / name).rename(other / "grey" / name)
    result = hilum.evaluate(classified.out, other, device="cpu")
    assert len(cases(result)) == 4
    assert all("class 'grey' is none of bright, dark" in problem.what for problem in result.scored.problems)


@pytest.fixture(scope="module")
def tabled(tmp_path_factory):
    """A run on a table with columns of other names, in which two of 24 cases have a mask in place of a class."""
    root = tmp_path_factory.mktemp("tabled")
    data = trained.pictures(root / "data", 24)
    masked = (data / "bright" / "00.png", data / "dark" / "01.png")
    rows = []
    for path in sorted(data.glob("*/*.png")):
        mask = path.with_name(f"{path.stem}_mask.png") if path in masked else None
        if mask is not None:
            PIL.Image.fromarray(np.asarray(PIL.Image.open(path)) // 255).save(mask)
        truth = f",{mask.relative_to(data).as_posix()}" if mask is not None else f"{path.parent.name},"
        rows.append(f"{path.relative_to(data).as_posix()},{truth}")
    (data / "table.csv").write_text("\n".join(["scan,finding,contoured", *rows]))
    column = {"image": "scan", "label": "finding", "mask": "contoured"}
    return data, trained.classifying(data / "table.csv", root / "run", task="classification", column=column)


@pytest.mark.whole
def test_of_cases_with_different_references_those_that_fit_are_used(tabled):
    data, run = tabled
    assert len(parts(run)["train"] | parts(run)["val"] | parts(run)["test"]) == 22
    assert "2 cases have no reference of the kind class" in run.report.read_text(encoding="utf-8")
    result = hilum.evaluate(run.out, data / "table.csv", split="all", device="cpu")
    assert len(cases(result)) == 22


@pytest.mark.whole
def test_a_runs_own_data_are_read_as_it_read_them(tabled, tmp_path):
    data, run = tabled
    again = hilum.evaluate(run.out, data / "table.csv", device="cpu")
    assert again.which == "the test cases of the run's own data"
    moved = shutil.copytree(data, tmp_path / "moved")
    with pytest.raises(DatasetError, match="the columns scan, contoured name files, and none is called image"):
        hilum.evaluate(run.out, moved / "table.csv", device="cpu")


def test_of_two_folds_on_pictures_each_case_is_scored_by_the_fold_that_had_not_seen_it(tmp_path):
    data = trained.pictures(tmp_path / "data", 12)
    run = trained.classifying(data, tmp_path / "run", folds=2, assignments=trained.TWO_STEPS).out
    again = hilum.evaluate(run, data, device="cpu")
    assert any("by the fold that had not seen it" in note for note in again.notes)
    kept = pd.read_csv(run / "evaluation" / "cases.csv", dtype={"case": str}).sort_values("case")
    found = again.scored.table.sort_values("case")
    assert found["case"].tolist() == kept["case"].tolist() == [f"{n:02}" for n in range(12)]
    np.testing.assert_allclose(found["probability_dark"], kept["probability_dark"], atol=1e-6)


@pytest.mark.whole
def test_of_a_run_of_folds_each_case_is_scored_by_the_fold_that_had_not_seen_it(cross_validated):
    again = evaluated(cross_validated, cross_validated.data)
    assert cases(again) == {f"case{n:02}" for n in range(12)}
    assert any("by the fold that had not seen it" in note for note in again.notes)
    kept = pd.read_csv(cross_validated.out / "evaluation" / "cases.csv").sort_values(["case", "label"])
    found = again.scored.table.sort_values(["case", "label"])
    np.testing.assert_allclose(found["dice"], kept["dice"], atol=1e-6)
    seen = evaluated(cross_validated, cross_validated.data, split="train")
    assert "used in training" in " ".join(seen.notes)


def test_findings_that_only_the_model_or_only_the_data_know_are_said_to_be_not_scored():
    model = task_catalogue.build_task({"name": "findings", "findings": ["effusion", "nodule"]})
    image = Image(np.zeros((1, 4, 4)), Geometry.of_pixels((4, 4)))
    stated = [{"effusion": True, "fracture": False}, {"effusion": False}]
    cases = [Case(f"c{n}", f"p{n}", {"image": image}, {"findings": one}) for n, one in enumerate(stated)]
    assert list(evaluation_notes.unshared_labels(model, cases)) == [
        "Not scored, because the model was not taught them: fracture.",
        "Not scored, because no case here says anything of them: nodule.",
    ]
    both = [replace(case, references={"findings": {"effusion": True, "nodule": True}}) for case in cases]
    assert not list(evaluation_notes.unshared_labels(model, both))


def test_of_several_tasks_each_is_compared_with_the_cases_that_have_its_references():
    image = Image(np.zeros((1, 4, 4)), Geometry.of_pixels((4, 4)))
    parts = {"classification.classes": ["benign", "malignant"], "classification.smoothing": 0.0}
    spread = {"regression.mean": {"diameter": 5, "depth": 2}, "regression.deviation": {"diameter": 1, "depth": 1}}
    measured = {"regression.targets": ["diameter", "depth"], "regression.units": {}, **spread}
    both = task_catalogue.build_task({"name": "classification+regression", **parts, **measured})
    stated = [{"value": {"diameter": 3.0}, "class": "benign"}, {"class": "malignant"}, {"value": {"diameter": 4.0}}]
    cases = [Case(f"c{n}", f"p{n}", {"image": image}, references) for n, references in enumerate(stated)]
    assert list(evaluation_notes.unshared_labels(both, cases)) == [
        "Not scored, because no case here says anything of them: depth."
    ]


def test_what_is_not_scored_of_several_tasks_is_said_by_the_names_of_each_and_cases_may_lack_some():
    settings = {
        "classification.classes": ["ill", "well"],
        "classification.smoothing": 0.0,
        "regression.targets": ["size"],
        "regression.units": {},
    }
    settings |= {
        f"regression.{name}": {"size": one} for name, one in (("mean", 1.0), ("deviation", 2.0), ("units", "mm"))
    }
    model = task_catalogue.build_task({"name": "classification+regression", **settings})
    both, one = ({"class": "ill", "value": {"size": 2.0}}, {"class": "well"})
    cases = [Case(f"c{n}", f"p{n}", {}, known) for n, known in enumerate((both, one, one))]
    assert not list(evaluation_notes.unshared_labels(model, cases))
    assert list(evaluation_notes.unshared_labels(model, [*cases, Case("d", "d", {}, {"value": {"weight": 3.0}})])) == [
        "Not scored, because the model was not taught them: weight."
    ]
    assert not list(evaluation_notes.unshared_labels(model, cases[::-1]))


def test_every_covariate_stands_beside_its_case_but_what_names_a_person():
    course = Course((0.0, 1.0), (5.0, 6.0), "s")
    stated = {"sex": "F", "age": "045Y", "pulse": course, "patient_name": "Jane", "birth_date": "1980", "site": None}
    case = Case("a", "p", {}, covariates=stated)
    assert case_scoring.covariate_cells(case) == {
        "covariate_sex": "F",
        "covariate_age": "045Y",
        "covariate_pulse": "2 readings from 0 to 1 s",
        "covariate_site": None,
    }


def test_of_many_warnings_the_terminal_shows_a_few_and_every_error():
    warnings = [Problem("warning", f"warning {number}") for number in range(9)]
    lines = evaluate._few([*warnings, Problem("error", "lost")])
    assert lines == [
        "error: lost",
        *(f"warning: warning {number}" for number in range(5)),
        "and 4 warnings more, in the report",
    ]
