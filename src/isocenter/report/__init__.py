"""Figures, self-contained reports and the slice viewer: strings and bytes made from values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.report import figures
    from isocenter.report.blocks import (
        Block,
        ByLabel,
        Decisions,
        Details,
        Estimates,
        Facts,
        Gallery,
        Link,
        Page,
        Paragraph,
        Problems,
        Section,
        Table,
        render,
    )
    from isocenter.report.display import (
        automatic_window,
        colours,
        header_window,
        in_greys_of,
        in_window,
        is_colour,
        measurements,
        planes,
        share_at_one_end,
        upright,
        window,
    )
    from isocenter.report.figures import Figure
    from isocenter.report.progress import Tracker, tracked
    from isocenter.report.slice_viewer import WINDOWS, box_edges, overlay, viewer, viewer_files
    from isocenter.report.words import (
        InNotebook,
        aligned,
        count_text,
        decimals,
        in_words,
        interval_text,
        label_name,
        method_text,
        number,
        p_text,
        row_name,
        selecting_name,
        sentence,
        setting_text,
        share_text,
        value_text,
    )

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
