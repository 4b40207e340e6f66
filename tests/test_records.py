"""The declarations of records: what files hold is what they say, and page and JSON Schema are made from them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import TypeAdapter

from hilum.verbs.package import PackagingResult
from trained import Trained

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def write_records() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        yield importlib.import_module("write_records")


def records_below(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every JSON file of a folder that states a schema of ours."""
    for path in sorted(folder.rglob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(record, dict) and str(record.get("schema", "")).startswith("hilum."):
            yield path, record


def undeclared(stated: Any, known: Any, where: str = "") -> Iterator[str]:
    """Keys of a record that its declaration does not have."""
    if isinstance(stated, dict) and isinstance(known, dict):
        for key, value in stated.items():
            yield from undeclared(value, known[key], f"{where}/{key}") if key in known else [f"{where}/{key}"]
    elif isinstance(stated, list) and isinstance(known, list):
        for one, other in zip(stated, known, strict=True):
            yield from undeclared(one, other, where)


def test_what_runs_and_packages_hold_is_what_their_declarations_say(
    segmented: Trained,
    classified: Trained,
    cross_validated: Trained,
    packaged: PackagingResult,
    write_records: ModuleType,
) -> None:
    schemas, found = write_records.declared_schemas(), set[str]()
    for folder in (segmented.out, classified.out, cross_validated.out, packaged.out):
        for path, record in records_below(folder):
            name = record["schema"]
            if name not in schemas:
                continue
            known = TypeAdapter(schemas[name].declaration).validate_python(record)
            assert set(undeclared(record, known)) <= {"/schema", "/version"}, path
            found.add(name)
    assert {"hilum.model", "hilum.run", "hilum.summary", "hilum.environment"} <= found


def test_a_record_that_lacks_a_key_is_not_what_its_declaration_says(write_records: ModuleType) -> None:
    schema = write_records.declared_schemas()["hilum.manifest"]
    with pytest.raises(ValueError, match="sha256"):
        TypeAdapter(schema.declaration).validate_python({"schema": "hilum.manifest", "version": 1})


def test_the_json_schema_in_the_wheel_is_that_of_the_declarations(write_records: ModuleType) -> None:
    written = write_records.SCHEMAS.read_text(encoding="utf-8")
    assert written == write_records.schema_text(), "run: python docs/write_records.py"
