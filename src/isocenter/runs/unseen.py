"""The pass of cases through the models that have not seen them: what belief, the gate and the scores are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from isocenter.report import tracked
from isocenter.runtime import Guard, KeptOutputs, Model, Observation, keeping_outputs, observed
from isocenter.scoring import Fold
from isocenter.tasks import Task
from isocenter.values import Case, Prediction


@dataclass(frozen=True, eq=False)
class Unseen:
    """Predictions of cases by models that have not seen them, for each of which a network computes a case once.

    Belief is fitted to them as the task is before, the gate looks at them, and they are scored as the task is then: the
    outputs of the networks stay the same. Computed again are volumes whose outputs do not fit into the memory for them,
    answers for every voxel of which somebody asks for draws of the last layer, networks that are read from their files
    once more, as the mean to whose zero those of several trainings are brought, networks that give no features, images
    that were changed, gradients, and the training cases that a gate looks at.
    """

    outputs: KeptOutputs = field(default_factory=KeptOutputs)

    def by(self, model: Model) -> Model:
        """The model, which computes nothing again that is known."""
        return keeping_outputs(model, self.outputs)

    def predicted(self, model: Model, task: Task, cases: Sequence[Case]) -> list[Prediction]:
        """Cases as the model predicts them with this task."""
        asked, predictions = replace(self.by(model), task=task), list[Prediction]()
        with tracked("predicting cases for calibration and thresholds") as tracker:
            for done, case in enumerate(cases, start=1):
                predictions.append(asked.predict(case))
                tracker(done, len(cases))
        return predictions

    def observed(self, model: Model, cases: Sequence[Case]) -> Iterator[tuple[Observation, Prediction]]:
        """What the model sees of each case, and what it says of it."""
        asked = self.by(model)
        with tracked("looking at cases for the gate") as tracker:
            for done, case in enumerate(cases, start=1):
                yield observed(asked, case)
                tracker(done, len(cases))


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """The models of all trainings, each for the cases that it has not seen.

    task:   scores them all, the same for every fold
    owners: {case id: model}
    folds:  {case id: the fold that scores it}, where there are several
    """

    task: Task
    owners: Mapping[str, Model]
    folds: Mapping[str, Fold] = field(default_factory=dict)

    @property
    def guard(self) -> Guard | None:
        """The gate where one model has seen none of them; of several each sees with other eyes."""
        first, *others = dict.fromkeys(self.owners.values())
        return None if others else first.guard

    def predict(self, subject: Case) -> Prediction:
        """Predict a case by the model that has not seen it."""
        return self.owners[subject.id].predict(subject)

    def model_of(self, case: str) -> Model:
        """The model that has not seen a case of this id."""
        return self.owners[case]
