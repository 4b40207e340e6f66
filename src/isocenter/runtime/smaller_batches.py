"""Batches that halve where memory runs out, so that a prediction continues."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import MEMORY_ERRORS, MemoryShortageError, counted, is_out_of_memory
from isocenter.runtime.windows.slide import Network
from isocenter.values import Array

log = logging.getLogger("isocenter")


@dataclass(eq=False)
class SmallerBatches:
    """A network that halves the number of windows at once until they fit, and keeps that number.

    most: windows that may pass together; None while no limit was met
    Raises MemoryShortageError where not even one window fits.
    """

    network: Network
    most: int | None = None

    def __call__(self, batch: NDArray[np.float32], *context: NDArray[np.float32]) -> Mapping[str, Array]:
        parts: list[Mapping[str, Array]] = []
        done = 0
        while done < len(batch):
            size = min(len(batch) - done, self.most or len(batch))
            outputs = self._tried(*(array[done : done + size] for array in (batch, *context)))
            if outputs is None:
                self.most = size // 2
                log.warning("memory ran out with %s at once: from now on %d", counted(size, "window"), self.most)
                continue
            parts.append(outputs)
            done += size
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _tried(self, windows: NDArray[np.float32], *context: NDArray[np.float32]) -> Mapping[str, Array] | None:
        """The outputs; None where memory ran out. The memory of the attempt is freed before the next one."""
        try:
            return self.network(windows, *context)
        except MEMORY_ERRORS as error:
            if not is_out_of_memory(error):
                raise
            if len(windows) > 1:
                return None
            raise MemoryShortageError(
                f"not even one window of {windows.shape[1:]} fits into memory ({str(error).splitlines()[0]})",
                "network",
                "Close other programs, take another --device, or a machine with more memory",
            ) from error


def in_smaller_batches(network: Network) -> Network:
    """The network with that behaviour; one that has it already stays as it is."""
    return network if isinstance(network, SmallerBatches) else SmallerBatches(network)


def within_smaller_batches(network: Network) -> Network:
    """The network itself, without what only makes its batches smaller."""
    while isinstance(network, SmallerBatches):
        network = network.network
    return network
