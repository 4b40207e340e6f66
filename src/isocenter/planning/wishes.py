"""The wishes of a person, before there is a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from isocenter.values import Decision


@dataclass(frozen=True, eq=False)
class Wishes:
    """The wishes of a person; the rules choose whatever is None.

    device:   on which to train, and why
    minutes:  for all trainings; None where the steps decide
    folds:    of a cross-validation; 0 for one test part
    network:  the family to choose a size for
    head:     of a network that learns without references, as in `Task`
    terms:    the objectives that training lowers
    context:  covariates for the network: names, or "all"
    modality_dropout: how often training leaves out an image of a case
    spacing:  of the grid that the network sees, in mm
    reduction: by which factor that grid is coarser than images are
    configurations: which are compared by folds, as in `Search`; None where none are
    """

    device: Decision
    minutes: float | None = None
    seed: int = 0
    folds: int = 0
    task: str | None = None
    network: str | None = None
    head: str | None = None
    terms: Sequence[str] | None = None
    context: Any = None
    modality_dropout: float | None = None
    spacing: Sequence[float] | None = None
    reduction: float | None = None
    configurations: str | None = None
