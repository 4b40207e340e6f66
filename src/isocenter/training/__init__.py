"""The recipe that trains, what feeds it, and the state that it leaves."""

from isocenter.training.checkpoint import read_checkpoint, recover, write_checkpoint
from isocenter.training.loader import Batch, Loader
from isocenter.training.recipe import Clock, Moment, Outcome, fitting, train
from isocenter.training.store import Prepared, cache_folder, prepare_all

__all__ = [
    "Batch",
    "Clock",
    "Loader",
    "Moment",
    "Outcome",
    "Prepared",
    "cache_folder",
    "fitting",
    "prepare_all",
    "read_checkpoint",
    "recover",
    "train",
    "write_checkpoint",
]
