"""Images of several places: what shall not tell them apart, and what is refused."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from safetensors.numpy import load_file

import hilum
import trained
from hilum.errors import DatasetError, PlanError, UsageError
from hilum.objectives.coral import Coral
from hilum.objectives.dann import Dann
from hilum.objectives.objective_terms import TARGET_PLACE, UNKNOWN_PLACE, ObjectiveStep, SeenBatch
from hilum.planning.rules import objective_rules
from hilum.runs.initial_weights import UnlabelledImages
from hilum.training.data.batch_loading import Loader
from hilum.training.data.prepared_store import PreparedCase
from hilum.training.processes import SINGLE_PROCESS
from hilum.training.step import batch_loss
from hilum.values import Case, Decision, Plan, Vector

TERMS = {"objectives.terms": ["supervised", "dann"]}


def step(labelled, unlabelled, places, target=(), parts=None):
    """A step with these pooled features, and the places of their images."""
    seen = SeenBatch(torch.zeros(len(labelled), 1), None, (), places=tuple(places))
    views = (SeenBatch(torch.zeros(len(unlabelled), 1), None, (), places=tuple(target)),) if len(unlabelled) else ()
    given = {"labelled": seen, "outputs": {}, "run": None, "teacher": None, "judge": None, "task": None}
    return ObjectiveStep(**given, features=labelled, unlabelled=views, parts=parts, embed=lambda _: ({}, unlabelled))


def test_an_adversary_sees_both_batches_and_the_network_gets_its_gradient_reversed():
    parts = Dann().parts(None, 1)
    Dann().count_places(parts, 2)
    with torch.no_grad():
        parts["weights"].copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    labelled, unlabelled = (torch.tensor(one, requires_grad=True) for one in ([[1.0], [5.0]], [[-1.0]]))
    loss = Dann().loss(step(labelled, unlabelled, [0, UNKNOWN_PLACE], [TARGET_PLACE], parts))
    loss.backward()
    assert loss.item() == pytest.approx(np.log(1 + np.exp(-2)))  # both are told by a logit of 2
    chance = 1 / (1 + np.exp(2))
    assert_allclose(labelled.grad, [[chance], [0]], rtol=1e-5)  # up the loss, half of 2 chance; the unknown one is out
    assert_allclose(unlabelled.grad, [[-chance]], rtol=1e-5)
    assert (parts["weights"].grad[:, 0] * torch.tensor([-1.0, 1.0]) > 0).all()  # a step down tells them better


def test_a_batch_of_which_no_place_is_known_teaches_nothing():
    parts, features = Dann().parts(None, 2), torch.ones(2, 2, requires_grad=True)
    assert Dann().loss(step(features, [], [UNKNOWN_PLACE] * 2, parts=parts)).item() == 0
    assert Coral().loss(step(features, [], [0, 1])).item() == 0  # one image has no covariance


def test_correlation_alignment_is_the_distance_of_covariances_as_numpy_has_it():
    rng = np.random.default_rng(0)
    sets = [rng.normal(size=(n, 3)) @ rng.normal(size=(3, 3)) for n in (5, 7, 4)]
    labelled = torch.from_numpy(np.concatenate(sets[:2])).float()
    found = Coral().loss(step(labelled, torch.from_numpy(sets[2]).float(), [0] * 5 + [2] * 7, [TARGET_PLACE] * 4))
    first, second, third = (np.cov(one, rowvar=False) for one in sets)
    pairs = (first, second), (first, third), (second, third)
    expected = np.mean([((one - other) ** 2).sum() / (4 * 3**2) for one, other in pairs])
    assert found.item() == pytest.approx(expected, rel=1e-4)
    assert Coral().loss(step(labelled, labelled + 3, [0] * 12, [1] * 12)).item() == pytest.approx(0, abs=1e-10)


def cases(*sites, first=0):
    return [Case(f"c{first + n}", f"p{n}", {}, {}, {"site": site} if site else {}) for n, site in enumerate(sites)]


def test_the_target_is_place_one_and_those_of_a_column_are_the_others():
    images = UnlabelledImages(tuple(cases("b", None, first=10)), target=frozenset({"c11"}))
    training = cases("a", "b", None, "z")
    assert images.places(training, None, []) == {
        **dict.fromkeys(("c0", "c1", "c2", "c3"), 0),
        "c10": UNKNOWN_PLACE,
        "c11": TARGET_PLACE,
    }
    assert images.places(training, "site", ["a", "b"]) == {
        "c0": 0,
        "c1": 2,
        "c2": UNKNOWN_PLACE,
        "c3": UNKNOWN_PLACE,
        "c10": 2,
        "c11": TARGET_PLACE,
    }


def test_styles_are_those_of_the_target_where_there_is_one():
    def prepared(value, place):
        return PreparedCase(str(value), np.full((1, 8, 8), value, np.float32), np.int64(0), (), (1.0, 1.0), place=place)

    others = Loader([prepared(1, UNKNOWN_PLACE), prepared(2, TARGET_PLACE)], (4, 4), 6, 0.0, 8)
    batch = Loader([prepared(0, 0)], (4, 4), 2, 0.0, 7, unlabelled=others).of_step(0)
    assert set(batch_loss.style_images(batch, "cpu", SINGLE_PROCESS).unique().tolist()) == {2}
    alone = Loader([prepared(0, 0)], (4, 4), 2, 0.0, 7).of_step(0)
    assert batch_loss.style_images(alone, "cpu", SINGLE_PROCESS).shape == (2, 1, 4, 4)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A table of pictures of two classes with columns that may state places, and images of a target."""
    root = tmp_path_factory.mktemp("places")
    files = sorted(trained.pictures(root / "data", 20).rglob("*.png"))
    rows = [
        {
            "image": file.relative_to(root / "data"),
            "label": file.parent.name,
            "site": "ab"[n % 2],
            "one": "x",
            "twin": {"bright": "left", "dark": "right"}[file.parent.name],
        }
        for n, file in enumerate(files)
    ]
    pd.DataFrame(rows).to_csv(root / "data" / "cases.csv", index=False)
    return SimpleNamespace(
        table=root / "data" / "cases.csv", target=trained.pictures(root / "target", 6, first=80), root=root
    )


def refused(pictures, **given):
    with pytest.raises((PlanError, DatasetError, UsageError)) as raised:
        trained.classifying(pictures.table, pictures.root / "no-run", **given)
    assert not (pictures.root / "no-run").exists()
    return str(raised.value)


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("one", "--domain: one has 1 value in these cases"),
        ("twin", "twin is the label"),
        ("label", "there is no covariate 'label'"),
        ("site,one", "is not one column"),
    ],
)
def test_a_column_that_states_no_places_or_the_answer_is_refused(pictures, column, said):
    assert said in refused(pictures, domain=column, assignments=TERMS)


def test_images_that_cannot_serve_as_a_target_are_refused(pictures, tmp_path):
    colours = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    (tmp_path / "colours").mkdir()
    trained.PIL.Image.fromarray(colours).save(tmp_path / "colours" / "one.png")
    assert "channels, and images that train have 1" in refused(
        pictures, target=[tmp_path / "colours"], assignments=TERMS
    )
    held = hilum.plan(pictures.table, device="cpu", threads=1)
    (tmp_path / "tested").mkdir()
    for number, case in enumerate(case for case in held.examination.dataset if held.parts.get(case.id) == "test"):
        (tmp_path / "tested" / f"{number}.png").write_bytes(case.files[0].read_bytes())
    assert "no unlabelled image is left" in refused(pictures, target=[tmp_path / "tested"], assignments=TERMS)
    assert "needs images of several places" in refused(pictures, assignments=TERMS)
    assert "there is no" in refused(pictures, target=[tmp_path / "nowhere"], assignments=TERMS)


def test_a_target_alone_lets_the_plan_choose_and_a_choice_by_hand_wins(pictures):
    given = {"objectives.target": [str(pictures.target)]}
    made = hilum.plan(pictures.table, device="cpu", threads=1, assignments=given).plan
    assert (made["augmentation.style"], made["objectives.terms"]) == (1.0, ["supervised", "mean_teacher"])
    assert made.decision("augmentation.style").source == "bench/findings/shift.md"
    chosen = hilum.plan(pictures.table, device="cpu", threads=1, assignments={**given, **TERMS}).plan
    assert (chosen["augmentation.style"], chosen["objectives.terms"]) == (0.0, TERMS["objectives.terms"])
    values = {**given, "objectives.terms": ["supervised"]}
    with pytest.raises(PlanError, match="no objective sees unlabelled images"):
        hilum.plan(pictures.table, device="cpu", threads=1, assignments=values)


def test_the_plan_takes_no_teacher_for_what_it_cannot_teach_or_hold():
    words = SimpleNamespace(name="toy", parts={}, uncertainty="values", labels=range(2), heads={"a": Vector(2)})
    classes = SimpleNamespace(name="toy", parts={}, uncertainty="classes", labels=range(2), heads={"a": Vector(2)})
    chosen = functools.partial(objective_rules.target_decisions, network="resnet", paths=["scans"])
    assert chosen(classes, is_cascade=False)["objectives.terms"].value == ["supervised", "mean_teacher"]
    for task, is_cascade, why in ((words, False, "state none"), (classes, True, "cascade")):
        decision = chosen(task, is_cascade=is_cascade)["objectives.terms"]
        assert decision.value == ["supervised"]
        assert why in decision.because
    plan = Plan({"objectives": {"terms": Decision(["supervised", "mean_teacher"], "")}, "mean_teacher": {}})
    without = objective_rules.without_teacher(plan, "9 GiB")
    assert "mean_teacher" not in without.sections
    assert without.decision("objectives.terms").because == "no mean_teacher fits into memory: 9 GiB"


def test_a_network_learns_with_a_target_and_a_column_of_places(pictures, tmp_path):
    given = {**TERMS, "augmentation.style": 1.0}
    trained.classifying(pictures.table, tmp_path / "run", target=[pictures.target], domain="site", assignments=given)
    log = pd.read_csv(tmp_path / "run" / "log.csv")
    assert (log["loss_dann"] > 0).all()
    record = hilum.load(tmp_path / "run", "cpu").record
    assert record["unlabelled"]["of_target"] == record["unlabelled"]["cases"] == 6
    kept = load_file(tmp_path / "run" / "checkpoints" / "last" / "objectives.safetensors")
    assert kept["parts.dann.weights"].shape[0] == 3  # two sites and the target
    with pytest.raises(UsageError, match="holds only 6 cases that trained this model"):
        hilum.evaluate(tmp_path / "run", pictures.target, out=tmp_path / "evaluated")
    notes = (tmp_path / "run" / "report.html").read_text()
    assert "Training saw 6 images of the target without labels" in notes
