"""The NRRD format, https://teem.sourceforge.net/nrrd/format.html, and Slicer's segmentations in it (.seg.nrrd)."""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from isocenter.errors import FormatError
from isocenter.files import label_table
from isocenter.files.format import Format, ReadOptions
from isocenter.files.label_table import checked, clean
from isocenter.files.nrrd.header import Header, read_header
from isocenter.files.nrrd.space import grid_of, layout_of, space_fields
from isocenter.files.plain import COLOUR_CHANNELS, channels_first, created, write_voxels
from isocenter.files.storage import Block, Compression, each_once, inside_folder, is_compressed
from isocenter.files.times import uniform_step
from isocenter.values import Array, Code, Deferred, Image, Label, Source

TYPES: dict[str, tuple[str, ...]] = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
ENCODINGS: dict[str, Compression] = {
    "raw": "none",
    "gz": "gzip",
    "gzip": "gzip",
    "bz2": "bzip2",
    "bzip2": "bzip2",
    "txt": "text",
    "text": "text",
    "ascii": "text",
}
ORDERS: dict[str, Literal["<", ">"]] = {"little": "<", "big": ">"}
NAMES = {np.dtype(kind): names[-2] if len(names) > 1 else names[0] for kind, names in TYPES.items()}


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """The one volume of the file; axes of kind time become frames, other axes outside space become channels."""
    header = read_header(path)
    layout = layout_of(header, path)
    geometry, notes = grid_of(header, layout, path)
    block = _block(header, path, layout.axes)
    pixels = block.deferred()
    segments = segments_of(header, pixels.shape[0], path)
    channels: tuple[str, ...] = ()
    labels = label_table.of_file(path)
    if segments and pixels.shape[0] == 1:
        labels = tuple(segment.label for segment in segments)
    elif segments:  # layers overlap, and a value means one thing in each: one channel a segment is unambiguous
        pixels = _one_channel_each(block, pixels, segments)
        channels = tuple(segment.label.name for segment in segments)
        labels = (replace(segments[0].label, value=1),) if len(segments) == 1 else labels
        notes.append("Segments in several layers: one channel of 0 and 1 for each.")
    elif layout.colours and pixels.shape[0] in COLOUR_CHANNELS:
        channels = COLOUR_CHANNELS[pixels.shape[0]]
    image = Image(
        pixels,
        geometry,
        channels=channels,
        times=layout.times,
        labels=labels,
        notes=tuple(notes),
        facts=layout.facts,
        source=Source("nrrd", each_once(path, block.path, *label_table.own_tables(path))),
    )
    return {path.name.removesuffix(path.suffix).removesuffix(".seg"): image}


def write(image: Image, path: Path) -> None:
    """One gzip-compressed file with its header, sides and shear included; Slicer's segments for a .seg.nrrd."""
    if path.name.lower().endswith(".nhdr"):
        raise FormatError("NRRD is written as a single file", str(path), "Choose a name that ends in .nrrd")
    ordered = channels_first(image, str(path))
    ordered = ordered if len(image.channels) > 1 else ordered[0]
    lines = ["NRRD0005", f"type: {NAMES[ordered.dtype]}", f"dimension: {ordered.ndim}"]
    lines += [f"sizes: {' '.join(str(n) for n in ordered.shape)}", "endian: little", "encoding: gzip"]
    lines += space_fields(image.geometry, *_outside_space(image))
    if path.name.lower().endswith(".seg.nrrd"):
        lines += segment_fields(image)
    with created(path, compressed=False) as file:
        file.write(("\n".join(lines) + "\n\n").encode())
        with gzip.GzipFile("", "wb", 4, file, mtime=0) as stream:
            write_voxels(stream, ordered)


def _outside_space(image: Image) -> tuple[str | None, bool, float | None]:
    """(kind of an axis of channels, whether there are frames, seconds between them)."""
    first = None
    if len(image.channels) > 1:
        coloured = image.channels == COLOUR_CHANNELS.get(len(image.channels))
        first = f"{''.join(image.channels)}-color" if coloured else "vector"
    return first, image.frames is not None, uniform_step(image.times)


def _block(header: Header, path: Path, axes: tuple[int, ...]) -> Block:
    dtype, encoding = _number_type(header, path), header.field("encoding").lower()
    if encoding not in ENCODINGS:
        raise FormatError(f"the encoding {encoding!r} cannot be read", str(path), "Save it again as raw or gzip")
    name = header.get("data file") or header.get("datafile")  # nothing where the voxels follow the header
    data = inside_folder(name, path) if name else path
    start, offset = 0 if name else header.end, header.integer("byte skip", 0)
    for _ in range(lines := header.integer("line skip", 0)):
        start = _after_line(data, start, lines)
    if offset == -1 and not is_compressed(ENCODINGS[encoding]):  # the voxels are the end of the file
        start, offset = data.stat().st_size - prod(header.sizes) * dtype.itemsize, 0
    shape = (*header.sizes, 1, 1)[: len(axes)]  # axes that the file leaves out have length 1
    return Block(data, dtype, shape, axes, start, offset, ENCODINGS[encoding])


def _number_type(header: Header, path: Path) -> np.dtype[Any]:
    """The voxels' type with its byte order, which has to be stated for numbers of several bytes that are no text."""
    name = header.field("type").lower()
    kind = next((kind for kind, names in TYPES.items() if name in names), None)
    if kind is None:
        raise FormatError(f"voxels of type {name!r} cannot be read", str(path), "Save it again as common numbers")
    dtype = np.dtype(kind)
    if dtype.itemsize == 1 or ENCODINGS.get(header.field("encoding").lower()) == "text":
        return dtype
    endian = header.field("endian").lower()
    if endian not in ORDERS:
        problem = f"the byte order {endian!r} cannot be read"
        raise FormatError(problem, str(path), "Save it again as common numbers")
    return dtype.newbyteorder(ORDERS[endian])


def _after_line(path: Path, start: int, lines: int) -> int:
    with path.open("rb") as file:
        file.seek(start)
        if lines > 10000 or not file.readline(1 << 16).endswith(b"\n"):
            raise FormatError("fewer lines than the header skips", str(path), "Get the file again")
        return file.tell()


def _one_channel_each(block: Block, pixels: Deferred, segments: tuple[Segment, ...]) -> Deferred:
    where = tuple((segment.layer, segment.label.value) for segment in segments)
    shape = (len(where), *pixels.shape[1:])
    return Deferred(shape, np.dtype(np.uint8), partial(_layers, block, where), None)


def _layers(block: Block, where: tuple[tuple[int, int], ...]) -> Array:
    layers = block.load()
    masks = np.empty((len(where), *layers.shape[1:]), np.uint8)
    for mask, (layer, value) in zip(masks, where, strict=True):
        np.equal(layers[layer], value, out=mask.view(np.bool_))
    return masks


@dataclass(frozen=True)
class Segment:
    """A label and the layer in which its value means it."""

    label: Label
    layer: int


def segments_of(header: Header, layers: int, path: Path) -> tuple[Segment, ...]:
    """The segments in the order of their numbers; none where the file is no segmentation.

    Raises FormatError for a segment in none of the file's layers, and for two with one value in one layer.
    """
    numbers = sorted({int(m[1]) for key in header.pairs if (m := re.match(r"Segment(\d+)_(?:Name|ID)$", key))})
    try:
        segments = tuple(_segment(header, number, layers) for number in numbers)
    except ValueError as error:
        raise FormatError(f"a segment that cannot be read ({error})", str(path), "Save it again in Slicer") from error
    if any(not 0 <= segment.layer < layers for segment in segments):
        raise FormatError("a segment lies in a layer that is not there", str(path), "Get the file again")
    for layer in {segment.layer for segment in segments}:
        checked([s.label for s in segments if s.layer == layer], str(path))
    return segments


def segment_fields(image: Image) -> list[str]:
    """Key/value lines that Slicer reads as segments."""
    extent = " ".join(f"0 {n - 1}" for n in image.geometry.shape)
    lines = ["Segmentation_MasterRepresentation:=Binary labelmap"]
    for number, label in enumerate(label for label in image.labels if label.value != 0):
        start = f"Segment{number}_"
        lines += [f"{start}ID:=Segment_{label.value}", f"{start}Name:={clean(label.name)}", f"{start}Layer:=0"]
        lines += [f"{start}LabelValue:={label.value}", f"{start}Extent:={extent}"]
        if label.colour is not None:
            lines += [f"{start}Color:={' '.join(str(round(n / 255, 6)) for n in label.colour)}"]
        if label.code is not None:
            code = "^".join((label.code.scheme, label.code.value, clean(label.code.meaning)))
            lines += [f"{start}Tags:=TerminologyEntry:Isocenter~SCT^123037004^Anatomical Structure~{code}~^^~~^^~^^|"]
    return lines


def _segment(header: Header, number: int, layers: int) -> Segment:
    def pair(name: str, otherwise: str = "") -> str:
        """The segment's value of this name in the header."""
        return header.pairs.get(f"Segment{number}_{name}", otherwise)

    # Until version 4.10 Slicer gave each segment a layer of its own, of 0 and 1, and stated neither.
    layer, value = int(pair("Layer", str(number if layers > 1 else 0))), int(pair("LabelValue", "1"))
    name = clean(pair("Name") or pair("ID")) or f"{value}"
    words = pair("Color").split()
    colour = tuple(round(255 * min(max(float(word), 0.0), 1.0)) for word in words)
    code = _code(pair("Tags"))
    label = Label(value, name, (colour[0], colour[1], colour[2]) if len(colour) == 3 else None, code)
    return Segment(label, layer)


def _code(tags: str) -> Code | None:
    """The segment's type in Slicer's terminology entry: category~type~modifier~region~..."""
    entry = re.search(r"TerminologyEntry:([^|]*)", tags)
    parts = entry[1].split("~") if entry else []
    words = parts[2].split("^") if len(parts) > 2 else []
    return Code(words[0], words[1], words[2]) if len(words) == 3 and words[1] else None


FORMAT = Format("nrrd", read, write)
