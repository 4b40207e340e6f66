"""The torch modules of a model's networks, as its task and the arguments of `networks.build` have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isocenter import networks
from isocenter.errors import PlanError
from isocenter.runtime import bundle
from isocenter.runtime.covariate_encoding import Context
from isocenter.values import Dense, Head, Vector

if TYPE_CHECKING:
    from torch.nn import Module

    from isocenter.tasks import Task


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
    moving = displacing_heads(heads)
    module = bundle.Displacing(module, moving) if moving else module
    module = bundle.AfterLabels(module, marked) if marked else module
    return bundle.OnItsEntries(module, network["first_entry"], context) if "first_entry" in network else module


def displacing_heads(heads: Mapping[str, Head]) -> dict[str, int]:
    """{head: axes} of those that displace voxels, and so are velocities of the family's network."""
    return {name: head.count for name, head in heads.items() if head.moves}


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
