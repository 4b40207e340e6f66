"""COCO: JSON files that list images, categories, and the boxes or outlines on them.

Lin et al., ECCV 2014, arXiv:1405.0312; https://cocodataset.org/#format-data
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hilum import errors
from hilum.errors import DatasetError
from hilum.layouts import layout
from hilum.layouts.cases import annotation_files, table_join
from hilum.layouts.cases.annotated_boxes import AnnotatedBox, Annotation, Outline, Ring, UnreadObject
from hilum.layouts.cases.annotation_files import UNREADABLE, AnnotatedFolder, AnnotationFormat, ListedImage
from hilum.layouts.cases.dataset_folder import Folder, FolderMember, Record
from hilum.layouts.layout import BY_NAMES, DatasetOptions, Example, Layout, Reading
from hilum.values import FactRule, Problem, Split

FORMAT = AnnotationFormat("coco", "COCO", "boxes")
KEYS = ("images", "annotations", "categories")
HEAD_BYTES = 1 << 16
# The instances of COCO's own training part take 0.45 GiB.
LARGEST_SET = 1 << 30
# Of a packed number: no picture has as many pixels.
LONGEST_RUN_BITS = 60


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """A JSON file that lists images and annotations, with images in the folder."""
    return bool(folder.images) and any(_is_coco(member.path) for member in _files(folder))


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """A case for each image that is listed; an image without a box is known to hold nothing.

    The files' names are those of parts of a split, where one of several is called train.
    Lists of keypoints, panoptic segments or captions beside those of instances are named, and not read.
    Raises DatasetError, by file, for a damaged one, and for an image that two of them list.
    """
    files = [member for member in _files(folder) if _is_coco(member.path)]
    records = {member.path: _record(member.path) for member in files}
    kinds = {path: _kind(record) for path, record in records.items()}
    aside = [path.name for path, kind in kinds.items() if kind and "" in kinds.values()]
    read_from = [member for member in files if member.path.name not in aside]
    parts = _parts(read_from)
    contents = [_entries(records[one.path], one.path, parts.get(one.path)) for one in read_from]
    listed_images = [entry for entries, _ in contents for entry in entries]
    reading = AnnotatedFolder(folder, options, FORMAT).read_listed(listed_images, words=_words)
    problems, lost = [*reading.problems], [fault for _, faults in contents for fault in faults]
    if aside:
        others = f"{errors.list_phrase(aside)} {'lists' if len(aside) == 1 else 'list'}"
        what, why = f"{others} keypoints, panoptic segments or captions", "instances are read, and these are not"
        problems.append(Problem("note", what, why=why))
    without, remedy = f"no image ({errors.list_phrase(lost)})", "Correct them, or add the images"
    unlisted = layout.left_out_problem(lost, ("annotation has", "annotations have", without), remedy, "warning")
    return replace(reading, problems=(*problems, *unlisted))


def _kind(record: Record) -> str:
    """What a list states beside boxes and outlines, by its first annotation; empty of instances."""
    first = next((one for one in record["annotations"] if isinstance(one, dict)), {})
    return next((key for key in ("segments_info", "keypoints", "caption") if key in first), "")


def _entries(record: Record, path: Path, split: Split | None) -> tuple[list[ListedImage], list[str]]:
    """The images of a list, and its annotations of images that it does not list, in words."""
    if _kind(record) == "segments_info":
        problem = "holds panoptic segments, whose pixels lie in pictures beside it"
        raise DatasetError(problem, str(path), "Give the list of instances, or the pictures as masks")
    lost, problem = list[str](), "is not a list of boxes or outlines in COCO's format ({})"
    with annotation_files.refuse_unreadable(path, problem, "Correct it"):
        names = {_number(entry["id"]): str(entry["name"]) for entry in record["categories"]}
        boxes: dict[str, list[AnnotatedBox]] = {_number(entry["id"]): [] for entry in record["images"]}
        unread: dict[str, list[UnreadObject]] = {image: [] for image in boxes}
        for place, entry in enumerate(record["annotations"], start=1):
            where = f"annotation {entry.get('id', place) if isinstance(entry, dict) else place}"
            image = _image_of(entry)
            if image not in boxes:
                lost.append(f"{where} is of image {image or 'without a number'}, which is not listed")
                continue
            try:
                boxes[image].append(_annotated_box(entry, names, where))
            except UNREADABLE as error:
                unread[image].append(_unread_object(entry, names, f"{where}: {errors.describe_cause(error)}"))
        if len(boxes) < len(record["images"]) or len(names) < len(record["categories"]):
            raise DatasetError("gives one number to two images or categories", str(path), "Number them anew")
        clips = {_number(one["id"]): str(one.get("name") or one["id"]) for one in record.get("videos") or ()}
        found = list[ListedImage]()
        for entry in record["images"]:
            number, size = _number(entry["id"]), annotation_files.stated_size(entry.get("width"), entry.get("height"))
            annotation = Annotation(path, tuple(boxes[number]), size, unread=tuple(unread[number]))
            clip = clips.get(of_clip := _number(entry["video_id"]), of_clip) if "video_id" in entry else ""
            found.append(ListedImage(str(entry["file_name"]), annotation, split, clip=clip))
    if lost and len(lost) == len(record["annotations"]):
        raise DatasetError(lost[0], str(path), "Correct it")
    return found, lost


def _number(stated: Any) -> str:
    """The number of an image or category, which other programs write as text ("7") or with a point (7.0).

    Text with other characters, or with zeros before the number, stands for itself.
    """
    if isinstance(stated, bool) or not isinstance(stated, int | float | str):
        raise TypeError(f"{stated!r} numbers no image or category")
    return str(int(stated)) if isinstance(stated, float) and stated.is_integer() else str(stated).strip()


def _image_of(entry: Any) -> str:
    """The number of an annotation's image; empty where it states none."""
    try:
        return _number(entry["image_id"])
    except (KeyError, TypeError):
        return ""


def _unread_object(entry: Any, names: Mapping[str, str], words: str) -> UnreadObject:
    """What is known of an annotation that cannot be read: its class, and its box or the corners that are numbers."""
    if not isinstance(entry, Mapping):
        return UnreadObject(words)
    name = ""
    with suppress(*UNREADABLE):
        name = names.get(_number(entry["category_id"]), "")
    with suppress(*UNREADABLE):
        x, y, width, height = (float(number) for number in entry["bbox"])
        return UnreadObject.of_corners(words, name, [(x, y), (x + width, y + height)])
    return UnreadObject(words, name)


def _annotated_box(entry: Record, names: Mapping[str, str], where: str) -> AnnotatedBox:
    """One annotation; its box is that of its polygons where it states none."""
    category = _number(entry["category_id"])
    if category not in names:
        raise ValueError(f"its category {category} is not listed")
    name, track = names[category], entry.get("track_id", entry.get("instance_id"))
    track = None if track is None else int(track)
    ignored, stated = bool(int(entry.get("iscrowd") or 0)), entry.get("segmentation") or ()
    outline: Outline | None = None
    if isinstance(stated, Mapping):
        rows, columns = (int(number) for number in stated["size"])
        runs = _runs(stated["counts"])
        outline = Outline(runs=runs, size=(columns, rows)) if runs else None
    elif rings := [_ring(numbers) for numbers in stated if numbers]:
        outline = Outline(tuple(rings))
        if "bbox" not in entry:
            return replace(AnnotatedBox.around(name, rings, where), ignored=ignored, track=track)
    if len(numbers := [float(number) for number in entry["bbox"]]) != 4 or not np.isfinite(numbers).all():
        raise ValueError("its box is not four numbers")
    x, y, width, height = numbers
    return AnnotatedBox(name, (x, y), (x + width, y + height), where, ignored, outline, track)


def _ring(numbers: Sequence[Any]) -> Ring:
    """The corners of a polygon, stated as x, y, x, y, ..."""
    coordinates = [float(number) for number in numbers]
    if len(coordinates) % 2:
        raise ValueError(f"its outline has {len(coordinates)} numbers, which are no pairs")
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


def _record(path: Path) -> Record:
    record = annotation_files.json_record(path, LARGEST_SET)
    if not (isinstance(record, dict) and all(isinstance(record.get(key), list) for key in KEYS)):
        raise DatasetError(f"has no lists of {', '.join(KEYS)}", str(path), "Give annotations of instances")
    return record


def _files(folder: Folder) -> list[FolderMember]:
    return [one for one in annotation_files.files_of_many(folder, ".json") if one.path.name != "dataset.json"]


def _is_coco(path: Path) -> bool:
    """Whether it is COCO, by its beginning, which names at least one list, or by all of a small file."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    named = [key for key in KEYS if re.search(rb'"' + key.encode() + rb'"\s*:\s*\[', head)]
    if len(head) < HEAD_BYTES:
        return len(named) == len(KEYS)
    return bool(named) and (b'"file_name"' in head or b'"bbox"' in head)


def _parts(files: Sequence[FolderMember]) -> dict[Path, Split]:
    """{file: part of the split} from its name or its folder; nothing where none of several trains."""
    stated = {member.path: member.split or table_join.part_in_name(member.path) for member in files}
    named = {path: part for path, part in stated.items() if part is not None}
    return named if "train" in named.values() and len(set(named.values())) > 1 else {}


def _words(path: Path) -> list[str]:
    """The words of a name: of "instances_train2017.json" train2017, train, instances."""
    parts = re.split(r"[^A-Za-z0-9]+", path.stem.lower())
    both = [word for part in reversed(parts) for word in (part, part.rstrip("0123456789"))]
    return [word for word in dict.fromkeys(both) if word]


EXAMPLE: Example = {f"images/a{n}.png": n for n in range(2)} | {
    "instances.json": '{"categories": [{"id": 1, "name": "cell"}],\n'
    '"images": [{"id": 0, "file_name": "a0.png"}, {"id": 1, "file_name": "a1.png"}],\n'
    '"annotations": [{"id": 0, "image_id": 0, "category_id": 1, "iscrowd": 0, "bbox": [2, 2, 6, 6],\n'
    '"segmentation": [[2, 2, 8, 2, 8, 8]]}]}'
}
WHAT = "JSON files that list images and the boxes or outlines on them, as in COCO"
FACTS = (
    FactRule("COCO", "read", "boxes, outlines with holes, packed runs, crowds, clips, parts by the file's name"),
    FactRule("COCO", "named", "images of its list that are not there, and images that it does not list"),
    FactRule("COCO", "named", "annotations of images that it does not list"),
    FactRule("COCO", "named", "lists of keypoints, panoptic segments or captions beside"),
    FactRule("COCO", "refused", "an image in two lists, a number of two images or categories"),
)


def _of_file(path: Path, settings: Mapping[str, str]) -> Mapping[str, Annotation]:
    return {one.name: one.annotation for one in _entries(_record(path), path, None)[0]}


LAYOUT = Layout("coco", WHAT, fits, read, BY_NAMES, EXAMPLE, _of_file, FACTS)
