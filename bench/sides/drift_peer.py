"""A peer looks at each day's cases, with its defaults: PEER STREAMS ANSWERS, arrays in files.

Run by `bench/drift_beside.py` in the peer's own environment; writes which days it calls changed, (streams, days).
"""

import sys
import warnings

import numpy as np
import pandas as pd


def evidently(known, new, per_day):
    from evidently import Report
    from evidently.presets import DataDriftPreset

    flagged = []
    for start in range(0, len(new), per_day):
        made = Report([DataDriftPreset()]).run(new[start : start + per_day], known).dict()
        [count] = [one["value"]["count"] for one in made["metrics"] if "DriftedColumnsCount" in one["metric_name"]]
        flagged.append(count > 0)
    return flagged


def nannyml(known, new, per_day):
    import nannyml

    looking = nannyml.UnivariateDriftCalculator(column_names=list(known), chunk_size=per_day).fit(known)
    found = looking.calculate(new).filter(period="analysis").to_df()
    return np.any([found[column] for column in found.columns if column[-1] == "alert"], axis=0)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    name, source, out = sys.argv[1:4]
    with np.load(source) as kept:
        reference, values, per_day = kept["reference"], kept["values"], int(kept["per_day"])
    names = [f"feature_{number}" for number in range(values.shape[2])]
    pairs = [(pd.DataFrame(known, columns=names), pd.DataFrame(new, columns=names))
             for known, new in zip(reference, values, strict=True)]  # fmt: skip
    look = {"evidently": evidently, "nannyml": nannyml}[name]
    np.savez(out, flagged=np.array([look(known, new, per_day) for known, new in pairs], dtype=bool))
