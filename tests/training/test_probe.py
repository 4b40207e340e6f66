from __future__ import annotations

import copy
import time
from types import SimpleNamespace

import pytest
import torch

from isocenter.training import probe
from isocenter.training.probe import budget, step_seconds
from isocenter.training.schedule import FEWEST_STEPS


def test_what_is_left_becomes_steps_and_validations():
    found = budget([0.5] * 6, 2.0, 106.0, 10)
    assert found.validations == 5  # a tenth of the time
    assert found.steps == int((106 - 5 * 2) / (0.5 * probe.STEP_OVERHEAD))
    assert "106 s are left for steps of 0.530 s, measured over 6, and 5 validations of 2.0 s" in found.because


def test_one_slow_step_of_the_probe_decides_nothing():
    assert budget([0.5, 0.5, 0.5, 0.5, 30.0], 0.0, 100.0, 10).steps == budget([0.5] * 5, 0.0, 100.0, 10).steps


def test_without_time_a_few_steps_are_taken_and_it_is_said():
    found = budget([1.0], 5.0, -3.0, 10)
    assert (found.steps, found.validations) == (FEWEST_STEPS, 1)
    assert "0 s are left" in found.because
    assert "longer than was asked for" in found.because


@pytest.mark.parametrize(("longest", "least", "most"), [(0.0, 1, 1), (1000.0, 58, 58)])
def test_a_probe_is_as_long_as_it_may_be_and_leaves_no_trace(longest, least, most):
    """It runs on a real module with statistics of its own; a step that sleeps has outlasted a share of 0 s."""
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    before = copy.deepcopy(module.state_dict())
    wrapped = SimpleNamespace(module=module, zero_grad=module.zero_grad)
    loader = SimpleNamespace(of_step=lambda step: torch.full((4, 3), float(step)))
    fabric = SimpleNamespace(backward=lambda loss: loss.backward())

    def loss(batch):
        time.sleep(0.001)
        return module(batch).square().sum()

    times = step_seconds(wrapped, loader, loss, fabric, longest)
    assert least <= len(times) <= most
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
