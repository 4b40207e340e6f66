"""MedMNIST archives (`.npz`): arrays of images and labels, already split. Yang et al., Sci Data 2023."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from hilum.errors import DatasetError, FormatError
from hilum.files import modality_words, numpy_file
from hilum.files.storage import packed_files
from hilum.layouts.cases import class_labels
from hilum.layouts.cases.dataset_folder import Folder
from hilum.layouts.layout import DatasetOptions, Example, Layout, Reading
from hilum.values import Array, CaseRow, Cell, Geometry, Image, Source, Split
from hilum.values.dataset_cases import SPLITS

# What each set of MedMNIST v2 shows, by its file's name (Yang et al., table 1).
SETS = {
    "pathmnist": "SM",
    "dermamnist": "XC",
    "octmnist": "OPT",
    "retinamnist": "OP",
    "breastmnist": "US",
    "vesselmnist3d": "MR",
    **dict.fromkeys(("chestmnist", "pneumoniamnist"), "DX"),
    **dict.fromkeys(("bloodmnist", "tissuemnist", "synapsemnist3d"), "GM"),
    **dict.fromkeys(("organamnist", "organcmnist", "organsmnist", "organmnist3d", "nodulemnist3d"), "CT"),
    **dict.fromkeys(("adrenalmnist3d", "fracturemnist3d"), "CT"),
}


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """An archive (`read` refuses one that lacks something), or a folder with nothing but those of MedMNIST."""
    return folder.members[0].suffix == ".npz" if folder.is_file else bool(_archives(folder))


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """One case a row. Which patient a row stems from is not recorded."""
    archives = [folder.root] if folder.is_file else _archives(folder)
    if len(archives) != 1:
        names = ", ".join(path.name for path in archives)
        raise DatasetError(f"holds {len(archives)} data sets ({names})", str(folder.root), "Give one of the files")
    path = archives[0]
    if not _is_medmnist(path):
        problem = "has no train_images and train_labels as MedMNIST has"
        raise DatasetError(problem, str(path), "Save images one by one as .npy")
    parts = [split for split in SPLITS if f"{split}_images" in _names(path)]
    answers = {split: _labels(path, split) for split in parts}
    is_single = all(labels.ndim == 1 for labels in answers.values())
    if not is_single:
        _refuse_other_findings(answers, path)
    kind = "class" if is_single else "findings"
    numbers = [
        range(labels.shape[1]) if labels.ndim == 2 else np.unique(labels.astype(int)).tolist()
        for labels in answers.values()
    ]
    classes, called = class_labels.name_classes({str(number) for own in numbers for number in own}, folder, options)
    shown = SETS.get(re.sub(r"_\d+$", "", path.stem.lower()), "unknown")  # larger versions end in a size: _224
    modality = modality_words.modality_word(options.modality) if options.modality else shown
    rows = list[CaseRow]()
    for split in parts:
        for row, label in enumerate(answers[split]):
            cell = Cell((path,), "row", f"{split}_images/{row}", modality=modality)
            rows.append(CaseRow(f"{split}_{row:05d}", {"image": cell}, {kind: _answer(label, called)}, split=split))
    return Reading(tuple(rows), how=f"MedMNIST archive, {len(rows)} rows", classes={kind: classes})


def load_row(path: Path, name: str, row: int, modality: str, orientation: str | None = None) -> Image:
    """One image: (rows, columns), with a last axis of 3 as red, green, blue, or (planes, rows, columns)."""
    array = _array(path, path.stat().st_mtime_ns, name)[row]
    colour = array.shape[-1] == 3
    pixels = np.ascontiguousarray(np.moveaxis(array, -1, 0)) if colour else array[None]
    image = Image(
        pixels,
        Geometry.of_pixels(pixels.shape[1:]),
        modality=modality,
        channels=("R", "G", "B") if colour else ("0",),
        source=Source("numpy", (str(path),)),
    )
    return image if orientation is None else image.along(orientation)


@lru_cache(maxsize=8)  # three parts of images, and of another set
def _array(path: Path, modified: int, name: str) -> Array:
    del modified  # part of the key only
    array = numpy_file.load_array(path, name)
    array.setflags(write=False)
    return array


def _labels(path: Path, split: Split) -> Array:
    """(rows,) numbers of classes, or (rows, findings) 0 and 1 where a row can have several (ChestMNIST)."""
    labels = numpy_file.load_array(path, f"{split}_labels")
    images = _array(path, path.stat().st_mtime_ns, f"{split}_images")
    if len(labels) != len(images) or labels.ndim not in (1, 2) or not is_integer_or_bool(labels.dtype):
        raise DatasetError(f"{len(images)} {split} images have {labels.size} labels", str(path), "Get the file again")
    return labels if labels.ndim == 2 and labels.shape[1] > 1 else labels.reshape(-1)


def is_integer_or_bool(dtype: np.dtype) -> bool:
    """Whether values of this type are integers or truths."""
    return dtype.kind in "bui"


def _answer(label: Array, called: Mapping[str, str]) -> str | dict[str, bool]:
    """The class of a row, or which findings it has."""
    if label.ndim == 0:
        return called[str(int(label))]
    return {called[str(number)]: bool(present) for number, present in enumerate(label.tolist())}


def _refuse_other_findings(answers: Mapping[Split, Array], path: Path) -> None:
    widths = {labels.shape[1] if labels.ndim == 2 else 1 for labels in answers.values()}
    if len(widths) > 1:
        raise DatasetError(f"its parts have {sorted(widths)} labels an image", str(path), "Get the file again")
    if any(not np.isin(labels, (0, 1)).all() for labels in answers.values()):
        problem = f"each image has {widths.pop()} labels at once, and some are neither 0 nor 1"
        raise DatasetError(problem, str(path), "Give 1 where a finding is present and 0 where it is absent")


def _names(path: Path) -> frozenset[str]:
    try:
        with packed_files.open_zip(path) as archive:
            return frozenset(name.removesuffix(".npy") for name in archive.namelist())
    except (ValueError, OSError) as error:
        raise FormatError(f"is not a complete archive ({error})", str(path), "Get the file again") from error


def _archives(folder: Folder) -> list[Path]:
    paths = [member.path for member in folder.members if member.suffix == ".npz"]
    if not paths or folder.images:
        return []
    return [path for path in paths if zipfile.is_zipfile(path) and _is_medmnist(path)]


def _is_medmnist(path: Path) -> bool:
    return _names(path) >= {"train_images", "train_labels"}


EXAMPLE: Example = {"breastmnist.npz": (0, 1)}
LAYOUT = Layout("medmnist", "a MedMNIST archive", fits, read, example=EXAMPLE)
