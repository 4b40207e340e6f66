"""Resampling of a CT with 25 classes, there and back: Hilum beside both ways of nnU-Net (scipy, torch).

python bench/resampling.py            # 512 x 512 x 300, needs 16 GiB of memory for the peers
python bench/resampling.py --small

Three steps, each a process of its own: the image onto the network's grid (cubic; torch's is linear), its label map
onto the same, and the scores of all classes back onto the image's grid, to a label map. Time is that of the step
without starting and reading; peak memory is that of the whole process.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.ndimage
from beside import PLACE, PeerError, Program, arguments, failures, interleaved, markdown, peer, ratio, record

# 0.8 x 0.8 x 1.25 mm onto 1.5 mm, as a network for the whole body has it.
SOURCE, NETWORK, CLASSES = (512, 512, 300), (273, 273, 250), 25
SMALL = 8  # times smaller along each axis
STEPS = {"image": "image to the network's grid", "labels": "label map to it", "scores": "class scores back, to labels"}
OURS, SCIPY, TORCH = "Hilum", "nnU-Net, scipy (its default)", "nnU-Net, torch"
SIDES = Path(__file__).resolve().parent / "sides"


def main() -> None:
    asked = arguments(__doc__, repeats=3).parse_args()
    factor, repeats = (SMALL, 1) if asked.small else (1, asked.repeats)
    source, network = (tuple(size // factor for size in shape) for shape in (SOURCE, NETWORK))
    try:
        python = str(peer("nnunet"))
    except PeerError as error:
        sys.exit(f"nnU-Net cannot be run beside: {error}")
    PLACE.mkdir(exist_ok=True)
    words, figures = [], {}
    with tempfile.TemporaryDirectory(dir=PLACE) as place:
        folder = Path(place)
        _prepare(folder, source, network)
        for step, title in STEPS.items():
            table = interleaved(_programs(python, step, folder), repeats, asked.threads)
            likeness = _likeness(folder, step) if not failures(table) and step != "image" else {}
            words.append(_words(title, table, likeness))
            figures[step] = {"runs": json.loads(table.to_json(orient="records")), "likeness": likeness}
    text = "\n\n".join([_setting(source, network, asked.threads), *words])
    print(text)
    if asked.record:
        record("resampling", "Resampling", text, {"source": source, "network": network, **figures})


def _programs(python: str, step: str, folder: Path) -> list[Program]:
    side = [python, str(SIDES / "resample_nnunet.py")]
    return [
        Program(OURS, [sys.executable, str(SIDES / "resample_ours.py"), step, str(folder), str(folder / "ours.npy")]),
        Program(SCIPY, [*side, "scipy", step, str(folder), str(folder / "scipy.npy")]),
        Program(TORCH, [*side, "torch", step, str(folder), str(folder / "torch.npy")]),
    ]


def _prepare(folder: Path, source: tuple[int, ...], network: tuple[int, ...]) -> None:
    """An image, its labels, and scores as a network would give them: clear inside, unsure at every border."""
    rng = np.random.default_rng(0)
    labels = _ellipsoids(source, rng)
    np.save(folder / "labels.npy", labels)
    noise = scipy.ndimage.gaussian_filter(rng.normal(size=source).astype(np.float32), 1)
    np.save(folder / "image.npy", (labels * np.float32(40) - 500 + 300 * noise).astype(np.int16))
    coarse = _ellipsoids(network, np.random.default_rng(0))
    scores = np.empty((CLASSES + 1, *network), np.float16)  # as nnU-Net keeps them
    for label, out in enumerate(scores):
        soft = scipy.ndimage.gaussian_filter((coarse == label).astype(np.float32), 1)
        out[...] = 16 * soft - 8 + 0.5 * rng.normal(size=network).astype(np.float32)
    np.save(folder / "scores.npy", scores)
    (folder / "shapes.json").write_text(json.dumps({"source": source, "network": network}))


def _ellipsoids(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    labels = np.zeros(shape, np.uint8)
    grid = np.meshgrid(*[np.linspace(-1, 1, size, dtype=np.float32) for size in shape], indexing="ij", sparse=True)
    for label in range(1, CLASSES + 1):
        centre, radius = rng.uniform(-0.6, 0.6, 3), rng.uniform(0.08, 0.3, 3)
        labels[sum(((x - c) / r) ** 2 for x, c, r in zip(grid, centre, radius, strict=True)) < 1] = label
    return labels


def _likeness(folder: Path, step: str) -> dict[str, dict[str, float]]:
    """How far our labels are those of each way of nnU-Net: voxels away from edges, and the least Dice of a class."""
    ours, found = np.load(folder / "ours.npy"), {}
    for name, file in ((SCIPY, "scipy.npy"), (TORCH, "torch.npy")):
        theirs = np.load(folder / file).astype(ours.dtype)
        inside = scipy.ndimage.minimum_filter(theirs, 3) == scipy.ndimage.maximum_filter(theirs, 3)
        both = np.bincount(ours[ours == theirs], minlength=256)
        sizes = np.bincount(ours.ravel(), minlength=256) + np.bincount(theirs.ravel(), minlength=256)
        dice = [2 * both[label] / sizes[label] for label in range(1, 256) if sizes[label]]
        found[name] = {
            "equal": float(np.mean(ours == theirs)),
            "equal_away_from_edges": float(np.mean((ours == theirs)[inside])),
            "dice_least": float(min(dice)),
            "dice_mean": float(np.mean(dice)),
        }
    return found


def _setting(source: tuple[int, ...], network: tuple[int, ...], threads: int) -> str:
    big, small = (" x ".join(map(str, shape)) for shape in (source, network))
    return f"{big} voxels and {small}, {CLASSES} classes and background, threads allowed: {threads}."


def _words(title: str, table: pd.DataFrame, likeness: dict[str, dict[str, float]]) -> str:
    columns = {"step_seconds": "seconds of the step", "peak_mib": "peak memory, MiB"}
    lines = [f"**{title[0].upper()}{title[1:]}**", "", markdown(table, columns), ""]
    for name in (SCIPY, TORCH):
        try:
            time, memory = (ratio(table, OURS, name, column) for column in columns)
        except ValueError as error:
            lines.append(f"- {name}: not measured ({error})")
            continue
        line = f"- {name} took {time.value:.3g} times our time ({time.low:.3g} to {time.high:.3g})"
        line += f" and {memory.value:.3g} times our memory"
        lines.append(line + (_alike(likeness[name]) if name in likeness else ""))
    return "\n".join([*lines, *(f"\nFailed: {one}." for one in failures(table))])


def _alike(one: dict[str, float]) -> str:
    return (
        f"; labels equal in {100 * one['equal_away_from_edges']:.4f} % of voxels away from edges, "
        f"{100 * one['equal']:.4f} % of all; Dice {one['dice_mean']:.5f}, of the worst class {one['dice_least']:.5f}"
    )


if __name__ == "__main__":
    main()
