"""Exams of four pictures of unlike sizes, the finding in one: `--align apart` beside one network over pictures.

    python bench/exams.py --out DIR --record

Four views of a simulated exam, each of its own size, which varies from exam to exam, show correlated noise; half of the
exams have a soft bright spot in one of them. `pictures` is the usual way: each picture is a case with the label of its
exam, the plan chooses the network, and the exam gets the largest probability of its pictures. Each training sees the
same exams, and as many pictures: so many steps of 8 exams, or of 32 pictures; the processor seconds of each are stated.
The same test exams score all. Intervals resample exams.
Cells that have ended are lines of DIR/cells.jsonl, and are not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
from recorded import measured_cell, record
from scipy import ndimage

import hilum
from hilum.evaluation import classification

SIZES = {"LCC": (64, 48), "LMLO": (80, 52), "RCC": (58, 58), "RMLO": (68, 44)}
VARIES, GREY, TEXTURE, NOISE = 5, 110.0, 20.0, 6.0
# Of a finding: grey levels above the texture, and its deviation in pixels.
BRIGHT, WIDE, BORDER = 110.0, 2.0, 8
BATCH = 8
COLUMN = {**{f"image:{view}": view for view in SIZES}, "label": "label", "split": "split", "id": "id"}
PICTURES = {"image": "image", "label": "label", "split": "split", "patient": "exam", "id": "id"}
FIND = "finding"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200, help="of each training")
    parser.add_argument("--exams", type=int, nargs=2, default=[160, 50], help="that train, and that test")
    parser.add_argument("--only", default="", help="a cell")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    simulate(given.out, *given.exams)
    cells: dict[str, Callable[[], dict[str, Any]]] = {
        "exams": lambda: of_exams(given, "exams"),
        "pictures, the largest probability": lambda: of_pictures(given),
        "exams, a quarter of views left out": lambda: of_exams(given, "left-out", {"training.modality_dropout": 0.25}),
    }
    chosen = {name: measure for name, measure in cells.items() if name.startswith(given.only)}
    rows = {name: measured_cell(given.out, name, measure) for name, measure in chosen.items()}
    lines = [
        f"| {name} | {row['all']} | {row['one view missing']:.3f} | {row['training']} |" for name, row in rows.items()
    ]
    head = "| way | AUROC, all views | one view missing | processor seconds |"
    text = "\n".join([head, "|---|---|---|---|", *lines])
    print(text)
    if given.record:
        train, test = given.exams
        words = (
            f"{train} simulated exams train and {test} test, in {given.steps} steps of {BATCH} exams or {4 * BATCH} "
            "pictures, one training of each way. With one view missing (the mean over the four) a quarter of the "
            "findings is in no picture: at most about 0.875 can be reached. Processor seconds are those of the whole "
            "command with its evaluation, of exams by every subset of views; other work ran on the same cores."
        )
        record("exams", "Exams of pictures that share no grid", f"{words}\n\n{text}", {"cells": rows})


def simulate(out: Path, train: int, test: int) -> None:
    """Pictures and the two tables, of exams and of pictures, unless they are there."""
    folder = out / "data"
    if (folder / "pictures.csv").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    exams, pictures = list[dict[str, str]](), list[dict[str, str]]()
    for number in range(train + test):
        rng = np.random.default_rng(number)
        shows = rng.integers(len(SIZES)) if number % 2 else -1
        row = {
            "id": f"e{number:03}",
            "label": FIND if number % 2 else "none",
            "split": "train" if number < train else "test",
        }
        for place, (view, size) in enumerate(SIZES.items()):
            name = f"{row['id']}_{view}.png"
            pixels = simulated_view(rng, size, shows == place)
            PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
            pictures.append({**row, "id": f"{row['id']}_{view}", "exam": row["id"], "view": view, "image": name})
            row[view] = name
        exams.append(row)
    pd.DataFrame(exams).to_csv(folder / "exams.csv", index=False)
    pd.DataFrame(pictures)[["id", "exam", "view", "image", "label", "split"]].to_csv(
        folder / "pictures.csv", index=False
    )


def simulated_view(rng: np.random.Generator, size: Sequence[int], shows: bool) -> np.ndarray[Any, Any]:
    """The pixels of one view, with or without the finding."""
    shape = tuple(int(n + rng.integers(-VARIES, VARIES + 1)) for n in size)
    texture = ndimage.gaussian_filter(rng.normal(size=shape), 3)
    pixels = GREY + TEXTURE * texture / texture.std() + rng.normal(0, NOISE, shape)
    if shows:
        centre = [rng.integers(BORDER, n - BORDER) for n in shape]
        squares = sum((axis - at) ** 2 for axis, at in zip(np.indices(shape), centre, strict=True))
        pixels = pixels + BRIGHT * np.exp(-squares / (2 * WIDE**2))
    return np.asarray(pixels)


def of_exams(given: argparse.Namespace, name: str, assignments: dict[str, Any] | None = None) -> dict[str, Any]:
    """AUROC of the test exams with all views, and the mean with one missing, as the run's own evaluation has them."""
    run, took = _trained(
        given, name, "exams.csv", {"training.batch": BATCH, **(assignments or {})}, COLUMN, align="apart"
    )
    rows = json.loads((run / "evaluation" / "images.json").read_text())["rows"]
    values = [row for row in rows if row["metric"] == "auroc" and row["label"] == FIND]
    whole = next(row for row in values if len(row["images"]) == len(SIZES))
    fewer = {tuple(row["images"]): row["value"] for row in values if len(row["images"]) == len(SIZES) - 1}
    return _row(whole, statistics.fmean(fewer.values()), took)


def of_pictures(given: argparse.Namespace) -> dict[str, Any]:
    """The same of the largest probability of an exam's pictures."""
    run, took = _trained(given, "pictures", "pictures.csv", {"training.batch": len(SIZES) * BATCH}, PICTURES)
    cases = pd.read_csv(run / "evaluation" / "cases.csv", dtype={"case": str})
    table = cases[cases["split"] == "test"].copy()
    table[["exam", "view"]] = table["case"].str.rsplit("_", n=1, expand=True)
    score = f"probability_{FIND}"

    def auroc(views: Sequence[str]) -> dict[str, Any]:
        exams = table[table["view"].isin(views)].groupby("exam").agg(score=(score, "max"), truth=("reference", "first"))
        scores, truth = exams["score"].to_numpy(), (exams["truth"] == FIND).to_numpy()
        resampled = np.random.default_rng(0).integers(len(exams), size=(2000, len(exams)))
        low, high = np.nanquantile(
            [float(classification.auroc(scores[one], truth[one])) for one in resampled], [0.025, 0.975]
        )
        return {"value": float(classification.auroc(scores, truth)), "low": low, "high": high}

    fewer = [auroc(views)["value"] for views in combinations(SIZES, len(SIZES) - 1)]
    return _row(auroc(list(SIZES)), statistics.fmean(fewer), took)


def _trained(
    given: argparse.Namespace,
    name: str,
    table: str,
    set_by_hand: dict[str, Any],
    column: dict[str, str],
    **reading: Any,
) -> tuple[Path, float]:
    run = given.out / name
    steps = {"training.steps": given.steps, **set_by_hand}
    data, began = given.out / "data" / table, time.process_time()
    hilum.train(
        data, out=run, column=column, assignments=steps, threads=1, device="cpu", overwrite=True, seed=0, **reading
    )
    return run, time.process_time() - began


def _row(whole: dict[str, Any], fewer: float, took: float) -> dict[str, Any]:
    return {
        "all": f"{whole['value']:.3f} ({whole['low']:.3f} to {whole['high']:.3f})",
        "one view missing": fewer,
        "training": round(took),
    }


if __name__ == "__main__":
    main()
