"""Linear models of covariates, the measure for what images add."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.training.linear.covariate_model import CovariateModel, fit_covariate_model

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
