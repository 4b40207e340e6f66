"""The DICOM format: files and folders of series as images in RAS+ mm.

Frames that have a place in the patient become volumes, others pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hilum import errors
from hilum.errors import FormatError, GeometryError, HilumError
from hilum.files import spectra
from hilum.files.dicom import header_reading, library_warnings, object_identity, tags
from hilum.files.dicom.elements import DicomDataset
from hilum.files.dicom.header_reading import Header
from hilum.files.dicom.reading import (
    concatenations,
    display_windows,
    file_frames,
    lacking_values,
    object_flags,
    picture_scale,
    pixel_decoding,
    pixel_layout,
    pixel_values,
    seg_reading,
    series_survey,
    slice_volumes,
    stream_colours,
    value_maps,
    voxel_loading,
)
from hilum.files.dicom.reading.file_frames import CROSS_SECTIONS
from hilum.files.dicom.reading.pixel_layout import PixelLayout
from hilum.files.dicom.reading.series_survey import SEGMENTATIONS
from hilum.files.dicom.reading.slice_volumes import SliceVolume
from hilum.files.dicom.reading.value_maps import ValueMap, ValueMeaning
from hilum.files.dicom.reading.voxel_loading import FramePlace, PlainFile, VoxelPlan
from hilum.files.dicom.slice_geometry import B_VALUE, DIRECTION, ECHO, LPS_TO_RAS, Frame, SliceHeader
from hilum.files.dicom.tags import LONGEST_TEXT
from hilum.files.format_options import Format, ReadOptions
from hilum.files.slides import dicom_slide
from hilum.files.spectra import SpectralAxis
from hilum.files.storage import packed_files
from hilum.values import FactRule, Geometry, Image, LazyMapping, Source, grouping
from hilum.values.voxel_images import OF_CHANNELS, FileFacts

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image Storage
UNIT_ATTRIBUTES = "Units (0054,1001) or RescaleType (0028,1054)"
# A name's suffix, and its image.
Named = tuple[str, Image]
T = TypeVar("T")
MR_SPECTROSCOPY = "1.2.840.10008.5.1.4.1.1.4.2"
FACTS = (
    FactRule("DICOM", "read", "parts of one object (concatenations)"),
    FactRule("DICOM", "read", "brightness: window, VOI LUT, SIGMOID, MONOCHROME1, INVERSE (PresentationLUTShape)"),
    FactRule("DICOM", "refused", "a part of a concatenation alone"),
    FactRule("DICOM", "named", "pixels that are not square, where their size is unknown"),
    FactRule("DICOM", "named", "bytes behind the pixels"),
    FactRule("DICOM", "named", "colours of which header and stream state different models"),
    FactRule("DICOM slides", "read", "places of frames"),
    FactRule("DICOM slides", "read", "colour of what was not scanned"),
    FactRule("DICOM slides", "named", "the share that was not scanned"),
    FactRule("DICOM slides", "named", "label and overview beside the levels"),
    FactRule("DICOM slides", "refused", "fewer frames than tiles"),
    FactRule("DICOM slides", "refused", "two frames of one tile"),
)


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """All volumes of a file, of what a DICOMDIR lists, or of a folder, by name; pixels are read when asked for.

    Of several series one that cannot be read is refused when it is asked for, so that the others can be had.
    Segmentations are left out where a folder holds images too: they are references.
    Raises FormatError or GeometryError where nothing can be read.
    """
    with library_warnings.collect_warnings():  # `read_header` keeps them as notes
        return _read_headers(series_survey.collect_headers(path), options)


def read_series(paths: Iterable[Path], options: ReadOptions | None = None) -> Mapping[str, Image]:
    """All volumes of the files of one series (at least one file), by name."""
    with library_warnings.collect_warnings():
        return _read_headers([header_reading.read_header(path) for path in paths], options or ReadOptions())


def _read_headers(heads: list[Header], options: ReadOptions) -> Mapping[str, Image]:
    pictures = [head for head in heads if head.is_image]
    images = [head for head in pictures if head.sop_class not in SEGMENTATIONS] or pictures
    if not images:
        header_reading.check_pixels(heads[0])
    loaders: list[Callable[[], Image]] = []
    names, refusals = list[str](), list[HilumError]()
    groups = series_survey.group_by_series(images)
    several_patients = series_survey.files_by_patient(groups)
    for group in groups:
        counts = several_patients.get(series_survey.stated_series(group[0]), [])
        volumes, refusal = _volumes_or_refusal(group, options, counts)
        refusals += [refusal] if refusal else []
        names += [series_survey.safe_name(group[0].dataset) + series_survey.safe_text(suffix) for suffix, _ in volumes]
        loaders += [load for _, load in volumes]
    if len(refusals) == len(loaders):
        raise refusals[0]
    return LazyMapping(dict(zip(series_survey.unique_names(names), loaders, strict=True)))


def _volumes_or_refusal(
    group: list[Header], options: ReadOptions, counts: Sequence[int]
) -> tuple[list[tuple[str, Callable[[], Image]]], HilumError | None]:
    """([(a suffix, a function that gives the image)], the error that the one function raises).

    counts: how many files of the series each patient has, where they state several
    """
    try:
        if counts:
            raise FormatError(
                f"the slices of one series belong to {len(counts)} patients ({' and '.join(map(str, counts))} files)",
                str(group[0].path.parent),
                "Take out the files that belong to another patient, or move them into a folder of their own",
            )
        return [(suffix, partial(_itself, image)) for suffix, image in _images_of(group, options)], None
    except HilumError as error:
        refusal = error
    except tags.pydicom_errors() as error:
        refusal = FormatError(
            f"cannot be read ({errors.describe_cause(error)})", group[0].where, "Get the files of this series again"
        )
    return [("", partial(_refuse, refusal))], refusal


def _itself(image: Image) -> Image:
    return image


def _refuse(error: HilumError) -> Image:
    raise error


def _images_of(heads: Sequence[Header], options: ReadOptions) -> list[Named]:
    """The images of one series, each with a suffix for its name where there are several.

    An object in several files is read once, with a note.
    """
    where = heads[0].where if len(heads) == 1 else str(heads[0].path.parent)
    heads, notes = object_identity.drop_copies(heads, where)
    images = _images(heads, where, options)
    notes = (*notes, *lacking_values.identity_notes(heads))
    return [(suffix, replace(image, notes=(*notes, *image.notes))) for suffix, image in images] if notes else images


def _images(heads: Sequence[Header], where: str, options: ReadOptions) -> list[Named]:
    heads = [part for parts in concatenations.join_parts(heads) for part in parts]
    if heads[0].sop_class in SEGMENTATIONS:
        return [
            (f"_{n + 1}" if len(heads) > 1 else "", seg_reading.read_segmentation(head.path))
            for n, head in enumerate(heads)
        ]
    if heads[0].sop_class == MR_SPECTROSCOPY:
        several = len(heads) > 1
        return [(f"_{n + 1}" if several else "", read_spectroscopy(head, options)) for n, head in enumerate(heads)]
    if heads[0].sop_class == WHOLE_SLIDE:
        return [("", dicom_slide.read_slide(heads, where))]
    frames = []
    for head in heads:
        header_reading.check_pixels(head)
        frames.append(file_frames.list_frames(head))
    everything = [frame for part in frames for frame in part]
    lost = [frame for frame in everything if frame.plane is None]
    if not lost:
        volumes = _part(slice_volumes.group_into_volumes(everything, where, options), options.part)
        several = len(volumes) > 1 and len({volume.suffix for volume in volumes}) < len(volumes)
        suffixes = [f"{v.suffix}_{n + 1}" if several else v.suffix for n, v in enumerate(volumes)]
        return [(s, _volume_image(heads, v, where, options)) for s, v in zip(suffixes, volumes, strict=True)]
    if len(lost) < len(everything):
        raise GeometryError(
            f"{lost[0].name} does not state where it lies (ImagePositionPatient (0020,0032)), other slices do",
            where,
            "Take it out of the series, or export the series again",
        )
    return _picture_images(heads, frames, where, options)


def _volume_image(heads: Sequence[Header], volume: SliceVolume, where: str, options: ReadOptions) -> Image:
    """A positioned volume: (channels[, frames], columns, rows, slices)."""
    paths = {f.path for kind in volume.frames for slices in kind for f in slices if f is not None}
    used = [head for head in heads if head.path in paths]
    voxels = _Voxels(used, where, options, fill=bool(volume.missing))
    rows, columns = volume.first.shape
    slices, repeats = len(volume.frames[0][0]), len(volume.frames[0])
    frames = [
        (
            frame,
            FramePlace(
                frame.number, channel, repeat, n, None if frame.tile is None else divmod(frame.tile, frame.side)
            ),
        )
        for channel, kind in enumerate(volume.frames)
        for repeat, stack in enumerate(kind)
        for n, frame in enumerate(stack)
        if frame is not None
    ]
    plan = voxels.plan(frames, (len(volume.frames), repeats, slices, rows, columns), volume=True, repeated=repeats > 1)
    geometry = Geometry((columns, rows, slices), volume.affine, volume.first.frame_of_reference)
    times = volume.times() if repeats > 1 else None
    notes = volume.notes
    if repeats > 1 and times is None and len(used) == 1:
        times, about_times = picture_scale.frame_times(used[0].dataset, repeats)
        notes = (*notes, *about_times)
    channels = volume.kinds if len(volume.kinds) > 1 else ()
    stacks = [
        [None if frame is None else (str(frame.path), frame.number, frame.tile) for frame in stack]
        for stack in volume.frames[0]
    ]
    header: SliceHeader = {"slices": stacks[0], "volumes": stacks}
    windows, about_windows = _windows(volume, used, voxels.meaning, where)
    facts, notes = {**_volume_facts(volume), **windows}, (*notes, *about_windows)
    return voxels.image(plan, geometry, times, notes, facts, channels, header)


def _part(volumes: list[SliceVolume], part: str | None) -> list[SliceVolume]:
    """Only one part of a complex signal, where it was asked for and is there."""
    if part is None or not any(part in volume.kinds for volume in volumes):
        return volumes
    volumes_of_part = [volume for volume in volumes if part in volume.kinds]
    return [replace(v, frames=(v.frames[v.kinds.index(part)],), kinds=(part,), suffix="") for v in volumes_of_part]


def _volume_facts(volume: SliceVolume) -> FileFacts:
    """The values that distinguish repeats, in the order of the frames."""
    by_repeat = {name: volume.values_by_repeat(label) for label, name in ((B_VALUE, "b_values"), (ECHO, "echo_times"))}
    facts: FileFacts = {name: values for name, values in by_repeat.items() if len(set(values)) > 1}
    directions = volume.values_by_repeat(DIRECTION)
    if len(set(directions)) > 1:
        turned = (None if d is None else tuple((LPS_TO_RAS @ np.asarray(d, dtype=float)).tolist()) for d in directions)
        facts = {**facts, "gradient_directions": tuple(turned)}  # unit vectors in RAS+, None for b = 0
    return {**facts, "missing_slices": volume.missing} if volume.missing else facts


def _windows(
    volume: SliceVolume, heads: Sequence[Header], meant: ValueMeaning, where: str
) -> tuple[FileFacts, tuple[str, ...]]:
    """(the display window of each kind of image, as the first of its frames that has one states it, notes)."""
    order = {head.path: place for place, head in enumerate(heads)}
    by_file = {
        head.path: display_windows.frames_with_window(head.dataset, header_reading.frame_count(head)) for head in heads
    }
    windows, notes = {}, dict[str, None]()
    for kind, repeats in zip(volume.kinds, volume.frames, strict=True):
        frames = [frame for stack in repeats for frame in stack if frame is not None]
        frames.sort(key=lambda frame: (order[frame.path], frame.number))
        stating = [by_file[frame.path][frame.number] for frame in frames]
        first = frames[stating.index(True)] if True in stating else frames[0]
        windows[kind] = display_windows.window_fact(heads[order[first.path]].dataset, first.number, meant, where)
        lacking = lacking_values.split_lacking(zip((frame.name for frame in frames), stating, strict=True))
        if lacking:
            phrase = lacking_values.lacking_phrase(lacking, len(frames), tags.keyword_with_tag("WindowCenter"))
            notes[f"{phrase}: all are shown in the window of {first.name}"] = None
    if len(set(windows.values())) == 1:
        return {"window": next(iter(windows.values()))}, tuple(notes)
    of_channels = {kind: {"window": window} for kind, window in windows.items()}
    return {"window": None, OF_CHANNELS: of_channels}, tuple(notes)


def _picture_images(
    heads: Sequence[Header], frames: list[list[Frame]], where: str, options: ReadOptions
) -> list[Named]:
    """Images without a position: each file its own, but slices of a scanner without a position are frames."""
    alike = len({frame.shape for part in frames for frame in part}) == 1
    orders = {frame.order for part in frames for frame in part}
    numbered = all(frame.is_numbered for part in frames for frame in part)
    in_order = numbered and len(orders) == sum(len(part) for part in frames)
    if len(heads) > 1 and alike and in_order and tags.text(heads[0].dataset, "Modality") in CROSS_SECTIONS:
        note = "the slices state no position: they are frames in the order of their instance numbers"
        ordered = sorted((frame for part in frames for frame in part), key=lambda frame: frame.order)
        return [("", _picture(heads, ordered, where, options, (note,)))]
    images = [_picture([head], part, head.where, options) for head, part in zip(heads, frames, strict=True)]
    return [(f"_{n + 1}" if len(images) > 1 else "", image) for n, image in enumerate(images)]


def _picture(
    heads: Sequence[Header],
    frames: Sequence[Frame],
    where: str,
    options: ReadOptions,
    notes: tuple[str, ...] = (),
) -> Image:
    """(channels[, frames], rows, columns)."""
    scale = picture_scale.pixel_scale(heads[0].dataset, where)
    voxels = _Voxels(heads, where, options, fill=False)
    count, repeated = len(frames), len(frames) > 1
    places = [(frame, FramePlace(frame.number, 0, n, 0)) for n, frame in enumerate(frames)]
    plan = voxels.plan(places, (1, count, 1, *frames[0].shape), volume=False, repeated=repeated)
    times = _picture_times(frames)
    if repeated and times is None and len(heads) == 1:
        times, about_times = picture_scale.frame_times(heads[0].dataset, count)
        notes = (*notes, *about_times)
    if repeated:
        notes = (*notes, "frames without a position: where they lie in the patient is not known")
    geometry = scale.geometry(frames[0].shape)
    header: SliceHeader = {"slices": [(str(frame.path), frame.number, None) for frame in frames]}
    return voxels.image(plan, geometry, times, (*notes, *scale.notes), scale.facts, (), header)


def _picture_times(frames: Sequence[Frame]) -> tuple[float, ...] | None:
    times = [frame.time for frame in frames if frame.time is not None]
    if len(times) < len(frames) or len(frames) < 2 or any(b <= a for a, b in pairwise(times)):
        return None
    return tuple(round(time - times[0], 6) for time in times)


def _about_surplus(heads: Sequence[Header], layouts: Sequence[PixelLayout]) -> tuple[str, ...]:
    """A note where more than one byte follows native pixels; decoding refuses what is no padding."""
    native = [(head.length or 0, layout) for head, layout in zip(heads, layouts, strict=True) if not head.is_compressed]
    most = max(
        (length - pixel_decoding.correct_subsampling(layout, length).size for length, layout in native), default=0
    )
    return (f"up to {most} bytes behind the pixels of a file were left out as padding",) if most > 1 else ()


class _Voxels:
    """The pixels of one series: one type, one meaning, one padding for all its files."""

    def __init__(self, heads: Sequence[Header], where: str, options: ReadOptions, *, fill: bool) -> None:
        self.heads, self.where = heads, where
        self.fill: float | None = None
        self.plain: dict[str, PlainFile] = {}
        layouts = self._of_each(lambda head: pixel_layout.layout_from_header(head.dataset, head.where))
        self.colour = layouts[0].colour
        if any(layout.colour != self.colour for layout in layouts):
            raise FormatError("has grey and coloured slices in one series", where, "Put them into folders of their own")
        datasets = [head.dataset for head in heads]
        self.meaning: ValueMeaning = pixel_values.meaning_of_series(
            datasets, real_world=options.real_world, where=where
        )
        self._refuse_lacking()
        self._refuse_units()
        self.padding: tuple[float, float] | None = None
        self.notes = (*_about_surplus(heads, layouts), *stream_colours.contradiction_notes(heads[0], layouts[0]))
        if self.colour and fill:
            raise GeometryError(
                "coloured slices are missing, and no colour can stand for a missing one", where, "Get the whole series"
            )
        if self.colour:
            self.dtype = np.result_type(*[layout.dtype for layout in layouts])
            plain_files = {
                head.where: voxel_loading.plain_file_of(head, one, ValueMap())
                for head, one in zip(heads, layouts, strict=True)
            }
            self.plain = {where: plain for where, plain in plain_files.items() if plain is not None}
            return
        values = self._of_each(self._values_of)
        self.dtype = np.result_type(*{one if isinstance(one, np.dtype) else one.dtype for one in values})
        plain = (
            (h, voxel_loading.plain_file_of(h, o, v))
            for h, o, v in zip(heads, layouts, values, strict=True)
            if isinstance(v, ValueMap)
        )
        self.plain = {head.where: one for head, one in plain if one is not None}
        each_files = self._of_each(lambda head: self._over_frames(pixel_values.padding_ranges, head))
        paddings = {padding for one in each_files for padding in one}
        if len(paddings) == 1:
            self.padding = paddings.pop()
        else:
            self.notes = (*self.notes, self._about_paddings(each_files))
        if fill:
            self._choose_fill()

    def _refuse_lacking(self) -> None:
        """Refuse slices that lack what the voxels of the others are read by."""
        values = self._of_each(lambda head: lacking_values.decisive_values(head, head.where))
        lacking_values.refuse_lacking(self.heads, values, self.where)

    def _about_paddings(self, each_files: Sequence[frozenset[tuple[float, float] | None]]) -> str:
        """The note on files that state different padding, or none where others do."""
        states_none = [None in paddings for paddings in each_files]
        lacking = [head.path.name for head, is_none in zip(self.heads, states_none, strict=True) if is_none]
        if len(set().union(*each_files)) > 2 or not lacking:
            return "slices state different padding values: none is marked"
        phrase = lacking_values.lacking_phrase(lacking, len(self.heads), tags.keyword_with_tag("PixelPaddingValue"))
        return f"{phrase}: no padding is marked"

    def _refuse_units(self) -> None:
        """Refuse files whose values have different units: one is said of all of them."""
        units = self._of_each(lambda head: pixel_values.unit_of_file(head.dataset, self.meaning, head.where))
        odd = next((n for n, one in enumerate(units) if one != units[0]), None)
        if odd is not None:
            unit_names = (f"{units[n] or 'none'} in {self.heads[n].path.name}" for n in (0, odd))
            raise FormatError(
                f"has values of different units in one series: {', '.join(unit_names)} ({UNIT_ATTRIBUTES})",
                self.where,
                "Put the slices of each unit into a folder of their own",
            )

    def _of_each(self, find: Callable[[Header], T]) -> list[T]:
        """The result of `find` for each header, computed once for all that state the same about their pixels."""
        by_statement: dict[Any, T] = {}
        keys = [getattr(head.dataset, "pixel_statement", head.where) for head in self.heads]
        for head, key in zip(self.heads, keys, strict=True):
            if key not in by_statement:
                by_statement[key] = find(head)
        return [by_statement[key] for key in keys]

    def _over_frames(self, find: Callable[[DicomDataset, int, ValueMeaning, str], T], head: Header) -> T:
        """The result of `find` over all frames of a file."""
        return find(head.dataset, header_reading.frame_count(head), self.meaning, head.where)

    def _values_of(self, head: Header) -> ValueMap | np.dtype[Any]:
        """The map of a file's values; where it differs from frame to frame, their type."""
        if pixel_values.has_varying_values(head.dataset):
            return self._over_frames(pixel_values.value_dtype, head)
        return value_maps.value_map(head.dataset, 0, self.meaning, head.where)

    def _choose_fill(self) -> None:
        """A value for missing slices that is no measurement: the padding, else the one below the lowest."""
        if self.padding is None and np.issubdtype(self.dtype, np.floating):
            self.fill = math.nan
            return
        if self.padding is None:
            lowest = min(self._of_each(lambda head: self._over_frames(pixel_values.lowest_value, head)))
            self.padding = (lowest - 1, lowest - 1)
            self.dtype = np.result_type(self.dtype, np.min_scalar_type(int(lowest) - 1))
        self.fill = self.padding[0]

    def plan(
        self,
        places: Sequence[tuple[Frame, FramePlace]],
        shape: tuple[int, int, int, int, int],
        *,
        volume: bool,
        repeated: bool,
    ) -> VoxelPlan:
        """The plan by which the voxels are read, (channels, repeats, slices, rows, columns)."""
        if self.colour and shape[0] > 1:
            raise FormatError(
                "has several kinds of coloured images at one position", self.where, "Put them into folders of their own"
            )
        files = grouping.by_key((str(frame.path), index) for frame, index in places)
        return VoxelPlan(
            shape=(3, *shape[1:]) if self.colour else shape,
            dtype=self.dtype,
            files=tuple((path, tuple(some)) for path, some in files.items()),
            meaning=self.meaning,
            volume=volume,
            repeated=repeated,
            colour=self.colour,
            fill=self.fill,
            plain=self.plain,
        )

    def image(
        self,
        plan: VoxelPlan,
        geometry: Geometry,
        times: tuple[float, ...] | None,
        notes: tuple[str, ...],
        facts: FileFacts,
        channels: tuple[str, ...],
        header: SliceHeader,
    ) -> Image:
        """The image of a plan, with what the series states about it."""
        dataset = self.heads[0].dataset
        odd = tuple(dict.fromkeys(warning for head in self.heads for warning in head.warnings))
        description = series_survey.anonymous_description(dataset)
        flags = object_flags.flag_notes(self.heads)
        every = {**self.meaning.facts, **facts, "description": description}
        size = sum(head.path.stat().st_size for head in self.heads)
        packed_files.refuse_expansion(size, math.prod(plan.shape) * plan.dtype.itemsize, self.where)
        return Image(
            voxel_loading.defer_voxels(plan),
            geometry,
            modality=next(filter(None, (tags.text(head.dataset, "Modality") for head in self.heads)), "unknown"),
            channels=("R", "G", "B") if self.colour else channels,
            times=times,
            padding=self.padding,
            notes=(*notes, *self.meaning.notes, *self.notes, *flags, *odd, *_cut_texts(dataset)),
            facts={name: fact for name, fact in every.items() if fact not in (None, "")},
            source=Source("dicom", tuple(path for path, _ in plan.files), dict(header)),
        )


def _cut_texts(dataset: DicomDataset) -> Iterator[str]:
    """Notes on texts that are far longer than the standard allows."""
    for keyword in ("PatientName", "PatientID", "SeriesDescription", "StudyDescription", "ProtocolName"):
        if tags.is_too_long(dataset, keyword):
            attribute = tags.keyword_with_tag(keyword)
            yield f"{attribute} is longer than {LONGEST_TEXT} characters: the rest of it is not looked at"


FORMAT = Format("dicom", read, facts=(*FACTS, *lacking_values.FACTS, *object_flags.FACTS))


# DICOM's MR Spectroscopy Storage: one voxel as a series in ppm. PS3.3 C.8.14


def read_spectroscopy(head: Header, options: ReadOptions) -> Image:
    """The spectrum of an object with one voxel, the lowest ppm first.

    Points in frequency stand from the highest to the lowest, those in time turn counterclockwise above the transmitter
    (C.8.14.4.1). Raises FormatError for two spectral axes, data of another length, and without frequency;
    GeometryError for several voxels.
    """
    where, stated = head.where, header_reading.read_object(head.path)
    sizes = [int(stated.get(name) or 1) for name in ("Columns", "Rows", "NumberOfFrames")]
    spectra.refuse_voxels(sizes, where)
    if int(stated.get("DataPointRows") or 1) != 1:
        raise FormatError("has two spectral axes", where, "Export a spectrum of one axis")
    points = int(stated.get("DataPointColumns") or 0)
    kind, domain = (str(stated.get(name) or "") for name in ("DataRepresentation", "SignalDomainColumns"))
    values = np.frombuffer(stated.get("SpectroscopyData") or b"", "<f4").astype(np.float64)
    is_complex = kind == "COMPLEX"
    if not points or len(values) != points * (1 + is_complex):
        problem = f"holds {len(values)} numbers where {points} points of {kind or 'no stated kind'} belong"
        raise FormatError(problem, where, "Get the file again")
    signal = (values[0::2] + 1j * values[1::2] if is_complex else values)[None]
    if domain == "FREQUENCY":
        spectrum: Any = signal[:, ::-1]
    elif domain == "TIME" and is_complex:
        spectrum = spectra.transform_signal(signal.astype(np.complex128))
    else:
        problem = f"points in {domain or 'no stated domain'} as {kind or 'no stated kind'}"
        raise FormatError(problem, where, "Export complex points in time, or a spectrum")
    axis = SpectralAxis(
        _number(stated, "SpectralWidth"),
        _number(stated, "TransmitterFrequency"),
        _number(stated, "ChemicalShiftReference"),
        tags.text(head.dataset, "ResonantNucleus"),
    )
    return spectra.spectrum_image(spectrum, axis, Source("dicom", (where,)), where, part=options.part)


def _number(stated: Any, keyword: str) -> float:
    """The first value of an attribute; not a number where it is not stated."""
    value = stated.get(keyword)
    first = value[0] if isinstance(value, list) or hasattr(value, "append") else value
    return float("nan") if first in (None, "") else float(first)
