"""A temperature of few cases: with and without an expected spread, on simulated networks that are too sure.

    python bench/few_to_calibrate.py --record

Two classes of normal scores, parted by 1.2 (AUROC .80) or 3.5 (.99) standard deviations. The network states the true
log odds times the temperature. What each calibrator makes of 20,000 further cases is its mean log loss.
"""

from __future__ import annotations

import argparse

import numpy as np
from recorded import record

from isocenter.evaluation import calibration_fit
from isocenter.evaluation.calibration_fit import USUAL_SPREAD, Calibrator, UnseenOutputs

NAMES, SHARE, FURTHER = ("no", "yes"), 0.4, 20_000


def drawn(count: int, apart: float, temperature: float, seed: int, spread: float | None = None) -> UnseenOutputs:
    """Cases of a network with this temperature."""
    random = np.random.default_rng(seed)
    truth = (random.random(count) < SHARE).astype(int)
    scores = random.normal(0, 1, count) + apart * (truth - 0.5)
    odds = (apart * scores + np.log(SHARE / (1 - SHARE))) * temperature
    logs = np.stack([-np.logaddexp(0, odds), -np.logaddexp(0, -odds)], axis=1)
    return UnseenOutputs(logs, truth, np.arange(count).astype(str), NAMES, spread=spread)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=25)
    parser.add_argument("--record", action="store_true", help="write the table to docs/benchmarks")
    given = parser.parse_args()
    lines = [
        "| apart | temperature | cases | none | likelihood alone | with a spread | as `auto` decides |",
        "|---" * 7 + "|",
    ]
    for apart in (1.2, 3.5):
        for temperature in (1.0, 1.5, 2.5):
            further = drawn(FURTHER, apart, temperature, 10**6)
            before = further.losses(Calibrator()).mean()
            for count in (20, 60, 100, 250):
                losses = []
                for seed in range(given.draws):
                    plain = drawn(count, apart, temperature, seed)
                    spread = drawn(count, apart, temperature, seed, USUAL_SPREAD)
                    made = [calibration_fit.fit_calibrator("temperature", own) for own in (plain, spread)]
                    made.append(calibration_fit.choose_calibrator("auto", spread).calibrator)
                    losses.append([further.losses(one).mean() for one in made])
                cells = " | ".join(f"{value:.3f}" for value in (before, *np.mean(losses, axis=0)))
                lines.append(f"| {apart} | {temperature} | {count} | {cells} |")
    text = "\n".join(lines)
    print(text)
    if given.record:
        about = f"Mean log loss of {FURTHER:,} further cases over {given.draws} draws; the spread is {USUAL_SPREAD}."
        record("few_to_calibrate", "A temperature of few cases", f"{about}\n\n{text}", {"rows": lines[2:]})


if __name__ == "__main__":
    main()
