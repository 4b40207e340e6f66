"""Nuclei in tiles of another laboratory: a shifted stain, with and without normalisation and augmentation.

    python bench/stains.py --out DIR --steps 400 --record

Real tiles of stained tissue (`../shared/data/histology`): 44 train, 10 test. The other laboratories are SIMULATED: in
optical density the two dyes of scikit-image's constants are found in each test tile, each is turned towards the other
(or away from it) and made stronger or weaker, and what neither explains stays. Each way trains once, as planned but for
the one setting; differences are paired by tile, with 95 % intervals of resampled tiles. Cells that have ended are lines
of DIR/cells.jsonl, and are not repeated.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import tifffile
from recorded import measured_cell, record
from skimage.color import rgb_from_hed
from slides import DATA

import hilum
from hilum.evaluation import intervals

WAYS: Mapping[str, dict[str, Any]] = {
    "plain": {},
    "preprocessing.stain=macenko": {"preprocessing.stain": "macenko"},
    "augmentation.stain=0.2": {"augmentation.stain": 0.2},
}
# Of each laboratory: factors of haematoxylin and eosin, and degrees by which each is turned towards the other.
LABORATORIES = {"own": None, "pale blue, strong pink": (0.6, 1.5, 10.0), "strong blue, pale pink": (1.5, 0.6, -10.0)}
DYES = rgb_from_hed  # (3 dyes, 3 colours), rows of length 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400, help="of each training")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    sets = write_tiles(given.out / "data")
    cells = {
        name: measured_cell(given.out, name, partial(measure, given, sets, name, assignments))
        for name, assignments in WAYS.items()
    }
    text = page(cells, given.steps)
    print(text)
    if given.record:
        record("stains", "A shifted stain", text, {"cells": cells, "steps": given.steps})


def write_tiles(folder: Path) -> dict[str, Path]:
    """{"train" or a laboratory: folder of images/ and labels/}; made once."""
    table = pd.read_csv(DATA / "index.csv")
    sets = {name: folder / name.replace(", ", "-").replace(" ", "-") for name in ("train", *LABORATORIES)}
    if all((one / "labels").is_dir() for one in sets.values()):
        return sets
    for row in table.itertuples():
        stem = str(row.name).removesuffix(".png")
        pixels = np.asarray(PIL.Image.open(DATA / "images" / f"{stem}.png").convert("RGB"))
        mask = (tifffile.imread(DATA / "labels" / f"{stem}.tif") > 0).astype(np.uint8)
        for name, place in sets.items():
            if (name == "train") == (row.split == "test"):
                continue
            for kind in ("images", "labels"):
                (place / kind).mkdir(parents=True, exist_ok=True)
            shift = LABORATORIES.get(name)
            PIL.Image.fromarray(pixels if shift is None else shifted(pixels, *shift)).save(
                place / "images" / f"{stem}.png"
            )
            PIL.Image.fromarray(mask).save(place / "labels" / f"{stem}.png")
    return sets


def shifted(pixels: np.ndarray, haematoxylin: float, eosin: float, degrees: float) -> np.ndarray:
    """(rows, columns, 3) as another laboratory would have dyed it."""
    density = -np.log((pixels.astype(np.float64) + 1) / 256)
    own = DYES / np.linalg.norm(DYES, axis=1, keepdims=True)
    amounts = density @ np.linalg.inv(own)
    other = own.copy()
    other[0], other[1] = turned(own[0], own[1], degrees), turned(own[1], own[0], degrees)
    made = (amounts * [haematoxylin, eosin, 1.0]) @ other
    return (256 * np.exp(-made) - 1).clip(0, 255).round().astype(np.uint8)


def turned(dye: np.ndarray, towards: np.ndarray, degrees: float) -> np.ndarray:
    """A dye turned towards another, within their plane."""
    aside = towards - (towards @ dye) * dye
    angle = np.deg2rad(degrees)
    return np.cos(angle) * dye + np.sin(angle) * aside / np.linalg.norm(aside)


def measure(given: Any, sets: Mapping[str, Path], name: str, assignments: dict[str, Any]) -> dict[str, Any]:
    """Mean Dice of the test tiles of each laboratory, and of each tile."""
    run = given.out / name.partition("=")[0]
    usual: dict[str, Any] = {"device": "cpu", "threads": 1, "overwrite": True, "labels": "1=nucleus"}
    if not (run / "report.html").is_file():
        length = {"training.steps": given.steps, "training.compute": "channels-last", **assignments}
        asked = {"everything": True, "assignments": length, "task": "segmentation", "seed": 0}
        hilum.train(sets["train"], out=run, **asked, **usual)
    row: dict[str, Any] = {"minutes": round(float(pd.read_csv(run / "log.csv")["seconds"].max()) / 60, 1)}
    for laboratory in LABORATORIES:
        out = given.out / f"{run.name}.{sets[laboratory].name}"
        hilum.evaluate(run, sets[laboratory], out=out, **usual)
        table = pd.read_csv(out / "cases.csv")
        dice = table.groupby("case")["dice"].mean()
        row[laboratory], row[f"{laboratory}: tiles"] = float(dice.mean()), dice.to_dict()
    return row


def page(cells: Mapping[str, Mapping[str, Any]], steps: int) -> str:
    """The table, and what can be said of it."""
    lines = [f"| way | minutes | {' | '.join(LABORATORIES)} |", f"|{'---|' * (2 + len(LABORATORIES))}"]
    verdicts = list[str]()
    for name, row in cells.items():
        figures = [f"{row[laboratory]:.3f}" for laboratory in LABORATORIES]
        if name != "plain":
            for place, laboratory in enumerate(LABORATORIES):
                value, low, high = gain(row, cells["plain"], laboratory)
                figures[place] += f"; less plain {value:+.3f} ({low:+.3f} to {high:+.3f})"
                word = "helped" if low > 0 else "harmed" if high < 0 else "showed no clear effect"
                verdicts.append(f"`{name}` {word} on {laboratory}")
        lines.append(f"| {name} | {row['minutes']} | {' | '.join(figures)} |")
    intro = (
        "Dice of nuclei in 10 real test tiles of 256 x 320 pixels, as they are (own) and with their stain shifted in "
        "optical density, which SIMULATES other laboratories: haematoxylin times 0.6, eosin times 1.5, both turned 10 "
        "degrees towards each other; and times 1.5, times 0.6, 10 degrees apart. "
        f"44 tiles train, {steps} steps each on one core that other work shared, one training of each way; "
        "intervals are of tiles (paired), not of trainings, and several tiles may be of one field."
    )
    return "\n".join([intro, "", *lines, "", f"{'; '.join(verdicts)}."])


def gain(row: Mapping[str, Any], plain: Mapping[str, Any], laboratory: str) -> tuple[float, float, float]:
    """The mean difference of Dice by tile, and its interval."""
    ours, theirs = (pd.Series(one[f"{laboratory}: tiles"]) for one in (row, plain))
    change = (ours - theirs).dropna()
    found = intervals.bootstrap(change.to_numpy(), change.index.to_numpy(str), seed=0, exact=False)
    return float(found.value), float(found.low), float(found.high)


if __name__ == "__main__":
    main()
