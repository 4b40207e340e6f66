"""Cases over the workers of a dask scheduler, on this machine or on many. The one file that knows dask.distributed.

Workers run with the same hilum and see the same files under the same paths. A worker that dies is no end: the
scheduler gives its cases to others. It blames a death on every case that the worker had, also on those that only
waited there, so that a case is blamed here for what it does on a worker of its own.
"""

from __future__ import annotations

import queue
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from types import ModuleType
from typing import Any, TypeVar
from uuid import uuid4

from hilum import errors, installation
from hilum.errors import HilumError, ResourceError, UsageError, WorkerLostError
from hilum.runtime.parallel import map_cases
from hilum.values import Case

R = TypeVar("R")

# s until a scheduler must have answered, and between two looks at whether it and its workers are still there.
ANSWER, LOOK = 10.0, 2.0
# For each thread of a worker one case is worked on and another one waits.
AHEAD = 2
# What a task is whose worker died before anybody had fetched its result: another one computes it again.
AGAIN = ("lost", "pending")


def spread_over(scheduler: str | None) -> AbstractContextManager[None]:
    """Read and prepare cases by the workers of the scheduler at this address; None: on this machine."""
    return map_cases.spread_over(None if scheduler is None else Cluster(scheduler))


@dataclass(frozen=True)
class Cluster:
    """A `Spread` over the workers of the scheduler at this address ("tcp://host:8786").

    patience: s without a single worker before the work is given up
    Raises UsageError for an address that is none, ResourceError where nobody answers, where workers run another
    version, or where scheduler or workers are lost on the way.
    """

    address: str
    patience: float = 60.0

    def __call__(self, function: Callable[[Case], R], cases: Sequence[Case]) -> Iterator[tuple[int, R | HilumError]]:
        distributed = _import_dask()
        with closing(self._client(distributed)) as client:
            self._refuse_strangers(client)
            yield from self._results(distributed, client, function, cases)

    def _results(
        self, distributed: ModuleType, client: Any, function: Callable[[Case], R], cases: Sequence[Case]
    ) -> Iterator[tuple[int, R | HilumError]]:
        waiting, running = deque(range(len(cases))), dict[Any, int]()
        lost = defaultdict[str, dict[int, WorkerLostError]](dict)
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        run, threads, last_seen, looked = uuid4().hex, 0, time.monotonic(), 0.0
        while waiting or running:
            if time.monotonic() - looked > LOOK:
                threads, looked = sum(self._workers(client).values()), time.monotonic()
                last_seen = looked if threads else last_seen
            if time.monotonic() - last_seen > self.patience:
                raise self._lost("no worker is left", len(waiting) + len(running))
            while waiting and len(running) < AHEAD * max(1, threads):
                number = waiting.popleft()
                task = client.submit(map_cases.case_outcome, function, cases[number], key=f"{run}-{number}", pure=False)
                running[task] = number
                task.add_done_callback(ended.put)
            with suppress(queue.Empty):
                task = ended.get(timeout=LOOK)
                if task.status in AGAIN:
                    task.add_done_callback(ended.put)
                    continue
                number = running.pop(task)
                outcome = self._outcome(distributed, task, cases[number], len(waiting) + len(running) + 1)
                if isinstance(outcome, WorkerLostError):
                    lost[task.exception().last_worker.address][number] = outcome
                else:
                    yield number, outcome
        for blamed in lost.values():
            for number in sorted(blamed, reverse=True):  # whoever came first was the likeliest to be worked on
                if len(blamed) > 1:
                    submit = partial(
                        client.submit, map_cases.case_outcome, function, cases[number], key=f"{run}-{number}-again"
                    )
                    yield number, self._by_itself(distributed, client, submit, cases[number], blamed[number])
                else:
                    yield number, blamed[number]

    def _by_itself(
        self, distributed: ModuleType, client: Any, submit: Callable[..., Any], case: Case, lost: WorkerLostError
    ) -> Any:
        """The outcome of a case on one worker that has no other; an error where that one dies too, or none is left."""
        ended, end = queue.SimpleQueue[Any](), time.monotonic() + self.patience
        while not (workers := self._workers(client)):
            if time.monotonic() > end:
                problem = f"{lost.problem}, or over another case there, and none is left to try it by itself"
                return WorkerLostError(problem, lost.where, "Start workers, and run the command again")
            time.sleep(LOOK)
        address = next(iter(workers))
        task = submit(pure=False, workers=[address], allow_other_workers=False)
        task.add_done_callback(ended.put)
        while address in self._workers(client):
            with suppress(queue.Empty):
                ended.get(timeout=LOOK)
                if task.status not in AGAIN:
                    return self._outcome(distributed, task, case, 1)
        task.cancel()
        return lost

    def _outcome(self, distributed: ModuleType, task: Any, case: Case, left: int) -> Any:
        match task.status:
            case "finished":
                return task.result()
            case "error":
                error = task.exception()
            case _:  # cancelled: nobody is left who knows the task
                raise self._lost("the scheduler is lost", left)
        if isinstance(error, distributed.KilledWorker):
            workers = errors.count_phrase(error.allowed_failures + 1, "worker")
            problem = f"{workers} died over it, the last one {error.last_worker.name}"
            return WorkerLostError(problem, case.id, "Look at the workers' logs: most often memory ran out")
        raise error

    def _workers(self, client: Any) -> Mapping[str, int]:
        """{address: threads}"""
        try:
            workers = client.scheduler_info(n_workers=-1)["workers"]
        except (OSError, TimeoutError) as error:
            raise self._lost(f"the scheduler is lost ({error})", 0) from error
        return {address: worker["nthreads"] for address, worker in workers.items()}

    def _client(self, distributed: ModuleType) -> Any:
        try:
            # Before a client is made: one without an address never closes, and says so at length.
            distributed.comm.get_address_host_port(self.address)
            return distributed.Client(self.address, timeout=ANSWER, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise ResourceError(
                "no scheduler answers", self.address, "Start one with `dask scheduler`, and workers with `dask worker`"
            ) from error
        except ValueError as error:
            raise UsageError(f"is not an address ({error})", self.address, "Write it as tcp://host:8786") from error

    def _refuse_strangers(self, client: Any) -> None:
        """Every worker has to be there with our version: another one gives other results."""
        try:
            client.wait_for_workers(1, timeout=self.patience)
        except TimeoutError as error:
            raise ResourceError("the scheduler has no worker", self.address, "Start one with `dask worker`") from error
        ours, theirs = _version(), client.run(_version, on_error="return")
        strange = sorted(name for name, found in theirs.items() if found != ours)
        if strange:
            workers = errors.count_phrase(len(strange), "worker")
            raise ResourceError(
                f"{workers} without hilum {ours}: {errors.list_phrase(strange)}",
                self.address,
                "Install the same hilum on every worker",
            )

    def _lost(self, what: str, left: int) -> ResourceError:
        undone = f"; {errors.count_phrase(left, 'case')} not done" if left else ""
        return ResourceError(f"{what}{undone}", self.address, "Look at the cluster's logs, and run the command again")


def _version() -> str:
    return version("hilum")


def _import_dask() -> ModuleType:
    try:
        import distributed
    except ImportError as error:
        remedy = installation.install_line("distributed")
        raise ResourceError("dask.distributed is not installed", "--scheduler", remedy) from error
    return distributed
