"""Volumes that each know one of two structures, against full labels and against what is missing taken as background.

    python bench/partly_labelled.py --out DIR --minutes 4 --draws 0 1 2 --record

40 volumes of the hippocampus train and select, of which each knows its anterior or its posterior part by a fixed draw;
40 others, drawn as a whole, test. All three trainings of a draw have the same volumes and minutes. With --out the bench
resumes: a training that has ended is not repeated. `--smoke` tries it in a minute, on few volumes; its figures mean
nothing and are not recorded.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from environment import ROOT
from recorded import record

import isocenter
from isocenter.evaluation import bootstrap

DATA = ROOT.parent / "shared" / "data"
LABELS = {1: "anterior", 2: "posterior"}
ARMS = ("full", "known", "background")
# Every fifth of the volumes that train selects the checkpoint.
SELECTING = 5
TEXT = (
    "Hippocampus: {cases} volumes that each know one of two structures (known), the same volumes with both (full), and "
    "with the missing structure as background (background); {minutes:g} minutes each, tested on {tested} others that "
    "were drawn as a whole. Intervals are of paired differences by case, of one draw each; two volumes may be of one "
    "person. Asked for: known less full at least -.02, and background further below."
)
SMALL = {"network.size": {"width": 4, "widest": 8, "strides": [[1, 1, 1], [2, 2, 2]]}, "training.validations": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=40, help="volumes that train")
    parser.add_argument("--tested", type=int, default=40, help="other volumes that test")
    parser.add_argument("--minutes", type=float, default=4.0, help="of each training")
    parser.add_argument("--draws", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="keep the runs here, and go on with those that have ended")
    parser.add_argument("--smoke", action="store_true", help="try it within a minute, on few volumes")
    parser.add_argument("--record", action="store_true", help="write the figures into docs/benchmarks")
    given = parser.parse_args()
    if given.smoke:
        given.cases, given.tested, given.minutes, given.draws, given.record = 10, 4, 0.1, [0], False
    out = given.out or Path(tempfile.mkdtemp())
    measured = [{"draw": draw, **_measured(out / f"draw-{draw}", draw, given)} for draw in given.draws]
    lines = ["| draw | full | known | background | known - full | background - full |", "|---" * 6 + "|"]
    for one in measured:
        dice = " | ".join(f"{one[arm]:.3f}" for arm in ARMS)
        apart = " | ".join("{:+.3f} ({:+.3f} to {:+.3f})".format(*one[f"{arm} - full"]) for arm in ARMS[1:])
        lines.append(f"| {one['draw']} | {dice} | {apart} |")
    text = f"{TEXT.format(cases=given.cases, minutes=given.minutes, tested=given.tested)}\n\n" + "\n".join(lines)
    print(text)
    if given.record:
        about = {"cases": given.cases, "tested": given.tested, "minutes": given.minutes, "rows": measured}
        record("partly_labelled", "Volumes that each know one of two structures", text, about)


def _measured(place: Path, draw: int, given: argparse.Namespace) -> dict[str, Any]:
    """Mean Dice of each way of training, and the paired differences to full labels with their intervals."""
    dice = {arm: _dice(place / arm, arm, draw, given) for arm in ARMS}
    made: dict[str, Any] = {arm: float(own.mean()) for arm, own in dice.items()}
    for arm in ARMS[1:]:
        apart = (dice[arm] - dice["full"]).to_numpy()
        estimate = bootstrap(apart, dice[arm].index.to_numpy(), seed=0)
        made[f"{arm} - full"] = [estimate.value, estimate.low, estimate.high]
    return made


def _dice(place: Path, arm: str, draw: int, given: argparse.Namespace) -> pd.Series:
    """Mean Dice of each test case, from a training that is not repeated where it has ended."""
    kept = place / "dice.json"
    if not kept.is_file():
        run = _run(place, arm, draw, given)
        scores = pd.read_csv(run / "evaluation" / "cases.csv").groupby("case")["dice"].mean()
        kept.write_text(json.dumps(scores.to_dict(), indent=1) + "\n")
    return pd.Series(json.loads(kept.read_text()), dtype=float).sort_index()


def _run(place: Path, arm: str, draw: int, given: argparse.Namespace) -> Path:
    """The folder of a training, which goes on where it was stopped."""
    if (place / "run").is_dir():
        return isocenter.train(resume=place / "run").out
    return isocenter.train(
        _cohort(place / "data", arm, draw, given),
        labels=",".join(f"{value}={name}" for value, name in LABELS.items()),
        minutes=given.minutes,
        out=place / "run",
        device="cpu",
        threads=given.threads,
        seed=draw,
        assignments=SMALL if given.smoke else {},
    ).out


def _cohort(root: Path, arm: str, draw: int, given: argparse.Namespace) -> Path:
    """The table of the volumes, with the masks that were drawn; the same volumes and draw for every arm."""
    source = DATA / "hippocampus"
    names = sorted(path.name for path in (source / "labels").iterdir())
    rng = np.random.default_rng(draw)
    chosen = [names[n] for n in rng.permutation(len(names))[: given.cases + given.tested]]
    # Half of the volumes know each structure, among those that select too.
    drawn = [1 + (n + n // SELECTING) % 2 for n in range(given.cases)]
    (root / "masks").mkdir(parents=True, exist_ok=True)
    rows = []
    for n, name in enumerate(chosen):
        split = "test" if n >= given.cases else "val" if n % SELECTING == 0 else "train"
        mask = nibabel.load(source / "labels" / name)
        values = np.asarray(mask.dataobj).astype(np.uint8)
        known = ""
        if split != "test" and arm != "full":
            values[values != drawn[n]] = 0
            known = LABELS[drawn[n]] if arm == "known" else ""
        nibabel.Nifti1Image(values, mask.affine).to_filename(root / "masks" / name)
        rows.append({"image": source / "images" / name, "mask": f"masks/{name}", "split": split, "known": known})
    pd.DataFrame(rows).to_csv(root / "cases.csv", index=False)
    return root / "cases.csv"


if __name__ == "__main__":
    main()
