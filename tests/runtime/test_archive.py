from __future__ import annotations

import os
import shutil
import stat
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hilum.errors import IntegrityError, UsageError
from hilum.runtime import model_files, record_files


@pytest.fixture(scope="module")
def package(tiny, tmp_path_factory):
    """A package of one's own: the times of its files are changed."""
    return Path(shutil.copytree(tiny("pictured"), tmp_path_factory.mktemp("package") / "tiny"))


@pytest.fixture(scope="module")
def zipped(package):
    record_files.write_zip(package, package.with_suffix(".zip"))
    return package.with_suffix(".zip")


def with_entry(zipped: Path, out: Path, name: str, content: bytes = b"x", mode: int = 0) -> Path:
    """The zip with one more entry."""
    out.write_bytes(zipped.read_bytes())
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return out


def test_a_zip_is_the_model_of_its_folder(package, zipped):
    image = np.random.default_rng(0).normal(size=(1, 1, 32, 32)).astype(np.float32)
    assert_array_equal(
        model_files.load(zipped, "cpu").networks.run(image)["class"],
        model_files.load(package, "cpu").networks.run(image)["class"],
    )


def test_unzipped_it_lies_in_a_folder_of_its_own_name(package, zipped, tmp_path):
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(tmp_path)
    files = {path.relative_to(package) for path in package.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path / "tiny") for path in tmp_path.rglob("*") if path.is_file()} == files


def test_the_same_package_makes_the_same_zip(package, zipped, tmp_path):
    os.utime(package / "LICENSE", (0, 10**9))
    record_files.write_zip(package, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == zipped.read_bytes()


def test_nothing_is_left_behind_where_it_was_unpacked(zipped):
    with record_files.unpack(zipped) as folder:
        assert (folder / "manifest.json").is_file()
    assert not folder.exists()


@pytest.mark.parametrize("name", ["../out", "/out", "tiny/../../out", "C:/out", "tiny\\..\\..\\out"])
def test_a_name_that_leads_out_of_the_folder_is_refused(zipped, tmp_path, name):
    with pytest.raises(IntegrityError, match="outside its folder"):
        model_files.load(with_entry(zipped, tmp_path / "bad.zip", name), "cpu")


def test_a_link_is_refused(zipped, tmp_path):
    bad = with_entry(zipped, tmp_path / "bad.zip", "tiny/link", b"/etc/passwd", stat.S_IFLNK | 0o777)
    with pytest.raises(IntegrityError, match="not a regular file"):
        model_files.load(bad, "cpu")


def test_an_archive_that_would_fill_a_disk_is_refused_unopened(zipped, tmp_path):
    small = with_entry(zipped, tmp_path / "bad.zip", "tiny/zeros", bytes(90 * 2**20))
    assert small.stat().st_size < 2**20
    with pytest.raises(IntegrityError, match="attack"):
        model_files.load(small, "cpu")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
def test_a_compression_that_unpacks_without_end_is_refused(zipped, tmp_path, method):
    (tmp_path / "bad.zip").write_bytes(zipped.read_bytes())
    with zipfile.ZipFile(tmp_path / "bad.zip", "a") as archive:
        archive.writestr("tiny/zeros", bytes(2**20), method)
    with pytest.raises(IntegrityError, match="'tiny/zeros' is compressed in a way that is not read"):
        model_files.load(tmp_path / "bad.zip", "cpu")


def test_a_size_that_lies_ends_unpacking_where_it_says(tmp_path):
    with zipfile.ZipFile(tmp_path / "lies.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(64 * 2**20))
    content = (tmp_path / "lies.zip").read_bytes()
    stated = struct.pack("<I", 64 * 2**20)
    assert content.count(stated) == 2  # before the bytes and in the list at the end
    (tmp_path / "lies.zip").write_bytes(content.replace(stated, struct.pack("<I", 1000)))
    tracemalloc.start()
    with pytest.raises(IntegrityError, match="Bad CRC"), record_files.unpack(tmp_path / "lies.zip"):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20


def test_a_file_that_is_not_in_the_manifest_does_not_keep_a_package_from_loading(zipped, tmp_path):
    more = model_files.load(with_entry(zipped, tmp_path / "more.zip", "tiny/notes.txt"), "cpu")
    assert more.settings == model_files.load(zipped, "cpu").settings


def test_a_cut_archive_is_refused(zipped, tmp_path):
    (tmp_path / "cut.zip").write_bytes(zipped.read_bytes()[:-200])
    with pytest.raises((IntegrityError, UsageError)):
        model_files.load(tmp_path / "cut.zip", "cpu")


def test_a_damaged_archive_is_refused(zipped, tmp_path):
    content = bytearray(zipped.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 50] = bytes(50)
    (tmp_path / "damaged.zip").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"damaged\.zip"):
        model_files.load(tmp_path / "damaged.zip", "cpu")


def test_an_error_names_the_zip_and_not_where_it_was_unpacked(package, zipped, tmp_path):
    other = tmp_path / "tiny"
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(tmp_path)
    (other / "LICENSE").write_text("mine")
    record_files.write_zip(other, tmp_path / "other.zip")
    with pytest.raises(IntegrityError) as refusal:
        model_files.load(tmp_path / "other.zip", "cpu")
    assert refusal.value.where == f"{tmp_path / 'other.zip'}/LICENSE"


@pytest.mark.parametrize("content", [b"no zip", b""])
def test_a_file_that_is_no_zip_is_no_model(tmp_path, content):
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(UsageError, match="not a model"):
        model_files.load(tmp_path / "model.bin", "cpu")


def test_a_zip_of_something_else_holds_no_package(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a/b.txt", "x")
    with pytest.raises(UsageError, match="holds no package"):
        model_files.load(tmp_path / "other.zip", "cpu")
