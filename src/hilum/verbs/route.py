"""`route`: which series of a study the rules take, and why."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hilum import keywords
from hilum.errors import DatasetError, FormatError, UsageError
from hilum.files.dicom import object_identity
from hilum.lazy import pandas as pd
from hilum.options.node import RouteOptions
from hilum.report import InNotebook
from hilum.service import configuration
from hilum.service.objects import object_store
from hilum.service.records import deployments, record_database, study_index
from hilum.service.routing import routing_facts, routing_rules
from hilum.service.work import warm_models
from hilum.values.record_schema import RecordSchema, RowsRecord
from hilum.verbs import serve

if TYPE_CHECKING:
    from hilum.service.configuration import NodeSettings
    from hilum.service.model_facts import ModelFacts
    from hilum.service.routing.routing_facts import SeriesFacts
    from hilum.service.routing.routing_rules import RoutedSeries


ROUTE_SCHEMA = RecordSchema("hilum.route", RowsRecord)
COLUMNS = ("uid", "rule", "role", "taken", "conditions")


@dataclass(frozen=True, eq=False)
class Route(InNotebook):
    """Every rule on every series of a study: taken or not, with its conditions."""

    rows: Sequence[RoutedSeries]

    @property
    def table(self) -> pd.DataFrame:
        """A row a rule and series; what did not hold."""
        return pd.DataFrame(
            [
                {
                    "series": row.uid,
                    "rule": row.rule,
                    "role": row.role,
                    "taken": row.taken,
                    "fails": "; ".join(one.fact for one in row.conditions if not one.holds),
                }
                for row in self.rows
            ]
        )

    def as_record(self) -> RowsRecord:
        """The record for `--json`."""
        rows = [{("series" if name == "uid" else name): getattr(row, name) for name in COLUMNS} for row in self.rows]
        return ROUTE_SCHEMA.record_of(self, rows=rows)

    @property
    def explained(self) -> str:
        """Every condition of every row."""
        lines = []
        for row in self.rows:
            lines.append(f"{row.rule}: {row.uid} is {'taken' if row.taken else 'not taken'}")
            lines += [f"  {'yes' if one.holds else 'no':3}  {one.in_words}" for one in row.conditions]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return "\n".join(
            f"{row.rule}: {row.uid} {'is taken' if row.taken else 'is not taken: ' + _first(row)}" for row in self.rows
        )


@keywords.takes(RouteOptions)
def route(options: RouteOptions) -> Route:
    """Apply the rules of a node to a study.

    Raises UsageError for a study that is neither, or not complete yet, DatasetError for a folder without DICOM.
    """
    serve.refuse_missing_extra("route")
    path, place = (None if one is None else Path(one) for one in (options.config, options.folder))
    settings = configuration.read_settings(path, [Path(one) for one in keywords.as_tuple(options.models)], place)
    warm = warm_models.WarmModels(settings.models, settings.queue.memory_gb)
    facts = {name: warm[name][1] for name in settings.models}
    if not facts:
        raise UsageError("there is no model to route to", "route", "Give a model, or a --config that names one")
    if Path(options.study).is_dir():
        series, rules = _series_in(Path(options.study)), routing_rules.rules_of(settings, facts)
        return Route(routing_rules.study_routing(rules, facts, series, routing_rules.StudyAnswers()).rows)
    return Route(_known_routing(str(options.study), settings, facts))


def _known_routing(uid: str, settings: NodeSettings, models: Mapping[str, ModelFacts]) -> Sequence[RoutedSeries]:
    """Every rule on every series of a study that the node has, with what finished jobs say of it.

    models: of the settings, of which the node may have promoted another package
    """
    if not (settings.folder / "node.sqlite").exists() and settings.database.url == "sqlite":
        raise UsageError("is not a folder, and there is no node here", uid, "Give a folder of DICOM files, or --config")
    database = record_database.open_database(settings.database_url)
    index, key = study_index.StudyIndex(database), object_store.uid_key(uid)
    rows, study = index.series_of(key), index.row_of(key)
    with database.read() as connection:
        models = deployments.models_of(connection, models, study)
    rules, contents = routing_rules.rules_of(settings, models), {row.series: row.inputs_hash for row in rows}
    answers, _ = routing_rules.study_answers(database, key, rules, models, contents)
    database.close()
    if not rows:
        raise UsageError("the node has no such study", uid, "Give the UID of a study that it has received")
    if any(row.inputs_hash is None for row in rows):
        raise UsageError("the study is not complete yet, and its series are not read", uid, "Wait for its last image")
    return routing_rules.study_routing(
        rules, models, [routing_facts.SeriesFacts.of_row(row) for row in rows], answers
    ).rows


def _series_in(folder: Path) -> list[SeriesFacts]:
    """The series of a folder, whatever its files are called."""
    by_series: dict[str, list[Path]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            by_series.setdefault(object_identity.read_identity(path).series, []).append(path)
        except FormatError:
            continue
    if not by_series:
        raise DatasetError("holds no DICOM file", str(folder), "Give the folder of a study")
    with tempfile.TemporaryDirectory(prefix="hilum-route-") as links:
        facts = []
        for uid, paths in sorted(by_series.items()):
            place = Path(links) / object_store.uid_key(uid)
            place.mkdir()
            for number, path in enumerate(paths):
                (place / f"{number:06}.dcm").symlink_to(path.absolute())
            facts.append(routing_facts.read_series_facts(object_store.uid_key(uid), uid, place))
        return facts


def _first(row: RoutedSeries) -> str:
    """Why the first condition does not hold."""
    return next(one.failure for one in row.conditions if not one.holds)
