"""The NRRD format, https://teem.sourceforge.net/nrrd/format.html, and Slicer's segmentations in it (.seg.nrrd)."""

from __future__ import annotations

import gzip
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hilum.errors import FormatError, GeometryError
from hilum.files import _voxel_files, _world, label_table
from hilum.files._voxel_files import COLOUR_CHANNELS
from hilum.files._world import MM
from hilum.files.format_options import Format, ReadOptions
from hilum.files.storage import folder_files, packed_files
from hilum.files.storage.block import VoxelBlock
from hilum.files.storage.packed_files import Compression
from hilum.values import Array, Code, Deferred, FactRule, FileFacts, Geometry, Image, Label, Source

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
    "hex": "hex",
    "txt": "text",
    "text": "text",
    "ascii": "text",
}
ORDERS: dict[str, Literal["<", ">"]] = {"little": "<", "big": ">"}
NAMES = {np.dtype(kind): names[-2] if len(names) > 1 else names[0] for kind, names in TYPES.items()}
# Signs that bring the named space to RAS; spaces that are not listed have no relation to the patient.
SPACES = {
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}
COMPLEX = ("complex",)
FOUR_AXES = ("rast", "last", "lpst")  # short names of spaces with time
SPATIAL_KINDS = ("domain", "space", "", "???", "none")
SECONDS = {"s": 1.0, "sec": 1.0, "ms": 1e-3, "msec": 1e-3, "us": 1e-6}
LARGEST_HEADER = 1 << 22
OF_SPACE = ("space units",)  # one for each axis of the space, and not of the array


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """The one volume of the file; axes of kind time become frames, other axes outside space become channels."""
    header = _read_header(path)
    layout = _layout_of(header, path)
    geometry, notes = _grid_of(header, layout, path)
    block = _block(header, path, layout.axes)
    pixels = block.defer()
    segments = _segments_of(header, pixels.shape[0], path)
    channels: tuple[str, ...] = ()
    labels = label_table.labels_of_map(path)
    notes += [*block.surplus_notes, *_notes_on_pairs(header, prod(pixels.shape[: -geometry.ndim]))]
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
        source=Source("nrrd", folder_files.unique_paths(path, block.path, *label_table.own_tables(path))),
    )
    return {path.name.removesuffix(path.suffix).removesuffix(".seg"): image}


def write(image: Image, path: Path) -> None:
    """One gzip-compressed file with its header, sides and shear included; Slicer's segments for a .seg.nrrd."""
    if path.name.lower().endswith(".nhdr"):
        raise FormatError("NRRD is written as a single file", str(path), "Choose a name that ends in .nrrd")
    ordered = _voxel_files.channels_first(image, str(path))
    ordered = ordered if len(image.channels) > 1 else ordered[0]
    lines = ["NRRD0005", f"type: {NAMES[ordered.dtype]}", f"dimension: {ordered.ndim}"]
    lines += [f"sizes: {' '.join(str(n) for n in ordered.shape)}", "endian: little", "encoding: gzip"]
    lines += _space_fields(image.geometry, *_outside_space(image))
    if path.name.lower().endswith(".seg.nrrd"):
        lines += _segment_fields(image)
    with _voxel_files.create_file(path, compressed=False) as file:
        file.write(("\n".join(lines) + "\n\n").encode())
        with gzip.GzipFile("", "wb", 4, file, mtime=0) as stream:
            _voxel_files.write_voxels(stream, ordered)


def _outside_space(image: Image) -> tuple[str | None, bool, float | None]:
    """(kind of an axis of channels, whether there are frames, seconds between them)."""
    first = None
    if len(image.channels) > 1:
        coloured = image.channels == COLOUR_CHANNELS.get(len(image.channels))
        first = f"{''.join(image.channels)}-color" if coloured else "vector"
    return first, image.frames is not None, _voxel_files.uniform_step(image.times)


def _block(header: NrrdHeader, path: Path, axes: tuple[int, ...]) -> VoxelBlock:
    dtype, encoding = _number_type(header, path), header.field("encoding").lower()
    if encoding not in ENCODINGS:
        raise FormatError(f"the encoding {encoding!r} cannot be read", str(path), "Save it again as raw or gzip")
    data, name = _data_file(header, path), _data_name(header)
    start, offset = 0 if name else header.end, header.integer("byte skip", 0)
    for _ in range(lines := header.integer("line skip", 0)):
        start = _after_line(data, start, lines)
    if offset == -1 and ENCODINGS[encoding] != "text":  # the voxels are the end of the file
        offset = _size(data, start, ENCODINGS[encoding]) - prod(header.sizes) * dtype.itemsize
    shape = (*header.sizes, 1, 1)[: len(axes)]  # axes that the file leaves out have length 1
    block = VoxelBlock(data, dtype, shape, axes, start, offset, ENCODINGS[encoding])
    if name and not lines and "byte skip" not in header.fields:
        remedy = (
            "Write `byte skip: -1` where they stand before the voxels, as the header of a NIfTI, else `byte skip: 0`"
        )
        block.refuse_unplaced(path, "byte skip", remedy)
    return block


def _data_name(header: NrrdHeader) -> str:
    """What the header calls the file with the voxels; empty where they follow it."""
    return header.get("data file") or header.get("datafile")


def _data_file(header: NrrdHeader, path: Path) -> Path:
    name = _data_name(header)
    return folder_files.inside_folder(name, path) if name else path


def _size(data: Path, start: int, compression: Compression) -> int:
    """Bytes from a place of the file on, without compression."""
    with packed_files.name_damage(data), data.open("rb") as file:
        file.seek(start)
        with packed_files.decompress_stream(file, compression) as stream:
            return packed_files.skip_bytes(stream, sys.maxsize)


def _number_type(header: NrrdHeader, path: Path) -> np.dtype[Any]:
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


def _one_channel_each(block: VoxelBlock, pixels: Deferred, segments: tuple[NrrdSegment, ...]) -> Deferred:
    where = tuple((segment.layer, segment.label.value) for segment in segments)
    shape = (len(where), *pixels.shape[1:])
    return Deferred(shape, np.dtype(np.uint8), partial(_layers, block, where), None)


def _layers(block: VoxelBlock, where: tuple[tuple[int, int], ...]) -> Array:
    layers = block.load()
    masks = np.empty((len(where), *layers.shape[1:]), np.uint8)
    for mask, (layer, value) in zip(masks, where, strict=True):
        np.equal(layers[layer], value, out=mask.view(np.bool_))
    return masks


@dataclass(frozen=True)
class NrrdSegment:
    """A label and the layer in which its value means it."""

    label: Label
    layer: int


def _segments_of(header: NrrdHeader, layers: int, path: Path) -> tuple[NrrdSegment, ...]:
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
        label_table.check_labels([s.label for s in segments if s.layer == layer], str(path))
    return segments


def _segment_fields(image: Image) -> list[str]:
    """Key/value lines that Slicer reads as segments."""
    extent = " ".join(f"0 {n - 1}" for n in image.geometry.shape)
    lines = ["Segmentation_MasterRepresentation:=Binary labelmap"]
    for number, label in enumerate(label for label in image.labels if label.value != 0):
        start = f"Segment{number}_"
        lines += [
            f"{start}ID:=Segment_{label.value}",
            f"{start}Name:={label_table.clean_name(label.name)}",
            f"{start}Layer:=0",
        ]
        lines += [f"{start}LabelValue:={label.value}", f"{start}Extent:={extent}"]
        if label.colour is not None:
            lines += [f"{start}Color:={' '.join(str(round(n / 255, 6)) for n in label.colour)}"]
        if label.code is not None:
            code = "^".join((label.code.scheme, label.code.value, label_table.clean_name(label.code.meaning)))
            lines += [f"{start}Tags:=TerminologyEntry:Hilum~SCT^123037004^Anatomical Structure~{code}~^^~~^^~^^|"]
    return lines


def _segment(header: NrrdHeader, number: int, layers: int) -> NrrdSegment:
    def pair(name: str, otherwise: str = "") -> str:
        """The segment's value of this name in the header."""
        return header.pairs.get(f"Segment{number}_{name}", otherwise)

    # Until version 4.10 Slicer gave each segment a layer of its own, of 0 and 1, and stated neither.
    layer, value = int(pair("Layer", str(number if layers > 1 else 0))), int(pair("LabelValue", "1"))
    name = label_table.clean_name(pair("Name") or pair("ID")) or f"{value}"
    words = pair("Color").split()
    colour = tuple(round(255 * min(max(float(word), 0.0), 1.0)) for word in words)
    code = _code(pair("Tags"))
    label = Label(value, name, (colour[0], colour[1], colour[2]) if len(colour) == 3 else None, code)
    return NrrdSegment(label, layer)


def _code(tags: str) -> Code | None:
    """The segment's type in Slicer's terminology entry: category~type~modifier~region~..."""
    entry = re.search(r"TerminologyEntry:([^|]*)", tags)
    parts = entry[1].split("~") if entry else []
    words = parts[2].split("^") if len(parts) > 2 else []
    return Code(words[0], words[1], words[2]) if len(words) == 3 and words[1] else None


@dataclass(frozen=True)
class NrrdLayout:
    """The meaning of the file's axes.

    axes:    those that become (channels[, frames], *spatial); beyond the last where the file leaves one out
    spatial: those of them that are space, in the file's order
    """

    axes: tuple[int, ...]
    spatial: tuple[int, ...]
    times: tuple[float, ...] | None = None
    colours: bool = False
    facts: FileFacts = field(default_factory=dict)


def _layout_of(header: NrrdHeader, path: Path) -> NrrdLayout:
    """Axes with a direction, else those of kind domain or without kind, are space.

    Of the others one may be frames (kind time or list, as of diffusion or Slicer's sequences), and one channels; the
    list of a segmentation is one of layers, and becomes channels.
    """
    sizes, kinds = header.sizes, [kind.lower() for kind in header.words("kinds")]
    spatial, frames, channels = _kinds_of_axes(header, kinds)
    if any(kinds[n] in COMPLEX for n in channels):
        raise FormatError("the voxels are complex numbers", str(path), "Save magnitude or phase by itself")
    if len(spatial) not in (2, 3) or len(frames) > 1 or len(channels) > 1:
        raise FormatError(
            f"{len(spatial)} axes of space, {len(frames)} of time and {len(channels)} others",
            str(path),
            "State the kind of each axis in the header's `kinds`, or split the file",
        )
    missing = len(sizes)  # the next axis that the file leaves out, because its length is 1
    if not channels:
        channels, missing = [missing], missing + 1
    ordered = spatial if len(spatial) == 3 else spatial[::-1]
    if len(spatial) == 2 and "space directions" in header.fields and _space_dimension(header) >= 3:
        ordered = (*spatial, missing)  # a slice in space, not a picture
    times = _times(header, frames[0], sizes[frames[0]]) if frames else None
    colours = channels[0] < len(sizes) and kinds[channels[0]] in ("rgb-color", "rgba-color")
    outside = frames[0] if frames else channels[0]
    facts = _facts(header, sizes[outside] if outside < len(sizes) else 1)
    return NrrdLayout((*channels, *frames, *ordered), spatial, times, colours, facts)


def _kinds_of_axes(header: NrrdHeader, kinds: list[str]) -> tuple[tuple[int, ...], list[int], list[int]]:
    """The file's axes that are (space, frames, channels)."""
    listed = () if any(key.startswith("Segment0_") for key in header.pairs) else ("list",)
    count = len(header.sizes)
    if "space directions" in header.fields:
        directions = header.vectors("space directions")
        if len(directions) != count:
            raise header.damage_error(f"{count} axes and {len(directions)} space directions")
        in_time = [v is not None and len(v) == 4 and not v[:3].any() for v in directions]
        spatial = tuple(n for n, v in enumerate(directions) if v is not None and not in_time[n])
    else:
        in_time = [False] * count
        spatial = tuple(n for n, kind in enumerate(kinds) if kind in SPATIAL_KINDS)
    others = [n for n in range(count) if n not in spatial]
    called = [text.lower() for text in header.words("labels")]
    frames = [n for n in others if in_time[n] or kinds[n] in ("time", *listed) or called[n] in ("frame", "time", "t")]
    return spatial, frames, [n for n in others if n not in frames]


def _grid_of(header: NrrdHeader, layout: NrrdLayout, path: Path) -> tuple[Geometry, list[str]]:
    """The grid of the spatial axes, and notes on what the header leaves open."""
    shape = [header.sizes[axis] for axis in layout.spatial]
    if "space directions" not in header.fields:
        return _by_spacings(header, layout, shape)
    signs = SPACES.get(header.get("space").lower().removesuffix("-time").removesuffix("t"))
    linear, origin, notes = _directions(header, layout)
    unit, physical = _unit(header, notes)
    if not np.isfinite(linear).all():
        return Geometry.of_pixels(_as_read(shape)), [*notes, "The header gives no voxel size: size in mm unknown."]
    oriented = signs is not None and origin is not None and len(linear) == 3
    if not oriented:
        notes.append("The header names no patient space or no origin: orientation unknown.")
    affine = np.eye(len(linear) + 1)
    affine[:-1, :-1] = linear * unit
    affine[:-1, -1] = 0.0 if origin is None else np.asarray(origin) * unit
    if signs is not None and len(linear) == 3:
        affine = np.diag([*signs, 1.0]) @ affine
    if len(shape) == 2 and len(linear) == 2:
        affine = _world.swap_rows_and_columns(affine)
    shape = shape + [1] * (len(linear) - len(shape))
    try:
        return Geometry(_as_read(shape), affine, physical=physical, oriented=oriented), notes
    except GeometryError as error:
        raise GeometryError(error.problem, str(path), "Check `space directions` in the header") from error


def _space_fields(geometry: Geometry, channels: str | None, frames: bool, step: float | None) -> list[str]:
    """Header lines for this grid, with an axis of channels of some kind before it and one of frames behind it.

    Sides are written in LPS, as ITK and Slicer do; unknown ones as a space without a name. Frames are a list called
    time, because ITK takes an axis of kind time for a fourth one of space.
    """
    affine = _world.swap_lps_ras(geometry.affine) if geometry.oriented else geometry.affine
    affine = _world.swap_rows_and_columns(affine) if geometry.is_picture else affine
    before, behind = ([channels] if channels else []), (["list"] if frames else [])
    vectors = [f"({_spell(affine[:-1, axis])})" for axis in range(geometry.ndim)]
    directions = [*(["none"] * len(before)), *vectors, *(["none"] * len(behind))]
    unit = "mm" if geometry.physical else "unknown"
    lines = [
        "space: left-posterior-superior" if geometry.oriented else f"space dimension: {geometry.ndim}",
        f"space directions: {' '.join(directions)}",
        f"kinds: {' '.join([*before, *['domain'] * geometry.ndim, *behind])}",
        "space units: " + " ".join([f'"{unit}"'] * geometry.ndim),
        f"space origin: ({_spell(affine[:-1, -1])})",
    ]
    others = len(before) + geometry.ndim
    if frames:
        lines += ["labels: " + '"" ' * others + '"time"']
    if frames and step:
        lines += [f"spacings: {'nan ' * others}{step!r}", "units: " + '"" ' * others + '"s"']
    return lines


def _spell(numbers: NDArray[np.floating]) -> str:
    return ",".join(repr(float(n)) for n in numbers)


def _directions(header: NrrdHeader, layout: NrrdLayout) -> tuple[NDArray[np.float64], Any, list[str]]:
    """(columns of the linear part, origin or None, notes); a flat slice in 3D space gets its normal."""
    vectors = [v for n, v in enumerate(header.vectors("space directions")) if n in layout.spatial and v is not None]
    ndim = min(_space_dimension(header), 3)  # a fourth one is time
    if any(len(v) < ndim for v in vectors):
        raise header.damage_error("space directions of unlike length")
    linear = np.stack([v[:ndim] for v in vectors], axis=1)
    notes: list[str] = []
    if linear.shape == (3, 2):
        normal = np.cross(linear[:, 0], linear[:, 1])
        linear = np.column_stack([linear, normal / np.linalg.norm(normal)])
        notes.append("A single slice: its thickness is not stated, 1 is taken as the step.")
    if linear.shape[0] != linear.shape[1]:
        raise header.damage_error(f"{len(vectors)} axes in a space of {ndim} dimensions")
    origin = header.vectors("space origin")[0] if header.get("space origin") else None
    has_origin = origin is not None and len(origin) >= ndim and bool(np.isfinite(origin).all())
    return linear, origin[:ndim] if has_origin and origin is not None else None, notes


def _space_dimension(header: NrrdHeader) -> int:
    if "space dimension" in header.fields:
        return header.integer("space dimension", 3)
    name = header.get("space").lower()
    if name.endswith("-time") or name in FOUR_AXES:
        return 4
    return 3 if name else 0


def _by_spacings(header: NrrdHeader, layout: NrrdLayout, shape: list[int]) -> tuple[Geometry, list[str]]:
    """The grid without directions: sides are unknown, sizes are those of `spacings`."""
    notes = ["The header gives no directions: orientation unknown."]
    spacings = header.numbers("spacings") if "spacings" in header.fields else [np.nan] * len(header.sizes)
    if len(spacings) != len(header.sizes):
        raise header.damage_error(f"{len(header.sizes)} axes and {len(spacings)} spacings")
    steps = np.abs([spacings[axis] for axis in layout.spatial])
    if not (np.isfinite(steps).all() and (steps > 0).all()):
        return Geometry.of_pixels(_as_read(shape)), [*notes, "The header gives no voxel size: size in mm unknown."]
    unit, physical = _unit(header, notes, [header.words("units")[axis] for axis in layout.spatial])
    steps = steps * unit if len(shape) == 3 else steps[::-1] * unit
    return Geometry(_as_read(shape), np.diag([*steps, 1.0]), physical=physical, oriented=False), notes


def _unit(header: NrrdHeader, notes: list[str], words: list[str] | None = None) -> tuple[float, bool]:
    """(mm in one unit, whether the unit is one of length)."""
    words = header.words("space units")[:3] if words is None else words
    if "space units" not in header.fields and not any(words):
        notes.append("The header states no unit; taken as mm, as all programs that write NRRD do.")
        return 1.0, True
    factors = {MM.get(word.lower()) for word in words}
    factor = factors.pop() if len(factors) == 1 else None
    if factor is None:
        notes.append(f"The header's unit {', '.join(words)} is none of length: size in mm unknown.")
    return factor or 1.0, factor is not None


def _times(header: NrrdHeader, axis: int, frames: int) -> tuple[float, ...] | None:
    spacings = header.numbers("spacings") if "spacings" in header.fields else []
    unit = SECONDS.get(header.words("units")[axis].lower())
    if len(spacings) != len(header.sizes) or unit is None or not spacings[axis] > 0:
        return None
    return _voxel_files.even_times(unit * float(spacings[axis]), frames, str(header.path))


def _facts(header: NrrdHeader, frames: int) -> FileFacts:
    """Diffusion weighting of each frame in s/mm², and the frame (in the header's own space) of vectors."""
    facts: FileFacts = {}
    if "measurement frame" in header.fields:
        frame = [v for v in header.vectors("measurement frame") if v is not None]
        facts = {"measurement_frame": tuple(tuple(v.tolist()) for v in frame), "space": header.get("space")}
    gradients = sorted(key for key in header.pairs if key.startswith("DWMRI_gradient_"))
    try:
        nominal = float(header.pairs.get("DWMRI_b-value", "nan"))
        # A gradient shorter than 1 stands for a smaller b-value, which goes with its square.
        lengths = [sum(float(n) ** 2 for n in header.pairs[key].split()) for key in gradients]
    except ValueError:
        return facts
    is_whole = len(lengths) == frames and gradients == [f"DWMRI_gradient_{n:04}" for n in range(frames)]
    return {**facts, "b_values": tuple(nominal * length for length in lengths)} if is_whole else facts


def _notes_on_pairs(header: NrrdHeader, frames: int) -> list[str]:
    """Notes on what the header states and was not read."""
    notes = []
    gradients = sum(key.startswith("DWMRI_gradient_") for key in header.pairs)
    if gradients and gradients != frames:
        notes.append(f"The header states gradients of {gradients} of {frames} frames: they were left out.")
    if {"old min", "old max", "oldmin", "oldmax"} & header.fields.keys():
        notes.append(
            "The header states the range of values before they were quantised (old min, old max): not applied."
        )
    unit = header.get("sample units") or header.get("sampleunits")
    if unit:
        notes.append("The header states a unit of its values (sample units), which was left out.")
    return notes


def _as_read(shape: list[int]) -> tuple[int, ...]:
    return tuple(shape) if len(shape) == 3 else tuple(shape[::-1])


@dataclass(frozen=True)
class NrrdHeader:
    """The text of a header.

    fields: {name in lower case: text}
    pairs:  {key: value} that a program added
    end:    the first byte after the header
    """

    path: Path
    fields: Mapping[str, str]
    pairs: Mapping[str, str]
    end: int

    def get(self, name: str, otherwise: str = "") -> str:
        """The text of a field that may be absent."""
        return self.fields.get(name, otherwise)

    def field(self, name: str) -> str:
        """The text of a field. Raises FormatError where it is absent."""
        if name not in self.fields:
            raise self.damage_error(f"the header has no {name!r}")
        return self.fields[name]

    def integer(self, name: str, otherwise: int) -> int:
        """The whole number in a field that may be absent."""
        return int(self.numbers(name, int)[0]) if name in self.fields else otherwise

    def numbers(self, name: str, kind: type = float) -> list[float]:
        """The numbers in a field. Raises FormatError for anything else."""
        try:
            return [kind(word) for word in self.field(name).split()]
        except ValueError as error:
            raise self.damage_error(f"{name!r} is {self.field(name)!r}") from error

    @property
    def sizes(self) -> tuple[int, ...]:
        """Samples per axis, the fastest axis first."""
        sizes = tuple(int(n) for n in self.numbers("sizes", int))
        if len(sizes) != self.integer("dimension", 0) or min(sizes, default=0) < 1:
            raise self.damage_error(f"sizes {self.field('sizes')} in {self.get('dimension')} dimensions")
        return sizes

    def words(self, name: str) -> list[str]:
        """One word, or one quoted string, per axis; as many empty ones where the field is absent."""
        if name not in self.fields:
            return [""] * len(self.sizes)
        words = re.findall(r'"((?:[^"\\]|\\.)*)"', self.fields[name]) or self.fields[name].split()
        if name not in OF_SPACE and len(words) != len(self.sizes):
            raise self.damage_error(f"{len(self.sizes)} axes and {name!r} is {self.fields[name]!r}")
        return words

    def vectors(self, name: str) -> list[NDArray[np.float64] | None]:
        """Vectors as "(1,0,0) none (0,1,0)"; None for "none"."""
        words = re.findall(r"none|\([^)]*\)", self.field(name))
        try:
            return [np.array([float(n) for n in word[1:-1].split(",")]) if word[0] == "(" else None for word in words]
        except ValueError as error:
            raise self.damage_error(f"{name!r} is {self.field(name)!r}") from error

    def damage_error(self, problem: str) -> FormatError:
        """The error for a header with this problem."""
        return FormatError(problem, str(self.path), "The NRRD header is damaged: get the file again")


def _read_header(path: Path) -> NrrdHeader:
    """The header of a file. Raises FormatError where it is damaged or has no end."""
    with path.open("rb") as file:
        head = file.read(LARGEST_HEADER)
    if not head.startswith(b"NRRD0"):
        raise FormatError("not a NRRD file", str(path), "Check what kind of file it is")
    blank = re.search(rb"\r?\n\r?\n", head)
    end = blank.end() if blank else len(head)
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    for line in head[: blank.start() if blank else end].decode("utf-8", "replace").splitlines()[1:]:
        if fields.get("data file", fields.get("datafile", "")).upper().startswith("LIST"):
            break  # what follows are names of files
        if line.startswith("#") or not line.strip():
            continue
        if match := re.match(r"([^:]+):=(.*)", line):
            pairs[match[1]] = match[2]
        elif match := re.match(r"([^:]+):\s*(.*)", line):
            name, text = match[1].strip().lower(), match[2].strip()
            if fields.setdefault(name, text) != text:
                problem = f"the header states {name!r} twice, and not the same"
                raise FormatError(problem, str(path), "Remove the wrong one")
        else:
            raise FormatError(f"the header line {line[:60]!r}", str(path), "The header is damaged: get the file again")
    header = NrrdHeader(path, fields, pairs, end)
    if blank is None and not (header.get("data file") or header.get("datafile")):
        raise header.damage_error("the header has no end")
    return header


def _parts(path: Path) -> tuple[Path, ...]:
    return path, _data_file(_read_header(path), path)


FACTS = (
    FactRule("NRRD", "read", "names, colours and codes of segments"),
    FactRule("NRRD", "read", "times of frames, b-values of each"),
    FactRule("NRRD", "named", "gradients of fewer or more frames than there are"),
    FactRule("NRRD", "named", "the range before values were quantised (old min, old max), and their unit"),
    FactRule("NRRD", "refused", "complex numbers, segments in a layer that is not there"),
    *_voxel_files.facts_beside("NRRD"),
)
FORMAT = Format("nrrd", read, write, parts=_parts, facts=FACTS)
