"""Subject of a document and its records: where each lies, its SHA-256, and the value at a pointer."""

from __future__ import annotations

import csv
import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hilum.documents.tracing import TRACE
from hilum.errors import IntegrityError, UsageError
from hilum.files.storage import structured_text
from hilum.monitoring.acceptance_plan import ACCEPTANCE
from hilum.monitoring.change_plan import CHANGE_PLAN
from hilum.runtime import record_files
from hilum.values import plain_values

NODE, DATABASE = "node.json", "node.sqlite"
SETTINGS = "settings.json"  # of a node whose database is a server
COMPLEMENT = "1-"  # before a pointer: 1 less the number that lies there
Kind = Literal["run", "package", "node", "study", "acceptance", "inventory", "result"]
# A record by its name: where it may lie in a subject, the first that exists, and the command that writes it.
PLACES: Mapping[str, tuple[Sequence[str], str]] = {
    "plan": (("plan.yaml",), "hilum train DATA --out RUN"),
    "split": (("split.csv",), "hilum train DATA --out RUN"),
    "data": (("data.json",), "hilum train DATA --out RUN"),
    "environment": (("environment.json",), "hilum train DATA --out RUN"),
    "run": (("run.json",), "hilum train DATA --out RUN"),
    "trainings": (("trainings.json",), "hilum train DATA --out RUN"),
    "log": (("log.csv",), "hilum train DATA --out RUN"),
    "model": (("hilum/model.json", "checkpoints/best/model.json", "*/*/best/model.json"), "hilum package RUN"),
    "summary": (("evaluation/summary.json", "summary.json"), "hilum evaluate MODEL DATA"),
    "cases": (("evaluation/cases.csv", "cases.csv"), "hilum evaluate MODEL DATA"),
    "scored": (("evaluation/task.json", "task.json"), "hilum evaluate MODEL DATA"),
    "groups": (
        ("evaluation/groups.csv", "hilum/groups.csv", "groups.csv", "*/groups.csv"),
        "hilum evaluate MODEL DATA --groups sex,age:40:60 --group-table TABLE --out RUN/groups",
    ),
    "fairness": (
        ("evaluation/fairness.json", "hilum/fairness.json", "fairness.json", "*/fairness.json"),
        "hilum evaluate MODEL DATA --groups sex,age:40:60 --group-table TABLE --out RUN/groups",
    ),
    "weak_groups": (("evaluation/weak_groups.csv", "weak_groups.csv"), "hilum evaluate MODEL DATA"),
    "decision": (("evaluation/decision.csv", "decision.csv"), "hilum evaluate MODEL DATA"),
    "confusion": (("evaluation/confusion.csv", "confusion.csv"), "hilum evaluate MODEL DATA"),
    "robustness": (
        ("evaluation/robustness.csv", "*/robustness.csv", "robustness.csv"),
        "hilum evaluate MODEL DATA --corruptions all --out RUN/robustness",
    ),
    "check": (("check.json", "*/check.json"), "hilum check DATA --out RUN/check"),
    "explanations": (
        ("explanations.json", "*/explanations.json"),
        "hilum explain RUN IMAGES --out RUN/explanations",
    ),
    "comparison": (("comparison.json", "*/comparison.json"), "hilum compare RESULT RESULT --out RUN/comparison"),
    "certificate": (("hilum/certificate.json", "*/hilum/certificate.json"), "hilum package RUN --certify"),
    "manifest": (("manifest.json", "checkpoints/best/manifest.json"), "hilum package RUN"),
    "settings": (("settings.json",), "hilum serve --config node.toml"),
    "monitor": (("monitor.json", "*/monitor.json"), "hilum monitor TABLE --out RUN/monitor"),
    "monitored": (("performance.csv", "*/performance.csv"), "hilum monitor TABLE --out RUN/monitor"),
    "change": (
        ("change.json", "*/change.json"),
        "hilum change check OLD NEW --plan change-plan.toml --data LOCKED --out SUBJECT/change",
    ),
    "change_plan": ((CHANGE_PLAN, f"*/{CHANGE_PLAN}"), f"write {CHANGE_PLAN} into the subject's folder"),
    "trace": ((TRACE, f"*/{TRACE}"), "hilum document trace --junit junit.xml --out RUN/software"),
    "soup": (
        ("bom.json", "*/bom.json"),
        "make bom, or cyclonedx-py environment: put the CycloneDX list into the subject's folder as software/bom.json",
    ),
    "results": (("results.json",), "hilum study analyse STUDY --data TABLE --out RESULT"),
    "flow": (("flow.json",), "hilum study analyse STUDY --data TABLE --out RESULT"),
    "study": (("study.json",), "hilum study plan study.toml --out FOLDER"),
    "registry": (("registry.json",), "hilum study plan study.toml --out FOLDER"),
    "node": ((NODE,), "hilum document NODE"),
    "acceptance": (
        (ACCEPTANCE, f"*/{ACCEPTANCE}"),
        "hilum accept MODEL SITE_DATA --plan ACCEPTANCE.toml --out SUBJECT/acceptance",
    ),
    "inventory": (("inventory.json",), "hilum inventory NODE --out INVENTORY"),
}
# What the results of a study repeat of its plan.
PLANNED = {
    *("title", "question", "summary", "protocol_version", "design", "arms", "endpoints", "population", "size"),
    *("strata", "randomisation", "analysis", "populations", "looks"),
}
# The file that makes a folder a subject of a kind, in this order.
MARKS: tuple[tuple[str, Kind], ...] = (
    ("run.json", "run"),
    ("hilum/model.json", "package"),
    (DATABASE, "node"),
    ("results.json", "study"),
    ("registry.json", "study"),
    (ACCEPTANCE, "acceptance"),
    ("inventory.json", "inventory"),
    ("evaluation/summary.json", "result"),
    ("summary.json", "result"),
    (SETTINGS, "node"),
)


@dataclass(frozen=True)
class RecordedValue:
    """A value in a record, so that anybody can look it up again.

    record:  path relative to the subject
    pointer: JSON pointer, also into YAML; of a CSV `column@row`, `column,column@row` for several cells of a row,
             `count:column=value`, or `count:column=value;distinct=column`; rows count from 1; `1-` before a pointer to
             a share is 1 less it
    """

    value: Any
    record: str
    pointer: str
    sha256: str
    because: str = ""


@dataclass(frozen=True, eq=False)
class DocumentSubject:
    """A run, a package, a node or a study in its folder.

    tables: {file name: text} of records that are made from a node's database, in which they have no file
    """

    folder: Path
    kind: Kind
    tables: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def open(
        cls, folder: Path, *, agreeing: bool = True, node_of: Callable[[Path], Mapping[str, Any]] | None = None
    ) -> DocumentSubject:
        """UsageError for a folder that is none of these, IntegrityError for a run that was not finished, and for an
        acceptance of which a file was changed.

        agreeing: whether records that disagree are refused
        node_of:  what gives the figures of the node in a folder; None where no node is meant
        """
        if folder.suffix == ".zip":
            raise UsageError("is an archive", str(folder), "Unpack it, and give the folder")
        if not folder.is_dir():
            raise UsageError("there is no such folder", str(folder), "Give a run, a package, a node or a study")
        if (folder / "plan.yaml").is_file() and not (folder / "run.json").is_file():
            raise IntegrityError(
                "the run is not finished: it has no run.json",
                str(folder),
                f"Finish it: hilum train --resume {folder}",
            )
        for mark, kind in MARKS:
            if (folder / mark).is_file() and (kind != "node" or node_of is not None):
                subject = cls(folder, kind, {NODE: node_text(node_of(folder))} if kind == "node" and node_of else {})
                if (accepted := subject.path_of("acceptance")) is not None:
                    record_files.verify_seal((folder / accepted).parent)
                if agreeing:
                    subject.refuse_disagreements()
                return subject
        raise UsageError("is no run, package, node or study", str(folder), "Give a folder that hilum wrote")

    def path_of(self, name: str) -> str | None:
        """Path of a record relative to the subject; None where it has none."""
        if name not in PLACES:
            raise UsageError(f"there is no record {name!r}", "documents", f"Use {', '.join(PLACES)}")
        for pattern in PLACES[name][0]:
            if pattern in self.tables:
                return pattern
            for path in sorted(self.folder.glob(pattern)):
                if path.is_file():
                    return path.relative_to(self.folder).as_posix()
        return None

    def is_planned(self, found: RecordedValue) -> bool:
        """Whether a value says what shall be done: of a plan of changes or of a study, with its results too."""
        first = found.pointer.split("/")[1:2]
        if found.record == self.path_of("results"):
            return first[0] in PLANNED if first else False
        return found.record in {self.path_of(name) for name in ("change_plan", "study", "registry")}

    @cached_property
    def _contents(self) -> dict[str, tuple[Any, str]]:
        return {}

    def record(self, path: str) -> tuple[Any, str]:
        """(contents, SHA-256) of a record by its path; IntegrityError for a damaged or missing one."""
        if path not in self._contents:
            if path in self.tables:
                text = self.tables[path]
                self._contents[path] = structured_text.parse_json(text), hashlib.sha256(text.encode()).hexdigest()
                return self._contents[path]
            file = self.folder / path
            if not file.resolve().is_relative_to(self.folder.resolve()) or not file.is_file():
                raise IntegrityError("is missing", str(file), "Get the folder again, whole")
            self._contents[path] = _parse_record(file), record_files.file_digest(file)
        return self._contents[path]

    def at(self, path: str, pointer: str, because: str = "") -> RecordedValue:
        """The value of a record at a pointer; IntegrityError where there is none."""
        contents, sha256 = self.record(path)
        try:
            place = pointer.removeprefix(COMPLEMENT)
            value = value_in_csv(contents, place) if path.endswith(".csv") else value_at_pointer(contents, place)
            value = round(1 - value, 6) if pointer.startswith(COMPLEMENT) else value
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise IntegrityError(
                f"has nothing at {pointer}", str(self.folder / path), "Write the documents anew from these records"
            ) from error
        return RecordedValue(value, path, pointer, sha256, because)

    def find(self, name: str, pointer: str) -> RecordedValue | None:
        """The value of a record by its name; None where there is no such record or no such value."""
        path = self.path_of(name)
        if path is None:
            return None
        try:
            return self.at(path, pointer)
        except IntegrityError:
            if (self.folder / path).is_file() or path in self.tables:
                self.record(path)  # a damaged record is an error, a value that it lacks is none
            return None

    @property
    def records(self) -> dict[str, str]:
        """{path: SHA-256} of every record that the subject has."""
        paths = sorted({path for name in PLACES if (path := self.path_of(name)) is not None})
        return {path: self.record(path)[1] for path in paths}

    def refuse_disagreements(self) -> None:
        """IntegrityError where two records of one fact state different things; both are named."""
        for one, other in TWICE:
            first, second = self.find(*one), self.find(*other)
            if first is not None and second is not None and first.value != second.value:
                raise IntegrityError(
                    f"{first.record} {first.pointer} is {short_json(first.value)}, but {second.record} "
                    f"{second.pointer} is {short_json(second.value)}",
                    str(self.folder),
                    "Records of one run agree: get the folder again, whole",
                )
        scored, split = self.path_of("cases"), self.path_of("split")
        if self.kind == "run" and scored is not None and split is not None:
            rows = self.record(split)[0]
            trained = {row["case"] for row in rows if row["split"] == "train"}
            # With folds a case trains some networks, and tests the one that has not seen it.
            folds = len({row.get("fold", "") for row in rows}) > 1
            both = [] if folds else [row["case"] for row in self.record(scored)[0] if row["case"] in trained]
            if both:
                raise IntegrityError(
                    f"{scored} scores {both[0]}, which {split} trains", str(self.folder), "Get the folder again, whole"
                )


# Facts that two records of a run state.
TWICE = (
    (("run", "/verdict/answer"), ("summary", "/verdict/answer")),
    (("plan", "/task/name/value"), ("scored", "/name")),
    (("plan", "/evaluation/primary/value"), ("summary", "/primary")),
    (("plan", "/task/classes/value"), ("scored", "/classes")),
)


def short_json(value: Any) -> str:
    """A value as JSON on one line, cut after 80 characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _parse_record(file: Path) -> Any:
    try:
        if file.suffix == ".yaml":
            return plain_values.as_json(
                YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
            )  # keys become texts
        if file.suffix == ".toml":
            return tomllib.loads(file.read_text(encoding="utf-8"))
        if file.suffix == ".csv":
            with file.open(encoding="utf-8", newline="") as lines:
                return list(csv.DictReader(lines))
        contents = structured_text.load_json(file)
    except (ValueError, YAMLError, OSError) as error:
        raise IntegrityError(f"cannot be read ({error})", str(file), "Get the folder again, whole") from error
    if isinstance(contents, dict) and "schema" in contents:
        return record_files.read_json(file, contents["schema"])  # which refuses another version
    return contents


def value_at_pointer(contents: Any, pointer: str) -> Any:
    """RFC 6901: `/rows/0/value`; empty for all of it."""
    value = contents
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        value = value[int(name)] if isinstance(value, list) else value[name]
    return value


def value_in_csv(rows: Sequence[Mapping[str, str]], pointer: str) -> Any:
    """`column@row`, `column,column@row`, or a count of rows or of distinct values in a column; rows count from 1."""
    if pointer.startswith("count:"):
        conditions = dict(part.split("=", 1) for part in pointer.removeprefix("count:").split(";") if part)
        distinct = conditions.pop("distinct", None)
        kept = [row for row in rows if all(row[name] == value for name, value in conditions.items())]
        return len(kept) if distinct is None else len({row[distinct] for row in kept})
    column, _, number = pointer.rpartition("@")
    row = rows[_place(number)]
    return row[column] if column in row else {name: row[name] for name in column.split(",")}


def _place(number: str) -> int:
    place = int(number) - 1
    if place < 0:
        raise IndexError(number)
    return place


def pointer_to(*steps: str | int) -> str:
    """The JSON pointer of these steps."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in steps)


def node_text(record: Mapping[str, Any]) -> str:
    """The record as text, whose SHA-256 stands in the rows."""
    return json.dumps({"schema": "hilum.node", "version": 1, **record}, indent=1) + "\n"
