"""The record of findings: what `findings.json` holds, and the rows of it that the node keeps."""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict

from hilum.values.record_schema import RecordSchema


class CodeRecord(TypedDict):
    """A concept in a coding scheme."""

    scheme: str
    value: str
    meaning: str


class CodedNameRecord(TypedDict):
    """The codes of a name, who states them, and the unit of its value."""

    codes: list[CodeRecord]
    source: str
    unit: str


class FindingRow(TypedDict, total=False):
    """A finding: what it is of, its value and probability.

    group:    the structure that it measures, or its own name
    called:   whether it is called present; possible: classes that a set does not exclude
    label, box, frame: the number of the structure, box or frame that it is of
    case, instance: the image that it is of, where there are several
    """

    concept: str
    value: bool | int | float | str | list[float] | None
    unit: str
    probability: float | None
    codes: list[CodeRecord]
    low: float | None
    high: float | None
    group: str
    called: bool | None
    possible: list[str] | None
    label: int | None
    box: int | None
    calibrated: bool
    frame: int | None
    kind: str | None
    case: str
    instance: str


class FindingsFile(TypedDict):
    """What a model found in an image, or in several: every report is made of it.

    is_empty: whether it is an answer that there is nothing
    model:    its name and version, the SHA-256 of it and of its weights, and on what it refuses images
    """

    outcome: str
    is_empty: bool
    reason: str
    model: dict[str, str]
    rows: list[FindingRow]
    schema: NotRequired[str]
    version: NotRequired[int]


FINDINGS_SCHEMA = RecordSchema("hilum.findings", FindingsFile)
