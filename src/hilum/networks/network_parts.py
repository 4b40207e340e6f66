"""The parts of any network by the order in which they compute: encoder, decoder, head, and the deepest map.

The map is taken as it passes, without a change of the network's `forward`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from hilum.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class NetworkFeatures:
    """The outputs of a network for a batch, and its deepest map.

    outputs: {head: tensor}, as `forward` gives them
    deepest: (batch * n, maps, *grid) of the coarsest grid, n slices or frames an image that the network sees apart; or
             (batch * n, features) where it has only a vector
    pooled:  (batch, features): the mean of `deepest` over the grid, the slices and the frames
    inputs:  {head: what its last layer takes}, of heads whose last layer is `vectors[head]` or `dense[head]`
    """

    outputs: Mapping[str, Tensor]
    deepest: Tensor
    pooled: Tensor
    inputs: Mapping[str, Tensor]


def compute_features(
    module: nn.Module,
    images: Tensor,
    context: Tensor | None = None,
    *,
    at: str,
    last: bool = False,
    within: nn.Module | None = None,
) -> NetworkFeatures:
    """The outputs of a module of `build`, or of one that wraps it as its `network`, and its features.

    images: (batch, channels, *spatial)
    at:     the part whose output is the deepest map, `Family.features`; of several outputs the last counts
    last:   whether the inputs of the last layers are kept too
    within: the network itself, where the module holds it otherwise, as one of several
    """
    inner = unwrap(within or module, at)
    deepest_maps = list[torch.Tensor]()
    inputs = dict[str, torch.Tensor]()
    with ExitStack() as hooks:
        hooks.enter_context(hook_part(_part(inner, at), lambda _, output: deepest_maps.append(_last(output))))
        for name, layer in last_layers(inner, at).items() if last else ():
            hooks.enter_context(hook_part(layer, lambda given, _, name=name: inputs.update({name: given[0]})))
        outputs = module(images) if context is None else module(images, context)
    deepest = deepest_maps[-1]
    pooled = deepest.flatten(2).mean(dim=2) if deepest.ndim > 2 else deepest
    # Slices and frames stand one after the other: those of an image are its own.
    return NetworkFeatures(outputs, deepest, pooled.reshape(images.shape[0], -1, pooled.shape[-1]).mean(dim=1), inputs)


def unwrap(module: nn.Module, at: str) -> nn.Module:
    """The module of a family within those that wrap it."""
    first = at.partition(".")[0]
    while first not in module._modules and "network" in module._modules:
        module = module.get_submodule("network")
    return module


def deepest_part(module: nn.Module, at: str) -> nn.Module:
    """The part of a module whose output is the deepest map; module, at: as there."""
    return _part(unwrap(module, at), at)


def _part(module: nn.Module, at: str) -> nn.Module:
    """The part of this dotted name; a negative number counts from the end."""
    for name in at.split("."):
        module = list(module.children())[int(name)] if name.startswith("-") else module.get_submodule(name)
    return module


def last_layers(module: nn.Module, at: str) -> dict[str, nn.Module]:
    """{head: the last layer}, of heads whose last layer is `vectors[head]` or `dense[head]`; module, at: as there."""
    groups = (unwrap(module, at)._modules.get(name) for name in ("vectors", "dense"))
    return {name: layer for group in groups if isinstance(group, torch.nn.ModuleDict) for name, layer in group.items()}


def _last(output: Any) -> Tensor:
    """A tensor; of several the last."""
    if isinstance(output, Mapping):
        output = list(output.values())
    return cast("Tensor", output[-1] if isinstance(output, (list, tuple)) else output)


@contextmanager
def hook_part(part: nn.Module, take: Any) -> Iterator[None]:
    """`take` is given the inputs and the output of a part whenever this thread runs it: others may share the module."""
    thread = threading.get_ident()

    def hook(_: nn.Module, arguments: Any, output: Any) -> None:
        if threading.get_ident() == thread:
            take(arguments, output)

    handle = part.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


ENCODER = "encoder"
DECODER = "decoder"
HEAD = "head"
# The last layers of nnU-Net's networks, which lie in the decoder.
LAST = "seg_layers"


@dataclass(frozen=True)
class TensorGroups:
    """The parts of a network.

    groups: {tensor: "encoder", "decoder" or "head"}; without known features all but the head is encoder
    levels: {tensor of the encoder: number of its level}, 0 at the image; a level is a stage or a block
    """

    groups: Mapping[str, str]
    levels: Mapping[str, int]

    @property
    def count(self) -> int:
        """Number of levels."""
        return 1 + max(self.levels.values(), default=0)


def tensor_groups(module: nn.Module, at: str, images: Tensor, context: Tensor | None = None) -> TensorGroups:
    """The parts of a network of `build`, which is led over a batch once: on torch's meta device without arithmetic.

    at: the part whose output is the deepest map, `Family.features`; empty where it is not known
    """
    names = {part: name for name, part in module.named_modules()}
    calls = dict[str, int]()
    end = list[int]()
    with ExitStack() as hooks:
        for part, name in names.items():
            called = _note_call(name, calls)
            hooks.callback(part.register_forward_pre_hook(called).remove)
        if at:
            deepest = deepest_part(module, at).register_forward_hook(lambda *_: end.append(len(calls)))
            hooks.callback(deepest.remove)
        module.eval()(images) if context is None else module.eval()(images, context)
    heads = {names[layer] for layer in last_layers(module, at).values()} if at else set[str]()
    end = end or [len(calls)]
    groups = dict[str, str]()
    order = dict[str, int]()
    for name in module.state_dict():
        owner = name.rpartition(".")[0]
        order[name] = _order(owner, calls)
        is_head = LAST in name.split(".") or any(owner == head or owner.startswith(f"{head}.") for head in heads)
        is_head = is_head or name.split(".")[0] in ("vectors", "dense")
        groups[name] = HEAD if is_head else ENCODER if order[name] < end[0] else DECODER
    return TensorGroups(groups, _levels([name for name in groups if groups[name] == ENCODER], order))


def _note_call(name: str, calls: dict[str, int]) -> Any:
    def hook(*_: Any) -> None:
        calls.setdefault(name, len(calls))

    return hook


def _order(owner: str, calls: Mapping[str, int]) -> int:
    """When a part is first called; one that is not called itself belongs to that which holds it."""
    while owner and owner not in calls:
        owner = owner.rpartition(".")[0]
    return calls.get(owner, 0)


def _levels(names: list[str], order: Mapping[str, int]) -> dict[str, int]:
    levels = dict[str, int]()
    level = -1
    before = None
    for name in sorted(names, key=lambda one: order[one]):
        block = _block(name)
        if level < 0 or block != before:
            level = level + 1
            before = block
        levels[name] = level
    return levels


def _block(name: str) -> str:
    """The name up to its first number: layers without one, as those of a stem, are one block."""
    parts = name.split(".")[:-1]
    first = next((place for place, part in enumerate(parts) if part.isdecimal()), None)
    return "" if first is None else ".".join(parts[: first + 1])
