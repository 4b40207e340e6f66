"""Deployments: packages that take the place of that of the settings, and who approved them.

A study keeps the package that its first job was made for, unless a rollback took that package back.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from sqlalchemy import ColumnElement, Connection, Row, and_, insert, or_, select, update

from hilum.errors import HilumError, IntegrityError
from hilum.runtime import record_files
from hilum.service.model_facts import ModelFacts
from hilum.service.records import audit_records, job_queue
from hilum.service.records.actor import MACHINE, NODE, Actor
from hilum.service.records.job_queue import OPEN
from hilum.service.records.record_database import Database, DatabaseClock
from hilum.service.records.tables import APPROVALS, DEPLOYMENTS, JOBS, STUDIES, RowValues
from hilum.values.plain_values import PlainValue

Mode = Literal["shadow", "live", "arm"]
SHADOW, LIVE, ARM = "shadow", "live", "arm"
PACKAGES, MANIFEST = "packages", "manifest.json"
APPROVING, RADIOLOGIST = 2, "radiologist"  # accounts that a change needs, and the role that one of them has
OWN = "named by the settings"
SHARES = 2.0**64


class ChangeError(HilumError):
    """A change that cannot be made as things stand."""


class UnknownChangeError(ChangeError):
    """A number that no change has."""


@dataclass(frozen=True)
class DeployedPackage:
    """A package in the node's folder that can answer for a model.

    manifest: SHA-256 of its manifest.json
    """

    model: str
    folder: Path
    manifest: str
    facts: ModelFacts


def is_in_force() -> ColumnElement[bool]:
    """Whether a deployment has begun, and has not ended."""
    goes_on = or_(DEPLOYMENTS.c.until.is_(None), DEPLOYMENTS.c.until > DatabaseClock())
    return and_(DEPLOYMENTS.c.began.is_not(None), DEPLOYMENTS.c.ended.is_(None), goes_on)


def ask_for_change(
    connection: Connection,
    package: DeployedPackage,
    mode: Mode,
    *,
    package_asked: DeployedPackage,
    because: str,
    share: float | None = None,
    until: float | None = None,
    check_hash: str | None = None,
    detail: Mapping[str, PlainValue] | None = None,
) -> int:
    """Note a package that is to answer; its number. In shadow it begins at once, else once it is approved.

    package_asked:   the package that answers now; it is noted first, so that a rollback finds it
    share: of patients that an arm answers; until: its end (s since 1970)
    Raises ChangeError for the package that answers now, or where another such change of the model goes on or waits.
    """
    answering = _live(connection, package_asked.model)
    if answering is None:
        _insert(connection, package_asked, LIVE, because=OWN, began=DatabaseClock())
    if package.facts.hash == package_asked.facts.hash:
        is_same = package.manifest == package_asked.manifest
        # Jobs know a model by this hash: of two packages with one hash nobody could say which of them answered.
        problem = "is the package" if is_same else "has the weights, settings and gate of the package"
        raise ChangeError(f"{problem} that answers now", str(package.folder), "Give one whose answers differ")
    others = select(DEPLOYMENTS.c.n).where(
        DEPLOYMENTS.c.model == package_asked.model, DEPLOYMENTS.c.mode == mode, DEPLOYMENTS.c.ended.is_(None)
    )
    others = others.where(or_(DEPLOYMENTS.c.until.is_(None), DEPLOYMENTS.c.until > DatabaseClock()))
    others = others.where(DEPLOYMENTS.c.began.is_(None)) if mode == LIVE else others
    if (other := connection.execute(others).scalar()) is not None:
        remedy = f"End it first: hilum change rollback NODE --change {other}"
        raise ChangeError(
            f"change {other} of this model, {mode}, goes on or waits for approval", package_asked.model, remedy
        )
    columns: RowValues = {"share": share, "until": until, "check_hash": check_hash, "because": because}
    columns |= {
        "key": secrets.token_hex(16) if mode == ARM else None,
        "began": DatabaseClock() if mode == SHADOW else None,
    }
    n = _insert(connection, package, mode, **columns)
    stated = {"n": n, "mode": mode, "package": package.manifest, "share": share, "until": until, "check": check_hash}
    action = "change begun" if mode == SHADOW else "change asked for"
    audit_records.record_event(
        connection, action, f"model {package_asked.model}", detail={**stated, "because": because, **(detail or {})}
    )
    return n


def approve_change(connection: Connection, n: int, who: Actor) -> bool:
    """Note a person's approval; whether the package answers from now on, because it was the last that is needed.

    Raises ChangeError where nothing waits, the person approved it before, or no person asks; IntegrityError for a
    package that is not what was written.
    """
    row = _of_number(connection, n)
    if row.began is not None or row.ended is not None:
        raise ChangeError("does not wait for approval", f"change {n}", "See /api/changes")
    if not who.account or who.account.startswith(MACHINE):
        raise ChangeError("is approved by persons with accounts alone", f"change {n}", "Log in as yourself")
    approvals_given = connection.execute(select(APPROVALS).where(APPROVALS.c.n == n)).all()
    if who.account in {one.account for one in approvals_given}:
        raise ChangeError("was approved by this person already", f"change {n}", "Another person has to approve it")
    columns = {"n": n, "account": who.account, "role": who.role, "at": DatabaseClock()}
    connection.execute(insert(APPROVALS).values(columns))
    audit_records.record_event(
        connection, "change approved", f"model {row.model}", actor=who, detail={"n": n, "package": row.manifest}
    )
    roles = [one.role for one in approvals_given] + [who.role]
    if len(roles) < APPROVING or RADIOLOGIST not in roles:
        return False
    _verify(row)
    if row.mode == LIVE:
        for other in _rows(connection, DEPLOYMENTS.c.model == row.model, DEPLOYMENTS.c.ended.is_(None)):
            if other.n != n:
                _end(connection, other, f"change {n} made another package answer", who)
    connection.execute(update(DEPLOYMENTS).where(DEPLOYMENTS.c.n == n).values(began=DatabaseClock()))
    audit_records.record_event(
        connection, "change begun", f"model {row.model}", actor=who, detail={"n": n, "package": row.manifest}
    )
    return True


def roll_back(connection: Connection, model: str, actor: Actor, because: str) -> str:
    """Take back the last change of what answers for a model: an arm ends, else the package before is live again.

    Returns what was done, in words. Open jobs of the package that goes are done by the one that answers again.
    Raises ChangeError where there is nothing to take back, IntegrityError for a package before that is not what was
    written: then all stays as it is.
    """
    of_model = DEPLOYMENTS.c.model == model
    arms = _rows(connection, of_model, DEPLOYMENTS.c.mode == ARM, is_in_force())
    if arms:
        _end(connection, arms[-1], because, actor, is_taken_back=True)
        return f"{model}: the split of change {arms[-1].n} has ended"
    answering = _live(connection, model)
    begun = DEPLOYMENTS.c.began.is_not(None) & DEPLOYMENTS.c.is_taken_back.is_(False)
    earlier = _rows(connection, of_model, DEPLOYMENTS.c.mode == LIVE, begun)[:-1]
    if answering is None or not earlier:
        raise ChangeError("no package answered before", model, "End a shadow by its number: --change N")
    _verify(earlier[-1])
    for other in _rows(connection, of_model, DEPLOYMENTS.c.ended.is_(None)):
        _end(connection, other, because, actor, is_taken_back=other.n == answering.n)
    again = {"ended": None, "because": f"live again: {because}"}
    connection.execute(update(DEPLOYMENTS).where(DEPLOYMENTS.c.n == earlier[-1].n).values(again))
    detail = {"n": earlier[-1].n, "package": earlier[-1].manifest, "because": because}
    audit_records.record_event(connection, "change begun", f"model {model}", actor=actor, detail=detail)
    return f"{model}: the package {earlier[-1].manifest[:12]} of change {earlier[-1].n} answers again"


def end_change(connection: Connection, n: int, who: Actor, because: str) -> str:
    """End one change: a shadow, a split or one that waits; of a live package as `roll_back`. Raises as it does."""
    row = _of_number(connection, n)
    if row.ended is not None:
        raise ChangeError("has ended", f"change {n}", "See /api/changes")
    if row.mode == LIVE and row.began is not None:
        for arm in _rows(connection, DEPLOYMENTS.c.model == row.model, DEPLOYMENTS.c.mode == ARM, is_in_force()):
            _end(connection, arm, because, who, is_taken_back=True)
        return roll_back(connection, row.model, who, because)
    _end(connection, row, because, who, is_taken_back=row.mode == ARM)
    return f"{row.model}: change {n}, {row.mode}, has ended"


def deployment_state(row: Row[Any]) -> str:
    """Whether a change waits for approval, is in force, or has ended."""
    return "ended" if row.ended is not None else "waiting" if row.began is None else "in force"


def end_at_date(connection: Connection) -> list[int]:
    """End shadows and arms whose date has come; their numbers. They have answered nothing since."""
    over = _rows(connection, DEPLOYMENTS.c.ended.is_(None), DEPLOYMENTS.c.until <= DatabaseClock())
    for row in over:
        _end(connection, row, "its date has come", NODE)
    return [row.n for row in over]


def live_folder(connection: Connection, model: str) -> Path | None:
    """The folder of the package that is live for a model; None where it is that of the settings."""
    row = _live(connection, model)
    return None if row is None else Path(row.folder)


def deployed_package(connection: Connection, model: str) -> DeployedPackage | None:
    """The package that is live for a model; None where it is that of the settings."""
    row = _live(connection, model)
    return None if row is None else DeployedPackage(model, Path(row.folder), row.manifest, ModelFacts(**row.facts))


def last_change(connection: Connection, model: str) -> float | None:
    """When the last package of a model began to answer, in s of the clock; None where it is that of the settings."""
    row = _live(connection, model)
    return None if row is None else float(row.began)


def open_packages(connection: Connection, model: str) -> dict[int, DeployedPackage]:
    """{number: package} of the changes of a model that have not ended."""
    rows = _rows(connection, DEPLOYMENTS.c.model == model, DEPLOYMENTS.c.ended.is_(None))
    return {row.n: DeployedPackage(model, Path(row.folder), row.manifest, ModelFacts(**row.facts)) for row in rows}


def was_live(connection: Connection, model: str, manifest: str) -> bool:
    """Whether a package answers for a model, or did."""
    return bool(
        _rows(
            connection,
            DEPLOYMENTS.c.model == model,
            DEPLOYMENTS.c.mode == LIVE,
            DEPLOYMENTS.c.began.is_not(None),
            DEPLOYMENTS.c.manifest == manifest,
        )
    )


def note_facts(connection: Connection, n: int, facts: ModelFacts) -> None:
    """Keep what routing asks of a package under settings that have changed."""
    noted = {"facts": asdict(facts), "hash": facts.hash}
    connection.execute(update(DEPLOYMENTS).where(DEPLOYMENTS.c.n == n).values(noted))


def models_of(
    connection: Connection, models: Mapping[str, ModelFacts], study: Row[Any] | None = None
) -> dict[str, ModelFacts]:
    """The facts of the models that answer now; of a study those that answer its patient.

    models: those of the settings
    """
    rows = _rows(connection, DEPLOYMENTS.c.began.is_not(None), DEPLOYMENTS.c.is_taken_back.is_(False))
    chosen = {row.model: row for row in rows if row.mode == LIVE and row.ended is None}
    if study is not None and rows:
        patient = study.patient or study.study
        arms = _rows(connection, DEPLOYMENTS.c.mode == ARM, is_in_force())
        chosen |= {row.model: row for row in arms if is_of_arm(patient, row)}
        query = select(JOBS.c.model, JOBS.c.model_hash).where(JOBS.c.study == study.study)
        query = query.where(JOBS.c.state.not_in(("superseded", "cancelled"))).order_by(JOBS.c.created_at.desc())
        by_hash = {(row.model, row.hash): row for row in rows if row.mode != SHADOW}
        models_found = (by_hash.get((job.model, job.model_hash)) for job in connection.execute(query))
        chosen |= {row.model: row for row in models_found if row is not None}
    return {**models, **{name: ModelFacts(**row.facts) for name, row in chosen.items() if name in models}}


def facts_by_version(
    connection: Connection, models: Mapping[str, ModelFacts]
) -> Callable[[str, str], ModelFacts | None]:
    """A function of a model's name and hash that gives the facts of that version, as far as anybody knows them.

    models: those of the settings. What was in the settings before is taken for what is there now; None for a model that
    the node no longer has
    """
    rows = _rows(connection, DEPLOYMENTS.c.began.is_not(None))
    known = {(row.model, row.hash): ModelFacts(**row.facts) for row in rows}
    return lambda model, version: known.get((model, version), models.get(model)) if model in models else None


def is_of_arm(patient: str, arm: Row[Any]) -> bool:
    """Whether a patient is answered by the new package: always alike, by a keyed hash."""
    digest = hmac.digest(arm.key.encode(), patient.encode(), "sha256")[:8]
    return cast(bool, int.from_bytes(digest) / SHARES < arm.share)


def package_finder(database: Database, folder: Path) -> Callable[[str, str | None], Path | None]:
    """A function of a model's name and hash that gives the folder of such a package, None for that of the settings.

    folder: of the node, as this machine reaches it. Without a hash the package that is live is given.
    """

    def found(model: str, version: str | None) -> Path | None:
        with database.read() as connection:
            if version is None:
                row = _live(connection, model)
            else:
                rows = _rows(
                    connection,
                    DEPLOYMENTS.c.model == model,
                    DEPLOYMENTS.c.began.is_not(None),
                    DEPLOYMENTS.c.hash == version,
                )
                row = rows[-1] if rows else None
        return None if row is None else folder / PACKAGES / row.manifest

    return found


def _of_number(connection: Connection, n: int) -> Row[Any]:
    row = connection.execute(select(DEPLOYMENTS).where(DEPLOYMENTS.c.n == n).with_for_update()).first()
    if row is None:
        raise UnknownChangeError("there is no such change", f"change {n}", "See hilum change status, or /api/changes")
    return row


def _rows(connection: Connection, *where: ColumnElement[bool]) -> Sequence[Row[Any]]:
    return connection.execute(select(DEPLOYMENTS).where(*where).order_by(DEPLOYMENTS.c.n)).all()


def _live(connection: Connection, model: str) -> Row[Any] | None:
    begun = DEPLOYMENTS.c.began.is_not(None) & DEPLOYMENTS.c.ended.is_(None)
    rows = _rows(connection, DEPLOYMENTS.c.model == model, DEPLOYMENTS.c.mode == LIVE, begun)
    return rows[-1] if rows else None


def _insert(connection: Connection, package: DeployedPackage, mode: str, **columns: Any) -> int:
    made: RowValues = {
        "model": package.model,
        "folder": str(package.folder),
        "manifest": package.manifest,
        "mode": mode,
    }
    made |= {"hash": package.facts.hash, "facts": asdict(package.facts), "asked_at": DatabaseClock(), **columns}
    return int(connection.execute(insert(DEPLOYMENTS).values(made).returning(DEPLOYMENTS.c.n)).scalar_one())


def _end(connection: Connection, row: Row[Any], because: str, who: Actor, *, is_taken_back: bool = False) -> None:
    """End a deployment. is_taken_back: its open jobs are then made anew, for the package that answers instead"""
    values = {"ended": DatabaseClock(), "because": because, "is_taken_back": is_taken_back}
    connection.execute(update(DEPLOYMENTS).where(DEPLOYMENTS.c.n == row.n).values(values))
    detail = {"n": row.n, "mode": row.mode, "package": row.manifest, "because": because}
    audit_records.record_event(connection, "change ended", f"model {row.model}", actor=who, detail=detail)
    if not is_taken_back:
        return
    # Where it was an arm or in shadow before, no study keeps it for that.
    same = and_(DEPLOYMENTS.c.model == row.model, DEPLOYMENTS.c.manifest == row.manifest, DEPLOYMENTS.c.mode != LIVE)
    connection.execute(update(DEPLOYMENTS).where(same).values(is_taken_back=True))
    mine = and_(JOBS.c.model == row.model, JOBS.c.model_hash == row.hash, JOBS.c.state.in_(OPEN))
    for job in connection.execute(select(JOBS.c.job, JOBS.c.study).where(mine)).all():
        job_queue.close_job(connection, job.job, "superseded", f"its package was taken back: {because}", who)
        connection.execute(update(STUDIES).where(STUDIES.c.study == job.study).values(routed=0))


def _verify(row: Row[Any]) -> None:
    """Raise IntegrityError unless a package is, file by file, the one that was noted."""
    folder = Path(row.folder)
    record_files.verify_seal(folder)
    if record_files.file_digest(folder / MANIFEST) != row.manifest:
        raise IntegrityError("is another package than the one of the change", row.folder, "Restore it, or ask anew")
