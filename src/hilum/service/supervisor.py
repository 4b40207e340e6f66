"""The node as processes: started together, restarted when they die, stopped together."""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from hilum.deidentification import keyed_names
from hilum.errors import ResourceError, UsageError
from hilum.files.storage import atomic, hashing
from hilum.service import node_folder
from hilum.service.configuration import NodeSettings
from hilum.service.dicom import dicom_listening
from hilum.service.node_folder import ALIVE, BACKUPS, MODELS, REFUSED, WRONG_USE, JsonLines
from hilum.service.records import accounts, migration, record_database
from hilum.service.records.accounts import ADMIN_PASSWORD, Accounts
from hilum.work_state import log

LOCK, LAST_BYTES = "lock", 4096
OHIF = ("index.html", "app-config.js")  # of its build
# A process that lived so long is begun again at once; else after a pause that doubles (s).
STEADY_S, FIRST_PAUSE_S, LONGEST_PAUSE_S = 30.0, 0.5, 30.0
# How long all may take to be up, models loaded, and to end (s).
UP_S, DOWN_S = 300.0, 30.0


@dataclass(eq=False)
class Child:
    """One process of the node, and when it is to be begun again. name: in the log, and of its sign of life."""

    role: str
    name: str
    process: subprocess.Popen[bytes] | None = None
    began: float = 0.0
    pause: float = FIRST_PAUSE_S
    due: float = 0.0
    words: IO[bytes] = field(default_factory=lambda: tempfile.TemporaryFile("ab+"))  # noqa: SIM115 - closed by `Node.stop`

    def last_words(self) -> str:
        """The end of what the process has written to its standard error."""
        end = self.words.seek(0, os.SEEK_END)
        self.words.seek(max(0, end - LAST_BYTES))
        return self.words.read().decode(errors="replace").strip()


@dataclass(eq=False)
class Node:
    """A running node; leave its `with`, or call `stop`, to end it.

    dicom, secured, http, ohif: where it is reached
    """

    settings: NodeSettings
    role: str = "all"
    _children: list[Child] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _failed: str = ""
    _held: ExitStack = field(default_factory=ExitStack)
    _watcher: threading.Thread | None = None
    _log: JsonLines | None = None

    @property
    def dicom(self) -> str:
        """Host, port and title of the receiver."""
        dicom = self.settings.dicom
        return f"{dicom.host}:{dicom.port} {dicom.ae_title}"

    @property
    def secure_address(self) -> str | None:
        """Host, port and title of the receiver under TLS; None without."""
        dicom = self.settings.dicom
        return None if dicom.tls is None else f"{dicom.host}:{dicom.tls.port} {dicom.ae_title}"

    @property
    def http(self) -> str:
        """Address of the API."""
        return f"{self.settings.http.scheme}://{self.settings.http.host}:{self.settings.http.port}"

    @property
    def ohif(self) -> str | None:
        """Address of the viewer; None without."""
        settings = self.settings
        return None if settings.ohif is None else f"{settings.http.scheme}://{settings.http.host}:{settings.ohif.port}"

    @property
    def places(self) -> list[str]:
        """The address of this machine's part of the node, else what it is."""
        secured = [f"DICOM over TLS {self.secure_address}"] if self.secure_address else []
        viewer = [f"OHIF {self.ohif}"] if self.ohif else []
        reached = {"receiver": [f"DICOM {self.dicom}", *secured], "web": [self.http, *viewer]}
        return [
            one for part, addresses in reached.items() if node_folder.runs_part(self.role, part) for one in addresses
        ] or [self.role]

    @property
    def warnings(self) -> list[str]:
        """What speaks against starting it so, and does not forbid it."""
        settings = self.settings
        facts = node_folder.stored_models(settings.folder) if settings.models else {}
        faults = {name: [*([] if one.is_gated else [one.gate]), *one.naming] for name, one in facts.items()}
        words = [
            ": ".join(filter(None, [settings.place("models", name), f"model {name}", fault]))
            for name, own in faults.items()
            for fault in own
        ]
        if (
            node_folder.runs_part(self.role, "receiver")
            and shutil.disk_usage(settings.folder).free < settings.node.min_free_gb * 1e9
        ):
            place = settings.place("node", "min_free_gb") or "node.min_free_gb"
            words.append(f"{place}: less than {settings.node.min_free_gb:g} GB are free, so nothing would be received")
        return words

    def start(self) -> Node:
        """Begin all processes, and wait until each has said that it is up.

        Raises UsageError for what the settings say wrong, ResourceError where a process does not come up.
        """
        folder = self.settings.folder
        if node_folder.runs_part(self.role, "keeper"):
            self._held.enter_context(_lock(folder))
        counts = {
            "receiver": self.settings.dicom.receivers,
            "keeper": 1,
            "worker": self.settings.queue.workers,
            "web": 1,
            "monitor": 1,
        }
        processes = {role: n for role, n in counts.items() if node_folder.runs_part(self.role, role)}
        # Other machines run the same roles of one node.
        is_whole = self.role == "all"
        where = "" if is_whole else f"@{platform.node()}"
        self._children = [Child(role, f"{role}-{n}{where}") for role, count in processes.items() for n in range(count)]
        (folder / ALIVE).mkdir(exist_ok=True)
        for sign in (folder / ALIVE).iterdir() if is_whole else map(self._sign, self._children):
            sign.unlink(missing_ok=True)
        self._log = JsonLines(folder, f"supervisor{where}")
        began = time.monotonic()
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._watcher.start()
        while not all(self._sign(child).exists() for child in self._children):
            if self._failed or time.monotonic() - began > UP_S:
                self.stop()
                problem = self._failed or "a process of the node did not start"
                raise ResourceError(problem, str(folder), f"See the end of {folder / 'node.jsonl'}")
            time.sleep(0.05)
        self._say(f"ready: {', '.join(self.places)}")
        return self

    def _sign(self, child: Child) -> Path:
        """Its sign of life, a file whose time another machine's clock may have stamped."""
        return self.settings.folder / ALIVE / child.name

    def _watch(self) -> None:
        """Begin what is due, and note what has died, until the node is stopped."""
        while not self._stop.wait(0.05):
            for child in self._children:
                now = time.monotonic()
                if child.process is None and now >= child.due:
                    child.process, child.began = self._begun(child), now
                elif child.process is not None and child.process.poll() is not None:
                    self._note_death(child, now)

    def _note_death(self, child: Child, now: float) -> None:
        assert child.process is not None  # noqa: S101 - as its caller has seen
        code = child.process.returncode
        last = child.last_words()
        if child.process.stdin is not None:
            child.process.stdin.close()
        child.pause = FIRST_PAUSE_S if now - child.began > STEADY_S else min(LONGEST_PAUSE_S, 2 * child.pause)
        child.process, child.due = None, now + child.pause
        words = last.splitlines()[-1] if last else ""
        # What an unforeseen error says may hold what a file says: its kind alone is told.
        kind = words if code in (WRONG_USE, REFUSED) else words.partition(":")[0]
        ended = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
        again = "" if code == WRONG_USE else f"; it is restarted in {child.pause:g} s"
        self._say(f"{child.name} {ended}{f': {kind}' if kind else ''}{again}", logging.WARNING)
        if code == WRONG_USE:
            self._failed = words or f"{child.name} cannot go on"

    def _say(self, text: str, level: int = logging.INFO) -> None:
        """Into the node's log; a warning to whoever has begun it, too."""
        if level >= logging.WARNING:
            log.log(level, "%s", text)
        if self._log is not None:
            self._log.emit(log.makeRecord(log.name, level, "", 0, text, (), None))

    def _begun(self, child: Child) -> subprocess.Popen[bytes]:
        """Its input stays open for as long as this process lives: its end tells the child to stop."""
        file = node_folder.settings_file(self.settings.folder, self.role)
        command = [sys.executable, "-m", "hilum.service", child.role, str(file), child.name]
        owner = f"{platform.node()}/{os.getpid()}"
        own = {name: value for name, value in os.environ.items() if name != ADMIN_PASSWORD}
        environment = {**own, "HILUM_NODE": owner}
        child.words.truncate(0)  # a file, because a pipe that nobody reads would fill up and hold the child
        return subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=child.words, env=environment
        )

    def wait(self, stop: threading.Event) -> None:
        """Until `stop` is set. Raises ResourceError where a process cannot go on."""
        while not stop.wait(0.2):
            if self._failed:
                raise ResourceError(self._failed, str(self.settings.folder), "Correct that, and start the node again")

    def stop(self) -> None:
        """No new association; what is coming is received; jobs end or give back their claims."""
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join()
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        until = time.monotonic() + DOWN_S
        for process in running:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()
        for child in self._children:
            child.words.close()
            self._sign(child).unlink(missing_ok=True)
        self._children = []
        if self._log is not None:
            self._say("stopped")
            self._log.close()
            self._log = None
        self._held.close()

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def prepare_node(settings: NodeSettings, role: str = "all") -> NodeSettings:
    """A node's folder with its settings, models and tables, checked; the settings with the ports that it has.

    Raises UsageError for a port in use, an address that others reach where nothing asks who they are, certificates that
    are none, a password that is too short, a model that does not load, a rule that its model cannot follow, a folder to
    watch that is not there, a node's folder that is none of ours, a folder for OHIF without its build, a user who has
    no place for the key of pseudonyms; ResourceError for a database that does not answer.
    Nothing is started.
    """
    folder = settings.folder
    if folder.exists() and any(folder.iterdir()) and not any(folder.glob("settings*.json")):
        raise UsageError("holds something else than a node", str(folder), "Choose another --folder")
    if role in ("worker", "web", "monitor") and not (folder / MODELS).exists():
        raise UsageError("there is no node in this folder", str(folder), "Start its keeper first, and share its folder")
    _refuse_limits(settings, role)
    for n, peer in enumerate(settings.peers):
        with settings.locate_errors("peers", n, "tls"):
            dicom_listening.peer_of_settings(peer)  # refuses certificates that are none
        if peer.deidentify is not None:
            with settings.locate_errors("peers", n, "deidentify"):
                keyed_names.read_names()
    if node_folder.runs_part(role, "receiver"):
        listening, dicom = dicom_listening.listener_settings(settings), settings.dicom
        with settings.locate_errors("dicom", "port"):
            dicom = dicom.model_copy(update={"port": _free(dicom.host, dicom.port)})
        if listening.tls is not None and dicom.tls is not None:
            with settings.locate_errors("dicom", "tls"):
                _ = listening.tls.context
                tls = dicom.tls.model_copy(update={"port": _free(dicom.host, dicom.tls.port)})
            dicom = dicom.model_copy(update={"tls": tls})
        settings = settings.model_copy(update={"dicom": dicom})
    if node_folder.runs_part(role, "web"):
        with settings.locate_errors("http", "host"):
            accounts.refuse_open_address(settings)
        if settings.http.tls is not None:
            with settings.locate_errors("http", "tls"):
                dicom_listening.server_context(settings.http.tls.certificate, settings.http.tls.key)
        with settings.locate_errors("http", "port"):
            port = _free(settings.http.host, settings.http.port)
        settings = settings.model_copy(update={"http": settings.http.model_copy(update={"port": port})})
        if (viewer := settings.ohif) is not None:
            with settings.locate_errors("ohif", "folder"):
                _refuse_no_build(viewer.folder)
            with settings.locate_errors("ohif", "port"):
                viewer = viewer.model_copy(update={"port": _free(settings.http.host, viewer.port)})
            settings = settings.model_copy(update={"ohif": viewer})
    if node_folder.runs_part(role, "keeper") and settings.watch is not None and not settings.watch.folder.is_dir():
        with settings.locate_errors("watch", "folder"):
            remedy = "Make it, or leave out watch"
            raise UsageError("there is no such folder to watch", str(settings.watch.folder), remedy)
    folder.mkdir(parents=True, exist_ok=True)
    # A node that runs there keeps its settings: a process of it that dies is begun again with them.
    held = _lock(folder) if node_folder.runs_part(role, "keeper") else nullcontext()
    with held, atomic.write_whole(node_folder.settings_file(folder, role), overwrite=True) as partial:
        partial.write_text(settings.model_dump_json(indent=1), encoding="utf-8")
    if node_folder.runs_part(role, "keeper"):
        hashing.patient_key_id()  # which the audit's pseudonyms of patients need
        database = record_database.open_database(settings.database_url)
        with record_database.only_keeper(database):  # before its tables are changed
            migration.migrate_database(settings.database_url, folder / BACKUPS).close()
        if password := os.environ.get(ADMIN_PASSWORD):
            Accounts(database).first(password)
        database.close()
    if node_folder.runs_part(role, "keeper") or (role == "worker" and settings.models):
        _load_models(settings, role)
    return settings


def _refuse_limits(settings: NodeSettings, role: str) -> None:
    """Raise UsageError for a limit that is above all that this machine has."""
    folder = next(one for one in (settings.folder, *settings.folder.absolute().parents) if one.exists())
    disk, memory = shutil.disk_usage(folder).total, psutil.virtual_memory().total
    # The defaults of memory are for any machine.
    limits = [("receiver", "node", "min_free_gb", settings.node.min_free_gb, disk, f"the disk of {folder}")]
    for part, key in (("worker", "queue"), ("web", "page")):
        section = getattr(settings, key)
        if "memory_gb" in section.model_fields_set:
            limits.append((part, key, "memory_gb", section.memory_gb, memory, "the memory of this machine"))
    for part, table, key, limit, total, what in limits:
        if node_folder.runs_part(role, part) and limit * 1e9 > total:
            problem = f"{table}.{key} is {limit:g} GB, and {what} has {total / 1e9:.0f} GB in all"
            raise UsageError(problem, settings.place(table, key) or "serve", f"Give less than {total / 1e9:.0f}")


def _load_models(settings: NodeSettings, role: str) -> None:
    """Load each model once, in a process of its own, so that this one stays small; a keeper's are described."""
    step = "describe" if node_folder.runs_part(role, "keeper") else "try"
    file = node_folder.settings_file(settings.folder, role)
    command = [sys.executable, "-m", "hilum.service", step, str(file), step]
    done = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL)  # noqa: S603
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip().splitlines() or ["the node's models: do not load"]
        where, _, text = words[-1].removesuffix(".").partition(": ")
        problem, _, remedy = text.rpartition(". ")
        raise UsageError(problem or text, where, remedy if problem else "Correct it, or leave it out")


def _refuse_no_build(folder: Path) -> None:
    """Raise UsageError for a folder without a build of OHIF."""
    if not all((folder / name).is_file() for name in OHIF):
        remedy = "Run `npm pack @ohif/app`, unpack it, and name the folder package/dist"
        raise UsageError(f"holds no build of OHIF: {' and '.join(OHIF)}", str(folder), remedy)


def _free(host: str, port: int) -> int:
    """The port, or a free one for 0, which nobody else is given meanwhile. Raises UsageError where it is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
            trial.listen(1)
        except OSError as error:
            problem = f"the port cannot be listened on: {error.strerror}"
            raise UsageError(problem, f"{host}:{port}", "Choose another port") from error
        if port == 0:  # a connection that has just ended keeps it for a minute from all who do not name it
            with socket.create_connection(trial.getsockname()[:2]):
                trial.accept()[0].close()
        return int(trial.getsockname()[1])


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One node a folder, for as long as the process lives."""
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError("another node runs in this folder", str(folder), "Stop it, or choose another") from error
        yield
