"""The test of a model before its first patient at a site: what was agreed, the lock on it, and the verdict.

After the ACR-SIIM Practice Parameter for AI in radiology (2026): agreed beforehand, on local cases, looked at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, with_config
from typing_extensions import TypedDict

from hilum import errors
from hilum.errors import IntegrityError, PlanError, UsageError
from hilum.evaluation.fairness import group_attributes
from hilum.files.storage import hashing
from hilum.monitoring import change_plan
from hilum.monitoring.change_plan import ALL, AT_LEAST, STRICT, Acceptance, Sha256
from hilum.runtime import record_files
from hilum.values.covariate_values import CovariateValues
from hilum.values.record_schema import RecordHead, RecordSchema

PAGE = "docs/how-to/accept.md"


class LockRecord(TypedDict):
    """What was fixed before anybody looked: SHA-256 of the plan, of the model's manifest, and the hash of the set."""

    plan: str
    model: str
    data: str
    cases: int
    at: str


class LockOfRecord(TypedDict):
    """The lock by which an acceptance was made: its own SHA-256, when, the hash of the set and its cases."""

    sha256: str
    at: str
    data: str
    cases: int


class AgreedRow(TypedDict):
    """Who agreed to a plan, and on which day."""

    name: str
    on: str


class AcceptanceFacts(TypedDict, total=False):
    """The package, the plan and the lock of an acceptance; `lock` is the lock's file where a plan was only locked."""

    model: str
    package: str
    agreed: list[AgreedRow]
    plan: str
    lock: str | LockOfRecord
    cases: int
    looked_at: str


class AcceptanceRecord(RecordHead, AcceptanceFacts):
    """Whether a model may answer at a site; conditions: the groups that it may answer, by attribute."""

    verdict: str
    conditions: dict[str, list[str]]
    rows: list[AcceptanceRow]
    notes: list[str]


LOCK = ".lock"
LOCK_SCHEMA = RecordSchema("hilum.acceptance_lock", LockRecord)
ACCEPTANCE = "acceptance.json"
SCHEMA = RecordSchema("hilum.acceptance", AcceptanceRecord)
ACCEPTED = "accepted"
CONDITIONAL = "accepted with conditions"
NOT_ACCEPTED = "not accepted"
ALPHA = 0.05


@with_config(STRICT)
class StatedAgreement(TypedDict):
    """Who agreed, and on which day."""

    name: str
    on: NotRequired[date | str]


@with_config(STRICT)
class StatedAcceptancePlan(TypedDict):
    """What was agreed, as its file states it; cases: at least, of all or of each group of a column."""

    version: Literal[1]
    model: Sha256
    agreed: Annotated[list[StatedAgreement], Field(min_length=1)]
    acceptance: Annotated[list[Acceptance], Field(min_length=1)]
    cases: NotRequired[dict[str, int]]


@dataclass(frozen=True)
class AcceptancePlan:
    """What was agreed before anybody looked.

    model:  SHA-256 of the manifest of the package
    agreed: (name, day) of each who agreed
    cases:  {"all", or a column: cases at least, of a column in each of its groups}
    """

    model: str
    agreed: tuple[tuple[str, str], ...]
    acceptance: tuple[Acceptance, ...]
    cases: Mapping[str, int]
    sha256: str
    where: str
    evaluations: int = 1

    @property
    def alpha_of_look(self) -> float:
        """The level of the one look, two-sided."""
        return ALPHA

    @property
    def groups(self) -> tuple[str, ...]:
        """The attributes of all rules."""
        return tuple(dict.fromkeys(group for rule in self.acceptance for group in rule.groups))


def read_acceptance_plan(path: Path) -> AcceptancePlan:
    """The plan in a file. Raises PlanError for the first thing that could not be executed."""
    stated, sha256 = change_plan.read_plan_file(path, StatedAcceptancePlan, PAGE)
    where = str(path)
    cases = stated.get("cases", {})
    for rule in stated["acceptance"]:
        if rule.rule != AT_LEAST:
            problem = f"the rule {rule.rule} of {rule.metric} compares with another model, and there is none"
            raise PlanError(problem, where, f"Write rule = {AT_LEAST!r} with a value")
    if min(cases.values(), default=1) < 1:
        raise PlanError("[cases] has numbers of cases", where, "Write all = 100, and station = 20")
    agreed = tuple(_agreement(row, where) for row in stated["agreed"])
    return AcceptancePlan(stated["model"], agreed, tuple(stated["acceptance"]), cases, sha256, where)


def _agreement(row: StatedAgreement, where: str) -> tuple[str, str]:
    name = row["name"].strip()
    day = row.get("on")
    try:
        on = day if isinstance(day, date) else date.fromisoformat(str(day))
    except ValueError as error:
        raise PlanError(f"{day!r} is no day", where, 'Write on = "2026-11-30"') from error
    if not name:
        raise PlanError("who agreed has a name and a day", where, 'Write { name = "...", on = "2026-11-30" }')
    # East of here the next day may have begun.
    if on > date.today() + timedelta(days=1):
        raise PlanError(f"{name} agreed on {on.isoformat()}, a day to come", where, "Write the day of the agreement")
    return name, on.isoformat()


def lock_of(plan: Path) -> Path:
    """The lock of a plan: beside its file."""
    return plan.with_name(f"{plan.name}{LOCK}")


def refuse_few_cases(plan: AcceptancePlan, covariates: Mapping[str, Sequence[Any]], cases: int) -> None:
    """UsageError for fewer cases than were agreed, of all or of a group of a column."""
    for column, least in plan.cases.items():
        counts = {"the set": cases}
        if column != ALL:
            [levels] = group_attributes.groups_by_attribute(covariates, column, flag="[cases]").values()
            counts = {f"{column} {level}": count for level, count in Counter(levels.tolist()).items()}
        if few := [f"{who} {errors.count_phrase(count, 'case')}" for who, count in counts.items() if count < least]:
            problem = f"{', '.join(few)}; {least} were agreed"
            raise UsageError(problem, plan.where, "Collect more cases before the set is locked")


def write_lock(plan: AcceptancePlan, path: Path, data: str, cases: int, at: str) -> Path:
    """Write the lock on a plan and on a set; data: its hash. UsageError where there is one already."""
    lock = lock_of(path)
    if lock.exists():
        raise UsageError("is locked already", str(path), f"Remove {lock.name} only where nobody has looked yet")
    record = LockRecord(plan=plan.sha256, model=plan.model, data=data, cases=cases, at=at)
    record_files.write_json(lock, LOCK_SCHEMA, record)
    return lock


def read_lock(plan: AcceptancePlan, path: Path, data: str) -> tuple[LockRecord, str]:
    """The lock, with its own SHA-256. Raises UsageError without one, IntegrityError for a plan or set that changed."""
    lock = lock_of(path)
    if not lock.is_file():
        raise UsageError("is not locked", str(path), "Lock it with the cases before anybody looks: --lock")
    record = record_files.read_json(lock, LOCK_SCHEMA)
    if record.get("plan") != plan.sha256:
        raise IntegrityError("was changed after it was locked", str(path), "Restore it, or agree on a new plan and set")
    if record.get("data") != data:
        problem = "is not the set that was locked"
        raise IntegrityError(problem, str(lock), "Give the locked set, with the same options of reading")
    return record, hashing.file_hash(lock)


@dataclass(frozen=True)
class AcceptanceRow:
    """A figure, and where a rule asks for one, whether it holds.

    attribute, group: "station" and "CT1"; empty for all cases
    holds: None for a figure that no rule asks for
    """

    metric: str
    label: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    patients: int
    attribute: str = ""
    group: str = ""
    wanted: str = ""
    found: str = ""
    holds: bool | None = None


def verdict_of_rows(rows: Iterable[AcceptanceRow]) -> tuple[str, dict[str, list[str]]]:
    """The verdict, and where it has conditions {attribute: groups that are answered}.

    What must hold of all cases decides first. A rule with groups that holds in some of them accepts the model for
    these; one that holds in none does not accept it.
    """
    judged = [row for row in rows if row.holds is not None]
    if not all(row.holds for row in judged if not row.attribute):
        return NOT_ACCEPTED, {}
    answered = dict[str, list[str]]()
    broken = set[str]()
    for attribute, group in dict.fromkeys((row.attribute, row.group) for row in judged if row.attribute):
        held = all(row.holds for row in judged if (row.attribute, row.group) == (attribute, group))
        answered.setdefault(attribute, []).extend([group] if held else [])
        broken |= set() if held else {attribute}
    if not all(answered.values()):
        return NOT_ACCEPTED, {}
    conditions = {name: levels for name, levels in answered.items() if name in broken}
    return (CONDITIONAL if conditions else ACCEPTED), conditions


def read_acceptance(folder: Path, manifest: str) -> AcceptanceRecord:
    """The record of an acceptance of a package, whose folder is what was written.

    manifest: SHA-256 of the package's manifest
    Raises IntegrityError for a folder that was changed, UsageError for another package or one that was not accepted.
    """
    if not (folder / ACCEPTANCE).is_file():
        raise UsageError("holds no acceptance", str(folder), "Accept the model: hilum accept MODEL SITE_DATA")
    record_files.verify_seal(folder)
    record = record_files.read_json(folder / ACCEPTANCE, SCHEMA)
    if record.get("model") != manifest:
        problem = f"is of another package: {record.get('model')} in place of {manifest}"
        raise UsageError(problem, str(folder), "Accept the package that answers")
    if record.get("verdict") not in (ACCEPTED, CONDITIONAL):
        raise UsageError(f"the verdict is {record.get('verdict')!r}", str(folder), "Use a model that was accepted")
    return record


def group_not_accepted(record: AcceptanceRecord, covariates: CovariateValues) -> str:
    """The group of a case for which the model was not accepted, in words; empty where it may be answered.

    covariates: {name: value} of the case; a case whose group nobody knows is in none that was accepted
    """
    for attribute, levels in record.get("conditions", {}).items():
        columns = {name: [value] for name, value in covariates.items()}
        own = group_attributes.groups_by_attribute(columns, attribute, strictly=False)
        level = str(next(iter(own.values()))[0]) if own else group_attributes.UNKNOWN
        if group_attributes.group_key(level) not in map(group_attributes.group_key, levels):
            return f"{attribute} {level}"
    return ""
