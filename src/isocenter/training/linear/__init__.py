"""Linear models of covariates alone, the measure for what images add."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.training.linear.covariate_model import Alone, covariates_alone

__all__ = [
    "Alone",
    "covariates_alone",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
