"""Results as a DICOM structured report on the images that they are about, PS3.16 TID 1500; the object is highdicom's.

The class is Comprehensive 3D SR, which IHE AI Results asks for. Each box is a rectangle in pixels, in a volume one on
each of its slices: what every viewer of reports can show. A structure names its segment in the SEG beside the report,
TID 1411, and states its volume and other measurements. A finding without a place is a group of its own, TID 1501: a
class or a finding is a qualitative evaluation, a probability or a measured value a number with its unit. Its name
stands before its value ("effusion: Absent"), so that no list of findings shows one that the model denies.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeGuard, cast

import highdicom
import numpy as np
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as SRCode

from hilum.errors import FormatError
from hilum.files.dicom import header_reading, library_warnings, tags
from hilum.files.dicom.header_reading import Header
from hilum.files.dicom.reading.sr_reading import NOT_DETECTED_CODE
from hilum.files.dicom.writing import dicom_answers, new_object, source_planes
from hilum.files.dicom.writing.dicom_answers import EarlierObjects, Result
from hilum.files.dicom.writing.new_object import ReadingPerson
from hilum.files.dicom.writing.stamp import Stamp
from hilum.files.storage import atomic
from hilum.values import Finding, Floats, Image, Label
from hilum.values.finding import CHANGE, MOST_FRAMES

CERTAINTY = sr.CodedConcept("111012", "DCM", "Certainty of Finding")
PROBABILITY = sr.CodedConcept("122157", "DCM", "Probability")
NOT_DETECTED = sr.CodedConcept(NOT_DETECTED_CODE, "SCT", "Not detected")
PROCEDURE = sr.CodedConcept("363679005", "SCT", "Imaging procedure")
COMMENT = sr.CodedConcept("121106", "DCM", "Comment")
SOURCE = sr.CodedConcept("260753009", "SCT", "Source")
SOURCE_OF_MEASUREMENT = sr.CodedConcept("121112", "DCM", "Source of Measurement")
# The ends of an interval, as distances from the value. PS3.16 TID 310
BELOW = sr.CodedConcept("371885007", "SCT", "-, range of lower measurement uncertainty")
ABOVE = sr.CodedConcept("371886008", "SCT", "+, range of upper measurement uncertainty")
# The size of a structure by its unit: of three axes, of two and of one.
SIZES = {
    "ml": codes.SCT.Volume,
    "mm³": codes.SCT.Volume,
    **dict.fromkeys(("mm²", "mm2"), codes.SCT.Area),
    "mm": codes.SCT.Length,
}
SERIES_NUMBER = 101

Group = (
    sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | sr.VolumetricROIMeasurementsAndQualitativeEvaluations
    | sr.MeasurementsAndQualitativeEvaluations
)
Concept = sr.CodedConcept | SRCode
# The classes of a model have names and often no codes; a scheme of our own begins with 99, PS3.3 8.2.
OWN_SCHEME = "99HILUM"
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
    target = dicom_answers.path_of_object(path, "report")
    write_report(result, target)
    yield target


@dataclass(frozen=True)
class _Segment:
    """One segment of a SEG."""

    sop_class: str
    instance: str
    number: int


@dataclass(frozen=True)
class _Images:
    """The images of a report: their files, and which frame of which of them each slice, or frame of a clip, is."""

    files: Mapping[str, Dataset]
    slices: Mapping[int, tuple[str, int]]

    def image_of_slice(self, slice_: int) -> tuple[Dataset, list[int] | None]:
        """(image of a slice, its frame from 1 in a list where it has frames)."""
        name, frame = self.slices[slice_]
        image = self.files[name]
        return image, [frame + 1] if "NumberOfFrames" in image else None


def write_report(
    result: Result, path: Path, *, reader: ReadingPerson | None = None, others: Sequence[Path] = ()
) -> None:
    """Write the findings of a result on the image's own grid as those of its patient and study.

    reader: who has verified it; others: objects that it goes back to, and does not name
    Structures refer to segments of the result's SEG. The images of the earlier study are a group of the library.
    Along the slices a box is rounded to whole ones, at least one. An empty report states "not detected". Numbers that
    are not finite are left out, and named.
    Raises FormatError for a source that is no DICOM, that cannot bear a report, or a clip with findings in more than
    `MOST_FRAMES` frames.
    """
    where = str(path)
    findings, source, earlier = result.findings, result.source, result.earlier
    slices = _slices(source, findings, where)
    frames = {one.frame for one in findings}
    if len(frames) > MOST_FRAMES:
        problem = f"{len(frames)} frames have findings, and a report describes at most {MOST_FRAMES}"
        raise FormatError(problem, where, "Use findings.json and predictions.csv")
    limits, classes = [*result.limits, *_left_out(findings)], result.classes
    sought = [f"looked for: {', '.join(classes)}"] if classes else []
    sought += [f"least score: {100 * result.least_score:.3g} %"] if result.least_score else []

    def groups(images: _Images) -> Iterator[Group]:
        """The content of the report."""
        release = version("hilum")
        looked = sr.AlgorithmIdentification(result.algorithm, release, [*sought, *limits] or None)
        plain = sr.AlgorithmIdentification(result.algorithm, release, list(limits) or None)
        placed = _Groups(images, source, _segments(result.segmentations), looked, plain, earlier)
        if result.is_empty:
            yield _nothing(classes, looked)
        yield from placed.group_findings(findings)

    names = [*classes, *limits, *_names_in(findings)]
    marks_only = all(one.box is not None for one in findings)
    _write(
        groups,
        slices,
        path,
        names,
        device=result.algorithm,
        description="Detection" if marks_only else "Findings",
        segmentations=[*result.segmentations, *others],
        earlier=earlier,
        reader=reader,
    )


def write_no_answer(reason: str, images: Sequence[Path], path: Path, *, algorithm_name: str) -> None:
    """Write that a model gave no answer on some images, and why, as a report of their patient and study.

    Raises FormatError for images that cannot bear a report.
    """

    def groups(_: _Images) -> Iterator[Group]:
        algorithm = sr.AlgorithmIdentification(algorithm_name, version("hilum"))
        group = sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(uid=highdicom.UID(), identifier="no answer"),
            finding_type=_concept_of(codes.SCT.Undetermined),
            algorithm_id=algorithm,
        )
        group[0].ContentSequence.append(
            sr.TextContentItem(COMMENT, f"no answer: {reason}", relationship_type=sr.RelationshipTypeValues.CONTAINS)
        )
        yield group

    slices = {n: (str(one), 0) for n, one in enumerate(images)}
    _write(groups, slices, path, [reason], device=algorithm_name, description="No answer")


def _write(
    groups: Callable[[_Images], Iterator[Group]],
    slices: Mapping[int, tuple[str, int]],
    path: Path,
    names: Iterable[str],
    *,
    device: str,
    description: str,
    segmentations: Sequence[Path] = (),
    earlier: EarlierObjects | None = None,
    reader: ReadingPerson | None = None,
) -> None:
    """A report of groups on images. groups: makes them of `_Images`; names: that the report adds"""
    try:
        with (
            library_warnings.collect_warnings()
        ):  # highdicom warns about unusual names, and prints the patient's with the warning
            heads = {
                name: header_reading.read_header(Path(name))
                for name in dict.fromkeys(name for name, _ in slices.values())
            }
            files = {name: _reference(head) for name, head in heads.items()}
            first, content = next(iter(heads)), list(groups(_Images(files, slices)))
            prior = {str(one): header_reading.read_header(one) for one in (() if earlier is None else earlier.images)}
            also = [*segmentations, *([earlier.report] if earlier is not None and earlier.report is not None else [])]
            if not content:
                raise FormatError("nothing of the result can stand in a report", str(path), "Use predictions.csv")
            # highdicom copies what it is given twice: the groups after the first follow where it is done.
            report = _report(
                content[:1],
                [
                    source_planes.complete_for_highdicom(heads[first].library),
                    *files.values(),
                    *map(_reference, prior.values()),
                    *(_reference(header_reading.read_header(p)) for p in also),
                ],
                f"{device}\0{version('hilum')}",
                description,
                reader,
            )
            *context, measured = report.ContentSequence
            measured.ContentSequence = Items(one for group in content for one in group)
            library = [(heads[first], files)]
            library += [(next(iter(prior.values())), {n: _reference(one) for n, one in prior.items()})] if prior else []
            report.ContentSequence = Items([*context, _image_library(library), measured])
            source_planes.repeat_elements(report, Path(first), names)
    except (ValueError, TypeError, AttributeError, KeyError, StopIteration) as error:
        # What highdicom raises at a deficient source.
        problem = f"no report can be written on this source ({new_object.deficiency(error)})"
        raise FormatError(problem, str(path), "Use predictions.csv, or repair the source's header") from error
    with library_warnings.collect_warnings(), atomic.write_whole(Path(path)) as partial:
        report.save_as(partial)


def _slices(source: Image, findings: Sequence[Finding], where: str) -> dict[int, tuple[str, int]]:
    """{slice, or frame of a clip: (file, frame from 0)}; a picture is one slice."""
    if source.source is None or not source.source.is_dicom or source.source.header is None:
        raise FormatError("a DICOM report needs the DICOM image that it belongs to", where, "Use predictions.csv")
    is_of_frames = source.geometry.is_picture and all(one.frame is not None for one in findings)
    if source.frames is not None and not is_of_frames:
        what = "a series of several volumes" if source.geometry.is_volume else "an image with frames"
        raise FormatError(f"a report on {what}", where, "Use findings.json and predictions.csv")
    slices = dict(enumerate(source.source.header["slices"]))
    marked = any(one.box is not None for one in findings)
    if marked and any(one is not None and one[2] is not None for one in slices.values()):
        raise FormatError("a mosaic has no slices that a report can name", where, "Use predictions.csv")
    return {n: (one[0], one[1]) for n, one in slices.items() if one is not None}


def _reference(head: Header) -> Dataset:
    """The elements of an image by which a report names it: hundreds of whole headers would take seconds."""
    evidence = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(evidence, keyword, tags.text(head.dataset, keyword))
    if "NumberOfFrames" in head.dataset:
        evidence.NumberOfFrames = tags.whole_number(head.dataset, "NumberOfFrames", head.where)
    return evidence


def _image_library(studies: Sequence[tuple[Header, Mapping[str, Dataset]]]) -> Dataset:
    """The images of the report, study by study, with what all of them share. PS3.16 TID 1600 and 1602"""
    groups = [
        _container(codes.DCM.ImageLibraryGroup, [*_descriptors(first), *map(_entry, files.values())])
        for first, files in studies
    ]
    return _container(codes.DCM.ImageLibrary, groups)


def _descriptors(first: Header) -> Iterator[Dataset]:
    """Modality, frame of reference, size and spacing, as far as they are stated."""
    acquired = sr.RelationshipTypeValues.HAS_ACQ_CONTEXT
    modality, frame = tags.text(first.dataset, "Modality"), tags.text(first.dataset, "FrameOfReferenceUID")
    concept = next((one for one in codes.cid29.concepts.values() if one.value == modality), None)
    if concept is not None:
        yield sr.CodeContentItem(codes.DCM.Modality, _concept_of(concept), acquired)
    if frame:
        yield sr.UIDRefContentItem(codes.DCM.FrameOfReferenceUID, frame, acquired)
    pixels = sr.CodedConcept("{pixels}", "UCUM", "Pixels")
    for name, keyword in ((codes.DCM.PixelDataRows, "Rows"), (codes.DCM.PixelDataColumns, "Columns")):
        if (size := tags.lenient_number(first.dataset, keyword)) is not None:
            yield sr.NumContentItem(name, size, pixels, relationship_type=acquired)


def _entry(image: Dataset) -> Dataset:
    """One image of the library: a plain data set, as items of highdicom's would take a millisecond each."""
    named, content = Dataset(), Dataset()
    named.ReferencedSOPClassUID, named.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    content.RelationshipType, content.ValueType = "CONTAINS", "IMAGE"
    content.ConceptNameCodeSequence = [SOURCE]
    content.ReferencedSOPSequence = [named]
    return content


def _container(name: SRCode, content: Sequence[Dataset]) -> Dataset:
    container = Dataset()
    container.RelationshipType, container.ValueType, container.ContinuityOfContent = "CONTAINS", "CONTAINER", "SEPARATE"
    container.ConceptNameCodeSequence = [_concept_of(name)]
    container.ContentSequence = Items(content)
    return container


def _report(
    groups: Sequence[Group], evidence: list[Dataset], device: str, description: str, reader: ReadingPerson | None
) -> sr.Comprehensive3DSR:
    # The UID names the device and not the report (PS3.16 TID 1004): each version of a model keeps its own.
    uid = highdicom.UID(Stamp("2.25", device, 0.0).uid("device"))
    observer = sr.DeviceObserverIdentifyingAttributes(
        uid=uid, name="Hilum", manufacturer_name="Hilum", model_name="Hilum"
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_person_context=None if reader is None else _person(reader),
            observer_device_context=sr.ObserverContext(codes.DCM.Device, observer),
        ),
        procedure_reported=PROCEDURE,
        imaging_measurements=list(groups),
    )
    return sr.Comprehensive3DSR(
        evidence=evidence,
        content=content,
        series_instance_uid=highdicom.UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="Hilum",
        manufacturer_model_name="Hilum",
        software_versions=version("hilum"),
        device_serial_number="0",
        is_complete=True,
        is_final=reader is not None,
        is_verified=reader is not None,
        verifying_observer_name=None if reader is None else reader.person_name,
        verifying_organization=None if reader is None else reader.organisation,
        series_description=description,
    )


def _person(reader: ReadingPerson) -> sr.ObserverContext:
    named = sr.PersonObserverIdentifyingAttributes(
        reader.person_name, login_name=reader.name, organization_name=reader.organisation
    )
    return sr.ObserverContext(codes.DCM.Person, named)


def _nothing(classes: Sequence[str], algorithm: sr.AlgorithmIdentification) -> sr.MeasurementsAndQualitativeEvaluations:
    """The finding of a report that marks nothing. TID 1501

    Its name states the classes: of anything else the report says nothing.
    """
    name = f"not detected: {', '.join(classes)}" if classes else "not detected"
    tracking = sr.TrackingIdentifier(uid=highdicom.UID(), identifier=name)
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking, finding_type=NOT_DETECTED, algorithm_id=algorithm
    )


@dataclass(frozen=True)
class _Groups:
    """Findings as groups of a report.

    segments: {(value, name) of a label: its segment}
    looked, plain: the algorithm of what was looked for in the image, and of findings without a place
    earlier: the study since which change is stated
    """

    images: _Images
    source: Image
    segments: Mapping[tuple[int, str], _Segment]
    looked: sr.AlgorithmIdentification
    plain: sr.AlgorithmIdentification
    earlier: EarlierObjects | None = None

    def group_findings(self, findings: Sequence[Finding]) -> Iterator[Group]:
        """One group for each answer, in their order."""
        for rows in _answers(findings):
            frame = rows[0].frame
            if rows[0].box is not None:
                yield self._box(rows[0], frame)
            elif rows[0].label is not None:
                yield self._structure(rows, frame)
            elif (group := self._statement(rows, frame)) is not None:
                yield group

    def _box(self, finding: Finding, frame: int | None) -> Group:
        """A planar region, or the regions of a volume."""
        (x0, y0), (x1, y1), through = source_planes.box_in_slices(
            np.asarray(finding.value, dtype=np.float64), self.source.geometry
        )
        numbers = [n for n in (through if frame is None else [frame]) if n in self.images.slices]
        if not numbers:
            raise ValueError("a box on slices that were filled in")
        regions = [_rectangle(np.array([x0, y0, x1, y1]), *self.images.image_of_slice(n)) for n in numbers]
        described: dict[str, Any] = {
            "tracking_identifier": _tracking(f"finding {finding.box + 1}" if finding.box is not None else "", frame),
            "finding_type": _concept(finding),
            "algorithm_id": self.looked,
            "measurements": [sr.Measurement(*_chance(finding))] if _is_number(finding.probability) else None,
        }
        if len(regions) == 1:
            return sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=regions[0], **described)
        return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_regions=regions, **described)

    def _structure(self, findings: Sequence[Finding], frame: int | None) -> Group:
        """Size and measurements of a structure at its segment, TID 1411; without a segment a statement of its own."""
        first = findings[0]
        name = (first.group or first.concept).rpartition(": ")[2]  # in front of which stands the part of the task
        of_structure = first.concept == name  # else its size is not stated, and all are measurements
        size = SIZES.get(first.unit) if of_structure else None
        measured = [_with_interval(one, size if size and one is first else _concept(one)) for one in findings]
        measured += [sr.Measurement(*_chance(one)) for one in findings if _is_number(one.probability)]
        named = first if first.kind is None else replace(first, concept=first.kind)
        kind = _concept(named) if of_structure else own_concept(name)
        described: dict[str, Any] = {
            "tracking_identifier": _tracking(name, frame),
            "algorithm_id": self.looked,
            "measurements": [one for one in measured if one is not None] or None,
        }
        if self.earlier is not None and any(one.concept == CHANGE for one in findings):
            described["time_point_context"] = _time_since(self.earlier)
            _infer_from(
                self.earlier, [one for one, made in zip(measured, findings, strict=False) if made.concept == CHANGE]
            )
        segment = None if first.label is None else self.segments.get((first.label, name))
        if not _is_marked(first):
            absent = sr.QualitativeEvaluation(kind, _concept_of(codes.SCT.Absent))
            return self._group_without_place(frame, qualitative_evaluations=[absent], **described)
        if segment is None:
            return self._group_without_place(frame, finding_type=kind, **described)
        # Of a picture too: a reference by frame and segment, as TID 1410 has it here, is not valid. PS3.3 C.17.3.5
        series = sr.SourceSeriesForSegmentation(next(iter(self.images.files.values())).SeriesInstanceUID)
        referred = sr.ReferencedSegment(segment.sop_class, segment.instance, segment.number, source_series=series)
        return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=referred, finding_type=kind, **described
        )

    def _statement(self, findings: Sequence[Finding], frame: int | None) -> Group | None:
        """Findings of one answer without a place, TID 1501; None where nothing of them can be stated."""
        first, evaluations, measurements = findings[0], list[sr.QualitativeEvaluation](), list[sr.Measurement]()
        concepts = {finding.concept: _concept(finding) for finding in findings}
        for finding in findings:
            evaluations += [sr.QualitativeEvaluation(name, value) for name, value in _evaluations(finding, concepts)]
            if _is_number(finding.probability):
                measurements.append(sr.Measurement(*_chance(finding, is_only=len(findings) == 1)))
            if (measured := _with_interval(finding, concepts[finding.concept])) is not None:
                measurements.append(measured)
            measurements += _bounds(finding)
        if not (evaluations or measurements):
            return None
        return self._group_without_place(
            frame,
            tracking_identifier=_tracking(first.group or first.concept, frame),
            algorithm_id=self.plain,
            measurements=measurements or None,
            qualitative_evaluations=evaluations or None,
        )

    def _group_without_place(self, frame: int | None, **described: Any) -> sr.MeasurementsAndQualitativeEvaluations:
        """A group of the whole image, or of a frame of it."""
        if frame is not None:
            image, number = self.images.image_of_slice(frame)
            named = sr.SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID, number)
            described["source_images"] = [named]
        return sr.MeasurementsAndQualitativeEvaluations(**described)


def _time_since(earlier: EarlierObjects) -> sr.TimePointContext:
    """The time from the earlier study to this one, PS3.16 TID 1502, where it is known."""
    offset = None
    if earlier.days is not None:
        offset = sr.LongitudinalTemporalOffsetFromEvent(earlier.days, codes.UCUM.Day, codes.DCM.Baseline)
    return sr.TimePointContext("follow-up", temporal_offset_from_event=offset)


def _infer_from(earlier: EarlierObjects, measured: Sequence[sr.Measurement | None]) -> None:
    """Let measurements name the report on the earlier study, TID 300 row 13; the images are in the library."""
    if earlier.report is None:
        return
    named = _reference(header_reading.read_header(earlier.report))
    relation = sr.RelationshipTypeValues.INFERRED_FROM
    source = sr.CompositeContentItem(SOURCE_OF_MEASUREMENT, named.SOPClassUID, named.SOPInstanceUID, relation)
    for one in measured:
        if one is not None:
            content = one[0].get("ContentSequence") or []
            one[0].ContentSequence = Items([*content, source])


def _answers(findings: Sequence[Finding]) -> Iterable[list[Finding]]:
    """Findings of one answer together, in their order: a box, a structure, a group, or one that stands for itself."""
    answers: dict[tuple[object, ...], list[Finding]] = {}
    for number, finding in enumerate(findings):
        is_joined = finding.box is None and (bool(finding.group) or finding.label is not None)
        answers.setdefault((finding.frame, finding.group, finding.label) if is_joined else (number,), []).append(
            finding
        )
    return answers.values()


def _segments(segmentations: Mapping[Path, Sequence[Label]]) -> dict[tuple[int, str], _Segment]:
    """{(value, name) of a label: its segment}; labels become segments in the order of their values."""
    found: dict[tuple[int, str], _Segment] = {}
    for path, labels in segmentations.items():
        head = header_reading.read_header(path).dataset
        named = tags.text(head, "SOPClassUID"), tags.text(head, "SOPInstanceUID")
        numbers = [tags.whole_number(item, "SegmentNumber", str(path)) for item in tags.items(head, "SegmentSequence")]
        ordered = sorted((label for label in labels if label.value), key=lambda label: label.value)
        for label, number in zip(ordered, [number for number in numbers if number], strict=True):
            found.setdefault((label.value, label.name), _Segment(*named, number))
    return found


def _is_marked(finding: Finding) -> bool:
    """Whether it lies somewhere in the image: a box, or a structure of some size."""
    return finding.box is not None or (finding.label is not None and bool(finding.value))


def _left_out(findings: Sequence[Finding]) -> list[str]:
    """A sentence that names findings with numbers that are not finite."""
    odd = [one for one in findings if any(map(_is_odd, (one.value, one.probability, one.low, one.high)))]
    names = ", ".join(dict.fromkeys(one.concept for one in odd))
    return [f"left out, because they are no finite numbers: {names}"] if odd else []


def _is_odd(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _tracking(identifier: str, frame: int | None) -> sr.TrackingIdentifier:
    named = identifier if frame is None else f"frame {frame + 1}: {identifier}"
    return sr.TrackingIdentifier(uid=highdicom.UID(), identifier=named)


def _rectangle(edges: Floats, image: Dataset, frames: list[int] | None) -> sr.ImageRegion:
    """PS3.3 C.18.6: pixels are counted from the corner of the first one, as edges of boxes are."""
    x0, y0, x1, y1 = edges
    named = sr.SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID, frames)
    points = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], dtype=np.float64)
    return sr.ImageRegion(sr.GraphicTypeValues.POLYLINE, points, named)


def _names_in(findings: Sequence[Finding]) -> list[str]:
    """All texts that the groups of findings take from them."""
    return [
        text for one in findings for text in (one.concept, one.group, one.unit, one.kind or "", *(one.possible or ()))
    ]


def _evaluations(finding: Finding, classes: Mapping[str, Concept]) -> Iterator[tuple[Concept, Concept]]:
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


def _chance(finding: Finding, *, is_only: bool = True) -> tuple[Concept, float, Concept]:
    """(name, value, unit) of its probability. is_only: in its group, so that its name is a coded one"""
    name = PROBABILITY if finding.calibrated else CERTAINTY
    name = name if is_only else own_concept(f"Probability of {finding.concept}")
    return name, _round(100 * (finding.probability or 0.0)), codes.UCUM.Percent


def _with_interval(finding: Finding, name: Concept) -> sr.Measurement | None:
    """Its number, with how far the ends of its interval lie from it, TID 310; None where it has none."""
    if not _is_number(finding.value):
        return None
    unit = _unit(finding.unit)
    ends = {BELOW: finding.low, ABOVE: finding.high}
    properties = sr.MeasurementProperties()
    for end, value in ends.items():
        if _is_number(value):
            away = _round(abs(value - finding.value))
            relation = sr.RelationshipTypeValues.HAS_PROPERTIES
            properties.append(sr.NumContentItem(end, away, unit, relationship_type=relation))
    return sr.Measurement(name, _round(finding.value), unit, properties=properties if len(properties) else None)


def _bounds(finding: Finding) -> Iterator[sr.Measurement]:
    """The ends of the interval of a finding without a number, at which they would stand."""
    for words, end in (("Lower bound of", finding.low), ("Upper bound of", finding.high)):
        if finding.value is None and _is_number(end):
            yield sr.Measurement(own_concept(f"{words} {finding.concept}"), _round(end), _unit(finding.unit))


def _is_number(value: Any) -> TypeGuard[float]:
    """Whether a value can stand in a report as a number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _unit(unit: str) -> Concept:
    if unit == "1":
        return cast("Concept", codes.UCUM.NoUnits)
    if unit in UCUM:
        return sr.CodedConcept(UCUM[unit], "UCUM", unit)
    return own_concept(unit or UNKNOWN_UNIT)


def own_concept(name: str) -> sr.CodedConcept:
    """A coded concept of our own scheme: the same code for the same name."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:12].upper()
    return sr.CodedConcept(digest, OWN_SCHEME, name[:LONGEST_MEANING])


def _concept(finding: Finding) -> sr.CodedConcept:
    code = finding.code
    if code is None:
        return own_concept(finding.concept)
    return sr.CodedConcept(code.value, code.scheme, code.meaning[:LONGEST_MEANING])


def _concept_of(code: SRCode) -> sr.CodedConcept:
    return sr.CodedConcept(code.value, code.scheme_designator, code.meaning)
