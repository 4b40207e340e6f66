from __future__ import annotations

import numpy as np
import pytest

from fingerprints import facts
from hilum.errors import PlanError
from hilum.planning.rules import covariate_rules
from hilum.tasks.classification.question import Classification
from hilum.tasks.detection.question import Detection
from hilum.tasks.instances.question import InstanceSegmentation
from hilum.tasks.segmentation.question import Segmentation
from hilum.values import BoundingBoxes, Case, Dataset, Fingerprint, Label
from hilum.values.covariate_values import Course
from matrices import thinned

COUNT = 60


def cohort(**columns):
    """Cases of two classes by turns, with these covariates."""
    covariates = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    cases = tuple(Case(f"c{n}", f"p{n}", {}, covariates=one) for n, one in enumerate(covariates))
    found = (facts(name=f"c{n}", references={"class": "ill" if n % 2 else "well"}) for n in range(COUNT))
    return Dataset(cases), Fingerprint(tuple(found))


def decided(asked, **columns):
    return covariate_rules.context_decision(*cohort(**columns), asked)


def ages(gaps=0):
    ages = np.random.default_rng(0).normal(60, 10, COUNT).round().tolist()
    return [None if n < gaps else age for n, age in enumerate(ages)]


def test_without_being_asked_for_no_covariate_is_told():
    decision = decided(None, age=ages())
    assert decision.value is None
    assert "there are age" in decision.because


def test_what_is_filled_in_and_how_is_learnt_from_the_cases_that_are_given():
    decision = decided("age", age=ages(gaps=6))
    known = np.array(ages()[6:])
    assert decision.value["age"]["median"] == np.median(known)
    assert decision.value["age"]["missing"] == 0.1
    assert decision.value["age"]["mean"] == pytest.approx((known.sum() + 6 * np.median(known)) / COUNT, rel=1e-5)
    assert "10% missing: the median and a mark" in decision.because


def test_the_range_of_a_number_shows_nobodys_value_and_holds_all_of_them():
    known = decided("age", age=[41.3, *[60.0] * 29, *[61.0] * 29, 87.6]).value["age"]
    assert (known["low"], known["high"]) == (40.0, 90.0)
    heights = decided("height", height=[1.531, *[1.7] * 29, *[1.8] * 29, 1.988]).value["height"]
    assert (heights["low"], heights["high"]) == (1.5, 2.0)


def test_rare_levels_are_unknown():
    decision = decided(["ward"], ward=["a"] * 30 + ["b"] * 27 + ["c"] * 3)
    assert decision.value == {"ward": {"levels": {"a": 0.5, "b": 0.45}, "missing": 0.05}}


def test_words_among_measured_numbers_do_not_make_them_categories():
    """Ages that five cases share would be levels, and all other ages unknown."""
    years = [40 + n // 2 % 12 for n in range(COUNT)]
    assert decided("age", age=[*years[:-3], "unknown", ">89", -999]).value["age"]["missing"] == 0.0333333
    with pytest.raises(PlanError, match=r"age in row 60: 'old' is no number"):
        decided("age", age=[*years[:-1], "old"])
    assert "'old' is no number" in decided("all", age=[*years[:-1], "old"]).because
    stages = decided("stage", stage=[*(str(n // 2 % 4) for n in range(COUNT - 6)), *["x"] * 6])
    assert set(stages.value["stage"]["levels"]) == {"0", "1", "2", "3", "x"}


def test_all_leaves_out_what_tells_nothing_and_says_why():
    decision = decided(
        "all",
        age=ages(),
        constant=["x"] * COUNT,
        note=[f"remark {n}" for n in range(COUNT)],
        scanner=["a", "b", "a"] * (COUNT // 3),
        kv=[100.0, 120.0, 100.0] * (COUNT // 3),
        rare=[None] * 40 + [1, 2] * 10,
        coded=[float(n % 2) for n in range(COUNT)],
    )
    assert set(decision.value) == {"age"}
    for stated in (
        "constant (constant in the training cases)",
        "note (60 words",
        "scanner (it describes the acquisition",
        "kv (it describes the acquisition",
        "rare (40 of 60 training cases lack it)",
        "coded (a proxy of the label, which it predicts by itself (score 1.000",
    ):
        assert stated in decision.because


@pytest.mark.parametrize(
    ("column", "values", "match"),
    [
        ("place", ["here"] * COUNT, "constant"),
        ("code", ["I" if n % 2 else "W" for n in range(COUNT)], "a proxy of the label"),
    ],
)
def test_a_column_that_was_named_and_is_not_fit_is_refused(column, values, match):
    with pytest.raises(PlanError, match=match):
        decided([column], **{column: values})


@pytest.mark.parametrize("column", ["count", "any"])
def test_a_column_that_somebody_counted_in_the_image_is_a_proxy_of_its_boxes(column):
    counts = [n % 5 for n in range(COUNT)]
    values = {"count": counts, "any": ["yes" if n else "no" for n in counts]}[column]
    dataset, _ = cohort(found=values, age=ages())
    boxes = [BoundingBoxes(np.tile([0.0, 0, 4, 4], (n, 1)), ("nodule",) * n) for n in counts]
    fingerprint = Fingerprint(tuple(facts(name=f"c{n}", references={"boxes": one}) for n, one in enumerate(boxes)))
    with pytest.raises(PlanError, match="found: a proxy of the label"):
        covariate_rules.context_decision(dataset, fingerprint, ["found"])
    assert list(covariate_rules.context_decision(dataset, fingerprint, "all").value) == ["age"]


def test_a_column_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(PlanError, match="Choose from age"):
        decided(["weight"], age=ages())


def test_a_pattern_stands_for_the_columns_that_it_fits_and_leaves_out_those_that_are_not_fit():
    rng = np.random.default_rng(1)
    genes = {f"gene_{n}": rng.normal(size=COUNT).round(3).tolist() for n in range(3)}
    decision = decided(["age", "gene_*"], age=ages(), gene_x=["same"] * COUNT, other=ages(3), **genes)
    assert list(decision.value) == ["age", *genes]
    assert "gene_x (constant in the training cases)" in decision.because
    with pytest.raises(PlanError, match=r"no covariate is called 'protein_\*'"):
        decided(["protein_*"], age=ages())


def test_of_thousands_of_columns_what_they_have_in_common_is_said():
    rng = np.random.default_rng(1)
    genes = {f"gene_{n:03}": rng.normal(size=COUNT).round(3).tolist() for n in range(300)}
    decision = decided("gene_*", **genes)
    assert len(decision.value) == 300
    assert "300 numbers from gene_000 to gene_299: standardised" in decision.because
    assert len(decision.because) < 400


@pytest.mark.parametrize(("entries", "narrow"), [(3, None), (200, 16)])
def test_many_entries_are_brought_down_to_few_first(entries, narrow):
    context = {f"g{n}": {"median": 0, "mean": 0, "deviation": 1, "missing": 0} for n in range(entries)}
    task = Classification(classes=("ill", "well"))
    found = covariate_rules.fusion_decisions(task, "resnet", context, 400)
    assert found["context_fusion"].value == "concatenate"
    assert found["narrow"].value == narrow
    assert found["sparsity"].value == (
        0 if narrow is None else pytest.approx(0.3 * np.sqrt(np.log(200) / 400), abs=1e-4)
    )


@pytest.mark.parametrize(
    ("name", "task", "method"),
    thinned(
        2,
        [
            ("resnet", Classification(classes=("ill", "well")), "concatenate"),
            ("vit", Classification(classes=("ill", "well")), "tokens"),
            ("unet", Segmentation((Label(1, "organ"),)), "film"),
            ("vnet", Segmentation((Label(1, "organ"),)), None),
            ("mask_rcnn", InstanceSegmentation((1.0, 1.0), 6.0), "film"),
            ("yolox", Detection(("cell",), 2, 16.0), "film"),
        ],
    ),
)
def test_how_a_network_is_told_follows_from_what_it_answers(name, task, method):
    context = {"age": {"median": 0, "mean": 0, "deviation": 1, "missing": 0}}
    found = covariate_rules.fusion_decisions(task, name, context, 60)
    assert found["context_fusion"].value == method
    assert covariate_rules.fusion_decisions(task, name, None, 60)["context_fusion"].value is None


def test_images_alone_are_trained_on_too_where_something_is_told_and_no_network_goes_before():
    decision = decided("age", age=ages())
    assert covariate_rules.image_only_decision(decision, None).value is True
    assert covariate_rules.image_only_decision(decision, 2.0).value is False
    assert covariate_rules.image_only_decision(decided(None, age=ages()), None).value is False


def pulses(ill=0.0, ends=20.0):
    """Readings of a minute's distance; of the ill they are higher by so much in the middle, and end then."""
    rng = np.random.default_rng(2)
    found = []
    for n in range(COUNT):
        times = np.arange(0, ends if n % 2 else 20, 1.0)
        values = rng.normal(80, 10) + rng.normal(0, 3, len(times)) + ill * (n % 2) * (abs(times - 10) < 3)
        found.append(Course(tuple(times), tuple(values), "s"))
    return found


def test_what_was_read_time_and_again_is_told_in_stretches_of_the_training_cases_time():
    read = [None if n < 6 else one for n, one in enumerate(pulses(ill=4))]
    decision = decided(["age", "pulse"], age=ages(), pulse=read)
    made = decision.value["pulse"]
    assert list(decision.value) == ["pulse", "age"]
    assert (made["start"], made["stop"], made["stretches"], made["unit"]) == (0, 19, 20, "s")
    assert made["missing"] == 0.1
    everything = np.concatenate([one.values for one in read if one is not None])
    assert made["mean"] == pytest.approx(everything.mean(), rel=1e-5)
    assert "the mean of 20 stretches from 0 to 19 s, else the last before, and a mark; 10% have no" in decision.because
    assert "s41598-018-24271-9" in decision.source


def test_a_course_that_ends_with_the_disease_is_a_proxy_of_the_label():
    with pytest.raises(PlanError, match=r"how long or often it was read predicts it \(score 1\.000"):
        decided(["pulse"], pulse=pulses(ends=12.0))


def test_courses_that_never_change_are_numbers():
    decision = decided(["age"], age=[Course((0.0, 1.0), (one, one)) for one in ages()])
    assert decision.value["age"]["median"] == np.median(ages())


def test_times_of_two_units_are_refused():
    read = pulses()
    read[3] = Course(read[3].times, read[3].values)
    with pytest.raises(PlanError, match="its times are in no unit, s"):
        decided(["pulse"], pulse=read)


def test_stretches_are_few_entries_whatever_their_number():
    decision = decided(["pulse"], pulse=[Course(tuple(range(200)), tuple(range(n, 200 + n))) for n in range(COUNT)])
    assert decision.value["pulse"]["stretches"] == 64
    assert (
        covariate_rules.fusion_decisions(Classification(("ill", "well")), "resnet", decision.value, COUNT)[
            "narrow"
        ].value
        is None
    )
