"""Training data: cases prepared and stored, sampled, loaded, and targets by kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.training.data.joint_targets import kind_of_all
    from isocenter.training.data.loader import Batch, Loader, stacked_arrays
    from isocenter.training.data.protected import ADVERSARIAL, ADVERSARY, CONSTRAINT, GroupLoss, Protected
    from isocenter.training.data.sampling import BY_LOSS, Costs
    from isocenter.training.data.store import Prepared, keep_marked, prepare_all
    from isocenter.training.data.targets import Drawn, kind_for, moved

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
