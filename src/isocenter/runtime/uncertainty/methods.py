"""The method by which a model tells what it does not know from what nobody could know."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from isocenter.errors import PlanError, UsageError
from isocenter.runtime.uncertainty.disagreement import Disagreement
from isocenter.runtime.windows import Averaged

if TYPE_CHECKING:
    from isocenter.runtime.model import Model

AUTO, NONE, MEMBERS, TTA = "auto", "none", "members", "tta"
Method = Literal["auto", "none", "members", "tta"]
METHODS = (AUTO, NONE, MEMBERS, TTA)
WHERE = "--uncertainty"


def with_uncertainty(model: Model, asked: str | None = None) -> Model:
    """The model that looks for its uncertainty by a method; what it predicts stays the same.

    asked: by a person, one of `METHODS`; None follows the plan, which with "auto" leaves dense results as they are:
           there every voxel costs time
    Raises UsageError for a method that this model does not have.
    """
    if asked not in (None, *METHODS):
        raise UsageError(f"there is no method {asked!r}", WHERE, f"Choose one of {', '.join(METHODS)}")
    by_name = asked not in (None, AUTO)
    method = asked if by_name and asked else model.inference.uncertainty
    if by_name and (lacking := _lacking(model, method)):
        raise UsageError(lacking, WHERE, f"Choose {AUTO} or {NONE}")
    if method == AUTO:
        is_dense = any(head.is_dense for head in model.task.heads.values())
        method = NONE if asked is None and is_dense else MEMBERS
    method = NONE if _lacking(model, method) else method
    run = model.run
    if isinstance(run, Averaged):
        run = replace(run, differ=Disagreement.of(model.task) if method == MEMBERS else None)
    return replace(model, run=run, uncertainty=method)


def _lacking(model: Model, method: str) -> str:
    """Why a model does not have a method; empty where it has it."""
    if method == NONE:
        return ""
    if not model.task.decoding.uncertainty:
        return f"a {model.task.name} states no uncertainty"
    if method == MEMBERS and not isinstance(model.run, Averaged):
        return "the model is one network, without members that could differ"
    if method == TTA:
        try:
            model.flips(True)
        except PlanError as error:
            return f"no mirrored view is true to anatomy ({error.problem})"
    return ""
