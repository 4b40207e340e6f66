"""Build a wheel, install it without the checkout in a fresh environment, and run `--help`, `doctor` and a demo there.

`python tests/wheel.py` ends with 1 where the wheel cannot be built or installed, where it lacks a file of the source or
holds one of the real data, where a command fails, or where the demo, which has no way into the web, does not say that
its patients are simulated. The environment lies in a temporary folder, takes 7 GB of disk, and is removed at the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
MINUTES = 0.6
LONGEST_S = 3600
# Nobody listens at port 9 of this machine: every way into the web ends here.
OFFLINE = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


def missing(wheel: Path) -> list[str]:
    """Files of the source that the wheel lacks: code, lists, schemas, pages, scripts."""
    own = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*") if path.is_file()}
    packed = set(zipfile.ZipFile(wheel).namelist())
    return sorted(name for name in own - packed if not name.endswith(".pyc"))


def shipped_data(dist: Path) -> list[str]:
    """Real data in the wheel and in the source archive, which neither may hold."""
    [wheel], [archive] = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = [*zipfile.ZipFile(wheel).namelist(), *(name.partition("/")[2] for name in opened.getnames())]
    return sorted(name for name in names if name.startswith("data/"))


def ran(command: list[str | Path], folder: Path, **variables: str) -> str:
    """Standard output of a command in this folder, which sees nothing of the checkout."""
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")} | variables
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
            if held := shipped_data(folder / "dist"):
                sys.stdout.write(f"wheel or source archive hold {', '.join(held[:3])}\n")
                return 1
            ran([sys.executable, "-m", "venv", environment], work)
            pip = [environment / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
            ran([*pip, "--constraint", ROOT / "constraints.txt", wheel], work)
            program = environment / "bin" / "hilum"
            ran([program, "--help"], work)
            findings = ran([program, "doctor"], work)
            if f"{wheel}[service]" not in findings:
                sys.stdout.write(f"doctor does not say that extras are installed from {wheel.name}:\n{findings}\n")
                return 1
            offline = {**OFFLINE, "no_proxy": "", "HILUM_CACHE": str(folder / "cache")}
            lines = ran([program, "demo", "--minutes", str(MINUTES)], work, **offline).splitlines()
        except subprocess.CalledProcessError as error:
            sys.stdout.write(f"{error}\n{error.stdout}\n")
            return 1
        report = Path(lines[-1])
        is_written = report.is_file()
        says_simulated = "SIMULATED" in lines[0] and is_written and "(SIMULATED patients)</h1>" in report.read_text()
        sys.stdout.write(f"{wheel.name}: demo {'wrote' if is_written else 'DID NOT WRITE'} {report.name}, ")
        sys.stdout.write(f"which {'says' if says_simulated else 'DOES NOT SAY'} that its patients are simulated\n")
    return int(not says_simulated)


if __name__ == "__main__":
    sys.exit(main())
