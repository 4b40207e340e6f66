"""Any contrast: registration across contrasts, frames that change, and networks that learn from label maps alone.

    python bench/contrast.py --out DIR --record
    python bench/contrast.py --out DIR --parts learnt --steps 2000

rigid:   T1-like heads on T2-, CT- and PET-like ones, drawn from label maps at 2 mm, moved by up to 30 mm and 20 degrees
apart:   images that cannot be registered: of another organ, of noise, with a tenth of overlap
shared:  the pairs of the shared data: none may end below its start without being refused
frames:  six frames whose contrast changes, one of them empty, still and moved
learnt:  hippocampus, trained on label maps alone and on images; on real images, inverted ones, and dark blurred ones

Cells that have ended are lines of DIR/cells.jsonl, and are not repeated. elastix and ANTs, with mutual information, run
in environments of their own. Volumes of the hippocampus stand for patients; two may be of one person.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nibabel
import numpy as np
from environment import ROOT, PeerError, peer
from matplotlib import pyplot
from recorded import measured_cell, record, row_words
from scipy import ndimage
from scipy.spatial.transform import Rotation

import isocenter
from isocenter.errors import IsocenterError
from isocenter.evaluation import mask_overlap
from isocenter.transforms import spatial_transforms, synthesis
from isocenter.transforms.synthesis import PaintingRanges
from isocenter.values import Affine, Geometry, Image, SpatialTransform

mpl.use("agg")
DATA = ROOT.parent / "shared" / "data"
HEADS, PROSTATE = DATA / "registration" / "brain_labelmaps_synthseg", DATA / "registration" / "prostate_mr_us"
SIDE = ROOT / "bench" / "sides" / "contrast_peer.py"
# Means of white matter, grey matter and fluid; of other tissue a number of its own in each contrast.
CONTRASTS = {"T1": (0.9, 0.6, 0.15), "T2": (0.35, 0.55, 0.95), "CT": (0.5, 0.56, 0.42), "PET": (0.4, 1.0, 0.05)}
WHITE, FLUID = (2, 41, 7, 46, 16, 28, 60), (4, 43, 5, 44, 14, 15, 24)
OUTSIDE = 500
NOISE, STEP = 0.02, 2.0
SHIFT, TURN = 30.0, 20.0
# Pairs that nobody can lay on one another, one kind after the other.
APART = ("another organ", "noise", "a tenth of overlap", "another organ of another kind")
# Volumes that test the trained networks; as many of theirs select.
TESTED, TRAINED = 40, 150

Cells = dict[str, Callable[[], dict[str, Any]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--steps", type=int, default=300, help="of each training, two patches a step")
    parser.add_argument("--pairs", type=int, default=6, help="of drawn heads")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--ended", action="store_true", help="state the cells that have ended, and measure no other")
    parser.add_argument("--pictures", type=Path, help="draw the pictures of docs/how-to/contrast.md into this folder")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.pictures:
        draw_maps(given.pictures / "drawn_from_labels.png")
        draw_fusions(given.pictures / "across_contrasts.png")
        return
    cells: Cells = {}
    for part in given.parts:
        cells |= {f"{part}, {name}": measure for name, measure in PARTS[part](given).items()}
    if given.ended:
        lines_kept = (given.out / "cells.jsonl").read_text().splitlines()
        ended = {json.loads(line)["name"] for line in lines_kept}
        cells = {name: measure for name, measure in cells.items() if name in ended}
    rows = {name: measured_cell(given.out, name, measure) for name, measure in cells.items()}
    lines = [f"| {name} | {row_words(row)} |" for name, row in rows.items()]
    text = "\n".join(["| what | figure |", "|---|---|", *lines])
    print(text)
    if given.record:
        record("contrast", "Any contrast", text, {"rows": rows, "steps": given.steps, "pairs": given.pairs})


def head(number: int) -> tuple[np.ndarray, Geometry]:
    """A label map of a whole head at 2 mm, in RAS+."""
    path = sorted(HEADS.glob("*.nii.gz"))[number]
    image = nibabel.as_closest_canonical(nibabel.load(path))
    labels = np.asarray(image.dataobj)[::2, ::2, ::2].astype(np.int32)
    return labels, Geometry(labels.shape, np.diag([STEP, STEP, STEP, 1.0]))


def painted(labels: np.ndarray, contrast: str, seed: int) -> np.ndarray:
    """The head as an image of this contrast shows it."""
    white, grey, fluid = CONTRASTS[contrast]
    rng = np.random.default_rng([seed, *contrast.encode()])
    others = dict(zip(range(OUTSIDE, OUTSIDE + 64), rng.uniform(0.05, 0.7, 64), strict=True))
    values = np.unique(labels)
    means = [
        0.0 if v == 0 else others.get(v, white if v in WHITE else fluid if v in FLUID else grey)
        for v in values.tolist()
    ]
    image = np.array(means)[np.searchsorted(values, labels)]
    return (ndimage.gaussian_filter(image, 0.7) + rng.normal(0, NOISE, image.shape)).astype(np.float32)


def planted(grid: Geometry, seed: int, share: float = 1.0) -> SpatialTransform:
    """A rigid move about the middle of a grid, of at most 30 mm and 20 degrees."""
    rng = np.random.default_rng(seed)
    axis, middle = rng.normal(size=3), grid.corners.mean(axis=0)
    turn = Rotation.from_rotvec(np.deg2rad(rng.uniform(0, TURN)) * share * axis / np.linalg.norm(axis)).as_matrix()
    direction = rng.normal(size=3)
    shift = rng.uniform(0, SHIFT) * share * direction / np.linalg.norm(direction)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, middle - turn @ middle + shift
    return SpatialTransform((Affine(matrix),), grid, grid)


def rigid(given: argparse.Namespace) -> Cells:
    cells: Cells = {}
    for number in range(given.pairs):
        other = ("T2", "CT", "PET")[number % 3]
        for program in ("Isocenter", "elastix", "ants"):
            cells[f"T1 on {other}, pair {number}, {program}"] = lambda number=number, other=other, program=program: (
                rigid_pair(given.out, number, other, program)
            )
    return cells


def rigid_pair(out: Path, number: int, other: str, program: str) -> dict[str, Any]:
    labels, grid = head(number % 2)
    move = planted(grid, number)
    fixed = Image(painted(labels, "T1", number)[None], grid, "MR")
    modality = {"T2": "MR", "CT": "unknown", "PET": "PT"}[other]
    moved = spatial_transforms.carry_labels(labels, grid, spatial_transforms.invert_transform(move), grid)
    moving = Image(painted(moved, other, number)[None], grid, modality)
    inside = np.argwhere(labels > 0)[::97]
    points = grid.to_world(inside)
    truth = spatial_transforms.carry_points(move, points)
    start = float(np.linalg.norm(truth - points, axis=1).mean())
    began = time.process_time()
    if program == "Isocenter":
        found = isocenter.register(fixed, moving, transform="rigid")
        ends, applied = spatial_transforms.carry_points(found.transform, points), found.registration.applied
        cpu = time.process_time() - began
        error = float(np.linalg.norm(ends - truth, axis=1).mean())
        return {"start mm": start, "error mm": error, "CPU s": cpu, "applied": applied}
    try:
        python = peer(program)
    except PeerError as problem:
        return {"not measured": str(problem)[:80]}
    folder = out / f"pair{number}"
    folder.mkdir(exist_ok=True)
    for name, image in (("fixed", fixed), ("moving", moving)):
        nibabel.save(nibabel.Nifti1Image(image.data[0], grid.affine), folder / f"{name}.nii.gz")
    index = np.moveaxis(np.indices(grid.shape), 0, -1)
    for axis, values in enumerate(np.moveaxis(grid.to_world(index), -1, 0)):
        coordinates = nibabel.Nifti1Image(values.astype(np.float32), grid.affine)
        nibabel.save(coordinates, folder / f"places.npy.{axis}.nii.gz")
    command = [str(python), str(SIDE), program, *(str(folder / f"{one}.nii.gz") for one in ("fixed", "moving"))]
    done = subprocess.run([*command, str(folder / "places.npy")], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1][:80]}
    places = np.load(folder / "places.npy")[:, *inside.T].T
    reached = np.isfinite(places).all(axis=1)
    error = float(np.linalg.norm(places[reached] - truth[reached], axis=1).mean())
    return {"start mm": start, "error mm": error, "CPU s": float(done.stdout.split()[-1])}


def apart(given: argparse.Namespace) -> Cells:
    return {f"pair {number}, {APART[number % 4]}": lambda number=number: left_alone(number) for number in range(20)}


def left_alone(number: int) -> dict[str, Any]:
    """Whether two images that nobody can lay on one another stayed where they were."""
    fixed, moving = apart_pair(number)
    try:
        found = isocenter.register(fixed, moving, transform="rigid").registration
    except IsocenterError as problem:
        return {"left where it was": True, "refused": str(problem)[:80]}
    lies_as_before = np.allclose(found.transform.matrix, found.first_guess.matrix)
    return {"left where it was": bool(found.applied is False or lies_as_before)}


def apart_pair(number: int) -> tuple[Image, Image]:
    rng = np.random.default_rng(number)
    paths = sorted((DATA / "hippocampus" / "images").glob("*.nii.gz"))
    hippocampus = isocenter.read(paths[number])
    kind = APART[number % 4]
    if kind == "noise":
        grid = hippocampus.geometry
        smooth = ndimage.gaussian_filter(rng.normal(size=grid.shape), 2.0).astype(np.float32)
        return Image(hippocampus.data.astype(np.float32), grid, "MR"), Image(smooth[None], grid, "unknown")
    if kind == "a tenth of overlap":
        labels, grid = head(number % 2)
        size = grid.shape[2]
        cut = round(size * 0.55)
        low = Image(
            painted(labels, "T1", number)[None, :, :, :cut], grid.crop((slice(None), slice(None), slice(0, cut))), "MR"
        )
        part = slice(size - cut, size)
        high = Image(painted(labels, "PET", number)[None, :, :, part], Geometry(low.geometry.shape, grid.affine), "PT")
        return low, high
    case = sorted(PROSTATE.glob("*_moving_image.nii.gz"))[number % 10]
    prostate = isocenter.read(case)
    modality = "MR" if kind == "another organ" else "US"
    first = Image(hippocampus.data.astype(np.float32), Geometry(hippocampus.geometry.shape, np.eye(4)), "MR")
    return first, Image(prostate.data[:1].astype(np.float32), Geometry(prostate.geometry.shape, np.eye(4)), modality)


def shared(given: argparse.Namespace) -> Cells:
    names = sorted(path.name.partition("_")[0] for path in PROSTATE.glob("*_fixed_image.nii.gz"))
    return {f"prostate {name}": lambda name=name: prostate_pair(name) for name in names}


def prostate_pair(name: str) -> dict[str, Any]:
    """The gland's Dice at first and after, and whether the result is used."""
    fixed, moving = (isocenter.read(PROSTATE / f"{name}_{side}_image.nii.gz") for side in ("fixed", "moving"))
    glands = []
    for side, image in (("fixed", fixed), ("moving", moving)):
        drawn = np.asarray(nibabel.load(PROSTATE / f"{name}_{side}_label.nii.gz").dataobj)
        gland = (drawn if drawn.ndim == 3 else drawn[..., 0]) > 0
        glands.append(gland.astype(np.uint8)), image
    first, second = replace_modality(fixed, "US"), replace_modality(moving, "MR")
    found = isocenter.register(first, second).registration
    dice = [
        mask_overlap.overlap_of_masks(
            spatial_transforms.carry_labels(glands[1], second.geometry, one, first.geometry) > 0, glands[0] > 0
        ).dice
        for one in (found.first_guess, found.transform)
    ]
    return {"Dice at first": dice[0], "Dice": dice[1], "applied": found.applied}


def replace_modality(image: Image, modality: str) -> Image:
    return Image(image.data[:1].astype(np.float32), image.geometry, modality)


def frames(given: argparse.Namespace) -> Cells:
    return {
        f"{kind}, {motion}": lambda kind=kind, motion=motion: frame_series(kind, motion == "moved")
        for kind in ("b-values", "bolus")
        for motion in ("still", "moved")
    }


def frame_series(kind: str, moves: bool) -> dict[str, Any]:
    """Six frames of a head whose contrast changes, the fourth empty; how far each was laid from where it is."""
    labels, grid = head(0)
    labels = labels[30:-30, 30:-30, 50:-50]
    grid = Geometry(labels.shape, grid.affine)
    rng = np.random.default_rng(0)
    values, shown, truth = np.unique(labels), list[np.ndarray](), list[SpatialTransform]()
    first, decay, arrival = (rng.uniform(low, high, len(values)) for low, high in ((0.3, 1.0), (0.2, 1.5), (0, 4)))
    for number in range(6):
        levels = first * np.exp(-decay * number / 2)
        if kind == "bolus":
            levels = 0.6 * first + 0.5 * decay * np.exp(-((number - arrival) ** 2) / 2)
        levels[0] = 0.0
        move = planted(grid, number, 0.08 if moves and number else 0.0)
        image = ndimage.gaussian_filter(levels[np.searchsorted(values, labels)], 0.7).astype(np.float32)
        back = spatial_transforms.invert_transform(move)
        data = spatial_transforms.carry_image(Image(image[None], grid), back, grid, "cubic").data[0]
        data = np.nan_to_num(data) + rng.normal(0, 0.01, image.shape)
        shown.append(np.zeros_like(image) if number == 3 else data.astype(np.float32))
        truth.append(move)
    made = isocenter.register_frames(Image(np.stack(shown)[None], grid, "MR", times=tuple(map(float, range(6)))))
    points = grid.to_world(np.argwhere(labels > 0)[::97])
    mm, degrees = list[float](), list[float]()
    for number in (1, 2, 4, 5):
        found = made.transforms[number]
        ends = (spatial_transforms.carry_points(one, points) for one in (found, truth[number]))
        mm.append(float(np.linalg.norm(np.subtract(*ends), axis=1).mean()))
        both = found.matrix[:3, :3] @ truth[number].matrix[:3, :3].T
        degrees.append(float(np.degrees(Rotation.from_matrix(both).magnitude())))
    note = str(made.table["note"].iloc[3]) if "note" in made.table else "none"
    return {"largest error mm": max(mm), "largest error degrees": max(degrees), "note of the empty frame": note}


def learnt(given: argparse.Namespace) -> Cells:
    cells: Cells = {}
    for source in ("label maps", "images"):
        cells[f"{source}"] = lambda source=source: trained(given, source)
    return cells


def trained(given: argparse.Namespace, source: str) -> dict[str, Any]:
    """Dice and share refused of volumes that trained nothing, as they are, inverted, and dark and blurred."""
    place = given.out / source.replace(" ", "-")
    shutil.rmtree(place, ignore_errors=True)
    paths = sorted((DATA / "hippocampus" / "images").glob("*.nii.gz"))
    for path in paths[:TRAINED]:
        for folder in ("labels", "images") if source == "images" else ("labels",):
            (place / "data" / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy2(DATA / "hippocampus" / folder / path.name, place / "data" / folder)
    run = isocenter.train(
        place / "data",
        out=place / "run",
        labels="1=anterior,2=posterior",
        device="cpu",
        assignments={"training.steps": given.steps, "training.batch": 2, "training.validations": 3},
    )
    model, figures = isocenter.load(run.out), dict[str, Any]()
    for name, change in CHANGES.items():
        scores, refused = list[float](), 0
        for path in paths[TRAINED : TRAINED + TESTED]:
            image = isocenter.read(path)
            truth = np.asarray(
                nibabel.as_closest_canonical(nibabel.load(DATA / "hippocampus" / "labels" / path.name)).dataobj
            )
            given_image = nibabel.as_closest_canonical(nibabel.load(path))
            shown = Image(
                change(given_image.get_fdata(dtype=np.float32))[None],
                Geometry(truth.shape, given_image.affine),
                image.modality,
            )
            prediction = model.predict(shown)
            refused += prediction.abstained is not None
            marked = np.asarray(prediction.data)
            scores += [mask_overlap.overlap_of_masks(marked == one, truth == one).dice for one in (1, 2)]
        figures |= {f"Dice {name}": float(np.mean(scores)), f"refused {name}": refused / TESTED}
    return {**figures, "steps": run.steps}


def _dark(values: np.ndarray) -> np.ndarray:
    scaled = np.clip(values / np.percentile(values, 99.5), 0, 1)
    return ndimage.gaussian_filter(scaled**3, 1.0).astype(np.float32)


def draw_maps(path: Path) -> None:
    """A label map of the hippocampus, and images that were drawn from it."""
    labels = np.asarray(nibabel.load(sorted((DATA / "hippocampus" / "labels").glob("*.nii.gz"))[0]).dataobj).astype(int)
    ranges = PaintingRanges(intensities=False, thickness=4.0)
    drawn = [synthesis.draw_case(labels[None], (1, 1, 1), ranges, case="picture", draw=draw)[0] for draw in range(11)]
    figure, places = pyplot.subplots(2, 6, figsize=(7.2, 3.0))
    for place, values in zip(places.flat, [labels, *drawn], strict=True):
        place.imshow(values[:, :, values.shape[2] // 2].T, cmap="gray", origin="lower")
        place.axis("off")
    _keep(figure, path)


def draw_fusions(path: Path) -> None:
    """Checkerboards of drawn heads before and after: CT on T1, and PET on CT."""
    labels, grid = head(0)
    figure, places = pyplot.subplots(2, 4, figsize=(7.2, 4.1))
    for row, (first, second) in zip(places, (("T1", "CT"), ("CT", "PET")), strict=True):
        move = planted(grid, 3, 0.6)
        moved = spatial_transforms.carry_labels(labels, grid, spatial_transforms.invert_transform(move), grid)
        fixed = Image(painted(labels, first, 1)[None], grid, {"T1": "MR"}.get(first, "unknown"))
        moving = Image(painted(moved, second, 1)[None], grid, {"PET": "PT"}.get(second, "OT"))
        found = isocenter.register(fixed, moving, transform="rigid")
        shown = (fixed, moving, _checkers(fixed, moving), _checkers(fixed, found.moved))
        for place, one, title in zip(row, shown, (first, second, "before", "after"), strict=True):
            values = one if isinstance(one, np.ndarray) else one.data[0]
            place.imshow(values[:, :, values.shape[2] // 2].T, cmap="gray", origin="lower", vmin=0, vmax=1)
            place.set_title(title, fontsize=8)
            place.axis("off")
    _keep(figure, path)


def _checkers(first: Image, second: Image) -> np.ndarray:
    squares = np.indices(first.geometry.shape)[:2] // 16
    return np.where(squares.sum(axis=0) % 2, first.data[0], np.nan_to_num(second.data[0]))


def _keep(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout(pad=0.3, h_pad=1.2)
    figure.savefig(path, dpi=100, bbox_inches="tight", pad_inches=0.05)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "real": lambda values: values,
    "inverted": lambda values: (values.max() - values).astype(np.float32),
    "gamma 3, blurred": _dark,
}
PARTS: dict[str, Callable[[argparse.Namespace], Cells]] = {
    "rigid": rigid,
    "apart": apart,
    "shared": shared,
    "frames": frames,
    "learnt": learnt,
}

if __name__ == "__main__":
    main()
