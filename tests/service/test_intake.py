"""Further ways in: a watched folder, and an Orthanc in front."""

from __future__ import annotations

import os
import time

import pytest

from isocenter.errors import ResourceError
from isocenter.service.intake import POSITION, SETTLED_S, Front, WatchedFolder
from isocenter.service.objects import ObjectStore, read_journals
from service.test_work import mr  # noqa: F401 - a fixture


@pytest.fixture
def store(tmp_path):
    made = ObjectStore(tmp_path, "intake")
    yield made
    made.close()


def received(store: ObjectStore) -> list[str]:
    return [line.instance for line in read_journals(store.folder / "inbox", {})[0]]


def test_a_file_of_a_watched_folder_counts_once_it_has_come_to_rest(tmp_path, store, mr):  # noqa: F811
    folder = tmp_path / "incoming" / "deep"
    folder.mkdir(parents=True)
    watched = WatchedFolder(tmp_path / "incoming", store)
    for path in mr:
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "notes.txt").write_text("no DICOM")
    (folder / "link.dcm").symlink_to(mr[0])
    assert watched.look() == 0
    settled = time.time() - SETTLED_S - 1
    for path in folder.iterdir():
        os.utime(path, (settled, settled), follow_symlinks=False)
    assert watched.look() == len(mr)
    assert watched.look() == 0
    assert len(set(received(store))) == len(mr)
    assert sorted(path.name for path in folder.glob("0*.dcm")) == [path.name for path in mr]


def test_series_of_an_orthanc_are_fetched_once_they_have_come_to_rest_there(tmp_path, store, mr, orthanc):  # noqa: F811
    front = Front(orthanc.url, store, tmp_path / POSITION)
    for path in mr:
        orthanc.ask("/instances", path.read_bytes())
    end = time.monotonic() + 30
    while (taken := front.look()) == 0:
        assert time.monotonic() < end, "no series has come to rest"
        time.sleep(0.2)
    assert taken == len(mr)
    assert Front(orthanc.url, store, tmp_path / POSITION).look() == 0  # the position is kept
    assert len(set(received(store))) == len(mr)


def test_an_orthanc_that_does_not_answer_is_named(tmp_path, store):
    with pytest.raises(ResourceError, match="does not answer"):
        Front("http://127.0.0.1:9", store, tmp_path / POSITION).look()
