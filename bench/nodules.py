"""Nodules in simulated volumes: maps of centres (`unet`, `pyramid`) beside MONAI's `retinanet`, for as many minutes.

    python bench/nodules.py --minutes 20 --seeds 0 1 2
    python bench/nodules.py --minutes 20 --seeds 0 1 2 --out nodules --resume --record

Every volume is made here: noise of two textures, tubes as bright as nodules, so that brightness alone finds nothing,
and ellipsoids of several sizes and contrasts, whose boxes are known. All that is said holds for such volumes. The test
volumes are the same for all seeds of training. Every step is a command of Isocenter.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from machine import described
from recorded import record
from scipy import ndimage

SHAPE, TRIAL_SHAPE = (96, 96, 64), (32, 32, 32)
# Training and test volumes, of which each is of one patient.
CASES, TRIAL_CASES = (60, 20), (12, 4)
NODULES, TUBES = (2, 7), (2, 5)
# Voxels that half an ellipsoid is long, and standard deviations of the noise by which it is brighter.
HALF, CONTRAST = (2.0, 7.0), (1.0, 3.0)
# Standard deviations in voxels of the fine and the coarse noise.
TEXTURES = (0.8, 4.0)
NETWORKS = ("unet", "pyramid", "retinanet")
SHOWN = ("cpm", "ap10", "sensitivity_at_1", "sensitivity_small", "sensitivity_medium", "sensitivity_large")
COLUMNS = ("x0", "y0", "z0", "x1", "y1", "z1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="of each training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, help="as of `isocenter train`")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--small", action="store_true", help="few steps on little volumes: it measures nothing")
    parser.add_argument("--record", action="store_true", help="write the figures into docs/benchmarks")
    parser.add_argument("--out", type=Path, help="keep the volumes and the runs here")
    parser.add_argument("--resume", action="store_true", help="keep what has been trained and scored in --out before")
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp(prefix="isocenter-"))
    shape, counts = (TRIAL_SHAPE, TRIAL_CASES) if given.small else (SHAPE, CASES)
    data = {
        part: cohort(out / part, count, shape, first=10**6 * number)
        for number, (part, count) in enumerate(zip(("train", "test"), counts, strict=True))
    }
    rows = [
        row
        for seed in given.seeds
        for network in given.networks
        for row in _measured(given, data, network, seed, out / f"{network}{seed}")
    ]
    table, text = pd.DataFrame(rows), summary(rows, given.networks)
    table.to_csv(out / "nodules.csv", index=False)
    print(f"Machine: {described()}.")
    print(f"Command: `python bench/{Path(__file__).name} {' '.join(sys.argv[1:])}`\n")
    print(text)
    if given.record:
        setting = {"shape": shape, "volumes": counts, "minutes": given.minutes, "seeds": given.seeds}
        about = (
            f"SIMULATED volumes of {' x '.join(map(str, shape))} voxels, {counts[0]} to train (and select) and "
            f"{counts[1]} to test, the same for all; nodules 4 to 14 voxels across beside tubes as bright. "
            f"{given.minutes:g} minutes each, with prediction and report of the run's own test part."
        )
        record("nodules", "Simulated nodules in volumes", f"{about}\n\n{text}", {**setting, "rows": rows})


def summary(rows: Sequence[dict[str, Any]], networks: Sequence[str]) -> str:
    """A line for each network and figure."""
    table = pd.DataFrame(rows)
    lines = ["| network | figure | mean of seeds | SD of seeds | each seed (95 % interval) |", "|---|---|---|---|---|"]
    for network in networks:
        for metric in SHOWN:
            own = table[(table["network"] == network) & (table["metric"] == metric)]
            values = own["value"].astype(float).tolist()
            apart = f"{statistics.stdev(values):.3f}" if len(values) > 1 else "one seed"
            each = "; ".join(f"{one.value:.3f} ({_interval(one.low, one.high)})" for one in own.itertuples())
            lines.append(f"| `{network}` | {metric} | {statistics.fmean(values):.3f} | {apart} | {each} |")
    return "\n".join(lines)


def _interval(low: float, high: float) -> str:
    return "no interval" if np.isnan(low) else f"{low:.3f} to {high:.3f}"


def cohort(folder: Path, count: int, shape: tuple[int, ...], first: int) -> Path:
    """A folder of so many volumes, and the table of their boxes."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        name = f"volume{number:03}.nii.gz"
        volume, boxes = simulated(np.random.default_rng(first + number), shape)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / name)
        rows += [
            {"image": name, "label": "nodule", "patient": f"p{number}", **dict(zip(COLUMNS, box, strict=True))}
            for box in boxes
        ]
    pd.DataFrame(rows).to_csv(folder / "boxes.csv", index=False)
    return folder


def simulated(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, list[list[float]]]:
    """A volume in float32, and the low and high edges of its nodules in voxels.

    The noise of each texture has a standard deviation of 1. No nodule touches another, or the edge.
    """
    volume = sum(_textured(rng, shape, width) for width in TEXTURES)
    places = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in shape), indexing="ij"))
    for _ in range(rng.integers(*TUBES)):
        volume += rng.uniform(*CONTRAST) * _tube(rng, places, shape)
    boxes: list[list[float]] = []
    for _ in range(rng.integers(*NODULES)):
        half = rng.uniform(*HALF) * rng.uniform(0.8, 1.25, 3)
        centre = np.array(
            [rng.uniform(length + 1, size - length - 1) for length, size in zip(half, shape, strict=True)]
        )
        box = [*(centre - half), *(centre + half)]
        if any(_touch(box, other) for other in boxes):
            continue
        away = (((places - centre.reshape(3, 1, 1, 1)) / half.reshape(3, 1, 1, 1)) ** 2).sum(axis=0)
        volume += rng.uniform(*CONTRAST) * 2 * (away < 1)
        boxes.append([round(float(edge), 3) for edge in box])
    return volume.astype(np.float32), boxes


def _textured(rng: np.random.Generator, shape: tuple[int, ...], width: float) -> np.ndarray:
    noise = ndimage.gaussian_filter(rng.normal(size=shape), width)
    return np.asarray(noise / noise.std())


def _tube(rng: np.random.Generator, places: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Where a straight tube runs through the whole volume, as a vessel does."""
    along = rng.normal(size=3)
    along /= np.linalg.norm(along)
    away = places - (rng.uniform(0.2, 0.8, 3) * shape).reshape(3, 1, 1, 1)
    across = away - np.tensordot(along, away, axes=1) * along.reshape(3, 1, 1, 1)
    return np.asarray((across**2).sum(axis=0) < rng.uniform(1.5, 3.5) ** 2)


def _touch(box: Sequence[float], other: Sequence[float]) -> bool:
    return all(box[axis] < other[axis + 3] + 1 and other[axis] < box[axis + 3] + 1 for axis in range(3))


def _measured(
    given: argparse.Namespace, data: dict[str, Path], network: str, seed: int, out: Path
) -> Iterator[dict[str, Any]]:
    length, scored = ["--minutes", given.minutes], out.with_name(f"{out.name}-scored")
    if given.small:
        length = ["--set", "training.steps=4", "--set", "training.batch=2"]
    threads = [] if given.threads is None else ["--threads", given.threads]
    if not (given.resume and (scored / "summary.json").is_file()):
        _isocenter(
            "train", data["train"], "--layout", "box_table", "--modality", "MR", "--seed", seed, "--out", out,
            "--device", given.device, *threads, "--set", f"network.name={network}", *length,
        )  # fmt: skip
        _isocenter(
            "evaluate", out, data["test"], "--layout", "box_table", "--modality", "MR", "--out", scored,
            "--device", given.device, *threads,
        )  # fmt: skip
    rows = json.loads((scored / "summary.json").read_text())["rows"]
    for metric in SHOWN:
        [row] = [one for one in rows if (one["metric"], one["label"]) == (metric, "all")]
        bounds = {key: np.nan if row[key] is None else row[key] for key in ("value", "low", "high")}
        yield {"network": network, "seed": seed, "metric": metric, "n": row["n"], "how": row["method"], **bounds}


def _isocenter(*words: object) -> None:
    command = [sys.executable, "-c", "from isocenter.cli import main; main()", *map(str, words)]
    subprocess.run(command, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
