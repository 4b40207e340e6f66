"""Further ways in: a watched folder, and an Orthanc in front."""

from __future__ import annotations

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pydicom
import pytest

from hilum.errors import ResourceError
from hilum.service import _intake, configuration
from hilum.service._intake import POSITION, OrthancFront, WatchedFolder
from hilum.service.objects import journal
from hilum.service.objects.object_store import ObjectStore
from service.objects_sent import encoded, simulated
from service.receiving import until
from service.web_served import RELATED, related


@pytest.fixture
def store(tmp_path):
    made = ObjectStore(tmp_path, "intake")
    yield made
    made.close()


def received(store: ObjectStore) -> list[str]:
    return [line.instance for line in journal.read_journals(store.folder / "inbox", {})[0]]


def test_a_file_of_a_watched_folder_counts_once_it_has_come_to_rest(tmp_path, store, mr, monkeypatch):
    folder = tmp_path / "incoming" / "deep"
    folder.mkdir(parents=True)
    watched = WatchedFolder(tmp_path / "incoming", store)
    for path in mr:
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "notes.txt").write_text("no DICOM")
    (folder / "link.dcm").symlink_to(mr[0])
    os.utime(folder / mr[0].name, (2e9, 2e9))  # by a clock that is ahead
    assert watched.look() == 0
    assert watched.look() == 0  # five seconds have not passed
    monkeypatch.setattr(_intake, "SETTLED_S", 0.0)
    with (folder / mr[1].name).open("ab") as file:
        file.write(b"\0\0")
    (folder / mr[2].name).unlink()
    assert watched.look() == len(mr) - 2
    (folder / mr[1].name).write_bytes(mr[1].read_bytes())
    assert watched.look() == 0
    assert watched.look() == 1
    assert watched.look() == 0
    (folder / mr[2].name).write_bytes(mr[2].read_bytes())
    assert [watched.look() for _ in range(3)] == [0, 1, 0]
    assert set(watched.seen) == {path for path in folder.iterdir() if not path.is_symlink()}
    assert len(set(received(store))) == len(mr)
    assert sorted(path.name for path in folder.glob("0*.dcm")) == [path.name for path in mr]


def test_a_file_that_is_gone_before_it_is_read_keeps_no_other_from_being_taken(tmp_path, store, mr, monkeypatch):
    monkeypatch.setattr(_intake, "SETTLED_S", 0.0)
    folder = tmp_path / "incoming"
    folder.mkdir()
    for path in mr[:2]:
        (folder / path.name).write_bytes(path.read_bytes())
    watched = WatchedFolder(folder, store)
    assert watched.look() == 0
    open_part = store.open_part
    monkeypatch.setattr(store, "open_part", lambda: ((folder / mr[0].name).unlink(missing_ok=True), open_part())[1])
    assert watched.look() == 1
    assert list((tmp_path / "inbox").rglob("*.part")) == []


def test_series_of_an_orthanc_are_fetched_once_they_have_come_to_rest_there(tmp_path, store, mr, orthanc):
    for dataset in (*map(pydicom.dcmread, mr), simulated()):
        dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
        orthanc.ask("/instances", encoded(dataset))
    until(lambda: {one["ID"] for one in orthanc.ask("/series?expand")} <= stable(orthanc))
    changes = OrthancFront(orthanc.url, store, tmp_path / "before.json")._changes()
    _, first = next(changes)
    for one in orthanc.ask("/series?expand"):  # the other one is gone before it is fetched
        if one["MainDicomTags"]["SeriesInstanceUID"] != first:
            orthanc.ask(f"/series/{one['ID']}", method="DELETE")
    assert list(changes) == []
    there = {one["MainDicomTags"]["SOPInstanceUID"] for one in orthanc.ask("/instances?expand")}
    assert OrthancFront(orthanc.url, store, tmp_path / POSITION).look() == len(there)
    assert OrthancFront(orthanc.url, store, tmp_path / POSITION).look() == 0  # the position is kept
    (tmp_path / POSITION).write_text('{"last": 1000000}')  # of an Orthanc whose database was made anew since
    assert OrthancFront(orthanc.url, store, tmp_path / POSITION).look() == len(there)
    assert set(received(store)) == there
    assert {line.syntax for line in journal.read_journals(tmp_path / "inbox", {})[0]} == {pydicom.uid.RLELossless}


def stable(orthanc) -> set[str]:
    """Series that have come to rest there."""
    changes = orthanc.ask("/changes?limit=1000")["Changes"]
    return {one["ID"] for one in changes if one["ChangeType"] == "StableSeries"}


def test_a_node_takes_in_what_its_settings_name(tmp_path, mr, monkeypatch, orthanc):
    monkeypatch.setattr(_intake, "SETTLED_S", 0.0)
    monkeypatch.setattr(_intake, "LOOK_S", 0.02)
    orthanc.ask("/instances", encoded(simulated()))
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / "first.dcm").write_bytes(mr[0].read_bytes())
    (tmp_path / "node.toml").write_text(
        f'[node]\nmin_free_gb = 0\n[watch]\nfolder = "incoming"\n[front]\northanc = "{orthanc.url}"\n'
    )
    settings, stop = configuration.read_settings(tmp_path / "node.toml"), threading.Event()
    threads = _intake.start_intake(settings, stop)

    def ways() -> set[str]:
        return {line.way for line in journal.read_journals(settings.folder / "inbox", {})[0]}

    until(lambda: ways() == {"watch", "front"})
    stop.set()
    for thread in threads:
        thread.join(60)
    assert _intake.start_intake(settings.model_copy(update={"watch": None, "front": None}), stop) == []


class Odd(BaseHTTPRequestHandler):
    """An Orthanc with one series, of which one object is not DICOM."""

    def log_message(self, *_) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        changes = [] if "since=1" in self.path else [{"Seq": 1, "ChangeType": "StableSeries", "ID": "x"}]
        answers = {
            "/changes": {"Changes": changes, "Done": True},
            "/series/x": {"ParentStudy": "y", "MainDicomTags": {"SeriesInstanceUID": "1.2.3"}},
            "/studies/y": {"MainDicomTags": {"StudyInstanceUID": "1.2"}},
        }
        stated = answers.get(self.path.partition("?")[0])
        body = related(b"no DICOM", encoded(simulated())) if stated is None else json.dumps(stated).encode()
        self.send_response(200)
        self.send_header("Content-Type", RELATED["Content-Type"] if stated is None else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_an_object_of_an_orthanc_that_is_not_dicom_holds_up_no_other(tmp_path, store, caplog):
    with ThreadingHTTPServer(("127.0.0.1", 0), Odd) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        front = OrthancFront(f"http://127.0.0.1:{server.server_port}", store, tmp_path / POSITION)
        assert [front.look(), front.look()] == [1, 0]
        server.shutdown()
    [line] = journal.read_journals(tmp_path / "inbox", {})[0]
    assert (tmp_path / line.path).read_bytes() == encoded(simulated())
    assert "cannot be kept" in caplog.text
    assert list((tmp_path / "inbox").rglob("*.part")) == []


def test_a_way_in_outlives_whatever_it_meets(tmp_path, monkeypatch, caplog):
    looks = iter([NotImplementedError("Doe^Jane"), OSError(5, "Input/output error"), 0])
    stop = threading.Event()

    def look(self: OrthancFront) -> int:
        match next(looks):
            case Exception() as error:
                raise error
            case count:
                stop.set()
                return count

    monkeypatch.setattr(OrthancFront, "look", look)
    monkeypatch.setattr(_intake, "LOOK_S", 0.0)
    monkeypatch.setattr(_intake, "AGAIN_S", 0.0)
    settings = configuration.read_settings(None, [], tmp_path / "node", front={"orthanc": "http://127.0.0.1:9"})
    [thread] = _intake.start_intake(settings, stop)
    assert stop.wait(60)
    thread.join(60)
    unexpected, expected = [record.getMessage() for record in caplog.records]
    assert unexpected.startswith("intake met an unexpected error: ") and expected == "intake: Input/output error"


def test_an_orthanc_that_does_not_answer_is_named(tmp_path, store):
    with pytest.raises(ResourceError, match="does not answer"):
        OrthancFront("http://127.0.0.1:9", store, tmp_path / POSITION).look()
