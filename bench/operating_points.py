"""Which sensitivity a rule reaches that is registered before training, by the size of a set and its prevalence.

    python bench/operating_points.py [--repetitions 400] [--record]

Simulated sets of a model with an AUROC of 0.90 and calibrated probabilities: a fifth is test, and the rule
"sensitivity>=0.95" is applied to as many validation cases as a plan draws, today and by the rule of before (a tenth of
the others, at most 20), each class by its share as a split draws it; with inner folds to all cases that are not test.
Where they are too few for a threshold, calls are made at 0.5. The sensitivity is that of all people, so that no test
part's luck is in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from recorded import record
from scipy import stats

from isocenter.planning.rules.split import FEWEST_OF_LARGE, LARGE_SET, VAL_SHARE
from isocenter.tasks.shared import chosen_thresholds

RULE, SIZES, PREVALENCES = "sensitivity>=0.95", (100, 200, 400, 1000, 4000), (0.05, 0.1, 0.3, 0.5)
# Two normal distributions this far apart have an AUROC of 0.90.
APART = float(np.sqrt(2) * stats.norm.ppf(0.90))


def before(cases: int) -> int:
    """Validation cases of a set, at most 20."""
    return round(min(0.1 * 0.8 * cases, 20))


def today(cases: int) -> int:
    """Validation cases of a set, as a plan draws them of pictures."""
    share = VAL_SHARE * 0.8 * cases
    return round(max(share, FEWEST_OF_LARGE) if cases >= LARGE_SET else share)


def pooled(cases: int) -> int:
    """Cases of a set whose predictions inner folds pool: all that are not test."""
    return round(0.8 * cases)


def drawn(selecting: int, cases: int, prevalence: float, random: np.random.Generator) -> np.ndarray:
    """(cases,) whether each that selects is ill, drawn from those that are not test within its class, as by `split`."""
    ill = random.binomial(pooled(cases), prevalence)
    share = selecting / pooled(cases)
    counts = [int(share * own + 0.5) for own in (pooled(cases) - ill, ill)]
    return np.repeat([False, True], counts)


def reached(selecting: int, cases: int, prevalence: float, random: np.random.Generator) -> tuple[float, bool]:
    """The sensitivity among all people, and whether a threshold followed from so many of a set's cases."""
    ill = drawn(selecting, cases, prevalence, random)
    scores = random.normal(size=len(ill)) + APART * ill
    offset = np.log(prevalence / (1 - prevalence))
    probabilities = 1 / (1 + np.exp(-(APART * scores - APART**2 / 2 + offset)))
    levels, _ = chosen_thresholds(RULE, {"ill": (probabilities, ill, np.arange(len(ill)))}, "0.5")
    level = min(max(levels.get("ill", 0.5), 1e-9), 1 - 1e-9)
    score = (np.log(level / (1 - level)) - offset + APART**2 / 2) / APART
    return float(stats.norm.sf(score - APART)), bool(levels)


def cell(selecting: int, cases: int, prevalence: float, repetitions: int) -> str:
    """Mean sensitivity, and how often calls were made at 0.5."""
    each = [reached(selecting, cases, prevalence, np.random.default_rng([selecting, n])) for n in range(repetitions)]
    without = 1 - np.mean([known for _, known in each])
    return f"{np.mean([value for value, _ in each]):.2f}" + f" ({100 * without:.0f} %)" * bool(without)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--record", action="store_true", help="write the table to docs/benchmarks")
    given = parser.parse_args()
    rules: dict[str, Callable[[int], int]] = {"before": before, "today": today, "inner folds": pooled}
    lines = [
        "| cases | rule | cases that decide | " + " | ".join(f"prevalence {one:.0%}" for one in PREVALENCES) + " |",
        "|---" * (3 + len(PREVALENCES)) + "|",
    ]
    for cases in SIZES:
        for name, rule in rules.items():
            cells = [cell(rule(cases), cases, prevalence, given.repetitions) for prevalence in PREVALENCES]
            lines.append(f"| {cases} | {name} | {rule(cases)} | {' | '.join(cells)} |")
    text = "\n".join(lines)
    print(text)
    if given.record:
        words = (
            f"Mean sensitivity among all people where {RULE} was registered; in brackets the share of "
            f"{given.repetitions} simulated sets whose deciding cases were too few, so that calls are made at 0.5, "
            "which the report's headline then says."
        )
        record("operating_points", "Does a registered sensitivity hold?", f"{words}\n\n{text}", {"table": text})


if __name__ == "__main__":
    main()
