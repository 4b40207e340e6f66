"""Loaders of a case's parts, functions that read on demand; they survive pickling."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from hilum import errors
from hilum.errors import DatasetError, FormatError, GeometryError, HilumError
from hilum.files import file_formats, modality_words
from hilum.files.format_options import ReadOptions
from hilum.files.pictures import plain_picture, tiff
from hilum.files.storage import block, spool
from hilum.layouts.cases import segments
from hilum.layouts.cases.segments import SLICER
from hilum.values import Array, BoundingBoxes, Cell, Floats, Geometry, Image, Label, voxel_images
from hilum.values.voxel_images import FRAME_FILES, WHOLE_NUMBERS

UNKNOWN = "unknown"
ImageLoader = Callable[[], Image]
Colour = tuple[int, int, int]
# Objects are counted: 255 is one of them and not another notation of 1.
KEEP_255 = frozenset({255})
# Grey values by which JPEG changes black and white away from edges, and the share of pixels that may lie between.
NEARLY, MOST_BETWEEN = 32, 0.02
# How far a label may lie from its whole number: float32 and a scale factor of 8 bits round so, interpolation does not.
ROUNDING = 1e-2
# So many values between 0 and 255 are no labels where most of what is marked is 255.
SHADES = 16
# Share of a structure's voxels that may be another's too: edges that touch, and no part of a whole.
MOST_SHARED = 0.01
# A label map has no more values than this, or as many neighbours of equal value: label maps of nuclei have 96 % and
# more, images of eight sets below 52 %.
FEW_VALUES, EQUAL_NEIGHBOURS = 32, 0.9


def constant_value(value: Any) -> Any:
    """A value that is known without reading: the loader of a constant."""
    return value


def load_image(path: Path, options: ReadOptions, modality: str | None = None) -> Image:
    """The one volume of a file; its modality as declared, where the file states none."""
    return with_modality(_only(path, options), modality)


def with_modality(image: Image, modality: str | None) -> Image:
    """The image with the declared modality, where its file states none."""
    return replace(image, modality=modality) if modality and image.modality == UNKNOWN else image


FRAME_NUMBER = re.compile(r"\d+$")


def load_frame(path: Path, frame: int, frames: int, options: ReadOptions, modality: str | None = None) -> Image:
    """One frame of a 4D file whose frames are declared to be channels."""
    image = load_image(path, options, modality)
    if image.frames != frames:
        problem = f"holds {image.frames or 1} volumes where {frames} channels are declared"
        raise DatasetError(problem, str(path), "Correct the modality entry of dataset.json")
    return image.frame(frame)


def empty_label_map(labels: tuple[Label, ...], image: ImageLoader) -> Image:
    """A label map of nothing but background, on the grid of an image."""
    on = image()
    pixels: Array = np.zeros((1, *on.geometry.shape), np.uint8)
    return replace(on, pixels=pixels, channels=("label",), times=None, padding=None, labels=labels, facts={}, notes=())


def load_numbered_frame(path: Path, options: ReadOptions, modality: str | None = None) -> Image:
    """A frame of a clip whose frames are files of one folder, called by their numbers."""
    stem = FRAME_NUMBER.sub("", path.stem)
    alike = (one for one in path.parent.iterdir() if one.suffix == path.suffix)
    named = (one for one in alike if FRAME_NUMBER.sub("", one.stem) == stem)
    numbered = sorted((int(number[0]), one) for one in named if (number := FRAME_NUMBER.search(one.stem)))
    files = [one for _, one in numbered]
    place = files.index(path)

    def frame_beside(step: int) -> Array:
        """The frame so many files further on."""
        return load_image(files[min(max(place + step, 0), len(files) - 1)], options, modality).data

    image = load_image(path, options, modality)
    return replace(image, neighbours=frame_beside, facts={**image.facts, FRAME_FILES: (place, files)})


def on_axes_of_image(load: ImageLoader, first: ImageLoader) -> Image:
    """A label map or further image in the order of the axes of its case's first image, where it is on the same grid."""
    own = load()
    if not own.geometry.oriented:
        return own
    try:
        grid = first().geometry
    except HilumError:  # the first image's own fault, which whoever reads it says
        return own
    return own.on_axes_of(grid)


def differ_in_number_alone(paths: Sequence[Path]) -> bool:
    """Whether masks lie in one folder under names that differ in numbers alone, as x_mask and x_mask_1 do."""
    return len({(path.parent, " ".join(re.findall(r"[^\W\d_]+", path.name))) for path in paths}) <= 1


def refuse_unlike_masks(paths: Sequence[Path]) -> Image:
    """Raise FormatError for masks of one image that are no pieces of one: united, they would be nobody's."""
    several = len({path.name for path in paths}) < len(paths)
    names = errors.list_phrase(f"{path.parent.name}/{path.name}" if several else path.name for path in paths)
    problem = f"one image has the masks {names}, which differ in more than a number: they may be of several structures"
    remedy = "Keep the one that is meant; pieces of one are called x_mask_1, x_mask_2"
    raise FormatError(f"{problem}, readers or versions", str(paths[0]), remedy)


def frame_cells(path: Path, names: Sequence[str], modality: str | None) -> dict[str, Cell]:
    """{name: cell} of the images on the fourth axis of a file; of one name the file itself."""
    keys = [f"{frame}/{len(names)}" for frame in range(len(names))] if len(names) > 1 else [""]
    part, words = "frame" if names[1:] else "", [modality_words.modality_word(modality or name) for name in names]
    each = zip(names, keys, words, strict=True)
    return {name: Cell((path,), part, key, modality=word) for name, key, word in each}


def image_cell(path: Path, modality: str | None) -> Cell:
    """The cell of an image in a file, or in a folder of the files of a series."""
    return Cell((path,), "folder" if path.is_dir() else "", modality=modality)


def mask_cells(masks: Mapping[str, Sequence[Path]]) -> dict[str, Cell]:
    """{kind, of all readers but the first mask:reader: the cell} of {reader: label maps}."""
    cells = {reader: Cell(tuple(paths), reader=reader) for reader, paths in masks.items()}
    return {"mask" if rank == 0 else f"mask:{reader}": cell for rank, (reader, cell) in enumerate(cells.items())}


def structure_cell(masks: Mapping[str, Sequence[Path]]) -> Cell:
    """The cell of {structure: its masks} of one image."""
    named = [(name, path) for name, paths in masks.items() for path in paths]
    return Cell(tuple(path for _, path in named), names=tuple(name for name, _ in named))


def load_instances(paths: tuple[Path, ...], options: ReadOptions) -> Image:
    """A map in which each object has its number: one file with numbers, or one file an object, numbered in order.

    Where objects overlap the voxels are those of the first; how many there are stands in the notes.
    Raises FormatError for values that are no numbers, GeometryError for masks on different grids.
    """
    if len(paths) == 1:
        return _label_map(paths[0], KEEP_255, options)
    first, pixels, sizes, taken = _join_masks([(number, path) for number, path in enumerate(paths, start=1)], options)
    hidden = sum(0 < size == lost for size, lost in zip(sizes, taken, strict=True))
    return replace(first, pixels=pixels, notes=(*first.notes, *_overlapping("objects", sum(taken), hidden)))


def load_structures(
    each: tuple[tuple[int, tuple[Path, ...]], ...], labels: tuple[Label, ...], options: ReadOptions
) -> Image:
    """A label map of masks of 0 and 1 of single structures, which have their values in it.

    each: (value, files) of each structure
    Where structures touch, voxels of two are those of the first, and stand in the notes. Raises FormatError where
    they are more, or for values that are no mask's, GeometryError for masks on different grids.
    """
    numbered = [(value, path) for value, paths in each for path in paths]
    first, pixels, sizes, taken = _join_masks(numbered, options)
    for (_, path), size, lost in zip(numbered, sizes, taken, strict=True):
        if lost > MOST_SHARED * size:
            problem = f"{errors.count_phrase(lost, 'voxel')} of {size} lie in other structures too"
            remedy = "Leave out one of them by --labels 1=NAME,2=NAME, or make one label map of parts that do not "
            raise FormatError(problem, str(path), f"{remedy}overlap")
    return replace(first, pixels=pixels, labels=labels, notes=(*first.notes, *_overlapping("structures", sum(taken))))


def likeness_to_labels(path: Path, options: ReadOptions) -> int:
    """The likeness of a file to a label map: 3 by few values, 2 by one value, 1 by flat areas, 0 as images do.

    What cannot be read, and a signal, looks like none.
    """
    try:
        image = _indices(path, options) or _only(path, options)
        pixels = image.data[:3]
        if image.facts.get("lossy"):
            pixels = _black_and_white(pixels, path)[0]
    except HilumError:  # whoever reads the case says it; JPEG that is not of black and white is an image
        return 0
    if image.geometry.ndim < 2 or not np.array_equal(pixels, np.rint(pixels)):
        return 0
    values = len(np.unique(pixels.reshape(len(pixels), -1), axis=1).T) if len(pixels) > 1 else len(np.unique(pixels))
    if values <= FEW_VALUES:
        return 3 if values > 1 else 2
    return int((pixels[..., 1:] == pixels[..., :-1]).all(axis=0).mean() >= EQUAL_NEIGHBOURS)


def _join_masks(
    numbered: Sequence[tuple[int, Path]], options: ReadOptions
) -> tuple[Image, Array, list[int], list[int]]:
    """The image of the first mask, all masks in one map, voxels of each, and how many of them another had before it."""
    (_, where), *_ = numbered
    first = _label_map(where, frozenset(), options)
    pixels: Array = np.zeros(first.shape, dtype=np.min_scalar_type(max(value for value, _ in numbered)))
    sizes, taken = [], []
    for value, path in numbered:
        mask = first if path == where else _label_map(path, frozenset(), options)
        if not mask.geometry.equals(first.geometry):
            raise GeometryError(f"does not lie on the grid of {where.name}", str(path), "Contour both on one grid")
        if mask.data.max() > 1:
            problem = "several maps of one image with numbers above 1"
            raise FormatError(problem, str(path), "Make it one map, or one mask of 0 and 1 per object")
        own = mask.data > 0
        free = own & (pixels == 0)
        sizes.append(int(np.count_nonzero(own)))
        taken.append(sizes[-1] - int(np.count_nonzero(free)))
        pixels[free] = value
    return first, pixels, sizes, taken


def _overlapping(what: str, both: int, hidden: int = 0) -> list[str]:
    """Notes on voxels that several masks claim, and on objects that others cover."""
    shared = f"masks of {what} overlap in {errors.count_phrase(both, 'voxel')}, which count for the first of them"
    covered = f"{errors.count_phrase(hidden, 'object lies', 'objects lie')} wholly under others: left out"
    return [*([shared] if both else []), *([covered] if hidden else [])]


def load_mask(paths: tuple[Path, ...], labels: tuple[Label, ...], options: ReadOptions, reader: str = "") -> Image:
    """A label map of integers; several masks of one image are joined: a pixel in any of them is in.

    Values 0 and 255 are 0 and 1 unless 255 is declared as a label. A mask in colours is read by those of the labels.
    reader: who contoured it, where several people did
    Raises FormatError for values that are no labels, GeometryError for masks on different grids.
    """
    declared = frozenset(label.value for label in labels)
    times = Counter(label.colour for label in labels)
    coloured = {label.colour: label.value for label in labels if label.colour is not None and times[label.colour] == 1}
    if len(paths) > 1:
        first, pixels, _, _ = _join_masks([(1, path) for path in paths], options)
    else:
        first = _label_map(paths[0], declared, options, coloured, labels)
        pixels = first.data
    return replace(first, pixels=pixels, labels=labels or first.labels, facts={"reader": reader} if reader else {})


def _label_map(
    path: Path,
    declared: frozenset[int],
    options: ReadOptions,
    coloured: Mapping[Colour, int] = MappingProxyType({}),
    labels: tuple[Label, ...] = (),
) -> Image:
    image = _indices(path, options) or _only(path, options)
    image = segments.slicer_mask(image, labels, path) if file_formats.suffix_of(path) == SLICER else image
    stored, notes = _one_channel(image, path, coloured)
    pixels = as_label_values(stored, declared | {options.background}, path)
    if options.background:
        pixels, more = _with_background_0(pixels, options.background)
        notes = [*notes, more]
    return replace(image, pixels=pixels, channels=("label",), padding=None, facts={}, notes=(*image.notes, *notes))


def _with_background_0(pixels: Array, background: int) -> tuple[Array, str]:
    """The label numbers with 0 and the value of the background exchanged, and the note that says so."""
    whole = pixels.astype(np.promote_types(pixels.dtype, np.min_scalar_type(background)))
    exchanged = np.where(whole == background, 0, np.where(whole == 0, background, whole))
    return exchanged.astype(whole.dtype), f"{background} is the background: 0 and {background} are exchanged"


def turn_reference(load: Callable[[], Any], files: Sequence[Path], image: ImageLoader) -> Any:
    """A reference on the stored pixels as it lies on the turned ones of its image."""
    value, orientation = load(), orientation_of_files(files)
    match value:
        case Image() if orientation != 1:
            turned = plain_picture.apply_exif_orientation(np.moveaxis(value.data, 0, -1), orientation)
            pixels = np.ascontiguousarray(np.moveaxis(turned, -1, 0))
            return replace(value, pixels=pixels, geometry=Geometry.of_pixels(pixels.shape[1:]))
        case BoundingBoxes() if orientation != 1:
            rows, columns = image().geometry.shape[:: -1 if orientation in plain_picture.SIDEWAYS else 1]
            return replace(value, corners=_turned_corners(value.corners, (rows, columns), orientation))
        case _:
            return value


def orientation_of_files(files: Sequence[Path]) -> int:
    """The EXIF orientation of the first of a case's files that is turned; 1 where none is."""
    suffixes = file_formats.format_entries()["picture"].suffixes
    opened = (plain_picture.exif_orientation(path) for path in files if file_formats.suffix_of(path) in suffixes)
    return next((turn for turn in opened if turn != 1), 1)


def sizes_of_picture(path: Path) -> tuple[tuple[int, int], ...]:
    """(columns, rows) of a picture by its header, as stored and, where EXIF lays it on its side, as turned.

    Empty for a file of another kind, or one that cannot be opened.
    """
    suffixes = file_formats.format_entries()["picture"].suffixes
    size = plain_picture.stored_size(path) if file_formats.suffix_of(path) in suffixes else None
    if size is None:
        return ()
    columns, rows = size
    lies_on_side = plain_picture.QUARTERS.get(plain_picture.exif_orientation(path), 0) % 2 == 1
    return ((columns, rows), (rows, columns)) if lies_on_side else ((columns, rows),)


def _turned_corners(corners: Floats, shape: tuple[int, int], orientation: int) -> Floats:
    """(n, 4) edges of boxes in a picture of this shape as they lie once `apply_exif_orientation` has turned it."""
    (rows, columns), (y, x) = shape, (corners[:, 0::2], corners[:, 1::2])
    x = columns - x if orientation in plain_picture.MIRRORED else x
    y = rows - y if orientation in plain_picture.FLIPPED else y
    for _ in range(plain_picture.QUARTERS.get(orientation, 0)):
        (y, x), (rows, columns) = (columns - x, y), (columns, rows)
    return np.column_stack([y.min(axis=1), x.min(axis=1), y.max(axis=1), x.max(axis=1)])


def as_label_values(pixels: Array, declared: frozenset[int], path: Path) -> Array:
    """Whole numbers in the smallest type that holds them; {0, 255} as {0, 1} where 255 is not declared."""
    if np.issubdtype(pixels.dtype, np.floating):
        stored, pixels = pixels, np.rint(pixels)
        if not np.isfinite(stored).all() or np.abs(stored - pixels).max() > ROUNDING:
            raise FormatError(voxel_images.words_for_fractions(stored, ROUNDING), str(path), WHOLE_NUMBERS)
    elif not block.is_number(pixels.dtype):
        raise FormatError(f"holds {pixels.dtype} values, so it is not a mask", str(path), "Save whole numbers")
    low, high = int(pixels.min()), int(pixels.max())
    if low < 0:
        raise FormatError(f"holds the label {low}", str(path), "Number labels from 0 (background) upwards")
    whole = _in_type(pixels, np.min_scalar_type(high), path)
    if high != 255 or 255 in declared:
        return whole
    values = set(np.unique(whole).tolist())
    if values <= {0, 255}:
        return (whole > 0).astype(np.uint8)
    if len(values - {0, 255}) >= SHADES and 2 * np.count_nonzero(whole == 255) > np.count_nonzero(whole):
        shades = len(values - {0, 255})
        problem = f"is a mask of 0 and 255 with {shades} grey values between them, as smoothing makes them"
        raise FormatError(problem, str(path), "Save 0 and 255 only, and resize masks by the nearest neighbour")
    if pixels.dtype == np.uint8 and 254 not in values:  # dense numbers are a count of things that ends at 255
        remedy = "Declare what the values mean with --labels 1=NAME,...,255=NAME, or 255=ignore"
        if 2 * np.count_nonzero(whole == 255) > whole.size:
            remedy = (
                "255 lies around the structures: if it is the background, declare it and the structure that is 0 with "
                "--labels 0=NAME,...,255=background; if nobody looked there, with 255=ignore"
            )
        others = ", ".join(str(v) for v in sorted(values - {0, 255})[:4])
        raise FormatError(f"holds 255 and also {others}: a label, or 'ignore'?", str(path), remedy)
    return whole


def _in_type(pixels: Array, dtype: np.dtype[Any], path: Path) -> Array:
    """The numbers in another type; large ones stay on disk, in the file itself where that has them so."""
    if pixels.size * dtype.itemsize < spool.MAPPED_BYTES:
        return pixels.astype(dtype, copy=False)
    if pixels.dtype == dtype:
        return pixels
    whole = spool.room(pixels.T.shape, dtype, str(path)).T
    whole[...] = pixels
    return whole


def _indices(path: Path, options: ReadOptions) -> Image | None:
    """The label map in a picture with a palette; None for all other files."""
    match file_formats.format_of(path):
        case "picture":
            return plain_picture.read_palette_indices(path, options)
        case "tiff":
            return tiff.read_label_numbers(path)
        case _:
            return None


def _one_channel(image: Image, path: Path, coloured: Mapping[Colour, int]) -> tuple[Array, list[str]]:
    """The label numbers of a picture, and notes on what it took to know them; coloured: {colour: label}."""
    data, notes = image.data, list[str]()
    if np.issubdtype(data.dtype, np.floating) and 0 < np.count_nonzero(missing := np.isnan(data)) < data.size:
        data, notes = np.where(missing, 0, data), ["voxels that are no number (NaN) are background"]
    colours = data[:3] if len(data) in (3, 4) else data[:1]
    if image.facts.get("lossy") and len(np.unique(colours)) > 2:
        return _black_and_white(colours, path)
    if len(data) > 4:
        raise FormatError(f"a mask of {len(data)} channels", str(path), "Save label numbers in one channel")
    if len(data) in (2, 4) and np.ptp(colours, axis=tuple(range(1, colours.ndim))).max() == 0 < np.ptp(data[-1]):
        problem = "a mask of one colour that shows by its transparency alone"
        raise FormatError(problem, str(path), "Save label numbers in one channel: 1 inside, 0 outside")
    is_grey = len(colours) == 1 or (colours == colours[:1]).all()
    return (colours[:1], notes) if is_grey else (_by_colour(colours, path, coloured), notes)


def _by_colour(colours: Array, path: Path, coloured: Mapping[Colour, int]) -> Array:
    """(1, *spatial) label numbers of a mask in colours; black is the background where no label is black.

    Raises FormatError for a colour that no label has, or more than one.
    """
    if not coloured or colours.dtype != np.uint8:
        table = "classes.csv in the data set's folder, with value,name,red,green,blue"
        raise FormatError("a mask in colours", str(path), f"Say what they mean in {table}, or save label numbers")
    red, green, blue = colours.astype(np.uint32)
    stored, places = np.unique(red << 16 | green << 8 | blue, return_inverse=True)
    known = {(0, 0, 0): 0, **coloured}
    present = [(code >> 16, code >> 8 & 255, code & 255) for code in stored.tolist()]
    strangers = [colour for colour in present if colour not in known]
    if strangers:
        problem = f"has the colour {strangers[0]}, which is not that of one label"
        raise FormatError(problem, str(path), "Give each label a colour of its own in the table of labels")
    return np.array([known[colour] for colour in present])[places].reshape(1, *red.shape)


def _black_and_white(colours: Array, path: Path) -> tuple[Array, list[str]]:
    """The mask that JPEG has blurred, where all but its edges are still nearly black or white.

    Raises FormatError where they are not: numbers that lie side by side cannot be known again.
    """
    grey = colours.mean(axis=0, keepdims=True)
    between = int(np.count_nonzero((grey > NEARLY) & (grey < 255 - NEARLY)))
    is_grey = np.ptp(colours.astype(np.int16), axis=0).max() <= NEARLY
    if not is_grey or between > MOST_BETWEEN * grey.size or grey.max() < 255 - NEARLY:
        raise FormatError("a mask blurred by JPEG compression", str(path), "Save masks as PNG")
    pixels = errors.count_phrase(between, "pixel")
    note = f"a mask of black and white that JPEG has blurred: {pixels} between go by the nearer one"
    return np.where(grey > 127.5, 255, 0).astype(np.uint8), [note]


def _only(path: Path, options: ReadOptions) -> Image:
    volumes: Mapping[str, Image] = file_formats.read_volumes(path, options)
    if len(volumes) != 1:
        problem = f"holds {len(volumes)} volumes on different grids where one is expected"
        raise FormatError(problem, str(path), "Save them as one file each")
    return next(iter(volumes.values()))
