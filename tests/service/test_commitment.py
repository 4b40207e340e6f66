"""Storage commitment for a peer that others have written: told on its own association, or on one of ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pydicom
import pynetdicom
import pytest
from pynetdicom.dimse_messages import N_EVENT_REPORT_RSP

from hilum.service import _courier, configuration
from hilum.service._courier import Couriers
from hilum.service._keeper import Keeper
from hilum.service.dicom import asking as dicom_asking
from hilum.service.dicom import dicom_listening, pynetdicom_events, sending
from hilum.service.dicom.dicom_listening import DicomPeer
from hilum.service.dicom.messages import COMMITMENT, COMMITMENT_INSTANCE
from hilum.service.objects.journal import CommitmentRequest, ReplyFile
from ports import free_port
from service.databases import with_tables
from service.objects_sent import encoded, simulated
from service.receiving import receiving, until
from service.talking import CAPTURE

ASKED = CommitmentRequest("1.2.77", "PACS", (CAPTURE, CAPTURE), ("1.2.3.4", "1.2.3.5"), 0.0)


class Heard:
    """Reports that a peer got, by the association on which they came.

    status: what it answers; before: looked at when a report comes, as `waited`
    """

    def __init__(self, status: int = 0x0000, before: Callable[[], list[str]] = list) -> None:
        self.status, self.reports = status, list[tuple[bool, tuple[str, ...], tuple[str, ...]]]()
        self.before, self.waited = before, list[str]()
        self.answered = threading.Event()

    def sent(self, event) -> None:
        """Mark that the answer to a report was sent: an association that is released before would lose it."""
        if isinstance(event.message, N_EVENT_REPORT_RSP):
            self.answered.set()

    def note(self, event) -> tuple[int, None]:
        self.waited = self.before()
        said = event.event_information
        assert said.TransactionUID == ASKED.transaction
        lists = (said.get("ReferencedSOPSequence", []), said.get("FailedSOPSequence", []))
        safe, lost = (tuple(one.ReferencedSOPInstanceUID for one in items) for items in lists)
        is_ours = event.assoc.is_acceptor  # the node has opened it
        self.reports.append((not is_ours, safe, lost))
        return (0x0000 if is_ours else self.status), None


@pytest.fixture
def node(tmp_path, monkeypatch) -> Iterator[tuple[int, int]]:
    """(port, the peer's port) of a receiver and a keeper whose peer PACS may ask for commitment."""
    monkeypatch.setattr(_courier, "AGAIN_S", 0.02)
    monkeypatch.setattr(_courier, "TAKEN_S", 60.0)
    port = free_port()
    pacs = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, "may": ["store", "commit"]}
    settings = configuration.read_settings(None, [], tmp_path / "node", peers=[pacs], node={"min_free_gb": 0})
    database, stop = with_tables(settings.database_url), threading.Event()
    couriers = Couriers(settings, database)
    keeper = Keeper(settings, database, [], {}, couriers.hear)

    def keep() -> None:
        while not stop.wait(0.02):
            keeper.round()
            couriers.vouch()

    keeping = threading.Thread(target=keep)
    keeping.start()
    try:
        with receiving(tmp_path / "node", peers=dicom_listening.listener_settings(settings).peers) as made:
            (tmp_path / "object.dcm").write_bytes(encoded(simulated("1.2.3.4")))
            [row] = sending.send_files(
                "PACS", DicomPeer("node", "HILUM", "127.0.0.1", made.port), [tmp_path / "object.dcm"]
            )
            assert row.is_stored
            yield made.port, port
    finally:
        stop.set()
        keeping.join()
        database.close()


@contextmanager
def asking(node: tuple[int, int], heard: Heard) -> Iterator[pynetdicom.association.Association]:
    """A peer's association on which it has asked for two objects, of which one is there; its own port listens too."""
    handlers = [(pynetdicom.evt.EVT_N_EVENT_REPORT, heard.note), (pynetdicom.evt.EVT_DIMSE_SENT, heard.sent)]
    entity = pynetdicom.AE("PACS")
    entity.add_supported_context(COMMITMENT, scu_role=True, scp_role=True)
    entity.add_requested_context(COMMITMENT)
    server = entity.start_server(("127.0.0.1", node[1]), block=False, evt_handlers=handlers)
    association = entity.associate("127.0.0.1", node[0], ae_title="HILUM", evt_handlers=handlers)
    try:
        said = pydicom.Dataset()
        said.TransactionUID = ASKED.transaction
        said.ReferencedSOPSequence = pynetdicom_events.reference_sequence(
            zip(ASKED.classes, ASKED.instances, strict=True)
        )
        assert association.send_n_action(said, 1, COMMITMENT, COMMITMENT_INSTANCE)[0].Status == 0
        yield association
    finally:
        if association.is_established:
            association.release()
        server.shutdown()


def test_a_peer_that_keeps_its_association_open_is_told_on_it_and_on_no_other(node):
    heard = Heard()
    with asking(node, heard) as association:
        until(heard.answered.is_set)
        assert association.is_established
    assert heard.reports == [(True, ("1.2.3.4",), ("1.2.3.5",))]


def test_a_peer_hears_that_objects_are_safe_once_they_survive_a_power_cut(node, waited_for):
    heard = Heard(before=lambda: [path.name for path in waited_for if path.suffix == ".dcm"])
    with asking(node, heard):
        until(lambda: heard.reports)
    assert len(heard.waited) == 1


def test_a_peer_that_has_released_its_association_is_told_on_one_of_ours(node):
    heard = Heard()
    with asking(node, heard) as association:
        association.release()
        until(lambda: heard.reports)
    assert heard.reports == [(False, ("1.2.3.4",), ("1.2.3.5",))]


def test_a_peer_that_refuses_the_report_on_its_association_is_told_on_one_of_ours(node):
    heard = Heard(status=0x0110)
    with asking(node, heard):
        until(lambda: len(heard.reports) == 2)
    assert [is_own for is_own, _, _ in heard.reports] == [True, False]


@pytest.mark.whole
def test_a_node_that_asks_another_one_is_told_on_its_association(node):
    report = dicom_asking.request_commitment("PACS", DicomPeer("node", "HILUM", "127.0.0.1", node[0]), ASKED, wait_s=60)
    assert (report.note_commitment, report.note_failure) == (("1.2.3.4",), ("1.2.3.5",))


def test_a_request_whose_receiver_is_gone_is_answered_on_an_association_of_ours(tmp_path):
    reply = ReplyFile.begun(tmp_path)
    assert not reply.give(["1.2.3.4"], wait_s=0.1)  # nobody takes it
    assert reply.come() is None
    reply.close()
    assert not reply.give(["1.2.3.4"], wait_s=10)
    assert not ReplyFile(tmp_path / "gone" / "reply").give(["1.2.3.4"], wait_s=10)
    assert list(tmp_path.iterdir()) == []
