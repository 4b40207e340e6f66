"""The DICOM JSON model (PS3.18 F): elements of it from keywords and headers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isfinite, isnan
from typing import Any

from isocenter.files.dicom import Header, quiet
from isocenter.lazy import pydicom
from isocenter.service.objects.matching import GROUPS, NUMBERS

DicomJson = dict[str, Any]
MEDIA = "application/dicom+json"
IN_JSON: dict[str, Any] = {"content": {MEDIA: {}}}  # what OpenAPI states of an answer in it
BULK = ("OB", "OD", "OF", "OL", "OV", "OW", "UN")
PIXELS = ("7FE00008", "7FE00009", "7FE00010")
CHARACTER_SET = "00080005"  # JSON is UTF-8, PS3.18 F.2


def tag_of(name: str) -> str | None:
    """Eight hexadecimal digits of an attribute that is named by keyword or by tag; None where there is none."""
    tag = int(name, 16) if re.fullmatch(r"[0-9A-Fa-f]{8}", name) else pydicom.datadict.tag_for_keyword(name)
    return None if tag is None or not pydicom.datadict.keyword_for_tag(tag) else f"{tag:08X}"


def element(keyword: str, values: Sequence[Any]) -> DicomJson:
    """One element, {tag: {vr, Value}}; without values only that it is there."""
    tag = pydicom.datadict.tag_for_keyword(keyword)
    if tag is None:
        return {}
    vr = pydicom.datadict.dictionary_VR(tag).partition(" ")[0]
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
    kept = {tag: value for tag, value in every.items() if tag not in (*PIXELS, CHARACTER_SET) and tag > "0003"}
    return {tag: _in_json(value) for tag, value in kept.items()}


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


def _stated(vr: str, value: Any) -> Any:
    if vr == "PN":
        return {group: part for group, part in zip(GROUPS, str(value).split("="), strict=False) if part}
    if vr in NUMBERS:
        try:
            return _in_json(NUMBERS[vr](value))
        except ValueError:
            return str(value)
    return value if vr == "SQ" else str(value)
