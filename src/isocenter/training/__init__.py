"""The recipe that trains, what feeds it, and the state that it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.training.checkpoint import (
        STATE_SCHEMA,
        VALIDATION,
        read_checkpoint,
        recover,
        validation_of,
        with_task,
        write_checkpoint,
    )
    from isocenter.training.checkpoint_choice import FEWEST_CASES, SURE, draws_for, share_better, sure_of_best
    from isocenter.training.data import Batch, Loader, Prepared, keep_marked, prepare_all
    from isocenter.training.initial_weights import take_over
    from isocenter.training.length import FEWER, FEWEST_STEPS, Pace, Speed, replan
    from isocenter.training.linear import Alone, covariates_alone
    from isocenter.training.members import Answers, Weighed, equal, heard, weighed
    from isocenter.training.processes import ALONE, Ranks
    from isocenter.training.recipe import Decided, Recount, finished, train
    from isocenter.training.search_study import (
        COMPLETE,
        IMPOSSIBLE,
        PRUNED,
        HopelessError,
        Study,
        Trial,
        Tried,
        refuse_without_optuna,
    )
    from isocenter.training.state import Clock, Moment, Outcome, State, Work

__all__ = [
    "ALONE",
    "COMPLETE",
    "FEWER",
    "FEWEST_CASES",
    "FEWEST_STEPS",
    "IMPOSSIBLE",
    "PRUNED",
    "STATE_SCHEMA",
    "SURE",
    "VALIDATION",
    "Alone",
    "Answers",
    "Batch",
    "Clock",
    "Decided",
    "HopelessError",
    "Loader",
    "Moment",
    "Outcome",
    "Pace",
    "Prepared",
    "Ranks",
    "Recount",
    "Speed",
    "State",
    "Study",
    "Trial",
    "Tried",
    "Weighed",
    "Work",
    "covariates_alone",
    "draws_for",
    "equal",
    "finished",
    "heard",
    "keep_marked",
    "prepare_all",
    "read_checkpoint",
    "recover",
    "refuse_without_optuna",
    "replan",
    "share_better",
    "sure_of_best",
    "take_over",
    "train",
    "validation_of",
    "weighed",
    "with_task",
    "write_checkpoint",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
