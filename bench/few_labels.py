"""What wins when labels are few: trainings with the same labels and steps by routes that use other images or not.

    python bench/few_labels.py --out DIR --record

Cases that test are the same in every draw, and no training, pretraining included, sees them. A draw chooses who is
labelled. All routes with the same labels take as many supervised steps, from the same networks; "scratch long" takes
those of a pretraining on top. With --out the bench resumes: each cell that has ended is a line of DIR/cells.jsonl and
is not repeated; one that failed is tried again. The first draw of few labels ends before the second begins. `--smoke`
tries every route in 5 steps; its figures mean nothing and are not recorded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from environment import ROOT
from PIL import Image
from recorded import commit, record
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import isocenter
from isocenter.evaluation import classification, intervals, mask_overlap
from isocenter.values import Estimate

DATA = ROOT.parent / "shared" / "data"
STRUCTURES = {1: "anterior", 2: "posterior"}
# A step of two volumes at half the planned width took 0.26 s of one quiet core, one of 8 pictures 0.16 s: supervised
# training takes 52 s of volumes and 32 s of pictures. The planned width takes four times as long.
STEPS = {"hippocampus": 200, "pneumonia": 200}
SIZE = {"width": 8, "widest": 64, "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]], "deep_supervision": 0}
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "hippocampus": {"network.size": SIZE, "training.batch": 2},
    "pneumonia": {"network.size": {"width": 32, "blocks": [2, 2, 2], "stem_stride": 1}},
}
# Volumes that test; pictures of the training part without most of their labels. The others of that part are not used.
TESTED, PICTURES = 60, 1500
# Of all pictures the plan would take 64 a step, eight times as long as of few; pretraining does.
PICTURES_A_STEP = {"training.batch": 16}
FEWEST, OF_PIXELS, PARTLY = 5, 40, 40
FEW = {"hippocampus": (FEWEST, 20), "pneumonia": (20, 100)}
PRETRAINING, SCRATCH, LONG, FULL, PROBE = "pretraining", "scratch", "scratch long", "full", "linear probe"
TEACHER, PASTED = "mean teacher", "mean teacher, pasted boxes"
FIXMATCH, DECAY = "fixmatch", "full, decay and l2_sp"
# A second attempt at what the linear probe missed: three times the steps of pretraining.
LONGER, PROBE_LONGER, FULL_LONGER = "longer pretraining", "linear probe, longer pretraining", "full, longer pretraining"
AFTER_LONGER = (PROBE_LONGER, FULL_LONGER)
PIXELS, FEATURES = "pixels, logistic regression", "features, logistic regression"
BOTH, KNOWN, BACKGROUND = "both known", "one known", "other as background"
ROUTES = {
    "hippocampus": (SCRATCH, FULL, DECAY, TEACHER, FIXMATCH, LONG),
    "pneumonia": (SCRATCH, PROBE, FULL, FIXMATCH, LONG),
}
CHANGES: Mapping[str, Mapping[str, Any]] = {
    DECAY: {"transfer.layer_decay": 0.8, "objectives.terms": ["supervised", "l2_sp"]},
    PROBE: {"transfer.mode": "linear_probe"},
    PROBE_LONGER: {"transfer.mode": "linear_probe"},
    TEACHER: {"objectives.terms": ["supervised", "mean_teacher"]},
    PASTED: {"objectives.terms": ["supervised", "mean_teacher"], "mean_teacher.paste": 0.5},
    FIXMATCH: {"objectives.terms": ["supervised", "fixmatch"]},
}
SOURCED, UNLABELLED = (FULL, DECAY, PROBE, FEATURES, *AFTER_LONGER), (TEACHER, PASTED, FIXMATCH)
TEXT = (
    "Supervised steps of every route: {steps}; pretraining takes as many, longer pretraining three times, and scratch "
    "long twice as many. Tested on {tested} volumes and on the 624 pictures of the test part, the same in each draw, "
    "which no training has seen. The other 140 volumes, and {pictures} pictures of the training part, teach: each draw "
    "labels some of them; pretraining (one for all draws) and the objectives on unlabelled images see all of them "
    "without labels. All labelled cases train and none selects, and the last mean of weights is tested. Networks of "
    "volumes have half the planned width, and two volumes a step; trainings on all pictures take 16 a step. "
    "Differences are means over the draws that both have; their 95 % intervals resample test cases, not draws, and "
    "two volumes may be of one person. Commits: {commits}."
)
MEASURE = {"hippocampus": "Dice", "pneumonia": "AUROC"}


@dataclass(frozen=True)
class Cell:
    """One training. labels: so many cases with a reference; 0: all that may train"""

    data: str
    labels: int
    draw: int
    route: str

    @property
    def name(self) -> str:
        """The folder of its run."""
        words = f"{self.data} {self.labels or 'all'} {self.draw} {self.route}"
        return words.replace(",", "").replace(" ", "-")


@dataclass(frozen=True)
class Measured:
    """What a cell has shown. scores: {test case: mean Dice of its structures, or probability of pneumonia}"""

    cell: Cell
    scores: Mapping[str, float] = field(default_factory=dict)
    steps: int = 0
    step_seconds: float = float("nan")
    processor_seconds: float = 0.0
    commit: str = ""
    failed: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--steps", nargs="+", default=[], metavar="DATA=N", help="in place of those of the bench")
    parser.add_argument("--without", nargs="+", default=[], metavar="ROUTE", help="leave out for now")
    parser.add_argument("--until", metavar="HH:MM", help="begin no cell later than this, UTC")
    parser.add_argument("--out", type=Path, help="keep the runs here, and go on after the cells that have ended")
    parser.add_argument("--smoke", action="store_true", help="5 steps of each route in one draw")
    parser.add_argument("--record", action="store_true", help="write the figures into docs/benchmarks")
    given = parser.parse_args()
    steps = {**STEPS, **{one.split("=")[0]: int(one.split("=")[1]) for one in given.steps}}
    if given.smoke:
        given.draws, given.record, steps = 1, False, dict.fromkeys(steps, 5)
    out = (given.out or Path(tempfile.mkdtemp())).resolve()
    out.mkdir(parents=True, exist_ok=True)
    done = _ended(out)
    for cell in cells(given.draws):
        if given.until and time.strftime("%H:%M", time.gmtime()) >= given.until:
            break
        if cell.route in given.without or (cell in done and not done[cell].failed):
            continue
        done[cell] = _tried(cell, out, steps)
    text = _words(list(done.values()), out, steps)
    print(text)
    if given.record:
        truths = {path.stem: label for path, label in _pictures(out, "test")}
        rows = [_row_of(one, truths) for one in done.values()]
        record("few_labels", "Routes with the same labels and steps", text, {"steps": steps, "cells": rows})
    sys.exit(any(one.failed for one in done.values()))


def cells(draws: int) -> Iterator[Cell]:
    """Every training, in the order in which they are done: one draw of few labels of both data sets, what is done once,
    and the other draws, of pictures first because they take a fifth of the time."""
    for data in FEW:
        yield Cell(data, 0, 0, PRETRAINING)
        yield from _draw(data, 0)
    yield from (Cell("pneumonia", 0, 0, route) for route in ROUTES["pneumonia"][:-1])
    yield Cell("pneumonia", 0, 0, LONGER)
    yield from (Cell("pneumonia", labels, 0, route) for labels in (20, OF_PIXELS) for route in AFTER_LONGER)
    yield from (Cell("hippocampus", 0, 0, route) for route in (SCRATCH, FULL, TEACHER))
    for data in reversed(FEW):
        for draw in range(1, draws):
            yield from _draw(data, draw)
    yield from (Cell("hippocampus", 0, 0, route) for route in (DECAY, FIXMATCH))


def _draw(data: str, draw: int) -> Iterator[Cell]:
    """The trainings of a draw of labelled cases."""
    for labels in FEW[data]:
        yield from (Cell(data, labels, draw, route) for route in ROUTES[data])
        if labels == FEWEST:
            yield Cell(data, labels, draw, PASTED)
    if data == "pneumonia":
        yield from (Cell(data, OF_PIXELS, draw, route) for route in (PIXELS, FEATURES, PROBE))
    else:
        yield from (Cell(data, PARTLY, draw, route) for route in (BOTH, KNOWN, BACKGROUND))


def _ended(out: Path) -> dict[Cell, Measured]:
    """What the cells before have shown, the last line of each."""
    file = out / "cells.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    made = [Measured(**{**line, "cell": Cell(**line["cell"])}) for line in lines]
    return {one.cell: one for one in made}


def _tried(cell: Cell, out: Path, steps: Mapping[str, int]) -> Measured:
    """The cell, done now and written down; one that fails does not stop the others."""
    print(f"{time.strftime('%H:%M:%S', time.gmtime())} {cell.name}", file=sys.stderr, flush=True)
    began = time.process_time()
    try:
        shown = _pixels(cell, out) if cell.route == PIXELS else _trained(cell, out, steps)
    except Exception as error:
        traceback.print_exc()
        shown = Measured(cell, failed=f"{type(error).__name__}: {error}")
    spent = time.process_time() - began
    shown = Measured(**{**vars(shown), "processor_seconds": round(spent, 1), "commit": commit()})
    with (out / "cells.jsonl").open("a") as file:
        file.write(json.dumps(asdict(shown)) + "\n")
    return shown


def _trained(cell: Cell, out: Path, steps: Mapping[str, int]) -> Measured:
    """The scores of test cases by a network that is trained as the route says."""
    before = out / Cell(cell.data, 0, 0, LONGER if cell.route in AFTER_LONGER else PRETRAINING).name
    if cell.route == FEATURES:
        return Measured(cell, _by_regression(cell, _features(before, cell, out)))
    count = steps[cell.data] * {LONG: 2, LONGER: 3}.get(cell.route, 1)
    length = {"training.steps": count, **SETTINGS[cell.data]}
    common: dict[str, Any] = {"out": out / cell.name, "overwrite": True, "device": "cpu", "threads": 1}
    # All cases train: of five volumes none can be spared to select a checkpoint, so the last mean of weights is taken.
    common |= {"everything": True, "seed": cell.draw}
    if cell.route in (PRETRAINING, LONGER):
        run = isocenter.pretrain(_table(cell, out, labelled=False), assignments=length, **common)
        return Measured(cell, {}, run.steps, _step_seconds(run.out))
    if cell.data == "pneumonia" and not cell.labels:
        length |= PICTURES_A_STEP
    run = isocenter.train(
        _table(cell, out),
        assignments={**length, **CHANGES.get(cell.route, {})},
        start=before if cell.route in SOURCED else None,
        unlabelled=[_table(cell, out, labelled=False)] if cell.route in UNLABELLED else [],
        labels=",".join(f"{n}={name}" for n, name in STRUCTURES.items()) if cell.data == "hippocampus" else None,
        **common,
    )
    return Measured(cell, _scores(run.out, cell, out), run.steps, _step_seconds(run.out))


def _step_seconds(run: Path) -> float:
    """The median wall time of a step."""
    return float(pd.read_csv(run / "log.csv")["seconds"].diff().median())


def _scores(run: Path, cell: Cell, out: Path) -> dict[str, float]:
    """What a trained network makes of each test case."""
    model = isocenter.load(run, threads=1)
    if cell.data == "pneumonia":
        chances = {path.stem: model.predict(path).probabilities for path, _ in _pictures(out, "test")}
        return {name: float(chance["pneumonia"]) for name, chance in chances.items()}
    made = {}
    for name in _volumes()[0]:
        found = model.predict(DATA / "hippocampus" / "images" / name).data
        drawn = np.asarray(nibabel.load(DATA / "hippocampus" / "labels" / name).dataobj).astype(np.uint8)
        made[name] = float(np.mean([mask_overlap.dice(found == value, drawn == value) for value in STRUCTURES]))
    return made


def _volumes() -> tuple[list[str], list[str]]:
    """Names of the volumes that test, and of the others."""
    names = sorted(path.name for path in (DATA / "hippocampus" / "labels").iterdir())
    order = [names[n] for n in np.random.default_rng(2026).permutation(len(names))]
    return order[:TESTED], order[TESTED:]


def _pictures(out: Path, part: str) -> list[tuple[Path, int]]:
    """File and class of each picture of the test part, or of those that may train; written on first use."""
    archive = np.load(DATA / "medmnist" / "pneumoniamnist.npz")
    images, classes = archive[f"{part}_images"], archive[f"{part}_labels"][:, 0]
    chosen = range(len(images))
    if part == "train":
        chosen = np.random.default_rng(2026).permutation(len(images))[:PICTURES].tolist()
    (out / "pictures").mkdir(exist_ok=True)
    files = [(out / "pictures" / f"{part}_{n:04}.png", n) for n in chosen]
    for path, n in files:
        if not path.is_file():
            Image.fromarray(images[n]).save(path)
    return [(path, int(classes[n])) for path, n in files]


def _labelled(cell: Cell, out: Path) -> list[Any]:
    """The cases of the draw whose reference is known: names of volumes, or files of pictures and their classes.

    Fewer labels of a draw are among its more. Of pictures each class has a half of few labels, its own share of all.
    """
    rng = np.random.default_rng(cell.draw)
    if cell.data == "hippocampus":
        pool = _volumes()[1]
        return [pool[n] for n in rng.permutation(len(pool))[: cell.labels or None]]
    pool = _pictures(out, "train")
    order = [pool[n] for n in rng.permutation(len(pool))]
    if not cell.labels:
        return order
    return [one for label in (0, 1) for one in [one for one in order if one[1] == label][: cell.labels // 2]]


def _table(cell: Cell, out: Path, *, labelled: bool = True) -> Path:
    """The table of the labelled cases of a cell; not labelled: the images of all cases that may train."""
    root = out / "tables"
    root.mkdir(exist_ok=True)
    if not labelled:
        pool = [DATA / "hippocampus" / "images" / name for name in _volumes()[1]]
        images = pool if cell.data == "hippocampus" else [path for path, _ in _pictures(out, "train")]
        rows: list[dict[str, Any]] = [{"image": path} for path in images]
    elif cell.data == "pneumonia":
        rows = [{"image": path, "label": ("normal", "pneumonia")[known]} for path, known in _labelled(cell, out)]
    else:
        rows = [_row(cell, name, n, out) for n, name in enumerate(_labelled(cell, out))]
    place = root / (f"{cell.name}.csv" if labelled else f"{cell.data}-images.csv")
    pd.DataFrame(rows).to_csv(place, index=False)
    return place


def _row(cell: Cell, name: str, place: int, out: Path) -> dict[str, Any]:
    """The row of a volume; of partly labelled ones half know each structure."""
    source = DATA / "hippocampus"
    row: dict[str, Any] = {"image": source / "images" / name, "mask": source / "labels" / name}
    if cell.route not in (KNOWN, BACKGROUND):
        return row
    own = 1 + place % 2
    mask = nibabel.load(row["mask"])
    values = np.asarray(mask.dataobj).astype(np.uint8)
    values[values != own] = 0
    folder = out / "masks" / str(cell.draw)
    folder.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(values, mask.affine).to_filename(folder / name)
    return {**row, "mask": folder / name, **({"known": STRUCTURES[own]} if cell.route == KNOWN else {})}


def _pixels(cell: Cell, out: Path) -> Measured:
    """Logistic regression of the grey values themselves."""
    files = [path for path, _ in [*_pictures(out, "test"), *_labelled(cell, out)]]
    values = {path.stem: np.asarray(Image.open(path), dtype=np.float64).ravel() for path in files}
    return Measured(cell, _by_regression(cell, (values, out)))


def _features(source: Path, cell: Cell, out: Path) -> tuple[dict[str, Any], Path]:
    """What the pretrained network sees in each picture."""
    files = [path for path, _ in [*_pictures(out, "test"), *_labelled(cell, out)]]
    seen = isocenter.embed(source, [*files], threads=1).table
    columns = [name for name in seen if name[0] == "e" and name[1:].isdigit()]
    return {Path(row["image"]).stem: row[columns].to_numpy(float) for _, row in seen.iterrows()}, out


def _by_regression(cell: Cell, found: tuple[Mapping[str, Any], Path]) -> dict[str, float]:
    """The probability of pneumonia of each test picture by a regression whose penalty its labelled pictures choose."""
    values, out = found
    known = _labelled(cell, out)
    how: dict[str, Any] = {"scoring": "neg_log_loss", "l1_ratios": (0,), "use_legacy_attributes": False}
    fitted = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=10, cv=5, max_iter=5000, **how))
    fitted.fit(np.stack([values[path.stem] for path, _ in known]), [label for _, label in known])
    names = [path.stem for path, _ in _pictures(out, "test")]
    chances = fitted.predict_proba(np.stack([values[name] for name in names]))[:, 1]
    return dict(zip(names, chances.tolist(), strict=True))


def _words(measured: Sequence[Measured], out: Path, steps: Mapping[str, int]) -> str:
    """The tables of routes, of their costs, and what failed."""
    sound = {one.cell: one for one in measured if not one.failed}
    truths = {path.stem: label for path, label in _pictures(out, "test")}
    columns = "data", "labels", "route", "measure", "each draw", "less scratch", "less scratch long"
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    groups: dict[tuple[str, int, str], list[Measured]] = {}
    for cell, one in sound.items():
        if one.scores:
            groups.setdefault((cell.data, cell.labels, cell.route), []).append(one)
    for (data, labels, route), ones in sorted(groups.items(), key=_place):
        each = [_figure(one, truths) for one in ones]
        apart = [_apart(ones, sound, base, truths) for base in _bases(labels, route)]
        cells_of = [data, str(labels or "all"), route, MEASURE[data], f"{statistics.fmean(each):.3f}"]
        cells_of[-1] += f" ({', '.join(f'{one:.3f}' for one in each)})" if len(each) > 1 else ""
        lines.append(f"| {' | '.join([*cells_of, *apart, *[''] * (2 - len(apart))])} |")
    words = TEXT.format(
        steps=", ".join(f"{data} {count}" for data, count in steps.items()),
        tested=TESTED,
        pictures=PICTURES,
        commits=", ".join(dict.fromkeys(one.commit for one in sound.values())),
    )
    failed = [f"- {one.cell.name} failed: {one.failed}" for one in measured if one.failed]
    return "\n".join([words, "", *lines, "", *_costs(sound), *(["", *failed] if failed else [])])


def _place(group: tuple[tuple[str, int, str], list[Measured]]) -> tuple[str, bool, float, int]:
    """Where the line of a route stands: by data set, alike ones together, few labels before all, base before others."""
    (data, labels, route), _ = group
    order = [SCRATCH, LONG, *ROUTES[data], PASTED, *AFTER_LONGER, PIXELS, FEATURES, BOTH, KNOWN, BACKGROUND]
    if labels == OF_PIXELS:
        order = [PIXELS, FEATURES, PROBE, *AFTER_LONGER, BOTH, KNOWN, BACKGROUND]
    return data, labels == OF_PIXELS, labels or float("inf"), order.index(route)


def _bases(labels: int, route: str) -> tuple[str, ...]:
    """The routes that a route is compared with."""
    if route in (KNOWN, BACKGROUND):
        return (BOTH,)
    if labels == OF_PIXELS:
        return () if route in (PIXELS, BOTH) else (PIXELS,)
    return () if route == SCRATCH else (SCRATCH,) if route == LONG or not labels else (SCRATCH, LONG)


def _figure(one: Measured, truths: Mapping[str, int]) -> float:
    """The mean Dice, or the AUROC, of a cell."""
    values = np.array(list(one.scores.values()))
    if one.cell.data == "hippocampus":
        return float(values.mean())
    return float(classification.auroc(values, np.array([truths[name] for name in one.scores]) == 1))


def _row_of(one: Measured, truths: Mapping[str, int]) -> dict[str, Any]:
    """What the record keeps of a cell: its figure in place of those of all cases."""
    figure = _figure(one, truths) if one.scores else None
    kept = {name: value for name, value in asdict(one).items() if name != "scores"}
    return {**kept, MEASURE[one.cell.data]: figure}


def _apart(ones: Sequence[Measured], sound: Mapping[Cell, Measured], base: str, truths: Mapping[str, int]) -> str:
    """The mean difference to another route over the draws that both have, and its interval over test cases."""
    others = [Cell(one.cell.data, one.cell.labels, one.cell.draw, base) for one in ones]
    pairs = [(one, sound[other]) for one, other in zip(ones, others, strict=True) if other in sound]
    if not pairs:
        return ""
    estimate = _difference(pairs, truths)
    words = f"{estimate.value:+.3f}"
    if estimate.low is not None and estimate.high is not None:  # none where all cases differ by as much
        words += f" ({estimate.low:+.3f} to {estimate.high:+.3f})"
    return words + (f", of {base}" if base in (PIXELS, BOTH) else "")


def _difference(pairs: Sequence[tuple[Measured, Measured]], truths: Mapping[str, int]) -> Estimate:
    """The mean over draws of the first less the second; test cases are drawn again, for all draws together."""
    names = sorted(pairs[0][0].scores)
    first, second = (np.array([[pair[n].scores[name] for name in names] for pair in pairs]) for n in (0, 1))
    if pairs[0][0].cell.data == "hippocampus":
        return intervals.bootstrap((first - second).mean(axis=0), np.array(names), seed=0)
    positive = np.array([truths[name] for name in names]) == 1

    def mean(weights: Any) -> Any:
        """The mean difference of areas, for each weighting of the cases."""
        apart = [
            classification.auroc(own, positive, weights) - classification.auroc(other, positive, weights)
            for own, other in zip(first, second, strict=True)
        ]
        return np.mean(apart, axis=0)

    return intervals.bootstrap_statistic(mean, np.array(names), strata=positive, seed=0, exact=False)


def _costs(sound: Mapping[Cell, Measured]) -> list[str]:
    """The processor seconds of each route beside scratch with the same labels and draw: the median of the ratios."""
    ratios: dict[tuple[str, str], list[float]] = {}
    for cell, one in sound.items():
        base = sound.get(Cell(cell.data, cell.labels, cell.draw, SCRATCH))
        if base is not None and cell.route != SCRATCH:
            ratios.setdefault((cell.data, cell.route), []).append(one.processor_seconds / base.processor_seconds)
    lines = ["| data | route | processor seconds beside scratch, reading and testing among them |", "|---|---|---|"]
    lines += [f"| {data} | {route} | {statistics.median(each):.1f} |" for (data, route), each in ratios.items()]
    return lines if ratios else []


if __name__ == "__main__":
    main()
