"""The encoder, decoder and head of a network, and the levels of its encoder, by the order in which they compute."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isocenter.networks.deepest_map import deepest_part, last_layers

if TYPE_CHECKING:
    from torch import Tensor, nn

ENCODER, DECODER, HEAD = "encoder", "decoder", "head"
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


def groups_of(module: nn.Module, at: str, images: Tensor, context: Tensor | None = None) -> TensorGroups:
    """The parts of a network of `build`, which is led over a batch once: on torch's meta device without arithmetic.

    at: the part whose output is the deepest map, `Family.features`; empty where it is not known
    """
    names, calls, end = {part: name for name, part in module.named_modules()}, dict[str, int](), list[int]()
    with ExitStack() as hooks:
        for part, name in names.items():
            called = _called(name, calls)
            hooks.callback(part.register_forward_pre_hook(called).remove)
        if at:
            deepest = deepest_part(module, at).register_forward_hook(lambda *_: end.append(len(calls)))
            hooks.callback(deepest.remove)
        module.eval()(images) if context is None else module.eval()(images, context)
    heads = {names[layer] for layer in last_layers(module, at).values()} if at else set[str]()
    end = end or [len(calls)]
    groups, order = dict[str, str](), dict[str, int]()
    for name in module.state_dict():
        owner = name.rpartition(".")[0]
        order[name] = _order(owner, calls)
        is_head = LAST in name.split(".") or any(owner == head or owner.startswith(f"{head}.") for head in heads)
        is_head = is_head or name.split(".")[0] in ("vectors", "dense")
        groups[name] = HEAD if is_head else ENCODER if order[name] < end[0] else DECODER
    return TensorGroups(groups, _levels([name for name in groups if groups[name] == ENCODER], order))


def _called(name: str, calls: dict[str, int]) -> Any:
    def hook(*_: Any) -> None:
        calls.setdefault(name, len(calls))

    return hook


def _order(owner: str, calls: Mapping[str, int]) -> int:
    """When a part is first called; one that is not called itself belongs to that which holds it."""
    while owner and owner not in calls:
        owner = owner.rpartition(".")[0]
    return calls.get(owner, 0)


def _levels(names: list[str], order: Mapping[str, int]) -> dict[str, int]:
    levels, level, before = dict[str, int](), -1, None
    for name in sorted(names, key=lambda one: order[one]):
        block = _block(name)
        if level < 0 or block != before:
            level, before = level + 1, block
        levels[name] = level
    return levels


def _block(name: str) -> str:
    """The name up to its first number: layers without one, as those of a stem, are one block."""
    parts = name.split(".")[:-1]
    first = next((place for place, part in enumerate(parts) if part.isdecimal()), None)
    return "" if first is None else ".".join(parts[: first + 1])
