"""Dropout of a whole network: where it lies, and masks that are sampled while a network predicts.

Gal and Ghahramani, ICML 2016, arXiv:1506.02142. Of maps whole channels are left out, because neighbouring voxels are
alike: Tompson et al., CVPR 2015, arXiv:1411.4280.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from hilum.errors import PlanError
from hilum.networks.network_family import Family, NetworkSize

# The first number of the seed of each mask, of which the others are those of the draw and of the layer.
SEED = 0


class ChannelDropout(_DropoutNd):
    """(batch, channels, ...) without a share of the channels while it learns, for any number of axes."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps with the channels that are left multiplied, so that their mean stays."""
        if not self.training:
            return maps
        channels = maps.new_ones(*maps.shape[:2], *[1] * (maps.ndim - 2))
        return maps * nn.functional.dropout(channels, self.p)


def settings_with_dropout(name: str, family: Family, size: NetworkSize, share: float) -> NetworkSize:
    """The settings of a family whose own dropout has this share; of one with dropout behind its blocks as they are.

    Raises PlanError for a family that has neither.
    """
    if family.blocks is None:
        remedy = "Give 0, or another --set network.name, such as resnet, vgg or unet"
        raise PlanError(f"{name} has no blocks and no dropout of its own", "network.dropout", remedy)
    return size if family.blocks or not share else {**size, "dropout": share}


def add_block_dropout(module: nn.Module, family: Family, share: float) -> nn.Module:
    """Let training leave out this share of the channels behind every block of a module, which has no new weights."""
    for block in [part for part in module.modules() if type(part).__name__ in (family.blocks or ())]:
        block.add_module("drops_behind", ChannelDropout(share))
        block.register_forward_hook(_leave_out)
    return module


def _leave_out(block: nn.Module, _: tuple[Any, ...], output: Tensor) -> Tensor:
    return cast("Tensor", block.get_submodule("drops_behind")(output))


def dropout_layers(module: nn.Module) -> list[_DropoutNd]:
    """The layers of a module that leave something out in training."""
    return [part for part in module.modules() if isinstance(part, _DropoutNd) and part.p > 0]


@contextmanager
def masks_of_draw(layers: Sequence[_DropoutNd], draw: int) -> Iterator[None]:
    """Dropout of this draw in a network that predicts: the same for every image of a batch, every window and device.

    It holds for this thread alone: others may share the network.
    """
    thread = threading.get_ident()
    with ExitStack() as hooks:
        for number, layer in enumerate(layers):
            hooks.callback(layer.register_forward_hook(partial(_mask, thread, draw, number)).remove)
        yield


def _mask(thread: int, draw: int, number: int, layer: _DropoutNd, _: tuple[Any, ...], output: Tensor) -> Tensor:
    if threading.get_ident() != thread:
        return output
    shape = (1, *output.shape[1:])
    if not isinstance(layer, nn.Dropout):  # layers that leave out whole channels
        shape = (1, output.shape[1], *[1] * (output.ndim - 2))
    kept = np.random.default_rng((SEED, draw, number)).random(shape, dtype=np.float32) >= layer.p
    return output * torch.from_numpy(kept).to(output) / (1 - layer.p)
