"""The protocol of a method by which a model states its uncertainty, and what such a method builds on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from isocenter.runtime.networks import Networks, Watched
from isocenter.runtime.uncertainty.disagreement import Disagreement

if TYPE_CHECKING:
    from torch import Tensor

    from isocenter.networks import Features
    from isocenter.runtime.inference import Inference
    from isocenter.runtime.windows.pipeline import WindowSettings
    from isocenter.tasks import Task


class Drawing(Protocol):
    """Posteriors of last layers."""

    @property
    def heads(self) -> Mapping[str, object]:
        """The heads whose last layers have one."""

    def views(self, features: Features, count: int) -> list[dict[str, Tensor]]:
        """The outputs of so many draws, the same for every image."""


@dataclass(frozen=True, eq=False)
class Basis:
    """Basis on which a method builds.

    flips:   axes along which windows may be mirrored; PlanError where no mirrored view is true to anatomy
    laplace: the posteriors of the last layers; None where none was fitted
    """

    task: Task
    networks: Networks
    inference: Inference
    flips: Callable[[], tuple[int, ...]]
    laplace: Drawing | None = None

    @property
    def differ(self) -> Disagreement | None:
        """The disagreement between views of the task's heads; None of a task that states no uncertainty."""
        return Disagreement.of(self.task)

    @property
    def silent(self) -> str:
        """Why the task states no uncertainty; empty where it does."""
        return f"a {self.task.name} states no uncertainty" if self.differ is None else ""

    @property
    def plain(self) -> Networks:
        """The networks without any method's outputs."""
        if self.networks.average is not None:
            return replace(self.networks, run=replace(self.networks.average, differ=None))
        if isinstance(self.networks.run, Watched):
            return replace(self.networks, run=replace(self.networks.run, further=None))
        return self.networks


class Method(Protocol):
    """A way in which a model looks for its uncertainty; what it predicts stays the same."""

    @property
    def name(self) -> str:
        """The name, as a plan calls it."""

    def suits(self, basis: Basis) -> bool:
        """Whether a model whose plan leaves the choice open takes it, where none before it suits."""

    def lacking(self, basis: Basis) -> str:
        """Why a model does not have it; empty where it does."""

    def networks(self, basis: Basis) -> Networks:
        """The networks, which state their uncertainty beside their outputs."""

    def windows(self, basis: Basis, planned: WindowSettings) -> WindowSettings:
        """The windows in which they see an image."""


@dataclass(frozen=True)
class Without:
    """No method, or that of an exported network, which computes its figures itself."""

    name: str

    def suits(self, basis: Basis) -> bool:
        """Any model."""
        return True

    def lacking(self, basis: Basis) -> str:
        """Every model has it."""
        return ""

    def networks(self, basis: Basis) -> Networks:
        """The networks as they are."""
        return basis.plain

    def windows(self, basis: Basis, planned: WindowSettings) -> WindowSettings:
        """The windows as planned."""
        return planned
