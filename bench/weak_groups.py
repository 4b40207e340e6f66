"""How often an audit without any effect names a weak group, and how often a planted one is found.

    python bench/weak_groups.py --draws 1000

Simulated tables of cases: covariates, facts of the image and clusters of features that say nothing about errors; wrong
calls of 10 %, or what Dice lacks to 1; one case a patient, or three that are alike. An alarm is any group below 5 %
after Holm. The planted group is a fifth of the patients, in which twice or three times as many calls are wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from machine import described

from isocenter.evaluation import clusters, weak_groups

SIZES = (100, 400, 3000)


def attributes(random: np.random.Generator, people: int, each: int) -> dict[str, list]:
    """Of a cohort like those that are audited: covariates, sizes and brightness, clusters of features."""
    own = {
        "sex": random.choice(["F", "M"], people),
        "site": random.choice(["A", "B", "C", "D"], people, p=[0.5, 0.3, 0.15, 0.05]),
        "age": random.normal(60, 12, people),
        "scanner": random.choice(["x", "y", "z"], people),
        "spacing": random.choice([0.5, 0.7, 1.0], people),
        "size": random.integers(200, 600, people),
        "mean": random.gamma(4, 20, people),
    }
    made = {name: list(np.repeat(values, each)) for name, values in own.items()}
    patients = [f"p{n // each}" for n in range(people * each)]
    features = np.repeat(random.normal(size=(people, 24)), each, axis=0) + random.normal(0, 0.3, (people * each, 24))
    return {**made, "features": clusters(features, patients, seed=int(random.integers(2**31)))}


def alarm(seed: int, people: int, each: int, kind: str, times: float = 1.0) -> bool:
    """Whether an audit finds a weak group; of a planted one, whether it finds that one."""
    random = np.random.default_rng((seed, people, each))
    columns = attributes(random, people, each)
    weak = random.random(people) < 0.2
    tendency = random.beta(1, 9, people) if each > 1 else np.full(people, 0.1)
    if times > 1:
        columns["planted"] = ["yes" if one else "no" for one in np.repeat(weak, each)]
        tendency = np.where(weak, tendency * times, tendency)
    chance = np.repeat(tendency.clip(0, 1), each)
    errors = (
        random.random(people * each) < chance
        if kind == "calls"
        else random.beta(1.5, 6, people * each) ** (0.1 / (chance + 0.02))
    )
    patients = [f"p{n // each}" for n in range(people * each)]
    found = [one for one in weak_groups(errors, patients, columns, seed=seed) if one.is_found]
    return any(times == 1 or (one.attribute, one.group) == ("planted", "yes") for one in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000)
    given = parser.parse_args()
    print(f"Machine: {described()}.\nCommand: `python bench/{Path(__file__).name} {' '.join(sys.argv[1:])}`\n")
    print(
        "| patients | cases each | errors | false alarms | found, twice the errors | found, three times | s an audit |"
    )
    print("|---|---|---|---|---|---|---|")
    for people in SIZES:
        for each in (1, 3):
            for kind in ("calls", "dice"):
                began = time.perf_counter()
                draws = given.draws if people < max(SIZES) else max(1, given.draws // 2)
                false = np.mean([alarm(seed, people, each, kind) for seed in range(draws)])
                seconds = (time.perf_counter() - began) / draws
                power = [
                    np.mean([alarm(seed, people, each, kind, times) for seed in range(draws // 5)]) for times in (2, 3)
                ]
                shares = " | ".join(f"{100 * one:.1f} %" for one in (false, *power))
                print(f"| {people} | {each} | {kind} | {shares} | {seconds:.3f} |", flush=True)


if __name__ == "__main__":
    main()
