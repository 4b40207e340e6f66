"""The model whose weights a training begins from, and the cases that the training must not see then.

Unlabelled images of a run are looked through once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hilum import errors
from hilum.errors import DatasetError, IntegrityError, UsageError
from hilum.files.storage import csv_text, hashing
from hilum.networks import factory, weight_loading
from hilum.networks.network_family import NetworkSize
from hilum.objectives.objective_terms import TARGET_PLACE, UNKNOWN_PLACE
from hilum.planning import PlannedTraining, plan_file, plan_result
from hilum.planning.plan_result import FURTHER
from hilum.planning.rules import site_rules
from hilum.quality import leakage
from hilum.quality.dataset_examination import Examination
from hilum.reading import ReadingOptions, dataset_reading
from hilum.runtime import record_files
from hilum.runtime.foreign import nnunet_model
from hilum.runtime.model_schema import MODEL_SCHEMA
from hilum.runtime.package.package_contents import MEMBERS, WEIGHTS
from hilum.tasks import properties
from hilum.values import Case, CaseFacts, Dataset, Decision, PlainValue, Plan, Problem, grouping
from hilum.work_state import log

# The parts of a run that must stay unseen.
HELD_OUT = ("val", "calibration", "test")


def without_held_out(examination: Examination, run: Path, threads: int) -> Examination:
    """The examination without the patients that a run holds out, and without images nearly the same as theirs.

    Raises UsageError for a folder that is no run, DatasetError where nothing is left or the run's data are gone.
    """
    held = _held_out(run)
    looks = {f"{run.name}: {name}": look for name, look in dataset_reading.examine_cases(held, threads).looks.items()}
    duplicates = {name for name, alike in leakage.duplicates_among(looks, examination.looks).items() if alike}
    people = {case.patient for case in held} if held.patients_known and examination.dataset.patients_known else set()
    left = tuple(case.id for case in examination.dataset if case.id in duplicates or case.patient in people)
    if len(left) == len(examination.dataset):
        raise DatasetError("every case is of a patient that the run holds out", str(run), "Give further data")
    if not left:
        return examination
    what = f"{errors.count_phrase(len(left), 'case')} of patients that {run.name} holds out, or nearly the same images"
    because = "they are left out, so that figures of that run stay those of new patients"
    problem = Problem.warning(what, left, because)
    return examination.without([problem])


def _held_out(run: Path) -> Dataset:
    """The cases that a run holds out, read again from where they lie."""
    if not (run / "plan.yaml").is_file() or not (run / "split.csv").is_file():
        raise UsageError("is no run, so nobody knows what it holds out", str(run), "Give the folder of a run")
    plan, table = plan_file.read_plan(run / "plan.yaml"), csv_text.read_text_table(run / "split.csv")
    ids = set(table.loc[table["split"].isin(HELD_OUT), "case"])
    places = [run / plan.data, *plan.options.get(FURTHER, ())]
    dataset = dataset_reading.open_for_plan(plan, places).only(ids)
    if lost := ids - {case.id for case in dataset}:
        problem = f"{errors.count_phrase(len(lost), 'case')} that it holds out cannot be found"
        raise DatasetError(problem, str(run), "Restore its data as they were")
    return dataset


UNLABELLED, HASH = "objectives.unlabelled", "objectives.unlabelled_hash"
# Roles of columns of a table that are not references.
ROLES = ("image", "patient", "case")


@dataclass(frozen=True, eq=False)
class UnlabelledImages:
    """Images of which a training sees nothing else.

    patients: {id of an unlabelled case: cases of the run that show the same person}
    alike:    {id of an unlabelled case: cases of the run that show nearly the same image}
    target:   ids of those of the place where the model shall work
    """

    cases: tuple[Case, ...] = ()
    patients: Mapping[str, frozenset[str]] = field(default_factory=dict)
    alike: Mapping[str, frozenset[str]] = field(default_factory=dict)
    target: frozenset[str] = frozenset()

    def shown_to(self, training: Collection[str], every: Collection[str]) -> tuple[list[Case], dict[str, int]]:
        """The cases for a training on cases of these ids, and how many are left out for which reason.

        every: ids of all cases of the run: what does not train may be validated, calibrated or tested on
        """
        held = set(every) - set(training)
        shown = {case.id for case in self.cases if held & self.patients.get(case.id, frozenset())}
        alike = {case.id for case in self.cases if held & self.alike.get(case.id, frozenset())} - shown
        shown_cases = [case for case in self.cases if case.id not in shown | alike]
        return shown_cases, {"patients": len(shown), "near_duplicates": len(alike)}

    def places(self, training: Sequence[Case], column: str | None, values: Sequence[str]) -> dict[str, int]:
        """{case id: number of its place} of training cases and these; TARGET_PLACE is that of the target.

        column: of the covariate that states the place; None where all training cases are of one
        values: of that column, as `sites_of_cases` names them
        """
        ids = [case.id for case in training]
        places = dict.fromkeys(ids, 0) | dict.fromkeys((case.id for case in self.cases), UNKNOWN_PLACE)
        if column is not None:
            sites = site_rules.sites_of_cases([*training, *self.cases], column, "--domain")
            numbers = {value: n + (n >= TARGET_PLACE) for n, value in enumerate(values)}
            places = {case: numbers.get(site, UNKNOWN_PLACE) for case, site in sites.items()}
        return places | dict.fromkeys(self.target, TARGET_PLACE)


def with_unlabelled(planned: PlannedTraining) -> tuple[PlannedTraining, UnlabelledImages]:
    """The unlabelled images that a plan names, and the plan with the hash of their contents.

    Raises DatasetError for images of other dimensions or channels than those that train, or where a training is left
    none, IntegrityError where they are not those that the plan was followed with.
    """
    paths = [Path(path) for path in planned.settings.objectives.image_paths]
    if not paths:
        return planned, UnlabelledImages()
    reading, where = ReadingOptions.of_plan(planned.plan.options), ", ".join(map(str, paths))
    opened = [_open_images(path, planned, reading) for path in paths]
    of_target = opened[len(planned.plan[UNLABELLED]) :]
    looked = [dataset_reading.examine_cases(dataset, int(planned.plan["training.threads"])) for dataset in opened]
    for path, examination in zip(paths, looked, strict=True):
        _refuse_unlike(path, examination, planned.examination)
    cases = tuple(case for examination in looked for case in examination.dataset)
    every = {case.id for case in planned.examination.dataset}
    looks = {name: look for name, look in planned.examination.looks.items() if name in every}
    others = {name: look for one in looked for name, look in one.looks.items()}
    found = UnlabelledImages(
        cases,
        _same_patients(looked, planned),
        leakage.duplicates_among(looks, others),
        frozenset(case.id for dataset in of_target for case in dataset),
    )
    left_out = []
    for number in planned.numbers:
        shown, without = found.shown_to(plan_result.training_ids(planned.parts_of(number)), every)
        if not shown:
            problem = "no unlabelled image is left without those of people who validate, calibrate or test"
            raise DatasetError(problem, where, "Give images of other people")
        left_out.append(without)
    total = hashlib.sha256("".join(sorted(map(hashing.content_hash, cases))).encode()).hexdigest()
    if (before := planned.plan[HASH]) not in (None, total):
        raise IntegrityError("the unlabelled images have changed since the run began", where, "Restore them")
    plan = planned.plan.with_decision(HASH, Decision(total, _because(len(cases), left_out)))
    if before is None:
        log.info("%s: %s", where, plan.decision(HASH).because)
    return replace(planned, plan=plan), found


def _because(count: int, left_out: Sequence[Mapping[str, int]]) -> str:
    """The reason of the hash: how many images there are, and how many each training leaves out."""
    people, copies = (", ".join(str(one[key]) for one in left_out) for key in ("patients", "near_duplicates"))
    folds = " in each fold" if len(left_out) > 1 else ""
    return (
        f"SHA-256 over {errors.count_phrase(count, 'unlabelled image')}; training leaves out {people} of patients and "
        f"{copies} near duplicates of cases that validate, calibrate or test{folds}"
    )


def _open_images(path: Path, planned: PlannedTraining, reading: ReadingOptions) -> Dataset:
    """The images of a path, without references; of the data of the run those of its cases that have none."""
    task = planned.settings.task
    if planned.plan.data and path.resolve() == Path(planned.plan.data).resolve():
        opened = dataset_reading.open_dataset(path, reading, needs=task.needs)
        lacking = {case.id for case in opened if not properties.can_learn_from(task, case.references)}
        if not lacking:
            problem = "all cases have a reference, and of the data that train only the others are unlabelled images"
            raise DatasetError(problem, str(path), "Give another folder, or leave it out")
        dataset = opened.only(lacking)
    else:
        columns = {role: name for role, name in reading.columns.items() if role.partition(":")[0] in ROLES}
        own = replace(reading, column=columns or None, labels=None, class_rule=None, order=None, layout=None)
        dataset = dataset_reading.open_dataset(path, own, references=False)
    named = {case.id: f"{path}: {case.id}" for case in dataset}
    images = tuple(replace(case, references={}) for case in dataset)
    return replace(dataset, cases=images, splits={}, problems=()).rename_cases(named)


def _refuse_unlike(path: Path, found: Examination, examination: Examination) -> None:
    """DatasetError for images that the network of the run could not see."""
    if not len(found.dataset):
        problems = "; ".join(problem.what for problem in found.problems[:1]) or "no case lacks a reference"
        raise DatasetError(f"holds no unlabelled image ({problems})", str(path), "Give images")
    facts_of: Mapping[str, Callable[[CaseFacts], int]] = {
        "dimensions": lambda facts: len(facts.shape),
        "channels": lambda facts: len(facts.channels),
    }
    for what, fact_of in facts_of.items():
        expected = {fact_of(facts) for facts in examination.fingerprint.cases}
        for facts in found.fingerprint.cases:
            if fact_of(facts) not in expected:
                problem = (
                    f"has {fact_of(facts)} {what}, and images that train have {', '.join(map(str, sorted(expected)))}"
                )
                raise DatasetError(problem, facts.id, "Leave it out of the unlabelled images")


def _same_patients(looked: Sequence[Examination], planned: PlannedTraining) -> dict[str, frozenset[str]]:
    """{id of an unlabelled case: cases of its patient}, where both data sets know their patients, or are one."""
    run_dataset = planned.examination.dataset
    of_patient = grouping.distinct_by_key((case.patient, case.id) for case in run_dataset)
    pairs = ((case, one.dataset) for one in looked for case in one.dataset)
    return {
        case.id: frozenset(of_patient.get(case.patient, ()))
        for case, dataset in pairs
        if dataset.root == run_dataset.root or (dataset.patients_known and run_dataset.patients_known)
    }


RECORD = "model.json"
# Endings of files of weights; the content decides how they are read.
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")


@dataclass(frozen=True)
class WeightSource:
    """The weights to begin from, and what is known of their network.

    weights:  a file, for as long as it is needed
    name:     of the model, in reasons
    family, size: of its network; none where the file does not show them
    whole:    whether the size has every setting that matters, and not only those that weights show
    axes:     of its images
    prepared: settings of its preprocessing, as a plan has them
    """

    weights: Path
    name: str
    family: str | None = None
    size: NetworkSize = field(default_factory=dict)
    whole: bool = True
    axes: int | None = None
    prepared: Mapping[str, Any] = field(default_factory=dict)

    def decisions_for(self, plan: Plan) -> dict[str, PlainValue]:
        """{"section.name": value} of the source that fit the task and the images of a plan."""
        axes = plan["preprocessing.ndim"]
        if self.family is None or axes not in (family := factory.family_of(self.family)).axes:
            return {}
        if self.axes not in (None, axes) and not family.slicewise:
            return {}
        size = dict(self.size)
        if not self.whole or self.axes != axes:  # volumes have an axis of slices, which pictures do not show
            usual, _, _ = factory.size_for(self.family, plan["training.patch"], [[1] * axes], "cpu")
            size = {**usual, **size}
        return {"network.name": self.family, "network.size": size, **dict(self._grid(plan))}

    def _grid(self, plan: Plan) -> Iterator[tuple[str, Any]]:
        """Spacing or shape where the plan has one too, and intensities of the same kind of image."""
        if self.prepared.get("unit", plan["preprocessing.unit"]) == plan["preprocessing.unit"]:
            for name in ("spacing", "shape"):
                if self.prepared.get(name) is not None and plan[f"preprocessing.{name}"] is not None:
                    yield f"preprocessing.{name}", list(self.prepared[name])
        normalisation = self.prepared.get("normalisation")
        alike = self.prepared.get("modality") == plan["preprocessing.modality"]
        if normalisation is not None and alike and len(normalisation) == len(plan["preprocessing.channels"]):
            yield "preprocessing.normalisation", list(normalisation)


@contextmanager
def open_weight_source(start: Path | None) -> Iterator[WeightSource | None]:
    """The source to begin from, for as long as it is needed: a zip is unpacked meanwhile.

    Of a model of several networks, as folds and ensembles are, the weights are those of the first: a mean over
    networks that were trained apart is no network.
    Raises UsageError where there are none, IntegrityError where they are not what was written or would run code.
    """
    if start is None:
        yield None
    elif start.is_file() and start.suffix.lower() in SUFFIXES:
        yield _of_file(start, start)
    elif start.is_dir() and nnunet_model.is_nnunet(start):
        file, prepared = nnunet_model.nnunet_start(start)
        yield replace(_of_file(file, start), prepared=prepared)
    else:
        with record_files.unpack(start) as folder:
            yield _of_model(folder, start)


def _of_file(file: Path, start: Path) -> WeightSource:
    """The source by the layout of a file; of plain weights nothing else is known."""
    if (weight_layout := weight_loading.known_layout(file)) is None:
        return WeightSource(file, start.name)
    layout, content = weight_layout
    size = layout.size(content)
    return WeightSource(
        file, start.name, None if size is None else layout.family, size or {}, whole=False, axes=layout.axes
    )


def _of_model(folder: Path, start: Path) -> WeightSource:
    first = folder / "fold_0"
    trained = [one / "checkpoints" / name for one in (folder, first) for name in ("best", "last")]
    for member in (folder, *trained, folder / MEMBERS / "0"):
        if (member / WEIGHTS).is_file():
            record_files.verify_seal(member)
            several = member.is_relative_to(first) or member.is_relative_to(folder / MEMBERS)
            return _announce(member / WEIGHTS, member / RECORD, start, several=several)
    for name in (WEIGHTS, "weights_0.safetensors"):
        if (packaged := folder / "hilum" / name).is_file():
            record_files.verify_seal(folder, needed=(f"hilum/{name}",))
            return _announce(packaged, packaged.parent / RECORD, start, several=name != WEIGHTS)
    remedy = f"Give a run, a package, an nnU-Net folder or a file of weights ({', '.join(SUFFIXES)})"
    raise UsageError("holds no weights to begin from", str(start), remedy)


def _announce(weights: Path, record: Path, start: Path, *, several: bool) -> WeightSource:
    content = record_files.read_json(record, MODEL_SCHEMA)  # of a newer version weights may mean something else
    if several:
        log.info("%s is a model of several networks: training begins from the weights of the first", start)
    network, prepared = content["network"], content["preprocessing"]
    name = network["name"] if network["name"] in factory.family_names() else None
    return WeightSource(weights, start.name, name, network["size"], axes=network["spatial_dims"], prepared=prepared)
