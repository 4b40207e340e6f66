"""Parts of several kinds of problem: losses, label handling, operating points, averages, common metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.tasks.shared.averages import BETWEEN, EACH, ENDS, OUTPUT, WITHIN, Shares, each_of, log_mean, mean_of
    from isocenter.tasks.shared.binary_scores import (
        Called,
        called_values,
        discrimination,
        label_rows,
        noted,
        pooled_note,
    )
    from isocenter.tasks.shared.grid_and_length import COARSEST, MOST_EPOCHS, axes_of, coarser, one_answer_length
    from isocenter.tasks.shared.label_maps import (
        label_values,
        labels_from,
        own_values,
        places_of,
        plain_labels,
        plain_name,
        refuse_other_grid,
        refuse_other_image_grid,
        renumbered,
    )
    from isocenter.tasks.shared.left_right import (
        STATE_SIDES,
        crossed,
        have_sides,
        numbered_teeth,
        sided_names,
        unknown_sides,
    )
    from isocenter.tasks.shared.losses import SMOOTH, TERMS, check_loss, label_loss, uncut
    from isocenter.tasks.shared.measurements import (
        Compared,
        Measured,
        agreement_figure,
        agreement_rows,
        compared_estimate,
        drawn_as,
    )
    from isocenter.tasks.shared.saliency import highest, of_one, of_structure, place_of_target
    from isocenter.tasks.shared.structure_findings import (
        MEASURES,
        Ratio,
        measured_findings,
        measured_names,
        ratios_from,
    )

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
