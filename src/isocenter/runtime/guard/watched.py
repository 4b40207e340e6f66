"""A network that gives its pooled features beside its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isocenter import networks
from isocenter.lazy import torch
from isocenter.runtime.guard.observation import Observation, Watching
from isocenter.runtime.torch_network import TorchNetwork
from isocenter.runtime.windows import POOLED, Averaged
from isocenter.runtime.windows.slide import Network
from isocenter.transforms import stacked
from isocenter.values import Case, Prediction

if TYPE_CHECKING:
    from isocenter.runtime.guard.guard import Guard
    from isocenter.runtime.model import Model


@dataclass(frozen=True)
class Watched(TorchNetwork):
    """A torch module whose outputs come with its pooled features.

    at: the part of the module whose output is its deepest map
    """

    at: str = ""

    def __call__(self, *batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        with torch.inference_mode():
            seen = networks.features(self.module, *(torch.from_numpy(one).to(self.device) for one in batch), at=self.at)
        outputs = {**seen.outputs, POOLED: seen.pooled}
        return {name: output.float().cpu().numpy() for name, output in outputs.items()}


def with_guard(model: Model, guard: Guard | None) -> Model:
    """The model with a gate, and its network with the features at which the gate looks."""
    if guard is None:
        return model
    return replace(model, guard=guard, run=model.run if guard.features is None else _watched(model))


def observed(model: Model, case: Case) -> tuple[Observation, Prediction]:
    """What a model sees of a case, and what it says of it."""
    watching = Watching(_watched(model))
    prediction = replace(model, run=watching, guard=None).predict(case)
    np.asarray(prediction.data)  # a large volume passes the network only while its result is read
    seen = watching.observation(stacked(case.images, case.id), case.covariates)
    return replace(seen, patient=case.patient), prediction


def _watched(model: Model) -> Network:
    """The model's network with its features, of several those of the first; unchanged where it gives none."""
    first, *others = model.members
    if type(first) is not TorchNetwork:  # what computes without torch does not import it for a family either
        return model.run
    if not (at := networks.family_of(model.networks[0]["name"]).features):
        return model.run
    shown = Watched(first.module, first.device, at)
    return replace(model.run, members=(shown, *others)) if isinstance(model.run, Averaged) else shown
