"""The metric that selects the weights of several tasks: the mean of theirs, each of the cases that it is known of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from isocenter.lazy import torch
from isocenter.tasks.properties import own_outputs
from isocenter.tasks.settings import DOT
from isocenter.values import KNOWN

if TYPE_CHECKING:
    from torch import Tensor

    from isocenter.tasks.task import Outputs, Task


def quality(parts: Mapping[str, Task], outputs: Outputs, target: Any) -> dict[str, Tensor]:
    """The numbers of the parts that these are outputs of, and whose reference the cases have; `KNOWN` marks these.

    Who collects the numbers of all cases may put anything in place of those that a case lacks, with 0 for the mark.
    """
    made: dict[str, Tensor] = {}
    for name, part in parts.items():
        if name in target and (own := own_outputs(name, part, outputs)):
            numbers = part.quality(own, target[name])
            numbers = {**numbers, KNOWN: torch.ones(len(next(iter(numbers.values()))))}
            made |= {f"{name}{DOT}{key}": value for key, value in numbers.items()}
    return made


def selection(parts: Mapping[str, Task], collected: Mapping[str, Tensor]) -> float:
    """The mean of the metrics by which the parts are selected, of those that some case has a reference of."""
    metrics = []
    for name, part in parts.items():
        start = f"{name}{DOT}"
        own = {key.removeprefix(start): one for key, one in collected.items() if key.startswith(start)}
        if not own:
            continue
        known = own.pop(KNOWN) > 0
        if known.any():
            metrics.append(part.selection({key: one[known] for key, one in own.items()}))
    known_metrics = [metric for metric in metrics if not np.isnan(metric)]
    return float(np.mean(known_metrics)) if known_metrics else float("nan")
