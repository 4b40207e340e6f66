"""Methods that state uncertainty by members or by mirrored views, and the choice among all methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from isocenter.errors import PlanError, UsageError
from isocenter.runtime.inference import AUTO, MEMBERS, METHODS, NONE, TTA
from isocenter.runtime.networks import Networks
from isocenter.runtime.uncertainty import laplace
from isocenter.runtime.uncertainty.method import Basis, Method, Without

if TYPE_CHECKING:
    from isocenter.runtime.windows.pipeline import WindowSettings


class Members(Without):
    """The disagreement between the networks of folds, of other seeds or of an ensemble."""

    def suits(self, basis: Basis) -> bool:
        """Whether there are several networks."""
        return basis.networks.average is not None

    def lacking(self, basis: Basis) -> str:
        """Why they cannot differ; empty where they can."""
        lacking = "" if self.suits(basis) else "the model is one network, without members that could differ"
        return basis.silent or lacking

    def networks(self, basis: Basis) -> Networks:
        """The networks, with how they differ beside their mean."""
        assert basis.networks.average is not None  # noqa: S101 - else it would be lacking
        return replace(basis.networks, run=replace(basis.networks.average, differ=basis.differ))


BY_MEMBERS = Members(MEMBERS)


class Mirrors(Without):
    """The disagreement between mirrored views, which the network also sees for it where nothing else asks for them."""

    def lacking(self, basis: Basis) -> str:
        """Why there are no mirrored views; empty where there are."""
        try:
            basis.flips()
        except PlanError as error:
            return basis.silent or f"no mirrored view is true to anatomy ({error.problem})"
        return basis.silent

    def windows(self, basis: Basis, planned: WindowSettings) -> WindowSettings:
        """The windows, also mirrored."""
        return replace(planned, flips=planned.flips or basis.flips(), differ=basis.differ)


BY_MIRRORS = Mirrors(TTA)


WHERE = "--uncertainty"
# No method: what a model states without one.
NOTHING = Without(NONE)
# Where the choice is open, the first that suits a model; mirrored views take several times as long, and are asked for.
PREFERRED: tuple[Method, ...] = (BY_MEMBERS, laplace.METHOD)


def chosen(basis: Basis, asked: str | None) -> tuple[Networks, Method]:
    """The networks of a model as a method needs them, and the method.

    asked: by a person, one of `METHODS`; None follows the plan, whose "auto" only compares members of dense results.
           Of a volume of 64³ voxels and a U-Net of 16 channels two members took 1.03 times the processor seconds (of
           104³ in several windows 0.98 times), 16 draws of the last layer 1.44 times (medians of 6 in turn)
    Raises UsageError for a method that this model does not have.
    """
    if asked not in (None, *METHODS):
        raise UsageError(f"there is no method {asked!r}", WHERE, f"Choose one of {', '.join(METHODS)}")
    own = [Without(basis.networks.in_graph)] if basis.networks.in_graph else []
    named = {method.name: method for method in (*PREFERRED, BY_MIRRORS, NOTHING, *own)}
    if asked in named and (lacking := named[asked].lacking(basis)):
        raise UsageError(lacking, WHERE, f"Choose {AUTO} or {NONE}")
    planned = asked if asked in named else basis.inference.uncertainty
    method = named[planned] if planned in named else _preferred(basis, own)
    if planned == AUTO and asked is None and method is not BY_MEMBERS and _is_dense(basis):
        method = NOTHING
    method = NOTHING if method.lacking(basis) else method
    return method.networks(basis), method


def _preferred(basis: Basis, own: Sequence[Method]) -> Method:
    """The first method that suits a model, where none is named; own: that of an exported network."""
    several, *others = PREFERRED
    return next(method for method in (several, *own, *others) if method.suits(basis))


def _is_dense(basis: Basis) -> bool:
    """Whether the task answers for every voxel."""
    return any(head.is_dense for head in basis.task.heads.values())
