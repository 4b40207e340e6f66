"""The study of a search: the next trial, and which is hopeless, by Optuna in one SQLite file.

Tree-structured Parzen estimators choose (Bergstra et al., NeurIPS 2011), and what lies below the median of the trials
before it at the same point of its training is given up (Golovin et al., doi:10.1145/3097983.3098043).
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from hilum import installation
from hilum.errors import ResourceError
from hilum.planning import search_domains
from hilum.planning.search_domains import Between, Choices, Space

NAME = "search"
# So many trials are sampled at random before the others follow from them, and are done whole before any is given up.
AT_RANDOM = 5
WHOLE = 3
# No trial is given up before this share of its training: early on much is luck. Trials are compared at places that lie
# so many hundredths of it apart.
NOT_BEFORE = 0.3
GRAIN = 5
COMPLETE = "complete"
PRUNED = "pruned"
IMPOSSIBLE = "impossible"
# Of fewer whole trials no importance is stated.
FEWEST_TO_RANK = 10


class HopelessError(Exception):
    """Ends a trial that lies below the others; no error of anybody."""


@dataclass(frozen=True)
class StudyTrial:
    """A trial as the study knows it.

    choices: {knob: value}
    state:   COMPLETE, PRUNED, or IMPOSSIBLE where its decisions do not go together or do not fit
    value:   of the selection metric; of one that was given up the last; None where there is none
    facts:   what else is known: its changes, seconds and steps
    """

    number: int
    choices: Choices
    state: str
    value: float | None
    facts: Mapping[str, Any] = field(default_factory=dict)


class SearchStudy:
    """A search in a file: made for a space, or opened as it was left.

    space: what may be tried; of a study that was there before, the space that it was made for
    """

    def __init__(self, path: Path, space: Space, seed: int) -> None:
        optuna = _optuna()
        from sqlalchemy import URL  # Optuna brings it

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._optuna = optuna
        self._seed = seed
        self._storage = optuna.storages.RDBStorage(URL.create("sqlite", database=str(path)).render_as_string())
        pruner = optuna.pruners.MedianPruner(n_startup_trials=WHOLE, n_warmup_steps=0)
        self._study = optuna.create_study(
            storage=self._storage, study_name=NAME, direction="maximize", pruner=pruner, load_if_exists=True
        )
        if "space" not in self.facts:
            self.keep("space", search_domains.space_record(space))
        self.space = search_domains.space_from_record(self.facts["space"])
        if not self._study.get_trials(deepcopy=False):
            self._study.enqueue_trial(_as_text(search_domains.planned_choices(self.space), self.space))

    def __enter__(self) -> SearchStudy:
        return self

    def __exit__(self, *error: object) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()

    @property
    def facts(self) -> Mapping[str, Any]:
        """The facts that were kept with the trials."""
        return dict(self._study.user_attrs)

    def keep(self, name: str, value: Any) -> None:
        """A fact of the whole study."""
        self._study.set_user_attr(name, value)

    @property
    def done(self) -> Sequence[StudyTrial]:
        """The trials that are over, in order."""
        states = self._optuna.trial.TrialState
        named = {states.COMPLETE: COMPLETE, states.PRUNED: PRUNED, states.FAIL: IMPOSSIBLE}
        return [
            StudyTrial(one.number, self._choices(one.params), named[one.state], one.value, one.user_attrs)
            for one in self._study.get_trials(deepcopy=False)
            if one.state in named
        ]

    @property
    def importances(self) -> dict[str, float]:
        """{decision: share of the differences between whole trials that it explains by itself}, the largest first.

        By functional analysis of variance over a random forest (Hutter, Hoos and Leyton-Brown, ICML 2014), in Optuna;
        empty of fewer than `FEWEST_TO_RANK` whole trials, or where all are alike.
        """
        values = [one.value for one in self.done if one.state == COMPLETE]
        if len(values) < FEWEST_TO_RANK or len(set(values)) < 2:
            return {}
        evaluator = self._optuna.importance.FanovaImportanceEvaluator(seed=self._seed)
        shares = self._optuna.importance.get_param_importances(self._study, evaluator=evaluator)
        return {name: float(share) for name, share in shares.items()}

    def next(self) -> SearchTrial:
        """The one that a killed session left, or a new one; the first is the plan as it stands."""
        running = self._study.get_trials(deepcopy=False, states=(self._optuna.trial.TrialState.RUNNING,))
        if running:
            return SearchTrial(
                self._optuna.trial.Trial(self._study, running[0]._trial_id), self._choices(running[0].params)
            )
        # A sampler of its own for each: a search that was stopped goes on as if it had not been.
        count = len(self._study.get_trials(deepcopy=False))
        seed = (self._seed * 10_007 + count) % 2**32
        self._study.sampler = self._optuna.samplers.TPESampler(seed=seed, n_startup_trials=AT_RANDOM)
        trial = self._study.ask(self._distributions)
        return SearchTrial(trial, self._choices(trial.params))

    def finish(self, trial: SearchTrial, state: str, value: float | None = None, facts: Mapping[str, Any] = {}) -> None:
        """A trial is over."""
        states = self._optuna.trial.TrialState
        for name, fact in facts.items():
            trial.given.set_user_attr(name, fact)
        state_of = {COMPLETE: states.COMPLETE, PRUNED: states.PRUNED, IMPOSSIBLE: states.FAIL}
        self._study.tell(trial.given.number, value if state == COMPLETE else None, state=state_of[state])

    @property
    def _distributions(self) -> dict[str, Any]:
        kinds = self._optuna.distributions
        return {
            name: kinds.FloatDistribution(domain.low, domain.high, log=domain.log)
            if isinstance(domain, Between)
            else kinds.CategoricalDistribution([json.dumps(value) for value in domain.values])
            for name, domain in self.space.items()
        }

    def _choices(self, params: Choices) -> Choices:
        return {name: json.loads(value) if _is_listed(self.space[name]) else value for name, value in params.items()}


@dataclass(frozen=True, eq=False)
class SearchTrial:
    """A trial at hand.

    given: Optuna's own
    """

    given: Any
    choices: Choices

    @property
    def number(self) -> int:
        """Counted from 0, which is the plan as it stands."""
        return int(self.given.number)

    def is_hopeless(self, progress: float, value: float) -> bool:
        """Whether at this share of its training a trial lies below the median of those before it.

        Never the first, which is the plan as it stands.
        """
        step = GRAIN * round(100 / GRAIN * progress)
        if step not in self.given.storage.get_trial(self.given._trial_id).intermediate_values:
            self.given.report(value, step)
        return self.number > 0 and NOT_BEFORE <= progress < 1 and bool(self.given.should_prune())


def refuse_without_optuna() -> None:
    """ResourceError, before anybody waits."""
    if importlib.util.find_spec("optuna") is None:
        raise _missing()


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError as error:
        raise _missing() from error
    return optuna


def _missing() -> ResourceError:
    remedy = installation.install_line("tune")
    return ResourceError("Optuna, which chooses the trials, is not installed", "--tune", remedy)


def _as_text(choices: Choices, space: Space) -> Choices:
    """Choices as Optuna has them: of a list of values the text of one."""
    return {name: json.dumps(value) if _is_listed(space[name]) else value for name, value in choices.items()}


def _is_listed(domain: Any) -> bool:
    """Whether Optuna has the text of a value, of a list of them."""
    return not isinstance(domain, Between)
