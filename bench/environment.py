"""An environment of its own for each peer, so that no peer's package enters ours."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PLACE = ROOT / ".bench"
CONSTRAINTS = ROOT / "constraints.txt"


class PeerError(Exception):
    """A peer that could not be made ready, in words."""


def peer(name: str) -> Path:
    """The Python of a peer's environment `.bench/<name>`, made on first use from `bench/peers/<name>.txt`.

    Versions are those of the file and of constraints.txt; a changed file makes the environment anew.
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
            _done([str(python), *_install(wanted)], name)
            stamp.write_text(now)
    return python


def peers() -> list[str]:
    return sorted(file.stem for file in (HERE / "peers").glob("*.txt"))


def versions(name: str) -> dict[str, str]:
    """The packages of a peer's environment, as pip lists them."""
    listed = _done([str(peer(name)), "-m", "pip", "list", "--format", "freeze"], name)
    return dict(line.split("==", 1) for line in listed.splitlines() if "==" in line)


def _install(wanted: Path) -> list[str]:
    return ["-m", "pip", "install", "-q", "--constraint", str(CONSTRAINTS), "--requirement", str(wanted)]


def _contents(wanted: Path) -> str:
    both = wanted.read_bytes() + CONSTRAINTS.read_bytes() + sys.version.encode()
    return hashlib.sha256(both).hexdigest()


def _done(command: list[str], name: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise PeerError(f"the environment of {name} could not be made: {last}")
    return done.stdout
