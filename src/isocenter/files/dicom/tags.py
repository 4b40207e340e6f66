"""Looking at single DICOM attributes: typed, and refusing by tag what is not what the standard says it is."""

from __future__ import annotations

import math
import re
from datetime import datetime
from functools import cache
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from isocenter.errors import FormatError


def attribute(dataset: Dataset, keyword: str, where: str) -> Any:
    """The value as pydicom gives it, None where it is absent or empty.

    Raises FormatError where the bytes cannot be understood as the attribute's type.
    """
    tag = _tag(keyword)
    if tag is not None and tag not in dataset.keys():  # noqa: SIM118 - most are absent, which pydicom takes long to say
        return None
    try:
        value = dataset.get(keyword) if tag is None else dataset[tag].value
    except Exception as error:  # pydicom converts at the first look, and what it throws depends on the bytes
        raise malformed(keyword, str(error), where) from error
    empty = value is None or (isinstance(value, str | bytes) and not value.strip())
    return None if empty or (hasattr(value, "__len__") and len(value) == 0) else value


@cache
def _tag(keyword: str) -> BaseTag | None:
    found = tag_for_keyword(keyword)
    return None if found is None else Tag(found)


def numbers(dataset: Dataset, keyword: str, where: str, count: int | None = None) -> tuple[float, ...] | None:
    """All numbers of an attribute, None where it is absent or empty; `count` is how many there must be.

    Raises FormatError for what is no finite number, or where there are more or fewer.
    """
    value = attribute(dataset, keyword, where)
    if value is None:
        return None
    several = not isinstance(value, str | bytes | int | float) and hasattr(value, "__iter__")
    values = list(value) if several else [value]
    try:
        found = tuple(float(v) for v in values)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise malformed(keyword, f"{_short(value)} is no number", where) from error
    if not all(math.isfinite(v) for v in found):
        raise malformed(keyword, f"{_short(value)} is not finite", where)
    if count is not None and len(found) != count:
        raise malformed(keyword, f"{len(found)} values where {count} belong", where)
    return found


def number(dataset: Dataset, keyword: str, where: str) -> float | None:
    found = numbers(dataset, keyword, where, count=1)
    return found[0] if found else None


def whole(dataset: Dataset, keyword: str, where: str) -> int | None:
    """A whole number, None where it is absent."""
    found = number(dataset, keyword, where)
    if found is not None and found != int(found):
        raise malformed(keyword, f"{found} is no whole number", where)
    return None if found is None else int(found)


def lenient(dataset: Dataset, keyword: str) -> float | None:
    """A number that only orders or describes: what is damaged counts as absent."""
    try:
        return number(dataset, keyword, "")
    except FormatError:
        return None


def text(dataset: Dataset, keyword: str) -> str:
    """The value as text, empty where it is absent or unreadable."""
    try:
        value = attribute(dataset, keyword, "")
    except FormatError:
        return ""
    return "" if value is None else str(value).strip()


def words(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """The values of a multi-valued text."""
    try:
        value = attribute(dataset, keyword, "")
    except FormatError:
        return ()
    if value is None:
        return ()
    return (value.strip(),) if isinstance(value, str) else tuple(str(v).strip() for v in value)


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence, none where it is absent or no sequence."""
    try:
        value = attribute(dataset, keyword, "")
    except FormatError:
        return []
    return [item for item in value if isinstance(item, Dataset)] if isinstance(value, Sequence) else []


def item(dataset: Dataset, keyword: str) -> Dataset | None:
    """The first item of a sequence."""
    return next(iter(items(dataset, keyword)), None)


def seconds(value: str) -> float | None:
    """A DICOM time (TM) or date and time (DT) in s, None where it is neither. PS3.5 6.2; "09:53:00" is the old style.

    Only differences mean something: a DT counts from the first day of the calendar, a TM from midnight.
    """
    match = re.fullmatch(r"(\d{8})?(\d{2})(\d{2})?(\d{2}(?:\.\d*)?)?(?:[+-]\d{4})?", value.replace(":", "").strip())
    if match is None:
        return None
    try:
        days = datetime.strptime(match[1], "%Y%m%d").toordinal() if match[1] else 0
    except ValueError:
        return None
    return days * 86400.0 + int(match[2]) * 3600 + int(match[3] or 0) * 60 + float(match[4] or 0)


def malformed(keyword: str, what: str, where: str) -> FormatError:
    return FormatError(f"{named(keyword)}: {what}", where, "Correct the attribute, or export the file again")


def named(keyword: str) -> str:
    """A keyword with its tag, as in "PixelSpacing (0028,0030)"."""
    tag = tag_for_keyword(keyword)
    return keyword if tag is None else f"{keyword} {Tag(tag)}"


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
