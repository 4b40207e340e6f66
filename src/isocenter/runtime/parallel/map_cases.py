"""One function over many cases in threads: a case that fails yields its error, and the others continue."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from typing import Protocol, TypeVar

from isocenter.at_work import at_work
from isocenter.errors import MEMORY_ERRORS, IsocenterError, MemoryShortageError, WorkerLostError, is_out_of_memory
from isocenter.values import Case

R = TypeVar("R")

log = logging.getLogger("isocenter")


class Spread(Protocol):
    """Calls a function on every case: (number of the case, result or why there is none), as they are done."""

    def __call__(
        self, function: Callable[[Case], R], cases: Sequence[Case]
    ) -> Iterator[tuple[int, R | IsocenterError]]: ...


def in_threads(
    threads: int, function: Callable[[Case], R], cases: Sequence[Case]
) -> Iterator[tuple[int, R | IsocenterError]]:
    """Compute in threads of this process; a case for which memory ran out beside others is tried again by itself."""
    with ThreadPoolExecutor(max(1, threads)) as pool:
        first = as_done(pool, lambda case: outcome_of(function, case), cases)
        yield from once_more(first, lambda case: outcome_of(function, case), cases)


def once_more(
    first: Generator[tuple[int, R | IsocenterError], None, None],
    by_itself: Callable[[Case], R | IsocenterError],
    cases: Sequence[Case],
) -> Iterator[tuple[int, R | IsocenterError]]:
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


def as_done(
    pool: ThreadPoolExecutor, call: Callable[[Case], R | IsocenterError], cases: Sequence[Case]
) -> Generator[tuple[int, R | IsocenterError], None, None]:
    """Results as they are done, none held afterwards; no further case starts once the reader has stopped."""

    def numbered(number: int) -> tuple[int, R | IsocenterError]:
        return number, call(cases[number])

    try:
        for future in as_completed([pool.submit(numbered, number) for number in range(len(cases))]):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def outcome_of(function: Callable[[Case], R], case: Case) -> R | IsocenterError:
    """The result, or why there is none; a defect of ours is raised."""
    try:
        with at_work(case.id):
            return function(case)
    except IsocenterError as error:
        return error
    except MEMORY_ERRORS as error:
        if not is_out_of_memory(error):
            raise
        return memory_ran_out(case.id, error)


def memory_ran_out(where: str, error: BaseException) -> MemoryShortageError:
    """The error of a case for which there was no memory."""
    reason = str(error).strip().partition("\n")[0]
    return MemoryShortageError(
        f"memory ran out{f' ({reason})' if reason else ''}",
        where,
        "Close other programs, give fewer --threads, or take a machine with more memory",
    )
