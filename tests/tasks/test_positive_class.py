"""Which class is the positive one, and that everything which has one side is of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import hilum
from fingerprints import LAPTOP, SAMPLED, cohort, facts
from hilum.belief import Certainty
from hilum.belief.operating_points import GroupThresholds, OperatingPoint
from hilum.errors import PlanError, UsageError
from hilum.evaluation.calibration_fit import Calibrator
from hilum.evaluation.significance import probability_tests
from hilum.planning import plan_changes, plan_checks, plan_file, planner
from hilum.planning.plan_inputs import Wishes
from hilum.runs import plan_request
from hilum.scoring import evaluation_notes
from hilum.scoring.auditing import decision_audits
from hilum.scoring.auditing.group_audit import AttributeGroups
from hilum.scoring.case_scoring import AuditInput, ScoredCases
from hilum.tasks import fitting, properties, task_catalogue, task_settings
from hilum.tasks.classification import question
from hilum.tasks.classification.question import Classification
from hilum.tasks.fitting import PredictedCases
from hilum.values import BY_HAND, Case, Confidence, Decision, Fingerprint, Geometry, Plan, Prediction
from hilum.verbs.train import Run
from situations import noisy_picture, write_picture

GRID = Geometry((8, 8), np.eye(3))
AS_GIVEN = Certainty("none", Calibrator())


def simulated(first: str, second: str, count: int = 200):
    """Predictions and cases, of which one in five is of the first class; the others are answered more surely."""
    random = np.random.default_rng(0)
    is_first = random.random(count) < 0.2
    chances = 1 / (1 + np.exp(-(random.normal(size=count) + np.where(is_first, 0.7, -1.5))))
    cases = [
        Case(f"c{n}", f"p{n}", {}, {"class": first if own else second}, {"sex": "FM"[n % 2]})
        for n, own in enumerate(is_first.tolist())
    ]
    each = [{first: chance, second: 1 - chance} for chance in chances.tolist()]
    return [Prediction(GRID, probabilities=own, confidence=Confidence(uncalibrated=own)) for own in each], cases


def figures(task: Classification, predictions, cases):
    rows = task.summary(task.score(predictions, cases), seed=0)
    return {(row.metric, row.label): row.estimate for row in rows}


@pytest.mark.parametrize(
    ("negative", "positive"),
    [
        ("well", "sick"),
        ("normal", "covid"),
        ("healthy", "disease"),
        ("NORMAL", "PNEUMONIA"),
        ("Benign", "malignant"),
        ("negative", "positive"),
        ("no-finding", "nodule"),
        ("No_Finding", "effusion"),
        ("no tumour", "tumour"),
        ("without_fracture", "fracture"),
        ("non-COVID", "COVID"),
        ("control", "case"),
        ("no", "yes"),
        ("none", "cyst"),
        ("absent", "here"),
        ("0", "1"),
        ("false", "true"),
    ],
)
def test_the_class_whose_name_is_a_word_of_absence_is_the_negative_one_however_often_it_comes(negative, positive):
    for classes in ([negative, positive], [positive, negative]):
        for counts in ({negative: 9, positive: 99}, {negative: 99, positive: 9}):
            decision = question.positive_decision(classes, counts)
            assert decision.value == positive
            assert decision.because.startswith(f"{negative} is a word of absence")
        assert question.usual_positives(classes) == (positive,)


@pytest.mark.parametrize(
    ("classes", "counts", "positive", "because"),
    [
        # Names that only begin like a word of absence, or contain one, are none.
        (["adenoma", "nodule"], [5, 50], "adenoma", "the rarer (5 adenoma, 50 nodule)"),
        (["abnormal", "well_differentiated"], [70, 30], "well_differentiated", "the rarer"),
        (["non_small_cell", "adenocarcinoma"], [70, 30], "adenocarcinoma", "the rarer"),
        # Both are words of absence: neither says which is looked for.
        (["benign", "normal"], [20, 80], "benign", "benign, normal are words of absence, and it is the rarer"),
        (["round", "square"], [40, 40], "square", "the last of two equally frequent classes"),
    ],
)
def test_where_no_word_tells_the_rarer_class_is_positive_and_the_reason_has_the_counts(
    classes, counts, positive, because
):
    decision = question.positive_decision(classes, dict(zip(classes, counts, strict=True)))
    assert decision.value == positive
    assert because in decision.because and "--positive NAME" in decision.because


def test_of_several_classes_all_but_the_one_of_absence_are_positive_and_numbers_alone_are_no_words():
    counts = {"covid": 5, "normal": 50, "pneumonia": 9}
    assert question.positive_decision([*counts], counts).value == ["covid", "pneumonia"]
    assert question.positive_decision(["benign", "malignant", "normal"], {}).value is None  # two words
    assert question.positive_decision(["0", "1", "2"], {}).value is None  # numbers of classes, as of BloodMNIST
    assert question.usual_positives(["0", "1", "2"]) == ("0", "1", "2")


def test_a_positive_class_comes_back_from_its_settings_and_one_that_there_is_not_is_refused():
    for classes, positive in ((("covid", "normal"), ("normal",)), (("a", "b", "c"), ("a",)), (("a", "b"), ())):
        task = Classification(classes, positive=positive)
        assert task_catalogue.build_task({"name": "classification", **task_settings.settings_of(task)}) == task
    with pytest.raises(PlanError, match="there is no class 'flu'"):
        task_settings.task_from_settings(
            Classification, {"classes": ["covid", "normal"], "smoothing": 0.0, "positive": "flu"}
        )
    with pytest.raises(PlanError, match="2 of 2 classes"):
        task_settings.task_from_settings(
            Classification, {"classes": ["covid", "flu"], "smoothing": 0.0, "positive": ["covid", "flu"]}
        )


def test_an_operating_point_is_that_of_the_positive_class_and_reaches_its_sensitivity():
    predictions, cases = simulated("sick", "well")
    task = Classification(("sick", "well"), point=OperatingPoint("sensitivity>=0.9"), certainty=AS_GIVEN)
    tuned, made = fitting.with_fitted_calibration(task, PredictedCases(predictions, cases))
    assert list(tuned.thresholds) == ["sick"] and "of sick" in made["task.thresholds"].because
    sick = [one.probabilities["sick"] for one, case in zip(predictions, cases, strict=True)
            if case.references["class"] == "sick"]  # fmt: skip
    found = np.mean(np.array(sick) >= tuned.thresholds["sick"])
    assert found == pytest.approx(1 - (int((len(sick) + 1) * 0.1) - 1) / len(sick))
    assert figures(tuned, predictions, cases)["sensitivity", "sick"].value == pytest.approx(found)


def test_figures_are_those_of_the_positive_class_whatever_its_place_among_the_columns():
    predictions, cases = simulated("covid", "normal")
    one, other = (Classification(names, certainty=AS_GIVEN) for names in (("covid", "normal"), ("normal", "covid")))
    ours, theirs = (
        figures(fitting.with_fitted_calibration(task, PredictedCases(predictions, cases))[0], predictions, cases)
        for task in (one, other)
    )
    assert list(ours) == list(theirs)
    for key, estimate in ours.items():
        assert_allclose(estimate.value, theirs[key].value, atol=1e-9, err_msg=str(key))
        assert estimate.method == theirs[key].method
    assert "of covid" in ours["average_precision", "all"].method and "of covid" in ours["f1", "all"].method
    assert "of covid" in ours["calibration_intercept", "all"].method
    assert "; covid is positive; covid from" in ours["sensitivity", "covid"].method
    assert "; normal is negative; covid from" in ours["sensitivity", "normal"].method
    table = one.score(predictions, cases)
    columns = [name for name in table if name.startswith("probability_")]
    assert columns == ["probability_covid", "probability_normal"]
    assert next(iter(one.overview(table))).alt.startswith("ROC curves. covid")


def test_one_number_as_the_prevalence_of_two_classes_is_that_of_the_positive_one():
    given = {"classes": ["covid", "normal"], "smoothing": 0.0, "prevalence": 0.2}
    assert task_settings.task_from_settings(Classification, given).prevalence == pytest.approx(
        {"covid": 0.2, "normal": 0.8}
    )
    assert task_settings.task_from_settings(
        Classification, {**given, "positive": "normal"}
    ).prevalence == pytest.approx({"covid": 0.8, "normal": 0.2})


def test_thresholds_of_groups_are_of_the_positive_class_and_call_by_it():
    predictions, cases = simulated("covid", "normal")
    tuned, _ = fitting.with_fitted_calibration(
        Classification(("covid", "normal"), certainty=AS_GIVEN, grouped=GroupThresholds("sex")),
        PredictedCases(predictions, cases),
    )
    assert {tuple(own) for own in tuned.grouped.levels.values()} == {("covid",)}
    stated = properties.covariate_adjustment(tuned)(predictions[0], cases[0].covariates)
    level = tuned.grouped.levels["f"]["covid"]
    for chance, called in ((level + 0.01, "covid"), (level - 0.01, "normal")):
        own = replace(stated, probabilities={"covid": chance, "normal": 1 - chance})
        assert tuned.outputs(own)["predicted"] == called


def test_decision_curves_and_gaps_between_groups_are_of_the_positive_classes():
    random = np.random.default_rng(1)
    names = ("covid", "normal", "pneumonia")
    for classes, asked in ((names[:2], {"covid"}), (names, {"covid", "pneumonia"})):
        chances = random.dirichlet(np.ones(len(classes)), 120)
        truth = np.array([random.choice(len(classes), p=row) for row in chances])
        given = {f"probability_{name}": chances[:, n] for n, name in enumerate(classes)}
        ids = [f"c{n}" for n in range(len(truth))]
        named = {"reference": np.array(classes)[truth], "predicted": np.array(classes)[chances.argmax(axis=1)]}
        keys = {"case": ids, "patient": ids, "split": "test", "label": "all", "brier": 0.0}
        table = pd.DataFrame({**keys, **named, **given})
        task = Classification(classes)
        audit = AuditInput(ScoredCases(table, (), task=task), predictor=None, cases=(), seed=0, patients_known=True)
        curve = decision_audits.audit_decisions(audit).tables["decision.csv"]
        assert set(curve["label"]) == asked
        own = curve[curve["label"] == "covid"]
        assert_allclose(own["net_benefit"], probability_tests.net_benefit(chances[:, 0], truth == 0, own["threshold"]))
        groups = np.where(np.arange(len(ids)) % 2, "a", "b").astype(object)
        gaps = [
            one
            for one in AttributeGroups("site", "", task, table, groups, 0).gaps()
            if one.metric.startswith("demographic")
        ]
        assert {gap.label for gap in gaps} == asked


def test_a_report_states_which_classes_are_positive_and_is_silent_where_each_one_is():
    [words] = evaluation_notes.positive_words(Classification(("covid", "normal")))
    assert words.startswith("Positive is covid, negative normal. Thresholds, curves and gaps")
    assert not [*evaluation_notes.positive_words(Classification(("a", "b", "c")))]


def planned(**counts: int):
    cases = [
        facts((32, 32), name=f"{name}{n}", physical=False, references={"class": name})
        for name, count in counts.items()
        for n in range(count)
    ]
    found = Fingerprint(tuple(cases))
    return planner.make_plan(
        cohort(found.cases), found, SAMPLED, LAPTOP, Wishes(Decision("cpu", "a test"), 60.0)
    ), found


def test_a_plan_states_the_positive_class_with_its_reason_and_a_person_decides_over_it():
    made, found = planned(ill=6, fine=14)
    assert made["task.positive"] == "ill" and "the rarer (6 ill, 14 fine)" in made.decision("task.positive").because
    chosen = plan_changes.with_settings(made, {"task.positive": "fine"})
    assert chosen["task.positive"] == "fine" and chosen.decision("task.positive").because == BY_HAND
    assert plan_checks.checked_settings(chosen).task.positives == ("fine",)
    assert plan_file.preregistration_digest(chosen) != plan_file.preregistration_digest(made)
    with pytest.raises(PlanError, match="there is no class 'sick'"):
        plan_checks.checked_settings(plan_changes.with_settings(made, {"task.positive": "sick"}))
    # In a fold the other class may be the rarer one; its models are averaged with those of the others.
    mostly_ill = found.only({*(f"ill{n}" for n in range(6)), "fine0", "fine1"})
    assert plan_changes.plan_for_fold(made, cohort(found.cases), mostly_ill)["task.positive"] == "ill"


def test_the_covid_of_a_folder_of_covid_and_normal_is_positive_and_a_flag_decides_otherwise(tmp_path):
    for n in range(50):
        folder = "covid" if n % 5 == 0 else "normal"
        write_picture(tmp_path / folder / f"p{n:02d}.png", noisy_picture(n, 60 if folder == "covid" else 20)[0])
    made = hilum.plan(tmp_path, modality="DX", device="cpu", threads=1)
    assert made.plan["task.positive"] == "covid" and made.plan["task.classes"] == ["covid", "normal"]
    assert "normal is a word of absence" in made.plan.decision("task.positive").because
    assert "task.positive = covid: " in made.explained


def test_a_positive_class_that_is_stated_twice_is_refused(tmp_path):
    assert plan_request.positive_among({"training.steps": 2}, "normal") == {
        "training.steps": 2,
        "task.positive": "normal",
    }
    with pytest.raises(UsageError, match="conflicts with --set"):
        hilum.plan(tmp_path, positive="normal", assignments={"task.positive": "covid"})


def test_train_prints_the_positive_class_that_it_chose_with_the_reason_and_the_flag(tmp_path):
    chosen = question.positive_decision(["covid", "normal"], {"covid": 18, "normal": 82})
    words = "Positive is covid: normal is a word of absence, so that it is the negative class; --positive NAME decides"
    [line] = plan_request.positive_class_sentences(Plan({"task": {"positive": chosen}}))
    assert line.startswith(words)
    assert line in repr(Run(tmp_path, (), "auroc", 10, 1.0, positives=(line,))).splitlines()
    several = question.positive_decision(["normal", "a", "b"], {})
    assert plan_request.positive_class_sentences(Plan({"task": {"classification.positive": several}}))[0].startswith(
        "Positive is a, b: "
    )
    for stated in (Decision("normal", BY_HAND), question.positive_decision(["a", "b", "c"], {})):
        assert not plan_request.positive_class_sentences(Plan({"task": {"positive": stated}}))
