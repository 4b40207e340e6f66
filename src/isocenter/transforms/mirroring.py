"""Mirroring that is true to anatomy: no label ends up on the wrong side."""

from __future__ import annotations

from collections.abc import Sequence

from isocenter.errors import PlanError


def names_sides(mirrored: Sequence[int] | None) -> bool:
    """Whether any label names a side.

    mirrored: for each label the one that it becomes when left and right change sides; None where one has no counterpart
    """
    return mirrored is None or any(other != place for place, other in enumerate(mirrored))


def check_flips(
    section: str,
    flips: Sequence[int],
    left_right: int | None,
    *,
    mirrored: Sequence[int] | None,
    ndim: int,
    remedy: str = "",
) -> None:
    """Raises PlanError where an axis does not exist, or where flips would, or may, put a label on the wrong side.

    section:    of the plan, whose `flips` and `left_right` these are
    left_right: the axis between left and right; None where it is not known
    remedy:     in place of an edit of the plan
    """
    for name, axes in (("flips", flips), ("left_right", () if left_right is None else (left_right,))):
        beyond = [axis for axis in axes if not 0 <= axis < ndim]
        if beyond:
            problem = f"there is no axis {beyond[0]} in {ndim} dimensions"
            raise PlanError(problem, f"{section}.{name}", "Axes count from 0")
    where = f"{section}.flips"
    if names_sides(mirrored) and flips and left_right is None:
        problem = "labels name a side, and it is not known which axis runs from left to right"
        raise PlanError(problem, where, remedy or f"Give {section}.left_right, or no flips")
    if mirrored is None and left_right in flips:
        problem = "left and right would change sides, and a label has no counterpart on the other side"
        raise PlanError(problem, where, remedy or f"Leave out axis {left_right}")
