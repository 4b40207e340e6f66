"""A network that gives its pooled features beside its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from isocenter import networks
from isocenter.lazy import torch
from isocenter.runtime.guard.observation import Observation, Watching
from isocenter.runtime.kept_outputs import KeptOutputs
from isocenter.runtime.request import AS_PLANNED, Request
from isocenter.runtime.torch_network import TorchNetwork
from isocenter.runtime.windows.averaging import POOLED
from isocenter.runtime.windows.slide import Network
from isocenter.transforms import stacked
from isocenter.values import Case, Prediction

if TYPE_CHECKING:
    from torch import Tensor

    from isocenter.networks import Features
    from isocenter.runtime.guard.guard import Guard
    from isocenter.runtime.model import Model


@dataclass(frozen=True)
class Watched(TorchNetwork):
    """A torch module whose outputs come with its pooled features.

    at:     the part of the module whose output is its deepest map
    further: outputs that are added, from what the module saw and its last layers took
    kept:   outputs that it gave before; None where each batch is computed
    """

    at: str = ""
    further: Callable[[Features], Mapping[str, Tensor]] | None = None
    kept: KeptOutputs | None = None

    def __call__(self, *batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        asks = self.further is not None
        with torch.inference_mode():
            if self.kept is None:
                seen = self._computed(*batch, last=asks)
            else:
                compute = partial(self._computed, *batch, last=True)
                seen = self.kept.of(self.module, self.device, batch, compute, inputs=asks)
            outputs = {**seen.outputs, POOLED: seen.pooled, **({} if self.further is None else self.further(seen))}
        return {name: output.float().cpu().numpy() for name, output in outputs.items()}

    def _computed(self, *batch: NDArray[np.float32], last: bool) -> Features:
        given = (torch.from_numpy(one).to(self.device) for one in batch)
        return networks.features(self.module, *given, at=self.at, last=last)


def with_guard(model: Model, guard: Guard | None) -> Model:
    """The model with a gate, and its network with the features at which the gate looks."""
    if guard is None:
        return model
    return replace(model, guard=guard, run=model.run if guard.features is None else with_features(model))


def observed(
    model: Model,
    case: Case,
    further: Callable[[Features], Mapping[str, Tensor]] | None = None,
    request: Request = AS_PLANNED,
) -> tuple[Observation, Prediction]:
    """What a model sees of a case, and what it says of it; further: what also looks at it, as in `Watched`."""
    watching = Watching(with_features(model, further))
    prediction = replace(model, run=watching, guard=None).predict(case, request)
    np.asarray(prediction.data)  # a large volume passes the network only while its result is read
    seen = watching.observation(stacked(case.images, case.id), case.covariates)
    return replace(seen, patient=case.patient), prediction


def with_features(model: Model, further: Callable[[Features], Mapping[str, Tensor]] | None = None) -> Network:
    """The model's network with its features, of several those of the first; unchanged where it gives none.

    further: as in `Watched`
    """
    first, *others = model.members
    if (watched := _watched(first, model.networks[0])) is None:
        return model.run
    shown = replace(watched, further=further)
    return shown if model.average is None else replace(model.average, members=(shown, *others))


def keeping_outputs(model: Model, kept: KeptOutputs) -> Model:
    """The model whose networks compute no batch again that they have kept; those that give no features compute all."""
    members = list[Network]()
    for network, settings in zip(model.members, model.networks, strict=True):
        watched = _watched(network, settings)
        members.append(network if watched is None else replace(watched, kept=kept))
    run = members[0] if model.average is None else replace(model.average, members=tuple(members))
    return replace(model, run=run, first=None if model.first is None else keeping_outputs(model.first, kept))


def _watched(network: Network, settings: Mapping[str, Any]) -> Watched | None:
    """A network of a family that gives its features; None where it gives none, as one of another program."""
    # What computes without torch imports it for no family either.
    if not isinstance(network, TorchNetwork) or type(network) not in (TorchNetwork, Watched):
        return None
    name = str(settings["name"])
    if name not in networks.names() or not (at := networks.family_of(name).features):  # of a bundle its maker's own
        return None
    return replace(network, at=at) if isinstance(network, Watched) else Watched(network.module, network.device, at)
