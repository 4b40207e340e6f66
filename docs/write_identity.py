"""The page of what is known to say who somebody is, made of the list that the code reads.

python docs/write_identity.py        # writes docs/identity.md
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hilum.values import personal_columns, personal_values

PAGE = Path(__file__).parent / "identity.md"
HEAD = """# What says who somebody is

`python docs/write_identity.py` writes this page from the list by which tables are read.

A column of one of these names, in any case, joined or with underscores, enters no table of cases, makes groups and is a
covariate only where a person names it, is quoted in no error of a table, and [agents](how-to/agents.md) see pseudonyms in its place; [`deidentify`](how-to/deidentify.md) names it
where it refuses a table. Names after *alone* count only where nothing but words for a person stands beside them, as in
`patient_name`.
"""
VALUES = """## Values

Whatever a column is called, agents do not see a cell that is an e-mail address, a telephone number, a date, a whole
number of eight digits or more or with a leading 0, or one of these numbers by its check digit:

| number | rule |
|---|---|
"""
REST = """
The United States' social security number has no check digit: three, two and four digits with hyphens, none of them
zeros, the first part neither 666 nor 900 and more (SSA, POMS RM 10201.035).

## Columns of which nothing is known

Agents read numbers, yes and no. Other text is left out, unless a person names the column: `hilum mcp --show-column
COLUMN`. Words of these columns are shown:
"""


def page() -> str:
    """The page: columns a kind and language, values, and columns that are shown."""
    lines = [HEAD, *(line for kind in personal_columns.KNOWN for line in section(kind)), VALUES.rstrip("\n")]
    for kind, check in personal_values.CHECKS.items():
        lines.append(f"| {kind} | {(check.__doc__ or '').replace('|', ' ').strip()} |")
    plain = ", ".join(sorted(personal_columns.PLAIN))
    return "\n".join([*lines, REST, plain + "."]) + "\n"


def section(kind: str) -> Iterator[str]:
    """The names of columns of one kind, a line a language."""
    yield f"## {kind[0].upper()}{kind[1:]}\n\n| language | names of columns |\n|---|---|"
    for language in personal_columns.LANGUAGES:
        names = personal_columns.KNOWN[kind][language].split(", ")
        alone = [name.removeprefix("=") for name in names if name.startswith("=")]
        within = [name for name in names if not name.startswith("=")]
        parts = [", ".join(within)] if within else []
        parts += [f"alone: {', '.join(alone)}"] if alone else []
        yield f"| {language} | {'; '.join(parts)} |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
