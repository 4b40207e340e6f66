"""A handful of cases: prototypes, linear probe, fine-tuning and a network from scratch, of 1 and of 5 cases a class.

    python bench/few_shots.py --out DIR --record

Features come from PneumoniaMNIST (pictures) and FLAIR tumours (volumes), by a training on their labels, and of pictures
by the objective of episodes too. Each cell that has ended is a line of DIR/cells.jsonl and is not repeated. All routes
of a draw have the same cases; those that learn take as many steps. Pictures are scored by balanced accuracy, because
probabilities of prototypes are no chances; volumes by the mean Dice of their structures.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from environment import ROOT
from PIL import Image
from recorded import commit, record

import isocenter
from isocenter.evaluation import intervals, mask_overlap
from isocenter.values import Estimate

DATA = ROOT.parent / "shared" / "data"
STRUCTURES = {1: "anterior", 2: "posterior"}
SIZE = {"width": 8, "widest": 64, "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]], "deep_supervision": 0}
PICTURES = {"network.name": "resnet", "network.size": {"width": 32, "blocks": [2, 2, 2], "stem_stride": 1}}
VOLUMES = {"network.size": SIZE, "training.batch": 2}
SETS = {"retina": PICTURES, "ultrasound": PICTURES, "hippocampus": VOLUMES}
SHOTS, DRAWS, STEPS, MINUTES, TESTED = (1, 5), 2, 60, 3.0, 30
SOURCED = 1500  # pictures of PneumoniaMNIST that teach features
SOURCE, PROTOTYPICAL, MAML = "labels", "prototypical", "maml"
# FLAIR volumes have 28 slices or so, which the strides do not divide.
FLAIR_PATCH = [64, 64, 32]
SOURCES = {
    "pneumonia": PICTURES,
    "flair": {**VOLUMES, "training.patch": FLAIR_PATCH, "inference.patch": FLAIR_PATCH},
}
SCRATCH, PROBE, FULL, PROTOTYPES = "scratch", "linear probe", "fine-tuning", "prototypes"
EPISODES = {f"prototypes on {objective}": objective for objective in (PROTOTYPICAL, MAML)}
MODES = {PROBE: "linear_probe", FULL: "full", PROTOTYPES: "prototypes"} | dict.fromkeys(EPISODES, "prototypes")
TEXT = (
    "Features of pictures by {minutes:g} minutes of training on {sourced} pictures of PneumoniaMNIST, of volumes on "
    "30 FLAIR volumes with tumours. Routes that learn take {steps} steps; all cases of a draw train, none selects. "
    "Pictures are grey. Balanced accuracy of five grades of 100 retinas (20 each), and of three classes of the "
    "ultrasound images that do not teach in the draw; mean Dice of {tested} hippocampi. Differences are means over "
    "draws, their 95 % intervals resample test cases, not draws; whose the ultrasound images and hippocampi are is "
    "not known."
)


@dataclass(frozen=True)
class Cell:
    """One training; shots: cases a class, of volumes in all; 0 of a source"""

    data: str
    shots: int
    draw: int
    route: str

    @property
    def name(self) -> str:
        """The folder of its run."""
        return f"{self.data}-{self.shots}-{self.draw}-{self.route}".replace(" ", "-")


@dataclass(frozen=True)
class Measured:
    """What a cell has shown; scores: {test case: Dice, or whether it is right times the weight of its class}"""

    cell: Cell
    scores: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    commit: str = ""
    failed: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="keep the runs here, and go on after what has ended")
    parser.add_argument("--until", metavar="HH:MM", help="begin no cell later than this, UTC")
    parser.add_argument("--only", nargs="+", metavar="ROUTE", help="leave out the others for now")
    parser.add_argument("--data", nargs="+", metavar="SET", help="leave out the others for now")
    parser.add_argument("--record", action="store_true", help="write the figures into docs/benchmarks")
    given = parser.parse_args()
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    done = ended(out)
    for cell in cells():
        if given.until and time.strftime("%H:%M", time.gmtime()) >= given.until:
            break
        is_wanted = (not given.only or cell.route in given.only) and (not given.data or cell.data in given.data)
        if cell not in done and is_wanted:
            done[cell] = tried(cell, out)
    text = table(done)
    print(text)
    if given.record:
        rows = [{**asdict(one.cell), "score": mean(one.scores), "seconds": one.seconds} for one in done.values()]
        record("few_shots", "A handful of cases", text, {"steps": STEPS, "cells": rows})


def cells() -> Iterator[Cell]:
    """Sources first, then the first draw of all sets, then the second."""
    yield Cell("pneumonia", 0, 0, SOURCE)
    yield Cell("flair", 0, 0, SOURCE)
    yield from (Cell("pneumonia", 0, 0, name) for name in EPISODES.values())
    for draw in range(DRAWS):
        for data, settings in SETS.items():
            for shots in reversed(SHOTS):
                for route in (SCRATCH, *MODES):
                    if settings is PICTURES or route not in EPISODES:  # FLAIR volumes have no classes
                        yield Cell(data, shots, draw, route)


def ended(out: Path) -> dict[Cell, Measured]:
    """What the cells before have shown."""
    file = out / "cells.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    shown = [Measured(**{**line, "cell": Cell(**line["cell"])}) for line in lines]
    return {one.cell: one for one in shown if not one.failed}


def tried(cell: Cell, out: Path) -> Measured:
    """The cell, done now and written down; one that fails does not stop the others."""
    print(f"{time.strftime('%H:%M:%S', time.gmtime())} {cell.name}", file=sys.stderr, flush=True)
    began, scores, failed = time.perf_counter(), dict[str, float](), ""
    try:
        scores = trained(cell, out)
    except Exception as error:
        traceback.print_exc()
        failed = f"{type(error).__name__}: {error}"
    shown = Measured(cell, scores, round(time.perf_counter() - began, 1), commit(), failed)
    with (out / "cells.jsonl").open("a") as file:
        file.write(json.dumps(asdict(shown)) + "\n")
    return shown


def trained(cell: Cell, out: Path) -> dict[str, float]:
    """The scores of test cases by a network that is trained as the route says; none of a source."""
    common: dict[str, Any] = {"out": out / cell.name, "overwrite": True, "device": "cpu", "threads": 1}
    common |= {"everything": True, "seed": cell.draw}
    taught, tested = split(cell, out)
    place = out / f"{cell.name}.csv"
    pd.DataFrame(taught).to_csv(place, index=False)
    volumes = cell.data in ("flair", "hippocampus")
    if not cell.shots:
        settings = SOURCES[cell.data]
        if cell.route in EPISODES.values():
            isocenter.pretrain(place, objective=cell.route, minutes=MINUTES, assignments=settings, **common)
        else:
            isocenter.train(place, minutes=MINUTES, assignments=settings, **common)
        return {}
    start = Cell("flair" if volumes else "pneumonia", 0, 0, EPISODES.get(cell.route, SOURCE))
    isocenter.train(
        place,
        start=None if cell.route == SCRATCH else out / start.name,
        task=None if volumes else "classification",
        labels=",".join(f"{n}={name}" for n, name in STRUCTURES.items()) if volumes else None,
        assignments={
            "training.steps": STEPS,
            **SETS[cell.data],
            **({} if cell.route == SCRATCH else {"transfer.mode": MODES[cell.route]}),
        },
        **common,
    )
    model = isocenter.load(out / cell.name, threads=1)
    if volumes:
        return {Path(row["image"]).stem: dice(model, row) for row in tested}
    classes = pd.Series([row["label"] for row in tested]).value_counts()
    scores = {}
    for row in tested:
        chances = model.predict(row["image"]).probabilities
        right = max(chances, key=chances.get) == row["label"]
        scores[Path(row["image"]).stem] = float(right) * len(tested) / (len(classes) * classes[row["label"]])
    return scores


def dice(model: isocenter.Model, row: Mapping[str, Any]) -> float:
    """The mean Dice of the structures of a volume."""
    found, drawn = model.predict(row["image"]).data, np.asarray(nibabel.load(row["mask"]).dataobj).astype(np.uint8)
    return float(np.mean([mask_overlap.dice(found == value, drawn == value) for value in STRUCTURES]))


def split(cell: Cell, out: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the cases that teach a cell, and of those that test it."""
    rows, fixed = POOLS[cell.data](out)
    if not cell.shots:
        return rows, []
    order = [rows[n] for n in np.random.default_rng(cell.draw).permutation(len(rows))]
    labels = sorted({row["label"] for row in rows}) if "label" in rows[0] else [None]
    most = [row for label in labels for row in [one for one in order if one.get("label") == label][: max(SHOTS)]]
    taught = [row for label in labels for row in [one for one in most if one.get("label") == label][: cell.shots]]
    return taught, fixed or [row for row in rows if row not in most]


def _pictures(name: str, part: str, out: Path, count: int | None = None) -> list[dict[str, Any]]:
    """Pictures of a set of MedMNIST in grey, drawn once; count: of each class."""
    archive = np.load(DATA / "medmnist" / f"{name}.npz")
    images, classes = archive[f"{part}_images"], archive[f"{part}_labels"].ravel()
    order = np.random.default_rng(2026).permutation(len(images))
    folder = out / "pictures" / name
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for label in np.unique(classes):
        for n in order[classes[order] == label][:count]:
            grey = images[n] if images[n].ndim == 2 else np.rint(images[n].mean(axis=2)).astype(np.uint8)
            Image.fromarray(grey).save(place := folder / f"{part}_{n:05}.png")
            rows.append({"image": place, "label": f"grade {label}", "patient": place.stem})
    return rows


def _ultrasound(out: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Ultrasound images in grey, without the two that are one picture with two labels."""
    files = sorted((DATA / "ultrasound" / "images").rglob("*.png"))
    files = [one for one in files if one.stem not in ("benign (433)", "malignant (145)")]
    (out / "pictures" / "ultrasound").mkdir(parents=True, exist_ok=True)
    rows = []
    for file in files:
        place = out / "pictures" / "ultrasound" / f"{file.stem.replace(' ', '_').strip(')').replace('(', '')}.png"
        Image.open(file).convert("L").save(place)
        rows.append({"image": place, "label": file.parent.name, "patient": place.stem})
    return rows, []


def _volumes(images: Path, masks: Path) -> list[dict[str, Any]]:
    names = sorted(path.name for path in masks.glob("*.nii.gz"))
    order = np.random.default_rng(2026).permutation(len(names))
    return [{"image": images / names[n], "mask": masks / names[n]} for n in order]


def _hippocampi(out: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows = _volumes(DATA / "hippocampus" / "images", DATA / "hippocampus" / "labels")
    return rows[TESTED:], rows[:TESTED]


POOLS = {
    "pneumonia": lambda out: (_pictures("pneumoniamnist", "train", out, SOURCED // 2), []),
    "flair": lambda out: (_volumes(*(DATA / "mri" / "lgg_flair" / name for name in ("images", "masks"))), []),
    "retina": lambda out: (_pictures("retinamnist", "train", out), _pictures("retinamnist", "test", out, 20)),
    "ultrasound": _ultrasound,
    "hippocampus": _hippocampi,
}


def mean(scores: Mapping[str, float]) -> float:
    return float(np.mean([*scores.values()])) if scores else float("nan")


def difference(done: Mapping[Cell, Measured], data: str, shots: int, route: str) -> Estimate | None:
    """The mean over draws of a route's scores less those of scratch, by test case; None where a draw has not both."""
    both = [[done.get(Cell(data, shots, draw, name)) for name in (route, SCRATCH)] for draw in range(DRAWS)]
    apart = [
        {case: own.scores[case] - scratch.scores[case] for case in own.scores}
        for own, scratch in both
        if own is not None and scratch is not None
    ]
    if not apart:
        return None
    cases = sorted({case for one in apart for case in one})
    # A case that tests in one draw only adds to that one: the mean over cases is the mean over draws.
    values = [sum(one.get(case, 0.0) / len(one) for one in apart) / len(apart) * len(cases) for case in cases]
    return intervals.bootstrap(values, cases, seed=0, exact=False)


def table(done: Mapping[Cell, Measured]) -> str:
    """The text and a row for each set, number of cases and route."""
    lines = ["| data | cases a class | route | score, each draw | less scratch |", "|---|---|---|---|---|"]
    for data, settings in SETS.items():
        for shots in reversed(SHOTS):
            for route in (SCRATCH, *MODES):
                if settings is VOLUMES and route in EPISODES:  # FLAIR volumes have no classes
                    continue
                shown = [done[one] for d in range(DRAWS) if (one := Cell(data, shots, d, route)) in done]
                known = [one for one in shown if one.scores]
                each = ", ".join(f"{mean(one.scores):.3f}" for one in known)
                apart = difference(done, data, shots, route) if route != SCRATCH else None
                ends = "" if apart is None or apart.low is None else f" ({apart.low:+.3f} to {apart.high:+.3f})"
                words = "" if apart is None else f"{apart.value:+.3f}{ends}"
                of_two = f"{np.mean([mean(one.scores) for one in known]):.3f} ({each})" if known else "not measured"
                lines.append(f"| {data} | {shots} | {route} | {of_two} | {words} |")
    text = TEXT.format(minutes=MINUTES, sourced=SOURCED, steps=STEPS, tested=TESTED)
    return "\n".join([text, "", *lines])


if __name__ == "__main__":
    main()
