from __future__ import annotations

import numpy as np
import pytest

from hilum.errors import DatasetError
from hilum.explanation import concept_tests


def people(count: int) -> list[str]:
    return [f"p{n}" for n in range(count)]


def test_a_bent_sum_of_two_measurements_is_explained_by_these_two():
    rng = np.random.default_rng(0)
    given = {name: rng.normal(size=160) for name in "abcdefgh"}
    answers = 2 * given["a"] - 3 * np.maximum(given["c"], 0) + rng.normal(0, 0.2, 160)
    made = concept_tests.additive_surrogate(given, answers, people(160), seed=0)
    assert made.r2.value > 0.95
    assert made.r2.low < made.r2.value < made.r2.high
    assert set(list(made.shares)[:2]) == {"a", "c"}
    assert made.shares["a"] + made.shares["c"] > 0.97
    assert (made.direction["a"], made.direction["c"]) == (1, -1)


def test_noise_is_explained_by_nothing_however_many_measurements_there_are():
    rng = np.random.default_rng(1)
    given = {f"m{n}": rng.normal(size=60) for n in range(26)}
    assert concept_tests.additive_surrogate(given, rng.normal(size=60), people(60), seed=0).r2.value < 0.1


def test_answers_that_belong_to_patients_are_not_explained_by_what_names_them():
    """Each patient has three cases, one answer and one number: to know the number is to know nothing of others."""
    rng = np.random.default_rng(2)
    number, answer = np.repeat(rng.normal(size=40), 3), np.repeat(rng.normal(size=40), 3)
    patients = [f"p{n // 3}" for n in range(120)]
    assert concept_tests.additive_surrogate({"m": number}, answer, patients, seed=0).r2.value < 0.1


def test_few_patients_and_answers_that_are_all_alike_are_refused():
    with pytest.raises(DatasetError, match="20 or more"):
        concept_tests.additive_surrogate({"a": np.arange(12.0)}, np.arange(12.0), people(12), seed=0)
    with pytest.raises(DatasetError, match="alike"):
        concept_tests.additive_surrogate({"a": np.arange(30.0)}, np.ones(30), people(30), seed=0)
