from __future__ import annotations

import threading

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose

from hilum.errors import DatasetError, PlanError
from hilum.tasks import fitting, properties, task_catalogue, task_settings
from hilum.tasks import task as tasks_task
from hilum.tasks.fitting import PredictedCases
from hilum.training import checkpoint_files
from hilum.training.data import target_kinds
from hilum.training.data.batch_loading import Loader
from hilum.training.data.prepared_store import PreparedCase
from hilum.training.data.target_kinds import SampledMovement
from hilum.training.step import batch_loss
from hilum.transforms.augment import Augmentation
from hilum.values import Case, Dataset, Dense, Geometry, Image, Prediction, Target, Vector
from hilum.values.prediction import KNOWN, SeveralHeads

CLASSES = {"classes": ["benign", "malignant"], "smoothing": 0.0}
LESION = {"labels": [{"value": 1, "name": "lesion"}], "loss": "dice+ce", "tolerance": 2.0}
SIZES = {"targets": ["size"], "mean": {"size": 10.0}, "deviation": {"size": 2.0}, "units": {"size": "mm"}}
ALL = {"classification": CLASSES, "segmentation": LESION, "regression": SIZES}
GRID = Geometry.of_pixels((4, 4))


def joined(*parts: str, **own: object) -> tasks_task.Task:
    settings = {f"{part}.{key}": value for part in parts for key, value in ALL[part].items()}
    return task_catalogue.build_task({"name": "+".join(parts), **settings, **own})


def case(name: str = "a", **references: object) -> Case:
    pixels = Image(np.zeros((1, 4, 4), np.float32), GRID, channels=("0",))
    return Case(name, name, {"image": pixels}, references)


def mask(values: object) -> Image:
    return Image(np.asarray(values, np.uint8)[None], GRID)


LEFT = mask([[1, 1, 0, 0]] * 4)
BOTH = joined("segmentation", "classification")
THREE = joined("segmentation", "classification", "regression")


def outputs(batch: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn((batch, *shape), generator=generator)
        for name, shape in (
            ("segmentation_mask", (2, 4, 4)),
            ("classification_class", (2,)),
            ("regression_value", (1,)),
        )
    }


def taught(*known: tuple[bool, bool, bool]) -> dict[str, torch.Tensor]:
    """Of lesions on the left, of the second class, and one deviation above the mean."""
    count = len(known)
    return {
        "classification": torch.ones(count, dtype=torch.long),
        "regression": torch.ones(count, 1),
        "segmentation": torch.from_numpy(np.stack([LEFT.data[0]] * count)),
        KNOWN: torch.tensor(known),
    }


def test_a_name_joins_kinds_in_whatever_order_they_are_named():
    assert task_catalogue.task_class("segmentation+classification").name == "classification+segmentation"
    assert task_catalogue.task_class("segmentation+classification") == task_catalogue.task_class(
        "classification+segmentation"
    )
    with pytest.raises(PlanError, match="Name each kind once"):
        task_catalogue.task_class("segmentation+segmentation")
    with pytest.raises(PlanError, match="no task 'segmenting'"):
        task_catalogue.task_class("segmenting+classification")


def test_all_kinds_are_joined_only_where_it_is_asked_for():
    dataset = Dataset((case(mask=LEFT), case("b", **{"class": "benign"})), name="two")
    with pytest.raises(DatasetError, match=r"or several at once: --task classification\+segmentation"):
        task_catalogue.kind_for_dataset(dataset)
    assert task_catalogue.kind_for_dataset(dataset, "multitask").name == "classification+segmentation"
    masks = Dataset((case(mask=LEFT),), name="one")
    assert task_catalogue.kind_for_dataset(masks).name == "segmentation"
    with pytest.raises(DatasetError, match="not by several kinds"):
        task_catalogue.kind_for_dataset(masks, "multitask")
    with pytest.raises(DatasetError, match="needs references of the kind class, mask"):
        task_catalogue.kind_for_dataset(masks, "segmentation+classification")


def test_its_settings_make_it_again():
    task = joined("segmentation", "classification", weighting="fixed", loss_weights={"classification": 0.5})
    assert task_catalogue.build_task({"name": task.name, **task_settings.settings_of(task)}) == task
    assert list(task.parts) == ["segmentation", "classification"]  # first what is said of every voxel


@pytest.mark.parametrize(
    ("own", "where"),
    [
        ({"weighting": "guessed"}, "task.weighting"),
        ({"loss_weights": {"classification": 0}}, "task.loss_weights"),
        ({"loss_weights": {"regression": 1.0}}, "task.loss_weights"),
        ({"smoothing": 0.1}, "task.smoothing"),
        ({"segmentation.loss": "guessed"}, "task.segmentation.loss"),
        ({"classification.smoothing": 2.0}, "task.classification.smoothing"),
        ({"classification.size": 2.0}, "task.classification.size"),
    ],
)
def test_an_impossible_setting_is_refused_by_its_own_name(own, where):
    with pytest.raises(PlanError) as refused:
        joined("segmentation", "classification", **own)
    assert refused.value.where == where


def test_a_case_teaches_what_it_is_known_of_and_one_without_any_label_is_refused():
    assert set(THREE.target(case(mask=LEFT)).data) == {"segmentation"}
    target = THREE.target(case(mask=LEFT, value={"size": 12.0}))
    assert set(target.data) == {"segmentation", "regression"}
    assert target.data["regression"].data.tolist() == [1.0]
    assert properties.can_learn_from(THREE, {"value"})
    assert not properties.can_learn_from(THREE, {"boxes"})
    with pytest.raises(DatasetError, match="no reference of the kind class, mask, value"):
        THREE.target(case(boxes=None))


def test_with_fixed_weights_the_loss_is_the_weighed_sum_of_the_parts():
    task = joined("segmentation", "classification", "regression", weighting="fixed",
                  loss_weights={"segmentation": 2.0, "regression": 0.5})  # fmt: skip
    given, target = outputs(), taught((True, True, True), (True, True, True))
    parts = {
        "segmentation": task.parts["segmentation"].loss({"mask": given["segmentation_mask"]}, target["segmentation"]),
        "classification": task.parts["classification"].loss(
            {"class": given["classification_class"]}, target["classification"]
        ),
        "regression": task.parts["regression"].loss({"value": given["regression_value"]}, target["regression"]),
    }
    expected = 2 * parts["segmentation"] + parts["classification"] + 0.5 * parts["regression"]
    assert task.loss(given, target).item() == pytest.approx(expected.item())


def test_what_is_not_known_of_a_sample_has_no_say_in_the_loss():
    given = {name: one.requires_grad_() for name, one in outputs(3).items()}
    target = taught((True, True, False), (False, True, False), (True, False, False))
    THREE.loss({**given, "log_variance": torch.zeros(3)}, target).backward()
    moved_by = {
        name: (one.grad.flatten(1) != 0).any(dim=1).tolist() for name, one in given.items() if one.grad is not None
    }
    assert moved_by == {"classification_class": [True, False, True], "regression_value": [True, True, False]}
    nothing = THREE.loss({**given, "log_variance": torch.zeros(3)}, taught((False, False, False)) | {
        KNOWN: torch.zeros(3, 3, dtype=torch.bool)})  # fmt: skip
    assert nothing.item() == 0


def test_a_learnt_variance_settles_at_twice_the_loss_of_its_part():
    """exp(-s) L + s / 2 is least where exp(s) = 2 L."""
    given, target = outputs(), taught((True, False, False), (True, False, False))
    cost = BOTH.parts["classification"].loss({"class": given["classification_class"]}, target["classification"])
    logs = torch.zeros(3, requires_grad=True)
    optimiser = torch.optim.LBFGS([logs], max_iter=100)

    def again() -> torch.Tensor:
        optimiser.zero_grad()
        loss = THREE.loss({**given, "log_variance": logs}, target)
        loss.backward()
        return loss

    optimiser.step(again)
    place = list(THREE.parts).index("classification")
    assert logs[place].exp().item() == pytest.approx(2 * cost.item(), rel=1e-3)
    assert logs.tolist().count(0.0) == 2  # of the parts that nothing is known of


def test_beside_coarser_outputs_what_holds_for_the_whole_image_counts_once():
    task = joined("segmentation", "classification", weighting="fixed")
    given = {name: one for name, one in outputs().items() if not name.startswith("regression")}
    target = {name: one for name, one in taught((True, True, True), (True, True, True)).items() if name != "regression"}
    target[KNOWN] = target[KNOWN][:, :2]
    given["segmentation_mask@1"] = torch.zeros(2, 2, 2, 2)
    kind = target_kinds.target_kind(SeveralHeads({"classification": Vector(2), "segmentation": Dense(2)}))
    costs = batch_loss.deeply_supervised(
        task, given, target, lambda targets, wanted: kind.coarse(targets, (4, 4), wanted)
    )
    classes = task.parts["classification"].loss({"class": given["classification_class"]}, target["classification"])
    dense = batch_loss.deeply_supervised(
        task.parts["segmentation"],
        {"mask": given["segmentation_mask"], "mask@1": given["segmentation_mask@1"]},
        target["segmentation"],
    )
    assert costs.item() == pytest.approx((classes + dense).item())


def test_selection_is_the_mean_of_the_parts_over_the_cases_that_each_is_known_of():
    perfect = torch.nn.functional.one_hot(torch.from_numpy(LEFT.data).long(), 2).movedim(-1, 1).float()
    quality, selection = BOTH.quality, BOTH.selection
    masks = quality({"segmentation_mask": perfect}, {"segmentation": torch.from_numpy(LEFT.data)})
    assert selection(masks) == 1.0
    given = {"classification_class": torch.tensor([[2.0, 0.0], [0.0, 2.0]])}
    classes = quality(given, {"classification": torch.tensor([1, 0])})  # the wrong way round
    assert selection({**masks, **classes}) == 0.5
    assert (
        selection(checkpoint_files.concatenate_cases([masks, classes])) == 0.5
    )  # of three cases, none of which has both references
    assert quality(given, {"segmentation": torch.from_numpy(LEFT.data)}) == {}


def test_cases_that_lack_a_reference_are_resampled_too():
    """Else no weights would ever be better than others, and a report would state a share of draws that nobody made."""
    truth = torch.tensor([0, 1])

    def of_cases(sure: float) -> dict[str, torch.Tensor]:
        logits = torch.tensor([[[sure, 0.0]], [[0.0, sure]]])
        answered = [({"classification_class": logits[n % 2]}, {"classification": truth[n % 2, None]}) for n in range(8)]
        measured = [({"regression_value": torch.zeros(1, 1)}, {"regression": torch.zeros(1, 1)})] * 8
        quality = joined("classification", "regression").quality
        return checkpoint_files.concatenate_cases([quality(*one) for one in [*answered, *measured]])

    patients = [str(n) for n in range(16)]
    task = joined("classification", "regression")
    assert checkpoint_files.share_better(task, of_cases(2.0), of_cases(-2.0), patients, seed=0) > 0.95
    assert checkpoint_files.share_better(task, of_cases(-2.0), of_cases(2.0), patients, seed=0) == 0.0


def prepared(number: int, **target: np.ndarray) -> PreparedCase:
    heads = {"classification": Vector(2), "segmentation": Dense(2)}
    kind = target_kinds.target_kind(SeveralHeads({name: heads[name] for name in target}))
    return PreparedCase(str(number), np.zeros((1, 4, 4), np.float32), target, (), (1.0, 1.0), kind)


def test_a_batch_of_cases_that_lack_labels_says_which_are_known():
    cases = [
        prepared(0, classification=np.int64(1)),
        prepared(1, segmentation=LEFT.data[0]),
        prepared(2, classification=np.int64(1), segmentation=LEFT.data[0]),
    ]
    batch = Loader(cases, (4, 4), 3, 0.0, seed=0).of_step(0)
    known = {name: batch.targets[KNOWN][:, n] for n, name in enumerate(("classification", "segmentation"))}
    assert sorted(batch.targets[KNOWN].tolist()) == [[False, True], [True, False], [True, True]]
    assert batch.targets["classification"][known["classification"]].tolist() == [1, 1]
    assert batch.targets["segmentation"].shape == (3, 4, 4)
    assert not batch.targets["segmentation"][~known["segmentation"]].any()
    assert target_kinds.kind_names(batch.kind) == {"classification": "vector", "segmentation": "dense"}


def test_each_part_follows_a_mirrored_image_in_its_own_way():
    """The label map is mirrored, and a class that names a side is the other one."""
    labels = torch.from_numpy(np.stack([LEFT.data[0]] * 8))
    images = labels[:, None].float()
    targets = {
        "classification": torch.zeros(8, dtype=torch.long),
        "segmentation": labels,
        KNOWN: torch.ones(8, 2, dtype=torch.bool),
    }
    kind = target_kinds.target_kind(SeveralHeads({"classification": Vector(2), "segmentation": Dense(2)}))
    generators = [np.random.default_rng(n) for n in range(8)]
    sides = {"classification": (1, 0), "segmentation": (0, 1)}
    each = {name: SampledMovement(generators, (1.0, 1.0), one) for name, one in sides.items()}
    movement = SampledMovement(generators, (1.0, 1.0), (0, 1, 3, 2), parts=each)
    change = Augmentation(probability=0.0, accidents=0.0, flips=(1,), left_right=1)
    seen, moved_targets = target_kinds.move_batch(kind, change, images, targets, movement)
    assert torch.equal(seen[:, 0], moved_targets["segmentation"].float())
    crossed = moved_targets["segmentation"][:, 0, 0] == 0
    assert 0 < crossed.sum() < 8
    assert moved_targets["classification"].tolist() == crossed.long().tolist()


def test_mirrored_views_change_the_sides_of_the_head_that_names_them():
    sided = {"classes": ["left", "right"], "smoothing": 0.0}
    task = task_catalogue.build_task(
        {
            "name": "classification+segmentation",
            **{f"classification.{key}": value for key, value in sided.items()},
            **{f"segmentation.{key}": value for key, value in LESION.items()},
        }
    )
    assert task.channels_when_mirrored == (0, 1, 3, 2)
    assert properties.mirrored_channels(task) == {"segmentation_mask": (0, 1), "classification_class": (1, 0)}
    assert properties.mirrored_channels(task.parts["segmentation"]) == {"mask": (0, 1)}


def slabs() -> list:
    """Two halves of the grid, of which the left is a lesion, and what is said of the whole image in two columns."""
    left = np.stack([1 - LEFT.data[0], LEFT.data[0]]).astype(np.float32)
    rows = [(slice(0, 2), slice(0, 4)), (slice(2, 4), slice(0, 4))]
    return [
        (rows[0], {"segmentation_mask": left[:, :2]}),
        ((), {"classification_class": np.array([0.0, 2.0], np.float32)}),
        (rows[1], {"segmentation_mask": left[:, 2:]}),
        ((), {"classification_class": np.array([0.0, 4.0], np.float32)}),
    ]


def test_each_part_decodes_its_own_and_the_whole_holds_all():
    prediction = BOTH.decode(iter(slabs()), GRID)
    assert_allclose(np.asarray(prediction.data), LEFT.data[0])
    assert prediction.labels[0].name == "lesion"
    assert prediction.probabilities["malignant"] == pytest.approx(1 / (1 + np.exp(-3.0)))
    assert set(prediction.parts) == {"segmentation", "classification"}
    row = BOTH.outputs(prediction)
    assert row["lesion_pixels"] == 8
    assert row["predicted"] == "malignant"
    assert [one.concept for one in BOTH.results(prediction)] == ["lesion", "benign", "malignant"]
    assert BOTH.probable_findings == ("benign", "malignant")


def test_several_readers_of_one_stream_hold_no_more_than_they_are_at():
    given, most, lock = [0], [0], threading.Lock()
    read = [0, 0]

    def stream():
        for number in range(50):
            with lock:
                given[0] += 1
                most[0] = max(most[0], given[0] - min(read))
            yield ((slice(number, number + 1),), {})

    def reader(which: int):
        def run(stream):
            for _ in stream:
                with lock:
                    read[which] += 1
            return read[which]

        return run

    assert properties.feed_readers(stream(), [reader(0), reader(1)]) == [50, 50]
    assert most[0] <= 4


def test_a_reader_that_fails_is_heard_and_stops_nobody():
    def failing(stream):
        raise ValueError("no such slab")

    with pytest.raises(ValueError, match="no such slab"):
        properties.feed_readers(iter(slabs() * 20), [failing, lambda stream: len(list(stream))])


def test_a_table_of_all_parts_comes_apart_into_those_of_each():
    prediction = BOTH.decode(iter(slabs()), GRID)
    whole = case("a", mask=LEFT, **{"class": "malignant"})
    part = case("b", **{"class": "benign"})
    table = BOTH.score([prediction, prediction], [whole, part])
    assert table["label"].tolist() == ["segmentation: lesion", "classification: all", "classification: all"]
    assert table["segmentation.dice"].tolist()[0] == 1.0
    assert table["segmentation.dice"].isna().tolist() == [False, True, True]
    rows = {(row.metric, row.label): row.estimate for row in BOTH.summary(table, seed=0)}
    assert rows["dice", "segmentation: all"].value == 1.0
    assert rows["dice", "segmentation: all"].n == 1
    assert rows["auroc", "classification: all"].value == 0.5
    assert rows["auroc", "classification: all"].n == 2
    assert BOTH.rank(table) == ["a", "b"]
    assert len(BOTH.overview(table)) > 2
    assert len(BOTH.figures(prediction, part)) == 2
    assert isinstance(table, pd.DataFrame)


def test_columns_that_two_parts_have_are_called_by_their_part():
    task = joined("classification", "regression")
    prediction = Prediction(GRID, parts={
        "classification": Prediction(GRID, probabilities={"benign": 0.25, "malignant": 0.75}),
        "regression": Prediction(GRID, values={"size": 12.0})})  # fmt: skip
    assert dict(task.outputs(prediction)) == {
        "predicted": "malignant", "probability_benign": 0.25, "probability_malignant": 0.75, "set": None,
        "value_size": 12.0, "low_size": None, "high_size": None,
    }  # fmt: skip


def test_cases_are_sampled_as_they_come():
    with pytest.raises(PlanError, match="Give natural"):
        BOTH.under("balanced")
    assert set(BOTH.under("natural")) == {"task.classification.prior_shift"}


def test_saliency_explains_all_answers_read_by_each():
    given = {name: one for name, one in outputs().items() if not name.startswith("regression")}
    each = [
        BOTH.parts["segmentation"].saliency({"mask": given["segmentation_mask"]}),
        BOTH.parts["classification"].saliency({"class": given["classification_class"]}),
    ]
    assert_allclose(BOTH.saliency(given), sum(each))


def test_a_target_of_several_parts_is_stored_by_part():
    kind = target_kinds.target_kind(SeveralHeads({"segmentation": Dense(2)}))
    target = Target(SeveralHeads({"segmentation": Dense(2)}), {"segmentation": LEFT.data[0]})
    assert kind.to_arrays(target.data)["segmentation"][0]  # large: read in chunks
    assert kind.from_arrays({"segmentation": LEFT.data[0]}).keys() == {"segmentation"}


TIMES = {"model": "cox", "horizons": [5.0], "scale": 6.0, "edges": [5.0, 20.0], "followed": 20.0}
COX = {**TIMES, "censoring": {"time": [], "share": []}}
TIMED = task_catalogue.build_task(
    {
        "name": "classification+survival",
        **{f"classification.{key}": value for key, value in CLASSES.items()},
        **{f"survival.{key}": value for key, value in COX.items()},
    }
)


def test_of_another_network_the_hazard_ratios_alone_get_the_zero_of_the_models():
    answer = {"classification_class": np.array([0.0, 1.0], np.float32)}
    ours, theirs = (
        [TIMED.decode([((), answer | {"survival_event": np.float32([one + zero])})], GRID) for one in (0, 2, 3)]
        for zero in (0.0, -4.0)
    )
    made = fitting.align(TIMED, theirs[2:], theirs[:2], ours[:2])
    assert made[0].parts["survival"].values["risk"] == pytest.approx(3.0)
    assert made[0].parts["classification"] is theirs[2].parts["classification"]
    assert not fitting.needs_alignment(BOTH)


def test_where_every_case_trains_only_the_part_that_needs_it_is_tuned_by_cases_that_trained():
    answer = {"classification_class": np.array([0.0, 1.0], np.float32), "survival_event": np.float32([0.7])}
    one = Case("a", "a", {}, {"class": "ill", "event": (3.0, True)})
    made = TIMED.decode([((), answer)], GRID)
    task, decisions = fitting.with_fitted_calibration(TIMED, PredictedCases([made], [one]), "training")
    assert TIMED.tuned_on == ("val", "train")
    assert task.parts["survival"].baseline["time"] == [3.0]
    assert task.parts["classification"] == TIMED.parts["classification"]
    assert {name.partition(".")[2].partition(".")[0] for name in decisions} == {"survival"}
    assert BOTH.tuned_on == ("val",)
