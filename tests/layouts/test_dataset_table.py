"""The rows of a data set: what is written as `dataset.csv` reads as the same cases, and a person can correct it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import real_data
from cohorts import classed, paired, picture, volume
from hilum.errors import DatasetError, HilumError, UsageError
from hilum.files.storage import hashing
from hilum.layouts import dataset_layouts, dataset_table, layout
from hilum.layouts.cases.dataset_folder import Folder
from hilum.layouts.layout import LAYOUTS, DatasetOptions
from hilum.values import BoundingBoxes, Cell, Dataset, Geometry, Image
from hilum.values.spatial_transform import Correspondence
from layout_examples import write_example

IMAGES_ALONE = DatasetOptions(references=False)
Maker = Callable[[Path, Path], Any]


def again(dataset: Dataset, place: Path, options: DatasetOptions | None = None) -> Dataset:
    """The data set as its own table is read."""
    place.mkdir(parents=True, exist_ok=True)
    dataset_table.write_dataset_table(dataset, place)
    return dataset_layouts.read_dataset(place / "dataset.csv", options)


def seen(load: Callable[[], Any]) -> Any:
    """What is read, as it can be compared; the problem where it is refused."""
    try:
        value = load()
    except HilumError as error:
        return error.problem
    match value:
        case Image():
            labels, grid = [str(label) for label in value.labels], value.geometry.affine.tolist()
            return (
                value.data.tobytes(),
                str(value.data.dtype),
                value.modality,
                value.channels,
                labels,
                grid,
                value.notes,
            )
        case BoundingBoxes():
            return value.corners.tolist(), value.names, value.notes
        case Correspondence():
            return [seen(lambda one=one: one) for one in vars(value).values()]
        case np.ndarray():
            return value.tolist()
        case _:
            return value


def facts(dataset: Dataset, most: int = 100) -> dict[str, Any]:
    """All that a data set says of its cases, and what the first of them hold."""
    chosen = dataset.cases[:: max(1, len(dataset) // most)]
    return {
        "cases": [(case.id, case.patient, case.group, case.known, dataset.splits.get(case.id)) for case in dataset],
        "covariates": [{k: v for k, v in case.covariates.items() if v not in (None, "")} for case in dataset],
        "files": [[os.path.realpath(path) for path in case.files] for case in dataset],
        "hashes": [hashing.content_hash(case) for case in chosen],
        "images": [{name: seen(lambda c=case, n=name: c.images[n]) for name in case.images} for case in chosen],
        "references": [{k: seen(lambda c=case, k=k: c.references[k]) for k in case.references} for case in chosen],
        "classes": {kind: list(labels) for kind, labels in dataset.classes.items()},
        "rest": (dataset.readers, dataset.modality, dict(dataset.regions), dataset.patients_known, dataset.name),
    }


def cvat_clip(root: Path, data: Path) -> None:
    for n in range(2):
        picture(root / "images" / f"a{n}.png", n, (20, 30))
    corners = 'xtl="2" ytl="3" xbr="9" ybr="8"'
    boxes = "".join(f'<box frame="{n}" outside="{n // 2}" {corners}/>' for n in (0, 2))
    size = "<original_size><width>30</width><height>20</height></original_size>"
    meta = f"<meta><task><size>3</size>{size}<source>clip.mp4</source></task></meta>"
    text = f'<annotations>{meta}<track id="4" label="cyst">{boxes}</track></annotations>'
    (root / "annotations.xml").write_text(text)


def dicom(root: Path, data: Path) -> None:
    shutil.copytree(data / "dicom" / "series" / "ct_23x38x3_with_seg", root / "series")
    shutil.copy(data / "dicom" / "files" / "dcmqi_seg_23x38x3.dcm", root)


def odd_names(root: Path, data: Path) -> None:
    for name in ("a#1", "b|2", "c=3", "d%23", "e,f"):
        picture(root / "images" / f"{name}.png")
        picture(root / "masks" / f"{name}.png", 255)


MADE: dict[str, Maker] = {
    **{name: lambda root, data, name=name: write_example(root, name) for name in LAYOUTS},
    "odd names of files": odd_names,
    "a clip of CVAT": cvat_clip,
    "a segmentation in DICOM": dicom,
}
OPTIONS = {
    "manifest": DatasetOptions(
        column={"finding:oedema": "oedema", "finding:effusion": "effusion", "value:volume": "volume"}
    ),
    "plain_images": replace(IMAGES_ALONE, layout="plain_images"),
    "dicom_folder": IMAGES_ALONE,
}


def test_each_layout_has_an_example_that_it_recognises(tmp_path):
    for name in LAYOUTS:
        folder, chosen = Folder(write_example(tmp_path / name, name)), layout.load_layout(name)
        assert chosen.example, name
        assert chosen.fits(folder, DatasetOptions()), name


@pytest.mark.parametrize("layout", MADE)
def test_its_own_table_reads_as_the_same_cases_to_the_bit(layout, data, tmp_path):
    root = tmp_path / "a set"
    root.mkdir()
    MADE[layout](root, data)
    options = OPTIONS.get(layout, DatasetOptions())
    dataset = dataset_layouts.read_dataset(root, options)
    assert facts(again(dataset, tmp_path / "out", DatasetOptions(references=options.references))) == facts(dataset)


@pytest.mark.parametrize(("layout", "kind"), [("coco", "mask"), ("coco", "instances"), ("image_folders", "instances")])
def test_its_own_table_can_be_read_as_another_kind_of_reference(layout, kind, data, tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    MADE[layout](root, data)
    wanted = DatasetOptions(kinds=frozenset({kind}))
    assert facts(again(dataset_layouts.read_dataset(root), tmp_path / "out", wanted)) == facts(
        dataset_layouts.read_dataset(root, wanted)
    )


def test_options_by_which_it_was_read_hold_for_its_table(tmp_path):
    root, volumes = tmp_path / "set", np.zeros((4, 5, 6), np.uint8)
    volumes[1], volumes[2] = 1, 2
    for n in range(2):
        volume(root / "images" / f"x{n}.nii.gz")
        volume(root / "labels" / f"x{n}.nii.gz", volumes)
    named = DatasetOptions(labels="1=head,2=tail")
    assert facts(again(dataset_layouts.read_dataset(root, named), tmp_path / "out")) == facts(
        dataset_layouts.read_dataset(root, named)
    )


@pytest.mark.whole
@pytest.mark.parametrize(("folder", "fewest"), real_data.facts(shipped=20, corpus=51))
def test_the_tables_of_all_real_data_read_as_the_same_cases(folder, fewest, tmp_path):
    count = 0
    for place in (path for path in folder.rglob("*") if path.is_dir()):
        if len(place.relative_to(folder).parts) > 3:
            continue
        for options in (DatasetOptions(), IMAGES_ALONE):
            try:
                dataset = dataset_layouts.read_dataset(place, options)
            except HilumError:
                continue
            count += 1
            read = again(dataset, tmp_path / str(count), DatasetOptions(references=options.references))
            assert facts(read, 5) == facts(dataset, 5), place
    assert count >= fewest


TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/\\"), min_size=1).filter(
    lambda text: text not in (".", "..") and text.strip() == text
)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3), st.sampled_from(["", "coco", "frame"]), TEXT)
def test_a_cell_is_spelled_so_that_it_is_read_as_it_was(named, part, key):
    base = Path("/base")
    cell = Cell(tuple(base / path for _, path in named), part, key if part else "", tuple(name for name, _ in named))
    assert dataset_table.parsed_cell(dataset_table.spell_cell(cell, base)) == (named, part, cell.key)


def test_a_corrected_row_is_read_as_it_stands(tmp_path):
    dataset = dataset_layouts.read_dataset(paired(tmp_path / "set"))
    again(dataset, tmp_path / "out")
    written = pd.read_csv(tmp_path / "out" / "dataset.csv", dtype=str)
    written.loc[0, ["mask", "patient", "split"]] = [written.loc[1, "mask"], "Ann", "test"]
    written.drop(index=3).to_csv(tmp_path / "out" / "dataset.csv", index=False)
    corrected = dataset_layouts.read_dataset(tmp_path / "out" / "dataset.csv")
    assert [case.id for case in corrected] == ["x0", "x1", "x2"]
    assert corrected.cases[0].references["mask"].data.all()
    assert (corrected.cases[0].patient, corrected.splits) == ("Ann", {"x0": "test"})


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        ("../set/images/x0.png#page=2", "part page, which is none"),
        ("../set/images#series=1.2.3", "names the series 1.2.3, which"),
    ],
)
def test_a_cell_that_cannot_be_read_is_refused_by_name(cell, problem, tmp_path):
    again(dataset_layouts.read_dataset(paired(tmp_path / "set")), tmp_path / "out")
    written = pd.read_csv(tmp_path / "out" / "dataset.csv", dtype=str)
    written.loc[0, "image"] = cell
    written.to_csv(tmp_path / "out" / "dataset.csv", index=False)
    with pytest.raises(DatasetError, match=problem):
        dataset_layouts.read_dataset(tmp_path / "out" / "dataset.csv")


def test_a_class_that_is_not_declared_is_refused(tmp_path):
    again(dataset_layouts.read_dataset(classed(tmp_path / "set")), tmp_path / "out")
    path = tmp_path / "out" / "dataset.csv"
    path.write_text(path.read_text().replace("benign0.png,benign", "benign0.png,begnin"))
    with pytest.raises(DatasetError, match=r"states the class begnin, which is not declared.*Add it under classes"):
        dataset_layouts.read_dataset(path)


def test_a_table_in_memory_is_a_data_set(tmp_path):
    paired(tmp_path)
    columns: dict[str, list[Any]] = {
        "case": [f"x{n}" for n in range(4)],
        "patient": ["P0", "P0", "P1", "P1"],
        "image:T1": [str(tmp_path / "images" / f"x{n}.png") for n in range(4)],
        "image:FLAIR": [str(tmp_path / "images" / f"x{n}.png") for n in range(4)],
        "mask": [str(tmp_path / "labels" / f"x{n}.png") for n in range(4)],
        "age": [50, 51, 52, 53],
    }
    dataset = dataset_layouts.read_data_frame(pd.DataFrame(columns))
    assert list(dataset.cases[0].images) == ["T1", "FLAIR"]
    assert [case.patient for case in dataset] == ["P0", "P0", "P1", "P1"]
    assert dataset.cases[1].references["mask"].data.all() and dataset.cases[3].covariates["age"] == 53
    with pytest.raises(DatasetError, match="no column image"):
        dataset_layouts.read_data_frame(pd.DataFrame({"name": ["x"]}))


@pytest.mark.parametrize("cell", [np.zeros((4, 4)), [1, 2], Image(np.zeros((1, 4, 4)), Geometry((4, 4), np.eye(3)))])
def test_a_table_in_memory_whose_cells_are_no_paths_is_refused_by_its_column(cell):
    with pytest.raises(DatasetError, match=r"column image holds (arrays|Image), not paths.*numpy\.save"):
        dataset_layouts.read_data_frame(pd.DataFrame({"case": ["a", "b"], "image": [cell, None], "label": ["x", "y"]}))


def people(count: int = 6) -> pd.DataFrame:
    """A frame as a textbook has it, of pictures as `classed` makes them."""
    files = [f"{name}/{name}{n}.png" for n in range(count // 2) for name in ("benign", "malignant")]
    numbers = [51, 52, None, 54, 55, 56]
    return pd.DataFrame(
        {
            "image_path": files,
            "label": [file.partition("/")[0] for file in files],
            "patient_id": [7, 7, 8, 8, 9, 9],
            "age": numbers,
            "sex": pd.Categorical(["F", "M"] * (count // 2)),
            "bmi": [f"{n / 2:.1f}" for n in range(count)],
            "seen": pd.Timestamp("2024-02-01"),
            "smoker": [True, False] * (count // 2),
        }
    )


def stated(dataset: Dataset) -> list[Any]:
    return [(c.id, c.patient, dict(c.references), dict(c.covariates), c.files) for c in dataset]


@pytest.mark.parametrize("names", [{}, {"image": "scan", "label": "state", "patient": "person"}])
def test_a_data_frame_is_read_as_the_same_table_in_csv(names, tmp_path):
    root = classed(tmp_path / "set")
    known = {"image": "image_path", "label": "label", "patient": "patient_id"}
    frame = people().rename(columns={known[role]: name for role, name in names.items()})
    frame.to_csv(root / "people.csv", index=False)
    given = DatasetOptions(root=root, column=names)
    read = dataset_layouts.read_data_frame(frame, given)
    assert stated(read) == stated(dataset_layouts.read_dataset(root / "people.csv", DatasetOptions(column=names)))
    assert [case.patient for case in read] == ["7", "7", "8", "8", "9", "9"]
    assert read.cases[0].covariates == {"age": 51, "sex": "F", "bmi": 0, "seen": "2024-02-01", "smoker": "True"}
    frame.to_csv(tmp_path / "elsewhere.csv", index=False)
    assert stated(dataset_layouts.read_dataset(tmp_path / "elsewhere.csv", given)) == stated(read)


def test_paths_of_a_data_frame_start_from_the_working_folder_unless_they_are_whole(tmp_path, monkeypatch):
    root = classed(tmp_path / "set")
    with pytest.raises(DatasetError, match=r"names no file that is there: its paths start from .*Give root=FOLDER"):
        dataset_layouts.read_data_frame(people())
    whole = people().assign(image_path=lambda frame: [root / file for file in frame["image_path"]])
    found = stated(dataset_layouts.read_data_frame(whole))
    monkeypatch.chdir(root)
    assert found == stated(dataset_layouts.read_data_frame(people()))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"image_path": None}, r"has no column image \(columns: label, .*image_path, or name it: column="),
        ({"bmi": [[21.5, 22.0]] * 6}, "column bmi holds arrays, not paths, numbers or words"),
    ],
)
def test_a_data_frame_without_images_or_with_lists_is_refused_by_its_column(change, match, tmp_path):
    frame = people().assign(**change).dropna(axis=1, how="all")
    with pytest.raises(DatasetError, match=match):
        dataset_layouts.read_data_frame(frame, DatasetOptions(root=classed(tmp_path / "set")))


def test_a_folder_has_no_paths_that_start_elsewhere(tmp_path):
    with pytest.raises(UsageError, match="only the paths of a table or a DataFrame"):
        dataset_layouts.read_dataset(classed(tmp_path / "set"), DatasetOptions(root=tmp_path))
    with pytest.raises(UsageError, match="there is no such folder"):
        dataset_layouts.read_data_frame(people(), DatasetOptions(root=tmp_path / "nowhere"))


def test_a_table_in_memory_with_two_columns_of_one_name_is_refused():
    frame = pd.DataFrame([["a.png", "b.png", "x"]], columns=["image", "image", "label"])
    with pytest.raises(DatasetError, match="several columns image"):
        dataset_layouts.read_data_frame(frame)


@pytest.mark.parametrize(("separator", "comma"), [(",", "."), (";", ","), ("\t", ",")])
@pytest.mark.parametrize(
    ("columns", "cells", "kinds"),
    [
        ("image:T1,image:FLAIR,mask", "t{n}.nii,f{n}.nii,m{n}.nii", {"mask"}),
        ("image,finding:oedema,finding:mass", "t{n}.nii,{n},1", {"findings"}),
        ("image,value:volume", "t{n}.nii,{n}_5", {"value"}),
        ("image,time,event", "t{n}.nii,{n}_5,1", {"event"}),
        ("image,mask:anna,mask:bob", "t{n}.nii,m{n}.nii,n{n}.nii", {"mask", "mask:bob"}),
        ("image,mask", "t{n}.nii,liver=m{n}.nii|spleen=n{n}.nii", {"mask"}),
        ("image:A,image:B,mask", "4{n}.nii#frame=0/2,4{n}.nii#frame=1/2,m{n}.nii", {"mask"}),
        ("image,instances", "t{n}.nii,m{n}.nii|n{n}.nii", {"instances"}),
    ],
)
def test_a_table_that_is_written_by_hand_reads_as_documented(tmp_path, columns, cells, kinds, separator, comma):
    for n in range(2):
        for name in "tfmn":
            volume(tmp_path / f"{name}{n}.nii")
        volume(tmp_path / f"4{n}.nii", np.zeros((4, 5, 6, 2), np.uint8))
    lines = [f"case,{columns},age", *(f"p{n},{cells.format(n=n)},6{n}_5" for n in range(2)), ",,"]
    text = "\r\n".join(lines).replace(",", separator).replace("_", comma)
    (tmp_path / "mine.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    dataset = dataset_layouts.read_dataset(tmp_path / "mine.csv")
    assert [case.id for case in dataset] == ["p0", "p1"] and {*dataset.kinds, *dataset.cases[0].references} >= kinds
    assert [*dataset.cases[0].images] == [
        name.partition(":")[2] or name for name in columns.split(",") if "image" in name
    ]
    assert [case.covariates["age"] for case in dataset] == [60.5, 61.5]
    if "value" in kinds:
        assert [case.references["value"]["volume"] for case in dataset] == [0.5, 1.5]


def test_its_own_table_may_be_saved_by_a_spreadsheet(tmp_path):
    paired(tmp_path)
    (tmp_path / "more.csv").write_text("case,age\n" + "".join(f"x{n},{60 + n / 4}\n" for n in range(4)))
    before = dataset_layouts.read_dataset(tmp_path)
    dataset_table.write_dataset_table(before, tmp_path)
    path = tmp_path / "dataset.csv"
    for separator in ";\t":
        text = path.read_text().replace(".25", "_25").replace(".5", "_5").replace(".75", "_75").replace(".0", "_0")
        lines = [line.replace(",", separator).replace("_", ",") + separator for line in text.splitlines()]
        (tmp_path / "saved.csv").write_text("\ufeff" + "\r\n".join([*lines, separator * 4]), "utf-8")
        (tmp_path / "saved.toml").write_text(path.with_suffix(".toml").read_text())
        after = dataset_layouts.read_dataset(tmp_path / "saved.csv")
        assert facts(after) == facts(before) and [case.covariates["age"] for case in after] == [60, 60.25, 60.5, 60.75]


def test_a_refused_folder_names_the_table_by_which_it_can_be_said(tmp_path):
    for n in range(2):
        picture(tmp_path / "images" / f"x{n}.png")
    with pytest.raises(DatasetError, match=r"check DATA --out FOLDER writes dataset\.csv"):
        dataset_layouts.read_dataset(tmp_path)


def test_a_folder_of_two_readings_is_refused_with_the_rows_of_both(tmp_path):
    write_example(tmp_path, "voc")
    write_example(tmp_path, "labelme")
    with pytest.raises(
        DatasetError, match=r"case,image,boxes / images/a0,.*#voc.*case,image,mask / images/a0,.*#labelme"
    ):
        dataset_layouts.read_dataset(tmp_path)


def test_cells_of_four_axes_name_their_frame(tmp_path):
    write_example(tmp_path, "decathlon")
    assert nibabel.load(tmp_path / "imagesTr" / "c0.nii.gz").ndim == 4
    again(dataset_layouts.read_dataset(tmp_path), tmp_path / "out")
    assert "c0.nii.gz#frame=1/2" in (tmp_path / "out" / "dataset.csv").read_text()
