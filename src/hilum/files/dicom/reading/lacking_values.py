"""Values that some slices of a series lack and others state: refused where voxels would be wrong, else named.

An attribute that is absent stands for a value. Where all other slices state that very value nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hilum import errors
from hilum.errors import FormatError
from hilum.files.dicom import header_reading, tags
from hilum.files.dicom.header_reading import Header
from hilum.files.dicom.reading import pixel_values, value_maps
from hilum.values import FactRule

SLOPE_GROUP = "PixelValueTransformationSequence"
# {what decides a voxel's value: (functional group that may hold it, what an absent one stands for)}, PS3.3 C.7.6.3,
# C.8.8.3 and C.11.1; a keyword stands for its own value.
DECISIVE: dict[str, tuple[str, float | str]] = {
    "RescaleSlope": (SLOPE_GROUP, 1.0),
    "RescaleIntercept": (SLOPE_GROUP, 0.0),
    "DoseGridScaling": ("", 1.0),
    "PixelRepresentation": ("", 0.0),
    "PlanarConfiguration": ("", 0.0),
    "BitsStored": ("", "BitsAllocated"),
}
TABLE = "ModalityLUTSequence"
IDENTIFYING = ("PatientID", "StudyInstanceUID", "Modality")
FACTS = (
    FactRule("DICOM series", "named", "slices without the time, label, window, padding or UID that others have"),
    FactRule("DICOM series", "refused", "slices without the place, rescale or number format that others have"),
)

Slice = TypeVar("Slice")


@dataclass(frozen=True)
class DecisiveValue:
    """What an attribute says of a slice's voxels; is_stated: whether the slice states it, and it is no default."""

    value: float
    is_stated: bool


def decisive_values(head: Header, where: str) -> tuple[dict[str, DecisiveValue], ...]:
    """What each frame of a file says of its voxels; one entry where all frames say the same."""
    varies = pixel_values.has_varying_values(head.dataset)
    return tuple(_of_frame(head, n, where) for n in range(header_reading.frame_count(head) if varies else 1))


def _of_frame(head: Header, frame: int, where: str) -> dict[str, DecisiveValue]:
    values = {}
    for keyword, (group, absent) in DECISIVE.items():
        holder = value_maps.attribute_holder(head.dataset, keyword, frame, group)
        stated = tags.single_number(holder, keyword, where)
        if stated is not None:
            values[keyword] = DecisiveValue(stated, is_stated=True)
            continue
        meant = tags.single_number(head.dataset, absent, where) if isinstance(absent, str) else absent
        values[keyword] = DecisiveValue(meant or 0.0, is_stated=False)
    has_table = TABLE in value_maps.attribute_holder(head.dataset, TABLE, frame)
    values[TABLE] = DecisiveValue(float(has_table), has_table)
    return values


def refuse_lacking(heads: Sequence[Header], values: Sequence[Sequence[dict[str, DecisiveValue]]], where: str) -> None:
    """Refuse slices whose voxels would be wrong, because they lack what other slices state.

    values: `decisive_values` of each file
    Raises FormatError, which names attribute and slices.
    """
    slices = [
        (f"{head.path.name} frame {n + 1}" if len(frames) > 1 else head.path.name, frame)
        for head, frames in zip(heads, values, strict=True)
        for n, frame in enumerate(frames)
    ]
    for keyword in (*DECISIVE, TABLE):
        stated = {frame[keyword].value for _, frame in slices if frame[keyword].is_stated}
        lacking = [name for name, frame in slices if not frame[keyword].is_stated and stated - {frame[keyword].value}]
        if lacking:
            raise FormatError(
                lacking_phrase(lacking, len(slices), tags.keyword_with_tag(keyword)),
                where,
                "Take it out of the series, or export the series again",
            )


def lacking_phrase(lacking: Sequence[str], slices: int, what: str) -> str:
    """ "1 of 40 slices (IM3.dcm) does not state X, which the others do"."""
    verb = "does" if len(lacking) == 1 else "do"
    counted = f"{len(lacking)} of {slices} slices ({errors.list_phrase(lacking, 3)})"
    return f"{counted} {verb} not state {what}, which the others do"


def split_lacking(slices: Iterable[tuple[Slice, bool]]) -> list[Slice]:
    """The slices that lack a value which others state; none where all state it, or nobody does."""
    every = list(slices)
    lacking = [one for one, is_stated in every if not is_stated]
    return lacking if len(lacking) < len(every) else []


def identity_notes(heads: Sequence[Header]) -> tuple[str, ...]:
    """Notes on files of one series that lack an attribute which says whose they are, or what."""
    uid = tags.keyword_with_tag("SeriesInstanceUID")
    if not any(tags.text(head.dataset, "SeriesInstanceUID") for head in heads):
        return (f"does not state {uid}: taken for a series of its own",)
    notes = []
    for keyword in IDENTIFYING:
        lacking = split_lacking((head.path.name, bool(tags.text(head.dataset, keyword))) for head in heads)
        if lacking:
            phrase = lacking_phrase(lacking, len(heads), tags.keyword_with_tag(keyword))
            notes.append(f"{phrase}: taken for theirs, by {uid}")
    return tuple(notes)
