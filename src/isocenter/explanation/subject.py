"""A case as the network sees it, as a differentiable computation from its input to the target's scalar."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from isocenter.errors import UsageError
from isocenter.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from isocenter.networks import Family
    from isocenter.tasks import Task

# (batch, channels, *window) images and (batch, entries) covariates, or None, to {head: tensor}.
Run = Callable[["Tensor", "Tensor | None"], Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Objective:
    """Outputs of a network, {head: (batch, ...)}, to the scalar that is explained, (batch,).

    target: one of the task's `saliency_targets`; None for its answer as a whole
    places: {head: (1, channels, *window) or (1, size)} how much each output counts, found once on the case as it is,
            where some are of voxels. A perturbed image is then asked about the same voxels, not about those that it
            has marked itself
    extent: share of the window's voxels that the target has; 1 of a whole image
    """

    task: Task
    target: str | None = None
    places: Mapping[str, Tensor] | None = None
    extent: float = 1.0

    def at(self, outputs: Mapping[str, Tensor]) -> Objective:
        """The same for the voxels that these outputs of the case itself mark; without a dense head no other."""
        dense = [name for name, head in self.task.heads.items() if head.is_dense]
        if not dense:
            return self
        with torch.enable_grad():
            leaves = {name: one.detach().float().requires_grad_() for name, one in outputs.items()}
            value = self.task.saliency(leaves, self.target).sum()
            gradients = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        places = {name: one for name, one in zip(leaves, gradients, strict=True) if one is not None and one.any()}
        if not places.keys() & set(dense):  # the target is one of the whole image
            return self
        most = max(int((one != 0).any(dim=1).sum()) / one[0, 0].numel() for one in places.values())
        return replace(self, places=places, extent=most)

    def __call__(self, outputs: Mapping[str, Tensor]) -> Tensor:
        if self.places is None:
            return self.task.saliency({name: one.float() for name, one in outputs.items()}, self.target)
        return sum(((outputs[name].float() * own).flatten(1).sum(dim=1) for name, own in self.places.items()), start=0)  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class Subject:
    """One window of a case through one network of a model, and the scalar that is explained.

    To use it: `subject.score(images)` takes perturbed versions of `subject.image`, (batch, channels, *window), and
    returns (batch,), larger where the network holds more to the target. Under `torch.enable_grad` the result has
    gradients by the images and by the covariates, if `subject.module` is there. `CaseOnGrid.subjects` makes
    subjects of a case's window, one a member, and `CaseOnGrid.on_source` brings arrays of windows back onto the source.

    image:     (1, channels, *window) float32, on the network's device; NaN in frames that a clip does not have
    context:   (1, entries) covariates as the network takes them; None without
    run:       the network
    objective: the scalar of its outputs
    joined:    channels that are one picture, and are hidden together
    module:    the network itself, with gradients; None of a backend without torch
    family, size: of the module; how slices lie in it
    """

    image: Tensor
    context: Tensor | None
    run: Run
    objective: Objective
    joined: int = 1
    module: Module | None = None
    family: Family | None = None
    size: Mapping[str, Any] | None = None

    def score(self, images: Tensor, context: Tensor | None = None) -> Tensor:
        """(batch,) of images, (batch, channels, *window); context: (batch, entries), the case's own if not said"""
        context_used = self.context if context is None else context
        expanded = (
            context_used
            if context_used is None or len(context_used) == len(images)
            else context_used.expand(len(images), -1)
        )
        return self.objective(self.run(images, expanded))

    def scores(self, images: Tensor, batch: int = 8) -> Tensor:
        """The same without gradients, a few images at a time."""
        with torch.no_grad():
            return torch.cat([self.score(part).float() for part in images.split(batch)])

    @property
    def spatial(self) -> tuple[int, ...]:
        """Voxels of the window."""
        return tuple(self.image.shape[2:])


class UnfitError(UsageError):
    """A method that cannot explain this model, and why."""

    def __init__(self, method: str, reason: str, remedy: str = "Choose another, such as occlusion, or auto") -> None:
        super().__init__(f"{method} cannot explain this model: {reason}", "--method", remedy)
        self.method, self.reason = method, reason

    def __reduce__(self) -> tuple[object, ...]:
        return UnfitError, (self.method, self.reason, self.remedy)
