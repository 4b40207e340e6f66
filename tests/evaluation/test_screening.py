"""Endpoints of screening, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hilum.errors import UsageError
from hilum.evaluation import screening
from hilum.evaluation.screening import ENDPOINTS

# 1,000 women: 30 recalled, of whom 4 had cancer, 6 a benign biopsy, 2 an advised one; 2 interval cancers.
OUTCOME = ["cancer"] * 4 + ["benign"] * 6 + ["advised"] * 2 + ["normal"] * 18 + ["interval"] * 2 + ["normal"] * 968
RECALLED = [True] * 30 + [False] * 970


def test_the_endpoints_are_those_of_counting():
    read_by = ["a+b"] * 400 + ["a+model"] * 600
    rows = screening.screening_rows(RECALLED, OUTCOME, range(1000), read_by, seed=0)
    found = {row.metric: row.estimate for row in rows}
    assert tuple(found) == ENDPOINTS
    values = [found[name].value for name in ENDPOINTS]
    assert values == pytest.approx([0.03, 4.0, 4 / 30, 4 / 12, 4 / 10, 2.0, 0.3])
    low, high = found["detection_per_1000"].low, found["detection_per_1000"].high
    assert 1 < low < 4 < high < 11 and found["detection_per_1000"].unit == "per 1,000"
    assert (found["ppv3"].n, found["recall_rate"].n) == (10, 1000)


def test_screenings_of_one_person_make_no_interval_narrower():
    once = screening.screening_rows(RECALLED, OUTCOME, range(1000), seed=0)[0].estimate
    often = screening.screening_rows(np.repeat(RECALLED, 5), np.repeat(OUTCOME, 5), np.repeat(range(1000), 5), seed=0)[
        0
    ].estimate
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.15)


def test_an_unknown_outcome_is_refused_and_none_recalled_has_no_predictive_value():
    with pytest.raises(UsageError, match="'ill' is no outcome of screening"):
        screening.screening_rows([True], ["ill"], [1], seed=0)
    rows = {
        row.metric: row.estimate for row in screening.screening_rows([False] * 20, ["normal"] * 20, range(20), seed=0)
    }
    assert np.isnan(rows["ppv1"].value) and rows["recall_rate"].high > 0
