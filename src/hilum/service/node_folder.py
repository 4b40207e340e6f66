"""Messages between the processes of a node, as files in its folder."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import cast

from hilum import errors
from hilum.errors import UsageError
from hilum.files.storage import structured_text
from hilum.service.configuration import NodeSettings
from hilum.service.model_facts import ModelFacts
from hilum.service.node_monitor_record import NodeMonitorRecord

# Signs of life, what the node was started with, what routing asks of its models, what the last round of monitoring has
# said, what happened.
ALIVE, SETTINGS, MODELS, MONITOR, LOG = "alive", "settings.json", "models.json", "monitor.json", "node.jsonl"
# Held by who deletes files for good, or copies them.
RETENTION_LOCK = "retention.lock"
# Copies of the database as it was before its tables changed.
BACKUPS = "backups"
# The exit of a process that cannot go on whatever is tried again: its last words are the node's.
WRONG_USE = 2
# That of a process with an error of ours, whose words name no patient.
REFUSED = 3


def runs_part(role: str, part: str) -> bool:
    """Whether a machine of this role runs that part of the node."""
    return role in ("all", part)


def settings_file(folder: Path, role: str) -> Path:
    """The file with the settings of a machine's part: each machine has its own, and one folder holds all."""
    return folder / (SETTINGS if runs_part(role, "keeper") else f"settings-{role}@{platform.node()}.json")


def stored_settings(file: Path) -> NodeSettings:
    """The settings that processes of a node were started with."""
    return NodeSettings.model_validate(structured_text.load_json(file))


def settings_of_part(settings: NodeSettings, *sections: str) -> NodeSettings:
    """The settings of a machine's part with the keeper's `[node]` and sections, whatever its own file says of them."""
    keeper_settings = stored_settings(settings_file(settings.folder, "keeper"))
    node = keeper_settings.node.model_copy(update={"folder": settings.folder})
    return settings.model_copy(update={"node": node, **{name: getattr(keeper_settings, name) for name in sections}})


@contextmanager
def hold_retention(folder: Path, *, waits: bool = True) -> Iterator[bool]:
    """Keep retention, or a backup that others make, from the node's files meanwhile; False where it is held.

    waits: until it is free; else it counts as held where the disk is too full to say so
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context((folder / RETENTION_LOCK).open("w"))
            fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except OSError:
            if waits:
                raise
            yield False
        else:
            yield True


def node_settings(folder: Path) -> NodeSettings:
    """The settings of the node in a folder. Raises UsageError where none was started there."""
    file = settings_file(folder, "keeper")
    if not file.is_file():
        raise UsageError("holds no node that was started", str(folder), "Give the folder of a node")
    settings = stored_settings(file)
    return settings.model_copy(update={"node": settings.node.model_copy(update={"folder": folder})})


def stored_models(folder: Path) -> dict[str, ModelFacts]:
    """The facts that routing asks of the node's models."""
    facts = [ModelFacts(**one) for one in structured_text.load_json(folder / MODELS)["rows"]]
    return {one.name: one for one in facts}


def last_monitoring_round(folder: Path) -> NodeMonitorRecord:
    """Result of the last round of monitoring; no rows before the first one."""
    path = folder / MONITOR
    last = structured_text.load_json(path) if path.is_file() else {"at": None, "rows": []}
    return cast("NodeMonitorRecord", last)


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
            line["error"] = errors.describe_fault(record.exc_info[1])
        with suppress(OSError):  # a full disk must not keep a process from saying so to its peer
            os.write(self.file, json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        """Write nothing more."""
        os.close(self.file)
        super().close()
