"""`serve`: a DICOM node around models, from the command line or within a program."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hilum import installation, keywords
from hilum.errors import UsageError
from hilum.options.node import ServeOptions
from hilum.service import configuration, supervisor

if TYPE_CHECKING:
    from hilum.service.supervisor import Node

# Where a node lies if nothing says otherwise.
FOLDER = Path("node")
ROLES = ("all", "receiver", "keeper", "worker", "web", "monitor")
# Packages of the extra that any part of a node needs.
EXTRA = (
    *("pynetdicom", "requests", "fastapi", "uvicorn", "sqlalchemy", "alembic", "prometheus_client"),
    *("fhir", "hl7"),
)

# The sections of node.toml, which the keywords of the same names set otherwise.
SECTIONS = ("node", "dicom", "http", "queue", "database", "study", "fhir", "hl7", "peers", "rules")


@keywords.takes(ServeOptions)
def serve(options: ServeOptions) -> Node:
    """A running node: `stop()` ends it, and so does leaving its `with`.

    Without `config` it is a node on loopback; a `folder` that is there is continued. A model is named by its folder.
    With a `role` this machine runs one part of a node that others share. With `check` nothing is started.
    Raises UsageError before anything is started: for an unknown key (with its line), a model that does not load, a port
    in use, the extra `service` that is not installed.
    """
    refuse_missing_extra("serve")
    if options.role not in ROLES:
        raise UsageError(f"there is no role {options.role!r}", "--role", f"Choose one of {', '.join(ROLES)}")
    path = None if options.config is None else Path(options.config)
    folder = Path(options.folder) if options.folder is not None else None if path is not None else FOLDER
    changes = {name: values for name in SECTIONS if (values := getattr(options, name)) is not None}
    settings = configuration.read_settings(
        path, [Path(model) for model in keywords.as_tuple(options.models)], folder, **changes
    )
    absent = {name: one.path for name, one in settings.models.items() if not one.path.exists()}
    for name, folder_named in absent.items():
        with settings.locate_errors("models", name, "path"):
            others = f"; nor are {', '.join(list(absent)[1:])}" if len(absent) > 1 else ""
            problem = f"there is no such model{others}"
            raise UsageError(problem, str(folder_named), "Give a run, a package or a foreign model")
    node = supervisor.Node(supervisor.prepare_node(settings, options.role), options.role)
    return node if options.check else node.start()


def refuse_missing_extra(verb: str) -> None:
    """UsageError where what a node is made of is not installed."""
    absent = [name for name in EXTRA if find_spec(name) is None]
    if absent:
        raise UsageError(f"{absent[0]} is not installed", verb, installation.install_line("service"))
