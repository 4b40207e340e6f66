"""Weights after 30 deterministic steps of every kind of problem, by the code of another commit and by this one.

    python bench/same_bits.py
    python bench/same_bits.py --base REV --kinds segmentation survival

Each side is a process of its own: the other commit's source comes from a git worktree that is removed afterwards. Both
train through `isocenter.train` on the same small simulated cohort, one thread on the processor, and the SHA-256 of the
last and of the averaged weights, of the best ones and of the losses are compared. Ends with 1 where one differs.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

import isocenter

ROOT = Path(__file__).resolve().parents[1]
# The last commit before the source was restructured.
BASE = "12290ab"
STEPS, CASES = 30, 24
COLUMNS = ("image", "mask", "label", "area", "days", "died", "large", "patient")
UNET = {"width": 4, "widest": 8, "strides": [[1, 1], [2, 2]]}
RESNET = {"width": 4, "blocks": [1, 1], "stem_stride": 1}
PYRAMID = {"width": 8, "widest": 16, "strides": [[1, 1], [2, 2], [2, 2]]}
# What each kind of problem is trained with; "column" names the columns of a table that it reads.
KINDS: Mapping[str, dict[str, Any]] = {
    "segmentation": {"size": UNET, "column": {"mask": "mask"}},
    "classification": {"size": RESNET, "column": {"label": "label"}},
    "detection": {"size": PYRAMID},
    "findings": {"size": RESNET, "column": {"finding:died": "died", "finding:large": "large"}},
    "regression": {"size": RESNET, "column": {"value:area": "area"}},
    "survival": {"size": RESNET, "column": {"time": "days", "event": "died"}},
    "instances": {"size": UNET},
    "multitask": {"size": UNET, "column": {"label": "label", "value:area": "area", "mask": "mask"}},
}
FILES = ("last/module", "last/weights", "best/weights")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default=BASE, metavar="REV", help=f"commit to compare with, {BASE} if not given")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND")
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side is not None:
        _train(given.kinds[0], *map(Path, given.side))
        return
    with tempfile.TemporaryDirectory() as place, _checked_out(given.base, Path(place)) as base:
        print("| kind of problem | weights and losses | SHA-256 |\n|---|---|---|", flush=True)
        alike = [_compared(kind, base, Path(place)) for kind in given.kinds]
    sys.exit(not all(alike))


def _compared(kind: str, base: Path, place: Path) -> bool:
    data = _cohort(kind, place / f"{kind}-data")
    before, now = (
        _hashes(kind, source, data, place / f"{kind}-{side}") for side, source in (("base", base), ("now", ROOT))
    )
    differing = [name for name in before if before[name] != now.get(name)]
    verdict = f"differ: {', '.join(differing)}" if differing or before.keys() != now.keys() else "alike"
    print(f"| {kind} | {verdict} | {before['last/weights'][:16]} |", flush=True)
    return verdict == "alike"


def _hashes(kind: str, tree: Path, data: Path, out: Path) -> dict[str, str]:
    """{file: SHA-256} of a training by the source of this tree."""
    command = [sys.executable, __file__, "--kinds", kind, "--side", str(data), str(out)]
    own = {"PYTHONPATH": str(tree / "src"), "ISOCENTER_CACHE": str(out.with_suffix(".cache")), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{kind} by {tree}: {done.stderr.strip()}")
    if not (source := Path(json.loads(done.stdout.splitlines()[-1]))).is_relative_to(tree):
        sys.exit(f"{kind} was trained by {source}, not by the source in {tree}")
    files = {name: (out / "checkpoints" / f"{name}.safetensors").read_bytes() for name in FILES}
    with (out / "log.csv").open(newline="", encoding="utf-8") as file:
        rows = [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]
    assert len(rows) == STEPS, f"{kind}: {len(rows)} steps"
    files["log"] = json.dumps(rows).encode()
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def _train(kind: str, data: Path, out: Path) -> None:
    """In the process of one side; its last line says whose code it was."""
    chosen = dict(KINDS[kind])
    by_hand = {"network.size": chosen.pop("size"), "training.steps": STEPS, "training.batch": 4}
    by_hand |= {"training.deterministic": True, "training.validations": 2}
    isocenter.train(data, out=out, task=kind, device="cpu", threads=1, assignments=by_hand, **chosen)
    print(json.dumps(isocenter.__file__))


@contextmanager
def _checked_out(revision: str, place: Path) -> Iterator[Path]:
    """The files of a commit."""
    tree, git = place / "base", ("git", "-C", str(ROOT), "worktree")
    made = subprocess.run([*git, "add", "--detach", str(tree), revision], capture_output=True, text=True, check=False)
    if made.returncode:
        sys.exit(f"--base {revision}: {made.stderr.strip()}")
    try:
        yield tree
    finally:
        subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def _cohort(kind: str, folder: Path) -> Path:
    """Pictures of two discs, bright or dim, with all that is known of them in the form that this kind reads."""
    rows = []
    for n in range(CASES):
        rng = np.random.default_rng(n)
        numbers = np.zeros((24, 32), dtype=np.uint8)
        for number, column in ((1, 9.0), (2, 23.0)):
            away = np.hypot(*(np.indices(numbers.shape) - np.array([rng.uniform(9, 14), column])[:, None, None]))
            numbers[away < rng.uniform(3, 7)] = number
        pixels = (40 + (60 + 90 * (n % 2)) * (numbers > 0) + rng.normal(0, 6, numbers.shape)).clip(0, 255)
        known = WRITERS.get(kind, _mask)(folder, n, numbers)
        area = int((numbers > 0).sum())
        days = 1 + round(float(rng.exponential(60_000 / area)))
        images = folder if kind == "detection" else folder / "images"
        _picture(images / f"{n:02}.png", pixels.astype(np.uint8))
        died, large = ("yes" if verdict else "no" for verdict in (n % 3, area > 120))
        rows.append([f"images/{n:02}.png", known, ("dim", "bright")[n % 2], area, days, died, large, n])
    if "column" in KINDS[kind]:
        with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
        return folder / "cases.csv"
    return folder


def _mask(folder: Path, n: int, numbers: np.ndarray) -> str:
    _picture(folder / "masks" / f"{n:02}.png", (numbers > 0).astype(np.uint8))
    return f"masks/{n:02}.png"


def _numbers(folder: Path, n: int, numbers: np.ndarray) -> str:
    _picture(folder / "labels" / f"{n:02}.png", numbers)
    return ""


def _boxes(folder: Path, n: int, numbers: np.ndarray) -> str:
    """As in Pascal VOC, whose pixels count from 1 and whose last belongs to the box."""
    objects = []
    for number in (1, 2):
        low, high = (end(np.argwhere(numbers == number), axis=0) + 1 for end in (np.min, np.max))
        corners = zip(("xmin", "ymin", "xmax", "ymax"), (low[1], low[0], high[1], high[0]), strict=True)
        drawn = "".join(f"<{name}>{edge}</{name}>" for name, edge in corners)
        objects.append(f"<object><name>disc</name><bndbox>{drawn}</bndbox></object>")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{n:02}.xml").write_text(f"<annotation>{''.join(objects)}</annotation>")
    return ""


# How what is known of a case is written, where a table does not hold it.
WRITERS: Mapping[str, Callable[[Path, int, np.ndarray], str]] = {"detection": _boxes, "instances": _numbers}


def _picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)


if __name__ == "__main__":
    main()
