"""The DICOM JSON model (PS3.18 F): elements from keywords and headers, and whether they are as a search wants them.

Searches come over HTTP or over DIMSE (PS3.4 C.2.2.2).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from math import isfinite, isnan
from typing import Any

from typing_extensions import TypeAliasType

from hilum.files.dicom import library_warnings
from hilum.files.dicom.header_reading import Header
from hilum.lazy import pydicom
from hilum.values.plain_values import PlainValue

# Elements by the eight digits of their tags, {tag: {vr, Value}}.
DicomJson = dict[str, Any]
# What a search wants: {tag: text}, or of a sequence {tag: {tag: text}}.
Conditions = TypeAliasType("Conditions", "dict[str, str | Conditions]")
MEDIA = "application/dicom+json"
IN_JSON: dict[str, dict[str, DicomJson]] = {"content": {MEDIA: {}}}  # what OpenAPI states of an answer in it
BULK = ("OB", "OD", "OF", "OL", "OV", "OW", "UN")
PIXELS = ("7FE00008", "7FE00009", "7FE00010")
CHARACTER_SET = "00080005"  # JSON is UTF-8, PS3.18 F.2


def tag_digits(name: str) -> str | None:
    """Eight hexadecimal digits of an attribute that is named by keyword or by tag; None where there is none."""
    tag = int(name, 16) if re.fullmatch(r"[0-9A-Fa-f]{8}", name) else pydicom.datadict.tag_for_keyword(name)
    return None if tag is None or not pydicom.datadict.keyword_for_tag(tag) else f"{tag:08X}"


def keyword_of(tag: str) -> str:
    """The keyword of an attribute by its eight digits."""
    return str(pydicom.datadict.keyword_for_tag(int(tag, 16)))


def json_element(keyword: str, values: Sequence[Any]) -> DicomJson:
    """One element, {tag: {vr, Value}}; without values only that it is there."""
    tag = pydicom.datadict.tag_for_keyword(keyword)
    if tag is None:
        return {}
    vr = pydicom.datadict.dictionary_VR(tag).partition(" ")[0]
    values_stated = [_json_value(vr, value) for value in values if value not in ("", None)]
    return {f"{tag:08X}": {"vr": vr, "Value": values_stated} if values_stated else {"vr": vr}}


def json_elements(attributes: Mapping[str, PlainValue]) -> DicomJson:
    """Elements from {keyword: value or values}, as the records keep them."""
    content: DicomJson = {}
    for keyword, value in attributes.items():
        content |= json_element(keyword, value if isinstance(value, list) else [value])
    return content


def header_elements(head: Header) -> DicomJson:
    """All elements of an object but its pixels; what cannot be read of it is left out."""
    with library_warnings.collect_warnings():  # what is odd is said with its value, which may be a patient's
        every: DicomJson = head.library.to_json_dict(suppress_invalid_tags=True)
    shown = {tag: value for tag, value in every.items() if tag not in (*PIXELS, CHARACTER_SET) and tag > "0003"}
    return {tag: _in_json(value) for tag, value in shown.items()}


def _in_json(value: Any) -> Any:
    """The value with texts for numbers that JSON does not have, whatever it holds them in. PS3.18 F.2.3"""
    match value:
        case dict():
            return {name: _in_json(one) for name, one in value.items()}
        case list():
            return [_in_json(one) for one in value]
        case float() if not isfinite(value):
            return "NaN" if isnan(value) else "inf" if value > 0 else "-inf"
    return value


def _json_value(vr: str, value: Any) -> Any:
    if vr == "PN":
        return {group: part for group, part in zip(GROUPS, str(value).split("="), strict=False) if part}
    if vr in NUMBERS:
        try:
            return _in_json(NUMBERS[vr](value))
        except ValueError:
            return str(value)
    return value if vr == "SQ" else str(value)


RANGES = ("DA", "DT", "TM")
GROUPS = ("Alphabetic", "Ideographic", "Phonetic")  # of a person's name, which "=" separates, PS3.18 F.2.2
# A date and time with its offset from UTC: four digits up to 1400 behind a hyphen are one, and no year. PS3.5 6.2
DATE_TIME = r"\d{4,14}(?:\.\d{1,6})?(?:[+-](?:0\d|1[0-4])[0-5]\d)?"
NUMBERS = {"DS": float, "FD": float, "FL": float, "IS": int, "SL": int, "SS": int, "UL": int, "US": int}


def element_matches(held: DicomJson | None, condition: str) -> bool:
    """Whether an element is as a search wants it: equal, one of several UIDs, in a range of days or times, a pattern.

    A name matches in any of its component groups, or group by group where several are wanted. PS3.4 C.2.2.2
    """
    if not condition.strip("*"):  # anything, nothing too: PS3.4 C.2.2.2.3 and C.2.2.2.4
        return True
    values = (held or {}).get("Value", [])
    vr = "" if held is None else held["vr"]
    if vr == "PN":
        return any(_is_name(value, condition) for value in values)
    texts = [str(value) for value in values]
    if vr == "UI":
        return not set(texts).isdisjoint(re.split(r"[,\\]", condition))
    if vr in NUMBERS:
        return condition in texts
    ends = value_range(vr, condition)
    if ends is not None:
        return any(_is_between(value, *ends) for value in texts)
    return any(_fits(value, condition) for value in texts)


def elements_match(elements: DicomJson, conditions: Conditions) -> bool:
    """Whether elements are as wanted, {tag: text}, or of a sequence {tag: {tag: text}}, which one item has to meet."""
    for tag, value in conditions.items():
        held = elements.get(tag)
        if not isinstance(value, str):
            items = (held or {}).get("Value", [])
            if not _is_universal(value) and not any(elements_match(item, value) for item in items):
                return False
        elif not element_matches(held, value):
            return False
    return True


def _is_universal(condition: str | Conditions) -> bool:
    """Whether anything is meant, nothing too: PS3.4 C.2.2.2.3 and C.2.2.2.6."""
    return not condition.strip("*") if isinstance(condition, str) else all(map(_is_universal, condition.values()))


class Addition(Enum):
    """Whether a parameter of a query became a condition: it did, it names no attribute, or one that has a condition."""

    ADDED = "added"
    UNKNOWN = "unknown"
    REPEATED = "repeated"


def add_condition(conditions: Conditions, name: str, value: str) -> Addition:
    """Add an attribute that a query names by keywords or tags: {tag: text}, or {tag: {tag: text}} within a sequence.

    Nothing is added of a name that is unknown or repeated. PS3.18 8.3.4.1
    """
    tags = [tag_digits(part) for part in name.split(".")]
    if None in tags:
        return Addition.UNKNOWN
    *outer, last = (str(tag) for tag in tags)
    level = conditions
    for tag in outer:
        within = level.setdefault(tag, {})
        if isinstance(within, str):
            return Addition.REPEATED
        level = within
    if last in level:
        return Addition.REPEATED
    level[last] = value
    return Addition.ADDED


def _fits(value: str, condition: str, flags: int = 0) -> bool:
    """Whether a text is as a pattern with * and ? wants it."""
    return re.match(fnmatch.translate(condition.replace("[", "[[]")), value, flags) is not None


def _is_name(name: Mapping[str, str], condition: str) -> bool:
    """Whether a name is as condition: capitals do not count, nor does an empty group of what is wanted."""
    held = [str(name.get(group, "")) for group in GROUPS]
    if "=" not in condition:
        return any(group and _fits(group, condition, re.IGNORECASE) for group in held)
    groups = zip(condition.split("="), held, strict=False)
    return all(not one or _fits(group, one, re.IGNORECASE) for one, group in groups)


def value_range(vr: str, condition: str) -> tuple[str, str] | None:
    """(first, last) of a range of days or times, empty where it is open; None for what is no range. PS3.4 C.2.2.2.5"""
    if vr == "DT":
        match = re.fullmatch(f"({DATE_TIME})?-({DATE_TIME})?", condition)
        if match is None or re.fullmatch(DATE_TIME, condition):
            return None
        return match[1] or "", match[2] or ""
    if vr not in RANGES or "-" not in condition:
        return None
    low, _, high = condition.replace(":", "").partition("-")
    return low, high


def _is_between(value: str, low: str, high: str) -> bool:
    """Whether a day or time is in a range; whatever is less exact, an end or the value itself, is meant whole."""
    first, last = (re.split("[+-]", end)[0] for end in (low, high))
    since, until = _local(value, low), _local(value, high)
    return first[: len(since)] <= since and (not last or until[: len(last)] <= last)


def _local(value: str, end: str) -> str:
    """A day or time without its offset from UTC, moved to that of a range's end where both state one."""
    digits, zone, other = re.split("[+-]", value)[0], re.search(r"[+-]\d{4}$", value), re.search(r"[+-]\d{4}$", end)
    if zone is None or other is None or len(digits) < len("YYYYMMDDHHMMSS"):
        return digits
    try:
        moved = datetime.strptime(digits[:14] + zone[0], "%Y%m%d%H%M%S%z")
        moved = moved.astimezone(datetime.strptime(other[0], "%z").tzinfo)
    except (ValueError, OverflowError):
        return digits
    return moved.strftime("%Y%m%d%H%M%S") + digits[14:]
