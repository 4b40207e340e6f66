"""Reconstruction by a network: simulated measurements, channels on one scale, unrolled steps, a run that answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from ruamel.yaml import YAML
from tests.trained import TWO_STEPS

import hilum
from hilum.errors import DatasetError, HilumError, UsageError
from hilum.networks import unrolled
from hilum.reading import ReadingOptions, dataset_reading
from hilum.transforms.corruptions import REMAKE
from hilum.transforms.operators import simulated_scans
from hilum.transforms.operators.simulated_scans import ScanSettings, SimulatedScan
from hilum.values import Case, Dataset, Geometry, Image

SIZE = 16
MR = {"operator": "cartesian", "noise": 0.01}


def disk(seed: int, size: int = SIZE) -> np.ndarray:
    place, rng = np.arange(size) - (size - 1) / 2, np.random.default_rng(seed)
    row, column = rng.uniform(-2, 2, 2) * size / 16
    return (100 * (np.hypot(place[:, None] - row, place - column) < size / 4)).astype(np.float32)


def picture(seed: int = 0, size: int = SIZE) -> Image:
    return Image(disk(seed, size)[None], Geometry.of_spacing((size, size), (1.0, 1.0)))


def volumes(root: Path, count: int = 8) -> Path:
    root.mkdir()
    for n in range(count):
        volume = np.stack([disk(10 * n + k) for k in range(4)], axis=-1)
        nibabel.Nifti1Image(volume, np.diag([2.0, 2.0, 3.0, 1.0])).to_filename(root / f"case{n}.nii.gz")
    return root


def structured_plan(run: Path) -> Any:
    return YAML(typ="safe").load(run / "plan.yaml")


def opened(root: Path, **settings: Any) -> Dataset:
    return dataset_reading.open_dataset(root, ReadingOptions(), needs=("target",), settings={**MR, **settings})


@pytest.mark.parametrize("mask", ["random", "equispaced"])
def test_one_in_so_many_columns_is_sampled_and_always_the_centre(mask):
    settings = ScanSettings(acceleration=4, centre=0.08, mask=mask)
    columns = simulated_scans.sampled_columns(128, settings, np.random.default_rng(0))
    assert columns.sum() == 32
    assert columns[59:69].all()


def test_channels_are_the_adjoint_and_the_plain_inverse_by_one_factor():
    scan = SimulatedScan(ScanSettings(coils=3, noise=0.0), "a")
    made = scan(picture())
    assert made.channels == ("plain inverse", "adjoint", "adjoint imaginary", "mask", *made.channels[4:])
    assert len(made.channels) == 10
    assert_allclose(np.percentile(made.data[0], 99), 1, atol=1e-5)
    maps = made.data[4::2] + 1j * made.data[5::2]
    assert_allclose((np.abs(maps) ** 2).sum(axis=0), 1, atol=1e-5)  # so the plain inverse is the adjoint's length
    assert_allclose(np.hypot(made.data[1], made.data[2]), made.data[0], atol=1e-5)


def test_a_measurement_follows_from_its_name_alone():
    first, again, other = (SimulatedScan(ScanSettings(), name)(picture()).data for name in ("a", "a", "b"))
    assert_allclose(first, again)
    assert np.abs(first[3] - other[3]).max() == 1


def test_ct_is_measured_on_twice_as_fine_a_grid_and_its_plain_inverse_is_near_the_target():
    scan = SimulatedScan(ScanSettings("parallel", views=60, noise=0.001), "a", finer=2)
    made, fine = scan(picture(size=64)), picture(size=64).data[0]
    target = fine.reshape(32, 2, 32, 2).mean(axis=(1, 3)) * scan.measure(fine)[1]
    assert made.channels == ("plain inverse", "adjoint")
    assert np.sqrt(np.mean((made.data[0] - target) ** 2)) < 0.1
    assert np.corrcoef(made.data[1].ravel(), target.ravel())[0, 1] > 0.8
    assert 0.2 < np.abs(made.data[1]).max() < 5  # of an operator whose gain is 1


def test_slices_of_a_volume_become_cases_of_its_patient_with_their_target(tmp_path):
    dataset = opened(volumes(tmp_path / "data", 2), draws=3)
    assert [case.id for case in dataset] == [f"case{n}_{k}" for n in (0, 1) for k in (1, 2, 3)]
    assert len({case.patient for case in dataset}) == 2
    case = dataset.cases[1]
    image, target = case.images["image"], case.references["target"]
    assert (image.shape, target.shape) == ((4, SIZE, SIZE), (1, SIZE, SIZE))
    assert_allclose(image.geometry.spacing, (2.0, 2.0))
    truth = nibabel.load(tmp_path / "data" / "case0.nii.gz").get_fdata()[..., 2]
    assert_allclose(target.data[0] / target.data.max(), truth / truth.max(), atol=1e-6)


def test_a_measurement_is_made_anew_of_a_changed_target(tmp_path):
    case = opened(volumes(tmp_path / "data", 1)).cases[0]
    image, target = case.images["image"], case.references["target"]
    assert_allclose(image.facts[REMAKE](target, target).data, image.data, atol=1e-5)
    changed = image.facts[REMAKE](target.with_pixels(2 * target.data), target).data
    assert changed[0].max() > 1.9 * image.data[0].max()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"operator": "radial"}, "there is no 'radial'.*cartesian or parallel"),
        ({"mask": "spiral"}, "there is no 'spiral'"),
        ({"acceleration": 0.5}, "task.acceleration: 0.5"),
        ({"noise": -1}, "task.noise"),
    ],
)
def test_settings_of_no_scan_are_refused(tmp_path, settings, problem):
    with pytest.raises(UsageError, match=problem):
        opened(volumes(tmp_path / "data", 1), **settings)


def test_sides_that_a_network_cannot_halve_are_refused():
    with pytest.raises(DatasetError, match="Crop images to multiples of 4"):
        SimulatedScan(ScanSettings(), "a").measure(np.ones((15, 16)))


@pytest.mark.parametrize("coils", [1, 3])
def test_a_step_of_the_network_is_that_of_the_operator(coils):
    rng = np.random.default_rng(0)
    image, mask = rng.normal(size=(2, SIZE, 20)), rng.random((SIZE, 20)) > 0.5
    maps = rng.normal(size=(coils, SIZE, 20)) + 1j * rng.normal(size=(coils, SIZE, 20)) if coils > 1 else None
    record = {"kind": "cartesian", "image": {"shape": (SIZE, 20)}, "mask": mask, "sensitivities": maps}
    expected = hilum.operator(record).normal(image[0] + 1j * image[1])
    parts = [part for one in (() if maps is None else maps) for part in (one.real, one.imag)]
    channels = torch.as_tensor(np.stack([image[0], *image, mask, *parts])[None])
    found = unrolled._normal(torch.as_tensor(image[None]), channels)[0].numpy()
    assert_allclose(found, [expected.real, expected.imag], atol=1e-12)


def test_a_fresh_network_with_everything_measured_answers_with_the_image():
    torch.manual_seed(0)
    network = unrolled.Unrolled(4, 2, {"image": 2}, steps=2, width=4)
    for layer in [part.last for part in network.parts] + [network.dense["image"][-1]]:
        torch.nn.init.zeros_(layer.weight), torch.nn.init.zeros_(layer.bias)
    image = torch.as_tensor(SimulatedScan(ScanSettings(acceleration=1, centre=1, noise=0), "a")(picture()).data)[None]
    answer = network(image)["image"][:, :1]
    assert_allclose((answer + image[:, :1]).detach()[0, 0], image[0, 0], atol=1e-4)


def test_a_run_answers_measurements_with_error_bars_and_refuses_others(tmp_path):
    data = volumes(tmp_path / "data")
    chosen = {"task.operator": "cartesian", "task.draws": 2, "network.size": {"steps": 1, "width": 4}}
    hilum.train(data, out=tmp_path / "run", task="reconstruction", assignments={**TWO_STEPS, **chosen})
    plan = structured_plan(tmp_path / "run")
    assert plan["network"]["name"]["value"] == "unrolled"
    assert plan["augmentation"]["flips"]["value"] == plan["inference"]["flips"]["value"] == []
    truth, mask = disk(0), np.zeros((SIZE, SIZE), np.uint8)
    mask[:, ::3] = mask[:, 7:10] = 1
    image = {"shape": [SIZE, SIZE], "spacing_mm": [2, 2]}
    operator = hilum.operator({"kind": "cartesian", "image": image, "mask": mask})
    measured = operator.forward(truth) + 0.5 * mask * np.random.default_rng(0).normal(size=truth.shape)
    for name, record, values, more in (
        ("mr", {"kind": "cartesian", "image": image}, measured, {"mask": mask}),
        ("ct", {"kind": "parallel", "image": image, "angles_deg": [0, 60, 120], "bin_mm": 1}, np.ones((3, 25)), {}),
    ):
        np.savez(tmp_path / f"{name}.npz", acquisition=np.array(json.dumps(record)), data=values, **more)
    out = tmp_path / "out"
    result = hilum.reconstruct([tmp_path / "mr.npz", tmp_path / "ct.npz"], method=str(tmp_path / "run"), out=out)
    assert [row["case"] for row in result.cases] == ["mr"]
    [failure] = result.failures
    assert "is a parallel scan; the model learnt cartesian ones of 1 coils" in failure.what
    found, bars = (hilum.read(out / f"mr_{end}.nii.gz").data[0, ..., 0] for end in ("reconstruction", "error"))
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.8
    assert 30 < np.percentile(found, 99) < 200  # in the unit of the measurement
    assert bars.min() >= 0
    with pytest.raises(HilumError, match="channel"):
        hilum.load(tmp_path / "run").predict(Case("image", "image", {"image": picture()}))
