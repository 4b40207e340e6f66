"""Frames before and after each frame of a clip as channels: in a case, in a clip that is predicted, and in a stream."""

from __future__ import annotations

from dataclasses import replace

import nibabel
import numpy as np
import PIL.Image
import pytest
from numpy.testing import assert_array_equal

import hilum
from hilum.errors import PlanError
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions
from hilum.runtime.preprocessing.preprocessing import Preprocessing
from hilum.training.data import prepared_store
from hilum.transforms import clip_frames
from hilum.transforms.intensity import Normalisation
from hilum.values import Geometry, Image
from layouts.test_layouts_clips import mot

FRAMES = 6
PLAIN = Preprocessing(2, ("0",), (Normalisation("window", low=-1e6, high=1e6, mean=0, deviation=1),), around=2)


def clip() -> Image:
    values = np.broadcast_to(np.arange(FRAMES, dtype=np.float32)[None, :, None, None], (1, FRAMES, 8, 9))
    return Image(np.ascontiguousarray(values), Geometry.of_pixels((8, 9)))


def seen(image: Image) -> list[float]:
    """The value of each channel that the network sees of a frame of `clip`."""
    return PLAIN(image, "clip")[0][:, 4, 4].tolist()


def test_a_frame_is_seen_with_those_around_it_and_the_ends_are_repeated():
    expected = [[0, 0, 0, 1, 2], [0, 0, 1, 2, 3], [0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [2, 3, 4, 5, 5], [3, 4, 5, 5, 5]]
    assert [seen(clip().frame(n)) for n in range(FRAMES)] == expected
    assert [seen(one) for one in clip().still_frames()] == expected, "of a clip that is read in order too"
    assert PLAIN.inputs == 5


def test_of_a_clip_in_order_each_frame_is_read_once():
    whole, asked = clip(), list[int]()

    def read(region):
        asked.append(region[1].start)
        return whole.data[region]

    held = hilum.values.voxel_images.HeldFrames(read, (8, 9), FRAMES)
    for number in range(FRAMES):
        clip_frames.with_frames_around(whole._still(held, number), 2)
    assert asked == list(range(FRAMES))
    assert len(held.held) <= 5


def test_a_stream_is_late_by_the_frames_after_each_and_says_so():
    given, results = list[int](), list[tuple[int, list[float]]]()

    def frames():
        for number in range(FRAMES):
            given.append(number)
            yield clip().data[:, number]

    stream = hilum.runtime.prediction_layers.FrameStream(lambda image: image, ("0",), frames(), delay=2)
    for image in stream:
        results.append((len(given), seen(image)))
    assert [values for _, values in results] == [seen(clip().frame(n)) for n in range(FRAMES)]
    assert [came for came, _ in results] == [3, 4, 5, 6, 6, 6]
    assert stream.delay == 2


def test_frames_that_are_files_have_those_of_the_next_numbers_around_them(tmp_path):
    folder = mot(tmp_path / "clip", "1,5,3,4,10,6,1,1,1")
    cases = list(dataset_layouts.read_dataset(folder, DatasetOptions()))
    frame = next(iter(cases[1].images.values()))
    assert [int(frame.neighbours(step)[0, 0, 0]) for step in (-5, -1, 1, 2)] == [0, 0, 20, 30]


def test_a_model_of_whole_clips_has_no_frames_around_one():
    with pytest.raises(PlanError, match="none for a model of whole clips"):
        Preprocessing(2, ("0",), PLAIN.normalisation, frames=8, around=1)


@pytest.mark.whole
def test_a_network_learns_predicts_and_streams_with_frames_around(tmp_path):
    for n in range(6):
        rng = np.random.default_rng(n)
        mask = np.zeros((16, 16, 1, 5), np.uint8)
        for frame in range(5):
            mask[4:9, 2 + frame : 7 + frame, 0, frame] = 1
        for folder, array in (("images", 100 * mask + rng.normal(0, 5, mask.shape)), ("labels", mask)):
            (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
            nibabel.Nifti1Image(array.astype(np.int16), np.eye(4)).to_filename(
                tmp_path / "set" / folder / f"p{n}.nii.gz"
            )
    size = {"width": 4, "widest": 8, "strides": [[1, 1], [2, 2]]}
    settings = {"training.steps": 2, "training.validations": 1, "training.batch": 2, "network.size": size}
    hilum.train(tmp_path / "set", out=tmp_path / "run", assignments={**settings, "preprocessing.around": 1})
    model = hilum.load(tmp_path / "run")
    assert model.preprocessing.inputs == 3
    clip = hilum.read(tmp_path / "set" / "images" / "p0.nii.gz")
    by_frame = model.predict(clip).frames
    for whole, streamed in zip(by_frame, model.stream(clip), strict=True):
        assert_array_equal(np.asarray(whole.data), np.asarray(streamed.data))


def test_a_frame_is_prepared_anew_where_only_the_file_of_the_next_one_has_changed(tmp_path):
    folder = mot(tmp_path / "clip", "1,5,3,4,10,6,1,1,1")
    known = {"threads": 1, "memory": 2**20}

    def prepared():
        case = list(dataset_layouts.read_dataset(folder, DatasetOptions()))[1]
        steps = replace(PLAIN, channels=next(iter(case.images.values())).channels)
        return prepared_store.prepare_all([case], steps, None, **known)[0].in_memory.image

    before = prepared()
    [following] = folder.rglob("000003.*")
    PIL.Image.fromarray(np.asarray(PIL.Image.open(following)) + np.uint8(7)).save(following)
    after = prepared()
    assert_array_equal(after[:3], before[:3])
    assert (after[3] == before[3] + 7).all()
