from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hilum.planning import plan_checks, plan_file
from hilum.training.data import target_kinds
from hilum.training.data.batch_loading import Batch
from hilum.training.step import optimisers
from hilum.training.step.computation import Compute
from hilum.training.step.optimisers import CASES
from hilum.transforms import random_draws

PLAIN = Compute()


@pytest.fixture(scope="session")
def untouched(classified):
    """The settings of a small classification, whose images are left as they are."""
    chosen = plan_checks.checked_settings(plan_file.read_plan(classified.out / "plan.yaml"))
    untouched = replace(chosen.augmentation, probability=0.0, flips=())
    return replace(chosen, augmentation=untouched, training=replace(chosen.training, batch=4))


def batch(step):
    """Four pictures of one channel around a level that grows with the step."""
    images = np.random.default_rng(step).normal(step, 1, (4, 1, 8, 8)).astype(np.float32)
    draws = tuple(random_draws.sample_generator(0, step, n) for n in range(4))
    return Batch(images, np.zeros(4, dtype=np.int64), draws, (1.0, 1.0), target_kinds.kind_for_axes(0, 2))


def test_the_statistics_are_those_of_the_first_batches_whatever_they_were_before(untouched):
    layer = nn.BatchNorm2d(1)
    layer.running_mean.fill_(99.0)
    layer.num_batches_tracked.fill_(7)
    optimisers.measure_batch_statistics(layer, batch, untouched, "cpu", PLAIN)
    seen = [torch.from_numpy(batch(step).images) for step in range(CASES // 4)]
    assert layer.running_mean.item() == pytest.approx(np.mean([one.mean() for one in seen]), abs=1e-4)
    assert layer.running_var.item() == pytest.approx(np.mean([one.var() for one in seen]), rel=1e-4)
    assert (layer.momentum, layer.num_batches_tracked.item(), layer.training) == (0.1, 7, False)


def test_large_batches_are_few_but_one_is_always_seen(untouched):
    asked = []

    def counted(step):
        asked.append(step)
        return batch(step)

    for size, steps in ((32, 2), (1000, 1)):
        asked.clear()
        chosen = replace(untouched, training=replace(untouched.training, batch=size))
        optimisers.measure_batch_statistics(nn.BatchNorm2d(1), counted, chosen, "cpu", PLAIN)
        assert asked == list(range(steps))


def test_weights_stay_and_what_normalises_each_image_alone_is_not_run(untouched):
    class Refuses(nn.InstanceNorm2d):
        def forward(self, images):
            raise AssertionError

    optimisers.measure_batch_statistics(Refuses(1), batch, untouched, "cpu", PLAIN)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5))
    before = {name: one.clone() for name, one in network.named_parameters()}
    optimisers.measure_batch_statistics(network, batch, untouched, "cpu", PLAIN)
    assert all(torch.equal(before[name], one) for name, one in network.named_parameters())
    assert not network[2].training


def test_twice_gives_the_same_bits(untouched):
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    found = []
    for _ in range(2):
        optimisers.measure_batch_statistics(network, batch, untouched, "cpu", PLAIN)
        found.append(network[1].running_var.clone())
    assert torch.equal(*found)
