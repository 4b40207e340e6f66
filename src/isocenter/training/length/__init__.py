"""The length of a training: steps from minutes, measured by a probe, and the schedule that follows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.training.length.fewer_features import NARROWER, narrower
    from isocenter.training.length.probe import FEWER, PROBE_CASES, Budget, Probe, Probed, budget
    from isocenter.training.length.schedule import (
        FEWEST_STEPS,
        Pace,
        Speed,
        cycles_over,
        decay,
        moments_over,
        most_steps,
        rate,
        replan,
    )

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
