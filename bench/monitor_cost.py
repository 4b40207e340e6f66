"""What watching costs: 10,000 cases through one watch, and a report of 100,000 jobs.

python bench/monitor_cost.py --record
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from beside import ISOCENTER, arguments, record
from watched import watched

from isocenter.monitoring import e_detectors

ASKED_WATCH_S, ASKED_REPORT_S, ASKED_MIB = 1.0, 30.0, 1024.0


def main() -> None:
    given = arguments(__doc__, repeats=3).parse_args()
    jobs = 5000 if given.small else 100_000
    random = np.random.default_rng(0)
    seconds = []
    for _ in range(given.repeats):
        reference, values = random.normal(size=300), random.normal(size=10_000)
        began = time.perf_counter()
        e_detectors.watch_values(reference, values, run_length=1e4)
        seconds.append(time.perf_counter() - began)
    with TemporaryDirectory() as place:
        table = Path(place) / "jobs.parquet"
        written(random, jobs).to_parquet(table)
        command = [ISOCENTER, "monitor", str(table), "--by", "station,software", "--out", f"{place}/out"]
        seen = watched(
            command, environment=dict(os.environ), folder=Path(place), log=Path(place) / "log", cores=2, at_most=600
        )
        if seen.returncode:
            sys.exit((Path(place) / "log.err").read_text())
    rows = [
        ("10,000 cases through a watch", f"{np.median(seconds):.2f} s", f"{ASKED_WATCH_S:g} s"),
        (f"report of {jobs:,} jobs", f"{seen.seconds:.1f} s", f"{ASKED_REPORT_S:g} s"),
        ("its memory", f"{seen.peak_mib:.0f} MiB", f"{ASKED_MIB:g} MiB"),
    ]
    text = "\n".join(["| what | reached | asked |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)])
    print(text)
    if given.record:
        record("monitor_cost", "What watching costs", text, {"rows": rows})


def written(random: np.random.Generator, count: int) -> pd.DataFrame:
    """Jobs of three stations, with one finding and eight measures."""
    p = random.beta(1, 3, count)
    at = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(count) * 5, "min")
    return pd.DataFrame(
        {
            "at": at.astype(str),
            "case": [f"c{number}" for number in range(count)],
            "patient": [f"p{number}" for number in random.integers(0, count, count)],
            "probability_nodule": p,
            "called_nodule": (p > 0.5).astype(int),
            "seconds": random.gamma(9, 1, count),
            "station": random.choice(["a", "b", "c"], count),
            "software": "v5",
            **{f"measure_{number}": random.normal(size=count) for number in range(8)},
        }
    )


if __name__ == "__main__":
    main()
