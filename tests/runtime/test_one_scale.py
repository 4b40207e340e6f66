from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import packages
from hilum.runtime import ensemble
from hilum.runtime.bundle.network import OnItsScale
from hilum.runtime.ensemble import Conversion
from hilum.runtime.guard import image_gate, image_observation
from hilum.runtime.guard.image_observation import HeaderFacts, Observation
from hilum.runtime.model_parts import ModelParts
from hilum.transforms.intensity import Normalisation

WINDOWS = st.builds(
    lambda low, width, mean, deviation: Normalisation("window", low, low + width, mean, deviation),
    st.floats(-900, 0),
    st.floats(1, 900),
    st.floats(-200, 200),
    st.floats(1, 300),
)
COLOURS = st.builds(
    lambda mean, deviation: Normalisation("range", 0.0, 255.0, mean, deviation), st.floats(0, 1), st.floats(0.05, 1)
)


class Itself(torch.nn.Module):
    """Says what it sees."""

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"mask": images}


def seen(given: Normalisation, own: Normalisation, pixels: np.ndarray) -> np.ndarray:
    """What a member with a scale of its own sees of pixels that came in on another."""
    module = OnItsScale(Itself(), 1)
    for name, value in ensemble.conversion_between(given, own)._asdict().items():
        setattr(module, name, torch.tensor([value]))
    images = given.apply(pixels, np.ones(pixels.shape, dtype=bool))
    return module(torch.from_numpy(images)[None, None])["mask"].numpy()[0, 0]


@pytest.mark.parametrize("kinds", [WINDOWS, COLOURS])
def test_a_member_sees_each_voxel_as_it_did_in_training(kinds):
    @settings(max_examples=40)
    @given(st.lists(kinds, min_size=2, max_size=4), st.integers(0, 2**32 - 1))
    def holds(members: list[Normalisation], seed: int) -> None:
        low, high = (0, 256) if members[0].method == "range" else (-1200, 1200)
        pixels = np.random.default_rng(seed).uniform(low, high, size=(6, 7)).astype(np.float32)
        common = ensemble.widest_normalisations([(one,) for one in members])
        assert common is not None
        for own in members:
            single = own.apply(pixels, np.ones(pixels.shape, dtype=bool))
            assert_allclose(seen(common[0], own, pixels), single, atol=1e-4 * max(1.0, np.abs(single).max()))

    holds()


def test_a_gate_of_one_member_counts_the_same_voxels_in_each_bin_on_the_scale_of_all():
    rng = np.random.default_rng(0)
    pixels = rng.normal(100, 60, (1, 5000)).astype(np.float32)
    one, both = packages.of_folds().preprocessing, packages.segmenting(2)
    own = Normalisation("window", 40.0, 150.0, 95.0, 25.0)
    samples = [scale.apply(pixels, np.ones(pixels.shape, dtype=bool)) for scale in (own, one.normalisation[0])]
    header = HeaderFacts({}, {})
    seen = [
        Observation(header, part, image_observation.window_composition(part))
        for part in (samples[0][:, n::10] for n in range(10))
    ]
    guard = image_gate.fit_guard(seen, seen, 0.01, exact=True)
    member = replace(both, preprocessing=replace(one, normalisation=(own,)), parts=ModelParts(guard=guard))
    moved = ensemble.guard_for_scale(one, member)
    assert not np.array_equal(moved.look.edges, guard.look.edges)
    assert_allclose(
        image_gate.intensity_spectrum(samples[1], moved.look.edges),
        image_gate.intensity_spectrum(samples[0], guard.look.edges),
        atol=0.02,
    )  # roundings at an edge
    assert ensemble.guard_for_scale(member.preprocessing, member) is guard


def test_a_channel_that_is_absent_stays_zero_on_every_scale():
    given, own = Normalisation("window", -100.0, 300.0, 50.0, 80.0), Normalisation("window", -90.0, 300.0, 20.0, 70.0)
    module = OnItsScale(Itself(), 2)
    for name, value in ensemble.conversion_between(given, own)._asdict().items():
        setattr(module, name, torch.tensor([value] * 2))
    images = torch.zeros(1, 2, 3, 4)
    images[0, 0, 0, 0] = 1.0
    logits = module(images)["mask"]
    assert not logits[0, 1].any()
    assert logits[0, 0].all()


def test_each_image_s_own_scale_is_the_same_for_all():
    assert ensemble.widest_normalisations([(Normalisation("zscore"),)] * 3) == (Normalisation("zscore"),)
    assert ensemble.conversion_between(Normalisation("zscore"), Normalisation("zscore")) == Conversion()


def test_ways_that_no_scale_leads_between_have_nothing_in_common():
    window, colour = Normalisation("window", -100.0, 300.0), Normalisation("range", 0.0, 255.0)
    assert ensemble.widest_normalisations([(window,), (Normalisation("zscore"),)]) is None
    assert ensemble.widest_normalisations([(colour,), (replace(colour, high=4095.0),)]) is None
    assert ensemble.widest_normalisations([(window,), (window, window)]) is None
