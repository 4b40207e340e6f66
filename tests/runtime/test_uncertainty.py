from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from torch.distributions import Normal, kl_divergence

from apple_gpus import on_apple
from hilum.errors import IntegrityError, PlanError, UsageError
from hilum.networks import dropout, factory
from hilum.networks.network_parts import NetworkFeatures
from hilum.planning import typed_sections
from hilum.prediction import withholding
from hilum.runtime import (
    Model,
    ModelRequest,
    Preprocessing,
    model_assembly,
    model_files,
    model_record,
    torch_networks,
)
from hilum.runtime.bundle.network import VariationalLayer
from hilum.runtime.inference import Inference
from hilum.runtime.model_parts import ModelParts
from hilum.runtime.package import package_contents, package_writing
from hilum.runtime.package.backend_certificate import Computing
from hilum.runtime.package.backends import torch_eager
from hilum.runtime.package.package_writing import PackageEvidence
from hilum.runtime.torch_networks import Networks, TorchNetwork
from hilum.runtime.uncertainty import uncertainty_methods
from hilum.runtime.uncertainty.disagreement import Disagreement
from hilum.runtime.uncertainty.uncertainty_methods import LastLayers
from hilum.runtime.windows.averaging import AveragedNetwork
from hilum.tasks import task_catalogue, task_settings
from hilum.tasks.detection.question import Detection
from hilum.tasks.instances.question import InstanceSegmentation
from hilum.transforms.intensity import Normalisation
from hilum.values import Geometry, Image

torch.set_num_threads(1)

SIZE = (8, 8, 8)
MASK = {"name": "segmentation", "labels": [{"value": 1, "name": "liver"}, {"value": 2, "name": "spleen"}]}
MASK |= {"loss": "dice+ce", "tolerance": 2.0}
CLASSES = {"name": "classification", "classes": ["benign", "malignant", "none"], "smoothing": 0.0}
FINDINGS = {"name": "findings", "findings": ["nodule", "effusion"]}
VALUES = {"name": "regression", "targets": ["age"], "units": {}, "mean": {"age": 50.0}, "deviation": {"age": 10.0}}


def model(task: dict[str, Any], members: int = 1, **inference: Any) -> Model:
    chosen = task_catalogue.build_task(task)
    dense = any(head.is_dense for head in chosen.heads.values())
    size = {"strides": [[1] * 3, [2] * 3], "width": 4} if dense else {"width": 4, "blocks": [1, 1], "stem_stride": 1}
    network = {"name": "unet" if dense else "resnet", "channels": 1, "spatial_dims": 3, "size": size}
    runs = []
    for seed in range(members):
        torch.manual_seed(seed)
        runs.append(TorchNetwork(torch_networks.build_module(chosen, network).eval()))
    run = runs[0] if members == 1 else AveragedNetwork(tuple(runs), chosen.average)
    preprocessing = Preprocessing(3, ("T1",), (Normalisation("window", -1000, 1000),))
    return Model(chosen, preprocessing, Inference(SIZE, **{"left_right": 0, **inference}), Networks(run, network))


INSTANCES = {"name": "instances", **task_settings.settings_of(InstanceSegmentation((1.0, 1.0, 1.0), 6.0))}
BOXES = {"name": "detection", **task_settings.settings_of(Detection(("cell", "clump"), 3, 4.0))}
TIMES = {"model": "weibull", "horizons": [5.0, 10.0], "scale": 6.0, "edges": [2.0, 20.0], "followed": 20.0}
TIMES |= {"name": "survival", "censoring": {"time": [], "share": []}}
SEVERAL = {"name": "classification+regression", "weighting": "fixed"}
SEVERAL |= {f"{one['name']}.{key}": value for one in (CLASSES, VALUES) for key, value in one.items() if key != "name"}


def moderate(of: Model) -> Model:
    """With logits of about 1: those of fresh weights are so large that nothing is uncertain."""
    with torch.no_grad():
        for layer in (layer for member in of.networks.members for layer in member.module.vectors.values()):
            layer.weight.mul_(0.02)
    return of


def noise(shape: tuple[int, ...] = SIZE, seed: int = 0) -> Image:
    pixels = np.random.default_rng(seed).normal(0, 800, size=(1, *shape)).astype(np.float32)
    return Image(pixels, Geometry(shape, np.eye(4)), channels=("T1",))


def each_chance(of: Model, image: Image) -> np.ndarray:
    """(members, classes) as each network states them."""
    single = [of.with_run(member) for member in of.networks.members]
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
    vectors = Disagreement({"a": kind})([{"a": one[..., 2]} for one in outputs])
    for name, array in made.items():
        assert_allclose(tensors[name].numpy(), array, atol=1e-5)
        assert_allclose(vectors[name], array[..., 2], atol=1e-5)


def test_views_that_agree_have_nothing_between_them_and_sure_ones_that_contradict_have_all():
    sure = np.array([[40.0, 0.0]], np.float32)
    same, opposed = ([{"a": sure}, {"a": other}] for other in (sure, sure[:, ::-1]))
    differ = Disagreement({"a": "classes"})
    assert_allclose([differ(same)["a:within"], differ(same)["a:between"]], 0, atol=1e-6)
    assert_allclose(differ(opposed)["a:between"], np.log(2), atol=1e-6)
    assert_allclose(differ(opposed, [0.25, 0.75])["a:between"], entropy(np.array([0.25, 0.75])), atol=1e-6)


def test_of_values_the_variance_of_the_means_and_the_mean_variance_are_stated():
    views = [{"value": np.array([[mean, np.log(variance)]], np.float32)} for mean, variance in ((1, 4), (3, 16))]
    made = Disagreement({"value": "values"}, {"value": 1})(views)
    assert_allclose([made["value:within"], made["value:between"]], [[[10.0]], [[1.0]]], rtol=1e-6)


def test_of_members_total_is_aleatoric_and_epistemic_and_this_is_the_mutual_information():
    of, image = model_assembly.with_uncertainty(model(CLASSES, members=3)), noise()
    stated = of.predict(image)
    chances = each_chance(of, image)
    total, within = entropy(chances.mean(axis=0)), entropy(chances).mean()
    assert_allclose(list(stated.probabilities.values()), chances.mean(axis=0), rtol=1e-5)
    own = stated.confidence
    assert_allclose([own.total, own.aleatoric, own.epistemic], [total, within, total - within], atol=1e-6)
    assert own.epistemic > 1e-5


def test_of_calibrated_probabilities_the_parts_still_add_up_to_the_entropy_that_is_stated():
    found = {"method": "temperature", "parameters": {"all": [2.0]}, "cases": 50}
    of = model_assembly.with_uncertainty(model({**CLASSES, "calibration": found}, members=3))
    stated = of.predict(noise())
    assert_allclose(stated.confidence.total, entropy(np.array(list(stated.probabilities.values()))), atol=1e-6)
    assert_allclose(stated.confidence.aleatoric + stated.confidence.epistemic, stated.confidence.total, atol=1e-9)


def test_one_network_states_its_entropy_and_no_parts_of_it():
    for task, exclusive in ((CLASSES, True), (FINDINGS, False)):
        stated = model_assembly.with_uncertainty(model(task)).predict(noise())
        chances = np.array(list(stated.probabilities.values()))
        sides = chances if exclusive else np.stack([chances, 1 - chances], axis=-1)
        assert_allclose(stated.confidence.total, entropy(sides).sum(), atol=1e-6)
        assert stated.confidence.epistemic is stated.confidence.aleatoric is None


def test_members_of_a_regression_state_the_variance_of_their_means_in_the_unit_of_the_target():
    of, image = model_assembly.with_uncertainty(model({**VALUES, "noise": "gaussian"}, members=3)), noise()
    stated = of.predict(image)
    means = [of.with_run(member).predict(image).values["age"] for member in of.networks.members]
    assert_allclose(stated.confidence.epistemic, np.var(means), rtol=1e-4)
    assert_allclose(stated.confidence.aleatoric, stated.confidence.deviations[0] ** 2, rtol=1e-6)
    assert_allclose(stated.confidence.total, stated.confidence.aleatoric + stated.confidence.epistemic)


def test_objects_state_how_uncertain_it_is_whether_a_voxel_is_inside_one():
    of, image = model(INSTANCES, members=2), noise()
    plain, stated = (
        of.predict(image),
        model_assembly.with_uncertainty(of, "members").predict(image, ModelRequest(maps=True)),
    )
    assert_array_equal(np.asarray(plain.data), np.asarray(stated.data))
    total, epistemic = (np.asarray(stated.maps[name].data) for name in ("total", "epistemic"))
    assert (epistemic <= total + 1e-6).all()
    assert_allclose([stated.confidence.total, stated.confidence.epistemic], [total.mean(), epistemic.mean()], rtol=1e-5)
    assert stated.confidence.epistemic > 0


def test_each_box_states_how_uncertain_it_is_whether_it_is_there():
    of, image = model(BOXES, members=2), noise()
    plain, stated = of.predict(image), model_assembly.with_uncertainty(of, "members").predict(image)
    assert_array_equal(plain.boxes.corners, stated.boxes.corners)
    rows = of.task.outputs(stated)
    assert rows[0]["score"] is not None
    for row in rows:
        assert_allclose(row["total"], entropy(np.array([row["score"], 1 - row["score"]]).clip(1e-12)), atol=1e-4)
        assert_allclose(row["aleatoric"] + row["epistemic"], row["total"], atol=1e-9)
    assert max(row["epistemic"] for row in rows) > 0
    assert "total" not in of.task.outputs(plain)[0]
    assert stated.confidence.total is None


@pytest.mark.parametrize("kind", ["cox", "hazards", "weibull"])
def test_times_to_an_event_state_the_variance_of_the_risk_between_views(kind):
    of, image = moderate(model({**TIMES, "model": kind}, members=3)), noise()
    stated = model_assembly.with_uncertainty(of).predict(image)
    risks = [of.with_run(member).predict(image).values["risk"] for member in of.networks.members]
    own = stated.confidence
    assert_allclose([own.epistemic, own.aleatoric], [np.var(risks), np.pi**2 / 6], rtol=1e-4)
    assert_allclose(own.total, own.aleatoric + own.epistemic, atol=1e-9)


def test_several_tasks_at_once_state_what_each_would_state_alone():
    of, image = moderate(model(SEVERAL, members=3)), noise()
    stated = model_assembly.with_uncertainty(of).predict(image)
    each = [of.with_run(member).predict(image).parts for member in of.networks.members]
    chances = np.array([list(one["classification"].probabilities.values()) for one in each])
    own = stated.parts["classification"].confidence
    assert_allclose(own.total, entropy(chances.mean(axis=0)), atol=1e-6)
    assert_allclose(own.aleatoric, entropy(chances).mean(), atol=1e-6)
    assert_allclose(own.aleatoric + own.epistemic, own.total, atol=1e-9)
    ages = [one["regression"].values["age"] for one in each]
    assert_allclose(stated.parts["regression"].confidence.epistemic, np.var(ages), rtol=1e-4)
    columns = withholding.confidence_columns(stated)
    assert {"classification_total", "classification_epistemic", "regression_epistemic"} <= set(columns)
    assert "total" not in columns


def test_maps_of_overlapping_windows_have_the_mean_of_the_case_and_change_no_label():
    of, image = model(MASK, members=2), noise((12, 8, 10))
    plain, stated = (
        of.predict(image),
        model_assembly.with_uncertainty(of, "members").predict(image, ModelRequest(maps=True)),
    )
    assert_array_equal(np.asarray(plain.data), np.asarray(stated.data))
    total, epistemic = (np.asarray(stated.maps[name].data) for name in ("total", "epistemic"))
    assert total.dtype == epistemic.dtype == np.float32
    assert total.shape == epistemic.shape == (12, 8, 10)
    assert (epistemic <= total + 1e-6).all()
    assert (epistemic >= 0).all()
    assert_allclose([stated.confidence.total, stated.confidence.epistemic], [total.mean(), epistemic.mean()], rtol=1e-5)
    assert not model_assembly.with_uncertainty(of).predict(image).maps


def test_each_of_two_tasks_that_mark_voxels_has_maps_of_its_own():
    joint = {"name": "instances+segmentation", "weighting": "fixed"}
    joint |= {f"{one['name']}.{key}": value for one in (INSTANCES, MASK) for key, value in one.items() if key != "name"}
    stated = model_assembly.with_uncertainty(model(joint, members=2), "members").predict(
        noise(), ModelRequest(maps=True)
    )
    assert list(stated.maps) == ["total", "epistemic", "segmentation_total", "segmentation_epistemic"]
    for part, start in (("instances", ""), ("segmentation", "segmentation_")):
        own = stated.parts[part].confidence
        means = [np.asarray(stated.maps[f"{start}{name}"].data).mean() for name in ("total", "epistemic")]
        assert_allclose(means, [own.total, own.epistemic], rtol=1e-5)


@pytest.mark.parametrize("flips", [(), (1,)])
def test_mirrored_views_say_how_uncertain_a_result_is_and_change_nothing(flips):
    of, image = model(CLASSES, flips=flips), noise()
    plain, stated = of.predict(image), model_assembly.with_uncertainty(of, "tta").predict(image)
    assert stated.probabilities == plain.probabilities
    assert stated.confidence.total == plain.confidence.total
    assert stated.confidence.epistemic > 0
    assert plain.confidence.epistemic is None


def test_of_a_dense_result_members_are_compared_and_nothing_else_unless_somebody_asks_or_the_plan_does():
    for asked, planned, method in ((None, "auto", "members"), (None, "none", "none"), ("none", "members", "none")):
        assert (
            model_assembly.with_uncertainty(model(MASK, members=2, uncertainty=planned), asked).uncertainty.name
            == method
        )
    of = model(MASK)
    layers = uncertainty_methods.last_layers_of(of.basis)
    replace(of, networks=of.networks.watch(layers)).predict(noise())
    fitted = replace(of, parts=ModelParts(laplace=layers.fit_posteriors(1)))
    for asked, planned, method in ((None, "auto", "none"), ("auto", "auto", "laplace"), (None, "laplace", "laplace")):
        planned_so = replace(fitted, inference=replace(fitted.inference, uncertainty=planned))
        assert model_assembly.with_uncertainty(planned_so, asked).uncertainty.name == method


@pytest.mark.parametrize(
    ("task", "members", "asked", "why"),
    [
        (CLASSES, 1, "members", "without members"),
        (CLASSES, 2, "mc_dropout", "no method 'mc_dropout'"),
        ({**CLASSES, "classes": ["left lung", "heart", "none"]}, 1, "tta", "no mirrored view"),
    ],
)
def test_a_method_that_a_model_does_not_have_is_refused_by_name(task, members, asked, why):
    with pytest.raises(UsageError, match=why):
        model_assembly.with_uncertainty(model(task, members), asked)


def test_a_plan_with_a_method_that_is_not_built_is_refused_by_name():
    typed_sections.check_value("inference.uncertainty", "tta")
    with pytest.raises(PlanError, match="swag"):
        typed_sections.check_value("inference.uncertainty", "swag")


def layer_and_cases(count: int, width: int = 4, classes: int = 3, spread: float = 1.0) -> tuple[Any, Any, Any]:
    """A linear layer, the inputs of so many cases and the layer's outputs."""
    torch.manual_seed(3)
    layer = torch.nn.Linear(width, classes)
    inputs = spread * torch.randn(count, width, generator=torch.Generator().manual_seed(1))
    return layer, inputs, layer(inputs).detach()


def posterior_after(count: int, kind: str = "classes", **how: Any) -> tuple[Any, Any]:
    layer, inputs, outputs = layer_and_cases(count, **how)
    layers = LastLayers({"class": layer}, {"class": kind})
    with torch.inference_mode():
        layers(NetworkFeatures({"class": outputs}, inputs, inputs, {"class": inputs}))
    return layer, layers.fit_posteriors(count).heads["class"]


def test_a_posterior_is_fitted_also_where_a_gpu_has_no_float64():
    layer, inputs, outputs = layer_and_cases(20)
    layers, expected = LastLayers({"class": layer}, {"class": "classes"}), posterior_after(20)[1]
    with torch.inference_mode():
        seen, made = on_apple(inputs), on_apple(outputs)
        layers(NetworkFeatures({"class": made}, seen, seen, {"class": seen}))
    assert_allclose(layers.fit_posteriors(20).heads["class"].inputs, expected.inputs)


def deviations(of: Any, inputs: Any, outputs: Any) -> np.ndarray:
    """(batch, outputs) of many draws."""
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((4000, outputs.shape[1])))
    return torch.stack(of.draws(inputs, outputs.double(), noise)).std(dim=0).numpy()


def test_of_one_input_the_posterior_is_the_inverse_of_the_whole_gauss_newton_matrix():
    """All cases alike: then the matrix is a Kronecker product, and nothing is approximated."""
    layer, inputs, _ = layer_and_cases(1)
    inputs = inputs.repeat(30, 1)
    outputs = layer(inputs).detach()
    layers = LastLayers({"class": layer}, {"class": "classes"})
    layers(NetworkFeatures({"class": outputs}, inputs, inputs, {"class": inputs}))
    of = layers.fit_posteriors(30).heads["class"]
    x = np.append(inputs[0].numpy(), 1.0).astype(float)
    p = torch.softmax(outputs[0].double(), dim=0).numpy()
    whole = 30 * np.kron(np.outer(x, x), np.diag(p) - np.outer(p, p)) + of.precision[0] * np.eye(5 * 3)
    jacobian = np.kron(x, np.eye(3))
    variances = np.diag(jacobian @ np.linalg.inv(whole) @ jacobian.T)
    assert_allclose(deviations(of, inputs[:1], outputs[:1])[0], np.sqrt(variances), rtol=0.05)


def test_more_cases_leave_less_uncertainty_and_unlike_cases_meet_more():
    (layer, few), (_, many) = posterior_after(20), posterior_after(2000)
    near, far = torch.ones(1, 4), torch.full((1, 4), 30.0)
    spreads = [deviations(one, at, layer(at).detach()).mean() for one in (few, many) for at in (near, far)]
    assert spreads[2] < spreads[0] < spreads[1]
    assert spreads[2] < spreads[3]


def test_draws_of_a_map_are_those_of_each_of_its_voxels():
    layer, of = posterior_after(20)
    conv = torch.nn.Conv2d(4, 3, 1)
    conv.load_state_dict({"weight": layer.weight[:, :, None, None], "bias": layer.bias})
    inputs = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    noise = torch.tensor([[0.3, -1.0, 0.5], [2.0, 0.1, -0.4]])
    made = torch.stack(of.draws(inputs, conv(inputs).detach(), noise))
    alone = torch.stack(of.draws(inputs[1:, :, 2, 4], conv(inputs)[1:, :, 2, 4].detach(), noise))
    assert_allclose(made[:, 1, :, 2, 4].numpy(), alone[:, 0].numpy(), rtol=1e-5)


def test_a_head_whose_output_is_more_than_its_last_layer_has_no_posterior():
    layer, inputs, outputs = layer_and_cases(8)
    layers = LastLayers({"class": layer}, {"class": "classes"})
    layers(NetworkFeatures({"class": outputs * 2}, inputs, inputs, {"class": inputs}))
    assert layers.fit_posteriors(8) is None


@pytest.mark.parametrize("task", [CLASSES, FINDINGS, MASK], ids=["classes", "findings", "mask"])
def test_draws_of_the_last_layer_say_how_uncertain_a_result_is_and_change_nothing(task, tmp_path):
    of, image = model(task), noise()
    layers = uncertainty_methods.last_layers_of(of.basis)
    for seed in range(3):
        replace(of, networks=of.networks.watch(layers)).predict(noise(seed=seed))
    looking = model_assembly.with_uncertainty(
        replace(of, parts=ModelParts(laplace=layers.fit_posteriors(3))), "laplace"
    )
    plain, stated = of.predict(image), looking.predict(image, ModelRequest(maps=task is MASK))
    assert stated.probabilities == plain.probabilities
    assert stated.confidence.epistemic > 0
    assert_allclose(stated.confidence.total, stated.confidence.aleatoric + stated.confidence.epistemic, atol=1e-6)
    if task is MASK:
        assert_array_equal(np.asarray(stated.data), np.asarray(plain.data))
        assert_allclose(np.asarray(stated.maps["epistemic"].data).mean(), stated.confidence.epistemic, rtol=1e-5)
    looking.parts.write(tmp_path)
    again = model_record.read_parts(looking.settings, tmp_path).laplace
    same = model_assembly.with_uncertainty(replace(of, parts=ModelParts(laplace=again)), "laplace").predict(image)
    assert same.confidence.epistemic == stated.confidence.epistemic
    (tmp_path / "laplace.safetensors").write_bytes(b"other")
    with pytest.raises(IntegrityError, match="is not the posterior of this model"):
        model_record.read_parts(looking.settings, tmp_path)


@pytest.mark.parametrize(
    ("task", "members", "planned"),
    [(CLASSES, 1, "laplace"), (VALUES, 2, "auto")],
    ids=["posterior", "members"],
)
@pytest.mark.whole
def test_the_onnx_file_of_a_package_states_the_same_uncertainty_without_torch(task, members, planned, tmp_path):
    of, image = model(task, members, uncertainty=planned, draws=2), noise((10, 8, 8))
    if planned == "laplace":
        layers = uncertainty_methods.last_layers_of(of.basis)
        replace(of, networks=of.networks.watch(layers)).predict(image)
        of = replace(of, parts=ModelParts(laplace=layers.fit_posteriors(5)))
    record = package_writing.write_package(model_assembly.with_uncertainty(of), PackageEvidence(), "test", tmp_path)
    assert record["exported"], record.get("because")
    torch_own, onnx = (model_files.load(tmp_path, "cpu", backend=backend) for backend in ("torch", "onnx"))
    stated, own = (one.predict(image).confidence for one in (onnx, torch_own))
    assert own.epistemic > 0
    assert_allclose([stated.epistemic, stated.total or 0], [own.epistemic, own.total or 0], rtol=2e-3, atol=1e-7)
    assert model_assembly.with_uncertainty(onnx, "none").predict(image).confidence.aleatoric is None
    with pytest.raises(UsageError, match="--uncertainty"):
        model_assembly.with_uncertainty(onnx, "laplace" if members > 1 else "members")
    if members > 1:
        mean_alone = replace(onnx, networks=replace(onnx.networks, in_graph=""))
        with pytest.raises(UsageError, match=r"its 2 members are compared by the backend torch alone.*--backend torch"):
            model_assembly.with_uncertainty(mean_alone, "members")
        with pytest.raises(UsageError, match="the model has 2"):
            model_assembly.with_uncertainty(onnx, "dropout")


DROPPED = {"width": 4, "blocks": [1, 1], "stem_stride": 1, "dropout": 0.0}


def random_model(task: dict[str, Any], share: float = 0.0, *, bayesian: bool = False, **inference: Any) -> Model:
    """A model whose network was built with dropout, or with distributions as last layers."""
    of = model(task, **inference)
    network = {**of.networks.architecture, "dropout": share}
    if bayesian:
        network["size"] = {**network["size"], "bayesian": True}
    torch.manual_seed(0)
    return replace(of, networks=Networks(TorchNetwork(torch_networks.build_module(of.task, network).eval()), network))


@pytest.mark.parametrize("method", ["dropout", "variational"])
@pytest.mark.parametrize("task", [CLASSES, FINDINGS, MASK], ids=["classes", "findings", "mask"])
def test_sampled_dropout_and_learnt_distributions_state_both_parts_and_change_no_answer(task, method):
    of, image = random_model(task, 0.2, bayesian=True, draws=4), noise()
    of = of if task is MASK else moderate(of)
    plain, looking = of.predict(image), model_assembly.with_uncertainty(of, method)
    assert looking.uncertainty.name == method
    first, again = (looking.predict(image, ModelRequest(maps=task is MASK)) for _ in range(2))
    assert first.probabilities == plain.probabilities
    if task is MASK:
        assert_array_equal(np.asarray(first.data), np.asarray(plain.data))
        assert_allclose(np.asarray(first.maps["epistemic"].data).mean(), first.confidence.epistemic, rtol=1e-5)
    assert first.confidence.epistemic == again.confidence.epistemic > 0
    assert_allclose(first.confidence.total, first.confidence.aleatoric + first.confidence.epistemic, atol=1e-6)


def test_nothing_takes_dropout_or_learnt_distributions_but_who_asks_or_the_plan():
    of = random_model(CLASSES, 0.2, bayesian=True)
    assert model_assembly.with_uncertainty(of).uncertainty.name == "none"
    assert model_assembly.with_uncertainty(of, "auto").uncertainty.name == "none"
    planned = random_model(CLASSES, 0.2, bayesian=True, uncertainty="dropout")
    assert model_assembly.with_uncertainty(planned).uncertainty.name == "dropout"


def test_sampled_dropout_states_the_variance_of_a_value_between_its_passes():
    of, image = random_model(VALUES, 0.2, draws=5), noise()
    stated, layers = model_assembly.with_uncertainty(of, "dropout").predict(image), []
    module, values = of.networks.run.module, []
    layers = dropout.dropout_layers(module)
    for draw in range(5):
        with dropout.masks_of_draw(layers, draw):
            values.append(of.predict(image).values["age"])
    assert_allclose(stated.confidence.epistemic, np.var(values), rtol=1e-4)
    assert stated.values == of.predict(image).values


@pytest.mark.parametrize("flips", [(), (1,)])
def test_every_window_and_every_mirrored_view_sees_the_same_masks(flips):
    """Two equal halves, a window each, have the same disagreement; so has a mirrored image mirrored windows of it."""
    of = model_assembly.with_uncertainty(random_model(MASK, 0.2, overlap=0.0, flips=flips, draws=3), "dropout")
    half = noise().data
    image = Image(np.concatenate([half, half], axis=1), Geometry((16, 8, 8), np.eye(4)), channels=("T1",))
    made = np.asarray(of.predict(image, ModelRequest(maps=True)).maps["epistemic"].data)
    assert made.max() > 0
    assert_allclose(made[:8], made[8:], atol=1e-6)
    batched = replace(of, inference=replace(of.inference, batch=2)).predict(image, ModelRequest(maps=True))
    assert_allclose(np.asarray(batched.maps["epistemic"].data), made, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "why"), [("dropout", "was trained without dropout"), ("variational", "its last layers are no distr")]
)
def test_what_was_trained_without_dropout_or_distributions_is_refused_by_name(method, why):
    plain = model(CLASSES)
    module = torch_networks.build_module(plain.task, {**plain.networks.architecture, "size": DROPPED}).eval()
    of = plain.with_run(TorchNetwork(module))
    with pytest.raises(UsageError, match=why):
        model_assembly.with_uncertainty(of, method)
    bayesian = {**of.networks.architecture, "size": {**of.networks.architecture["size"], "bayesian": True}}
    several = model(CLASSES, members=2)
    several = replace(several, networks=replace(several.networks, architecture=bayesian))
    with pytest.raises(UsageError, match="sampled in a single network, and the model has 2"):
        model_assembly.with_uncertainty(several, method)


@pytest.mark.whole
@pytest.mark.parametrize("method", ["dropout", "variational"])
def test_a_package_samples_as_its_run_does_and_a_backend_that_does_not_says_so(method, tmp_path):
    of, image = moderate(random_model(CLASSES, 0.2, bayesian=True, draws=4, uncertainty=method)), noise((10, 8, 8))
    looking = model_assembly.with_uncertainty(of)
    own = looking.predict(image).confidence
    record = package_writing.write_package(looking, PackageEvidence(), "test", tmp_path)
    assert record["exported"], record.get("because")
    in_torch, onnx = (model_files.load(tmp_path, "cpu", backend=backend) for backend in ("torch", "onnx"))
    assert in_torch.uncertainty.name == method
    assert_allclose(in_torch.predict(image).confidence.epistemic, own.epistemic, rtol=1e-5)
    if method == "dropout":
        assert onnx.predict(image).confidence.epistemic is None
        for asked, what in (("dropout", "dropout"), ("variational", "a last layer")):
            reason = f"{what} is sampled by the backend torch alone, and the network is computed on cpu with onnx"
            with pytest.raises(UsageError, match=f"{reason}. Choose --backend torch"):
                model_assembly.with_uncertainty(onnx, asked)
    else:
        assert_allclose(onnx.predict(image).confidence.epistemic, own.epistemic, rtol=2e-3)
        # A backend that reads the weights computes none of the figures that the graph states.
        computing = Computing(torch_eager.HALF, "cpu", "this test asks for it")
        half = model_files.read_package_on(tmp_path, package_contents.package_record(tmp_path), computing, None)
        assert model_assembly.with_uncertainty(half).uncertainty.name == "none"
        with pytest.raises(UsageError, match=r"cpu with torch-bf16\. Choose --backend torch"):
            model_assembly.with_uncertainty(half, "variational")


def layer_with_distributions(inside: int, outside: int) -> VariationalLayer:
    torch.manual_seed(0)
    layer = VariationalLayer(torch.nn.Linear(inside, outside))
    with torch.no_grad():
        layer.log_ratio.uniform_(-1, 0)
    return layer


def test_the_divergence_from_the_prior_is_that_of_torchs_normal_distributions():
    layer = layer_with_distributions(9, 4)
    learnt = Normal(layer.weight, layer.log_ratio.exp() / 3)  # a prior of 1 / 9 has a deviation of 1 / 3
    expected = kl_divergence(learnt, Normal(0.0, 1 / 3)).sum()
    assert_allclose(layer.divergence().detach(), expected.detach(), rtol=1e-5)
    with torch.no_grad():
        layer.weight.zero_()
        layer.log_ratio.zero_()
    assert layer.divergence() == 0


def test_outputs_are_sampled_as_sampled_weights_would_give_them():
    layer, features = layer_with_distributions(6, 2).train(), torch.randn(6)
    with torch.no_grad():
        sums = layer(features.expand(20_000, -1))
        weights = layer.weight + layer.prior * layer.log_ratio.exp() * torch.randn(20_000, 2, 6)
        expected = weights @ features + layer.bias
        assert_allclose(layer.eval()(features[None])[0], layer.weight @ features + layer.bias, atol=1e-6)
    assert_allclose(sums.mean(dim=0), layer.eval()(features[None]).detach()[0], atol=0.03)
    assert_allclose(sums.std(dim=0), expected.std(dim=0), rtol=0.04)


def test_a_layer_of_single_voxels_is_the_layer_of_each_voxel():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(4, 3, 1)
    layer, maps = VariationalLayer(conv).eval(), torch.randn(2, 4, 3, 5)
    with torch.no_grad():
        assert_allclose(layer(maps), conv(maps), atol=1e-6)
        assert_allclose(layer.deviations(maps)[:, :, 1, 2], layer.deviations(maps[:, :, 1, 2]), atol=1e-6)


def test_weights_that_no_image_speaks_for_go_back_to_their_prior():
    """A feature that is always 0 tells nothing: its weights become normal around 0 with the prior's variance."""
    torch.manual_seed(0)
    layer = VariationalLayer(torch.nn.Linear(4, 1)).train()
    features = torch.randn(64, 4) * torch.tensor([1.0, 1.0, 0.0, 0.0])
    wanted = features[:, :1] - features[:, 1:2]
    optimiser = torch.optim.Adam(layer.parameters(), lr=2e-2)
    for _ in range(600):
        loss = (layer(features) - wanted).square().mean() / (2 * 0.1**2) + layer.divergence() / 64
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert_allclose(layer.weight.detach()[0], [1, -1, 0, 0], atol=0.1)
    assert_allclose(layer.log_ratio.detach()[0, 2:], 0, atol=0.06)


@pytest.mark.parametrize("name", ["fcos", "fusion"])
def test_distributions_asked_where_there_is_no_last_layer_are_refused_with_the_family(name):
    task = BOXES if name == "fcos" else MASK
    axes = 2 if name == "fcos" else 3
    strides = [[1] * axes, [2] * axes, [2] * axes]
    heads = task_catalogue.build_task(task).heads
    size, _, _ = factory.size_for(name, (64,) * axes, strides, "cpu", heads)
    network = {"name": name, "channels": 1, "spatial_dims": axes, "size": {**size, "bayesian": True}}
    with torch.device("meta"), pytest.raises(PlanError, match=f"{name}: it has no last layer"):
        torch_networks.build_module(task_catalogue.build_task(task), network)


def test_whether_last_layers_are_distributions_is_true_or_false():
    network = {**model(CLASSES).networks.architecture, "size": {**DROPPED, "bayesian": 50}}
    with pytest.raises(PlanError, match="Give true or false"):
        torch_networks.build_module(task_catalogue.build_task(CLASSES), network)
