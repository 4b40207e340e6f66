"""After how many epochs a network that says the class of whole images learns its training cases by heart.

    python bench/epochs.py --core 1 --threads 1 --resume --record
    python bench/epochs.py retina --epochs 20 40 --seeds 0 --out epochs

Each training is `isocenter train` with `--set training.epochs=N` and minutes to spare, so that the rate has fallen to
zero at the end of each. The sets are MedMNIST's, with their own splits, and parts of PneumoniaMNIST that keep so many
of its training images and a ninth as many of its validation images. The Brier score, lower is better, counts what is
said too surely.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from medmnist import SETS
from recorded import commit, record
from trainings import ROOT, add_options, keep, kept, spread, summary, trained

# {name: the training images that are kept of PneumoniaMNIST}
PARTS = {"pneumonia-150": 150, "pneumonia-600": 600}
METRICS = ("auroc", "accuracy", "brier")
EPOCHS = (10, 20, 40, 80)
# The small sets, without options: the others take hours.
USUAL = ("retina", *PARTS)


@dataclass(frozen=True)
class Shown:
    """One training; values of `METRICS` on the test part, and the AUROC of the validation part at its end."""

    on: str
    epochs: float
    seed: int
    problem: str = ""
    values: tuple[float, ...] = ()
    validation: float = 0.0
    steps: int = 0
    minutes: float = 0.0
    commit: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "sets", nargs="*", metavar="SET", help=f"{', '.join((*SETS, *PARTS))}; {', '.join(USUAL)} without"
    )
    parser.add_argument("--epochs", nargs="+", type=float, default=list(EPOCHS))
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "medmnist")
    add_options(
        parser, "epochs", minutes=100.0, of="of each training, which its epochs are to end before", seeds=(0, 1, 2)
    )
    given = parser.parse_args()
    if unknown := sorted(set(given.sets) - {*SETS, *PARTS}):
        parser.error(f"there is no set {', '.join(unknown)}")
    names = given.sets or USUAL
    shown = [_shown(name, epochs, seed, given) for seed in given.seeds for name in names for epochs in given.epochs]
    text = _words(shown)
    print(text)
    if given.record:
        words = (
            f"`isocenter train SET --set training.epochs=N`, on {given.threads} of {os.cpu_count()} cores; means over "
            "seeds and, in brackets, their SD, on the test part; validation: AUROC of the validation part at the end, "
            "which tells the numbers of epochs hardly apart. So these test parts had a say in the number that plans "
            "take, and are no unbiased estimate of what it brings. "
            f"Commits: {', '.join(dict.fromkeys(one.commit for one in shown if one.commit))}."
        )
        record("epochs", "Epochs of whole images", f"{words}\n\n{text}", {"runs": [asdict(one) for one in shown]})
    sys.exit(any(one.problem for one in shown))


def _shown(on: str, epochs: float, seed: int, given: argparse.Namespace) -> Shown:
    name = f"{on}-{epochs:g}-{seed}"
    if (before := kept(name, given)) is not None:
        return Shown(**before)
    taken = trained(name, [_data(on, given), "--set", f"training.epochs={epochs:g}"], seed, given)
    if taken.returncode:
        return Shown(on, epochs, seed, f"failed with exit code {taken.returncode}: see logs/{name}.err")
    out = given.out / name
    rows = summary(out)
    values = {row["metric"]: row["value"] for row in rows if row["label"] == "all"}
    log = list(csv.DictReader((out / "log.csv").read_text().splitlines()))
    last = [float(row["validation"]) for row in log if row["validation"]][-1]
    shown = Shown(
        on, epochs, seed, "", tuple(values[one] for one in METRICS), last, len(log), taken.seconds / 60, commit()
    )
    keep(name, shown, given)
    return shown


def _data(on: str, given: argparse.Namespace) -> Path:
    """The set's file; of a part one that is made here, always of the same images."""
    if on in SETS:
        return given.data.resolve() / SETS[on].data
    out = given.out.resolve() / f"{on}.npz"
    if not out.is_file():
        whole, rng = np.load(given.data / SETS["pneumonia"].data), np.random.default_rng(0)
        arrays = {name: whole[name] for name in whole.files}
        for part, many in (("train", PARTS[on]), ("val", PARTS[on] // 9)):
            few = rng.permutation(len(whole[f"{part}_labels"]))[:many]
            arrays |= {f"{part}_{what}": whole[f"{part}_{what}"][few] for what in ("images", "labels")}
        out.parent.mkdir(parents=True, exist_ok=True)
        np.savez(out, **arrays)
    return out


def _words(shown: Sequence[Shown]) -> str:
    """A line of each set and number of epochs."""
    columns = ("set", "epochs", "seeds", *METRICS, "validation", "steps", "minutes")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for on, epochs in dict.fromkeys((one.on, one.epochs) for one in shown):
        runs = [one for one in shown if (one.on, one.epochs) == (on, epochs) and not one.problem]
        lines += [
            f"| {on} | {epochs:g} | {one.seed}: {one.problem} |" + " |" * (len(columns) - 3)
            for one in shown
            if (one.on, one.epochs) == (on, epochs) and one.problem
        ]
        if runs:
            cells = [on, f"{epochs:g}", str(len(runs))]
            cells += [spread([one.values[n] for one in runs]) for n in range(len(METRICS))]
            cells += [spread([one.validation for one in runs]), str(max(one.steps for one in runs))]
            lines.append(f"| {' | '.join([*cells, f'{statistics.fmean(one.minutes for one in runs):.1f}'])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
