"""Results as a DICOM structured report on the images that they are about, PS3.16 TID 1500; the object is highdicom's.

Each box is a rectangle in pixels, in a volume one on each of its slices: what every viewer of reports can draw.
A finding without a place is a group of its own, TID 1501: a class or a finding is a qualitative evaluation, a
probability or a measured value a number with its unit. Its name stands before its value ("effusion: Absent"), so that
no list of findings shows one that the model denies.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SRCode

from isocenter.errors import FormatError
from isocenter.files.dicom.header import read_header
from isocenter.files.dicom.reading.sr import NOT_DETECTED_CODE
from isocenter.files.dicom.warnings import quiet
from isocenter.files.dicom.writing.answers import Result, answer_path
from isocenter.files.dicom.writing.source_elements import repeat_elements
from isocenter.files.dicom.writing.source_planes import completed
from isocenter.files.dicom.writing.stamp import Stamp
from isocenter.files.storage.atomic import written
from isocenter.values import BoundingBoxes, Finding, Floats, Image

CERTAINTY = sr.CodedConcept("111012", "DCM", "Certainty of Finding")
NOT_DETECTED = sr.CodedConcept(NOT_DETECTED_CODE, "SCT", "Not detected")
PROCEDURE = sr.CodedConcept("363679005", "SCT", "Imaging procedure")
SERIES_NUMBER = 101

Group = (
    sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | sr.VolumetricROIMeasurementsAndQualitativeEvaluations
    | sr.MeasurementsAndQualitativeEvaluations
)
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


def reports(result: Result, path: Path) -> Iterator[Path]:
    """The report of a result."""
    target = answer_path(path, "report")
    write_report(
        result.boxes,
        result.source,
        target,
        findings=result.findings,
        algorithm_name=result.algorithm,
        classes=result.classes,
        least_score=result.least_score,
        limits=result.limits,
    )
    yield target


def write_report(
    boxes: BoundingBoxes | None,
    source: Image,
    path: Path,
    *,
    findings: Sequence[Finding] = (),
    algorithm_name: str,
    classes: Sequence[str] = (),
    least_score: float = 0.0,
    limits: Sequence[str] = (),
    overwrite: bool = False,
) -> None:
    """Write boxes on the image's own grid as findings of its patient and study, each with its score in percent.

    boxes: None where none were looked for; findings: what has no place in the image
    classes, least_score: of boxes, what was looked for, and the score from which on they are here
    limits: sentences without which the report would be misread
    Along the slices a box is rounded to whole ones, at least one. Without a box the report states "not detected".
    Raises FormatError for a source that is no DICOM, has frames, or cannot bear a report.
    """
    where = str(path)
    slices = _slices(source, where, marked=boxes is not None)
    try:
        with quiet():  # highdicom warns about unusual names, and prints the patient's with the warning
            files = {
                name: completed(read_header(Path(name)).library)
                for name in dict.fromkeys(n for n, _ in slices.values())
            }
            release = version("isocenter")
            sought = [f"looked for: {', '.join(classes)}"] if classes else []
            sought += [f"least score: {100 * least_score:.3g} %"] if least_score else []
            groups, names = list[Group](), [*classes, *limits, *_names_in(findings)]
            if boxes is not None:
                algorithm = sr.AlgorithmIdentification(algorithm_name, release, [*sought, *limits] or None)
                groups += [_group(n, boxes, slices, files, source, algorithm) for n in range(len(boxes))]
                groups = groups or [_nothing(classes, algorithm)]
                names += boxes.names
            plain = sr.AlgorithmIdentification(algorithm_name, release, list(limits) or None)
            groups += _finding_groups(findings, plain)
            made = _report(
                groups, list(files.values()), f"{algorithm_name}\0{release}", "Findings" if findings else "Detection"
            )
            repeat_elements(made, Path(next(iter(files))), names)
    except (ValueError, TypeError, AttributeError, KeyError) as error:  # what highdicom raises at a deficient source
        problem = f"no report can be written on this source ({error})"
        raise FormatError(problem, where, "Use predictions.csv, or repair the source's header") from error
    with quiet(), written(Path(path), overwrite=overwrite) as partial:
        made.save_as(partial)


def _slices(source: Image, where: str, *, marked: bool) -> dict[int, tuple[str, int]]:
    """{slice: (file, frame from 0)}; a picture is one slice. marked: whether the report marks places in them"""
    if source.source is None or not source.source.is_dicom or source.source.header is None:
        raise FormatError("a DICOM report needs the DICOM image that it belongs to", where, "Use predictions.csv")
    if source.frames is not None:
        raise FormatError("a report on an image with frames", where, "Use predictions.csv")
    stated = dict(enumerate(source.source.header["slices"]))
    if marked and any(one is not None and one[2] is not None for one in stated.values()):
        raise FormatError("a mosaic has no slices that a report can name", where, "Use predictions.csv")
    return {n: (one[0], one[1]) for n, one in stated.items() if one is not None}


def _group(
    number: int,
    boxes: BoundingBoxes,
    slices: dict[int, tuple[str, int]],
    files: dict[str, Dataset],
    source: Image,
    algorithm: sr.AlgorithmIdentification,
) -> Group:
    """One finding: a planar region, or the regions of a volume."""
    score = [] if boxes.scores is None else [round(100 * float(boxes.scores[number]), 4)]
    (x0, y0), (x1, y1), through = _placed(boxes.corners[number], source)
    kept = [slices[n] for n in through if n in slices]
    if not kept:
        raise ValueError("a box on slices that were filled in")
    regions = [_rectangle(np.array([x0, y0, x1, y1]), files[name], frame) for name, frame in kept]
    finding: dict[str, Any] = {
        "tracking_identifier": sr.TrackingIdentifier(uid=highdicom.UID(), identifier=f"finding {number + 1}"),
        "finding_type": _own_concept(boxes.names[number]),
        "algorithm_id": algorithm,
        "measurements": [sr.Measurement(CERTAINTY, one, codes.UCUM.Percent) for one in score] or None,
    }
    if len(regions) == 1:
        return sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=regions[0], **finding)
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_regions=regions, **finding)


def _placed(corners: Floats, source: Image) -> tuple[Floats, Floats, range]:
    """((column, row) of its start, of its end, within the image; its slices)."""
    low, high = np.reshape(corners, (2, -1))
    if source.geometry.is_picture:
        rows, columns = source.geometry.shape
        low, high = low[::-1], high[::-1]
        return np.clip(low, 0, [columns, rows]), np.clip(high, 0, [columns, rows]), range(1)
    *size, count = source.geometry.shape
    first = min(max(round(float(low[2])), 0), count - 1)
    last = min(max(round(float(high[2])), first + 1), count)
    return np.clip(low[:2], 0, size), np.clip(high[:2], 0, size), range(first, last)


def _rectangle(edges: Floats, image: Dataset, frame: int) -> sr.ImageRegion:
    """PS3.3 C.18.6: pixels are counted from the corner of the first one, as edges of boxes are."""
    x0, y0, x1, y1 = edges
    frames = [frame + 1] if "NumberOfFrames" in image else None
    named = sr.SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID, frames)
    points = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], dtype=np.float64)
    return sr.ImageRegion(sr.GraphicTypeValues.POLYLINE, points, named)


def _nothing(classes: Sequence[str], algorithm: sr.AlgorithmIdentification) -> sr.MeasurementsAndQualitativeEvaluations:
    """The one finding of a report without boxes, because a report states at least one. TID 1501

    Its name states the classes: of anything else the report says nothing.
    """
    name = f"not detected: {', '.join(classes)}" if classes else "not detected"
    tracking = sr.TrackingIdentifier(uid=highdicom.UID(), identifier=name)
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking, finding_type=NOT_DETECTED, algorithm_id=algorithm
    )


def _report(groups: Sequence[Group], evidence: list[Dataset], device: str, description: str) -> sr.ComprehensiveSR:
    # The UID names the device and not the report (PS3.16 TID 1004): each version of a model keeps its own.
    uid = highdicom.UID(Stamp("2.25", device, 0.0).uid("device"))
    observer = sr.DeviceObserverIdentifyingAttributes(
        uid=uid, name="Isocenter", manufacturer_name="Isocenter", model_name="Isocenter"
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(codes.DCM.Device, observer)
        ),
        procedure_reported=PROCEDURE,
        imaging_measurements=list(groups),
    )
    return sr.ComprehensiveSR(
        evidence=evidence,
        content=content,
        series_instance_uid=highdicom.UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="Isocenter",
        manufacturer_model_name="Isocenter",
        software_versions=version("isocenter"),
        device_serial_number="0",
        is_complete=True,
        series_description=description,
    )


def _own_concept(name: str) -> sr.CodedConcept:
    """A coded concept of our own scheme: the same code for the same name."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:12].upper()
    return sr.CodedConcept(digest, OWN_SCHEME, name[:LONGEST_MEANING])


def _finding_groups(
    findings: Sequence[Finding], algorithm: sr.AlgorithmIdentification
) -> list[sr.MeasurementsAndQualitativeEvaluations]:
    """One group for each answer, in their order: of findings of one group, or of one that stands for itself."""
    answers: dict[str, list[Finding]] = {}
    for number, finding in enumerate(findings):
        answers.setdefault(finding.group or f"\0{number}", []).append(finding)
    return [_findings_group(own, algorithm) for own in answers.values()]


def _names_in(findings: Sequence[Finding]) -> list[str]:
    """All texts that the groups of findings take from them."""
    return [text for one in findings for text in (one.concept, one.group, one.unit, *(one.possible or ()))]


def _findings_group(
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
        yield _own_concept(finding.group), classes[finding.concept]
        for name in finding.possible or ():
            yield _own_concept(f"Not ruled out: {finding.group}"), classes.get(name) or _own_concept(name)
    elif isinstance(finding.value, bool):
        presence = {"present": codes.SCT.Present, "absent": codes.SCT.Absent}
        yield _concept(finding), presence["present" if finding.value else "absent"]
        if finding.possible is not None:
            is_decided = len(finding.possible) == 1
            verdict = presence[finding.possible[0]] if is_decided else codes.SCT.Undetermined
            yield _own_concept(f"At the stated coverage: {finding.concept}"), verdict


def _measured(finding: Finding) -> Iterator[tuple[sr.CodedConcept, float, sr.CodedConcept | SRCode]]:
    """(name, value, unit) of its probability, its value and the ends of the interval of that."""
    if finding.probability is not None:
        yield _own_concept(f"Probability of {finding.concept}"), _rounded(100 * finding.probability), codes.UCUM.Percent
    ends = {f"Low end of the interval: {finding.concept}": finding.low}
    ends[f"High end of the interval: {finding.concept}"] = finding.high
    if _is_number(finding.value):
        yield _concept(finding), _rounded(finding.value), _unit(finding.unit)
    for name, end in ends.items():
        if end is not None:
            yield _own_concept(name), _rounded(end), _unit(finding.unit)


def _is_number(value: object) -> bool:
    """Whether a value can stand in a report as a number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _unit(unit: str) -> sr.CodedConcept | SRCode:
    if unit == "1":
        return codes.UCUM.NoUnits
    if unit in UCUM:
        return sr.CodedConcept(UCUM[unit], "UCUM", unit)
    return _own_concept(unit or UNKNOWN_UNIT)


def _concept(finding: Finding) -> sr.CodedConcept:
    code = finding.code
    return _own_concept(finding.concept) if code is None else sr.CodedConcept(code.value, code.scheme, code.meaning)
