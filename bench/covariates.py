"""What images and covariates tell alone and together, by each way of telling a network.

    python bench/covariates.py --data ../shared/data/multimodal --steps 200 --cases 300 --core 1 --threads 1 --record

Simulated: the class is half in a picture and half in a number beside it ("halves"); the number is spread over three
of 5,000 columns ("genes"), or is whether a pulse that was read 30 times swings up and down, or down and up, at some
moment, which no weighted sum of readings tells ("pulse"); of a bright and a dim disc in a picture a covariate says
which is the structure ("which"), so that images alone cannot tell. Real: COVID-19 or another pneumonia in a radiograph,
beside age, sex and the day of the disease ("chest"); its sources and the label go together, so that it says nothing of
the disease. All trainings have the same steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
from recorded import commit, record
from trainings import add_options, keep, kept, trained

SIDE, GENES = 32, 5000
CHEST = ["age", "sex", "offset"]
# Large enough for discs.
RESNET = {"width": 8, "blocks": [1, 1, 1], "stem_stride": 1}
UNET = {"width": 8, "widest": 32, "strides": [[1, 1], [2, 2], [2, 2]]}
DENSE = ("film", "attention")
PARTS = ("together", "images alone", "covariates alone", "covariates add", "images add")


@dataclass(frozen=True)
class Shown:
    """found: {part: [value, low, high]}"""

    on: str
    method: str
    seed: int
    found: Mapping[str, Sequence[float | None]]
    commit: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder `multimodal`; without it simulated data alone")
    parser.add_argument("--only", nargs="+", default=["halves", "genes", "pulse", "which", "chest"])
    parser.add_argument("--methods", nargs="+", default=["concatenate", "film", "attention"])
    parser.add_argument("--cases", type=int, default=400, help="simulated")
    add_options(parser, "covariates", minutes=None, of="in place of the steps", seeds=(0, 1, 2))
    given = parser.parse_args()
    given.steps = given.steps or (None if given.minutes else 300)
    shown = [
        _shown(name, method, seed, given)
        for name in given.only
        if name != "chest" or given.data is not None
        for method in given.methods
        if name != "which" or method in DENSE
        for seed in given.seeds
    ]
    text = _words(shown)
    print(text)
    if given.record:
        length = f"{given.minutes:g} minutes" if given.steps is None else f"{given.steps} steps"
        words = (
            f"Each training has {length}, that on images alone as many; {given.cases} simulated cases. AUROC, of "
            "`which` Dice: means over seeds, lowest and highest. What the data are the script's first lines say."
        )
        record("covariates", "Covariates beside images", f"{words}\n\n{text}", {"runs": [*map(asdict, shown)]})


def _shown(name: str, method: str, seed: int, given: argparse.Namespace) -> Shown:
    run = f"{name}-{method}-{seed}"
    if (before := kept(run, given)) is not None:
        return Shown(**before)
    made = given.out.resolve() / f"{name}-data"
    if not made.exists():
        made.mkdir(parents=True)
        chest(given.data.resolve(), made) if name == "chest" else simulated(name, made, given.cases)
    asked: dict[str, Any] = {"halves": ["marker"], "genes": ["gene_*"], "which": ["which"], "chest": CHEST}
    size = {} if name == "chest" else {"network.size": UNET if name == "which" else RESNET}
    chosen = {
        **size,
        "network.context": asked.get(name, ["pulse"]),
        "network.context_fusion": method,
        "training.validations": 4,
    }
    words: list[object] = [made if name == "pulse" else made / "table.csv", "--layout", "manifest"]
    words += [word for role, column in columns(name).items() for word in ("--column", f"{role}={column}")]
    words += [word for key, value in chosen.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    done = trained(run, words, seed, given)
    if done.returncode:
        sys.exit(f"{run} failed with exit code {done.returncode}: see {given.out}/logs/{run}.err")
    shown = Shown(name, method, seed, figures_of(given.out / run), commit())
    keep(run, shown, given)
    return shown


def columns(name: str) -> Mapping[str, str]:
    if name == "which":
        return {"image": "file", "mask": "mask"}
    return {"image": "file", "label": "label", **({"patient": "patientid"} if name == "chest" else {})}


def figures_of(out: Path) -> dict[str, list[float | None]]:
    """Of the model, each half, and what each adds: the primary metric and its interval."""
    record = json.loads((out / "evaluation" / "covariates.json").read_text())
    both = json.loads((out / "evaluation" / "summary.json").read_text())
    parts = [both["rows"], record["images"], record["rows"]]
    parts += [record["added"]["to the images"], record["added"]["to the covariates"]]
    metric = both["rows"][0]["metric"]
    found = {}
    for part, rows in zip(PARTS, parts, strict=True):
        known = [row for row in rows if (row["metric"], row["label"]) == (metric, "all")]
        found |= {part: [known[0][key] for key in ("value", "low", "high")]} if known else {}
    return found


def _words(shown: Sequence[Shown]) -> str:
    """A line of each way of telling: means over the seeds, the lowest and the highest."""
    lines = [f"| data | told by | {' | '.join(PARTS)} |", "|---" * (2 + len(PARTS)) + "|"]
    for name, method in dict.fromkeys((one.on, one.method) for one in shown):
        own = [one.found for one in shown if (one.on, one.method) == (name, method)]
        lines.append(f"| {name} | {method} | {' | '.join(_cell([one.get(part) for one in own]) for part in PARTS)} |")
    return "\n".join(lines)


def _cell(found: Sequence[Sequence[float | None] | None]) -> str:
    known = [one for one in found if one is not None and one[0] is not None]
    if not known:
        return "–"
    values = [one[0] for one in known if one[0] is not None]
    return f"{statistics.fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def simulated(name: str, root: Path, count: int) -> None:
    """Pictures of discs, and a table of what is true of each."""
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
            read += [{"image": row["file"], **one} for one in pulse(rng, marker > 0)]
        else:
            genes = rng.normal(size=GENES).round(3) if name == "genes" else np.array([marker] * 3) / np.sqrt(3)
            row["label"] = "ill" if bright + genes[:3].sum() / np.sqrt(3) + rng.normal(0, 0.5) > 0 else "well"
            row |= {f"gene_{k:04}": value for k, value in enumerate(genes)} if name == "genes" else {"marker": marker}
        rows.append(row)
    pd.DataFrame(rows).to_csv(root / "table.csv", index=False)
    if read:
        pd.DataFrame(read).to_csv(root / "read.csv", index=False)


def pulse(rng: np.random.Generator, swings: bool) -> list[dict[str, float]]:
    """30 readings of an hour, which may swing at some moment, up and down or down and up."""
    times, middle = np.sort(rng.uniform(0, 60, 30)), rng.uniform(10, 50)
    swing = swings * rng.choice([-1, 1]) * 15 * np.sign(middle - times) * (abs(times - middle) < 8)
    values = 80 + rng.normal(0, 5) + swing + rng.normal(0, 3, len(times))
    return [{"time (min)": round(at, 2), "pulse": round(one, 1)} for at, one in zip(times, values, strict=True)]


def disc(rng: np.random.Generator, top: int) -> np.ndarray:
    """(rows, columns): a disc in the upper or the lower half."""
    centre = rng.uniform((top + 5, 6), (top + SIDE // 2 - 5, SIDE - 6))
    return np.hypot(*(grid - middle for grid, middle in zip(np.indices((SIDE, SIDE)), centre, strict=True))) < 4


def chest(data: Path, out: Path) -> None:
    table = pd.read_csv(data / "metadata.csv")
    known = table[["patientid", *CHEST]].copy()
    known.insert(0, "file", [str((data / "images" / name).resolve()) for name in table["filename"]])
    known["label"] = np.where(table["finding"].str.contains("COVID"), "covid", "other")
    known.to_csv(out / "table.csv", index=False)


if __name__ == "__main__":
    main()
