"""`serve`: a DICOM node around models, from the command line or within a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isocenter import service
from isocenter.errors import UsageError
from isocenter.keywords import named_keywords

if TYPE_CHECKING:
    from isocenter.service import Node

# Where a node lies if nothing says otherwise.
FOLDER = Path("node")
ROLES = ("all", "receiver", "keeper", "worker", "web", "monitor")
# Packages of the extra that any part of a node needs.
EXTRA = (
    *("pynetdicom", "dicomweb_client", "fastapi", "uvicorn", "sqlalchemy", "alembic", "prometheus_client"),
    *("fhir", "hl7"),
)


@named_keywords()
def serve(
    *models: str | Path,
    config: str | Path | None = None,
    folder: str | Path | None = None,
    role: str = "all",
    check: bool = False,
    node: Mapping[str, Any] | None = None,
    dicom: Mapping[str, Any] | None = None,
    http: Mapping[str, Any] | None = None,
    queue: Mapping[str, Any] | None = None,
    database: Mapping[str, Any] | None = None,
    study: Mapping[str, Any] | None = None,
    peers: Sequence[Mapping[str, Any]] | None = None,
    rules: Sequence[Mapping[str, Any]] | None = None,
    fhir: Mapping[str, Any] | None = None,
    hl7: Mapping[str, Any] | None = None,
) -> Node:
    """A running node: `stop()` ends it, and so does leaving its `with`.

    models:   folders of models, each named by its folder
    config:   a `node.toml`; without it a node on loopback
    folder:   of the node, in place of that of the file; one that is there is continued
    role:     "all", or the one part that this machine runs of a node that others share: one of `ROLES`
    check:    look at everything, and start nothing
    node, dicom, http, queue, database, study, fhir, hl7: keys of the file's sections that are set otherwise, as in
            dicom={"port": 0}
    peers, rules: in place of the file's
    Raises UsageError before anything is started: for an unknown key (with its line), a model that does not load, a port
    in use, the extra `service` that is not installed.
    """
    need_extra("serve")
    if role not in ROLES:
        raise UsageError(f"there is no role {role!r}", "--role", f"Choose one of {', '.join(ROLES)}")
    path = None if config is None else Path(config)
    place = Path(folder) if folder is not None else None if path is not None else FOLDER
    lists = {"peers": peers, "rules": rules}
    tables = {"node": node, "dicom": dicom, "http": http, "queue": queue, "database": database, "study": study}
    tables |= {"fhir": fhir, "hl7": hl7}
    changes = {name: given for name, given in {**tables, **lists}.items() if given is not None}
    settings = service.read_settings(path, [Path(model) for model in models], place, **changes)
    absent = [str(one.path) for one in settings.models.values() if not one.path.exists()]
    if absent:
        raise UsageError("there is no such model", absent[0], "Give a run, a package or a foreign model")
    made = service.Node(service.prepared(settings, role), role)
    return made if check else made.start()


def need_extra(verb: str) -> None:
    """UsageError where what a node is made of is not installed."""
    absent = [name for name in EXTRA if find_spec(name) is None]
    if absent:
        raise UsageError(f"{absent[0]} is not installed", verb, "pip install 'isocenter[service]'")
