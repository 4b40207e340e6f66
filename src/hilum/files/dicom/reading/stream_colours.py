"""The colour model of a compressed frame: of what its header and its code stream state, the one that decoders believe.

A lossy JPEG stream that states its colours is believed, as libjpeg, pydicom and dcm4che do; one that does not is what
the header says. A lossless one (JPEG and JPEG-LS) transforms nothing, so the header is believed as in DCMTK and
dcm4che, but for components that are named R, G and B, as in pydicom. A component transform of JPEG 2000, and the sYCC
of a JP2 file around it, are undone by the decoder, and a YBR_FULL of the header after it: pydicom with each of its
decoders.
"""

from __future__ import annotations

from hilum.files import _picture_streams
from hilum.files._picture_streams import CODESTREAM, LOSSLESS, MODELS, OF_NAMES, RGB, YCBCR, StatedColours
from hilum.files.dicom.header_reading import Header
from hilum.files.dicom.reading.pixel_layout import PixelLayout
from hilum.files.dicom.uids import JPEG, JPEG_2000, JPEG_LS

JPEG_LS_FRAME = 0xF7
STREAM_HEAD = 1 << 20  # bytes before the first scan or tile: some hundred, and a colour profile
TRANSFORMED = ("YBR_RCT", "YBR_ICT", "XYB")  # what the decoders of JPEG 2000 and JPEG XL undo, PS3.5 8.2.4
START_OF_TILE, CODING_STYLE = b"\xff\x90", b"\xff\x52"


def is_lossy_colour(frame: bytes) -> bool:
    """Whether three components of a JPEG stream come out as RGB: a lossless one has no colour transform of its own."""
    code, header = _picture_streams.start_of_frame(frame)
    return header.size.samples == 3 and code not in (*LOSSLESS, JPEG_LS_FRAME)


def space_of_jpeg(frame: bytes, photometric: str) -> str:
    """The colour space of a lossy JPEG stream of three components: RGB or YCBCR."""
    stated = _picture_streams.stated_colours(frame)
    if stated is not None:
        return stated.model
    return RGB if photometric == "RGB" else YCBCR


def photometric_after(frame: bytes, syntax: str, photometric: str) -> str:
    """The photometric interpretation of what a codec gives of a frame, where the header states this one."""
    is_undone = photometric in TRANSFORMED
    if syntax in JPEG_2000:
        is_undone |= _picture_streams.is_sycc(frame)
    elif syntax in JPEG | JPEG_LS and photometric.startswith("YBR"):
        is_undone = is_lossy_colour(frame) or _names_colours(frame)
    return "RGB" if is_undone else photometric


def contradiction_notes(head: Header, layout: PixelLayout) -> tuple[str, ...]:
    """The note on a header and a code stream that state different colours, with the one that is believed."""
    if layout.samples != 3 or not len(head.fragments):
        return ()
    at, length = head.fragments[0].tolist()
    with head.path.open("rb") as file:
        file.seek(at)
        start = file.read(min(length, STREAM_HEAD))
    try:
        note = _contradiction_note(start, layout.syntax, layout.photometric)
    except ValueError:  # its head is cut or damaged, which decoding says
        return ()
    return () if note is None else (note,)


def _contradiction_note(start: bytes, syntax: str, photometric: str) -> str | None:
    """The note for the bytes of a frame before its first scan or tile. Raises ValueError for fewer."""
    header = f"the header states {photometric}"
    if syntax in JPEG_2000:
        return _note_on_jpeg_2000(start, header, photometric)
    if syntax not in JPEG | JPEG_LS:
        return None
    is_lossy, is_named = is_lossy_colour(start), _names_colours(start)
    stated = StatedColours(RGB, OF_NAMES) if is_named and not is_lossy else _picture_streams.stated_colours(start)
    if stated is None or (stated.model == RGB) == (photometric == "RGB"):
        return None
    kind = "JPEG-LS" if syntax in JPEG_LS else "JPEG"
    believed = "stream" if is_lossy or is_named else "header"
    return f"{header} and its {kind} stream {MODELS[stated.model]} ({stated.where}): the {believed} is believed"


def _note_on_jpeg_2000(start: bytes, header: str, photometric: str) -> str | None:
    is_transformed = _has_component_transform(start)
    if _picture_streams.is_sycc(start):
        is_alike = photometric.startswith("YBR_FULL")
        return None if is_alike else f"{header} and the JP2 file in it sYCC: that file is believed"
    if is_transformed is False and photometric in TRANSFORMED:
        return f"{header} and its JPEG 2000 stream no colour transform: taken for RGB, a guess"
    if is_transformed and photometric.startswith("YBR_FULL"):
        return f"{header} and its JPEG 2000 stream a colour transform: both are undone, a guess"
    return None


def _names_colours(frame: bytes) -> bool:
    """Whether three components are named R, G and B."""
    _, header = _picture_streams.start_of_frame(frame)
    return header.names == RGB


def _has_component_transform(start: bytes) -> bool | None:
    """Whether a JPEG 2000 stream states a colour transform, ISO/IEC 15444-1 A.6.1; None where its start shows none."""
    at = start.find(CODESTREAM) + 2
    while 2 <= at <= len(start) - 9 and start[at : at + 2] != START_OF_TILE:
        if start[at : at + 2] == CODING_STYLE:
            return start[at + 8] == 1
        at += 2 + int.from_bytes(start[at + 2 : at + 4], "big")
    return None
