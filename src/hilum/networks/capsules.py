"""Capsule network for whole-image outputs, in one, two or three dimensions, with dynamic routing.

Sabour et al., NeurIPS 2017, arXiv:1710.09829: a convolution makes many small capsules, each of which predicts the
capsule of each class, and dynamic routing gives most weight to predictions that agree. The output of a class is the log
odds of its capsule's length, which the paper takes for its probability; so the task's own loss replaces the paper's
margin loss. Different from the paper: maps are normalised within each image, capsules are averaged in a fixed number of
cells for images of any size, and there is no reconstruction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hilum.networks import common_layers
from hilum.networks.common_layers import CONVOLUTION
from hilum.networks.network_family import OWN, Family, Sized, Strides

PAPER = "arXiv:1710.09829"
TINY = 1e-8  # added to squared lengths, so that a capsule of length 0 has a gradient
COARSE = 16  # cells an axis of the maps that are averaged; a choice: 14 in the paper's figures


class ClassCapsules(nn.Module):
    """(batch, lower, pose) to (batch, upper): one capsule a class, and the log odds of its length.

    A probability p, the length, has log odds log(p / (1 - p)): with equation 1 that is log |s|^2, where s is the
    capsule before it is squashed. A sigmoid gives the length back; a softmax gives the probability of each class
    given that exactly one is present, if they are independent.
    """

    def __init__(self, lower: int, upper: int, pose: int, upper_pose: int, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds
        self.foretell = nn.Parameter(torch.empty(lower, upper, upper_pose, pose))
        # With this deviation an upper capsule is at first about as long as the lower ones.
        nn.init.normal_(self.foretell, std=upper / (lower * upper_pose) ** 0.5)

    def forward(self, capsules: Tensor) -> Tensor:
        """Return (batch, upper) log odds."""
        votes = torch.einsum("bip,ijqp->bijq", capsules, self.foretell).float()
        return (route_votes(votes, self.rounds).square().sum(dim=2) + TINY).log()


class CapsNet(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}.

    strides:    of the convolutions, of which the last makes the capsules
    width:      feature maps of the other convolutions
    kernel:     voxels an axis of each, odd
    types:      capsules of a cell
    cells:      along each axis, in which capsules are averaged
    pose:       length of a capsule's vector
    upper_pose: length of the vector of a class's capsule
    rounds:     of routing
    context:    number of covariates; a linear layer makes one more capsule of them
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
        self.cells = cells
        self.pose = pose
        convolution = CONVOLUTION[spatial_dims]
        layers: list[nn.Module] = []
        for inside, stride in zip([channels, *[width] * len(strides)], strides[:-1], strict=False):
            layers += [convolution(inside, width, kernel, stride, kernel // 2, bias=False)]
            layers += [nn.GroupNorm(1, width), nn.ReLU()]
        inside = width if len(strides) > 1 else channels
        layers.append(convolution(inside, types * pose, kernel, strides[-1], kernel // 2))
        self.body = nn.Sequential(*layers)
        self.context = context
        if context:
            self.of_context = nn.Linear(context, pose)
        lower = types * cells**spatial_dims + (1 if context else 0)
        answers = {name: ClassCapsules(lower, count, pose, upper_pose, rounds) for name, count in vectors.items()}
        self.vectors = nn.ModuleDict(answers)

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return {head: (batch, size)}; context: (batch, covariates)."""
        maps = common_layers.pool_cells(self.body(images), self.cells).flatten(2).transpose(1, 2)
        capsules = squash(maps.unflatten(2, (-1, self.pose)).flatten(1, 2))
        if self.context and context is not None:
            covariates = squash(self.of_context(context))
            capsules = torch.cat([capsules, covariates.unsqueeze(1)], dim=1)
        return {name: layer(capsules) for name, layer in self.vectors.items()}


def squash(capsules: Tensor) -> Tensor:
    """Capsules, (..., pose), of the same direction and of length |s|^2 / (1 + |s|^2); equation 1."""
    squared = capsules.square().sum(dim=-1, keepdim=True)
    return capsules * (squared + TINY).sqrt() / (1 + squared)


def route_votes(votes: Tensor, rounds: int) -> Tensor:
    """Dynamic routing: predictions of each lower capsule, (batch, lower, upper, pose), to (batch, upper, pose).

    Each lower capsule has one weight for each upper one, larger for those that agree with it; procedure 1. The
    result is not yet squashed.
    """
    upper = votes.sum(dim=1) / votes.shape[2]  # at first with equal weights
    agreed = torch.zeros((), device=votes.device)
    for _ in range(rounds - 1):
        agreed = agreed + (votes * squash(upper).unsqueeze(1)).sum(dim=3)
        upper = (agreed.softmax(dim=2).unsqueeze(3) * votes).sum(dim=1)
    return upper


def _refuse(strides: Sequence[int], kernel: int, counts: Sequence[int]) -> None:
    """ValueError for settings that make no network."""
    if not strides or min(strides) < 1:
        raise ValueError(f"strides {list(strides)}: one number from 1 for each convolution, at least one")
    if kernel % 2 != 1:
        raise ValueError(f"kernel {kernel} has no voxel in its middle: give an odd one")
    if min(counts) < 1:
        raise ValueError("width, types, cells, pose, upper_pose and rounds are numbers from 1")


def size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """Enough convolutions to reduce an image to a few cells; the paper's width for pictures on a GPU."""
    del strides  # all axes are reduced equally
    slow = device == "cpu"
    volume = len(patch) > 2
    steps = [1, 2] if max(patch) <= 2 * COARSE else [2, 2]
    while max(patch) > COARSE * 2 ** len(steps):
        steps.append(2)
    types = 8 if slow and volume else 16 if slow or volume else 32
    cells = 4 if volume else 6
    size = {
        "strides": steps,
        "width": (32 if slow else 64) if volume else (64 if slow else 256),
        "kernel": 3 if volume else 9 if max(patch) <= 2 * COARSE else 5,
        "types": types,
        "cells": cells,
    }
    count = types * cells ** len(patch)
    return size, f"images of {tuple(patch)}: {len(steps)} convolutions, {count} capsules; width for the {device}", PAPER


CAPSULES = Family(
    build=CapsNet,
    size_for=size_for,
    paper=PAPER,
    answers=frozenset({"vector"}),
    takes_context=(OWN,),
    features="body",
    blocks=None,
)
