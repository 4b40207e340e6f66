"""Documents from records: reporting guidelines, cards and technical files, each value with the place where it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.documents import (
        checks,
        document_pages,
        fact_file,
        guidelines,
        page_printing,
        reporting_days,
        subjects,
        tracing,
        word_file,
    )

lazy_index(__name__)
