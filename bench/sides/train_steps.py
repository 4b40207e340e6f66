"""Hilum's own training for so many minutes, and how long a step took.

    train_steps.py DATA LABELS OUT MINUTES DEVICE [SECTION.NAME=JSON...]

Minutes and no number of steps, so that the training finds by its own probe how this machine computes fastest. The steps
are those of the run's log, loading and augmentation with them. Its last line of output is JSON: seconds of a step
(median), the share that was waited for data, what the probe decided, and the share of the machine's peak where the run
measured it.
"""

import json
import statistics
import sys
from pathlib import Path

import pandas as pd

import hilum

# Steps that warm up caches.
WARMUP = 5

data, labels, out, minutes = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), float(sys.argv[4])
device, words = sys.argv[5], sys.argv[6:]
by_hand = dict(one.split("=", 1) for one in words)
assignments = {name: json.loads(value) for name, value in by_hand.items()}
hilum.train(
    data,
    out=out,
    minutes=minutes,
    device=device,
    everything=True,
    overwrite=True,
    labels=labels,
    assignments=assignments,
)
lengths = pd.read_csv(out / "log.csv")["seconds"].diff().dropna().tolist()
state = json.loads((out / "checkpoints" / "last" / "state.json").read_text())
work = state.get("work") or {}
reached = work["operations"] / (work["step"] * work["peak"]) if work.get("step") else None
figures = {
    "step": statistics.median(lengths[WARMUP:] or lengths),
    "waiting": state["waiting"],
    "steps": len(lengths) + 1,
    "compute": state.get("compute"),
    "reached": reached,
    "peak": work.get("peak"),
}
print(json.dumps(figures))
