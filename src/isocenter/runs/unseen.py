"""The pass of cases through the models that have not seen them: what belief, the gate and the scores are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from isocenter.report import tracked
from isocenter.runtime import Guard, KeptOutputs, Model, Observation
from isocenter.scoring import Fold
from isocenter.tasks import Task
from isocenter.values import Case, Prediction


@dataclass(frozen=True, eq=False)
class Unseen:
    """Predictions of cases by models that have not seen them: a network computes each case once.

    Belief is fitted to what the task says before it is tuned, the gate looks at the same cases, and scores go by the
    tuned task: the outputs of the network are the same for all three. These are computed again:

    * volumes whose outputs for every voxel do not fit into the memory for them, and draws of the last layer for voxels
    * outputs of networks that are read from their files once more, as the mean on whose zero several trainings are put
    * outputs of networks that give no features, as those of other programs
    * changed images, gradients, and the training cases at which a gate looks
    """

    outputs: KeptOutputs = field(default_factory=KeptOutputs)

    def by(self, model: Model) -> Model:
        """The model, which computes nothing again that is known."""
        return model.keeping(self.outputs)

    def predicted(self, model: Model, task: Task, cases: Sequence[Case]) -> list[Prediction]:
        """Cases as the model predicts them with this task."""
        asked, predictions = replace(self.by(model), task=task), list[Prediction]()
        with tracked("predicting cases for calibration and thresholds") as tracker:
            for done, case in enumerate(cases, start=1):
                predictions.append(asked.predict(case))
                tracker(done, len(cases))
        return predictions

    def observed(self, model: Model, cases: Sequence[Case]) -> Iterator[tuple[Observation, Prediction]]:
        """Features and answers of the model for each case."""
        asked = self.by(model)
        with tracked("looking at cases for the gate") as tracker:
            for done, case in enumerate(cases, start=1):
                yield asked.observed(case)
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
