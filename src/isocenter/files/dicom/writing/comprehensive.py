"""A report as Comprehensive SR, where Comprehensive 3D SR is not taken: the same content under a UID of its own."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset
from pydicom.uid import UID, Comprehensive3DSRStorage, ComprehensiveSRStorage

from isocenter.errors import FormatError
from isocenter.files.dicom.writing.stamp import Stamp

COMPREHENSIVE_3D, COMPREHENSIVE = str(Comprehensive3DSRStorage), str(ComprehensiveSRStorage)


def as_comprehensive(report: Dataset, where: str) -> Dataset:
    """Make a Comprehensive 3D SR a Comprehensive SR, in place, and return it. PS3.3 A.35.3 and A.35.13

    Its UID derives from that of the original, under the same root: made again it is the same object.
    An earlier report that it replaces is named by the UID that this has where the class is not taken.
    where: its file
    Raises FormatError for a report that marks places in three dimensions, of which this class has none.
    """
    if any(item.get("ValueType") == "SCOORD3D" for item in _content(report)):
        problem = "the report marks places in three dimensions, and Comprehensive SR has none"
        raise FormatError(problem, where, "Send it to a system that takes Comprehensive 3D SR")
    uid = comprehensive_uid(str(report.SOPInstanceUID))
    report.SOPClassUID, report.SOPInstanceUID = COMPREHENSIVE, uid
    for document in report.get("PredecessorDocumentsSequence") or ():
        for named in (one for series in document.ReferencedSeriesSequence for one in series.ReferencedSOPSequence):
            if named.ReferencedSOPClassUID == COMPREHENSIVE_3D:
                named.ReferencedSOPClassUID = COMPREHENSIVE
                named.ReferencedSOPInstanceUID = comprehensive_uid(str(named.ReferencedSOPInstanceUID))
    if "file_meta" in vars(report):
        report.file_meta.MediaStorageSOPClassUID = UID(COMPREHENSIVE)
        report.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    return report


def comprehensive_uid(uid: str) -> str:
    """The UID of a report as Comprehensive SR, from that of the Comprehensive 3D SR."""
    return Stamp(uid.rpartition(".")[0], uid, 0.0).uid("Comprehensive SR")


def _content(item: Dataset) -> Iterator[Dataset]:
    """All content items of a report."""
    for one in item.get("ContentSequence") or ():
        yield one
        yield from _content(one)
