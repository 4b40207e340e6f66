"""Dice of Isocenter beside nnU-Net in the same minutes, on four further sets, with intervals by patient.

    python bench/nnunet_sets.py --minutes 20 --seeds 0 1 2 --record
    python bench/nnunet_sets.py --sets vessels gliomas --minutes 60 --at-once --threads 1
    python bench/nnunet_sets.py --tell --record

Retinal vessels (CHASE-DB1), FLAIR gliomas, left ventricles in cine slices, nuclei. A seed draws which quarter of the
patients is kept out, and the weights; of nuclei nobody knows the patient, so that an image counts as one. Both sides
read the same files, and the minutes count everything from these to the model on disk, as in `bench/time_to_dice.py`.
nnU-Net plans for itself, in 2D for pictures and in 3D for volumes; its rate reaches zero at the end of the minutes.
It has no objects: its nuclei are learnt as cores and a border of two pixels, and each core is grown into the border.

Each training is a line of `.bench/work/nnunet_sets/results.jsonl` once it is done, with the score of each case. A bench
that was interrupted goes on after the lines of the same source.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from beside import PLACE, arguments, record, versions
from beside_nnunet import NNUNET, OURS, SIDES, raced
from curves import Point, words_of
from numpy.typing import NDArray
from PIL import Image
from raw import Raw, describe, raw_in
from recorded import code
from scipy import ndimage
from swayed import marked

import isocenter
from isocenter.evaluation import instances, intervals, mask_overlap

Labels = NDArray[np.integer[Any]]
KEPT_OUT = 0.25
BORDER = 2  # pixels of a nucleus that are its border
CORE, RIM = 1, 2


@dataclass(frozen=True)
class Case:
    """An image, its label map, and whose it is."""

    name: str
    patient: str
    image: Path
    label: Path


@dataclass(frozen=True)
class Data:
    """One set. cases: of its folder; channels: as nnU-Net calls them; options: of our training

    is_objects: whether a label map numbers objects
    """

    folder: str
    cases: Callable[[Path], Iterator[Case]]
    channels: Sequence[str]
    options: tuple[str, ...] = ()
    suffix: str = ".png"
    is_objects: bool = False

    @property
    def configuration(self) -> str:
        """The way that nnU-Net goes."""
        return "2d" if self.suffix == ".png" else "3d_fullres"


def _vessels(folder: Path) -> Iterator[Case]:
    for image in sorted(folder.glob("*.jp*g")):
        yield Case(image.stem, image.stem[:-1], image, folder / f"{image.stem}_1stHO.png")


def _gliomas(folder: Path) -> Iterator[Case]:
    for image in sorted((folder / "images").iterdir()):
        name = image.name.removesuffix(".nii.gz")
        yield Case(name, name.rpartition("_")[0], image, folder / "masks" / image.name)


def _ventricles(folder: Path) -> Iterator[Case]:
    for image in sorted((folder / "images").iterdir()):
        yield Case(image.stem, image.stem.partition("-IM-")[0], image, folder / "masks" / image.name)


def _nuclei(folder: Path) -> Iterator[Case]:
    for image in sorted((folder / "images").iterdir()):
        yield Case(image.stem, image.stem, image, folder / "labels" / f"{image.stem}.tif")


SETS: Mapping[str, Data] = {
    "vessels": Data("chasedb1", _vessels, ["red", "green", "blue"], ("--modality", "OP")),
    "gliomas": Data("mri/lgg_flair", _gliomas, ["FLAIR"], ("--modality", "MR"), ".nii.gz"),
    "ventricles": Data("mri/cardiac_sunnybrook", _ventricles, ["MR"], ("--modality", "MR")),
    "nuclei": Data("dsb2018", _nuclei, ["red", "green", "blue"], is_objects=True),
}


def main() -> None:
    given = _arguments()
    if given.small:
        given.minutes, given.seeds = [0.5], given.seeds[:1]
    work = PLACE / "work" / f"nnunet_sets{'-small' * given.small}"
    work.mkdir(parents=True, exist_ok=True)
    if not given.tell:
        lanes = [[side] for side in given.programs] if given.at_once else [given.programs]
        with ThreadPoolExecutor(len(lanes)) as pool:
            for lane in [pool.submit(_lane, sides, number, work, given) for number, sides in enumerate(lanes)]:
                lane.result()
    rows = [row for row in _results(work) if _is_wanted(row, given)]
    how = "at the same time, each on cores of its own" if given.at_once else "one after the other"
    words = f"The programs ran {how}; threads of each: {given.threads}. Test patients are drawn anew for each seed."
    text = f"{words}\n\n{_table(rows)}"
    if len(given.minutes) > 1:
        heading = (
            "### Isocenter after more minutes\n\nMean (SD) of seeds, and their number; the same test patients at each."
        )
        text += f"\n\n{heading}\n\n{words_of(_points(rows))}"
    print(text)
    if given.record:
        runs = [_without_places(row) for row in rows]
        record("nnunet_sets", "Dice beside nnU-Net on further sets", text, {"runs": runs, "peer": versions("nnunet")})


def _without_places(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with the numbers that a training stated, and without the files that it named."""
    stated = row.get("said") or {}
    return {**row, "said": {name: value for name, value in stated.items() if isinstance(value, int | float)}}


def _lane(sides: Sequence[str], lane: int, work: Path, given: argparse.Namespace) -> None:
    """The trainings of these programs one after the other, on the cores of this lane; the shortest first."""
    jobs = itertools.product(sorted(given.minutes), given.seeds, given.sets)
    for number, (minutes, seed, name) in enumerate(jobs):
        for side in sides if number % 2 == 0 else reversed(sides):
            job = {"set": name, "side": side, "minutes": minutes, "seed": seed, **_source(side, given)}
            if any(job.items() <= row.items() and not row["problem"] for row in _results(work)):
                continue
            raw = _laid_out(SETS[name], given.data, work / f"raw-{lane}", seed, most=6 if given.small else None)
            first = lane * given.threads
            place = work / f"run-{lane}"
            found = raced(side, minutes, seed, raw, place, threads=given.threads, first_core=first)
            if not found["problem"]:
                found["scores"] = _scores(SETS[name], given.data, raw, place / "predicted", of_ours=side == OURS)
            with (work / "results.jsonl").open("a") as file:
                file.write(json.dumps({**job, **found}) + "\n")
            print(f"{name}, {side}, {minutes:g} min, seed {seed}: {_outcome(found)}", file=sys.stderr, flush=True)


def _outcome(found: Mapping[str, Any]) -> str:
    if found["problem"]:
        return str(found["problem"])
    mean = np.mean([score["dice"] for score in found["scores"]])
    return f"Dice {mean:.4f} after {found['seconds'] / 60:.2f} min"


def _source(side: str, given: argparse.Namespace) -> dict[str, Any]:
    """What a figure of this side depends on."""
    script = hashlib.sha256((SIDES / "nnunet_train.py").read_bytes()).hexdigest()[:10]
    return {"code": code() if side == OURS else script, "threads": given.threads, "at_once": given.at_once}


def _laid_out(data: Data, root: Path, folder: Path, seed: int, most: int | None) -> Raw:
    """The split of a seed, in files that both sides read."""
    about = {"dataset": "Dataset900_Set", "configuration": data.configuration, "options": data.options}
    raw = raw_in(folder, **about)
    dataset = raw.nnunet / raw.dataset
    cases = list(data.cases(root / data.folder))
    kept_out = _kept_out([case.patient for case in cases], seed)
    test = [case for case in cases if case.patient in kept_out][:most]
    shown = [case for case in cases if case.patient not in kept_out][:most]
    for case in test:
        _place(case, data, raw.test, raw.test_nnunet)
    for case in shown:
        _place(case, data, raw.ours / "images", dataset / "imagesTr")
        labels = _labels(case, data)
        _write(labels, case, data, raw.ours / "labels")
        _write(_with_borders(labels) if data.is_objects else labels, case, data, dataset / "labelsTr")
    names = {"core": CORE, "border": RIM} if data.is_objects else {"structure": 1}
    describe(raw, data.channels, names, len(shown), data.suffix)
    return raw


def _kept_out(patients: Sequence[str], seed: int) -> set[str]:
    people = sorted(set(patients))
    return set(np.random.default_rng(seed).permutation(people)[: round(KEPT_OUT * len(people))].tolist())


def _place(case: Case, data: Data, own: Path, numbered: Path) -> None:
    """The image under its own name, and with nnU-Net's number of the channel."""
    for path in (own / f"{case.name}{data.suffix}", numbered / f"{case.name}_0000{data.suffix}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if data.suffix != ".png":
            path.write_bytes(case.image.read_bytes())
            continue
        with Image.open(case.image) as image:
            image.convert("RGB" if len(data.channels) == 3 else "L").save(path)


def _labels(case: Case, data: Data) -> Labels:
    """(*spatial) numbers of objects, or 1 in the structure."""
    values = np.asarray(isocenter.read(case.label).data)[0]
    return values.astype(np.uint16) if data.is_objects else (values > 0).astype(np.uint8)


def _write(labels: Labels, case: Case, data: Data, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{case.name}{data.suffix}"
    if data.suffix != ".png":
        path.write_bytes(case.label.read_bytes())
        return
    Image.fromarray(np.ascontiguousarray(labels)).save(path)


def _with_borders(objects: Labels) -> Labels:
    """Cores and borders of objects; a border is inside its object, so that objects that touch come apart."""
    inside = np.zeros(objects.shape, bool)
    for number, place in enumerate(ndimage.find_objects(objects), start=1):
        if place is not None:
            wider = tuple(slice(max(0, one.start - 1), one.stop + 1) for one in place)
            own = objects[wider] == number
            core = ndimage.binary_erosion(own, iterations=BORDER)
            inside[wider] |= core if core.any() else own
    return np.where(inside, CORE, np.where(objects > 0, RIM, 0)).astype(np.uint8)


def _objects(found: Labels) -> Labels:
    """Objects of cores and borders: each pixel of the border belongs to the nearest core."""
    cores, count = ndimage.label(found == CORE)
    if not count:
        return cores
    nearest = ndimage.distance_transform_edt(cores == 0, return_distances=False, return_indices=True)
    return np.where(found > 0, cores[tuple(nearest)], 0)


def _scores(data: Data, root: Path, raw: Raw, predicted: Path, *, of_ours: bool) -> list[dict[str, Any]]:
    """A row for each case kept out: case, patient, dice of what is no background, and ap50 of objects."""
    names = {path.name.removesuffix(data.suffix) for path in raw.test.iterdir()}
    rows = []
    for case in data.cases(root / data.folder):
        if case.name not in names:
            continue
        reference = _labels(case, data)
        [path] = [path for end in (data.suffix, ".tiff") if (path := predicted / f"{case.name}{end}").is_file()]
        found = np.asarray(isocenter.read(path).data)[0]
        if found.shape != reference.shape:
            raise SystemExit(f"{path} lies on another grid")
        row = {"case": case.name, "patient": case.patient, "dice": float(mask_overlap.dice(found > 0, reference > 0))}
        if data.is_objects:
            objects = found if of_ours else _objects(found)
            row["ap50"] = float(instances.instance_overlap(objects, reference).ap([0.5]))
        rows.append(row)
    return rows


def _results(work: Path) -> list[dict[str, Any]]:
    file = work / "results.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def _is_wanted(row: Mapping[str, Any], given: argparse.Namespace) -> bool:
    asked = row["set"] in given.sets and row["side"] in given.programs and row["seed"] in given.seeds
    source = _source(row["side"], given).items() <= row.items() or given.tell
    return asked and source and row["minutes"] in given.minutes


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| set | minutes | metric | seeds, patients | Isocenter | program | its mean | Isocenter less it (95 %) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    latest = {(row["set"], row["minutes"], row["side"], row["seed"]): row for row in rows}
    good = {key: row for key, row in latest.items() if not row["problem"]}
    for name, minutes, side in dict.fromkeys(key[:3] for key in latest if key[2] != OURS):
        seeds = [seed for *key, seed in good if key == [name, minutes, side] and (name, minutes, OURS, seed) in good]
        if not seeds:
            lines.append(f"| {marked(SETS[name].folder, name)} | {minutes:g} | | | | {side} | not measured | |")
            continue
        ours, theirs = (
            pd.concat([pd.DataFrame(good[name, minutes, one, seed]["scores"]) for seed in seeds])
            for one in (OURS, side)
        )
        for metric in ("dice", "ap50") if SETS[name].is_objects else ("dice",):
            # A patient that several seeds keep out is one: their cases are its own.
            apart = intervals.bootstrap(
                (ours[metric] - theirs[metric]).to_numpy(), ours["patient"].to_numpy(), seed=0, unit="score"
            )
            cells = [
                *(marked(SETS[name].folder, name), f"{minutes:g}", metric, f"{len(seeds)}, {apart.patients}"),
                *(f"{ours[metric].mean():.4f}", side, f"{theirs[metric].mean():.4f}"),
                f"{apart.value:+.4f} ({apart.low:+.4f} to {apart.high:+.4f})",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    failed = [f"{key}: {row['problem']}" for key, row in latest.items() if row["problem"]]
    return "\n".join([*lines, *(["", f"Failed: {'; '.join(failed)}."] if failed else [])])


def _points(rows: Sequence[Mapping[str, Any]]) -> list[Point]:
    """The last of our trainings of each set, minutes and seed as points of curves, by AP50 where there are objects."""
    latest = {(row["set"], row["minutes"], row["seed"]): row for row in rows if row["side"] == OURS}
    points = []
    for (name, minutes, seed), row in sorted(latest.items(), key=lambda one: (list(SETS).index(one[0][0]), one[0])):
        metric = "ap50" if SETS[name].is_objects else "dice"
        value = float("nan") if row["problem"] else float(pd.DataFrame(row["scores"])[metric].mean())
        points.append(Point(name, minutes, seed, metric, value, problem=row["problem"]))
    return points


def _arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--minutes", type=float, nargs="+", default=[20.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--programs", nargs="+", choices=[OURS, *NNUNET], default=[OURS, "nnU-Net, float32"])
    parser.add_argument("--at-once", action="store_true", help="programs side by side, each on cores of its own")
    parser.add_argument("--tell", action="store_true", help="measure nothing: say what was measured before")
    given = parser.parse_args()
    lanes = len(given.programs) if given.at_once else 1
    if lanes * given.threads > len(os.sched_getaffinity(0)):
        parser.error(f"{lanes} programs at once with {given.threads} threads each need as many cores")
    return given


if __name__ == "__main__":
    main()
