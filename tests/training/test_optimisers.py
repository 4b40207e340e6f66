from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from hilum.planning import plan_checks, plan_file
from hilum.training.step import optimisers as step_optimisers
from hilum.training.step.optimisers import WeightAverage


@pytest.fixture(scope="session")
def chosen(segmented):
    """How a small run was trained."""
    return plan_checks.checked_settings(plan_file.read_plan(segmented.out / "plan.yaml")).training


def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_what_only_scales_or_shifts_is_not_pulled_towards_zero(chosen, kind):
    decayed, free = step_optimisers.make_optimiser(network(), replace(chosen, optimiser=kind)).param_groups
    assert [p.ndim for p in decayed["params"]] == [4]
    assert [p.ndim for p in free["params"]] == [1, 1, 1]
    assert (decayed["weight_decay"], free["weight_decay"]) == (chosen.weight_decay, 0.0)


def test_sgd_moves_with_nesterovs_momentum_of_099(chosen):
    """f(x) = x: the gradient is 1. Momentum v = 0.99 v + 1, step = rate * (1 + 0.99 v), by hand for two steps."""
    x = torch.nn.Parameter(torch.zeros(1))
    holder = torch.nn.Module()
    holder.x = x
    optimiser = step_optimisers.make_optimiser(holder, replace(chosen, optimiser="sgd", learning_rate=0.1))
    expected, v = 0.0, 0.0
    for _ in range(2):
        x.grad = torch.ones(1)
        optimiser.step()
        v = 0.99 * v + 1
        expected -= 0.1 * (1 + 0.99 * v)
    assert x.item() == pytest.approx(expected)


def test_a_resumed_optimiser_moves_weights_that_lie_otherwise_than_when_it_was_kept(chosen):
    """Beside it an optimiser that went on without a break, in the plain order."""
    torch.manual_seed(0)
    plain, last = network(), network()
    last.load_state_dict(plain.state_dict())
    images = torch.randn(2, 1, 6, 6)
    optimisers = [step_optimisers.make_optimiser(module, chosen) for module in (plain, last)]
    for step in range(3):
        for module, optimiser in zip((plain, last), optimisers, strict=True):
            optimiser.zero_grad()
            module(images).square().sum().backward()
            optimiser.step()
        if step == 0:
            with torch.no_grad():
                weight = last[0].weight
                weight.data = weight.data.mT.contiguous().mT  # columns before rows
            assert optimisers[1].state[weight]["exp_avg"].stride() != weight.stride()
            step_optimisers.match_weight_layout(optimisers[1])
            assert optimisers[1].state[weight]["exp_avg"].stride() == weight.stride()
    torch.testing.assert_close(plain.state_dict(), last.state_dict())


def test_the_average_is_the_weighted_mean_of_all_weights_so_far():
    module = torch.nn.BatchNorm1d(1)
    averaged = copy.deepcopy(module).requires_grad_(False)
    average = WeightAverage(averaged, module)
    for value, steps in ((3.0, 4), (7.0, 9)):
        with torch.no_grad():
            module.weight.fill_(value)
        module.num_batches_tracked.fill_(steps)
        average.move(0.75)
    assert averaged.weight.item() == pytest.approx(0.75 * (0.75 * 1 + 0.25 * 3) + 0.25 * 7)
    assert int(averaged.num_batches_tracked) == 9
