"""Tests of models that were scored on the same cases: rows with verdicts, margins, readers, ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.verbs.comparing.report import caveats_of_tests, rank_blocks, sentences_of_tests, table_of_tests
    from isocenter.verbs.comparing.rows import (
        CORRECTIONS,
        TESTS,
        ComparisonOptions,
        rows_with_tests,
        significance_of,
        verdicts,
    )

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
