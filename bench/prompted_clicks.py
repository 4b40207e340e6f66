"""A model to which somebody points beside one that marks by itself: the same data, split, minutes and core.

    python bench/prompted_clicks.py --out DIR --record

Hippocampus: a model of the kind `prompted`, whose test cases are pointed at as `isocenter evaluate` does, beside a
segmentation. The difference of Dice is of each test case, the mean of both structures; cases are resampled for its
interval. Nuclei (dsb2018) have no model beside them. With --out the bench resumes: a cell that has ended is a line of
DIR/cells.jsonl and is not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from environment import ROOT
from recorded import commit, record

import isocenter
from isocenter.evaluation import intervals
from isocenter.values import Prompts, bounding_boxes

DATA = ROOT.parent / "shared" / "data"
CELLS = {"prompted": ("hippocampus", 12.0), "segmentation": ("hippocampus", 12.0), "nuclei": ("dsb2018", 8.0)}
LABELS = {"hippocampus": "1=anterior,2=posterior"}
SCORES = {"dice_box": "a box", "dice_1": "1 click", "dice_3": "3 clicks", "dice_5": "5 clicks"}
AHEAD, SECONDS = 0.01, 1.0
# Test cases on which a further click is timed.
TIMED = 8


def main() -> None:
    """Train and score what is missing, print, and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="keep the runs here, and go on after the cells that have ended")
    parser.add_argument("--only", nargs="+", choices=CELLS, help="these cells")
    parser.add_argument("--record", action="store_true", help="write the figures into docs/benchmarks")
    given = parser.parse_args()
    out = (given.out or Path(tempfile.mkdtemp())).resolve()
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "cells.jsonl"
    done = {one["cell"]: one for one in map(json.loads, kept.read_text().splitlines())} if kept.is_file() else {}
    for name, (data, minutes) in CELLS.items():
        if name in done or (given.only and name not in given.only):
            continue
        done[name] = {"cell": name, **cell(out / name, name, data, minutes), "commit": commit()}
        with kept.open("a") as file:
            file.write(json.dumps(done[name]) + "\n")
    text = words(done, out)
    print(text)
    if given.record:
        record("prompted_clicks", "Clicks beside a segmentation", text, {"cells": [*done.values()]})


def cell(out: Path, name: str, data: str, minutes: float) -> dict[str, Any]:
    """One model, trained and scored on all of its test cases."""
    task = "segmentation" if name == "segmentation" else "prompted"
    run = isocenter.train(
        DATA / data, task=task, labels=LABELS.get(data), minutes=minutes, out=out, device="cpu", threads=1,
        overwrite=True,
    )  # fmt: skip
    scored = isocenter.evaluate(out, DATA / data, out=out / "scored", overwrite=True, device="cpu", threads=1)
    rows = [row for row in json.loads((out / "scored" / "summary.json").read_text())["rows"] if row["label"] == "all"]
    figures = {row["metric"]: {key: row[key] for key in ("value", "low", "high")} for row in rows}
    names = [one for one in (*SCORES, "dice") if one in figures]
    cases = scored.scored.table["case"].nunique()
    click = {} if task == "segmentation" else {"click": further_click(out, scored.scored.table["case"].unique(), data)}
    return {"minutes": minutes, "steps": int(run.steps), "cases": int(cases), "scores": {n: figures[n] for n in names},
            **click}  # fmt: skip


def further_click(out: Path, cases: Any, data: str) -> float:
    """The median of the seconds that a second click takes, with a label map as its answer."""
    model, seconds = isocenter.load(out, device="cpu"), list[float]()
    for case in list(cases)[:TIMED]:
        [path] = [one for one in (DATA / data / "images").iterdir() if one.name.partition(".")[0] == case]
        image = isocenter.read(path)
        middle = bounding_boxes.in_letters(np.array(image.geometry.shape, dtype=float) // 2)
        with model.encoded(image) as seen:
            first = (*middle.tolist(), 1.0)
            marked = np.asarray(seen.predict(Prompts(points=[first])).data) > 0
            began = time.perf_counter()
            further = Prompts(points=[first, (*(middle + 2).tolist(), 0.0)], previous=marked)
            np.asarray(seen.predict(further).data)
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def ahead(out: Path) -> Any:
    """Dice after five clicks less that of the segmentation: of each case, the mean of its structures."""
    theirs, ours = (pd.read_csv(out / name / "scored" / "cases.csv") for name in ("segmentation", "prompted"))
    both = ours.merge(theirs, on=["case", "label"], suffixes=("", "_alone"), validate="one_to_one")
    if len(both) != len(ours) or len(both) != len(theirs):
        raise SystemExit("the two models were not scored on the same cases and structures")
    difference = (both["dice_5"] - both["dice"]).groupby(both["case"]).mean()
    return intervals.bootstrap(difference.to_numpy(), difference.index.to_numpy(str), seed=0)


def words(done: Mapping[str, Mapping[str, Any]], out: Path) -> str:
    """The cells as tables."""
    lines = ["| measure | asked | measured | reached |", "|---|---|---|---|"]
    if {"prompted", "segmentation"} <= set(done):
        one = ahead(out)
        is_reached = "yes" if one.value >= AHEAD and one.low is not None and one.low > 0 else "no"
        found = f"{one.value:+.3f} ({one.low:+.3f} to {one.high:+.3f})"
        lines.append(f"| Dice after 5 clicks less that of the segmentation | {AHEAD}, interval above 0 | {found} | "
                     f"{is_reached} |")  # fmt: skip
    if "prompted" in done:
        seconds = done["prompted"]["click"]
        lines.append(f"| a further click, s | at most {SECONDS:g} | {seconds:.2f} | "
                     f"{'yes' if seconds <= SECONDS else 'no'} |")  # fmt: skip
    lines += ["", "| model | minutes, steps, test cases | Dice by what points |", "|---|---|---|"]
    for name, one in done.items():
        shown = [
            f"{SCORES.get(key, 'nobody points')} {score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"
            for key, score in one["scores"].items()
        ]
        lines.append(f"| {name} | {one['minutes']:g}, {one['steps']}, {one['cases']} | {'; '.join(shown)} |")
    about = (
        "The files of the hippocampus do not name the person: two of them may show one, so that the split cannot be "
        "shown to be clean. Clicks are drawn from the reference, in the middle of the larger error: a person points "
        "less well."
    )
    return "\n".join([*lines, "", about])


if __name__ == "__main__":
    main()
