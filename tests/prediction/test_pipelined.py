from __future__ import annotations

import signal
import threading
import time

import numpy as np
import pytest

from hilum.errors import FormatError, MemoryShortageError
from hilum.prediction import predictors
from hilum.values import Case

CASES = [Case(f"case{n}", f"case{n}", {}) for n in range(6)]


class Ledger:
    """What was done to each case, in which thread, and what was told of it."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.threads: dict[str, set[str]] = {"read": set(), "compute": set(), "write": set()}
        self.outcomes: list[tuple[str, object]] = []

    def note(self, what: str, case: Case) -> None:
        self.threads[what].add(threading.current_thread().name)
        self.events.append((what, case.id))

    def read(self, case: Case) -> str:
        self.note("read", case)
        return f"voxels of {case.id}"

    def compute(self, case: Case, voxels: str):
        self.note("compute", case)
        assert voxels == f"voxels of {case.id}"
        return lambda: self.write(case)

    def write(self, case: Case) -> str:
        self.note("write", case)
        return case.id

    def take(self, case: Case, outcome: object) -> None:
        self.outcomes.append((case.id, outcome))

    def run(self) -> Ledger:
        predictors.overlap_cases(CASES, self.read, self.compute, self.take)
        return self


def test_each_case_is_read_computed_and_written_once_and_told_in_order():
    ledger = Ledger().run()
    assert sorted(ledger.events) == sorted((what, case.id) for case in CASES for what in ("read", "compute", "write"))
    assert ledger.outcomes == [(case.id, case.id) for case in CASES]


def test_the_network_stays_in_the_thread_of_the_caller_and_files_in_threads_of_their_own():
    threads = Ledger().run().threads
    assert threads["compute"] == {threading.current_thread().name}
    assert all(len(names) == 1 for names in threads.values())
    assert len(set.union(*threads.values())) == 3


def test_the_next_case_is_read_and_the_last_one_written_while_one_is_computed():
    """Each of the three waits for the two others: without overlap none would ever go on."""
    meeting = threading.Barrier(3, timeout=20)
    ledger = Ledger()

    class Meeting(Ledger):
        def read(self, case):
            if case.id == "case2":
                meeting.wait()
            return super().read(case)

        def compute(self, case, voxels):
            if case.id == "case1":
                meeting.wait()
            return super().compute(case, voxels)

        def write(self, case):
            if case.id == "case0":
                meeting.wait()
            return super().write(case)

    ledger = Meeting().run()
    assert [case for case, _ in ledger.outcomes] == [case.id for case in CASES]


def test_no_more_than_three_cases_are_held_however_slow_the_disk():
    held, most = set(), []

    class Slow(Ledger):
        def read(self, case):
            held.add(case.id)
            most.append(len(held))
            return super().read(case)

        def write(self, case):
            time.sleep(0.02)
            held.discard(case.id)
            return super().write(case)

    Slow().run()
    assert max(most) == 3


@pytest.mark.parametrize("broken", ["read", "compute", "write"])
def test_a_case_that_cannot_be_done_is_told_with_its_error_and_the_rest_goes_on(broken):
    class Broken(Ledger):
        def note(self, what, case):
            super().note(what, case)
            if (what, case.id) == (broken, "case2"):
                raise FormatError("is damaged", "case2.nii.gz", "Get it again")

    outcomes = Broken().run().outcomes
    assert [case for case, _ in outcomes] == [case.id for case in CASES]
    assert {case: str(error) for case, error in outcomes if isinstance(error, Exception)} == {
        "case2": "case2.nii.gz: is damaged. Get it again."
    }


def test_a_defect_is_no_case_that_failed():
    class Defect(Ledger):
        def write(self, case):
            raise KeyError("no such thing")

    with pytest.raises(KeyError):
        Defect().run()


class Scarce(Ledger):
    """Memory lacks while something is being written, and for one case always."""

    def __init__(self, never: str = "") -> None:
        super().__init__()
        self.never, self.writing, self.tried = never, threading.Semaphore(1), []

    def compute(self, case, voxels):
        self.tried.append(case.id)
        if case.id == self.never:
            return np.empty(2**62, dtype=np.uint8)  # no machine has it
        if case.id == "case3" and self.tried.count("case3") == 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return super().compute(case, voxels)


def test_a_case_without_memory_is_tried_again_by_itself(caplog):
    ledger = Scarce().run()
    assert ledger.outcomes == [(case.id, case.id) for case in CASES]
    assert ledger.tried.count("case3") == 2
    # All that was computed before is written by then.
    before = ledger.events.index(("compute", "case3"))
    assert ("write", "case2") in ledger.events[:before]
    assert "memory ran out at case3: tried again by itself" in caplog.text


def test_a_case_for_which_there_is_no_memory_is_named_with_how_much_it_asked_for():
    outcomes = dict(Scarce(never="case4").run().outcomes)
    assert isinstance(outcomes["case4"], MemoryShortageError)
    assert outcomes["case4"].where == "case4"
    assert "4.00 EiB" in outcomes["case4"].problem
    assert outcomes["case5"] == "case5"


def test_ctrl_c_keeps_what_was_computed():
    class Pressed(Ledger):
        def compute(self, case, voxels):
            if case.id == "case3":
                raise KeyboardInterrupt
            return super().compute(case, voxels)

    ledger = Pressed()
    with pytest.raises(KeyboardInterrupt):
        ledger.run()
    assert ledger.outcomes == [(f"case{n}", f"case{n}") for n in range(3)]


def test_ctrl_c_pressed_once_more_while_the_last_case_is_written_keeps_that_one_too():
    class Pressed(Ledger):
        def compute(self, case, voxels):
            if case.id == "case3":
                raise KeyboardInterrupt
            return super().compute(case, voxels)

        def write(self, case):
            if case.id == "case2":
                time.sleep(0.05)  # until the others are told
                signal.raise_signal(signal.SIGINT)
            return super().write(case)

    ledger = Pressed()
    with pytest.raises(KeyboardInterrupt):
        ledger.run()
    assert ledger.outcomes == [(f"case{n}", f"case{n}") for n in range(3)]
