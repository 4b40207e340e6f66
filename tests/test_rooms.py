"""What holds for every room: its index, how other rooms import it, and that each name has one place and one meaning.

Each statement is of all files at once, and names those for which it does not hold: a test a file would be two thousand.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import hilum

ROOT = Path(hilum.__file__).parent
GLOSSARY = ROOT.parents[1] / "docs" / "glossary.md"
FILES = sorted(path.relative_to(ROOT.parent) for path in ROOT.rglob("*.py"))
MODULES = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
# `hilum` itself lists the verbs, and nobody imports the command line, whose index is the entry of the program.
ROOMS = sorted({".".join(path.parts[:2]) for path in FILES if len(path.parts) > 2} - {"hilum.verbs", "hilum.cli"})
IMPORT = re.compile(r"^[ \t]*(?:from [\w.]+ import (?:\([^)]*\)[^\n]*|[^(\n]+)|import [\w.]+[^\n]*)$", re.MULTILINE)
CLASS = re.compile(r"^class ([A-Za-z]\w*)", re.MULTILINE)
FUNCTION = re.compile(r"^(?:async )?def (\w+)", re.MULTILINE)


def by_kind(names: set[str]) -> list[str]:
    """CONSTANTS, then Classes, then modules, each by name."""
    return sorted(names, key=lambda name: (not name.isupper(), not name[:1].isupper(), name))


@cache
def text_of(path: Path) -> str:
    return (ROOT.parent / path).read_text(encoding="utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    """The source of a file, parsed once for all tests."""
    return ast.parse(text_of(path))


@cache
def imports_of(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """All imports of a file, wherever they stand: its lines are parsed that begin with one, and no others."""
    return [node for text in IMPORT.findall(text_of(path)) for node in ast.parse(text.strip()).body]


@cache
def index_of(room: str) -> dict[str, str]:
    """{name that the index of a room lists: dotted name of what it is}."""
    blocks = [node for node in tree_of(MODULES[room]).body if isinstance(node, ast.If)]
    for_types = [block for block in blocks if ast.unparse(block.test) == "TYPE_CHECKING"]
    imports = [node for block in for_types for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: f"{node.module}.{alias.name}" for node in imports for alias in node.names}


def is_defined(name: str) -> bool:
    """Whether a dotted name is a module, or a class or a constant at the top of one."""
    module, _, last = name.rpartition(".")
    defined = re.compile(rf"^(?:class |[\w, ]*, )?{last}\b[\w, ]*[=:(]", re.MULTILINE)
    return name in MODULES or bool(defined.search(text_of(MODULES[module])))


# Functions of a room that its users call by the room itself.
OF_THE_ROOM = {"hilum.evaluation.vessel_diameters.narrowing"}


def test_the_index_of_a_room_is_sorted_and_has_what_its_file_lists():
    listed = {room: list(import_module(room).__all__) for room in ROOMS}
    assert len(listed) > 20
    assert {room: names for room, names in listed.items() if names != by_kind(set(index_of(room)))} == {}


def test_the_index_of_a_room_lists_what_exists():
    missing = {
        room: [name for name in index_of(room).values() if not (is_defined(name) or name in OF_THE_ROOM)]
        for room in ROOMS
    }
    assert {room: names for room, names in missing.items() if names} == {}


def test_the_index_of_a_room_lists_its_public_modules_classes_and_constants_and_no_functions():
    wrong = defaultdict(set)
    for room in ROOMS:
        for name, place in index_of(room).items():
            is_module = place in MODULES and place == f"{room}.{name}" and not name.startswith("_")
            is_value = place not in MODULES and place.startswith(f"{room}.") and name[0].isupper()
            wrong[room] |= set() if is_module or is_value or place in OF_THE_ROOM else {name}
    assert {room: names for room, names in wrong.items() if names} == {}


def test_a_module_and_a_class_come_from_an_index_at_first_use():
    values = import_module("hilum.values")
    assert values.Geometry is import_module("hilum.values.grid_geometry").Geometry
    assert values.grid_geometry is import_module("hilum.values.grid_geometry")
    with pytest.raises(AttributeError, match="no_such_name"):
        values.no_such_name  # noqa: B018


def test_every_name_of_the_package_can_be_had():
    assert [name for name in hilum.__all__ if getattr(hilum, name, None) is None] == []
    assert set(hilum.__all__) <= set(dir(hilum))


def test_a_name_that_the_package_does_not_have_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_verb"):
        hilum.no_such_verb  # noqa: B018


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def imported_names(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name there) of all that a file imports of ours from another file."""
    for node in imports_of(path):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hilum":
            yield from ((str(node.module), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (tuple(alias.name.rpartition(".")[::2]) for alias in node.names if alias.name in MODULES)


def imports_past_an_index(path: Path) -> set[str]:
    """What a file imports of another room that the room's index does not list, or that is the room's own."""
    own, wrong = room_of(".".join(path.with_suffix("").parts)), set()
    for module, name in imported_names(path):
        room, inside = room_of(f"{module}.{name}"), f"{module}.{name}".split(".")[2:]
        if room == own or not inside or room.count(".") == 0 or MODULES.get(room, Path()).name != "__init__.py":
            continue
        is_own = module == room and f"{room}.{name}" not in MODULES and is_defined(f"{room}.{name}")
        is_listed = room not in ROOMS or inside[0] in index_of(room) or is_own
        wrong |= set() if is_listed and not any(part.startswith("_") for part in inside) else {f"{module}.{name}"}
    return wrong


def test_a_file_imports_of_another_room_what_its_index_lists_and_nothing_that_begins_with_an_underscore():
    assert len(FILES) > 400
    assert {str(path): wrong for path in FILES if (wrong := imports_past_an_index(path))} == {}


# The index of a package is made of functions: of the verbs, of the entry of the program, of the index itself.
OF_AN_INDEX = {"__init__.py"}


def test_functions_are_called_through_their_modules():
    functions = {module: set(FUNCTION.findall(text_of(path))) for module, path in MODULES.items()}
    bare = {
        str(path): {name for module, name in imported_names(path) if name in functions.get(module, ())}
        for path in FILES
        if path.name not in OF_AN_INDEX
    }
    assert sum(map(len, functions.values())) > 2000
    assert {path: names for path, names in bare.items() if names} == {}


def places_of_classes() -> dict[str, set[str]]:
    """{name of a public class: the modules that define one}."""
    places = defaultdict(set)
    for module, path in MODULES.items():
        for name in CLASS.findall(text_of(path)):
            places[name].add(module)
    return places


def first_column(heading: str) -> list[str]:
    """The cells in code of the first column of a table of the glossary, by its head."""
    [table] = [part for part in GLOSSARY.read_text(encoding="utf-8").split("\n\n") if part.startswith(f"| {heading} |")]
    return [row.split("|")[1].strip().strip("`") for row in table.splitlines()[2:]]


def test_a_public_class_has_a_name_of_its_own_but_for_those_that_the_glossary_states():
    places = places_of_classes()
    assert len(places) > 1000
    assert {name for name, modules in places.items() if len(modules) > 1} == set(first_column("name of two classes"))


def test_the_glossary_is_in_the_order_of_the_alphabet_and_its_classes_exist():
    words, places = first_column("word"), places_of_classes()
    assert len(words) > 60
    assert words == sorted(words, key=str.casefold)
    named = re.findall(r"`(\w+)\.([A-Z]\w*)`", GLOSSARY.read_text(encoding="utf-8"))
    assert len(named) > 60
    rooms = {(room_of(module).split(".")[-1], name) for name, modules in places.items() for module in modules}
    assert [f"{room}.{name}" for room, name in named if (room, name) not in rooms] == []


def imported_modules(path: Path) -> set[str]:
    """The names by which a file calls the modules that it imports at its top."""
    names = set()
    for node in tree_of(path).body:
        inner = node.body if isinstance(node, ast.If | ast.Try) else [node]
        for one in inner:
            if isinstance(one, ast.Import):
                names |= {alias.asname or alias.name.partition(".")[0] for alias in one.names}
            elif isinstance(one, ast.ImportFrom):
                modules = [alias for alias in one.names if f"{one.module}.{alias.name}" in MODULES]
                modules += one.names if one.module == "hilum.lazy" else []
                names |= {alias.asname or alias.name for alias in modules}
    return names


def names_given_in(tree: ast.AST) -> Iterator[str]:
    """Names of variables, parameters and functions; what a class holds is called through it, and is none of them."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name
            for one in node.body:
                if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield from names_given_in(one)
            continue
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ExceptHandler | ast.MatchAs) and node.name:
            yield node.name
        yield from names_given_in(node)


def hidden_modules(path: Path) -> set[str]:
    """Modules that a file imports at its top, and of which a variable, parameter or function has the name."""
    text = IMPORT.sub("", text_of(path))
    imported = {
        (alias.asname or alias.name).partition(".")[0]
        for node in imports_of(path)
        for alias in node.names
        if isinstance(node, ast.Import) or node.module == "hilum.lazy" or f"{node.module}.{alias.name}" in MODULES
    }
    # Most files never have such a name where one can be given; to look at all names of all files takes seconds.
    given = re.compile(rf"(?<![\w.])(?:{'|'.join(imported)})(?:\s*[=,:)\]]| in )|(?:def|as) (?:{'|'.join(imported)})\b")
    if not imported or not given.search(text):
        return set()
    return imported_modules(path) & set(names_given_in(tree_of(path)))


def test_no_variable_has_the_name_of_a_module_that_its_file_imports():
    lazy = {"hilum/lazy.py"}  # which makes the modules that stand for others
    assert {str(path): names for path in FILES if (names := hidden_modules(path)) and str(path) not in lazy} == {}


def test_a_variable_that_hides_a_module_is_found():
    tree = ast.parse(
        "import time\ndef f(errors):\n    for time in errors: pass\nclass A:\n    re: int\n    def os(self): pass"
    )
    assert set(names_given_in(tree)) == {"f", "errors", "time", "A", "self"}


def test_reading_and_the_values_take_neither_torch_nor_monai_from_the_lazy_modules():
    taken = {}
    for path in (path for path in FILES if path.parts[1] in ("errors.py", "files", "values")):
        lazy = [node for node in imports_of(path) if getattr(node, "module", None) == "hilum.lazy"]
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
    found = {str(path): names for path in FILES if (names := riddles_in(path))}
    assert found == {}, "these names say nothing (RIDDLES above): name what the value is"
