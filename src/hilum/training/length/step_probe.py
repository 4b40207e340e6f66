"""A probe of a training: the fastest way to compute its steps here, how many fit, and narrower networks for few.

It also measures the share of what the machine can do that a step reaches, against the machine's best convolution.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, product
from operator import attrgetter
from subprocess import SubprocessError
from typing import TYPE_CHECKING, Any

import numpy as np

from hilum import errors
from hilum.lazy import flop_counter, torch
from hilum.networks import factory, network_family, quick_convolutions
from hilum.planning import PlanSettings
from hilum.planning.plan_sections import LEAST_BATCH, TrainingSettings
from hilum.runtime import Context, hardware, torch_networks
from hilum.training.length import schedule
from hilum.training.length.schedule import FEWEST_STEPS, Speed
from hilum.training.step import optimisers
from hilum.training.step.computation import Compute
from hilum.training.training_state import Work
from hilum.values import Decision

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


# A probe of this share of the time, or of this many steps of each candidate, measures the speed well enough even where
# other programs disturb it now and then; its first steps warm up caches and allocators.
PROBE_SHARE = 0.02
PROBE_STEPS = 6
MOST_PROBE_STEPS = 60
PROBE_WARMUP = 2
# A probe that takes so many times its share ends after one step: the steps are planned anew on the way.
PATIENCE = 3
# A candidate whose first warm step is so many times slower than the best is not tried further.
HOPELESS = 1.3
# What is not faster by this share is taken for noise, and the simpler candidate stays.
WORTH = 0.03
# s that torch.compile takes for a small U-Net, measured on two cores: 44; and the share of the time it may cost.
COMPILING = 45.0
COMPILE_SHARE = 0.03
# With fewer steps than these a batch is halved. 3 minutes on one core, gliomas, in steps of 4, 2 and 1 patches: 91, 207
# and 409 steps, Dice .528, .550 and .558.
WANTED_STEPS = 200
# With this the reason of a smaller batch ends; where other minutes are given, the planned one is taken again.
FEWER = "fewer samples bring more steps"
# The peak is looked for where there are at least so many seconds: it takes about two.
PEAK_FROM = 60.0
# Validation cases that are timed to know how long all take.
PROBE_CASES = 3
# What a step costs beside what the probe measures: the optimiser, the average, the log.
STEP_OVERHEAD = 1.06
# Validation may take this share of the time.
VALIDATION_SHARE = 0.1
# What compilers raise: torch's own errors, a compiler or a library that is missing, a compiler that ends with an error.
COMPILER_ERRORS = (RuntimeError, OSError, ImportError, SubprocessError)

# Computes a step of this number there and back.
Step = Callable[[Compute, int], None]
Times = Mapping[Compute, list[float]]
# The convolutions that do most of the work are measured, each so often; the fastest run is the machine's best.
MOST_SHAPES = 4
REPEATS = 5
# Rows of a matrix product: more make none faster, and would take gigabytes.
MOST_ROWS = 16384


@dataclass(frozen=True)
class Budget:
    """The steps and validations that fit into the time, the speed, and the reason."""

    steps: int
    validations: int
    speed: Speed
    because: str


@dataclass(frozen=True)
class ProbedSpeed:
    """The way to compute steps, as a decision too, s of each that was tried, and its work where that was measured."""

    compute: Compute
    decision: Decision
    times: list[float]
    work: Work | None = None


@dataclass(frozen=True, eq=False)
class Probe:
    """Steps of a network that are computed only to be timed: its weights stay as they are.

    step: computes one, gradients included
    now:  s of a clock that never goes back
    """

    module: Module
    step: Step
    chosen: TrainingSettings
    now: Callable[[], float] = time.monotonic

    def fastest(self, left: float, most: int | None = None) -> ProbedSpeed:
        """Find the fastest way to compute a step, within a small share of the time; the module keeps it.

        left: s that the training has
        most: steps that there may be, so that it may not need them all
        """
        with self._restore():
            if most is not None:
                left = min(left, most * self.warm())
            probed = self._compare(left)
        probed.compute.apply(self.module)
        return probed

    def fewer_samples(self, left: float, processes: int = 1, fewest: int = 1) -> Decision | None:
        """A smaller batch, where the steps that the time allows would be few; None where the planned one stays.

        left:      s that the training has
        processes: that share a batch evenly
        fewest:    samples that a batch keeps
        """
        with self._restore():
            took = self.warm()
        least = max(processes, fewest, LEAST_BATCH if optimisers.normalises_over_batch(self.module) else 1)
        planned = batch = self.chosen.batch
        steps = max(0.0, left) / took
        while steps * planned / batch < WANTED_STEPS and batch % (2 * processes) == 0 and batch // 2 >= least:
            batch //= 2
        if batch == planned:
            return None
        because = (
            f"a step with the planned {planned} samples takes {took:.1f} s, and only {max(0, steps):.0f} such steps "
            f"fit into the {max(0, left):.0f} s that are left: {FEWER}"
        )
        return Decision(batch, because)

    def warm(self) -> float:
        """The s that a step takes in the simplest way, once caches and allocators are warm."""
        simplest = compute_candidates(self.module, self.chosen)[0]
        return min(self.seconds(simplest, number) for number in range(PROBE_WARMUP))

    def seconds(self, compute: Compute, number: int) -> float:
        """The seconds that a step with this number of samples takes."""
        compute.apply(self.module)
        self.module.zero_grad()  # gradients in another order than their weights cost time, and torch warns of them
        wait_for_device(self.chosen.device)
        mark = self.now()
        self.step(compute, number)
        wait_for_device(self.chosen.device)
        return self.now() - mark

    def _compare(self, left: float) -> ProbedSpeed:
        tried = compute_candidates(self.module, self.chosen)
        chosen = self.chosen
        notes = []
        times = race_candidates(tried, self.seconds, PROBE_SHARE * left, self.now)
        best = fastest_of(times)
        if len(tried) > 1:
            best, compiled, note = self._compile(best, left)
            times |= compiled
            notes.append(note)
        work = self._work(best) if left >= PEAK_FROM else None
        seconds = [f"{compute.name(chosen)} {np.median(taken):.3f} s" for compute, taken in times.items()]
        because = f"a step took {', '.join(seconds)}"
        if len(tried) == 1:
            because = f"{why_one_candidate(chosen)}: {seconds[0]} a step"
        return ProbedSpeed(best, Decision(best.name(chosen), "; ".join([because, *notes])), times[best], work)

    def _compile(self, best: Compute, left: float) -> tuple[Compute, dict[Compute, list[float]], str]:
        """The best candidate or its compiled form, where there is time to find out; s of both, and a note."""
        if COMPILE_SHARE * left < COMPILING:
            rest = f"{left:.0f} s are" if left > 0 else "no time is"
            few = "too few" if left > 0 else "left"
            return best, {}, f"{rest} {few} to try torch.compile, which takes about {COMPILING:.0f} s"
        compiled = replace(best, compiled=True)
        try:
            took = self.seconds(compiled, 0)
            times = race_candidates([best, compiled], self.seconds, PROBE_SHARE * left, self.now)
        except COMPILER_ERRORS as error:
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            return best, {}, f"torch.compile failed ({first})"
        return fastest_of(times), times, f"torch.compile took {took:.0f} s"

    def _work(self, best: Compute) -> Work | None:
        """Operations of a step, beside the most that the machine does in a second; None without convolutions."""
        eager = replace(best, compiled=False)
        eager.apply(self.module)
        self.module.zero_grad()
        operations, shapes = count_work(self.module, lambda: self.step(eager, 0))
        peak = measure_peak(self.module, shapes, half=best.half, device=self.chosen.device)
        return None if peak is None else Work(operations, peak.operations, peak.what)

    @contextmanager
    def _restore(self) -> Iterator[None]:
        """Afterwards weights and buffers are as they were, and gradients are gone."""
        weights = copy.deepcopy(self.module.state_dict())
        try:
            yield
        finally:
            self.module.zero_grad()
            self.module.load_state_dict(weights)


def compute_candidates(module: Module, chosen: TrainingSettings) -> list[Compute]:
    """The ways to compute a step here, the simplest first; only that which was set by hand, if any."""
    simplest = Compute.from_name(chosen.compute or "", chosen)
    if chosen.compute is not None or chosen.deterministic or quick_convolutions.batch_memory_order(module) is None:
        return [simplest]
    tried = [simplest, replace(simplest, channels_last=True)]
    # Float32 keeps up to twice as much for the way back as the plan's memory says.
    if simplest.half and chosen.device == "cpu" and 2 * chosen.memory * 2**30 < hardware.available_host_memory():
        tried.append(replace(simplest, half=False))
    return tried


def why_one_candidate(chosen: TrainingSettings) -> str:
    """Why there was one candidate only."""
    if chosen.compute is not None:
        return "set beforehand"
    return "a clock must not decide how" if chosen.deterministic else "a network without convolutions has one way"


def race_candidates(
    tried: Sequence[Compute],
    timed: Callable[[Compute, int], float],
    longest: float,
    now: Callable[[], float] = time.monotonic,
) -> dict[Compute, list[float]]:
    """s of some steps of each candidate after warming up, in turns: what disturbs the machine disturbs all alike.

    longest: s that all may take
    """
    times: dict[Compute, list[float]] = {compute: [] for compute in tried}
    mark = now()
    left = list(tried)
    for number in count():
        spent = now() - mark
        enough = number >= PROBE_STEPS or (number > PROBE_WARMUP and spent > PATIENCE * longest)
        if number >= MOST_PROBE_STEPS or (enough and spent > longest):
            break
        for compute in left:
            times[compute].append(timed(compute, number))
        if number == 1:  # the first step only warmed up
            best = min(taken[-1] for taken in times.values())
            left = [compute for compute in left if times[compute][-1] <= HOPELESS * best]
    return {compute: taken[PROBE_WARMUP:] or taken[-1:] for compute, taken in times.items()}


def fastest_of(times: Times) -> Compute:
    """The fastest candidate; the first where no other is clearly faster."""
    seconds = {compute: float(np.median(taken)) for compute, taken in times.items()}
    first = next(iter(seconds))
    best = min(seconds, key=lambda compute: seconds[compute])
    return best if seconds[best] < (1 - WORTH) * seconds[first] else first


def fitting_budget(
    times: list[float], validation: float, left: float, most_validations: int, most: int | None = None
) -> Budget:
    """The steps and validations that fit into the time left.

    times:      s of probed steps
    validation: s of a look at all validation cases
    most:       steps that there may be, whatever the time
    """
    validations = most_validations
    if validation > 0:
        validations = int(np.clip(VALIDATION_SHARE * left / validation, 1, most_validations))
    speed = Speed(float(np.median(times)) * STEP_OVERHEAD, validation)
    fitting = schedule.fitting_steps(left, speed, validations)
    because = (
        f"{max(0.0, left):.0f} s are left for steps of {speed.step:.3f} s, measured over {len(times)}, "
        f"and {validations} validation{'s' * (validations > 1)} of {validation:.1f} s"
    )
    if fitting < FEWEST_STEPS:
        because += f"; {FEWEST_STEPS} is the fewest, so training takes longer than was asked for"
    if most is not None and fitting > most:
        because += f", for {fitting} steps; {most} are all that there may be"
        fitting = most
    return Budget(max(FEWEST_STEPS, fitting), validations, speed, because)


@dataclass(frozen=True)
class Shape:
    """One convolution of a network.

    images:  (batch, channels, *spatial) of its input; weight: (channels out, channels in / groups, *kernel)
    options: stride, padding, dilation and groups
    """

    images: tuple[int, ...]
    weight: tuple[int, ...]
    options: tuple[Any, ...]
    operations: float

    @property
    def words(self) -> str:
        """The convolution in words."""
        kernel, spatial = (" x ".join(str(n) for n in sizes[2:]) for sizes in (self.weight, self.images))
        return f"{self.weight[1]} to {self.weight[0]} channels, {kernel} over {spatial}"


@dataclass(frozen=True)
class MeasuredPeak:
    """operations: a second, floating-point; what: which computation reached them"""

    operations: float
    what: str


def count_work(module: Module, step: Callable[[], object]) -> tuple[float, list[Shape]]:
    """Floating-point operations of a step, there and back, and the network's convolutions, the heaviest first."""
    shapes: set[Shape] = set()
    kinds = (torch.nn.Conv2d, torch.nn.Conv3d)

    def seen(part: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Note the shapes of a convolution, as a forward hook."""
        options = (part.stride, part.padding, part.dilation, part.groups)
        work = 2.0 * output.numel() * math.prod(part.weight.shape[1:])
        shapes.add(Shape(tuple(inputs[0].shape), tuple(part.weight.shape), options, work))

    with ExitStack() as stack:
        for part in module.modules():
            if isinstance(part, kinds):
                stack.callback(part.register_forward_hook(seen).remove)
        singles = {torch.ops.aten.mkldnn_convolution: _of_single_volume}
        counter = stack.enter_context(flop_counter.FlopCounterMode(display=False, custom_mapping=singles))
        step()
    return float(counter.get_total_flops()), sorted(shapes, key=lambda shape: -shape.operations)


def _of_single_volume(images: list[int], weight: list[int], *_: object, out_shape: list[int]) -> int:
    """Operations of a convolution that torch's counter does not know: that of a single volume by oneDNN."""
    return int(flop_counter.conv_flop_count(images, weight, out_shape))


def measure_peak(module: Module, shapes: Sequence[Shape], *, half: bool, device: Any) -> MeasuredPeak | None:
    """The most operations a second of the heaviest convolutions, plain and channels-last, and of such matrix products.

    None for a network without convolutions.
    """
    dtype = torch.bfloat16 if half else torch.float32
    memory_format = quick_convolutions.batch_memory_order(module)
    if memory_format is None:
        return None
    orders = {"plain": torch.contiguous_format, "channels-last": memory_format[1]}
    reached: list[MeasuredPeak] = []
    for shape, (name, order) in product(shapes[:MOST_SHAPES], orders.items()):
        images = torch.randn(shape.images, dtype=dtype, device=device).contiguous(memory_format=order)
        weight = torch.randn(shape.weight, dtype=dtype, device=device).contiguous(memory_format=order)
        convolve = {4: torch.conv2d, 5: torch.conv3d}[images.ndim]
        seconds = fastest_call(partial(convolve, images, weight, None, *shape.options), device)
        reached.append(MeasuredPeak(shape.operations / seconds, f"a convolution of {shape.words}, {name}"))
    for shape in shapes[:MOST_SHAPES]:
        inside, outside = math.prod(shape.weight[1:]), shape.weight[0]
        rows = min(MOST_ROWS, round(shape.operations / (2 * inside * outside)))
        left = torch.randn(rows, inside, dtype=dtype, device=device)
        right = torch.randn(inside, outside, dtype=dtype, device=device)
        seconds = fastest_call(partial(torch.matmul, left, right), device)
        words = f"a matrix product of {rows} x {inside} by {inside} x {outside}"
        reached.append(MeasuredPeak(2.0 * rows * inside * outside / seconds, words))
    return max(reached, key=attrgetter("operations"), default=None)


def fastest_call(call: Callable[[], object], device: Any) -> float:
    """s of the fastest of some calls."""
    times = []
    with torch.no_grad():
        for _ in range(REPEATS):
            wait_for_device(device)
            mark = time.perf_counter()
            call()
            wait_for_device(device)
            times.append(time.perf_counter() - mark)
    return min(times)


def wait_for_device(device: Any) -> None:
    """Wait until the device has done what it was given: only then does a clock tell the truth."""
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.synchronize(device)
    elif kind == "mps":
        torch.mps.synchronize()


# With time to look at fewer voxels than these, half the planned width learns more: the width that makes most of so much
# computing grows with it. Five sets, two seeds each: with 4 to 13 million voxels +.017 to +.11, with about 40
# million -.047 to +.034 (bench/findings/training.md).
FEW_VOXELS = 20e6
# Features of the first level, below which a network learns less in however many steps. Hippocampus, 2 minutes on one
# core, 143 steps of 16 features, 288 of 8 and 221 of 4: Dice .81, .82 and .51 (bench/findings/training.md).
LEAST_WIDTH = 8
# With this the reason of a narrower network ends; where other minutes are given, the planned one is taken again.
NARROWER = "so few that a network of half the width learns more"


def narrower_width(chosen: PlanSettings, left: float) -> Decision | None:
    """Half the planned width, where the time is enough for few voxels; None where the planned one stays.

    Only of networks that answer for every voxel: for whole images it was not found to be better, and one that makes
    images out of noise was not measured.
    left: s that the training has
    """
    if not any(head.is_dense for head in chosen.task.heads.values()):
        return None
    size = chosen.network.size
    family = factory.family_of(chosen.network.name)
    widths = [size[name] for name in network_family.WIDTHS if isinstance(size.get(name), int)]
    if not widths or min(widths) < 2 * LEAST_WIDTH or any(one % 2 for one in widths):
        return None
    if family.has_loss or family.sees_targets or family.synthesises:  # the first two take no step without targets
        return None
    samples, took = _samples_and_seconds(chosen)
    left = max(0.0, left)
    if (voxels_seen := left / took * samples * math.prod(chosen.training.patch)) >= FEW_VOXELS:
        return None
    because = (
        f"a step of {errors.count_phrase(samples, 'sample')} takes {took:.2g} s with the planned width of {widths[0]}: "
        f"in the {left:.0f} s that are left training would see {voxels_seen / 1e6:.1f} million voxels, {NARROWER}"
    )
    return Decision(network_family.widen_settings(size, 0.5), because)


def _samples_and_seconds(chosen: PlanSettings) -> tuple[int, float]:
    """The fewest samples of a step, and the seconds that it takes with images of noise."""
    training = chosen.training
    device = chosen.training.device
    module = torch_networks.build_module(chosen.task, chosen.architecture).to(device).train()
    samples = LEAST_BATCH if optimisers.normalises_over_batch(module) else 1
    images = torch.randn(samples, chosen.preprocessing.inputs, *training.patch, device=device)
    entries = len(Context.from_settings(chosen.network.context))
    context = [torch.zeros(samples, entries, device=device)] if entries else []

    def step(compute: Compute, number: int) -> None:
        with compute.autocast(device):
            outputs = module(compute.order_images(module, images), *context)
        sum(output.float().mean() for output in outputs.values()).backward()

    return samples, Probe(module, step, replace(training, batch=samples)).warm()
