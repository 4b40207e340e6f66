from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

import deadly
from hilum.errors import FormatError, MemoryShortageError, WorkerLostError
from hilum.runtime.parallel import map_cases
from hilum.values import Case

CASES = [Case(f"case{n}", f"p{n}", {}, covariates={"n": n}) for n in range(8)]


def spread_over(folder: Path, fates: dict[str, str], how=map_cases.map_in_workers, count: int = 2) -> dict[str, object]:
    """What became of each case, where some meet a fate."""
    cases = [
        Case(f"case{n}", f"p{n}", {}, covariates={"n": n, "fate": fates.get(f"case{n}"), "folder": folder})
        for n in range(8)
    ]
    return {cases[number].id: outcome for number, outcome in how(count, deadly.squared, cases)}


@pytest.mark.parametrize("how", [map_cases.map_in_threads, map_cases.map_in_workers])
def test_every_case_is_done_once_and_numbered(how, tmp_path):
    assert spread_over(tmp_path, {}, how) == {f"case{n}": n * n for n in range(8)}
    assert len((tmp_path / "done").read_text().split()) == 8


@pytest.mark.parametrize("how", [map_cases.map_in_threads, map_cases.map_in_workers])
def test_a_case_that_fails_is_told_and_the_rest_goes_on(how, tmp_path):
    outcomes = spread_over(tmp_path, {"case3": "damaged", "case5": "memory"}, how)
    assert isinstance(outcomes["case3"], FormatError)
    assert isinstance(outcomes["case5"], MemoryShortageError)
    assert sum(isinstance(one, int) for one in outcomes.values()) == 6


@pytest.mark.parametrize(("fate", "message"), [("SIGKILL", "was killed (SIGKILL)"), ("SIGSEGV", "crashed (SIGSEGV)")])
def test_a_worker_that_dies_over_a_case_takes_that_case_alone_with_it(fate, message, tmp_path):
    outcomes = spread_over(tmp_path, {"case2": fate})
    lost = outcomes.pop("case2")
    assert isinstance(lost, WorkerLostError)
    assert (lost.where, message in lost.problem) == ("case2", True)
    assert outcomes == {f"case{n}": n * n for n in range(8) if n != 2}


def test_a_case_whose_worker_was_killed_once_is_done_by_itself(tmp_path, caplog):
    assert spread_over(tmp_path, {"case2": "once"}) == {f"case{n}": n * n for n in range(8)}
    assert "case2: the process that read it was killed (SIGKILL)" in caplog.text


@pytest.mark.parametrize("how", [map_cases.map_in_threads, map_cases.map_in_workers])
def test_a_case_for_which_memory_ran_out_beside_others_is_done_by_itself(how, tmp_path):
    assert spread_over(tmp_path, {"case2": "short"}, how) == {f"case{n}": n * n for n in range(8)}


def test_a_worker_killed_from_outside_is_replaced(tmp_path):
    """As the system does where memory runs out: kill -9 while a case is being worked on."""

    def kill() -> None:
        note = tmp_path / "case4.pid"
        while not (note.is_file() and note.read_text()):
            time.sleep(0.01)
        os.kill(int(note.read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    outcomes = spread_over(tmp_path, {"case4": "waits"})
    killer.join()
    assert outcomes == {f"case{n}": n * n for n in range(8)}


def test_a_defect_is_no_case_that_failed(tmp_path):
    with pytest.raises(ZeroDivisionError):
        spread_over(tmp_path, {"case1": "defect"})


def test_what_another_process_cannot_know_is_done_in_this_one():
    of_this_test = lambda case: case.covariates["n"] + 1  # noqa: E731
    assert dict(map_cases.map_in_workers(2, of_this_test, CASES)) == {n: n + 1 for n in range(8)}


def test_what_a_case_prints_does_not_stand_between_the_answers(tmp_path):
    assert spread_over(tmp_path, {"case1": "prints"}, count=1) == {f"case{n}": n * n for n in range(8)}


def test_no_worker_outlives_who_stops_listening(tmp_path):
    cases = [Case(f"case{n}", "p", {}, covariates={"n": n, "fate": None, "folder": tmp_path}) for n in range(8)]
    for _ in map_cases.map_in_workers(2, deadly.squared, cases):
        break
    pids = {int(line) for line in (tmp_path / "done").read_text().split()}
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_nothing_more_begins_once_nobody_listens(tmp_path):
    cases = [Case(f"case{n}", "p", {}, covariates={"n": n, "fate": "slow", "folder": tmp_path}) for n in range(100)]
    listened = map_cases.map_in_threads(2, deadly.squared, cases)
    next(listened)
    listened.close()
    assert len((tmp_path / "done").read_text().split()) < 10


def test_few_cases_and_cases_of_one_file_stay_in_this_process():
    many = [Case(f"case{n}", "p", {}) for n in range(200)]
    rows = [Case(f"case{n}", "p", {}, key=f"row{n}") for n in range(200)]
    assert map_cases.local_spread(2, many).func is map_cases.map_in_workers
    assert map_cases.local_spread(2, many[:20]).func is map_cases.map_in_threads
    assert map_cases.local_spread(2, rows).func is map_cases.map_in_threads


def test_a_worker_that_cannot_start_is_an_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    outcomes = dict(map_cases.map_in_workers(1, deadly.squared, CASES[:1]))
    assert isinstance(outcomes[0], WorkerLostError)
