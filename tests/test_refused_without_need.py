"""Inputs that users reported as refused without need: what is right for each, and for its neighbours."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pydicom
import pytest

import hilum
from hilum.errors import DatasetError, GeometryError, UsageError
from hilum.files.storage import cache, hashing
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions
from situations import write_scan
from written_dicom import write_slice


def picture(path: Path, value: int = 0, size: tuple[int, int] = (16, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.full(size, value, np.uint8)).save(path)


# -- grids -------------------------------------------------------------------------------------------------------------


def turned(axis: np.ndarray, degrees: float) -> np.ndarray:
    """The rotation about an axis (Rodrigues' formula)."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(np.radians(degrees)) * cross + (1 - np.cos(np.radians(degrees))) * cross @ cross


def test_masks_that_keep_the_qform_only_are_used_with_a_note(tmp_path):
    generator = np.random.default_rng(3)
    for n in range(6):
        affine = np.eye(4)
        affine[:3, :3] = np.diag([-1, -1, 1.0]) @ turned(generator.normal(size=3), 2 + n) @ np.diag([0.9375, 0.9375, 5])
        affine[:3, 3] = 110, 115, -80
        image = np.zeros((256, 256, 8), np.int16) + generator.normal(100, 5, 8).astype(np.int16)
        mask = np.zeros(image.shape, np.uint8)
        mask[100:130, 90:120, 2:6] = 1
        image[mask > 0] += 50
        write_scan(tmp_path / "images" / f"p{n}.nii.gz", image, affine)
        write_scan(tmp_path / "labels" / f"p{n}.nii.gz", mask, affine, codes=(0, 1))
    checked = hilum.check(tmp_path, modality="MR")
    assert len(checked.examination.dataset) == 6
    assert not [one for one in checked.problems if one.severity == "error"]
    notes = [one for one in checked.problems if "a little off the image's grid (corners up to 0.00" in one.what]
    assert [(one.severity, len(one.cases)) for one in notes] == [("note", 1)] * 2


def test_a_mask_half_a_voxel_off_is_still_an_error(tmp_path):
    affine, moved = np.diag([-1.0, -1.0, 2.0, 1.0]), np.diag([-1.0, -1.0, 2.0, 1.0])
    for case, shift in (("a", 0.04), ("b", 0.06)):  # of a smallest step of 1 mm
        moved[0, 3] = shift
        for folder, place in (("images", affine), ("labels", moved)):
            (tmp_path / folder).mkdir(exist_ok=True)
            voxels = np.zeros((8, 8, 4), np.uint8)
            voxels[2:5, 2:5, 1:3] = 1
            nibabel.save(nibabel.Nifti1Image(voxels, place), tmp_path / folder / f"{case}.nii")
    found = hilum.check(tmp_path, modality="MR")
    [error] = [one for one in found.problems if one.severity == "error" and one.cases]
    assert error.cases == ("b",) and "shifted by 0.06 mm to R" in error.what


# -- positions of slices -----------------------------------------------------------------------------------------------


def test_slices_whose_positions_have_one_decimal_are_read_with_a_note(tmp_path):
    for n in range(12):
        depth = round(1.25 * n + 1e-9, 1)
        write_slice(tmp_path / f"{n:02d}.dcm", np.full((32, 40), n, np.int16), position=(-10, -12, depth))
    image = hilum.read(tmp_path)
    # 13.8 mm from the first slice to the last, of which each is rounded: eleven steps of 1.25 mm are 13.75.
    assert image.geometry.spacing == pytest.approx((1, 1, 13.8 / 11))
    assert [note for note in image.notes if "gaps of 1.2, 1.3 mm" in note and "even step of 1.255 mm" in note]


def test_whole_millimetres_of_slices_2_5_mm_apart_are_rounding_and_a_missing_slice_is_none(tmp_path):
    def series(name: str, depths: list[int]) -> Path:
        (tmp_path / name).mkdir()
        for n, depth in enumerate(depths):
            write_slice(tmp_path / name / f"{n}.dcm", np.ones((2, 2), np.uint16), position=(0, 0, depth))
        return tmp_path / name

    assert hilum.read(series("rounded", [0, 3, 5, 8, 10])).geometry.spacing == pytest.approx((1, 1, 2.5))
    with pytest.raises(GeometryError, match="1 slice is missing"):
        hilum.read(series("missing", [0, 2, 4, 8, 10]))
    with pytest.raises(GeometryError, match="not evenly spaced"):
        hilum.read(series("uneven", [0, 5, 10, 13, 20]))


def test_a_spacing_in_text_of_the_wrong_kind_is_read(tmp_path):
    for n in range(6):
        path = write_slice(tmp_path / f"{n}.dcm", np.full((32, 40), n, np.int16), position=(0, 0, 2 * n))
        header = pydicom.dcmread(path)
        header["PixelSpacing"] = pydicom.DataElement("PixelSpacing", "UT", "0.50\\0.75")
        header.save_as(path)
    image = hilum.read(tmp_path)
    assert image.geometry.spacing == pytest.approx((0.75, 0.5, 2))


# -- users without a home ----------------------------------------------------------------------------------------------


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without HOME and without an entry in the list of users; the system's temporary folder."""
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HILUM_CACHE", "HILUM_PATIENT_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda user: {}[user])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cache._temporary.cache_clear()
    yield tmp_path
    cache._temporary.cache_clear()


def test_without_a_home_the_cache_lies_in_the_temporary_folder_for_its_owner_alone(homeless, caplog):
    folder = cache.cache_folder()
    assert folder == cache.cache_folder() == homeless / f"hilum-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert caplog.text.count("this user has no home folder") == 1 and "HILUM_CACHE" in caplog.text


@pytest.mark.parametrize("kind", ["open to others", "a link", "a file"])
def test_a_cache_that_somebody_else_has_laid_out_is_refused(homeless, kind):
    place = homeless / f"hilum-{os.getuid()}"
    if kind == "open to others":
        place.mkdir()
        place.chmod(0o777)
    elif kind == "a link":
        (homeless / "other").mkdir(mode=0o700)
        place.symlink_to(homeless / "other")
    else:
        place.write_text("")
    with pytest.raises(UsageError, match="set HILUM_CACHE to a folder that can be written to"):
        cache.cache_folder()


def test_a_stated_cache_and_a_stated_key_need_no_home(homeless, monkeypatch):
    monkeypatch.setenv("HILUM_CACHE", str(homeless / "own"))
    monkeypatch.setenv("HILUM_PATIENT_KEY", "secret")
    assert cache.cache_folder() == homeless / "own"
    assert len(hashing.make_pseudonym("4711")) == 16
    monkeypatch.delenv("HILUM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(homeless / "xdg"))
    assert cache.cache_folder() == homeless / "xdg" / "hilum"


def test_dicom_of_a_user_without_a_home_asks_for_a_key(homeless):
    (homeless / "study").mkdir()
    write_slice(homeless / "study" / "a.dcm", np.ones((2, 2), np.uint16))
    with pytest.raises(UsageError, match="Set HILUM_PATIENT_KEY to a secret of your own"):
        hilum.check(homeless / "study")


# -- names -------------------------------------------------------------------------------------------------------------


def parts_of(folder: Path) -> Counter[str]:
    return Counter(dataset_layouts.read_dataset(folder, DatasetOptions()).splits.values())


def voc(folder: Path) -> Path:
    """Pascal VOC of twelve pictures with blanks in their names, in three parts."""
    (folder / "Annotations").mkdir(parents=True)
    names = [f"case {n:03d}" for n in range(12)]
    for n, name in enumerate(names):
        picture(folder / "JPEGImages" / f"{name}.png", n, (48, 64))
        size = "<size><width>64</width><height>48</height><depth>1</depth></size>"
        box = "<bndbox><xmin>11</xmin><ymin>6</ymin><xmax>26</xmax><ymax>17</ymax></bndbox>"
        text = f"<annotation><filename>{name}.png</filename>{size}<object><name>cell</name>{box}</object></annotation>"
        (folder / "Annotations" / f"{name}.xml").write_text(text)
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for part, listed in (("train", names[:6]), ("val", names[6:9]), ("test", names[9:])):
        (lists / f"{part}.txt").write_text("\n".join(listed) + "\n")
    return folder


def test_names_with_blanks_are_listed_in_parts(tmp_path):
    folder = voc(tmp_path / "set")
    assert parts_of(folder) == {"train": 6, "val": 3, "test": 3}
    lists = folder / "ImageSets" / "Main"
    (lists / "train.txt").write_text("".join(f"case {n:03d} {1 if n % 2 else -1}\n" for n in range(6)))
    (lists / "val.txt").write_text("".join(f"case {n:03d}.png\n" for n in range(6, 9)))
    assert parts_of(folder) == {"train": 6, "val": 3, "test": 3}


def test_numbers_of_coco_may_be_text(tmp_path):
    folder = tmp_path / "set"
    images = []
    annotations = []
    for n in range(12):
        picture(folder / "images" / f"v{n:02d}.png", n, (48, 64))
        images.append({"id": n, "file_name": f"v{n:02d}.png", "width": 64, "height": 48})
        box = {"category_id": 1, "bbox": [10, 5, 16, 12], "iscrowd": 0, "segmentation": []}
        annotations.append({"id": n, "image_id": str(n), **box})
    record = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cell"}]}
    (folder / "annotations.json").write_text(json.dumps(record))
    found = dataset_layouts.read_dataset(folder, DatasetOptions())
    assert len(found) == 12
    assert all(len(case.references["boxes"].low) == 1 for case in found)
    record = json.loads((folder / "annotations.json").read_text())
    record["categories"][0]["id"], record["annotations"][0]["iscrowd"] = "1", "0"
    (folder / "annotations.json").write_text(json.dumps(record))
    again = dataset_layouts.read_dataset(folder, DatasetOptions())
    assert not any(case.references["boxes"].ignored.any() for case in again)
    record["images"][1]["id"] = record["annotations"][1]["image_id"] = "0"  # as text and as a number it is one
    (folder / "annotations.json").write_text(json.dumps(record))
    with pytest.raises(DatasetError, match="one number to two images"):
        dataset_layouts.read_dataset(folder, DatasetOptions())


def test_capitals_in_names_do_not_part_a_mask_from_its_image(tmp_path):
    for n in range(4):
        picture(tmp_path / "images" / f"P{n}.JPG", 9)
        picture(tmp_path / "masks" / (f"p{n}.png" if n else "P0.png"), n % 2)
    found = dataset_layouts.read_dataset(tmp_path, DatasetOptions())
    assert [sorted(case.references) for case in found] == [["mask"]] * 4
    assert sorted(case.id for case in found) == ["P0", "P1", "P2", "P3"]


def test_where_capitals_alone_distinguish_two_images_they_count(tmp_path):
    for name in ("A", "a", "b"):
        picture(tmp_path / "images" / f"{name}.png", 9)
    picture(tmp_path / "masks" / "a.png", 1)
    picture(tmp_path / "masks" / "B.png", 1)
    found = {case.id: set(case.references) for case in dataset_layouts.read_dataset(tmp_path, DatasetOptions())}
    assert found["a"] == found["b"] == {"mask"} and "A" not in [name for name, own in found.items() if own]


def test_capitals_do_not_part_boxes_from_their_images(tmp_path):
    folder = voc(tmp_path / "set")
    for path in (folder / "JPEGImages").iterdir():
        path.rename(path.with_name(path.name.upper()))
    assert len(dataset_layouts.read_dataset(folder, DatasetOptions())) == 12
    shutil.rmtree(folder)
    for n in range(3):
        picture(folder / "images" / f"P{n}.PNG", 9)
        (folder / "labels").mkdir(exist_ok=True)
        (folder / "labels" / f"p{n}.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    assert all("boxes" in case.references for case in dataset_layouts.read_dataset(folder, DatasetOptions()))
