"""Figures, self-contained reports and the slice viewer: strings and bytes made from values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.report import display, figures, page_blocks, progress_tracking, slice_viewer, wording
    from hilum.report.page_blocks import Block, Details, Figure, Paragraph, ReportPage, Section, Table
    from hilum.report.wording import InNotebook

lazy_index(__name__)
