from __future__ import annotations

import threading
from collections import Counter
from contextlib import closing
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from hilum.training.data.batch_loading import Batch, Loader
from hilum.training.data.prepared_store import PreparedCase


def cases(count: int = 5, size: int = 12) -> list[PreparedCase]:
    """Each with one marked voxel, far from the middle; a voxel's value is its own place."""
    found = []
    for n in range(count):
        image = np.arange(size**2, dtype=np.float32).reshape(1, size, size) + 1000 * n
        target = np.zeros((size, size), np.uint8)
        target[n, size - 1] = 1
        found.append(PreparedCase(str(n), image, target, (np.argwhere(target).astype(np.int32),), (1.0, 1.0)))
    return found


def loader(foreground: float = 0.5, seed: int = 7) -> Loader:
    return Loader(cases(), (4, 4), 3, foreground, seed)


def some(made: Loader, count: int, first: int = 0) -> list[Batch]:
    """The first of its batches."""
    with closing(made.batches(first)) as batches:
        return list(islice(batches, count))


def of_classes(*counts: int) -> list[PreparedCase]:
    """So many cases of each class; a case's value is its number."""
    targets = np.repeat(np.arange(len(counts)), counts)
    return [
        PreparedCase(str(n), np.full((1, 4, 4), n, np.float32), np.int64(target), (), (1.0, 1.0))
        for n, target in enumerate(targets)
    ]


@given(st.permutations(range(9)))
@settings(max_examples=15)
def test_a_batch_depends_on_seed_and_step_alone(order):
    one, other = loader(), loader()
    straight = {step: one.of_step(step) for step in range(9)}
    for step in order:
        batch = other.of_step(step)
        assert_array_equal(batch.images, straight[step].images)
        assert_array_equal(batch.targets, straight[step].targets)
        assert [g.random() for g in other.of_step(step).generators] == [g.random() for g in batch.generators]


def test_batches_made_ahead_are_those_of_their_steps():
    for first in (0, 4, 9):
        for step, batch in enumerate(some(loader(), 10, first), start=first):
            assert_array_equal(batch.images, loader().of_step(step).images)


def test_batches_end_when_nobody_wants_more():
    before = set(threading.enumerate())
    batches = loader().batches(0)
    next(batches)
    assert set(threading.enumerate()) - before
    batches.close()
    assert not set(threading.enumerate()) - before


def test_a_part_of_a_batch_has_the_spacing_of_the_whole_so_that_several_processes_turn_images_alike():
    images = np.zeros((1, 4, 4), np.float32)
    differing = [PreparedCase(str(n), images, np.int64(0), (), (1.0 + n, 1.0)) for n in range(8)]
    whole, first, second = (Loader(differing, (4, 4), 4, 0, 7, part=part) for part in (None, range(2), range(2, 4)))
    assert whole.of_step(0).steps == first.of_step(0).steps == second.of_step(0).steps


def test_another_seed_gives_other_batches():
    assert not np.array_equal(loader(seed=1).of_step(0).images, loader(seed=2).of_step(0).images)


def test_every_case_is_seen_once_an_epoch():
    seen = [int(image.min() // 1000) for step in range(5) for image in loader().of_step(step).images]
    for epoch in range(3):
        assert sorted(seen[5 * epoch : 5 * epoch + 5]) == [0, 1, 2, 3, 4]


def test_patches_on_the_foreground_hold_the_structure_and_targets_lie_where_images_do():
    for batch in some(loader(foreground=1.0), 10):
        for image, target in zip(batch.images[:, 0], batch.targets, strict=True):
            [[row, column]] = np.argwhere(target)
            case, place = divmod(int(image[row, column]), 1000)
            assert divmod(place, 12) == (case, 11)


@pytest.mark.parametrize("share", [1 / 3, 0.5, 0.7])
def test_every_batch_has_its_share_of_patches_on_the_foreground(share):
    """A patch on a structure holds one; of those anywhere some do by chance."""
    for batch in some(loader(foreground=share), 20):
        assert sum(target.any() for target in batch.targets) >= int(3 * share)


def test_patches_anywhere_reach_every_corner():
    corners = {int(image[0, 0, 0]) % 1000 for batch in some(loader(0.0), 200) for image in batch.images}
    assert {0, 8, 96, 104} <= corners


def balanced(seed: int = 3) -> Loader:
    return Loader(of_classes(90, 6, 3), (4, 4), 11, 0.0, seed, sampling="balanced")


def test_balanced_sampling_takes_every_class_equally_often_and_its_cases_in_turn():
    made = [balanced().of_step(step) for step in range(27)]  # 297 samples: 99 a class
    assert Counter(np.concatenate([batch.targets for batch in made]).tolist()) == {0: 99, 1: 99, 2: 99}
    seen = Counter(int(image[0, 0, 0]) for batch in made for image in batch.images)
    assert {seen[n] for n in range(90, 96)} <= {16, 17}  # 99 draws among six cases
    assert {seen[n] for n in range(96, 99)} == {33}
    assert {seen[n] for n in range(90)} == {1, 2}


@given(st.permutations(range(6)))
@settings(max_examples=10)
def test_balanced_batches_depend_on_seed_and_step_alone(steps):
    straight = {step: balanced().of_step(step) for step in range(6)}
    other = balanced()
    for step in steps:
        batch = other.of_step(step)
        assert_array_equal(batch.images, straight[step].images)
        assert [g.random() for g in batch.generators] == [g.random() for g in other.of_step(step).generators]


def counts_of(sampling: str, steps: int) -> tuple[Counter, Counter]:
    """How often each class and each case came, of 90, 6 and 3 cases in batches of 11."""
    made = Loader(of_classes(90, 6, 3), (4, 4), 11, 0.0, 3, sampling=sampling)
    batches = [made.of_step(step) for step in range(steps)]
    classes = Counter(np.concatenate([batch.targets for batch in batches]).tolist())
    return classes, Counter(int(image[0, 0, 0]) for batch in batches for image in batch.images)


def test_an_oversampled_epoch_shows_every_case_of_the_largest_class_once_and_the_others_as_often_together():
    classes, cases = counts_of("oversampled", 54)  # 594 samples: two epochs of 3 x 90 and a part
    assert [cases[n] for n in range(90)].count(2) + [cases[n] for n in range(90)].count(3) == 90
    first, _ = counts_of("oversampled", 270 // 11)
    assert max(first.values()) <= 90
    assert classes[1] == pytest.approx(198, abs=30)


def test_an_undersampled_epoch_leaves_most_of_the_largest_class_out_and_shows_others_of_it_the_next_time():
    classes, cases = counts_of("undersampled", 9)  # 99 samples: eleven epochs of 3 x 3
    assert classes == {0: 33, 1: 33, 2: 33}
    assert {cases[n] for n in range(90)} == {0, 1}
    assert {cases[n] for n in range(96, 99)} == {11}


def test_by_square_roots_classes_come_between_their_own_shares_and_equal_ones():
    each = np.rint(np.sqrt(np.array([90, 6, 3]) * 90.0))  # 90, 23 and 16 an epoch
    classes, _ = counts_of("square_root", int(each.sum()))  # eleven epochs
    assert [classes[n] for n in range(3)] == (11 * each).tolist()


@pytest.mark.parametrize("sampling", ["oversampled", "undersampled", "square_root"])
def test_however_cases_are_sampled_a_step_says_what_its_batch_holds(sampling):
    one, other = (Loader(of_classes(9, 6, 3), (4, 4), 5, 0.0, 3, sampling=sampling) for _ in range(2))
    later = [other.of_step(step) for step in (7, 2, 5)]
    for step, batch in zip((7, 2, 5), later, strict=True):
        assert_array_equal(batch.images, one.of_step(step).images)
        assert [a.random() for a in batch.generators] == [b.random() for b in one.of_step(step).generators]


def test_a_case_that_comes_again_is_changed_in_another_way():
    made = [balanced().of_step(step) for step in range(40)]
    sampled = [
        (int(image[0, 0, 0]), rng.random())
        for batch in made
        for image, rng in zip(batch.images, batch.generators, strict=True)
    ]
    assert len(set(sampled)) == len(sampled)


def test_a_structure_that_few_cases_hold_is_centred_on_more_often_than_by_its_cases_number():
    """Of ten cases one holds the rare structure beside the common one: it gets 10 of 11 of that case's patches."""
    common, rare, none = (np.array([[y, y]], np.int32) for y in (1, 9, 0))
    made = []
    for n in range(10):
        positions = (common, rare if n == 0 else none[:0])
        made.append(
            PreparedCase(
                str(n), np.full((1, 12, 12), n, np.float32), np.zeros((12, 12), np.uint8), positions, (1.0, 1.0)
            )
        )
        made[-1].image[0, 9, 9] = 100
    loader = Loader(made, (2, 2), 10, 1.0, 0)
    of_rare = sum(bool((image == 100).any()) for step in range(300) for image in loader.of_step(step).images)
    assert 250 < of_rare < 295  # of 300 draws of the one case; 150 where both structures counted alike


def test_of_measured_values_each_tenth_of_the_range_comes_as_often_and_a_hole_is_one_of_its_own():
    targets = [*np.linspace(0, 0.5, 12), 9.8, 10.0, np.nan]
    found = [
        PreparedCase(str(n), np.full((1, 4, 4), n, np.float32), np.array([target, 1.0], np.float32), (), (1.0, 1.0))
        for n, target in enumerate(targets)
    ]
    made = Loader(found, (4, 4), 3, 0.0, 3, sampling="balanced")
    sampled = Counter(int(image[0, 0, 0]) for step in range(40) for image in made.of_step(step).images)
    assert sum(sampled[n] for n in range(12)) == 40
    assert sampled[12] + sampled[13] == 40
    assert sampled[14] == 40


def test_without_balance_every_measured_case_comes_once_an_epoch():
    targets = np.array([[0.5, np.nan], [1.5, 2.0], [0.5, np.nan]], np.float32)
    found = [
        PreparedCase(str(n), np.zeros((1, 4, 4), np.float32), one, (), (1.0, 1.0)) for n, one in enumerate(targets)
    ]
    batch = Loader(found, (4, 4), 3, 0.0, 3).of_step(0)
    assert batch.targets.shape == (3, 2)
    assert sorted(batch.targets[:, 0].tolist()) == [0.5, 0.5, 1.5]


def of_several(there: tuple[bool, ...], left_out: float) -> Loader:
    """Cases of three images of which some are there, with a covariate before them in what is told."""
    has = np.array(there)
    context = np.array([7.0, *has], np.float32)
    found = [
        PreparedCase(
            str(n), np.ones((3, 4, 4), np.float32), np.int64(n % 2), (), (1.0, 1.0), context=context, there=has
        )
        for n in range(4)
    ]
    return Loader(found, (4, 4), 4, 0.0, 7, images=(0, 1, 2), left_out=left_out, flags=True)


@given(st.lists(st.booleans(), min_size=3, max_size=3).filter(any), st.floats(0, 0.99), st.integers(0, 99))
@settings(max_examples=40)
def test_an_image_is_left_out_only_if_it_is_there_and_another_one_stays(there, left_out, step):
    batch = of_several(tuple(there), left_out).of_step(step)
    assert batch.there is not None
    assert not (batch.there > np.array(there)).any()
    assert batch.there.any(axis=1).all()
    assert_array_equal(batch.context, np.concatenate([np.full((4, 1), 7), batch.there], axis=1))
    assert_array_equal(of_several(tuple(there), left_out).of_step(step).there, batch.there)


def test_each_image_is_left_out_as_often_as_the_plan_says_and_both_channels_of_one_together():
    made = of_several((True, True, True), 0.5)
    kept = np.concatenate([made.of_step(step).there for step in range(300)])
    # A coin each; once in eight all three would go, and one of them stays.
    assert kept.mean(axis=0) == pytest.approx([1 / 2 + 1 / 8 / 3] * 3, abs=0.05)
    paired = Loader(made.cases, (4, 4), 4, 0.0, 7, images=(0, 0, 1), left_out=0.5, flags=True)
    kept = np.concatenate([paired.of_step(step).there for step in range(20)])
    assert_array_equal(kept[:, 0], kept[:, 1])
    assert not np.array_equal(kept[:, 0], kept[:, 2])
