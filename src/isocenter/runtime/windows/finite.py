"""Outputs of networks that are no numbers: NaN and infinity, from which no answer follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from isocenter.errors import OutputError
from isocenter.runtime.windows.slide import Network
from isocenter.values import Array

REMEDY = "Predict in float32 (--backend torch, --device cpu); if that changes nothing, the network has no answer here"


@dataclass(frozen=True)
class Finite:
    """A network whose outputs must be finite numbers; OutputError for others.

    where: the case whose windows the network sees
    """

    network: Network
    where: str

    def __call__(self, batch: Array) -> Mapping[str, Array]:
        try:
            outputs = self.network(batch)
            check_finite(outputs, self.where)
        except OutputError as error:  # of a member, which does not know the case
            raise error.stating(where=self.where) from error
        return outputs


def check_finite(outputs: Mapping[str, Array], where: str = "network") -> None:
    """OutputError for outputs of windows, {head: (batch, ...)}, of which one value or more is not finite.

    Names with a colon are no heads: features, and what a model adds about its uncertainty.
    """
    for head, output in outputs.items():
        if ":" not in head and not is_finite(output):
            finite = np.isfinite(output)
            values = f"{finite.size - np.count_nonzero(finite)} of the {finite.size} values of {head!r}"
            kinds = "NaN" if np.isnan(output).any() else "infinite"
            raise OutputError(f"the network's outputs are not finite numbers ({values}: {kinds})", where, REMEDY)


def is_finite(output: Array) -> bool:
    """Whether all values are finite; their sum tells in one pass, unless finite values add up to more than float32."""
    with np.errstate(all="ignore"):
        total = np.sum(output, dtype=np.float32)
    return bool(np.isfinite(total)) or bool(np.isfinite(output).all())
