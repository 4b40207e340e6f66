"""A training that torchrun began in several processes: the first does all that `train` does, the others learn along.

torchrun --nproc_per_node 2 -m hilum train DATA --out RUN
"""

from __future__ import annotations

import functools
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import ParamSpec, TypeVar

from hilum.errors import WorkerLostError
from hilum.lazy import torch
from hilum.runs import training_jobs
from hilum.training.processes import SINGLE_PROCESS, Ranks

P = ParamSpec("P")
R = TypeVar("R")

# The others wait while the first checks, prepares, validates and reports: that a process has died is told by its
# connection, never by the clock.
PATIENCE = timedelta(days=30)
# How torch's process groups say that the other end is gone.
GONE = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|tcpstore|process ?group", re.IGNORECASE)


def in_all_processes(verb: Callable[P, R]) -> Callable[P, R]:
    """The verb done by the first of torchrun's processes, which the others help to train; all come to its result."""

    @functools.wraps(verb)
    def called(*arguments: P.args, **named: P.kwargs) -> R:
        with several_processes() as ranks:
            return ranks.agree(verb(*arguments, **named)) if ranks.leads else training_jobs.join_trainings(ranks)

    return called


@contextmanager
def several_processes() -> Iterator[Ranks]:
    """Rank among torchrun's processes, joined with the others until the end; a single one where it started none.

    Raises WorkerLostError where another of them ends before its time.
    """
    if not begun_by_torchrun() or torch.distributed.is_initialized():
        yield SINGLE_PROCESS if not begun_by_torchrun() else Ranks.here()
        return
    # gloo for what is said, nccl for what GPUs send each other.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend, timeout=PATIENCE)
    ranks = Ranks.here()
    try:
        with _ending_once():
            yield ranks
    except RuntimeError as error:
        if not GONE.search(str(error)):
            raise
        raise _lost() from error
    finally:
        torch.distributed.destroy_process_group()


def begun_by_torchrun() -> bool:
    """Whether this is one of several processes; without a look at torch."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def _ending_once() -> Iterator[None]:
    """torchrun ends all processes where one has died: that is said once, and nothing cuts the line short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ended(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _lost()

    signal.signal(signal.SIGTERM, ended)
    afterwards: signal.Handlers = signal.SIG_IGN  # nothing cuts an error's line short
    try:
        yield
        afterwards = signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, afterwards)


def _lost() -> WorkerLostError:
    problem = f"another of the {os.environ['WORLD_SIZE']} processes of this training has ended before its time"
    remedy = "What it said stands above; begin the same processes again with `train --resume RUN`"
    return WorkerLostError(problem, "torchrun", remedy)
