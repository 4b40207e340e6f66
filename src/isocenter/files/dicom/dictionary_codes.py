"""Codes of DICOM's own dictionary for plain names, as pydicom carries it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, cast

from isocenter.lazy import codedict
from isocenter.values import Code

# {keyword: {value: (meaning, context groups)}} of one scheme.
Concepts = Mapping[str, Mapping[str, tuple[str, Any]]]
SCHEMES = ("SCT", "DCM")
# Shorter names are abbreviations, which mean something else elsewhere.
FEWEST_LETTERS = 4


def dictionary_code(name: str) -> Code | None:
    """The code whose meaning is this name, case aside; None where there is none, or more than one."""
    sought = name.strip().casefold()
    return _by_meaning().get(sought) if len(sought) >= FEWEST_LETTERS else None


@cache
def _by_meaning() -> dict[str, Code | None]:
    """{meaning: its code, or None where several codes have it}."""
    codes_by_name, stated_by = dict[str, Code | None](), cast("Mapping[str, Concepts]", codedict.CONCEPTS)
    for scheme in SCHEMES:
        for meanings in stated_by[scheme].values():
            for value, (meaning, _) in meanings.items():
                code, key = Code(scheme, value, meaning), meaning.casefold()
                codes_by_name[key] = code if codes_by_name.get(key, code) == code else None
    return codes_by_name
