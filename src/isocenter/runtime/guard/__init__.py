"""The gate: whether an image is of the kind that trained the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.runtime.guard.answering import Answering, strictest
    from isocenter.runtime.guard.fitting import MOST_TRAINED, fitted_guard, refitted, tail_note
    from isocenter.runtime.guard.guard import Guard
    from isocenter.runtime.guard.observation import Observation, Watching
    from isocenter.runtime.guard.watched import Watched, observed, with_features, with_guard

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
