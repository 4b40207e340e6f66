"""Drawn radiographs: recognised by a plain classifier of real ones, copies, membership, minutes, memory.

    python bench/synthesis.py --out DIR --minutes 10 --record

PneumoniaMNIST with 50 normal training images beside a thousand of pneumonia. The classifier was trained on all real
training images. Its share is the mean over both classes, of as many drawn as real test images. Cells that have ended
are lines of DIR/cells.jsonl, and are not repeated.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from environment import ROOT
from recorded import measured_cell, record

import isocenter

DATA = ROOT.parent / "shared" / "data" / "medmnist" / "pneumoniamnist.npz"
NAMES = ("normal", "pneumonia")
RARE, COMMON, SELECTING, TESTED = 50, 1000, 60, 200
NOT_MEASURED = "not measured"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the network that draws")
    parser.add_argument("--classifier", type=float, default=2.0, help="minutes of the plain classifier")
    parser.add_argument("--count", type=int, default=TESTED, help="drawn images of each class")
    parser.add_argument("--small", action="store_true", help="try it with few images and steps")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    data = given.out / "pictures"
    write_pictures(data)
    drawn = measured_cell(given.out, "drawn by class", lambda: drawn_figures(given, data))
    seen = measured_cell(given.out, "recognised", lambda: recognised(given, data))
    row = {"figures": {**drawn, **seen, "usefulness": NOT_MEASURED}}
    asked = {
        "share of drawn images recognised": (seen["drawn"], "0.88 (plain flow: 0.87)"),
        "share of real test images recognised": (seen["real"], "0.94"),
        "withheld as near copies": (drawn["withheld"], "at most 0.03"),
        "membership inference, AUROC": (drawn["membership"], "stated"),
        "steps, in minutes to the last": (f"{drawn['steps']} in {drawn['minutes']}", "10 minutes in all"),
        "peak memory of the training, GiB": (drawn["peak GiB"], "stated"),
        "usefulness (real, oversampled, with drawn images)": (NOT_MEASURED, "stated"),
    }
    lines = ["| what | measured | asked |", "|---|---|---|"]
    lines += [f"| {name} | {value} | {wanted} |" for name, (value, wanted) in asked.items()]
    text = "\n".join(lines)
    print(text)
    if given.record:
        record("synthesis", "Drawn radiographs of a rare class", text, {**row, "minutes": given.minutes})


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


def drawn_figures(given: Any, data: Path) -> dict[str, Any]:
    """Train the network that draws, and draw; memory is that of the largest process so far."""
    run = given.out / "drawing"
    is_begun = (run / "plan.yaml").is_file()
    if not (run / "report.html").is_file():
        steps = ["--set", "training.steps=2"] if given.small else ["--minutes", str(given.minutes)]
        new = [str(data), "--task", "synthesis", "--out", str(run), *steps, "--device", "cpu", "--threads", "1"]
        words = ["--resume", str(run)] if is_begun else new
        subprocess.run([sys.executable, "-m", "isocenter", "train", *words], check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    count = 2 if given.small else given.count
    found = isocenter.synthesise(run, count=count, out=given.out / "drawn", device="cpu", overwrite=True)
    withheld = sum(found.withheld.values())
    last = (run / "log.csv").read_text().splitlines()[-1].split(",")
    return {
        "withheld": round(withheld / (withheld + len(found.rows)), 4),
        "withheld by class": dict(found.withheld),
        "membership": str(found.membership),
        "steps": int(last[0]),
        "minutes": round(float(last[1]) / 60, 1),
        "peak GiB": NOT_MEASURED if is_begun else round(peak, 2),
    }


def recognised(given: Any, data: Path) -> dict[str, Any]:
    """Shares of drawn and of real test images whose class a plain classifier of real images calls."""
    run = given.out / "classifier"
    if not (run / "report.html").is_file():
        length = {"assignments": {"training.steps": 2}} if given.small else {"minutes": given.classifier}
        isocenter.train(DATA, out=run, device="cpu", threads=1, overwrite=True, **length)
    shares: dict[str, Any] = {}
    for kind, place in (("drawn", given.out / "drawn"), ("real", data / "test")):
        for name in NAMES:
            found = isocenter.predict(run, sorted((place / name).glob("*.png"))[: given.count], device="cpu")
            called = found.table["predicted"].astype(str)
            shares[f"{kind} {name}"] = round(float((called == known_label(run, name)).mean()), 3)
        shares[kind] = round(float(np.mean([shares[f"{kind} {name}"] for name in NAMES])), 3)
    return shares


def known_label(run: Path, name: str) -> str:
    """The classifier's own name of a class: its data number them."""
    classes = isocenter.load(run, device="cpu").task.classes
    return name if name in classes else str(classes[NAMES.index(name)])


if __name__ == "__main__":
    main()
