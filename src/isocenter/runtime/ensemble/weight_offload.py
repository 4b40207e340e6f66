"""Networks whose weights do not fit on a device at once: each is there while it computes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isocenter.lazy import torch
from isocenter.runtime.model import Model
from isocenter.runtime.torch_network import TorchNetwork
from isocenter.runtime.windows.slide import Network

# Of a device's free memory, what weights may take: the rest is for what is alive of the layers.
SHARE = 0.5

log = logging.getLogger("isocenter")


@dataclass(frozen=True)
class Visiting(TorchNetwork):
    """A network that rests in the machine's memory, and is on the device while a batch goes through."""

    def __call__(self, *batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        self.module.to(self.device)
        try:
            return TorchNetwork(self.module, self.device)(*batch)
        finally:
            self.module.to("cpu")


def fit_on_device(weights: Sequence[Path], device: str) -> bool:
    """Whether these files' weights may all lie on the device; a processor's memory is the machine's own."""
    if not device.startswith("cuda"):
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return sum(one.stat().st_size for one in weights) <= SHARE * free


def on_device(model: Model, weights: Sequence[Path], device: str) -> Model:
    """A model of one network or several, read into the machine's memory, as it computes on a device.

    weights: the files that they were read from
    """
    fits = fit_on_device(weights, device)
    if not fits:
        log.warning("the members' weights do not fit on %s together: each is brought there for its turn", device)
    members = list[Network]()
    for network in model.members:
        assert isinstance(network, TorchNetwork)  # noqa: S101 - as they were read
        members.append(
            replace(network, module=network.module.to(device), device=device)
            if fits
            else Visiting(network.module, device)
        )
    if model.average is None:
        return replace(model, run=members[0])
    return replace(model, run=replace(model.average, members=tuple(members)))
