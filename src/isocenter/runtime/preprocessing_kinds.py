"""The kinds of preprocessing that a model's record may name: Isocenter's own, and that of nnU-Net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isocenter.errors import PlanError
from isocenter.runtime.foreign import KIND, NNUNetPreprocessing
from isocenter.runtime.preprocessing import Prepares, Preprocessing


def preprocessing_of(settings: Mapping[str, Any]) -> Prepares:
    """From a model's record; PlanError for a kind that is not known here."""
    kind = settings.get("kind")
    if kind not in (None, KIND):
        raise PlanError(f"there is no preprocessing of the kind {kind!r}", "preprocessing", "Update isocenter")
    return Preprocessing.of(settings) if kind is None else NNUNetPreprocessing.of(settings)
