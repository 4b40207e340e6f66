"""Ways to bring several images of a case together, where some cases lack one: Dice with every subset of the images.

    python bench/fusion.py ../shared/data/hippocampus --minutes 10 --seeds 0 1 2

The shapes are hippocampi, the intensities are simulated: in channel A the anterior part is bright, in channel B the
posterior part is dark, each in a field of its own and in noise of its own, so that each channel alone shows one part
and where the other one lies has to be guessed. So many of the cases lack one of the two, A and B in turn. The test part
is complete, so that all rows are of the same cases.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from recorded import commit, record
from scipy import ndimage
from trainings import add_options, keep, kept, trained

# What is trained: the family, and how often an image is left out; None as the plan says.
METHODS: dict[str, tuple[str, float | None]] = {
    "early, nothing left out": ("unet", 0.0),
    "early": ("unet", None),
    "intermediate": ("fusion", None),
    "attention": ("fusion_attention", None),
    "late": ("fusion_late", None),
}
# Of each channel: which label it shows, how bright, and how much noise there is, in deviations of its field.
CHANNELS = {"A": (1, 2.0, 0.5), "B": (2, -2.0, 0.8)}
TEST_SHARE = 0.25


@dataclass(frozen=True)
class Shown:
    """A training, with every subset of the images. rows: images, label, value, low and high of each"""

    method: str
    seed: int
    steps: int
    rows: Sequence[Mapping[str, Any]]
    commit: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="the hippocampus set: images/ beside labels/")
    parser.add_argument("--cases", type=int, default=80)
    parser.add_argument("--holes", type=float, default=0.3, help="share of the training cases that lack an image")
    parser.add_argument("--dropout", type=float, help="how often an image is left out, in place of what is planned")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    add_options(parser, "fusion", minutes=10.0, of="of each training", seeds=(0, 1, 2))
    given = parser.parse_args()
    folder = given.out.resolve() / f"data-{given.cases}-{given.holes:g}"
    counted = folder.with_suffix(".json")
    if not counted.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        counted.write_text(json.dumps(simulated(given.data, folder, given.cases, given.holes)))
    cases = json.loads(counted.read_text())
    shown = [_shown(method, seed, folder, given) for seed in given.seeds for method in given.methods]
    text = _words(shown)
    print(f"\n{text}")
    if given.record:
        words = (
            f"Dice of simulated channels over real hippocampi, {given.minutes:g} minutes a training: {cases['train']} "
            f"training cases, of which {cases['lack']} lack an image, and {cases['test']} complete test cases, from "
            "which images are taken for each row; means over seeds."
        )
        record("fusion", "Several images, some of them absent", f"{words}\n\n{text}", {"runs": [*map(asdict, shown)]})


def _words(shown: Sequence[Shown]) -> str:
    labels = list(dict.fromkeys(row["label"] for row in shown[0].rows))
    lines = [f"| way | images | {' | '.join(labels)} | steps |", "|---" * (3 + len(labels)) + "|"]
    for method in dict.fromkeys(one.method for one in shown):
        runs = [one for one in shown if one.method == method]
        steps = ", ".join(str(one.steps) for one in runs)
        for images in dict.fromkeys(row["images"] for row in runs[0].rows):
            own = [row for one in runs for row in one.rows if row["images"] == images]
            means = (statistics.fmean(row["value"] for row in own if row["label"] == label) for label in labels)
            lines.append(f"| {method} | {images} | {' | '.join(f'{mean:.3f}' for mean in means)} | {steps} |")
    return "\n".join(lines)


def simulated(source: Path, folder: Path, count: int, holes: float) -> dict[str, int]:
    """nnU-Net raw data of so many cases; how many train, lack an image, and test."""
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    counts = {"train": 0, "lack": 0, "test": 0}
    for n, path in enumerate(sorted((source / "labels").glob("*.nii.gz"))[:count]):
        labels = nibabel.load(path)
        part = "test" if n % round(1 / TEST_SHARE) == 0 else "train"
        suffix, turn = ("Ts", None) if part == "test" else ("Tr", counts["train"])
        # The share is kept as evenly as it can be, and A and B are lacking in turn.
        lacks = turn is not None and int((turn + 1) * holes) > int(turn * holes)
        absent = list(CHANNELS)[counts["lack"] % len(CHANNELS)] if lacks else None
        counts[part] += 1
        counts["lack"] += lacks
        values = np.asarray(labels.dataobj).astype(np.uint8)
        case = path.name.removesuffix(".nii.gz")
        nibabel.Nifti1Image(values, labels.affine).to_filename(folder / f"labels{suffix}" / path.name)
        for place, channel in enumerate(CHANNELS):
            if channel != absent:
                image = nibabel.Nifti1Image(_drawn(values, channel, n), labels.affine)
                image.to_filename(folder / f"images{suffix}" / f"{case}_{place:04}.nii.gz")
    described: dict[str, Any] = {
        "channel_names": {str(place): channel for place, channel in enumerate(CHANNELS)},
        "labels": {"background": 0, "anterior": 1, "posterior": 2},
        "numTraining": counts["train"],
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(described))
    return counts


def _drawn(labels: NDArray[np.uint8], channel: str, case: int) -> NDArray[np.float32]:
    """One structure in a smooth field and in noise; of the other one nothing."""
    label, bright, noise = CHANNELS[channel]
    rng = np.random.default_rng((case, label))
    field = ndimage.gaussian_filter(rng.normal(size=labels.shape), 4.0)
    shown = ndimage.gaussian_filter((labels == label).astype(np.float32), 0.7)
    values = field / field.std() + bright * shown + rng.normal(0, noise, labels.shape)
    return np.asarray(values, dtype=np.float32)


def _shown(method: str, seed: int, data: Path, given: argparse.Namespace) -> Shown:
    family, dropout = METHODS[method]
    dropout = given.dropout if dropout is None else dropout
    name = f"{family}-{'planned' if dropout is None else dropout}-{seed}"
    if (before := kept(name, given)) is not None:
        return Shown(**before)
    words: list[object] = [data, "--set", f"network.name={family}"]
    words += [] if dropout is None else ["--set", f"training.modality_dropout={dropout}"]
    done = trained(name, words, seed, given)
    if done.returncode:
        sys.exit(f"{name} failed with exit code {done.returncode}: see {given.out}/logs/{name}.err")
    found = json.loads((given.out / name / "evaluation" / "images.json").read_text())["rows"]
    rows = [
        {"images": " + ".join(row["images"]), **{key: row[key] for key in ("label", "value", "low", "high")}}
        for row in found
        if row["metric"] == "dice" and row["label"] != "all"
    ]
    steps = len((given.out / name / "log.csv").read_text().splitlines()) - 1
    shown = Shown(method, seed, steps, rows, commit())
    keep(name, shown, given)
    return shown


if __name__ == "__main__":
    main()
