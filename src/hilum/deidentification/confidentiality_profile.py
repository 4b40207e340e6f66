"""What happens to each attribute: PS3.15 Table E.1-1, the basic profile and its options."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property
from pathlib import Path

from hilum.errors import UsageError
from hilum.lazy import pydicom

TABLE = Path(__file__).with_name("ps3_15_table_e1_1.csv")
EDITION = "2024b"
# The table's key of a repeating group, by the first byte of its number: curves as a whole, elements of overlays.
REPEATING = {0x50: "(50XX,XXXX)", 0x60: "(60XX,{:04X})"}
DATES = ("DA", "DT", "TM")
# UIDs of kinds of object, of syntaxes and of lists of codes, which the table rightly does not list.
NO_INSTANCE = re.compile(r"\w*(Class|TransferSyntax)|Coding|Context|MappingResource|CreatorVersion")
# Removed or emptied, says the table; PS3.3 C.7.2.1 has one item or more where it is there.
REFERENCED_STUDIES = 0x00081110


class Action(Enum):
    """What is done to an attribute; the value is the name under which a report counts it."""

    KEEP = "kept"
    REMOVE = "removed"
    EMPTY = "emptied"
    REPLACE = "replaced"
    MAP = "mapped"
    SHIFT = "shifted"
    CLEAN = "cleaned"


@dataclass(frozen=True)
class ProfileOption:
    """One option of the profile: its column of the table, and its code of CID 7050."""

    name: str
    column: str
    code: str
    meaning: str


OPTIONS = {name: ProfileOption(name, column, code, f"{meaning} Option") for name, column, code, meaning in (
    ("clean-pixels", "", "113101", "Clean Pixel Data"),
    ("clean-graphics", "cleanGraphOpt", "113103", "Clean Graphics"),
    ("clean-structured", "cleanStructContOpt", "113104", "Clean Structured Content"),
    ("clean-descriptors", "cleanDescOpt", "113105", "Clean Descriptors"),
    ("retain-dates", "rtnLongFullDatesOpt", "113106", "Retain Longitudinal Temporal Information Full Dates"),
    ("shift-dates", "rtnLongModifDatesOpt", "113107", "Retain Longitudinal Temporal Information Modified Dates"),
    ("retain-characteristics", "rtnPatCharsOpt", "113108", "Retain Patient Characteristics"),
    ("retain-device", "rtnDevIdOpt", "113109", "Retain Device Identity"),
    ("retain-uids", "rtnUIDsOpt", "113110", "Retain UIDs"),
    ("retain-safe-private", "rtnSafePrivOpt", "113111", "Retain Safe Private"),
    ("retain-institution", "rtnInstIdOpt", "113112", "Retain Institution Identity"),
)}  # fmt: skip
BASIC = ("113100", "Basic Application Confidentiality Profile")


@dataclass(frozen=True)
class ConfidentialityProfile:
    """The basic profile with some of its options. Raises UsageError for options that are unknown or contradict."""

    options: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if "clean-faces" in self.options:
            problem = "clean-faces needs a mask of the face, and there is none here that was shown to work"
            raise UsageError(problem, "--options", "Remove faces with a program for it, and leave the option out")
        if unknown := sorted(self.options - OPTIONS.keys()):
            problem = f"there is no option {', '.join(unknown)}"
            raise UsageError(problem, "--options", f"Choose from {', '.join(OPTIONS)}")
        if {"retain-dates", "shift-dates"} <= self.options:
            problem = "retain-dates and shift-dates contradict each other"
            raise UsageError(problem, "--options", "Give one of the two")

    def __contains__(self, option: str) -> bool:
        return option in self.options

    @property
    def codes(self) -> list[tuple[str, str]]:
        """(code, meaning) of the profile and of each option, CID 7050."""
        return [BASIC, *((one.code, one.meaning) for name, one in OPTIONS.items() if name in self.options)]

    @property
    def temporal_information(self) -> str:
        """Longitudinal Temporal Information Modified, PS3.3 C.12.1.1.1."""
        return "UNMODIFIED" if "retain-dates" in self else "MODIFIED" if "shift-dates" in self else "REMOVED"

    def basic_action(self, tag: int, vr: str) -> Action:
        """The action of the basic profile, that for which every object is still whole: of X/D a dummy, of X/Z empty.

        A name or a date that the table does not list, because it came later or was retired long ago, is replaced.
        """
        row = row_of(tag)
        stated = "" if row is None else row["basicProfile"]
        if row is None:
            if vr == "UI":
                return Action.KEEP if NO_INSTANCE.match(pydicom.datadict.keyword_for_tag(tag)) else Action.MAP
            return Action.REPLACE if vr == "PN" or vr in DATES else Action.KEEP
        if "U" in stated or (stated == "D" and vr == "UI"):
            return Action.MAP
        if tag == REFERENCED_STUDIES:
            return Action.REMOVE
        return Action.REPLACE if "D" in stated else Action.EMPTY if "Z" in stated else Action.REMOVE

    def action(self, tag: int, vr: str) -> Action:
        """The action with the options; what has to be cleaned beside an option that keeps it is cleaned."""
        row = row_of(tag)
        if row is None and vr in DATES:
            date_option = next((one for one in ("retain-dates", "shift-dates") if one in self), "")
            return {"retain-dates": Action.KEEP, "shift-dates": Action.SHIFT}.get(date_option) or Action.REPLACE
        if row is None and vr == "UI" and "retain-uids" in self:
            return Action.KEEP
        stated = {} if row is None else {name: row[column] for name, column in self._columns.items()}
        if stated.get("shift-dates"):
            return Action.SHIFT
        if "C" in stated.values():
            return Action.CLEAN
        return Action.KEEP if "K" in stated.values() else self.basic_action(tag, vr)

    def is_structure(self, tag: int) -> bool:
        """Whether a sequence is content of which `clean-structured` keeps codes, numbers and coordinates."""
        row = row_of(tag)
        return "clean-structured" in self and row is not None and bool(row[OPTIONS["clean-structured"].column])

    def is_description(self, tag: int) -> bool:
        """Whether an option keeps the common words of an attribute."""
        row = row_of(tag)
        return row is not None and any(row[column] == "C" for column in self._columns.values())

    @cached_property
    def _columns(self) -> Mapping[str, str]:
        return {name: OPTIONS[name].column for name in sorted(self.options) if OPTIONS[name].column}


@cache
def row_of(tag: int) -> Mapping[str, str] | None:
    """The row of an attribute, also of a repeating group; None for one that the table does not list."""
    key = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
    if (row := _rows().get(key)) is not None:
        return row
    group = tag >> 16
    repeating = REPEATING.get(group >> 8) if group % 2 == 0 else None
    return None if repeating is None else _rows().get(repeating.format(tag & 0xFFFF))


@cache
def _rows() -> Mapping[str, Mapping[str, str]]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        lines: Iterable[str] = (line for line in file if not line.startswith("#"))
        return {row["tag"]: row for row in csv.DictReader(lines)}
