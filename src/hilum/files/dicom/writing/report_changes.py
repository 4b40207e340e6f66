"""Reports that are written anew: with a priority, as Comprehensive SR, or in place of an earlier one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import UID, Comprehensive3DSRStorage, ComprehensiveSRStorage

from hilum.errors import FormatError
from hilum.files.dicom import object_identity, tags
from hilum.files.dicom.writing import sr
from hilum.files.dicom.writing.sr import COMMENT, OWN_SCHEME
from hilum.files.dicom.writing.stamp import Stamp

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
    for content in item.get("ContentSequence") or ():
        yield content
        yield from _content(content)


PRIORITY = ("SCT", "260870009", "Priority")
EVALUATIONS = ("UMLS", "C0034375", "Qualitative Evaluations")
# Of the priorities that have a concept in DICOM's own table (PS3.16 CID 3414); others get one of our scheme.
CODES = {"emergency": ("SCT", "25876001", "Emergency"), "urgent": ("SCT", "103391001", "Urgent")}


def state_priority(report: Dataset, priority: str, because: str) -> None:
    """Have a report state a priority and why it holds, as a qualitative evaluation of the whole study."""
    concept = sr.own_concept(priority)
    value = CODES.get(priority, (OWN_SCHEME, str(concept.value), priority))
    coded, reason = _item("CODE", PRIORITY), _item("TEXT", ("DCM", COMMENT.value, COMMENT.meaning))
    coded.ConceptCodeSequence, reason.TextValue = [tags.code_item(*value)], because
    evaluations = _item("CONTAINER", EVALUATIONS)
    evaluations.ContinuityOfContent, evaluations.ContentSequence = "SEPARATE", [coded, reason]
    report.ContentSequence.append(evaluations)


def _item(kind: str, name: tuple[str, str, str]) -> Dataset:
    content = Dataset()
    content.RelationshipType, content.ValueType, content.ConceptNameCodeSequence = (
        "CONTAINS",
        kind,
        [tags.code_item(*name)],
    )
    return content


def name_predecessor(report: Dataset, earlier: Path) -> None:
    """Have a report name the earlier one that it replaces. Raises FormatError where that is no DICOM object."""
    identity = object_identity.read_identity(earlier)
    named, series, document = Dataset(), Dataset(), Dataset()
    named.ReferencedSOPClassUID, named.ReferencedSOPInstanceUID = identity.sop_class, identity.instance
    series.SeriesInstanceUID, series.ReferencedSOPSequence = identity.series, [named]
    document.StudyInstanceUID, document.ReferencedSeriesSequence = identity.study, [series]
    report.PredecessorDocumentsSequence = [document]
