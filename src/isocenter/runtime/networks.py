"""The networks of a model as one function of arrays, and what they are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isocenter import networks
from isocenter.lazy import torch
from isocenter.runtime.covariate_encoding import Context
from isocenter.runtime.torch_network import TorchNetwork
from isocenter.runtime.windows.averaging import POOLED, Averaged, members_of

if TYPE_CHECKING:
    from torch import Tensor

    from isocenter.networks import Features
    from isocenter.runtime.windows.slide import Network
    from isocenter.values import Decision

# Adds outputs to those of a network, from what its module saw and its last layers took.
Further = Callable[["Features"], Mapping[str, "Tensor"]]


@dataclass(frozen=True)
class Watched(TorchNetwork):
    """A torch module whose outputs come with its pooled features.

    at:     the part of the module whose output is its deepest map
    further: adds outputs
    """

    at: str = ""
    further: Further | None = None

    def __call__(self, *batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        given, last = [torch.from_numpy(one).to(self.device) for one in batch], self.further is not None
        with torch.inference_mode():
            seen = networks.features(self.module, *given, at=self.at, last=last)
            outputs = {**seen.outputs, POOLED: seen.pooled, **({} if self.further is None else self.further(seen))}
        return {name: output.float().cpu().numpy() for name, output in outputs.items()}


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
        """The part of the first network that gives the features; empty where nobody knows, as of another program's.

        What computes without torch imports it for no family either.
        """
        first, name = self.members[0], str(self.architectures[0]["name"])
        is_plain = isinstance(first, TorchNetwork) and type(first) in (TorchNetwork, Watched)
        return networks.family_of(name).features if is_plain and name in networks.names() else ""

    def watched(self, further: Further | None = None) -> Networks:
        """The networks with their features, of several those of the first; unchanged where it gives none.

        further: adds outputs
        """
        first, *others = self.members
        if not isinstance(first, TorchNetwork) or not (at := self.deepest):
            return self
        shown = Watched(first.module, first.device, at, further)
        run = shown if self.average is None else replace(self.average, members=(shown, *others))
        return replace(self, run=run)
