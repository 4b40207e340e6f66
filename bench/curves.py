"""Whether more minutes give better models: each set after several budgets, so that a curve can be drawn.

    python bench/curves.py --minutes 5 20 60 --seeds 0 1 2 --longest-seeds 1 --threads 1 --at-once 2 --resume --record
    python bench/curves.py --sets hippocampus gliomas --minutes 2 5 --threads 1

The cheapest trainings come first, so that an end before the last leaves whole curves of fewer budgets. A seed draws the
same test cases for all budgets; the longest budget may have fewer seeds. A later point counts as lower where its mean
over the seeds that both have lies below the earlier one's by more than the larger of their spreads over seeds. Test
parts are used to show and choose nothing.
"""

from __future__ import annotations

import argparse
import itertools
import os
import queue
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from commits import SETS
from recorded import commit, record
from swayed import marked
from trainings import ROOT, add_options, keep, kept, spread, summary, trained


@dataclass(frozen=True)
class Point:
    """One training; value: of its primary metric, with its interval; taken: minutes, evaluation and report included"""

    on: str
    minutes: float
    seed: int
    metric: str = ""
    value: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    taken: float = float("nan")
    problem: str = ""
    commit: str = ""


def point(on: str, minutes: float, seed: int, cores: queue.Queue[int], given: argparse.Namespace) -> Point:
    """One training on a core that nobody else has."""
    name = f"{on}-{minutes:g}-{seed}"
    if (before := kept(name, given)) is not None:
        return Point(**before)
    data, words = SETS[on]
    core = cores.get()
    try:
        own = argparse.Namespace(**{**vars(given), "minutes": minutes, "core": core})
        ended = trained(name, [given.data.resolve() / data, *words], seed, own)
    finally:
        cores.put(core)
    if ended.returncode:
        return Point(on, minutes, seed, problem=f"failed with exit code {ended.returncode}: see logs/{name}.err")
    row = summary(given.out / name)[0]
    found = Point(
        on, minutes, seed, row["metric"], row["value"], row["low"], row["high"], ended.seconds / 60, "", commit()
    )
    keep(name, found, given)
    return found


def falls(points: Sequence[Point]) -> list[str]:
    """Pairs of budgets of a set of which the later one is lower by more than the spread over seeds."""
    by_minutes: dict[float, dict[int, float]] = {}
    for one in points:
        by_minutes.setdefault(one.minutes, {})[one.seed] = one.value
    lower = []
    for early, late in itertools.combinations(sorted(by_minutes), 2):
        both = sorted(by_minutes[early].keys() & by_minutes[late].keys())
        wide = [statistics.stdev(values) for one in (early, late) if len(values := [*by_minutes[one].values()]) > 1]
        change = statistics.fmean([by_minutes[late][seed] - by_minutes[early][seed] for seed in both]) if both else 0
        if wide and change < -max(wide):
            lower.append(f"{late:g} below {early:g} by {-change:.3f}")
    return lower


def words_of(points: Sequence[Point]) -> str:
    """A line a set, a column a budget; failed trainings are named."""
    budgets = sorted({one.minutes for one in points})
    heads = [f"{minutes:g} min" for minutes in budgets]
    lines = [f"| set | metric | {' | '.join(heads)} | later below earlier |", "|---" * (len(budgets) + 3) + "|"]
    for on in dict.fromkeys(one.on for one in points):
        good = [one for one in points if one.on == on and not one.problem]
        if good:
            each = [[one.value for one in good if one.minutes == minutes] for minutes in budgets]
            cells = [f"{spread(values)}, {len(values)}" if values else "not measured" for values in each]
            row = [marked(SETS[on][0], on), good[0].metric, *cells, "; ".join(falls(good)) or "no"]
            lines.append(f"| {' | '.join(row)} |")
    failed = [one for one in points if one.problem]
    lines += [f"| {one.on} | {one.minutes:g} min, seed {one.seed}: {one.problem} |" for one in failed]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS), metavar="SET")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--longest-seeds", type=int, help="so many of the seeds have the longest budget; all")
    parser.add_argument("--at-once", type=int, default=1, help="trainings side by side, each on cores of its own")
    add_options(parser, "curves", minutes=(5.0, 20.0, 60.0), of="budgets, each of a training", seeds=(0, 1, 2))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    cores: queue.Queue[int] = queue.Queue()
    for number in range(given.at_once):
        cores.put(given.core + number * given.threads)
    budgets = sorted(given.minutes)
    jobs = [
        (on, minutes, seed)
        for minutes in budgets
        for seed in given.seeds[: given.longest_seeds if minutes == budgets[-1] else None]
        for on in given.sets
    ]
    with ThreadPoolExecutor(given.at_once) as pool:
        points = list(pool.map(lambda job: point(*job, cores, given), jobs))
    text = words_of(sorted(points, key=lambda one: given.sets.index(one.on)))
    print(text)
    if given.record:
        sources = ", ".join(dict.fromkeys(one.commit for one in points if one.commit))
        about = (
            f"Primary metric of the test cases, mean (SD) and number of seeds; {given.threads} of {os.cpu_count()} "
            f"cores each, {given.at_once} at once. Source: {sources}."
        )
        record("curves", "More minutes", f"{about}\n\n{text}", {"points": [asdict(one) for one in points]})


if __name__ == "__main__":
    main()
