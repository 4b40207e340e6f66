"""`dataset`: prepared cases for a training loop of one's own."""

from __future__ import annotations

import pytest
import torch

import isocenter
import trained
from isocenter.errors import UsageError


def test_prepared_cases_of_the_parts_are_those_of_the_plan(tmp_path):
    root = trained.pictures(tmp_path / "data", 16)
    plan = isocenter.plan(root)
    parts = {part: isocenter.dataset(root, part=part) for part in ("train", "test")}
    for part, cases in parts.items():
        assert {one["case"] for one in cases} == {case for case, own in plan.parts.items() if own == part}
    batch = next(iter(torch.utils.data.DataLoader(parts["train"], batch_size=2)))
    assert batch["image"].dtype == torch.float32
    assert batch["image"].shape[:2] == (2, len(plan.plan["preprocessing.channels"]))
    classes = {case.id: case.references["class"] for case in plan.examination.dataset}
    assert batch["target"].tolist() == [["bright", "dark"].index(classes[name]) for name in batch["case"]]
    with pytest.raises(UsageError, match="there is no part 'all'"):
        isocenter.dataset(root, part="all")
