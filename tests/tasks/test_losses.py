from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss, FocalLoss, GeneralizedDiceLoss, HausdorffDTLoss, SoftclDiceLoss, TverskyLoss
from monai.losses.cldice import soft_skel
from monai.metrics import CalibrationErrorMetric, CalibrationReduction
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from hilum.errors import PlanError
from hilum.tasks.shared import label_losses
from hilum.tasks.shared.label_losses import TERMS
from matrices import thinned

# Every term by itself, and sums as plans have them.
LOSSES = (*TERMS, "dice+ce", "dice+focal", "dice+ce+boundary", "dice+ce+cldice", "tversky+topk+hausdorff")


def certain(target: torch.Tensor, channels: int = 3, by: float = 30.0) -> torch.Tensor:
    return by * torch.nn.functional.one_hot(target, channels).movedim(-1, 1).float()


def random_voxels(shape: tuple[int, ...], channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, channels, shape, generator=generator)
    return torch.randn((shape[0], channels, *shape[1:]), generator=generator), target


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", thinned(1, [(2, 12), (2, 9, 9), (1, 6, 7, 8)], one_value=True))
def test_in_any_number_of_axes_the_truth_costs_nothing_and_something_else_much(name, shape):
    _, target = random_voxels(shape)
    assert float(label_losses.label_loss(name, certain(target), target)) == pytest.approx(0.0, abs=1e-3)
    counted = {TERMS[term].counts for term in name.split("+")}
    if not counted <= {"shape", "calibration"}:  # among random voxels nothing has a shape
        wrong = float(label_losses.label_loss(name, certain((target + 1) % 3), target))
        assert wrong > (10 if "voxels" in counted else 0.9)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_any_structure_or_with_some_only_has_a_finite_gradient(name):
    for target in (torch.zeros(2, 8, 8, dtype=torch.long), torch.ones(2, 8, 8, dtype=torch.long)):
        logits = torch.zeros(2, 3, 8, 8, requires_grad=True)
        label_losses.label_loss(name, logits, target).backward()
        assert logits.grad.isfinite().all()
        if any(TERMS[term].counts == "voxels" for term in name.split("+")):
            assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["ce", "topk", "focal"])
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 3.0])])
def test_a_deterministic_training_on_a_gpu_has_the_same_loss_without_what_torch_refuses_there(name, weights):
    """torch refuses its cross-entropy of every voxel on CUDA devices: `NLLLoss` of `use_deterministic_algorithms`."""
    used = set()

    class Used(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            used.add(function._overloadpacket.__name__)
            return function(*args, **(kwargs or {}))

    logits, target = random_voxels((2, 6, 7, 8))
    torch.use_deterministic_algorithms(True)
    try:
        with FakeTensorMode(), Used():
            given = torch.empty(logits.shape, device="cuda")
            there = None if weights is None else torch.empty(3, device="cuda")
            label_losses.label_loss(name, given, torch.zeros(target.shape, dtype=torch.long, device="cuda"), there)
    finally:
        torch.use_deterministic_algorithms(False)
    assert {"_log_softmax", "gather"} <= used
    assert not any(operation.startswith("nll_loss") for operation in used)
    # What is computed there instead is the same.
    with pytest.MonkeyPatch.context() as patch:
        expected = label_losses.label_loss(name, logits, target, weights)
        patch.setattr(label_losses, "_differs_between_runs", lambda logits: True)
        assert float(label_losses.label_loss(name, logits, target, weights)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_changes_no_loss_beyond_its_own_rounding(name):
    logits, target = random_voxels((1, 16, 16, 16), 2)
    halves = logits.bfloat16()
    cost = label_losses.label_loss(name, halves, target)
    assert cost.dtype == torch.float32
    assert float(cost) == pytest.approx(float(label_losses.label_loss(name, halves.double().float(), target)), rel=1e-6)


@pytest.mark.parametrize(
    "term",
    [
        label_losses.soft_dice_loss,
        label_losses.tversky,
        label_losses.focal_tversky,
        label_losses.generalised_dice,
        label_losses.boundary,
        label_losses.surface_distance_loss,
        label_losses.hausdorff,
        label_losses.soft_centreline_dice,
        label_losses.ace,
    ],
)
def test_a_label_that_the_batch_lacks_leaves_the_terms_of_the_others_alone(term):
    logits, target = random_voxels((2, 8, 8), 2)
    with_another = torch.cat([logits, torch.full_like(logits[:, :1], -30)], dim=1)
    assert float(term(with_another, target)) == pytest.approx(float(term(logits, target)), abs=1e-5)


def test_the_batch_dice_is_that_of_monai_where_every_label_is_there():
    logits, target = random_voxels((2, 6, 7, 8))
    theirs = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    assert float(label_losses.soft_dice_loss(logits, target)) == pytest.approx(
        float(theirs(logits, target[:, None])), abs=1e-4
    )


def test_the_focal_term_is_that_of_monai_with_as_many_channels_as_it_averages_over():
    logits, target = random_voxels((2, 9, 9))
    theirs = FocalLoss(gamma=2.0, to_onehot_y=True, use_softmax=True)
    assert float(label_losses.focal(logits, target)) == pytest.approx(
        3 * float(theirs(logits, target[:, None])), rel=1e-4
    )


def test_weights_count_voxels_as_often_as_they_say():
    logits, target = random_voxels((1, 40))
    weights = torch.tensor([1.0, 3.0, 1.0])
    times = weights[target[0]].long()
    thrice = logits[0].repeat_interleave(times, dim=1)[None]
    for term in (label_losses.mean_cross_entropy, label_losses.focal):
        again = term(thrice, target[0].repeat_interleave(times)[None])
        assert float(term(logits, target, weights)) == pytest.approx(float(again), rel=1e-5)


def lines(*columns: int) -> torch.Tensor:
    target = torch.zeros(1, 16, 16, dtype=torch.long)
    target[0, :, list(columns)] = 1
    return target


def test_a_thin_line_one_voxel_beside_costs_no_boundary_and_further_away_all():
    truth = lines(4)
    costs = [float(label_losses.boundary(certain(lines(place), 2), truth)) for place in (4, 5, 6, 9)]
    assert costs == pytest.approx([0.0, 0.0, 1.0, 1.0], abs=1e-3)


def test_a_thin_structure_that_is_missed_beside_a_thick_one_costs_more_boundary_than_overlap():
    truth = lines(2, *range(6, 14))
    missed = certain(lines(*range(6, 14)), 2)
    # overlap: 128 of 144 voxels found, Dice 2 * 128 / 272; surface: both sides of the thick one and the thin one
    assert float(label_losses.soft_dice_loss(missed, truth)) == pytest.approx(1 - 256 / 272, abs=1e-3)
    assert float(label_losses.boundary(missed, truth)) == pytest.approx(1 - 2 * (2 / 3) / (5 / 3), abs=1e-3)


@pytest.mark.parametrize("name", thinned(6, LOSSES))
def test_every_loss_falls_when_it_is_followed(name):
    target = lines(3, 4, 5, 6, 11) + lines(11)
    rate = 20 if name == "topk" else 100  # its slope lies on a tenth of the voxels
    logits = torch.zeros(1, 3, 16, 16, requires_grad=True)
    costs = []
    for _ in range(12):
        cost = label_losses.label_loss(name, logits, target)
        (slope,) = torch.autograd.grad(cost, logits)
        logits = (logits - rate * slope).detach().requires_grad_()
        costs.append(float(cost.detach()))
    assert min(costs) < 0.7 * costs[0]
    assert np.isfinite(costs).all()


def test_the_generalised_dice_is_that_of_monai():
    logits, target = random_voxels((2, 9, 9))
    theirs = GeneralizedDiceLoss(to_onehot_y=True, softmax=True, batch=True, smooth_nr=0, smooth_dr=0)
    assert float(label_losses.generalised_dice(logits, target)) == pytest.approx(
        float(theirs(logits, target[:, None])), rel=1e-5
    )


def test_the_tversky_term_is_that_of_monai_and_its_focal_form_a_power_of_each_label():
    logits, target = random_voxels((2, 6, 7, 8))
    given = {"include_background": False, "to_onehot_y": True, "softmax": True, "batch": True}
    theirs = TverskyLoss(alpha=0.3, beta=0.7, **given)
    assert float(label_losses.tversky(logits, target)) == pytest.approx(
        float(theirs(logits, target[:, None])), abs=1e-5
    )
    each = TverskyLoss(alpha=0.3, beta=0.7, reduction="none", **given)(logits, target[:, None])
    assert float(label_losses.focal_tversky(logits, target)) == pytest.approx(float((each**0.75).mean()), rel=1e-4)


def test_what_is_missed_costs_more_tversky_than_what_is_too_much():
    truth, less, more = lines(*range(4, 8)), lines(*range(4, 6)), lines(*range(4, 10))
    missed, false = (float(label_losses.tversky(certain(marked, 2), truth)) for marked in (less, more))
    assert missed == pytest.approx(1 - 2 / (2 + 0.7 * 2), abs=1e-3)
    assert false == pytest.approx(1 - 4 / (4 + 0.3 * 2), abs=1e-3)


def test_the_hausdorff_term_is_that_of_monai_divided_by_its_weights():
    logits, target = random_voxels((1, 12, 12), 2)
    theirs = HausdorffDTLoss(alpha=2.0, include_background=False, to_onehot_y=True, softmax=True)
    nothing = HausdorffDTLoss(alpha=2.0, include_background=True)
    marked = (logits.softmax(dim=1)[:, 1:] > 0.5).float()
    # Where prediction and truth differ by 1 everywhere, what they make is the mean of the weights.
    weights = nothing.distance_field(marked) ** 2 + nothing.distance_field(target[:, None].float()) ** 2
    expected = float(theirs(logits, target[:, None])) / float(weights.mean())
    assert float(label_losses.hausdorff(logits, target)) == pytest.approx(expected, rel=1e-4)


def test_a_distance_costs_as_many_voxels_as_the_error_lies_away():
    # Of 16 columns the first 8 are the structure: column n lies 8 - n voxels from the outside, or n - 7 from inside.
    truth = lines(*range(8))
    away = np.array([*range(8, 0, -1), *range(1, 9)])
    near, far = (
        float(label_losses.surface_distance_loss(certain(lines(*range(8), place), 2), truth)) for place in (8, 15)
    )
    assert near == pytest.approx(1 / away.sum(), abs=1e-4)
    assert far == pytest.approx(8 / away.sum(), abs=1e-4)


def beside_a_point(*wrong: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Truth of one voxel in the middle of 9 × 9, logits that mark others too, and mm to the surface at 1 × 4 mm."""
    truth = torch.zeros(1, 9, 9, dtype=torch.long)
    truth[0, 4, 4] = 1
    marked = truth.clone()
    for place in wrong:
        marked[0][place] = 1
    index = np.indices((9, 9)) - 4
    away = np.hypot(index[0] * 1.0, index[1] * 4.0)
    away[4, 4] = 1.0  # the nearest voxel outside
    return truth, certain(marked, 2), away


def test_an_error_costs_the_mm_to_the_surface_where_voxels_are_no_cubes():
    for place in ((8, 4), (4, 5), (7, 6)):
        truth, logits, away = beside_a_point(place)
        found = label_losses.label_loss("distance", logits, truth, spacing=(1.0, 4.0))
        assert float(found) == pytest.approx(away[place] / away.sum(), rel=1e-4)


def test_a_hausdorff_error_costs_the_squared_mm_to_both_surfaces_where_voxels_are_no_cubes():
    place, (truth, logits, away) = (4, 6), beside_a_point((4, 6))
    other = np.hypot(np.indices((9, 9))[0] - 4, (np.indices((9, 9))[1] - 6) * 4.0)
    predicted = np.minimum(away, other)
    predicted[4, [4, 6]] = 1.0
    weights = away**2 + predicted**2
    found = label_losses.label_loss("hausdorff", logits, truth, spacing=(1.0, 4.0))
    assert float(found) == pytest.approx(weights[place] / weights.sum(), rel=1e-4)


@pytest.mark.parametrize("name", ["distance", "hausdorff"])
def test_a_term_of_distances_weighs_alike_in_mm_and_in_voxels_of_cubes(name):
    logits, target = random_voxels((2, 6, 7, 8))
    in_mm = label_losses.label_loss(name, logits, target, spacing=(0.7, 0.7, 0.7))
    assert float(in_mm) == pytest.approx(float(label_losses.label_loss(name, logits, target)), rel=1e-5)


def test_the_signed_distances_of_the_paper_differ_from_ours_by_a_constant_and_a_unit():
    logits, target = random_voxels((1, 12, 12), 2)
    truth = target.float()[:, None]
    away = HausdorffDTLoss().distance_field(truth)
    signed = torch.where(truth > 0, -away, away)
    probabilities = logits.softmax(dim=1)[:, 1:]
    theirs = (signed * probabilities).sum() - (signed * truth).sum()
    assert float(label_losses.surface_distance_loss(logits, target)) == pytest.approx(
        float(theirs / away.sum()), rel=1e-4
    )


@pytest.mark.parametrize("shape", thinned(1, [(1, 20, 20), (1, 10, 11, 12)], one_value=True))
def test_the_soft_skeleton_and_what_it_costs_are_those_of_monai(shape):
    logits, target = random_voxels(shape, 2)
    probabilities, truth = logits.softmax(dim=1)[:, 1:], target[:, None].float()
    assert torch.allclose(label_losses.soft_skeleton(probabilities, 3), soft_skel(probabilities, 3), atol=1e-6)
    theirs = SoftclDiceLoss(iter_=8, smooth_nr=1e-5, smooth_dr=1e-5, smooth=1e-5)
    assert float(label_losses.soft_centreline_dice(logits, target)) == pytest.approx(
        float(theirs(probabilities, truth)), rel=1e-4
    )


def test_a_broken_vessel_costs_its_share_of_the_centreline_however_thin_the_break_is():
    truth = torch.zeros(1, 40, 40, dtype=torch.long)
    truth[0, 5:35, 18:21] = 1
    broken, thinned = truth.clone(), truth.clone()
    broken[0, 15:25, 18:21] = 0
    thinned[0, 5:35, [18, 20]] = 0
    assert float(label_losses.soft_centreline_dice(certain(thinned, 2), truth)) < 0.05
    assert float(label_losses.soft_centreline_dice(certain(broken, 2), truth)) > 0.15
    assert float(label_losses.soft_dice_loss(certain(thinned, 2), truth)) > float(
        label_losses.soft_dice_loss(certain(broken, 2), truth)
    )


def test_centrelines_are_followed_of_the_named_labels_alone():
    logits, target = random_voxels((1, 16, 16))
    second = label_losses.soft_centreline_dice(logits, target, labels=[2])
    assert float(label_losses.label_loss("dice+cldice", logits, target, lines=[2])) == pytest.approx(
        float(label_losses.soft_dice_loss(logits, target) + second), rel=1e-5
    )
    assert float(second) != pytest.approx(float(label_losses.soft_centreline_dice(logits, target)))


def test_of_a_skeleton_no_more_is_kept_for_the_way_back_than_one_erosion_needs():
    inside, kept = torch.rand(1, 1, 24, 24, 24, requires_grad=True), []

    def counted(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(counted, lambda tensor: tensor):
        label_losses.soft_skeleton(inside)
    assert sum(kept) < 9 * 8 * inside.numel()


def test_the_average_calibration_error_is_the_mean_gap_of_the_bins_and_that_of_monai():
    # Of 10 voxels 4 have the label with a probability of .8, of which 2 rightly; 6 have it with .1, all wrongly.
    chances = torch.tensor([0.8] * 4 + [0.1] * 6)
    target = torch.tensor([[1, 1] + [0] * 8])
    logits = torch.stack([1 - chances, chances]).log()[None]
    assert float(label_losses.ace(logits, target)) == pytest.approx((abs(0.8 - 0.5) + abs(0.1 - 0)) / 2, abs=1e-6)
    logits, target = random_voxels((2, 9, 9))
    theirs = CalibrationErrorMetric(20, include_background=False, calibration_reduction=CalibrationReduction.AVERAGE)
    theirs(logits.softmax(dim=1), torch.nn.functional.one_hot(target).movedim(-1, 1).float())
    assert float(label_losses.ace(logits, target)) == pytest.approx(float(theirs.aggregate()), abs=1e-6)


def test_the_hardest_tenth_of_the_voxels_counts_and_no_other():
    logits, target = random_voxels((1, 10, 10))
    each = torch.nn.functional.cross_entropy(logits, target, reduction="none").flatten()
    assert float(label_losses.hardest_tenth(logits, target)) == pytest.approx(
        float(each.sort(descending=True).values[:10].mean())
    )


@pytest.mark.parametrize(
    ("name", "weighted", "message"),
    [
        ("dice+cross", False, "there is no loss 'cross'"),
        ("dice+dice", False, "names a term twice"),
        ("boundary", False, "does not teach which label every voxel has"),
        ("hausdorff+distance", False, "does not teach which label every voxel has"),
        ("ace", False, "does not teach which label every voxel has"),
        ("dice+ce+cldice", False, "no label is long and thin"),
        ("dice", True, "weights would do nothing"),
    ],
)
def test_terms_that_would_not_teach_what_they_say_are_refused(name, weighted, message):
    with pytest.raises(PlanError, match=message):
        label_losses.check_label_loss(name, weighted, ())


def test_losses_that_take_distances_say_that_nothing_may_cut_them():
    assert label_losses.why_loss_uncut("dice+ce+boundary") == ""
    assert "hausdorff and distance" in label_losses.why_loss_uncut("dice+hausdorff+distance")
    label_losses.check_label_loss("dice+ce+cldice", True, ["vessel"])
