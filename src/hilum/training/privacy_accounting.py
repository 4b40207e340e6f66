"""What the noisy steps of a private training tell of a person: their sum as (epsilon, delta), and the noise for one.

Each step adds up the gradients of samples, each cut to a length C, of units that were sampled at random (each with
the sampling rate q), and adds Gaussian noise of standard deviation sigma C. Abadi et al., arXiv:1607.00133; the sum of
steps is reckoned by Opacus, an extra: `privacy`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import cast

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from hilum import errors, installation
from hilum.errors import HilumError, IntegrityError, UsageError
from hilum.lazy import opacus_accountants
from hilum.planning.plan_sections import PlanSettings, PrivacySettings
from hilum.planning.rules import privacy_rules
from hilum.training.data.private_sampling import Chance
from hilum.training.length.schedule import TrainingPace
from hilum.values import grouping

# Orders at which Renyi divergences are summed: any give an upper bound. Closely for small orders, which large budgets
# need, and up to large ones, for few steps with much noise.
ORDERS = (*(1 + n / 5 for n in range(1, 20)), *range(5, 32), *range(32, 64, 4), 64, 80, 128, 256, 512, 1024)
OPTIONS: Mapping[str, Mapping[str, Sequence[float]]] = {"rdp": {"alphas": ORDERS}, "prv": {}}
# Noise is solved for to this share of itself, upwards; beyond these limits there is none to be found.
TOLERANCE = 1e-3
LEAST_NOISE = 0.05
MOST_NOISE = 1e4


class BudgetRow(TypedDict):
    """All steps of one noise; epsilon, of all rows together, is null where somebody knows the seed.

    What would tell how few units a site of several has is null.
    """

    site: str
    unit: str
    units: int | None
    clip: float
    noise_multiplier: float | None
    sampling_rate: float | None
    steps: int
    delta: float
    epsilon: float | None
    accountant: str
    noise: str


@dataclass(frozen=True)
class NoisySteps:
    """A number of steps of the same noise, and of the same chance of each unit to be in a batch."""

    noise_multiplier: float
    sampling_rate: float
    steps: int


class BudgetState(TypedDict):
    """What a privacy budget has spent, in the state of a training."""

    delta: float
    accountant: str
    steps: list[NoisySteps]
    planned: int
    rows: list[BudgetRow]


@dataclass(frozen=True)
class Spending:
    """The steps that were taken, by one accountant.

    delta:   probability with which epsilon may be passed
    planned: steps of the whole training for which the last noise was solved; 0 before the first step
    """

    delta: float
    accountant: str = "rdp"
    steps: tuple[NoisySteps, ...] = ()
    planned: int = 0

    @property
    def epsilon(self) -> float:
        """How much all steps together tell of one unit; 0 before the first. UsageError without Opacus."""
        taken = tuple((one.noise_multiplier, one.sampling_rate, one.steps) for one in self.steps if one.steps)
        return _epsilon_of(taken, self.delta, self.accountant) if taken else 0.0

    def after(self, noise_multiplier: float, sampling_rate: float, steps: int = 1) -> Spending:
        """What is spent after further steps."""
        last = self.steps[-1] if self.steps else None
        if last is not None and (last.noise_multiplier, last.sampling_rate) == (noise_multiplier, sampling_rate):
            return replace(self, steps=(*self.steps[:-1], replace(last, steps=last.steps + steps)))
        return replace(self, steps=(*self.steps, NoisySteps(noise_multiplier, sampling_rate, steps)))

    def solve_noise(self, epsilon: float, sampling_rate: float, steps: int) -> float:
        """The least noise with which so many further steps keep to epsilon; HilumError where none does."""

        def keeps(noise: float) -> bool:
            return self.after(noise, sampling_rate, steps).epsilon <= epsilon

        low, high = LEAST_NOISE, 1.0
        while not keeps(high):
            low, high = high, 2 * high
            if high > MOST_NOISE:
                problem = (
                    f"{self.epsilon:.3g} of epsilon {epsilon:g} is spent, and no noise keeps {steps} more steps to it"
                )
                remedy = "Use the checkpoint that there is, or train anew with fewer steps or a larger epsilon"
                raise HilumError(problem, privacy_rules.EPSILON, remedy)
        while high > (1 + TOLERANCE) * low:
            middle = (low * high) ** 0.5
            low, high = (low, middle) if keeps(middle) else (middle, high)
        return high


@lru_cache(maxsize=256)  # what is refused beforehand is solved for once more at the first step
def _epsilon_of(taken: tuple[tuple[float, float, int], ...], delta: float, accountant: str) -> float:
    """The epsilon of all steps; taken: noise multiplier, sampling rate and number of those of each noise."""
    try:
        reckoned = opacus_accountants.create_accountant(accountant)
    except ModuleNotFoundError as error:
        remedy = installation.install_line("privacy")
        raise UsageError("Opacus is not installed", privacy_rules.EPSILON, remedy) from error
    reckoned.history = [*taken]
    with warnings.catch_warnings():  # that other orders might give a closer bound
        warnings.simplefilter("ignore", UserWarning)
        return float(reckoned.get_epsilon(delta, **OPTIONS[accountant]))


@dataclass(eq=False)
class PrivacyBudget:
    """The budget of one training, or of one site of several, and what it has spent.

    units: that it protects
    rate:  chance of each unit to be in a batch
    """

    settings: PrivacySettings
    units: int
    rate: float
    chance: Chance
    spending: Spending

    @classmethod
    def for_units(cls, settings: PrivacySettings, units: int, batch: int, chance: Chance) -> PrivacyBudget:
        """An unspent budget; batch: units of a step on average. PlanError for too large a delta."""
        delta = settings.delta or privacy_rules.DELTA_SHARE / units
        privacy_rules.refuse_delta(delta, units)
        return cls(settings, units, min(1.0, batch / units), chance, Spending(delta, settings.accountant))

    @classmethod
    def for_training(cls, settings: PlanSettings, patients: Sequence[str]) -> PrivacyBudget | None:
        """The unspent budget of a training, None where nobody asked for one; patients: of each of its cases."""
        if settings.privacy.epsilon is None:
            return None
        units = units_of_cases(patients, settings.privacy.unit)
        chosen = settings.training
        chance = Chance(chosen.seed if chosen.deterministic else None)
        return cls.for_units(settings.privacy, len(units), chosen.batch, chance)

    @property
    def batch(self) -> float:
        """The units of a step on average."""
        return self.rate * self.units

    def solve_noise(self, steps: int) -> float:
        """The noise multiplier with which so many further steps keep to the budget; HilumError where none does."""
        assert self.settings.epsilon is not None  # noqa: S101 - without one there is no budget
        try:
            return self.spending.solve_noise(self.settings.epsilon, self.rate, steps)
        except HilumError as error:
            units = errors.count_phrase(self.units, self.settings.unit)
            raise error.stating(problem=f"{error.problem}, of {units} that train") from error

    def take_step(self, step: int, pace: TrainingPace) -> float:
        """The noise multiplier of a step, which counts as taken; where other steps are planned, it is solved anew."""
        spent = self.spending
        noise = spent.steps[-1].noise_multiplier if spent.steps else 0.0
        if spent.planned != pace.steps:
            noise = self.solve_noise(pace.steps - step)
        self.spending = replace(spent.after(noise, self.rate), planned=pace.steps)
        return noise

    @property
    def state(self) -> BudgetState:
        """The record from which `restore` goes on, with what it states of the steps until then."""
        return cast("BudgetState", {**asdict(self.spending), "rows": self.rows()})

    def restore(self, state: object, where: str) -> None:
        """Go on from what an earlier session has spent. Raises IntegrityError for what is no such record."""
        try:
            spent = TypeAdapter(Spending).validate_python(state)
            self.spending = replace(self.spending, steps=spent.steps, planned=spent.planned)
        except ValidationError as error:
            raise IntegrityError("it does not say what of the privacy budget is spent", where, "Train again") from error

    def rows(self, site: str = "") -> list[BudgetRow]:
        """What `privacy.json` states: a row for all steps of one noise, each with the epsilon of all rows together.

        A seed that somebody knows takes the noise away, so that nothing is claimed: epsilon is None.
        """
        claimed = self.spending.epsilon if self.chance.seed is None else None
        return [
            BudgetRow(
                site=site,
                unit=self.settings.unit,
                units=self.units,
                clip=self.settings.clip,
                noise_multiplier=one.noise_multiplier,
                sampling_rate=one.sampling_rate,
                steps=one.steps,
                delta=self.spending.delta,
                epsilon=claimed,
                accountant=self.settings.accountant,
                noise=self.chance.source,
            )
            for one in self.spending.steps
        ]


def units_of_cases(patients: Sequence[str], unit: str) -> tuple[tuple[int, ...], ...]:
    """The numbers of the cases of each unit; patients: of each case."""
    if unit == "case":
        return tuple((number,) for number in range(len(patients)))
    owned = grouping.by_key((patient, number) for number, patient in enumerate(patients))
    return tuple(map(tuple, owned.values()))
