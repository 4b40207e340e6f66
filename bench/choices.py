"""Settings of a plan side by side: the same cases, seeds and steps, each judged by cases that its training held out.

    python bench/choices.py tails --threads 1 --resume --record
    python bench/choices.py members --threads 1 --steps 1800 --resume --record
    python bench/choices.py augmentation --threads 1 --steps 800 --resume --record
    python bench/choices.py widths --threads 1 --minutes 2 --set training.compute=float32 --resume --record
    python bench/choices.py calibration --threads 1 --steps 400 --resume --record
    python bench/choices.py tails --sets hippocampus --seeds 0

Each training is `isocenter train` with as many steps and other settings. A seed draws the split and the weights, and
choices are compared within it: mean of the primary metric over seeds, and of the differences to the first choice.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from recorded import commit, known, record
from swayed import marked
from trainings import ROOT, add_options, keep, kept, spread, summary, trained

import isocenter
from isocenter.networks import network_family
from isocenter.planning import plan_file

# {name: (path below the data, words of the command)}
SETS: Mapping[str, tuple[str, Sequence[str]]] = {
    "hippocampus": ("hippocampus", ("--modality", "MR")),
    "gliomas": ("mri/lgg_flair", ("--modality", "MR")),
    "ventricles": ("mri/cardiac_sunnybrook", ("--modality", "MR")),
    "vessels": ("chasedb1", ("--modality", "OP")),
    "adrenal": ("medmnist/adrenalmnist3d.npz", ()),
    "retina": ("medmnist/retinamnist.npz", ()),
    "cells": ("bccd", ("--modality", "GM")),
    "radiographs": ("chest_xray", ("--modality", "DX")),
}


@dataclass(frozen=True)
class Question:
    """What is compared: settings by their names, the first as it was, and the sets on which.

    networks: {choice: how many networks share the steps}, where it is not one
    widths:   {choice: by which the network's planned width is multiplied}, where a choice sets it
    on_set:   {(choice, set): further settings of it there}
    """

    title: str
    choices: Mapping[str, Sequence[str]]
    sets: Sequence[str]
    networks: Mapping[str, int] = field(default_factory=dict)
    widths: Mapping[str, float] = field(default_factory=dict)
    on_set: Mapping[tuple[str, str], Sequence[str]] = field(default_factory=dict)


def zscore(tails: str) -> Sequence[str]:
    """Normalisation by each image's own values."""
    return ("preprocessing.normalisation=" + json.dumps([{"method": "zscore", **({"tails": tails} if tails else {})}]),)


QUESTIONS: Mapping[str, Question] = {
    "tails": Question(
        "Values beyond the percentiles of a z-score",
        {"clipped": zscore(""), "linear": zscore("linear"), "log": zscore("log")},
        ("hippocampus", "gliomas"),
    ),
    "batches": Question(
        "Smaller batches, and more of them, in the same minutes",
        {"4": (), "2": ("training.batch=2",), "1": ("training.batch=1",)},
        ("vessels", "gliomas"),
    ),
    "reductions": Question(
        "Pictures on coarser grids, in the same minutes",
        {"1": (), "1.5": ("preprocessing.reduction=1.5",), "2": ("preprocessing.reduction=2",)},
        ("vessels",),
    ),
    "members": Question(
        "Several networks in as many steps",
        {
            "one": (),
            "three-networks": ("training.networks=3",),
        },
        ("hippocampus", "vessels"),
        {"three-networks": 3},
    ),
    "augmentation": Question(
        "Stronger augmentation",
        {
            "planned": (),
            "often": ("augmentation.probability=0.6",),
            "far": ("augmentation.rotation=30", "augmentation.scale=0.3", "augmentation.probability=0.5"),
            "mirrored": ("augmentation.flips=[0, 1, 2]",),
        },
        ("hippocampus",),
    ),
    "widths": Question(
        "Narrower networks, and more steps of them, in the same minutes",
        {"planned": (), "half": (), "quarter": ()},
        ("hippocampus", "gliomas", "ventricles", "vessels", "adrenal", "cells", "radiographs"),
        widths={"planned": 1.0, "half": 0.5, "quarter": 0.25},  # set by hand, so that no clock narrows them
    ),
    "calibration": Question(
        "A tenth of the training patients set apart to calibrate",
        {"none": ("split.calibration=0",), "a tenth": ()},  # as planned from 300 patients on
        ("adrenal", "retina", "hippocampus"),
        on_set={("a tenth", "hippocampus"): ("split.calibration=14",)},
    ),
}


@dataclass(frozen=True)
class Shown:
    """One training, and the primary metric of its test part; minutes: 0 where its steps were set."""

    on: str
    choice: str
    seed: int
    steps: int
    problem: str = ""
    metric: str = ""
    value: float = float("nan")
    commit: str = ""
    minutes: float = 0.0

    @property
    def group(self) -> tuple[str, float]:
        """What it is compared within."""
        return self.on, self.minutes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("question", choices=QUESTIONS)
    parser.add_argument("--sets", nargs="+", choices=SETS)
    parser.add_argument("--choices", nargs="+", help="some of those that the question compares")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--set", nargs="+", default=[], help="settings that all choices have in common")
    of = "of each training, where choices differ in the time of a step; without it steps are alike"
    add_options(parser, "choices", minutes=None, of=of, seeds=(0, 1, 2))
    given = parser.parse_args()
    given.steps = given.steps or (None if given.minutes else 300)
    question = QUESTIONS[given.question]
    if unknown := set(given.choices or ()) - question.choices.keys():
        parser.error(f"{', '.join(sorted(unknown))}: the choices are {', '.join(question.choices)}")
    shown = [
        _shown(given.question, on, choice, seed, given)
        for seed in given.seeds
        for on in given.sets or question.sets
        for choice in question.choices
        if not given.choices or choice in given.choices
    ]
    print(_words(shown, question))
    if given.record:
        part, groups = f"choice_{given.question}", {one.group for one in shown}
        others = [one for one in (Shown(**run) for run in known(part).get("runs", ())) if one.group not in groups]
        sets = ", ".join(sorted({on for on, _ in groups}))
        words = (
            f"{_length(given).replace('-', ' ')} each of {sets}{_common(given)}, on "
            f"{given.threads} of {os.cpu_count()} cores; means over seeds, and of the differences within a seed, with "
            "their SD. Test parts are drawn anew for each seed."
        )
        runs = [*others, *shown]
        record(part, question.title, f"{words}\n\n{_words(runs, question)}", {"runs": [asdict(one) for one in runs]})
    sys.exit(any(one.problem for one in shown))


def _shown(question: str, on: str, choice: str, seed: int, given: argparse.Namespace) -> Shown:
    name = "-".join([question, on, choice, _length(given), *given.set, str(seed)])
    if (before := kept(name, given)) is not None:
        return Shown(**{"minutes": given.minutes or 0.0, **before})
    path, words = SETS[on]
    asks = QUESTIONS[question]
    chosen = [*given.set, *asks.choices[choice], *asks.on_set.get((choice, on), ())]
    if (factor := asks.widths.get(choice)) is not None:
        chosen.append(_scaled(given.data.resolve() / path, words, factor, given))
    settings = [word for one in chosen for word in ("--set", one)]
    each = given.steps and given.steps // asks.networks.get(choice, 1)
    asked = argparse.Namespace(**{**vars(given), "steps": each})
    taken = trained(name, [given.data.resolve() / path, *words, *settings], seed, asked)
    if taken.returncode:
        problem = f"failed with exit code {taken.returncode}: see logs/{name}.err"
        return Shown(on, choice, seed, 0, problem, minutes=given.minutes or 0.0)
    row = summary(given.out / name)[0]
    steps = int(plan_file.read_plan(given.out / name / "plan.yaml")["training.steps"])
    shown = Shown(on, choice, seed, steps, "", row["metric"], row["value"], commit(), given.minutes or 0.0)
    keep(name, shown, given)
    return shown


def _scaled(data: Path, words: Sequence[str], factor: float, given: argparse.Namespace) -> str:
    """The setting of a network whose widths are the planned ones times a factor."""
    options = dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))
    size = isocenter.plan(data, **options, minutes=given.minutes or 10, threads=given.threads).plan["network.size"]
    return f"network.size={json.dumps(network_family.widen_settings(size, factor))}"


def _common(given: argparse.Namespace) -> str:
    return f" with {', '.join(given.set)}" if given.set else ""


def _length(given: argparse.Namespace) -> str:
    return f"{given.minutes:g}-minutes" if given.steps is None else f"{given.steps}-steps"


def _words(shown: Sequence[Shown], question: Question) -> str:
    choices = list(question.choices)
    first, others = choices[0], [one for one in choices[1:] if any(run.choice == one for run in shown)]
    lines = [f"| set | metric | seeds | {first} | {' | '.join(f'{one}, difference' for one in others)} | steps |"]
    lines.append("|---" * (5 + len(others)) + "|")
    for on, minutes in sorted(dict.fromkeys(one.group for one in shown), key=lambda group: group[1]):
        group = [one for one in shown if one.group == (on, minutes)]
        runs = {(one.choice, one.seed): one for one in group if not one.problem}
        lines += [f"| {on} | {one.choice}, seed {one.seed}: {one.problem} |" for one in group if one.problem]
        named = marked(SETS[on][0], on) + (f", {minutes:g} minutes" if minutes else "")
        means, steps, seeds = list[str](), list[str](), 0
        for choice in (first, *others):
            own = [one for (name, _), one in runs.items() if name == choice]
            differences = [one.value - runs[first, one.seed].value for one in own if (first, one.seed) in runs]
            difference = "" if choice == first or not differences else f", {spread(differences, sign='+')}"
            means.append(f"{statistics.fmean(one.value for one in own):.3f}{difference}" if own else "")
            steps.append(", ".join(dict.fromkeys(str(one.steps) for one in own)))
            seeds = max(seeds, len(own))
        if runs:
            metric = next(iter(runs.values())).metric
            alike = steps[:1] if len(set(filter(None, steps))) == 1 else steps
            lines.append(f"| {' | '.join([named, metric, str(seeds), *means, '; '.join(alike)])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
