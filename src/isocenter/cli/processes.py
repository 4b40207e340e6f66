"""The one of several processes that prints."""

from __future__ import annotations

import os


def speaks() -> bool:
    """Whether this process says what is done: of several that torchrun has begun only the first."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK", "0") == "0"
