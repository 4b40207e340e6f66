"""Findings that have no place in the image as groups of a measurement report, PS3.16 TID 1501.

A class or a finding is a qualitative evaluation, a probability or a measured value a number with its unit. Each name
stands before what is said of it ("effusion: Absent"), so that no list of findings shows one that the model denies.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

import highdicom
from highdicom import sr
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SRCode

from isocenter.values import Finding

# The classes of a model have names and often no codes; a scheme of our own begins with 99, PS3.3 8.2.
OWN_SCHEME = "99ISOCENTER"
LONGEST_MEANING = 64  # LO, PS3.5 6.2
UNKNOWN_UNIT = "unit not stated"
DIGITS = 9  # with sign, point and exponent no longer than the 16 letters of DS, PS3.5 6.2
# Units whose UCUM code is beyond doubt. Others keep their text under our own scheme: an "m" may be a metre or a month.
PLAIN_UNITS = (
    *("%", "mm", "cm", "mm2", "cm2", "mm3", "cm3", "ml", "mL", "dl", "l", "L", "mg", "g", "kg", "kPa", "Hz"),
    *("ms", "s", "min", "h", "d", "wk", "mo", "a", "mm/s", "cm/s", "ml/min", "ml/s"),
    *("kg/m2", "g/m2", "ml/m2", "mg/ml", "mg/dl", "mg/dL", "mmol/l", "mmol/L"),
)
UCUM = {
    **{unit: unit for unit in PLAIN_UNITS},
    **{"mm²": "mm2", "cm²": "cm2", "mm³": "mm3", "cm³": "cm3", "kg/m²": "kg/m2", "g/m²": "g/m2", "ml/m²": "ml/m2"},
    **{"year": "a", "years": "a", "month": "mo", "months": "mo", "week": "wk", "weeks": "wk", "day": "d", "days": "d"},
    **{"hour": "h", "hours": "h", "minute": "min", "minutes": "min", "second": "s", "seconds": "s"},
    **{"percent": "%", "mmHg": "mm[Hg]", "HU": "[hnsf'U]", "°C": "Cel", "°": "deg", "deg": "deg", "degrees": "deg"},
}


def own_concept(name: str) -> sr.CodedConcept:
    """A coded concept of our own scheme: the same code for the same name."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:12].upper()
    return sr.CodedConcept(digest, OWN_SCHEME, name[:LONGEST_MEANING])


def finding_groups(
    findings: Sequence[Finding], algorithm: sr.AlgorithmIdentification
) -> list[sr.MeasurementsAndQualitativeEvaluations]:
    """One group for each answer, in their order: of findings of one group, or of one that stands for itself."""
    answers: dict[str, list[Finding]] = {}
    for number, finding in enumerate(findings):
        answers.setdefault(finding.group or f"\0{number}", []).append(finding)
    return [_group(own, algorithm) for own in answers.values()]


def names_in(findings: Sequence[Finding]) -> list[str]:
    """All texts that the groups of findings take from them."""
    return [text for one in findings for text in (one.concept, one.group, one.unit, *(one.possible or ()))]


def _group(
    findings: Sequence[Finding], algorithm: sr.AlgorithmIdentification
) -> sr.MeasurementsAndQualitativeEvaluations:
    first, evaluations, measurements = findings[0], list[sr.QualitativeEvaluation](), list[sr.Measurement]()
    concepts = {one.concept: _concept(one) for one in findings}
    for one in findings:
        evaluations += [sr.QualitativeEvaluation(*pair) for pair in _evaluated(one, concepts)]
        measurements += [sr.Measurement(*number) for number in _measured(one)]
    tracking = sr.TrackingIdentifier(uid=highdicom.UID(), identifier=first.group or first.concept)
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        algorithm_id=algorithm,
        measurements=measurements or None,
        qualitative_evaluations=evaluations or None,
    )


def _evaluated(
    finding: Finding, classes: dict[str, sr.CodedConcept]
) -> Iterator[tuple[sr.CodedConcept, sr.CodedConcept | SRCode]]:
    """(name, value) of the called class and those that are not ruled out, or of a finding's presence."""
    if finding.called:
        yield own_concept(finding.group), classes[finding.concept]
        for name in finding.possible or ():
            yield own_concept(f"Not ruled out: {finding.group}"), classes.get(name) or own_concept(name)
    elif isinstance(finding.value, bool):
        presence = {"present": codes.SCT.Present, "absent": codes.SCT.Absent}
        yield _concept(finding), presence["present" if finding.value else "absent"]
        if finding.possible is not None:
            is_decided = len(finding.possible) == 1
            verdict = presence[finding.possible[0]] if is_decided else codes.SCT.Undetermined
            yield own_concept(f"At the stated coverage: {finding.concept}"), verdict


def _measured(finding: Finding) -> Iterator[tuple[sr.CodedConcept, float, sr.CodedConcept | SRCode]]:
    """(name, value, unit) of its probability, its value and the ends of the interval of that."""
    if finding.probability is not None:
        yield own_concept(f"Probability of {finding.concept}"), _rounded(100 * finding.probability), codes.UCUM.Percent
    ends = {f"Low end of the interval: {finding.concept}": finding.low}
    ends[f"High end of the interval: {finding.concept}"] = finding.high
    if is_number(finding.value):
        yield _concept(finding), _rounded(finding.value), _unit(finding.unit)
    for name, end in ends.items():
        if end is not None:
            yield own_concept(name), _rounded(end), _unit(finding.unit)


def is_number(value: object) -> bool:
    """Whether a value can stand in a report as a number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _unit(unit: str) -> sr.CodedConcept | SRCode:
    if unit == "1":
        return codes.UCUM.NoUnits
    if unit in UCUM:
        return sr.CodedConcept(UCUM[unit], "UCUM", unit)
    return own_concept(unit or UNKNOWN_UNIT)


def _concept(finding: Finding) -> sr.CodedConcept:
    code = finding.code
    return own_concept(finding.concept) if code is None else sr.CodedConcept(code.value, code.scheme, code.meaning)
