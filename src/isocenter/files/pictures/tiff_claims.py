"""The claims of a TIFF, checked before they are believed: files that it names, its planes, and its size decoded."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from math import prod
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import tifffile

from isocenter.errors import FormatError
from isocenter.files.coded import JPEG as JPEG_START
from isocenter.files.coded import stated
from isocenter.files.storage import inside_folder, refuse_expansion

COMPRESSION = tifffile.COMPRESSION
# Decoded to red, green, blue whatever the stream holds; Aperio's JPEG 2000 is not, though its pages say RGB.
JPEG = (COMPRESSION.JPEG, COMPRESSION.OJPEG, COMPRESSION.ALT_JPEG, COMPRESSION.JPEG_LOSSY)
# Each strip or tile is a picture of its own, which states its own size.
PICTURES = (
    *JPEG, COMPRESSION.JPEG2000, COMPRESSION.JPEG_2000_LOSSY, COMPRESSION.APERIO_JP2000_YCBC,
    COMPRESSION.APERIO_JP2000_RGB, COMPRESSION.JPEGXL, COMPRESSION.JPEGXL_DNG, COMPRESSION.WEBP, COMPRESSION.PNG,
)  # fmt: skip
# Each strip or tile is unpacked to the size that the page states, and no further.
BYTES = (
    COMPRESSION.NONE, COMPRESSION.LZW, COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE, COMPRESSION.PACKBITS,
    COMPRESSION.LZMA, COMPRESSION.ZSTD, COMPRESSION.ZSTD_DEPRECATED, COMPRESSION.CCITTRLE, COMPRESSION.CCITT_T4,
    COMPRESSION.CCITT_T6,
)  # fmt: skip
# Values of a tile that are always fine, though the picture is smaller: 4096 x 4096 are the largest in use.
USUAL_TILE = 1 << 24
GET_AGAIN = "Get the file again"
BIG_TIFF = 43


def named_files(file: tifffile.TiffFile, path: Path) -> tuple[Path, ...]:
    """The other files of an OME-TIFF, which the library opens as soon as it lists the series.

    Raises FormatError for one that lies elsewhere or is missing.
    """
    if not file.is_ome or not file.ome_metadata:
        return ()
    root = ElementTree.fromstring(file.ome_metadata)  # noqa: S314  the parser refuses entities that grow
    own, others = root.get("UUID"), dict[str | None, Path]()
    for uuid in (one for one in root.iter() if one.tag.endswith("UUID")):
        name = uuid.get("FileName", "")
        if own is None and uuid.text is not None and name.lower() == path.name.lower():
            own = uuid.text
        if uuid.text in (own, *others):
            continue
        others[uuid.text] = inside_folder(name, path)
        if others[uuid.text] != path.parent / name:  # the library would look for it under another name
            raise FormatError(f"names its planes' file {name!r}", str(path), "Write its name with plain slashes")
    return tuple(others.values())


def refuse_circle(path: Path) -> None:
    """Refuse pages of which one names an earlier one as the next: the library would follow them without end."""
    with path.open("rb") as file:
        head = file.read(16)
        order = ">" if head[:2] == b"MM" else "<"
        large = struct.unpack(f"{order}H", head[2:4])[0] == BIG_TIFF
        at = struct.unpack(f"{order}Q", head[8:16])[0] if large else struct.unpack(f"{order}I", head[4:8])[0]
        counted, entry, pointer = ("Q", 20, "Q") if large else ("H", 12, "I")
        seen = set[int]()
        while at:
            if at in seen:
                raise FormatError("its pages lead back to one another", str(path), GET_AGAIN)
            seen.add(at)
            file.seek(at)
            counts = file.read(struct.calcsize(counted))
            if len(counts) < struct.calcsize(counted):
                return
            file.seek(entry * struct.unpack(f"{order}{counted}", counts)[0], os.SEEK_CUR)
            following = file.read(struct.calcsize(pointer))
            at = struct.unpack(f"{order}{pointer}", following)[0] if len(following) == struct.calcsize(pointer) else 0


def check_whole(file: tifffile.TiffFile, path: Path, others: Sequence[Path]) -> None:
    """Refuse what lacks planes, is cut short, or claims more than its files can hold."""
    size = sum(one.stat().st_size for one in (path, *others))
    if not file.series:
        raise FormatError("holds no picture", str(path), GET_AGAIN)
    for part in file.series:
        refuse_expansion(size, part.nbytes, str(path))
        _check_segments(part, path)
        pages = list(part.pages)
        if missing := sum(page is None for page in pages):
            raise FormatError(f"lacks {missing} of its {len(pages)} planes", str(path), "Get all files of the image")
        for page in (page for page in pages if page is not None):
            _check_strips(page, part.keyframe, path)
            ends = [at + count for at, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
            if max(ends, default=0) > page.parent.filehandle.size:
                raise FormatError("is cut short", str(path), GET_AGAIN)


def _check_strips(page: tifffile.TiffPage | tifffile.TiffFrame, key: tifffile.TiffPage, path: Path) -> None:
    """Refuse a page with fewer strips or tiles than its size takes: the library would go through all of them."""
    there, needed = len(page.dataoffsets), prod(key.chunked)
    in_one_piece = there == 1 and key.compression == COMPRESSION.NONE  # whatever some writers say of its strips
    if there < needed and not in_one_piece:
        raise FormatError(f"lacks {needed - there} of {needed} strips or tiles of a page", str(path), GET_AGAIN)


def check_decoded(part: tifffile.TiffPageSeries, path: Path) -> None:
    """Refuse strips and tiles that are pictures of another size than the page states, before they are decoded."""
    key = part.keyframe
    if key.compression not in PICTURES:
        return
    most = max(USUAL_TILE, int(np.prod(key.chunks)))
    for page in part.pages:
        if page is None:
            continue
        with Path(page.parent.filehandle.path).open("rb") as file:
            for at, count in zip(page.dataoffsets, page.databytecounts, strict=False):
                file.seek(at)
                stream = file.read(count)
                if not count or (key.jpegheader and not stream.startswith(JPEG_START)):
                    continue  # an empty tile; a part of one long stream, whose header the library makes
                picture = stated(stream)
                if picture.values > most:
                    problem = f"a tile claims {picture.rows} x {picture.columns} pixels, the page {key.chunks}"
                    raise FormatError(problem, str(path), GET_AGAIN)


def _check_segments(part: tifffile.TiffPageSeries, path: Path) -> None:
    key = part.keyframe
    if key.compression not in (*PICTURES, *BYTES):
        named = getattr(key.compression, "name", f"kind {key.compression}")
        raise FormatError(f"compression as {named} is not read", str(path), "Save it uncompressed or with Deflate")
    values, tile = int(np.prod(key.shape)), int(np.prod(key.chunks))
    if tile > max(USUAL_TILE, values):
        raise FormatError(f"has tiles of {key.chunks} in a picture of {key.shape}", str(path), GET_AGAIN)
