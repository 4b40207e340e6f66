from __future__ import annotations

import numpy as np
import pytest

from fingerprints import facts
from isocenter.errors import PlanError
from isocenter.planning.context import context_decision
from isocenter.values import Case, Dataset, Fingerprint

COUNT = 60


def cohort(**columns):
    """Cases of two classes by turns, with these covariates."""
    covariates = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    cases = tuple(Case(f"c{n}", f"p{n}", {}, covariates=one) for n, one in enumerate(covariates))
    found = (facts(name=f"c{n}", references={"class": "ill" if n % 2 else "well"}) for n in range(COUNT))
    return Dataset(cases), Fingerprint(tuple(found))


def decided(asked, **columns):
    return context_decision(*cohort(**columns), asked)


def ages(gaps=0):
    drawn = np.random.default_rng(0).normal(60, 10, COUNT).round().tolist()
    return [None if n < gaps else age for n, age in enumerate(drawn)]


def test_without_being_asked_for_no_covariate_is_told():
    decision = decided(None, age=ages())
    assert decision.value is None
    assert "there are age" in decision.because


def test_what_is_filled_in_and_how_is_learnt_from_the_cases_that_are_given():
    decision = decided("age", age=ages(gaps=6))
    known = np.array(ages()[6:])
    assert decision.value["age"]["median"] == np.median(known)
    assert decision.value["age"]["missing"] == 0.1
    assert decision.value["age"]["mean"] == pytest.approx((known.sum() + 6 * np.median(known)) / COUNT, rel=1e-5)
    assert "10% missing: the median and a mark" in decision.because


def test_rare_levels_are_unknown():
    decision = decided(["ward"], ward=["a"] * 30 + ["b"] * 27 + ["c"] * 3)
    assert decision.value == {"ward": {"levels": {"a": 0.5, "b": 0.45}, "missing": 0.05}}


def test_all_leaves_out_what_tells_nothing_and_says_why():
    decision = decided(
        "all",
        age=ages(),
        constant=["x"] * COUNT,
        note=[f"remark {n}" for n in range(COUNT)],
        scanner=["a", "b", "a"] * (COUNT // 3),
        rare=[None] * 40 + [1, 2] * 10,
        coded=[float(n % 2) for n in range(COUNT)],
    )
    assert set(decision.value) == {"age"}
    for said in (
        "constant (constant in the training cases)",
        "note (60 words",
        "scanner (it says how the image was made",
        "rare (40 of 60 training cases lack it)",
        "coded (the label in disguise: it tells 1.000",
    ):
        assert said in decision.because


@pytest.mark.parametrize(
    ("column", "values", "match"),
    [
        ("place", ["here"] * COUNT, "constant"),
        ("code", ["I" if n % 2 else "W" for n in range(COUNT)], "the label in disguise"),
    ],
)
def test_a_column_that_was_named_and_is_not_fit_is_refused(column, values, match):
    with pytest.raises(PlanError, match=match):
        decided([column], **{column: values})


def test_a_column_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(PlanError, match="Choose of age"):
        decided(["weight"], age=ages())
