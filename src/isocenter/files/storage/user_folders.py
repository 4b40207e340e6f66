"""The folders that the system keeps for each user; containers run programs under numbers that have no home."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import platformdirs

APPLICATION = "isocenter"


def user_folder(of: Callable[..., str]) -> Path | None:
    """The folder that a function of platformdirs names, which need not exist; None for a user without a home."""
    try:
        folder = of(APPLICATION, appauthor=False)
    except RuntimeError:  # neither HOME nor the list of users has a home
        return None
    return None if folder.startswith("~") else Path(folder)  # older versions leave the word as it is


def user_cache() -> Path | None:
    """The user's cache folder."""
    return user_folder(platformdirs.user_cache_dir)


def user_configuration() -> Path | None:
    """The user's configuration folder."""
    return user_folder(platformdirs.user_config_dir)
