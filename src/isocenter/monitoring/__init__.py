"""Monitoring of a model in use: watches with a stated rate of false alarms, and performance with and without labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.monitoring.alert import (
        Alert,
        Bound,
        BoundState,
        alert_table,
        alerts,
        bound_name,
        bound_states,
        reported_words,
    )
    from isocenter.monitoring.change import (
        ALLOWED,
        CHANGE_RECORD,
        CHANGE_SCHEMA,
        OUTSIDE,
        Answer,
        ChangeRow,
        answers,
        by_kind,
        changed_parts,
        fired,
        judged,
        part_rows,
        verdict_of_change,
    )
    from isocenter.monitoring.change_plan import (
        APPROVED,
        AT_LEAST,
        CHANGE_PLAN,
        CURRENT,
        LEDGER,
        Acceptance,
        ChangePlan,
        is_noted,
        ledger_of,
        machine_ledger,
        note_check,
        read_change_plan,
        refuse_change_plan,
        take_look,
    )
    from isocenter.monitoring.drift import Drift, Miscalibration, drift_table, drifts, miscalibration, recalibrated
    from isocenter.monitoring.labelling import METHODS, RANDOM, Doubted, Next, doubted_labels, next_cases, worse_labels
    from isocenter.monitoring.performance import (
        AUDITED,
        RATES,
        REPORTED,
        Performance,
        audited_performance,
        expected_performance,
        parts_of_rate,
        performance_table,
        performances,
    )
    from isocenter.monitoring.sequence import confidence_sequence, followed_difference, followed_mean, followed_ratio
    from isocenter.monitoring.site import (
        SiteTest,
        adjusted,
        site_table,
        site_verdict,
        tests_of_features,
        tests_of_table,
    )
    from isocenter.monitoring.stream import Stream, text_table, watch_notes
    from isocenter.monitoring.watches import FEWEST, Watch, watch, watch_calibration

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
