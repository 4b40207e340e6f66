"""Encoder-decoders of MONAI as families here, with heads by name and images of any size.

Cardoso et al., arXiv:2211.02701.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import Tensor, nn
from torch.nn.functional import pad

if TYPE_CHECKING:
    from isocenter.networks.family import Sized, Strides


class Body(Protocol):
    """A network of MONAI in two parts, encoder and decoder.

    multiple: voxels per axis of a cell of its coarsest grid
    deepest:  feature maps of that grid
    """

    multiple: list[int]
    deepest: int

    def encoded(self, images: Tensor) -> list[Tensor]:
        """(batch, maps, *grid) of each grid, finest first."""

    def decoded(self, features: list[Tensor]) -> list[Tensor]:
        """(batch, outputs, *grid), finest first; coarser ones in training only."""


class OfMonai(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, channels of the head, *spatial) or (batch, size)}.

    Images of any size are padded, by their last voxels, to whole cells of the coarsest grid, and outputs are cropped.
    That grid has at least two cells, because a single one has no variance for a normalisation.
    dense, vectors: heads by name with their number of channels. Dense heads are channels of one map, in the order
                    given; the others are linear layers on the mean of the coarsest grid
    `size`:         settings of the network of MONAI
    """

    body_of: ClassVar[Callable[..., Body]]

    def __init__(
        self, channels: int, spatial_dims: int, dense: Mapping[str, int], vectors: Mapping[str, int], **size: Any
    ) -> None:
        super().__init__()
        self.coarsest = nn.Identity()  # where others see its features
        # MONAI makes no network without a map of outputs.
        self.body: Any = self.body_of(channels, spatial_dims, max(1, sum(dense.values())), **size)
        ends = [sum(list(dense.values())[: n + 1]) for n in range(len(dense))]
        parts = zip(dense.items(), ends, strict=True)
        self.dense = nn.ModuleDict({name: Part(end - count, count) for (name, count), end in parts})
        self.vectors = nn.ModuleDict({name: nn.Linear(self.body.deepest, n) for name, n in vectors.items()})

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the outputs by head; `context` is not used."""
        size = sizes(images)
        images = filled(images, self.body.multiple)
        features = self.body.encoded(images)
        features[-1] = self.coarsest(features[-1])
        pooled = features[-1].flatten(2).mean(dim=2)
        outputs = {name: layer(pooled) for name, layer in self.vectors.items()}
        for level, maps in enumerate(self.body.decoded(features) if self.dense else []):
            here = cut(maps, size, sizes(images))
            outputs |= {f"{name}@{level}" if level else name: part(here) for name, part in self.dense.items()}
        return outputs


class Part(nn.Module):
    """`count` channels of a map, from channel `first` on."""

    def __init__(self, first: int, count: int) -> None:
        super().__init__()
        self.first, self.count = first, count

    def forward(self, maps: Tensor) -> Tensor:
        """Return (batch, count, *spatial)."""
        return maps.narrow(1, self.first, self.count)


def sizes(images: Tensor) -> list[int]:
    """Voxels per axis as plain numbers, which an export keeps as constants."""
    return [int(n) for n in images.shape[2:]]


def cells(images: Tensor, multiple: Sequence[int]) -> list[int]:
    """Whole cells along each axis that hold the images, at least two in all."""
    counts = [-(-n // step) for n, step in zip(sizes(images), multiple, strict=True)]
    return counts if max(counts) > 1 else [*counts[:-1], 2]


def filled(images: Tensor, multiple: Sequence[int]) -> Tensor:
    """Images padded by their last voxels to whole cells, at least two in all."""
    whole = zip(cells(images, multiple), multiple, sizes(images), strict=True)
    beyond = [count * step - n for count, step, n in whole]
    if max(beyond) == 0:
        return images
    return pad(images, [end for n in reversed(beyond) for end in (0, n)], mode="replicate")


def cut(maps: Tensor, size: Sequence[int], filled_size: Sequence[int]) -> Tensor:
    """Maps of padded images, on their grid or a coarser one, cropped to the images."""
    for axis, (n, whole) in enumerate(zip(size, filled_size, strict=True), start=2):
        maps = maps.narrow(axis, 0, -(-n * int(maps.shape[axis]) // whole))
    return maps


def check_axes(axes: int, known: Sequence[int], name: str) -> None:
    """ValueError where MONAI's network has no version for so many axes."""
    if axes not in known:
        raise ValueError(f"{name} is for images of {' or '.join(map(str, known))} axes, not {axes}: choose unet")


def product_of(strides: Sequence[Sequence[int]], axes: int) -> list[int]:
    """Voxels per axis of a cell of the last stage.

    strides: one entry a stage and axis; the first stage has stride 1
    Raises ValueError for other strides, and for fewer than two stages.
    """
    if len(strides) < 2 or max(strides[0]) > 1 or any(len(stride) != axes for stride in strides):
        raise ValueError(f"strides need two stages, {axes} numbers in each, and 1 in the first, not {strides}")
    return [math.prod(along) for along in zip(*strides, strict=True)]


def stages_for(strides: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """The first stages of a plan, at least two: images are halved once where it has only one."""
    axes = len(strides[0])
    kept = [list(stride) for stride in strides[:most]]
    return kept if len(kept) > 1 else [[1] * axes, [2] * axes]


def size_by_stages(
    patch: Sequence[int], strides: Strides, device: str, *, stages: int, width: int, narrower: int, paper: str
) -> Sized:
    """The settings of so many stages, or as many as the patch has; on a processor a part of the width.

    Bind the keywords by `partial` to get a family's `size_for`.
    """
    kept = stages_for(strides, stages)
    size = {"strides": kept, "width": width // narrower if device == "cpu" else width}
    return size, f"patch {tuple(patch)}: {len(kept)} stages; width for the {device}", paper


def halvings_for(patch: Sequence[int], most: int) -> int:
    """The number of times that all axes can be halved until the shortest has two cells; at least 1."""
    return max(1, min(most, int(math.log2(max(2, min(patch) / 2)))))
