"""Answers on their way to peers that are away, refuse, stall or die."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from functools import partial
from typing import Any, ClassVar, Never

import pydicom
import pynetdicom
import pytest
from pynetdicom.sop_class import SegmentationStorage, StudyRootQueryRetrieveInformationModelFind
from sqlalchemy import insert, text, update
from sqlalchemy.exc import OperationalError

from hilum.deidentification import keyed_names
from hilum.errors import HilumError, ResourceError, UsageError
from hilum.service import _courier, _delivering, _node_threads, _process, configuration, node_folder, supervisor
from hilum.service._courier import Couriers
from hilum.service.dicom import asking
from hilum.service.dicom import sending as dicom_sending
from hilum.service.node_folder import MODELS
from hilum.service.objects import object_store
from hilum.service.objects.journal import CommitmentReport, CommitmentRequest
from hilum.service.records import record_database, tables
from matrices import thinned
from ports import free_port
from service.objects_sent import encoded, simulated
from service.receiving import until
from service.small_node import LEVEL, SmallNode
from service.thresholds import threshold_model
from service.web_peer import WebPeer


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def sending(tmp_path, mr, port):
    """A node whose one answer waits for a peer, and its couriers."""
    node = SmallNode(
        tmp_path / "node",
        threshold_model(tmp_path / "model", LEVEL),
        answers=["seg"],
        peers=[{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, "commit": False}],
        rules=[{"name": "r", "model": "threshold.onnx", "send": ["pacs"]}],
    )
    node.receive(*mr)
    node.work()
    yield node, Couriers(node.settings, node.database)
    node.store.close()
    node.database.close()


def peer(port: int, answer) -> pynetdicom.transport.ThreadedAssociationServer:
    """A peer that gives an answer to each object."""
    entity = pynetdicom.AE("PACS")
    entity.add_supported_context(SegmentationStorage)
    handlers = [(pynetdicom.evt.EVT_C_STORE, answer)]
    return entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)


def state_of(node: SmallNode) -> tuple[str, str | None, str]:
    [row], [job] = node.rows(tables.DELIVERIES), node.rows(tables.JOBS)
    return row.state, row.reason, job.state


def at_once(node: SmallNode) -> None:
    with node.database.write() as connection:
        connection.execute(update(tables.DELIVERIES).values(next_at=0.0))


def test_an_answer_waits_for_a_peer_that_is_away_and_reaches_it_when_it_is_there(sending, port, monkeypatch):
    monkeypatch.setattr("hilum.service.records.delivery_outbox.FIRST_S", 3600.0)
    node, couriers = sending
    assert couriers.deliver("pacs") == 0
    state, reason, job = state_of(node)
    assert (state, job) == ("waiting", "sending")
    assert "refused" in reason
    taken: list[str] = []

    def keep(event):
        taken.append(event.request.AffectedSOPInstanceUID)
        return 0x0000

    server = peer(port, keep)
    try:
        assert couriers.deliver("pacs") == 0  # its time has not come
        at_once(node)
        assert couriers.deliver("pacs") == 1
        assert couriers.deliver("pacs") == 0
    finally:
        server.shutdown()
    assert state_of(node) == ("sent", None, "done")
    assert taken == [row.sop_instance_uid for row in node.rows(tables.ANSWERS) if row.sop_instance_uid]


def test_a_peer_that_goes_away_and_comes_back_is_logged_once_each(sending, port, caplog):
    caplog.set_level("INFO", "hilum")
    node, couriers = sending
    for _ in range(3):
        at_once(node)
        couriers.deliver("pacs")
    server = peer(port, lambda event: 0x0000)
    try:
        at_once(node)
        assert couriers.deliver("pacs") == 1
    finally:
        server.shutdown()
    stated = [record.getMessage() for record in caplog.records if "peer pacs" in record.getMessage()]
    assert len(stated) == 2
    assert "refused" in stated[0] and "answers wait" in stated[0] and stated[1] == "peer pacs takes answers again"


def test_a_courier_outlives_whatever_it_meets(caplog):
    stop, calls = threading.Event(), []

    def step() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise SyntaxError("Doe^Jane")  # as of a peer's answer that is no XML
        stop.set()
        return 1

    _node_threads.repeat_step(step, stop, "a courier", rest_s=0.0, idle_s=0.0, again_s=0.0)
    assert len(calls) == 2
    assert "a courier met an unexpected error: SyntaxError in hilum." in caplog.text


def test_a_peer_that_refuses_for_good_is_not_asked_again(sending, port, caplog):
    node, couriers = sending
    server = peer(port, lambda event: 0xA900)
    try:
        assert couriers.deliver("pacs") == 0
    finally:
        server.shutdown()
    state, reason, job = state_of(node)
    assert (state, job) == ("aside", "done")
    assert "refuses it for good" in reason
    assert "with status A900: it is aside" in caplog.text


def test_an_answer_that_no_peer_has_taken_for_days_is_aside_and_stands_in_the_log(sending, caplog):
    node, couriers = sending
    couriers.deliver("pacs")
    assert "for days" not in caplog.text
    with node.database.write() as connection:
        connection.execute(update(tables.DELIVERIES).values(created_at=0.0, next_at=0.0))
    couriers.deliver("pacs")
    assert (state_of(node)[0], state_of(node)[2]) == ("aside", "done")
    assert "peer pacs has not taken an answer" in caplog.text


@pytest.mark.parametrize("fault", thinned(1, ["full", "stalls", "dies"]))
def test_a_peer_that_is_full_stalls_or_dies_is_tried_again(sending, port, fault):
    node, couriers = sending
    over = threading.Event()
    if fault == "stalls":
        impatient = node.settings.dicom.model_copy(update={"idle_s": 0.5})
        couriers.settings = node.settings.model_copy(update={"dicom": impatient})

    def answer(event):
        if fault == "full":
            return 0xA700
        if fault == "stalls":
            over.wait(60)
        else:
            event.assoc.abort()
        return 0x0000

    server = peer(port, answer)
    try:
        assert couriers.deliver("pacs") == 0
    finally:
        over.set()
        server.shutdown()
    state, reason, job = state_of(node)
    assert (state, job) == ("waiting", "sending")
    assert reason


def test_a_peer_with_dicomweb_gets_its_answers_by_stow(sending, orthanc):
    node, couriers = sending
    pacs = couriers.peers["pacs"]
    couriers.peers["pacs"] = pacs.model_copy(update={"dicomweb": f"{orthanc.url}/nothing-here"})
    assert couriers.deliver("pacs") == 0
    assert "answers with HTTP status 404" in str(state_of(node)[1])
    at_once(node)
    couriers.peers["pacs"] = pacs.model_copy(update={"dicomweb": f"{orthanc.url}/dicom-web"})
    assert couriers.deliver("pacs") == 1
    assert state_of(node) == ("sent", None, "done")
    [there] = orthanc.ask("/instances?expand")
    [uid] = [row.sop_instance_uid for row in node.rows(tables.ANSWERS) if row.sop_instance_uid]
    assert there["MainDicomTags"]["SOPInstanceUID"] == uid


def test_what_is_sent_to_a_peer_loses_its_identity_where_the_settings_say_so(sending, port, monkeypatch):
    monkeypatch.setenv(keyed_names.VARIABLE, "0f" * 32)
    node, couriers = sending
    whole = pydicom.dcmread(node.result())
    couriers.peers["pacs"] = couriers.peers["pacs"].model_copy(update={"deidentify": ["retain-characteristics"]})
    taken: list[pydicom.Dataset] = []

    def keep(event):
        taken.append(event.dataset)
        return 0x0000

    server = peer(port, keep)
    try:
        assert couriers.deliver("pacs") == 1
    finally:
        server.shutdown()
    names, [sent] = keyed_names.read_names(), taken
    assert sent.SOPInstanceUID == names.uid(whole.SOPInstanceUID)
    assert sent.PatientID == names.patient_of_number(str(whole.PatientID), str(whole.get("IssuerOfPatientID", "")))
    assert sent.PatientIdentityRemoved == "YES"
    assert str(whole.PatientName) not in str(sent)
    assert state_of(node)[0] == "sent"
    with WebPeer(200, STORED) as web:
        to = couriers.peers["pacs"].model_copy(update={"dicomweb": web.url})
        [row] = _delivering.send_without_identity([], [node.result()], partial(couriers._send_objects, to))
    assert (row.path, row.instance) == (node.result(), names.uid(whole.SOPInstanceUID))


def test_a_peer_without_identity_needs_a_key_and_options_that_there_are(tmp_path, monkeypatch):
    monkeypatch.delenv(keyed_names.VARIABLE, raising=False)
    listed = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1, "deidentify": ["clean-pixel"]}
    with pytest.raises(UsageError, match=r"deidentify: there is no option clean-pixel"):
        configuration.read_settings(folder=tmp_path, peers=[listed])
    settings = configuration.read_settings(folder=tmp_path, peers=[{**listed, "deidentify": []}])
    with pytest.raises(UsageError, match="there is no key"):
        supervisor.prepare_node(settings)


def test_an_answer_that_is_gone_keeps_no_other_from_a_peer_with_dicomweb(sending):
    node, couriers = sending
    node.result().unlink()
    couriers.peers["pacs"] = couriers.peers["pacs"].model_copy(update={"dicomweb": "http://127.0.0.1:9/dicom-web"})
    assert couriers.deliver("pacs") == 0
    state, reason, job = state_of(node)
    assert (state, job, reason) == ("waiting", "sending", "cannot be read: No such file or directory")


# Of one object, by whatever UID it is known there.
STORED = {"00081199": {"vr": "SQ", "Value": [{}]}}


def to_web(couriers: Couriers, url: str) -> None:
    couriers.peers["pacs"] = couriers.peers["pacs"].model_copy(update={"dicomweb": url})


def test_a_damaged_answer_keeps_no_other_from_a_peer_with_dicomweb(sending):
    node, couriers = sending
    [job], whole = node.rows(tables.JOBS), node.result().read_bytes()
    damaged = {"a-empty.dcm": b"", "a-other.dcm": b"x" * 200, "a-short.dcm": whole[:500]}
    for name, left in damaged.items():
        (node.result().parent / name).write_bytes(left)
        with node.database.write() as connection:
            about = {"kind": "seg", "sop_class": "1.2.3", "sop_instance_uid": "1.2.3.4", "bytes": 1, "sha256": "0" * 64}
            connection.execute(insert(tables.ANSWERS).values(job=job.job, name=name, **about))
            columns = {"job": job.job, "name": name, "peer": "pacs", "state": "waiting"}
            connection.execute(insert(tables.DELIVERIES).values(**columns, next_at=0.0, created_at=0.0))
    with WebPeer(200, STORED) as web:
        to_web(couriers, web.url)
        assert couriers.deliver("pacs") == 1
    states = {row.name: (row.state, row.attempts) for row in node.rows(tables.DELIVERIES)}
    # Made in 1970, they have been tried for long enough.
    assert states == {"answer.dcm": ("sent", 1)} | dict.fromkeys(damaged, ("aside", 1))


def test_a_peer_with_dicomweb_is_signed_in_to_by_the_environment_alone(sending, monkeypatch):
    node, couriers = sending
    for set_to, sent in ((None, None), ("me:se:cret", "Basic bWU6c2U6Y3JldA==")):
        if set_to:
            monkeypatch.setenv("HILUM_CREDENTIALS_PACS", set_to)
        with node.database.write() as connection:
            connection.execute(update(tables.DELIVERIES).values(state="waiting", next_at=0.0))
        with WebPeer(200, STORED) as web:
            to_web(couriers, web.url)
            assert couriers.deliver("pacs") == 1
        assert web.signed_in == [sent]


def failed_sop(reason: int) -> dict[str, Any]:
    """An answer about one object that is not named, as `hilum serve` gives it for one that is too large."""
    return {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [reason]}}]}}


def test_a_peer_with_dicomweb_that_refuses_is_told_from_one_that_does_not_answer(sending):
    node, couriers = sending
    for status, body, reason in (
        (202, failed_sop(0xA700), "status A700"),
        (409, failed_sop(0xA700), "status A700"),
        (202, failed_sop(0), "the peer has not stored it"),
        (409, {}, "answers with HTTP status 409 (Conflict)"),
        (200, {}, "answers with application/dicom+json, which does not say that the object was stored"),
        (401, {}, "answers with HTTP status 401 (Unauthorized)"),
        (503, {}, "answers with HTTP status 503 (Service Unavailable)"),
        (409, failed_sop(0xC000), "the peer refuses it for good: status C000"),
        (413, {}, "the peer refuses it for good: answers with HTTP status 413 (Request Entity Too Large)"),
        (307, {}, "the peer refuses it for good: it redirects to another address: give that one as its dicomweb"),
    ):
        with node.database.write() as connection:
            connection.execute(update(tables.DELIVERIES).values(state="waiting", next_at=0.0))
            connection.execute(update(tables.JOBS).values(state="sending"))
        with WebPeer(status, body) as web:
            to_web(couriers, web.url)
            assert couriers.deliver("pacs") == 0
        for_good = "for good" in reason
        assert state_of(node) == ("aside" if for_good else "waiting", reason, "done" if for_good else "sending")


def test_answers_are_tried_again_later_whatever_sending_them_meets(sending, monkeypatch):
    node, couriers = sending
    monkeypatch.setattr(dicom_sending, "send_files", lambda *given, **named: {}["none"])
    with pytest.raises(HilumError, match="KeyError"):
        couriers.deliver("pacs")
    assert [(row.state, row.attempts, row.lease_until) for row in node.rows(tables.DELIVERIES)] == [
        ("waiting", 1, None)
    ]


def test_answers_to_a_peer_that_is_no_longer_listed_are_given_up_and_the_study_is_done(sending, caplog):
    node, couriers = sending
    assert couriers.give_up() == 0
    assert state_of(node)[0] == "waiting"
    assert Couriers(node.settings.model_copy(update={"peers": []}), node.database).give_up() == 1
    assert state_of(node) == ("aside", "the peer is no longer listed", "done")
    assert "peer pacs is no longer listed: 1 answer for it is aside" in caplog.text
    node.keeper.round()
    assert [(row.state, row.outcome) for row in node.rows(tables.STUDIES)] == [("done", "answered")]


@pytest.mark.parametrize(
    ("stated", "rest_s", "complete", "times"),
    thinned(1, [("2", 0, 0, 2), ("1", 0, 1, 2), ("", 0, 0, 1), ("1", 60, 0, 0)]),
)
def test_a_study_at_rest_is_complete_once_its_sender_says_that_there_is_no_more(
    sending, port, monkeypatch, stated, rest_s, complete, times
):
    monkeypatch.setattr(_courier, "REST_S", rest_s)
    node, couriers = sending
    coming, asked = simulated(study="1.9"), list[str]()

    def counted(event):
        asked.append(event.identifier.StudyInstanceUID)
        answer = pydicom.Dataset()
        answer.NumberOfStudyRelatedInstances = stated
        yield 0xFF00, answer

    with node.store.open_part() as part:
        part.write(encoded(coming))
        node.store.keep(part, "PACS")
    node.keeper.absorb()
    entity = pynetdicom.AE("PACS")
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(pynetdicom.evt.EVT_C_FIND, counted)])
    try:
        first, _ = couriers.count(), couriers.count()
        assert first == complete
    finally:
        server.shutdown()
    # Who says no number is left in peace, and so is who may still be sending.
    assert asked == ["1.9"] * times
    assert [uid for uid, at in ((row.uid, row.last_at) for row in node.rows(tables.STUDIES)) if at == 0] == [
        "1.9"
    ] * complete


def test_a_report_of_commitment_is_believed_of_the_peer_that_was_asked(sending):
    node, couriers = sending
    [uid] = [row.sop_instance_uid for row in node.rows(tables.ANSWERS) if row.sop_instance_uid]
    couriers.hear(CommitmentReport("2.25.1", "ANOTHER", (uid,), (), 0.0))
    assert state_of(node)[0] == "waiting"
    couriers.hear(CommitmentReport("2.25.1", "PACS", (uid,), (), 0.0))
    assert state_of(node)[0] == "committed"


def test_an_answer_that_a_peer_took_and_reports_not_to_keep_is_aside_and_sent_again_by_a_retry(sending, port, caplog):
    node, couriers = sending
    [uid] = [row.sop_instance_uid for row in node.rows(tables.ANSWERS) if row.sop_instance_uid]
    couriers.hear(CommitmentReport("2.25.1", "PACS", (), (uid,), 0.0))
    assert state_of(node)[0] == "waiting"  # it has not been sent: there is nothing that could be lost
    server = peer(port, lambda event: 0x0000)
    try:
        assert couriers.deliver("pacs") == 1
        couriers.hear(CommitmentReport("2.25.1", "PACS", (), (uid,), 0.0))
        state, reason, _ = state_of(node)
        assert (state, reason) == ("aside", "the peer took it, and now reports that it does not keep it")
        assert "peer pacs reports that it does not keep 1 answer that it took, which is aside" in caplog.text
        assert node.worker.jobs.retry(node.rows(tables.JOBS)[0].job)
        node.work()
        assert couriers.deliver("pacs") == 1
    finally:
        server.shutdown()
    assert state_of(node) == ("sent", None, "done")


def test_a_request_for_commitment_outlives_a_database_that_is_away_and_a_file_that_is_gone(sending, mr, monkeypatch):
    node, couriers = sending
    monkeypatch.setattr(_courier, "TRIES", 0)
    reports = []
    monkeypatch.setattr(asking, "report_commitment", lambda us, to, request, safe: reports.append(safe))
    uids = [str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in mr[:2]]
    [gone] = (node.settings.folder / "studies").rglob(f"{object_store.uid_key(uids[0])}.dcm")
    gone.unlink()
    couriers.hear(CommitmentRequest("2.25.2", "PACS", ("1.2", "1.2"), tuple(uids), 0.0))
    with monkeypatch.context() as away:
        away.setattr(couriers.database.reader, "begin", lambda: raised(OperationalError("", {}, Exception("away"))))
        with pytest.raises(ResourceError):
            couriers.vouch()
    assert couriers.vouch() == 1
    assert reports == [frozenset(uids[1:])]
    assert couriers.vouch() == 0


def raised(error: Exception) -> Never:
    raise error


def test_two_nodes_on_one_database_are_refused(database):
    if not database.skips_locked:
        pytest.skip("a database of SQLite lies in the node's folder, which has a lock")
    with (
        record_database.only_keeper(database),
        pytest.raises(UsageError, match="another node"),
        record_database.only_keeper(database),
    ):
        pass
    with record_database.only_keeper(database):
        pass


def lost(database) -> None:
    """Every lock of the database, as when its server is restarted."""
    held = "FROM pg_locks WHERE locktype = 'advisory'"
    with database.read() as connection:
        connection.execute(text(f"SELECT pg_terminate_backend(pid) {held}"))
    until(lambda: _count(database, f"SELECT count(*) {held}") == 0)


def _count(database, question: str) -> int:
    with database.read() as connection:
        return connection.execute(text(question)).scalar_one()


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_keeper_whose_database_was_restarted_takes_its_place_again_or_waits(database):
    with record_database.only_keeper(database) as hold:
        lost(database)
        hold()
        with pytest.raises(UsageError, match="another node"), record_database.only_keeper(database):
            pass
        lost(database)
        with record_database.only_keeper(database), pytest.raises(ResourceError, match="another session"):
            hold()
        hold()


def test_a_second_node_is_refused_before_it_starts_and_changes_no_table(tmp_path, database, postgresql):
    if not database.skips_locked:
        pytest.skip("a database of SQLite lies in the node's folder, which has a lock")
    ports = {name: {"port": 0} for name in ("dicom", "http")}
    settings = configuration.read_settings(folder=tmp_path / "second", database={"url": postgresql}, **ports)
    with record_database.only_keeper(database), pytest.raises(UsageError, match="another node keeps this database"):
        supervisor.prepare_node(settings)


def test_a_worker_waits_until_its_node_has_a_keeper(tmp_path, mr):
    """A keeper that is refused keeps no database: its workers must not take the jobs of the node that does."""
    node = SmallNode(tmp_path / "node", threshold_model(tmp_path / "model", LEVEL))
    node.receive(*mr)
    node.keeper.round()
    folder, stop, waits = node.settings.folder, Stop(), Stop.waits
    (folder / "alive").mkdir()
    node_folder.settings_file(folder, "keeper").write_text(node.settings.model_dump_json())
    (folder / MODELS).write_text(json.dumps({"rows": [asdict(one) for one in node.models.values()]}))
    working = threading.Thread(target=_process._worker, args=(node.settings, "worker-0", stop))
    working.start()
    try:
        until(lambda: waits.count(_process.LOOK_S) > 1 or [row.state for row in node.rows(tables.JOBS)] != ["waiting"])
        assert [row.state for row in node.rows(tables.JOBS)] == ["waiting"]
        (folder / "alive" / "keeper-0").touch()
        until(lambda: [row.state for row in node.rows(tables.JOBS)] == ["done"])
    finally:
        stop.set()
        working.join(60)
        node.store.close()
        node.database.close()


class Stop(threading.Event):
    """A stop that notes for how long it was waited for."""

    waits: ClassVar[list[float | None]] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        return super().wait(timeout)
