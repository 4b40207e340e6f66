"""One long training beside an ensemble of several short ones, in as many minutes together.

    python bench/ensemble.py --minutes 6 --members 3 --seeds 0 1 2 --core 1 --threads 1
    python bench/ensemble.py --steps 20 --members 2          # a trial, which shows nothing

For each seed one run has all the minutes, and the members of two ensembles, which differ in how they are weighed, share
them alike; the seconds that `ensemble` itself takes are told beside it. All parts are the set's own, so that all are
tested on the same cases, and the difference to the long run has its paired interval.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from recorded import commit, record
from trainings import ROOT, add_options, summary, trained

import isocenter

LONG = "one long"


@dataclass(frozen=True)
class Shown:
    """One model of one seed.

    apart:   how much higher than the long run's the metric is, in words
    seconds: that weighing, testing and writing took, beside the trainings; 0 of a run
    """

    model: str
    seed: int
    metric: str
    value: float
    low: float | None
    high: float | None
    brier: float
    apart: str = ""
    weights: str = ""
    seconds: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data" / "medmnist" / "pneumoniamnist.npz"
    )
    parser.add_argument("--members", type=int, default=3)
    words = "of the long run, and of all members together"
    add_options(parser, "ensembles", minutes=6.0, of=words, seeds=(0, 1, 2))
    given = parser.parse_args()
    shown = [one for seed in given.seeds for one in _of_seed(seed, given)]
    text = _words(shown)
    print(f"\n{text}")
    if given.record:
        words = (
            f"{given.data.stem}, its own split: one training of {given.minutes:g} minutes, and {given.members} of "
            f"{given.minutes / given.members:g} each as one model, on {given.threads} of {os.cpu_count()} cores. "
            f"Differences are paired by case. Commit: {commit()}."
        )
        record("ensemble", "Ensembles", f"{words}\n\n{text}", {"models": [asdict(one) for one in shown]})


def _of_seed(seed: int, given: argparse.Namespace) -> list[Shown]:
    long = _trained(seed, 1, "long", given)
    members = [_trained(1000 * (seed + 1) + n, given.members, f"{seed}-{n}", given) for n in range(given.members)]
    shown = [_shown(LONG, seed, long, long)]
    for weights in ("equal", "fitted"):
        out, began = given.out.resolve() / f"ensemble-{seed}-{weights}", time.monotonic()
        made = isocenter.ensemble(members, out=out, weights=weights, overwrite=True, device="cpu")
        counts = ", ".join(f"{share:.2f}" for share in made.weights.values())
        seconds = time.monotonic() - began
        shown.append(_shown(f"ensemble, {weights}", seed, out, long, f"{counts}: {made.because}", seconds))
    return [*shown, *(_shown(f"member {n}", seed, run, long) for n, run in enumerate(members))]


def _trained(seed: int, share: int, name: str, given: argparse.Namespace) -> Path:
    """A run in its share of the minutes, as a process of its own."""
    out = given.out.resolve() / f"run-{name}-{seed}"
    if given.resume and (out / "report.html").is_file():
        return out
    found = trained(out.name, [given.data.resolve(), "--device", "cpu"], seed, given, share)
    if found.returncode:
        sys.exit(f"{out.name} failed with exit code {found.returncode}: see {given.out}/logs/{out.name}.err")
    return out


def _shown(model: str, seed: int, run: Path, long: Path, weights: str = "", seconds: float = 0.0) -> Shown:
    """The headline of a run or an ensemble, and its difference to the long run."""
    if run == long:
        rows = summary(run)
        first = rows[0]
        brier = next(row["value"] for row in rows if (row["metric"], row["label"]) == ("brier", "all"))
        return Shown(model, seed, first["metric"], first["value"], first["low"], first["high"], brier)
    both = isocenter.compare([long, run])
    rows = {(row.metric, row.label): row for row in both.rows}
    first, apart = rows[both.primary, "all"].estimates[1], rows[both.primary, "all"].differences[0]
    between = f"{apart.value:+.4f}" + ("" if apart.low is None else f" ({apart.low:+.4f} to {apart.high:+.4f})")
    brier = rows["brier", "all"].estimates[1].value
    return Shown(model, seed, both.primary, first.value, first.low, first.high, brier, between, weights, seconds)


def _words(shown: list[Shown]) -> str:
    columns = ("model", "seed", shown[0].metric, "95 % interval", "Brier", "less one long", "s beside", "weights")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for one in shown:
        interval = "" if one.low is None else f"{one.low:.4f} to {one.high:.4f}"
        cells = [one.model, str(one.seed), f"{one.value:.4f}", interval, f"{one.brier:.4f}", one.apart]
        cells += [f"{one.seconds:.0f}" if one.seconds else "", one.weights]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
