"""What the cells of a table mean: by the whole column and what parts it, else refused with both readings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.errors import DatasetError, UsageError
from hilum.values import table_cells
from hilum.values.table_cells import TextColumn

nan = np.nan


def column(*cells, separator=",", name="age"):
    return TextColumn(name, cells, "table.csv", separator, 2)


@pytest.mark.parametrize(
    ("cells", "separator", "numbers"),
    [
        (("0,83", "1"), ",", (0.83, 1)),
        (("0,831", "0,2"), ";", (0.831, 0.2)),
        (("1,504", "2,311"), ";", (1.504, 2.311)),
        (("1,504", "12,345,678"), ",", (1504, 12345678)),
        (("1,504.5", "983"), ",", (1504.5, 983)),
        (("7.780E+01", "6.145E+01"), ";", (77.80, 61.45)),
        (("7,780E+01", "6,145e1"), "\t", (77.80, 61.45)),
        (("1.504,5", "983"), ";", (1504.5, 983)),
        (("1.504", "2.311"), ",", (1.504, 2.311)),
        (("1.504", "2.311"), "", (1.504, 2.311)),
        (("0.504", "2.311"), ";", (0.504, 2.311)),
        (("12 345,6", "1\u00a0504"), "\t", (12345.6, 1504)),
        (("1'504", "2\u2019311.5"), ",", (1504, 2311.5)),
        (("\u22125", "+3", "1e-3", ".5", "5."), ",", (-5, 3, 1e-3, 0.5, 5)),
        (("83 %", "7%"), ",", (0.83, 0.07)),
        (("045Y", "006M"), ",", (45, 6 * 30.44 / 365.25)),
        (("3", "", "n/a", "#N/A", "unknown", "-", ">89", "90+", "<0.1"), ",", (3, *[nan] * 5, 89, 90, 0.1)),
    ],
)
def test_numbers_are_read_by_the_whole_column_and_the_separator(cells, separator, numbers):
    np.testing.assert_allclose(table_cells.numbers_in(column(*cells, separator=separator)).refuse_odd().values, numbers)


@pytest.mark.parametrize(
    ("cells", "separator", "words"),
    [
        (("1,504", "983"), ",", "'1,504', which may be 1504 or 1.504"),
        (("1,504", "983"), "\t", "1504 or 1.504"),
        (("1.504", "983"), ";", "'1.504', which may be 1.504 or 1504"),
        (("0,5", "0.5"), ";", "decimal points, as '0.5', and decimal commas, as '0,5'"),
        (("1,504", "1.504"), ";", "may be"),
        (("0.83", "83%"), ",", "'83%' in line 3 and '0.83' in line 2"),
    ],
)
def test_numbers_of_two_readings_are_refused_with_both(cells, separator, words):
    with pytest.raises(DatasetError, match=words):
        table_cells.numbers_in(column(*cells, separator=separator))


@given(st.lists(st.decimals(-(10**7), 10**7, places=2), min_size=1), st.sampled_from([",.", ".,"]))
def test_every_number_with_two_decimals_is_read_whatever_its_marks(numbers, marks):
    swapped = str.maketrans(",.", marks)
    cells = [f"{one:,.2f}".translate(swapped) for one in numbers]
    np.testing.assert_allclose(table_cells.numbers_in(column(*cells)).values, [float(one) for one in numbers])


def test_a_word_in_a_column_of_numbers_is_refused_with_its_file_and_line_and_stays_no_level():
    odd = column(*map(str, range(20, 69)), "old")
    assert table_cells.is_mostly_numeric(odd)
    with pytest.raises(DatasetError, match=r"table\.csv: age in line 51: 'old' is no number"):
        table_cells.numbers_in(odd).refuse_odd()
    assert not table_cells.is_mostly_numeric(column("1", "2", "3a", "3b", "1", "2"))


def test_what_is_taken_as_missing_or_as_a_limit_is_stated():
    limited = table_cells.numbers_in(column(*map(str, range(20, 69)), ">89"))
    assert limited.sentence == "age: 49 numbers, 1 cell '>89' taken as the limit"
    assert limited.is_notable
    assert not table_cells.numbers_in(column("3", "", "4")).is_notable
    with pytest.raises(DatasetError, match="'>89' is a limit"):
        table_cells.numbers_in(limited.column, strictly=True).refuse_odd()


def test_a_limit_is_a_value_with_a_side_that_stands_beyond_it():
    found = table_cells.numbers_in(column("0,1", "<0,1", "\u2264 0,1", "0,05", "5+", "5,0", ">=5", "", "7"))
    assert found.sides.tolist() == [0, -1, -1, 0, 1, 0, 1, 0, 0]
    np.testing.assert_allclose(found.values, [0.1, 0.1, 0.1, 0.05, 5, 5, 5, np.nan, 7])
    with np.errstate(invalid="raise"):  # a warning on the terminal of whoever reads a table with a gap
        order = found.ordered_values
    assert order[3] < order[1] == order[2] < order[0] < order[5] < order[4] == order[6] < order[8]
    assert found.sentence.startswith("age: 4 numbers with decimal commas, 4 cells taken as the limit: '<0,1', ")


@pytest.mark.parametrize("code", ["-999", "-9", "-1", "-99.0", "999", "9999", "-88"])
def test_a_code_of_missing_numbers_is_none_of_them(code):
    cells = ["3.4", "5", "0", "7.25", "2", "8", code]
    assert table_cells.numbers_in(column(*cells)).missing == {code: 1}
    with pytest.raises(DatasetError, match="stands apart from the others"):
        table_cells.numbers_in(column(*cells), strictly=True).refuse_odd()


@pytest.mark.parametrize("others", [[-3, 0, 2, 5, -8, 1], [-9] * 6, [400, 350, 700, 420, 980, 333]])
def test_such_a_number_among_its_like_is_measured(others):
    assert not table_cells.numbers_in(column(*map(str, others), "-9" if others[0] < 0 else "999")).missing


@pytest.mark.parametrize(
    ("yes", "no"),
    [("Y", "N"), ("pos", "neg."), ("WAHR", "FALSCH"), ("VRAI", "FAUX"), ("T", "F"), ("1.0", "0.0"), ("1,0", "0,0"),
     ("oui", "non"), ("ja", "nein"), ("si", "no"), ("Sí", "No"), ("TRUE", "FALSE"), ("present", "absent"),
     ("+", "-"), ("detected", "not detected")],
)  # fmt: skip
def test_yes_and_no_are_read_in_the_words_of_people_and_programs(yes, no):
    assert table_cells.truths_in(column(yes, no, "", "unknown", yes)).values.tolist()[:2] == [1, 0]
    np.testing.assert_array_equal(
        table_cells.truths_in(column(yes, no, "", "n/a")).refuse_odd().values, [1, 0, nan, nan]
    )


@pytest.mark.parametrize("word", ["benign", "2", "maybe", "none", "-9", "50%"])
def test_a_word_that_is_neither_yes_nor_no_is_refused_and_never_negative(word):
    with pytest.raises(DatasetError, match=f"line 3: '{word}' is neither yes nor no"):
        table_cells.truths_in(column("1", word, "0")).refuse_odd()


@pytest.mark.parametrize("cells", [("83", "7"), ("0.2", "1.5"), ("83%", "7%"), ("0.2", "-0.5")])
def test_probabilities_outside_0_to_1_or_with_percent_are_refused_with_a_cell(cells):
    with pytest.raises(DatasetError, match=r"line 2 is '83|line 3 is"):
        table_cells.probabilities_in(column(*cells))


def test_times_keep_the_clock_of_their_zone():
    seen = table_cells.times_in(column("2026-03-07T02:00:00+10:00", "2026-03-08 02:00+1000"))
    assert seen.at[0] == np.datetime64("2026-03-06T16:00")
    assert seen.local[0] == np.datetime64("2026-03-07T02:00")
    bare = table_cells.times_in(column("2026-03-07", "", "soon"))
    assert bare.at[0] == bare.local[0] == np.datetime64("2026-03-07")
    assert list(bare.odd) == [2]


def test_times_with_and_without_zone_are_refused_with_the_count_of_each():
    with pytest.raises(DatasetError, match=r"1 time with a zone .*line 3\) and 2 without .*line 2"):
        table_cells.times_in(column("2026-03-07T02:00", "2026-03-07T02:00Z", "2026-03-08"))


def test_day_and_month_are_told_apart_by_the_whole_column_or_refused():
    assert table_cells.times_in(column("03.04.2026", "25.04.2026 08:30")).at[0] == np.datetime64("2026-04-03")
    assert table_cells.times_in(column("3/4/2026", "4/25/2026 8:30")).at[0] == np.datetime64("2026-03-04")
    assert table_cells.times_in(column("05.05.2026")).at[0] == np.datetime64("2026-05-05")
    with pytest.raises(DatasetError, match=r"line 2 is '03.04.2026', which may be 2026-03-04 or 2026-04-03"):
        table_cells.times_in(column("03.04.2026", "05.05.2026"))
    assert len(table_cells.times_in(column("25.04.2026", "4/25/2026")).odd) == 2


def test_a_day_of_a_flag_is_an_iso_day():
    assert table_cells.moment_in("2026-04-03", "--since").month == 4
    with pytest.raises(UsageError, match=r"--since: .* 2026-03-04 or 2026-04-03. Write it as 2026-03-04 or as 2026-04"):
        table_cells.moment_in("03.04.2026", "--since")
    with pytest.raises(UsageError, match="no day"):
        table_cells.moment_in("soon", "--since")
