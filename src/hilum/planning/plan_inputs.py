"""The inputs of a plan's sections: data, machine and the wishes of a person, and what follows at once from these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hilum.networks import factory
from hilum.objectives import objective_catalogue
from hilum.planning.rules import covariate_rules, grid_rules, modality_rules, preprocessing_rules
from hilum.planning.rules.grid_rules import REDUCTION, GridNeeds
from hilum.planning.rules.modality_rules import MissingImages
from hilum.planning.rules.objective_rules import TERMS
from hilum.planning.training_memory import Machine
from hilum.tasks import Task, properties, task_catalogue
from hilum.values import BY_HAND, Dataset, Decision, Fingerprint

# The setting of a kind of problem without references that says which head its network has.
HEAD = "head"


@dataclass(frozen=True, eq=False)
class PlanInputs:
    """Facts of the training cases, the machine and what is asked for.

    settings: the section "task"
    task:     as these settings make it
    stated:   {"section.name": decision} of the task on other sections
    frames:   of each clip
    channels: of the network: those of each frame
    holes:    who lacks which of several images
    dropout:  how often training leaves one of them out
    context:  the covariates that the network gets
    """

    dataset: Dataset
    fingerprint: Fingerprint
    machine: Machine
    wishes: Wishes
    settings: Mapping[str, Decision]
    task: Task
    stated: Mapping[str, Decision]
    frames: Decision
    channels: int
    holes: MissingImages
    dropout: Decision
    context: Decision

    @classmethod
    def from_dataset(cls, dataset: Dataset, fingerprint: Fingerprint, machine: Machine, wishes: Wishes) -> PlanInputs:
        """fingerprint: of the training cases

        Raises DatasetError where no task fits the references or they teach nothing, PlanError for an unknown covariate.
        """
        settings = _task_settings(dataset, fingerprint, wishes)
        task = task_catalogue.build_task({key: decision.value for key, decision in settings.items()})
        minutes = None if wishes.minutes is None else wishes.minutes / max(1, wishes.folds)
        decisions = grid_rules.coarsen_in_haste(task.decisions(fingerprint), fingerprint, machine, minutes)
        if TERMS in decisions and wishes.terms:
            decisions[TERMS] = Decision(list(wishes.terms), BY_HAND)
        if GridNeeds.from_task(task).whole:  # whose grid is chosen for images as a whole
            decisions.pop(REDUCTION, None)
        frames = preprocessing_rules.decide_frames(fingerprint, machine.device)
        names = preprocessing_rules.decide_channels(fingerprint).value
        holes = MissingImages.from_dataset(dataset, names, {case.id for case in fingerprint.cases}, apart=wishes.apart)
        share = wishes.modality_dropout
        dropout = modality_rules.dropout_decision(holes) if share is None else Decision(share, "asked for")
        return cls(
            dataset,
            fingerprint,
            machine,
            wishes,
            settings,
            task,
            decisions,
            frames,
            len(names) * (frames.value or 1),
            replace(holes, dropout=dropout.value),
            dropout,
            covariate_rules.context_decision(dataset, fingerprint, wishes.context),
        )

    @property
    def minutes(self) -> float | None:
        """Minutes of one training: each fold is one, and with covariates there is a network without them."""
        trainings = max(1, self.wishes.folds) * (2 if self.context.value else 1)
        return None if self.wishes.minutes is None else self.wishes.minutes / trainings

    @property
    def reduction(self) -> float:
        """The factor by which the grid is coarser than images: set by hand, or as the task permits."""
        if self.wishes.reduction is not None:
            return self.wishes.reduction
        decision = self.stated.get(REDUCTION)
        return 1.0 if decision is None else float(decision.value)

    @property
    def batch(self) -> int | None:
        """The batch that the task asks for; None for the usual one."""
        decision = self.stated.get("training.batch")
        return None if decision is None else int(decision.value)

    @property
    def family(self) -> Decision | None:
        """The family of the network, where one is asked for."""
        return None if self.wishes.network is None else Decision(self.wishes.network, "asked for")


def _task_settings(dataset: Dataset, fingerprint: Fingerprint, wishes: Wishes) -> dict[str, Decision]:
    """The kind of problem that was asked for, or that the references are of, and its settings."""
    kind = task_catalogue.kind_for_dataset(dataset, wishes.task)
    because = "asked for" if wishes.task else f"the references are of the kind {', '.join(sorted(dataset.kinds))}"
    settings = {"name": Decision(kind.name, because), **kind.settings_for(dataset, fingerprint)}
    is_free = HEAD in settings and not properties.learns_from_references(kind)
    head = _asked_head(wishes) if is_free else None
    return settings if head is None else {**settings, HEAD: head}


def _asked_head(wishes: Wishes) -> Decision | None:
    """The head that objectives or a family that were asked for need, where a kind of problem could have others."""
    if wishes.head is not None:
        return Decision(wishes.head, BY_HAND)
    for name in wishes.terms or ():
        if head := objective_catalogue.objective_kind(name).head:
            return Decision(head, f"{name}, which was asked for, needs it")
    if wishes.network not in factory.family_names():
        return None
    is_dense = "dense" in factory.family_of(str(wishes.network)).answers
    return Decision("image" if is_dense else "embedding", f"{wishes.network}, which was asked for, gives it")


@dataclass(frozen=True, eq=False)
class Wishes:
    """The wishes of a person; the rules choose whatever is None.

    device:   on which to train, and why
    minutes:  for all trainings; None where the steps decide
    folds:    of a cross-validation; 0 for one test part
    network:  the family to choose a size for
    head:     of a network that learns without references, as in `Task`
    terms:    the objectives that training lowers
    target:   paths of images of the place where the model shall work, where nobody named the terms
    context:  covariates for the network: names, or "all"
    modality_dropout: how often training leaves out an image of a case
    spacing:  of the grid that the network sees, in mm
    reduction: by which factor that grid is coarser than images are
    configurations: which are compared by folds, as in `SearchSettings`; None where none are
    apart:    whether images of a case share no place: views of an exam
    """

    device: Decision
    minutes: float | None = None
    seed: int = 0
    folds: int = 0
    task: str | None = None
    network: str | None = None
    head: str | None = None
    terms: Sequence[str] | None = None
    target: Sequence[str] = ()
    context: Any = None
    modality_dropout: float | None = None
    spacing: Sequence[float] | None = None
    reduction: float | None = None
    configurations: str | None = None
    apart: bool = False
