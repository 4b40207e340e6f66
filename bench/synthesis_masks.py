"""Images synthesised by masks: does a segmentation network of real images find in them what was asked for?

    python bench/synthesis_masks.py --out DIR --minutes 3.5 --record

histology: crops of 128 x 128 pixels of stained tiles, halved to 64 x 64, with their nuclei. hippocampus: volumes
brought to 32 x 32 x 32 voxels, with their two structures. A network learns to synthesise by the masks of training
images, and does so by masks of test images, which it has not seen. A segmentation network of these images is then
asked for the Dice of its answer with the mask: in the synthetic images, in the real test images, and, as the level of
chance, of its answers for real images with the mask of another image. Cells that have ended are lines of
DIR/cells.jsonl, and are not repeated.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image
import tifffile
from environment import ROOT
from recorded import known, measured_cell, record
from scipy import ndimage

import hilum
from hilum.evaluation import intervals

DATA = ROOT.parent / "shared" / "data"
CROP, STRIDE, SIDE = 128, 64, 32
TRAIN, TEST = 100, 20
COLUMN = {name: name for name in ("image", "mask", "split", "patient", "id")}
LABELS = {"histology": "1=nucleus", "hippocampus": "1=anterior,2=posterior"}
USUAL: dict[str, Any] = {"device": "cpu", "threads": 1, "overwrite": True}
# (id, patient, part, image, mask): pixels (rows, columns, 3) or voxels, and numbers of labels on the same grid.
LabelledImage = tuple[str, str, str, np.ndarray, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=3.5, help="of each generator")
    parser.add_argument("--segmentation", type=float, default=1.5, help="minutes of each network that looks")
    parser.add_argument("--count", type=int, default=TEST, help="test masks that are synthesised by")
    parser.add_argument("--only", default="", help="histology or hippocampus")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    measured = {
        name: measured_cell(given.out, name, partial(measure, given, name, images))
        for name, images in SETS.items()
        if name.startswith(given.only)
    }
    rows = {**known("synthesis_masks").get("cells", {}), **measured}
    text = page(rows, given)
    print(text)
    if given.record:
        record("synthesis_masks", "Images synthesised by masks", text, {"cells": rows})


def crops() -> Iterator[LabelledImage]:
    """Crops of the tiles of stained tissue; those of one tile are of one patient."""
    rows = csv.DictReader((DATA / "histology" / "index.csv").open())
    for row in rows:
        stem = row["name"].removesuffix(".png")
        pixels = np.asarray(PIL.Image.open(DATA / "histology" / "images" / f"{stem}.png").convert("RGB"))
        mask = (tifffile.imread(DATA / "histology" / "labels" / f"{stem}.tif") > 0).astype(np.uint8)
        part = "test" if row["split"] == "test" else "train"
        step = CROP if part == "test" else STRIDE
        for top in range(0, pixels.shape[0] - CROP + 1, step):
            for left in range(0, pixels.shape[1] - CROP + 1, step):
                place = slice(top, top + CROP), slice(left, left + CROP)
                small = pixels[place].reshape(CROP // 2, 2, CROP // 2, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)
                if (marked := mask[place][::2, ::2]).any():
                    yield f"{stem}_{top}_{left}", stem, part, small, marked


def volumes() -> Iterator[LabelledImage]:
    """Volumes of the hippocampus, each axis brought to 32 voxels."""
    names = sorted(path.name for path in (DATA / "hippocampus" / "images").iterdir())
    names = np.random.default_rng(0).permutation(names).tolist()
    for number, name in enumerate(names[: TRAIN + TEST]):
        grey, mask = (nibabel.load(DATA / "hippocampus" / kind / name).get_fdata() for kind in ("images", "labels"))
        zoom = [SIDE / size for size in grey.shape]
        low, high = np.quantile(grey, [0.005, 0.995])
        small = ndimage.zoom(((grey - low) / (high - low)).clip(0, 1), zoom, order=1)
        stem, part = name.partition(".")[0], "train" if number < TRAIN else "test"
        yield stem, stem, part, small.astype(np.float32), ndimage.zoom(mask, zoom, order=0).astype(np.uint8)


SETS: Mapping[str, Callable[[], Iterator[LabelledImage]]] = {"histology": crops, "hippocampus": volumes}


def write_set(folder: Path, images: Callable[[], Iterator[LabelledImage]]) -> Path:
    """A table of images and masks with their parts; made once."""
    table = folder / "table.csv"
    if table.is_file():
        return table
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "labels").mkdir(exist_ok=True)
    rows = list[dict[str, str]]()
    for name, patient, part, image, mask in images():
        ending = "png" if mask.ndim == 2 else "nii.gz"
        places = {kind: f"{kind}/{name}.{ending}" for kind in ("images", "labels")}
        for kind, pixels in (("images", image), ("labels", mask)):
            if mask.ndim == 2:
                PIL.Image.fromarray(pixels).save(folder / places[kind])
            else:
                nibabel.Nifti1Image(pixels, np.eye(4)).to_filename(folder / places[kind])
        row = {"id": name, "patient": patient, "split": part}
        rows.append({**row, "image": places["images"], "mask": places["labels"]})
    with table.open("w", newline="") as file:
        (writer := csv.DictWriter(file, list(rows[0]))).writeheader()
        writer.writerows(rows)
    return table


def measure(given: Any, name: str, images: Callable[[], Iterator[LabelledImage]]) -> dict[str, Any]:
    """Dice of what a segmentation network of real images finds in synthetic and in real ones, with the mask."""
    folder = given.out / name
    table = write_set(folder / "data", images)
    generator, looking = folder / "generator", folder / "looking"
    asked = {"column": COLUMN, "labels": LABELS[name], "seed": 0, **USUAL}
    for run, more in ((generator, {"task": "synthesis"}), (looking, {"task": "segmentation"})):
        minutes = given.minutes if run == generator else given.segmentation
        if not (run / "report.html").is_file():
            hilum.train(table, out=run, minutes=minutes, **asked, **more)
    test = [row for row in csv.DictReader(table.open()) if row["split"] == "test"]
    chosen = [test[n] for n in np.unique(np.linspace(0, len(test) - 1, given.count).round().astype(int))]
    (masks := folder / "masks").mkdir(exist_ok=True)
    for row in chosen:
        source = table.parent / row["mask"]
        (masks / source.name).write_bytes(source.read_bytes())
    found = hilum.synthesise(generator, mask=masks, count=1, out=folder / "synthetic", device="cpu", overwrite=True)
    model = hilum.load(looking, device="cpu")
    truths = {row["id"]: pixels_of(table.parent / row["mask"]) for row in chosen}
    answers = {row["id"]: answer_of(model, table.parent / row["image"]) for row in chosen}
    dice_inputs = {row["label"]: answer_of(model, folder / "synthetic" / row["file"]) for row in found.rows}
    names = list(truths)
    others = dict(zip(names, names[len(names) // 2 :] + names[: len(names) // 2], strict=True))
    scores = {
        "synthetic": {one: dice(dice_inputs[one], truths[one]) for one in dice_inputs},
        "real": {one: dice(answers[one], truths[one]) for one in names},
        "chance": {one: dice(answers[one], truths[others[one]]) for one in names},
    }
    steps = {
        f"steps {run.name}": int((run / "log.csv").read_text().splitlines()[-1].split(",")[0])
        for run in (generator, looking)
    }
    return {
        **{kind: stated(one) for kind, one in scores.items()},
        "synthetic of": len(dice_inputs),
        "withheld": sum(found.withheld.values()),
        "membership": str(found.membership),
        "trained by": sum(row["split"] == "train" for row in csv.DictReader(table.open())),
        **steps,
    }


def pixels_of(path: Path) -> np.ndarray:
    """Numbers of labels of a file."""
    return np.asarray(hilum.read(path).data[0])


def answer_of(model: Any, path: Path) -> np.ndarray:
    """The label map that a model gives for an image."""
    found = np.asarray(model.predict(hilum.read(path)).data)
    return found[0] if found.ndim > len(model.inference.patch) else found


def dice(answer: np.ndarray, truth: np.ndarray) -> float:
    """The mean Dice of the labels that the mask has."""
    labels = [value for value in np.unique(truth) if value]
    both = [((answer == one) & (truth == one)).sum() for one in labels]
    each = [(answer == one).sum() + (truth == one).sum() for one in labels]
    return float(np.mean(2 * np.array(both) / np.array(each)))


def stated(scores: Mapping[str, float]) -> dict[str, float]:
    """The mean over cases with its interval."""
    if not scores:
        return {}
    found = intervals.bootstrap(np.array(list(scores.values())), np.array(list(scores), dtype=str), seed=0, exact=False)
    return {"value": float(found.value), "low": float(found.low), "high": float(found.high)}


def page(rows: Mapping[str, Mapping[str, Any]], given: Any) -> str:
    """The table of sets, and what can be said of it."""
    head = (
        "| set | images that train | steps | Dice with the mask, synthetic | real | real, mask of another | withheld |"
    )
    lines, verdicts = [head, f"|{'---|' * (head.count('|') - 1)}"], list[str]()
    for name, row in rows.items():
        words = [
            f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})" if one else "none was left"
            for one in (row["synthetic"], row["real"], row["chance"])
        ]
        withheld = f"{row['withheld']} beside {row['synthetic of']} given"
        first = [name, str(row["trained by"]), str(row["steps generator"])]
        lines.append(f"| {' | '.join([*first, *words, withheld])} |")
        if row["synthetic"]:
            above = row["synthetic"]["low"] > row["chance"]["high"]
            verdicts.append(
                f"In {name} the synthetic images {'follow their masks' if above else 'do not show their masks'}: Dice "
                f"{row['synthetic']['value']:.3f} beside {row['real']['value']:.3f} in real images and "
                f"{row['chance']['value']:.3f} by chance. Membership inference: AUROC {row['membership']}."
            )
    intro = (
        "Nuclei in crops of stained tissue (64 x 64 pixels; crops of a tile overlap and stay in one part) and two "
        "structures in volumes of the hippocampus (32 x 32 x 32 voxels; two may be of one person). Networks "
        "synthesise by masks of test images, which did not train; a segmentation network of the same real "
        f"training images looks for the mask. {given.minutes:g} minutes of one core for each generator, "
        f"{given.segmentation:g} for each that looks, on a machine that other work shared; one training each; "
        "intervals are of cases."
    )
    return "\n".join([intro, "", *lines, "", " ".join(verdicts)])


if __name__ == "__main__":
    main()
