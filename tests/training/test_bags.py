"""Bags of tiles in training: a plan for slides, tiles each changed by itself, and a model of a few steps."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import hilum
import simulated_slides
from fingerprints import LAPTOP, SAMPLED, cohort, facts
from hilum.errors import DatasetError, PlanError, UsageError
from hilum.networks import factory
from hilum.planning import plan_changes, plan_checks, planner
from hilum.planning.plan_inputs import Wishes
from hilum.runtime.inference import Inference
from hilum.runtime.torch_networks import TorchNetwork
from hilum.runtime.windows import bags
from hilum.tasks import task_catalogue
from hilum.training import member_weighting
from hilum.training._training_session import TrainingSession
from hilum.training.data.batch_loading import Batch
from hilum.training.data.prepared_store import PreparedCase
from hilum.training.step import batch_loss
from hilum.training.step.computation import Compute
from hilum.transforms import COLOUR
from hilum.transforms.intensity import Normalisation
from hilum.values import Decision, Fingerprint, Plan

BYTES = {"min": 0.0, "low": 5.0, "median": 120.0, "high": 250.0, "max": 255.0, "mean": 120.0, "deviation": 40.0}


def _classes(number: int) -> dict[str, object]:
    return {"class": "ab"[number % 2]}


def plan_of_slides(**given) -> Plan:
    slides = tuple(
        replace(
            facts(
                (8192, 8192), given.get("steps", (0.0005,) * 2), name=f"c{n}", channels=COLOUR, modality="SM",
                intensity=BYTES, references=given.get("references", _classes)(n), physical=given.get("physical", True),
            ),
            tissue=0.2,
        )
        for n in range(16)
    )  # fmt: skip
    wishes = Wishes(Decision("cpu", "for a test"), minutes=10.0)
    return planner.make_plan(cohort(slides), Fingerprint(slides), SAMPLED, LAPTOP, wishes)


def test_slides_with_one_label_become_bags_of_tiles_that_attention_pools():
    plan = plan_of_slides()
    assert plan["network.name"] == "mil_attention"
    assert (plan["tiles.size"], plan["tiles.mm"], plan["tiles.count"]) == (256, 0.0005, 64)
    assert plan["training.patch"] == plan["inference.patch"] == [64, 256, 256]
    assert plan["training.batch"] > 1
    assert plan["augmentation.stain"] > 0
    assert plan_checks.checked_settings(plan).preprocessing.tiles.shape == (64, 256, 256)


@pytest.mark.parametrize(
    ("task", "references"),
    [
        ("regression", lambda n: {"value": {"score": float(n)}}),
        ("findings", lambda n: {"findings": {"a": n % 2, "b": n // 2 % 2}}),
        ("survival", lambda n: {"event": (float(n + 1), bool(n % 2))}),
    ],
)
def test_every_answer_for_a_whole_slide_is_one_of_its_bag(task, references):
    plan = plan_of_slides(references=references)
    assert (plan["task.name"], plan["network.name"]) == (task, "mil_attention")
    assert plan_checks.checked_settings(plan).preprocessing.tiles.count == plan["training.patch"][0]


def test_tiles_set_by_hand_decide_the_shape_of_a_bag():
    plan = plan_changes.with_settings(plan_of_slides(), {"tiles.count": 8, "tiles.size": 128})
    assert plan["training.patch"] == [8, 128, 128]
    plan_checks.checked_settings(plan)


def test_given_weights_stand_still_as_the_features_of_tiles_that_stay_as_they_are(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"")
    plan = plan_changes.with_settings(plan_of_slides(), {"network.pretrained": str(weights)})
    assert plan["network.size"]["encoder"] == ["frozen"]
    assert plan["augmentation.stain"] == 0 and not plan["augmentation.quarter_turns"] and not plan["augmentation.flips"]
    own = {
        "network.pretrained": str(weights),
        "network.size": {"encoder": ["frozen", "colour"], "model": "test_resnet"},
    }
    assert plan_changes.with_settings(plan_of_slides(), own)["network.size"] == own["network.size"]


def test_the_network_knows_by_what_its_tiles_were_normalised():
    settings = plan_checks.checked_settings(plan_of_slides())
    scales = [[one.mean, one.deviation] for one in settings.preprocessing.normalisation]
    assert settings.architecture["size"]["scales"] == scales
    assert "scales" not in settings.network.size


def test_a_network_of_pictures_is_refused_for_bags():
    with pytest.raises(PlanError, match="resnet sees no bags"):
        plan_checks.checked_settings(plan_of_slides().with_decision("network.name", Decision("resnet", "by hand")))


def test_slides_of_unknown_pixels_have_no_plan():
    with pytest.raises(DatasetError, match=r"no size of their pixels.*--mm-per-pixel"):
        plan_of_slides(physical=False)


def test_each_tile_of_a_bag_is_turned_by_itself_and_has_the_scale_of_the_plan():
    plan = plan_changes.with_settings(plan_of_slides(), {"augmentation.stain": 0.0})
    settings = plan_checks.checked_settings(plan)
    tile = np.random.default_rng(0).integers(0, 256, (3, 1, 32, 32), dtype=np.uint8)
    images = np.repeat(np.repeat(tile, 40, axis=1)[None], 2, axis=0)
    places, generators = np.zeros((2, 40, 2), np.int64), tuple(np.random.default_rng(n) for n in range(2))
    batch = Batch(images, np.zeros(2, np.int64), generators, (1.0,) * 3, context=places)
    seen = batch_loss.augment_batch(batch, settings, "cpu")
    assert seen.images.shape == images.shape
    turned = seen.images.transpose(1, 2).flatten(0, 1)
    assert len({one.numpy().tobytes() for one in turned}) == 8
    sums = torch.from_numpy(tile[:, 0] / 255.0).float().sum(dim=(1, 2))
    torch.testing.assert_close(turned.sum(dim=(2, 3)), sums.expand(80, -1), rtol=1e-5, atol=1e-2)


def test_members_of_an_ensemble_are_weighed_by_their_answers_for_whole_bags():
    task = task_catalogue.build_task({"name": "classification", "classes": ["a", "b"]})
    torch.manual_seed(0)
    members = [
        TorchNetwork(factory.build("mil_attention", 3, 3, task.heads, {"encoder": ["colour"]}).eval()) for _ in "ab"
    ]
    rng, scales = np.random.default_rng(0), (Normalisation("range", 0, 255).scale(0.0),) * 3
    cases = [
        PreparedCase(
            f"c{n}", rng.integers(0, 256, (3, 5, 16, 16), dtype=np.uint8), np.array(n % 2), (), (1.0,) * 3,
            places=np.stack([np.arange(5)] * 2, axis=1), scales=scales,
        )
        for n in range(4)
    ]  # fmt: skip
    outputs = member_weighting.member_outputs(members, task, Inference((2, 16, 16)), cases, "abcd")
    expected = bags.pool_bag(members[1], cases[2].bag)["class"][0]
    np.testing.assert_allclose(outputs.of_members[1]["class"][2], expected, atol=1e-6)


class CountingBag(torch.nn.Module):
    """A network of bags that says nothing, and counts the tiles that it encodes."""

    tiles = 0

    def encoded(self, tiles):
        self.tiles += len(tiles)
        return torch.zeros(len(tiles), 1)

    def pooled(self, features, places):
        return {"class": torch.zeros(len(features), 2)}

    def attention(self, features, places):
        return torch.ones(features.shape[:2])


@pytest.mark.parametrize(("windows", "tiles"), [(None, 9), (1, 2), (2, 3), (100, 9)])
def test_a_look_at_a_bag_encodes_no_more_tiles_than_its_windows_hold(windows, tiles):
    task = task_catalogue.build_task({"name": "classification", "classes": ["a", "b"]})
    places = np.stack([np.arange(9)] * 2, axis=1)
    images = np.zeros((3, 9, 16, 16), np.uint8)
    scales = (Normalisation("range", 0, 255).scale(0.0),) * 3
    case = PreparedCase("c", images, np.array(0), (), (1.0,) * 3, places=places, scales=scales)
    settings = SimpleNamespace(task=task, inference=Inference((2, 16, 16)))
    criterion, fabric = SimpleNamespace(needs=SimpleNamespace(labels=True)), SimpleNamespace(device="cpu")
    session = SimpleNamespace(settings=settings, criterion=criterion, fabric=fabric, averaged=CountingBag())
    session.looked_part = partial(TrainingSession.looked_part, session)
    TrainingSession.validate(session, [case], Compute(), windows)
    assert session.averaged.tiles == tiles


def write_slides(folder: Path) -> Path:
    """Twelve slides of four tiles in two class folders: in those with marks one tile has a brown spot."""
    rng = np.random.default_rng(0)
    for number in range(12):
        laid = {}
        for place in rng.permutation(16)[:4].tolist():
            tile = np.array([170, 90, 160]) + rng.integers(-40, 40, (64, 64, 1))
            laid[divmod(place, 4)[0] * 64, divmod(place, 4)[1] * 64] = tile.astype(np.uint8)
        if number % 2:
            next(iter(laid.values()))[10:40, 10:40] = (140, 80, 20)
        place = folder / ("marked" if number % 2 else "plain")
        place.mkdir(parents=True, exist_ok=True)
        slide = simulated_slides.lay_tiles(256, laid, noise=6)
        simulated_slides.write_tiff(place / f"s{number}.tif", simulated_slides.levels_of(slide, 2), tile=64)
    return folder


def test_class_folders_of_slides_become_a_model_whose_attention_finds_the_marked_tile(tmp_path):
    data = write_slides(tmp_path / "slides")
    bare = simulated_slides.lay_tiles(256, {}, noise=6)
    simulated_slides.write_tiff(data / "plain" / "bare.tif", simulated_slides.levels_of(bare, 2), tile=64)
    (data / "plain" / "cut.tif").write_bytes((data / "plain" / "s0.tif").read_bytes()[:9000])
    chosen = {
        "tiles.size": 64, "tiles.count": 3, "training.steps": 12, "training.validations": 1,
        "network.size": {"encoder": ["colour"]}, "training.learning_rate": 0.02,
    }  # fmt: skip
    run = hilum.train(data, out=tmp_path / "run", device="cpu", assignments=chosen)
    trained = (run.out / "split.csv").read_text(encoding="utf-8")
    assert "s0" in trained
    assert "bare" not in trained
    assert "cut" not in trained
    assert "tiles" in run.report.read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="answers for bags of tiles"):
        hilum.compress(run.out, data=data, out=tmp_path / "smaller")
    model = hilum.load(run.out)
    prediction = model.predict(data / "marked" / "s1.tif")
    assert prediction.tiles.attention.shape == (4,)
    assert prediction.probabilities["marked"] > model.predict(data / "plain" / "s0.tif").probabilities["marked"]
