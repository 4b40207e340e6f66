"""A node that compares an answer with that on an earlier study: from its own store, or from a peer."""

from __future__ import annotations

import time

import pydicom
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from hilum.errors import UsageError
from hilum.service.exchange import fhir_reports, findings_report, hl7_reports
from hilum.service.records import tables
from hilum.service.web import server
from hilum.service.web.web_node import WebNode
from ports import free_port
from service.followed import study
from service.receiving import receiving
from service.small_node import LEVEL, SmallNode
from service.thresholds import threshold_model


@pytest.fixture
def node(tmp_path, request):
    """A node whose only rule compares with an earlier study. param: other settings"""
    path = threshold_model(tmp_path / "model", LEVEL)
    given = getattr(request, "param", {})
    rule = {
        "name": "balls",
        "model": path.name,
        "prior": {"lesions": ["bright"], "least_days": 50, **given.pop("prior", {})},
    }
    made = SmallNode(tmp_path / "node", path, rules=[rule], **given)
    yield made
    made.store.close()
    made.database.close()


def jobs_of(node: SmallNode, day: str) -> list:
    """The jobs on the study of a day, oldest first."""
    [key] = [row.study for row in node.rows(tables.STUDIES) if row.study_date == day]
    return sorted((row for row in node.rows(tables.JOBS) if row.study == key), key=lambda row: row.created_at)


def items_named(item, code: str) -> list:
    """All items of a report's tree with a concept."""
    own = [] if "ConceptNameCodeSequence" not in item else [item.ConceptNameCodeSequence[0].CodeValue]
    below = [found for one in item.get("ContentSequence", []) for found in items_named(one, code)]
    return [*([item] if code in own else []), *below]


def test_a_study_that_came_after_its_follow_up_makes_that_answer_anew_once_as_a_new_version(node, tmp_path):
    node.receive(*study(tmp_path, "20240301", 5.0, shift=(1, 0)))
    node.work()
    [alone] = jobs_of(node, "20240301")
    assert "no earlier study of the patient is known" in alone.reason
    node.receive(*study(tmp_path, "20240101", 6.0), *study(tmp_path, "20231201", 6.0, IssuerOfPatientID="elsewhere"))
    node.work()
    first, compared = jobs_of(node, "20240301")
    assert (first.state, compared.state, compared.version) == ("superseded", "done", 2)
    [earlier] = jobs_of(node, "20240101")
    assert compared.inputs["prior"] == {"job": earlier.job}, "that of another issuer is of another person"
    assert "prior" not in earlier.inputs
    folder = node.settings.folder / "results" / compared.job
    label, before, now, *_, days, a_year = (folder / "change.csv").read_text().splitlines()[1].split(",")
    assert (label, float(days)) == ("bright", 60)
    assert float(now) < float(before)
    assert float(a_year) < 0
    assert {"lesions.csv", "response.json"} <= {path.name for path in folder.iterdir()}
    web_node = WebNode(node.settings, node.database, node.store)
    client = TestClient(server.web_app(web_node), base_url="http://127.0.0.1:8180")
    uid, earlier_uid = (
        pydicom.dcmread(tmp_path / day / "0001.dcm").StudyInstanceUID for day in ("20240301", "20240101")
    )
    shown = client.get(f"/api/studies/{uid}/reading").json()["jobs"][0]["change"]
    assert (shown["study"], shown["date"], shown["rows"][0]["now"]) == (earlier_uid, "2024-01-01", now)
    rows = [row.row for row in node.rows(tables.FINDING_ROWS) if row.job == compared.job]
    assert [row["unit"] for row in rows if row["concept"] == "change"] == ["%"]
    stated = findings_report.report_of_job(node.settings, node.database, compared.job)
    [percent] = [row.row["value"] for row in node.rows(tables.FINDING_ROWS) if row.concept == "change"]
    observations = [
        entry["resource"]
        for entry in fhir_reports.report_bundle(stated, "R5")["entry"]
        if entry["resource"].get("code", {}).get("text") == "change"
    ]
    assert [(one["valueQuantity"]["value"], one["valueQuantity"]["code"]) for one in observations] == [(percent, "%")]
    assert f"|{percent:.6g}"[:6].encode() in hl7_reports.oru_message(stated)
    report = pydicom.dcmread(folder / "answer_report.dcm")
    before_this = pydicom.dcmread(node.settings.folder / "results" / earlier.job / "answer_report.dcm")
    [offset] = items_named(report, "128740")
    assert float(offset.MeasuredValueSequence[0].NumericValue) == 60
    assert offset.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == "d"
    [source] = items_named(report, "121112")
    assert source.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == before_this.SOPInstanceUID
    evidence = [*report.PertinentOtherEvidenceSequence, *report.CurrentRequestedProcedureEvidenceSequence]
    assert {item.StudyInstanceUID for item in evidence} == {before_this.StudyInstanceUID, report.StudyInstanceUID}
    node.receive(*study(tmp_path, "20240110", 5.5))
    node.work()
    assert [row.job for row in jobs_of(node, "20240301")] == [first.job, compared.job], "only once"


def test_an_answer_that_was_given_long_ago_is_not_made_anew(node, tmp_path):
    node.receive(*study(tmp_path, "20240301", 5.0))
    node.work()
    with node.database.write() as connection:
        connection.execute(update(tables.JOBS).values(done_at=tables.JOBS.c.done_at - 25 * 3600))
    node.receive(*study(tmp_path, "20240101", 6.0))
    node.work()
    assert [row.state for row in jobs_of(node, "20240301")] == ["done"]


def silent_peer() -> dict:
    return {"name": "archive", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": free_port(), "priors": True}


@pytest.mark.parametrize("node", [{"peers": [silent_peer()], "prior": {"limit_s": 1}}], indirect=True)
def test_a_peer_that_never_answers_holds_an_answer_up_no_longer_than_its_limit(node, tmp_path):
    node.receive(*study(tmp_path, "20240301", 5.0))
    began = time.monotonic()
    node.work()
    [alone] = jobs_of(node, "20240301")
    assert time.monotonic() - began < 20
    assert "archive did not answer (cannot be reached" in alone.reason


def test_lesions_that_the_model_does_not_mark_are_refused_at_start(tmp_path):
    path = threshold_model(tmp_path / "model", LEVEL)
    rule = {"name": "balls", "model": path.name, "prior": {"lesions": ["tumour"]}}
    with pytest.raises(UsageError, match="'tumour', and the labels of 'balls' are bright"):
        SmallNode(tmp_path / "node", path, rules=[rule])


@pytest.mark.whole
@pytest.mark.parametrize("way", ["QIDO-RS and WADO-RS", "C-FIND and C-MOVE"])
def test_the_earlier_study_comes_from_orthanc_where_the_node_holds_none(way, orthanc, tmp_path):
    """The second study is sent first; another person with the same number, who is newer, is left where he is."""
    web = {"dicomweb": f"{orthanc.url}/dicom-web"} if "RS" in way else {}
    path = threshold_model(tmp_path / "model", LEVEL)
    peer = {"name": "pacs", "ae_title": orthanc.ae_title, "host": "127.0.0.1", "port": orthanc.port, "priors": True}
    rule = {"name": "balls", "model": path.name, "prior": {"limit_s": 30}}
    given = {"peers": [{**peer, **web}], "rules": [rule]}
    earlier = study(tmp_path, "20240101", 6.0)
    for file in (*earlier, *study(tmp_path, "20240201", 6.0, IssuerOfPatientID="elsewhere")):
        orthanc.ask("/instances", file.read_bytes())
    node = SmallNode(tmp_path / "node", path, **given)
    node.receive(*study(tmp_path, "20240301", 5.0, shift=(1, 0)))
    with receiving(node.settings.folder) as arriving:
        orthanc.knows("node", node.settings.dicom.ae_title, arriving.port)
        until = time.monotonic() + 60
        while not any("prior" in row.inputs and row.state == "done" for row in node.rows(tables.JOBS)):
            assert time.monotonic() < until, [(row.state, row.reason) for row in node.rows(tables.JOBS)]
            node.work()
            time.sleep(0.2)
    [waited, compared] = jobs_of(node, "20240301")
    assert waited.outcome is None, "the new study is answered once, after the earlier one"
    assert {row.study_date for row in node.rows(tables.STUDIES)} == {"20240101", "20240301"}
    assert (node.settings.folder / "results" / compared.job / "change.csv").exists()
    node.store.close()
    node.database.close()
