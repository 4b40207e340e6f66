"""`inventory`: every model in use at a node, with products of others that a table names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hilum import errors, keywords
from hilum.documents import fact_file
from hilum.errors import DatasetError, HilumError
from hilum.files.storage import csv_text
from hilum.lazy import pandas as pd
from hilum.monitoring import acceptance_plan
from hilum.options.node import InventoryOptions
from hilum.reading import verb_results
from hilum.report import InNotebook, Paragraph, ReportPage, Section, page_blocks
from hilum.report import Table as PageTable
from hilum.runtime import record_files
from hilum.runtime.package import package_contents
from hilum.service import node_folder
from hilum.service.configuration import ModelSection, NodeSettings
from hilum.service.records import deployments, record_database
from hilum.values.record_schema import RecordSchema, RowsRecord
from hilum.verbs import serve
from hilum.verbs.change import MANIFEST

if TYPE_CHECKING:
    from hilum.service.records.record_database import Database

TABLE, REPORT, RECORD = "inventory.csv", "inventory.html", "inventory.json"
SCHEMA = RecordSchema("hilum.inventory", RowsRecord)
COLUMNS = (
    "model", "version", "intended_use", "origin", "acceptance", "last_change", "watches", "owner", "contract_end"
)  # fmt: skip
UNSTATED = "A blank cell says that no record of the node and no row of the table states it."


@dataclass(frozen=True, eq=False)
class Inventory(InNotebook):
    """The models in use; prints as a table.

    rows: one a model or product, with all of `COLUMNS` as text
    """

    rows: tuple[dict[str, str], ...]
    out: Path | None = None

    @property
    def table(self) -> pd.DataFrame:
        """A row a model."""
        return pd.DataFrame([*self.rows], columns=list(COLUMNS))

    def as_record(self) -> RowsRecord:
        """The record for `--json`."""
        return SCHEMA.record_of(self)

    def __repr__(self) -> str:
        lines = [" · ".join(f"{name} {row[name]}" for name in COLUMNS if row[name]) for row in self.rows]
        return "\n".join([*(lines or ["no model is in use"]), *([str(self.out / TABLE)] if self.out else [])])


@keywords.takes(InventoryOptions)
def inventory(options: InventoryOptions) -> Inventory:
    """Write what answers at a node, by its name in the settings, as inventory.csv, inventory.json and a page.

    also: a table with columns of the same names: a row of a model of the node fills what no record states, others are
    added
    Raises UsageError for a folder without a node, DatasetError for a table without the column model or with others.
    """
    serve.refuse_missing_extra("inventory")
    folder, out = Path(options.node), None if options.out is None else Path(options.out)
    if out is not None:
        verb_results.refuse_taken(out, options.overwrite, (TABLE, REPORT))
    also = {} if options.also is None else _stated_rows(Path(options.also))
    with closing(record_database.node_database(folder)) as database:
        settings = node_folder.stored_settings(node_folder.settings_file(folder, "keeper"))
        own = {name: _row(database, folder, settings, name, one) for name, one in sorted(settings.models.items())}
    filled = {
        name: {column: row[column] or also.get(name, {}).get(column, "") for column in COLUMNS}
        for name, row in own.items()
    }
    made = Inventory((*filled.values(), *(row for name, row in also.items() if name not in filled)), out)
    if out is not None:
        with verb_results.result_folder(out, options.overwrite, (TABLE, REPORT)) as partial:
            csv_text.write_table(made.table, partial / TABLE)
            record_files.write_json(partial / RECORD, SCHEMA, made.as_record())
            (partial / REPORT).write_text(page_blocks.render_page(_page(made)), encoding="utf-8")
    return made


def _row(database: Database, folder: Path, settings: NodeSettings, name: str, section: ModelSection) -> dict[str, str]:
    """What the records of a node state of one model."""
    with database.read() as connection:
        package, began = deployments.deployed_package(connection, name), deployments.last_change(connection, name)
    facts = package.facts if package is not None else node_folder.stored_models(folder).get(name)
    place = section.path if package is None else package.folder
    return {
        "model": name,
        "version": "" if facts is None else facts.version or facts.hash[:12],
        "intended_use": _intended_use(place),
        "origin": _origin(place),
        "acceptance": _acceptance(section, "" if package is None else package.manifest),
        "last_change": "" if began is None else datetime.fromtimestamp(began, UTC).date().isoformat(),
        "watches": "; ".join(_watches(settings, section)),
        "owner": "",
        "contract_end": "",
    }


def _intended_use(place: Path) -> str:
    """What a person stated in a facts.toml of the package or beside it."""
    for path in (place / fact_file.FACTS, place.parent / fact_file.FACTS):
        if path.is_file():
            stated = fact_file.read_facts(path, date.today()).get("intended_use")
            return "" if stated is None else str(stated.value)
    return ""


def _origin(place: Path) -> str:
    try:
        record = package_contents.package_record(place).get("record", {})
    except (HilumError, OSError):
        return ""
    return str(record.get("origin") or f"trained on data {str(record.get('data_hash') or 'unknown')[:12]}")


def _acceptance(section: ModelSection, manifest: str) -> str:
    """The verdict, or why there is none that counts."""
    if section.acceptance is None:
        return "required, and none is named" if section.require_acceptance else ""
    try:
        wanted = manifest or record_files.file_digest(section.path / MANIFEST)
        return str(acceptance_plan.read_acceptance(section.acceptance, wanted)["verdict"])
    except (HilumError, OSError) as error:
        return f"does not count: {getattr(error, 'problem', error)}"


def _watches(settings: NodeSettings, section: ModelSection) -> Iterator[str]:
    """The limits that hold for a model, and whether answers are watched."""
    yield from (f"{one.metric} of {one.label} at least {one.at_least:g}" for one in settings.bound)
    if settings.watch is not None:
        yield "answers are compared with those of before"
    if section.stop:
        yield errors.count_phrase(len(section.stop), "stop rule")


def _stated_rows(path: Path) -> dict[str, dict[str, str]]:
    """{model: row} of a table that a person wrote; DatasetError where its columns are none of an inventory."""
    table = csv_text.read_given_table(path)
    names = {str(column): str(column).strip().lower().replace(" ", "_") for column in table.columns}
    if unknown := sorted(column for column, name in names.items() if name not in COLUMNS):
        remedy = f"Choose from {', '.join(COLUMNS)}"
        raise DatasetError(f"has the columns {', '.join(unknown)}, which no inventory has", str(path), remedy)
    table = table.rename(columns=names)
    if "model" not in table or table["model"].astype(str).str.strip().eq("").any():
        raise DatasetError("does not name a model in each row", str(path), "Add the column model")
    rows = [{name: str(row.get(name) or "") for name in COLUMNS} for row in table.fillna("").to_dict("records")]
    if len({row["model"] for row in rows}) < len(rows):
        raise DatasetError("names a model twice", str(path), "Give one row a model")
    return {row["model"]: row for row in rows}


def _page(made: Inventory) -> ReportPage:
    lines = [[row[name] for name in COLUMNS] for row in made.rows]
    table = PageTable([name.replace("_", " ") for name in COLUMNS], lines)
    sections = [Section("Models", [Paragraph(UNSTATED), table])]
    return ReportPage("Models in use", sections=sections, verdict=errors.count_phrase(len(made.rows), "model"))
