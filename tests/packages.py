"""Packages that tests make, and a Python without Isocenter to run them in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from isocenter.runtime import seal

BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "isocenter":
            raise ImportError("isocenter is blocked")
sys.meta_path.insert(0, Blocked())
"""


def without_isocenter(folder: Path, room: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """python with these words, from the folder, where Isocenter cannot be imported."""
    room.mkdir(parents=True, exist_ok=True)
    (room / "sitecustomize.py").write_text(BLOCK)
    own = {**os.environ, "PYTHONPATH": str(room), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, check=False)


def bundle_run(package: Path, images: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """MONAI's own command on the package's folder."""
    words = ("--config_file", "configs/inference.json", "--dataset_dir", images, "--output_dir", out)
    return without_isocenter(package, out.parent / "blocked", "-m", "monai.bundle", "run", *words)


def changed(folder: Path, name: str, **values: object) -> None:
    """A JSON record of a package with other values, and its seal made anew."""
    record = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**record, **values}))
    seal(folder)
