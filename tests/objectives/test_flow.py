"""The way from noise to images, and the condition that an image is synthesised by."""

from __future__ import annotations

import pytest
import torch

from hilum.networks import factory
from hilum.objectives import flow
from hilum.values import Dense, SyntheticImage, Vector

CLASSES, LABELS = SyntheticImage(1, condition_classes=("a", "b")), SyntheticImage(1, condition_labels=("core", "shell"))
ALL = torch.tensor([True, True])


def test_the_true_way_costs_nothing_at_any_level_and_another_its_square() -> None:
    images, noise = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 3, 4)
    level, asked = torch.tensor([0.2, 0.9]), torch.tensor([0, 1])
    true = images - noise
    assert flow.flow_errors(lambda seen, context: true, CLASSES, images, noise, level, asked, ALL).tolist() == [0, 0]
    shifted = flow.flow_errors(lambda seen, context: true + 2, CLASSES, images, noise, level, asked, ALL)
    assert shifted.tolist() == pytest.approx([4, 4], rel=1e-5)


def test_what_is_seen_lies_between_noise_and_image_by_its_level() -> None:
    seen: list[torch.Tensor] = []

    def keep(images: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """The network's part: it answers nothing."""
        seen.append(images)
        return torch.zeros_like(images)

    ones, level = torch.ones(2, 1, 2, 2), torch.tensor([0.0, 0.75])
    flow.flow_errors(keep, CLASSES, ones, -ones, level, torch.tensor([0, 1]), ALL)
    assert seen[0][:, 0, 0, 0].tolist() == [-1, 0.5]


def test_the_context_states_level_and_class_unless_it_is_left_out_or_unknown() -> None:
    images, level = torch.zeros(3, 1, 2, 2), torch.tensor([0.1, 0.2, 0.3])
    kept, context = flow.with_condition(
        CLASSES, images, level, torch.tensor([1, 1, 2]), torch.tensor([True, False, True])
    )
    assert kept is images
    assert context.tolist() == [pytest.approx(row) for row in ([0.1, 0, 1], [0.2, 0, 0], [0.3, 0, 0])]


def test_a_mask_is_a_channel_a_label_unless_it_is_left_out() -> None:
    numbers = torch.tensor([[[0, 1], [2, 2]]] * 2)
    images, context = flow.with_condition(
        LABELS, torch.zeros(2, 1, 2, 2), torch.ones(2), numbers, torch.tensor([True, False])
    )
    assert images[0, 1:].tolist() == [[[0, 1], [0, 0]], [[0, 0], [1, 1]]]
    assert images[1].abs().sum() == 0
    assert context.shape == (2, 1)


def test_the_network_sees_level_class_and_mask() -> None:
    torch.manual_seed(0)
    head = SyntheticImage(1, condition_classes=("a", "b"), condition_labels=("core",))
    network = factory.build("diffusion_unet", 1, 2, {"image": head}, {"width": 8, "levels": 2}).eval()
    for weight in network.parameters():  # it begins as the answer 0
        weight.data += 0.1 * torch.randn_like(weight)
    images, context = torch.randn(1, 1, 8, 8), torch.tensor([[1.0, 0.0, 0.0]])
    with torch.inference_mode():
        plain = network(images)["image"]
        assert torch.equal(plain, network(images, context)["image"])  # an image without noise, and nothing asked for
        others = [
            network(images, torch.tensor([[0.5, 0.0, 0.0]]))["image"],
            network(images, torch.tensor([[1.0, 0.0, 1.0]]))["image"],
            network(torch.cat([images, torch.ones(1, 1, 8, 8)], dim=1), context)["image"],
        ]
    assert all(not torch.allclose(plain, one) for one in others)


def test_every_weight_learns_once_the_last_layers_have_left_0() -> None:
    torch.manual_seed(0)
    head = SyntheticImage(1, condition_classes=("a", "b"))
    network = factory.build("diffusion_unet", 1, 2, {"image": head}, {"width": 8, "levels": 2})
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    images, context = torch.randn(2, 1, 8, 8), torch.tensor([[0.3, 1.0, 0.0], [0.6, 0.0, 1.0]])
    for _ in range(3):
        optimiser.zero_grad()
        (network(images, context)["image"] - images).square().mean().backward()
        optimiser.step()
    assert [name for name, weight in network.named_parameters() if not weight.grad.any()] == []


def test_only_heads_that_synthesise_are_taught() -> None:
    assert [head.conditions for head in (Dense(1), Vector(2), CLASSES, LABELS)] == [None, None, (2, 0), (0, 2)]
