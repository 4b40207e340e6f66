"""What small deterministic trainings leave, by the code of another commit and by this one.

    python bench/same_bits.py
    python bench/same_bits.py --base REV --situations segmentation cascade

Each side is a process of its own: the other commit's source comes from a git worktree that is removed afterwards, and
its package has the name that its `pyproject.toml` states. Both train on the same small simulated cohort, one thread on
the processor: every kind of problem, three folds, a cascade, an ensemble, a search of two trials, covariates with their
control. Compared are the last, the averaged and the best weights, the losses, `summary.json`, `predictions.csv` of the
cohort's first images, the arrays that a model carries (its gate among them), and all numbers of its belief
(calibration, thresholds, sets), wherever they stand. Prints the first difference of each, and ends with 1 where there
is one.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image

ROOT = Path(__file__).resolve().parents[1]
# What the other commit left, by situation: it stays the same, and half of the time is spent on it.
KEPT = ROOT / ".bench" / "same_bits"
# The commit before belief and tasks move into rooms of their own.
BASE = "93f6c9ad"
STEPS, CASES = 30, 24
COLUMNS = ("image", "mask", "label", "area", "days", "died", "large", "patient", "age")
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
    "registration": {"size": UNET},
    "enhancement": {"size": UNET},
}
# Further situations: what they add to a kind of problem.
SITUATIONS: Mapping[str, dict[str, Any]] = {
    **{kind: {"task": kind, **chosen} for kind, chosen in KINDS.items()},
    "folds": {"task": "classification", **KINDS["classification"], "folds": 3},
    "cascade": {"task": "segmentation", **KINDS["segmentation"], "by_hand": {"preprocessing.cascade": 2.0}},
    "ensemble": {"task": "classification", **KINDS["classification"]},
    "search": {
        "task": "classification",
        **KINDS["classification"],
        "by_hand": {"search.trials": 2, "search.steps": 6},
        "cases": 48,
    },
    "covariates": {
        "task": "classification",
        "size": RESNET,
        "column": {"label": "label", "patient": "patient"},
        "by_hand": {"network.context": "all"},
    },
}
# Images that are predicted, of a situation with covariates none: its table has to come along.
PREDICTED = 6
# The folder of a comparison, in a path.
FOLDER = re.compile(rf"{re.escape(tempfile.gettempdir())}/[^/]+/")
# Of a model's record, where what decoding and belief have found stands.
FOUND = ("task", "belief")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default=BASE, metavar="REV", help=f"commit to compare with, {BASE} if not given")
    parser.add_argument("--situations", nargs="+", choices=list(SITUATIONS), default=list(SITUATIONS), metavar="NAME")
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side is not None:
        data, out, package = given.side
        _train(given.situations[0], Path(data), Path(out), importlib.import_module(package))
        return
    with tempfile.TemporaryDirectory() as place, _checked_out(given.base, Path(place)) as base:
        print("| situation | compared | verdict |\n|---|---|---|", flush=True)
        alike = [_compared(name, base, Path(place)) for name in given.situations]
    sys.exit(not all(alike))


def _compared(name: str, base: Path, place: Path) -> bool:
    data = _cohort(SITUATIONS[name]["task"], place / f"{name}-data", SITUATIONS[name].get("cases", CASES))
    before, now = _kept_facts(name, base, data, place / f"{name}-base"), _facts(name, ROOT, data, place / f"{name}-now")
    # Tables name images by their path, and each comparison has a folder of its own.
    before, now = ({what: FOLDER.sub("", text) for what, text in side.items()} for side in (before, now))
    differing = [what for what in sorted(before.keys() | now.keys()) if before.get(what) != now.get(what)]
    print(f"| {name} | {len(before)} | {'alike' if not differing else f'{len(differing)} differ'} |", flush=True)
    for what in differing:
        print(f"    {what}: {_difference(before.get(what, ''), now.get(what, ''))}", flush=True)
    return not differing


def _difference(before: str, now: str) -> str:
    """The first line in which two texts differ."""
    for first, second in zip_longest(before.splitlines(), now.splitlines(), fillvalue="(nothing)"):
        if first != second:
            return f"{first[:200]} -> {second[:200]}"
    return "line ends"


def _kept_facts(name: str, base: Path, data: Path, out: Path) -> dict[str, str]:
    """The facts of a situation by the other commit: read where they are known, with this way of taking them."""
    asked = Path(__file__).read_bytes() + subprocess.check_output(["git", "-C", str(base), "rev-parse", "HEAD"])
    file = KEPT / f"{name}-{hashlib.sha256(asked).hexdigest()[:16]}.json"
    if not file.is_file():
        facts = _facts(name, base, data, out)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(facts), encoding="utf-8")
    known: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return known


def _facts(name: str, tree: Path, data: Path, out: Path) -> dict[str, str]:
    """{what: its SHA-256, or its text} of a situation by the source of this tree."""
    package = package_of(tree)
    command = [sys.executable, __file__, "--situations", name, "--side", str(data), str(out), package]
    cache = {f"{package.upper()}_CACHE": str(out.with_suffix(".cache"))}
    own = {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1", **cache}
    done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} by {tree}: {done.stderr.strip()}")
    if not (source := Path(json.loads(done.stdout.splitlines()[-1]))).is_relative_to(tree):
        sys.exit(f"{name} was trained by {source}, not by the source in {tree}")
    return {
        what: text
        for path in sorted(out.rglob("*"))
        if path.is_file()
        for what, text in _facts_of(path, path.relative_to(out).as_posix())
    }


def package_of(tree: Path) -> str:
    """The name of a commit's package, by which it is imported and its environment variables begin."""
    stated = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))
    name: str = stated["project"]["name"]
    return name


def _facts_of(path: Path, name: str) -> Iterator[tuple[str, str]]:
    """What a file of a situation says that has to stay."""
    if path.suffix == ".safetensors":
        yield name, hashlib.sha256(path.read_bytes()).hexdigest()
    elif path.name == "log.csv":
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
        yield name, "\n".join(map(str, rows))
    elif path.name in ("predictions.csv", "cases.csv", "split.csv"):
        yield name, path.read_text(encoding="utf-8")
    elif path.name == "summary.json" and path.parent.name == "evaluation":
        yield name, "\n".join(map(str, json.loads(path.read_text(encoding="utf-8"))["rows"]))
    elif path.name in ("model.json", "belief.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        found = record if path.name == "belief.json" else {key: record.get(key) for key in FOUND}
        # Wherever they stand: a value that moves to another record stays the same value.
        yield f"{path.parent.relative_to(path.parents[1]).as_posix()} of {name}", "\n".join(sorted(_numbers_in(found)))


def _numbers_in(value: Any) -> Iterator[str]:
    match value:
        case dict():
            for one in value.values():
                yield from _numbers_in(one)
        case list():
            for one in value:
                yield from _numbers_in(one)
        case float():
            yield repr(value)


def _train(name: str, data: Path, out: Path, package: ModuleType) -> None:
    """In the process of one side; its last line says whose code it was."""
    chosen = {key: one for key, one in SITUATIONS[name].items() if key != "cases"}
    by_hand = {"network.size": chosen.pop("size"), "training.steps": STEPS, "training.batch": 4}
    by_hand |= {"training.deterministic": True, "training.validations": 2, **chosen.pop("by_hand", {})}
    given = {"device": "cpu", "threads": 1, "assignments": by_hand, **chosen}
    out.mkdir()
    package.train(data, out=out / "run", **given)
    if name == "ensemble":
        package.train(data, out=out / "other", seed=1, **{**given, "assignments": {**by_hand, "split.seed": 0}})
        package.ensemble([out / "run", out / "other"], out=out / "ensemble", device="cpu", threads=1)
    if name != "covariates":
        images = sorted((data if data.is_dir() else data.parent).rglob("*.png"))
        images = [one for one in images if one.parent.name not in ("masks", "labels", "targets")][:PREDICTED]
        images = [data] if chosen["task"] == "registration" else images  # whose cases are pairs of images
        model = out / ("ensemble" if name == "ensemble" else "run")
        package.predict(model, [*images], out=out / "predicted", device="cpu", threads=1)
    print(json.dumps(package.__file__))


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


def _cohort(kind: str, folder: Path, cases: int) -> Path:
    """Pictures of two discs, bright or dim, with all that is known of them in the form that this kind reads."""
    rows = []
    for n in range(cases):
        rng = np.random.default_rng(n)
        numbers = np.zeros((24, 32), dtype=np.uint8)
        for number, column in ((1, 9.0), (2, 23.0)):
            away = np.hypot(*(np.indices(numbers.shape) - np.array([rng.uniform(9, 14), column])[:, None, None]))
            numbers[away < rng.uniform(3, 7)] = number
        pixels = (40 + (60 + 90 * (n % 2)) * (numbers > 0) + rng.normal(0, 6, numbers.shape)).clip(0, 255)
        known = WRITERS.get(kind, _mask)(folder, n, numbers)
        area = int((numbers > 0).sum())
        days = 1 + round(float(rng.exponential(60_000 / area)))
        images = folder if kind in ("detection", "registration") else folder / "images"
        name = f"{n:02}_fixed_image" if kind == "registration" else f"{n:02}"
        _picture(images / f"{name}.png", pixels.astype(np.uint8))
        died, large = ("yes" if verdict else "no" for verdict in (n % 3, area > 120))
        age = 40 + 10 * (n % 2) + n % 7
        rows.append([f"images/{n:02}.png", known, ("dim", "bright")[n % 2], area, days, died, large, n, age])
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
        corners_text = "".join(f"<{name}>{edge}</{name}>" for name, edge in corners)
        objects.append(f"<object><name>disc</name><bndbox>{corners_text}</bndbox></object>")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{n:02}.xml").write_text(f"<annotation>{''.join(objects)}</annotation>")
    return ""


def _other_image(folder: Path, n: int, numbers: np.ndarray) -> str:
    """The moving image of a pair, whose discs lie two rows further down, and the label maps of both."""
    moved = np.roll(numbers, 2, axis=0)
    noise = np.random.default_rng(1000 + n).normal(0, 6, numbers.shape)
    pixels = (40 + (60 + 90 * (n % 2)) * (moved > 0) + noise).clip(0, 255)
    _picture(folder / f"{n:02}_moving_image.png", pixels.astype(np.uint8))
    for side, known in (("fixed", numbers), ("moving", moved)):
        _picture(folder / f"{n:02}_{side}_label.png", (known > 0).astype(np.uint8))
    return ""


def _clean_image(folder: Path, n: int, numbers: np.ndarray) -> str:
    _picture(folder / "targets" / f"{n:02}.png", (40 + (60 + 90 * (n % 2)) * (numbers > 0)).astype(np.uint8))
    return ""


# How what is known of a case is written, where a table does not hold it.
WRITERS: Mapping[str, Callable[[Path, int, np.ndarray], str]] = {
    "detection": _boxes,
    "instances": _numbers,
    "registration": _other_image,
    "enhancement": _clean_image,
}


def _picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)


if __name__ == "__main__":
    main()
