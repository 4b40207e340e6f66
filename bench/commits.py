"""The source of an earlier commit beside this one: the same data, seeds and minutes, both at the same time.

    python bench/commits.py e977da69 --minutes 2 --seeds 0 1 2 --resume --record
    python bench/commits.py e977da69 --sets retina hippocampus
    python bench/commits.py e977da69 --sets adrenal --steps 300

Each pair of trainings runs at once, each on a core of its own, the other way round in every second seed, so that what
else the machine does meets both alike. A seed draws the same test cases for both, where the sources draw them alike;
where a set has a test part of its own it is used here to compare two sources, and chooses nothing. A number of steps
compares methods on a machine whose speed changes; minutes compare speed as well.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from recorded import commit, record
from swayed import marked
from trainings import ROOT, add_options, keep, kept, spread, summary
from watched import watched

# {name: (path below the data, words of the command)}
SETS: Mapping[str, tuple[str, Sequence[str]]] = {
    "retina": ("medmnist/retinamnist.npz", ()),
    "pneumonia": ("medmnist/pneumoniamnist.npz", ()),
    "adrenal": ("medmnist/adrenalmnist3d.npz", ()),
    "hippocampus": ("hippocampus", ()),
    "gliomas": ("mri/lgg_flair", ("--modality", "MR")),
    "ventricles": ("mri/cardiac_sunnybrook", ("--modality", "MR")),
    "vessels": ("chasedb1", ("--modality", "OP")),
    "cells": ("bccd", ("--modality", "GM")),
    "nuclei": ("dsb2018", ("--task", "instances", "--modality", "GM")),
    "radiographs": ("chest_xray", ("--modality", "DX")),
}
BEFORE, NOW = "before", "now"


@dataclass(frozen=True)
class Shown:
    """One training by one source; value: of its primary metric"""

    on: str
    seed: int
    source: str
    metric: str = ""
    value: float = float("nan")
    problem: str = ""
    commit: str = ""


def checked_out(name: str, out: Path) -> Path:
    """The source of a commit, in a working tree of its own."""
    place = out.resolve() / f"source-{name}"
    if not place.is_dir():
        subprocess.run(["git", "worktree", "add", "--detach", str(place), name], cwd=ROOT, check=True)
    return place


def shown(on: str, seed: int, source: str, root: Path, core: int, given: argparse.Namespace) -> Shown:
    """One training; the source is put before any that is installed."""
    name = f"{on}-{seed}-{source}"
    if (before := kept(name, given)) is not None:
        return Shown(**before)
    data, words = SETS[on]
    out = given.out.resolve() / name
    length = ["--minutes", given.minutes] if given.steps is None else ["--set", f"training.steps={given.steps}"]
    line = ["train", given.data.resolve() / data, *words, *length, "--seed", seed, "--out", out]
    taken = watched(
        [sys.executable, "-m", "isocenter", *map(str, line), "--threads", "1", "--overwrite"],
        environment={**os.environ, "PYTHONPATH": str(root / "src")},
        folder=root,
        log=given.out.resolve() / "logs" / name,
        cores=1,
        at_most=None,
        first_core=core,
    )
    if taken.returncode:
        return Shown(on, seed, source, problem=f"failed with exit code {taken.returncode}: see logs/{name}.err")
    row = summary(out)[0]
    one = Shown(on, seed, source, row["metric"], row["value"], "", commit() if source == NOW else given.before)
    keep(name, one, given)
    return one


def pair(on: str, seed: int, root: Path, given: argparse.Namespace) -> list[Shown]:
    """Both trainings of a set and seed, at once."""
    print(f"=== {on}, seed {seed}", file=sys.stderr, flush=True)
    places = {BEFORE: root, NOW: ROOT}
    with ThreadPoolExecutor(2) as pool:
        begun = [
            pool.submit(shown, on, seed, source, place, (number + seed) % 2, given)
            for number, (source, place) in enumerate(places.items())
        ]
        return [one.result() for one in begun]


def words_of(all_shown: Sequence[Shown]) -> str:
    """A line for each set, with the difference within a seed; failed trainings are named."""
    lines = ["| set | metric | seeds | before | now | difference |", "|---" * 6 + "|"]
    for on in dict.fromkeys(one.on for one in all_shown):
        good = {(one.seed, one.source): one for one in all_shown if one.on == on and not one.problem}
        seeds = [seed for seed, source in good if source == NOW and (seed, BEFORE) in good]
        if seeds:
            before, now = ([good[seed, source].value for seed in seeds] for source in (BEFORE, NOW))
            change = spread([b - a for a, b in zip(before, now, strict=True)], sign="+")
            metric = good[seeds[0], NOW].metric
            lines.append(
                f"| {marked(SETS[on][0], on)} | {metric} | {len(seeds)} | {spread(before)} | {spread(now)} | {change} |"
            )
    lines += [
        f"| {one.on} | seed {one.seed}, {one.source}: {one.problem} | | | | |" for one in all_shown if one.problem
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", help="the earlier commit")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS), metavar="SET")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    add_options(parser, "commits", minutes=2.0, of="of each training", seeds=(0, 1, 2))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    root = checked_out(given.before, given.out)
    each = [one for on in given.sets for seed in given.seeds for one in pair(on, seed, root, given)]
    text = words_of(each)
    print(text)
    if given.record:
        length = f"{given.minutes:g} minutes" if given.steps is None else f"{given.steps} steps"
        about = (
            f"Primary metric of the test cases, {length} each, on one of {os.cpu_count()} cores, both "
            f"at the same time; mean (SD) over seeds. Before: {given.before}. "
            f"Now: {', '.join(dict.fromkeys(one.commit for one in each if one.source == NOW and one.commit))}."
        )
        runs = {"runs": [asdict(one) for one in each]}
        record("commits", "An earlier source and this one", f"{about}\n\n{text}", runs)


if __name__ == "__main__":
    main()
