"""Parties of a federation in processes of their own, and the job that NVFlare carries over them."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import psutil

from hilum import errors, federation
from hilum.errors import UsageError, WorkerLostError
from hilum.federation import party_kits
from hilum.federation.exchanges import SERVER, Answer
from hilum.federation.federated_run import JobRecord
from hilum.federation.party_kits import LOOK, FederationFile, Kit
from hilum.runs.plan_request import PlanRequest
from hilum.runtime import record_files
from hilum.work_state import log

# What processes of NVFlare say.
CONSOLE = "console.txt"
# In the folder of private ones: who computes, and kits of parties on one machine.
PROCESSES = "processes.json"
KITS = ".kits"
# s until a party on this machine must be there, and until a process is ended by force.
START = 120.0
PATIENCE = 5.0


def take_port(host: str, port: int) -> int:
    """A port on which nobody listens, 0 for any; UsageError where somebody does."""
    try:
        with socket.create_server((host, port)) as probe:
            return int(probe.getsockname()[1])
    except OSError as error:
        problem = f"port {port} cannot be listened on ({error.strerror})"
        raise UsageError(problem, "the server", "End what listens there, or provision another port") from error


@dataclass(eq=False)
class PartyProcesses:
    """Processes of parties on this machine, noted with what NVFlare starts for them in `processes.json` of a folder."""

    folder: Path
    _started: dict[str, tuple[int, psutil.Popen]] = field(default_factory=dict)
    _known: dict[int, tuple[str, psutil.Process]] = field(default_factory=dict)

    def start(self, kit: Kit) -> None:
        """Start a party's process, where none runs; those of an older job are forgotten."""
        self._known = {pid: one for pid, one in self._known.items() if is_alive(one[1])}
        if self.is_running(kit.party):
            return
        with (kit.folder / CONSOLE).open("ab") as console:
            # In a session of its own: Ctrl-C comes to the command, which ends all of them.
            process = psutil.Popen(
                kit.command, start_new_session=True, stdout=console, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        self._started[kit.party] = (kit.port, process)
        self._known[process.pid] = (kit.party, process)
        self.note()

    def is_running(self, party: str) -> bool:
        """Whether a party's process runs."""
        return party in self._started and is_alive(self._started[party][1])

    def look(self) -> list[str]:
        """The parties of which a process has gone."""
        count = len(self._known)
        for party, (_, process) in self._started.items():
            with suppress(psutil.Error):
                for child in process.children():
                    self._known.setdefault(child.pid, (party, child))
        if len(self._known) > count:
            self.note()
        return sorted({party for party, one in self._known.values() if not is_alive(one)})

    def end(self) -> None:
        """End all of them, with whatever they have started."""
        self.look()
        every = [process for _, process in self._known.values()]
        for one in tuple(every):
            with suppress(psutil.Error):
                every += one.children(recursive=True)
        for finish in (psutil.Process.terminate, psutil.Process.kill):
            for one in every:
                with suppress(psutil.Error):
                    finish(one)
            every = psutil.wait_procs(every, timeout=PATIENCE)[1]
        self._started = {}
        self._known = {}

    def note(self) -> None:
        """Write who computes, for whoever has to end it."""
        rows = [{"party": "command", "pid": psutil.Process().pid, "port": None}]
        ports = {process.pid: port for party, (port, process) in self._started.items() if party == SERVER}
        rows += [{"party": name, "pid": pid, "port": ports.get(pid)} for pid, (name, _) in self._known.items()]
        self.folder.mkdir(parents=True, exist_ok=True)
        record_files.write_json(self.folder / PROCESSES, "hilum.processes", {"rows": rows})


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs still."""
    with suppress(psutil.Error):
        return cast(bool, process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def run_on_loopback(
    out: Path, private: Path, sites: Mapping[str, str], request: PlanRequest, record: JobRecord, began: float
) -> None:
    """A job of processes on this machine, with kits of their own; sites: {name: data}, empty where a job goes on."""
    party_kits.refuse_missing_extra("--transport mtls")
    shutil.rmtree(folder := private / KITS, ignore_errors=True)
    described = FederationFile(tuple(sites), "localhost", take_port("localhost", 0))
    federation.nvflare_carrier.provision_kits(described, folder)
    server = party_kits.read_kit(folder / SERVER, out=str(out.absolute()), began=began)
    own = {name: {"data": data, "private": str((private / name).absolute())} for name, data in sites.items()}
    shared = {"reading": request.reading.chosen_options, "is_alone": True}
    local = [party_kits.read_kit(folder / name, **one, **shared) for name, one in own.items()]
    CarriedJob(server, local, request, record, PartyProcesses(private)).run()
    shutil.rmtree(folder)


def _lost_error(reason: object) -> WorkerLostError:
    return WorkerLostError(f"a party was lost ({reason})", "the job", f"Look at {CONSOLE} in its kit")


@dataclass(frozen=True, eq=False)
class CarriedJob:
    """A job over parties. local: the sites on this machine, which are started and ended with the server."""

    server: Kit
    local: Sequence[Kit]
    request: PlanRequest
    record: JobRecord
    processes: PartyProcesses

    def run(self) -> None:
        """The whole job; after a loss the next one goes on at the last whole round, at most `restarts` times."""
        take_port("", self.server.port)
        try:
            for left in range(self.record.restarts, -1, -1):
                try:
                    self._run_once()
                    break
                except WorkerLostError as error:
                    if not left:
                        raise
                    log.warning("%s Started again, %d more times at most.", error, left - 1)
                if self.local:
                    self.processes.end()
        finally:
            self.processes.end()

    def _run_once(self) -> None:
        """One job of NVFlare; the error with which it ended."""
        for party in (self.server, *self.local):
            party.write()
            self.processes.start(party)
        opens = partial(federation.nvflare_carrier.open_session, self.server, START, self._look)
        with errors.foreign_errors(_lost_error), tempfile.TemporaryDirectory() as folder, opens() as session:
            self._wait_for_sites(session)
            job = session.submit_job(str(party_kits.write_job(Path(folder, "hilum"), self.request, self.record)))
        end: Answer | None = None
        try:
            while (end := party_kits.read_end(self.server)) is None:
                self._look()
                time.sleep(LOOK)
        finally:
            with suppress(Exception):  # a server that is gone: NVFlare has a class of its own for each reason
                if not self.local:  # these are ended with the server
                    with opens() as session:  # another one: they expire while nobody asks
                        self._end_job(session, job, end)
        if end.error is not None:
            raise end.error

    def _end_job(self, session: Any, job: str, end: Answer | None) -> None:
        """End a job at the sites, and their part in the federation where nothing is to be done any more."""
        if end is None:
            session.abort_job(job)
        session.wait_for_job(job, timeout=START, poll_interval=LOOK)
        if end is not None and not isinstance(end.error, WorkerLostError):
            session.shutdown("client")

    def _look(self) -> None:
        """WorkerLostError where a party on this machine has lost a process, and the job has not ended."""
        if (lost := self.processes.look()) and party_kits.read_end(self.server) is None:
            raise _lost_error(f"{', '.join(lost)} is gone")

    def _wait_for_sites(self, session: Any) -> None:
        """Wait until all sites are connected."""
        before = set[str]()
        while absent := {*self.server.sites} - {one.name for one in session.get_system_info().client_info}:
            self._look()
            if absent != before:
                log.info("waits for %s", ", ".join(sorted(before := absent)))
            time.sleep(LOOK)
