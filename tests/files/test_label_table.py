"""Label tables: five kinds of file, one meaning."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.errors import FormatError, UsageError
from hilum.files import file_formats, label_table
from hilum.values import Geometry, Image, Label

ANTERIOR, POSTERIOR = Label(1, "Anterior hippocampus", (255, 0, 10)), Label(2, "Posterior", (0, 200, 0))

ITK_SNAP = """################################################
# ITK-SnAP Label Description File
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
    0     0    0    0        0  0  0    "Clear Label"
    1   255    0   10        1  1  0    "Anterior hippocampus"
    2     0  200    0        0.5  1  1    "Posterior"
"""
SLICER = """# Color table file
# 3 values
0 Background 0 0 0 0
1 Anterior hippocampus 255 0 10 255
2 Posterior 0 200 0 255
"""
FREESURFER = """#$Id: FreeSurferColorLUT.txt
#No. Label Name:                            R   G   B   A

0   Unknown                                 0   0   0   0
1   Anterior hippocampus                    255 0   10  0
2   Posterior                               0   200 0   0
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.csv", "1,Anterior hippocampus,255,0,10\n2,Posterior,0,200,0\n"),
        ("classes.csv", "value,name,red,green,blue\n1,Anterior hippocampus,255,0,10\n2,Posterior,0,200,0\n"),
        ("classes.csv", "﻿Name;ID;R;G;B\r\nAnterior hippocampus;1;255;0;10\r\nPosterior;2;0;200;0\r\n"),
        ("classes.csv", '# ours\n1,"Anterior hippocampus",255,0,10,255\n\n2,Posterior,0,200,0,255\n'),
        ("labels.txt", ITK_SNAP),
        ("colours.ctbl", SLICER),
        ("lut.txt", FREESURFER),
    ],
)
def test_every_kind_of_table_says_the_same(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert label_table.read_labels(tmp_path / name) == (ANTERIOR, POSTERIOR)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("scan_dseg.labels.csv", "1,Anterior hippocampus,255,0,10\n2,Posterior,0,200,0\n"),
        ("scan_dseg.label", ITK_SNAP),
        ("scan_dseg.ctbl", SLICER),
        ("scan_dseg_ColorTable.ctbl", SLICER),
        ("scan_dseg.ctab", FREESURFER),
        (
            "scan_dseg.tsv",
            "index\tname\tred\tgreen\tblue\n1\tAnterior hippocampus\t255\t0\t10\n2\tPosterior\t0\t200\t0\n",
        ),
    ],
)
def test_the_table_that_a_program_keeps_under_the_name_of_a_map_is_its_own(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert label_table.labels_of_map(tmp_path / "scan_dseg.nii.gz") == (ANTERIOR, POSTERIOR)
    assert label_table.labels_of_map(tmp_path / "scan.nii.gz") == ()


def test_colours_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text("0,background\n1,tumour,,,\n2,oedema,1,2,3\n")
    labels = label_table.read_labels(tmp_path / "classes.csv")
    assert labels == (Label(0, "background"), Label(1, "tumour"), Label(2, "oedema", (1, 2, 3)))


names = st.text(min_size=1, max_size=30).map(label_table.clean_name).filter(bool)
colours = st.none() | st.tuples(*[st.integers(0, 255)] * 3)


@given(st.lists(st.tuples(st.integers(0, 10**6), names, colours), min_size=1, max_size=8,
                unique_by=(lambda row: row[0], lambda row: row[1])))  # fmt: skip
def test_a_csv_says_what_was_written(rows: list[tuple[int, str, tuple[int, int, int] | None]]) -> None:
    labels = tuple(Label(*row) for row in rows)
    with tempfile.TemporaryDirectory() as folder:
        label_table.write_labels(labels, Path(folder) / "a.labels.csv")
        assert label_table.read_labels(Path(folder) / "a.labels.csv") == labels


def test_an_itk_snap_table_says_what_was_written(tmp_path: Path) -> None:
    label_table.write_labels((ANTERIOR, POSTERIOR), tmp_path / "a.txt")
    assert label_table.read_labels(tmp_path / "a.txt") == (ANTERIOR, POSTERIOR)
    with pytest.raises(UsageError, match="'plain' has no colour"):
        label_table.write_labels((Label(1, "plain"),), tmp_path / "b.txt")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1,a\n1,b\n", "the value 1 is both 'a' and 'b'"),
        ("1,a\n2,a\n", "'a' is both the value 1 and 2"),
        ("1,a,300,0,0\n", "not in 0 to 255"),
        ("1,a,red,0,0\n", "not a whole number"),
        ("1\n", "is not a label"),
        ("one,two\n", "the columns one, two"),
        ("value,name\nx,liver\n", "'x' or its colour is not a whole number"),
        ("value,name\n-1,liver\n", "'liver' has the value -1, and a label map holds 0 to 4294967295"),
        ("1,a\n99999999999,b\n", "'b' has the value 99999999999"),
        ("1,\x07\n", "the value 1 has no name"),
        ("# nothing\n", "no labels"),
        ('1 255 0 0 1 1 1 "a"\n2 255 0 0 1 1 b\n', "is not a label"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "classes.csv").write_text(text)
    with pytest.raises(FormatError, match=rf"classes\.csv: .*{reason}"):
        label_table.read_labels(tmp_path / "classes.csv")


def test_a_table_of_very_many_labels_takes_no_time_that_grows_with_its_square() -> None:
    labels = [Label(value, f"label {value}") for value in range(100_000)]  # an hour and more, each against all before
    assert len(label_table.check_labels(labels, "here")) == 100_000
    with pytest.raises(FormatError, match="'label 7' is both the value"):
        label_table.check_labels([*labels, Label(100_000, "label 7")], "here")


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_bytes(b"1,\xff\xfe\n")
    with pytest.raises(FormatError, match="not UTF-8"):
        label_table.read_labels(tmp_path / "classes.csv")


def test_names_lose_what_could_steer_a_terminal_or_break_a_line(tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text("1,\x1b[31m left\tlung \x00\n", encoding="utf-8")
    assert label_table.read_labels(tmp_path / "classes.csv") == (Label(1, "[31m left lung"),)


def test_a_label_map_finds_its_own_table_before_that_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text("1,lung\n")
    path = tmp_path / "mask.nii.gz"
    path.touch()
    assert label_table.find_labels(path) == label_table.find_labels(tmp_path) == (Label(1, "lung"),)
    (tmp_path / "mask.labels.csv").write_text("1,heart\n")
    assert label_table.find_labels(path) == (Label(1, "heart"),)
    assert label_table.find_labels(tmp_path / "none") == (Label(1, "lung"),)


def test_tables_of_one_folder_that_disagree_are_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text("1,lung\n")
    (tmp_path / "labels.csv").write_text("1,heart\n")
    with pytest.raises(FormatError, match=r"labels\.csv: gives other names than classes\.csv"):
        label_table.find_labels(tmp_path)


def test_a_list_of_images_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image,diagnosis\na.png,benign\n")
    assert label_table.find_labels(tmp_path) == ()
    (tmp_path / "classes.csv").write_text("1,lung\n")
    assert label_table.find_labels(tmp_path) == (Label(1, "lung"),)


def test_a_folder_without_a_table_has_no_names(tmp_path: Path) -> None:
    assert label_table.find_labels(tmp_path) == ()


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nii", "mask.seg.nrrd", "mask.mha", "mask.png", "mask.ome.tif"])
def test_a_table_is_named_after_its_label_map(name: str) -> None:
    assert label_table.table_path(Path("/x") / name) == Path("/x/mask.labels.csv")


def test_a_volume_read_beside_its_table_has_names(tmp_path: Path) -> None:
    path = tmp_path / "mask.nii.gz"
    file_formats.write(Image(np.ones((1, 2, 2, 2), np.uint8), Geometry((2, 2, 2), np.eye(4))), path)
    assert file_formats.read(path).labels == ()
    label_table.write_labels((ANTERIOR,), label_table.table_path(path))
    assert file_formats.read(path).labels == (ANTERIOR,)


@pytest.mark.parametrize("name", ["mask.png", "mask.tif", "mask.npy", "mask.ome.tif"])
def test_names_that_were_written_beside_a_picture_are_read_with_it(tmp_path: Path, name: str) -> None:
    pixels = np.array([[[0, 1, 2], [1, 0, 2], [2, 2, 2], [0, 0, 1], [1, 1, 1]]], np.uint8)
    image = Image(pixels, Geometry.of_pixels((5, 3)), channels=("label",), labels=(ANTERIOR, POSTERIOR))
    file_formats.write(image, tmp_path / name)
    again = file_formats.read(tmp_path / name)
    assert again.labels == (ANTERIOR, POSTERIOR)
    assert again.source is not None
    assert str(tmp_path / "mask.labels.csv") in again.source.paths


def test_a_table_beside_a_photograph_names_nothing(tmp_path: Path) -> None:
    image = Image(np.arange(36, dtype=np.uint8).reshape(3, 4, 3), Geometry.of_pixels((4, 3)), channels=("R", "G", "B"))
    file_formats.write(image, tmp_path / "photo.png")
    label_table.write_labels((ANTERIOR,), tmp_path / "photo.labels.csv")
    assert file_formats.read(tmp_path / "photo.png").labels == ()
