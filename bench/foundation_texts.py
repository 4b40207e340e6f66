"""What texts teach: classes by texts alone after training on simulated reports, and a simulated history as a covariate.

    python bench/foundation_texts.py --out DIR --record

Reports of PneumoniaMNIST's training pictures are SIMULATED from their class: findings and their absence in several
words, and sentences that say nothing of it. The sentences of the test stand in no report, though their words do. The
history is simulated beside simulated pictures: the class is half in either; that of noise says nothing. With --out the
bench resumes: a cell that has ended is a line of DIR/cells.jsonl and is not repeated.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from environment import ROOT
from PIL import Image
from recorded import commit, record
from sklearn.metrics import roc_auc_score

import isocenter

DATA = ROOT.parent / "shared" / "data" / "medmnist" / "pneumoniamnist.npz"
ILL = ("consolidation", "airspace opacity", "an infiltrate", "findings of pneumonia", "patchy opacities", "a pneumonia")
PLACES = ("in the left lower lobe", "in the right lower lobe", "in both lungs", "in the right middle lobe")
SHOWN = (
    "There is {} {}.",
    "{} {}, new.",
    "{} {} is seen.",
    "Signs of infection: {} {}.",
    "{} {} as a sign of infection.",
)
ABSENT = ("No {}.", "There is no {}.", "No evidence of {}.", "Without {}.", "{}: none.", "No sign of infection, no {}.")
CLEAR = ("The lungs are clear.", "Both lungs are normal.", "Clear lungs without focal opacity.", "Normal chest.")
ANYONE = ("Heart size is normal.", "No effusion.", "The bones are normal.", "Frontal view.", "No pneumothorax.",
          "The mediastinum is not enlarged.", "Seen at the bedside.", "Compared with an earlier image.")  # fmt: skip
CLASSES = {"normal": ["no sign of pneumonia"], "pneumonia": ["pneumonia is present"]}
RESNET = {"width": 32, "blocks": [2, 2, 2], "stem_stride": 1}
SMALL = {"width": 8, "blocks": [1, 1, 1], "stem_stride": 1}
SICK = ("cough and fever since a few days", "short of breath with fever", "green sputum and a high temperature")
WELL = ("routine control before surgery", "check before a new employment", "control after a fracture of the arm")
CASES, STEPS = 1000, 300
ASKED = {"auroc": 0.93, "negation": 0.9, "tells": 0.0, "noise": -0.005}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="keep the runs here, and go on after the cells that have ended")
    parser.add_argument("--only", nargs="+", help="cells: tells, noise, zero-shot-0, ...")
    parser.add_argument("--minutes", type=float, default=6.0, help="of each draw of zero-shot")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--record", action="store_true", help="write the figures into docs/benchmarks")
    given = parser.parse_args()
    out = (given.out or Path(tempfile.mkdtemp())).resolve()
    out.mkdir(parents=True, exist_ok=True)
    cells: dict[str, Callable[[], Mapping[str, Any]]] = {
        name: lambda name=name: history(out, name) for name in HISTORIES
    }
    for draw in range(given.draws):
        cells[f"zero-shot-{draw}"] = lambda draw=draw: zero_shot(out, draw, given.minutes)
    kept = out / "cells.jsonl"
    done = {one["cell"]: one for one in map(json.loads, kept.read_text().splitlines())} if kept.is_file() else {}
    for name, measure in cells.items():
        if name in done or (given.only and name not in given.only):
            continue
        done[name] = {"cell": name, **measure(), "commit": commit()}
        with kept.open("a") as file:
            file.write(json.dumps(done[name]) + "\n")
    text = words(done)
    print(text)
    if given.record:
        record(
            "foundation_texts", "Reports that teach, and a history as a covariate", text, {"cells": [*done.values()]}
        )


def report_of(is_ill: bool, drawn: np.random.Generator) -> str:
    """A simulated report: one or two sentences of the class, and up to two of anybody."""
    capital = lambda text: text[0].upper() + text[1:]  # noqa: E731 - one expression
    own = []
    for _ in range(int(drawn.integers(1, 3))):
        finding = str(drawn.choice(ILL))
        if is_ill:
            own.append(str(drawn.choice(SHOWN)).format(finding, drawn.choice(PLACES)))
        elif drawn.random() < 0.4:
            own.append(str(drawn.choice(CLEAR)))
        else:
            own.append(str(drawn.choice(ABSENT)).format(finding.removeprefix("an ").removeprefix("a ")))
    own += [str(one) for one in drawn.choice(ANYONE, int(drawn.integers(0, 3)), replace=False)]
    return " ".join(capital(own[place]) for place in drawn.permutation(len(own)))


def zero_shot(out: Path, draw: int, minutes: float) -> dict[str, Any]:
    """AUROC on the test pictures, and how often the negated text lies nearer to a normal one."""
    arrays, folder = np.load(DATA), out / f"reports-{draw}"
    if not folder.exists():
        folder.mkdir()
        drawn, rows = np.random.default_rng(draw), []
        for n, (picture, label) in enumerate(zip(arrays["train_images"], arrays["train_labels"].ravel(), strict=True)):
            Image.fromarray(picture).save(folder / f"{n}.png")
            rows.append({"file": f"{n}.png", "patient": f"person{n}", "report": report_of(bool(label), drawn)})
        pd.DataFrame(rows).to_csv(folder / "reports.csv", index=False)
    run = isocenter.pretrain(
        [folder / "reports.csv"], column="image=file,text=report,patient=patient", objective="image_text",
        minutes=minutes, seed=draw, everything=True, out=out / f"run-{draw}", overwrite=True, modality="DX",
        assignments={"network.size": RESNET, "training.batch": 64}, device="cpu", threads=1,
    )  # fmt: skip
    (out / "classes.json").write_text(json.dumps(CLASSES))
    package = out / f"package-{draw}"
    isocenter.adopt(run.out, classes=out / "classes.json", out=package, overwrite=True, backends=())
    model = isocenter.load(package, device="cpu")
    (out / "test").mkdir(exist_ok=True)
    logits = []
    for n, picture in enumerate(arrays["test_images"]):
        Image.fromarray(picture).save(out / "test" / f"{n}.png")
        image, _ = model.preprocessing(isocenter.read(out / "test" / f"{n}.png"), str(n))
        logits.append(model.networks.run(image[None])["class"][0])
    normal, ill = np.array(logits).T
    truth = arrays["test_labels"].ravel().astype(bool)
    steps = len(pd.read_csv(run.out / "log.csv"))
    return {"auroc": float(roc_auc_score(truth, ill - normal)), "negation": float(roc_auc_score(~truth, normal)),
            "steps": int(run.steps), "logged": steps, "minutes": minutes}  # fmt: skip


HISTORIES = ("tells", "noise")


def history(out: Path, kind: str) -> dict[str, Any]:
    """What a history adds to the images on the test cases: difference of AUROC with its interval."""
    folder, drawn, rows = out / f"history-{kind}", np.random.default_rng(0), []
    folder.mkdir(exist_ok=True)
    for n in range(CASES):
        seen, heard = drawn.normal(size=2)
        pixels = drawn.normal(100 + 12 * seen, 20, (32, 32)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.png")
        says_ill = (heard if kind == "tells" else drawn.normal()) > 0
        when = drawn.choice(["morning", "night"])
        text = f"{drawn.choice(SICK if says_ill else WELL)}, asked by ward {drawn.integers(9)} in the {when}"
        rows.append({"file": f"{n}.png", "label": "ill" if seen + heard > 0 else "well", "history": text})
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    run = isocenter.train(
        folder / "table.csv", layout="manifest", column="image=file,label=label", covariates=["history"],
        positive="ill", minutes=10, out=out / f"run-{kind}", overwrite=True, device="cpu", threads=1,
        assignments={"network.size": SMALL, "training.steps": STEPS, "training.validations": 4},
    )  # fmt: skip
    added = json.loads((run.out / "evaluation" / "covariates.json").read_text())["added"]["to the images"]
    [row] = [one for one in added if (one["metric"], one["label"]) == ("auroc", "all")]
    return {"value": row["value"], "low": row["low"], "high": row["high"], "steps": STEPS}


def words(done: Mapping[str, Mapping[str, Any]]) -> str:
    """The cells as a table."""
    lines = ["| measure | asked | measured | reached |", "|---|---|---|---|"]
    for name, what, key in (("tells", "interval above 0", "low"), ("noise", "at least -0.005", "value")):
        if one := done.get(name):
            is_reached = one[key] > 0 if name == "tells" else one[key] >= ASKED["noise"]
            found = f"{one['value']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f})"
            lines.append(f"| history that {'tells half of the class' if name == 'tells' else 'is noise'}: AUROC beyond "
                         f"the images alone | {what} | {found} | {'yes' if is_reached else 'no'} |")  # fmt: skip
    for name, one in sorted(done.items()):
        if name.startswith("zero-shot"):
            for key, what in (
                ("auroc", "AUROC of classes by texts"),
                ("negation", "pairs where 'no sign of pneumonia' is nearer to the normal picture"),
            ):
                is_reached = "yes" if one[key] >= ASKED[key] else "no"
                lines.append(f"| PneumoniaMNIST, draw {name[-1]}, {one['minutes']:g} minutes, {one['steps']} steps: "
                             f"{what} | {ASKED[key]:g} | {one[key]:.3f} | {is_reached} |")  # fmt: skip
    about = (
        "Reports are simulated from the class of each training picture, so that these figures say what the method can "
        "learn, and nothing of reports of a hospital. No published weights were tried: none is here."
    )
    return "\n".join([*lines, "", about])


if __name__ == "__main__":
    main()
