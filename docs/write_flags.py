"""The page of all flags and keywords, made of the options of each command.

python docs/write_flags.py        # writes docs/flags.md
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from isocenter.cli.commands import COMMANDS, JSON, Command
from isocenter.keywords import Keyword, keywords_of
from isocenter.reading import ReadingOptions

PAGE = Path(__file__).parent / "flags.md"
HEAD = """# Flags and keywords

`python docs/write_flags.py` writes this page from the options of each command (`src/isocenter/options`). A flag is the
keyword of the same name in Python, where the second column states no other: `--fill-missing` is `fill_missing=True`.
"""
DATA = """## Reading data

Commands that read a data set have these flags too: {commands}.
[How ambiguous data are read](how-to/check.md#flags-for-ambiguous-data) has examples.
"""
READING = frozenset(keywords_of(ReadingOptions))


def page() -> str:
    """The page: the flags of reading, then every command with its own."""
    reading = [f"`{one.words}`" for one in COMMANDS if issubclass(one.options, ReadingOptions)]
    shared = [DATA.format(commands=", ".join(reading)), table(Command("reading", ReadingOptions, is_json=False))]
    return "\n".join([HEAD, *shared, *(line for one in COMMANDS for line in section(one))]).rstrip() + "\n"


def section(command: Command) -> Iterator[str]:
    """A command: what it does, how it is called, its flags but those of reading."""
    yield f"## {command.words}\n"
    yield f"{command.function.__doc__}\n"
    yield table(command, READING if issubclass(command.options, ReadingOptions) else ())


def table(command: Command, others: Iterable[str] = ()) -> str:
    """A row for each flag that is not among the others."""
    rows = [row(command, one) for name, one in command.keywords.items() if name not in others]
    rows += [("`--json`", "", JSON, "")] if command.is_json else []
    lines = ["| flag | keyword | meaning | default |", "|---|---|---|---|", *(f"| {' | '.join(one)} |" for one in rows)]
    return "\n".join(lines) + "\n"


def row(command: Command, keyword: Keyword) -> tuple[str, str, str, str]:
    """Flag, keyword where its name is another, meaning, default where the meaning does not state it."""
    flag = keyword.flag
    assert flag is not None  # noqa: S101 - a command lists keywords with a flag
    typed = keyword.typed if keyword.typed == flag.metavar else f"{keyword.typed} {flag.metavar}".rstrip()
    own = "" if keyword.typed == f"--{keyword.name.replace('_', '-')}" else f"`{keyword.name}`"
    is_shown = keyword.default not in ("", None) and not isinstance(keyword.default, bool | tuple)
    has_default = is_shown and not keyword.is_required
    default = f"`{keyword.default}`" if has_default else ""
    cells = (f"`{typed}`", own, command.filled(flag.help).replace("<", "&lt;"), default)
    first, second, third, fourth = (one.replace("|", "\\|").replace("*", "\\*") for one in cells)
    return first, second, third, fourth


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
