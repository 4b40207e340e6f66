"""Attributes of a study and findings of a result in the words that a page shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def shown_name(value: Any) -> str:
    """A PatientName as people write it: "Doe^John^^Dr" is "Doe, John"; of several spellings the first. PS3.5 6.2.1"""
    first = next((group for group in words_of(value).split("=") if group.strip("^ ")), "")
    family, *others = [part.strip() for part in first.split("^")]
    return ", ".join(filter(None, [family, " ".join(filter(None, others[:2]))]))


def shown_date(value: Any) -> str:
    """20240131 as 2024-01-31; anything else as it is."""
    words = words_of(value)
    return f"{words[:4]}-{words[4:6]}-{words[6:8]}" if len(words) == 8 and words.isdigit() else words


def words_of(stated: Any) -> str:
    """One text of an attribute, which may have several values or none."""
    values = stated if isinstance(stated, list) else [stated]
    return " ".join(str(value) for value in values if value is not None).strip()


def shown_finding(row: Mapping[str, Any]) -> str:
    """A finding in a few words: its name with its number or probability; empty for one that is absent."""
    value, probability = row.get("value"), row.get("probability")
    if value is False or row.get("called") is False:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{row['concept']}: {value:.3g} {row.get('unit') or ''}".rstrip() if value else ""
    if isinstance(probability, int | float):
        return f"{row['concept']}: {100 * probability:.0f} %"
    return str(row["concept"])
