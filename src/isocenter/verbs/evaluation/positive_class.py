"""The positive class of a model: chosen for one that nobody planned here, and stated wherever figures are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from isocenter.errors import UsageError, listed
from isocenter.runtime import Model
from isocenter.tasks import Task, build, settings_of

FLAG = "--positive"


def with_positive(model: Model, positive: str | None, source: str) -> Model:
    """The model whose sensitivity, predictive values and thresholds are those of this class; as it is without one.

    Raises UsageError for a model whose positive class has been decided before, PlanError for a class that it lacks.
    """
    if positive is None:
        return model
    own = settings_of(model.task)
    if "positive" not in own:
        problem = f"no positive class of a {model.task.name} can be chosen here"
        raise UsageError(problem, FLAG, "Leave it out")
    task = build({"name": model.task.name, **own, "positive": positive})
    decided = own["positive"] is not None or own["thresholds"] is not None
    if decided and task.scoring.positives != model.task.scoring.positives:
        problem = f"{listed(model.task.scoring.positives)} is positive in this model, and its thresholds are of that"
        raise UsageError(problem, source, f"Leave out {FLAG}, or train again with {FLAG} {positive}")
    return replace(model, task=task)


def positive_words(task: Task) -> Iterator[str]:
    """Which classes are positive, in words; none where each class is compared with the rest, or of no class."""
    positives, others = task.scoring.positives, [one.name for one in task.labels]
    others = [name for name in others if name not in positives]
    if positives and others:
        named, rest = listed(positives), listed(others)
        yield (
            f"Positive is {named}, negative {rest}. Thresholds, curves and gaps between groups are those of {named}; "
            f"sensitivity and the like in a row of {rest} take that for positive."
        )


def assumed_positive(task: Task) -> Iterator[str]:
    """That nobody has decided which of two classes is positive, so that their names do."""
    if len(task.labels) == 2 and task.scoring.positives and settings_of(task).get("positive") is None:
        name = listed(task.scoring.positives)
        yield f"Nobody has stated which class is positive: {name} is taken for it. {FLAG} NAME decides otherwise."
