"""Covariates from a FHIR server: the newest value before the study, in the unit of the training, or a reason."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

import numpy as np
import pydicom
import pytest
from sqlalchemy import update

from hilum.errors import DatasetError, FormatError, UsageError
from hilum.runtime import Context, covariate_encoding
from hilum.runtime.covariate_encoding import PLACES, Category, FreeText, MonitoredCovariate, Number
from hilum.service.configuration import CovariateSource, FhirSection
from hilum.service.dicom.sending import PeerError
from hilum.service.exchange import fhir_covariates
from hilum.service.records import tables
from service.reports import fhir_peer
from service.small_node import LEVEL, SmallNode
from service.thresholds import threshold_model

CREATININE, CODE = "creatinine (mg/dL)", "fhir:Observation?code=http://loinc.org|2160-0"
HISTORY = FreeText("history", covariate_encoding.pack_weights(np.ones((PLACES, 1), np.int8)), (0.0,), (1.0,))
CONTEXT = Context(
    (
        MonitoredCovariate("pulse", 0, 3600, 8, 80, 10, unit="s"),
        Number(CREATININE, 1, 1.1, 0.3),
        Category("blood", {"a": 0.5, "b": 0.5}),
        HISTORY,
    )
)
SOURCES = {
    CREATININE: CovariateSource(source=CODE),
    "blood": CovariateSource(source="fhir:Observation?code=http://loinc.org|883-9"),
    "pulse": CovariateSource(source="fhir:Observation?code=http://loinc.org|8867-4", unit="/min"),
}
STUDY = {"PatientID": "17", "StudyDate": "20260301", "StudyTime": "120000", "TimezoneOffsetFromUTC": "+0000"}


def observed(loinc: str = "2160-0", patient: str = "Patient/p", **more):
    code = {"coding": [{"system": "http://local", "code": "x"}, {"system": "http://loinc.org", "code": loinc}]}
    return {"resourceType": "Observation", "code": code, "subject": {"reference": patient}, "status": "final", **more}


def measured(name: str, at: str, value: float, unit: str = "mg/dL", **more):
    quantity = {"value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit}
    return observed(**{"id": name, "effectiveDateTime": at, "valueQuantity": quantity, **more})


def known(*observations, name=CREATININE, study=STUDY, patients=("p",), answers=()):
    """What the server's observations come to for one covariate."""
    with fhir_peer(*answers) as peer:
        people = [one if isinstance(one, dict) else {"id": one} for one in patients]
        peer.searches["Patient"] = [{"resourceType": "Patient", **one} for one in people]
        peer.searches["Observation"] = list(observations)
        fhir = FhirSection(base=peer.url, patient_system="urn:oid:1.2.3")
        made = fhir_covariates.fetch_covariates({name: SOURCES[name]}, CONTEXT, study, fhir, idle_s=5.0)
        return made[name], peer


def test_the_newest_final_value_before_the_study_is_taken_with_its_source():
    value, peer = known(
        measured("late", "2026-03-01T12:30:00Z", 9.0),
        measured("wrong", "2026-03-01T11:00:00Z", 8.0, status="entered-in-error"),
        measured("new", "2026-03-01T11:30:00+01:00", 1.5, unit="mg/dl"),
        measured("same day", "2026-03-01", 7.0),  # it may have been after the study
        measured("old", "2026-02-01", 0.9),
    )
    assert (value.value, value.unit, value.at) == (1.5, "mg/dL", "2026-03-01T11:30:00+01:00")
    assert value.source == f"{peer.url}/Observation/new"
    [(_, of_patient, _), (_, of_values, _)] = peer.asked
    assert of_patient == {"identifier": ["urn:oid:1.2.3|17"]}
    assert (of_values["code"], of_values["patient"]) == (["http://loinc.org|2160-0"], ["p"])


def test_what_the_server_lacks_is_missing_and_keeps_its_source():
    for patients in ((), ("p",)):
        value, _ = known(patients=patients)
        assert value.record == {"value": None, "source": CODE}


@pytest.mark.parametrize(
    ("observations", "changed", "words"),
    [
        ([measured("a", "2026-02-01", 88.0, unit="umol/L")], {}, "is in umol/L, and the model was trained in mg/dL"),
        ([measured("a", "2026-02-01", 1.0), measured("b", "2026-02-01", 2.0)], {}, "2 values of the same time"),
        ([], {"patients": ("p", "q")}, "2 patients of the study's PatientID"),
        ([], {"study": {**STUDY, "PatientID": ""}}, "no PatientID"),
        ([], {"study": {**STUDY, "StudyDate": ""}}, "StudyDate, StudyTime"),
        ([], {"study": {**STUDY, "PatientID": ["17", "18"]}}, "2 PatientIDs"),
        ([measured("a", "2026-02-01", 7.7, patient="Patient/q")], {}, "not of the patient: it ignores patient="),
        ([measured("a", "2026-02-01", 7.7, patient="http://other/fhir/Patient/p")], {}, "it ignores patient="),
        ([measured("a", "2026-02-01", 7.7, subject=None)], {}, "it ignores patient="),
        ([measured("a", "2026-02-01", 7.7, loinc="718-7")], {}, "another code: it ignores code="),
        ([measured("a", "2026-02-01", 7.7, code={"text": "2160-0"})], {}, "it ignores code="),
        ([], {"patients": ({"id": "p", "identifier": [{"value": "18"}]},)}, "it ignores identifier="),
        ([], {"patients": ({"id": "p", "identifier": [{"system": "urn:x", "value": "17"}]},)}, "ignores identifier="),
        ([measured("a", "2026-02-01", 7.7, valueQuantity="7.7")], {}, "an entry that is no FHIR"),
        ([measured("a", "2026-02-01", 7.7, code={"coding": ["x"]})], {}, "an entry that is no FHIR"),
    ],
)
def test_nothing_is_guessed_of_units_patients_and_times(observations, changed, words):
    with pytest.raises(DatasetError, match=words):
        known(*observations, **changed)


def test_a_patient_and_a_code_are_known_in_every_way_in_which_fhir_writes_them():
    identifier = [{"system": "urn:x", "value": "1"}, {"system": "urn:oid:1.2.3", "value": " 17"}]
    with fhir_peer() as peer:
        peer.searches["Patient"] = [{"resourceType": "Patient", "id": "p", "identifier": identifier}]
        fhir = FhirSection(base=f"{peer.url}/", patient_system="urn:oid:1.2.3")
        for place in ("Patient/p", f"{peer.url}/Patient/p", "Patient/p/_history/2"):
            peer.searches["Observation"] = [measured("a", "2026-02-01", 1.5, patient=place)]
            for code in ("http://loinc.org|2160-0", "2160-0", "1-1,http://loinc.org|2160-0"):
                source = {CREATININE: CovariateSource(source=f"fhir:Observation?code={code}")}
                assert (
                    fhir_covariates.fetch_covariates(source, CONTEXT, STUDY, fhir, idle_s=5.0)[CREATININE].value == 1.5
                )
        source = {CREATININE: CovariateSource(source="fhir:Observation?code=http://snomed.info/sct|2160-0")}
        with pytest.raises(DatasetError, match="it ignores code="):
            fhir_covariates.fetch_covariates(source, CONTEXT, STUDY, fhir, idle_s=5.0)


@pytest.mark.parametrize(
    "bundle",
    [{"entry": ["x"]}, {"entry": "x"}, {"entry": [{"resource": "x"}]}, {"link": [1]}, {"resourceType": "List"}],
)
def test_an_answer_that_is_no_fhir_is_a_reason(bundle):
    body = json.dumps({"resourceType": "Bundle", **bundle}).encode()
    with pytest.raises(FormatError, match="the FHIR server answers"):
        known(answers=[(200, {}, body)])


def test_a_server_that_does_not_answer_is_no_missing_value():
    with pytest.raises(PeerError, match="503"):
        known(answers=[(503, {}, b"")])


def test_a_category_is_named_by_a_code_a_display_or_a_text():
    concept = {"coding": [{"system": "http://snomed.info/sct", "code": "112144000", "display": "A"}], "text": "group A"}
    value, _ = known(observed("883-9", effectiveDateTime="2020", valueCodeableConcept=concept), name="blood")
    assert value.value == "a"


def test_readings_over_time_are_all_of_the_trained_window_in_seconds_from_the_first():
    value, peer = known(
        measured("2", "2026-03-01T11:59:00Z", 90, unit="/min", loinc="8867-4"),
        measured("1", "2026-03-01T11:30:00Z", 70, unit="/min", loinc="8867-4"),
        measured("0", "2026-03-01T10:59:00Z", 60, unit="/min", loinc="8867-4"),
        name="pulse",
    )
    assert value.value == [(0.0, 70.0), (1740.0, 90.0)]
    assert sorted(peer.asked[1][1]["date"]) == ["ge2026-02-28", "le2026-03-02"]
    assert CONTEXT.vector({"pulse": value.value})[1][0].startswith(CREATININE)  # the pulse itself is not missing


def test_a_study_without_a_time_began_when_its_day_did():
    assert fhir_covariates.study_time({**STUDY, "StudyTime": ""}) == datetime.fromisoformat("2026-03-01T00:00:00+00:00")
    assert fhir_covariates.study_time({**STUDY, "StudyTime": "1230"}) == datetime.fromisoformat(
        "2026-03-01T12:30:00+00:00"
    )


@pytest.mark.parametrize(
    ("name", "unit", "words"),
    [("sodium", "mmol/L", "no covariate 'sodium'"), ("pulse", None, "nobody states the unit of 'pulse'")],
)
def test_a_source_that_no_model_can_take_is_refused_before_the_node_starts(name, unit, words):
    fhir_covariates.refuse_covariate_sources("m", SOURCES, CONTEXT)
    with pytest.raises(UsageError, match=words):
        fhir_covariates.refuse_covariate_sources("m", {name: CovariateSource(source=CODE, unit=unit)}, CONTEXT)


@pytest.mark.parametrize(
    ("name", "source", "words"),
    [
        ("history", CODE, "is free text, and a server's Observations are none"),
        ("history", "dicom:PatientStory", "DICOM has no attribute 'PatientStory'"),
        ("pulse", "dicom:PatientWeight", "read over time, and a header has one value"),
    ],
)
def test_a_history_comes_from_an_attribute_that_dicom_has(name, source, words):
    of_header = {"history": CovariateSource(source="dicom:AdditionalPatientHistory")}
    fhir_covariates.refuse_covariate_sources("m", of_header, CONTEXT)
    with pytest.raises(UsageError, match=words):
        fhir_covariates.refuse_covariate_sources("m", {name: CovariateSource(source=source)}, CONTEXT)


@pytest.fixture
def asking(tmp_path, mr):
    """A node on a dated study, whose model also takes creatinine, and the FHIR server."""
    for path in mr:
        dataset = pydicom.dcmread(path)
        dataset.update({"PatientID": "17", "StudyDate": "20260301", "StudyTime": "120000", "PatientAge": "045Y"})
        dataset.AdditionalPatientHistory = "Seven years on the Zauberberg"
        dataset.save_as(path)
    with fhir_peer() as peer:
        peer.searches["Patient"] = [{"resourceType": "Patient", "id": "p"}]
        path = threshold_model(tmp_path / "model", LEVEL)
        node = SmallNode(tmp_path / "node", path, fhir={"base": peer.url, "send": False})
        own = node.settings.models[path.name].model_copy(update={"covariates": {CREATININE: SOURCES[CREATININE]}})
        node.worker.settings = node.settings.model_copy(update={"models": {path.name: own}})
        model, _ = node.worker.models[path.name]
        columns, run = Context((Number(CREATININE, 1, 1.1, 0.3),)).settings, model.networks.run
        architecture = {**model.networks.architecture, "context": columns}
        networks = replace(model.networks, architecture=architecture, run=lambda images, _: run(images))
        node.worker.models.model_for_job = lambda name, digest: replace(model, networks=networks)
        node.receive(*mr)
        yield node, peer
        node.store.close()
        node.database.close()


def test_a_job_keeps_the_values_and_the_sources_of_its_covariates(asking):
    node, peer = asking
    peer.searches["Observation"] = [measured("new", "2026-02-28T11:30:00Z", 1.5)]
    node.work()
    [job] = node.rows(tables.JOBS)
    assert job.outcome == "answered"
    assert job.covariates[CREATININE] == {
        "value": 1.5,
        "source": f"{peer.url}/Observation/new",
        "unit": "mg/dL",
        "at": "2026-02-28T11:30:00+00:00",
    }
    assert job.covariates["age"]["source"] == "DICOM"


def test_a_missing_value_is_taken_as_in_the_training_and_the_reason_says_so(asking):
    node, _ = asking
    node.work()
    [job] = node.rows(tables.JOBS)
    assert job.outcome == "answered"
    assert f"{CREATININE} is missing: taken as 1, the median of the training cases" in job.reason
    assert job.covariates[CREATININE] == {"value": None, "source": CODE}


def test_a_job_takes_a_history_from_the_header_without_a_server_and_its_record_does_not_repeat_it(asking, mr):
    node, _ = asking
    model = node.worker.models.model_for_job("", "")
    architecture = {**model.networks.architecture, "context": Context((HISTORY,)).settings}
    networks = replace(model.networks, architecture=architecture)
    node.worker.models.model_for_job = lambda name, digest: replace(model, networks=networks)
    [(name, own)] = node.worker.settings.models.items()
    own = own.model_copy(update={"covariates": {"history": CovariateSource(source="dicom:AdditionalPatientHistory")}})
    node.worker.settings = node.worker.settings.model_copy(update={"models": {name: own}, "fhir": None})
    node.work()
    [job] = node.rows(tables.JOBS)
    assert job.outcome == "answered"
    assert job.covariates["history"] == {"value": "a text", "source": "DICOM AdditionalPatientHistory"}
    assert "Zauberberg" not in str(node.rows(tables.JOBS))


def test_an_odd_answer_refuses_the_job_and_a_silent_server_makes_it_wait(asking):
    node, peer = asking
    peer.answers.append((503, {}, b""))
    node.work()
    [job] = node.rows(tables.JOBS)
    assert (job.state, job.attempts) == ("waiting", 0) and "503" in job.reason
    with node.database.write() as connection:
        connection.execute(update(tables.JOBS).values(not_before=0.0))
    peer.answers.append((200, {}, b'{"resourceType": "Bundle", "entry": ["x"]}'))
    node.work()
    [job] = node.rows(tables.JOBS)
    assert job.outcome == "refused" and "a Bundle whose entry is no FHIR" in job.reason
