"""Objects on disk: received whole or not at all, named by hashes, written down for the keeper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.service.objects.aside import Aside, exchange, read_asides, set_aside
    from isocenter.service.objects.journal import forget_journals, read_journals
    from isocenter.service.objects.received import CommitmentReport, CommitmentRequest, Line, Received, Way
    from isocenter.service.objects.reply import Reply
    from isocenter.service.objects.store import (
        ObjectStore,
        OutOfSpaceError,
        Part,
        Sync,
        files_without_row,
        key_of,
        secure,
    )

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
