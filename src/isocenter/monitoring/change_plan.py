"""change-plan.toml: planned changes of a model, rules of acceptance, and the ledger of looks at its locked set.

A plan that could not be executed is refused: every rule must be one that a check can apply to records.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from isocenter import errors
from isocenter.errors import IntegrityError, OutputError, PlanError, UsageError
from isocenter.files.storage import cache, structured_text

CHANGE_PLAN = "change-plan.toml"
# Sections of `model.json` in which a planned change may lie, the arrays, and the first stage of a cascade.
SECTIONS = ("weights", "task", "preprocessing", "inference", "network", "decisions", "guard", "first")
NON_INFERIOR, SUPERIOR, AT_LEAST = "non-inferior", "superior", "at_least"
RULES: Mapping[str, str] = {NON_INFERIOR: "margin", SUPERIOR: "", AT_LEAST: "value"}
APPROVED, CURRENT = "approved", "current"
MODELS = (APPROVED, CURRENT)
TOP: Mapping[str, type] = {"version": int, "approved": str, "modification": list, "acceptance": list, "evidence": dict}
ACCEPTANCE = {"metric", "label", "rule", "margin", "value", "against", "groups"}
# What may start a training anew, and the data for it.
TRIGGERS: Mapping[str, type] = {"bound": bool, "concept": bool, "labels": int}
RETRAIN: Mapping[str, type] = {**TRIGGERS, "data": str, "modification": str}
BOUND: Mapping[str, type] = {"metric": str, "label": str, "at_least": float}
ALL = "all"


@dataclass(frozen=True)
class Acceptance:
    """A rule by which a changed model is accepted.

    rule:    non-inferior (by a margin), superior, or at_least (a value); of a metric of which less is better, at most
    against: the models with which it is compared
    groups:  attributes in whose groups the rule has to hold too
    """

    metric: str
    label: str
    rule: str
    margin: float = 0.0
    value: float = 0.0
    against: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


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
    retrain: Mapping[str, Any] = field(default_factory=dict)

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


def read_plan_file(path: Path, page: str) -> tuple[dict[str, Any], str]:
    """What a plan in TOML states, and its SHA-256. Raises PlanError for a file that cannot be read; page: shows one."""
    try:
        content = path.read_bytes()
        return tomllib.loads(content.decode()), hashlib.sha256(content).hexdigest()
    except OSError as error:
        raise PlanError(f"cannot be read: {error.strerror}", str(path), f"Write it as {page} shows") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"is not TOML ({error})", str(path), f"Write it as {page} shows") from error


def acceptance_rules(rows: Sequence[Mapping[str, Any]]) -> tuple[Acceptance, ...]:
    """The rules that rows of [[acceptance]] state."""
    listed = ("against", "groups")
    return tuple(
        Acceptance(**{"label": ALL, **row, **{name: tuple(row.get(name, ())) for name in listed}}) for row in rows
    )


def read_change_plan(path: Path, metrics: Collection[str] = ()) -> ChangePlan:
    """The plan in a file.

    metrics: that the model's evaluation has; empty where it has none
    Raises PlanError for a file that cannot be read, and for the first thing that a check could not execute.
    """
    stated, sha256 = read_plan_file(path, "docs/how-to/change.md")
    refuse_change_plan(stated, metrics, str(path))
    return ChangePlan(
        stated["approved"],
        {row["name"]: tuple(row["may_change"]) for row in stated["modification"]},
        acceptance_rules(stated["acceptance"]),
        float(stated["evidence"]["alpha"]),
        int(stated["evidence"]["evaluations"]),
        sha256,
        str(path),
        stated.get("retrain", {}),
    )


def refuse_change_plan(plan: Mapping[str, Any], metrics: Collection[str], where: str) -> None:
    """PlanError for the first thing that a check of a change could not execute.

    metrics: that the model's evaluation has; empty where it has none
    """
    refuse_unknown(plan, {*TOP, "retrain", "bound"}, where)
    for key, kind in TOP.items():
        if not isinstance(plan.get(key), kind) or isinstance(plan.get(key), bool):
            raise PlanError(
                f"{key} is missing or is no {kind.__name__}", where, "Write it as docs/how-to/change.md shows"
            )
    if plan["version"] != 1:
        raise PlanError(f"version {plan['version']} is not known", where, "Write version = 1")
    if not re.fullmatch(r"[0-9a-f]{64}", plan["approved"]):
        raise PlanError("approved is no SHA-256", where, "Give that of the approved package's manifest.json")
    refuse_no_rows(plan["modification"], "modification", where)
    refuse_no_rows(plan["acceptance"], "acceptance", where)
    for row in plan["modification"]:
        _refuse_modification(row, where)
    for row in plan["acceptance"]:
        refuse_acceptance(row, metrics, where)
    _refuse_evidence(plan["evidence"], where)
    _refuse_retrain(plan.get("retrain", {}), [row["name"] for row in plan["modification"]], where)
    for row in plan.get("bound", []):
        _refuse_types(row, BOUND, "bound", where)


def refuse_no_rows(rows: Sequence[Any], name: str, where: str) -> None:
    """PlanError for a plan without any table of this name."""
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        raise PlanError(f"has no [[{name}]]", where, f"State one [[{name}]] at least")


def _refuse_modification(row: Mapping[str, Any], where: str) -> None:
    refuse_unknown(row, {"name", "may_change", "because"}, where)
    allowed = row.get("may_change")
    if not row.get("name") or not isinstance(allowed, list) or not allowed:
        raise PlanError("a modification needs name and may_change", where, f"Name parts of {', '.join(SECTIONS)}")
    for part in allowed:
        if str(part).split(".")[0] not in SECTIONS:
            raise PlanError(f"{row['name']}: {part!r} is no part of a model", where, f"Use {', '.join(SECTIONS)}")


def refuse_acceptance(row: Mapping[str, Any], metrics: Collection[str], where: str) -> None:
    """PlanError for a rule of acceptance that could not be applied; metrics: as `refuse_change_plan` has them."""
    refuse_unknown(row, ACCEPTANCE, where)
    metric, rule = row.get("metric"), row.get("rule")
    if not isinstance(metric, str) or not isinstance(row.get("label", ALL), str):
        raise PlanError("an acceptance needs a metric and a label in words", where, 'Write metric = "auroc"')
    if metrics and metric not in metrics:
        raise PlanError(
            f"acceptance by {metric!r}, which the evaluation lacks", where, f"Use {', '.join(sorted(metrics))}"
        )
    if rule not in RULES:
        raise PlanError(f"{rule!r} is no rule", where, f"Use {', '.join(RULES)}")
    needed = RULES[str(rule)]
    number = row.get(needed) if needed else 0
    if isinstance(number, bool) or not isinstance(number, int | float) or (needed == "margin" and number <= 0):
        raise PlanError(
            f"the rule {rule} of {metric} needs a {needed}", where, f"Write {needed} = 0.02 or another number"
        )
    against, groups = row.get("against", []), row.get("groups", [])
    if not all(isinstance(one, list) and all(isinstance(name, str) for name in one) for one in (against, groups)):
        raise PlanError(f"against and groups of {metric} are lists", where, 'Write against = ["approved", "current"]')
    if rule != AT_LEAST and (not against or set(against) - set(MODELS)):
        raise PlanError(f"the rule {rule} of {metric} is against nothing", where, f"Name {' and '.join(MODELS)}")


def _refuse_evidence(evidence: Mapping[str, Any], where: str) -> None:
    refuse_unknown(evidence, {"alpha", "evaluations"}, where)
    alpha, looks = evidence.get("alpha"), evidence.get("evaluations")
    if not isinstance(alpha, float) or not 0 < alpha < 1:
        raise PlanError(f"alpha is {alpha!r}", where, "Write a number between 0 and 1")
    if isinstance(looks, bool) or not isinstance(looks, int) or looks < 1:
        raise PlanError(f"evaluations is {looks!r}", where, "Write how often the locked set may be looked at")


def _refuse_retrain(retrain: Any, names: Sequence[str], where: str) -> None:
    _refuse_types(retrain, RETRAIN, "retrain", where)
    if retrain and not any(retrain.get(trigger) for trigger in TRIGGERS):
        raise PlanError("[retrain] names no trigger", where, f"Use {', '.join(TRIGGERS)}")
    if retrain.get("modification", names[0]) not in names:
        problem = f"[retrain] names the modification {retrain['modification']!r}, which the plan lacks"
        raise PlanError(problem, where, f"Use {', '.join(names)}")


def _refuse_types(table: Any, kinds: Mapping[str, type], name: str, where: str) -> None:
    if not isinstance(table, Mapping):
        raise PlanError(f"{name} is no table", where, "Write it as docs/how-to/change.md shows")
    refuse_unknown(table, kinds, where)
    for key, value in table.items():
        wanted = kinds[key]
        is_number = wanted is float and isinstance(value, int | float)
        is_other = not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool)
        if is_other and not (is_number and not isinstance(value, bool)):
            raise PlanError(f"{name}.{key} is no {wanted.__name__}", where, "Write it as docs/how-to/change.md shows")


def refuse_unknown(table: Mapping[str, Any], known: Collection[str], where: str) -> None:
    """PlanError for a key that is not known."""
    if unknown := sorted(set(table) - set(known)):
        raise PlanError(f"{unknown[0]!r} is not known", where, f"Use {', '.join(sorted(known))}")


# Beside the data, whose own folder stays as it is.
LEDGER = ".looks.jsonl"


def ledger_of(data: Path) -> Path:
    """The ledger of a locked set: beside its folder or file."""
    place = data.resolve()
    return place.with_name(f"{place.name}{LEDGER}")


def machine_ledger(data: str) -> Path:
    """The ledger of a locked set on this machine, wherever a copy of it lies. data: its hash"""
    return cache.cache_folder() / "looks" / f"{data}{LEDGER}"


def count_look(place: Path, plan: LockedPlan, data: str, look: Mapping[str, Any]) -> int:
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


def _note(ledger: Path, entry: Mapping[str, Any]) -> None:
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


def _refuse(looks: list[dict[str, Any]], plan: LockedPlan, data: str, place: Path) -> None:
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


def _looks(ledger: Path) -> list[dict[str, Any]]:
    return [one for one in _entries(ledger) if "check" not in one]


def _entries(ledger: Path) -> list[dict[str, Any]]:
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
