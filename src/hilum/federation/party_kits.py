"""Kits of the parties of a federation: who each is, what a job may do there, and what passes through its folder."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML, YAMLError

from hilum import errors, installation
from hilum.errors import HilumError, ResourceError, UsageError
from hilum.federation import exchanges
from hilum.federation.exchanges import SERVER, Answer, SiteMessage
from hilum.federation.federated_run import JobRecord
from hilum.files.storage import atomic, structured_text
from hilum.reading import ReadingOptions
from hilum.runs.plan_request import PlanRequest
from hilum.runtime import record_files
from hilum.values import plain_values

KIT = "hilum.json"
SCHEMA = "hilum.kit"
# In a kit: the operator's, in the server's; how a job ended; the plan about which a person is asked; the agreed one.
OPERATOR = "operator"
END = "end.json"
ASKED = "asked-plan.yaml"
ANSWER = "answer.txt"
CARRIER = "hilum.federation.nvflare_carrier"
OURS = [f"{CARRIER}.JobController", f"{CARRIER}.SiteExecutor"]
# Nobody may bring code: in a job that does NVFlare asks for no list of classes.
GRANTED = ("submit_job", "manage_job", "download_job", "view", "operate")
REFUSED = ("clone_job", "shell_commands", "byoc", "server-predeployed-flwr")
SHARED = "/tmp/nvflare"  # noqa: S108 - where all federations of a machine would keep their jobs
# What a server tells sites of the wishes of a person; how files are read each site says itself.
ASKED_OF_SITES = ("minutes", "device", "threads", "seed", "task", "everything", "assignments")
# s between two looks at what another process writes.
LOOK = 0.5


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
        module = f"nvflare.private.fed.app.{kind}.{kind}_train"
        named = [f"uid={self.party}"] * (kind != SERVER)
        settings = ["secure_train=true", "org=hilum", "config_folder=config", *named]
        return [sys.executable, "-m", module, "-m", str(self.folder), "-s", f"fed_{kind}.json", "--set", *settings]


def read_kit(folder: Path, **own: Any) -> Kit:
    """Whose kit lies in a folder, with what is said of this machine; UsageError where none does."""
    if not (folder / KIT).is_file():
        raise UsageError("holds no kit", str(folder), "Give a folder that `hilum federation provision` wrote")
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


def write_job(folder: Path, request: PlanRequest, record: JobRecord) -> Path:
    """The job in NVFlare's layout: two classes of ours, what was asked for, and no path of any machine."""
    asked = json.dumps(plain_values.as_json({name: getattr(request, name) for name in ASKED_OF_SITES}))
    workflow = {"id": "hilum", "path": OURS[0], "args": {"request": asked, "record": json.dumps(asdict(record))}}
    executor = {"tasks": ["*"], "executor": {"path": OURS[1], "args": {"request": asked}}}
    meta = {"name": "hilum", "deploy_map": {"app": ["@ALL"]}, "min_clients": record.min_sites or 1}
    server = {"server": {"task_request_interval": LOOK}, "workflows": [workflow]}
    (folder / "app" / "config").mkdir(parents=True)
    for name, content in (("server", server), ("client", {"executors": [executor]})):
        text = json.dumps({"format_version": 2, "components": [], **content}, indent=1)
        atomic.write_text(folder / "app" / "config" / f"config_fed_{name}.json", text)
    atomic.write_text(folder / "meta.json", json.dumps(meta | {"resource_spec": {}}))
    return folder


def read_request(text: str, own: Mapping[str, Any]) -> PlanRequest:
    """What was asked for by the server, and how this machine reads its files."""
    asked = structured_text.parse_json(text)
    reading = ReadingOptions(**own.get("reading", {}))
    return PlanRequest(**{name: asked[name] for name in ASKED_OF_SITES}, reading=reading)


def write_end(kit: Kit, error: HilumError | None = None) -> None:
    """How the job ended at this party."""
    message = SiteMessage("end") if error is None else exchanges.error_message(error)
    with atomic.write_whole(kit.folder / END, overwrite=True) as whole:
        whole.write_bytes(message.encoded)


def read_end(kit: Kit) -> Answer | None:
    """How it ended; None while it goes on."""
    end = kit.folder / END
    return exchanges.read_answer(end.read_bytes(), kit.party, 0.0) if end.is_file() else None


def discreet_error(error: HilumError, party: str) -> HilumError:
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


def refuse_missing_extra(what: str) -> None:
    """UsageError where NVFlare is not installed."""
    if find_spec("nvflare") is None:
        raise UsageError("nvflare is not installed", what, installation.install_line("federated"))
