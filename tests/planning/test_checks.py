from __future__ import annotations

from typing import Any

import pytest

import hilum
from hilum.errors import HilumError
from hilum.planning import plan_checks

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"folds": 1}, "1 fold leaves nothing"),
    ({"device": "banana"}, "no device 'banana'"),
    ({"device": "cuda:99"}, "cuda:99 is not available"),
    ({"assignments": {"training.stepz": 3}}, "no 'training.stepz'.*training.steps"),
    ({"assignments": {"steps": 3}}, "no 'steps'"),
    ({"assignments": {"training.steps": "many"}}, "training.steps: 'many'"),
    ({"assignments": {"training.patch": [0, 32]}}, r"training.patch: 0"),
    ({"assignments": {"training.device": "cuda:99"}}, "cuda:99 is not available"),
    ({"assignments": {"training.deterministic": True}}, "training.steps: no number"),
    ({"assignments": {"network.name": "perceptron"}}, "no network 'perceptron'"),
    ({"assignments": {"network.pretrained": "nowhere.safetensors"}}, "no file nowhere.safetensors"),
    ({"assignments": {"split.method": "own"}}, "split.method: it follows from other decisions"),
]


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_what_the_arguments_alone_forbid_is_refused_before_the_data_are_looked_at(given, message, tmp_path):
    with pytest.raises(HilumError, match=message):
        hilum.plan(tmp_path / "nowhere", **given)


def test_wishes_that_some_plan_could_hold_are_left_to_the_plan():
    wishes = {
        "training.steps": 10,
        "training.patch": [32, 32],
        "training.deterministic": True,
        "network.size": {"width": 4},
        "preprocessing.spacing": None,
        "task.loss": "whatever the task says of it",
    }
    plan_checks.check_wishes(wishes, folds=5, device="cpu")
