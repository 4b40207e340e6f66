"""The work of a node: jobs claimed, models kept warm, answers written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.service.work.answer import Inputs, answered
    from isocenter.service.work.warm_models import WarmModels, model_facts
    from isocenter.service.work.worker import DRAIN_S, Worker

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
