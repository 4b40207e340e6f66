import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import chisquare
from torchsurv.loss.cox import neg_partial_log_likelihood
from torchsurv.metrics.auc import Auc
from torchsurv.metrics.brier_score import BrierScore
from torchsurv.metrics.cindex import ConcordanceIndex
from torchsurv.stats.ipcw import get_ipcw
from torchsurv.stats.kaplan_meier import KaplanMeierEstimator

from hilum.errors import UsageError
from hilum.evaluation import survival as evaluation_survival
from hilum.evaluation.survival import Steps

NEVER_CENSORED = Steps(np.zeros(0), np.zeros(0))
# Of 6-MP and placebo in acute leukaemia (Freireich et al., Blood 1963; Gehan, Biometrika 1965): weeks, and + as 0.
DRUG = np.array([6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35], dtype=float)
RELAPSED = np.array([1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0], dtype=bool)
PLACEBO = np.array([1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23], dtype=float)


@st.composite
def followed(draw, ties: bool = True, censored: bool = True):
    """Risks, times, events of which at least one is no last, and how often each case counts."""
    n = draw(st.integers(4, 25))
    times = draw(st.lists(st.integers(1, 8 if ties else 900), min_size=n, max_size=n, unique=not ties))
    events = draw(st.lists(st.booleans(), min_size=n, max_size=n)) if censored else [True] * n
    events[int(np.argmin(times))] = True
    risks = draw(st.lists(st.integers(0, 6 if ties else 900), min_size=n, max_size=n, unique=not ties))
    weights = draw(st.lists(st.integers(1, 4), min_size=n, max_size=n))
    return np.array(risks) / 7, np.array(times, float), np.array(events), np.array(weights, float)


def has_pairs(times, events) -> bool:
    return bool(((times > times[:, None]) & events[:, None]).any())


def tensors(risks, times, events):
    return torch.tensor(risks, dtype=torch.float32), torch.tensor(events), torch.tensor(times, dtype=torch.float32)


def test_the_survival_of_the_leukaemia_trial_is_the_published_one():
    # Cox and Oakes, Analysis of Survival Data, 1984, table 4.1
    curve = evaluation_survival.kaplan_meier(DRUG, RELAPSED)
    assert_allclose(
        curve.at([5, 6, 7, 10, 13, 16, 22, 23, 35]),
        [1, 0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448, 0.448],
        atol=5e-4,
    )
    assert curve.before(6) == 1
    assert evaluation_survival.people_at_risk(DRUG, [0, 6, 6.5, 23]).tolist() == [21, 21, 17, 6]


def test_the_band_is_greenwoods_on_the_scale_of_the_log_cumulative_hazard():
    low, high = evaluation_survival.kaplan_meier_band(DRUG, RELAPSED)
    # At 10 weeks: variance of log S is 3/(21*18) + 1/(17*16) + 1/(15*14)
    hazard, variance = -np.log(0.752941), 3 / (21 * 18) + 1 / (17 * 16) + 1 / (15 * 14)
    width = 1.959964 * np.sqrt(variance) / hazard
    assert low.at(10) == pytest.approx(np.exp(-hazard * np.exp(width)), abs=1e-5)
    assert high.at(10) == pytest.approx(np.exp(-hazard * np.exp(-width)), abs=1e-5)


def test_the_log_rank_test_of_the_leukaemia_trial_is_the_published_one():
    times, happened = np.concatenate([DRUG, PLACEBO]), np.concatenate([RELAPSED, np.ones(21, bool)])
    # Chi-square 16.79 with one degree of freedom (Klein and Moeschberger, Survival Analysis, 2003)
    z, p = evaluation_survival.logrank_test(times, happened, np.arange(42) < 21)
    assert z < 0 and p == pytest.approx(4.17e-5, rel=0.01)
    assert np.isnan(evaluation_survival.logrank_test(times, happened, np.ones(42, bool))).all()


@given(followed(censored=False))
def test_without_censoring_kaplan_meier_is_the_share_that_outlives(case):
    _, times, events, weights = case
    moments = np.arange(0, 10)
    assert_allclose(
        evaluation_survival.kaplan_meier(times, events).at(moments), (times[:, None] > moments).mean(axis=0), atol=1e-12
    )
    share = ((times[:, None] > moments) * weights[:, None]).sum(axis=0) / weights.sum()
    assert_allclose(evaluation_survival.kaplan_meier(times, events, weights).at(moments), share, atol=1e-12)


@given(followed())
def test_survival_and_censoring_are_those_of_torchsurv(case):
    _, times, events, _ = case
    _, happened, when = tensors(times, times, events)
    for ours, of_censoring in ((evaluation_survival.kaplan_meier, False), (evaluation_survival.censoring_curve, True)):
        theirs = KaplanMeierEstimator()
        theirs(happened, when, censoring_dist=of_censoring)
        found = ours(times, events)
        # Once nobody is left but those with an event, 0 / 0 says nothing of who would be censored.
        known = np.isfinite(theirs.km_est.numpy())
        assert_allclose(found.at(theirs.time.numpy())[known], theirs.km_est.numpy()[known], atol=1e-6)


@given(followed())
def test_a_weight_of_two_is_the_case_twice(case):
    risks, times, events, weights = case
    if not has_pairs(times, events):
        return
    often = weights.astype(int)
    twice = [np.repeat(one, often) for one in (risks, times, events)]
    figures = (
        evaluation_survival.harrell_c,
        lambda *given: evaluation_survival.uno_c(*given[:3], NEVER_CENSORED, 9, *given[3:]),
        lambda *given: evaluation_survival.dynamic_auc(*given[:3], NEVER_CENSORED, 4, *given[3:]),
        lambda *given: evaluation_survival.expected_over_observed(given[0], *given[1:3], 4, *given[3:]),
    )
    both = np.stack([weights, np.ones_like(weights)])
    for figure in figures:
        assert figure(risks, times, events, weights) == pytest.approx(figure(*twice), nan_ok=True)
        stacked = figure(risks, times, events, both)
        assert_allclose(stacked, [figure(risks, times, events, weights), figure(risks, times, events)])


@given(followed(ties=False))
def test_the_concordance_of_the_negated_risk_is_the_rest_to_one(case):
    risks, times, events, _ = case
    if has_pairs(times, events):
        assert evaluation_survival.harrell_c(risks, times, events) + evaluation_survival.harrell_c(
            -risks, times, events
        ) == pytest.approx(1)
        both = [evaluation_survival.uno_c(one, times, events, NEVER_CENSORED, 1000) for one in (risks, -risks)]
        assert sum(both) == pytest.approx(1)


@given(followed())
def test_harrells_c_is_that_of_torchsurv_ties_and_all(case):
    risks, times, events, _ = case
    risk, event, time = tensors(risks, times, events)
    try:
        sure = float(ConcordanceIndex()(risk, event, time))
    except ValueError:  # no pair can be compared
        sure = float("nan")
    assert evaluation_survival.harrell_c(risks, times, events) == pytest.approx(sure, abs=1e-6, nan_ok=True)


@given(followed(ties=False), followed(ties=False))
def test_figures_with_the_weights_of_training_cases_are_those_of_torchsurv(case, training):
    risks, times, events, _ = case
    _, seen, known, _ = training
    weights = evaluation_survival.censoring_curve(seen, known)
    horizon = float(np.sort(times)[len(times) // 2])
    if not weights.at(horizon) > 0 or set(times) & set(seen):
        return  # torchsurv weighs an event by those followed at its time, not just before: a tie tells them apart
    _, happened, when = tensors(seen, seen, known)
    risk, event, time = tensors(risks, times, events)
    of_cases = get_ipcw(happened, when, time)
    of_moment = get_ipcw(happened, when, torch.tensor([horizon]))
    sure = float(ConcordanceIndex()(risk, event, time, weight=of_cases, tmax=torch.tensor(horizon)))
    assert evaluation_survival.uno_c(risks, times, events, weights, horizon) == pytest.approx(
        sure, abs=1e-4, nan_ok=True
    )
    survival = np.exp(-risks)
    given_weights = {"new_time": torch.tensor([horizon]), "weight": of_cases, "weight_new_time": of_moment}
    brier = BrierScore()(torch.tensor(survival[:, None], dtype=torch.float32), event, time, **given_weights)
    ours = evaluation_survival.brier_errors(survival[:, None], times, events, weights, [horizon]).mean()
    assert ours == pytest.approx(float(brier), abs=1e-4)
    if (times > horizon).any() and (events & (times <= horizon)).any():
        area = float(Auc()(risk, event, time, **given_weights))
        assert evaluation_survival.dynamic_auc(risks, times, events, weights, horizon) == pytest.approx(area, abs=1e-4)


def test_unos_c_worked_out_by_hand():
    # Events at 1 and 3, censored at 2 and 4; of the censoring 2/3 after 2. Pairs: 1 with all three, weight 1, two of
    # them in the right order; 3 with 4, weight (3/2)², in the wrong one.
    risks, times, events = [2.0, 3.0, 0.0, 1.0], [1.0, 2.0, 3.0, 4.0], [True, False, True, False]
    own = evaluation_survival.censoring_curve(times, events)
    assert own.at([1, 2, 3]).tolist() == pytest.approx([1, 2 / 3, 2 / 3])
    assert evaluation_survival.uno_c(risks, times, events, own, 10) == pytest.approx(2 / (3 + 9 / 4))
    assert evaluation_survival.uno_c(risks, times, events, own, 3) == pytest.approx(
        2 / 3
    )  # only events before the horizon
    assert evaluation_survival.harrell_c(risks, times, events) == pytest.approx(2 / 4)


def test_who_is_censored_at_the_time_of_an_event_outlived_it():
    assert evaluation_survival.harrell_c([2.0, 1.0], [5.0, 5.0], [True, False]) == 1
    assert np.isnan(evaluation_survival.harrell_c([2.0, 1.0], [5.0, 5.0], [True, True]))


def test_unos_c_does_not_depend_on_the_censoring_where_harrells_does():
    random = np.random.default_rng(0)
    risk = random.normal(size=1500)
    time = random.exponential(np.exp(-risk))
    limits = random.exponential(0.7, size=1500)
    seen, happened = np.minimum(time, limits), time <= limits
    # Two people with log hazards a and b: the one with a is the first with probability 1 / (1 + exp(b - a)).
    truth, horizon = (
        float(evaluation_survival.harrell_c(risk, time, np.ones(1500, bool))),
        float(np.quantile(time, 0.8)),
    )
    early = float(evaluation_survival.uno_c(risk, time, np.ones(1500, bool), NEVER_CENSORED, horizon))
    uno = float(
        evaluation_survival.uno_c(risk, seen, happened, evaluation_survival.censoring_curve(seen, happened), horizon)
    )
    assert abs(uno - early) < 0.012
    assert abs(float(evaluation_survival.harrell_c(risk, seen, happened)) - truth) > 2 * abs(uno - early)


@given(followed(censored=False))
def test_the_integrated_brier_score_of_a_coin_is_a_quarter(case):
    _, times, events, _ = case
    moments = np.linspace(1, 6, 9)
    errors = evaluation_survival.brier_errors(np.full((len(times), 9), 0.5), times, events, NEVER_CENSORED, moments)
    assert_allclose(errors, 0.25)
    assert_allclose(evaluation_survival.integrate_errors(errors, moments), 0.25)


def test_a_curve_that_knows_everything_has_no_error_and_censoring_is_made_up_for():
    random = np.random.default_rng(1)
    times, limits = random.exponential(1, 4000), random.exponential(2, 4000)
    moments = np.linspace(0, 1.5, 7)
    sure = (times[:, None] > moments).astype(float)
    assert evaluation_survival.brier_errors(sure, times, np.ones(4000, bool), NEVER_CENSORED, moments).max() == 0
    seen, happened = np.minimum(times, limits), times <= limits
    coin = evaluation_survival.brier_errors(
        np.full((4000, 7), 0.5), seen, happened, evaluation_survival.censoring_curve(seen, happened), moments
    ).mean(axis=0)
    assert_allclose(coin, 0.25, atol=0.01)


def test_the_calibration_in_the_large_of_the_true_chances_is_one():
    random = np.random.default_rng(2)
    risk = random.normal(size=3000)
    times, limits = random.exponential(np.exp(-risk)), random.exponential(1.5, 3000)
    chance = 1 - np.exp(-0.8 * np.exp(risk))
    seen, happened = np.minimum(times, limits), times <= limits
    assert evaluation_survival.expected_over_observed(chance, seen, happened, 0.8) == pytest.approx(1, abs=0.05)
    assert evaluation_survival.expected_over_observed(chance / 2, seen, happened, 0.8) == pytest.approx(0.5, abs=0.03)


def test_the_calibration_slope_is_that_of_coxs_model_and_says_by_how_much_risks_are_too_extreme():
    rng = np.random.default_rng(0)
    risk = rng.normal(size=3000)
    times, censored = rng.exponential(np.exp(-risk)), rng.exponential(2.0, 3000)
    seen, happened = np.minimum(times, censored), times <= censored
    assert evaluation_survival.calibration_slope(risk, seen, happened) == pytest.approx(1, abs=0.06)
    assert evaluation_survival.calibration_slope(3 * risk + 5, seen, happened) == pytest.approx(1 / 3, abs=0.02)
    few = slice(0, 40)
    slope = float(evaluation_survival.calibration_slope(risk[few], seen[few], happened[few]))
    given = [torch.tensor(happened[few]), torch.tensor(seen[few])]

    def likelihood(at: float) -> float:
        return float(neg_partial_log_likelihood(torch.tensor(at * risk[few]), *given, reduction="sum"))

    assert likelihood(slope) < min(likelihood(slope - 0.01), likelihood(slope + 0.01))
    often = np.arange(40) % 3
    twice = [np.repeat(one[few], often) for one in (risk, seen, happened)]
    weighted = evaluation_survival.calibration_slope(
        risk[few], seen[few], happened[few], np.stack([often, np.ones(40)])
    )
    assert_allclose(weighted, [evaluation_survival.calibration_slope(*twice), slope], rtol=1e-5)
    assert abs(evaluation_survival.calibration_slope(risk[few], seen[few], happened[few], penalty=1.0)) < abs(slope)
    assert np.isnan(
        evaluation_survival.calibration_slope([1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [True] * 3)
    )  # no end to how sure it may be
    assert np.isnan(evaluation_survival.calibration_slope([1.0, 1.0], [3.0, 2.0], [True] * 2))


def test_few_steps_keep_the_last_one_and_lie_on_the_curve():
    times = np.arange(1.0, 301.0)
    whole = evaluation_survival.kaplan_meier(times, np.arange(300) % 3 > 0)
    few = whole.thin(50)
    assert len(few.times) == 50
    assert few.values[-1] == whole.values[-1]
    assert_allclose(few.values, whole.at(few.times))
    assert np.abs(few.at(times) - whole.at(times)).max() < 0.06


def test_times_that_nobody_is_followed_for_are_refused():
    for times in ([0.0, 1.0], [-1.0, 1.0], [np.nan, 1.0], [1.0]):
        with pytest.raises(UsageError, match="above 0"):
            evaluation_survival.kaplan_meier(times, [True, False])
    with pytest.raises(UsageError, match="one number"):
        evaluation_survival.harrell_c([np.nan, 1.0], [1.0, 2.0], [True, False])
    with pytest.raises(UsageError, match="each case and time"):
        evaluation_survival.brier_errors([[0.5]], [1.0, 2.0], [True, False], NEVER_CENSORED, [1.0])


warnings.filterwarnings("ignore", module="torchsurv")


@pytest.mark.parametrize("rate", [0.0, 0.5, 2.0])
def test_d_calibration_accepts_the_true_curves_whatever_censors_and_refuses_others(rate):
    random = np.random.default_rng(0)
    found, refused = [], []
    for _ in range(100):
        hazard = random.gamma(2, 0.5, 300)
        event, left = random.exponential(1 / hazard), random.exponential(1 / rate, 300) if rate else np.full(300, 9e9)
        times, happened = np.minimum(event, left), event <= left
        shares, p = evaluation_survival.d_calibration(np.exp(-hazard * times), happened)
        assert shares.sum() == pytest.approx(1)
        found.append(p)
        refused.append(evaluation_survival.d_calibration(np.exp(-2 * hazard * times), happened)[1] < 0.05)
    assert np.mean(np.array(found) < 0.05) < 0.12
    assert np.mean(refused) > 0.7  # where two in three are censored less is known


def test_cases_of_one_patient_are_one_witness_of_d_calibration():
    random = np.random.default_rng(0)
    chance, happened, people = random.random(60), random.random(60) < 0.7, np.arange(60)
    shares, p = evaluation_survival.d_calibration(chance, happened)
    again = [np.repeat(one, 5) for one in (chance, happened)]
    of_people, same = evaluation_survival.d_calibration(*again, patients=np.repeat(people, 5))
    assert_allclose(of_people, shares)
    assert same == pytest.approx(p)
    assert evaluation_survival.d_calibration(*again)[1] < 0.5 * p


def test_d_calibration_of_events_is_pearsons_test_and_of_the_censored_alone_says_nothing():
    chance = np.random.default_rng(1).beta(1.3, 1, 80)
    shares, p = evaluation_survival.d_calibration(chance, np.ones(80, dtype=bool))
    assert p == pytest.approx(chisquare(80 * shares).pvalue)
    assert np.isnan(evaluation_survival.d_calibration(np.ones(80), np.zeros(80, dtype=bool))[1])


def test_d_calibration_of_events_by_hand():
    shares, p = evaluation_survival.d_calibration([0.05, 0.15, 0.95, 1.0, 0.1], [True, True, True, True, False])
    assert_allclose(shares, [0.4, 0.2, 0, 0, 0, 0, 0, 0, 0, 0.4])
    assert 0 < p < 1
