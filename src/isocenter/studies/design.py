"""A design of a study: what it needs to know, its power, and how it is simulated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isocenter.errors import UsageError
from isocenter.lazy import statsmodels_power
from isocenter.studies.inputs import Input, Inputs
from isocenter.values import Floats

# (inputs, analysed participants of an arm): a fraction of a participant is allowed, so that clusters can weigh less.
Power = Callable[[Inputs, float], float]
# (inputs, whether of the arm with the effect, sizes of clusters, random): the mean of each cluster.
ClusterMeans = Callable[[Inputs, bool, Floats, np.random.Generator], Floats]
# (inputs, participants of an arm at each look, draws, random): (draws, looks) z statistics, positive for the effect.
Simulation = Callable[[Inputs, Sequence[int], int, np.random.Generator], Floats]


def no_groups(inputs: Inputs) -> int:
    """One: nobody is allocated."""
    return 1


def two_arms(inputs: Inputs) -> int:
    """Two arms of the same size."""
    return 2


def no_simulation(inputs: Inputs, sizes: Sequence[int], draws: int, random: np.random.Generator) -> Floats:
    """Refuse a simulation of a design without power."""
    return np.zeros((draws, len(sizes)))


@dataclass(frozen=True)
class Design:
    """Design by which a study answers its question.

    inputs:     of this design alone; those of every design are in `inputs.py`
    formula:    in words, for a protocol
    source:     where it was published
    power:      of the analysed participants of one arm
    number:     participants in all, of a design without power (or of a call of it); None where power decides
    refuse:     raises UsageError for inputs that contradict each other, or an effect of 0
    effect:     the input that can be solved for, with its range, from no effect to the largest
    groups:     arms, or sequences of a stepped wedge
    unit:       participants that come as a whole, where that is not one: a stepped wedge's cluster
    events:     the share of participants with an event, of a design that counts them
    cluster_means: draws the outcomes of clusters, of a design that is simulated with them
    powers:     of many sizes at once, of a design in which one participant more can lower the power
    is_clustered: whether clusters can be allocated
    """

    name: str
    inputs: Mapping[str, Input]
    formula: str
    source: str
    power: Power
    refuse: Callable[[Inputs], None]
    number: Callable[[Inputs], float | None] = lambda inputs: None
    effect: tuple[str, Callable[[Inputs], tuple[float, float]]] | None = None
    groups: Callable[[Inputs], int] = no_groups
    unit: Callable[[Inputs], int] | None = None
    events: Callable[[Inputs], float] | None = None
    simulation: Simulation = no_simulation
    cluster_means: ClusterMeans | None = None
    powers: Callable[[Inputs, Floats], Floats] | None = None
    is_clustered: bool = True


def normal_power(effect: float, n: float, alpha: float, null: float, alternative: float) -> float:
    """Power of a z test on the side of the effect.

    effect:            distance from the null hypothesis, above 0
    null, alternative: standard deviations of one participant under either hypothesis
    """
    power = statsmodels_power.normal_power_het(
        effect, n, alpha / 2, std_null=null, std_alternative=alternative, alternative="larger"
    )
    return float(power)


def no_effect(names: str) -> UsageError:
    """The refusal of an effect of 0."""
    problem = f"the effect is 0 or on the wrong side of {names}, and no number of participants finds it"
    return UsageError(problem, "--set", "Give an effect that differs from the null hypothesis, or a margin")
