"""Settings found once training has ended, by one pass of cases through models that have not seen them.

Thresholds, calibration, post-processing; belief, the gate and the scores are made of the same pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hilum import errors
from hilum.report import progress_tracking
from hilum.runs import _run_trainings, training_jobs
from hilum.runs._run_minutes import UNCUT
from hilum.runs.training_jobs import FittedTraining, TrainingJob
from hilum.runtime import Model
from hilum.runtime.guard.image_gate import CLOCK, Guard
from hilum.runtime.guard.image_observation import Observation
from hilum.runtime.torch_networks import KeptOutputs
from hilum.scoring import case_scoring
from hilum.scoring.answered_cases import ScoringFold
from hilum.tasks import Task, fitting
from hilum.tasks.fitting import PredictedCases
from hilum.training import checkpoint_files
from hilum.values import Case, Decision, Prediction


@dataclass(frozen=True, eq=False)
class UnseenPredictions:
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

    def predict(self, model: Model, task: Task, cases: Sequence[Case]) -> list[Prediction]:
        """Cases as the model predicts them with this task."""
        asked = replace(self.by(model), task=task)
        with progress_tracking.track_progress("predicting cases for calibration and thresholds") as tracker:
            return [asked.predict(case) for case in tracker.over(cases)]

    def observe(self, model: Model, cases: Sequence[Case]) -> Iterator[tuple[Observation, Prediction]]:
        """Features and answers of the model for each case."""
        asked = self.by(model)
        with progress_tracking.track_progress("looking at cases for the gate") as tracker:
            for case in tracker.over(cases):
                yield asked.observe(case)


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """The models of all trainings, each for the cases that it has not seen.

    task:   scores them all, the same for every fold
    owners: {case id: model}
    folds:  {case id: the fold that scores it}, where there are several
    """

    task: Task
    owners: Mapping[str, Model]
    folds: Mapping[str, ScoringFold] = field(default_factory=dict)

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


# Cases whose label maps decide for a fold, of all others together: to fit functions of voxels takes its time.
MOST_DECIDING = 40


@dataclass(frozen=True, eq=False)
class TunedModels:
    """The models of all trainings, each tuned by cases that it does not test, and the task that they have in common.

    decisions: {decision: value} of the common task
    """

    models: Sequence[Model]
    task: Task
    decisions: Mapping[str, Decision]

    def out_of_fold(self, unseen: UnseenPredictions, fits: Sequence[FittedTraining]) -> OutOfFold:
        """Each model with the test cases of its training."""
        owners, folds = dict[str, Model](), dict[str, ScoringFold]()
        for job, model in zip([one.job for one in fits], map(unseen.by, self.models), strict=True):
            owners |= {case.id: model for case in job.test}
            if job.fold is not None:
                folds |= {case.id: ScoringFold(job.fold, model.task) for case in job.test}
        return OutOfFold(self.task, owners, folds)


def tune_models(
    unseen: UnseenPredictions, fits: Sequence[FittedTraining], task: Task, inner: Sequence[FittedTraining] = ()
) -> TunedModels:
    """Decide what the task leaves open: for each training by cases that it does not test.

    task:  of the run, which several trainings have in common: all their cases decide for their mean
    inner: trainings beside a single one, each of which adds predictions of the cases that it has not seen
    The common task goes into every checkpoint, because the trainings are one model; a fold's own lies beside them.
    """
    jobs, models = [one.job for one in fits], [one.model for one in fits]
    is_crossed, is_mean = all(job.is_crossed for job in jobs), any(one.further for one in fits)
    # Of folds with several networks sets go by their mean: where they are not crossed either, nobody asks each fold.
    asked = [job.unseen if is_crossed or not is_mean else () for job in jobs]
    by_folds = [
        PredictedCases(unseen.predict(model, job.settings.task, cases), cases)
        for job, model, cases in zip(jobs, models, asked, strict=True)
    ]
    if is_crossed:
        most = -(-MOST_DECIDING // max(1, len(jobs) - 1))
        deciding = [limit_evidence(one, most) if job.is_dense else one for job, one in zip(jobs, by_folds, strict=True)]
        evidence_of_fits = [
            PredictedCases.from_parts([*deciding[:place], *deciding[place + 1 :]]) for place in range(len(jobs))
        ]
        everything = PredictedCases.from_parts(deciding)
    else:
        evidence_of_fits = [_own_evidence(unseen, job, model, inner) for job, model in zip(jobs, models, strict=True)]
        everything = PredictedCases.from_parts(_on_zero_of_mean(unseen, fits, task, evidence_of_fits))
    decisions: Mapping[str, Decision] = {}
    for index, (job, evidence) in enumerate(zip(jobs, evidence_of_fits, strict=True)):
        if evidence.cases:
            decided, decisions = _fit_task(unseen, job, models[index], evidence, inner)
            models[index] = replace(models[index], task=decided)
            if job.fold is not None:
                case_scoring.write_task(decided, job.out)
    common = models[0].task
    if len(jobs) > 1:
        by_fold = PredictedCases.from_parts(by_folds) if not is_mean and all(one.cases for one in by_folds) else None
        because = _by_unseen_fold(everything) if is_crossed else ""
        cut = _cut_by_clock(jobs)
        common, decisions = fitting.fit_task(task, everything, because=because, cut=cut, by_fold=by_fold)
    for job in jobs if everything.cases else ():
        for name in ("best", "last"):
            if (job.out / "checkpoints" / name).is_dir():
                checkpoint_files.rewrite_task(job.out / "checkpoints" / name, common)
    return TunedModels(models, common, decisions)


def tune_out_of_fold(fits: Sequence[FittedTraining], task: Task) -> OutOfFold:
    """Tune trainings that are compared with those of the model, each for the cases that it has not seen."""
    unseen = UnseenPredictions()
    return tune_models(unseen, fits, task).out_of_fold(unseen, fits)


def limit_evidence(evidence: PredictedCases, most: int) -> PredictedCases:
    """Take at most so many cases of the evidence, from all over."""
    return PredictedCases(
        _run_trainings.evenly(evidence.predictions, most), _run_trainings.evenly(evidence.cases, most)
    )


def _own_evidence(
    unseen: UnseenPredictions, job: TrainingJob, model: Model, inner: Sequence[FittedTraining]
) -> PredictedCases:
    """The cases that decide for a training by itself, and those of the trainings beside it."""
    if not job.tuning:
        return PredictedCases()
    task = job.settings.task
    evidence = PredictedCases(unseen.predict(model, task, job.tuning), job.tuning)
    evidences = [evidence]
    for fit in inner:
        network, cases = fit.model, fit.job.cuts.of(fit.job.test)
        predicted = unseen.predict(network, task, cases)
        if fitting.needs_alignment(task):
            theirs = unseen.predict(network, task, evidence.cases)
            predicted = fitting.align(task, predicted, theirs, evidence.predictions)
        evidences.append(PredictedCases(predicted, cases))
    return PredictedCases.from_parts(evidences)


def _on_zero_of_mean(
    unseen: UnseenPredictions, fits: Sequence[FittedTraining], task: Task, evidence_of_fits: Sequence[PredictedCases]
) -> Sequence[PredictedCases]:
    """Outputs of each fold for its own cases with the zero of the mean of all, of a task whose networks have none.

    Else the zeros of the folds, which mean nothing, would count as differences between cases.
    """
    if len(fits) < 2 or not fitting.needs_alignment(task):
        return evidence_of_fits
    mean = training_jobs.mean_of_trainings(fits)
    means = [unseen.predict(mean, task, one.cases) for one in evidence_of_fits]
    pairs = zip(evidence_of_fits, means, strict=True)
    return [
        PredictedCases(fitting.align(task, own.predictions, own.predictions, ours), own.cases)
        for own, ours in pairs
        if own.cases
    ]


def _fit_task(
    unseen: UnseenPredictions, job: TrainingJob, model: Model, evidence: PredictedCases, inner: Sequence[FittedTraining]
) -> tuple[Task, dict[str, Decision]]:
    """The task of a training as the evidence decides it, with sets by calibration cases where there are any."""

    def held(task: Task) -> PredictedCases:
        """Cases that decide nothing else, by the task so far."""
        return PredictedCases(unseen.predict(model, task, job.calibration), job.calibration)

    few = limit_evidence(evidence, max(MOST_DECIDING, len(job.tuning))) if inner and job.is_dense else evidence
    others = evidence if job.origin == "unseen" else None
    because, conformal = _by_inner_folds(job, inner), held if job.calibration else others
    cut = _cut_by_clock([job])
    return fitting.fit_task(job.settings.task, few, origin=job.origin, because=because, cut=cut, conformal=conformal)


def _cut_by_clock(jobs: Sequence[TrainingJob]) -> str:
    """End of a reason: how many of the cases that were to decide did, where the minutes were over; else empty."""
    if all(job.cuts.tuned is None for job in jobs):
        return ""
    deciding = sum(len(job.tuning or job.unseen) for job in jobs)
    uncut_jobs = [replace(job, cuts=UNCUT) for job in jobs]
    planned = sum(len(job.tuning or job.unseen) for job in uncut_jobs)
    return "" if deciding == planned else f"; {deciding} of {errors.count_phrase(planned, 'case')}, {CLOCK}"


def _by_unseen_fold(everything: PredictedCases) -> str:
    """End of a reason: which fold predicted the cases that decide for the mean of crossed folds."""
    cases = errors.count_phrase(len(everything.cases), "case")
    return f"; of {cases}, each predicted by the fold that has not seen it"


def _by_inner_folds(job: TrainingJob, inner: Sequence[FittedTraining]) -> str:
    """End of a reason: which networks predicted the cases; empty where there are no inner folds."""
    if not inner:
        return ""
    cases = sum(len(one.job.test) for one in inner)
    parts = f"{len(job.tuning)} validation cases, and {cases} training cases predicted by"
    return f"; {parts} {len(inner)} networks that had not seen them"
