"""Names that decisions and record keys had in earlier versions, with their names today, by which old files load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# {decision of a plan: its name today}
DECISIONS = {"network.told": "network.context_fusion"}
# {where in a plan or a model's record: {key there: its name today}}
KEYS = {
    "network": {"told": "fusion"},
    "network.fusion": {"way": "method"},
    "network.size": {"way": "method", "found": "objects"},
}
# {decision of a plan: {(kind of problem, value): the value today}}
VALUES = {"training.selection": {("detection", "ap"): "ap10_ap50"}}
# Of a model's record: the networks of its members, each with the keys of `network`.
MEMBERS = "architectures"


def current_name(decision: str) -> str:
    """The name today of a decision."""
    return DECISIONS.get(decision, decision)


def current_value(value: Any, decision: str, task: str) -> Any:
    """The value today of a decision in a plan for a kind of problem, by name."""
    named = VALUES.get(decision, {}).get((task, value), value) if isinstance(value, str) else value
    return current_keys(named, decision)


def current_keys(value: Any, where: str) -> Any:
    """The same value with the keys of today; where: its place, such as `network.size`. Key order is kept."""
    if not isinstance(value, Mapping):
        return value
    keys = KEYS.get(where, {})
    named = {keys.get(key, key): inner for key, inner in value.items()}
    return {key: current_keys(inner, f"{where}.{key}") for key, inner in named.items()}


def current_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a model as it would be written today: its networks, and the decisions that it lists."""
    changed = {key: current_keys(record[key], key) for key in ("network",) if key in record}
    if isinstance(record.get(MEMBERS), list):
        changed[MEMBERS] = [current_keys(network, "network") for network in record[MEMBERS]]
    if isinstance(record.get("decisions"), Mapping):
        changed["decisions"] = {current_name(name): decision for name, decision in record["decisions"].items()}
    return {**record, **changed}
