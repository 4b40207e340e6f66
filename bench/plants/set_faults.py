"""Faults of data sets: masks, doubles, lists and counts that the folder contradicts, a shortcut."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image

from .planted import Array, Fault, Planted, Random, Wanted, pick
from .table_faults import look_at_table

LABELS = {"0": "background", "1": "anterior", "2": "posterior"}
CASES = 6


@dataclass
class DataSet:
    """Volumes and masks of a published set, in the layout of the Decathlon, which states labels, lists and counts.

    originals: {file of the set: the published one}
    """

    folder: Path
    names: list[str]
    description: dict[str, Any] = field(default_factory=dict)
    originals: dict[Path, Path] = field(default_factory=dict)

    def image(self, name: str) -> Path:
        """The image of a case."""
        return self.folder / "imagesTr" / f"{name}.nii.gz"

    def mask(self, name: str) -> Path:
        """The mask of a case."""
        return self.folder / "labelsTr" / f"{name}.nii.gz"

    def get_again(self, _: Path) -> None:
        """The files as they were published, with what the set says of them."""
        for target, source in self.originals.items():
            shutil.copyfile(source, target)
        self.description["labels"] = dict(LABELS)
        self.describe()

    def describe(self) -> None:
        """Write the set's own description."""
        (self.folder / "dataset.json").write_text(json.dumps(self.description))

    def change(self, path: Path, change: Callable[[Array, Array], tuple[Array, Array]]) -> None:
        """Write a volume anew, with other voxels or another place."""
        stored = nibabel.load(path)
        values, affine = change(np.array(stored.dataobj), np.array(stored.affine))
        nibabel.Nifti1Image(values, affine).to_filename(path)


def set_of(volumes: list[tuple[Path, Path]], folder: Path) -> DataSet:
    """Some cases in the layout of the Decathlon."""
    names = [image.name.removesuffix(".nii.gz") for image, _ in volumes]
    made = DataSet(folder, names)
    for name, (image, mask) in zip(names, volumes, strict=True):
        for target, source in ((made.image(name), image), (made.mask(name), mask)):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            made.originals[target] = source
    made.description = {
        "name": "hippocampus",
        "modality": {"0": "MRI"},
        "labels": dict(LABELS),
        "numTraining": len(names),
        "numTest": 0,
        "training": [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names],
        "test": [],
    }
    return made


def differ_by_case(names: list[str]) -> Any:
    """A comparison with the cases that there are."""

    def differ(values: Mapping[str, Any], wanted: Wanted) -> str:
        return "" if set(values) == set(names) else f"cases {sorted(set(values) ^ set(names))} more or less"

    return differ


def named(name: str, *words: str) -> str:
    """Words that name a case: within one finding the case, and before or behind it what is wrong."""
    kinds = "|".join(words)
    return rf"(?m)^[^\n]*({kinds})[^\n]*\b{name}\b|^[^\n]*\b{name}\b[^\n]*({kinds})"


def shift_mask(data: DataSet, rng: Random) -> Wanted:
    """A mask lies on a grid that is shifted by more than a voxel."""
    name = rng.choice(data.names)
    offset = np.zeros((4, 4))
    offset[rng.randrange(3), 3] = rng.choice((-1, 1)) * rng.uniform(2, 30)
    data.change(data.mask(name), lambda values, affine: (values, affine + offset))
    return Wanted(("refused", "named"), named(name, "grid", "place", "mm"))


def cut_mask(data: DataSet, rng: Random) -> Wanted:
    """A mask has fewer voxels than its image."""
    name = rng.choice(data.names)
    axis = rng.randrange(3)
    data.change(data.mask(name), lambda values, affine: (np.delete(values, -1, axis), affine))
    return Wanted(("refused", "named"), named(name, "grid", "shape", "voxels"))


def turn_mask(data: DataSet, rng: Random) -> Wanted:
    """A mask is stored from the other end, with its place: it is the same."""
    name = rng.choice(data.names)

    def turn(values: Array, affine: Array) -> tuple[Array, Array]:
        turned = affine @ np.diag([-1, 1, 1, 1])
        turned[:3, 3] = affine[:3, 3] + affine[:3, 0] * (values.shape[0] - 1)
        return values[::-1], turned

    data.change(data.mask(name), turn)
    data.change(data.image(name), turn)
    return Wanted(("same",))


def add_value(data: DataSet, rng: Random) -> Wanted:
    """A mask has a value that nobody declared."""
    name, value = rng.choice(data.names), rng.choice((3, 7, 255))

    def add(values: Array, affine: Array) -> tuple[Array, Array]:
        values = values.astype(np.uint8)
        values[tuple(size // 2 for size in values.shape)] = value
        return values, affine

    data.change(data.mask(name), add)
    return Wanted(("refused", "named"), named(name, f"{value}"), (("correct|declare", data.get_again),))


def blur_mask(data: DataSet, rng: Random) -> Wanted:
    """A mask was interpolated: it has values between its labels."""
    name = rng.choice(data.names)

    def blur(values: Array, affine: Array) -> tuple[Array, Array]:
        values = values.astype(np.float32)
        return (values + np.roll(values, 1, 0)) / 2, affine

    data.change(data.mask(name), blur)
    return Wanted(("refused", "named"), named(name, "whole", "label", "value", "integer"))


def copy_case(data: DataSet, rng: Random) -> Wanted:
    """A case lies there twice under two names."""
    name, twin = rng.choice(data.names), "hippocampus_900"
    shutil.copyfile(data.image(name), data.image(twin))
    shutil.copyfile(data.mask(name), data.mask(twin))
    return listed(data, twin, Wanted(("refused", "named"), named(name, twin)))


def copy_with_noise(data: DataSet, rng: Random) -> Wanted:
    """A case lies there twice, the second time with noise of two hundredths of its range."""
    name, twin = rng.choice(data.names), "hippocampus_900"
    shutil.copyfile(data.image(name), data.image(twin))
    shutil.copyfile(data.mask(name), data.mask(twin))
    generator = np.random.default_rng(rng.randrange(1 << 30))

    def add(values: Array, affine: Array) -> tuple[Array, Array]:
        noisy = values + generator.normal(0, 0.02 * np.ptp(values.astype(float)), values.shape)
        return noisy.astype(np.float32), affine

    data.change(data.image(twin), add)
    return listed(data, twin, Wanted(("refused", "named"), named(name, twin)))


def listed(data: DataSet, twin: str, wanted: Wanted) -> Wanted:
    """The set's own list has the twin too."""
    data.names.append(twin)
    data.description["training"].append({"image": f"./imagesTr/{twin}.nii.gz", "label": f"./labelsTr/{twin}.nii.gz"})
    data.description["numTraining"] = len(data.names)
    return wanted


def miscount(data: DataSet, rng: Random) -> Wanted:
    """The set states another number of cases than its own list has."""
    data.description["numTraining"] = len(data.names) + rng.choice((-2, 1, 20))
    return Wanted(("refused", "named"), rf"numTraining|states?\b.*{data.description['numTraining']}")


def lose_listed(data: DataSet, rng: Random) -> Wanted:
    """The list names a case whose files are not there."""
    name = rng.choice(data.names)
    data.image(name).unlink()
    data.mask(name).unlink()
    data.names.remove(name)
    return Wanted(("refused", "named"), rf"\b{name}\b")


def lose_mask(data: DataSet, rng: Random) -> Wanted:
    """The list names a mask that is not there."""
    name = rng.choice(data.names)
    data.mask(name).unlink()
    return Wanted(("refused", "named"), rf"\b{name}\b")


def add_unlisted(data: DataSet, rng: Random) -> Wanted:
    """A case lies there that the list does not name."""
    name = rng.choice(data.names)
    data.description["training"] = [one for one in data.description["training"] if name not in one["image"]]
    data.description["numTraining"] -= 1
    data.names.remove(name)
    return Wanted(("refused", "named"), rf"\b{name}\b|unlisted|not list|lists? not|no list")


def lose_label(data: DataSet, rng: Random) -> Wanted:
    """The set declares a label fewer than its masks have."""
    value = rng.choice(("1", "2"))
    del data.description["labels"][value]
    return Wanted(("refused", "named"), rf"\b{value}\b", (("correct|declare", data.get_again),))


def add_label(data: DataSet, rng: Random) -> Wanted:
    """The set declares a label that no mask has."""
    data.description["labels"]["3"] = "tail"
    return Wanted(("refused", "named"), "tail")


def list_twice(data: DataSet, rng: Random) -> Wanted:
    """The list names a case twice."""
    entry = dict(rng.choice(data.description["training"]))
    data.description["training"].append(entry)
    data.description["numTraining"] += rng.choice((0, 1))
    return Wanted(("same", "refused", "named"), "twice|double|listed")


def cut_image(data: DataSet, rng: Random) -> Wanted:
    """The file of an image ends early."""
    name = rng.choice(data.names)
    content = data.image(name).read_bytes()
    data.image(name).write_bytes(content[: int(len(content) * rng.uniform(0.2, 0.9))])
    return Wanted(("refused", "named"), named(name, "error"))


def add_system_files(data: DataSet, rng: Random) -> Wanted:
    """Files that systems leave behind lie among the images."""
    for name in (".DS_Store", f"._{data.names[0]}.nii.gz", "Thumbs.db"):
        (data.folder / rng.choice(("imagesTr", "labelsTr", ".")) / name).write_bytes(rng.randbytes(64))
    return Wanted(("same",))


def order_list(data: DataSet, rng: Random) -> Wanted:
    """The list runs in another order."""
    rng.shuffle(data.description["training"])
    return Wanted(("same",))


def exchange_masks(data: DataSet, rng: Random) -> Wanted:
    """Two cases have each other's contours, each on the grid of its image."""
    first, second = rng.sample(data.names, 2)
    masks = [np.array(nibabel.load(data.mask(name)).dataobj) for name in (first, second)]
    for name, other in ((first, masks[1]), (second, masks[0])):

        def fitted(values: Array, affine: Array, other: Array = other) -> tuple[Array, Array]:
            into = np.zeros_like(values)
            region = tuple(slice(0, min(sizes)) for sizes in zip(values.shape, other.shape, strict=True))
            into[region] = other[region]
            return into, affine

        data.change(data.mask(name), fitted)
    return Wanted(("refused", "named"), named(first, "fit", "mask", "contour", "label"))


def mirror_mask(data: DataSet, rng: Random) -> Wanted:
    """A mask is mirrored against its image."""
    name, axis = rng.choice(data.names), rng.randrange(3)
    data.change(data.mask(name), lambda values, affine: (np.flip(values, axis), affine))
    return Wanted(("refused", "named"), named(name, "fit", "mask", "contour", "label", "mirror"))


def invert_image(data: DataSet, rng: Random) -> Wanted:
    """One image has the contrast of another kind."""
    name = rng.choice(data.names)
    data.change(data.image(name), lambda values, affine: (values.max() - values, affine))
    return Wanted(("refused", "named"), named(name, "contrast", "kind", "unlike", "invert", "darker"))


def make_noise(data: DataSet, rng: Random) -> Wanted:
    """One image is noise."""
    name = rng.choice(data.names)
    generator = np.random.default_rng(rng.randrange(1 << 30))
    data.change(
        data.image(name),
        lambda values, affine: (generator.normal(100, 30, values.shape).clip(0, 255).astype(np.uint8), affine),
    )
    return Wanted(("refused", "named"), named(name, "noise", "kind", "unlike", "structure"))


HARMLESS = (
    Fault("a case stored from the other end", turn_mask),
    Fault("files of systems among the images", add_system_files),
    Fault("the list in another order", order_list),
)
BREAKING = (
    Fault("a mask shifted", shift_mask),
    Fault("a mask of another shape", cut_mask),
    Fault("a value that nobody declared", add_value),
    Fault("a mask that was interpolated", blur_mask),
    Fault("an image twice", copy_case),
    Fault("an image twice, with noise", copy_with_noise),
    Fault("another count of cases", miscount),
    Fault("a listed case that is not there", lose_listed),
    Fault("a listed mask that is not there", lose_mask),
    Fault("a case that is not listed", add_unlisted),
    Fault("a label fewer than the masks have", lose_label),
    Fault("a label that no mask has", add_label),
    Fault("a case listed twice", list_twice),
    Fault("an image cut", cut_image),
)
NEXT = (
    Fault("masks exchanged", exchange_masks, next=True),
    Fault("a mask mirrored", mirror_mask, next=True),
    Fault("an image of another contrast", invert_image, next=True),
    Fault("an image of noise", make_noise, next=True),
)


def plant(source: str, volumes: list[tuple[Path, Path]], folder: Path, rng: Random) -> tuple[list[Fault], Planted]:
    """One fault, or in three of ten draws one and another that changes nothing."""
    data = set_of(volumes, folder / "set")
    first = pick((*HARMLESS, *BREAKING, *NEXT), data, rng)
    assert first is not None
    second = pick(HARMLESS, data, rng, [first]) if rng.random() < 0.3 else None
    chosen = [fault for fault in (second, first) if fault is not None]
    wanted = Wanted(("same",))
    for fault in chosen:
        wanted = wanted.beside(fault.plant(data, rng))
    data.describe()
    return chosen, Planted(source, data.folder, wanted, look_at_table, differ_by_case(data.names))


def mark_class(pictures: list[Array], folder: Path, rng: Random) -> Wanted:
    """A bright mark stands in a corner of each picture of one class."""
    for number, picture in enumerate(pictures):
        marked = np.array(picture)
        if number % 2:
            marked[1:6, 1:9] = 255
        place = folder / ("malignant" if number % 2 else "benign") / f"{number:03d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(marked).save(place)
    return Wanted(("refused", "named"), "shortcut|told apart|corner|border")


SHORTCUT = Fault("a mark on one class", mark_class)


def plant_shortcut(source: str, pictures: list[Array], folder: Path, rng: Random) -> tuple[list[Fault], Planted]:
    """A folder for each class, whose pictures a mark tells apart."""
    wanted = mark_class(pictures, folder / "set", rng)
    return [SHORTCUT], Planted(source, folder / "set", wanted, look_at_table, differ_by_case([]))
