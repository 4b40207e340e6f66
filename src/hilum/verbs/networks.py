"""`networks`: the families of network that a plan may name."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from hilum.lazy import pandas as pd
from hilum.networks import factory, member_catalogue
from hilum.networks.layouts import weight_layout
from hilum.report import InNotebook
from hilum.values.record_schema import RecordSchema, RowsRecord
from hilum.values.table_cells import TableRow

HEADINGS = ("name", "answers for", "axes", "image", "parameters", "multiply-adds", "paper")
ANSWERS = {"boxes": "boxes", "dense": "every voxel", "objects": "objects", "vector": "the image"}
NOTE = "Numbers are of the network that a plan builds for one channel of such an image on a processor."


def list_networks() -> tuple[str, ...]:
    """The names for `network.name` in a plan."""
    return factory.family_names()


NETWORKS_SCHEMA = RecordSchema("hilum.networks", RowsRecord)
WEIGHTS_SCHEMA = RecordSchema("hilum.weights", RowsRecord)


@dataclass(frozen=True)
class NetworkTable(InNotebook):
    """Every family in two and in three axes: what it answers, how large it is, where it was published."""

    members: tuple[member_catalogue.FamilyMember, ...]

    @property
    def rows(self) -> list[TableRow]:
        """One record a family and number of axes."""
        return [asdict(member) for member in self.members]

    @property
    def table(self) -> pd.DataFrame:
        """The same rows as a DataFrame."""
        return pd.DataFrame(self.rows)

    def as_record(self) -> RowsRecord:
        """The record for `--json`."""
        return NETWORKS_SCHEMA.record_of(self)

    def __str__(self) -> str:
        lines = [HEADINGS, *(_line(member) for member in self.members)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
        table = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([*(line.rstrip() for line in table), NOTE])


@dataclass(frozen=True)
class WeightTable(InNotebook):
    """Every layout of other programs' weights: their source, licences, and what a test compares."""

    layouts: tuple[weight_layout.WeightLayout, ...]

    @property
    def rows(self) -> list[TableRow]:
        """One record a layout."""
        names = ("name", "what", "family", "axes", "licence", "licence_of_weights", "citation", "proof")
        return [{name: getattr(layout, name) for name in names} for layout in self.layouts]

    @property
    def table(self) -> pd.DataFrame:
        """The same rows as a DataFrame."""
        return pd.DataFrame(self.rows)

    def as_record(self) -> RowsRecord:
        """The record for `--json`."""
        return WEIGHTS_SCHEMA.record_of(self)

    def __str__(self) -> str:
        return "\n".join(line for layout in self.layouts for line in _lines(layout))


def describe_weights() -> WeightTable:
    """The layouts of other programs' weights from which a training can start."""
    return WeightTable(weight_layout.weight_layouts())


def describe_networks() -> NetworkTable:
    """The families of network with their uses: ours as this release states them, others built without memory."""
    ours = factory.own_families()
    stated = [member for member in member_catalogue.listed_members() if member.name in ours]
    others = set(factory.family_names()) - {member.name for member in stated}
    members = [*stated, *(factory.family_members(sorted(others)) if others else ())]
    return NetworkTable(tuple(sorted(members, key=lambda member: (member.name, member.axes))))


def _line(member: member_catalogue.FamilyMember) -> tuple[str, ...]:
    return (
        member.name,
        ", ".join(ANSWERS[task] for task in member.tasks),
        str(member.axes),
        " x ".join(str(n) for n in member.reference),
        _short(member.parameters),
        _short(member.multiply_adds),
        member.paper,
    )


def _lines(layout: weight_layout.WeightLayout) -> tuple[str, ...]:
    return (
        f"{layout.name}: {layout.what}",
        f"  family       {layout.family}, {layout.axes} axes",
        f"  licence      code {layout.licence}; weights {layout.licence_of_weights}",
        f"  paper        {layout.citation}",
        f"  tested       {layout.proof}; with random weights",
    )


def _short(number: int) -> str:
    """ "2.3 M", "15.3 G"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)
