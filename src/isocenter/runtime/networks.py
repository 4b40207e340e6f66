"""The networks of a model as one function of arrays, and what they are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isocenter import networks
from isocenter.errors import PlanError
from isocenter.lazy import torch
from isocenter.runtime import bundle
from isocenter.runtime.covariate_encoding import Context
from isocenter.runtime.torch_network import TorchNetwork
from isocenter.runtime.windows.averaging import POOLED, Averaged, members_of
from isocenter.values import Dense, Head, Vector

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from isocenter.networks import Features
    from isocenter.runtime.windows.slide import Network
    from isocenter.tasks import Task
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


def build_module(task: Task, network: Mapping[str, Any]) -> Module:
    """The torch module that these settings name, with fresh weights.

    The entry "marked" is the number of labels of a first stage: their numbers are the last channel of the input, and
    each becomes a channel of the family's network. "first_entry" is where its covariates begin in a context of several
    networks. With "noise" the family's network has twice as many outputs of classes.
    """
    context, marked, channels = len(Context.of(network.get("context"))), network.get("marked", 0), network["channels"]
    own = channels - 1 + marked if marked else channels
    fusion = network.get("fusion")
    heads, noisy = heads_of(task, network)
    module = networks.build(network["name"], own, network["spatial_dims"], heads, network["size"], context, fusion)
    module = networks.with_quick_single_volumes(module)
    module = bundle.NoisyLogits(module, noisy) if noisy else module
    module = bundle.AfterLabels(module, marked) if marked else module
    return bundle.OnItsEntries(module, network["first_entry"], context) if "first_entry" in network else module


def heads_of(task: Task, network: Mapping[str, Any]) -> tuple[Mapping[str, Head], dict[str, int]]:
    """The heads of the family's network, and {head: its classes} of those whose logits are noisy.

    PlanError where no class excludes another, or where outputs state evidence.
    """
    if not network.get("noise"):
        return task.heads, {}
    noisy = {name: head.count for name, head in task.heads.items() if name in task.probability_heads}
    if not noisy or task.states_evidence:
        problem = "noise of logits is for classes of which one is right, without evidence"
        raise PlanError(problem, "network.noise", "Give none")
    kinds = {name: Vector if task.heads[name].is_vector else Dense for name in noisy}
    return {**task.heads, **{name: kinds[name](2 * count) for name, count in noisy.items()}}, noisy
