"""Prototypical: in episodes of a few cases each query lies nearest to the mean of its own class.

Snell et al., "Prototypical networks for few-shot learning", NeurIPS 2017, arXiv:1703.05175
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from isocenter.errors import PlanError
from isocenter.lazy import torch
from isocenter.objectives import objective_terms
from isocenter.objectives.objective_terms import Needs, Objective, ObjectiveStep
from isocenter.tasks import Task
from isocenter.values import Dataset, Decision, Fingerprint

if TYPE_CHECKING:
    from torch import Tensor

SNELL = "arXiv:1703.05175"
CLASS = "class"


@dataclass(frozen=True)
class Prototypical(Objective):
    """The cross-entropy of finding the class of a query by its distance from the means of the supports.

    An episode is a batch, with all classes; no patient is in supports and queries.
    shots:   supports of a class
    queries: of a class
    """

    shots: Annotated[int, Ge(1)] = 5
    queries: Annotated[int, Ge(1)] = 5

    needs: ClassVar[Needs] = Needs(features=True, prototypes=True)
    task: ClassVar[str] = "classification"

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> Mapping[str, Decision]:
        """Batches that are episodes; PlanError for a class with fewer patients than one takes."""
        trained, people = {one.id for one in fingerprint.cases}, dict[str, set[str]]()
        for case in dataset:
            if case.id in trained and CLASS in case.references:
                people.setdefault(str(case.references[CLASS]), set()).add(case.patient)
        fewest, taken = min(map(len, people.values()), default=0), cls.shots + cls.queries
        if len(people) < 2 or fewest < taken:
            problem = (
                f"an episode takes {taken} patients of each of two classes or more; there are {len(people)} classes"
            )
            raise PlanError(f"{problem}, the smallest of {fewest} patients", "objectives.terms", "Give more cases")
        because = f"an episode has {cls.shots} supports and {cls.queries} queries of each of {len(people)} classes"
        return {
            "training.batch": Decision(taken * len(people), because, SNELL),
            **{f"augmentation.{name}": Decision(0.0, "a mixed image is of no class") for name in ("mixup", "cutmix")},
        }

    def refusal(self, task: Task) -> str:
        """Refusal: it teaches one class of several, for the image."""
        [head, *others] = task.heads.values()
        is_class = head.is_vector and objective_terms.is_exclusive(task, head) and not others
        return "" if is_class else "it teaches one class of several, for the image"

    def loss(self, step: ObjectiveStep) -> Tensor:
        """The mean over queries; of no query 0."""
        assert step.features is not None  # noqa: S101 - its needs say so
        classes, owners = step.labelled.targets.flatten(), torch.tensor(step.patients, device=step.features.device)
        return episode_loss(step.features, classes, owners, self.shots)


def episode_loss(features: Tensor, classes: Tensor, owners: Tensor, shots: int) -> Tensor:
    """The mean cross-entropy of queries by squared distances from the means of the supports.

    features: (batch, features); classes, owners: (batch,) class and patient of each
    The first so many of a class are its supports; the others are queries, but for patients who are among the supports.
    """
    places = [torch.nonzero(classes == one).flatten() for one in classes.unique()]
    supports = [one[: min(shots, len(one) - 1) or 1] for one in places]
    means = torch.stack([features[one].mean(dim=0) for one in supports])
    is_query = ~torch.isin(owners, owners[torch.cat(supports)])
    distances = (features[is_query][:, None] - means[None]).square().sum(dim=2)
    truth = torch.searchsorted(classes.unique(), classes[is_query])
    return torch.nn.functional.cross_entropy(-distances, truth) if is_query.any() else features.sum() * 0
