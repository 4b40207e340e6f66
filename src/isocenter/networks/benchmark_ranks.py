"""Ranks of families of networks in `bench/families.py`, as a reason in a plan.

That bench writes `measured.json`, with the numbers of its tables in docs/benchmarks.md.
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
    """Families that were trained on one set for equal minutes, with everything but the network as planned.

    answers:  the kind of output, as in `catalogue.HEADS`
    minutes:  of each training, on so many cores; seeds: trainings of each family
    results:  {family: (mean of the seeds, mean of the lower ends of their 95 % intervals, of the upper ends)}
    """

    on: str
    answers: str
    axes: int
    metric: str
    minutes: float
    cores: int
    seeds: int
    results: Mapping[str, tuple[float, float, float]]

    def rank(self, family: str) -> str:
        """The family's result and rank, in words; empty where it was not trained."""
        if family not in self.results:
            return ""
        value, low, high = self.results[family]
        better = [name for name, (other, *_) in self.results.items() if other > value]
        seeds = "one seed" if self.seeds == 1 else f"{self.seeds} seeds"
        time = f"{self.minutes:g} minutes on {'one core' if self.cores == 1 else f'{self.cores} cores'}, {seeds}"
        figure = f"on {self.on} it reached {self.metric} {value:.3f} ({low:.3f} to {high:.3f}) in {time}"
        if not better:
            return f"{figure}, the best of {len(self.results)} families measured"
        first = max(better, key=lambda name: self.results[name][0])
        best, lowest, _ = self.results[first]
        apart = "whose interval overlaps" if lowest <= high else "and the intervals are apart"
        rank = f"rank {len(better) + 1} of {len(self.results)} families measured"
        return f"{figure}, {rank}; the best is {first} with {best:.3f}, {apart}"


@cache
def measurements() -> tuple[Measured, ...]:
    """All results."""
    sets = json.loads(FILE.read_text(encoding="utf-8"))["measured"]
    return tuple(
        Measured(**{**of_set, "results": {name: tuple(values) for name, values in of_set["results"].items()}})
        for of_set in sets
    )


def standing(family: str, heads: Mapping[str, Head], axes: int) -> str:
    """A family's results for such outputs and images of so many axes, in words; empty where it was not measured."""
    answers = {head.answers for head in heads.values()}
    ranks = (one.rank(family) for one in measurements() if {one.answers} == answers and one.axes == axes)
    return "; ".join(filter(None, ranks))
