"""A plan as YAML that a person reads and edits; a wrong edit is refused with its line."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from hilum.errors import PlanError
from hilum.files.storage.structured_text import DEEPEST
from hilum.planning import plan_changes, plan_checks, typed_sections
from hilum.planning.rules import objective_rules
from hilum.tasks import task_catalogue, task_settings
from hilum.values import BY_HAND, Decision, PlainValue, Plan
from hilum.values.plan_decisions import PLAN_VERSION

HEADER = (
    "# A plan of hilum: every choice with its reason. Edit a value and train from this file;\n"
    "# what was edited is recorded as set by hand.\n"
)
NUMBER = r"[+-]?[\d.]+(?:[eE][+-]?\d+)?"
# Bytes of a plan, and characters of a value: plans have some 20 kB.
LARGEST_PLAN = 1 << 20
LONGEST_VALUE = 10_000
SHOWN = 80
# The hash of what was promised before training, and what may be among it.
PREREGISTERED = "evaluation.preregistered"
MARGIN = "evaluation.margin"
GROUPS = "evaluation.groups"
# What a person means by a plan beside the data, the seeds in it, and what follows from the speed of the machine.
OF_TRAINING = frozenset({"network", "training", "augmentation", "objectives", "search"})
SEEDS = ("training.seed", "split.seed")
BY_SPEED = ("training.steps", "training.validations", "training.compute", "training.memory", "training.threads")
# What stands beside the sections, and of what kind it is.
HEAD: Mapping[str, type] = {"data": str, "data_hash": str, "options": dict, "as_planned": dict}


def plan_text(plan: Plan) -> str:
    """The plan as YAML, the digest of each value as planned at its end."""
    sections = {
        section: {
            name: _entry(one, typed_sections.is_default(plan, f"{section}.{name}")) for name, one in decisions.items()
        }
        for section, decisions in plan.sections.items()
    }
    head: Mapping[str, PlainValue] = {
        "hilum_plan": PLAN_VERSION,
        "data": plan.data,
        "data_hash": plan.data_hash,
        "options": dict(plan.options),
    }
    digests = {name: _digest(decision.value) for name, decision in plan}
    bodies = [{name: section} for name, section in sections.items()]
    parts: list[Mapping[str, PlainValue]] = [head, *bodies, {"as_planned": digests}]
    return HEADER + "".join(_write_part(_Part(repr(part), part)) for part in parts)


@dataclass(frozen=True)
class _Part:
    """A part of a plan's file, known by its text: a run writes its plan after every decision, and most parts stay."""

    text: str
    content: Mapping[str, PlainValue] = field(compare=False)


@lru_cache(maxsize=64)
def _write_part(part: _Part) -> str:
    yaml = YAML()
    yaml.width = 1000
    yaml.default_flow_style = None  # lists of numbers on one line
    yaml.representer.ignore_aliases = lambda _: True  # two decisions may share a list, and no alias is read
    text = io.StringIO()
    yaml.dump(part.content, text)
    return text.getvalue()


def preregistration_digest(plan: Plan) -> str:
    """SHA-256 over what could flatter a figure if it were chosen later: primary metric, margin, groups, the task's own.

    A run records it before its first step; a report marks as exploratory whatever it does not cover.
    Nosek et al., PNAS 2018, doi:10.1073/pnas.1708274114
    """
    names = (
        "evaluation.primary",
        *(
            f"task.{name}"
            for name in task_settings.preregistered_settings(task_catalogue.task_class(plan["task.name"]))
        ),
    )
    fixed = {name: plan[name] for name in names if name in plan}
    fixed |= {name: plan[name] for name in (GROUPS, MARGIN) if plan[name] is not None}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


def recipe_digest(plan: Plan | None) -> Mapping[str, PlainValue]:
    """The seed, and as `recipe` the SHA-256 over what trainings of one plan share; empty where the data are unknown.

    Seeds are left out, and so is what follows from the speed of the machine or from the cases that a seed has chosen.
    """
    if plan is None or not plan.data_hash:
        return {}
    own = {name: one.value for name, one in plan if name.partition(".")[0] in OF_TRAINING or one.because == BY_HAND}
    kept = {name: value for name, value in own.items() if name not in (*SEEDS, *BY_SPEED)}
    text = json.dumps([plan.data_hash, kept], sort_keys=True, default=str)
    return {"recipe": hashlib.sha256(text.encode()).hexdigest(), "seed": plan["training.seed"]}


def preregistered_margin(plan: Plan | None) -> float | None:
    """The margin that was fixed before training; None where there is none, or something has been changed since."""
    if plan is None or plan[MARGIN] is None or PREREGISTERED not in plan:
        return None
    return float(plan[MARGIN]) if plan[PREREGISTERED] == preregistration_digest(plan) else None


def preregistered_groups(plan: Plan | None) -> str | None:
    """The groups fixed before training; None where there are none, or something has been changed since."""
    if plan is None or PREREGISTERED not in plan or plan[PREREGISTERED] != preregistration_digest(plan):
        return None
    return None if plan[GROUPS] is None else str(plan[GROUPS])


def read_plan(path: Path) -> Plan:
    """The plan in a file, checked; PlanError names file, line and what is wrong.

    What follows from an edited value follows it, as from one that is set on the command line.
    """
    try:
        if path.stat().st_size > LARGEST_PLAN:
            raise PlanError("is larger than any plan", str(path), "Give a file that `hilum plan` wrote")
        text = path.read_text(encoding="utf-8")
        _refuse_tricks(text, lambda line: f"{path}, line {line}")
        plain: Any = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, UnicodeDecodeError, ValueError) as error:  # ValueError: an impossible date
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise PlanError(f"is not YAML{line and ':'}{line}", str(path), "Correct the line, or plan again") from error
    lines = Lines(text)
    if not isinstance(plain, dict) or "hilum_plan" not in plain:
        raise PlanError("is not a Hilum plan", str(path), "Give a file that `hilum plan` wrote")
    if (version := plain.pop("hilum_plan")) != PLAN_VERSION:
        raise PlanError(
            f"is a plan of version {version}, this hilum follows version {PLAN_VERSION}",
            f"{path}, line {lines.line_of('hilum_plan')}",
            "Plan again with this version",
        )
    head = {key: _head(path, lines, key, plain.pop(key, type_())) for key, type_ in HEAD.items()}
    planned = head.pop("as_planned")
    sections = {
        section: {
            name: _decision(path, lines, section, name, entry, planned)
            for name, entry in _head(path, lines, section, entries).items()
        }
        for section, entries in plain.items()
    }
    _check_names(path, lines, sections, planned)
    edited = [
        f"{section}.{name}"
        for section, decisions in sections.items()
        for name, decision in decisions.items()
        if _is_edited(f"{section}.{name}", decision.value, planned)
    ]
    plan = Plan(sections, **head)
    try:
        plan = objective_rules.with_sections(plan)
        typed_sections.typed_plan(plan)  # what follows is worked out from possible values alone
        plan = plan_changes.with_settings(plan, {name: plan[name] for name in edited})
        plan_checks.checked_settings(plan)
    except PlanError as error:
        where = f"{path}, line {lines.line_of(*error.where.split('.', 1))}"
        raise PlanError(f"{error.where}: {error.problem}", where, error.remedy) from error
    return plan


def edited_decisions(path: Path) -> list[str]:
    """The names of decisions of a plan, which `read_plan` can read, whose values are not those that were written."""
    plain: Any = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    planned = plain.get("as_planned", {})
    return [
        f"{section}.{name}"
        for section, entries in plain.items()
        if section not in (*HEAD, "hilum_plan")
        for name, entry in entries.items()
        if _is_edited(f"{section}.{name}", entry["value"], planned)
    ]


@dataclass(frozen=True)
class Lines:
    """The lines of a file on which names stand, counted from 1; only an error asks, and to find them takes longest."""

    text: str

    @cached_property
    def _record(self) -> Any:
        return YAML(typ="rt").load(self.text)

    def line_of(self, *names: str) -> int:
        """The line of a key, or of a key in a section; of the value where it has one of its own."""
        *above, key = names
        try:
            record = self._record[above[0]] if above else self._record
            if isinstance(record[key], Mapping) and "value" in record[key]:
                return int(record[key].lc.value("value")[0]) + 1
            return self.of_key(*names)
        except (KeyError, TypeError, AttributeError):
            return 1

    def of_key(self, *names: str) -> int:
        """The line of the key itself."""
        *above, key = names
        try:
            record = self._record[above[0]] if above else self._record
            return int(record.lc.key(key)[0]) + 1
        except (KeyError, TypeError, AttributeError):
            return 1


def _head(path: Path, lines: Lines, key: str, value: Any) -> Any:
    expected = HEAD.get(key, dict)
    if isinstance(value, expected):
        return value
    what = "names with values" if expected is dict else "text"
    problem = f"{key} holds {value!r}, not {what}"
    raise PlanError(problem, f"{path}, line {lines.line_of(key)}", "Correct it, or plan again")


def _check_names(
    path: Path, lines: Lines, sections: Mapping[str, Mapping[str, Decision]], planned: Mapping[str, str]
) -> None:
    """Every decision that was planned, and no other: a misspelt name would be a choice that nobody follows."""
    if not planned:
        return
    present = {f"{section}.{name}": (section, name) for section, names in sections.items() for name in names}
    for full, (section, name) in present.items():
        if full not in planned:
            where = f"{path}, line {lines.of_key(section, name)}"
            raise PlanError(f"{full}: there is no such decision", where, "Correct the name, or plan again")
    if missing := sorted(set(planned) - set(present)):
        raise PlanError(f"has no {missing[0]}", str(path), "Put it back, or plan again")


def parse_value(text: str) -> Any:
    """A value as it would stand in the file: `3`, `true`, `[32, 32]`, `unet`; `32,32` is a list too."""
    if re.fullmatch(rf"\s*{NUMBER}(\s*,\s*{NUMBER})+\s*", text):
        text = f"[{text}]"
    # YAML 1.2 wants a dot in a number with an exponent; people do not.
    text = re.sub(r"^([+-]?\d+)([eE][+-]?\d+)$", r"\1.0\2", text)
    try:
        if len(text) > LONGEST_VALUE:
            raise ValueError("longer than any value")
        _refuse_tricks(text, lambda _: "--set")
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError) as error:
        shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
        raise PlanError(f"{shown!r} cannot be read as a value", "--set", "Write section.name=value") from error


def _refuse_tricks(text: str, where: Callable[[int], str]) -> None:
    """Refuse aliases, by which a short text becomes gigabytes, and nesting by which a reader's stack overflows.

    where: from a line to the place that an error names
    """
    depth = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None) or depth > DEEPEST:
            what = f"is nested deeper than {DEEPEST} levels" if depth > DEEPEST else "holds an alias or anchor (& or *)"
            raise PlanError(what, where(event.start_mark.line + 1), "Write each value where it belongs")


def _entry(decision: Decision, is_usual: bool) -> dict[str, PlainValue]:
    entry: dict[str, PlainValue] = {"value": decision.value, "because": decision.because}
    entry |= {"source": decision.source} if decision.source else {}
    return entry | ({"default": True} if is_usual else {})


def _decision(path: Path, lines: Lines, section: str, name: str, entry: Any, planned: Mapping[str, str]) -> Decision:
    if not isinstance(entry, Mapping) or "value" not in entry:
        where = f"{path}, line {lines.line_of(section, name)}"
        raise PlanError(f"{section}.{name} has no value", where, "Write `value:` under its name")
    value = entry["value"]
    if _is_edited(f"{section}.{name}", value, planned):
        return Decision(value, BY_HAND)
    return Decision(value, str(entry.get("because", "")), str(entry.get("source", "")))


def _is_edited(name: str, value: Any, planned: Mapping[str, str]) -> bool:
    """Whether a decision has another value than when the plan was written."""
    return planned.get(name) not in (None, _digest(value))


def _digest(value: Any) -> str:
    """The digest of a value as YAML returns it: 1.0 and 1 differ, tuples and lists do not."""
    # `str` is for a date that somebody wrote: it is refused later, by its type
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]
