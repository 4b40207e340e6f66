from __future__ import annotations

import pytest
import torch
from torchvision.models import resnet18
from torchvision.models.segmentation.deeplabv3 import ASPP

from hilum.errors import PlanError
from hilum.networks import factory
from hilum.networks.deeplab import AtrousPyramid
from hilum.values import Dense, Head

torch.set_num_threads(1)

MASK: dict[str, Head] = {"mask": Dense(3)}
SMALL = {"width": 8, "inside": 16, "rates": [1, 2, 3]}


def deeplab(axes: int = 2, channels: int = 1, **size: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return factory.build("deeplab", channels, axes, MASK, {**SMALL, **size})


def test_the_pyramid_of_pictures_is_torchvisions():
    torch.manual_seed(0)
    theirs, ours = ASPP(32, [2, 4, 6], 16), AtrousPyramid(2, 32, 16, [2, 4, 6], 0.5)
    images = torch.randn(3, 32, 14, 11)
    theirs(images)  # running means that are not those of a fresh network
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))


def test_the_pyramid_of_a_volume_of_equal_slices_is_that_of_one_slice():
    """Each kernel has its one slice at the centre; along the third axis nothing is looked at."""
    flat, deep = (AtrousPyramid(axes, 8, 4, [2, 3], 0.0).eval() for axes in (2, 3))
    given = flat.state_dict()
    for name, value in deep.state_dict().items():
        if value.ndim == 5:
            value.zero_()[..., value.shape[-1] // 2] = given[name]
        else:
            value.copy_(given[name])
    picture = torch.randn(2, 8, 9, 7)
    answer = deep(picture[..., None].expand(-1, -1, -1, -1, 5))
    torch.testing.assert_close(answer, flat(picture)[..., None].expand(answer.shape))


def test_a_kernel_sees_voxels_as_far_apart_as_its_rate_along_each_axis():
    pyramid = AtrousPyramid(2, 1, 1, [[2, 3]], 0.0).eval()
    image = torch.zeros(1, 1, 9, 11)
    image[0, 0, 4, 5] = 1
    seen = pyramid.convs[1][0](image)[0, 0].nonzero().tolist()
    assert seen == [[row, column] for row in (2, 4, 6) for column in (2, 5, 8)]


@pytest.mark.parametrize("axes", [2, 3])
def test_a_batch_of_one_image_can_be_learnt_from(axes):
    network = deeplab(axes)
    network(torch.randn(1, 1, *[32, 40, 36][:axes]))["mask"].square().mean().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())


@pytest.mark.whole
def test_the_encoder_begins_from_torchvisions_weights_in_volumes_too(tmp_path):
    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    size = {"inside": 16}
    network = factory.build("deeplab", 1, 3, MASK, size)
    said = factory.load_pretrained(network, "deeplab", size, tmp_path / "resnet18.pth").words
    assert "20 kernels inflated along axis 2" in said
    assert "fresh: dense.mask.weight" in said
    fresh = [name for name in network.state_dict() if not name.startswith("encoder.")]
    assert said.startswith(f"{len(resnet18().state_dict()) - 2 - 20} of ")  # without a last layer and 20 counters
    assert all(name.split(".")[0] in ("dense", "pyramid", "outline", "decoder") for name in fresh)


@pytest.mark.parametrize(
    ("patch", "rates"),
    [
        ((512, 384), [[5, 3], [10, 7], [15, 11]]),
        ((28, 28), [[1, 1], [2, 2], [3, 3]]),
        ((96, 96, 24), [[1, 1, 1], [1, 1, 1], [2, 2, 2]]),
    ],
)
def test_rates_are_the_papers_as_far_as_the_coarse_map_has_voxels_for_them(patch, rates):
    size, because, paper = factory.size_for("deeplab", patch, [[1] * len(patch)], "cpu")
    assert size["rates"] == rates
    assert str(rates) in because
    assert paper == "arXiv:1802.02611"
    large = factory.size_for("deeplab", (640, 640), [[1, 1]], "cuda")[0]
    assert large["rates"] == [[6, 6], [12, 12], [18, 18]]


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ({"rates": []}, "rates are"),
        ({"rates": [0]}, "from 1"),
        ({"rates": [[1, 2, 3]]}, "one or 2"),
        ({"dilated": 4}, "dilated 4"),
    ],
)
def test_what_is_no_such_network_is_refused(size, says):
    with pytest.raises(PlanError, match=says):
        deeplab(**size)
