"""The audit: rows written with what they report, sealed in order, and every change of them found."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import subprocess
import threading
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from lxml import etree
from sqlalchemy import select, text

import hilum
from hilum.errors import IntegrityError, ResourceError, UsageError
from hilum.service import configuration
from hilum.service._node_threads import AuditSealing
from hilum.service.configuration import AuditSection
from hilum.service.dicom.dicom_listening import DicomPeer
from hilum.service.exchange import atna
from hilum.service.exchange.atna import EVENTS
from hilum.service.node_folder import SETTINGS
from hilum.service.objects import object_store
from hilum.service.objects.journal import Happened
from hilum.service.records import audit_records, tables
from hilum.service.records.accounts import Accounts
from hilum.service.records.actor import Actor
from hilum.service.records.audit_records import FIRST, AuditVerdict
from service.atna_schema import schema
from service.databases import with_tables
from service.objects_sent import data_set, encoded, simulated
from service.people import PASSWORD
from service.receiving import receiving, until
from service.talking import Talk, object_sent
from service.web_served import served

EVE = Actor("eve", "radiologist", "10.0.0.7")
WORDS = 'für "alle" \ud800\0\x1b[2J'


def recorded(database, count: int) -> None:
    with database.write() as connection:
        for number in range(count):
            audit_records.record_event(
                connection, "view", f"{number:032x}", actor=EVE, detail={"n": number / 7, "words": WORDS}
            )


def checked(database) -> AuditVerdict:
    return audit_records.verify_events(
        ((event, audit_records.canonical_text(event)) for event in audit_records.sealed_events(database)),
        audit_records.last_sealed_head(database).hash,
    )


def rows(database) -> list[Any]:
    with database.read() as connection:
        return connection.execute(select(tables.AUDIT).order_by(tables.AUDIT.c.event)).all()


@pytest.fixture
def folder(tmp_path):
    """The folder of a node with 40 sealed events."""
    settings = configuration.read_settings(None, [], tmp_path / "node")
    settings.folder.mkdir()
    (settings.folder / SETTINGS).write_text(settings.model_dump_json(), encoding="utf-8")
    database = with_tables(settings.database_url)
    recorded(database, 40)
    audit_records.seal_events(database, "north")
    database.close()
    return settings.folder


def test_rows_are_sealed_in_order_each_with_the_hash_of_the_one_before(database):
    recorded(database, 3)
    assert list(audit_records.sealed_events(database)) == [] and audit_records.unsealed_count(database) == 3
    assert audit_records.seal_events(database, "north") == 3 and audit_records.seal_events(database, "north") == 0
    recorded(database, 1)
    assert audit_records.seal_events(database, "north") == 1
    events = list(audit_records.sealed_events(database))
    assert [event["sequence"] for event in events] == [1, 2, 3, 4]
    assert [event["previous"] for event in events] == [FIRST, *(event["hash"] for event in events[:3])]
    stated = {(event["node"], event["actor"], event["role"], event["address"]) for event in events}
    assert stated == {("north", "eve", "radiologist", "10.0.0.7")}
    assert checked(database).events == 4


def test_a_hash_is_that_of_the_row_as_json_so_that_others_can_check_it(database):
    recorded(database, 1)
    audit_records.seal_events(database, "north")
    [event] = audit_records.sealed_events(database)
    stated = {name: value for name, value in event.items() if name != "hash"}
    words = json.dumps(stated, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert event["hash"] == hashlib.sha256(words.encode()).hexdigest() and "für" in words


def test_an_event_is_there_exactly_if_what_it_reports_is(database):
    with pytest.raises(RuntimeError), database.write() as connection:
        audit_records.record_event(connection, "view", "a" * 32)
        raise RuntimeError
    assert audit_records.unsealed_count(database) == 0


def test_two_that_seal_at_once_give_no_number_twice(database):
    recorded(database, 300)

    def sealed() -> None:
        with suppress(hilum.HilumError):
            audit_records.seal_events(database, "north")

    threads = [threading.Thread(target=sealed) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert checked(database).events == 300


def test_any_byte_that_changes_and_any_line_that_goes_moves_or_comes_twice_is_found(folder, tmp_path):
    file = tmp_path / "audit.jsonl"
    assert hilum.export_audit(folder, out=file) == 40
    last = hilum.verify_audit(file)
    assert (last.events, last.head) == (40, hilum.verify_audit(folder).head)
    lines, chance = file.read_bytes().splitlines(keepends=True), np.random.default_rng(5)
    for number in range(120):
        changed, at = list(lines), int(chance.integers(40))
        match number % 4:
            case 0:
                line = bytearray(changed[at])
                place = int(chance.integers(len(line)))
                line[place] = (line[place] + int(chance.integers(1, 256))) % 256
                changed[at] = bytes(line)
            case 1:
                del changed[at]
            case 2:
                changed.insert(at, changed[at])
            case _:
                other = (at + int(chance.integers(1, 40))) % 40
                changed[at], changed[other] = changed[other], changed[at]
        file.write_bytes(b"".join(changed))
        with pytest.raises(IntegrityError, match=r"^.*: event \d+ "):
            hilum.verify_audit(file, head=last.head)


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ("UPDATE audit SET actor = 'bob' WHERE sequence = 7", 7),
        ("UPDATE audit SET at = at + 60 WHERE sequence = 7", 7),
        ("UPDATE audit SET detail = '{}' WHERE sequence = 7", 7),
        ("DELETE FROM audit WHERE sequence = 7", 7),
        ("UPDATE audit SET sequence = sequence + 1 WHERE sequence = 40", 40),
        ("DELETE FROM audit WHERE sequence > 30", 31),
    ],
)
def test_a_change_within_the_database_is_named_by_the_first_sequence_that_is_wrong(cli, folder, change, first):
    known = hilum.verify_audit(folder).head
    database = with_tables(configuration.read_settings(None, [], folder).database_url)
    with database.write() as connection:
        connection.execute(text(change))
    database.close()
    done = cli("audit", "verify", folder, "--head", known)
    assert done.code == 1 and f"event {first} " in done.err


def test_verify_and_export_say_what_they_found_and_refuse_what_is_no_audit(cli, folder, tmp_path):
    done = cli("audit", "verify", folder)
    assert done.code == 0 and done.out.startswith("40 events are as they were recorded; the hash of the last is ")
    assert json.loads(cli("audit", "verify", folder, "--json").out)["events"] == 40
    out = tmp_path / "audit.xml"
    assert cli("audit", "export", folder, "--out", out, "--format", "atna").out == f"40 events in {out}\n"
    assert cli("audit", "export", folder, "--out", out, "--format", "atna").code == 2
    for wrong in (out.parent, tmp_path / "none"):
        assert cli("audit", "verify", wrong).code == 2
    with pytest.raises(UsageError, match="there is no format"):
        hilum.export_audit(folder, out=tmp_path / "x", format="csv")


def test_every_event_is_a_message_of_the_schema_and_names_the_patient_by_the_pseudonym(database):
    with database.write() as connection:
        for action in (*EVENTS, "job retried", "workitem created"):
            stated = {"patient": "0123456789abcdef", "detail": {"study": "a" * 32, "peer": "pacs", "words": WORDS}}
            audit_records.record_event(connection, action, "a" * 32, actor=EVE, **stated)
            audit_records.record_event(
                connection, action, "[node]", outcome="refused", detail={"old": {"<b>": [1]}, "reason": "<no>"}
            )
    audit_records.seal_events(database, "north")
    for event in audit_records.sealed_events(database):
        line = atna.atna_message(event)
        message = etree.fromstring(line)
        assert "\n" not in line and schema().validate(message), schema().error_log
        patients = message.xpath("//ParticipantObjectIdentification[@ParticipantObjectTypeCodeRole='1']")
        assert [one.get("ParticipantObjectID") for one in patients] == [event["patient"]][: bool(event["patient"])]
        for value in message.xpath("//ParticipantObjectDetail/@value"):
            base64.b64decode(value, validate=True)


def test_a_line_of_a_receiver_that_is_read_twice_is_one_event(database):
    lines = [Happened(f"{n:032x}", "association", "HILUM", "CT1", "10.0.0.9", 5.0 + n) for n in range(3)]
    audit_records.record_lines(database, lines[:2])
    audit_records.record_lines(database, lines)
    assert [(row.actor, row.at, row.outcome) for row in rows(database)] == [
        ("CT1", 5.0 + n, "success") for n in range(3)
    ]


def test_settings_that_change_are_an_event_with_their_old_and_new_values(database):
    assert audit_records.record_settings(database, {"node": {"name": "a"}, "queue": {"workers": 1}}) == [
        "node",
        "queue",
    ]
    assert audit_records.record_settings(database, {"node": {"name": "a"}, "queue": {"workers": 2}}) == ["queue"]
    last = rows(database)[-1]
    assert (last.action, last.object) == ("configuration", "[queue]")
    assert last.detail == {"old": {"workers": 1}, "new": {"workers": 2}}
    assert audit_records.record_settings(database, {"node": {"name": "a"}, "queue": {"workers": 2}}) == []


def test_whoever_logs_in_or_cannot_and_what_becomes_of_accounts_and_tokens_is_an_event(database):
    people, first = Accounts(database), Actor("administrator", "administrator", "10.0.0.1")
    people.first(PASSWORD)
    assert not people.is_password("administrator", "wrong", "10.0.0.9")
    assert people.is_password("administrator", PASSWORD, "10.0.0.1")
    secret = people.enter("administrator", address="10.0.0.1")
    people.make("eve", "viewer", PASSWORD, who=first)
    people.change("eve", role="radiologist", who=first)
    key, token = people.make_token("ris", "service", 9e9, first)
    assert people.end_token(key, who=first)
    people.leave(secret, who=first)
    found = [(row.actor, row.address, row.action, row.object, row.outcome) for row in rows(database)]
    assert found == [
        ("node", "", "configuration", "account administrator", "success"),
        ("administrator", "10.0.0.9", "login", "account administrator", "failure"),
        ("administrator", "10.0.0.1", "login", "account administrator", "success"),
        *2 * [("administrator", "10.0.0.1", "configuration", "account eve", "success")],
        *2 * [("administrator", "10.0.0.1", "configuration", "token ris", "success")],
        ("administrator", "10.0.0.1", "logout", "account administrator", "success"),
    ]
    assert rows(database)[4].detail["old"] == {"role": "viewer", "ended": False}
    written = "".join(audit_records.canonical_text(dict(row._mapping)) for row in rows(database))
    assert not any(one in written for one in (PASSWORD, secret, token))


def test_the_head_goes_to_syslog_in_a_frame_of_rfc_6587(folder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = configuration.read_settings(None, [], folder)
        to = AuditSection(syslog=f"127.0.0.1:{server.getsockname()[1]}")
        database = with_tables(settings.database_url)
        taken: list[bytes] = []

        def take() -> None:
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(4096):
                    taken.append(data)

        taking = threading.Thread(target=take)
        taking.start()
        AuditSealing(settings.model_copy(update={"audit": to}), database).state_head()
        taking.join(10)
    length, _, message = b"".join(taken).partition(b" ")
    assert int(length) == len(message) and message.startswith(b"<110>1 ")
    assert json.loads(message.partition(b" AUDIT-HEAD - ")[2])["hash"] == audit_records.last_sealed_head(database).hash
    database.close()


def test_what_happens_until_the_keeper_ends_is_sealed_by_then(database, tmp_path):
    stop, sealing = threading.Event(), AuditSealing(configuration.read_settings(None, [], tmp_path / "node"), database)
    recorded(database, 1)
    sealing.start(stop)
    assert audit_records.unsealed_count(database) == 0  # what an earlier keeper has left
    recorded(database, 1)
    until(lambda: audit_records.unsealed_count(database) == 0, 2)
    stop.set()
    recorded(database, 1)
    sealing.finish(0)
    assert audit_records.unsealed_count(database) == 0


def test_on_a_full_disk_a_study_that_the_audit_cannot_note_is_not_shown(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        with served(disk / "node") as web:
            web.store(encoded(simulated(study="1.2.7")))
            assert web.client.get("/dicomweb/studies").status_code == 200
            with suppress(OSError), (disk / "rest").open("wb", buffering=0) as rest:
                while True:
                    rest.write(bytes(4096))
            looked = web.client.get("/dicomweb/studies/1.2.7/metadata")
            assert looked.status_code == 503 and "full" in looked.json()["problem"]
            with pytest.raises(ResourceError, match="full"):
                audit_records.seal_events(web.database, "north")
            (disk / "rest").unlink()
            assert web.client.get("/dicomweb/studies/1.2.7/metadata").status_code == 200
            assert [row.action for row in rows(web.database)] == ["query", "view"]
            assert audit_records.seal_events(web.database, "north") == 2
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_an_association_is_an_event_and_so_is_what_its_peer_may_not(tmp_path):
    peer = DicomPeer("pacs", "PACS", "127.0.0.1", 104, may=frozenset({"commit"}))
    with receiving(tmp_path, host="0.0.0.0", peers=(peer,)) as node:  # noqa: S104
        with Talk(node.port) as talk:
            talk.associate(calling="STRANGER")
        with Talk(node.port) as talk:
            talk.associate(calling="PACS")
            for _ in range(2):
                talk.say(object_sent(data_set(encoded(simulated())), "1.2.3.4"))
                assert talk.status() == 0x0124
        found = [(one.account, one.action, one.thing, one.outcome) for one in node.events]
        assert {one.address for one in node.events} == {"127.0.0.1"}
    assert found == [
        ("STRANGER", "association", "HILUM", "refused"),
        ("PACS", "association", "HILUM", "success"),
        ("PACS", "refusal", "store", "refused"),
    ]


def test_what_a_request_does_is_an_event_without_identity(tmp_path):
    with served(tmp_path / "node") as web:
        web.store(encoded(simulated("1.2.3", study="1.2.7")))
        web.complete("1.2.7", {"PatientID": "4711"}, modality="MR")
        before = len(rows(web.database))
        for _ in range(3):
            web.client.get("/dicomweb/studies/1.2.7/metadata")
        web.client.get("/dicomweb/studies", params={"PatientName": "Doe^Jane"})
        web.client.get("/dicomweb/studies/1.2.7")
        web.client.post("/api/studies/1.2.7/reroute")
        web.client.get("/api/jobs", headers={"Host": "elsewhere"})
        found = rows(web.database)[before:]
        assert [row.action for row in found] == ["view", "query", "export", "study rerouted", "refusal"]
        assert found[0].object == object_store.uid_key("1.2.7") and found[-1].outcome == "refused"
        assert {row.address for row in found} == {"127.0.0.1"}
        assert not any(
            word in audit_records.canonical_text(dict(row._mapping))
            for row in found
            for word in ("Doe", "4711", "1.2.7")
        )
        audit_records.seal_events(web.database, "north")
        page = web.client.get("/api/audit", params={"limit": 2}).json()["rows"]
        assert [row["action"] for row in page] == ["refusal", "study rerouted"]
        older = web.client.get("/api/audit", params={"after": page[-1]["sequence"], "action": "view"}).json()["rows"]
        assert [row["action"] for row in older] == ["view"]
        assert rows(web.database)[-1].action == "audit read"

        def actions(**wanted):
            return {row["action"] for row in web.client.get("/api/audit", params=wanted).json()["rows"]}

        assert "refusal" in actions() and actions(study="1.2.7") >= {"view", "export", "study rerouted"}
        assert "refusal" not in actions(study="1.2.7") and actions(study="1.2.8") == set()
        assert actions(patient="nobody") == set()
        assert (
            actions(until="2026-01-01T00:00:00Z") == set() and actions(since="2026-01-01T00:00:00+02:00") == actions()
        )
        assert web.client.get("/api/audit", params={"since": "2026-01-01T00:00:00"}).status_code == 422
