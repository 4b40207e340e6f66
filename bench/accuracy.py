"""How good the main job gets in so many minutes: trains, evaluates, and prints a table with machine and command.

    python bench/accuracy.py ../shared/data/hippocampus --labels 1=anterior,2=posterior --minutes 10 --seeds 0 1 2

Each seed draws its own split and its own weights, so the spread over seeds is that of the whole job. No option is
chosen by a test part.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

import isocenter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--labels")
    parser.add_argument("--metrics", nargs="+", default=["dice", "auroc", "accuracy"])
    parser.add_argument("--out", type=Path, help="keep the runs here")
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp())
    options = {"labels": given.labels} if given.labels else {}
    found: dict[tuple[str, str], list[float]] = {}
    intervals: dict[tuple[str, str], str] = {}
    for seed in given.seeds:
        began = time.monotonic()
        folder = out / f"{given.data.stem}-seed{seed}"
        run = isocenter.train(given.data, minutes=given.minutes, seed=seed, out=folder, overwrite=True, **options)
        print(f"seed {seed}: {run.steps} steps, {(time.monotonic() - began) / 60:.2f} min", file=sys.stderr)
        for row in run.rows:
            if row.metric in given.metrics:
                found.setdefault((row.metric, row.label), []).append(row.estimate.value)
                intervals[row.metric, row.label] = f"{row.estimate.low} to {row.estimate.high}"
        record = json.dumps(run.as_record(), default=str)
        (out / f"{folder.name}.json").write_text(record, encoding="utf-8")
    cores, memory = psutil.cpu_count(), psutil.virtual_memory().total / 2**30
    print(f"Machine: {_processor()}, {cores} cores, {memory:.0f} GiB, {platform.system()}.")
    print(f"Command: `python bench/{Path(__file__).name} {' '.join(sys.argv[1:])}`\n")
    print(
        "| metric | label | mean of seeds | lowest | highest | interval of the last seed |\n|---|---|---|---|---|---|"
    )
    for (metric, label), values in found.items():
        low, high = (f"{float(end):.3f}" for end in intervals[metric, label].split(" to "))
        mean = statistics.fmean(values)
        print(f"| {metric} | {label} | {mean:.4f} | {min(values):.4f} | {max(values):.4f} | {low} to {high} |")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
