"""Masks decoded for Dice, and views at test time: differences on test cases of one training a set, and seconds.

    python bench/decoding.py --threads 1 --minutes 3 --resume --record

The same network predicts each test case with and without; `chosen` is what the plan of the run took.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rankseg import RankSEG
from recorded import commit, record
from swayed import marked
from trainings import ROOT, add_options, keep, kept, trained

import isocenter
from isocenter.evaluation import intervals
from isocenter.files.storage import csv_text
from isocenter.layouts import dataset_layouts
from isocenter.planning import plan_file
from isocenter.runtime import Model
from isocenter.tasks.segmentation.question import Segmentation
from isocenter.values import Array, Case, Decision, Geometry, Plan, Prediction, Region, Slabs

SETS = {"hippocampus": "hippocampus", "FLAIR tumours": "mri/lgg_flair", "CHASE vessels": "chasedb1"}
VIEWS = 4


@dataclass(frozen=True)
class Compared:
    """What a change does to the test cases of one training.

    chosen:     what the run took, and why
    dice:       mean of each case before and after
    difference: mean, low and high of cases' differences, patients resampled
    seconds:    of all cases, before and after; decoding: those of decoding alone
    """

    chosen: str
    because: str
    dice: tuple[float, float]
    difference: tuple[float, float, float]
    seconds: tuple[float, float]
    decoding: tuple[float, float]


@dataclass(frozen=True)
class Shown:
    """One training.

    found: {change: what it does}
    equal: share of the voxels of test cases whose label is that of RankSEG from the same probabilities
    """

    problem: str = ""
    cases: int = 0
    patients: int = 0
    found: Mapping[str, Any] = field(default_factory=dict)
    equal: float = float("nan")
    commit: str = ""


def shown(name: str, given: argparse.Namespace) -> Shown:
    """One training, and what decoding and views change."""
    key = name.replace(" ", "_")
    if (before := kept(key, given)) is not None:
        return Shown(**before)
    run, data = given.out.resolve() / key, given.data.resolve() / SETS[name]
    if not (given.resume and (run / "report.html").is_file()):
        ended = trained(key, [data], 0, given)
        if ended.returncode:
            return Shown(f"failed with exit code {ended.returncode}")
    parts = csv_text.read_text_table(run / "split.csv").set_index("case")["split"]
    cases = [case for case in dataset_layouts.read_dataset(data) if parts.get(case.id) == "test"]
    model, plan = isocenter.load(run), plan_file.read_plan(run / "plan.yaml")
    rules = [replace(model, task=replace(model.task, decoding=rule)) for rule in ("argmax", "dice")]
    further = replace(
        model.inference, views=VIEWS, turn=plan["augmentation.rotation"], gamma=plan["augmentation.gamma"]
    )
    pairs = {"task.decoding": rules, "inference.views": [model, replace(model, inference=further)]}
    found = {setting: asdict(compared(plan, setting, pair, cases)) for setting, pair in pairs.items()}
    one = Shown("", len(cases), len({case.patient for case in cases}), found, as_rankseg(rules[1], cases), commit())
    keep(key, one, given)
    return one


def compared(plan: Plan, setting: str, pair: Sequence[Model], cases: Sequence[Case]) -> Compared:
    """Dice and seconds of the two models, one after the other on each case."""
    dice, seconds, decoding = np.zeros((len(cases), 2)), np.zeros(2), np.zeros(2)
    for model in pair:
        model.predict(cases[0])  # the first prepares more than later ones
    for place, case in enumerate(cases):
        for side, model in enumerate(pair):
            began = time.process_time()
            with timed_decoding() as timer:
                prediction = model.predict(case)
            seconds[side] += time.process_time() - began
            decoding[side] += timer[0]
            table = model.task.score([prediction], [case])
            dice[place, side] = table["dice"].fillna(1.0).mean()
    gain = intervals.bootstrap(dice[:, 1] - dice[:, 0], [case.patient for case in cases], seed=0, exact=False)
    decision = plan.decision(setting) if setting in plan else Decision(0, "views are set by hand")
    low, high = (float("nan") if end is None else end for end in (gain.low, gain.high))
    figures = (dice.mean(axis=0), (gain.value, low, high), seconds, decoding)
    return Compared(str(decision.value), decision.because, *(tuple(map(float, one)) for one in figures))


def as_rankseg(model: Model, cases: Sequence[Case]) -> float:
    """Share of the voxels of cases whose label is that of RankSEG."""
    equal = voxels = 0
    for case in cases:
        shape = next(iter(case.images.values())).geometry.shape
        chances = np.zeros((len(model.task.writes), *shape))

        def keep_part(region: Region, arrays: Mapping[str, Array], into: np.ndarray = chances) -> None:
            into[(slice(None), *region)] = arrays["mask"]

        ours = np.asarray(model.predict(case, receiver=keep_part).data)
        theirs = RankSEG(metric="dice").predict(torch.from_numpy(chances)[None])[0].numpy()
        equal += np.count_nonzero(np.array(model.task.writes)[theirs] == ours)
        voxels += ours.size
    return equal / voxels


@contextmanager
def timed_decoding() -> Iterator[list[float]]:
    """Processor seconds of decoding alone: the outputs of all windows are there before it begins."""
    decode, timer = Segmentation.decode, [0.0]

    def timed(task: Segmentation, slabs: Slabs, geometry: Geometry) -> Prediction:
        parts = [(region, {name: np.asarray(one) for name, one in arrays.items()}) for region, arrays in slabs]
        began = time.process_time()
        prediction = decode(task, parts, geometry)
        timer[0] += time.process_time() - began
        return prediction

    Segmentation.decode = timed
    try:
        yield timer
    finally:
        Segmentation.decode = decode


def words_of(shown_sets: Mapping[str, Shown], setting: str) -> str:
    """A line for each set."""
    heads = ["set", "test cases (patients)", "Dice", "with it", "difference (95 % interval)", "processor s of decoding"]
    heads += ["processor s of predictions", "the plan took"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, one in shown_sets.items():
        if one.problem:
            lines.append(f"| {name} | {one.problem} |" + " |" * (len(heads) - 2))
            continue
        row = one.found[setting]
        value, low, high = row["difference"]
        times = [f"{after / before:.2f} times" for before, after in (row["decoding"], row["seconds"])]
        cells = [marked(SETS[name], name), f"{one.cases} ({one.patients})", *(f"{dice:.4f}" for dice in row["dice"])]
        cells += [f"{value:+.4f} ({low:+.4f} to {high:+.4f})", *times, f"{row['chosen']}: {row['because']}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    add_options(parser, "decoding", minutes=3.0, of="of each training")
    given = parser.parse_args()
    shown_sets = {name: shown(name, given) for name in SETS}
    tables = [words_of(shown_sets, setting) for setting in ("task.decoding", "inference.views")]
    print(*tables, sep="\n\n")
    if given.record:
        commits = ", ".join(sorted({one.commit for one in shown_sets.values() if one.commit}))
        shares = ", ".join(f"{name} {one.equal:.4%}" for name, one in shown_sets.items())
        about = (
            f"Trainings of {given.minutes:g} minutes on {given.threads} core; the same network predicts each test case "
            f"with and without. As RankSEG has them from the same probabilities: {shares} of the voxels of test cases. "
            f"Commits: {commits}."
        )
        text = f"{about}\n\n{tables[0]}\n\n### Four turned and scaled views\n\n{tables[1]}"
        data = {"sets": {name: asdict(one) for name, one in shown_sets.items()}}
        record("decoding", "What they bring", text, data)


if __name__ == "__main__":
    main()
