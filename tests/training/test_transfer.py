"""The start from other weights: what is loaded, what moves, and what is written."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hilum.errors import PlanError
from hilum.networks import factory, network_parts
from hilum.networks.network_parts import TensorGroups
from hilum.networks.weight_loading import TensorOrigin
from hilum.planning import PlanSettings, plan_checks, plan_file, typed_sections
from hilum.planning.plan_sections import NetworkSettings, TransferSettings
from hilum.training import weight_transfer
from hilum.training.step import optimisers
from hilum.training.step.optimisers import AT_ONCE, WeightAverage, WeightPace
from hilum.training.weight_transfer import MovingWeights
from hilum.values import Dense, Vector

torch.set_num_threads(1)

SIZE = {"blocks": [1, 1], "width": 4}
UNET = {"strides": [[1, 1], [2, 2]], "width": 4}


def resnet(axes: int) -> torch.nn.Module:
    return factory.build("resnet", 1, axes, {"class": Vector(2)}, SIZE)


@pytest.fixture(scope="session")
def chosen(classified) -> PlanSettings:
    """The settings of a small run."""
    return plan_checks.checked_settings(plan_file.read_plan(classified.out / "plan.yaml"))


def of_volumes(chosen: PlanSettings, network: NetworkSettings) -> PlanSettings:
    """The same for volumes."""
    preprocessing = replace(chosen.preprocessing, ndim=3, spacing=None, shape=None, smallest=(8, 8, 8))
    training = replace(chosen.training, patch=(8, 8, 8))
    return replace(chosen, network=network, preprocessing=preprocessing, training=training)


@pytest.fixture
def flat(tmp_path) -> Path:
    """Weights of a network for pictures."""
    save_file(resnet(2).state_dict(), tmp_path / "flat.safetensors")
    return tmp_path / "flat.safetensors"


@pytest.mark.parametrize(("inflation", "share"), [("mean", 1 / 3), ("centre", 1)])
@pytest.mark.parametrize("by", ["pretrained", "start"])
def test_a_network_for_volumes_begins_from_one_for_pictures_as_the_plan_says(chosen, flat, by, inflation, share):
    deep = resnet(3)
    kernels = [name for name, value in deep.state_dict().items() if value.ndim == 5]
    network = NetworkSettings("resnet", SIZE, str(flat) if by == "pretrained" else None, inflation=inflation)
    made = weight_transfer.load_initial_weights(deep, of_volumes(chosen, network), flat if by == "start" else None)
    assert f"{len(kernels)} kernels inflated along axis 2" in made.words
    assert made.words.count("flat.safetensors") == 1
    assert {row.how for row in made.rows if row.name in kernels} == {"inflated"}
    middle = resnet(2)
    factory.load_pretrained(middle, "resnet", SIZE, flat)
    torch.testing.assert_close(deep.body[0].weight[..., 1], share * middle.body[0].weight)


def test_fresh_weights_are_nothing_to_speak_of(chosen):
    made = weight_transfer.load_initial_weights(resnet(2), chosen, None)
    assert (made.words, made.rows) == ("", ())


def test_an_inflation_that_there_is_not_is_refused():
    with pytest.raises(PlanError, match="inflation"):
        typed_sections.check_value("network.inflation", "corner")


@pytest.mark.parametrize(
    ("transfer", "name"),
    [
        (TransferSettings("linear_probe"), "mode"),
        (TransferSettings("lora"), "mode"),
        (TransferSettings(frozen=0.5), "frozen"),
        (TransferSettings(layer_decay=0.5), "layer_decay"),
    ],
)
def test_a_transfer_without_a_source_is_refused(chosen, transfer, name):
    with pytest.raises(PlanError, match=rf"transfer\.{name}.*needs weights to start from.*--from"):
        weight_transfer.refuse_no_source(replace(chosen, transfer=transfer), None)


def test_encoder_decoder_and_head_are_found_by_the_order_in_which_a_network_computes():
    with torch.device("meta"):
        module = factory.build("unet", 1, 2, {"mask": Dense(2)}, UNET)
        found = network_parts.tensor_groups(module, "encoder.-1", torch.empty(1, 1, 8, 8))
    groups = {name.partition(".")[0]: group for name, group in found.groups.items()}
    assert groups == {"encoder": "encoder", "decoder": "decoder", "ups": "decoder", "dense": "head"} or set(
        groups.values()
    ) == {"encoder", "decoder", "head"}
    assert groups["encoder"], groups["dense"] == ("encoder", "head")
    levels = {name.split(".")[1]: level for name, level in found.levels.items()}
    assert levels == {"0": 0, "1": 1}


def test_every_family_of_ours_has_a_head_and_an_encoder():
    for name in ("resnet", "densenet", "vit", "timm", "segresnet", "plain_conv_unet"):
        made = factory.family_of(name)
        heads = {"mask": Dense(2)} if "vector" not in made.answers else {"class": Vector(2)}
        size, _, _ = factory.size_for(name, [32, 32], [[1, 1], [2, 2], [2, 2]], "cpu")
        with torch.device("meta"), torch.inference_mode():
            found = network_parts.tensor_groups(
                factory.build(name, 1, 2, heads, size), made.features, torch.empty(1, 1, 32, 32)
            )
        assert {"encoder", "head"} <= set(found.groups.values()), name
        assert found.count > 1, name


ROWS = [
    TensorOrigin("body.0.weight", (4, 1, 3, 3), "encoder", "body.0.weight", "copied"),
    TensorOrigin("body.1.norm.running_mean", (4,), "encoder", "body.1.norm.running_mean", "copied"),
    TensorOrigin("body.1.weight", (4, 4, 3, 3), "encoder"),
    TensorOrigin("vectors.class.weight", (2, 4), "head", "vectors.class.weight", "copied"),
]
GROUPS = TensorGroups(
    {row.name: row.group for row in ROWS}, {"body.0.weight": 0, "body.1.norm.running_mean": 1, "body.1.weight": 1}
)


@pytest.mark.parametrize(
    ("transfer", "still"),
    [
        (TransferSettings(), set()),
        (TransferSettings("head_first"), set()),
        (TransferSettings("linear_probe"), {"body.0.weight", "body.1.norm.running_mean"}),
        (TransferSettings(frozen=0.5), {"body.0.weight"}),
    ],
)
def test_what_the_source_lacks_and_the_head_always_move(transfer, still):
    assert MovingWeights.from_settings(transfer, ROWS, GROUPS).still == still


def test_levels_nearer_to_the_image_learn_slower():
    moving = MovingWeights.from_settings(TransferSettings(layer_decay=0.5), ROWS, GROUPS)
    assert moving.pace("body.0.weight") == WeightPace(0.25)
    assert moving.pace("body.1.weight") == WeightPace(0.5)
    assert moving.pace("vectors.class.weight") == AT_ONCE


def test_with_the_head_first_what_was_loaded_waits():
    moving = MovingWeights.from_settings(TransferSettings("head_first", head_share=0.3), ROWS, GROUPS)
    assert moving.pace("body.0.weight") == WeightPace(1.0, 0.3)
    assert moving.pace("body.1.weight") == moving.pace("vectors.class.weight") == AT_ONCE


@pytest.mark.parametrize("kind", ["linear", "convolution", "transposed"])
def test_a_difference_of_low_rank_is_nothing_at_first_and_merges_exactly(kind):
    torch.manual_seed(0)
    layers = {
        "linear": (torch.nn.Linear(6, 4), torch.randn(2, 6)),
        "convolution": (torch.nn.Conv3d(2, 4, 3), torch.randn(1, 2, 5, 5, 5)),
        "transposed": (torch.nn.ConvTranspose2d(3, 4, 2, 2), torch.randn(1, 3, 4, 4)),
    }
    layer, given = layers[kind]
    module = torch.nn.Sequential(layer)
    plain, before = copy.deepcopy(module), module(given)
    optimisers.with_low_rank(module, {"0.weight"}, 2)
    torch.testing.assert_close(module(given), before)
    moved = {optimisers.base_weight_name(name): one for name, one in module.named_parameters() if one.requires_grad}
    assert set(moved) == {"0.weight", "0.bias"}
    with torch.no_grad():
        for one in module.parameters():
            if one.requires_grad:
                one.add_(torch.randn_like(one))
    plain.load_state_dict({name: optimisers.merge_low_rank(module, name) for name in plain.state_dict()})
    torch.testing.assert_close(plain(given), module(given), atol=1e-5, rtol=1e-5)


def test_the_mean_of_weights_with_differences_is_that_of_plain_weights():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    averaged = copy.deepcopy(module).requires_grad_(False)
    optimisers.with_low_rank(module, {"0.weight"}, 1)
    average = WeightAverage(averaged, module)
    with torch.no_grad():
        for one in module.parameters():
            one.add_(1.0)
    average.move(0.0)
    torch.testing.assert_close(averaged(torch.ones(2, 3)), module(torch.ones(2, 3)))
    assert list(averaged.state_dict()) == list(
        torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3)).state_dict()
    )
