"""The ratios of measurements that a model states: those of its plan, and those that its package was given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from isocenter.runtime.model import Model
from isocenter.tasks import Ratio, Task, leaves, marks_labels, ratios_from, settings_of

RATIOS = "measures"


def with_ratios(model: Model, ratios: Sequence[Ratio]) -> Model:
    """The model with ratios in its record, which packages keep."""
    kept = {one.name: one for one in (*_recorded(model), *ratios)}
    return replace(model, record={**model.record, RATIOS: [str(one) for one in kept.values()]}) if kept else model


def ratios_of(model: Model) -> tuple[Ratio, ...]:
    """The ratios of a model's plan, and those in its record, which stand in place of a planned one of the same name."""
    kept = {one.name: one for one in (*_planned(model.task), *_recorded(model))}
    return tuple(kept.values())


def checked_ratios(texts: Sequence[str], task: Task) -> tuple[Ratio, ...]:
    """Ratios of structures that a task marks. Raises UsageError for another structure, and for a name given twice."""
    marked = [
        name
        for part, own in leaves(task).items()
        for label in own.labels
        for name in ((label.name, f"{part}: {label.name}") if part else (label.name,))
    ]
    return ratios_from(texts, marked)


def _recorded(model: Model) -> tuple[Ratio, ...]:
    return tuple(map(Ratio.of, model.record.get(RATIOS) or ()))


def _planned(task: Task) -> Iterator[Ratio]:
    """The ratios of a task; the structures of a further part have its name before theirs, as in `measurements.csv`."""
    marking = [(part, own) for part, own in leaves(task).items() if marks_labels(own)]
    for number, (part, own) in enumerate(marking):
        for ratio in map(Ratio.of, settings_of(own).get(RATIOS) or ()):
            above, below = (replace(one, structure=f"{part}: {one.structure}") for one in (ratio.above, ratio.below))
            yield replace(ratio, above=above, below=below) if number else ratio
