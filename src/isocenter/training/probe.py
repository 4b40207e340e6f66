"""How fast this machine trains this network, and how many steps that makes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from isocenter.training.loader import Loader
from isocenter.training.schedule import FEWEST_STEPS, Speed, fitting_steps

if TYPE_CHECKING:
    from torch import Tensor

# A probe of this share of the time, or of this many steps, tells the speed well enough even where other programs
# disturb it now and then; its first steps warm up caches and allocators.
PROBE_SHARE, PROBE_STEPS, MOST_PROBE_STEPS, PROBE_WARMUP = 0.02, 8, 60, 2
# A probe that takes so many times its share ends after one step: the steps are planned anew on the way.
PATIENCE = 3
# Validation cases that are looked at to know how long all take.
PROBE_CASES = 3
# What a step costs beside what the probe measures: the optimiser, the average, the log.
STEP_OVERHEAD = 1.06
# Validation may take this share of the time.
VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class Budget:
    """What a probe found: so many steps and validations fit, at this speed, and why."""

    steps: int
    validations: int
    speed: Speed
    because: str


def step_seconds(
    module: Any, loader: Loader, loss: Callable[[Any], Tensor], fabric: Any, longest: float
) -> list[float]:
    """s of some steps after warming up; weights and their statistics are left as they were.

    longest: s that the probe may take
    """
    weights = copy.deepcopy(module.module.state_dict())
    times: list[float] = []
    began = time.monotonic()
    for step in count():
        spent = time.monotonic() - began
        enough = step >= PROBE_STEPS or (step > PROBE_WARMUP and spent > PATIENCE * longest)
        if step >= MOST_PROBE_STEPS or (enough and spent > longest):
            break
        mark = time.monotonic()
        fabric.backward(loss(loader.of_step(step)))
        times.append(time.monotonic() - mark)
    module.zero_grad()
    module.module.load_state_dict(weights)
    return times[PROBE_WARMUP:]


def budget(times: list[float], validation: float, left: float, most_validations: int) -> Budget:
    """How many steps and validations fit into the time left.

    times:      s of probed steps
    validation: s of one look at all validation cases
    """
    validations = most_validations
    if validation > 0:
        validations = int(np.clip(VALIDATION_SHARE * left / validation, 1, most_validations))
    speed = Speed(float(np.median(times)) * STEP_OVERHEAD, validation)
    fitting = fitting_steps(left, speed, validations)
    because = (
        f"{max(0.0, left):.0f} s are left for steps of {speed.step:.3f} s, measured over {len(times)}, "
        f"and {validations} validations of {validation:.1f} s"
    )
    if fitting < FEWEST_STEPS:
        because += f"; {FEWEST_STEPS} are the least, so it will take longer than was asked for"
    return Budget(max(FEWEST_STEPS, fitting), validations, speed, because)
