"""Models of survival: from outputs of a network to a cumulative hazard, and the loss of times to an event.

Outputs are (batch, outputs), references (batch, 2): time and event.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hilum.lazy import torch
from hilum.tasks.shared import saliency
from hilum.values.prediction import Variances

if TYPE_CHECKING:
    from torch import Tensor


Numbers = NDArray[np.floating[Any]]
# The logarithm of a cumulative hazard of 0, and of a time of 0, would be infinite.
LEAST = 1e-300
# A hazard whose exponent is beyond this is certain death, or none; float64 knows no larger power of e than 709.
MOST = 100.0
# A baseline hazard of 0, as Cox has it before the first event, would make all risks alike.
NO_EVENT = 1e-200
# Halvings of the follow-up after which the median is known to more digits than a time has.
HALVINGS = 50
# The variance of the logarithm of a number with an exponential law.
GUMBEL = math.pi**2 / 6


@dataclass(frozen=True, eq=False)
class HazardConstants:
    """The constants of a model of survival.

    scale:    the time that counts as 1
    edges:    (bins,) ends of the intervals of discrete time
    times:    (steps,) rising, at which the cumulative baseline hazard rises to `hazard`
    hazard:   (steps,); without a step the baseline is not known yet, and counts as 1 at every time
    slope:    what a log hazard ratio is multiplied by, so that it is that of cases which did not train
    hazard_factor: what cumulative hazards that need no baseline are multiplied by, so that they are those of a site
    """

    scale: float = 1.0
    edges: tuple[float, ...] = ()
    times: tuple[float, ...] = ()
    hazard: tuple[float, ...] = ()
    slope: float = 1.0
    hazard_factor: float = 1.0


def proportional_hazard(outputs: Numbers, when: Numbers, known: HazardConstants) -> Numbers:
    """(1,) log hazard ratio: the baseline's cumulative hazard times the ratio.

    Cox, J R Stat Soc B 1972, doi:10.1111/j.2517-6161.1972.tb00899.x
    """
    passed = np.searchsorted(np.asarray(known.times), when, side="right")
    baseline = np.array([0.0, *known.hazard])[passed] if known.times else np.ones_like(when)
    return cast("Numbers", np.maximum(baseline, NO_EVENT) * np.exp(np.clip(known.slope * outputs[0], -MOST, MOST)))


def interval_hazard(outputs: Numbers, when: Numbers, known: HazardConstants) -> Numbers:
    """(bins,) logits of the event in each interval for those who reach it; within an interval the hazard is constant.

    Gensheimer and Narasimhan, PeerJ 2019, doi:10.7717/peerj.6257
    """
    hazards = np.logaddexp(0.0, outputs)  # -log(1 - sigmoid)
    return known.hazard_factor * np.asarray(np.interp(when, [0.0, *known.edges], [0.0, *np.cumsum(hazards)]))


def weibull_hazard(outputs: Numbers, when: Numbers, known: HazardConstants) -> Numbers:
    """(log scale, log shape): (time / scale) ** shape, an accelerated failure time.

    Carroll, Control Clin Trials 2003, doi:10.1016/S0197-2456(03)00072-2
    """
    shape = np.exp(np.clip(outputs[1], -MOST, MOST))
    powers = shape * (np.log(np.maximum(when, LEAST)) - np.log(known.scale) - outputs[0])
    return cast("Numbers", known.hazard_factor * np.exp(np.clip(powers, -MOST, MOST)))


@dataclass(frozen=True)
class HazardModel:
    """A model of survival.

    curve:    the network's outputs, times and constants to the cumulative hazard by each time
    outputs:  the meaning of the network's outputs, for these ends of intervals
    relative: risks only compare cases, until a baseline makes probabilities of them
    discrete: an output is the log odds of the event in an interval
    """

    curve: Callable[[Numbers, Numbers, HazardConstants], Numbers]
    outputs: Callable[[Sequence[float]], tuple[str, ...]]
    relative: bool = False
    discrete: bool = False


MODELS: Mapping[str, HazardModel] = {
    "cox": HazardModel(proportional_hazard, lambda edges: ("log hazard ratio",), relative=True),
    "hazards": HazardModel(
        interval_hazard, lambda edges: tuple(f"logit of the event by {edge:g}" for edge in edges), discrete=True
    ),
    "weibull": HazardModel(weibull_hazard, lambda edges: ("log scale", "log shape")),
}


def median_event_time(model: str, outputs: Numbers, known: HazardConstants, last: float) -> float | None:
    """When the chance of the event reaches one half; None where it does not until `last`."""

    def reached(when: float) -> bool:
        """Whether half of such people have had the event by then."""
        return bool(MODELS[model].curve(outputs, np.array([when]), known)[0] >= np.log(2))

    if not reached(last):
        return None
    early = 0.0
    late = last
    for _ in range(HALVINGS):
        middle = (early + late) / 2
        early, late = (early, middle) if reached(middle) else (middle, late)
    return late


def risk_variances(between: ArrayLike) -> Variances:
    """Variances of several views: that of the risk over them is epistemic, and that of chance itself aleatoric.

    Whatever the model, the cumulative hazard at the time of the event has an exponential law: its logarithm, which is
    on the scale of the risk, has a variance of its own. between: (1,)
    """
    epistemic = float(np.sum(np.asarray(between, dtype=np.float64)))
    return {"total": GUMBEL + epistemic, "aleatoric": GUMBEL, "epistemic": epistemic}


def plain_curve(curve: Mapping[str, Sequence[float]] | None) -> dict[str, list[float]] | None:
    """Plain numbers by name, as settings hold a curve; None stays None."""
    return None if curve is None else {str(name): [float(one) for one in values] for name, values in curve.items()}


def partial_likelihood(outputs: Tensor, target: Tensor, known: HazardConstants) -> Tensor:
    """Minus the log partial likelihood an event, ties by Efron: each event against those of the batch still at risk.

    A batch without an event, or of a single case, compares nobody: 0, with a gradient of 0. Each event is compared with
    every case by itself: a running sum would differ between two runs on a GPU.
    Cox, Biometrika 1975, doi:10.1093/biomet/62.2.269; Efron, J Am Stat Assoc 1977, doi:10.1080/01621459.1977.10480613
    """
    ratio = outputs[:, 0]
    time = target[:, 0]
    event = target[:, 1] > 0.5
    if len(ratio) < 2 or not bool(event.any()):
        return 0 * ratio.sum()
    when = time[event][:, None]
    at_risk = (time >= when).to(ratio.dtype)  # who is censored at the time of an event, too
    tied = event & (time == when)
    before = tied[:, event].tril(-1).sum(dim=1) / tied.sum(dim=1)  # the share of those tied that is gone by then
    weights = at_risk - before[:, None] * tied
    return (torch.logsumexp(ratio + weights.log(), dim=1) - ratio[event]).mean()


def interval_likelihood(outputs: Tensor, target: Tensor, known: HazardConstants) -> Tensor:
    """Minus the log likelihood a case of discrete time: no event in each interval survived, the event in its own.

    Who is censored has survived the interval if he was followed for at least half of it.
    Gensheimer and Narasimhan, PeerJ 2019, doi:10.7717/peerj.6257, section "Loss function"
    """
    time = target[:, :1]
    event = target[:, 1:] > 0.5
    ends = outputs.new_tensor(known.edges)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    survived = torch.where(event, time > ends, time >= (starts + ends) / 2)
    ended = event & (time > starts) & (time <= ends)
    softplus = torch.nn.functional.softplus
    cost = survived * softplus(outputs) + ended * softplus(-outputs)
    return cost.sum(dim=1).mean()


def weibull_likelihood(outputs: Tensor, target: Tensor, known: HazardConstants) -> Tensor:
    """Minus the log likelihood a case of (log scale, log shape), with time in units of `known.scale`.

    Carroll, Control Clin Trials 2003, doi:10.1016/S0197-2456(03)00072-2
    """
    # torchsurv's own (the same numbers: a test) refuses a batch in which nobody had the event.
    event = target[:, 1] > 0.5
    log_scale, log_shape = outputs.unbind(dim=1)
    later = torch.log(target[:, 0] / known.scale) - log_scale
    log_hazard = log_shape - log_scale + torch.expm1(log_shape) * later
    return (torch.exp(log_shape.exp() * later) - event * log_hazard).mean()


LOSSES: Mapping[str, Callable[[Tensor, Tensor, HazardConstants], Tensor]] = {
    "cox": partial_likelihood,
    "hazards": interval_likelihood,
    "weibull": weibull_likelihood,
}

# (batch, outputs) to (batch,) a number that rises with the risk.
RISING: Mapping[str, Callable[[Tensor], Tensor]] = {
    "cox": lambda outputs: outputs[:, 0],
    "hazards": lambda outputs: torch.nn.functional.softplus(outputs).sum(dim=1),
    "weibull": lambda outputs: -outputs[:, 0],
}
RISK = ("risk",)


def rising_risk(model: str, outputs: Tensor, target: str | None) -> Tensor:
    """(batch,) a number that rises with the risk, the only target that there is."""
    saliency.place_of_target(target or RISK[0], RISK)
    return RISING[model](outputs)


def log_hazard(model: str, when: float, known: HazardConstants, outputs: Any) -> Any:
    """(batch, 1) risk of (batch, outputs), arrays or tensors, by a time, less what is the same for everybody."""
    library = np if isinstance(outputs, np.ndarray) else torch
    first = outputs[:, :1]
    if model == "cox":
        return known.slope * first
    if model == "weibull":
        return library.exp(outputs[:, 1:]) * (math.log(when / known.scale) - first)
    ends = np.array([0.0, *known.edges])
    passed = np.clip((when - ends[:-1]) / np.diff(ends), 0, 1)  # of each interval
    log_hazards = outputs.clip(0) + library.log(1 + library.exp(-abs(outputs)))
    return library.log(sum(float(share) * log_hazards[:, place : place + 1] for place, share in enumerate(passed)))
