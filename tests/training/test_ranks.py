"""Two real processes on this machine, as torchrun begins them, beside one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

import forked
import trained
from hilum.errors import PlanError, ResourceError
from hilum.runs import distributed
from hilum.training import _training_session
from hilum.training.processes import SINGLE_PROCESS, Ranks
from ports import free_port

STEPS = 24
LONG = {"training.steps": STEPS, "training.validations": 2, "training.batch": 4, "training.precision": "float32"}
# Of the same machine: what a process waits for is there within moments, or never.
SECONDS = 300


def words(data: Path, out: Path) -> list[str]:
    """The command line of one of two processes, each with one thread."""
    settings = [f"--set={name}={value}" for name, value in {**LONG, "network.size": trained.SMALL_UNET}.items()]
    given = ["train", str(data), "--out", str(out), "--labels", trained.LABELS]
    return [*given, "--device", "cpu", "--threads", "2", *settings]


# Two processes, as torchrun tells them who they are; it starts each with an import of torch that takes ten seconds.
PAIR = """
import os, sys
children = []
for rank in range(2):
    if child := os.fork():
        children.append(child)
    else:
        os.environ.update(RANK=str(rank), **{{name: str(rank) for name in {own!r}}})
        exec({program!r}, {{"__name__": "__main__"}})
        sys.exit()
sys.exit(max(abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) for child in children))
"""


def pair(program: str, monkeypatch: pytest.MonkeyPatch, *own: str, **known: str) -> subprocess.CompletedProcess[str]:
    """The program in two processes; own: names of the environment that hold each one's number, beside its rank."""
    joined = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "TORCHELASTIC_RUN_ID": "one"}
    for name, value in {**joined, "WORLD_SIZE": "2", **known}.items():
        monkeypatch.setenv(name, value)
    return forked.run("-c", PAIR.format(own=own, program=program))


# What one process of several machines does before it trains: it joins the others.
JOINED = """
from types import SimpleNamespace
import torch
from hilum.training import Ranks
from hilum.training import _training_session
torch.distributed.init_process_group("gloo")
fabric = _training_session.make_fabric(SimpleNamespace(threads=1, deterministic=False, device="cpu"), Ranks.here())
print(f"{fabric.global_rank} of {fabric.world_size}\\n", end="", flush=True)
"""
COMMAND = """
import sys
from hilum.cli import main
sys.argv = ["hilum", *{words!r}]
main()
"""
# The second process dies midway, as by a lack of memory.
DYING = """
import os, signal, threading, time
from pathlib import Path
def die(run):
    while not (run / "checkpoints/last").is_dir() or len((run / "log.csv").read_text().splitlines()) < 14:
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)
if os.environ["RANK"] == "1":
    threading.Thread(target=die, args=[Path({run!r})], daemon=True).start()
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path, Path]:
    """Data, a run of one process on them, and one of two that was interrupted by the death of one and resumed."""
    root = tmp_path_factory.mktemp("ranks")
    with pytest.MonkeyPatch.context() as patch:
        data = trained.blobs(root / "data")
        trained.segmenting(data, root / "one", assignments=LONG)
        program = DYING.format(run=str(root / "two")) + COMMAND.format(words=words(data, root / "two"))
        died = pair(program, patch, "LOCAL_RANK", LOCAL_WORLD_SIZE="2")
        assert died.returncode == signal.SIGKILL, died.stderr
        assert died.stderr.count("another of the 2 processes of this training has ended before its time") == 1
        assert "defect" not in died.stderr
        assert not (root / "two" / "report.html").exists()
        resumed = COMMAND.format(words=["train", "--resume", str(root / "two")])
        done = pair(resumed, patch, "LOCAL_RANK", LOCAL_WORLD_SIZE="2")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("report.html") == 1  # one of them speaks
    return data, root / "one", root / "two"


@pytest.mark.whole
def test_two_processes_train_what_one_does_at_the_same_batch_even_where_one_has_died_midway(runs):
    _, one, two = runs
    for name in ("last/module", "last/weights", "best/weights"):
        single, joint = (load_file(run / "checkpoints" / f"{name}.safetensors") for run in (one, two))
        assert single.keys() == joint.keys()
        assert max(np.abs(single[key] - joint[key]).max() for key in single) < 1e-4, name


@pytest.mark.whole  # the same as begun by hand; torchrun and each process import torch
def test_torchrun_begins_them(runs, tmp_path):
    data, one, _ = runs
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "hilum", *words(data, tmp_path / "two")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, timeout=SECONDS)
    single, joint = (load_file(run / "checkpoints/last/weights.safetensors") for run in (one, tmp_path / "two"))
    assert max(np.abs(single[key] - joint[key]).max() for key in single) < 1e-4


@pytest.mark.whole
def test_only_the_first_process_writes(runs):
    _, one, two = runs
    logs = [pd.read_csv(run / "log.csv") for run in (one, two)]
    assert logs[1]["step"].tolist() == list(range(1, STEPS + 1))
    np.testing.assert_allclose(logs[0]["loss"], logs[1]["loss"], rtol=1e-4)
    files = [{path.relative_to(run) for path in run.iterdir()} for run in (one, two)]
    assert files[0] == files[1]


def test_more_processes_than_gpus_are_refused_before_any_of_them_computes(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    chosen = SimpleNamespace(threads=4, deterministic=False, device="cuda:0")
    with pytest.raises(ResourceError, match=r"4 processes on a machine with 2 GPUs.*--nproc_per_node 2"):
        _training_session.make_fabric(chosen, Ranks(0, 4))


def test_a_batch_that_cannot_be_shared_evenly_is_refused_with_one_that_can():
    assert [Ranks(rank, 2).part(6) for rank in range(2)] == [range(3), range(3, 6)]
    with pytest.raises(PlanError, match=r"5 samples a step.*training.batch=6"):
        Ranks(0, 2).part(5)


def test_one_process_has_all_of_a_batch_and_agrees_with_itself():
    batch = torch.arange(6.0)
    assert list(SINGLE_PROCESS.part(6)) == [0, 1, 2, 3, 4, 5]
    assert SINGLE_PROCESS.whole(batch) is batch
    assert SINGLE_PROCESS.own_part(batch) is batch or torch.equal(SINGLE_PROCESS.own_part(batch), batch)
    assert SINGLE_PROCESS.agree({"a": 1}) == {"a": 1}


def test_a_verb_of_one_process_is_simply_done():
    @distributed.in_all_processes
    def doubled(number: int) -> int:
        return 2 * number

    assert doubled(21) == 42


@pytest.mark.whole
def test_processes_on_several_machines_join(monkeypatch):
    done = pair(JOINED, monkeypatch, "GROUP_RANK", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["0 of 2", "1 of 2"]
