"""Every kind of DICOM image as a list of frames, each with its place and the labels that distinguish it.

Single-frame objects, Siemens mosaics, dose grids, reconstructed nuclear medicine and the enhanced multi-frame objects
differ in where they keep this; after this file they no longer do.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hilum.errors import FormatError, GeometryError
from hilum.files.dicom import header_reading, slice_geometry, tags
from hilum.files.dicom.elements import DicomDataset
from hilum.files.dicom.header_reading import Header
from hilum.files.dicom.reading import private_elements
from hilum.files.dicom.slice_geometry import (
    ACQUISITION,
    B_VALUE,
    DIRECTION,
    ECHO,
    REFERENCE_TIME,
    TEMPORAL,
    TRIGGER,
    Frame,
    Label,
    Labels,
    Plane,
)
from hilum.lazy import pydicom
from hilum.values.grid_geometry import DIRECTION_TOLERANCE

# Cross sections of the patient: their frames must state where they lie, or none of them may.
CROSS_SECTIONS = ("CT", "MR", "PT")
SAME_OFFSET = 0.01  # mm: a position is written with as few as two digits
FRAME_TYPES = (
    "MRImageFrameTypeSequence",
    "CTImageFrameTypeSequence",
    "PETFrameTypeSequence",
    "XRay3DFrameTypeSequence",
    "OphthalmicTomographyFrameTypeSequence",
    "ParametricMapFrameTypeSequence",
    "XAXRFFrameCharacteristicsSequence",
)
# Values of Image Type whose frames are slices, of one volume or of several in time. PS3.3 C.8.4.9.1.3
RECONSTRUCTED = ("RECON TOMO", "RECON GATED TOMO")
# What distinguishes frames at one place, PS3.3 C.8.4.8.1
VECTORS = {
    TEMPORAL: ("RRIntervalVector", "TimeSliceVector", "TimeSlotVector"),
    "energy window": ("EnergyWindowVector",),
}
PLACES = ("StackID", "InStackPositionNumber", "ImagePositionPatient", "ImageOrientationPatient")
# Siemens and the enhanced objects write M, P, R, I; Philips adds the sequence: M_FFE, P_SE; GE has words of its own.
_PARTS = {"M": "magnitude", "P": "phase", "R": "real", "I": "imaginary"}
_MAPS = {
    "MAGNITUDE": "magnitude",
    "PHASE": "phase",
    "PHASE MAP": "phase",
    "REAL": "real",
    "IMAGINARY": "imaginary",
    "FIELD_MAP": "field map",
    "B0": "field map",
    "B0_MAP": "field map",
    "VELOCITY": "velocity",
    "ADC": "ADC",
    "FA": "FA",
}
# The words of kinds of image that are no slices of one volume with others.
KINDS = frozenset({*_PARTS.values(), *_MAPS.values()})


def list_frames(head: Header) -> list[Frame]:
    """All frames of one file.

    Raises FormatError or GeometryError, which name the attribute, for what contradicts itself.
    """
    dataset, where = head.dataset, head.where
    shape = (_require_number(head, "Rows"), _require_number(head, "Columns"))
    number = tags.lenient_number(dataset, "InstanceNumber")
    base = Frame(
        head.path,
        shape,
        frame_of_reference=tags.text(dataset, "FrameOfReferenceUID") or None,
        order=(int(number or 0), 0, 0),
        is_numbered=number is not None or header_reading.frame_count(head) > 1,
    )
    private_elements.refuse_private_tiles(dataset, where)
    if "PerFrameFunctionalGroupsSequence" in dataset:
        return _enhanced_frames(base, dataset, where, header_reading.frame_count(head))
    count = header_reading.frame_count(head)
    base = replace(
        base,
        thickness=slice_geometry.stated_thickness(dataset, where),
        kind=kind_in_image_type(tags.words(dataset, "ImageType")),
        is_derived=tags.words(dataset, "ImageType")[:1] == ("DERIVED",),
        time=_acquisition_time(dataset),
        labels=_labels(dataset),
    )
    plane = slice_geometry.stated_plane([dataset], where, required=tags.text(dataset, "Modality") in CROSS_SECTIONS)
    if plane is not None and private_elements.is_mosaic(dataset):
        return _mosaic(base, dataset, plane, where)
    if count == 1:
        return [replace(base, plane=plane)]
    planes = _several_planes(dataset, plane, count, where)
    return [
        replace(base, number=n, plane=planes[n], order=(base.order[0], n, 0), labels={**base.labels, **labels})
        for n, labels in enumerate(_vector_labels(dataset, count, where))
    ]


def _require_number(head: Header, keyword: str) -> int:
    value = tags.whole_number(head.dataset, keyword, head.where)
    if value is None:
        raise FormatError(f"{tags.keyword_with_tag(keyword)} is missing", head.where, "Get the file again")
    return value


def _mosaic(base: Frame, dataset: DicomDataset, plane: Plane, where: str) -> list[Frame]:
    mosaic = private_elements.mosaic_of(dataset, plane, *base.shape, where)
    if base.thickness is None:
        raise GeometryError(
            f"is a Siemens mosaic without {tags.keyword_with_tag('SpacingBetweenSlices')}",
            where,
            "Export the series again",
        )
    planes = mosaic.planes(plane, *base.shape, base.thickness[0])
    shape = mosaic.tile_shape(*base.shape)
    return [
        replace(base, shape=shape, tile=n, side=mosaic.side, plane=planes[n], order=(base.order[0], 0, n))
        for n in range(mosaic.tiles)
    ]


def _several_planes(dataset: DicomDataset, plane: Plane | None, count: int, where: str) -> list[Plane | None]:
    """Planes of the frames of an object that states only the first one's."""
    offsets = tags.numbers(dataset, "GridFrameOffsetVector", where)
    if plane is not None and offsets is not None:
        return list(_dose_planes(plane, offsets, count, where))
    if any(kind in tags.words(dataset, "ImageType") for kind in RECONSTRUCTED):
        return list(_tomographic_planes(dataset, plane, count, where))
    # One place for all: frames in time where the file states times; else they may as well be slices, and nobody knows.
    in_time = any(tags.text(dataset, keyword) for keyword in ("FrameTime", "FrameTimeVector", "TimeSlotVector"))
    return [plane if in_time else None] * count


def _dose_planes(plane: Plane, offsets: tuple[float, ...], count: int, where: str) -> list[Plane]:
    """Dose planes: offsets are relative where the first is 0, or z of the patient where it is that. PS3.3 C.8.8.3.2

    Raises GeometryError for others: where they lie is not known. Only transverse planes have one z.
    """
    if len(offsets) != count:
        raise GeometryError(
            f"{tags.keyword_with_tag('GridFrameOffsetVector')} has {len(offsets)} values for {count} frames",
            where,
            "Export the dose again",
        )
    along = plane.normal
    if offsets[0] != 0:
        is_transverse = abs(plane.normal[2]) > 1 - DIRECTION_TOLERANCE
        if not is_transverse or abs(offsets[0] - plane.position[2]) > SAME_OFFSET:
            raise GeometryError(
                f"{tags.keyword_with_tag('GridFrameOffsetVector')} begins with {offsets[0]:g}, neither 0 nor the z of "
                f"transverse planes, {plane.position[2]:g} (ImagePositionPatient (0020,0032))",
                where,
                "Export the dose again",
            )
        along = np.array([0.0, 0.0, 1.0])
        offsets = tuple(offset - offsets[0] for offset in offsets)
    return [plane.at(np.asarray(plane.position) + along * offset) for offset in offsets]


def _tomographic_planes(dataset: DicomDataset, plane: Plane | None, count: int, where: str) -> list[Plane | None]:
    """Reconstructed nuclear medicine: the first slice's place stands with the detector. PS3.3 C.8.4.15"""
    if plane is None:
        sources = [*tags.items(dataset, "DetectorInformationSequence")[:1], dataset]
        plane = slice_geometry.stated_plane(sources, where, required=False)
    step = tags.single_number(dataset, "SpacingBetweenSlices", where)
    slices = _vector(dataset, "SliceVector", count, where)
    if plane is None or not step or slices is None:
        return [None] * count
    # A negative spacing means that slices follow each other against the normal.
    return [plane.at(np.asarray(plane.position) + plane.normal * step * (number - 1)) for number in slices]


def _vector(dataset: DicomDataset, keyword: str, count: int, where: str) -> tuple[float, ...] | None:
    """A number for each frame; None where it is absent. Raises FormatError where frames lack theirs."""
    numbers = tags.numbers(dataset, keyword, where)
    if numbers is not None and len(numbers) != count:
        problem = f"{tags.keyword_with_tag(keyword)} has {len(numbers)} values for {count} frames"
        raise FormatError(problem, where, "Export the object again")
    return numbers


def _vector_labels(dataset: DicomDataset, count: int, where: str) -> list[dict[str, Label]]:
    """The labels of each frame of nuclear medicine that its vectors state. PS3.3 C.8.4.8"""
    labels: list[dict[str, Label]] = [{} for _ in range(count)]
    for label, keywords in VECTORS.items():
        vectors = [one for name in keywords if (one := _vector(dataset, name, count, where)) is not None]
        states = list(zip(*vectors, strict=True))
        ranks = {state: float(n) for n, state in enumerate(sorted(set(states)))}
        for own, state in zip(labels, states, strict=False):
            own[label] = ranks[state]
    return labels


def _labels(dataset: DicomDataset) -> Labels:
    labels: dict[str, Label | None] = {
        TEMPORAL: tags.lenient_number(dataset, "TemporalPositionIdentifier"),
        REFERENCE_TIME: tags.lenient_number(dataset, "FrameReferenceTime"),
        TRIGGER: tags.lenient_number(dataset, "TriggerTime"),
        ACQUISITION: tags.lenient_number(dataset, "AcquisitionNumber"),
        B_VALUE: private_elements.b_value(dataset),
        DIRECTION: private_elements.gradient_direction(dataset),
        ECHO: tags.lenient_number(dataset, "EchoTime"),
    }
    return {name: value for name, value in labels.items() if value is not None}


def _acquisition_time(dataset: DicomDataset) -> float | None:
    acquired = tags.text(dataset, "AcquisitionDateTime")
    if acquired:
        return tags.time_in_seconds(acquired)
    time = tags.text(dataset, "AcquisitionTime")
    return tags.time_in_seconds(tags.text(dataset, "AcquisitionDate") + time.replace(":", "")) if time else None


def _enhanced_frames(base: Frame, dataset: DicomDataset, where: str, count: int) -> list[Frame]:
    """All frames; what `base` states holds for each of them.

    Raises FormatError where groups and frames do not match, GeometryError where only some frames state their place.
    """
    shared = tags.first_item(dataset, "SharedFunctionalGroupsSequence") or pydicom.Dataset()
    frame_groups = tags.items(dataset, "PerFrameFunctionalGroupsSequence")
    if len(frame_groups) != count:
        sequence = tags.keyword_with_tag("PerFrameFunctionalGroupsSequence")
        raise FormatError(
            f"{len(frame_groups)} items in {sequence} for {count} frames",
            where,
            "Export the object again",
        )
    pointers = [
        pydicom.datadict.keyword_for_tag(int(pointer))
        for entry in tags.items(dataset, "DimensionIndexSequence")
        if (pointer := entry.get("DimensionIndexPointer")) is not None
    ]
    frames = []
    for n, groups_of_frame in enumerate(frame_groups):
        groups = _Groups(groups_of_frame, shared, dataset)
        content = groups.item("FrameContentSequence")
        frames.append(
            replace(
                base,
                number=n,
                order=(base.order[0], n, 0),
                plane=slice_geometry.stated_plane(groups.places, where, required=False),
                thickness=slice_geometry.stated_thickness(groups.item("PixelMeasuresSequence"), where),
                stack=tags.text(content, "StackID"),
                kind=kind_in_image_type(*groups.frame_type),
                is_derived=groups.frame_type[0][:1] == ("DERIVED",),
                time=_frame_time(groups, content),
                labels=_enhanced_labels(groups, content, pointers),
            )
        )
    if len({frame.plane is None for frame in frames}) > 1:
        odd = next(frame.number for frame in frames if frame.plane is None)
        problem = f"frame {odd + 1} does not state where it lies, others do"
        raise GeometryError(problem, where, "Export the object again")
    return frames


class _Groups:
    """The functional groups of one frame: its own, else the shared ones."""

    def __init__(self, own: DicomDataset, shared: DicomDataset, dataset: DicomDataset) -> None:
        self.own, self.shared, self.dataset = own, shared, dataset

    def item(self, keyword: str) -> DicomDataset:
        """The group's item, an empty one where the group is absent."""
        return tags.first_item(self.own, keyword) or tags.first_item(self.shared, keyword) or pydicom.Dataset()

    @property
    def places(self) -> list[DicomDataset]:
        """The items with position, orientation and spacing."""
        names = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
        return [self.item(name) for name in names]

    @property
    def frame_type(self) -> tuple[tuple[str, ...], str]:
        """(values of Frame Type, Complex Image Component), whatever the modality calls the group."""
        for source in (self.own, self.shared):
            for keyword in FRAME_TYPES:
                group = tags.first_item(source, keyword)
                if group is not None:
                    return tags.words(group, "FrameType"), tags.text(group, "ComplexImageComponent")
        return tags.words(self.dataset, "ImageType"), tags.text(self.dataset, "ComplexImageComponent")


def _enhanced_labels(groups: _Groups, content: DicomDataset, pointers: list[str]) -> Labels:
    diffusion = groups.item("MRDiffusionSequence")
    frame_labels: dict[str, Label | None] = {
        TEMPORAL: tags.lenient_number(content, "TemporalPositionIndex"),
        TRIGGER: tags.lenient_number(groups.item("CardiacSynchronizationSequence"), "NominalCardiacTriggerDelayTime"),
        B_VALUE: tags.lenient_number(diffusion, "DiffusionBValue"),
        DIRECTION: private_elements.gradient_direction(
            tags.first_item(diffusion, "DiffusionGradientDirectionSequence") or pydicom.Dataset()
        ),
        ECHO: tags.lenient_number(groups.item("MREchoSequence"), "EffectiveEchoTime"),
    }
    labels: dict[str, Label] = {k: v for k, v in frame_labels.items() if v is not None}
    values = content.get("DimensionIndexValues")
    indices = [] if values is None else tags.values_in(values)
    if len(indices) == len(pointers):
        pairs = zip(pointers, indices, strict=True)
        labels |= {f"dimension {k or n}": float(v) for n, (k, v) in enumerate(pairs) if k not in PLACES}
    return labels


def _frame_time(groups: _Groups, content: DicomDataset) -> float | None:
    """s, of the frame's own clock or else from the series' own zero."""
    acquired = tags.text(content, "FrameReferenceDateTime") or tags.text(content, "FrameAcquisitionDateTime")
    offset = tags.lenient_number(groups.item("TemporalPositionSequence"), "TemporalPositionTimeOffset")
    return tags.time_in_seconds(acquired) if acquired else offset


def kind_in_image_type(image_type: tuple[str, ...], component: str = "") -> str:
    """A word for what is shown, the rest of the type where there is no word for it, empty where nothing is stated.

    image_type: PS3.3 C.7.6.1.1.2 (C.8.16.1 for frames); the first two values say nothing about what is shown
    component:  Complex Image Component, PS3.3 C.8.13.3.1.1
    """
    shown = tuple(value.strip().upper() for value in image_type[2:])
    maps = [_MAPS[value] for value in shown if value in _MAPS]
    if maps and maps[0] not in _PARTS.values():  # a field map is REAL as well: the map is more specific
        return maps[0]
    if component.upper() in _MAPS:
        return _MAPS[component.upper()]
    for value in shown:
        part = _PARTS.get(value.split("_")[0])
        if part is not None and (len(value) == 1 or "_" in value):
            return part
    return maps[0] if maps else "\\".join(value for value in shown if value).lower()
