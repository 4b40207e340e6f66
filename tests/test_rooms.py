"""What holds for every room: its index, and that other rooms keep to it.

Each statement is of all files at once, and names those for which it does not hold: a test a file would be two thousand.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import ModuleType

import pytest

import isocenter

ROOT = Path(isocenter.__file__).parent
FOLDERS = {found.name for found in walk_packages([str(ROOT)], "isocenter.") if found.ispkg}
# `verbs` has no index: `isocenter` itself lists the verbs. A folder inside a room needs none either.
ROOMS = sorted(name for name in FOLDERS - {"isocenter.verbs"} if hasattr(import_module(name), "__all__"))
FILES = sorted(path.relative_to(ROOT.parent) for path in ROOT.rglob("*.py"))
IMPORT = re.compile(r"^[ \t]*(?:from [\w.]+ import (?:\([^)]*\)[^\n]*|[^(\n]+)|import [\w.]+[^\n]*)$", re.MULTILINE)


def by_kind(names: set[str]) -> list[str]:
    """CONSTANTS, then Classes, then functions, each by name."""
    return sorted(names, key=lambda name: (not name.isupper(), not name[:1].isupper(), name))


@cache
def text_of(path: Path) -> str:
    return (ROOT.parent / path).read_text(encoding="utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    """The source of a file, parsed once for all tests."""
    return ast.parse(text_of(path))


def imports_of(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """All imports of a file, wherever they stand: its lines are parsed that begin with one, and no others."""
    return [node for text in IMPORT.findall(text_of(path)) for node in ast.parse(text.strip()).body]


def rooms() -> list[ModuleType]:
    """Every room but `verbs`, and the folders in rooms that have an index of their own."""
    assert set(ROOMS) >= {name for name in FOLDERS if name.count(".") == 1} - {"isocenter.verbs"}
    return [import_module(name) for name in ROOMS]


def test_the_index_of_a_room_is_sorted_and_names_nothing_twice():
    indices = {room.__name__: list(room.__all__) for room in rooms()}
    assert {name: listed for name, listed in indices.items() if listed != by_kind(set(listed))} == {}


def test_the_index_of_a_room_has_what_it_lists():
    missing = {
        room.__name__: [listed for listed in room.__all__ if getattr(room, listed, None) is None] for room in rooms()
    }
    assert {name: lacking for name, lacking in missing.items() if lacking} == {}


def test_the_index_of_a_room_lists_each_name_that_it_finds_elsewhere_and_imports_nothing_more():
    unlisted = {}
    for room in rooms():
        tree = tree_of(Path(room.__file__).relative_to(ROOT.parent))
        blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
        imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
        elsewhere = {alias.asname or alias.name for node in imports for alias in node.names}
        if "lazy_index(__name__)" in ast.unparse(tree):
            unlisted[room.__name__] = elsewhere - set(room.__all__)
    assert len(unlisted) > 20
    assert {name: more for name, more in unlisted.items() if more} == {}


def test_no_file_in_a_room_has_the_name_of_something_that_the_index_finds_elsewhere():
    alike = {}
    for room in rooms():
        files = {path.stem for path in Path(room.__file__).parent.glob("*.py")} - {"__init__"}
        alike[room.__name__] = {listed for listed in room.__all__ if listed in files}
    assert {name: names for name, names in alike.items() if names} == {}


def test_every_name_of_the_package_can_be_had():
    assert [name for name in isocenter.__all__ if getattr(isocenter, name, None) is None] == []
    assert set(isocenter.__all__) <= set(dir(isocenter))


def test_a_name_that_the_package_does_not_have_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_verb"):
        isocenter.no_such_verb  # noqa: B018


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def imported_from_inside(path: Path) -> set[str]:
    """Files of other rooms that a file imports from."""
    own = room_of(".".join(path.with_suffix("").parts))
    imported = [node.module or "" for node in imports_of(path) if isinstance(node, ast.ImportFrom)]
    imported += [alias.name for node in imports_of(path) if isinstance(node, ast.Import) for alias in node.names]
    ours = (module for module in imported if module.startswith("isocenter.") and module.count(".") > 1)
    inside = {module for module in ours if room_of(module) != own and module not in FOLDERS}
    # The verbs have no index; whoever starts them names their file.
    return {module for module in inside if not module.startswith("isocenter.verbs.")}


def test_a_file_imports_from_another_rooms_index_and_not_from_inside_it():
    assert len(FILES) > 400
    assert {str(path): inside for path in FILES if (inside := imported_from_inside(path))} == {}


def test_reading_and_the_values_take_neither_torch_nor_monai_from_the_lazy_modules():
    taken = {}
    for path in (path for path in FILES if path.parts[1] in ("errors.py", "files", "values")):
        lazy = [node for node in imports_of(path) if getattr(node, "module", None) == "isocenter.lazy"]
        taken[str(path)] = {"monai", "torch"} & {alias.name for node in lazy for alias in node.names}
    assert len(taken) > 100
    assert {path: names for path, names in taken.items() if names} == {}


# Words that name nothing: what is meant has a name in the field.
RIDDLES = {"told", "said", "heard", "beside", "alone", "together", "way", "begin"}
# Where one of them may be a name that is given, and not a word of a sentence.
RIDDLE = re.compile(rf"\b_*(?:is_)?(?:{'|'.join(sorted(RIDDLES))})_*(?:\s*[=:,()\]]| in )")
# A column of the node's database and of its journal, kept for nodes that run.
STORED = {"way"}


def riddles_in(path: Path) -> set[str]:
    """Names of these words that a file gives."""
    if not RIDDLE.search(text_of(path)):  # as in most files; to look at all names takes seconds
        return set()
    nodes = list(ast.walk(tree_of(path)))
    given = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    given |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    given |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    stored = STORED if path.parts[1] == "service" else set()
    return {name.strip("_").removeprefix("is_") for name in given} & RIDDLES - stored


def test_no_name_that_a_file_gives_is_a_riddle():
    assert {str(path): names for path in FILES if (names := riddles_in(path))} == {}
