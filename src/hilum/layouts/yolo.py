"""YOLO: a text file of boxes or outlines for each image, beside it or in `labels/` next to `images/`.

A line is a class number and the box's centre, width and height, or the corners of a polygon, as shares of the image's
width and height (Redmon et al., arXiv:1506.02640; the formats of darknet and Ultralytics). `data.yaml` names classes,
and states keypoints behind the box, which are left out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hilum import errors
from hilum.errors import DatasetError
from hilum.layouts.cases import mask_pairs, stated_lists
from hilum.layouts.cases.annotated_boxes import AnnotatedBox, Annotation, UnreadObject
from hilum.layouts.cases.annotation_files import AnnotatedFolder, AnnotationFormat
from hilum.layouts.cases.dataset_folder import Folder, FolderMember, Record
from hilum.layouts.cases.mask_pairs import PairKey
from hilum.layouts.cases.names import IMAGES, LABELS
from hilum.layouts.layout import BY_NAMES, AnnotationNames, DatasetOptions, Example, Layout, Reading
from hilum.values import FactRule, Problem

FORMAT, SUFFIX = AnnotationFormat("yolo", "YOLO"), ".txt"
LINE = re.compile(r"\d+(?:\s+-?[\d.]+(?:e-?\d+)?){4,}\s*$", re.IGNORECASE)
NUMBERS = 5  # of a line: the class and four of the box
FEWEST_OF_OUTLINE = 7  # the class and three corners
# Keypoints may lie so far outside their box, in shares of the image, and span so much of it in the median line.
INSIDE, FILLED, ROUNDING = 0.01, 0.5, 1e-3
FEWEST_TRACKED = 3
# Files of class names: one a line, or the entry `names` of a YAML file.
NAME_LISTS, NAME_TABLES = ("classes.txt", "obj.names"), ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
LARGEST = 1 << 20  # one image has some hundred boxes of forty letters


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """A text file with the name of an image whose first line is a class and a box."""
    if folder.is_file:
        return False
    images = {_key(member) for member in folder.images}
    texts = (member for key, member in _texts(folder, images) if key in images)
    return any(LINE.match(line) for member in texts if (line := _first_line(member.path)))


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """A case for each image; an empty file means that nothing is there, an image without a file is not labelled.

    A line that is no box, or whose class has no name where others have one, makes the place of its object unknown.
    Raises DatasetError where the names are of none of the classes that are annotated.
    """
    images = {_key(member): member for member in folder.images}
    texts = dict(_texts(folder, images))
    contents = {texts[key].path: read_yolo_text(texts[key].path) for key in images if key in texts}
    lines = {path: text.rows for path, text in contents.items()}
    points = _points_of(folder, lines)
    _refuse_tracks(lines, points)
    texts_of = {image.path: texts[key].path for key, image in images.items() if key in texts}
    numbers = {row.name for own in lines.values() for row in own}
    names = _stated_names(folder, options, numbers)
    owners = {image: yolo_annotation(path, contents[path], points, names) for image, path in texts_of.items()}
    of_labels = (key for key, member in texts.items() if any(name.lower() in LABELS for name in member.folders))
    lost = mask_pairs.missing_image_problem([key.name for key in of_labels if key not in images])
    boxes = [box for own in owners.values() for box in own.boxes]
    form = FORMAT if all(box.outline is not None for box in boxes) else replace(FORMAT, usual="boxes")
    cases = {image.path: key.name for key, image in images.items()}
    named = {one.path: (cases.get(one.path, one.name), one.split) for one in folder.images}
    problems = (*lost, *_point_notes(lines, points), *_class_count_problems(folder))
    reading = AnnotatedFolder(folder, options, form).read_owned(owners, named, names, problems)
    settings = {"points": f"{points.count}x{points.values}"} if points else {}
    if names and numbers - set(names):
        settings["classes"] = " ".join(names)
    return replace(reading, annotation_names=replace(reading.annotation_names or AnnotationNames(), settings=settings))


@dataclass(frozen=True)
class YoloRow:
    """A line of a file: the number of a class, and the numbers after it.

    is_tracked: whether the last of them is a whole number from 1, as that of a track, and the others are shares
    """

    name: str
    numbers: tuple[float, ...]
    where: str
    is_tracked: bool


@dataclass(frozen=True)
class YoloText:
    """The lines of a file.

    unread: those that are not a class number with a box
    """

    rows: tuple[YoloRow, ...]
    unread: tuple[UnreadObject, ...] = ()


def read_yolo_text(path: Path) -> YoloText:
    """The lines of a file. Raises DatasetError, by file, where it is no text or too long."""
    if path.stat().st_size > LARGEST:
        raise DatasetError("is larger than any list of boxes", str(path), "Give one file per image")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DatasetError("is not UTF-8 text", str(path), "Save it as UTF-8") from error
    rows, unread = list[YoloRow](), list[UnreadObject]()
    for number, line in enumerate(lines, start=1):
        if not (cells := line.split()):
            continue
        if not LINE.match(line.strip()):
            name = str(int(cells[0])) if cells[0].isdecimal() else ""
            unread.append(UnreadObject(f"line {number} is not a class number with a box: {line[:60]!r}", name))
            continue
        numbers = tuple(map(float, cells[1:]))
        is_tracked = cells[-1].isdecimal() and int(cells[-1]) > 0 and max(numbers[:-1]) <= 1 + ROUNDING
        rows.append(YoloRow(str(int(cells[0])), numbers, f"line {number}", is_tracked))
    return YoloText(tuple(rows), tuple(unread))


def yolo_annotation(path: Path, text: YoloText, points: Points | None, named: Collection[str] = ()) -> Annotation:
    """The boxes and outlines of a file, in shares of the image; of a box with keypoints the box.

    A line of another count of numbers, as predictions have, is not read.
    named: numbers of the classes that have a name, where the data set names any; an object without is of any class
    """
    boxes, unread = list[AnnotatedBox](), [*text.unread]
    for row in text.rows:
        try:
            box = _annotated_box(row, points)
        except ValueError as error:
            unread.append(UnreadObject(f"{row.where}: {error}", row.name))
            continue
        if named and row.name not in named:
            words = f"{row.where}: class {row.name} has no name"
            unread.append(UnreadObject.of_corners(words, "", (box.low, box.high)))
        else:
            boxes.append(box)
    return Annotation(path, tuple(boxes), in_shares=True, unread=tuple(unread))


def _annotations(path: Path, settings: Mapping[str, str]) -> Mapping[str, Annotation]:
    """The annotation of a file.

    points:  "17x3" where boxes have so many keypoints of so many numbers
    classes: "0 2" where only these have names, of several that are annotated
    """
    count, _, values = settings.get("points", "").partition("x")
    points = Points(int(count), int(values)) if count else None
    named = settings.get("classes", "").split()
    return {"": yolo_annotation(path, read_yolo_text(path), points, named)}


def _annotated_box(row: YoloRow, points: Points | None) -> AnnotatedBox:
    """The box or outline of a line; ValueError for one of another count of numbers."""
    count = 1 + len(row.numbers)
    if count == NUMBERS or (points and count == points.numbers):
        x, y, width, height = row.numbers[: NUMBERS - 1]
        return AnnotatedBox(row.name, (x - width / 2, y - height / 2), (x + width / 2, y + height / 2), row.where)
    if points is None and count >= FEWEST_OF_OUTLINE and count % 2:
        return AnnotatedBox.around(row.name, [tuple(zip(row.numbers[::2], row.numbers[1::2], strict=True))], row.where)
    others = f"with {points} {points.numbers}" if points else "an outline an odd number of them"
    raise ValueError(f"{count} numbers, a box has {NUMBERS}, and {others}: a score or a track may be one too many")


@dataclass(frozen=True)
class Points:
    """Keypoints that stand behind each box.

    count:  of points
    values: of each: x and y, and whether it is visible where there are three
    """

    count: int
    values: int

    @property
    def numbers(self) -> int:
        """The numbers of a line."""
        return NUMBERS + self.count * self.values

    def __str__(self) -> str:
        return f"kpt_shape [{self.count}, {self.values}]"


def _points_of(folder: Folder, rows: Mapping[Path, Sequence[YoloRow]]) -> Points | None:
    """The keypoints that `kpt_shape` of a YAML file states.

    Raises DatasetError for another value, and where nothing is stated and every line has a box with points in it.
    """
    for path, stated in _yaml_files(folder):
        if "kpt_shape" in stated:
            shape = stated["kpt_shape"]
            if not shape:
                return None
            if isinstance(shape, list) and len(shape) == 2 and isinstance(shape[0], int) and shape[1] in (2, 3):
                return Points(shape[0], shape[1])
            raise DatasetError(f"kpt_shape is {shape!r}", str(path), "Write [number of points, 2 or 3]")
    each = [row for own in rows.values() for row in own]
    if likely := next((points for values in (3, 2) if (points := _likely_points(each, values))), None):
        problem = f"every line has a box and {likely.count} points in it, as keypoints, which no data.yaml states"
        remedy = f"Write kpt_shape: [{likely.count}, {likely.values}] into data.yaml, or kpt_shape: null for outlines"
        raise DatasetError(problem, str(folder.root), remedy)
    return None


def _likely_points(rows: Sequence[YoloRow], values: int) -> Points | None:
    """The keypoints that all lines seem to have: so many numbers, and points that lie in the box and fill most of it.

    Corners of an outline taken for a box lie in it by chance, and fill little of it.
    """
    lengths = {len(row.numbers) for row in rows}
    count, rest = divmod(min(lengths, default=0) - NUMBERS + 1, values)
    if len(lengths) != 1 or rest or count < 2:
        return None
    each = np.array([row.numbers for row in rows])
    points, size = each[:, 4:].reshape(len(each), count, values), each[:, None, 2:4]
    seen = points[..., 2] > 0 if values == 3 else np.ones(points.shape[:2], dtype=bool)
    if values == 3 and not np.isin(points[..., 2], (0, 1, 2)).all():
        return None
    apart = np.where(seen[..., None], points[..., :2] - each[:, None, :2], 0.0)
    if (size <= 0).any() or (np.abs(apart) > size / 2 + INSIDE).any():
        return None
    filled = np.ptp(apart, axis=1) / size[:, 0]
    return Points(count, values) if (np.median(filled, axis=0) >= FILLED).all() else None


def _refuse_tracks(rows: Mapping[Path, Sequence[YoloRow]], points: Points | None) -> None:
    """DatasetError where every line that may be an outline ends in the number of a track, as a tracker's results do."""
    known = {NUMBERS, *([points.numbers] if points else ())}
    longer = [(path, row) for path, own in rows.items() for row in own if 1 + len(row.numbers) not in known]
    last = {row.numbers[-1] for _, row in longer}
    # That of a single object is 1 throughout, and corners at the border are 1 too: these are seldom the last of all.
    are_alike = len(longer) >= FEWEST_TRACKED and all(len(row.numbers) == NUMBERS + 1 for _, row in longer)
    is_several = max(last, default=0) > 1 or are_alike
    if is_several and all(row.is_tracked for _, row in longer):
        path, row = longer[0]
        problem = f"{row.where} ends in the number of a track, {row.numbers[-1]:g}, as all of {len(longer)} lines do"
        problem += ": those are predictions of a tracker, and no references"
        raise DatasetError(problem, str(path), "Give what people annotated")


def _point_notes(rows: Mapping[Path, Sequence[YoloRow]], points: Points | None) -> Iterator[Problem]:
    """The note that keypoints are left out."""
    count = sum(points is not None and 1 + len(row.numbers) == points.numbers for own in rows.values() for row in own)
    if points and count:
        boxes = errors.count_phrase(count, "box", "boxes")
        what = f"{boxes} have {points.count} keypoints each ({points}), which are left out"
        yield Problem("note", what, why="keypoints are no kind of reference")


def _texts(folder: Folder, images: Iterable[PairKey]) -> list[tuple[PairKey, FolderMember]]:
    """Text files under the keys of their images."""
    texts = [(_key(member), member) for member in folder.members if member.suffix == SUFFIX]
    return mask_pairs.match_letter_case(texts, images)


def _key(member: FolderMember) -> PairKey:
    """Without the folder of images or labels, which may be any on the way."""
    folders = tuple(name for name in member.folders if name.lower() not in IMAGES | LABELS)
    return PairKey(folders, member.stem, member.split)


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.readline(LARGEST).strip()


def _stated_names(folder: Folder, options: DatasetOptions, numbers: set[str]) -> dict[str, str]:
    """{number: name} of the classes that are annotated, from a file of names; empty without one, or with --labels.

    Raises DatasetError where it names none of them: it is then of another data set.
    """
    names = {} if options.labels is not None else _names(folder)
    unnamed = sorted(numbers.difference(names), key=int)
    if names and numbers and len(unnamed) == len(numbers):
        problem = f"gives no name to class {errors.list_phrase(unnamed)}"
        remedy = "Complete data.yaml or classes.txt, or give --labels 0=NAME,1=NAME"
        raise DatasetError(problem, str(folder.root), remedy)
    return {number: names[number] for number in sorted(numbers.intersection(names), key=int)}


def _class_count_problems(folder: Folder) -> Iterator[Problem]:
    """The warning that a YAML file states another number of classes than it names."""
    for path, stated in _yaml_files(folder):
        names = stated.get("names")
        if isinstance(names, list | Mapping):
            named = f"nc of {path.name}", stated.get("nc"), len(names)
            yield from stated_lists.count_problems(*named, unit="name of a class")


def _names(folder: Folder) -> dict[str, str]:
    """{number: name of the class}; empty where no file names them."""
    for _, stated in _yaml_files(folder):
        names = stated.get("names")
        listed_names = dict(enumerate(names)) if isinstance(names, list) else names
        if isinstance(listed_names, Mapping):
            return {str(number): str(name) for number, name in listed_names.items()}
    for path in (folder.root / name for name in NAME_LISTS):
        if path.is_file() and path.stat().st_size <= LARGEST:
            text = path.read_text(encoding="utf-8-sig", errors="replace")
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            return {} if any("," in line for line in lines) else {str(n): line for n, line in enumerate(lines)}
    return {}


def _yaml_files(folder: Folder) -> Iterator[tuple[Path, Record]]:
    """The YAML files beside the data, and what they state."""
    for file in NAME_TABLES:
        path = folder.root / file
        if path.is_file() and path.stat().st_size <= LARGEST:
            yield path, _load_yaml(path)


def _load_yaml(path: Path) -> Record:
    """The mapping in a YAML file; DatasetError where it is damaged."""
    try:
        stated = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8-sig", errors="replace"))
    except YAMLError as error:
        raise DatasetError("is not YAML", str(path), "Correct or remove it") from error
    return stated if isinstance(stated, Mapping) else {}


EXAMPLE: Example = (
    {f"images/a{n}.png": n for n in range(3)}
    | {f"labels/a{n}.txt": "0 0.25 0.3 0.3 0.1 0.2 0.3 0.3 0.35\n" * (n > 0) for n in range(3)}
    | {"data.yaml": "names: [red, white]\nkpt_shape: [2, 2]\n"}
)
WHAT = "a text file of boxes or outlines for each image, as in YOLO"
FACTS = (
    FactRule("YAML of YOLO", "read", "names of classes, form of keypoints"),
    FactRule("YAML of YOLO", "named", "a number of classes (nc) that its names contradict"),
    FactRule("YAML of YOLO", "named", "objects of a class that has no name"),
    FactRule("YAML of YOLO", "refused", "names of none of the classes that are annotated"),
)
LAYOUT = Layout("yolo", WHAT, fits, read, BY_NAMES, EXAMPLE, _annotations, FACTS)
