from __future__ import annotations

import threading

import pytest
import torch
from numpy.testing import assert_allclose

from hilum.errors import PlanError
from hilum.networks import dropout, factory, member_catalogue
from hilum.networks.dropout import ChannelDropout
from hilum.networks.member_catalogue import HEADS, REFERENCE
from hilum.runtime import torch_networks
from hilum.tasks import task_catalogue

CLASSES = {"name": "classification", "classes": ["benign", "malignant"], "smoothing": 0.0}
MASK = {"name": "segmentation", "labels": [{"value": 1, "name": "liver"}], "loss": "dice+ce", "tolerance": 2.0}
RESNET = ("resnet", {"width": 4, "blocks": [1, 1], "stem_stride": 1, "dropout": 0.0}, CLASSES)
UNET = ("unet", {"width": 4, "strides": [[1, 1], [2, 2]]}, MASK)
VGG = ("vgg", {"width": 4, "convolutions": [1, 1]}, CLASSES)
VIT = ("vit", {"token": 4, "image": [8, 8], "layers": 1, "width": 12, "heads": 3}, CLASSES)


def built(name, size, task, share=0.0):
    network = {"name": name, "channels": 1, "spatial_dims": 2, "size": size}
    torch.manual_seed(0)
    return torch_networks.build_module(task_catalogue.build_task(task), {**network, "dropout": share}).eval()


def answers(module, images):
    with torch.no_grad():
        return next(iter(module(images).values()))


@pytest.mark.parametrize("of", [RESNET, UNET, VGG, VIT], ids=lambda of: of[0])
def test_dropout_of_a_family_adds_no_weight_and_changes_no_answer_outside_of_training(of):
    plain, dropped = built(*of), built(*of, share=0.3)
    assert plain.state_dict().keys() == dropped.state_dict().keys()
    dropped.load_state_dict(plain.state_dict())
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(answers(plain, images), answers(dropped, images))
    layers = dropout.dropout_layers(dropped)
    assert layers
    assert {layer.p for layer in layers} == {0.3}
    assert not torch.equal(answers(dropped.train(), images), answers(dropped, images))


def test_dropout_lies_behind_every_block_of_a_resnet_and_before_the_last_layer_of_a_vgg():
    behind = [name for name, part in built(*RESNET, share=0.3).named_modules() if isinstance(part, ChannelDropout)]
    assert len(behind) == 2
    assert all(name.endswith(".drops_behind") for name in behind)
    assert built(*VGG, share=0.3).dropout.p == 0.3


@pytest.mark.parametrize("name", ["lenet", "capsules"])
def test_dropout_asked_of_a_family_without_blocks_is_refused(name):
    size, _, _ = factory.size_for(name, (32, 32), [[1, 1]], "cpu")
    with pytest.raises(PlanError, match=rf"network\.dropout: {name} has no blocks"):
        built(name, size, CLASSES, share=0.1)


def test_whole_channels_are_left_out_and_their_mean_stays():
    layer = ChannelDropout(0.25).train()
    maps = layer(torch.ones(40, 50, 3, 2))
    assert torch.equal(maps, maps[..., :1, :1].expand_as(maps))
    assert {round(one, 4) for one in maps.unique().tolist()} == {0.0, round(4 / 3, 4)}
    assert abs(maps.mean() - 1) < 0.05
    assert torch.equal(layer.eval()(maps), maps)


@pytest.mark.parametrize("of", [RESNET, UNET, VGG, VIT], ids=lambda of: of[0])
def test_the_masks_of_a_draw_are_the_same_for_each_image_and_others_for_another_draw(of):
    module, images = built(*of, share=0.3), torch.randn(3, 1, 8, 8)
    layers = dropout.dropout_layers(module)
    with dropout.masks_of_draw(layers, 4):
        together, alone = answers(module, images), answers(module, images[1:2])
    with dropout.masks_of_draw(layers, 5):
        other = answers(module, images)
    assert_allclose(together[1:2], alone, atol=1e-5)
    assert not torch.allclose(together, other)
    assert not any(layer._forward_hooks for layer in layers)


def test_a_share_of_what_goes_through_is_left_out_over_many_draws():
    layer, kept = torch.nn.Dropout(0.3).eval(), []
    for draw in range(200):
        with dropout.masks_of_draw([layer], draw):
            kept.append(layer(torch.ones(1, 50)))
    assert abs((torch.cat(kept) == 0).float().mean() - 0.3) < 0.02
    assert abs(torch.cat(kept).mean() - 1) < 0.03


def test_another_thread_that_shares_the_network_sees_no_mask():
    layer, seen = torch.nn.Dropout(0.5).eval(), []
    with dropout.masks_of_draw([layer], 0):
        thread = threading.Thread(target=lambda: seen.append(layer(torch.ones(1, 64))))
        thread.start()
        thread.join()
    assert torch.equal(seen[0], torch.ones(1, 64))


@pytest.mark.whole
@pytest.mark.parametrize("name", factory.own_families())
def test_every_family_has_dropout_or_says_that_it_has_no_place_for_it(name):
    family = factory.family_of(name)
    axes = 2 if 2 in family.axes else 3
    head = next(make(axes) for make in HEADS.values() if factory._has(family, make(axes)))
    size, _, _ = factory.size_for(name, REFERENCE[axes], member_catalogue.plan_strides(REFERENCE[axes]), "cpu")
    if family.blocks is None:
        with pytest.raises(PlanError, match="has no blocks"):
            dropout.settings_with_dropout(name, family, size, 0.2)
        return
    with torch.device("meta"):
        plain = factory.build(name, 1, axes, {"x": head}, size)
        settings = dropout.settings_with_dropout(name, family, size, 0.2)
        made = dropout.add_block_dropout(factory.build(name, 1, axes, {"x": head}, settings), family, 0.2)
    assert made.state_dict().keys() == plain.state_dict().keys()
    assert any(layer.p == 0.2 for layer in dropout.dropout_layers(made))
