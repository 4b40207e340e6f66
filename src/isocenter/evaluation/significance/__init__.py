"""Tests of differences between models: areas, calls, means, readers, margins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.evaluation.significance.areas import area_covariance, delong, delong_unpaired, mrmc
    from isocenter.evaluation.significance.case_values import (
        FITTING,
        CaseValues,
        case_test,
        column_values,
        fitting_tests,
    )
    from isocenter.evaluation.significance.margins import (
        equivalence,
        margin_interval,
        non_inferiority,
        reason_against_margins,
        refuse_impossible_margin,
    )
    from isocenter.evaluation.significance.outcome import Test, benjamini_hochberg, holm
    from isocenter.evaluation.significance.paired_tests import (
        OF_RANKS,
        bootstrap_ranks,
        mcnemar,
        paired_bootstrap,
        permutation,
        wilcoxon,
    )
    from isocenter.evaluation.significance.probabilities import (
        DecisionCurve,
        benefit_parts,
        decision_curve,
        hosmer_lemeshow,
        net_benefit,
    )
    from isocenter.evaluation.significance.raters import icc
    from isocenter.evaluation.significance.weakness import WeakGroup, clusters, weak_groups

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
