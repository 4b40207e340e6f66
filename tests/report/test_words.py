from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.evaluation import Metric, Metrics
from hilum.report import wording
from hilum.values import Estimate, Row


def test_an_estimate_is_said_with_its_interval_and_whom_it_stands_on() -> None:
    row = Row("dice", "all", Estimate(0.8821, 0.8741, 0.8899, n=40, patients=40, method="patient bootstrap"))
    assert wording.row_words(row, Metrics()) == "Dice 0.882 (95 % interval 0.874 to 0.890, 40 cases of 40 patients)"


def test_where_there_is_no_interval_the_reason_stands_in_its_place() -> None:
    row = Row("hd95", "spleen", Estimate(1.234, n=1, patients=1, unit="mm", method="none: one patient"))
    assert (
        wording.row_words(row, Metrics((Metric("hd95", "HD95"),)))
        == "HD95, spleen 1.23 mm (no interval: one patient, 1 case of 1 patient)"
    )


@pytest.mark.parametrize(
    ("share", "places", "words"),
    [(1.0, 0, "100 %"), (199 / 200, 0, "> 99 %"), (0.0, 0, "0 %"), (1 / 400, 0, "< 1 %"), (0.42, 0, "42 %"),
     (1999 / 2000 + 0.0003, 1, "> 99.9 %"), (float("nan"), 0, "\N{EN DASH}")],
)  # fmt: skip
def test_all_and_none_are_said_of_all_and_none_alone(share: float, places: int, words: str) -> None:
    assert wording.share_text(share, places) == words


def test_an_interval_that_nobody_explained_says_so() -> None:
    assert wording.interval_text(Estimate(0.5)) == "no interval: reason not recorded"


def test_patients_that_are_not_known_are_not_counted() -> None:
    assert wording.count_text(Estimate(0.5, n=7)) == "7 cases"


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.88214, "", "0.882"),
        (0.00012, "", "0.000120"),
        (1.8e-36, "", "<0.000001"),
        (-1.8e-36, "mm", ">\N{MINUS SIGN}0.000001 mm"),
        (0.0, "", "0.000"),
        (1.0, "", "1.000"),
        (-0.25, "", "\N{MINUS SIGN}0.250"),
        (12.345, "mm", "12.3 mm"),
        (1234.5, "ml", "1234 ml"),
        (math.nan, "mm", "undefined"),
    ],
)
def test_a_number_has_as_many_digits_as_mean_something(value: float, unit: str, words: str) -> None:
    assert wording.number_text(value, unit) == words


@given(st.floats(1e-4, 1e5), st.sampled_from(["", "mm"]))
def test_a_number_in_words_is_the_number_to_one_per_cent(value: float, unit: str) -> None:
    assert float(wording.number_text(value, unit).split()[0]) == pytest.approx(value, rel=0.01)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "\N{EN DASH}"),
        (True, "yes"),
        (np.int64(3), "3"),
        (np.float32(0.5), "0.500"),
        (math.nan, "\N{EN DASH}"),
        ((1.0, 2), "1.000, 2"),
        (Estimate(0.5, 0.4, 0.6), "0.500 (95 % interval 0.400 to 0.600)"),
    ],
)
def test_a_cell_says_what_it_holds(value: object, words: str) -> None:
    assert wording.cell_text(value) == words


def test_a_column_names_the_level_that_all_its_intervals_have() -> None:
    ninety, other = Estimate(0.5, 0.4, 0.6, level=0.9), Estimate(0.5, 0.4, 0.6, level=0.95)
    assert wording.level_words([Row("dice", "a", ninety), Row("dice", "b", Estimate(0.5))]) == "90 % interval"
    assert wording.level_words([Row("dice", "a", ninety), Row("dice", "b", other)]) == "Interval"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("patients are not known", "Patients are not known."),
        ("case_1.nii.gz: cannot be read", "case_1.nii.gz: cannot be read."),
        ("MR is assumed.", "MR is assumed."),
        ("", ""),
    ],
)
def test_a_remark_becomes_a_sentence_and_a_file_keeps_its_name(text: str, words: str) -> None:
    assert wording.as_sentence(text) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0003, "0.0003"),
        ((1.0, 1.0, 2.5), "1, 1, 2.5"),
        ({"a": 1, "b": None}, "a: 1, b: none"),
        (-2.0, "\N{MINUS SIGN}2"),
        (frozenset({"b", "a"}), "a, b"),
    ],
)
def test_a_setting_is_said_with_every_digit_and_none_more(value: object, words: str) -> None:
    assert wording.setting_text(value) == words


def test_a_range_is_short_and_its_star_says_unreliable() -> None:
    assert wording.range_text(Estimate(0.8, 0.7, 0.9)) == "0.700\N{EN DASH}0.900"
    assert wording.range_text(Estimate(0.8, 0.7, 0.9, method="patient bootstrap; unreliable: 6 patients")).endswith("*")
    assert wording.range_text(Estimate(-1.0, -2.0, 0.5, unit="ml")) == "\N{MINUS SIGN}2.00 to 0.50"
    assert wording.range_text(Estimate(0.8, method="none: one patient")) == ""


def test_the_method_says_how_or_why_not() -> None:
    assert wording.method_text(Estimate(0.8, 0.7, 0.9, method="Wilson")) == "Wilson"
    assert wording.method_text(Estimate(0.8, method="none: one patient")) == "one patient"
    assert wording.method_text(Estimate(0.8)) == "reason not recorded"


def test_a_curve_is_told_by_its_ends_and_a_short_list_number_by_number():
    assert wording.setting_text([0.5 * n for n in range(40)]) == "40 numbers, from 0 to 19.5"
    assert wording.setting_text([1.5, 2.0, 3.0]) == "1.5, 2, 3"
    assert wording.setting_text([[n, 1.0] for n in range(40)]) == "40 lists, from (0, 1) to (39, 1)"
    assert wording.setting_text(["a"] * 40) == ", ".join("a" * 40)


def test_what_rounds_to_zero_has_no_sign() -> None:
    assert wording.number_text(-0.0004, places=3) == wording.number_text(0.0004, places=3, signed=True) == "0.000"


def test_the_row_over_all_labels_of_one_of_several_tasks_is_called_by_its_task() -> None:
    assert wording.row_name(Row("dice", "segmentation: all", Estimate(0.5)), Metrics()) == "Dice, segmentation"
    assert wording.row_name(Row("dice", "segmentation: liver", Estimate(0.5)), Metrics()) == "Dice, segmentation: liver"
    assert wording.row_name(Row("dice", "all", Estimate(0.5)), Metrics()) == "Dice"


@pytest.mark.parametrize("label", ["chest wall", "small", "wall", "classification: small"])
def test_a_label_that_ends_as_the_word_for_all_labels_keeps_its_letters(label: str) -> None:
    assert wording.row_name(Row("dice", label, Estimate(0.5)), Metrics()) == f"Dice, {label}"


def test_ratios_keep_their_decimals_beside_a_large_slope():
    rows = [Row("uno_c", "all", Estimate(0.624, 0.485, 0.745)), Row("slope", "all", Estimate(55.9, -13.9, 133.5))]
    assert [wording.aligned_value(row.estimate, rows) for row in rows] == ["0.624", "55.9"]
    assert wording.bare_interval(rows[0].estimate, rows) == "0.485 to 0.745"


def test_a_small_figure_keeps_its_digits_alone_and_beside_large_ones():
    small = Estimate(0.0004, 0.0001, 0.0012)  # an error of a diffusion coefficient, mm2/s
    assert (wording.value_text(small), wording.range_text(small)) == ("0.0004", "0.0001\N{EN DASH}0.0012")
    assert wording.interval_text(small) == "95 % interval 0.0001 to 0.0012"
    lesion = Estimate(0.4, 0.2, 0.6, unit="ml")
    rows = [Row("volume_error", "liver", Estimate(130.0, 100.0, 160.0, unit="ml")), Row("volume_error", "l", lesion)]
    assert [wording.aligned_value(row.estimate, rows) for row in rows] == ["130 ml", "0.40 ml"]
    assert wording.bare_interval(lesion, rows) == "0.20 to 0.60"
    assert (wording.bare_value(lesion, 0), wording.range_text(lesion, 0)) == ("0.40", "0.20\N{EN DASH}0.60")


def test_a_figure_near_zero_has_the_digits_of_its_wide_interval():
    assert wording.value_text(Estimate(0.00012, -0.03, 0.03)) == "0.000"


def test_an_empty_setting_is_none_and_no_blank():
    assert (
        wording.setting_text({"method": "none", "parameters": {}, "flips": []})
        == "method: none, parameters: none, flips: none"
    )
