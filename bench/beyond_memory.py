"""Volumes beyond the memory that is allowed: trained on, predicted and explained, with the memory that each took.

    python bench/beyond_memory.py --out DIR --record

A simulated volume of 512 x 512 x 8192 voxels (int16, 4 GiB, uncompressed NIfTI, steps of .2 mm) lies among small: a
network is trained for a few steps on patches of 1.5 mm, and predicts it. `explain` gets a volume of 512 x 512 x 300
voxels in steps of .4 mm and the same network, so that few windows cover it. Anonymous memory is what `smaps_rollup` has
of all processes together, looked at every fifth of a second; mapped files do not count. Cells that have ended are lines
of DIR/cells.jsonl, and are not repeated; those of an earlier record stay in it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import psutil
from recorded import known, measured_cell, record, row_words

SIDE, LARGE, EXPLAINED = 512, 8192, 300
STEP_MM, GRID_MM, PAUSE = 0.2, 1.5, 0.2
SMALL, SMALL_SIDE, SMALL_SLICES = 5, 128, 256
ASKED_GIB, ASKED_EXPLAINED_GIB = 2.0, 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--slices", type=int, default=LARGE, help="of the large volume")
    parser.add_argument("--steps", type=int, default=6, help="of the training")
    parser.add_argument("--only", nargs="+", default=[""], metavar="START", help="cells whose names begin so")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    size = f"{SIDE} x {SIDE} x {given.slices}"
    cells: dict[str, Callable[[], dict[str, Any]]] = {
        f"train on {size}": lambda: trained(given),
        f"predict {size}": lambda: predicted(given),
        f"explain {SIDE} x {SIDE} x {EXPLAINED}": lambda: explained(given),
    }
    chosen = {name: measure for name, measure in cells.items() if name.startswith(tuple(given.only))}
    measured = {name: measured_cell(given.out, name, measure) for name, measure in chosen.items()}
    rows = {**known("beyond_memory").get("rows", {}), **measured}
    lines = [f"| {name} | {row_words(row)} |" for name, row in rows.items()]
    text = "\n".join(["| what | figure |", "|---|---|", *lines])
    print(text)
    if given.record:
        record("beyond_memory", "Beyond the memory that is allowed", text, {"rows": rows})


def trained(given: Any) -> dict[str, Any]:
    """A few steps on the large volume and small ones, all of which train; nothing of them is in the cache."""
    data = given.out / "data"
    shutil.rmtree(given.out / "cache", ignore_errors=True)
    if not (data / "labels" / "large.nii").is_file():
        for number in range(SMALL):
            simulate(data, f"small_{number}", (SMALL_SIDE, SMALL_SIDE, SMALL_SLICES), number)
        simulate(data, "large", (SIDE, SIDE, given.slices), SMALL)
    words = ["train", data, "--out", given.out / "run", "--all", "--overwrite", "--modality", "CT", "--allow-large"]
    grid = f"preprocessing.spacing=[{GRID_MM}, {GRID_MM}, {GRID_MM}]"
    # A gate would see each case predicted, the large one among them: that is the next cell.
    words += ["--set", f"training.steps={given.steps}", "--set", grid, "--set", "guard.gate=false"]
    return watched_command(words, given.out, ASKED_GIB)


def predicted(given: Any) -> dict[str, Any]:
    words = ["predict", given.out / "run", given.out / "data" / "images" / "large.nii", "--out", given.out / "answer"]
    return watched_command([*words, "--overwrite", "--allow-large"], given.out, ASKED_GIB)


def explained(given: Any) -> dict[str, Any]:
    data = given.out / "explained"
    simulate(data, "case", (SIDE, SIDE, EXPLAINED), 0, step=2 * STEP_MM)
    words = ["explain", given.out / "run", data / "images" / "case.nii", "--out", given.out / "maps", "--overwrite"]
    return watched_command(words, given.out, ASKED_EXPLAINED_GIB)


def watched_command(words: Sequence[object], out: Path, asked_gib: float) -> dict[str, Any]:
    """Seconds and memory of a command with its processes; what it said last, where it failed."""
    command = [sys.executable, "-m", "hilum", *map(str, words), "--device", "cpu", "--threads", "1"]
    log, began, most = out / f"{words[0]}.log", os.times(), {"Anonymous": 0.0, "Rss": 0.0}
    with log.open("w", encoding="utf-8") as file:
        environment = {**os.environ, "HILUM_CACHE": str(out.resolve() / "cache")}
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        while process.poll() is None:
            now = memory_of(process.pid)
            most = {kind: max(most[kind], now[kind]) for kind in most}
            time.sleep(PAUSE)
    ended = os.times()
    spent = ended.children_user + ended.children_system - began.children_user - began.children_system
    row = {"anonymous GiB": most["Anonymous"], "with mapped files GiB": most["Rss"], "asked GiB": asked_gib}
    row |= {"CPU seconds": round(spent), "reached": most["Anonymous"] <= asked_gib}
    if process.returncode:
        last = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()][-1]
        row |= {"failed": last.replace(str(out.resolve()), ".").replace(str(out), "."), "reached": False}
    return {**row, "wall seconds": round(ended.elapsed - began.elapsed)}


def memory_of(root: int) -> dict[str, float]:
    """GiB of a process and its children, as `smaps_rollup` counts them."""
    total = {"Anonymous": 0.0, "Rss": 0.0}
    try:
        parent = psutil.Process(root)
        pids = [root, *(child.pid for child in parent.children(recursive=True))]
    except psutil.NoSuchProcess:
        return total
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended
            continue
        for line in lines:
            kind, _, rest = line.partition(":")
            if kind in total:
                total[kind] += int(rest.split()[0]) / 2**20
    return total


def simulate(data: Path, name: str, shape: tuple[int, int, int], seed: int, step: float = STEP_MM) -> None:
    """A body with an organ along its axis and noise, in Hounsfield units, written plane by plane."""
    rng, side = np.random.default_rng(seed), np.linspace(-1, 1, shape[0], dtype=np.float32)
    x, y = side[:, None], side[None]
    noise = rng.normal(0, 20, (5, *shape[:2])).astype(np.float32)
    middle, paths = rng.uniform(-0.2, 0.2, 2), {}
    for part, kind in (("images", np.int16), ("labels", np.uint8)):
        (data / part).mkdir(parents=True, exist_ok=True)
        header = nibabel.Nifti1Header()
        header.set_data_dtype(kind)
        header.set_data_shape(shape)
        header.set_sform(np.diag([-step, -step, step, 1.0]), code=1)
        header["vox_offset"], header["magic"] = 352, b"n+1"
        paths[part] = data / part / f"{name}.nii"
        paths[part].write_bytes(header.binaryblock + bytes(4))
    with paths["images"].open("ab") as image, paths["labels"].open("ab") as labels:
        for k in range(shape[2]):
            wave = 0.1 * np.sin(2 * np.pi * k / shape[2])
            organ = (x - middle[0] - wave) ** 2 + (y - middle[1]) ** 2 < 0.06 * (1 + np.sin(np.pi * k / shape[2])) / 2
            plane = np.where(x**2 / 0.8 + y**2 / 0.6 < 1, np.float32(40), np.float32(-1000))
            plane[organ] = 140
            image.write(np.rint(plane + noise[k % len(noise)]).clip(-1024, 3071).astype("<i2").tobytes(order="F"))
            labels.write(organ.astype(np.uint8).tobytes(order="F"))


if __name__ == "__main__":
    main()
