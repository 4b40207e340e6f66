"""Pairs of hippocampus volumes laid on one another without training, by Hilum and by peers.

    python bench/registration.py --pairs 10                 # Hilum alone
    python bench/registration.py --peers all --record       # 40 pairs, about an hour and a half on two cores
    python bench/registration.py --peers all --small        # two pairs

Dice of the moving labels on the fixed image, by label; voxels that fold; how far points come back from where they
started when they go there and back; and processor seconds, each program in a process of its own for a peer. Nobody has
seen the labels before they are scored. ANTs runs on all pairs, the other peers on the first 20, SimpleITK, which takes
minutes a pair, on 8. What was measured lies in `.bench/registration.jsonl`, row by row: a run that was broken off goes
on from there, unless --again is given.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from beside import PLACE, arguments, peer, record

import hilum
from hilum.evaluation import intervals, mask_overlap
from hilum.registration import engine
from hilum.registration.engine import RegistrationSettings
from hilum.transforms import spatial_transforms

OURS = "Hilum"
LABELS = {1: "anterior", 2: "posterior"}
# {peer: pairs of the list that it runs on at most}
PEERS = {"ants": 40, "elastix": 20, "simpleitk": 8, "convexadam": 20}
KEPT = PLACE / "registration.jsonl"
SIDE = Path(__file__).parent / "sides" / "registration_peer.py"
COLUMNS = ["program", "fixed", "moving", *LABELS.values(), "folded_percent", "inverse_error_mm", "cpu_seconds"]


def main() -> None:
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--pairs", type=int, default=40, metavar="N", help="the first N pairs of the list")
    parser.add_argument("--peers", nargs="*", choices=[*PEERS, "all"], default=[], help="programs beside ours")
    parser.add_argument("--again", action="store_true", help="measure what was measured before, too")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    listed = pd.read_csv(given.data / "registration" / "hippocampus_pairs.csv").head(2 if given.small else given.pairs)
    folder, peers = given.data / "hippocampus", PEERS if "all" in given.peers else given.peers
    known = {} if given.again or not KEPT.is_file() else read_rows(given.threads)
    rows = []
    for number, pair in enumerate(listed.itertuples()):
        for name in [OURS, *(one for one in peers if number < PEERS[one])]:
            row = known.get((name, pair.fixed, pair.moving))
            if row is None:
                row = measured(name, folder, pair.fixed, pair.moving, given.threads)
                keep(row, given.threads)
            rows.append(row)
            print(json.dumps(row), flush=True)
    table = pd.DataFrame(rows, columns=COLUMNS)
    text = summary(table)
    print(text)
    if given.record:
        record("registration", "Registration without training", text, {"rows": rows, "threads": given.threads})


def measured(name: str, folder: Path, fixed: str, moving: str, threads: int) -> dict[str, Any]:
    """One pair by one program."""
    return ours(folder, fixed, moving) if name == OURS else theirs(name, folder, fixed, moving, threads)


def read_rows(threads: int) -> dict[tuple[str, str, str], dict[str, Any]]:
    """{(program, fixed, moving): row} of what was measured with as many threads."""
    lines = [json.loads(line) for line in KEPT.read_text(encoding="utf-8").splitlines()]
    return {(row["program"], row["fixed"], row["moving"]): row for of, row in lines if of == threads}


def keep(row: dict[str, Any], threads: int) -> None:
    """Add a row to those that were measured."""
    KEPT.parent.mkdir(exist_ok=True)
    with KEPT.open("a", encoding="utf-8") as file:
        file.write(json.dumps([threads, row]) + "\n")


def ours(folder: Path, fixed: str, moving: str) -> dict[str, Any]:
    """One pair by our engine: reading, registration, inverse and labels count, the pictures of the report do not."""
    began = time.process_time()
    first, second = (hilum.read(folder / "images" / name) for name in (fixed, moving))
    made = engine.register_images(first, second, RegistrationSettings())
    labels = hilum.read(folder / "labels" / moving)
    moved = spatial_transforms.carry_labels(labels.data[0], second.geometry, made.transform, first.geometry)
    seconds = time.process_time() - began
    determinants = spatial_transforms.jacobian_determinants(made.transform, first.geometry)
    errors = np.concatenate(
        [one.ravel() for one in spatial_transforms.inverse_errors(made.transform, made.inverse, first.geometry)]
    )
    return {
        "program": OURS, "fixed": fixed, "moving": moving, **scored(folder, fixed, moved),
        "folded_percent": spatial_transforms.folded_percent(determinants),
        "inverse_error_mm": float(errors.mean()), "cpu_seconds": seconds,
    }  # fmt: skip


def theirs(name: str, folder: Path, fixed: str, moving: str, threads: int) -> dict[str, Any]:
    """One pair by a peer, which writes the moved labels."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "moved.nii.gz"
        files = [folder / "images" / fixed, folder / "images" / moving, folder / "labels" / moving, out]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        limits = dict.fromkeys(("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), str(threads))
        subprocess.run([str(peer(name)), str(SIDE), name, *map(str, files)], check=True, env={**os.environ, **limits})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        moved = np.rint(hilum.read(out).data[0]).astype(int)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"program": name, "fixed": fixed, "moving": moving, **scored(folder, fixed, moved), "cpu_seconds": seconds}


def scored(folder: Path, fixed: str, moved: np.ndarray) -> dict[str, float]:
    """Dice of each label."""
    true = hilum.read(folder / "labels" / fixed).data[0]
    found = mask_overlap.overlap_by_label(moved, true, list(LABELS))
    return {name: found[value].dice for value, name in LABELS.items()}


def gain(differences: np.ndarray) -> str:
    """The mean of paired differences, with its interval."""
    estimate = intervals.bootstrap(differences, np.arange(len(differences)), seed=0)
    ends = "" if estimate.low is None else f" ({estimate.low:+.3f} to {estimate.high:+.3f})"
    return f"{estimate.value:+.3f}{ends}"


def summary(table: pd.DataFrame) -> str:
    """Means of each program, and of each peer the difference of its mean Dice from ours with a paired interval."""
    head = ("program", "pairs", *LABELS.values(), "folded, %", "inverse error, mm", "CPU s a pair", "ours less theirs")
    lines = [f"| {' | '.join(head)} |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    scores = table[list(LABELS.values())].mean(axis=1)
    mean = scores.set_axis(pd.MultiIndex.from_frame(table[["program", "fixed", "moving"]]))
    for program, rows in table.groupby("program", sort=False):
        apart = ""
        if program != OURS:
            apart = gain((mean[OURS] - mean[program]).dropna().to_numpy())  # on the pairs that both have
        figures = rows[COLUMNS[3:]].mean()
        cells = [f"{figures[name]:.3f}" if np.isfinite(figures[name]) else "" for name in COLUMNS[3:-1]]
        lines.append(f"| {program} | {len(rows)} | {' | '.join(cells)} | {figures['cpu_seconds']:.1f} | {apart} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
