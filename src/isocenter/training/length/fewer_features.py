"""A narrower network, where there is time for few steps of the planned one."""

from __future__ import annotations

import math
from dataclasses import replace

from isocenter import networks
from isocenter.errors import counted
from isocenter.lazy import torch
from isocenter.planning import LEAST_BATCH, Settings
from isocenter.runtime import Context, build_module
from isocenter.training.length.probe import Probe
from isocenter.training.step.batch_statistics import normalises_over_batch
from isocenter.training.step.compute import Compute
from isocenter.values import Decision

# With time to look at fewer voxels than these, half the planned width learns more: the width that makes most of so much
# computing grows with it. Five sets, two seeds each: with 4 to 13 million voxels +.017 to +.11, with about 40
# million -.047 to +.034 (docs/benchmarks/training.md).
FEW_VOXELS = 20e6
# Features of the first level, below which a network learns less in however many steps. Hippocampus, 2 minutes on one
# core, 143 steps of 16 features, 288 of 8 and 221 of 4: Dice .81, .82 and .51 (docs/benchmarks/training.md).
LEAST_WIDTH = 8
# With this the reason of a narrower network ends; where other minutes are given, the planned one is taken again.
NARROWER = "so few that a network of half the width learns more"


def narrower(chosen: Settings, left: float) -> Decision | None:
    """Half the planned width, where the time is enough for few voxels; None where the planned one stays.

    Only of networks for every voxel: for whole images it was not found to be better.
    left: s that the training has
    """
    if not any(head.is_dense for head in chosen.task.heads.values()):
        return None
    size, family = chosen.network.size, networks.family_of(chosen.network.name)
    widths = [size[name] for name in networks.WIDTHS if isinstance(size.get(name), int)]
    if not widths or min(widths) < 2 * LEAST_WIDTH or any(one % 2 for one in widths):
        return None
    if family.has_loss or family.sees_targets:  # no step without targets
        return None
    samples, took = _samples_and_seconds(chosen)
    left = max(0.0, left)
    if (voxels_seen := left / took * samples * math.prod(chosen.training.patch)) >= FEW_VOXELS:
        return None
    because = (
        f"a step of {counted(samples, 'sample')} takes {took:.2g} s with the planned width of {widths[0]}: in the "
        f"{left:.0f} s that are left training would see {voxels_seen / 1e6:.1f} million voxels, {NARROWER}"
    )
    return Decision(networks.wider(size, 0.5), because)


def _samples_and_seconds(chosen: Settings) -> tuple[int, float]:
    """The fewest samples of a step, and the seconds that it takes with images of noise."""
    training, device = chosen.training, chosen.training.device
    module = build_module(chosen.task, chosen.architecture).to(device).train()
    samples = LEAST_BATCH if normalises_over_batch(module) else 1
    images = torch.randn(samples, chosen.preprocessing.inputs, *training.patch, device=device)
    entries = len(Context.of(chosen.network.context))
    context = [torch.zeros(samples, entries, device=device)] if entries else []

    def step(compute: Compute, number: int) -> None:
        with compute.autocast(device):
            outputs = module(compute.ordered(module, images), *context)
        sum(output.float().mean() for output in outputs.values()).backward()

    return samples, Probe(module, step, replace(training, batch=samples)).warm()
