"""Whether a training was long enough, as its log shows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from isocenter.errors import counted
from isocenter.lazy import pandas as pd

OWN_COLUMNS = ("step", "seconds", "loss", "learning_rate")
# nnU-Net calls so many steps one epoch, and trains for a thousand of them: doi:10.1038/s41592-020-01008-z
FEW_STEPS = 250
# The last part of a training, and the share of all that was gained that must not fall into it.
LAST, GAINED = 0.25, 0.05
# Of fewer validations no course can be read.
FEWEST_VALIDATIONS = 4


def training_length(log: pd.DataFrame, metric: str = "metric") -> tuple[str, ...]:
    """Sentences on the length of a training: few steps, still improving, never improving, or levelled off.

    log:    a row a step; `validation`, or a column for each fold, is blank where nothing was measured, more is better
    metric: that was measured, in words
    """
    return tuple(_sentences(log, metric.removeprefix("the ")))


def _sentences(log: pd.DataFrame, metric: str) -> Iterator[str]:
    steps = int(log["step"].max())
    if steps < FEW_STEPS:
        yield f"Trained for only {counted(steps, 'step')}: hardly any network has learnt all it can by then."
    for name in _courses(log):
        known = log.dropna(subset=[name])
        where = f"Validation {metric}" if name == "validation" else f"Validation {metric} of {name}"
        # Folds have as many steps as their minutes held.
        own = log["step"][log[f"{name} loss"].notna()].max() if f"{name} loss" in log else steps
        sentence = _course(known["step"].to_numpy(float), known[name].to_numpy(float), int(own))
        yield f"{where} {sentence}"
    if not _courses(log):
        yield "Nothing was validated while it trained, so its length cannot be judged."


def _courses(log: pd.DataFrame) -> list[str]:
    names = [str(name) for name in log.columns if name not in OWN_COLUMNS and not str(name).endswith("loss")]
    return [name for name in names if log[name].notna().any()]


def _course(steps: np.ndarray, values: np.ndarray, last: int) -> str:
    """What a metric did over the steps at which it was measured."""
    if len(values) < FEWEST_VALIDATIONS:
        often = "once" if len(values) == 1 else f"{len(values)} times"
        return f"was measured only {often}: too seldom to see whether it still rose."
    if np.ptp(values) == 0:
        return f"was {values[0]:.3f} at every measurement."
    best, first = float(values.max()), float(values[0])
    at = int(steps[int(values.argmax())])
    if best <= first:
        return f"was highest, {best:.3f}, when it was first measured, at step {at}: more steps gained nothing."
    before = values[steps <= (1 - LAST) * last]
    earlier = float(before.max()) if len(before) else first
    if best - earlier > GAINED * (best - first):
        return f"was still improving in the last quarter of the {last} steps: longer training may help."
    advice = "" if last < FEW_STEPS else ": longer training promises little"
    return f"was best at step {at} of {last} and gained little in the last quarter{advice}."
