"""Windows that lie wholly outside a body are background without a look, and all else is as it was."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hilum.runtime import Model, ModelRequest, Preprocessing
from hilum.runtime.bundle.inference import Inferer
from hilum.runtime.inference import Inference
from hilum.runtime.preprocessing import coarse_mask, preprocessing
from hilum.runtime.preprocessing.protocol import SliceOrder
from hilum.runtime.torch_networks import Networks
from hilum.runtime.windows import slide
from hilum.runtime.windows.averaging import AveragedNetwork
from hilum.runtime.windows.slide import Skipping
from hilum.tasks import task_catalogue
from hilum.transforms.intensity import Normalisation
from hilum.values import Array, Geometry, Image

LABELS = [{"value": 2, "name": "soft"}, {"value": 5, "name": "dense"}]
TASK = task_catalogue.build_task({"name": "segmentation", "labels": LABELS, "loss": "ce", "tolerance": 1.0})
TURNED = np.array([[0, 0, 4.0, 0], [-4, 0, 0, 9], [0, 4, 0, 5], [0, 0, 0, 1]])


def ball(middle: tuple[float, ...], radius: float, shape: tuple[int, ...] = (60, 50, 40)) -> Array:
    place = np.indices(shape) - np.reshape(middle, (3, 1, 1, 1))
    return np.asarray((place**2).sum(axis=0) < radius**2)


def scan(affine: Array = TURNED, *, seed: int = 0) -> Image:
    """CT of a ball in the corner of a volume, 4 mm a voxel."""
    values = np.where(ball((15, 15, 12), 9), 40.0, -1000) + np.random.default_rng(seed).normal(0, 15, (60, 50, 40))
    return Image(values[None].astype(np.float32), Geometry((60, 50, 40), affine))


class Seeing:
    """Marks what is denser than air, and all air that it is shown; counts its windows."""

    seen = 0

    def __call__(self, batch: Array) -> dict[str, Array]:
        self.seen += len(batch)
        place = np.indices(batch.shape[2:]).sum(axis=0).astype(np.float32) / 50
        return {"mask": np.concatenate([np.full_like(batch, -3), batch + place, -batch], axis=1)}


def model(skip: str | None, network: Any = None, **prepared: Any) -> Model:
    prepares = Preprocessing(3, ("0",), (Normalisation("window", -1000, 1000, 0, 500),), **prepared)
    inference = Inference((12, 12, 12), 0.25, 2, skip=skip)  # type: ignore[arg-type]
    return Model(TASK, prepares, inference, Networks(network or Seeing(), {"name": "none", "channels": 1}))


@pytest.mark.parametrize(
    ("affine", "spacing", "streamed"),
    [(TURNED, None, False), (TURNED, (5.0, 3.0, 4.0), True), (np.diag([-4.0, 4, -4, 1]), (5.0, 3.0, 4.0), True)],
)
def test_the_body_is_predicted_as_it_was_and_windows_in_the_air_are_not(affine, spacing, streamed, monkeypatch):
    if streamed:
        monkeypatch.setattr(preprocessing, "STREAMED_BYTES", 2**10)
    image, found = scan(affine), dict[str | None, Array]()
    models = {skip: model(skip, spacing=spacing) for skip in (None, "air")}
    for skip, one in models.items():
        found[skip] = np.asarray(one.predict(image).data)
    near, far = ball((15, 15, 12), 12), ~ball((15, 15, 12), 40)
    assert_array_equal(found["air"][near], found[None][near])
    assert found[None][far].all() and not found["air"][far].any()
    assert models["air"].networks.run.seen < 0.7 * models[None].networks.run.seen


def test_a_packaged_model_passes_over_the_same_windows():
    packaged, ours = model("air"), model("air")
    inferer = Inferer(TASK, packaged.preprocessing, packaged.inference.settings, packaged.networks.run)
    assert_array_equal(np.asarray(inferer(scan(), "case").data), np.asarray(ours.predict(scan()).data))
    assert packaged.networks.run.seen == ours.networks.run.seen > 0


def test_several_networks_are_all_sure_of_the_background_that_none_of_them_saw():
    each = AveragedNetwork((Seeing(), Seeing()), TASK.average, each=("mask",))
    probabilities = []
    model("air", each).predict(
        scan(),
        ModelRequest(maps=True),
        receiver=lambda region, arrays: probabilities.append(arrays["mask"][0, -1, -1, -1]),
    )
    assert min(probabilities[:1] + probabilities[-1:]) == 1


def test_a_part_without_a_body_has_a_result_too():
    region = (slice(50, 60), slice(40, 50), slice(30, 40))
    one = model("air")
    found = np.asarray(one.predict(scan(), ModelRequest(region=region)).data)[region]
    assert 0 < np.count_nonzero(found) < found.size  # of the one window that it sees, for there is no other
    assert one.networks.run.seen == 1


@given(
    st.tuples(*[st.integers(3, 14)] * 3),
    st.tuples(*[st.integers(2, 6)] * 3),
    st.integers(0, 2),
    st.booleans(),
    st.integers(0, 99),
)
def test_what_no_window_saw_gets_the_given_outputs_and_all_else_the_mean_of_those_that_did(
    shape, patch, axis, backwards, seed
):
    image = np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)
    grid = [slide.window_starts(max(size, n), n, 0.5) for size, n in zip(shape, patch, strict=True)]
    chosen = {corner: np.random.default_rng([seed, *corner]).random() < 0.3 for corner in product(*grid)}
    walk = SliceOrder(axis, backwards)
    # An image that is smaller than a window is continued before its first row where it is walked backwards.
    before = [
        max(0, n - size) if backwards and at == axis else 0
        for at, (size, n) in enumerate(zip(shape, patch, strict=True))
    ]
    skipping = Skipping(
        lambda window: chosen[tuple(one.start + low for one, low in zip(window, before, strict=True))],
        lambda name, channels: np.full(channels, 7, np.float32),
    )
    total, weights = np.zeros(shape), np.zeros(shape)
    for corner in [corner for corner, is_seen in chosen.items() if is_seen]:
        inside = tuple(
            slice(start - low, min(start - low + n, size))
            for start, low, n, size in zip(corner, before, patch, shape, strict=True)
        )
        own = tuple(slice(max(0, -one.start), one.stop - one.start) for one in inside)
        inside = tuple(slice(max(0, one.start), one.stop) for one in inside)
        weight = slide.window_importance(patch, "gaussian")[own]
        total[inside] += weight * image[0][inside]
        weights[inside] += weight
    if not any(chosen.values()):
        return
    found = np.full((1, *shape), np.nan)
    counted = []
    slabs = slide.slide_windows(
        lambda batch: {"same": batch},
        image,
        patch,
        slice_order=walk,
        skipping=skipping,
        progress=lambda *n: counted.append(n),
    )
    for region, arrays in slabs:
        found[(slice(None), *region)] = arrays["same"]
    expected = np.where(weights > 0, total / np.where(weights > 0, weights, 1), 7)
    assert_allclose(found[0], expected, atol=1e-4)
    assert counted[-1] == (sum(chosen.values()),) * 2
    if not backwards:
        assert slide.window_count(shape, patch, 0.5, skipping=skipping) == sum(chosen.values())


def body(values: Array, steps: float = 4.0) -> Array | None:
    """(*spatial) where `body_of` finds something, of voxels that are one coarse voxel each."""
    mask = coarse_mask.body_of(
        Image(values[None].astype(np.float32), Geometry(values.shape, np.diag([steps] * 3 + [1.0])))
    )
    return None if mask is None else mask.inside


def test_a_body_keeps_lungs_that_the_last_slice_cuts_its_limbs_and_its_skin():
    rng, shape = np.random.default_rng(1), (80, 70, 30)
    trunk = ball((30, 35, 0), 22, shape) | ball((30, 35, 12), 20, shape)
    lung, arm = ball((30, 35, 29), 14, shape) & trunk, ball((66, 35, 15), 5, shape)
    values = np.where(trunk, 40, -1000) + rng.normal(0, 20, shape)
    values[lung], values[arm] = -870, 60
    values[:3], values[-3:] = -3024, -3024  # beyond the field of view of the scanner
    inside = body(values)
    assert inside[trunk | arm].all()
    assert inside.mean() < 0.75 and not inside[:4, :4].any()


def test_a_dim_body_beside_hot_organs_is_no_air():
    shape = (60, 60, 50)
    trunk, organ = ball((30, 30, 25), 17, shape), ball((30, 30, 25), 4, shape)
    values = np.abs(np.random.default_rng(2).normal(0, 0.02, shape)) + 0.5 * trunk + 20.0 * organ
    inside = body(values)
    assert inside[trunk].all() and inside.mean() < 0.6


def test_where_all_is_of_one_kind_or_nothing_is_known_of_size_there_is_no_air():
    noise = np.random.default_rng(3).normal(100, 10, (20, 20, 20))
    assert body(noise) is None and body(np.zeros((9, 9, 9))) is None
    pictures = Image(noise[None].astype(np.float32), Geometry.of_pixels((20, 20, 20)))
    assert coarse_mask.body_of(pictures) is None


def test_marks_in_the_air_are_found_and_those_at_the_skin_are_none():
    image, skin = scan(), ball((15, 15, 12), 11)
    mask = coarse_mask.body_of(image)
    assert not mask.leaves_out(skin.astype(np.uint8))
    skin[-1, -1, -1] = True
    assert mask.leaves_out(skin.astype(np.uint8))


def test_what_is_no_number_or_has_no_end_does_not_move_the_border_of_a_body():
    image = scan()
    odd = image.data.copy()
    odd[0, -4:, -4:, -4:], odd[0, -1, 0, -1] = np.nan, -np.inf
    with np.errstate(all="raise"):
        mask, odd_mask = coarse_mask.body_of(image), coarse_mask.body_of(Image(odd, image.geometry))
        assert coarse_mask.body_of(Image(np.full_like(odd, np.nan), image.geometry)) is None
    assert mask is not None and odd_mask is not None
    assert_array_equal(odd_mask.inside, mask.inside)
