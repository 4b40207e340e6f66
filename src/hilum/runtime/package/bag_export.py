"""The export of a network of bags as two ONNX graphs: one sees tiles, the other pools their features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from hilum.networks.bag_pooling import TileBag
from hilum.runtime.model_assembly import Model
from hilum.runtime.model_schema import OnnxRecord
from hilum.runtime.package import onnx_export, package_contents
from hilum.runtime.package.onnx_export import FurtherOutputs, GraphInputs, WithFurther
from hilum.runtime.package.package_contents import FEATURES, ONNX, ONNX_TILES, PLACES, TILES_OF_BLOCK

# Tiles of bags that are compared with torch: one, some, and more than a window of the grid has places.
TILES = (1, 6, 70)
# Tiles along a side of the grid of those bags.
SIDE = 12


class TilesHalf(nn.Module):
    """(n, channels, rows, columns) to (n, features): those of several networks, joined."""

    def __init__(self, bags: Sequence[TileBag]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(bags)

    def forward(self, tiles: Tensor) -> Tensor:
        """Return the features."""
        return torch.cat([cast("TileBag", bag).encoded(tiles) for bag in self.networks], dim=1)


class OwnFeatures(nn.Module):
    """(batch, tiles, features) and places to what one of several networks says of its own features."""

    def __init__(self, network: TileBag, first: int, count: int) -> None:
        super().__init__()
        self.network, self.first, self.count = network, first, count

    def forward(self, features: Tensor, places: Tensor) -> dict[str, Tensor]:
        """Return {head: (batch, numbers)}."""
        return self.network.pooled(features.narrow(2, self.first, self.count), places)

    def attention(self, features: Tensor, places: Tensor) -> Tensor:
        """(batch, tiles)"""
        return self.network.attention(features.narrow(2, self.first, self.count), places)


class PoolingHalf(nn.Module):
    """(batch, tiles, features) and places to the outputs of a network of `OwnFeatures`, then the mean attention."""

    def __init__(self, network: nn.Module, bags: Sequence[OwnFeatures], shares: Sequence[float] | None) -> None:
        super().__init__()
        self.network, self.bags = network, list(bags)
        self.shares = shares or [1 / len(bags)] * len(bags)

    def forward(self, features: Tensor, places: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs, the attention as the last."""
        outputs = package_contents.tensors_by_head(self.network(features, places))
        attended = [share * bag.attention(features, places) for share, bag in zip(self.shares, self.bags, strict=True)]
        return (*outputs, torch.stack(attended).sum(dim=0))


def write_halves(model: Model, modules: Sequence[nn.Module], folder: Path) -> OnnxRecord:
    """Write both graphs into a package's folder; the record of the half that pools, or why one is lacking.

    modules: the networks of the model
    """
    own = [module for module in modules if isinstance(module, TileBag)]
    shape = (int(model.networks.architecture["channels"]), *model.preprocessing.tiles.shape[1:])
    seen = onnx_export.write_onnx(TilesHalf(own), shape, folder / ONNX_TILES, names=[FEATURES])
    if not seen["exported"]:
        return seen
    counts = [bag.features for bag in own]
    bags = [OwnFeatures(bag, sum(counts[:n]), count) for n, (bag, count) in enumerate(zip(own, counts, strict=True))]
    network = package_contents.every_head_network(model.task, bags, model.networks.shares).eval()
    heads, further = list(model.task.heads), FurtherOutputs.from_model(model)
    if further.names:
        network = WithFurther(network, heads, further, model.networks.shares)
    whole = PoolingHalf(network, bags, model.networks.shares)
    names = [*(heads if len(heads) > 1 else ["pred"]), *further.names, "attention"]
    pooled = onnx_export.write_graph(whole, _bags_of(sum(counts)), folder / ONNX, names)
    if not pooled["exported"]:
        (folder / ONNX_TILES).unlink()
        return pooled
    other_files = [ONNX_TILES, *seen.get("beside", ()), *pooled.get("beside", ())]
    apart = max(seen["largest_difference"], pooled["largest_difference"])
    return {**pooled, "largest_difference": apart, "beside": other_files, "halves": True, **further.record}


def _bags_of(features: int) -> GraphInputs:
    def random_inputs(count: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        numbers = torch.randperm(SIDE**2, generator=generator)[:count]
        places = torch.stack([numbers // SIDE, numbers % SIDE], dim=1)[None]
        beyond = -count % TILES_OF_BLOCK
        found = torch.rand(1, count, features, generator=generator)
        return [pad(found, (0, 0, 0, beyond)), pad(places, (0, 0, 0, beyond), value=-1)]

    return GraphInputs((FEATURES, PLACES), random_inputs, TILES, axis=1, step=TILES_OF_BLOCK)
