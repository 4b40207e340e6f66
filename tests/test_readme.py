"""What README and documentation tell a reader to type exists: verbs, flags, decisions, functions, keywords, files."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer.main

import hilum
from hilum.cli.terminal import app
from hilum.networks.network_family import Family
from hilum.objectives.objective_terms import Objective
from hilum.tasks import Task
from hilum.values import ReferenceKind

ROOT = Path(__file__).parents[1]
PAGES = [
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if path.name not in ("corpus.md", "CHANGELOG.md")
]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Of which typer has no public name.
UsageError: type[Any] = typer.BadParameter.__mro__[1]
# What verbs pass on to the readers of data, and what `read` and `convert` pass on to the reader of a file.
DATA_FLAGS = {
    "layout",
    "labels",
    "patient",
    "class_rule",
    "column",
    "modality",
    "part",
    "prefer",
    "fill_missing",
    "fill_contours",
    "align",
}
COMMAND = typer.main.get_command(app)
VERBS = {name: COMMAND.get_command(None, name) for name in COMMAND.list_commands(None)}  # type: ignore[attr-defined]
# The page of a verb, where it has not the verb's name.
PAGE_OF = {
    "mcp": "agents",
    "federation": "federate",
    **dict.fromkeys(("doctor", "info", "convert", "view", "embed", "networks", "cache", "demo"), "commands"),
    **dict.fromkeys(("audit", "backup", "restore", "inventory"), "keep"),
}
# A call of ours in a block: variables or a launcher may stand before it.
CALL = re.compile(r"(?:\$ )?(?:\w+=(?:'[^']*'|\"[^\"]*\"|\S*) )*(?:\.venv/bin/|torchrun .* -m )?hilum (.*)")
# Commands of other programs in a block, and what a test would lack to run them.
OTHER_PROGRAMS = {
    "pip": "a network",
    ".venv/bin/pip": "a network",
    "npm": "a network",
    "tar": "what npm has fetched",
    "python3": "an environment of its own",
    "make": "hours, or an environment of its own",
    "chromium": "a browser",
    "curl": "a node that runs",
    "storescu": "a node that runs",
    "ls": "a node that runs",
    "createdb": "PostgreSQL",
    "dask": "a cluster",
    "export": "a shell",
    "pytest": "the whole suite",
    "python": "a package, or minutes for a bench",
    ".venv/bin/python": "minutes for a bench",
}


# Bytes of pages that no script writes.
MOST_BY_HAND = 289_000
# What the first lines of a page say that a script writes.
MADE = re.compile(r"`(?:python|make) [^`]+` writes this (?:page|table)|Written by `")


def blocks(*languages: str) -> Iterator[tuple[str, str]]:
    """(page, text) of the code blocks in these languages."""
    for page in PAGES:
        for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            if language in languages:
                yield page.relative_to(ROOT).as_posix(), text


def commands() -> list[tuple[str, str]]:
    """(page, line) of every call of hilum, in blocks and in running text."""
    found = [(page, f"hilum {called[1]}") for page, line in typed_lines() if (called := CALL.match(line))]
    for page in PAGES:
        spans = re.findall(r"`(hilum [^`\n]+)`", page.read_text(encoding="utf-8"))
        found += [(page.relative_to(ROOT).as_posix(), span) for span in spans]
    return sorted(set(found))


def typed_lines() -> list[tuple[str, str]]:
    """(page, line) of what a reader types in a block: after `$` in a console, every line of a script."""
    found = []
    for page, text in blocks("console", "sh", "bash"):
        lines = text.replace("\\\n", " ").splitlines()
        is_console = any(line.startswith("$ ") for line in lines)
        found += [(page, line.removeprefix("$ ")) for line in lines if line.startswith("$ ") or not is_console]
    return found


def snippets() -> list[tuple[str, ast.Module]]:
    return [(page, ast.parse(text)) for page, text in blocks("python")]


def dotted(node: ast.expr) -> str | None:
    """`hilum.files.file_formats.read` of an expression that is names with dots."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return None


def found(name: str) -> Any:
    """What a dotted name of ours stands for; AttributeError or ImportError where there is nothing."""
    thing: Any = hilum
    for part in name.split(".")[1:]:
        thing = getattr(thing, part, None) or importlib.import_module(f"{thing.__name__}.{part}")
    return thing


def test_there_is_something_to_check() -> None:
    assert len(commands()) > 20
    assert len(snippets()) > 8


def test_every_command_names_a_verb_and_flags_that_exist() -> None:
    assert [(page, line) for page, line in commands() if not can_be_given(line)] == []


def test_every_command_of_a_block_is_understood_by_the_parser_of_its_verb() -> None:
    calls = [(page, called[1]) for page, line in typed_lines() if (called := CALL.match(line))]
    assert len(calls) > 100
    assert [(page, line, problem) for page, line in calls if (problem := parsing_problem(line))] == []


def parsing_problem(line: str) -> str:
    """What the command's own parser says against a call: an unknown verb or flag, a wrong value, what is missing."""
    command, name, words = COMMAND, "hilum", shlex.split(line, comments=True)
    context = None
    try:
        while True:
            context = command.make_context(name, list(words), parent=context)
            words = [*getattr(context, "_protected_args", ()), *context.args]
            if not words or not hasattr(command, "resolve_command"):
                return ""
            name, command, words = command.resolve_command(context, words)  # type: ignore[assignment]
    except typer.Exit:  # --help
        return ""
    except UsageError as error:
        return error.format_message()


def test_every_other_command_of_a_block_is_marked_with_what_a_test_lacks() -> None:
    others = [(page, line) for page, line in typed_lines() if not CALL.match(line) and line.strip()]
    assert [(page, line) for page, line in others if line.split()[0] not in OTHER_PROGRAMS] == []
    scripts = {script for _, line in others for script in re.findall(r"\b(?:bench|docs)/\w+\.py", line)}
    assert [script for script in scripts if not (ROOT / script).is_file()] == []
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    asked = {extra for _, line in others for extra in re.findall(r"'\.\[(\w+)\]'", line)}
    assert asked <= stated.keys()


def can_be_given(line: str) -> bool:
    """Whether a verb, or a group and its command, and all flags of a command exist."""
    words = shlex.split(line.partition("  #")[0])[1:]
    if words[0].startswith("-"):
        return words == ["--help"]
    verb = VERBS.get(words[0])
    if group := getattr(verb, "commands", None):
        verb = group.get(" ".join(words[1:2]), group.get(words[0]))
    flags = {flag for parameter in verb.params for flag in parameter.opts} if verb else set()
    return verb is not None and {word.partition("=")[0] for word in words if word.startswith("--")} <= flags


def test_every_decision_that_is_set_by_hand_is_one_of_a_plan() -> None:
    from hilum.tasks import task_catalogue
    from hilum.values import setting_fields

    of_tasks = {
        own for one in task_catalogue.task_names() for own in setting_fields.settings_in(task_catalogue.task_class(one))
    }
    lines = [(page, line) for page, line in commands() if "--set" in line]
    assert len(lines) > 10
    assert [(page, line, unknown) for page, line in lines if (unknown := unknown_decisions(line, of_tasks))] == []


def unknown_decisions(line: str, of_tasks: set[str]) -> set[str]:
    """What a command sets that no plan, or no design of a study, has."""
    from hilum.objectives import objective_catalogue
    from hilum.planning.typed_sections import TYPED  # typed sections know their names
    from hilum.studies import sizing
    from hilum.studies.sizing import DESIGNS

    words = shlex.split(line)
    given = {words[n + 1].partition("=")[0] for n, word in enumerate(words) if word == "--set"}
    if words[1:3] == ["study", "size"]:
        return given - {*sizing.known_inputs(DESIGNS[words[3]]), "name", "pilot"}
    if words[1:3] == ["study", "assign"]:  # strata of the plan of a trial
        return set()
    unknown = set()
    for name in given:
        section, _, key = name.partition(".")
        if section == "section":  # stands for any
            continue
        typed = (
            of_tasks
            if section == "task"
            else inspect.signature(TYPED.get(section) or objective_catalogue.objective_kind(section))
        )
        known = typed if isinstance(typed, set) else set(typed.parameters)
        unknown |= set() if key in known else {name}
    return unknown


def test_every_python_name_exists() -> None:
    missing = {page: [name for name in names_in(tree) if not is_there(name)] for page, tree in snippets()}
    assert {page: names for page, names in missing.items() if names} == {}


def names_in(tree: ast.Module) -> list[str]:
    """Every dotted name of ours in a snippet."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hilum"):
            names += [f"{node.module}.{one.name}" for one in node.names]
        name = dotted(node) if isinstance(node, ast.Attribute) else None
        names += [name] if name and name.startswith("hilum.") else []
    return names


def is_there(name: str) -> bool:
    try:
        found(name)
    except (AttributeError, ImportError):
        return False
    return True


def test_every_keyword_is_one_of_the_function() -> None:
    for page, call in (
        (page, node) for page, tree in snippets() for node in ast.walk(tree) if isinstance(node, ast.Call)
    ):
        name = dotted(call.func)
        if name and name.startswith("hilum."):
            known = inspect.signature(found(name)).parameters
            passed_on = DATA_FLAGS if any(one.kind is one.VAR_KEYWORD for one in known.values()) else set()
            assert {keyword.arg for keyword in call.keywords} <= {*known, *passed_on}, page


def test_pages_name_every_kind_of_dicom_object_that_is_written_and_no_other() -> None:
    from hilum.files.dicom.writing.dicom_answers import ANSWERS

    formats = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    [names] = re.findall(r"^\| DICOM \|.* of `predict`: ([^;]+);", formats, re.MULTILINE)
    assert names.split(", ") == [answer.name for answer in ANSWERS.values()]
    predict = (ROOT / "docs" / "how-to" / "predict.md").read_text(encoding="utf-8")
    [kinds] = re.findall(r"with `--answers`: (.*?)\. \[Which", predict)
    assert {*re.findall(r"`(\w+)`", kinds), "seg", "sr"} == {*ANSWERS}


def test_every_suffix_of_a_format_stands_on_the_page_of_formats() -> None:
    from hilum.files.file_formats import FORMATS

    named = {*re.findall(r"`(\.[\w.]+)`", (ROOT / "docs" / "formats.md").read_text(encoding="utf-8"))}
    assert [suffix for entry in FORMATS.values() for suffix in entry.suffixes if suffix not in named] == []


def test_every_verb_has_a_page_that_shows_it() -> None:
    for verb in VERBS:
        text = (ROOT / "docs" / "how-to" / f"{PAGE_OF.get(verb, verb)}.md").read_text(encoding="utf-8")
        assert f"hilum {verb}" in text
        assert "hilum." in text or verb == "demo"


@pytest.mark.parametrize(
    "script",
    [
        "write_api",
        "write_choices",
        "write_figures",
        "write_flags",
        "write_identity",
        "write_layouts",
        "write_records",
        "write_settings",
        "write_stated_facts",
        "write_threats",
        pytest.param("write_networks", marks=pytest.mark.whole),
    ],  # imports every library
)
def test_a_page_that_a_script_writes_is_what_the_script_writes(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    made = importlib.import_module(script)
    text = made.PAGE.read_text(encoding="utf-8")
    assert f"`python docs/{script}.py` writes this page" in text.split("\n\n")[1]
    assert text == made.page(), f"run: python docs/{script}.py"


def test_every_name_of_the_python_pages_exists() -> None:
    pages = sorted((ROOT / "docs" / "api").glob("*.md"))
    names = [
        name for page in pages for name in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert len(names) > 20
    assert [name for name in names if not is_there(name)] == []


def test_every_verb_and_every_kind_of_problem_has_its_place_on_the_python_pages() -> None:
    from hilum.tasks import task_catalogue

    verbs, tasks = ((ROOT / "docs" / "api" / f"{page}.md").read_text(encoding="utf-8") for page in ("verbs", "tasks"))
    assert [verb for verb in VERBS if f"::: hilum.verbs.{verb}\n" not in verbs] == []
    assert [
        name for name in task_catalogue.task_names() if f".{task_catalogue.task_class(name).__name__}\n" not in tasks
    ] == []


def test_members_on_the_python_pages_exist() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md"))
    stated = re.findall(r"^::: (\S+)\n    options: \{.*?members: \[(.*?)\]\}", text, re.MULTILINE)
    assert len(stated) > 30
    names = [f"{module}.{member}" for module, members in stated for member in members.split(", ")]
    assert [name for name in names if not is_there(name)] == []


@pytest.mark.parametrize("script", ["draw_rooms", "draw_way"])
def test_a_drawn_picture_is_what_its_script_draws(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    made = importlib.import_module(script)
    assert made.PICTURE.read_text(encoding="utf-8") == made.drawing()


def test_the_three_ways_of_reading_have_at_most_eight_pages_each() -> None:
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    [table] = [part for part in text.split("\n\n") if part.startswith("| a researcher with a folder |")]
    head, _, *rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    ways = {name: [row[n] for row in rows if row[n]] for n, name in enumerate(head)}
    assert len(ways) == 3
    assert all(0 < len(pages) <= 8 and all("](" in page for page in pages) for pages in ways.values())


def test_what_is_written_by_hand_can_be_read() -> None:
    texts = [page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md")]
    by_hand = [text for text in texts if not MADE.search("".join(text.splitlines()[:6]))]
    assert len(by_hand) < len(texts)
    over = sum(len(text.encode()) for text in by_hand) - MOST_BY_HAND
    assert over < 0, f"{over} bytes too many in pages by hand: shorten one, or let a script write what code says"


def test_pictures_are_small() -> None:
    pictures = [path for folder in ("images", "pictures") for path in (ROOT / "docs" / folder).iterdir()]
    assert pictures
    assert all(picture.stat().st_size < 200_000 for picture in pictures)


def files_of_the_tree() -> list[Path]:
    """The files that git has or would take; without a repository all that lie in no hidden folder and no cache."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        listed = []
    paths = [ROOT / name for name in listed if name]
    if not paths:
        hidden = re.compile(r"(^|/)(\.|__pycache__/)")
        paths = [path for path in ROOT.rglob("*") if not hidden.search(path.relative_to(ROOT).as_posix())]
    return [path for path in paths if path.is_file()]


def test_no_file_but_the_changelog_holds_the_name_that_the_product_had_before() -> None:
    earlier_name = "iso" + "center"
    files = [path for path in files_of_the_tree() if path != ROOT / "CHANGELOG.md"]
    assert Path(__file__) in files
    named = [path.relative_to(ROOT).as_posix() for path in files]
    holding = [name for name in named if earlier_name in name.lower()]
    holding += [name for name in named if earlier_name.encode() in (ROOT / name).read_bytes().lower()]
    assert not holding


def test_the_version_stands_once_in_every_place() -> None:
    version = hilum.__version__
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def described(heading: str) -> set[str]:
    """The names in the first column of a table of CONTRIBUTING.md, by the words in its head."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    [table] = [part for part in text.split("\n\n") if part.startswith(f"| {heading} |")]
    return {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_the_table_of_a_family_of_networks_has_each_of_its_fields():
    assert described("field of `Family`") - {"Family"} == {field.name for field in fields(Family)}


def test_the_table_of_a_task_has_each_of_its_members():
    assert described("member") == {name for name in {**vars(Task), **Task.__annotations__} if not name.startswith("_")}


def test_the_table_of_an_objective_has_each_of_its_members():
    members = {name for name in {**vars(Objective), **Objective.__annotations__} if not name.startswith("_")}
    assert described("member of `Objective`") - {"Objective"} == members


def test_the_table_of_a_kind_of_reference_has_each_of_its_fields():
    assert described("field") == {field.name for field in fields(ReferenceKind)} - {"name"}
