"""The answers of a model where images are absent: the same cases, scored with every subset of their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from hilum.errors import HilumError
from hilum.evaluation import case_tables
from hilum.evaluation.case_tables import FOLD
from hilum.report import progress_tracking
from hilum.runtime import Preprocessing
from hilum.scoring import case_scoring
from hilum.scoring.answered_cases import ScoringFold
from hilum.scoring.case_scoring import FoldPredictor, ScoredCases
from hilum.tasks import Task
from hilum.values import Case, Problem

# Of so many images every subset is scored: 15 of four. Of more each alone, all but each, and all.
MOST = 4


@dataclass(frozen=True)
class Subsets:
    """The images of a case, and those of their subsets that a model does with.

    names: of the images, in the order of the model's channels
    """

    names: tuple[str, ...]
    wanted: tuple[tuple[str, ...], ...]

    @classmethod
    def from_preprocessing(cls, preprocessing: Preprocessing) -> Subsets:
        """The subsets that are scored: none where no image may be absent."""
        names = tuple(dict.fromkeys(name.partition(":")[0] for name in preprocessing.channels))
        absent = {name.partition(":")[0] for name in preprocessing.absent}
        sizes = range(1, len(names) + 1) if len(names) <= MOST else (1, len(names) - 1, len(names))
        subsets = [one for size in sizes for one in combinations(names, size)] if absent else []
        return cls(names, tuple(one for one in subsets if set(names) - set(one) <= absent))

    def of_case(self, case: Case) -> dict[str, str]:
        """{image of the model: what the case calls it}; those that are merely numbered stand in the model's order."""
        names = list(case.images)
        if len(names) == len(self.names):
            return dict(zip(self.names, names, strict=True))
        return {name: key for key in names for n, name in enumerate(self.names) if key in (name, f"{n:04}")}


def with_subsets(
    scored: ScoredCases,
    model: FoldPredictor,
    preprocessing: Preprocessing,
    cases: Sequence[Case],
    folds: Mapping[str, ScoringFold],
    *,
    seed: int,
    patients_known: bool,
) -> ScoredCases:
    """The figures, with those of every subset of images in the cases that have it; case after case.

    folds: {case id: the fold that scores it}, where there are several, by its own thresholds as in `score_cases`
    What a case was scored with as it is is not predicted once more.
    """
    subsets = Subsets.from_preprocessing(preprocessing)
    rows_of_case = {str(case): rows.to_dict("records") for case, rows in scored.table.groupby("case", sort=False)}
    rows: dict[tuple[str, ...], list[Any]] = {one: [] for one in subsets.wanted}
    problems: list[Problem] = []
    with progress_tracking.track_progress("scoring with images left out") as tracker:
        for case in tracker.over(cases if rows else ()):
            has, task = subsets.of_case(case), folds[case.id].task if case.id in folds else model.task
            for subset in subsets.wanted:
                try:
                    rows[subset] += _score_subset(model, task, case, has, subset, rows_of_case)
                except HilumError as error:
                    what = f"with {' + '.join(subset)} alone: {error.problem}"
                    problems.append(Problem.error(what, (case.id,), remedy=error.remedy))
    scored_subsets = [
        (
            subset,
            case_scoring.summarise_table(
                model.task, case_tables.case_table(own), seed=seed, patients_known=patients_known
            ),
        )
        for subset, own in rows.items()
        if own
    ]
    return replace(scored, subsets=scored_subsets, problems=(*scored.problems, *problems))


def _score_subset(
    model: FoldPredictor,
    task: Task,
    case: Case,
    has: dict[str, str],
    subset: tuple[str, ...],
    rows_of_case: dict[str, list[Any]],
) -> list[Any]:
    """The case's rows with these images alone; none where it lacks one of them."""
    if not set(subset) <= set(has):
        return []
    if len(subset) == len(has):
        return rows_of_case.get(case.id, [])
    reduced = case.with_images([has[name] for name in subset])
    table = task.score([model.predict(reduced)], [reduced])
    [first, *_] = rows_of_case.get(case.id, [{}])
    columns = {key: first[key] for key in ("split", FOLD) if key in first}
    return list(table.assign(**{"split": "test", **columns}).to_dict("records"))
