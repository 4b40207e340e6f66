"""`route`: which series of a study the rules take, and why."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isocenter import service
from isocenter.errors import DatasetError, FormatError, UsageError
from isocenter.files.dicom import read_identity
from isocenter.keywords import several, takes
from isocenter.lazy import pandas as pd
from isocenter.options import RouteOptions
from isocenter.report import InNotebook
from isocenter.verbs.serve import need_extra

if TYPE_CHECKING:
    from isocenter.service import ModelFacts, Routed, SeriesFacts, Settings


@dataclass(frozen=True, eq=False)
class Route(InNotebook):
    """Every rule on every series of a study: taken or not, with its conditions."""

    rows: Sequence[Routed]

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

    def as_record(self) -> dict[str, Any]:
        """The record for `--json`."""
        return {"schema": "isocenter.route", "version": 1, "rows": [_row(row) for row in self.rows]}

    @property
    def explained(self) -> str:
        """Every condition of every row."""
        lines = []
        for row in self.rows:
            lines.append(f"{row.rule}: {row.uid} is {'taken' if row.taken else 'not taken'}")
            lines += [f"  {'yes' if one.holds else 'no':3}  {one.stated}" for one in row.conditions]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return "\n".join(
            f"{row.rule}: {row.uid} {'is taken' if row.taken else 'is not taken: ' + _first(row)}" for row in self.rows
        )


@takes(RouteOptions)
def route(options: RouteOptions) -> Route:
    """Apply the rules of a node to a study.

    Raises UsageError for a study that is neither, or not complete yet, DatasetError for a folder without DICOM.
    """
    need_extra("route")
    path, place = (None if one is None else Path(one) for one in (options.config, options.folder))
    settings = service.read_settings(path, [Path(one) for one in several(options.models)], place)
    warm = service.WarmModels(settings.models, settings.queue.memory_gb)
    facts = {name: warm[name][1] for name in settings.models}
    if not facts:
        raise UsageError("there is no model to route to", "route", "Give a model, or a --config that names one")
    if Path(options.study).is_dir():
        series, rules = _series_in(Path(options.study)), service.rules_of(settings, facts)
        return Route(service.study_routing(rules, facts, series, service.StudyAnswers()).rows)
    return Route(_known(str(options.study), settings, facts))


def _known(uid: str, settings: Settings, models: Mapping[str, ModelFacts]) -> Sequence[Routed]:
    """Every rule on every series of a study that the node has, with what finished jobs say of it.

    models: of the settings, of which the node may have promoted another package
    """
    if not (settings.folder / "node.sqlite").exists() and settings.database.url == "sqlite":
        raise UsageError("is not a folder, and there is no node here", uid, "Give a folder of DICOM files, or --config")
    database = service.opened(settings.database_url)
    index, key = service.Index(database), service.key_of(uid)
    rows, study = index.series_of(key), index.row_of(key)
    with database.read() as connection:
        models = service.models_of(connection, models, study)
    rules, contents = service.rules_of(settings, models), {row.series: row.inputs_hash for row in rows}
    answers, _ = service.study_answers(database, key, rules, models, contents)
    database.close()
    if not rows:
        raise UsageError("the node has no such study", uid, "Give the UID of a study that it has received")
    if any(row.inputs_hash is None for row in rows):
        raise UsageError("the study is not complete yet, and its series are not read", uid, "Wait for its last image")
    return service.study_routing(rules, models, [service.SeriesFacts.of_row(row) for row in rows], answers).rows


def _series_in(folder: Path) -> list[SeriesFacts]:
    """The series of a folder, whatever its files are called."""
    by_series: dict[str, list[Path]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            by_series.setdefault(read_identity(path).series, []).append(path)
        except FormatError:
            continue
    if not by_series:
        raise DatasetError("holds no DICOM file", str(folder), "Give the folder of a study")
    with tempfile.TemporaryDirectory(prefix="isocenter-route-") as links:
        facts = []
        for uid, paths in sorted(by_series.items()):
            place = Path(links) / service.key_of(uid)
            place.mkdir()
            for number, path in enumerate(paths):
                (place / f"{number:06}.dcm").symlink_to(path.absolute())
            facts.append(service.facts_of(service.key_of(uid), uid, place))
        return facts


def _row(row: Routed) -> dict[str, Any]:
    return {"series": row.uid, "rule": row.rule, "role": row.role, "taken": row.taken} | {
        "conditions": [asdict(one) for one in row.conditions]
    }


def _first(row: Routed) -> str:
    """Why the first condition does not hold."""
    return next(one.failure for one in row.conditions if not one.holds)
