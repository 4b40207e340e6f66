from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from monai.networks.nets import SegResNet
from safetensors.torch import save_file
from torchvision.models import resnet18

import forked
from hilum.errors import IntegrityError, PlanError
from hilum.networks import factory
from hilum.values import Dense, Head, Vector

torch.set_num_threads(1)

PLANE = {"strides": [[1, 1], [2, 2]], "width": 4}
MASK: dict[str, Head] = {"mask": Dense(2)}
VIT = {"token": 4, "image": [8], "layers": 1, "width": 16, "heads": 2}


def unet(channels: int = 1, heads: dict[str, Head] = MASK, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return factory.build("unet", channels, 2, heads, PLANE).eval()


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
@pytest.mark.parametrize("kind", ["safetensors", "pt", "nested pt"])
def test_our_own_weights_fit_whole_from_every_kind_of_file(tmp_path, prefix, kind):
    first, second = unet(seed=0), unet(seed=1)
    weights = {prefix + name: value for name, value in first.state_dict().items()}
    path = tmp_path / "weights"
    if kind == "safetensors":
        save_file(weights, path)
    else:
        torch.save({"epoch": 3, "state_dict": weights} if kind == "nested pt" else weights, path)
    said = factory.load_pretrained(second, "unet", PLANE, path).words
    assert said.startswith(f"{len(weights)} of {len(weights)} tensors from weights with SHA-256 ")
    assert "fresh" not in said
    images = torch.randn(1, 1, 8, 8)
    assert torch.equal(first(images)["mask"], second(images)["mask"])


def test_a_head_of_other_classes_stays_fresh_and_is_named(tmp_path):
    save_file(unet().state_dict(), tmp_path / "weights.safetensors")
    other = unet(heads={"mask": Dense(5)}, seed=1)
    before = other.state_dict()["dense.mask.weight"].clone()
    said = factory.load_pretrained(other, "unet", PLANE, tmp_path / "weights.safetensors").words
    count = len(other.state_dict())
    assert said.startswith(f"{count - 2} of {count} tensors")
    assert said.endswith("fresh: dense.mask.weight, dense.mask.bias")
    assert torch.equal(other.state_dict()["dense.mask.weight"], before)


def test_weights_for_three_channels_see_a_grey_image_as_three_equal_ones(tmp_path):
    coloured, grey = unet(3), unet(1, seed=1)
    save_file(coloured.state_dict(), tmp_path / "weights")
    said = factory.load_pretrained(grey, "unet", PLANE, tmp_path / "weights").words
    assert "the first convolution adapted from 3 to 1 channels" in said
    assert "fresh" not in said
    images = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(grey(images)["mask"], coloured(images.expand(2, 3, 8, 8))["mask"], atol=1e-5, rtol=1e-5)


def test_weights_for_one_channel_see_the_mean_of_several_in_volumes_too(tmp_path):
    size = {"strides": [[1, 1, 1], [2, 2, 2]], "width": 4}
    one, five = (factory.build("unet", channels, 3, MASK, size).eval() for channels in (1, 5))
    save_file(one.state_dict(), tmp_path / "weights")
    assert "adapted from 1 to 5 channels" in factory.load_pretrained(five, "unet", size, tmp_path / "weights").words
    images = torch.randn(1, 5, 4, 6, 8)
    mean = images.mean(dim=1, keepdim=True)
    torch.testing.assert_close(five(images)["mask"], one(mean)["mask"], atol=1e-5, rtol=1e-5)


def test_torchvisions_weights_fit_timms_backbone_of_the_same_name(tmp_path):
    torch.manual_seed(0)
    theirs = resnet18(weights=None)
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    ours = factory.build("timm", 3, 2, {"class": Vector(2)}, {"model": "resnet18"}).eval()
    said = factory.load_pretrained(ours, "timm", {"model": "resnet18"}, str(tmp_path / "resnet18.pth")).words
    assert said.endswith("fresh: vectors.class.weight, vectors.class.bias")
    theirs.fc = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.body(images), theirs.eval()(images))


def test_monais_weights_fit_our_segresnet(tmp_path):
    torch.manual_seed(0)
    theirs = SegResNet(3, 8, 4, 3, blocks_down=(1, 2), blocks_up=(1,))
    torch.save(theirs.state_dict(), tmp_path / "model.pt")
    size = {"strides": [[1, 1, 1], [2, 2, 2]], "width": 8, "blocks": [1, 2]}
    ours = factory.build("segresnet", 4, 3, {"mask": Dense(3)}, size)
    said = factory.load_pretrained(ours, "segresnet", size, tmp_path / "model.pt").words
    assert said.endswith("fresh: dense.mask.weight, dense.mask.bias")
    assert torch.equal(ours.stem.weight, theirs.convInit.conv.weight)


def test_a_file_of_which_nothing_fits_is_refused_and_the_network_stays_as_it_was(tmp_path):
    save_file({"other.weight": torch.ones(3)}, tmp_path / "weights")
    network = unet()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(PlanError, match="not one weight fits"):
        factory.load_pretrained(network, "unet", PLANE, tmp_path / "weights")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Harmful:
    """What a pickle can do: run a call while it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path):
    torch.save({"state_dict": Harmful(tmp_path / "ran")}, tmp_path / "harmful.pt")
    with pytest.raises(IntegrityError, match="could run any code"):
        factory.load_pretrained(unet(), "unet", PLANE, tmp_path / "harmful.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content", [b"", b"abc", b"12345678{", b"\x93NUMPY" * 9], ids=["empty", "text", "cut", "numpy"]
)
def test_a_file_that_holds_no_weights_is_refused(tmp_path, content):
    (tmp_path / "weights").write_bytes(content)
    with pytest.raises(IntegrityError, match="holds no weights"):
        factory.load_pretrained(unet(), "unet", PLANE, tmp_path / "weights")


def test_a_file_of_other_things_than_tensors_is_refused(tmp_path):
    torch.save({"epoch": 3, "names": ["a"]}, tmp_path / "weights.pt")
    with pytest.raises(IntegrityError, match="no tensors by name"):
        factory.load_pretrained(unet(), "unet", PLANE, tmp_path / "weights.pt")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(PlanError, match="cannot be read"):
        factory.load_pretrained(unet(), "unet", PLANE, tmp_path / "nowhere.pt")


def test_a_family_without_published_weights_says_so():
    with pytest.raises(PlanError, match=r"no published weights.*--pretrained FILE"):
        factory.load_pretrained(unet(), "unet", PLANE, "auto")


def test_a_model_without_published_weights_says_so():
    model = next(name for name in timm.list_models("resnet*") if not timm.is_model_pretrained(name))
    network = factory.build("timm", 1, 2, {"class": Vector(2)}, {"model": "resnet10t"})
    with pytest.raises(PlanError, match=rf"no published weights of {model}.*--pretrained FILE"):
        factory.load_pretrained(network, "timm", {"model": model}, "auto")


OFFLINE = """
from hilum import networks
from hilum.errors import ResourceError
from hilum.values import Vector
from hilum.networks import factory

size = {"model": "resnet10t"}
network = factory.build("timm", 1, 2, {"class": Vector(2)}, size)
try:
    factory.load_pretrained(network, "timm", size, "auto")
except ResourceError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "locate the file"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "127.0.0.1:9 does not answer"),
    ],
)
def test_where_published_weights_cannot_be_fetched_the_remedy_is_a_file(setting, said, tmp_path, monkeypatch):
    for name, value in {**setting, "HF_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    # What reads the environment when it is imported must not have been imported before.
    done = forked.run("-c", OFFLINE, after="import torch, torchvision")
    assert "the published weights cannot be fetched" in done.stdout
    assert said in done.stdout
    assert "--pretrained FILE" in done.stdout


@pytest.mark.parametrize(("name", "size"), [("resnet", {"blocks": [1, 1], "width": 8}), ("vit", VIT)])
def test_weights_of_a_network_of_one_axis_fit_images_of_other_channels(name, size, tmp_path):
    torch.manual_seed(0)
    three, one = (factory.build(name, channels, 1, {"class": Vector(2)}, size).eval() for channels in (3, 1))
    save_file(three.state_dict(), tmp_path / "weights")
    said = factory.load_pretrained(one, name, size, tmp_path / "weights").words
    assert "the first convolution adapted from 3 to 1 channels" in said
    assert "fresh" not in said
    signals = torch.randn(2, 1, 8)
    expected = three(signals.expand(2, 3, 8))["class"]
    torch.testing.assert_close(one(signals)["class"], expected, atol=1e-5, rtol=1e-5)


def test_learnt_places_are_no_convolution_that_could_take_other_channels(tmp_path):
    """Three places and three channels: the places of a longer image are not made from them."""
    sizes = [{**VIT, "image": [n]} for n in (8, 16)]
    short, longer = (factory.build("vit", 3, 1, {"class": Vector(2)}, size) for size in sizes)
    assert short.positions.shape[1] == 3
    save_file(short.state_dict(), tmp_path / "weights")
    said = factory.load_pretrained(longer, "vit", sizes[1], tmp_path / "weights").words
    assert "of another shape: positions of (1, 3, 16), here (1, 5, 16)" in said
    assert said.endswith("fresh: positions")


def test_it_is_said_what_did_not_fit_and_why(tmp_path):
    given = {**unet(heads={"mask": Dense(5)}).state_dict(), "head.0.weight": torch.ones(2)}
    del given["encoder.1.second_norm.bias"]
    save_file(given, tmp_path / "weights")
    said = factory.load_pretrained(unet(), "unet", PLANE, tmp_path / "weights").words
    assert "of another shape: dense.mask.weight of (5, 4, 1, 1), here (2, 4, 1, 1), dense.mask.bias of (5,)" in said
    assert "without a place here: head.0.weight" in said
    assert said.endswith("fresh: encoder.1.second_norm.bias, dense.mask.weight, dense.mask.bias")


def test_weights_of_another_width_are_refused_with_a_shape_that_differs(tmp_path):
    save_file(unet().state_dict(), tmp_path / "weights")
    wider = factory.build("unet", 1, 2, MASK, {**PLANE, "width": 8})
    with pytest.raises(PlanError, match=r"shapes do not, as in encoder\.0\.first\.weight of \(4, 1, 3, 3\), here \(8,"):
        factory.load_pretrained(wider, "unet", PLANE, tmp_path / "weights")


def test_scales_and_biases_alone_are_no_weights_of_the_same_network(tmp_path):
    alone = {name: value for name, value in unet().state_dict().items() if value.ndim == 1}
    save_file(alone, tmp_path / "weights")
    with pytest.raises(PlanError, match="not one weight fits"):
        factory.load_pretrained(unet(), "unet", PLANE, tmp_path / "weights")


OF_TWO_AND_THREE = {
    "resnet": [{"blocks": [1, 2], "width": 8, "dropout": 0.0}] * 2,
    "resnet with a wide stem": [{"blocks": [1, 1], "width": 8, "dropout": 0.0, "stem_stride": 2}] * 2,
    "unet": [{"strides": [[1] * axes, [2] * axes], "width": 4} for axes in (2, 3)],
    "convnext": [{"blocks": [1, 1], "width": 8, "kernel": 3, "stem_stride": 2}] * 2,
}


def flat_and_deep(which: str, folder: Path, how: str) -> tuple[torch.nn.Module, torch.nn.Module, str]:
    """A network for pictures, and one for volumes that begins from its weights."""
    name, sizes = which.partition(" ")[0], OF_TWO_AND_THREE[which]
    heads = MASK if name == "unet" else {"class": Vector(3)}
    torch.manual_seed(0)
    flat, deep = (factory.build(name, 1, axes, heads, size) for axes, size in zip((2, 3), sizes, strict=True))
    flat(torch.randn(4, 1, 16, 16))  # running means that are not those of a fresh network
    save_file(flat.state_dict(), folder / "flat.safetensors")
    return (
        flat.eval(),
        deep.eval(),
        factory.load_pretrained(deep, name, sizes[1], folder / "flat.safetensors", how).words,
    )


@pytest.mark.parametrize("which", OF_TWO_AND_THREE)
def test_inflated_at_the_centre_a_volume_of_equal_slices_gets_the_answer_of_one(which, tmp_path):
    flat, deep, said = flat_and_deep(which, tmp_path, "centre")
    assert "kernels inflated along axis 2 (zeros around their one slice)" in said
    assert "fresh" not in said
    picture = torch.randn(2, 1, 16, 12)
    [one], [all_slices] = flat(picture).values(), deep(picture[..., None].expand(-1, -1, -1, -1, 8)).values()
    expected = one if all_slices.ndim == 2 else one[..., None].expand(all_slices.shape)
    torch.testing.assert_close(all_slices, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_inflated_by_the_mean_the_middle_of_equal_slices_is_seen_as_one(axis, tmp_path):
    """At both ends the network sees zeros beside the volume: more there than the picture's has."""
    torch.manual_seed(0)
    size: dict[str, object] = {"blocks": [1, 1], "width": 8, "dropout": 0.0}
    flat, deep = (factory.build("resnet", 1, axes, {"class": Vector(3)}, size).eval() for axes in (2, 3))
    save_file(flat.state_dict(), tmp_path / "flat")
    said = factory.load_pretrained(deep, "resnet", {**size, "axis": axis}, tmp_path / "flat").words
    assert f"inflated along axis {axis} (repeated and divided by how often)" in said
    picture = torch.randn(1, 1, 16, 12)
    volume = picture.unsqueeze(axis + 2).repeat_interleave(32, dim=axis + 2)
    middle = deep.body(volume).select(axis + 2, 8)
    torch.testing.assert_close(middle, flat.body(picture), atol=1e-5, rtol=1e-4)


def test_the_axis_that_is_lacking_is_that_by_which_the_kernels_fit(tmp_path):
    sizes = [{"strides": [[1, 1], [2, 2]], "width": 4}, {"strides": [[1, 1, 1], [1, 2, 2]], "width": 4}]
    flat, deep = (factory.build("unet", 1, axes, MASK, size) for axes, size in zip((2, 3), sizes, strict=True))
    save_file(flat.state_dict(), tmp_path / "flat")
    assert "inflated along axis 0" in factory.load_pretrained(deep, "unet", sizes[1], tmp_path / "flat").words


@pytest.mark.parametrize("axis", [0, 2])
def test_a_network_that_goes_through_slices_begins_from_one_of_the_plane(axis, tmp_path):
    """As the neighbours of a slice among equal ones are that slice, it answers as the network of pictures."""
    torch.manual_seed(0)
    size = {**PLANE, "axis": axis, "neighbours": 1}
    flat, slices = unet(), factory.build("unet_slices", 1, 3, MASK, size).eval()
    save_file(flat.state_dict(), tmp_path / "flat")
    said = factory.load_pretrained(slices, "unet_slices", size, tmp_path / "flat").words
    assert "adapted from 1 to 3 channels" in said
    assert "fresh" not in said
    picture = torch.randn(2, 1, 8, 12)
    shape = [8, 12]
    shape.insert(axis, 5)
    answer = slices(picture.unsqueeze(axis + 2).expand(-1, -1, *shape))["mask"]
    expected = flat(picture)["mask"].unsqueeze(axis + 2).expand(answer.shape)
    torch.testing.assert_close(answer, expected, atol=1e-5, rtol=1e-4)
