from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fingerprints import facts
from hilum.quality import label_proxies
from hilum.values import BoundingBoxes, Case, Dataset, Fingerprint

COUNT = 60
PATIENTS = [f"p{n}" for n in range(COUNT)]
RNG = np.random.default_rng(0)
CLASSES = [{"class": "ill" if n % 2 else "well"} for n in range(COUNT)]
VALUES = [{"value": {"volume": float(one)}} for one in RNG.normal(50, 10, COUNT)]
EVENTS = [{"event": (float(one), n % 3 > 0)} for n, one in enumerate(RNG.exponential(100, COUNT))]


def test_a_number_or_a_word_that_stands_for_the_class_tells_all_of_it():
    assert label_proxies.label_association([n % 2 for n in range(COUNT)], CLASSES, PATIENTS) == 1.0
    assert label_proxies.label_association(["J18" if n % 2 else "Z00" for n in range(COUNT)], CLASSES, PATIENTS) == 1.0


def test_a_target_in_another_unit_tells_all_of_it():
    assert label_proxies.label_association(
        [one["value"]["volume"] * 1000 for one in VALUES], VALUES, PATIENTS
    ) == pytest.approx(1.0)


def test_the_time_of_the_event_by_another_name_tells_all_of_it():
    assert label_proxies.label_association([one["event"][0] / 30 for one in EVENTS], EVENTS, PATIENTS) == pytest.approx(
        1.0
    )


@pytest.mark.parametrize("references", [CLASSES, VALUES, EVENTS])
def test_what_has_nothing_to_do_with_the_label_tells_little(references):
    noise = np.random.default_rng(1).normal(size=COUNT).tolist()
    assert label_proxies.label_association(noise, references, PATIENTS) < 0.75
    assert label_proxies.label_association([f"name {n}" for n in range(COUNT)], references, PATIENTS) == 0.0


LESIONS = RNG.integers(0, 4, COUNT)  # of each case; of none, too
ANNOTATED = {
    "boxes": [BoundingBoxes(np.tile([0.0, 0, 4, 4], (n, 1)), ("nodule",) * int(n)) for n in LESIONS],
    "instances": [dict.fromkeys(range(n + 1), 9) for n in LESIONS],
    "mask": [{0: 100, **({1: 5 * int(n)} if n else {})} for n in LESIONS],
}


@pytest.mark.parametrize("kind", ANNOTATED)
def test_a_column_that_counts_what_is_annotated_or_tells_whether_anything_is_stands_for_it(kind):
    references = [{kind: one} for one in ANNOTATED[kind]]
    assert label_proxies.label_association([n / 7 for n in LESIONS], references, PATIENTS) == pytest.approx(1.0)
    assert label_proxies.label_association(["ill" if n else "well" for n in LESIONS], references, PATIENTS) == 1.0
    noise = np.random.default_rng(1).normal(size=COUNT).tolist()
    assert label_proxies.label_association(noise, references, PATIENTS) < 0.75


@pytest.mark.parametrize("kind", ANNOTATED)
def test_one_patient_with_a_lesion_makes_no_column_a_proxy(kind):
    with_one, without = (ANNOTATED[kind][LESIONS.tolist().index(count)] for count in (1, 0))
    references = [{kind: with_one if n == 7 else without} for n in range(COUNT)]
    assert label_proxies.label_association([float(n == 7) for n in range(COUNT)], references, PATIENTS) == 0.0


def test_what_few_cases_have_is_not_judged():
    assert label_proxies.label_association([n % 2 if n < 10 else None for n in range(COUNT)], CLASSES, PATIENTS) == 0.0


def test_that_images_of_one_patient_are_alike_is_no_proxy():
    places = [f"place {n // 2}" for n in range(COUNT)]
    classes = [{"class": "ill" if n // 2 % 2 else "well"} for n in range(COUNT)]
    assert label_proxies.label_association(places, classes, [f"p{n // 2}" for n in range(COUNT)]) == 0.0


def test_a_few_patients_of_many_images_make_no_proxy():
    """That the two ill of four are the oldest is chance, however often each was imaged."""
    patients, ages = ([one for one in four for _ in range(25)] for four in (["a", "b", "c", "d"], [41, 52, 63, 74]))
    classes = [{"class": "ill" if age > 60 else "well"} for age in ages]
    volumes = [{"value": {"volume": age / 10 + n / 1000}} for n, age in enumerate(ages)]
    assert label_proxies.label_association(ages, classes, patients) == 0.0
    assert label_proxies.label_association(ages, volumes, patients) == 0.0


def cohort(**columns):
    """Cases of two classes by turns with these covariates, and their facts."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    cases = tuple(Case(f"c{n}", f"p{n}", {}, covariates=row) for n, row in enumerate(rows))
    found = tuple(facts(name=f"c{n}", references=one) for n, one in enumerate(CLASSES))
    return Dataset(cases), Fingerprint(found)


def test_a_covariate_that_is_a_proxy_of_the_label_is_a_warning_and_a_constant_one_a_note():
    ages = np.random.default_rng(2).normal(60, 10, COUNT).round().tolist()
    same = {"place": ["here"] * COUNT, "nobody_has": [None] * COUNT}
    code, constant = label_proxies.proxy_problems(*cohort(age=ages, code=["J18", "Z00"] * (COUNT // 2), **same))
    assert (code.severity, constant.severity) == ("warning", "note")
    assert "covariate code predicts the label by itself (score 1.000 of 1)" in code.what
    assert constant.what == "place: covariates that are the same in all cases"


def test_ordinary_covariates_are_no_finding():
    assert not list(
        label_proxies.proxy_problems(
            *cohort(age=np.random.default_rng(3).normal(60, 10, COUNT).tolist(), sex=list("FFM") * 20)
        )
    )


def test_a_rare_class_makes_no_category_the_label():
    rare = [{"class": "ill" if n % 100 == 0 else "well"} for n in range(1000)]
    score = label_proxies.label_association(["FM"[n % 2] for n in range(1000)], rare, [f"p{n}" for n in range(1000)])
    assert score == pytest.approx(0.5)


def test_that_only_the_ill_have_an_image_or_a_value_is_a_warning():
    dataset, fingerprint = cohort(pressure=[None if n % 2 == 0 and n > 5 else 100.0 + n for n in range(COUNT)])
    cases = [replace(case, images={"t1": None, **({"t2": None} if n % 2 else {})}) for n, case in enumerate(dataset)]
    image, value = label_proxies.proxy_problems(replace(dataset, cases=tuple(cases)), fingerprint)
    assert image.what == "whether a case has image t2 predicts the label (score 1.000 of 1; 30 of 60 have it)"
    assert value.what == "whether a case has pressure predicts the label (score 0.950 of 1; 33 of 60 have it)"


def test_gaps_that_have_nothing_to_do_with_the_label_are_no_warning():
    gaps = np.random.default_rng(0).random(COUNT) < 0.3
    ages = np.random.default_rng(1).normal(60, 10, COUNT)
    assert not list(
        label_proxies.proxy_problems(*cohort(age=[None if gap else age for gap, age in zip(gaps, ages, strict=True)]))
    )


@pytest.mark.parametrize("rare", [1, 4, 5])
def test_a_rare_class_hides_no_column_that_tells_the_others(rare):
    names = ["well"] * 50 + ["ill"] * 50 + ["odd"] * rare
    classes, patients = [{"class": name} for name in names], [f"p{n}" for n in range(len(names))]
    assert label_proxies.label_association([f"code {name}" for name in names], classes, patients) == 1.0
