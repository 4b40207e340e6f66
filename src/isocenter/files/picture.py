"""PNG, JPEG, BMP, GIF, WebP and JPEG 2000: pictures of pixels, without size in mm and without sides.

A picture's dots per inch say how large it should be printed, not how large the patient is: they are not used.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import PIL.Image

from isocenter.errors import FormatError
from isocenter.files.format import Format, ReadOptions
from isocenter.files.moving import is_moving, read_moving
from isocenter.values import Array, Geometry, Image, Label, Source

# Names of the channels, by their number.
CHANNELS: dict[int, tuple[str, ...]] = {1: ("0",), 2: ("0", "A"), 3: ("R", "G", "B"), 4: ("R", "G", "B", "A")}
ORIENTATION = 0x0112  # EXIF 2.32, table 4


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """One picture, (channels, rows, columns): grey, or R, G, B, with A where it is not opaque everywhere.

    A moving GIF has frames. Raises FormatError for a damaged picture, another one that moves, or one so large
    that it may be an attack.
    """
    del options  # a picture leaves nothing to decide
    if is_moving(path):
        return {path.stem: read_moving(path)}
    pixels, notes, facts = _decoded(path)
    if pixels.shape[-1] in (2, 4) and is_opaque(pixels[..., -1]):
        pixels, notes = pixels[..., :-1], [*notes, "an alpha channel that is opaque everywhere was left out"]
    if pixels.shape[-1] == 3 and np.array_equal(pixels[..., 0], pixels[..., 1]):
        facts["equal_channels"] = bool(np.array_equal(pixels[..., 0], pixels[..., 2]))
    return {path.stem: picture(pixels, path, "picture", notes, facts)}


def picture(pixels: Array, path: Path, kind: str, notes: list[str], facts: Mapping[str, Any]) -> Image:
    """An Image from (rows, columns, channels) without physical size."""
    ordered = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    return Image(
        ordered,
        Geometry.of_pixels(ordered.shape[1:]),
        channels=CHANNELS.get(len(ordered), ()),
        notes=tuple(notes),
        facts=facts,
        source=Source(kind, (str(path),)),
    )


def read_indices(path: Path) -> Image | None:
    """The palette's indices, with the colours as labels: what a label map in a palette picture means.

    None where the picture has no palette, or one of greys in another order than their indices: that is a grey
    picture which some program has made smaller.
    """
    if not _has_palette(path):
        return None
    with _opened(path) as opened:
        colours = np.asarray(opened.getpalette("RGB"), dtype=int).reshape(-1, 3)
        indices = upright(np.asarray(opened)[..., None], _orientation(opened))
    used = [int(value) for value in np.unique(indices)]
    greys = (colours[used] == colours[used][:, :1]).all()
    if greys and not (np.diff(colours[used][:, 0]) > 0).all():
        return None
    labels = tuple(Label(value, str(value), tuple(colours[value].tolist())) for value in used if value)
    found = picture(indices, path, "picture", ["palette indices were read as labels"], {})
    return replace(found, labels=labels)


def write(image: Image, path: Path) -> None:
    """A PNG: integers of 8 or 16 bits, grey or colour, exactly as they are.

    Raises FormatError for what a PNG cannot hold: floats, negative values, volumes, frames, a place in the patient.
    """
    if path.suffix.lower() != ".png":
        raise FormatError(f"{path.suffix} is not written, because it may change values", str(path), "Write .png")
    path.write_bytes(imagecodecs.png_encode(_storable(image, path)))


def _storable(image: Image, path: Path) -> Array:
    """(rows, columns[, channels]) of 8 or 16 bits."""
    where, elsewhere = str(path), "Write .nii.gz, .nrrd or .tiff"
    if image.geometry.ndim != 2:
        raise FormatError("a PNG holds no volume", where, elsewhere)
    if image.frames is not None:
        raise FormatError("a PNG holds no frames", where, elsewhere)
    if image.geometry.physical or image.geometry.oriented:
        raise FormatError("a PNG cannot hold where the pixels lie in mm", where, elsewhere)
    if len(image.channels) not in CHANNELS:
        raise FormatError(f"a PNG holds no {len(image.channels)} channels", where, elsewhere)
    data = image.data
    if data.dtype.kind not in "bui":
        raise FormatError(f"a PNG holds no {data.dtype} values", where, elsewhere)
    low, high = (int(data.min()), int(data.max())) if data.dtype != bool else (0, 1)
    if low < 0 or high > 65535:
        raise FormatError(f"a PNG holds 0 to 65535, not {low} to {high}", where, elsewhere)
    depth = np.uint16 if data.dtype.itemsize > 1 and (data.dtype == np.uint16 or high > 255) else np.uint8
    rows = np.moveaxis(data.astype(depth), 0, -1)
    # A copy has plain strides even where an axis holds one pixel; the encoder insists on them.
    return (rows[..., 0] if rows.shape[-1] == 1 else rows).copy(order="C")


def _decoded(path: Path) -> tuple[Array, list[str], dict[str, Any]]:
    """(rows, columns, channels), upright, with what had to be decided on the way."""
    notes: list[str] = []
    with _opened(path) as opened:
        facts: dict[str, Any] = {"lossy": True} if opened.format in ("JPEG", "MPO") else {}
        orientation = _orientation(opened)
        if opened.format == "JPEG2000" or _is_deep_colour_png(path):
            # Pillow cuts 16-bit colour to 8 bits.
            decode = imagecodecs.jpeg2k_decode if opened.format == "JPEG2000" else imagecodecs.png_decode
            pixels = decode(path.read_bytes())
        else:
            pixels = _plain(opened, notes)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if orientation != 1:
        notes.append(f"turned upright as EXIF orientation {orientation} says")
    return upright(pixels, orientation), notes, facts


def _plain(opened: PIL.Image.Image, notes: list[str]) -> Array:
    """The pixels in grey or red, green, blue, as deep as they are stored."""
    mode = opened.mode
    if mode == "1":
        notes.append("one bit a pixel: 0 and 1")
        return np.asarray(opened).astype(np.uint8)
    if mode in ("P", "PA"):
        notes.append("the palette's colours were filled in")
        clear = mode == "PA" or "transparency" in opened.info
        colour = np.asarray(opened.convert("RGBA" if clear else "RGB"))
        grey = not clear and bool((colour == colour[..., :1]).all())
        return colour[..., :1] if grey else colour
    if mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        notes.append(f"{mode} was converted to red, green, blue")
        return np.asarray(opened.convert("RGB"))
    if mode == "I":  # Pillow's 32-bit mode; no format here stores more than 16 bits
        pixels = np.asarray(opened)
        return pixels.astype(np.uint16) if pixels.min() >= 0 and pixels.max() <= 65535 else pixels
    if mode.startswith("I;16"):
        return np.asarray(opened).astype(np.uint16)
    return np.asarray(opened)


def _opened(path: Path) -> PIL.Image.Image:
    """The picture, decoded; whatever is wrong with it said in our words."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            opened = PIL.Image.open(path)
        frames = getattr(opened, "n_frames", 1)
        if frames > 1 and opened.format != "MPO":  # MPO: a JPEG with previews behind it
            raise FormatError(f"a moving picture of {frames} frames", str(path), "Save its frames as TIFF")
        opened.load()
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise FormatError(
            f"has more than {PIL.Image.MAX_IMAGE_PIXELS or 0:,} pixels, which a small file can claim as an attack",
            str(path),
            "If it is genuine, cut it into tiles or save it as TIFF",
        ) from error
    except PIL.UnidentifiedImageError as error:
        raise FormatError(
            "is no whole picture, or one of a kind that is not read", str(path), "Check what it is, or save it as PNG"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise FormatError(f"is no whole picture ({error})", str(path), "Get the file again") from error
    return opened


def _has_palette(path: Path) -> bool:
    """From the header alone; what cannot be opened is left to `read`, which says why."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PIL.Image.open(path) as opened:
                return opened.mode == "P"
    except Exception:  # a damaged file can make the library throw anything
        return False


def _orientation(opened: PIL.Image.Image) -> int:
    value = opened.getexif().get(ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def upright(pixels: Array, orientation: int) -> Array:
    """(rows, columns, channels) as the camera was held; EXIF 2.32, orientation."""
    if orientation in (2, 7):
        pixels = pixels[:, ::-1]
    if orientation in (4, 5):
        pixels = pixels[::-1]
    turns = {3: 2, 5: 3, 6: 3, 7: 3, 8: 1}.get(orientation, 0)
    return np.rot90(pixels, turns)


def is_opaque(alpha: Array) -> bool:
    return bool((alpha == np.iinfo(alpha.dtype).max).all())


def _is_deep_colour_png(path: Path) -> bool:
    """16 bits a channel and more than one channel: PNG (ISO 15948), IHDR."""
    with path.open("rb") as file:
        head = file.read(26)
    return head.startswith(b"\x89PNG") and head[24] == 16 and head[25] in (2, 4, 6)


FORMAT = Format("picture", read, write)
