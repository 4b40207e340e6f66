"""QIDO-RS: studies, series and instances by their attributes (PS3.18 10.6), and the catalogue of what can be found.

The catalogue has objects that came in, and DICOM objects that jobs made of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi import Query as QueryParameter
from fastapi.responses import JSONResponse, Response
from sqlalchemy import ColumnElement, Row, and_, or_, select, true, tuple_

from hilum.errors import FormatError
from hilum.files.dicom import header_reading, object_identity
from hilum.service.objects import dicom_json, object_store
from hilum.service.objects.dicom_json import BULK, IN_JSON, MEDIA, Conditions, DicomJson
from hilum.service.reading import blind_reading
from hilum.service.records import searching
from hilum.service.records.actor import Actor
from hilum.service.records.tables import ANSWERS, CORRECTIONS, INSTANCES, JOBS, SERIES_ROWS, STUDIES
from hilum.service.web import access, web_node, worklist_routes
from hilum.service.web.access import ROLES, Who
from hilum.service.web.response_shapes import Problem
from hilum.service.web.web_node import Node, Uid, WebNode
from hilum.values import grouping

router = APIRouter(
    prefix="/dicomweb",
    tags=["DICOMweb"],
    dependencies=[access.require_roles(ROLES), Depends(web_node.wait_for_rows)],
    default_response_class=Response,
    responses={200: IN_JSON, 204: {"description": "Nothing fits"}, 400: {"model": Problem}},
)
MOST = 1000  # rows of one answer
# Of those that are not done a warning says so where they are asked for: PS3.18 8.3.4.2, 8.3.4.5 and 8.3.4.6.
UNDONE = {
    "fuzzymatching": "fuzzymatching is not supported, and names were matched as they are written",
    "emptyvaluematching": "the emptyvaluematching parameter is not supported, and was not performed",
    "multiplevaluematching": "the multiplevaluematching parameter is not supported, and was not performed",
}
OPTIONS = ("limit", "offset", "includefield", *UNDONE)


def _tags(keywords: str) -> frozenset[str]:
    return frozenset(str(dicom_json.tag_digits(keyword)) for keyword in keywords.split())


# What answers have of each level, PS3.18 10.6.3.3, and other attributes of a study or a series as a whole.
STUDY = _tags(
    "StudyDate StudyTime AccessionNumber ModalitiesInStudy ReferringPhysicianName TimezoneOffsetFromUTC PatientName "
    "PatientID PatientBirthDate PatientSex StudyInstanceUID StudyID StudyDescription NumberOfStudyRelatedSeries "
    "NumberOfStudyRelatedInstances IssuerOfPatientID PatientAge"
)
# Of a study's first object these hold for all of it: what is stated of the patient (group 0010), or of the study.
OF_STUDY = STUDY | _tags(
    "PhysiciansOfRecord NameOfPhysiciansReadingStudy AdmittingDiagnosesDescription ClinicalTrialSponsorName "
    "ClinicalTrialProtocolID ClinicalTrialProtocolName ClinicalTrialSiteID ClinicalTrialSiteName "
    "ClinicalTrialSubjectID ClinicalTrialTimePointID"
)
PATIENT = "0010"
SERIES = _tags(
    "Modality SeriesDescription SeriesInstanceUID SeriesNumber NumberOfSeriesRelatedInstances BodyPartExamined "
    "PerformedProcedureStepStartDate PerformedProcedureStepStartTime Laterality ProtocolName Manufacturer "
    "SeriesDate SeriesTime RequestAttributesSequence"
)
INSTANCE = _tags("SOPClassUID SOPInstanceUID InstanceNumber Rows Columns BitsAllocated NumberOfFrames")


@dataclass(frozen=True)
class Query:
    """Conditions of a search: {tag: what its value has to be}, further tags to answer, and which rows.

    wanted:   of a sequence {tag: {tag: text}}
    undone:   what is asked for and left undone, in words of a warning
    who:      asks
    """

    wanted: Conditions
    include: frozenset[str]
    everything: bool
    limit: int
    offset: int
    undone: Sequence[str]
    who: Actor

    def fits(self, elements: DicomJson, level: frozenset[str] | None) -> bool:
        """Whether the elements of a level are as asked; level: its tags, None for those of no other level."""
        mine = {tag for tag in self.wanted if (tag in level if level is not None else tag not in STUDY | SERIES)}
        return dicom_json.elements_match(elements, {tag: self.wanted[tag] for tag in mine})

    def text(self, tag: str) -> str:
        """The text that an attribute has to be; empty where none is asked for, or items of a sequence are."""
        wanted = self.wanted.get(tag, "")
        return wanted if isinstance(wanted, str) else ""

    def answer(self, elements: DicomJson, *levels: frozenset[str]) -> DicomJson:
        """The elements that the answer has, in the order of their tags."""
        tags = frozenset().union(*levels) | self.include | _tags("RetrieveURL")
        shown = {tag: value for tag, value in elements.items() if tag in tags or self.everything}
        return dict(sorted((tag, value) for tag, value in shown.items() if value["vr"] not in BULK))


def _query(
    request: Request,
    node: Node,
    who: Who,
    limit: Annotated[int, QueryParameter(ge=0)] = MOST,
    offset: Annotated[int, QueryParameter(ge=0, le=10**9)] = 0,
    includefield: Annotated[Sequence[str], QueryParameter()] = (),
) -> Query:
    """The query of a URL, whose further parameters are attributes; what else it has is ignored, PS3.18 8.3.

    Raises WebError for an attribute that is asked for twice.

    The audit gets the attributes that were asked for, and never their values, which may name a patient.
    """
    path = {
        str(dicom_json.tag_digits(f"{name.capitalize()}InstanceUID")): uid for name, uid in request.path_params.items()
    }
    asked, unknown = web_node.query_conditions(request, OPTIONS)
    fields = [field.strip() for value in includefield for field in value.split(",")]
    # Of what lies in a sequence the whole is given, as the standard has no other answer.
    tags = {field: dicom_json.tag_digits(field.partition(".")[0]) for field in fields if field != "all"}
    include = {tag for tag in tags.values() if tag is not None}
    unknown += [f"includefield {field}" for field, tag in tags.items() if tag is None]
    attributes: Conditions = {**asked, **path}
    named = request.path_params.get("study")
    key, detail = object_store.uid_key(named) if named else None, {"attributes": sorted(attributes)}
    node.record("query", request.scope["route"].path, who, study=key, detail=detail)
    undone = [words for name, words in UNDONE.items() if request.query_params.get(name, "").lower() == "true"]
    undone += web_node.ignored_words(unknown)
    return Query(
        attributes, frozenset(include | set(attributes)), "all" in fields, min(limit, MOST), offset, undone, who
    )


Asked = Annotated[Query, Depends(_query)]


@router.get("/studies")
def search_studies(request: Request, node: Node, query: Asked) -> Response:
    """Studies, newest first."""
    sought = _sought(node, query, STUDY)
    skipped = query.offset if sought.is_settled else 0
    found = (answer for _, answer in _studies(node, query, web_node.dicomweb_url(request), sought, skipped))
    return _answer(replace(query, offset=query.offset - skipped), found, STUDY)


@router.get("/series")
def search_all_series(request: Request, node: Node, query: Asked) -> Response:
    """Series of all studies."""
    return _answer(
        query, (found for _, _, found in _series(node, query, web_node.dicomweb_url(request))), STUDY | SERIES
    )


@router.get("/studies/{study}/series")
def search_series(request: Request, node: Node, study: Uid, query: Asked) -> Response:
    """Series of a study."""
    return _answer(
        query, (found for _, _, found in _series(node, query, web_node.dicomweb_url(request))), STUDY | SERIES
    )


@router.get("/instances")
def search_all_instances(request: Request, node: Node, query: Asked) -> Response:
    """Instances of all studies."""
    return _answer(query, _instances(node, query, web_node.dicomweb_url(request)))


@router.get("/studies/{study}/instances")
def search_instances(request: Request, node: Node, study: Uid, query: Asked) -> Response:
    """Instances of a study."""
    return _answer(query, _instances(node, query, web_node.dicomweb_url(request)))


@router.get("/studies/{study}/series/{series}/instances")
def search_instances_of_series(request: Request, node: Node, study: Uid, series: Uid, query: Asked) -> Response:
    """Instances of a series."""
    return _answer(query, _instances(node, query, web_node.dicomweb_url(request)))


COUNTED = _tags("ModalitiesInStudy NumberOfStudyRelatedSeries NumberOfStudyRelatedInstances")
REQUESTS = str(dicom_json.tag_digits("RequestAttributesSequence"))
STUDY_UID, MODALITIES = str(dicom_json.tag_digits("StudyInstanceUID")), _tags("ModalitiesInStudy Modality")


@dataclass(frozen=True)
class SoughtStudies:
    """What the records are asked for: studies of these UIDs, None for any, that meet a condition.

    is_settled: whether every such study is as asked, so that none has to be looked at to be skipped
    """

    uids: Sequence[str] | None
    which: ColumnElement[bool]
    is_settled: bool


def _sought(node: WebNode, query: Query, level: frozenset[str]) -> SoughtStudies:
    """What a query means for the records. level: tags of what is searched, which are compared"""
    asked, is_postgresql = query.text(STUDY_UID), node.database.skips_locked
    uids = re.split(r"[,\\]", asked) if asked.strip("*") else None
    wanted = {
        tag: query.text(tag) for tag in query.wanted if tag in level and query.text(tag).strip("*") and tag != STUDY_UID
    }
    made = {
        tag: searching.modality_condition(wanted[tag], is_postgresql=is_postgresql)
        for tag in MODALITIES & wanted.keys()
    }
    made |= {
        tag: searching.study_condition(dicom_json.keyword_of(tag), value, is_postgresql=is_postgresql)
        for tag, value in wanted.items()
        if tag in STUDY - MODALITIES
    }
    conditions = [one for one in made.values() if one is not None]
    is_settled = MODALITIES.isdisjoint(wanted) and all(made.get(tag) is not None for tag in wanted)
    if not conditions:
        return SoughtStudies(uids, true(), is_settled)
    others = stored_studies(node, query.who, uids, STUDIES.c.is_searchable.is_(False))
    fitting = [one.row.study for one in others if query.fits(_own_elements(one), STUDY - COUNTED)]
    known = and_(STUDIES.c.is_searchable.is_(True), *conditions)
    return SoughtStudies(uids, or_(known, STUDIES.c.study.in_(fitting)) if fitting else known, is_settled)


def _own_elements(study: StoredStudy) -> DicomJson:
    """Elements of a study as a whole, without what has to be counted."""
    elements = {tag: one for tag, one in study.elements.items() if tag in OF_STUDY or tag.startswith(PATIENT)}
    return elements | dicom_json.json_element("StudyInstanceUID", [study.uid])


def _studies(
    node: WebNode, query: Query, base: str, sought: SoughtStudies, skip: int = 0
) -> Iterator[tuple[StoredStudy, DicomJson]]:
    """Studies that fit; what has to be counted is counted only where the rest fits."""
    for study in stored_studies(node, query.who, sought.uids, sought.which, skip):
        elements = _own_elements(study)
        if not query.fits(elements, STUDY - COUNTED):
            continue
        series = list(study.series_elements())
        modalities = {value for _, one, _ in series for value in one.get("00080060", {}).get("Value", [])}
        elements |= dicom_json.json_element("ModalitiesInStudy", sorted(modalities))
        elements |= dicom_json.json_element("NumberOfStudyRelatedSeries", [len(series)])
        elements |= dicom_json.json_element("NumberOfStudyRelatedInstances", [sum(count for _, _, count in series)])
        elements |= dicom_json.json_element("RetrieveURL", [f"{base}/studies/{study.uid}"])
        if query.fits(elements, COUNTED):
            yield study, query.answer(elements, STUDY)


def _series(node: WebNode, query: Query, base: str) -> Iterator[tuple[StoredStudy, str, DicomJson]]:
    for study, of_study in _studies(node, query, base, _sought(node, query, STUDY | SERIES)):
        for uid, attributes, count in study.series_elements():
            elements = _inherit(of_study, STUDY) | attributes | dicom_json.json_element("SeriesInstanceUID", [uid])
            elements |= dicom_json.json_element("NumberOfSeriesRelatedInstances", [count])
            if REQUESTS in query.wanted or REQUESTS in query.include:  # which records do not hold
                elements |= study.first_element(uid, REQUESTS)
            elements |= dicom_json.json_element("RetrieveURL", [f"{base}/studies/{study.uid}/series/{uid}"])
            if query.fits(elements, SERIES):
                yield study, uid, query.answer(elements, STUDY, SERIES)


def _instances(node: WebNode, query: Query, base: str) -> Iterator[DicomJson]:
    for study, uid, of_series in _series(node, query, base):
        for stored in study.objects(uid, _single(query.text(str(dicom_json.tag_digits("SOPInstanceUID"))))):
            inherited = _inherit(of_series, STUDY | SERIES)
            elements = (
                inherited | stored.elements | dicom_json.json_element("RetrieveURL", [f"{base}{object_path(stored)}"])
            )
            if query.fits(elements, None):
                yield query.answer(elements, STUDY, SERIES, INSTANCE)


def _inherit(elements: DicomJson, level: frozenset[str]) -> DicomJson:
    """Elements that hold for all below a level: what was asked for besides is that of the first object only."""
    return {tag: value for tag, value in elements.items() if tag in level}


def object_path(stored: StoredObject) -> str:
    """Path under which an object is fetched, below the service."""
    return f"/studies/{stored.study}/series/{stored.series}/instances/{stored.instance}"


def _single(uids: str | None) -> str | None:
    return uids if uids and not re.search(r"[,\\]", uids) else None


def _answer(query: Query, answers: Iterator[DicomJson], level: frozenset[str] | None = None) -> Response:
    """The rows of a page; level: tags that are matched, None for all. Warnings as in PS3.18 8.3.4."""
    rows = list(islice(answers, query.offset, query.offset + query.limit))
    is_cut = len(rows) == query.limit and next(answers, None) is not None
    ignored = sorted(set(query.wanted) - level) if level is not None else []
    warnings = ["there are more results, which can be asked for by offset"] if is_cut else []
    warnings += [f"these are not attributes of this level, and were ignored: {', '.join(ignored)}"] if ignored else []
    headers = web_node.warning_headers([*warnings, *query.undone])
    return JSONResponse(rows, 200, headers, MEDIA) if rows else Response(status_code=204, headers=headers)


HAVE_ANSWERS = ("sending", "done")
STUDIES_AT_ONCE = 500
_identity = lru_cache(maxsize=10_000)(object_identity.read_identity)  # of answers, which never change


@dataclass(frozen=True)
class StoredObject:
    """One object of the node, by its UIDs."""

    study: str
    series: str
    instance: str
    sop_class: str
    syntax: str
    path: Path

    @property
    def elements(self) -> DicomJson:
        """Its header; of a damaged file only what the records know."""
        facts = {
            "SOPClassUID": self.sop_class,
            "SOPInstanceUID": self.instance,
            "StudyInstanceUID": self.study,
            "SeriesInstanceUID": self.series,
        }
        try:
            return dicom_json.header_elements(header_reading.read_header(self.path)) | dicom_json.json_elements(facts)
        except (FormatError, FileNotFoundError):
            return dicom_json.json_elements(facts)


@dataclass(frozen=True, eq=False)
class StoredStudy:
    """A study of the records, and what can be said of it without its pixels.

    is_blind: whether its answers are hidden from whoever asks, also those that somebody has sent back
    """

    node: WebNode
    row: Row[Any]
    is_blind: bool = False

    @property
    def uid(self) -> str:
        """StudyInstanceUID."""
        return str(self.row.uid)

    @cached_property
    def series(self) -> Sequence[Row[Any]]:
        """The rows of its series."""
        every = self.node.index.series_of(self.row.study)
        if not self.is_blind:
            return every
        with self.node.database.read() as connection:
            hidden = blind_reading.own_series(connection, self.row.study)
        return [one for one in every if one.series not in hidden]

    @cached_property
    def answers(self) -> list[StoredObject]:
        """Objects that jobs or people made and nobody has sent back, by UID.

        A damaged file is none, and hides no other.
        """
        if self.is_blind:
            return []
        query = select(JOBS.c.job).where(JOBS.c.study == self.row.study, JOBS.c.state.in_(HAVE_ANSWERS))
        gone = select(JOBS.c.job).where(JOBS.c.study == self.row.study, JOBS.c.state.not_in(HAVE_ANSWERS))
        mine = and_(CORRECTIONS.c.study == self.row.study, CORRECTIONS.c.judged.not_in(gone))
        corrected = select(CORRECTIONS.c.correction).where(mine)
        of_this = and_(ANSWERS.c.job.in_(query.union(corrected)), ANSWERS.c.sop_instance_uid.is_not(None))
        with self.node.database.read() as connection:
            rows = connection.execute(select(ANSWERS).where(of_this).order_by(ANSWERS.c.sop_instance_uid))
            paths = [self.node.folder / "results" / row.job / row.name for row in rows]
            found = [one for path in paths if (one := _object(path)) is not None]
            mine = and_(
                INSTANCES.c.study == self.row.study,
                INSTANCES.c.instance.in_([object_store.uid_key(one.instance) for one in found]),
            )
            came = set(connection.execute(select(INSTANCES.c.uid).where(mine)).scalars())
        return [one for one in found if one.instance not in came]

    def objects(self, of_series: str | None = None, instance: str | None = None) -> Iterator[StoredObject]:
        """Its objects, or those of a series, or one; what came in goes before what was made."""
        conditions = [INSTANCES.c.study == self.row.study]
        if of_series is not None:
            conditions.append(INSTANCES.c.series == object_store.uid_key(of_series))
        if instance is not None:
            conditions.append(INSTANCES.c.instance == object_store.uid_key(instance))
        if self.is_blind:
            answers_made = select(ANSWERS.c.sop_instance_uid).where(ANSWERS.c.sop_instance_uid.is_not(None))
            conditions.append(INSTANCES.c.uid.not_in(answers_made))
        both = INSTANCES.join(
            SERIES_ROWS, (INSTANCES.c.study == SERIES_ROWS.c.study) & (INSTANCES.c.series == SERIES_ROWS.c.series)
        )
        query = select(INSTANCES, SERIES_ROWS.c.uid.label("series_uid")).select_from(both).where(*conditions)
        rows = self.node.database.rows(query.order_by(SERIES_ROWS.c.uid, INSTANCES.c.uid))
        for row in rows:
            yield StoredObject(
                self.uid, row.series_uid, row.uid, row.sop_class, row.syntax, self.node.folder / row.path
            )
        for answer in self.answers:
            if of_series in (None, answer.series) and instance in (None, answer.instance):
                yield answer

    @cached_property
    def elements(self) -> DicomJson:
        """Elements of the study; where it is not complete yet, as its first object has them."""
        return dicom_json.json_elements(self.row.attributes) if self.row.attributes else self._first(None)

    def series_elements(self) -> Iterator[tuple[str, DicomJson, int]]:
        """(SeriesInstanceUID, elements, number of objects) of each series, those of answers last."""
        counts = grouping.by_key((answer.series, answer) for answer in self.answers)
        for row in self.series:
            attributes = dicom_json.json_elements(row.attributes) if row.attributes else self._first(row.uid)
            yield row.uid, attributes, row.instances + len(counts.pop(row.uid, []))
        for uid, count in counts.items():
            yield uid, count[0].elements, len(count)

    def first_element(self, of_series: str, tag: str) -> DicomJson:
        """An element of the first object of a series; nothing where it has none."""
        return {name: one for name, one in self._first(of_series).items() if name == tag}

    def _first(self, of_series: str | None) -> DicomJson:
        return next((one.elements for one in self.objects(of_series)), {})


def stored_studies(
    node: WebNode,
    who: Actor,
    uids: Sequence[str] | None = None,
    which: ColumnElement[bool] | None = None,
    skip: int = 0,
) -> Iterator[StoredStudy]:
    """The studies of the node, newest first, as whoever asks may see them.

    uids: only these; which: only those that meet a condition; skip: so many are left out
    """
    hidden = worklist_routes.studies_with_hidden_answers(
        node, who, object_store.uid_key(uids[0]) if uids is not None and len(uids) == 1 else None
    )
    order = (STUDIES.c.received_at, STUDIES.c.study)
    # Of what retention has deleted whole nothing is found.
    conditions = [STUDIES.c.results_gone_at.is_(None), *([] if which is None else [which])]
    conditions += [] if uids is None else [STUDIES.c.study.in_([object_store.uid_key(uid) for uid in uids])]
    query = select(STUDIES).where(*conditions).order_by(*(column.desc() for column in order)).limit(STUDIES_AT_ONCE)
    page = query.offset(skip)
    while True:
        with node.database.read() as connection:  # given back before anything is made of the rows
            rows = connection.execute(page).all()
        yield from (StoredStudy(node, row, row.study in hidden) for row in rows)
        if len(rows) < STUDIES_AT_ONCE:
            return
        page = query.where(tuple_(*order) < (rows[-1].received_at, rows[-1].study))


def _object(path: Path) -> StoredObject | None:
    try:
        identity = _identity(path)
    except (FormatError, FileNotFoundError):
        return None
    return StoredObject(identity.study, identity.series, identity.instance, identity.sop_class, identity.syntax, path)
