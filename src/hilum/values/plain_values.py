"""What JSON and YAML hold: the type of settings and facts that may be any of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import TypeAliasType

PlainValue = TypeAliasType(
    "PlainValue", "bool | int | float | str | Sequence[PlainValue] | Mapping[str, PlainValue] | None"
)


def as_json(value: Any) -> Any:
    """Only what JSON knows: tuples and arrays become lists, NumPy numbers plain ones, NaN and infinity null."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    match value:
        case Mapping():
            return {str(key): as_json(one) for key, one in value.items()}
        case list() | tuple():
            return [as_json(one) for one in value]
        case float() if not abs(value) < float("inf"):
            return None
        case _:
            return value
