"""Networks whose weights do not fit on a device at once: each is there while it computes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isocenter.lazy import torch
from isocenter.runtime.device import CUDA, gpu_memory
from isocenter.runtime.model import Model
from isocenter.runtime.torch_network import TorchNetwork
from isocenter.runtime.windows.slide import Network

# Of a device's free memory, what weights may take: the rest is for what is alive of the layers.
SHARE = 0.5
# One network visits at a time: threads that share a model would send each other's home.
_turn = threading.Lock()

log = logging.getLogger("isocenter")


@dataclass(frozen=True)
class Visiting(TorchNetwork):
    """A network that rests in the machine's memory, and is on the device while a batch goes through.

    resting: the network as it was read, which may give the features at which a gate looks
    """

    resting: TorchNetwork = field(kw_only=True)

    def __call__(self, *batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        with _turn:
            try:
                self.module.to(self.device)
                return replace(self.resting, device=self.device)(*batch)
            finally:
                self.module.to("cpu")


def fit_on_device(weights: Sequence[Path], device: str) -> bool:
    """Whether these files' weights may all lie on the device; a processor's memory is the machine's own."""
    if not device.startswith(CUDA):
        return True
    return sum(one.stat().st_size for one in weights) <= SHARE * gpu_memory(device)


def _is_on(network: Network, device: str) -> bool:
    """Whether a network's weights lie on a device."""
    parameters = network.module.parameters() if isinstance(network, TorchNetwork) else iter(())
    return next((one.device == torch.device(device) for one in parameters), False)


def on_device(model: Model, weights: Sequence[Path], device: str) -> Model:
    """A model of one network or several, read into the machine's memory, as it computes on a device.

    weights: the files that they were read from
    """
    # Members of an ensemble of these, or with other shares, lie there already.
    fits = fit_on_device(
        [one for one, own in zip(weights, model.networks.members, strict=True) if not _is_on(own, device)], device
    )
    if not fits:
        log.warning("the members' weights do not fit on %s together: each is brought there for its turn", device)
    members = list[Network]()
    for network in model.networks.members:
        assert isinstance(network, TorchNetwork)  # noqa: S101 - as they were read
        members.append(
            replace(network, module=network.module.to(device), device=device)
            if fits
            else Visiting(network.module, device, resting=network)
        )
    average = model.networks.average
    return model.with_run(members[0] if average is None else replace(average, members=tuple(members)))
