from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest

from hilum.errors import DatasetError, FormatError
from hilum.evaluation import case_tables, classification, intervals
from hilum.evaluation.intervals import Resampling
from hilum.evaluation.significance import paired_tests
from hilum.values import Row

PEOPLE = 40
OWNERS = np.array([f"p{n}" for n in range(PEOPLE)])
KEPT = Resampling(keeps_draws=True)


def scores(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.5, 0.9, PEOPLE)


def table(values: np.ndarray, **columns: object) -> pd.DataFrame:
    given = {"case": OWNERS, "patient": OWNERS, "split": "test", "label": "organ", "dice": values}
    return pd.DataFrame({**given, **columns})


def by_dice(one: pd.DataFrame, *, seed: Resampling) -> list:
    return case_tables.mean_rows(one, {"dice": ""}, seed=seed)


def test_what_is_hard_about_a_patient_cancels_out():
    values = scores()
    noise = np.random.default_rng(1).normal(0.02, 0.005, PEOPLE)
    first, second = (intervals.bootstrap(one, OWNERS, seed=KEPT) for one in (values, values + noise))
    apart = intervals.difference(first, second)
    assert apart.value == pytest.approx(noise.mean())
    assert 0 < apart.low < apart.value < apart.high
    # The mean of differences has its own bootstrap, which must be the same.
    single = intervals.bootstrap(noise, OWNERS, seed=0, unit="ml")
    assert (apart.low, apart.high) == pytest.approx((single.low, single.high))
    assert apart.high - apart.low < 0.1 * (first.high - first.low)


def test_draws_are_kept_only_where_somebody_compares_and_are_no_part_of_a_record():
    assert intervals.bootstrap(scores(), OWNERS, seed=0).draws is None
    rows = by_dice(table(scores()), seed=KEPT)
    assert rows[0].estimate.draws.figures.shape == (2000,)
    assert "draws" not in case_tables.rows_to_json(rows)["rows"][0]
    assert intervals.bootstrap(scores(), OWNERS, seed=0).draws is None


def test_figures_of_other_patients_have_no_paired_interval():
    values = scores()
    first, second = (
        intervals.bootstrap(values, OWNERS, seed=KEPT),
        intervals.bootstrap(values[:30], OWNERS[:30], seed=KEPT),
    )
    apart = intervals.difference(first, second)
    assert apart.low is None
    assert "not resampled together" in apart.method


def test_equal_models_differ_by_nothing():
    rows, left_out = paired_tests.compare_figures({"a": table(scores()), "b": table(scores())}, [by_dice] * 2, seed=0)
    assert left_out == {}
    assert rows[0].differences[0].value == 0
    assert "all draws are equal" in rows[0].differences[0].method


def test_each_model_is_summed_up_by_its_own_task():
    def halved(one, *, seed):
        return by_dice(one.assign(dice=one["dice"] / 2), seed=seed)

    rows, _ = paired_tests.compare_figures({"a": table(scores()), "b": table(scores())}, [by_dice, halved], seed=0)
    assert rows[0].differences[0].value == pytest.approx(-scores().mean() / 2)


def test_the_order_of_rows_does_not_matter():
    better = scores() + 0.01 * np.arange(PEOPLE) / PEOPLE
    straight, _ = paired_tests.compare_figures({"a": table(scores()), "b": table(better)}, [by_dice] * 2, seed=0)
    mixed, _ = paired_tests.compare_figures(
        {"a": table(scores()), "b": table(better).sample(frac=1, random_state=0)}, [by_dice] * 2, seed=0
    )
    assert straight[0].differences[0] == mixed[0].differences[0]


def test_what_is_undefined_for_one_is_left_out_for_all_and_counted():
    values = scores()
    values[:3] = np.nan
    rows, left_out = paired_tests.compare_figures({"a": table(scores()), "b": table(values)}, [by_dice] * 2, seed=0)
    assert left_out == {"dice": 3}
    assert [one.n for one in rows[0].estimates] == [PEOPLE - 3] * 2
    assert rows[0].differences[0].value == 0


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (table(scores()).iloc[1:], f"the splits differ: {PEOPLE - 1} test cases are in both, 1 only in a"),
        (table(scores(), patient="one"), "belong to other patients"),
        (table(scores(), reference="yes"), "have other references"),
    ],
)
def test_other_cases_patients_or_references_are_refused(other, says):
    with pytest.raises(DatasetError, match=says) as refused:
        paired_tests.compare_figures({"a": table(scores(), reference="no"), "b": other}, [by_dice] * 2, seed=0)
    assert "hilum evaluate" in refused.value.remedy


def test_names_that_look_like_numbers_or_like_nothing_stay_names(tmp_path):
    rows = {
        "case": ["007", "NA"], "patient": ["1", "null"], "split": "test", "label": ["1", "nan"],
        "reference": ["0", "1"], "predicted": ["1", "1"], "probability_0": [0.5, 0.1], "probability_1": [0.5, 0.9],
    }  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "cases.csv", index=False)
    again = case_tables.read_cases(tmp_path / "cases.csv")
    assert again["case"].tolist() == ["007", "NA"]
    assert again["label"].tolist() == ["1", "nan"]
    assert again["reference"].tolist() == ["0", "1"]


@pytest.mark.parametrize("names", [("0", "1"), ("01", "1"), ("None", "NA"), ("True", "False")])
def test_names_of_classes_stay_names_in_each_part_of_a_table_of_several_tasks(tmp_path, names):
    answers = [names[n % 2] if n < 4 else None for n in range(8)]
    values = [None if n < 4 else 1.5 for n in range(8)]
    given = {
        "case": list("abcdabcd"),
        "patient": "p",
        "split": "test",
        "label": ["class: all"] * 4 + ["value: age"] * 4,
    }
    made = {"class.brier": 0.1, "class.reference": answers, "class.predicted": answers, "value.reference": values}
    pd.DataFrame({**given, **made}).to_csv(tmp_path / "cases.csv", index=False)
    read = case_tables.read_cases(tmp_path / "cases.csv")
    assert read["class.reference"].tolist()[:4] == answers[:4]
    assert read["class.reference"].isna().tolist() == [False] * 4 + [True] * 4
    assert read["value.reference"].astype(float).tolist()[4:] == [1.5] * 4


def test_other_references_are_refused_in_each_part_of_a_table_of_several_tasks():
    own = table(scores()).rename(columns={"dice": "masks.dice"}).assign(**{"classes.reference": "well"})
    with pytest.raises(DatasetError, match="other references"):
        paired_tests.compare_figures(
            {"a": own, "b": own.assign(**{"classes.reference": "ill"})}, [by_dice, by_dice], seed=0
        )


def test_a_file_that_is_no_table_of_cases_is_refused(tmp_path):
    (tmp_path / "cases.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="not a table of cases"):
        case_tables.read_cases(tmp_path / "cases.csv")
    (tmp_path / "cases.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DatasetError, match="a row without case"):
        case_tables.read_cases(tmp_path / "cases.csv")


def by_auroc(one: pd.DataFrame, *, seed: Resampling) -> list:
    truth = (one["reference"] == "ill").to_numpy()
    figure = partial(classification.auroc, one["dice"].to_numpy(), truth)
    return [
        Row(
            "auroc",
            "all",
            intervals.bootstrap_statistic(figure, one["patient"], strata=truth, seed=seed, compares=True),
        )
    ]


def test_runs_of_folds_are_compared_by_means_over_their_folds_and_paired_where_these_are_the_same():
    """The second run is the first with another shift in each fold, which changes no order within one."""
    ill = np.where(np.arange(PEOPLE) % 4 < 2, "ill", "well")
    folds, others = (np.where(side, "0", "1") for side in (np.arange(PEOPLE) % 2 == 0, np.arange(PEOPLE) < 20))
    first = table(scores() + 0.1 * (ill == "ill"), reference=ill, fold=folds)
    shifted = first.assign(dice=first["dice"] + 3.0 * (folds == "0"))
    rows, _ = paired_tests.compare_figures({"a": first, "b": shifted}, [by_auroc] * 2, seed=0)
    assert rows[0].differences[0].value == 0
    assert "mean over 2 folds" in rows[0].estimates[0].method
    better = first.assign(dice=first["dice"] + 0.1 * (ill == "ill"))
    rows, _ = paired_tests.compare_figures(
        {"a": first, "b": better, "c": better.assign(fold=others)}, [by_auroc] * 3, seed=0
    )
    paired, apart = rows[0].differences
    assert "paired" in paired.method and paired.low is not None
    assert "not resampled together" in apart.method and apart.low is None


def test_models_of_other_classes_or_grades_in_another_order_are_refused_and_classes_in_another_are_not():
    chances = {"probability_a": scores(), "probability_b": 1 - scores()}
    turned = dict(reversed(chances.items()))
    paired_tests.compare_figures(
        {"a": table(scores(), **chances), "b": table(scores(), **turned)}, [by_dice] * 2, seed=0
    )
    graded = [table(scores(), rps=scores(1), **own) for own in (chances, turned)]
    with pytest.raises(DatasetError, match="b: the grades stand in another order than in a"):
        paired_tests.compare_figures(dict(zip("ab", graded, strict=True)), [by_dice] * 2, seed=0)
    of_part = {f"classification.{name}": one for name, one in chances.items()}
    more = {**of_part, "classification.probability_c": 0.0}
    with pytest.raises(DatasetError, match="b: the classes are others than in a"):
        paired_tests.compare_figures(
            {"a": table(scores(), **of_part), "b": table(scores(), **more)}, [by_dice] * 2, seed=0
        )
