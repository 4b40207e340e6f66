"""What each family is good for and how large it is, found by building it rather than by claiming it."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isocenter.errors import PlanError
from isocenter.lazy import flop_counter, torch
from isocenter.values import Dense, Head, Vector

if TYPE_CHECKING:
    from torch.nn import Module

Build = Callable[[str, int, int, Mapping[str, Head], Mapping[str, Any]], "Module"]
# One channel, two outputs, on a processor: what a plan would build for an image of this size.
REFERENCE = {1: (1024,), 2: (256, 256), 3: (64, 64, 64)}
# What the families of this folder are built with.
LIBRARIES = ("isocenter", "monai", "timm", "torch", "torchvision")
HEADS: Mapping[str, Callable[[int], Head]] = {
    "boxes": lambda axes: Dense(2 + 2 * axes, lengths=axes, offsets=axes),
    "dense": lambda axes: Dense(2),
    "objects": lambda axes: Dense(2, heights=1),
    "vector": lambda axes: Vector(2),
}


@dataclass(frozen=True)
class Member:
    """A family in so many axes, as a plan would build it for a reference image.

    tasks:         the kinds of output that it can have: "boxes", "dense" (every voxel), "objects" (told apart),
                   "vector" (the whole image)
    reference:     voxels per axis of the image that the numbers hold for
    multiply_adds: of one image, forward, in convolutions and matrix products
    paper:         where it was published; empty where its file does not say
    """

    name: str
    axes: int
    tasks: tuple[str, ...]
    reference: tuple[int, ...]
    parameters: int
    multiply_adds: int
    paper: str = ""


def member(name: str, axes: int, size: Mapping[str, Any], build: Build, paper: str) -> Member | None:
    """The family in so many axes; None where it has no network for them. Nothing is computed: torch's meta device."""
    tasks: list[str] = []
    parameters = work = 0
    for task, head_for in HEADS.items():
        try:
            with torch.device("meta"):
                network = build(name, 1, axes, {task: head_for(axes)}, size).eval()
            if not tasks:  # the others differ by a last layer
                outputs, work = _forward(network, REFERENCE[axes])
                if task not in outputs:
                    continue
                parameters = sum(weight.numel() for weight in network.parameters())
        except (PlanError, RuntimeError):  # RuntimeError: a family of a third party that takes no image of such axes
            continue
        tasks.append(task)
    return Member(name, axes, tuple(tasks), REFERENCE[axes], parameters, work, paper) if tasks else None


def made_with(families: Iterable[str]) -> str:
    """SHA-256 of what the members of families of this folder follow from: its files and the libraries."""
    digest = hashlib.sha256(repr([*families, platform.python_version(), *map(version, LIBRARIES)]).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def halvings(patch: Sequence[int]) -> list[list[int]]:
    """One entry a stage and axis: halved while at least 4 voxels are left, as a plan does."""
    stages = int(math.log2(min(patch) / 4))
    return [[1] * len(patch), *([2] * len(patch) for _ in range(min(stages, 5)))]


def _forward(network: Module, patch: Sequence[int]) -> tuple[Mapping[str, Any], int]:
    """The outputs for one image, and how many multiplications with an addition they take."""
    with torch.device("meta"), torch.inference_mode(), flop_counter.FlopCounterMode(display=False) as counter:
        outputs = network(torch.empty(1, 1, *patch))
    return outputs, counter.get_total_flops() // 2  # torch counts a multiplication and an addition as two
