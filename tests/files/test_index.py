"""The index of formats: which file is what, and what is said when none fits."""

from __future__ import annotations

import gzip
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import real_data
from hilum import errors
from hilum.errors import FormatError, GeometryError, HilumError, ResourceError, UsageError
from hilum.files import file_formats
from hilum.files.file_formats import FORMATS
from hilum.files.format_options import Format
from hilum.files.storage import atomic
from hilum.values import Geometry, Image, Label
from matrices import thinned

GRID = Geometry((3, 4, 5), np.diag([2, 3, 4, 1.0]))
IMAGE = Image(np.arange(60, dtype=np.uint8).reshape(1, 3, 4, 5), GRID)


def test_every_line_of_the_index_leads_to_a_format_of_that_name() -> None:
    for name in FORMATS:
        assert isinstance(file_formats.load_format(name), Format)
        assert file_formats.load_format(name).name == name


def test_no_suffix_and_no_magic_number_names_two_formats() -> None:
    suffixes = [suffix for entry in FORMATS.values() for suffix in entry.suffixes]
    magics = [magic for entry in FORMATS.values() for magic in entry.magic]
    assert len(set(suffixes)) == len(suffixes) and len(set(magics)) == len(magics)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in suffixes)


def test_every_magic_number_lies_in_the_bytes_that_are_looked_at() -> None:
    assert max(offset + len(magic) for entry in FORMATS.values() for offset, magic in entry.magic) <= 544


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.NII.GZ", ".nii.gz"), ("a.b.nii", ".nii"), ("m.seg.nrrd", ".seg.nrrd"), ("m.seg.txt", ".txt"), ("a", "")],
)
def test_the_longest_known_suffix_counts(name: str, suffix: str) -> None:
    assert file_formats.suffix_of(Path(name)) == suffix


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".seg.nrrd", ".mha"])
def test_a_volume_is_known_by_its_content_whatever_it_is_called(tmp_path: Path, suffix: str) -> None:
    file_formats.write(IMAGE, tmp_path / f"a{suffix}")
    assert_array_equal(file_formats.read(tmp_path / f"a{suffix}").data, IMAGE.data)
    if not suffix.endswith(".gz"):  # the magic number of a gzip stream is that of gzip
        shutil.copy(tmp_path / f"a{suffix}", tmp_path / "a.dat")
        assert_array_equal(file_formats.read(tmp_path / "a.dat").data, IMAGE.data)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("nib_anatomical_bigendian.nii", "nifti"),
        ("nib_nifti2.nii.gz", "nifti"),
        ("niivue_ras.img", "nifti"),
        pytest.param("niivue_FLAIR.nrrd", "nrrd", marks=pytest.mark.corpus),
        ("niivue_mha.mha", "metaimage"),
        ("nib_test.mgz", "mgh"),
        ("nib_minc2.mnc", "minc"),
        ("nib_phantom_EPI.PAR", "parrec"),
        ("../README.md", None),
    ],
)
def test_real_files_are_recognised(file: str, name: str | None) -> None:
    assert file_formats.format_of(real_data.find(f"nifti/{file}")) == name


def test_a_folder_is_dicom_and_so_is_a_name_without_suffix(tmp_path: Path) -> None:
    (tmp_path / "IM0001").write_bytes(b"nothing known")
    (tmp_path / "1.2.840.1").write_bytes(b"nothing known")
    assert (
        file_formats.format_of(tmp_path)
        == file_formats.format_of(tmp_path / "IM0001")
        == file_formats.format_of(tmp_path / "1.2.840.1")
        == "dicom"
    )


def test_what_is_no_image_is_not_written_and_named_in_a_sentence(tmp_path: Path) -> None:
    for wrong in (np.zeros((3, 3)), None, "image.png"):
        with pytest.raises(UsageError, match="image: is"):
            file_formats.write(wrong, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_is_not_there_is_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.nii: there is no such file or folder"):
        file_formats.read(tmp_path / "gone.nii")


def test_a_file_of_no_known_format_is_refused_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(b"PK\3\4")
    with pytest.raises(FormatError, match=r"a\.docx: the format is not known.*\.nii\.gz"):
        file_formats.read(tmp_path / "a.docx")


@pytest.mark.parametrize("name", ["a.dcm.gz", "a.zip", "a.tar.gz"])
def test_a_packed_file_is_to_be_unpacked_first(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"packed")
    with pytest.raises(FormatError, match="Unpack it first"):
        file_formats.read(tmp_path / name)


@pytest.mark.parametrize("suffix", sorted(s for entry in FORMATS.values() for s in entry.suffixes))
@pytest.mark.parametrize("content", thinned(1, [b"", b"\0" * 600, b"not what the name says\n" * 40]))
def test_a_file_that_is_not_what_its_name_says_is_refused_by_name(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises((FormatError, UsageError), match="broken") as caught:
        _ = file_formats.read(path).data
    assert caught.value.remedy


@pytest.mark.parametrize("suffix", [".nii.gz", ".hdr.gz", ".mif.gz", ".mgz", ".mnc.gz"])
def test_a_gzip_of_nothing_known_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"broken{suffix}").write_bytes(gzip.compress(b"nothing known"))
    with pytest.raises(FormatError, match="broken"):
        file_formats.read(tmp_path / f"broken{suffix}")


def test_what_a_value_refuses_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((4, 5), np.uint8), metadata=None)
    with tifffile.TiffFile(path) as file:
        width = file.pages[0].tags["ImageWidth"].valueoffset
    raw = bytearray(path.read_bytes())
    raw[width] = 0
    path.write_bytes(bytes(raw))
    with pytest.raises(GeometryError, match=r"a\.tif: shape \(4, 0\).*get the file again"):
        file_formats.read(path)


def test_what_a_library_throws_at_a_damaged_file_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_formats.write(IMAGE, tmp_path / "a.mha")
    raw = (tmp_path / "a.mha").read_bytes()
    (tmp_path / "a.mha").write_bytes(re.sub(rb"DimSize = \d+", b"DimSize = nan", raw))
    with pytest.raises(FormatError, match=r"a\.mha: cannot be read as metaimage \(cannot convert.*damaged or cut"):
        file_formats.read(tmp_path / "a.mha")


@settings(max_examples=150)
@given(
    st.sampled_from([".nii", ".nrrd", ".mha"]),
    st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=6)), max_size=4),
)
def test_a_damaged_volume_is_read_or_refused_by_name(suffix: str, changes: list[tuple[int, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"broken{suffix}"
        file_formats.write(IMAGE, path)
        content = bytearray(path.read_bytes())
        for offset, changed in changes:
            content[offset : offset + max(1, len(changed))] = changed
        path.write_bytes(bytes(content))
        try:
            image = file_formats.read(path)
            assert image.data.shape == image.shape
        except HilumError as error:
            assert path.name in str(error) and error.remedy


def test_the_one_volume_of_a_file_is_found_by_its_name(tmp_path: Path) -> None:
    file_formats.write(IMAGE, tmp_path / "head.nii.gz")
    assert list(file_formats.read_volumes(tmp_path / "head.nii.gz")) == ["head"]
    assert file_formats.read(tmp_path / "head.nii.gz", "head").shape == IMAGE.shape
    with pytest.raises(UsageError, match=r"there is no volume 'foot'\. Choose one of head"):
        file_formats.read(tmp_path / "head.nii.gz", "foot")


def test_what_a_reader_is_told_reaches_it_and_an_unknown_word_does_not(data: Path) -> None:
    assert file_formats.read(data / "nifti" / "niivue_complex64.nii.gz", part="phase").dtype == np.float32
    with pytest.raises(TypeError, match="sides"):
        file_formats.read(data / "nifti" / "niivue_complex64.nii.gz", sides="left")


# -- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.xyz", "a", "a.mgz", "a.mnc", "a.PAR"])
def test_a_suffix_that_nothing_writes_is_wrong_use(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be written. Write \.nii\.gz"):
        file_formats.write(IMAGE, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_what_a_format_cannot_hold_is_refused_under_the_name_that_was_given(tmp_path: Path) -> None:
    with pytest.raises(FormatError) as refused:
        file_formats.write(IMAGE, tmp_path / "a.png")
    assert refused.value.where == str(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


MASK = replace(IMAGE, labels=(Label(1, "liver", (1, 2, 3)), Label(59, "tumour")))


@pytest.mark.parametrize("name", ["m.nii.gz", "m.NRRD", "m.mha", "m.seg.nrrd"])
def test_names_of_labels_are_written_with_a_label_map(tmp_path: Path, name: str) -> None:
    file_formats.write(MASK, tmp_path / name)
    assert file_formats.read(tmp_path / name).labels == MASK.labels


def test_a_table_that_names_other_labels_is_not_taken_for_that_of_a_new_label_map(tmp_path: Path) -> None:
    table = tmp_path / "m.labels.csv"
    table.write_text("1,spleen\n59,stone\n")
    with pytest.raises(UsageError, match=r"m\.labels\.csv: exists already"):
        file_formats.write(MASK, tmp_path / "m.nii")
    assert [path.name for path in tmp_path.iterdir()] == [table.name]
    file_formats.write(MASK, tmp_path / "m.nii", overwrite=True)
    assert file_formats.read(tmp_path / "m.nii").labels == MASK.labels


def test_a_table_that_names_the_same_labels_stays(tmp_path: Path) -> None:
    table = tmp_path / "m.labels.csv"
    table.write_text("59,tumour\n1,liver\n")
    file_formats.write(MASK, tmp_path / "m.nii")
    assert table.read_text() == "59,tumour\n1,liver\n"


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.mha", "a.png", "a.tif", "a.npy"])
def test_a_series_is_refused_by_formats_of_pictures_and_volumes(tmp_path: Path, name: str) -> None:
    grid = Geometry((8,), [[0.5, 0.0], [0.0, 1.0]], oriented=False, unit="s")
    with pytest.raises(FormatError, match=rf"{name}: .*Write") as refused:
        file_formats.write(Image(np.zeros((1, 8), np.int16), grid), tmp_path / name)
    assert refused.value.problem
    assert not list(tmp_path.iterdir())


def test_the_folder_is_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    file_formats.write(IMAGE, tmp_path / "new" / "folder" / "a.nii.gz")
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["a.nii.gz"]


def test_a_result_cannot_be_written_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UsageError, match="cannot be written"):
        file_formats.write(IMAGE, tmp_path / "file" / "a.nii.gz")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, name: str) -> None:
    resource = pytest.importorskip("resource")  # POSIX has it
    noise = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 64), dtype=np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(ResourceError, match="Free some space"):
            file_formats.write(Image(noise, Geometry((64, 64, 64), np.eye(4))), tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_stays_where_its_replacement_is_stopped_between_the_two_steps(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a.txt").write_text("old")

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt), atomic.write_whole(tmp_path / "run", overwrite=True) as partial:
        partial.mkdir()
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "a.txt"]
    assert (tmp_path / "run" / "a.txt").read_text() == "old"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("label"), "it lacks 'label'"),
        (TypeError("'NoneType' is not iterable"), "something in it is of another kind than the format has there"),
        (ValueError("cannot identify image file <_io.BytesIO object at 0x7f1>"), "cannot identify image file"),
        (EOFError(), "no library says why"),
    ],
)
def test_the_cause_of_an_error_names_no_class_and_no_address(error, words):
    assert errors.describe_cause(error) == words


def test_a_disk_that_takes_less_than_it_is_given_is_full_whoever_says_so(tmp_path):
    for words in ("9216 requested and 2237 written", "problem writing element 4096 to file"):
        refused = atomic.unwritable_error(OSError(words), tmp_path / "x.npy")
        assert isinstance(refused, ResourceError)
        assert "No space left on device" in refused.problem
        assert "Free some space" in refused.remedy
