from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest

import isocenter.report
from isocenter.report import figures


@pytest.mark.parametrize("module", [isocenter.report, figures])
def test_the_index_lists_what_it_has_sorted_and_has_what_it_lists(module: ModuleType) -> None:
    kinds = lambda name: (not name.isupper(), not name[:1].isupper(), name)
    assert module.__all__ == sorted(module.__all__, key=kinds)
    assert all(getattr(module, name) is not None for name in module.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    assert not hasattr(figures, "no_such_chart")


def test_pages_are_made_without_loading_what_draws() -> None:
    code = "import isocenter.report, sys; print({'matplotlib', 'pandas', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
