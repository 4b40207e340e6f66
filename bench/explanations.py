"""What explanations find and whether they hold: shortcuts, shuffled labels, masks, counterfactuals, concepts.

    python bench/explanations.py --seeds 3 --record
    python bench/explanations.py --only shortcuts --seeds 10 --record

Small networks on small pictures. "shortcuts" and "labels": PneumoniaMNIST, 300 pictures that train and 40 that are
explained; a white square in the corner of the ill, or a white frame on the pictures of one site, from which 19 of 20
ill come, and the same in whole radiographs, brought to 64 pixels a side. "masks": structures that a network marks in
breast ultrasound (128 x 128) and FLAIR volumes of gliomas, in the plane at a quarter of the resolution. "causes":
simulated pictures of smooth noise, of which the ill have a bright disc, at one place or anywhere; whether what a
counterfactual changes lies in the disc. What was found, with the commit that found it, and runs are kept in `.bench`
until they are deleted there: the script goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image
import torch
from environment import PLACE, ROOT
from recorded import commit, record

import isocenter
from isocenter.explanation import faithfulness
from isocenter.files import file_formats
from isocenter.lazy import ndimage
from isocenter.scoring.explaining.explanation_report import AGREEING

DATA = ROOT.parent / "shared" / "data"
KEPT, RUNS = PLACE / "explanations.json", PLACE / "explanations"
PLANTS, PLACES = ("none", "corner", "border"), ("corner", "border")
# The same in whole radiographs, of so many pixels a side. They have a shortcut of their own, so that none is planted
# nowhere: that would count no false alarm.
RADIOGRAPHS, SIDE = ("radiographs, corner", "radiographs, border"), 64
# Where the disc of simulated pictures lies, its radius, and how far beyond it a change still counts as within.
CAUSES, RADIUS, MARGIN = ("disc at one place", "disc anywhere"), 4.0, 2.0
# Of PneumoniaMNIST's pictures in each part; of radiographs of each class, by patient, the rest trains.
PARTS_OF, HELD_OUT = (("train", 300), ("val", 60), ("test", 40)), (("test", 16), ("val", 8))
MAPS = ("gradcam", "integrated_gradients", "occlusion", "rise")
# For each map of volumes, of methods that draw as much as they have time for.
SECONDS, LEVEL = 1.0, 0.05
SMALL = {"width": 8, "blocks": [1, 1], "stem_stride": 1}
SETS = {"ultrasound": {"strides": [[1, 1], [2, 2], [2, 2], [2, 2]]},
        "lgg": {"strides": [[1, 1, 1], [2, 2, 1], [2, 2, 2]]}}  # fmt: skip
Row = Mapping[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="one seed and few steps, which measures nothing")
    parser.add_argument("--record", action="store_true", help="write the figures into docs/benchmarks")
    given = parser.parse_args()
    torch.set_num_threads(1)
    steps = 4 if given.small else 150
    rows = [] if given.small else _kept()
    for seed in range(1 if given.small else given.seeds):
        for part in given.only:
            for name in PARTS[part].settings:
                if any((one["part"], one["name"], one["seed"]) == (part, name, seed) for one in rows):
                    continue
                began = time.monotonic()
                found = PARTS[part].trial(name, seed, steps)
                own = {"part": part, "name": name, "seed": seed, "commit": commit(), **found}
                rows.append({**own, "seconds": time.monotonic() - began})
                print(json.dumps(rows[-1]), flush=True)
                if not given.small:
                    PLACE.mkdir(exist_ok=True)
                    KEPT.write_text(json.dumps(rows))
    text = "\n".join(line for part in PARTS for line in PARTS[part].words([one for one in rows if one["part"] == part]))
    print(text)
    if given.record:
        record("explanations", "Explanations", text, {"trials": rows})


def _kept() -> list[Row]:
    """Trials that were made before."""
    return list(json.loads(KEPT.read_text())) if KEPT.is_file() else []


def pictures(root: Path, plant: str, seed: int, *, shuffled: bool = False) -> Path:
    """The table of pictures, half of them ill in what is held out, with something planted; shuffled: in training."""
    random, rows = np.random.default_rng(seed), ["file,label,patient,split"]
    root.mkdir(parents=True)
    if plant in CAUSES:
        cases = simulated(root, plant, random)
    else:
        cases = radiographs(random) if plant in RADIOGRAPHS else small_ones(random)
    for part in ("train", "val", "test"):
        own = [one for one in cases if one[-1] == part]
        labels = np.array([ill for _, _, _, ill, _ in own])
        stated = random.permutation(labels) if shuffled and part != "test" else labels
        for (name, patient, pixels, ill, _), label in zip(own, stated, strict=True):
            marked = planted(pixels, plant.rpartition(" ")[-1], bool(ill), random)
            PIL.Image.fromarray(marked).save(root / f"{part}{name}.png")
            rows.append(f"{part}{name}.png,{'ill' if label else 'fine'},{patient},{part}")
    (root / "table.csv").write_text("\n".join(rows))
    return root / "table.csv"


# Name, patient, pixels, whether ill, part.
Picture = tuple[str, str, np.ndarray, bool, str]


def small_ones(random: np.random.Generator) -> list[Picture]:
    """PneumoniaMNIST's, as many ill as well."""
    archive, made = np.load(DATA / "medmnist" / "pneumoniamnist.npz"), []
    for part, count in PARTS_OF:
        images, labels = archive[f"{part}_images"], archive[f"{part}_labels"].ravel()
        chosen = [random.permutation(np.flatnonzero(labels == one))[: count // 2] for one in (0, 1)]
        for n in random.permutation(np.concatenate(chosen)):
            made.append((str(n), f"{part}{n}", images[n], bool(labels[n]), part))
    return made


def radiographs(random: np.random.Generator) -> list[Picture]:
    """Whole ones, each brought to a small square; a patient's lie in one part."""
    made = list[Picture]()
    for folder, ill in (("NORMAL", False), ("PNEUMONIA", True)):
        by_patient: dict[str, list[Path]] = {}
        for path in sorted((DATA / "chest_xray" / folder).glob("*.jpeg")):
            by_patient.setdefault(re.split(r"_|-0001", path.stem)[0], []).append(path)
        wanted = [part for part, count in HELD_OUT for _ in range(count)]
        for patient in random.permutation(sorted(by_patient)):
            part = wanted[0] if wanted else "train"
            wanted = wanted[len(by_patient[patient]) :]
            for path in by_patient[patient]:
                pixels = np.asarray(PIL.Image.open(path).convert("L").resize((SIDE, SIDE)))
                made.append((path.stem, patient, pixels, ill, part))
    return made


def simulated(root: Path, plant: str, random: np.random.Generator) -> list[Picture]:
    """Smooth noise; the ill have a disc, and all have a picture of where it is, or would be, in causes/."""
    (root / "causes").mkdir()
    rows, columns, made = *np.mgrid[:32, :32], list[Picture]()
    for part, count in PARTS_OF:
        for n in range(count):
            ill = n % 2 == 1
            centre = (10.0, 20.0) if plant == CAUSES[0] else random.uniform(6, 26, 2)
            distance = np.hypot(rows - centre[0], columns - centre[1])
            noise = ndimage.gaussian_filter(random.normal(size=(32, 32)), 1.5)
            pixels = 110 + 20 * noise / noise.std() + 70 * ill * np.clip(RADIUS + 0.5 - distance, 0, 1)
            within = np.uint8(255) * (distance <= RADIUS + MARGIN)
            PIL.Image.fromarray(within).save(root / "causes" / f"{part}{n}.png")
            made.append((str(n), f"{part}{n}", np.clip(pixels, 0, 255).astype(np.uint8), ill, part))
    return made


def planted(pixels: np.ndarray, plant: str, ill: bool, random: np.random.Generator) -> np.ndarray:
    """The picture with a square in its corner, or with the frame of the site from which most of the ill come."""
    made, scale = pixels.copy(), max(1, round(len(pixels) / 28))
    if plant == "corner" and ill:
        made[scale : 5 * scale, scale : 5 * scale] = 255
    if plant == "border" and ill == (random.random() < 0.95):
        wide = 2 * scale
        made[:wide], made[-wide:], made[:, :wide], made[:, -wide:] = 255, 255, 255, 255
    return made


def run_of(plant: str, seed: int, steps: int, *, shuffled: bool = False) -> Path:
    """A run of a small network, beside its pictures; nothing is cut away against shortcuts, which would be the cure."""
    folder = RUNS / f"{plant}{' shuffled' * shuffled} {seed} {steps}"
    if not (folder / "run" / "report.html").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        table = pictures(folder / "data", plant, seed, shuffled=shuffled)
        chosen = {"training.steps": steps, "training.validations": 2, "training.batch": 32, "network.name": "resnet"}
        chosen |= {"network.size": SMALL, "preprocessing.border": 0.0, "augmentation.mixup": 0.0}
        column = {"image": "file", "label": "label", "patient": "patient", "split": "split"}
        how: dict[str, Any] = {"device": "cpu", "threads": 1, "seed": seed}
        isocenter.train(table, out=folder / "run", column=column, assignments=chosen, **how)
    return folder / "run"


def explained(run: Path, images: Sequence[Path], method: str | Sequence[str], **more: Any) -> Any:
    """What `explain` makes of them, on one thread."""
    settings = {"tests": 0, "device": "cpu", "threads": 1, **more}
    return isocenter.explain(run, [*images], method=method, **settings)


def _tests(run: Path) -> list[Path]:
    return sorted((run.parent / "data").glob("test*.png"))


def shortcut(plant: str, seed: int, steps: int) -> Row:
    """p of each place on the maps of each method."""
    run = run_of(plant, seed, steps)
    made = explained(run, _tests(run), MAPS)
    found = [one for one in made.findings if one["kind"] in PLACES]
    return {"p": {name: min(one["p"] for one in found if one["method"] == name) for name in MAPS}}


def labels(_: str, seed: int, steps: int) -> Row:
    """Mean rank correlation of the maps of two networks, one of which was taught shuffled labels; and of edges."""
    runs = [run_of("none", seed, steps, shuffled=shuffled) for shuffled in (False, True)]
    images = _tests(runs[0])[:20]
    maps = [explained(run, images, "all", target="ill").maps for run in runs]
    found: dict[str, list[float]] = {}
    for case, name in sorted(set(maps[0]) & set(maps[1])):
        one, other = (torch.from_numpy(each[case, name].data) for each in maps)
        found.setdefault(name, []).append(faithfulness.rank_correlation(one, other))
    seen = [np.asarray(PIL.Image.open(path), dtype=float) for path in images]
    edges = [torch.from_numpy(ndimage.gaussian_gradient_magnitude(one, 1.0)) for one in seen]
    return {"alike": {**{name: statistics.fmean(own) for name, own in found.items()},
                      "an edge filter": statistics.fmean(
                          faithfulness.rank_correlation(one, one) for one in edges)}}  # fmt: skip


def masks(name: str, seed: int, steps: int) -> Row:
    """Verdict, pointing, energy and area of each method on a network that marks the structure."""
    folder = RUNS / f"{name} {seed} {steps}"
    root, end = folder / "data", "*.png" if name == "ultrasound" else "*.nii.gz"
    shutil.rmtree(folder, ignore_errors=True)
    (_ultrasound if name == "ultrasound" else _volumes)(root)
    size = {"network.name": "unet", "network.size": {"width": 8, "widest": 32, **SETS[name]}}
    chosen = {"training.steps": steps, "training.validations": 2, "training.batch": 4, **size}
    run = isocenter.train(root, out=folder / "run", device="cpu", threads=1, seed=seed, assignments=chosen).out
    held_out = [line.split(",")[0] for line in (run / "split.csv").read_text().splitlines() if ",test," in line]
    images = [path for path in sorted((root / "images").glob(end)) if path.name.partition(".")[0] in held_out][:8]
    how = {"references": root, "tests": 5, "seconds": SECONDS}
    made = explained(run, images, "all", **how)
    measures = ("randomisation", "stability", "pointing", "energy", "area")
    rows = {
        method: {"passed": one.get("passed")} | {key: one[key]["value"] for key in measures if key in one}
        for method, one in made.methods.items()
    }
    return {"methods": rows, "cases": len(images)}


def _ultrasound(root: Path) -> None:
    for one in ("images", "masks"):
        (root / one).mkdir(parents=True)
    lesions = [path for path in sorted((DATA / "ultrasound" / "images").glob("*/*.png")) if "normal" not in path.name]
    for n, path in enumerate(lesions):
        PIL.Image.open(path).convert("L").resize((128, 128)).save(root / "images" / f"case{n:02}.png")
        drawn = sorted((DATA / "ultrasound" / "masks" / path.parent.name).glob(f"{path.stem}_mask*.png"))
        each = [np.asarray(PIL.Image.open(one).convert("L").resize((128, 128), PIL.Image.Resampling.NEAREST)) > 0
                for one in drawn]  # fmt: skip
        PIL.Image.fromarray(np.any(each, axis=0).astype(np.uint8) * 255).save(root / "masks" / f"case{n:02}.png")


def _volumes(root: Path) -> None:
    for one in ("images", "masks"):
        (root / one).mkdir(parents=True)
        for path in sorted((DATA / "mri" / "lgg_flair" / one).glob("*.nii.gz")):
            pixels = np.asarray(nibabel.load(path).dataobj)
            nibabel.Nifti1Image(pixels[::2, ::2].astype(np.uint8), np.diag([4.0, 4, 5, 1])).to_filename(
                root / one / path.name
            )


def counterfactuals(plant: str, seed: int, steps: int) -> Row:
    """How many calls flip, and how many of the changed images the gate takes."""
    run = run_of(plant, seed, steps)
    rows = explained(run, _tests(run), "gradcam", counterfactual="auto").tables["counterfactuals.csv"]
    rows = rows[rows["space"] == "image"]
    flipped = rows[rows["flipped"]]
    return {"cases": len(rows), "flipped": len(flipped), "passes": int(flipped["passes_gate"].sum())}


def causes(plant: str, seed: int, steps: int) -> Row:
    """{class that was called: shares of the changes that lie in the disc}, and the share of the picture that it covers.

    Where the disc may be anywhere, of the ill alone: another one at any place makes the others ill.
    """
    run = run_of(plant, seed, steps)
    folder = run.parent / "changed"
    made = explained(run, _tests(run), "gradcam", counterfactual="auto", out=folder, overwrite=True)
    rows = made.tables["counterfactuals.csv"]
    rows = rows[(rows["space"] == "image") & rows["flipped"]]
    rows = rows if plant == CAUSES[0] else rows[rows["from"] == "ill"]
    shares: dict[str, list[float]] = {}
    for case, called in zip(rows["case"], rows["from"], strict=True):
        within = file_formats.read(run.parent / "data" / "causes" / f"{case}.png").data[0] > 0
        change = np.abs(file_formats.read(folder / f"{case}_difference.tiff").data).sum(axis=0)
        shares.setdefault(called, []).append(float(change[within].sum() / change.sum()))
    return {"within": shares, "area": float(within.mean())}


def concepts(plant: str, seed: int, steps: int) -> Row:
    """p of the planted concept, and of two of random pictures, for a network that a corner gives the class away."""
    run, random = run_of(plant, seed, steps), np.random.default_rng([seed, 1])
    archive = np.load(DATA / "medmnist" / "pneumoniamnist.npz")
    labels = archive["val_labels"].ravel()
    # As many of either class in each concept: else it would be the class that is found.
    halves = [random.permutation(np.flatnonzero(labels == one)) for one in (0, 1)]
    shown = run.parent / "concepts"
    shutil.rmtree(shown, ignore_errors=True)
    for k, name in enumerate(("planted", "random 1", "random 2")):
        (shown / name).mkdir(parents=True)
        for n in np.concatenate([half[k * 10 : (k + 1) * 10] for half in halves]):
            pixels = planted(archive["val_images"][n], plant if name == "planted" else "none", True, random)
            PIL.Image.fromarray(pixels).save(shown / name / f"{n}.png")
    found = {}
    # The pictures that are explained are what a concept is compared with: those that show it, and those that do not.
    for name, images in (("with", _tests(run)), ("without", _tests(run_of("none", seed, steps)))):
        rows = explained(run, images, "gradcam", target="ill", concepts=shown).tables["concepts.csv"]
        found[name] = dict(zip(rows["concept"], rows["p_adjusted"].astype(float), strict=True))
    return {"p": found}


def _of_shortcuts(rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    yield "Seeds (PneumoniaMNIST, whole radiographs) in which maps hold more evidence in corners or at the border than"
    yield "chance would:\n"
    yield "| planted | " + " | ".join(MAPS) + " | two or more of them | seeds |"
    yield "|---" * (len(MAPS) + 3) + "|"
    for plant in (*PLANTS, *RADIOGRAPHS):
        each = [_found(one["p"]) for one in rows if one["name"] == plant]
        counts = [sum(name in found for found in each) for name in MAPS]
        agreed = sum(len(found) >= AGREEING for found in each)
        yield f"| {plant} | {' | '.join(map(str, counts))} | {agreed} | {len(each)} |"


def _found(ps: Mapping[str, float]) -> set[str]:
    """The methods whose maps favour a corner or the border."""
    return {name for name, own in ps.items() if own < LEVEL}


def _of_labels(rows: Sequence[Row]) -> Iterator[str]:
    if rows:
        yield "\nRank correlation of maps of a network with those of one that was taught shuffled labels (each seed):\n"
        yield "| method | rank correlation |\n|---|---|"
        for name in rows[0]["alike"]:
            each = [f"{one['alike'][name]:.2f}" for one in rows if name in one["alike"]]
            yield f"| {name} | {', '.join(each)} |"


def _of_masks(rows: Sequence[Row]) -> Iterator[str]:
    if rows:
        yield "\nMaps of networks that mark a structure, against its masks (means over the seeds):\n"
        columns = ("like maps of redrawn weights", "peak inside", "evidence inside", "share of area", "times")
        yield f"| set | method | tests passed | {' | '.join(columns)} |"
        yield "|---" * 8 + "|"
    for name in dict.fromkeys(one["name"] for one in rows):
        own = [one["methods"] for one in rows if one["name"] == name]
        for method in own[0]:
            each = [one[method] for one in own if "energy" in one.get(method, {})]
            if each:
                mean = {key: statistics.fmean(one.get(key) or 0.0 for one in each)
                        for key in ("randomisation", "pointing", "energy", "area")}  # fmt: skip
                passed = f"{sum(one['passed'] is True for one in each)} of {len(each)}"
                shares = " | ".join(f"{mean[key]:.2f}" for key in ("randomisation", "pointing", "energy"))
                area = f"{mean['area']:.3f} | {mean['energy'] / mean['area']:.1f}"
                yield f"| {name} | {method} | {passed} | {shares} | {area} |"


def _of_counterfactuals(rows: Sequence[Row]) -> Iterator[str]:
    if rows:
        each = [f"{one['flipped']} of {one['cases']} flip, {one['passes']} of these pass the gate" for one in rows]
        yield f"\nCounterfactuals, each seed: {'; '.join(each)}."


def _of_causes(rows: Sequence[Row]) -> Iterator[str]:
    if rows:
        yield "\nShare of a counterfactual's change that lies in the disc that makes a simulated picture ill, or two"
        yield "pixels beside it:\n"
        yield "| disc | called before | seeds | counterfactuals | share within | each seed | share of area |"
        yield "|---" * 7 + "|"
    for name in dict.fromkeys(one["name"] for one in rows):
        own = [one for one in rows if one["name"] == name]
        for called in sorted({called for one in own for called in one["within"]}, reverse=True):
            each = [statistics.fmean(one["within"][called]) for one in own if called in one["within"]]
            shares = [share for one in own for share in one["within"].get(called, ())]
            means = f"{statistics.fmean(shares):.2f} | {', '.join(f'{one:.2f}' for one in each)}"
            area = statistics.fmean(one["area"] for one in own)
            yield f"| {name} | {called} | {len(each)} | {len(shares)} | {means} | {area:.2f} |"


def _of_concepts(rows: Sequence[Row]) -> Iterator[str]:
    for pool in ("without", "with") if rows else ():
        own = [one["p"][pool] for one in rows]
        found = sum(one["planted"] < LEVEL for one in own)
        alarms = sum(p < LEVEL for one in own for name, p in one.items() if name != "planted")
        yield f"\nTCAV, explaining pictures {pool} the corner: it is found in {found} of {len(own)} seeds,"
        yield f"and {alarms} of {2 * len(own)} random concepts."


class Part:
    """Trials of a kind: settings, each of which is tried with each seed, and what came of them in words."""

    def __init__(self, settings: Sequence[str], trial: Callable[..., Row], words: Callable[..., Iterator[str]]) -> None:
        self.settings, self.trial, self.words = settings, trial, words


PARTS = {
    "shortcuts": Part((*PLANTS, *RADIOGRAPHS), shortcut, _of_shortcuts),
    "labels": Part(("shuffled",), labels, _of_labels),
    "masks": Part(tuple(SETS), masks, _of_masks),
    "counterfactuals": Part(("none",), counterfactuals, _of_counterfactuals),
    "causes": Part(CAUSES, causes, _of_causes),
    "concepts": Part(("corner",), concepts, _of_concepts),
}


if __name__ == "__main__":
    main()
