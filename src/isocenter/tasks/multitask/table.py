"""The rows of several tasks in one table of cases, and out of it again."""

from __future__ import annotations

from isocenter.evaluation import Table

# Of every row, whatever part it is of.
COMMON = ("case", "patient", "split", "label")
SIGN, OF = ".", ": "


def with_part(name: str, table: Table) -> Table:
    """A part's table whose labels and columns say whose they are: no two parts have any in common."""
    renamed = table.rename(columns={key: f"{name}{SIGN}{key}" for key in table if key not in COMMON})
    return renamed.assign(label=[f"{name}{OF}{label}" for label in table["label"]])


def of_part(name: str, table: Table) -> Table:
    """The inverse: the rows of a part as it made them."""
    own = table[[str(label).startswith(f"{name}{OF}") for label in table["label"]]]
    columns = [key for key in table if key in COMMON or str(key).startswith(f"{name}{SIGN}")]
    renamed = own[columns].rename(columns={key: str(key).removeprefix(f"{name}{SIGN}") for key in columns})
    labels = [str(label).removeprefix(f"{name}{OF}") for label in own["label"]]
    return renamed.assign(label=labels).infer_objects().reset_index(drop=True)
