"""Searches for studies in SQL: what of their attributes stands in columns, and conditions on these. PS3.4 C.2.2.2"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, true

from hilum.service.objects import dicom_json
from hilum.service.records.tables import ANSWERS, CORRECTIONS, JOBS, SERIES_ROWS, STUDIES
from hilum.values.plain_values import PlainValue

# By keyword; of a name its three groups, without capitals, because they do not count.
TEXTS = {
    "PatientID": STUDIES.c.patient_id,
    "AccessionNumber": STUDIES.c.accession_number,
    "StudyDate": STUDIES.c.study_date,
}
NAME = (STUDIES.c.name_alphabetic, STUDIES.c.name_ideographic, STUDIES.c.name_phonetic)
LONGEST = 255  # a text in an index; DICOM allows 64 letters, and three groups of a name
VR = {"StudyDate": "DA"}
# Modalities of the objects that jobs make, by their kinds; maps and moved images have that of a series that came.
MADE = {"SEG": ("seg", "labelmap"), "SR": ("sr",), "RTSTRUCT": ("rtstruct",), "PR": ("gsps",)}
MADE |= {"M3D": ("stl",), "OT": ("sc", "dicom"), "DOC": ("pdf",), "REG": ("dicom",)}


def searched_columns(attributes: Mapping[str, PlainValue]) -> dict[str, PlainValue]:
    """The columns by which a study is searched. is_searchable: whether they hold all that its attributes state there

    Several values, half a day, and texts that no index takes, are looked at one study after the other.
    """
    held = {column.name: attributes.get(keyword) for keyword, column in TEXTS.items()}
    groups = str(attributes.get("PatientName") or "").lower().split("=")
    held |= {column.name: group for column, group in zip_longest(NAME, groups[: len(NAME)])}
    is_day = re.fullmatch(r"(\d{8})?", str(held[STUDIES.c.study_date.name] or ""), re.ASCII) is not None
    is_name = not isinstance(attributes.get("PatientName"), list)
    is_whole = is_day and is_name and all(map(_is_plain, held.values()))
    return {"is_searchable": is_whole, **{name: value or None if is_whole else None for name, value in held.items()}}


def _is_plain(value: Any) -> bool:
    if not value:
        return True
    # A half of a pair of surrogates, or NUL, is a text that no database holds.
    is_text = isinstance(value, str) and value.encode(errors="ignore").decode() == value and "\0" not in value
    return is_text and len(value) <= LONGEST


def study_condition(keyword: str, wanted: str, *, is_postgresql: bool) -> ColumnElement[bool] | None:
    """What a searchable study has to be so that an attribute is as wanted; None where no column decides it."""
    if not wanted.strip("*"):  # anything, nothing too
        return true()
    if keyword == "PatientName":
        return _name_condition(wanted.lower(), is_postgresql=is_postgresql)
    column = TEXTS.get(keyword)
    if column is None:
        return None
    ends = dicom_json.value_range(VR.get(keyword, ""), wanted)
    if ends is None:
        return _fits(column, wanted, is_postgresql=is_postgresql)
    first, last = ends
    # An end that is less exact is meant whole: a colon comes behind every digit.
    return and_(column.is_not(None), column >= first, column < f"{last}:" if last else true())


def _name_condition(wanted: str, *, is_postgresql: bool) -> ColumnElement[bool]:
    """A name matches in any of its groups, or group by group where several are wanted."""
    if "=" not in wanted:
        return or_(*(_fits(column, wanted, is_postgresql=is_postgresql) for column in NAME))
    groups = [(column, group) for column, group in zip(NAME, wanted.split("="), strict=False) if group]
    return and_(true(), *(_fits(column, group, is_postgresql=is_postgresql) for column, group in groups))


def _fits(column: ColumnElement[Any], wanted: str, *, is_postgresql: bool) -> ColumnElement[bool]:
    """Whether a text is as wanted with * and ?; an index serves what begins without them."""
    if not {"*", "?"} & {*wanted}:
        return column == wanted
    if not is_postgresql:
        return column.op("GLOB")(wanted.replace("[", "[[]"))
    plain = wanted.translate({ord(letter): f"\\{letter}" for letter in "\\%_"})
    return column.like(plain.replace("*", "%").replace("?", "_"), escape="\\")


def modality_condition(wanted: str, *, is_postgresql: bool) -> ColumnElement[bool] | None:
    """A condition that every study meets with a series of a modality, made by a job or not; others may meet it too."""
    if not wanted.strip("*"):
        return None
    came = select(SERIES_ROWS.c.study).where(_fits(SERIES_ROWS.c.modality, wanted, is_postgresql=is_postgresql))
    is_made = STUDIES.c.study.in_(came)
    kinds = sorted(
        {kind for name, own in MADE.items() if name == wanted or "*" in wanted or "?" in wanted for kind in own}
    )
    if not kinds:
        return is_made
    of_jobs = select(JOBS.c.study).join(ANSWERS, ANSWERS.c.job == JOBS.c.job).where(ANSWERS.c.kind.in_(kinds))
    of_people = select(CORRECTIONS.c.study).join(ANSWERS, ANSWERS.c.job == CORRECTIONS.c.correction)
    return or_(is_made, STUDIES.c.study.in_(of_jobs), STUDIES.c.study.in_(of_people.where(ANSWERS.c.kind.in_(kinds))))
