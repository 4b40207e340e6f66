"""A study whose series are of two patients: no rule takes one, nobody gets a report, and the two are named."""

from __future__ import annotations

import pydicom
import pytest

from hilum.files.dicom import stated_patients
from hilum.service.exchange import findings_report
from hilum.service.records import tables
from hilum.service.routing import routing_facts
from service.small_node import LEVEL, SmallNode
from service.thresholds import threshold_model


def person(number: object = "", issuer: str = "", name: str = "") -> dict[str, object]:
    return {"PatientID": number, "IssuerOfPatientID": issuer, "PatientName": name}


@pytest.mark.parametrize(
    ("headers", "people"),
    [
        ([person("1"), person("2")], ["1", "2"]),
        ([person("1", "A"), person("1", "B")], ["1 of A", "1 of B"]),
        ([person("1", "A"), person("2")], ["1 of A", "2"]),
        ([person("1", "A"), person("1"), person(""), {}, person("anonymous")], []),
        ([person("1 ", name="Doe^Jane"), person("1", name="Roe^Jane")], []),
        ([person("1", name="Doe^Jane"), person("", name="Roe^Jane")], []),
        ([person(name="Doe^Jane"), person(name="DOE^JANE^")], []),
        ([person(name="Doe^Jane"), person(name="Roe^Jane")], ["DOE JANE", "ROE JANE"]),
        ([person(["1", "2"])], []),
        ([{}, person("none")], []),
    ],
)
def test_the_patients_of_a_study_are_told_by_number_and_issuer(headers, people):
    assert stated_patients.mixed_people(map(routing_facts.stated_patient, headers)) == people


def test_a_study_of_two_patients_is_refused_by_name_and_no_report_goes_out(tmp_path, mr, caplog):
    caplog.set_level("INFO", "hilum")
    node = SmallNode(
        tmp_path / "node", threshold_model(tmp_path / "model", LEVEL), answers=["sr"], hl7={"send": ["127.0.0.1:1"]}
    )
    node.receive(*mr)
    node.work()
    [job] = node.rows(tables.JOBS)
    for number, path in enumerate(mr, start=1):
        other = pydicom.dcmread(path)
        other.PatientID, other.IssuerOfPatientID, other.SeriesInstanceUID = "SECOND-2", "H2", "1.0.1"
        other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = f"1.0.1.{number}"
        other.save_as(path)
    node.receive(*mr)
    node.work()
    [study], problems = node.rows(tables.STUDIES), {row.problem for row in node.rows(tables.SERIES_ROWS)}
    assert (study.state, study.outcome) == ("aside", "refused")
    assert "its series are of 2 patients, whom `people` names" in study.reason
    assert study.people == ["SECOND-2 of H2", "p"]
    assert problems == {"the study holds series of 2 patients (SECOND-2 of H2, p)"}
    assert [(row.state, row.job) for row in node.rows(tables.JOBS)] == [("superseded", job.job)]
    assert {row.state for row in node.rows(tables.DELIVERIES)} == {"aside"}
    assert "SECOND-2" not in caplog.text + study.reason
    # Whatever the study holds by now, a report is of the patient of its own series.
    assert findings_report.report_of_job(node.settings, node.database, job.job).fact("PatientID") == "p"
    node.store.close()
    node.database.close()
