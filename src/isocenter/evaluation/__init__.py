"""Figures of a model's quality, each with its confidence interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
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
    from isocenter.evaluation.calibration import (
        BY_MASS,
        BY_WIDTH,
        LARGEST_GAP,
        BinnedError,
        Gaps,
        brier_estimates,
        brier_parts,
        calibration_error,
        ece_of_equal_mass,
        equal_mass,
        estimate_of,
        places_of_equal_mass,
        remaining_temperature,
        slope_and_intercept,
    )
    from isocenter.evaluation.calibration_fit import (
        METHODS,
        SIZE,
        USUAL_SPREAD,
        Calibrator,
        Choice,
        Scale,
        Unseen,
        chosen_calibrator,
        columns_of,
        fitted_calibrator,
        from_odds,
        normalised,
        odds_of,
    )
    from isocenter.evaluation.centrelines import CENTRELINE_METRICS, Centreline, betti, centreline, skeleton
    from isocenter.evaluation.classification import (
        BINS,
        BRIER,
        CLASS_METRICS,
        EQUAL_WIDTH,
        GRADE_METRICS,
        LABEL_METRICS,
        Confusion,
        auroc,
        average_precision,
        brier,
        ece,
        grade_distances,
        largest_calibration_error,
        least_cost,
        log_loss,
        one_against_rest,
        place_in_bins,
        predictive_values,
        ranked_probability_score,
        reliability,
        roc_band,
        roc_curve,
        weighted_kappa,
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
        cross_bound,
        cross_interval,
        cross_lower_bound,
        cross_sets,
        cross_steps,
        fewest_controlling,
        fewest_of_group,
        least_sureness,
        mondrian_thresholds,
        ordered_ends,
        people_of,
        prediction_sets,
        quantile_scores,
        shares_of,
        time_scores,
        value_scores,
        widest,
    )
    from isocenter.evaluation.detection import Froc, Matches, box_hits, box_iou, box_sizes
    from isocenter.evaluation.distance import SURFACE_METRICS, Surface, SurfaceDistance, elements, surface_distance
    from isocenter.evaluation.fairness.attributes import (
        NONE,
        UNKNOWN,
        covariates_by_name,
        default_groups,
        groups_of,
        in_order,
    )
    from isocenter.evaluation.fairness.gaps import (
        FEW,
        Alike,
        Dealt,
        Gap,
        abstention_gap,
        adjusted_gaps,
        can_be_dealt,
        classes_of,
        dealt,
        few_in,
        gap_of_estimates,
        gap_of_recipe,
        neighbour_gap,
        rate_gaps,
    )
    from isocenter.evaluation.fairness.shift import (
        OTHERS,
        Balance,
        Patients,
        Shifted,
        TwoSamples,
        encoded,
        energy_test,
        group_shift,
        matched,
        one_of_each,
        propensity,
        shift_words,
        standardised_difference,
        two_sample_tests,
    )
    from isocenter.evaluation.features import effective_rank, possible_rank
    from isocenter.evaluation.instances import InstanceOverlap, instance_overlap
    from isocenter.evaluation.intervals import (
        FEW_PATIENTS,
        IntervalScale,
        Resampling,
        Seed,
        at_once,
        bootstrap,
        bootstrap_statistic,
        clopper_pearson,
        difference,
        median,
        of_differences,
        proportion,
        rarest,
        reweighted,
        tail_of,
        weightings,
        wilson,
    )
    from isocenter.evaluation.label_errors import probable_label_errors
    from isocenter.evaluation.lesions import (
        Lesion,
        LesionLink,
        Lesions,
        LesionState,
        Response,
        lesions_of,
        linked,
        percist,
        recist,
        specks_noted,
        targets_of,
    )
    from isocenter.evaluation.mask_overlap import (
        FALSE_POSITIVE_VOLUME,
        OVERLAP_METRICS,
        VOLUME_ERROR,
        Overlap,
        confusion,
        dice,
        iou,
        overlap,
        overlaps,
        place_of,
        volume_unit,
    )
    from isocenter.evaluation.metric import BEFORE, BY_EPISTEMIC, OF_ANSWERED, UNIT_ENDS, Metric, Metrics
    from isocenter.evaluation.region_shape import MeshCells, RegionShape
    from isocenter.evaluation.regression import (
        AGREEMENT_METRICS,
        ERROR_BAR_METRICS,
        VALUE_METRICS,
        absolute_agreement,
        bias,
        concordance,
        gaussian_nll,
        is_covered,
        limits_of_agreement,
        mean_absolute_error,
        pearson,
        r2,
        relative_bias,
        root_mean_squared_error,
        spearman,
    )
    from isocenter.evaluation.screening import ENDPOINTS, OUTCOMES, screening_rows
    from isocenter.evaluation.significance.areas import (
        ReaderVariances,
        area_covariance,
        delong,
        delong_unpaired,
        mrmc,
        reader_variances,
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
        FITTING,
        OF_RANKS,
        CaseValues,
        Compared,
        aligned,
        bootstrap_ranks,
        case_test,
        column_values,
        compared,
        fitting_tests,
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
    from isocenter.evaluation.significance.raters import icc, mean_over_raters
    from isocenter.evaluation.significance.weakness import WeakGroup, clusters, weak_groups
    from isocenter.evaluation.survival import (
        D_CALIBRATION,
        SURVIVAL_METRICS,
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
        FEATURE,
        FOLD,
        POOLED_METRICS,
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
        mean_rows,
        metric_columns,
        pooled_rows,
        read_cases,
        resampling,
        rows_from_json,
        rows_from_records,
        rows_to_json,
        threshold_columns,
        without_part,
    )
    from isocenter.evaluation.tracks import (
        TRACK_METRICS,
        TrackedFrame,
        followed,
        frame_cell,
        hota,
        identity_switches,
        track_rows,
    )
    from isocenter.evaluation.uncertainty import aurc, entropy, excess_aurc, risk_coverage

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
