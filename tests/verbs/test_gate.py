"""A model refuses images that are unlike those that trained it, wherever it goes."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

import hilum
import small_onnx
from hilum.cli.terminal import app
from hilum.errors import DatasetError, IntegrityError, PlanError, UsageError
from hilum.files.storage import csv_text
from hilum.planning import plan_file
from hilum.reading import ReadingOptions, dataset_reading
from hilum.runs import gate
from hilum.runs.tuning import UnseenPredictions
from hilum.runtime import Model, Preprocessing, model_record, record_files
from hilum.runtime.guard.image_gate import Answering
from hilum.runtime.inference import Inference
from hilum.runtime.model_parts import ModelParts
from hilum.runtime.package import readme
from hilum.runtime.preprocessing import preprocessing
from hilum.runtime.torch_networks import Networks
from hilum.tasks import task_catalogue
from hilum.transforms.intensity import Normalisation
from hilum.values import Case, Geometry, Image
from packages import no_export
from trained import TWO_STEPS, blobs, classifying, lesions, pictures, segmenting

# Of cases without a result.
RECORDS = ["findings.json", "predictions.csv", "summary.json"]


@pytest.fixture
def odd(tmp_path) -> Path:
    """A picture of stripes, which no training case resembles."""
    pixels = np.zeros((24, 24), np.uint8)
    pixels[::2] = 255
    PIL.Image.fromarray(pixels).save(tmp_path / "odd.png")
    return tmp_path / "odd.png"


@pytest.fixture(scope="module")
def packaged(gated, tmp_path_factory) -> Path:
    """The package of that run, with its graph in ONNX; tests read it, or damage a copy."""
    return hilum.package(gated.out, out=tmp_path_factory.mktemp("packaged") / "package", backends=()).out


@pytest.fixture
def package(packaged, tmp_path) -> Path:
    return Path(shutil.copytree(packaged, tmp_path / "package"))


def test_an_odd_image_gets_no_answer_and_a_good_one_does(gated, odd, tmp_path):
    result = hilum.predict(gated.out, [odd, *(gated.data / "bright").glob("0*.png")], out=tmp_path / "out")
    table = result.table.set_index("case")
    assert "the training cases (distance" in table.loc["odd", "abstained"]
    assert table.loc["odd", "gate_p"] < 0.01
    assert table.loc[["odd"], ["predicted", "probability_bright"]].isna().all(axis=None)
    others = table.drop("odd")
    answered = others[others["abstained"] == ""]
    assert len(answered) >= len(others) - 1  # one of these pictures is unlike all others
    assert answered["predicted"].notna().all()
    assert any("odd: refused: " in problem.what for problem in result.problems)
    assert not result.failures
    written = csv_text.read_text_table(tmp_path / "out" / "predictions.csv").set_index("case")
    assert written.loc["odd", "predicted"] == "" and "differs from" in written.loc["odd", "abstained"]


def test_a_refused_image_has_results_too_where_somebody_asks_for_them(gated, odd):
    withheld = hilum.predict(gated.out, odd).predictions["odd"]
    assert withheld.probabilities is None and withheld.abstained
    marked = hilum.predict(gated.out, odd, abstain="mark").predictions["odd"]
    assert marked.probabilities and marked.abstained == withheld.abstained
    without = hilum.predict(gated.out, odd, abstain="off")
    assert without.predictions["odd"].probabilities == marked.probabilities
    assert without.predictions["odd"].abstained is None
    assert "gate_p" not in without.table
    with pytest.raises(UsageError, match="no 'perhaps'"):
        hilum.predict(gated.out, odd, abstain="perhaps")


def test_an_image_that_its_header_is_enough_to_refuse_is_never_computed(gated, tmp_path):
    """A long strip is no chest: of a large series of another kind the windows would take minutes."""
    strip, good = tmp_path / "strip.png", next((gated.data / "bright").glob("0*.png"))
    PIL.Image.new("L", (960, 24), 100).save(strip)

    def network(batch, *context):
        raise DatasetError("the network was asked", "network", "Do not ask it")

    model = hilum.load(gated.out, "cpu").with_run(network)
    result = hilum.predict(model, [strip, good], out=tmp_path / "out")
    assert [problem.cases for problem in result.failures] == [(good.stem,)]  # the network sees an image that fits
    [row] = result.table.to_dict("records")
    assert row["case"] == "strip" and row["gate_p"] < 0.01
    assert row["abstained"].startswith("its ratio of sides (height : width) is ")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == RECORDS
    with pytest.raises(DatasetError, match="was asked"):
        hilum.predict(model, strip, abstain="mark")


def test_the_command_line_takes_what_becomes_of_refused_images(gated, odd, tmp_path):
    made = CliRunner().invoke(
        app, ["predict", str(gated.out), str(odd), "--out", str(tmp_path / "out"), "--abstain", "mark"]
    )
    assert made.exit_code == 0, made.output
    assert "refused" in made.output


def test_an_image_without_an_answer_has_nulls_beside_those_that_have_one(gated, odd, tmp_path, cli):
    good = sorted((gated.data / "bright").glob("*.png"))[:2]
    done = cli("predict", gated.out, odd, *good, "--out", tmp_path / "out", "--device", "cpu", "--json")
    assert done.code == 0, done.err
    rows = {row["case"]: row for row in json.loads(done.out, parse_constant=pytest.fail)["rows"]}
    assert rows["odd"]["probability_bright"] is None and rows["odd"]["abstained"]
    assert any(rows[path.stem]["probability_bright"] is not None for path in good)


def test_the_plan_says_on_what_the_gate_rests(gated):
    assert "validation cases" in plan_file.read_plan(gated.out / "plan.yaml").decision("guard.gate").because


@pytest.mark.whole
def test_every_case_is_scored_with_what_the_gate_says_of_it(gated):
    table = hilum.evaluate(gated.out, gated.data).scored.table
    assert table["gate_p"].between(0, 1).all() and table["predicted"].notna().all()
    cases = csv_text.read_text_table(gated.out / "evaluation" / "cases.csv")
    assert {"gate_p", "abstained"} <= set(cases)


@pytest.mark.whole
def test_a_volume_that_is_never_held_is_judged_when_its_result_was_written(tmp_path, monkeypatch):
    data = blobs(tmp_path / "data", count=72)
    run = segmenting(data, tmp_path / "run", assignments=TWO_STEPS).out
    image = hilum.read(data / "images" / "case00.nii.gz")
    hilum.write(image.with_pixels(image.data.max() - image.data), tmp_path / "odd.nii.gz")
    held = hilum.predict(run, tmp_path / "odd.nii.gz", out=tmp_path / "held").table
    monkeypatch.setattr(preprocessing, "STREAMED_BYTES", 0)
    streamed = hilum.predict(run, tmp_path / "odd.nii.gz", out=tmp_path / "streamed", save_probabilities=True)
    assert streamed.table["gate_p"].item() == pytest.approx(held["gate_p"].item(), rel=0.2)
    assert "differs from" in streamed.table["abstained"].item()
    assert sorted(path.name for path in (tmp_path / "streamed").iterdir()) == RECORDS
    assert not any("could not look" in problem.what for problem in streamed.problems)


@pytest.mark.whole
def test_a_package_keeps_the_gate_and_refuses_one_that_is_not_its_own(gated, odd, package):
    own = hilum.load(gated.out).predict(odd)
    again = hilum.load(package).predict(odd)
    assert again.abstained == own.abstained
    assert again.confidence.gate_p == pytest.approx(own.confidence.gate_p)
    without_torch = hilum.load(package, backend="onnx").predict(odd)  # its graph gives the features too
    assert without_torch.confidence.gate_p == pytest.approx(own.confidence.gate_p, rel=0.05)
    assert not without_torch.notes
    file = package / "hilum" / "guard.safetensors"
    file.write_bytes(file.read_bytes()[:-8] + bytes(8))
    with pytest.raises(IntegrityError, match="SHA-256"):
        hilum.load(package)
    record_files.seal_folder(package)  # by somebody who knows how
    with pytest.raises(IntegrityError, match="not the gate of this model"):
        hilum.load(package)
    file.unlink()
    record_files.seal_folder(package)
    with pytest.raises(IntegrityError, match=r"guard\.safetensors"):
        hilum.load(package)


@pytest.mark.whole
def test_the_page_of_a_package_names_what_needs_hilum(gated, packaged):
    page = (packaged / "docs" / "README.md").read_text()
    only = page.partition("## What needs Hilum")[2].partition("\n## ")[0]
    assert "the gate: an image unlike those that trained the model is refused (`gate_p` below 0.01" in only
    assert "`total`, `aleatoric` and `epistemic`" in only
    assert "`calibrate`" in only
    assert "abstention" not in only and "--covering" not in only  # this model has neither
    assert "Without Hilum it answers for every image" in page and "With Hilum: gate fitted" in page
    assert "| channels | one, without a name |" in page
    assert re.search(r"\| grid that the network sees \| \d+ x \d+ pixels \|", page) and "voxels, overlap" not in page
    bare = replace(hilum.load(gated.out, "cpu"), parts=ModelParts())
    without = readme.readme_text(bare, "a model", [], [], {}, "It is one.")
    assert "the gate:" not in without
    assert "- It answers for every image of the right size" in without


@pytest.mark.whole
def test_an_ensembles_gate_is_fitted_to_cases_that_trained_no_member_and_it_keeps_it(gated, odd, tmp_path):
    settings = {**TWO_STEPS, "split.seed": 0, "guard.error": 0.3}
    both = [gated.out, classifying(gated.data, tmp_path / "other", seed=1, assignments=settings).out]
    made = hilum.ensemble(both, out=tmp_path / "both", device="cpu")
    parts = csv_text.read_text_table(made.out / "split.csv")["split"].tolist()
    guard, first = (hilum.load(place, "cpu").guard for place in (made.out, gated.out))
    assert len(guard.held_out["features"]) == (parts.count("calibration") or parts.count("val"))
    assert guard.exact == ("calibration" in parts)
    assert (
        "the gate refuses an image with a p-value below"
        in plan_file.read_plan(made.out / "plan.yaml").decision("guard.gate").because.lower()
    )
    assert np.array_equal(guard.look.edges, first.look.edges)
    assert hilum.load(made.out, "cpu").predict(odd).abstained
    file = made.out / "members" / "guard.safetensors"
    file.write_bytes(file.read_bytes()[:-8] + bytes(8))
    with pytest.raises(IntegrityError):
        hilum.load(made.out, "cpu")


@pytest.mark.whole
def test_a_package_without_a_gate_predicts_any_image(odd, package):
    expected = hilum.load(package).predict(odd).probabilities
    record = json.loads((package / "hilum" / "model.json").read_text())
    del record["guard"]
    (package / "hilum" / "model.json").write_text(json.dumps(record))
    (package / "hilum" / "guard.safetensors").unlink()
    record_files.seal_folder(package)
    result = hilum.predict(package, odd)
    assert result.predictions["odd"].probabilities == expected
    assert result.predictions["odd"].abstained is None


def test_a_gate_of_another_run_beside_a_checkpoint_is_refused(gated, tmp_path):
    shutil.copytree(gated.out, tmp_path / "run")
    for file in (tmp_path / "run").rglob("guard.safetensors"):
        file.write_bytes(file.read_bytes()[::-1])
        record_files.seal_folder(file.parent)
    with pytest.raises(IntegrityError, match="not the gate of this model"):
        hilum.load(tmp_path / "run")


@pytest.mark.whole
def test_cases_of_another_source_void_all_guarantees_and_the_report_and_the_summary_say_so(gated, tmp_path):
    own = hilum.evaluate(gated.out, gated.data)
    assert own.scored.shift is not None and not own.scored.shift.is_found
    assert not json.loads((gated.out / "evaluation" / "summary.json").read_text())["shift"]["found"]
    for path in sorted(pictures(tmp_path / "data", count=30, first=100).rglob("*.png")):
        pixels = np.array(PIL.Image.open(path))
        pixels[::2] //= 4  # stripes
        PIL.Image.fromarray(pixels).save(path)
    result = hilum.evaluate(gated.out, tmp_path / "data", out=tmp_path / "out")
    [note] = [note for note in result.notes if "no guarantee holds" in note]
    assert "level 0.01" in note
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["shift"]["found"] and summary["shift"]["p"] < 0.01 and summary["shift"]["note"] == note
    assert note in (tmp_path / "out" / "report.html").read_text()


@pytest.fixture(scope="module")
def careful(gated, tmp_path_factory) -> Path:
    """A run whose answers may be wrong in 95 %: all that eight validation cases of a network of two steps can show."""
    wishes = {"guard.error": 0.95, "guard.delta": 0.5, "guard.gate": False}
    return classifying(gated.data, tmp_path_factory.mktemp("careful") / "run", assignments={**TWO_STEPS, **wishes}).out


def with_answers(run: Path, least: float) -> Model:
    model = hilum.load(run, "cpu")
    return model.with_guard(replace(model.guard, answers=replace(model.guard.answers, least=least)))


@pytest.mark.whole
def test_a_model_gives_only_answers_that_are_sure_enough_and_says_on_what_that_rests(careful, gated, odd):
    decision = plan_file.read_plan(careful / "plan.yaml").decision("guard.error")
    assert decision.value == 0.95 and "decided other things" in decision.because and "approximate" in decision.because
    model = hilum.load(careful, "cpu")
    assert model.guard.level == 0.0 and model.guard.answers.error == 0.95
    stated = hilum.predict(with_answers(careful, 0.0), odd).predictions["odd"]
    assert stated.abstained is None  # without a gate any image is looked at
    refused = hilum.predict(with_answers(careful, 0.99999), odd, abstain="mark").predictions["odd"]
    assert "not sure enough" in refused.abstained and refused.probabilities == stated.probabilities
    assert hilum.predict(with_answers(careful, np.inf), odd).predictions["odd"].probabilities is None


def test_a_case_that_is_known_only_for_a_finding_that_the_model_lacks_says_nothing_about_its_errors(gated):
    """Such a finding was left out of the model, because all its training cases had it, or none."""
    task = task_catalogue.build_task({"name": "findings", "findings": ["lump"]})
    prepared = Preprocessing(2, ("0",), (Normalisation("zscore"),), shape=(12, 12))
    model = Model(
        task, prepared, Inference((12, 12)), Networks(lambda batch: {"findings": np.zeros((len(batch), 1))}, {})
    )
    guard = replace(hilum.load(gated.out, "cpu").guard, answers=Answering(0.5, 0.5, 0.0, 8))

    def case(number: int, finding: str) -> Case:
        pixels = np.random.default_rng(number).normal(size=(1, 24, 24)).astype(np.float32)
        images = {"0": Image(pixels, Geometry.of_pixels((24, 24)))}
        return Case(f"{number}", f"{number}", images, {"findings": {finding: 1.0}})

    cases = [case(number, "lump" if number < 6 else "rare") for number in range(10)]
    settled, decisions = gate.refit_gate(
        UnseenPredictions(), replace(model, parts=ModelParts(guard=guard)), cases, exact=True
    )
    assert settled.guard.answers.cases == 6
    assert "6 cases" in decisions["guard.error"].because
    nobody, _ = gate.refit_gate(
        UnseenPredictions(), replace(model, parts=ModelParts(guard=guard)), cases[6:], exact=True
    )
    assert nobody.guard.answers.cases == 0 and nobody.guard.answers.refusal(1.0) is not None


@pytest.mark.whole
def test_what_is_answered_is_kept_with_a_model_and_a_gate_without_it_answers_all(careful):
    guard = hilum.load(careful, "cpu").guard
    record = json.loads(json.dumps({"guard": replace(guard, answers=replace(guard.answers, least=np.inf)).settings}))
    assert record["guard"]["answers"]["least"] is None
    assert Answering.from_settings(record["guard"]["answers"]).least == np.inf
    [folder] = [path.parent for path in careful.rglob("best/guard.safetensors")]
    record["guard"]["answers"] = None
    assert model_record.read_parts(record, folder).guard.answers is None


@pytest.mark.whole
def test_an_evaluation_scores_all_cases_and_those_with_an_answer(careful, gated):
    sure = hilum.evaluate(with_answers(careful, 0.0), gated.data).scored
    assert not [row for row in sure.rows if "answered" in row.metric]
    chances = sure.table[["probability_bright", "probability_dark"]].max(axis=1)
    middle = float(np.median(chances))
    scored = hilum.evaluate(with_answers(careful, middle), gated.data).scored
    rows = {(row.metric, row.label): row.estimate for row in scored.rows}
    own = scored.table[chances.to_numpy() >= middle]
    assert (own["abstained"] == "").all() and len(scored.table) == len(sure.table)
    assert rows["answered", "all"].value == pytest.approx(len(own) / len(scored.table))
    assert rows["error_answered", "all"].value == pytest.approx((own["predicted"] != own["reference"]).mean())
    assert rows["brier_answered", "all"].value == pytest.approx(own["brier"].mean())


def test_an_error_of_what_is_neither_right_nor_wrong_is_refused(tmp_path):
    lesions(tmp_path / "data", count=24)
    with pytest.raises(PlanError, match=r"guard.error: an answer of regression is neither right nor wrong"):
        hilum.plan(
            tmp_path / "data",
            task="regression",
            layout="manifest",
            column=["value=size_px"],
            assignments={"guard.error": 0.1},
        )


@pytest.mark.whole
def test_a_trained_network_and_its_package_state_what_draws_of_the_last_layer_disagree_about(classified, tmp_path):
    picture = next((classified.data / "bright").iterdir())
    with no_export():
        package = hilum.package(classified.out, out=tmp_path / "package", backends=()).out
    own, packed, without = (
        hilum.predict(of, picture, device="cpu", backend=backend, **asked).table.iloc[0]
        for of, backend, asked in (
            (classified.out, "auto", {}),
            (package, "torch", {}),
            (classified.out, "auto", {"uncertainty": "none"}),
        )
    )
    assert 0 < own["epistemic"] < own["total"]
    assert own["aleatoric"] + own["epistemic"] == pytest.approx(own["total"], abs=1e-6)
    assert packed["epistemic"] == pytest.approx(own["epistemic"], rel=1e-5)
    assert "epistemic" not in without
    assert without["probability_bright"] == own["probability_bright"]
    cases = hilum.evaluate(classified.out, classified.data, device="cpu", out=tmp_path / "scored")
    assert {"total", "aleatoric", "epistemic"} <= set(cases.scored.table)


@pytest.mark.whole
def test_a_site_calibrates_the_gate_too_and_its_own_kind_of_image_is_refused_no_more(careful, gated, tmp_path):
    for path in pictures(tmp_path / "site", count=24, first=200).rglob("*.png"):
        PIL.Image.fromarray(np.repeat(np.asarray(PIL.Image.open(path)), 2, axis=1)).save(path)  # twice as broad
    [image] = (tmp_path / "site").rglob("206.png")
    assert hilum.predict(gated.out, image, abstain="mark").predictions["206"].abstained
    with no_export():
        made = hilum.calibrate(gated.out, tmp_path / "site", out=tmp_path / "package", backends=())
        answers = hilum.calibrate(careful, tmp_path / "site", out=tmp_path / "careful", backends=()).decisions
    assert "with 24 cases that chose nothing" in made.decisions["guard.gate"].because
    model = hilum.load(tmp_path / "package", "cpu")
    assert len(model.guard.calibrated) == 24
    assert hilum.predict(model, image).predictions["206"].abstained is None
    assert "24 cases that decided other things too" in answers["guard.error"].because
    assert hilum.load(tmp_path / "careful", "cpu").guard.answers.cases == 24


def test_a_site_completes_the_gate_of_a_model_that_was_trained_on_all_cases(gated, odd, tmp_path):
    model = hilum.load(gated.out, "cpu")
    everything = model.with_guard(replace(model.guard, held_out={}))  # none was left to judge by
    assert everything.predict(odd).abstained is None
    site = list(dataset_reading.open_dataset(pictures(tmp_path / "site", count=12, first=200), ReadingOptions()))
    few, decisions = gate.refit_gate(UnseenPredictions(), everything, site[:3], exact=True)
    assert "the gate has limits of the header alone" in decisions["guard.gate"].because
    assert few.predict(odd).abstained is None
    settled, decisions = gate.refit_gate(UnseenPredictions(), everything, site, exact=True)
    assert "with 12 cases that chose nothing" in decisions["guard.gate"].because
    assert "the training cases (distance" in settled.predict(odd).abstained
    assert "the gate:" not in readme.readme_text(everything, "a model", [], [], {}, "It is one.")
    assert "the gate:" in readme.readme_text(settled, "a model", [], [], {}, "It is one.")


def test_a_run_whose_gate_has_no_case_that_did_not_train_says_so_and_refuses_all_the_same(segmented, tmp_path):
    model = hilum.load(segmented.out, "cpu")
    assert model.gate.is_fitted and "none was left out" in str(model.gate)
    because = plan_file.read_plan(segmented.out / "plan.yaml").decision("guard.gate").because
    assert "because none was left out" in because
    assert because.removesuffix(".") in (segmented.out / "report.html").read_text(encoding="utf-8")
    image = hilum.read(next((segmented.data / "images").glob("*.nii.gz")))
    noise = np.random.default_rng(0).uniform(0, 1000, image.shape).astype(np.float32)
    assert model.predict(image.with_pixels(noise)).abstained is not None


def test_a_model_without_a_gate_says_so_beside_every_answer(tmp_path):
    adopted = small_onnx.network(tmp_path, [("Identity", "x", "o")])
    pixels = np.linspace(-900, 900, 64, dtype=np.float32).reshape(1, 4, 4, 4)
    hilum.write(Image(pixels, Geometry((4, 4, 4), np.eye(4)), modality="CT"), tmp_path / "volume.nii.gz")
    result = hilum.predict(adopted, tmp_path / "volume.nii.gz", out=tmp_path / "out")
    assert "no gate: every image gets an answer (no case that trained it is known)" in repr(result)
    assert csv_text.read_text_table(tmp_path / "out" / "predictions.csv")["gate"].tolist() == ["none"]
    assert "no gate" in json.loads((tmp_path / "out" / "findings.json").read_text())["model"]["gate"]
