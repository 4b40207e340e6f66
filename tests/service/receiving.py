"""Receivers and peers that tests of DICOM start and stop."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hilum.service.dicom.dicom_listening import ListenerSettings
from hilum.service.dicom.receiver import Receiver
from hilum.service.objects import journal
from hilum.service.objects.journal import Happened, JournalLine
from hilum.service.records.workitem_records import Workitems


class Node:
    """A receiver in a thread of this process, and its folder."""

    def __init__(self, receiver: Receiver, folder: Path) -> None:
        self.receiver, self.folder, self.port = receiver, folder, receiver.port

    @property
    def lines(self) -> list[JournalLine]:
        """What the keeper would read, but for events of the audit."""
        return [line for line in journal.read_journals(self.folder / "inbox", {})[0] if not isinstance(line, Happened)]

    @property
    def events(self) -> list[Happened]:
        """What the audit would get."""
        return [line for line in journal.read_journals(self.folder / "inbox", {})[0] if isinstance(line, Happened)]

    @property
    def parts(self) -> list[Path]:
        """Objects that are coming, or were left."""
        return list(self.folder.rglob("*.part"))

    def after(self, count: int) -> list[JournalLine]:
        """The lines, as soon as there are so many."""
        return until(lambda: self.lines if len(self.lines) >= count else None)


def until(ask: Any, seconds: float = 60.0) -> Any:
    """The answer, as soon as there is one."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := ask():
            return answer
        time.sleep(0.02)
    raise AssertionError("it did not come")


@contextmanager
def receiving(folder: Path, *, orders: Callable[[], Workitems] | None = None, **settings: Any) -> Iterator[Node]:
    """A receiver on a free port of loopback."""
    stop = threading.Event()
    listening = ListenerSettings(**{"port": 0, "min_free_gb": 0.0, "idle_s": 5.0} | settings)
    receiver = Receiver(listening, folder, orders=orders)
    serving = threading.Thread(target=receiver.serve, args=(stop,))
    serving.start()
    try:
        yield Node(receiver, folder)
    finally:
        stop.set()
        serving.join(40)


@contextmanager
def running(command: list[object], port: int, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program, from when it listens on a port."""
    environment = {**os.environ, "TCP_NODELAY": "1"}
    with subprocess.Popen([str(word) for word in command], env=environment, **options) as process:
        try:
            until(lambda: process.poll() is not None or _listens(port))
            yield process
        finally:
            process.kill()  # a program of the tests has nothing to put away, and Orthanc takes three seconds for that
            process.wait(60)


def dcmtk(program: str) -> str:
    """Where a program of DCMTK lies; pynetdicom brings others of the same names into the folder of Python."""
    ours = str(Path(sys.executable).parent)
    place = shutil.which(program, path=os.pathsep.join(path for path in os.get_exec_path() if path != ours))
    if place is None:
        pytest.skip("DCMTK is not installed")
    return place


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
