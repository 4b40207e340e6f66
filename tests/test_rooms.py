"""What holds for every room: its index, and that other rooms keep to it."""

from __future__ import annotations

import ast
from collections import Counter
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import isocenter

ROOT = Path(isocenter.__file__).parent
# `verbs` has no index: `isocenter` itself lists the verbs.
ROOMS = sorted(
    found.name for found in walk_packages([str(ROOT)], "isocenter.") if found.ispkg and found.name != "isocenter.verbs"
)
FILES = sorted(path.relative_to(ROOT.parent) for path in ROOT.rglob("*.py"))


def by_kind(names: set[str]) -> list[str]:
    """CONSTANTS, then Classes, then functions, each by name."""
    return sorted(names, key=lambda name: (not name.isupper(), not name[:1].isupper(), name))


@pytest.mark.parametrize("name", ROOMS)
def test_the_index_of_a_room_is_sorted_and_names_nothing_twice(name):
    listed = list(import_module(name).__all__)
    assert listed == by_kind(set(listed))


@pytest.mark.parametrize("name", ROOMS)
def test_the_index_of_a_room_has_what_it_lists(name):
    room = import_module(name)
    assert [listed for listed in room.__all__ if getattr(room, listed, None) is None] == []


@pytest.mark.parametrize("name", ROOMS)
def test_the_index_of_a_room_lists_each_name_that_it_finds_elsewhere_and_imports_nothing_more(name):
    tree = ast.parse(Path(import_module(name).__file__).read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    elsewhere = {alias.asname or alias.name for node in imports for alias in node.names}
    if "lazy_index(__name__)" in ast.unparse(tree):
        assert elsewhere <= set(import_module(name).__all__)


@pytest.mark.parametrize("name", ROOMS)
def test_no_file_in_a_room_has_the_name_of_something_that_the_index_finds_elsewhere(name):
    room = import_module(name)
    files = {path.stem for path in Path(room.__file__).parent.glob("*.py")} - {"__init__"}
    assert {listed for listed in room.__all__ if listed in files} - {
        "backend"
    } == set()  # `backend` is defined in its index


@pytest.mark.parametrize("name", sorted(isocenter.__all__))
def test_every_name_of_the_package_can_be_had(name):
    assert getattr(isocenter, name) is not None
    assert name in dir(isocenter)


def test_a_name_that_the_package_does_not_have_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_verb"):
        isocenter.no_such_verb  # noqa: B018


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_imports_from_another_rooms_index_and_not_from_inside_it(path):
    own = room_of(".".join(path.with_suffix("").parts))
    tree = ast.parse((ROOT.parent / path).read_text(encoding="utf-8"))
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    inside = {
        module
        for module in imported
        if module.startswith("isocenter.") and room_of(module) != own and module not in ROOMS and module.count(".") > 1
    }
    # The verbs have no index; whoever starts them names their file.
    assert {module for module in inside if not module.startswith("isocenter.verbs.")} == set()


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[1] in ("errors.py", "files", "values")], ids=str)
def test_reading_and_the_values_take_neither_torch_nor_monai_from_the_lazy_modules(path):
    tree = ast.parse((ROOT.parent / path).read_text(encoding="utf-8"))
    lazy = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "isocenter.lazy"]
    assert {"monai", "torch"} & {alias.name for node in lazy for alias in node.names} == set()


def test_no_folder_has_more_than_25_files_beside_its_index_but_that_of_networks():
    sizes = Counter(path.parent for path in FILES if path.name != "__init__.py")
    assert {str(folder): count for folder, count in sizes.items() if count > 25 and folder.name != "networks"} == {}


# Words that name nothing: what is meant has a name in the field.
RIDDLES = {"told", "said", "heard", "beside", "alone", "together", "way", "begin"}
# A column of the node's database and of its journal, kept for nodes that run.
STORED = {"way"}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_name_that_a_file_gives_is_a_riddle(path):
    nodes = list(ast.walk(ast.parse((ROOT.parent / path).read_text(encoding="utf-8"))))
    given = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    given |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    given |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    stored = STORED if path.parts[1] == "service" else set()
    assert {name.strip("_").removeprefix("is_") for name in given} & RIDDLES - stored == set()
