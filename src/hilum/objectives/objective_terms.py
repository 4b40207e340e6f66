"""The protocol of an objective, one term that training lowers, what objectives share, and the task's own loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from annotated_types import Ge, Le, Lt

from hilum.lazy import torch
from hilum.tasks import Task, properties
from hilum.values import Dataset, Decision, Fingerprint, Head, StatedSettings

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


# {head: (batch, ...)} outputs of a network; the same with its (batch, features) pooled features.
Outputs = Mapping[str, "Tensor"]
Embedded = tuple[Outputs, "Tensor"]
# The number of the place of unlabelled images of a target, and of an image of which nobody knows it.
TARGET_PLACE = 1
UNKNOWN_PLACE = -1
# The image of which a second view is: the same part of it, another part of it, or another image of the patient.
Positives = Literal["view", "slice", "patient"]


@dataclass(frozen=True)
class Needs:
    """The inputs of an objective, which a step prepares only where an objective needs them.

    labels:     references of the training cases
    unlabelled: images without references
    views:      copies of each unlabelled image, which differ in their intensities and lie on one another
    strong:     two more copies that lie on one another: a weak view, moved alone, and a strong one, whose intensities
                change in every way
    teacher:    the averaged weights
    features:   pooled features of the labelled images
    start:      the weights that training began from
    second:     a second view of each training image, augmented by itself
    upright:    images that have an up
    partner:    a second network as its part, which learns as the first does
    taught:     the answers of another model for each image; unlabelled images are used where there are any
    texts:      of each image, sampled anew in each step
    prototypes: a last layer that is made of means of features, before each look and at the end
    places:     images of several places: labelled ones of more than one, or unlabelled ones of a target
    adapted:    outputs of the network by other weights than its own
    """

    labels: bool = True
    unlabelled: bool = False
    views: int = 1
    strong: bool = False
    teacher: bool = False
    features: bool = False
    start: bool = False
    second: bool = False
    upright: bool = False
    partner: bool = False
    taught: bool = False
    texts: bool = False
    prototypes: bool = False
    places: bool = False
    adapted: bool = False

    @property
    def takes_unlabelled(self) -> bool:
        """Whether unlabelled images are of use to it."""
        return self.unlabelled or self.taught or self.places

    def __or__(self, other: Needs) -> Needs:
        """The needs of both."""
        return Needs(
            self.labels or other.labels,
            self.unlabelled or other.unlabelled,
            max((one.views for one in (self, other) if one.takes_unlabelled), default=0),
            self.strong or other.strong,
            self.teacher or other.teacher,
            self.features or other.features,
            self.start or other.start,
            self.second or other.second,
            self.upright or other.upright,
            self.partner or other.partner,
            self.taught or other.taught,
            self.texts or other.texts,
            self.prototypes or other.prototypes,
            self.places or other.places,
            self.adapted or other.adapted,
        )


@dataclass(frozen=True)
class SeenBatch:
    """A batch as a network in training sees it.

    images:  (batch, channels, *spatial), of several processes the part of this one
    targets: of the whole batch; None of unlabelled images
    context: the covariates of each image, as one tensor, or none
    partner: with which sample of the whole batch each is mixed, by 1 - share; None where none is
    cases:   numbers of the cases, of the whole batch
    taught:  (batch, channels, ...) answers of another model, of the whole batch; None where nobody teaches
    texts:   of each image of the whole batch; empty words where it has none
    columns: (batch, entries) covariates that an objective reads, of the whole batch; None where none does
    places:  the number of the place of each image of the whole batch; UNKNOWN_PLACE where nobody says
    """

    images: Tensor
    targets: Any
    context: tuple[Tensor, ...]
    partner: Tensor | None = None
    share: float = 1.0
    cases: tuple[int, ...] = ()
    taught: Tensor | None = None
    texts: tuple[str, ...] = ()
    places: tuple[int, ...] = ()
    columns: Tensor | None = None


@dataclass(frozen=True, eq=False)
class ObjectiveStep:
    """The values of one step. Of several processes, outputs and features are those of the whole batch.

    labelled:   the labelled batch
    unlabelled: a batch for each view
    outputs:    of the labelled batch
    features:   (batch, features) of the labelled batch, pooled; None where no objective needs them
    run:        returns the outputs of the network for a batch
    teacher:    returns the outputs of the averaged weights for a batch, without a gradient
    judge:      the task's loss: of outputs and targets
    task:       the kind of problem, with its heads
    weights:    {name: weight} of the network that learn
    start:      {name: weight} of those that training took over from another network
    parts:      the module of this objective that learns with the network; None where it has none
    progress:   share of the training that is done
    second:     another view of each image of the labelled batch, where an objective needs it
    weak:       the unlabelled batch as it is moved, where an objective needs it
    strong:     the same with every change of intensities
    patients:   of the labelled batch, a number for each
    whole:      joins what each process has of the batch
    own:        returns what this process has of the whole
    embed:      returns the outputs and the pooled features of the network for a batch
    taught:     returns those of the averaged weights, without a gradient
    another:    returns the outputs of another network for a batch
    by_weights: returns the outputs of the network by these weights for a batch
    """

    labelled: SeenBatch
    outputs: Outputs
    run: Callable[[SeenBatch], Outputs]
    teacher: Callable[[SeenBatch], Outputs]
    judge: Callable[[Outputs, Any], Tensor]
    task: Task
    unlabelled: tuple[SeenBatch, ...] = ()
    features: Tensor | None = None
    weights: Mapping[str, Tensor] = field(default_factory=dict)
    start: Mapping[str, Tensor] = field(default_factory=dict)
    parts: Any = None
    progress: float = 0.0
    second: SeenBatch | None = None
    weak: SeenBatch | None = None
    strong: SeenBatch | None = None
    patients: tuple[int, ...] = ()
    whole: Callable[[Tensor], Tensor] = lambda tensor: tensor
    own: Callable[[Tensor], Tensor] = lambda tensor: tensor
    embed: Callable[[SeenBatch], Embedded] | None = None
    taught: Callable[[SeenBatch], Embedded] | None = None
    another: Callable[[Any, SeenBatch], Outputs] | None = None
    by_weights: Callable[[Mapping[str, Tensor], SeenBatch], Outputs] | None = None

    @property
    def embedding_network(self) -> Callable[[SeenBatch], Embedded]:
        """The network with its pooled features, for an objective that needs them."""
        assert self.embed is not None  # noqa: S101 - its needs say so
        return self.embed

    @property
    def features_by_place(self) -> tuple[Tensor, Tensor]:
        """(images, features) of the labelled batch and of a view of the unlabelled one, and (images,) their places.

        Only of images whose place is known.
        """
        assert self.features is not None  # noqa: S101 - its needs say so
        features = [self.features]
        places = list(self.labelled.places)
        for seen in self.unlabelled[:1]:
            features.append(self.embedding_network(seen)[1])
            places += seen.places
        numbers = torch.tensor(places, device=self.features.device)
        is_known = numbers != UNKNOWN_PLACE
        return torch.cat(features)[is_known], numbers[is_known]

    def weighted(self, weights: Mapping[str, Tensor], seen: SeenBatch) -> Outputs:
        """The outputs of the network for a batch, by other weights than its own."""
        assert self.by_weights is not None  # noqa: S101 - each step of a training has it
        return self.by_weights(weights, seen)

    def through(self, network: Module, seen: SeenBatch) -> Outputs:
        """The outputs of another network for a batch, computed as those of the network."""
        assert self.another is not None  # noqa: S101 - each step of a training has it
        return self.another(network, seen)


@dataclass(frozen=True)
class Objective:
    """One term of the sum that training lowers. Its fields are the section of its name in a plan.

    weight: the factor of its loss
    ramp:   share of training over which the weight rises to that, as exp(-5 (1 - t)^2): Laine and Aila,
            arXiv:1610.02242; 0 for the whole weight from the first step on
    """

    weight: Annotated[float, Ge(0), Lt(math.inf)] = 1.0
    ramp: Annotated[float, Ge(0), Le(1)] = 0.0

    needs: ClassVar[Needs] = Needs()
    # The head that it teaches, of a kind of problem that could have others.
    head: ClassVar[str] = ""
    # The kind of problem in which `pretrain` lowers it.
    task: ClassVar[str] = "representation"
    # Whether it teaches an answer of a kind of problem with references without any of them.
    replaces_references: ClassVar[bool] = False

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> Mapping[str, Decision]:
        """Its fields for these training cases, with reasons; those that it leaves out keep their defaults.

        "section.name" is a decision of another section, which follows from this objective.
        """
        return {}

    @classmethod
    def check_data(cls, dataset: Dataset, fingerprint: Fingerprint, section: StatedSettings) -> None:
        """Raise PlanError where these training cases lack what it needs; section: the values of its fields."""

    @property
    def follows_rounds(self) -> bool:
        """Whether it pulls weights towards those that sites had in common last, where sites train together."""
        return False

    def refusal(self, task: Task) -> str:
        """The reason why it cannot teach this kind of problem; empty where it can."""
        return ""

    def parts(self, network: Module, features: int) -> Module | None:
        """The module that learns with the network, and whose buffers it keeps; in no package.

        features: number of pooled features of an image; 0 where it does not need them
        """
        return None

    @property
    def columns_read(self) -> StatedSettings | None:
        """The covariates of each case that it reads: as in a plan's `network.context`, but no network gets them."""
        return None

    def count_columns(self, parts: Any, count: int) -> None:
        """Make room for so many entries of the covariates that it reads, before the first step."""

    def count_places(self, parts: Any, count: int) -> None:
        """Make room for so many places, before the first step, where it needs them."""

    def read_texts(self, parts: Any, texts: Sequence[str], patients: Sequence[str]) -> None:
        """Learn the words of the training texts, each with its patient, before the first step."""

    def loss(self, step: ObjectiveStep) -> Tensor:
        """The term, a scalar."""
        return self.losses(step).mean()

    def losses(self, step: ObjectiveStep) -> Tensor:
        """(batch,) what each image of the labelled batch costs, of an objective that needs no labels."""
        raise NotImplementedError

    @property
    def fewest(self) -> int:
        """The number of images that a batch needs at the fewest."""
        return 1

    @property
    def shows(self) -> Positives:
        """The image of which the second view is, where it needs one."""
        return "view"

    def after(self, step: ObjectiveStep) -> None:
        """Change its buffers once the weights have moved."""

    def factor(self, progress: float) -> float:
        """The weight at this share of the training."""
        if progress >= self.ramp:
            return self.weight
        return self.weight * math.exp(-5 * (1 - progress / self.ramp) ** 2)


# Outputs that state probabilities.
STATED = ("classes", "labels")


def without_probabilities(task: Task) -> str:
    """The reason why probabilities of this kind of problem cannot be compared; empty where they can."""
    unfit = [name or task.name for name, part in properties.leaf_tasks(task).items() if part.uncertainty not in STATED]
    return f"it compares probabilities, and outputs of {', '.join(unfit)} state none" if unfit else ""


def task_heads(task: Task) -> list[tuple[str, Task, Head]]:
    """The heads of a task, or of each of its parts: name of the output, task, head."""
    parts = properties.leaf_tasks(task).items()
    return [
        (properties.full_head_name(name, key) if name else key, part, head)
        for name, part in parts
        for key, head in part.heads.items()
    ]


def is_exclusive(task: Task, head: Head) -> bool:
    """Whether one of its classes is right; of grades each threshold is a question of its own, one more an output."""
    grades = head.is_vector and head.count < len(task.labels)
    return task.uncertainty == "classes" and not grades


def head_probabilities(task: Task, head: Head, outputs: Tensor) -> Tensor:
    """(batch, channels, ...) probabilities of classes, of findings, or of passing each threshold of grades."""
    return outputs.softmax(dim=1) if is_exclusive(task, head) else outputs.sigmoid()


# The head of a network that gives numbers for the whole image, and how many these are, as in SimCLR and MoCo.
EMBEDDING = "embedding"
NUMBERS = 128


def projection_layers(features: int, outputs: int) -> Module:
    """Two layers from pooled features; the embedding of a network that has one takes the place of the first.

    Without them features would keep only what the objective needs: Chen et al., arXiv:2002.05709, section 4.2
    """
    first, last = torch.nn.Linear(features, NUMBERS), torch.nn.Linear(NUMBERS, outputs)
    return torch.nn.ModuleDict({"first": first, "last": last})


def project_features(layers: Any, seen: Embedded) -> Tensor:
    """(batch, outputs) of what a network gave for a batch."""
    outputs, features = seen
    hidden = outputs[EMBEDDING] if EMBEDDING in outputs else layers["first"](features)
    return cast("Tensor", layers["last"](torch.relu(hidden.float())))


SUPERVISED = "supervised"


@dataclass(frozen=True)
class Supervised(Objective):
    """The task's loss; of mixed images that of both targets by their shares.

    Zhang et al., arXiv:1710.09412; Yun et al., arXiv:1905.04899
    """

    def loss(self, step: ObjectiveStep) -> Tensor:
        """The loss of the labelled batch."""
        labelled = step.labelled
        loss = step.judge(step.outputs, labelled.targets)
        if labelled.partner is None:
            return loss
        return labelled.share * loss + (1 - labelled.share) * step.judge(
            step.outputs, labelled.targets[labelled.partner]
        )
