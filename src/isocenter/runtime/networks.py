"""The networks of a model as one function of arrays, what they are made of, and outputs that are kept.

The same windows pass a network once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isocenter import networks
from isocenter.lazy import torch
from isocenter.runtime.covariate_encoding import Context
from isocenter.runtime.device import available_memory
from isocenter.runtime.windows.averaging import POOLED, Averaged, members_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from isocenter.networks import Features
    from isocenter.runtime.windows.slide import Network
    from isocenter.values import Decision


# Adds outputs to those of a network, from what its module saw and its last layers took.
Further = Callable[["Features"], Mapping[str, "Tensor"]]


@dataclass(frozen=True)
class TorchNetwork:
    """A torch module as a function of NumPy arrays: images, and a context beside them if it has one."""

    module: Module
    device: str = "cpu"

    def __call__(self, *batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        with torch.inference_mode():
            outputs = self.module(*(torch.from_numpy(one).to(self.device) for one in batch))
        return {name: output.float().cpu().numpy() for name, output in outputs.items()}


@dataclass(frozen=True)
class Watched(TorchNetwork):
    """A torch module whose outputs come with its pooled features.

    at:     the part of the module whose output is its deepest map
    further: adds outputs
    kept:   outputs that it gave before; None where each batch is computed
    """

    at: str = ""
    further: Further | None = None
    kept: KeptOutputs | None = None

    def __call__(self, *batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        asks = self.further is not None
        with torch.inference_mode():
            if self.kept is None:
                features = self._computed(*batch, last=asks)
            else:
                compute = partial(self._computed, *batch, last=True)
                features = self.kept.of(self.module, self.device, batch, compute, inputs=asks)
            outputs = {
                **features.outputs,
                POOLED: features.pooled,
                **({} if self.further is None else self.further(features)),
            }
        return {name: output.float().cpu().numpy() for name, output in outputs.items()}

    def _computed(self, *batch: NDArray[np.float32], last: bool) -> Features:
        tensors = (torch.from_numpy(one).to(self.device) for one in batch)
        return networks.features(self.module, *tensors, at=self.at, last=last)


@dataclass(frozen=True, eq=False)
class Networks:
    """One network, or several whose outputs are averaged.

    run:       all of them as one function of NumPy arrays
    architecture: the arguments of `networks.build` without the heads, which follow from the task
    unlike:    as `architecture`, for each of several that are not alike; else empty
    computing: device and backend, and the reason; None where there was no choice
    in_graph:  the method of uncertainty whose figures the networks compute themselves, as exported ones do
    """

    run: Network
    architecture: Mapping[str, Any]
    unlike: tuple[Mapping[str, Any], ...] = ()
    computing: Decision | None = None
    in_graph: str = ""

    @property
    def average(self) -> Averaged | None:
        """The networks as one, where they are several; None for a single network."""
        return self.run if isinstance(self.run, Averaged) else None

    @property
    def members(self) -> tuple[Network, ...]:
        """The networks whose outputs are averaged, or the only network."""
        return members_of(self.run)

    @property
    def architectures(self) -> tuple[Mapping[str, Any], ...]:
        """The arguments of `networks.build` for each of the members."""
        return self.unlike or (self.architecture,) * len(self.members)

    @property
    def shares(self) -> tuple[float, ...] | None:
        """The weight of each member; None where all members count alike."""
        return None if self.average is None else self.average.shares

    @property
    def families(self) -> str:
        """The names of the networks' families."""
        return ", ".join(dict.fromkeys(str(one["name"]) for one in self.architectures))

    @property
    def context(self) -> Context:
        """The covariates and channels that are entries of the networks' context; empty for networks without."""
        return Context.of(self.architecture.get("context"))

    @property
    def deepest(self) -> str:
        """The part of the first network that gives the features; empty where nobody knows, as of another program's."""
        shown = _watched(self.members[0], self.architectures[0])
        return "" if shown is None else shown.at

    def watched(self, further: Further | None = None) -> Networks:
        """The networks with their features, of several those of the first; unchanged where it gives none.

        further: adds outputs
        """
        first, *others = self.members
        if (shown := _watched(first, self.architectures[0])) is None:
            return self
        return self._of([replace(shown, further=further), *others])

    def keeping(self, kept_outputs: KeptOutputs) -> Networks:
        """The networks, none of which computes a batch again that it has kept; those without features compute all."""
        pairs = zip(self.members, self.architectures, strict=True)
        shown = [(network, _watched(network, settings)) for network, settings in pairs]
        return self._of([network if one is None else replace(one, kept=kept_outputs) for network, one in shown])

    def _of(self, members: Sequence[Network]) -> Networks:
        """The same of other functions of arrays."""
        return replace(self, run=members[0] if self.average is None else replace(self.average, members=tuple(members)))


def _watched(network: Network, settings: Mapping[str, Any]) -> Watched | None:
    """A network of a family that gives its features; None where it gives none, as one of another program."""
    # What computes without torch imports it for no family either.
    if not isinstance(network, TorchNetwork) or type(network) not in (TorchNetwork, Watched):
        return None
    name = str(settings["name"])
    if name not in networks.names() or not (at := networks.family_of(name).features):  # of a bundle its maker's own
        return None
    return replace(network, at=at) if isinstance(network, Watched) else Watched(network.module, network.device, at)


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
        if (earlier := self._known.get(key)) is not None and (earlier.inputs or not inputs):
            return _copied(earlier, device)
        computed = compute()
        of_layers = computed.inputs if all(one.ndim == 2 for one in computed.inputs.values()) else {}
        # Who asks for outputs again has no use for the deepest map.
        features = networks.Features(computed.outputs, computed.pooled, computed.pooled, of_layers)
        size = sum(one.nbytes for one in (*features.outputs.values(), features.pooled, *features.inputs.values()))
        if size <= self._left and key not in self._known:
            self._left -= size
            self._known[key] = _copied(features, "cpu")
        return computed


def _digest(batch: Sequence[NDArray[np.float32]]) -> bytes:
    """A digest of what passes a network together."""
    digest = hashlib.blake2b(digest_size=16)
    for array in batch:
        digest.update(repr((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def _copied(features: Features, device: str) -> Features:
    """The same in memory of its own: whoever gets it may write into it."""

    def copied(tensor: Tensor) -> Tensor:
        return tensor.to(device, copy=True)

    outputs, inputs = (
        {name: copied(one) for name, one in known.items()} for known in (features.outputs, features.inputs)
    )
    pooled = copied(features.pooled)
    return networks.Features(outputs, pooled, pooled, inputs)
