"""`--align apart`: exams of images that share no grid, with one answer."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
from pydicom.uid import DigitalXRayImageStorageForPresentation, generate_uid

import dicom_objects
import hilum
import packages
from hilum.errors import DatasetError, GeometryError, UsageError
from hilum.files.dicom.reading.series_survey import survey_folder
from hilum.planning.rules import modality_rules
from hilum.planning.rules.modality_rules import MissingImages
from hilum.reading import ReadingOptions, alignment, dataset_reading
from hilum.runs import gate
from hilum.runtime import Model, Preprocessing, torch_networks
from hilum.runtime.inference import Inference
from hilum.runtime.torch_networks import Networks, TorchNetwork
from hilum.service.work import job_answers
from hilum.service.work.job_answers import JobInputs
from hilum.tasks import task_catalogue
from hilum.transforms import spatial_transforms
from hilum.transforms.intensity import Normalisation
from hilum.values import Case, Decision, Geometry, Image

VIEWS = {"RCC": (20, 12), "RMLO": (30, 30)}
COLUMN = {"image:RCC": "rcc", "image:RMLO": "rmlo", "label": "state", "id": "id"}
APART = ReadingOptions(align="apart")


def disc(shape: tuple[int, int], radius: float, spacing: tuple[float, float] | None = None) -> Image:
    """A bright disc, round in mm, in the middle."""
    geometry = Geometry.of_pixels(shape) if spacing is None else Geometry.of_spacing(shape, spacing)
    places = np.indices(shape) - (np.array(shape)[:, None, None] - 1) / 2
    steps = np.array(geometry.steps)[:, None, None]
    return Image((np.linalg.norm(places * steps, axis=0) < radius)[None] * 100.0, geometry)


def widths(image: Image) -> tuple[float, float]:
    """mm, or pixels, of what is bright along both axes."""
    bright = np.nan_to_num(image.data[0]) > 50
    return tuple((bright.any(axis=1 - axis).sum() * image.geometry.steps[axis]) for axis in (0, 1))


@pytest.mark.parametrize(("spacing", "onto"), [(None, None), ((0.5, 1.0), (1.0, 0.5))])
def test_a_disc_stays_round_in_the_middle_and_nothing_is_measured_beside_its_image(spacing, onto):
    first = disc((40, 80), 5, onto)
    fitted = spatial_transforms.fit_to_grid(disc((60, 60), 12 if spacing is None else 8, spacing), first.geometry, "b")
    across, along = widths(fitted)
    assert abs(across - along) <= 2
    assert fitted.geometry.equals(first.geometry)
    valid = fitted.valid[0]
    covered = valid.any(axis=1).sum(), valid.any(axis=0).sum()
    # 60 x 60 pixels fit 40 rows; 30 x 60 mm fit 40 x 40 mm by their length, so 20 mm of its height are covered.
    assert covered == ((40, 40) if spacing is None else (20, 80))
    assert np.array_equal(valid, valid[::-1]) and np.array_equal(valid, valid[:, ::-1])


def test_what_is_made_smaller_is_averaged_and_not_folded_over():
    stripes = Image(np.tile(np.arange(64) % 2 * 100.0, (64, 1))[None], Geometry.of_pixels((64, 64)))
    small = spatial_transforms.fit_to_grid(stripes, Geometry.of_pixels((16, 16)), "b")
    assert np.abs(small.data[0, 2:-2, 2:-2] - 50).max() < 2


def test_a_view_whose_first_is_missing_gives_the_size_itself():
    case = alignment.aligned_case(Case("e", "p", {"RCC": disc((20, 12), 4), "RMLO": disc((30, 30), 4)}), "apart")
    assert case.images["RMLO"].geometry.shape == (20, 12)
    fewer = case.with_images(["RMLO"])
    assert list(fewer.images) == ["RMLO"]
    assert fewer.images["RMLO"].geometry.shape == (30, 30)


def test_what_has_a_place_in_one_image_is_refused_and_so_is_a_volume_among_pictures():
    mask, volume = disc((20, 12), 4), Image(np.ones((1, 4, 4, 4)), Geometry.of_pixels((4, 4, 4)))
    case = Case("e7", "p", {"RCC": disc((20, 12), 4), "RMLO": volume}, {"mask": mask, "class": "ill"})
    exam = alignment.aligned_case(case, "apart")
    with pytest.raises(GeometryError, match="e7: the mask has a place in one image"):
        _ = exam.references["mask"]
    assert exam.references["class"] == "ill"
    with pytest.raises(GeometryError, match="e7, RMLO: images of 2 axes and 3 axes"):
        _ = exam.images["RMLO"]
    with pytest.raises(UsageError, match="segmentation answers in places of an image"):
        hilum.predict(packages.segmenting(), ["none"], align="apart", device="cpu")


@pytest.fixture(scope="module")
def exams(tmp_path_factory):
    """A table of twelve exams of two views, of which the last lacks one."""
    root = tmp_path_factory.mktemp("exams")
    rows = []
    for n in range(12):
        rng = np.random.default_rng(n)
        for view, shape in VIEWS.items():
            PIL.Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(root / f"{view}{n}.png")
        rows.append([f"e{n:02}", f"RCC{n}.png", "" if n == 11 else f"RMLO{n}.png", ("ill", "well")[n % 2]])
    with (root / "exams.csv").open("w") as file:
        csv.writer(file).writerows([["id", "rcc", "rmlo", "state"], *rows])
    return root / "exams.csv"


def test_the_plan_gives_each_view_an_encoder_and_does_without_any(exams):
    plan = hilum.plan(exams, column=COLUMN, align="apart", device="cpu", threads=1).plan
    assert plan["network.name"] == "fusion_attention"
    assert plan["network.size"]["modalities"] == 2
    assert plan["preprocessing.absent"] == ["RCC", "RMLO"]
    assert (plan["training.modality_dropout"], plan["preprocessing.aspect"]) == (0.0, "pad")
    kept = modality_rules.aspect_decision(Decision("crop", "a shortcut"), MissingImages((), {}, 1, apart=True))
    assert kept.value == "crop"


def model() -> Model:
    """A model of two views with random weights, which does without either."""
    task = task_catalogue.build_task({"name": "classification", "classes": ["well", "ill"], "smoothing": 0.0})
    prepared = Preprocessing(
        2, tuple(VIEWS), (Normalisation("zscore"),) * 2, shape=(16, 16), aspect="pad", absent=tuple(VIEWS)
    )
    size = {"strides": [[1, 1], [2, 2]], "width": 4, "modalities": 2, "method": "attention", "heads": 1}
    network = {"name": "fusion_attention", "size": size, "channels": 2, "spatial_dims": 2}
    torch.manual_seed(0)
    run = TorchNetwork(torch_networks.build_module(task, network).eval())
    return Model(task, prepared, Inference((16, 16)), Networks(run, network), {"data_hash": "abc"})


def test_an_exam_is_one_row_of_predictions_with_and_without_a_view(exams):
    predicted = hilum.predict(model(), [exams], column=COLUMN, align="apart", device="cpu")
    assert list(predicted.table["case"]) == [f"e{n:02}" for n in range(12)]
    assert predicted.table["probability_ill"].notna().all()


def test_the_gate_looks_at_exams_that_lack_a_view(exams):
    options = ReadingOptions(column=COLUMN, align="apart")
    cases = list(dataset_reading.open_dataset(exams, options))
    looked_at = gate._with_images_left_out(model(), cases)
    assert [list(case.images) for case in looked_at[:4]] == [[*VIEWS], ["RCC"], [*VIEWS], ["RMLO"]]
    assert list(looked_at[11].images) == ["RCC"]


def mammogram(folder: Path, name: str, side: str, view: str, study: str, number: str = "1") -> None:
    folder.mkdir(exist_ok=True)
    tags = {"ImageLaterality": side, "ViewPosition": view}
    pixels = np.random.default_rng(len(name)).integers(0, 999, VIEWS.get(side + view, (9, 9)), dtype=np.uint16)
    stated = {key: value for key, value in tags.items() if value}
    dataset = dicom_objects.picture(
        pixels, Modality="MG", PatientID=number, StudyInstanceUID=study, SeriesInstanceUID=generate_uid(),
        SOPInstanceUID=generate_uid(), PresentationIntentType="FOR PRESENTATION", **stated,
    )  # fmt: skip
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(folder / f"{name}.dcm", enforce_file_format=True)


@pytest.fixture
def studies(tmp_path):
    """Three exams: one whole, one with two pictures of a view, one without any known view."""
    folder, uids = tmp_path / "studies", [generate_uid() for _ in range(3)]
    for name, side, view in (("a", "R", "CC"), ("b", "R", "MLO")):
        mammogram(folder, name, side, view, uids[0])
    for name in ("c", "dd"):
        mammogram(folder, name, "R", "CC", uids[1], "2")
    mammogram(folder, "eee", "", "", uids[2], "3")
    return folder


def test_a_study_is_an_exam_of_its_views_and_two_of_one_or_none_known_are_refused_by_name(studies):
    dataset = dataset_reading.open_dataset(studies, APART, references=False)
    [exam] = dataset
    assert list(exam.images) == ["RCC", "RMLO"]
    assert exam.images["RMLO"].geometry.shape == exam.images["RCC"].geometry.shape
    told = [problem.what for problem in dataset.problems if problem.severity == "error"]
    assert sum("two pictures of the exam are RCC: c.dcm, dd.dcm" in what for what in told) == 1
    assert sum("no picture of the exam states its view" in what for what in told) == 1
    for name in ("a", "b", "c", "dd"):
        (studies / f"{name}.dcm").unlink()
    with pytest.raises(DatasetError, match="no picture of the exam states its view"):
        dataset_reading.open_dataset(studies, APART, references=False)


def test_the_series_of_a_rule_are_one_exam_of_one_answer_in_the_node(studies):
    paths = {path.stem: [path] for path in studies.iterdir()}
    inputs = JobInputs({"RCC": paths["a"], "RMLO": paths["b"]})
    assert len(survey_folder(studies).series) == 5
    with job_answers._cases(SimpleNamespace(study="study"), inputs, "apart") as [case]:
        assert case.images["RMLO"].geometry.equals(case.images["RCC"].geometry)
        predicted = model().predict(case)
    assert set(predicted.probabilities) == {"well", "ill"}
    with job_answers._cases(SimpleNamespace(study="study"), JobInputs({"RMLO": paths["b"]}), "apart") as [case]:
        assert list(case.images) == ["RMLO"]
