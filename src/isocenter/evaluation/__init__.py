"""Figures of a model's quality, each with its confidence interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.evaluation.binned_errors import (
        BY_MASS,
        BY_WIDTH,
        LARGEST_GAP,
        BinnedError,
        Gaps,
        calibration_error,
        estimate_of,
    )
    from isocenter.evaluation.biomarkers import (
        Change,
        Diameters,
        Repeatability,
        diagonal,
        diameters,
        ejection_fraction,
        peak_reach,
        repeatability,
        suv_peak,
    )
    from isocenter.evaluation.bootstrap_t import of_differences
    from isocenter.evaluation.calibration import (
        adaptive_calibration_error,
        ece_of_equal_mass,
        equal_mass,
        places_of_equal_mass,
        remaining_temperature,
        slope_and_intercept,
    )
    from isocenter.evaluation.calibration_fit import USUAL_SPREAD, Choice, Unseen, chosen_calibrator, fitted_calibrator
    from isocenter.evaluation.calibrators import (
        METHODS,
        SIZE,
        Calibrator,
        Scale,
        columns_of,
        from_odds,
        normalised,
        odds_of,
    )
    from isocenter.evaluation.centrelines import Centreline, betti, centreline, skeleton
    from isocenter.evaluation.classification import (
        BINS,
        EQUAL_WIDTH,
        Confusion,
        auroc,
        average_precision,
        brier,
        ece,
        largest_calibration_error,
        log_loss,
        one_against_rest,
        place_in_bins,
        precision_recall_curve,
        predictive_values,
        reliability,
        roc_band,
        roc_curve,
    )
    from isocenter.evaluation.conformal import (
        EVERYONE,
        FEWEST_OF_GROUP,
        NEVER_EMPTY,
        SET_METHODS,
        Conformal,
        cases_to_answer,
        class_scores,
        conformal_threshold,
        controlled_on_average,
        controlled_with_confidence,
        controls,
        fewest_controlling,
        fewest_of_group,
        least_sureness,
        mondrian_thresholds,
        ordered_ends,
        prediction_sets,
        quantile_scores,
        shares_of,
        time_scores,
        value_scores,
        widest,
    )
    from isocenter.evaluation.cross_conformal import (
        cross_bound,
        cross_interval,
        cross_lower_bound,
        cross_sets,
        cross_steps,
        people_of,
    )
    from isocenter.evaluation.decomposition import brier_estimates, brier_parts
    from isocenter.evaluation.detection import Froc, Matches, box_hits, box_iou, box_sizes
    from isocenter.evaluation.distance import Surface, SurfaceDistance, elements, surface_distance
    from isocenter.evaluation.fairness import (
        FEW,
        NONE,
        OTHERS,
        UNKNOWN,
        Alike,
        Balance,
        Dealt,
        Gap,
        Patients,
        Shifted,
        abstention_gap,
        adjusted_gaps,
        can_be_dealt,
        classes_of,
        covariates_by_name,
        dealt,
        default_groups,
        encoded,
        few_in,
        gap_of_estimates,
        gap_of_recipe,
        group_shift,
        groups_of,
        in_order,
        matched,
        neighbour_gap,
        propensity,
        rate_gaps,
        shift_words,
        standardised_difference,
    )
    from isocenter.evaluation.instances import InstanceOverlap, instance_overlap
    from isocenter.evaluation.intervals import (
        IntervalScale,
        Resampling,
        Seed,
        at_once,
        bootstrap,
        bootstrap_statistic,
        clopper_pearson,
        difference,
        median,
        proportion,
        rarest,
        reweighted,
        tail_of,
        weightings,
        wilson,
    )
    from isocenter.evaluation.label_errors import probable_label_errors
    from isocenter.evaluation.mask_overlap import (
        Overlap,
        confusion,
        dice,
        iou,
        overlap,
        overlaps,
        place_of,
        volume_unit,
    )
    from isocenter.evaluation.ordinal import grade_distances, least_cost, ranked_probability_score, weighted_kappa
    from isocenter.evaluation.paired import Compared, aligned, compared
    from isocenter.evaluation.regression import (
        absolute_agreement,
        bias,
        concordance,
        gaussian_nll,
        is_covered,
        limits_of_agreement,
        mean_absolute_error,
        pearson,
        r2,
        root_mean_squared_error,
        spearman,
    )
    from isocenter.evaluation.significance import (
        FITTING,
        OF_RANKS,
        CaseValues,
        DecisionCurve,
        Test,
        WeakGroup,
        area_covariance,
        benefit_parts,
        benjamini_hochberg,
        bootstrap_ranks,
        case_test,
        clusters,
        column_values,
        decision_curve,
        delong,
        delong_unpaired,
        equivalence,
        fitting_tests,
        holm,
        hosmer_lemeshow,
        icc,
        margin_interval,
        mcnemar,
        mrmc,
        net_benefit,
        non_inferiority,
        paired_bootstrap,
        permutation,
        reason_against_margins,
        refuse_impossible_margin,
        weak_groups,
        wilcoxon,
    )
    from isocenter.evaluation.summary import mean_rows, pooled_rows
    from isocenter.evaluation.survival import (
        Steps,
        at_risk,
        brier_errors,
        calibration_slope,
        censoring,
        censoring_weights,
        d_calibration,
        dynamic_auc,
        expected_over_observed,
        harrell_c,
        integrated,
        kaplan_meier,
        kaplan_meier_band,
        logrank,
        uno_c,
    )
    from isocenter.evaluation.table import (
        ALL,
        COVARIATE,
        FOLD,
        PROBABILITY,
        SUMMARY_SCHEMA,
        THRESHOLD,
        UNCALIBRATED,
        Table,
        case_table,
        check_table,
        class_names,
        covariate_columns,
        figure_label,
        folds_of,
        metric_columns,
        read_cases,
        resampling,
        rows_from_json,
        rows_from_records,
        rows_to_json,
        threshold_columns,
        without_part,
    )
    from isocenter.evaluation.two_samples import TwoSamples, energy_test, one_of_each, two_sample_tests
    from isocenter.evaluation.uncertainty import aurc, entropy, excess_aurc, risk_coverage

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
