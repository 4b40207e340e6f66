"""The declaration of a record: the name that its file states, and the type with the keys that it holds.

`docs/records.md` and the JSON Schema in the wheel are made from these declarations: `python docs/write_records.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any, Generic, NotRequired, Self, TypeVar, cast, get_origin, get_type_hints

from pydantic import JsonValue
from typing_extensions import TypedDict

from hilum.values.plain_values import PlainValue
from hilum.values.plan_decisions import Decision

R = TypeVar("R")


class RecordSchema(str, Generic[R]):
    """The name of a kind of record, as its file states it; `declaration` is the type of what the record holds."""

    __slots__ = ("declaration",)
    declaration: type[R]

    def __new__(cls, name: str, declaration: type[R]) -> Self:
        """name: as `hilum.run`; declaration: a TypedDict, or another type that pydantic can describe."""
        schema = super().__new__(cls, name)
        schema.declaration = declaration
        return schema

    def record_of(self, result: object, /, **others: object) -> R:
        """The record of a result: each key of the declaration from `others`, or else from the result's attribute.

        A key that may be absent is left out where its value is None; a dataclass becomes the object of its fields, also
        where it stands in the declaration.
        """
        record: dict[str, object] = {"schema": self, "version": 1}
        for key, kind in get_type_hints(self.declaration, include_extras=True).items():
            if key not in record:
                value = others[key] if key in others else getattr(result, key)
                record |= {} if value is None and get_origin(kind) is NotRequired else {key: plain(value)}
        return cast("R", record)


class RecordHead(TypedDict):
    """What each record begins with."""

    schema: str
    version: int


def plain(value: Any) -> Any:
    """A value of a result as JSON has it; numbers stay what they are."""
    match value:
        case PurePath():
            return str(value)
        case Mapping():
            return {key: plain(one) for key, one in value.items()}
        case list() | tuple():
            return [plain(one) for one in value]
        case _ if hasattr(value, "as_record"):
            return value.as_record()
        case _ if is_dataclass(value):
            return plain_fields(value)
        case _:
            return value


def plain_fields(result: Any) -> dict[str, JsonValue]:
    """{name: value} of the fields of a result whose record holds just these."""
    return {one.name: plain(getattr(result, one.name)) for one in fields(result)}


class RecordOfFields:
    """A result whose record for `--json` holds its fields."""

    def as_record(self) -> dict[str, JsonValue]:
        """The record for `--json`."""
        return plain_fields(self)


class RowsRecord(RecordHead):
    """Rows, each with the same keys."""

    rows: list[Mapping[str, PlainValue]]


class StatedDecision(TypedDict):
    """A value with its reason and the source of the rule."""

    value: JsonValue
    because: str
    source: str


def decision_record(decision: Decision) -> StatedDecision:
    """A decision as records state it."""
    return StatedDecision(value=decision.value, because=decision.because, source=decision.source)


class FigureRow(TypedDict):
    """A figure with its interval; null where it is not defined."""

    metric: str
    label: str
    value: float | None
    low: float | None
    high: float | None
    level: float
    n: int
    patients: int | None
    unit: str
    method: str


class FullFigure(TypedDict):
    """A figure as `Estimate` has it, without its draws, which are null."""

    value: float | None
    low: float | None
    high: float | None
    level: float
    n: int
    patients: int
    unit: str
    method: str
    draws: None
    recipe: None


class FailedCase(TypedDict):
    """A case without a result: why, and what to do."""

    case: str | None
    problem: str
    remedy: str


class GainRecord(TypedDict):
    """A figure beside what it has to exceed."""

    metric: str
    label: str
    than: str
    outcome: str
    difference: float | None
    low: float | None
    high: float | None


class VerdictRecord(TypedDict):
    """What the figures of a model support; `answer` is yes, no or not known."""

    answer: str
    gains: list[GainRecord]
    training: list[str]
    against: list[str]


class ShiftRecord(TypedDict):
    """Whether the scored cases differ from those that calibrated the model: `found` where p is below the level."""

    p: float
    scored: int
    calibrated: int
    level: float
    unit: str
    found: bool
    note: str
