"""Picture formats (PNG, JPEG, BMP, GIF, WebP, JPEG 2000): pixels without size in mm and without sides.

A picture's dots per inch are the size at which to print it, not that of the patient: they are not used.
WebP (RFC 9649) is read without Pillow, which takes two pictures' memory before it looks at one.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image

from hilum.errors import FormatError
from hilum.files import _picture_streams, label_table, pixel_aspect, synthetic_marks, video
from hilum.files.format_options import Format, ReadOptions
from hilum.files.synthetic_marks import SYNTHETIC
from hilum.files.video import KINDS, PIL_ERRORS
from hilum.values import Array, FactRule, FileFacts, Geometry, Image, Label, Source

# Names of the channels, by their number.
CHANNELS: dict[int, tuple[str, ...]] = {1: ("0",), 2: ("0", "A"), 3: ("R", "G", "B"), 4: ("R", "G", "B", "A")}
MOST_SAMPLES = max(CHANNELS)
WRITTEN = ".png"
# Pillow's names of formats whose values are not those that were written, and of one that it cuts to 8 bits.
LOSSY = ("JPEG", "MPO")
PNG = "PNG"
# What takes as many bytes as the picture has; Pillow takes four for the three of a colour, and cuts 16 bits to 8.
DECODERS: Mapping[str, Callable[[bytes], Array]] = {
    PNG: imagecodecs.png_decode,
    "JPEG2000": imagecodecs.jpeg2k_decode,
    **dict.fromkeys(LOSSY, imagecodecs.jpeg8_decode),
}
STRAIGHT = ("L", "LA", "RGB", "RGBA", "I;16")
# Pillow's modes: palettes, other colour models, and 32-bit integers, of which no format here stores more than 16 bits.
PALETTE, PALETTES, CONVERTED, WIDE = "P", ("P", "PA"), ("CMYK", "YCbCr", "LAB", "HSV"), ("I",)
NOTES = {
    "1": "one bit a pixel: 0 and 1",
    **dict.fromkeys(PALETTES, "the palette's colours were filled in"),
    **{mode: f"{mode} was converted to red, green, blue" for mode in CONVERTED},
}
COPIED_BYTES = 1 << 25
# EXIF orientations whose columns or rows run backwards; by how many quarters each is then turned to the left; and those
# in which rows become columns.
MIRRORED, FLIPPED, QUARTERS = (2, 7), (4, 5), {3: 2, 5: 3, 6: 3, 7: 3, 8: 1}
SIDEWAYS = (5, 6, 7, 8)
# A JPEG states EXIF before its pixels, within one segment of so many bytes; a PNG anywhere.
BEGINNING, PNG_SIGNATURE = 1 << 16, b"\x89PNG"
# Of a byte of the file at most: Deflate makes 1032 bytes of it, LZW a row of 4096 of one and a half.
MOST_PIXELS = {PNG: 8 * 1032, "GIF": 2731}
BAND = 256  # rows
# Keys of texts of a PNG (ISO 15948, 11.3.4.2) and the library's name of the comment of a JPEG or GIF.
TEXTS = frozenset({
    "Title", "Author", "Description", "Copyright", "Creation Time", "Disclaimer", "Warning", "Source", "Comment",
    "XML:com.adobe.xmp", "comment",
})  # fmt: skip
MOVING = 0x02  # of the flags in VP8X
ORIENTATION = 0x0112  # EXIF 2.32, table 4


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """One picture, (channels, rows, columns): grey, or R, G, B, with A where it is not opaque everywhere.

    A moving GIF has frames. Raises FormatError for a damaged picture, one of several pages, or one so large
    that it may be an attack.
    """
    if video.is_moving(path):
        return {path.stem: video.read_moving(path)}
    pixels, notes, facts = _decode(path, options)
    if pixels.shape[-1] in (2, 4) and is_opaque(pixels[..., -1]):
        pixels, notes = pixels[..., :-1], [*notes, "an alpha channel that is opaque everywhere was left out"]
    if pixels.shape[-1] == 3 and np.array_equal(pixels[..., 0], pixels[..., 1]):
        facts = {**facts, "equal_channels": bool(np.array_equal(pixels[..., 0], pixels[..., 2]))}
    return {path.stem: label_table.with_own_table(image_from_pixels(pixels, path, "picture", notes, facts), path)}


def image_from_pixels(pixels: Array, path: Path, kind: str, notes: list[str], facts: FileFacts) -> Image:
    """An Image from (rows, columns, channels) without physical size."""
    ordered = planes_first(np.moveaxis(pixels, -1, 0))
    return Image(
        ordered,
        Geometry.of_pixels(ordered.shape[1:]),
        channels=CHANNELS.get(len(ordered), ()),
        notes=tuple(notes),
        facts=facts,
        source=Source(kind, (str(path),)),
    )


def planes_first(pixels: Array) -> Array:
    """(channels, ...) samples, each plane in one piece; large ones stay where they were decoded, unless turned."""
    turned = any(step < 0 for step in pixels.strides)
    return np.ascontiguousarray(pixels) if turned or pixels.nbytes < COPIED_BYTES else pixels


def read_palette_indices(path: Path, options: ReadOptions) -> Image | None:
    """The palette's indices, with the colours as labels: the values and classes of a label map in a picture.

    None where the picture has no palette, or one of greys in another order than their indices: that is a grey
    picture which some program has made smaller.
    """
    if not _has_palette(path):
        return None
    with _errors_named(path), _open_picture(path) as opened:
        colours = np.asarray(opened.getpalette("RGB"), dtype=int).reshape(-1, 3)
        indices = apply_exif_orientation(
            np.asarray(opened)[..., None], 1 if options.stored else _orientation(opened, path)
        )
    used = [int(value) for value in np.unique(indices)]
    greys = (colours[used] == colours[used][:, :1]).all()
    if greys and not (np.diff(colours[used][:, 0]) > 0).all():
        return None
    labels = tuple(Label(value, str(value), tuple(colours[value].tolist())) for value in used if value)
    image = image_from_pixels(indices, path, "picture", ["palette indices were read as labels"], {})
    return label_table.with_own_table(replace(image, labels=labels), path)


def write(image: Image, path: Path) -> None:
    """Write a PNG: integers of 8 or 16 bits, grey or colour, exactly as they are.

    Raises FormatError for what a PNG cannot hold: floats, negative values, volumes, frames, a place in the patient.
    """
    if path.suffix.lower() != WRITTEN:
        raise FormatError(f"{path.suffix} is not written, because it may change values", str(path), "Write .png")
    stream, mark = bytes(imagecodecs.png_encode(_storable(image, path))), image.facts.get(SYNTHETIC)
    path.write_bytes(synthetic_marks.marked_png(stream, mark) if mark else stream)


def _storable(image: Image, path: Path) -> Array:
    """(rows, columns[, channels]) of 8 or 16 bits."""
    where, elsewhere = str(path), "Write .nii.gz, .nrrd or .tiff"
    if not image.geometry.is_picture:
        raise FormatError("a PNG holds no volume", where, elsewhere)
    if image.frames is not None:
        raise FormatError("a PNG holds no frames", where, elsewhere)
    if image.geometry.physical or image.geometry.oriented:
        raise FormatError("a PNG cannot hold where the pixels lie in mm", where, elsewhere)
    if len(image.channels) not in CHANNELS:
        raise FormatError(f"a PNG holds no {len(image.channels)} channels", where, elsewhere)
    data = image.data
    if not (data.dtype == bool or np.issubdtype(data.dtype, np.integer)):
        raise FormatError(f"a PNG holds no {data.dtype} values", where, elsewhere)
    low, high = (int(data.min()), int(data.max())) if data.dtype != bool else (0, 1)
    if low < 0 or high > 65535:
        raise FormatError(f"a PNG holds 0 to 65535, not {low} to {high}", where, elsewhere)
    depth = np.uint16 if data.dtype.itemsize > 1 and (data.dtype == np.uint16 or high > 255) else np.uint8
    rows = np.moveaxis(data.astype(depth), 0, -1)
    # A copy has plain strides even where an axis holds one pixel; the encoder insists on them.
    return (rows[..., 0] if rows.shape[-1] == 1 else rows).copy(order="C")


def _decode(path: Path, options: ReadOptions) -> tuple[Array, list[str], FileFacts]:
    """(rows, columns, channels), upright unless they are wanted as stored, with notes and facts."""
    notes: list[str] = []
    facts: FileFacts = {}
    with _errors_named(path):
        if _is_webp(path):
            pixels, orientation = _read_webp(path)
        else:
            with _open_picture(path) as opened:
                facts = {"lossy": True} if opened.format in LOSSY else {}
                orientation = _orientation(opened, path)
                across, down = _density(opened)
                if orientation in SIDEWAYS and not options.stored:
                    across, down = down, across
                # The more pixels lie on a length, the smaller each is.
                notes += pixel_aspect.aspect_notes(down, across)
                notes += _notes_beside(opened)
                if _is_straight(opened):
                    pixels = _by_codec(opened, path)
                else:
                    colours = _of_bmp(opened, path)
                    pixels = _plain(opened, notes) if colours is None else colours
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if options.stored:
        return pixels, notes, facts
    if orientation != 1:
        notes.append(f"turned upright by EXIF orientation {orientation}")
    return apply_exif_orientation(pixels, orientation), notes, facts


def _notes_beside(opened: PIL.Image.Image) -> list[str]:
    """Notes on what lies beside the pixels: texts by their keys, whose words may name a person, and a profile."""
    texts = sorted(key for key in opened.info if key in TEXTS)
    notes = [f"texts beside the pixels were left out ({', '.join(texts)})"] if texts else []
    return (
        [*notes, "a colour profile was not applied: colours are as stored"] if "icc_profile" in opened.info else notes
    )


def _density(opened: PIL.Image.Image) -> tuple[float, float]:
    """Pixels a length across and down, of whatever unit; zeros where nothing is stated."""
    info = opened.info
    stated = info.get("aspect") or info.get("dpi") or info.get("jfif_density") or (0, 0)
    return float(stated[0]), float(stated[1])


def _is_straight(opened: PIL.Image.Image) -> bool:
    """Whether what is stored is what is shown, and a decoder of its own gives it."""
    kind = opened.format or ""
    if kind in LOSSY and opened.mode not in ("L", "RGB"):
        return False
    return kind in DECODERS and opened.mode in STRAIGHT


def _by_codec(opened: PIL.Image.Image, path: Path) -> Array:
    """The pixels by the decoder of their format. Raises ValueError for a stream of another size than its header."""
    stream, kind = path.read_bytes(), opened.format or ""
    size = _picture_streams.stated_size(stream)
    if (size.columns, size.rows) != opened.size or size.samples > MOST_SAMPLES:
        raise ValueError(f"it states {size.columns} x {size.rows} of {size.samples} samples and {opened.size}")
    if kind in LOSSY and not _picture_streams.has_end(stream):
        raise ValueError("it is cut short")
    pixels = DECODERS[kind](stream)
    return np.asarray(pixels)


def _plain(opened: PIL.Image.Image, notes: list[str]) -> Array:
    """The pixels in grey or red, green, blue, as deep as they are stored."""
    mode = opened.mode
    if mode in NOTES:
        notes.append(NOTES[mode])
    if mode in PALETTES:
        clear = mode != PALETTE or "transparency" in opened.info
        colour = _in_bands(opened, "RGBA" if clear else "RGB")
        grey = not clear and all(np.array_equal(colour[..., 0], colour[..., n]) for n in (1, 2))
        return colour[..., :1] if grey else colour
    if mode in CONVERTED:
        return _in_bands(opened, "RGB")
    pixels = _in_bands(opened)
    if mode.startswith("I;16") or (mode in WIDE and pixels.min() >= 0 and pixels.max() <= 65535):
        return pixels.astype(np.uint16)
    return pixels.astype(np.uint8) if pixels.dtype == bool else pixels


def _in_bands(opened: PIL.Image.Image, mode: str = "") -> Array:
    """The pixels, in another mode if one is named; the library converts and hands on copies, here of some rows only."""
    columns, rows = opened.size

    def band(start: int) -> Array:
        part = opened.crop((0, start, columns, min(rows, start + BAND)))
        return np.asarray(part.convert(mode) if mode else part)

    first = band(0)
    pixels = np.empty((rows, *first.shape[1:]), first.dtype)
    for start in range(0, rows, BAND):
        pixels[start : start + BAND] = band(start)
    return pixels


def _of_bmp(opened: PIL.Image.Image, path: Path) -> Array | None:
    """The colours of a BMP of three bytes each, some rows at a time; None for any other picture.

    The library would hold four bytes for each three, and a copy.
    """
    plain = [one for one in getattr(opened, "tile", ()) if (one[0], one[3][0]) == ("raw", "BGR")]
    if opened.format != "BMP" or len(plain) != 1:
        return None
    [(_, _, offset, (_, stride, direction))] = plain
    columns, rows = opened.size
    pixels = np.empty((rows, columns, 3), np.uint8)
    upwards = pixels[::direction]
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        for start in range(0, rows, BAND):
            part = upwards[start : start + BAND]
            stored = np.fromfile(file, np.uint8, len(part) * stride).reshape(len(part), stride)
            part[...] = stored[:, : 3 * columns].reshape(part.shape)[..., ::-1]
    return pixels


@contextmanager
def _open_picture(path: Path) -> Iterator[PIL.Image.Image]:
    """The picture with its header read."""
    with video.open_header(path) as opened:
        frames, (columns, rows) = video.count_frames(opened), opened.size
        if frames > 1 and opened.format not in LOSSY:  # MPO: a JPEG with previews behind it
            raise FormatError(f"a moving picture of {frames} frames", str(path), "Save its frames as TIFF")
        most = MOST_PIXELS.get(str(opened.format), columns * rows) * path.stat().st_size
        if columns * rows > most:
            raise ValueError(f"{columns} x {rows} pixels in {path.stat().st_size} bytes")
        yield opened


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """A context in which what a decoder raises at a damaged picture becomes a FormatError."""
    try:
        yield
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise FormatError(
            f"has more than {PIL.Image.MAX_IMAGE_PIXELS or 0:,} pixels, which a small file can claim as an attack",
            str(path),
            "If it is genuine, cut it into tiles or save it as TIFF",
        ) from error
    except PIL.UnidentifiedImageError as error:
        raise FormatError(
            "is not a complete picture, or one of a kind that is not read",
            str(path),
            "Check what it is, or save it as PNG",
        ) from error
    except PIL_ERRORS as error:
        raise FormatError(f"is not a complete picture ({error})", str(path), "Get the file again") from error


def _has_palette(path: Path) -> bool:
    """Whether the header names a palette; what cannot be opened is left to `read`, which refuses it."""
    if _is_webp(path):
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PIL.Image.open(path, "r", KINDS) as opened:
                return opened.mode == PALETTE
    except PIL_ERRORS:
        return False


def _orientation(opened: PIL.Image.Image, path: Path) -> int:
    # Of a PNG the library decodes the picture to look for EXIF behind it; most have none, or before it.
    late = opened.format == PNG and "exif" not in opened.info and not _has_exif(path)
    exif = PIL.Image.Image.getexif(opened) if late else opened.getexif()
    value = exif.get(ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def apply_exif_orientation(pixels: Array, orientation: int) -> Array:
    """(rows, columns, channels) as the camera was held; EXIF 2.32, orientation."""
    if orientation in MIRRORED:
        pixels = pixels[:, ::-1]
    if orientation in FLIPPED:
        pixels = pixels[::-1]
    return np.rot90(pixels, QUARTERS.get(orientation, 0))


def exif_orientation(path: Path) -> int:
    """The EXIF orientation that the header states; 1 where it states none, or cannot be opened, which `read` says."""
    try:
        with _errors_named(path):
            if _is_webp(path):
                return _webp_orientation(path)
            if not _names_exif(path):
                return 1
            with _open_picture(path) as opened:
                return _orientation(opened, path)
    except FormatError:
        return 1


def stored_size(path: Path) -> tuple[int, int] | None:
    """(columns, rows) that the header states, before EXIF turns them; None where it cannot be opened."""
    try:
        with _errors_named(path):
            if _is_webp(path):
                size = _picture_streams.stated_size(path.read_bytes())
                return size.columns, size.rows
            with _open_picture(path) as opened:
                return opened.size
    except FormatError:
        return None


def _names_exif(path: Path) -> bool:
    """Whether the beginning of a file, or one of a PNG's chunks, may be EXIF: others need not be opened."""
    with path.open("rb") as file:
        beginning = file.read(BEGINNING)
    return b"exif" in beginning.lower() or (beginning.startswith(PNG_SIGNATURE) and _has_exif(path))


def is_opaque(alpha: Array) -> bool:
    """Whether a channel of unsigned integers has its highest value everywhere."""
    return np.issubdtype(alpha.dtype, np.unsignedinteger) and bool((alpha == np.iinfo(alpha.dtype).max).all())


def _has_exif(path: Path) -> bool:
    """Whether one of a PNG's chunks is EXIF, wherever it stands: PNG (ISO 15948), 5.3."""
    at, size = 8, path.stat().st_size
    with path.open("rb") as file:
        while at + 8 <= size:
            file.seek(at)
            length, kind = struct.unpack(">I4s", file.read(8))
            if kind == b"eXIf":
                return True
            at += 12 + length
    return False


def _is_webp(path: Path) -> bool:
    """Whether a file starts as a WebP picture."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[:4] == b"RIFF" and head[8:] == b"WEBP"


def _read_webp(path: Path) -> tuple[Array, int]:
    """((rows, columns, channels), EXIF orientation).

    Raises ValueError, RuntimeError or DecompressionBombError for what cannot be decoded, FormatError for a moving one.
    """
    stream = path.read_bytes()
    size, chunks = _picture_streams.stated_size(stream), dict(_chunks(stream))
    if size.rows * size.columns > (PIL.Image.MAX_IMAGE_PIXELS or size.rows * size.columns):
        raise PIL.Image.DecompressionBombError(f"{size.rows} x {size.columns} pixels")
    if chunks.get(b"VP8X", b"\0")[0] & MOVING:
        raise FormatError("a moving picture", str(path), "Save its frames as TIFF")
    return imagecodecs.webp_decode(stream), _exif_orientation(chunks)


def _webp_orientation(path: Path) -> int:
    """The EXIF orientation of a WebP picture; 1 where it states none."""
    return _exif_orientation(dict(_chunks(path.read_bytes())))


def _exif_orientation(chunks: Mapping[bytes, bytes]) -> int:
    exif = PIL.Image.Exif()
    exif.load(chunks.get(b"EXIF", b""))
    return int(exif.get(ORIENTATION, 1))


def _chunks(stream: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, body) of each chunk of the RIFF file."""
    at = 12
    while at + 8 <= len(stream):
        kind, length = struct.unpack_from("<4sI", stream, at)
        yield kind, stream[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


FACTS = (
    FactRule("PNG, JPEG and the like", "read", "how the camera was held (EXIF), colours of a palette"),
    FactRule("PNG, JPEG and the like", "named", "pixels that are not square"),
    FactRule("PNG, JPEG and the like", "named", "texts, and a colour profile"),
)
FORMAT = Format("picture", read, write, facts=FACTS)
