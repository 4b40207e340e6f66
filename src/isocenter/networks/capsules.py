"""Capsules for whole-image outputs, in one, two or three dimensions: vectors that agree on what they belong to.

Sabour et al., NeurIPS 2017, arXiv:1710.09829: a convolution makes many small capsules, each of which foretells each
answer's capsule, and dynamic routing gives most to where foretellings agree. An answer is the log odds of its capsule's
length, which the paper takes for the probability that what it stands for is there; the task's own loss is then as for
any other network, and takes the place of the paper's margin loss. Different from the paper: maps are normalised within
each image, capsules are averaged in as many cells an axis for images of any size, nothing is reconstructed. This file
needs torch, and `lenet` beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isocenter.networks.family import OWN, Family
from isocenter.networks.lenet import in_cells

PAPER = "arXiv:1710.09829"
# By number of axes; typed loosely because torch types sizes by the number of axes.
CONVOLUTION: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TINY = 1e-8  # added to squared lengths, so that a capsule of length 0 has a gradient
COARSE = 16  # cells an axis that images are reduced to before they are averaged; a choice: 14 in the paper's figures


class Answers(nn.Module):
    """(batch, lower, pose) to (batch, upper): one capsule an answer, and the log odds of its length.

    What is there with probability p, the length, has log odds log(p / (1 - p)): with equation 1 that is log |s|^2,
    where s is the capsule before it is squashed. A sigmoid gives the length back. A softmax gives the probability of
    each answer if exactly one is there, and each is there or not by itself.
    """

    def __init__(self, lower: int, upper: int, pose: int, upper_pose: int, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds
        self.foretell = nn.Parameter(torch.empty(lower, upper, upper_pose, pose))
        # So that a fresh capsule above is about as long as those below.
        nn.init.normal_(self.foretell, std=upper / (lower * upper_pose) ** 0.5)

    def forward(self, capsules: Tensor) -> Tensor:
        """Return (batch, upper) log odds."""
        votes = torch.einsum("bip,ijqp->bijq", capsules, self.foretell).float()
        return (routed(votes, self.rounds).square().sum(dim=2) + TINY).log()


class CapsNet(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}.

    strides:    of the convolutions, of which the last makes the capsules
    width:      feature maps of the others
    kernel:     voxels an axis of each, odd
    types:      capsules of a cell
    cells:      an axis, that the capsules are averaged in
    pose:       numbers of a capsule
    upper_pose: numbers of an answer's capsule
    rounds:     of routing
    context:    numbers beside each image; a linear layer makes one more capsule of them
    """

    def __init__(
        self,
        channels: int,
        spatial_dims: int,
        vectors: Mapping[str, int],
        strides: Sequence[int] = (1, 2),
        width: int = 256,
        kernel: int = 9,
        types: int = 32,
        cells: int = 6,
        pose: int = 8,
        upper_pose: int = 16,
        rounds: int = 3,
        context: int = 0,
    ) -> None:
        super().__init__()
        _refuse(strides, kernel, (width, types, cells, pose, upper_pose, rounds))
        self.cells, self.pose = cells, pose
        convolution = CONVOLUTION[spatial_dims]
        layers: list[nn.Module] = []
        for inside, stride in zip([channels, *[width] * len(strides)], strides[:-1], strict=False):
            layers += [convolution(inside, width, kernel, stride, kernel // 2, bias=False)]
            layers += [nn.GroupNorm(1, width), nn.ReLU()]
        inside = width if len(strides) > 1 else channels
        layers.append(convolution(inside, types * pose, kernel, strides[-1], kernel // 2))
        self.body = nn.Sequential(*layers)
        self.told = nn.Linear(context, pose) if context else None
        lower = types * cells**spatial_dims + (1 if context else 0)
        made = {name: Answers(lower, count, pose, upper_pose, rounds) for name, count in vectors.items()}
        self.vectors = nn.ModuleDict(made)

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the answers by head; context: (batch, covariates), for a network that takes them."""
        maps = in_cells(self.body(images), self.cells).flatten(2).transpose(1, 2)
        capsules = squashed(maps.unflatten(2, (-1, self.pose)).flatten(1, 2))
        if self.told is not None and context is not None:
            capsules = torch.cat([capsules, squashed(self.told(context)).unsqueeze(1)], dim=1)
        return {name: layer(capsules) for name, layer in self.vectors.items()}


def squashed(capsules: Tensor) -> Tensor:
    """(..., pose) of the same direction and a length below 1, |s|^2 / (1 + |s|^2); equation 1."""
    squared = capsules.square().sum(dim=-1, keepdim=True)
    return capsules * (squared + TINY).sqrt() / (1 + squared)


def routed(votes: Tensor, rounds: int) -> Tensor:
    """(batch, lower, upper, pose) that each lower capsule foretells to (batch, upper, pose), not yet squashed.

    Each shares itself out over the upper ones, more to those that agree with it; procedure 1.
    """
    found = votes.sum(dim=1) / votes.shape[2]  # at first evenly
    agreed = torch.zeros((), device=votes.device)
    for _ in range(rounds - 1):
        agreed = agreed + (votes * squashed(found).unsqueeze(1)).sum(dim=3)
        found = (agreed.softmax(dim=2).unsqueeze(3) * votes).sum(dim=1)
    return found


def _refuse(strides: Sequence[int], kernel: int, counts: Sequence[int]) -> None:
    """ValueError for settings that make no network."""
    if not strides or min(strides) < 1:
        raise ValueError(f"strides {list(strides)}: one number from 1 for each convolution, at least one")
    if kernel % 2 != 1:
        raise ValueError(f"kernel {kernel} has no voxel in its middle: give an odd one")
    if min(counts) < 1:
        raise ValueError("width, types, cells, pose, upper_pose and rounds are numbers from 1")


def size_for(patch: Sequence[int], strides: Sequence[Sequence[int]], device: str) -> tuple[Mapping[str, Any], str, str]:
    """As many convolutions as it takes to bring an image to a few cells; the paper's width for pictures on a GPU."""
    del strides  # all axes are reduced alike
    slow, volume = device == "cpu", len(patch) > 2
    steps = [1, 2] if max(patch) <= 2 * COARSE else [2, 2]
    while max(patch) > COARSE * 2 ** len(steps):
        steps.append(2)
    types, cells = 8 if slow and volume else 16 if slow or volume else 32, 4 if volume else 6
    size = {
        "strides": steps,
        "width": (32 if slow else 64) if volume else (64 if slow else 256),
        "kernel": 3 if volume else 9 if max(patch) <= 2 * COARSE else 5,
        "types": types,
        "cells": cells,
    }
    count = types * cells ** len(patch)
    return size, f"images of {tuple(patch)}: {len(steps)} convolutions, {count} capsules; width for the {device}", PAPER


CAPSULES = Family(build=CapsNet, size_for=size_for, paper=PAPER, answers=frozenset({"vector"}), takes_context=(OWN,))
