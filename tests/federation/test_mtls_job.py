"""Jobs of processes that NVFlare joins by mutual TLS: the bits of `local`, parties that are lost, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from safetensors.numpy import load_file

import hilum
import trained
from hilum.federation import parties
from hilum.runtime import record_files

pytestmark = [
    pytest.mark.whole,
    pytest.mark.skipif(find_spec("nvflare") is None, reason="nvflare is not installed (extra federated)"),
]
CHOSEN = {"training.steps": 4, "training.batch": 2, "network.size": trained.SMALL_RESNET, "federation.min_count": 2}
GIVEN = {"rounds": 2, "device": "cpu", "threads": 1, "deterministic": True, "assignments": CHOSEN}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sites")
    return {name: trained.pictures(root / name, 14, first=20 * n) for n, name in enumerate("ab")}


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory) -> dict[str, bytes]:
    """The weights of the job whose sites take turns in one process."""
    out = tmp_path_factory.mktemp("local") / "JOB"
    hilum.federate(data, out=out, **GIVEN)
    return weights(out)


def weights(job: Path) -> dict[str, bytes]:
    tensors = load_file(job / "checkpoints" / "last" / "weights.safetensors")
    return {name: one.tobytes() for name, one in tensors.items()}


def rows(private: Path) -> list[dict]:
    return record_files.read_json(private / "processes.json", "hilum.processes")["rows"]


def test_processes_joined_by_mutual_tls_give_the_bits_of_one_process(data, undisturbed, tmp_path):
    run = hilum.federate(data, out=tmp_path / "JOB", transport="mtls", **GIVEN)
    assert weights(tmp_path / "JOB") == undisturbed
    assert "over mutual TLS" in run.notes[0] and run.steps == 4
    started = rows(tmp_path / "JOB.sites")
    assert {row["party"] for row in started} == {"command", "server", "a", "b"}
    assert [row["port"] is not None for row in started].count(True) == 1
    assert not [row for row in started if row["party"] != "command" and psutil.pid_exists(row["pid"])]
    assert not (tmp_path / "JOB.sites" / ".kits").exists()
    assert_nothing_keeps_this_process_from_ending()


def assert_nothing_keeps_this_process_from_ending() -> None:
    """NVFlare's threads that hold a connection, for which Python would wait forever, have ended."""
    until = time.monotonic() + 20
    while left := [one.name for one in threading.enumerate() if one.name.startswith(("conn_mgr", "frame_mgr"))]:
        assert time.monotonic() < until, left
        time.sleep(0.2)


def kill_once(party: str, folder: Path) -> threading.Thread:
    """A thread that kills all processes of a party as soon as the first round is written."""

    def wait_and_kill() -> None:
        table = folder / "JOB" / "federation" / "rounds.csv"
        while not table.is_file() or len(table.read_text().splitlines()) < 3:
            time.sleep(0.02)
        for row in rows(folder / "JOB.sites"):
            if row["party"] == party:
                os.kill(row["pid"], signal.SIGKILL)

    thread = threading.Thread(target=wait_and_kill, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("party", ["b", "server"])
def test_a_party_that_is_killed_is_started_again_and_the_result_is_the_same_to_the_bit(
    party, data, undisturbed, tmp_path, caplog
):
    killer = kill_once(party, tmp_path)
    hilum.federate(data, out=tmp_path / "JOB", transport="mtls", restarts=1, **GIVEN)
    killer.join()
    assert weights(tmp_path / "JOB") == undisturbed
    assert "Started again" in caplog.text
    kinds = (tmp_path / "JOB" / "federation" / "exchanges.jsonl").read_text()
    assert '"kind": "resume"' in kinds  # in a second job of NVFlare
    assert_nothing_keeps_this_process_from_ending()


def test_an_interrupt_ends_every_process_and_the_job_can_be_resumed(data, undisturbed, tmp_path):
    flags = [f"--{name}={value}" for name, value in GIVEN.items() if name in ("rounds", "device", "threads")]
    settings = [word for name, value in CHOSEN.items() for word in ("--set", f"{name}={value}")]
    sites = [f"{name}={path}" for name, path in data.items()]
    line = ["federate", *sites, "--transport", "mtls", "--deterministic", *flags, *settings]
    command = subprocess.Popen([sys.executable, "-m", "hilum", *line, "--out", str(tmp_path / "JOB")])
    table = tmp_path / "JOB" / "federation" / "rounds.csv"
    while not table.is_file() and command.poll() is None:
        time.sleep(0.05)
    started = rows(tmp_path / "JOB.sites")
    command.send_signal(signal.SIGINT)
    assert command.wait(60) == 130
    assert len(started) > 4  # NVFlare's own, and those of its job
    assert not [row for row in started if psutil.pid_exists(row["pid"])]
    hilum.federate(resume=tmp_path / "JOB")
    assert weights(tmp_path / "JOB") == undisturbed


def test_a_server_and_sites_that_join_it_with_kits_give_the_same_bits(data, undisturbed, tmp_path):
    """Site a agrees beforehand, at site b somebody is shown the plan and types y; another federation's a stays out."""
    text = f"parties: [a, b]\nhost: localhost\nport: {parties.take_port('localhost', 0)}\n"
    (described := tmp_path / "FEDERATION.yaml").write_text(text)
    for name in ("KITS", "OTHER"):
        hilum.provision_federation(described, out=tmp_path / name)
    joined = {}
    for kit, private in (("KITS/a", "a"), ("KITS/b", "b"), ("OTHER/a", "stranger")):
        words = ["federation", "join", str(tmp_path / kit), "--data", str(data[kit[-1]])]
        words += ["--private", str(tmp_path / private), "--min-count", "2", *(["--yes"] * (private != "b"))]
        joined[private] = subprocess.Popen(
            [sys.executable, "-m", "hilum", *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    stranger = joined.pop("stranger")
    joined["b"].stdin.write("y\n")
    joined["b"].stdin.flush()
    try:
        hilum.serve_federation(tmp_path / "KITS" / "server", out=tmp_path / "JOB", **GIVEN)
        said = {name: one.communicate(timeout=90) for name, one in joined.items()}
    finally:
        for one in (stranger, *joined.values()):
            one.send_signal(signal.SIGINT)
        stranger.communicate(timeout=60)
    assert [one.returncode for one in joined.values()] == [0, 0], said
    assert "Take part by this plan?" in said["b"][1]
    assert weights(tmp_path / "JOB") == undisturbed
    assert (tmp_path / "a" / "split.csv").is_file() and not (tmp_path / "KITS" / "a" / "private").exists()
    assert not (tmp_path / "stranger").exists()
    assert_nothing_keeps_this_process_from_ending()
