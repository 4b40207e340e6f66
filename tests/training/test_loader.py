from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from isocenter.training import Loader, Prepared


def cases(count: int = 5, size: int = 12) -> list[Prepared]:
    """Each with one marked voxel, far from the middle; a voxel's value is its own place."""
    found = []
    for n in range(count):
        image = np.arange(size**2, dtype=np.float32).reshape(1, size, size) + 1000 * n
        target = np.zeros((size, size), np.uint8)
        target[n, size - 1] = 1
        found.append(Prepared(str(n), image, target, (np.argwhere(target).astype(np.int32),), (1.0, 1.0)))
    return found


def loader(foreground: float = 0.5, seed: int = 7) -> Loader:
    return Loader(cases(), (4, 4), 3, foreground, seed)


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
    for first, last in ((0, 10), (4, 10), (9, 10), (3, 3)):
        made = list(loader().batches(first, last))
        assert len(made) == last - first
        for step, batch in enumerate(made, start=first):
            assert_array_equal(batch.images, loader().of_step(step).images)


def test_another_seed_gives_other_batches():
    assert not np.array_equal(loader(seed=1).of_step(0).images, loader(seed=2).of_step(0).images)


def test_every_case_is_seen_once_an_epoch():
    seen = [int(image.min() // 1000) for step in range(5) for image in loader().of_step(step).images]
    for epoch in range(3):
        assert sorted(seen[5 * epoch : 5 * epoch + 5]) == [0, 1, 2, 3, 4]


def test_patches_on_the_foreground_hold_the_structure_and_targets_lie_where_images_do():
    for batch in loader(foreground=1.0).batches(0, 10):
        for image, target in zip(batch.images[:, 0], batch.targets, strict=True):
            [[row, column]] = np.argwhere(target)
            case, place = divmod(int(image[row, column]), 1000)
            assert divmod(place, 12) == (case, 11)


def test_patches_anywhere_reach_every_corner():
    corners = {int(image[0, 0, 0]) % 1000 for batch in loader(0.0).batches(0, 200) for image in batch.images}
    assert {0, 8, 96, 104} <= corners
