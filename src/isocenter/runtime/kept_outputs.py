"""Outputs of networks that are kept, so that the same windows pass a network once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isocenter import networks
from isocenter.runtime.device import available_memory

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from isocenter.networks import Features

# Bytes that outputs may take: of answers about whole images those of 100,000 windows, of 4 channels of 512² those of
# 250 pictures. What does not fit is computed again.
MOST_BYTES, MEMORY_SHARE = 2**30, 0.125


class KeptOutputs:
    """Outputs of networks for batches of windows, each known by its content.

    What comes after a network, such as calibration, sets, draws of its last layer or a gate, may change between two
    predictions of a case; the outputs of the network stay the same to the bit.

    limit: bytes that they may take together; None for the usual
    """

    def __init__(self, limit: int | None = None) -> None:
        self._left = min(MOST_BYTES, int(MEMORY_SHARE * available_memory())) if limit is None else limit
        self._known: dict[tuple[Module, bytes], Features] = {}

    def close(self) -> None:
        """Keep nothing further: what passes from now on is asked for once."""
        self._left = 0

    def of(
        self,
        module: Module,
        device: str,
        batch: Sequence[NDArray[np.float32]],
        compute: Callable[[], Features],
        *,
        inputs: bool,
    ) -> Features:
        """Outputs of a module on a device for a batch, computed where they are not known.

        inputs: whether what its last layers take is asked for, which is kept of answers about whole images
        """
        key = module, _digest(batch)
        if (known := self._known.get(key)) is not None and (known.inputs or not inputs):
            return _copied(known, device)
        seen = compute()
        of_layers = seen.inputs if all(one.ndim == 2 for one in seen.inputs.values()) else {}
        # Who asks for outputs again has no use for the deepest map.
        kept = networks.Features(seen.outputs, seen.pooled, seen.pooled, of_layers)
        size = sum(one.nbytes for one in (*kept.outputs.values(), kept.pooled, *kept.inputs.values()))
        if size <= self._left and key not in self._known:
            self._left -= size
            self._known[key] = _copied(kept, "cpu")
        return seen


def _digest(batch: Sequence[NDArray[np.float32]]) -> bytes:
    """A digest of what passes a network together."""
    made = hashlib.blake2b(digest_size=16)
    for array in batch:
        made.update(repr((array.shape, array.dtype.str)).encode())
        made.update(np.ascontiguousarray(array).data)
    return made.digest()


def _copied(seen: Features, device: str) -> Features:
    """The same in memory of its own: whoever gets it may write into it."""

    def copied(tensor: Tensor) -> Tensor:
        return tensor.to(device, copy=True)

    outputs, inputs = ({name: copied(one) for name, one in known.items()} for known in (seen.outputs, seen.inputs))
    pooled = copied(seen.pooled)
    return networks.Features(outputs, pooled, pooled, inputs)
