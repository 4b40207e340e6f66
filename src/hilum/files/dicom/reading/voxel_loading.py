"""The voxels of a volume or picture stack, read from their files on demand: all, or one region."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import FormatError, HilumError
from hilum.files.dicom import header_reading, library_warnings, tags
from hilum.files.dicom.elements import DicomDataset
from hilum.files.dicom.header_reading import Header
from hilum.files.dicom.reading import pixel_decoding, pixel_values
from hilum.files.dicom.reading.codecs import CODEC_ERRORS
from hilum.files.dicom.reading.pixel_decoding import MOST_THREADS
from hilum.files.dicom.reading.pixel_layout import GET_AGAIN, PixelLayout
from hilum.files.dicom.reading.value_maps import ValueMap, ValueMeaning
from hilum.files.dicom.uids import CODED, EXPLICIT, IMPLICIT
from hilum.files.storage import spool
from hilum.values import Deferred

AT_ONCE = 1 << 18  # values that are converted at a time
MOST_FRAGMENTS = 1 << 10  # of one file whose parts are read by their place


@dataclass(frozen=True)
class FramePlace:
    """The place in the array that one frame of a file fills.

    tile: (row, column) of the tile in tiles, of a mosaic
    """

    frame: int
    channel: int
    repeat: int
    slice: int
    tile: tuple[int, int] | None = None


@dataclass(frozen=True)
class VoxelPlan:
    """Everything needed to fill the array; small, and it survives pickling.

    shape:   (channels, repeats, slices, rows, columns), before axes are dropped or turned
    files:   (path, what goes where)
    fill:    the value of missing slices
    volume:  whether the result is (channels[, frames], columns, rows, slices), else (channels[, frames], rows, columns)
    repeated: whether the result has a frame axis
    plain:    {path: where its pixels lie}, of the files whose pixels need not be decoded
    """

    shape: tuple[int, int, int, int, int]
    dtype: np.dtype[Any]
    files: tuple[tuple[str, tuple[FramePlace, ...]], ...]
    meaning: ValueMeaning
    volume: bool
    repeated: bool
    colour: bool = False
    fill: float | None = None
    plain: Mapping[str, PlainFile] = field(default_factory=dict)


def defer_voxels(plan: VoxelPlan) -> Deferred:
    """The voxels of a plan, not yet read."""
    channels, repeats, slices, rows, columns = plan.shape
    spatial = (columns, rows, slices) if plan.volume else (rows, columns)
    frames = (repeats,) if plan.repeated else ()
    return Deferred((channels, *frames, *spatial), plan.dtype, partial(load_voxels, plan), partial(load_region, plan))


def load_voxels(plan: VoxelPlan) -> NDArray[Any]:
    """The whole array. Raises FormatError, which names the file, for pixels that cannot be decoded."""
    out = spool.room(plan.shape, plan.dtype, plan.files[0][0] if plan.files else "the series")
    if plan.fill is not None:
        out[...] = plan.fill
    workers = max(1, min(MOST_THREADS, os.cpu_count() or 1, len(plan.files)))
    with (
        library_warnings.collect_warnings(),
        ThreadPoolExecutor(workers) as pool,
    ):  # warnings about headers were noted when they were read
        list(pool.map(lambda file: _place_frames(file, plan, out), plan.files))
    return _to_image_axes(out, plan)


def load_region(plan: VoxelPlan, region: tuple[slice, ...]) -> NDArray[Any]:
    """`array[region]`, reading only files and frames that lie in it."""
    shape = defer_voxels(plan).shape
    full = tuple(region) + tuple(slice(None) for _ in shape[len(region) :])
    ranges = [range(size)[part] for part, size in zip(full, shape, strict=True)]
    channels = ranges[0]
    repeats = ranges[1] if plan.repeated else range(1)
    slices = ranges[-1] if plan.volume else range(1)
    if 0 in (len(channels), len(repeats), len(slices)):
        return np.empty(tuple(len(part) for part in ranges), plan.dtype)
    part, selection = _narrow(plan, channels, repeats, slices)
    inner = list(full)
    inner[0] = slice(None) if plan.colour is False else full[0]
    if plan.repeated:
        inner[1] = slice(None)
    if plan.volume:
        inner[-1] = slice(None)
    return load_voxels(replace(part, files=selection))[tuple(inner)]


def _narrow(
    plan: VoxelPlan, channels: Sequence[int], repeats: Sequence[int], slices: Sequence[int]
) -> tuple[VoxelPlan, tuple[tuple[str, tuple[FramePlace, ...]], ...]]:
    """The plan of these channels, repeats and slices; colours stay joined, because they lie in one frame."""
    index = {c: n for n, c in enumerate(channels)} if not plan.colour else {0: 0}
    count = plan.shape[0] if plan.colour else len(channels)
    repeat, depth = ({r: n for n, r in enumerate(repeats)}, {s: n for n, s in enumerate(slices)})
    files = []
    for path, places in plan.files:
        selection = tuple(
            replace(place, channel=index[place.channel], repeat=repeat[place.repeat], slice=depth[place.slice])
            for place in places
            if place.channel in index and place.repeat in repeat and place.slice in depth
        )
        if selection:
            files.append((path, selection))
    return replace(plan, shape=(count, len(repeats), len(slices), *plan.shape[3:])), tuple(files)


def _place_frames(file: tuple[str, tuple[FramePlace, ...]], plan: VoxelPlan, out: NDArray[Any]) -> None:
    try:
        _place(file, plan, out)
    except HilumError:
        raise
    except tags.pydicom_errors() + CODEC_ERRORS as error:
        raise FormatError(
            f"the pixels cannot be decoded ({errors.describe_cause(error)})", file[0], "Get the file again"
        ) from error


def _place(file: tuple[str, tuple[FramePlace, ...]], plan: VoxelPlan, out: NDArray[Any]) -> None:
    """Decode one file's frames and put each where it belongs."""
    path, places = file
    plain = plan.plain.get(path)
    if plain is not None and not (plain.is_compressed_clip and len(places) > 1):
        _place_plain(file, plain, plan, out)
        return
    dataset = _whole(path)
    places_by_frame: dict[int, list[FramePlace]] = {}
    for tile in places:  # several tiles of a mosaic come from one frame
        places_by_frame.setdefault(tile.frame, []).append(tile)
    for number, stored in zip(
        places_by_frame, pixel_decoding.iterate_frames(dataset, path, list(places_by_frame)), strict=True
    ):
        values = pixel_values.rescale_stored(stored, dataset, number, plan.meaning, path)
        for tile in places_by_frame[number]:
            _place_values(values, tile, plan, out)


def _place_plain(
    file: tuple[str, tuple[FramePlace, ...]], plain: PlainFile, plan: VoxelPlan, out: NDArray[Any]
) -> None:
    path, places = file
    try:
        with Path(path).open("rb", buffering=0) as opened:
            mosaic: NDArray[Any] | None = None
            for tile in places:
                if tile.tile is None:
                    channel = slice(None) if plan.colour else tile.channel
                    place_plain_frame(opened, plain, tile.frame, path, out[channel, tile.repeat, tile.slice])
                    continue
                if mosaic is None:  # a file of tiles has one frame
                    mosaic = np.empty((plain.layout.rows, plain.layout.columns), plain.values.dtype)
                    place_plain_frame(opened, plain, tile.frame, path, mosaic)
                _place_values(mosaic, tile, plan, out)
    except OSError as error:
        raise FormatError(
            f"cannot be read any more ({error.strerror})", path, "Check whether the file was moved"
        ) from error


def _place_values(values: NDArray[Any], tile: FramePlace, plan: VoxelPlan, out: NDArray[Any]) -> None:
    rows, columns = plan.shape[3:]
    if tile.tile is not None:
        row, column = tile.tile[0] * rows, tile.tile[1] * columns
        values = values[row : row + rows, column : column + columns]
    if plan.colour:
        out[:, tile.repeat, tile.slice] = np.moveaxis(values, -1, 0)
    else:
        out[tile.channel, tile.repeat, tile.slice] = values


def _whole(path: str) -> DicomDataset:
    dataset = header_reading.read_object(Path(path))
    if not pixel_decoding.has_pixels(dataset):  # the header began an element whose end the file does not hold
        raise FormatError("the pixel data are cut short", path, "Get the file again")
    return dataset


def _to_image_axes(out: NDArray[Any], plan: VoxelPlan) -> NDArray[Any]:
    """(channels, repeats, slices, rows, columns) to the axes that an Image has."""
    # A view: slices stay contiguous in memory, as they came and as NIfTI wants them.
    turned = out.transpose(0, 1, 4, 3, 2) if plan.volume else out[:, :, 0]
    return turned if plan.repeated else turned[:, 0]


@dataclass(frozen=True)
class PlainFile:
    """The place and the meaning of a file's pixels, so that its header is not read a second time.

    offset:    bytes from the file's start to its first frame
    values:    the map of every frame's stored values
    fragments: (offset, length) of the parts of a compressed frame, which is the only one; of a clip one for each frame
    """

    offset: int
    layout: PixelLayout
    values: ValueMap
    fragments: tuple[tuple[int, int], ...] = ()

    @property
    def is_compressed_clip(self) -> bool:
        """Whether it holds several compressed frames: all of them are quicker decoded side by side."""
        return bool(self.fragments) and self.layout.frames > 1

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """The type of the words in the file."""
        return np.dtype(self.layout.word)

    @property
    def is_identity(self) -> bool:
        """Whether every stored word, with all its bits, is its value."""
        return self.values.is_identity and self.layout.stored == self.layout.allocated


def plain_file_of(head: Header, layout: PixelLayout, values: ValueMap) -> PlainFile | None:
    """None for what takes more to decode, and for pixels of another length than stated: decoding looks at those."""
    if head.offset is None:
        return None
    is_one_frame = layout.frames == 1 and not layout.colour
    is_clip = layout.frames == len(head.fragments) > 1 and not layout.is_palette
    by_place = layout.syntax in CODED and (is_one_frame or is_clip)
    if head.is_compressed and by_place and len(head.fragments) <= MOST_FRAGMENTS:
        return PlainFile(head.offset, layout, values, tuple((at, length) for at, length in head.fragments.tolist()))
    if head.is_compressed or layout.syntax not in (IMPLICIT, EXPLICIT):
        return None
    if (layout.colour and layout.photometric != "RGB") or layout.allocated % 8:
        return None
    if not 0 <= (head.length or 0) - layout.size < 2:
        return None
    return PlainFile(head.offset, layout, values)


def place_plain_frame(file: BinaryIO, plain: PlainFile, frame: int, where: str, target: NDArray[Any]) -> None:
    """One frame's values into `target`, (rows, columns) or, of a colour picture, (3, rows, columns).

    Raises FormatError where the file is no longer that long.
    """
    layout = plain.layout
    if plain.fragments:
        fragments = plain.fragments[frame : frame + 1] if plain.is_compressed_clip else plain.fragments
        compressed = b"".join(_read_fragments(file, fragments, where))
        if layout.colour:
            target[...] = np.moveaxis(pixel_decoding.decode_colour_frame(compressed, layout, frame, where), -1, 0)
            return
        stored, _ = pixel_decoding.decompress_frame(compressed, layout, frame, where)
        target[...] = stored if plain.values.is_identity else plain.values(stored)
        return
    file.seek(plain.offset + frame * (layout.frame_bits // 8))
    if layout.planar:
        for plane in target:
            _put_rows(file, plain, where, plane)
    elif layout.colour:
        _put_rows(file, plain, where, np.moveaxis(target, 0, -1))
    else:
        _put_rows(file, plain, where, target)


def _read_fragments(file: BinaryIO, fragments: Sequence[tuple[int, int]], where: str) -> Iterator[bytes]:
    for offset, length in fragments:
        file.seek(offset)
        part = file.read(length)
        if len(part) != length:
            raise FormatError("the pixel data are cut short", where, GET_AGAIN)
        yield part


def _put_rows(file: BinaryIO, plain: PlainFile, where: str, target: NDArray[Any]) -> None:
    """(rows, columns[, samples]) values of the words that come next in the file, some rows at a time."""
    straight = plain.is_identity and _are_same_words(plain.layout.dtype, target)
    step = len(target) if straight else max(1, AT_ONCE * len(target) // target.size)
    for start in range(0, len(target), step):
        rows = target[start : start + step]
        words = rows if straight else np.empty(rows.shape, plain.stored_dtype)
        if file.readinto(words) != words.nbytes:  # type: ignore[attr-defined]  # the type of binary files lacks it
            raise FormatError("the pixel data are cut short", where, GET_AGAIN)
        if not straight and plain.layout.colour:
            rows[...] = words
        elif not straight:
            rows[...] = plain.values(
                words if plain.layout.is_floating else pixel_decoding.keep_stored_bits(words, plain.layout)
            )


def _are_same_words(dtype: np.dtype[Any], target: NDArray[Any]) -> bool:
    return target.dtype == dtype and dtype.newbyteorder("<") == dtype and target.flags.c_contiguous
