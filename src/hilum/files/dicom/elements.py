"""A plain image's header, read without the DICOM library: where each element lies, its value made when it is asked for.

pydicom takes a third of a second to import and a millisecond a header, which is most of the time of reading a series.
What is here is strict: any file, element or value that is unusual in the least is left to pydicom. PS3.5 6.2 and 7.1
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Mapping, Set
from functools import cache, cached_property, lru_cache
from io import BytesIO
from typing import Any, BinaryIO, NamedTuple, Protocol

from hilum.files.dicom.uids import CODED, EXPLICIT, IMPLICIT
from hilum.lazy import pydicom

# Attributes by keyword, with values as pydicom takes them.
DicomAttributes = Mapping[str, Any]

PIXEL_ELEMENTS = (0x7FE00008, 0x7FE00009, 0x7FE00010)  # float, double float, stored integers: PS3.3 C.7.6.24
PIXELS_GROUP = 0x7FE0  # where they lie; delimiters have a higher one
UNDEFINED = 0xFFFFFFFF  # a length that a delimiter ends: of sequences, and of compressed pixels, PS3.5 A.4
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
MAGIC_END = 132
PIXEL_GROUP = 0x00280000  # from here on, and in Modality, stands all that the meaning of pixels depends on
SHORTEST_HEAD = 8  # bytes before a value
FIRST_BLOCK = 0x10  # elements 10 to FF of an odd group say who made the blocks of those numbers, PS3.5 7.8.1
DEEPEST = 16  # sequences in sequences
HEAD_SIZES = (1 << 14, 1 << 20)  # bytes read before the pixels: nearly all need the first, none the second

PIXEL_REPRESENTATIONS = (b"OB", b"OW", b"OF", b"OD", b"UN")
SHORT_LENGTH = frozenset((
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
    b"ST", b"TM", b"UI", b"UL", b"US",
))  # fmt: skip
LONG_LENGTH = frozenset((
    b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV",
))  # fmt: skip
# Character sets in which a byte below 128 is the ASCII character, and which pydicom knows without a warning.
ASCII_SUPERSETS = ("", "ISO_IR 6", "ISO_IR 100", "ISO_IR 101", "ISO_IR 144", "ISO_IR 192")

# The attributes that are asked of an image without sequences; of others pydicom knows the tags. PS3.6 6
_ATTRIBUTES = """
00020002 UI MediaStorageSOPClassUID 00020010 UI TransferSyntaxUID 00041220 SQ DirectoryRecordSequence
00080005 CS SpecificCharacterSet 00080008 CS ImageType 00080016 UI SOPClassUID 00080018 UI SOPInstanceUID
00080021 DA SeriesDate 00080022 DA AcquisitionDate 0008002A DT AcquisitionDateTime 00080031 TM SeriesTime
00080032 TM AcquisitionTime 00080060 CS Modality 00080064 CS ConversionType 00080068 CS PresentationIntentType
00080070 LO Manufacturer
00080201 SH TimezoneOffsetFromUTC 00089205 CS PixelPresentation 00089206 CS VolumetricProperties
00081030 LO StudyDescription 0008103E LO SeriesDescription 00081090 LO ManufacturerModelName
00081115 SQ ReferencedSeriesSequence 00089208 CS ComplexImageComponent 00100010 PN PatientName 00100020 LO PatientID
00100021 LO IssuerOfPatientID 00100200 CS QualityControlSubject
00100040 CS PatientSex 00101010 AS PatientAge 00101030 DS PatientWeight
00180010 LO ContrastBolusAgent 00189004 CS ContentQualification
00180015 CS BodyPartExamined 00180040 IS CineRate 00180050 DS SliceThickness 00180081 DS EchoTime
00180088 DS SpacingBetweenSlices 00181030 LO ProtocolName 00181060 DS TriggerTime 00181063 DS FrameTime
00181065 DS FrameTimeVector 00181164 DS ImagerPixelSpacing 00182010 DS NominalScannedPixelSpacing
00186011 SQ SequenceOfUltrasoundRegions 00189087 FD DiffusionBValue 00189089 FD DiffusionGradientOrientation
0020000D UI StudyInstanceUID 0020000E UI SeriesInstanceUID 00200011 IS SeriesNumber 00200012 IS AcquisitionNumber
00200013 IS InstanceNumber 00200032 DS ImagePositionPatient 00200037 DS ImageOrientationPatient
00200052 UI FrameOfReferenceUID 00200100 IS TemporalPositionIdentifier 00209161 UI ConcatenationUID
00280002 US SamplesPerPixel 00280004 CS PhotometricInterpretation 00280006 US PlanarConfiguration
00280008 IS NumberOfFrames 00280010 US Rows 00280011 US Columns 00280030 DS PixelSpacing 00280034 IS PixelAspectRatio
00280051 CS CorrectedImage
00280100 US BitsAllocated 00280101 US BitsStored 00280102 US HighBit 00280103 US PixelRepresentation
00280120 XS PixelPaddingValue 00280121 XS PixelPaddingRangeLimit 00280122 FL FloatPixelPaddingValue
00280123 FD DoubleFloatPixelPaddingValue 00280124 FL FloatPixelPaddingRangeLimit
00280125 FD DoubleFloatPixelPaddingRangeLimit
00280300 CS QualityControlImage 00280301 CS BurnedInAnnotation 00280302 CS RecognizableVisualFeatures
00281040 CS PixelIntensityRelationship 00282000 OB ICCProfile 00282110 CS LossyImageCompression
00480010 CS SpecimenLabelInImage 00280A02 CS PixelSpacingCalibrationType 00281050 DS WindowCenter
00281051 DS WindowWidth 00281052 DS RescaleIntercept 00281053 DS RescaleSlope 00281054 LO RescaleType
00281056 CS VOILUTFunction 00283000 SQ ModalityLUTSequence 00283010 SQ VOILUTSequence 00289132 SQ FrameVOILUTSequence
00289145 SQ PixelValueTransformationSequence 00409096 SQ RealWorldValueMappingSequence
0040A375 SQ CurrentRequestedProcedureEvidenceSequence 00540010 US EnergyWindowVector
00540016 SQ RadiopharmaceuticalInformationSequence 00540022 SQ DetectorInformationSequence
00540060 US RRIntervalVector 00540070 US TimeSlotVector 00540080 US SliceVector 00540100 US TimeSliceVector
00541001 CS Units 00541006 CS SUVType 00541102 CS DecayCorrection 00541300 DS FrameReferenceTime 30040002 CS DoseUnits
20500020 CS PresentationLUTShape 3004000C DS GridFrameOffsetVector 3004000E DS DoseGridScaling
30060010 SQ ReferencedFrameOfReferenceSequence
52009229 SQ SharedFunctionalGroupsSequence 52009230 SQ PerFrameFunctionalGroupsSequence 7FE00008 OF FloatPixelData
7FE00009 OD DoubleFloatPixelData 7FE00010 OW PixelData
"""
_STATED = _ATTRIBUTES.split()
TAGS = {keyword: int(tag, 16) for tag, keyword in zip(_STATED[::3], _STATED[2::3], strict=True)}
# "XS" stands for US or SS, which PixelRepresentation decides.
REPRESENTATIONS = {int(tag, 16): vr.encode() for tag, vr in zip(_STATED[::3], _STATED[1::3], strict=True)}

_DECIMAL = re.compile(r" *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)? *")
_INTEGER = re.compile(r" *[+-]?\d{1,12} *")
LONGEST_DECIMAL = 32  # characters; what is longer is left to pydicom, and to the rule of `tags`
_EXPLICIT = struct.Struct("<HH2sH")


class DicomDataset(Protocol):
    """The data set of a header: pydicom's, or `Elements`."""

    @property
    def original_encoding(self) -> tuple[bool | None, bool | None]:
        """(whether VRs are implicit, whether words are little endian) in the file."""

    def __contains__(self, name: Any, /) -> bool: ...

    def __getitem__(self, key: Any, /) -> Any: ...

    def keys(self) -> Set[Any]:
        """The tags."""

    def get(self, key: Any, default: Any = None, /) -> Any:
        """The value of a keyword."""


class UnusualError(Exception):
    """A file that is left to pydicom."""


class Element(NamedTuple):
    """One element, as far as pydicom's own are asked here."""

    VR: str
    value: Any


class Elements:
    """The elements before the pixels of a plain image, those of group 2 among them.

    raw:   the file from its start to the pixel element
    index: {tag: (VR, offset of the value, offset behind it)}; the VR is empty where it is not known
    """

    def __init__(self, raw: bytes, index: dict[int, tuple[bytes, int, int]], *, is_implicit: bool) -> None:
        self.raw, self.index = raw, index
        self.original_encoding: tuple[bool | None, bool | None] = (is_implicit, True)
        self._made: dict[int, Element] = {}

    @property
    def file_meta(self) -> Elements:
        """Group 2, whose tags no other group has."""
        return self

    @cached_property
    def library(self) -> pydicom.Dataset:
        """The same as pydicom reads it, for sequences and what is unusual."""
        dataset = pydicom.dcmread(BytesIO(self.raw), force=True, stop_before_pixels=True)
        for tag in set(PIXEL_ELEMENTS) & set(self.index):
            dataset.add_new(tag, "OW", b"")
        return dataset

    @cached_property
    def pixel_statement(self) -> tuple[Any, ...]:
        """The bytes that say how pixels lie and what they mean; files with the same bytes are looked at only once."""
        first, pixels = min(tag for tag in self.index if tag >= PIXEL_GROUP), max(self.index)
        start = self.index[first][1] - SHORTEST_HEAD
        return self.get("TransferSyntaxUID"), self.get("Modality"), first, pixels, self.raw[start:]

    @cached_property
    def creators(self) -> tuple[int, ...]:
        """The tags by which makers claim blocks of private elements."""
        return creator_tags(self.index)

    def keys(self) -> Set[int]:
        """The tags."""
        return self.index.keys()

    def __contains__(self, name: object) -> bool:
        return _tag(name) in self.index

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a keyword."""
        tag = tag_of_keyword(key)
        return default if tag is None or tag not in self.index else self[tag].value

    def __getitem__(self, key: int | str) -> Element:
        tag = _tag(key)
        if tag is None or tag not in self.index:
            raise KeyError(key)
        element = self._made.get(tag)
        if element is None:
            element = self._made[tag] = self._element(tag)
        return element

    def _element(self, tag: int) -> Element:
        vr, start, end = self.index[tag]
        if tag in PIXEL_ELEMENTS:
            return Element(vr.decode(), b"")
        if vr == b"XS":
            vr = b"SS" if self.get("PixelRepresentation") == 1 else b"US"
        convert = CONVERSIONS.get(vr)
        if convert is not None:
            raw = self.raw[start:end]
            try:
                return Element(vr.decode(), _share_value(vr, raw) if vr in SHARED else convert(raw))
            except (ValueError, struct.error):  # pydicom says what is wrong with it, or takes it none the less
                pass
        element = self.library[tag]
        return Element(str(element.VR), element.value)


def creator_tags(tags: Iterable[int]) -> tuple[int, ...]:
    """The elements of some tags by which makers claim blocks of private elements."""
    return tuple(tag for tag in tags if tag & 0x1FF00 == 0x10000 and tag & 0xFF >= FIRST_BLOCK)


@cache
def tag_of_keyword(keyword: str) -> int | None:
    """The tag of a keyword, None where the standard has no such word."""
    tag = TAGS.get(keyword)
    return tag if tag is not None else pydicom.datadict.tag_for_keyword(keyword)


def written_numbers(dataset: DicomDataset, keyword: str) -> list[str]:
    """The numbers of an attribute as they are written; empty text for what is no text."""
    tag = tag_of_keyword(keyword)
    if isinstance(dataset, Elements) and tag in dataset.index:
        vr, start, end = dataset.index[tag]
        if vr == b"DS":
            return dataset.raw[start:end].decode("latin-1").split("\\")
    value = dataset.get(keyword)
    values = list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
    texts = (one if isinstance(one, str) else getattr(one, "original_string", None) or "" for one in values)
    return [part for one in texts for part in one.split("\\")]


def _tag(key: Any) -> Any:
    """The tag of a keyword, and any other key as it is."""
    return tag_of_keyword(key) if isinstance(key, str) else key


def plain_elements(file: BinaryIO) -> tuple[Elements, int, int, int] | None:
    """(elements, offset, length and tag of the pixels) of a plain image; None for what pydicom has to read.

    An image is plain that has a preamble, a whole group 2 with a transfer syntax that is little endian and not
    deflated, elements in ascending order with VRs that the standard knows, and pixels.
    """
    for size in HEAD_SIZES:
        file.seek(0)
        raw = file.read(size)
        try:
            return _index_elements(raw)
        except UnusualError:
            return None
        except (struct.error, IndexError):  # it goes on behind what was read
            if len(raw) < size:
                return None
    return None


def _index_elements(raw: bytes) -> tuple[Elements, int, int, int]:
    """Raises UnusualError, or struct.error or IndexError where the bytes end before the pixels."""
    tag, _, start, length = element_head(raw, MAGIC_END, is_implicit=False)
    if raw[128:MAGIC_END] != b"DICM" or tag != 0x00020000 or length != 4:
        raise UnusualError
    meta_end = start + 4 + int.from_bytes(raw[start : start + 4], "little")
    index: dict[int, tuple[bytes, int, int]] = {}
    _, _, at, _ = _index(raw, start + 4, index, is_implicit=False, end=meta_end)
    syntax = _deciding(raw, index, "TransferSyntaxUID")
    implicit = syntax == IMPLICIT
    first, vr = raw[at : at + 2], raw[at + 4 : at + 6]
    contradicted = implicit and all(0x40 < letter < 0x5B for letter in vr)  # VRs that nobody promised
    if at != meta_end or {tag >> 16 for tag in index} != {2} or first <= b"\x02\0" or contradicted:
        raise UnusualError
    if syntax not in (IMPLICIT, EXPLICIT, *CODED):
        raise UnusualError
    tag, vr, value, length = _index(raw, at, index, is_implicit=implicit)
    if length == 0 or vr not in PIXEL_REPRESENTATIONS:
        raise UnusualError
    head = value - (8 if implicit else 12)
    index[tag] = (vr, head, head)
    if _deciding(raw, index, "SpecificCharacterSet") not in ASCII_SUPERSETS:
        raise UnusualError
    return Elements(raw[:head], index, is_implicit=implicit), value, length, tag


def _deciding(raw: bytes, index: dict[int, tuple[bytes, int, int]], keyword: str) -> Any:
    """The text by which the other elements are read; empty where it is absent."""
    vr, start, end = index.get(TAGS[keyword], (b"UI", 0, 0))
    try:
        return _words(raw[start:end]) if vr in (b"UI", b"CS") else None
    except ValueError as error:
        raise UnusualError from error


def _index(
    raw: bytes, at: int, index: dict[int, tuple[bytes, int, int]], *, is_implicit: bool, end: int | None = None
) -> tuple[int, bytes, int, int]:
    """Enter the elements from `at` on, up to the pixels or `end`; the tag, VR, offset and length of what stops it."""
    short, last = frozenset[bytes]() if is_implicit else SHORT_LENGTH, -1
    while end is None or at < end:
        group, element, vr, length = _EXPLICIT.unpack_from(raw, at)
        tag, start = group << 16 | element, at + SHORTEST_HEAD
        if vr not in short or group >= PIXELS_GROUP:  # few: the call takes longer than all else here
            tag, vr, start, length = element_head(raw, at, is_implicit=is_implicit)
            if tag in PIXEL_ELEMENTS:
                return tag, vr, start, length
        if tag <= last or group == 0xFFFE:  # a delimiter of nothing
            raise UnusualError
        at = start + length if length != UNDEFINED else offset_behind_sequence(raw, start, vr, is_implicit, DEEPEST)
        if at > len(raw):
            raise IndexError
        index[tag] = (vr, start, at)
        last = tag
    return 0, b"", at, 0


def element_head(raw: bytes, at: int, *, is_implicit: bool) -> tuple[int, bytes, int, int]:
    """(tag, VR, offset of the value, its length) of the element at an offset; delimiters have no VR."""
    group, element, vr, length = _EXPLICIT.unpack_from(raw, at)
    tag = group << 16 | element
    if is_implicit or group == 0xFFFE:
        is_creator = group & 1 and FIRST_BLOCK <= element <= 0xFF
        vr = b"LO" if is_creator else REPRESENTATIONS.get(tag, b"")
        return tag, vr, at + 8, int.from_bytes(raw[at + 4 : at + 8], "little")
    if vr in SHORT_LENGTH:
        return tag, vr, at + 8, length
    if vr not in LONG_LENGTH:
        raise UnusualError
    return tag, vr, at + 12, int.from_bytes(raw[at + 8 : at + 12], "little")


def offset_behind_sequence(raw: bytes, at: int, vr: bytes, is_implicit: bool, depth: int) -> int:
    """The offset behind a sequence of undefined length whose first item is at an offset."""
    if vr not in (b"SQ", b"") or depth == 0:
        raise UnusualError
    while True:
        tag, _, at, length = element_head(raw, at, is_implicit=is_implicit)
        if tag == SEQUENCE_END:
            return at
        if tag != ITEM:
            raise UnusualError
        at = at + length if length != UNDEFINED else _behind_item(raw, at, is_implicit, depth)


def _behind_item(raw: bytes, at: int, is_implicit: bool, depth: int) -> int:
    while True:
        tag, vr, at, length = element_head(raw, at, is_implicit=is_implicit)
        if tag == ITEM_END:
            return at
        at = at + length if length != UNDEFINED else offset_behind_sequence(raw, at, vr, is_implicit, depth - 1)


def _ascii(raw: bytes) -> str:
    if not raw.isascii() or b"\x1b" in raw:
        raise ValueError("characters of another set")
    return raw.decode().rstrip(" \0")


def _words(raw: bytes) -> Any:
    return _one_or_all(_ascii(raw).split("\\"))


def _name(raw: bytes) -> Any:
    if b"=" in raw:
        raise ValueError("a name in several scripts")
    return _words(raw)


def _text_converter(shape: re.Pattern[str], kind: Callable[[str], float]) -> Callable[[bytes], Any]:
    """The converter of numbers that are written as text."""

    def convert(raw: bytes) -> Any:
        """The number, or the list of them."""
        words = _ascii(raw).split("\\")
        if not all(map(shape.fullmatch, words)) or max(map(len, words)) > LONGEST_DECIMAL:
            raise ValueError("no number")
        return _one_or_all([kind(word) for word in words])

    return lambda raw: convert(raw) if raw else None


def _binary_converter(code: str) -> Callable[[bytes], Any]:
    """The converter of binary numbers."""
    size = struct.calcsize(code)
    return lambda raw: _one_or_all(list(struct.unpack(f"<{len(raw) // size}{code}", raw))) if raw else None


def _one_or_all(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else tuple(values)


CONVERSIONS: dict[bytes, Callable[[bytes], Any]] = {
    **dict.fromkeys((b"AS", b"CS", b"DA", b"DT", b"LO", b"SH", b"TM", b"UI"), _words),
    b"PN": _name,
    b"DS": _text_converter(_DECIMAL, float),
    b"IS": _text_converter(_INTEGER, int),
    b"US": _binary_converter("H"),
    b"SS": _binary_converter("h"),
    b"UL": _binary_converter("I"),
    b"SL": _binary_converter("i"),
    b"FL": _binary_converter("f"),
    b"FD": _binary_converter("d"),
}
# The files of a series share most of these; of texts that may name a person nothing is kept.
SHARED = frozenset((b"CS", b"DS", b"IS", b"US"))


@lru_cache(1 << 12)
def _share_value(vr: bytes, raw: bytes) -> Any:
    return CONVERSIONS[vr](raw)
