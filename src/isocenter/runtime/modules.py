"""The torch modules of a model's networks, as its task and the arguments of `networks.build` have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isocenter import networks
from isocenter.runtime import bundle
from isocenter.runtime.covariate_encoding import Context
from isocenter.values import Head

if TYPE_CHECKING:
    from torch.nn import Module

    from isocenter.tasks import Task


def build_module(task: Task, network: Mapping[str, Any]) -> Module:
    """The torch module that these settings name, with fresh weights.

    The entry "marked" is the number of labels of a first stage: their numbers are the last channel of the input, and
    each becomes a channel of the family's network. "first_entry" is where its covariates begin in a context of several
    networks.
    """
    context, marked, channels = len(Context.of(network.get("context"))), network.get("marked", 0), network["channels"]
    inputs = channels - 1 + marked if marked else channels
    fusion = network.get("fusion")
    name, size = network["name"], network["size"]
    module = networks.build(name, inputs, network["spatial_dims"], task.heads, size, context, fusion)
    module = networks.with_quick_single_volumes(module)
    moving = displacing_heads(task.heads)
    module = bundle.Displacing(module, moving) if moving else module
    module = bundle.AfterLabels(module, marked) if marked else module
    return bundle.OnItsEntries(module, network["first_entry"], context) if "first_entry" in network else module


def displacing_heads(heads: Mapping[str, Head]) -> dict[str, int]:
    """{head: axes} of those that displace voxels, and so are velocities of the family's network."""
    return {name: head.count for name, head in heads.items() if head.moves}
