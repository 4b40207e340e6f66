"""Figures, self-contained reports and the slice viewer: strings and bytes made from values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.report import display, figures, page_blocks, progress_tracking, slice_viewer, wording
    from isocenter.report.page_blocks import Block, Details, Figure, Paragraph, ReportPage, Section, Table
    from isocenter.report.wording import InNotebook

lazy_index(__name__)
