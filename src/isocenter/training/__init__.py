"""The recipe that trains, what feeds it, and the state that it leaves."""

from isocenter.training.alone import Alone, covariates_alone
from isocenter.training.begin import fitting
from isocenter.training.checkpoint import STATE_SCHEMA, read_checkpoint, recover, with_task, write_checkpoint
from isocenter.training.hearing import heard
from isocenter.training.loader import Batch, Loader
from isocenter.training.probe import FEWER
from isocenter.training.ranks import ALONE, Ranks
from isocenter.training.recipe import Decided, Recount, finished, train
from isocenter.training.schedule import Pace, Speed, replan
from isocenter.training.state import Clock, Moment, Outcome, State, Work
from isocenter.training.store import Prepared, keep_marked, prepare_all
from isocenter.training.weighing import Answers, Weighed, equal, weighed

__all__ = [
    "ALONE",
    "FEWER",
    "STATE_SCHEMA",
    "Alone",
    "Answers",
    "Batch",
    "Clock",
    "Decided",
    "Loader",
    "Moment",
    "Outcome",
    "Pace",
    "Prepared",
    "Ranks",
    "Recount",
    "Speed",
    "State",
    "Weighed",
    "Work",
    "covariates_alone",
    "equal",
    "finished",
    "fitting",
    "heard",
    "keep_marked",
    "prepare_all",
    "read_checkpoint",
    "recover",
    "replan",
    "train",
    "weighed",
    "with_task",
    "write_checkpoint",
]
