from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.values import covariate_values
from hilum.values.covariate_values import Course


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (("case", "time", "hr"), "time"),
        (("case", "Time (min)", "hr"), "Time (min)"),
        (("subject_id", "charttime", "heart_rate"), "charttime"),
        (("case", "hours", "hr"), "hours"),
        (("case", "time_to_event", "hr"), None),
        (("case", "sometime", "s"), None),
    ],
)
def test_a_column_of_times_is_known_by_what_it_is_called(columns, found):
    assert covariate_values.time_column(columns) == found


def test_a_unit_in_the_title_makes_seconds_of_times():
    rows = [{"time (min)": 2, "hr": 80}, {"time (min)": 1, "hr": 70}]
    assert covariate_values.courses_by_column(rows, "time (min)") == {"hr": Course((60.0, 120.0), (70.0, 80.0), "s")}
    rows = [{"time": 2, "hr": 80}, {"time": 1, "hr": 70}]
    assert covariate_values.courses_by_column(rows, "time") == {"hr": Course((1.0, 2.0), (70.0, 80.0))}


@pytest.mark.parametrize(
    ("first", "second", "times"),
    [
        ("2020-02-28 23:30", "2020-02-29T00:30:30", (0.0, 3630.0)),
        ("2020-01-01T10:00:00+01:00", "2020-01-01T10:00:00Z", (0.0, 3600.0)),
        ("00:07", "25:00:01", (420.0, 90001.0)),
    ],
)
def test_dates_are_counted_from_the_first_and_clocks_from_midnight(first, second, times):
    made = covariate_values.courses_by_column([{"time": second, "hr": 2}, {"time": first, "hr": 1}], "time")
    assert made["hr"] == Course(times, (1.0, 2.0), "s")


@pytest.mark.parametrize("strange", ["soon", "", None, float("nan")])
def test_a_time_that_is_none_is_refused(strange):
    with pytest.raises(ValueError, match="not a time"):
        covariate_values.courses_by_column([{"time": 1, "hr": 1}, {"time": strange, "hr": 1}], "time")


def test_times_of_two_kinds_are_refused():
    with pytest.raises(ValueError, match="some times are numbers"):
        covariate_values.courses_by_column([{"time": 1, "hr": 1}, {"time": "2020-01-01", "hr": 1}], "time")


def test_words_are_what_they_were_last_and_blanks_are_no_readings():
    rows = [
        {"time": 3, "hr": None, "ward": ""},
        {"time": 2, "hr": "81", "ward": "B"},
        {"time": 1, "hr": "", "ward": "A"},
    ]
    assert covariate_values.courses_by_column(rows, "time") == {"hr": Course((2.0,), (81.0,)), "ward": "B"}
    assert covariate_values.courses_by_column([{"time": 1, "hr": None}], "time") == {"hr": None}


def test_what_never_changed_is_a_number_and_a_level():
    same, other = Course((0, 1), (2.0, 2.0)), Course((0, 1), (2.0, 3.0))
    assert (covariate_values.number_in(same), covariate_values.number_in(other)) == (2.0, None)
    assert covariate_values.level_in(same) == covariate_values.level_in(2) == "2"
    assert covariate_values.level_in(other) != covariate_values.level_in(same)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=20))
def test_pairs_of_times_and_numbers_are_a_course_in_the_order_of_time(pairs):
    found = covariate_values.course_in(pairs)
    assert found.times == tuple(sorted(at for at, _ in pairs))
    assert sorted(found.values) == sorted(value for _, value in pairs)
    assert covariate_values.course_in(found) is found


@pytest.mark.parametrize("value", [None, 3, "80", [], ["a", "b"], [(0, float("nan"))]])
def test_what_is_no_course_is_none(value):
    assert covariate_values.course_in(value) is None


@pytest.mark.parametrize("hours", [("22:00", "23:50", "00:30"), ("23:50", "00:10"), ("00:10", "23:50", "23:30")])
def test_hours_of_a_clock_whose_rows_may_pass_midnight_are_refused(hours):
    with pytest.raises(ValueError, match="may pass midnight"):
        covariate_values.courses_by_column([{"time": one, "hr": n} for n, one in enumerate(hours)], "time")


def test_hours_of_a_clock_that_fall_by_less_or_only_rise_are_those_of_one_day():
    rows = [{"time": one, "hr": n} for n, one in enumerate(("14:00", "09:00", "07:30"))]
    assert covariate_values.courses_by_column(rows, "time")["hr"].values == (2.0, 1.0, 0.0)
    apart = covariate_values.courses_by_column(
        [{"time": one, "hr": n} for n, one in enumerate(("00:10", "23:50"))], "time"
    )
    assert apart["hr"].times == (600.0, 85800.0)
