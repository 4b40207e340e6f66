"""Clips with masks of their frames, by number: `a.mp4` with `a/000012.png`, `masks/a/12.png` or `masks/a_12.png`.

Every frame is a case: one without a file has an empty mask. Frames count from 0, as OpenCV counts them, unless a clip
has the mask whose number is that of all its frames, and none has one of 0: then all count from 1, as FFmpeg counts.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from hilum import errors
from hilum.errors import DatasetError, HilumError
from hilum.files import modality_words, video
from hilum.layouts import layout
from hilum.layouts.cases import annotated_clips, cell_loading, class_labels
from hilum.layouts.cases.annotated_clips import ListedClip
from hilum.layouts.cases.dataset_folder import VIDEO_SUFFIXES, Folder, FolderMember
from hilum.layouts.cases.names import MASK_PREFIX, MASK_SUFFIX
from hilum.layouts.cases.object_classes import OBJECT_MAPS
from hilum.layouts.cases.opening import EMPTY
from hilum.layouts.layout import BY_NAMES, DatasetOptions, Example, Layout, Reading
from hilum.values import CaseRow, Cell, Problem

NUMBER = re.compile(r"(?i)^(?P<clip>.*?)[_.\- ]*(?:frames?|masks?)?[_.\- ]*(?P<number>\d+)$")

# Files that are opened to know whether they are masks.
MOST_OPENED = 5


@dataclass(frozen=True)
class MaskedClip:
    """A clip with {number in the name: mask} of its frames, and how many frames it has."""

    member: FolderMember
    masks: Mapping[int, Path]
    count: int

    def listed(self, first: int) -> ListedClip:
        """The clip of which nothing is known but its masks, whose numbers begin with `first`."""
        path = self.member.path
        return ListedClip(path, self.member.stem, {}, self.count, clip=path, split=self.member.split)

    def fits(self, first: int) -> bool:
        """Whether each mask is of a frame of the clip, if numbers begin with `first`."""
        return all(first <= number < first + self.count for number in self.masks)


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """A clip, and files of its frames that look like masks: frames that were taken out of it are images."""
    if not (clips := _clips(folder)):
        return False
    named = (member.path for member in folder.images if _frame_of(member, clips) is not None)
    looked_at = list(islice(named, MOST_OPENED))
    return 2 * sum(cell_loading.likeness_to_labels(path, options.read) > 0 for path in looked_at) > len(looked_at)


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """A case for each frame of each clip with a mask; DatasetError for two masks of one frame."""
    found, problems = _masked_clips(folder)
    numbers = [number for clip in found for number in clip.masks]
    first = int(0 not in numbers and any(clip.count in clip.masks for clip in found))
    wrong = [clip.member.path.name for clip in found if not clip.fits(first)]
    kept = [clip for clip in found if clip.fits(first)]
    listed = [clip.listed(first) for clip in kept]
    owners, patients = annotated_clips.owners_of_clips(listed, folder)
    kind = OBJECT_MAPS if OBJECT_MAPS in options.kinds and "mask" not in options.kinds else "mask"
    modality, labels = modality_words.modality_word(options.modality), class_labels.mask_labels(folder, options)
    rows = list[CaseRow]()
    for masked, clip, owner in zip(kept, listed, owners, strict=True):
        rows += clip.rows(owner, modality, {n: {kind: _mask_cell(masked, n + first)} for n in clip.keys})
    count = sum(len(clip.masks) for clip in kept)
    return Reading(
        tuple(rows),
        how=f"{errors.count_phrase(len(kept), 'clip')} with masks of {count} of {len(rows)} frames, numbered "
        f"from {first} on",
        classes={"mask": labels} if labels else {},
        modality=modality,
        patients=patients,
        problems=(
            *problems,
            *layout.left_out_problem(wrong, "clips have masks of frames that they lack", "Correct their numbers"),
            *_mostly_without(count, len(rows)),
        ),
    )


def _mask_cell(masked: MaskedClip, number: int) -> Cell:
    path = masked.masks.get(number)
    return Cell((masked.member.path,), EMPTY) if path is None else Cell((path,))


def _mostly_without(masks: int, count: int) -> Iterator[Problem]:
    if 2 * masks < count:
        what = f"{count - masks} of {count} frames have no mask, and count as frames on which nothing is"
        why = "a frame that nobody contoured would teach that nothing is there"
        remedy = "If only some frames were contoured, save these and their masks as images of their own"
        yield Problem("warning", what, (), why, remedy)


def _clips(folder: Folder) -> dict[str, FolderMember]:
    """{name in lower case: clip}."""
    return {one.stem.casefold(): one for one in folder.members if one.suffix in VIDEO_SUFFIXES}


def _frame_of(mask: FolderMember, clips: Mapping[str, FolderMember]) -> tuple[str, int] | None:
    """The clip and the number of the frame that a mask's name, and those of its folders, state."""
    named = NUMBER.match(mask.stem) or NUMBER.match(MASK_SUFFIX.sub("", mask.stem))
    if named is None:
        return None
    for text in (*reversed(mask.folders), named["clip"]):
        for name in (text, MASK_SUFFIX.sub("", text), MASK_PREFIX.sub("", text)):
            if name.casefold() in clips:
                return name.casefold(), int(named["number"])
    return None


def _masked_clips(folder: Folder) -> tuple[list[MaskedClip], list[Problem]]:
    """The clips with masks, and the problems of masks and clips that are left out."""
    clips, masks, lost = _clips(folder), defaultdict[str, dict[int, Path]](dict), list[str]()
    for member in folder.images:
        if (found := _frame_of(member, clips)) is None:
            lost.append(member.path.name)
            continue
        name, number = found
        if (other := masks[name].setdefault(number, member.path)) != member.path:
            problem = f"{other.name} and {member.path.name} are both masks of frame {number} of {clips[name].path.name}"
            raise DatasetError(problem, str(folder.root), "Keep one mask a frame, with a label for each structure")
    made, unread = list[MaskedClip](), dict[str, HilumError]()
    for name, own in masks.items():
        try:
            made.append(MaskedClip(clips[name], own, video.survey_clip(clips[name].path, str(clips[name].path)).frames))
        except HilumError as error:
            unread[clips[name].stem] = error
    bare = [clip.path.name for name, clip in clips.items() if name not in masks]
    problems = [
        *layout.left_out_problem(lost, "images name no clip and frame", "Call them as clip_000012.png", "warning"),
        *layout.left_out_problem(bare, "clips have no mask", "Add masks, or leave them out", "warning"),
        *(Problem.of_case(name, error) for name, error in unread.items()),
    ]
    return made, problems


EXAMPLE: Example = {"a.avi": (0, 80, 160), "a/0.png": (0, 255), "a/2.png": (0, 255)}
LAYOUT = Layout("clip_masks", "clips (MP4, AVI) with masks of their frames by number", fits, read, BY_NAMES, EXAMPLE)
