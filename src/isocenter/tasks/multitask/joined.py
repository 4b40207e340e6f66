"""Several kinds in place of one, where a name joins them, as in segmentation+classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isocenter.errors import PlanError
from isocenter.evaluation import Metrics
from isocenter.tasks.multitask.plan import SIGN, LossWeighting, joined_metrics, longest_tuning, settings_for
from isocenter.values import Dataset, Decision, Fingerprint, Split

if TYPE_CHECKING:
    from isocenter.tasks.task import Task


@dataclass(frozen=True)
class Joined(LossWeighting):
    """Kinds of problem that share a network, in the order of their names."""

    kinds: tuple[type[Task], ...]

    @classmethod
    def of_kinds(cls, kinds: Sequence[type[Task]]) -> Joined:
        """At least two different kinds; PlanError where one is named twice."""
        ordered = tuple(sorted(kinds, key=lambda kind: kind.name))
        if len({kind.name for kind in ordered}) < len(ordered) or len(ordered) < 2:
            named = SIGN.join(kind.name for kind in ordered)
            raise PlanError(f"{named} is not a set of different kinds", "task.name", "Name each kind once")
        return cls(ordered)

    @property
    def name(self) -> str:
        """The names of the kinds, joined with "+"."""
        return SIGN.join(kind.name for kind in self.kinds)

    @property
    def parts(self) -> Mapping[str, type[Task]]:
        """{name: kind}"""
        return {kind.name: kind for kind in self.kinds}

    @property
    def needs(self) -> frozenset[str]:
        """The kinds of reference that its parts need."""
        return frozenset().union(*(kind.needs for kind in self.kinds))

    @property
    def tuned_on(self) -> tuple[Split, ...]:
        """The parts of the cases that decide for the kind that needs most of them."""
        return longest_tuning(self.kinds)

    @property
    def alternatives(self) -> tuple[frozenset[str], ...]:
        """What each kind needs: a case may lack references of a part."""
        return tuple(kind.needs for kind in self.kinds)

    @property
    def metrics(self) -> Metrics:
        """The metrics of the parts."""
        return joined_metrics(self.kinds)

    def settings_for(self, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """The settings of every part, and how their losses are weighed; DatasetError where a part cannot be taught."""
        return settings_for(self.kinds, dataset, fingerprint)
