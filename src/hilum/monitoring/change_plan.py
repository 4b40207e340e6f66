"""change-plan.toml: planned changes of a model, rules of acceptance, and the ledger of looks at its locked set.

A plan that could not be executed is refused: every rule must be one that a check can apply to records.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, NotRequired, Protocol, TypeVar

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, ConfigDict, Field, StrictFloat, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from hilum import errors
from hilum.errors import IntegrityError, OutputError, PlanError, UsageError
from hilum.files.storage import cache, structured_text

P = TypeVar("P")
CHANGE_PLAN = "change-plan.toml"
# Sections of `model.json` in which a planned change may lie, the arrays, and the first stage of a cascade.
SECTIONS = ("weights", "task", "preprocessing", "inference", "network", "decisions", "guard", "first")
NON_INFERIOR = "non-inferior"
AT_LEAST = "at_least"
APPROVED = "approved"
CURRENT = "current"
# What may start a training anew.
TRIGGERS = ("bound", "concept", "labels")
ALL = "all"
PAGE = "docs/how-to/change.md"
# What pydantic calls a key that is not known.
UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
# A plan has only the keys that are known, each of its type.
STRICT = ConfigDict(extra="forbid", strict=True)


def _check_digest(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError("no SHA-256; give that of the package's manifest.json")
    return text


Sha256 = Annotated[str, AfterValidator(_check_digest)]


@dataclass(frozen=True)
class Acceptance:
    """A rule by which a changed model is accepted.

    rule:    non-inferior (by a margin), superior, or at_least (a value); of a metric of which less is better, at most
    against: the models with which it is compared
    groups:  attributes in whose groups the rule has to hold too
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    metric: str
    rule: Literal["non-inferior", "superior", "at_least"]
    label: str = ALL
    margin: StrictFloat = 0.0
    value: StrictFloat = math.nan
    against: tuple[Literal["approved", "current"], ...] = ()
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rule == NON_INFERIOR and not self.margin > 0:
            raise ValueError(f"the rule {self.rule} of {self.metric} needs a margin above 0, such as margin = 0.02")
        if self.rule == AT_LEAST and math.isnan(self.value):
            raise ValueError(f"the rule {self.rule} of {self.metric} needs a value, such as value = 0.8")
        if self.rule != AT_LEAST and not self.against:
            raise ValueError(f"the rule {self.rule} of {self.metric} is against nothing: name approved or current")


@with_config(STRICT)
class Modification(TypedDict):
    """A planned change: the parts of the model in which it may lie."""

    name: Annotated[str, Field(min_length=1)]
    may_change: Annotated[list[str], Field(min_length=1)]
    because: NotRequired[str]


@with_config(STRICT)
class Evidence(TypedDict):
    """Alpha of all looks at the locked set together, two-sided, and how many looks there may be."""

    alpha: Annotated[float, Gt(0), Lt(1)]
    evaluations: Annotated[int, Ge(1)]


@with_config(STRICT)
class Retraining(TypedDict, total=False):
    """What starts a training anew, its data, and the modification that it is."""

    bound: bool
    concept: bool
    labels: Annotated[int, Ge(1)]
    data: str
    modification: str


@with_config(STRICT)
class RateBound(TypedDict, total=False):
    """A rate below which a split ends."""

    metric: str
    label: str
    at_least: Annotated[float, Ge(0), Le(1)]


@with_config(STRICT)
class StatedChangePlan(TypedDict):
    """A plan of changes, as its file states it."""

    version: Literal[1]
    approved: Sha256
    modification: Annotated[list[Modification], Field(min_length=1)]
    acceptance: Annotated[list[Acceptance], Field(min_length=1)]
    evidence: Evidence
    retrain: NotRequired[Retraining]
    bound: NotRequired[list[RateBound]]


@dataclass(frozen=True)
class ChangePlan:
    """A plan of changes that can be executed.

    approved:      SHA-256 of the manifest of the approved package
    modifications: {name: parts that it may change}
    alpha:         for all looks at the locked set together, two-sided
    evaluations:   how many looks there may be
    retrain:       what starts a training anew; empty for nothing
    sha256:        of the file
    """

    approved: str
    modifications: Mapping[str, tuple[str, ...]]
    acceptance: tuple[Acceptance, ...]
    alpha: float
    evaluations: int
    sha256: str
    where: str
    retrain: Retraining = field(default_factory=Retraining)

    @property
    def alpha_of_look(self) -> float:
        """The level of one look, two-sided: looks share alpha evenly, so that it holds however they depend."""
        return self.alpha / self.evaluations

    @property
    def groups(self) -> tuple[str, ...]:
        """The attributes of all rules."""
        return tuple(dict.fromkeys(group for rule in self.acceptance for group in rule.groups))

    def modification_of(self, part: str) -> str | None:
        """The modification by which a part of the model may change; None where none names it.

        The decision of a part, such as `decisions.task.calibration`, may change with it.
        """
        own = {part, part.removeprefix("decisions.")}
        for name, parts in self.modifications.items():
            if any(f"{which}.".startswith(f"{one}.") for which in own for one in parts):
                return name
        return None


class LockedPlan(Protocol):
    """A plan by which a locked set is looked at: its file, its SHA-256, and how many looks there may be."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the file."""

    @property
    def where(self) -> str:
        """The file."""

    @property
    def evaluations(self) -> int:
        """How many looks there may be."""

    @property
    def alpha_of_look(self) -> float:
        """The level of one look, two-sided."""


def read_plan_file(path: Path, kind: type[P], page: str) -> tuple[P, str]:
    """What a plan in TOML states, and its SHA-256.

    page: shows such a plan
    Raises PlanError for a file that cannot be read, and for a key that is missing, unknown or of another type.
    """
    try:
        content = path.read_bytes()
        stated = tomllib.loads(content.decode())
    except OSError as error:
        raise PlanError(f"cannot be read: {error.strerror}", str(path), f"Write it as {page} shows") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"is not TOML ({error})", str(path), f"Write it as {page} shows") from error
    return _parse_plan(stated, kind, page, str(path), content.decode()), hashlib.sha256(content).hexdigest()


def _parse_plan(stated: object, kind: type[P], page: str, where: str, text: str = "") -> P:
    try:
        return TypeAdapter(kind).validate_python(stated)
    except ValidationError as error:
        # An unknown key says more than what is missing, of which it may be another writing.
        first = min(error.errors(), key=lambda one: one["type"] not in UNKNOWN)
        place = [str(part) for part in first["loc"]]
        value = "" if first["type"] == "missing" or isinstance(first["input"], dict | list) else f" {first['input']!r}"
        words = f"{'.'.join(place)}{value}: {first['msg'].removeprefix('Value error, ')}"
        if first["type"] in UNKNOWN:
            words = f"{place[-1]!r} is not known"
        line = f", line {structured_text.line_of_key(text, place)}" if text else ""
        raise PlanError(words, f"{where}{line}", f"Write it as {page} shows") from error


def read_change_plan(path: Path, metrics: Collection[str] = ()) -> ChangePlan:
    """The plan in a file.

    metrics: that the model's evaluation has; empty where it has none
    Raises PlanError for a file that cannot be read, and for the first thing that a check could not execute.
    """
    stated, sha256 = read_plan_file(path, StatedChangePlan, PAGE)
    _refuse_contradictions(stated, metrics, str(path))
    return ChangePlan(
        stated["approved"],
        {row["name"]: tuple(row["may_change"]) for row in stated["modification"]},
        tuple(stated["acceptance"]),
        stated["evidence"]["alpha"],
        stated["evidence"]["evaluations"],
        sha256,
        str(path),
        stated.get("retrain", {}),
    )


def refuse_change_plan(plan: object, metrics: Collection[str], where: str) -> None:
    """PlanError for the first thing that a check of a change could not execute.

    metrics: that the model's evaluation has; empty where it has none
    """
    _refuse_contradictions(_parse_plan(plan, StatedChangePlan, PAGE, where), metrics, where)


def _refuse_contradictions(plan: StatedChangePlan, metrics: Collection[str], where: str) -> None:
    for row in plan["modification"]:
        for part in row["may_change"]:
            if part.split(".")[0] not in SECTIONS:
                raise PlanError(f"{row['name']}: {part!r} is no part of a model", where, f"Use {', '.join(SECTIONS)}")
    for rule in plan["acceptance"]:
        if metrics and rule.metric not in metrics:
            problem = f"acceptance by {rule.metric!r}, which the evaluation lacks"
            raise PlanError(problem, where, f"Use {', '.join(sorted(metrics))}")
    retrain = plan.get("retrain", Retraining())
    names = [row["name"] for row in plan["modification"]]
    if retrain and not any(retrain.get(trigger) for trigger in TRIGGERS):
        raise PlanError("[retrain] names no trigger", where, f"Use {', '.join(TRIGGERS)}")
    if retrain.get("modification", names[0]) not in names:
        problem = f"[retrain] names the modification {retrain['modification']!r}, which the plan lacks"
        raise PlanError(problem, where, f"Use {', '.join(names)}")


# Beside the data, whose own folder stays as it is.
LEDGER = ".looks.jsonl"


def ledger_of(data: Path) -> Path:
    """The ledger of a locked set: beside its folder or file."""
    place = data.resolve()
    return place.with_name(f"{place.name}{LEDGER}")


def machine_ledger(data: str) -> Path:
    """The ledger of a locked set on this machine, wherever a copy of it lies. data: its hash"""
    return cache.cache_folder() / "looks" / f"{data}{LEDGER}"


def count_look(place: Path, plan: LockedPlan, data: str, look: Mapping[str, str]) -> int:
    """Count a look before anything is scored, and say which it is, from 1.

    place: the locked set, whose ledger goes with it; another one knows it by its hash `data` on this machine
    look:  what is looked at: the hashes of the models, and when
    A look that is interrupted counts too.
    Raises IntegrityError for a plan or a set that changed after the first look, and for a damaged ledger; UsageError
    where all looks are spent.
    """
    ledgers = (ledger_of(place), machine_ledger(data))
    for ledger in ledgers:
        _refuse(_looks(ledger), plan, data, place)
    for ledger in ledgers:
        _note(ledger, {"plan": plan.sha256, "data": data, **look})
    # Two checks at a time: each line is written at once, and the later one is refused.
    number = max(len(_looks(ledger)) for ledger in ledgers)
    if number > plan.evaluations:
        raise _spent(plan, place)
    return number


def _note(ledger: Path, entry: Mapping[str, str]) -> None:
    try:
        ledger.parent.mkdir(parents=True, exist_ok=True)
        with ledger.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(entry)}\n")
    except OSError as error:
        remedy = "Give a place that can be written: a look that is not counted is none"
        raise OutputError(f"cannot be written: {error.strerror}", str(ledger), remedy) from error


def note_check(plan: str, data: str, check: str) -> None:
    """Keep the SHA-256 of the record of a check in the ledger of this machine: no other record has come of its look."""
    _note(machine_ledger(data), {"plan": plan, "data": data, "check": check})


def is_noted(plan: str, data: str, check: str) -> bool:
    """Whether a check of this machine, by this plan on this set, has written the record with this SHA-256."""
    return {"plan": plan, "data": data, "check": check} in _entries(machine_ledger(data))


def _refuse(looks: list[dict[str, str]], plan: LockedPlan, data: str, place: Path) -> None:
    for look in looks:
        if look["plan"] != plan.sha256:
            problem = "was edited after the locked set was looked at"
            remedy = f"Use the plan with the SHA-256 {look['plan']}, or lock a new set for a new plan"
            raise IntegrityError(problem, plan.where, remedy)
        if look["data"] != data:
            problem = "is not the set that was looked at before"
            raise IntegrityError(problem, str(place), "Restore it, or lock a new set")
    if len(looks) >= plan.evaluations:
        raise _spent(plan, place)


def _spent(plan: LockedPlan, place: Path) -> UsageError:
    problem = f"has had {errors.count_phrase(plan.evaluations, 'look')}, all that the plan allows"
    return UsageError(problem, str(place), "Lock a new set, with patients who tested no model")


def _looks(ledger: Path) -> list[dict[str, str]]:
    return [one for one in _entries(ledger) if "check" not in one]


def _entries(ledger: Path) -> list[dict[str, str]]:
    try:
        lines = ledger.read_text(encoding="utf-8").splitlines()
        looks = [structured_text.parse_json(line) for line in lines]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise IntegrityError(f"cannot be read ({error})", str(ledger), "Restore it: it counts the looks") from error
    if not all(isinstance(look, dict) and {"plan", "data"} <= set(look) for look in looks):
        raise IntegrityError("is damaged", str(ledger), "Restore it: it counts the looks")
    return looks
