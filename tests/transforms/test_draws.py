from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from hilum.transforms import random_draws
from hilum.transforms.random_draws import BatchDraws

numbers = st.integers(0, 1000)
key = st.tuples(numbers, numbers, numbers, st.integers(0, 3))


@given(st.lists(key, min_size=2, max_size=5, unique=True), st.randoms())
def test_a_draw_depends_on_what_it_is_for_and_not_on_what_came_before(keys, shuffle):
    first = {one: random_draws.sample_generator(*one).random(3).tolist() for one in keys}
    shuffle.shuffle(keys)
    assert {one: random_draws.sample_generator(*one).random(3).tolist() for one in keys} == first
    assert len({tuple(numbers) for numbers in first.values()}) == len(keys)


@given(numbers, numbers, st.integers(1, 50))
def test_an_epoch_goes_through_every_case_once(seed, epoch, count):
    assert sorted(random_draws.epoch_order(seed, epoch, count).tolist()) == list(range(count))


def test_each_epoch_and_each_seed_has_an_order_of_its_own():
    orders = {tuple(random_draws.epoch_order(seed, epoch, 30).tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_draws_of_neighbouring_cases_are_uncorrelated():
    numbers = np.array([random_draws.sample_generator(0, 0, case).random(200) for case in range(20)])
    off_diagonal = np.corrcoef(numbers)[~np.eye(20, dtype=bool)]
    assert np.abs(off_diagonal).max() < 0.35


def test_every_kind_of_change_has_its_own_numbers():
    numbers = np.array([random_draws.child_generator(7, kind).random(200) for kind in range(20)])
    off_diagonal = np.corrcoef(numbers)[~np.eye(20, dtype=bool)]
    assert np.abs(off_diagonal).max() < 0.35
    assert_array_equal(random_draws.child_generator(7, 3).random(200), numbers[3])


def test_a_kind_that_is_added_at_the_end_leaves_the_draws_of_the_others_alone():
    few, more = (
        BatchDraws.from_generators([random_draws.sample_generator(0, 0, n) for n in range(3)], kinds)
        for kinds in (5, 9)
    )
    assert few.keys == more.keys
    assert_array_equal(few.chances, more.chances[:, :5])


@given(st.floats(0, 1), st.floats(0, 1))
def test_who_is_befallen_at_a_low_probability_is_so_at_a_higher_one(one, other):
    draws = BatchDraws.from_generators([random_draws.sample_generator(0, 0, n) for n in range(50)], 2)
    rarely, often = sorted((one, other))
    assert set(draws.chosen_samples(1, rarely)) <= set(draws.chosen_samples(1, often))
    assert len(draws.chosen_samples(1, 0)) == 0
    assert len(draws.chosen_samples(1, 1)) == 50


def test_noise_is_the_same_however_the_image_lies_in_memory():
    image = torch.zeros(2, 3, 8, 8)
    otherwise = image.contiguous(memory_format=torch.channels_last)
    assert otherwise.stride() != image.stride()
    one, other = (
        random_draws.white_noise(each, [random_draws.sample_generator(0, 0, n) for n in range(2)])
        for each in (image, otherwise)
    )
    assert_array_equal(one, other)
