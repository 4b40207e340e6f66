"""One training step: its loss, its arithmetic, the optimiser and the average of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.training.step.batch_statistics import measure_batch_statistics, normalises_over_batch
    from isocenter.training.step.compute import EAGER, Compute
    from isocenter.training.step.exact_convolutions import with_exact_gradients
    from isocenter.training.step.loss import batch_loss, bit_by_bit, each_array, supervised
    from isocenter.training.step.optimisers import Average, Terms, laid_as_weights, make_optimiser, terms_of
    from isocenter.training.step.train_step import Learner

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
