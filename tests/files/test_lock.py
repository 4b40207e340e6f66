"""Locks that real processes hold, and die with."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from hilum.errors import UsageError
from hilum.files.storage import atomic, file_lock

HOLD = """
import sys
from pathlib import Path
from hilum.files.storage import file_lock
with file_lock.hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of `path`."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def rewritten(path: Path, **facts: object) -> None:
    """The lock as another holder has left it."""
    lock = lock_of(path)
    lock.write_text(json.dumps({**json.loads(lock.read_text()), **facts}))


def test_what_another_process_writes_is_refused_and_the_process_is_named(tmp_path):
    with holder(tmp_path / "run") as process:
        named = f"process {process.pid} on .* has been writing it since"
        with pytest.raises(UsageError, match=named) as refused, file_lock.hold_lock(tmp_path / "run"):
            pass
        assert "Wait until it ends" in refused.value.remedy
        with file_lock.hold_lock(tmp_path / "another"):
            assert lock_of(tmp_path / "another").is_file()


def test_the_lock_of_a_process_that_was_killed_is_broken(tmp_path):
    with holder(tmp_path / "run") as process:
        process.kill()
        process.wait()
        assert lock_of(tmp_path / "run").is_file()
        with file_lock.hold_lock(tmp_path / "run"):
            pass
    assert not list(tmp_path.iterdir())


def test_a_later_process_with_the_number_of_the_dead_one_does_not_keep_its_lock(tmp_path):
    with holder(tmp_path / "run"):
        rewritten(tmp_path / "run", started=-1e6)
        with file_lock.hold_lock(tmp_path / "run"):
            assert json.loads(lock_of(tmp_path / "run").read_text())["process"] == os.getpid()


def test_of_a_process_on_another_machine_nothing_is_known(tmp_path):
    with holder(tmp_path / "run"):
        rewritten(tmp_path / "run", host="elsewhere", process=2**22 + 1)
        with pytest.raises(UsageError, match="on elsewhere") as refused, file_lock.hold_lock(tmp_path / "run"):
            pass
        assert f"delete {lock_of(tmp_path / 'run')}" in refused.value.remedy


def test_a_lock_that_cannot_be_read_is_broken(tmp_path):
    lock_of(tmp_path / "run").write_bytes(b"")
    with file_lock.hold_lock(tmp_path / "run"):
        pass
    assert not list(tmp_path.iterdir())


def test_of_many_at_once_one_has_the_lock_even_where_a_dead_one_had_it(tmp_path):
    def attempt(_: int) -> bool:
        try:
            with file_lock.hold_lock(tmp_path / "run"):
                inside.append(1)
                exclusive.append(sum(inside) == 1)
                inside.pop()
            return True
        except UsageError:
            return False

    inside: list[int] = []
    exclusive: list[bool] = []
    for _ in range(20):
        lock_of(tmp_path / "run").write_bytes(b"{}")
        with ThreadPoolExecutor(8) as pool:
            assert any(pool.map(attempt, range(8)))
    assert all(exclusive)
    assert not list(tmp_path.iterdir())


def test_folders_made_for_the_lock_alone_go_with_it(tmp_path):
    with file_lock.hold_lock(tmp_path / "a" / "b" / "run"):
        pass
    assert not list(tmp_path.iterdir())
    with file_lock.hold_lock(tmp_path / "a" / "b" / "run"):
        (tmp_path / "a" / "result").write_text("kept")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["result"]


def test_on_a_file_system_without_second_names_of_files_one_process_has_the_lock(tmp_path, monkeypatch):
    """As exFAT and some network drives."""

    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    with file_lock.hold_lock(tmp_path / "run"):
        with pytest.raises(UsageError, match="has been writing it since"), file_lock.hold_lock(tmp_path / "run"):
            pass
        assert lock_of(tmp_path / "run").is_file()
    with file_lock.hold_lock(tmp_path / "run"):
        pass
    assert not list(tmp_path.iterdir())


def test_what_another_process_has_written_meanwhile_is_not_replaced_unasked(tmp_path):
    refused = partial(pytest.raises, UsageError, match="was written by another process")
    with refused(), atomic.write_whole(tmp_path / "file") as late:
        late.write_text("late")
        with atomic.write_whole(tmp_path / "file") as early:
            early.write_text("early")
    assert (tmp_path / "file").read_text() == "early"
    with refused(), atomic.write_whole(tmp_path / "folder") as late:
        late.mkdir()
        with atomic.write_whole(tmp_path / "folder") as early:
            early.mkdir()
            (early / "result").touch()
    assert (tmp_path / "folder" / "result").exists()
