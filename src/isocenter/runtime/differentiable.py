"""A model's networks as torch sees them, so that gradients run through them: the one place outside inference mode."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isocenter.errors import UsageError
from isocenter.lazy import torch
from isocenter.runtime.networks import TorchNetwork
from isocenter.runtime.smaller_batches import within_smaller_batches
from isocenter.runtime.windows.averaging import Averaged, members_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from isocenter.runtime.networks import Networks


@dataclass(frozen=True, eq=False)
class Differentiable:
    """The networks of a model as modules whose outputs have gradients by their inputs.

    modules:  one a member; they share the model's weights, which get no gradients, and may be hooked and changed:
              nobody else has these modules
    families: the name of each one's family, for `networks.family_of`
    shares:   the weight of each member, in sum 1
    """

    modules: tuple[Module, ...]
    families: tuple[str, ...]
    shares: tuple[float, ...]
    device: str

    @classmethod
    def of(cls, networks: Networks) -> Differentiable:
        """The networks of a model; UsageError for one that computes without torch."""
        run, computing = within_smaller_batches(networks.run), networks.computing
        members = members_of(run)
        if unlike := [one for one in members if not isinstance(one, TorchNetwork)]:
            what = computing.value if computing is not None else type(unlike[0]).__name__
            problem = f"the model computes without torch ({what}), which gives no gradients and shows no inner maps"
            raise UsageError(problem, "--method", "Choose occlusion or rise, or load it with --backend torch")
        torch_networks = [one for one in members if isinstance(one, TorchNetwork)]
        shares = (run.shares if isinstance(run, Averaged) else None) or (1 / len(torch_networks),) * len(torch_networks)
        names = tuple(str(one["name"]) for one in networks.architectures)
        device = torch_networks[0].device
        return cls(tuple(twin(one.module).to(device) for one in torch_networks), names, shares, device)

    def run_of(self, index: int) -> Callable[[Tensor, Tensor | None], Mapping[str, Any]]:
        """One member: (batch, channels, *window) images and (batch, entries) covariates to {head: tensor}."""
        module = self.modules[index]
        return lambda images, context: module(*(one for one in (images, context) if one is not None))


def twin(module: Module, *, shared: bool = True) -> Module:
    """The module once more, in evaluation mode, without gradients of its weights and without steps in place.

    shared: its weights lie in the same memory; else they are its own
    """
    tensors = [*module.parameters(), *module.buffers()]
    with torch.inference_mode(False):
        memo: dict[int, Any] = {id(one): _frozen(one, shared=shared) for one in tensors}
        copied = copy.deepcopy(module, memo)
    for part in copied.modules():
        if getattr(part, "inplace", False):  # what a step in place overwrites has no gradient any more
            part.inplace = False  # type: ignore[assignment]
    return copied.eval()


def _frozen(tensor: Tensor, *, shared: bool) -> Tensor:
    values = tensor.detach() if shared and not tensor.is_inference() else tensor.detach().clone()
    return torch.nn.Parameter(values, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else values
