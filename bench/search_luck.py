"""How often a search edits a plan: by luck, where no trial is better than the plan, and rightly, where one is.

    python bench/search_luck.py [--trials 12] [--searches 60] [--record]

Luck: all models have the same AUROC, 0.86 of endlessly many cases; half of what they say of a case they say alike.
Counted is how often the best of the trials passes the first of the two tests of a search, by 95 % of bootstrap draws
and by Bonferroni's bound.

A true gain: the plan's AUROC is 0.80, that of the best trial 0.90. Counted is how often it takes the plan's place: by
both tests on the validation cases of a set, 15 % of what is not test, and by the second alone over its training cases,
each predicted by inner folds. A network of an inner fold is simulated as good as the model.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from recorded import record
from scipy import stats

from isocenter.planning.rules.split_rules import VAL_SHARE
from isocenter.tasks.classification.question import Classification
from isocenter.training import checkpoint_files
from isocenter.training.checkpoint_files import SURE

CASES, SETS = (10, 20), (100, 200, 350)
SEPARATION, ALIKE = 1.5, 0.7
TASK = Classification(("no", "yes"))


def outputs(
    random: np.random.Generator, truth: np.ndarray, common: np.ndarray, separation: float = SEPARATION
) -> Mapping[str, torch.Tensor]:
    """What one model says of the cases."""
    logit = ALIKE * common + ALIKE * random.normal(size=len(truth)) + separation * truth
    chance = 1 / (1 + np.exp(-logit))
    return {"probabilities": torch.tensor(np.stack([1 - chance, chance], axis=1)), "target": torch.tensor(truth)}


def share(ours: Mapping[str, torch.Tensor], plan: Mapping[str, torch.Tensor], trials: int) -> float:
    """Share of bootstrap draws in which ours is better."""
    cases = [*map(str, range(len(plan["target"])))]
    return checkpoint_files.share_better(TASK, ours, plan, cases, seed=0, tried=trials)


def by_luck(cases: int, trials: int, searches: int, random: np.random.Generator) -> Sequence[int]:
    """How many of the searches pass by 95 % of the draws, and by Bonferroni's bound."""
    passed = np.zeros(2, dtype=int)
    for _ in range(searches):
        truth, common = np.arange(cases) % 2, random.normal(size=cases)
        plan, *others = (outputs(random, truth, common) for _ in range(1 + trials))
        best = max(others, key=TASK.selection)
        if TASK.selection(best) > TASK.selection(plan):
            better = share(best, plan, trials)
            passed += [better >= SURE, better >= checkpoint_files.required_share(trials)]
    return passed.tolist()


def recognised(cases: int, trials: int, searches: int, random: np.random.Generator) -> int:
    """How many searches take the better plan; trials: how many were chosen from by the same cases, 0 for none."""
    levels = [np.sqrt(2) * ALIKE * np.sqrt(2) * stats.norm.ppf(auroc) for auroc in (0.80, 0.90)]
    found = 0
    for _ in range(searches):
        truth, common = np.arange(cases) % 2, random.normal(size=cases)
        first, again = ([outputs(random, truth, common, level) for level in levels] for _ in range(2))
        if not trials or share(first[1], first[0], trials) >= checkpoint_files.required_share(trials):
            found += share(again[1], again[0], 1) >= SURE
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--searches", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="write the tables to docs/benchmarks")
    given = parser.parse_args()
    random = np.random.default_rng(given.seed)
    lines = ["| validation cases | 95 % of draws | Bonferroni |", "|---|---|---|"]
    for cases in CASES:
        each = " | ".join(f"{n} of {given.searches}" for n in by_luck(cases, given.trials, given.searches, random))
        lines.append(f"| {cases} | {each} |")
    lines += ["", "| cases of the set | by validation cases | by inner folds |", "|---|---|---|"]
    for cases in SETS:
        selecting = round(VAL_SHARE * 0.8 * cases)
        learning = round(0.8 * cases) - selecting
        ours = recognised(selecting, given.trials, given.searches, random)
        crossed = recognised(learning, 0, given.searches, random)
        lines.append(
            f"| {cases} | {ours} of {given.searches} ({selecting} cases) | {crossed} of {given.searches} ({learning}) |"
        )
    text = "\n".join(lines)
    print(text)
    if given.record:
        words = (
            f"Simulated searches of {given.trials} trials. First: no trial is better than the plan; how often luck "
            "passes the first test. Then: one is truly better, AUROC .90 beside .80; how often it takes the place of "
            "the plan."
        )
        record("search_luck", "How often does a search edit a plan?", f"{words}\n\n{text}", {"table": text})


if __name__ == "__main__":
    main()
