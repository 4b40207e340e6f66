"""Times to an event: baselines on the table of Lung1, and a network beside the best that simulated times allow.

    python bench/survival.py table ../shared/data/survival --seeds 0 1 2
    python bench/survival.py images ../shared/data/hippocampus --minutes 20 --seeds 0 1 2
    python bench/survival.py images ../shared/data/hippocampus --axes 2 --minutes 20 --seeds 0 1 2
    python bench/survival.py images ../shared/data/hippocampus --folds 5 --steps 64 --seeds 0 1 2
    python bench/survival.py calibration --draws 30

`table` scores, in 300 patients with lung cancer, the size of the tumour alone, and ridge-penalised Cox models out of
fold. The volume itself is not among the columns: it is that of the ellipsoid with the tumour's three principal axes.
Published: the radiomics signature of Aerts et al., Nat Commun 2014, doi:10.1038/ncomms5006, whose training set this is,
reached a c of 0.65 in the lung cancers of another set; a LASSO of all features here about 0.64, cross-validated.

`images` trains on MR volumes through the command line. THE TIMES ARE SIMULATED: exponential, with a log hazard that is
a known multiple of the hippocampus volume (less volume, sooner), censored at random and at the end of a study; with
`--axes 2` on the slice of each volume that shows most of the hippocampus, and of its area there. The c of that true
hazard on the same test cases is what no model can be expected to exceed. With --folds every case is scored by a fold
that has not seen it, so that all of them tell models apart and not a fifth.

`calibration` simulates what a model that has learnt its training cases by heart predicts: Cox's, hardly penalised, of
10 or 40 columns of which 5 tell, by 136 cases. The integrated Brier score of new cases, by Breslow's baseline of the
training cases with their own risks, and by slope and baseline of validation cases, as a run has them.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import torch
from machine import described
from torchsurv.loss.cox import baseline_survival_function, neg_partial_log_likelihood
from trainings import summary

import isocenter
from isocenter.evaluation import intervals
from isocenter.evaluation import survival as evaluation_survival
from isocenter.evaluation.survival import Steps
from isocenter.tasks import task_settings
from isocenter.tasks.survival import question
from isocenter.values import Estimate, Floats

FOLDS = 5
# Of the penalty, in units of the log likelihood, on coefficients of standardised columns. It was not tuned.
RIDGE = 10.0
# Days until which Uno's c looks.
FIVE_YEARS = 1826.0
STAGES = {"I": 1, "II": 2, "IIIa": 3, "IIIb": 4}
# Of the simulated times: the median of an average case, the log hazard ratio of a standard deviation less of volume,
# the end of the study, and the mean time after which somebody is lost; all in days.
MEDIAN, EFFECT, END, LOST = 700.0, 1.0, 1500.0, 3000.0
# Of the simulated tables: training and new cases, columns, those that tell, and the times that are scored.
TRAIN, NEW, COLUMNS, TELL = 136, 600, (10, 40), 5
WHEN = np.linspace(0.0, 1000.0, 21)
# Of a network: how it ranks, and how far its probabilities and lower bounds can be believed.
OF_NETWORKS = ("uno_c", "harrell_c", "calibration_slope", "d_calibration", "coverage")


def main() -> None:
    warnings.filterwarnings("ignore", message="Ties in")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["table", "images", "calibration"])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--draws", type=int, default=30, help="simulated tables of `calibration`")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--steps", type=int, help="in place of the minutes")
    parser.add_argument("--axes", type=int, choices=[2, 3], default=3, help="of the images")
    parser.add_argument("--threads", type=int, help="as of `isocenter train`")
    parser.add_argument("--set", nargs="*", default=[], help="as of `isocenter train`, section.name=value")
    parser.add_argument("--model", choices=["cox", "hazards", "weibull"], default="cox")
    parser.add_argument("--folds", type=int, help="as of `isocenter train`")
    parser.add_argument("--cases", type=int, help="of the images, the first so many alone")
    parser.add_argument("--out", type=Path, help="keep the runs here")
    given = parser.parse_args()
    print(f"Machine: {described()}.")
    print(f"Command: `python bench/{Path(__file__).name} {' '.join(sys.argv[1:])}`\n")
    if given.part == "calibration":
        _of_calibration(given.draws)
        return
    if given.part == "table":
        print(f"Lung1: {FOLDS} folds, ridge {RIDGE:g}.\n")
        rows = [row for seed in given.seeds for row in _of_table(given.data, seed)]
    else:
        print("Times are simulated: see the script.\n")
        out = given.out or Path(tempfile.mkdtemp())
        rows = [row for seed in given.seeds for row in _of_images(given, seed, out / f"seed{seed}")]
    found = pd.DataFrame(rows)
    print("| who | metric | mean of seeds | each seed, 95 % interval | cases |\n|---|---|---|---|---|")
    for (who, metric), own in found.groupby(["who", "metric"], sort=False):
        ends = zip(own["value"], own["low"], own["high"], strict=True)
        each = ", ".join(
            f"{one:.3f}{'' if np.isnan(low) else f' ({low:.3f} to {high:.3f})'}" for one, low, high in ends
        )
        print(f"| {who} | {metric} | {statistics.fmean(own['value']):.3f} | {each} | {own.iloc[0]['n']} |")


def _of_calibration(draws: int) -> None:
    print(f"Integrated Brier score of {NEW} new cases, mean of {draws} simulated tables; {TRAIN} cases train.\n")
    print("| columns | validation cases | one curve for everybody | baseline of training risks | as a run has it |")
    print("|---|---|---|---|---|")
    for columns in COLUMNS:
        for validated in (24, 60):
            found = np.mean([_integrated_errors(columns, validated, seed) for seed in range(draws)], axis=0)
            print(f"| {columns} | {validated} | {' | '.join(f'{one:.4f}' for one in found)} |")


def _integrated_errors(columns: int, validated: int, seed: int) -> list[float]:
    """Of one curve for everybody, of the baseline of training risks, and of slope and baseline as a run has them."""
    random, truth = np.random.default_rng(seed), np.zeros(columns)
    truth[:TELL] = random.normal(size=TELL)
    truth *= EFFECT / np.linalg.norm(truth)
    design = random.normal(size=(TRAIN + validated + NEW, columns)).astype(np.float32)
    times, happened = _drawn(design @ truth, random)
    train, val, new = slice(TRAIN), slice(TRAIN, TRAIN + validated), slice(TRAIN + validated, None)
    risk = design @ _ridge(design[train], times[train], happened[train], ridge=1.0)
    followed, everybody = (
        one(times[train], happened[train])
        for one in (evaluation_survival.censoring_curve, evaluation_survival.kaplan_meier)
    )

    def errors(hazard: Floats, ratio: Floats) -> float:
        """By the cumulative hazard at `WHEN` of a ratio of 0."""
        survival = np.exp(-hazard * np.exp(ratio[new, None]))
        return float(
            evaluation_survival.integrate_errors(
                evaluation_survival.brier_errors(survival, times[new], happened[new], followed, WHEN), WHEN
            ).mean()
        )

    given = [torch.tensor(one[train]) for one in (risk, happened, times.astype(np.float32))]
    known = baseline_survival_function(*given)
    by_heart = Steps(known["time"].numpy(), -np.log(known["baseline_survival"].numpy()), 0.0)
    multiplied = question.fit_slope(times[val], happened[val], risk[val])
    own = question.fit_baseline(everybody, multiplied * risk[val])
    flat = -np.log(np.maximum(everybody.at(WHEN), 1e-9))
    return [errors(flat, 0 * risk), errors(by_heart.at(WHEN), risk), errors(own.at(WHEN), multiplied * risk)]


def _drawn(hazard: Floats, random: np.random.Generator) -> tuple[Floats, np.ndarray]:
    """Days until the event or the last contact, and whether it was the event."""
    times = random.exponential(MEDIAN / np.log(2) * np.exp(-hazard))
    limits = np.minimum(random.exponential(LOST, len(times)), END)
    return np.maximum(np.ceil(np.minimum(times, limits)), 1), times <= limits


def _of_table(data: Path, seed: int) -> Iterator[dict[str, Any]]:
    table = pd.read_csv(data / "clinical.csv").merge(pd.read_csv(data / "radiomics.csv"), on="PatientID")
    times, happened = table["Survival.time"].to_numpy(float), table["deadstatus.event"].to_numpy() == 1
    volume = np.log(_ellipsoid(table))
    clinical = _clinical(table)
    both = clinical.assign(volume=volume)
    risks = {
        "tumour volume (ellipsoid) alone": volume,
        "Cox, clinical columns": _out_of_fold(clinical, times, happened, seed),
        "Cox, clinical columns and volume": _out_of_fold(both, times, happened, seed),
    }
    for who, risk in risks.items():
        yield from _rows(who, risk, times, happened, table["PatientID"].to_numpy(str), FIVE_YEARS, seed)


def _ellipsoid(table: pd.DataFrame) -> Floats:
    """mm³ of the ellipsoid with the tumour's principal axes; the shorter two are given as shares of the first."""
    major = table["original_shape_MajorAxisLength"].to_numpy(float)
    return np.pi / 6 * major**3 * table["original_shape_Elongation"] * table["original_shape_Flatness"]


def _clinical(table: pd.DataFrame) -> pd.DataFrame:
    """Numbers; what is missing stays so."""
    return pd.DataFrame(
        {
            "age": table["age"],
            "T": table["clinical.T.Stage"],
            "N": table["Clinical.N.Stage"],
            "stage": table["Overall.Stage"].map(STAGES),
            "male": (table["gender"] == "male").astype(float),
            "squamous": (table["Histology"] == "squamous cell carcinoma").astype(float),
        }
    )


def _out_of_fold(columns: pd.DataFrame, times: Floats, happened: np.ndarray, seed: int) -> Floats:
    """(cases,) linear predictor of each case by the model that has not seen it; missing values are the mean."""
    fold = np.empty(len(times), dtype=int)
    random = np.random.default_rng(seed)
    for side in (happened, ~happened):
        fold[side] = random.permutation(int(side.sum())) % FOLDS
    risk = np.empty(len(times))
    for number in range(FOLDS):
        train, test = fold != number, fold == number
        mean, deviation = columns[train].mean(), columns[train].std()
        design = ((columns - mean) / deviation).fillna(0.0).to_numpy(np.float32)
        risk[test] = design[test] @ _ridge(design[train], times[train], happened[train])
    return risk


def _ridge(design: np.ndarray, times: Floats, happened: np.ndarray, ridge: float = RIDGE) -> np.ndarray:
    """(columns,) coefficients of Cox's model with a penalty on their squares."""
    inputs, last = torch.from_numpy(design), torch.tensor(times, dtype=torch.float32)
    events, weights = torch.from_numpy(happened), torch.zeros(design.shape[1], requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def cost() -> torch.Tensor:
        optimiser.zero_grad()
        found = neg_partial_log_likelihood(inputs @ weights, events, last, reduction="sum")
        found = found + ridge / 2 * weights.square().sum()
        found.backward()
        return found

    optimiser.step(cost)
    return weights.detach().numpy()


def _of_images(given: argparse.Namespace, seed: int, out: Path) -> Iterator[dict[str, Any]]:
    out.mkdir(parents=True, exist_ok=True)
    table = _simulated(given, seed, out / "slices")
    table.to_csv(out / "manifest.csv", index=False)
    length = ["--minutes", str(given.minutes)] if given.steps is None else ["--set", f"training.steps={given.steps}"]
    columns = ("image=image", "id=case", "time=days", "event=happened")
    wishes = {"task.model": given.model, "task.unit": "days"}
    words = ["--column", ",".join(columns)]
    words += [] if given.folds is None else ["--folds", str(given.folds)]
    words += [] if given.threads is None else ["--threads", str(given.threads)]
    words += [part for name, value in wishes.items() for part in ("--set", f"{name}={value}")]
    words += [part for one in given.set for part in ("--set", one)]
    run = out / "run"
    command = [sys.executable, "-m", "isocenter", "train", str(out / "manifest.csv"), "--modality", "MR"]
    subprocess.run([*command, *words, *length, "--seed", str(seed), "--out", str(run)], check=True)
    for row in summary(run):
        if row["label"] == "all" and row["metric"] in OF_NETWORKS and row["value"] is not None:
            low, high = (float("nan") if row[end] is None else row[end] for end in ("low", "high"))
            yield {"who": f"network ({given.model})", **row, "low": low, "high": high}
    task = isocenter.load(run, "cpu").task
    tested = pd.read_csv(run / "evaluation" / "cases.csv", dtype=str)["case"].unique()
    own = table.set_index("case").loc[tested]
    times, happened = own["days"].to_numpy(float), own["happened"].to_numpy() == 1
    truth = own["log_hazard"].to_numpy(float)
    yield from _rows(
        "the true hazard",
        truth,
        times,
        happened,
        np.array(tested),
        task_settings.settings_of(task)["horizons"][-1],
        seed,
    )


def _simulated(given: argparse.Namespace, seed: int, slices: Path) -> pd.DataFrame:
    """A row a case: its image, its true log hazard, and what was seen of its time."""
    masks = sorted((given.data / "labels").glob("*.nii.gz"))[: given.cases]
    images = [given.data / "images" / path.name for path in masks]
    if given.axes == 2:
        slices.mkdir()
        each = [_slice(*one, slices) for one in zip(images, masks, strict=True)]
        images, sizes = [path for path, _ in each], np.array([area for _, area in each])
    else:
        sizes = np.array([_volume(path) for path in masks])
    hazard = -EFFECT * (sizes - sizes.mean()) / sizes.std()
    random = np.random.default_rng(seed)
    times, happened = _drawn(hazard, random)
    return pd.DataFrame(
        {
            "case": [path.name.removesuffix(".nii.gz") for path in masks],
            "image": [str(path.resolve()) for path in images],
            "days": times.astype(int),
            "happened": happened.astype(int),
            "log_hazard": hazard,
        }
    )


def _volume(path: Path) -> float:
    """mm³ that are marked, whatever as."""
    image = isocenter.read(path)
    return float(np.count_nonzero(image.data)) * float(image.geometry.voxel_volume or 1.0)


def _slice(image: Path, mask: Path, folder: Path) -> tuple[Path, float]:
    """The slice across the last axis that shows most of what is marked, as a file of its own, and mm² of that."""
    loaded: Any = nibabel.load(image)
    marked = np.asarray(nibabel.load(mask).dataobj) > 0  # type: ignore[attr-defined]
    number = int(marked.sum(axis=(0, 1)).argmax())
    across = np.asarray(loaded.dataobj)[:, :, number : number + 1]
    path = folder / image.name
    nibabel.save(nibabel.Nifti1Image(across, loaded.affine), path)
    return path, float(marked[:, :, number].sum()) * float(np.prod(loaded.header.get_zooms()[:2]))


def _rows(
    who: str, risk: Floats, times: Floats, happened: np.ndarray, patients: np.ndarray, horizon: float, seed: int
) -> Iterator[dict[str, Any]]:
    """Both concordances with intervals; the censoring is that of these cases."""
    followed = evaluation_survival.censoring_curve(times, happened)
    figures = {
        "harrell_c": lambda weights: evaluation_survival.harrell_c(risk, times, happened, weights),
        "uno_c": lambda weights: evaluation_survival.uno_c(risk, times, happened, followed, horizon, weights),
    }
    for metric, figure in figures.items():
        found: Estimate = intervals.bootstrap_statistic(figure, patients, strata=happened, seed=seed, exact=False)
        yield {"who": who, "metric": metric, "value": found.value, "low": found.low, "high": found.high, "n": found.n}


if __name__ == "__main__":
    main()
