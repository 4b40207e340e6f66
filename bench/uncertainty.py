"""What each method of uncertainty finds, and costs: error detection, risk-coverage, and corruptions of rising severity.

    python bench/uncertainty.py --threads 1 --record
    python bench/uncertainty.py --threads 1 --taught

Pictures of PneumoniaMNIST and RetinaMNIST, their training and validation parts drawn anew: 450 train, 100 validate, the
others test, 1200 at most. Five networks differ in their seeds; single networks are their mean, `members` all five as
one. Risk is the share of wrong classes. With `--taught` only networks that were trained for a method, of three of the
seeds and as many steps: with dropout of a fifth behind each block, and with a last layer of distributions.
Where laplace-torch is installed, the variances of its last layer are compared with ours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recorded import record
from scipy import ndimage, stats
from trainings import ROOT

import isocenter
from isocenter.evaluation import classification, intervals, uncertainty
from isocenter.evaluation.intervals import Resampling
from isocenter.networks.network_parts import NetworkFeatures
from isocenter.runtime import Model, model_assembly
from isocenter.runtime.uncertainty.uncertainty_methods import LastLayers
from isocenter.values import Estimate, Geometry, Image

PARTS, SEEDS, CORRUPTED = {"train": 450, "val": 100, "test": 1200}, range(5), 40
SEVERITIES = (1, 2, 3, 4, 5)
METHODS = ("none", "laplace", "tta")
# Networks that are trained for a method have fewer seeds, and so many draws.
FEWER_SEEDS, DRAWS = range(3), 10
Pixels = np.ndarray


def _noisy(pixels: Pixels, level: int, random: np.random.Generator) -> Pixels:
    return pixels + random.normal(0, 12 * level, pixels.shape)


def _occluded(pixels: Pixels, level: int, random: np.random.Generator) -> Pixels:
    size, made = 4 * level, pixels.copy()
    row, column = random.integers(0, 28 - size + 1, size=2)
    made[row : row + size, column : column + size] = 0
    return made


def _coarse(pixels: Pixels, level: int, random: np.random.Generator) -> Pixels:
    every = level + 1
    return np.repeat(np.repeat(pixels[::every, ::every], every, axis=0), every, axis=1)[:28, :28]


CORRUPTIONS: Mapping[str, Callable[[Pixels, int, np.random.Generator], Pixels]] = {
    "noise": _noisy,
    "blur": lambda pixels, level, _: ndimage.gaussian_filter(pixels, 0.6 * level, axes=(0, 1)),
    "motion": lambda pixels, level, _: ndimage.uniform_filter1d(pixels, 2 * level + 1, axis=1),
    "contrast": lambda pixels, level, _: (pixels - pixels.mean()) * (1 - 0.18 * level) + pixels.mean(),
    "brightness": lambda pixels, level, _: pixels + 25 * level,
    "gamma": lambda pixels, level, _: 255 * (pixels / 255) ** (1 + 0.5 * level),
    "coarse": _coarse,
    "occlusion": _occluded,
}


def drawn(source: Path, target: Path) -> dict[str, Pixels]:
    """The parts that are drawn anew, written as the set is."""
    given = np.load(source)
    images, labels = (
        np.concatenate([given[f"{part}_{what}"] for part in ("train", "val")]) for what in ("images", "labels")
    )
    order = np.random.default_rng(0).permutation(len(images))
    parts = np.split(order[: sum(PARTS.values())], np.cumsum(list(PARTS.values()))[:-1])
    made = {f"{name}_images": images[own] for name, own in zip(PARTS, parts, strict=True)}
    made |= {f"{name}_labels": labels[own] for name, own in zip(PARTS, parts, strict=True)}
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savez(target, **made)
    return made


def picture(pixels: Pixels) -> Image:
    whole = np.moveaxis(np.atleast_3d(pixels), -1, 0).clip(0, 255).round().astype(np.uint8)
    names = ("R", "G", "B") if len(whole) == 3 else ()
    return Image(np.ascontiguousarray(whole), Geometry.of_pixels(whole.shape[1:]), channels=names)


def predicted(model: Model, images: Pixels) -> tuple[Pixels, dict[str, Pixels], float]:
    """(cases,) the called class, {kind of doubt: (cases,)}, and seconds a case."""
    pictures = [picture(one.astype(float)) for one in images]
    model.predict(pictures[0])
    began = time.perf_counter()
    made = [model.predict(one) for one in pictures]
    seconds = (time.perf_counter() - began) / len(made)
    called = np.array([int(np.argmax(list((one.probabilities or {}).values()))) for one in made])
    doubts = {name: np.array([getattr(one.confidence, name) for one in made]) for name in ("total", "epistemic")}
    return called, {name: one.astype(float) for name, one in doubts.items() if one[0] is not None}, seconds


def figures(doubt: Pixels, wrong: Pixels) -> dict[str, Estimate]:
    """Error detection and risk-coverage, with their draws."""
    cases, seed = np.arange(len(wrong)), Resampling(0, keeps_draws=True)
    found = intervals.bootstrap_statistic(
        partial(classification.auroc, doubt, wrong > 0), cases, strata=wrong, seed=seed, compares=True
    )
    areas = {
        name: intervals.bootstrap_statistic(partial(figure, doubt, wrong), cases, seed=seed, exact=False)
        for name, figure in (("aurc", uncertainty.aurc), ("excess", uncertainty.excess_aurc))
    }
    return {"detection": found, **areas}


def average(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of figures that were resampled alike, with its draws."""
    assert estimates[0].draws is not None
    means = np.mean([one.draws.figures for one in estimates if one.draws is not None], axis=0)
    value = float(np.mean([one.value for one in estimates]))
    return replace(estimates[0], value=value, draws=replace(estimates[0].draws, figures=means))


def severities(model: Model, images: Pixels) -> dict[str, float]:
    """{corruption: Spearman between its severity and the mean epistemic uncertainty, the clean images among them}"""
    made = {}
    clean = predicted(model, images)[1]["epistemic"].mean()
    for name, corrupt in CORRUPTIONS.items():
        random = np.random.default_rng(0)
        levels = [np.stack([corrupt(one.astype(float), level, random) for one in images]) for level in SEVERITIES]
        means = [clean, *(predicted(model, one)[1]["epistemic"].mean() for one in levels)]
        made[name] = float(stats.spearmanr((0, *SEVERITIES), means).statistic)
    return made


def beside_laplace_torch() -> str:
    """How far our variances of a layer's outputs lie from those of laplace-torch, at its precision of the prior."""
    from laplace import Laplace
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(0)
    layer, inputs = torch.nn.Linear(6, 3), torch.randn(200, 6)
    truth = (inputs @ torch.randn(6, 3) + torch.randn(200, 3)).argmax(dim=1)
    theirs = Laplace(torch.nn.Sequential(layer), "classification", subset_of_weights="all", hessian_structure="kron")
    theirs.fit(DataLoader(TensorDataset(inputs, truth), batch_size=200))
    layers, outputs = LastLayers({"class": layer}, {"class": "classes"}), layer(inputs).detach()
    layers(NetworkFeatures({"class": outputs}, inputs, inputs, {"class": inputs}))
    fitted = layers.fit_posteriors(len(inputs))
    assert fitted is not None
    own = fitted.heads["class"]
    own.precision[:] = float(theirs.prior_precision)
    variances = torch.diagonal(theirs._glm_predictive_distribution(inputs[:20])[1], dim1=1, dim2=2)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((20_000, 3)))
    drawn_ones = torch.stack(own.draws(inputs[:20].double(), outputs[:20].double(), noise)).var(dim=0)
    apart = float((drawn_ones / variances.detach() - 1).abs().max())
    return (
        f"Variances of 20,000 draws lie within {100 * apart:.1f} % of those that laplace-torch computes for the layer."
    )


def measured(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """The figures of a set: rows by method and doubt, what members gain, and severities."""
    out, steps = given.out / name, {"training.steps": given.steps}
    parts = drawn(given.data / "medmnist" / f"{name}mnist.npz", out / f"{name}.npz")
    images, truth = parts["test_images"], parts["test_labels"].ravel().astype(int)
    runs, how = [out / f"seed_{seed}" for seed in SEEDS], {"threads": given.threads, "device": "cpu", "overwrite": True}
    for seed, run in zip(SEEDS, runs, strict=True):
        if not (run / "report.html").is_file():
            isocenter.train(out / f"{name}.npz", out=run, seed=seed, assignments=steps, **how)
    isocenter.ensemble(runs, out=out / "ensemble", weights="equal", **how)
    singles, whole = [isocenter.load(run, "cpu") for run in runs], isocenter.load(out / "ensemble", "cpu")
    methods = {method: [model_assembly.with_uncertainty(one, method) for one in singles] for method in METHODS}
    methods["members"] = [model_assembly.with_uncertainty(whole, "members")]
    totals, rows = dict[str, list[Estimate]](), list[dict[str, Any]]()
    for method, models in methods.items():
        each = []
        for model in models:
            called, doubts, seconds = predicted(model, images)
            wrong = (called != truth).astype(float)
            each.append(({doubt: figures(one, wrong) for doubt, one in doubts.items()}, seconds))
        for doubt in each[0][0]:
            own = [one[doubt] for one, _ in each]
            means = {key: float(np.mean([one[key].value for one in own])) for key in own[0]}
            rows.append({"set": name, "method": method, "doubt": doubt, **means})
            rows[-1]["ms"] = 1000 * float(np.mean([seconds for _, seconds in each]))
            totals.setdefault(method, [one["aurc"] for one in own])
    gains = [intervals.difference(one, totals["members"][0]) for one in totals["none"]]
    gain = intervals.difference(average(totals["none"]), totals["members"][0])
    some = images[:CORRUPTED]
    rising = {method: severities(methods[method][0], some) for method in ("laplace", "members")}
    won = sum(gain.high is not None and gain.high < 0 for gain in gains)
    gained = {"gain": gain.value, "low": gain.low, "high": gain.high, "won": won, "tested": len(truth)}
    return {"rows": rows, **gained, "severity": rising}


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The rows of all sets, and the correlations with severity."""
    lines = ["| set | method | doubt | error detection | AURC | excess AURC | ms a case |", "|---" * 7 + "|"]
    levels = [f"| epistemic | {' | '.join(CORRUPTIONS)} |", "|---" * (len(CORRUPTIONS) + 1) + "|"]
    for name, own in found.items():
        for row in own["rows"]:
            cells = " | ".join(f"{row[key]:.4f}" for key in ("detection", "aurc", "excess"))
            lines.append(f"| {name} | {row['method']} | {row['doubt']} | {cells} | {row['ms']:.1f} |")
        levels += [
            f"| {name}, {method} | {' | '.join(f'{one[key]:.2f}' for key in CORRUPTIONS)} |"
            for method, one in own["severity"].items()
        ]
    why = f"Spearman correlation of severity (0 to 5) with the mean epistemic uncertainty of {CORRUPTED} test pictures:"
    return "\n\n".join(["\n".join(lines), why, "\n".join(levels)])


def taught(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Rows and severities of networks that were trained for a method."""
    out = given.out / name
    parts = drawn(given.data / "medmnist" / f"{name}mnist.npz", out / f"{name}.npz")
    images, truth = parts["test_images"], parts["test_labels"].ravel().astype(int)
    size = dict(isocenter.plan(out / f"{name}.npz", threads=given.threads, device="cpu").plan["network.size"])
    chosen = {"dropout": {"network.dropout": 0.2}, "variational": {"network.size": {**size, "bayesian": True}}}
    rows, rising = list[dict[str, Any]](), dict[str, dict[str, float]]()
    for method, decisions in chosen.items():
        each = []
        for seed in FEWER_SEEDS:
            assignments = {"training.steps": given.steps, "inference.draws": DRAWS, **decisions}
            run, how = out / f"{method}_{seed}", {"threads": given.threads, "device": "cpu", "overwrite": True}
            if not (run / "report.html").is_file():
                isocenter.train(out / f"{name}.npz", out=run, seed=seed, assignments=assignments, **how)
            model = model_assembly.with_uncertainty(isocenter.load(run, "cpu"), method)
            called, doubts, seconds = predicted(model, images)
            wrong = (called != truth).astype(float)
            each.append(({doubt: figures(one, wrong) for doubt, one in doubts.items()}, seconds))
            if seed == 0:
                rising[method] = severities(model, images[:CORRUPTED])
        for doubt in each[0][0]:
            means = {key: float(np.mean([one[doubt][key].value for one, _ in each])) for key in each[0][0][doubt]}
            seconds = float(np.mean([seconds for _, seconds in each]))
            rows.append({"set": name, "method": method, "doubt": doubt, **means, "ms": 1000 * seconds})
    return {"rows": rows, "severity": rising}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=["pneumonia", "retina"])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=ROOT / "uncertainty")
    parser.add_argument("--record", action="store_true", help="write the table to docs/benchmarks")
    parser.add_argument("--taught", action="store_true", help="only networks that are trained for a method; no record")
    given = parser.parse_args()
    if given.taught:
        print(table({name: taught(name, given) for name in given.sets}))
        return
    found = {name: measured(name, given) for name in given.sets}
    about = [f"Means of {len(SEEDS)} networks of {given.steps} steps each."]
    for name, own in found.items():
        about.append(
            f"AURC of five members less the mean AURC of each network alone, {name}, {own['tested']} test pictures: "
            f"{own['gain']:+.4f} ({own['low']:+.4f} to {own['high']:+.4f}, paired by picture); less that of a single "
            f"network its interval lies below 0 for {own['won']} of {len(SEEDS)}."
        )
    peer = beside_laplace_torch() if find_spec("laplace") else ""
    text = "\n\n".join(filter(None, [" ".join(about), table(found), peer]))
    print(text)
    if given.record:
        record("uncertainty", "Methods of uncertainty", text, {"sets": found})


if __name__ == "__main__":
    main()
