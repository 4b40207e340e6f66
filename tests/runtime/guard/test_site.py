"""Few cases of a site judge with what training cases say about how distances spread."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from safetensors.numpy import load

from hilum.runtime import Model, Preprocessing
from hilum.runtime.guard import case_distances, image_gate, image_observation
from hilum.runtime.guard.case_distances import KnownDistances
from hilum.runtime.guard.image_gate import Guard
from hilum.runtime.guard.image_observation import Observation
from hilum.runtime.inference import Inference
from hilum.runtime.torch_networks import Networks, TorchNetwork
from hilum.tasks import task_catalogue
from hilum.transforms.intensity import Normalisation
from hilum.values import Case, Geometry, Image
from matrices import thinned

DRAWS, LEVEL = 1000, 0.01


def each_a_patient(distances: np.ndarray) -> KnownDistances:
    return KnownDistances.from_distances(distances.tolist(), [""] * len(distances))


@pytest.mark.parametrize("count", [5, 10, 30])
@pytest.mark.parametrize(("times", "further"), [(1.0, 0.0), (1.5, 0.0), (2.0, 0.0), (4.0, 0.0), (1.0, 4.0), (0.5, 0.0)])
@pytest.mark.whole
def test_images_of_a_site_are_refused_at_the_level_at_most_however_far_it_lies(count, times, further):
    rng, refused = np.random.default_rng(count), 0
    for _ in range(DRAWS):
        *site, new = further + times * rng.gamma(4.0, size=count + 1)
        own, trained = each_a_patient(np.array(site)), each_a_patient(rng.gamma(4.0, size=100))
        scaled = trained.as_far_as(own)
        refused += case_distances.p_value(new, own if scaled is None else own.join(scaled), LEVEL) < LEVEL
    assert refused / DRAWS <= LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / DRAWS)


def test_distances_of_training_cases_grow_with_the_mean_of_a_site_and_its_error_and_say_nothing_of_a_far_one():
    trained = each_a_patient(np.array([1.0, 2.0, 3.0]))
    alike, near, far = (each_a_patient(np.array(one)) for one in ([0.5, 1.5], [2.0, 4.0], [6.0, 7.0]))
    for site, times in ((alike, 1.0), (near, 2.0)):  # means 1 and 3, with errors of 0.5 and 1
        scaled = trained.as_far_as(site)
        assert scaled is not None
        assert_allclose(scaled.distances, times * trained.distances)
    assert trained.as_far_as(far) is None
    assert (
        trained.as_far_as(KnownDistances.from_distances([1.0, 1.0], ["a", "a"])) is None
    )  # of one patient nobody knows how others differ
    zeros = each_a_patient(np.zeros(3))
    assert zeros.as_far_as(zeros) is not None and zeros.as_far_as(near) is None


def seen(rng: np.random.Generator, *, fine: float = 1.0) -> Observation:
    """A noisy picture with a bright middle."""
    pixels = rng.normal(size=(1, 32, 32)).cumsum(axis=1) + fine * rng.normal(size=(1, 32, 32))
    pixels[:, 8:24, 8:24] += 12 + rng.normal()
    header = image_observation.header_facts(Image(pixels, Geometry.of_pixels((32, 32))))
    return Observation(
        header,
        pixels.reshape(1, -1).astype(np.float32),
        image_observation.window_composition(pixels.astype(np.float32)),
    )


def gate(held_out: int) -> Guard:
    rng = np.random.default_rng(2)
    made = image_gate.fit_guard([seen(rng) for _ in range(40)], [seen(rng) for _ in range(held_out)], LEVEL, exact=True)
    assert made is not None
    return made


@pytest.mark.parametrize("held_out", thinned(1, [7, 420]))
def test_a_gate_that_few_cases_of_a_site_have_calibrated_still_refuses_what_is_odd(held_out):
    """Also where so many cases had not trained that the gate itself did without the distances of training cases."""
    made, rng = gate(held_out), np.random.default_rng(5)
    alone, refused = replace(made, by_others={}), list[tuple[bool, ...]]()
    for _ in range(15):
        site, odd, good = [seen(rng) for _ in range(5)], seen(rng, fine=6.0), seen(rng)
        again, bare = (image_gate.refit(one, site, exact=True) for one in (made, alone))
        refused.append(
            tuple(gate.verdict(one)[1] is not None for gate, one in ((again, odd), (bare, odd), (again, good)))
        )
    assert (again.by_others["texture"].patients, again.held_out["texture"].patients) == (40, 45)
    of_again, of_bare, wrongly = np.mean(refused, axis=0)
    assert of_again >= 0.9 and wrongly <= 0.1
    assert of_bare <= 0.6  # nearly blind


def test_a_gate_keeps_the_distances_of_its_training_cases():
    made, rng = gate(7), np.random.default_rng(8)
    site, odd = [seen(rng) for _ in range(6)], seen(rng, fine=4.0)
    again = Guard.from_record(json.loads(json.dumps(made.settings)), load(made.content))
    assert image_gate.refit(again, site, exact=True).verdict(odd) == image_gate.refit(made, site, exact=True).verdict(
        odd
    )


class Means(torch.nn.Module):
    """A network of a program that is not ours."""

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        mean = images.mean(dim=(1, 2, 3))
        return {"class": torch.stack([-mean, mean], dim=1)}


def test_a_network_that_is_none_of_ours_is_observed_without_features():
    task = task_catalogue.build_task({"name": "classification", "classes": ["dark", "bright"], "smoothing": 0.0})
    prepared = Preprocessing(2, ("0",), (Normalisation("zscore"),), shape=(12, 12))
    model = Model(task, prepared, Inference((12, 12)), Networks(TorchNetwork(Means().eval()), {"name": "UNet"}))
    image = Image(np.random.default_rng(0).normal(size=(1, 12, 12)).astype(np.float32), Geometry.of_pixels((12, 12)))
    observation, prediction = model.observe(Case("a", "a", {"0": image}))
    assert observation.is_seen and observation.features is None
    assert prediction.probabilities is not None
