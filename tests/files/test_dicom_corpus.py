"""Every file and series of the real data: read rightly, or refused with file, fault and remedy."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import real_data
from hilum.errors import FormatError, GeometryError
from hilum.files import file_formats
from hilum.values import Geometry, Image

# (channels[, frames], *spatial) of each single object that is read.
READ = {
    "files/cs_ect_jpeg_lossless_fragmented.dcm": (1, 512, 512, 2),
    "files/cs_ect_jpegls_fragmented.dcm": (1, 512, 512, 2),
    "files/dcm4che_ct_jpeg_lossless.dcm": (1, 512, 512, 1),
    "files/dcm4che_nm_13frames_heart.dcm": (1, 13, 64, 64),
    "files/dcm4che_us_palette_rle_10frames.dcm": (3, 10, 430, 600),
    "files/dcm4che_us_ybr_full_rle.dcm": (3, 480, 640),
    "files/dcmjs_op.dcm": (1, 1536, 1536),
    "files/dcmqi_legacy_enhanced_ct_23x38x3.dcm": (1, 23, 38, 3),
    "files/dcmqi_seg_23x38x3.dcm": (1, 23, 38, 3),
    "files/dcmqi_seg_liver.dcm": (1, 512, 512, 3),
    "files/dcmqi_seg_partial_overlaps.dcm": (5, 512, 512, 3),
    "files/dcmqi_sr_example_seg.dcm": (1, 128, 128, 13),
    "files/fodicom_cr_mono1_modality_lut.dcm": (1, 1576, 1976),
    "files/fodicom_ct_rle_fragments.dcm": (1, 512, 512, 1),
    "files/fodicom_enh_mr_bruker_signed.dcm": (1, 256, 128, 4),
    "files/fodicom_jpeg_baseline_ybr.dcm": (3, 434, 636),
    "files/fodicom_mg_overlay_out_of_bounds.dcm": (1, 788, 1318),
    "files/fodicom_mr_jpeg_lossless_162.dcm": (1, 162, 162, 1),
    "files/fodicom_palette_16bit_lut.dcm": (3, 640, 400, 1),
    "files/fodicom_pt_jpeg_lossless.dcm": (1, 128, 128, 1),
    "files/fodicom_us_jpegls.dcm": (1, 768, 1024),
    "files/fodicom_xc_jpeg_with_icon.dcm": (3, 600, 600),
    "files/highdicom_dx_image.dcm": (1, 169, 211),
    "files/highdicom_seg_image_cr_binary.dcm": (1, 16, 16),
    "files/highdicom_seg_image_ct_binary.dcm": (1, 16, 16, 3),
    "files/highdicom_seg_image_ct_binary_overlap.dcm": (2, 16, 16, 165),
    "files/highdicom_seg_image_ct_true_fractional.dcm": (1, 16, 16, 3),
    "files/nibabel_slicethickness_empty_string.dcm": (1, 384, 384, 1),
    "files/pydicom_CT_small.dcm": (1, 128, 128, 1),
    "files/pydicom_ExplVR_BigEnd.dcm": (3, 60, 80),
    "files/pydicom_JPEG-lossy.dcm": (1, 1024, 256),
    "files/pydicom_JPEGLSNearLossless_08.dcm": (1, 45, 10),
    "files/pydicom_MR_small.dcm": (1, 64, 64, 1),
    "files/pydicom_MR_small_RLE.dcm": (1, 64, 64, 1),
    "files/pydicom_MR_small_jp2klossless.dcm": (1, 64, 64, 1),
    "files/pydicom_MR_small_padded.dcm": (1, 64, 64, 1),
    "files/pydicom_SC_jpeg_no_color_transform.dcm": (3, 256, 256),
    "files/pydicom_SC_rgb_dcmtk__eb_cr.dcm": (3, 100, 100),
    "files/pydicom_SC_rgb_dcmtk__eb_cy_np.dcm": (3, 100, 100),
    "files/pydicom_SC_rgb_dcmtk__eb_cy_s4.dcm": (3, 100, 100),
    "files/pydicom_SC_rgb_gdcm_KY.dcm": (3, 100, 100),
    "files/pydicom_SC_rgb_jls_lossy_line.dcm": (3, 100, 100),
    "files/pydicom_SC_rgb_jpeg.dcm": (3, 256, 256),
    "files/pydicom_SC_rgb_jpeg_gdcm.dcm": (3, 100, 100),
    "files/pydicom_SC_rgb_rle.dcm": (3, 100, 100),
    "files/pydicom_SC_rgb_rle_16bit_2frame.dcm": (3, 2, 100, 100),
    "files/pydicom_SC_rgb_rle_32bit_2frame.dcm": (3, 2, 100, 100),
    "files/pydicom_SC_rgb_small_odd.dcm": (3, 3, 3),
    "files/pydicom_SC_rgb_small_odd_jpeg.dcm": (3, 3, 3),
    "files/pydicom_SC_ybr_full_422_uncompressed.dcm": (3, 100, 100),
    "files/pydicom_charset_chrGreek.dcm": (1, 32, 32),
    "files/pydicom_charset_chrX2.dcm": (1, 32, 32),
    "files/pydicom_examples_jpeg2k.dcm": (3, 480, 640),
    "files/pydicom_examples_overlay.dcm": (1, 484, 300, 1),
    "files/pydicom_examples_rgb_color.dcm": (3, 240, 320),
    "files/pydicom_examples_ybr_color.dcm": (3, 30, 240, 320),
    "files/pydicom_image_dfl.dcm": (1, 512, 512),
    "files/pydicom_liver_1frame.dcm": (1, 512, 512, 1),
    "files/pydicom_rtdose.dcm": (1, 10, 10, 15),
    "files/pydicom_rtdose_1frame.dcm": (1, 10, 10, 1),
    "files/pydicomdata_HTJ2K_08_RGB.dcm": (3, 480, 640),
    "files/pydicomdata_JLSL_08_07_0_1F.dcm": (1, 128, 128),
    "files/pydicomdata_JPGLosslessP14SV1_1s_1f_8b.dcm": (1, 768, 1024),
    "files/pydicomdata_MR2_J2KI.dcm": (1, 1024, 1024, 1),
    "files/pydicomdata_OBXXXX1A_rle.dcm": (3, 600, 800),
    "files/pydicomdata_US1_J2KI.dcm": (3, 480, 640),
    "files/pydicomdata_color-pl.dcm": (3, 120, 256),
    "files/pydicomdata_eCT_Supplemental.dcm": (1, 512, 512, 2),
    "files/pydicomdata_emri_small.dcm": (1, 10, 64, 64),
    "files/pydicomdata_emri_small_jpeg_2k_lossless.dcm": (1, 10, 64, 64),
    "files/pydicomdata_explicit_VR-UN.dcm": (1, 512, 512, 1),
    "files/highdicom_sm_image.dcm": (3, 50, 50),
    "files/highdicom_sm_image_jpegls.dcm": (3, 50, 50),
    "files/pydicomdata_liver_deflate.dcm": (1, 512, 512, 3),
    "files/pydicomdata_liver_j2k.dcm": (1, 512, 512, 3),
    "files/pydicomdata_liver_nonbyte_aligned_rle.dcm": (1, 510, 510, 3),
    "files/pydicomdata_parametric_map_float.dcm": (1, 128, 128, 1),
    "files/tcia_mr_prostate.dcm": (1, 176, 176, 1),
    "files/tcia_pet_1.dcm": (1, 168, 168, 1),
    "files/wg04_CT2_JLSL.dcm": (1, 512, 512, 1),
    "files/wg04_CT2_RLE.dcm": (1, 512, 512, 1),
    "files/wg04_MR3_J2KR.dcm": (1, 512, 512, 1),
    "files/wg04_MR4_JLSL.dcm": (1, 512, 512, 1),
    "files/wg04_MR4_JPLL.dcm": (1, 512, 512, 1),
    "files/wg04_NM1_RLE.dcm": (1, 1024, 256),
    "files/wg04_RG2_JPLY.dcm": (1, 2140, 1760),
    "files/wg04_RG3_JLSN.dcm": (1, 1760, 1760),
    "files/wg04_VL1_J2KI.dcm": (3, 486, 756),
    "files/wg04_XA1_JLSN.dcm": (1, 1024, 1024),
    "broken/pydicom_J2K_pixelrep_mismatch.dcm": (1, 512, 512, 1),
    "broken/pydicomdata_OT-PAL-8-face_no_preamble.dcm": (3, 480, 640),
}

NOTHING = "states no SOPClassUID (0008,0016) and holds no pixels"

# What is said of each image that is refused.
REFUSED = {
    "files/pydicom_charset_chrSQEncoding.dcm": NOTHING,
    "files/pydicom_priv_SQ.dcm": NOTHING,
    "broken/pydicom_empty_charset.dcm": NOTHING,
    "files/highdicom_seg_image_sm_control_labelmap.dcm": "segments tiles of a slide",
    "files/highdicom_seg_image_sm_dots_tiled_full.dcm": "segments tiles of a slide",
    "files/nibabel_0.dcm": "is a mosaic of 48 tiles that do not fit 256 x 256 voxels",
    "broken/dcm4che_3gb_truncated.dcm": "Rows (0028,0010): 2 values where 1 belong",
    "broken/dwv_no_rows.dcm": "Rows (0028,0010) is missing, so there is no image",
    "broken/fodicom_unreadable_GH340.dcm": "BitsStored 12, BitsAllocated 12 and HighBit 11 do not fit together",
    "broken/pydicom_DICOMDIR_nooffset.dcm": "none of the files that it lists exists",
    "broken/pydicom_MR_truncated.dcm": "the pixel data are cut short: 8130 bytes where 8192 belong",
    "broken/pydicom_badVR.dcm": "NumberOfFrames (0028,0008): the value is not a number",
    "broken/pydicom_meta_missing_tsyntax.dcm": "Rows (0028,0010) is missing, so there is no image",
    "broken/pydicom_no_meta.dcm": "is not a DICOM file",
    "broken/pydicomdata_emri_j2k_too_short.dcm": "the compressed pixels are damaged or cut short",
}

# What each object is that holds no image.
NO_IMAGE = {
    "files/dcmqi_sr_example_sr.dcm": "Comprehensive SR Storage",
    "files/dwv_dwv034_sr_ruler.dcm": "Basic Text SR Storage",
    "files/dwv_tid1500_0_sr_roi.dcm": "Comprehensive 3D SR Storage",
    "files/highdicom_sm_annotations.dcm": "Microscopy Bulk Simple Annotations Storage",
    "files/highdicom_sr_document.dcm": "Comprehensive 3D SR Storage",
    "files/nibabel_csa_slice_norm.dcm": "MR Image Storage",
    "files/pydicom_charset_chrJapMulti.dcm": "Computed Radiography Image Storage",
    "files/pydicom_palette_hotiron.dcm": "Color Palette Storage",
    "files/pydicom_reportsi.dcm": "Basic Text SR Storage",
    "files/pydicom_rtplan.dcm": "RT Plan Storage",
    "files/pydicom_test-SR.dcm": "Comprehensive SR Storage",
    "files/rtutils_rtstruct_phantom.dcm": "RT Structure Set Storage",
    "broken/fodicom_mr_no_pixels.dcm": "MR Image Storage",
    "broken/fodicom_private_class_tiny.dcm": "1.3.46.670589.5.0.1.1",
    "broken/pydicom_ExplVR_LitEndNoMeta.dcm": "RT Ion Plan Storage",
    "broken/pydicom_rtstruct_no_preamble.dcm": "RT Structure Set Storage",
    "broken/rtutils_rtstruct_invalid_reference.dcm": "RT Structure Set Storage",
}

# Series that are refused as a whole, and the words that name the fault.
REFUSED_SERIES = {
    "ct_ge_tilt_plus18.5_variable_spacing": "gaps of 1.081, 4.002, 6.999 mm",
    "ct_siemens_tilt15.5_missing_slice": "1 slice is missing, the first between IM-0001-0003.dcm and IM-0001-0005.dcm",
    "mr_philips_mixed_orientation": "2 orientations in one series (ImageOrientationPatient (0020,0037))",
}

# mm by which the reference may be off where it is the reference that is rounded: dcm2niix steps by the stated
# spacing between slices (3.313), the positions say 3.3125.
ROUNDED = {"enh_mr_philips_fmri": 4e-3}

SERIES = (
    "ct_23x38x3_with_seg",
    "ct_3slices_with_seg",
    "ct_phantom_with_rtstruct",
    "enh_mr_philips_fieldmap",
    "enh_mr_philips_fmri",
    "enh_mr_siemens_xa10",
    "mr_compressed_jpeg_lossless",
    "mr_compressed_rle",
    "mr_ge_dti",
    "mr_ge_epi_interleaved_3vol",
    "mr_genesis_coronal_prone",
    "mr_hippocampus_001",
    "mr_hippocampus_003",
    "mr_hippocrop_study1",
    "mr_hippocrop_study3",
    "mr_hitachi_oblique",
    "mr_philips_dti",
    "mr_philips_oblique",
    "mr_pmod_non_isotropic_rescale",
    "mr_siemens_mosaic",
    "mr_siemens_sagittal_decubitus_left",
    "sc_rgb_volume_j2k",
)
# For these dcm2niix' geometry was kept, and its volume was not.
WITHOUT_VOLUME = (
    "ct_3slices_with_seg",
    "enh_mr_philips_fmri",
    "mr_compressed_jpeg_lossless",
    "mr_genesis_coronal_prone",
    "mr_philips_dti",
    "mr_philips_oblique",
)
# The reference of this one is in Philips' own unit: the same picture up to a factor.
OTHER_UNIT = ("enh_mr_philips_fieldmap",)


@pytest.mark.parametrize("name", real_data.parameters("dicom", READ))
def test_an_object_that_can_be_read_is_read_whole_and_without_a_warning(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = file_formats.read(real_data.find(f"dicom/{name}"))
        voxels = image.data
    assert voxels.shape == image.shape == READ[name]
    assert voxels.dtype == image.dtype
    assert image.source is not None and image.source.paths


@pytest.mark.parametrize("name", real_data.parameters("dicom", [*REFUSED, *NO_IMAGE]))
def test_an_object_that_cannot_be_read_is_refused_with_file_fault_and_remedy(name: str) -> None:
    path = real_data.find(f"dicom/{name}")
    with warnings.catch_warnings(), pytest.raises((FormatError, GeometryError)) as refusal:
        warnings.simplefilter("error")
        file_formats.read(path)
    message = REFUSED.get(name) or f"holds no image: {NO_IMAGE[name]} without PixelData (7FE0,0010)"
    assert refusal.value.problem == message
    assert refusal.value.where == str(path)
    assert refusal.value.remedy and "cannot be read as dicom" not in refusal.value.problem


def test_the_tables_name_every_object_that_is_shipped() -> None:
    objects, series = objects_and_series(real_data.SHIPPED)
    assert objects and objects <= set(READ) | set(REFUSED) | set(NO_IMAGE)
    assert series and series <= {*SERIES, "dicomdir_fileset"}


def test_the_tables_name_the_objects_that_are_shipped_and_those_of_the_corpus_and_no_others(corpus: Path) -> None:
    objects, series = objects_and_series(real_data.SHIPPED)
    more_objects, more_series = objects_and_series(corpus)
    assert objects | more_objects == set(READ) | set(REFUSED) | set(NO_IMAGE)
    others = {"ct_philips_tilt_minus18.5", "dicomdir_fileset"}
    assert series | more_series == set(SERIES) | set(REFUSED_SERIES) | others


@pytest.mark.parametrize("name", REFUSED_SERIES)
def test_a_series_without_one_regular_grid_is_refused(corpus: Path, name: str) -> None:
    with pytest.raises(GeometryError) as refusal:
        file_formats.read(corpus / "dicom" / "series" / name)
    assert REFUSED_SERIES[name] in refusal.value.problem
    assert refusal.value.remedy


@pytest.mark.parametrize("name", real_data.parameters("dicom/series", SERIES))
def test_a_series_lies_where_dcm2niix_says(name: str) -> None:
    image = file_formats.read(real_data.find(f"dicom/series/{name}"))
    reference = json.loads(real_data.find(f"dicom/series/{name}.geometry.json").read_text())
    assert reference["outputs"]
    for output in reference["outputs"]:
        grid = Geometry(output["shape"][:3], np.array(output["affine"]))
        assert image.geometry.canonical.shape == grid.canonical.shape
        assert_allclose(image.geometry.canonical.corners, grid.canonical.corners, atol=ROUNDED.get(name, 1e-3))
        assert (image.frames or 1) == (output["shape"][3:] or [1])[0]


@pytest.mark.parametrize(
    "name", real_data.parameters("dicom/series", [name for name in SERIES if name not in WITHOUT_VOLUME])
)
def test_a_series_holds_the_values_that_dcm2niix_writes(name: str) -> None:
    nifti = nib.load(real_data.find(f"dicom/series/{name}.nii.gz"))
    image = file_formats.read(real_data.find(f"dicom/series/{name}"))
    ours, theirs = canonical_volumes(image), canonical_nifti(nifti)
    if name in OTHER_UNIT:
        assert np.corrcoef(ours[0].ravel(), theirs[0].ravel())[0, 1] > 1 - 1e-9
        return
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert_allclose(mine, other, rtol=1e-6)


def test_a_tilted_gantry_is_kept_as_a_shear_and_not_resampled(corpus: Path) -> None:
    image = file_formats.read(corpus / "dicom" / "series" / "ct_philips_tilt_minus18.5")
    assert image.geometry.is_sheared
    affine = image.geometry.affine
    # The README: positions step 2.5 mm in z, 2.37 mm along the normal.
    assert_allclose(affine[:3, 2], [0, 0, 2.5], atol=1e-3)
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    assert_allclose(abs(affine[:3, 2] @ normal / np.linalg.norm(normal)), 2.37, atol=2e-3)
    reference = json.loads((corpus / "dicom" / "series" / "ct_philips_tilt_minus18.5.geometry.json").read_text())
    upright = Geometry((512, 512, 3), np.array(reference["outputs"][0]["affine"]))
    # dcm2niix leaves the shear out of the first output: its first slice is right, the others are shifted.
    assert_allclose(first_slice(image.geometry), first_slice(upright), atol=1e-3)


def test_a_missing_slice_is_padding_where_that_was_asked_for(corpus: Path) -> None:
    image = file_formats.read(corpus / "dicom" / "series" / "ct_siemens_tilt15.5_missing_slice", fill_missing=True)
    assert image.shape == (1, 512, 512, 4)
    assert image.facts["missing_slices"] == (2,)
    assert not image.valid[..., 2].any()
    assert image.valid[..., [0, 1, 3]].any(axis=(0, 1, 2)).all()
    # Gaps of .75 and 1.5 mm: the slice between 3 and 5 lies half way.
    assert_allclose(np.linalg.norm(image.geometry.affine[:3, 2]) * np.cos(np.radians(15.5)), 0.75, atol=1e-3)


def test_a_medium_of_three_patients_gives_each_series_a_name_without_the_patients(data: Path) -> None:
    folder = file_formats.read_volumes(data / "dicom" / "series" / "dicomdir_fileset")
    medium = file_formats.read_volumes(data / "dicom" / "series" / "dicomdir_fileset" / "DICOMDIR")
    assert list(folder) == list(medium)
    assert len(folder) == 13
    assert folder["SmartScore_-_Gated_0.5_sec"].shape == (1, 16, 16, 5)
    with pytest.raises(GeometryError, match="2 orientations"):  # this series only: the others are there
        folder["Scout"]
    with pytest.raises(FormatError, match="13 volumes"):
        file_formats.read(data / "dicom" / "series" / "dicomdir_fileset")


@pytest.mark.parametrize(
    ("name", "file", "step"),
    [
        ("mr_hippocampus_001", "2.dcm", "SliceThickness, 1 mm"),
        pytest.param("ct_phantom_with_rtstruct", "ct_2.dcm", "SpacingBetweenSlices, 5 mm", marks=pytest.mark.corpus),
    ],
)
def test_a_single_file_of_a_series_is_one_slice_in_its_place(name: str, file: str, step: str) -> None:
    folder = real_data.find(f"dicom/series/{name}")
    series = file_formats.read(folder)
    second_slice = file_formats.read(folder / file)
    columns, rows, _ = series.geometry.shape
    assert second_slice.shape == (1, columns, rows, 1)
    its_place = series.geometry.crop((slice(0, columns), slice(0, rows), slice(1, 2)))
    assert_allclose(second_slice.geometry.affine, its_place.affine)
    assert_array_equal(second_slice.data[..., 0], series.data[..., 1])
    assert step in second_slice.notes[0]


def test_the_enhanced_form_of_a_series_is_the_same_volume(data: Path) -> None:
    classic = file_formats.read(data / "dicom" / "series" / "ct_23x38x3_with_seg")
    enhanced = file_formats.read(data / "dicom" / "files" / "dcmqi_legacy_enhanced_ct_23x38x3.dcm")
    assert enhanced.geometry.equals(classic.geometry)
    assert_array_equal(enhanced.data, classic.data)


def test_magnitude_and_field_map_of_one_object_are_channels_with_their_own_scale(corpus: Path) -> None:
    folder = corpus / "dicom" / "series" / "enh_mr_philips_fieldmap"
    image = file_formats.read(folder)
    assert image.channels == ("magnitude", "field map")
    assert image.data[0].min() >= 0 > image.data[1].min()  # slopes of 1.28 and .244, intercepts of 0 and -500
    assert file_formats.read(folder, part="magnitude").channels == ("0",)


def test_magnitude_and_field_map_of_one_object_have_a_window_each(corpus: Path) -> None:
    image = file_formats.read(corpus / "dicom" / "series" / "enh_mr_philips_fieldmap")
    magnitude, field = (image.facts_of(channel)["window"] for channel in range(2))
    assert magnitude == (959.0, 1667.0, "LINEAR")
    assert field[0] - field[1] / 2 < image.data[1].mean() < field[0] + field[1] / 2


def test_volumes_in_time_come_in_the_order_of_their_acquisition(corpus: Path) -> None:
    assert file_formats.read(corpus / "dicom" / "series" / "enh_mr_siemens_xa10").times == (0.0, 0.5, 1.0, 1.5)
    mosaic = file_formats.read(corpus / "dicom" / "series" / "mr_siemens_mosaic")
    assert mosaic.times is not None
    assert_allclose(mosaic.times, (0, 2.435), atol=1e-5)
    diffusion = file_formats.read(corpus / "dicom" / "series" / "mr_philips_dti")
    assert diffusion.facts["b_values"] == (0.0, 1000.0, 1000.0, 1000.0)


def test_the_kind_of_image_decides_whether_a_pixel_has_a_size_in_the_patient(data: Path) -> None:
    folder = data / "dicom" / "files"
    radiograph = file_formats.read(folder / "highdicom_dx_image.dcm")  # PixelSpacing is the detector's, not calibrated
    assert radiograph.spacing is None
    assert radiograph.facts["imager_pixel_spacing"] == (1.2, 1.201199999999)
    dose = file_formats.read(folder / "pydicom_rtdose.dcm")
    assert dose.shape == (1, 10, 10, 15)
    assert dose.spacing == (10.0, 10.0, 5.0)
    clip = file_formats.read(folder / "pydicom_examples_ybr_color.dcm")
    assert clip.times is not None and clip.frames == 30
    assert_allclose(np.diff(clip.times), 0.033333, atol=1e-6)


def test_a_photograph_of_the_eye_has_the_size_of_its_pixels(corpus: Path) -> None:
    assert file_formats.read(corpus / "dicom/files/dcmjs_op.dcm").spacing == (0.005768, 0.005768)


def test_an_image_crosses_processes_and_reads_there(data: Path) -> None:
    image = file_formats.read(data / "dicom" / "series" / "mr_hippocampus_001")
    assert_array_equal(pickle.loads(pickle.dumps(image)).data, image.data)  # noqa: S301


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is not installed")
@pytest.mark.parametrize(
    "name",
    real_data.parameters(
        "dicom/series", ["mr_hitachi_oblique", "mr_hippocampus_001", "mr_ge_epi_interleaved_3vol", "mr_siemens_mosaic"]
    ),
)
def test_dcm2niix_on_this_machine_agrees(name: str, tmp_path: Path) -> None:
    folder = real_data.find(f"dicom/series/{name}")
    subprocess.run(["dcm2niix", "-z", "n", "-f", name, "-o", tmp_path, folder], check=True, capture_output=True)
    nifti = nib.load(tmp_path / f"{name}.nii")
    image = file_formats.read(folder)
    theirs = Geometry(nifti.shape[:3], nifti.affine)
    assert_allclose(image.geometry.canonical.corners, theirs.canonical.corners, atol=1e-3)
    for mine, other in zip(canonical_volumes(image), canonical_nifti(nifti), strict=True):
        assert_array_equal(mine, other)


def objects_and_series(folder: Path) -> tuple[set[str], set[str]]:
    """The single objects and the series in a folder of real data."""
    objects = {f"{part}/{path.name}" for part in ("files", "broken") for path in (folder / "dicom" / part).iterdir()}
    series = {path.name for path in (folder / "dicom" / "series").iterdir() if path.is_dir()}
    return objects, series


def canonical_volumes(image: Image) -> list[np.ndarray[Any, Any]]:
    """Every volume of every channel and frame, in RAS+ order."""
    flat = image.data.reshape(-1, *image.geometry.shape)
    return [turned(volume, image.geometry) for volume in flat]


def canonical_nifti(nifti: Any) -> list[np.ndarray[Any, Any]]:
    voxels = np.asarray(nifti.dataobj)
    if voxels.dtype.fields:
        voxels = np.stack([voxels[colour] for colour in "RGB"], axis=-1)
    grid = Geometry(voxels.shape[:3], nifti.affine)
    several = np.moveaxis(voxels, -1, 0) if voxels.ndim == 4 else voxels[None]
    return [turned(volume, grid) for volume in several]


def turned(volume: np.ndarray[Any, Any], grid: Geometry) -> np.ndarray[Any, Any]:
    axes, flips = grid.to_canonical
    return np.flip(volume.transpose(axes), [axis for axis, flip in enumerate(flips) if flip])


def first_slice(grid: Geometry) -> np.ndarray[Any, Any]:
    """The corners of the first slice, in an order that does not depend on how rows and columns run."""
    columns, rows, _ = grid.shape
    corners = grid.to_world([[i, j, 0] for i in (0, columns - 1) for j in (0, rows - 1)])
    return corners[np.lexsort(np.round(corners, 2).T)]
