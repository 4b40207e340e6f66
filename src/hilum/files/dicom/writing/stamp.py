"""Result objects named and dated by where they come from, so that the same result made again is the same object."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from hilum.files.dicom import header_reading, library_warnings, tags
from hilum.files.dicom.character_sets import UTF_8
from hilum.files.dicom.writing import source_planes
from hilum.files.storage import atomic

# UIDs that a writer makes up, beside those of the object and its series.
OWN = frozenset({"DimensionOrganizationUID", "TrackingUID"})
# The only content item whose UID is the report's own: others name devices, series and frames of reference.
TRACKING_UID = "112040"  # Tracking Unique Identifier, PS3.16 TID 4108
LONGEST = 64  # PS3.5 6.2, UI and LO


@dataclass(frozen=True)
class Stamp:
    """The values from which a result's UIDs and times derive.

    root: of UIDs; key: of the result; at: when it was asked for (s since 1970); text: what readers have to be told
    series: key of the series, which versions of a result share; empty for a series of its own
    number: of the version within its series, from 1
    """

    root: str
    key: str
    at: float
    text: str = ""
    series: str = ""
    number: int = 1

    def uid(self, name: str) -> str:
        """The UID of one thing of the result: the root, and a number of at most 128 bits. PS3.5 B.2 for 2.25."""
        number = int.from_bytes(hashlib.sha256(f"{self.key}\0{name}".encode()).digest()[:16])
        return f"{self.root}.{number}"[:LONGEST]


def stamped_uids(path: Path, by: Stamp) -> dict[str, str]:
    """{UID: its UID under the stamp} of a result's DICOM file and of its series, for results that refer to it."""
    head = header_reading.read_header(path).dataset
    series = Stamp(by.root, by.series or by.key, by.at)
    return {
        tags.text(head, "SOPInstanceUID"): by.uid("SOPInstanceUID"),
        tags.text(head, "SeriesInstanceUID"): series.uid("SeriesInstanceUID"),
    }


def apply_stamp(path: Path, by: Stamp, others: Mapping[str, str] = MappingProxyType({})) -> Dataset:
    """Rewrite a result's DICOM file with the UIDs and times of a stamp, and its text in the series description.

    others: `stamped_uids` of the results to which it may refer; references to all other objects stay
    Returns what was written.
    """
    with library_warnings.collect_warnings():  # pydicom warns with values of the source, which are a patient's
        return _rewrite(path, by, {**others, **stamped_uids(path, by)})


def _rewrite(path: Path, by: Stamp, renamed: dict[str, str]) -> Dataset:
    dataset = dcmread(path)
    for element, is_own in _uids(dataset):
        old = str(element.value)
        if is_own:
            renamed.setdefault(old, by.uid(f"{element.keyword} {len(renamed)}"))
        element.value = renamed.get(old, element.value)
    dataset.InstanceNumber = by.number
    source_planes.date_result(dataset, by.at)
    description = str(dataset.get("SeriesDescription") or "")
    if by.text and by.text not in description:
        described = f"{description}, {by.text}".removeprefix(", ")
        if not by.text.isascii():
            dataset.decode()  # by the character sets that the object has until now
            dataset.SpecificCharacterSet = UTF_8
        dataset.SeriesDescription = described[:LONGEST]
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    with atomic.write_whole(path, overwrite=True) as partial:
        dataset.save_as(partial, enforce_file_format=True)
    return dataset


def _uids(dataset: Dataset) -> Iterator[tuple[DataElement, bool]]:
    """Every UID in its order, and whether it is the result's own beside those of the object and its series."""
    name = dataset.get("ConceptNameCodeSequence")
    is_tracking = bool(name) and str(name[0].get("CodeValue")) == TRACKING_UID
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _uids(item)
        elif element.VR == "UI":
            yield element, element.keyword in OWN or (is_tracking and element.keyword == "UID")
