"""Another scanner, SIMULATED: what a network gains from unlabelled images of it, beside labelled ones.

    python bench/shift.py --out DIR --record

Labelled cases are of the scanner as it is, unlabelled ones of a simulated one, and so are those that test; nobody is in
two of these. Every route takes as many steps with as many labelled images. With --out the bench resumes: each cell that
has ended is a line of DIR/cells.jsonl and is not repeated. `--smoke` takes 5 steps; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import scipy.ndimage
from environment import ROOT
from few_labels import SETTINGS, STRUCTURES
from numpy.typing import NDArray
from PIL import Image
from recorded import commit, known, record

import isocenter
from isocenter.evaluation import classification, intervals, mask_overlap
from isocenter.values import Estimate

DATA = ROOT.parent / "shared" / "data"
HIPPOCAMPUS, PNEUMONIA, RETINA = "hippocampus", "pneumonia", "retina"
STEPS = {HIPPOCAMPUS: 250, PNEUMONIA: 250, RETINA: 250}
# Of pictures: the archive of MedMNIST, the lowest label that is positive, and the words of both classes.
PICTURES: Mapping[str, tuple[str, int, tuple[str, str]]] = {
    PNEUMONIA: ("pneumoniamnist", 1, ("normal", "pneumonia")),
    RETINA: ("retinamnist", 2, ("mild or none", "referable")),
}
PICTURES_A_STEP = {"training.batch": 16}
# Cases that test, that are labelled, and that the target shows without labels.
PARTS = {HIPPOCAMPUS: (60, 70, 70), PNEUMONIA: (624, 500, 500), RETINA: (400, 1080, 0)}
AS_IS, INVERTED, GAMMA = "as it is", "inverted", "gamma 3, blurred"
SHIFTS = {HIPPOCAMPUS: (GAMMA, INVERTED), PNEUMONIA: (INVERTED,), RETINA: (AS_IS,)}
SOURCE, STYLE, DANN, CORAL = "source alone", "style", "dann", "coral"
TEACHER, BOTH, LABELLED = "mean_teacher", "style and mean_teacher", "labelled target"
COLOUR = "colour .2"
STYLED = {"augmentation.style": 1.0}
ROUTES: Mapping[str, Mapping[str, Any]] = {
    SOURCE: {},
    STYLE: {**STYLED, "objectives.terms": ["supervised"]},
    LABELLED: {},
    BOTH: {**STYLED, "objectives.terms": ["supervised", "mean_teacher"]},
    TEACHER: {"objectives.terms": ["supervised", "mean_teacher"], "augmentation.style": 0.0},
    DANN: {"objectives.terms": ["supervised", "dann"], "augmentation.style": 0.0},
    CORAL: {"objectives.terms": ["supervised", "coral"], "augmentation.style": 0.0},
    COLOUR: {"augmentation.colour": 0.2},
}
WITHOUT_TARGET = (SOURCE, LABELLED, COLOUR)
MEASURE = {HIPPOCAMPUS: "Dice", PNEUMONIA: "AUROC", RETINA: "AUROC"}
# A gap from here on is to be halved; below it nothing more is to be lost than this.
GAP, LOSS = 0.03, 0.005
TEXT = (
    "The scanners are **simulated**: intensities of the same images are inverted within their range, or get an "
    "exponent of 3 and a Gaussian blur of one voxel. Steps of every route: {steps}. Hippocampus: {hippocampus[1]}"
    " labelled volumes, {hippocampus[2]} unlabelled ones of the target, {hippocampus[0]} of it that test; "
    "networks of half the planned width, two volumes a step. PneumoniaMNIST: {pneumonia[1]} and {pneumonia[2]} "
    "pictures of the training part, 16 a step, tested on the {pneumonia[0]} of the test part. RetinaMNIST: "
    "{retina[1]} pictures, grades of 2 and more against the others, {retina[0]} that test, no other scanner. "
    "Nobody selects: the last mean of weights is tested. One seed; 95 % intervals of differences to source alone "
    "resample test cases. The gap is what labelled images of the target are ahead of source alone by; closed is "
    "the share of it. Commits: {commits}."
)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One training. shift: of its target; empty where it sees none"""

    data: str
    shift: str
    route: str

    @property
    def name(self) -> str:
        """The folder of its run."""
        return "-".join(f"{self.data} {self.shift} {self.route}".replace(",", "").split())


@dataclass(frozen=True)
class Measured:
    """What a cell has shown. scores: {scanner: {test case: mean Dice, or probability of pneumonia}}"""

    cell: Cell
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    commit: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--until", metavar="HH:MM", help="begin no cell later than this, UTC")
    parser.add_argument("--out", type=Path, help="keep the runs here, and go on after the cells that have ended")
    parser.add_argument("--smoke", action="store_true", help="5 steps of each route")
    parser.add_argument("--record", action="store_true", help="write the figures into docs/benchmarks")
    given = parser.parse_args()
    steps = dict.fromkeys(STEPS, 5) if given.smoke else STEPS
    out = (given.out or Path(tempfile.mkdtemp())).resolve()
    out.mkdir(parents=True, exist_ok=True)
    file = out / "cells.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    done = {one.cell: one for one in (Measured(**{**line, "cell": Cell(**line["cell"])}) for line in lines)}
    for cell in cells():
        if given.until and time.strftime("%H:%M", time.gmtime()) >= given.until:
            break
        if cell not in done:
            print(f"{time.strftime('%H:%M:%S', time.gmtime())} {cell.name}", file=sys.stderr, flush=True)
            done[cell] = _trained(cell, out, steps)
            with file.open("a") as lines_of_cells:
                lines_of_cells.write(json.dumps(asdict(done[cell])) + "\n")
    rows = list(_rows(done)) if given.smoke else _with_recorded(list(_rows(done)))
    text = _words(rows, steps)
    print(text)
    if given.record and not given.smoke:
        record("shift", "Unlabelled images of a simulated scanner", text, {"steps": steps, "rows": rows})


def cells() -> Iterator[Cell]:
    """Every training, in the order in which they are done: what is least likely to close the widest gap comes last."""
    others = [
        Cell(data, shift, route)
        for route in ROUTES
        for data, shifts in SHIFTS.items()
        for shift in shifts
        if route != SOURCE and (data == RETINA) == (route == COLOUR)
    ]
    yield from (Cell(data, "", SOURCE) for data in SHIFTS if data != RETINA)
    late = {Cell(HIPPOCAMPUS, INVERTED, route) for route in (TEACHER, DANN, CORAL)}
    yield from (cell for cell in others if cell not in late and cell.data != RETINA)
    yield from (Cell(RETINA, "", SOURCE), Cell(RETINA, AS_IS, COLOUR))
    yield from (cell for cell in others if cell in late)


def _trained(cell: Cell, out: Path, steps: Mapping[str, int]) -> Measured:
    """The scores of test cases by a network that is trained as the route says."""
    began, (_, labelled, unlabelled) = time.perf_counter(), _parts(cell.data)
    own_scanner = cell.shift if cell.route == LABELLED else AS_IS
    settings = {"training.steps": steps[cell.data], **SETTINGS[HIPPOCAMPUS if cell.data == HIPPOCAMPUS else PNEUMONIA]}
    settings |= {} if cell.data == HIPPOCAMPUS else PICTURES_A_STEP
    source = _table(cell.data, own_scanner, labelled, out, labelled=True)
    target = []
    if cell.route not in WITHOUT_TARGET:
        target = [_table(cell.data, cell.shift, unlabelled, out, labelled=False)]
    run = isocenter.train(
        source,
        assignments={**settings, **ROUTES[cell.route]},
        target=target,
        labels=",".join(f"{n}={name}" for n, name in STRUCTURES.items()) if cell.data == HIPPOCAMPUS else None,
        out=out / cell.name,
        overwrite=True,
        device="cpu",
        threads=1,
        everything=True,
        seed=0,
    )
    shown = (AS_IS, *SHIFTS[cell.data]) if cell.route == SOURCE else (AS_IS, cell.shift)
    model = isocenter.load(run.out, threads=1)
    scores = {scanner: _scores(model, cell.data, scanner, out) for scanner in shown}
    return Measured(cell, scores, round(time.perf_counter() - began, 1), commit())


def _parts(data: str) -> tuple[list[str], list[str], list[str]]:
    """Names of the cases that test, that are labelled, and that the target shows."""
    tested, labelled, unlabelled = PARTS[data]
    rng = np.random.default_rng(2026)
    if data == HIPPOCAMPUS:
        names = sorted(path.name for path in (DATA / "hippocampus" / "labels").iterdir())
        order, rest = [names[n] for n in rng.permutation(len(names))], tested
        tests = order[:tested]
    else:
        archive = _archive(data)
        order, rest = [f"train_{n:04}.png" for n in rng.permutation(len(archive["train_images"]))], 0
        tests = [f"test_{n:04}.png" for n in range(len(archive["test_images"]))][:tested]
    return tests, order[rest : rest + labelled], order[rest + labelled : rest + labelled + unlabelled]


def _archive(data: str) -> Mapping[str, NDArray[Any]]:
    return np.load(DATA / "medmnist" / f"{PICTURES[data][0]}.npz")


def _inverted(values: Floats, low: float, high: float) -> Floats:
    return low + high - values.clip(low, high)


def _darkened(values: Floats, low: float, high: float) -> Floats:
    share = ((values - low) / (high - low)).clip(0, 1) ** 3
    return np.asarray(scipy.ndimage.gaussian_filter(share, 1.0) * (high - low) + low)


SCANNERS: Mapping[str, Callable[[Floats, float, float], Floats]] = {
    AS_IS: lambda values, low, high: values,
    INVERTED: _inverted,
    GAMMA: _darkened,
}


def _image(data: str, scanner: str, name: str, out: Path) -> Path:
    """The file of a case as a scanner shows it; made on first use."""
    place = out / "images" / data / scanner.replace(",", "").replace(" ", "-") / name
    if place.is_file():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    if data != HIPPOCAMPUS:
        part, number = Path(name).stem.split("_")
        pixels = _archive(data)[f"{part}_images"][int(number)]
        Image.fromarray(SCANNERS[scanner](pixels.astype(float), 0, 255).round().astype(np.uint8)).save(place)
    else:
        image = nibabel.load(DATA / "hippocampus" / "images" / name)
        values = np.asarray(image.dataobj, dtype=float)
        low, high = np.percentile(values, (0.1, 99.9))
        changed = SCANNERS[scanner](values, low, high).astype(np.float32)
        nibabel.Nifti1Image(changed, image.affine).to_filename(place)
    return place


def _table(data: str, scanner: str, names: Sequence[str], out: Path, *, labelled: bool) -> Path:
    """The table of these cases as a scanner shows them."""
    rows: list[dict[str, Any]] = []
    for name in names:
        row: dict[str, Any] = {"image": _image(data, scanner, name, out)}
        if labelled and data == HIPPOCAMPUS:
            row["mask"] = DATA / "hippocampus" / "labels" / name
        elif labelled:
            row["label"] = PICTURES[data][2][_truth(data, name)]
        rows.append(row)
    place = out / f"{data}-{scanner.replace(',', '').replace(' ', '-')}-{'labelled' if labelled else 'target'}.csv"
    pd.DataFrame(rows).to_csv(place, index=False)
    return place


@cache
def _truth(data: str, name: str) -> int:
    """The class of a picture."""
    part, number = Path(name).stem.split("_")
    return int(_archive(data)[f"{part}_labels"][int(number), 0] >= PICTURES[data][1])


def _scores(model: Any, data: str, scanner: str, out: Path) -> dict[str, float]:
    """What a trained network makes of each test case of a scanner."""
    names = _parts(data)[0]
    files = {name: _image(data, scanner, name, out) for name in names}
    if data != HIPPOCAMPUS:
        positive = PICTURES[data][2][1]
        return {name: float(model.predict(file).probabilities[positive]) for name, file in files.items()}
    made = {}
    for name, file in files.items():
        found = model.predict(file).data
        drawn = np.asarray(nibabel.load(DATA / "hippocampus" / "labels" / name).dataobj).astype(np.uint8)
        made[name] = float(np.mean([mask_overlap.dice(found == value, drawn == value) for value in STRUCTURES]))
    return made


def _figure(data: str, scores: Mapping[str, float]) -> float:
    """The mean Dice, or the AUROC."""
    values = np.array(list(scores.values()))
    if data == HIPPOCAMPUS:
        return float(values.mean())
    return float(classification.auroc(values, np.array([_truth(data, name) for name in scores]) == 1))


def _difference(data: str, own: Mapping[str, float], base: Mapping[str, float]) -> Estimate:
    """The first less the second; test cases are drawn again."""
    names = sorted(own)
    first, second = (np.array([one[name] for name in names]) for one in (own, base))
    if data == HIPPOCAMPUS:
        return intervals.bootstrap(first - second, np.array(names), seed=0)
    positive = np.array([_truth(data, name) for name in names]) == 1
    area = partial(_area_difference, first, second, positive)
    return intervals.bootstrap_statistic(area, np.array(names), strata=positive, seed=0, exact=False)


def _area_difference(first: Floats, second: Floats, positive: NDArray[np.bool_], weights: Any) -> Any:
    one, other = (classification.auroc(chances, positive, weights) for chances in (first, second))
    return one - other


def _rows(done: Mapping[Cell, Measured]) -> Iterator[dict[str, Any]]:
    """A row for each route on each simulated scanner."""
    for data, shifts in SHIFTS.items():
        source = done.get(Cell(data, "", SOURCE))
        for shift in shifts if source is not None else ():
            base, best = source.scores[shift], done.get(Cell(data, shift, LABELLED))
            gap = None if best is None else _figure(data, best.scores[shift]) - _figure(data, base)
            for route in ROUTES:
                one = source if route == SOURCE else done.get(Cell(data, shift, route))
                if one is None:
                    continue
                apart = None if route == SOURCE else _difference(data, one.scores[shift], base)
                closed = None if apart is None or gap is None or gap <= GAP else apart.value / gap
                own = _figure(data, one.scores[AS_IS])
                yield {
                    "data": data,
                    "scanner": shift,
                    "route": route,
                    MEASURE[data]: _figure(data, one.scores[shift]),
                    "difference": None if apart is None else [apart.value, apart.low, apart.high],
                    "closed": closed,
                    "on its own scanner": own,
                    "seconds": one.seconds,
                    "commit": one.commit,
                }


def _with_recorded(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """These rows, and before them those that were recorded and not measured again; of all the share of the gap."""
    measured = {_place(row): row for row in (*known("shift").get("rows", []), *rows)}
    for (data, scanner, route), row in measured.items():
        ends = [measured.get((data, scanner, end)) for end in (SOURCE, LABELLED)]
        gap = ends[1][MEASURE[data]] - ends[0][MEASURE[data]] if None not in ends else 0.0
        row["closed"] = None if route == SOURCE or gap <= GAP else row["difference"][0] / gap
    routes = list(ROUTES)
    return [row for key, row in sorted(measured.items(), key=lambda one: (*one[0][:2], routes.index(one[0][2])))]


def _place(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["data"], row["scanner"], row["route"]


def _words(rows: Sequence[Mapping[str, Any]], steps: Mapping[str, int]) -> str:
    """The table of all rows."""
    titles = ("data", "scanner", "route", "figure", "less source alone", "gap closed", "on scanner as it is", "seconds")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        measure = MEASURE[row["data"]]
        apart = "" if row["difference"] is None else "{:+.3f} ({:+.3f} to {:+.3f})".format(*row["difference"])
        closed = "" if row["closed"] is None else f"{100 * row['closed']:.0f} %"
        cells_of = [row["data"], row["scanner"], row["route"], f"{measure} {row[measure]:.3f}", apart, closed]
        cells_of += [f"{row['on its own scanner']:.3f}", f"{row['seconds']:.0f}"]
        lines.append(f"| {' | '.join(cells_of)} |")
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    said = TEXT.format(steps=", ".join(f"{data} {count}" for data, count in steps.items()), commits=commits, **PARTS)
    return "\n".join([said, "", *lines])


if __name__ == "__main__":
    main()
