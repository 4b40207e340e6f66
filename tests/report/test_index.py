from __future__ import annotations

import inspect
from types import ModuleType

import pytest

import isocenter.report
from isocenter.report import figures


@pytest.mark.parametrize("module", [isocenter.report, figures])
def test_the_index_lists_exactly_what_it_has_sorted(module: ModuleType) -> None:
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and (not inspect.ismodule(value) or name == "figures")
    }
    assert module.__all__ == sorted(module.__all__)
    assert set(module.__all__) == public
