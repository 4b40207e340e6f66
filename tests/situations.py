"""Situations that users reported: each writes its own input, from a folder beside the real data."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from unittest.mock import patch

import pytest


def situation(data: Path, name: str, folder: Path) -> Path:
    """The input of a situation, written into a folder."""
    script = data / "cases" / name / "make.py"
    if not script.is_file():
        pytest.skip(f"the situation {name} is not there")
    with patch.object(sys, "argv", [str(script), str(folder)]):
        runpy.run_path(str(script))
    return folder / "set"
