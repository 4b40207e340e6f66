from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.errors import PlanError
from hilum.runtime import Context, covariate_encoding
from hilum.runtime.covariate_encoding import PLACES, Category, FreeText, MonitoredCovariate, Number
from hilum.values.covariate_values import Course

AGE = Number("age", median=50, mean=52, deviation=10, missing=0.1)
HEIGHT = Number("height", 1.72, 1.72, 0.08, low=1.5, high=1.9)
HEIGHT_CM = Number("height", 172, 172, 8, low=150, high=190)
YEARS = Number("age", 61, 60, 10, low=30, high=90)
WEIGHT = Number("weight", 75, 75, 15, low=40, high=120)
# Of 200 training cases one has a 1.
RARE = Number("transplant", 0, 0.005, 0.07, low=0, high=1)
SEX = Category("sex", {"f": 0.4, "m": 0.6})
SMOKER = Category("smoker", {"no": 0.5, "yes": 0.3}, missing=0.2)
WEIGHTS = np.random.default_rng(0).integers(1, 100, size=(PLACES, 2)).astype(np.int8)
HISTORY = FreeText("history", covariate_encoding.pack_weights(WEIGHTS), (3.0, 4.0), (2.0, 5.0), missing=0.25)
PULSE = MonitoredCovariate("pulse", start=0, stop=40, stretches=4, mean=80, deviation=10, unit="s")


def test_a_number_is_standardised_and_marked_where_it_is_missing():
    assert AGE.entries == ("age", "age missing")
    assert AGE.encode(62)[0] == pytest.approx([1.0, -0.1])
    made, note = AGE.encode(None)
    assert made == pytest.approx([-0.2, 0.9])
    assert note == "age is missing: taken as 50, the median of the training cases"
    assert AGE.encode("062Y") == AGE.encode(62)


@pytest.mark.parametrize(
    ("value", "is_code"), [(-999, True), ("-9", True), ("9999", True), (99, False), (-1.5, False), (300, False)]
)
def test_a_code_of_what_is_missing_is_no_number_of_a_patient(value, is_code):
    made, note = AGE.encode(value)
    assert (made == AGE.encode(None)[0]) == is_code
    assert ("a code of what is missing: taken as 50" in note) == is_code


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        (HEIGHT, 1.98, ""),
        (
            HEIGHT,
            175,
            "height is 175, far outside of the training cases, which lie between 1.5 and 1.9; divided by 100",
        ),
        (HEIGHT, 69, "height is 69, far outside of the training cases, which lie between 1.5 and 1.9"),
        (HEIGHT_CM, 69.0, "; multiplied by 2.54 it is 175.3 (inches beside cm)"),
        (HEIGHT_CM, 1.75, "; multiplied by 100 it is 175 (cm beside m"),
        (YEARS, 5, ""),
        (YEARS, 720, "; divided by 12 it is 60 (months beside years); divided by 10 it is 72 (mm beside cm)"),
        (YEARS, 3000, "age is 3000, far outside of the training cases, which lie between 30 and 90"),
        (YEARS, -999, "age is -999, a code of what is missing"),
        (WEIGHT, 75000, "; divided by 1000 it is 75 (mm³ beside ml, or g beside kg)"),
        (WEIGHT, 150, ""),
        (RARE, 1, ""),
        (PULSE, [(0, 800), (1, 810), (2, 790)], "pulse is 800 in the middle of its readings, far outside"),
        (PULSE, [(0, 80), (1, 0), (2, 85)], ""),
    ],
)
def test_a_number_far_outside_of_the_training_cases_is_named_with_the_unit_that_it_may_be_in(column, value, words):
    note = column.encode(value)[1]
    assert words in note if words else not note
    assert Context((column,)).why_far({column.name: value}) == (
        [note] if "far outside" in words or "; " in words else []
    )


@given(st.floats(0.5, 500), st.sampled_from([2.54, 10.0, 12.0, 100.0, 1000.0]), st.integers(0, 10**6))
def test_no_number_of_the_training_cases_is_far_outside_and_all_in_another_unit_are_named(scale, factor, seed):
    numbers = np.random.default_rng(seed).normal(scale, scale / 40, 40)
    step = 10.0 ** np.floor(np.log10(np.ptp(numbers)))
    ends = np.floor(numbers.min() / step) * step, np.ceil(numbers.max() / step) * step
    column = Number("size", float(np.median(numbers)), float(numbers.mean()), float(numbers.std()), 0.0, *ends)
    for number in numbers.tolist():
        assert not column.why_far(number)
        assert f"multiplied by {factor:g} it is" in column.why_far(number / factor)
        assert f"divided by {factor:g} it is" in column.why_far(number * factor)


@pytest.mark.parametrize(("word", "level"), [("TRUE", "yes"), ("Y", "yes"), ("nein", "no"), ("0", "no")])
def test_yes_and_no_are_known_in_other_words_than_those_of_the_training_cases(word, level):
    assert SMOKER.encode(word) == SMOKER.encode(level)
    assert "few or no training cases" in SEX.encode("no")[1]


def test_a_category_that_no_training_case_was_is_unknown_or_else_what_most_were():
    assert SMOKER.entries == ("smoker no", "smoker yes", "smoker unknown")
    unknown, note = SMOKER.encode("now and then")
    assert unknown == pytest.approx([-0.5, -0.3, 0.8])
    assert unknown == SMOKER.encode("")[0]
    assert "taken as unknown, as in some training cases" in note
    made, note = SEX.encode("X")
    assert made == SEX.encode("m")[0]
    assert "'X', which few or no training cases had: taken as m, the most frequent" in note


@given(st.sampled_from(["f", " F", "F ", "female", " Female", "weiblich"]))
def test_case_and_blanks_of_a_category_do_not_matter(word):
    assert SEX.encode(word) == (pytest.approx([0.6, -0.6]), "")


def test_the_average_of_the_training_cases_is_the_origin():
    sexes = ["f"] * 4 + ["m"] * 6
    assert np.mean([SEX.encode(one)[0] for one in sexes], axis=0) == pytest.approx([0, 0])


def test_a_context_is_the_same_after_its_settings():
    context = Context((AGE, SEX, SMOKER))
    again = Context.from_settings(context.settings)
    covariates = {"age": 44, "sex": "f", "smoker": "no"}
    assert again == context
    assert again.vector(covariates)[0].tolist() == context.vector(covariates)[0].tolist()
    assert len(context) == len(context.vector(covariates)[0]) == 7


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
        Context.from_settings(settings)


def test_which_images_a_case_has_stands_last_and_uncentred_in_the_order_of_the_channels():
    context = Context.from_settings(
        {"image:T1": {"there": 1.0}, **Context((AGE,)).settings, "image:T2": {"there": 0.8}}
    )
    assert context.entries == ("age", "age missing", "image:T1", "image:T2")
    assert (context.names, context.channels) == (("age",), ("T1", "T2"))
    assert context.vector({"age": 62}, ["T2"])[0].tolist() == pytest.approx([1.0, -0.1, 0.0, 1.0])
    assert context.vector({"age": 62})[0][-2:].tolist() == [1.0, 1.0]
    assert context.of_patients == Context((AGE,))
    assert Context.from_settings(context.settings) == context


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


def test_each_stretch_of_time_has_the_mean_of_its_readings_or_the_last_one_before():
    made, note = PULSE.encode(Course((-5, 1, 9, 25, 40, 41), (70, 80, 90, 100, 60, 500), "s"))
    assert made[:4] == pytest.approx([0.5, 0.5, 2.0, -2.0])
    assert made[4:] == [1, 0, 1, 1]
    assert note == ""
    assert PULSE.entries[0] == "pulse from 0 s"
    assert PULSE.entries[-1] == "pulse read from 30 s"


def test_before_the_first_reading_stands_the_last_one_from_before_the_time_or_else_the_mean():
    assert PULSE.encode(Course((-9, -5, 35), (60, 70, 90), "s"))[0] == pytest.approx([-1, -1, -1, 1, 0, 0, 0, 1])
    assert PULSE.encode(Course((35,), (90,), "s"))[0] == pytest.approx([0, 0, 0, 1, 0, 0, 0, 1])


@pytest.mark.parametrize(("value", "value_of"), [(None, "missing"), (80, "no readings with their times")])
def test_who_was_never_read_is_the_mean_and_unmarked(value, value_of):
    made, note = PULSE.encode(value)
    assert made == [0.0] * 8
    assert value_of in note


def test_readings_outside_of_the_time_that_is_looked_at_are_said():
    made, note = PULSE.encode(Course((50, 60), (100, 110), "s"))
    assert made == [0.0] * 8
    assert note == "pulse was not read from 0 to 40 s"


def test_times_of_another_unit_are_refused():
    with pytest.raises(PlanError, match="its times are without a unit, those that the model learnt in s"):
        PULSE.encode(Course((0, 1), (80, 90)))
    assert PULSE.encode([(0, 80), (1, 90)]) == PULSE.encode(Course((0, 1), (80, 90), "s"))


@given(st.lists(st.tuples(st.floats(0, 40), st.floats(-500, 500)), min_size=1, max_size=50))
def test_a_stretch_says_whether_it_was_read_and_never_leaves_the_range_of_the_readings(pairs):
    found = sorted(pairs)
    made = np.array(PULSE.encode(Course(*zip(*found, strict=True), "s"))[0])
    read = {min(int(at / 40 * 4), 3) for at, _ in found}
    assert [n for n in range(4) if made[4 + n]] == sorted(read)
    values = [(one - 80) / 10 for _, one in found] + [0.0]
    assert made[:4].min() >= min(values) - 1e-9
    assert made[:4].max() <= max(values) + 1e-9


def test_what_is_monitored_stands_first_and_survives_its_settings():
    context = Context.from_settings({"age": AGE.settings, "pulse": PULSE.settings, "image:T1": {"there": 0.5}})
    assert context.names == ("pulse", "age")
    assert context.courses == (1, 4)
    assert context.columns[0] == PULSE
    assert len(context) == len(context.vector({"age": 3})[0]) == 8 + 2 + 1


def test_stretches_that_differ_between_columns_are_refused():
    other = {**PULSE.settings, "stretches": 5}
    with pytest.raises(PlanError, match="not the same"):
        Context.from_settings({"pulse": PULSE.settings, "pressure": other})


def test_a_text_is_the_weighted_mean_of_the_places_of_its_words_and_triples():
    """One word of two letters falls on three places: itself, and two triples with its edges."""
    hashes = [zlib.crc32(piece) % PLACES for piece in (b"no", b"^no", b"no$")]
    expected = WEIGHTS[hashes].astype(float).sum(axis=0) / np.sqrt(3)
    entries, note = HISTORY.encode("no")
    assert entries == pytest.approx([*(expected - [3, 4]) / [2, 5], -0.25])
    assert note == ""
    assert HISTORY.entries == ("history 1", "history 2", "history missing")


@pytest.mark.parametrize("text", ["Cough, fever", "fever COUGH", " fever\n-- cough 38.5"])
def test_case_order_numbers_and_signs_of_a_text_do_not_matter(text):
    assert HISTORY.encode(text)[0] == pytest.approx(HISTORY.encode("cough fever")[0])


def test_a_missing_text_is_the_mean_and_no_note_repeats_a_word():
    assert HISTORY.encode(None) == ([0.0, 0.0, 0.75], "history is missing: taken as the mean of their texts")
    nobody = replace(HISTORY, packed=covariate_encoding.pack_weights(np.zeros_like(WEIGHTS)))
    entries, note = nobody.encode("Mustermann coughs")
    assert entries == [0.0, 0.0, -0.25]
    assert note == "history is in words that hardly any training case had: taken as the mean of their texts"


def test_a_text_encoding_is_the_same_after_its_settings_and_refused_where_its_weights_are_none():
    settings = Context((HISTORY, AGE)).settings
    assert Context.from_settings(settings) == Context((HISTORY, AGE))
    for packed in ("", "words", covariate_encoding.pack_weights(WEIGHTS[1:])):
        with pytest.raises(PlanError, match="history cannot be an entry"):
            Context.from_settings({"history": {**HISTORY.settings, "weights": packed}})


def test_a_limit_is_taken_as_its_number_and_named():
    age = Number("age", 50.0, 52.0, 10.0, 0.1)
    entries, note = age.encode(">89")
    assert entries == age.encode(89)[0]
    assert note == "age is '>89', a limit: taken as 89"
