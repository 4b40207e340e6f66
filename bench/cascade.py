"""What a cascade sees that patches do not: discs whose label is told by a bar far away, beyond every patch.

    python bench/cascade.py --steps 400 --seeds 0 1 2 --record

Pictures of 64 x 64 pixels, made by rules. On the right lies a disc, on the left a bright bar, above or below: it alone
says whether the disc is label 1 or 2. Both networks look at full resolution at patches of 16 x 16 pixels, in which bar
and disc never lie together; one sees the image alone, before the other two networks see all of it on a grid four times
as coarse. Who knows nothing of the bar, and finds the disc, is right about every other one.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
from recorded import record

import isocenter

SIDE, PATCH, FACTOR = 64, [16, 16], 4.0
TEXT = (
    "Discs whose label, 1 or 2, a bar far away tells (SIMULATED, 64 x 64 pixels). Patches have 16 x 16 pixels, so that "
    "no patch holds both: patches alone can be right about every other disc. The cascade first saw the whole image on "
    "a grid four times as coarse."
)
NETWORK = {"width": 8, "widest": 32, "strides": [[1, 1], [2, 2], [2, 2]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--steps", type=int, default=160, help="of each training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, help="keep the runs here")
    parser.add_argument("--record", action="store_true", help="write the figures into docs/benchmarks")
    given = parser.parse_args()
    out = given.out or Path(tempfile.mkdtemp())
    data = cohort_of_contexts(out / "data", given.cases)
    lines = ["| network | seed | Dice of the label that is there | test cases | above 0.5 |", "|---|---|---|---|---|"]
    print("\n".join(lines))
    for seed in given.seeds:
        for name, factor in (("patches alone", None), ("cascade", FACTOR)):
            run = isocenter.train(
                data,
                out=out / f"{name.partition(' ')[0]}-{seed}",
                deterministic=True,
                device="cpu",
                threads=1,
                seed=seed,
                assignments={
                    "training.steps": given.steps,
                    "training.validations": 2,
                    "training.batch": 8,
                    "training.foreground": 0.7,
                    "training.patch": PATCH,
                    "inference.patch": PATCH,
                    "network.size": NETWORK,
                    "preprocessing.cascade": factor,
                },
            )
            lines.append(f"| {name} | {seed} | {' | '.join(_measured(run.out))} |")
            print(lines[-1])
    if given.record:
        table = "\n".join([TEXT, "", *lines])
        record("cascade", "What a cascade sees that patches do not", table, {"steps": given.steps, "rows": lines[2:]})


def cohort_of_contexts(root: Path, count: int) -> Path:
    """images/ beside labels/, as PNG."""
    for n in range(count):
        rng, second = np.random.default_rng(n), n % 2
        image = rng.normal(100, 12, (SIDE, SIDE))
        row = 6 if second else SIDE - 12
        image[row : row + 6, 4:16] += 100
        centre = rng.uniform(0.3 * SIDE, 0.7 * SIDE), rng.uniform(0.65 * SIDE, 0.85 * SIDE)
        away = np.sqrt(sum((grid - c) ** 2 for grid, c in zip(np.indices(image.shape), centre, strict=True)))
        image[away < 4.5] += 60
        for folder, array in (("images", image.clip(0, 255)), ("labels", (1 + second) * (away < 4.5))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(array.astype(np.uint8)).save(root / folder / f"case{n:02}.png")
    return root


def _measured(run: Path) -> list[str]:
    """Of the test cases: mean Dice of the label that each has, how many there are, and in how many it is above 0.5."""
    table = pd.read_csv(run / "evaluation" / "cases.csv", dtype={"label": str})
    own = table["label"] == (table["case"].str[-1].astype(int) % 2 + 1).astype(str)
    dice = table.loc[own, "dice"]
    return [f"{dice.mean():.3f}", str(len(dice)), str(int((dice > 0.5).sum()))]


if __name__ == "__main__":
    main()
