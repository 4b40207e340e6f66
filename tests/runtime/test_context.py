from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isocenter.errors import PlanError
from isocenter.runtime import Category, Context, Number

AGE = Number("age", median=50, mean=52, deviation=10, missing=0.1)
SEX = Category("sex", {"f": 0.4, "m": 0.6})
SMOKER = Category("smoker", {"no": 0.5, "yes": 0.3}, missing=0.2)


def test_a_number_is_standardised_and_marked_where_it_is_missing():
    assert AGE.entries == ("age", "age missing")
    assert AGE.encoded(62)[0] == pytest.approx([1.0, -0.1])
    made, note = AGE.encoded(None)
    assert made == pytest.approx([-0.2, 0.9])
    assert note == "age is missing: taken as 50, the median of the training cases"
    assert AGE.encoded("062Y") == AGE.encoded(62)


def test_a_category_that_no_training_case_was_is_unknown_or_else_what_most_were():
    assert SMOKER.entries == ("smoker no", "smoker yes", "smoker unknown")
    unknown, note = SMOKER.encoded("now and then")
    assert unknown == pytest.approx([-0.5, -0.3, 0.8])
    assert unknown == SMOKER.encoded("")[0]
    assert "taken as unknown" in note
    made, note = SEX.encoded("X")
    assert made == SEX.encoded("m")[0]
    assert "'X', which few or no training cases were: taken as m" in note


@given(st.sampled_from(["f", " F", "F "]))
def test_case_and_blanks_of_a_category_do_not_matter(word):
    assert SEX.encoded(word) == (pytest.approx([0.6, -0.6]), "")


def test_the_average_of_the_training_cases_is_the_origin():
    sexes = ["f"] * 4 + ["m"] * 6
    assert np.mean([SEX.encoded(one)[0] for one in sexes], axis=0) == pytest.approx([0, 0])


def test_a_context_is_the_same_after_its_settings():
    context = Context((AGE, SEX, SMOKER))
    again = Context.of(context.settings)
    told = {"age": 44, "sex": "f", "smoker": "no"}
    assert again == context
    assert again.vector(told)[0].tolist() == context.vector(told)[0].tolist()
    assert len(context) == len(context.vector(told)[0]) == 7


@pytest.mark.parametrize(
    "settings",
    [
        ["age"],
        {"age": 3},
        {"age": {"median": 1, "mean": 1, "deviation": 0, "missing": 0}},
        {"sex": {"levels": {}, "missing": 0}},
    ],
)
def test_columns_that_say_nothing_of_the_training_cases_are_refused(settings):
    with pytest.raises(PlanError, match=r"network\.context"):
        Context.of(settings)


def test_which_images_a_case_has_stands_last_and_uncentred_in_the_order_of_the_channels():
    context = Context.of({"image:T1": {"there": 1.0}, **Context((AGE,)).settings, "image:T2": {"there": 0.8}})
    assert context.entries == ("age", "age missing", "image:T1", "image:T2")
    assert (context.names, context.channels) == (("age",), ("T1", "T2"))
    assert context.vector({"age": 62}, ["T2"])[0].tolist() == pytest.approx([1.0, -0.1, 0.0, 1.0])
    assert context.vector({"age": 62})[0][-2:].tolist() == [1.0, 1.0]
    assert context.of_patients == Context((AGE,))
    assert Context.of(context.settings) == context


def test_a_column_that_is_not_there_is_missing_and_named():
    made, notes = Context((AGE, SEX)).vector({"sex": "f"})
    assert made[:2] == pytest.approx([-0.2, 0.9])
    assert notes == ["age is missing: taken as 50, the median of the training cases"]


def test_thousands_of_missing_columns_are_one_note():
    genes = Context(tuple(Number(f"gene_{n}", 0, 0, 1) for n in range(3000)))
    made, [note] = genes.vector({})
    assert not made.any()
    assert "gene_0 is missing" in note
    assert "2999 more columns" in note
