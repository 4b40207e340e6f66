"""Is the memory that was predicted the memory that is taken? Whole trainings and predictions, each a process.

    python bench/memory.py                   # about half an hour on two cores
    python bench/memory.py --device cuda:0   # of a GPU: the trainings, side by side
    python bench/memory.py --objectives      # trainings that lower other terms, or further ones
    python bench/memory.py --small

A training is the command `hilum train` from raw files to the report, with a few steps; its prediction is
`training.memory` of its plan. A prediction is one generated volume through a small U-Net with fresh weights; what it
was expected to take is what the program held just before, and what `expected_memory` adds to that. Measured is the
largest resident memory of the process and its children, or of a GPU the most that tensors held there. Asked: within
25 %.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beside import HILUM, PLACE, Program, arguments, failures, interleaved, record

SIDE = Path(__file__).resolve().parent / "sides" / "expected_ours.py"
MIB, GIB = 2**20, 2**30
ASKED = 0.25
PRETRAIN, TERMS = "pretrain", ("--unlabelled", "--set")
STEPS = ("--set", "training.steps=4", "--set", "training.validations=1")
LABELS = ("--labels", "1=anterior,2=posterior")
# By name: the data, and what is set beside.
TRAININGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "hippocampus, 3D, 200 cases": ("hippocampus", LABELS),
    "the same, batch 16": ("hippocampus", (*LABELS, "--set", "training.batch=16")),
    "CHASE-DB1, 2D, 20 cases": ("chasedb1", ()),
    "the same, batch 12": ("chasedb1", ("--set", "training.batch=12")),
    "PneumoniaMNIST, 2D, 5,856 cases": ("medmnist/pneumoniamnist.npz", ()),
    "AdrenalMNIST3D, 3D, 1,584 cases": ("medmnist/adrenalmnist3d.npz", ()),
}
# Unlabelled images are those of the same data, in a folder of their own without references.
OBJECTIVES: dict[str, tuple[str, tuple[str, ...]]] = {
    "hippocampus, masked": ("hippocampus/images", (PRETRAIN,)),
    "hippocampus, mean_teacher": ("hippocampus", (*LABELS, *TERMS, "objectives.terms=[supervised,mean_teacher]")),
    "hippocampus, co_training": ("hippocampus", (*LABELS, *TERMS, "objectives.terms=[supervised,co_training]")),
    "chest radiographs, contrast": ("chest_xray", (PRETRAIN,)),
    "chest radiographs, fixmatch": ("chest_xray", (*TERMS, "objectives.terms=[supervised,fixmatch]")),
}
SMALL_TRAININGS = {"CHASE-DB1, 2D, all train": ("chasedb1", ("--all", "--set", "training.patch=[128,128]"))}
# By name: shape, spacing of the network's grid (the image's is 1 mm), classes, windows at once.
PREDICTIONS: dict[str, tuple[Sequence[int], Sequence[float], int, int]] = {
    "128 x 128 x 128, 3 classes": ((128, 128, 128), (1, 1, 1), 3, 1),
    "the same, 8 windows at once": ((128, 128, 128), (1, 1, 1), 3, 8),
    "256 x 256 x 128, 40 classes, half as fine": ((256, 256, 128), (2, 2, 2), 40, 1),
    "512 x 512 x 400, 3 classes, half as fine": ((512, 512, 400), (2, 2, 2), 3, 2),
}
SMALL_PREDICTIONS = {"96 x 96 x 96, 3 classes": ((96, 96, 96), (1, 1, 1), 3, 1)}


@dataclass(frozen=True)
class Peer:
    """GiB of one job, as predicted and as measured."""

    job: str
    predicted: float
    measured: float

    @property
    def off(self) -> float:
        """Of the measured: above 0 too much was predicted."""
        return self.predicted / self.measured - 1


def main() -> None:
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--device", default="cpu", help="cpu, or a GPU as cuda:0")
    parser.add_argument("--objectives", action="store_true", help="trainings of other terms, in place of all else")
    asked = parser.parse_args()
    PLACE.mkdir(exist_ok=True)
    gpu = asked.device != "cpu"
    with tempfile.TemporaryDirectory(dir=PLACE) as place:
        found, failed = _trainings(asked, Path(place), at_once=gpu)
    if not gpu and not asked.objectives:
        more, wrong = _predictions(asked)
        found, failed = [*found, *more], [*failed, *wrong]
    text = _table(found, failed)
    print(text)
    if asked.record:
        rows = [{"job": one.job, "predicted_gib": one.predicted, "measured_gib": one.measured} for one in found]
        title = "Memory, predicted and taken" + ", on a GPU" * gpu + ", by objectives" * asked.objectives
        record(f"memory{'_gpu' * gpu}{'_objectives' * asked.objectives}", title, text, {"rows": rows, "failed": failed})


def _trainings(asked: Any, place: Path, *, at_once: bool) -> tuple[list[Peer], list[str]]:
    """at_once: side by side, as trainings may run of which each knows its own share of the device."""

    def run(job: tuple[int, tuple[str, tuple[str, tuple[str, ...]]]]) -> tuple[list[Peer], list[str]]:
        number, (name, (data, more)) = job
        out, first = place / f"run{number}", number * threads * at_once
        verb = PRETRAIN if PRETRAIN in more else "train"
        given = [one for one in more if one != PRETRAIN]
        if TERMS[0] in given:
            given.insert(given.index(TERMS[0]) + 1, str(_images_alone(asked.data / data, place / f"images{number}")))
        command = [HILUM, verb, str(asked.data / data), *given, *STEPS, "--out", str(out)]
        command += ["--threads", str(threads), "--device", asked.device]
        environment = {"HILUM_CACHE": str(place / f"cache{number}"), "OMP_WAIT_POLICY": "passive"}
        table = interleaved([Program(name, command, environment, first_core=first)], 1, threads)
        if failures(table):
            return [], failures(table)
        known = json.loads((out / "environment.json").read_text())
        on_device = known.get("peak_device_memory_gib")
        measured = float(table["peak_rss_mib"].max()) * MIB / GIB if on_device is None else on_device
        return [Peer(f"training: {name}", known["predicted_memory_gib"], measured)], []

    chosen = SMALL_TRAININGS if asked.small else OBJECTIVES if asked.objectives else TRAININGS
    jobs = list(enumerate(chosen.items()))
    threads = min(asked.threads, max(1, (os.cpu_count() or 1) // len(jobs))) if at_once else asked.threads
    with ThreadPoolExecutor(len(jobs) if at_once else 1) as several:
        done = list(several.map(run, jobs))
    return [one for found, _ in done for one in found], [one for _, failed in done for one in failed]


def _images_alone(data: Path, folder: Path) -> Path:
    """A folder of links to the images of a data set, without its labels and its folders."""
    folder.mkdir()
    found = [path for path in sorted(data.rglob("*")) if path.suffix in (".gz", ".jpeg", ".jpg", ".png")]
    for number, path in enumerate(path for path in found if "labels" not in path.parts):
        (folder / f"{number:04}_{path.name}").symlink_to(path.resolve())
    return folder


def _predictions(asked: Any) -> tuple[list[Peer], list[str]]:
    programs = [
        Program(name, [sys.executable, str(SIDE), *(json.dumps(one) for one in what)])
        for name, what in (SMALL_PREDICTIONS if asked.small else PREDICTIONS).items()
    ]
    table = interleaved(programs, asked.repeats, asked.threads)
    found = []
    for name, runs in table[table["problem"] == ""].groupby("program", sort=False):
        output = runs["said"].iloc[0]
        predicted = (output["held"] + output["expected"]) / GIB
        measured = float(runs["peak_rss_mib"].median()) * MIB / GIB
        found.append(Peer(f"prediction: {name}", predicted, measured))
    return found, failures(table)


def _table(found: Sequence[Peer], failed: Sequence[str]) -> str:
    lines = ["| job | predicted, GiB | measured, GiB | predicted is off by |", "|---|---|---|---|"]
    lines += [f"| {one.job} | {one.predicted:.2f} | {one.measured:.2f} | {100 * one.off:+.0f} % |" for one in found]
    within = sum(abs(one.off) <= ASKED for one in found)
    lines += ["", f"Asked: within {100 * ASKED:.0f} %. Reached by {within} of {len(found)} jobs."]
    return "\n".join([*lines, *(f"Failed: {one}." for one in failed)])


if __name__ == "__main__":
    main()
