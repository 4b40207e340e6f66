"""Files of transforms, judged by SimpleITK and nibabel on oblique, anisotropic, left-handed grids."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.testing import assert_allclose

import hilum
from hilum.errors import FormatError, UsageError
from hilum.files import transform_file
from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.transforms import spatial_transforms
from hilum.values import Affine, Displacement, Geometry, Image, SpatialTransform
from simulated_pairs import oblique, smooth_field, turn_and_shift

SIDES = np.array([-1.0, -1.0, 1.0])
GRIDS = {"left-handed": oblique(), "right-handed": oblique(left_handed=False)}


def transform_on(grid: Geometry) -> SpatialTransform:
    return SpatialTransform((smooth_field(grid, 3.0), turn_and_shift((8, -5, 12), (4, -3, 2), grid)), grid, grid)


def points_of(grid: Geometry) -> np.ndarray:
    """Places between voxels, and some outside of the grid."""
    index = np.random.default_rng(0).uniform(-3, np.array(grid.shape) + 2, size=(60, grid.ndim))
    return grid.to_world(index)


def by_itk(path, points: np.ndarray) -> np.ndarray:
    read = SimpleITK.ReadTransform(str(path))
    return np.array([read.TransformPoint((one * SIDES).tolist()) for one in points]) * SIDES


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("suffix", [".h5", ".tfm"])
def test_itk_moves_points_as_we_do_and_the_file_is_read_as_it_was_written(grid, suffix, tmp_path):
    transform, points = transform_on(grid), points_of(grid)
    path = tmp_path / f"t{suffix}"
    hilum.write_transform(transform, path)
    expected = spatial_transforms.carry_points(transform, points)
    assert_allclose(by_itk(path, points), expected, atol=1e-3)
    assert_allclose(spatial_transforms.carry_points(hilum.read_transform(path), points), expected, atol=1e-3)


def test_every_linear_transform_of_itk_is_read(tmp_path):
    euler = SimpleITK.Euler3DTransform((10.0, -20.0, 5.0), 0.1, -0.2, 0.3, (1.0, 2.0, 3.0))
    both = SimpleITK.CompositeTransform([euler, SimpleITK.TranslationTransform(3, (5.0, 0.0, -2.0))])
    SimpleITK.WriteTransform(both, str(tmp_path / "t.tfm"))
    points = points_of(GRIDS["left-handed"])
    assert_allclose(
        spatial_transforms.carry_points(hilum.read_transform(tmp_path / "t.tfm"), points),
        by_itk(tmp_path / "t.tfm", points),
    )


def test_a_picture_has_its_column_as_itks_x(tmp_path):
    grid = Geometry.of_pixels((12, 16))
    transform = SpatialTransform((smooth_field(grid, 2.0), Affine(np.array([[1, 0.1, 3], [0, 1.2, -2], [0, 0, 1.0]]))))
    hilum.write_transform(transform, tmp_path / "t.h5")
    read = SimpleITK.ReadTransform(str(tmp_path / "t.h5"))
    point = np.array([4.3, 9.1])  # (row, column)
    assert_allclose(
        read.TransformPoint(point[::-1].tolist())[::-1], spatial_transforms.carry_points(transform, point), atol=1e-5
    )
    assert_allclose(
        spatial_transforms.carry_points(hilum.read_transform(tmp_path / "t.h5"), point),
        spatial_transforms.carry_points(transform, point),
    )


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_a_nifti_field_has_five_axes_lps_components_and_intent_1007_as_itk_reads_it(grid, tmp_path):
    field = SpatialTransform((spatial_transforms.to_single_field(transform_on(grid), grid),))
    hilum.write_transform(field, tmp_path / "f.nii.gz")
    header = nibabel.load(tmp_path / "f.nii.gz").header
    assert (header["dim"][0], int(header["intent_code"])) == (5, 1007)
    vectors = SimpleITK.Cast(SimpleITK.ReadImage(str(tmp_path / "f.nii.gz")), SimpleITK.sitkVectorFloat64)
    theirs, points = SimpleITK.DisplacementFieldTransform(vectors), points_of(grid)
    expected = spatial_transforms.carry_points(field, points)
    moved = np.array([theirs.TransformPoint((one * SIDES).tolist()) for one in points]) * SIDES
    assert_allclose(moved, expected, atol=1e-3)
    assert_allclose(
        spatial_transforms.carry_points(hilum.read_transform(tmp_path / "f.nii.gz"), points), expected, atol=1e-3
    )


def nifti(path, intent: int, axes: int) -> None:
    vectors = np.zeros((4, 5, 6, 1, 3)[: axes if axes == 5 else 3] + ((3,) if axes == 4 else ()), np.float32)
    vectors[..., 0] = 2.0
    made = nibabel.Nifti1Image(vectors, np.eye(4))
    made.header.set_intent(intent)
    nibabel.save(made, path)


def test_components_of_intent_1006_point_along_ras(tmp_path):
    nifti(tmp_path / "f.nii", 1006, 5)
    assert_allclose(spatial_transforms.carry_points(hilum.read_transform(tmp_path / "f.nii"), [1.0, 1, 1]), [3, 1, 1])
    nifti(tmp_path / "g.nii", 1007, 5)
    assert_allclose(spatial_transforms.carry_points(hilum.read_transform(tmp_path / "g.nii"), [1.0, 1, 1]), [-1, 1, 1])


@pytest.mark.parametrize(("intent", "axes", "reason"), [(1007, 4, "five axes"), (0, 5, "intent 0 does not say")])
def test_a_field_whose_components_are_not_known_is_refused_with_the_reason(intent, axes, reason, tmp_path):
    nifti(tmp_path / "f.nii", intent, axes)
    with pytest.raises(FormatError, match=reason):
        hilum.read_transform(tmp_path / "f.nii")


def test_a_transform_of_unknown_kind_is_refused(tmp_path):
    spline = SimpleITK.BSplineTransformInitializer(SimpleITK.Image(8, 8, 8, SimpleITK.sitkFloat32), [2, 2, 2])
    SimpleITK.WriteTransform(spline, str(tmp_path / "b.tfm"))
    (tmp_path / "x.h5").write_bytes(b"nothing")
    with pytest.raises(FormatError, match="neither linear nor a field"):
        hilum.read_transform(tmp_path / "b.tfm")
    with pytest.raises(FormatError, match=r"x\.h5: is no transform that ITK can read"):
        hilum.read_transform(tmp_path / "x.h5")
    with pytest.raises(UsageError, match="no such file"):
        hilum.read_transform(tmp_path / "absent.h5")


def test_a_field_on_a_sheared_grid_is_refused_and_nothing_is_written(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.4
    sheared = SpatialTransform((Displacement(np.zeros((3, 4, 4, 4)), Geometry((4, 4, 4), affine)),))
    with pytest.raises(FormatError, match="right angles"):
        hilum.write_transform(sheared, tmp_path / "t.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_dicom_registration_of_images_that_are_no_dicom_volumes_is_refused_and_nothing_is_written(tmp_path):
    picture = Image(np.zeros((1, 8, 9), np.float32), Geometry.of_pixels((8, 9)))
    transform = SpatialTransform((Affine(np.eye(3)),))
    with pytest.raises(FormatError, match=r"connects two DICOM images.*Write \.h5"):
        hilum.write_transform(transform, tmp_path / "t.dcm", fixed=picture, moving=picture)
    assert list(tmp_path.iterdir()) == []


def series(folder, patient: str, grid: Geometry) -> Image:
    values = np.arange(np.prod(grid.shape), dtype=np.int16).reshape(1, *grid.shape)
    series_writing.write_series(
        Image(values, grid, modality="MR"), SeriesNames(patient, f"study of {patient}", "t1"), folder
    )
    return hilum.read(folder)


@pytest.mark.parametrize("kind", ["linear", "deformable"])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_a_dicom_registration_is_read_as_it_was_written(kind, grid, tmp_path):
    fixed, moving = series(tmp_path / "a", "p1", grid), series(tmp_path / "b", "p1 again", grid)
    whole = transform_on(grid)
    transform = whole if kind == "deformable" else SpatialTransform(whole.parts[1:])
    hilum.write_transform(transform, tmp_path / "t.dcm", fixed=fixed, moving=moving)
    points = points_of(grid)
    read = hilum.read_transform(tmp_path / "t.dcm")
    assert_allclose(
        spatial_transforms.carry_points(read, points), spatial_transforms.carry_points(transform, points), atol=1e-2
    )


@pytest.mark.parametrize("angle", [9.65e-5, -8.57532913864e-5, 3.5e-5, 1e-9, -1.23456789012e-3])
def test_a_small_angle_keeps_its_exponent_in_a_dicom_registration(angle, tmp_path):
    fixed, moving = series(tmp_path / "a", "p1", oblique()), series(tmp_path / "b", "p1 again", oblique())
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = -123.45678901234, 1e-7, 1 / 3
    hilum.write_transform(SpatialTransform((Affine(matrix),)), tmp_path / "t.dcm", fixed=fixed, moving=moving)
    read = hilum.read_transform(tmp_path / "t.dcm")
    assert_allclose(read.matrix, matrix, rtol=1e-8, atol=1e-12)
    written = pydicom.dcmread(tmp_path / "t.dcm").RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence
    assert max(len(str(one)) for one in written[0].FrameOfReferenceTransformationMatrix) <= 16


@pytest.mark.parametrize("kind", ["linear", "deformable"])
def test_dciodvfy_finds_no_error_in_a_registration(kind, tmp_path):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian: dicom3tools) is not installed")
    grid = GRIDS["left-handed"]
    fixed, moving = series(tmp_path / "a", "p1", grid), series(tmp_path / "b", "p1 again", grid)
    whole = transform_on(grid)
    transform = whole if kind == "deformable" else SpatialTransform(whole.parts[1:])
    hilum.write_transform(transform, tmp_path / "t.dcm", fixed=fixed, moving=moving)
    told = subprocess.run(["dciodvfy", "-new", tmp_path / "t.dcm"], check=False, capture_output=True, text=True)
    assert [line for line in (told.stdout + told.stderr).splitlines() if line.startswith("Error")] == []


TURN, SHIFT = turn_and_shift((8, -5, 12), (4, -3, 2), oblique()).matrix, np.eye(4)
SHIFT = SHIFT + np.pad([[3.0], [-2.0], [5.0]], ((0, 1), (3, 0)))


def in_frame(frame: str | None) -> Image:
    return Image(np.zeros((1, 2, 2, 2), np.float32), Geometry((2, 2, 2), np.eye(4), frame))


def registering(path, registered: str, matrices: dict[str, np.ndarray]):
    """A registration of frames of reference by their matrices to the registered one, in RAS+."""
    dataset, lps = pydicom.Dataset(), np.diag([-1.0, -1, 1, 1])
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.66.1", "1.2.9"
    dataset.FrameOfReferenceUID, dataset.RegistrationSequence = registered, []
    for frame, matrix in matrices.items():
        item, registration, own = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        own.FrameOfReferenceTransformationMatrix = [f"{x:.9g}" for x in (lps @ matrix @ lps).ravel()]
        registration.MatrixSequence, item.FrameOfReferenceUID = [own], frame
        item.MatrixRegistrationSequence = [registration]
        dataset.RegistrationSequence.append(item)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    ("registered", "matrices", "fixed_to_moving"),
    [
        ("1.2.1", {"1.2.1": np.eye(4), "1.2.2": TURN}, np.linalg.inv(TURN)),
        ("1.2.1", {"1.2.2": TURN}, np.linalg.inv(TURN)),
        ("1.2.2", {"1.2.1": TURN, "1.2.2": np.eye(4)}, TURN),  # the object moves what is the fixed image here
        ("1.2.3", {"1.2.1": SHIFT, "1.2.2": TURN}, np.linalg.inv(TURN) @ SHIFT),
    ],
    ids=["its own way", "the fixed one unnamed", "the other way", "to a third frame"],
)
@pytest.mark.parametrize("unknown", [None, 0, 1])
def test_a_dicom_registration_leads_from_fixed_to_moving_by_their_frames_of_reference(
    registered, matrices, fixed_to_moving, unknown, tmp_path
):
    path = registering(tmp_path / "t.dcm", registered, matrices)
    images = [in_frame(None if n == unknown else f"1.2.{n + 1}") for n in range(2)]
    if unknown is not None and registered == "1.2.3":  # the image may lie in either of two others
        with pytest.raises(FormatError, match="registers 3 frames of reference, and one of the images states none"):
            transform_file.transforms_to_images(path, *images)
        return
    ends = transform_file.transforms_to_images(path, *images)
    assert ends is not None
    assert_allclose(
        spatial_transforms.compose_transforms(spatial_transforms.invert_transform(ends[0]), ends[1]).matrix,
        fixed_to_moving,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (("1.2.1", "1.2.8"), "none of them is that of the image"),
        (("1.2.8", "1.2.9"), "none of them is that of the image"),
        (("1.2.1", "1.2.1"), "both images lie in the same one"),
    ],
)
def test_a_dicom_registration_of_other_images_is_refused(frames, reason, tmp_path):
    path = registering(tmp_path / "t.dcm", "1.2.1", {"1.2.1": np.eye(4), "1.2.2": TURN})
    with pytest.raises(FormatError, match=reason):
        transform_file.transforms_to_images(path, *map(in_frame, frames))


@pytest.mark.parametrize("kind", ["linear", "deformable"])
def test_images_of_one_frame_of_reference_are_told_apart_by_the_instances_that_a_registration_names(kind, tmp_path):
    grid = replace(GRIDS["left-handed"], frame_of_reference="1.2.1")
    fixed, moving = series(tmp_path / "a", "p1", grid), series(tmp_path / "b", "p1 again", grid)
    whole = transform_on(grid)
    transform = whole if kind == "deformable" else SpatialTransform(whole.parts[1:])
    hilum.write_transform(transform, tmp_path / "t.dcm", fixed=fixed, moving=moving)
    there, back = (
        transform_file.transforms_to_images(tmp_path / "t.dcm", *pair) for pair in ((fixed, moving), (moving, fixed))
    )
    assert there is not None and back is not None
    assert [len(one.parts) for one in there] == [1, len(transform.parts)]
    assert_allclose(there[0].matrix, np.eye(4))
    points = points_of(grid)
    for one, other in zip(there, back[::-1], strict=True):
        assert_allclose(spatial_transforms.carry_points(one, points), spatial_transforms.carry_points(other, points))
    other = series(tmp_path / "c", "p2", grid)
    with pytest.raises(FormatError, match="none of them is that of"):
        transform_file.transforms_to_images(tmp_path / "t.dcm", fixed, other)


def test_a_matrix_of_ants_is_read_as_itk_reads_it(tmp_path):
    turned = SimpleITK.Euler3DTransform((4.0, 5.0, 6.0), 0.1, 0.2, -0.3, (7.0, 8.0, 9.0))
    affine = SimpleITK.AffineTransform(3)
    affine.SetMatrix(turned.GetMatrix())
    affine.SetTranslation(turned.GetTranslation())
    affine.SetCenter(turned.GetCenter())
    SimpleITK.WriteTransform(affine, str(tmp_path / "0GenericAffine.mat"))
    points = np.array([[1.0, 2, 3], [-20, 30, 5]])
    expected = [affine.TransformPoint(one) for one in (points * [-1, -1, 1]).tolist()] * np.array([-1, -1, 1])
    read = transform_file.read_transform(tmp_path / "0GenericAffine.mat")
    assert_allclose(spatial_transforms.carry_points(read, points), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("flirt.mat", "1 0 0 1.5\n0 1 0 -2\n0 0 1 3e-1\n0 0 0 1\n", "FSL.*c3d_affine_tool"),
        ("t.xfm", "MNI Transform File\nTransform_Type = Linear;\n", "MINC.*itk_convert_xfm"),
        ("t.lta", "# transform file x\ntype      = 1\nnxforms   = 1\n", "FreeSurfer.*lta_convert"),
        ("TransformParameters.0.txt", '(Transform "EulerTransform")\n', "elastix.*transformix"),
        ("x.tfm", "nothing", "no transform that ITK can read"),
    ],
)
def test_a_transform_of_another_program_is_named_with_the_way_out_in_our_words(tmp_path, name, text, what):
    (tmp_path / name).write_text(text)
    with pytest.raises(FormatError, match=what) as refused:
        transform_file.read_transform(tmp_path / name)
    assert "0x" not in str(refused.value) and "ERROR" not in str(refused.value)
