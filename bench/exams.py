"""Exams of four pictures of unlike sizes, the finding in one: `--align apart` beside one network over pictures.

    python bench/exams.py --out DIR --minutes 2.5 --record

Four views of a simulated exam, each of its own size, which varies from exam to exam, show correlated noise; half of the
exams have a soft bright spot in one of them. `pictures` is the usual way: each picture is a case with the label of its
exam, the plan chooses the network, and the exam gets the largest probability of its pictures. Each training gets the
same minutes and the same exams, and the same test exams score all. Intervals resample exams.
Cells that have ended are lines of DIR/cells.jsonl, and are not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
from recorded import measured_cell, record
from scipy import ndimage

import isocenter
from isocenter.evaluation import classification

SIZES = {"LCC": (96, 72), "LMLO": (120, 80), "RCC": (88, 88), "RMLO": (104, 64)}
VARIES, GREY, TEXTURE, NOISE = 8, 110.0, 20.0, 6.0
# Of a finding: grey levels above the texture, and its deviation in pixels.
BRIGHT, WIDE, BORDER = 80.0, 3.0, 14
TRAIN, TEST = 240, 80
COLUMN = {**{f"image:{view}": view for view in SIZES}, "label": "label", "split": "split", "id": "id"}
PICTURES = {"image": "image", "label": "label", "split": "split", "patient": "exam", "id": "id"}
FIND = "finding"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=2.5, help="of each training")
    parser.add_argument("--only", default="", help="a cell")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    simulate(given.out)
    cells: dict[str, Callable[[], dict[str, Any]]] = {
        "exams": lambda: of_exams(given, "exams"),
        "exams, views left out in training": lambda: of_exams(given, "left-out", {"training.modality_dropout": 0.25}),
        "pictures, the largest probability": lambda: of_pictures(given),
    }
    chosen = {name: measure for name, measure in cells.items() if name.startswith(given.only)}
    rows = {name: measured_cell(given.out, name, measure) for name, measure in chosen.items()}
    lines = [
        f"| {name} | {row['all']} | {row['one view missing']:.3f} | {row['steps']} |" for name, row in rows.items()
    ]
    text = "\n".join(["| way | AUROC, all views | one view missing | steps |", "|---|---|---|---|", *lines])
    print(text)
    if given.record:
        words = (
            f"{TRAIN} simulated exams train, {TEST} test, {given.minutes:g} minutes a training. With one view missing "
            "(the mean over the four) a quarter of the findings is in no picture, so that at most 0.875 can be reached."
        )
        record("exams", "Exams of pictures that share no grid", f"{words}\n\n{text}", {"cells": rows})


def simulate(out: Path) -> None:
    """Pictures and the two tables, of exams and of pictures, unless they are there."""
    folder = out / "data"
    if (folder / "pictures.csv").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    exams, pictures = list[dict[str, str]](), list[dict[str, str]]()
    for number in range(TRAIN + TEST):
        rng = np.random.default_rng(number)
        shows = rng.integers(len(SIZES)) if number % 2 else -1
        row = {
            "id": f"e{number:03}",
            "label": FIND if number % 2 else "none",
            "split": "train" if number < TRAIN else "test",
        }
        for place, (view, size) in enumerate(SIZES.items()):
            name = f"{row['id']}_{view}.png"
            pixels = drawn_view(rng, size, shows == place)
            PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
            pictures.append({**row, "id": f"{row['id']}_{view}", "exam": row["id"], "view": view, "image": name})
            row[view] = name
        exams.append(row)
    pd.DataFrame(exams).to_csv(folder / "exams.csv", index=False)
    pd.DataFrame(pictures)[["id", "exam", "view", "image", "label", "split"]].to_csv(
        folder / "pictures.csv", index=False
    )


def drawn_view(rng: np.random.Generator, size: Sequence[int], shows: bool) -> np.ndarray[Any, Any]:
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
    run = _trained(given, name, "exams.csv", column=COLUMN, align="apart", assignments=assignments or {})
    rows = json.loads((run / "evaluation" / "images.json").read_text())["rows"]
    values = [row for row in rows if row["metric"] == "auroc" and row["label"] == FIND]
    whole = next(row for row in values if len(row["images"]) == len(SIZES))
    fewer = {tuple(row["images"]): row["value"] for row in values if len(row["images"]) == len(SIZES) - 1}
    return _row(whole, statistics.fmean(fewer.values()), run)


def of_pictures(given: argparse.Namespace) -> dict[str, Any]:
    """The same of the largest probability of an exam's pictures."""
    run = _trained(given, "pictures", "pictures.csv", column=PICTURES)
    cases = pd.read_csv(run / "evaluation" / "cases.csv", dtype={"case": str})
    table = cases[cases["split"] == "test"].copy()
    table[["exam", "view"]] = table["case"].str.rsplit("_", n=1, expand=True)
    score = f"probability_{FIND}"

    def auroc(views: Sequence[str]) -> dict[str, Any]:
        exams = table[table["view"].isin(views)].groupby("exam").agg(score=(score, "max"), truth=("reference", "first"))
        scores, truth = exams["score"].to_numpy(), (exams["truth"] == FIND).to_numpy()
        drawn = np.random.default_rng(0).integers(len(exams), size=(2000, len(exams)))
        low, high = np.nanquantile(
            [float(classification.auroc(scores[one], truth[one])) for one in drawn], [0.025, 0.975]
        )
        return {"value": float(classification.auroc(scores, truth)), "low": low, "high": high}

    fewer = [auroc(views)["value"] for views in combinations(SIZES, len(SIZES) - 1)]
    return _row(auroc(list(SIZES)), statistics.fmean(fewer), run)


def _trained(given: argparse.Namespace, name: str, table: str, **reading: Any) -> Path:
    run = given.out / name
    isocenter.train(
        given.out / "data" / table, minutes=given.minutes, out=run, threads=2, overwrite=True, seed=0, **reading
    )
    return run


def _row(whole: dict[str, Any], fewer: float, run: Path) -> dict[str, Any]:
    return {
        "all": f"{whole['value']:.3f} ({whole['low']:.3f} to {whole['high']:.3f})",
        "one view missing": fewer,
        "steps": len((run / "log.csv").read_text().splitlines()) - 1,
    }


if __name__ == "__main__":
    main()
