"""Single DICOM attributes, typed; a value that is not of the standard's kind is refused with its tag."""

from __future__ import annotations

import math
import re
import struct
import zlib
from datetime import datetime
from typing import Any

from hilum.errors import FormatError
from hilum.files.dicom import elements
from hilum.files.dicom.elements import DicomDataset
from hilum.lazy import pydicom

# Characters of a text that anything looks at: as many as a short text (ST) may have, PS3.5 6.2. In a longer one a
# damaged length has swallowed what stood behind it.
LONGEST_TEXT = 1024
# Of a number as text; the standard allows 16 characters, and doubles in full take 25.
LONGEST_NUMBER = 32
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def pydicom_errors() -> tuple[type[Exception], ...]:
    """The errors that pydicom raises for damaged bytes: it has no class of its own, and the bytes decide which it is.

    A function, because an `except` asks for it only where something was raised; its import takes long.
    """
    return (
        pydicom.errors.BytesLengthException,
        pydicom.errors.InvalidDicomError,
        ArithmeticError,
        AssertionError,
        AttributeError,
        EOFError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        struct.error,
        zlib.error,
    )


def attribute(dataset: DicomDataset, keyword: str, where: str) -> Any:
    """The value as pydicom gives it, None where it is absent or empty.

    Raises FormatError where the bytes cannot be understood as the attribute's type.
    """
    tag = elements.tag_of_keyword(keyword)
    if tag is None or tag not in dataset.keys():  # noqa: SIM118 - most are absent, which pydicom takes long to say
        return None
    try:
        value = dataset[tag].value
    except pydicom_errors() as error:
        raise malformed_error(keyword, str(error), where) from error
    blank = not value.strip() if isinstance(value, str | bytes) else hasattr(value, "__len__") and len(value) == 0
    return None if blank else value


def values_in(value: Any) -> list[Any]:
    """The values of an attribute: those of a multi-valued one, else the one."""
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str | bytes) else [value]


def numbers(dataset: DicomDataset, keyword: str, where: str, count: int | None = None) -> tuple[float, ...] | None:
    """All numbers of an attribute, None where it is absent or empty; `count` is how many there must be.

    Raises FormatError for what is no finite number, or where there are more or fewer.
    """
    value = attribute(dataset, keyword, where)
    if value is None:
        return None
    try:
        values = tuple(_number(one) for one in _split_values(value))
    except (TypeError, ValueError, ArithmeticError) as error:
        # Whatever text stands there may name a patient, and a node shows the problem of a series to others.
        raise malformed_error(keyword, "the value is not a number", where) from error
    if not all(math.isfinite(v) for v in values):
        raise malformed_error(keyword, "the value is not finite", where)
    if count is not None and len(values) != count:
        raise malformed_error(keyword, f"{len(values)} values where {count} belong", where)
    return values


def _split_values(value: Any) -> list[Any]:
    """The values of an attribute that may have several, also where its VR is that of one long text (UT, LT, ST)."""
    return [part for one in values_in(value) for part in (one.split("\\") if isinstance(one, str) else [one])]


def _number(value: Any) -> float:
    """The number; ValueError for text that is none: Python takes 1_000, and digits of any script, for numbers."""
    original = value if isinstance(value, str) else getattr(value, "original_string", None)
    if not isinstance(original, str):
        return float(value)
    bare = original.strip(" \0")
    if len(bare) > LONGEST_NUMBER or not NUMBER.fullmatch(bare):
        raise ValueError("no number")
    return float(bare)


def last_digits(dataset: DicomDataset, keyword: str) -> tuple[float, ...]:
    """The unit of each number's last written digit: of "12.5" 0.1, at most 1; 0 where a number is not text."""
    return tuple(_last_digit(one) for one in elements.written_numbers(dataset, keyword))


def _last_digit(number: str) -> float:
    mantissa, _, exponent = number.strip(" \0").lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return min(float(f"1e{int(exponent or 0) - decimals}"), 1.0) if mantissa else 0.0


def single_number(dataset: DicomDataset, keyword: str, where: str) -> float | None:
    """The one number of an attribute, None where it is absent. Raises FormatError for anything else."""
    values = numbers(dataset, keyword, where, count=1)
    return values[0] if values else None


def whole_number(dataset: DicomDataset, keyword: str, where: str) -> int | None:
    """A whole number, None where it is absent. Raises FormatError for anything else."""
    value = single_number(dataset, keyword, where)
    if value is not None and value != int(value):
        raise malformed_error(keyword, f"{value} is not a whole number", where)
    return None if value is None else int(value)


def lenient_number(dataset: DicomDataset, keyword: str) -> float | None:
    """A number that only orders or describes: what is damaged counts as absent."""
    try:
        return single_number(dataset, keyword, "")
    except FormatError:
        return None


def text(dataset: DicomDataset, keyword: str) -> str:
    """The value as text, empty where it is absent or unreadable; no more than its first characters."""
    value = _readable(dataset, keyword)
    return "" if value is None else str(value)[:LONGEST_TEXT].strip()


def is_too_long(dataset: DicomDataset, keyword: str) -> bool:
    """Whether a text is longer than what is looked at of it."""
    value = _readable(dataset, keyword)
    return value is not None and len(str(value)) > LONGEST_TEXT


def words(dataset: DicomDataset, keyword: str) -> tuple[str, ...]:
    """The values of a multi-valued text; none where it is absent or unreadable."""
    value = _readable(dataset, keyword)
    return () if value is None else tuple(str(v)[:LONGEST_TEXT].strip() for v in _split_values(value))


def items(dataset: DicomDataset, keyword: str) -> list[DicomDataset]:
    """The items of a sequence, none where it is absent or no sequence."""
    sequence = _readable(dataset, keyword)
    return [] if sequence is None else [item for item in values_in(sequence) if isinstance(item, pydicom.Dataset)]


def _readable(dataset: DicomDataset, keyword: str) -> Any:
    """The value, None where it is absent or its bytes cannot be understood."""
    try:
        return attribute(dataset, keyword, "")
    except FormatError:
        return None


def first_item(dataset: DicomDataset, keyword: str) -> DicomDataset | None:
    """The first item of a sequence, None where there is none."""
    return next(iter(items(dataset, keyword)), None)


def frame_groups(dataset: DicomDataset, frame: int) -> list[DicomDataset]:
    """The functional groups of a frame: its own, then the shared ones. PS3.3 C.7.6.16"""
    frame_groups = items(dataset, "PerFrameFunctionalGroupsSequence")
    return [*frame_groups[frame : frame + 1], *items(dataset, "SharedFunctionalGroupsSequence")[:1]]


def time_in_seconds(value: str) -> float | None:
    """A DICOM time (TM) or date and time (DT) in s, None where it is neither. PS3.5 6.2; "09:53:00" is the old style.

    Only differences mean something: a DT counts from the first day of the calendar, a TM from midnight, both by the
    clock that they were read from; `utc_offset` says how far that is ahead.
    """
    match = re.fullmatch(r"(\d{8})?(\d{2})(\d{2})?(\d{2}(?:\.\d*)?)?(?:[+-]\d{4})?", value.replace(":", "").strip())
    if match is None:
        return None
    try:
        days = datetime.strptime(match[1], "%Y%m%d").toordinal() if match[1] else 0
    except ValueError:
        return None
    return days * 86400.0 + int(match[2]) * 3600 + int(match[3] or 0) * 60 + float(match[4] or 0)


def utc_offset(value: str) -> float | None:
    """s by which the clock of a DT, or of Timezone Offset From UTC, is ahead of UTC; None where it is not stated.

    PS3.5 6.2, PS3.3 C.12.1.1.8
    """
    match = re.search(r"([+-])(\d{2})(\d{2})$", value.strip())
    return None if match is None else float(f"{match[1]}1") * (int(match[2]) * 3600 + int(match[3]) * 60)


def malformed_error(keyword: str, what: str, where: str) -> FormatError:
    """The error for an attribute whose value cannot be."""
    return FormatError(f"{keyword_with_tag(keyword)}: {what}", where, "Correct the attribute, or export the file again")


def keyword_with_tag(keyword: str) -> str:
    """A keyword with its tag, as in "PixelSpacing (0028,0030)"."""
    tag = elements.tag_of_keyword(keyword)
    return keyword if tag is None else f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def file_meta(dataset: DicomDataset) -> DicomDataset:
    """The File Meta Information of an object, PS3.10 7.1; empty for one that was not read from a whole file."""
    meta: DicomDataset | None = getattr(dataset, "file_meta", None)
    return pydicom.Dataset() if meta is None else meta


def code_item(scheme: str, value: str, meaning: str) -> pydicom.Dataset:
    """An item of a sequence of codes, PS3.3 8.8."""
    code = pydicom.Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code
