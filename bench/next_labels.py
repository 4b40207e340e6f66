"""What to label next: random, uncertain or typical cases, by what a model makes of the same number of labels.

    python bench/next_labels.py --record

A network is trained on the first labels, as the model of a node was. What it sees in each picture is fixed from then
on: a choice is judged by a regression on these features, with the labels so far, on the test part. So the bench says
which labels are worth more to a model that keeps its network; how a network that is trained anew fares is not measured.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from environment import ROOT
from PIL import Image
from recorded import record
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import isocenter
from isocenter.evaluation import classification
from isocenter.monitoring import labelling
from isocenter.monitoring.labelling import METHODS

DATA = ROOT.parent / "shared" / "data" / "medmnist"
SETS, SEEDS = ("pneumonia", "retina"), (0, 1, 2)
POOL, FIRST, ROUNDS, STEPS = 800, 40, (20, 40, 100), 120
SETTINGS = {"network.size": {"width": 32, "blocks": [1, 1, 1], "stem_stride": 1}, "training.batch": 16}
TEXT = (
    "{first} labels at random, and then {rounds} more in rounds, of {pool} pictures; mean AUROC of one class against "
    "the rest on the test part. Features are those of a network that the first labels trained for {steps} steps; the "
    "model of each round is a regression on them. In brackets the difference to `random` of each seed."
)


@dataclass(frozen=True)
class Pictures:
    """What the network of the first labels sees. first: places of those in the pool"""

    pool: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    truths: np.ndarray
    first: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="one seed of one set in 3 steps; nothing is recorded")
    parser.add_argument("--record", action="store_true", help="write the figures into docs/benchmarks")
    given = parser.parse_args()
    sets, seeds, steps = (SETS[:1], SEEDS[:1], 3) if given.smoke else (SETS, SEEDS, STEPS)
    began, rows = time.process_time(), list[dict[str, object]]()
    for name in sets:
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                pictures = _pictures(name, seed, steps, Path(folder))
            for method in METHODS:
                rows += [
                    {"set": name, "seed": seed, "method": method, **one} for one in _rounds(pictures, method, seed)
                ]
    text = _words(pd.DataFrame(rows), steps)
    print(text)
    if given.record and not given.smoke:
        spent = round(time.process_time() - began)
        record("next_labels", "What to label next", text, {"rows": rows, "processor_seconds": spent})


def _pictures(name: str, seed: int, steps: int, folder: Path) -> Pictures:
    archive, rng = np.load(DATA / f"{name}mnist.npz"), np.random.default_rng(seed)
    drawn = rng.permutation(len(archive["train_images"]))[:POOL]
    parts = {"pool": (archive["train_images"][drawn], archive["train_labels"][drawn, 0])}
    parts["test"] = archive["test_images"], archive["test_labels"][:, 0]
    files = {part: [folder / f"{part}_{n:04}.png" for n in range(len(images))] for part, (images, _) in parts.items()}
    for part, (images, _) in parts.items():
        for path, image in zip(files[part], images, strict=True):
            Image.fromarray(image).save(path)
    first = rng.permutation(POOL)[:FIRST]
    labels = parts["pool"][1]
    table = pd.DataFrame([{"image": files["pool"][n], "label": f"class {labels[n]}"} for n in first])
    table.to_csv(folder / "first.csv", index=False)
    run = isocenter.train(
        folder / "first.csv",
        out=folder / "run",
        assignments={"training.steps": steps, **SETTINGS},
        everything=True,
        seed=seed,
        device="cpu",
        threads=1,
    )
    seen = {part: _features(run.out, paths) for part, paths in files.items()}
    return Pictures(seen["pool"], labels, seen["test"], parts["test"][1], first)


def _features(run: Path, files: list[Path]) -> np.ndarray:
    """(pictures, features) what the network sees."""
    table = isocenter.embed(run, [*files], threads=1, device="cpu").table
    columns = [name for name in table if name[0] == "e" and name[1:].isdigit()]
    of_file = {Path(path).name: row for path, row in zip(table["image"], table[columns].to_numpy(float), strict=True)}
    return np.stack([of_file[path.name] for path in files])


def _rounds(pictures: Pictures, method: str, seed: int) -> list[dict[str, float]]:
    """The AUROC after each round."""
    is_labelled = np.zeros(POOL, dtype=bool)
    is_labelled[pictures.first] = True
    found = [{"labels": FIRST, "auroc": _auroc(_fitted(pictures, is_labelled), pictures)}]
    for count in ROUNDS:
        p = _fitted(pictures, is_labelled).predict_proba(pictures.pool)
        entropy = -(p * np.log(p.clip(1e-12))).sum(axis=1)
        chosen = labelling.next_cases(
            count, method, is_labelled, uncertainty=entropy, features=pictures.pool, seed=1000 * seed + count
        )
        is_labelled[[one.case for one in chosen]] = True
        found.append({"labels": int(is_labelled.sum()), "auroc": _auroc(_fitted(pictures, is_labelled), pictures)})
    return found


def _fitted(pictures: Pictures, is_labelled: np.ndarray) -> LogisticRegression:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    return model.fit(pictures.pool[is_labelled], pictures.labels[is_labelled])


def _auroc(model: LogisticRegression, pictures: Pictures) -> float:
    """The mean over the classes that the model knows."""
    p = model.predict_proba(pictures.test)
    return statistics.fmean(
        float(classification.auroc(p[:, n], pictures.truths == label)) for n, label in enumerate(model.classes_)
    )


def _words(rows: pd.DataFrame, steps: int) -> str:
    lines = ["| set | labels | random | uncertainty | typical |", "|---|---|---|---|---|"]
    for (name, labels), own in rows.groupby(["set", "labels"]):
        wide = own.pivot(index="seed", columns="method", values="auroc")
        cells = [f"{wide['random'].mean():.3f}"]
        for method in METHODS[1:]:
            apart = ", ".join(f"{one:+.3f}" for one in wide[method] - wide["random"])
            cells.append(f"{wide[method].mean():.3f} ({apart})")
        lines.append(f"| {name} | {labels} | {' | '.join(cells)} |")
    rounds = ", ".join(map(str, ROUNDS))
    return "\n".join([TEXT.format(first=FIRST, rounds=rounds, pool=POOL, steps=steps), "", *lines])


if __name__ == "__main__":
    main()
