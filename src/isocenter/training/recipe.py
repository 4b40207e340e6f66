"""How a network is trained, from top to bottom."""

from __future__ import annotations

import copy
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning_fabric

from isocenter.lazy import torch
from isocenter.planning import Settings, Training
from isocenter.runtime import Context, Model, TorchNetwork, build_module, kept_memory, read_json
from isocenter.training.checkpoint import STATE_SCHEMA, read_checkpoint, validation_of, write_checkpoint
from isocenter.training.checkpoint_choice import DRAWS, SURE, share_better
from isocenter.training.ctrl_c import held_back
from isocenter.training.data import BY_LOSS, Loader, Prepared
from isocenter.training.initial_weights import begin_from
from isocenter.training.length import PROBE_CASES, Pace, Probed, budget, fewer_samples, most_steps, probed, replan
from isocenter.training.logs import opened_logs
from isocenter.training.processes import ALONE, Ranks
from isocenter.training.state import Clock, Moment, Outcome, State, Work
from isocenter.training.step import (
    Average,
    Compute,
    Learner,
    Terms,
    bit_by_bit,
    exact_where_thin,
    laid_as_weights,
    make_optimiser,
    measure_batch_statistics,
    terms_of,
)
from isocenter.training.step.batch_loss import batch_loss
from isocenter.training.time_spent import Spans
from isocenter.training.validation import validate
from isocenter.transforms import images_of
from isocenter.values import Decision

log = logging.getLogger("isocenter")
# Seconds between checkpoints from which a killed run goes on.
CHECKPOINT_SECONDS = 60.0
# Is told what a probe decided, or the speed on the way: `training.steps`, `.validations` and `.compute`.
Decided = Callable[[Mapping[str, Decision]], None]
# Says by which second training must end, when it is shown what the model has become.
Recount = Callable[[Model], float]
# When that is asked: by then the model predicts much as it will in the end.
HALF_WAY = 0.5
# A training by minutes looks at the clock at least so often, evenly over its progress.
LOOKS_AT_THE_CLOCK = 10


@kept_memory()
def train(
    settings: Settings,
    train_cases: Sequence[Prepared],
    val_cases: Sequence[Prepared],
    out: Path,
    *,
    clock: Clock,
    record: Mapping[str, Any],
    start: Path | None = None,
    decided: Decided = lambda decisions: None,
    recount: Recount | None = None,
    shrinks: bool = False,
    watch: Callable[[Moment], None] = lambda moment: None,
) -> Outcome:
    """Train by these settings and leave `log.csv`, `tensorboard/` and `checkpoints/` in `out`.

    Where `out` holds a checkpoint already, training goes on from it as if it had not been stopped. Where torchrun has
    begun several processes, all call this alike; the first of them writes, validates and asks the others along.

    clock:   with a deadline a probe decides the steps, and they are planned anew where the machine's load changes
    record:  goes into the model: data hash, plan, versions
    start:   weights (safetensors) to begin from, as far as names and shapes agree
    decided: is told what was decided, with the reason
    recount: is asked half-way for the deadline, because trained weights are scored faster than fresh ones
    shrinks: whether a batch may become smaller where there is time for few steps
    Ctrl-C ends with KeyboardInterrupt after the step at hand, whose state is kept.
    """
    chosen, ranks = settings.training, Ranks.here()
    fabric = _fabric(chosen, ranks)
    chosen = replace(chosen, device=str(fabric.device))  # of several processes each has its own
    torch.manual_seed(chosen.seed)
    module = exact_where_thin(build_module(settings.task, settings.architecture))
    last, best = out / "checkpoints" / "last", out / "checkpoints" / "best"
    resume = ranks.agreed(last.is_dir())
    began_from = "" if resume else begin_from(module, settings.network, start)
    averaged = copy.deepcopy(module.to(fabric.device)).requires_grad_(False)
    terms = terms_of(settings.task, fabric.device)
    network = TorchNetwork(averaged, str(fabric.device))
    model = Model(settings.task, settings.preprocessing, settings.inference, settings.architecture, network, record)

    if resume:
        settings = _with_batch(settings, read_json(last / "state.json", STATE_SCHEMA).get("batch"))
    loader = _loader(settings, train_cases, ranks)

    def step_of_probe(way: Compute, step: int) -> None:
        with bit_by_bit(settings):
            given = (module, loader.of_step(step), settings, fabric.device, way)
            batch_loss(*given, terms=dict(terms.items())).backward()

    found: Probed | None = None
    samples: int | None = None
    most = most_steps(settings.training, len(train_cases))
    if not resume and chosen.steps is None:
        if shrinks:
            fewer = ranks.agreed(fewer_samples(module, step_of_probe, chosen, ranks.agreed(clock.left), ranks.count))
            if fewer is not None:
                samples = int(fewer.value)
                settings = _with_batch(settings, samples)
                loader = _loader(settings, train_cases, ranks)
                most = most_steps(settings.training, len(train_cases))
                decided({"training.batch": fewer})
        found = ranks.agreed(probed(module, step_of_probe, chosen, ranks.agreed(clock.left), most))
    way = Compute.of(chosen.compute or "", chosen) if found is None else found.compute
    optimiser = make_optimiser(module, chosen, terms)
    if resume:
        recorded = read_checkpoint(last, module, averaged, optimiser, terms)
        state = State.of(recorded, str(last))
        loader.costs.known = [(int(step), int(case), float(loss)) for step, case, loss in recorded.get("costs", ())]
        way = Compute.of(state.compute, chosen)
        if state.speed is not None and state.pace.steps != chosen.steps:  # planned anew just before a kill
            decided(_length(state, "so many were planned at the last checkpoint"))
    elif found is None:
        assert chosen.steps is not None  # noqa: S101 - else a probe has decided
        state = State(0, Pace(chosen.steps), chosen.validations, began_from=began_from, compute=way.name(chosen))
        decided({"training.compute": _unprobed(chosen, way)})
    else:
        way.applied(averaged)
        looked_at = val_cases if ranks.leads else ()
        state = ranks.agreed(_planned(found, model, averaged, looked_at, fabric.device, chosen, clock, most, decided))
        state = replace(state, began_from=began_from, batch=samples)
    way.applied(module)
    laid_as_weights(optimiser)
    replace(way, compiled=False).applied(averaged)
    if state.began_from:
        model = replace(model, record={**record, "began_from": state.began_from})
    average = Average(averaged, module)
    wrapped, optimiser = fabric.setup(module, optimiser)
    costs = loader.costs if chosen.sampling == BY_LOSS else None
    learner = Learner(wrapped, optimiser, average, settings, fabric, way, ranks, dict(terms.items()), costs)

    def keep(state: State) -> None:
        """All from which the training goes on."""
        if ranks.leads:
            latest = replace(model, record={**model.record, "step": state.step, **learnt(terms)})
            kept: dict[str, Any] = {"module": module, "optimiser": optimiser, "state": state.record(clock)}
            kept["state"]["costs"] = [] if costs is None else costs.known
            kept["terms"] = terms.state_dict()
            write_checkpoint(last, latest, averaged.state_dict(), **kept)

    if not resume and (began_from or state.speed is not None):
        keep(state)  # a run killed before its first checkpoint goes on from these weights, with these steps

    out.mkdir(parents=True, exist_ok=True)
    saved, spans = clock.seconds, Spans()
    with (
        opened_logs(out, state.step) if ranks.leads else nullcontext(()) as logs,
        held_back() as stopping,
        closing(loader.batches(state.step)) as batches,
    ):
        module.train()
        spell, spell_step = time.monotonic(), state.step
        while not state.is_over:
            step, pace = state.step, state.pace
            with spans.waiting():
                batch = next(batches)
            with spans.working():
                lowered, now = learner.learn(batch, step, pace)
            learner.refuse_lost(step + 1, str(out))
            state, score = replace(state, step=step + 1), None

            if pace.is_due(state.step, state.validations) and ranks.leads:
                mark = time.monotonic()
                measure_batch_statistics(averaged, loader.of_step, settings, fabric.device, way)
                if len(val_cases):
                    numbers = validate(model, averaged, val_cases, fabric.device, way)
                    score = settings.task.selection(numbers)
                    preferred = _preferred(state, score, settings, best, numbers)
                    if score >= state.best or preferred:
                        said = {"step": state.step, "validation": score, **learnt(terms)}
                        picked = replace(model, record={**model.record, **said})
                        write_checkpoint(best, picked, averaged.state_dict(), validation=numbers)
                    state = _judged(replace(state, preferred=preferred), score, chosen)
                looked = time.monotonic() - mark
                spell += looked
                if state.speed is not None:
                    state = replace(state, speed=state.speed.after(validation=looked))
            state = replace(state, waiting=spans.share_waiting, work=spans.of(state.work))
            reached = None if state.work is None else state.work.reached
            moment = Moment(state.step, pace.steps, clock.seconds, lowered, now, score, state.waiting, reached)
            for one in logs:
                one.add(moment)
            watch(moment)
            due = pace.is_due(state.step, state.validations) or clock.seconds - saved > CHECKPOINT_SECONDS
            due = due or (state.speed is not None and pace.is_due(state.step, LOOKS_AT_THE_CLOCK))
            if due and ranks.leads and state.speed is not None and clock.deadline is not None and not state.is_over:
                measured = (time.monotonic() - spell) / (state.step - spell_step)
                state = replace(state, speed=state.speed.after(step=measured))
                if recount is not None and pace.progress(state.step) >= HALF_WAY:
                    averaged.eval()
                    clock, recount = replace(clock, deadline=recount(model)), None
                state = _replanned(state, clock, most, decided)
                spell, spell_step = time.monotonic(), state.step
            state, stop = ranks.agreed((state, stopping()))
            if due or state.is_over or stop:
                keep(state)
                saved = clock.seconds
            if stop:
                raise KeyboardInterrupt
    if state.work is not None:
        log.info("a step took %.3f s: %s; %.0f %% waiting for data", state.work.step, state.work, 100 * state.waiting)
    outcome = outcome_of(out, chosen, state)
    log.info("weights: %s", outcome.because)
    return outcome


def learnt(terms: Terms) -> dict[str, Any]:
    """What the terms of the loss have come to, for a model's record; nothing where there are none."""
    found = {name: value.detach().cpu().tolist() for name, value in terms.items()}
    return {"terms": found} if found else {}


def finished(out: Path, chosen: Training) -> Outcome | None:
    """What a training that is over came to; None where it is not."""
    last = out / "checkpoints" / "last"
    if not last.is_dir():
        return None
    state = State.of(read_json(last / "state.json", STATE_SCHEMA), str(last))
    return outcome_of(out, chosen, state) if state.is_over else None


def outcome_of(out: Path, chosen: Training, state: State) -> Outcome:
    """The checkpoint that was chosen, or where nothing was the last."""
    last, best = out / "checkpoints" / "last", out / "checkpoints" / "best"
    found, because = last, "the last averaged weights, because nothing was selected"
    if best.is_dir():
        found, because = (
            best,
            state.preferred or f"those of the best {chosen.selection} of the validation cases: {state.best:.4f}",
        )
    return Outcome(found, because, state.step, state.stopped, state.waiting, state.work, state.compute)


def _loader(settings: Settings, cases: Sequence[Prepared], ranks: Ranks) -> Loader:
    chosen = settings.training
    return Loader(
        cases,
        chosen.patch,
        chosen.batch,
        chosen.foreground,
        chosen.seed,
        sampling=chosen.sampling,
        part=ranks.part(chosen.batch),
        pinned=chosen.device.startswith("cuda"),
        images=images_of(settings.preprocessing.channels),
        left_out=chosen.modality_dropout,
        told=bool(Context.of(settings.network.context).channels),
    )


def _with_batch(settings: Settings, batch: int | None) -> Settings:
    """So many samples a step; as planned where None."""
    return settings if batch is None else replace(settings, training=replace(settings.training, batch=batch))


def _unprobed(chosen: Training, way: Compute) -> Decision:
    because = "set beforehand" if chosen.compute else "the number of steps is set, so that no clock has a say"
    return Decision(way.name(chosen), because)


def _planned(
    found: Probed,
    model: Model,
    averaged: Any,
    val_cases: Sequence[Prepared],
    device: Any,
    chosen: Training,
    clock: Clock,
    most: int | None,
    decided: Decided,
) -> State:
    """Steps, at most so many, and validations for the time left, by the speed of a few of each."""
    mark, looked_at = time.monotonic(), val_cases[:PROBE_CASES]
    if looked_at:
        validate(model, averaged, looked_at, device, replace(found.compute, compiled=False))
    validation = (time.monotonic() - mark) / max(1, len(looked_at)) * len(val_cases)
    length = budget(found.times, validation, clock.left, chosen.validations, most)
    work = None
    if found.operations is not None and found.peak is not None:
        work = Work(found.operations, found.peak.operations, found.peak.what)
    decision = found.decision(chosen)
    state = State(0, Pace(length.steps), length.validations, speed=length.speed, compute=str(decision.value), work=work)
    decided({**_length(state, length.because), "training.compute": decision})
    return state


def _length(state: State, because: str) -> dict[str, Decision]:
    return {
        "training.steps": Decision(state.pace.steps, because),
        "training.validations": Decision(state.validations, because),
    }


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


def _preferred(state: State, score: float, settings: Settings, best: Path, numbers: Mapping[str, Any]) -> str:
    """Why the last weights are taken where earlier ones had a higher metric; nothing where they are not."""
    if state.step < state.pace.steps or not score < state.best or not (earlier := validation_of(best)):
        return ""
    share = share_better(settings.task, earlier, numbers, settings.training.seed)
    if share >= SURE:
        return ""
    metric, percent = settings.training.selection, f"{100 * share:.0f} %"
    return (
        f"the last ones, {metric} of the validation cases {score:.4f}: earlier ones had {state.best:.4f}, but were "
        f"better in only {percent} of {DRAWS} bootstrap draws of these cases, not in {100 * SURE:.0f} %"
    )


def _replanned(state: State, clock: Clock, most: int | None, decided: Decided) -> State:
    """The steps planned anew where the speed has changed so much that they would miss the end."""
    assert state.speed is not None and clock.deadline is not None  # noqa: S101 - seen to by the recipe
    time_left: dict[str, float] = {"left": clock.left, "deadline": clock.deadline}
    anew = replan(state.pace, state.step, state.validations, state.speed, most=most, **time_left)
    if anew is None:
        return state
    pace, because = anew
    state = replace(state, pace=pace)
    decided(_length(state, because))
    return state


def _fabric(chosen: Training, ranks: Ranks) -> Any:
    """Devices through Lightning Fabric, whose own remarks the plan has already made."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    # The processes of one machine share its cores.
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(max(1, chosen.threads // here))
    if chosen.deterministic:  # without it cuBLAS may add in another order each time
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(chosen.deterministic, warn_only=False)
    kind, _, number = chosen.device.partition(":")
    if kind == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as convolutions have it by default
        torch.backends.cudnn.benchmark = not chosen.deterministic
    several: dict[str, Any] = {"strategy": "ddp", "devices": here, "num_nodes": ranks.count // here}
    alone: dict[str, Any] = {"devices": [int(number)] if number else 1}
    fabric = lightning_fabric.Fabric(
        accelerator={"cuda": "cuda", "mps": "mps"}.get(kind, "cpu"), **(alone if ranks == ALONE else several)
    )
    fabric.launch()
    return fabric
