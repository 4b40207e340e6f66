"""Faults that really happen to a node's surroundings: its database dies, its disk is full."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

import isocenter
from isocenter.service.records.tables import jobs, studies
from service.conftest import postgresql_server
from service.test_node import QUICK, model, rows, send, study, until  # noqa: F401 - a fixture

pytestmark = pytest.mark.whole


def test_a_database_that_is_killed_and_comes_back_has_lost_and_doubled_nothing(tmp_path, model):  # noqa: F811
    with postgresql_server() as server:
        sections = {**QUICK, "database": {"url": server.url}}
        with isocenter.serve(model, folder=tmp_path / "node", **sections) as node:
            send(node, study(tmp_path / "before", 1))
            time.sleep(1)
            server.kill()
            send(node, study(tmp_path / "during", 2))  # what is received needs no database
            time.sleep(1)
            server.start()
            send(node, study(tmp_path / "after", 3))
            until(lambda: [row.state for row in rows(node, studies)] == ["done"] * 3, "a study is not done")
            assert [row.outcome for row in rows(node, jobs)] == ["result"] * 3


def test_a_full_disk_is_said_to_the_sender_and_costs_nothing(tmp_path, model):  # noqa: F811
    if os.geteuid() != 0:
        pytest.skip("only root can make a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=True)
    try:
        with isocenter.serve(model, folder=disk / "node", **QUICK) as node:
            send(node, study(tmp_path / "one", 1))
            until(lambda: [row.state for row in rows(node, studies)] == ["done"], "the first study is not done")
            filler = disk / "filler"
            with pytest.raises(OSError, match="No space"), filler.open("wb") as file:
                while True:
                    file.write(bytes(1 << 16))
            assert _refused(node, study(tmp_path / "two", 2))
            filler.unlink()
            send(node, study(tmp_path / "three", 3))
            send(node, study(tmp_path / "four", 2))
            until(lambda: [row.state for row in rows(node, studies)] == ["done"] * 3, "a study is not done")
            assert [row.outcome for row in rows(node, jobs)] == ["result"] * 3
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def _refused(node, paths: list[Path]) -> bool:
    port = str(node.settings.dicom.port)
    command = ["storescu", "-v", "-aec", "ISOCENTER", "127.0.0.1", port, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    return "OutOfResources" in said or "congestion" in said.lower()
