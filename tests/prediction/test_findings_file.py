"""The record of findings: its outcome, its reason, and what names the image of a row."""

import json
from types import SimpleNamespace

from hilum.prediction import findings_file
from hilum.prediction.case_prediction import PredictionOutcome
from hilum.prediction.findings_file import ExaminedImage
from hilum.values import Code, Finding, Problem

LIVER = Finding("liver", 1500.0, "ml", codes=(Code("SCT", "10200004", "Liver"), Code("RADLEX", "RID58", "liver")))
MODEL = SimpleNamespace(
    task=SimpleNamespace(name="segmentation"),
    record={"weights_sha256": "ab" * 32},
    sha256="cd" * 32,
    gate="no gate",
    unfinished_training="",
)


def test_an_object_that_could_not_be_written_is_named_with_its_reason():
    without = Problem("warning", "no DICOM SEG: the image states no FrameOfReferenceUID", ("answer",))
    seen = PredictionOutcome([{}], [], None, lacking=[without], findings=(LIVER,), found=True)
    assert findings_file.findings_record([ExaminedImage(seen)], MODEL).reason == without.what


def done(*findings, abstained=None, lacking=()):
    problems = [Problem("warning", f"case: {words}", ("case",)) for words in lacking]
    return PredictionOutcome(
        [{}], [], None, lacking=problems, findings=findings, found=bool(findings), abstained=abstained
    )


def test_the_file_of_findings_holds_outcome_model_and_every_code(tmp_path):
    findings_file.write_findings(
        findings_file.findings_record([ExaminedImage(done(LIVER, lacking=["no SEG"]))], MODEL), tmp_path
    )
    record = json.loads((tmp_path / "findings.json").read_text())
    assert (record["schema"], record["version"]) == ("hilum.findings", 1)
    assert (record["outcome"], record["reason"]) == ("answered", "no SEG")
    expected = {"name": "hilum segmentation", "version": "cd" * 6, "sha256": "cd" * 32, "weights_sha256": "ab" * 32}
    expected["gate"] = "no gate"
    assert record["model"] == expected
    [row] = record["rows"]
    assert [code["scheme"] for code in row["codes"]] == ["SCT", "RADLEX"] and "case" not in row


def test_of_several_images_each_row_states_its_own_and_the_reason_names_those_without_an_answer():
    refused = done(abstained="unlike all others", lacking=["refused: unlike all others"])
    images = [ExaminedImage(done(LIVER), "a: ", {"case": "a"}), ExaminedImage(refused, "b: ", {"case": "b"})]
    made = findings_file.findings_record(images, MODEL)
    assert (made.outcome, made.reason) == ("answered", "b: unlike all others")
    assert [row["case"] for row in made.records] == ["a"]


def test_a_value_that_is_not_a_number_is_left_out_and_the_reason_says_so():
    made = findings_file.findings_record(
        [ExaminedImage(done(Finding("volume", float("nan"), "ml", low=float("-inf"))))], MODEL
    )
    assert (made.rows, made.reason) == ((Finding("volume", None, "ml"),), "volume is not a number")


def test_frames_of_a_clip_are_named_and_those_of_too_many_are_left_to_the_table():
    rows = [Finding("mass", 3.0, "mm²", frame=n) for n in range(201)]
    made = findings_file.findings_record([ExaminedImage(done(*rows[1:]))], MODEL)
    assert (made.reason, [row["frame"] for row in made.records]) == ("", list(range(1, 201)))
    made = findings_file.findings_record([ExaminedImage(done(*rows))], MODEL)
    assert (made.outcome, made.rows) == ("answered", ()) and made.reason.startswith("201 frames have findings")


def test_an_image_in_which_nothing_was_found_differs_from_one_that_was_not_answered():
    made = findings_file.findings_record([ExaminedImage(done())], MODEL)
    assert (made.outcome, made.is_empty) == ("answered", True)
    assert findings_file.findings_record([ExaminedImage(done(abstained="odd"))], MODEL).outcome == "abstained"
