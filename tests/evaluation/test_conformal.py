"""The laws that sets, intervals and controlled risks keep, on simulated cases of which the truth is known."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import betabinom, binom, kstest

from hilum.errors import UsageError
from hilum.evaluation import conformal
from matrices import thinned

METHODS = ("lac", "aps", "raps", "contiguous")
LEVEL, DRAWS, TEST = 0.9, 2000, 40


def probabilities_of(random: np.random.Generator, cases: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Overconfident probabilities, and classes sampled by the true ones."""
    logits = random.normal(0, 1.5, (cases, classes)) + np.linspace(0.5, 0, classes)
    true, stated = (np.exp(one) / np.exp(one).sum(axis=1, keepdims=True) for one in (logits, 2.5 * logits))
    return stated, (random.random((cases, 1)) > np.cumsum(true, axis=1)[:, :-1]).sum(axis=1)


def uniforms(covered: np.ndarray, calibration: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Numbers that are uniform if so many of TEST cases are covered as the beta-binomial law says."""
    last = np.ceil(LEVEL * (calibration + 1))
    law = betabinom(TEST, last, calibration + 1 - last)
    return law.cdf(covered - 1) + random.random(len(covered)) * law.pmf(covered)


@pytest.mark.parametrize("method", thinned(2, METHODS))
def test_coverage_has_its_beta_binomial_law(method):
    random, covered = np.random.default_rng(1), []
    for _ in range(DRAWS):
        stated, true = probabilities_of(random, 50 + TEST)
        scores = conformal.class_scores(stated, method, draws=random.random(len(true)))
        own = scores[np.arange(len(true)), true]
        threshold, patients = conformal.conformal_threshold(own[:50], LEVEL)
        assert patients == 50
        covered.append(conformal.prediction_sets(scores[50:], threshold)[np.arange(TEST), true[50:]].sum())
    assert kstest(uniforms(np.array(covered), np.full(DRAWS, 50), random), "uniform").pvalue > 0.001


@pytest.mark.whole
def test_coverage_within_each_class_has_its_beta_binomial_law():
    random = np.random.default_rng(2)
    covered, counts = np.zeros((DRAWS, 3), dtype=int), np.array([15, 25, 60])
    rates = np.array([1.0, 3.0, 0.5])
    for draw in range(DRAWS):
        true = np.repeat(np.arange(3), counts)
        found = conformal.mondrian_thresholds(random.gamma(2, rates[true]), true, LEVEL)
        assert [found[one][1] for one in range(3)] == counts.tolist()
        new = random.gamma(2, rates, (TEST, 3))
        covered[draw] = (new <= [found[one][0] for one in range(3)]).sum(axis=0)
    for one in range(3):
        assert kstest(uniforms(covered[:, one], np.full(DRAWS, counts[one]), random), "uniform").pvalue > 0.001


@pytest.mark.parametrize(("chose", "lowest", "highest"), [(True, 0.8, 0.86), (False, 0.89, 0.92)])
@pytest.mark.whole
def test_cases_that_chose_one_of_fifty_checkpoints_promise_more_than_holds_and_others_do_not(chose, lowest, highest):
    """Sixty cases choose the lowest log loss; the coverage that they lose is six points."""
    random, cases, covered = np.random.default_rng(15), 60, []
    for _ in range(200):
        stated, true = probabilities_of(random, 2 * cases + 400)
        logs = np.log(stated)[None] / 2.5  # each checkpoint errs in its own way, none is better than another
        tried = logs[:, :cases] + random.normal(0, 1, (50, cases, 4))
        other = (logs + random.normal(0, 1, logs.shape))[0, cases:]
        tried, other = (one - np.log(np.exp(one).sum(axis=-1, keepdims=True)) for one in (tried, other))
        losses = -tried[:, np.arange(cases), true[:cases]]
        own = losses[losses.mean(axis=1).argmin()] if chose else -other[np.arange(cases), true[cases : 2 * cases]]
        new = -other[cases:][np.arange(400), true[2 * cases :]]
        covered.append((new <= conformal.conformal_threshold(own, LEVEL)[0]).mean())
    assert lowest < np.mean(covered) < highest


@pytest.mark.parametrize("method", ["aps", "raps"])
@pytest.mark.whole
def test_without_draws_sets_cover_at_least_as_often(method):
    random, covered = np.random.default_rng(3), []
    for _ in range(300):
        stated, true = probabilities_of(random, 50 + TEST)
        scores = conformal.class_scores(stated, method)
        threshold, _ = conformal.conformal_threshold(scores[np.arange(50), true[:50]], LEVEL)
        covered.append(conformal.prediction_sets(scores[50:], threshold)[np.arange(TEST), true[50:]].mean())
    assert np.mean(covered) > LEVEL - 3 * np.std(covered) / np.sqrt(len(covered))


def test_sets_that_are_never_empty_are_those_that_may_be_with_the_class_of_least_score_where_they_are():
    scores = conformal.class_scores(np.random.default_rng(5).dirichlet([0.2] * 4, 300), "aps")
    usual, filled = conformal.prediction_sets(scores, 0.8), conformal.prediction_sets(scores, 0.8, never_empty=True)
    empty = ~usual.any(axis=1)
    assert 0 < empty.sum() < 300 and (usual[~empty] == filled[~empty]).all()
    assert (filled[empty] == (scores[empty] == scores[empty].min(axis=1, keepdims=True))).all()


@pytest.mark.whole
def test_a_new_patient_is_covered_although_cases_of_one_patient_are_alike():
    random, by_patient, by_case = np.random.default_rng(4), [], []
    for _ in range(2000):
        # Who is examined most often is the easiest: pooled, his cases would hide the difficult ones.
        spread = random.choice([0.2, 3.0], 31)
        owners = np.repeat(np.arange(30), np.where(spread[:30] < 1, 20, 1))
        scores = np.abs(spread[owners] * (1 + 0.1 * random.normal(size=len(owners))))
        new = spread[30] * (1 + 0.1 * random.normal())
        threshold, patients = conformal.conformal_threshold(scores, LEVEL, owners)
        assert patients == 30
        by_patient.append(new <= threshold)
        by_case.append(new <= conformal.conformal_threshold(scores, LEVEL)[0])
    assert np.mean(by_patient) > LEVEL - 3 * np.sqrt(0.09 / 2000)
    assert np.mean(by_case) < 0.85


def test_one_case_a_patient_is_the_plain_rule():
    scores = np.random.default_rng(5).random(37)
    order = np.sort(scores)
    assert conformal.conformal_threshold(scores, 0.9, np.arange(37)) == (order[math.ceil(0.9 * 38) - 1], 37)
    assert conformal.conformal_threshold(scores, 0.9) == conformal.conformal_threshold(scores, 0.9, np.arange(37))


def test_several_equal_cases_of_each_patient_change_nothing():
    scores = np.random.default_rng(6).random(23)
    again = np.repeat(scores, np.arange(23) % 3 + 1)
    owners = np.repeat(np.arange(23), np.arange(23) % 3 + 1)
    assert conformal.conformal_threshold(again, 0.8, owners) == conformal.conformal_threshold(scores, 0.8)


def test_with_too_few_patients_for_the_level_nothing_is_left_out():
    assert conformal.conformal_threshold(np.arange(8.0), 0.9) == (math.inf, 8)
    assert conformal.conformal_threshold(np.arange(9.0), 0.9) == (8.0, 9)
    assert conformal.conformal_threshold([], 0.9) == (math.inf, 0)
    assert conformal.conformal_threshold(np.arange(40.0), 0.9, np.arange(40) % 5)[0] == math.inf
    assert conformal.prediction_sets([[0.1, 5.0]], math.inf).all()


def test_numbers_that_are_none_count_as_worst_and_leave_every_class_in():
    scores = np.where(np.arange(20) < 4, np.nan, 0.5)
    assert conformal.conformal_threshold(scores, 0.9)[0] == math.inf
    assert conformal.conformal_threshold(scores, 0.7)[0] == 0.5
    assert conformal.prediction_sets([[np.nan, 0.9, 0.1]], 0.5).tolist() == [[True, False, True]]
    assert np.isnan(conformal.class_scores([[np.nan, 0.5]])[0, 0])


def test_a_model_that_always_says_the_same_covers_too():
    stated, true = np.full((60, 3), 1 / 3), np.arange(60) % 3
    for method in METHODS:
        scores = conformal.class_scores(stated, method)
        threshold, _ = conformal.conformal_threshold(scores[np.arange(60), true], LEVEL)
        assert conformal.prediction_sets(scores, threshold)[np.arange(60), true].mean() >= LEVEL


@pytest.mark.parametrize("level", [0.0, 1.0, 1.2, -1.0, math.nan])
def test_an_impossible_coverage_is_refused(level):
    with pytest.raises(UsageError, match="more than 0 and less than 1"):
        conformal.conformal_threshold([0.1, 0.2], level)


def test_a_case_of_an_unknown_group_gets_the_widest_threshold():
    assert conformal.widest_threshold({"CT": 0.2, "MR": 0.7}) == 0.7
    assert conformal.widest_threshold({}) == math.inf


def test_the_scores_of_three_classes_by_hand():
    stated = [[0.5, 0.2, 0.3]]
    assert_allclose(conformal.class_scores(stated), [[0.5, 0.8, 0.7]])
    assert_allclose(conformal.class_scores(stated, "aps"), [[0.5, 1.0, 0.8]])
    assert_allclose(conformal.class_scores(stated, "raps"), [[0.5, 1.02, 0.81]])
    assert_allclose(conformal.class_scores(stated, "aps", draws=[0.5]), [[0.25, 0.9, 0.65]])
    # Between 0.5 and 0.3 the middle grade stands for no less than the worse of both.
    assert_allclose(conformal.class_scores(stated, "contiguous"), [[0.5, 0.7, 0.7]])


def test_sets_of_grades_have_no_gap():
    stated = np.random.default_rng(7).dirichlet(np.full(6, 0.4), 500)
    for threshold in (0.2, 0.6, 0.9, 0.99):
        found = conformal.prediction_sets(conformal.class_scores(stated, "contiguous"), threshold)
        edges = np.abs(np.diff(np.pad(found.astype(int), ((0, 0), (1, 1))), axis=1)).sum(axis=1)
        assert set(edges) <= {0, 2}
        assert (found | ~conformal.prediction_sets(conformal.class_scores(stated, "lac"), threshold)).all()


def test_intervals_of_values_cover_as_often_as_they_say():
    random, plain, wide, outer = np.random.default_rng(10), [], [], []
    for _ in range(DRAWS):
        spread = random.uniform(0.5, 3, 50 + TEST)
        true = spread * random.standard_t(4, 50 + TEST)
        for kept, scores in (
            (plain, conformal.value_scores(np.zeros(90), true)),
            (wide, conformal.value_scores(np.zeros(90), true, 0.3 * spread)),
            (outer, conformal.quantile_scores(-spread, 0.5 * spread, true)),
        ):
            kept.append((scores[50:] <= conformal.conformal_threshold(scores[:50], LEVEL)[0]).sum())
    for kept in (plain, wide, outer):
        assert kstest(uniforms(np.array(kept), np.full(DRAWS, 50), random), "uniform").pvalue > 0.001


def test_a_deviation_of_zero_is_worse_than_any_other():
    scores = conformal.value_scores([1.0, 2.0], [1.0, 3.0], [0.0, 0.0])
    assert conformal.conformal_threshold(np.concatenate([scores, np.ones(18)]), 0.95)[0] == math.inf


@pytest.mark.parametrize("censoring", thinned(1, ["by risk", "at random", "at one time"]))
def test_a_lower_bound_on_times_holds_whatever_censors(censoring):
    random, covered, late = np.random.default_rng(11), [], []
    for _ in range(400):
        risk = random.normal(size=50 + TEST)
        event = random.exponential(np.exp(-risk))
        last = {
            "at random": random.exponential(1.5, 50 + TEST),
            "by risk": random.exponential(0.5 * np.exp(risk)),
            "at one time": np.full(50 + TEST, 0.8),
        }[censoring]
        observed, predicted = np.minimum(event, last), np.exp(-0.7 * risk)
        threshold, _ = conformal.conformal_threshold(conformal.time_scores(predicted, observed)[:50], LEVEL)
        covered.append((observed[50:] >= predicted[50:] / threshold).mean())
        late.append((event[50:] >= predicted[50:] / threshold).mean())
    assert abs(np.mean(covered) - np.ceil(LEVEL * 51) / 51) < 0.01
    assert np.mean(late) > LEVEL - 0.01


def test_an_event_at_once_leaves_no_bound_but_zero():
    assert conformal.time_scores([2.0], [0.0])[0] == math.inf


def test_the_risk_is_controlled_on_average():
    random, settings, missed = np.random.default_rng(12), np.linspace(1, 0, 101), []
    for _ in range(DRAWS):
        # Each case has a structure of which a setting finds a share: it misses all above its probability.
        needed = random.beta(4, 2, (31, 12))
        losses = (needed[:, :, None] < settings).mean(axis=1)
        chosen = conformal.setting_controlled_on_average(losses[:30], 0.1)
        missed.append(losses[30, chosen])
    assert np.mean(missed) < 0.1 + 3 * np.std(missed) / np.sqrt(DRAWS)
    assert np.mean(missed) > 0.06


@pytest.mark.whole
def test_the_risk_of_a_new_patient_is_controlled_although_cases_of_one_patient_are_alike():
    random, settings, missed = np.random.default_rng(13), np.linspace(1, 0, 51), []
    for _ in range(1000):
        spread = random.beta(2, 2, 26)
        owners = np.repeat(np.arange(25), np.where(spread[:25] > 0.5, 15, 1))
        losses = (spread[:, None] < settings).astype(float)
        missed.append(losses[25, conformal.setting_controlled_on_average(losses[owners], 0.2, owners)])
    assert np.mean(missed) < 0.2 + 3 * np.std(missed) / np.sqrt(1000)


@pytest.mark.whole
def test_the_risk_is_controlled_with_its_confidence():
    settings, random, wrong = np.linspace(1, 0, 101), np.random.default_rng(14), []
    grid = random.beta(4, 2, (20000, 12))
    truth = (grid[:, :, None] < settings).mean(axis=(0, 1))
    for _ in range(DRAWS):
        losses = (random.beta(4, 2, (60, 12))[:, :, None] < settings).mean(axis=1)
        wrong.append(truth[conformal.setting_controlled_with_confidence(losses, 0.1, 0.1)] > 0.1)
    assert np.mean(wrong) < 0.1
    losses = (random.beta(4, 2, (60, 12))[:, :, None] < settings).mean(axis=1)
    assert (
        conformal.setting_controlled_with_confidence(losses, 0.1, 0.01)
        > conformal.setting_controlled_with_confidence(losses, 0.1, 0.4)
        >= conformal.setting_controlled_on_average(losses, 0.1)
    )


def test_losses_of_zero_and_one_are_tested_by_the_binomial_law():
    losses = np.repeat([[1.0], [0.0]], [3, 97], axis=0)
    at_limit = math.e * binom.cdf(3, 100, 0.1)
    assert conformal.setting_controlled_with_confidence(losses, 0.1, at_limit * 1.001) == 0
    assert conformal.setting_controlled_with_confidence(losses, 0.1, at_limit * 0.999) == -1


def test_a_risk_that_no_setting_keeps_is_said_so():
    assert conformal.setting_controlled_on_average(np.full((30, 5), 0.5), 0.1) == -1
    assert conformal.setting_controlled_on_average(np.zeros((8, 5)), 0.1) == -1
    assert conformal.setting_controlled_on_average(np.zeros((9, 5)), 0.1) == 0
    assert conformal.setting_controlled_with_confidence(np.zeros((20, 5)), 0.1, 0.1) == -1
    assert conformal.setting_controlled_with_confidence(np.zeros((22, 5)), 0.1, 0.1) == 0


def answers(random: np.random.Generator, cases: int) -> tuple[np.ndarray, np.ndarray]:
    """How sure answers are, and whether they are wrong: the surer the less often, but more often than they say."""
    sure = random.beta(3, 1, cases)
    return sure, (random.random(cases) < 0.6 * (1 - sure)).astype(float)


def test_answers_that_are_sure_enough_are_wrong_no_more_often_than_promised_with_its_confidence():
    random, broken, answered = np.random.default_rng(6), 0, []
    sure, wrong = answers(random, 100_000)
    for _ in range(300):
        least = conformal.least_sureness(*answers(random, 400), 0.1, 0.2)
        answered.append((sure >= least).mean())
        broken += bool(answered[-1]) and wrong[sure >= least].mean() > 0.1
    assert broken <= binom.ppf(0.999, 300, 0.2)
    assert np.mean(answered) > 0.2


@pytest.mark.whole
def test_errors_between_zero_and_one_of_patients_with_several_cases_keep_the_promise_too():
    random, broken = np.random.default_rng(7), 0
    for _ in range(200):
        own = random.beta(3, 1, 150)
        error = np.clip(0.4 * (1 - own) + random.normal(0, 0.05, 150), 0, 1)
        least = conformal.least_sureness(np.repeat(own, 3), np.repeat(error, 3), 0.1, 0.1, np.repeat(np.arange(150), 3))
        shown = random.beta(3, 1, 5_000)
        shown = shown[shown >= least]
        broken += len(shown) > 0 and np.mean(np.clip(0.4 * (1 - shown), 0.02, 1)) > 0.1
    assert broken <= binom.ppf(0.999, 200, 0.1)


def test_where_few_or_wrong_answers_show_nothing_none_is_sure_enough_and_where_all_are_right_each_is():
    sure = np.linspace(0.05, 0.999, 300)
    assert conformal.least_sureness(sure[:20], np.zeros(20), 0.05, 0.1) == math.inf
    assert conformal.least_sureness(sure, np.ones(300), 0.05, 0.1) == math.inf
    assert conformal.least_sureness(sure, np.zeros(300), 0.05, 0.1) == 0.0
    assert conformal.least_sureness(np.full(300, np.nan), np.zeros(300), 0.05, 0.1) == math.inf
    assert conformal.least_sureness([], [], 0.05, 0.1) == math.inf


def test_where_no_answer_is_given_the_cases_are_named_with_which_one_would_be():
    sure, half = np.full(40, 0.99), np.arange(40) < 20
    # The first n with .95^n at most .1 / 8; only every second case is sure enough where the others have no answer.
    assert conformal.cases_to_answer(sure, np.zeros(40), 0.05, 0.1) == pytest.approx(86, abs=1)
    assert conformal.cases_to_answer(np.where(half, sure, np.nan), np.zeros(40), 0.05, 0.1) == pytest.approx(172, abs=2)
    people = np.arange(40) // 2
    assert conformal.cases_to_answer(sure, np.zeros(40), 0.05, 0.1, people) == pytest.approx(
        172, abs=2
    )  # patients count
    assert conformal.cases_to_answer(sure, half.astype(float), 0.05, 0.1) == 0
    assert conformal.cases_to_answer(np.full(40, np.nan), np.zeros(40), 0.05, 0.1) is None
    assert conformal.cases_to_answer([], [], 0.05, 0.1) is None
    wrong = np.repeat([1.0, 0.0], [3, 77])
    needed = conformal.cases_to_answer(np.full(80, 0.99), wrong, 0.1, 0.1)
    as_often = np.arange(needed) < round(needed * 3 / 80)
    assert np.isinf(conformal.least_sureness(np.full(80, 0.99), wrong, 0.1, 0.1))
    assert np.isfinite(conformal.least_sureness(np.full(needed, 0.99), as_often, 0.1, 0.1))


@pytest.mark.parametrize("risk", [0.02, 0.05, 0.1, 0.3])
def test_a_risk_is_controlled_from_so_many_patients_on_of_whom_nothing_is_missed(risk):
    few = conformal.fewest_for_control(risk)
    assert [conformal.setting_controlled_on_average(np.zeros((n, 3)), risk) for n in (few - 1, few)] == [-1, 0]
    few = conformal.fewest_for_control(risk, 0.1)
    assert [conformal.setting_controlled_with_confidence(np.zeros((n, 3)), risk, 0.1) for n in (few - 1, few)] == [
        -1,
        0,
    ]
