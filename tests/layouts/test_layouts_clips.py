"""Clips with tracks as data sets: CVAT for video and MOTChallenge, frame by frame."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import nibabel
import numpy as np
import PIL.Image
import pytest
from numpy.testing import assert_allclose

from hilum.errors import DatasetError, GeometryError
from hilum.layouts import dataset_layouts, dataset_table
from hilum.layouts.layout import DatasetOptions

SIZE, FRAMES = (40, 30), 9


def pictures(folder: Path, first: int = 0, frames: int = FRAMES) -> None:
    """Frames of a clip as pictures, numbered from `first` on."""
    folder.mkdir(parents=True)
    for number in range(frames):
        PIL.Image.fromarray(np.full(SIZE[::-1], 10 * number, np.uint8)).save(folder / f"{number + first:06}.png")


def box(frame: int, x: float, *, outside: int = 0) -> str:
    corners = f'xtl="{x}" ytl="5" xbr="{x + 8}" ybr="15"'
    return f'<box frame="{frame}" keyframe="1" outside="{outside}" occluded="1" {corners}/>'


def cvat(folder: Path, *tracks: str) -> Path:
    """A folder with the frames of a clip, and its file."""
    pictures(folder / "images")
    numbered = "".join(f'<track id="{n}" label="cell">{shapes}</track>' for n, shapes in enumerate(tracks))
    size = f"<original_size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></original_size>"
    meta = f"<meta><task><size>{FRAMES}</size>{size}<source>clip_7.mp4</source></task></meta>"
    (folder / "annotations.xml").write_text(f"<annotations><version>1.1</version>{meta}{numbered}</annotations>")
    return folder


def boxes_of(folder: Path, **options) -> dict[int, object]:
    """{frame: its boxes} of a data set of one clip."""
    cases = dataset_layouts.read_dataset(folder, DatasetOptions(**options))
    return {int(case.id.rpartition("frame")[2]): case.references["boxes"] for case in cases}


def test_a_cvat_track_moves_evenly_between_its_keyframes_and_is_nothing_while_it_is_outside(tmp_path):
    made = boxes_of(cvat(tmp_path / "set", box(0, 0) + box(4, 8) + box(6, 8, outside=1) + box(8, 20)))
    starts = {frame: one.corners[0][1] for frame, one in made.items() if len(one.corners)}
    assert starts == {0: 0, 1: 2, 2: 4, 3: 6, 4: 8, 5: 8, 8: 20}
    assert set(made) == set(range(FRAMES)), "a frame without an object is a case too"
    assert {one.numbers for one in made.values() if len(one.corners)} == {(0,)}


def test_what_of_a_cvat_track_leaves_the_image_is_cut_off_and_then_nothing(tmp_path):
    made = boxes_of(cvat(tmp_path / "set", box(0, 28) + box(4, 44)))
    assert_allclose([one.corners[0][3] for frame, one in made.items() if len(one.corners)], [36, 40, 40])
    assert [len(one.corners) for one in made.values()] == [1, 1, 1] + [0] * 6


@pytest.mark.parametrize(
    ("odd", "unknown", "known"),
    [
        # It moves from one keyframe to the next.
        (box(4, 8).replace('xtl="8"', 'xtl="?"'), range(1, 8), (0, 8)),
        (box(4, 8).replace('frame="4"', 'frame="?"'), range(1, 8), (0, 8)),
        (box(4, 8, outside=1) + box(6, 8).replace('xtl="8"', ""), (6, 7), (0, 1, 2, 3, 8)),
        ("<mask frame='4' rle='1, 2' left='1' top='1' width='9' height='9'/>", (4,), range(9)),
    ],
)
def test_where_a_shape_of_a_cvat_track_cannot_be_read_its_place_is_unknown(tmp_path, odd, unknown, known):
    made = boxes_of(cvat(tmp_path / "set", box(0, 0) + odd + box(8, 20), box(0, 30)), kinds=frozenset({"boxes"}))
    assert {frame for frame, one in made.items() if one.ignored.any()} == set(unknown)
    counted = {frame: one.at(~one.ignored) for frame, one in made.items()}
    assert all(30 in one.corners[:, 1] for one in counted.values()), "the other track stays"
    assert {frame for frame, one in counted.items() if len(one) == 2} == set(known)


def test_an_outline_of_a_cvat_track_is_a_mask_on_each_frame_and_an_empty_one_where_it_is_not(tmp_path):
    corners = "2,2;12,2;12,12;2,12"
    shape = f'<polygon frame="1" keyframe="1" outside="0" occluded="0" points="{corners}"/>'
    end = f'<polygon frame="3" keyframe="1" outside="1" occluded="0" points="{corners}"/>'
    cases = dataset_layouts.read_dataset(cvat(tmp_path / "set", shape + end), DatasetOptions())
    areas = [int(np.count_nonzero(case.references["mask"].data)) for case in cases]
    assert areas == [0, 100, 100, *[0] * 6]


def mot(folder: Path, *lines: str, names: str = "") -> Path:
    pictures(folder / "img1", first=1)
    (folder / "gt").mkdir()
    (folder / "gt" / "gt.txt").write_text("\n".join(lines) + "\n")
    if names:
        (folder / "gt" / "labels.txt").write_text(names)
    return folder


def test_frames_and_pixels_of_motchallenge_count_from_1_and_a_flag_of_0_is_no_object(tmp_path):
    mot(
        tmp_path / "set" / "clip-01",
        "1,5,3,4,10,6,1,2,1",
        "1,9,20,4,5,5,0,2,1",
        "3,5,5,4,10,6,1,2,1",
        names="a\nball\n",
    )
    mot(tmp_path / "set" / "clip-02", "2,1,1,1,4,4,1,2,1", names="a\nball\n")
    cases = list(dataset_layouts.read_dataset(tmp_path / "set", DatasetOptions()))
    assert len(cases) == 2 * FRAMES
    first, _, third, *_ = (case.references["boxes"] for case in cases)
    assert_allclose(first.corners, [[3, 2, 9, 12]])
    assert (first.names, first.numbers, third.numbers) == (("ball",), (5,), (5,))
    assert len({case.patient for case in cases}) == 2, "a clip is a patient of its own"


def test_frames_that_coco_lists_of_a_video_are_one_patient_s_and_keep_their_tracks(tmp_path):
    pictures(tmp_path / "set" / "frames", frames=4)
    frames = range(4)
    images = [
        {"id": n, "file_name": f"frames/{n:06}.png", "width": 40, "height": 30, "video_id": n // 2, "frame": n % 2}
        for n in frames
    ]
    box = {"category_id": 1, "bbox": [2, 3, 8, 6], "track_id": 11}
    record = {"images": images, "categories": [{"id": 1, "name": "tool"}], "videos": [{"id": 0, "name": "a"}]}
    record["annotations"] = [{**box, "id": n, "image_id": n} for n in (0, 1, 2)]
    (tmp_path / "set" / "instances.json").write_text(json.dumps(record))
    cases = list(dataset_layouts.read_dataset(tmp_path / "set", DatasetOptions()))
    assert [case.references["boxes"].numbers for case in cases] == [(11,), (11,), (11,), ()]
    first, second, third, fourth = (case.patient for case in cases)
    assert first == second != third == fourth
    assert next(iter(cases[0].images.values())).neighbours is not None


@pytest.mark.parametrize(
    ("odd", "unknown", "place"),
    [
        ("2,5,?,4,10,6,1,1,1", {2}, [0, 0, *SIZE[::-1]]),
        ("2,5,3", {2}, [0, 0, *SIZE[::-1]]),
        ("2,?,3,4,10,6,1,1,1", {2}, [3, 2, 9, 12]),
        ('2,5,3,4,10,6,1,"1,1', {2}, [3, 2, 9, 12]),
        # Its track has a box in frame 1, so that it is of any other.
        ("?,5,3,4,10,6,1,1,1", set(range(2, FRAMES + 1)), [3, 2, 9, 12]),
        # Two boxes of one track.
        ("1,5,13,4,10,6,1,1,1", {1}, [3, 2, 9, 12]),
    ],
)
def test_where_a_line_of_motchallenge_cannot_be_read_its_place_is_unknown(tmp_path, odd, unknown, place):
    mot(tmp_path / "set" / "clip-01", "1,5,3,4,10,6,1,1,1", odd, "1,7,20,4,5,5,1,1,1", "2,7,20,4,5,5,1,1,1")
    dataset = dataset_layouts.read_dataset(tmp_path / "set", DatasetOptions())
    made = {number: case.references["boxes"] for number, case in enumerate(dataset, start=1)}
    assert {frame for frame, one in made.items() if one.ignored.any()} == unknown
    assert_allclose(made[min(unknown)].at(made[min(unknown)].ignored).corners[0], place)
    assert all(19 in made[frame].at(~made[frame].ignored).corners[:, 1] for frame in (1, 2)), "the other track stays"
    [problem] = [one for one in dataset.problems if "cannot be read" in one.what]
    assert "gt.txt" in problem.what
    assert "line" in problem.what


def test_a_line_of_motchallenge_that_cannot_be_read_is_no_object_where_its_flag_says_so(tmp_path):
    mot(tmp_path / "set" / "clip-01", "1,5,3,4,10,6,1,1,1", "1,?,20,4,5,5,0,1,1")
    assert not any(one.ignored.any() for one in boxes_of(tmp_path / "set").values())


def test_a_cvat_track_whose_id_is_no_number_has_unknown_places_and_the_others_stay(tmp_path):
    folder = cvat(tmp_path / "set", box(0, 0) + box(3, 0, outside=1), box(0, 20))
    path = folder / "annotations.xml"
    path.write_text(path.read_text().replace('track id="0"', 'track id="first"'))
    dataset = dataset_layouts.read_dataset(folder, DatasetOptions())
    made = [case.references["boxes"] for case in dataset]
    assert [one.ignored.tolist() for one in made] == [[False, True]] * 3 + [[False]] * 6
    assert_allclose(made[0].corners, [[5, 20, 15, 28], [5, 0, 15, 8]])
    [problem] = [one for one in dataset.problems if "cannot be read" in one.what]
    assert "annotations.xml" in problem.what
    assert "track first, frame 0: the id of its track is no number" in problem.what


def test_the_frames_of_a_clip_s_file_are_the_images_of_its_tracks(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "clip_7.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, SIZE)
    for number in range(FRAMES):
        writer.write(np.full((*SIZE[::-1], 3), 20 * number, np.uint8))
    writer.release()
    made = cvat(tmp_path / "set", box(0, 0))
    shutil.rmtree(made / "images")
    (tmp_path / "clip_7.avi").rename(made / "clip_7.avi")
    cases = list(dataset_layouts.read_dataset(made, DatasetOptions()))
    greys = [float(next(iter(case.images.values())).data.mean()) for case in cases]
    assert_allclose(greys, [20 * number for number in range(FRAMES)], atol=3)


def test_a_mask_with_other_frames_than_its_clip_is_refused_by_its_case(tmp_path):
    for folder, frames in (("images", 5), ("labels", 4)):
        (tmp_path / folder).mkdir()
        clip = nibabel.Nifti1Image(np.ones((6, 7, 1, frames), np.uint8), np.eye(4))
        clip.to_filename(tmp_path / folder / "p0.nii.gz")
    cases = list(dataset_layouts.read_dataset(tmp_path, DatasetOptions()))
    with pytest.raises(GeometryError, match="the mask has 4 frames, the image 5"):
        _ = cases[0].references["mask"]


def clip(path: Path, frames: int = FRAMES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, SIZE)
    for number in range(frames):
        writer.write(np.full((*SIZE[::-1], 3), 20 * number, np.uint8))
    writer.release()
    return path


def mask(path: Path, area: int, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size[::-1], np.uint8)
    mask.flat[:area] = 255
    PIL.Image.fromarray(mask).save(path)


def areas_of(folder: Path, **options) -> list[int]:
    cases = dataset_layouts.read_dataset(folder, DatasetOptions(**options))
    return [int(np.count_nonzero(case.references["mask"].data)) for case in cases]


@pytest.mark.parametrize(
    "name", ["a/{:06}.png", "masks/a/frame_{}.png", "masks/a_{:04}.png", "a_mask/{}.png", "a_frame{}_mask.png"]
)
def test_masks_lie_on_the_frames_of_a_clip_by_their_numbers_and_other_frames_have_nothing_on_them(tmp_path, name):
    clip(tmp_path / "a.avi")
    for number in (0, 3, 4, 5, 8):
        mask(tmp_path / name.format(number), number + 1)
    assert areas_of(tmp_path) == [1, 0, 0, 4, 5, 6, 0, 0, 9]
    cases = list(dataset_layouts.read_dataset(tmp_path))
    assert {case.patient for case in cases} == {"a"}
    assert len({case.key for case in cases}) == FRAMES, "frames of one file are not one case"
    assert_allclose([float(next(iter(case.images.values())).data.mean()) for case in cases], 20 * np.arange(9), atol=3)
    dataset_table.write_dataset_table(dataset_layouts.read_dataset(tmp_path), tmp_path)
    assert areas_of(tmp_path / "dataset.csv") == [1, 0, 0, 4, 5, 6, 0, 0, 9]


def test_masks_whose_last_number_is_that_of_all_frames_count_from_1(tmp_path):
    for name in ("a", "b"):
        clip(tmp_path / f"{name}.avi")
    mask(tmp_path / "a" / "9.png", 7)
    mask(tmp_path / "b" / "1.png", 5)
    assert areas_of(tmp_path) == [0] * 8 + [7] + [5] + [0] * 8


def test_a_clip_with_masks_of_frames_that_it_lacks_and_one_that_is_torn_are_left_out_and_named(tmp_path):
    clip(tmp_path / "a.avi")
    mask(tmp_path / "a" / "0.png", 7)
    clip(tmp_path / "short.avi", frames=3)
    mask(tmp_path / "short" / "7.png", 7)
    (tmp_path / "torn.avi").write_bytes(b"RIFF0000AVI ")
    mask(tmp_path / "torn" / "0.png", 7)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert {case.patient for case in dataset} == {"a"}
    named = {problem.cases for problem in dataset.problems if problem.severity == "error"}
    assert named == {("short.avi",), ("torn",)}
    assert any("8 of 9 frames have no mask" in problem.what for problem in dataset.problems)


def test_two_masks_of_one_frame_and_a_mask_of_another_size_are_refused(tmp_path):
    clip(tmp_path / "a.avi")
    mask(tmp_path / "a" / "1.png", 7, size=(20, 20))
    first, *_ = dataset_layouts.read_dataset(tmp_path)
    assert not first.references["mask"].data.any()
    mask(tmp_path / "a_01.png", 7)
    with pytest.raises(DatasetError, match=r"are both masks of frame 1 of a\.avi"):
        dataset_layouts.read_dataset(tmp_path)


def test_a_clip_beside_pictures_of_other_names_is_no_clip_with_masks(tmp_path):
    clip(tmp_path / "scan.avi")
    for number in range(3):
        mask(tmp_path / f"other_{number}.png", 7)
    assert "clip" not in dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False)).layout


def test_frames_that_were_taken_out_of_a_clip_are_images_and_no_masks(tmp_path):
    clip(tmp_path / "a.avi")
    (tmp_path / "a").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (3, *SIZE[::-1]), dtype=np.uint8)
    for number, frame in enumerate(noise):
        PIL.Image.fromarray(frame).save(tmp_path / "a" / f"{number}.png")
    cases = list(dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False)))
    read = [next(iter(case.images.values())).data[0] for case in cases]
    assert [np.array_equal(one, frame) for one, frame in zip(read, noise, strict=True)] == [True] * 3
