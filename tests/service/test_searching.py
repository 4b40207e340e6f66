"""Searches for studies by columns and indexes: as the elements of each study would be compared one by one."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, or_, select, text

from hilum.service.objects import dicom_json
from hilum.service.records import searching, tables

HELD = [
    {"PatientID": "A1", "PatientName": "Doe^Jane", "StudyDate": "20260105", "AccessionNumber": "7"},
    {"PatientID": "a1", "PatientName": "DOE^John", "StudyDate": "20261231", "AccessionNumber": "7%"},
    {"PatientID": "A[1]", "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう", "StudyDate": "20251231"},
    {"PatientID": "A_1", "PatientName": "Ab=cZ", "StudyDate": "20260201", "AccessionNumber": "7\\8"},
    {"PatientID": "A21", "PatientName": "Äpfel^Örn", "StudyDate": ""},
    {},
]
# Half a day, several values, what is too long, and what no database holds as a text.
ODD = [
    {"StudyDate": "2026"},
    {"AccessionNumber": ["7", "9"]},
    {"PatientID": "A" * 300},
    {"PatientName": "\ud800"},
    {"PatientID": "A\x001"},
]
WANTED = {
    "PatientID": ["A1", "A*", "a?", "A[1]", "A_1", "A%", "*1", "?", "", "*", "A\\1"],
    "AccessionNumber": ["7", "7*", "7%", "7?8", "7\\8"],
    "StudyDate": ["20260105", "20260101-20261231", "2026-", "-2025", "-", "202601-202601", "2026*"],
    "PatientName": [
        "doe*",
        "DOE^JANE",
        "*太郎",
        "a*z",
        "=山田*",
        "yamada*=山田*",
        "äpfel^ö*",
        "Ab",
        "cz",
        "d?e^j*",
    ],
}


@pytest.fixture
def filled(database):
    with database.write() as connection:
        for number, attributes in enumerate([*HELD, *ODD]):
            columns = {"study": f"{number:032d}", "uid": f"1.{number}", "state": "done", "received_at": number}
            values = {**columns, "last_at": 0, **searching.searched_columns(attributes)}
            connection.execute(insert(tables.STUDIES).values(values))
    return database


def test_the_records_find_what_comparing_one_study_after_the_other_finds(filled):
    for keyword, conditions in WANTED.items():
        for wanted in conditions:
            condition = searching.study_condition(keyword, wanted, is_postgresql=filled.skips_locked)
            with filled.read() as connection:
                query = select(tables.STUDIES.c.received_at).where(tables.STUDIES.c.is_searchable, condition)
                found = sorted(connection.execute(query).scalars())
            tag = dicom_json.tag_digits(keyword)
            fitting = [
                n
                for n, one in enumerate(HELD)
                if dicom_json.element_matches(dicom_json.json_elements(one).get(tag), wanted)
            ]
            assert found == fitting, (keyword, wanted)


def test_a_study_of_several_values_or_of_an_odd_text_is_looked_at_by_itself(filled):
    with filled.read() as connection:
        row = connection.execute(
            select(tables.STUDIES.c.received_at).where(tables.STUDIES.c.is_searchable.is_(False))
        ).scalars()
        assert sorted(row) == [len(HELD) + n for n in range(len(ODD))]


def test_an_attribute_without_a_column_is_left_to_the_elements():
    assert searching.study_condition("StudyDescription", "chest", is_postgresql=False) is None
    assert searching.modality_condition("*", is_postgresql=False) is None


@pytest.mark.parametrize(
    ("condition", "index"),
    [
        (searching.study_condition("PatientID", "NOBODY", is_postgresql=False), "studies_by_patient_id"),
        (searching.study_condition("AccessionNumber", "A7*", is_postgresql=False), "studies_by_accession_number"),
        (searching.study_condition("StudyDate", "20260105-20260106", is_postgresql=False), "studies_by_study_date"),
        (searching.study_condition("PatientName", "doe*", is_postgresql=False), "studies_by_name_phonetic"),
        (searching.modality_condition("CT", is_postgresql=False), "series_by_modality"),
    ],
)
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_every_condition_is_asked_of_an_index(database, condition, index):
    both = or_(tables.STUDIES.c.is_searchable.is_(True) & condition, tables.STUDIES.c.study.in_(["0"]))
    query = (
        select(tables.STUDIES)
        .where(both)
        .order_by(tables.STUDIES.c.received_at.desc(), tables.STUDIES.c.study.desc())
        .limit(500)
    )
    shown = query.compile(database.engine, compile_kwargs={"literal_binds": True})
    with database.read() as connection:
        plan = [row[3] for row in connection.execute(text(f"EXPLAIN QUERY PLAN {shown}".replace(":", "\\:")))]
    assert any(index in step for step in plan), plan
