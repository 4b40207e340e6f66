from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from isocenter.transforms import generator, order

numbers = st.integers(0, 1000)
key = st.tuples(numbers, numbers, numbers, st.integers(0, 3))


@given(st.lists(key, min_size=2, max_size=5, unique=True), st.randoms())
def test_a_draw_depends_on_what_it_is_for_and_not_on_what_was_drawn_before(keys, shuffle):
    first = {one: generator(*one).random(3).tolist() for one in keys}
    shuffle.shuffle(keys)
    assert {one: generator(*one).random(3).tolist() for one in keys} == first
    assert len({tuple(drawn) for drawn in first.values()}) == len(keys)


@given(numbers, numbers, st.integers(1, 50))
def test_an_epoch_goes_through_every_case_once(seed, epoch, count):
    assert sorted(order(seed, epoch, count).tolist()) == list(range(count))


def test_each_epoch_and_each_seed_has_an_order_of_its_own():
    orders = {tuple(order(seed, epoch, 30).tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_draws_of_neighbouring_cases_are_uncorrelated():
    drawn = np.array([generator(0, 0, case).random(200) for case in range(20)])
    off_diagonal = np.corrcoef(drawn)[~np.eye(20, dtype=bool)]
    assert np.abs(off_diagonal).max() < 0.35
