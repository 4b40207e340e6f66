"""Enhanced volumes of the hippocampus: networks from pairs and from simulated damage beside non-local means, and cubic.

    python bench/enhancement.py --out DIR --minutes 5 --record
    python bench/enhancement.py --out DIR --minutes 4 --only "pairs, second seed" segmentation --record

Rician noise of 8 % of the 99th percentile. Non-local means has its best setting, found on the first training volumes.
Every third slice is learnt back, beside cubic interpolation. Error bars are judged on simulated patients at the noise
that was learnt, and at another. A segmentation sees the test cases noisy, enhanced and clean; it was trained on clean
volumes with the same split, and --segmentation names its run, else it is trained. Cells that have ended are lines of
DIR/cells.jsonl, and are not repeated; those of an earlier record stay in it. Each volume stands for a patient; two may
be of one person.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from environment import ROOT
from recorded import known, measured_cell, record, row_words
from skimage.restoration import denoise_nl_means

import isocenter
from isocenter.evaluation import image_fidelity, intervals

DATA = ROOT.parent / "shared" / "data" / "hippocampus"
NOISE, OTHER, THIRD = 0.08, 0.12, 3
# Of non-local means: strength in deviations of the noise, side of its patches, and how far it looks for them.
STRENGTHS, PATCHES, FAR = (0.6, 0.8, 1.0, 1.2), (3, 5), 4
TUNED_ON = 4
# Damaged images of each clean one, and patients who only calibrate: fewer who select make bars wider than asked, as
# conformal risk control reckons with one more patient who is missed wholly.
DRAWS, CALIBRATING = 2, 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5.0, help="of each training")
    parser.add_argument("--volumes", type=int, default=200)
    parser.add_argument("--calibrated", action="store_true", help="once more with patients who only calibrate")
    parser.add_argument("--segmentation", type=Path, help="a run on the same clean volumes, whose test cases are these")
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="START", help="cells, or how the names of several begin"
    )
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    volumes = dict(read_volumes(given.volumes))
    cells: dict[str, Callable[[], dict[str, Any]]] = {
        "pairs": lambda: from_pairs(given, volumes),
        "non-local means": lambda: by_patches(given, volumes),
        "every third slice": lambda: finer(given, volumes),
        "simulated": lambda: simulated(given, volumes),
        "error bars": lambda: error_bars(given, volumes, "simulated"),
        "segmentation": lambda: seen_by_segmentation(given, volumes),
        "pairs, second seed": lambda: second_seed(given, volumes),
    }
    if given.calibrated:
        cells |= {
            f"simulated, {CALIBRATING} patients calibrate": lambda: simulated(given, volumes, CALIBRATING),
            f"error bars, {CALIBRATING} patients calibrate": lambda: error_bars(given, volumes, "calibrated"),
        }
    begun = tuple(one for one in given.only if one not in cells)  # a whole name is that cell alone
    chosen = {name: measure for name, measure in cells.items() if name in given.only or name.startswith(begun)}
    measured = {name: measured_cell(given.out, name, measure) for name, measure in chosen.items()}
    rows = {**known("enhancement").get("rows", {}), **measured}
    lines = [f"| {name} | {row_words(row)} |" for name, row in rows.items()]
    text = "\n".join(["| what | figure |", "|---|---|", *lines])
    print(text)
    if given.record:
        record("enhancement", "Enhanced volumes", text, {"rows": rows, "minutes": given.minutes})


def read_volumes(count: int) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """(name, (values, affine)) of the clean volumes."""
    paths = [path for path in sorted(DATA.rglob("*.nii.gz")) if "label" not in str(path.relative_to(DATA)).lower()]
    for path in paths[:count]:
        image = nibabel.load(path)
        yield path.name.removesuffix(".nii.gz"), (image.get_fdata(dtype=np.float32), image.affine)


def noisy(name: str, clean: np.ndarray, level: float = NOISE) -> np.ndarray:
    """The length of a complex signal whose parts have white noise."""
    deviation = level * np.percentile(clean, 99)
    real, imaginary = np.random.default_rng(list(name.encode())).normal(0, deviation, (2, *clean.shape))
    return np.hypot(clean + real, imaginary).astype(np.float32)


def write(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(values, affine).to_filename(path)


def trained(given: Any, name: str, data: Path, **more: Any) -> pd.DataFrame:
    """The table of the test cases of a training."""
    out = given.out / f"run_{name}"
    if not (out / "report.html").is_file():
        isocenter.train(data, out=out, minutes=given.minutes, threads=1, device="cpu", overwrite=True, **more)
    return pd.read_csv(out / "evaluation" / "cases.csv")


def stated(table: pd.DataFrame, column: str) -> str:
    """The mean of a column with its interval, patients resampled."""
    return str(intervals.bootstrap(table[column].to_numpy(float), table["patient"].astype(str).to_numpy(), seed=0))


def from_pairs(given: Any, volumes: dict[str, Any]) -> dict[str, Any]:
    data = given.out / "pairs"
    for name, (clean, affine) in volumes.items():
        write(data / "images" / f"{name}.nii.gz", noisy(name, clean), affine)
        write(data / "targets" / f"{name}.nii.gz", clean, affine)
    table = trained(given, "pairs", data)
    return {"PSNR dB": stated(table, "psnr"), "of the input": stated(table, "psnr_input"), "cases": len(table)}


def by_patches(given: Any, volumes: dict[str, Any]) -> dict[str, Any]:
    """Non-local means at its best setting, on the test cases of the training from pairs."""
    table = pd.read_csv(given.out / "run_pairs" / "evaluation" / "cases.csv")
    split = pd.read_csv(given.out / "run_pairs" / "split.csv")
    training = split.loc[split["split"] == "train", "case"].map(lambda one: one.rpartition("/")[2]).tolist()[:TUNED_ON]
    scores = {
        one: np.mean([patch_psnr(name, volumes[name][0], *one) for name in training])
        for one in product(STRENGTHS, PATCHES)
    }
    best = max(scores, key=scores.__getitem__)
    names = [one.rpartition("/")[2] for one in table["case"]]
    each = np.array([patch_psnr(name, volumes[name][0], *best) for name in names])
    ours = table["psnr"].to_numpy(float)
    gain = intervals.bootstrap(ours - each, table["patient"].astype(str).to_numpy(), seed=0)
    return {"PSNR dB": float(each.mean()), "strength": best[0], "patch": best[1], "pairs above it by dB": str(gain)}


def patch_psnr(name: str, clean: np.ndarray, strength: float, patch: int) -> float:
    given, deviation = noisy(name, clean), NOISE * np.percentile(clean, 99)
    settings = {"patch_size": patch, "patch_distance": FAR, "h": strength * deviation, "sigma": deviation}
    made = denoise_nl_means(given, fast_mode=True, **settings)
    return image_fidelity.psnr(made, clean, np.ones(clean.shape, bool))


def second_seed(given: Any, volumes: dict[str, Any]) -> dict[str, Any]:
    """From the same pairs with the seed 1 of split and training, beside non-local means at the setting found before."""
    table = trained(given, "pairs_seed_1", given.out / "pairs", seed=1)
    setting = known("enhancement")["rows"]["non-local means"]
    names = [one.rpartition("/")[2] for one in table["case"]]
    each = [patch_psnr(name, volumes[name][0], setting["strength"], setting["patch"]) for name in names]
    ours, patients = table["psnr"].to_numpy(float), table["patient"].astype(str).to_numpy()
    gain = intervals.bootstrap(ours - np.array(each), patients, seed=0)
    figures = {"PSNR dB": stated(table, "psnr"), "non-local means dB": float(np.mean(each))}
    return {**figures, "pairs above it by dB": str(gain), "cases": len(table), "minutes": given.minutes}


def seen_by_segmentation(given: Any, volumes: dict[str, Any]) -> dict[str, Any]:
    """Dice of a segmentation on the test cases of the training from pairs: noisy, enhanced and clean."""
    seeing = given.segmentation or given.out / "run_segmentation"
    if not (seeing / "report.html").is_file():
        isocenter.train(DATA, out=seeing, minutes=given.minutes, threads=1, device="cpu", overwrite=True)
    folders = {kind: (given.out / "pairs" / f"{kind}s").resolve() for kind in ("image", "target")}
    folders["mask"] = (DATA / "labels").resolve()
    rows = [{"case": name, **{one: str(at / f"{name}.nii.gz") for one, at in folders.items()}} for name in volumes]
    pd.DataFrame(rows).to_csv(given.out / "masked.csv", index=False)
    tested = {
        run: set(split.loc[split["split"] == "test", "case"].map(lambda one: one.rpartition("/")[2]))
        for run in (given.out / "run_pairs", seeing)
        for split in [pd.read_csv(run / "split.csv")]
    }
    if len({frozenset(one) for one in tested.values()}) != 1:
        raise ValueError("the segmentation was tested on other cases than the enhancement")
    out = given.out / "seen"
    asked = {"downstream": seeing, "out": out, "threads": 1, "overwrite": True}
    isocenter.evaluate(given.out / "run_pairs", given.out / "masked.csv", **asked)
    table = pd.read_csv(out / "downstream.csv")
    dice = table.groupby(["image", "case"])["dice"].mean().unstack(0).dropna()
    if not {name.rpartition("/")[2] for name in dice.index} <= tested[seeing]:
        raise ValueError("cases that are no test cases were scored")
    people = dice.index.to_numpy(str)
    apart = {
        f"Dice {side} less noisy": str(intervals.bootstrap((dice[side] - dice["input"]).to_numpy(), people, seed=0))
        for side in ("result", "reference")
    }
    means = {"Dice noisy": dice["input"].mean(), "enhanced": dice["result"].mean(), "clean": dice["reference"].mean()}
    return {**{name: float(one) for name, one in means.items()}, **apart, "cases": len(dice)}


def finer(given: Any, volumes: dict[str, Any]) -> dict[str, Any]:
    data = given.out / "third"
    for name, (whole, affine) in volumes.items():
        clean = whole[:, :, : whole.shape[2] // THIRD * THIRD]
        coarse = affine.copy()
        coarse[:3, 2] *= THIRD
        coarse[:3, 3] += affine[:3, 2]
        write(data / "images" / f"{name}.nii.gz", clean[:, :, 1::THIRD], coarse)
        write(data / "targets" / f"{name}.nii.gz", clean, affine)
    table = trained(given, "third", data)
    gain = intervals.bootstrap(
        (table["psnr"] - table["psnr_input"]).to_numpy(float), table["patient"].astype(str).to_numpy(), seed=0
    )
    return {"PSNR dB": stated(table, "psnr"), "cubic": stated(table, "psnr_input"), "above it by dB": str(gain)}


def simulated(given: Any, volumes: dict[str, Any], calibrating: int = 0) -> dict[str, Any]:
    data = given.out / "clean"
    for name, (clean, affine) in volumes.items():
        write(data / f"{name}.nii.gz", clean, affine)
    asked = {"task.damage": {"rician": [NOISE, NOISE]}, "task.draws": DRAWS}
    asked |= {"split.calibration": DRAWS * calibrating} if calibrating else {}
    name = "calibrated" if calibrating else "simulated"
    table = trained(given, name, data, task="enhancement", assignments=asked)
    return {"PSNR dB": stated(table, "psnr"), "of the input": stated(table, "psnr_input"), "images": len(table)}


def error_bars(given: Any, volumes: dict[str, Any], name: str) -> dict[str, Any]:
    """The share of voxels of each test patient that error bars hold, at the noise that was learnt and at another."""
    run = given.out / f"run_{name}"
    split = pd.read_csv(run / "split.csv")
    tested = sorted(set(split.loc[split["split"] == "test", "case"].map(lambda one: one.rpartition("/")[2][:-2])))
    model = isocenter.load(run)
    shares = dict[str, str]()
    for level in (NOISE, OTHER):
        each = []
        for one in tested:
            clean, affine = volumes[one]
            write(given.out / "one.nii.gz", noisy(one, clean, level), affine)
            made = model.predict(isocenter.read(given.out / "one.nii.gz"))
            values, wide = (np.asarray(made.maps[kind].data) for kind in ("enhanced", "error"))
            each.append(float(np.mean(np.abs(values - clean) <= wide)))
        shares[f"held at {100 * level:g} %"] = str(intervals.bootstrap(np.array(each), np.array(tested), seed=0))
    return {**shares, "patients": len(tested), "asked": 0.9}


if __name__ == "__main__":
    main()
