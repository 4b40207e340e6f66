"""Rejection notes: key object selections that take results back, IHE Radiology Imaging Object Change Management."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from highdicom import ko
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset

from isocenter.files.dicom.header import read_header
from isocenter.files.dicom.reading.rejection import REJECTING
from isocenter.files.dicom.writing.comprehensive import COMPREHENSIVE
from isocenter.files.dicom.writing.new_object import made_on_source, new_series, save
from isocenter.files.dicom.writing.source_planes import completed

QUALITY = "113001"
SERIES_NUMBER = 109


def write_rejection(objects: Mapping[Path, str], path: Path, *, reason: str, overwrite: bool = False) -> None:
    """Write a note (TID 2010) that rejects objects of one study for quality reasons, as IHE asks of a replaced result.

    objects: {file: the SOP Instance UID under which the receiver has it}, which of a report may be that of its
             Comprehensive SR
    Raises FormatError for objects on which none can be written.
    """
    with made_on_source("rejection note", str(path)):
        rejected = [_named(one, uid) for one, uid in objects.items()]
        title = CodedConcept(QUALITY, "DCM", REJECTING[QUALITY])
        note = ko.KeyObjectSelectionDocument(
            evidence=rejected,
            content=ko.KeyObjectSelection(title, rejected, description=reason),
            **new_series(SERIES_NUMBER, REJECTING[QUALITY]),
        )
    save(note, next(iter(objects)), [reason], path, overwrite=overwrite)


def _named(path: Path, uid: str) -> Dataset:
    """The header of an object, as its receiver has it."""
    head = completed(read_header(path).library)
    if head.SOPInstanceUID != uid:
        head.SOPInstanceUID, head.SOPClassUID = uid, COMPREHENSIVE
    return head
