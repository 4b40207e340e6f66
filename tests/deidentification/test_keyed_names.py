"""Names that a key makes."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.deidentification import keyed_names
from hilum.deidentification.keyed_names import MOST_DAYS, KeyedNames
from hilum.errors import UsageError
from hilum.files.storage import hashing

NAMES, OTHERS = KeyedNames(bytes(32)), KeyedNames(bytes([1] * 32))


@pytest.mark.parametrize("key", [None, "", "ab" * 31, "ab" * 33, "zz" * 32])
def test_no_key_and_one_of_another_form_are_refused(monkeypatch, key):
    monkeypatch.delenv(keyed_names.VARIABLE, raising=False)
    if key is not None:
        monkeypatch.setenv(keyed_names.VARIABLE, key)
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        keyed_names.read_names()


def test_the_key_that_hides_patients_from_our_own_records_is_refused(monkeypatch):
    monkeypatch.setenv(keyed_names.VARIABLE, "ab" * 32)
    assert keyed_names.read_names().key == bytes.fromhex("ab" * 32)
    monkeypatch.setenv(hashing.VARIABLE, "AB" * 32)
    with pytest.raises(UsageError, match="own records"):
        keyed_names.read_names()


def test_names_follow_from_key_number_and_issuer():
    patient = NAMES.patient_of_number("123", "")
    assert patient == NAMES.patient_of_number("123 ", "") != NAMES.patient_of_number("123", "A")
    assert patient != OTHERS.patient_of_number("123", "")
    assert len(patient) == 12
    assert patient.startswith("P-")
    assert patient[2:].isalpha()


def test_uids_are_128_bits_below_2_25_and_those_of_the_standard_stay():
    new = NAMES.uid("1.2.3")
    assert new.startswith("2.25.")
    assert int(new[5:]) < 1 << 128
    assert new == NAMES.uid("1.2.3") != OTHERS.uid("1.2.3")
    assert NAMES.uid("1.2.840.10008.1.2.1") == "1.2.840.10008.1.2.1"


@settings(max_examples=10)
@given(st.dates(min_value=date(1800, 1, 1)), st.text(min_size=1))
def test_all_dates_of_a_patient_move_back_by_the_same_days_and_times_of_day_stay(day, patient):

    moved = NAMES.shift_date(f"{day:%Y%m%d}", patient)
    assert 1 <= NAMES.days(patient) <= MOST_DAYS
    assert datetime.strptime(moved, "%Y%m%d").date() == day - timedelta(NAMES.days(patient))
    assert NAMES.shift_date(f"{day:%Y%m%d}112233.5+0100", patient) == f"{moved}112233.5+0100"


@pytest.mark.parametrize("text", ["2020", "202013", "20201301", "yesterday", ""])
def test_what_is_no_day_is_not_moved(text):
    assert NAMES.shift_date(text, "P") is None
