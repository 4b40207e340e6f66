"""Build a wheel, install it without the checkout in a fresh environment, and run `hilum --help` and a demo there.

`python tests/wheel.py` ends with 1 where the wheel cannot be built or installed, where it lacks a file of the source,
or where a command fails. The environment lies in a temporary folder, takes 7 GB of disk, and is removed at the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
MINUTES = 0.6
LONGEST_S = 3600


def missing(wheel: Path) -> list[str]:
    """Files of the source that the wheel lacks: code, lists, schemas, pages, scripts."""
    own = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*") if path.is_file()}
    packed = set(zipfile.ZipFile(wheel).namelist())
    return sorted(name for name in own - packed if not name.endswith(".pyc"))


def ran(command: list[str | Path], folder: Path) -> str:
    """Standard output of a command in this folder, which sees nothing of the checkout."""
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        command, cwd=folder, env=clean, stdout=subprocess.PIPE, text=True, timeout=LONGEST_S, check=True
    )
    return done.stdout


def main() -> int:
    """Build, compare, install and run; 1 with a line where a step fails."""
    with tempfile.TemporaryDirectory(prefix="hilum-wheel-") as name:
        folder = Path(name)
        work, environment = folder / "work", folder / "environment"
        work.mkdir()
        try:
            ran([sys.executable, "-m", "build", "--outdir", folder / "dist", ROOT], work)
            [wheel] = (folder / "dist").glob("*.whl")
            if lacking := missing(wheel):
                sys.stdout.write(f"the wheel lacks {', '.join(lacking)}\n")
                return 1
            ran([sys.executable, "-m", "venv", environment], work)
            pip = [environment / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
            ran([*pip, "--constraint", ROOT / "constraints.txt", wheel], work)
            program = environment / "bin" / "hilum"
            ran([program, "--help"], work)
            report = ran([program, "demo", "--minutes", str(MINUTES)], work).splitlines()[-1]
        except subprocess.CalledProcessError as error:
            sys.stdout.write(f"{error}\n{error.stdout}\n")
            return 1
        whole = Path(report).is_file()
        sys.stdout.write(f"{wheel.name}: demo {'wrote' if whole else 'DID NOT WRITE'} {Path(report).name}\n")
    return int(not whole)


if __name__ == "__main__":
    sys.exit(main())
