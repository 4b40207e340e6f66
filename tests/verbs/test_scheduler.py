"""Cohort work over a real dask cluster on loopback: a scheduler and two workers, each a process of its own.

In `make test` one cohort goes over a cluster whose scheduler and worker are threads of the tests' process: three that
start take ten processor seconds.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from numpy.testing import assert_array_equal

import deadly
import hilum
import trained
from hilum import installation
from hilum.errors import ResourceError, UsageError, WorkerLostError
from hilum.planning import plan_checks
from hilum.runtime.parallel import dask_cluster, map_cases
from hilum.runtime.parallel.dask_cluster import Cluster
from hilum.training.data import prepared_store
from hilum.values import Case

distributed = pytest.importorskip("distributed")

# A worker that was killed is given up in a second: by default who asks it for a result goes on trying for thirty. And
# a case after two: by default four, each of which takes two seconds to start.
QUIET = {
    "DASK_DISTRIBUTED__DASHBOARD__ENABLED": "False",
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s",
    "OMP_NUM_THREADS": "1",
}


@dataclass
class Processes:
    """A scheduler and its workers."""

    address: str
    scheduler: subprocess.Popen[bytes]
    folder: Path
    workers: list[subprocess.Popen[bytes]]

    def more(self) -> subprocess.Popen[bytes]:
        """One more worker, in a folder that is not the tests'."""
        words = ["worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        self.workers.append(dask(*words, cwd=self.folder))
        return self.workers[-1]


def dask(*words: str, cwd: Path) -> subprocess.Popen[bytes]:
    places = [str(Path(trained.__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **QUIET, "PYTHONPATH": os.pathsep.join(places)}
    log = (cwd / f"{words[0]}.log").open("ab")
    return subprocess.Popen([sys.executable, "-m", "dask", *words], cwd=cwd, env=environment, stdout=log, stderr=log)


@contextmanager
def started(folder: Path, workers: int) -> Iterator[Processes]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    made = Processes(f"tcp://127.0.0.1:{port}", dask(*words, cwd=folder), folder, [])
    try:
        wait_until(lambda: answers(port), "the scheduler to answer")
        for _ in range(workers):
            made.more()
        if workers:
            with distributed.Client(made.address, set_as_default=False) as client:
                client.wait_for_workers(workers, timeout=60)
        yield made
    finally:
        for process in (*made.workers, made.scheduler):
            process.kill()
            process.wait()


@contextmanager
def followed(made: Processes) -> Iterator[None]:
    """Meanwhile each worker that dies is followed by another one."""
    over = threading.Event()

    def follow() -> None:
        while not over.wait(0.1):
            if made.workers[-1].poll() is not None:
                made.more()

    following = threading.Thread(target=follow)
    following.start()
    try:
        yield
    finally:
        over.set()
        following.join()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Processes]:
    with started(tmp_path_factory.mktemp("cluster"), 2) as made:
        yield made


@pytest.fixture
def threads() -> Iterator[str]:
    """The address of a scheduler with one worker in this process, which are asked over the network nevertheless."""
    options = {"processes": False, "protocol": "tcp", "host": "127.0.0.1", "dashboard_address": None}
    with distributed.LocalCluster(1, threads_per_worker=1, **options) as made:
        yield made.scheduler_address


def answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def wait_until(true, what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def written(folder: Path) -> dict[str, bytes]:
    """The files of results by name; the summary says with what was computed, and that is told apart elsewhere."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "summary.json"}


@pytest.mark.whole
def test_a_cohort_predicted_by_workers_is_the_same_to_the_byte(cluster, segmented, tmp_path, monkeypatch):
    monkeypatch.chdir(segmented.data)  # paths that hold in this folder alone
    flags = {"device": "cpu", "threads": 1, "save_probabilities": True}
    hilum.predict(segmented.out, "images", out=tmp_path / "here", **flags)
    hilum.predict(segmented.out, "images", out=tmp_path / "there", scheduler=cluster.address, **flags)
    here, there = written(tmp_path / "here"), written(tmp_path / "there")
    assert sorted(here) == sorted(there)
    assert len(here) == 12 * 4 + 3
    assert [name for name in here if here[name] != there[name]] == []


@pytest.mark.whole
def test_cases_scored_by_workers_have_the_same_rows_to_the_bit(cluster, segmented, tmp_path, monkeypatch):
    monkeypatch.chdir(segmented.data.parent)
    flags = {"device": "cpu", "threads": 1, "split": "all"}
    here = hilum.evaluate(segmented.out, segmented.data.name, out=tmp_path / "here", **flags)
    there = hilum.evaluate(
        segmented.out, segmented.data.name, out=tmp_path / "there", scheduler=cluster.address, **flags
    )
    assert repr(there.rows) == repr(here.rows)  # some are not a number
    assert (tmp_path / "there" / "cases.csv").read_bytes() == (tmp_path / "here" / "cases.csv").read_bytes()


@pytest.mark.whole
def test_folds_scored_by_workers_are_scored_as_asked(cluster, tmp_path):
    """Each fold looks at cases that it has not seen; `uncertainty` holds for it there as here."""
    data = trained.pictures(tmp_path / "data", 16)
    run = trained.classifying(data, tmp_path / "run", folds=2).out
    here, there = (
        hilum.evaluate(run, data, device="cpu", threads=1, uncertainty="none", scheduler=address)
        for address in (None, cluster.address)
    )
    assert there.scored.table.to_csv() == here.scored.table.to_csv()
    assert "epistemic" not in there.scored.table


@pytest.mark.whole
def test_results_that_nobody_writes_come_back(cluster, segmented):
    image = segmented.data / "images" / "case03.nii.gz"
    [here], [there] = (
        hilum.predict(segmented.out, image, device="cpu", threads=1, scheduler=address).predictions.values()
        for address in (None, cluster.address)
    )
    assert_array_equal(here.data, there.data)
    assert there.geometry.equals(here.geometry, 1e-4)


def test_a_damaged_case_is_named_and_the_rest_goes_on(threads, segmented, tmp_path, cli):
    data = trained.blobs(tmp_path / "data", 3)
    (data / "images" / "case01.nii.gz").write_bytes(b"no image")
    out = tmp_path / "out"
    done = cli("predict", segmented.out, data / "images", "--out", out, "--scheduler", threads)
    assert done.code == 1
    assert "case01" in done.last
    assert pd.read_csv(out / "predictions.csv")["case"].tolist() == ["case00", "case02"]


@pytest.mark.whole
def test_a_worker_killed_midway_changes_nothing(cluster, segmented, tmp_path):
    """kill -9 once the first results are there; what it was at is done by the other one."""
    flags = {"device": "cpu", "threads": 1}
    hilum.predict(segmented.out, segmented.data, out=tmp_path / "here", **flags)
    victim = cluster.workers[0]

    def kill() -> None:
        wait_until(lambda: len(list(tmp_path.glob(".there.*/there/*.nii.gz"))) >= 2, "the first results")
        victim.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    hilum.predict(segmented.out, segmented.data, out=tmp_path / "there", scheduler=cluster.address, **flags)
    killer.join()
    assert victim.wait() == -signal.SIGKILL
    here, there = written(tmp_path / "here"), written(tmp_path / "there")
    assert here == there
    cluster.workers.remove(victim)
    cluster.more()


def test_a_case_that_nobody_is_left_to_try_by_itself_is_not_said_to_have_killed():
    class Empty:
        """A scheduler whose last worker has died."""

        def scheduler_info(self, n_workers):
            return {"workers": {}}

    lost = WorkerLostError("4 workers died over it", "case0", "Look at the workers' logs")
    found = Cluster("tcp://127.0.0.1:1", patience=-1)._by_itself(None, Empty(), None, None, lost)
    assert "4 workers died over it, or over another case there, and none is left" in found.problem
    assert found.where == "case0"


@pytest.mark.whole
def test_a_case_that_kills_every_worker_is_named_and_the_rest_goes_on(cluster, tmp_path):
    for _ in range(2):  # so many may die of one case before the scheduler gives it up, and one more by that alone
        cluster.more()
    cases = [
        Case(f"case{n}", "p", {}, covariates={"n": n, "fate": "SIGKILL" if n == 1 else None, "folder": tmp_path})
        for n in range(5)
    ]
    outcomes = dict(Cluster(cluster.address)(deadly.squared, cases))
    lost = outcomes.pop(1)
    assert isinstance(lost, WorkerLostError)
    assert lost.where == "case1"
    assert "2 workers died over it" in lost.problem
    assert outcomes == {n: n * n for n in (0, 2, 3, 4)}
    cluster.workers = [worker for worker in cluster.workers if worker.poll() is None]
    cluster.more()


@pytest.mark.whole
def test_a_case_that_only_waited_on_each_worker_that_died_is_not_blamed(tmp_path):
    with started(tmp_path, 1) as lonely, followed(lonely):  # one worker at a time has both cases
        cases = [
            *fated("SIGKILL", tmp_path),
            Case("patient", "p", {}, covariates={"n": 3, "fate": None, "folder": tmp_path}),
        ]
        outcomes = dict(Cluster(lonely.address)(deadly.squared, cases))
    assert isinstance(outcomes[0], WorkerLostError)
    assert outcomes[0].where == "case0"
    assert outcomes[1] == 9


@pytest.mark.whole
def test_check_by_workers_finds_the_same(cluster, segmented, monkeypatch):
    monkeypatch.chdir(segmented.data.parent)
    here, there = (
        hilum.check(segmented.data.name, labels=trained.LABELS, threads=1, scheduler=address)
        for address in (None, cluster.address)
    )
    assert there.as_record()["rows"] == here.as_record()["rows"]
    assert there.examination.fingerprint == here.examination.fingerprint


def test_cases_are_planned_and_prepared_by_workers_as_on_this_machine(threads, tmp_path, monkeypatch):
    monkeypatch.chdir(trained.blobs(tmp_path / "data").parent)
    plans, prepared = [], []
    for address in (None, threads):
        monkeypatch.setenv("HILUM_CACHE", f"cache {address is None}")
        plans.append(hilum.plan("data", labels=trained.LABELS, threads=1, scheduler=address))
        chosen = plan_checks.checked_settings(plans[-1].plan)
        with dask_cluster.spread_over(address):
            cases = plans[-1].examination.dataset.cases[:2]
            prepared += prepared_store.prepare_all(
                cases, chosen.preprocessing, chosen.task, threads=1, memory=2**30, reading={}
            )
        monkeypatch.setattr(map_cases, "map_in_threads", lambda *_: pytest.fail("not by the worker"))
    assert plans[0].examination.fingerprint == plans[1].examination.fingerprint
    for here, there in zip(prepared[:2], prepared[2:], strict=True):
        assert_array_equal(here.image, there.image)
        assert_array_equal(here.target, there.target)


@pytest.mark.whole
def test_a_training_whose_cases_workers_prepare_gives_the_same_weights(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(trained.blobs(tmp_path / "data").parent)
    given = {"labels": trained.LABELS, "threads": 1, "deterministic": True, "assignments": trained.TWO_STEPS}
    weights = []
    for address in (None, cluster.address):
        monkeypatch.setenv("HILUM_CACHE", f"cache {address is None}")
        run = hilum.train("data", out=f"run {address is None}", scheduler=address, **given)
        weights.append(hilum.load(run.out).record["weights_sha256"])
    assert weights[0] == weights[1]


def fated(fate: str, folder: Path, count: int = 1) -> list[Case]:
    return [Case(f"case{n}", "p", {}, covariates={"n": n, "fate": fate, "folder": folder}) for n in range(count)]


@pytest.mark.whole
def test_a_cluster_that_lost_its_last_worker_ends_with_how_much_is_left(tmp_path):
    with started(tmp_path, 1) as made:
        with pytest.raises(ResourceError, match="no worker is left; 3 cases not done"):
            list(Cluster(made.address, patience=3)(deadly.squared, fated("SIGKILL", tmp_path, 3)))
        with pytest.raises(ResourceError, match="has no worker"):
            list(Cluster(made.address, patience=0.5)(deadly.squared, fated("", tmp_path)))


@pytest.mark.whole
def test_a_scheduler_that_is_killed_ends_the_work_with_how_much_is_left(tmp_path):
    with started(tmp_path, 1) as made:

        def kill() -> None:
            wait_until((tmp_path / "case0.pid").exists, "a case that runs")
            made.scheduler.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(ResourceError, match=r"the scheduler is lost.*1 case not done"):
            list(Cluster(made.address, patience=30)(deadly.squared, fated("waits", tmp_path)))
        killer.join()


def test_an_address_at_which_nobody_answers_is_an_error_with_what_to_do(segmented, monkeypatch):
    monkeypatch.setattr(dask_cluster, "ANSWER", 1.0)
    with pytest.raises(ResourceError, match="no scheduler answers"):
        hilum.predict(segmented.out, segmented.data, device="cpu", scheduler="tcp://127.0.0.1:9")
    with pytest.raises(UsageError, match="tcp://host:8786"):
        hilum.predict(segmented.out, segmented.data, device="cpu", scheduler="nonsense://x")
    with pytest.raises(UsageError, match="Give the model's folder"):
        hilum.predict(hilum.load(segmented.out, "cpu"), segmented.data, scheduler="tcp://127.0.0.1:9")


def test_an_address_without_a_port_ends_in_one_line():
    code = "from hilum.runtime.parallel.dask_cluster import Cluster; list(Cluster('nonsense')(abs, []))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr.rstrip().endswith("Write it as tcp://host:8786.")  # and no client complains after it


def test_without_the_extra_the_line_that_installs_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ResourceError, match=re.escape(installation.install_line("distributed"))):
        next(Cluster("tcp://127.0.0.1:9")(len, ["a"]))
