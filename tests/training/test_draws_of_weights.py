from __future__ import annotations

import pytest
import torch
from numpy.testing import assert_allclose

from isocenter.runtime import write_tensors
from isocenter.training.members.one_training import _draws


def test_draws_have_the_mean_of_the_weights_and_half_of_both_variances(tmp_path):
    kept = torch.tensor([[1.0, 10.0], [3.0, 10.0], [5.0, 16.0], [7.0, 4.0]])
    files = [tmp_path / f"{number}.safetensors" for number in range(4)]
    for file, weight in zip(files, kept, strict=True):
        write_tensors(file, {"weight": weight})
    drawn = torch.stack([one["weight"] for one in _draws(files, 3000, seed=1)])
    assert_allclose(drawn.mean(dim=0), kept.mean(dim=0), atol=0.2)
    whole = torch.cov(kept.T)
    expected = whole / 2 + torch.diag(kept.var(dim=0, correction=0)) / 2
    assert_allclose(torch.cov(drawn.T), expected, atol=0.1 * expected.abs().max())
    assert (_draws(files, 2, seed=1)[1]["weight"] == drawn[1]).all()
    assert (_draws(files, 2, seed=2)[1]["weight"] != drawn[1]).all()


@pytest.mark.parametrize("count", [0, 2])
def test_too_few_weights_give_no_draws(tmp_path, count):
    files = [tmp_path / f"{number}.safetensors" for number in range(count)]
    for file in files:
        write_tensors(file, {"weight": torch.ones(2)})
    assert _draws(files, 3, seed=0) == []
