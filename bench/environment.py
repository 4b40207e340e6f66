"""An environment of its own for each peer, so that no peer's package enters ours."""

from __future__ import annotations

import fcntl
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PLACE = ROOT / ".bench"
CONSTRAINTS = ROOT / "constraints.txt"
INSTALL = ("-m", "pip", "install", "-q", "--disable-pip-version-check")

COMPUTING = ("torch", "numpy", "scipy", "simpleitk", "monai")


class PeerError(Exception):
    """A peer that could not be made ready, in words."""


def peer(name: str) -> Path:
    """The Python of a peer's environment `.bench/<name>`, made on first use from `bench/peers/<name>.txt`.

    Versions are those of the file, and of constraints.txt for what the file does not name: both sides compute with the
    same libraries as far as the peer allows. A changed file makes the environment anew.
    Raises PeerError with what pip said where it cannot be made.
    """
    wanted = HERE / "peers" / f"{name}.txt"
    if not wanted.is_file():
        raise PeerError(f"there is no peer {name!r}: bench/peers/ has {', '.join(peers())}")
    folder = PLACE / name
    python = folder / "bin" / "python"
    stamp, now = folder / "made_from", _contents(wanted)
    PLACE.mkdir(exist_ok=True)
    # Two parts may ask for the same peer at the same time; the second waits for the first.
    with (PLACE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (stamp.is_file() and stamp.read_text() == now and python.exists()):
            print(f"making the environment of {name}", file=sys.stderr)
            _done([sys.executable, "-m", "venv", "--clear", str(folder)], name)
            constraints = folder / "constraints.txt"
            constraints.write_text(_constraints(wanted))
            _done([str(python), *INSTALL, "--constraint", str(constraints), "--requirement", str(wanted)], name)
            stamp.write_text(now)
    return python


def peers() -> list[str]:
    return sorted(file.stem for file in (HERE / "peers").glob("*.txt"))


def versions(name: str) -> dict[str, str]:
    """The packages of a peer's environment, as pip lists them."""
    listed = _done([str(peer(name)), "-m", "pip", "list", "--format", "freeze"], name)
    return dict(line.split("==", 1) for line in listed.splitlines() if "==" in line)


def _constraints(wanted: Path) -> str:
    """constraints.txt without the packages that the peer's file gives a version of its own."""
    own = {_package(line) for line in _lines(wanted) if not re.fullmatch(r"[A-Za-z0-9._-]+", line)}
    return "\n".join(line for line in _lines(CONSTRAINTS) if _package(line) not in own) + "\n"


def _lines(file: Path) -> list[str]:
    return [line.strip() for line in file.read_text().splitlines() if line.strip() and not line.startswith("#")]


def _package(line: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", line)[0].lower().replace("_", "-")


def _contents(wanted: Path) -> str:
    """What an environment was made from: a pin of a library that computes makes it anew, any other does not."""
    pins = [line for line in _lines(CONSTRAINTS) if _package(line) in COMPUTING]
    return "\n".join([sys.version, *pins, *_lines(wanted)])


def _done(command: list[str], name: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        text = [line for line in (done.stdout + done.stderr).splitlines() if line.strip() and "WARNING" not in line]
        last = "\n".join(text[-8:])
        raise PeerError(f"the environment of {name} could not be made: {last}")
    return done.stdout
