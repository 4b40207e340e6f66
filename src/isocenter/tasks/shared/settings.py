"""Settings of a kind of problem from the plan's section "task", or from a model's record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from isocenter.errors import PlanError
from isocenter.values import Sentence

# The sentences of plans about settings that several kinds have.
SETTING_SENTENCES: Mapping[str, Sentence] = {
    "classes": Sentence("The classes are {value}"),
    "loss": Sentence("The loss is {value}"),
    "counts": Sentence("The training cases are {each}"),
    "weights": Sentence("In the loss the classes weigh {each}", "In the loss all classes weigh alike", always=True),
}


@contextmanager
def reading(settings: Mapping[str, Any], known: Iterable[str], kind: str) -> Iterator[None]:
    """A block that turns settings into values; PlanError for an unknown setting, and for a value of another kind.

    known: the names of the kind's settings; kind: in words, as "a detection"
    """
    known = tuple(known)
    if unknown := sorted(set(settings) - set(known)):
        raise PlanError("there is no such setting", f"task.{unknown[0]}", f"Choose one of {', '.join(known)}")
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"impossible settings of {kind} ({type(error).__name__}: {error})"
        raise PlanError(problem, "task", "Plan again, or correct it") from error
