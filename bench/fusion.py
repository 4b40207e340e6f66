"""Ways to bring several images of a case together, where some cases lack one: Dice with every subset of the images.

    python bench/fusion.py ../shared/data/hippocampus --minutes 10 --seeds 0 1 2

The shapes are hippocampi, the intensities are simulated: in channel A the anterior part is bright, in channel B the
posterior part is dark, each in a field of its own and in noise of its own, so that each channel alone shows one part
and where the other one lies has to be guessed. So many of the cases lack one of the two, A and B in turn. The test part
is complete, so that all rows are of the same cases.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from machine import described
from numpy.typing import NDArray
from scipy import ndimage

import isocenter

# What is trained: the family, and how often an image is left out; None as the plan says.
WAYS: dict[str, tuple[str, float | None]] = {
    "early, nothing left out": ("unet", 0.0),
    "early": ("unet", None),
    "intermediate": ("fusion", None),
    "attention": ("fusion_attention", None),
    "late": ("fusion_late", None),
}
# Of each channel: which label it shows, how bright, and how much noise there is, in deviations of its field.
CHANNELS = {"A": (1, 2.0, 0.5), "B": (2, -2.0, 0.8)}
TEST_SHARE = 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="the hippocampus set: images/ beside labels/")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each training")
    parser.add_argument("--steps", type=int, help="in place of the minutes")
    parser.add_argument("--cases", type=int, default=80)
    parser.add_argument("--holes", type=float, default=0.3, help="share of the training cases that lack an image")
    parser.add_argument("--dropout", type=float, help="how often an image is left out, in place of what is planned")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, help="keep data and runs here")
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp())
    cases = simulated(given.data, out / "data", given.cases, given.holes)
    print(f"Machine: {described()}.")
    print(f"Command: `python bench/{Path(__file__).name} {' '.join(sys.argv[1:])}`\n")
    print(f"{cases['train']} training cases, of which {cases['lack']} lack an image, and {cases['test']} test cases.\n")
    rows = pd.DataFrame([row for seed in given.seeds for way in given.ways for row in _measured(given, way, seed, out)])
    rows.to_csv(out / "fusion.csv", index=False)
    print("| way | images | label | Dice, each seed (95 % interval) | mean | minutes |\n|---|---|---|---|---|---|")
    for (way, images, label), of_one in rows.groupby(["way", "images", "label"], sort=False):
        each = ", ".join(f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})" for one in of_one.itertuples())
        minutes = of_one["minutes"].mean()
        print(f"| {way} | {images} | {label} | {each} | {of_one['value'].mean():.3f} | {minutes:.1f} |")


def simulated(source: Path, folder: Path, count: int, holes: float) -> dict[str, int]:
    """nnU-Net raw data of so many cases; how many train, lack an image, and test."""
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    counts = {"train": 0, "lack": 0, "test": 0}
    for n, path in enumerate(sorted((source / "labels").glob("*.nii.gz"))[:count]):
        labels = nibabel.load(path)
        part = "test" if n % round(1 / TEST_SHARE) == 0 else "train"
        suffix, turn = ("Ts", None) if part == "test" else ("Tr", counts["train"])
        # The share is kept as evenly as it can be, and A and B are lacking in turn.
        lacks = turn is not None and int((turn + 1) * holes) > int(turn * holes)
        absent = list(CHANNELS)[counts["lack"] % len(CHANNELS)] if lacks else None
        counts[part] += 1
        counts["lack"] += lacks
        values = np.asarray(labels.dataobj).astype(np.uint8)
        case = path.name.removesuffix(".nii.gz")
        nibabel.Nifti1Image(values, labels.affine).to_filename(folder / f"labels{suffix}" / path.name)
        for place, channel in enumerate(CHANNELS):
            if channel != absent:
                image = nibabel.Nifti1Image(_drawn(values, channel, n), labels.affine)
                image.to_filename(folder / f"images{suffix}" / f"{case}_{place:04}.nii.gz")
    described = {
        "channel_names": {str(place): channel for place, channel in enumerate(CHANNELS)},
        "labels": {"background": 0, "anterior": 1, "posterior": 2},
        "numTraining": counts["train"],
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(described))
    return counts


def _drawn(labels: NDArray[np.uint8], channel: str, case: int) -> NDArray[np.float32]:
    """One structure in a smooth field and in noise; of the other one nothing."""
    label, bright, noise = CHANNELS[channel]
    rng = np.random.default_rng((case, label))
    field = ndimage.gaussian_filter(rng.normal(size=labels.shape), 4.0)
    shown = ndimage.gaussian_filter((labels == label).astype(np.float32), 0.7)
    values = field / field.std() + bright * shown + rng.normal(0, noise, labels.shape)
    return np.asarray(values, dtype=np.float32)


def _measured(given: argparse.Namespace, way: str, seed: int, out: Path) -> Iterator[dict[str, Any]]:
    family, dropout = WAYS[way]
    chosen: dict[str, Any] = {"network.name": family}
    dropout = given.dropout if dropout is None else dropout
    if dropout is not None:
        chosen["training.modality_dropout"] = dropout
    if given.steps is not None:
        chosen["training.steps"] = given.steps
    folder = out / f"{family}-{dropout}-seed{seed}"
    run = isocenter.train(out / "data", minutes=given.minutes, seed=seed, assignments=chosen, out=folder)
    print(f"{way}, seed {seed}: {run.steps} steps, {run.minutes:.1f} min", file=sys.stderr)
    rows = json.loads((folder / "evaluation" / "images.json").read_text())["rows"]
    for row in rows:
        if row["metric"] == "dice" and row["label"] != "all":
            told = {key: row[key] for key in ("label", "value", "low", "high")}
            yield {"way": way, "seed": seed, "images": " + ".join(row["images"]), **told, "minutes": run.minutes}


if __name__ == "__main__":
    main()
