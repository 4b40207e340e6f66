"""NVFlare carries messages between machines: its kits, its jobs, and two classes of ours.

The only file that imports NVFlare, to which a message is bytes. Its own sum, which adds in order of arrival, is not
used.
"""

from __future__ import annotations

import logging
import queue
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller, Task
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.fuel.flare_api import flare_api
from nvflare.lighter.entity import Project
from nvflare.lighter.impl import cert, signature, static_file, workspace
from nvflare.lighter.provisioner import Provisioner

from hilum.errors import HilumError, IntegrityError, ResourceError, UsageError, WorkerLostError
from hilum.federation import exchanges, party_kits
from hilum.federation.exchanges import SERVER, TO_SERVER, TO_SITE, Answer, ExchangeRecords, SiteMessage
from hilum.federation.federated_job import FederatedJob
from hilum.federation.federated_run import JobRecord
from hilum.federation.party_kits import OPERATOR, FederationFile, Kit
from hilum.federation.site import Site
from hilum.files.storage import structured_text

# The name of our tasks, and of the bytes in them.
TASK = "hilum"
MESSAGE = "message"
# NVFlare calls its users by mail addresses; that of ours is in a domain that nobody can have, RFC 2606.
ORGANISATION = "hilum"
NAME = "operator@hilum.invalid"
# s between two looks at whether a site or the whole job is gone; to a connection.
LOOK = 0.5
PATIENCE = 2.0


def provision_kits(described: FederationFile, out: Path) -> None:
    """Kits of a new federation below `out`: one of the server, which may submit jobs, and one of each site."""
    sites = sorted(described.parties)
    port = described.port
    project = Project(ORGANISATION, "", props={"api_version": 3, "name": ORGANISATION})
    listens = {"default_host": described.host, "fed_learn_port": port, "admin_port": port}
    project.set_server(SERVER, ORGANISATION, listens)
    for site in sites:
        project.add_client(site, ORGANISATION, {})
    project.add_admin(NAME, ORGANISATION, {"role": "project_admin"})
    files = static_file.StaticFileBuilder("config", scheme="grpc")
    builders = [workspace.WorkspaceBuilder(), files, cert.CertBuilder(), signature.SignatureBuilder()]
    with tempfile.TemporaryDirectory() as folder:
        made = Provisioner(folder, builders).provision(project, logger=logging.Logger(__name__, logging.ERROR))
        if (current := made.get("current_prod_dir")) is None:
            raise ResourceError("NVFlare made no kits", str(out), "Check name, host and port")
        for party in (SERVER, *sites):
            shutil.copytree(Path(current, party), out / party)
            Kit(out / party, party, tuple(sites), port).write()
        shutil.copytree(Path(current, NAME), out / SERVER / OPERATOR)


@contextmanager
def open_session(server: Kit, seconds: float, look: Callable[[], None]) -> Iterator[flare_api.Session]:
    """The operator at the server, who submits jobs; ResourceError where it does not answer in so many s.

    look: called while nobody answers yet, and raises where nobody will
    """
    logging.getLogger("nvflare").setLevel(logging.CRITICAL)  # it logs each look at a server that is not there yet
    until = time.monotonic() + seconds
    folder = str(server.folder / OPERATOR)
    while True:
        look()
        try:
            with redirect_stdout(None):  # it speaks to a person at a terminal
                session = flare_api.new_secure_session(NAME, folder, timeout=PATIENCE)
            break
        except (flare_api.NoConnection, flare_api.AuthenticationError, flare_api.InternalError) as error:
            if time.monotonic() > until:
                raise ResourceError("the server does not answer", SERVER, "Look at its console.txt") from error
    try:
        yield session
    finally:  # also where the server is gone: its threads would keep this process from ending
        session.api.close()


class SiteExecutor(Executor):
    """A site's side of a job inside NVFlare: each task is a message, and the site's answer goes back."""

    def __init__(self, request: str) -> None:
        super().__init__()
        self._request = request
        self._began = time.monotonic()
        self._site: Site | None = None

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """The site's answer, or the error why there is none; an error ends no process."""
        kit = own_kit(fl_ctx)
        try:
            answer = self._answer(kit, exchanges.decode_message(bytes(shareable[MESSAGE]), SERVER))
        except HilumError as error:
            party_kits.write_end(kit, error)
            answer = exchanges.error_message(
                error if "is_alone" in kit.own else party_kits.discreet_error(error, kit.party)
            )
        return Shareable({MESSAGE: answer.encoded})

    def _answer(self, kit: Kit, message: SiteMessage) -> SiteMessage:
        own = kit.own
        least = int(message.facts.get("min_count", sys.maxsize))
        if least < own.get("min_count", 1):
            remedy = f"Ask for federation.min_count={own['min_count']}, or agree on less by --min-count there"
            raise UsageError(f"sends no facts of groups of {least}", f"site {kit.party}", remedy)
        if self._site is None:
            request = party_kits.read_request(self._request, own)
            self._site = Site(kit.party, own["data"] or None, Path(own["private"]), request, self._began)
        if message.kind == "plan" and own.get("asks"):
            party_kits.wait_for_agreement(kit, str(message.facts["plan"]))
        return self._site.answer(message)


class JobController(Controller):
    """The server's side of a job inside NVFlare: a `FederatedJob`, whose messages are tasks."""

    def __init__(self, request: str, record: str) -> None:
        super().__init__()
        self._request = request
        self._record = record

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Nothing: all is done in `control_flow`."""

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing: what is kept is on the disk."""

    def process_result_of_unknown_task(self, *_: Any) -> None:
        """Nothing: an answer that comes too late belongs to no round."""

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """The job from its last whole round on; how it ended is written into the server's kit."""
        kit = own_kit(fl_ctx)
        record = JobRecord(**structured_text.parse_json(self._record))
        carrier = TaskCarrier(self, fl_ctx, abort_signal, kit.sites, record.round_timeout)
        job = FederatedJob(Path(kit.own["out"]), carrier, record, kit.own["began"])
        try:
            job.run(party_kits.read_request(self._request, kit.own))
            party_kits.write_end(kit)
        except HilumError as error:
            party_kits.write_end(kit, error)


def own_kit(context: FLContext) -> Kit:
    """The kit that a process of NVFlare was started with."""
    return party_kits.read_kit(Path(context.get_prop(FLContextKey.WORKSPACE_ROOT)))


@dataclass(frozen=True, eq=False)
class TaskCarrier:
    """Messages as tasks of NVFlare, which all sites do at the same time.

    timeout: s that a site has for an answer; None: as long as it takes
    """

    controller: Controller
    context: FLContext
    abort: Signal
    sites: Sequence[str]
    timeout: float | None
    takes_turns: bool = False

    def ask(self, message: SiteMessage, number: int, records: ExchangeRecords) -> Iterator[tuple[str, Answer]]:
        """What each site does with a message, in order of arrival; number: of the round."""
        began = time.monotonic()
        sent = message.encoded
        arrived = queue.SimpleQueue[tuple[str, bytes]]()

        def receive(client_task: Any, fl_ctx: FLContext) -> None:
            # Taken out, so that one update is in memory at a time.
            arrived.put((client_task.client.name, client_task.result.pop(MESSAGE, b"")))

        task = Task(TASK, Shareable({MESSAGE: sent}), result_received_cb=receive)
        waiting = {*self.sites}
        self.controller.broadcast(task, self.context, [*self.sites], min_responses=len(self.sites))
        for site in self.sites:
            records.note_message(number, site, TO_SITE, message.kind, sent, 0.0)
        while waiting:
            try:
                site, encoded = arrived.get(timeout=LOOK)
                seconds = time.monotonic() - began
                if site in waiting:
                    records.note_message(number, site, TO_SERVER, message.kind, encoded, seconds)
                    yield site, exchanges.read_answer(encoded, site, seconds)
                waiting.discard(site)
            except queue.Empty:
                seconds = time.monotonic() - began
                for site in self._lost_among(waiting, seconds, is_ended=task.completion_status is not None):
                    error = WorkerLostError(f"gave no answer in {seconds:.0f} s", f"site {site}", "Look at its log")
                    yield site, Answer(None, error, seconds)
                    waiting.discard(site)
        self.controller.cancel_task(task)

    def _lost_among(self, waiting: set[str], seconds: float, *, is_ended: bool) -> list[str]:
        """The sites of which no answer will come; IntegrityError where the whole job was ended."""
        if self.abort.triggered or is_ended:
            raise IntegrityError("was ended from outside", "the job", "Go on with --resume")
        is_late = self.timeout is not None and seconds > self.timeout
        return [one for one in sorted(waiting) if is_late or self.controller.get_client_disconnect_time(one)]
