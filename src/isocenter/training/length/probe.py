"""How fast this machine trains this network, in which way it does so fastest, and how many steps that makes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from isocenter.networks import memory_order
from isocenter.planning import LEAST_BATCH, Training
from isocenter.runtime import available_memory
from isocenter.training.length.peak_operations import Peak, counted, measured_peak, settled
from isocenter.training.length.schedule import FEWEST_STEPS, Speed, fitting_steps
from isocenter.training.step import Compute, normalises_over_batch
from isocenter.values import Decision

if TYPE_CHECKING:
    from torch.nn import Module

# A probe of this share of the time, or of this many steps of each way, tells the speed well enough even where other
# programs disturb it now and then; its first steps warm up caches and allocators.
PROBE_SHARE, PROBE_STEPS, MOST_PROBE_STEPS, PROBE_WARMUP = 0.02, 6, 60, 2
# A probe that takes so many times its share ends after one step: the steps are planned anew on the way.
PATIENCE = 3
# A way whose first warm step is so many times slower than the best is not tried further.
HOPELESS = 1.3
# What is not faster by this share is taken for noise, and the simpler way stays.
WORTH = 0.03
# s that torch.compile takes for a small U-Net, measured on two cores: 44; and the share of the time it may cost.
COMPILING, COMPILE_SHARE = 45.0, 0.03
# With fewer steps than these a batch is halved. 3 minutes on one core, gliomas, in steps of 4, 2 and 1 patches: 91, 207
# and 409 steps, Dice .528, .550 and .558.
WANTED_STEPS = 200
# With this the reason of a smaller batch ends; where other minutes are given, the planned one is taken again.
FEWER = "fewer samples bring more steps"
# The peak is looked for where there are at least so many seconds: it takes about two.
PEAK_FROM = 60.0
# Validation cases that are looked at to know how long all take.
PROBE_CASES = 3
# What a step costs beside what the probe measures: the optimiser, the average, the log.
STEP_OVERHEAD = 1.06
# Validation may take this share of the time.
VALIDATION_SHARE = 0.1

# Computes a step of this number there and back, in one way.
Step = Callable[[Compute, int], None]


@dataclass(frozen=True)
class Budget:
    """What a probe found: so many steps and validations fit, at this speed, and why."""

    steps: int
    validations: int
    speed: Speed
    because: str


@dataclass(frozen=True)
class Probed:
    """What a probe found: the way to compute, why, its steps' s, the operations of a step and the machine's best."""

    compute: Compute
    because: str
    times: list[float]
    operations: float | None = None
    peak: Peak | None = None

    def decision(self, chosen: Training) -> Decision:
        return Decision(self.compute.name(chosen), self.because)


def probed(module: Module, step: Step, chosen: Training, left: float, most: int | None = None) -> Probed:
    """The fastest way to compute a step, found within a small share of the time; weights are left as they were.

    left: s that the training has
    most: steps that there may be, so that it may not need them all
    The module computes in that way from now on.
    """
    with _restored(module):
        if most is not None:
            left = min(left, most * _warm(module, step, chosen))
        found = _probed(module, step, chosen, left)
    found.compute.applied(module)
    return found


def fewer_samples(module: Module, step: Step, chosen: Training, left: float, processes: int = 1) -> Decision | None:
    """A smaller batch, where the steps that the time allows would be few; None where the planned one stays.

    left:      s that the training has
    processes: that share a batch evenly
    """
    with _restored(module):
        took = _warm(module, step, chosen)
    least = max(processes, LEAST_BATCH if normalises_over_batch(module) else 1)
    steps, batch = max(0.0, left) / took, chosen.batch
    while steps * chosen.batch / batch < WANTED_STEPS and batch % (2 * processes) == 0 and batch // 2 >= least:
        batch //= 2
    if batch == chosen.batch:
        return None
    because = (
        f"a step of {chosen.batch}, for which the memory was planned, takes {took:.1f} s, so that {left:.0f} s have "
        f"time for {steps:.0f}: {FEWER}"
    )
    return Decision(batch, because)


@contextmanager
def _restored(module: Module) -> Iterator[None]:
    """Afterwards weights and buffers are as they were, and gradients are gone."""
    weights = copy.deepcopy(module.state_dict())
    try:
        yield
    finally:
        module.zero_grad()
        module.load_state_dict(weights)


def _seconds(module: Module, step: Step, chosen: Training, way: Compute, number: int) -> float:
    """What a step takes in one way."""
    way.applied(module)
    module.zero_grad()  # gradients in another order than their weights cost time, and torch warns of them
    settled(chosen.device)
    mark = time.monotonic()
    step(way, number)
    settled(chosen.device)
    return time.monotonic() - mark


def _warm(module: Module, step: Step, chosen: Training) -> float:
    """What a step takes in the simplest way, once caches and allocators are warm."""
    simplest = ways_of(module, chosen)[0]
    return min(_seconds(module, step, chosen, simplest, number) for number in range(PROBE_WARMUP))


def _probed(module: Module, step: Step, chosen: Training, left: float) -> Probed:
    ways, timed = ways_of(module, chosen), partial(_seconds, module, step, chosen)
    times, said = raced(ways, timed, PROBE_SHARE * left), []
    best = fastest_of(times)
    if len(ways) > 1:
        best, more, words = _compiled(best, timed, left)
        times |= more
        said.append(words)
    operations, peak = None, None
    if left >= PEAK_FROM:
        still = replace(best, compiled=False)
        still.applied(module)
        module.zero_grad()
        operations, shapes = counted(module, lambda: step(still, 0))
        peak = measured_peak(module, shapes, half=best.half, device=chosen.device)
    seconds = [f"{way.name(chosen)} {np.median(taken):.3f} s" for way, taken in times.items()]
    because = (
        f"a step took {', '.join(seconds)}" if len(ways) > 1 else f"{why_one(module, chosen)}: {seconds[0]} a step"
    )
    return Probed(best, "; ".join([because, *said]), times[best], operations, peak)


def ways_of(module: Module, chosen: Training) -> list[Compute]:
    """What is worth trying here: the simplest first; what was set by hand alone."""
    simplest = Compute.of(chosen.compute or "", chosen)
    if chosen.compute is not None or chosen.deterministic or memory_order(module) is None:
        return [simplest]
    ways = [simplest, replace(simplest, channels_last=True)]
    # Float32 keeps up to twice as much for the way back as the plan's memory says.
    if simplest.half and chosen.device == "cpu" and 2 * chosen.memory * 2**30 < available_memory():
        ways.append(replace(simplest, half=False))
    return ways


def why_one(module: Module, chosen: Training) -> str:
    """Why no other way was tried."""
    if chosen.compute is not None:
        return "set beforehand"
    return "a clock must not decide how" if chosen.deterministic else "a network without convolutions has one way"


def raced(
    ways: Sequence[Compute], timed: Callable[[Compute, int], float], longest: float
) -> dict[Compute, list[float]]:
    """s of some steps of each way after warming up, in turns, so that what disturbs the machine disturbs all alike.

    longest: s that all may take together
    """
    times: dict[Compute, list[float]] = {way: [] for way in ways}
    began, trying = time.monotonic(), list(ways)
    for number in count():
        spent = time.monotonic() - began
        enough = number >= PROBE_STEPS or (number > PROBE_WARMUP and spent > PATIENCE * longest)
        if number >= MOST_PROBE_STEPS or (enough and spent > longest):
            break
        for way in trying:
            times[way].append(timed(way, number))
        if number == 1:  # the first step only warmed up
            best = min(taken[-1] for taken in times.values())
            trying = [way for way in trying if times[way][-1] <= HOPELESS * best]
    return {way: taken[PROBE_WARMUP:] or taken[-1:] for way, taken in times.items()}


def fastest_of(times: Mapping[Compute, list[float]]) -> Compute:
    """The fastest way; the first where no other is clearly faster."""
    seconds = {way: float(np.median(taken)) for way, taken in times.items()}
    first, best = next(iter(seconds)), min(seconds, key=lambda way: seconds[way])
    return best if seconds[best] < (1 - WORTH) * seconds[first] else first


def _compiled(
    best: Compute, timed: Callable[[Compute, int], float], left: float
) -> tuple[Compute, dict[Compute, list[float]], str]:
    """Whether torch.compile makes the best way faster, where there is time to find out."""
    if COMPILE_SHARE * left < COMPILING:
        return best, {}, f"{left:.0f} s are too few to try torch.compile, which takes about {COMPILING:.0f}"
    compiled = replace(best, compiled=True)
    try:
        took = timed(compiled, 0)
        times = raced([best, compiled], timed, PROBE_SHARE * left)
    except Exception as error:  # of many kinds, such as where there is no compiler for C++
        return best, {}, f"torch.compile failed ({next(iter(str(error).strip().splitlines()), type(error).__name__)})"
    return fastest_of(times), times, f"torch.compile took {took:.0f} s"


def budget(
    times: list[float], validation: float, left: float, most_validations: int, most: int | None = None
) -> Budget:
    """How many steps and validations fit into the time left.

    times:      s of probed steps
    validation: s of one look at all validation cases
    most:       steps that there may be, whatever the time
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
    if most is not None and fitting > most:
        because += f", for {fitting} steps; {most} are all that there may be"
        fitting = most
    return Budget(max(FEWEST_STEPS, fitting), validations, speed, because)
