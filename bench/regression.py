"""Total hippocampus volume (ml) from the MR image alone, beside saying the training mean for everybody.

    python bench/regression.py ../shared/data/hippocampus --minutes 30 --seeds 0 1 2

The reference is the number of marked voxels of both labels times the volume of a voxel; the masks themselves are not
given to the model. Every step is a command of Isocenter. Nobody says which volumes are of one person: each stands for
itself, so that leakage between the parts cannot be excluded.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from machine import described
from trainings import summary

import isocenter
from isocenter.evaluation import intervals, regression

NAME = "volume"
MM3_PER_ML = 1000
SHOWN = ("mae", "rmse", "median_absolute_error", "r2", "concordance", "bias", "loa_lower", "loa_upper")
WITH_ERROR_BARS = ("interval_coverage", "nll")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0, help="of each training")
    parser.add_argument("--steps", type=int, help="in place of the minutes: for a trial, which measures nothing")
    parser.add_argument("--cases", type=int, help="only the first so many: for a trial, which measures nothing")
    parser.add_argument("--noise", choices=("none", "gaussian"), default="gaussian")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, help="keep the runs here")
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp(prefix="isocenter-"))
    out.mkdir(parents=True, exist_ok=True)
    table = _manifest(given.data, out / "volumes.csv", given.cases)
    rows = pd.DataFrame([row for seed in given.seeds for row in _measured(given, table, seed, out / f"seed{seed}")])
    rows.to_csv(out / "regression.csv", index=False)
    print(f"Machine: {described()}.")
    print(f"Command: `python bench/{Path(__file__).name} {' '.join(sys.argv[1:])}`\n")
    print(
        "| who | figure | unit | each seed (95 % interval), cases | mean of seeds | SD of seeds |\n"
        "|---|---|---|---|---|---|"
    )
    for (who, metric), own in rows.groupby(["who", "metric"], sort=False):
        values = own["value"].tolist()
        apart = f"{statistics.stdev(values):.4f}" if len(values) > 1 else "one seed"
        each = "; ".join(f"{one.value:.4f} ({_interval(one.low, one.high)}), {one.n}" for one in own.itertuples())
        print(f"| {who} | {metric} | {own['unit'].iloc[0]} | {each} | {statistics.fmean(values):.4f} | {apart} |")


def _interval(low: float, high: float) -> str:
    return "no interval" if np.isnan(low) else f"{low:.4f} to {high:.4f}"


def _manifest(data: Path, table: Path, cases: int | None) -> Path:
    """A table of images with the volume of what their masks mark."""
    rows = []
    for path in sorted((data / "labels").glob("*.nii.gz"))[:cases]:
        mask = isocenter.read(path)
        marked = np.count_nonzero(np.rint(mask.data))
        image = (data / "images" / path.name).resolve()
        rows.append({"image": str(image), "volume_ml": marked * mask.geometry.voxel_volume / MM3_PER_ML})
    pd.DataFrame(rows).to_csv(table, index=False)
    return table


def _measured(given: argparse.Namespace, table: Path, seed: int, out: Path) -> Iterator[dict[str, object]]:
    length = ["--minutes", given.minutes] if given.steps is None else ["--set", f"training.steps={given.steps}"]
    _isocenter(
        "train", table, "--column", f"value:{NAME}=volume_ml", "--modality", "MR", "--seed", seed, "--out", out,
        "--set", f"task.noise={given.noise}", *length,
    )  # fmt: skip
    rows = summary(out)
    wanted = (*SHOWN, *(WITH_ERROR_BARS if given.noise == "gaussian" else ()))
    for metric in wanted:
        [row] = [one for one in rows if (one["metric"], one["label"]) == (metric, NAME)]
        bounds = {key: np.nan if row[key] is None else row[key] for key in ("value", "low", "high")}
        yield {"who": "Isocenter", "seed": seed, "metric": metric, "unit": row["unit"], "n": row["n"], **bounds}
    yield from _trivial(table, seed, out)


def _trivial(table: Path, seed: int, out: Path) -> Iterator[dict[str, object]]:
    """The mean of the training cases said for every test case."""
    volumes = pd.read_csv(table)
    named = {Path(image).name.split(".")[0]: volume for image, volume in zip(*volumes.to_numpy().T, strict=True)}
    split = pd.read_csv(out / "split.csv", dtype=str)
    reference, training = (
        np.array([named[case] for case in split.loc[split["split"] == part, "case"]], dtype=float)
        for part in ("test", "train")
    )
    predicted, patients = np.full(len(reference), training.mean()), split.loc[split["split"] == "test", "patient"]
    for metric, figure in (("mae", regression.mean_absolute_error), ("rmse", regression.root_mean_squared_error)):
        found = intervals.bootstrap_statistic(
            lambda weights, figure=figure: figure(predicted, reference, weights), patients, seed=seed, exact=False
        )
        yield {
            "who": "training mean", "seed": seed, "metric": metric, "unit": "ml", "n": found.n,
            "value": found.value, "low": found.low, "high": found.high,
        }  # fmt: skip


def _isocenter(*words: object) -> None:
    command = [sys.executable, "-c", "from isocenter.cli import exit_codes; exit_codes.main()", *map(str, words)]
    subprocess.run(command, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
