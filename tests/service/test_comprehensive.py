"""Reports for peers that take no Comprehensive 3D SR."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pydicom
import pynetdicom
import pytest

from files.test_dicom_sr_structures import judged
from hilum.errors import FormatError
from hilum.files.dicom import object_identity
from hilum.files.dicom.writing import report_changes
from hilum.service import _courier
from hilum.service._courier import Couriers
from hilum.service.dicom.messages import COMMITMENT
from hilum.service.objects.journal import CommitmentReport
from hilum.service.records import tables
from matrices import thinned
from ports import free_port
from service.small_node import SmallNode
from service.test_courier import STORED, WebPeer, failed_sop, to_web
from service.thresholds import class_model

IS_3D, IN_PLACE = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.33"
IMPLICIT = "1.2.840.10008.1.2"


class Pacs:
    """A PACS that takes some classes of reports, and is asked to commit them.

    refused: the class that it accepts and then refuses with the status 0122
    """

    def __init__(self, port: int, *classes: str, syntax: str | None = None, refused: str = "") -> None:
        self.refused = refused
        self.taken, self.asked = list[pydicom.Dataset](), list[tuple[str, str]]()
        entity = pynetdicom.AE("PACS")
        for sop_class in classes:
            entity.add_supported_context(sop_class, syntax or pynetdicom.DEFAULT_TRANSFER_SYNTAXES)
        entity.add_supported_context(COMMITMENT)
        handlers = [(pynetdicom.evt.EVT_C_STORE, self._take), (pynetdicom.evt.EVT_N_ACTION, self._commit)]
        self.server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)

    def __enter__(self) -> Pacs:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()

    def _take(self, event) -> int:
        made = event.dataset
        made.file_meta = event.file_meta
        if made.SOPClassUID == self.refused:
            return 0x0122
        assert event.request.AffectedSOPInstanceUID == made.SOPInstanceUID
        assert event.request.AffectedSOPClassUID == made.SOPClassUID
        self.taken.append(made)
        return 0x0000

    def _commit(self, event) -> tuple[int, None]:
        items = event.action_information.ReferencedSOPSequence
        self.asked += [(str(one.ReferencedSOPClassUID), str(one.ReferencedSOPInstanceUID)) for one in items]
        return 0x0000, None


@pytest.fixture
def reporting(tmp_path, mr, monkeypatch):
    """Makes a node whose report waits for a peer, in a folder of some name."""
    monkeypatch.setattr(_courier, "REPORT_S", 0.0)
    # What asks for commitment sets this for the process, and the PACS of the next test would take every class.
    monkeypatch.setattr(pynetdicom._config, "UNRESTRICTED_STORAGE_SERVICE", False)
    nodes, port, model = list[SmallNode](), free_port(), class_model(tmp_path / "model")

    def made(name: str, images: Sequence[Path] = mr, **about: str) -> tuple[SmallNode, Couriers, int]:
        pacs = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port}
        rules = [{"name": "r", "model": model.name, "send": ["pacs"]}]
        nodes.append(node := SmallNode(tmp_path / name, model, peers=[pacs], rules=rules))
        models = {model.name: node.settings.models[model.name].model_copy(update=about)}
        node.worker.settings = node.settings.model_copy(update={"models": models})
        node.receive(*images)
        node.work()
        return node, Couriers(node.settings, node.database), port

    yield made
    for node in nodes:
        node.store.close()
        node.database.close()


@pytest.mark.parametrize("syntax", thinned(1, [None, IMPLICIT]))
def test_a_peer_that_refuses_the_class_gets_the_same_content_as_comprehensive_sr_and_commits_that(
    reporting, syntax, tmp_path
):
    node, couriers, port = reporting("node")
    with Pacs(port, IN_PLACE, syntax=syntax) as pacs:
        assert couriers.deliver("pacs") == 1
    [taken], own = pacs.taken, pydicom.dcmread(node.result("answer_report.dcm"))
    [answer], [sent] = [row for row in node.rows(tables.ANSWERS) if row.sop_instance_uid], node.rows(tables.DELIVERIES)
    uid = str(taken.SOPInstanceUID)
    assert (own.SOPClassUID, own.SOPInstanceUID) == (IS_3D, answer.sop_instance_uid)
    assert taken.SOPClassUID == IN_PLACE and uid != answer.sop_instance_uid
    assert (sent.state, sent.sent_as, pacs.asked) == ("sent", uid, [(IN_PLACE, uid)])
    taken.save_as(tmp_path / "taken.dcm", enforce_file_format=True)
    judged(tmp_path / "taken.dcm")
    for one in (taken, own):
        del one.SOPClassUID, one.SOPInstanceUID
    assert taken.to_json_dict() == own.to_json_dict()
    couriers.hear(CommitmentReport("2.25.1", "PACS", (answer.sop_instance_uid,), (), 0.0))
    assert node.rows(tables.DELIVERIES)[0].state == "sent"  # of that object the peer has nothing
    couriers.hear(CommitmentReport("2.25.1", "PACS", (uid,), (), 0.0))
    assert node.rows(tables.DELIVERIES)[0].state == "committed"


def test_a_peer_that_takes_both_classes_gets_the_report_as_it_is(reporting):
    node, couriers, port = reporting("node")
    with Pacs(port, IN_PLACE, IS_3D) as pacs:
        assert couriers.deliver("pacs") == 1
    [answer], [sent] = [row for row in node.rows(tables.ANSWERS) if row.sop_instance_uid], node.rows(tables.DELIVERIES)
    assert pacs.asked == [(IS_3D, answer.sop_instance_uid)] and sent.sent_as is None


def test_a_peer_that_accepts_the_class_and_refuses_the_report_gets_the_other_class(reporting):
    node, couriers, port = reporting("node")
    with Pacs(port, IN_PLACE, IS_3D, refused=IS_3D) as pacs:
        assert couriers.deliver("pacs") == 1
    [taken], [sent] = pacs.taken, node.rows(tables.DELIVERIES)
    assert (taken.SOPClassUID, sent.state, sent.sent_as) == (IN_PLACE, "sent", str(taken.SOPInstanceUID))


@pytest.mark.parametrize("status", thinned(1, [202, 409]))
def test_a_peer_with_dicomweb_that_refuses_the_class_gets_the_other_class(reporting, status):
    node, couriers, _ = reporting("node")
    with WebPeer(200, STORED) as web:
        to_web(couriers, web.url)
        web.answers.append((status, json.dumps(failed_sop(0x0122)).encode()))
        assert couriers.deliver("pacs") == 1
    [sent], [answer] = node.rows(tables.DELIVERIES), [row for row in node.rows(tables.ANSWERS) if row.sop_instance_uid]
    assert (sent.state, sent.sent_as) == ("sent", report_changes.comprehensive_uid(answer.sop_instance_uid))
    assert [IN_PLACE.encode() + b"\0" in body for body in web.bodies] == [False, True]


def test_a_model_whose_reports_are_comprehensive_sr_writes_what_such_a_peer_gets(reporting):
    plain, _, _ = reporting("plain")
    forced, couriers, port = reporting("forced", sr_class="comprehensive")
    made = pydicom.dcmread(forced.result("answer_report.dcm"))
    expected = report_changes.as_comprehensive(pydicom.dcmread(plain.result("answer_report.dcm")), "report")
    assert made.SOPInstanceUID == expected.SOPInstanceUID  # the two jobs were made at two times
    assert made.SOPClassUID == made.file_meta.MediaStorageSOPClassUID == IN_PLACE
    with Pacs(port, IN_PLACE, IS_3D) as pacs:
        assert couriers.deliver("pacs") == 1
    assert pacs.asked == [(IN_PLACE, str(made.SOPInstanceUID))] and forced.rows(tables.DELIVERIES)[0].sent_as is None


def test_a_report_with_places_in_three_dimensions_stays_what_it_is():
    item, report = pydicom.Dataset(), pydicom.Dataset()
    item.ValueType = "SCOORD3D"
    report.SOPClassUID, report.SOPInstanceUID, report.ContentSequence = IS_3D, "2.25.7", [item]
    with pytest.raises(FormatError, match="three dimensions"):
        report_changes.as_comprehensive(report, "report")
    assert report.SOPInstanceUID == "2.25.7"


def test_a_newer_report_names_the_one_that_it_replaces_in_either_class(reporting, mr, tmp_path):
    node, _, _ = reporting("node", mr[:-1])
    [first] = [row.job for row in node.rows(tables.JOBS)]
    node.receive(mr[-1])
    node.work()
    [second] = [row.job for row in node.rows(tables.JOBS) if row.job != first]
    older, newer = (node.settings.folder / "results" / job / "answer_report.dcm" for job in (first, second))
    old, new = pydicom.dcmread(older), pydicom.dcmread(newer)
    assert "PredecessorDocumentsSequence" not in old

    def named(report):
        [document] = report.PredecessorDocumentsSequence
        [series] = document.ReferencedSeriesSequence
        [own] = series.ReferencedSOPSequence
        return (document.StudyInstanceUID, series.SeriesInstanceUID, own.ReferencedSOPInstanceUID)

    identity = object_identity.read_identity(older)
    assert named(new) == (identity.study, identity.series, identity.instance)
    judged(newer)
    changed = report_changes.as_comprehensive(new, "newer")
    assert named(changed)[2] == report_changes.as_comprehensive(old, "older").SOPInstanceUID
