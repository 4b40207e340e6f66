from __future__ import annotations

import numpy as np
import pytest

from isocenter.quality import telling

COUNT = 60
RNG = np.random.default_rng(0)
CLASSES = [{"class": "ill" if n % 2 else "well"} for n in range(COUNT)]
VALUES = [{"value": {"volume": float(one)}} for one in RNG.normal(50, 10, COUNT)]
EVENTS = [{"event": (float(one), n % 3 > 0)} for n, one in enumerate(RNG.exponential(100, COUNT))]


def test_a_number_or_a_word_that_stands_for_the_class_tells_all_of_it():
    assert telling([n % 2 for n in range(COUNT)], CLASSES) == 1.0
    assert telling(["J18" if n % 2 else "Z00" for n in range(COUNT)], CLASSES) == 1.0


def test_a_target_in_another_unit_tells_all_of_it():
    assert telling([one["value"]["volume"] * 1000 for one in VALUES], VALUES) == pytest.approx(1.0)


def test_the_time_of_the_event_by_another_name_tells_all_of_it():
    assert telling([one["event"][0] / 30 for one in EVENTS], EVENTS) == pytest.approx(1.0)


@pytest.mark.parametrize("references", [CLASSES, VALUES, EVENTS])
def test_what_has_nothing_to_do_with_the_label_tells_little(references):
    noise = np.random.default_rng(1).normal(size=COUNT).tolist()
    assert telling(noise, references) < 0.75
    assert telling([f"name {n}" for n in range(COUNT)], references) == 0.0


def test_what_few_cases_have_is_not_judged():
    assert telling([n % 2 if n < 10 else None for n in range(COUNT)], CLASSES) == 0.0
