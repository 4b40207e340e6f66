"""The page of all records and their JSON Schema, made of the declarations beside the names of their schemas.

python docs/write_records.py        # writes docs/records.md and src/hilum/values/records.schema.json
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

import hilum
from hilum.values.record_schema import RecordSchema

SOURCE = Path(hilum.__file__).parent
PAGE, SCHEMAS = Path(__file__).parent / "records.md", SOURCE / "values" / "records.schema.json"
HEAD = """# Records

`python docs/write_records.py` writes this page, and the JSON Schema in the wheel
(`hilum/values/records.schema.json`), from the types beside the name of each schema.

Each file begins with `schema` and `version`, which is 1; another version is refused. What is no number is null. A key
with `?` may be absent. `--json` prints the same records. A name with a capital is a group of keys, which stands once,
below.
"""


def declared_schemas() -> dict[str, RecordSchema[Any]]:
    """{name: schema} of every record that a module declares, by name."""
    found = dict[str, RecordSchema[Any]]()
    for path in sorted(SOURCE.rglob("*.py")):
        if re.search(r"\bRecordSchema\(\s*\"", path.read_text(encoding="utf-8")):
            module = import_module(".".join(path.relative_to(SOURCE.parent).with_suffix("").parts))
            found |= {str(one): one for one in vars(module).values() if isinstance(one, RecordSchema)}
    return dict(sorted(found.items()))


def json_schema() -> dict[str, Any]:
    """The JSON Schema of all records: `records` by name, and what they share under `$defs`."""
    asked = [(name, "serialization", TypeAdapter(one.declaration)) for name, one in declared_schemas().items()]
    by_name, shared = TypeAdapter.json_schemas(asked)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Records of Hilum",
        "records": {name: own for (name, _), own in sorted(by_name.items())},
        **shared,
    }


def schema_text() -> str:
    """The file of the JSON Schema."""
    return json.dumps(_untitled(json_schema()), indent=1, sort_keys=True) + "\n"


def _untitled(value: Any) -> Any:
    """Without the titles of single keys, which repeat these."""
    if isinstance(value, dict):
        is_group = "properties" in value or "$schema" in value
        return {
            key: _untitled(one) for key, one in value.items() if key != "title" or is_group or isinstance(one, dict)
        }
    return [_untitled(one) for one in value] if isinstance(value, list) else value


def page() -> str:
    """The page of records."""
    schema = json_schema()
    shared, records = schema["$defs"], schema["records"]
    parts = [HEAD]
    for name, own in records.items():
        parts.append("\n".join([f"## {name}\n", *_table(_resolved(own, shared))]))
    groups = {name: one for name, one in sorted(shared.items()) if "properties" in one}
    used = {str(_reference(own)) for own in records.values()}
    parts.append("## Groups of keys\n\nEach stands in one record or more.")
    for name, one in groups.items():
        if name not in used:
            parts.append("\n".join([f"### {name}\n", *_table(one)]))
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _resolved(own: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    return shared[_reference(own)] if "$ref" in own else own


def _reference(own: dict[str, Any]) -> str:
    return str(own.get("$ref", "")).rpartition("/")[2]


def _table(group: dict[str, Any]) -> Iterator[str]:
    """What a group of keys is, and a row a key."""
    text, _, keys = group.get("description", "").partition("\n\n")
    yield " ".join(text.split()) + ("\n" if text else "")
    if keys:
        yield "\n".join(f"- {line}" for line in re.sub(r"\n +", " ", keys).splitlines()) + "\n"
    needed = set(group.get("required", ()))
    rows = [
        f"| `{key}`{'' if key in needed else ' ?'} | {_type(one)} |"
        for key, one in group.get("properties", {}).items()
        if key not in ("schema", "version")
    ]
    yield from ["| key | value |", "|---|---|", *rows] if rows else [f"Any names, each with {_type(group)}."]


def _type(one: dict[str, Any]) -> str:
    """The type of a value in words."""
    if "$ref" in one:
        name = _reference(one)
        return "any value" if name in ("PlainValue", "JsonValue") else f"[{name}](#{name.lower()})"
    if "anyOf" in one:
        return " or ".join(dict.fromkeys(_type(each) for each in one["anyOf"]))
    if "const" in one or "enum" in one:
        return " or ".join(f"`{each}`" for each in one.get("enum", [one.get("const")]))
    match one.get("type"):
        case "array":
            return f"list of {_type(one.get('items', {}))}"
        case "object":
            return f"{{name: {_type(one['additionalProperties'])}}}" if one.get("additionalProperties") else "object"
        case None:
            return "any value"
        case kind:
            return {"string": "text", "integer": "whole number", "boolean": "true or false"}.get(kind, kind)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    SCHEMAS.write_text(schema_text(), encoding="utf-8")
