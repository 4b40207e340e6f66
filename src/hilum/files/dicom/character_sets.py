"""Terms of Specific Character Set, PS3.3 C.12.1.1.2: those of the standard, and which one a wrong one is near."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from contextlib import suppress

from hilum.lazy import pydicom

UTF_8 = "ISO_IR 192"
ALONE = (UTF_8, "GB18030", "GBK")  # which no other term may stand beside
_PLAIN, _EXTENDED = "ISO_IR {}", "ISO 2022 IR {}"
LATIN = (13, 100, 101, 109, 110, 126, 127, 138, 144, 148, 166)
TERMS = frozenset((
    "", *ALONE, *map(_PLAIN.format, LATIN), *map(_EXTENDED.format, (6, *LATIN, 58, 87, 149, 159)), "ISO_IR 6",
))  # fmt: skip
NUMBERED = re.compile(r"(?:ISO)?(2022)?(?:IR)?(\d{1,3})")


def are_valid_terms(terms: Sequence[str]) -> bool:
    """Whether the values of Specific Character Set are those of the standard, and may stand together."""
    return TERMS.issuperset(terms) and (len(terms) < 2 or not set(terms) & {*ALONE})


def nearest_term(term: str) -> str | None:
    """The term of the standard that is meant: by its number, or as the name of the same encoding; None for neither."""
    match = NUMBERED.fullmatch(re.sub(r"[^A-Z0-9]", "", term.upper()))
    if match is not None:
        own = [form.format(match[2]) for form in (_PLAIN, _EXTENDED)]
        return next((one for one in own[:: -1 if match[1] else 1] if one in TERMS), None)
    with suppress(LookupError, ValueError):
        name, known = codecs.lookup(term.strip()).name, pydicom.charset.python_encoding
        named = {codecs.lookup(known[one]).name: one for one in sorted(TERMS) if not one.endswith(" 6") and one}
        return named.get(name)
    return None


def repair_terms(terms: Sequence[str]) -> str:
    """Let the DICOM library decode text of wrong terms by the nearest ones; what is to be said of it."""
    nearest = {term: nearest_term(term) for term in terms if term not in TERMS}
    known = pydicom.charset.python_encoding
    known.update({term: known[near] for term, near in nearest.items() if near is not None})
    if None in nearest.values():
        return "none of the standard: names that are not ASCII may be wrong"
    meant = ", ".join(filter(None, (nearest.get(term, term) for term in terms)))
    return f"not as the standard has it: taken for {meant}, results are in UTF-8"
