"""Prompts through a model: SAM and MedSAM beside their own programs, volumes, labels, and what is refused."""

from __future__ import annotations

from functools import partial

import nibabel
import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from torch.nn.functional import interpolate

from hilum.errors import GeometryError, IntegrityError, UsageError
from hilum.runtime import ModelRequest
from hilum.runtime.foreign import sam_file
from hilum.runtime.preprocessing.square_preprocessing import SquarePreprocessing
from hilum.runtime.prompting import ImagePrompts
from hilum.values import Geometry, Image, Prompts
from sam_models import SIDE, adapter_of, small_sam, waves

torch.set_num_threads(1)

BOX = (20, 15, 80, 70)
AFFINE = np.diag([-1.0, 1.0, 3.0, 1.0])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("sam") / "sam.pth"
    torch.save(small_sam().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def sam(checkpoint):
    return sam_file.load_sam(checkpoint, "sam", "cpu")


@pytest.fixture(scope="module")
def medsam(checkpoint):
    return sam_file.load_sam(checkpoint, "medsam", "cpu")


def picture(rows: int, columns: int) -> Image:
    return Image(waves(rows, columns).transpose(2, 0, 1), Geometry.of_pixels((rows, columns)), channels=("R", "G", "B"))


def volume() -> Image:
    x, y, z = np.mgrid[:60, :50, :9]
    smooth = 300 * np.sin(x / 7) * np.cos(y / 9 + z / 3) + np.random.default_rng(1).normal(0, 20, x.shape)
    return Image(smooth[None].astype(np.int16), Geometry(x.shape, AFFINE))


def ask(*prompts: Prompts) -> ModelRequest:
    return ModelRequest(prompts=prompts)


def test_sam_marks_what_its_own_program_marks(sam):
    predictor = SamPredictor(small_sam())
    predictor.set_image(waves(90, 120))
    inside = [(30, 40, 1), (100, 80, 0)]
    asked = [
        (Prompts(boxes=[BOX]), {"box": np.array([20, 15, 79, 69])}),  # theirs names the last pixel
        (Prompts(points=inside), {"point_coords": np.array([[30, 40], [100, 80]]), "point_labels": np.array([1, 0])}),
    ]
    for prompts, theirs in asked:
        masks, overlaps, _ = predictor.predict(**theirs, multimask_output=True)
        found = np.asarray(sam.predict(picture(90, 120), ask(prompts)).data)
        assert 0.01 < masks[overlaps.argmax()].mean() < 0.99
        assert (found == masks[overlaps.argmax()]).mean() >= 0.998


@torch.inference_mode()
def test_medsam_marks_what_its_procedure_marks(medsam):
    """Scaled to 0..1, one mask, its sigmoid enlarged and cut at one half; the square's own size needs no resampling."""
    theirs, image = small_sam(), picture(SIDE, SIDE)
    data = torch.from_numpy(np.asarray(image.data, dtype=np.float32))[None]
    encoded = theirs.image_encoder((data - data.min()) / (data.max() - data.min()))
    sparse, dense = theirs.prompt_encoder(None, torch.tensor([[20.0, 15, 79, 69]]), None)
    masks, _ = theirs.mask_decoder(encoded, theirs.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=False)
    expected = interpolate(masks.sigmoid(), (SIDE, SIDE), mode="bilinear", align_corners=False)[0, 0] > 0.5
    found = np.asarray(medsam.predict(image, ask(Prompts(boxes=[BOX]))).data)
    assert 0.01 < float(expected.float().mean()) < 0.99
    assert (found == expected.numpy()).mean() >= 0.998


def test_the_image_is_encoded_once_however_many_prompts_follow(sam, monkeypatch):
    module, images = sam.networks.members[0].module, []
    encode = module.encode
    monkeypatch.setattr(module, "encode", lambda one: images.append(one) or encode(one))
    with sam.encoded(picture(90, 120)) as seen:
        first, second = seen.predict(Prompts(boxes=[BOX])), seen.predict(Prompts(points=[(30, 40, 1)]))
    assert len(images) == 1
    for found, prompts in ((first, Prompts(boxes=[BOX])), (second, Prompts(points=[(30, 40, 1)]))):
        assert np.array_equal(found.data, sam.predict(picture(90, 120), ask(prompts)).data)
    assert str(first.prompts[0]) == "object by 1 box"


def test_a_volume_goes_slice_by_slice_through_its_box(medsam):
    image, box = volume(), (10, 12, 3, 40, 35, 6)
    found = np.asarray(medsam.predict(image, ask(Prompts(boxes=[box]))).data)
    marked = found.any(axis=(0, 1))
    assert marked.tolist() == [3 <= k < 6 for k in range(9)]
    still = Image(image.data[..., 4].swapaxes(1, 2), Geometry.of_pixels((50, 60)))
    of_slice = medsam.predict(still, ask(Prompts(boxes=[(10, 12, 40, 35)]))).data
    assert np.array_equal(found[..., 4], np.asarray(of_slice).T)


def test_a_box_in_mm_is_that_of_the_voxels(medsam):
    edges = nibabel.affines.apply_affine(AFFINE, np.array([[10, 12, 3], [40, 35, 6]]) - 0.5)
    in_mm = Prompts(boxes=[(*edges.min(axis=0), *edges.max(axis=0))], unit="mm")
    placed = in_mm.on(volume().geometry, "image")
    assert np.allclose(placed.boxes, [[[10, 12, 3], [40, 35, 6]]])


def test_a_scribble_stands_for_points_along_it():
    mask = np.zeros((90, 120), np.uint8)
    mask[40, 20:60], mask[80, 5] = 1, 2
    placed = Prompts(scribble=mask).on(Geometry.of_pixels((90, 120)), "image").with_stroke_points
    assert placed.points[0].tolist() == [40, 20] and placed.points[7].tolist() == [40, 59]
    assert placed.inside.tolist() == [True] * 8 + [False] and placed.points[8].tolist() == [80, 5]


def test_where_two_labels_meet_the_more_probable_wins_and_boxes_of_one_label_are_one_structure():
    """A network that gives 1 within the box of a prompt, and more the larger its box is."""

    def within(batch, prompts):
        (_, _, height, width), masks = batch.shape, []
        y, x = np.mgrid[:height, :width]
        for rows in prompts[0]:
            (x0, y0, _), (x1, y1, _) = rows[rows[:, 2] >= 2]
            inside = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
            masks.append(np.where(inside, (x1 - x0) / 10, -1))
        return {"mask": np.stack(masks)[None]}

    steps, image = SquarePreprocessing(32), Image(np.zeros((1, 32, 32), np.uint8), Geometry.of_pixels((32, 32)))
    prompts = [
        Prompts(boxes=[(0, 0, 6, 8), (20, 20, 24, 30)], label="small"),
        Prompts(boxes=[(4, 0, 16, 8)], label="wide"),
    ]
    asked = ImagePrompts.on_image(prompts, ["small", "other", "wide"], image, "image")
    network = asked.bind(within, steps.trace(image.geometry))
    labels = network(np.zeros((1, 3, 32, 32), np.float32))["mask"][0].argmax(axis=0)
    assert labels[4, 2] == 1 and labels[25, 22] == 1 and labels[4, 5] == 3 and labels[4, 15] == 3 and labels[31, 0] == 0


def test_samed_marks_each_class_and_takes_no_prompt(checkpoint, tmp_path):
    torch.save(adapter_of(small_sam(2, SIDE // 2, masks=4)), tmp_path / "adapter.pth")
    model = sam_file.load_sam(checkpoint, "samed", "cpu", adapter=tmp_path / "adapter.pth", side=SIDE // 2)
    found = model.predict(volume())
    assert [label.name for label in found.labels] == ["1", "2", "3", "4"]
    still = Image(volume().data[..., 8].swapaxes(1, 2), Geometry.of_pixels((50, 60)))
    assert np.array_equal(np.asarray(found.data)[..., 8], np.asarray(model.predict(still).data).T)
    with pytest.raises(UsageError, match="takes no prompts"):
        model.predict(still, ask(Prompts(boxes=[(1, 1, 5, 5)])))
    with pytest.raises(UsageError, match="no multiple of 16"):
        sam_file.load_sam(checkpoint, "samed", "cpu", adapter=tmp_path / "adapter.pth", side=100)


GREY = Image(np.zeros((1, 20, 30), np.uint8), Geometry.of_pixels((20, 30)))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (partial(Prompts, boxes=[(9, 9, 5, 20)]), UsageError, "swapped"),
        (partial(Prompts, boxes=[(9, 9, 9, 20)]), UsageError, "is empty"),
        (partial(Prompts, boxes=[(9, 9, 20)]), UsageError, "is no box"),
        (partial(Prompts, points=[(3, 4, 2)]), UsageError, "is no point"),
        (Prompts, UsageError, "points at nothing"),
        (partial(Prompts, boxes=[(1, 2, 3, 4)], unit="cm"), UsageError, "no unit"),
    ],
)
def test_what_are_no_prompts_is_refused_when_it_is_made(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize(
    ("image", "prompts", "error", "words"),
    [
        (GREY, [Prompts(boxes=[(30, 0, 35, 5)])], GeometryError, "a box lies outside"),
        (GREY, [Prompts(points=[(3, 20, 1)])], GeometryError, "a point lies outside"),
        (GREY, [Prompts(boxes=[(3, 4, 9, 9)], unit="mm")], GeometryError, "orientation"),
        (GREY, [Prompts(scribble=np.ones((5, 5)))], GeometryError, "no mask of this image"),
        (GREY, [Prompts(boxes=[(0, 0, 0, 2, 2, 2)])], UsageError, "3 coordinates in an image of 2 axes"),
        (volume(), [Prompts(boxes=[(3, 4, 9, 9)])], UsageError, "2 coordinates in an image of 3 axes"),
        (volume(), [Prompts(points=[(3, 4, 2, 1)])], UsageError, "points or scribbles alone"),
        (GREY, [], UsageError, "no prompt is given"),
    ],
)
def test_prompts_that_do_not_fit_the_image_are_refused(sam, image, prompts, error, words):
    with pytest.raises(error, match=words):
        sam.predict(image, ask(*prompts))


def test_two_prompts_of_one_label_are_refused():
    with pytest.raises(UsageError, match="two prompts"):
        ask(Prompts(boxes=[BOX]), Prompts(points=[(1, 1, 1)]))


def test_weights_that_are_no_sam_are_refused(tmp_path):
    torch.save({"layer.weight": torch.ones(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(IntegrityError, match="no weights of SAM"):
        sam_file.load_sam(tmp_path / "other.pth", "sam", "cpu")
