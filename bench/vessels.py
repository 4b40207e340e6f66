"""Retinal vessels of CHASE-DB1, cross-validated by child: F1, sensitivity and AUC inside the field of view.

    python bench/vessels.py ../shared/data/chasedb1 --minutes 30 --seeds 0 1 2

Each image is predicted by the fold that has seen neither eye of its child. The second observer stands beside the model,
scored against the first on the same pixels. The field of view is not supplied with the set: it is what is brighter than
a threshold in the red channel, holes filled.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from machine import described
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import roc_auc_score

import isocenter

# Grey values (0 to 255) of the red channel: outside the field it is below 20, inside mostly above 60.
FIELD_THRESHOLD = 40
MEASURES = ("F1", "sensitivity", "specificity", "AUC")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0, help="for all folds together")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, help="keep the runs here")
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp())
    rows = pd.DataFrame([row for seed in given.seeds for row in _measured(given, seed, out / f"vessels-seed{seed}")])
    rows.to_csv(out / "vessels.csv", index=False)
    print(f"Machine: {described()}.")
    print(f"Command: `python bench/{Path(__file__).name} {' '.join(sys.argv[1:])}`\n")
    print("| who | measure | mean of seeds | SD of seeds | each seed | images |\n|---|---|---|---|---|---|")
    for who, of_one in rows.groupby("who", sort=False):
        for measure in MEASURES:
            means = of_one.groupby("seed")[measure].mean().tolist()
            if np.isnan(means).all():
                continue
            apart = f"{statistics.stdev(means):.4f}" if len(means) > 1 else "one seed"
            each = ", ".join(f"{mean:.4f}" for mean in means)
            count = of_one["image"].nunique()
            print(f"| {who} | {measure} | {statistics.fmean(means):.4f} | {apart} | {each} | {count} |")


def _measured(given: argparse.Namespace, seed: int, out: Path) -> Iterator[dict[str, object]]:
    run = isocenter.train(given.data, minutes=given.minutes, folds=given.folds, seed=seed, modality="fundus", out=out)
    print(f"seed {seed}: {run.minutes:.1f} min", file=sys.stderr)
    table = pd.read_csv(out / "split.csv", dtype=str)
    for fold in range(given.folds):
        model = isocenter.load(out, fold=fold)
        of_fold = table[(table["fold"] == str(fold)) & (table["split"] == "test")]
        for case in of_fold["case"]:
            path = next(given.data.glob(f"{case}.jp*g"))
            image, first, second = (
                isocenter.read(one).data
                for one in (path, given.data / f"{case}_1stHO.png", given.data / f"{case}_2ndHO.png")
            )
            field = ndimage.binary_fill_holes(image[0] > FIELD_THRESHOLD)
            reference = first[0][field] > 0
            probability = np.zeros(first.shape[1:], dtype=np.float32)

            def keep(region, arrays, into=probability):  # type: ignore[no-untyped-def]
                into[region] = arrays["mask"][1]

            predicted = np.asarray(model.predict(path, receiver=keep).data)[field] > 0
            named = {"seed": seed, "image": case}
            yield {"who": "Isocenter", **named, **_scores(reference, predicted, probability[field])}
            yield {"who": "second observer", **named, **_scores(reference, second[0][field] > 0)}


def _scores(
    reference: NDArray[np.bool_], predicted: NDArray[np.bool_], probability: NDArray[np.float32] | None = None
) -> dict[str, float]:
    both = np.count_nonzero(reference & predicted)
    return {
        "F1": 2 * both / (np.count_nonzero(reference) + np.count_nonzero(predicted)),
        "sensitivity": both / np.count_nonzero(reference),
        "specificity": np.count_nonzero(~reference & ~predicted) / np.count_nonzero(~reference),
        "AUC": float("nan") if probability is None else float(roc_auc_score(reference, probability)),
    }


if __name__ == "__main__":
    main()
