"""The audit: rows written with what they report, sealed in order, and every change of them found."""

from __future__ import annotations

import hashlib
import json

import pytest

from isocenter.service.records.actor import Actor
from isocenter.service.records.audit import (
    NOTHING,
    head,
    record,
    seal,
    sealed_rows,
    unsealed_count,
    verified,
)

EVE = Actor("eve", "radiologist", "10.0.0.7")


def recorded(database, count: int) -> None:
    with database.write() as connection:
        for number in range(count):
            record(connection, "view", f"{number:032x}", actor=EVE, detail={"n": number, "words": 'für "alle"'})


def test_rows_are_sealed_in_order_each_with_the_hash_of_the_one_before(database):
    recorded(database, 3)
    assert list(sealed_rows(database)) == [] and unsealed_count(database) == 3
    assert seal(database, "north") == 3 and seal(database, "north") == 0
    recorded(database, 1)
    assert seal(database, "north") == 1
    rows = list(sealed_rows(database))
    assert [row["sequence"] for row in rows] == [1, 2, 3, 4]
    assert [row["previous"] for row in rows] == [NOTHING, *(row["hash"] for row in rows[:3])]
    assert {(row["node"], row["actor"], row["role"], row["address"]) for row in rows} == {
        ("north", "eve", "radiologist", "10.0.0.7")
    }
    assert verified(rows, head(database).hash).events == 4


def test_a_hash_is_that_of_the_row_as_json_so_that_others_can_check_it(database):
    recorded(database, 1)
    seal(database, "north")
    [row] = sealed_rows(database)
    stated = {name: value for name, value in row.items() if name != "hash"}
    text = json.dumps(stated, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert row["hash"] == hashlib.sha256(text.encode()).hexdigest() and "für" in text


def test_an_event_is_there_exactly_if_what_it_reports_is(database):
    with pytest.raises(RuntimeError), database.write() as connection:
        record(connection, "view", "a" * 32)
        raise RuntimeError
    assert unsealed_count(database) == 0
