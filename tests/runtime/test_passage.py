"""The way of a volume through a model, in parts and never held, against the plain way with everything held."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hilum.files.storage import spool
from hilum.prediction.predictors import _Words
from hilum.runtime import Model, ModelRequest, Preprocessing
from hilum.runtime.inference import Inference
from hilum.runtime.preprocessing import image_statistics, preprocessing, restore
from hilum.runtime.torch_networks import Networks
from hilum.runtime.windows import slide
from hilum.runtime.windows.averaging import AveragedNetwork
from hilum.tasks import task_catalogue
from hilum.transforms import orient, resampling
from hilum.transforms.intensity import Normalisation
from hilum.values import Array, Deferred, Geometry, Image
from strategies import geometries

CLASSES = 4
TASK = task_catalogue.build_task(
    {
        "name": "segmentation",
        "labels": [{"value": 2 * n, "name": f"structure {n}"} for n in range(1, CLASSES)],
        "loss": "ce",
        "tolerance": 1.0,
    }
)


def looking_around(batch: Array) -> dict[str, Array]:
    """Looks at the neighbours, and knows where in its window it is: windows that overlap disagree."""
    around = sum(np.roll(batch, step, axis) for axis in range(2, batch.ndim) for step in (-1, 1))
    place = np.indices(batch.shape[2:]).sum(axis=0).astype(np.float32) / 9
    mixed = np.concatenate([batch, around, batch.mean(axis=1, keepdims=True) + place], axis=1)
    weights = np.random.default_rng(3).normal(size=(CLASSES, mixed.shape[1])).astype(np.float32)
    return {"mask": np.einsum("oc,bc...->bo...", weights, mixed).astype(np.float32)}


def model(patch: tuple[int, ...], overlap: float, channels: int, **prepared: Any) -> Model:
    names = tuple(str(n) for n in range(channels))
    scales = (Normalisation("zscore"), Normalisation("range", -2, 3, 0.2, 1.5))[:channels]
    inference = Inference(patch, overlap, batch=2)
    network = {"name": "none", "channels": channels}
    return Model(TASK, Preprocessing(3, names, scales, **prepared), inference, Networks(looking_around, network))


def plainly(model: Model, image: Image, where: Any = np.s_[:, :, :]) -> Array:
    """(classes, *spatial) logits on the image's grid, each step with the whole volume in memory; NaN where cut away."""
    data, trace = model.preprocessing(image, "case")
    patch = model.inference.patch
    short = [max(0, n - size) for n, size in zip(patch, data.shape[1:], strict=True)]
    padded = np.pad(data, [(0, 0), *((0, n) for n in short)], mode="edge")
    total, weights = np.zeros((CLASSES, *padded.shape[1:])), np.zeros(padded.shape[1:])
    weight = slide.window_importance(patch, "gaussian").astype(np.float64)
    grid = [
        slide.window_starts(size, n, model.inference.overlap) for size, n in zip(padded.shape[1:], patch, strict=True)
    ]
    for corner in product(*grid):
        place = tuple(slice(start, start + n) for start, n in zip(corner, patch, strict=True))
        total[(slice(None), *place)] += looking_around(padded[(slice(None), *place)][None])["mask"][0] * weight
        weights[place] += weight
    real = tuple(slice(low, low + size) for (low, _), size in zip(trace.pad, trace.shape, strict=True))
    kept = tuple(part.stop - part.start for part in trace.crop)
    back = resampling.resample((total / weights)[(slice(None), *real)], kept)
    canonical = np.full((CLASSES, *(image.geometry.shape[axis] for axis in trace.axes)), np.nan)
    canonical[(slice(None), *trace.crop)] = back
    return orient.undo_permute(canonical, trace.axes, trace.flips)


def received(model: Model, image: Image, request: ModelRequest | None = None) -> tuple[Array, Array]:
    """The probabilities of every voxel that were told on the way, NaN where none were, and the label map."""
    found = np.full((CLASSES, *image.geometry.shape), np.nan)

    def collect(region: tuple[slice, ...], arrays: Any) -> None:
        assert np.isnan(found[(slice(None), *region)]).all()  # each voxel once
        found[(slice(None), *region)] = arrays["mask"]

    prediction = model.predict(image, request, receiver=collect)
    return found, np.asarray(prediction.data)


def probabilities(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=0))
    return powers / powers.sum(axis=0)


def noise(geometry: Geometry, channels: int, seed: int) -> Image:
    values = np.random.default_rng(seed).normal(size=(channels, *geometry.shape)).astype(np.float32)
    values[:, : (geometry.shape[0] - 1) // 2] = values.min()  # a border, which a crop to the content cuts away
    values[0, -1, -1, -1] = np.nan
    return Image(values, geometry)


@given(
    geometries(),
    st.tuples(*[st.integers(3, 6)] * 3),
    st.sampled_from([0.0, 0.3, 0.5]),
    st.integers(1, 2),
    st.sampled_from([{}, {"spacing": (1.3, 0.8, 2.0)}, {"crop": "content", "smallest": (9, 3, 7)}, {"border": 0.1}]),
    st.integers(0, 99),
)
@settings(max_examples=12)
def test_a_volume_in_parts_that_is_never_held_gives_what_the_plain_way_gives(
    geometry, patch, overlap, channels, prepared, seed
):
    made, image = model(patch, overlap, channels, **prepared), noise(geometry, channels, seed)
    expected = plainly(made, image)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(image_statistics, "HELD_BYTES", 1)  # columns of a window's width
        patched.setattr(preprocessing, "STREAMED_BYTES", 0)
        patched.setattr(spool, "SPOOLED_BYTES", 0)
        found, labels = received(made, image)
    assert_array_equal(np.isnan(found), np.isnan(expected))
    assert_allclose(found, probabilities(expected), atol=2e-4)
    first, second = np.sort(np.nan_to_num(expected), axis=0)[-2:]
    clear = second - first > 1e-3  # elsewhere rounding decides
    assert_array_equal(labels[clear], (2 * expected.argmax(axis=0))[clear])


@given(
    geometries(), st.tuples(*[st.integers(2, 5)] * 3), st.data(), st.sampled_from([{}, {"spacing": (1.3, 0.8, 2.0)}])
)
@settings(max_examples=4)
def test_of_a_region_the_same_is_said_and_of_the_rest_nothing(geometry, patch, data, prepared):
    made, image = model(patch, 0.5, 1, **prepared), noise(geometry, 1, 0)
    first = [data.draw(st.integers(0, size - 1)) for size in geometry.shape]
    region = tuple(
        slice(start, data.draw(st.integers(start + 1, size))) for start, size in zip(first, geometry.shape, strict=True)
    )
    whole, labels = received(made, image)
    found, part = received(made, image, ModelRequest(region=region))
    inside = np.zeros(geometry.shape, bool)
    inside[region] = True
    assert_allclose(found[:, inside], whole[:, inside], atol=1e-5)
    assert np.isnan(found[:, ~inside]).all()
    assert not part[~inside].any()
    assert (part[inside] == labels[inside]).mean() > 0.9  # all but those that rounding decides


SCALES = (Normalisation("zscore"), Normalisation("zscore", tails="log"), Normalisation("window", -300, 400, 1, 2))


@given(geometries(), st.data(), st.sampled_from(["f4", "i2"]))
@settings(max_examples=12)
def test_any_part_of_a_volume_is_prepared_as_it_is_in_the_whole(geometry, data, kind):
    values = (np.random.default_rng(0).normal(size=(1, *geometry.shape)) * 900).astype(kind)
    image = Image(Deferred(values.shape, values.dtype, lambda: values, values.__getitem__), geometry, padding=(0, 20))
    prepares = Preprocessing(
        3,
        ("0",),
        (data.draw(st.sampled_from(SCALES)),),
        spacing=data.draw(st.sampled_from([None, (0.7, 1.9, 1.1)])),
        smallest=data.draw(st.tuples(*[st.integers(1, 9)] * 3)),
        crop=data.draw(st.sampled_from(["none", "content"])),
        order=data.draw(st.sampled_from(["linear", "cubic"])),
    )
    whole, trace = prepares(image, "case")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(preprocessing, "STREAMED_BYTES", 0)
        source, same = prepares.open_image(image, "case")
    assert not isinstance(source, np.ndarray)
    assert (source.shape, same.crop, same.pad, same.shape) == (whole.shape, trace.crop, trace.pad, trace.shape)
    first = [data.draw(st.integers(0, size - 1)) for size in whole.shape[1:]]
    region = tuple(
        slice(start, data.draw(st.integers(start + 1, size)))
        for start, size in zip(first, whole.shape[1:], strict=True)
    )
    assert_allclose(source[(slice(None), *region)], whole[(slice(None), *region)], rtol=1e-4, atol=1e-5)


def test_columns_are_as_large_as_the_memory_allows_and_leave_nothing_out():
    geometry = Geometry((64, 48, 200), np.diag([1.0, 1, 1, 1]))
    made = model((16, 16, 16), 0.5, 1)
    _, trace = made.preprocessing(Image(np.zeros((1, *geometry.shape), np.float32), geometry), "case")
    whole = tuple(slice(0, size) for size in geometry.shape)
    assert image_statistics.split_columns(trace, whole, (16, 16, 16), 100) == [whole]
    limit = 16 * 101 * 4 * 64 * 48 // 3
    found = image_statistics.split_columns(trace, whole, (16, 16, 16), 100, limit)
    assert 3 <= len(found) <= 4
    assert all(image_statistics.held_bytes(trace, one, (16, 16, 16), 100) <= limit for one in found)
    covered = np.zeros(geometry.shape, int)
    for one in found:
        covered[one] += 1
    assert (covered == 1).all()


def test_progress_of_all_columns_is_one(monkeypatch):
    monkeypatch.setattr(image_statistics, "HELD_BYTES", 1)
    image = noise(Geometry((12, 12, 12), np.eye(4)), 1, 0)
    seen: list[tuple[int, int]] = []
    model((4, 4, 4), 0.5, 1).predict(image, progress=lambda done, of: seen.append((done, of)))
    windows = list(dict.fromkeys(done for done, _ in seen))
    assert windows == [*range(1, len(windows) + 1)]
    assert {of for _, of in seen} == {len(windows)}


def test_parts_of_the_result_that_are_back_on_the_images_grid_are_progress_too(monkeypatch):
    monkeypatch.setattr(restore, "YIELDED_BYTES", 1)  # a row is a part
    image = noise(Geometry((12, 12, 12), np.eye(4)), 1, 0)
    seen: list[tuple[int, int]] = []
    model((12, 12, 12), 0.5, 1).predict(image, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(1, 1)] * 13
    lines: list[str] = []
    words = _Words("case 1 of 1", lines.append)
    for one in seen[:3]:
        words(*one)
    assert lines[0] == "case 1 of 1: window 1 of 1"
    assert lines[2] == "case 1 of 1: window 1 of 1, 2 parts of the result back on the image's grid"


def test_several_models_see_each_window_in_one_pass():
    image, read = noise(Geometry((10, 9, 8), np.eye(4)), 1, 0), []
    one = model((4, 4, 4), 0.5, 1)
    both = Model(
        one.task,
        one.preprocessing,
        one.inference,
        Networks(AveragedNetwork((one.networks.run, one.networks.run), TASK.average), one.networks.architecture),
    )
    pixels = image.data
    deferred = Deferred(pixels.shape, pixels.dtype, lambda: read.append(1) or pixels, pixels.__getitem__)
    found, _ = received(both, image.with_pixels(deferred))
    assert_allclose(found, received(one, image)[0], atol=1e-5)
    assert len(read) == 1


LARGE = """
import sys
import numpy as np
from hilum import tasks
from hilum.runtime.inference import Inference
from hilum.runtime import Model, Preprocessing, hardware
from hilum.runtime.torch_networks import Networks
from hilum.runtime.preprocessing import preprocessing
from hilum.transforms.intensity import Normalisation
import hilum
from hilum.tasks import task_catalogue

preprocessing.STREAMED_BYTES = 2**22  # of the float32 of the whole volume: 18 MB would still be held
labels = [{"value": n, "name": f"structure {n}"} for n in range(1, 101)]
task = task_catalogue.build_task({"name": "segmentation", "labels": labels, "loss": "ce", "tolerance": 1.0})
steps = np.linspace(-2, 2, 100, dtype=np.float32).reshape(1, -1, 1, 1, 1)


def nearest(batch):
    outputs = np.empty((len(batch), 101, *batch.shape[2:]), np.float32)
    outputs[:, 0] = -4
    np.subtract(batch, steps, out=outputs[:, 1:])
    np.abs(outputs[:, 1:], out=outputs[:, 1:])
    np.negative(outputs[:, 1:], out=outputs[:, 1:])
    return {"mask": outputs}


prepares = Preprocessing(3, ("0",), (Normalisation("window", 0, 4000, 2000, 1000),))
model = Model(task, prepares, Inference((48, 48, 32), 0.05), Networks(nearest, {"name": "none", "channels": 1}))
hilum.predict(model, sys.argv[1], out=sys.argv[2], device="cpu")
print(int(hardware.peak_memory()) // 1024)
"""


@pytest.mark.whole
def test_a_long_volume_of_a_hundred_classes_takes_less_than_a_gibibyte(tmp_path):
    """Its logits alone would be 1.7 GiB."""
    values = np.empty((96, 96, 500), np.int16, order="F")
    for row in range(500):
        values[:, :, row] = 2000 + 1900 * np.sin(row / 35) * np.sin(np.arange(96) / 15)[:, None]
    affine = np.array([[-0.8, 0, 0, 50], [0, -0.8, 0, 30], [0, 0, 1.0, -100], [0, 0, 0, 1]])
    nibabel.Nifti1Image(values, affine).to_filename(tmp_path / "long.nii.gz")
    command = [sys.executable, "-c", LARGE, str(tmp_path / "long.nii.gz"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 2**30
    written = nibabel.load(tmp_path / "out" / "long.nii.gz")
    expected = 1 + np.abs((values[..., None, ::125] - 2000) / 1000 - np.linspace(-2, 2, 100)[:, None]).argmin(axis=2)
    assert_array_equal(np.asarray(written.dataobj[..., ::125]), expected)
    assert_allclose(written.affine, affine)
