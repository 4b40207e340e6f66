"""Calibration of trained networks: what `train` finds on unseen cases, and how right it is on cases that chose nothing.

    python bench/calibrated_classes.py --threads 1 --minutes 6 --resume --record
    python bench/calibrated_classes.py retina --seeds 0

Each seed draws 450 cases of the training part of a MedMNIST set; up to a thousand others of it are the test. Retina is
trained twice, as classes and as grades. A temperature of 1 would leave nothing to calibrate.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from drawn_sets import drawn, in_words
from recorded import commit, record
from trainings import ROOT, add_options, keep, kept, spread, summary, trained

from isocenter.files.storage import csv_text
from isocenter.planning import plan_file

CASES, TESTED = 450, 1000
SETS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "pneumonia": ("pneumoniamnist.npz", ()),
    "retina": ("retinamnist.npz", ()),
    "retina as grades": ("retinamnist.npz", ("--set", "task.order=corn")),
    "adrenal": ("adrenalmnist3d.npz", ()),
}
METRICS = ("temperature", "ece_equal_mass", "log_loss", "brier", "auroc")
# Of sets: the share of test cases whose set holds the truth, and where it lies in 99 % of calibration parts.
COVERAGE, DRAWS = "coverage", 20_000
BEFORE, PERFECT = "_uncalibrated", "perfect"
# Stages of a run that fit functions and promises; found in percent of its minutes.
FITTED = ("calibration and thresholds", "gate")
CALIBRATED = re.compile(r"a calibrated model has ([0-9.]+)")


@dataclass(frozen=True)
class Shown:
    """One training.

    method: which calibration it took
    found:  {metric: value}, those before calibration with an end; {stage: percent of the minutes}
    """

    on: str
    seed: int
    problem: str = ""
    method: str = ""
    cases: int = 0
    found: Mapping[str, float] = field(default_factory=dict)
    commit: str = ""


def shown(on: str, seed: int, given: argparse.Namespace) -> Shown:
    """One training of one draw."""
    name = f"{on}-{seed}".replace(" ", "_")
    if (before := kept(name, given)) is not None:
        return Shown(**before)
    file, words = SETS[on]
    data = drawn(given.data.resolve() / file, seed, given.out.resolve() / "data" / f"{name}" / file, CASES, TESTED)
    taken = trained(name, [data, *words], seed, given)
    if taken.returncode:
        return Shown(on, seed, f"failed with exit code {taken.returncode}: see logs/{name}.err")
    wanted = {COVERAGE, *(f"{metric}{end}" for metric in METRICS for end in ("", BEFORE))}
    rows = {
        row["metric"]: row for row in summary(given.out / name) if row["label"] == "all" and row["metric"] in wanted
    }
    found = {metric: row["value"] for metric, row in rows.items() if row["value"] is not None}
    if perfect := CALIBRATED.search(rows["ece_equal_mass"]["method"]):
        found[PERFECT] = float(perfect[1])
    plan = plan_file.read_plan(given.out / name / "plan.yaml")
    calibration, conformal = plan["task.calibration"], plan["task.conformal"]
    if COVERAGE in found:
        found["coverage_low"], found["coverage_high"] = coverage_range(conformal, tested_in(given.out / name))
        found["exact"] = float(conformal["exact"])
    seconds = json.loads((given.out / name / "environment.json").read_text(encoding="utf-8"))["seconds"]
    found |= {stage: 100 * seconds[stage] / (60 * given.minutes) for stage in FITTED}
    one = Shown(on, seed, "", calibration["method"], calibration["cases"], found, commit())
    keep(name, one, given)
    return one


def tested_in(run: Path) -> dict[str, int]:
    """{class: test cases of it}"""
    table = csv_text.read_text_table(run / "evaluation" / "cases.csv")
    return {str(name): int(count) for name, count in table["reference"].value_counts().items()}


def coverage_range(conformal: Mapping[str, Any], tested: Mapping[str, int]) -> tuple[float, float]:
    """Where the share of test cases whose set holds the truth lies in 99 % of calibration parts.

    A threshold at rank k of n cases holds the next truth with a chance from Beta(k, n + 1 - k) (Vovk,
    arXiv:1209.2673); where these cases have chosen other things too, it need not.
    """
    random, held = np.random.default_rng(0), np.zeros(DRAWS)
    counts = tested if conformal["by"] == "class" else {"all": sum(tested.values())}
    for group, cases in counts.items():
        n = int(conformal["n"][group])
        rank = math.ceil((n + 1) * conformal["level"] - 1e-9)
        chance = random.beta(rank, n + 1 - rank, DRAWS) if rank <= n else np.ones(DRAWS)
        held += random.binomial(cases, chance)
    low, high = np.quantile(held / sum(counts.values()), [0.005, 0.995])
    return float(low), float(high)


def words_of(all_shown: Sequence[Shown]) -> str:
    """A line for each set: now, and before calibration."""
    heads = ["set", "draws", "methods (cases)", "temperature", "ECE, equal mass", "of a perfect model", "log loss"]
    heads += ["AUROC", "coverage of each draw (99 % range)", "calibration and gate, % of the minutes"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for on in dict.fromkeys(one.on for one in all_shown):
        good = [one for one in all_shown if one.on == on and not one.problem]
        if not good:
            continue
        methods = ", ".join(f"{one.method} ({one.cases})" for one in good)
        fitting = " and ".join(_spread([one.found.get(stage) for one in good]) for stage in FITTED)
        for end in ("", BEFORE):
            cells = {metric: [one.found.get(f"{metric}{end}") for one in good] for metric in METRICS}
            texts = {metric: _spread(values) for metric, values in cells.items()}
            perfect = _spread([one.found.get(PERFECT) for one in good]) if not end else ""
            first = (on, str(len(good)), methods) if not end else ("before", "", "")
            lines.append(
                f"| {' | '.join(first)} | {texts['temperature']} "
                f"| {texts['ece_equal_mass']} | {perfect} | {texts['log_loss']} | {texts['auroc']} "
                f"| {'' if end else ', '.join(_covered(one) for one in good if COVERAGE in one.found)} "
                f"| {'' if end else fitting} |"
            )
    lines += [f"| {one.on} | draw {one.seed} {one.problem} |" for one in all_shown if one.problem]
    return "\n".join(lines)


def _covered(one: Shown) -> str:
    """A coverage and its range, marked where the cases that set it have decided other things too."""
    approximate = "" if one.found["exact"] else ", approximate"
    ends = f"{one.found['coverage_low']:.3f} to {one.found['coverage_high']:.3f}"
    return f"{one.found[COVERAGE]:.3f} ({ends}{approximate})"


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return spread(known) if known else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"{', '.join(SETS)}; all without")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "medmnist")
    add_options(parser, "calibrated_classes", minutes=6.0, of="of each training", seeds=(0, 1, 2))
    given = parser.parse_args()
    each = [shown(on, seed, given) for seed in given.seeds for on in given.sets or SETS]
    text = words_of(each)
    print(text)
    if given.record:
        about = in_words(CASES, TESTED, given, (one.commit for one in each))
        record(
            "calibrated_classes", "Calibrated probabilities", f"{about}\n\n{text}", {"runs": [asdict(n) for n in each]}
        )


if __name__ == "__main__":
    main()
