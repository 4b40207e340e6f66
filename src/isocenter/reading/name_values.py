"""Names and values that a flag joins with "="; a file of its own, so that `--help` imports no reader of images."""

from __future__ import annotations

from collections.abc import Sequence

from isocenter.errors import UsageError


def pairs(texts: Sequence[str], flag: str) -> dict[str, str]:
    """{name: value} of texts such as "name=value"; UsageError where one lacks either, or a name has two values."""
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise UsageError(f"{text!r} is not of the form name=value", flag, "Write it as name=value")
        if values.setdefault(name, value) != value:
            raise UsageError(f"{name} is {values[name]!r} and {value!r}", flag, "Give it once")
    return values
