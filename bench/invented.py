"""What enhancements of the hippocampus lose and invent: of filters, and of networks that learnt in three ways.

    python bench/invented.py --out DIR --minutes 2.5 --record

Rician noise of 8 % of the 99th percentile. Filters and networks are judged on the same test volumes of the training by
simulated damage. A network learns by blind spots, and another to erase small spheres: its inputs hold bright spheres
of 3 mm, which its targets lack. The first network is made to erase them by a minimum and a maximum behind it. Cells
that have ended are lines of DIR/cells.jsonl, and are not repeated. Each volume stands for a patient; two may be of one
person.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from environment import ROOT
from recorded import measured_cell, record
from scipy import ndimage

import isocenter
from isocenter.evaluation import case_tables, inserted_spheres
from isocenter.evaluation.inserted_spheres import InsertedSphere
from isocenter.reading import ReadingOptions, dataset_reading
from isocenter.scoring import case_scoring
from isocenter.scoring.auditing import fidelity_audit
from isocenter.scoring.case_scoring import AuditInput, ScoredCases
from isocenter.tasks import Task
from isocenter.transforms import corruptions, image_filters
from isocenter.values import Case, Image, Map, Prediction, Row

DATA = ROOT.parent / "shared" / "data" / "hippocampus" / "images"
NOISE = {"rician": [0.08, 0.08]}
# Of non-local means: strengths in deviations of the noise that are tried on training volumes.
STRENGTHS, TUNED_ON = (0.4, 0.6, 0.8, 1.0, 1.2), 4
# Spheres that a network learns to erase: of each volume so many, by a share of its range.
ERASED, CONTRAST, DIAMETER = 12, 0.3, 3.0
FIGURES = ("psnr", "ssim", "invented_per_litre", "recovery", "recovery_3", "recovery_5", "recovery_8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=2.5, help="of each training")
    parser.add_argument("--volumes", type=int, default=80)
    parser.add_argument("--without", nargs="*", default=(), help="cells that are not measured, by their first words")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    images = given.out / "images"
    write_images(images, given.volumes)
    blind = {"objectives.terms": ["blind_spot"], "task.error_bars": False}
    cells: dict[str, Callable[[], dict[str, Any]]] = {
        "network, simulated damage": lambda: of_network(given, "simulated", images, {}),
        "network taught to erase 3 mm spheres": lambda: of_eraser(given, images),
        "first network behind an opening": lambda: of_opening(given, images),
        "the input": lambda: of_filter(given, images, lambda image: image),
        "non-local means, as `enhance`": lambda: of_filter(given, images, partial(filtered, "nlm")),
        "non-local means, best strength": lambda: of_best(given, images),
        "total variation": lambda: of_filter(given, images, partial(filtered, "tv")),
        "network, blind spots": lambda: of_network(given, "blind", images, blind),
    }
    rows = {
        name: dict.fromkeys((*FIGURES, "seconds"), "not measured")
        if name.startswith(tuple(given.without))
        else measured_cell(given.out, name, measure)
        for name, measure in cells.items()
    }
    head = ["method", "PSNR dB", "SSIM", "invented /l", "recovery", "3 mm", "5 mm", "8 mm", "s"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [
        f"| {name} | {' | '.join(str(row[one]) for one in (*FIGURES, 'seconds'))} |" for name, row in rows.items()
    ]
    text = "\n".join(lines)
    print(text)
    if given.record:
        record("invented", "What enhancements lose and invent", text, {"rows": rows, "minutes": given.minutes})


def write_images(folder: Path, count: int) -> None:
    """Copies of the volumes, a folder of images alone."""
    folder.mkdir(exist_ok=True)
    for path in sorted(DATA.glob("*.nii.gz"))[:count]:
        if not (folder / path.name).is_file():
            (folder / path.name).write_bytes(path.read_bytes())


def stated(rows: list[Row]) -> dict[str, str]:
    """{metric: value with its interval} over all cases."""
    found = {row.metric: row.estimate for row in rows if row.label == "all"}
    return {name: words(found[name].value, found[name].low, found[name].high) for name in FIGURES if name in found}


def words(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.3g}" + ("" if low is None or high is None else f" ({low:.3g} to {high:.3g})")


def trained(given: Any, name: str, data: Path, settings: Mapping[str, Any]) -> Path:
    """The run of a training."""
    out = given.out / f"run_{name}"
    if not (out / "report.html").is_file():
        isocenter.train(
            data,
            out=out,
            task="enhancement",
            minutes=given.minutes,
            threads=1,
            device="cpu",
            overwrite=True,
            assignments={"task.draws": 1, "guard.gate": False, **settings},
        )
    return out


def of_network(given: Any, name: str, images: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    run = trained(given, name, images, {"task.damage": NOISE, **settings})
    summary = json.loads((run / "evaluation" / "summary.json").read_text())
    found = {row["metric"]: row for row in summary["rows"] if row["label"] == "all"}
    return {one: words(*(found[one][key] for key in ("value", "low", "high"))) for one in FIGURES}


def test_cases(given: Any, images: Path) -> tuple[Task, list[Case], list[Case]]:
    """The task of the training by simulated damage, its test cases, and some training cases."""
    run = trained(given, "simulated", images, {"task.damage": NOISE})
    task = isocenter.load(run).task
    settings = {"damage": NOISE, "draws": 1}
    dataset = dataset_reading.open_for_task("enhancement", [images], ReadingOptions(), settings=settings)
    lines = [line.split(",") for line in (run / "split.csv").read_text().splitlines()]
    case, split = lines[0].index("case"), lines[0].index("split")
    parts = {line[case]: line[split] for line in lines[1:]}
    return (
        task,
        [one for one in dataset if parts.get(one.id) == "test"],
        [one for one in dataset if parts.get(one.id) == "train"][:TUNED_ON],
    )


@dataclass(frozen=True)
class Filtering:
    """A filter in the place of a model."""

    change: Callable[[Image], Image]
    task: Task

    def predict(self, case: Case) -> Prediction:
        image = next(iter(case.images.values()))
        return Prediction(image.geometry, maps={"enhanced": Map(self.change(image).data[0])})


def filtered(name: str, image: Image) -> Image:
    return image_filters.filter_image(image, name, name)[0]


def by_patches(strength: float, image: Image) -> Image:
    inside = np.ones(image.geometry.shape, bool)
    values, _ = image_filters.non_local_means(image.data[0].astype(np.float64), inside, image.geometry.steps, strength)
    return image.with_pixels(values[None].astype(np.float32))


def of_filter(given: Any, images: Path, change: Callable[[Image], Image]) -> dict[str, Any]:
    task, cases, _ = test_cases(given, images)
    return stated(list(scored_by(Filtering(change, task), cases).rows))


def of_best(given: Any, images: Path) -> dict[str, Any]:
    """Non-local means with the strength that is best on some training volumes."""
    task, cases, training = test_cases(given, images)
    psnr = {one: psnr_of(Filtering(partial(by_patches, one), task), training) for one in STRENGTHS}
    best = max(psnr, key=psnr.__getitem__)
    row = stated(list(scored_by(Filtering(partial(by_patches, best), task), cases).rows))
    return {**row, "strength": best}


def psnr_of(predictor: Filtering, cases: list[Case]) -> float:
    return float(predictor.task.score([predictor.predict(case) for case in cases], cases)["psnr"].mean())


def scored_by(predictor: Any, cases: list[Case]) -> ScoredCases:
    """The figures of a predictor, with recovery."""
    rows = [row for one in cases for row in predictor.task.score([predictor.predict(one)], [one]).to_dict("records")]
    table = case_tables.case_table([{**row, "split": "test"} for row in rows])
    summary = case_scoring.summarise_table(predictor.task, table, seed=0, patients_known=False)
    scored = ScoredCases(table, summary, task=predictor.task)
    return fidelity_audit.with_recovery(AuditInput(scored, predictor, cases, 0, False))


def of_eraser(given: Any, images: Path) -> dict[str, Any]:
    """A network that learns to take bright spheres of 3 mm away, judged on volumes without any."""
    data = given.out / "spheres"
    for number, path in enumerate(sorted(images.glob("*.nii.gz"))):
        write_spheres(data, path, np.random.default_rng(number))
    run = trained(given, "eraser", data, {"task.error_bars": False})
    _, cases, _ = test_cases(given, images)
    return stated(list(scored_by(isocenter.load(run), cases).rows))


@dataclass(frozen=True)
class Opening:
    """A network made to erase: its answer passes a minimum and a maximum over 4 voxels a side."""

    model: Any
    task: Task

    def predict(self, case: Case) -> Prediction:
        made = self.model.predict(case)
        values = np.asarray(made.maps["enhanced"].data)
        return replace(made, maps={"enhanced": Map(ndimage.grey_opening(values, size=(4,) * values.ndim))})


def of_opening(given: Any, images: Path) -> dict[str, Any]:
    task, cases, _ = test_cases(given, images)
    return stated(list(scored_by(Opening(isocenter.load(given.out / "run_simulated"), task), cases).rows))


def write_spheres(data: Path, path: Path, rng: np.random.Generator) -> None:
    """A noisy volume with spheres, and the clean one without them."""
    clean = isocenter.read(path)
    grid, low_high = clean.geometry, np.quantile(clean.data, [0.01, 0.99])
    contrast = CONTRAST * float(np.diff(low_high)[0])
    centres = [tuple(float(rng.integers(2, size - 2)) for size in grid.shape) for _ in range(ERASED)]
    spheres = [
        InsertedSphere(centre, DIAMETER, contrast * rng.uniform(0.3, 1.4), DIAMETER, CONTRAST) for centre in centres
    ]
    marked = clean.with_pixels(inserted_spheres.insert_spheres(clean.data[0], spheres, grid)[None])
    damage = corruptions.draw_damage(NOISE, seed=0, case=path.name)
    plain = replace(clean, pixels=clean.data.astype(np.float32))
    for folder, image in (("images", damage(marked, plain)), ("targets", plain)):
        target = data / folder / path.name
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            nibabel.Nifti1Image(image.data[0], grid.affine).to_filename(target)


if __name__ == "__main__":
    main()
