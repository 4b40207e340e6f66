"""Isocenter's own training for so many steps, and how long one took.

    train_steps.py DATA LABELS OUT N [SECTION.NAME=JSON...]

The steps are those of the run's log, loading and augmentation with them. Its last line of output is JSON: seconds of a
step (median), the share that was waited for data, and what the run decided on how to compute, where it did.
"""

import json
import statistics
import sys
from pathlib import Path

import pandas as pd

import isocenter

# Steps that warm up caches, and compile.
WARMUP = 5

data, labels, out, steps = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
by_hand = dict(one.split("=", 1) for one in sys.argv[5:])
assignments = {name: json.loads(value) for name, value in by_hand.items()}
assignments |= {"training.steps": steps, "training.validations": 1}
isocenter.train(data, out=out, everything=True, overwrite=True, labels=labels, assignments=assignments)
table = pd.read_csv(out / "log.csv")
lengths = table["seconds"].diff().dropna().tolist()
counted = lengths[WARMUP:] or lengths
waiting = table["waiting"].iloc[-1] if "waiting" in table else None
said = {"step": statistics.median(counted), "waiting": waiting, "steps": len(table)}
print(json.dumps(said))
