"""The kinds of acquisition and their operators. A new kind is one class and its line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hilum.transforms.operators.cartesian import Cartesian
from hilum.transforms.operators.linear_operator import LinearOperator
from hilum.transforms.operators.ray_sums import RaySums
from hilum.values import Acquisition, StatedSettings

OPERATORS: Mapping[str, Callable[[Acquisition], LinearOperator]] = {"parallel": RaySums, "cartesian": Cartesian}


def operator(acquisition: Acquisition | StatedSettings) -> LinearOperator:
    """The operator of a scanner: `forward`, its exact transpose `adjoint`, and both, `normal`.

    acquisition: as a measurement file states it, {"kind": "parallel", "image": {...}, ...}; mask and sensitivities
                 may stand in it as arrays
    Raises FormatError for an acquisition that cannot be.
    """
    known = acquisition if isinstance(acquisition, Acquisition) else Acquisition.from_record(acquisition)
    return OPERATORS[known.kind](known)
