"""What images and covariates tell alone and together, by each way of telling a network.

    python bench/covariates.py --data ../shared/data/multimodal --steps 300 --seeds 0 1 2

Simulated: the class is half in a picture and half in a number beside it ("halves"); the number is spread over three
of 5,000 columns ("genes"), or is whether a pulse that was read 30 times swings up and then down at some moment, or
down and then up, which no weighted sum of readings tells ("pulse"); of a bright and a dim disc in a picture a covariate
says which is the structure ("which"), so that images alone cannot tell. Real: COVID-19 or another pneumonia in a
radiograph, beside age, sex and what was measured ("chest"); its sources and the label go together, so that it says
nothing of the disease. All trainings have the same steps.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
from machine import described

import isocenter
from isocenter.evaluation import rows_from_json

SIDE, GENES = 32, 5000
CHEST = ["age", "sex", "temperature", "pO2_saturation", "leukocyte_count", "offset"]
# Large enough for discs.
RESNET = {"width": 8, "blocks": [1, 1, 1], "stem_stride": 1}
UNET = {"width": 8, "widest": 32, "strides": [[1, 1], [2, 2], [2, 2]]}
DENSE = ("film", "attention")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder `multimodal`; without it simulated data alone")
    parser.add_argument("--only", nargs="+", default=["halves", "genes", "pulse", "which", "chest"])
    parser.add_argument("--ways", nargs="+", default=["concatenate", "film", "attention"])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--cases", type=int, default=400, help="simulated")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    out = Path(tempfile.mkdtemp(prefix="isocenter-"))
    print(f"Machine: {described()}.\nCommand: `python bench/{Path(__file__).name} {' '.join(sys.argv[1:])}`\n")
    print("| data | seed | told by | together | images alone | covariates alone | covariates add | images add |")
    print("|---|---|---|---|---|---|---|---|")
    for name in given.only:
        if name == "chest" and given.data is None:
            continue
        table = chest(given.data, out) if name == "chest" else simulated(name, out / name, given.cases)
        for seed in given.seeds:
            for way in (way for way in given.ways if name != "which" or way in DENSE):
                run = trained(name, table, out / f"{name}-{seed}-{way}", way, seed, given.steps, given.threads)
                print(f"| {name} | {seed} | {way} | {' | '.join(told(run.out, run.primary))} |", flush=True)


def trained(name: str, table: Path, out: Path, way: str, seed: int, steps: int, threads: int | None) -> Any:
    asked: dict[str, Any] = {"halves": ["marker"], "genes": ["gene_*"], "which": ["which"], "chest": CHEST}
    asked["pulse"] = ["pulse"]
    size = {} if name == "chest" else {"network.size": UNET if name == "which" else RESNET}
    return isocenter.train(
        table,
        out=out,
        seed=seed,
        threads=threads,
        column=columns(name),
        layout="manifest",
        assignments={
            **size,
            "network.context": asked[name],
            "network.told": way,
            "training.steps": steps,
            "training.validations": 4,
        },
    )


def columns(name: str) -> Mapping[str, str]:
    if name == "which":
        return {"image": "file", "mask": "mask"}
    return {"image": "file", "label": "label", **({"patient": "patientid"} if name == "chest" else {})}


def told(out: Path, primary: str) -> list[str]:
    """The model, images alone, covariates alone, and what each adds, with intervals."""
    record = json.loads((out / "evaluation" / "covariates.json").read_text())
    both = json.loads((out / "evaluation" / "summary.json").read_text())
    parts = [both["rows"], record["images"], record["rows"]]
    parts += [record["added"]["to the images"], record["added"]["to the covariates"]]
    return [_said({**both, "rows": rows}, primary) for rows in parts]


def _said(summary: Mapping[str, Any], primary: str) -> str:
    known = [one.estimate for one in rows_from_json(summary) if one.metric == primary and one.label == "all"]
    if not known:
        return ""
    [found] = known
    interval = "" if found.low is None else f" ({found.low:.3f} to {found.high:.3f})"
    return f"{found.value:.3f}{interval}"


def simulated(name: str, root: Path, count: int) -> Path:
    """Pictures of discs, and a table of what is true of each."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows, read = [], []
    for n in range(count):
        bright, marker = rng.normal(size=2)
        first, second = (disc(rng, half) for half in (0, SIDE // 2))
        levels = (40 * (1.5 + bright), 0) if name != "which" else rng.permutation([120, 60])
        pixels = 60 + levels[0] * first + levels[1] * second + rng.normal(0, 15, (SIDE, SIDE))
        PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{n:04}.png")
        row: dict[str, Any] = {"file": f"{n:04}.png"}
        if name == "which":
            row["which"] = "bright" if marker > 0 else "dim"
            mask = first if (levels[0] > levels[1]) == (marker > 0) else second
            PIL.Image.fromarray(mask.astype(np.uint8)).save(root / f"{n:04}_mask.png")
            row["mask"] = f"{n:04}_mask.png"
        elif name == "pulse":
            ill = bright + (1.5 if marker > 0 else -1.5) + rng.normal(0, 0.5) > 0
            row["label"] = "ill" if ill else "well"
            read += [{"image": row["file"], **one} for one in pulse(rng, 1 if marker > 0 else -1)]
        else:
            genes = rng.normal(size=GENES).round(3) if name == "genes" else np.array([marker] * 3) / np.sqrt(3)
            row["label"] = "ill" if bright + genes[:3].sum() / np.sqrt(3) + rng.normal(0, 0.5) > 0 else "well"
            row |= {f"gene_{k:04}": value for k, value in enumerate(genes)} if name == "genes" else {"marker": marker}
        rows.append(row)
    pd.DataFrame(rows).to_csv(root / "table.csv", index=False)
    if not read:
        return root / "table.csv"
    pd.DataFrame(read).to_csv(root / "read.csv", index=False)
    return root


def pulse(rng: np.random.Generator, sign: int) -> list[dict[str, float]]:
    """30 readings of an hour, that swing up and then down at some moment for a sign of 1."""
    times, middle = np.sort(rng.uniform(0, 60, 30)), rng.uniform(10, 50)
    swing = sign * 15 * np.sign(middle - times) * (abs(times - middle) < 8)
    values = 80 + rng.normal(0, 5) + swing + rng.normal(0, 3, len(times))
    return [{"time (min)": round(at, 2), "pulse": round(one, 1)} for at, one in zip(times, values, strict=True)]


def disc(rng: np.random.Generator, top: int) -> np.ndarray:
    """(rows, columns): a disc in the upper or the lower half."""
    centre = rng.uniform((top + 5, 6), (top + SIDE // 2 - 5, SIDE - 6))
    return np.hypot(*(grid - middle for grid, middle in zip(np.indices((SIDE, SIDE)), centre, strict=True))) < 4


def chest(data: Path, out: Path) -> Path:
    table = pd.read_csv(data / "metadata.csv")
    kept = table[["patientid", *CHEST]].copy()
    kept.insert(0, "file", [str((data / "images" / name).resolve()) for name in table["filename"]])
    kept["label"] = np.where(table["finding"].str.contains("COVID"), "covid", "other")
    kept.to_csv(out / "chest.csv", index=False)
    return out / "chest.csv"


if __name__ == "__main__":
    main()
