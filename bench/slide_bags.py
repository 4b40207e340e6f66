"""One label a slide: attention in windows beside full attention, and simulated slides beside MONAI's `MILModel`.

Tiles are simulated: violet nuclei on pink; in two to five tiles of a positive slide some of them are brown. Each cell
is measured once.

    python bench/slide_bags.py OUT [--minutes 2]
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from environment import ROOT
from recorded import measured_cell, record
from sklearn.metrics import roc_auc_score
from torch import nn

from hilum.networks import factory, transformer_blocks
from hilum.networks.slide_windows import SlideWindows
from hilum.values import Vector

sys.path.insert(0, str(ROOT / "tests"))
import simulated_slides

TOKENS, WIDTH, HEADS, BLOCKS = (1_000, 3_162, 10_000, 31_623, 100_000), 64, 4, 6
# Full attention takes ten times as long for each step of `TOKENS`: the last would take minutes.
MOST_FULL = 31_623
SIDE, TILE, TISSUE, MARKED = 1024, 64, (80, 130), (2, 6)
CLASSES, TRAIN, TEST = ("plain", "marked"), 60, 40
ASKED = {"exponent": 1.1, "auroc": 0.97, "found": 0.9}
# Of MONAI's training: tiles of a slide and slides a step, as in its tutorial of bags; rate for new weights.
TOGETHER, SLIDES, RATE = 64, 4, 3e-4


def places_of_tissue(count: int) -> torch.Tensor:
    """(1, count, 2): pieces of tissue, each a disc of the grid."""
    generator, taken = np.random.default_rng(count), set[tuple[int, int]]()
    side = int(4 * np.sqrt(count))
    while len(taken) < count:
        row, column, radius = (*generator.integers(0, side, 2), int(np.sqrt(count) / 6) + 2)
        near = np.argwhere(np.hypot(*np.ogrid[-radius : radius + 1, -radius : radius + 1]) <= radius) - radius
        taken |= {(int(r), int(c)) for r, c in near + np.array([row, column]) if 0 <= r < side and 0 <= c < side}
    spots = sorted(taken)
    chosen = generator.permutation(len(spots))[:count]
    return torch.tensor([spots[n] for n in chosen])[None]


def cpu_seconds(run: Any) -> float:
    """The median of three."""
    times = []
    for _ in range(3):
        began = time.process_time()
        run()
        times.append(time.process_time() - began)
    return float(np.median(times))


@torch.inference_mode()
def windows() -> dict[str, Any]:
    """Processor seconds of pooling by windows among so many tiles; six blocks."""
    torch.set_num_threads(1)
    size = {"encoder": ["colour"], "width": WIDTH, "heads": HEADS, "stages": BLOCKS // 2}
    network: Any = factory.build("slide_windows", 3, 3, {"grade": Vector(2)}, size).eval()
    assert isinstance(network, SlideWindows)
    times = {}
    for count in TOKENS:
        given = torch.rand(1, count, 216), places_of_tissue(count)
        times[count] = cpu_seconds(lambda given=given: network.pooled(*given))
    return {"times": times, "exponent": exponent(times)}


@torch.inference_mode()
def full() -> dict[str, Any]:
    """The same of full attention."""
    torch.set_num_threads(1)
    blocks = [transformer_blocks.TransformerBlock(WIDTH, HEADS, 4, 0.0, 0.0) for _ in range(BLOCKS)]
    network, times = nn.ModuleList(blocks).eval(), {}
    for count in TOKENS:
        if count <= MOST_FULL:
            tokens = torch.rand(1, count, WIDTH)
            times[count] = cpu_seconds(lambda given=tokens: passed(network, given))
    return {"times": times, "exponent": exponent(times)}


def passed(blocks: nn.ModuleList, tokens: torch.Tensor) -> torch.Tensor:
    """The tokens after all blocks."""
    for block in blocks:
        tokens = block(tokens)
    return tokens


def exponent(seconds: dict[int, float]) -> float:
    """The slope of time over number, of their logarithms."""
    return float(np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0])


def tile(generator: np.random.Generator, *, marked: bool) -> np.ndarray:
    """(64, 64, 3): 14 nuclei, of which four are brown in a marked tile."""
    shades = generator.normal(0, 8, (TILE, TILE, 1)) + generator.normal(0, 4, (TILE, TILE, 3))
    pixels = np.array([214, 150, 190]) + shades
    rows, columns = np.mgrid[:TILE, :TILE]
    for number in range(14):
        row, column, radius = *generator.uniform(4, TILE - 4, 2), generator.uniform(2.5, 5)
        inside = np.hypot(rows - row, columns - column) < radius
        colour = np.array([130, 80, 30] if marked and number < 4 else [120, 60, 140])
        pixels[inside] = colour + generator.normal(0, 6, (inside.sum(), 3))
    return pixels.clip(0, 255).astype(np.uint8)


def lay(out: Path) -> dict[str, Any]:
    """Slides of both classes in train and test, and the places of marked tiles."""
    known = {}
    for part, count in (("train", TRAIN), ("test", TEST)):
        for number in range(count):
            label, grid = CLASSES[number % 2], SIDE // TILE
            generator = np.random.default_rng([number, count])
            spots = generator.permutation(grid * grid)[: int(generator.integers(*TISSUE))].tolist()
            marked = spots[: int(generator.integers(*MARKED))] if label == "marked" else []
            tiles = {
                (spot // grid * TILE, spot % grid * TILE): tile(generator, marked=spot in marked) for spot in spots
            }
            path = out / part / label / f"{part}{number:03}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            simulated_slides.write_tiff(
                path, simulated_slides.levels_of(simulated_slides.lay_tiles(SIDE, tiles, noise=6), 3)
            )
            known[path.stem] = [[spot // grid, spot % grid] for spot in marked]
    (out / "marked.json").write_text(json.dumps(known))
    return {"slides": len(known)}


def run_hilum(out: Path, *words: str) -> None:
    """A command of ours on one thread."""
    command = [str(Path(sys.executable).with_name("hilum")), *words, "--threads", "1", "--overwrite"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def ours(out: Path, minutes: float) -> dict[str, Any]:
    """Our planned training on the slides, and the attention of each tile of positive test slides."""
    given = ["--minutes", str(minutes), "--all", "--positive", "marked", "--set", f"tiles.size={TILE}"]
    run_hilum(out, "train", str(out / "train"), *given, "--out", str(out / "run"))
    slides = [str(path) for path in sorted((out / "test").glob("*/*.tif"))]
    run_hilum(out, "predict", str(out / "run"), *slides, "--abstain", "mark", "--out", str(out / "predicted"))
    rows = list(csv.DictReader((out / "predicted" / "predictions.csv").open()))
    scores = {row["case"]: float(row["probability_marked"]) for row in rows}
    highest = {}
    for case in scores:
        tiles = list(csv.DictReader((out / "predicted" / f"{case}_attention.csv").open()))
        top = max(tiles, key=lambda row: float(row["attention"]))
        highest[case] = [int(float(top["y0"])) // TILE, int(float(top["x0"])) // TILE]
    return judged(out, scores, highest)


def judged(out: Path, scores: dict[str, float], highest: dict[str, list[int]]) -> dict[str, Any]:
    """AUROC of test slides, and in how many positives the tile with most attention is a marked one."""
    marked = json.loads((out / "marked.json").read_text())
    truth = [bool(marked[case]) for case in scores]
    positives = [case for case in scores if marked[case]]
    found = sum(highest[case] in marked[case] for case in positives)
    return {
        "auroc": float(roc_auc_score(truth, list(scores.values()))),
        "found": found,
        "positives": len(positives),
    }


def read_tiles(path: Path) -> tuple[torch.Tensor, list[list[int]]]:
    """(tiles, 3, 64, 64) of those that are no glass, and their places."""
    pixels, grid = tifffile.imread(path, series=0, level=0), SIDE // TILE
    every = pixels.reshape(grid, TILE, grid, TILE, 3).transpose(0, 2, 4, 1, 3)
    spots = np.argwhere(every.mean(axis=(2, 3, 4)) < 225)
    return torch.from_numpy(np.stack([every[tuple(spot)] for spot in spots])), spots.tolist()


def monai(out: Path, minutes: float) -> dict[str, Any]:
    """MONAI's attention on a ResNet-18 with new weights, by a plain loop, in as many minutes from reading on."""
    from monai.networks.nets import MILModel

    torch.set_num_threads(1)
    torch.manual_seed(0)
    began = time.monotonic()
    slides = [(read_tiles(path)[0], path.parent.name == "marked") for path in sorted((out / "train").glob("*/*.tif"))]
    model = MILModel(2, mil_mode="att", pretrained=False, backbone="resnet18").train()
    optimiser, steps = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.1), 0
    while time.monotonic() - began < 60 * minutes:
        chosen = [slides[n] for n in torch.randperm(len(slides))[:SLIDES].tolist()]
        bags = torch.stack([varied(tiles[torch.randperm(len(tiles))[:TOGETHER]]) for tiles, _ in chosen])
        truth = torch.tensor([int(positive) for _, positive in chosen])
        loss = nn.functional.cross_entropy(model(bags), truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps += 1
    model.eval()
    scores, highest = {}, {}
    with torch.inference_mode():
        for path in sorted((out / "test").glob("*/*.tif")):
            tiles, spots = read_tiles(path)
            features = model(tiles[None] / 255 * 2 - 1, no_head=True)
            scores[path.stem] = float(model.calc_head(features).softmax(dim=1)[0, 1])
            highest[path.stem] = spots[int(model.attention(features)[0, :, 0].argmax())]
    return {**judged(out, scores, highest), "steps": steps}


def varied(tiles: torch.Tensor) -> torch.Tensor:
    """Each tile mirrored and turned by itself, of -1 to 1."""
    turned = [torch.rot90(one, int(torch.randint(4, ())), (1, 2)) for one in tiles / 255 * 2 - 1]
    return torch.stack([one.flip(2) if torch.rand(()) < 0.5 else one for one in turned])


def main() -> None:
    """Measure what is not known yet, and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=2.0, help="of each training")
    parser.add_argument("--only", nargs="+", help="cells to measure; all of them if none is named")
    parser.add_argument("--record", action="store_true", help="write page and results")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    cells = {
        name: measured_cell(asked.out, name, measure)
        for name, measure in (
            ("windows", windows),
            ("full", full),
            ("laid", lambda: lay(asked.out)),
            ("hilum", lambda: ours(asked.out, asked.minutes)),
            ("monai", lambda: monai(asked.out, asked.minutes)),
        )
        if not asked.only or name in asked.only
    }
    if asked.record:
        record("slide_bags", "One label a slide", table(cells, asked.minutes), {"cells": cells, "asked": ASKED})


def table(cells: dict[str, Any], minutes: float) -> str:
    """The section of the page."""
    parts = [windows_table(cells["windows"], cells["full"])] if {"windows", "full"} <= set(cells) else []
    if "monai" in cells:
        parts.append(slides_table(cells["hilum"], cells["monai"], minutes))
    else:
        parts.append("Simulated slides beside MONAI's `MILModel`: not measured.")
    return "\n\n".join(parts)


def windows_table(timed: dict[str, Any], beside: dict[str, Any]) -> str:
    """Seconds of both kinds of attention."""
    times, others = ({int(count): one for count, one in cell["times"].items()} for cell in (timed, beside))
    return "\n".join(
        [
            "Processor seconds of pooling so many tiles, whose features are known (six blocks of 64 features, one "
            "thread, median of three).",
            "",
            "| tiles | windows of 8 x 8 (`slide_windows`) | full attention |",
            "|---|---|---|",
            *(
                f"| {count:,} | {one:.2f} | " + (f"{others[count]:.2f}" if count in others else "not measured") + " |"
                for count, one in times.items()
            ),
            f"| exponent (asked: at most {ASKED['exponent']}) | {timed['exponent']:.2f} | {beside['exponent']:.2f} |",
        ]
    )


def slides_table(mine: dict[str, Any], theirs: dict[str, Any], minutes: float) -> str:
    """AUROC and attention of both trainings."""
    return "\n".join(
        [
            f"Simulated slides of {SIDE} x {SIDE} pixels with {TISSUE[0]} to {TISSUE[1] - 1} tiles of tissue; in "
            f"{MARKED[0]} to {MARKED[1] - 1} tiles of a positive slide four of 14 nuclei are brown. {TRAIN} slides "
            f"train, {TEST} test; {minutes:g} minutes each on one thread, one seed.",
            "",
            "| | asked | hilum, as planned | MONAI `MILModel`, attention, ResNet-18, new weights |",
            "|---|---|---|---|",
            f"| AUROC of test slides | {ASKED['auroc']} | {mine['auroc']:.3f} | {theirs['auroc']:.3f} |",
            f"| positives whose tile with most attention is a marked one | 90 % | {mine['found']} of "
            f"{mine['positives']} | {theirs['found']} of {theirs['positives']} |",
            "",
            f"MONAI's training took {theirs['steps']} steps; ours reads and prepares the slides within its minutes.",
            "",
            "Tiles are of 64 pixels here, so that minutes suffice. Brown nuclei are a difference of colour, which "
            "`colour` among the planned encoders sees by itself; MONAI's network has to learn it. Given weights "
            "(`--pretrained`) and slides of a scanner: not measured.",
        ]
    )


if __name__ == "__main__":
    main()
