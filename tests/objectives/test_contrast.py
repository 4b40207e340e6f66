"""The losses of contrast, against plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hilum.objectives import contrast
from hilum.objectives.contrast import Contrast
from hilum.values import Fingerprint


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / math.sqrt(float(one @ one) * float(other @ other)))


def plain_nt_xent(left: np.ndarray, right: np.ndarray, temperature: float) -> float:
    """Equation 1 of SimCLR, as NTXentLoss of lightly gives it: the mean over both views of all images."""
    both, count = [*left, *right], len(left)
    costs = []
    for place, own in enumerate(both):
        others = [math.exp(cosine(own, other) / temperature) for n, other in enumerate(both) if n != place]
        true = math.exp(cosine(own, both[(place + count) % (2 * count)]) / temperature)
        costs.append(-math.log(true / sum(others)))
    return sum(costs) / len(costs)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_with_one_image_a_patient_the_loss_is_nt_xent(temperature: float) -> None:
    left, right = np.random.default_rng(0).normal(size=(2, 6, 5))
    given = [torch.from_numpy(one) for one in (left, right)]
    found = contrast.normalised_cross_entropy(*given, torch.arange(6), temperature).mean()
    assert found.item() == pytest.approx(plain_nt_xent(left, right, temperature), abs=1e-6)


def test_images_of_one_patient_are_no_negatives() -> None:
    left, right = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    owners = torch.tensor([0, 0, 1, 2])
    before = contrast.normalised_cross_entropy(left, right, owners, 0.5)
    moved = left.clone()
    moved[1] = -left[0]
    after = contrast.normalised_cross_entropy(moved, right, owners, 0.5)
    assert after[0].item() == before[0].item()
    assert after[2].item() != before[2].item()
    alone = contrast.normalised_cross_entropy(left, right, torch.zeros(4, dtype=torch.int64), 0.5)
    assert alone.abs().max().item() < 1e-6


def test_a_key_of_the_queue_counts_unless_it_is_of_the_same_patient() -> None:
    own = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    keys = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    found = contrast.info_nce(own, keys, torch.tensor([0, 1]), torch.tensor([0, 1, 2]), 1.0)
    expected = [math.log(2 * math.e + 1) - 1, math.log(math.e + 2) - 1]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    same = contrast.info_nce(own, keys, torch.tensor([0, 1]), torch.tensor([0, 1, 0]), 1.0)
    assert same[0].item() == pytest.approx(math.log(math.e + 1) - 1, abs=1e-6)


@pytest.mark.parametrize("shape", [(32,), (16, 12), (8, 9, 10)])
def test_a_crop_has_the_size_of_the_image_and_all_of_it_is_the_image(shape: tuple[int, ...]) -> None:
    images = torch.randn(3, 2, *shape)
    assert contrast.crop_images(images, 0.3).shape == images.shape
    assert torch.allclose(contrast.crop_images(images, 1.0), images, atol=1e-5)


def test_without_a_queue_two_images_are_needed() -> None:
    assert (Contrast().fewest, Contrast(queue=8).fewest) == (2, 1)


def test_pictures_need_no_queue() -> None:
    assert Contrast.settings_for(None, Fingerprint(()))["queue"].value == 0  # type: ignore[arg-type]
