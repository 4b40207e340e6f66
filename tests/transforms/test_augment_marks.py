"""What a network has marked, marked worse."""

from __future__ import annotations

import numpy as np
import torch

from isocenter.transforms import Augmentation, generator
from isocenter.transforms.augment import MOST_VOXELS, grown, mismarked


def square(side: int = 21) -> torch.Tensor:
    numbers = torch.zeros(side, side, dtype=torch.uint8)
    numbers[8:13, 8:13] = 1
    numbers[8:13, 13:16] = 2
    return numbers


def test_a_structure_grows_by_as_many_voxels_along_each_axis():
    mask = torch.zeros(9, 9, 9, dtype=torch.bool)
    mask[4, 4, 4] = True
    assert torch.nonzero(grown(mask, 2)).min(dim=0).values.tolist() == [2, 2, 2]
    assert int(grown(mask, 2).sum()) == 5**3


def test_labels_grow_shrink_and_are_forgotten_and_none_takes_another_ones_place():
    numbers, mistakes = square(), set()
    for seed in range(60):
        made = mismarked(numbers, 1.0, np.random.default_rng(seed))
        assert set(made.unique().tolist()) <= {0, 1, 2}
        assert not ((made > 0) & (numbers > 0) & (made != numbers)).any()
        for number in (1, 2):
            before, after = int((numbers == number).sum()), int((made == number).sum())
            mistakes.add(
                "gone" if after == 0 else "larger" if after > before else "smaller" if after < before else "same"
            )
        reach = grown(numbers > 0, MOST_VOXELS)
        assert not ((made > 0) & ~reach).any()
    assert {"gone", "larger", "smaller"} <= mistakes


def test_as_many_are_mistaken_as_was_asked_for():
    numbers = square()
    each = [generator(0, 0, n) for n in range(400)]
    made = Augmentation(marks=0.4).mistaken(numbers.expand(400, -1, -1), each)
    share = float((made != numbers).flatten(1).any(dim=1).float().mean())
    chance = 1 - (1 - (0.4 + 0.1 - 0.04)) ** 2  # of either label: changed in size, or forgotten
    assert abs(share - chance) < 0.08


def test_without_a_chance_everything_stays():
    numbers = square()[None]
    assert Augmentation().mistaken(numbers, [generator(0, 0, 0)]) is numbers
