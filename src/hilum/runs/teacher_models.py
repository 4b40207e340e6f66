"""The teacher of a distillation: another model, whose answers for the cases of a run lie in the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from hilum import errors
from hilum.errors import DatasetError, IntegrityError, PlanError
from hilum.files import numpy_file
from hilum.files.storage import atomic, cache, hashing
from hilum.objectives.distillation import Distillation
from hilum.planning import PlannedTraining, PlanSettings
from hilum.reading import ReadingOptions, dataset_reading
from hilum.report import progress_tracking
from hilum.runtime import Model, model_files, record_files
from hilum.tasks import Task, task_settings
from hilum.values import Array, Case, Decision, Region

TEACHER, DIGEST, IMAGES = (f"distillation.{name}" for name in ("teacher", "digest", "images"))
ANSWER = "answer.npy"


def with_teacher(planned: PlannedTraining) -> PlannedTraining:
    """The plan with the place and the digest of the teacher that it names.

    Raises PlanError for a teacher of another kind of problem or of other classes, IntegrityError where it is not the
    one that the plan was followed with.
    """
    chosen = distillation_of(planned.settings)
    if chosen is None:
        return planned
    teacher = model_files.load(chosen.teacher, "cpu")
    _refuse_other(teacher.task, planned.settings.task)
    digest = teacher.sha256
    if chosen.digest not in (None, digest):
        raise IntegrityError("the teacher has changed since the run began", chosen.teacher, "Restore it")
    plan = planned.plan.with_decision(DIGEST, Decision(digest, "SHA-256 of the teacher"))
    for name, path in ((TEACHER, chosen.teacher), (IMAGES, chosen.images)):
        if path is not None:
            plan = plan.with_decision(name, replace(plan.decision(name), value=str(Path(path).resolve())))
    return replace(planned, plan=plan)


def teacher_answers(cases: Sequence[Case], chosen: PlanSettings) -> dict[str, Path] | None:
    """{case id: file with the teacher's answer for the whole image}; None where nobody teaches.

    Raises DatasetError where the teacher's images of a case are missing.
    """
    objective = distillation_of(chosen)
    if objective is None:
        return None
    folder = cache.cache_folder() / "taught"
    for shelf in folder.glob("*"):
        atomic.sweep_leftovers(shelf)
    lesson, places = Lesson(objective, chosen.task, chosen.training.device), dict[str, Path]()
    with progress_tracking.track_progress("asking the teacher") as tracker:
        for case in tracker.over(cases):
            shown = lesson.case_for_teacher(case)
            made_from = [
                objective.digest,
                hashing.content_hash(shown),
                chosen.task.name,
                task_settings.target_settings(chosen.task),
            ]
            key = hashlib.sha256(json.dumps(made_from, sort_keys=True, default=list).encode()).hexdigest()
            entry = record_files.sealed_entry(folder / key[:2] / key, partial(lesson.write, shown))
            places[case.id] = entry / ANSWER
    return places


def distillation_of(chosen: PlanSettings) -> Distillation | None:
    """The objective that learns from another model, where a plan names it."""
    return next((one for one in chosen.terms.values() if isinstance(one, Distillation)), None)


@dataclass(frozen=True, eq=False)
class Lesson:
    """The teacher, with the images that it sees; it is read when a case has no answer yet.

    task: of the network that learns
    """

    objective: Distillation
    task: Task
    device: str

    @cached_property
    def teacher(self) -> Model:
        """The model that teaches."""
        return model_files.load(self.objective.teacher, self.device)

    @cached_property
    def _cases(self) -> Mapping[str, Case]:
        """{case id: its images as the teacher sees them}, where they are other images than the network's."""
        dataset = dataset_reading.open_dataset(Path(self.objective.images or ""), ReadingOptions(), references=False)
        return {case.id: case for case in dataset}

    def case_for_teacher(self, case: Case) -> Case:
        """The case with the images that the teacher sees."""
        if self.objective.images is None:
            return case
        if case.id not in self._cases:
            remedy = f"Give its images, or leave {IMAGES} out"
            raise DatasetError(f"has no case {case.id}, whose images the teacher needs", self.objective.images, remedy)
        return replace(case, images=self._cases[case.id].images)

    def write(self, case: Case, folder: Path) -> None:
        """Write the answer for a case into a folder."""
        numpy_file.write_array(self.answer(case), folder / ANSWER)

    def answer(self, case: Case) -> Array:
        """(channels,) or (channels, *spatial) probabilities of the network's channels, or its standardised values."""
        [(name, head)] = self.task.heads.items()
        received: list[tuple[Region, Array]] = []

        def receive(region: Region, arrays: Mapping[str, Array]) -> None:
            received.append((region, np.asarray(arrays[name], dtype=np.float16)))

        prediction = self.teacher.predict(case, receiver=receive if head.is_dense else None)
        if head.is_dense:
            shape = np.asarray(prediction.data).shape  # a large volume passes the network only while it is read
            canvas = np.zeros((len(received[0][1]), *shape), dtype=np.float16)
            for region, part in received:
                canvas[(slice(None), *region)] = part
            return canvas[_channels(self.teacher.task, self.task, len(canvas))]
        if self.task.uncertainty == "values":
            [kind] = self.task.needs
            values = {name: (prediction.values or {})[name] for name in (label.name for label in self.task.labels)}
            return np.asarray(self.task.target(replace(case, references={kind: values})).data, dtype=np.float32)
        likely = prediction.probabilities or {}
        chances = np.array([likely[label.name] for label in self.task.labels], dtype=np.float32)
        # Of grades each output is the probability of passing one more of them.
        return chances if head.count == len(chances) else chances[::-1].cumsum()[::-1][1:]


def _names(task: Task) -> list[str]:
    return [label.name for label in task.channel_labels]


def _channels(teacher: Task, task: Task, count: int) -> list[int]:
    """The teacher's channel for each of the network's; where there is one more than names, it is the background."""
    first = count - len(_names(teacher))
    return [*range(first), *(first + _names(teacher).index(name) for name in _names(task))]


def _refuse_other(teacher: Task, student: Task) -> None:
    """PlanError for a teacher that answers another question."""
    theirs, ours = ((task.name, task.uncertainty, sorted(_names(task))) for task in (teacher, student))
    if theirs != ours:
        answered, learnt = (f"{name} of {errors.list_phrase(labels)}" for name, _, labels in (theirs, ours))
        problem = f"the teacher answers {answered}, and the network learns {learnt}"
        raise PlanError(problem, TEACHER, "Give another teacher")
