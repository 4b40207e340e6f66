"""A written DICOM SEG is read again voxel by voxel, and belongs to its patient, study and frame of reference."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pydicom.dataset import Dataset

import hilum
import real_data
from hilum.errors import FormatError, GeometryError, UsageError
from hilum.files import file_formats, result_images
from hilum.files.dicom.reading import seg_reading
from hilum.files.dicom.writing import seg, stamp
from hilum.files.dicom.writing.dicom_answers import ANSWERS, Result
from hilum.files.dicom.writing.stamp import Stamp
from hilum.layouts.cases import dicom_masks
from hilum.values import Code, Geometry, Image, Label, Source
from matrices import thinned
from written_dicom import sequence, write_enhanced, write_slice

LIVER = Label(1, "Liver", (221, 130, 101), Code("SCT", "10200004", "Liver"))
TUMOUR = Label(2, "Tumour", (255, 0, 0), Code("SCT", "108369006", "Neoplasm"))
PLAIN = Label(3, "rest")
LABELS = (LIVER, TUMOUR, PLAIN)
RNG = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the corpus is odd on purpose
        yield


def marked(geometry: Geometry, highest: int = 3) -> np.ndarray[Any, Any]:
    return RNG.integers(0, highest + 1, geometry.shape).astype(np.uint8)


def save(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path)
    return path


# -- writing ----------------------------------------------------------------------------------------------------------

SERIES = (
    "mr_hippocampus_001",
    "ct_23x38x3_with_seg",
    "ct_philips_tilt_minus18.5",
    "mr_genesis_coronal_prone",
    "mr_siemens_sagittal_decubitus_left",
    "mr_siemens_mosaic",
    "mr_ge_epi_interleaved_3vol",
    "enh_mr_siemens_xa10",
    "enh_mr_philips_fieldmap",
    "ct_phantom_with_rtstruct",
)


@pytest.mark.parametrize("name", thinned(3, real_data.parameters("dicom/series", SERIES)))
def test_what_is_written_on_a_real_series_is_read_again_voxel_by_voxel(tmp_path: Path, name: str):
    volumes = file_formats.read_volumes(real_data.find(f"dicom/series/{name}"))
    source = volumes[next(iter(volumes))]
    truth = marked(source.geometry)
    seg.write_segmentation(truth, LABELS, source, tmp_path / "seg.dcm", algorithm_name="test")
    again = seg_reading.read_segmentation(tmp_path / "seg.dcm", on=source.geometry)
    assert_array_equal(again.data[0], truth)
    assert seg_reading.read_segmentation(tmp_path / "seg.dcm").geometry.equals(source.geometry, 1e-4)


def test_highdicom_reads_what_is_written(data: Path, tmp_path: Path):
    source = file_formats.read(data / "dicom/series/mr_hippocampus_001")
    truth = marked(source.geometry)
    seg.write_segmentation(truth, LABELS, source, tmp_path / "seg.dcm", algorithm_name="test")
    volume = highdicom.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=True)
    lps = np.diag([-1, -1, 1, 1]) @ source.geometry.affine
    index = np.linalg.solve(volume.affine, lps)  # highdicom counts slices, rows, columns
    assert_allclose(np.abs(index[:3, :3]), np.eye(3)[[2, 1, 0]], atol=1e-4)
    at = np.rint(index[:3, :3] @ np.indices(truth.shape).reshape(3, -1) + index[:3, 3:]).astype(int)
    assert_array_equal(volume.array[tuple(at)], truth.ravel())


def test_a_result_belongs_to_the_same_patient_study_and_frame_of_reference(data: Path, tmp_path: Path):
    source = file_formats.read(data / "dicom/series/mr_hippocampus_001")
    seg.write_segmentation(marked(source.geometry), LABELS, source, tmp_path / "seg.dcm", algorithm_name="test")
    result = pydicom.dcmread(tmp_path / "seg.dcm")
    original = pydicom.dcmread(source.source.paths[0])  # type: ignore[union-attr]
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate"):
        assert result.get(keyword) == original.get(keyword), keyword
    assert result.SeriesInstanceUID != original.SeriesInstanceUID
    assert result.ReferencedSeriesSequence[0].SeriesInstanceUID == original.SeriesInstanceUID
    uids = {pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in source.source.paths}  # type: ignore[union-attr]
    named = {i.ReferencedSOPInstanceUID for i in result.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert named == uids


def test_names_codes_and_colours_survive_and_lesions_are_no_organs(data: Path, tmp_path: Path):
    source = file_formats.read(data / "dicom/series/ct_23x38x3_with_seg")
    seg.write_segmentation(marked(source.geometry), LABELS, source, tmp_path / "seg.dcm", algorithm_name="test")
    read_again = seg_reading.read_segmentation(tmp_path / "seg.dcm").labels
    assert read_again[:2] == (LIVER, TUMOUR)
    assert read_again[2] == Label(3, "rest", None, Code("SCT", "85756007", "Tissue"))
    categories = [
        segment.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning
        for segment in pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence
    ]
    assert categories == ["Anatomical Structure", "Morphologically Abnormal Structure", "Tissue"]


def test_a_map_of_true_and_false_is_one_segment(data: Path, tmp_path: Path):
    source = file_formats.read(data / "dicom/series/ct_23x38x3_with_seg")
    truth = marked(source.geometry, 1).astype(bool)
    seg.write_segmentation(truth, (LIVER,), source, tmp_path / "seg.dcm", algorithm_name="test")
    again = seg_reading.read_segmentation(tmp_path / "seg.dcm", on=source.geometry)
    assert_array_equal(again.data[0] > 0, truth)


@pytest.mark.parametrize("name", ["", "left " * 20, "肝臓"])
def test_a_label_without_a_name_or_with_an_unusual_one_is_a_segment(data: Path, tmp_path: Path, name: str):
    source = file_formats.read(data / "dicom/series/ct_23x38x3_with_seg")
    truth = marked(source.geometry, 1)
    seg.write_segmentation(truth, (Label(1, name),), source, tmp_path / "seg.dcm", algorithm_name="test")
    [segment] = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence
    assert segment.SegmentLabel == (name or "1")[:64].strip()


def test_background_is_no_segment(data: Path, tmp_path: Path):
    source = file_formats.read(data / "dicom/series/ct_23x38x3_with_seg")
    labels = (Label(0, "background"), *LABELS)
    seg.write_segmentation(marked(source.geometry), labels, source, tmp_path / "seg.dcm", algorithm_name="test")
    assert [label.value for label in seg_reading.read_segmentation(tmp_path / "seg.dcm").labels] == [1, 2, 3]


def test_values_with_gaps_become_segments_without_gaps(data: Path, tmp_path: Path):
    source = file_formats.read(data / "dicom/series/ct_23x38x3_with_seg")
    truth = np.array([0, 4, 9], np.uint8)[marked(source.geometry, 2)]
    labels = (Label(9, "nine"), Label(4, "four"))
    seg.write_segmentation(truth, labels, source, tmp_path / "seg.dcm", algorithm_name="test")
    again = seg_reading.read_segmentation(tmp_path / "seg.dcm", on=source.geometry)
    assert [(label.value, label.name) for label in again.labels] == [(1, "four"), (2, "nine")]
    assert_array_equal(np.array([0, 4, 9])[again.data[0]], truth)


def test_only_planes_with_a_segment_become_frames(data: Path, tmp_path: Path):
    source = file_formats.read(data / "dicom/series/mr_hippocampus_001")
    truth = np.zeros(source.geometry.shape, np.uint8)
    truth[3:5, 4:6, 20] = 1
    seg.write_segmentation(truth, (LIVER,), source, tmp_path / "seg.dcm", algorithm_name="test")
    assert pydicom.dcmread(tmp_path / "seg.dcm").NumberOfFrames == 1
    assert_array_equal(seg_reading.read_segmentation(tmp_path / "seg.dcm", on=source.geometry).data[0], truth)


def test_an_empty_map_is_written_and_read_as_empty(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    source = file_formats.read(data / "dicom/series/ct_23x38x3_with_seg")
    empty = np.zeros(source.geometry.shape, np.uint8)
    seg.write_segmentation(empty, (LIVER,), source, tmp_path / "seg.dcm", algorithm_name="test")
    assert not caplog.records  # nothing of what the library decides by itself
    assert not seg_reading.read_segmentation(tmp_path / "seg.dcm", on=source.geometry).data.any()


def test_a_radiograph_gets_its_segmentation(data: Path, tmp_path: Path):
    source = file_formats.read(data / "dicom/files/highdicom_dx_image.dcm")
    truth = marked(source.geometry)
    seg.write_segmentation(truth, LABELS, source, tmp_path / "seg.dcm", algorithm_name="test")
    assert_array_equal(seg_reading.read_segmentation(tmp_path / "seg.dcm", on=source.geometry).data[0], truth)


@given(
    st.integers(1, 5),
    st.integers(1, 9),
    st.integers(8, 11),
    st.tuples(*[st.floats(-0.9, 0.9)] * 3),
    st.floats(0.5, 5),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=15)
def test_any_oblique_series_gets_its_voxels_back(
    tmp_path_factory: pytest.TempPathFactory,
    slices: int,
    rows: int,
    columns: int,
    turn: tuple[float, float, float],
    spacing: float,
    seed: int,
):
    folder = tmp_path_factory.mktemp("series")
    cross = np.array([[0, -turn[2], turn[1]], [turn[2], 0, -turn[0]], [-turn[1], turn[0], 0]])
    axes = np.linalg.solve(np.eye(3) + cross, np.eye(3) - cross)  # Cayley: any skew matrix gives a rotation
    for n in range(slices):
        write_slice(
            folder / f"{n}.dcm",
            np.zeros((rows, columns), np.int16),
            position=axes[2] * spacing * n,
            orientation=[*axes[0], *axes[1]],
            spacing=(0.7, 0.9),
            InstanceNumber=n + 1,
            SliceThickness=f"{spacing:.8g}",
        )
    source = file_formats.read(folder)
    truth = np.random.default_rng(seed).integers(0, 4, source.geometry.shape).astype(np.uint8)
    seg.write_segmentation(truth, LABELS, source, folder / "seg.dcm", algorithm_name="test")
    assert_array_equal(seg_reading.read_segmentation(folder / "seg.dcm", on=source.geometry).data[0], truth)


def simple(folder: Path, **tags: Any) -> Image:
    """A series of four slices."""
    folder.mkdir()
    for k in range(4):
        plane = {"position": (0.0, 0.0, 2.0 * k), "InstanceNumber": k + 1, "SOPInstanceUID": f"1.2.3.9.{k + 1}"}
        write_slice(folder / f"{k}.dcm", np.zeros((8, 9), np.uint16), **plane, **tags)
    return file_formats.read(folder)


@pytest.mark.parametrize("thickness", [{}, {"SliceThickness": ""}], ids=["absent", "empty"])
def test_a_series_that_does_not_tell_its_slice_thickness_gets_its_segmentation(
    tmp_path: Path, thickness: dict[str, str]
):
    """Type 2 in PS3.3 C.7.6.2: it may be unknown."""
    source = simple(tmp_path / "series", **thickness)
    truth = marked(source.geometry)
    seg.write_segmentation(truth, LABELS, source, tmp_path / "seg.dcm", algorithm_name="test")
    assert_array_equal(seg_reading.read_segmentation(tmp_path / "seg.dcm", on=source.geometry).data[0], truth)


@pytest.mark.parametrize("shown", [[2], [1, 3], [0, 2, 3]], ids=str)
@pytest.mark.parametrize("stated", [{}, {"SpacingBetweenSlices": 99}, {"SpacingBetweenSlices": -2}], ids=str)
def test_a_segmentation_states_the_step_of_its_source_whichever_slices_it_shows(
    tmp_path: Path, shown: list[int], stated: dict[str, int]
):
    source = simple(tmp_path / "series", SliceThickness=1.5, **stated)
    truth = np.zeros(source.geometry.shape, np.uint8)
    truth[2:5, 3:6, shown] = 1
    seg.write_segmentation(truth, (LIVER,), source, tmp_path / "seg.dcm", algorithm_name="test")
    measures = pydicom.dcmread(tmp_path / "seg.dcm").SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (measures.SpacingBetweenSlices, measures.SliceThickness) == (2.0, 1.5)
    alone = seg_reading.read_segmentation(tmp_path / "seg.dcm")
    assert_allclose(alone.geometry.steps, source.geometry.steps)
    assert alone.data.sum() == truth.sum()  # so the volume in mm is the same


def test_a_segmentation_of_an_enhanced_object_states_its_thickness_and_its_step(tmp_path: Path):
    frames = [{"PlanePositionSequence": sequence(ImagePositionPatient=[0, 0, 4.0 * n])} for n in range(4)]
    source = file_formats.read(write_enhanced(tmp_path / "enhanced.dcm", np.zeros((4, 8, 9), np.int16), frames))
    truth = np.zeros(source.geometry.shape, np.uint8)
    truth[2:5, 3:6, 1] = 1
    seg.write_segmentation(truth, (LIVER,), source, tmp_path / "seg.dcm", algorithm_name="test")
    measures = pydicom.dcmread(tmp_path / "seg.dcm").SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (measures.SpacingBetweenSlices, measures.SliceThickness) == (4.0, 3.0)


def test_a_segmentation_of_several_enhanced_objects_names_each_with_its_frames(tmp_path: Path):
    (tmp_path / "series").mkdir()
    for n in range(3):
        depths = [4.0 * (2 * n + 1), 8.0 * n]  # within an object from top to bottom
        frames = [{"PlanePositionSequence": sequence(ImagePositionPatient=[0, 0, depth])} for depth in depths]
        path = tmp_path / "series" / f"{n}.dcm"
        tags = {"SOPInstanceUID": f"1.2.3.{n}", "InstanceNumber": n + 1}
        write_enhanced(path, np.zeros((2, 8, 9), np.int16), frames, **tags)
    source = file_formats.read(tmp_path / "series")
    truth = np.zeros(source.geometry.shape, np.uint8)
    truth[2:5, 3:6, 1:4] = 1
    seg.write_segmentation(truth, (LIVER,), source, tmp_path / "seg.dcm", algorithm_name="test")
    made = pydicom.dcmread(tmp_path / "seg.dcm")
    [series] = made.ReferencedSeriesSequence
    assert [one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence] == ["1.2.3.0", "1.2.3.1"]
    named = {}
    for groups in made.PerFrameFunctionalGroupsSequence:
        [image] = groups.DerivationImageSequence[0].SourceImageSequence
        depth = float(groups.PlanePositionSequence[0].ImagePositionPatient[2])
        named[depth] = (image.ReferencedSOPInstanceUID, int(image.ReferencedFrameNumber))
    assert named == {4.0: ("1.2.3.0", 1), 8.0: ("1.2.3.1", 2), 12.0: ("1.2.3.1", 1)}


def test_the_patients_name_stands_in_no_warning(tmp_path: Path):
    source = simple(tmp_path / "series", PatientName="Secret")  # one component, which is unusual
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        seg.write_segmentation(marked(source.geometry), LABELS, source, tmp_path / "seg.dcm", algorithm_name="test")
    assert not [one for one in caught if "Secret" in str(one.message)]


PEOPLE = {
    "Japan": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "Japan, half width": (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
    "Korea": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    "China": ("GB18030", "Wang^XiaoDong=王^小东"),
    "Germany": ("ISO_IR 100", "Müller^Jürgen"),
    "Greece": (["ISO 2022 IR 6", "ISO 2022 IR 126"], "Dionysios=Διονυσιος"),
}


@pytest.mark.parametrize("country", PEOPLE)
@pytest.mark.parametrize("name", ["liver", "Leberläsion 肝臓"])
def test_a_patient_keeps_the_name_in_every_character_set_and_a_segment_has_its_own(tmp_path: Path, country, name):
    characters, person = PEOPLE[country]
    tags = {"PatientName": person, "StudyDescription": person[-2:], "AccessionNumber": person[-1]}
    source = simple(tmp_path / "series", SpecificCharacterSet=characters, **tags)
    truth = marked(source.geometry, 1)
    seg.write_segmentation(truth, [Label(1, name)], source, tmp_path / "seg.dcm", algorithm_name="test")
    header = pydicom.dcmread(tmp_path / "seg.dcm")
    assert {keyword: header[keyword].value for keyword in tags} == tags
    assert header.SegmentSequence[0].SegmentLabel == name
    assert header.SpecificCharacterSet == (characters if name.isascii() else "ISO_IR 192")
    again = seg_reading.read_segmentation(tmp_path / "seg.dcm", on=source.geometry)
    assert again.labels[0].name == name
    assert_array_equal(again.data[0], truth)


WRONG_TERMS = {
    "ISO IR 192": ("Müller^Anna", "utf-8", "ISO_IR 192"),
    "ISO-IR-192": ("Müller^Anna", "utf-8", "ISO_IR 192"),
    "iso_ir_192": ("Müller^Anna", "utf-8", "ISO_IR 192"),
    "UTF-8": ("Müller^Anna", "utf-8", "ISO_IR 192"),
    "ISO_IR 149": ("김^희중", "euc_kr", "ISO 2022 IR 149"),
    "ISO 8859-1": ("Müller^Jürgen", "latin-1", "ISO_IR 100"),
    "ISO_IR 144x": ("Smith^Anna", "ascii", None),
    r"ISO_IR 192\ISO 2022 IR 87": ("Müller^Anna", "utf-8", "ISO_IR 192, ISO 2022 IR 87"),
}


@pytest.mark.parametrize("term", WRONG_TERMS)
def test_a_character_set_that_is_none_of_the_standard_gives_results_in_utf_8_with_the_right_name(tmp_path: Path, term):
    person, encoding, near = WRONG_TERMS[term]
    raw = person.encode(encoding)
    raw += b" " * (len(raw) % 2)
    study = {"SpecificCharacterSet": term.split("\\"), "PatientName": "X" * len(raw)}
    source_path = tmp_path / "series"
    simple(
        source_path,
        **study,
        ProcedureCodeSequence=sequence(CodeValue="1", CodingSchemeDesignator="99", CodeMeaning=study["PatientName"]),
    )
    for path in source_path.iterdir():
        path.write_bytes(path.read_bytes().replace(b"X" * len(raw), raw))
    source = file_formats.read(source_path)
    [note] = [note for note in source.notes if "SpecificCharacterSet" in note]
    assert (f"taken for {near}, results are in UTF-8" if near else "may be wrong") in note
    for number, label in enumerate(("liver", "肝臓")):
        path = tmp_path / f"{number}.dcm"
        seg.write_segmentation(marked(source.geometry, 1), [Label(1, label)], source, path, algorithm_name="test")
        made = pydicom.dcmread(path)
        assert made.SpecificCharacterSet == "ISO_IR 192"
        assert (made.PatientName, made.ProcedureCodeSequence[0].CodeMeaning) == (person, person)
        assert made.SegmentSequence[0].SegmentLabel == label


def test_a_text_with_letters_beyond_ascii_stands_in_a_result_and_the_patient_keeps_the_name(tmp_path: Path):
    tags = {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"}
    source = file_formats.read(
        write_slice(tmp_path / "ct.dcm", np.zeros((20, 30), np.int16), SliceThickness="2", **tags)
    )
    truth, path = np.ones(source.geometry.shape, np.uint8), tmp_path / "seg.dcm"
    seg.write_segmentation(truth, [Label(1, "lung")], source, path, algorithm_name="test")
    stamp.apply_stamp(path, Stamp("1.2", "key", 0.0, "Nur für Forschungszwecke"))
    made = pydicom.dcmread(path)
    assert made.SpecificCharacterSet == "ISO_IR 192"
    assert made.SeriesDescription == "Segmentation, Nur für Forschungszwecke"
    assert made.PatientName == tags["PatientName"]


def test_a_patient_of_china_keeps_the_name_in_the_older_characters(tmp_path: Path):
    name = b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab "
    source = simple(tmp_path / "series", SpecificCharacterSet=["", "ISO 2022 IR 58"], PatientName="x" * len(name))
    for path in (tmp_path / "series").iterdir():
        path.write_bytes(path.read_bytes().replace(b"x" * len(name), name))
    seg.write_segmentation(marked(source.geometry), LABELS, source, tmp_path / "seg.dcm", algorithm_name="test")
    assert name.strip() in (tmp_path / "seg.dcm").read_bytes()


# -- what cannot be written -------------------------------------------------------------------------------------------


def test_a_value_without_label_is_refused_and_nothing_is_written(data: Path, tmp_path: Path):
    source = file_formats.read(data / "dicom/series/ct_23x38x3_with_seg")
    with pytest.raises(FormatError, match=r"values \[2, 3\] without a label"):
        seg.write_segmentation(marked(source.geometry), (LIVER,), source, tmp_path / "seg.dcm", algorithm_name="test")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("value", "message"), [(-1, r"values \[-1\] without"), (0.5, "label map of float64")])
def test_what_is_no_label_is_refused(data: Path, tmp_path: Path, value: float, message: str):
    source = file_formats.read(data / "dicom/series/ct_23x38x3_with_seg")
    odd = np.full(source.geometry.shape, value)
    with pytest.raises(FormatError, match=message):
        seg.write_segmentation(
            odd if value == 0.5 else odd.astype(int), LABELS, source, tmp_path / "a.dcm", algorithm_name="x"
        )


def test_an_existing_file_is_not_replaced(data: Path, tmp_path: Path):
    source = file_formats.read(data / "dicom/series/ct_23x38x3_with_seg")
    (tmp_path / "seg.dcm").write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists already"):
        seg.write_segmentation(marked(source.geometry), LABELS, source, tmp_path / "seg.dcm", algorithm_name="test")
    assert (tmp_path / "seg.dcm").read_bytes() == b"mine"


def test_a_source_that_is_no_dicom_is_refused(tmp_path: Path):
    source = Image(np.zeros((1, 3, 4, 5)), Geometry((3, 4, 5), np.eye(4)), source=Source("nifti", ("a.nii",)))
    with pytest.raises(FormatError, match="needs a DICOM series"):
        seg.write_segmentation(marked(source.geometry), LABELS, source, tmp_path / "seg.dcm", algorithm_name="test")


def test_a_series_without_frame_of_reference_is_refused(data: Path, tmp_path: Path):
    source = file_formats.read(data / "dicom/series/mr_hitachi_oblique")
    with pytest.raises(FormatError, match="no FrameOfReferenceUID"):
        seg.write_segmentation(marked(source.geometry), LABELS, source, tmp_path / "seg.dcm", algorithm_name="test")


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"])
def test_an_image_that_a_segmentation_cannot_name_is_refused(tmp_path: Path, keyword: str):
    source = simple(tmp_path / "series")
    for path in (tmp_path / "series").iterdir():
        dataset = pydicom.dcmread(path)
        dataset[keyword].value = ""
        dataset.save_as(path)
    with pytest.raises(FormatError, match=rf"0.dcm: {keyword} \(00.*is missing, by which a result names its image"):
        seg.write_segmentation(marked(source.geometry), LABELS, source, tmp_path / "seg.dcm", algorithm_name="test")
    assert not (tmp_path / "seg.dcm").exists()


def test_a_picture_of_less_than_a_byte_is_refused(tmp_path: Path):
    source = file_formats.read(write_slice(tmp_path / "tiny.dcm", np.zeros((2, 3), np.int16), SliceThickness="1"))
    with pytest.raises(FormatError, match="fewer than 8 pixels"):
        seg.write_segmentation(marked(source.geometry), LABELS, source, tmp_path / "seg.dcm", algorithm_name="test")


def test_a_map_on_a_turned_grid_is_refused(data: Path, tmp_path: Path):
    source = file_formats.read(data / "dicom/series/ct_23x38x3_with_seg")
    turned = Image(source.data[:, ::-1], source.geometry.permute((0, 1, 2), (True, False, False)), source=source.source)
    with pytest.raises(GeometryError, match="another grid than its image"):
        seg.write_segmentation(marked(turned.geometry), LABELS, turned, tmp_path / "seg.dcm", algorithm_name="test")


def test_a_seg_of_a_few_slices_is_viewed_on_its_whole_series(data, tmp_path):
    """Frames without a voxel are left out of the file; the page shows the others where they lie."""
    folder = data / "dicom" / "series" / "mr_hippocampus_001"
    image = hilum.read(folder)
    mask = np.zeros(image.geometry.shape, np.uint8)
    mask[5:20, 10:30, 12:14] = 1
    result_images.write_label_map(mask, [LIVER], image, tmp_path / "own.dcm", algorithm="a test")
    assert hilum.read(tmp_path / "own.dcm").geometry.shape != image.geometry.shape
    assert dicom_masks.is_contoured_object(tmp_path / "own.dcm")
    overlay = dicom_masks.read_contoured_object(tmp_path / "own.dcm", image.geometry)
    assert_array_equal(overlay.data[0], mask)
    assert "Liver" in hilum.view(folder, tmp_path / "own.dcm").html


def test_contours_are_viewed_on_their_series(data, tmp_path):
    folder = data / "dicom" / "series" / "mr_hippocampus_001"
    image = hilum.read(folder)
    mask = np.zeros(image.geometry.shape, np.uint8)
    mask[5:20, 10:30, 12:14] = 1
    result = Result(image, "a test", [("", mask, [LIVER])])
    [contours] = ANSWERS["rtstruct"].write(result, tmp_path / "case")
    assert names_on_the_page(folder, contours) == ["Liver"]


def test_contours_of_another_program_are_viewed_on_their_series(corpus):
    contours = corpus / "dicom" / "files" / "rtutils_rtstruct_phantom.dcm"
    assert names_on_the_page(corpus / "dicom" / "series" / "ct_phantom_with_rtstruct", contours) == ["ROI-1"]


def names_on_the_page(folder: Path, contours: Path) -> list[str]:
    """The regions of a structure set that the page of a series shows."""
    image = hilum.read(folder)
    files = [Path(path) for path in image.source.paths]
    assert dicom_masks.is_contoured_object(contours)
    assert not dicom_masks.is_contoured_object(files[0])
    labels = dicom_masks.read_contoured_object(contours, image.geometry, files).labels
    page = hilum.view(folder, contours).html
    return [label.name for label in labels if label.name in page]
