"""A design of a study: its inputs, their bounds and defaults, its power, and how it is simulated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

import numpy as np

from hilum.errors import UsageError
from hilum.lazy import statsmodels_power
from hilum.values import Floats

Kind = Literal["fraction", "share", "positive", "nonnegative", "number", "count", "yes or no", "word"]
# The inputs of a design by name, each of the kind that its `DesignInput` states.
Inputs = Mapping[str, Any]
BOUNDS = {
    "fraction": "a number between 0 and 1, both left out",
    "share": "a number from 0 to below 1",
    "positive": "a number above 0",
    "nonnegative": "a number from 0",
    "number": "a number",
    "count": "a whole number, at least 1",
    "yes or no": "true or false",
}


@dataclass(frozen=True)
class DesignInput:
    """One input of a design.

    kind:    what it may be
    text:    what it means
    default: its value where nobody gives one; None where it may be absent
    needed:  whether it must be given
    words:   the words of a word
    """

    kind: Kind
    text: str
    default: Any = None
    needed: bool = False
    words: tuple[str, ...] = ()

    def parse(self, name: str, text: Any) -> Any:
        """The value as a number, a truth or a word. Raises UsageError where it is out of bounds."""
        if self.kind == "word":
            if text in self.words:
                return text
            raise _wrong(name, text, f"one of {', '.join(self.words)}")
        if self.kind == "yes or no":
            truth = {"true": True, "yes": True, "false": False, "no": False}.get(str(text).lower())
            if truth is None:
                raise _wrong(name, text, BOUNDS[self.kind])
            return truth
        try:
            value = float("nan" if isinstance(text, bool) else text)
        except (TypeError, ValueError):
            value = float("nan")
        holds = {
            "fraction": 0 < value < 1,
            "share": 0 <= value < 1,
            "positive": 0 < value < float("inf"),
            "nonnegative": 0 <= value < float("inf"),
            "number": abs(value) < float("inf"),
            "count": 1 <= value < float("inf") and value == value // 1,
        }[self.kind]
        if not holds:
            raise _wrong(name, text, BOUNDS[self.kind])
        return int(value) if self.kind == "count" else value


def _wrong(name: str, text: Any, bounds: str) -> UsageError:
    return UsageError(f"{name} is {text!r}", f"--set {name}", f"Give {bounds}")


# Of every design that has a power.
COMMON = {
    "alpha": DesignInput(
        "fraction", "type I error of a two-sided test; half of it lies on the side of the effect", 0.05
    ),
    "power": DesignInput("fraction", "chance to find the effect; 0.8 where nothing else is given"),
    "n": DesignInput("count", "participants or cases in all, to learn the power or the effect"),
    "dropout": DesignInput("share", "share of participants without an outcome", 0.0),
    "looks": DesignInput("count", "analyses, the last one included", 1),
    "spending": DesignInput("word", "how looks spend alpha", "obrien-fleming", words=("obrien-fleming", "pocock")),
}
PER_ARM = {"per_arm": DesignInput("count", "participants in one arm, to learn the power or the effect")}
CLUSTERED = {
    "cluster": DesignInput("count", "participants of one cluster, on average"),
    "icc": DesignInput("share", "intraclass correlation of participants of one cluster"),
    "cv": DesignInput("share", "coefficient of variation of the sizes of clusters", 0.0),
    "clusters": DesignInput("count", "clusters in all, to learn the power or the effect"),
}


def read_inputs(design: str, inputs: Mapping[str, DesignInput], settings: Inputs) -> Inputs:
    """Every input of a design with its value: given, by default, or None.

    Raises UsageError for an unknown name, a value out of bounds, and one that is missing.
    """
    for name in settings:
        if name not in inputs:
            meant = get_close_matches(name, inputs, n=1)
            remedy = f"{f'Use {meant[0]}; ' if meant else ''}{design} knows {', '.join(sorted(inputs))}"
            raise UsageError(f"{design} has no input {name!r}", "--set", remedy)
    missing = [name for name, one in inputs.items() if one.needed and settings.get(name) is None]
    if missing:
        texts = "; ".join(f"{name}: {inputs[name].text}" for name in missing)
        example = " ".join(f"--set {name}=VALUE" for name in missing)
        raise UsageError(f"{design} needs {_in_words(missing)} ({texts})", "--set", f"Add {example}")
    values = {name: one.default for name, one in inputs.items()}
    return values | {name: inputs[name].parse(name, value) for name, value in settings.items() if value is not None}


def _in_words(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# (inputs, analysed participants of an arm): a fraction of a participant is allowed, so that clusters can weigh less.
Power = Callable[[Inputs, float], float]
# (inputs, whether of the arm with the effect, sizes of clusters, random): the mean of each cluster.
ClusterMeans = Callable[[Inputs, bool, Floats, np.random.Generator], Floats]
# (inputs, participants of an arm at each look, draws, random): (draws, looks) z statistics, positive for the effect.
Simulation = Callable[[Inputs, Sequence[int], int, np.random.Generator], Floats]


def one_group(inputs: Inputs) -> int:
    """One: nobody is allocated."""
    return 1


def two_arms(inputs: Inputs) -> int:
    """Two arms of the same size."""
    return 2


def refuse_simulation(inputs: Inputs, sizes: Sequence[int], draws: int, random: np.random.Generator) -> Floats:
    """Refuse a simulation of a design without power."""
    return np.zeros((draws, len(sizes)))


@dataclass(frozen=True)
class Design:
    """Design by which a study answers its question.

    inputs:     of this design alone; those of every design are `COMMON`
    formula:    in words, for a protocol
    source:     where it was published
    power:      of the analysed participants of one arm
    number:     participants in all, of a design without power (or of a call of it); None where power decides
    refuse:     raises UsageError for inputs that contradict each other, or an effect of 0
    effect:     the input that can be solved for, with its range, from no effect to the largest
    groups:     arms, or sequences of a stepped wedge
    unit:       participants that come as a whole, where that is not one: a stepped wedge's cluster
    events:     the share of participants with an event, of a design that counts them
    cluster_means: simulates the outcomes of clusters, of a design that is simulated with them
    powers:     of many sizes at once, of a design in which one participant more can lower the power
    is_clustered: whether clusters can be allocated
    counted:    what n counts
    beyond:     the remedy where no number of these is enough
    """

    name: str
    inputs: Mapping[str, DesignInput]
    formula: str
    source: str
    power: Power
    refuse: Callable[[Inputs], None]
    number: Callable[[Inputs], float | None] = lambda inputs: None
    effect: tuple[str, Callable[[Inputs], tuple[float, float]]] | None = None
    groups: Callable[[Inputs], int] = one_group
    unit: Callable[[Inputs], int] | None = None
    events: Callable[[Inputs], float] | None = None
    simulation: Simulation = refuse_simulation
    cluster_means: ClusterMeans | None = None
    powers: Callable[[Inputs, Floats], Floats] | None = None
    is_clustered: bool = True
    counted: str = "participants"
    beyond: str = "Give a larger effect, or less power"


def normal_power(effect: float, n: float, alpha: float, null: float, alternative: float) -> float:
    """Power of a z test on the side of the effect.

    effect:            distance from the null hypothesis, above 0
    null, alternative: standard deviations of one participant under either hypothesis
    """
    power = statsmodels_power.normal_power_het(
        effect, n, alpha / 2, std_null=null, std_alternative=alternative, alternative="larger"
    )
    return float(power)


def no_effect_error(names: str) -> UsageError:
    """The refusal of an effect of 0."""
    problem = f"the effect is 0 or on the wrong side of {names}, and no number of participants finds it"
    return UsageError(problem, "--set", "Give an effect that differs from the null hypothesis, or a margin")
