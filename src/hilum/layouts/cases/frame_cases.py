"""Clips with a mask for every frame: each frame becomes a case of its own, of the same patient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

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


def split_into_frames(dataset: Dataset) -> Dataset:
    """The data set with each frame as a case, where masks have frames; else as it is.

    Frames of one clip keep their patient, so that a split never parts them. A clip that cannot be read stays one case,
    and is named where all are read.
    """
    framed = [case for case in dataset.cases[:SAMPLED] if _is_framed(case)]
    if not framed:
        return dataset
    parted = {case.id: list(_frames(case)) for case in dataset}
    left_out = {case.id: count for case in dataset if (count := _frames_left_out(case))}
    return replace(
        dataset,
        cases=tuple(one for frames in parted.values() for one in frames),
        splits={one.id: split for name, split in dataset.splits.items() for one in parted.get(name, ())},
        layout=f"{dataset.layout}; each frame of {len(parted)} clips is a case",
        problems=(*dataset.problems, *_mostly_empty(framed), *_uncontoured(left_out)),
    )


def _uncontoured(left_out: Mapping[str, int]) -> Iterator[Problem]:
    """The note on frames that no segmentation of their clip refers to. left_out: {clip: number of them}"""
    if left_out:
        frames = errors.count_phrase(sum(left_out.values()), "frame is", "frames are")
        what = f"{frames} left out, of {errors.count_phrase(len(left_out), 'clip')}: no segmentation refers to them"
        yield Problem("note", what, tuple(left_out), "what nobody contoured is unknown, and no background")


def _mostly_empty(clips: Sequence[Case]) -> Iterator[Problem]:
    """The warning that most frames have an empty mask, as where two phases of a heart beat alone were contoured."""
    masks = [_reading(case, REFERENCE, _kind_of_frames(case)) for case in clips]
    has_structure = [np.any(mask.data, axis=(0, *range(2, mask.data.ndim))) for mask in masks]
    empty, count = sum(int(np.count_nonzero(~frames)) for frames in has_structure), sum(map(len, has_structure))
    if 2 * empty > count > empty:
        what = f"{empty} of {count} frames of {errors.count_phrase(len(clips), 'clip')} have an empty mask"
        why = "a frame that nobody contoured would teach that nothing is there"
        remedy = (
            "If only some frames were contoured, as those of end-diastole and end-systole, save these and their masks "
        )
        yield Problem("warning", what, tuple(case.id for case in clips), why, f"{remedy}as images of their own")


def _is_framed(case: Case) -> bool:
    try:
        known = any(file_formats.suffix_of(path) in FRAMED for path in case.files)
        known = known or any(map(_is_dicom, case.files[:1]))
        if not known or not _kind_of_frames(case) or len(case.images) == 0 or _first(case).frames is None:
            return False
        return _reading(case, REFERENCE, _kind_of_frames(case)).frames is not None
    except HilumError:
        return False


def _frame_count(case: Case) -> int | None:
    """The number of frames of a clip; None of a still image, and of one that cannot be read."""
    with suppress(HilumError):
        return _first(case).frames
    return None


def _frames_left_out(case: Case) -> int:
    """How many frames of a clip no mask refers to, where the masks state theirs."""
    contoured = _contoured_frames(case) if _kind_of_frames(case) else ()
    return (_frame_count(case) or 0) - len(contoured) if contoured else 0


def _frames(case: Case) -> Iterator[Case]:
    count = _frame_count(case)
    if count is None or not _kind_of_frames(case):
        yield case
        return
    for number in _contoured_frames(case) or range(count):
        yield replace(
            case,
            id=f"{case.id}_frame{number:03}",
            images=LazyMapping({name: partial(_image, case, name, number) for name in case.images}),
            references=LazyMapping({kind: partial(_reference, case, kind, number) for kind in case.references}),
            key=f"{case.key}frame {number}",
        )


def _is_dicom(path: Path) -> bool:
    if not path.is_file():  # it is named where it is read
        return False
    with path.open("rb") as file:
        return header_reading.looks_like_dicom(file.read(132))


def _contoured_frames(case: Case) -> Sequence[int]:
    """The contoured frames, where the mask states them; a mask that cannot be read is named with them."""
    with suppress(HilumError):
        mask = _reading(case, REFERENCE, _kind_of_frames(case))
        return mask.facts.get(CONTOURED_FRAMES, ()) if isinstance(mask, Image) else ()
    return ()


def _kind_of_frames(case: Case) -> str:
    """The kind of reference that each of its frames has; empty without one."""
    return next((kind for kind in OF_FRAMES if kind in case.references), "")


@lru_cache(maxsize=MOST_HELD)
def _reading(case: Case, role: str, name: str) -> Any:
    """An image or a reference of a clip, read once for its frames, which are asked for one after the other."""
    return case.images[name] if role == IMAGE else case.references[name]


def _first(case: Case) -> Image:
    image: Image = _reading(case, IMAGE, next(iter(case.images)))
    return image


def _image(case: Case, name: str, number: int) -> Image:
    image: Image = _reading(case, IMAGE, name)
    return image.frame(number)


def _reference(case: Case, kind: str, number: int) -> object:
    """A mask's own frame; what holds for the whole clip holds for its frames."""
    reference = _reading(case, REFERENCE, kind)
    if not isinstance(reference, Image):
        return reference
    if reference.frames != _first(case).frames:
        problem = f"the {kind} has {reference.frames or 'no'} frames, the image {_first(case).frames}"
        raise GeometryError(problem, case.id, "Give one mask for every frame")
    return reference.frame(number)
