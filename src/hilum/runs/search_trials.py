"""A search by its trials: which one is confirmed, and what the plan gets by it.

A trial is a short training of another plan, judged by validation cases; it sees no test case. The first is the plan as
it stands. Another plan takes its place only where it is better beyond chance, twice: over the validation cases, with as
much doubt as there were trials; and once more from another seed, with nothing left to choose. Where there are inner
folds the second time decides alone: over all training cases, by networks that have not seen them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import TypedDict

from hilum import errors
from hilum.planning import PlannedTraining
from hilum.runs._run_trainings import SEARCH, FinishedTraining, RunTraining
from hilum.runtime import record_files
from hilum.training import checkpoint_files
from hilum.training.checkpoint_files import SURE
from hilum.training.search_study import COMPLETE, PRUNED, StudyTrial
from hilum.values import Decision, Plan
from hilum.values.record_schema import RecordSchema, StatedDecision

if TYPE_CHECKING:
    from torch import Tensor


class TrialRow(TypedDict):
    """A trial of a search: what it tried, and its value of the metric that selects."""

    trial: int
    state: str
    value: float | None
    steps: int
    seconds: float
    tried: str
    changed: str
    why: str


# What a search over plans has found; its statement stands under "said".
SearchRecord = TypedDict(  # noqa: UP013 - its key is no name of ours
    "SearchRecord",
    {"said": str, "changed": dict[str, StatedDecision], "rows": list[TrialRow], "importances": dict[str, float]},
)


RESULT, TABLE, SCHEMA = "result.json", "trials.csv", RecordSchema("hilum.search", SearchRecord)
# A key of result.json and of the facts of a trial, on disk.
TRIED = "said"
TPE = "Bergstra et al., NeurIPS 2011"
OF_TRIALS = "as many as each trial has"


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The result of a search.

    changed:   {decision: what is better than planned, and why}; empty where the plan stays
    statement: the same in a sentence
    rows:      {column: cell} of every trial, in order
    importances: {decision: share of the differences between whole trials that it explains}; empty of few trials
    """

    changed: Mapping[str, Decision]
    statement: str
    rows: Sequence[TrialRow] = field(default=())
    importances: Mapping[str, float] = field(default_factory=dict)

    @property
    def plan_decisions(self) -> dict[str, Decision]:
        """Decisions for the plan; whoever trains by that plan does not search again."""
        over = "the search is over, and what it has found stands in this plan"
        return {**self.changed, **dict.fromkeys(("search.minutes", "search.trials"), Decision(None, over))}

    def write(self, folder: Path) -> None:
        """`result.json` in the folder of a search."""
        changed = {
            name: StatedDecision(value=decision.value, because=decision.because, source=decision.source)
            for name, decision in self.changed.items()
        }
        record: SearchRecord = {
            "said": self.statement,
            "changed": changed,
            "rows": list(self.rows),
            "importances": dict(self.importances),
        }
        record_files.write_json(folder / RESULT, SCHEMA, record)


def read_search_result(folder: Path) -> SearchResult | None:
    """The result of the search before the training in this folder; None where there was none, or it is not over."""
    path = folder / SEARCH / RESULT
    if not path.is_file():
        return None
    record = record_files.read_json(path, SCHEMA)
    changed = {name: Decision(**decision) for name, decision in record["changed"].items()}
    return SearchResult(changed, record["said"], record["rows"], record["importances"])


def read_trials_table(folder: Path) -> Path:
    """The table of the trials of such a search."""
    return folder / SEARCH / TABLE


@dataclass(frozen=True, eq=False)
class SearchProgress:
    """The trials of a search so far.

    main:   the training whose plan every trial is compared with
    trials: from the plan as it stands on
    again:  {trial: its trainings from another seed}
    """

    planned: PlannedTraining
    main: RunTraining
    trials: Sequence[FinishedTraining]
    again: Mapping[int, Sequence[FinishedTraining]] = field(default_factory=dict)

    @property
    def next_trial(self) -> tuple[int, Plan] | None:
        """Number and plan of the next trial, the first of which is the plan as it stands; None where none follows."""
        return self.trials[-1].trial_result.asked if self.trials else (0, self.main.plan)

    @cached_property
    def confirmation_numbers(self) -> tuple[int, ...]:
        """Numbers of the best trial, where it is good enough to be trained once more, and of the plan as it stands."""
        own_trial, best = self._planned_trial, self._best
        if (
            own_trial.state != COMPLETE
            or best.value is None
            or own_trial.value is None
            or best.value <= own_trial.value
        ):
            return ()
        if not self._has_inner and self._share_of_best < checkpoint_files.required_share(len(self.trials) - 1):
            return ()
        return best.number, own_trial.number

    @property
    def result(self) -> SearchResult:
        """Whether the best trial takes the plan's place, and why."""
        done, metric, count = self._tried_trials, self.main.settings.training.selection, len(self.main.cases["val"])
        own_trial, best, rows = self._planned_trial, self._best, [_row(trial) for trial in self._tried_trials]

        def stays(statement: str) -> SearchResult:
            return SearchResult({}, f"Searched: {statement}: the plan stays", rows)

        if own_trial.state != COMPLETE:
            return stays(f"nothing can be compared with the plan's own trial ({own_trial.facts.get('why', '')})")
        if len(done) == 1:
            took = float(own_trial.facts["seconds"])
            return stays(f"the plan's own trial took {took:.0f} s and leaves no time for another and its confirmation")
        gone = sum(trial.state == PRUNED for trial in done)
        all_of = f"{errors.count_phrase(len(done), 'trial')} ({gone} given up early)"
        assert own_trial.value is not None and best.value is not None  # noqa: S101 - both are complete
        if best.value <= own_trial.value:
            highest = (
                f"{metric} of the plan's own trial on {count} validation cases, {own_trial.value:.4f}, is the highest"
            )
            return stays(f"{highest} of {all_of}")
        led = (
            f"trial {best.number} of {all_of} reached {metric} {best.value:.4f} on {count} validation cases, "
            f"the plan's own {own_trial.value:.4f}"
        )
        if not self._has_inner:  # these alone decide, and so many trials were chosen from by them
            led += f", and was better in {100 * self._share_of_best:.1f} % of bootstrap draws"
            if not self.confirmation_numbers:
                return stays(
                    f"{led}; {100 * checkpoint_files.required_share(len(done) - 1):.1f} % are asked of the best"
                )
        ours, planned = (self._numbers_again(trial.number) for trial in (best, own_trial))
        cases = [case for ended in self.again[best.number] for case in ended.training.cases["val"]]
        sure = self._share_better(cases, ours, planned, 1)
        values = [selection_metric(self.main, numbers) for numbers in (ours, planned)]
        unseen = f" on {errors.count_phrase(len(cases), 'training case')} in inner folds" * self._has_inner
        repeated = (
            f"once more from another seed{unseen} {values[0]:.4f} against {values[1]:.4f}, "
            f"better in {100 * sure:.0f} % of draws"
        )
        if values[0] <= values[1] or sure < SURE:
            return stays(f"{led}; but {repeated}")
        because = f"{led}; {repeated}"
        source = f"{SEARCH}/{TABLE}, trial {best.number}; chosen by TPE, {TPE}"
        changed = {
            name: Decision(other.value, because, source)
            for name, other in self.trials[best.number].training.plan
            if other.value != self.main.plan[name] and other.because != OF_TRIALS
        }
        return SearchResult(changed, f"Searched: {because}. It has {best.facts[TRIED]}", rows)

    @property
    def _has_inner(self) -> bool:
        return bool(self.planned.settings.split.inner_folds)

    @property
    def _tried_trials(self) -> list[StudyTrial]:
        return [ended.trial_result.tried for ended in self.trials if ended.trial_result.tried is not None]

    @property
    def _planned_trial(self) -> StudyTrial:
        return self._tried_trials[0]

    @property
    def _best(self) -> StudyTrial:
        others = [trial for trial in self._tried_trials[1:] if trial.state == COMPLETE]
        return max(
            others, key=lambda trial: -math.inf if trial.value is None else trial.value, default=self._planned_trial
        )

    @cached_property
    def _share_of_best(self) -> float:
        ours, planned = (self.trials[tried.number].trial_result.numbers for tried in (self._best, self._planned_trial))
        return self._share_better(self.main.cases["val"], ours, planned, len(self.trials) - 1)

    def _numbers_again(self, number: int) -> Mapping[str, Tensor]:
        parts = [ended.trial_result.numbers for ended in self.again[number]]
        return checkpoint_files.concatenate_cases(parts) if all(parts) else {}

    def _share_better(
        self, cases: Sequence[str], ours: Mapping[str, Tensor], planned: Mapping[str, Tensor], tried: int
    ) -> float:
        owners = {case.id: case.patient for case in self.planned.examination.dataset}
        patients, seed = [owners[case] for case in cases], int(self.main.plan["training.seed"])
        return checkpoint_files.share_better(self.main.settings.task, ours, planned, patients, seed=seed, tried=tried)


def selection_metric(main: RunTraining, numbers: Mapping[str, Tensor]) -> float:
    """The metric of these numbers; NaN where there are none, because no validation had a metric that is a number."""
    return float(main.settings.task.selection(numbers)) if numbers else math.nan


def _row(trial: StudyTrial) -> TrialRow:
    """A trial as a row of the table."""
    return {
        "trial": trial.number,
        "state": "the plan" if trial.number == 0 else trial.state,
        "value": trial.value if trial.state == COMPLETE else trial.facts.get("value_at_last"),
        "steps": trial.facts.get("steps", 0),
        "seconds": round(float(trial.facts.get("seconds", 0.0)), 1),
        "tried": trial.facts.get(TRIED, ""),
        "changed": json.dumps(trial.facts.get("changed", {})),
        "why": trial.facts.get("why", ""),
    }
