"""What measuring batch statistics anew for averaged weights brings: a volume in ml, read off its own mask.

    python bench/batch_statistics.py ../shared/data/hippocampus --steps 120 --seeds 0 1 2

The same training for each number of cases: statistics change no weights, so that all end with the same ones, and only
means and variances of the normalisation differ. 0 cases: those that the average of the weights took over from the
steps. The mask is the image, so that the truth can be read off and nothing else is in the way.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from machine import described

import isocenter
from isocenter.training.step import optimisers

MM3_PER_ML = 1000
SHOWN = ("r2", "mae")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cases", type=int, nargs="+", default=[0, 16, 64, 256], help="by which they are measured")
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    out = Path(tempfile.mkdtemp(prefix="isocenter-"))
    table = _table(given.data, out / "volumes.csv")
    measure = optimisers.measure_batch_statistics
    print(f"Machine: {described()}.\nCommand: `python bench/{Path(__file__).name} {' '.join(sys.argv[1:])}`\n")
    print("| cases | figure | mean of seeds | each seed |\n|---|---|---|---|")
    for count in given.cases:
        optimisers.CASES = count
        optimisers.measure_batch_statistics = measure if count else lambda *_: None
        found: dict[str, list[float]] = {}
        for seed in given.seeds:
            run = isocenter.train(
                table,
                out=out / f"{count}-{seed}",
                seed=seed,
                threads=given.threads,
                column={"value:volume": "volume_ml"},
                modality="MR",
                assignments={"training.steps": given.steps, "training.validations": 1},
            )
            for row in run.rows:
                if row.metric in SHOWN and row.estimate.value is not None:
                    found.setdefault(row.metric, []).append(row.estimate.value)
        for metric, values in found.items():
            each = ", ".join(f"{one:.3f}" for one in values)
            print(f"| {count} | {metric} | {statistics.fmean(values):.3f} | {each} |", flush=True)


def _table(data: Path, path: Path) -> Path:
    """Each mask as an image, and the ml that it marks."""
    rows = []
    for mask in sorted((data / "labels").glob("*.nii.gz")):
        image = isocenter.read(mask)
        volume = np.count_nonzero(image.data) * (image.geometry.voxel_volume or 1) / MM3_PER_ML
        rows.append({"image": str(mask.resolve()), "volume_ml": volume})
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


if __name__ == "__main__":
    main()
