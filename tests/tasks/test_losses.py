from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss, FocalLoss

from isocenter.tasks.losses import LOSSES, boundary, dice, entropy, focal, label_loss


def certain(target: torch.Tensor, channels: int = 3, by: float = 30.0) -> torch.Tensor:
    return by * torch.nn.functional.one_hot(target, channels).movedim(-1, 1).float()


def drawn(shape: tuple[int, ...], channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, channels, shape, generator=generator)
    return torch.randn((shape[0], channels, *shape[1:]), generator=generator), target


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", [(2, 12), (2, 9, 9), (1, 6, 7, 8)])
def test_in_any_number_of_axes_the_truth_costs_nothing_and_something_else_much(name, shape):
    _, target = drawn(shape)
    assert float(label_loss(name, certain(target), target)) == pytest.approx(0.0, abs=1e-3)
    assert float(label_loss(name, certain((target + 1) % 3), target)) > 10


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_any_structure_or_with_some_only_has_a_finite_gradient(name):
    for target in (torch.zeros(2, 8, 8, dtype=torch.long), torch.ones(2, 8, 8, dtype=torch.long)):
        logits = torch.zeros(2, 3, 8, 8, requires_grad=True)
        label_loss(name, logits, target).backward()
        assert logits.grad.isfinite().all()
        assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("term", [dice, boundary])
def test_a_label_that_the_batch_lacks_leaves_the_terms_of_the_others_alone(term):
    logits, target = drawn((2, 8, 8), 2)
    with_another = torch.cat([logits, torch.full_like(logits[:, :1], -30)], dim=1)
    assert float(term(with_another, target)) == pytest.approx(float(term(logits, target)), abs=1e-5)


def test_the_batch_dice_is_that_of_monai_where_every_label_is_there():
    logits, target = drawn((2, 6, 7, 8))
    theirs = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    assert float(dice(logits, target)) == pytest.approx(float(theirs(logits, target[:, None])), abs=1e-4)


def test_the_focal_term_is_that_of_monai_with_as_many_channels_as_it_averages_over():
    logits, target = drawn((2, 9, 9))
    theirs = FocalLoss(gamma=2.0, to_onehot_y=True, use_softmax=True)
    assert float(focal(logits, target)) == pytest.approx(3 * float(theirs(logits, target[:, None])), rel=1e-4)


def test_weights_count_voxels_as_often_as_they_say():
    logits, target = drawn((1, 40))
    weights = torch.tensor([1.0, 3.0, 1.0])
    times = weights[target[0]].long()
    thrice = logits[0].repeat_interleave(times, dim=1)[None]
    for term in (entropy, focal):
        again = term(thrice, target[0].repeat_interleave(times)[None])
        assert float(term(logits, target, weights)) == pytest.approx(float(again), rel=1e-5)


def lines(*columns: int) -> torch.Tensor:
    target = torch.zeros(1, 16, 16, dtype=torch.long)
    target[0, :, list(columns)] = 1
    return target


def test_a_thin_line_one_voxel_beside_costs_no_boundary_and_further_away_all():
    truth = lines(4)
    costs = [float(boundary(certain(lines(place), 2), truth)) for place in (4, 5, 6, 9)]
    assert costs == pytest.approx([0.0, 0.0, 1.0, 1.0], abs=1e-3)


def test_a_thin_structure_that_is_missed_beside_a_thick_one_costs_more_boundary_than_overlap():
    truth = lines(2, *range(6, 14))
    missed = certain(lines(*range(6, 14)), 2)
    # overlap: 128 of 144 voxels found, Dice 2 * 128 / 272; surface: both sides of the thick one and the thin one
    assert float(dice(missed, truth)) == pytest.approx(1 - 256 / 272, abs=1e-3)
    assert float(boundary(missed, truth)) == pytest.approx(1 - 2 * (2 / 3) / (5 / 3), abs=1e-3)


def test_every_loss_falls_when_it_is_followed():
    _, target = drawn((1, 8, 8))
    for name in LOSSES:
        logits = torch.zeros(1, 3, 8, 8, requires_grad=True)
        costs = []
        for _ in range(8):
            cost = label_loss(name, logits, target)
            (slope,) = torch.autograd.grad(cost, logits)
            logits = (logits - 50 * slope).detach().requires_grad_()
            costs.append(float(cost))
        assert costs[-1] < 0.5 * costs[0], name
        assert np.isfinite(costs).all()
