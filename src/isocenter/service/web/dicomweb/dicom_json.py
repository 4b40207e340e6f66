"""The DICOM JSON model (PS3.18 F): elements of it, and what a search asks of them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from isocenter.files.dicom import Header, quiet

DicomJson = dict[str, Any]
MEDIA = "application/dicom+json"
IN_JSON: dict[str, Any] = {"content": {MEDIA: {}}}  # what OpenAPI states of an answer in it
BULK = ("OB", "OD", "OF", "OL", "OV", "OW", "UN")
PIXELS = ("7FE00008", "7FE00009", "7FE00010")
CHARACTER_SET = "00080005"  # JSON is UTF-8, PS3.18 F.2
RANGES = ("DA", "TM")
NUMBERS = {"DS": float, "FD": float, "FL": float, "IS": int, "SL": int, "SS": int, "UL": int, "US": int}


def tag_of(name: str) -> str | None:
    """Eight hexadecimal digits of an attribute that is named by keyword or by tag; None where there is none."""
    tag = int(name, 16) if re.fullmatch(r"[0-9A-Fa-f]{8}", name) else tag_for_keyword(name)
    return None if tag is None or not keyword_for_tag(tag) else f"{tag:08X}"


def element(keyword: str, values: Sequence[Any]) -> DicomJson:
    """One element, {tag: {vr, Value}}; without values only that it is there."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        return {}
    vr = dictionary_VR(tag).partition(" ")[0]
    stated = [_stated(vr, value) for value in values if value not in ("", None)]
    return {f"{tag:08X}": {"vr": vr, "Value": stated} if stated else {"vr": vr}}


def elements(attributes: Mapping[str, Any]) -> DicomJson:
    """Elements from {keyword: value or values}, as the records keep them."""
    made: DicomJson = {}
    for keyword, value in attributes.items():
        made |= element(keyword, value if isinstance(value, list) else [value])
    return made


def header_elements(head: Header) -> DicomJson:
    """All elements of an object but its pixels; what cannot be read of it is left out."""
    with quiet():  # what is odd is said with its value, which may be a patient's
        every: DicomJson = head.library.to_json_dict(suppress_invalid_tags=True)
    return {tag: value for tag, value in every.items() if tag not in (*PIXELS, CHARACTER_SET) and tag > "0003"}


def matches(held: Mapping[str, Any] | None, wanted: str) -> bool:
    """Whether an element is as a search wants it: equal, one of several UIDs, in a range of days or times, a pattern.

    PS3.4 C.2.2.2
    """
    if not wanted:
        return True
    values = [_text(value) for value in (held or {}).get("Value", [])]
    vr = "" if held is None else held["vr"]
    if vr == "UI":
        return not set(values).isdisjoint(re.split(r"[,\\]", wanted))
    if vr in RANGES and "-" in wanted:
        low, _, high = wanted.replace(":", "").partition("-")
        return any(low <= value and (not high or value[: len(high)] <= high) for value in values)
    if vr in NUMBERS:
        return wanted in values
    pattern = re.compile(fnmatch.translate(wanted.replace("[", "[[]")), re.IGNORECASE if vr == "PN" else 0)
    return any(pattern.match(value) for value in values)


def _stated(vr: str, value: Any) -> Any:
    if vr == "PN":
        return {"Alphabetic": str(value)}
    if vr in NUMBERS:
        try:
            return NUMBERS[vr](value)
        except ValueError:
            return str(value)
    return value if vr == "SQ" else str(value)


def _text(value: Any) -> str:
    return str(value.get("Alphabetic", "")) if isinstance(value, dict) else str(value)
