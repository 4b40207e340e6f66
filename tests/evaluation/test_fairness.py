from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    demographic_parity_ratio,
    equal_opportunity_difference,
    equalized_odds_difference,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import hypergeom, studentized_range
from sklearn.metrics import precision_score

from hilum.errors import UsageError
from hilum.evaluation import classification, intervals
from hilum.evaluation.fairness import group_attributes, group_gaps
from hilum.evaluation.fairness.group_gaps import Gap
from hilum.evaluation.intervals import Resampling
from hilum.values import Estimate


def called(count=400, seed=0, lower=0.0, sites="ab"):
    """Calls of people in two sites; in the second fewer of the ill are found."""
    random = np.random.default_rng(seed)
    site, ill = random.choice(list(sites), count), random.random(count) < 0.5
    hit = random.random(count) < np.where(ill, 0.8 - lower * (site == sites[-1]), 0.2)
    words = np.array(["fine", "ill"])
    columns = {"case": np.arange(count).astype(str), "patient": np.arange(count).astype(str), "label": "all"}
    return pd.DataFrame({**columns, "reference": words[ill.astype(int)], "predicted": words[hit.astype(int)]}), site


def gaps_of(table, groups, seed=0):
    found = group_gaps.rate_gaps("site", table, groups, lambda label: sorted(set(groups.tolist())), seed=seed)
    return {(gap.metric, gap.label): gap for gap in found}


@given(st.integers(0, 10_000), st.sampled_from(["ab", "abc"]))
@settings(max_examples=8, deadline=None)
@pytest.mark.whole
def test_gaps_of_calls_are_those_of_fairlearn(seed, sites):
    table, groups = called(300, seed, lower=0.2, sites=sites)
    truth, hit = (table[name] == "ill" for name in ("reference", "predicted"))
    own = gaps_of(table, groups)
    for metric, theirs in (
        ("demographic_parity_difference", demographic_parity_difference),
        ("demographic_parity_ratio", demographic_parity_ratio),
        ("equalised_odds_difference", equalized_odds_difference),
        ("equal_opportunity_difference", equal_opportunity_difference),
    ):
        assert_allclose(own[metric, "ill"].value, theirs(truth, hit, sensitive_features=groups), atol=1e-9)
    precision = MetricFrame(metrics=precision_score, y_true=truth, y_pred=hit, sensitive_features=groups)
    assert_allclose(own["predictive_parity_difference", "ill"].value, precision.difference(), atol=1e-9)


def test_a_gap_that_is_there_is_found_with_its_interval_and_its_group():
    gap = gaps_of(*called(600, lower=0.4))["equal_opportunity_difference", "ill"]
    assert gap.low < 0.4 < gap.high
    assert gap.low > 0
    assert gap.p < 0.001
    assert gap.worst == "b"


@pytest.mark.parametrize("metric", ["equal_opportunity_difference", "predictive_parity_difference"])
def test_people_who_are_in_no_rate_make_its_interval_no_narrower(metric):
    """Ten people a group, each with eleven images, who are ill or called; the others are neither."""
    random = np.random.default_rng(3)
    shares = random.beta(2, 2, size=(20, 1)) > random.random((20, 11))
    widths = []
    for others in (0, 300):
        person = np.concatenate([np.repeat(np.arange(20), 11), 20 + np.arange(2 * others)])
        sure, known = np.full(len(person), "fine", object), np.arange(len(person)) < 220
        sure[known] = "ill"
        unsure = np.where(np.concatenate([shares.ravel(), np.zeros(2 * others, bool)]), "ill", "fine")
        names = ("reference", "predicted") if metric.startswith("equal") else ("predicted", "reference")
        ids = {"case": person.astype(str), "patient": person.astype(str), "label": "all"}
        table = pd.DataFrame({**ids, **dict(zip(names, (sure, unsure), strict=True))})
        gap = gaps_of(table, np.where(person % 2, "a", "b"))[metric, "ill"]
        widths.append(gap.high - gap.low)
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


def test_a_figure_of_groups_is_widened_by_the_smaller_class_as_that_of_all():
    random = np.random.default_rng(4)
    positive, scores = np.arange(420) % 210 < 10, random.normal(size=420)
    groups = {str(n): "ab"[n // 210] for n in range(420)}
    people = np.arange(420).astype(str)
    how = Resampling(0, keeps_recipe=True)
    made = intervals.bootstrap_statistic(
        partial(classification.auroc, scores + positive, positive), people, strata=positive, seed=how
    )
    gap = group_gaps.gap_of_recipe(Gap("ward", "auroc", "all", 0.0), made.recipe, groups, worse=-1, seed=0)
    alone = [
        intervals.bootstrap_statistic(
            partial(classification.auroc, (scores + positive)[own], positive[own]),
            people[own],
            strata=positive[own],
            seed=0,
        )
        for own in (np.arange(210), np.arange(210, 420))
    ]
    half = np.hypot(*(one.high - one.low for one in alone))
    assert gap.high - gap.low == pytest.approx(half, rel=0.1)


def test_of_several_classes_each_is_one_against_the_rest():
    table, groups = called(60)
    table.loc[:9, "reference"] = "worse"
    assert {label for _, label in gaps_of(table, groups)} == {"fine", "ill", "worse"}


def test_the_permutation_p_is_fishers_where_two_rates_are_compared():
    counts = [(9, 12), (3, 13)]  # hits of people
    hits = np.concatenate([np.arange(n) < k for k, n in counts])
    groups = np.repeat([0, 1], [n for _, n in counts])

    def rate(weights):
        return (weights @ hits) / weights.sum(axis=1)

    # As far apart: 9 of 12 against 3 of 13, and 3 of 12 against 9 of 13 is nearer.
    ways = [hypergeom.pmf(k, 25, 12, 12) for k in range(13) if abs(k / 12 - (12 - k) / 13) >= 9 / 12 - 3 / 13 - 1e-12]
    found = group_gaps.deal_groups([rate], groups, np.zeros(25, dtype=int), seed=0)
    assert_allclose(found.p, sum(ways), rtol=0.35)  # the dealing ends once it has seen enough
    assert_allclose(found.figures, [[9 / 12, 3 / 13]])


def test_people_are_dealt_within_their_class_so_that_unequal_shares_of_ill_are_no_gap_of_detection():
    """In one site nine of ten are ill, in the other one of ten; the ill are found alike."""
    alarms = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        groups = np.repeat([0, 1], 100)
        ill = random.random(200) < np.where(groups == 0, 0.9, 0.1)
        hit = random.random(200) < np.where(ill, 0.8, 0.2)

        def found_of_ill(weights, ill=ill, hit=hit):
            return (weights @ (hit & ill)) / (weights @ ill)

        alarms += group_gaps.deal_groups([found_of_ill], groups, ill.astype(int), seed=seed).p < 0.05
    assert alarms <= 8  # 3 expected; one of 500 such runs has more


def test_a_figure_of_groups_is_made_of_what_made_it_of_all():
    random = np.random.default_rng(0)
    truth = np.arange(200) % 2
    scores = truth + random.normal(size=200) * np.where(np.arange(200) < 100, 0.3, 2.0)
    people = np.array([f"p{n}" for n in range(200)])
    how = Resampling(draws=2, keeps_recipe=True)
    made = intervals.bootstrap_statistic(
        partial(classification.auroc, scores, truth), people, strata=truth, seed=how, compares=True
    )
    group = {one: "first" if n < 100 else "second" for n, one in enumerate(people)}
    gap = group_gaps.gap_of_recipe(Gap("half", "auroc", "all", 0.0), made.recipe, group, worse=-1, seed=0)
    each = [float(classification.auroc(scores[half], truth[half])) for half in (slice(0, 100), slice(100, None))]
    assert_allclose(gap.value, each[0] - each[1])
    assert gap.worst == "second"
    assert gap.p <= 0.001


def test_of_figures_with_intervals_only_the_gap_is_that_of_normal_errors():
    def one(value, half):
        return Estimate(value, value - half, value + half, n=50)

    gap = group_gaps.gap_of_estimates(
        Gap("sex", "calibration_slope", "all", 0.0), {"f": one(1.0, 0.3), "m": one(0.5, 0.4)}, abs
    )
    assert_allclose((gap.value, gap.low, gap.high), (0.5, 0.0, 1.0), atol=1e-6)  # 0.5 is the hypotenuse of 0.3, 0.4
    assert_allclose(gap.p, 0.05, atol=1e-3)


def test_of_several_estimates_the_largest_gap_is_tested_as_the_largest_and_stands_beside_that_of_chance():
    def one(value):
        return Estimate(value, value - 0.196, value + 0.196, n=50)  # a standard error of .1

    found = {
        count: group_gaps.gap_of_estimates(Gap("site", "dice", "all", 0.0), known, lambda value: -value)
        for count, known in {
            2: {"a": one(0.5), "b": one(0.8)},
            3: {"a": one(0.5), "b": one(0.7), "c": one(0.8)},
        }.items()
    }
    assert_allclose(found[2].expected, 0.2 / np.sqrt(np.pi), rtol=0.05)
    assert_allclose(found[3].expected, 0.3 / np.sqrt(np.pi), rtol=0.05)
    assert_allclose(found[3].p, studentized_range.sf(3.0, 3, np.inf), rtol=1e-3)
    assert found[3].low < 0 < found[2].p < found[3].p


@pytest.mark.parametrize(("ill", "is_few"), [(9, True), (10, False), (0, True)])
def test_below_ten_people_of_either_class_a_group_is_too_few_to_judge(ill, is_few):
    table, _ = called(40)
    table["reference"] = np.where(np.arange(40) < ill, "ill", "fine")
    assert group_gaps.has_few_people(table, "all", ["fine", "ill"]) is is_few
    assert group_gaps.has_few_people(table, "ill", ["fine", "ill"]) is is_few
    assert group_gaps.has_few_people(table.iloc[:9], "all", [])  # of masks people count
    assert not group_gaps.has_few_people(table.iloc[:10], "all", [])


WHO = {"sex": ["F", "M", "f", None], "age": ["039Y", "40", "60", "59.9"], "Site": [1, 1.0, "2", "2"]}


def test_groups_are_covariates_as_written_ranges_of_them_or_crossed():
    made = group_attributes.groups_by_attribute(WHO, "sex, age:40:60, site, sex*age")
    assert_array_equal(made["sex"], ["F", "M", "F", "unknown"])
    assert_array_equal(made["age"], ["<40", "40-60", ">=60", "40-60"])
    assert_array_equal(made["site"], ["1", "1", "2", "2"])
    assert_array_equal(made["sex*age"], ["F, <40", "M, 40-60", "F, >=60", "unknown"])


def test_spellings_of_one_word_are_one_group_under_its_first_name():
    sexes = ["F", "f", "female", " Female", "\uff26", "Weiblich", "M", "male", "MALE ", None]
    risks = [
        "high risk",
        "High-Risk",
        "high_risk",
        "high\u00a0risk",
        "low risk",
        "Low  risk",
        "-1",
        "-1.0",
        "40-60",
        "1-2",
    ]
    made = group_attributes.groups_by_attribute({"sex": sexes, "risk": risks}, "sex,risk")
    assert made["sex"].tolist() == ["F"] * 6 + ["M"] * 3 + ["unknown"]
    assert made["risk"].tolist() == ["high risk"] * 4 + ["low risk"] * 2 + ["-1"] * 2 + ["40-60", "1-2"]
    kinds = ["protocol 7", "Protocol-7", "PROTOCOL_7", "protocol -7", "COVID - pneumonia", "covid pneumonia"]
    made = group_attributes.groups_by_attribute({"kind": kinds}, "kind")["kind"]
    assert made.tolist() == ["protocol 7"] * 3 + ["protocol -7"] + ["COVID - pneumonia"] * 2
    keys = [group_attributes.group_key(name) for name in ("Female, <40", "f, <40", "F, >=40")]
    assert keys[0] == keys[1] != keys[2]


def test_ranges_stand_as_they_rise():
    assert sorted([">=60", "unknown", "40-60", "<40"], key=group_attributes.group_order) == [
        "<40",
        "40-60",
        ">=60",
        "unknown",
    ]
    assert sorted(["M", "F"], key=group_attributes.group_order) == ["F", "M"]
    crossed = ["F, <40", "F, 40-60", "F, >=60", "M, <40", "M, >=60"]
    assert sorted(["unknown", *crossed], key=group_attributes.group_order) == [*crossed, "unknown"]


def test_without_being_asked_for_covariates_of_two_to_eight_levels_make_groups():
    many = {"sex": ["F", "M"] * 10, "constant": ["x"] * 20, "weight": list(range(20)), "grade": list(range(4)) * 5}
    assert group_attributes.default_groups(many) == "sex,grade"
    assert list(group_attributes.groups_by_attribute(many, None)) == ["sex", "grade"]
    assert group_attributes.groups_by_attribute(many, "none") == {}
    assert group_attributes.default_groups({**many, "Hausarzt": ["Quast", "Ida"] * 20}) == "sex,grade"
    assert group_attributes.default_groups({}) is None


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ("height", "there is no covariate 'height'.*Choose from sex"),
        ("ward", "ward has 1000 levels.*limits of ranges"),
        ("age:60:40", "'age:60:40' is not a group"),
        ("age:old", "is not a group"),
        ("sex:1", "holds 'F', which is not a number"),
    ],
)
def test_what_makes_no_groups_is_refused(asked, match):
    with pytest.raises(UsageError, match=match):
        group_attributes.groups_by_attribute({**WHO, "ward": [f"w{n}" for n in range(1000)]}, asked)
