"""Windows in prediction that are larger than the patches that the network learnt from: their scores and their time.

    python bench/windows.py --minutes 4 --seeds 0 1 --resume --record

Each set is trained as `isocenter train` does by itself. The cases of its validation and test parts are then predicted
in windows of the training patch and of larger ones, along each axis as far as the median image goes. Differences are
paired by case to the training patch with half of each window shared with the next.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from choices import SETS
from recorded import commit, record
from trainings import ROOT, add_options, keep, kept, trained

import isocenter
from isocenter.files.storage import csv_text
from isocenter.planning import plan_file
from isocenter.reading import ReadingOptions, dataset_reading
from isocenter.runtime import Model
from isocenter.values import Case


def cut(*patch: int) -> Sequence[str]:
    """Words that make patches smaller than the images."""
    names = ("training.patch", "inference.patch", "preprocessing.smallest")
    return [word for name in names for word in ("--set", f"{name}={list(patch)}")]


# Two sets whose images are larger than a patch, and others whose patches are made smaller.
LARGE: Mapping[str, tuple[str, Sequence[str]]] = {
    "vessels": SETS["vessels"],
    "gliomas": SETS["gliomas"],
    "nuclei": ("dsb2018", cut(128, 128)),
    "histology": ("histology", cut(128, 128)),
    "ventricles": ("mri/cardiac_sunnybrook", ("--modality", "MR", *cut(64, 64))),
    "hippocampus": ("hippocampus", ("--modality", "MR", *cut(24, 24, 24))),
}
FACTORS, OVERLAPS = (1.0, 1.25, 1.5, 2.0, 3.0), (0.5, 0.25)


@dataclass(frozen=True)
class Shown:
    """One training. scores, seconds: {windows: of each case}; patch: of the training"""

    problem: str = ""
    metric: str = ""
    patch: Sequence[int] = ()
    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    commit: str = ""


def shown(name: str, seed: int, given: argparse.Namespace) -> Shown:
    """One training, and what its windows bring."""
    key = f"{name}-{seed}"
    if (before := kept(key, given)) is not None:
        return Shown(**before)
    path, words = LARGE[name]
    data = given.data.resolve() / path
    taken = trained(key, [data, *words], seed, given)
    if taken.returncode:
        return Shown(f"failed with exit code {taken.returncode}: see logs/{key}.err")
    one = judged(given.out / key, data)
    keep(key, one, given)
    return one


def judged(run: Path, data: Path) -> Shown:
    """The cases that did not train, in windows of every size."""
    parts = csv_text.read_text_table(run / "split.csv").set_index("case")["split"]
    model, plan = isocenter.load(run), plan_file.read_plan(run / "plan.yaml")
    dataset = dataset_reading.open_dataset(data, ReadingOptions.of_plan(plan.options), needs=model.task.needs)
    cases = [case for case in dataset if parts.get(case.id) in ("val", "test")]
    metric = str(plan["evaluation.primary"])
    scores, seconds = dict[str, list[float]](), dict[str, float]()
    for patch in windows(model, plan["network.size"]["strides"], cases):
        for overlap in OVERLAPS:
            name = f"{' x '.join(map(str, patch))}, {overlap:g}"
            seen = replace(model, inference=replace(model.inference, patch=patch, overlap=overlap))
            seen.predict(cases[0])
            began = time.perf_counter()
            made = [seen.predict(case) for case in cases]
            seconds[name] = (time.perf_counter() - began) / len(cases)
            scores[name] = [score(model, metric, one, case) for one, case in zip(made, cases, strict=True)]
            print(run.name, name, f"{np.nanmean(scores[name]):.4f} {seconds[name]:.2f} s", flush=True)
    return Shown("", metric, model.inference.patch, scores, seconds, commit())


def score(model: Model, metric: str, prediction: isocenter.Prediction, case: Case) -> float:
    """The primary metric of one case, the mean over labels."""
    return float(model.task.score([prediction], [case])[metric].mean())


def windows(model: Model, strides: Sequence[Sequence[int]], cases: Sequence[Case]) -> list[tuple[int, ...]]:
    """The training patch and larger windows, which the network can halve, as far as the median image goes."""
    made, patch = list[tuple[int, ...]](), model.inference.patch
    shapes = [model.preprocessing.open_image(next(iter(case.images.values())), case.id)[0].shape[1:] for case in cases]
    most = np.median(shapes, axis=0)
    whole = [int(np.prod([step[axis] for step in strides])) for axis in range(len(patch))]
    for factor in FACTORS:
        sizes = zip(patch, most, whole, strict=True)
        own = tuple(max(n, int(np.ceil(min(factor * n, size) / step)) * step) for n, size, step in sizes)
        made += [] if own in made else [own]
    return made


def words_of(found: Mapping[str, Sequence[Shown]]) -> str:
    """A line for each set and window."""
    lines = ["| set | window, overlap | trainings | score | difference (SE) | s a case |", "|---" * 6 + "|"]
    for name, runs in found.items():
        first = next(iter(runs[0].scores))
        for window in runs[0].scores:
            own, usual = (np.concatenate([list(run.scores[key]) for run in runs]) for key in (window, first))
            apart = (own - usual)[np.isfinite(own - usual)]
            error = np.std(apart, ddof=1) / np.sqrt(len(apart))
            took = np.mean([run.seconds[window] for run in runs])
            cells = [f"{np.nanmean(own):.4f}", f"{apart.mean():+.4f} ({error:.4f})", f"{took:.2f}"]
            lines.append(f"| {' | '.join([name, window, str(len(runs)), *cells])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--sets", nargs="+", choices=[*LARGE], default=[*LARGE])
    add_options(parser, "windows", minutes=4.0, of="of each training", seeds=(0, 1))
    given = parser.parse_args()
    found = {name: [shown(name, seed, given) for seed in given.seeds] for name in given.sets}
    problems = [f"{name}: {one.problem}" for name, runs in found.items() for one in runs if one.problem]
    whole = {name: runs for name, runs in found.items() if not any(one.problem for one in runs)}
    text = "\n".join([words_of(whole), *problems])
    print(text)
    if given.record:
        title = "Windows larger than the patches that the network learnt from"
        record("windows", title, text, {"sets": {name: [asdict(one) for one in runs] for name, runs in found.items()}})


if __name__ == "__main__":
    main()
