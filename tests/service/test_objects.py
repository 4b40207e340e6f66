"""Objects are kept whole under names that are hashes, or refused; each is written down before anybody is told."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.errors import FormatError
from hilum.service.node_folder import LOG, JsonLines
from hilum.service.objects import journal as objects_journal
from hilum.service.objects import object_store
from hilum.service.objects.journal import CommitmentReport, Received
from hilum.service.objects.object_store import ObjectStore, OutOfSpaceError
from service.objects_sent import data_set, encoded, simulated
from service.receiving import receiving
from service.talking import RELEASE, Talk, object_sent

# Writes one object and its line, then half of the next, and waits to be killed.
WRITER = """
import sys, time
from pathlib import Path
from hilum.service.objects.object_store import ObjectStore
store = ObjectStore(Path(sys.argv[1]), "receiver")
data = Path(sys.argv[2]).read_bytes()
with store.open_part() as part:
    part.write(data)
    store.keep(part, "SCANNER")
with store.open_part() as part:
    part.write(data[:100])
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def store(tmp_path):
    made = ObjectStore(tmp_path, "receiver")
    yield made
    made.close()


def kept(store, data, peer="SCANNER"):
    with store.open_part() as part:
        part.write(data)
        return store.keep(part, peer)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.dcm"))


@pytest.mark.parametrize("sync", ["object", "association", "commit"])
def test_an_object_lies_under_the_hashes_of_its_uids_byte_for_byte(tmp_path, sync):
    store, data = ObjectStore(tmp_path, "receiver", sync=sync), encoded(simulated())
    received = kept(store, data)
    # sha256("1.2"), sha256("1.2.3"), sha256("1.2.3.4"), by coreutils
    names = (subprocess.run(["sha256sum"], input=uid, capture_output=True, check=True).stdout[:32].decode()
             for uid in (b"1.2", b"1.2.3", b"1.2.3.4"))  # fmt: skip
    study, series, instance = names
    assert received.path == f"studies/{study[:2]}/{study}/{series}/{instance}.dcm"
    assert (tmp_path / received.path).read_bytes() == data
    assert (received.study, received.series, received.instance, received.bytes) == (
        "1.2",
        "1.2.3",
        "1.2.3.4",
        len(data),
    )
    object_store.secure_files(tmp_path, [received.path])
    store.close()


def test_what_is_kept_is_written_down_and_no_part_file_stays(store, tmp_path):
    received = kept(store, encoded(simulated()))
    assert objects_journal.read_journals(tmp_path / "inbox", {})[0] == [received]
    assert list(tmp_path.rglob("*.part")) == []


def test_a_journal_is_read_from_where_it_was_read_to(store, tmp_path):
    kept(store, encoded(simulated()))
    _, read = objects_journal.read_journals(tmp_path / "inbox", {})
    second = kept(store, encoded(simulated("1.2.3.5")))
    assert objects_journal.read_journals(tmp_path / "inbox", read)[0] == [second]


def test_the_same_object_once_more_changes_nothing_whoever_wrote_its_group_2(store, tmp_path):
    dataset = simulated()
    first = kept(store, encoded(dataset))
    dataset.file_meta.SourceApplicationEntityTitle = "ANOTHER"
    again = kept(store, encoded(dataset), "ANOTHER")
    assert again.path == first.path and len(files(tmp_path)) == 1


def test_another_object_with_the_same_uid_goes_aside_and_the_first_stays(store, tmp_path):
    data = encoded(simulated())
    first = kept(store, data)
    others = [kept(store, encoded(simulated(Rows=rows))) for rows in (4, 2)]
    assert (tmp_path / first.path).read_bytes() == data
    assert [other.path for other in others] == ["aside/1/object.dcm", "aside/2/object.dcm"]
    assert all(other.is_aside for other in others) and not first.is_aside
    reason = (tmp_path / "aside/1/reason.json").read_text()
    assert json.loads(reason)["first"] == first.path
    assert "secret" not in reason and "Doe" not in reason


def test_the_same_other_bytes_lie_aside_once_whoever_sends_them_again(store, tmp_path):
    first, other = simulated(), simulated(Rows=4)
    kept(store, encoded(first))
    places = [kept(store, encoded(other)).path]
    other.file_meta.SourceApplicationEntityTitle = "ANOTHER"
    second = ObjectStore(tmp_path, "web")
    places += [kept(one, encoded(other)).path for one in (store, second, store)]
    second.close()
    assert set(places) == {"aside/1/object.dcm"}
    object_store.exchange_aside(tmp_path, object_store.read_asides(tmp_path)[0])  # by a person
    assert kept(store, encoded(first)).path == "aside/1/object.dcm"
    assert [aside.number for aside in object_store.read_asides(tmp_path)] == [1]


@pytest.mark.parametrize(
    ("sync", "before", "after"), [("object", True, True), ("association", False, True), ("commit", False, False)]
)
def test_what_is_said_to_survive_a_power_cut_was_waited_for(tmp_path, waited_for, sync, before, after):
    """before: the answer to the object; after: the end of the association."""
    data = object_sent(data_set(encoded(simulated())), "1.2.3.4")
    with receiving(tmp_path, sync=sync) as node, Talk(node.port) as talk:
        talk.associate()
        talk.say(data)
        assert talk.status() == 0
        [path] = tmp_path.glob("studies/*/*/*/*.dcm")
        assert ({path, path.parent} <= waited_for) is before
        talk.say(RELEASE)
        talk.hear()
        assert ({path, path.parent} <= waited_for) is after


def test_a_file_that_a_power_cut_has_emptied_gives_way_to_the_object_sent_again(store, tmp_path):
    data = encoded(simulated())
    path = tmp_path / kept(store, data).path
    path.write_bytes(b"")
    assert tmp_path / kept(store, data).path == path
    assert path.read_bytes() == data


@pytest.mark.parametrize("uid", ["../../../etc/passwd", "/etc/passwd", "", "1.2\n3", "1" * 65])
def test_an_object_whose_uid_is_none_is_refused_and_leaves_nothing(store, tmp_path, uid):
    dataset = simulated()
    with pytest.warns(UserWarning) if uid else pytest.MonkeyPatch.context():
        dataset.StudyInstanceUID = uid
        data = encoded(dataset)
    with pytest.raises(FormatError, match="StudyInstanceUID"):
        kept(store, data)
    assert files(tmp_path) == [] and list(tmp_path.rglob("*.part")) == []


@given(cut=st.integers(0, 400), change=st.tuples(st.integers(0, 600), st.integers(0, 255)))
def test_a_damaged_object_is_kept_as_it_is_or_refused(tmp_path_factory, cut, change):
    data = bytearray(encoded(simulated()))
    data[change[0]] = change[1]
    store = ObjectStore(tmp_path_factory.mktemp("node"), "receiver")
    whole = bytes(data[: len(data) - cut])
    try:
        received = kept(store, whole)
    except FormatError:
        assert files(store.folder) == []
    else:
        assert (store.folder / received.path).read_bytes() == whole
    store.close()


def test_less_space_than_is_to_stay_free_is_a_refusal(tmp_path):
    store = ObjectStore(tmp_path, "receiver", min_free_gb=1e9)
    with pytest.raises(OutOfSpaceError, match="full"):
        store.open_part()


def test_a_killed_writer_leaves_its_objects_and_lines_and_its_part_file_is_removed(tmp_path):
    source = tmp_path / "source.dcm"
    source.write_bytes(encoded(simulated()))
    node = tmp_path / "node"
    with subprocess.Popen([sys.executable, "-c", WRITER, node, source], stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"ready\n"
        [received], read = objects_journal.read_journals(node / "inbox", {})
        assert objects_journal.forget_journals(node / "inbox", read) == 0  # it lives
        writer.send_signal(signal.SIGKILL)
    assert (node / received.path).read_bytes() == source.read_bytes()
    assert objects_journal.forget_journals(node / "inbox", {}) == 0  # not before its lines are read
    assert objects_journal.forget_journals(node / "inbox", read) == 1
    assert list((node / "inbox").iterdir()) == []


def test_half_a_line_is_no_line_and_keeps_nobody_from_forgetting_a_dead_writer(tmp_path):
    store = ObjectStore(tmp_path, "receiver")
    received = kept(store, encoded(simulated()))
    [journal] = tmp_path.glob("inbox/*/journal-*")
    with journal.open("ab") as file:
        file.write(b'{"kind": "Received", "stu')
    lines, read = objects_journal.read_journals(tmp_path / "inbox", {})
    assert lines == [received]
    assert objects_journal.read_journals(tmp_path / "inbox", read) == ([], read)
    store.close()
    assert objects_journal.forget_journals(tmp_path / "inbox", read) == 1


def test_a_long_journal_is_followed_by_another_and_then_forgotten(store, tmp_path, monkeypatch):
    monkeypatch.setattr("hilum.service.objects.journal.LARGEST", 200)
    every = [kept(store, encoded(simulated(f"1.2.3.{n}"))) for n in range(4)]
    lines, read = objects_journal.read_journals(tmp_path / "inbox", {})
    assert lines == every
    objects_journal.forget_journals(tmp_path / "inbox", read)
    assert len(list(tmp_path.glob("inbox/*/journal-*"))) == 1
    last = kept(store, encoded(simulated("1.2.3.9")))
    assert objects_journal.read_journals(tmp_path / "inbox", read)[0] == [last]


def test_lines_of_every_kind_come_back_as_they_were(store, tmp_path):
    report = CommitmentReport("1.2", "PACS", ("1.2.3",), (), 12.5)
    store.journal.append(report)
    assert objects_journal.read_journals(tmp_path / "inbox", {})[0] == [report]


def test_files_that_no_row_knows_are_found(store, tmp_path):
    known, lost = (kept(store, encoded(simulated(f"1.2.3.{n}"))) for n in range(2))
    [found] = object_store.files_without_row(tmp_path, {known.path}.__contains__)
    assert isinstance(found, Received) and found.way == "found"
    assert (found.path, found.instance, found.bytes) == (lost.path, lost.instance, lost.bytes)


def test_an_emptied_file_that_no_row_knows_goes_aside(store, tmp_path):
    path = tmp_path / kept(store, encoded(simulated())).path
    path.write_bytes(b"")
    assert list(object_store.files_without_row(tmp_path, lambda name: False)) == []
    assert not path.exists() and (tmp_path / "aside/1/reason.json").exists()


def test_the_process_that_receives_imports_neither_torch_nor_a_database_nor_a_table():
    code = """
import sys, hilum.service._process
from hilum import service
from hilum.service.dicom import dicom_listening, receiver
dicom_listening.listener_settings, receiver.Receiver
print({"torch", "sqlalchemy", "pydicom", "pynetdicom", "pandas"} & set(sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_log_on_a_full_disk_ends_nothing(tmp_path):
    (tmp_path / LOG).symlink_to("/dev/full")
    handler = JsonLines(tmp_path, "receiver-0")
    assert handler.handle(logging.makeLogRecord({"msg": "refused an object"}))
    handler.close()
