"""Images of other formats: read and written anew, so that voxels and geometry pass and nothing else.

A JPEG keeps its coded image to the byte and loses what stands beside it, ISO/IEC 10918-1 B.1.1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from isocenter.deidentification import burned_in_text
from isocenter.deidentification.burned_in_text import HiddenPlaces
from isocenter.errors import FormatError
from isocenter.files import file_formats
from isocenter.files.format_options import ReadOptions
from isocenter.files.storage import atomic
from isocenter.values import Image

# {format: suffix that it is written with}; of pictures PNG and JPEG alone.
SUFFIXES = {"nifti": ".nii.gz", "nrrd": ".nrrd", "metaimage": ".mha", "tiff": ".tiff", "picture": ".png"}
PICTURES = (b"\x89PNG", b"\xff\xd8\xff")
SCAN, END, COMMENT = 0xDA, 0xD9, 0xFE
NOTES = (*range(0xE1, 0xEE), 0xEF, COMMENT)  # APP1 to APP13, APP15 and COM: all but JFIF and Adobe's word on colour
MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # within coded data: not stuffed, and no restart


@dataclass(frozen=True)
class RewrittenImage:
    """The name of what was written, empty where a person has to look first; the files that were read for it."""

    name: str
    parts: Sequence[str]
    hidden: HiddenPlaces


def is_rewritable(path: Path) -> bool:
    """Whether a file is of a format that is handed on."""
    with path.open("rb") as file:
        start = file.read(4)
    name = file_formats.format_of(path)
    return name in SUFFIXES and (name != "picture" or start.startswith(PICTURES))


def write_anew(path: Path, stem: Path, *, looks: bool, accept: bool) -> RewrittenImage:
    """Write an image under another name, with the suffix of its format. looks: black text of a picture

    Raises FormatError for what cannot be read or written.
    """
    image = file_formats.read_image(path, ReadOptions())
    hidden = _find(image) if looks and len(image.geometry.shape) == 2 and image.frames is None else HiddenPlaces()
    parts = () if image.source is None else image.source.paths
    if hidden.unsure and not accept:
        return RewrittenImage("", parts, hidden)
    content = path.read_bytes()
    if content.startswith(PICTURES[1]) and not hidden.places:
        target = stem.with_name(f"{stem.name}.jpg")
        with atomic.write_whole(target, overwrite=True) as partial:
            partial.write_bytes(strip_jpeg(content, str(path)))
        return RewrittenImage(target.name, parts, hidden)
    target = stem.with_name(stem.name + SUFFIXES[str(file_formats.format_of(path))])
    bare = replace(image, source=None, notes=(), labels=())
    if hidden.places:
        data = np.array(image.data)
        data[:, hidden.mask((data.shape[1], data.shape[2]))] = data.min()
        bare = replace(bare, pixels=data)
    file_formats.write(bare, target, overwrite=True)
    return RewrittenImage(target.name, parts, hidden)


def _find(image: Image) -> HiddenPlaces:
    data = np.asarray(image.data)
    return burned_in_text.find_in_picture(np.moveaxis(data[:3], 0, -1) if len(data) >= 3 else data[0])


def strip_jpeg(content: bytes, where: str) -> bytes:
    """A JPEG without what stands beside its image, and without what follows it. Raises FormatError for a cut one."""
    kept, at = [content[:2]], 2
    while at + 4 <= len(content) and content[at] == 0xFF:
        code, end = content[at + 1], at + 2
        if code == END:
            return b"".join([*kept, content[at:end]])
        if code == 0xFF:  # fill
            at += 1
            continue
        end += int.from_bytes(content[end : end + 2], "big")
        if code == SCAN:
            marker = MARKER.search(content, end)
            end = len(content) if marker is None else marker.start()
        if code not in NOTES:
            kept.append(content[at:end])
        at = end
        if content[at : at + 2] == b"\xff\xd9":
            return b"".join([*kept, content[at : at + 2]])
    raise FormatError("is cut short, or is no whole JPEG", where, "Get the file again")
