"""Faults that really happen to a node's surroundings: its database dies, its disk is full, clocks differ."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

import hilum
from hilum.errors import UsageError
from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.service.records import tables
from hilum.values import Geometry, Image
from service.conftest import postgresql_server
from service.receiving import dcmtk
from service.test_node import QUICK, killed, model, rows, send, study, until  # noqa: F401 - a fixture

pytestmark = pytest.mark.whole


def test_a_database_that_is_killed_and_comes_back_has_lost_and_doubled_nothing(tmp_path, model):  # noqa: F811
    with postgresql_server() as server:
        sections = {**QUICK, "database": {"url": server.url}}
        with hilum.serve(model, folder=tmp_path / "node", **sections) as node:
            send(node, study(tmp_path / "before", 1))
            time.sleep(1)
            server.kill()
            send(node, study(tmp_path / "during", 2))  # what is received needs no database
            time.sleep(1)
            server.start()
            send(node, study(tmp_path / "after", 3))
            until(lambda: [row.state for row in rows(node, tables.STUDIES)] == ["done"] * 3, "a study is not done")
            assert [row.outcome for row in rows(node, tables.JOBS)] == ["answered"] * 3


def test_a_full_disk_is_said_to_the_sender_and_costs_nothing(tmp_path, model):  # noqa: F811
    if os.geteuid() != 0:
        pytest.skip("only root can make a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=True)
    try:
        with hilum.serve(model, folder=disk / "node", **QUICK) as node:
            send(node, study(tmp_path / "one", 1))
            until(lambda: [row.state for row in rows(node, tables.STUDIES)] == ["done"], "the first study is not done")
            filler = disk / "filler"
            with pytest.raises(OSError, match="No space"), filler.open("wb") as file:
                while True:
                    file.write(bytes(1 << 16))
            assert _refused(node, study(tmp_path / "two", 2))
            filler.unlink()
            send(node, study(tmp_path / "three", 3))
            send(node, study(tmp_path / "four", 2))
            until(lambda: [row.state for row in rows(node, tables.STUDIES)] == ["done"] * 3, "a study is not done")
            assert [row.outcome for row in rows(node, tables.JOBS)] == ["answered"] * 3
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_second_node_on_one_database_is_refused_and_the_first_goes_on(
    tmp_path,
    model,  # noqa: F811
    database,
    postgresql,
):
    sections = {**QUICK, "database": {"url": postgresql}}
    with hilum.serve(model, folder=tmp_path / "first", **sections) as node:
        send(node, study(tmp_path / "one", 1))
        with pytest.raises(UsageError, match="another node keeps this database"):
            hilum.serve(model, folder=tmp_path / "second", **sections)
        send(node, study(tmp_path / "two", 2))
        until(lambda: [row.state for row in rows(node, tables.STUDIES)] == ["done"] * 2, "a study is not done")
        assert [row.outcome for row in rows(node, tables.JOBS)] == ["answered"] * 2


@contextmanager
def second_machine(folder: Path, node: Path, model_file: Path, url: str) -> Iterator[None]:
    """Workers with settings of their own, on the folder and the database of a node, whose clock is an hour ahead."""
    folder.mkdir()
    (folder / "node.toml").write_text(
        f'''
        [node]
        folder = "{node}"
        uid_root = "1.2.3"
        [database]
        url = "{url}"
        [queue]
        lease_s = 60
        [models."{model_file.name}"]
        path = "{model_file}"
        '''
    )
    serve = [sys.executable, "-m", "hilum", "serve", "--config", "node.toml", "--role", "worker"]
    # libfaketime halts Python's waits, so that the clock is set within Python.
    (folder / "sitecustomize.py").write_text("import time\nreal = time.time\ntime.time = lambda: real() + 3600\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": folder, "env": environment}
    with subprocess.Popen(serve, **options) as running:
        line = running.stdout.readline()
        assert line == b"ready: worker\n", line + running.stderr.read()
        yield
        running.terminate()
        assert running.wait(30) == 0


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_workers_of_a_machine_whose_clock_is_an_hour_ahead_share_the_work_and_double_nothing(
    tmp_path,
    model,  # noqa: F811
    database,
    postgresql,
):
    rules = [{"name": "bright", "model": model.name, "send": ["away"]}]
    away = {"name": "away", "ae_title": "AWAY", "host": "127.0.0.1", "port": 1}
    # An hour takes a minute's lease away at once, a busy machine does not.
    sections = {**QUICK, "database": {"url": postgresql}, "rules": rules, "peers": [away], "queue": {"lease_s": 60}}
    with hilum.serve(model, folder=tmp_path / "node", **sections) as node:
        kept = (tmp_path / "node" / "settings.json").read_text()
        with second_machine(tmp_path / "second", tmp_path / "node", model, postgresql):
            count = 0
            while len({row.worker.rpartition("/")[2] for row in rows(node, tables.JOBS) if row.worker}) < 2:
                assert count < 40, "one of the machines does nothing"
                count += 1
                send(node, study(tmp_path / str(count), count))
            until(
                lambda: [row.state for row in rows(node, tables.JOBS)] == ["sending"] * count, "a study is not answered"
            )
        assert (tmp_path / "node" / "settings.json").read_text() == kept
        assert [(row.outcome, row.attempts) for row in rows(node, tables.JOBS)] == [("answered", 1)] * count
        # What is sent, and under which UID, does not depend on the machine.
        assert len(rows(node, tables.DELIVERIES)) == 2 * count  # the SEG and the report of each
        assert {row.sop_instance_uid[:5] for row in rows(node, tables.ANSWERS) if row.sop_instance_uid} == {"2.25."}
        assert httpx.get(f"{node.http}/health/ready").json()["ready"]


def _refused(node, paths: list[Path]) -> bool:
    port = str(node.settings.dicom.port)
    command = [dcmtk("storescu"), "-v", "-aec", "HILUM", "127.0.0.1", port, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    return "OutOfResources" in said or "congestion" in said.lower()


def test_a_job_that_kills_its_worker_again_and_again_goes_aside_with_its_reason_and_others_are_done(tmp_path, model):  # noqa: F811
    data = np.zeros((1, 400, 400, 60), np.int16)  # so large that its worker can be killed while it works
    data[0, 100:300, 100:300, 10:40] = 100
    image = Image(data, Geometry((400, 400, 60), np.diag([-1.0, -1, 2, 1])), modality="MR")
    series_writing.write_series(image, SeriesNames("p1", "deadly", "series"), tmp_path / "deadly")
    sections = {**QUICK, "queue": {"lease_s": 2, "attempts": 2}}
    with hilum.serve(model, folder=tmp_path / "node", **sections) as node:
        send(node, sorted((tmp_path / "deadly").iterdir()))
        for attempt in (1, 2):
            claimed = [("running", attempt)]
            until(
                lambda claimed=claimed: [(row.state, row.attempts) for row in rows(node, tables.JOBS)] == claimed,
                "nobody works on it",
            )
            killed(node, "worker")
        until(lambda: [row.state for row in rows(node, tables.STUDIES)] == ["aside"], "the study still waits")
        [job] = rows(node, tables.JOBS)
        assert (job.state, job.reason) == ("aside", "the worker died 2 times while it worked on this")
        send(node, study(tmp_path / "harmless", 2))
        until(
            lambda: sorted(row.state for row in rows(node, tables.JOBS)) == ["aside", "done"],
            "the next study is not done",
        )
