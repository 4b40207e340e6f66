from __future__ import annotations

import numpy as np
import pytest
import torch

from isocenter import tasks
from isocenter.errors import DatasetError, PlanError
from isocenter.tasks.classification import Classification
from isocenter.values import Case, Geometry, Image, Prediction

GRID = Geometry.of_pixels((4, 4))
TASK = Classification(("benign", "malignant", "normal"))


def case(name: str, reference: str, patient: str | None = None) -> Case:
    image = Image(np.zeros((1, 4, 4), np.float32), GRID)
    return Case(name, patient or name, {"image": image}, {"class": reference})


def said(*probabilities: float) -> Prediction:
    return Prediction(GRID, probabilities=dict(zip(TASK.classes, probabilities, strict=True)))


def test_a_task_comes_back_from_its_settings():
    assert tasks.build({"name": "classification", **TASK.settings}) == TASK


def test_the_target_is_the_classs_place_and_an_unknown_class_is_refused():
    assert TASK.target(case("a", "malignant")).data == 1
    with pytest.raises(DatasetError, match="strange"):
        TASK.target(case("a", "strange"))


def test_the_loss_of_knowing_nothing_is_the_entropy_and_of_knowing_all_nothing():
    target = torch.tensor([0, 1, 2])
    assert float(TASK.loss({"class": torch.zeros(3, 3)}, target)) == pytest.approx(np.log(3))
    assert float(TASK.loss({"class": 50 * torch.eye(3)}, target)) == pytest.approx(0.0, abs=1e-6)


def test_smoothing_spreads_its_share_over_all_classes():
    smooth = Classification(TASK.classes, smoothing=0.3)
    logits, target = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([0])
    logs = torch.log_softmax(logits, dim=1)[0]
    assert float(smooth.loss({"class": logits}, target)) == pytest.approx(float(-0.7 * logs[0] - 0.1 * logs.sum()))


def test_decoding_is_the_softmax_by_class():
    prediction = TASK.decode([((), {"class": np.log(np.array([0.2, 0.5, 0.3], np.float32))})], GRID)
    assert list(prediction.probabilities) == list(TASK.classes)
    assert list(prediction.probabilities.values()) == pytest.approx([0.2, 0.5, 0.3])
    assert TASK.outputs(prediction)["predicted"] == "malignant"


def test_the_selection_is_the_area_that_the_summary_states():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 60)
    reference = rng.integers(0, 3, 60)
    chosen = TASK.selection({"probabilities": torch.from_numpy(probabilities), "target": torch.from_numpy(reference)})
    table = TASK.score(
        [said(*row) for row in probabilities], [case(str(n), TASK.classes[r]) for n, r in enumerate(reference)]
    )
    [area] = [row for row in TASK.summary(table, seed=0) if (row.metric, row.label) == ("auroc", "all")]
    assert chosen == pytest.approx(area.estimate.value)


def test_where_a_class_is_missing_the_selection_is_the_log_likelihood():
    collected = {"probabilities": torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.3, 0.2]]), "target": torch.tensor([0, 0])}
    assert TASK.selection(collected) == pytest.approx(np.log(0.5))


def test_a_row_names_the_classes_as_its_columns_do():
    table = TASK.score([said(0.1, 0.7, 0.2)], [case("a", "normal", "p1")])
    assert list(table.columns) == [
        "case",
        "patient",
        "label",
        "reference",
        "predicted",
        "probability_benign",
        "probability_malignant",
        "probability_normal",
        "brier",
    ]
    assert table.iloc[0].tolist()[:5] == ["a", "p1", "all", "normal", "malignant"]
    assert table["brier"].iloc[0] == pytest.approx(0.1**2 + 0.7**2 + 0.8**2)


def test_the_summary_of_answers_that_are_all_right_is_perfect_and_the_row_over_all_comes_first():
    names = ["benign", "malignant", "normal"] * 6
    table = TASK.score(
        [said(*(0.8 if name == one else 0.1 for one in TASK.classes)) for name in names],
        [case(str(n), name) for n, name in enumerate(names)],
    )
    rows = TASK.summary(table, seed=0)
    assert (rows[0].metric, rows[0].label) == ("auroc", "all")
    for row in rows:
        if row.metric in ("auroc", "accuracy", "balanced_accuracy", "mcc", "sensitivity", "specificity"):
            assert row.estimate.value == pytest.approx(1.0), row
    assert {row.label for row in rows} == {"all", *TASK.classes}
    assert all(row.estimate.n for row in rows)


def test_cases_are_ranked_from_the_surest_right_to_the_surest_wrong():
    table = TASK.score(
        [said(0.1, 0.8, 0.1), said(0.9, 0.05, 0.05), said(0.4, 0.3, 0.3)],
        [case("wrong", "benign"), case("right", "benign"), case("unsure", "benign")],
    )
    assert TASK.rank(table) == ["right", "unsure", "wrong"]


@pytest.mark.parametrize(
    "change",
    [{"classes": ["one"]}, {"classes": ["a", "a"]}, {"smoothing": 1.0}, {"smoothing": "much"}, {"classes": 3}],
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(PlanError):
        Classification.of({**TASK.settings, **change})
