from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.errors import PlanError
from hilum.networks import factory
from hilum.values import Dense, Vector
from matrices import thinned

torch.set_num_threads(1)

STRIDES = [[1, 1], [2, 2], [2, 2]]
WAYS = ("fusion", "fusion_attention", "fusion_late")
PROBABILITIES = {"means": {"mask": "probabilities", "class": "probabilities"}}
MASK, CLASS = {"mask": Dense(3)}, {"class": Vector(3)}
subsets = st.lists(st.booleans(), min_size=3, max_size=3).filter(any)


def network(
    name: str, wanted: dict, context: int = 3, channels: int = 3, fusion: dict | None = None, **size: object
) -> torch.nn.Module:
    torch.manual_seed(0)
    given = {"strides": STRIDES, "width": 8, **size}
    return factory.build(name, channels, 2, wanted, given, context, fusion).eval()


def images(seed: int = 1, channels: int = 3) -> torch.Tensor:
    return torch.randn(2, channels, 8, 12, generator=torch.Generator().manual_seed(seed))


def answer(made: torch.nn.Module, seen: torch.Tensor, there: list[bool] | None = None) -> torch.Tensor:
    with torch.no_grad():
        context = () if there is None else (torch.tensor([there] * len(seen), dtype=torch.float32),)
        return next(iter(made(seen, *context).values()))


@pytest.mark.parametrize("heads", thinned(1, [MASK, CLASS]), ids=["mask", "class"])
@pytest.mark.parametrize("name", WAYS)
@settings(max_examples=6, deadline=None)
@given(there=subsets)
def test_what_is_in_the_place_of_an_absent_image_changes_nothing(name, heads, there):
    made, seen = network(name, heads), images()
    other = torch.where(torch.tensor(there)[None, :, None, None], seen, 100 * images(2))
    assert torch.equal(answer(made, seen, there), answer(made, other, there))
    assert torch.equal(answer(made, seen, [True] * 3), answer(made, seen))


@pytest.mark.parametrize("name", WAYS)
def test_every_image_that_is_there_counts(name):
    made, seen = network(name, MASK), images()
    for n in range(3):
        other = seen.clone()
        other[:, n] = images(2)[:, n]
        assert not torch.allclose(answer(made, seen), answer(made, other), atol=1e-4)


@settings(max_examples=8, deadline=None)
@given(there=subsets)
def test_a_late_fusion_says_what_the_mean_of_its_networks_says(there):
    for size, mean in (({}, lambda one: one), (PROBABILITIES, lambda one: one.softmax(dim=1))):
        made, seen = network("fusion_late", MASK, **size), images()
        alone = [mean(answer(made, seen, [n == one for n in range(3)])) for one in range(3) if there[one]]
        found = mean(answer(made, seen, there))
        torch.testing.assert_close(found, torch.stack(alone).mean(dim=0), atol=1e-5, rtol=1e-4)


def test_encoders_that_are_alike_and_see_the_same_make_the_same_of_one_image_as_of_three():
    made, seen = network("fusion", MASK), images()[:, :1].repeat(1, 3, 1, 1)
    for encoder in made.encoders[1:]:
        encoder.load_state_dict(made.encoders[0].state_dict())
    for there in ([True, False, False], [False, True, True]):
        torch.testing.assert_close(answer(made, seen, there), answer(made, seen), atol=1e-5, rtol=1e-4)


def test_the_features_of_each_level_are_the_mean_of_those_that_are_there():
    made, seen = network("fusion", MASK), images()
    given = []
    made.decoders[0].register_forward_pre_hook(lambda module, arguments: given.append(arguments[0]))
    answer(made, seen, [True, False, True])
    with torch.no_grad():
        first, third = (made.encoders[n][0](seen[:, n : n + 1]) for n in (0, 2))
    torch.testing.assert_close(given[0][0], (first + third) / 2)


def test_frames_go_with_their_image_and_what_was_marked_before_to_every_encoder():
    made, seen = network("fusion", MASK, context=2, channels=5, modalities=2, frames=2), images(channels=5)
    assert [encoder[0].first.in_channels for encoder in made.encoders] == [3, 3]
    other = seen.clone()
    other[:, 2:4] += 5  # the second image's frames
    assert torch.equal(answer(made, seen, [True, False]), answer(made, other, [True, False]))
    other[:, 4] += 5
    assert not torch.equal(answer(made, seen, [True, False]), answer(made, other, [True, False]))


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize(("heads", "method"), [(CLASS, "concatenate"), (CLASS, "film"), (MASK, "film")])
def test_covariates_count_in_every_fusion_and_film_begins_as_without_them(name, heads, method):
    made, seen, there = network(name, heads, context=4, fusion={"method": method}), images(), [1.0, 0.0, 1.0]
    one, other = (torch.tensor([[age, *there]] * 2) for age in (0.0, 1.0))
    [head] = heads
    if method == "film":
        without = network(name, heads)
        without.load_state_dict({key: own for key, own in made.state_dict().items() if "telling" not in key})
        torch.testing.assert_close(made(seen, one)[head], without(seen, one[:, 1:])[head])
        for decoder in made.decoders:
            for part in decoder.telling.at.values():
                torch.nn.init.normal_(part.affine.weight)
    assert not torch.allclose(made(seen, one)[head], made(seen, other)[head])


def test_covariates_shift_the_maps_of_every_stage_of_the_decoder():
    made, seen = network("fusion", MASK, context=4, fusion={"method": "film"}), images()
    context = torch.tensor([[1.0, 1.0, 1.0, 1.0]] * 2)
    parts = made.decoders[0].telling.at
    assert list(parts) == ["0", "1", "2"]
    before = made(seen, context)["mask"]
    for part in parts.values():
        torch.nn.init.ones_(part.affine.bias[: len(part.affine.bias) // 2])
        after = made(seen, context)["mask"]
        assert not torch.allclose(after, before)
        before = after


@pytest.mark.parametrize(
    ("name", "heads", "context", "size", "says"),
    [
        ("fusion", MASK, 4, {"fusion": {"method": "concatenate"}}, "reach heads for the whole image only: choose film"),
        ("fusion", MASK, 2, {}, "not those of 3 images"),
        ("fusion", MASK, 3, {"modalities": 4}, "not those of 4 images"),
        ("fusion", MASK, 3, {"method": "sum"}, "no method 'sum'"),
        ("fusion_attention", MASK, 3, {"heads": 5}, "do not share 32 features evenly"),
    ],
)
def test_what_cannot_be_brought_together_is_refused(name, heads, context, size, says):
    with pytest.raises(PlanError, match=says):
        network(name, heads, context, **size)


@pytest.mark.parametrize("name", thinned(1, WAYS))
def test_onnx_takes_which_images_are_there_beside_them(name, tmp_path):
    made, seen = network(name, CLASS, **PROBABILITIES if name == "fusion_late" else {}), images()

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.made = made

        def forward(self, seen: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
            return self.made(seen, context)["class"]

    there = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    path = tmp_path / "network.onnx"
    names = {"input_names": ["images", "context"], "dynamo": False}
    torch.onnx.export(Plain().eval(), (seen, torch.ones(2, 3)), path, **names)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [found] = session.run(None, {"images": seen.numpy(), "context": there.numpy()})
    np.testing.assert_allclose(found, made(seen, there)["class"].detach().numpy(), atol=1e-5)
