"""Channels of a network that matter least, left out by torch-pruning, so that a narrower network of its family remains.

An extra: `compress`. Fang et al., DepGraph, CVPR 2023, arXiv:2301.12900
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hilum.errors import PlanError
from hilum.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


def prune_channels(module: Module, narrower: Module, inputs: Sequence[Tensor], ratio: float) -> dict[str, Tensor]:
    """The weights of a module that remain once this share of the channels of all layers is left out.

    narrower: the same family with so many channels fewer, whose shapes they have; inputs: a batch of each input
    Channels that belong together, such as those of a skip connection, go together; the smallest norms go first.
    Raises PlanError where what remains does not fit the narrower network.
    """
    import torch_pruning  # an extra

    pruned = copy.deepcopy(module).eval()
    wanted = narrower.state_dict()
    for part in pruned.modules():
        if hasattr(part, "inplace"):  # what is changed in place hides the layer before it from the graph
            vars(part)["inplace"] = False
    # Layers as wide in the narrower network give answers: their channels stay.
    answers = [
        part
        for name, part in pruned.named_modules()
        if f"{name}.weight" in wanted and len(part.weight) == len(wanted[f"{name}.weight"])
    ]
    layers = torch.nn.modules.conv._ConvNd, torch.nn.Linear
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch_pruning.pruner.BasePruner(
            pruned,
            tuple(inputs),
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=ratio,
            ignored_layers=answers,
            root_module_types=_kinds_of(pruned, layers),
            forward_fn=lambda network, batch: network(*batch),
            output_transform=_sum_outputs,
        ).step()
    kept: dict[str, Tensor] = pruned.state_dict()
    if unlike := [name for name, one in wanted.items() if name not in kept or kept[name].shape != one.shape]:
        problem = f"{len(unlike)} of {len(wanted)} tensors do not fit the narrower network, the first {unlike[0]}"
        raise PlanError(problem, "prune", "Choose another method")
    return kept


def _kinds_of(module: Module, layers: tuple[type, ...]) -> list[type]:
    """The classes of the layers from which channels are left out: ours derive from torch's."""
    return list({type(part) for part in module.modules() if isinstance(part, layers)})


def _sum_outputs(outputs: Mapping[str, Tensor]) -> Any:
    return sum(one.sum() for one in outputs.values())
