"""Every kind of DICOM image as a list of frames that say where they lie and what tells them apart.

Single-frame objects, Siemens mosaics, dose grids, reconstructed nuclear medicine and the enhanced multi-frame objects
differ in where they keep this; after this file they don't.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset

from isocenter.errors import FormatError, GeometryError
from isocenter.files.dicom_diffusion import b_value, gradient_direction
from isocenter.files.dicom_geometry import Plane, checked_plane
from isocenter.files.dicom_header import Header, frame_count
from isocenter.files.dicom_kinds import kind_of
from isocenter.files.dicom_siemens import is_mosaic, mosaic_of
from isocenter.files.dicom_tags import item, items, lenient, named, number, numbers, seconds, text, whole, words

# What may tell frames at one position apart, in the order in which it is tried.
TEMPORAL, REFERENCE_TIME, TRIGGER, ACQUISITION = "temporal position", "frame time", "trigger time", "acquisition number"
B_VALUE, DIRECTION, ECHO = "b-value", "gradient direction", "echo time"
# Cross sections of the patient: their frames must say where they lie, or all be silent.
CROSS_SECTIONS = ("CT", "MR", "PT")


Label = float | tuple[float, ...]
Labels = Mapping[str, Label]


@dataclass(frozen=True)
class Frame:
    """One plane of voxels, and where in which file it is.

    number:    frame in the file, from 0; tile: of a mosaic, and how many a side
    shape:     (rows, columns)
    thickness: (mm, the attribute that says so): the step where there is only one slice
    order:     (instance number, frame number, tile)
    stack:     of an enhanced object that declares several
    kind:      what is shown: magnitude, phase, ...
    time:      s, of acquisition; only differences mean something
    labels:    {what may tell it apart: value}
    """

    path: Path
    shape: tuple[int, int]
    number: int = 0
    tile: int | None = None
    side: int = 1
    plane: Plane | None = None
    thickness: tuple[float, str] | None = None
    frame_of_reference: str | None = None
    uid: str = ""
    order: tuple[int, int, int] = (0, 0, 0)
    stack: str = ""
    kind: str = ""
    time: float | None = None
    labels: Labels = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For messages: the file, and the frame where there are several."""
        place = f" frame {self.number + 1}" if self.number else ""
        return f"{self.path.name}{place}" + (f" tile {self.tile + 1}" if self.tile else "")


def frames_of(head: Header) -> list[Frame]:
    """All frames of one file.

    Raises FormatError or GeometryError, which name the attribute, for what contradicts itself.
    """
    dataset, where = head.dataset, head.where
    shape = (_needed(head, "Rows"), _needed(head, "Columns"))
    base = Frame(
        head.path,
        shape,
        frame_of_reference=text(dataset, "FrameOfReferenceUID") or None,
        uid=text(dataset, "SOPInstanceUID"),
        order=(int(lenient(dataset, "InstanceNumber") or 0), 0, 0),
    )
    if "PerFrameFunctionalGroupsSequence" in dataset:
        return _enhanced(base, dataset, where, frame_count(head))
    count = frame_count(head)
    base = replace(
        base,
        thickness=_thickness(dataset, where),
        kind=kind_of(words(dataset, "ImageType")),
        time=_acquired(dataset),
        labels=_labels(dataset),
    )
    plane = plane_of([dataset], where, required=text(dataset, "Modality") in CROSS_SECTIONS)
    if plane is not None and is_mosaic(dataset):
        return _mosaic(base, dataset, plane, where)
    if count == 1:
        return [replace(base, plane=plane)]
    planes = _several_planes(dataset, plane, count, where)
    return [replace(base, number=n, plane=planes[n], order=(base.order[0], n, 0)) for n in range(count)]


def plane_of(sources: list[Dataset], where: str, *, required: bool) -> Plane | None:
    """The plane that the first of these items with the attribute tells, None where there is none.

    Raises GeometryError where one part is there and another is missing.
    """
    position = _first(sources, "ImagePositionPatient", where, 3)
    orientation = _first(sources, "ImageOrientationPatient", where, 6)
    spacing = _first(sources, "PixelSpacing", where, 2)
    if position is None and orientation is None:
        return None
    told = {"ImagePositionPatient": position, "ImageOrientationPatient": orientation, "PixelSpacing": spacing}
    if position is not None and orientation is not None and spacing is not None:
        return checked_plane(position, orientation, spacing, where)
    if not required:
        return None
    missing = next(keyword for keyword, value in told.items() if value is None)
    raise GeometryError(
        f"{named(missing)} is missing, so it cannot be known where the voxels lie",
        where,
        "Export the series again with all attributes",
    )


def _first(sources: list[Dataset], keyword: str, where: str, count: int) -> tuple[float, ...] | None:
    for source in sources:
        found = numbers(source, keyword, where, count)
        if found is not None:
            return found
    return None


def _needed(head: Header, keyword: str) -> int:
    value = whole(head.dataset, keyword, head.where)
    if value is None:
        raise FormatError(f"{named(keyword)} is missing", head.where, "Get the file again")
    return value


def _thickness(dataset: Dataset, where: str) -> tuple[float, str] | None:
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        value = number(dataset, keyword, where)
        if value:  # absent and 0 say the same: not known; NM counts against the normal with a minus
            return value, keyword
    return None


def _mosaic(base: Frame, dataset: Dataset, plane: Plane, where: str) -> list[Frame]:
    mosaic = mosaic_of(dataset, plane, *base.shape, where)
    if base.thickness is None:
        raise GeometryError(
            f"is a Siemens mosaic without {named('SpacingBetweenSlices')}", where, "Export the series again"
        )
    planes = mosaic.planes(plane, *base.shape, base.thickness[0])
    shape = mosaic.tile_shape(*base.shape)
    return [
        replace(base, shape=shape, tile=n, side=mosaic.side, plane=planes[n], order=(base.order[0], 0, n))
        for n in range(mosaic.tiles)
    ]


def _several_planes(dataset: Dataset, plane: Plane | None, count: int, where: str) -> list[Plane | None]:
    """Planes of the frames of an object that tells only the first one's."""
    offsets = numbers(dataset, "GridFrameOffsetVector", where)
    if plane is not None and offsets is not None:
        return list(_dose_planes(plane, offsets, count, where))
    if "RECON TOMO" in words(dataset, "ImageType"):
        return list(_tomographic_planes(dataset, plane, count, where))
    return [plane] * count  # one place for all: frames in time


def _dose_planes(plane: Plane, offsets: tuple[float, ...], count: int, where: str) -> list[Plane]:
    """Dose planes: offsets are relative where the first is 0, else they are z of the patient. PS3.3 C.8.8.3.2"""
    if len(offsets) != count:
        raise GeometryError(
            f"{named('GridFrameOffsetVector')} has {len(offsets)} values for {count} frames",
            where,
            "Export the dose again",
        )
    along = plane.normal
    if offsets[0] != 0:
        along = np.array([0.0, 0.0, 1.0])
        offsets = tuple(offset - offsets[0] for offset in offsets)
    return [plane.at(np.asarray(plane.position) + along * offset) for offset in offsets]


def _tomographic_planes(dataset: Dataset, plane: Plane | None, count: int, where: str) -> list[Plane | None]:
    """Reconstructed nuclear medicine: the first slice's place stands with the detector. PS3.3 C.8.4.15"""
    if plane is None:
        sources = [*items(dataset, "DetectorInformationSequence")[:1], dataset]
        plane = plane_of(sources, where, required=False)
    step = number(dataset, "SpacingBetweenSlices", where)
    slices = numbers(dataset, "SliceVector", where)
    if plane is None or not step or slices is None or len(slices) != count:
        return [None] * count
    # A negative spacing says that slices follow each other against the normal.
    return [plane.at(np.asarray(plane.position) + plane.normal * step * (number - 1)) for number in slices]


def _enhanced(base: Frame, dataset: Dataset, where: str, count: int) -> list[Frame]:
    """Frames of an object with functional groups, PS3.3 C.7.6.16."""
    shared = item(dataset, "SharedFunctionalGroupsSequence") or Dataset()
    each = items(dataset, "PerFrameFunctionalGroupsSequence")
    if len(each) != count:
        raise FormatError(
            f"{len(each)} items in {named('PerFrameFunctionalGroupsSequence')} for {count} frames",
            where,
            "Export the object again",
        )
    pointers = [
        keyword_for_tag(int(lenient_tag))
        for entry in items(dataset, "DimensionIndexSequence")
        if (lenient_tag := entry.get("DimensionIndexPointer")) is not None
    ]
    frames = []
    for n, own in enumerate(each):
        groups = _Groups(own, shared, dataset)
        content = groups.one("FrameContentSequence")
        frames.append(
            replace(
                base,
                number=n,
                order=(base.order[0], n, 0),
                plane=plane_of(groups.places, where, required=False),
                thickness=_thickness(groups.one("PixelMeasuresSequence"), where),
                stack=text(content, "StackID"),
                kind=kind_of(*groups.frame_type),
                time=_frame_time(content),
                labels=_enhanced_labels(groups, content, pointers),
            )
        )
    if len({frame.plane is None for frame in frames}) > 1:
        odd = next(frame.number for frame in frames if frame.plane is None)
        raise GeometryError(f"frame {odd + 1} does not say where it lies, others do", where, "Export the object again")
    return frames


class _Groups:
    """The functional groups of one frame: its own, else the shared ones."""

    def __init__(self, own: Dataset, shared: Dataset, dataset: Dataset) -> None:
        self.own, self.shared, self.dataset = own, shared, dataset

    def one(self, keyword: str) -> Dataset:
        """The group's item, an empty one where the group is absent."""
        return item(self.own, keyword) or item(self.shared, keyword) or Dataset()

    @property
    def places(self) -> list[Dataset]:
        names = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
        return [self.one(name) for name in names]

    @property
    def frame_type(self) -> tuple[tuple[str, ...], str]:
        """(values of Frame Type, Complex Image Component), whatever the modality calls the group."""
        for source in (self.own, self.shared):
            for keyword in FRAME_TYPES:
                found = item(source, keyword)
                if found is not None:
                    return words(found, "FrameType"), text(found, "ComplexImageComponent")
        return words(self.dataset, "ImageType"), text(self.dataset, "ComplexImageComponent")


FRAME_TYPES = (
    "MRImageFrameTypeSequence",
    "CTImageFrameTypeSequence",
    "PETFrameTypeSequence",
    "XRay3DFrameTypeSequence",
    "OphthalmicTomographyFrameTypeSequence",
    "ParametricMapFrameTypeSequence",
    "XAXRFFrameCharacteristicsSequence",
)


def _labels(dataset: Dataset) -> Labels:
    found: dict[str, Label | None] = {
        TEMPORAL: lenient(dataset, "TemporalPositionIdentifier"),
        REFERENCE_TIME: lenient(dataset, "FrameReferenceTime"),
        TRIGGER: lenient(dataset, "TriggerTime"),
        ACQUISITION: lenient(dataset, "AcquisitionNumber"),
        B_VALUE: b_value(dataset),
        DIRECTION: gradient_direction(dataset),
        ECHO: lenient(dataset, "EchoTime"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _enhanced_labels(groups: _Groups, content: Dataset, pointers: list[str]) -> Labels:
    diffusion = groups.one("MRDiffusionSequence")
    found: dict[str, Label | None] = {
        TEMPORAL: lenient(content, "TemporalPositionIndex"),
        TRIGGER: lenient(groups.one("CardiacSynchronizationSequence"), "NominalCardiacTriggerDelayTime"),
        B_VALUE: lenient(diffusion, "DiffusionBValue"),
        DIRECTION: gradient_direction(item(diffusion, "DiffusionGradientDirectionSequence") or Dataset()),
        ECHO: lenient(groups.one("MREchoSequence"), "EffectiveEchoTime"),
    }
    labels: dict[str, Label] = {k: v for k, v in found.items() if v is not None}
    values = content.get("DimensionIndexValues")
    indices = [values] if isinstance(values, int) else list(values or ())
    if len(indices) == len(pointers):
        told = zip(pointers, indices, strict=True)
        labels |= {f"dimension {k or n}": float(v) for n, (k, v) in enumerate(told) if k not in _PLACES}
    return labels


_PLACES = ("StackID", "InStackPositionNumber", "ImagePositionPatient", "ImageOrientationPatient")


def _acquired(dataset: Dataset) -> float | None:
    told = text(dataset, "AcquisitionDateTime")
    if told:
        return seconds(told)
    time = text(dataset, "AcquisitionTime")
    return seconds(text(dataset, "AcquisitionDate") + time.replace(":", "")) if time else None


def _frame_time(content: Dataset) -> float | None:
    told = text(content, "FrameReferenceDateTime") or text(content, "FrameAcquisitionDateTime")
    return seconds(told) if told else None
