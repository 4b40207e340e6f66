"""Orders of jobs as workitems, over HTTP and over DIMSE: created, done by the node, claimed by others, ended once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pydicom
import pynetdicom
import pytest
from fastapi.testclient import TestClient

from hilum.service.dicom.handed_associations import UPS_PULL
from hilum.service.dimse_statuses import UPS_PUSH
from hilum.service.node_folder import MODELS
from hilum.service.objects import object_store
from hilum.service.records import tables
from hilum.service.records.workitem_records import Workitems
from hilum.service.web import server
from hilum.service.web.web_node import WebNode
from matrices import thinned
from service.receiving import receiving
from service.small_node import LEVEL, SmallNode
from service.thresholds import threshold_model

OURS, THEIRS = "1.2.888.1", "1.2.888.2"  # transactions
RULE = {"name": "bright things", "model": "threshold.onnx"}


def code(meaning: str, value: str = "1") -> pydicom.Dataset:
    made = pydicom.Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = value, "99TEST", meaning
    return made


def order(study: str, *series: str, rule: str = RULE["name"], **changes: object) -> pydicom.Dataset:
    """A workitem that orders a rule on series of a study."""
    made = pydicom.Dataset()
    made.ProcedureStepState, made.ScheduledProcedureStepPriority = "SCHEDULED", "HIGH"
    made.ProcedureStepLabel, made.InputReadinessState = "Détection", "READY"
    made.SpecificCharacterSet = "ISO_IR 100"
    made.ScheduledProcedureStepStartDateTime = "20200101000000"
    made.ScheduledWorkitemCodeSequence = [code(rule)]
    made.PatientName = "Doe^Jane"
    made.InputInformationSequence = []
    for uid in series or [""]:
        item = pydicom.Dataset()
        item.TypeOfInstances, item.StudyInstanceUID = "DICOM", study
        if uid:
            item.SeriesInstanceUID = uid
        made.InputInformationSequence.append(item)
    for keyword, value in changes.items():
        if value is None:
            del made[keyword]
        else:
            setattr(made, keyword, value)
    return made


def stated(**values: str) -> pydicom.Dataset:
    made = pydicom.Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def performed() -> pydicom.Dataset:
    """What a performer has to state before it completes a workitem."""
    made, procedure = pydicom.Dataset(), pydicom.Dataset()
    procedure.PerformedStationNameCodeSequence = [code("station")]
    procedure.PerformedWorkitemCodeSequence = [code("work")]
    procedure.PerformedProcedureStepStartDateTime = procedure.PerformedProcedureStepEndDateTime = "20260101120000"
    made.UnifiedProcedureStepPerformedProcedureSequence = [procedure]
    return made


def small(folder: Path, **rule: object) -> SmallNode:
    model = threshold_model(folder / "model", LEVEL)
    made = SmallNode(folder / "node", model, rules=[{**RULE, **rule}])
    rows = [asdict(one) for one in made.models.values()]
    (folder / "node" / MODELS).write_text(json.dumps({"schema": "hilum.models", "version": 1, "rows": rows}))
    return made


def uids(mr: list[Path]) -> tuple[str, str]:
    """Study and series of the fixture."""
    head = pydicom.dcmread(mr[0], stop_before_pixels=True)
    return head.StudyInstanceUID, head.SeriesInstanceUID


@contextmanager
def associated(node: SmallNode, *classes: str) -> Iterator[pynetdicom.association.Association]:
    """An association of a peer with the node, whose keeper stands still."""
    with receiving(node.settings.folder, orders=lambda: Workitems(node.database, node.rules)) as receiver:
        entity = pynetdicom.AE("RIS")
        for one in classes or (UPS_PUSH, UPS_PULL):
            entity.add_requested_context(one)
        association = entity.associate("127.0.0.1", receiver.port, ae_title="HILUM")
        assert association.is_established
        try:
            yield association
        finally:
            association.release()


def client(node: SmallNode) -> TestClient:
    """The application, without a server."""
    return TestClient(server.web_app(WebNode(node.settings, node.database, node.store)), base_url="http://localhost")


def work(node: SmallNode) -> None:
    """Until nothing is left to do, and the workitems say so."""
    node.work()
    for _ in range(3):
        node.keeper.round()


def created(node: SmallNode, dataset: pydicom.Dataset, uid: str = "1.2.777.1") -> str:
    return Workitems(node.database, node.rules).create(dataset, uid)


def test_an_order_on_a_study_that_is_there_finds_its_job_and_names_the_outputs(tmp_path, mr):
    node = small(tmp_path)
    node.receive(*mr)
    work(node)
    study, series = uids(mr)
    uid = created(node, order(study, series))
    work(node)
    [job], [row] = node.rows(tables.JOBS), node.rows(tables.WORKITEMS)
    assert (row.state, job.attempts) == ("COMPLETED", 1)
    made = Workitems(node.database, node.rules).get(uid)
    assert "TransactionUID" not in made
    assert (made.ProcedureStepLabel, str(made.PatientName)) == ("Détection", "Doe^Jane")
    [done] = made.UnifiedProcedureStepPerformedProcedureSequence
    sent = {one.sop_instance_uid for one in node.rows(tables.ANSWERS) if one.sop_instance_uid}
    named = {
        item.ReferencedSOPInstanceUID for one in done.OutputInformationSequence for item in one.ReferencedSOPSequence
    }
    assert named == sent != set()
    assert {one.StudyInstanceUID for one in done.OutputInformationSequence} == {study}
    assert made.ProcedureStepProgressInformationSequence[0].ProcedureStepProgress == 100


def test_a_rule_for_orders_alone_makes_its_job_when_it_is_ordered_and_in_its_place(tmp_path, mr):
    node = small(tmp_path, only_ordered=True)
    study, series = uids(mr)
    uid = created(node, order(study, series))
    node.keeper.round()
    assert [row.state for row in node.rows(tables.WORKITEMS)] == ["SCHEDULED"]  # the study is still to come
    node.receive(*mr)
    for _ in range(3):
        node.keeper.round()
    [job] = node.rows(tables.JOBS)
    assert (job.state, job.priority) == ("waiting", 1)  # HIGH is urgent
    assert [row.state for row in node.rows(tables.WORKITEMS)] == ["IN PROGRESS"]
    work(node)
    assert Workitems(node.database, node.rules).get(uid).ProcedureStepState == "COMPLETED"
    assert [row.state for row in node.rows(tables.STUDIES)] == ["done"]


def test_a_study_that_nobody_orders_gets_no_job_of_a_rule_for_orders_alone(tmp_path, mr):
    node = small(tmp_path, only_ordered=True)
    node.receive(*mr)
    work(node)
    assert node.rows(tables.JOBS) == []
    created(node, order(uids(mr)[0], "1.2.3.999"))  # another series than that which the rule takes
    work(node)
    [row] = node.rows(tables.WORKITEMS)
    assert (row.state, node.rows(tables.JOBS)) == ("CANCELED", [])


def test_a_cancelled_order_ends_the_job_that_nothing_else_wants(tmp_path, mr):
    node = small(tmp_path, only_ordered=True)
    node.receive(*mr)
    uid = created(node, order(uids(mr)[0]))
    for _ in range(3):
        node.keeper.round()
    web = client(node)
    reason = [stated(ReasonForCancellation="no longer needed").to_json_dict()]
    assert web.post(f"/dicomweb/workitems/{uid}/cancelrequest", json=reason).status_code == 202
    again = web.post(f"/dicomweb/workitems/{uid}/cancelrequest")
    assert again.status_code == 202
    assert "already in the state CANCELED" in again.headers["Warning"]
    assert [row.state for row in node.rows(tables.JOBS)] == ["cancelled"]
    [made] = web.get(f"/dicomweb/workitems/{uid}").json()
    assert made["00741000"]["Value"] == ["CANCELED"]
    assert made["00741002"]["Value"][0]["00741238"]["Value"] == ["no longer needed"]
    created(node, order(uids(mr)[0]), "1.2.777.2")  # ordered anew, it is done
    work(node)
    assert [row.state for row in node.rows(tables.JOBS)] == ["done"]


def test_over_dimse_a_workitem_is_created_found_claimed_changed_and_completed(tmp_path):
    node = small(tmp_path)
    with associated(node) as peer:
        status, _ = peer.send_n_create(order("1.2.1"), UPS_PUSH, "1.2.777.1")
        assert status.Status == 0
        assert peer.send_n_create(order("1.2.1"), UPS_PUSH, "1.2.777.1")[0].Status == 0x0111
        wanted = stated(ProcedureStepState="SCHEDULED", ProcedureStepLabel="")
        wanted.ScheduledWorkitemCodeSequence = [stated(CodeMeaning=RULE["name"])]
        found = [row for answer, row in peer.send_c_find(wanted, UPS_PULL) if answer.Status == 0xFF00]
        assert [(row.SOPInstanceUID, row.ProcedureStepLabel) for row in found] == [("1.2.777.1", "Détection")]
        wanted.ScheduledWorkitemCodeSequence[0].CodeMeaning = "another"
        assert [answer.Status for answer, _ in peer.send_c_find(wanted, UPS_PULL)] == [0]

        def act(action: int = 1, uid: str = "1.2.777.1", **values: str) -> int:
            said = stated(**values) if values else None
            return peer.send_n_action(said, action, UPS_PUSH, uid, meta_uid=UPS_PULL)[0].Status

        def change(dataset: pydicom.Dataset, transaction: str) -> int:
            dataset.TransactionUID = transaction
            return peer.send_n_set(dataset, UPS_PUSH, "1.2.777.1", meta_uid=UPS_PULL)[0].Status

        end = {"ProcedureStepState": "COMPLETED", "TransactionUID": OURS}
        assert act(**end) == 0xC310  # it is not claimed
        assert act(ProcedureStepState="IN PROGRESS", TransactionUID=OURS) == 0
        assert act(ProcedureStepState="IN PROGRESS", TransactionUID=THEIRS) == 0xC302  # claimed twice
        assert act(ProcedureStepState="COMPLETED", TransactionUID=THEIRS) == 0xC301  # finished under a foreign one
        assert act(ProcedureStepState="SCHEDULED", TransactionUID=OURS) == 0xC303
        assert act(**end) == 0xC304  # nothing says what was performed
        assert change(performed(), THEIRS) == 0xC301
        assert act(2) == 0xC312  # cancelling is its performer's
        assert change(performed(), OURS) == 0
        assert act(**end) == 0
        assert act(**end) == 0xB306
        assert change(performed(), OURS) == 0xC300
        assert act(uid="1.2.777.9", **end) == 0xC307
        assert act(3, ReceivingAE="RIS") == 0x0123
        answer, made = peer.send_n_get([0x00741000, 0x00081195], UPS_PUSH, "1.2.777.1")
        assert (answer.Status, made.ProcedureStepState, made.TransactionUID or "") == (0, "COMPLETED", "")


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    thinned(
        3,
        [
            ({"rule": "no such rule"}, 0x0106, "'no such rule', which is no rule of the node"),
            ({"ProcedureStepState": "IN PROGRESS"}, 0xC309, "begins as SCHEDULED"),
            ({"InputInformationSequence": None}, 0x0120, "InputInformationSequence"),
            ({"ProcedureStepLabel": ""}, 0x0121, "ProcedureStepLabel"),
            ({"ScheduledProcedureStepPriority": "STAT"}, 0x0106, "priority is STAT"),
            ({"ScheduledProcedureStepStartDateTime": "19701301"}, 0x0106, "is no time"),
        ],
    ),
)
def test_an_order_that_nobody_could_do_is_refused_with_its_fault(tmp_path, changes, status, words):
    node = small(tmp_path)
    web = client(node)
    dataset = order("1.2.1", **changes)
    answer = web.post("/dicomweb/workitems", json=[dataset.to_json_dict()])
    assert answer.status_code == (409 if status == 0xC309 else 400)
    assert words in answer.json()["problem"]
    assert words in answer.headers["Warning"]
    with pytest.raises(Exception, match=words.strip("'")[:12]) as error:
        created(node, dataset)
    assert error.value.status == status
    assert node.rows(tables.WORKITEMS) == []


def test_over_http_a_workitem_is_created_found_claimed_and_refused_to_others(tmp_path):
    web = client(small(tmp_path))
    answer = web.post("/dicomweb/workitems", params={"workitem": "1.2.777.1"}, json=[order("1.2.1").to_json_dict()])
    assert (answer.status_code, answer.headers["Location"]) == (201, "http://localhost/dicomweb/workitems/1.2.777.1")
    place = "/dicomweb/workitems/1.2.777.1"
    found = web.get("/dicomweb/workitems", params={"ScheduledWorkitemCodeSequence.CodeMeaning": "bright*"}).json()
    assert [row["00080018"]["Value"] for row in found] == [["1.2.777.1"]]
    assert web.get("/dicomweb/workitems", params={"00404018.00080104": "another"}).status_code == 204
    unknown = web.get("/dicomweb/workitems", params={"Nonsense": "1"})
    assert (len(unknown.json()), "ignored: Nonsense" in unknown.headers["Warning"]) == (1, True)

    def claim(transaction: str) -> int:
        body = stated(ProcedureStepState="IN PROGRESS", TransactionUID=transaction)
        return web.put(f"{place}/state", json=[body.to_json_dict()]).status_code

    assert [claim(OURS), claim(THEIRS)] == [200, 409]
    change = [stated(ProcedureStepLabel="b").to_json_dict()]
    assert web.post(place, json=change).status_code == 409
    assert web.post(place, params={"transaction-uid": OURS}, json=change).status_code == 200
    [made] = web.get(place).json()
    assert (made["00741204"]["Value"], "00081195" in made) == (["b"], False)
    assert web.get("/dicomweb/workitems/1.2.777.9").status_code == 404
    assert web.post(place, content=b"{", headers={"Content-Type": "application/dicom+json"}).status_code == 400
    assert web.post(place, content=b"<a/>", headers={"Content-Type": "application/dicom+xml"}).status_code == 415


def test_uids_are_parameters_in_the_words_of_every_edition_and_no_uid_of_another_parameter_is_dropped(tmp_path):
    web, place = client(small(tmp_path)), "/dicomweb/workitems"
    body, change = [order("1.2.1").to_json_dict()], [stated(ProcedureStepLabel="b").to_json_dict()]
    for number, name in enumerate(["workitem", "Workitem", "AffectedSOPInstanceUID", ""], start=1):
        uid = f"1.2.777.{number}"
        answer = web.post(f"{place}?{f'{name}={uid}' if name else uid}", json=body)
        assert (answer.status_code, answer.headers["Location"]) == (201, f"http://localhost{place}/{uid}")
    claim = stated(ProcedureStepState="IN PROGRESS", TransactionUID=OURS)
    assert web.put(f"{place}/1.2.777.1/state?requester=RIS", json=[claim.to_json_dict()]).status_code == 200
    for name in ("transaction-uid", "Transaction-uid", "TransactionUID", "transaction", ""):
        assert web.post(f"{place}/1.2.777.1?{f'{name}={OURS}' if name else OURS}", json=change).status_code == 200
    for asked in (
        web.post(f"{place}?workitm=1.2.777.9", json=body),
        web.post(f"{place}?workitem=x", json=body),
        web.post(f"{place}?workitem=1.2.777.9&1.2.777.8", json=body),
        web.put(f"{place}/1.2.777.2/state?transition=1.2", json=[claim.to_json_dict()]),
    ):
        assert (asked.status_code, "problem" in asked.json()) == (400, True)
    # PS3.18 8.3: what is not supported is as if it were not there.
    assert web.post(f"{place}/1.2.777.1?transaction-uid={OURS}&requester=RIS", json=change).status_code == 200
    assert web.get(f"{place}/1.2.777.2?includefield=all").status_code == 200
    assert len(web.get(place).json()) == 4


def test_a_peer_that_may_not_order_is_offered_no_workitems(tmp_path, monkeypatch):
    node = small(tmp_path)
    monkeypatch.setattr("hilum.service.dicom.dicom_listening.ListenerSettings.permits", lambda *_: frozenset({"store"}))
    entity = pynetdicom.AE("RIS")
    entity.add_requested_context(UPS_PUSH)
    with receiving(node.settings.folder, orders=lambda: Workitems(node.database, node.rules)) as receiver:
        association = entity.associate("127.0.0.1", receiver.port, ae_title="HILUM")
        assert not association.is_established or association.accepted_contexts == []
        association.abort()


def test_the_study_of_an_order_is_known_by_its_key(tmp_path):
    node = small(tmp_path)
    created(node, order("1.2.1", "1.2.1.5"))
    [row] = node.rows(tables.WORKITEMS)
    assert (row.study, row.series) == (object_store.uid_key("1.2.1"), [object_store.uid_key("1.2.1.5")])
