"""Frames around each frame of a clip (`preprocessing.around`): what they find, and how steady areas become.

    python bench/films.py --out DIR --minutes 2 --record

Two kinds of simulated clips. Of `motion` the object is white noise over white noise, so that no single frame tells
anything of it. Of `echo` it is a dark cavity that beats, in speckle that is new in each frame, with a quarter of
its wall lost in some frames. Each is learnt with and without two frames before and after each, for equal minutes;
whole clips are held out. Jitter is the median of the second difference of the area from frame to frame, less that of
the reference, in % of the mean area: a beating cavity has little of its own. `searched` is a training with --tune that
may try frames around. Cells that have ended are lines of DIR/cells.jsonl.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import torch
from recorded import measured_cell, record
from scipy import ndimage

import isocenter

SIZE, FRAMES, CLIPS, TEST = 64, 12, 30, 8
# So that five clips validate, as a search needs.
SEARCHED = 44


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=2.0, help="of each training")
    parser.add_argument("--tune", type=float, default=0.0, help="minutes of a search beside one training's; 0 for none")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rows = []
    for kind, draw in (("motion", moving), ("echo", beating)):
        data = given.out / kind
        if not data.is_dir():
            write_clips(data, draw)
        for around in (0, 2):
            out = given.out / f"{kind}_{around}"
            what = {"minutes": given.minutes, "assignments": {"preprocessing.around": around}}
            cell = measured_cell(given.out, out.name, lambda d=data, o=out, w=what: scores(d, o, **w))
            rows.append({"clips": kind, "around": around, **cell})
    text = summary(pd.DataFrame(rows))
    if given.tune:
        found = measured_cell(given.out, "searched", lambda: searched(given))
        minutes, clips = f"{given.tune:g} of {given.tune + given.minutes:g} minutes", SEARCHED - TEST
        text += f"\n\nA search of {minutes} on {clips} clips of motion: {found['statement']}"
        text += f" The training then has {found['around']} frames around, Dice {found['dice']:.3f}."
    print(text)
    if given.record:
        record("films", "Frames around each frame of a clip", text, {"rows": rows})


def write_clips(data: Path, draw: Any, clips: int = CLIPS) -> None:
    for number in range(clips):
        part = "Ts" if number < TEST else "Tr"
        for folder, values in zip((f"images{part}", f"labels{part}"), draw(np.random.default_rng(number)), strict=True):
            (data / folder).mkdir(parents=True, exist_ok=True)
            clip = nibabel.Nifti1Image(np.moveaxis(values, 0, -1)[:, :, None].astype(np.int16), np.diag([1.0, 1, 1, 1]))
            clip.to_filename(data / folder / f"clip{number:02}.nii.gz")


def noise(draw: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    smooth = ndimage.gaussian_filter(draw.normal(size=shape), 1.0, mode="wrap")
    return smooth / smooth.std()


def moving(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(frames, *spatial) a disc of white noise that wanders by whole pixels over white noise, and its mask."""
    background, foreground = draw.normal(size=(2, SIZE, SIZE))
    radius, place, speed = draw.uniform(7, 11), draw.uniform(18, SIZE - 18, 2), draw.uniform(1.5, 3, 2)
    speed *= draw.choice([-1, 1], 2)
    images, masks = [], []
    for _ in range(FRAMES):
        at = np.round(place).astype(int)
        mask = np.linalg.norm(np.indices((SIZE, SIZE)) - at[:, None, None], axis=0) <= radius
        values = np.where(mask, np.roll(foreground, at, (0, 1)), background)
        images.append(values + 0.1 * draw.normal(size=mask.shape))
        masks.append(mask)
        speed = np.where((place + speed < radius) | (place + speed > SIZE - radius), -speed, speed)
        place = place + speed
    return 100 * np.array(images), np.array(masks)


def beating(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(frames, *spatial) an elliptic cavity that beats in speckle, and its mask; walls are lost in some frames."""
    middle, axes, turn = SIZE / 2 + draw.uniform(-5, 5, 2), draw.uniform(13, 19, 2), draw.uniform(0, np.pi)
    phase, depth = draw.uniform(0, 2 * np.pi), draw.uniform(0.1, 0.25)
    x, y = np.indices((SIZE, SIZE)) - middle[:, None, None]
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    images, masks = [], []
    for frame in range(FRAMES):
        size = 1 + depth * np.sin(2 * np.pi * frame / FRAMES + phase)
        away = np.hypot(along / axes[0], across / axes[1]) / size
        echo = np.where(away <= 1, 0.25, np.where(away <= 1.25, 1.0, 0.5))
        if draw.random() < 0.4:  # an angle at which the wall gives no echo
            lost = np.abs(np.angle(np.exp(1j * (np.arctan2(across, along) - draw.uniform(-np.pi, np.pi))))) < np.pi / 4
            echo = np.where(lost & (away > 0.8), 0.3, echo)
        speckle = np.hypot(noise(draw, (SIZE, SIZE)), noise(draw, (SIZE, SIZE)))
        images.append(echo * speckle)
        masks.append(away <= 1)
    return 100 * np.array(images), np.array(masks)


def scores(data: Path, out: Path, **how: Any) -> dict[str, Any]:
    """Dice a frame and jitter of the area, of the clips that are held out."""
    if not (out / "report.html").is_file():
        isocenter.train(data, out=out, threads=1, seed=0, **how)
    model = isocenter.load(out)
    dice, jitters = [], []
    for path in sorted((data / "imagesTs").iterdir()):
        truth = np.asarray(isocenter.read(data / "labelsTs" / path.name).data)[0] > 0
        answers = model.predict(isocenter.read(path)).frames
        frames = [np.reshape(one.data, own.shape) > 0 for one, own in zip(answers, truth, strict=True)]
        for found, own in zip(frames, truth, strict=True):
            dice.append(2 * (found & own).sum() / max(found.sum() + own.sum(), 1))
        jitters.append(jitter([one.sum() for one in frames]) - jitter([one.sum() for one in truth]))
    log = pd.read_csv(out / "log.csv")
    return {"dice": float(np.mean(dice)), "jitter": float(np.mean(jitters)), "steps": int(log["step"].max())}


def jitter(areas: list[int]) -> float:
    """The median of the second difference of areas, in % of their mean; 100 of nothing at all."""
    return float(100 * np.median(np.abs(np.diff(areas, 2))) / np.mean(areas)) if np.mean(areas) else 100.0


def searched(given: argparse.Namespace) -> dict[str, Any]:
    """What a training with a search finds on clips whose object only its motion shows."""
    how, data = {"minutes": given.tune + given.minutes, "tune": given.tune}, given.out / "searched_clips"
    if not data.is_dir():
        write_clips(data, moving, SEARCHED)
    found = scores(data, given.out / "searched", **how)
    chosen = json.loads((given.out / "searched" / "search" / "result.json").read_text())
    around = isocenter.load(given.out / "searched").preprocessing.around
    return {**found, "around": around, "statement": str(chosen.get("statement", ""))}


def summary(rows: pd.DataFrame) -> str:
    heads = ("clips", "frames before and after", "Dice of a frame", "jitter of the area, %", "steps")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows.to_dict("records"):
        cells = row["clips"], row["around"], f"{row['dice']:.3f}", f"{row['jitter']:.1f}", row["steps"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
