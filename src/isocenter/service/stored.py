"""What the processes of a node tell each other by files in its folder."""

from __future__ import annotations

import platform
from pathlib import Path

from isocenter.files import load_json
from isocenter.service.routing import ModelFacts
from isocenter.service.settings import Settings

# Signs of life, what the node was started with, what routing asks of its models.
ALIVE, SETTINGS, MODELS = "alive", "settings.json", "models.json"
# The exit of a process that cannot go on whatever is tried again: its last words are the node's.
WRONG_USE = 2
# That of a process with an error of ours, whose words name no patient.
REFUSED = 3


def runs(role: str, part: str) -> bool:
    """Whether a machine of this role runs that part of the node."""
    return role in ("all", part)


def settings_file(folder: Path, role: str) -> Path:
    """Where the settings of a machine's part lie: each machine has its own, and one folder holds all."""
    return folder / (SETTINGS if runs(role, "keeper") else f"settings-{role}@{platform.node()}.json")


def stored_settings(file: Path) -> Settings:
    """The settings that processes of a node were started with."""
    return Settings.model_validate(load_json(file))


def stored_models(folder: Path) -> dict[str, ModelFacts]:
    """What routing asks of the node's models."""
    facts = [ModelFacts(**one) for one in load_json(folder / MODELS)["rows"]]
    return {one.name: one for one in facts}
