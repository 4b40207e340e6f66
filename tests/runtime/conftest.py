"""Packages of small models, which the tests of the runtime read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from made_once import made_once
from packages import TINY, packed


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Packages by the names in `TINY`; tests only read them, or copy them to damage them."""

    def make(name: str, root: Path) -> None:
        packed(TINY[name](), root / "tiny")

    return lambda name: made_once(tmp_path_factory, name, partial(make, name)) / "tiny"
