"""Programs of PostgreSQL on this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

SERVER_PROGRAMS = Path("/usr/lib/postgresql")  # where Debian has them, a folder for each version


def program_path(name: str) -> str | None:
    """The path of a program of PostgreSQL; None where it is not installed."""
    places = [str(one) for one in sorted(SERVER_PROGRAMS.glob("*/bin"), reverse=True)]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(places))
