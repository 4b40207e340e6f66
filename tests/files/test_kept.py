"""What is known of files is kept from command to command, and never costs a command its answer."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from hilum.files.storage import hashing, kept
from hilum.files.storage.kept import FILE, FOLDER, Caching, FileIdentity, Store

KEYS = [f"{n:064x}" for n in range(40)]
USED = Caching(is_used=True)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_one_process_has_kept_another_one_reads_from_a_folder_that_nobody_else_can_enter(cache):
    with kept.caching_as(USED):
        kept.keep_text(KEYS[0], "found: größer als 5 µm")
        kept.write_pending()
    assert (cache / FOLDER).stat().st_mode & 0o777 == 0o700
    assert Store(cache / FOLDER / FILE).read(KEYS[0]) == "found: größer als 5 µm"


def test_outside_of_commands_nothing_is_kept(cache, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    hashing.file_hash(tmp_path / "a.txt")
    kept.keep_text(KEYS[0], "x")
    assert kept.kept_text(KEYS[0]) is None
    assert not cache.exists()


def test_no_name_of_a_file_stands_in_it(cache, tmp_path):
    path = tmp_path / "Mustermann_Erika.nii"
    path.write_bytes(b"voxels")
    time.sleep(0.06)
    with kept.caching_as(USED):
        assert hashing.file_hash(path) == hashing.file_hash(path)
        kept.write_pending()
        assert kept.kept_text(kept.file_key(path)) is not None
    assert b"Mustermann" not in (cache / FOLDER / FILE).read_bytes()


def test_a_file_that_was_written_a_moment_ago_is_hashed_again(tmp_path):
    """Two changes within a tick of the clock leave equal times."""
    path = tmp_path / "a.nii"
    path.write_bytes(b"one")
    assert not FileIdentity.of(path).is_settled
    with kept.caching_as(USED):
        hashing.file_hash(path)
        assert kept.kept_text(kept.file_key(path)) is None


def test_commands_that_write_at_once_lose_nothing(cache):
    path = cache / FOLDER / FILE

    def command(number: int) -> None:
        store = Store(path)
        for place, key in enumerate(KEYS):
            if place % 2 == number:
                store.write(key, key)
                store.flush()

    commands = [threading.Thread(target=command, args=(number,)) for number in range(2)]
    for one in commands:
        one.start()
    for one in commands:
        one.join()
    assert [Store(path).read(key) for key in KEYS] == KEYS


def test_what_was_not_used_longest_goes_first_when_it_is_full(cache):
    path = cache / FOLDER / FILE
    store = Store(path, limit=20 * 300)
    for key in KEYS:
        store.write(key, key)
        store.flush()
        time.sleep(0.001)
    size = sum(row[0] for row in sqlite3.connect(path).execute("SELECT bytes FROM entries"))
    assert 0.5 * store.limit < size <= store.limit
    there = [Store(path).read(key) is not None for key in KEYS]
    assert there == sorted(there)
    assert there[-1]


def kept_by_sql(cache: Path, *statements: str) -> None:
    """Keep an entry, then change the file by hand."""
    store = Store(cache / FOLDER / FILE)
    store.write(KEYS[0], "found")
    store.flush()
    with sqlite3.connect(cache / FOLDER / FILE) as connection:
        for one in statements:
            connection.execute(one)


def test_a_damaged_entry_is_none_and_is_replaced(cache, caplog):
    caplog.set_level(logging.INFO)
    kept_by_sql(cache, "UPDATE entries SET content = x'00ff'")
    store = Store(cache / FOLDER / FILE)
    assert store.read(KEYS[0]) is None
    assert "damaged entry" in caplog.text
    store.write(KEYS[0], "found again")
    assert store.read(KEYS[0]) == "found again"


def test_a_cache_of_another_version_is_made_anew(cache, caplog):
    caplog.set_level(logging.INFO)
    kept_by_sql(cache, "PRAGMA user_version = 99", "ALTER TABLE entries RENAME COLUMN content TO other")
    store = Store(cache / FOLDER / FILE)
    assert store.read(KEYS[0]) is None
    assert "of version 99, and not 1" in caplog.text
    store.write(KEYS[0], "found again")
    store.flush()
    assert Store(cache / FOLDER / FILE).read(KEYS[0]) == "found again"


@pytest.mark.parametrize("place", [0, 100, 4096, 8192])
def test_a_damaged_file_is_made_anew(cache, place):
    kept_by_sql(cache)
    with (cache / FOLDER / FILE).open("r+b") as file:
        file.seek(place)
        file.write(b"\xff" * 2000)
    for attempt in range(2):
        store = Store(cache / FOLDER / FILE)
        assert store.read(KEYS[0]) in (None, "found again")  # never another text
        store.write(KEYS[0], "found again")
        store.flush()
        assert attempt == 0 or Store(cache / FOLDER / FILE).read(KEYS[0]) == "found again"


def test_a_cache_that_cannot_be_written_is_said_once_and_then_left(cache, caplog):
    cache.write_text("a file stands where the folder would be")
    with kept.caching_as(USED):
        for key in KEYS:
            kept.keep_text(key, key)
            kept.write_pending()
            assert kept.kept_text(key) is None
    assert caplog.text.count("cannot be kept") == 1


def test_an_emptied_cache_is_filled_again_by_who_had_it_open(cache):
    store = Store(cache / FOLDER / FILE)
    store.write(KEYS[0], "found")
    store.flush()
    store.path.unlink()
    store.write(KEYS[1], "more")
    store.flush()
    assert [Store(store.path).read(key) for key in KEYS[:2]] == [None, "more"]
