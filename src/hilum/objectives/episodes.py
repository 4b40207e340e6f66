"""Episodes: batches of a few cases of each class, of which some are known and the others are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from hilum.errors import PlanError
from hilum.lazy import torch
from hilum.objectives import objective_terms
from hilum.objectives.objective_terms import Objective
from hilum.tasks import Task
from hilum.values import Dataset, Decision, Fingerprint

if TYPE_CHECKING:
    from torch import Tensor

CLASS = "class"


@dataclass(frozen=True)
class EpisodeObjective(Objective):
    """A term that learns from episodes. An episode is a batch, with all classes; no patient is in both of its halves.

    shots:   supports of a class
    queries: of a class
    """

    shots: Annotated[int, Ge(1)] = 5
    queries: Annotated[int, Ge(1)] = 5

    task: ClassVar[str] = "classification"
    # The paper that describes it.
    source: ClassVar[str] = ""

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> Mapping[str, Decision]:
        """Batches that are episodes; PlanError for a class with fewer patients than one takes."""
        trained = {one.id for one in fingerprint.cases}
        people = dict[str, set[str]]()
        for case in dataset:
            if case.id in trained and CLASS in case.references:
                people.setdefault(str(case.references[CLASS]), set()).add(case.patient)
        fewest = min(map(len, people.values()), default=0)
        taken = cls.shots + cls.queries
        if len(people) < 2 or fewest < taken:
            problem = (
                f"an episode takes {taken} patients of each of two classes or more; there are {len(people)} classes"
            )
            raise PlanError(f"{problem}, the smallest of {fewest} patients", "objectives.terms", "Give more cases")
        because = f"an episode has {cls.shots} supports and {cls.queries} queries of each of {len(people)} classes"
        return {
            "training.batch": Decision(taken * len(people), because, cls.source),
            **{f"augmentation.{name}": Decision(0.0, "a mixed image is of no class") for name in ("mixup", "cutmix")},
        }

    def refusal(self, task: Task) -> str:
        """Refusal: it teaches one class of several, for the image."""
        [head, *others] = task.heads.values()
        is_class = head.is_vector and objective_terms.is_exclusive(task, head) and not others
        return "" if is_class else "it teaches one class of several, for the image"


def part_episode(classes: Tensor, owners: Tensor, shots: int) -> tuple[list[Tensor], Tensor]:
    """Numbers of the supports of each class, and (batch,) which are queries.

    classes, owners: (batch,) class and patient of each
    The first so many of a class are its supports; the others are queries, but for patients who are among the supports.
    """
    places = [torch.nonzero(classes == one).flatten() for one in classes.unique()]
    supports = [one[: min(shots, len(one) - 1) or 1] for one in places]
    return supports, ~torch.isin(owners, owners[torch.cat(supports)])
