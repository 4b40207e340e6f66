"""Records of a node: studies, jobs, answers and deliveries in one database, SQLite or PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.service.records.database import Clock, Database, RecordError, only_keeper, opened
    from isocenter.service.records.index import Arrival, Index
    from isocenter.service.records.jobs import (
        ABSTAINED,
        FAILED,
        NOTHING,
        OPEN,
        REFUSED,
        RESULT,
        Answer,
        Job,
        Jobs,
        Outcome,
        Wanted,
        job_key,
    )
    from isocenter.service.records.migration import migrated
    from isocenter.service.records.outbox import Delivery, Outbox

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
