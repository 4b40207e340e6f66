"""How a network is trained, from top to bottom."""

from __future__ import annotations

import copy
import csv
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning_fabric
import numpy as np

from isocenter.errors import PlanError
from isocenter.lazy import torch
from isocenter.planning import Settings, Training
from isocenter.runtime import Model, TorchNetwork, build_module, digest, read_tensors, slide
from isocenter.training.checkpoint import read_checkpoint, write_checkpoint
from isocenter.training.interruption import held_back
from isocenter.training.loader import Batch, Loader
from isocenter.training.store import Prepared
from isocenter.transforms import generator

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

log = logging.getLogger("isocenter")
# A probe of this share of the time, or of this many steps, tells the speed well enough even where other programs
# disturb it now and then; its first steps warm up caches and allocators.
PROBE_SHARE, PROBE_STEPS, MOST_PROBE_STEPS, PROBE_WARMUP, PROBE_CASES = 0.02, 8, 60, 2, 3
# What a step costs beside what the probe measures: the optimiser, the average, the log.
STEP_OVERHEAD = 1.06
FEWEST_STEPS = 10
# Validation may take this share of the time.
VALIDATION_SHARE = 0.1
# Seconds between checkpoints from which a killed run goes on.
CHECKPOINT_SECONDS = 60.0
# Sets the draws of a step apart from those of a case.
STEP_DRAW = 2**30


@dataclass(frozen=True)
class Moment:
    """Where a training is, for whoever watches: step of steps, seconds since the command began."""

    step: int
    steps: int
    seconds: float
    loss: float
    learning_rate: float
    validation: float | None = None
    waiting: float = 0.0


@dataclass(frozen=True)
class Clock:
    """began: time.monotonic() of the command; spent: s of earlier, killed sessions; deadline: s for all training"""

    began: float
    spent: float = 0.0
    deadline: float | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began + self.spent


@dataclass(frozen=True)
class Outcome:
    """What training came to: the checkpoint to use, and why that one."""

    checkpoint: Path
    because: str
    steps: int


def train(
    settings: Settings,
    train_cases: Sequence[Prepared],
    val_cases: Sequence[Prepared],
    out: Path,
    *,
    clock: Clock,
    record: Mapping[str, Any],
    resume: bool = False,
    start: Path | None = None,
    decided: Callable[[int, int, str], None] = lambda steps, validations, because: None,
    watch: Callable[[Moment], None] = lambda moment: None,
) -> Outcome:
    """Train by these settings and leave `log.csv` and `checkpoints/` in `out`.

    start:   weights (safetensors) to begin from, as far as names and shapes agree
    decided: is told the number of steps, that of validations and the reason, once a probe has found them
    record:  goes into the model: data hash, plan, versions
    Ctrl-C ends with KeyboardInterrupt after the step at hand, whose state is kept.
    """
    chosen = settings.training
    fabric = _fabric(chosen)
    torch.manual_seed(chosen.seed)
    network = settings.architecture
    module = build_module(settings.task, network)
    if start is not None:
        record = {**record, "began_from": _begin_from(module, start)}
    averaged = copy.deepcopy(module).requires_grad_(False).to(fabric.device)
    module, optimiser = fabric.setup(module, _optimiser(module, chosen))
    loader = Loader(train_cases, chosen.patch, chosen.batch, chosen.foreground, chosen.seed)
    model = Model(
        settings.task,
        settings.preprocessing,
        settings.inference,
        network,
        TorchNetwork(averaged, str(fabric.device)),
        record,
    )

    last, best = out / "checkpoints" / "last", out / "checkpoints" / "best"
    first, best_score = 0, -math.inf
    if resume and last.is_dir():
        state = read_checkpoint(last, module.module, averaged, optimiser)
        first, best_score = int(state["step"]), float(state["best"] if state["best"] is not None else -math.inf)
    elif start is not None:  # so that a run killed before its first checkpoint still goes on from these weights
        state = {"step": 0, "steps": chosen.steps, "best": None, "seconds": clock.seconds}
        weights = averaged.state_dict()
        write_checkpoint(last, model, weights, module=module.module, optimiser=optimiser, state=state)
    steps, validations, because = chosen.steps or 0, chosen.validations, "the plan says so"
    if not steps:
        steps, validations, because = _probe(
            fabric, module, optimiser, settings, loader, val_cases, model, averaged, clock
        )
        decided(steps, validations, because)

    checks = {round(steps * n / validations) for n in range(1, validations + 1)} | {steps}
    saved = clock.seconds
    waited, mark = 0.0, time.monotonic()
    module.train()
    with _Log(out / "log.csv", first) as rows, held_back() as stopping:
        for step, batch in enumerate(loader.batches(first, steps), start=first):
            waited += time.monotonic() - mark
            # Dropout draws from the one generator that torch has: set anew, a resumed run draws the same.
            torch.manual_seed(int(generator(chosen.seed, 0, step, STEP_DRAW).integers(2**63)))
            rate = _rate(step, steps, chosen)
            for group in optimiser.param_groups:
                group["lr"] = rate
            loss = _loss(module, batch, settings, fabric)
            optimiser.zero_grad()
            fabric.backward(loss)
            torch.nn.utils.clip_grad_norm_(module.parameters(), chosen.clip)
            optimiser.step()
            _average(averaged, module.module, _decay(step, steps, chosen))

            done, score = step + 1, None
            if done in checks and len(val_cases):
                score = validate(model, averaged, val_cases, fabric)
                if score >= best_score:
                    best_score = score
                    picked = replace(model, record={**record, "step": done, "validation": score})
                    write_checkpoint(best, picked, averaged.state_dict())
            share = waited / max(1e-9, clock.seconds)
            moment = Moment(done, steps, clock.seconds, float(loss.detach()), rate, score, share)
            rows.add(moment)
            watch(moment)
            if done in checks or stopping() or clock.seconds - saved > CHECKPOINT_SECONDS:
                state = {"step": done, "steps": steps, "best": best_score, "seconds": clock.seconds}
                latest = replace(model, record={**record, "step": done})
                weights = averaged.state_dict()
                write_checkpoint(last, latest, weights, module=module.module, optimiser=optimiser, state=state)
                saved = clock.seconds
            if stopping():
                raise KeyboardInterrupt
            mark = time.monotonic()
    if best.is_dir():
        return Outcome(best, f"best {chosen.selection} of the validation cases: {best_score:.4f}", steps)
    return Outcome(last, "the last averaged weights: nothing was selected", steps)


def _loss(module: Any, batch: Batch, settings: Settings, fabric: Any) -> Tensor:
    """Augment a batch on the device and let the task judge what the network makes of it."""
    images = torch.from_numpy(batch.images).to(fabric.device)
    targets = torch.from_numpy(batch.targets).to(fabric.device)
    dense = targets if targets.ndim == images.ndim - 1 else None
    images, moved, _ = settings.augmentation(images, dense, batch.generators, batch.steps)
    return settings.task.loss(module(images), targets if moved is None else moved)


def validate(model: Model, averaged: Module, cases: Sequence[Prepared], fabric: Any) -> float:
    """The selection metric of the averaged weights over whole validation cases, on the network's grid."""
    averaged.eval()
    collected: dict[str, list[Tensor]] = {}
    inference, task = model.inference, model.task

    def run(images: np.ndarray) -> Mapping[str, np.ndarray]:
        with torch.inference_mode(), fabric.autocast():
            outputs = averaged(torch.from_numpy(images).to(fabric.device))
        return {name: output.float().cpu().numpy() for name, output in outputs.items()}

    for case in cases:
        image, target = np.asarray(case.image[...], dtype=np.float32), np.asarray(case.target[...])
        sums: dict[str, Tensor] = {}
        for region, arrays in slide(run, image, inference.patch, overlap=inference.overlap, batch=4, merge=task.merge):
            outputs = {name: torch.from_numpy(array)[None] for name, array in arrays.items()}
            part = torch.from_numpy(np.asarray(target[region] if region else target))[None]
            for name, value in task.quality(outputs, part).items():
                sums[name] = sums[name] + value if name in sums else value
        for name, value in sums.items():
            collected.setdefault(name, []).append(value)
    return task.selection({name: torch.cat(values) for name, values in collected.items()})


def _fabric(chosen: Training) -> Any:
    """Devices and precision through Lightning Fabric, whose own remarks the plan has already made."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    torch.set_num_threads(chosen.threads)
    torch.use_deterministic_algorithms(chosen.deterministic, warn_only=False)
    kind, _, number = chosen.device.partition(":")
    fabric = lightning_fabric.Fabric(
        accelerator={"cuda": "cuda", "mps": "mps"}.get(kind, "cpu"),
        devices=[int(number)] if number else 1,
        precision="bf16-mixed" if chosen.precision == "bf16" else "32-true",
    )
    fabric.launch()
    return fabric


def _optimiser(module: Module, chosen: Training) -> Any:
    """AdamW; what only scales or shifts is not drawn towards zero."""
    matrices = [p for p in module.parameters() if p.ndim > 1]
    vectors = [p for p in module.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": chosen.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=chosen.learning_rate)


def fitting(module: Module, start: Path) -> dict[str, Tensor]:
    """The weights in a file whose names and shapes agree with the network's.

    Raises PlanError where none does: the run would begin from nothing and not say so.
    """
    own, given = module.state_dict(), read_tensors(start)
    agreeing = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    if not agreeing:
        raise PlanError("not one weight fits the plan's network", str(start), "Give a model of the same network")
    return agreeing


def _begin_from(module: Module, start: Path) -> str:
    """Take over every weight whose name and shape agree; says how many did."""
    own, agreeing = module.state_dict(), fitting(module, start)
    module.load_state_dict({**own, **agreeing})
    said = f"{len(agreeing)} of {len(own)} tensors from {start.name} with SHA-256 {digest(start)[:16]}"
    log.info("began from %s", said)
    return said


def _rate(step: int, steps: int, chosen: Training) -> float:
    """Linear warm-up, then a cosine to zero (Loshchilov and Hutter, arXiv:1608.03983)."""
    warmup = max(1, round(chosen.warmup * steps))
    if step < warmup:
        return chosen.learning_rate * (step + 1) / warmup
    return chosen.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _decay(step: int, steps: int, chosen: Training) -> float:
    """How much of the average stays at a step; early on it follows quickly, so that the start is soon forgotten."""
    horizon = max(1.0, chosen.ema * steps)
    return min(1 - 1 / horizon, (1 + step) / (10 + step))


def _average(averaged: Module, module: Module, decay: float) -> None:
    with torch.no_grad():
        for mean, value in zip(averaged.state_dict().values(), module.state_dict().values(), strict=True):
            if mean.dtype.is_floating_point:
                mean.lerp_(value.to(mean.dtype), 1 - decay)
            else:
                mean.copy_(value)


def _probe(
    fabric: Any,
    module: Any,
    optimiser: Any,
    settings: Settings,
    loader: Loader,
    val_cases: Sequence[Prepared],
    model: Model,
    averaged: Module,
    clock: Clock,
) -> tuple[int, int, str]:
    """How many steps and validations fit into the time left; the probe leaves no trace in weights or optimiser."""
    assert clock.deadline is not None  # noqa: S101 - a plan has steps or minutes
    weights = copy.deepcopy(module.module.state_dict())
    times: list[float] = []
    began, longest = time.monotonic(), PROBE_SHARE * (clock.deadline - clock.seconds)
    for step in count():
        if step >= MOST_PROBE_STEPS or (step >= PROBE_STEPS and time.monotonic() - began > longest):
            break
        mark = time.monotonic()
        fabric.backward(_loss(module, loader.of_step(step), settings, fabric))
        times.append(time.monotonic() - mark)
    optimiser.zero_grad()
    module.module.load_state_dict(weights)
    mark, looked_at = time.monotonic(), val_cases[:PROBE_CASES]
    if looked_at:
        validate(model, averaged, looked_at, fabric)
    validating = (time.monotonic() - mark) / max(1, len(looked_at)) * len(val_cases)
    left = clock.deadline - clock.seconds
    validations = settings.training.validations
    if validating > 0:
        validations = int(np.clip(VALIDATION_SHARE * left / validating, 1, validations))
    seconds = float(np.median(times[PROBE_WARMUP:])) * STEP_OVERHEAD
    fitting = int((left - validations * validating) / seconds)
    steps = max(FEWEST_STEPS, fitting)
    because = (
        f"{max(0.0, left):.0f} s are left for steps of {seconds:.3f} s, measured over {len(times) - PROBE_WARMUP}, "
        f"and {validations} validations of {validating:.1f} s"
    )
    if steps > fitting:
        because += f"; {FEWEST_STEPS} are the least, so it will take longer than was asked for"
    return steps, validations, because


class _Log:
    """`log.csv`, a row a step, on disk as soon as it is written; on resuming, rows after the checkpoint are dropped."""

    columns = ("step", "seconds", "loss", "learning_rate", "validation")

    def __init__(self, path: Path, first: int) -> None:
        kept = _rows_up_to(path, first)
        self.file = path.open("w", newline="", encoding="utf-8")
        self.writer = csv.DictWriter(self.file, self.columns)
        self.writer.writeheader()
        self.writer.writerows(kept)

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *raised: object) -> None:
        self.file.close()

    def add(self, moment: Moment) -> None:
        row = {name: value for name, value in asdict(moment).items() if name in self.columns}
        self.writer.writerow({**row, "seconds": round(moment.seconds, 3)})  # what is None is left empty
        self.file.flush()


def _rows_up_to(path: Path, first: int) -> list[dict[str, str]]:
    """Whole rows of the steps that a checkpoint holds; a full disk may have cut the last row short."""
    if not first or not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["validation"] is not None and int(row["step"]) <= first]
