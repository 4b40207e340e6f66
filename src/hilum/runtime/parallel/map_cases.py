"""One function over many cases: in threads, or in processes, where a crash of a library ends one case alone."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar, copy_context
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar, cast

from hilum import errors, work_state
from hilum.errors import MEMORY_ERRORS, HilumError, MemoryShortageError, WorkerLostError
from hilum.values import Case
from hilum.work_state import log

T = TypeVar("T")
R = TypeVar("R")

# A worker takes about two seconds to start: for fewer cases than this threads are faster.
FEWEST_FOR_WORKERS = 100

# Cases are worked on side by side: the libraries beneath must not take all cores for each of them.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


# What pickling raises for functions and values that another process cannot know.
PICKLING_ERRORS = (pickle.PickleError, AttributeError, RecursionError, TypeError, ValueError)


class UnknownError(Exception):
    """A function or an argument that another process cannot know: of a script, or of a prompt."""


class CaseWorker:
    """One process; its calls come one after the other."""

    def __init__(self) -> None:
        # As a script, and not as a module of this package: it imports what its calls need and no more.
        self.process = subprocess.Popen(  # noqa: S603 - our own file
            [sys.executable, "-P", str(Path(__file__).with_name("worker_main.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **ONE_THREAD},
        )
        with suppress(OSError):  # one that could not start is lost at its first call
            self._send(pickle.dumps(sys.path))

    def call(self, function: Callable[[T], R], argument: T, where: str) -> R:
        """The function's result, or what it raised.

        where: what is worked on, for the error
        Raises WorkerLostError where the process died, UnknownError for what cannot be sent to it.
        """
        try:
            asked = pickle.dumps((function, argument))
        except PICKLING_ERRORS as error:
            raise UnknownError(str(error)) from error
        try:
            self._send(len(asked).to_bytes(8, "little") + asked)
            kind, value = pickle.load(cast("IO[bytes]", self.process.stdout))  # noqa: S301 - by our own child
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise WorkerLostError(*_death(self.process, where)) from error
        match kind:
            case "unknown":
                raise UnknownError(value)
            case "raised":
                raise value
            case _:
                return cast("R", value)

    def end(self) -> None:
        """Kill it: between calls it has nothing to lose."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                cast("IO[bytes]", pipe).close()

    def _send(self, content: bytes) -> None:
        stdin: Any = self.process.stdin
        stdin.write(content)
        stdin.flush()


def _death(process: subprocess.Popen[bytes], where: str) -> tuple[str, str, str]:
    """The death of a process: problem, where, remedy."""
    code = process.wait()
    if code >= 0:
        return f"the process that read it ended with code {code}", where, "Look at its lines above"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    if name == "SIGKILL":
        remedy = "Close other programs or give fewer --threads; if it is this case alone, leave it out"
        return f"the process that read it was killed ({name}): most often memory ran out", where, remedy
    return f"the process that read it crashed ({name})", where, "The file may be damaged: get it again, or leave it out"


def current_spread(otherwise: Spread) -> Spread:
    """Where the command that is running has its cases read and prepared; on this machine if it did not say."""
    return _SPREAD.get() or otherwise


@contextmanager
def spread_over(spread: Spread | None) -> Iterator[None]:
    """Read and prepare cases there; None: on this machine."""
    before = _SPREAD.set(spread)
    try:
        yield
    finally:
        _SPREAD.reset(before)


def local_spread(threads: int, cases: Sequence[Case]) -> Spread:
    """Processes of this machine for many cases, threads for few.

    Cases that lie in one file share what was read of it, which only threads can.
    """
    if len(cases) < FEWEST_FOR_WORKERS or any(case.key for case in cases):
        return partial(map_in_threads, threads)
    return partial(map_in_workers, threads)


def map_in_workers(
    count: int, function: Callable[[Case], R], cases: Sequence[Case]
) -> Iterator[tuple[int, R | HilumError]]:
    """Compute in processes of their own: one that dies is replaced, and its case tried again when all else is done."""

    def by_itself(case: Case) -> R | HilumError:
        """The outcome of a case that is computed in a process of its own."""
        [(_, outcome)] = _in_workers(1, function, [case])
        return outcome

    yield from retry_alone(_in_workers(count, function, cases), by_itself, cases)


def _in_workers(
    count: int, function: Callable[[Case], R], cases: Sequence[Case]
) -> Generator[tuple[int, R | HilumError], None, None]:
    idle: queue.SimpleQueue[CaseWorker | None] = queue.SimpleQueue()
    started: list[CaseWorker] = []
    for _ in range(max(1, count)):
        idle.put(None)

    def call(case: Case) -> R | HilumError:
        """The outcome of a case, by an idle worker or a new one."""
        worker = idle.get()
        try:
            if worker is None:
                worker = CaseWorker()
                started.append(worker)
            return case_outcome(partial(_call, worker, function), case)
        finally:
            idle.put(worker if worker is not None and worker.process.poll() is None else None)

    try:
        with ThreadPoolExecutor(max(1, count)) as pool:
            try:
                yield from results_as_done(pool, call, cases)
            finally:  # before the threads are waited for: one that waits for its worker would go on
                _end(started)
    finally:
        _end(started)


def _end(workers: Sequence[CaseWorker]) -> None:
    for worker in workers:
        worker.end()


def _call(worker: CaseWorker, function: Callable[[Case], R], case: Case) -> R:
    try:
        return worker.call(function, case, case.id)
    except UnknownError:
        return function(case)


class Spread(Protocol):
    """Calls a function on every case: (number of the case, result or why there is none), as they are done."""

    def __call__(
        self, function: Callable[[Case], R], cases: Sequence[Case]
    ) -> Iterator[tuple[int, R | HilumError]]: ...


_SPREAD: ContextVar[Spread | None] = ContextVar("spread", default=None)


def map_in_threads(
    threads: int, function: Callable[[Case], R], cases: Sequence[Case]
) -> Iterator[tuple[int, R | HilumError]]:
    """Compute in threads of this process; a case for which memory ran out beside others is tried again by itself."""
    with ThreadPoolExecutor(max(1, threads)) as pool:
        first = results_as_done(pool, lambda case: case_outcome(function, case), cases)
        yield from retry_alone(first, lambda case: case_outcome(function, case), cases)


def retry_alone(
    first: Generator[tuple[int, R | HilumError], None, None],
    by_itself: Callable[[Case], R | HilumError],
    cases: Sequence[Case],
) -> Iterator[tuple[int, R | HilumError]]:
    """Try a case that failed among others once more by itself: most often they had taken the memory."""
    again: list[int] = []
    with closing(first):
        for number, outcome in first:
            if isinstance(outcome, (MemoryShortageError, WorkerLostError)):
                log.warning("%s: %s; it will be tried again by itself", outcome.where, outcome.problem)
                again.append(number)
            else:
                yield number, outcome
    for number in sorted(again):
        yield number, by_itself(cases[number])


def results_as_done(
    pool: ThreadPoolExecutor, call: Callable[[Case], R | HilumError], cases: Sequence[Case]
) -> Generator[tuple[int, R | HilumError], None, None]:
    """Results as they are done, none held afterwards; no further case starts once the reader has stopped."""

    def numbered(number: int) -> tuple[int, R | HilumError]:
        return number, call(cases[number])

    try:
        # Each in a copy of this context, in which stands how what was kept of files is used.
        for future in as_completed([pool.submit(copy_context().run, numbered, n) for n in range(len(cases))]):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def case_outcome(function: Callable[[Case], R], case: Case) -> R | HilumError:
    """The result, or why there is none; a defect of ours is raised."""
    try:
        with work_state.mark_case_at_work(case.id):
            return function(case)
    except HilumError as error:
        return error
    except MEMORY_ERRORS as error:
        if not errors.is_out_of_memory(error):
            raise
        return memory_shortage_error(case.id, error)


def memory_shortage_error(where: str, error: BaseException) -> MemoryShortageError:
    """The error of a case for which there was no memory."""
    reason = str(error).strip().partition("\n")[0]
    return MemoryShortageError(
        f"memory ran out{f' ({reason})' if reason else ''}",
        where,
        "Close other programs, give fewer --threads, or take a machine with more memory",
    )
