"""Evaluation for all verbs: case selection, scoring, the record of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.verbs.evaluation.answered import ANSWERED, case_errors, case_failures
    from isocenter.verbs.evaluation.audited import Audited
    from isocenter.verbs.evaluation.case_selection import SPLITS, Choice, choice, of_the_same_name, who_trained
    from isocenter.verbs.evaluation.comparison import (
        Comparison,
        comparable,
        compare_tables,
        comparison_caveats,
        comparison_lead,
        comparison_table,
        evaluated_cases,
        evaluation_folder,
        folder_names,
        interval_of_difference,
        primary_blocks,
        signed,
        signed_number,
        task_of,
        telling_rows,
    )
    from isocenter.verbs.evaluation.data_record import (
        DATA_RECORD,
        DataRecord,
        copy_data_record,
        hashes_by_case,
        named_as_in_run,
        read_data_record,
        write_data_record,
    )
    from isocenter.verbs.evaluation.evaluation_notes import own_labels, own_results, stop_note, undrawn_notes, unshared
    from isocenter.verbs.evaluation.fold import Fold, gate_of, write_gate
    from isocenter.verbs.evaluation.image_subsets import Subsets, with_subsets
    from isocenter.verbs.evaluation.lineage import Lineage, lineage_notes, lineage_of
    from isocenter.verbs.evaluation.model_tests import (
        MRMC,
        OF_MARGINS,
        READERS,
        UNRELIABLE,
        Margin,
        ModelTest,
        Ranked,
        Standing,
        Tested,
    )
    from isocenter.verbs.evaluation.positive_class import assumed_positive, positive_words, with_positive
    from isocenter.verbs.evaluation.scoring import (
        CASES,
        EVALUATION,
        MOST_KEPT,
        OUT_OF_FOLD,
        PRIMARY,
        REGISTERED_MARGIN,
        SHOWN,
        SUMMARY,
        TASK,
        WRONG,
        Outcomes,
        Predictor,
        Scored,
        by_case,
        covariates_of,
        measured_there,
        rows_of,
        score,
        split_table,
        summed_up,
        view_name,
        write_task,
        write_verdict,
        wrong_calls,
    )
    from isocenter.verbs.evaluation.verdict import (
        Gain,
        Verdict,
        boundless,
        gains_of,
        headline_rows,
        verdict_of,
    )

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
