"""What a search brings: one set with and without `--tune`, for equal minutes in all, scored on the same test part.

    python bench/search.py ../shared/data/hippocampus --minutes 60 --tune 30 --seeds 0 1 2

Both have the same split, seed and minutes from the command's start to the report; with the search the training has what
is left of them. Programs take turns. The differences are those of `isocenter compare`, by patient.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import described

import isocenter
from isocenter.planning import plan_file
from isocenter.runs import search_trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0, help="of each run, with its search")
    parser.add_argument("--tune", type=float, default=30.0, help="of these, for the search")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--labels")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--set", action="append", default=[], help="section.name=value, for both")
    parser.add_argument("--out", type=Path, help="keep the runs here")
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp(prefix="isocenter-"))
    print(f"Machine: {described()}.\nCommand: `python bench/{Path(__file__).name} {' '.join(sys.argv[1:])}`\n")
    print("| seed | as planned | searched | difference | what was found |\n|---|---|---|---|---|")
    gained = []
    for seed in given.seeds:
        places = {tune: out / f"{'searched' if tune else 'planned'}-{seed}" for tune in (None, given.tune)}
        for tune in list(places)[:: 1 if seed % 2 else -1]:
            isocenter.train(given.data, out=places[tune], tune=tune, seed=seed, **_flags(given))
        row = isocenter.compare([*places.values()]).rows[0]
        planned, searched = row.estimates
        gained.append(row.differences[0].value)
        found = search_trials.read_search_result(places[given.tune])
        statement = "" if found is None else found.statement
        print(f"| {seed} | {planned} | {searched} | {row.differences[0]} | {statement} |", flush=True)
    apart = f", SD {statistics.stdev(gained):.4f}" if len(gained) > 1 else ""
    print(f"\nMean difference over {len(gained)} seeds: {statistics.fmean(gained):+.4f}{apart}.")


def _flags(given: argparse.Namespace) -> dict[str, Any]:
    pairs = (one.partition("=") for one in given.set)
    flags = {
        "minutes": given.minutes,
        "threads": given.threads,
        "assignments": {name: plan_file.parse_value(value) for name, _, value in pairs},
    }
    return {**flags, **({"labels": given.labels} if given.labels else {})}


if __name__ == "__main__":
    main()
