"""Enhancement: targets and their layouts, the scale of intensities, losses, results in the unit of their source."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import ndimage
from tests.trained import OBLIQUE, SMALL_UNET, TWO_STEPS, blob

import hilum
from hilum.belief import UnseenCases
from hilum.belief.error_bars import ErrorBarBelief
from hilum.errors import DatasetError, UsageError
from hilum.evaluation import image_fidelity
from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.dicom_answers import ANSWERS, Result
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.quality import dataset_examination
from hilum.quality.references import targets
from hilum.reading import ReadingOptions, dataset_reading, image_targets
from hilum.runtime import Preprocessing
from hilum.runtime.bundle.network import Correcting
from hilum.tasks.enhancement import answering, losses
from hilum.tasks.enhancement.question import Enhancement
from hilum.training.data import target_kinds
from hilum.transforms.intensity import ChannelScale, Normalisation
from hilum.values import Case, Geometry, Image, Map

TASK = Enhancement(channels=("0",), mean={"0": 100.0}, deviation={"0": 50.0})
PLAIN = Preprocessing(3, ("0",), (Normalisation("zscore", tails="linear"),))


def pairs(root: Path, count: int = 8, *, apart: bool = True, factor: float = 1.0) -> Path:
    """Noisy balls beside clean ones: `images/` and `targets/`, or `x` and `x_target` in one folder."""
    for n in range(count):
        clean = (5 + factor * ndimage.gaussian_filter(blob(n)[0].astype(np.float32), 1)).astype(np.float32)
        noisy = clean + np.random.default_rng(n).normal(0, 8, clean.shape).astype(np.float32)
        for folder, end, array in (("images", "", noisy), ("targets", "_target", clean)):
            path = root / folder / f"case{n:02}.nii.gz" if apart else root / f"case{n:02}{end}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.Nifti1Image(array, OBLIQUE).to_filename(path)
    return root


def _opened(data: Path, **reading: str) -> hilum.values.Dataset:
    return dataset_reading.open_dataset(data, ReadingOptions(**reading))


@pytest.mark.parametrize("apart", [True, False])
def test_targets_lie_in_a_folder_or_bear_a_suffix(tmp_path: Path, apart: bool) -> None:
    dataset = _opened(pairs(tmp_path, 2, apart=apart))
    assert [case.id for case in dataset] == ["case00", "case01"]
    assert dataset.kinds == {"target"}
    assert dataset.cases[0].references["target"].data.std() < dataset.cases[0].images["image"].data.std()


@pytest.mark.parametrize("asked", [{}, {"column": "image=noisy,target=clean"}])
def test_a_table_names_images_and_targets_and_dataset_csv_says_the_same(tmp_path: Path, asked: dict[str, str]) -> None:
    pairs(tmp_path / "files", 2)
    names = {"image": "image", "target": "target"} if not asked else {"image": "noisy", "target": "clean"}
    rows = [
        {names["image"]: f"files/images/case{n:02}.nii.gz", names["target"]: f"files/targets/case{n:02}.nii.gz"}
        for n in range(2)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "table.csv", index=False)
    first = _opened(tmp_path / "table.csv", **asked)
    hilum.check(tmp_path / "table.csv", out=tmp_path / "checked", **asked)
    again = _opened(tmp_path / "checked" / "dataset.csv")
    for dataset in (first, again):
        assert [sorted(case.references) for case in dataset] == [["target"], ["target"]]
    assert_allclose(again.cases[1].references["target"].data, first.cases[1].references["target"].data)


def test_a_scale_and_its_inverse_give_the_number_again() -> None:
    scale = ChannelScale(0.0, steps=((10.0, 4.0), (-1.0, 3.0)))
    values = np.array([-1000.0, 0.5, np.nan, 3000.0], dtype=np.float32)
    assert_allclose(scale.undo(scale.apply(values)), values, rtol=1e-5)


def test_a_target_is_prepared_on_the_scale_of_its_image_and_comes_back_in_its_unit() -> None:
    grid = Geometry((16, 16, 16), OBLIQUE)
    clean = blob(0)[0].astype(np.float32)
    case = Case("a", "a", {"image": Image(3 * clean[None], grid)}, {"target": Image(clean[None], grid)})
    _, trace = PLAIN(case.images["image"], "a")
    target = TASK.target(case)
    data = target_kinds.target_kind(target.head).prepare(target, PLAIN, trace)
    # What is a third of the image in its unit is not a third of it on its scale.
    assert_allclose(data, (clean_on(trace, clean) - 3 * clean.mean()) / (3 * clean.std()), atol=1e-2)
    restored = trace.unpermute(target.head.turn_to_axes(data, trace))
    assert_allclose(restored[0], clean, atol=1e-3)


def clean_on(trace: object, clean: np.ndarray) -> np.ndarray:
    """A clean volume on the network's grid."""
    return PLAIN.numbers(clean[None], trace)


@pytest.mark.parametrize("loss", sorted(losses.LOSSES))
def test_what_was_not_measured_costs_nothing_and_a_perfect_image_least(loss: str) -> None:
    target = torch.from_numpy(blob(0)[0].astype(np.float32))[None, None] / 50
    holed = target.clone()
    holed[..., :4] = torch.nan
    made = target.clone()
    made[..., :4] += 100
    made.requires_grad_(True)
    cost = losses.mean_cost(loss, made, holed)
    cost.backward()
    assert float(cost.detach()) < 1e-5
    assert made.grad is not None and bool(made.grad.isfinite().all())
    assert float(losses.mean_cost(loss, target + 0.5, target)) > 0.01


def test_a_network_adds_its_input_to_what_it_says() -> None:
    class Says(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"image": torch.full_like(images[:, :1], 2.0), "image@1": images[:, :1]}

    outputs = Correcting(Says(), {"image": [1]})(torch.arange(16.0).reshape(1, 2, 8))
    assert list(outputs) == ["image"]
    assert_allclose(outputs["image"][0, 0], np.arange(8.0, 16.0) + 2)


@pytest.mark.parametrize("shift", [(0, 0, 0), (2, 0, -1)])
def test_check_finds_a_shifted_target_in_noise(shift: tuple[int, int, int]) -> None:
    clean = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(32, 32, 32)), 2)
    noisy = clean + np.random.default_rng(1).normal(0, 0.5 * clean.std(), clean.shape)
    found = targets.shift_between(noisy, np.roll(clean, shift, axis=(0, 1, 2)))
    assert_allclose(found, shift, atol=0.5)


def test_check_names_equal_shifted_and_foreign_targets(tmp_path: Path) -> None:
    pairs(tmp_path, 6)
    for number in range(3):
        path = tmp_path / "targets" / f"case{number:02}.nii.gz"
        image = nibabel.load(tmp_path / "images" / path.name)
        target, affine = np.asanyarray(nibabel.load(path).dataobj), image.affine.copy()
        if number == 0:
            target = np.asanyarray(image.dataobj)
        elif number == 1:
            target = np.roll(target, 3, axis=1)
        else:
            affine[:3, 3] += 50
        nibabel.Nifti1Image(target, affine).to_filename(path)
    problems = dataset_examination.examine(_opened(tmp_path)).problems
    said = {case: problem.what for problem in problems for case in problem.cases if "target" in problem.what}
    assert "equals its image" in said["case00"]
    assert "shifted against its image by 0 x 3 x 0 voxels" in said["case01"]
    assert "another field" in said["case02"]
    assert set(said) == {"case00", "case01", "case02"}


def test_targets_of_another_unit_are_learnt_on_a_scale_of_their_own(tmp_path: Path) -> None:
    plans = {factor: hilum.plan(pairs(tmp_path / str(factor), 6, factor=factor), minutes=1) for factor in (1.0,)}
    assert plans[1.0].plan["task.unit"] == "input"
    pairs(tmp_path / "other", 6)
    for path in (tmp_path / "other" / "targets").iterdir():
        target = nibabel.load(path)
        nibabel.Nifti1Image(1000 - 3 * target.get_fdata(), OBLIQUE).to_filename(path)
    assert hilum.plan(tmp_path / "other", minutes=1).plan["task.unit"] == "target"


def test_a_run_from_pairs_gives_images_in_the_unit_of_their_source(tmp_path: Path) -> None:
    data = pairs(tmp_path / "data", 10)
    settings = {**TWO_STEPS, "network.size": SMALL_UNET, "guard.gate": False}
    hilum.train(data, out=tmp_path / "run", assignments=settings)
    result = hilum.predict(tmp_path / "run", data / "images" / "case00.nii.gz", out=tmp_path / "out")
    given, made = (
        nibabel.load(path).get_fdata()
        for path in (data / "images" / "case00.nii.gz", tmp_path / "out" / "case00_enhanced.nii.gz")
    )
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    change = np.sqrt(np.mean((made - given) ** 2))
    assert change < given.std()
    assert table["change"][0] == pytest.approx(change, rel=1e-4)
    assert result is not None
    enhanced = hilum.enhance(data / "images" / "case00.nii.gz", method=tmp_path / "run", out=tmp_path / "enhanced")
    assert_allclose(nibabel.load(tmp_path / "enhanced" / "case00_enhanced.nii.gz").get_fdata(), made)
    assert enhanced.table["change"][0] == pytest.approx(change, rel=1e-4)
    assert (tmp_path / "enhanced" / "case00_error.nii.gz").is_file() == (
        tmp_path / "out" / "case00_error.nii.gz"
    ).is_file()
    scores = pd.read_csv(tmp_path / "run" / "evaluation" / "cases.csv")
    assert scores["psnr"].notna().all()
    summary = json.loads((tmp_path / "run" / "evaluation" / "summary.json").read_text())
    stated = {row["metric"] for row in summary["rows"]}
    assert {"psnr", "psnr_input", "ssim", "nrmse", "invented_per_litre", "recovery", "recovery_3"} <= stated
    spheres = pd.read_csv(tmp_path / "run" / "evaluation" / "recovery.csv")
    assert set(spheres["diameter"]) <= {3.0, 5.0, 8.0}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Recovery of inserted contrast" in page and "What was lost" in page


def test_deviations_that_fit_the_errors_cost_least_and_leave_the_image_alone() -> None:
    target = torch.randn(1, 1, 4096, generator=torch.Generator().manual_seed(0))
    made, logs = torch.zeros_like(target, requires_grad=True), torch.zeros_like(target, requires_grad=True)
    costs = {log: float(losses.deviation_cost(made, logs + log, target).detach()) for log in (-0.7, 0.0, 0.7)}
    assert min(costs, key=costs.__getitem__) == 0.0
    losses.deviation_cost(made, logs, target).backward()
    assert made.grad is None
    assert logs.grad is not None


def test_error_bars_hold_the_share_of_voxels_that_was_asked_for() -> None:
    rng = np.random.default_rng(0)
    ratios = [np.abs(rng.normal(0, 2, 5000)) for _ in range(40)]
    patients = np.array([str(n) for n in range(40)])
    decision = ErrorBarBelief(0.9, None).sets(UnseenCases(ratios, None, patients), exact=True)["task.error_factor"]
    # 90 % of a normal distribution lie within 1.645 deviations; one patient more counts as wholly missed.
    assert 2 * 1.645 <= decision.value < 2 * 1.85
    assert "approximate" not in decision.because
    few = ErrorBarBelief(0.9, None).sets(UnseenCases(ratios[:3], None, patients[:3]), exact=False)
    assert "too few" in few["task.error_factor"].because


def test_the_error_bar_comes_back_in_the_unit_of_the_image() -> None:
    head = TASK.heads["image"]
    _, trace = PLAIN(Image(3 * blob(0)[0][None].astype(np.float32), Geometry((16, 16, 16), OBLIQUE)), "a")
    outputs = np.zeros((2, 4), np.float32)
    restored = head.turn_to_axes(outputs, trace)
    assert_allclose(np.exp(restored[1]), 3 * blob(0)[0].std(), rtol=0.05)


def test_damaged_images_are_made_of_clean_ones_and_their_draws_stay_with_the_patient(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / "images").mkdir(exist_ok=True)
        nibabel.Nifti1Image(np.abs(blob(n)[0]), OBLIQUE).to_filename(tmp_path / "images" / f"case{n}.nii.gz")
    settings = {"damage": {"rician": [0.05, 0.1]}, "draws": 2}
    dataset, again = (
        dataset_reading.open_for_task("enhancement", [tmp_path], ReadingOptions(), settings=settings) for _ in range(2)
    )
    assert [case.id for case in dataset][:2] == ["images/case0_1", "images/case0_2"] or len(dataset) == 6
    assert len({case.patient for case in dataset}) == 3
    first, second = dataset.cases[:2]
    assert not np.array_equal(first.images["image"].data, second.images["image"].data)
    assert_allclose(again.cases[0].images["image"].data, first.images["image"].data)
    assert_allclose(first.references["target"].data[0], np.abs(blob(0)[0]))
    assert first.key != second.key


@pytest.mark.parametrize("damage", [{"poisson": [0, 10]}, {"rician": [0.2, 0.1]}, {"snow": [0, 1]}, "rician"])
def test_impossible_damage_is_refused(damage: object) -> None:
    with pytest.raises(UsageError):
        image_targets.parse_damage(damage)


def test_images_are_brought_onto_the_finer_grid_of_their_targets(tmp_path: Path) -> None:
    clean = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(12, 12, 12)), 1.5).astype(np.float32)
    coarse = np.diag([1.0, 1.0, 3.0, 1.0])
    coarse[2, 3] = 1.0
    for folder, array, affine in (("images", clean[:, :, 1::3], coarse), ("targets", clean, np.eye(4))):
        (tmp_path / folder).mkdir()
        nibabel.Nifti1Image(array, affine).to_filename(tmp_path / folder / "a.nii.gz")
    [case] = _opened(tmp_path)
    image = case.images["image"]
    assert image.geometry.equals(case.references["target"].geometry)
    assert_allclose(image.data[0][:, :, 1::3], clean[:, :, 1::3], atol=0.05)
    [alone] = image_targets.with_finer_images(
        list(dataset_reading.open_dataset(tmp_path / "images", ReadingOptions(), references=False)),
        {"scale": [1, 1, 3]},
    )
    assert_allclose(alone.images["image"].data, image.data)
    assert alone.images["image"].geometry.equals(image.geometry)


@pytest.mark.parametrize(("scale", "code", "kept"), [((1, 1, 1), "113087", "YES"), ((1, 1, 2), "113085", "NO")])
def test_an_enhanced_image_becomes_a_derived_series_in_its_frame_of_reference(
    tmp_path: Path, scale: tuple[int, int, int], code: str, kept: str
) -> None:
    grid = Geometry((8, 9, 4), np.diag([-1.0, -1.0, 2.0, 1.0]))
    values = np.random.default_rng(0).integers(-900, 900, grid.shape).astype(np.int16)
    series_writing.write_series(Image(values[None], grid, "CT"), SeriesNames("a", "b", "c"), tmp_path / "given")
    given = hilum.read(tmp_path / "given")
    source = given if max(scale) == 1 else image_targets.finer_image(given, scale)
    made = source.data[0] + 5
    result = Result(source, "denoiser 1", maps={"enhanced": Map(made, is_image=True), "error": Map(made)})
    assert ANSWERS["series"].suits(result)
    files = list(ANSWERS["series"].write(result, tmp_path / "case"))
    again = hilum.read(files[0].parent)
    assert again.geometry.equals(source.geometry)
    assert_allclose(again.data[0], made, atol=0.05)
    header = pydicom.dcmread(files[0])
    assert header.FrameOfReferenceUID == given.geometry.frame_of_reference
    assert header.DerivationCodeSequence[0].CodeValue == code
    assert header.SourceImageSequence[0].SpatialLocationsPreserved == kept
    assert header.SeriesDescription == "Enhanced by a model: denoiser 1"
    if (checker := shutil.which("dciodvfy")) is not None:
        said = subprocess.run([checker, str(files[0])], capture_output=True, text=True, check=False).stderr
        assert [line for line in said.splitlines() if line.startswith("Error")] == []


def test_a_missing_channel_is_made_by_a_model_of_it_and_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    pairs(tmp_path / "files", 8)
    images = [f"files/images/case{n:02}.nii.gz" for n in range(8)]
    targets_of = [path.replace("images", "targets") for path in images]
    pd.DataFrame({"t1": images, "flair": targets_of}).to_csv(tmp_path / "teaching.csv", index=False)
    hilum.train(
        tmp_path / "teaching.csv",
        column="image=t1,target=flair",
        out=tmp_path / "run",
        assignments={**TWO_STEPS, "network.size": SMALL_UNET, "guard.gate": False},
    )
    partly = [None if n == 0 else path for n, path in enumerate(targets_of)]
    pd.DataFrame({"t1": images, "flair": partly}).to_csv(tmp_path / "partly.csv", index=False)
    asked = ReadingOptions(column="image:t1=t1,image:flair=flair", impute=tmp_path / "run")
    dataset = dataset_reading.open_dataset(tmp_path / "partly.csv", asked, references=False)
    assert all(list(case.images) == ["t1", "flair"] for case in dataset)
    made = dataset.cases[0].images["flair"]
    assert "flair was not measured: a model made it of t1" in made.notes
    assert made.data.std() > 0
    assert dataset.cases[1].images["flair"].notes == dataset.cases[2].images["flair"].notes
    assert [path.suffix for path in (tmp_path / "cache" / "imputed").iterdir()] == [".npy"]


def test_images_without_targets_are_refused_with_what_to_do(tmp_path: Path) -> None:
    nibabel.Nifti1Image(blob(0)[0], OBLIQUE).to_filename(tmp_path / "a.nii.gz")
    with pytest.raises(DatasetError, match=r"has images and no targets.*task\.damage"):
        dataset_reading.open_for_task("enhancement", [tmp_path], ReadingOptions())


def test_noisy_images_alone_stand_for_targets_of_which_nobody_knows_anything(tmp_path: Path) -> None:
    for n in range(8):
        nibabel.Nifti1Image(np.abs(blob(n)[0]), OBLIQUE).to_filename(tmp_path / f"case{n}.nii.gz")
    chosen = {"task.supervision": "blind_spot", **TWO_STEPS}
    plan = hilum.plan(tmp_path, task="enhancement", assignments=chosen, device="cpu").plan
    assert list(plan["objectives.terms"]) == ["blind_spot"]
    assert plan["task.error_bars"] is False
    settings = {"supervision": "blind_spot"}
    dataset = dataset_reading.open_for_task("enhancement", [tmp_path], ReadingOptions(), settings=settings)
    found = dataset_examination.examine(dataset, threads=1)
    assert not [one for one in found.problems if "equals its image" in one.what]
    target = answering.known_target(dataset.cases[0])
    assert target.shape == (1, 16, 16, 16) and not np.isfinite(target).any()
    grid = dataset.cases[0].images["image"].geometry
    image = np.asarray(dataset.cases[0].images["image"].data)
    figures = image_fidelity.fidelity_figures(image, target, grid, source=image)
    assert all(np.isnan(one) for one in figures.values())  # no region of an image is called invented without a truth
