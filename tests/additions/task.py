"""A kind of problem: classes of small pictures, learnt by the network of this package unless a person wants another."""

from dataclasses import dataclass
from typing import ClassVar

from hilum.tasks.classification.question import Classification
from hilum.values import Decision


@dataclass(frozen=True)
class Grading(Classification):
    """Classes of a small picture, by the network of this package."""

    name: ClassVar[str] = "grading"

    def decisions(self, fingerprint):
        own = {"network.name": Decision("tiny", "all that a grade needs")}
        return super().decisions(fingerprint) | own
