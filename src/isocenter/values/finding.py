"""Findings: results as reports, DICOM SR and other programs state them, one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from isocenter.values.image import Code


@dataclass(frozen=True)
class Finding:
    """One result that a report, a DICOM SR or a FHIR resource states.

    value:     a number, or whether a finding is called
    low, high: ends of the interval of a number, where they are known
    group:     the answer to which it belongs, with others of the same group: "class" of classes that exclude each other
    called:    of these, whether it is the one that the model names; None where they do not exclude each other
    possible:  the answers that the stated coverage does not rule out: of a finding of "present" and "absent", of the
               called class of all classes; None where there is no set
    """

    concept: str
    value: Any = None
    unit: str = ""
    probability: float | None = None
    code: Code | None = None
    low: float | None = None
    high: float | None = None
    group: str = ""
    called: bool | None = None
    possible: tuple[str, ...] | None = None
