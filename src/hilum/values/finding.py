"""Findings: results as reports, DICOM SR and other programs state them, one by one, and the record of them all.

Names of structures, classes, findings and values have codes: in the words of DICOM, LOINC and other schemes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

from hilum.values.case_outcome import OutcomeName
from hilum.values.table_cells import PlainCell
from hilum.values.voxel_images import Code

if TYPE_CHECKING:
    from hilum.values.finding_records import CodedNameRecord, FindingRow, FindingsFile

# Frames with findings of a clip that a record and its reports state: more are too many for people to read.
MOST_FRAMES = 200
# The finding of what changed in a structure since an earlier study, in percent.
CHANGE = "change"
# Rows of `measurements.csv`, one a structure or object.
Measurements = Sequence[Mapping[str, PlainCell]]


@dataclass(frozen=True)
class Finding:
    """One result that a report, a DICOM SR or a FHIR resource states.

    value:      a number, whether a finding is called, or the corners of a box
    codes:      equivalent codes of the concept: the first goes into DICOM, all go into FHIR and HL7
    low, high:  ends of the interval of a number, where they are known
    group:      the answer to which it belongs, with others of the same group: "class" of classes that exclude each
                other; a structure, of which the first is the size and the others are measurements
    called:     of classes that exclude each other, whether it is the one that the model names; else None
    possible:   the answers that the stated coverage does not rule out: of a finding of "present" and "absent", of the
                called class of all classes; None where there is no set
    label:      of a structure, its value in the label map
    box:        its row among the boxes that are called, from 0
    calibrated: whether its probability is a calibrated one
    frame:      of a clip that was looked at frame by frame, the frame that it is of, from 0
    kind:       of a single object its class, where there are several
    """

    concept: str
    value: Any = None
    unit: str = ""
    probability: float | None = None
    codes: tuple[Code, ...] = ()
    low: float | None = None
    high: float | None = None
    group: str = ""
    called: bool | None = None
    possible: tuple[str, ...] | None = None
    label: int | None = None
    box: int | None = None
    calibrated: bool = False
    frame: int | None = None
    kind: str | None = None

    @property
    def code(self) -> Code | None:
        """The code for DICOM, which takes one."""
        return self.codes[0] if self.codes else None


@dataclass(frozen=True)
class FindingsRecord:
    """The record of what a model found in an image, or in several: every report is made of it.

    reason: why there is no answer, or what of it is lacking
    is_empty: whether it is an answer that there is nothing
    model:  its name and version, the SHA-256 of it and of its weights, and on what it refuses images
    images: of several images, the case of each row and in DICOM the SOP Instance UID; empty for one image
    """

    rows: tuple[Finding, ...]
    outcome: OutcomeName
    reason: str = ""
    model: Mapping[str, str] = field(default_factory=dict)
    images: tuple[Mapping[str, str], ...] = ()
    is_empty: bool = False

    @property
    def records(self) -> list[FindingRow]:
        """The rows as plain values, each with what names its image where there are several."""
        places: Sequence[Mapping[str, str]] = self.images or [{}] * len(self.rows)
        return [cast("FindingRow", {**asdict(row), **place}) for row, place in zip(self.rows, places, strict=True)]

    @property
    def record(self) -> FindingsFile:
        """The content of `findings.json`."""
        return {
            "outcome": self.outcome,
            "is_empty": self.is_empty,
            "reason": self.reason,
            "model": dict(self.model),
            "rows": self.records,
        }


@dataclass(frozen=True)
class CodedName:
    """The codes of one name, and who states them.

    codes:  equivalents, of which the first goes into DICOM; none where the name has a private code
    source: the file of codes, the data, or DICOM's dictionary
    unit:   of its value, where a file of codes states it
    """

    codes: tuple[Code, ...] = ()
    source: str = ""
    unit: str = ""

    @property
    def record(self) -> CodedNameRecord:
        """Plain values for a model's record."""
        return cast("CodedNameRecord", asdict(self))

    @classmethod
    def from_record(cls, record: CodedNameRecord) -> CodedName:
        """Make a code from the plain values of a model's record."""
        codes = tuple(Code(one["scheme"], one["value"], one["meaning"]) for one in record["codes"])
        return cls(codes, str(record["source"]), str(record["unit"]))
