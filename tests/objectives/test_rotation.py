"""Quarter turns of images."""

from __future__ import annotations

import torch

from hilum.objectives import rotation


def test_each_image_gets_its_own_turns() -> None:
    images = torch.arange(4.0).reshape(1, 1, 2, 2).repeat(4, 1, 1, 1)
    found = rotation.quarter_turns(images, torch.arange(4)).flatten(1).tolist()
    assert found == [[0, 1, 2, 3], [1, 3, 0, 2], [3, 2, 1, 0], [2, 0, 3, 1]]


def test_of_what_is_no_square_the_middle_is_turned() -> None:
    images = torch.randn(2, 1, 6, 4, 5)
    assert rotation.quarter_turns(images, torch.tensor([0, 1])).shape == images.shape
