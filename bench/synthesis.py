"""Synthetic radiographs: recognised by a classifier of real ones, copies, membership, usefulness, minutes, memory.

    python bench/synthesis.py --out DIR --minutes 10 --record

PneumoniaMNIST with 50 normal training images beside a thousand of pneumonia. The classifier was trained on all real
training images. Its share is the mean over both classes, of as many synthetic as real test images. Usefulness: the same
classifier of the few normal images, once as they are, once with these as often as others, once with synthetic normal
images beside them, each with three seeds, all tested on the same real cases; differences are means over the seeds and
resample the cases. Cells that have ended are lines of DIR/cells.jsonl, and are not repeated; those of an earlier record
stay. `--only` names cells: "again useful" trains the generator anew, where its earlier run is gone.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
from environment import ROOT
from recorded import known, measured_cell, record

import hilum
from hilum.evaluation import classification

DATA = ROOT.parent / "shared" / "data" / "medmnist" / "pneumoniamnist.npz"
NAMES = ("normal", "pneumonia")
RARE, COMMON, SELECTING, TESTED = 50, 1000, 60, 200
NOT_MEASURED = "not measured"
WAYS = ("real", "oversampled", "with synthetic images")
AGAIN, SEEDS = "again useful", (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the generator")
    parser.add_argument("--classifier", type=float, default=2.0, help="minutes of the plain classifier")
    parser.add_argument("--trained", type=float, default=1.5, help="minutes of each training of usefulness")
    parser.add_argument("--count", type=int, default=TESTED, help="synthetic images of each class")
    parser.add_argument("--small", action="store_true", help="try it with few images and steps")
    parser.add_argument("--again", type=float, default=7.0, help="minutes of the generator for usefulness")
    parser.add_argument("--only", nargs="+", default=[""], metavar="START", help="cells whose names begin so")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    data = given.out / "pictures"
    write_pictures(data)
    cells: dict[str, Callable[[], dict[str, Any]]] = {
        "synthetic by class": lambda: synthetic_figures(given, data),
        "recognised": lambda: recognised(given, data),
        "copies in features": lambda: near_copies(given),
        AGAIN: lambda: synthetic_again(given, data),
        **{
            f"useful: {name}, seed {seed}": partial(trained_classifier, given, data, name, seed)
            for seed in SEEDS
            for name in WAYS
        },
    }
    measured = {
        name: measured_cell(given.out, name, measure)
        for name, measure in cells.items()
        if name.startswith(tuple(given.only))
    }
    rows = {**known("synthesis").get("cells", {}), **measured}
    if all(is_trained(given, name) for name in WAYS):
        rows |= {f"gain: {name}": gain(given, name) for name in WAYS[1:]}
    text = asked_table(rows)
    print(text)
    if given.record:
        record(
            "synthesis",
            "Synthetic radiographs of a rare class",
            f"{words(given, rows)}\n\n{text}",
            {"cells": rows, "minutes": given.minutes},
        )


def asked_table(rows: dict[str, Any]) -> str:
    """What was asked beside what was measured."""
    made, seen, near = (rows.get(name, {}) for name in ("synthetic by class", "recognised", "copies in features"))
    minutes = f"{made['steps']} in {made['minutes']}" if made else NOT_MEASURED
    asked = {
        "share of synthetic images recognised": (seen.get("synthetic"), "0.88 (plain flow: 0.87)"),
        "share of real test images recognised": (seen.get("real"), "0.94"),
        **{f"of these {kind}": (seen.get(kind), "stated") for kind in ("synthetic normal", "real normal")},
        "withheld as near copies": (made.get("withheld"), "at most 0.03"),
        "withheld where features of the generator count too": (near.get("withheld"), "at most 0.03"),
        "membership inference within classes, AUROC": (near.get("membership"), "stated"),
        "steps, in minutes to the last": (minutes, "10 minutes in all"),
        "peak memory of the training, GiB": (made.get("peak GiB"), "stated"),
    }
    for name in WAYS:
        found = [rows[cell]["auroc"] for seed in SEEDS if (cell := f"useful: {name}, seed {seed}") in rows]
        each = f"{np.mean(found):.3f} ({', '.join(f'{one:.3f}' for one in found)})" if found else None
        asked[f"AUROC of few normal images, {name}: mean (each seed)"] = (each, "stated")
    for name in WAYS[1:]:
        asked[f"{name} less {WAYS[0]}"] = (rows.get(f"gain: {name}", {}).get("words"), "stated")
    lines = ["| what | measured | asked |", "|---|---|---|"]
    return "\n".join(
        lines
        + [
            f"| {name} | {NOT_MEASURED if value is None else value} | {wanted} |"
            for name, (value, wanted) in asked.items()
        ]
    )


def words(given: Any, rows: dict[str, Any]) -> str:
    """How it was measured."""
    made = (
        f"PneumoniaMNIST, {RARE} normal images and {COMMON} with pneumonia, of which a tenth is kept for calibration. "
        f"The generator had {given.minutes:g} minutes of one core, the plain classifier of all real training "
        f"images {given.classifier:g}. Shares are means over both classes. A classifier that misses real test images "
        "is a weak judge of synthetic ones: read both shares together. Other work ran on the same cores."
    )
    if AGAIN not in rows:
        return made
    again = rows[AGAIN]
    return (
        f"{made}\n\nUsefulness: the run that made the images above was gone, so that its network was trained anew, "
        f"{again['steps']} steps in {again['minutes']} minutes, and made {again['synthetic']} normal images "
        f"({again['withheld']} more were withheld). Each classifier had {given.trained:g} minutes of one core with "
        f"reading and evaluation. Differences are means over {len(SEEDS)} seeds with 95 % intervals of resampled real "
        "test cases (paired), not of trainings."
    )


def write_pictures(folder: Path) -> None:
    """Folders of parts and classes: few normal images train."""
    held = np.load(DATA)
    counts = {"train": (RARE, COMMON), "val": (SELECTING, SELECTING), "test": (TESTED, TESTED)}
    for part, numbers in counts.items():
        images, labels = held[f"{part}_images"], held[f"{part}_labels"].ravel()
        for label, count in enumerate(numbers):
            place = folder / part / NAMES[label]
            place.mkdir(parents=True, exist_ok=True)
            for n in np.flatnonzero(labels == label)[:count]:
                PIL.Image.fromarray(images[n]).save(place / f"{n:05}.png")


def synthetic_figures(given: Any, data: Path) -> dict[str, Any]:
    """Train the generator, and synthesise; memory is that of the largest process so far."""
    is_begun = (given.out / "generator" / "plan.yaml").is_file()
    run = trained_generator(given, data, given.minutes)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    count = 2 if given.small else given.count
    found = hilum.synthesise(run, count=count, out=given.out / "synthetic", device="cpu", overwrite=True)
    withheld = sum(found.withheld.values())
    return {
        "withheld": round(withheld / (withheld + len(found.rows)), 4),
        "withheld by class": dict(found.withheld),
        "membership": str(found.membership),
        **steps_of(run),
        "peak GiB": NOT_MEASURED if is_begun else round(peak, 2),
    }


def trained_generator(given: Any, data: Path, minutes: float) -> Path:
    """The run of the generator; it goes on where it was stopped."""
    run = given.out / "generator"
    if not (run / "report.html").is_file():
        steps = ["--set", "training.steps=2"] if given.small else ["--minutes", str(minutes)]
        new = [str(data), "--task", "synthesis", "--out", str(run), *steps, "--device", "cpu", "--threads", "1"]
        asked = ["--resume", str(run)] if (run / "plan.yaml").is_file() else new
        subprocess.run([sys.executable, "-m", "hilum", "train", *asked], check=True)
    return run


def steps_of(run: Path) -> dict[str, Any]:
    """Steps of a training, and the minute of the last."""
    last = (run / "log.csv").read_text().splitlines()[-1].split(",")
    return {"steps": int(last[0]), "minutes": round(float(last[1]) / 60, 1)}


def synthetic_again(given: Any, data: Path) -> dict[str, Any]:
    """Train the generator once more where its run is gone, and synthesise normal images beside the real ones."""
    run = trained_generator(given, data, given.again)
    asked = {"label": NAMES[0], "count": 2 if given.small else RARE * 4, "data": data, "seed": 2}
    found = hilum.synthesise(run, out=given.out / "rare", device="cpu", overwrite=True, **asked)
    made = {"synthetic": len(found.rows), "withheld": sum(found.withheld.values()), "membership": str(found.membership)}
    return {**steps_of(run), **made}


def recognised(given: Any, data: Path) -> dict[str, Any]:
    """Shares of synthetic and of real test images whose class a plain classifier of real images calls."""
    run = given.out / "classifier"
    if not (run / "report.html").is_file():
        length = {"assignments": {"training.steps": 2}} if given.small else {"minutes": given.classifier}
        hilum.train(DATA, out=run, device="cpu", threads=1, overwrite=True, **length)
    shares: dict[str, Any] = {}
    for kind, place in (("synthetic", given.out / "synthetic"), ("real", data / "test")):
        for name in NAMES:
            found = hilum.predict(run, sorted((place / name).glob("*.png"))[: given.count], device="cpu")
            called = found.table["predicted"].astype(str)
            shares[f"{kind} {name}"] = round(float((called == known_label(run, name)).mean()), 3)
        shares[kind] = round(float(np.mean([shares[f"{kind} {name}"] for name in NAMES])), 3)
    return shares


def near_copies(given: Any) -> dict[str, Any]:
    """A quarter of the images made once more, compared in pixels and in features of the generator."""
    count, run = max(2, given.count // 4), given.out / "generator"
    found = hilum.synthesise(run, count=count, features=run, seed=1, device="cpu")
    withheld = sum(found.withheld.values())
    share = round(withheld / (withheld + len(found.rows)), 4)
    return {"withheld": share, "withheld by class": dict(found.withheld), "membership": str(found.membership)}


def trained_classifier(given: Any, data: Path, name: str, seed: int) -> dict[str, Any]:
    """AUROC of the real test images by a classifier of the few normal images, helped in one way or in none."""
    length: dict[str, Any] = {"training.steps": 2} if given.small else {}
    if name == "oversampled":
        length["training.sampling"] = "balanced"
    source = given.out / "rare" / "dataset.csv" if name == "with synthetic images" else data
    run, minutes = run_of(given, name, seed), {} if given.small else {"minutes": given.trained}
    hilum.train(source, out=run, assignments=length, device="cpu", threads=1, overwrite=True, seed=seed, **minutes)
    table = tested(run)
    calls = table["predicted"] == table["reference"]
    recalls = {one: round(float(calls[table["reference"] == one].mean()), 3) for one in NAMES}
    value = classification.auroc(table[f"probability_{NAMES[1]}"], table["reference"] == NAMES[1])
    return {"auroc": round(float(value), 4), **recalls, "cases": len(table), "steps": steps_of(run)["steps"]}


def run_of(given: Any, name: str, seed: int) -> Path:
    """The folder of a classifier."""
    return given.out / f"{name.replace(' ', '-')}-{seed}"


def is_trained(given: Any, name: str) -> bool:
    """Whether a way was measured with every seed."""
    return all((run_of(given, name, seed) / "report.html").is_file() for seed in SEEDS)


def tested(run: Path) -> pd.DataFrame:
    """The rows of the real test cases, by name."""
    table = pd.read_csv(run / "evaluation" / "cases.csv", dtype={"case": str})
    return table[table["split"] == "test"].sort_values("case").reset_index(drop=True)


def gain(given: Any, name: str) -> dict[str, Any]:
    """The AUROC of a way less that of the real images alone, the mean over seeds, by the same resampled test cases."""
    values, resampled = list[float](), list[np.ndarray]()
    for seed in SEEDS:
        with_help, alone = tested(run_of(given, name, seed)), tested(run_of(given, WAYS[0], seed))
        if list(with_help["case"]) != list(alone["case"]):
            raise ValueError("the trainings were tested on other cases")
        truth = (alone["reference"] == NAMES[1]).to_numpy()
        scores = [one[f"probability_{NAMES[1]}"].to_numpy() for one in (with_help, alone)]
        weights = np.random.default_rng(0).multinomial(len(truth), np.full(len(truth), 1 / len(truth)), size=2000)
        resampled.append(np.subtract(*(classification.auroc(one, truth, weights.astype(float)) for one in scores)))
        values.append(float(np.subtract(*(float(classification.auroc(one, truth)) for one in scores))))
    value = float(np.mean(values))
    low, high = (float(one) for one in np.nanquantile(np.mean(resampled, axis=0), [0.025, 0.975]))
    verdict = "helped" if low > 0 else "harmed" if high < 0 else "no help shown"
    return {"value": value, "low": low, "high": high, "words": f"{value:+.4f} ({low:+.4f} to {high:+.4f}): {verdict}"}


def known_label(run: Path, name: str) -> str:
    """The classifier's own name of a class: its data number them."""
    classes = hilum.load(run, device="cpu").task.classes
    return name if name in classes else str(classes[NAMES.index(name)])


if __name__ == "__main__":
    main()
