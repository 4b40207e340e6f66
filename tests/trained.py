"""Tiny cohorts that a network can be trained on in seconds, and runs on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import PIL.Image
import pytest

import hilum
from hilum.training import _logs
from hilum.training.training_state import Moment
from hilum.verbs.train import Run

# Small enough for seconds; two validations, so that there is a best and a last.
FEW_STEPS: Mapping[str, Any] = {"training.steps": 6, "training.validations": 2, "training.batch": 2}
# Where nobody looks at the steps.
TWO_STEPS: Mapping[str, Any] = {"training.steps": 2, "training.validations": 1, "training.batch": 2}
SMALL_UNET = {"width": 4, "widest": 8, "strides": [[1, 1, 1], [2, 2, 2]]}
SMALL_RESNET = {"width": 4, "blocks": [1, 1], "stem_stride": 1}
LABELS = "1=shell,2=core"
# Columns that `predict` adds to those of a task, and MONAI runs do not have.
OF_THE_GATE = ("gate_p", "abstained")
OF_CERTAINTY = (*OF_THE_GATE, "total", "aleatoric", "epistemic")
# Oblique, anisotropic, and with the first axis running to the left: a wrong turn anywhere shows.
OBLIQUE = np.array(
    [[-1.1, 0.2, 0.0, 30.0], [0.2, 1.1, -0.15, -12.0], [0.0, 0.15, 1.3, 7.0], [0.0, 0.0, 0.0, 1.0]], dtype=np.float64
)


@dataclass(frozen=True)
class Trained:
    """A data set, and the folder of the run on it; tests only read them."""

    data: Path
    out: Path


@contextmanager
def watching(call: Callable[[Moment], object]) -> Iterator[None]:
    """Shows every moment of the trainings within to `call`, as one of their logs; what it raises ends them."""
    with pytest.MonkeyPatch.context() as patch:
        own = SimpleNamespace(add=call, close=lambda: None)
        patch.setattr(_logs, "LOGS", (*_logs.LOGS, lambda out, first, objectives: own))
        yield


def blob(seed: int, shape: tuple[int, int, int] = (16, 16, 16)) -> tuple[np.ndarray, np.ndarray]:
    """A bright ball with a brighter core in noise, and its label map (0, 1, 2)."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(6, 10, size=3)
    away = np.sqrt(sum((grid - c) ** 2 for grid, c in zip(np.indices(shape), centre, strict=True)))
    mask = (away < 5).astype(np.uint8) + (away < 2.5)
    return (100 * mask + rng.normal(0, 10, shape)).astype(np.int16), mask.astype(np.uint8)


def blobs(root: Path, count: int = 12, affine: np.ndarray = OBLIQUE, first: int = 0) -> Path:
    """images/ beside labels/, as NIfTI; nobody says who the patients are."""
    for n in range(count):
        image, mask = blob(first + n)
        for folder, array in (("images", image), ("labels", mask)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nibabel.Nifti1Image(array, affine).to_filename(root / folder / f"case{n:02}.nii.gz")
    return root


def two_channels(root: Path, count: int = 12) -> Path:
    """nnU-Net raw: T1, in which the ball is bright, and T2, in which it is dark."""
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for n in range(count):
        image, mask = blob(n)
        for channel, array in enumerate((image, 300 - image)):
            nibabel.Nifti1Image(array, OBLIQUE).to_filename(root / "imagesTr" / f"case{n:02}_{channel:04}.nii.gz")
        nibabel.Nifti1Image(mask, OBLIQUE).to_filename(root / "labelsTr" / f"case{n:02}.nii.gz")
    described = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "shell": 1, "core": 2},
        "numTraining": count,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(described))
    return root


def pictures(root: Path, count: int = 40, classes: tuple[str, ...] = ("bright", "dark"), first: int = 0) -> Path:
    """A folder a class, of PNG between 20 and 28 pixels a side."""
    for n in range(first, first + count):
        rng = np.random.default_rng(n)
        name = classes[n % len(classes)]
        share = n % len(classes) / (len(classes) - 1)
        level = 60 + 120 * share
        pixels = rng.normal(level, 30, size=rng.integers(20, 29, size=2)).clip(0, 255).astype(np.uint8)
        (root / name).mkdir(parents=True, exist_ok=True)
        pixels[4:10, 4:10] = int(255 * share)
        PIL.Image.fromarray(pixels).save(root / name / f"{n:02}.png")
    return root


def smears(root: Path, count: int = 16, first: int = 0) -> Path:
    """Pictures with one or two bright discs and a square, and their boxes as in Pascal VOC."""
    for n in range(count):
        rng = np.random.default_rng(first + n)
        shape, objects = (24, 32), []
        pixels = rng.normal(60, 8, shape)
        down, across = np.indices(shape) + 0.5
        for name, column in (("disc", 8.0), ("disc", 18.0), ("square", 27.0))[n % 2 :]:
            centre, half = (float(rng.uniform(6, 18)), column), float(rng.uniform(2.5, 4.0))
            away = np.hypot(down - centre[0], across - centre[1])
            if name == "square":
                away = np.maximum(abs(down - centre[0]), abs(across - centre[1]))
            pixels[away < half] = 220 if name == "disc" else 140
            edges = [centre[1] - half + 1, centre[0] - half + 1, centre[1] + half, centre[0] + half]
            parts = zip(("xmin", "ymin", "xmax", "ymax"), edges, strict=True)
            corners = "".join(f"<{key}>{edge:.2f}</{key}>" for key, edge in parts)
            objects.append(f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>")
        root.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"smear{n:02}.png")
        (root / f"smear{n:02}.xml").write_text(f"<annotation>{''.join(objects)}</annotation>")
    return root


def lesions(root: Path, count: int = 24, axes: int = 2, known: int = 3) -> Path:
    """A table of pictures, or volumes, of a ball, bright or dim, with its mask, its class and its size.

    known: of how many of the three a case is known; they change from pair of cases to pair
    """
    rows = ["image,mask,label,size_px,patient"]
    for n in range(count):
        rng = np.random.default_rng(n)
        shape = (24, 24) if axes == 2 else (16, 16, 16)
        away = np.sqrt(sum((g - c) ** 2 for g, c in zip(np.indices(shape), rng.uniform(6, 10, axes), strict=True)))
        inside = away < rng.uniform(3, 6)
        pixels = (40 + (60 + 90 * (n % 2)) * inside + rng.normal(0, 6, shape)).clip(0, 255).astype(np.uint8)
        files = {}
        for folder, array in (("images", pixels), ("masks", inside.astype(np.uint8))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            name = f"{folder}/ball{n:02}{'.png' if axes == 2 else '.nii.gz'}"
            if axes == 2:
                PIL.Image.fromarray(array).save(root / name)
            else:
                nibabel.Nifti1Image(array, np.diag([2.0, 2.0, 2.0, 1.0])).to_filename(root / name)
            files[folder] = name
        cells = [files["masks"], "bright" if n % 2 else "dim", str(inside.sum())]
        known_cells = [cell if (n // 2 + place) % 3 < known else "" for place, cell in enumerate(cells)]
        rows.append(",".join([files["images"], *known_cells, f"p{n}"]))
    (root / "cases.csv").write_text("\n".join(rows))
    return root / "cases.csv"


def answering_all(data: Path, out: Path, **flags: Any) -> Run:
    """A run on `lesions` that segments, classifies and measures at once."""
    given = {"task": "multitask", "column": {"value:size": "size_px"}, "device": "cpu", "threads": 1, **flags}
    step = [1, 1] if ".png" in data.read_text() else [1, 1, 1]
    size = {"width": 4, "widest": 8, "strides": [step, [2 * one for one in step]]}
    given["assignments"] = {**FEW_STEPS, "network.size": size, **given.get("assignments", {})}
    return hilum.train(data, out=out, **given)


def segmenting(data: Path, out: Path, **flags: Any) -> Run:
    """A run on `blobs`."""
    given = {"labels": LABELS, "device": "cpu", "threads": 1, "assignments": {}, **flags}
    stated = {"network.size": SMALL_UNET, "evaluation.margin": 0.25}
    given["assignments"] = {**FEW_STEPS, **stated, **given["assignments"]}
    return hilum.train(data, out=out, **given)


def shifted_balls(root: Path, count: int = 8) -> Path:
    """x_fixed_image beside x_moving_image, with labels: the moving ball lies 2 voxels further along the second axis."""
    root.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        image, mask = blob(n)
        for side, step in (("fixed", 0), ("moving", 2)):
            for kind, array in (("image", image), ("label", mask)):
                moved = nibabel.Nifti1Image(np.roll(array, step, axis=1), OBLIQUE)
                moved.to_filename(root / f"pair{n}_{side}_{kind}.nii.gz")
    return root


def registering(data: Path, out: Path, **flags: Any) -> Run:
    """A run on `shifted_balls`."""
    given = {"labels": LABELS, "task": "registration", "device": "cpu", "threads": 1, "assignments": {}, **flags}
    stated = {"network.size": SMALL_UNET, "task.refine": 10}
    given["assignments"] = {**TWO_STEPS, **stated, **given["assignments"]}
    return hilum.train(data, out=out, **given)


def crossing(data: Path, out: Path) -> Run:
    """A run of three folds on `blobs`."""
    return segmenting(data, out, folds=3)


def classifying(data: Path, out: Path, **flags: Any) -> Run:
    """A run on `pictures`."""
    given = {"device": "cpu", "threads": 1, "assignments": {}, **flags}
    given["assignments"] = {**FEW_STEPS, "network.size": SMALL_RESNET, **given["assignments"]}
    return hilum.train(data, out=out, **given)


def gating(data: Path, out: Path) -> Run:
    """A run of two steps on `pictures`, of so many that it has a gate."""
    return classifying(data, out, assignments=TWO_STEPS)


def detecting(data: Path, out: Path, **flags: Any) -> Run:
    """A run on `smears`."""
    given = {"device": "cpu", "threads": 1, "assignments": {}, **flags}
    size = {"width": 8, "widest": 16, "strides": [[1, 1], [2, 2], [2, 2]]}
    given["assignments"] = {**FEW_STEPS, "network.size": size, **given["assignments"]}
    return hilum.train(data, out=out, **given)


def rows_of(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's summary."""
    rows: list[dict[str, Any]] = json.loads((run / "evaluation" / "summary.json").read_text(encoding="utf-8"))["rows"]
    return rows
