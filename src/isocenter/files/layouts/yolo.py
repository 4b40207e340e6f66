"""YOLO: a text file of boxes or outlines for each image, beside it or in `labels/` next to `images/`.

A line is a class number and the box's centre, width and height, or the corners of a polygon, as shares of the image's
width and height (Redmon et al., arXiv:1506.02640; the formats of darknet and Ultralytics). `data.yaml` names classes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from isocenter.errors import DatasetError, counted, listed
from isocenter.files.layouts.cases import (
    Annotation,
    Drawn,
    DrawnReferences,
    Folder,
    Key,
    Member,
    load_image,
    names_in,
    respelt,
    without_image,
)
from isocenter.files.layouts.image_folders import IMAGES, LABELS
from isocenter.files.layouts.layout import CaseFiles, DatasetOptions, Layout, Reading
from isocenter.files.modality import modality_word

SUFFIX = ".txt"
LINE = re.compile(r"\d+(?:\s+-?[\d.]+(?:e-?\d+)?){4,}\s*$", re.IGNORECASE)
NUMBERS = 5  # of a line: the class and four of the box
FEWEST_OF_OUTLINE = 7  # the class and three corners
# Files of class names: one a line, or the entry `names` of a YAML file.
NAME_LISTS, NAME_TABLES = ("classes.txt", "obj.names"), ("data.yaml", "dataset.yaml")
LARGEST = 1 << 20  # one image has some hundred boxes of forty letters


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """A text file with the name of an image whose first line is a class and a box."""
    del options
    if folder.is_file:
        return False
    images = {_key(member) for member in folder.images}
    texts = (member for key, member in _texts(folder, images) if key in images)
    return any(LINE.match(line) for member in texts if (line := _first_line(member.path)))


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """A case for each image; an empty file means that nothing is there, an image without a file is not labelled.

    Raises DatasetError, by file and line, for what is no box, and for a class without a name where others have one.
    """
    images = {_key(member): member for member in folder.images}
    texts = dict(_texts(folder, images))
    drawn = {key: annotation_of(texts[key].path) for key in images if key in texts}
    lost = [key.name for key, member in texts.items() if key not in images and _is_in_labels(member)]
    annotations = list(drawn.values())
    all_outlines = all(box.outline is not None for one in annotations for box in one.boxes)
    names = _stated_names(folder, options, names_in(annotations))
    made = DrawnReferences.of(annotations, "mask" if all_outlines else "boxes", folder, options, names)
    modality = modality_word(options.modality)
    cases = []
    for key, image in images.items():
        loader, own = partial(load_image, image.path, options.read, modality), drawn.get(key)
        references: dict[str, Callable[[], Any]] = {}
        if own is not None:
            references |= made.readers(own, loader)
        files = (image.path, *((own.path,) if own is not None and own.boxes else ()))  # an empty file is no damaged one
        name = "" if own is None else str([names.get(one, one) for one in sorted(names_in([own]))])
        cases.append(CaseFiles(key.name, {"image": loader}, references, files, name, key.split))
    return Reading(
        tuple(cases),
        how=f"YOLO: {made.counted(annotations)} on {counted(len(drawn), 'image')}",
        classes=made.classes,
        modality=modality,
        problems=(*without_image(lost), *made.notes(annotations)),
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
        name, numbers = str(int(cells[0])), [float(cell) for cell in cells[1:]]
        if len(cells) >= FEWEST_OF_OUTLINE and len(cells) % 2:
            corners = tuple(zip(numbers[::2], numbers[1::2], strict=True))
            boxes.append(Drawn.around(name, [corners], f"line {number}"))
            continue
        if len(cells) != NUMBERS:
            problem = f"line {number} has {len(cells)} numbers, a box {NUMBERS}, and an outline an odd number of them"
            raise DatasetError(problem, str(path), "Export boxes or outlines without scores")
        x, y, width, height = numbers
        low, high = (x - width / 2, y - height / 2), (x + width / 2, y + height / 2)
        boxes.append(Drawn(name, low, high, f"line {number}"))
    return Annotation(path, tuple(boxes), in_shares=True)


def _texts(folder: Folder, images: Iterable[Key]) -> list[tuple[Key, Member]]:
    """Text files under the keys of their images."""
    return respelt([(_key(member), member) for member in folder.members if member.suffix == SUFFIX], images)


def _key(member: Member) -> Key:
    """Without the folder of images or labels, which may be any on the way."""
    folders = tuple(name for name in member.folders if name.lower() not in IMAGES | LABELS)
    return Key(folders, member.stem, member.split)


def _is_in_labels(member: Member) -> bool:
    return any(name.lower() in LABELS for name in member.folders)


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.readline(LARGEST).strip()


def _stated_names(folder: Folder, options: DatasetOptions, numbers: set[str]) -> dict[str, str]:
    """{number: name} of the classes that are drawn, from a file of names; empty without one, or with --labels."""
    names = {} if options.labels is not None else _names(folder)
    if names and (unknown := sorted(numbers - set(names), key=int)):
        problem = f"gives no name to class {listed(unknown)}"
        raise DatasetError(
            problem, str(folder.root), "Complete data.yaml or classes.txt, or give --labels 0=NAME,1=NAME"
        )
    return {number: names[number] for number in sorted(numbers, key=int)} if names else {}


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
    "a text file of boxes or outlines for each image, as in YOLO",
    fits,
    read,
    over=frozenset({"plain_images", "class_folders", "image_folders", "suffix_masks", "case_folders"}),
)
