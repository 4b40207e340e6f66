from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hilum.belief import Certainty, certainties
from hilum.errors import GeometryError, PlanError
from hilum.evaluation import conformal as evaluation_conformal
from hilum.evaluation.conformal import Conformal
from hilum.runtime import Model, ModelRequest, Preprocessing, ensemble, torch_networks
from hilum.runtime.bundle import network as bundle_network
from hilum.runtime.inference import Inference
from hilum.runtime.torch_networks import Networks, TorchNetwork
from hilum.runtime.windows import averaging
from hilum.runtime.windows.averaging import AveragedNetwork, MirroredNetwork
from hilum.tasks import task as tasks_task
from hilum.tasks import task_catalogue
from hilum.tasks.shared import averages
from hilum.transforms.intensity import Normalisation
from hilum.values import Geometry, Image

torch.set_num_threads(1)

PAIRED = ("left kidney", "right kidney", "spine")
RAS = np.diag([1.0, 1.0, 1.0, 1.0])
SIZE = (8, 8, 8)


def task(names: tuple[str, ...] = PAIRED) -> tasks_task.Task:
    labels = [{"value": value, "name": name} for value, name in enumerate(names, start=1)]
    return task_catalogue.build_task({"name": "segmentation", "labels": labels, "loss": "dice+ce", "tolerance": 2.0})


def model(names: tuple[str, ...] = PAIRED, **inference: Any) -> Model:
    chosen = task(names)
    size = {"strides": [[1, 1, 1], [2, 2, 2]], "width": 4}
    network = {"name": "unet", "channels": 1, "spatial_dims": 3, "size": size}
    torch.manual_seed(5)
    run = TorchNetwork(torch_networks.build_module(chosen, network).eval())
    preprocessing = Preprocessing(3, ("T1",), (Normalisation("window", -1000, 1000),))
    return Model(chosen, preprocessing, Inference(SIZE, **{"left_right": 0, **inference}), Networks(run, network))


def noise(seed: int = 0, affine: np.ndarray = RAS, oriented: bool = True) -> Image:
    pixels = np.random.default_rng(seed).normal(size=(1, *SIZE)).astype(np.float32)
    return Image(pixels, Geometry(SIZE, affine, oriented=oriented), channels=("T1",))


def probabilities(of: Model, image: Image, mirror: bool | None = None) -> np.ndarray:
    """(channels, *spatial), whose finer differences a label map would hide."""
    found = np.zeros((4, *SIZE))

    def collect(region: tuple[slice, ...], arrays: Mapping[str, np.ndarray]) -> None:
        found[(slice(None), *region)] = arrays["mask"]

    of.predict(image, ModelRequest(mirror), receiver=collect)
    return found


@given(st.integers(0, 9), st.sampled_from([(0,), (0, 1), (0, 1, 2), (0, 2)]))
def test_the_mirror_of_an_image_gets_the_mirror_of_its_result_with_the_sides_of_its_labels_changed(seed, flips):
    looking = model(flips=flips)
    image = noise(seed)
    straight, turned = probabilities(looking, image), probabilities(looking, image.with_pixels(image.data[:, ::-1]))
    assert_allclose(turned[[0, 2, 1, 3], ::-1], straight, atol=1e-6)


def test_without_mirroring_the_mirror_of_an_image_gets_another_result():
    looking, image = model(flips=(0,)), noise()
    turned = probabilities(looking, image.with_pixels(image.data[:, ::-1]), mirror=False)
    assert np.abs(turned[[0, 2, 1, 3], ::-1] - probabilities(looking, image, mirror=False)).max() > 1e-3


def test_an_image_that_is_stored_the_other_way_round_is_mirrored_across_the_same_sides():
    looking, image = model(flips=(0, 1)), noise()
    stored = image.with_pixels(image.data.transpose(0, 2, 1, 3)[:, :, ::-1])
    lying = np.array([[0, -1.0, 0, 7], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    stored = replace(stored, geometry=Geometry(SIZE, lying))
    found = probabilities(looking, stored)
    assert_allclose(found[:, :, ::-1].transpose(0, 2, 1, 3), probabilities(looking, image), atol=1e-6)


def test_a_mirrored_result_is_the_mean_of_the_probabilities_of_all_views():
    looking, image = model(flips=(0, 2)), noise()
    views = []
    for along in ((), (1,), (3,), (1, 3)):
        seen = probabilities(looking, image.with_pixels(np.flip(image.data, along)), mirror=False)
        back = np.flip(seen, along)
        views.append(back[[0, 2, 1, 3]] if 1 in along else back)
    assert_allclose(probabilities(looking, image), np.mean(views, axis=0), atol=1e-6)
    assert_array_equal(probabilities(looking, image, mirror=True), probabilities(looking, image))


def test_a_flag_mirrors_across_left_and_right_where_nothing_was_planned():
    image = noise()
    asked = probabilities(model(), image, mirror=True)
    assert_array_equal(asked, probabilities(model(flips=(0,)), image))
    assert np.abs(asked - probabilities(model(), image)).max() > 1e-3


def test_a_class_of_the_whole_image_changes_its_side_with_the_mirror():
    """An answer that is right for each view is right for their mean."""
    chosen = task_catalogue.build_task({"name": "classification", "classes": ["left", "right"], "smoothing": 0.0})

    def brighter_side(batch: np.ndarray) -> Mapping[str, np.ndarray]:
        left, right = batch[:, 0, :, :4].mean(axis=(1, 2)), batch[:, 0, :, 4:].mean(axis=(1, 2))
        return {"class": np.stack([left, right], axis=1)}

    batch = np.zeros((1, 1, 8, 8), np.float32)
    batch[..., :4] = 3
    assert chosen.channels_when_mirrored == (1, 0)
    seen = MirroredNetwork(brighter_side, chosen.average, (1,), 1, {"class": chosen.channels_when_mirrored})(batch)
    assert_allclose(chosen.probabilities({"class": seen["class"][0]})["class"], np.exp([3, 0]) / (np.exp(3) + 1))


@pytest.mark.parametrize("left_right", [0, None])
def test_a_side_without_its_counterpart_is_not_mirrored_across(left_right):
    one_sided = model(("left kidney", "spine"), left_right=left_right)
    with pytest.raises(PlanError, match=r"(has no counterpart|does not know which axis).*Predict with"):
        one_sided.predict(noise(), ModelRequest(mirror=True))
    with pytest.raises(PlanError, match=r"inference\.flips.*--no-mirror"):
        replace(one_sided, inference=Inference(SIZE, flips=(0,), left_right=left_right)).predict(noise())
    assert one_sided.predict(noise(), ModelRequest(mirror=False)).data is not None


def test_along_other_axes_a_one_sided_label_may_be_mirrored_where_left_and_right_are_known():
    one_sided = task(("left kidney", "spine"))
    assert averaging.flipped_axes(one_sided, 3, (1, 2), 0) == (1, 2)
    with pytest.raises(PlanError, match="not known which axis"):
        averaging.flipped_axes(one_sided, 3, (1, 2), None)
    assert averaging.flipped_axes(task(("tumour",)), 3, (1, 2), None) == (1, 2)
    with pytest.raises(PlanError, match="there is no axis 2 in 2 dimensions"):
        averaging.flipped_axes(one_sided, 2, (2,), 0)


def test_nothing_is_mirrored_unless_the_plan_or_a_person_says_so():
    assert averaging.flipped_axes(task(), 3, (), 0) == ()
    assert averaging.flipped_axes(task(), 3, (0, 1), 0, mirror=False) == ()
    with pytest.raises(PlanError, match="does not know which axis runs from left to right"):
        averaging.flipped_axes(task(), 3, (), None, mirror=True)


def test_a_volume_whose_sides_nobody_knows_is_refused_where_labels_name_sides():
    with pytest.raises(GeometryError, match="Give files that state their orientation"):
        model().predict(noise(oriented=False))
    assert model(("tumour", "oedema"), flips=(0,)).predict(noise(oriented=False)).data is not None


def test_several_networks_are_one_that_says_the_mean_of_their_probabilities():
    chosen, rng = task(), np.random.default_rng(0)
    outputs = [rng.normal(0, 5, (2, 4, 3, 3, 3)).astype(np.float32) for _ in range(3)]
    networks = tuple(lambda batch, one=one: {"mask": one} for one in outputs)
    joint = AveragedNetwork(networks, chosen.average)(np.zeros((2, 1, 3, 3, 3), np.float32))["mask"]
    powers = [np.exp(one.astype(float)) for one in outputs]
    by_hand = np.mean([power / power.sum(axis=1, keepdims=True) for power in powers], axis=0)
    assert_allclose(np.exp(joint), by_hand, rtol=1e-4, atol=1e-7)
    same = AveragedNetwork(networks[:1] * 2, chosen.average)(np.zeros((2, 1, 3, 3, 3), np.float32))["mask"]
    assert_allclose(np.exp(same), powers[0] / powers[0].sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("shape", "crosses"), [((8, 8, 1), True), ((8, 1, 8), True), ((1, 8, 8), False)])
def test_a_slice_is_mirrored_across_left_and_right_only_where_it_holds_both(shape, crosses):
    """A network that calls left what is bright: seen in the mirror that is right, but not in a sagittal slice."""
    chosen = task(("left kidney", "right kidney"))

    def bright_is_left(batch: np.ndarray) -> Mapping[str, np.ndarray]:
        return {"mask": np.concatenate([np.zeros_like(batch), 9 * batch, 0 * batch], axis=1)}

    preprocessing = Preprocessing(2, ("T1",), (Normalisation("window", 0, 1),))
    looking = Model(chosen, preprocessing, Inference((8, 8), flips=(0,), left_right=0), Networks(bright_is_left, {}))
    found = np.zeros((3, *shape))

    def collect(region: tuple[slice, ...], arrays: Mapping[str, np.ndarray]) -> None:
        found[(slice(None), *region)] = arrays["mask"]

    looking.predict(Image(np.ones((1, *shape), np.float32), Geometry(shape, RAS), channels=("T1",)), receiver=collect)
    left = np.exp(9) / (np.exp(9) + 2)
    other = 1 / (np.exp(9) + 2)
    assert_allclose(found[1], (left + other) / 2 if crosses else left, rtol=1e-3)
    assert_allclose(found[2], (left + other) / 2 if crosses else other, rtol=1e-3)


OUTPUTS = {
    "classification": ({"classes": ["a", "b", "c"], "smoothing": 0.0}, "class", (5, 3)),
    "segmentation": ({"labels": [{"value": 1, "name": "a"}], "loss": "ce", "tolerance": 1.0}, "mask", (2, 2, 4, 4)),
}


@given(st.sampled_from(["classification", "segmentation"]), st.lists(st.integers(1, 9), min_size=2, max_size=4))
def test_members_that_count_by_shares_are_the_weighted_mean_in_numpy_as_in_what_a_package_carries(name, counts):
    settings, head, shape = OUTPUTS[name]
    chosen, shares = task_catalogue.build_task({"name": name, **settings}), tuple(one / sum(counts) for one in counts)
    rng = np.random.default_rng(sum(counts))
    outputs = [rng.normal(size=shape).astype(np.float32) for _ in counts]
    found = chosen.average([{head: one} for one in outputs], shares)[head]
    mean = sum(share * certainties.softmax(one, 1) for one, share in zip(outputs, shares, strict=True))
    assert_allclose(certainties.softmax(found, 1), mean, atol=1e-5)
    assert found.dtype == np.float32
    packed = bundle_network.average_outputs([torch.from_numpy(one) for one in outputs], "probabilities", shares).numpy()
    assert_allclose(packed, found, atol=1e-5)
    same = chosen.average([{head: one} for one in outputs], (1 / len(outputs),) * len(outputs))[head]
    assert_allclose(same, chosen.average([{head: one} for one in outputs])[head], atol=1e-6)


def test_outputs_without_probabilities_are_averaged_by_shares_themselves():
    outputs = [np.array([[0.0, 4.0]], np.float32), np.array([[2.0, 0.0]], np.float32)]
    assert_allclose(averages.mean_output(outputs, (0.25, 0.75)), [[1.5, 1.0]])
    assert_allclose(averages.mean_output(outputs), [[1.0, 2.0]])
    assert averages.mean_output(outputs, (0.25, 0.75)).dtype == np.float32
    packed = bundle_network.average_outputs([torch.from_numpy(one) for one in outputs], "outputs", (0.25, 0.75)).numpy()
    assert_allclose(packed, [[1.5, 1.0]])


def test_what_each_of_several_networks_says_is_the_mean_of_its_own_views():
    sided = task_catalogue.build_task(
        {"name": "classification", "classes": ["left", "middle", "right"], "smoothing": 0.0}
    )
    dense, random = task(("left kidney", "right kidney")), np.random.default_rng(0)
    heads = {"class": sided, "mask": dense}
    weights = random.normal(size=(2, 3, 8, 8))

    def network(number: int):
        def seen(batch: np.ndarray) -> Mapping[str, np.ndarray]:
            own = batch * weights[number][None]
            return {"class": own.sum(axis=(2, 3)), "mask": own}

        return seen

    for head, chosen in heads.items():
        how = (chosen.average, (0, 1), 1, {head: chosen.channels_when_mirrored})
        both = AveragedNetwork((network(0), network(1)), chosen.average, each=[head])
        batch = np.repeat(random.normal(size=(2, 1, 8, 8)), 3, axis=1).astype(np.float32)
        each = [MirroredNetwork(network(number), *how)(batch)[head] for number in (0, 1)]
        seen = MirroredNetwork(both, *how)(batch)
        assert_allclose(seen[f"{head}:each"], np.concatenate(each, axis=1), atol=1e-5)
        assert_allclose(seen[head], chosen.average([{head: one} for one in each])[head], atol=1e-5)
        plain = MirroredNetwork(both, *how, plain=True)(batch)
        assert_allclose(plain[f"{head}:each"], both(batch)[f"{head}:each"], atol=1e-6)


def test_an_interval_of_a_volume_by_folds_goes_by_what_each_of_them_marks_in_all_windows():
    steps = (((1.0, 3.0), (2.0, 3.0)), ((0.5, 3.0), (3.0, 3.0)))
    found = Conformal("doubt", 0.5, "label", dict.fromkeys(PAIRED, 12), dict.fromkeys(PAIRED, 2.0), False)
    powers, both = dict.fromkeys(PAIRED, 1.0), replace(found, crossed=dict.fromkeys(PAIRED, steps))
    networks = [model(flips=(0,)), model(flips=(0,))]
    with torch.no_grad():
        for one in networks[1].networks.run.module.parameters():
            one.add_(0.02)

    def stated(conformal: Conformal) -> tasks_task.Task:
        return replace(task(), expected_dice=powers, certainty=Certainty(conformal=conformal))

    pixels = np.random.default_rng(0).normal(size=(1, 14, 9, 8)).astype(np.float32)
    image = Image(pixels, Geometry(pixels.shape[1:], RAS), channels=("T1",))
    own = [replace(one, task=stated(found)).predict(image).untuned["sizes"] for one in networks]
    mean = ensemble.averaged_model(networks, stated(both), networks[0].inference).predict(image).confidence
    for place, name in enumerate(PAIRED):
        said, wide = (np.array([one[row, place] for one in own]) for row in (0, 1))
        low, high = evaluation_conformal.cross_interval(steps, said, said, wide, 0.5)
        unit = image.geometry.voxel_volume / 1000
        assert (mean.low[name], mean.high[name]) == pytest.approx((max(0.0, unit * low), unit * high), rel=1e-4)
