"""How good the main job gets in so many minutes: trains, evaluates, and prints a table with machine and command.

    python bench/accuracy.py ../shared/data/hippocampus --labels 1=anterior,2=posterior --minutes 5 10 20 --seeds 0 1 2

Each seed draws its own split (where the set has none) and its own weights, so the spread over seeds is that of the
whole job. No option is chosen by a test part. With --folds the figures are out-of-fold.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from machine import described

import isocenter

COLUMNS = (
    "minutes asked",
    "metric",
    "label",
    "mean of seeds",
    "SD",
    "each seed",
    "95 % interval of each",
    "minutes taken",
)


def main() -> None:
    given = _arguments()
    out = given.out or Path(tempfile.mkdtemp())
    rows = pd.DataFrame(_measured(given, out))
    rows.to_csv(out / f"{given.data.stem}.csv", index=False)
    print(f"Machine: {described()}.")
    print(f"Command: `python bench/{Path(__file__).name} {' '.join(sys.argv[1:])}`\n")
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for (minutes, metric, label), found in rows.groupby(["asked", "metric", "label"], sort=False):
        values = found["value"].tolist()
        spread = f"{statistics.stdev(values):.4f}" if len(values) > 1 else "one seed"
        each = ", ".join(f"{value:.4f}" for value in values)
        intervals = ", ".join(f"{low:.3f} to {high:.3f}" for low, high in zip(found["low"], found["high"], strict=True))
        taken = ", ".join(f"{one:.1f}" for one in found["taken"])
        mean = statistics.fmean(values)
        print(f"| {minutes:g} | {metric} | {label} | {mean:.4f} | {spread} | {each} | {intervals} | {taken} |")


def _measured(given: argparse.Namespace, out: Path) -> Iterator[dict[str, Any]]:
    options = {
        key: getattr(given, key) for key in ("task", "labels", "modality", "patient", "folds") if getattr(given, key)
    }
    for minutes in given.minutes:
        for seed in given.seeds:
            folder = out / f"{given.data.stem}-{minutes:g}min-seed{seed}"
            run = isocenter.train(given.data, minutes=minutes, seed=seed, out=folder, **options)
            record = json.dumps(run.as_record(), default=str)
            (out / f"{folder.name}.json").write_text(record, encoding="utf-8")
            print(f"{minutes:g} min, seed {seed}: {run.steps} steps, {run.minutes:.2f} min", file=sys.stderr)
            for row in run.rows:
                if row.metric in given.metrics:
                    measured = {"value": row.estimate.value, "low": row.estimate.low, "high": row.estimate.high}
                    named = {"asked": minutes, "seed": seed, "metric": row.metric, "label": row.label}
                    yield {**named, **measured, "taken": run.minutes, "steps": run.steps}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[10.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--folds", type=int, default=0)
    parser.add_argument("--task")
    parser.add_argument("--labels")
    parser.add_argument("--modality")
    parser.add_argument("--patient")
    parser.add_argument("--metrics", nargs="+", default=["dice", "auroc", "accuracy", "ap50", "aji", "pq"])
    parser.add_argument("--out", type=Path, help="keep the runs here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
