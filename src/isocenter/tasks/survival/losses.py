"""Losses of times to an event, of (batch, outputs) and (batch, 2) time and event, one function a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from isocenter.lazy import torch
from isocenter.tasks.shared import place_of_target
from isocenter.tasks.survival.curves import Known

if TYPE_CHECKING:
    from torch import Tensor


def partial_likelihood(outputs: Tensor, target: Tensor, known: Known) -> Tensor:
    """Minus the log partial likelihood an event, ties by Efron: each event against those of the batch still at risk.

    A batch without an event, or of a single case, compares nobody: 0, with a gradient of 0. Each event is compared with
    every case by itself: a running sum would differ between two runs on a GPU.
    Cox, Biometrika 1975, doi:10.1093/biomet/62.2.269; Efron, J Am Stat Assoc 1977, doi:10.1080/01621459.1977.10480613
    """
    ratio, time, event = outputs[:, 0], target[:, 0], target[:, 1] > 0.5
    if len(ratio) < 2 or not bool(event.any()):
        return 0 * ratio.sum()
    when = time[event][:, None]
    at_risk = (time >= when).to(ratio.dtype)  # who is censored at the time of an event, too
    tied = event & (time == when)
    before = tied[:, event].tril(-1).sum(dim=1) / tied.sum(dim=1)  # the share of those tied that is gone by then
    weights = at_risk - before[:, None] * tied
    return (torch.logsumexp(ratio + weights.log(), dim=1) - ratio[event]).mean()


def in_intervals(outputs: Tensor, target: Tensor, known: Known) -> Tensor:
    """Minus the log likelihood a case of discrete time: no event in each interval survived, the event in its own.

    Who is censored has survived the interval if he was followed for at least half of it.
    Gensheimer and Narasimhan, PeerJ 2019, doi:10.7717/peerj.6257, section "Loss function"
    """
    time, event = target[:, :1], target[:, 1:] > 0.5
    ends = outputs.new_tensor(known.edges)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    survived = torch.where(event, time > ends, time >= (starts + ends) / 2)
    ended = event & (time > starts) & (time <= ends)
    softplus = torch.nn.functional.softplus
    cost = survived * softplus(outputs) + ended * softplus(-outputs)
    return cost.sum(dim=1).mean()


def weibull(outputs: Tensor, target: Tensor, known: Known) -> Tensor:
    """Minus the log likelihood a case of (log scale, log shape), with time in units of `known.scale`.

    Carroll, Control Clin Trials 2003, doi:10.1016/S0197-2456(03)00072-2
    """
    # torchsurv's own (the same numbers: a test) refuses a batch in which nobody had the event.
    event, (log_scale, log_shape) = target[:, 1] > 0.5, outputs.unbind(dim=1)
    later = torch.log(target[:, 0] / known.scale) - log_scale
    log_hazard = log_shape - log_scale + torch.expm1(log_shape) * later
    return (torch.exp(log_shape.exp() * later) - event * log_hazard).mean()


LOSSES: Mapping[str, Callable[[Tensor, Tensor, Known], Tensor]] = {
    "cox": partial_likelihood,
    "hazards": in_intervals,
    "weibull": weibull,
}

# (batch, outputs) to (batch,) a number that rises with the risk.
RISING: Mapping[str, Callable[[Tensor], Tensor]] = {
    "cox": lambda outputs: outputs[:, 0],
    "hazards": lambda outputs: torch.nn.functional.softplus(outputs).sum(dim=1),
    "weibull": lambda outputs: -outputs[:, 0],
}
RISK = ("risk",)


def rising(model: str, outputs: Tensor, target: str | None) -> Tensor:
    """(batch,) a number that rises with the risk, the only target that there is."""
    place_of_target(target or RISK[0], RISK)
    return RISING[model](outputs)


def log_hazard(model: str, when: float, known: Known, outputs: Any) -> Any:
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
