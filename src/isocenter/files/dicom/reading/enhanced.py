"""The frames of an object with functional groups: enhanced CT, MR and PET, tomosynthesis, OCT. PS3.3 C.7.6.16"""

from __future__ import annotations

from dataclasses import replace

from isocenter.errors import FormatError, GeometryError
from isocenter.files.dicom.elements import Dataset
from isocenter.files.dicom.geometry import (
    B_VALUE,
    DIRECTION,
    ECHO,
    TEMPORAL,
    TRIGGER,
    Frame,
    Label,
    Labels,
    plane_of,
    thickness_of,
)
from isocenter.files.dicom.reading.private_elements import gradient_direction
from isocenter.files.dicom.tags import first_item, items, lenient, named, seconds, text, values_in, words
from isocenter.lazy import pydicom

FRAME_TYPES = (
    "MRImageFrameTypeSequence",
    "CTImageFrameTypeSequence",
    "PETFrameTypeSequence",
    "XRay3DFrameTypeSequence",
    "OphthalmicTomographyFrameTypeSequence",
    "ParametricMapFrameTypeSequence",
    "XAXRFFrameCharacteristicsSequence",
)

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


def enhanced_frames(base: Frame, dataset: Dataset, where: str, count: int) -> list[Frame]:
    """All frames; what `base` states holds for each of them.

    Raises FormatError where groups and frames do not match, GeometryError where only some frames state their place.
    """
    shared = first_item(dataset, "SharedFunctionalGroupsSequence") or pydicom.Dataset()
    each = items(dataset, "PerFrameFunctionalGroupsSequence")
    if len(each) != count:
        raise FormatError(
            f"{len(each)} items in {named('PerFrameFunctionalGroupsSequence')} for {count} frames",
            where,
            "Export the object again",
        )
    pointers = [
        pydicom.datadict.keyword_for_tag(int(pointer))
        for entry in items(dataset, "DimensionIndexSequence")
        if (pointer := entry.get("DimensionIndexPointer")) is not None
    ]
    frames = []
    for n, own in enumerate(each):
        groups = _Groups(own, shared, dataset)
        content = groups.item("FrameContentSequence")
        frames.append(
            replace(
                base,
                number=n,
                order=(base.order[0], n, 0),
                plane=plane_of(groups.places, where, required=False),
                thickness=thickness_of(groups.item("PixelMeasuresSequence"), where),
                stack=text(content, "StackID"),
                kind=kind_of(*groups.frame_type),
                is_derived=groups.frame_type[0][:1] == ("DERIVED",),
                time=_frame_time(groups, content),
                labels=_labels(groups, content, pointers),
            )
        )
    if len({frame.plane is None for frame in frames}) > 1:
        odd = next(frame.number for frame in frames if frame.plane is None)
        problem = f"frame {odd + 1} does not state where it lies, others do"
        raise GeometryError(problem, where, "Export the object again")
    return frames


class _Groups:
    """The functional groups of one frame: its own, else the shared ones."""

    def __init__(self, own: Dataset, shared: Dataset, dataset: Dataset) -> None:
        self.own, self.shared, self.dataset = own, shared, dataset

    def item(self, keyword: str) -> Dataset:
        """The group's item, an empty one where the group is absent."""
        return first_item(self.own, keyword) or first_item(self.shared, keyword) or pydicom.Dataset()

    @property
    def places(self) -> list[Dataset]:
        """The items with position, orientation and spacing."""
        names = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
        return [self.item(name) for name in names]

    @property
    def frame_type(self) -> tuple[tuple[str, ...], str]:
        """(values of Frame Type, Complex Image Component), whatever the modality calls the group."""
        for source in (self.own, self.shared):
            for keyword in FRAME_TYPES:
                group = first_item(source, keyword)
                if group is not None:
                    return words(group, "FrameType"), text(group, "ComplexImageComponent")
        return words(self.dataset, "ImageType"), text(self.dataset, "ComplexImageComponent")


def _labels(groups: _Groups, content: Dataset, pointers: list[str]) -> Labels:
    diffusion = groups.item("MRDiffusionSequence")
    stated: dict[str, Label | None] = {
        TEMPORAL: lenient(content, "TemporalPositionIndex"),
        TRIGGER: lenient(groups.item("CardiacSynchronizationSequence"), "NominalCardiacTriggerDelayTime"),
        B_VALUE: lenient(diffusion, "DiffusionBValue"),
        DIRECTION: gradient_direction(first_item(diffusion, "DiffusionGradientDirectionSequence") or pydicom.Dataset()),
        ECHO: lenient(groups.item("MREchoSequence"), "EffectiveEchoTime"),
    }
    labels: dict[str, Label] = {k: v for k, v in stated.items() if v is not None}
    values = content.get("DimensionIndexValues")
    indices = [] if values is None else values_in(values)
    if len(indices) == len(pointers):
        pairs = zip(pointers, indices, strict=True)
        labels |= {f"dimension {k or n}": float(v) for n, (k, v) in enumerate(pairs) if k not in PLACES}
    return labels


def _frame_time(groups: _Groups, content: Dataset) -> float | None:
    """s, of the frame's own clock or else from the series' own zero."""
    stated = text(content, "FrameReferenceDateTime") or text(content, "FrameAcquisitionDateTime")
    offset = lenient(groups.item("TemporalPositionSequence"), "TemporalPositionTimeOffset")
    return seconds(stated) if stated else offset


def kind_of(image_type: tuple[str, ...], component: str = "") -> str:
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
