"""A command confined to some folders: what a table, a plan or a link leads it to open elsewhere is refused."""

from __future__ import annotations

import errno
import os
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import platformdirs

from isocenter.files.storage import cache

# What programs need of the system; no data of patients lie there.
SYSTEM = ("/proc", "/sys", "/dev", "/usr", "/lib", "/lib64", "/bin", "/opt")
SETTINGS = ("localtime", "mime.types", "ssl", "fonts", "os-release", "resolv.conf", "hosts", "nsswitch.conf")
OPENING = frozenset({"open", "os.listdir", "os.scandir", "sqlite3.connect"})


def confine_to(roots: Sequence[str], room: Path) -> None:
    """From now on this process opens and lists only what lies below the roots, and what Python and the system need.

    room: where temporary files go
    It cannot be undone. Code of others that opens files without Python is not seen.
    """
    tempfile.tempdir = os.environ["TMPDIR"] = str(room)
    allowed = tuple(dict.fromkeys(os.path.realpath(str(one)) for one in (*roots, room, *_needed())))

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in OPENING or not arguments or not isinstance(arguments[0], str | bytes):
            return
        real = os.path.realpath(os.fsdecode(arguments[0]))
        if not any(real == one or real.startswith(f"{one}{os.sep}") for one in allowed):
            reason = "lies outside the folders that are allowed (--root)"
            raise PermissionError(errno.EACCES, reason, os.fsdecode(arguments[0]))

    sys.addaudithook(refuse)


def _needed() -> Iterator[str]:
    yield from SYSTEM
    yield from (f"/etc/{name}" for name in SETTINGS)
    yield from (sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *filter(None, sys.path))
    yield from (str(Path(__file__).parents[2]), str(cache.cache_folder()))
    yield from (platformdirs.user_cache_dir(), platformdirs.user_config_dir())
