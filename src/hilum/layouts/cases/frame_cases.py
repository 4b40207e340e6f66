"""Clips with a mask for every frame: each frame becomes a case of its own, of the same patient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import GeometryError, HilumError
from hilum.files import file_formats
from hilum.files.dicom import header_reading
from hilum.values import Case, Dataset, Image, LazyMapping, Problem

# In the facts of a mask of frames: those that somebody contoured.
CONTOURED_FRAMES = "contoured_frames"
# The number of cases that are read to learn whether a set holds clips with masks.
SAMPLED = 3
# Kinds of reference that each frame may have.
OF_FRAMES = ("mask", "instances")
# Of a clip what is read, and how many of those that were read last are held.
IMAGE, REFERENCE, MOST_HELD = "image", "reference", 4
# Files that may hold frames, and state it before their voxels are read.
FRAMED = frozenset({".nii.gz", ".nii", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd", ".mif", ".mif.gz"})


@dataclass(frozen=True)
class _Clip:
    """A case that may be a clip.

    key: what it is known by in each process to which its frames are sent, one after the other
    """

    case: Case = field(compare=False)
    key: str = field(default_factory=lambda: uuid4().hex)


@dataclass(frozen=True)
class _ClipSurvey:
    """What is asked of a clip to part it, so that its image and mask are read once for it.

    frames:    how many it has; None of a still image, of one without masks, and of one that cannot be read
    contoured: those that a mask refers to, where the masks state theirs
    is_empty:  of each frame of the mask, whether nothing is marked; None of a mask without frames
    """

    frames: int | None = None
    contoured: Sequence[int] = ()
    is_empty: NDArray[np.bool_] | None = None

    @property
    def left_out(self) -> int:
        """How many frames no mask refers to, where the masks state theirs."""
        return (self.frames or 0) - len(self.contoured) if self.contoured else 0


def split_into_frames(dataset: Dataset) -> Dataset:
    """The data set with each frame as a case, where masks have frames; else as it is.

    Frames of one clip keep their patient, so that a split never parts them. A clip that cannot be read stays one case,
    and is named where all are read.
    """
    clips = [_Clip(case) for case in dataset]
    sampled = [_survey_clip(clip) if _may_be_framed(clip.case) else _ClipSurvey() for clip in clips[:SAMPLED]]
    empty_frames = {
        clip.case.id: survey.is_empty
        for clip, survey in zip(clips, sampled, strict=False)
        if survey.is_empty is not None
    }
    if not empty_frames:
        return dataset
    surveys = [*sampled, *map(_survey_clip, clips[SAMPLED:])]
    parted = {clip.case.id: list(_frames(clip, survey)) for clip, survey in zip(clips, surveys, strict=True)}
    left_out = {clip.case.id: survey.left_out for clip, survey in zip(clips, surveys, strict=True) if survey.left_out}
    return replace(
        dataset,
        cases=tuple(one for frames in parted.values() for one in frames),
        splits={one.id: split for name, split in dataset.splits.items() for one in parted.get(name, ())},
        layout=f"{dataset.layout}; each frame of {len(parted)} clips is a case",
        problems=(*dataset.problems, *_mostly_empty(empty_frames), *_uncontoured(left_out)),
    )


def _uncontoured(left_out: Mapping[str, int]) -> Iterator[Problem]:
    """The note on frames that no segmentation of their clip refers to. left_out: {clip: number of them}"""
    if left_out:
        frames = errors.count_phrase(sum(left_out.values()), "frame is", "frames are")
        what = f"{frames} left out, of {errors.count_phrase(len(left_out), 'clip')}: no segmentation refers to them"
        yield Problem("note", what, tuple(left_out), "what nobody contoured is unknown, and no background")


def _mostly_empty(empty_frames: Mapping[str, NDArray[np.bool_]]) -> Iterator[Problem]:
    """The warning that most frames have an empty mask, as where two phases of a heart beat alone were contoured.

    empty_frames: {clip: whether each of its frames has an empty mask}
    """
    empty = sum(int(np.count_nonzero(one)) for one in empty_frames.values())
    count = sum(map(len, empty_frames.values()))
    if 2 * empty > count > empty:
        what = f"{empty} of {count} frames of {errors.count_phrase(len(empty_frames), 'clip')} have an empty mask"
        why = "a frame that nobody contoured would teach that nothing is there"
        remedy = (
            "If only some frames were contoured, as those of end-diastole and end-systole, save these and their masks "
        )
        yield Problem("warning", what, tuple(empty_frames), why, f"{remedy}as images of their own")


def _may_be_framed(case: Case) -> bool:
    """Whether files of this kind may be a clip with masks of its frames."""
    return any(file_formats.suffix_of(path) in FRAMED for path in case.files) or any(map(_is_dicom, case.files[:1]))


def _survey_clip(clip: _Clip) -> _ClipSurvey:
    """A clip as it is parted; a mask that cannot be read is named with its frames."""
    kind, frames = _kind_of_frames(clip.case), None
    if not kind or len(clip.case.images) == 0:
        return _ClipSurvey()
    with suppress(HilumError):
        frames = _first(clip).frames
        mask = _reading(clip, REFERENCE, kind) if frames is not None else None
        if isinstance(mask, Image):
            contoured = mask.facts.get(CONTOURED_FRAMES, ())
            axes_of_frame = (0, *range(2, len(mask.shape)))
            is_empty = None if mask.frames is None else ~np.any(mask.data, axis=axes_of_frame)
            return _ClipSurvey(frames, contoured, is_empty)
    return _ClipSurvey(frames)


def _frames(clip: _Clip, survey: _ClipSurvey) -> Iterator[Case]:
    case = clip.case
    if survey.frames is None:
        yield case
        return
    for number in survey.contoured or range(survey.frames):
        yield replace(
            case,
            id=f"{case.id}_frame{number:03}",
            images=LazyMapping({name: partial(_image, clip, name, number) for name in case.images}),
            references=LazyMapping({kind: partial(_reference, clip, kind, number) for kind in case.references}),
            key=f"{case.key}frame {number}",
        )


def _is_dicom(path: Path) -> bool:
    if not path.is_file():  # it is named where it is read
        return False
    with path.open("rb") as file:
        return header_reading.looks_like_dicom(file.read(132))


def _kind_of_frames(case: Case) -> str:
    """The kind of reference that each of its frames has; empty without one."""
    return next((kind for kind in OF_FRAMES if kind in case.references), "")


@lru_cache(maxsize=MOST_HELD)
def _reading(clip: _Clip, role: str, name: str) -> Any:
    """An image or a reference of a clip, read once for its frames, which are asked for one after the other."""
    return clip.case.images[name] if role == IMAGE else clip.case.references[name]


def _first(clip: _Clip) -> Image:
    image: Image = _reading(clip, IMAGE, next(iter(clip.case.images)))
    return image


def _image(clip: _Clip, name: str, number: int) -> Image:
    image: Image = _reading(clip, IMAGE, name)
    return image.frame(number)


def _reference(clip: _Clip, kind: str, number: int) -> object:
    """A mask's own frame; what holds for the whole clip holds for its frames."""
    reference = _reading(clip, REFERENCE, kind)
    if not isinstance(reference, Image):
        return reference
    if reference.frames != _first(clip).frames:
        problem = f"the {kind} has {reference.frames or 'no'} frames, the image {_first(clip).frames}"
        raise GeometryError(problem, clip.case.id, "Give one mask for every frame")
    return reference.frame(number)
