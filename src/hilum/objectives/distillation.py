"""Distillation: the network learns the answers of another model, its teacher.

Hinton, Vinyals and Dean, arXiv:1503.02531
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Gt, Lt

from hilum.lazy import torch
from hilum.objectives import objective_terms
from hilum.objectives.objective_terms import STATED, Needs, Objective, ObjectiveStep, Outputs, SeenBatch
from hilum.tasks import Task, properties
from hilum.values import Dataset, Decision, Fingerprint, Head

if TYPE_CHECKING:
    from torch import Tensor

PAPER = "arXiv:1503.02531"
# Of a few classes; with it the second likeliest still counts.
TEMPERATURE = 2.0
# Probabilities are kept from 0 and 1, where logits end.
LEAST = 1e-4


@dataclass(frozen=True)
class Distillation(Objective):
    """The distance from the answers that the teacher gives to the whole images.

    Of classes and findings it is the divergence of softened probabilities, of label maps the same in every voxel, of
    values the absolute difference in deviations of the training cases.
    teacher:     path of a run, a package or an ensemble
    images:      path of a data set with the images that the teacher sees of the same cases; None: those of the run
    digest:      SHA-256 of the teacher; None until it is read
    temperature: by which logits of both are divided
    """

    teacher: str = ""
    images: str | None = None
    digest: str | None = None
    temperature: Annotated[float, Gt(0), Lt(math.inf)] = TEMPERATURE

    needs: ClassVar[Needs] = Needs(taught=True)

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> Mapping[str, Decision]:
        """A temperature at which unlikely classes count too."""
        return {"temperature": Decision(TEMPERATURE, "so that the teacher's unlikely classes count too", PAPER)}

    def refusal(self, task: Task) -> str:
        """Refusal: it learns the answer to one question: classes, findings, label maps or values."""
        if not self.teacher:
            return "no teacher is given (--set distillation.teacher=PATH of a run, a package or an ensemble)"
        if task.parts:
            return "it learns one answer of its teacher, and this is of several tasks"
        states = next(iter(properties.leaf_tasks(task).values())).uncertainty
        fit = states in STATED or (states == "values" and all(head.is_vector for head in task.heads.values()))
        return "" if fit else "it learns probabilities or values of its teacher, and there are none"

    def loss(self, step: ObjectiveStep) -> Tensor:
        """The mean over the images of the step, be they labelled or not."""
        distances = [self.apart(step.task, step.labelled, step.outputs)]
        distances += [self.apart(step.task, seen, step.run(seen)) for seen in step.unlabelled[:1]]
        return torch.cat(distances).mean()

    def apart(self, task: Task, seen: SeenBatch, outputs: Outputs) -> Tensor:
        """(batch,) the distance of outputs from the teacher's answers for these images."""
        [(name, head)] = task.heads.items()
        answers = seen.taught
        assert answers is not None  # noqa: S101 - its needs say so
        if seen.partner is not None:
            answers = seen.share * answers + (1 - seen.share) * answers[seen.partner]
        if task.uncertainty == "values":
            return (outputs[name][:, : answers.shape[1]] - answers).abs().flatten(1).mean(dim=1)
        return divergence(task, head, answers, outputs[name], self.temperature)


def divergence(task: Task, head: Head, answers: Tensor, outputs: Tensor, temperature: float) -> Tensor:
    """(batch,) Kullback-Leibler divergence of softened probabilities, times the squared temperature.

    answers: (batch, channels, ...) probabilities; outputs: logits. The mean over voxels, and over findings.
    """
    functional = torch.nn.functional
    likely = answers.clamp(LEAST, 1 - LEAST)
    if objective_terms.is_exclusive(task, head):
        taught = (likely.log() / temperature).log_softmax(dim=1)
        learnt = (outputs / temperature).log_softmax(dim=1)
        distances = (taught.exp() * (taught - learnt)).sum(dim=1)
    else:
        logits = likely.logit() / temperature
        soft = logits.sigmoid()
        entropy = functional.binary_cross_entropy_with_logits
        distances = entropy(outputs / temperature, soft, reduction="none") - entropy(logits, soft, reduction="none")
    return temperature**2 * distances.reshape(len(distances), -1).mean(dim=1)
