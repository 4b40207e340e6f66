"""A training as a job, killed at any point with its server: its state is right, and it resumes to the same bits."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from pathlib import Path

import pytest

import trained
from hilum.jobs import CommandJob, JobRequest, Workspace

POINTS = int(os.environ.get("HILUM_TEST_KILLS", "20"))
# s from the start of a job to its death: from before it can claim its turn to after the last step.
LAST_S = 14.0


def training(room: Workspace, data: Path, *words: str) -> JobRequest:
    settings = {**trained.FEW_STEPS, "network.size": trained.SMALL_UNET}
    flags = [
        f"--set={name}={value if isinstance(value, int) else json.dumps(value)}" for name, value in settings.items()
    ]
    whole = ["--labels", trained.LABELS, "--device", "cpu", "--threads", "1", "--deterministic", *flags]
    return JobRequest("train", ["train", "--json", *(words or [*whole, "--out", "run", str(data)])], out="run")


def wait(room: Workspace, job: CommandJob) -> CommandJob:
    until = time.monotonic() + 240
    while not (job := room.job(job.id)).is_over:
        assert time.monotonic() < until
        time.sleep(0.1)
    return job


def weights(folder: Path) -> dict[str, str]:
    files = sorted((folder / "run").rglob("checkpoints/best/*.safetensors"))
    return {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in files}


@pytest.mark.whole
@pytest.mark.timeout(3000)
def test_a_job_killed_at_any_point_has_its_state_and_resumes_to_the_same_bits(tmp_path):
    data = trained.blobs(tmp_path / "data", 8)
    whole = Workspace.open(tmp_path / "whole")
    assert wait(whole, whole.add(training(whole, data))).state == "done"
    expected = weights(whole.folder)
    assert expected
    for point in range(POINTS):
        room = Workspace.open(tmp_path / f"killed-{point}")
        job = room.add(training(room, data))
        time.sleep(LAST_S * (point + 0.5) / POINTS)
        if (alive := room.job(job.id)).state == "running":
            os.killpg(alive.process.process, signal.SIGKILL)
        ended = wait(room, job)
        [listed], problems = Workspace.open(room.folder).list_jobs()  # another server
        assert (listed.state, problems) == (ended.state, [])
        assert ended.state in ("failed", "done")
        has_run = (room.folder / "run" / "plan.yaml").is_file()
        if ended.state == "failed":
            again = training(room, data, "--resume", "run") if has_run else training(room, data)
            resumed = wait(room, room.add(again))
            assert resumed.state == "done", resumed.problem
        assert weights(room.folder) == expected, point
