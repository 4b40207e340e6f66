"""Parts of several kinds of problem: losses, label handling, operating points, averages, common metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.tasks.shared.assurance import (
        COVERING_SENTENCES,
        COVERS_FROM,
        FALSE,
        HIGH,
        LOW,
        MISSED,
        OF_SETS,
        SET,
        SET_ERRORS,
        SET_NAMES,
        SET_SENTENCES,
        Found,
        assured_classes,
        assured_covering,
        assured_each,
        covering_decisions,
        covering_rows,
        crossed_classes,
        crossed_each,
        interval_decisions,
        interval_rows,
        set_decisions,
        set_rows,
    )
    from isocenter.tasks.shared.averages import BETWEEN, EACH, ENDS, OUTPUT, WITHIN, Shares, each_of, mean_of
    from isocenter.tasks.shared.binary_scores import PROBABILITY_NAMES, Called, called_values, label_rows, noted
    from isocenter.tasks.shared.calibration import (
        CERTAINTY_SENTENCES,
        FOUND,
        LEAST_CHANCE,
        calibrated,
        certainty_decisions,
        log_odds,
        spread_of_many,
        suited_certainty,
    )
    from isocenter.tasks.shared.calibration_scores import (
        BEFORE,
        BELIEF,
        CHANGED,
        OF_CALIBRATION,
        binary_calibration_rows,
        calibration_rows,
        of_before,
        rows_of_many,
        slope_rows,
        stated_chance,
    )
    from isocenter.tasks.shared.certainty import (
        ABSENT,
        BY_PRESENCE,
        CERTAINTY,
        COVERING,
        INTERVALS,
        METHODS_OF_MANY,
        PRESENT,
        SETS,
        USUAL_RISK,
        Certainty,
        finite,
        groups_of_finding,
        in_json,
        probabilities_of,
    )
    from isocenter.tasks.shared.discrimination_figures import discrimination, pooled_note
    from isocenter.tasks.shared.doubt import BY_EPISTEMIC, DOUBT_ERRORS, DOUBT_NAMES, OF_DOUBT, Doubted, doubt_rows
    from isocenter.tasks.shared.evidence import evidential
    from isocenter.tasks.shared.fineness import COARSEST, axes_of, coarser
    from isocenter.tasks.shared.group_thresholds import (
        BY_GROUP,
        GROUPED,
        GROUPED_SENTENCES,
        GroupThresholds,
        grouped_decisions,
        tuned_by_group,
    )
    from isocenter.tasks.shared.label_maps import (
        label_from,
        label_values,
        own_values,
        place_of,
        places_of,
        plain,
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
    from isocenter.tasks.shared.loss_terms import SMOOTH
    from isocenter.tasks.shared.losses import TERMS, check_loss, label_loss, uncut
    from isocenter.tasks.shared.measurements import (
        AGREEMENT,
        SCALES,
        Compared,
        Measured,
        agreement_figure,
        agreement_rows,
        compared_estimate,
        drawn_as,
    )
    from isocenter.tasks.shared.one_answer import MOST_EPOCHS, one_answer_length
    from isocenter.tasks.shared.operating_point import (
        CALLING,
        CALLING_SENTENCES,
        FEWEST_UNSEEN,
        NOBODY,
        NOT_KEPT,
        UNKEPT,
        OperatingPoint,
        calling_decisions,
        calling_of,
        check_numbers,
        chosen_thresholds,
        level_between,
        levels_in_words,
        unkept_rule,
    )
    from isocenter.tasks.shared.saliency import highest, of_one, of_structure, place_of_target
    from isocenter.tasks.shared.settings import SETTING_SENTENCES, numbers_by_name, reading
    from isocenter.tasks.shared.sigmoid_labels import sigmoid, written
    from isocenter.tasks.shared.softmax_labels import Tidying, log_mean, softmax, tidied

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
