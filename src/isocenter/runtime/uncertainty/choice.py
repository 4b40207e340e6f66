"""The choice of the method by which a model states its uncertainty."""

from __future__ import annotations

from collections.abc import Sequence

from isocenter.errors import UsageError
from isocenter.runtime.inference import AUTO, METHODS, NONE
from isocenter.runtime.networks import Networks
from isocenter.runtime.uncertainty import laplace, members, mirrors
from isocenter.runtime.uncertainty.method import Basis, Method, Without

WHERE = "--uncertainty"
# No method: what a model states without one.
NOTHING = Without(NONE)
# Where the choice is open, the first that suits a model; mirrored views take several times as long, and are asked for.
PREFERRED: tuple[Method, ...] = (members.METHOD, laplace.METHOD)


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
    named = {method.name: method for method in (*PREFERRED, mirrors.METHOD, NOTHING, *own)}
    if asked in named and (lacking := named[asked].lacking(basis)):
        raise UsageError(lacking, WHERE, f"Choose {AUTO} or {NONE}")
    planned = asked if asked in named else basis.inference.uncertainty
    method = named[planned] if planned in named else _preferred(basis, own)
    if planned == AUTO and asked is None and method is not members.METHOD and _is_dense(basis):
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
