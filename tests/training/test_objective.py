from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import lightning_fabric
import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from hilum.errors import PlanError
from hilum.networks import factory
from hilum.objectives.objective_terms import Supervised
from hilum.planning import plan_checks, plan_file
from hilum.runtime import torch_networks
from hilum.runtime.bundle.network import AfterLabels, VariationalLayer
from hilum.tasks import task_catalogue, task_settings
from hilum.tasks.shared import label_losses
from hilum.training.data import protected_groups, target_kinds
from hilum.training.data.batch_loading import Batch
from hilum.training.data.prepared_store import PreparedCase
from hilum.training.step import batch_loss
from hilum.training.step.batch_loss import Criterion
from hilum.training.step.computation import Compute
from hilum.values.prediction import KNOWN, SeveralHeads

NO_BAGS = SimpleNamespace(tiles=None)


@pytest.fixture(scope="session")
def classes(classified):
    """The settings of a small classification, whose images are left as they are."""
    chosen = plan_checks.checked_settings(plan_file.read_plan(classified.out / "plan.yaml"))
    return replace(chosen, augmentation=replace(chosen.augmentation, probability=0.0, flips=()))


@pytest.fixture(scope="session")
def structures(segmented):
    """A segmentation by cross-entropy alone."""
    chosen = plan_checks.checked_settings(plan_file.read_plan(segmented.out / "plan.yaml"))
    return task_catalogue.build_task({**task_settings.settings_of(chosen.task), "name": "segmentation", "loss": "ce"})


@pytest.mark.parametrize(("device", "goes_on"), [("cuda:0", True), ("mps", False), ("cpu", False)])
def test_only_a_cuda_device_copies_while_the_processor_goes_on(device, goes_on):
    """Apple's GPUs read memory that is released by then: pytorch/pytorch#189690."""
    asked = []

    class Recording(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.Tensor.to:
                asked.append((args[1], kwargs))
                return args[0]
            return function(*args, **(kwargs or {}))

    with Recording():
        batch_loss.tensors_on_device({"a": np.ones(2, np.float32)}, device)
    assert asked == [(device, {"non_blocking": goes_on})]


def lowered(network, batch, chosen, **options):
    """The loss of a batch by the task alone, unless other objectives are given."""
    criterion = {name: options.pop(name) for name in ("objectives", "parts", "ranks", "sharing") if name in options}
    criterion = {"objectives": {"supervised": Supervised()}, **criterion}
    return Criterion(chosen, "cpu", **criterion).judge_batch(network, batch, Compute(), **options).loss


def test_one_output_is_judged_as_the_task_does(structures):
    outputs = {"mask": torch.randn(2, 3, 8, 8, 8)}
    target = torch.randint(0, 3, (2, 8, 8, 8))
    assert batch_loss.deeply_supervised(structures, outputs, target) == pytest.approx(
        structures.loss(outputs, target).item()
    )


def test_coarser_outputs_weigh_half_of_the_finer_and_all_together_one(structures):
    finest, half, quarter = (torch.randn(2, 3, size, size, size) for size in (8, 4, 2))
    target = torch.randint(0, 3, (2, 8, 8, 8))
    found = batch_loss.deeply_supervised(structures, {"mask@1": half, "mask": finest, "mask@2": quarter}, target)
    # Along each axis the voxel beyond the middle is the nearest of two, and of four.
    expected = 4 / 7 * cross_entropy(finest, target)
    expected += 2 / 7 * cross_entropy(half, target[:, 1::2, 1::2, 1::2])
    expected += 1 / 7 * cross_entropy(quarter, target[:, 2::4, 2::4, 2::4])
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_levels_are_in_order_and_keep_the_names_of_their_heads():
    one = torch.zeros(1)
    levels = batch_loss.outputs_by_level({"b@2": one, "a": one, "b@1": one, "b": one, "a@1": one})
    assert {level: sorted(heads) for level, heads in levels.items()} == {0: ["a", "b"], 1: ["a", "b"], 2: ["b"]}
    assert list(levels) == [0, 1, 2]


def test_a_class_that_names_a_side_is_the_other_where_the_image_was_mirrored():
    targets, crossed = torch.tensor([0, 1, 2, 0]), torch.tensor([True, True, True, False])
    assert target_kinds.change_vector_sides(targets, crossed, (1, 0, 2)).tolist() == [1, 0, 2, 0]
    findings = torch.tensor([[1.0, 0.0, 0.5], [1.0, 0.0, 0.5]])
    assert target_kinds.change_vector_sides(findings, torch.tensor([True, False]), (1, 0, 2)).tolist() == [
        [0, 1, 0.5],
        [1, 0, 0.5],
    ]
    # A head may have more channels than the target has values, behind them.
    crossed = torch.tensor([True, False])
    assert target_kinds.change_vector_sides(findings, crossed, (1, 0, 2, 4, 3, 5)).tolist() == [
        [0, 1, 0.5],
        [1, 0, 0.5],
    ]


def test_without_sided_labels_nothing_changes():
    targets = torch.tensor([0, 1])
    assert target_kinds.change_vector_sides(targets, torch.tensor([True, True]), (0, 1)) is targets
    assert target_kinds.change_vector_sides(targets, torch.tensor([True, True]), None) is targets


class Mixing:
    """An augmentation that mixes each image with the next, a quarter of it."""

    paste = style = painting = stain = 0.0

    def augment_with_target(self, images, target, generators, steps, *, mirrored=(), **given):
        return images, target, torch.zeros(len(images), dtype=torch.bool)

    def mix(self, images, generators):
        partner = torch.arange(len(images)).roll(-1)
        return 0.75 * images + 0.25 * images[partner], partner, 0.75


def test_of_mixed_images_both_targets_count_by_their_share(classes):
    chosen = replace(classes, augmentation=Mixing())
    images = np.random.default_rng(0).normal(size=(2, 1, 4, 4)).astype(np.float32)
    seen = []

    def network(given):
        seen.append(given)
        return {"class": given.flatten(1)[:, :2]}

    loss = lowered(network, Batch(images, np.array([0, 1]), (), (1.0, 1.0)), chosen)
    mixed = torch.from_numpy(0.75 * images + 0.25 * images[::-1])
    assert torch.allclose(seen[0], mixed)
    task, logits = classes.task, {"class": mixed.flatten(1)[:, :2]}
    expected = 0.75 * task.loss(logits, torch.tensor([0, 1])) + 0.25 * task.loss(logits, torch.tensor([1, 0]))
    assert loss.item() == pytest.approx(expected.item())


class Still(Mixing):
    """An augmentation that leaves images as they are."""

    def mix(self, images, generators):
        return images, None, 1.0


@pytest.mark.parametrize("augmentation", [Still(), Mixing()], ids=["plain", "mixed"])
def test_what_a_network_adds_for_each_sample_comes_to_the_loss_as_its_mean(classes, augmentation):
    chosen = replace(classes, augmentation=augmentation)
    batch = Batch(np.zeros((2, 1, 4, 4), np.float32), np.array([0, 1]), (), (1.0, 1.0))

    def network(given):
        return {"class": given.flatten(1)[:, :2]}

    def adding(given):
        return {**network(given), "+": torch.tensor([0.5, 1.5])}

    costs: list[float] = []
    with_it = lowered(adding, batch, chosen, note_costs=costs.extend)
    without = lowered(network, batch, chosen)
    assert with_it.item() == pytest.approx(without.item() + 1.0)
    assert costs == pytest.approx([without.item()] * 2)


def test_the_divergence_of_weights_from_their_prior_is_shared_by_the_training_cases(classes):
    task = task_catalogue.build_task({"name": "classification", "classes": ["a", "b"], "smoothing": 0.0})
    chosen = SimpleNamespace(
        task=task, preprocessing=NO_BAGS, augmentation=Still(), network=SimpleNamespace(name="resnet")
    )
    batch = Batch(np.ones((2, 1, 4, 4), np.float32), np.array([0, 1]), (), (1.0, 1.0))

    class Answering(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.last = VariationalLayer(torch.nn.Linear(16, 2))

        def forward(self, images):
            return {"class": self.last(images.flatten(1))}

    network = Answering().eval()
    whole, alone = (lowered(network, batch, chosen, sharing=cases) for cases in (50, 0))
    assert whole.item() == pytest.approx(alone.item() + network.last.divergence().item() / 50)
    whole.backward()
    assert network.last.log_ratio.grad.any()
    assert [*torch_networks.variational_layers(network)] == [network.last]


def test_of_several_processes_each_gets_a_gradient_of_all_outputs_also_of_those_that_no_case_teaches():
    settings = {
        "name": "classification+regression",
        "classification.classes": ["a", "b"],
        "classification.smoothing": 0.0,
    }
    settings |= {
        "regression.targets": ["size"],
        "regression.units": {},
        "regression.mean": {"size": 0.0},
        "regression.deviation": {"size": 1.0},
    }
    task = task_catalogue.build_task(settings)
    chosen = SimpleNamespace(
        task=task, preprocessing=NO_BAGS, augmentation=Still(), network=SimpleNamespace(name="resnet")
    )
    outputs = {name: torch.ones(2, head.count, requires_grad=True) for name, head in task.heads.items()}
    kind = target_kinds.target_kind(
        SeveralHeads({name: part.heads[next(iter(part.heads))] for name, part in task.parts.items()})
    )
    known = {"classification": np.array([0, 1]), "regression": np.zeros((2, 1), np.float32)}
    targets = {**known, KNOWN: np.array([[True, False]] * 2)}
    batch = Batch(np.zeros((2, 1, 4, 4), np.float32), targets, (), (1.0, 1.0), kind)
    pair = SimpleNamespace(count=2, whole=lambda part: part, own_part=lambda whole: whole)
    parts = torch.nn.ModuleDict({"judge": torch.nn.ParameterDict({"log_variance": torch.zeros(2)})})
    lowered(lambda images: outputs, batch, chosen, parts=parts, ranks=pair).backward()
    assert all(output.grad is not None for output in outputs.values())


def test_an_adversary_sees_the_features_of_a_network_that_others_hold(structures):
    size = {"width": 4, "widest": 8, "strides": [[1, 1, 1], [2, 2, 2]]}
    network = AfterLabels(factory.build("unet", 2, 3, structures.heads, size), 1)
    images = np.concatenate([np.random.default_rng(0).normal(size=(2, 1, 8, 8, 8)), np.zeros((2, 1, 8, 8, 8))], axis=1)
    mask = np.zeros((8, 8, 8), np.uint8)
    cases = [PreparedCase(name, images[0, :1], mask, (), (1.0, 1.0, 1.0), group=name) for name in "ab"]
    chosen = SimpleNamespace(
        task=structures,
        preprocessing=NO_BAGS,
        augmentation=Still(),
        network=SimpleNamespace(name="unet"),
        training=SimpleNamespace(fairness="adversarial"),
        terms={"supervised": Supervised()},
    )
    objectives = chosen.terms | protected_groups.objectives_of_groups(chosen, cases)
    parts = torch.nn.ModuleDict({"adversary": objectives["adversary"].parts(network, 8)})
    batch = Batch(images.astype(np.float32), np.stack([mask, mask]), (), (1.0, 1.0, 1.0), cases=(0, 1))
    wrapped = lightning_fabric.Fabric(accelerator="cpu", devices=1).setup(network)
    lowered(wrapped, batch, chosen, objectives=objectives, parts=parts).backward()
    assert parts["adversary"]["weights"].grad.any()


def test_distances_of_every_level_are_in_mm_of_its_own_grid(structures):
    far = replace(structures, loss_name="ce+distance")
    mask = torch.zeros(1, 8, 8, 8, dtype=torch.long)
    mask[0, 2:5, 2:6, 2:6] = 1
    finest, flat = torch.randn(1, 3, 8, 8, 8), torch.randn(1, 3, 8, 8, 2)
    outputs = {"mask": finest, "mask@1": flat}
    expected = 2 / 3 * label_losses.label_loss("ce+distance", finest, mask, spacing=(1.0, 1.0, 2.0))
    expected += 1 / 3 * label_losses.label_loss("ce+distance", flat, mask[..., 2::4], spacing=(1.0, 1.0, 8.0))
    chosen = SimpleNamespace(
        task=far, preprocessing=NO_BAGS, augmentation=Still(), network=SimpleNamespace(name="unet")
    )
    batch = Batch(np.zeros((1, 1, 8, 8, 8), np.float32), mask.numpy(), (), (1.0, 1.0, 2.0))
    loss = lowered(lambda images: outputs, batch, chosen)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_what_cannot_be_alike_in_two_runs_is_refused_by_the_networks_name(classes):
    chosen = replace(classes, training=replace(classes.training, deterministic=True))
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(PlanError, match=r"resnet on cpu needs put_"), batch_loss.refuse_nondeterminism(chosen):
            torch.zeros(3).put_(torch.tensor([0]), torch.ones(1), accumulate=False)
    finally:
        torch.use_deterministic_algorithms(False)
    with pytest.raises(RuntimeError, match="of another kind"), batch_loss.refuse_nondeterminism(chosen):
        raise RuntimeError("of another kind")


def test_what_is_absent_stays_zero_whatever_augmentation_makes_of_it(classes):
    noisy = replace(classes, augmentation=replace(classes.augmentation, probability=1.0, noise=1.0, brightness=1.0))
    there = np.array([[1, 0], [1, 1]], np.float32)
    images = np.random.default_rng(0).normal(size=(2, 2, 24, 24)).astype(np.float32)
    generators = tuple(np.random.default_rng(n) for n in range(2))
    batch = Batch(images, np.array([0, 1]), generators, (1.0, 1.0), there=there)
    seen = batch_loss.augment_batch(batch, noisy, "cpu").images
    assert not seen[0, 1].any()
    assert all(seen[n, channel].std() > 0 for n, channel in ((0, 0), (1, 0), (1, 1)))
    assert not torch.equal(seen[1], torch.from_numpy(images[1]))


def test_frames_go_with_their_channel_and_what_was_marked_before_is_always_there():
    seen = batch_loss.blank_absent_images(torch.ones(1, 5, 3), torch.tensor([[0.0, 1.0]]), frames=2)
    assert seen[0, :, 0].tolist() == [0, 0, 1, 1, 1]
