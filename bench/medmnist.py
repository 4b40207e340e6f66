"""The MedMNIST sets at hand by the same command without options, beside the best published row of each measure.

    python bench/medmnist.py --core 1 --threads 1 --resume --record
    python bench/medmnist.py pneumonia --minutes 10 --seeds 0 1 2 --out medmnist

Without `--minutes` a run takes those that `hilum train DATA` takes by itself. Each set has a split of its own; AUC
is that of the paper, the mean over the classes of one against the rest, and accuracy that of the most probable class.
A row is reached where the mean of three seeds or more is at least the published figure; fewer say nothing of it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from recorded import commit, record
from swayed import marked
from trainings import ROOT, add_options, keep, kept, summary, trained

# Fewer seeds than these may have been lucky: nothing is reached by them.
SEEDS = (0, 1, 2)
PAPER = "Yang et al., Scientific Data 2023, doi:10.1038/s41597-022-01721-8"


@dataclass(frozen=True)
class Set:
    """Data of the collection, and {metric: (best published figure, by which method)} of 28 or 224 pixels."""

    data: str
    about: str
    published: Mapping[str, tuple[float, str]]


SETS: Mapping[str, Set] = {
    "pneumonia": Set(
        "pneumoniamnist.npz",
        "PneumoniaMNIST (rebuilt: the official counts and test part)",
        {"auroc": (0.991, "Google AutoML Vision"), "accuracy": (0.946, "Google AutoML Vision")},
    ),
    "retina": Set(
        "retinamnist.npz",
        "RetinaMNIST",
        {"auroc": (0.750, "Google AutoML Vision"), "accuracy": (0.531, "Google AutoML Vision")},
    ),
    "adrenal": Set(
        "adrenalmnist3d.npz",
        "AdrenalMNIST3D",
        {"auroc": (0.839, "ResNet-18 with ACS convolutions"), "accuracy": (0.802, "auto-sklearn")},
    ),
}


@dataclass(frozen=True)
class Shown:
    """One training. found: {metric: [value, low, high]}"""

    on: str
    seed: int
    problem: str = ""
    found: Mapping[str, Sequence[float]] = field(default_factory=dict)
    steps: int = 0
    minutes: float = 0.0
    commit: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"{', '.join(SETS)}; all without")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "medmnist")
    about = "of each training, in place of those without options"
    add_options(parser, "medmnist", minutes=None, of=about, seeds=SEEDS)
    given = parser.parse_args()
    if unknown := sorted(set(given.sets) - set(SETS)):
        parser.error(f"there is no set {', '.join(unknown)}, only {', '.join(SETS)}")
    names = given.sets or list(SETS)
    shown = [_shown(name, seed, given) for seed in given.seeds for name in names]
    text = _words([one for name in names for one in shown if one.on == name])
    print(text)
    if given.record:
        length = "no option" if given.minutes is None else f"`--minutes {given.minutes:g}` alone"
        about = (
            f"`hilum train SET` with {length}, on {given.threads} of {os.cpu_count()} cores. Published: the best "
            f"row of each measure in {PAPER}, quoted as others quote it: the paper's tables could not be opened here. "
            "Intervals of a seed resample cases. The test parts of RetinaMNIST and PneumoniaMNIST had a say in the "
            "[number of epochs](#epochs-of-whole-images), which rests on training parts alone by now. "
            f"Commits: {', '.join(dict.fromkeys(one.commit for one in shown if one.commit))}."
        )
        record("medmnist", "MedMNIST by one command", f"{about}\n\n{text}", {"runs": [asdict(one) for one in shown]})
    sys.exit(any(one.problem for one in shown))


def _shown(on: str, seed: int, given: argparse.Namespace) -> Shown:
    name = f"{on}-{seed}"
    if (before := kept(name, given)) is not None:
        return Shown(**before)
    taken = trained(name, [given.data.resolve() / SETS[on].data], seed, given)
    if taken.returncode:
        problem = f"failed with exit code {taken.returncode}: see logs/{name}.err"
        return Shown(on, seed, problem, minutes=taken.seconds / 60, commit=commit())
    out = given.out / name
    rows = summary(out)
    found = {row["metric"]: [row["value"], row["low"], row["high"]] for row in rows if row["label"] == "all"}
    wanted = {metric: found[metric] for metric in SETS[on].published}
    steps = len((out / "log.csv").read_text().splitlines()) - 1
    shown = Shown(on, seed, "", wanted, steps, taken.seconds / 60, commit())
    keep(name, shown, given)
    return shown


def _words(shown: Sequence[Shown]) -> str:
    """A line of each set and measure."""
    head = "| set | measure | mean (SD) | each seed, 95 % interval | best published | reached | steps | minutes |"
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    for name in dict.fromkeys(one.on for one in shown):
        runs = [one for one in shown if one.on == name and not one.problem]
        lines += [
            f"| {marked(SETS[name].data, SETS[name].about)} | {one.problem} |" + " |" * 6
            for one in shown
            if one.on == name and one.problem
        ]
        lines += [_line(name, metric, runs) for metric in SETS[name].published if runs]
    return "\n".join(lines)


def _line(name: str, metric: str, runs: Sequence[Shown]) -> str:
    values = [one.found[metric][0] for one in runs]
    mean, (best, method) = statistics.fmean(values), SETS[name].published[metric]
    spread = f" ({statistics.stdev(values):.4f})" if len(values) > 1 else " (one seed)"
    cells = [
        marked(SETS[name].data, SETS[name].about),
        metric,
        f"{mean:.4f}{spread}",
        ", ".join("{:.3f} ({:.3f} to {:.3f})".format(*one.found[metric]) for one in runs),
        f"{best:.3f}, {method}",
        _reached(mean, best, len(values)),
        ", ".join(str(one.steps) for one in runs),
        f"{statistics.fmean(one.minutes for one in runs):.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def _reached(mean: float, best: float, seeds: int) -> str:
    if seeds < len(SEEDS):
        return f"not said: {seeds} of {len(SEEDS)} seeds"
    return "yes" if mean >= best else f"no: {best - mean:.3f} short"


if __name__ == "__main__":
    main()
