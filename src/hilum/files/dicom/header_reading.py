"""The header of a DICOM file: all that stands before its pixels."""

from __future__ import annotations

import os
import struct
import zlib
from array import array
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import FormatError
from hilum.files.dicom import character_sets, elements, library_warnings, tags
from hilum.files.dicom.elements import MAGIC_END, PIXEL_ELEMENTS, PIXEL_REPRESENTATIONS, UNDEFINED, DicomDataset
from hilum.files.dicom.uids import CODED, DEFLATED, NATIVE, VIDEO
from hilum.files.storage import packed_files
from hilum.lazy import pydicom
from hilum.values import Image

DIRECTORY = "1.2.840.10008.1.3.10"  # Media Storage Directory Storage, PS3.4 B.5
ALWAYS_STATED = ("SOPClassUID", "Rows")  # by any object, and by any image
FRAGMENT, FRAGMENTS_END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
LARGEST_INFLATION = 100  # times, of a deflated data set; pictures without noise come to 20
SMALL_INFLATION, MOST_INFLATED = 1 << 25, 1 << 31  # bytes that are never too many, and always
INFLATED_AT_ONCE = 1 << 20
# Each frame is described by objects in memory; of slides alone, which are not read, more are known.
MOST_FRAMES = 1 << 18


@dataclass(frozen=True, eq=False)
class Header:
    """One file without its pixels.

    offset: bytes from the file's start to the pixel element's value; None without one, or where all is deflated
    length: bytes that the element claims (of a deflated one, holds), None where it does not say
    has_pixels: whether there is a pixel element at all
    is_compressed: whether that holds fragments and not native pixels
    warnings: of pydicom, about what is odd in it
    """

    path: Path
    dataset: DicomDataset
    offset: int | None = None
    length: int | None = None
    has_pixels: bool = False
    is_compressed: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """The path, as errors name it."""
        return str(self.path)

    @property
    def library(self) -> pydicom.Dataset:
        """The data set as pydicom's own, which its other functions want."""
        return cast("pydicom.Dataset", getattr(cast(Any, self.dataset), "library", self.dataset))

    @property
    def is_directory(self) -> bool:
        """Whether it is a DICOMDIR."""
        return _is_directory(self.dataset)

    @property
    def is_image(self) -> bool:
        """Whether there are pixels, or should be: an image that has lost them is no report."""
        return self.has_pixels or "Rows" in self.dataset or "Image Storage" in self.sop_class_name

    @property
    def sop_class(self) -> str:
        """The SOP Class UID, empty where none is stated."""
        return tags.text(self.dataset, "SOPClassUID")

    @property
    def sop_class_name(self) -> str:
        """The SOP class in words."""
        uid = pydicom.uid.UID(self.sop_class)
        return uid.name if uid else "an object without SOP class"

    @property
    def transfer_syntax(self) -> str:
        """The stated Transfer Syntax UID, empty where none is stated."""
        return _syntax(self.dataset)

    @cached_property
    def fragments(self) -> NDArray[np.int64]:
        """(items, 2) offset and length of compressed pixels after the first item, which is a table. PS3.5 A.4

        An array, because a file may hold millions of empty ones.
        Raises FormatError for pixels of which the file does not hold the last fragment whole.
        """
        if self.offset is None or not self.is_compressed:
            return np.empty((0, 2), np.int64)
        size = self.path.stat().st_size
        end = size if self.length is None else min(size, self.offset + self.length)
        at, places = self.offset, array("q")
        with self.path.open("rb", buffering=0) as file:
            while at + 8 <= end:
                file.seek(at)
                group, element, length = struct.unpack("<HHI", file.read(8))
                if (group, element) == FRAGMENTS_END:
                    return np.frombuffer(places, np.int64).reshape(-1, 2)[1:]
                places.extend((at + 8, length))
                at += 8 + length
                if (group, element) != FRAGMENT or at > end:
                    break
        if self.length is None or at != end:  # only an element that states its length may do without a last item
            raise FormatError("the compressed pixels are damaged or cut short", self.where, "Get the file again")
        return np.frombuffer(places, np.int64).reshape(-1, 2)[1:]

    @property
    def is_native(self) -> bool:
        """Whether the pixels lie in the file as they are, neither compressed nor deflated."""
        return self.offset is not None and not self.is_compressed

    @property
    def is_subsampled(self) -> bool:
        """Whether two pixels share their colours, PS3.3 C.7.6.3.1.2; of native pixels only."""
        return self.is_native and tags.text(self.dataset, "PhotometricInterpretation") == "YBR_FULL_422"


def read_header(path: Path) -> Header:
    """The header of one file, also where preamble or file meta are missing.

    Raises FormatError where it is not DICOM, or its header is damaged.
    """
    with path.open("rb", buffering=0) as file:
        plain = elements.plain_elements(file)
    if plain is None:
        return _unusual_header(path)
    dataset, offset, length, _ = plain
    compressed = length == UNDEFINED or _is_compressed(dataset)
    return Header(path, dataset, offset, None if length == UNDEFINED else length, True, compressed)


def _unusual_header(path: Path) -> Header:
    """The header as the DICOM library reads it, with its warnings."""
    with path.open("rb") as file, library_warnings.collect_warnings() as warnings:
        start = file.read(MAGIC_END)
        if len(start) < MAGIC_END and not looks_like_dicom(start):
            problem = f"is cut short to {errors.count_phrase(len(start), 'byte')}" if start else "is empty"
            raise FormatError(problem, str(path), "Get the file again, or take it out of the folder")
        if not looks_like_dicom(start):
            raise FormatError("is not a DICOM file", str(path), "Give a DICOM file, or name it by its real format")
        _refuse_bomb(file, str(path))
        try:
            file.seek(0)
            dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)
            if not character_sets.are_valid_terms(terms := tags.words(dataset, "SpecificCharacterSet")):
                note = f"{tags.keyword_with_tag('SpecificCharacterSet')} is {character_sets.repair_terms(terms)}"
                warnings[:] = [note]
                file.seek(0)
                dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True)
            offset, length, element = _pixel_element(file, dataset)
            if not character_sets.are_valid_terms(terms):  # what repeats the header's text states how it is now
                with suppress(*tags.pydicom_errors()):
                    dataset.decode()
                dataset.SpecificCharacterSet = character_sets.UTF_8
        except tags.pydicom_errors() as error:
            raise FormatError(
                f"the header is damaged ({errors.describe_cause(error)})", str(path), "Get the file again"
            ) from error
    if element is not None:  # an empty stand-in, so that what asks for the layout of the pixels finds them
        dataset.add_new(element, "OW", b"")
    if element is None and not any(keyword in dataset for keyword in ALWAYS_STATED) and not _is_directory(dataset):
        raise FormatError(
            f"states no {tags.keyword_with_tag('SOPClassUID')} and holds no pixels",
            str(path),
            "The file is damaged: get it again",
        )
    compressed = offset is not None and (length is None or _is_compressed(dataset))
    return Header(path, dataset, offset, length, element is not None, compressed, tuple(warnings))


def looks_like_dicom(start: bytes) -> bool:
    """Whether a file with this start is DICOM: the magic number, or (old files) an element of group 2 or 8 at once."""
    if start[128:132] == b"DICM":
        return True
    if len(start) < 8:
        return False
    group, element = struct.unpack("<HH", start[:4])
    return (group in (0x0002, 0x0008) and element < 0x2000) or (group == 0x0800 and start[2:4] < b"\x20")


def check_pixels(head: Header) -> None:
    """Refuse early what cannot be an image: no pixels, no size, or fewer bytes than the size needs.

    Raises FormatError, which names the attribute.
    """
    if not head.has_pixels:
        raise FormatError(
            f"holds no image: {head.sop_class_name} without PixelData (7FE0,0010)",
            head.where,
            "Give the images that it belongs to",
        )
    fragments = len(head.fragments)
    rows, columns = (_size(head, keyword) for keyword in ("Rows", "Columns"))
    frames = frame_count(head)
    samples, bits = (tags.whole_number(head.dataset, k, head.where) or 1 for k in ("SamplesPerPixel", "BitsAllocated"))
    needed = -(-rows * columns * frames * samples * bits // 8)
    if head.is_subsampled:
        needed = needed * 2 // 3
    size = head.path.stat().st_size
    if head.is_compressed:
        packed_files.refuse_expansion(size, needed, head.where)
    else:
        available = (head.length or 0) if head.offset is None else min(size - head.offset, head.length or 0)
        if needed > available:
            raise FormatError(
                f"the pixel data are cut short: {available} bytes where {needed} belong",
                head.where,
                "Get the file again",
            )
    # Each fragment of compressed pixels holds one frame at most, but that of a clip all of them.
    most = min(MOST_FRAMES, fragments if head.is_compressed and head.transfer_syntax not in VIDEO else size)
    if frames > most:
        raise FormatError(f"claims {frames} frames, but at most {most} are possible", head.where, "Get the file again")


def read_object(path: Path) -> pydicom.Dataset:
    """All of one file, its pixels too. Raises FormatError where it is not DICOM, or is damaged or gone."""
    try:
        with path.open("rb") as file, library_warnings.collect_warnings():  # `read_header` has kept its warnings
            _refuse_bomb(file, str(path))
            file.seek(0)
            return pydicom.dcmread(file, force=True)
    except OSError as error:
        raise FormatError(
            f"cannot be read any more ({error.strerror})", str(path), "Check whether the file was moved"
        ) from error
    except tags.pydicom_errors() as error:  # a file that is cut short in the middle of its pixels
        raise FormatError(f"cannot be read ({error})", str(path), "Get the file again") from error


def frame_count(head: Header) -> int:
    """The number of frames in the file; 1 where it does not say.

    Raises FormatError where the number cannot be.
    """
    frames = tags.whole_number(head.dataset, "NumberOfFrames", head.where)
    if frames is not None and frames < 0:
        raise FormatError(f"{tags.keyword_with_tag('NumberOfFrames')} is {frames}", head.where, "Get the file again")
    return frames or 1  # some writers put 0 into single-frame objects


def _size(head: Header, keyword: str) -> int:
    value = tags.whole_number(head.dataset, keyword, head.where)
    if value is None or value < 1:
        state = "is missing" if value is None else f"is {value}"
        raise FormatError(
            f"{tags.keyword_with_tag(keyword)} {state}, so there is no image", head.where, "Get the file again"
        )
    return value


def _is_directory(dataset: DicomDataset) -> bool:
    return (
        "DirectoryRecordSequence" in dataset
        or tags.text(tags.file_meta(dataset), "MediaStorageSOPClassUID") == DIRECTORY
    )


def _syntax(dataset: DicomDataset) -> str:
    return tags.text(tags.file_meta(dataset), "TransferSyntaxUID")


def _is_compressed(dataset: DicomDataset) -> bool:
    syntax = _syntax(dataset)
    if syntax in CODED or syntax in NATIVE:
        return syntax in CODED
    uid = pydicom.uid.UID(syntax)
    return bool(uid.is_transfer_syntax and uid.is_compressed)


def _refuse_bomb(file: BinaryIO, where: str) -> None:
    """A deflated file is inflated whole to see its first attribute: look first how much comes out."""
    file.seek(0)
    try:
        # As the library itself finds the transfer syntax, wherever it stands in group 2.
        pydicom.filereader.read_preamble(file, force=True)
        meta = pydicom.filereader._read_file_meta_info(file)
        syntax = meta.get("TransferSyntaxUID")
    except tags.pydicom_errors():  # what is wrong with it is reported when it is read
        return
    if syntax != DEFLATED:
        return
    start = file.tell()
    most = min(MOST_INFLATED, max(SMALL_INFLATION, LARGEST_INFLATION * (file.seek(0, os.SEEK_END) - start)))
    file.seek(start)
    stream, inflated = packed_files.inflate_stream(file, -zlib.MAX_WBITS), 0
    try:
        while inflated <= most and (part := stream.read(INFLATED_AT_ONCE)):
            inflated += len(part)
    except (zlib.error, EOFError) as error:
        raise FormatError(f"cannot be inflated ({error})", where, "Get the file again") from error
    if inflated > most:
        raise FormatError(f"inflates to more than {most} bytes", where, "The file is damaged: get it again")


def _pixel_element(file: BinaryIO, dataset: DicomDataset) -> tuple[int | None, int | None, int | None]:
    """(offset, length, tag) of the pixels: pydicom has stopped at that element's first byte. No tag, no pixels."""
    if _syntax(dataset) == DEFLATED:
        file.seek(0)
        inside = pydicom.dcmread(file, force=True)
        tag = next((tag for tag in PIXEL_ELEMENTS if tag in inside and inside[tag].value), None)
        return None, None if tag is None else len(inside[tag].value), tag
    start = file.tell()
    raw = file.read(12)
    if len(raw) < 8:
        return None, None, None
    order = ">" if dataset.original_encoding[1] is False else "<"
    group, element = struct.unpack(f"{order}HH", raw[:4])
    tag = group << 16 | element
    # The file is asked, not its transfer syntax: some writers promise explicit VRs and write implicit ones.
    explicit = raw[4:6] in PIXEL_REPRESENTATIONS
    length = struct.unpack(f"{order}I", raw[8:12] if explicit else raw[4:8])[0]
    if tag not in PIXEL_ELEMENTS or length == 0:
        return None, None, None
    return start + (12 if explicit else 8), None if length == UNDEFINED else length, tag


def instance_of(image: Image) -> str:
    """The SOP Instance UID of the first object of an image; empty for one without files."""
    return tags.text(read_header(Path(image.source.paths[0])).dataset, "SOPInstanceUID") if image.source else ""
