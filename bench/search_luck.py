"""How often luck alone would edit a plan: a search in which no trial is better than the plan, simulated.

    python bench/search_luck.py --trials 12 --searches 60

All models have the same AUROC, 0.86 of endlessly many cases; half of what they say of a case they say alike. Counted is
how often the best of the trials passes the first of the two tests of a search, by 95 % of bootstrap draws and by
Bonferroni's bound.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import numpy as np
import torch

from isocenter.tasks.classification.task import Classification
from isocenter.training import SURE, draws_for, share_better, sure_of_best

CASES = (10, 20)
SEPARATION = 1.5


def outputs(random: np.random.Generator, truth: np.ndarray, common: np.ndarray) -> Mapping[str, torch.Tensor]:
    """What one model says of the validation cases."""
    logit = 0.7 * common + 0.7 * random.normal(size=len(truth)) + SEPARATION * truth
    chance = 1 / (1 + np.exp(-logit))
    return {"probabilities": torch.tensor(np.stack([1 - chance, chance], axis=1)), "target": torch.tensor(truth)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--searches", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    task, random = Classification(("no", "yes")), np.random.default_rng(given.seed)
    print("| validation cases | 95 % of draws | Bonferroni |\n|---|---|---|")
    for cases in CASES:
        passed = np.zeros(2, dtype=int)
        for _ in range(given.searches):
            truth, common = np.arange(cases) % 2, random.normal(size=cases)
            plan, *trials = (outputs(random, truth, common) for _ in range(1 + given.trials))
            best = max(trials, key=task.selection)
            if task.selection(best) > task.selection(plan):
                share = share_better(task, best, plan, [*map(str, range(cases))], seed=0, draws=draws_for(given.trials))
                passed += [share >= SURE, share >= sure_of_best(given.trials)]
        each = " | ".join(f"{count} of {given.searches}" for count in passed)
        print(f"| {cases} | {each} |", flush=True)


if __name__ == "__main__":
    main()
