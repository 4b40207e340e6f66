from __future__ import annotations

from functools import partial
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from hilum.belief import calibration_scores
from hilum.belief.calibration_scores import DoubtedAnswers
from hilum.errors import UsageError
from hilum.evaluation import intervals, uncertainty
from hilum.lazy import pandas as pd

cases = st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.0, 0.3, 1.0])), min_size=1, max_size=6)


def test_the_area_is_the_mean_over_coverages_of_the_mean_loss_among_the_answered():
    shares, risk = uncertainty.risk_coverage([0.1, 0.4, 0.2, 0.9], [0, 1, 0, 1])
    assert_allclose(shares, [0.25, 0.5, 0.75, 1])
    assert_allclose(risk, [0, 0, 1 / 3, 1 / 2])
    assert_allclose(uncertainty.aurc([0.1, 0.4, 0.2, 0.9], [0, 1, 0, 1]), (1 / 3 + 1 / 2) / 4)
    assert_allclose(uncertainty.excess_aurc([0.1, 0.4, 0.2, 0.9], [0, 1, 0, 1]), 0, atol=1e-12)


@given(cases)
def test_cases_of_equal_doubt_count_as_on_average_over_their_orders(pairs):
    doubt, loss = np.array(pairs).T
    orders = [one for one in permutations(range(len(doubt))) if (np.diff(doubt[list(one)]) >= 0).all()]
    each = [np.mean(np.cumsum(loss[list(one)]) / np.arange(1, len(loss) + 1)) for one in orders]
    assert_allclose(uncertainty.aurc(doubt, loss), np.mean(each), atol=1e-12)


@given(cases, st.integers(0, 9))
def test_no_order_is_better_than_that_of_the_losses_and_weights_are_repetitions(pairs, seed):
    doubt, loss = np.array(pairs).T
    assert uncertainty.excess_aurc(doubt, loss) >= -1e-12
    counts = np.random.default_rng(seed).integers(0, 4, size=(3, len(loss)))
    counts[:, 0] += 1
    repeated = [uncertainty.aurc(np.repeat(doubt, one), np.repeat(loss, one)) for one in counts]
    assert_allclose(uncertainty.aurc(doubt, loss, counts.astype(float)), repeated, atol=1e-12)


def test_of_one_doubt_for_all_the_area_has_the_interval_of_the_mean_loss():
    loss, patients = np.arange(60) % 3 == 0, np.arange(60)
    area = intervals.bootstrap_statistic(partial(uncertainty.aurc, np.zeros(60), loss), patients, seed=0, exact=False)
    mean = intervals.bootstrap(loss, patients, seed=0)
    assert (area.low, area.high) == pytest.approx((mean.low, mean.high))


def test_a_case_that_is_never_sampled_is_not_there():
    weights = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    assert_allclose(uncertainty.aurc([1, 2, 3], [0, 1, 1], weights), [uncertainty.aurc([1, 3], [0, 1]), 1.0])


def test_a_doubt_that_is_nan_is_refused():
    with pytest.raises(UsageError, match="one doubt and one loss"):
        uncertainty.aurc([np.nan, 1], [0, 1])


def table(**columns: object) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    names = [f"c{n}" for n in range(count)]
    return pd.DataFrame({"case": names, "patient": names, "label": "all", **columns})


def figures(of: pd.DataFrame) -> dict[str, float]:
    return {row.metric: row.estimate.value for row in calibration_scores.doubt_rows(of, seed=0)}


def test_wrong_classes_are_found_by_each_kind_of_doubt_that_is_stated():
    called = {"reference": list("aabb") * 5, "predicted": list("aaba") * 5}
    made = figures(table(**called, total=[0.1, 0.2, 0.3, 0.9] * 5, epistemic=[0.4, 0.3, 0.2, 0.1] * 5))
    assert made["error_detection"] == 1
    assert made["excess_aurc"] == pytest.approx(0, abs=1e-12)
    assert made["error_detection_epistemic"] == 0
    assert made["aurc_epistemic"] > made["aurc"]
    assert figures(table(**called)) == {}


def test_of_findings_the_entropy_of_each_is_its_doubt_and_an_unknown_reference_is_left_out():
    of = table(
        reference=["present", "absent", "present", None], predicted=["present"] * 3 + ["absent"],
        probability=[0.9, 0.6, 0.8, 0.5], total=[9.0, 9.0, 9.0, 9.0],
    )  # fmt: skip
    doubted = DoubtedAnswers.from_table(of)
    assert_allclose(doubted.loss, [0, 1, 0])
    assert figures(of)["error_detection"] == 1


def test_of_masks_the_loss_is_what_the_mean_dice_lacks():
    of = pd.DataFrame(
        {"case": ["a", "a", "b"], "patient": ["a", "a", "b"], "dice": [1.0, 0.5, 0.1], "total": [0.1, 0.1, 0.6]}
    )
    assert_allclose(DoubtedAnswers.from_table(of).loss, [0.25, 0.9])
    assert "error_detection" not in figures(of)
    assert figures(of)["aurc"] == pytest.approx((0.25 + 0.575) / 2)
