"""The state of a training on disk, whole or not there, and the choice of the weights that it leaves."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hilum import errors
from hilum.errors import IntegrityError
from hilum.files.storage import atomic
from hilum.lazy import torch
from hilum.planning import PlanSettings
from hilum.report import wording
from hilum.runtime import record_files
from hilum.runtime.model_parts import WITHOUT_PARTS, ModelParts
from hilum.runtime.model_schema import MODEL_SCHEMA, ModelRecord
from hilum.runtime.package.package_contents import WEIGHTS
from hilum.tasks import task_settings
from hilum.training.step.batch_loss import START, Criterion
from hilum.training.training_state import State, TrainingOutcome
from hilum.values.plain_values import PlainValue

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from torch.optim import Optimizer

    from hilum.tasks import Task


STATE_SCHEMA = "hilum.state"
# The weights of the last step, what the optimiser keeps of each, and the numbers of the training.
MODULE = "module.safetensors"
OPTIMISER = "optimiser.safetensors"
STATE = "state.json"
# What objectives learn and keep: parts, queues, the weights that training began from.
OBJECTIVES = "objectives.safetensors"
# What the metric of a validation was made of, by case.
VALIDATION = "validation.safetensors"
# As `hilum.load` reads them.
RECORD = "model.json"
# In a model's record: its weights are no longer those that training left.
REFITTED: Final = "refitted"


def last_checkpoint(out: Path) -> Path:
    """The file in which a training keeps the state from which it goes on."""
    return out / "checkpoints" / "last"


def best_checkpoint(out: Path) -> Path:
    """The file in which a training keeps the weights that its validations chose."""
    return out / "checkpoints" / "best"


def write_checkpoint(
    folder: Path,
    model: ModelRecord,
    averaged: Mapping[str, Tensor],
    *,
    module: Module | None = None,
    optimiser: Optimizer | None = None,
    state: Mapping[str, PlainValue] | None = None,
    objectives: Mapping[str, Tensor] | None = None,
    validation: Mapping[str, Tensor] | None = None,
) -> None:
    """The averaged weights as a model that can be loaded; with the rest, training can go on from it.

    model:      the content of its `model.json`
    validation: what its metric was made of, so that later weights can be compared case by case
    """
    with atomic.write_whole(folder, overwrite=True) as partial:
        partial.mkdir()
        record_files.write_json(partial / RECORD, MODEL_SCHEMA, model)
        record_files.write_tensors(partial / WEIGHTS, averaged)
        if module is not None and optimiser is not None:
            record_files.write_tensors(partial / MODULE, module.state_dict())
            record_files.write_tensors(partial / OPTIMISER, _flat(optimiser))
            record_files.write_json(partial / STATE, STATE_SCHEMA, dict(state or {}))
        if objectives:
            record_files.write_tensors(partial / OBJECTIVES, objectives)
        if validation:
            record_files.write_tensors(partial / VALIDATION, validation)
        record_files.seal_folder(partial)


def read_checkpoint(
    folder: Path, module: Module, averaged: Module, optimiser: Optimizer, criterion: Criterion
) -> tuple[dict[str, Any], Criterion]:
    """Bring module, averages and optimiser to the state in the folder; returns the rest of it, and the criterion."""
    record_files.verify_seal(folder)
    state = record_files.read_json(folder / STATE, STATE_SCHEMA)
    folder_of_objectives = folder / OBJECTIVES
    try:
        module.load_state_dict(record_files.read_tensors(folder / MODULE))
        averaged.load_state_dict(record_files.read_tensors(folder / "weights.safetensors"))
        kept = record_files.read_tensors(folder_of_objectives) if folder_of_objectives.is_file() else {}
        criterion = criterion.restore(kept)
        _unflatten(optimiser, record_files.read_tensors(folder / OPTIMISER))
    except (KeyError, RuntimeError) as error:
        problem = f"does not fit the plan's network ({error})"
        raise IntegrityError(problem, str(folder), "Resume with the plan of the run") from error
    return state, criterion


def read_validation(folder: Path) -> Mapping[str, Tensor]:
    """The values that the metric of the checkpoint was made of; empty where they were not kept."""
    path = folder / VALIDATION
    return record_files.read_tensors(path) if path.is_file() else {}


def rewrite_task(folder: Path, task: Task) -> None:
    """The same weights with a task that was decided after training."""
    _rewritten(folder, {"task": {"name": task.name, **task_settings.settings_of(task)}})


def rewrite_parts(folder: Path, parts: ModelParts) -> None:
    """The same weights with the parts of a model that were found after training."""
    _rewritten(folder, parts.settings, parts)


def rewrite_weights(folder: Path, averaged: Mapping[str, Tensor]) -> None:
    """The same model with other weights, which its record says."""
    record = record_files.read_json(folder / RECORD, MODEL_SCHEMA)["record"]
    _rewritten(folder, {"record": {**record, REFITTED: True}}, averaged=averaged)


def rewrite_training(
    folder: Path,
    module: Mapping[str, Tensor],
    state: Mapping[str, PlainValue],
    start: Mapping[str, Tensor] | None = None,
    *,
    keeps_optimiser: bool = True,
) -> None:
    """The checkpoint of a training, which goes on from it with other weights.

    module: {name: tensor} in place of those of these names; the averages stay
    state:  what changes of its numbers
    start:  weights towards which an objective pulls from now on; None where they stay
    """
    with atomic.write_whole(folder, overwrite=True) as partial:
        shutil.copytree(folder, partial)
        kept = record_files.read_tensors(folder / MODULE)
        record_files.write_tensors(partial / MODULE, {**kept, **module})
        if not keeps_optimiser:
            record_files.write_tensors(partial / OPTIMISER, {})
        if start is not None:
            own = record_files.read_tensors(folder / OBJECTIVES) if (folder / OBJECTIVES).is_file() else {}
            parts = {name: one for name, one in own.items() if not name.startswith(START)}
            start_weights = {f"{START}{name}": one for name, one in start.items()}
            record_files.write_tensors(partial / OBJECTIVES, {**parts, **start_weights})
        numbers = record_files.read_json(folder / STATE, STATE_SCHEMA)
        record_files.write_json(partial / STATE, STATE_SCHEMA, {**numbers, **state})
        record_files.seal_folder(partial)


def is_refitted(folder: Path) -> bool:
    """Whether its weights were changed after training."""
    return bool(record_files.read_json(folder / RECORD, MODEL_SCHEMA)["record"].get(REFITTED))


def _rewritten(
    folder: Path,
    changes: Mapping[str, Any],
    parts: ModelParts = WITHOUT_PARTS,
    averaged: Mapping[str, Tensor] | None = None,
) -> None:
    """A whole checkpoint with changes in its record takes the place of the old."""
    with atomic.write_whole(folder, overwrite=True) as partial:
        shutil.copytree(folder, partial)
        parts.write(partial)
        if averaged is not None:
            record_files.write_tensors(partial / WEIGHTS, averaged)
        record = record_files.read_json(partial / RECORD, MODEL_SCHEMA)
        record_files.write_json(partial / RECORD, MODEL_SCHEMA, {**record, **changes})
        record_files.seal_folder(partial)


def recover_run(run: Path) -> None:
    """Put in place what a kill left anywhere in the folder of a run, and clear away what it cut short.

    Nobody else may be writing into the run.
    """
    for room in sorted(run.rglob(".*.partial")):
        folder = room.parent / room.name.removeprefix(".").rsplit(".", 2)[0]
        # The old one is moved aside only when the new one is whole.
        if (room / "replaced").is_dir() and not folder.exists():
            (room / folder.name).rename(folder)
        shutil.rmtree(room, ignore_errors=True)


def _flat(optimiser: Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors by "parameter/name"; its settings follow from the plan."""
    state = optimiser.state_dict()["state"]
    return {
        f"{number}/{name}": torch.as_tensor(value) for number, values in state.items() for name, value in values.items()
    }


def _unflatten(optimiser: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition("/")
        state.setdefault(int(number), {})[name] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


# The choice of the weights that a training leaves: its last, unless earlier ones were surely better.
#
# The learning rate has fallen to zero by then, so that the last weights are mostly the best; of several scores of a few
# validation cases the highest is often only the luckiest. A training that stopped early keeps its best.

# In so many of the draws a single one must be better than another: one-sided, 95 %.
SURE = 0.95
DRAWS = 200
MOST_DRAWS = 10_000


@dataclass(frozen=True, eq=False)
class Validation:
    """The metric of the averaged weights, and what it was made of.

    numbers:  {name: (cases, ...)} of `Task.quality`
    patients: (cases,) whose they are
    """

    score: float
    numbers: Mapping[str, Tensor]
    patients: Sequence[str]


def concatenate_cases(numbers: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """{name: (cases, ...)} of the numbers of cases, in their order; zeros where some lack a name, as of a part's.

    So all have as many rows, and cases can be resampled; a task of parts marks the rows that are none.
    """
    counts = [max(map(len, own.values()), default=0) for own in numbers]
    blank = {name: torch.zeros_like(value[:1]) for own in numbers for name, value in own.items()}
    pairs = list(zip(numbers, counts, strict=True))
    rows = {name: [own.get(name, zero.expand(n, *zero.shape[1:])) for own, n in pairs] for name, zero in blank.items()}
    return {name: torch.cat(own) for name, own in rows.items()}


def share_better(
    task: Task,
    earlier: Mapping[str, Tensor],
    last: Mapping[str, Tensor],
    patients: Sequence[str],
    *,
    seed: int,
    tried: int = 1,
) -> float:
    """Share of bootstrap draws of the same validation patients in which the earlier weights have the higher metric.

    earlier, last: {name: (cases, ...)} of `Task.quality`, in the same order of cases
    patients:      (cases,) whose they are: images of one patient are no independent evidence
    tried:         among how many the earlier ones are the best: `required_share` says which share is asked of it
    0 where there are too few patients to tell.
    """
    counts = {len(value) for numbers in (earlier, last) for value in numbers.values()}
    people, owner = np.unique(np.asarray(patients), return_inverse=True)
    if counts != {len(owner)} or len(people) < fewest_cases(tried):
        return 0.0
    rng = np.random.default_rng(seed)
    cases_of = [np.flatnonzero(owner == person) for person in range(len(people))]
    better = 0
    draws = bootstrap_draws(tried)
    for _ in range(draws):
        persons = rng.integers(len(people), size=len(people))
        draws_of_cases = torch.from_numpy(np.concatenate([cases_of[person] for person in persons]))
        resampled = ({name: values[draws_of_cases] for name, values in numbers.items()} for numbers in (earlier, last))
        before, after = map(task.selection, resampled)
        better += before > after
    return better / draws


def required_share(tried: int) -> float:
    """The share of draws that the best of so many has to be better in: each of them is one more chance of luck.

    Bonferroni's bound; of one it is `SURE`. Dunn, J Am Stat Assoc 1961, doi:10.1080/01621459.1961.10482090
    """
    return 1 - (1 - SURE) / max(1, tried)


def fewest_cases(tried: int) -> int:
    """Fewest cases: fewer would all agree by chance more often than `required_share` admits: once in 2^cases."""
    return math.ceil(-math.log2(1 - required_share(tried)))


def bootstrap_draws(tried: int) -> int:
    """The number of draws with as many beyond the share as in a single comparison; no more than take seconds."""
    return min(MOST_DRAWS, DRAWS * max(1, tried))


def judge_validation(state: State, validation: Validation, settings: PlanSettings, out: Path) -> State:
    """The state after a validation: the best score, whether the last weights are preferred, whether to stop early."""
    state = replace(state, preferred=_why_last_preferred(state, validation, settings, out))
    score = validation.score
    # never of what is no number
    chosen = settings.training
    better = score > state.best
    # A figure of nothing, as where neither reference nor prediction has a structure, is no step backwards either.
    best, without = (score, 0) if better else (state.best, state.without + (not math.isnan(score)))
    stopped = state.stopped
    if chosen.early_stop is not None and without >= chosen.early_stop and state.step < state.pace.steps:
        stopped = f"{without} validations brought nothing better than {best:.4f}, so training ended {_cut_words(state)}"
    return replace(state, best=best, without=without, stopped=stopped)


def _cut_words(state: State) -> str:
    share = 100 * state.pace.progress(state.step)
    return (
        f"after step {state.step} of {state.pace.steps}: the schedule is cut at {share:.0f} %, the rate has not fallen "
        "to zero"
    )


def end_training(out: Path) -> None:
    """Let a training that was interrupted be over, with the weights that its validations have chosen so far."""
    last = last_checkpoint(out)
    state = State.from_record(record_files.read_json(last / STATE, STATE_SCHEMA), str(last))
    if not state.is_over:
        rewrite_training(last, {}, {"stopped": f"a person ended the training {_cut_words(state)}"})


def _why_last_preferred(state: State, validation: Validation, settings: PlanSettings, out: Path) -> str:
    """Why the last weights are taken where earlier ones had a higher metric; nothing where they are not."""
    last = state.step >= state.pace.steps
    score = validation.score
    if not last or score >= state.best or not (earlier := read_validation(best_checkpoint(out))):
        return ""
    metric = _selecting(settings, score)
    if math.isnan(score):
        return (
            f"the last ones, whose {metric} of the validation cases is not a number: earlier ones had {state.best:.4f}"
        )
    numbers = validation.numbers
    patients = validation.patients
    tried = state.validations - 1
    seed = settings.training.seed
    needed = required_share(tried)
    share = share_better(settings.task, earlier, numbers, patients, seed=seed, tried=tried)
    if share >= needed:
        return ""
    had = f"the last ones, {metric} of the validation cases {score:.4f}: earlier ones had {state.best:.4f}, but "
    if (people := len(set(patients))) < fewest_cases(tried):
        return f"{had}{errors.count_phrase(people, 'patient is', 'patients are')} too few to tell that from luck"
    return (
        f"{had}were better in only {100 * share:.1f} % of {bootstrap_draws(tried)} bootstrap draws of their patients, "
        f"not in {100 * needed:.1f} %, which are asked of the best of {tried}"
    )


def _selecting(settings: PlanSettings, figure: float) -> str:
    """The metric that selects, as papers spell it; or what took its place to give this figure."""
    return wording.metric_namer(settings.task.metrics.metric_named(settings.training.selection))(figure)


def finished_outcome(out: Path, settings: PlanSettings) -> TrainingOutcome | None:
    """The outcome of a finished training; None where it is not finished."""
    last = last_checkpoint(out)
    if not last.is_dir():
        return None
    state = State.from_record(record_files.read_json(last / STATE, STATE_SCHEMA), str(last))
    return training_outcome(out, settings, state) if state.is_over else None


def training_outcome(out: Path, settings: PlanSettings, state: State) -> TrainingOutcome:
    """The checkpoint that was chosen, or where nothing was the last."""
    checkpoint = last_checkpoint(out)
    because = "the last averaged weights, because nothing was selected"
    if best_checkpoint(out).is_dir():
        metric = _selecting(settings, state.best)
        best = f"those with the best {metric} of the validation cases, {state.best:.4f}"
        checkpoint = best_checkpoint(out)
        because = state.preferred or best
    steps = (state.step, state.stopped, state.waiting, state.work, state.compute, state.batch, state.windows)
    return TrainingOutcome(checkpoint, because, *steps)
