"""A narrower network, where there is time for few steps of the planned one."""

from __future__ import annotations

from dataclasses import replace

from isocenter import networks
from isocenter.errors import counted
from isocenter.lazy import torch
from isocenter.planning import LEAST_BATCH, Settings
from isocenter.runtime import Context, build_module
from isocenter.training.length.probe import Probe
from isocenter.training.step import Compute, normalises_over_batch
from isocenter.values import Decision

# With time for fewer steps of the planned width, of as few samples as a step may have, half of it learns more.
FEW_STEPS = 100
# Features of the first level, below which a network is too narrow to learn in any number of steps that then fit:
# hippocampus, 2 minutes, 144 steps of 16, 288 of 8 and 221 of 4 features: Dice .81, .82 and .51.
LEAST_WIDTH = 8
# With this the reason of a narrower network ends; where other minutes are given, the planned one is taken again.
NARROWER = "a network of half the width gets more steps"


def narrower(chosen: Settings, left: float) -> Decision | None:
    """Half the planned width, where the steps that the time allows would be few; None where the planned one stays.

    left: s that the training has
    """
    size, family = chosen.network.size, networks.family_of(chosen.network.name)
    known = [size[name] for name in networks.WIDTHS if isinstance(size.get(name), int)]
    if not known or min(known) < 2 * LEAST_WIDTH or any(one % 2 for one in known):
        return None
    if family.has_loss or family.sees_targets:  # no step without targets
        return None
    samples, took = _samples_and_seconds(chosen)
    if left >= FEW_STEPS * took:
        return None
    left = max(0.0, left)
    because = (
        f"a step of {counted(samples, 'sample')} takes {took:.1f} s with the planned width of {known[0]}, and only "
        f"{left / took:.0f} such steps fit into the {left:.0f} s that are left: {NARROWER}"
    )
    return Decision(networks.wider(size, 0.5), because)


def _samples_and_seconds(chosen: Settings) -> tuple[int, float]:
    """Of a step with as few samples as it may have: their number, and s to compute it with images of noise."""
    training, device = chosen.training, chosen.training.device
    module = build_module(chosen.task, chosen.architecture).to(device).train()
    samples = LEAST_BATCH if normalises_over_batch(module) else 1
    images = torch.randn(samples, chosen.preprocessing.inputs, *training.patch, device=device)
    known = len(Context.of(chosen.network.context))
    context = [torch.zeros(samples, known, device=device)] if known else []

    def step(compute: Compute, number: int) -> None:
        with compute.autocast(device):
            outputs = module(compute.ordered(module, images), *context)
        sum(output.float().mean() for output in outputs.values()).backward()

    return samples, Probe(module, step, replace(training, batch=samples)).warm()
