import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.errors import DatasetError, FormatError
from hilum.evaluation import case_tables
from hilum.values import Estimate, Row


def line(case: str = "a", label: str = "all", **more):
    return {"case": case, "patient": f"patient of {case}", "split": "test", "label": label, **more}


def a_row(case: str = "a", reference: str = "well", predicted: str = "ill", chance: float = 0.7):
    chances = {"probability_well": 1 - chance, "probability_ill": chance}
    return line(case, reference=reference, predicted=predicted, **chances, brier=0.1)


def test_columns_stand_in_the_stated_order():
    table = case_tables.case_table([a_row()])
    expected = ["case", "patient", "split", "label", "brier", "reference", "predicted", "probability_well"]
    assert list(table) == [*expected, "probability_ill"]
    assert case_tables.classes_with_probability(table) == ("well", "ill")
    assert case_tables.metric_columns(table) == ["brier"]


def test_metrics_keep_the_order_in_which_they_were_given():
    table = case_tables.case_table([line(label="left", dice=0.9, hd95=2.0), line(label="right", dice=np.nan, hd95=1.0)])
    assert case_tables.metric_columns(table) == ["dice", "hd95"]
    assert np.isnan(table["dice"][1])


def test_units_and_other_words_are_no_metrics():
    assert case_tables.metric_columns(case_tables.case_table([line(dice=0.9, distance_unit="mm")])) == ["dice"]


def test_how_sure_a_model_is_of_a_case_is_no_figure_of_how_good_it_is():
    assert case_tables.metric_columns(
        case_tables.case_table([line(dice=0.9, gate_p=0.4, total=0.2, epistemic=0.1)])
    ) == ["dice"]


def test_a_table_comes_back_whole_from_its_file(tmp_path):
    table = case_tables.case_table([a_row("a"), a_row("b", chance=0.125)])
    table.to_csv(tmp_path / "cases.csv", index=False)
    again = pd.read_csv(tmp_path / "cases.csv")
    case_tables.check_table(again)
    pd.testing.assert_frame_equal(again, table, check_dtype=False)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "without case"),
        ([{"case": "a", "patient": "p", "label": "all"}], "without split"),
        ([line() | {"patient": None}], "without patient"),
        ([line(), line()], "case a occurs twice"),
        ([line(label="left"), line(label="right") | {"patient": "another"}], "two patients"),
        ([line() | {"split": "holdout"}], "split 'holdout'"),
        ([a_row(chance=1.5)], "outside 0..1"),
        ([a_row(chance=np.nan)], "outside 0..1"),
        ([a_row(predicted="odd")], "class 'odd'"),
    ],
)
def test_a_table_that_would_be_misread_is_refused(rows, message):
    with pytest.raises(DatasetError, match=message):
        case_tables.case_table(rows)


def test_a_file_that_would_be_misread_is_refused_by_its_path(tmp_path):
    path = tmp_path / "cases.csv"
    pd.DataFrame([line(), line()]).to_csv(path, index=False)
    with pytest.raises(DatasetError) as refused:
        case_tables.read_cases(path)
    assert refused.value.where == str(path)


numbers = st.floats(allow_nan=True, allow_infinity=False)
words = st.text(max_size=8)
estimates = st.builds(
    Estimate,
    value=numbers,
    low=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    high=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    n=st.integers(0, 9),
    patients=st.integers(0, 9),
    unit=words,
    method=words,
)


@given(st.lists(st.builds(Row, words, words, estimates), max_size=4))
def test_a_summary_comes_back_whole_from_its_record(rows):
    again = case_tables.rows_from_json(json.loads(json.dumps(case_tables.rows_to_json(rows), allow_nan=False)))
    assert repr(again) == repr(rows)


def test_a_record_has_the_stated_keys_and_null_for_what_is_not_a_number():
    record = case_tables.rows_to_json([Row("dice", "all", Estimate(float("nan"), method="none: no defined score"))])
    keys = ["metric", "label", "value", "low", "high", "level", "n", "patients", "unit", "method"]
    assert (record["schema"], record["version"]) == ("hilum.summary", 1)
    assert list(record["rows"][0]) == keys
    assert record["rows"][0]["value"] is None


def test_another_record_is_refused():
    with pytest.raises(FormatError, match="version 7"):
        case_tables.rows_from_json({"schema": "hilum.summary", "version": 7, "rows": []})


def test_free_text_enters_no_table_of_cases():
    """Sentences that differ from case to case; a scanner's name of three words returns, and stays."""
    rows = [
        line(
            case=f"c{n}",
            covariate_history=f"fever and cough for {'very ' * n}long",
            covariate_scanner="Philips Medical Systems",
            covariate_age=40 + n,
        )
        for n in range(4)
    ]
    assert case_tables.covariate_columns(case_tables.case_table(rows)) == ["covariate_scanner", "covariate_age"]
