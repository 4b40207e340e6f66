"""Each fact that a file may state of itself is read, named or refused, as the table of docs/stated-facts.md says.

A row of the table is tested here, by a file with that fact, or by a test that is named here.
"""

from __future__ import annotations

import gzip
import importlib
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pydicom
import pytest
import tifffile
from nibabel.nifti1 import Nifti1Extension
from pydicom.uid import SecondaryCaptureImageStorage

import simulated_slides
from hilum.errors import DatasetError, FormatError
from hilum.files import file_formats
from hilum.files.dicom.reading.object_flags import FLAGS, ObjectFlag
from hilum.layouts import dataset_layouts
from hilum.values import FactRule, Image
from written_dicom import write_slice

ROOT = Path(__file__).parents[2]
BEGIN_TIME = 31  # the column of a PAR file of version 4.2
Check = Callable[[Path], None]
CHECKS: dict[tuple[str, str], Check] = {}

OUTLINES, BOXES, MASKS = (f"tests/layouts/test_layouts_{name}.py::test_" for name in ("outlines", "boxes", "masks"))
TREES = "tests/layouts/test_layouts_published_trees.py::test_"
RAW, SLIDES = "tests/verbs/test_reconstruct.py::test_", "tests/files/test_slides.py::test_"
TIFF, NRRD, LACKING = (f"tests/files/test_{name}.py::test_" for name in ("tiff", "nrrd", "dicom_lacking"))
NIFTI, DICOM, VIDEO = (f"tests/files/test_{name}.py::test_" for name in ("nifti", "dicom", "video"))
MGH = "tests/files/test_mgh.py::test_"
PHILIPS, PICTURE = (f"tests/files/test_{name}.py::test_" for name in ("minc_parrec", "picture"))
# {(source, fact): the test that reads a file with it}
TESTED = {
    ("GeoJSON of QuPath", "holes"): OUTLINES + "a_hole_is_cut_out_of_its_own_polygon_alone",
    ("GeoJSON of QuPath", "open rings"): OUTLINES + "a_ring_that_does_not_repeat_its_first_corner_keeps_its_last_one",
    ("GeoJSON of QuPath", "lists of names"): OUTLINES + "a_class_as_a_list_of_names_is_the_name_that_qupath_shows",
    ("GeoJSON of QuPath", "child objects"): OUTLINES + "objects_below_an_object_are_read_too",
    **{
        ("GeoJSON of QuPath", fact): OUTLINES + "what_geojson_states_and_is_not_read_is_named_by_its_kind"
        for fact in ("nuclei within cells", "objects without a place", "further planes")
    },
    ("COCO", "boxes, outlines with holes, packed runs, crowds, clips, parts by the file's name"): OUTLINES
    + "runs_of_coco_go_down_the_columns_as_numbers_or_letters",
    ("COCO", "annotations of images that it does not list"): BOXES
    + "coco_that_names_what_it_does_not_list_or_an_image_twice_is_refused",
    ("COCO", "an image in two lists, a number of two images or categories"): BOXES
    + "coco_that_names_what_it_does_not_list_or_an_image_twice_is_refused",
    ("Pascal VOC", "parts (ImageSets/Main), objects that are difficult"): BOXES
    + "what_is_difficult_or_a_crowd_is_marked",
    ("Pascal VOC", "an image in two parts"): BOXES + "an_image_in_two_parts_of_the_split_is_refused",
    ("YAML of YOLO", "names of classes, form of keypoints"): OUTLINES
    + "numbers_of_yolo_get_their_names_and_ignored_outlines_are_so",
    ("BIDS", "participants.tsv"): MASKS + "bids_sessions_are_cases_with_contrasts_as_channels",
    ("BIDS", "channels that not every session has"): MASKS + "a_contrast_that_some_sessions_lack_is_said_and_left_out",
    ("dataset.json of nnU-Net", "channels, labels, ignored label, regions"): MASKS
    + "nnunet_channels_have_the_names_and_order_of_dataset_json",
    ("dataset.json of the Decathlon", "channels, labels, pairs and their parts"): TREES
    + "a_labelled_test_part_of_the_decathlon_is_one_and_pairs_that_are_not_listed_are_named",
    ("dataset.json of the Decathlon", "pairs that lack a file, and files that it does not list"): TREES
    + "a_labelled_test_part_of_the_decathlon_is_one_and_pairs_that_are_not_listed_are_named",
    ("ISMRMRD, fastMRI", "reversed lines"): RAW + "lines_that_were_read_backwards_are_turned_round",
    ("ISMRMRD, fastMRI", "oversampled and asymmetric readouts"): RAW + "what_an_asymmetric_echo_lacks_is_not_sampled",
    ("ISMRMRD, fastMRI", "discarded samples"): RAW
    + "a_file_of_ismrmrd_is_read_with_its_readout_cut_and_its_averages_joined",
    ("ISMRMRD, fastMRI", "masks of one axis"): RAW + "a_mask_of_columns_or_of_rows_alone_is_one_of_both",
    ("ISMRMRD, fastMRI", "reversed lines with data for their phase"): RAW
    + "what_a_file_of_ismrmrd_cannot_be_is_refused",
    ("ISMRMRD, fastMRI", "several encodings"): RAW + "what_a_file_of_ismrmrd_cannot_be_is_refused",
    ("PNG, JPEG and the like", "how the camera was held (EXIF), colours of a palette"): PICTURE
    + "a_picture_stands_upright_as_exif_says",
    ("PNG, JPEG and the like", "pixels that are not square"): PICTURE + "pixels_that_are_not_square_are_named",
    ("TIFF of ImageJ and Fiji", "voxel size in its unit"): TIFF
    + "the_voxel_size_that_imagej_writes_is_read_in_its_unit",
    ("TIFF of ImageJ and Fiji", "frame interval"): TIFF + "the_times_of_frames_that_imagej_writes_are_read",
    ("TIFF of ImageJ and Fiji", "values by a straight calibration"): TIFF + "values_are_those_that_imagej_shows",
    ("TIFF of ImageJ and Fiji", "a unit that is no length or time"): TIFF
    + "a_size_of_imagej_that_cannot_be_read_is_named",
    ("TIFF of ImageJ and Fiji", "a curved calibration"): TIFF + "a_calibration_of_imagej_that_is_no_line_is_named",
    ("OME-TIFF", "voxel size, frame interval and names of channels"): TIFF + "micrometres_of_an_ome_header_become_mm",
    ("TIFF", "a size below 10 µm a pixel in its resolution"): TIFF
    + "resolution_tags_finer_than_any_paper_are_a_physical_size",
    ("NRRD", "names, colours and codes of segments"): NRRD + "slicer_segments_become_labels",
    ("NRRD", "times of frames, b-values of each"): NRRD + "a_list_of_diffusion_volumes_is_frames_with_their_weighting",
    ("NRRD", "complex numbers, segments in a layer that is not there"): NRRD + "complex_voxels_are_refused",
    ("DICOM series", "slices without the time, label, window, padding or UID that others have"): LACKING
    + "a_slice_without_what_is_known_beside_its_voxels_is_named",
    ("DICOM series", "slices without the place, rescale or number format that others have"): LACKING
    + "a_slice_without_what_its_voxels_are_read_by_is_refused_by_name",
    ("DICOM", "parts of one object (concatenations)"): DICOM
    + "the_parts_of_a_concatenation_are_one_volume_and_one_of_them_alone_is_refused",
    ("DICOM", "a part of a concatenation alone"): DICOM
    + "the_parts_of_a_concatenation_are_one_volume_and_one_of_them_alone_is_refused",
    ("DICOM", "brightness: window, VOI LUT, SIGMOID, MONOCHROME1, INVERSE (PresentationLUTShape)"): "tests/files/"
    "test_dicom_values.py::test_an_image_is_shown_as_bright_as_its_file_asks_and_as_dicomweb_renders_it",
    ("DICOM", "colours of which header and stream state different models"): "tests/files/test_dicom_colour.py::"
    "test_a_lossy_jpeg_stream_that_states_its_colours_is_believed",
    ("TIFF", "colours of which tag and JPEG stream state different models"): TIFF
    + "where_tag_and_jpeg_stream_state_different_colours_a_note_says_which_is_believed",
    ("DICOM", "bytes behind the pixels"): "tests/files/test_dicom_pixels.py::"
    "test_bytes_behind_the_pixels_that_are_no_row_or_column_are_left_out_with_a_note",
    ("DICOM slides", "places of frames"): SLIDES + "the_parts_of_a_concatenation_are_one_slide",
    ("DICOM slides", "colour of what was not scanned"): SLIDES + "tiles_that_a_sparse_slide_leaves_out_are_glass",
    ("DICOM slides", "the share that was not scanned"): SLIDES + "tiles_that_a_sparse_slide_leaves_out_are_glass",
    ("DICOM slides", "fewer frames than tiles"): SLIDES
    + "a_slide_tiled_in_full_with_fewer_frames_than_tiles_is_refused",
    ("DICOM slides", "two frames of one tile"): SLIDES + "a_sparse_slide_with_two_frames_of_one_tile_is_refused",
    ("clips", "the frames that an edit list shows"): VIDEO
    + "of_a_film_that_was_trimmed_the_frames_that_its_edit_list_shows_are_read",
    ("clips", "the number of frames that an edit list leaves out"): VIDEO
    + "of_a_film_that_was_trimmed_the_frames_that_its_edit_list_shows_are_read",
    ("clips", "pixels that are not square"): VIDEO + "pixels_of_a_film_that_are_not_square_are_named",
    ("clips", "fewer frames than an edit list shows"): VIDEO + "a_trimmed_film_that_is_cut_short_is_refused",
    ("MGH", "sizes and directions that the header marks as invalid"): MGH
    + "a_header_whose_directions_mean_nothing_gives_neither_size_nor_sides",
    ("NIfTI", "modality in the JSON file beside it, b-values in its .bval"): NIFTI
    + "the_record_in_an_images_folder_states_its_modality",
    ("NIfTI", "forms of several codes that differ, and units that are absent"): NIFTI
    + "of_forms_with_two_codes_the_sform_is_used_and_the_image_says_so",
    ("PAR/REC", "slope and intercept of each slice, times of frames"): PHILIPS
    + "either_half_of_a_philips_pair_opens_both",
    ("PAR/REC", "slices of several directions, or whose places contradict the scan's"): PHILIPS
    + "a_localizer_in_several_directions_is_refused",
    **{
        (source, "a longer header there that is not stated"): name
        for source, name in (
            ("NRRD", NRRD + "a_detached_nifti_needs_a_byte_skip_and_surplus_bytes_are_stated"),
            ("MetaImage", "tests/files/test_metaimage.py::test_a_header_of_the_raw_file_that_nobody_stated_is_refused"),
            ("MRtrix", "tests/files/test_mif.py::test_a_header_of_the_voxels_file_that_nobody_stated_is_refused"),
            ("pairs of NIfTI", NIFTI + "voxels_beside_a_header_that_begin_with_a_header_of_their_own_are_refused"),
        )
    },
}
# Of every format with a file beside its header the same rows, which one test of each sees together.
TESTED |= {
    (source, fact): name
    for (source, refused), name in TESTED.items()
    if refused == "a longer header there that is not stated"
    for fact in ("where voxels begin in a file beside the header", "bytes behind the voxels")
}


with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(ROOT / "docs"))
    SCRIPT = importlib.import_module("write_stated_facts")
RULES: tuple[FactRule, ...] = SCRIPT.fact_rules()


def check(source: str, fact: str) -> Callable[[Check], Check]:
    """Make a function the test of a row."""

    def enter(function: Check) -> Check:
        """Enter the function."""
        CHECKS[source, fact] = function
        return function

    return enter


def names(image: Image, words: str) -> None:
    """Whether a note of an image has these words."""
    assert any(words in note for note in image.notes), image.notes


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.source}: {rule.fact}")
def test_each_fact_of_the_table_is_read_named_or_refused_as_it_says(rule: FactRule, tmp_path: Path) -> None:
    key = (rule.source, rule.fact)
    assert (key in CHECKS) != (key in TESTED), "write a file with this fact, or name the test that reads one"
    if key in CHECKS:
        CHECKS[key](tmp_path)
        return
    path, _, name = TESTED[key].partition("::")
    assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")


def test_no_test_is_of_a_fact_that_the_table_lacks() -> None:
    assert {*CHECKS, *TESTED} <= {(rule.source, rule.fact) for rule in RULES}


# DICOM


def check_flag(flag: ObjectFlag) -> Check:
    """The test of a flag: each of its values, in one of two files, is named with the number of files."""

    def of_flag(folder: Path) -> None:
        """Write two slices, of which the second states the flag."""
        for number, value in enumerate(flag.values):
            series = folder / str(number)
            series.mkdir()
            for place in range(2):
                stated = ["ORIGINAL", "PRIMARY", value] if flag.keyword == "ImageType" else value
                tags: dict[str, Any] = {flag.keyword: stated} if place or "DERIVED" in flag.values else {}
                pixels = np.ones((2, 2), np.uint16)
                write_slice(series / f"{place}.dcm", pixels, position=(0, 0, place), InstanceNumber=place, **tags)
            for image in file_formats.read_volumes(series).values():
                if flag.meaning in " ".join(image.notes):
                    names(image, f"is {value}: {flag.meaning}")
                    break
            else:
                pytest.fail(f"{value} is not named")

    return of_flag


for one in FLAGS:
    CHECKS[one.rule.source, one.rule.fact] = check_flag(one)


def picture(folder: Path, **tags: Any) -> Image:
    """A secondary capture without a place."""
    place = dict.fromkeys(("position", "orientation", "spacing"))
    path = write_slice(
        folder / "a.dcm", np.ones((2, 2), np.uint16), sop_class=SecondaryCaptureImageStorage, **place, **tags
    )
    return file_formats.read(path)


@check("DICOM", "OverlayData")
def overlays_are_named(folder: Path) -> None:
    path = write_slice(folder / "a.dcm", np.ones((2, 2), np.uint16))
    dataset = pydicom.dcmread(path)
    dataset.add_new(0x60003000, "OW", b"\x01\0")
    dataset.save_as(path)
    names(file_formats.read(path), "OverlayData (60xx,3000) is left out")


@check("DICOM", "ICCProfile of colours")
def a_profile_is_named(folder: Path) -> None:
    names(picture(folder, ICCProfile=bytes(128)), "ICCProfile (0028,2000) is not applied")


@check("DICOM", "pixels that are not square, where their size is unknown")
def sides_of_pixels_are_named(folder: Path) -> None:
    names(picture(folder, PixelAspectRatio=[2, 1]), "its pixels are not square")


@check("DICOM slides", "label and overview beside the levels")
def the_label_of_a_slide_is_named(folder: Path) -> None:
    template = ROOT / "data" / "dicom" / "files" / "highdicom_sm_image.dcm"
    [level] = simulated_slides.write_dicom(folder / "s", [np.zeros((128, 128, 3), np.uint8)], template).iterdir()
    label = pydicom.dcmread(level)
    label.ImageType = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]
    label.SOPInstanceUID = label.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    label.save_as(folder / "s" / "label.dcm")
    names(file_formats.read(folder / "s"), "its label was left out")


# NIfTI


def nifti(
    folder: Path, shape: tuple[int, ...] = (3, 4, 5), extension: tuple[int, bytes] | None = None, **fields: Any
) -> Image:
    """The image of a file with these fields of its header."""
    made = nibabel.Nifti1Image(np.ones(shape, np.int16), np.eye(4))
    made.header.set_xyzt_units("mm", "sec")
    for name, value in fields.items():
        made.header[name] = value
    if extension is not None:
        made.header.extensions.append(Nifti1Extension(*extension))
    nibabel.save(made, folder / "a.nii")
    return file_formats.read(folder / "a.nii")


@check("NIfTI", "labels of a Caret extension")
def labels_of_workbench_are_read(folder: Path) -> None:
    table = (
        b'<V><LabelTable><Label Key="0">???</Label><Label Key="3" Red="1" Green="0.5">liver</Label></LabelTable></V>'
    )
    [label] = nifti(folder, extension=(30, table)).labels
    assert (label.value, label.name, label.colour) == (3, "liver", (255, 128, 0))
    with pytest.raises(FormatError, match="Caret extension"):
        nifti(folder, extension=(30, b"<V>"))


@check("NIfTI", "that it is a label map (intent)")
def a_label_map_says_so(folder: Path) -> None:
    assert nifti(folder, intent_code=1002).facts["label_map"]


@check("NIfTI", "statistics, displacements and matrices (intent)")
def statistics_are_named(folder: Path) -> None:
    names(nifti(folder, intent_code=3), "values are t scores (intent_code 3)")


@check("NIfTI", "display range (cal_min, cal_max)")
def a_display_range_is_read(folder: Path) -> None:
    assert nifti(folder, cal_min=-20, cal_max=80).facts["window"] == (30.0, 100.0, "LINEAR_EXACT")
    assert "window" not in nifti(folder).facts


@check("NIfTI", "start of the series and times of slices (toffset, slice_code)")
def times_of_slices_are_named(folder: Path) -> None:
    image = nifti(folder, (3, 4, 5, 2), toffset=7, slice_code=1)
    names(image, "toffset")
    names(image, "slice_code")


@check("NIfTI", "another file (aux_file)")
def a_file_beside_is_named(folder: Path) -> None:
    names(nifti(folder, aux_file=b"atlas.txt"), "aux_file")
    assert nifti(folder, aux_file=b"none").notes == ()


@check("NIfTI", "other extensions")
def extensions_are_named(folder: Path) -> None:
    names(nifti(folder, extension=(4, b"<AFNI/>")), "extensions that are not read: AFNI (4)")


@check("NIfTI", "directions of gradients in its .bvec")
def directions_beside_are_named(folder: Path) -> None:
    (folder / "a.bvec").write_text("0 1\n0 0\n0 0\n")
    names(nifti(folder, (3, 4, 5, 2)), "directions of its gradients (.bvec) are not read")


@check("NIfTI", "a .bval with fewer or more values than frames")
def b_values_of_other_frames_are_refused(folder: Path) -> None:
    (folder / "a.bval").write_text("0 1000")
    with pytest.raises(FormatError, match="2 b-values for 3 frames"):
        nifti(folder, (3, 4, 5, 3))


@check("NIfTI", "points and triangles of surfaces, values on grey-ordinates (intent)")
def surfaces_are_refused(folder: Path) -> None:
    with pytest.raises(FormatError, match="points of a surface"):
        nifti(folder, intent_code=1008)


@check("MGH", "table of labels behind the voxels, time between frames")
def labels_of_freesurfer_are_read(folder: Path) -> None:
    path = folder / "a.mgz"
    nibabel.save(nibabel.MGHImage(np.ones((2, 2, 2), np.int32), np.eye(4)), path)

    def text(words: bytes) -> bytes:
        """A text behind its length."""
        return struct.pack(">i", len(words) + 1) + words + b"\0"

    table = struct.pack(">ii", -2, 20) + text(b"lut.txt") + struct.pack(">i", 1)
    table += struct.pack(">i", 17) + text(b"Left-Hippocampus") + struct.pack(">4i", 220, 216, 20, 0)
    plain = gzip.decompress(path.read_bytes())[: 284 + 8 * 4]
    command = struct.pack(">iq", 3, 4) + b"mri\0"
    path.write_bytes(gzip.compress(plain + bytes(20) + command + struct.pack(">i", 1) + table))
    [label] = file_formats.read(path).labels
    assert (label.value, label.name, label.colour) == (17, "Left-Hippocampus", (220, 216, 20))


# NRRD and PAR/REC


def nrrd(folder: Path, *lines: str, frames: int = 1) -> Image:
    """The image of a file with these further lines in its header."""
    head = ["NRRD0005", "type: uint8", "dimension: 4", f"sizes: 2 2 2 {frames}", "encoding: raw"]
    head += ["space: left-posterior-superior", "space directions: (1,0,0) (0,1,0) (0,0,1) none"]
    head += ["space origin: (0,0,0)", "kinds: domain domain domain list", *lines]
    path = folder / "a.nrrd"
    path.write_bytes(("\n".join(head) + "\n\n").encode() + bytes(8 * frames))
    return file_formats.read(path)


@check("NRRD", "gradients of fewer or more frames than there are")
def gradients_of_other_frames_are_named(folder: Path) -> None:
    pairs = ["DWMRI_b-value:=1000", "DWMRI_gradient_0000:=0 0 0", "DWMRI_gradient_0002:=1 0 0"]
    image = nrrd(folder, *pairs, frames=3)
    names(image, "gradients of 2 of 3 frames")
    assert "b_values" not in image.facts


@check("NRRD", "the range before values were quantised (old min, old max), and their unit")
def a_range_before_quantising_is_named(folder: Path) -> None:
    image = nrrd(folder, "old min: -1", "old max: 1", "sample units: mm/s")
    names(image, "old min, old max")
    names(image, "sample units")


@check("PAR/REC", "times of frames that do not rise")
def times_of_philips_that_fall_are_named(folder: Path) -> None:
    source = Path(nibabel.__file__).parent / "tests" / "data" / "phantom_EPI_asc_CLEAR_2_1.PAR"
    shutil.copy(source.with_suffix(".REC"), folder / "a.REC")
    lines = source.read_text(encoding="latin-1").splitlines()
    for number, line in enumerate(lines):
        words = line.split()
        if len(words) > BEGIN_TIME and line[:1] not in "#.":
            words[BEGIN_TIME] = "0.00"
            lines[number] = " ".join(words)
    (folder / "a.PAR").write_text("\n".join(lines), encoding="latin-1")
    image = file_formats.read(folder / "a.PAR")
    names(image, "times of the frames do not rise at frame 2")
    assert image.times is None


# Pictures, TIFF and clips


@check("PNG, JPEG and the like", "texts, and a colour profile")
def texts_of_a_picture_are_named(folder: Path) -> None:
    texts = PIL.PngImagePlugin.PngInfo()
    texts.add_text("Comment", "Doe, Jane")
    path = folder / "a.png"
    PIL.Image.fromarray(np.ones((3, 4), np.uint8)).save(path, pnginfo=texts, icc_profile=bytes(200))
    image = file_formats.read(path)
    names(image, "texts beside the pixels were left out (Comment)")
    names(image, "a colour profile was not applied")
    assert not any("Doe" in note for note in image.notes)


@check("TIFF of ImageJ and Fiji", "regions of interest")
def regions_of_imagej_are_named(folder: Path) -> None:
    tifffile.imwrite(
        folder / "a.tif", np.ones((2, 4, 5), np.uint16), imagej=True, metadata={"ROI": b"Iout" + bytes(60)}
    )
    names(file_formats.read(folder / "a.tif"), "was left out")


@check("TIFF of ImageJ and Fiji", "a slope of 0")
def a_slope_of_zero_is_refused(folder: Path) -> None:
    metadata = {"cf": 0, "c0": 5.0, "c1": 0.0}
    tifffile.imwrite(folder / "a.tif", np.ones((2, 4, 5), np.uint16), imagej=True, metadata=metadata)
    with pytest.raises(FormatError, match="c0 and c1"):
        file_formats.read(folder / "a.tif")


def ome(folder: Path, frames: int = 1, **metadata: Any) -> Image:
    """The image of an OME-TIFF with this metadata."""
    axes = "TYX" if frames > 1 else "ZYX"
    stack = np.ones((max(frames, 2), 4, 5), np.uint16)
    tifffile.imwrite(folder / "a.ome.tif", stack, ome=True, metadata={"axes": axes, **metadata})
    return file_formats.read(folder / "a.ome.tif")


@check("OME-TIFF", "a unit that is no length or time")
def units_of_ome_are_named(folder: Path) -> None:
    names(ome(folder, PhysicalSizeX=1.0, PhysicalSizeXUnit="pixel"), "the unit 'pixel' of its voxel size")
    names(ome(folder, 3, TimeIncrement=1.0, TimeIncrementUnit="Ys"), "the unit 'Ys' of its frame interval")


@check("OME-TIFF", "times of single planes (DeltaT)")
def times_of_planes_are_named(folder: Path) -> None:
    names(ome(folder, 3, Plane={"DeltaT": [0.0, 1.0, 3.0]}), "DeltaT")


@check("OME-TIFF", "regions of interest")
def regions_of_ome_are_named(folder: Path) -> None:
    path = folder / "a.ome.tif"
    ome(folder)
    description = tifffile.TiffFile(path).ome_metadata
    assert description is not None
    with_region = description.replace("</OME>", '<ROI ID="ROI:0"/></OME>')
    with tifffile.TiffWriter(path) as file:
        file.write(np.ones((2, 4, 5), np.uint16), description=with_region.encode(), metadata=None, contiguous=True)
    names(file_formats.read(path), "regions of interest were left out")


@check("TIFF", "pixels that are not square")
def sides_of_pixels_of_a_tiff_are_named(folder: Path) -> None:
    tifffile.imwrite(folder / "a.tif", np.ones((4, 5), np.uint8), resolution=(100, 50), resolutionunit="CENTIMETER")
    names(file_formats.read(folder / "a.tif"), "its pixels are not square")


@check("TIFF", "pages that are a smaller copy or a mask of another (NewSubfileType)")
def pages_beside_the_picture_are_left_out(folder: Path) -> None:
    with tifffile.TiffWriter(folder / "a.tif") as file:
        file.write(np.full((8, 8), 7, np.uint8), metadata=None)
        file.write(np.zeros((4, 4), np.uint8), subfiletype=1, metadata=None)
        file.write(np.zeros((8, 8), bool), subfiletype=4, metadata=None)
    image = file_formats.read(folder / "a.tif")
    assert image.data.shape == (1, 8, 8)
    assert (image.data == 7).all()
    names(image, "NewSubfileType calls a smaller copy or a mask of another were left out")


@check("clips", "frames without a picture of their own (AVI)")
def frames_that_are_shown_again_are_named(folder: Path) -> None:
    path = folder / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 32))
    for number in range(8):
        writer.write(np.full((32, 32, 3), 30 * number, np.uint8))
    writer.release()
    path.write_bytes(with_repeats(path.read_bytes(), (2, 5)))
    image = file_formats.read(path)
    assert image.frames == 6
    assert image.times == pytest.approx((0.0, 0.1, 0.3, 0.4, 0.6, 0.7))
    names(image, "2 frames have no picture of their own")


def with_repeats(clip: bytes, empty: tuple[int, ...]) -> bytes:
    """An AVI in which some frames have no bytes, so that the one before is shown again."""
    index, pictures = clip.rindex(b"idx1"), clip.index(b"movi")
    body, rows = b"movi", b""
    for number in range(struct.unpack_from("<I", clip, index + 4)[0] // 16):
        kind, flags, offset, length = struct.unpack_from("<4sIII", clip, index + 8 + 16 * number)
        start = pictures + offset if clip[pictures + offset :][:4] == kind else offset
        content = b"" if number in empty else clip[start + 8 : start + 8 + length]
        rows += struct.pack("<4sIII", kind, flags, len(body), len(content))
        body += kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
    lists = b"LIST" + struct.pack("<I", len(body)) + body + b"idx1" + struct.pack("<I", len(rows)) + rows
    head = clip[: pictures - 8]
    return head[:4] + struct.pack("<I", len(head) + len(lists) - 8) + head[8:] + lists


# Descriptions of data sets


def found_problems(folder: Path) -> str:
    """What opening a data set says of it."""
    return "\n".join(problem.what for problem in dataset_layouts.read_dataset(folder).problems)


def write_pairs(folder: Path, description: dict[str, Any], suffix: str = "_0000") -> None:
    """Two cases as nnU-Net or the Decathlon have them."""
    for number in range(2):
        for part, end in (("imagesTr", suffix), ("labelsTr", "")):
            (folder / part).mkdir(exist_ok=True)
            made = nibabel.Nifti1Image(np.full((4, 4, 4), number, np.uint8), np.eye(4))
            nibabel.save(made, folder / part / f"c{number}{end}.nii.gz")
    (folder / "dataset.json").write_text(json.dumps(description))


@check("dataset.json of nnU-Net", "numTraining, numTest and lists that the folder contradicts")
def lists_of_nnunet_are_compared(folder: Path) -> None:
    listed = [{"image": f"./imagesTr/c{n}.nii.gz", "label": f"./labelsTr/c{n}.nii.gz"} for n in (1, 7)]
    named = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "cyst": 1}}
    write_pairs(folder, {**named, "numTraining": 20, "training": listed})
    found = found_problems(folder)
    assert "states 20 training cases (numTraining), and there are 2" in found
    assert "dataset.json (training) lists 1 case that the folder lacks: c7" in found
    assert "dataset.json (training) does not list 1 case of the folder: c0" in found


@check("dataset.json of the Decathlon", "counts (numTraining, numTest) that its lists contradict")
def numbers_of_the_decathlon_are_compared(folder: Path) -> None:
    listed = [{"image": f"./imagesTr/c{n}.nii.gz", "label": f"./labelsTr/c{n}.nii.gz"} for n in range(2)]
    named = {"modality": {"0": "T1"}, "labels": {"0": "background", "1": "cyst"}}
    tests = {"numTest": 3, "test": ["./imagesTs/c9.nii.gz"]}
    write_pairs(folder, {**named, "numTraining": 20, "training": listed, **tests}, suffix="")
    found = found_problems(folder)
    assert "states 20 training cases (numTraining), and there are 2" in found
    assert "numTest of dataset.json is 3, and the folder holds 1 listed test case" in found


@check("BIDS", "participants without a folder, and folders without a participant")
def participants_are_compared(folder: Path) -> None:
    for number in range(2):
        place = folder / f"sub-0{number}" / "anat"
        place.mkdir(parents=True)
        for suffix in ("T1w", "dseg"):
            made = nibabel.Nifti1Image(np.full((4, 4, 4), number, np.uint8), np.eye(4))
            nibabel.save(made, place / f"sub-0{number}_{suffix}.nii.gz")
    (folder / "participants.tsv").write_text("participant_id\tage\nsub-00\t50\nsub-09\t60\n")
    found = found_problems(folder)
    assert "participants.tsv lists 1 subject that the folder lacks: sub-09" in found
    assert "participants.tsv does not list 1 subject of the folder: sub-01" in found


@check("BIDS", "files of scans.tsv that are not there")
def tables_of_scans_are_compared(folder: Path) -> None:
    participants_are_compared(folder)
    (folder / "sub-00" / "sub-00_scans.tsv").write_text("filename\nanat/sub-00_T1w.nii.gz\nfunc/sub-00_bold.nii.gz\n")
    assert "scans.tsv lists 1 file that the folder lacks: func/sub-00_bold.nii.gz" in found_problems(folder)


def write_pictures(folder: Path, *pictures: str) -> None:
    """Grey pictures by name."""
    for name in pictures:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(np.full((16, 16), len(name), np.uint8)).save(path)


@check("CVAT", "a number of images (size) that its list or the frames contradict")
def numbers_of_cvat_are_compared(folder: Path) -> None:
    size = "<original_size><width>16</width><height>16</height></original_size>"
    meta = f"<meta><task><size>4</size>{size}</task></meta>"
    box = 'xtl="2" ytl="2" xbr="8" ybr="8"'
    track = f'<track id="0" label="cell"><box frame="0" outside="0" {box}/></track>'
    image = f'<image name="0.png" width="16" height="16"><box label="cell" {box}/></image>'
    for name, annotated in (("clip", track), ("pictures", image)):
        write_pictures(folder / name, "0.png")
        (folder / name / "all.xml").write_text(f"<annotations>{meta}{annotated}</annotations>")
    assert "size of all.xml is 4, and the folder holds 1 frame" in found_problems(folder / "clip")
    assert "size of all.xml is 4, and the folder holds 1 listed image" in found_problems(folder / "pictures")


@check("COCO", "images of its list that are not there, and images that it does not list")
def lists_of_coco_are_compared(folder: Path) -> None:
    write_pictures(folder, "a0.png", "a2.png")
    record = {
        "categories": [{"id": 1, "name": "cell"}],
        "images": [{"id": n, "file_name": f"a{n}.png"} for n in range(2)],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 1, "bbox": [2, 2, 6, 6]}],
    }
    (folder / "instances.json").write_text(json.dumps(record))
    found = found_problems(folder)
    assert "1 listed image is not there" in found
    assert "1 image beside them is not listed (instances.json)" in found


@check("COCO", "lists of keypoints, panoptic segments or captions beside")
def other_lists_of_coco_are_named(folder: Path) -> None:
    write_pictures(folder, "a0.png")
    record = {"categories": [{"id": 1, "name": "cell"}], "images": [{"id": 0, "file_name": "a0.png"}]}
    box = {"id": 0, "image_id": 0, "category_id": 1, "bbox": [2, 2, 6, 6]}
    for name, annotation in (("instances", box), ("captions", {"id": 0, "image_id": 0, "caption": "a cell"})):
        (folder / f"{name}.json").write_text(json.dumps({**record, "annotations": [annotation]}))
    assert "captions.json lists keypoints, panoptic segments or captions" in found_problems(folder)


XML = (
    "<annotation><object><name>cell</name><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>9</xmax><ymax>8</ymax></bndbox>"
    "</object></annotation>"
)


@check("Pascal VOC", "images of its lists that are not there, and images in none of them")
def lists_of_voc_are_compared(folder: Path) -> None:
    write_pictures(folder, "JPEGImages/a0.png", "JPEGImages/a1.png")
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a0\na9\n")
    (folder / "Annotations").mkdir()
    for number in range(2):
        (folder / "Annotations" / f"a{number}.xml").write_text(XML)
    found = found_problems(folder)
    assert "ImageSets/Main lists 1 image that the folder lacks: a9" in found
    assert "ImageSets/Main does not list 1 image of the folder: a1" in found


def write_yolo(folder: Path, table: str, box: str = "0 0.5 0.5 0.2 0.2") -> None:
    """One picture with a box, and the table of classes."""
    write_pictures(folder, "images/a0.png")
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels" / "a0.txt").write_text(box)
    (folder / "data.yaml").write_text(table)


@check("YAML of YOLO", "a number of classes (nc) that its names contradict")
def the_number_of_classes_of_yolo_is_compared(folder: Path) -> None:
    write_yolo(folder, "nc: 3\nnames: [cell]\n")
    assert "nc of data.yaml is 3, and the folder holds 1 name of a class" in found_problems(folder)


@check("YAML of YOLO", "objects of a class that has no name")
def an_object_of_yolo_without_the_name_of_its_class_is_named(folder: Path) -> None:
    write_yolo(folder, "names: [cell]\n", "0 0.5 0.5 0.2 0.2\n4 0.5 0.5 0.2 0.2")
    assert "line 2: class 4 has no name" in found_problems(folder)


@check("YAML of YOLO", "names of none of the classes that are annotated")
def names_of_other_classes_of_yolo_are_refused(folder: Path) -> None:
    write_yolo(folder, "names: [cell]\n", "4 0.5 0.5 0.2 0.2")
    with pytest.raises(DatasetError, match="gives no name to class 4"):
        dataset_layouts.read_dataset(folder)


@check("GeoJSON of QuPath", "rings of fewer than three corners")
def rings_of_two_corners_are_named(folder: Path) -> None:
    write_pictures(folder, "a0.png")
    corners = [[1, 1], [5, 5], [5, 1], [1, 1]]
    features = [
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
        for ring in (corners, corners[:2])
    ]
    (folder / "a0.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    assert "feature 2: an outline of fewer than three corners" in found_problems(folder)
