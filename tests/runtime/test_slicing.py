from __future__ import annotations

import ast

import pytest

from hilum.runtime.package import script_sources

TEXT = '''"""A file."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

FACTOR = 2
# Of no use to anybody.
UNUSED = os.sep


class Kind:
    """One kind."""

    name = "kind"

    def __init__(self) -> None:
        self.value = FACTOR

    def predict(self) -> int:
        return self._doubled() + helped(3)

    # Only to learn.
    def loss(self, outputs: Tensor) -> Any:
        return re.sub("a", "b", str(outputs))

    def _doubled(self) -> int:
        return 2 * self.value


def helped(number: int) -> int:
    return int(np.int64(number))


def left(number: int) -> str:
    return os.sep * number
'''


def names(text: str) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def run(text: str) -> dict[str, object]:
    scope: dict[str, object] = {}
    exec(compile(text, "sliced", "exec"), scope)  # noqa: S102 - our own text
    return scope


def test_a_class_keeps_the_methods_that_are_asked_for_and_what_they_use():
    cut = script_sources.slice_source(TEXT, ["Kind"], ["predict"])
    assert names(cut) == {"Kind", "__init__", "predict", "_doubled", "helped"}
    assert "UNUSED" not in cut
    assert "Only to learn" not in cut
    assert run(cut)["Kind"]().predict() == 7


def test_imports_that_nothing_needs_any_more_are_gone():
    cut = script_sources.slice_source(TEXT, ["Kind"], ["predict"])
    imported = {alias.name for node in ast.walk(ast.parse(cut)) if hasattr(node, "names") for alias in node.names}
    assert imported == {"annotations", "numpy"}


def test_a_class_without_a_list_of_members_is_kept_whole():
    cut = script_sources.slice_source(TEXT, ["Kind"])
    assert {"loss", "predict"} <= names(cut)
    assert "from torch import Tensor" in cut


def test_a_function_takes_along_only_what_it_needs():
    cut = script_sources.slice_source(TEXT, ["helped"])
    assert names(cut) == {"helped"}
    assert run(cut)["helped"](4) == 4


def test_what_acts_when_the_file_is_imported_stays_with_the_names_that_it_uses():
    cut = script_sources.slice_source(
        "import logging\n\nlog = logging.getLogger('x')\nlog.disabled = True\n\n\ndef f():\n    return 1\n", ["f"]
    )
    assert run(cut)["log"].disabled


@pytest.mark.parametrize("name", ["helped", "Kind"])
def test_what_is_left_reads_as_it_was_written(name):
    cut = script_sources.slice_source(TEXT, [name])
    assert '"""A file."""' in cut
    assert "\n\n\n\n" not in cut
