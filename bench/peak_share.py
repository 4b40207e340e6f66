"""The share of this machine's own peak that whole training steps and passes for prediction reach.

    python bench/peak_share.py --record

The peak is the most floating-point operations a second of the network's heaviest convolutions, alone, plain and
channels-last, and of matrix products of the same shapes, in bfloat16. A step is all of one: the batch that the loader
has made ahead, augmentation, the network there and back, the optimiser and the average of the weights. Operations are
those that torch counts in the network and the loss; augmentation has none, and only costs time. The share of a step
that convolutions take says how much faster it can be where all else takes no time at all.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import lightning_fabric
import numpy as np
import torch
from beside import arguments, record
from torch.profiler import ProfilerActivity, profile
from training_steps import SIZE

import hilum
from hilum.planning import PlanSettings, plan_checks
from hilum.runtime import hardware, torch_networks
from hilum.training.data.batch_loading import Loader
from hilum.training.data.prepared_store import PreparedCase
from hilum.training.length import step_probe
from hilum.training.length.schedule import TrainingPace
from hilum.training.length.step_probe import MeasuredPeak
from hilum.training.processes import SINGLE_PROCESS
from hilum.training.step import optimisers
from hilum.training.step.batch_loss import Criterion
from hilum.training.step.computation import Compute
from hilum.training.step.optimisers import WeightAverage
from hilum.training.step.train_step import Learner

LABELS = "1=anterior,2=posterior"
# {name: what is set by hand beside our plan for the hippocampus}
JOBS: dict[str, dict[str, Any]] = {
    "our plan": {},
    "nnU-Net's network, batch 7": {
        "network.name": "plain_conv_unet",
        "network.size": SIZE,
        "training.batch": 7,
        "training.patch": [40, 56, 40],
    },
}
METHODS = {
    "bf16": Compute(half=True),
    "bf16, channels-last": Compute(half=True, channels_last=True),
    "float32": Compute(),
}
WARMUP = 2


def main() -> None:
    parser = arguments(__doc__, repeats=15)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    repeats, jobs = (1, {"our plan": JOBS["our plan"]}) if given.small else (given.repeats, JOBS)
    rows, peaks = [], {}
    for name, by_hand in jobs.items():
        planned = hilum.plan(
            given.data / "hippocampus", labels=LABELS, device="cpu", threads=given.threads, assignments=by_hand
        )
        found, peaks[name] = _measured(plan_checks.checked_settings(planned.plan), repeats)
        rows += [{"network": name, **row} for row in found]
    text = "\n".join([_table(rows), "", *(f"The peak of {name}: {_words(peak)}." for name, peak in peaks.items())])
    print(text)
    if given.record:
        data = {"rows": rows, "peaks": {name: vars(peak) for name, peak in peaks.items()}, "threads": given.threads}
        record("peak_share", "Share of the machine's peak", text, data)


def _measured(chosen: PlanSettings, repeats: int) -> tuple[list[dict[str, Any]], MeasuredPeak]:
    """A row for each way to compute, of a step and of a pass; steps of all ways take turns."""
    module = torch_networks.build_module(chosen.task, chosen.architecture)
    loader = Loader(_cases(chosen), chosen.training.patch, chosen.training.batch, 0.33, 0)
    half = Compute(half=True)
    batch, criterion = loader.of_step(0), Criterion(chosen, "cpu", chosen.terms)
    work, shapes = step_probe.count_work(module, lambda: criterion.judge_batch(module, batch, half).loss.backward())  # noqa: PLW0108 - the way there counts too
    peak = step_probe.measure_peak(module, shapes, half=True, device="cpu")
    assert peak is not None
    images = torch.randn(chosen.training.batch, chosen.architecture["channels"], *chosen.training.patch)
    through, _ = step_probe.count_work(module.eval(), lambda: module(images))
    sides = {name: (_Side(chosen, method, loader), method) for name, method in METHODS.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    with hardware.keep_freed_memory(), closing(loader.batches(0)) as batches:  # as trainings compute
        for number in range(WARMUP + repeats):
            for name, (side, _) in sides.items():
                step = _seconds(lambda side=side, n=number: side.learner.learn(next(batches), n, TrainingPace(1000)))
                passed = _seconds(lambda side=side: side.passed(images))
                if number >= WARMUP:
                    times[name].append((step, passed))
        convolved = {
            name: _convolved(lambda side=side: side.learner.learn(next(batches), 0, TrainingPace(1000)))
            for name, (side, _) in sides.items()
        }
    rows = []
    for name, taken in times.items():
        step, passed = (statistics.median(column) for column in zip(*taken, strict=True))
        shares = {"step": work / step / peak.operations, "pass": through / passed / peak.operations}
        rows.append({"computed": name, "step_s": step, "pass_s": passed, **shares, "convolved": convolved[name]})
    return rows, peak


class _Side:
    """A network that learns, and its average that predicts, computed in one way."""

    def __init__(self, chosen: PlanSettings, method: Compute, loader: Loader) -> None:
        torch.manual_seed(0)
        module = torch_networks.build_module(chosen.task, chosen.architecture).train()
        self.averaged = method.apply(copy.deepcopy(module).requires_grad_(False)).eval()
        self.method = method
        method.apply(module)
        fabric = lightning_fabric.Fabric(accelerator="cpu", devices=1)
        wrapped, optimiser = fabric.setup(module, optimisers.make_optimiser(module, chosen.training))
        average = WeightAverage(self.averaged, module)
        criterion = Criterion(chosen, fabric.device, chosen.terms)
        self.learner = Learner(wrapped, criterion, optimiser, average, chosen, fabric, method, SINGLE_PROCESS)

    def passed(self, images: torch.Tensor) -> None:
        with torch.inference_mode(), self.method.autocast("cpu"):
            self.averaged(self.method.order_images(self.averaged, images))


def _cases(chosen: PlanSettings) -> list[PreparedCase]:
    """Cases a little larger than the patch, each with a ball of every label."""
    random, shape = np.random.default_rng(0), tuple(size + 8 for size in chosen.training.patch)
    away = np.sqrt(sum((grid - size / 2) ** 2 for grid, size in zip(np.indices(shape), shape, strict=True)))
    labels = (away < 14).astype(np.uint8) + (away < 8)
    positions = tuple(np.argwhere(labels == value).astype(np.int32)[:1000] for value in (1, 2))
    channels = chosen.architecture["channels"]
    return [
        PreparedCase(
            str(n), random.normal(size=(channels, *shape)).astype(np.float32), labels, positions, (1.0, 1.0, 1.0)
        )
        for n in range(8)
    ]


def _convolved(call: Callable[[], object]) -> float:
    """The share of the processor's time that convolutions take, there and back."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        call()
    each = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    return sum(taken for name, taken in each.items() if "convolution" in name) / sum(each.values())


def _seconds(call: Callable[[], object]) -> float:
    mark = time.perf_counter()
    call()
    return time.perf_counter() - mark


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| network | computed | a step, s | of the peak | convolutions | a pass for prediction, s | of the peak |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['network']} | {row['computed']} | {row['step_s']:.3f} | {100 * row['step']:.0f} % "
        f"| {100 * row['convolved']:.0f} % "
        f"| {row['pass_s']:.3f} | {100 * row['pass']:.0f} % |"
        for row in rows
    ]
    return "\n".join(lines)


def _words(peak: MeasuredPeak) -> str:
    return f"{peak.operations / 1e9:.0f} GFLOP/s, by {peak.what}"


if __name__ == "__main__":
    main()
