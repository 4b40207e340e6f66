"""Lines of advice in the settings of a node, and in what it sends."""

from __future__ import annotations

import tomllib

import numpy as np
import pydicom
import pytest

import dicom_objects
import packages
from hilum.errors import UsageError
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions
from hilum.prediction import case_prediction, findings_file
from hilum.prediction.answers import WantedFiles
from hilum.prediction.case_prediction import CaseRequest
from hilum.prediction.findings_file import ExaminedImage
from hilum.service.configuration import NodeSettings
from hilum.service.exchange import fhir_reports, hl7_reports
from hilum.service.model_facts import ModelFacts
from hilum.service.reading import feedback_dataset
from hilum.service.routing import routing_rules
from hilum.service.web import response_shapes

SETTINGS = """
[models.m]
path = "m"
advice = [
  {{ when = "abstained", say = "repeat the image" }},
  {{ when = "{when}", say = "refer", code = {{ scheme = "SCT", value = "3457005", meaning = "Patient referral" }} }},
  {{ say = "rescreen in 12 months" }},
]

[[rules]]
name = "r"
model = "m"
"""
FACTS = {"m": ModelFacts("m", "h", findings=("benign", "malignant"), units={"volume": "ml"}, grades=("mild", "severe"))}


def settings(when: str = "called malignant") -> NodeSettings:
    return NodeSettings.model_validate(tomllib.loads(SETTINGS.format(when=when)))


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("grade >= worst", "rule 'r': advice: .*states no grade 'worst'"),
        ("volume >= 2 mm", "the model states volume in ml"),
        ("change volume <= -20 %", "states no change 'volume'"),
    ],
)
def test_lines_that_do_not_fit_the_model_are_refused_before_the_node_starts(when, words):
    assert routing_rules.rules_of(settings(), FACTS)
    with pytest.raises(UsageError, match=words):
        routing_rules.rules_of(settings(when), FACTS)
    without_rules = NodeSettings.model_validate(settings(when).model_dump() | {"rules": []})
    with pytest.raises(UsageError, match=words.replace("rule 'r'", "model 'm'")):
        routing_rules.rules_of(without_rules, FACTS)
    compared = settings("change volume <= -20 %").model_dump()
    compared["rules"][0]["prior"] = {}
    assert routing_rules.rules_of(NodeSettings.model_validate(compared), FACTS)


def test_what_is_said_stands_first_in_report_fhir_hl7_and_worklist_with_its_code(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32), dtype=np.uint8)
    made = dicom_objects.picture(
        pixels, PatientID="7", StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.4", SOPInstanceUID="1.2.3.4.5"
    )
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = made.SOPClassUID, "1.2.3.4.5"
    (tmp_path / "series").mkdir()
    made.save_as(tmp_path / "series" / "a.dcm", enforce_file_format=True)
    [case] = dataset_layouts.read_dataset(tmp_path / "series", DatasetOptions(references=False))
    lines = [one.model_copy(update={"when": ""}) for one in settings().models["m"].advice if one.say == "refer"]
    model, folder = packages.classifying(), tmp_path / "out"
    folder.mkdir()
    asked = CaseRequest(folder, WantedFiles("dcm", answers=("sr",)), advice=lines)
    done = case_prediction.compute_case(model, case, case.images["image"], asked)()
    [path] = folder.rglob("*.dcm")
    content = str(pydicom.dcmread(path))
    assert "Patient referral" in content and "3457005" in content
    [row, *_] = findings_file.findings_record([ExaminedImage(done)], model).records
    assert response_shapes.shown_finding(row) == "refer"
    coded = fhir_reports._coded_value(row, has_components=False)
    assert coded["code"]["text"] == "advice"
    assert coded["valueCodeableConcept"]["coding"][0]["code"] == "3457005"
    [(_, (kind, concept, value, *_))] = hl7_reports._values(row, "1")
    assert (kind, "advice" in concept, "3457005" in value) == ("CWE", True, True)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"concept": "Liver", "value": 1563.4, "unit": "ml"}, "Liver: 1563 ml"),
        ({"concept": "Hippocampus", "value": 2.9134, "unit": "ml"}, "Hippocampus: 2.91 ml"),
        ({"concept": "Lesion", "value": 0.0}, ""),
        ({"concept": "Pneumonia", "probability": 0.914}, "Pneumonia: 91 %"),
    ],
)
def test_a_finding_in_the_worklist_has_its_number_as_people_write_it(row, words):
    assert response_shapes.shown_finding(row) == words


def test_what_is_said_is_no_class_that_a_model_learns_from_feedback():
    rows = [
        {"concept": "refer", "group": "advice", "called": True},
        {"concept": "ill", "group": "class", "called": True},
    ]
    assert feedback_dataset._stated_answers(rows, 2) == [{"label": "ill"}]
