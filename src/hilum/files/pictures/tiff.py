"""The TIFF format: single pictures, pages as frames, OME-TIFF and ImageJ's stacks with their axes and physical size.

OME and ImageJ state how large a pixel is in the object; the resolution tags of a plain TIFF are about paper, unless
they are finer than any paper.
https://docs.openmicroscopy.org/ome-model/6.3/ome-tiff/
The claims of a file are checked before they are believed: files that it names, its planes, and its size decoded.
"""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
import tifffile

from hilum import errors
from hilum.errors import FormatError, HilumError
from hilum.files import _picture_streams, _tiff_colours, _voxel_files, format_options, label_table, pixel_aspect
from hilum.files._picture_streams import JPEG as JPEG_START
from hilum.files.format_options import Format, ReadOptions
from hilum.files.pictures import imagej_header, plain_picture
from hilum.files.pictures.plain_picture import CHANNELS
from hilum.files.pictures.stated_facts import StatedFacts
from hilum.files.slides import slide_writing, tiled_tiff
from hilum.files.storage import folder_files, packed_files, spool
from hilum.values import Array, FactRule, FileFacts, Geometry, Image, LazyMapping, Source

if TYPE_CHECKING:
    from hilum.values.plain_values import PlainValue

MM = {"m": 1000.0, "cm": 10.0, "mm": 1.0, "µm": 1e-3, "um": 1e-3, "nm": 1e-6, "pm": 1e-9, "Å": 1e-7, "in": 25.4}
OME_TYPES = frozenset({"int8", "int16", "int32", "uint8", "uint16", "uint32", "float32", "float64"})
COLOURS = (("R", "G", "B"), ("R", "G", "B", "A"))
PHOTOMETRIC, COMPRESSION = tifffile.PHOTOMETRIC, tifffile.COMPRESSION
# What tifffile, its codecs and the parser of OME's XML raise at a damaged file.
TIFF_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError, RuntimeError, SyntaxError,
    TypeError, ValueError, struct.error, tifffile.OmeXmlError, zlib.error,
)  # fmt: skip
# What we say of ourselves in the header of a volume, which may have one plane alone.
OF_VOLUME = "hilum (volume)"
GREY = (PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK)
READ_AT_ONCE = 1 << 23
ALPHA = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)
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
# Words of NewSubfileType, and the library's name of its bit.
KINDS_BESIDE = {"a smaller copy": "is_reduced", "a mask": "is_mask"}
SECONDS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "min": 60.0, "h": 3600.0}
OF_IMAGEJ, OF_OME = "TIFF of ImageJ and Fiji", "OME-TIFF"
FACTS = (
    FactRule(OF_IMAGEJ, "read", "voxel size in its unit"),
    FactRule(OF_IMAGEJ, "read", "frame interval"),
    FactRule(OF_IMAGEJ, "read", "values by a straight calibration"),
    FactRule(OF_IMAGEJ, "named", "a unit that is no length or time"),
    FactRule(OF_IMAGEJ, "named", "a curved calibration"),
    FactRule(OF_IMAGEJ, "named", "regions of interest"),
    FactRule(OF_IMAGEJ, "refused", "a slope of 0"),
    FactRule(OF_OME, "read", "voxel size, frame interval and names of channels"),
    FactRule(OF_OME, "named", "a unit that is no length or time"),
    FactRule(OF_OME, "named", "times of single planes (DeltaT)"),
    FactRule(OF_OME, "named", "regions of interest"),
    FactRule("TIFF", "read", "a size below 10 µm a pixel in its resolution"),
    FactRule("TIFF", "named", "pixels that are not square"),
    FactRule("TIFF", "named", "colours of which tag and JPEG stream state different models"),
    FactRule("TIFF", "named", "pages that are a smaller copy or a mask of another (NewSubfileType)"),
)


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """Each series of pages with one shape is a volume: (channels, [frames,] [planes,] rows, columns).

    Raises FormatError for a file that is cut short, that claims more than it can hold, or whose axes are unclear.
    """
    with _open_tiff(path) as (file, others):
        if options.pages is None and (levels := tiled_tiff.level_pages(file)):
            sizes = _nth(_describe(file), 0).sizes
            spacing = (sizes["Y"], sizes["X"]) if {"X", "Y"} <= set(sizes) else None
            return {path.stem: label_table.with_own_table(tiled_tiff.read_slide(levels, path, spacing), path)}
        count = len(file.series)
        pictures = [n for n, part in enumerate(file.series) if not _is_copy_or_mask(part)]
        if count == 1 or len(pictures) == 1:
            number = pictures[0] if pictures else 0
            image = _image(file, number, path, others, options)
            image = replace(image, notes=(*image.notes, *_notes_on_copies(file)))
            return {path.stem: label_table.with_own_table(image, path)}
        if options.pages == "bands":
            shapes = [" x ".join(map(str, part.shape)) for part in file.series]
            problem = f"pages of {errors.list_phrase(shapes)} are no bands of one picture"
            raise FormatError(problem, str(path), "Save bands of one size, or leave out --pages bands")
    # A slide scanner's file holds overview, label and slide: only the one that is asked for is read.
    return LazyMapping({f"{path.stem}_{n + 1}": partial(read_page_series, path, n, options) for n in range(count)})


def _is_copy_or_mask(part: tifffile.TiffPageSeries) -> bool:
    """Whether its pages say that they are a smaller copy or a mask of another page. TIFF 6.0, NewSubfileType"""
    return bool(part.keyframe.is_reduced or part.keyframe.is_mask)


def _notes_on_copies(file: tifffile.TiffFile) -> Iterator[str]:
    """The note on pages that were left out for what they say of themselves."""
    keys = [level.keyframe for part in file.series for level in part.levels]
    kinds = [word for word, sets in KINDS_BESIDE.items() if any(getattr(key, sets) for key in keys)]
    if kinds and len(keys) > 1:
        yield f"pages that NewSubfileType calls {' or '.join(kinds)} of another were left out"


def read_page_series(path: Path, number: int, options: ReadOptions) -> Image:
    """One of the series of pages in a file."""
    with _open_tiff(path) as (file, others):
        return _image(file, number, path, others, options)


def read_label_numbers(path: Path) -> Image | None:
    """The numbers of a label map, where the file shows others: a palette's indices, or those of which 0 is white."""
    with _open_tiff(path) as (file, others):
        photometric = file.series[0].keyframe.photometric
        if photometric == PHOTOMETRIC.MINISWHITE and len(file.series) == 1:
            return label_table.with_own_table(_image(file, 0, path, others, ReadOptions(), as_numbers=True), path)
        if photometric != PHOTOMETRIC.PALETTE:
            return None
        _check_decoded(file.series[0], path)
        pixels = _pixels_of(file.series[0])
    if pixels.ndim != 2:
        raise FormatError("a palette with several pages", str(path), "Save one picture per file")
    return Image(
        pixels[None],
        Geometry.of_pixels(pixels.shape),
        notes=("palette indices were read as labels",),
        source=Source("tiff", folder_files.unique_paths(path, *others)),
    )


def write(image: Image, path: Path) -> None:
    """Write exactly these values in exactly this type; frames, planes, channels and physical size as OME-TIFF.

    Raises FormatError for what it cannot hold: a place or sides in the patient, a shear, uneven times.
    """
    where, elsewhere = str(path), "Write .nii.gz or .nrrd"
    _check_place(image.geometry, where, elsewhere)
    if image.is_slide:
        slide_writing.write_levels(image, path)
        return
    pixels = image.data.astype(np.uint8) if image.dtype == bool else image.data
    colour = image.channels in COLOURS
    still = image.geometry.is_picture and image.frames is None
    if still and not image.geometry.physical and (colour or len(pixels) == 1):
        if not np.issubdtype(pixels.dtype, np.number) or np.iscomplexobj(pixels):
            raise FormatError(f"a TIFF holds no {pixels.dtype} values", where, elsewhere)
        _write_pages(path, np.moveaxis(pixels, 0, -1) if colour else pixels[0], colour, {})
        return
    if pixels.dtype.name not in OME_TYPES:
        raise FormatError(f"an OME-TIFF holds no {pixels.dtype} values", where, elsewhere)
    axes = "C" + ("T" if image.frames is not None else "") + "ZYX"[-image.geometry.ndim :]
    if colour:
        pixels, axes = np.moveaxis(pixels, 0, -1), axes[1:] + "S"
    _write_pages(path, pixels, colour, {"axes": axes} | _header(image, where, elsewhere))


def _write_pages(path: Path, pixels: Array, colour: bool, metadata: dict[str, PlainValue]) -> None:
    tifffile.imwrite(
        path,
        np.ascontiguousarray(pixels),
        photometric="rgb" if colour else "minisblack",
        extrasamples=("unassalpha",) if colour and pixels.shape[-1] == 4 else None,
        compression="zlib",
        ome=bool(metadata),
        metadata=metadata or None,
    )


def _header(image: Image, where: str, elsewhere: str) -> dict[str, PlainValue]:
    header: dict[str, PlainValue] = {"Creator": OF_VOLUME} if image.geometry.ndim == 3 else {}
    if image.channels not in COLOURS:
        header["Channel"] = {"Name": list(image.channels)}
    for axis, size in zip("ZYX"[-image.geometry.ndim :], image.spacing or (), strict=False):
        header |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "mm"}
    if image.times is not None and len(image.times) > 1:
        steps = np.diff(image.times)
        if not np.allclose(steps, steps[0], rtol=1e-4) or image.times[0] != 0:
            raise FormatError("a TIFF holds no uneven times", where, elsewhere)
        header |= {"TimeIncrement": float(steps.mean()), "TimeIncrementUnit": "s"}
    return header


def _check_place(geometry: Geometry, where: str, elsewhere: str) -> None:
    if geometry.ndim not in (2, 3):
        raise FormatError(f"a TIFF holds no {geometry.ndim} axes", where, elsewhere)
    plain = np.array_equal(geometry.affine, np.diag([*geometry.steps, 1.0]))
    if geometry.oriented or geometry.frame_of_reference is not None or not plain:
        raise FormatError("a TIFF cannot hold where the voxels lie in the patient", where, elsewhere)


@contextmanager
def _open_tiff(path: Path) -> Iterator[tuple[tifffile.TiffFile, tuple[Path, ...]]]:
    """The file, known to be whole, and the others that it names. Raises FormatError for a damaged one."""
    # What it logs of a damaged file names objects in memory; the file is refused in words.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    try:
        _refuse_circle(path)
        # Of the kinds that the library reads from several files, only OME-TIFF says beforehand from which.
        with tifffile.TiffFile(path, is_ndtiff=False, is_mmstack=False) as file:
            others = _named_files(file, path)
            _check_whole(file, path, others)
            yield file, others
    except HilumError:
        raise
    except TIFF_ERRORS as error:
        raise FormatError(f"is not a complete TIFF ({error})", str(path), "Get the file again") from error


def _image(
    file: tifffile.TiffFile,
    number: int,
    path: Path,
    others: tuple[Path, ...],
    options: ReadOptions,
    *,
    as_numbers: bool = False,
) -> Image:
    """One of the series of pages; as_numbers: of a label map, which how it is to be shown does not change."""
    part = file.series[number]
    described = _nth(_describe(file), number)
    notes = list(described.notes)
    page, axes = part.keyframe, part.axes
    _refuse_colours(page, path)
    notes += _tiff_colours.settle(page)
    _check_decoded(part, path)
    if options.pages == "bands":
        axes = _bands_first(axes, part.shape, path)
    pixels = _pixels_of(part)
    if described.is_volume and "Z" not in axes:
        pixels, axes = np.expand_dims(pixels, axes.index("Y")), axes.replace("Y", "ZY")
    if page.photometric == PHOTOMETRIC.PALETTE:
        pixels, axes = _apply_palette(pixels, page), axes + "S"
        notes.append("the palette's colours were filled in")
    is_white = page.photometric == PHOTOMETRIC.MINISWHITE
    if is_white and as_numbers:
        notes.append("0 is white in the file, whose numbers were read as labels")
    elif is_white and np.issubdtype(pixels.dtype, np.unsignedinteger):
        most = np.array((1 << page.bitspersample) - 1, dtype=np.uint64).astype(pixels.dtype)
        pixels = np.subtract(most, pixels, out=pixels if pixels.flags.writeable else None)
        notes.append("0 is white in the file: the values were inverted")
    pixels = format_options.real_part(pixels, options.part, str(path))
    pixels = imagej_header.calibrate(pixels, described, str(path))
    pixels, spatial, framed = _order_axes(pixels, axes, path)
    bands = page.photometric in GREY and not set(page.extrasamples) & set(ALPHA) and len(pixels) in (2, 4)
    sampled = "S" in axes
    if len(pixels) in (2, 4) and sampled and not bands and plain_picture.is_opaque(pixels[-1]):
        pixels = pixels[:-1]
        notes.append("an alpha channel that is opaque everywhere was left out")
    orientation = int(page.tags.valueof(274, 1))
    if orientation in range(2, 9):
        notes.append(f"turned upright by orientation {orientation}")
        pixels = np.moveaxis(
            plain_picture.apply_exif_orientation(np.moveaxis(pixels, (-2, -1), (0, 1)), orientation), (0, 1), (-2, -1)
        )
    names = CHANNELS.get(len(pixels), ()) if (sampled and not bands) or len(pixels) == 1 else ()
    if described.sizes and not set(spatial) <= set(described.sizes):
        missing = errors.list_phrase(sorted(set(spatial) - set(described.sizes)))
        notes.append(f"the size of a voxel is stated, but not along {missing}: its spacing is not known")
    if not described.sizes:
        notes += _aspect_notes(page)
    return Image(
        plain_picture.planes_first(pixels),
        _geometry(pixels.shape[-len(spatial) :], spatial, described),
        channels=described.names if len(described.names) == len(pixels) and not sampled else names,
        times=_voxel_files.even_times(described.increment, pixels.shape[1], str(path)) if framed else None,
        notes=tuple(notes),
        facts=_equal(pixels) if sampled else {},
        source=Source("tiff", folder_files.unique_paths(path, *others)),
    )


def _pixels_of(part: tifffile.TiffPageSeries) -> Array:
    """The samples of a series of pages; strips and tiles are read a few at a time."""
    pixels = _of_one_strip(part.keyframe) if len(part) == 1 else None
    if pixels is None:
        where = part.keyframe.parent.filehandle.path
        pixels = part.asarray(buffersize=READ_AT_ONCE, out=spool.room(part.shape, part.dtype, where))
    return pixels.view(np.uint8) if pixels.dtype == bool else pixels


def _of_one_strip(page: tifffile.TiffPage) -> Array | None:
    """A page that is one compressed strip, as it was decoded; the library would copy it. None for any other page."""
    if len(page.dataoffsets) != 1 or page.is_tiled or page.compression == COMPRESSION.NONE or page.dtype != np.uint8:
        return None
    strip = next(page.segments())[0]
    return strip.reshape(page.shape) if strip is not None and strip.size == page.size else None


def _refuse_colours(page: tifffile.TiffPage, path: Path) -> None:
    """Only what comes out of the decoder as grey, indices or red, green, blue; a JPEG stream's luminance does."""
    model = PHOTOMETRIC.YCBCR if page.compression == COMPRESSION.APERIO_JP2000_YCBC else page.photometric
    readable = (*GREY, PHOTOMETRIC.RGB, PHOTOMETRIC.PALETTE)
    if model in readable or (model == PHOTOMETRIC.YCBCR and page.compression in JPEG):
        return
    named = getattr(model, "name", f"model {model}")
    raise FormatError(f"colours as {named} are not read", str(path), "Save as RGB")


def _order_axes(pixels: Array, axes: str, path: Path) -> tuple[Array, str, bool]:
    """Array as (channels, [frames,] [planes,] rows, columns); its spatial axes; whether it has frames."""
    channels = [axis for axis in axes if axis in "SC"]
    spatial = "".join(axis for axis in "ZYX" if axis in axes)
    frames = [axis for axis in axes if axis not in channels and axis not in spatial]
    for axis in [*channels, *frames]:  # axes of length 1 carry nothing
        here = axes.index(axis)
        if pixels.shape[here] == 1 and (axis in frames or len(channels) > 1):
            pixels, axes = np.take(pixels, 0, here), axes.replace(axis, "", 1)
            (channels if axis in channels else frames).remove(axis)
    if len(channels) > 1 or len(frames) > 1 or not spatial.endswith("YX"):
        raise FormatError(f"axes {axes} of {pixels.shape} are ambiguous", str(path), "Save it as OME-TIFF")
    order = [axes.index(axis) for axis in (*channels, *frames, *spatial)]
    ordered = np.transpose(pixels, order)
    return ordered if channels else ordered[None], spatial, bool(frames)


def _bands_first(axes: str, shape: tuple[int, ...], path: Path) -> str:
    """The axes with that of the pages as channels; a single page stays what it is."""
    pages = [axis for axis, size in zip(axes, shape, strict=True) if axis not in "YXSC" and size > 1]
    if not pages:
        return axes
    if len(pages) > 1 or set(axes) & set("SC"):
        problem = f"axes {axes} of {shape} have channels besides the pages"
        raise FormatError(problem, str(path), "Save one band a page, or leave out --pages bands")
    return axes.replace(pages[0], "C")


def _geometry(shape: tuple[int, ...], spatial: str, described: StatedFacts) -> Geometry:
    if all(axis in described.sizes for axis in spatial):
        return Geometry.of_spacing(shape, [described.sizes[axis] for axis in spatial])
    return Geometry.of_pixels(shape)


def _describe(file: tifffile.TiffFile) -> list[StatedFacts]:
    """The facts of each series of pages, in a description by OME or ImageJ, else in tags too fine for paper."""
    if not file.is_ome or not file.ome_metadata:
        return [_describe_without_ome(file, part.keyframe) for part in file.series]
    root = ElementTree.fromstring(file.ome_metadata)  # noqa: S314  the parser refuses entities that grow
    ours = root.get("Creator") == OF_VOLUME
    regions = ("regions of interest were left out",) if any(_is_called(one, "ROI") for one in root.iter()) else ()
    described = [_pixels(one, ours) for one in root.iter() if _is_called(one, "Pixels")]
    return [replace(one, notes=(*one.notes, *regions)) for one in described]


def _is_called(element: ElementTree.Element, name: str) -> bool:
    """Whether an element has a name, in whatever namespace."""
    return element.tag.rpartition("}")[2] == name


def _describe_without_ome(file: tifffile.TiffFile, page: tifffile.TiffPage) -> StatedFacts:
    header = file.imagej_metadata if file.is_imagej else None
    fine = tiled_tiff.stated_spacing(page)
    resolution_sizes = {"Y": fine[0], "X": fine[1]} if fine is not None else {}
    if not header:
        return StatedFacts(resolution_sizes)
    stated = {axis: page.tags.valueof(code) for axis, code in (("X", 282), ("Y", 283))}
    pixels_a_unit = {axis: one[0] / one[1] if one and one[1] else None for axis, one in stated.items()}
    facts = imagej_header.read_facts(header, pixels_a_unit, file.filehandle.path)
    return facts if facts.sizes else replace(facts, sizes=resolution_sizes)


def _aspect_notes(page: tifffile.TiffPage) -> tuple[str, ...]:
    """The note on resolution tags that differ: the more pixels lie on a length, the smaller each is."""
    across, down = (page.tags.valueof(code) or (0, 0) for code in (282, 283))
    if not (across[0] and across[1] and down[0] and down[1]):
        return ()
    return pixel_aspect.aspect_notes(down[0] / down[1], across[0] / across[1])


def _pixels(pixels: ElementTree.Element, is_volume: bool) -> StatedFacts:
    sizes, notes = {}, dict[str, None]()
    for axis in "XYZ":
        size, unit = pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
        if size is not None and unit in MM and float(size) > 0:
            sizes[axis] = float(size) * MM[unit]
        elif size is not None and unit not in MM:
            notes[f"the unit {unit!r} of its voxel size is no length that is known: the size was left out"] = None
    names = [child.get("Name") for child in pixels if child.tag.endswith("Channel")]
    increment, unit = pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s")
    seconds = SECONDS.get(unit)
    if increment is not None and seconds is None:
        notes[f"the unit {unit!r} of its frame interval is no time that is known: the times were left out"] = None
    in_time = int(pixels.get("SizeT", "1")) > 1
    if in_time and increment is None and any(child.get("DeltaT") for child in pixels if _is_called(child, "Plane")):
        notes["the times of its planes (DeltaT) were left out"] = None
    return StatedFacts(
        sizes,
        tuple(name for name in names if name) if all(names) and len(set(names)) == len(names) else (),
        float(increment) * seconds if increment is not None and seconds else None,
        is_volume,
        notes=tuple(notes),
    )


def _nth(described: list[StatedFacts], n: int) -> StatedFacts:
    return described[n] if n < len(described) else StatedFacts({})


def _apply_palette(pixels: Array, page: tifffile.TiffPage) -> Array:
    """Palette indices as colours, in 8 bits where that loses nothing."""
    colours = np.asarray(page.colormap).T
    # 255 is to be 65535, so steps of 257; some programs write steps of 256.
    step = next((step for step in (257, 256) if not (colours % step).any()), None)
    return (colours if step is None else (colours // step).astype(np.uint8))[pixels]


def _equal(pixels: Array) -> FileFacts:
    equal = len(pixels) == 3 and all(np.array_equal(pixels[0], other) for other in pixels[1:])
    return {"equal_channels": True} if equal else {}


def _named_files(file: tifffile.TiffFile, path: Path) -> tuple[Path, ...]:
    """The other files of an OME-TIFF, which the library opens as soon as it lists the series.

    Raises FormatError for one that lies elsewhere or is missing.
    """
    if not file.is_ome or not file.ome_metadata:
        return ()
    root = ElementTree.fromstring(file.ome_metadata)  # noqa: S314  the parser refuses entities that grow
    identifier, others = root.get("UUID"), dict[str | None, Path]()
    for uuid in (one for one in root.iter() if one.tag.endswith("UUID")):
        name = uuid.get("FileName", "")
        if identifier is None and uuid.text is not None and name.lower() == path.name.lower():
            identifier = uuid.text
        if uuid.text in (identifier, *others):
            continue
        others[uuid.text] = folder_files.inside_folder(name, path)
        if others[uuid.text] != path.parent / name:  # the library would look for it under another name
            raise FormatError(f"names its planes' file {name!r}", str(path), "Write its name with plain slashes")
    return tuple(others.values())


def _refuse_circle(path: Path) -> None:
    """Refuse pages of which one names an earlier one as the next: the library would follow them without end."""
    with path.open("rb") as file:
        head = file.read(16)
        order = ">" if head[:2] == b"MM" else "<"
        large = struct.unpack(f"{order}H", head[2:4])[0] == BIG_TIFF
        at = struct.unpack(f"{order}Q", head[8:16])[0] if large else struct.unpack(f"{order}I", head[4:8])[0]
        counted, entry, pointer = ("Q", 20, "Q") if large else ("H", 12, "I")
        offsets = set[int]()
        while at:
            if at in offsets:
                raise FormatError("its pages lead back to one another", str(path), GET_AGAIN)
            offsets.add(at)
            file.seek(at)
            counts = file.read(struct.calcsize(counted))
            if len(counts) < struct.calcsize(counted):
                return
            file.seek(entry * struct.unpack(f"{order}{counted}", counts)[0], os.SEEK_CUR)
            following = file.read(struct.calcsize(pointer))
            at = struct.unpack(f"{order}{pointer}", following)[0] if len(following) == struct.calcsize(pointer) else 0


def _check_whole(file: tifffile.TiffFile, path: Path, others: Sequence[Path]) -> None:
    """Refuse what lacks planes, is cut short, or claims more than its files can hold."""
    size = sum(one.stat().st_size for one in (path, *others))
    if not file.series:
        raise FormatError("holds no picture", str(path), GET_AGAIN)
    for part in file.series:
        packed_files.refuse_expansion(size, part.nbytes, str(path))
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
    stored, needed = len(page.dataoffsets), prod(key.chunked)
    in_one_piece = stored == 1 and key.compression == COMPRESSION.NONE  # whatever some writers say of its strips
    if stored < needed and not in_one_piece:
        raise FormatError(f"lacks {needed - stored} of {needed} strips or tiles of a page", str(path), GET_AGAIN)


def _check_decoded(part: tifffile.TiffPageSeries, path: Path) -> None:
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
                picture = _picture_streams.stated_size(stream)
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


def _parts(path: Path) -> tuple[Path, ...]:
    _refuse_circle(path)
    with tifffile.TiffFile(path) as file:
        return path, *_named_files(file, path)


FORMAT = Format("tiff", read, write, parts=_parts, facts=FACTS)
