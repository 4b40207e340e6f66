"""Evidently looks at each day's cases: which columns it calls drifted. Streams and answers are arrays in files.

python drift_evidently.py streams.npz answers.npz
"""

import sys
import warnings

import numpy as np
import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset

warnings.filterwarnings("ignore")
source, out = sys.argv[1:3]
with np.load(source) as kept:
    reference, values, per_day = kept["reference"], kept["values"], int(kept["per_day"])
names = [f"feature_{n}" for n in range(values.shape[2])]
flagged = np.zeros((len(values), values.shape[1] // per_day), dtype=bool)
for stream, (known, new) in enumerate(zip(reference, values, strict=True)):
    first = pd.DataFrame(known, columns=names)
    for day in range(flagged.shape[1]):
        now = pd.DataFrame(new[day * per_day : (day + 1) * per_day], columns=names)
        made = Report([DataDriftPreset()]).run(now, first).dict()
        [share] = [one["value"]["count"] for one in made["metrics"] if "DriftedColumnsCount" in one["metric_name"]]
        flagged[stream, day] = share > 0
np.savez(out, flagged=flagged)
