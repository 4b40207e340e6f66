"""Slides as bags of tiles: which tiles there are, how they are read, sampled and varied, and the one answer of all."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import simulated_slides
from hilum.errors import DatasetError, GeometryError
from hilum.files import file_formats
from hilum.files.format_options import ReadOptions
from hilum.networks import factory
from hilum.prediction import case_prediction
from hilum.prediction.case_prediction import CaseRequest
from hilum.runs import _case_costs
from hilum.runtime import Model, ModelRequest, Preprocessing
from hilum.runtime.ensemble import VisitingNetwork
from hilum.runtime.inference import Inference
from hilum.runtime.package import backend_trial, certification
from hilum.runtime.preprocessing import slide_tiles
from hilum.runtime.preprocessing.slide_tiles import ABSENT, Tiles
from hilum.runtime.torch_networks import Networks, TorchNetwork, WatchedNetwork
from hilum.runtime.windows import bags
from hilum.runtime.windows.averaging import ATTENTION, POOLED, AveragedNetwork
from hilum.tasks import task_catalogue
from hilum.training.data import prepared_store
from hilum.transforms import COLOUR
from hilum.transforms.intensity import Normalisation
from hilum.values import Array, Case, Image

SIDE, TILE, MM = 512, 64, 0.0005
TISSUE = ((0, 64), (128, 192), (256, 0), (448, 448))
TASK = task_catalogue.build_task({"name": "classification", "classes": ["plain", "marked"]})
SIZE = {"encoder": ["colour", "trained"], "maps": 4}


def tissue(seed: int) -> Array:
    """(64, 64, 3) of pink and violet."""
    rng = np.random.default_rng(seed)
    return (np.array([170, 90, 160]) + rng.integers(-40, 40, (TILE, TILE, 1))).astype(np.uint8)


def slide(path: Path, places: tuple[tuple[int, int], ...] = TISSUE, **written) -> Image:
    slide = simulated_slides.lay_tiles(SIDE, {place: tissue(n) for n, place in enumerate(places)}, noise=6)
    path = simulated_slides.write_tiff(path, simulated_slides.levels_of(slide, 3), **written)
    return file_formats.read_image(path, ReadOptions())


def preparing(**given) -> Preprocessing:
    scales = (Normalisation("range", 0, 255),) * 3
    return Preprocessing(3, COLOUR, scales, tiles=Tiles(**{"size": TILE, "mm": MM, "count": 3, **given}))


def module(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return factory.build("mil_attention", 3, 3, TASK.heads, SIZE).eval()


def network(seed: int = 0) -> TorchNetwork:
    return WatchedNetwork(module(seed), at=factory.family_of("mil_attention").features)


def model(run=None) -> Model:
    architecture = {"name": "mil_attention", "channels": 3, "spatial_dims": 3, "size": SIZE}
    inference = Inference((3, TILE, TILE), 0.0, batch=1)
    return Model(TASK, preparing(), inference, Networks(network() if run is None else run, architecture))


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Image:
    return slide(tmp_path_factory.mktemp("slide") / "a.tif")


def test_a_bag_has_the_tiles_of_tissue_alone_each_at_its_place(image):
    stack = slide_tiles.stack_tissue(image, "a", preparing().tiles)
    assert_array_equal(stack.places, np.array(TISSUE) // TILE)
    assert_array_equal(stack.corners, [[row, column, row + TILE, column + TILE] for row, column in TISSUE])
    every = slice(None)
    for number in range(len(TISSUE)):
        assert_array_equal(stack[every, number : number + 1, every, every][:, 0], np.moveaxis(tissue(number), -1, 0))


def test_tiles_of_longer_pixels_come_from_the_level_that_has_them(image):
    stack = slide_tiles.stack_tissue(image, "a", Tiles(TILE, 2 * MM, 3))
    row, column = TISSUE[2]
    [number] = np.flatnonzero((stack.places == [row // 128, column // 128]).all(axis=1))
    tile = stack[slice(None), slice(number, number + 1), slice(None), slice(None)][:, 0]
    assert_array_equal(tile[:, :32, :32], np.moveaxis(simulated_slides.halve(tissue(2)), -1, 0))


def test_a_slide_of_longer_pixels_than_the_tiles_keeps_its_own(tmp_path):
    stack = slide_tiles.stack_tissue(slide(tmp_path / "a.tif", mm=0.001), "a", preparing().tiles)
    assert_array_equal(stack.places, np.array(TISSUE) // TILE)


def test_a_slide_that_states_no_size_of_pixels_is_refused(tmp_path):
    with pytest.raises(GeometryError, match=r"b\.tif: .*no size.*--mm-per-pixel"):
        preparing().open_image(slide(tmp_path / "b.tif", mm=None), "b")


def test_a_slide_without_tissue_is_refused_by_name_and_taken_where_tissue_plays_no_part(tmp_path):
    bare = slide(tmp_path / "c.tif", ())
    with pytest.raises(DatasetError, match="c: no tissue"):
        preparing().open_image(bare, "c")
    bag, _ = replace(preparing(), tissue="none").open_image(bare, "c")
    assert bag.shape == (3, (SIDE // TILE) ** 2, TILE, TILE)


def test_a_picture_is_no_bag(image):
    with pytest.raises(DatasetError, match="d: is no slide"):
        preparing().open_image(image.level(1), "d")


def test_training_samples_each_tile_once_and_pads_what_lacks(image):
    stack = slide_tiles.stack_tissue(image, "a", preparing().tiles)
    sampled, places = slide_tiles.sample_tiles(stack, stack.places, 6, np.random.default_rng(0))
    assert_array_equal(places[:4], stack.places)
    assert_array_equal(places[4:], np.full((2, 2), ABSENT))
    assert not sampled[:, 4:].any()
    seen = {tuple(place) for n in range(20) for place in _sampled_places(stack, n)}
    assert seen == {tuple(place) for place in stack.places}


def _sampled_places(stack, seed: int) -> list[list[int]]:
    return slide_tiles.sample_tiles(stack, stack.places, 2, np.random.default_rng(seed))[1].tolist()


def test_all_tiles_are_kept_once_in_8_bits_however_many_training_samples(image, tmp_path, monkeypatch):
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path))
    case = Case("a", "a", {"image": image}, {"class": "marked"})
    kept = [
        prepared_store.prepare_all([case], preparing(count=count), TASK, threads=1, memory=0)[0] for count in (3, 5)
    ]
    assert kept[0].image.path == kept[1].image.path
    assert kept[0].image.dtype == np.uint8
    assert_array_equal(kept[0].places, np.array(TISSUE) // TILE)
    assert_array_equal(kept[0].bag[(slice(None),) * 4], preparing().open_image(image, "a")[0][(slice(None),) * 4])


def test_tiles_that_pass_a_few_at_a_time_have_the_answer_of_the_whole_bag(image, monkeypatch):
    monkeypatch.setattr(bags, "TOGETHER", 3)
    bag, _ = preparing().open_image(image, "a")
    outputs, at_once = bags.pool_bag(network(), bag), module()
    whole = torch.from_numpy(bag[(slice(None),) * 4])[None]
    with torch.inference_mode():
        expected = at_once(whole, torch.from_numpy(bag.places)[None])
    assert_allclose(outputs["class"], expected["class"], atol=1e-5)
    assert_allclose(outputs[ATTENTION].sum(), 1, atol=1e-5)
    assert POOLED in outputs


def test_several_networks_answer_with_the_mean_of_their_own_answers(image):
    bag, _ = preparing().open_image(image, "a")
    each = [bags.pool_bag(network(seed), bag) for seed in (0, 1)]
    mean = bags.pool_bag(AveragedNetwork((network(0), network(1)), TASK.average), bag)
    assert_allclose(mean["class"], TASK.average(each)["class"], atol=1e-6)
    assert_allclose(mean[ATTENTION], np.mean([one[ATTENTION] for one in each], axis=0), atol=1e-6)


def test_a_network_that_visits_a_device_has_the_same_answer_there(image):
    bag, _ = preparing().open_image(image, "a")
    visiting = VisitingNetwork(module(), "cpu", resting=network())
    assert_allclose(bags.pool_bag(visiting, bag)["class"], bags.pool_bag(network(), bag)["class"], atol=1e-6)


def test_members_that_cut_their_own_tiles_answer_with_their_mean(image):
    first, second = model(network(0)), replace(model(network(1)), preprocessing=preparing(size=2 * TILE))
    each = [one.predict(image).probabilities["marked"] for one in (first, second)]
    mean = replace(first, members=(first, second)).predict(image)
    assert min(each) <= mean.probabilities["marked"] <= max(each)
    assert mean.tiles is None


def test_a_prediction_states_the_attention_of_each_tile_and_of_a_region_only_its_tiles(image):
    prediction = model().predict(image)
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert prediction.tiles.attention.shape == (4,)
    part = model().predict(image, ModelRequest(region=(slice(0, 256), slice(0, 256))))
    assert_array_equal(part.tiles.corners[:, :2], TISSUE[:2])


def test_the_row_of_a_slide_has_its_tiles_and_the_table_a_row_for_each(image, tmp_path):
    case = Case("a", "a", {"image": image})
    outcome = case_prediction.compute_case(model(), case, image, CaseRequest(folder=tmp_path))()
    [row] = outcome.rows
    assert row["tiles"] == 4
    assert {"predicted", "probability_marked"} <= set(row)
    with (tmp_path / "a_attention.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(one["y0"]), int(one["x0"])) for one in rows] == list(TISSUE)
    assert sum(float(one["attention"]) for one in rows) == pytest.approx(1, abs=1e-4)


def test_backends_are_tried_on_slides_that_the_other_process_reads_tile_by_tile(image, tmp_path):
    [noise, *_] = certification.noise_images(model())
    for number, one in enumerate((image, noise)):
        backend_trial.keep_image(one, tmp_path / f"{number}.pickle")
        kept = backend_trial.kept_image(tmp_path / f"{number}.pickle")
        assert kept.is_slide
        answer, expected = (model().predict(each).probabilities["marked"] for each in (kept, one))
        assert answer == pytest.approx(expected)
    assert (tmp_path / "0.pickle").stat().st_size < SIDE * SIDE


def test_the_minutes_that_a_slide_takes_are_measured_by_its_tiles(image):
    sample = _case_costs.Sample(Case("a", "a", {"image": image}))
    prediction, seconds, in_windows = _case_costs.predicted(model(), sample)
    assert len(prediction.tiles.attention) == len(TISSUE)
    assert 0 < in_windows <= seconds
