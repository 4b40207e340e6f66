"""One case after the other, while the next one is read and the last one is written.

No more than three cases are in memory: one that is read ahead, one that is computed, one that is written. What is
computed stays in the calling thread, where Ctrl-C arrives and where a device is at home.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from isocenter.at_work import at_work, brought_to_its_end
from isocenter.errors import IsocenterError, OutOfMemorySuppressed
from isocenter.runtime import outcome_of
from isocenter.values import Case

T = TypeVar("T")
R = TypeVar("R")
Take = Callable[[Case, R | IsocenterError], None]

log = logging.getLogger("isocenter")


def overlapped(
    cases: Sequence[Case], read: Callable[[Case], T], compute: Callable[[Case, T], Callable[[], R]], take: Take[R]
) -> None:
    """Every case read, computed and written; `take` gets the result of each in order.

    read:    in a thread of its own, one case ahead
    compute: gives what is left to do, which a third thread does: writing
    take:    is given the result, or the error of a case without one; what it raises ends the work
    Where memory runs out a case is tried once more when nothing is being written. Stopped by Ctrl-C, or by what
    `take` raises, what was computed is still written and told.
    """
    with ThreadPoolExecutor(1, "reading") as reader, ThreadPoolExecutor(1, "writing") as writer:
        written: deque[tuple[Case, Future[R]]] = deque()

        def tell() -> None:
            """Wait until nothing is being written."""
            while written:
                case, future = written[0]
                outcome = outcome_of(partial(_result, future), case)
                written.popleft()
                take(case, outcome)

        def attempted(loaded: Callable[[], T], case: Case) -> Callable[[], R]:
            with OutOfMemorySuppressed():
                return compute(case, loaded())
            log.warning("memory ran out at %s: tried again by itself", case.id)
            tell()
            return compute(case, read(case))

        def reading(case: Case) -> T:
            with at_work(case.id):
                return read(case)

        def writing(case: Case, left: Callable[[], R]) -> R:
            with at_work(case.id):
                return left()

        ahead = deque(reader.submit(reading, case) for case in cases[:1])
        try:
            for number, case in enumerate(cases, start=1):
                loaded = ahead.popleft()
                ahead.extend(reader.submit(reading, following) for following in cases[number : number + 1])
                left = outcome_of(partial(attempted, loaded.result), case)
                try:
                    tell()
                finally:
                    if isinstance(left, IsocenterError):
                        take(case, left)
                    else:
                        written.append((case, writer.submit(writing, case, left)))
        except KeyboardInterrupt:
            log.warning("stopping: what is done is being kept")
            raise
        finally:
            with brought_to_its_end():
                tell()


def _result(future: Future[R], case: Case) -> R:
    del case
    return future.result()
