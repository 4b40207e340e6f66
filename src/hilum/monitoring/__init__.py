"""Monitoring of a model in use: watches with a stated rate of false alarms, and performance with and without labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.monitoring import (
        acceptance_plan,
        alerting,
        case_stream,
        change_plan,
        change_rules,
        confidence_sequences,
        drift_detection,
        e_detectors,
        labelling,
        monitoring_record,
        performance_figures,
        site_tests,
    )

lazy_index(__name__)
