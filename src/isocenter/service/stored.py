"""Messages between the processes of a node, as files in its folder."""

from __future__ import annotations

import json
import logging
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

from isocenter.errors import UsageError, fault_of
from isocenter.files import load_json
from isocenter.service.routing.facts import ModelFacts
from isocenter.service.settings import Settings

# Signs of life, what the node was started with, what routing asks of its models, what the last round of monitoring has
# said, what happened.
ALIVE, SETTINGS, MODELS, MONITOR, LOG = "alive", "settings.json", "models.json", "monitor.json", "node.jsonl"
# The exit of a process that cannot go on whatever is tried again: its last words are the node's.
WRONG_USE = 2
# That of a process with an error of ours, whose words name no patient.
REFUSED = 3


def runs(role: str, part: str) -> bool:
    """Whether a machine of this role runs that part of the node."""
    return role in ("all", part)


def settings_file(folder: Path, role: str) -> Path:
    """The file with the settings of a machine's part: each machine has its own, and one folder holds all."""
    return folder / (SETTINGS if runs(role, "keeper") else f"settings-{role}@{platform.node()}.json")


def stored_settings(file: Path) -> Settings:
    """The settings that processes of a node were started with."""
    return Settings.model_validate(load_json(file))


def kept_settings(settings: Settings, *sections: str) -> Settings:
    """The settings of a machine's part with the keeper's `[node]` and sections, whatever its own file says of them."""
    keeper_settings = stored_settings(settings_file(settings.folder, "keeper"))
    node = keeper_settings.node.model_copy(update={"folder": settings.folder})
    return settings.model_copy(update={"node": node, **{name: getattr(keeper_settings, name) for name in sections}})


def node_settings(folder: Path) -> Settings:
    """The settings of the node in a folder. Raises UsageError where none was started there."""
    file = settings_file(folder, "keeper")
    if not file.is_file():
        raise UsageError("holds no node that was started", str(folder), "Give the folder of a node")
    settings = stored_settings(file)
    return settings.model_copy(update={"node": settings.node.model_copy(update={"folder": folder})})


def stored_models(folder: Path) -> dict[str, ModelFacts]:
    """The facts that routing asks of the node's models."""
    facts = [ModelFacts(**one) for one in load_json(folder / MODELS)["rows"]]
    return {one.name: one for one in facts}


def last_look(folder: Path) -> dict[str, Any]:
    """Result of the last round of monitoring; no rows before the first one."""
    path = folder / MONITOR
    return load_json(path) if path.is_file() else {"at": None, "rows": []}


class JsonLines(logging.Handler):
    """Appends each record as a line of JSON to the node's log, which several processes share."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__()
        self.file, self.process = os.open(folder / LOG, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o640), name

    def emit(self, record: logging.LogRecord) -> None:
        """The record's words; of an error its kind and place, because its text may hold what a file says."""
        line = {"at": round(record.created, 3), "process": self.process, "level": record.levelname.lower()}
        line |= {"message": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = fault_of(record.exc_info[1])
        with suppress(OSError):  # a full disk must not keep a process from saying so to its peer
            os.write(self.file, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        """Write nothing more."""
        os.close(self.file)
        super().close()
