"""Any contrast: registration across contrasts, frames that change, and networks that learn from label maps alone.

    python bench/contrast.py --out DIR --record
    python bench/contrast.py --out DIR --parts rigid warp --only Hilum

rigid:   T1-like heads on T2-, CT- and PET-like ones, painted from label maps at 2 mm, moved by up to 30 mm and 20°
warp:    the same heads through smooth fields of up to 8 mm, registered with a field
apart:   images that cannot be registered: of another organ, of noise, with a tenth of overlap
shared:  the pairs of the shared data: none may end below its start without being refused
frames:  six frames whose contrast changes, one of them empty, still and moved
learnt:  hippocampus, trained on label maps alone and on images; on real images, inverted ones, and dark blurred ones
pairs:   registration trained on painted pairs and on images, and optimised; on real and inverted moving images

Cells that have ended are lines of DIR/cells.jsonl, and are not repeated. elastix and ANTs, with mutual information, run
in environments of their own. Volumes of the hippocampus stand for patients; two may be of one person.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nibabel
import numpy as np
import pandas as pd
import torch
from environment import ROOT, PeerError, peer
from matplotlib import pyplot
from recorded import measured_cell, record, row_words
from scipy import ndimage
from scipy.spatial.transform import Rotation

import hilum
import registration
from hilum.errors import HilumError
from hilum.evaluation import mask_overlap
from hilum.reading import image_pairs
from hilum.runtime import Model, ModelRequest
from hilum.transforms import painting, spatial_transforms
from hilum.transforms.painting import PaintingRanges
from hilum.values import Affine, Displacement, Geometry, Image, SpatialTransform

mpl.use("agg")
DATA = ROOT.parent / "shared" / "data"
HEADS, PROSTATE = DATA / "registration" / "brain_labelmaps_synthseg", DATA / "registration" / "prostate_mr_us"
HIPPOCAMPUS, PAIRS = DATA / "hippocampus", DATA / "registration" / "hippocampus_pairs.csv"
SIDE = ROOT / "bench" / "sides" / "contrast_peer.py"
# Means of white matter, grey matter and fluid; of other tissue a number of its own in each contrast.
CONTRASTS = {"T1": (0.9, 0.6, 0.15), "T2": (0.35, 0.55, 0.95), "CT": (0.5, 0.56, 0.42), "PET": (0.4, 1.0, 0.05)}
WHITE, FLUID = (2, 41, 7, 46, 16, 28, 60), (4, 43, 5, 44, 14, 15, 24)
CONTRASTS_OF_OTHERS = ("T2", "CT", "PET")
OUTSIDE = 500
NOISE, STEP = 0.02, 2.0
SHIFT, TURN = 30.0, 20.0
# mm of the longest way of a warp, and its smoothness.
LONGEST, SMOOTH = 8.0, 14.0
# Heads with a warp, heads that ANTs sees, pairs that nobody can register, and hippocampus pairs for registration.
WARPS, OF_ANTS, OF_APART, OF_PAIRS = 4, 4, 40, 12
# mm from the truth up to which a pair that was moved is right.
RIGHT = 1.0
# Pairs that nobody can lay on one another, one kind after the other.
APART = ("another organ", "noise", "a tenth of overlap", "another organ of another kind")
# Slices of heads that are laid on r16, and one of a CT.
PICTURES = ("r64", "r27", "r30", "CT head")
# Volumes that test the trained networks; as many of theirs select.
TESTED, TRAINED = 40, 150
# What networks learn from, and how many minutes of one thread each has; a network that registers has MINUTES.
SOURCES = (("label maps", 10.0), ("images", 10.0), ("label maps", 12.0))
MINUTES = 10.0

Change = Callable[[np.ndarray], np.ndarray]
Cells = dict[str, Callable[[], dict[str, Any]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--only", default="", metavar="PATTERN", help="cells whose name has this regular expression")
    parser.add_argument("--pairs", type=int, default=20, help="of painted heads")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--ended", action="store_true", help="state the cells that have ended, and measure no other")
    parser.add_argument("--pictures", type=Path, help="draw the pictures of docs/how-to/contrast.md into this folder")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if given.pictures:
        draw_maps(given.pictures / "painted_from_labels.png")
        draw_fusions(given.pictures / "across_contrasts.png")
        return
    cells: Cells = {}
    for part in given.parts:
        cells |= {f"{part}, {name}": measure for name, measure in PARTS[part](given).items()}
    cells = {name: measure for name, measure in cells.items() if re.search(given.only, name)}
    if given.ended:
        lines_kept = (given.out / "cells.jsonl").read_text().splitlines()
        ended = {json.loads(line)["name"] for line in lines_kept}
        cells = {name: measure for name, measure in cells.items() if name in ended}
    rows = {name: measured_cell(given.out, name, measure) for name, measure in cells.items()}
    text = summary(rows)
    print(text)
    if given.record:
        record("contrast", "Any contrast", text, {"rows": rows, "pairs": given.pairs})


def summary(rows: dict[str, dict[str, Any]]) -> str:
    """A line a kind of cell: its figures where it is one, what many of one kind have together where they are more."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for name, row in rows.items():
        kinds.setdefault(re.sub(r",? (pair \d+|case\d+)", "", name), []).append(row)
    lines = [f"| {kind} | {len(own)} | {row_words(together(own))} |" for kind, own in kinds.items()]
    return "\n".join(["| what | cases | figure |", "|---|---|---|", *lines])


def together(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each figure median, least and most; of each answer of yes or no how many are yes."""
    table = pd.DataFrame(rows).drop(columns=["seconds", "day"], errors="ignore")
    if "Dice at first" in table:
        table["change of Dice"] = table["Dice"] - table["Dice at first"]
    if len(table) == 1:
        return {str(name): value for name, value in table.iloc[0].items()}
    words: dict[str, Any] = {}
    for name, values in table.items():
        known = values.dropna()
        if known.map(lambda one: isinstance(one, bool)).all():
            words[str(name)] = f"{int(known.sum())} of {len(known)}"
        elif pd.api.types.is_numeric_dtype(values):
            words[str(name)] = f"{known.median():.3g} ({known.min():.3g} to {known.max():.3g})"
        else:
            words[str(name)] = f"in {len(known)}"
    if "error mm" in table and "after / before" not in table:
        words["within 1 mm"] = f"{int((table['error mm'] <= RIGHT).sum())} of {len(table)}"
    return words


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
    programs = [("Hilum", "elastix", "ants")[: 3 if number < OF_ANTS else 2] for number in range(given.pairs)]
    return head_cells(given.out, "rigid", programs, CONTRASTS_OF_OTHERS)


def warp(given: argparse.Namespace) -> Cells:
    programs = [("Hilum", "elastix")[: 2 if number < 2 else 1] for number in range(WARPS)]
    return head_cells(given.out, "deformable", programs, CONTRASTS_OF_OTHERS[:2])


def head_cells(out: Path, kind: str, programs: list[tuple[str, ...]], others: tuple[str, ...]) -> Cells:
    """A cell for each program of each pair; the pairs take the contrasts of the moving image in turn."""
    return {
        f"T1 on {other}, pair {number}, {program}": partial(head_pair, out, number, other, program, kind)
        for number, (own, other) in enumerate(zip(programs, cycle(others), strict=False))
        for program in own
    }


def bent(grid: Geometry, seed: int) -> SpatialTransform:
    """A smooth field of at most 8 mm, which ends at the edges of a grid."""
    rng = np.random.default_rng(seed)
    field = np.stack([ndimage.gaussian_filter(rng.normal(size=grid.shape), SMOOTH / STEP) for _ in range(3)])
    for axis, size in enumerate(grid.shape):
        fade = np.minimum(np.minimum(np.arange(size), np.arange(size)[::-1]) * STEP / SMOOTH, 1)
        field *= fade.reshape([-1 if one == axis else 1 for one in range(3)])
    field *= LONGEST / np.linalg.norm(field, axis=0).max()
    return SpatialTransform((Displacement(field.astype(np.float32), grid),), grid, grid)


def head_pair(out: Path, number: int, other: str, program: str, kind: str) -> dict[str, Any]:
    """A T1-like head laid on itself as another contrast shows it elsewhere: mm over the head, before and after."""
    labels, grid = head(number % 2)
    move = planted(grid, number) if kind == "rigid" else bent(grid, number)
    fixed = Image(painted(labels, "T1", number)[None], grid, "MR")
    modality = {"T2": "MR", "CT": "unknown", "PET": "PT"}[other]
    moved = spatial_transforms.carry_labels(labels, grid, spatial_transforms.invert_transform(move), grid)
    moving = Image(painted(moved, other, number)[None], grid, modality)
    inside = np.argwhere(labels > 0)[::97]
    points = grid.to_world(inside)
    truth = spatial_transforms.carry_points(move, points)
    start = float(np.linalg.norm(truth - points, axis=1).mean())
    more: dict[str, Any] = {}
    if program == "Hilum":
        began = time.process_time()
        found = hilum.register(fixed, moving, transform=kind)
        more = {"CPU s": time.process_time() - began, "applied": found.registration.applied}
        ends = spatial_transforms.carry_points(found.transform, points)
    else:
        try:
            places, more["CPU s"] = by_peer(program, kind, fixed, moving, out / f"{kind}{number}")
        except PeerError as problem:
            return {"not measured": str(problem)[:80]}
        ends = places[:, *inside.T].T
    reached = np.isfinite(ends).all(axis=1)
    error = float(np.linalg.norm(ends[reached] - truth[reached], axis=1).mean())
    share = {"after / before": error / start} if kind == "deformable" else {}
    return {"start mm": start, "error mm": error, **share, **more}


def by_peer(program: str, kind: str, fixed: Image, moving: Image, folder: Path) -> tuple[np.ndarray, float]:
    """Where a peer lays each voxel of the fixed image, (3, *spatial) mm in the moving one, and its processor seconds.

    Raises PeerError where it cannot be made ready, or fails.
    """
    python = peer(program)
    folder.mkdir(exist_ok=True)
    grid = fixed.geometry
    for name, image in (("fixed", fixed), ("moving", moving)):
        nibabel.save(nibabel.Nifti1Image(image.data[0], grid.affine), folder / f"{name}.nii.gz")
    index = np.moveaxis(np.indices(grid.shape), 0, -1)
    for axis, values in enumerate(np.moveaxis(grid.to_world(index), -1, 0)):
        coordinates = nibabel.Nifti1Image(values.astype(np.float32), grid.affine)
        nibabel.save(coordinates, folder / f"places.npy.{axis}.nii.gz")
    files = [str(folder / one) for one in ("fixed.nii.gz", "moving.nii.gz", "places.npy")]
    done = subprocess.run([str(python), str(SIDE), program, kind, *files], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerError(done.stderr.strip().splitlines()[-1])
    return np.load(folder / "places.npy"), float(done.stdout.split()[-1])


def apart(given: argparse.Namespace) -> Cells:
    return {f"pair {number}, {APART[number % 4]}": partial(left_alone, number) for number in range(OF_APART)}


def left_alone(number: int) -> dict[str, Any]:
    """Whether images that nobody can lay on one another were left; moved is right only within 1 mm of a known truth."""
    fixed, moving, truth = apart_pair(number)
    try:
        found = hilum.register(fixed, moving, transform="rigid").registration
    except HilumError as problem:
        return {"left": True, "moved and right": False, "moved and wrong": False, "refused": str(problem)[:80]}
    points = fixed.geometry.to_world(np.argwhere(fixed.data[0] > np.median(fixed.data))[::97])
    ends, starts = (spatial_transforms.carry_points(one, points) for one in (found.transform, found.first_guess))
    left = found.applied is False or np.allclose(ends, starts)
    off = [float(np.linalg.norm(one - points - truth, axis=1).mean()) for one in (starts, ends)]
    known = {} if np.isnan(truth).any() else {"mm off at first": off[0], "mm off": off[1]}
    right = not left and off[1] <= RIGHT
    return {"left": bool(left), "moved and right": right, "moved and wrong": not left and not right, **known}


def apart_pair(number: int) -> tuple[Image, Image, np.ndarray]:
    """The images of a pair, and the shift in mm from the fixed one to the moving one: NaN where there is none."""
    rng, kind, nowhere = np.random.default_rng(number), APART[number % 4], np.full(3, np.nan)
    hippocampus = hilum.read(sorted((HIPPOCAMPUS / "images").glob("*.nii.gz"))[number])
    values, grid = hippocampus.data.astype(np.float32), hippocampus.geometry
    if kind == "noise":
        smooth = ndimage.gaussian_filter(rng.normal(size=grid.shape), 2.0).astype(np.float32)
        return Image(values, grid, "MR"), Image(smooth[None], grid, "unknown"), nowhere
    if kind == "a tenth of overlap":
        labels, grid = head(number % 2)
        cut = round(grid.shape[2] * 0.55)
        low, high = painted(labels, "T1", number)[..., :cut], painted(labels, "PET", number)[..., -cut:]
        slab = Geometry(low.shape, grid.affine)
        return (
            Image(low[None], slab, "MR"),
            Image(high[None], slab, "PT"),
            np.array([0, 0, -STEP * (grid.shape[2] - cut)]),
        )
    prostate = hilum.read(sorted(PROSTATE.glob("*_moving_image.nii.gz"))[number % 10]).data[:1].astype(np.float32)
    fixed, moving = (Geometry(one.shape[1:], np.eye(4)) for one in (values, prostate))
    return Image(values, fixed, "MR"), Image(prostate, moving, "MR" if kind == "another organ" else "US"), nowhere


def shared(given: argparse.Namespace) -> Cells:
    names = sorted(path.name.partition("_")[0] for path in PROSTATE.glob("*_fixed_image.nii.gz"))
    prostates = {f"prostate {name}": partial(prostate_pair, name) for name in names}
    pictures = {f"picture {name}": partial(picture_pair, name) for name in PICTURES}
    hippocampi = {
        f"hippocampus, pair {number}": partial(by_optimisation, pair, "auto", CHANGES["real"])
        for number, pair in enumerate(pd.read_csv(PAIRS).itertuples())
    }
    return prostates | pictures | hippocampi


def picture_pair(name: str) -> dict[str, Any]:
    """Mean Dice of tissues, or of the head, as the pictures lie at first and after."""
    if name == "CT head":
        folder, sides = DATA / "registration" / "ct2d_head_elastix", ("fixed", "moving")
        files = [[folder / f"CT_2D_head_{side}{kind}.mha" for side in sides] for kind in ("", "_mask")]
    else:
        folder, sides = DATA / "registration" / "brain2d_ants", ("r16", name)
        files = [[folder / f"{side}{ending}" for side in sides] for ending in (".jpg", "_tissue3.png")]
    (fixed, moving), (true, labels) = ([hilum.read(path) for path in pair] for pair in files)
    began = time.process_time()
    found = hilum.register(fixed, moving).registration
    row: dict[str, Any] = {"CPU s": time.process_time() - began, "applied": str(found.applied)}
    for when, one in (("Dice at first", found.first_guess), ("Dice", found.transform)):
        moved = spatial_transforms.carry_labels(labels.data[0], moving.geometry, one, fixed.geometry)
        values = [value for value in np.unique(true.data) if value]
        overlaps = [mask_overlap.overlap_of_masks(moved == value, true.data[0] == value).dice for value in values]
        row[when] = float(np.mean(overlaps))
    return row


def prostate_pair(name: str) -> dict[str, Any]:
    """The gland's Dice at first and after, and whether the result is used."""
    fixed, moving = (hilum.read(PROSTATE / f"{name}_{side}_image.nii.gz") for side in ("fixed", "moving"))
    glands = []
    for side, image in (("fixed", fixed), ("moving", moving)):
        label_map = np.asarray(nibabel.load(PROSTATE / f"{name}_{side}_label.nii.gz").dataobj)
        gland = (label_map if label_map.ndim == 3 else label_map[..., 0]) > 0
        glands.append(gland.astype(np.uint8)), image
    first, second = replace_modality(fixed, "US"), replace_modality(moving, "MR")
    found = hilum.register(first, second).registration
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
        f"{kind}, {motion}": partial(frame_series, kind, motion == "moved")
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
    made = hilum.register_frames(Image(np.stack(shown)[None], grid, "MR", times=tuple(map(float, range(6)))))
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
    return {f"{source}, {minutes:g} minutes": partial(trained, given, source, minutes) for source, minutes in SOURCES}


def trained(given: argparse.Namespace, source: str, minutes: float) -> dict[str, Any]:
    """Dice and share refused of volumes that trained nothing, as they are, inverted, and dark and blurred."""
    place, figures = given.out / f"{source.replace(' ', '-')}-{minutes:g}", dict[str, Any](minutes=minutes)
    paths = sorted((HIPPOCAMPUS / "images").glob("*.nii.gz"))
    if not (place / "run" / "report.html").is_file():
        shutil.rmtree(place, ignore_errors=True)
        for path in paths[:TRAINED]:
            for folder in ("labels", "images") if source == "images" else ("labels",):
                (place / "data" / folder).mkdir(parents=True, exist_ok=True)
                shutil.copy2(HIPPOCAMPUS / folder / path.name, place / "data" / folder)
        words = {"labels": "1=anterior,2=posterior", "device": "cpu", "minutes": minutes, "threads": 1}
        figures["steps"] = hilum.train(place / "data", out=place / "run", **words).steps
    model = hilum.load(place / "run")
    for name, change in CHANGES.items():
        scores, refused = list[float](), 0
        for path in paths[TRAINED : TRAINED + TESTED]:
            image = hilum.read(path)
            truth = np.asarray(nibabel.as_closest_canonical(nibabel.load(HIPPOCAMPUS / "labels" / path.name)).dataobj)
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
    return figures


def pairs(given: argparse.Namespace) -> Cells:
    listed = pd.read_csv(PAIRS).head(OF_PAIRS)
    trained_on = {"painted pairs": {"augmentation.painting": 1}, "images": dict[str, Any]()}
    return {
        f"trained on {source}": partial(by_network, given, listed, source, by_hand)
        for source, by_hand in trained_on.items()
    } | {
        f"{similarity} optimised, {name}, pair {number}": partial(by_optimisation, pair, similarity, CHANGES[name])
        for number, pair in enumerate(listed.itertuples())
        for name in ("real", "inverted")
        for similarity in ("mi", "mind")
    }


def by_network(
    given: argparse.Namespace, listed: pd.DataFrame, source: str, by_hand: dict[str, Any]
) -> dict[str, float]:
    """Mean Dice of both labels by a network that never saw these volumes, without and with refinement."""
    model = registering_network(given.out / f"registration-{source.replace(' ', '-')}", by_hand)
    figures = {
        f"Dice {name}{', refined' * refined}": float(
            np.mean([answered_dice(model, pair, CHANGES[name], refined) for pair in listed.itertuples()])
        )
        for refined in (False, True)
        for name in ("real", "inverted")
    }
    return {**figures, "pairs": len(listed), "minutes": MINUTES}


def registering_network(home: Path, by_hand: dict[str, Any]) -> Model:
    """A network that learnt to register from the volumes that are in no pair, with these decisions by hand."""
    if not (home / "run" / "report.html").is_file():
        shutil.rmtree(home, ignore_errors=True)
        in_pairs = pd.read_csv(PAIRS)
        for path in sorted((HIPPOCAMPUS / "images").glob("*.nii.gz")):
            if path.name not in {*in_pairs.fixed, *in_pairs.moving}:
                for folder in ("images", "labels"):
                    (home / "data" / folder).mkdir(parents=True, exist_ok=True)
                    shutil.copy2(HIPPOCAMPUS / folder / path.name, home / "data" / folder)
        hilum.train(
            home / "data",
            task="registration",
            out=home / "run",
            device="cpu",
            minutes=MINUTES,
            threads=1,
            assignments=by_hand,
        )
    return hilum.load(home / "run")


def opened_pair(pair: Any, change: Change) -> tuple[Image, Image]:
    """The images of a row of the list, the moving one changed."""
    fixed, moving = (hilum.read(HIPPOCAMPUS / "images" / one) for one in (pair.fixed, pair.moving))
    return fixed, moving.with_pixels(change(moving.data))


def moved_dice(pair: Any, transform: SpatialTransform, fixed: Image, moving: Image) -> float:
    """Mean Dice of both labels of the moving image on the fixed one."""
    labels = hilum.read(HIPPOCAMPUS / "labels" / pair.moving).data[0]
    moved = spatial_transforms.carry_labels(labels, moving.geometry, transform, fixed.geometry)
    return float(np.mean(list(registration.scored(HIPPOCAMPUS, pair.fixed, moved).values())))


def answered_dice(model: Model, pair: Any, change: Change, refined: bool) -> float:
    fixed, moving = opened_pair(pair, change)
    case = image_pairs.pair_of_images(fixed, moving, pair.fixed, one_world=False)
    transform = model.predict(case, ModelRequest(refined=refined)).transform
    assert transform is not None
    return moved_dice(pair, transform, fixed, moving)


def by_optimisation(pair: Any, similarity: str, change: Change) -> dict[str, Any]:
    fixed, moving = opened_pair(pair, change)
    began = time.process_time()
    found = hilum.register(fixed, moving, similarity=similarity)
    return {
        "CPU s": time.process_time() - began,
        "applied": str(found.registration.applied),
        "Dice at first": moved_dice(pair, found.registration.first_guess, fixed, moving),
        "Dice": moved_dice(pair, found.transform, fixed, moving),
    }


def _dark(values: np.ndarray) -> np.ndarray:
    scaled = np.clip(values / np.percentile(values, 99.5), 0, 1)
    return ndimage.gaussian_filter(scaled**3, 1.0).astype(np.float32)


def draw_maps(path: Path) -> None:
    """A label map of the hippocampus, and images that were painted from it."""
    labels = np.asarray(nibabel.load(sorted((HIPPOCAMPUS / "labels").glob("*.nii.gz"))[0]).dataobj).astype(int)
    ranges = PaintingRanges(intensities=False, thickness=4.0)
    painted = [painting.paint_case(labels[None], (1, 1, 1), ranges, case="picture", draw=draw)[0] for draw in range(11)]
    figure, places = pyplot.subplots(2, 6, figsize=(7.2, 3.0))
    for place, values in zip(places.flat, [labels, *painted], strict=True):
        place.imshow(values[:, :, values.shape[2] // 2].T, cmap="gray", origin="lower")
        place.axis("off")
    _keep(figure, path)


def draw_fusions(path: Path) -> None:
    """Checkerboards of painted heads before and after: CT on T1, and PET on CT."""
    labels, grid = head(0)
    figure, places = pyplot.subplots(2, 4, figsize=(7.2, 4.1))
    for row, (first, second) in zip(places, (("T1", "CT"), ("CT", "PET")), strict=True):
        move = planted(grid, 3, 0.6)
        moved = spatial_transforms.carry_labels(labels, grid, spatial_transforms.invert_transform(move), grid)
        fixed = Image(painted(labels, first, 1)[None], grid, {"T1": "MR"}.get(first, "unknown"))
        moving = Image(painted(moved, second, 1)[None], grid, {"PET": "PT"}.get(second, "OT"))
        found = hilum.register(fixed, moving, transform="rigid")
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


CHANGES: dict[str, Change] = {
    "real": lambda values: values,
    "inverted": lambda values: (values.max() - values).astype(np.float32),
    "gamma 3, blurred": _dark,
}
PARTS: dict[str, Callable[[argparse.Namespace], Cells]] = {
    "rigid": rigid,
    "warp": warp,
    "apart": apart,
    "shared": shared,
    "frames": frames,
    "learnt": learnt,
    "pairs": pairs,
}

if __name__ == "__main__":
    main()
