"""`dataset`: prepared cases for a training loop of one's own."""

from __future__ import annotations

import pathlib
import time

import monai.transforms
import numpy as np
import pandas as pd
import pytest
import torch
import torchvision.transforms.v2

import hilum
import trained
from hilum.errors import UsageError
from hilum.runs import run_folder
from hilum.training.training_state import CommandClock


def test_prepared_cases_of_the_parts_are_those_of_the_plan(tmp_path):
    root = trained.pictures(tmp_path / "data", 16)
    plan = hilum.plan(root)
    parts = {part: hilum.dataset(root, part=part) for part in ("train", "test")}
    for part, cases in parts.items():
        assert {one["case"] for one in cases} == {case for case, own in plan.parts.items() if own == part}
    batch = next(iter(torch.utils.data.DataLoader(parts["train"], batch_size=2)))
    assert batch["image"].dtype == torch.float32
    assert batch["image"].shape[:2] == (2, len(plan.plan["preprocessing.channels"]))
    classes = {case.id: case.references["class"] for case in plan.examination.dataset}
    assert batch["target"].tolist() == [["bright", "dark"].index(classes[name]) for name in batch["case"]]
    with pytest.raises(UsageError, match="there is no part 'all'"):
        hilum.dataset(root, part="all")


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A frame of pictures with ages, and the folder from which its paths start."""
    root = trained.pictures(tmp_path_factory.mktemp("told"), 16)
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    ages = np.random.default_rng(0).normal(60, 10, 16).round()
    frame = {
        "image_path": files,
        "label": [file.partition("/")[0] for file in files],
        "age": ages,
        "sex": ["F", "M"] * 8,
    }
    return root, pd.DataFrame(frame)


def test_items_have_their_file_and_their_covariates_as_the_network_gets_them(told):
    root, frame = told
    cases = hilum.dataset(frame, root=root, covariates="age,sex")
    assert cases.covariate_names == ("age", "sex f", "sex m")
    of_file = frame.set_index("image_path")
    median, deviation = (cases.plan["network.context"]["age"][key] for key in ("mean", "deviation"))
    for item in map(cases.__getitem__, range(len(cases))):
        age, sex = of_file.loc[str(pathlib.Path(item["path"]).relative_to(root)), ["age", "sex"]]
        assert item["covariates"].dtype == torch.float32
        assert item["covariates"][0].item() == pytest.approx((age - median) / deviation, abs=1e-4)
        assert (item["covariates"][1] > item["covariates"][2]) == (sex == "F")
    without = hilum.dataset(frame, root=root)
    assert (without.covariate_names, without[0]["covariates"].shape) == ((), (0,))
    with pytest.raises(UsageError, match=r"conflicts with --set network\.context"):
        hilum.dataset(frame, root=root, covariates="age", assignments={"network.context": "all"})


def test_augmented_items_are_a_function_of_seed_epoch_and_item(told):
    root, frame = told
    plain, cases = (hilum.dataset(frame, root=root, augment=augment) for augment in (False, True))
    first = [cases[n]["image"] for n in range(len(cases))]
    cases.set_epoch(1)
    second = [cases[n]["image"] for n in range(len(cases))]
    cases.set_epoch(0)
    assert all(torch.equal(cases[n]["image"], image) for n, image in reversed(list(enumerate(first))))
    assert sum(torch.equal(*pair) for pair in zip(first, second, strict=True)) <= len(first) // 4
    assert not all(torch.equal(plain[n]["image"], image) for n, image in enumerate(first))
    assert [cases[n]["target"] for n in range(len(cases))] == [plain[n]["target"] for n in range(len(plain))]
    other = hilum.dataset(frame, root=root, augment=True, seed=1)
    of_case = {other.cases[n].id: other[n]["image"] for n in range(len(other))}
    assert any(not torch.equal(of_case[c.id], first[n]) for n, c in enumerate(cases.cases) if c.id in of_case)


def test_boxes_follow_their_images(tmp_path):
    still = dict.fromkeys((f"augmentation.{name}" for name in ("rotation", "scale", "shift", "elastic")), 0)
    mirrored = {**still, "augmentation.quarter_turns": False, "augmentation.flips": [1]}
    cases = hilum.dataset(trained.smears(tmp_path / "smears"), augment=True, assignments=mirrored)
    plain = hilum.dataset(tmp_path / "smears", assignments=mirrored)
    flipped = 0
    for n in range(len(cases)):
        before, after = plain[n], cases[n]
        if torch.equal(before["target"], after["target"]):
            continue
        flipped += 1
        width = before["image"].shape[2]
        torch.testing.assert_close(after["target"][:, [2, 4]], width - before["target"][:, [4, 2]])
    assert 0 < flipped < len(cases)


def test_a_batch_of_unlike_shapes_ends_in_zeros_and_in_boxes_that_are_none(tmp_path):
    cases = hilum.dataset(trained.smears(tmp_path / "smears"))
    items = [{**cases[n], "image": cases[n]["image"][:, : 24 - n, : 32 - 2 * n]} for n in range(3)]
    batch = cases.collate(items)
    assert batch["shape"].tolist() == [[24, 32], [23, 30], [22, 28]]
    assert batch["image"].shape == (3, 1, 24, 32)
    for item, image, target in zip(items, batch["image"], batch["target"], strict=True):
        rows, columns = item["image"].shape[1:]
        assert torch.equal(image[:, :rows, :columns], item["image"])
        assert not image[:, rows:].any() and not image[..., columns:].any()
        assert torch.equal(target[: len(item["target"])], item["target"])
        assert (target[len(item["target"]) :] == -1).all()
    loader = torch.utils.data.DataLoader(cases, batch_size=3, collate_fn=cases.collate)
    assert sum(len(batch["case"]) for batch in loader) == len(cases)


def test_a_run_of_a_frame_keeps_it_as_its_table_and_is_resumed_from_that(told, tmp_path):
    root, frame = told
    renamed = frame.rename(columns={"image_path": "scan", "label": "state"})
    reading = {"root": root, "column": {"image": "scan", "label": "state"}}
    planned = hilum.plan(renamed, device="cpu", threads=1, covariates="age", **reading)
    run = run_folder.new_run(tmp_path / "run", planned, CommandClock(time.monotonic()))
    assert run.plan.data == str(tmp_path / "run" / "dataset.csv")
    again = run_folder.resume_run(tmp_path / "run", time.monotonic())
    assert again.plan.data_hash == planned.plan.data_hash
    assert again.plan["network.context"] == planned.plan["network.context"]
    covariates = {case.id: dict(case.covariates) for case in planned.examination.dataset}
    assert {case.id: dict(case.covariates) for case in again.dataset} == covariates


def mirrored_by_keys(item):
    return monai.transforms.Flipd(keys="image", spatial_axis=1)(item)


@pytest.mark.parametrize(
    "transform",
    [
        lambda item: {**item, "image": item["image"].flip(-1)},
        torchvision.transforms.v2.Compose([torchvision.transforms.v2.RandomHorizontalFlip(p=1)]),
        mirrored_by_keys,
    ],
    ids=["a function", "torchvision", "monai"],
)
def test_a_transform_is_any_function_of_an_item(told, transform):
    root, frame = told
    plain = hilum.dataset(frame, root=root, covariates="age")
    cases = hilum.dataset(frame, root=root, covariates="age", transform=transform)
    for before, after in zip(map(plain.__getitem__, range(4)), map(cases.__getitem__, range(4)), strict=True):
        np.testing.assert_array_equal(after["image"], before["image"].flip(-1))
        for name in ("case", "patient", "path", "target", "covariates"):
            assert after[name] == before[name]
    [batch] = torch.utils.data.DataLoader(cases, batch_size=len(cases), collate_fn=cases.collate)
    assert batch["image"].shape[0] == len(batch["case"]) == len(cases)


def test_items_are_whatever_a_transform_returns_and_a_batch_has_what_it_adds(told):
    root, frame = told
    pairs = hilum.dataset(frame, root=root, transform=lambda item: (item["image"].mean(), item["target"]))
    means, targets = next(iter(torch.utils.data.DataLoader(pairs, batch_size=3)))
    assert means.shape == targets.shape == (3,)
    augmented = hilum.dataset(frame, root=root, augment=True)
    weighed = hilum.dataset(frame, root=root, augment=True, transform=lambda item: {**item, "weight": 2.0})
    assert torch.equal(weighed[0]["image"], augmented[0]["image"])
    assert weighed.collate([weighed[0], weighed[1]])["weight"] == [2.0, 2.0]
    with pytest.raises(UsageError, match=r"transform: 'flip' is no function\. Give a function that gets an item"):
        hilum.dataset(frame, root=root, transform="flip")
