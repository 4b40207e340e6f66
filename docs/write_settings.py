"""The page of every setting of a plan, made of the classes that hold them and of their docstrings.

python docs/write_settings.py        # writes docs/settings.md
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from hilum.objectives import objective_catalogue
from hilum.planning.typed_sections import TYPED
from hilum.tasks import task_catalogue
from hilum.values import setting_fields

# Setting, default, meaning.
Row = tuple[str, str, str]
PAGE = Path(__file__).parent / "settings.md"
HEAD = """# Settings of a plan

`python docs/write_settings.py` writes this page from the classes that hold the settings and their docstrings. Change a
setting in the file of a [plan](how-to/plan.md), or by `--set SECTION.NAME=VALUE` of `plan`, `train` and `pretrain`. A
default holds where no rule of the planner decides; `hilum plan DATA` prints what was decided for your data.
"""
NAMED = re.compile(r"^`?(?P<names>[a-z_]\w*(?:, [a-z_]\w*)*)`?:\s+(?P<text>\S.*)$")
# A second field in the text of the first: `readers: how masks become one; observers: their names`.
WITHIN = re.compile(r"; (?=[a-z_]+: )")
HEADING = ("| setting | default | meaning |", "|---|---|---|")


def page() -> str:
    """The page: the sections that each plan has, then those of each kind of problem and of each objective."""
    lines = [HEAD]
    for name, kind in TYPED.items():
        lines += section(f"## {name}", kind)
    lines.append(
        "## task\n\nThe kind of problem (`task.kind`, the flag `--task`) has the settings of its own section.\n"
    )
    for name in sorted(task_catalogue.task_names()):
        lines += section(f"### {name}", task_catalogue.task_class(name))
    lines.append(
        "## Sections of objectives\n\nEach objective that `objectives.terms` names has a section of its own name.\n"
    )
    for name in sorted(objective_catalogue.OBJECTIVES):
        lines += section(f"### {name}", objective_catalogue.objective_kind(name))
    return "\n".join(lines).rstrip() + "\n"


def section(heading: str, kind: Any) -> Iterator[str]:
    """A heading, what the section is about, and a row for each setting."""
    yield f"{heading}\n"
    yield f"{first_sentence(kind)}\n"
    if found := list(rows(kind)):
        yield "\n".join([*HEADING, *(f"| {' | '.join(one)} |" for one in found)]) + "\n"


def rows(kind: Any) -> Iterator[Row]:
    """A row for each setting of a class and of its groups."""
    for name, one in setting_fields.settings_in(kind).items():
        yield row(name, one.default, meanings(one.owner).get(one.attribute, ""), choices(one.type) or one.choices)


def row(name: str, default: Any, meaning: str, allowed: Any) -> Row:
    """One setting as cells of a table."""
    words = ", ".join(f"`{one}`" for one in allowed)
    text = f"{meaning} ({words})" if words and meaning else meaning or words
    shown = "" if default is MISSING or default is None or isinstance(default, type) else f"`{plain(default)}`"
    return f"`{name}`", shown, escape(text)


def escape(text: str) -> str:
    """A text as Markdown in the cell of a table."""
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def plain(value: Any) -> str:
    """A default as a plan writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else str(value)


def choices(kind: Any) -> tuple[str, ...]:
    """The words among which a setting of this type chooses."""
    literals = [one for one in (kind, *get_args(kind)) if get_origin(one) is Literal]
    return tuple(str(word) for one in literals for word in get_args(one) if word is not None)


def first_sentence(kind: Any) -> str:
    """What the docstring of a class says before its list."""
    return " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())


def meanings(kind: Any) -> dict[str, str]:
    """{field: its meaning} of a class by its docstring; those of its bases first, so that a class may say one anew."""
    found = dict[str, str]()
    for base in reversed(kind.__mro__):
        found |= named_lines(base.__doc__ or "", {one.name for one in fields(kind)})
    return found


def named_lines(docstring: str, known: Collection[str] | None) -> dict[str, str]:
    """{name: meaning} of the lines `name: meaning` of a docstring; of all names, or of those that are known."""
    found, names = dict[str, str](), list[str]()
    for line in inspect.cleandoc(docstring).splitlines():
        if named := NAMED.match(line):
            names = named["names"].split(", ")
            found |= dict.fromkeys(names, named["text"])
        elif names and line.startswith(" "):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            names = []
    for name, text in list(found.items()):
        first, *others = WITHIN.split(text)
        parts = dict(one.split(": ", 1) for one in others)
        found |= {name: first, **parts} if parts.keys() <= set(known or parts) else {}
    return {name: text for name, text in found.items() if known is None or name in known}


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
