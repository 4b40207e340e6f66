"""Rejection notes: key object selections that take objects back, IHE Radiology Imaging Object Change Management."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from highdicom import ko
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset

from hilum.files.dicom import header_reading, tags
from hilum.files.dicom.writing import new_object, source_planes
from hilum.files.dicom.writing.report_changes import COMPREHENSIVE

QUALITY = "113001"
SERIES_NUMBER = 109


def write_rejection(objects: Mapping[Path, str], path: Path, *, reason: str, overwrite: bool = False) -> None:
    """Write a note (TID 2010) that rejects objects of one study for quality reasons, as IHE asks of a replaced result.

    objects: {file: the SOP Instance UID under which the receiver has it}, which of a report may be that of its
             Comprehensive SR
    Raises FormatError for objects on which none can be written.
    """
    with new_object.make_on_source("rejection note", str(path)):
        rejected = [_received_header(one, uid) for one, uid in objects.items()]
        title = CodedConcept(QUALITY, "DCM", REJECTING[QUALITY])
        note = ko.KeyObjectSelectionDocument(
            evidence=rejected,
            content=ko.KeyObjectSelection(title, rejected, description=reason),
            **new_object.new_series_arguments(SERIES_NUMBER, REJECTING[QUALITY]),
        )
    new_object.save_object(note, next(iter(objects)), [reason], path, overwrite=overwrite)


def _received_header(path: Path, uid: str) -> Dataset:
    """The header of an object, as its receiver has it."""
    head = source_planes.complete_for_highdicom(header_reading.read_header(path).library)
    if head.SOPInstanceUID != uid:
        head.SOPInstanceUID, head.SOPClassUID = uid, COMPREHENSIVE
    return head


KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"
LONGEST_UID = 64  # PS3.5 9.1
# Document titles that IHE Radiology Rejection Note Stored (RAD-66) lists.
REJECTING: Mapping[str, str] = MappingProxyType(
    {
        "113001": "Rejected for Quality Reasons",
        "113037": "Rejected for Patient Safety Reasons",
        "113038": "Incorrect Modality Worklist Entry",
        "113039": "Data Retention Policy Expired",
    }
)


@dataclass(frozen=True)
class Rejection:
    """The objects that a note rejects. reason: its title; instances: SOP Instance UIDs."""

    reason: str
    instances: frozenset[str]


def read_rejection(path: Path) -> Rejection | None:
    """The rejection of a key object selection; None for another title. Raises FormatError for a damaged one."""
    note = header_reading.read_header(path).dataset
    title = tags.first_item(note, "ConceptNameCodeSequence")
    code = "" if title is None or tags.text(title, "CodingSchemeDesignator") != "DCM" else tags.text(title, "CodeValue")
    if code not in REJECTING:
        return None
    uids = {
        tags.text(own, "ReferencedSOPInstanceUID")
        for study in tags.items(note, "CurrentRequestedProcedureEvidenceSequence")
        for series in tags.items(study, "ReferencedSeriesSequence")
        for own in tags.items(series, "ReferencedSOPSequence")
    }
    valid = frozenset(uid for uid in uids if 0 < len(uid) <= LONGEST_UID and uid.isascii() and uid.isprintable())
    return Rejection(f"{REJECTING[code]} ({code}, DCM)", valid)
