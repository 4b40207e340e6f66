"""Jobs: commands as processes of their own, whose state is right whoever was killed."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from hilum import work_state
from hilum.errors import UsageError
from hilum.files.storage import file_lock
from hilum.jobs import CommandJob, JobRequest, Workspace, job_process, job_record, workspace


@pytest.fixture
def room(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "work")


def sleeping(room: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of this workspace do nothing for a minute, in place of hilum."""
    program = room.folder / "program"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(workspace.sys, "executable", str(program))


def wait(room: Workspace, job: str, *, limit_s: float = 30.0) -> CommandJob:
    until = time.monotonic() + limit_s
    while not (found := room.job(job)).is_over:
        assert time.monotonic() < until, found
        time.sleep(0.05)
    return found


def test_a_command_runs_as_a_job_whose_record_words_and_result_lie_in_its_folder(room):
    done = wait(room, room.add(JobRequest("networks weights", ("networks", "weights", "--json"), door="mcp")).id)
    folder = room.job_folder(done.id)
    assert (done.id, done.state, done.code, done.problem) == ("0001-networks-weights", "done", 0, "")
    assert "rows" in job_record.read_result(folder)
    assert job_record.read_text_end(folder / "words.txt").strip()
    assert json.loads((folder / "job.json").read_text())["door"] == "mcp"


def test_a_job_that_fails_says_why_in_one_line_and_no_module_of_its_folder_runs(room):
    (room.folder / "types.py").write_text("raise SystemExit('of the workspace')")
    failed = wait(room, room.add(JobRequest("check", ("check", "nowhere", "--json"))).id)
    assert (failed.state, failed.code) == ("failed", 2)
    assert failed.problem.startswith("nowhere: ")


def test_long_jobs_wait_for_one_another_in_order_and_short_ones_do_not(room, monkeypatch):
    sleeping(room, monkeypatch)
    first, second, third = (room.add(JobRequest("train", ())) for _ in range(3))
    short = room.add(JobRequest("check", (), is_long=False))
    assert [first.state, second.state, third.state, short.state] == ["running", "waiting", "waiting", "running"]
    room.stop(third.id)
    room.stop(first.id)
    assert wait(room, first.id).state == "stopped"
    room.start_next()
    assert [room.job(one.id).state for one in (second, third)] == ["running", "stopped"]
    for one in (second, short):
        room.stop(one.id)
        wait(room, one.id)


def test_a_job_waits_for_another_that_writes_into_its_folder(room, monkeypatch):
    sleeping(room, monkeypatch)
    several = Workspace(room.folder, parallel=3)
    first, second, other = (several.add(JobRequest("train", (), out=out)) for out in ("run", "run", "run-2"))
    assert [first.state, second.state, other.state] == ["running", "waiting", "running"]
    several.stop(first.id)
    wait(several, first.id)
    several.start_next()
    assert several.job(second.id).state == "running"
    for one in (second, other):
        several.stop(one.id)
        wait(several, one.id)


def test_a_job_outlives_the_server_and_another_one_sees_it_and_stops_it(room, monkeypatch):
    sleeping(room, monkeypatch)
    job = room.add(JobRequest("train", ()))
    again = Workspace.open(room.folder)
    assert [one.state for one in again.list_jobs()[0]] == ["running"]
    again.stop(job.id)
    assert wait(again, job.id).state == "stopped"


@pytest.mark.parametrize(
    ("result", "state"), [("", "failed"), ('{"rows": []}', "done"), ('{"error": {}}', "failed"), ('{"ro', "failed")]
)
def test_a_killed_process_leaves_a_job_that_failed_or_one_whose_result_is_whole(room, monkeypatch, result, state):
    sleeping(room, monkeypatch)
    job = room.add(JobRequest("train", ()))
    (room.job_folder(job.id) / "result.json").write_text(result)
    os.kill(job.process.process, signal.SIGKILL)
    assert wait(room, job.id).state == state


def test_a_server_that_dies_before_it_notes_a_start_starts_the_job_once(room, monkeypatch, tmp_path):
    room.add(JobRequest("train", (), is_long=False))  # takes the number 1
    folder = room.jobs_folder / "0002-train"
    folder.mkdir()
    waiting = CommandJob("0002-train", "train", (), "", "", "", True, "", "waiting", job_record.now())
    job_record.write_job(folder, waiting)
    monkeypatch.setenv(work_state.JOB, str(folder))
    with job_process.run_as_job([0]):
        assert room.job(waiting.id).state == "running"
        monkeypatch.setenv(work_state.JOB, str(folder))
        monkeypatch.setattr(file_lock.Holder, "here", lambda: file_lock.Holder("elsewhere", 1, 0.0, ""))
        with pytest.raises(UsageError, match="is running"), job_process.run_as_job([0]):
            pass
    assert room.job(waiting.id).state == "done"
    monkeypatch.setenv(work_state.JOB, str(folder))
    with pytest.raises(UsageError, match="is done"), job_process.run_as_job([0]):
        pass


def test_a_job_of_another_version_is_named_and_the_others_are_listed(room):
    job = CommandJob("0001-train", "train", (), "", "", "", True, "", "stopped", job_record.now())
    (room.jobs_folder / job.id).mkdir()
    job_record.write_job(room.jobs_folder / job.id, job)
    other = room.jobs_folder / "0007-train"
    other.mkdir()
    (other / "job.json").write_text(json.dumps({"schema": "hilum.job", "version": 99}))
    jobs, [problem] = room.list_jobs()
    assert [one.id for one in jobs] == [job.id]
    assert str(problem).startswith("0007-train: was written by another version")


def test_a_workspace_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        Workspace.open(tmp_path / "file" / "work")


def test_a_job_whose_result_meets_a_full_disk_has_failed_and_says_so(room, monkeypatch):
    monkeypatch.setattr(Workspace, "start_next", lambda self: None)
    job = room.add(JobRequest("networks", ("--version",)))
    (room.job_folder(job.id) / "result.json").symlink_to("/dev/full")
    room._start(job)
    failed = wait(room, job.id)
    assert (failed.state, failed.code != 0) == ("failed", True)
    assert "No space left on device" in failed.problem


@pytest.mark.parametrize("name", ["", "..", "../jobs", "0001-train/..", "0099-train", "0001-train\n"])
def test_no_name_leads_out_of_the_jobs(room, name):
    with pytest.raises(UsageError, match="no such job"):
        room.job(name)


def test_progress_is_a_record_a_line_and_a_full_disk_costs_lines_alone(room, tmp_path):
    folder = room.jobs_folder / "0001-train"
    folder.mkdir()
    waiting = CommandJob("0001-train", "train", (), "", "", "", True, "", "waiting", job_record.now())
    job_record.write_job(folder, waiting)
    os.environ[work_state.JOB] = str(folder)
    with job_process.run_as_job([0]):
        for step in range(1, 101):
            validation = 0.5 if step == 50 else None
            work_state.report_progress("training", step, 100, 1.0, loss=float("nan"), validation=validation)
        records, end = job_record.read_progress(folder)
        assert [one["done"] for one in records] == [1, 50, 100]
        assert records[0]["loss"] is None
        assert job_record.read_progress(folder, end) == ([], end)
        (folder / "progress.jsonl").unlink()
        (folder / "progress.jsonl").symlink_to("/dev/full")
        work_state.report_progress("training", 100, 100, 0.0)
    assert room.job("0001-train").state == "done"


def test_a_process_whose_number_was_given_again_is_not_the_job(room):
    own = file_lock.Holder.here()
    job = CommandJob("0001-train", "train", (), "", "", "", True, "", "running", "", process=own)
    assert job.settled(room.folder).state == "running"
    stranger = job_process.replace(own, process=1)
    assert job_process.replace(job, process=stranger).settled(room.folder).state == "failed"
