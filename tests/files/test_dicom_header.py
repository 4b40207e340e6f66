"""What stands before the pixels is read from whole and odd files, and traps are refused before they cost anything."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    MediaStorageDirectoryStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from hilum.errors import FormatError, HilumError
from hilum.files import file_formats
from hilum.files.dicom import header_reading
from hilum.files.dicom.reading import series_survey
from written_dicom import sequence, write_slice


@pytest.fixture
def slice_(tmp_path: Path) -> Path:
    return write_slice(tmp_path / "slice.dcm", np.arange(12, dtype=np.uint16).reshape(3, 4), SliceThickness=1)


def test_the_place_of_the_pixels_is_told(slice_: Path) -> None:
    head = header_reading.read_header(slice_)
    assert head.offset is not None and head.length == 24
    assert slice_.read_bytes()[head.offset : head.offset + 24] == np.arange(12, dtype="<u2").tobytes()


def test_a_file_without_preamble_and_meta_is_read(slice_: Path) -> None:
    whole = slice_.read_bytes()
    meta_length = struct.unpack_from("<I", whole, 140)[0]
    bare = slice_.with_name("bare.dcm")
    bare.write_bytes(whole[144 + meta_length :])
    assert file_formats.read(bare).data.tolist() == file_formats.read(slice_).data.tolist()


def test_a_name_decides_only_where_the_content_does_not(slice_: Path, tmp_path: Path) -> None:
    slice_.rename(tmp_path / "slice.txt")
    (tmp_path / "table.csv").write_bytes(b"\x08\x00 begins as an element would")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    (tmp_path / ".hidden.dcm").write_bytes((tmp_path / "slice.txt").read_bytes())
    assert [path.name for path in series_survey.dicom_files(tmp_path)] == ["slice.txt"]


@pytest.mark.parametrize(
    ("name", "others"), [("4.dcm", "{}.dcm"), ("IM0004", "IM000{}"), ("1.2.840.9.4", "1.2.840.9.{}"), ("A0F4", "00C{}")]
)
@pytest.mark.parametrize(
    ("size", "words"), [(0, "is empty"), (1, "to 1 byte"), (131, "to 131 bytes"), (600, "neither pixels nor Series")]
)
def test_a_slice_that_is_cut_short_is_not_passed_over(
    tmp_path: Path, name: str, others: str, size: int, words: str
) -> None:
    for n in (1, 2, 3):
        write_slice(tmp_path / others.format(n), np.ones((2, 2), np.uint16), position=(0, 0, n), SliceThickness=1)
    cut = write_slice(
        tmp_path / name, np.ones((2, 2), np.uint16), position=(0, 0, 4), Manufacturer="M" * 64, StudyID="S" * 16
    )
    content = cut.read_bytes()
    assert content.find(b"\x20\x00\x0e\x00") > 540  # SeriesInstanceUID
    cut.write_bytes(content[: min(size, 540)])
    with pytest.raises(FormatError, match=words) as refusal:
        file_formats.read(tmp_path)
    assert refusal.value.where == str(cut)
    (files,) = series_survey.survey_folder(tmp_path).series
    assert len(files.paths) == 3
    assert [error.where for error in series_survey.survey_folder(tmp_path).damaged] == [str(cut)]


@pytest.mark.parametrize(("name", "others"), [("4.dcm", "{}.dcm"), ("IM0004", "IM000{}")])
def test_a_slice_whose_link_leads_nowhere_is_not_passed_over(tmp_path: Path, name: str, others: str) -> None:
    """As git-annex leaves what was not fetched."""
    for n in (1, 2, 3):
        write_slice(tmp_path / others.format(n), np.ones((2, 2), np.uint16), position=(0, 0, n), SliceThickness=1)
    (tmp_path / name).symlink_to(tmp_path / "annex" / "4")
    (tmp_path / "README").symlink_to(tmp_path / "annex" / "README")
    with pytest.raises(FormatError, match="is missing: a link to it leads nowhere") as refusal:
        file_formats.read(tmp_path)
    assert refusal.value.where == str(tmp_path / name)
    assert [error.where for error in series_survey.survey_folder(tmp_path).damaged] == [str(tmp_path / name)]


def test_what_is_called_otherwise_than_the_slices_next_to_it_is_none_of_them(tmp_path: Path) -> None:
    for n in (1, 2):
        write_slice(tmp_path / f"IM000{n}", np.ones((2, 2), np.uint16), position=(0, 0, n), SliceThickness=1)
    for name in ("README", "Thumbs.db", "VERSION", "LOCKFILE", "IM0001.jpg", "log.1"):
        (tmp_path / name).write_bytes(b"")
    assert file_formats.read(tmp_path).shape == (1, 2, 2, 2)
    assert not series_survey.survey_folder(tmp_path).damaged


@pytest.mark.parametrize("cut", [1, 8, 23])
def test_pixels_that_are_cut_short_are_refused(slice_: Path, cut: int) -> None:
    slice_.write_bytes(slice_.read_bytes()[:-cut])
    with pytest.raises(FormatError, match=f"cut short: {24 - cut} bytes where 24 belong"):
        header_reading.check_pixels(header_reading.read_header(slice_))


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"Rows": 0}, r"Rows \(0028,0010\) is 0"),
        ({"Rows": None}, r"Rows \(0028,0010\) is missing"),
        ({"NumberOfFrames": -1}, "NumberOfFrames"),
        ({"NumberOfFrames": 2_000_000_000}, "cut short"),
        ({"PixelData": b""}, "without PixelData"),
    ],
)
def test_what_cannot_be_an_image_is_refused(tmp_path: Path, tags: dict[str, object], words: str) -> None:
    path = write_slice(tmp_path / "x.dcm", np.ones((3, 4), np.uint16), SliceThickness=1, **tags)
    with pytest.raises(FormatError, match=words):
        file_formats.read(path)


def compressed(path: Path, fragments: list[bytes], frames: int) -> Path:
    """An object that claims JPEG 2000 frames of 4096 x 4096."""
    write_slice(path, np.ones((3, 4), np.uint16), SliceThickness=1)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.Rows = dataset.Columns = 4096
    dataset.NumberOfFrames = frames
    dataset.PixelData = pydicom.encaps.encapsulate(fragments)
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    return path


def test_a_small_file_that_claims_a_huge_image_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    path = compressed(tmp_path / "huge.dcm", [b"\xff\x4f"], frames=10_000)
    with pytest.raises(FormatError, match="claims 335544320000 bytes of voxels in a file of"):
        file_formats.read(path)


def test_compressed_pixels_that_are_cut_short_are_refused(tmp_path: Path) -> None:
    path = compressed(tmp_path / "cut.dcm", [bytes(100)], frames=1)
    whole = path.read_bytes()
    for cut in (1, 8, 20):  # in the delimiter, before it, in the fragment
        path.write_bytes(whole[:-cut])
        with pytest.raises(FormatError, match="damaged or cut short"):
            header_reading.check_pixels(header_reading.read_header(path))


@pytest.mark.parametrize("before", [0, 5000])
def test_a_deflated_file_that_inflates_without_end_is_refused(tmp_path: Path, before: int) -> None:
    """Wherever in group 2 its transfer syntax stands: `before` bytes of private information precede it."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = bytes(before) or b"\0\1"
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = tmp_path / "bomb.dcm"
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(40)) + packer.flush()
    with path.open("wb") as file:
        file.write(bytes(128) + b"DICM")
        pydicom.filewriter.write_file_meta_info(file, meta, enforce_standard=False)
        file.write(packed)
    with pytest.raises(FormatError, match="inflates to more than"):
        header_reading.read_header(path)


def test_a_large_deflated_file_is_refused_before_it_fills_memory(slice_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = pydicom.dcmread(slice_)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(slice_)
    header_reading.read_header(slice_)
    monkeypatch.setattr("hilum.files.dicom.header_reading.MOST_INFLATED", 100)
    with pytest.raises(FormatError, match="inflates to more than 100 bytes"):
        header_reading.read_header(slice_)


def test_a_deflated_file_is_asked_for_its_pixels_before_they_are_allocated(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "x.dcm", np.ones((3, 4), np.uint16), SliceThickness=1, Rows=60_000, Columns=60_000)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    with pytest.raises(FormatError, match="24 bytes where 7200000000 belong"):
        file_formats.read(path)


@pytest.mark.parametrize("sop_class", [SegmentationStorage, SecondaryCaptureImageStorage, CTImageStorage])
@pytest.mark.parametrize("fragments", [[], [b"\xff\x4f"] * 3])
def test_frames_that_cannot_be_there_are_refused_before_they_are_listed(
    tmp_path: Path, sop_class: str, fragments: list[bytes]
) -> None:
    path = compressed(tmp_path / "x.dcm", fragments or [b"\xff\x4f"], frames=2_000_000_000)
    dataset = pydicom.dcmread(path)
    dataset.SOPClassUID, dataset.Rows, dataset.Columns = sop_class, 1, 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 1, 1, 0
    dataset.SegmentSequence = sequence(SegmentNumber=1, SegmentLabel="one")
    if not fragments:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset.PixelData = b"\0\0"
    dataset.save_as(path)
    with pytest.raises(FormatError, match=r"cut short|claims 2000000000 frames"):
        file_formats.read(path)


def dicomdir(folder: Path, *parts: list[str], kind: str = "PRIVATE") -> Path:
    """A DICOMDIR that lists these paths as objects of a kind."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    made.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    made.DirectoryRecordSequence = [
        entry for names in parts for entry in sequence(ReferencedFileID=names, DirectoryRecordType=kind)
    ]
    pydicom.dcmwrite(folder / "DICOMDIR", made, enforce_file_format=True)
    return folder / "DICOMDIR"


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_a_dicomdir_leads_to_its_files(slice_: Path, tmp_path: Path) -> None:
    there = slice_.rename(tmp_path / "SLICE")
    path = dicomdir(tmp_path, ["SLICE"], ["GONE", "FILE"])
    assert series_survey.files_in_dicomdir(header_reading.read_header(path)) == [there.resolve()]
    assert file_formats.read(path).shape == (1, 4, 3, 1)


@pytest.mark.parametrize("gone", ["IM3", "IM2"])
def test_a_dicomdir_that_lists_an_image_which_is_missing_is_refused(tmp_path: Path, gone: str) -> None:
    for n in (1, 2, 3):
        write_slice(tmp_path / f"IM{n}", np.ones((2, 2), np.uint16), position=(0, 0, n), SliceThickness=1)
    path = dicomdir(tmp_path, ["IM1"], ["IM2"], ["IM3"], kind="IMAGE")
    assert file_formats.read(path).shape == (1, 2, 2, 3)
    (tmp_path / gone).unlink()
    with pytest.raises(FormatError, match=f"DICOMDIR: 1 image that it lists is missing: {gone}. Copy the whole medium"):
        file_formats.read(path)
    assert [error.problem for error in series_survey.survey_folder(path).damaged] == [
        f"1 image that it lists is missing: {gone}"
    ]


def test_the_files_of_a_dicomdir_may_be_called_in_lower_case_as_linux_shows_a_cd(slice_: Path, tmp_path: Path) -> None:
    (tmp_path / "ser").mkdir()
    there = slice_.rename(tmp_path / "ser" / "im1")
    assert series_survey.files_in_dicomdir(
        header_reading.read_header(dicomdir(tmp_path, ["SER", "IM1"], kind="IMAGE"))
    ) == [there.resolve()]


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize("parts", [["..", "SLICE"], ["/", "ETC", "PASSWD"], ["A", "..", "..", "SLICE"]])
def test_a_dicomdir_never_leads_out_of_its_folder(slice_: Path, tmp_path: Path, parts: list[str]) -> None:
    slice_.rename(tmp_path / "SLICE")
    (tmp_path / "medium").mkdir()
    path = dicomdir(tmp_path / "medium", parts)
    with pytest.raises(FormatError, match=r"leads out of its folder|none of the files"):
        file_formats.read(path)


def test_a_dicomdir_whose_files_are_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="none of the files that it lists exists"):
        file_formats.read(dicomdir(tmp_path, ["GONE"]))


@settings(max_examples=150)
@given(draw=st.data())
def test_a_damaged_file_is_read_or_refused_but_never_crashes(data: Path, draw: st.DataObject) -> None:
    name = draw.draw(st.sampled_from(("pydicom_CT_small", "pydicom_rtdose", "dcmqi_legacy_enhanced_ct_23x38x3")))
    content = bytearray((data / "dicom" / "files" / f"{name}.dcm").read_bytes())
    for _ in range(draw.draw(st.integers(1, 5))):
        at = draw.draw(st.integers(132, min(len(content), 9000) - 1))
        content[at] = draw.draw(st.sampled_from((0, 1, 0x20, 0x7F, 0xFF)))
    path = Path(os.environ["HILUM_CACHE"]).with_name("damaged.dcm")
    path.write_bytes(content)
    try:
        _ = file_formats.read(path).data
    except HilumError as refusal:
        assert refusal.where and refusal.problem and refusal.remedy
