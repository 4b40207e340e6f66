"""Scores of cases with their parts, groups, tests of the model and lineage: what `evaluation/` in a run holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.scoring.answered import ANSWERED, Fold, case_errors, gate_of, write_gate
    from isocenter.scoring.auditing.audits import audited
    from isocenter.scoring.auditing.between_groups import image_shift
    from isocenter.scoring.auditing.decisions import refuse_no_outcome
    from isocenter.scoring.auditing.explained import explanations
    from isocenter.scoring.auditing.groups import OF_GROUPS, with_table
    from isocenter.scoring.auditing.options import AuditOptions
    from isocenter.scoring.auditing.representation import represented
    from isocenter.scoring.case_selection import Choice, choice, of_the_same_name, who_trained
    from isocenter.scoring.comparison import (
        MRMC,
        OF_MARGINS,
        READERS,
        UNRELIABLE,
        Comparison,
        Margin,
        ModelTest,
        Ranked,
        ReadingEffect,
        Standing,
        Tested,
        comparable,
        compare_tables,
        comparison_caveats,
        comparison_lead,
        comparison_table,
        evaluated_cases,
        evaluation_folder,
        folder_names,
        interval_of_difference,
        kinship,
        primary_blocks,
        signed,
        signed_number,
        task_of,
        telling_rows,
    )
    from isocenter.scoring.data_record import (
        DATA_RECORD,
        DataRecord,
        Lineage,
        copy_data_record,
        hashes_by_case,
        lineage_notes,
        lineage_of,
        named_as_in_run,
        read_data_record,
        write_data_record,
    )
    from isocenter.scoring.evaluation_notes import (
        assumed_positive,
        own_labels,
        own_results,
        positive_words,
        stop_note,
        undrawn_notes,
        unshared,
        with_positive,
    )
    from isocenter.scoring.explaining.cohort import (
        COLUMNS,
        Explainer,
        Looked,
        Made,
        cohort_findings,
        each_case,
        with_references,
        with_tests,
    )
    from isocenter.scoring.explaining.concepts import Cohort, concepts_of, refuse_clips, refuse_concepts
    from isocenter.scoring.explaining.counterfactuals import counterfactuals_of, kinds_of_maps, with_gradients
    from isocenter.scoring.explaining.kept_tests import AnswerMaps, kept_content
    from isocenter.scoring.explaining.report import explanation_page, findings_sentence, verdict_sentence
    from isocenter.scoring.image_subsets import Subsets, with_subsets
    from isocenter.scoring.scores import (
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
        Audit,
        Audited,
        Outcomes,
        Predictor,
        Scored,
        measured_here,
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
    from isocenter.scoring.verdict import Gain, Verdict, boundless, gains_of, headline_rows, verdict_of

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
