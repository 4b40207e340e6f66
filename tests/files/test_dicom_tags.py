"""Attributes are typed at the first look, and what is damaged is refused by its tag."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from hilum.errors import FormatError
from hilum.files.dicom import tags


def dataset(keyword: str, vr: str, value: object) -> Dataset:
    made = Dataset()
    made.add_new(keyword, vr, value)
    return made


def test_absent_and_empty_are_one() -> None:
    for made in (Dataset(), dataset("SliceThickness", "DS", ""), dataset("SliceThickness", "DS", None)):
        assert tags.single_number(made, "SliceThickness", "here") is None
        assert tags.text(made, "SliceThickness") == ""
        assert tags.words(made, "SliceThickness") == ()


@pytest.mark.parametrize(
    ("keyword", "vr", "value", "words_"),
    [
        ("PixelSpacing", "DS", [1.0, 2.0, 3.0], "3 values where 2 belong"),
        ("PixelSpacing", "LO", ["one", "two"], "is not a number"),
        ("PixelSpacing", "FD", [1.0, float("nan")], "is not finite"),
    ],
)
def test_what_is_no_number_is_refused_by_its_tag(keyword: str, vr: str, value: object, words_: str) -> None:
    with pytest.raises(FormatError) as refusal:
        tags.numbers(dataset(keyword, vr, value), keyword, "here", 2)
    assert refusal.value.problem.startswith("PixelSpacing (0028,0030)") and words_ in refusal.value.problem
    assert tags.lenient_number(dataset(keyword, vr, value), keyword) is None


def test_the_refusal_of_a_value_repeats_no_text_which_may_name_a_patient() -> None:
    with pytest.raises(FormatError) as refusal:
        tags.single_number(dataset("SliceThickness", "LO", "Doe^Jane"), "SliceThickness", "here")
    assert "Doe" not in str(refusal.value)


def test_half_a_row_is_refused() -> None:
    with pytest.raises(FormatError, match="not a whole number"):
        tags.whole_number(dataset("Rows", "FD", 1.5), "Rows", "here")


def test_what_is_no_sequence_has_no_items() -> None:
    assert tags.items(dataset("DimensionIndexSequence", "LO", "text"), "DimensionIndexSequence") == []


def test_an_unknown_keyword_is_named_as_it_is() -> None:
    assert tags.keyword_with_tag("Rows") == "Rows (0028,0010)"
    assert tags.keyword_with_tag("NoSuchThing") == "NoSuchThing"


@given(st.times())
def test_a_time_is_seconds_from_midnight(time: object) -> None:
    expected = time.hour * 3600 + time.minute * 60 + time.second + time.microsecond / 1e6  # type: ignore[attr-defined]
    for written in (f"{time:%H%M%S.%f}", f"{time:%H:%M:%S.%f}"):
        assert tags.time_in_seconds(written) == pytest.approx(expected, abs=1e-6)


def test_a_day_later_is_a_day_more() -> None:
    before, after = tags.time_in_seconds("20200229235959.5"), tags.time_in_seconds("20200301000000.5+0000")
    assert before is not None and after is not None
    assert after - before == pytest.approx(1)


@pytest.mark.parametrize("text", ["", "noon", "20201399120000", "1"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert tags.time_in_seconds(text) is None


@pytest.mark.parametrize(
    ("text", "offset"),
    [("+0100", 3600), ("20200101100000.5-0330", -12600), ("-1000", -36000), ("20200101100000", None), ("", None)],
)
def test_the_offset_of_a_clock_is_seconds_ahead_of_utc(text: str, offset: float | None) -> None:
    assert tags.utc_offset(text) == offset
