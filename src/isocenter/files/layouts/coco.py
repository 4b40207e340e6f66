"""COCO: JSON files that list images, categories, and the boxes or outlines on them.

Lin et al., ECCV 2014, arXiv:1405.0312; https://cocodataset.org/#format-data
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from isocenter.errors import DatasetError
from isocenter.files.layouts.cases.boxes import Annotation, Drawn, Outline, Ring
from isocenter.files.layouts.cases.folder import Folder, Member
from isocenter.files.layouts.cases.join import part_named
from isocenter.files.layouts.cases.outlines import Listed, files_of_many, json_record, read_listed
from isocenter.files.layouts.layout import BY_NAMES, DatasetOptions, Layout, Reading
from isocenter.values import Split

KEYS = ("images", "annotations", "categories")
HEAD_BYTES = 1 << 16
# The instances of COCO's own training part take 0.45 GiB.
LARGEST_SET = 1 << 30
# Of a packed number: no picture has as many pixels.
LONGEST_RUN_BITS = 60


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """A JSON file that lists images and annotations, with images in the folder."""
    del options
    return bool(folder.images) and any(_is_coco(member.path) for member in _files(folder))


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """A case for each image that is listed; an image without a box is known to hold nothing.

    The files' names are those of parts of a split, where one of several is called train.
    Raises DatasetError, by file, for a damaged one, and for an image that two of them list.
    """
    files = [member for member in _files(folder) if _is_coco(member.path)]
    parts = _parts(files)
    listed = [entry for member in files for entry in listed_in(member.path, parts.get(member.path))]
    return read_listed(listed, folder, options, part="coco", what="COCO", usual="boxes", words=_words)


def listed_in(path: Path, split: Split | None = None) -> list[Listed]:
    """The images that a file lists, with their boxes and outlines in pixels from the corner of the first one."""
    record = _record(path)
    try:
        names = {_number(entry["id"]): str(entry["name"]) for entry in record["categories"]}
        boxes: dict[str, list[Drawn]] = {_number(entry["id"]): [] for entry in record["images"]}
        for entry in record["annotations"]:
            where = f"annotation {entry['id']}"
            image, category = _number(entry["image_id"]), _number(entry["category_id"])
            if image not in boxes or category not in names:
                what = "image" if image not in boxes else "category"
                problem = f"{where} is of {what} {entry[f'{what}_id']}, which is not listed"
                raise DatasetError(problem, str(path), "Correct it")
            boxes[image].append(_drawn(entry, names[category], where))
        if len(boxes) < len(record["images"]) or len(names) < len(record["categories"]):
            raise DatasetError("gives one number to two images or categories", str(path), "Number them anew")
        return [
            Listed(str(entry["file_name"]), Annotation(path, tuple(boxes[_number(entry["id"])]), _size(entry)), split)
            for entry in record["images"]
        ]
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        problem = f"is not a list of boxes or outlines in COCO's format ({type(error).__name__}: {error})"
        raise DatasetError(problem, str(path), "Correct it") from error


def _annotations(path: Path, settings: Mapping[str, str]) -> Mapping[str, Annotation]:
    del settings
    return {entry.name: entry.annotation for entry in listed_in(path)}


def _number(stated: Any) -> str:
    """The number of an image or category, which other programs write as text ("7") or with a point (7.0).

    Text with other characters, or with zeros before the number, stands for itself.
    """
    if isinstance(stated, bool) or not isinstance(stated, int | float | str):
        raise TypeError(f"{stated!r} numbers no image or category")
    return str(int(stated)) if isinstance(stated, float) and stated.is_integer() else str(stated).strip()


def _drawn(entry: Mapping[str, Any], name: str, where: str) -> Drawn:
    """One annotation; its box is that of its polygons where it states none."""
    ignored, stated = bool(int(entry.get("iscrowd") or 0)), entry.get("segmentation") or ()
    outline: Outline | None = None
    if isinstance(stated, Mapping):
        rows, columns = (int(number) for number in stated["size"])
        runs = _runs(stated["counts"])
        outline = Outline(runs=runs, size=(columns, rows)) if runs else None
    elif rings := [_ring(numbers) for numbers in stated if numbers]:
        outline = Outline(tuple(rings))
        if "bbox" not in entry:
            return replace(Drawn.around(name, rings, where), ignored=ignored)
    x, y, width, height = (float(number) for number in entry["bbox"])
    return Drawn(name, (x, y), (x + width, y + height), where, ignored, outline)


def _ring(numbers: Sequence[Any]) -> Ring:
    """The corners of a polygon, stated as x, y, x, y, ..."""
    coordinates = [float(number) for number in numbers]
    return tuple(zip(coordinates[::2], coordinates[1::2], strict=True))


def _runs(counts: Sequence[int] | str) -> tuple[int, ...]:
    """Lengths of runs, stated as numbers or packed into letters.

    Packed are five bits a letter from code 48, the lowest first, with 32 where more of the number follow and a sign in
    the last; from the fourth number on they are differences from the one before the last (`rleFrString` of
    https://github.com/cocodataset/cocoapi, common/maskApi.c).
    """
    if not isinstance(counts, str):
        return tuple(int(count) for count in counts)
    runs: list[int] = []
    number, shift = 0, 0
    for letter in counts:
        code = ord(letter) - 48
        if not 0 <= code < 64:
            raise ValueError(f"{letter!r} is no letter of packed runs")
        number |= (code & 31) << shift
        shift += 5
        if shift > LONGEST_RUN_BITS:
            raise ValueError("a run is longer than any picture")
        if code & 32:
            continue
        number -= (code & 16 > 0) << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number, shift = 0, 0
    return tuple(runs)


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    columns, rows = int(image.get("width") or 0), int(image.get("height") or 0)
    return (columns, rows) if columns and rows else None


def _record(path: Path) -> Mapping[str, Any]:
    record = json_record(path, LARGEST_SET)
    if not (isinstance(record, dict) and all(isinstance(record.get(key), list) for key in KEYS)):
        raise DatasetError(f"has no lists of {', '.join(KEYS)}", str(path), "Give annotations of instances")
    return record


def _files(folder: Folder) -> list[Member]:
    return [one for one in files_of_many(folder, ".json") if one.path.name != "dataset.json"]


def _is_coco(path: Path) -> bool:
    """Whether it is COCO, by its beginning, which names at least one list, or by all of a small file."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    named = [key for key in KEYS if re.search(rb'"' + key.encode() + rb'"\s*:\s*\[', head)]
    if len(head) < HEAD_BYTES:
        return len(named) == len(KEYS)
    return bool(named) and (b'"file_name"' in head or b'"bbox"' in head)


def _parts(files: Sequence[Member]) -> dict[Path, Split]:
    """{file: part of the split} from its name or its folder; nothing where none of several trains."""
    named = {
        member.path: part for member in files for part in [member.split or part_named(member.path)] if part is not None
    }
    return named if "train" in named.values() and len(set(named.values())) > 1 else {}


def _words(path: Path) -> list[str]:
    """The words of a name: of "instances_train2017.json" train2017, train, instances."""
    parts = re.split(r"[^A-Za-z0-9]+", path.stem.lower())
    both = [word for part in reversed(parts) for word in (part, part.rstrip("0123456789"))]
    return [word for word in dict.fromkeys(both) if word]


LAYOUT = Layout(
    "coco",
    "JSON files that list images and the boxes or outlines on them, as in COCO",
    fits,
    read,
    over=BY_NAMES,
    annotations=_annotations,
)
