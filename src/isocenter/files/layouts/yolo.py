"""YOLO: a text file of boxes for each image, beside it or in `labels/` next to `images/`; `data.yaml` names classes.

A line is a class number and the box's centre, width and height as shares of the image's width and height
(Redmon et al., arXiv:1506.02640; the format of darknet and Ultralytics).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from isocenter.errors import DatasetError, counted, listed
from isocenter.files.layouts.cases import (
    Annotation,
    Drawn,
    Folder,
    Key,
    Member,
    load_boxes,
    load_image,
    name_classes,
    names_in,
    numbered_names,
    without_image,
)
from isocenter.files.layouts.image_folders import IMAGES, LABELS
from isocenter.files.layouts.layout import CaseFiles, DatasetOptions, Layout, Reading
from isocenter.files.modality import modality_word
from isocenter.values import BoundingBoxes, Image, Label

SUFFIX = ".txt"
LINE = re.compile(r"\d+(?:\s+-?[\d.]+(?:e-?\d+)?){4,}\s*$", re.IGNORECASE)
NUMBERS = 5  # of a line: the class and four of the box
# Files of class names: one a line, or the entry `names` of a YAML file.
NAME_LISTS, NAME_TABLES = ("classes.txt", "obj.names"), ("data.yaml", "dataset.yaml")
LARGEST = 1 << 20  # one image has some hundred boxes of forty letters
# Shares are rounded: an edge may lie so far outside.
ROUNDING = 1e-3


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """A text file with the name of an image whose first line is a class and a box."""
    del options
    if folder.is_file:
        return False
    images = {_key(member) for member in folder.images}
    texts = (member for member in folder.members if member.suffix == SUFFIX and _key(member) in images)
    return any(LINE.match(line) for member in texts if (line := _first_line(member.path)))


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """A case for each image; an empty file means that nothing is there, an image without a file is not labelled.

    Raises DatasetError, by file and line, for what is no box, and for a class without a name where others have one.
    """
    texts = {_key(member): member for member in folder.members if member.suffix == SUFFIX}
    images = {_key(member): member for member in folder.images}
    drawn = {key: annotation_of(texts[key].path) for key in images if key in texts}
    lost = [key.name for key, member in texts.items() if key not in images and _is_in_labels(member)]
    classes, called = _classes(folder, options, names_in(list(drawn.values())))
    modality = modality_word(options.modality)
    cases = []
    for key, image in images.items():
        loader, own = partial(load_image, image.path, options.read, modality), drawn.get(key)
        references: dict[str, Callable[[], Any]] = {}
        if own is not None:
            references["boxes"] = partial(load_shares, own, called, loader)
        files = (image.path, *((own.path,) if own is not None and own.boxes else ()))  # an empty file is no damaged one
        name = "" if own is None else str([called[one] for one in sorted(names_in([own]))])
        cases.append(CaseFiles(key.name, {"image": loader}, references, files, name, key.split))
    boxes = sum(len(annotation.boxes) for annotation in drawn.values())
    return Reading(
        tuple(cases),
        how=f"YOLO: {counted(boxes, 'box', 'boxes')} on {counted(len(drawn), 'image')}",
        classes={"boxes": classes},
        modality=modality,
        problems=tuple(without_image(lost)),
    )


def annotation_of(path: Path) -> Annotation:
    """The boxes of a file, in shares of the image."""
    if path.stat().st_size > LARGEST:
        raise DatasetError("is larger than any list of boxes", str(path), "Give one file per image")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DatasetError("is not UTF-8 text", str(path), "Save it as UTF-8") from error
    boxes = []
    for number, line in enumerate(lines, start=1):
        if not (cells := line.split()):
            continue
        if not LINE.match(line.strip()):
            problem = f"line {number} is not a class number with a box: {line[:60]!r}"
            raise DatasetError(problem, str(path), "Write class, centre x, centre y, width, height")
        if len(cells) != NUMBERS:
            problem = f"line {number} has {len(cells)} numbers, and a box {NUMBERS}: it is an outline, or a prediction"
            raise DatasetError(problem, str(path), "Export boxes without scores; outlines as masks for segmentation")
        x, y, width, height = (float(cell) for cell in cells[1:])
        low, high = (x - width / 2, y - height / 2), (x + width / 2, y + height / 2)
        boxes.append(Drawn(str(int(cells[0])), low, high, f"line {number}"))
    return Annotation(path, tuple(boxes))


def load_shares(annotation: Annotation, called: Mapping[str, str], image: Callable[[], Image]) -> BoundingBoxes:
    """The boxes in voxels on their image's axes.

    Raises DatasetError, by file and line, for a box that does not lie within the image.
    """
    seen = image()
    rows, columns = seen.geometry.shape[:2] if seen.geometry.is_picture else seen.geometry.shape[1::-1]
    scaled = []
    for box in annotation.boxes:
        if min(box.low) < -ROUNDING or max(box.high) > 1 + ROUNDING:
            problem = f"{box.where} reaches from {box.low} to {box.high} of the image"
            raise DatasetError(problem, str(annotation.path), "Write shares of the image's width and height, 0 to 1")
        low, high = ((min(max(x, 0.0), 1.0) * columns, min(max(y, 0.0), 1.0) * rows) for x, y in (box.low, box.high))
        scaled.append(replace(box, low=low, high=high))
    return load_boxes(replace(annotation, boxes=tuple(scaled)), called, lambda: seen)


def _key(member: Member) -> Key:
    """Without the folder of images or labels, which may be any on the way."""
    folders = tuple(name for name in member.folders if name.lower() not in IMAGES | LABELS)
    return Key(folders, member.stem, member.split)


def _is_in_labels(member: Member) -> bool:
    return any(name.lower() in LABELS for name in member.folders)


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.readline(LARGEST).strip()


def _classes(folder: Folder, options: DatasetOptions, numbers: set[str]) -> tuple[tuple[Label, ...], dict[str, str]]:
    """The classes that are drawn, and {number: name}: from --labels, else from a file of names in the folder."""
    names = {} if options.labels is not None else _names(folder)
    if not names:
        return name_classes(numbers, folder, options)
    if unknown := sorted(numbers - set(names), key=int):
        problem = f"gives no name to class {listed(unknown)}"
        raise DatasetError(
            problem, str(folder.root), "Complete data.yaml or classes.txt, or give --labels 0=NAME,1=NAME"
        )
    called = {number: names[number] for number in sorted(numbers, key=int)}
    return numbered_names(called.values()), called


def _names(folder: Folder) -> dict[str, str]:
    """{number: name of the class}; empty where no file names them."""
    for file in (*NAME_TABLES, *NAME_LISTS):
        path = folder.root / file
        if not path.is_file() or path.stat().st_size > LARGEST:
            continue
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        if file in NAME_LISTS:
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            return {} if any("," in line for line in lines) else {str(n): line for n, line in enumerate(lines)}
        try:
            stated = YAML(typ="safe", pure=True).load(text)
        except YAMLError as error:
            raise DatasetError("is not YAML", str(path), "Correct or remove it") from error
        names = stated.get("names") if isinstance(stated, Mapping) else None
        listed_names = dict(enumerate(names)) if isinstance(names, list) else names
        if isinstance(listed_names, Mapping):
            return {str(number): str(name) for number, name in listed_names.items()}
    return {}


LAYOUT = Layout(
    "yolo",
    "a text file of boxes for each image, as in YOLO",
    fits,
    read,
    over=frozenset({"plain_images", "class_folders", "image_folders", "suffix_masks", "case_folders"}),
)
