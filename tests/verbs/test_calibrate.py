"""`calibrate`: a model's probabilities and thresholds, found anew on cases that it has not seen."""

import json
import shutil

import pytest
from typer.testing import CliRunner

import hilum
import trained
from hilum.cli.terminal import app
from hilum.errors import DatasetError, UsageError
from hilum.runtime import record_files
from packages import no_export

SITE = {"backends": ()}


@pytest.fixture(scope="module", autouse=True)
def unexported():
    """No test here looks at ONNX."""
    with no_export():
        yield


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Forty pictures that the run has not seen, its classes interchanged in every fourth: it is too sure there."""
    folder = trained.pictures(tmp_path_factory.mktemp("site"), count=40, first=1000)
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        if number % 4 == 0:
            other = {"bright": "dark", "dark": "bright"}[path.parent.name]
            shutil.move(path, folder / other / f"moved_{path.name}")
    return folder


@pytest.fixture(scope="module")
def calibrated(classified, site, tmp_path_factory):
    return hilum.calibrate(classified.out, site, out=tmp_path_factory.mktemp("calibrated") / "model", **SITE)


def limits_of(package) -> list[str]:
    return record_files.read_json(package / "hilum" / "model.json", "hilum.model")["record"]["limits"]


def test_a_site_gets_a_package_with_its_own_calibration_and_says_by_how_many_cases(classified, site, calibrated):
    assert (calibrated.cases, calibrated.patients) == (40, None)  # nobody says whose the pictures are
    decided = calibrated.decisions["task.calibration"]
    assert decided.value["cases"] == 40
    stated = calibrated.decisions["task.conformal"]
    assert (sum(stated.value["n"].values()), stated.value["exact"]) == (40, False)
    assert "task.calibration: method: " in repr(calibrated) and "{" not in repr(calibrated)
    assert "trained it is not known" not in repr(calibrated)
    before, after = hilum.load(classified.out, "cpu"), hilum.load(calibrated.out, "cpu")
    assert after.task.certainty.calibrator.settings == decided.value
    limits = record_files.read_json(calibrated.out / "hilum" / "model.json", "hilum.model")["record"]["limits"]
    assert limits[-1] == "Calibrated on 40 cases after training; the figures are of the model before that."
    picture = next(site.rglob("*.png"))
    ours, theirs = before.predict(picture), after.predict(picture)
    assert ours.confidence.uncalibrated == pytest.approx(theirs.confidence.uncalibrated, abs=1e-5)


@pytest.mark.whole
def test_a_package_of_it_is_calibrated_again_with_what_it_knows_of_its_model(calibrated, site, tmp_path):
    more = trained.pictures(tmp_path / "more", count=12, first=5000)
    with pytest.raises(UsageError, match=r"40 cases with the same content trained or selected this model"):
        hilum.calibrate(calibrated.out, site, out=tmp_path / "twice", **SITE)
    again = hilum.calibrate(calibrated.out, more, out=tmp_path / "again.zip", **SITE)
    assert again.decisions["task.calibration"].value["cases"] == 12
    assert hilum.load(again.out, "cpu").task.certainty.calibrator.cases == 12


@pytest.fixture(scope="module")
def ruled(classified, tmp_path_factory):
    """A run whose validation cases are too few for the rule of its threshold."""
    rule = {**trained.TWO_STEPS, "task.operating_point": "sensitivity>=0.95"}
    return trained.classifying(classified.data, tmp_path_factory.mktemp("ruled") / "run", assignments=rule)


@pytest.mark.whole
def test_a_rule_that_validation_cases_cannot_keep_is_a_warning_before_any_figure(ruled, tmp_path):
    [warning] = [note for note in ruled.verdict.against if "could not be kept" in note]
    assert "The rule sensitivity>=0.95 could not be kept: 2 unseen cases of dark" in warning
    assert warning in ruled.report.read_text().replace("&gt;", ">")
    with no_export():
        package = hilum.package(ruled.out, out=tmp_path / "package", backends=()).out
    more = trained.pictures(tmp_path / "more", count=8, first=3000)
    for model in (ruled.out, package):  # who scores it on other cases reads the same before any figure
        assert warning in hilum.evaluate(model, more).verdict.against


@pytest.mark.whole
def test_a_rule_that_a_sites_cases_cannot_keep_is_said_and_one_that_they_keep_is_so_no_longer(ruled, site, tmp_path):
    few = trained.pictures(tmp_path / "few", count=12, first=5000)
    for cases, kept in ((few, False), (site, True)):
        result = hilum.calibrate(ruled.out, cases, out=tmp_path / f"with_{kept}", **SITE)
        limits = record_files.read_json(result.out / "hilum" / "model.json", "hilum.model")["record"]["limits"]
        said = [limit for limit in limits if "could not be kept" in limit]
        because = result.decisions["task.thresholds"].because
        assert said == ([] if kept else [f"The rule sensitivity>=0.95 could not be kept: {because}."])
        assert all(one in repr(result) for one in said)


def test_that_sets_exclude_nothing_is_stated_of_the_thresholds_that_the_package_has(classified, calibrated, tmp_path):
    before = record_files.read_json(classified.out / "run.json", "hilum.run")["verdict"]["against"]
    assert [one for one in before if "exclude nothing" in one]
    few = trained.pictures(tmp_path / "few", count=6, first=7000)
    result = hilum.calibrate(calibrated.out, few, out=tmp_path / "few_model", **SITE)
    stated = [
        [limit for limit in limits_of(made) if "exclude nothing" in limit] for made in (calibrated.out, result.out)
    ]
    assert stated == [[], ["Sets and intervals exclude nothing (6 patients): too few to find a threshold."]]


def test_cases_that_had_a_part_in_the_model_are_refused_and_nothing_is_written(classified, tmp_path):
    with pytest.raises(UsageError, match=r"with the same content trained or selected this model"):
        hilum.calibrate(classified.out, classified.data, out=tmp_path / "model", **SITE)
    assert not (tmp_path / "model").exists()


def test_cases_of_a_sets_own_test_part_decide_nothing_and_the_result_and_its_package_say_why(classified, tmp_path):
    data = trained.pictures(tmp_path / "site", count=16, first=3000)
    paths = sorted(data.rglob("*.png"))
    rows = [f"{path},{path.parent.name},{'test' if n < 4 else 'train'}" for n, path in enumerate(paths)]
    (tmp_path / "site.csv").write_text("\n".join(["image,label,split", *rows]))
    made = hilum.calibrate(classified.out, tmp_path / "site.csv", out=tmp_path / "model", **SITE)
    assert (made.cases, made.left_out) == (12, 4)
    sentence = "4 cases of the set's own test part left out: what calibrates a model cannot test it"
    assert f"warning: {sentence}" in repr(made)
    limits = record_files.read_json(made.out / "hilum" / "model.json", "hilum.model")["record"]["limits"]
    assert limits[-1].startswith("Calibrated on 12 cases after training") and sentence in limits[-1]
    (tmp_path / "tests.csv").write_text("\n".join(["image,label,split", *rows[:4]]))
    with pytest.raises(UsageError, match="only cases of the set's own test part"):
        hilum.calibrate(classified.out, tmp_path / "tests.csv", out=tmp_path / "none", **SITE)


def test_cases_that_tested_the_model_are_refused_also_for_its_package(classified, tmp_path):
    rows = [line.split(",") for line in (classified.out / "split.csv").read_text().splitlines()[1:]]
    tested = {row[0] for row in rows if row[2] == "test"}
    for path in sorted(classified.data.rglob("*.png")):
        if any(path.as_posix().endswith(f"{name}.png") or path.stem == name for name in tested):
            (tmp_path / "held" / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / "held" / path.parent.name / path.name)
    package = hilum.package(classified.out, out=tmp_path / "package", backends=()).out
    assert record_files.read_json(package / "hilum" / "model.json", "hilum.model")["record"]["tested"]
    for model in (classified.out, package):
        with pytest.raises(UsageError, match="tested this model"):
            hilum.calibrate(model, tmp_path / "held", out=tmp_path / "model", **SITE)


@pytest.mark.whole
def test_a_prediction_without_calibration_states_what_the_network_does_and_calls_the_same(calibrated, site, tmp_path):
    tables = {
        word: hilum.predict(calibrated.out, site, calibration=word, abstain="off").table for word in ("on", "off")
    }
    assert tables["on"]["predicted"].tolist() == tables["off"]["predicted"].tolist()
    first = hilum.load(calibrated.out, "cpu").predict(tables["off"]["image"][0])
    assert tables["off"]["probability_dark"][0] == pytest.approx(first.confidence.uncalibrated["dark"])
    assert tables["on"]["probability_dark"][0] == pytest.approx(first.probabilities["dark"])
    with pytest.raises(UsageError, match="--calibration"):
        hilum.predict(calibrated.out, site, calibration="perhaps")


def test_labels_of_another_kind_are_refused(classified, tmp_path):
    with pytest.raises(DatasetError):
        hilum.calibrate(classified.out, trained.blobs(tmp_path / "blobs"), out=tmp_path / "model", **SITE)


@pytest.mark.whole
def test_an_evaluation_leaves_a_run_as_it_was_and_so_what_it_is_packaged_with(classified, site):
    before = {path: path.read_bytes() for path in classified.out.rglob("*") if path.is_file()}
    hilum.evaluate(classified.out, site)
    assert {path: path.read_bytes() for path in classified.out.rglob("*") if path.is_file()} == before


@pytest.mark.whole
def test_the_command_prints_one_json_document(classified, site, tmp_path):
    words = [
        "calibrate",
        str(classified.out),
        str(site),
        "--out",
        str(tmp_path / "model"),
        "--backends",
        "none",
        "--json",
    ]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert (record["schema"], record["cases"]) == ("hilum.calibrate", 40)
    assert record["decisions"]["task.calibration"]["value"]["method"]


def test_labels_of_other_names_are_refused_and_nothing_is_written(classified, tmp_path):
    data = trained.pictures(tmp_path / "other", count=12, classes=("bright", "pale"), first=100)
    with pytest.raises(DatasetError, match="pale"):
        hilum.calibrate(classified.out, data, out=tmp_path / "model", **SITE)
    assert not (tmp_path / "model").exists()


def test_a_patient_with_cases_within_the_calibration_part_and_outside_is_refused(classified, tmp_path):
    """What is promised exactly would rest on people who decided the rest."""
    paths = sorted(trained.pictures(tmp_path / "site", count=12, first=3000).rglob("*.png"))
    parts = ("train", "calibration")
    rows = [f"{path},{path.parent.name},{parts[n % 2]},{n // 2}" for n, path in enumerate(paths)]
    (tmp_path / "site.csv").write_text("\n".join(["image,label,split,patient", *rows]))
    with pytest.raises(UsageError, match="6 patients have cases within the part calibration and outside"):
        hilum.calibrate(classified.out, tmp_path / "site.csv", out=tmp_path / "model", **SITE)
    assert not (tmp_path / "model").exists()
