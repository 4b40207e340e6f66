"""What all tests share: where the real data lie, and a cache that is not the user's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

DATA = Path(os.environ.get("ISOCENTER_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))

settings.register_profile("suite", max_examples=40, deadline=None, derandomize=True)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data beside the checkout."""
    if not DATA.is_dir():
        pytest.skip("the real data are not at ../shared/data")
    return DATA


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the user's cache, or depends on what is in it."""
    monkeypatch.setenv("ISOCENTER_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
