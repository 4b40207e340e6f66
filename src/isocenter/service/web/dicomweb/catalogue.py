"""The catalogue of what can be found and fetched: objects that came in, and DICOM objects that jobs made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Row, select, true, tuple_

from isocenter.errors import FormatError
from isocenter.files.dicom import read_header, read_identity
from isocenter.service.objects.store import key_of
from isocenter.service.reading.blind import own_series
from isocenter.service.records.actor import Actor
from isocenter.service.records.tables import answers, corrections, instances, jobs, series, studies
from isocenter.service.web.blind import hidden_studies
from isocenter.service.web.dicomweb.dicom_json import DicomJson, elements, header_elements
from isocenter.service.web.web_node import WebNode

HAVE_ANSWERS = ("sending", "done")
STUDIES_AT_ONCE = 500
_identity = lru_cache(maxsize=10_000)(read_identity)  # of answers, which never change


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
        known = {
            "SOPClassUID": self.sop_class,
            "SOPInstanceUID": self.instance,
            "StudyInstanceUID": self.study,
            "SeriesInstanceUID": self.series,
        }
        try:
            return header_elements(read_header(self.path)) | elements(known)
        except (FormatError, FileNotFoundError):
            return elements(known)


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
            hidden = own_series(connection, self.row.study)
        return [one for one in every if one.series not in hidden]

    @cached_property
    def answers(self) -> list[StoredObject]:
        """Objects that jobs or people made and nobody has sent back, by UID.

        A damaged file is none, and hides no other.
        """
        if self.is_blind:
            return []
        made = select(jobs.c.job).where(jobs.c.study == self.row.study, jobs.c.state.in_(HAVE_ANSWERS))
        gone = select(jobs.c.job).where(jobs.c.study == self.row.study, jobs.c.state.not_in(HAVE_ANSWERS))
        mine = (corrections.c.study == self.row.study, corrections.c.judged.not_in(gone))
        corrected = select(corrections.c.correction).where(*mine)
        of_this = (answers.c.job.in_(made.union(corrected)), answers.c.sop_instance_uid.is_not(None))
        with self.node.database.read() as connection:
            rows = connection.execute(select(answers).where(*of_this).order_by(answers.c.sop_instance_uid))
            paths = [self.node.folder / "results" / row.job / row.name for row in rows]
            found = [one for path in paths if (one := _object(path)) is not None]
            mine = (
                instances.c.study == self.row.study,
                instances.c.instance.in_([key_of(one.instance) for one in found]),
            )
            came = set(connection.execute(select(instances.c.uid).where(*mine)).scalars())
        return [one for one in found if one.instance not in came]

    def objects(self, of_series: str | None = None, instance: str | None = None) -> Iterator[StoredObject]:
        """Its objects, or those of a series, or one; what came in goes before what was made."""
        conditions = [instances.c.study == self.row.study]
        if of_series is not None:
            conditions.append(instances.c.series == key_of(of_series))
        if instance is not None:
            conditions.append(instances.c.instance == key_of(instance))
        if self.is_blind:
            made = select(answers.c.sop_instance_uid).where(answers.c.sop_instance_uid.is_not(None))
            conditions.append(instances.c.uid.not_in(made))
        both = instances.join(series, (instances.c.study == series.c.study) & (instances.c.series == series.c.series))
        wanted = select(instances, series.c.uid.label("series_uid")).select_from(both).where(*conditions)
        with self.node.database.read() as connection:
            rows = connection.execute(wanted.order_by(series.c.uid, instances.c.uid)).all()
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
        return elements(self.row.attributes) if self.row.attributes else self._first(None)

    def series_elements(self) -> Iterator[tuple[str, DicomJson, int]]:
        """(SeriesInstanceUID, elements, number of objects) of each series, those of answers last."""
        counts: dict[str, list[StoredObject]] = {}
        for answer in self.answers:
            counts.setdefault(answer.series, []).append(answer)
        for row in self.series:
            stated = elements(row.attributes) if row.attributes else self._first(row.uid)
            yield row.uid, stated, row.instances + len(counts.pop(row.uid, []))
        for uid, made in counts.items():
            yield uid, made[0].elements, len(made)

    def _first(self, of_series: str | None) -> DicomJson:
        return next((one.elements for one in self.objects(of_series)), {})


def stored_studies(node: WebNode, who: Actor, uids: Sequence[str] | None = None) -> Iterator[StoredStudy]:
    """The studies of the node, newest first, as whoever asks may see them; uids: only these."""
    hidden = hidden_studies(node, who, key_of(uids[0]) if uids is not None and len(uids) == 1 else None)
    order = (studies.c.received_at, studies.c.study)
    conditions: list[ColumnElement[bool]] = [
        true() if uids is None else studies.c.study.in_([key_of(uid) for uid in uids])
    ]
    wanted = select(studies).order_by(*(column.desc() for column in order)).limit(STUDIES_AT_ONCE)
    while True:
        with node.database.read() as connection:  # given back before anything is made of the rows
            rows = connection.execute(wanted.where(*conditions)).all()
        yield from (StoredStudy(node, row, row.study in hidden) for row in rows)
        if len(rows) < STUDIES_AT_ONCE:
            return
        conditions = [*conditions[:1], tuple_(*order) < (rows[-1].received_at, rows[-1].study)]


def _object(path: Path) -> StoredObject | None:
    try:
        identity = _identity(path)
    except (FormatError, FileNotFoundError):
        return None
    return StoredObject(identity.study, identity.series, identity.instance, identity.sop_class, identity.syntax, path)
