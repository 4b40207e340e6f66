"""Result objects named and dated by where they come from, so that the same result made again is the same object."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from isocenter.files.dicom.warnings import quiet
from isocenter.files.dicom.writing.source_elements import UTF_8, date_result
from isocenter.files.storage.atomic import written

# UIDs that a writer makes up: of the object and its series at its top, of the others wherever they stand.
OWN_ABOVE = frozenset({"SOPInstanceUID", "SeriesInstanceUID"})
OWN_WITHIN = frozenset({"DimensionOrganizationUID", "TrackingUID", "UID"})
DEVICE_OBSERVER_UID = "121012"  # of the device that made the result, whose UID is not the result's own. PS3.16 TID 1004
LONGEST = 64  # PS3.5 6.2, UI and LO


@dataclass(frozen=True)
class Stamp:
    """The values from which a result's UIDs and times derive.

    root: of UIDs; key: of the result; at: when it was asked for (s since 1970); text: what readers have to be told
    """

    root: str
    key: str
    at: float
    text: str = ""

    def uid(self, name: str) -> str:
        """The UID of one thing of the result: the root, and a number of at most 128 bits. PS3.5 B.2 for 2.25."""
        number = int.from_bytes(hashlib.sha256(f"{self.key}\0{name}".encode()).digest()[:16])
        return f"{self.root}.{number}"[:LONGEST]


def stamped(path: Path, by: Stamp) -> Dataset:
    """Rewrite a result's DICOM file with the UIDs and times of a stamp, and its text in the series description.

    References to other objects stay. Returns what was written.
    """
    with quiet():  # pydicom warns with values of the source, which are a patient's
        return _stamped(path, by)


def _stamped(path: Path, by: Stamp) -> Dataset:
    dataset = dcmread(path)
    renamed: dict[str, str] = {}
    for element, is_above in _elements(dataset):
        if element.keyword in (OWN_ABOVE if is_above else OWN_WITHIN) or element.keyword in OWN_WITHIN:
            old = str(element.value)
            element.value = renamed.setdefault(old, by.uid(f"{element.keyword} {len(renamed)}"))
    date_result(dataset, by.at)
    description = str(dataset.get("SeriesDescription") or "")
    if by.text and by.text not in description:
        described = f"{description}, {by.text}".removeprefix(", ")
        if not by.text.isascii():
            dataset.decode()  # by the character sets that the object has until now
            dataset.SpecificCharacterSet = UTF_8
        dataset.SeriesDescription = described[:LONGEST]
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    with written(path, overwrite=True) as partial:
        dataset.save_as(partial, enforce_file_format=True)
    return dataset


def _elements(dataset: Dataset, is_above: bool = True) -> Iterator[tuple[DataElement, bool]]:
    """Every element in its order but the UID of the device, and whether it stands at the top."""
    if any(str(name.get("CodeValue")) == DEVICE_OBSERVER_UID for name in dataset.get("ConceptNameCodeSequence") or ()):
        return
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _elements(item, is_above=False)
        elif element.VR == "UI":
            yield element, is_above
