"""Folders of DICOM: series are cases, what was contoured on them are references."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pydicom
import pytest

import hilum
from cohorts import volume
from hilum.errors import DatasetError, FormatError, GeometryError
from hilum.files import file_formats
from hilum.files.dicom.writing import seg
from hilum.layouts import dataset_layouts
from hilum.layouts.cases import class_labels
from hilum.layouts.layout import DatasetOptions
from hilum.values import Image, Label
from written_dicom import structure_set, write_segmented_series, write_slice

CR = pydicom.uid.ComputedRadiographyImageStorage


def gathered(data: Path, place: Path, series: str, *files: str) -> Path:
    """A series and single objects in one folder."""
    shutil.copytree(data / "dicom" / "series" / series, place / "series")
    for name in files:
        shutil.copy(data / "dicom" / "files" / name, place)
    return place


def test_a_segmentation_is_the_mask_of_its_series(data, tmp_path):
    dataset = dataset_layouts.read_dataset(gathered(data, tmp_path, "ct_23x38x3_with_seg", "dcmqi_seg_23x38x3.dcm"))
    [case] = dataset
    image, mask = case.images["image"], case.references["mask"]
    assert mask.geometry.equals(image.geometry)
    assert [label.name for label in dataset.classes["mask"]] == ["Liver"]
    assert class_labels.observed_values(case) == (1,)
    assert mask.labels[0].code is not None
    assert dataset.modality == "CT"
    # An independent count: all ones in the stored frames.
    stored = pydicom.dcmread(tmp_path / "dcmqi_seg_23x38x3.dcm").pixel_array
    assert int(mask.data.sum()) == int(stored.sum())


def test_a_case_is_called_by_patient_modality_and_number_and_by_its_description_where_that_is_asked_for(data, tmp_path):
    gathered(data, tmp_path, "mr_hippocampus_001")
    for path in tmp_path.rglob("*.dcm"):
        header = pydicom.dcmread(path)
        header.SeriesDescription, header.SeriesNumber = "Miller knee", 7
        header.save_as(path)
    [case] = dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))
    assert case.id == f"{case.patient[:8]}_MR_7"
    [case] = dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False, case_names="description"))
    assert case.id == f"{case.patient[:8]}_Miller_knee"


def test_series_of_one_number_are_told_apart(data, tmp_path):
    gathered(data, tmp_path, "mr_hippocampus_001")
    for path in tmp_path.rglob("*.dcm"):
        header = pydicom.dcmread(path)
        header.SeriesInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["another series"])
        header.save_as(path.with_name(f"again_{path.name}"))
    names = sorted(case.id for case in dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False)))
    assert len(names) == 2
    assert all(name.endswith(f"_{n}") for n, name in enumerate(names, start=1))


def test_patients_are_hidden(data, tmp_path):
    for path in gathered(data, tmp_path, "ct_23x38x3_with_seg", "dcmqi_seg_23x38x3.dcm").rglob("*.dcm"):
        # The files' own PatientID is also their SeriesNumber, which the name of a case may hold.
        changed(path, PatientID="secret-0815", PatientName="Roe^Jane")
    dataset = dataset_layouts.read_dataset(tmp_path)
    [case] = dataset
    stated = f"{case.id} {case.patient} {dict(case.covariates)} {dataset.patients}"
    assert not any(identity in stated for identity in ("secret", "0815", "Roe", "Jane"))
    assert dataset.patients_known


def with_localizer(data: Path, place: Path) -> Path:
    """A series with a localizer of three slices in as many directions, as a PACS exports a study."""
    gathered(data, place, "mr_hippocampus_001")
    for n, (path, across) in enumerate(zip(sorted(place.rglob("*.dcm")), "xyz", strict=False)):
        header = pydicom.dcmread(path)
        header.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        header.SeriesInstanceUID, header.SOPInstanceUID, header.SeriesNumber = "1.2.7", f"1.2.7.{n}", 1
        header.ImageOrientationPatient = {"x": [0, 1, 0, 0, 0, -1], "y": [1, 0, 0, 0, 0, -1]}.get(
            across, [1, 0, 0, 0, 1, 0]
        )
        header.save_as(place / f"scout{n}.dcm")
    return place


def test_a_localizer_is_no_case_and_is_named(data, tmp_path):
    dataset = dataset_layouts.read_dataset(with_localizer(data, tmp_path), DatasetOptions(references=False))
    [case] = dataset
    assert len(case.files) == 35
    [problem] = dataset.problems
    assert (problem.severity, problem.what) == ("warning", "1 series only served to plan others (localizers)")
    assert problem.cases == (f"{case.patient[:8]}_MR_1, scout0.dcm",)


def test_slices_of_three_planes_in_one_series_are_a_localizer_whatever_their_image_type(data, tmp_path):
    for path in with_localizer(data, tmp_path).glob("scout*.dcm"):
        header = pydicom.dcmread(path)
        header.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
        header.save_as(path)
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))
    assert [len(case.files) for case in dataset] == [35]
    [problem] = dataset.problems
    assert (problem.severity, problem.what) == ("warning", "1 series only served to plan others (localizers)")


def radiographs(folder: Path, *values: int) -> list[Path]:
    """Radiographs of one series, one of each value, each with a UID of its own."""
    return [
        write_slice(folder / f"{n}.dcm", np.full((4, 4), value, np.uint16), sop_class=CR, position=None, Modality="CR")
        for n, value in enumerate(values)
    ]


def test_a_copy_of_a_radiograph_is_no_further_case_and_is_named(tmp_path):
    first, _ = radiographs(tmp_path, 1, 2)
    shutil.copy(first, tmp_path / "copy.dcm")
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))
    assert len(dataset) == 2
    [problem] = dataset.problems
    assert (problem.severity, problem.what) == ("warning", "1 file is a copy of another file of the same series")
    assert problem.cases == ("copy.dcm",)


def test_radiographs_with_one_uid_and_different_pixels_are_refused_and_others_are_read(tmp_path):
    paths = radiographs(tmp_path, 1, 2, 3)
    for path in paths[:2]:
        header = pydicom.dcmread(path)
        header.SOPInstanceUID = "1.2.3.4"
        header.save_as(path)
    shared, other = dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))
    assert float(other.images["image"].data.max()) == 3.0
    with pytest.raises(GeometryError, match=r"0.dcm and 1.dcm have one SOPInstanceUID"):
        _ = shared.images["image"]


def test_a_segmentation_of_one_radiograph_of_a_series_is_the_mask_of_that_one(tmp_path):
    (tmp_path / "cr").mkdir()
    for path, box in zip(radiographs(tmp_path / "cr", 1, 2, 3)[:2], (np.s_[:2], np.s_[3:]), strict=True):
        contoured = np.zeros((4, 4), np.uint8)
        contoured[box] = 1
        seg.write_segmentation(
            contoured, [Label(1, "lung")], file_formats.read(path), tmp_path / f"{path.stem}.dcm", algorithm_name="test"
        )
    dataset = dataset_layouts.read_dataset(tmp_path)
    found = {int(case.images["image"].data.max()): case.references["mask"].data for case in dataset}
    assert {n: int(mask.sum()) for n, mask in found.items()} == {1: 8, 2: 4}
    assert [problem.what for problem in dataset.problems] == ["1 of 3 images without a label"]


@pytest.mark.parametrize(("degrees", "slices"), [((0, 30, 60, 90), 1), ((0, 90), 10), ((0, 45), 1)])
def test_slices_on_a_circle_many_slices_and_planes_at_a_slant_are_no_localizer(degrees, slices, data, tmp_path):
    gathered(data, tmp_path, "mr_hippocampus_001")
    header = pydicom.dcmread(next(tmp_path.rglob("*.dcm")))
    header.SeriesInstanceUID = "1.2.7"
    for n, degree in enumerate(degrees * slices):
        header.SOPInstanceUID = f"1.2.7.{n}"
        cosine, sine = (round(float(f(np.radians(degree))), 6) for f in (np.cos, np.sin))
        header.ImageOrientationPatient = [cosine, sine, 0, 0, 0, -1]
        header.save_as(tmp_path / f"other{n}.dcm")
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))
    assert sorted(len(case.files) for case in dataset) == sorted([35, len(degrees) * slices])
    assert not dataset.problems


def test_a_localizer_is_read_where_a_folder_holds_nothing_else(data, tmp_path):
    shutil.rmtree(with_localizer(data, tmp_path) / "series")
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))
    assert [len(case.files) for case in dataset] == [3] and not dataset.problems


def with_two_patients(folder: Path, **second: str) -> Path:
    """Two series of a slice each under one StudyInstanceUID, the second with a header of its own."""
    pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
    write_slice(folder / "first.dcm", pixels, SeriesNumber=1)
    write_slice(folder / "second.dcm", pixels, SeriesNumber=2, SeriesInstanceUID="1.2.3.9", **second)
    return folder


@pytest.mark.parametrize(
    ("second", "is_mixed"),
    [
        ({"PatientID": "secret-0815"}, True),
        ({"IssuerOfPatientID": "H2"}, False),
        ({"PatientID": "anonymous"}, False),
        ({"PatientID": "secret-0815", "StudyInstanceUID": "1.2.3.8"}, False),
        ({"PatientName": "Roe^Jane"}, False),
    ],
)
def test_check_names_the_cases_of_a_study_of_two_patients_as_a_node_does_and_hides_who_they_are(
    tmp_path, second, is_mixed
):
    result = hilum.check(with_two_patients(tmp_path, **second))
    mixed = [problem for problem in result.problems if "several patients" in problem.what]
    assert len(mixed) == is_mixed
    for problem in mixed:
        assert problem.severity == "warning"
        assert problem.what == "1 study holds series of several patients under one StudyInstanceUID (0020,000D)"
        assert sorted(problem.cases) == sorted(case.id for case in result.dataset)
        assert len({case.patient for case in result.dataset}) == 2
    assert not any(identity in str(result) for identity in ("secret", "Doe", "Roe"))


def test_a_segmentation_of_another_patient_than_its_image_is_named_by_its_file(tmp_path):
    [path] = radiographs(tmp_path, 1)
    contoured = np.zeros((4, 4), np.uint8)
    contoured[:2] = 1
    seg.write_segmentation(
        contoured, [Label(1, "lung")], file_formats.read(path), tmp_path / "seg.dcm", algorithm_name="test"
    )
    header = pydicom.dcmread(tmp_path / "seg.dcm")
    header.PatientID = "secret-0815"
    header.save_as(tmp_path / "seg.dcm")
    dataset = dataset_layouts.read_dataset(tmp_path)
    [problem] = [problem for problem in dataset.problems if "several patients" in problem.what]
    assert problem.cases == (dataset.cases[0].id, "seg.dcm")


def test_segments_that_overlap_need_a_choice(data, tmp_path):
    segmentation = shutil.copy(data / "dicom" / "files" / "dcmqi_seg_partial_overlaps.dcm", tmp_path)
    write_segmented_series(segmentation, tmp_path / "series")
    dataset = dataset_layouts.read_dataset(tmp_path)
    with pytest.raises(FormatError, match="--labels"):
        _ = dataset.cases[0].references["mask"]
    names = [label.name for label in dataset.classes["mask"]]
    chosen = dataset_layouts.read_dataset(tmp_path, DatasetOptions(labels=f"1={names[2]}"))
    assert class_labels.observed_values(chosen.cases[0]) == (1,)
    assert chosen.cases[0].references["mask"].labels[0].name == names[2]


def test_series_without_masks_are_for_prediction(data):
    folder = data / "dicom" / "series" / "mr_hippocampus_001"
    with pytest.raises(DatasetError, match="no labels"):
        dataset_layouts.read_dataset(folder)
    [case] = dataset_layouts.read_dataset(folder, DatasetOptions(references=False))
    image = case.images["image"]
    assert (image.modality, image.geometry.ndim, len(case.files)) == ("MR", 3, 35)


def test_a_segmentation_without_its_series_is_said(data, tmp_path):
    shutil.copytree(data / "dicom" / "series" / "mr_hippocampus_001", tmp_path / "series")
    shutil.copy(data / "dicom" / "files" / "dcmqi_seg_liver.dcm", tmp_path)
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))
    assert "no image series" in dataset.problems[0].what


@pytest.mark.parametrize("kept", [150, 600, 2000, 20_000])
def test_a_file_that_was_cut_short_is_said_or_refused_and_the_rest_goes_on(data, tmp_path, kept):
    gathered(data, tmp_path, "ct_23x38x3_with_seg", "dcmqi_seg_23x38x3.dcm")
    whole = (data / "dicom" / "files" / "pydicom_CT_small.dcm").read_bytes()
    (tmp_path / "broken.dcm").write_bytes(whole[:kept])
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))
    stated = " ".join(text for problem in dataset.problems for text in (problem.what, *problem.cases))
    good = [case for case in dataset if case.references]
    assert len(good) == 1
    assert class_labels.observed_values(good[0]) == (1,)
    for case in set(dataset) - set(good):
        with pytest.raises(FormatError, match=r"broken\.dcm"):
            _ = case.images["image"].data
        stated += "broken.dcm"
    assert "broken.dcm" in stated


def test_a_directory_stands_for_what_lies_beside_it(data):
    folder = data / "dicom" / "series" / "dicomdir_fileset"
    listed = dataset_layouts.read_dataset(next(folder.rglob("DICOMDIR")), DatasetOptions(references=False))
    assert len({case.patient for case in listed}) == 2  # three folders, but two of them have one PatientID
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "DICOMDIR"]
    heads = [pydicom.dcmread(path, stop_before_pixels=True) for path in files]
    scouts = {head.SeriesInstanceUID for head in heads if "LOCALIZER" in head.get("ImageType", [])}
    scouts |= {head.SeriesInstanceUID for head in heads if "PILOT" in head.get("SeriesDescription", "")}
    kept = [head for head in heads if head.SeriesInstanceUID not in scouts]
    assert len(heads) - len(kept) == 2 + 3 + 3  # of one scout of CT, and of two of MR in three planes
    assert len(listed) == len({head.SeriesInstanceUID for head in kept})
    assert sum(len(case.files) for case in listed) == len(kept)


def test_a_table_may_name_folders_of_dicom(data, tmp_path):
    for name in ("mr_hippocampus_001", "mr_hippocampus_003"):
        shutil.copytree(data / "dicom" / "series" / name, tmp_path / name)
    table = tmp_path / "cases.csv"
    table.write_text("image,label\nmr_hippocampus_001,left\nmr_hippocampus_003,right\n")
    dataset = dataset_layouts.read_dataset(table)
    assert [len(case.files) for case in dataset] == [35, 35]
    assert [case.images["image"].geometry.shape for case in dataset] == [(35, 51, 35), (34, 52, 35)]
    assert dataset.cases[1].references["class"] == "right"


def test_one_file_is_one_case(data):
    [case] = dataset_layouts.read_dataset(
        data / "dicom" / "files" / "pydicom_CT_small.dcm", DatasetOptions(references=False)
    )
    assert case.images["image"].modality == "CT"
    assert np.isfinite(case.images["image"].data).all()


@pytest.mark.parametrize("place", ["mask.nii.gz", "segmentations/liver.nii.gz"])
@pytest.mark.parametrize("codes", ["LPS", "LAS", "RAS"])
def test_a_label_map_beside_its_series_is_its_mask_however_its_axes_are_stored(data, tmp_path, place, codes):
    gathered(data, tmp_path / "scan", "mr_hippocampus_001")
    image = dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False)).cases[0].images["image"]
    contoured = np.zeros(image.geometry.shape, np.uint8)
    contoured[1:4, 2:6, 1:2] = 1
    stored = nibabel.Nifti1Image(contoured, image.geometry.affine)
    ours = nibabel.orientations.io_orientation(stored.affine)
    turn = nibabel.orientations.ornt_transform(ours, nibabel.orientations.axcodes2ornt(codes))
    path = tmp_path / "scan" / place
    path.parent.mkdir(exist_ok=True)
    stored.as_reoriented(turn).to_filename(path)
    [case] = dataset_layouts.read_dataset(tmp_path)
    assert case.references["mask"].geometry.equals(image.geometry)
    assert (case.references["mask"].data[0] == contoured).all()
    assert path in case.files


def test_one_beside_several_series_is_left_out_and_said(data, tmp_path):
    gathered(data, tmp_path / "scan" / "a", "mr_hippocampus_001")
    gathered(data, tmp_path / "scan" / "b", "ct_23x38x3_with_seg")
    volume(tmp_path / "scan" / "mask.nii.gz")
    with pytest.raises(DatasetError, match="no labels"):
        dataset_layouts.read_dataset(tmp_path)
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))
    assert [problem.what for problem in dataset.problems] == ["1 label map lies beside no series or several"]


def test_folders_around_several_patients_each_are_classes_where_nothing_is_contoured(tmp_path):
    """As a download from ADNI is sorted by hand."""
    for name, people in (("AD", "AB"), ("CN", "CD")):
        for person in people:
            place = tmp_path / name / f"scan{person}"
            place.mkdir(parents=True)
            for number in range(3):
                write_slice(
                    place / f"{number}.dcm",
                    np.full((4, 4), number, np.int16),
                    position=(0, 0, number),
                    PatientID=person,
                    SeriesInstanceUID=f"1.2.{ord(person)}",
                    StudyInstanceUID=f"1.3.{ord(person)}",
                )
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert sorted(case.references["class"] for case in dataset) == ["AD", "AD", "CN", "CN"]
    assert [label.name for label in dataset.classes["class"]] == ["AD", "CN"]
    assert any("AD, CN are read as classes" in problem.what for problem in dataset.problems)
    assert not dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False)).kinds
    # The same person in both folders: they are visits, or something else.
    for path in (tmp_path / "CN" / "scanC").glob("*.dcm"):
        header = pydicom.dcmread(path)
        header.PatientID = "A"
        header.save_as(path)
    with pytest.raises(DatasetError, match="no labels"):
        dataset_layouts.read_dataset(tmp_path)


def test_label_maps_called_as_the_folder_of_a_series_or_as_its_one_file_are_its_masks(tmp_path):
    for n in range(1, 4):
        for number in range(3):
            place = tmp_path / "ct" / "CT" / f"case{n}"
            place.mkdir(parents=True, exist_ok=True)
            uid = f"1.2.840.99.{n}"
            pixels = np.full((4, 4), number, np.int16)
            write_slice(place / f"{number}.dcm", pixels, position=(0, 0, number), SeriesInstanceUID=uid)
        volume(tmp_path / "ct" / "masks" / f"case{n}.nii.gz", np.full((4, 4, 3), n, np.uint8))
        (tmp_path / "single" / "images").mkdir(parents=True, exist_ok=True)
        path = tmp_path / "single" / "images" / f"x{n}.dcm"
        write_slice(path, np.full((4, 4), n, np.int16), position=(0, 0, 0), SeriesInstanceUID=f"1.2.840.98.{n}")
        volume(tmp_path / "single" / "labels" / f"x{n}_mask.nii.gz", np.full((4, 4, 1), n, np.uint8))
    for folder in ("ct", "single"):
        dataset = dataset_layouts.read_dataset(tmp_path / folder)
        assert [class_labels.observed_values(case) for case in dataset] == [(1,), (2,), (3,)]
        assert not dataset.problems


# -- several objects contoured on one series----------------------------------------------------------------------------


def scan(folder: Path) -> Image:
    """A series of three slices of 8 x 9 voxels."""
    (folder / "scan").mkdir(parents=True)
    for n in range(3):
        tags = {"InstanceNumber": n + 1, "SliceThickness": 2, "SeriesNumber": 1}
        write_slice(folder / "scan" / f"{n}.dcm", np.full((9, 8), n, np.int16), position=(0, 0, 2 * n), **tags)
    return file_formats.read(folder / "scan")


def contour(image: Image, path: Path, marks: dict[str, tuple[slice, ...]], series: str, instance: int = 1) -> Path:
    """A segmentation of boxes of voxels on an image, by name of the structure."""
    contoured = np.zeros(image.geometry.shape, np.uint8)
    for value, box in enumerate(marks.values(), start=1):
        contoured[box] = value
    labels = [Label(value, name) for value, name in enumerate(marks, start=1)]
    seg.write_segmentation(contoured, labels, image, path, algorithm_name="test")
    changed(path, SeriesInstanceUID=series, InstanceNumber=instance)
    return path


def changed(path: Path, **tags: object) -> None:
    dataset = pydicom.dcmread(path)
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)


def by_a_person(path: Path) -> None:
    for segment in (dataset := pydicom.dcmread(path)).SegmentSequence:
        segment.SegmentAlgorithmType = "SEMIAUTOMATIC"
    dataset.save_as(path)


def voxels(mask: Image) -> dict[str, int]:
    """How many voxels of a label map each of its structures has."""
    return {label.name: int((mask.data == label.value).sum()) for label in mask.labels}


LEFT, RIGHT = np.s_[1:3, 1:4, :2], np.s_[5:7, 2:4, 1:2]  # 12 and 4 voxels, which do not overlap


@pytest.mark.parametrize("second", ["1.2.9", "1.2.10"], ids=["one series", "two series"])
def test_segmentations_of_different_structures_are_one_label_map(tmp_path, second):
    image = scan(tmp_path)
    contour(image, tmp_path / "a.dcm", {"Liver": LEFT}, "1.2.9", 1)
    contour(image, tmp_path / "b.dcm", {"Tumour": RIGHT}, second, 2)
    dataset = dataset_layouts.read_dataset(tmp_path)
    [case] = dataset
    assert set(case.references) == {"mask"} and not dataset.problems
    mask = case.references["mask"]
    assert voxels(mask) == {"Liver": 12, "Tumour": 4}
    assert {Path(path).name for path in mask.source.paths} == {"a.dcm", "b.dcm"} <= {path.name for path in case.files}


def test_segmentations_of_different_structures_that_overlap_are_refused(tmp_path):
    image = scan(tmp_path)
    contour(image, tmp_path / "a.dcm", {"Liver": LEFT}, "1.2.9")
    contour(image, tmp_path / "b.dcm", {"Tumour": LEFT}, "1.2.10")
    with pytest.raises(FormatError, match=r"overlaps another structure.*--labels"):
        _ = dataset_layouts.read_dataset(tmp_path).cases[0].references["mask"]
    chosen = dataset_layouts.read_dataset(tmp_path, DatasetOptions(labels="1=Tumour"))
    assert voxels(chosen.cases[0].references["mask"]) == {"Tumour": 12}
    assert set(chosen.cases[0].references) == {"mask"}


def test_segmentations_of_the_same_structures_are_masks_of_several_readers(tmp_path):
    image = scan(tmp_path)
    for reader, series, liver, tumour in (("a", "1.2.9", LEFT, RIGHT), ("b", "1.2.10", RIGHT, LEFT)):
        contour(image, tmp_path / f"{reader}1.dcm", {"Liver": liver}, series, 1)
        contour(image, tmp_path / f"{reader}2.dcm", {"tumour": tumour}, series, 2)
    for path in tmp_path.glob("[ab]?.dcm"):
        by_a_person(path)
    dataset = dataset_layouts.read_dataset(tmp_path)
    [case] = dataset
    assert sorted(tuple(voxels(case.references[kind]).values()) for kind in case.references) == [(4, 12), (12, 4)]
    assert not dataset.problems


def test_a_segmentation_that_its_algorithm_has_made_again_is_left_out_and_said(tmp_path):
    image = scan(tmp_path)
    for name, box, time in (("old", LEFT, "101500"), ("new", RIGHT, "101501")):
        changed(
            contour(image, tmp_path / f"{name}.dcm", {"Liver": box}, "1.2.9"), ContentDate="20260102", ContentTime=time
        )
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert voxels(dataset.cases[0].references["mask"]) == {"Liver": 4}
    assert set(dataset.cases[0].references) == {"mask"}
    assert [one.what for one in dataset.problems] == ["1 segmentation was made again later by the same algorithm"]
    by_a_person(tmp_path / "new.dcm")
    assert len(dataset_layouts.read_dataset(tmp_path).cases[0].references) == 2


def test_segmentations_that_share_some_structures_and_not_others_are_said(tmp_path):
    image = scan(tmp_path)
    contour(image, tmp_path / "a.dcm", {"Liver": LEFT}, "1.2.9")
    contour(image, tmp_path / "b.dcm", {"Liver": LEFT, "Tumour": RIGHT}, "1.2.10")
    dataset = dataset_layouts.read_dataset(tmp_path)
    [problem] = dataset.problems
    assert problem.what == "1 case has segmentations that share some structures and not others"
    assert problem.cases == (dataset.cases[0].id,)
    assert not dataset_layouts.read_dataset(tmp_path, DatasetOptions(labels="1=Liver")).problems


def test_segmentations_with_one_uid_and_different_contents_are_refused(tmp_path):
    image = scan(tmp_path)
    for name, box in (("a.dcm", LEFT), ("b.dcm", RIGHT)):
        changed(contour(image, tmp_path / name, {"Liver": box}, "1.2.9"), SOPInstanceUID="1.2.9.1")
    [case] = dataset_layouts.read_dataset(tmp_path)
    with pytest.raises(GeometryError, match=r"a.dcm and b.dcm have one SOPInstanceUID"):
        _ = case.references["mask"]


# -- names of structures ----------------------------------------------------------------------------------------------


def contours(path: Path, *regions: tuple[int, str, list[list[tuple[float, float, float]]]]) -> Path:
    """A structure set of (number, name, contours) on the frame of reference of a scan."""
    structure_set(path, {str(n): contoured for n, (_, _, contoured) in enumerate(regions)}, instance=None)
    dataset = pydicom.dcmread(path)
    for n, (number, name, _) in enumerate(regions):
        dataset.StructureSetROISequence[n].ROINumber, dataset.StructureSetROISequence[n].ROIName = number, name
        dataset.ROIContourSequence[n].ReferencedROINumber = number
    dataset.FrameOfReferenceUID = "1.2.3.3"
    dataset.save_as(path)
    return path


def square(start: float, end: float, depth: float = 2) -> list[list[tuple[float, float, float]]]:
    return [[(start, start, depth), (end, start, depth), (end, end, depth), (start, end, depth)]]


A, B = square(0.5, 2.5), square(3.5, 6.5)  # 4 and 9 voxels


@pytest.mark.parametrize(
    ("regions", "expected"),
    [
        ([(1, "GTV", []), (2, "GTV", A), (3, "Lung", B)], {"GTV": 4, "Lung": 9}),
        ([(0, "GTV", A), (1, "Lung", B)], {"GTV": 4, "Lung": 9}),
        ([(0, "GTV", A), (7, "GTV", B)], {"GTV 1": 4, "GTV 2": 9}),
        ([(70_000, "GTV", A), (70_001, "gtv", B)], {"GTV 1": 4, "gtv 2": 9}),
        ([(1, "GTV", A), (2, "GTV", B), (3, "GTV 1", square(0.5, 2.5, 0))], {"GTV 1 1": 4, "GTV 2": 9, "GTV 1": 4}),
    ],
    ids=["one without contours", "number 0", "number 0 and one name", "large numbers and one name", "a name as made"],
)
def test_each_region_has_the_name_by_which_it_is_declared(tmp_path, regions, expected):
    scan(tmp_path)
    contours(tmp_path / "rt.dcm", *regions)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert {label.name for label in dataset.classes["mask"]} == set(expected)
    assert voxels(dataset.cases[0].references["mask"]) == expected


def test_a_segment_without_a_label_has_the_name_of_its_code(tmp_path):
    path = contour(scan(tmp_path), tmp_path / "seg.dcm", {"x": LEFT}, "1.2.9")
    segments = pydicom.dcmread(path).SegmentSequence
    segments[0].SegmentLabel = ""
    changed(path, SegmentSequence=segments)
    [case] = dataset_layouts.read_dataset(tmp_path)
    assert voxels(case.references["mask"]) == {"Tissue": 12}


def test_a_name_in_other_letters_of_another_file_is_the_same_structure(tmp_path):
    for n, name in enumerate(("Liver", "LIVER")):
        scan(tmp_path / name)
        regions = pydicom.dcmread(contours(tmp_path / name / "rt.dcm", (1, name, A))).StructureSetROISequence
        regions[0].ReferencedFrameOfReferenceUID = f"1.2.{n}"
        changed(tmp_path / name / "rt.dcm", StructureSetROISequence=regions)
        for path in (tmp_path / name).rglob("*.dcm"):
            changed(path, FrameOfReferenceUID=f"1.2.{n}", SeriesInstanceUID=f"1.2.{n}.{len(path.name)}")
            changed(path, PatientID=name, StudyInstanceUID=f"1.3.{n}")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [voxels(case.references["mask"]) for case in dataset] == [{"LIVER": 4}, {"LIVER": 4}]


def test_a_structure_set_of_points_alone_is_left_out_and_said(tmp_path):
    scan(tmp_path)
    contours(tmp_path / "a.dcm", (1, "GTV", A))
    contours(tmp_path / "b.dcm", (1, "isocentre", []))
    changed(tmp_path / "b.dcm", SOPInstanceUID="1.2.3.10")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert voxels(dataset.cases[0].references["mask"]) == {"GTV": 4}
    [problem] = dataset.problems
    assert problem.what == "1 segmentation holds neither a segment nor a closed contour"


def test_a_damaged_segmentation_is_refused_where_its_case_is_read_and_not_lost(tmp_path):
    image = scan(tmp_path)
    contour(image, tmp_path / "a.dcm", {"Liver": LEFT}, "1.2.9")
    path = contour(image, tmp_path / "b.dcm", {"Tumour": RIGHT, "Cyst": LEFT}, "1.2.10")
    segments = pydicom.dcmread(path).SegmentSequence
    segments[1].SegmentNumber = 1
    changed(path, SegmentSequence=segments)
    [case] = dataset_layouts.read_dataset(tmp_path, DatasetOptions(labels="1=Liver"))
    with pytest.raises(FormatError, match=r"b.dcm: segments are numbered \[1, 1\]"):
        _ = case.references["mask"]


def test_label_maps_of_several_structures_beside_one_series_are_one_label_map(tmp_path):
    for n in range(2):
        (tmp_path / f"case{n}" / "scan").mkdir(parents=True)
        for number in range(3):
            path = tmp_path / f"case{n}" / "scan" / f"{number}.dcm"
            uid = f"1.2.840.97.{n}"
            write_slice(path, np.full((4, 4), number, np.int16), position=(0, 0, number), SeriesInstanceUID=uid)
        for place, name in enumerate(("liver", "spleen")):
            contoured = np.zeros((4, 4, 3), np.uint8)
            contoured[2 * place] = 1
            nibabel.Nifti1Image(contoured, np.diag([-1, -1, 1, 1])).to_filename(
                tmp_path / f"case{n}" / f"{name}_mask.nii"
            )
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [label.name for label in dataset.classes["mask"]] == ["liver", "spleen"]
    assert [np.unique(case.references["mask"].data).tolist() for case in dataset] == [[0, 1, 2]] * 2
    (tmp_path / "case1" / "liver_mask.nii").unlink()
    assert [problem.severity for problem in dataset_layouts.read_dataset(tmp_path).problems] == ["error", "warning"]


def test_a_mask_beside_two_radiographs_of_one_series_is_of_the_one_that_it_is_called_by(tmp_path):
    for n, name in enumerate(("frontal", "lateral")):
        tags = {"Modality": "DX", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1", "SeriesInstanceUID": "1.2.840.96"}
        write_slice(tmp_path / f"{name}.dcm", np.full((4, 4), n, np.int16), position=None, orientation=None, **tags)
    PIL.Image.fromarray(np.full((4, 4), 255, np.uint8)).save(tmp_path / "lateral_mask.png")
    [case] = dataset_layouts.read_dataset(tmp_path)
    assert int(case.images["image"].data.max()) == 1


@pytest.mark.parametrize("kinds", [("CT",), ("MR/T1", "MR/T2"), ("CT", "MR/T1")])
def test_pictures_of_masks_of_slices_are_no_images_and_one_volume_of_them_is_the_mask(tmp_path, kinds):
    """As in CHAOS: the pictures are numbered, the files of a series are named otherwise."""
    for person, kind in ((person, kind) for person in "125" for kind in kinds):
        # People above contrasts in MR, or else the folder of the modality above the people.
        modality, _, contrast = kind.partition("/")
        place = tmp_path / modality / person / contrast
        (place / "DICOM_anon").mkdir(parents=True)
        (place / "Ground").mkdir()
        for n in range(3):
            own = {"SeriesInstanceUID": f"1.2.{person}.{kinds.index(kind)}", "PatientID": person}
            path = place / "DICOM_anon" / f"IMG-{n}.dcm"
            write_slice(path, np.full((4, 4), n, np.int16), position=(0, 0, n), **own)
            contoured = np.zeros((4, 4), np.uint8)
            contoured[1:3, 1:3], contoured[3] = 63, 126
            PIL.Image.fromarray(contoured).save(place / "Ground" / f"map{n}.png")
    with pytest.raises(DatasetError, match=r"pictures look like a label map.*as mask\.nii\.gz"):
        dataset_layouts.read_dataset(tmp_path)
    with pytest.raises(DatasetError, match="look like label maps, and not like images"):
        dataset_layouts.read_dataset(tmp_path, DatasetOptions(layout="class_folders"))
    for ground in tmp_path.rglob("Ground"):
        volume(ground.parent / "DICOM_anon" / "mask.nii.gz", np.full((4, 4, 3), 63, np.uint8))
    assert [class_labels.observed_values(case) for case in dataset_layouts.read_dataset(tmp_path)] == [(63,)] * 3 * len(
        kinds
    )


@pytest.mark.parametrize("suffix", [".dat", ".img", ".mr"])
def test_slices_of_a_series_are_known_by_their_first_bytes_whatever_their_suffix(tmp_path, suffix):
    for n in range(3):
        write_slice(tmp_path / f"slice{n}{suffix}", np.full((4, 5), n, np.uint16), position=(0, 0, n))
    [case] = dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))
    assert next(iter(case.images.values())).data.shape == (1, 5, 4, 3)
