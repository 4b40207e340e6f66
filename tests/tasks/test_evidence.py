"""What a network is taught to say of its evidence, against distributions of torch and draws from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.distributions import Dirichlet, StudentT, kl_divergence

from isocenter import tasks
from isocenter.errors import PlanError
from isocenter.runtime.uncertainty.disagreement import Disagreement, _digamma
from isocenter.tasks.regression.losses import MISLEADING, normal_inverse_gamma
from isocenter.tasks.shared.evidence import MISLEADING as OF_CLASSES
from isocenter.tasks.shared.evidence import evidential, mean_evidential

LOGITS = torch.tensor([[2.0, 0.5, -1.0], [4.0, 4.0, 4.0], [-2.0, -2.0, -2.0]])


def test_the_loss_of_classes_is_the_expected_squared_error_and_the_distance_from_no_evidence():
    torch.manual_seed(0)
    target = torch.tensor([0, 2, 1])
    truth = torch.eye(3)[target]
    drawn = Dirichlet(LOGITS.exp()).sample((200_000,))
    squared = ((truth - drawn) ** 2).sum(dim=2).mean(dim=0)
    wrong = Dirichlet(truth + (1 - truth) * LOGITS.exp())
    apart = kl_divergence(wrong, Dirichlet(torch.ones(3, 3)))
    assert_allclose(evidential(LOGITS, target), squared + OF_CLASSES * apart, atol=0.01)


def test_voxels_cost_what_images_cost():
    target = torch.tensor([0, 2, 1])
    dense = LOGITS.T[None, :, :, None], target[None, :, None]
    assert_allclose(mean_evidential(*dense), evidential(LOGITS, target).mean(), rtol=1e-6)


def test_the_uncertainty_of_evidence_is_that_of_draws_from_its_distribution():
    made = Disagreement({"a": "classes"}, evidence=("a",)).of_evidence({"a": LOGITS})
    plain = Disagreement({"a": "classes"}, evidence=("a",)).of_evidence({"a": LOGITS.numpy()})
    torch.manual_seed(0)
    drawn = Dirichlet(LOGITS.exp().double()).sample((200_000,)).clamp(min=1e-300)
    within = -(drawn * drawn.log()).sum(dim=2).mean(dim=0)
    mean = LOGITS.softmax(dim=1)
    assert_allclose(made["a:within"][:, 0], within, atol=0.005)
    assert_allclose(made["a:within"] + made["a:between"], -(mean * mean.log()).sum(dim=1, keepdim=True), atol=1e-6)
    assert made["a:between"][2, 0] > 10 * made["a:between"][1, 0]  # as likely each, by less evidence
    for name, array in plain.items():
        assert_allclose(array, made[name].numpy(), atol=1e-6)


def test_the_series_of_the_digamma_function_is_torchs():
    x = torch.logspace(0, 6, 200, dtype=torch.float64)
    assert_allclose(_digamma(x), torch.digamma(x), atol=1e-8)


def test_the_loss_of_values_is_the_density_of_student_and_the_cost_of_wrong_evidence():
    logs, values, truth = torch.tensor([[0.3, 1.2, -0.4]]), torch.tensor([[0.5]]), torch.tensor([[1.7]])
    variance, nu, beyond = logs.exp()[0]
    alpha, beta = 1 + beyond, variance * beyond
    student = StudentT(2 * alpha, values, (beta * (1 + nu) / (nu * alpha)).sqrt())
    expected = -student.log_prob(truth) + MISLEADING * 1.2 * (2 * nu + alpha)
    assert_allclose(normal_inverse_gamma(values, logs, truth), expected, rtol=1e-5)


def test_the_evidence_of_a_value_parts_its_variance():
    outputs = np.log(np.array([[1.0, 4.0, 8.0, 3.0]], np.float32))
    outputs[0, 0] = 60.0
    made = Disagreement({"value": "values"}, {"value": 1}, evidence=("value",)).of_evidence({"value": outputs})
    assert_allclose([made["value:within"], made["value:between"]], [[[4.0]], [[0.5]]], rtol=1e-6)


def test_evidence_goes_with_classes_that_exclude_each_other_and_no_smoothing():
    with pytest.raises(PlanError, match="evidential takes no smoothed targets"):
        tasks.build({"name": "classification", "classes": ["a", "b"], "smoothing": 0.1, "loss": "evidential"})
    settings = {"labels": [{"value": 1, "name": "a"}], "loss": "dice+evidential", "tolerance": 2.0}
    for regions, stated in ((None, True), ({"a": [1]}, False)):
        task = tasks.build({"name": "segmentation", **settings, "regions": regions})
        assert task.states_evidence is stated
