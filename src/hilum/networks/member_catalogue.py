"""The catalogue of families: kinds of output and size of each, measured on networks that are built, and their ranks.

The ranks, a reason in a plan, are those of `bench/findings/networks.md`; `measured.json` has the numbers of its tables.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hilum.errors import PlanError
from hilum.lazy import flop_counter, torch
from hilum.networks.network_family import NetworkSize
from hilum.values import Dense, Head, Vector

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


Build = Callable[[str, int, int, Mapping[str, Head], NetworkSize], "Module"]
# Size of the reference image, with one channel and two outputs, on a processor.
REFERENCE = {1: (1024,), 2: (256, 256), 3: (64, 64, 64)}
LISTED = Path(__file__).with_name("members.json")
# Functions of torch.nn.functional whose output has their input's shape; methods of tensors of one shape.
SHAPE_KEPT = (
    "batch_norm", "group_norm", "instance_norm", "layer_norm", "elu", "gelu", "hardswish", "leaky_relu", "prelu",
    "relu", "relu6", "sigmoid", "silu", "softmax", "dropout", "hardtanh", "hardsigmoid",
)  # fmt: skip
JOINED = ("add", "add_", "__add__", "__iadd__", "mul", "__mul__", "__imul__")
HEADS: Mapping[str, Callable[[int], Head]] = {
    "boxes": lambda axes: Dense(2 + 2 * axes, lengths=axes, offsets=axes),
    "dense": lambda axes: Dense(2),
    "objects": lambda axes: Dense(2, heights=1),
    "vector": lambda axes: Vector(2),
}


@dataclass(frozen=True)
class FamilyMember:
    """A family in so many axes, as planned for a reference image.

    tasks:         its kinds of output: "boxes", "dense" (every voxel), "objects" (instances), "vector" (whole image)
    reference:     voxels per axis of the reference image
    multiply_adds: of one forward pass, in convolutions and matrix products
    paper:         of its publication; may be empty
    """

    name: str
    axes: int
    tasks: tuple[str, ...]
    reference: tuple[int, ...]
    parameters: int
    multiply_adds: int
    paper: str = ""


def plan_member(
    name: str, axes: int, size: NetworkSize, build: Build, paper: str, answers: Sequence[str] = tuple(HEADS)
) -> FamilyMember | None:
    """The family in so many axes, built on torch's meta device; None where it has no network for them.

    answers: the kinds of output that it says it has; measured with the first that it gives, as others differ by a
             last layer
    """
    for n, task in enumerate(answers):
        try:
            with torch.device("meta"):
                network = build(name, 1, axes, {task: HEADS[task](axes)}, size).eval()
            outputs, work = _forward(network, REFERENCE[axes])
        except (PlanError, RuntimeError):  # RuntimeError: a family of a third party that takes no image of such axes
            continue
        if task in outputs:
            parameters = sum(weight.numel() for weight in network.parameters())
            return FamilyMember(name, axes, tuple(answers[n:]), REFERENCE[axes], parameters, work, paper)
    return None


def listed_members() -> tuple[FamilyMember, ...]:
    """The members of our families as this release states them; `bench/members.py` builds them and writes the file."""
    rows = json.loads(LISTED.read_text(encoding="utf-8"))
    return tuple(
        FamilyMember(**{**row, "tasks": tuple(row["tasks"]), "reference": tuple(row["reference"])}) for row in rows
    )


def plan_strides(patch: Sequence[int]) -> list[list[int]]:
    """Strides as a plan would have: one entry a stage and axis, halved while at least 4 voxels are left."""
    stages = int(math.log2(min(patch) / 4))
    return [[1] * len(patch), *([2] * len(patch) for _ in range(min(stages, 5)))]


def _forward(network: Module, patch: Sequence[int]) -> tuple[Mapping[str, Tensor], int]:
    """The outputs for one image, and the number of multiply-adds."""
    operations: list[int] = []
    with torch.device("meta"), torch.no_grad(), _counting(operations), _shapes_only():
        outputs = network(torch.empty(1, 1, *patch))
    return outputs, sum(operations) // 2  # torch counts a multiplication and an addition as two


def _counting(operations: list[int]) -> AbstractContextManager[Any]:
    """Appends the operations of each convolution and matrix product inside.

    By torch's formulas; its own counter asks of every other operation too whether it consists of such ones, which takes
    longer than all the rest.
    """
    formulas = flop_counter.flop_registry

    class Counting(torch.utils._python_dispatch.TorchDispatchMode):
        """Stands between torch and its meta device."""

        def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = operation(*args, **(kwargs or {}))
            if formula := formulas.get(operation._overloadpacket):
                operations.append(formula(*args, **(kwargs or {}), out_val=result))
            return result

    return Counting()


def _shapes_only() -> AbstractContextManager[Any]:
    """Norms, activations and sums of equal shapes give their input back while inside.

    They count nothing and change no shape, and what a norm would give torch works out on its meta device in Python,
    which took half of the time.
    """
    unchanged = {getattr(torch.nn.functional, name) for name in SHAPE_KEPT}
    joined = {getattr(torch.Tensor, name) for name in JOINED}

    class ShapesOnly(torch.overrides.TorchFunctionMode):
        """Stands between the network and torch."""

        def __torch_function__(
            self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            shapes = {getattr(argument, "shape", None) for argument in args} - {None}
            if args and (function in unchanged or (function in joined and not kwargs and len(shapes) == 1)):
                return args[0]
            return function(*args, **(kwargs or {}))

    return ShapesOnly()


FILE = Path(__file__).with_name("measured.json")


@dataclass(frozen=True)
class MeasuredFamilies:
    """Families that were trained on one set for equal minutes, with everything but the network as planned.

    answers:  the kind of output, as in `HEADS`
    minutes:  of each training, on so many cores; seeds: trainings of each family
    results:  {family: (mean of the seeds, mean of the lower ends of their 95 % intervals, of the upper ends)}
    """

    on: str
    answers: str
    axes: int
    metric: str
    minutes: float
    cores: int
    seeds: int
    results: Mapping[str, tuple[float, float, float]]

    def rank(self, family: str) -> str:
        """The family's result and rank, in words; empty where it was not trained."""
        if family not in self.results:
            return ""
        value, low, high = self.results[family]
        better = [name for name, (other, *_) in self.results.items() if other > value]
        seeds = "one seed" if self.seeds == 1 else f"{self.seeds} seeds"
        time = f"{self.minutes:g} minutes on {'one core' if self.cores == 1 else f'{self.cores} cores'}, {seeds}"
        figure = f"on {self.on} it reached {self.metric} {value:.3f} ({low:.3f} to {high:.3f}) in {time}"
        if not better:
            return f"{figure}, the best of {len(self.results)} families measured"
        first = max(better, key=lambda name: self.results[name][0])
        best, lowest, _ = self.results[first]
        apart = "whose interval overlaps" if lowest <= high else "and the intervals are apart"
        rank = f"rank {len(better) + 1} of {len(self.results)} families measured"
        return f"{figure}, {rank}; the best is {first} with {best:.3f}, {apart}"


@cache
def family_measurements() -> tuple[MeasuredFamilies, ...]:
    """All results."""
    sets = json.loads(FILE.read_text(encoding="utf-8"))["measured"]
    return tuple(
        MeasuredFamilies(**{**of_set, "results": {name: tuple(values) for name, values in of_set["results"].items()}})
        for of_set in sets
    )


def family_standing(family: str, heads: Mapping[str, Head], axes: int) -> str:
    """A family's results for such outputs and images of so many axes, in words; empty where it was not measured."""
    answers = {head.answers for head in heads.values()}
    ranks = (one.rank(family) for one in family_measurements() if {one.answers} == answers and one.axes == axes)
    return "; ".join(filter(None, ranks))
