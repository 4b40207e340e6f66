"""The page of all flags and keywords, made of the options of each command.

python docs/write_flags.py        # writes docs/flags.md
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from hilum import keywords
from hilum.cli.commands import JSON
from hilum.options import command_index
from hilum.options.command_index import COMMANDS, Command
from hilum.reading import ReadingOptions
from hilum.values import Setting

# Flag, keyword, meaning, default.
Row = tuple[str, str, str, str]
PAGE = Path(__file__).parent / "flags.md"
HEAD = """# Flags and keywords

`python docs/write_flags.py` writes this page from the options of each command (`src/hilum/options`). A flag is the
keyword of the same name in Python, where the second column states no other: `--fill-missing` is `fill_missing=True`.
"""
DATA = """## Reading data

Commands that read a data set have these flags too: {commands}.
[How ambiguous data are read](how-to/check.md#flags-for-ambiguous-data) has examples.
"""
COMMON = """## Most commands

These mean the same wherever a command has them, which its `--help` says.
"""
# Flags whose rows are alike in so many commands stand on the page once.
MANY = 5
HEADING = ("| flag | keyword | meaning | default |", "|---|---|---|---|")
READING = tuple(name for name, one in keywords.keywords_of(ReadingOptions).items() if one.text)


def page() -> str:
    """The page: the flags of reading, then every command with its own."""
    check = command_index.find_command("check")
    reading = [f"`{one.words}`" for one in COMMANDS if issubclass(one.options, ReadingOptions)]
    shared = [DATA.format(commands=", ".join(reading)), table(row(check, check.keywords[name]) for name in READING)]
    counts = Counter(one for command in COMMANDS for one in own_rows(command) if one[0].startswith("`--"))
    common = [one for one, count in counts.items() if count >= MANY]
    sections = (line for one in COMMANDS for line in section(one, common))
    return "\n".join([HEAD, COMMON, table(common), *shared, *sections]).rstrip() + "\n"


def section(command: Command, common: Iterable[Row]) -> Iterator[str]:
    """A command: what it does, and its flags but those of reading and those that most commands have."""
    yield f"## {command.words}\n"
    yield f"{command.text}\n"
    if own := [one for one in own_rows(command) if one not in common]:
        yield table(own)


def own_rows(command: Command) -> list[Row]:
    """The rows of a command but for the flags of reading."""
    return rows(command, READING if issubclass(command.options, ReadingOptions) else ())


def rows(command: Command, others: Iterable[str] = ()) -> list[Row]:
    """A row for each flag that is not among the others."""
    found = [row(command, one) for name, one in command.keywords.items() if name not in others]
    return found + ([("`--json`", "", JSON, "")] if command.is_json else [])


def table(found: Iterable[Row]) -> str:
    return "\n".join([*HEADING, *(f"| {' | '.join(one)} |" for one in found)]) + "\n"


def row(command: Command, keyword: Setting) -> Row:
    """Flag, keyword where its name is another, meaning, default where the meaning does not state it."""
    name = keyword.command_line_name
    typed = name if name == keyword.metavar else f"{name} {keyword.metavar}".rstrip()
    own = "" if name == f"--{keyword.attribute.replace('_', '-')}" else f"`{keyword.attribute}`"
    is_shown = keyword.default not in ("", None) and not isinstance(keyword.default, bool | tuple)
    has_default = is_shown and not keyword.is_required
    default = f"`{keyword.default}`" if has_default else ""
    cells = (f"`{typed}`", own, command.fill(keyword.help).replace("<", "&lt;"), default)
    first, second, third, fourth = (one.replace("|", "\\|").replace("*", "\\*") for one in cells)
    return first, second, third, fourth


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
