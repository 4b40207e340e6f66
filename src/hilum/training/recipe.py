"""The recipe that trains a network, from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hilum import work_state
from hilum.errors import HilumError
from hilum.evaluation import feature_rank
from hilum.planning import PlanSettings
from hilum.runtime import hardware
from hilum.runtime.model_schema import ModelOrigin
from hilum.training import _constrained_layer, _logs, _prototype_layer, checkpoint_files
from hilum.training._training_session import TrainingSession
from hilum.training.checkpoint_files import Validation
from hilum.training.data.prepared_store import PreparedCase
from hilum.training.session_length import Length
from hilum.training.step import optimisers
from hilum.training.step.batch_loss import FEATURES
from hilum.training.step.computation import Compute
from hilum.training.training_state import Moment, Scores, Spans, State, TrainingOutcome
from hilum.work_state import log

if TYPE_CHECKING:
    from torch import Tensor


# Seconds between checkpoints from which a killed run goes on.
CHECKPOINT_SECONDS = 60.0


@hardware.keep_freed_memory()
def train_network(
    settings: PlanSettings,
    train_cases: Sequence[PreparedCase],
    val_cases: Sequence[PreparedCase],
    out: Path,
    *,
    length: Length,
    record: ModelOrigin,
    start: Path | None = None,
    unlabelled: Sequence[PreparedCase] = (),
    watch: Callable[[Moment], None] = lambda moment: None,
) -> TrainingOutcome:
    """Train by these settings and leave `log.csv`, `tensorboard/` and `checkpoints/` in `out`.

    Where `out` holds a checkpoint already, training goes on from it as if it had not been stopped. Where torchrun has
    begun several processes, all call this alike; the first of them writes, validates and decides for all.

    length: how many steps there are, after which it pauses, and how they are computed
    record: goes into the model: data hash, plan, versions
    start:  weights (safetensors) to start from, as far as names and shapes agree
    unlabelled: cases of which nothing but the image is seen
    watch:  takes every moment; what it raises ends the training
    Ctrl-C ends with KeyboardInterrupt after the step at hand, whose state is kept.
    """
    session = TrainingSession.from_settings(settings, train_cases, val_cases, out, record, start, unlabelled)
    state = first_state(session, length)
    learner = session.learner(state)
    if not session.is_resumed and (state.began_from or state.speed is not None or state.step == length.pause):
        session.keep(state, length.clock)  # a run killed before its first checkpoint goes on from here

    out.mkdir(parents=True, exist_ok=True)
    collapse = Collapse(out)
    spans = Spans(length.clock.now, since=length.clock.now())
    saved = length.clock.seconds
    with (
        _logs.open_logs(out, state.step, watch, session.further_columns, writes=session.ranks.leads) as report,
        work_state.defer_interrupt() as interrupted,  # it ends between two steps: a whole state is left on disk
        closing(session.loader.batches(state.step)) as batches,
    ):
        while not (state.is_over or state.step == length.pause):
            with spans.waiting():
                batch = next(batches)
            with spans.working():
                learnt = learner.learn(batch, state.step, state.pace)
            state = replace(state, step=state.step + 1)
            scores = Scores()
            learner.refuse_lost(state.step, str(out))
            if state.is_validated and session.ranks.leads:
                state, scores = validate_off_clock(session, state, learner.compute, collapse, spans)
            state = replace(state, waiting=spans.share_waiting, work=spans.timed_work(state.work))
            report(Moment.from_step(state, length.clock.seconds, learnt, scores))
            due = state.is_validated or state.is_due(length.looks) or length.clock.seconds - saved > CHECKPOINT_SECONDS
            if due and session.ranks.leads and not state.is_over:
                length, state = length.adjust(session, state, spans.step)
                spans.restart()
            if state.is_over and session.ranks.leads:
                _constrained_layer.constrain_last_layer(session)
            state, stop = session.ranks.agree((state, interrupted()))
            if state.is_over or state.step == length.pause or ((due or stop) and not collapse.is_near):
                session.keep(state, length.clock)
                saved = length.clock.seconds
            if stop:
                raise KeyboardInterrupt
    if state.work is not None:
        log.info("a step took %.3f s: %s; %.0f %% waiting for data", state.work.step, state.work, 100 * state.waiting)
    outcome = checkpoint_files.training_outcome(out, settings, state)
    if state.is_over:
        log.info("weights: %s", outcome.because)
    return outcome


def plan_length(
    settings: PlanSettings,
    train_cases: Sequence[PreparedCase],
    val_cases: Sequence[PreparedCase],
    out: Path,
    length: Length,
) -> State:
    """The state with which a training of this length would begin, after its probe; nothing is kept of it."""
    session = TrainingSession.from_settings(settings, train_cases, val_cases, out, {}, None)
    return length.plan_steps(session)


def score_averages(
    settings: PlanSettings,
    train_cases: Sequence[PreparedCase],
    val_cases: Sequence[PreparedCase],
    out: Path,
    weights: Mapping[str, Tensor],
) -> float:
    """The selecting metric of the validation cases by other averaged weights, as a look at them finds it."""
    session = TrainingSession.from_settings(settings, train_cases, val_cases, out, {}, None)
    state = session.restore()
    session.averaged.load_state_dict(weights)
    numbers = session.validate(val_cases, session.learner(state).compute, state.windows)
    return float(settings.task.selection(numbers))


def first_state(session: TrainingSession, length: Length) -> State:
    """The state that a checkpoint holds, or the one before the first step."""
    if session.is_resumed:
        state = session.restore()
        length.note_resumption(state, session.device_settings)
        return state
    _prototype_layer.set_prototypes(session)
    return replace(session.ranks.agree(length.plan_steps(session)), began_from=session.initialised)


def validate_off_clock(
    session: TrainingSession, state: State, compute: Compute, collapse: Collapse, spans: Spans
) -> tuple[State, Scores]:
    """Look at the validation cases, which takes time that counts for no step; as `validate_weights` says."""
    with spans.looking():
        state, scores = validate_weights(session, state, compute, collapse)
    return state.after(looked=spans.looked), scores


def validate_weights(
    session: TrainingSession, state: State, compute: Compute, collapse: Collapse
) -> tuple[State, Scores]:
    """Score the averaged weights on the validation cases, and keep them where they are to be preferred.

    Returns the state after it and the scores; without validation cases those of training cases, which choose no
    weights. HilumError after several looks at features that hardly differ.
    """
    device = session.fabric.device
    settings = session.settings
    optimisers.measure_batch_statistics(session.averaged, session.loader.of_step, settings, device, compute)
    _prototype_layer.set_prototypes(session)
    if not (looked_at := session.val_cases or session.shown_cases):
        return state, Scores()
    numbers = session.validate(looked_at, compute, state.windows)
    rank = collapse.rank_of(numbers.pop(FEATURES), state.step) if FEATURES in numbers else None
    score = settings.task.selection(numbers)
    if not session.val_cases:
        return state, Scores(training=score, rank=rank)
    validation = Validation(score, numbers, [case.patient for case in session.val_cases])
    after = checkpoint_files.judge_validation(state, validation, settings, session.out)
    if (score >= state.best or after.preferred) and not collapse.is_near:
        model = session.model_record(step=state.step, validation=score)
        checkpoint_files.write_checkpoint(
            checkpoint_files.best_checkpoint(session.out), model, session.averaged.state_dict(), validation=numbers
        )
    trained = session.validate(session.shown_cases, compute, state.windows)
    return after, Scores(score, settings.task.selection(trained), rank)


# Below this share of the possible rank features are nearly the same for every image; after so many looks in a row it is
# no accident.
LEAST_SHARE = 0.05
LOOKS = 3


@dataclass
class Collapse:
    """The number of looks in a row at features of a rank that is too low; out: the run's folder."""

    out: Path
    low: int = 0

    @property
    def is_near(self) -> bool:
        """Whether the last look found too low a rank, so that these weights are not kept."""
        return self.low > 0

    def rank_of(self, features: Tensor, step: int) -> float:
        """The effective rank of the features of a look; HilumError after the last of several that are too low."""
        values = np.asarray(features, dtype=np.float64)
        rank = feature_rank.effective_rank(values)
        most = feature_rank.possible_rank(values)
        # Features without any number are all the same.
        self.low = self.low + 1 if not rank >= LEAST_SHARE * most else 0
        if self.low >= LOOKS:
            problem = (
                f"the features collapsed: at {LOOKS} looks in a row, up to step {step}, their effective rank was below "
                f"{100 * LEAST_SHARE:.0f} % of the possible {most}, at last {rank:.2f}. The checkpoints are of before"
            )
            remedy = "Train again with another --objective, a larger --set training.batch, or a smaller learning rate"
            raise HilumError(problem, str(self.out), remedy)
        return rank
