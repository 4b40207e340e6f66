"""Single objects of several classes: how many are found, and how many of them get their class.

    python bench/object_classes.py simulated --minutes 4
    python bench/object_classes.py bccd --minutes 4 --record

Simulated cells are of three classes: plain and grainy discs of one colour, and long ellipses of another; some touch.
Of `bccd` the boxes of white cells, red cells and platelets are turned into the ellipses that fill them: its objects are
no outlines that anybody drew. Images are halved. Three trainings see the same cases and have equal minutes of one core:
the watershed network, our Mask R-CNN, and torchvision's own of ResNet-50, all from scratch; torchvision's sees pictures
twice as large, as its own 800 pixels would leave it a handful of steps. Test cases are scored alike, by the class
accuracy of objects that are matched above an IoU of 0.5, and by panoptic quality of each class.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import recorded
import torch
from environment import ROOT
from torchvision.models.detection import maskrcnn_resnet50_fpn

import isocenter
from isocenter.evaluation import instances
from isocenter.evaluation.instances import InstanceOverlap
from isocenter.layouts import dataset_layouts
from isocenter.values import BoundingBoxes, Case

KINDS = ("plain", "grainy", "long")
CELLS = ("WBC", "RBC", "Platelets")
COUNTS = {"simulated": (60, 20), "bccd": (205, 40)}
SHAPE = (128, 128)
SCORE, HALF = 0.5, 2
Drawn = tuple[np.ndarray, np.ndarray, list[int]]


def smear(seed: int, shape: tuple[int, int] = SHAPE, cells: int = 14) -> Drawn:
    """(rows, columns, 3) picture, (rows, columns) numbers of its cells, and the class of each from 0 on."""
    random = np.random.default_rng(seed)
    picture = np.full((*shape, 3), (225.0, 215.0, 220.0)) + random.normal(0, 4, (*shape, 3))
    numbers, kinds = np.zeros(shape, np.uint16), list[int]()
    rows, columns = np.indices(shape)
    for _ in range(cells):
        kind, angle = int(random.integers(3)), random.uniform(0, np.pi)
        row, column = (random.uniform(8, size - 8) for size in shape)
        along = (rows - row) * np.cos(angle) + (columns - column) * np.sin(angle)
        across = (columns - column) * np.cos(angle) - (rows - row) * np.sin(angle)
        half = random.uniform(6.0, 8.5)
        inside = (along / (half * (1.5 if kind == 2 else 1))) ** 2 + (
            across / (half * (0.6 if kind == 2 else 1))
        ) ** 2 < 1
        if (numbers[inside] > 0).mean() > 0.05:  # they may touch, and hardly overlap
            continue
        kinds.append(kind)
        own = inside & (numbers == 0)
        numbers[own] = len(kinds)
        picture[own] = (150.0, 110.0, 190.0) if kind == 2 else (190.0, 90.0, 110.0)
        picture[own] += random.normal(0, 30 if kind == 1 else 6, (int(own.sum()), 1))
        picture[own] += random.normal(0, 8, 3)
    return picture.clip(0, 255).astype(np.uint8), numbers, kinds


def ellipses(case: Case) -> Drawn:
    """A picture of bccd, halved, with an ellipse in each box; a pixel of several is the smallest one's."""
    picture = PIL.Image.fromarray(np.moveaxis(case.images["image"].data, 0, -1).astype(np.uint8))
    picture = picture.resize([side // HALF for side in picture.size], PIL.Image.Resampling.BOX)
    boxes: BoundingBoxes = case.references["boxes"]
    low, high = (part / HALF for part in np.split(boxes.corners, 2, axis=1))
    numbers, kinds = np.zeros((picture.height, picture.width), np.uint16), list[int]()
    places = np.stack(np.indices(numbers.shape), axis=-1) + 0.5
    for box in np.argsort(-np.prod(high - low, axis=1), kind="stable"):
        half = np.maximum((high[box] - low[box]) / 2, 1.0)
        kinds.append(CELLS.index(boxes.names[box]))
        numbers[(((places - (low[box] + high[box]) / 2) / half) ** 2).sum(axis=-1) < 1] = len(kinds)
    shown = np.setdiff1d(numbers, 0)  # what lies wholly under others is none
    dense = np.searchsorted(np.append(0, shown), numbers).astype(np.uint16)
    return np.asarray(picture), dense, [kinds[number - 1] for number in shown]


def cases_of(name: str, data: Path) -> tuple[list[Drawn], list[Drawn], tuple[str, ...]]:
    """Those that train, those that test, and the classes."""
    train, test = COUNTS[name]
    if name == "simulated":
        drawn = [smear(seed) for seed in range(train + test)]
        return drawn[:train], drawn[train:], KINDS
    dataset = dataset_layouts.read_dataset(data)
    parts = ([case for case in dataset if dataset.splits.get(case.id) == part] for part in ("train", "test"))
    drawn = [[ellipses(case) for case in part[:most]] for part, most in zip(parts, (train, test), strict=True)]
    return drawn[0], drawn[1], CELLS


def write(drawn: Sequence[Drawn], kinds: Sequence[str], root: Path) -> Path:
    """images/, labels/ and objects.csv."""
    rows = ["case,object,label"]
    for n, (picture, numbers, own) in enumerate(drawn):
        for folder, array in (("images", picture), ("labels", numbers)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(array).save(root / folder / f"{n:03}.png")
        rows += [f"{n:03},{number},{kinds[kind]}" for number, kind in enumerate(own, start=1)]
    (root / "objects.csv").write_text("\n".join(rows) + "\n")
    return root


def figures(pairs: Sequence[tuple[np.ndarray, Sequence[int], Drawn]], kinds: Sequence[str]) -> dict[str, float]:
    """Class accuracy of matched objects, their share of all, and the mean panoptic quality of each class over cases."""
    confusion, found, qualities = np.zeros((len(kinds), len(kinds))), [0, 0], {kind: [] for kind in kinds}
    for numbers, predicted, (_, truth, own) in pairs:
        overlap: InstanceOverlap = instances.instance_overlap(numbers, truth)
        ours, theirs = np.array(predicted, int), np.array(own, int)
        confusion += overlap.confusion(ours, theirs, len(kinds))
        found = [found[0] + overlap.matched_pairs(0.5), found[1] + len(own)]
        for place, kind in enumerate(kinds):
            qualities[kind].append(overlap.within(ours == place, theirs == place).pq)
    each = {f"pq {kind}": float(np.nanmean(values)) for kind, values in qualities.items()}
    return {
        "class accuracy": float(np.trace(confusion) / max(confusion.sum(), 1)),
        "found": found[0] / found[1],
        **each,
        "pq": float(np.mean(list(each.values()))),
    }


def ours(
    family: str, source: Path, out: Path, kinds: Sequence[str], given: argparse.Namespace
) -> Iterator[tuple[np.ndarray, list[int]]]:
    """Numbers and classes of each test case by one of our networks."""
    flags: dict[str, Any] = {"task": "instances", "device": "cpu", "threads": 1, "seed": 0, "overwrite": True}
    by_hand = {"network.name": family} if family != "unet" else {}
    if not (given.resume and (out / "report.html").is_file()):
        isocenter.train(source / "train", out=out, minutes=given.minutes, assignments=by_hand, **flags)
    model = isocenter.load(out, "cpu")
    for path in sorted((source / "test" / "images").glob("*.png")):
        made = model.predict(path)
        yield np.asarray(made.data), [kinds.index(label.kind or "") for label in made.labels]


def torchvisions(
    train: Sequence[Drawn], test: Sequence[Drawn], kinds: Sequence[str], weights: Path, given: argparse.Namespace
) -> Iterator[tuple[np.ndarray, list[int]]]:
    """The same by torchvision's Mask R-CNN as its tutorial trains it: SGD, a picture a step, objects from SCORE on."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    side = min(train[0][1].shape)
    network = maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=len(kinds) + 1, min_size=2 * side, max_size=4 * side
    )
    optimiser = torch.optim.SGD(network.parameters(), lr=0.005, momentum=0.9, weight_decay=0.0005)
    is_there = given.resume and weights.is_file()
    random, end, steps = np.random.default_rng(0), time.monotonic() + 60 * (0 if is_there else given.minutes), 0
    network.train()
    while time.monotonic() < end:
        picture, numbers, own = train[random.integers(len(train))]
        masks = torch.from_numpy(np.stack([numbers == n for n in range(1, len(own) + 1)]))
        sides = [(torch.nonzero(one.any(0))[:, 0], torch.nonzero(one.any(1))[:, 0]) for one in masks]
        boxes = torch.tensor([[x[0], y[0], x[-1] + 1, y[-1] + 1] for x, y in sides]).float()
        target = {"boxes": boxes, "labels": torch.tensor(own) + 1, "masks": masks.to(torch.uint8)}
        costs = network([torch.from_numpy(picture.copy()).permute(2, 0, 1) / 255], [target])
        optimiser.zero_grad()
        sum(costs.values()).backward()
        optimiser.step()
        steps += 1
    print(f"torchvision: {steps} steps", flush=True)
    if is_there:
        network.load_state_dict(torch.load(weights, weights_only=True))
    else:
        torch.save(network.state_dict(), weights)
    network.eval()
    for picture, numbers, _ in test:
        with torch.inference_mode():
            [made] = network([torch.from_numpy(picture.copy()).permute(2, 0, 1) / 255])
        drawn, called = np.zeros(numbers.shape, np.uint16), list[int]()
        for mask, score, label in zip(made["masks"][:, 0] > 0.5, made["scores"], made["labels"], strict=True):
            own = mask.numpy() & (drawn == 0)
            if score >= SCORE and own.sum() > 0.5 * int(mask.sum()):
                called.append(int(label) - 1)
                drawn[own] = len(called)
        yield drawn, called


def table(measured: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Markdown."""
    lines = []
    for name, rows in measured.items():
        columns = list(next(iter(rows.values())))
        lines += [f"**{name}**", "", f"| network | {' | '.join(columns)} |", "|" + "---|" * (1 + len(columns))]
        lines += [f"| {network} | {' | '.join(f'{row[c]:.3f}' for c in columns)} |" for network, row in rows.items()]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Train, test, print; `--record` also writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+", choices=sorted(COUNTS))
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out" / "object_classes")
    parser.add_argument("--resume", action="store_true", help="score trainings that are there again")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    measured = dict(recorded.known("object_classes").get("figures", {})) if given.record else {}
    for name in given.sets:
        train, test, kinds = cases_of(name, given.data / "bccd")
        source = given.out / name
        write(train, kinds, source / "train")
        write(test, kinds, source / "test")
        rows = {}
        for network in ("unet", "mask_rcnn", "torchvision"):
            made = (
                torchvisions(train, test, kinds, given.out / f"{name}-torchvision.pt", given)
                if network == "torchvision"
                else ours(network, source, given.out / f"{name}-{network}", kinds, given)
            )
            pairs = [(numbers, own, case) for (numbers, own), case in zip(made, test, strict=True)]
            rows[network] = figures(pairs, kinds)
            print(name, network, json.dumps(rows[network]), flush=True)
        measured[name] = rows
    print(table(measured))
    if given.record:
        tested = ", ".join(f"{name} {COUNTS[name][1]}" for name in measured)
        words = f"{given.minutes:g} minutes of one core each, test cases: {tested}."
        title = "Single objects of several classes"
        recorded.record("object_classes", title, f"{words}\n\n{table(measured)}", {"figures": measured})


if __name__ == "__main__":
    main()
