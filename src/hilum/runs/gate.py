"""The gate of each training, and the posterior of its last layer, from what its model sees of its own cases."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hilum import errors
from hilum.evaluation import conformal
from hilum.reading import images_of_maps
from hilum.report import progress_tracking
from hilum.runs._run_minutes import FEWEST_LOOKED, UNCUT
from hilum.runs.run_folder import RunFolder
from hilum.runs.training_jobs import FittedTraining, TrainingJob
from hilum.runs.tuning import TunedModels, UnseenPredictions
from hilum.runtime import Model, Preprocessing, model_assembly
from hilum.runtime.guard import image_gate
from hilum.runtime.guard.image_gate import MOST_TRAINED, Answering, Guard
from hilum.runtime.guard.image_observation import Observation
from hilum.runtime.model_parts import ImageDirections
from hilum.runtime.uncertainty import uncertainty_methods
from hilum.runtime.uncertainty.uncertainty_methods import LastLayers
from hilum.scoring import answered_cases
from hilum.scoring.image_subsets import Subsets
from hilum.tasks import Task, properties
from hilum.training import checkpoint_files
from hilum.transforms import channel_stack
from hilum.values import Case, Decision, Prediction

GATE, ERROR = "guard.gate", "guard.error"
# Patients of a site that can stand for those that trained a model of another program, and judge; at the usual level.
FEWEST_OF_SITE, USUAL_LEVEL = 20, 0.01
# Draws of each training case and of each other case, where images are painted: every one has another contrast.
DRAWS_TRAINED, DRAWS_UNSEEN = 2, 4
BY_PAINTED = "; all of them are images painted from label maps, of any contrast"
TOO_FEW = "too few cases did not train: every image gets an answer"
NO_TIME = "the minutes were too few for the network to see its cases once more: no image is refused"
NO_GATE = "the network has seen no training case: no image is refused, until `hilum calibrate` is given others"


def add_gates(
    run: RunFolder, unseen: UnseenPredictions, fits: Sequence[FittedTraining], tuned: TunedModels
) -> TunedModels:
    """The models with the gates of their own cases, which lie in their checkpoints too."""
    guard = fits[0].job.settings.guard
    if not (guard.gate or guard.error):
        return tuned
    if fits[0].job.cuts.looking[1] == 0:
        return _with_unfitted_gates(run, fits, tuned) if guard.gate else tuned
    pairs = [_add_gate(run, unseen, one.job, model) for one, model in zip(fits, tuned.models, strict=True)]
    models, gated = zip(*pairs, strict=True)
    for fit, (outcome, model) in zip(fits, pairs, strict=True):
        checkpoint_files.rewrite_parts(fit.outcome.checkpoint, model.parts)
        if (
            outcome is not model
            and outcome.guard is not None
            and (outcome.guard.unseen or (model.guard is not None and model.guard.unseen))
        ):
            answered_cases.write_fold_gate(outcome.guard, fit.job.out)
    decisions, first = dict(tuned.decisions), gated[0].guard
    if guard.gate:
        by_painted = BY_PAINTED if fits[0].job.settings.augmentation.painting else ""
        decisions[GATE] = Decision(first is not None, f"{_gate_note(first).removesuffix('.')}{by_painted}")
    if guard.error:
        because = error_note([model.guard for model in gated], folds=fits[0].job.fold is not None)
        decisions[ERROR] = Decision(guard.error, because)
    return replace(tuned, models=list(models), decisions=decisions)


def _with_unfitted_gates(run: RunFolder, fits: Sequence[FittedTraining], tuned: TunedModels) -> TunedModels:
    """The models with gates that have looked at nothing, because the minutes were over; their checkpoints too."""
    models = list[Model]()
    for fit, model in zip(fits, tuned.models, strict=True):
        trained, held_out = map(len, split_for_gate(run, fit.job))
        guard = image_gate.unfitted_guard(fit.job.settings.guard.level, (trained, held_out))
        models.append(model.with_guard(guard))
        checkpoint_files.rewrite_parts(fit.outcome.checkpoint, models[-1].parts)
    return replace(tuned, models=models, decisions={**tuned.decisions, GATE: Decision(False, NO_TIME)})


def error_note(guards: Sequence[Guard | None], *, folds: bool) -> str:
    """Note on the error of a model's answers; guards: of its trainings, whose mean answers where each is sure."""
    answers = image_gate.strictest_answering([guard.answers for guard in guards if guard is not None])
    if answers is None or (first := guards[0]) is None or first.answers is None:
        return TOO_FEW
    return answers.words(exact=first.exact) + ("; of the mean of folds it is approximate" if folds else "")


def _gate_note(guard: Guard | None) -> str:
    if guard is None:
        return NO_GATE
    return image_gate.tail_note(guard) if guard.is_calibrated else str(guard.state)


def split_for_gate(run: RunFolder, job: TrainingJob) -> tuple[Sequence[Case], Sequence[Case]]:
    """The training cases, of many some that are sampled by the seed, and the others at which a gate looks.

    The others are those of the part "calibration", or else the validation cases. Training cases come in the order in
    which they were sampled, so that the first of them stand for all. Under a privacy budget no number but the weights
    comes from training cases: validation cases stand for them, one half of the patients where no others look.
    """
    order = np.random.default_rng(job.settings.training.seed).permutation(len(job.train))
    held_out = job.cuts.of(run.cases("calibration", job.fold) or job.val)
    if job.settings.privacy.epsilon is not None:
        first, second = _halves(job.val, seed=job.settings.training.seed)
        return (job.val, held_out) if run.cases("calibration", job.fold) else (first, job.cuts.of(second))
    return [job.train[place] for place in order[:MOST_TRAINED]], held_out


def _add_gate(run: RunFolder, unseen: UnseenPredictions, job: TrainingJob, model: Model) -> tuple[Model, Model]:
    """The model as it is scored, and as it is kept: a fold's with a gate by cases that it has not seen.

    The mean of folds sees with the eyes of the first; an answer has to be sure enough for all. No case judges itself.
    """
    trained, held_out = split_for_gate(run, job)
    exact, gate_setting = bool(run.cases("calibration", job.fold)), job.settings.guard
    layers = uncertainty_methods.last_layers_of(model.basis)
    shown = _shown_cases(job, trained, DRAWS_TRAINED)
    observations = _training_observations(model, shown, layers, *job.cuts.looking)
    skipped = len(shown) - len(observations)
    trained = trained[: len(observations)]
    laplace = None if layers is None else layers.fit_posteriors(len(job.train))
    extended = replace(model, parts=replace(model.parts, laplace=laplace, directions=_directions(model, trained)))

    def judged(cases: Sequence[Case], exact: bool, others_skipped: int = 0) -> Model:
        others, sure = _unseen_observations(unseen, model, cases, judged=gate_setting.error is not None)
        if job.settings.augmentation.painting:
            others = [
                replace(model.observe(case)[0], patient=case.patient) for case in _shown_cases(job, cases, DRAWS_UNSEEN)
            ]
        guard = image_gate.fit_guard(
            observations,
            others,
            gate_setting.level if gate_setting.gate else 0.0,
            exact=exact,
            skipped=(skipped, others_skipped),
        )
        if guard is not None and guard.is_calibrated and gate_setting.error:
            guard = replace(guard, answers=_answering(gate_setting.error, gate_setting.delta, sure))
        return model_assembly.with_uncertainty(extended.with_guard(guard))

    _, uncut_held_out = split_for_gate(run, replace(job, cuts=UNCUT))
    scored = judged(held_out, exact, len(uncut_held_out) - len(held_out))
    is_looked_through = job.fold == 0 or (job.fold is not None and gate_setting.error)
    return scored, judged(job.test, True) if is_looked_through else scored


def _shown_cases(job: TrainingJob, cases: Sequence[Case], draws: int) -> list[Case]:
    """The cases as training saw them: painted where it painted them, each case so many times one after the other."""
    chosen = job.settings
    if not chosen.augmentation.painting:
        return list(cases)
    each = [list(images_of_maps.repainted_cases(case, chosen.task, chosen.painting, draws)) for case in cases]
    return [own[number] for number in range(draws) for own in each]


def _directions(model: Model, cases: Sequence[Case]) -> ImageDirections | None:
    """Directions in which training images differ, of answers about whole images on one grid, for counterfactuals."""
    prepared, is_vector = model.preprocessing, all(head.is_vector for head in model.task.heads.values())
    if not is_vector or prepared.shape is None or prepared.frames is not None or model.first is not None:
        return None
    with_images = [case for case in cases if case.images]
    patients = [case.patient for case in with_images]
    stacks = ((channel_stack.stack_images(case.images, case.id), case.id) for case in with_images)
    return ImageDirections.fit_images((np.asarray(prepared.open_image(*one)[0]) for one in stacks), patients)


def refit_gate(
    unseen: UnseenPredictions, model: Model, cases: Sequence[Case], *, exact: bool, chose: bool = False
) -> tuple[Model, dict[str, Decision]]:
    """A model whose gate judges by these cases, which did not train it, how far others may lie; without one as it is.

    exact: whether they have not calibrated it either, on which the promise about answers rests
    chose: whether they chose its checkpoints
    """
    if (guard := model.guard) is None or not guard.trained:
        return model, {}
    observations, sure = _unseen_observations(unseen, model, cases, judged=guard.answers is not None)
    decisions, after = {}, image_gate.refit(guard, observations, exact=not chose)
    if guard.level and (after is not guard or not guard.is_calibrated):
        decisions[GATE] = Decision(True, _gate_note(after))
    if guard.answers is not None:
        answers = _answering(guard.answers.error, guard.answers.delta, sure)
        decisions[ERROR] = Decision(answers.error, answers.words(exact=exact))
        after = replace(after, answers=answers)
    return replace(model, parts=replace(model.parts, guard=after)), decisions


def gate_of_site(unseen: UnseenPredictions, model: Model, cases: Sequence[Case]) -> tuple[Model, dict[str, Decision]]:
    """A model of which nobody knows what trained it, with a gate for images like those of a site.

    The cases of one half of the patients stand for those that trained it, and those of the other half judge distances.
    """
    patients = {case.patient for case in cases}
    if len(patients) < FEWEST_OF_SITE:
        known_patients = errors.count_phrase(len(patients), "patient")
        few = f"{known_patients} of at least {FEWEST_OF_SITE} are too few to stand for them"
        return model, {
            GATE: Decision(False, f"no case that trained the model is known, and {few}: no image is refused")
        }
    references, others = _halves(cases, seed=0)
    trained, judging = (_unseen_observations(unseen, model, half)[0] for half in (references[:MOST_TRAINED], others))
    if (guard := image_gate.fit_guard(trained, judging, USUAL_LEVEL, exact=True)) is None or not guard.is_calibrated:
        return model, {GATE: Decision(False, NO_GATE)}
    whom = f"{guard.trained} of the site's cases stand for those that trained the model"
    return model.with_guard(guard), {GATE: Decision(True, f"{image_gate.tail_note(guard)} {whom}.")}


def _halves(cases: Sequence[Case], *, seed: int) -> tuple[list[Case], list[Case]]:
    """The cases of a random half of the patients, and those of the other half."""
    patients = sorted({case.patient for case in cases})
    random_half = np.random.default_rng(seed).permutation(len(patients))[: len(patients) // 2]
    first = {patients[place] for place in random_half}
    return [one for one in cases if one.patient in first], [one for one in cases if one.patient not in first]


# Of each case whose answer can be right or wrong: the patient, how sure the answer is, and how wrong.
Sure = list[tuple[str, float, float]]


def _training_observations(
    model: Model, cases: Sequence[Case], layers: LastLayers | None, seconds: float, most: float
) -> list[Observation]:
    """Features that a model sees in its training cases.

    layers:  take what comes into the last layers
    seconds: after which it looks at no further case, once it has seen the fewest
    most:    after which it looks at no further case, whatever it has seen
    """
    observations, began, cases = list[Observation](), time.monotonic(), _with_images_left_out(model, cases)
    with progress_tracking.track_progress("looking at cases for the gate") as tracker:
        for done, case in enumerate(cases, start=1):
            observations.append(model.observe(case, layers)[0])
            tracker(done, len(cases))
            elapsed = time.monotonic() - began
            if elapsed > most or (done >= FEWEST_LOOKED and elapsed > seconds):
                break
    return observations


def _with_images_left_out(model: Model, cases: Sequence[Case]) -> Sequence[Case]:
    """The cases at which a gate looks; of a model that does without an image every second one lacks one, in turn.

    Else it would take a patient without an image, whom the model answers, for an image of another kind.
    """
    if not (isinstance(model.preprocessing, Preprocessing) and model.preprocessing.absent):
        return cases
    subsets = Subsets.from_preprocessing(model.preprocessing)
    fewer = [one for one in subsets.wanted if len(one) == len(subsets.names) - 1]
    looked_at = list(cases)
    for number, case in enumerate(cases):
        has, kept_names = subsets.of_case(case), fewer[number // 2 % len(fewer)] if fewer else ()
        if number % 2 and len(has) == len(subsets.names) and kept_names:
            looked_at[number] = case.with_images([has[name] for name in kept_names])
    return looked_at


def _unseen_observations(
    unseen: UnseenPredictions, model: Model, cases: Sequence[Case], *, judged: bool = False
) -> tuple[list[Observation], Sure]:
    """Features of cases that did not train the model and, where it is to be judged, its sureness and errors."""
    observations, sure = list[Observation](), Sure()
    cases = cases if judged else _with_images_left_out(model, cases)
    for case, (observation, prediction) in zip(cases, unseen.observe(model, cases), strict=True):
        observations.append(observation)
        if judged:
            sure += _sure_and_wrong(model.task, prediction, case)
    return observations, sure


def _answering(error: float, delta: float, sure: Sure) -> Answering:
    patients, sureness_of, wrong = ([row[place] for row in sure] for place in range(3))
    least = conformal.least_sureness(sureness_of, wrong, error, delta, patients)
    enough = None if math.isfinite(least) else conformal.cases_to_answer(sureness_of, wrong, error, delta, patients)
    return Answering(error, delta, least, len(sure), enough)


def _sure_and_wrong(task: Task, prediction: Prediction, case: Case) -> Sure:
    """Sureness and error of the answer to a case; none of a case without any reference that the task knows."""
    errors_by_label = answered_cases.case_errors(task, task.score([prediction], [case]))
    return [(case.patient, properties.sureness(task, prediction), wrong) for wrong in errors_by_label.values()]
