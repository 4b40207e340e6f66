"""A fold of a run that scores cases, and the gate by which it judges those."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from isocenter.runtime import Guard, Model, Parts, read_json, read_parts, write_json
from isocenter.tasks import Task

# Of a fold whose model keeps a gate that is fitted to the cases which the fold tests: no case judges itself.
GATE, SCHEMA = "gate.json", "isocenter.gate"


@dataclass(frozen=True, eq=False)
class Fold:
    """A fold that scores a case.

    task:  its own, with what its own validation cases decided: the common one's thresholds have seen cases that it
           tests
    guard: its gate by cases that it does not test; None where the one of its model is that
    """

    number: int
    task: Task
    guard: Guard | None = None

    def scoring(self, model: Model) -> Model:
        """The fold's model as it scores the cases that the fold tests."""
        parts = model.parts if self.guard is None else replace(model.parts, guard=self.guard)
        return replace(model, task=self.task, parts=parts)


def write_gate(guard: Guard, folder: Path) -> None:
    """`gate.json` and its arrays, which `gate_of` reads."""
    gate = Parts(guard=guard)
    gate.write(folder)
    write_json(folder / GATE, SCHEMA, gate.settings)


def gate_of(folder: Path) -> Guard | None:
    """The gate by which the fold in this folder judges the cases that it tests; None where its model's own is that."""
    path = folder / GATE
    return read_parts(read_json(path, SCHEMA), folder).guard if path.is_file() else None
