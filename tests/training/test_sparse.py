from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.linear_model import ElasticNet, LogisticRegression

from hilum.training import covariate_fitting
from hilum.training.covariate_fitting import ABSOLUTE_SHARE

torch.set_num_threads(1)


def simulated(cases: int, entries: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Standard normal columns, and a sum of the first three with noise."""
    generator = torch.Generator().manual_seed(seed)
    covariates = torch.randn(cases, entries, dtype=torch.float64, generator=generator)
    noise = torch.randn(cases, dtype=torch.float64, generator=generator)
    return covariates, 2 + covariates[:, :3].sum(dim=1) + 0.5 * noise


def squared(truth: torch.Tensor):
    return lambda answers, rows: (answers[:, 0] - truth[list(rows)]).square().mean() / 2


def crossed(truth: torch.Tensor):
    return lambda answers, rows: torch.nn.functional.cross_entropy(answers, truth[list(rows)])


def test_numbers_get_the_weights_that_scikit_learn_finds():
    covariates, truth = simulated(60, 20)
    theirs = ElasticNet(alpha=0.2, l1_ratio=ABSOLUTE_SHARE, tol=1e-8).fit(covariates.numpy(), truth.numpy())
    ours = covariate_fitting.sparse_weights(covariates, 1, squared(truth), range(60), 0.2)[:, 0]
    assert_allclose(ours[1:], theirs.coef_, atol=2e-3)
    assert ours[0] == pytest.approx(theirs.intercept_, abs=2e-3)
    assert (ours[1:] == 0).sum() == (theirs.coef_ == 0).sum() > 0


@pytest.mark.filterwarnings("ignore:'penalty' was deprecated")
def test_classes_get_the_probabilities_that_scikit_learn_finds():
    covariates, truth = simulated(80, 20)
    classes = (truth > 2).long() + (truth > 4).long()
    theirs = LogisticRegression(
        C=1 / (80 * 0.05), l1_ratio=ABSOLUTE_SHARE, solver="saga", max_iter=5000, tol=1e-6, penalty="elasticnet"
    ).fit(covariates.numpy(), classes.numpy())
    ours = covariate_fitting.sparse_weights(covariates, 3, crossed(classes), range(80), 0.05)
    assert_allclose(
        torch.softmax(covariates @ ours[1:] + ours[0], dim=1), theirs.predict_proba(covariates.numpy()), atol=5e-3
    )


def test_at_the_strongest_penalty_no_column_has_a_weight_and_just_below_one_has():
    covariates, truth = simulated(50, 10)
    start = covariate_fitting.sparse_weights(covariates, 1, squared(truth), range(50), np.inf)
    assert start[0, 0] == pytest.approx(truth.mean().item(), abs=1e-3)
    most = covariate_fitting.strongest_penalty(covariates, squared(truth), range(50), start)
    assert (covariate_fitting.sparse_weights(covariates, 1, squared(truth), range(50), 1.001 * most)[1:] == 0).all()
    assert (covariate_fitting.sparse_weights(covariates, 1, squared(truth), range(50), 0.95 * most)[1:] != 0).sum() == 1


def test_of_many_columns_those_that_tell_keep_the_largest_weights():
    covariates, truth = simulated(150, 1000)
    found = covariate_fitting.fit_sparse(covariates, 1, squared(truth), [str(n) for n in range(150)], seed=0)
    assert set(np.argsort(-np.abs(found.weights[1:, 0]))[:3]) == {0, 1, 2}
    assert 3 <= found.used < 200


@pytest.mark.whole
def test_columns_that_tell_nothing_are_left_without_a_weight():
    covariates, _ = simulated(60, 200)
    truth = torch.randn(60, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    found = covariate_fitting.fit_sparse(covariates, 1, squared(truth), [str(n) for n in range(60)], seed=0)
    assert found.used < 10


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=2, max_size=30), st.integers(0, 9))
def test_no_patient_is_both_held_out_and_fitted_to(patients, seed):
    names = [str(one) for one in patients]
    folds = covariate_fitting.patient_folds(names, seed)
    assert sorted(n for one in folds for n in one) == list(range(len(names)))
    for one in folds:
        assert not {names[n] for n in one} & {names[n] for n in range(len(names)) if n not in one}
