"""Work that ends otherwise than it should, for processes that import it by name."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from hilum.errors import FormatError
from hilum.values import Case, Image


def squared(case: Case) -> int:
    """The square of the case's number, unless it meets its fate."""
    n, fate, folder = case.covariates["n"], case.covariates["fate"], Path(case.covariates["folder"])
    if fate in ("SIGKILL", "SIGSEGV"):
        os.kill(os.getpid(), getattr(signal, fate))
    if fate == "damaged":
        raise FormatError("is damaged", f"{case.id}.nii.gz", "Get it again")
    if fate == "memory":
        raise MemoryError
    if fate == "short" and not (folder / "short").exists():
        (folder / "short").touch()
        raise MemoryError
    if fate == "slow":
        time.sleep(0.05)
    if fate == "defect":
        n / 0
    if fate == "prints":
        sys.stdout.write("a library that chats\n" * 1000)
        os.write(1, b"in C too\n")
    if fate == "once" and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if fate == "waits" and not (folder / f"{case.id}.pid").exists():
        (folder / f"{case.id}.pid").write_text(str(os.getpid()))
        time.sleep(60)
    with (folder / "done").open("a") as file:
        file.write(f"{os.getpid()}\n")
    return n * n


def crashes(name: str) -> Image:
    """An image over which the library that reads it crashes."""
    os.kill(os.getpid(), getattr(signal, name))
    raise AssertionError("unreachable")
