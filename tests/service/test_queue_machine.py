"""The queue under whatever order of claims, deaths, expired leases, cancellations and results."""

from __future__ import annotations

import shutil
import tempfile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from sqlalchemy import select, update

from hilum.service.records import job_queue, tables
from hilum.service.records.job_queue import OPEN, Job, JobOutcome, Jobs, ResultFile
from hilum.service.records.record_database import DatabaseClock
from hilum.service.records.study_index import Arrival, StudyIndex
from service.databases import with_tables

STUDY = "a" * 32
ATTEMPTS = 3
WORKERS = st.sampled_from(["one", "two"])


class QueueMachine(RuleBasedStateMachine):
    """The table of jobs beside what a queue in memory would hold."""

    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp()
        self.database = with_tables(f"sqlite:///{self.folder}/node.sqlite")
        arrival = Arrival(STUDY, "s", "i", "1", "2", "3", "4", "5", "p", 1, "0", "peer", "store")
        StudyIndex(self.database).add([arrival])
        self.queue = Jobs(self.database, lease_s=3600, attempts=ATTEMPTS)
        self.states: dict[str, str] = {}
        self.tries: dict[str, int] = {}
        self.holders: dict[str, tuple[str, int]] = {}  # of running jobs: worker, fence
        self.results: dict[str, int] = {}  # accepted results since the job was last begun anew
        self.expired: set[str] = set()

    @rule(number=st.integers(0, 3), priority=st.integers(0, 3))
    def add(self, number: int, priority: int) -> None:
        columns = {"rule": f"r{number}", "model": "m", "model_hash": "h", "inputs": {}, "revision": 1}
        key = job_queue.job_key(STUDY, f"r{number}", "h", "i")
        with self.database.write() as connection:
            fresh = self.queue.add(connection, study=STUDY, inputs_hash="i", priority=priority, **columns)
        assert fresh is (key not in self.states)
        self.states.setdefault(key, "waiting")
        self.tries.setdefault(key, 0)

    @rule(target=claims, worker=WORKERS)
    def claim(self, worker: str) -> Job | None:
        free = {key for key, state in self.states.items() if state == "waiting" or key in self.expired}
        job = self.queue.claim(worker)
        spent = {key for key in free if self.tries[key] >= ATTEMPTS}
        for key in spent & self._aside():
            self.states[key] = "aside"
            self.holders.pop(key, None)
            self.expired.discard(key)
        if job is None:
            assert not free - spent
            return None
        assert job.job in free - spent
        self.states[job.job], self.holders[job.job] = "running", (worker, job.fence)
        self.tries[job.job] += 1
        self.expired.discard(job.job)
        self.results.setdefault(job.job, 0)
        return job

    def _aside(self) -> set[str]:
        with self.database.read() as connection:
            return set(connection.execute(select(tables.JOBS.c.job).where(tables.JOBS.c.state == "aside")).scalars())

    def _holds(self, job: Job) -> bool:
        return self.states[job.job] == "running" and self.holders[job.job][1] == job.fence

    @rule(job=claims)
    def finish(self, job: Job | None) -> None:
        if job is None:
            return
        done = self.queue.finish(job, JobOutcome("answered", answers=[ResultFile("a", "table", 1, "0")]))
        assert done is self._holds(job)
        if done:
            self.states[job.job] = "done"
            self.results[job.job] += 1
            self.expired.discard(job.job)

    @rule(job=claims, counts=st.booleans())
    def give_back(self, job: Job | None, counts: bool) -> None:
        if job is None:
            return
        done = self.queue.give_back(job, counts=counts)
        assert done is self._holds(job)
        if done:
            self.states[job.job] = "waiting"
            self.tries[job.job] -= not counts
            self.expired.discard(job.job)

    @rule(job=claims)
    def renew(self, job: Job | None) -> None:
        if job is None:
            return
        assert self.queue.renew(job) is self._holds(job)
        if self._holds(job):
            self.expired.discard(job.job)

    @rule(worker=WORKERS)
    def die(self, worker: str) -> None:
        """A worker is dead, and the one that follows says so."""
        held = {key for key, state in self.states.items() if state == "running" and self.holders[key][0] == worker}
        assert self.queue.release(worker) == len(held)
        for key in held:
            self.states[key] = "waiting"
            self.expired.discard(key)

    @rule()
    def time_passes(self) -> None:
        """All leases run out."""
        with self.database.write() as connection:
            connection.execute(
                update(tables.JOBS).where(tables.JOBS.c.state == "running").values(lease_until=DatabaseClock() - 1)
            )
        self.expired |= {key for key, state in self.states.items() if state == "running"}

    @rule(number=st.integers(0, 3))
    def cancel(self, number: int) -> None:
        key = job_queue.job_key(STUDY, f"r{number}", "h", "i")
        assert self.queue.cancel(key) is (self.states.get(key) in OPEN)
        if self.states.get(key) in OPEN:
            self.states[key] = "cancelled"
            self.expired.discard(key)

    @rule(number=st.integers(0, 3))
    def retry(self, number: int) -> None:
        key = job_queue.job_key(STUDY, f"r{number}", "h", "i")
        again = self.states.get(key) in ("done", "aside", "cancelled")
        assert self.queue.retry(key) is again
        if again:
            self.states[key], self.tries[key], self.results[key] = "waiting", 0, 0

    @invariant()
    def no_job_is_lost_or_answered_twice(self) -> None:
        with self.database.read() as connection:
            found = dict(connection.execute(select(tables.JOBS.c.job, tables.JOBS.c.state)).tuples().all())
            written = [row.job for row in connection.execute(select(tables.ANSWERS.c.job)).all()]
        assert found == self.states
        assert len(written) == len(set(written))
        assert all(count <= 1 for count in self.results.values())

    def teardown(self) -> None:
        self.database.close()
        shutil.rmtree(self.folder)


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
