"""What is said about a patient, as tables and headers write it."""

from __future__ import annotations

import math
import re
from typing import Any

# DICOM writes 045Y, PS3.5 6.2; months, weeks and days are of children.
AGE = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*([YMWD]?)\s*", re.IGNORECASE)
DAYS = {"": 365.25, "Y": 365.25, "M": 30.44, "W": 7.0, "D": 1.0}
NOTHING = frozenset({"", "nan", "na", "n/a", "none", "[not available]"})


def is_missing(value: Any) -> bool:
    """None, an empty word or no number."""
    return value is None or str(value).strip().lower() in NOTHING


def number_in(value: Any) -> float | None:
    """A number as it is, or in years where it is an age as DICOM writes it; None where it is none."""
    text = str(value).strip()
    fit = AGE.fullmatch(text)
    if fit is not None and fit[2]:
        return float(fit[1]) * DAYS[fit[2].upper()] / DAYS["Y"]
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def level_in(value: Any) -> str:
    """A category as text, of which case and blanks do not matter; a whole number has no decimals."""
    text = str(value).strip().casefold()
    return text.removesuffix(".0") if text.removesuffix(".0").lstrip("-").isdecimal() else text
