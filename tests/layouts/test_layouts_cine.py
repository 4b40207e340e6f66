"""Segmentations of single phases of a cine: frames are told apart by the instances that they name."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pydicom
import pytest

from hilum.errors import FormatError
from hilum.files import file_formats
from hilum.files.dicom import header_reading
from hilum.files.dicom.writing import seg, source_planes
from hilum.layouts import dataset_layouts
from hilum.layouts.cases import dicom_masks
from hilum.values import Image, Label
from written_dicom import write_slice

PHASES, SLICES = 4, 2


def cine(folder: Path) -> list[Image]:
    """Each phase of a cine of single images, to be contoured."""
    (folder / "cine").mkdir()
    for number in range(PHASES * SLICES):
        write_slice(
            folder / "cine" / f"{number}.dcm", np.full((8, 9), 100 * number, np.uint16),
            position=(0, 0, 8.0 * (number // PHASES)), TriggerTime=40 * (number % PHASES), InstanceNumber=number + 1,
            SliceThickness=8, sop_class="1.2.840.10008.5.1.4.1.1.4",
        )  # fmt: skip
    return list(source_planes.split_into_volumes(file_formats.read(folder / "cine")))


def contour(phase: Image, columns: int, path: Path, algorithm: str = "a") -> None:
    """Mark as many columns of a slice."""
    mask = np.zeros(phase.geometry.shape, np.uint8)
    mask[:columns, :, 1] = 1
    seg.write_segmentation(mask, [Label(1, "wall")], phase, path, algorithm_name=algorithm)


def columns_of(folder: Path, kind: str = "mask") -> dict[str, int]:
    """{frame of the case: columns that its mask marks}"""
    cases = [(case.id.rpartition("_")[2], case.references[kind]) for case in dataset_layouts.read_dataset(folder)]
    return {name: int(mask.data[0, :, 0, 1].sum()) for name, mask in cases}


@pytest.mark.parametrize("contoured", [(0, 1, 2, 3), (3, 1)], ids=["all phases", "some phases"])
def test_segmentations_of_phases_are_one_mask_of_the_frames_that_are_contoured(contoured, tmp_path):
    phases = cine(tmp_path)
    for number in contoured:
        contour(phases[number], number + 1, tmp_path / f"seg{9 - number}.dcm")
    assert columns_of(tmp_path) == {f"frame{number:03}": number + 1 for number in sorted(contoured)}
    left_out = [one.what for one in dataset_layouts.read_dataset(tmp_path).problems if "left out" in one.what]
    few = "2 frames are left out, of 1 clip: no segmentation refers to them"
    assert left_out == ([] if len(contoured) == PHASES else [few])


def test_a_clip_and_its_segmentations_are_read_once_for_all_frames(tmp_path, monkeypatch):
    phases = cine(tmp_path)
    for number in range(PHASES):
        contour(phases[number], 1, tmp_path / f"seg{number}.dcm")
    read, loads = dicom_masks.load_contoured_masks, []
    monkeypatch.setattr(dicom_masks, "load_contoured_masks", lambda *one, **how: loads.append(1) or read(*one, **how))
    masks = [case.references["mask"].data for case in dataset_layouts.read_dataset(tmp_path)]
    assert len(masks) == PHASES and len(loads) == 1


FRAMES, UNCONTOURED = 12, 5


def clip_with_one_segmentation(folder: Path, patient: str) -> None:
    """An ultrasound clip in one file and one segmentation, which marks as many columns of a frame as its number."""
    (folder / patient).mkdir(parents=True)
    pixels = np.arange(FRAMES, dtype=np.uint16)[:, None, None] * np.ones((8, 16), np.uint16)
    write_slice(
        folder / patient / "clip.dcm", pixels, position=None, orientation=None, spacing=None, FrameTime="40",
        sop_class="1.2.840.10008.5.1.4.1.1.3.1", Modality="US", PatientID=patient, FrameOfReferenceUID=None,
        StudyInstanceUID=f"1.2.3.{patient}", SeriesInstanceUID=f"1.2.4.{patient}",
    )  # fmt: skip
    mask = np.zeros((FRAMES, 8, 16), np.uint8)
    for frame in range(FRAMES):
        mask[frame, :, : 0 if frame == UNCONTOURED else frame + 1] = 1
    source = file_formats.read(folder / patient / "clip.dcm")
    seg.write_segmentation(mask, [Label(1, "wall")], source, folder / patient / "seg.dcm", algorithm_name="a")


def test_the_segmentation_of_a_clip_is_opened_once_for_all_frames_in_each_process(tmp_path, monkeypatch):
    for number in range(3):
        clip_with_one_segmentation(tmp_path, f"{number}")
    read, opened = header_reading.read_object, []
    monkeypatch.setattr(header_reading, "read_object", lambda path: opened.append(path) or read(path))

    dataset = dataset_layouts.read_dataset(tmp_path)
    assert sorted(opened) == [tmp_path / f"{number}/seg.dcm" for number in range(3)]
    [left_out] = [problem.what for problem in dataset.problems if "left out" in problem.what]
    assert left_out == "3 frames are left out, of 3 clips: no segmentation refers to them"

    opened.clear()
    contoured = [frame for frame in range(FRAMES) if frame != UNCONTOURED]
    # As each frame is sent to a worker process by itself.
    frames = [pickle.loads(pickle.dumps(case)) for case in dataset.cases[: len(contoured)]]  # noqa: S301 - our own
    assert [int(np.unique(case.images["image"].data).item()) for case in frames] == contoured
    columns = [int(case.references["mask"].data[0, 0].sum()) for case in frames]
    assert columns == [frame + 1 for frame in contoured]
    assert len(opened) == 1


def test_one_segmentation_of_several_phases_is_parted_by_the_images_that_its_frames_name(tmp_path):
    phases = cine(tmp_path)
    for number in (1, 2):
        contour(phases[number], number + 1, tmp_path / f"{number}.dcm")
    first, second = (pydicom.dcmread(tmp_path / f"{number}.dcm") for number in (1, 2))
    bits = [np.packbits(one.pixel_array.ravel(), bitorder="little").tobytes() for one in (first, second)]
    first.PerFrameFunctionalGroupsSequence.extend(second.PerFrameFunctionalGroupsSequence)
    first.NumberOfFrames, first.PixelData = 2, b"".join(bits)
    first.save_as(tmp_path / "1.dcm")
    (tmp_path / "2.dcm").unlink()
    assert columns_of(tmp_path) == {"frame001": 2, "frame002": 3}


def test_two_segmentations_of_one_phase_are_two_readers(tmp_path):
    phases = cine(tmp_path)
    for number in range(PHASES):
        for reader in ("a", "b"):
            contour(phases[number], number + 1 + (reader == "b"), tmp_path / f"{reader}{number}.dcm", reader)
    kinds = sorted({kind for case in dataset_layouts.read_dataset(tmp_path) for kind in case.references})
    assert len(kinds) == 2
    both = [columns_of(tmp_path, kind) for kind in kinds]
    assert [sorted(one.values()) for one in sorted(both, key=str)] == [[1, 2, 3, 4], [2, 3, 4, 5]]


def test_a_segmentation_that_names_images_of_all_phases_is_refused(tmp_path):
    contour(cine(tmp_path)[1], 3, tmp_path / "seg.dcm")
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        del groups.DerivationImageSequence
    instances = [pydicom.dcmread(path).SOPInstanceUID for path in (tmp_path / "cine").iterdir()]
    named = dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    for uid in instances:
        item = pydicom.Dataset()
        item.update(named[0])
        item.ReferencedSOPInstanceUID = uid
        named.append(item)
    dataset.save_as(tmp_path / "seg.dcm")
    [case, *_] = dataset_layouts.read_dataset(tmp_path)
    with pytest.raises(FormatError, match="names images of 4 frames of the series"):
        case.references["mask"]
