"""Notes of an evaluation: the positive class, whose the references are, what is not scored, and an early end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from hilum import errors
from hilum.errors import UsageError
from hilum.evaluation import Table
from hilum.files.dicom.uids import MAKER
from hilum.prediction import result_files
from hilum.runtime import Model
from hilum.scoring.case_scoring import ScoredCases
from hilum.tasks import Task, multitask, properties, task_catalogue, task_settings
from hilum.values import Case, Image
from hilum.work_state import log

FLAG = "--positive"


def stop_note(scored: ScoredCases, cases: Sequence[Case]) -> Iterator[str]:
    """A note that the evaluation was stopped, and what it lacks."""
    if scored.stopped is None:
        return
    ended = {*scored.table["case"].astype(str), *(case for one in scored.problems for case in one.cases)}
    left = [case.id for case in cases if case.id not in ended]
    lacking = f"{errors.count_phrase(len(left), 'case is', 'cases are')} not scored, and " if left else ""
    yield f"The evaluation was stopped before its end: {lacking}no audit was made. Evaluate once more for all figures."


def own_labels(task: Task, cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
    """The cases with references under the model's own numbers, and what is unlike, which is logged before any figure.

    Raises DatasetError where references hold values that the model does not know.
    """
    labels, sentences = task.own_labels(cases)
    for sentence in sentences:
        log.warning(sentence)
    return list(labels), list(sentences)


def absent_label_notes(tasks: Sequence[Task], tables: Sequence[Table]) -> list[str]:
    """The note on labels that no reference of these tables of cases holds, which is logged too."""
    names = dict.fromkeys(one for task, own in zip(tasks, tables, strict=True) for one in _absent_labels(task, own))
    if not names:
        return []
    structures = errors.list_phrase(names)
    note = f"No reference of these cases holds {structures}: figures of it only count what is marked wrongly."
    log.warning(note)
    return [note]


def _absent_labels(task: Task, table: Table) -> Iterator[str]:
    """The structures whose voxels no reference of a table of cases holds, those of a part after its name."""
    for part, rows in multitask.part_tables(task, table).items():
        if "voxels_reference" in rows:
            voxels = rows.groupby("label", sort=False)["voxels_reference"].sum()
            yield from (f"{part}: {label}" if part else str(label) for label in voxels.index[voxels == 0])


def unshared_labels(task: Task, cases: Sequence[Case]) -> Iterator[str]:
    """A note on labels that only the references or only the model knows: neither is scored.

    Of references that have names, such as findings and values; one that a case alone lacks is nothing to be said. Of a
    task of parts each is compared with the cases that have its references.
    """
    for name, part in properties.leaf_tasks(task).items():
        yield from _unshared_of_one(part, [case for case in cases if not name or part.needs <= set(case.references)])


def _unshared_of_one(task: Task, cases: Sequence[Case]) -> Iterator[str]:
    """A note on labels of a task that is made of no others."""
    first = cases[0].references if cases else {}
    kinds = [kind for kind in sorted(task.needs) if isinstance(first.get(kind), Mapping)]
    names = {label.name for label in task.labels}
    for kind in kinds:
        named = {name for case in cases for name in case.references[kind]}
        if others := sorted(named - names):
            yield f"Not scored, because the model was not taught them: {errors.list_phrase(others)}."
        if lacking := sorted(names - named):
            yield f"Not scored, because no case here says anything of them: {errors.list_phrase(lacking)}."


def own_results(model: Model, cases: Sequence[Case]) -> Iterator[str]:
    """A note where references are DICOM objects that this or another model of Hilum wrote: nobody contoured them."""
    version = result_files.model_identity(model)["version"]
    algorithms_of = {
        case.id: errors.list_phrase(one.facts.get("algorithms", ()))
        for case in cases
        for one in case.references.values()
        if isinstance(one, Image) and one.facts.get("maker") == MAKER and one.facts.get("algorithms")
    }
    # A node gives a model another name, and no other version.
    cases_of_model = [case for case, algorithms in algorithms_of.items() if version and version in algorithms]
    others = [case for case in algorithms_of if case not in cases_of_model]
    for which, written in (("this model", cases_of_model), ("another model", others)):
        if written:
            cases_of = f"{errors.count_phrase(len(written), 'case')} ({errors.list_phrase(written, 3)})"
            yield f"The references of {cases_of} were written by {which} and not by a person: agreement proves nothing."


def with_positive(model: Model, positive: str | None, source: str) -> Model:
    """The model whose sensitivity, predictive values and thresholds are those of this class; as it is without one.

    Raises UsageError for a model whose positive class has been decided before, PlanError for a class that it lacks.
    """
    if positive is None:
        return model
    settings = task_settings.settings_of(model.task)
    if "positive" not in settings:
        problem = f"no positive class of a {model.task.name} can be chosen here"
        raise UsageError(problem, FLAG, "Leave it out")
    task = task_catalogue.build_task({"name": model.task.name, **settings, "positive": positive})
    decided = settings["positive"] is not None or settings["thresholds"] is not None
    if decided and task.positives != model.task.positives:
        problem = (
            f"{errors.list_phrase(model.task.positives)} is positive in this model, and its thresholds are of that"
        )
        raise UsageError(problem, source, f"Leave out {FLAG}, or train again with {FLAG} {positive}")
    return replace(model, task=task)


def positive_words(task: Task) -> Iterator[str]:
    """A sentence on the positive classes; none where each class is compared with the rest, or there are no classes."""
    positives, others = task.positives, [one.name for one in task.labels]
    others = [name for name in others if name not in positives]
    if positives and others:
        named, rest = errors.list_phrase(positives), errors.list_phrase(others)
        yield (
            f"Positive is {named}, negative {rest}. Thresholds, curves and gaps between groups are those of {named}; "
            f"sensitivity and the like in a row of {rest} take that for positive."
        )


def assumed_positive(task: Task) -> Iterator[str]:
    """A note where nobody has chosen the positive one of two classes, so that their names decide."""
    if len(task.labels) == 2 and task.positives and task_settings.settings_of(task).get("positive") is None:
        name = errors.list_phrase(task.positives)
        yield f"Nobody has stated which class is positive: {name} is taken for it. {FLAG} NAME decides otherwise."
