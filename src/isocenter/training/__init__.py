"""The recipe that trains, what feeds it, and the state that it leaves."""

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
from isocenter.training.data.loader import Batch, Loader
from isocenter.training.data.store import Prepared, keep_marked, prepare_all
from isocenter.training.initial_weights import take_over
from isocenter.training.length.probe import FEWER
from isocenter.training.length.schedule import FEWEST_STEPS, Pace, Speed, replan
from isocenter.training.linear.covariate_model import Alone, covariates_alone
from isocenter.training.members.outputs import heard
from isocenter.training.members.weights import Answers, Weighed, equal, weighed
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
