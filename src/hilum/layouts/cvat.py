"""CVAT for images and for video: an XML file that lists images, or tracks of a clip, with boxes, outlines and masks.

Version 1.1, https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/; coordinates are pixels from the corner
of the first one.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from hilum import errors
from hilum.errors import DatasetError
from hilum.files.storage import packed_files
from hilum.layouts import layout, voc
from hilum.layouts.cases import annotated_boxes, annotated_clips, annotation_files, stated_lists
from hilum.layouts.cases.annotated_boxes import AnnotatedBox, Annotation, Ring, UnreadObject
from hilum.layouts.cases.annotated_clips import ListedClip
from hilum.layouts.cases.annotation_files import UNREADABLE, AnnotatedFolder, AnnotationFormat, ListedImage
from hilum.layouts.cases.dataset_folder import Folder
from hilum.layouts.cases.names import SPLIT_WORDS
from hilum.layouts.layout import BY_NAMES, DatasetOptions, Example, Layout, Reading
from hilum.values import FactRule, Problem

# The number of a frame, at the end of its image's name.
LAST_NUMBER = re.compile(r"\d+$")
# Tags of whole images, and shapes that cover nothing.
FLAT = frozenset({"tag", "points", "polyline", "cuboid", "skeleton"})
OUTLINES = frozenset({"polygon", "mask", "ellipse"})
MARKS = ((b"<annotations", b"<image "), (b"<annotations", b"<track "))
FORMAT = AnnotationFormat("cvat", "CVAT", flat=FLAT)


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """An XML file of annotations with images or tracks, and images or a clip in the folder."""
    return bool(annotation_files.files_of_many(folder, ".xml", *MARKS))


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """A case for each image that is listed; where anything but boxes is annotated they are outlines, else boxes.

    Tracks are those of clips, of which each frame is a case.
    Raises DatasetError, by file, for a damaged one, and for an image that two of them list.
    """
    roots = {
        member.path: voc.parse_xml(member.path) for member in annotation_files.files_of_many(folder, ".xml", *MARKS)
    }
    tracked = [path for path, root in roots.items() if root.find("track") is not None]
    if tracked:
        clips = [_clip(path, roots[path], folder) for path in tracked]
        reading = annotated_clips.read_clips(clips, folder, options, replace(FORMAT, what="CVAT for video"))
        miscounts = list[Problem]()
        for clip in clips:
            if clip.images:
                source = f"size of {clip.path.name}"
                miscounts += stated_lists.count_problems(source, clip.count, len(clip.images), unit="frame")
        return replace(reading, problems=(*reading.problems, *miscounts))
    listed_in = {path: cvat_images(path, root) for path, root in roots.items()}
    listed = [entry for own in listed_in.values() for entry in own]
    kinds = Counter(shape.tag for root in roots.values() for image in root.iter("image") for shape in image)
    flat = sum(kinds[kind] for kind in FLAT)
    covered = errors.count_phrase(flat, "tag or shape covers", "tags or shapes cover")
    what, remedy = (
        f"{covered} nothing (points, lines, cuboids)",
        "Outline the objects, or export tags as a table of labels",
    )
    problems = [*layout.left_out_problem([path.name for path in roots] if flat else (), what, remedy, "warning")]
    for path, entries in listed_in.items():
        stated = _stated_count(roots[path])
        problems += stated_lists.count_problems(f"size of {path.name}", stated, len(entries), unit="listed image")
    form = FORMAT if OUTLINES & kinds.keys() else replace(FORMAT, usual="boxes")
    return AnnotatedFolder(folder, options, form).read_listed(listed, problems)


def _stated_count(root: Element) -> int | None:
    """The number of images that the tasks of a file state; None where one states none."""
    with suppress(ValueError):
        return sum(int(one.text or "") for one in root.iterfind(".//meta//size")) or None
    return None


def cvat_images(path: Path, root: Element) -> list[ListedImage]:
    """The images of a file; shapes of one label and one group are one object."""
    listed = []
    for image in root.iter("image"):
        name = image.get("name") or ""
        subset, task = image.get("subset") or "", image.get("task_id")
        problem, remedy = f"the size of image {name} cannot be read: {{}}", "Export it anew as CVAT for images 1.1"
        with annotation_files.refuse_unreadable(path, problem, remedy):
            size = (int(image.attrib["width"]), int(image.attrib["height"]))
        boxes, unread = _annotated_boxes(image, size, path)
        annotation = Annotation(path, tuple(boxes), size, unread=tuple(unread))
        source = f"task {task} of {path.name}" if task else path.name
        listed.append(ListedImage(name, annotation, SPLIT_WORDS.get(subset.lower()), subset, source))
    return listed


def _clip(path: Path, root: Element, folder: Folder) -> ListedClip:
    """The clip of a file, with its tracks on every frame; DatasetError for one whose frames are not counted."""
    try:
        columns, rows = (int(root.findtext(f".//original_size/{side}", "")) for side in ("width", "height"))
        count = int(root.findtext(".//meta//size", ""))
    except ValueError as error:
        problem = "does not state the number of frames and their size (meta: size, original_size)"
        raise DatasetError(problem, str(path), "Export it anew as CVAT for video 1.1") from error
    source = root.findtext(".//meta//source", "") or path.stem
    boxes, unread = defaultdict[int, list[AnnotatedBox]](list), defaultdict[int, list[UnreadObject]](list)
    for track in root.iter("track"):
        number = _track_number(track)
        for frame, made in _annotated_track(track, count, (columns, rows), path):
            if isinstance(made, UnreadObject):
                unread[frame].append(made)
            elif number is not None:
                boxes[frame].append(replace(made, track=number))
            elif (kept := annotated_clips.cut_to_image(made, (columns, rows))) is not None:
                words = f"{made.where}: the id of its track is no number"
                unread[frame].append(UnreadObject.of_corners(words, made.name, (kept.low, kept.high)))
    found = annotated_clips.clip_of(source, folder)
    images = {} if found else {int(n[0]): one.path for one in folder.images if (n := LAST_NUMBER.search(one.stem))}
    boxes_of = {frame: tuple(own) for frame, own in boxes.items()}
    clip, size = found.path if found else None, (columns, rows)
    return ListedClip(path, Path(source).stem, boxes_of, count, size, clip, images, unread=unread)


def _track_number(track: Element) -> int | None:
    """The number of a track; None where it states none."""
    with suppress(ValueError):
        return int(track.get("id") or "")
    return None


def _annotated_track(
    track: Element, count: int, size: tuple[int, int], path: Path
) -> Iterator[tuple[int, AnnotatedBox | UnreadObject]]:
    """(frame, the object) of a track; masks are those of their own frames.

    Where a shape cannot be read the place is unknown, up to the keyframes before and after it: the object moves from
    one to the other. Without the number of its frame it may be anywhere on all but the keyframes.
    """
    where, label = f"track {track.get('id')}", track.get("label") or ""
    rings, unread = dict[int, Ring | None](), dict[int, UnreadObject]()
    is_boxed, lost = False, None
    for shape in (one for one in track if one.tag not in FLAT):
        frame: int | None = None
        try:
            frame, name, is_outside = int(shape.attrib["frame"]), track.attrib["label"], shape.get("outside") == "1"
            if shape.tag == "mask":
                if not is_outside:
                    yield frame, AnnotatedBox.of_pixels(name, *_pixels(shape.attrib, path), size, where)
                continue
            rings[frame] = None if is_outside else _closed_ring(shape)
            is_boxed = shape.tag == "box" and not float(shape.get("rotation", 0))
        except UNREADABLE as error:
            words = f"{where}, {shape.tag} of frame {shape.get('frame')}: {errors.describe_cause(error)}"
            odd = UnreadObject.of_corners(words, label, _stated_corners(shape))
            if frame is None:
                lost = UnreadObject(words, label)
            elif shape.tag == "mask":
                yield frame, odd
            else:
                unread[frame] = odd
    if lost is not None:
        unread = {frame: lost for frame in range(count) if frame not in rings} | unread
    known, stated = dict(rings), sorted({*rings, *unread})
    for before, frame, after in zip([-1, *stated], stated, [*stated[1:], count], strict=False):
        if frame not in unread:
            continue
        first = before + 1 if rings.get(before) is not None else frame
        known[first] = None
        for unknown in range(first, after):
            yield unknown, unread[frame] if unknown == frame else UnreadObject(unread[frame].words, label)
    for frame, ring in annotated_clips.rings_between(known, count - 1):
        box = AnnotatedBox.around(label, [ring], f"{where}, frame {frame}")
        yield frame, replace(box, outline=None) if is_boxed else box


def _annotations(path: Path, settings: Mapping[str, str]) -> Mapping[str, Annotation]:
    root = voc.parse_xml(path)
    if root.find("track") is not None:
        return _clip(path, root, Folder(path.parent)).annotations
    return {entry.key: entry.annotation for entry in cvat_images(path, root)}


def _annotated_boxes(
    image: Element, size: tuple[int, int], path: Path
) -> tuple[list[AnnotatedBox], list[UnreadObject]]:
    """The objects that are annotated on one image, and those of which the shapes cannot be read."""
    boxes, unread = list[AnnotatedBox](), list[UnreadObject]()
    outlines: list[tuple[str, str | None, Ring, str]] = []
    for number, shape in enumerate(image, start=1):
        if shape.tag in FLAT:
            continue
        place, group = f"{shape.tag} {number}", shape.get("group_id")
        try:
            name = shape.attrib["label"]
            if shape.tag == "mask":
                boxes.append(AnnotatedBox.of_pixels(name, *_pixels(shape.attrib, path), size, place))
            else:
                outlines.append((name, group, _closed_ring(shape), place))
        except UNREADABLE as error:
            words = f"image {image.get('name')}, {place}: {errors.describe_cause(error)}"
            unread.append(UnreadObject.of_corners(words, shape.get("label") or "", _stated_corners(shape)))
    return [*boxes, *AnnotatedBox.in_groups(outlines)], unread


def _stated_corners(shape: Element) -> list[tuple[float, float]]:
    """The corners (x, y) of a shape, if all of them are numbers: of a mask those of its box; else none."""
    stated = shape.attrib
    with suppress(KeyError, ValueError):
        if shape.tag == "mask":
            x, y, width, height = (float(stated[key]) for key in ("left", "top", "width", "height"))
            return [(x, y), (x + width, y + height)]
        if shape.tag == "box":
            return [(float(stated["xtl"]), float(stated["ytl"])), (float(stated["xbr"]), float(stated["ybr"]))]
        pairs = (corner.split(",") for corner in stated["points"].split(";"))
        return [(float(x), float(y)) for x, y in pairs]
    return []


def _closed_ring(shape: Element) -> Ring:
    """The corners of a shape; ValueError for a kind that is not known, and for what encloses nothing."""
    ring = _ring(shape)
    AnnotatedBox.around("", [ring], "")
    return ring


def _ring(shape: Element) -> Ring:
    """The corners of a shape; ValueError for a kind that is not known."""
    numbers, turn = shape.attrib, math.radians(float(shape.get("rotation", 0)))
    match shape.tag:
        case "polygon":
            return tuple((float(x), float(y)) for x, y in (pair.split(",") for pair in numbers["points"].split(";")))
        case "box":
            x0, y0, x1, y1 = (float(numbers[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
            corners, centre = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)], ((x0 + x1) / 2, (y0 + y1) / 2)
            return annotated_boxes.turn_corners(corners, centre, turn)
        case "ellipse":
            x, y, across, down = (float(numbers[key]) for key in ("cx", "cy", "rx", "ry"))
            return annotated_boxes.ellipse_corners((x, y), (across, down), turn)
        case other:
            raise ValueError(f"a shape of the kind {other!r}")


def _pixels(mask: Mapping[str, str], path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """(rows, columns) of a mask and its corner (x, y): runs outside, inside, outside and so on, along its rows."""
    left, top, width, height = (int(mask[key]) for key in ("left", "top", "width", "height"))
    runs = [int(run) for run in mask["rle"].split(",")]
    if min(runs) < 0 or sum(runs) != width * height:
        raise ValueError(f"a mask of {width} x {height} has runs of {sum(runs)} pixels")
    packed_files.refuse_expansion(path.stat().st_size, width * height, str(path))
    inside = np.repeat([value for value, _ in zip(cycle((False, True)), runs, strict=False)], runs)
    return inside.reshape(height, width), (left, top)


EXAMPLE: Example = {f"images/a{n}.png": n for n in range(2)} | {
    "annotations.xml": "<annotations>\n"
    '<image name="a0.png" width="30" height="20"><polygon label="cyst" points="2,2;8,2;8,8"/></image>\n'
    '<image name="a1.png" width="30" height="20"/>\n</annotations>\n'
}
WHAT = "an XML file that lists images or tracks and what is annotated on them, as of CVAT"
FACTS = (FactRule("CVAT", "named", "a number of images (size) that its list or the frames contradict"),)
LAYOUT = Layout("cvat", WHAT, fits, read, BY_NAMES, EXAMPLE, _annotations, FACTS)
