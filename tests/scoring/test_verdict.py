from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hilum.evaluation import Metric
from hilum.planning import plan_file
from hilum.report import wording
from hilum.runs import validation_course
from hilum.scoring import case_scoring, model_verdict
from hilum.scoring.case_scoring import ScoredCases
from hilum.scoring.model_verdict import Gain, Verdict
from hilum.tasks import Task, multitask, task_catalogue, task_settings
from hilum.tasks.segmentation import scoring
from hilum.values import Decision, Estimate, Geometry

MAE = Metric("mae", "MAE", "less")
CLASSES = task_catalogue.build_task({"name": "classification", "classes": ["benign", "malignant"], "smoothing": 0.0})


def size_regression(deviation: float) -> Task:
    return task_catalogue.build_task(
        {
            "name": "regression",
            "targets": ["size"],
            "units": {"size": "mm"},
            "noise": "none",
            "mean": {"size": 5.0},
            "deviation": {"size": deviation},
        }
    )


def scored(chances: list[float], truth: list[int], before: list[float] | None = None) -> ScoredCases:
    """A classification of so many patients; chances: that they are malignant; before: before calibration."""
    names = ["benign", "malignant"]
    table = pd.DataFrame(
        {
            "case": [f"c{n}" for n in range(len(truth))],
            "patient": [f"p{n}" for n in range(len(truth))],
            "split": "test",
            "label": "all",
            "brier": [(chance - right) ** 2 for chance, right in zip(chances, truth, strict=True)],
            "reference": [names[right] for right in truth],
            "predicted": [names[int(chance >= 0.5)] for chance in chances],
            "probability_benign": [1 - chance for chance in chances],
            "probability_malignant": chances,
            **(
                {}
                if before is None
                else {"uncalibrated_benign": 1 - np.array(before), "uncalibrated_malignant": before}
            ),
        }
    )
    return ScoredCases(table, CLASSES.summary(table, seed=0), task=CLASSES)


def verdict(chances: list[float], truth: list[int], **given) -> Verdict:
    return model_verdict.verdict_on_scores(scored(chances, truth), seed=0, patients_known=True, **given)


def course(*values: float, steps: int = 1000) -> tuple[str, ...]:
    """What is said of a validation metric that was measured at equal distances."""
    at = [steps * (n + 1) // len(values) for n in range(len(values))]
    return validation_course.training_length_sentences(
        pd.DataFrame({"step": at, "loss": 1.0, "validation": values}), lambda figure: "AUROC"
    )


def test_a_model_that_calls_the_most_frequent_class_is_not_better_than_guessing():
    made = verdict([0.3] * 40, [0] * 30 + [1] * 10)
    assert made.answer.startswith("Not shown to be better than always calling benign (AUROC 0.000")
    assert {gain.outcome for gain in made.gains} == {"no difference shown"}
    assert "Every case is called benign." in made.against


@pytest.mark.whole
def test_a_gain_over_a_call_that_never_changes_is_judged_by_the_interval_of_the_model_itself():
    """Two intervals of one AUROC, one of which holds 0.5, would contradict each other."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        truth = [0] * 17 + [1] * 7
        chances = np.clip(rng.normal(0.4 + 0.15 * np.array(truth), 0.2), 0.01, 0.99).tolist()
        made = verdict(chances, truth)
        [auroc] = [row.estimate for row in scored(chances, truth).rows if row.metric == "auroc" and row.label == "all"]
        [gain] = [gain for gain in made.gains if gain.metric.name == "auroc"]
        assert (gain.difference.low, gain.difference.high) == pytest.approx((auroc.low - 0.5, auroc.high - 0.5))
        assert (gain.outcome == "better") == (auroc.low > 0.5)


def test_a_model_that_is_always_right_is_better_than_guessing_in_both_metrics():
    made = verdict([0.1] * 30 + [0.9] * 10, [0] * 30 + [1] * 10)
    assert [(gain.metric.name, gain.outcome) for gain in made.gains] == [("auroc", "better"), ("accuracy", "better")]
    assert made.gains[0].difference.value == pytest.approx(0.5)
    assert made.gains[1].difference.value == pytest.approx(0.25)  # three in four are benign
    assert made.answer.startswith("Better than always calling benign (AUROC +0.500")
    assert made.against == ()


def test_a_model_that_is_always_wrong_is_worse_than_guessing():
    assert verdict([0.9] * 20 + [0.1] * 20, [0] * 20 + [1] * 20).answer.startswith("Worse than")


def test_a_small_test_and_notes_speak_against_the_figures():
    made = verdict([0.1] * 4 + [0.9] * 4, [0] * 4 + [1] * 4, notes=["Patients unknown."])
    assert made.against[0] == "The test is small (4 patients in the smallest group): the intervals are unreliable."
    assert made.against[-1] == "Patients unknown."


def test_without_test_cases_nothing_is_estimated():
    made = model_verdict.verdict_on_scores(None, seed=0, patients_known=True)
    assert made.answer.startswith("Nothing is estimated")
    assert made.as_record()["gains"] == []


def test_of_simulated_patients_the_first_sentence_says_so_whatever_was_scored():
    first = "SIMULATED patients: the figures say nothing about real ones. "
    made = verdict([0.9] * 20 + [0.1] * 20, [0] * 20 + [1] * 20, simulated=True)
    assert made.answer.startswith(f"{first}Worse than")
    assert str(made).startswith(first)
    assert made.as_record()["answer"] == made.answer
    unscored = model_verdict.verdict_on_scores(None, seed=0, patients_known=True, simulated=True)
    assert unscored.answer.startswith(f"{first}Nothing is estimated")


def test_a_calibration_that_makes_probabilities_worse_on_these_cases_speaks_against_them():
    truth, fair, too_sure = [0] * 30 + [1] * 30, ([0.2] * 24 + [0.8] * 6) * 2, ([0.01] * 24 + [0.99] * 6) * 2
    fair[30:], too_sure[30:] = [1 - one for one in fair[30:]], [1 - one for one in too_sure[30:]]
    worse = scored(too_sure, truth, before=fair)
    [change] = [row.estimate for row in worse.rows if row.metric == "log_loss_change"]
    # Four of five are right: the loss of p in the right ones and 1 - p in the others.
    expected = 0.8 * np.log(0.8 / 0.99) + 0.2 * np.log(0.2 / 0.01)
    assert change.value == pytest.approx(expected) and change.low > 0
    [sentence] = model_verdict.verdict_on_scores(worse, seed=0, patients_known=True).against
    assert sentence.startswith("Calibration made the probabilities of these cases worse (change of the log loss: 0.4")
    better = scored(fair, truth, before=too_sure)
    assert model_verdict.verdict_on_scores(better, seed=0, patients_known=True).against == ()
    assert not [row for row in scored(fair, truth).rows if row.metric == "log_loss_change"]


def test_sets_and_masks_that_exclude_nothing_speak_against_a_model():
    limits = {"benign": 0.7, "malignant": None}
    sets = {"method": "lac", "level": 0.9, "by": "class", "n": {"benign": 30, "malignant": 0}, "exact": False}
    masks = {**sets, "method": "crc", "by": "label", "n": {"organ": 20, "lesion": 3}}
    segmentation = {"name": "segmentation", "loss": "ce", "tolerance": 1.0}
    segmentation |= {"labels": [{"value": 1, "name": "organ"}, {"value": 2, "name": "lesion"}]}
    segmentation |= {"risk": 0.1, "covering": {**masks, "thresholds": {"organ": 0.8, "lesion": None}}}
    settings = {**task_settings.settings_of(CLASSES), "conformal": {**sets, "thresholds": limits}}
    in_parts = {"classification": settings, "segmentation": segmentation}
    joint = {f"{part}.{key}": one for part, own in in_parts.items() for key, one in own.items() if key != "name"}
    several = task_catalogue.build_task({"name": "classification+segmentation", "weighting": "fixed", **joint})
    sentences = [
        "Sets and intervals exclude nothing for malignant (0 patients): too few to find a threshold.",
        "Covering results exclude nothing for lesion (3 patients): no threshold is shown to miss little enough.",
    ]
    assert (
        list(model_verdict.boundless_sentences(task_catalogue.build_task({"name": "classification", **settings})))
        == sentences[:1]
    )
    assert list(model_verdict.boundless_sentences(task_catalogue.build_task(segmentation))) == sentences[1:]
    named = [f"{part}: {text[0].lower()}{text[1:]}" for part, text in zip(in_parts, sentences, strict=True)]
    assert sorted(model_verdict.boundless_sentences(several)) == named
    assert list(model_verdict.boundless_sentences(CLASSES)) == []
    own = scored([0.1] * 30 + [0.9] * 10, [0] * 30 + [1] * 10)
    of_sets = replace(own, task=task_catalogue.build_task({"name": "classification", **settings}))
    assert model_verdict.verdict_on_scores(of_sets, seed=0, patients_known=True).against == (sentences[0],)


def test_one_threshold_for_all_cases_is_named_after_no_label():
    sets = {"method": "lac", "level": 0.9, "by": "all", "n": {"all": 8}, "exact": False, "thresholds": {"all": None}}
    [sentence] = model_verdict.boundless_sentences(
        task_catalogue.build_task({"name": "classification", **task_settings.settings_of(CLASSES), "conformal": sets})
    )
    assert sentence == "Sets and intervals exclude nothing (8 patients): too few to find a threshold."


def test_less_error_is_better_and_an_interval_with_zero_shows_no_difference():
    def outcome(low: float | None, high: float | None) -> str:
        return Gain(MAE, "all", "the mean", Estimate(-1.0, low, high, unit="mm")).outcome

    assert outcome(-2.0, -0.5) == "better"
    assert outcome(0.5, 2.0) == "worse"
    assert outcome(-2.0, 0.5) == outcome(None, None) == "no difference shown"


def test_a_label_that_ends_as_the_word_for_all_labels_is_named_in_full():
    gain = Gain(MAE, "chest wall", "the mean", Estimate(-1.0, -2.0, -0.5, unit="mm"))
    assert gain.sentence.startswith("Chest wall: better than the mean (")


def test_a_regression_that_gives_one_number_to_all_hardly_tells_cases_apart():
    task = size_regression(deviation=2.0)
    truth = [float(n % 10) for n in range(40)]
    table = pd.DataFrame({"case": [str(n) for n in range(40)], "patient": [str(n) for n in range(40)], "split": "test",
                          "label": "size", "reference": truth, "predicted": 5.0})  # fmt: skip
    table = table.assign(difference=table["predicted"] - table["reference"])
    made = model_verdict.verdict_on_scores(
        ScoredCases(table, task.summary(table, seed=0), task=task), seed=0, patients_known=True
    )
    assert made.gains[0].difference.value == 0
    assert made.answer.startswith("Size: not shown to be better than always giving the mean")
    assert made.against[0].startswith("Predictions of size hardly differ from one another")


def test_a_metric_that_still_rises_at_the_end_was_still_improving():
    assert "still improving in the last quarter of the 1000 steps" in course(0.5, 0.6, 0.7, 0.8, 0.9)[0]


def test_a_metric_that_levels_off_as_the_rate_falls_promises_nothing_and_says_so():
    assert course(0.5, 0.8, 0.899, 0.9, 0.9, 0.9, 0.9, 0.9)[0] == (
        "Validation AUROC was best at step 500 of 1000 and gained little in the last quarter; a falling learning rate "
        "flattens every curve, so whether longer training helps is not known."
    )


def test_where_four_times_the_steps_brought_nothing_longer_training_promises_little():
    values = (0.5, 0.895, 0.9, 0.899, 0.9, 0.9, 0.89, 0.9)
    assert "within 0.01 of its best after a quarter of the steps: longer training promises little" in course(*values)[0]
    assert "not known" in course(0.5, 0.885, *values[2:])[0]
    assert "not known" not in course(0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94)[0]


def test_a_training_that_its_epochs_ended_says_so(segmented):
    plan = plan_file.read_plan(segmented.out / "plan.yaml")
    limited = plan.with_decisions({"training.epochs": Decision(2, "few"), "training.batch": Decision(4, "few")})
    assert (
        validation_course.epoch_limit_sentence(plan, 40, 20)
        == ""
        == validation_course.epoch_limit_sentence(limited, 40, 19)
    )
    assert validation_course.epoch_limit_sentence(limited, 40, 20) == (
        "The limit of 2 epochs (training.epochs) ended it, after 20 steps."
    )
    assert (
        validation_course.training_length_sentences(pd.DataFrame({"step": [900], "loss": [1.0]}), limit="It ended.")[0]
        == "It ended."
    )


def test_a_metric_that_never_rises_shows_that_nothing_was_learnt():
    assert "was highest, 0.600, when it was first measured" in course(0.6, 0.5, 0.4, 0.5)[0]
    assert "was 0.500 at every measurement" in course(0.5, 0.5, 0.5, 0.5)[0]


def test_few_steps_and_few_measurements_are_named():
    sentences = course(0.5, 0.6, steps=20)
    assert sentences[0].startswith("Trained for only 20 steps")
    assert "measured only 2 times" in sentences[1]
    assert (
        "Nothing was validated"
        in validation_course.training_length_sentences(pd.DataFrame({"step": [900], "loss": [1.0]}))[0]
    )


def test_each_fold_has_its_own_course():
    log = pd.DataFrame({"step": [250, 500, 750, 1000], "loss": 1.0, "fold 0 loss": 1.0, "fold 0": [0.1, 0.2, 0.3, 0.4],
                        "fold 1": [0.1, 0.4, 0.4, 0.4]})  # fmt: skip
    first, second = validation_course.training_length_sentences(log, lambda figure: "Dice")
    assert first.startswith("Validation Dice of fold 0 was still improving")
    assert second.startswith("Validation Dice of fold 1 was best at step 500")


def test_folds_that_went_alike_share_a_sentence():
    courses = {f"fold {n}": [0.1, 0.4, 0.4, 0.4] for n in range(3)}
    log = pd.DataFrame({"step": [250, 500, 750, 1000], "loss": 1.0, **courses})
    little = (
        "gained little in the last quarter of the steps; a falling learning rate flattens every curve, so whether "
        "longer training helps is not known."
    )
    assert validation_course.training_length_sentences(log, lambda figure: "Dice") == (
        f"Validation Dice of all 3 folds {little}",
    )
    first, second = validation_course.training_length_sentences(
        log.assign(**{"fold 1": [0.1, 0.2, 0.3, 0.4]}), lambda figure: "Dice"
    )
    assert first == f"Validation Dice of fold 0, fold 2 {little}"
    assert second.startswith("Validation Dice of fold 1 was still improving in the last quarter of the 1000 steps")


def test_a_fold_of_fewer_steps_is_judged_by_its_own_last_quarter():
    nan = float("nan")
    log = pd.DataFrame({"step": [250, 500, 750, 1000], "loss": 1.0, "fold 0 loss": 1.0, "fold 0": [0.1, 0.2, 0.2, 0.2],
                        "fold 1 loss": [1.0, 1.0, 1.0, nan], "fold 1": [0.1, 0.2, 0.4, nan]})  # fmt: skip
    log = pd.concat([log, pd.DataFrame({"step": [375.0], "loss": 1.0, "fold 1 loss": 1.0, "fold 1": 0.1})])
    log = log.assign(**{"fold 0": [0.1, 0.2, 0.2, 0.2, 0.2]})
    assert validation_course.training_length_sentences(log.sort_values("step"), lambda figure: "Dice")[1] == (
        "Validation Dice of fold 1 was still improving in the last quarter of the 750 steps: longer training may help."
    )


def test_a_systematic_error_and_a_poor_agreement_speak_against_a_model():
    task = size_regression(deviation=2.0)
    truth = [float(5 + n % 10) for n in range(40)]

    def against(predicted: list[float]) -> list[str]:
        names = [str(n) for n in range(40)]
        table = pd.DataFrame({"case": names, "patient": names, "split": "test", "label": "size", "reference": truth,
                              "predicted": predicted})  # fmt: skip
        table = table.assign(difference=table["predicted"] - table["reference"])
        scored_sizes = ScoredCases(table, task.summary(table, seed=0), task=task)
        return list(model_verdict.beyond_tolerance(scored_sizes))

    assert against([1.04 * size for size in truth]) == []
    [systematic] = against([1.1 * size + 0.1 * (-1) ** n for n, size in enumerate(truth)])
    assert systematic.startswith("Relative bias: size 10.0 %, 95 % interval 9.")
    assert systematic.endswith(": a systematic error of more than 5 %.")
    rng = np.random.default_rng(0)
    [poor] = against([size + float(error) for size, error in zip(truth, rng.normal(0, 4, 40), strict=True)])
    assert poor.startswith("ICC(2,1), absolute agreement: size 0.") and poor.endswith(": below 0.75.")


def test_two_labels_that_look_exchanged_are_named():
    maps = np.zeros((2, 4, 4, 4), np.uint8)
    maps[0, :2], maps[0, 2:] = 1, 2
    maps[1, :2], maps[1, 2:] = 2, 1
    maps[1, 0, 0] = 1
    structures = {"front": (1,), "back": (2,)}

    def exchanged(predicted: np.ndarray) -> list[str]:
        rows = scoring.structure_case_rows(
            predicted, maps[0], structures, Geometry((4, 4, 4), np.eye(4)), dict.fromkeys(structures, 1.0)
        )
        return list(
            model_verdict.exchanged_labels(
                ScoredCases(pd.DataFrame([{"case": "a", "patient": "a", **row} for row in rows]), [])
            )
        )

    assert exchanged(maps[0]) == []
    assert exchanged(maps[1]) == [
        "back and front look exchanged: Dice of back 0.000 would be 0.933 with the names the other way round. "
        "Compare them with --labels."
    ]


def test_two_classes_that_look_exchanged_are_named():
    truth = [0, 1] * 20
    right = scored([0.9 if one else 0.1 for one in truth], truth)
    wrong = scored([0.1 if one else 0.9 for one in truth], truth)
    assert list(model_verdict.exchanged_labels(right)) == []
    [sentence] = model_verdict.exchanged_labels(wrong)
    assert "benign and malignant look exchanged: accuracy 0.000 would be 1.000" in sentence


def test_wrong_calls_are_the_cases_that_are_called_otherwise_than_their_reference():
    assert case_scoring.wrong_calls(CLASSES, scored([0.9, 0.1, 0.9], [1, 1, 0]).table) == ["c1", "c2"]


def test_the_headline_is_the_primary_metric_over_all_labels():
    rows = scored([0.1] * 10 + [0.9] * 10, [0] * 10 + [1] * 10).rows
    assert [(row.metric, row.label) for row in model_verdict.headline_rows(rows, "accuracy", CLASSES)] == [
        ("accuracy", "all")
    ]


def test_a_structure_of_which_hardly_a_voxel_is_found_speaks_against_the_mean():
    table = pd.DataFrame({"label": ["liver", "tumour"], "voxels_both": [900, 1], "voxels_reference": [1000, 500]})
    assert list(model_verdict.constant_predictions(table)) == [
        "tumour is missed nearly everywhere: less than 1 % of it is found."
    ]


FINDINGS = task_catalogue.build_task({"name": "findings", "findings": ["effusion", "mass"],
                  "counts": {name: {"present": 20, "absent": 60} for name in ("effusion", "mass")}})  # fmt: skip


def findings(effusion: list[float], mass: list[float], truth: list[tuple[bool, bool]]) -> ScoredCases:
    """Two findings of so many patients; the chances of each, and whether they are there."""
    words = {True: "present", False: "absent"}
    rows = [
        {"case": f"c{n}", "patient": f"p{n}", "split": "test", "label": name, "reference": words[there],
         "predicted": words[chance >= 0.5], "probability": chance, "brier": (chance - there) ** 2}
        for n, (chances, known) in enumerate(zip(zip(effusion, mass, strict=True), truth, strict=True))
        for name, chance, there in zip(("effusion", "mass"), chances, known, strict=True)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    return ScoredCases(table, FINDINGS.summary(table, seed=0), task=FINDINGS)


def test_findings_that_are_told_apart_are_better_than_their_shares_and_constant_ones_are_named():
    truth = [(n % 4 == 0, n % 3 == 0) for n in range(48)]
    effusion = [0.9 if there and n else 0.1 for n, (there, _) in enumerate(truth)]  # one is missed
    made = model_verdict.verdict_on_scores(findings(effusion, [0.2] * 48, truth), seed=0, patients_known=True)
    assert made.answer.startswith("Better than giving each finding its share among the training cases (AUROC +0.229")
    assert "mass is called absent in every case." in made.against
    assert not any("effusion" in text for text in made.against)


def test_a_case_of_which_one_finding_is_called_wrongly_is_a_wrong_call():
    scored = findings([0.9, 0.9, 0.9], [0.1, 0.1, 0.9], [(True, False), (True, True), (True, True)])
    scored.table.loc[scored.table["case"] == "c2", "reference"] = None  # nobody knows
    assert case_scoring.wrong_calls(FINDINGS, scored.table) == ["c1"]


def several() -> ScoredCases:
    """Classes that are always called the same beside a size that is measured well."""
    size = size_regression(deviation=3.0)
    settings = {
        **{f"classification.{key}": value for key, value in task_settings.settings_of(CLASSES).items()},
        **{f"regression.{key}": value for key, value in task_settings.settings_of(size).items()},
    }
    task = task_catalogue.build_task({"name": "classification+regression", "weighting": "fixed", **settings})
    truth = [float(n % 10) for n in range(40)]
    classes = scored([0.3] * 40, [0] * 30 + [1] * 10).table
    sizes = classes[["case", "patient", "split"]].assign(label="size", reference=truth, difference=0.1)
    sizes = sizes.assign(predicted=sizes["reference"] + sizes["difference"])
    table = pd.concat(
        [multitask.prefix_part_table("classification", classes), multitask.prefix_part_table("regression", sizes)],
        ignore_index=True,
    )
    return ScoredCases(table, task.summary(table, seed=0), task=task)


def test_each_of_several_tasks_is_compared_with_its_own_guess_and_its_constant_calls_are_named():
    made = model_verdict.verdict_on_scores(several(), seed=0, patients_known=True)
    assert "Classification: not shown to be better than always calling benign" in made.answer
    assert "Regression: size: better than always giving the mean of the training cases" in made.answer
    assert "classification: every case is called benign." in made.against


def test_the_wrong_calls_of_several_tasks_are_those_of_any():
    made = several()
    assert case_scoring.wrong_calls(made.task, made.table) == [f"c{n}" for n in range(30, 40)]


@pytest.mark.parametrize(
    ("kind", "less", "more"),
    [("regression", "mae", "r2"), ("segmentation", "hd95_pixels", "dice"), ("survival", "integrated_brier", "uno_c")],
)
def test_a_kind_of_problem_knows_of_which_of_its_metrics_less_is_better(kind, less, more):
    metrics = task_catalogue.task_class(kind).metrics
    assert (metrics.metric_named(less).better, metrics.metric_named(more).better) == ("less", "more")


def test_every_task_has_its_first_figure_in_the_headline():
    made = several()
    chosen = model_verdict.headline_rows(made.rows, "mae", made.task)
    assert [(row.metric, row.label) for row in chosen] == [
        ("auroc", "classification: all"),
        ("mae", "regression: size"),
    ]


def test_where_the_validation_cases_lack_a_class_the_length_is_judged_by_what_selected():
    named = wording.metric_namer(Metric("auroc", "AUROC"))
    log = pd.DataFrame({"step": [100, 200, 300, 400], "loss": 1.0, "validation": [-1.2, -1.0, -0.9, -0.8]})
    assert validation_course.training_length_sentences(log, named)[0].startswith(
        "Validation minus the log loss was still improving"
    )
    assert validation_course.training_length_sentences(log.assign(validation=[0.6, 0.7, 0.8, 0.9]), named)[
        0
    ].startswith("Validation AUROC")
    assert wording.metric_namer(Metric("r2", "R²"))(-0.3) == "R²"  # which may be below 0 itself


def test_where_patients_are_unknown_a_class_of_that_name_keeps_it():
    method = "{0} bootstrap; of patient; patient from 0.43 on (youden, unseen cases); unreliable: 7 {0}s"
    assert case_scoring.named_by_case(Estimate(0.5, method=method.format("patient"))).method == method.format("case")


def test_no_patients_are_counted_in_what_speaks_against_a_model_where_nobody_knows_whose_the_cases_are():
    note = "Sets and intervals exclude nothing for 1 (3 patients): too few to find a threshold."
    made, known = ({"seed": 0, "patients_known": known, "notes": [note]} for known in (False, True))
    own = scored([0.2, 0.8] * 10, [0, 1] * 10)
    assert note.replace("patients", "cases") in model_verdict.verdict_on_scores(own, **made).against
    assert note in model_verdict.verdict_on_scores(own, **known).against
