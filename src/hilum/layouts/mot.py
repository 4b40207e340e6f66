"""MOTChallenge: a folder a clip, with images in `img1`, and `gt/gt.txt` that lists the box of each track in each frame.

Dendorfer et al., Int J Comput Vis 2021, doi:10.1007/s11263-020-01393-0. A line is
`frame,track,left,top,width,height,flag,class,visibility`; frames and pixels count from 1, and a flag of 0 is no object.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from pathlib import Path

from hilum.errors import DatasetError
from hilum.layouts.cases import annotated_clips, annotation_files
from hilum.layouts.cases.annotated_boxes import AnnotatedBox
from hilum.layouts.cases.annotated_clips import ListedClip
from hilum.layouts.cases.annotation_files import AnnotationFormat
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
    """A case for each frame. Raises DatasetError, by file and line, for one that cannot be read."""
    return annotated_clips.read_clips([_clip(path, folder) for path in _truths(folder)], folder, options, FORMAT)


def _truths(folder: Folder) -> list[Path]:
    clips = {member.path.parent.parent for member in folder.images if member.path.parent.name == IMAGES}
    return sorted(clip / TRUTH for clip in clips if (clip / TRUTH).is_file())


def _clip(path: Path, folder: Folder | None = None) -> ListedClip:
    root = path.parent.parent
    there = sorted((root / IMAGES).iterdir())
    images = {int(number[0]) - 1: one for one in there if (number := re.search(r"\d+(?=\.\w+$)", one.name))}
    split = next((one.split for one in folder.images if one.path.parent == root / IMAGES), None) if folder else None
    frames = _frames(path)
    return ListedClip(path, root.name, frames, max([*images, *frames], default=-1) + 1, images=images, split=split)


def _frames(path: Path) -> dict[int, tuple[AnnotatedBox, ...]]:
    """{frame from 0: its boxes}."""
    named = path.parent / NAMES
    names = named.read_text(encoding="utf-8").split("\n") if named.is_file() else []
    frames, seen = defaultdict[int, list[AnnotatedBox]](list), dict[tuple[int, int], int]()
    with path.open(encoding="utf-8", newline="") as file:
        for line, cells in enumerate(csv.reader(file), start=1):
            if not cells:
                continue
            with annotation_files.refuse_unreadable(path, f"line {line} cannot be read: {{}}", "Correct it"):
                if len(cells) < FEWEST_COLUMNS:
                    raise ValueError(f"has {len(cells)} of {FEWEST_COLUMNS} columns")
                frame, track = (int(float(cell)) for cell in cells[:2])
                left, top, width, height, flag = (float(cell) for cell in cells[2:7])
                number = int(float(cells[7])) if len(cells) > FEWEST_COLUMNS else -1
            if frame < 1:
                raise DatasetError(f"line {line} is of frame {frame}", str(path), "Count frames from 1")
            if not flag:
                continue
            if (other := seen.setdefault((frame, track), line)) != line:
                problem = f"lines {other} and {line} are of one track, {track}, in frame {frame}"
                raise DatasetError(problem, str(path), "Give each object of a frame a track of its own")
            name = names[number - 1].strip() if 0 < number <= len(names) else str(number) if number > 0 else OBJECT
            low, high = (left - 1, top - 1), (left - 1 + width, top - 1 + height)
            frames[frame - 1].append(AnnotatedBox(name or OBJECT, low, high, f"line {line}", track=track))
    return {frame: tuple(boxes) for frame, boxes in frames.items()}


EXAMPLE: Example = {f"{clip}/img1/{n}.png": n for clip in ("first", "second") for n in (1, 2)} | {
    f"{clip}/gt/gt.txt": "1,7,3,4,8,6,1,1,1\n2,7,4,4,8,6,1,1,1\n" for clip in ("first", "second")
}
WHAT = "folders of clips with img1 and gt/gt.txt, as of MOTChallenge"
LAYOUT = Layout("mot", WHAT, fits, read, BY_NAMES, EXAMPLE, lambda path, settings: _clip(path).annotations)
