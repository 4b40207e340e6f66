"""How a network is trained, from top to bottom."""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning_fabric

from isocenter.errors import IsocenterError
from isocenter.lazy import torch
from isocenter.planning import Settings, Training
from isocenter.runtime import Model, TorchNetwork, build_module, read_json
from isocenter.training.begin import begin_from
from isocenter.training.checkpoint import STATE_SCHEMA, read_checkpoint, write_checkpoint
from isocenter.training.interruption import held_back
from isocenter.training.loader import Batch, Loader
from isocenter.training.logs import opened_logs
from isocenter.training.objective import batch_loss, bit_by_bit
from isocenter.training.optimisers import average, make_optimiser
from isocenter.training.probe import PROBE_CASES, PROBE_SHARE, Budget, budget, step_seconds
from isocenter.training.schedule import Pace, decay, rate, replan
from isocenter.training.state import Clock, Moment, Outcome, State
from isocenter.training.store import Prepared
from isocenter.training.validation import validate
from isocenter.transforms import generator

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("isocenter")
# Seconds between checkpoints from which a killed run goes on.
CHECKPOINT_SECONDS = 60.0
# Sets the draws of a step apart from those of a case.
STEP_DRAW = 2**30
# Batches in a row whose loss is no number: one may be an odd batch, so many are a training that has failed.
MOST_LOST = 10
# Is told steps, validations and the reason whenever they were decided, by a probe or anew on the way.
Decided = Callable[[int, int, str], None]
# Says by which second training must end, when it is shown what the model has become.
Recount = Callable[[Model], float]
# When that is asked: by then the model predicts much as it will in the end.
HALF_WAY = 0.5
# A training by minutes looks at the clock at least so often, evenly over its progress.
LOOKS_AT_THE_CLOCK = 10


def train(
    settings: Settings,
    train_cases: Sequence[Prepared],
    val_cases: Sequence[Prepared],
    out: Path,
    *,
    clock: Clock,
    record: Mapping[str, Any],
    start: Path | None = None,
    decided: Decided = lambda steps, validations, because: None,
    recount: Recount | None = None,
    watch: Callable[[Moment], None] = lambda moment: None,
) -> Outcome:
    """Train by these settings and leave `log.csv`, `tensorboard/` and `checkpoints/` in `out`.

    Where `out` holds a checkpoint already, training goes on from it as if it had not been stopped.

    clock:   with a deadline a probe decides the steps, and they are planned anew where the machine's load changes
    record:  goes into the model: data hash, plan, versions
    start:   weights (safetensors) to begin from, as far as names and shapes agree
    decided: is told the number of steps, that of validations and the reason
    recount: is asked half-way for the deadline, because trained weights are scored faster than fresh ones
    Ctrl-C ends with KeyboardInterrupt after the step at hand, whose state is kept.
    """
    chosen = settings.training
    fabric = _fabric(chosen)
    torch.manual_seed(chosen.seed)
    module = build_module(settings.task, settings.architecture)
    last, best = out / "checkpoints" / "last", out / "checkpoints" / "best"
    resume = last.is_dir()
    began_from = "" if resume else begin_from(module, settings.network, start)
    averaged = copy.deepcopy(module).requires_grad_(False).to(fabric.device)
    module, optimiser = fabric.setup(module, make_optimiser(module, chosen))
    balanced = chosen.sampling == "balanced"
    loader = Loader(train_cases, chosen.patch, chosen.batch, chosen.foreground, chosen.seed, balanced)
    model = Model(
        settings.task,
        settings.preprocessing,
        settings.inference,
        settings.architecture,
        TorchNetwork(averaged, str(fabric.device)),
        record,
    )

    def loss_of(batch: Batch) -> Tensor:
        with bit_by_bit(settings):
            return batch_loss(module, batch, settings, fabric.device)

    def keep(state: State) -> None:
        """All from which the training goes on."""
        latest = replace(model, record={**model.record, "step": state.step})
        kept: dict[str, Any] = {"module": module.module, "optimiser": optimiser, "state": state.record(clock)}
        write_checkpoint(last, latest, averaged.state_dict(), **kept)

    if resume:
        state = State.of(read_checkpoint(last, module.module, averaged, optimiser), str(last))
        if state.speed is not None and state.pace.steps != chosen.steps:  # planned anew just before a kill
            decided(state.pace.steps, state.validations, "so many were planned at the last checkpoint")
    elif chosen.steps is not None:
        state = State(0, Pace(chosen.steps), chosen.validations, began_from=began_from)
    else:
        times = step_seconds(module, loader, loss_of, fabric, PROBE_SHARE * clock.left)
        found = _budget(times, model, val_cases, fabric, chosen, clock)
        decided(found.steps, found.validations, found.because)
        state = State(0, Pace(found.steps), found.validations, speed=found.speed, began_from=began_from)
    if state.began_from:
        model = replace(model, record={**record, "began_from": state.began_from})
    if not resume and (began_from or state.speed is not None):
        keep(state)  # a run killed before its first checkpoint goes on from these weights, with these steps

    out.mkdir(parents=True, exist_ok=True)
    saved, waited, lost = clock.seconds, 0.0, 0
    with (
        opened_logs(out, state.step) as logs,
        held_back() as stopping,
        closing(loader.batches(state.step)) as batches,
    ):
        module.train()
        began = mark = spell = time.monotonic()
        spell_step = state.step
        while not state.is_over:
            step, pace = state.step, state.pace
            batch = next(batches)
            waited += time.monotonic() - mark
            # Dropout draws from the one generator that torch has: set anew, a resumed run draws the same.
            torch.manual_seed(int(generator(chosen.seed, 0, step, STEP_DRAW).integers(2**63)))
            now = rate(pace.progress(step), pace.stride, chosen)
            for group in optimiser.param_groups:
                group["lr"] = now
            loss = loss_of(batch)
            optimiser.zero_grad()
            if math.isfinite(lowered := float(loss.detach())):
                lost = 0
                with bit_by_bit(settings):
                    fabric.backward(loss)
                torch.nn.utils.clip_grad_norm_(module.parameters(), chosen.clip)
                optimiser.step()
                average(averaged, module.module, decay(step, pace.stride, chosen))
            elif (lost := lost + 1) == MOST_LOST:
                raise _diverged(step, out)
            state, score = replace(state, step=step + 1), None

            if pace.is_due(state.step, state.validations) and len(val_cases):
                mark = time.monotonic()
                score = validate(model, averaged, val_cases, fabric)
                if score >= state.best:
                    picked = replace(model, record={**model.record, "step": state.step, "validation": score})
                    write_checkpoint(best, picked, averaged.state_dict())
                state = _judged(state, score, chosen)
                looked = time.monotonic() - mark
                spell += looked
                if state.speed is not None:
                    state = replace(state, speed=state.speed.after(validation=looked))
            state = replace(state, waiting=waited / max(1e-9, time.monotonic() - began))
            moment = Moment(state.step, pace.steps, clock.seconds, lowered, now, score, state.waiting)
            for one in logs:
                one.add(moment)
            watch(moment)
            due = pace.is_due(state.step, state.validations) or clock.seconds - saved > CHECKPOINT_SECONDS
            due = due or (state.speed is not None and pace.is_due(state.step, LOOKS_AT_THE_CLOCK))
            if due and state.speed is not None and clock.deadline is not None and not state.is_over:
                measured = (time.monotonic() - spell) / (state.step - spell_step)
                state = replace(state, speed=state.speed.after(step=measured))
                if recount is not None and pace.progress(state.step) >= HALF_WAY:
                    averaged.eval()
                    clock, recount = replace(clock, deadline=recount(model)), None
                state = _replanned(state, clock, decided)
                spell, spell_step = time.monotonic(), state.step
            if due or state.is_over or stopping():
                keep(state)
                saved = clock.seconds
            if stopping():
                raise KeyboardInterrupt
            mark = time.monotonic()
    return outcome_of(out, chosen, state)


def finished(out: Path, chosen: Training) -> Outcome | None:
    """What a training that is over came to; None where it is not."""
    last = out / "checkpoints" / "last"
    if not last.is_dir():
        return None
    state = State.of(read_json(last / "state.json", STATE_SCHEMA), str(last))
    return outcome_of(out, chosen, state) if state.is_over else None


def outcome_of(out: Path, chosen: Training, state: State) -> Outcome:
    """The best checkpoint, or where nothing was selected the last."""
    last, best = out / "checkpoints" / "last", out / "checkpoints" / "best"
    if best.is_dir():
        because = f"best {chosen.selection} of the validation cases: {state.best:.4f}"
        return Outcome(best, because, state.step, state.stopped, state.waiting)
    return Outcome(last, "the last averaged weights: nothing was selected", state.step, state.stopped, state.waiting)


def _budget(
    times: list[float], model: Model, val_cases: Sequence[Prepared], fabric: Any, chosen: Training, clock: Clock
) -> Budget:
    """Steps and validations for the time left, by the speed of a few of each."""
    mark, looked_at = time.monotonic(), val_cases[:PROBE_CASES]
    if looked_at:
        assert isinstance(model.run, TorchNetwork)  # noqa: S101 - the recipe made it
        validate(model, model.run.module, looked_at, fabric)
    validation = (time.monotonic() - mark) / max(1, len(looked_at)) * len(val_cases)
    return budget(times, validation, clock.left, chosen.validations)


def _judged(state: State, score: float, chosen: Training) -> State:
    """After a validation: the best so far, and whether enough have brought nothing better."""
    better = score > state.best  # never of what is no number
    best, without = (score, 0) if better else (state.best, state.without + 1)
    stopped = state.stopped
    if chosen.early_stop is not None and without >= chosen.early_stop and state.step < state.pace.steps:
        share = 100 * state.pace.progress(state.step)
        stopped = (
            f"{without} validations brought nothing better than {best:.4f}, so training ended after step {state.step} "
            f"of {state.pace.steps}: the schedule is cut at {share:.0f} %, the rate has not fallen to zero"
        )
    return replace(state, best=best, without=without, stopped=stopped)


def _replanned(state: State, clock: Clock, decided: Decided) -> State:
    """The steps planned anew where the speed has changed so much that they would miss the end."""
    assert state.speed is not None and clock.deadline is not None  # noqa: S101 - seen to by the recipe
    time_left: dict[str, float] = {"left": clock.left, "deadline": clock.deadline}
    anew = replan(state.pace, state.step, state.validations, state.speed, **time_left)
    if anew is None:
        return state
    pace, because = anew
    decided(pace.steps, state.validations, because)
    return replace(state, pace=pace)


def _diverged(step: int, out: Path) -> IsocenterError:
    problem = f"the loss of {MOST_LOST} batches in a row, up to step {step + 1}, is no number"
    return IsocenterError(problem, str(out), "Train anew with a smaller --set training.learning_rate")


def _fabric(chosen: Training) -> Any:
    """Devices and precision through Lightning Fabric, whose own remarks the plan has already made."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    torch.set_num_threads(chosen.threads)
    if chosen.deterministic:  # without it cuBLAS may add in another order each time
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(chosen.deterministic, warn_only=False)
    kind, _, number = chosen.device.partition(":")
    fabric = lightning_fabric.Fabric(
        accelerator={"cuda": "cuda", "mps": "mps"}.get(kind, "cpu"),
        devices=[int(number)] if number else 1,
        precision="bf16-mixed" if chosen.precision == "bf16" else "32-true",
    )
    fabric.launch()
    return fabric
