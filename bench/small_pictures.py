"""A few hundred pictures: `isocenter train` beside a plain ResNet-18 with Adam and flips, in the same minutes.

    python bench/small_pictures.py --threads 1 --minutes 5 --resume --record
    python bench/small_pictures.py retina --seeds 0
    python bench/small_pictures.py retina --settings split.calibration=0 training.epochs=40

Each seed draws 450 cases of a MedMNIST set's training part; up to a thousand others of that part are the test. The
plain network, with a 3 x 3 stem, trains on all 450 cases in float32 until the minutes are over: its rate falls by a
cosine from 1e-3 over as many epochs as the first ones show to fit, at most 30, and its last weights are taken; of
volumes it is the 3D form. Ours takes its validation cases out of the same 450, and is trained once more with each of
`--settings`, for the differences within a draw. The sets' own test parts have no say.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from drawn_sets import drawn, in_words
from recorded import commit, record
from torch import Tensor, nn
from trainings import ROOT, add_options, keep, kept, spread, summary, trained

from isocenter.evaluation import classification

CASES, TESTED, EPOCHS, RATE, BATCH = 450, 1000, 30, 1e-3, 32
SETS: Mapping[str, str] = {name: f"{name}mnist.npz" for name in ("pneumonia", "retina")} | {
    "adrenal": "adrenalmnist3d.npz"
}
OURS, PLAIN = "Isocenter", "ResNet-18"
METRICS = ("auroc", "accuracy")


@dataclass(frozen=True)
class Shown:
    """One training. found: {metric: value}"""

    on: str
    seed: int
    program: str
    problem: str = ""
    found: Mapping[str, float] = field(default_factory=dict)
    minutes: float = 0.0
    commit: str = ""


class Block(nn.Module):
    """Two convolutions beside their input. He et al., arXiv:1512.03385."""

    def __init__(self, axes: int, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if axes == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.body = nn.Sequential(
            conv(inputs, outputs, 3, stride, 1, bias=False), norm(outputs), nn.ReLU(),
            conv(outputs, outputs, 3, 1, 1, bias=False), norm(outputs),
        )  # fmt: skip
        same = stride == 1 and inputs == outputs
        self.beside = (
            nn.Identity() if same else nn.Sequential(conv(inputs, outputs, 1, stride, bias=False), norm(outputs))
        )

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.body(images) + self.beside(images))


def resnet18(axes: int, channels: int, classes: int) -> nn.Module:
    """With a 3 x 3 stem and no pooling before the first block, as for small pictures."""
    conv, norm = (nn.Conv2d, nn.BatchNorm2d) if axes == 2 else (nn.Conv3d, nn.BatchNorm3d)
    widths = (64, 64, 128, 256, 512)
    blocks: list[nn.Module] = [conv(channels, 64, 3, 1, 1, bias=False), norm(64), nn.ReLU()]
    for stage, (inputs, outputs) in enumerate(pairwise(widths)):
        blocks += [Block(axes, inputs, outputs, 1 if stage == 0 else 2), Block(axes, outputs, outputs, 1)]
    pool = nn.AdaptiveAvgPool2d(1) if axes == 2 else nn.AdaptiveAvgPool3d(1)
    return nn.Sequential(*blocks, pool, nn.Flatten(), nn.Linear(512, classes))


def plain(data: Path, seed: int, minutes: float) -> dict[str, float]:
    """The metrics of the plain network on the test part."""
    began = time.monotonic()
    torch.manual_seed(seed)
    with np.load(data) as arrays:
        images = {part: _images(arrays[f"{part}_images"], "3d" in data.name) for part in ("train", "test")}
        labels = {part: torch.from_numpy(arrays[f"{part}_labels"].reshape(-1).astype(np.int64)) for part in images}
    mean, deviation = images["train"].mean(), images["train"].std()
    classes, axes = int(labels["train"].max()) + 1, images["train"].ndim - 2
    network = resnet18(axes, images["train"].shape[1], classes)
    optimiser = torch.optim.Adam(network.parameters(), RATE)
    epochs, done = EPOCHS, 0
    while done < epochs:
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 + math.cos(math.pi * done / epochs)) / 2
        for rows in torch.randperm(len(labels["train"])).split(BATCH):
            batch = (images["train"][rows] - mean) / deviation
            flipped = [axis for axis in range(2, batch.ndim) if torch.rand(()) < 0.5]
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(batch.flip(flipped)), labels["train"][rows]).backward()
            optimiser.step()
        done += 1
        each = (time.monotonic() - began) / done
        epochs = min(EPOCHS, max(done, int(0.95 * 60 * minutes / each)))
    network.eval()
    with torch.inference_mode():
        parts = ((images["test"] - mean) / deviation).split(BATCH)
        chances = torch.cat([network(part).softmax(1) for part in parts]).double().numpy()
    truth = labels["test"].numpy()
    area = float(classification.one_against_rest(classification.auroc, chances, truth))
    return {"auroc": area, "accuracy": float((chances.argmax(1) == truth).mean())}


def _images(array: np.ndarray, volumes: bool) -> Tensor:
    """(cases, channels, *spatial), 0 to 1"""
    images = torch.from_numpy(array.astype(np.float32) / 255)
    return images[:, None] if volumes or images.ndim == 3 else images.permute(0, 3, 1, 2)


def shown(on: str, seed: int, program: str, given: argparse.Namespace) -> Shown:
    """One training of one draw by one program."""
    name = f"{on}-{seed}-{program}"
    if (before := kept(name, given)) is not None:
        return Shown(**before)
    place = given.out.resolve() / "data" / f"{on}-{seed}" / SETS[on]
    data, began = drawn(given.data.resolve() / SETS[on], seed, place, CASES, TESTED), time.monotonic()
    if program == PLAIN:
        torch.set_num_threads(given.threads)
        found = plain(data, seed, given.minutes)
    else:
        taken = trained(name, [data, *(("--set", program) if program != OURS else ())], seed, given)
        if taken.returncode:
            return Shown(on, seed, program, f"failed with exit code {taken.returncode}: see logs/{name}.err")
        rows = summary(given.out / name)
        found = {row["metric"]: row["value"] for row in rows if row["label"] == "all" and row["metric"] in METRICS}
    one = Shown(on, seed, program, "", found, (time.monotonic() - began) / 60, commit())
    keep(name, one, given)
    return one


def words_of(all_shown: Sequence[Shown]) -> str:
    """A line for each set and program, and their differences within a draw."""
    lines = ["| set | program | draws | AUROC | accuracy | minutes |", "|---" * 6 + "|"]
    for on in dict.fromkeys(one.on for one in all_shown):
        good = {(one.seed, one.program): one for one in all_shown if one.on == on and not one.problem}
        for program in dict.fromkeys(one.program for one in all_shown):
            own = [one for (_, name), one in good.items() if name == program]
            if own:
                cells = [spread([one.found[metric] for one in own]) for metric in METRICS]
                lines.append(
                    f"| {on} | {program} | {len(own)} | {' | '.join(cells)} | {spread([n.minutes for n in own])} |"
                )
        for program in dict.fromkeys(name for seed, name in good if name != OURS and (seed, OURS) in good):
            seeds = [seed for seed, name in good if name == program and (seed, OURS) in good]
            pairs = [(good[seed, OURS], good[seed, program]) for seed in seeds]
            cells = [spread([a.found[metric] - b.found[metric] for a, b in pairs], sign="+") for metric in METRICS]
            lines.append(f"| {on} | {OURS} less {program} | {len(pairs)} | {' | '.join(cells)} | |")
    lines += [f"| {one.on} | {one.program} | draw {one.seed} {one.problem} |" for one in all_shown if one.problem]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"{', '.join(SETS)}; all without")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "medmnist")
    parser.add_argument("--settings", nargs="+", default=[], metavar="NAME=VALUE", help="each for one more training")
    add_options(parser, "small_pictures", minutes=5.0, of="of each training", seeds=(0, 1, 2))
    given = parser.parse_args()
    each = [
        shown(on, seed, program, given)
        for seed in given.seeds
        for on in given.sets or SETS
        for program in (PLAIN, OURS, *given.settings)
    ]
    text = words_of(each)
    print(text)
    if given.record:
        about = in_words(CASES, TESTED, given, (one.commit for one in each))
        record(
            "small_pictures",
            "Few pictures, beside a plain ResNet-18",
            f"{about}\n\n{text}",
            {"runs": [asdict(n) for n in each]},
        )


if __name__ == "__main__":
    main()
