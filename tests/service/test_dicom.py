"""Peers send to the receiver: what they send lies there byte for byte, and they hear the truth about it."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pynetdicom
import pytest
from pydicom import dcmread

import real_data
from hilum.errors import FormatError, UsageError
from hilum.files.dicom import object_identity
from hilum.service.dicom import asking, messages, pynetdicom_events, sending
from hilum.service.dicom.dicom_listening import DicomPeer, ListenerSettings, OutgoingTls, TlsPort
from hilum.service.dicom.messages import EXPLICIT, IMPLICIT
from hilum.service.dicom.receiver import Receiver
from hilum.service.dicom.sending import PeerError
from hilum.service.objects import journal
from hilum.service.objects.journal import CommitmentRequest, Received
from ports import free_port
from service.objects_sent import data_set, encoded, simulated
from service.receiving import dcmtk, receiving, running, until
from service.talking import CAPTURE, ECHO, RELEASE, VERIFICATION, Talk, command, object_sent

ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}
REJECTED, ACCEPTED, RELEASED, ABORTED = 3, 2, 6, 7
# A receiver as a process of its own, which SIGTERM ends.
PROCESS = """
import signal, sys, threading
from pathlib import Path
from hilum.service.dicom.dicom_listening import ListenerSettings
from hilum.service.dicom.receiver import Receiver
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
Receiver(ListenerSettings(port=int(sys.argv[2]), min_free_gb=0, idle_s=5), Path(sys.argv[1])).serve(stop)
print({'torch', 'sqlalchemy', 'pynetdicom'} & set(sys.modules))
"""


def sent_by_dcmtk(program, *words):
    line = [dcmtk(program), *map(str, words)]
    return subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)


def objects_in(folder):
    """What the keeper would read of objects."""
    return [line for line in journal.read_journals(folder / "inbox", {})[0] if isinstance(line, Received)]


def at(port):
    return DicomPeer("node", "HILUM", "127.0.0.1", port)


@pytest.fixture
def node(tmp_path):
    with receiving(tmp_path / "node") as made:
        yield made


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "object.dcm"
    path.write_bytes(encoded(simulated()))
    return path


def test_dcmtk_is_answered_and_what_it_stores_lies_there_byte_for_byte(node, source):
    assert sent_by_dcmtk("echoscu", "127.0.0.1", node.port).returncode == 0
    assert sent_by_dcmtk("storescu", "-aet", "SCANNER", "127.0.0.1", node.port, source).returncode == 0
    [received] = node.lines
    assert (received.peer, received.way, received.instance) == ("SCANNER", "store", "1.2.3.4")
    assert data_set((node.folder / received.path).read_bytes()) == data_set(source.read_bytes())
    assert node.parts == []


@pytest.mark.parametrize(("folder", "fewest"), real_data.facts(shipped=(170, 11), corpus=(251, 11)))
def test_every_real_object_that_states_its_uids_is_stored_byte_for_byte_in_its_own_syntax(
    node, folder, fewest, tmp_path
):
    sources, syntaxes = {}, set()
    for path in sorted(path for path in (folder / "dicom").rglob("*") if path.is_file()):
        with suppress(FormatError):
            known = object_identity.read_identity(path)
            if known.offset and known.instance not in sources:  # no head, no syntax that could be agreed on
                head = messages.file_head(known.sop_class.encode(), known.instance.encode(), known.syntax)
                sources[known.instance] = tmp_path / f"{len(sources)}.dcm"
                sources[known.instance].write_bytes(head + path.read_bytes()[known.offset :])
                syntaxes.add(known.syntax)
    rows = sending.send_files("SENDER", at(node.port), list(sources.values()))
    assert [row for row in rows if not row.is_stored] == []
    fewest_objects, fewest_syntaxes = fewest
    assert len(rows) >= fewest_objects
    assert len(syntaxes) >= fewest_syntaxes
    for line in node.lines:
        assert data_set((node.folder / line.path).read_bytes()) == data_set(sources[line.instance].read_bytes())


def test_a_private_class_in_a_private_syntax_is_stored(node):
    private = "1.3.12.2.1107.5.9.1"
    dataset = encoded(simulated(SOPClassUID=private))
    with Talk(node.port) as talk:
        assert talk.associate(contexts=[(private, "1.2.840.113619.5.2.1")]) == ACCEPTED
        talk.say(object_sent(data_set(dataset), "1.2.3.4", sop_class=private))
        assert talk.status() == 0
    [received] = node.lines
    assert (received.sop_class, received.syntax) == (private, "1.2.840.113619.5.2.1")


def test_an_object_is_kept_before_its_success_is_said_and_an_echo_between_objects_is_answered(node):
    with Talk(node.port) as talk:
        talk.associate()
        for number in range(3):
            talk.say(object_sent(data_set(encoded(simulated(f"1.2.3.{number}"))), f"1.2.3.{number}"))
            assert talk.status() == 0
            assert len(node.lines) == number + 1
            talk.say(ECHO)
            assert talk.status() == 0
        talk.say(RELEASE)
        assert talk.hear()[0] == RELEASED


def test_an_object_whose_uid_another_has_is_kept_aside_and_its_sender_is_warned(node, tmp_path):
    for number, patient in enumerate(("first", "other")):
        (tmp_path / f"{number}.dcm").write_bytes(encoded(simulated(PatientID=patient)))
    first, other = rows = sending.send_files("SENDER", at(node.port), [tmp_path / "0.dcm", tmp_path / "1.dcm"])
    assert all(row.is_stored for row in rows)
    assert (first.status, other.status) == (0x0000, 0xB000)
    assert "another object has this UID" in other.problem
    assert [line.is_aside for line in node.lines] == [False, True]


def test_an_object_that_is_cut_leaves_nothing(node):
    with Talk(node.port) as talk:
        talk.associate()
        talk.say(object_sent(data_set(encoded(simulated())), "1.2.3.4")[:-20])
        until(lambda: node.parts)
    until(lambda: not node.parts)
    assert node.lines == []


@pytest.mark.parametrize(
    ("instance", "because"), [("1.2.3.5", b"another instance"), ("1" * 66, b"no UIDs"), ("", b"no UIDs")]
)
def test_an_object_that_is_not_what_was_announced_is_refused_with_its_reason_and_the_next_is_taken(
    node, instance, because
):
    data = data_set(encoded(simulated()))
    with Talk(node.port) as talk:
        talk.associate()
        talk.say(object_sent(data, instance))
        kind, body = talk.hear()
        assert kind == 4 and b"\x00\x00\x00\x09\x02\x00\x00\x00\x00\xc0" in body and because in body
        talk.say(object_sent(data, "1.2.3.4"))
        assert talk.status() == 0
    assert len(node.lines) == 1
    until(lambda: not node.parts)


def test_an_object_that_is_too_large_is_out_of_resources_and_the_next_is_taken(tmp_path):
    with receiving(tmp_path, max_object_mb=1) as node, Talk(node.port) as talk:
        talk.associate()
        talk.say(object_sent(bytes(3_000_000), "1.2.3.4"))
        assert talk.status() == 0xA700
        talk.say(object_sent(data_set(encoded(simulated())), "1.2.3.4"))
        assert talk.status() == 0
        assert len(node.lines) == 1
        until(lambda: not node.parts)


def test_a_command_that_is_not_served_is_answered_so(node):
    with Talk(node.port) as talk:
        talk.associate()
        talk.say(command(0x20, sop_class=CAPTURE, has_data=False))
        assert talk.status() == 0x0211


def test_less_space_than_is_to_stay_free_rejects_who_would_store_and_not_who_asks_for_an_echo(tmp_path):
    with receiving(tmp_path, min_free_gb=1e9) as node:
        with Talk(node.port) as talk:
            assert talk.associate() == REJECTED
        sending.send_echo("TEST", at(node.port))


def test_a_full_disk_is_out_of_resources_and_the_receiver_lives(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        with receiving(disk) as node, Talk(node.port) as talk:
            talk.associate()
            talk.say(object_sent(bytes(2_000_000), "1.2.3.9"))
            assert talk.status() == 0xA700
            talk.say(object_sent(data_set(encoded(simulated())), "1.2.3.4"))
            assert talk.status() == 0
            assert len(node.lines) == 1
        until(lambda: not node.parts)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_folder_that_cannot_be_written_is_out_of_resources_and_stands_in_the_log(tmp_path, caplog):
    """As on a disk that went read-only: else senders are cut off, and the node says nothing."""
    with receiving(tmp_path) as node, Talk(node.port) as talk:
        talk.associate()
        (tmp_path / "studies").write_text("in the way")
        talk.say(object_sent(data_set(encoded(simulated())), "1.2.3.4"))
        assert talk.status() == 0xA700
        (tmp_path / "studies").unlink()
        talk.say(object_sent(data_set(encoded(simulated())), "1.2.3.4"))
        assert talk.status() == 0
    assert "status A700: the node cannot write (Not a directory)" in caplog.text


def test_one_association_more_than_is_allowed_is_rejected_until_another_has_ended(tmp_path):
    with receiving(tmp_path, max_associations=2) as node:
        with Talk(node.port) as first, Talk(node.port) as second, Talk(node.port) as third:
            assert (first.associate(), second.associate()) == (ACCEPTED, ACCEPTED)
            assert third.associate() == REJECTED
        until(lambda: not node.receiver._served)
        with Talk(node.port) as talk:
            assert talk.associate() == ACCEPTED


def test_where_others_can_reach_it_only_listed_peers_store(tmp_path):
    peers = (
        DicomPeer("scanner", "SCANNER", "127.0.0.1", 104, frozenset({"store"})),
        DicomPeer("elsewhere", "ELSEWHERE", "192.0.2.1", 104, frozenset({"store"})),
        DicomPeer("silent", "SILENT", "127.0.0.1", 104),
    )
    outcomes = {}
    with receiving(tmp_path, host="0.0.0.0", peers=peers) as node:  # noqa: S104
        for title in ("SCANNER", "ELSEWHERE", "SILENT", "STRANGER"):
            with Talk(node.port) as talk:
                outcomes[title] = talk.associate(calling=title)
        with Talk(node.port) as talk:
            assert talk.associate(calling="SCANNER", called="ANOTHER") == REJECTED
    assert outcomes == {"SCANNER": ACCEPTED, "ELSEWHERE": REJECTED, "SILENT": REJECTED, "STRANGER": REJECTED}


def test_no_host_is_taken_for_this_machine_alone_because_nobody_knows_its_address():
    """A socket on an empty host listens on every address."""
    peers = (DicomPeer("scanner", "SCANNER", "192.0.2.1", 104, frozenset({"store"})),)
    for host in ("", "*", "no.such.host.invalid"):
        assert ListenerSettings(host=host, peers=peers).permits("STRANGER", "192.0.2.9") == frozenset()
    mapped = ListenerSettings(host="::", peers=peers)
    assert mapped.permits("SCANNER", "::ffff:192.0.2.1") == mapped.permits("SCANNER", "192.0.2.1") == {"store"}
    assert mapped.permits("SCANNER", "::ffff:192.0.2.9") == frozenset()


@pytest.mark.parametrize(
    ("may", "contexts", "status"),
    [
        ({"commit"}, [(CAPTURE, EXPLICIT)], 0x0124),
        ({"commit"}, [(VERIFICATION, EXPLICIT)], 0x0124),
        ({"store", "commit"}, [(VERIFICATION, EXPLICIT)], 0x0122),
        ({"store"}, [(VERIFICATION, EXPLICIT), (CAPTURE, EXPLICIT)], 0x0122),
        ({"store"}, [(CAPTURE, EXPLICIT)], 0x0000),
    ],
)
def test_only_who_may_store_can_and_only_in_a_context_of_storage(tmp_path, may, contexts, status):
    peer = DicomPeer("pacs", "TEST", "127.0.0.1", 104, may=frozenset(may))
    with receiving(tmp_path, host="0.0.0.0", peers=(peer,)) as node, Talk(node.port) as talk:  # noqa: S104
        assert talk.associate(contexts=contexts) == ACCEPTED
        talk.say(object_sent(data_set(encoded(simulated())), "1.2.3.4"))
        assert talk.status() == status
        assert len(node.lines) == len(list(tmp_path.rglob("*.dcm"))) == (status == 0)
        until(lambda: node.parts == [])


def test_a_process_that_is_asked_to_end_receives_what_is_coming_and_ends_well(tmp_path):
    port, sent = free_port(), object_sent(data_set(encoded(simulated())), "1.2.3.4")
    program = [sys.executable, "-c", PROCESS, tmp_path / "node", port]
    with running(program, port, stdout=subprocess.PIPE) as process, Talk(port) as idle, Talk(port) as talk:
        assert (idle.associate(), talk.associate()) == (ACCEPTED, ACCEPTED)
        talk.say(sent[:-10])
        until(lambda: list(tmp_path.rglob("*.part")))
        process.send_signal(signal.SIGTERM)
        assert idle.hear()[0] == ABORTED
        talk.say(sent[-10:])
        assert talk.status() == 0
        assert talk.hear()[0] == ABORTED
        assert process.wait(60) == 0
        assert process.stdout.read() == b"set()\n"  # what it has not needed it has not loaded
    assert len(objects_in(tmp_path / "node")) == 1


def test_what_was_a_success_outlives_a_killed_process(tmp_path):
    port = free_port()
    with running([sys.executable, "-c", PROCESS, tmp_path / "node", port], port) as process, Talk(port) as talk:
        talk.associate()
        talk.say(object_sent(data_set(encoded(simulated())), "1.2.3.4"))
        assert talk.status() == 0
        process.kill()
    [received] = objects_in(tmp_path / "node")
    assert data_set((tmp_path / "node" / received.path).read_bytes()) == data_set(encoded(simulated()))


def test_two_receivers_share_a_port_and_a_folder(tmp_path):
    with receiving(tmp_path) as first, receiving(tmp_path, port=first.port):
        for number in range(12):
            with Talk(first.port) as talk:
                talk.associate()
                talk.say(object_sent(data_set(encoded(simulated(f"1.2.3.{number}"))), f"1.2.3.{number}"))
                assert talk.status() == 0
        assert {line.instance for line in first.lines} == {f"1.2.3.{number}" for number in range(12)}


def test_a_port_that_another_program_has_is_refused(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UsageError, match="cannot listen"):
            Receiver(ListenerSettings(port=other.getsockname()[1]), tmp_path)


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    """A certificate and its key; tests only read them."""
    folder = tmp_path_factory.mktemp("certified")
    key, certificate = folder / "node.key", folder / "node.pem"
    subject = ["-subj", "/CN=localhost", "-days", "2", "-nodes", "-newkey", "rsa:2048"]
    made = ["openssl", "req", "-x509", *subject, "-keyout", key, "-out", certificate]
    subprocess.run(made, check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def tls(certified):
    certificate, key = certified
    return TlsPort(free_port(), certificate, key, clients=certificate)


def test_objects_come_under_tls_too_and_a_stranger_without_a_certificate_is_turned_away(tmp_path, source, tls, caplog):
    with receiving(tmp_path / "node", tls=tls) as node:
        words = ("storescu", "-aet", "SCANNER", "+cf", tls.certificate)
        assert sent_by_dcmtk(*words, "+tls", tls.key, tls.certificate, "127.0.0.1", tls.port, source).returncode == 0
        assert sent_by_dcmtk(*words, "+tla", "127.0.0.1", tls.port, source).returncode != 0
        until(lambda: "no TLS with 127.0.0.1: " in caplog.text)
        assert [line.instance for line in node.lines] == ["1.2.3.4"]


def test_associations_that_we_open_are_under_tls_where_the_peer_asks_for_it(tmp_path, source, tls):
    peer = DicomPeer("node", "HILUM", "localhost", tls.port, tls=OutgoingTls(tls.certificate, tls.certificate, tls.key))
    with receiving(tmp_path / "node", tls=tls) as node:
        sending.send_echo("SCANNER", peer)
        [sent] = sending.send_files("SCANNER", peer, [source])
        assert sent.status == 0
        assert [line.instance for line in node.lines] == ["1.2.3.4"]


def test_a_peer_whose_certificate_another_authority_signed_is_not_spoken_to(tmp_path, tls):
    other = tmp_path / "other.pem"
    made = ["openssl", "req", "-x509", "-subj", "/CN=localhost", "-nodes", "-newkey", "rsa:2048"]
    subprocess.run([*made, "-keyout", tmp_path / "other.key", "-out", other], check=True, capture_output=True)
    peer = DicomPeer("node", "HILUM", "localhost", tls.port, tls=OutgoingTls(other, tls.certificate, tls.key))
    with receiving(tmp_path / "node", tls=tls), pytest.raises(PeerError, match="cannot be reached"):
        sending.send_echo("SCANNER", peer)


def test_commitment_is_asked_for_under_tls(tmp_path, tls):
    request = CommitmentRequest("1.2.9", "PACS", (CAPTURE,), ("1.2.3.4",), 0.0)
    peers = (DicomPeer("pacs", "PACS", "127.0.0.1", 104, frozenset({"store", "commit"})),)
    peer = DicomPeer("node", "HILUM", "localhost", tls.port, tls=OutgoingTls(tls.certificate, tls.certificate, tls.key))
    with receiving(tmp_path / "node", peers=peers, tls=tls) as node:
        assert asking.request_commitment("PACS", peer, request) is None
        [line] = node.after(1)
    assert line.transaction == "1.2.9"


@pytest.mark.parametrize("missing", ["no file", "no certificate"])
def test_files_that_are_no_certificates_are_refused_by_name(tmp_path, missing):
    place = tmp_path / "authorities.pem"
    if missing == "no certificate":
        place.write_text("hello")
    with pytest.raises(UsageError, match=r"authorities\.pem: no TLS"):
        _ = OutgoingTls(place).context


def test_a_request_for_commitment_is_written_down_where_the_peer_may_ask(tmp_path):
    request = CommitmentRequest("1.2.9", "PACS", (CAPTURE,), ("1.2.3.4",), 0.0)
    peers = (DicomPeer("pacs", "PACS", "127.0.0.1", 104, frozenset({"store", "commit"})),)
    with receiving(tmp_path, peers=peers) as node:
        assert asking.request_commitment("PACS", at(node.port), request) is None
        [line] = node.after(1)
    assert (line.transaction, line.peer, line.instances) == ("1.2.9", "PACS", ("1.2.3.4",))


@pytest.mark.parametrize("is_secured", [False, True])
def test_an_association_for_more_than_storage_stores_as_well(tmp_path, source, tls, is_secured):
    peers = (DicomPeer("pacs", "PACS", "127.0.0.1", 104, frozenset({"store", "commit"})),)
    context = ssl.create_default_context(cafile=tls.certificate)
    context.load_cert_chain(tls.certificate, tls.key)
    with receiving(tmp_path / "node", peers=peers, tls=tls) as node:
        entity = pynetdicom.AE("PACS")
        for uid in ("1.2.840.10008.1.20.1", CAPTURE):
            entity.add_requested_context(uid)
        port, secured = (tls.port, (context, "localhost")) if is_secured else (node.port, None)
        association = entity.associate("127.0.0.1", port, ae_title="HILUM", tls_args=secured)
        assert association.send_c_store(dcmread(source)).Status == 0
        association.release()
        [line] = node.lines
        assert (line.instance, line.peer) == ("1.2.3.4", "PACS")
        assert node.parts == [] and list(node.folder.glob("inbox/*/tmp*")) == []


def test_an_object_that_is_cut_on_an_association_for_more_leaves_nothing_for_long(tmp_path):
    contexts = [(CAPTURE, EXPLICIT), ("1.2.840.10008.1.20.1", IMPLICIT)]
    sent = object_sent(data_set(encoded(simulated())), "1.2.3.4")

    def left() -> list[Path]:
        return list(node.folder.glob("inbox/*/tmp*"))

    with receiving(tmp_path) as node:
        for _ in range(2):
            before = set(left())
            with Talk(node.port) as talk:
                assert talk.associate(contexts=contexts) == ACCEPTED
                talk.say(sent[:-20])
                until(lambda seen=before: set(left()) - seen)
            until(lambda: not node.receiver._served)
            [path] = left()  # that of the first is gone at the end of the second
            os.utime(path, (0, 0))  # as if it had been silent for longer than it may
        pynetdicom_events.sweep_inbox(node.receiver.store.journal.folder, 5.0)
        assert left() == [] and node.lines == []


def test_the_log_names_nobody(node, caplog):
    with Talk(node.port) as talk:
        talk.associate()
        talk.say(object_sent(data_set(encoded(simulated())), "1.2.3.5"))
        talk.status()
        talk.say(b"\xff" * 100)
        talk.hear()
    until(lambda: not node.receiver._served)
    assert "C000" in caplog.text and "127.0.0.1" in caplog.text
    assert not any(word in caplog.text for word in ("Doe", "secret", "1.2.3"))
