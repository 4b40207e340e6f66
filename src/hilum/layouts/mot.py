"""MOTChallenge: a folder a clip, with images in `img1`, and `gt/gt.txt` that lists the box of each track in each frame.

Dendorfer et al., Int J Comput Vis 2021, doi:10.1007/s11263-020-01393-0. A line is
`frame,track,left,top,width,height,flag,class,visibility`; frames and pixels count from 1, and a flag of 0 is no object.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from hilum import errors
from hilum.errors import DatasetError
from hilum.layouts.cases import annotated_clips, annotation_files
from hilum.layouts.cases.annotated_boxes import AnnotatedBox, UnreadObject
from hilum.layouts.cases.annotated_clips import ListedClip
from hilum.layouts.cases.annotation_files import UNREADABLE, AnnotationFormat
from hilum.layouts.cases.dataset_folder import Folder
from hilum.layouts.layout import BY_NAMES, DatasetOptions, Example, Layout, Reading

FORMAT = AnnotationFormat("mot", "MOTChallenge")
TRUTH, IMAGES, NAMES = Path("gt") / "gt.txt", "img1", "labels.txt"
FEWEST_COLUMNS = 7
# What `class` is without a file of names and without the column.
OBJECT = "object"


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """A clip's folder with its truth and its images."""
    return bool(_truths(folder))


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """A case for each frame; a line that cannot be read makes the place of its object unknown.

    Raises DatasetError, by file, for one that is no text or counts frames from 0.
    """
    return annotated_clips.read_clips([_clip(path, folder) for path in _truths(folder)], folder, options, FORMAT)


def _truths(folder: Folder) -> list[Path]:
    clips = {member.path.parent.parent for member in folder.images if member.path.parent.name == IMAGES}
    return sorted(clip / TRUTH for clip in clips if (clip / TRUTH).is_file())


def _clip(path: Path, folder: Folder | None = None) -> ListedClip:
    root = path.parent.parent
    there = sorted((root / IMAGES).iterdir())
    images = {int(number[0]) - 1: one for one in there if (number := re.search(r"\d+(?=\.\w+$)", one.name))}
    split = next((one.split for one in folder.images if one.path.parent == root / IMAGES), None) if folder else None
    frames, unread = _frames(path, images)
    count = max([*images, *frames], default=-1) + 1
    return ListedClip(path, root.name, frames, count, images=images, split=split, unread=unread)


def _frames(
    path: Path, pictured: Collection[int]
) -> tuple[dict[int, tuple[AnnotatedBox, ...]], dict[int, list[UnreadObject]]]:
    """{frame from 0: its boxes}, and {frame from 0: its objects that cannot be read}.

    pictured: frames that have an image, on any of which an object may be whose frame cannot be read
    """
    named = path.parent / NAMES
    names = named.read_text(encoding="utf-8").split("\n") if named.is_file() else []
    with annotation_files.refuse_unreadable(path, "is no text ({})", "Get the file again"):
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    boxes_of = defaultdict[tuple[int, int], list[AnnotatedBox]](list)
    unread = defaultdict[int, list[UnreadObject]](list)
    lost = list[tuple[int | None, UnreadObject]]()
    for line, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        where, cells = f"line {line}", text.split(",")
        stated_frame = _whole_number(cells, 0)
        if stated_frame is not None and stated_frame < 1:
            raise DatasetError(f"{where} is of frame {stated_frame}", str(path), "Count frames from 1")
        try:
            box = _annotated_box(cells, names, where)
        except UNREADABLE as error:
            odd = _unread_object(cells, names, f"{where}: {errors.describe_cause(error)}")
            if stated_frame is None:
                lost.append((_whole_number(cells, 1), odd))
            else:
                unread[stated_frame - 1].append(odd)
        else:
            if box is not None and box.track is not None and stated_frame is not None:
                boxes_of[stated_frame - 1, box.track].append(box)
    boxes = defaultdict[int, list[AnnotatedBox]](list)
    for (frame, track), own in boxes_of.items():
        if len(own) == 1:
            boxes[frame] += own
            continue
        # One of them is another object, and nothing says which.
        words = f"is one of {len(own)} boxes of track {track} in frame {frame + 1}"
        unread[frame] += [UnreadObject.of_corners(f"{b.where} {words}", b.name, (b.low, b.high)) for b in own]
    for stated_track, odd in lost:
        for frame in pictured:
            if stated_track is None or (frame, stated_track) not in boxes_of:
                unread[frame].append(odd)
    return {frame: tuple(own) for frame, own in boxes.items()}, dict(unread)


def _annotated_box(cells: Sequence[str], names: Sequence[str], where: str) -> AnnotatedBox | None:
    """The object of a line; None where its flag says that it is none. ValueError for a cell that is no number."""
    if len(cells) < FEWEST_COLUMNS:
        raise ValueError(f"it has {len(cells)} of {FEWEST_COLUMNS} columns")
    left, top, width, height, flag = (float(cell) for cell in cells[2:FEWEST_COLUMNS])
    if not flag:
        return None
    _, track = (int(float(cell)) for cell in cells[:2])
    number = int(float(cells[7])) if len(cells) > FEWEST_COLUMNS else None
    low, high = (left - 1, top - 1), (left - 1 + width, top - 1 + height)
    return AnnotatedBox(_class_name(number, names), low, high, where, track=track)


def _unread_object(cells: Sequence[str], names: Sequence[str], words: str) -> UnreadObject:
    """What is known of a line that cannot be read: its class, and its box where all of that are numbers."""
    number = _whole_number(cells, FEWEST_COLUMNS)
    name = "" if number is None and len(cells) != FEWEST_COLUMNS else _class_name(number, names)
    with suppress(ValueError):
        left, top, width, height = (float(cell) for cell in cells[2:6])
        corners = (left - 1, top - 1), (left - 1 + width, top - 1 + height)
        return UnreadObject.of_corners(words, name, corners)
    return UnreadObject(words, name)


def _class_name(number: int | None, names: Sequence[str]) -> str:
    """The name of a class by its number, which counts from 1; no number, or none from 1 on, is the only class."""
    if number is None or number < 1:
        return OBJECT
    return (names[number - 1].strip() if number <= len(names) else str(number)) or OBJECT


def _whole_number(cells: Sequence[str], column: int) -> int | None:
    """The whole number in a cell; None where it is none, or there is no such cell."""
    with suppress(*UNREADABLE, IndexError):
        return int(float(cells[column]))
    return None


EXAMPLE: Example = {f"{clip}/img1/{n}.png": n for clip in ("first", "second") for n in (1, 2)} | {
    f"{clip}/gt/gt.txt": "1,7,3,4,8,6,1,1,1\n2,7,4,4,8,6,1,1,1\n" for clip in ("first", "second")
}
WHAT = "folders of clips with img1 and gt/gt.txt, as of MOTChallenge"
LAYOUT = Layout("mot", WHAT, fits, read, BY_NAMES, EXAMPLE, lambda path, settings: _clip(path).annotations)
