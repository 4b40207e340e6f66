"""A simulated year of a model in use at a hospital: quiet, and with each of eight events; what `monitor` makes of it.

    python bench/hospital.py --record

Three scanners, ten studies a day, fewer and other ones on weekends, a tenth of the patients come again; one study in
five is read blind, and its label is there 30 days later. Each event begins on day 150. It counts as found where an
alert of the right kind names the right scope, and none is of another kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from beside import arguments, record

import isocenter

PER_DAY, DAYS, BASELINE_DAYS, BEGINS = 10, 365, 30, 150
STATIONS, SHARES = ("a", "b", "c"), (0.5, 0.3, 0.2)
READ, LATE, ASKED = 0.2, 30, 9


@dataclass(frozen=True)
class Event:
    """What happens, of which kind the alert has to be, and which scopes it may name."""

    kind: str
    scopes: tuple[str, ...] = ("",)


OF_B = ("station=b", "station=b; software=v6", "software=v6; station=b", "software=v6")
EVENTS = {
    "noise on one scanner": Event("input", ("station=b",)),
    "new software darkens one scanner": Event("input", OF_B),
    "a header field gets lost on one scanner": Event("input", ("station=c",)),
    "images grow noisier over four months": Event("input"),
    "more patients are ill": Event("output"),
    "images come to mean something else": Event("concept"),
    "the node grows slow": Event("operation"),
    "one scanner's images are refused": Event("operation", ("station=a",)),
}


def main() -> None:
    given = arguments(__doc__, repeats=10).parse_args()
    seeds = 1 if given.small else given.repeats
    rows = list[dict[str, Any]]()
    for name in ("", *EVENTS):
        found = [judged(name, seed) for seed in range(seeds)]
        delays = [one["days"] for one in found if one["days"] is not None]
        rows.append(
            {
                "event": name or "a quiet year",
                "right": f"{sum(one['right'] for one in found)} of {seeds}",
                "median days until the alert": round(float(np.median(delays))) if delays else "",
                "otherwise": "; ".join(sorted({one["said"] for one in found if not one["right"]})),
            }
        )
        print(rows[-1], flush=True)
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *(list(row.values()) for row in rows)]
    text = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    text += f"\n\nAsked: kind and scope right for {ASKED} of 10 seeds of each event; no alert in quiet years."
    print(text)
    if given.record:
        record("hospital", "A simulated year at a hospital", text, {"rows": rows})


def judged(name: str, seed: int) -> dict[str, Any]:
    """Whether the alerts of a year are those of the event, and how many days after its beginning the first came."""
    baseline, cases = year(name, seed)
    alerts = isocenter.monitor(cases, reference=baseline, by="station,software").alerts
    said = ", ".join(f"{one.kind} ({one.scope})" if one.scope else one.kind for one in alerts) or "nothing"
    if not name:
        return {"right": not alerts, "said": said, "days": None}
    event = EVENTS[name]
    own = [one for one in alerts if one.kind == event.kind]
    others = {one.kind for one in alerts} - {event.kind}
    right = bool(own) and not others and {one.scope for one in own} <= set(event.scopes)
    days = (pd.Timestamp(own[0].at) - _start()).days - BEGINS if own else None
    return {"right": right, "said": said, "days": days}


def _start() -> pd.Timestamp:
    return pd.Timestamp("2026-01-01", tz="UTC")


def year(name: str, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(baseline, cases) of a node: the days before the year, and the year."""
    random = np.random.default_rng(seed)
    day = np.repeat(np.arange(-BASELINE_DAYS, DAYS), PER_DAY)
    at = _start() + pd.to_timedelta(
        day * 24 * 60 + np.tile(np.linspace(480, 1080, PER_DAY), len(day) // PER_DAY), "min"
    )
    weekend = np.asarray(at.day_of_week) >= 5
    kept = ~weekend | (random.random(len(day)) < 0.4)
    day, at, weekend = day[kept], at[kept], weekend[kept]
    count = len(day)
    after = day >= BEGINS
    station = random.choice(STATIONS, count, p=SHARES)
    patient = np.where(random.random(count) < 0.1, random.integers(0, count // 2, count), np.arange(count))
    share = 0.2 + 0.1 * weekend + 0.15 * (after & (name == "more patients are ill"))
    ill = random.random(count) < share
    seen = random.normal(size=count) + 1.8 * ill
    odds = 1.8 * seen - 1.62 + np.log(0.2 / 0.8) + np.where(weekend, np.log(0.3 / 0.7) - np.log(0.2 / 0.8), 0.0)
    truth = ill
    if name == "images come to mean something else":
        truth = random.random(count) < 1 / (1 + np.exp(-odds - 1.2 * after))
    noise = random.normal(10, 1, count) + 0.5 * weekend
    brightness = random.normal(100, 5, count) + 3 * (station == "c")
    thickness = np.where(station == "c", 1.0, 2.0)
    seconds = random.gamma(9, 1, count) * np.where(after & (name == "the node grows slow"), 1.5, 1.0)
    software = np.full(count, "v5", dtype=object)
    abstained = random.random(count) < 0.02
    if name == "noise on one scanner":
        noise = noise + 1.5 * (after & (station == "b"))
    if name == "new software darkens one scanner":
        struck = after & (station == "b")
        brightness, software = brightness - 6 * struck, np.where(struck, "v6", software)
    if name == "a header field gets lost on one scanner":
        thickness = np.where(after & (station == "c"), np.nan, thickness)
    if name == "images grow noisier over four months":
        noise = noise + 1.5 * np.clip((day - BEGINS) / 120, 0, 1)
    if name == "one scanner's images are refused":
        abstained = abstained | (after & (station == "a") & (random.random(count) < 0.15))
    p = 1 / (1 + np.exp(-odds))
    read = (random.random(count) < READ) & (day + LATE < DAYS)
    table = pd.DataFrame(
        {
            "at": [str(one) for one in at],
            "case": [f"c{number}" for number in range(count)],
            "patient": [f"p{number}" for number in patient],
            "probability_nodule": p,
            "called_nodule": (p >= 0.5).astype(int),
            "measure_noise": noise,
            "measure_mean": brightness,
            "covariate_thickness": thickness,
            "seconds": seconds,
            "abstained": abstained.astype(int),
            "station": station,
            "software": software,
            "reference": pd.Series(truth.astype(int)).astype(object).where(read, ""),
            "inclusion": pd.Series(np.full(count, READ)).astype(object).where(read, ""),
        }
    )
    return table[day < 0], table[day >= 0]


if __name__ == "__main__":
    main()
