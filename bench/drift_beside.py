"""Watches beside daily tests, Evidently and NannyML: false alarms in a quiet year, and cases until a change is found.

    python bench/drift_beside.py --record

Each stream has three features of 20 cases a day and a reference of 300. In quiet years nothing changes. In the others
one feature moves by one or half a standard deviation after 60 days. Daily tests are Kolmogorov-Smirnov's at p < .05;
Evidently and NannyML look at each day with their defaults; an alarm is a day on which they call any feature changed.
The watch has four false alarms a year as its stated rate, and begins anew after each.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from beside import PeerError, arguments, peer, record, versions
from environment import HERE
from scipy import stats

from isocenter.monitoring import e_detectors

PER_DAY, DAYS, REFERENCE, FEATURES, RATE = 20, 365, 300, 3, 4
CHANGED_AFTER, CHANGED_FOR = 60, 30
# Streams that peers look at, with a change and without: Evidently takes a third of a second a day.
FEW = (3, 1)
SHIFTS = {"1 SD": 1.0, "0.5 SD": 0.5}


def main() -> None:
    given = arguments(__doc__, repeats=10).parse_args()
    count, days = (2, 20) if given.small else (given.repeats, DAYS)
    random = np.random.default_rng(0)
    kinds = {"quiet": streams(random, count, days)}
    for name, shift in SHIFTS.items():
        kinds[name] = streams(random, 3 * count, CHANGED_AFTER + CHANGED_FOR, shift)
    rows = list[dict[str, Any]]()
    for name, alarms in (("watch", watched), ("daily Kolmogorov-Smirnov tests", tested)):
        rows.append({"method": name} | figures({kind: alarms(*made) for kind, made in kinds.items()}, days))
        print(rows[-1], flush=True)
    for name in ("evidently", "nannyml"):
        try:
            found = {kind: looked(name, *(one[: FEW[kind == "quiet"]] for one in made)) for kind, made in kinds.items()}
        except PeerError as error:
            rows.append({"method": name, "false alarms a year": f"not measured: {error}"})
            continue
        rows.append({"method": f"{name} {versions(name)[name]}"} | figures(found, days))
        print(rows[-1], flush=True)
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([row.get(head, "") for head in heads] for row in rows)]
    text = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    text += f"\n\n{count} quiet years, {3 * count} streams with each change. Stated rate of the watch: {RATE} a year."
    text += f" Evidently and NannyML look at {FEW[1]} and {FEW[0]} of them."
    print(text)
    if given.record:
        record("drift_beside", "False alarms and delay beside daily tests", text, {"rows": rows})


def streams(random: np.random.Generator, count: int, days: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(count, reference, features) and (count, cases, features); the first feature moves."""
    reference = random.normal(size=(count, REFERENCE, FEATURES))
    values = random.normal(size=(count, days * PER_DAY, FEATURES))
    values[:, CHANGED_AFTER * PER_DAY :, 0] += shift
    return reference, values


def watched(reference: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(streams, cases) alarms of the watch, which begins anew after each."""
    alarms = np.zeros(values.shape[:2], dtype=bool)
    for stream, (known, new) in enumerate(zip(reference, values, strict=True)):
        start = 0
        while start < len(new):
            alarm = e_detectors.watch_values(known, new[start:], run_length=DAYS * PER_DAY / RATE).alarm
            if alarm is None:
                break
            alarms[stream, start + alarm] = True
            start += alarm + 1
    return alarms


def tested(reference: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(streams, cases) alarms at the end of days on which any feature has p < .05."""
    days = values.shape[1] // PER_DAY
    flagged = np.zeros((len(values), days), dtype=bool)
    for stream, (known, new) in enumerate(zip(reference, values, strict=True)):
        for day in range(days):
            now = new[day * PER_DAY : (day + 1) * PER_DAY]
            flagged[stream, day] = any(stats.ks_2samp(known[:, k], now[:, k]).pvalue < 0.05 for k in range(FEATURES))
    return at_ends(flagged)


def looked(name: str, reference: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(streams, cases) alarms of a peer, in an environment of its own."""
    python = peer(name)
    with tempfile.TemporaryDirectory() as place:
        source, out = Path(place) / "streams.npz", Path(place) / "answers.npz"
        np.savez(source, reference=reference, values=values, per_day=PER_DAY)
        command = [str(python), str(HERE / "sides" / "drift_peer.py"), name, str(source), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise PeerError(done.stderr.strip().splitlines()[-1])
        with np.load(out) as kept:
            return at_ends(kept["flagged"])


def at_ends(flagged: np.ndarray) -> np.ndarray:
    """(streams, cases) of (streams, days): a day is judged once its last case is there."""
    alarms = np.zeros((len(flagged), flagged.shape[1] * PER_DAY), dtype=bool)
    alarms[:, PER_DAY - 1 :: PER_DAY] = flagged
    return alarms


def figures(alarms: dict[str, np.ndarray], days: int) -> dict[str, Any]:
    row: dict[str, Any] = {"false alarms a year": round(float(alarms["quiet"].sum(1).mean()) * DAYS / days, 1)}
    for kind in SHIFTS:
        after = alarms[kind][:, CHANGED_AFTER * PER_DAY :]
        delays = np.where(after.any(1), after.argmax(1) + 1, after.shape[1])
        row[f"median cases until {kind}"] = int(np.median(delays))
    return row


if __name__ == "__main__":
    main()
