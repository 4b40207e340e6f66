"""Registration that was trained on labelled volumes, by Isocenter and by VoxelMorph in equal minutes.

    python bench/registration_trained.py --part isocenter --seed 0     # 20 minutes; parts may run at the same time
    python bench/registration_trained.py --part voxelmorph --seed 0
    python bench/registration_trained.py --record                      # the table of what was measured
    python bench/registration_trained.py --small                       # a minute each

Both train on the 120 hippocampus volumes that are in none of the 40 pairs of `bench/registration.py`, with the same
labels, one thread each, and are scored on those pairs: Dice of the moving labels on the fixed image, voxels that
fold, seconds a pair without refinement, warm. VoxelMorph gets what it asks for: images from 0 to 1 centred on one
grid of 48 x 64 x 48, its U-Net with scaling and squaring, the mean square (its local correlation takes 15 s a step
on one core), the penalty of gradients and Dice of the labels; its step size is the better of 1e-3 and 1e-4 after
two minutes each on pairs of training volumes that are kept apart. Ours plans for itself.
Parts that were measured stay in `.bench/registration_trained`.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from beside import PLACE, THREADS, arguments, peer, record

import isocenter
from isocenter.reading import image_pairs
from isocenter.runtime import Model, ModelRequest
from isocenter.transforms import spatial_transforms
from registration import LABELS, gain, scored

HOME = PLACE / "registration_trained"
OURS, PEER = "isocenter", "voxelmorph"
SEEDS = (0, 1)
SIDE = Path(__file__).parent / "sides" / "voxelmorph_peer.py"
# That both programs see: a grid that holds every volume.
GRID = (48, 64, 48)


def main() -> None:
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--part", choices=[OURS, PEER], help="train and score one program")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    minutes = 1.0 if given.small else given.minutes
    folder = given.data / "hippocampus"
    pairs = pd.read_csv(given.data / "registration" / "hippocampus_pairs.csv").head(2 if given.small else 40)
    if given.part is not None:
        home = HOME / f"{given.part}-{minutes:g}-{given.seed}"
        home.mkdir(parents=True, exist_ok=True)
        rows = {OURS: ours, PEER: theirs}[given.part](folder, pairs, minutes, given.seed, home)
        (home / "rows.json").write_text(json.dumps(rows, indent=1))
        print(summary(pd.DataFrame(rows)))
        return
    files = [HOME / f"{part}-{minutes:g}-{seed}" / "rows.json" for part in (OURS, PEER) for seed in SEEDS]
    rows = [row for file in files if file.is_file() for row in json.loads(file.read_text())]
    text = summary(pd.DataFrame(rows))
    print(text)
    if given.record:
        record("registration_trained", "Registration that was trained", text, {"rows": rows, "minutes": minutes})


def apart(folder: Path, pairs: pd.DataFrame) -> list[str]:
    """The volumes that are in no pair."""
    return sorted({file.name for file in (folder / "images").iterdir()} - {*pairs.fixed, *pairs.moving})


def all_pairs(folder: Path) -> pd.DataFrame:
    """The whole list of pairs, however few are scored: no volume of it trains."""
    return pd.read_csv(folder.parent / "registration" / "hippocampus_pairs.csv")


def ours(folder: Path, pairs: pd.DataFrame, minutes: float, seed: int, home: Path) -> list[dict[str, Any]]:
    """Train by the command's own plan, and score without and with refinement."""
    data = home / "data"
    for part in ("images", "labels"):
        (data / part).mkdir(parents=True, exist_ok=True)
        for name in apart(folder, all_pairs(folder)):
            link = data / part / name
            if not link.exists():
                link.symlink_to((folder / part / name).resolve())
    run = home / "run"
    if not (run / "report.html").is_file():
        isocenter.train(data, task="registration", minutes=minutes, seed=seed, threads=1, device="cpu", out=run)
    model = isocenter.load(run)
    rows = []
    for refined in (False, True):
        name = f"{OURS}, 20 steps of refinement" if refined else OURS
        rows += [answered(model, folder, pair, name, seed, refined=refined) for pair in pairs.itertuples()]
    return rows


def answered(model: Model, folder: Path, pair: Any, name: str, seed: int, *, refined: bool) -> dict[str, Any]:
    """One pair by our network: reading does not count, the network and the transform do."""
    fixed, moving = (isocenter.read(folder / "images" / one) for one in (pair.fixed, pair.moving))
    began = time.perf_counter()
    case = image_pairs.pair_of_images(fixed, moving, pair.fixed, one_world=False)
    prediction = model.predict(case, ModelRequest(refined=refined))
    transform = prediction.transform
    assert transform is not None
    seconds = time.perf_counter() - began
    drawn = isocenter.read(folder / "labels" / pair.moving)
    moved = spatial_transforms.carry_labels(drawn.data[0], moving.geometry, transform, fixed.geometry)
    folded = spatial_transforms.folded_percent(spatial_transforms.jacobian_determinants(transform, fixed.geometry))
    return {**judged(folder, pair, moved), "program": name, "seed": seed, "folded_percent": folded, "seconds": seconds}


def theirs(folder: Path, pairs: pd.DataFrame, minutes: float, seed: int, home: Path) -> list[dict[str, Any]]:
    """Train and answer by the peer in its environment, which sees arrays and gives arrays."""
    trains = apart(folder, all_pairs(folder))
    arrays = {
        "images": np.stack([centred(folder / "images" / name) for name in trains]),
        "labels": np.stack([centred(folder / "labels" / name) for name in trains]),
        **{side: np.stack([centred(folder / "images" / name) for name in pairs[side]]) for side in ("fixed", "moving")},
        "drawn": np.stack([centred(folder / "labels" / name) for name in pairs.moving]),
    }
    np.savez(home / "arrays.npz", **arrays)
    limits = dict.fromkeys(THREADS, "1")
    command = [str(peer(PEER)), str(SIDE), str(home), str(minutes), str(seed)]
    subprocess.run(command, check=True, env={**os.environ, **limits})
    found = np.load(home / "moved.npz")
    rows = []
    for number, pair in enumerate(pairs.itertuples()):
        true = isocenter.read(folder / "labels" / pair.fixed).data[0]
        moved = found["moved"][number][within(true.shape)]
        figures = {"folded_percent": float(found["folded"][number]), "seconds": float(found["seconds"][number])}
        rows.append({**judged(folder, pair, moved), "program": PEER, "seed": seed, **figures})
    return rows


def centred(file: Path) -> np.ndarray:
    """A volume in the middle of the common grid."""
    volume = np.asarray(isocenter.read(file).data[0])
    whole = np.zeros(GRID, volume.dtype)
    whole[within(volume.shape)] = volume
    return whole


def within(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Where a volume of this shape lies in the common grid."""
    starts = ((size - own) // 2 for size, own in zip(GRID, shape, strict=True))
    return tuple(slice(start, start + own) for start, own in zip(starts, shape, strict=True))


def judged(folder: Path, pair: Any, moved: np.ndarray) -> dict[str, Any]:
    """The pair, and the Dice of each label."""
    return {"fixed": pair.fixed, "moving": pair.moving, **scored(folder, pair.fixed, moved)}


def summary(table: pd.DataFrame) -> str:
    """Means of each program and seed, and of the peer the paired difference of mean Dice from ours."""
    lines = ["| program | seed | pairs | anterior | posterior | mean | folded, % | s a pair | ours less theirs |"]
    lines.append("|" + "---|" * 9)
    table = table.assign(mean=table[list(LABELS.values())].mean(axis=1))
    for (program, seed), rows in table.groupby(["program", "seed"], sort=False):
        own = table[(table.program == OURS) & (table.seed == seed)]
        gap = ""
        if program == PEER and len(own):
            joined = own.merge(rows, on=["fixed", "moving"], suffixes=("_ours", "_theirs"))
            gap = gain((joined.mean_ours - joined.mean_theirs).to_numpy())
        means = " | ".join(f"{rows[name].mean():.3f}" for name in (*LABELS.values(), "mean", "folded_percent"))
        lines.append(f"| {program} | {seed} | {len(rows)} | {means} | {rows.seconds.median():.2f} | {gap} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
