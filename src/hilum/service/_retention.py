"""Retention: studies that are old, or more than the quota holds, go. Objects go first, results and identity later.

A study is marked as going, then its files go, then its rows, then it is gone: what a kill interrupts is done again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Row,
    and_,
    delete,
    exists,
    func,
    null,
    or_,
    select,
    update,
)

from hilum.service import node_folder
from hilum.service.configuration import NodeSettings
from hilum.service.objects import object_store
from hilum.service.records import audit_records, record_database, searching, study_index
from hilum.service.records.job_queue import GOING, OPEN
from hilum.service.records.record_database import Database, DatabaseClock
from hilum.service.records.tables import (
    ANSWERS,
    BLIND_READS,
    CORRECTIONS,
    DELIVERIES,
    DRAFTS,
    INCIDENTS,
    INSTANCES,
    JOBS,
    SERIES_ROWS,
    SHADOW_ANSWERS,
    STUDIES,
    WORKITEMS,
    RowValues,
)
from hilum.service.records.workitem_records import FINAL
from hilum.service.work.worker import RESULTS
from hilum.values.plain_values import PlainValue
from hilum.work_state import log

Part = Literal["objects", "results"]
DAY_S = 86400.0
# Between two looks (s), which take at most so great a share of the keeper's time; studies of one look, after which the
# next follows at once.
LOOK_S, SHARE, AT_ONCE = 2.0, 0.25, 100

_study = STUDIES.c.study
_of_jobs = select(JOBS.c.job).where(JOBS.c.study == _study)
_of_people = select(CORRECTIONS.c.correction).where(CORRECTIONS.c.study == _study)
_arrived = select(INSTANCES.c.instance).where(INSTANCES.c.study == _study)


def waiting_conditions(keep: Sequence[str], *, keep_judged: bool) -> ColumnElement[bool]:
    """Condition of a study that may not go: somebody works on it, waits for it, or has reason to come back to it.

    keep: rules whose studies stay; keep_judged: whether those stay that a person corrected
    """
    mine = JOBS.c.study == _study
    reasons = [
        exists().where(mine, JOBS.c.state.in_(OPEN)),
        exists().where(
            DELIVERIES.c.state == "waiting", or_(DELIVERIES.c.job.in_(_of_jobs), DELIVERIES.c.job.in_(_of_people))
        ),
        exists().where(or_(DRAFTS.c.judged.in_(_of_jobs), DRAFTS.c.judged.in_(_arrived))),
        exists().where(BLIND_READS.c.state == "waiting", BLIND_READS.c.job.in_(_of_jobs)),
        exists().where(INCIDENTS.c.study == _study),
        exists().where(WORKITEMS.c.study == _study, WORKITEMS.c.state.not_in(FINAL)),
        exists().where(
            SHADOW_ANSWERS.c.done_at.is_(None),
            SHADOW_ANSWERS.c.claimed_at > DatabaseClock() - DAY_S,  # else its worker has died
            SHADOW_ANSWERS.c.job.in_(_of_jobs),
        ),
        exists().where(mine, JOBS.c.rule.in_(keep)),
    ]
    if keep_judged:
        reasons.append(exists().where(CORRECTIONS.c.study == _study))
    return or_(*reasons)


def may_go(part: Part, wait: ColumnElement[bool]) -> ColumnElement[bool]:
    """Condition of a study that has a part which may go."""
    if part == "objects":
        here = and_(STUDIES.c.state == "done", STUDIES.c.routed == STUDIES.c.revision)
    else:
        here = and_(STUDIES.c.state == "gone", STUDIES.c.results_gone_at.is_(None))
    return and_(here, ~wait)


@dataclass(eq=False)
class Retention:
    """What `[retention]` of the settings lets go, look after look, within the rounds of the keeper."""

    settings: NodeSettings
    database: Database
    _due: float = 0.0
    _has_said: bool = False
    _log_holds_identity: bool = False

    def round(self) -> int:
        """Look once it is due and no backup is made; return the number of studies that have lost something."""
        if self.settings.retention is None or time.monotonic() < self._due:
            return 0
        began = time.monotonic()
        with node_folder.hold_retention(self.settings.folder, waits=False) as is_free:
            count = self.look() if is_free else 0
        now = time.monotonic()
        self._due = now + (0.0 if count >= AT_ONCE else max(LOOK_S, (now - began) / SHARE))
        return count

    def look(self) -> int:
        """Finish what is going; let go by age, objects first; then until the quota holds. At most `AT_ONCE` studies."""
        settings = self.settings.retention
        assert settings is not None  # noqa: S101 - as its caller has seen
        wait = waiting_conditions(settings.keep, keep_judged=settings.keep_judged)
        going = self.database.rows(select(STUDIES).where(STUDIES.c.state == GOING))
        count = sum(self._remove(row, "begun at an earlier look") is not None for row in going)
        days: dict[Part, float | None] = {"objects": settings.images_days, "results": settings.results_days}
        for part, most in days.items():
            if most is not None and count < AT_ONCE:
                is_old = STUDIES.c.last_at < DatabaseClock() - most * DAY_S
                rows = self._oldest(and_(may_go(part, wait), is_old), AT_ONCE - count)
                count += sum(self._let_go(row, part, wait, f"older than {most:g} days") is not None for row in rows)
        if settings.quota_gb is not None and count < AT_ONCE:
            count += self._fit(settings.quota_gb, wait, AT_ONCE - count)
        if self._log_holds_identity:
            self._log_holds_identity = not record_database.empty_log(self.database)
        return count

    def _oldest(self, which: ColumnElement[bool], most: int) -> Sequence[Row[Any]]:
        with self.database.read() as connection:
            query = select(STUDIES).where(which).order_by(STUDIES.c.last_at, _study).limit(most)
            return connection.execute(query).all()

    def _fit(self, quota_gb: float, wait: ColumnElement[bool], most: int) -> int:
        """Delete objects of the oldest studies until the quota holds, then results; return the number of studies."""
        with self.database.read() as connection:
            over = stored_bytes(connection) - quota_gb * 1e9
        has_files: dict[Part, ColumnElement[bool]] = {
            "objects": exists().where(INSTANCES.c.study == _study),
            "results": exists().where(ANSWERS.c.bytes > 0, ANSWERS.c.job.in_(_of_jobs)),
        }
        count, is_over = 0, over > 0
        for part, has_some in has_files.items():
            rows = self._oldest(and_(may_go(part, wait), has_some), most - count) if over > 0 else []
            for row in rows:
                if over > 0:
                    freed = self._let_go(row, part, wait, f"over the quota of {quota_gb:g} GB")
                    over, count = over - (freed or 0), count + (freed is not None)
        if is_over and not count and not self._has_said:
            words = "retention: %.3f GB lie above the quota of %g GB, and nothing more may go"
            log.warning(words, over / 1e9, quota_gb)
        self._has_said = is_over and not count
        return count

    def _let_go(self, study: Row[Any], part: Part, wait: ColumnElement[bool], because: str) -> int | None:
        """Bytes of a part of a study that went; None where it may not go any more, or could not."""
        mine = update(STUDIES).where(_study == study.study, may_go(part, wait))
        with self.database.write() as connection:
            if connection.execute(mine.values(state=GOING)).rowcount == 0:
                return None
        return self._remove(study, because)

    def _remove(self, study: Row[Any], because: str) -> int | None:
        """Bytes of a study that is going: its files, then its rows; None where the disk does not let them go."""
        part: Part = "objects" if study.objects_gone_at is None else "results"
        with self.database.read() as connection:
            read_paths = object_paths if part == "objects" else result_paths
            paths = read_paths(connection, study)
        try:
            freed = object_store.remove_files(self.settings.folder, paths)
        except OSError as error:  # the next look tries again
            log.warning("retention: study %s cannot go: %s", study.study, error.strerror)
            return None
        with self.database.write() as connection:
            forget = study_index.forget_objects if part == "objects" else forget_results
            forget(connection, study.study)
            gone = {"state": "gone", f"{part}_gone_at": DatabaseClock()}
            connection.execute(update(STUDIES).where(_study == study.study).values(gone))
            detail: dict[str, PlainValue] = {"because": because, "bytes": freed, "files": len(paths)}
            audit_records.record_event(connection, f"{part} deleted", study.study, study=study.study, detail=detail)
        self._log_holds_identity |= part == "results"
        log.info("retention: %s of study %s were deleted: %s", part, study.study, because)
        return freed


def stored_bytes(connection: Connection) -> int:
    """The bytes of all objects and results that a node holds, as its rows state them."""
    sizes = (INSTANCES.c.bytes, ANSWERS.c.bytes)
    return sum(int(connection.execute(select(func.coalesce(func.sum(one), 0))).scalar_one()) for one in sizes)


def object_paths(connection: Connection, study: Row[Any]) -> list[str]:
    """Paths of a study's objects from the node's folder, those that lie aside too."""
    mine = select(INSTANCES.c.path).where(INSTANCES.c.study == study.study)
    return [*connection.execute(mine).scalars(), *study.asides]


def result_paths(connection: Connection, study: Row[Any]) -> list[str]:
    """Paths of all that the study's jobs, and people who corrected them, have written, from the node's folder."""
    return [f"{RESULTS}/{key}" for key in connection.execute(_owners(study.study)).scalars()]


def forget_results(connection: Connection, study: str) -> None:
    """Delete the identity of a study, and the orders that state it; the rows of its results stay, with no bytes."""
    answers = update(ANSWERS).where(ANSWERS.c.job.in_(_owners(study)))
    connection.execute(answers.values(bytes=0))
    connection.execute(delete(WORKITEMS).where(WORKITEMS.c.study == study))
    connection.execute(update(SERIES_ROWS).where(SERIES_ROWS.c.study == study).values(attributes=null()))
    nobody: RowValues = {"attributes": null(), "people": [], **searching.searched_columns({})}
    connection.execute(update(STUDIES).where(STUDIES.c.study == study).values(nobody))


def _owners(study: str) -> CompoundSelect[str]:
    """Keys of the jobs and corrections of a study."""
    of_jobs = select(JOBS.c.job).where(JOBS.c.study == study)
    return of_jobs.union(select(CORRECTIONS.c.correction).where(CORRECTIONS.c.study == study))
