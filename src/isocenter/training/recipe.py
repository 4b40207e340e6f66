"""The recipe that trains a network, from top to bottom."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isocenter.at_work import interrupt_deferred
from isocenter.errors import IsocenterError
from isocenter.evaluation import effective_rank, possible_rank
from isocenter.planning import Settings
from isocenter.runtime import kept_memory
from isocenter.training.checkpoint import Validation, best_checkpoint, judged, outcome_of, write_checkpoint
from isocenter.training.constrained import constrain
from isocenter.training.data.store import Prepared
from isocenter.training.logs import opened_logs
from isocenter.training.session import Session
from isocenter.training.session_length import Length
from isocenter.training.state import Moment, Outcome, Scores, Spans, State
from isocenter.training.step.compute import Compute
from isocenter.training.step.loss import FEATURES
from isocenter.training.step.optimisers import measure_batch_statistics

if TYPE_CHECKING:
    from torch import Tensor


log = logging.getLogger("isocenter")
# Seconds between checkpoints from which a killed run goes on.
CHECKPOINT_SECONDS = 60.0


@kept_memory()
def train(
    settings: Settings,
    train_cases: Sequence[Prepared],
    val_cases: Sequence[Prepared],
    out: Path,
    *,
    length: Length,
    record: Mapping[str, Any],
    start: Path | None = None,
    unlabelled: Sequence[Prepared] = (),
    watch: Callable[[Moment], None] = lambda moment: None,
) -> Outcome:
    """Train by these settings and leave `log.csv`, `tensorboard/` and `checkpoints/` in `out`.

    Where `out` holds a checkpoint already, training goes on from it as if it had not been stopped. Where torchrun has
    begun several processes, all call this alike; the first of them writes, validates and decides for all.

    length: how many steps there are, and how they are computed
    record: goes into the model: data hash, plan, versions
    start:  weights (safetensors) to start from, as far as names and shapes agree
    unlabelled: cases of which nothing but the image is seen
    watch:  takes every moment; what it raises ends the training
    Ctrl-C ends with KeyboardInterrupt after the step at hand, whose state is kept.
    """
    session = Session.opened(settings, train_cases, val_cases, out, record, start, unlabelled)
    state = first_state(session, length)
    learner = session.learner(state)
    if not session.is_resumed and (state.began_from or state.speed is not None):
        session.keep(state, length.clock)  # a run killed before its first checkpoint goes on from here

    out.mkdir(parents=True, exist_ok=True)
    collapse = Collapse(out)
    spans, saved = Spans(length.clock.now, since=length.clock.now()), length.clock.seconds
    with (
        opened_logs(out, state.step, watch, session.further_columns, writes=session.ranks.leads) as report,
        interrupt_deferred() as interrupted,  # the training ends between two steps: a whole state is left on disk
        closing(session.loader.batches(state.step)) as batches,
    ):
        while not state.is_over:
            with spans.waiting():
                batch = next(batches)
            with spans.working():
                learnt = learner.learn(batch, state.step, state.pace)
            state, scores = replace(state, step=state.step + 1), Scores()
            learner.refuse_lost(state.step, str(out))
            if state.is_validated and session.ranks.leads:
                state, scores = looked(session, state, learner.compute, collapse, spans)
            state = replace(state, waiting=spans.share_waiting, work=spans.of(state.work))
            report(Moment.of(state, length.clock.seconds, learnt, scores))
            due = state.is_validated or state.is_due(length.looks) or length.clock.seconds - saved > CHECKPOINT_SECONDS
            if due and session.ranks.leads and not state.is_over:
                length, state = length.adjusted(session, state, spans.step)
                spans.restart()
            if state.is_over and session.ranks.leads:
                constrain(session)
            state, stop = session.ranks.agreed((state, interrupted()))
            if state.is_over or ((due or stop) and not collapse.is_near):
                session.keep(state, length.clock)
                saved = length.clock.seconds
            if stop:
                raise KeyboardInterrupt
    if state.work is not None:
        log.info("a step took %.3f s: %s; %.0f %% waiting for data", state.work.step, state.work, 100 * state.waiting)
    outcome = outcome_of(out, settings, state)
    log.info("weights: %s", outcome.because)
    return outcome


def first_state(session: Session, length: Length) -> State:
    """The state that a checkpoint holds, or the one before the first step."""
    if session.is_resumed:
        state = session.restored()
        length.resumed(state, session.chosen)
        return state
    return replace(session.ranks.agreed(length.planned(session)), began_from=session.initialised)


def looked(session: Session, state: State, compute: Compute, collapse: Collapse, spans: Spans) -> tuple[State, Scores]:
    """Look at the validation cases, which takes time that counts for no step; as `validated` says."""
    with spans.looking():
        state, scores = validated(session, state, compute, collapse)
    return state.after(looked=spans.looked), scores


def validated(session: Session, state: State, compute: Compute, collapse: Collapse) -> tuple[State, Scores]:
    """Score the averaged weights on the validation cases, and keep them where they are to be preferred.

    Returns the state after it and the scores; without validation cases those of training cases, which choose no
    weights. IsocenterError after several looks at features that hardly differ.
    """
    device, settings = session.fabric.device, session.settings
    measure_batch_statistics(session.averaged, session.loader.of_step, settings, device, compute)
    if not (looked_at := session.val_cases or session.shown_cases):
        return state, Scores()
    numbers = session.validated(looked_at, compute, state.windows)
    rank = collapse.rank_of(numbers.pop(FEATURES), state.step) if FEATURES in numbers else None
    score = settings.task.selection(numbers)
    if not session.val_cases:
        return state, Scores(training=score, rank=rank)
    validation = Validation(score, numbers, [case.patient for case in session.val_cases])
    after = judged(state, validation, settings, session.out)
    if (score >= state.best or after.preferred) and not collapse.is_near:
        model = session.recorded(step=state.step, validation=score)
        write_checkpoint(best_checkpoint(session.out), model, session.averaged.state_dict(), validation=numbers)
    trained = session.validated(session.shown_cases, compute, state.windows)
    return after, Scores(score, settings.task.selection(trained), rank)


# Below this share of the possible rank features are nearly the same for every image; after so many looks in a row it is
# no accident.
LEAST_SHARE, LOOKS = 0.05, 3


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
        """The effective rank of the features of a look; IsocenterError after the last of several that are too low."""
        values = np.asarray(features, dtype=np.float64)
        rank, most = effective_rank(values), possible_rank(values)
        # Features without any number are all the same.
        self.low = self.low + 1 if not rank >= LEAST_SHARE * most else 0
        if self.low >= LOOKS:
            problem = (
                f"the features collapsed: at {LOOKS} looks in a row, up to step {step}, their effective rank was below "
                f"{100 * LEAST_SHARE:.0f} % of the possible {most}, at last {rank:.2f}. The checkpoints are of before"
            )
            remedy = "Train again with another --objective, a larger --set training.batch, or a smaller learning rate"
            raise IsocenterError(problem, str(self.out), remedy)
        return rank
