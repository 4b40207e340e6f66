"""Segmentations of 3D Slicer as masks: known by their suffix, and numbered by the names of their segments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from cohorts import volume
from hilum.errors import FormatError
from hilum.files import file_formats
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions
from hilum.values import Geometry, Image, Label


def segmentation(path: Path, values: Mapping[str, int]) -> Path:
    """Segments of four voxels each, in the order of their names in `values`."""
    pixels = np.zeros((1, 4, 5, 6), np.uint8)
    for n, value in enumerate(values.values()):
        pixels[0, n, 0, :4] = value
    labels = tuple(Label(value, name) for name, value in values.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    file_formats.write(Image(pixels, Geometry((4, 5, 6), np.eye(4)), labels=labels), path)
    return path


def layered(path: Path, second: int) -> Path:
    """Two segments in layers of their own, which begin at the voxels 0 and `second`."""
    layers = np.zeros((2, 4, 5, 6), np.uint8)
    layers[0, 0], layers[1, second] = 1, 1
    head = ["NRRD0004", "type: uchar", "dimension: 4", "sizes: 2 4 5 6", "encoding: raw", "endian: little"]
    head += ["space: right-anterior-superior", "space origin: (0,0,0)", "kinds: list domain domain domain"]
    head += ["space directions: none (1,0,0) (0,1,0) (0,0,1)"]
    for n, name in enumerate(("liver", "tumour")):
        head += [f"Segment{n}_Name:={name}", f"Segment{n}_LabelValue:=1", f"Segment{n}_Layer:={n}"]
    path.write_bytes(("\n".join(head) + "\n\n").encode() + layers.tobytes(order="F"))
    return path


def voxels(mask: Image) -> list[int]:
    return mask.data[0, :2, 0, 0].tolist()


def test_a_segmentation_next_to_its_image_is_its_mask(tmp_path):
    volume(tmp_path / "x.nii.gz")
    segmentation(tmp_path / "x.seg.nrrd", {"liver": 3, "tumour": 1})
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.id for case in dataset] == ["x"]
    assert [(label.value, label.name) for label in dataset.classes["mask"]] == [(1, "tumour"), (3, "liver")]
    assert voxels(dataset.cases[0].references["mask"]) == [3, 1]


@pytest.mark.parametrize("place", [("", ""), ("images", "labels")])
def test_a_structure_has_one_number_whatever_number_each_file_gives_it(tmp_path, place):
    images, masks = (tmp_path / folder for folder in place)
    for name, values in (("x", {"liver": 1, "tumour": 2}), ("y", {"liver": 2, "tumour": 1})):
        volume(images / f"{name}.nii.gz")
        segmentation(masks / f"{name}.seg.nrrd", values)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [label.name for label in dataset.classes["mask"]] == ["liver", "tumour"]
    assert [voxels(case.references["mask"]) for case in dataset] == [[1, 2], [1, 2]]
    only = dataset_layouts.read_dataset(tmp_path, DatasetOptions(labels="1=tumour"))
    assert [voxels(case.references["mask"]) for case in only] == [[0, 1], [0, 1]]
    renamed = dataset_layouts.read_dataset(tmp_path, DatasetOptions(labels="1=first,2=second"))
    assert [voxels(case.references["mask"]) for case in renamed] == [[1, 2], [2, 1]]


def test_segments_in_layers_are_one_label_map_and_refused_where_they_overlap(tmp_path):
    volume(tmp_path / "x.nii.gz")
    layered(tmp_path / "x.seg.nrrd", second=1)
    assert voxels(dataset_layouts.read_dataset(tmp_path).cases[0].references["mask"]) == [1, 2]
    layered(tmp_path / "x.seg.nrrd", second=0)
    with pytest.raises(FormatError, match="tumour overlaps another structure"):
        dataset_layouts.read_dataset(tmp_path).cases[0].references["mask"]
    [case] = dataset_layouts.read_dataset(tmp_path, DatasetOptions(labels="1=organ"))
    with pytest.raises(FormatError, match=r"none of its segments \(liver, tumour\) is declared"):
        case.references["mask"]
