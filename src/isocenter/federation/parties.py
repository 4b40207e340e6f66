"""Parties of a federation in processes of their own: their kits, their processes, and the job that NVFlare carries."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML, YAMLError

from isocenter import errors, federation
from isocenter.errors import IsocenterError, ResourceError, UsageError, WorkerLostError
from isocenter.federation import exchanges
from isocenter.federation.exchanges import SERVER, Answer, SiteMessage
from isocenter.federation.federated_run import JobRecord
from isocenter.files.storage import atomic, structured_text
from isocenter.reading import ReadingOptions
from isocenter.runs.plan_request import PlanRequest
from isocenter.runtime import record_files

log = logging.getLogger("isocenter")
KIT, SCHEMA = "isocenter.json", "isocenter.kit"
# In a kit: the operator's, in the server's; how a job ended; the plan about which a person is asked; the agreed one.
OPERATOR, END, ASKED, ANSWER = "operator", "end.json", "asked-plan.yaml", "answer.txt"
# What processes of NVFlare say.
CONSOLE = "console.txt"
# In the folder of private ones: who computes, and kits of parties on one machine.
PROCESSES, KITS = "processes.json", ".kits"
CARRIER = "isocenter.federation.nvflare_carrier"
OURS = [f"{CARRIER}.JobController", f"{CARRIER}.SiteExecutor"]
# Nobody may bring code: in a job that does NVFlare asks for no list of classes.
GRANTED = ("submit_job", "manage_job", "download_job", "view", "operate")
REFUSED = ("clone_job", "shell_commands", "byoc", "server-predeployed-flwr")
SHARED = "/tmp/nvflare"  # noqa: S108 - where all federations of a machine would keep their jobs
# What a server tells sites of the wishes of a person; how files are read each site says itself.
ASKED_OF_SITES = ("minutes", "device", "threads", "seed", "task", "everything", "assignments")
# s until a party on this machine must be there, between two looks, and until a process is ended by force.
START, LOOK, PATIENCE = 120.0, 0.5, 5.0


@dataclass(frozen=True)
class FederationFile:
    """FEDERATION.yaml: the sites by name, and where they find the server."""

    parties: tuple[str, ...]
    host: str
    port: int

    def __post_init__(self) -> None:
        wrong = [one for one in (*self.parties, self.host) if not exchanges.NAME.fullmatch(one)]
        is_double = len({SERVER, *self.parties}) <= len(self.parties)
        if not self.parties or wrong or is_double or not 0 < self.port < 1 << 16:
            raise ValueError(f"{', '.join(wrong) or 'parties or port'} cannot be")


def read_federation(path: Path) -> FederationFile:
    """A federation as somebody wrote it down; UsageError for what is none."""
    try:
        stated = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        return TypeAdapter(FederationFile).validate_python(stated)
    except (OSError, UnicodeDecodeError, YAMLError, ValidationError) as error:
        fault = error.errors()[0]["msg"] if isinstance(error, ValidationError) else errors.describe_cause(error)
        problem = f"describes no federation ({fault.splitlines()[0].removeprefix('Value error, ')})"
        raise UsageError(problem, str(path), "Give parties (a list of names), host and port") from error


@dataclass(frozen=True)
class Kit:
    """A party of a federation. own: what was said of this machine when it was started."""

    folder: Path
    party: str
    sites: tuple[str, ...]
    port: int
    own: Mapping[str, Any] = field(default_factory=dict)

    def write(self) -> None:
        """Write who it is and what a job may do here, and forget how an older one ended."""
        for name in (END, ASKED, ANSWER):
            (self.folder / name).unlink(missing_ok=True)
        write_guards(self.folder)
        record_files.write_json(self.folder / KIT, SCHEMA, asdict(self) | {"folder": None})

    @property
    def command(self) -> list[str]:
        """The line of NVFlare's process of this party."""
        kind = SERVER if self.party == SERVER else "client"
        module, named = f"nvflare.private.fed.app.{kind}.{kind}_train", [f"uid={self.party}"] * (kind != SERVER)
        settings = ["secure_train=true", "org=isocenter", "config_folder=config", *named]
        return [sys.executable, "-m", module, "-m", str(self.folder), "-s", f"fed_{kind}.json", "--set", *settings]


def read_kit(folder: Path, **own: Any) -> Kit:
    """Whose kit lies in a folder, with what is said of this machine; UsageError where none does."""
    if not (folder / KIT).is_file():
        raise UsageError("holds no kit", str(folder), "Give a folder that `isocenter federation provision` wrote")
    record = record_files.read_json(folder / KIT, SCHEMA)
    own = {**record["own"], **own}
    return Kit(folder.absolute(), record["party"], tuple(record["sites"]), record["port"], own)


def write_guards(folder: Path) -> None:
    """What a job may do at a party: build the two classes of ours, and bring no code of its own."""
    stated = (folder / "local" / "resources.json.default").read_text(encoding="utf-8")
    resources = structured_text.parse_json(stated.replace(SHARED, str((folder / "jobs").absolute())))
    resources |= {"class_allow_list": OURS, "class_list_enforcement_mode": "enforce", "allow_log_streaming": False}
    rights = {"project_admin": {**dict.fromkeys(GRANTED, "any"), **dict.fromkeys(REFUSED, "none")}}
    policy = {"format_version": "1.0", "permissions": rights}
    for name, record in (("resources.json", resources), ("authorization.json", policy)):
        atomic.write_text(folder / "local" / name, json.dumps(record, indent=1), overwrite=True)


def take_port(host: str, port: int) -> int:
    """A port on which nobody listens, 0 for any; UsageError where somebody does."""
    try:
        with socket.create_server((host, port)) as probe:
            return int(probe.getsockname()[1])
    except OSError as error:
        problem = f"port {port} cannot be listened on ({error.strerror})"
        raise UsageError(problem, "the server", "End what listens there, or provision another port") from error


def write_job(folder: Path, request: PlanRequest, record: JobRecord) -> Path:
    """The job in NVFlare's layout: two classes of ours, what was asked for, and no path of any machine."""
    asked = json.dumps(record_files.as_json({name: getattr(request, name) for name in ASKED_OF_SITES}))
    workflow = {"id": "isocenter", "path": OURS[0], "args": {"request": asked, "record": json.dumps(asdict(record))}}
    executor = {"tasks": ["*"], "executor": {"path": OURS[1], "args": {"request": asked}}}
    meta = {"name": "isocenter", "deploy_map": {"app": ["@ALL"]}, "min_clients": record.min_sites or 1}
    server = {"server": {"task_request_interval": LOOK}, "workflows": [workflow]}
    (folder / "app" / "config").mkdir(parents=True)
    for name, content in (("server", server), ("client", {"executors": [executor]})):
        text = json.dumps({"format_version": 2, "components": [], **content}, indent=1)
        atomic.write_text(folder / "app" / "config" / f"config_fed_{name}.json", text)
    atomic.write_text(folder / "meta.json", json.dumps(meta | {"resource_spec": {}}))
    return folder


def read_request(text: str, own: Mapping[str, Any]) -> PlanRequest:
    """What was asked for by the server, and how this machine reads its files."""
    asked, reading = structured_text.parse_json(text), ReadingOptions(**own.get("reading", {}))
    return PlanRequest(**{name: asked[name] for name in ASKED_OF_SITES}, reading=reading)


def write_end(kit: Kit, error: IsocenterError | None = None) -> None:
    """How the job ended at this party."""
    message = SiteMessage("end") if error is None else exchanges.error_message(error)
    with atomic.write_whole(kit.folder / END, overwrite=True) as whole:
        whole.write_bytes(message.encoded)


def read_end(kit: Kit) -> Answer | None:
    """How it ended; None while it goes on."""
    end = kit.folder / END
    return exchanges.read_answer(end.read_bytes(), kit.party, 0.0) if end.is_file() else None


def discreet_error(error: IsocenterError, party: str) -> IsocenterError:
    """The error as another machine may read it: no path of this one, and no word about a case."""
    problem = None if isinstance(error, UsageError | ResourceError) else "cannot go on with its data"
    return error.stating(problem=problem, where=f"site {party}", remedy="Ask there: its own terminal says more")


def wait_for_agreement(kit: Kit, plan: str) -> None:
    """Wait until a person at this site has agreed to a plan; UsageError where nobody does."""
    atomic.write_text(kit.folder / ASKED, plan, overwrite=True)
    while not (answer := kit.folder / ANSWER).is_file():
        time.sleep(LOOK)
    if answer.read_text(encoding="utf-8") != plan:
        raise UsageError("refuses the plan", f"site {kit.party}", "Ask there for the reason, and begin another job")


def ask_person(kit: Kit, agrees: Callable[[str], bool]) -> None:
    """Ask about a plan, where one waits for an answer, and keep what is said."""
    if (kit.folder / ASKED).is_file() and not (kit.folder / ANSWER).is_file():
        plan = (kit.folder / ASKED).read_text(encoding="utf-8")
        atomic.write_text(kit.folder / ANSWER, plan if agrees(plan) else "")


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
            output: dict[str, Any] = {"stdout": console, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
            # In a session of its own: Ctrl-C comes to the command, which ends all of them.
            process = psutil.Popen(kit.command, start_new_session=True, **output)
        self._started[kit.party], self._known[process.pid] = (kit.port, process), (kit.party, process)
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
        self._started, self._known = {}, {}

    def note(self) -> None:
        """Write who computes, for whoever has to end it."""
        rows = [{"party": "command", "pid": psutil.Process().pid, "port": None}]
        ports = {process.pid: port for party, (port, process) in self._started.items() if party == SERVER}
        rows += [{"party": name, "pid": pid, "port": ports.get(pid)} for pid, (name, _) in self._known.items()]
        self.folder.mkdir(parents=True, exist_ok=True)
        record_files.write_json(self.folder / PROCESSES, "isocenter.processes", {"rows": rows})


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs still."""
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def refuse_missing_extra(what: str) -> None:
    """UsageError where NVFlare is not installed."""
    if find_spec("nvflare") is None:
        raise UsageError("nvflare is not installed", what, "pip install 'isocenter[federated]'")


def run_on_loopback(
    out: Path, private: Path, sites: Mapping[str, str], request: PlanRequest, record: JobRecord, began: float
) -> None:
    """A job of processes on this machine, with kits of their own; sites: {name: data}, empty where a job goes on."""
    refuse_missing_extra("--transport mtls")
    shutil.rmtree(folder := private / KITS, ignore_errors=True)
    described = FederationFile(tuple(sites), "localhost", take_port("localhost", 0))
    federation.nvflare_carrier.provision_kits(described, folder)
    server = read_kit(folder / SERVER, out=str(out.absolute()), began=began)
    own = {name: {"data": data, "private": str((private / name).absolute())} for name, data in sites.items()}
    shared = {"reading": request.reading.chosen_options, "is_alone": True}
    local = [read_kit(folder / name, **one, **shared) for name, one in own.items()]
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
            job = session.submit_job(str(write_job(Path(folder, "isocenter"), self.request, self.record)))
        end: Answer | None = None
        try:
            while (end := read_end(self.server)) is None:
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
        if (lost := self.processes.look()) and read_end(self.server) is None:
            raise _lost_error(f"{', '.join(lost)} is gone")

    def _wait_for_sites(self, session: Any) -> None:
        """Wait until all sites are connected."""
        before = set[str]()
        while absent := {*self.server.sites} - {one.name for one in session.get_system_info().client_info}:
            self._look()
            if absent != before:
                log.info("waits for %s", ", ".join(sorted(before := absent)))
            time.sleep(LOOK)
