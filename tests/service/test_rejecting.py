"""Rejection notes to peers: what was superseded is taken back where it was sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pynetdicom
import pytest
from dicomweb_client.api import DICOMwebClient

from files.test_dicom_sr_structures import judged
from hilum.files.dicom import rejection as dicom_rejection
from hilum.files.dicom.rejection import KEY_OBJECTS
from hilum.files.dicom.writing import report_changes
from hilum.service._courier import Couriers
from hilum.service.records import tables
from ports import free_port
from service.objects_sent import encoded
from service.small_node import LEVEL, SmallNode
from service.test_comprehensive import IN_PLACE, IS_3D, Pacs
from service.test_rejections import note
from service.thresholds import threshold_model

SEG = "1.2.840.10008.5.1.4.1.1.66.4"


@pytest.fixture
def node(tmp_path, mr, monkeypatch) -> Iterator[SmallNode]:
    """A node with two peers, of which the first is told to reject; the study lacks its last image."""
    # What asks for commitment sets this for the process, and the PACS of the next test would take every class.
    monkeypatch.setattr(pynetdicom._config, "UNRESTRICTED_STORAGE_SERVICE", False)
    peers = [
        {"name": name, "ae_title": "PACS", "host": "127.0.0.1", "port": free_port(), "commit": False, "reject": told}
        for name, told in (("pacs", True), ("archive", False))
    ]
    rules = [{"name": "r", "model": "threshold.onnx", "send": ["pacs", "archive"]}]
    made = SmallNode(tmp_path / "node", threshold_model(tmp_path / "model", LEVEL), peers=peers, rules=rules)
    made.receive(*mr[:-1])
    made.work()
    yield made
    made.store.close()
    made.database.close()


def deliver(node: SmallNode, name: str, *classes: str) -> list[pydicom.Dataset]:
    """The objects that a peer gets which takes these classes."""
    couriers = Couriers(node.settings, node.database)
    with Pacs(couriers.peers[name].port, KEY_OBJECTS, SEG, *classes) as pacs:
        couriers.deliver(name)
    return pacs.taken


def told(node: SmallNode) -> int:
    """The number of new notes."""
    return Couriers(node.settings, node.database).rejecter.round()


def saved(made: pydicom.Dataset, path: Path) -> Path:
    made.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.whole
def test_what_was_superseded_is_rejected_after_the_newer_result_and_never_comes_back_under_its_uids(node, mr, tmp_path):
    first = {str(one.SOPInstanceUID) for one in deliver(node, "pacs", IS_3D)}
    assert len(deliver(node, "archive", IS_3D)) == len(first) == 2
    node.receive(mr[-1])
    assert told(node) == 0
    node.work()
    assert told(node) == 0  # the newer result waits for the peer
    newer = deliver(node, "pacs", IS_3D)
    second = {str(one.SOPInstanceUID) for one in newer}
    assert [told(node), told(node)] == [1, 0]
    assert len(deliver(node, "archive", IS_3D)) == 2  # no note
    [made] = deliver(node, "pacs")
    judged(saved(made, tmp_path / "made.dcm"))
    rejection = dicom_rejection.read_rejection(tmp_path / "made.dcm")
    assert rejection.reason == "Rejected for Quality Reasons (113001, DCM)"
    [description] = [one.TextValue for one in made.ContentSequence if one.ValueType == "TEXT"]
    assert description == "superseded: the study has grown, and its inputs have changed"
    assert rejection.instances == first
    last = pydicom.dcmread(mr[-1])
    assert (made.PatientID, made.StudyInstanceUID) == (last.PatientID, last.StudyInstanceUID)
    (tmp_path / "note.dcm").write_bytes(encoded(note("1.7.1", last, "113001", last.SOPInstanceUID)))
    node.receive(tmp_path / "note.dcm")  # the images are those of the first job again
    node.work()
    third = deliver(node, "pacs", IS_3D)
    assert [[one.InstanceNumber for one in some] for some in (newer, third)] == [[2, 2], [3, 3]]
    assert {str(one.SOPInstanceUID) for one in third}.isdisjoint(first | second)
    assert [row.state for row in sorted(node.rows(tables.JOBS), key=lambda job: job.version)] == [
        *["superseded"] * 2,
        "sending",
    ]
    [report] = [one for one in third if one.SOPClassUID == IS_3D]
    [earlier] = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert earlier.ReferencedSOPInstanceUID in second
    assert told(node) == 1
    [made] = deliver(node, "pacs")
    assert dicom_rejection.read_rejection(saved(made, tmp_path / "again.dcm")).instances == second


@pytest.mark.whole
def test_orthanc_takes_a_note_and_gives_it_back(node, mr, orthanc, tmp_path):
    deliver(node, "pacs", IS_3D)
    node.receive(mr[-1])
    node.work()
    deliver(node, "pacs", IS_3D)
    assert told(node) == 1
    couriers = Couriers(node.settings, node.database)
    couriers.peers["pacs"] = couriers.peers["pacs"].model_copy(update={"dicomweb": f"{orthanc.url}/dicom-web"})
    assert couriers.deliver("pacs") == 1
    [row] = [row for row in node.rows(tables.ANSWERS) if row.kind == "rejection"]
    client = DICOMwebClient(f"{orthanc.url}/dicom-web")
    [found] = client.search_for_instances(search_filters={"SOPInstanceUID": row.sop_instance_uid})
    assert found["00080060"]["Value"] == ["KO"]


def test_a_note_names_the_report_that_the_peer_has_and_is_written_as_it_was_after_a_crash(node, mr):
    node_of = node.settings.folder / "results"
    assert {str(one.SOPClassUID) for one in deliver(node, "pacs", IN_PLACE)} == {SEG, IN_PLACE}
    node.receive(mr[-1])
    node.work()
    deliver(node, "pacs", IN_PLACE)
    rejecter = Couriers(node.settings, node.database).rejecter
    [due] = rejecter.outbox.to_reject(["pacs"])
    old = node_of / due.job
    report = report_changes.as_comprehensive(pydicom.dcmread(old / "answer_report.dcm"), "report")
    assert report.SOPInstanceUID in due.objects.values()
    made = old / "rejection_pacs.dcm"
    assert rejecter.round() == 1
    before = made.read_bytes()
    evidence = pydicom.dcmread(made).CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    named = {str(one.ReferencedSOPClassUID) for series in evidence for one in series.ReferencedSOPSequence}
    assert named == {SEG, IN_PLACE}
    rejecter._write_note(made, {old / name: uid for name, uid in due.objects.items()}, due)
    assert made.read_bytes() == before


@pytest.mark.whole
def test_results_whose_files_are_gone_are_said_to_be_left_to_a_person_once(node, mr, caplog):
    deliver(node, "pacs", IS_3D)
    node.receive(mr[-1])
    node.work()
    deliver(node, "pacs", IS_3D)
    rejecter = Couriers(node.settings, node.database).rejecter
    [due] = rejecter.outbox.to_reject(["pacs"])
    for path in (node.settings.folder / "results" / due.job).glob("*.dcm"):
        path.unlink()
    assert [rejecter.round(), rejecter.round()] == [0, 0]
    assert caplog.text.count("no rejection note can be written") == 1
    assert [row for row in node.rows(tables.ANSWERS) if row.kind == "rejection"] == []
