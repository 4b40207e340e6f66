"""A network that gives its pooled features beside its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isocenter import networks
from isocenter.lazy import torch
from isocenter.runtime.guard.observation import Observation, Watching
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
    """

    at: str = ""
    further: Callable[[Features], Mapping[str, Tensor]] | None = None

    def __call__(self, *batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        given, last = [torch.from_numpy(one).to(self.device) for one in batch], self.further is not None
        with torch.inference_mode():
            seen = networks.features(self.module, *given, at=self.at, last=last)
            outputs = {**seen.outputs, POOLED: seen.pooled, **({} if self.further is None else self.further(seen))}
        return {name: output.float().cpu().numpy() for name, output in outputs.items()}


def with_guard(model: Model, guard: Guard | None) -> Model:
    """The model with a gate, and its network with features where the gate looks at them, or they are the result."""
    shows = model.task.by_name or (guard is not None and guard.features is not None)
    return replace(model, guard=guard, run=with_features(model)) if shows else replace(model, guard=guard)


def observed(
    model: Model, case: Case, further: Callable[[Features], Mapping[str, Tensor]] | None = None
) -> tuple[Observation, Prediction]:
    """What a model sees of a case, and what it says of it; further: what also looks at it, as in `Watched`."""
    watching = Watching(with_features(model, further))
    prediction = replace(model, run=watching, guard=None).predict(case)
    np.asarray(prediction.data)  # a large volume passes the network only while its result is read
    seen = watching.observation(stacked(case.images, case.id), case.covariates)
    return replace(seen, patient=case.patient), prediction


def with_features(model: Model, further: Callable[[Features], Mapping[str, Tensor]] | None = None) -> Network:
    """The model's network with its features, of several those of the first; unchanged where it gives none.

    further: as in `Watched`
    """
    first, *others = model.members
    # What computes without torch imports it for no family either.
    if not isinstance(first, TorchNetwork) or type(first) not in (TorchNetwork, Watched):
        return model.run
    name = model.networks[0]["name"]
    if name not in networks.names() or not (at := networks.family_of(name).features):  # of a bundle its maker's own
        return model.run
    shown = Watched(first.module, first.device, at, further)
    return shown if model.average is None else replace(model.average, members=(shown, *others))
