"""`serve`: a DICOM node around models, from the command line or within a program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from isocenter.errors import UsageError
from isocenter.service import Node, Role, Settings, prepared, read_settings

# Where a node lies if nothing says otherwise.
FOLDER = Path("node")


def serve(
    *models: str | Path,
    config: str | Path | None = None,
    folder: str | Path | None = None,
    role: Role = "all",
    check: bool = False,
    **sections: Mapping[str, Any],
) -> Node | Settings:
    """A running node: `stop()` ends it, and so does leaving its `with`.

    models:   folders of models, each named by its folder
    config:   a `node.toml`; without it a node on loopback
    folder:   of the node, in place of that of the file; one that is there is continued
    role:     "all", or the one process that this machine runs for a node that others share
    check:    stop once everything has been looked at; then the settings are given back
    sections: keys of the file's sections, such as dicom={"port": 0}
    Raises UsageError before anything is started: for an unknown key (with its line), a model that does not load, a port
    in use.
    """
    if role not in get_args(Role):
        raise UsageError(f"there is no role {role!r}", "--role", f"Choose one of {', '.join(get_args(Role))}")
    path = None if config is None else Path(config)
    place = Path(folder) if folder is not None else None if path is not None else FOLDER
    settings = read_settings(path, [Path(model) for model in models], place, **sections)
    absent = [str(one.path) for one in settings.models.values() if not one.path.exists()]
    if absent:
        raise UsageError("there is no such model", absent[0], "Give a run, a package or a foreign model")
    settings = prepared(settings, role)
    return settings if check else Node(settings, role).start()
