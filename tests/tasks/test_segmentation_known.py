"""Cases that know some structures only: what they do not know is a part of their background, and is not scored."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from hilum.belief import Certainty, UnseenCases, voxel_belief
from hilum.errors import DatasetError, PlanError
from hilum.tasks import task_catalogue, task_settings
from hilum.tasks.segmentation import mask_postprocessing
from hilum.tasks.segmentation.question import Segmentation
from hilum.tasks.segmentation.targets import Codes
from hilum.tasks.shared.label_losses import TERMS
from hilum.training.data import target_kinds
from hilum.training.data.target_kinds import SampledMovement
from hilum.transforms import random_draws
from hilum.transforms.augment import Augmentation
from hilum.values import Case, CaseFacts, Dataset, Fingerprint, Geometry, Image, Label, Prediction, voxel_images
from hilum.values.voxel_images import ReferenceMap
from tasks import sampled_voxels as voxels

GRID = Geometry((6, 6, 4), np.diag([1.0, 1.0, 2.0, 1.0]))
LABELS = (Label(1, "left kidney"), Label(2, "right kidney"))
LEFT, RIGHT = ("left kidney",), ("right kidney",)
WHOLE = Segmentation(LABELS)
KIDNEYS = replace(WHOLE, partial=(LEFT,))
REGIONS = {"whole": (2, 1), "core": (1,)}
TUMOUR = Segmentation(voxel_images.labels_of_regions(REGIONS), regions=REGIONS, partial=(("whole",), ("core",)))
# Codes of the kidneys: 0, 1, 2 where both are known, then of the left alone 3 and 4, of the right alone 5 and 6.
BACKGROUND, LEFT_THERE = 3, 4


def mask(*values: int) -> np.ndarray:
    """The values one after the other along the first axis, the last of them to the end."""
    array = np.zeros(GRID.shape, np.uint8)
    for place, value in enumerate(values):
        array[place:] = value
    return array


def case(mask: np.ndarray, *known: str, name: str = "a", labels=()) -> Case:
    image = Image(np.zeros((1, *GRID.shape), np.float32), GRID)
    own = frozenset(known) if known else None
    return Case(name, name, {"image": image}, {"mask": Image(mask[None], GRID, labels=labels)}, known=own)


def logits_of(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def targets_of(seed: int, codes: list[int], *shape: int) -> torch.Tensor:
    return torch.tensor(codes)[torch.from_numpy(np.random.default_rng(seed).integers(0, len(codes), shape))]


# Targets


def test_a_voxel_of_such_a_case_says_what_is_known_in_it():
    codes = KIDNEYS.truth.codes
    assert codes.rows.tolist() == [0, 1, 2, 0, 1, 0, 2]
    assert KIDNEYS.truth.known_by_code.tolist() == [[True, True]] * 3 + [[True, False]] * 2 + [[False, True]] * 2
    assert codes.unknown == 7
    assert set(np.unique(KIDNEYS.target(case(mask(0, 1, 0), *LEFT)).data)) == {BACKGROUND, LEFT_THERE}
    assert set(np.unique(KIDNEYS.target(case(mask(0, 1, 2))).data)) == {0, 1, 2}
    assert set(np.unique(KIDNEYS.target(case(mask(0, 1, 2), *LEFT, *RIGHT)).data)) == {0, 1, 2}
    assert KIDNEYS.target(case(mask(0, 1, 0), *LEFT)).structures == ((1, 4), (2, 6))


def test_divided_readers_keep_their_shares_in_cases_that_know_some_labels():
    whole, codes = Codes(2, 2), Codes(2, 2, ((1,),))
    assert_array_equal(codes.shares[: len(whole.shares)], whole.shares)
    assert_array_equal(codes.shares[len(whole.shares) :], [[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0]])


def test_more_combinations_than_codes_are_refused():
    labels = tuple(Label(n, f"rib {n}") for n in range(1, 101))
    with pytest.raises(PlanError, match="3 combinations of known structures need 398 codes"):
        replace(
            Segmentation(labels), partial=tuple(tuple(f"rib {n}" for n in range(1, last)) for last in (98, 99, 100))
        ).check_and_fill()


def test_voxels_of_a_structure_that_is_unknown_there_are_refused_with_case_and_structure():
    for reading in (KIDNEYS.target, KIDNEYS.truth.reference_map, WHOLE.truth.reference_map):
        with pytest.raises(DatasetError, match="a: the mask holds voxels of right kidney, which is unknown"):
            reading(case(mask(0, 1, 2), *LEFT))
    with pytest.raises(DatasetError, match="holds voxels of whole, core, which is unknown"):
        TUMOUR.target(case(mask(0, 1), "whole"))


def test_a_case_that_knows_what_none_did_at_planning_is_refused():
    with pytest.raises(DatasetError, match="knows left kidney of the structures, as no case that was planned for"):
        WHOLE.target(case(mask(0, 1), *LEFT))


def test_where_left_and_right_change_sides_what_is_known_changes_too():
    assert KIDNEYS.channels_when_mirrored == (0, 2, 1)
    assert KIDNEYS.target_sides == (0, 2, 1, 5, 6, 3, 4)
    kind = target_kinds.target_kind(KIDNEYS.heads["mask"])
    flipping = Augmentation(flips=(0,), left_right=0, probability=0.0)
    targets = torch.full((4, 8, 8), LEFT_THERE, dtype=torch.uint8)
    movement = SampledMovement(
        [random_draws.sample_generator(0, 0, n) for n in range(4)], (1.0, 1.0), KIDNEYS.target_sides
    )
    _, turned = target_kinds.move_batch(kind, flipping, torch.zeros(4, 1, 8, 8), targets, movement)
    assert set(turned.unique().tolist()) == {LEFT_THERE, 6}
    assert WHOLE.target_sides == WHOLE.channels_when_mirrored


# The loss


@pytest.mark.parametrize(
    "name", ["dice+ce", "dice+focal", "tversky+ce", "dice+ce+boundary", "dice+topk", "dice+ce+ace"]
)
@pytest.mark.parametrize("weights", [None, {"left kidney": 3.0}])
def test_where_all_is_known_the_loss_is_the_usual_one_to_the_bit(name, weights):
    weights = None if name.endswith(("boundary", "ace")) else weights
    target = targets_of(0, [0, 1, 2], 2, 8, 8)
    both = [logits_of(0, 2, 3, 8, 8).requires_grad_() for _ in range(2)]
    costs = [
        replace(task, loss_name=name, weights=weights).loss({"mask": own}, target)
        for task, own in zip((WHOLE, KIDNEYS), both, strict=True)
    ]
    for cost in costs:
        cost.backward()
    assert costs[0].item() == costs[1].item()
    assert torch.equal(both[0].grad, both[1].grad)


@pytest.mark.parametrize("name", TERMS)
def test_a_structure_that_is_unknown_joins_the_background(name):
    """The loss of two classes: of the left kidney, and of all else, whose probabilities are added."""
    target, logits = targets_of(1, [BACKGROUND, LEFT_THERE], 2, 8, 8), logits_of(1, 2, 3, 8, 8)
    joined = torch.stack([torch.logaddexp(logits[:, 0], logits[:, 2]), logits[:, 1]], dim=1)
    usual = TERMS[name].cost(joined, (target == LEFT_THERE).long())
    found = replace(KIDNEYS, loss_name=name, centrelines=LEFT + RIGHT).loss({"mask": logits}, target)
    assert found.item() == pytest.approx(usual.item(), rel=1e-5)


def test_the_entropy_of_a_voxel_is_that_of_background_and_unknown_together():
    logits, target = torch.tensor([[[0.5], [-1.0], [2.0]]]), torch.tensor([[BACKGROUND]])
    chances = logits.softmax(dim=1)[0, :, 0]
    found = replace(KIDNEYS, loss_name="ce").loss({"mask": logits}, target)
    assert found.item() == pytest.approx(-math.log(chances[0] + chances[2]), rel=1e-6)


def test_what_is_unknown_is_pulled_nowhere_but_out_of_what_is_known():
    """The share of the unknown in its background stays: both are pulled alike, by their probabilities."""
    logits = logits_of(2, 1, 3, 4, 4).requires_grad_()
    KIDNEYS.loss({"mask": logits}, torch.full((1, 4, 4), BACKGROUND)).backward()
    chances = logits.detach().softmax(dim=1)
    assert_allclose(logits.grad[:, 2] / chances[:, 2], logits.grad[:, 0] / chances[:, 0], rtol=1e-4)
    assert (logits.grad[:, 1] > 0).all()


def test_a_structure_that_no_case_of_a_batch_knows_has_no_overlap_to_learn():
    logits = logits_of(3, 2, 3, 6, 6)
    other = logits.clone()
    other[:, 2] = other[:, 2] - 1.0  # moved to the background, of which it is a part
    other[:, 0] = torch.logsumexp(logits[:, [0, 2]], 1) + torch.log1p(
        -torch.exp(other[:, 2] - torch.logsumexp(logits[:, [0, 2]], 1))
    )
    target = targets_of(3, [BACKGROUND, LEFT_THERE], 2, 6, 6)
    assert KIDNEYS.loss({"mask": logits}, target).item() == pytest.approx(
        KIDNEYS.loss({"mask": other}, target).item(), rel=1e-4
    )
    assert math.isfinite(KIDNEYS.loss({"mask": logits}, target))


def test_the_overlap_of_a_structure_is_that_of_the_cases_that_know_it():
    knowing, not_knowing = logits_of(4, 1, 3, 8, 8), logits_of(5, 1, 3, 8, 8)
    target = targets_of(4, [2], 1, 8, 8)
    both = torch.cat([target, torch.full((1, 8, 8), BACKGROUND)])
    alone = replace(WHOLE, loss_name="dice").loss({"mask": knowing}, target)
    found = replace(KIDNEYS, loss_name="dice").loss({"mask": torch.cat([knowing, not_knowing])}, both)
    assert found.item() == pytest.approx(alone.item(), rel=1e-6)


def test_a_region_that_is_unknown_is_left_out():
    codes = TUMOUR.truth.codes
    # The labels are core (1) and the rest of the whole (2): what knows the whole only has no core.
    assert (codes.rows.tolist(), TUMOUR.truth.known_by_code.tolist()[3:]) == (
        [0, 1, 2, 0, 2, 0, 1],
        [[True, False]] * 2 + [[False, True]] * 2,
    )
    logits, target = logits_of(6, 2, 2, 6, 6).requires_grad_(), targets_of(6, [3, 4], 2, 6, 6)
    cost = TUMOUR.loss({"mask": logits}, target)
    cost.backward()
    assert (logits.grad[:, 1] == 0).all()
    both = torch.stack([torch.zeros_like(logits[:, 0]), logits[:, 0]], dim=1)
    usual = sum(TERMS[name].cost(both, (target == 4).long()) for name in ("dice", "ce"))
    assert cost.item() == pytest.approx(usual.item(), rel=1e-5)


def test_a_loss_that_cannot_leave_out_the_unknown_is_refused_and_replaced():
    given = {"name": "segmentation", **task_settings.settings_of(TUMOUR), "loss": "dice+ce+boundary"}
    with pytest.raises(PlanError, match="neighbours"):
        task_catalogue.build_task(given)
    assert task_settings.following_decisions(Segmentation, given)["task.loss"].value == "dice+ce"
    assert task_settings.following_decisions(Segmentation, task_settings.settings_of(KIDNEYS)) == {}


def test_settings_come_back_and_unknown_names_are_refused():
    given = {"name": "segmentation", **json.loads(json.dumps(task_settings.settings_of(TUMOUR)))}
    assert task_catalogue.build_task(given) == TUMOUR.check_and_fill()
    with pytest.raises(PlanError, match="no structure 'spleen'"):
        task_catalogue.build_task(given | {"partial": [["spleen"]]})
    with pytest.raises(PlanError, match="not lists of names"):
        task_catalogue.build_task(given | {"partial": ["whole"]})


# Selection and scores


def test_the_selection_looks_at_the_cases_that_know_a_structure():
    said = torch.tensor([[1, 2, 2, 0], [1, 2, 2, 0]])
    logits = 9 * torch.nn.functional.one_hot(said, 3).movedim(-1, 1).float()
    target = torch.tensor([[1, 0, 2, 0], [LEFT_THERE, 3, 3, 3]])
    counts = KIDNEYS.quality({"mask": logits}, target)
    assert (counts["both"].tolist(), counts["size"].tolist()) == ([[1, 1], [1, 0]], [[2, 3], [2, 0]])
    assert KIDNEYS.selection(counts) == pytest.approx((1 + 2 / 3 + 1) / 3)


def scored(task: Segmentation, predicted: np.ndarray, *cases: Case):
    return task.score([Prediction(GRID, data=predicted, labels=task.labels)] * len(cases), cases)


def test_a_structure_is_scored_in_the_cases_that_know_it():
    predicted = mask(0, 1, 2, 0)
    table = scored(WHOLE, predicted, case(predicted), case(mask(0, 1, 0), *LEFT, name="b"))
    assert table[["case", "label"]].to_numpy().tolist() == [
        ["a", "left kidney"],
        ["a", "right kidney"],
        ["b", "left kidney"],
    ]
    assert (table["dice"] == 1).all()
    rows = {(row.metric, row.label): row.estimate for row in WHOLE.summary(table, seed=0)}
    assert [rows["dice", label].n for label in ("all", "left kidney", "right kidney")] == [2, 2, 1]
    assert WHOLE.rank(table) == ["a", "b"]


def test_a_region_is_scored_where_it_is_known():
    table = scored(TUMOUR, mask(0, 2, 1, 0), case(mask(0, 2, 0), "whole")).set_index("label")
    assert list(table.index) == ["whole"]
    assert table.loc["whole", "precision"] == pytest.approx(1 / 2)


def test_pictures_show_no_prediction_of_what_is_unknown(monkeypatch):
    seen = []
    monkeypatch.setattr("hilum.report.figures.slice_figures.contours", lambda image, *maps, **given: seen.append(maps))
    for of in (case(mask(0, 1, 2, 0)), case(mask(0, 1, 0), *LEFT)):
        WHOLE.figures(Prediction(GRID, data=mask(0, 1, 2, 0), labels=LABELS), of)
    assert [set(np.unique(predicted)) for _, predicted, _ in seen] == [{0, 1, 2}, {0, 1}]


def test_what_a_case_knows_is_understood_under_the_names_of_the_model():
    named = (Label(5, "Right_Kidney"), Label(1, "left kidney"), Label(7, "spleen"))
    other = case(mask(0, 5, 0), "Right_Kidney", "spleen", name="b", labels=named)
    bare = case(mask(0, 1, 0), "1", name="c", labels=(Label(1, "1"), Label(2, "2")))
    cases, sentences = WHOLE.own_labels([case(mask(0, 1, 2)), other, bare])
    assert [one.known for one in cases] == [None, {"right kidney"}, {"left kidney"}]
    assert sentences[-1] == (
        "A structure is scored only where it was contoured; of 3 cases that is left kidney in 2, right kidney in 2."
    )
    with pytest.raises(DatasetError, match="no case knows any of left kidney, right kidney"):
        WHOLE.own_labels([case(mask(0), "spleen", labels=(*LABELS, Label(7, "spleen")))])


# What unseen cases find


def test_post_processing_is_found_from_the_cases_that_know_the_label():
    """A speck of the right kidney beside what was contoured: in cases that do not know it nobody can call it wrong."""
    truth, predicted = mask(0, 1, 0), mask(0, 1, 0)
    predicted[5, 5, 3] = 2
    pair = Prediction(GRID, data=predicted, labels=LABELS), truth

    def found(known: tuple[bool, ...] | None):
        cases = [case(pair[1], name=str(n)) for n in range(6)]
        reference = ReferenceMap(pair[1], None, known)
        return mask_postprocessing.choose_rules([pair[0]] * 6, cases, LABELS, lambda one: reference, {})[0]

    assert found((True, False)) == {}
    assert set(found(None)) <= {"right kidney"}


def test_calibration_and_thresholds_come_from_what_is_known():
    """The lesion is known in every second case."""
    task = replace(voxels.TASK, certainty=Certainty(risk=0.2))
    outputs = [voxels.true_outputs(seed) for seed in range(8)]
    made = [task.decode([(voxels.WHOLE, {"mask": 2.5 * own.astype(np.float32)})], voxels.GRID) for own in outputs]
    cases = [voxels.case(voxels.sample_labels(own, seed), seed) for seed, own in enumerate(outputs)]
    answers = task.answers
    reference_maps = [task.truth.reference_map(one) for one in cases]
    people = np.array([one.patient for one in cases])
    unknown = [ReferenceMap(np.where(own.values == 5, 0, own.values), None, (True, False)) for own in reference_maps]
    partial = [unknown[n] if n % 2 else own for n, own in enumerate(reference_maps)]

    def found(maps: list[ReferenceMap], places: list[int]):
        rows = UnseenCases([made[n] for n in places], [lambda own=maps[n]: own for n in places], people[places])
        return answers.calibrate(rows), answers.sets(rows, exact=False)

    every, half = list(range(8)), [0, 2, 4, 6]
    mixed, whole, known = found(partial, every), found(reference_maps, every), found(reference_maps, half)
    for place, setting in ((1, "task.conformal"), (1, "task.covering")):
        limits, of_all, of_half = (one[place][setting].value["thresholds"] for one in (mixed, whole, known))
        assert limits == {"organ": of_all["organ"], "lesion": of_half["lesion"]}
    powers = mixed[0]["task.expected_dice"].value
    assert all(0.2 < power < 5 for power in powers.values())
    factors = [
        found(maps, every)[0]["task.calibration"].value["parameters"]["all"][0] for maps in (reference_maps, partial)
    ]
    assert_allclose(factors, 0.4, rtol=0.1)


def test_in_calibration_the_probability_of_an_unknown_class_is_the_backgrounds():
    logs = np.log(np.array([[0.5, 0.2, 0.3], [0.6, 0.3, 0.1]]))
    joined = voxel_belief.join_background(logs, np.array([[True, False], [True, True]]))
    assert_allclose(np.exp(joined), [[0.8, 0.2, 0], [0.6, 0.3, 0.1]], atol=1e-12)


# Planning


def facts(name: str, counts: dict[int, int]) -> CaseFacts:
    return CaseFacts(
        name, (20, 20, 20), (1.0, 1.0, 1.0), True, True, ("0",), "CT", ({"min": 0.0},), references={"mask": counts},
        thickness={1: 9.0, 2: 9.0}, components={one: 1 for one in counts if one},
    )  # fmt: skip


def planned(*known: tuple[str, ...], rare: int = 1000):
    cases = tuple(replace(case(mask(0)), id=f"c{n}", known=frozenset(own) or None) for n, own in enumerate(known))
    each = [
        facts(
            f"c{n}",
            {0: 6000}
            | ({1: 1000} if not own or LEFT[0] in own else {})
            | ({2: rare} if not own or RIGHT[0] in own else {}),
        )
        for n, own in enumerate(known)
    ]
    return Segmentation.settings_for(Dataset(cases, classes={"mask": LABELS}), Fingerprint(tuple(each)))


def test_the_plan_says_how_many_cases_know_which_structures():
    decision = planned(LEFT, LEFT, RIGHT, ())["partial"]
    assert decision.value == [["left kidney"], ["right kidney"]]
    assert "of 4 training cases structures are known so: left kidney in 3, right kidney in 2" in decision.because
    assert planned((), ())["partial"].value is None


def test_a_structure_that_few_cases_know_is_not_taken_for_a_rare_one():
    # Of the same volume where it is known, in one of 150 cases: unknown in the others, not 150 times smaller.
    many = [LEFT] * 149 + [(LEFT[0], RIGHT[0])]
    assert planned(*many)["weights"].value is None
    absent = [()] * 150
    assert planned(*absent, rare=5)["weights"].value is not None


def test_a_structure_that_no_training_case_knows_is_refused():
    with pytest.raises(DatasetError, match="no training case knows right kidney"):
        planned(LEFT, LEFT)
