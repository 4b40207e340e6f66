"""What JSON and YAML hold: the type of settings and facts that may be any of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from typing_extensions import TypeAliasType

PlainValue = TypeAliasType(
    "PlainValue", "bool | int | float | str | Sequence[PlainValue] | Mapping[str, PlainValue] | None"
)
