"""Regions that overlap, voxels to ignore, slices that nobody contoured, readers who are divided."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from hilum.errors import GeometryError, PlanError
from hilum.layouts import dataset_layouts
from hilum.runtime import Preprocessing
from hilum.tasks import task_catalogue, task_settings
from hilum.tasks.segmentation import mask_losses
from hilum.tasks.segmentation import partial_labels as segmentation_partly
from hilum.tasks.segmentation import targets as segmentation_targets
from hilum.tasks.segmentation.mask_losses import OF_SHARES
from hilum.tasks.segmentation.question import Segmentation
from hilum.tasks.segmentation.targets import Codes
from hilum.tasks.shared.label_losses import TERMS
from hilum.training.data import target_kinds
from hilum.training.data.target_kinds import SampledMovement
from hilum.transforms import random_draws
from hilum.transforms.augment import Augmentation
from hilum.transforms.intensity import Normalisation
from hilum.values import Case, CaseFacts, Dataset, Fingerprint, Geometry, Image, Label, Prediction, voxel_images

GRID = Geometry((6, 6, 4), np.diag([1.0, 1.0, 2.0, 1.0]))
REGIONS = {"whole": (2, 1, 4), "core": (1, 4), "enhancing": (4,)}
LABELS = voxel_images.labels_of_regions(REGIONS)
TUMOUR = Segmentation(LABELS, regions=REGIONS)
PARTIAL = Segmentation((Label(1, "organ"), Label(2, "lesion")), ignore=9)


def mask(*values: int) -> np.ndarray:
    """The values one after the other along the first axis, the last of them to the end."""
    array = np.zeros(GRID.shape, np.uint8)
    for place, value in enumerate(values):
        array[place:] = value
    return array


def case(first: np.ndarray, **others: np.ndarray) -> Case:
    image = Image(np.zeros((1, *GRID.shape), np.float32), GRID)
    known = {"facts": {"reader": "anna"}} if others else {}
    references = {"mask": Image(first[None], GRID, **known)}
    for reader, mask in others.items():
        references[f"mask:{reader}"] = Image(mask[None], GRID, facts={"reader": reader})
    return Case("a", "a", {"image": image}, references)


def scored(task: Segmentation, predicted: np.ndarray, of: Case):
    return task.score([Prediction(GRID, data=predicted, labels=task.labels)], [of]).set_index("label")


# Regions


def test_what_each_value_means_is_its_region_without_the_later_ones():
    assert {label.value: label.name for label in LABELS} == {1: "core (rest)", 2: "whole (rest)", 4: "enhancing"}
    unmarked = voxel_images.labels_of_regions({"whole": (1, 2, 3), "core": (3,)})
    assert {label.value: label.name for label in unmarked} == {1: "whole (rest)", 2: "whole (2)", 3: "core"}


@pytest.mark.parametrize("name", ["dice+ce", "ce", "dice+focal", "dice+ce+boundary"])
def test_the_loss_of_regions_is_the_mean_of_each_against_the_rest(name):
    rng = np.random.default_rng(0)
    target = torch.from_numpy(rng.integers(0, 4, (2, 8, 8)))
    logits = torch.from_numpy(rng.normal(size=(2, 3, 8, 8))).float()
    task = Segmentation(LABELS, name, regions=REGIONS)
    # The labels stand as 1, 2, 4: of these the numbers are 1, 2, 3.
    each = []
    for place, numbers in enumerate(((1, 2, 3), (1, 3), (3,))):
        both = torch.stack([torch.zeros_like(logits[:, place]), logits[:, place]], dim=1)
        truth = torch.isin(target, torch.tensor(numbers)).long()
        each.append(sum(float(TERMS[term].cost(both, truth)) for term in name.split("+")))
    assert float(task.loss({"mask": logits}, target)) == pytest.approx(np.mean(each), rel=1e-5)


def test_the_entropy_of_a_region_is_the_binary_one():
    target, logits = torch.tensor([[0, 1, 2, 3]]), torch.tensor([[[0.3, -1.0, 2.0, 0.5]] * 3])
    truth = torch.tensor([[[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1.0]]])
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
    task = Segmentation(LABELS, "ce", regions=REGIONS)
    assert float(task.loss({"mask": logits}, target)) == pytest.approx(float(wanted), rel=1e-6)


def test_regions_are_written_one_over_another_and_come_back_from_their_label_map():
    truth = mask(0, 2, 1, 4, 2, 0)
    logits = np.stack([np.where(np.isin(truth, values), 3.0, -3.0) for values in REGIONS.values()])
    slabs = [(tuple(slice(0, n) for n in GRID.shape), {"mask": logits})]
    prediction = TUMOUR.decode(slabs, GRID)
    assert_array_equal(prediction.data, truth)
    assert_allclose(TUMOUR.probabilities({"mask": logits})["mask"][0].max(), 1 / (1 + math.exp(-3)), rtol=1e-6)
    table = scored(TUMOUR, np.asarray(prediction.data), case(truth))
    assert list(table.index) == ["whole", "core", "enhancing"]
    assert (table["dice"] == 1).all()
    outputs = {name: value for name, value in TUMOUR.outputs(prediction).items() if value is not None}
    assert outputs == {"whole_ml": 0.192, "core_ml": 0.096, "enhancing_ml": 0.048}


def test_a_region_is_scored_with_all_that_lies_in_it():
    # The rest of the whole is taken for core: the whole does not change, the core is twice as large.
    table = scored(TUMOUR, mask(0, 1, 1, 0), case(mask(0, 2, 1, 0)))
    assert (table.loc["whole", "dice"], table.loc["core", "dice"]) == (1.0, pytest.approx(2 / 3))


def test_a_region_that_a_later_one_hides_is_refused():
    for regions, says in (({"whole": [4, 1, 2], "core": [4]}, "core holds too"), ({"whole": [7]}, "made of")):
        settings = {**task_settings.settings_of(TUMOUR), "regions": regions, "tolerance": 2.0}
        with pytest.raises(PlanError, match=says):
            task_catalogue.build_task({"name": "segmentation", **settings})


def test_settings_come_back():
    full = Segmentation(LABELS, "ce", regions=REGIONS, ignore=9, sparse="slices", readers="soft", observers=("a", "b"))
    assert (
        task_catalogue.build_task({"name": "segmentation", **json.loads(json.dumps(task_settings.settings_of(full)))})
        == full
    )


# Voxels to ignore


def test_the_ignored_cost_nothing_whatever_is_said_there():
    target = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (2, 6, 6)))  # 3 says nothing
    logits = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)).requires_grad_()
    cost = PARTIAL.loss({"mask": logits}, target)
    cost.backward()
    assert (logits.grad.movedim(1, -1)[target == 3] == 0).all()
    assert (logits.grad.movedim(1, -1)[target < 3] != 0).all()
    there = target < 3
    flat = logits.detach().movedim(1, -1)[there].T[None]
    whole = Segmentation(PARTIAL.classes).loss({"mask": flat}, target[there][None])
    assert cost.item() == pytest.approx(float(whole), rel=1e-6)


def test_a_batch_of_which_nothing_is_known_costs_nothing_and_teaches_nothing():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    cost = PARTIAL.loss({"mask": logits}, torch.full((1, 4, 4), 3))
    cost.backward()
    assert cost.item() == 0
    assert (logits.grad == 0).all()


def test_no_patch_is_centred_on_the_ignored_and_no_label_grows_into_it():
    of = case(np.where(mask(0, 1, 9, 9) == 9, 9, mask(0, 1, 2)).astype(np.uint8))
    target = PARTIAL.target(of)
    kind = target_kinds.target_kind(target.head)
    assert target.outside == 3
    assert set(np.unique(target.data)) == {0, 1, 3}
    positions = kind.positions(target, target.data, GRID.shape)
    assert {n: len(np.unique(where[:, 0])) for n, where in positions.items()} == {1: 1, 2: 0}
    finer = Preprocessing(3, ("0",), (Normalisation("zscore"),), spacing=(0.5, 0.5, 1.0), smallest=(14, 12, 8))
    _, trace = finer(of.images["image"].with_pixels(np.arange(144.0).reshape(1, *GRID.shape)), "a")
    seen = kind.prepare(target, finer, trace)
    assert seen.shape == (14, 12, 8)
    assert [set(np.unique(row)) for row in seen] == [{3}] + [{0}] * 2 + [{1}] * 2 + [{3}] * 9


def test_beyond_the_edge_of_a_turned_patch_nothing_is_known():
    images, targets = torch.zeros(1, 1, 16, 16), torch.ones(1, 16, 16, dtype=torch.uint8)
    turning = Augmentation(rotation=45.0, scale=0.0, probability=1.0)
    kind = target_kinds.target_kind(PARTIAL.heads["mask"])
    for outside, seen in ((0, {0, 1}), (3, {3, 1}), (None, {1})):
        movement = SampledMovement([random_draws.sample_generator(0, 0, 1)], (1.0, 1.0), None, outside)
        _, turned = target_kinds.move_batch(kind, turning, images, targets, movement)
        assert set(turned.unique().tolist()) == seen


def test_what_is_said_about_the_ignored_is_not_scored():
    truth = mask(0, 1, 9, 9, 1, 0)
    predicted = mask(0, 1, 1, 2, 1, 0)
    table = scored(PARTIAL, predicted, case(truth))
    assert table.loc["organ", ["dice", "hd95"]].tolist() == [1.0, 0.0]
    assert table.loc["lesion", "voxels_predicted"] == 0
    assert (table["voxels_known"] == 4 * 24).all()
    method = PARTIAL.summary(table.reset_index(), seed=0)[0].estimate.method
    assert "on the 66.7 % of the images that is known" in method


def test_what_a_reference_declares_to_be_ignored_is_not_scored_by_a_model_that_knew_all():
    of = case(mask(0, 1, 9, 9, 1, 0))
    declared = Image(of.references["mask"].data, GRID, labels=(Label(1, "organ"), Label(9, "ignore")))
    of = Case("a", "a", of.images, {"mask": declared})
    table = scored(Segmentation(PARTIAL.classes), mask(0, 1, 1, 2, 1, 0), of)
    assert table.loc["organ", "dice"] == 1
    assert (table["voxels_known"] == 4 * 24).all()


def test_the_selection_does_not_look_at_the_ignored():
    target = torch.tensor([[0, 1, 3, 3]])
    logits = 9 * torch.nn.functional.one_hot(torch.tensor([[0, 1, 1, 2]]), 3).movedim(-1, 1).float()
    counts = PARTIAL.quality({"mask": logits}, target)
    assert (counts["both"].tolist(), counts["size"].tolist()) == ([[1, 0]], [[2, 0]])


@pytest.mark.parametrize("term", [name for name, term in TERMS.items() if term.counts == "shape"])
def test_a_loss_that_looks_at_neighbours_is_refused(term):
    with pytest.raises(PlanError, match="neighbours"):
        task_catalogue.build_task(
            {
                "name": "segmentation",
                **task_settings.settings_of(PARTIAL),
                "loss": f"dice+ce+{term}",
                "centrelines": ["organ"],
            }
        )


@pytest.mark.parametrize("name", [name for name, term in TERMS.items() if term.counts != "shape"])
def test_every_other_loss_counts_the_known_voxels_alone(name):
    target = torch.from_numpy(np.random.default_rng(1).integers(0, 4, (2, 6, 6)))
    logits = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    elsewhere = torch.where((target == 3)[:, None], torch.flip(logits, [1]), logits)
    task = Segmentation(PARTIAL.classes, name, ignore=9)
    assert float(task.loss({"mask": logits}, target)) == pytest.approx(float(task.loss({"mask": elsewhere}, target)))


# Sparse masks


def test_only_slices_in_which_something_is_contoured_are_known():
    task = Segmentation((Label(1, "organ"),), sparse="slices")
    contoured = np.zeros(GRID.shape, np.uint8)
    contoured[1:4, 2:5, 2] = 1
    target = task.target(case(contoured))
    assert set(np.unique(target.data[..., 2])) == {0, 1}
    assert (np.delete(target.data, 2, axis=2) == task.truth.codes.unknown).all()
    assert target.structures == ((1,), (0,))
    predicted = np.ones(GRID.shape, np.uint8)
    table = scored(task, predicted, case(contoured))
    assert table.loc["organ", "precision"] == pytest.approx(9 / 36)
    assert not any(name.startswith(("hd95", "nsd")) for name in table)


def test_slices_that_were_contoured_apart_are_known_however_small_the_structure_is_in_them():
    """Of a lesion 7 columns wide in five of 24 slices: a smaller share of the columns holds it than of the slices."""
    row, column, number = np.indices((48, 48, 24))
    lesion = ((row - 20) / 3.5) ** 2 + ((column - 30) / 3.5) ** 2 + ((number - 12) / 10.0) ** 2 < 1
    contoured = lesion & (number % 4 == 0)
    assert_array_equal(
        segmentation_targets.contoured_slices(contoured), np.broadcast_to(contoured.any(axis=(0, 1)), contoured.shape)
    )
    block = lesion & (abs(number - 12) < 2)  # three slices side by side tell nothing, but that they are few
    assert_array_equal(
        segmentation_targets.contoured_slices(block), np.broadcast_to(block.any(axis=(0, 1)), block.shape)
    )


def planned(counts: dict[int, int], *labels: Label, **given):
    facts = CaseFacts(
        "a", (64, 64), (1.0, 1.0), True, True, ("CT",), "CT", ({"min": 0.0},), references={"mask": counts},
        thickness={1: 2.0}, components={1: 1},
    )  # fmt: skip
    return Segmentation.settings_for(Dataset((), classes={"mask": labels}, **given), Fingerprint((facts,)))


def test_the_plan_says_what_is_known_and_samples_patches_about_it():
    decisions = planned({0: 20, 1: 10, 255: 970}, Label(1, "vessel"), Label(255, "ignore"))
    assert (decisions["ignore"].value, decisions["sparse"].value, decisions["loss"].value) == (255, "voxels", "dice+ce")
    assert "only 3 %" in decisions["sparse"].because
    assert "33.3 % of the known voxels" in decisions["loss"].because
    assert [label["name"] for label in decisions["labels"].value] == ["vessel"]
    task = task_catalogue.build_task({"name": "segmentation", **{name: one.value for name, one in decisions.items()}})
    assert task.decisions(Fingerprint(()))["training.foreground"].value == 1.0


def test_where_most_is_known_patches_are_sampled_as_ever():
    decisions = planned({0: 900, 1: 90, 2: 10}, Label(1, "organ"), Label(2, "Ignore"))
    assert (decisions["ignore"].value, decisions["sparse"].value) == (2, None)


@pytest.mark.parametrize("set_by_hand", [{"sparse": "slices"}, {"ignore": 255}])
def test_masks_that_are_said_to_be_known_in_parts_take_a_loss_that_can_learn_from_them(set_by_hand):
    thin = {"name": "segmentation", "loss": "dice+ce+cldice", "ignore": None, "sparse": None, "readers": "first"}
    thin |= {"partial": None, "regions": None, "observers": [], "centrelines": ["vessel"]}
    assert task_settings.following_decisions(Segmentation, thin) == {}
    changed = task_settings.following_decisions(Segmentation, thin | set_by_hand)
    assert {name: one.value for name, one in changed.items()} == {"task.loss": "dice+ce", "task.centrelines": []}
    assert "of which not all are known" in changed["task.loss"].because
    assert task_settings.following_decisions(Segmentation, thin | set_by_hand | {"loss": "dice+focal"}) == {}


# Readers


def test_the_undivided_come_first_and_every_division_has_one_code():
    codes = Codes(1, 3)
    assert_allclose(codes.shares[:2], [[1, 0], [0, 1]])
    assert sorted(codes.shares[:, 1]) == pytest.approx([0, 1 / 3, 1 / 2, 2 / 3, 1])
    readings = [
        np.array(one, np.uint8) for one in ([0, 1, 1, 2, 2], [0, 1, 0, 1, 2], [0, 1, 0, 0, 2])
    ]  # 2: says nothing
    coded = codes.encode(readings)
    assert coded[-1] == codes.unknown
    assert codes.shares[coded[:-1], 1] == pytest.approx([0, 1, 1 / 3, 1 / 2])


def test_two_readers_of_many_labels_are_coded_without_a_table_of_all_votes():
    codes = Codes(21, 2)
    coded = codes.encode([np.array([0, 21, 3, 22], np.uint8), np.array([0, 21, 5, 22], np.uint8)])
    assert codes.shares[coded[2], [3, 5]].tolist() == [0.5, 0.5]
    assert (coded[0], coded[1], coded[3]) == (0, 21, codes.unknown)


def test_too_many_ways_of_being_divided_are_refused():
    with pytest.raises(PlanError, match="majority"):
        _ = Codes(6, 6).unknown


@pytest.mark.parametrize("name", OF_SHARES)
def test_the_loss_of_shares_is_least_where_they_are_met(name):
    truth = torch.tensor([[[0.5, 1.0, 0.75, 0.0], [0.5, 0.0, 0.25, 1.0]]]).clamp(1e-4, 1 - 1e-4)
    met = truth.log().requires_grad_()
    least = float(mask_losses.share_loss(name, met.detach(), truth))
    for seed in range(20):
        other = met.detach() + 0.3 * torch.randn(met.shape, generator=torch.Generator().manual_seed(seed))
        assert float(mask_losses.share_loss(name, other, truth)) > least


@pytest.mark.parametrize("name", OF_SHARES)
def test_where_nobody_is_divided_it_is_the_loss_of_labels(name):
    target = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (2, 5, 5)))
    logits = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    truth = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float()
    plain = Segmentation(PARTIAL.classes, name).loss({"mask": logits}, target)
    assert float(mask_losses.share_loss(name, logits, truth)) == pytest.approx(float(plain), abs=1e-5)


def test_readers_are_taught_by_the_first_by_most_or_by_their_share():
    of = case(mask(0, 1, 1, 0), berta=mask(0, 0, 1, 0), carla=mask(0, 0, 1, 1, 0))
    taught = {}
    for name in ("first", "majority", "staple", "soft"):
        task = Segmentation((Label(1, "organ"),), readers=name, observers=("anna", "berta", "carla"))
        data = task.target(of).data[:, 0, 0]
        taught[name] = task.truth.codes.shares[data, 1].tolist()
    assert taught["first"] == [0, 1, 1, 0, 0, 0]
    assert taught["majority"] == taught["staple"] == [0, 0, 1, 0, 0, 0]
    assert taught["soft"] == pytest.approx([0, 1 / 3, 1, 1 / 3, 0, 0])


def test_the_agreement_of_readers_stands_beside_the_models():
    of = case(mask(1, 1, 0), berta=mask(1, 0), carla=mask(1, 1, 1, 0))
    task = Segmentation((Label(1, "organ"),), readers="majority", observers=("anna", "berta", "carla"))
    row = scored(task, mask(1, 1, 0), of).loc["organ"]
    assert row["dice"] == 1
    assert row["dice_to_anna"] == 1
    assert row["dice_to_berta"] == pytest.approx(2 / 3)
    assert row["dice_to_readers"] == pytest.approx((1 + 2 / 3 + 4 / 5) / 3)
    assert row["dice_between_readers"] == pytest.approx((2 / 3 + 4 / 5 + 1 / 2) / 3)
    assert row["dice_of_berta_to_others"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    rows = {row.metric for row in task.summary(scored(task, mask(1, 1, 0), of).reset_index(), seed=0)}
    assert task.primaries >= {"dice_to_readers", "dice_between_readers"}
    assert rows >= {"dice_to_readers", "dice_between_readers", "dice_to_berta"}


def test_a_reader_on_another_grid_is_refused():
    of = case(mask(1), berta=mask(1))
    moved = Geometry(GRID.shape, GRID.affine + np.diag([1.0, 1.0, 1.0], k=1))
    of.references["mask:berta"] = Image(mask(1)[None], moved, facts={"reader": "berta"})
    with pytest.raises(GeometryError, match="another grid"):
        Segmentation((Label(1, "organ"),), readers="staple", observers=("anna", "berta")).target(of)


def test_three_readers_are_decided_by_most_and_two_by_the_first():
    three = planned({0: 90, 1: 10}, Label(1, "organ"), readers=("a", "b", "c"))
    two = planned({0: 90, 1: 10}, Label(1, "organ"), readers=("a", "b"))
    assert (three["readers"].value, two["readers"].value) == ("majority", "first")
    assert "3 readers contoured the cases" in three["readers"].because


def test_a_loss_that_knows_no_shares_is_refused():
    settings = task_settings.settings_of(
        Segmentation((Label(1, "organ"),), "dice+focal", readers="soft", observers=("a", "b"))
    )
    with pytest.raises(PlanError, match="share of readers"):
        task_catalogue.build_task({"name": "segmentation", **settings})


def test_the_observers_of_real_vessels_agree_as_far_as_their_readme_says(corpus):
    dices = []
    for case in dataset_layouts.read_dataset(corpus / "chasedb1"):
        masks = {name: mask.data[0] for name, mask in segmentation_targets.reader_masks(case).items()}
        assert list(masks) == ["1stHO", "2ndHO"]
        dices.append(
            segmentation_targets.reader_agreement(masks["1stHO"], masks, {"vessel": (1,)})["vessel"][
                "dice_between_readers"
            ]
        )
    assert np.mean(dices) == pytest.approx(0.768, abs=5e-4)


def test_every_way_of_taking_readers_together_can_be_asked_for():
    assert tuple(segmentation_targets.CONSENSUS) == segmentation_partly.CONSENSUS_NAMES
