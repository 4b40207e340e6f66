"""The folder for what can be made again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """The folder named by ISOCENTER_CACHE, else the user's cache folder."""
    return Path(os.environ.get("ISOCENTER_CACHE") or platformdirs.user_cache_dir("isocenter", appauthor=False))
