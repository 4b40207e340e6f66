"""Calibration of voxels and expected Dice: one network, its test cases, and degraded copies of them.

    python bench/calibrated_voxels.py --threads 1 --minutes 5 --resume --record

The copies have noise, blur, or ghosts as motion makes them. What leaving out the tenth with the lowest expected Dice
gains in mean Dice is stated as a share of what leaving out the truly worst tenth gains.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from recorded import commit, record
from swayed import marked
from trainings import ROOT, add_options, keep, kept, trained

import isocenter
from isocenter.files.storage import csv_text
from isocenter.layouts import dataset_layouts
from isocenter.lazy import ndimage
from isocenter.planning import plan_file
from isocenter.values import Case, Floats, Image, Row

METRICS = ("ece_near", "summed_volume_error")
LEFT_OUT = 0.1


def noisy(data: Floats, strength: float) -> Floats:
    """Noise of so many standard deviations of the image."""
    return data + np.random.default_rng(0).normal(scale=strength * data.std(), size=data.shape)


def blurred(data: Floats, strength: float) -> Floats:
    """A Gaussian of so many voxels."""
    return np.asarray(ndimage.gaussian_filter(data, strength))


def ghosted(data: Floats, strength: float) -> Floats:
    """Every second line of k-space weakened by this share, along the second axis."""
    lines = np.fft.fft(data, axis=1)
    lines[:, 1::2] *= 1 - strength
    return np.abs(np.fft.ifft(lines, axis=1))


DEGRADED: Mapping[str, tuple[Callable[[Floats, float], Floats], tuple[float, ...]]] = {
    "noise": (noisy, (0.5, 1.0, 2.0)),
    "blur": (blurred, (0.5, 1.0, 1.5)),
    "ghosts": (ghosted, (0.4, 0.6, 0.8)),
}


@dataclass(frozen=True)
class Shown:
    """One training. found: {row: {column: value}}"""

    problem: str = ""
    method: str = ""
    found: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    commit: str = ""


def copies(case: Case) -> Iterator[tuple[str, Case]]:
    """The case as it is, and its degraded copies, each under a name of its own."""
    yield "clean", case
    name, image = next(iter(case.images.items()))
    for kind, (change, strengths) in DEGRADED.items():
        for strength in strengths:
            changed = change(np.asarray(image.data[0], dtype=np.float64), strength)
            bad: Image = image.with_pixels(changed[None].astype(np.float32))
            yield kind, replace(case, id=f"{case.id} {kind} {strength:g}", images={name: bad})


def shown(given: argparse.Namespace) -> Shown:
    """One training, and what its probabilities are worth."""
    if (before := kept("hippocampus", given)) is not None:
        return Shown(**before)
    data = given.data.resolve() / "hippocampus"
    taken = trained("hippocampus", [data], 0, given)
    if taken.returncode:
        return Shown(f"failed with exit code {taken.returncode}: see logs/hippocampus.err")
    run = given.out / "hippocampus"
    method = plan_file.read_plan(run / "plan.yaml")["task.calibration"]["method"]
    one = Shown("", method, worth(run, data), commit())
    keep("hippocampus", one, given)
    return one


def worth(run: Path, data: Path) -> dict[str, dict[str, float]]:
    """{kind of image: figures} of the test cases of a run and of their copies."""
    parts = csv_text.read_text_table(run / "split.csv").set_index("case")["split"]
    model, tables = isocenter.load(run), dict[str, list[pd.DataFrame]]()
    for case in dataset_layouts.read_dataset(data):
        for kind, own in copies(case) if parts.get(case.id) == "test" else ():
            tables.setdefault(kind, []).append(model.task.score([model.predict(own)], [own]))
    each = {kind: pd.concat(own, ignore_index=True) for kind, own in tables.items()}
    each["clean and degraded"] = pd.concat(each.values(), ignore_index=True)
    return {kind: _figures(table, model.task.summary) for kind, table in each.items()}


def _figures(table: pd.DataFrame, summary: Callable[..., list[Row]]) -> dict[str, float]:
    rows = {(row.metric, row.label): row.estimate.value for row in summary(table, seed=0)}
    wanted = [*(f"{metric}{side}" for metric in METRICS for side in ("_uncalibrated", ""))]
    wanted += ["dice", *(f"expected_dice_{name}" for name in ("bias", "pearson", "spearman"))]
    found = {metric: rows[metric, "all"] for metric in wanted}
    # The errors of two structures must not make up for each other.
    for metric in ("summed_volume_error", "summed_volume_error_uncalibrated"):
        found[metric] = max((value for (name, _), value in rows.items() if name == metric), key=abs)
    case = table.groupby("case")[["dice", "expected_dice"]].mean().dropna()
    left = max(1, round(LEFT_OUT * len(case)))
    gains = [case.sort_values(by)["dice"].iloc[left:].mean() - case["dice"].mean() for by in ("expected_dice", "dice")]
    return {**found, "gained": float(gains[0] / gains[1])}


def words_of(one: Shown) -> str:
    """A line for each kind of image."""
    heads = ["Dice", "ECE near edges, before", "after", "volume error, before", "after"]
    heads += ["expected Dice: bias", "Pearson", "Spearman", "gained by leaving out a tenth"]
    lines = [f"| images | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for kind, row in one.found.items():
        ece, volume = ([row[f"{metric}{side}"] for side in ("_uncalibrated", "")] for metric in METRICS)
        cells = [f"{row['dice']:.3f}", *(f"{value:.4f}" for value in ece), *(f"{value:+.1%}" for value in volume)]
        cells += [f"{row['expected_dice_bias']:+.3f}"]
        cells += [f"{row[f'expected_dice_{name}']:.2f}" for name in ("pearson", "spearman")]
        lines.append(f"| {kind} | {' | '.join([*cells, format(row['gained'], '.0%')])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    add_options(parser, "calibrated_voxels", minutes=5.0, of="of the training")
    given = parser.parse_args()
    one = shown(given)
    text = one.problem or words_of(one)
    print(text)
    if given.record and not one.problem:
        length = f"{given.minutes:g} minutes" if given.steps is None else f"{given.steps} steps"
        about = (
            f"{marked('hippocampus', 'Hippocampus')}, {length} on {given.threads} of {os.cpu_count()} cores; "
            f"calibrated by {one.method} on the validation cases; test cases, and copies of them with noise of 0.5 "
            "to 2 SD, blur of 0.5 to 1.5 voxels, or ghosts (every second line of k-space weakened by 40 to 80 %). ECE "
            "of voxels within 5 mm of an edge, mean of the structures; of volumes that of the structure that is "
            "further off. "
            f"Commit: {one.commit}."
        )
        record("calibrated_voxels", "Calibrated voxels and expected Dice", f"{about}\n\n{text}", asdict(one))


if __name__ == "__main__":
    main()
