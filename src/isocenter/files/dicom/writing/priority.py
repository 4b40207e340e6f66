"""The priority that the findings of a report give its study, stated in the report. PS3.16 TID 1500"""

from __future__ import annotations

from pydicom.dataset import Dataset

from isocenter.files.dicom.writing.sr import COMMENT, OWN_SCHEME, own_concept

PRIORITY = ("260870009", "SCT", "Priority")
EVALUATIONS = ("C0034375", "UMLS", "Qualitative Evaluations")
# Of the priorities that have a concept in DICOM's own table (PS3.16 CID 3414); others get one of our scheme.
CODES = {"emergency": ("25876001", "SCT", "Emergency"), "urgent": ("103391001", "SCT", "Urgent")}


def state_priority(report: Dataset, priority: str, because: str) -> None:
    """Have a report state a priority and why it holds, as a qualitative evaluation of the whole study."""
    own = own_concept(priority)
    value = CODES.get(priority, (str(own.value), OWN_SCHEME, priority))
    coded, reason = _item("CODE", PRIORITY), _item("TEXT", (COMMENT.value, "DCM", COMMENT.meaning))
    coded.ConceptCodeSequence, reason.TextValue = [_code(*value)], because
    evaluations = _item("CONTAINER", EVALUATIONS)
    evaluations.ContinuityOfContent, evaluations.ContentSequence = "SEPARATE", [coded, reason]
    report.ContentSequence.append(evaluations)


def _item(kind: str, name: tuple[str, str, str]) -> Dataset:
    made = Dataset()
    made.RelationshipType, made.ValueType, made.ConceptNameCodeSequence = "CONTAINS", kind, [_code(*name)]
    return made


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = value, scheme, meaning
    return made
