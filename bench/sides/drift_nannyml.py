"""NannyML looks at each day's cases: which days it alerts of. Streams and answers are arrays in files.

python drift_nannyml.py streams.npz answers.npz
"""

import sys
import warnings

import nannyml
import numpy as np
import pandas as pd

warnings.filterwarnings("ignore")
source, out = sys.argv[1:3]
with np.load(source) as kept:
    reference, values, per_day = kept["reference"], kept["values"], int(kept["per_day"])
names = [f"feature_{n}" for n in range(values.shape[2])]
flagged = np.zeros((len(values), values.shape[1] // per_day), dtype=bool)
for stream, (known, new) in enumerate(zip(reference, values, strict=True)):
    looking = nannyml.UnivariateDriftCalculator(column_names=names, chunk_size=per_day)
    looking.fit(pd.DataFrame(known, columns=names))
    found = looking.calculate(pd.DataFrame(new, columns=names)).filter(period="analysis").to_df()
    alerts = [found[column] for column in found.columns if column[-1] == "alert"]
    flagged[stream] = np.any(alerts, axis=0)
np.savez(out, flagged=flagged)
