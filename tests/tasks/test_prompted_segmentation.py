"""Prompted segmentation: channels of prompts, prompts sampled from masks, and a model from data to scores."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

import hilum
import trained
from hilum.errors import DatasetError, GeometryError, PlanError, UsageError
from hilum.reading import dataset_reading
from hilum.reading.reading_options import ReadingOptions
from hilum.runtime import ModelRequest
from hilum.tasks import task_catalogue
from hilum.tasks.prompted import sampled_prompts
from hilum.transforms import prompt_channels
from hilum.transforms.prompt_channels import BOX, COUNT, POINT, PREVIOUS, STROKE
from hilum.values import Geometry, Image, Prompts

torch.set_num_threads(1)


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    away = sum((grid - c) ** 2 for grid, c in zip(np.indices(shape), centre, strict=True))
    return away <= radius**2


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("of", [np.zeros, torch.zeros])
def test_channels_are_the_same_as_arrays_and_as_tensors(of):
    channels = of((COUNT, 9, 12))
    prompt_channels.render_box(channels, np.array([1.2, -3]), np.array([3, 2.5]))
    prompt_channels.render_points(channels, np.array([[4, 5], [8, 11], [40, 0]]), np.array([True, False, True]))
    prompt_channels.render_strokes(channels, np.array([[0, 0], [0, 1]]), np.array([False, False]))
    made = np.asarray(channels)
    assert_array_equal(np.argwhere(made[BOX]), [[i, j] for i in (1, 2) for j in (0, 1, 2)])
    assert_allclose(made[POINT, 4, 5:11], [1, 0.8, 0.6, 0.4, 0.2, 0], rtol=1e-6)
    assert made[POINT + 1, 8, 11] == 1 and made[POINT + 1, :4].max() == 0
    assert_allclose(made[STROKE + 1, :2, :3], [[1, 1, 0.5], [0.5, 0.5, 0]])
    assert not made[[PREVIOUS, BOX + 1, STROKE]].any()


def test_first_prompts_lie_where_the_object_is():
    mask = torch.from_numpy(ball((20, 24, 16), (9, 14, 8), 5))
    shown = set()
    for seed in range(40):
        channels = sampled_prompts.sample_channels(mask, rng(seed))
        [kind] = {int(n) for n in channels.flatten(1).any(dim=1).nonzero()}
        shown.add(kind)
        strongest = channels[kind] == 1
        if kind == BOX:
            assert (strongest & mask).sum() >= 0.9 * mask.sum() and strongest.sum() < 3 * 11**3
        else:
            assert not (strongest & ~mask).any()
    assert shown == {PREVIOUS, BOX, POINT, STROKE}


def test_the_same_generator_gives_the_same_prompts():
    mask = torch.from_numpy(ball((20, 24), (9, 14), 5))
    assert_array_equal(sampled_prompts.sample_channels(mask, rng(3)), sampled_prompts.sample_channels(mask, rng(3)))


def test_a_patch_without_an_object_gets_a_click_outside():
    channels = sampled_prompts.sample_channels(torch.zeros(8, 8, dtype=torch.bool), rng())
    assert {int(n) for n in channels.flatten(1).any(dim=1).nonzero()} == {POINT + 1}


def test_the_next_click_lies_in_the_middle_of_the_larger_error():
    truth, near = ball((40, 40), (20, 20), 9), ball((40, 40), (20, 20), 8)
    assert sampled_prompts.next_click(truth, np.zeros_like(truth)) == ((20, 20), True)
    spilt = near | ball((40, 40), (33, 6), 6)
    assert sampled_prompts.next_click(truth, spilt) == ((33, 6), False)
    assert sampled_prompts.next_click(truth, truth) is None


def test_a_further_prompt_lies_in_the_error_and_the_answer_is_the_earlier_mask():
    truth, answer = (torch.from_numpy(ball((30, 30), (15, 15), one)) for one in (9, 4))
    before = sampled_prompts.sample_channels(truth, rng(1))
    added = 0
    for seed in range(12):
        after = sampled_prompts.correct_channels(before, truth, answer, rng(seed))
        assert_array_equal(after[PREVIOUS] > 0, answer)
        more = (after[1:] == 1) & (before[1:] < 1)
        assert not (more.any(dim=0) & ~(truth & ~answer)).any()
        added += bool(more.any())
    assert 6 <= added < 12


def test_it_is_learnt_only_where_somebody_names_it(tmp_path):
    trained.blobs(tmp_path, 6)
    dataset = dataset_reading.open_dataset(tmp_path, ReadingOptions())
    assert task_catalogue.kind_for_dataset(dataset).name == "segmentation"
    assert task_catalogue.kind_for_dataset(dataset, "prompted").name == "prompted"
    with pytest.raises(PlanError, match="joins no other"):
        task_catalogue.task_class("prompted+segmentation")


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A run of six steps on volumes."""
    folder = tmp_path_factory.mktemp("pointed")
    data = trained.blobs(folder / "data", 10)
    chosen = {**trained.FEW_STEPS, "network.size": trained.SMALL_UNET}
    hilum.train(
        data, task="prompted", labels=trained.LABELS, out=folder / "run", device="cpu", assignments=chosen, threads=1
    )
    return folder


def test_its_run_states_dice_with_a_box_and_after_clicks(room):
    table = pd.read_csv(room / "run" / "evaluation" / "cases.csv")
    assert set(table["label"]) == {"shell", "core"}
    scores = table[["dice_box", "dice_1", "dice_3", "dice_5"]]
    assert ((scores >= 0) & (scores <= 1)).all().all()
    rows = json.loads((room / "run" / "evaluation" / "summary.json").read_text())["rows"]
    assert {row["metric"] for row in rows if row["label"] == "all"} >= set(scores)
    assert all(row["low"] is not None for row in rows if row["metric"] == "dice_5")


def test_what_is_pointed_at_is_marked_by_its_own_prompts(room):
    model, path = hilum.load(room / "run"), room / "data" / "images" / "case00.nii.gz"
    one, other = Prompts(points=[(8, 8, 8, 1)], label="a"), Prompts(boxes=[(1, 1, 1, 6, 6, 6)], label="left b")
    both = np.asarray(model.predict(path, ModelRequest(prompts=(one, other))).data)
    alone = np.asarray(model.predict(path, ModelRequest(prompts=one)).data)
    assert both.shape == (16, 16, 16) and set(np.unique(both)) <= {0, 1, 2}
    assert_array_equal((both == 1) & (alone == 0), np.zeros_like(alone, dtype=bool))


def test_a_mask_before_and_a_scribble_are_seen_by_the_network(room):
    model, path = hilum.load(room / "run"), room / "data" / "images" / "case00.nii.gz"
    scribble = np.zeros((16, 16, 16), dtype=np.uint8)
    scribble[8, 4:12, 8], scribble[1, 1, 1] = 1, 2
    seen = []
    batch_of = lambda batch, *rest: seen.append(batch) or model.networks.run(batch, *rest)  # noqa: E731
    asked = Prompts(scribble=scribble, previous=scribble == 1)
    model.with_run(batch_of).predict(path, ModelRequest(prompts=asked))
    shown = seen[0][0, -COUNT:]
    assert shown[PREVIOUS].sum() > 0 and shown[STROKE].max() == shown[STROKE + 1].max() == 1
    assert not shown[[BOX, POINT]].any()


def test_a_model_that_is_pointed_at_needs_prompts_on_its_image(room):
    model, path = hilum.load(room / "run"), room / "data" / "images" / "case00.nii.gz"
    with pytest.raises(UsageError, match="no prompt"):
        model.predict(path)
    with pytest.raises(GeometryError, match="outside"):
        model.predict(path, ModelRequest(prompts=Prompts(points=[(40, 1, 1, 1)])))
    with pytest.raises(UsageError, match="2 coordinates"):
        model.predict(path, ModelRequest(prompts=Prompts(boxes=[(1, 1, 4, 4)])))
    with pytest.raises(GeometryError, match="earlier mask"):
        model.predict(path, ModelRequest(prompts=Prompts(points=[(1, 1, 1, 1)], previous=np.ones((2, 2, 2), bool))))


def test_masks_that_leave_voxels_open_are_refused(tmp_path):
    trained.blobs(tmp_path, 6)
    with pytest.raises(DatasetError, match="leave voxels open"):
        hilum.plan(tmp_path, task="prompted", labels="1=shell,2=ignore", threads=1)


def test_numbered_objects_of_pictures_have_no_name_of_their_own(tmp_path):
    for n in range(8):
        places = [(6 + 12 * k, 6 + 12 * m) for k in range(4) for m in range(4)]
        numbers = sum((16 * n + k) * ball((48, 48), one, 4) for k, one in enumerate(places, start=1)).astype(np.uint8)
        for folder, array in (
            ("images", 90 * (numbers > 0) + rng(n).integers(0, 60, numbers.shape)),
            ("labels", numbers),
        ):
            (tmp_path / "d" / folder).mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(array.astype(np.uint8)).save(tmp_path / "d" / folder / f"c{n}.png")
    chosen = {**trained.TWO_STEPS, "network.size": {"width": 4, "widest": 8, "strides": [[1, 1], [2, 2]]}}
    hilum.train(tmp_path / "d", task="prompted", out=tmp_path / "run", device="cpu", assignments=chosen, threads=1)
    table = pd.read_csv(tmp_path / "run" / "evaluation" / "cases.csv")
    assert set(table["label"]) == {"object"}
    assert table["case"].is_unique


def test_windows_without_a_prompt_are_seen_as_far_as_the_object_reaches(room):
    """A network that fills what is bright and touches what is pointed at, or what is known of it."""
    model, shape = hilum.load(room / "run"), (16, 16, 96)
    patch = model.inference.patch
    data = np.zeros(shape, np.int16)
    data[4:12, 4:12, 8:60] = 100  # a rod, longer than two windows
    data[4:12, 4:12, 80:90] = 100  # and what nobody points at
    seen = []

    def fills(batch: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(batch)
        bright, marked = batch[:, 0] > 0.5, batch[:, -COUNT:].max(axis=1) > 0
        rods = [ndimage.label(one)[0] for one in bright]
        kept = [np.isin(rod, np.setdiff1d(rod[there], 0)) for rod, there in zip(rods, marked, strict=True)]
        inside = np.stack(kept)
        return {"mask": np.stack([np.where(inside, -5.0, 5.0), np.where(inside, 5.0, -5.0)], axis=1)}

    image = Image(data[None], Geometry(shape, trained.OBLIQUE), channels=("0",))
    asked = ModelRequest(prompts=Prompts(points=[(8, 8, 12, 1)]), allow_large=True)
    found = np.asarray(model.with_run(fills).predict(image, asked).data)
    assert patch[2] < 40
    assert found[6:10, 6:10, 9:58].all()
    assert not found[..., 62:].any()
    assert not any((one[:, 0] > 0.5).any() and not (one[:, -COUNT:] > 0).any() for one in seen)
