"""How often `check` finds a small mark that gives the class away, and how often it finds one where none is.

    python bench/shortcuts.py --data ../shared/data --trials 10 --record
    python bench/shortcuts.py --data ../shared/data --trials 1 --only histology

Real pictures, half of the patients called ill at random. A mark (a bright, dark or grey square, or a letter) is
painted into all pictures of the ill, at one place, drawn anew for each trial: at the same share of height and width,
there up to 3 pixels off ("varied"), or so many pixels from the first ("pixels"). It counts as found where a small mark,
the border or the corners are a shortcut at p < 0.05 with an AUC of 0.7 and more. False alarms: the same without a mark,
and with the true classes.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from machine import described
from recorded import record

from isocenter.quality import _small_marks, dataset_examination, image_descriptors, shortcut_tests
from isocenter.quality.image_descriptors import ImageLook, scaled_intensities
from isocenter.values import Case, Dataset, Fingerprint, Geometry, Image
from isocenter.values.dataset_fingerprint import Shortcut

SIDES = (6, 8, 12, 16)
KINDS = ("bright", "dark", "grey", "letter")
PLACINGS = ("fixed", "varied", "pixels")
# In half of the pictures or more a mark differs from what it covers by so much of the range.
VISIBLE = 0.2
# Of small pictures, of which there are thousands.
MOST = 200


@dataclass(frozen=True)
class Set:
    """Pictures with their patients, and their classes where they have two; looks without a mark."""

    name: str
    pictures: Sequence[np.ndarray]
    patients: Sequence[str]
    classes: Sequence[str] | None
    fingerprint: Fingerprint
    looks: Mapping[str, ImageLook]


# Of the recorded section.
ABOUT = """\
Real pictures, half of the patients called ill at random: marks of 6, 8, 12 and 16 pixels (in pictures of 28 pixels 6
and 8) at one place, drawn anew for each, where they differ from what they cover by a fifth of the range or more.
"fixed" lies at the same share of height and width, "varied" up to 3 pixels beside it, "pixels" as many pixels from the
first, in sets of several sizes elsewhere in each. A thin white letter on white tissue is found least."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of shared data")
    parser.add_argument("--only", nargs="+", help="names of sets")
    parser.add_argument("--trials", type=int, default=10, help="of each set, kind and side of mark")
    parser.add_argument("--record", action="store_true", help="write the figures into docs/benchmarks")
    given = parser.parse_args()
    sets = [one for one in _sets(given.data) if not given.only or one.name in given.only]
    planted = pd.DataFrame(row for one in sets for row in _planted(one, given.trials))
    without = pd.DataFrame(row for one in sets for row in _without(one, 4 * given.trials))
    text = _words(planted, without)
    print(f"Machine: {described()}.\nCommand: `python bench/shortcuts.py {' '.join(sys.argv[1:])}`\n\n{text}")
    if given.record:
        runs = {"planted": planted.to_dict("records"), "without": without.to_dict("records")}
        record("shortcuts", "Small marks that give a class away", text, runs)


def _sets(data: Path) -> Iterator[Set]:
    radiographs = sorted((data / "chest_xray").glob("*/*.jpeg"))
    owner = [re.match(r"person\d+|(?:NORMAL2-)?IM-\d+", path.name)[0] for path in radiographs]
    yield _set("radiographs", map(_grey, radiographs), owner, [path.parent.name for path in radiographs])
    for name in ("pneumonia", "retina"):
        archive = np.load(data / "medmnist" / f"{name}mnist.npz")
        chosen = np.random.default_rng(0).permutation(len(archive["train_images"]))[:MOST]
        pictures = [one if one.ndim == 2 else one.mean(axis=-1) for one in archive["train_images"][chosen]]
        classes = [str(min(label, 1)) for label in archive["train_labels"][chosen, 0]]
        yield _set(f"{name} of 28 pixels", pictures, [str(one) for one in chosen], classes)
    ultrasound = sorted((data / "ultrasound" / "images").glob("*/*.png"))
    classes = [path.parent.name.replace("normal", "benign") for path in ultrasound]
    yield _set("ultrasound", map(_grey, ultrasound), [path.name for path in ultrasound], classes)
    tiles = sorted((data / "histology" / "images").glob("*.png"))
    yield _set("histology", map(_grey, tiles), [path.name for path in tiles], None)
    mixed = [path for path in sorted((data / "multimodal" / "images").iterdir()) if path.suffix != ".csv"]
    yield _set("radiographs of many sources", map(_grey, mixed), [path.name for path in mixed], None)


def _grey(path: Path) -> np.ndarray:
    return np.asarray(PIL.Image.open(path).convert("L"))


def _set(name: str, pictures: Iterator, patients: Sequence[str], classes: Sequence[str] | None) -> Set:
    pictures = [np.asarray(one, dtype=np.float32) for one in pictures]
    seen = dataset_examination.examine(_dataset(pictures, patients, [n % 2 == 0 for n in range(len(pictures))]))
    return Set(name, pictures, patients, classes, seen.fingerprint, seen.looks)


def _dataset(pictures: Sequence[np.ndarray], patients: Sequence[str], ill: Sequence[bool]) -> Dataset:
    images = [Image(one[None], Geometry.of_pixels(one.shape)) for one in pictures]
    cases = [
        Case(str(n), patient, {"image": image}, {"class": "ill" if label else "well"})
        for n, (image, patient, label) in enumerate(zip(images, patients, ill, strict=True))
    ]
    return Dataset(tuple(cases), patients_known=True)


def _found(one: Set, ill: np.ndarray, looks: Mapping[str, ImageLook], seed: int) -> tuple[Shortcut, ...]:
    """What stands: of the pictures as they look now, with these classes."""
    dataset = _dataset(one.pictures, one.patients, ill)
    facts = [
        replace(facts, references={"class": "ill" if ill[int(facts.id)] else "well"}) for facts in one.fingerprint.cases
    ]
    return tuple(
        found
        for found in shortcut_tests.find_shortcuts(dataset, Fingerprint(tuple(facts)), looks, seed=seed)
        if found.standing
    )


def _called_ill(one: Set, rng: np.random.Generator) -> np.ndarray:
    people, owner = np.unique(one.patients, return_inverse=True)
    return rng.permutation(np.arange(len(people)) % 2 == 0)[owner]


def _planted(one: Set, trials: int) -> Iterator[dict]:
    tests = [(kind, side, placing, trial) for kind in KINDS for side in SIDES for placing in PLACINGS
             for trial in range(trials)]  # fmt: skip
    for number, (kind, side, placing, trial) in enumerate(tests):
        if side > min(one.pictures[0].shape) / 3:
            continue  # a third of a picture of 28 pixels is no small mark
        rng = np.random.default_rng([number, trial])
        ill, looks = _called_ill(one, rng), dict(one.looks)
        places = _places(one, placing, side, rng)
        while np.median([_visible(one.pictures[n], places[n], side, kind) for n in np.flatnonzero(ill)]) < VISIBLE:
            places = _places(one, placing, side, rng)
        began = time.perf_counter()
        for n in np.flatnonzero(ill):
            looks[str(n)] = _look(_marked(one.pictures[n], places[n], side, kind))
        stand = _found(one, ill, looks, trial)
        names = {found.name for found in stand}
        yield {"set": one.name, "kind": kind, "side": side, "placing": placing, "trial": trial,
               "mark": "small mark" in names, "border": bool(names & {"border pixels", "corner pixels"}),
               "seconds": time.perf_counter() - began}  # fmt: skip


def _places(one: Set, placing: str, side: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The first pixel of the mark in each picture."""
    place, usual = rng.random(2), np.median([picture.shape for picture in one.pictures], axis=0)
    places = []
    for picture in one.pictures:
        room = np.array(picture.shape) - side
        at = place * usual if placing == "pixels" else place * room
        at = at + (rng.integers(-3, 4, 2) if placing == "varied" else 0)
        places.append(np.clip(at, 0, room).astype(int))
    return places


def _visible(picture: np.ndarray, at: np.ndarray, side: int, kind: str) -> float:
    """How far the mark differs from what it covers, as a share of the range: black on black is no mark."""
    part = (slice(at[0], at[0] + side), slice(at[1], at[1] + side))
    changed = np.abs(_marked(picture, at, side, kind)[part] - picture[part])
    return float(np.percentile(changed, 90) / np.ptp(picture))


def _without(one: Set, trials: int) -> Iterator[dict]:
    for trial in range(trials):
        ill = _called_ill(one, np.random.default_rng([7, trial]))
        yield _alarm(one, "shuffled", _found(one, ill, one.looks, trial))
    if one.classes is not None:
        ill = np.array(one.classes) == max(one.classes)
        yield _alarm(one, "true", _found(one, ill, one.looks, 0))


def _alarm(one: Set, classes: str, stand: Sequence[Shortcut]) -> dict:
    names = {found.name for found in stand}
    return {"set": one.name, "classes": classes, "mark": "small mark" in names, "other": bool(names - {"small mark"})}


def _look(picture: np.ndarray) -> ImageLook:
    scaled = scaled_intensities(picture[None], np.ones((1, *picture.shape), dtype=bool))
    return ImageLook("", image_descriptors.small_image(scaled), (), _small_marks.patch_contrast(scaled))


def _marked(picture: np.ndarray, at: np.ndarray, side: int, kind: str) -> np.ndarray:
    picture = picture.copy()
    square = picture[at[0] : at[0] + side, at[1] : at[1] + side]
    if kind == "letter":
        square[_letter(side)] = picture.max()
    elif kind == "grey":
        square[:] = (picture.max() + picture.min()) / 2
    else:
        square[:] = picture.max() if kind == "bright" else picture.min()
    return picture


def _letter(side: int) -> np.ndarray:
    drawn = PIL.Image.new("L", (side, side))
    font = PIL.ImageFont.load_default(1.1 * side)
    PIL.ImageDraw.Draw(drawn).text((side / 2, side / 2), "R", fill=255, font=font, anchor="mm")
    return np.asarray(drawn) > 127


def _words(planted: pd.DataFrame, without: pd.DataFrame) -> str:
    planted = planted.assign(found=planted["mark"] | planted["border"])
    columns = [
        "set",
        *KINDS,
        *(f"{side} pixels" for side in SIDES),
        *PLACINGS,
        "all",
        "border or corners alone, as before",
    ]
    rows = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, own in [*planted.groupby("set", sort=False), ("all", planted)]:
        parts = [("kind", KINDS), ("side", SIDES), ("placing", PLACINGS)]
        each = [own.loc[own[key] == value, "found"].mean() for key, values in parts for value in values]
        shares = [*each, own["found"].mean(), own["border"].mean()]
        rows.append(f"| {name} | {' | '.join('' if np.isnan(one) else f'{100 * one:.0f} %' for one in shares)} |")
    shuffled = without[without["classes"] == "shuffled"]
    true = without[without["classes"] == "true"]
    alarms = (
        f"Without a mark, classes shuffled: a small mark in {shuffled['mark'].sum()} of {len(shuffled)} trials, "
        f"another shortcut in {shuffled['other'].sum()}. With the true classes: a small mark in "
        f"{true['mark'].sum()} of {len(true)} sets, another in {true['other'].sum()}."
    )
    title = f"Marks found, of {len(planted)} that were planted into the pictures of the ill:"
    return "\n".join([ABOUT, "", title, "", *rows, "", alarms])


if __name__ == "__main__":
    main()
