"""How families did beside one another: the figures of `bench/families.py`, as the reason that a plan gives.

`measured.json` is written by that bench and holds what its tables in docs/benchmarks.md hold, no more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from isocenter.values import Head

FILE = Path(__file__).with_name("measured.json")


@dataclass(frozen=True)
class Measured:
    """The families that were trained on one set for as many minutes, everything but the network as planned.

    answers:  the kind of output, as in `catalogue.HEADS`
    minutes:  of each training, on so many cores; seeds: how many trainings of each family
    found:    {family: (mean of the seeds, mean of the lower ends of their 95 % intervals, of the upper ones)}
    """

    on: str
    answers: str
    axes: int
    metric: str
    minutes: float
    cores: int
    seeds: int
    found: Mapping[str, tuple[float, float, float]]

    def said(self, family: str) -> str:
        """Where the family stands among the others, in words; empty where it was not trained."""
        if family not in self.found:
            return ""
        value, low, high = self.found[family]
        better = sorted(
            (name for name, (other, *_) in self.found.items() if other > value), key=lambda name: -self.found[name][0]
        )
        seeds = "one seed" if self.seeds == 1 else f"{self.seeds} seeds"
        time = f"{self.minutes:g} minutes on {'one core' if self.cores == 1 else f'{self.cores} cores'}, {seeds}"
        own = f"on {self.on} it reached {self.metric} {value:.3f} ({low:.3f} to {high:.3f}) in {time}"
        where = f"{own}: {len(better) + 1} of {len(self.found)} families measured"
        if not better:
            return where
        best, lowest, _ = self.found[better[0]]
        apart = "whose interval overlaps" if lowest <= high else "and the intervals are apart"
        return f"{where}; the first is {better[0]} with {best:.3f}, {apart}"


@cache
def measurements() -> tuple[Measured, ...]:
    """Everything that was measured."""
    known = json.loads(FILE.read_text(encoding="utf-8"))["measured"]
    return tuple(
        Measured(**{**one, "found": {name: tuple(found) for name, found in one["found"].items()}}) for one in known
    )


def standing(family: str, heads: Mapping[str, Head], axes: int) -> str:
    """What was measured of a family for such outputs and images of so many axes; empty where nothing was."""
    answers = {head.answers for head in heads.values()}
    said = (one.said(family) for one in measurements() if {one.answers} == answers and one.axes == axes)
    return "; ".join(filter(None, said))
