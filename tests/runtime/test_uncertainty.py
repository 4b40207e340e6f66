from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from isocenter import tasks
from isocenter.errors import PlanError, UsageError
from isocenter.planning.sections import check_value
from isocenter.runtime import Averaged, Inference, Model, Preprocessing, TorchNetwork, build_module, with_uncertainty
from isocenter.runtime.uncertainty.disagreement import Disagreement
from isocenter.transforms import Normalisation
from isocenter.values import Geometry, Image

torch.set_num_threads(1)

SIZE = (8, 8, 8)
MASK = {"name": "segmentation", "labels": [{"value": 1, "name": "liver"}, {"value": 2, "name": "spleen"}]}
MASK |= {"loss": "dice+ce", "tolerance": 2.0}
CLASSES = {"name": "classification", "classes": ["benign", "malignant", "none"], "smoothing": 0.0}
FINDINGS = {"name": "findings", "findings": ["nodule", "effusion"]}
VALUES = {"name": "regression", "targets": ["age"], "units": {}, "mean": {"age": 50.0}, "deviation": {"age": 10.0}}


def model(task: dict[str, Any], members: int = 1, **inference: Any) -> Model:
    chosen = tasks.build(task)
    dense = any(head.is_dense for head in chosen.heads.values())
    size = {"strides": [[1] * 3, [2] * 3], "width": 4} if dense else {"width": 4, "blocks": [1, 1], "stem_stride": 1}
    network = {"name": "unet" if dense else "resnet", "channels": 1, "spatial_dims": 3, "size": size}
    runs = []
    for seed in range(members):
        torch.manual_seed(seed)
        runs.append(TorchNetwork(build_module(chosen, network).eval()))
    run = runs[0] if members == 1 else Averaged(tuple(runs), chosen.decoding.average)
    preprocessing = Preprocessing(3, ("T1",), (Normalisation("window", -1000, 1000),))
    return Model(chosen, preprocessing, Inference(SIZE, **{"left_right": 0, **inference}), network, run)


def noise(shape: tuple[int, ...] = SIZE, seed: int = 0) -> Image:
    pixels = np.random.default_rng(seed).normal(0, 800, size=(1, *shape)).astype(np.float32)
    return Image(pixels, Geometry(shape, np.eye(4)), channels=("T1",))


def each_chance(of: Model, image: Image) -> np.ndarray:
    """(members, classes) as each network states them."""
    single = [replace(of, run=member) for member in of.members]
    return np.array([list(one.predict(image).probabilities.values()) for one in single])


def entropy(chances: np.ndarray) -> np.ndarray:
    return -(chances * np.log(chances)).sum(axis=-1)


@given(
    views=st.integers(1, 4),
    kind=st.sampled_from(["classes", "labels"]),
    scale=st.sampled_from([0.1, 3.0, 300.0]),
    seed=st.integers(0, 99),
)
def test_the_entropy_of_the_mean_is_that_within_views_and_that_between_them(views, kind, scale, seed):
    outputs = np.random.default_rng(seed).normal(0, scale, size=(views, 2, 3, 5)).astype(np.float32)
    made = Disagreement({"a": kind})([{"a": one} for one in outputs])
    tensors = Disagreement({"a": kind})([{"a": torch.from_numpy(one)} for one in outputs])
    wide = outputs.astype(np.float64)
    if kind == "classes":
        chances = np.exp(wide - np.logaddexp.reduce(wide, axis=2, keepdims=True))[..., None]
    else:
        chance = np.exp(-np.logaddexp(0, -wide))
        chances = np.stack([chance, 1 - chance], axis=-1)
    axes = (1,) if kind == "classes" else (1, 3)
    mean = chances.mean(axis=0)
    total = -(mean * np.log(mean.clip(1e-300))).sum(axis=(*axes, *([] if kind == "labels" else [3])))
    assert_allclose(made["a:within"][:, 0] + made["a:between"][:, 0], total, atol=1e-5)
    assert (made["a:between"] >= 0).all()
    for name, array in made.items():
        assert_allclose(tensors[name].numpy(), array, atol=1e-5)


def test_views_that_agree_have_nothing_between_them_and_sure_ones_that_contradict_have_all():
    sure = np.array([[40.0, 0.0]], np.float32)
    same, opposed = ([{"a": sure}, {"a": other}] for other in (sure, sure[:, ::-1]))
    differ = Disagreement({"a": "classes"})
    assert_allclose([differ(same)["a:within"], differ(same)["a:between"]], 0, atol=1e-6)
    assert_allclose(differ(opposed)["a:between"], np.log(2), atol=1e-6)
    assert_allclose(differ(opposed, [0.25, 0.75])["a:between"], entropy(np.array([0.25, 0.75])), atol=1e-6)


def test_of_values_the_variance_of_the_means_and_the_mean_variance_are_stated():
    views = [{"value": np.array([[mean, np.log(variance)]], np.float32)} for mean, variance in ((1, 4), (3, 16))]
    made = Disagreement({"value": "values"}, values=1)(views)
    assert_allclose([made["value:within"], made["value:between"]], [[[10.0]], [[1.0]]], rtol=1e-6)


def test_of_members_total_is_aleatoric_and_epistemic_and_this_is_the_mutual_information():
    of, image = with_uncertainty(model(CLASSES, members=3)), noise()
    stated = of.predict(image)
    chances = each_chance(of, image)
    total, within = entropy(chances.mean(axis=0)), entropy(chances).mean()
    assert_allclose(list(stated.probabilities.values()), chances.mean(axis=0), rtol=1e-5)
    own = stated.confidence
    assert_allclose([own.total, own.aleatoric, own.epistemic], [total, within, total - within], atol=1e-6)
    assert own.epistemic > 1e-5


def test_of_calibrated_probabilities_the_parts_still_add_up_to_the_entropy_that_is_stated():
    found = {"method": "temperature", "parameters": {"all": [2.0]}, "cases": 50}
    of = with_uncertainty(model({**CLASSES, "calibration": found}, members=3))
    stated = of.predict(noise())
    assert_allclose(stated.confidence.total, entropy(np.array(list(stated.probabilities.values()))), atol=1e-6)
    assert_allclose(stated.confidence.aleatoric + stated.confidence.epistemic, stated.confidence.total, atol=1e-9)


def test_one_network_states_its_entropy_and_no_parts_of_it():
    for task, exclusive in ((CLASSES, True), (FINDINGS, False)):
        stated = with_uncertainty(model(task)).predict(noise())
        chances = np.array(list(stated.probabilities.values()))
        sides = chances if exclusive else np.stack([chances, 1 - chances], axis=-1)
        assert_allclose(stated.confidence.total, entropy(sides).sum(), atol=1e-6)
        assert stated.confidence.epistemic is stated.confidence.aleatoric is None


def test_members_of_a_regression_state_the_variance_of_their_means_in_the_unit_of_the_target():
    of, image = with_uncertainty(model({**VALUES, "noise": "gaussian"}, members=3)), noise()
    stated = of.predict(image)
    means = [replace(of, run=member).predict(image).values["age"] for member in of.members]
    assert_allclose(stated.confidence.epistemic, np.var(means), rtol=1e-4)
    assert_allclose(stated.confidence.aleatoric, stated.confidence.deviations[0] ** 2, rtol=1e-6)
    assert_allclose(stated.confidence.total, stated.confidence.aleatoric + stated.confidence.epistemic)


def test_maps_of_overlapping_windows_have_the_mean_of_the_case_and_change_no_label():
    of, image = model(MASK, members=2), noise((12, 8, 10))
    plain, stated = of.predict(image), with_uncertainty(of, "members").predict(image, maps=True)
    assert_array_equal(np.asarray(plain.data), np.asarray(stated.data))
    total, epistemic = (np.asarray(stated.maps[name].data) for name in ("total", "epistemic"))
    assert total.dtype == epistemic.dtype == np.float32
    assert total.shape == epistemic.shape == (12, 8, 10)
    assert (epistemic <= total + 1e-6).all()
    assert (epistemic >= 0).all()
    assert_allclose([stated.confidence.total, stated.confidence.epistemic], [total.mean(), epistemic.mean()], rtol=1e-5)
    assert not with_uncertainty(of).predict(image).maps


@pytest.mark.parametrize("flips", [(), (1,)])
def test_mirrored_views_say_how_uncertain_a_result_is_and_change_nothing(flips):
    of, image = model(CLASSES, flips=flips), noise()
    plain, stated = of.predict(image), with_uncertainty(of, "tta").predict(image)
    assert stated.probabilities == plain.probabilities
    assert stated.confidence.total == plain.confidence.total
    assert stated.confidence.epistemic > 0
    assert plain.confidence.epistemic is None


def test_a_dense_result_is_looked_at_only_where_somebody_asks_or_the_plan_does():
    for asked, planned, method in ((None, "auto", "none"), ("auto", "auto", "members"), (None, "members", "members")):
        assert with_uncertainty(model(MASK, members=2, uncertainty=planned), asked).uncertainty == method


@pytest.mark.parametrize(
    ("task", "members", "asked", "why"),
    [
        (CLASSES, 1, "members", "without members"),
        (CLASSES, 2, "dropconnect", "no method 'dropconnect'"),
        ({**CLASSES, "classes": ["left lung", "heart", "none"]}, 1, "tta", "no mirrored view"),
    ],
)
def test_a_method_that_a_model_does_not_have_is_refused_by_name(task, members, asked, why):
    with pytest.raises(UsageError, match=why):
        with_uncertainty(model(task, members), asked)


def test_a_plan_with_a_method_that_is_not_built_is_refused_by_name():
    check_value("inference.uncertainty", "tta")
    with pytest.raises(PlanError, match="swag"):
        check_value("inference.uncertainty", "swag")


def test_a_record_of_an_older_version_looks_by_itself():
    assert Inference.of({"patch": [8, 8], "overlap": 0.5, "batch": 1}).uncertainty == "auto"
