"""Waiting for a reader with and without priorities: who waits longer for whom.

    python bench/worklist.py --record

A log of arrivals is replayed twice for one reader who never breaks off a study: in the order of arrival, and by the
priority that a node's `[[urgent]]` rules give the findings of a model with misses and false alarms. The mean waiting
times are compared with Cobham's formula for such a queue.
Cobham, Oper Res 1954, doi:10.1287/opre.2.1.70; Kleinrock, Queueing Systems II, 1976, 3.3
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from beside import arguments, record

from isocenter.service.configuration import PRIORITIES, UrgencyRule
from isocenter.service.routing import routing_facts

RULES = [UrgencyRule(finding="haemorrhage", probability=0.5, priority="emergency")]
# Of the log that is made: studies an hour, share with the finding, its detection, and false alarms.
PER_HOUR, SHARE, SENSITIVITY, FALSE_ALARMS = 5.1, 0.05, 0.9, 0.1
MINUTES, MINUTES_WITH = 9.0, 15.0  # mean time of reading, of a study without the finding and with it
ASKED = 0.03
GROUPS = ("finding, detected", "finding, missed", "false alarm", "neither")


def main() -> None:
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--log", type=Path, help="CSV with arrived_min, minutes, finding (0 or 1), probability")
    given = parser.parse_args()
    log = pd.read_csv(given.log) if given.log else made_log(30_000 if given.small else 1_000_000, seed=0)
    log = log.sort_values("arrived_min", ignore_index=True)
    log["rank"] = ranks(log["probability"])
    arrived, minutes, rank = (log[name].to_numpy() for name in ("arrived_min", "minutes", "rank"))
    waited = {
        "in order": waits(arrived, minutes, np.zeros(len(log), dtype=int)),
        "by priority": waits(arrived, minutes, rank),
    }
    rows, worst = compared(arrived, minutes, rank, waited)
    groups = by_group(log, waited)
    load = float(minutes.sum() / (arrived[-1] - arrived[0]))
    text = table(rows) + "\n\n" + table(groups) + "\n\n" + words(rows, groups, load, len(log), worst)
    print(text)
    if given.record:
        data = {"rows": rows, "groups": groups, "load": load, "studies": len(log), "worst": worst}
        record("worklist", "Who waits longer for whom", text, data)


def made_log(count: int, *, seed: int) -> pd.DataFrame:
    """A log of Poisson arrivals, with reading times of a gamma distribution and the probabilities of a model."""
    random = np.random.default_rng(seed)
    finding = random.random(count) < SHARE
    called = random.random(count) < np.where(finding, SENSITIVITY, FALSE_ALARMS)
    mean = np.where(finding, MINUTES_WITH, MINUTES)
    return pd.DataFrame(
        {
            "arrived_min": random.exponential(60 / PER_HOUR, count).cumsum(),
            "minutes": random.gamma(2.0, mean / 2),
            "finding": finding.astype(int),
            "probability": np.where(called, 0.5, 0.0) + random.uniform(0, 0.49, count),
        }
    )


def ranks(probabilities: pd.Series) -> np.ndarray:
    """The rank of each study, as the node gives it."""
    routine = PRIORITIES.index("routine")
    given = (
        routing_facts.most_urgent([{"concept": "haemorrhage", "probability": float(p)}], RULES) for p in probabilities
    )
    return np.array([routine if one is None else one.rank for one in given])


def waits(arrived: np.ndarray, minutes: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Minutes that each study waits for its reader, who takes the most urgent, of these the oldest."""
    waited, waiting = np.zeros(len(arrived)), list[tuple[int, int]]()
    times, lasts, places = arrived.tolist(), minutes.tolist(), rank.tolist()
    now, following = 0.0, 0
    while following < len(times) or waiting:
        if not waiting:
            now = max(now, times[following])
        while following < len(times) and times[following] <= now:
            heapq.heappush(waiting, (places[following], following))
            following += 1
        _, study = heapq.heappop(waiting)
        waited[study] = now - times[study]
        now += lasts[study]
    return waited


def cobham(arrived: np.ndarray, minutes: np.ndarray, rank: np.ndarray) -> dict[int, float]:
    """{rank: mean wait} by Cobham's formula, from the rates and reading times of the log."""
    span = arrived[-1] - arrived[0]
    residual = float((minutes**2).sum() / span / 2)
    before, expected = 0.0, {}
    for one in np.unique(rank).tolist():
        upto = before + float(minutes[rank == one].sum() / span)
        expected[one] = residual / ((1 - before) * (1 - upto))
        before = upto
    return expected


def compared(
    arrived: np.ndarray, minutes: np.ndarray, rank: np.ndarray, waited: dict[str, np.ndarray]
) -> tuple[list[dict[str, object]], float]:
    """Mean waits beside those of the formula, and the largest relative difference."""
    rows, worst = [], 0.0
    for order, own in waited.items():
        classes = np.zeros_like(rank) if order == "in order" else rank
        for one, expected in cobham(arrived, minutes, classes).items():
            mean = float(own[classes == one].mean())
            worst = max(worst, abs(mean / expected - 1))
            name = "all" if order == "in order" else PRIORITIES[one]
            rows.append(
                {"read": order, "priority": name, "studies": int((classes == one).sum())}
                | {
                    "waited_min": round(mean, 2),
                    "formula_min": round(expected, 2),
                    "differs": f"{mean / expected - 1:+.1%}",
                }
            )
    return rows, worst


def by_group(log: pd.DataFrame, waited: dict[str, np.ndarray]) -> list[dict[str, object]]:
    """Mean waits of those with and without the finding, called or not."""
    is_called, has = (log["rank"] < PRIORITIES.index("routine")).to_numpy(), (log["finding"] == 1).to_numpy()
    members = dict(zip(GROUPS, (has & is_called, has & ~is_called, ~has & is_called, ~has & ~is_called), strict=True))
    rows = []
    for name, mine in members.items():
        means = {order: float(own[mine].mean()) for order, own in waited.items()}
        rows.append(
            {"study": name, "studies": int(mine.sum())}
            | {
                "in_order_min": round(means["in order"], 2),
                "by_priority_min": round(means["by priority"], 2),
                "difference_min": round(means["by priority"] - means["in order"], 2),
            }
        )
    return rows


def table(rows: Sequence[dict[str, object]]) -> str:
    """Rows in Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def words(
    rows: Sequence[dict[str, object]], groups: Sequence[dict[str, object]], load: float, count: int, worst: float
) -> str:
    """Who waits longer for whom."""
    by_name = {str(row["study"]): row for row in groups}
    first, missed, alarm, neither = (by_name[name] for name in GROUPS)
    verdict = "within" if worst <= ASKED else "not within"
    return (
        f"{count} studies, one reader, busy {load:.0%} of the time. The largest difference from the formula is "
        f"{worst:.1%}, {verdict} the {ASKED:.0%} that is asked. A detected finding is read "
        f"{-float(str(first['difference_min'])):.1f} min earlier. Each study with neither finding nor alarm waits "
        f"{float(str(neither['difference_min'])):.1f} min longer for that, and a missed finding waits "
        f"{float(str(missed['difference_min'])):.1f} min longer as well. False alarms are read "
        f"{-float(str(alarm['difference_min'])):.1f} min earlier for nothing: there are {alarm['studies']} of them for "
        f"{first['studies']} detected findings, and all others wait for them too."
    )


if __name__ == "__main__":
    main()
