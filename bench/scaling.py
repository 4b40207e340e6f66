"""How cost grows with the work: cases, voxels of a case, classes, workers; measured, and extended by a stated model.

    python bench/scaling.py                  # about two hours on two cores, and some GiB of disk
    python bench/scaling.py --most 100000    # measure the cases to the end, where the machine allows
    python bench/scaling.py --axes check     # this alone; what was recorded of the others stays
    python bench/scaling.py --small

Cases are generated volumes of 24 x 24 x 24 voxels with a label map, each a file of its own: `check` reads them, and
`prepare_all` makes the arrays that training reads, from a cold cache. Voxels and classes are of one volume that a light
network (fresh weights, windows of 32 an axis) predicts. Workers are the `--threads` of `check`. Each point is a process
of its own. The model is cost = a + b * n^k, fitted to the measured points by least squares of the logarithm, with k = 1
unless a greater k leaves less than half the error: what costs less and less for each case does so only for a while.
What is not measured is said to be so.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import psutil
from beside import PLACE, ROOT, Program, arguments, failures, interleaved, record
from recorded import known
from scipy.optimize import least_squares

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SIDE = Path(__file__).resolve().parent / "sides" / "scaled_ours.py"
PICTURE = ROOT / "docs" / "images" / "scaling.png"
FARTHEST = 100_000
CASES = (10, 30, 100, 300, 1000, 3000, 10_000)
SIDES = (32, 64, 128, 256, 512)
CLASSES = (1, 3, 10, 30, 100, 300)
GIB, MIB = 2**30, 2**20
# What of the work is varied, in words.
AXES = {
    "check": "cases, `check`",
    "prepare": "cases, preparing from a cold cache",
    "voxels": "voxels of a case, predicting it (3 classes)",
    "classes": "classes, predicting 96 x 96 x 96 voxels",
    "workers": "workers, `check` of 300 cases",
}


@dataclass(frozen=True)
class Point:
    """One measurement at n of what is varied: seconds of wall time, GiB at the most of the process and its children."""

    what: str
    n: int
    seconds: float
    memory: float


@dataclass(frozen=True)
class Growth:
    """cost = base + slope * n^power; off: how far the measured points lie from it, the median ratio less 1."""

    base: float
    slope: float
    power: float
    off: float

    def at(self, n: float) -> float:
        return self.base + self.slope * n**self.power

    def __str__(self) -> str:
        return f"{self.base:.3g} + {self.slope:.3g} n^{self.power:.2f}"


def main() -> None:
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--most", type=int, default=CASES[-1], help="cases up to which is measured")
    parser.add_argument("--axes", nargs="+", choices=list(AXES), default=list(AXES), help="what is measured")
    asked = parser.parse_args()
    PLACE.mkdir(exist_ok=True)
    cases = (10, 30) if asked.small else tuple(n for n in (*CASES, 30_000, FARTHEST) if n <= asked.most)
    grid: Mapping[str, Sequence[int]] = {
        "check": cases,
        "prepare": cases,
        "voxels": (16**3, 32**3) if asked.small else tuple(n**3 for n in SIDES),
        "classes": (1, 3) if asked.small else CLASSES,
        "workers": (1, 2) if asked.small else _workers(),
    }
    before = [] if asked.small else [Point(**one) for one in known("scaling").get("points", ())]
    points = [one for one in before if one.what not in asked.axes]
    failed: list[str] = []
    for what in asked.axes:
        for n in grid[what]:
            with tempfile.TemporaryDirectory(dir=PLACE) as place:
                threads = n if what == "workers" else asked.threads
                made = [sys.executable, str(SIDE), "make", what, str(n), place]
                environment = {"ISOCENTER_CACHE": str(Path(place, "cache")), "OMP_WAIT_POLICY": "passive"}
                prepared = interleaved([Program(f"generating for {what}", made)], 1, asked.threads)
                run = [sys.executable, str(SIDE), "run", what, str(n), place, str(threads)]
                table = interleaved([Program(f"{what} {n}", run, environment)], asked.repeats, threads)
                failed += [*failures(prepared), *failures(table)]
                good = table[table["problem"] == ""]
                if len(good):
                    seconds = float(np.median([output["seconds"] for output in good["said"]]))
                    points.append(Point(what, n, seconds, float(good["peak_rss_mib"].median()) * MIB / GIB))
    text = _table(points, failed)
    print(text)
    if asked.record:
        drawn(points, PICTURE)
        pictured = f"![Time and memory by cases, voxels, classes and workers](../images/{PICTURE.name})\n\n{text}"
        record("scaling", "How cost grows with the work", pictured, {"points": [vars(one) for one in points]})


def _workers() -> tuple[int, ...]:
    """1, 2, 4 ... as many as there are cores."""
    cores = psutil.cpu_count() or 1
    return tuple(2**n for n in range(int(math.log2(cores)) + 1))


def growth(numbers: Sequence[float], costs: Sequence[float]) -> Growth | None:
    """The model, fitted where there are enough points to say more than a line would; None otherwise.

    The power is 1 unless a greater one halves what is left over: else the noise of a few points would decide what the
    cost is far beyond them.
    """
    if len(numbers) < 4:
        return None
    line, free = _fitted(numbers, costs, (1 - 1e-6, 1 + 1e-6)), _fitted(numbers, costs, (1.0, 3.0))
    return free[0] if free[1] < line[1] / 2 else line[0]


def _fitted(numbers: Sequence[float], costs: Sequence[float], powers: tuple[float, float]) -> tuple[Growth, float]:
    """The best of these powers, and the sum of its squared errors, of logarithms."""
    n, cost = np.asarray(numbers, dtype=float), np.asarray(costs, dtype=float)

    def off(logs: np.ndarray) -> np.ndarray:
        base, slope, power = np.exp(logs[0]), np.exp(logs[1]), logs[2]
        return np.log(base + slope * n**power) - np.log(cost)

    start = [np.log(max(cost.min() / 2, 1e-6)), np.log(max(np.ptp(cost), 1e-6) / n.max()), 1.0]
    low, high = powers
    found = least_squares(off, start, bounds=([-20, -40, low], [20, 20, high]))
    base, slope, power = np.exp(found.x[0]), np.exp(found.x[1]), found.x[2]
    away = float(np.median(np.exp(np.abs(off(found.x)))) - 1)
    return Growth(float(base), float(slope), float(power), away), float(2 * found.cost)


def _table(points: Sequence[Point], failed: Sequence[str]) -> str:
    lines = []
    for what, words in AXES.items():
        own = [one for one in points if one.what == what]
        if not own:
            continue
        lines += [f"**By {words}**", "", "| n | seconds | peak memory, GiB |", "|---|---|---|"]
        lines += [f"| {one.n:,} | {one.seconds:.2f} | {one.memory:.2f} |" for one in own]
        numbers = [one.n for one in own]
        time, memory = growth(numbers, [one.seconds for one in own]), growth(numbers, [one.memory for one in own])
        if time is not None and memory is not None and what in ("check", "prepare") and max(numbers) < FARTHEST:
            lines.append(
                f"| {FARTHEST:,}, by the model, not measured | {time.at(FARTHEST):.0f} | {memory.at(FARTHEST):.2f} |"
            )
        if time is not None and memory is not None and what != "workers":
            off = f"the median point lies {100 * time.off:.0f} % and {100 * memory.off:.0f} % away"
            lines += ["", f"Model: {time} s, {memory} GiB; {off}."]
        lines.append("")
    return "\n".join([*lines, *(f"Failed: {one}." for one in failed)]).strip()


def drawn(points: Sequence[Point], path: Path) -> None:
    """Seconds, on a logarithmic axis, and GiB, from 0 on, over n; dots are measured, lines are the model."""
    figure, axes = plt.subplots(2, len(AXES), figsize=(3.2 * len(AXES), 5.6), layout="constrained", squeeze=False)
    for column, (what, words) in enumerate(AXES.items()):
        own = [one for one in points if one.what == what]
        for row, unit in enumerate(("seconds", "memory")):
            panel, costs = axes[row, column], [getattr(one, unit) for one in own]
            panel.plot([one.n for one in own], costs, "o", color="black", markersize=4)
            model = growth([one.n for one in own], costs)
            if model is not None and what != "workers":
                last = FARTHEST if what in ("check", "prepare") else own[-1].n
                line = np.geomspace(own[0].n, max(last, own[-1].n), 100)
                panel.plot(line, [model.at(n) for n in line], color="tab:blue", linewidth=1)
            panel.set_xscale("log")
            if unit == "seconds":
                panel.set_yscale("log")
            else:
                panel.set_ylim(bottom=0)
            panel.set_ylabel("seconds" if unit == "seconds" else "peak memory, GiB")
            panel.set_xlabel(words.replace("`", ""), fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
