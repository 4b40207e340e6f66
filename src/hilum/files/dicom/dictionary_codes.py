"""Codes of DICOM's own dictionary for plain names, as pydicom carries it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

from hilum.lazy import codedict
from hilum.values import Code

# {keyword: {value: (meaning, context groups)}} of one scheme.
Concepts = Mapping[str, Mapping[str, tuple[str, Any]]]
SCHEMES = ("SCT", "DCM")
# Shorter names are abbreviations, which mean something else elsewhere.
FEWEST_LETTERS = 4
# Of a segment whose label has no code: PS3.16 CID 7150 and 7151 offer nothing less specific than tissue.
TISSUE = Code("SCT", "85756007", "Tissue")
# In the names of context groups of PS3.16 whose codes say what a segment is; modifiers such as "left" say how it is.
OF_STRUCTURES = re.compile("PropertyType|SegmentationType|Anatomic|Structure|Region|Organ|Site")


def dictionary_code(name: str) -> Code | None:
    """The code whose meaning is this name, case aside; None where there is none, or more than one."""
    sought = name.strip().casefold()
    return _by_meaning().get(sought) if len(sought) >= FEWEST_LETTERS else None


def names_structure(code: Code) -> bool:
    """Whether a code can say what a segment shows; of a code that DICOM's dictionary does not know, if not private."""
    concepts = cast("Mapping[str, Concepts]", codedict.CONCEPTS).get(code.scheme, {})
    known = [groups for values in concepts.values() if code.value in values for groups in [values[code.value][1]]]
    names = [codedict.name_for_cid.get(group, "") for groups in known for group in groups]
    of_structures = any(OF_STRUCTURES.search(name) and not name.endswith("Modifier") for name in names)
    return code != TISSUE and not code.scheme.startswith("99") and (of_structures or not names)


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
