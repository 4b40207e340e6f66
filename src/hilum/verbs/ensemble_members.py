"""The members of an ensemble: runs that answer one question, their weights, and the plan of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from hilum import errors
from hilum.errors import UsageError
from hilum.evaluation import Table
from hilum.files.storage import csv_text
from hilum.planning import plan_checks, plan_file
from hilum.planning.rules import split_rules
from hilum.reading import ReadingOptions, verb_results
from hilum.reading.reading_options import VOXELS
from hilum.report import progress_tracking
from hilum.runs import training_jobs
from hilum.runs.run_folder import MARKS as RUN_MARKS
from hilum.runs.tuning import UnseenPredictions
from hilum.runtime import Model, Preprocessing, ensemble, model_files
from hilum.runtime.foreign import detect
from hilum.runtime.inference import Inference
from hilum.runtime.model_files import REPORT
from hilum.runtime.package.package_contents import MEMBERS
from hilum.runtime.windows.averaging import AveragedNetwork
from hilum.runtime.windows.slide import Network
from hilum.scoring import data_record
from hilum.scoring.data_record import DataRecord
from hilum.tasks import Task, fitting, properties, task_catalogue, task_settings
from hilum.tasks.fitting import PredictedCases
from hilum.tasks.task import Origin
from hilum.training import member_weighting
from hilum.training.member_weighting import MemberWeights
from hilum.values import BY_HAND, Case, Dataset, Decision, Geometry, PlainValue, Plan, Prediction, Region, Split
from hilum.values.dataset_cases import SPLITS
from hilum.values.table_cells import TableRow

# {case id: part}
Parts = Mapping[str, Split]
APART = "Train all on the same parts: --set split.seed=N beside each --seed, or data with a test part of their own"
WHERE = "ensemble"
ALIKE = "Train the members from one plan: hilum train PLAN.yaml --seed N, with split.seed set in it"
# Settings of preprocessing that say which images a model takes.
SEEN_ALIKE = ("channels", "modality", "unit", "frames", "interval", "time_unit")
# Voxels an axis of the noise by which it is seen whether two tasks decode alike.
NOISE = 6


@dataclass(frozen=True, eq=False)
class EnsembleMember:
    """A finished run.

    checkpoints: of the models that it is the mean of, one but for a run of folds
    split:       `split.csv`
    """

    name: str
    run: Path
    plan: Plan
    checkpoints: tuple[Path, ...]
    models: tuple[Model, ...]
    split: Table
    data: DataRecord

    @property
    def task(self) -> Task:
        """The task that its models answer."""
        return self.models[0].task

    @property
    def model(self) -> Model:
        """The mean of its models, which see an image in one way."""
        if len(self.models) == 1:
            return self.models[0]
        inference = common_windows([one.inference for one in self.models])
        return ensemble.averaged_model(self.models, self.task, inference, where=WHERE)

    @property
    def by_hand(self) -> dict[str, PlainValue]:
        """{setting of the task: value} that somebody set by hand: no validation case decides these."""
        return {
            name.removeprefix("task."): one.value
            for name, one in self.plan
            if name.startswith("task.") and one.because == BY_HAND
        }

    @property
    def is_foreign(self) -> bool:
        """Whether another program trained it, so that nobody knows on which cases."""
        return not all(ensemble.is_ours(one) for one in self.models)

    @property
    def is_of_folds(self) -> bool:
        """Whether its models are those of folds, each of which selects on cases of its own."""
        return len(set(self.split["fold"]) - {""}) > 1

    def patients(self, *parts: Split) -> set[str]:
        """Whose cases were in one of these parts of any fold."""
        return set(self.split.loc[self.split["split"].isin(parts), "patient"])

    @property
    def held_out(self) -> set[str]:
        """Patients that it was neither trained nor selected on."""
        return self.patients("test") - self.patients("train", "val", "calibration")


def load_members(paths: Sequence[Path], names: Sequence[str], device: str) -> list[EnsembleMember]:
    """The runs with their models, then models of other programs, which are taken to have seen what the first run saw.

    Raises UsageError without a run, whose split says which cases test.
    """
    pairs = list(zip(paths, names, strict=True))
    runs = [load_member(path, name) for path, name in pairs if not detect.is_foreign(path)]
    if not runs:
        remedy = "Give at least one folder that `hilum train` wrote: its split says which cases test"
        raise UsageError("no member is a run", WHERE, remedy)
    foreign = [(path, name) for path, name in pairs if detect.is_foreign(path)]
    return [
        *runs,
        *(
            replace(runs[0], name=name, run=path, checkpoints=(path,), models=(detect.load_foreign(path, device),))
            for path, name in foreign
        ),
    ]


def load_member(run: Path, name: str) -> EnsembleMember:
    """The run with its models, in the machine's memory.

    Raises UsageError for what is no finished run, or one that cannot be averaged.
    """
    verb_results.refuse_missing(run)
    trained_here = (run / "checkpoints").is_dir() or any(run.glob("fold_*"))  # perhaps to several networks
    if (run / MEMBERS).is_dir() and not trained_here:
        raise UsageError("is an ensemble itself", str(run), "Give the runs that it was made of")
    if not all((run / mark).is_file() for mark in RUN_MARKS):
        remedy = "Give folders that `hilum train` wrote: a package does not know who tested it"
        raise UsageError("holds no run", str(run), remedy)
    if not (run / REPORT).is_file():
        raise UsageError("is not finished", str(run), f"Finish it with `hilum train --resume {run}`")
    checkpoints = tuple(model_files.model_folders(run))
    models = tuple(model_files.load(one, "cpu") for one in checkpoints)
    if any(one.first is not None for one in models):
        problem = "is a cascade, whose networks see what their own first stage marked"
        raise UsageError(problem, str(run), "Give runs that were trained with --set preprocessing.cascade=none")
    split = csv_text.read_text_table(run / "split.csv")
    return EnsembleMember(
        name, run, plan_file.read_plan(run / "plan.yaml"), checkpoints, models, split, data_record.read_data_record(run)
    )


def join_members(members: Sequence[EnsembleMember]) -> Model:
    """All members as one model that is not tuned yet, each counting alike; UsageError for what cannot be averaged.

    Window by window where all see an image in one way, else on the image's own grid.
    """
    for other in members[1:]:
        refuse_unlike_models((members[0].name, other.name), members[0].models[0], other.models[0])
    first, models = members[0], [model for one in members for model in one.models]
    shared = {name for name, value in first.by_hand.items() if all(one.by_hand.get(name) == value for one in members)}
    task = task_catalogue.untuned_task(first.task, shared)
    if not see_alike(models):
        if properties.lacks_background(task) and not task.member_settings:
            for other in members[1:]:
                refuse_differing((first.name, other.name), *map(windows_of, (first.models[0], other.models[0])))
            raise UsageError("its members preprocess images differently", WHERE, ALIKE)
        return ensemble.joined_model([one.model for one in members], task)
    inference = common_windows([one.inference for one in models])
    counts = tuple(1 / len(members) / len(one.models) for one in members for _ in one.models)
    return ensemble.averaged_model(models, task, inference, None if len(set(counts)) == 1 else counts, WHERE)


def parts_of_all(members: Sequence[EnsembleMember]) -> dict[str, Split]:
    """{case id: part}: the first of train, val and calibration for which any member used its patient, else "test".

    A case that some member left out altogether, because its twin is held out, is in none.
    Raises UsageError where a patient that one member held out trained another, or patients are not the same.
    """
    owners = _owners(members)  # whose cases they are has to be known before it is asked who leaks
    for tester in members:
        for other in members:
            if leaking := tester.held_out & other.patients("train"):
                problem = f"{errors.count_phrase(len(leaking), 'test patient')} of {tester.name} trained {other.name}"
                raise UsageError(problem, WHERE, APART)
    used = {part: set[str]().union(*(one.patients(part) for one in members)) for part in SPLITS}
    shared = set.intersection(*(set(one.split["case"]) for one in members))
    return {
        case: next(part for part in SPLITS if patient in used[part])
        for case, patient in owners.items()
        if case in shared or patient in used["train"]
    }


def _owners(members: Sequence[EnsembleMember]) -> dict[str, str]:
    """{case id: patient}; UsageError where members disagree."""
    owners: dict[str, str] = {}
    for member in members:
        for case, patient in zip(member.split["case"], member.split["patient"], strict=True):
            if owners.setdefault(case, patient) != patient:
                problem = f"{member.name} assigns some case to another patient than {members[0].name}"
                raise UsageError(problem, WHERE, "Train all members with the same --patient")
    return owners


def refuse_other_data(members: Sequence[EnsembleMember]) -> None:
    """UsageError where members were trained on other data than the first, or read them otherwise."""
    first = members[0]
    for other in members[1:]:
        if other.plan.data_hash != first.plan.data_hash:
            problem = f"{other.name} was trained on other data than {first.name} (their hashes differ)"
            raise UsageError(problem, WHERE, "Give runs on the same, unchanged data")
        if differing := [key for key in VOXELS if other.plan.options.get(key) != first.plan.options.get(key)]:
            problem = f"{other.name} read the data with other options than {first.name}: {', '.join(differing)}"
            raise UsageError(problem, WHERE, "Train all members with the same flags of reading")


def refuse_changed_cases(members: Sequence[EnsembleMember], cases: Sequence[Case], hashes: Mapping[str, str]) -> None:
    """UsageError where a case is no longer what a member was trained with.

    hashes: {case id: hash} of what is there now
    """
    for member in members:
        contents = member.data.contents
        changed = [case.id for case in cases if contents.get(case.id, hashes[case.id]) != hashes[case.id]]
        if changed:
            problem = f"{errors.count_phrase(len(changed), 'case')} changed since {member.name} was trained"
            raise UsageError(problem, WHERE, "Restore the data as they were, or train the members anew")


def refuse_unlike_models(names: tuple[str, str], first: Model, other: Model) -> None:
    """UsageError for a model whose outputs cannot be averaged with the first's, with what differs.

    names: of both, the first's first
    """
    ours: Any = first.task
    theirs: Any = other.task
    if type(ours) is type(theirs):
        theirs = replace(theirs, **{name: getattr(ours, name) for name in ours.member_settings})
    foreign = not ensemble.is_ours(other)
    if (_classes if foreign else _answers)(ours) != (_classes if foreign else _answers)(theirs):
        problem = f"{names[1]} answers another question than {names[0]}: {_question(theirs)}, not {_question(ours)}"
        raise UsageError(problem, WHERE, "Give runs of one kind of problem with the same classes")
    if foreign:
        refuse_differing(names, *({"number of channels": len(one.preprocessing.channels)} for one in (first, other)))
    else:
        refuse_differing(names, shared_settings(first), shared_settings(other))
    ours, theirs = task_catalogue.untuned_task(ours), task_catalogue.untuned_task(theirs)
    if ours.member_settings or not decode_alike(ours, theirs, first.preprocessing.ndim):
        settings = [
            {f"task.{key}": value for key, value in task_settings.settings_of(task).items()} for task in (ours, theirs)
        ]
        refuse_differing(names, *settings)


def _answers(task: Task) -> Any:
    return task.name, task.labels, task.heads


def _classes(task: Task) -> Any:
    """The same as another program states it."""
    return [(one.value, one.name) for one in task.labels], {name: one.count for name, one in task.heads.items()}


def shared_settings(model: Model) -> dict[str, PlainValue]:
    """{"section.name": value} of what members must have in common to be averaged, and judged alike."""
    return {
        **{f"preprocessing.{key}": value for key, value in model.preprocessing.settings.items() if key in SEEN_ALIKE},
        "network.context": model.networks.architecture.get("context") or None,
        "evaluation.primary": model.record.get("primary"),
    }


def windows_of(model: Model) -> dict[str, PlainValue]:
    """{"section.name": value} of what members must have in common besides to be averaged window by window.

    Intensities are not among it: members that differ in a window, a mean and a deviation are brought to one scale.
    """
    left_out = (*SEEN_ALIKE, "normalisation")
    prepared = {key: value for key, value in model.preprocessing.settings.items() if key not in left_out}
    windows = model.inference.settings
    return {
        **{f"preprocessing.{key}": value for key, value in prepared.items()},
        **{f"inference.{key}": windows[key] for key in ("patch", "left_right")},
    }


def see_alike(models: Sequence[Model]) -> bool:
    """Whether models see an image in one way, but for a scale of intensities."""
    normalisations = [one.preprocessing.normalisation for one in models if isinstance(one.preprocessing, Preprocessing)]
    if len(normalisations) < len(models) or ensemble.widest_normalisations(normalisations) is None:
        return False
    first = models[0]
    return all(windows_of(one) == windows_of(first) and one.task.heads == first.task.heads for one in models)


def refuse_differing(names: tuple[str, str], ours: Mapping[str, PlainValue], theirs: Mapping[str, PlainValue]) -> None:
    """UsageError where values differ, with both."""
    differing = [f"{key} is {theirs.get(key)}, not {value}" for key, value in ours.items() if theirs.get(key) != value]
    if differing:
        raise UsageError(f"{names[1]} differs from {names[0]}: {'; '.join(differing)}", WHERE, ALIKE)


def decode_alike(first: Task, other: Task, ndim: int) -> bool:
    """Whether two tasks with the same heads make the same result of the same outputs, which are noise here."""
    rng, spatial = np.random.default_rng(0), (NOISE,) * ndim
    dense = {name: (head.count, *spatial) for name, head in first.heads.items() if head.is_dense}
    whole = {name: (head.count,) for name, head in first.heads.items() if head.is_vector}
    arrays = {name: rng.normal(0, 2, shape).astype(np.float32) for name, shape in {**dense, **whole}.items()}
    everywhere: Region = tuple(slice(0, size) for size in spatial)
    parts: list[tuple[Region, list[str]]] = [(everywhere, [*dense]), ((), [*whole])]
    slabs = [(region, {name: arrays[name] for name in names}) for region, names in parts if names]
    grid = Geometry(spatial, np.eye(ndim + 1))
    rows = [properties.output_rows(task.outputs(task.decode(slabs, grid))) for task in (first, other)]
    ours, theirs = (task.probabilities(arrays) for task in (first, other))
    return all(np.allclose(ours[key], theirs[key], atol=1e-6) for key in ours) and _equal(*rows)


def _equal(ours: Sequence[TableRow], theirs: Sequence[TableRow]) -> bool:
    """Whether rows say the same, but for rounding."""
    if [list(row) for row in ours] != [list(row) for row in theirs]:
        return False
    pairs = [(row[key], other[key]) for row, other in zip(ours, theirs, strict=True) for key in row]
    return all(
        a == b or (isinstance(a, float) and isinstance(b, int | float) and bool(np.isclose(a, b, equal_nan=True)))
        for a, b in pairs
    )


def common_windows(inferences: Sequence[Inference]) -> Inference:
    """The windows for all members: the largest overlap, the fewest at once, the mirrored views that all have."""
    flips = tuple(axis for axis in inferences[0].flips if all(axis in one.flips for one in inferences))
    overlap, batch = max(one.overlap for one in inferences), min(one.batch for one in inferences)
    return replace(inferences[0], overlap=overlap, batch=batch, flips=flips)


def _question(task: Task) -> str:
    return f"{task.name} of {', '.join(label.name for label in task.labels)}"


# Letters of a value that another member has.
LONGEST = 80
PREREGISTERED = "evaluation.preregistered"
SPLIT_BECAUSE = (
    "test: patients that no member was trained or selected on; validation: those that no member was trained on"
)


def ensemble_plan(
    members: Sequence[EnsembleMember], model: Model, parts: Parts, decisions: Mapping[str, Decision], root: Path | None
) -> Plan:
    """The first member's plan, with where the others differ and what was decided of the ensemble."""
    first, *others = members
    plan = replace(first.plan, data=str(root or ""))
    for name, decision in first.plan:
        differing = [each for each in others if name in each.plan and each.plan[name] != decision.value]
        if differing:
            values = "; ".join(f"{each.name}: {shorten(str(each.plan[name]), LONGEST)}" for each in differing)
            plan = plan.with_decision(
                name, replace(decision, because=f"{decision.because} (of {first.name}; {values})")
            )
    promises = {next((one.value for name, one in each.plan if name == PREREGISTERED), None) for each in members}
    if len(promises) > 1:
        plan = plan.with_decision(
            PREREGISTERED, Decision(None, "the members preregistered different metrics, margins or groups")
        )
    for name in task_settings.found_after_training(model.task):
        value = task_settings.settings_of(model.task)[name]
        if f"task.{name}" in plan and plan[f"task.{name}"] != value:
            plan = plan.with_decision(f"task.{name}", Decision(value, "no validation case of the ensemble decides it"))
    for name, decision in decisions.items():
        plan = plan.with_decision(name, decision)
    for key, value in model.inference.settings.items():
        if f"inference.{key}" in plan and plan[f"inference.{key}"] != value:
            plan = plan.with_decision(f"inference.{key}", Decision(value, "what all members have in common"))
    scale, own = (one.preprocessing.settings.get("normalisation") for one in (model, first.models[0]))
    if scale != own:
        because = "the widest of the members', each of which has its own"
        plan = plan.with_decision("preprocessing.normalisation", Decision(scale, because))
    return plan.with_decision(
        "split.method", Decision(plan["split.method"], f"{split_rules.part_count_words(parts)}; {SPLIT_BECAUSE}")
    )


# How members may be weighted.
FITTED: str = "fitted"
EQUAL: str = "equal"


@dataclass(frozen=True, eq=False)
class JoinedMembers:
    """Members as one model that is not tuned yet, with the cases that all of them know.

    parts: {case id: part}, as `parts_of_all` finds them
    """

    members: Sequence[EnsembleMember]
    model: Model
    dataset: Dataset
    parts: Parts

    def cases(self, part: Split) -> list[Case]:
        """The cases of a part."""
        return [case for case in self.dataset if self.parts.get(case.id) == part]

    @property
    def networks(self) -> list[Network]:
        """The network of each member; for a run of folds their mean."""
        networks, averaged = list(self.model.networks.members), list[Network]()
        for member in self.members:
            folds, networks = networks[: len(member.models)], networks[len(member.models) :]
            averaged.append(folds[0] if len(folds) == 1 else AveragedNetwork(tuple(folds), self.model.task.average))
        return averaged

    def by_name(self, weights: Sequence[float]) -> dict[str, float]:
        """{member: its weight}"""
        return {one.name: weight for one, weight in zip(self.members, weights, strict=True)}

    def counting(self, weights: Sequence[float]) -> Model:
        """The model whose members count so."""
        if self.model.members:
            return replace(self.model, shares=_shares(weights))
        assert self.model.networks.average is not None  # noqa: S101 - an ensemble has members
        return self.model.with_run(replace(self.model.networks.average, shares=_shares(self.by_network(weights))))

    def by_network(self, weights: Sequence[float]) -> list[float]:
        """The weight of each network: the folds of a run have no validation case in common, so they count alike."""
        weighted = zip(self.members, weights, strict=True)
        return [weight / len(one.models) for one, weight in weighted for _ in one.models]

    def of_those_that_count(self, weights: Sequence[float], task: Task) -> tuple[list[Path], Model]:
        """The checkpoints of the networks that have a weight, and these as one model."""
        if self.model.members:
            return self._apart_that_count(weights, task)
        every = [pair for one in self.members for pair in zip(one.checkpoints, one.models, strict=True)]
        counting = [(*pair, weight) for pair, weight in zip(every, self.by_network(weights), strict=True) if weight > 0]
        models, shares = [model for _, model, _ in counting], _shares([weight for *_, weight in counting])
        if len(models) == 1:  # as it is loaded: a mean of one would state that its networks never differ
            model = replace(models[0], task=task, inference=self.model.inference)
        else:
            model = ensemble.averaged_model(models, task, self.model.inference, shares)
        return [checkpoint for checkpoint, *_ in counting], model

    def _apart_that_count(self, weights: Sequence[float], task: Task) -> tuple[list[Path], Model]:
        """The same of members whose outputs are averaged on the image's grid."""
        counting = [pair for pair in zip(self.members, self.model.members, weights, strict=True) if pair[2] > 0]
        checkpoints = [path for one, *_ in counting for path in one.checkpoints]
        models, shares = [model for _, model, _ in counting], _shares([weight for *_, weight in counting])
        if len(models) == 1:
            return checkpoints, replace(models[0], task=task)
        return checkpoints, ensemble.joined_model(models, task, shares)


def _shares(weights: Sequence[float]) -> tuple[float, ...] | None:
    """The weights of a mean; None where all are alike."""
    return None if len(set(weights)) == 1 else tuple(weights)


def weights_of_members(joined: JoinedMembers, asked: str, seed: int) -> MemberWeights:
    """The weight of each member: fitted to the validation cases if that was asked for and surely helps."""
    members, cases = joined.members, joined.cases("val")
    if asked == EQUAL:
        return member_weighting.equal_weights(len(members), "equal: asked for")
    if joined.model.members and joined.model.task.member_settings:
        why = "equal: the results of the members are fused, and no loss compares these"
        return member_weighting.equal_weights(len(members), why)
    if not cases:
        folds = [one.name for one in members if one.is_of_folds]
        why = f", because every fold of {', '.join(folds)} selected on others" if folds else ""
        return member_weighting.equal_weights(
            len(members), f"equal: no case is left that no member was trained on{why}"
        )
    if joined.model.members:
        return member_weighting.lowest_loss_weights(
            member_weighting.outputs_on_image_grid(joined.model.members, joined.model.task, cases), seed=seed
        )
    plan, model = members[0].plan, joined.model
    assert isinstance(model.preprocessing, Preprocessing)  # noqa: S101 - they are runs of ours
    request = replace(plan_checks.checked_settings(plan), task=model.task, preprocessing=model.preprocessing)
    ready = training_jobs.prepare_cases(cases, request, ReadingOptions.of_plan(plan.options))
    patients = [case.patient for case in cases]
    return member_weighting.lowest_loss_weights(
        member_weighting.member_outputs(joined.networks, model.task, model.inference, ready, patients), seed=seed
    )


def tuned_task(
    unseen: UnseenPredictions, joined: JoinedMembers, weighed: MemberWeights
) -> tuple[Task, dict[str, Decision]]:
    """The task with thresholds and the like, found on predictions whose weights were fitted without the case."""
    task = joined.model.task
    parts: Mapping[Split, Sequence[Case]] = {name: joined.cases(name) for name in SPLITS}
    part = fitting.deciding_part(task, parts)
    if part is None:
        return task, {}
    weighted = joined.counting(weighed.shares)
    if weighed.of_case is None or part != "val":
        predictions = unseen.predict(weighted, task, parts[part])
    else:
        predictions = _cross_predicted(unseen, joined, parts[part], weighed.of_case)

    def held(task: Task) -> PredictedCases:
        """Cases that decide nothing else, by the task so far."""
        return PredictedCases(unseen.predict(weighted, task, parts["calibration"]), parts["calibration"])

    origin: Origin = "training" if part == "train" else "unseen"
    conformal = held if parts["calibration"] else None
    return fitting.fit_task(task, PredictedCases(predictions, parts[part]), origin=origin, conformal=conformal)


def _cross_predicted(
    unseen: UnseenPredictions, joined: JoinedMembers, cases: Sequence[Case], of_case: Sequence[Sequence[float]]
) -> list[Prediction]:
    """Each case by the weights that were fitted without it and its patient."""
    predictions = []
    with progress_tracking.track_progress("predicting cases for the weights") as tracker:
        for case, weights in zip(tracker.over(cases), of_case, strict=True):
            predictions.append(unseen.by(joined.counting(weights)).predict(case))
    return predictions
