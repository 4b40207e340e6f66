"""Registration where the truth is known, across modalities, of pictures, over frames, and of large volumes.

    python bench/registration_known.py --record              # all parts, about half an hour on two cores
    python bench/registration_known.py --parts warp motion

warp:   a FLAIR head and itself through smooth fields of up to 8 voxels: mean error inside the head
rigid:  the same on an oblique, left-handed grid of 1.3 mm after a turn and a shift
same:   a hippocampus pair twice in processes of their own, and with one and two threads
motion: 100 frames of a head that moves: error of shifts and turns
across: MR on simulated ultrasound of the prostate: gland Dice, distance of landmarks
flat:   2D brains of different people, and slices of a CT head
read:   DICOM registrations on oblique grids, as pydicomRT reads them: largest distance of points
large:  heads of 256 voxels a side, deformable; of 512, affine: seconds and memory

Each case runs in a process of its own, and elastix (affine, then B-spline, mutual information) beside ours where the
truth is not known. What was measured lies in `.bench/registration_known.jsonl`: a run goes on from there unless --again
is given.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import PIL.Image
import SimpleITK
import torch
from beside import DATA, PLACE, ROOT, peer, record
from scipy import ndimage

import isocenter
from isocenter.files.dicom.writing import series_writing
from isocenter.files.dicom.writing.series_writing import SeriesNames
from isocenter.registration import engine
from isocenter.registration.engine import RegistrationSettings
from isocenter.transforms import augment_spatial, spatial_transforms
from isocenter.values import Affine, Displacement, Geometry, Image, SpatialTransform

HEAD = DATA / "mri" / "single_cases" / "brain_flair_image.nii.gz"
PAIRS = DATA / "registration"
KEPT, MADE = PLACE / "registration_known.jsonl", PLACE / "registration_large"
SIDE = ROOT / "bench" / "sides" / "registration_peer.py"
# Voxels of the longest way of a smooth warp, and its smoothness.
LONGEST, SIGMA = 8.0, 14.0
# Of the range of an image, the noise that is added to each image of a pair.
NOISE = 0.01
FRAMES = 100
ELASTIX = ("across", "flat")
# Cases that elastix runs on: a minute each.
MOST_OF_PROSTATE = 4
OTHERS = ("r64", "r27", "r30")
# FreeSurfer numbers: white matter, cortex, ventricle, thalamus, caudate, putamen, hippocampus, left and right.
STRUCTURES = (2, 41, 3, 42, 4, 43, 10, 49, 11, 50, 12, 51, 17, 53)
# What is asked of a figure: the limit that it stays below.
ASKED = {
    ("warp", "mean error, voxels"): 0.5,
    ("rigid", "mean error, mm"): 0.3,
    ("same", "difference with 2 threads, mm"): 0.01,
    ("read", "largest distance, mm"): 0.01,
    ("motion", "mean error, mm"): 0.1,
    ("motion", "mean error, degrees"): 0.1,
    ("large", "seconds"): 90.0,
    ("large", "peak memory, GiB"): 4.0,
}

Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--small", action="store_true", help="one warp, which shows that it runs")
    parser.add_argument("--again", action="store_true", help="measure what was measured before, too")
    parser.add_argument("--record", action="store_true", help="write results and the section of the page")
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row is not None:
        part, case, threads = given.row
        torch.set_num_threads(int(threads))
        print(json.dumps(PARTS[part][1](case)))
        return
    rows, known = [], {} if given.again else read_rows()
    for part in ["warp"] if given.small else given.parts:
        for program, case in list(programs_and_cases(part))[: 1 if given.small else None]:
            key = (part, program, case)
            if key not in known:
                keep(key, figures := measured(part, program, case))
                known[key] = figures
                print(json.dumps([*key, figures]), flush=True)
    rows = [{"part": part, "program": program, "case": case, **own} for (part, program, case), own in known.items()]
    text = summary(rows)
    print(text)
    if given.record:
        record(
            "registration_known", "Known transforms, other modalities, frames and large volumes", text, {"rows": rows}
        )


def programs_and_cases(part: str) -> Iterator[tuple[str, str]]:
    cases = PARTS[part][0]()
    yield from (("Isocenter", case) for case in cases)
    if part in ELASTIX:
        yield from (("elastix", case) for case in cases[:MOST_OF_PROSTATE] if "rigid" not in case)


def read_rows() -> dict[tuple[str, str, str], Figures]:
    lines = [json.loads(line) for line in KEPT.read_text().splitlines()] if KEPT.is_file() else []
    return {(part, program, case): own for part, program, case, own in lines}


def keep(key: tuple[str, str, str], figures: Figures) -> None:
    KEPT.parent.mkdir(exist_ok=True)
    with KEPT.open("a", encoding="utf-8") as file:
        file.write(json.dumps([*key, figures]) + "\n")


def measured(part: str, program: str, case: str) -> Figures:
    """One case in a process of its own, by us with one thread and of large volumes with two; or by elastix."""
    if program != "Isocenter":
        return by_elastix(part, case)
    if part == "same":
        return twice(case)
    return in_process(part, case, 2 if part == "large" else 1)


def in_process(part: str, case: str, threads: int) -> Figures:
    command = [sys.executable, __file__, "--row", part, case, str(threads)]
    limits = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, env={**os.environ, **limits}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{part} {case}: {done.stderr.strip()}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def head() -> Image:
    """A FLAIR head of 1 mm, in 0..1."""
    image = isocenter.read(HEAD)
    data = image.data.astype(np.float32)
    return image.with_pixels(data / np.percentile(data, 99.5))


def noisy(image: Image, seed: int) -> Image:
    data = np.nan_to_num(image.data.astype(np.float32))
    drawn = np.random.default_rng(seed).normal(0, NOISE, data.shape)
    return image.with_pixels((data + drawn).astype(np.float32))


def inside(image: Image) -> np.ndarray:
    """(n, 3) mm of 20000 voxels of the head."""
    mask = ndimage.binary_opening(ndimage.gaussian_filter(image.data[0], 2) > 0.1, iterations=2)
    index = np.argwhere(mask)
    return image.geometry.to_world(np.random.default_rng(0).permutation(index)[:20000])


def apart(made: SpatialTransform, true: SpatialTransform, points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(
        spatial_transforms.carry_points(made, points) - spatial_transforms.carry_points(true, points), axis=1
    )


def warp(case: str) -> Figures:
    image = head()
    grid, rng = image.geometry, np.random.default_rng(int(case))
    bent = np.stack([ndimage.gaussian_filter(rng.normal(size=grid.shape), SIGMA) for _ in range(3)])
    for axis, size in enumerate(grid.shape):
        fade = np.minimum(np.minimum(np.arange(size), np.arange(size)[::-1]) / SIGMA, 1)
        bent *= fade.reshape([-1 if a == axis else 1 for a in range(3)])
    longest = np.linalg.norm(bent, axis=0).max()
    field = Displacement((LONGEST * min(grid.steps) * bent / longest).astype(np.float32), grid)
    true = SpatialTransform((field,), grid, grid)
    moved = spatial_transforms.carry_image(image, spatial_transforms.invert_transform(true), grid, "cubic")
    began = time.process_time()
    made = engine.register_images(noisy(image, 1), noisy(moved, 2), RegistrationSettings(initial="world"))
    seconds = time.process_time() - began
    points = inside(image)
    before = np.linalg.norm(spatial_transforms.carry_points(true, points) - points, axis=1)
    errors = apart(made.transform, true, points) / min(grid.steps)
    return {
        "before, voxels": float(before.mean() / min(grid.steps)),
        "mean error, voxels": float(errors.mean()),
        "95th percentile, voxels": float(np.percentile(errors, 95)),
        "CPU s": seconds,
    }


def turned(degrees: Sequence[float], shift: Sequence[float], about: np.ndarray, lands: np.ndarray) -> Affine:
    """A turn about a point, which then lands on another, and a shift."""
    matrix = np.eye(4)
    matrix[:3, :3] = augment_spatial.rotation_matrix(np.radians(degrees), 3)
    matrix[:3, 3] = lands - matrix[:3, :3] @ about + shift
    return Affine(matrix)


def rigid(case: str) -> Figures:
    image = head()
    middle = image.geometry.corners.mean(axis=0)
    rng = np.random.default_rng(int(case))
    turn = augment_spatial.rotation_matrix(np.radians([20.0, -15.0, 10.0]), 3)
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.3, 1.3, -1.3])  # left-handed
    shape = (130, 140, 130)
    affine[:3, 3] = np.array([12.0, -30.0, 55.0]) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    other = Geometry(shape, affine)
    motion = turned(rng.uniform(-20, 20, 3), rng.uniform(-12, 12, 3), middle, other.corners.mean(axis=0))
    true = SpatialTransform((motion,), image.geometry, other)
    moved = spatial_transforms.carry_image(image, spatial_transforms.invert_transform(true), other, "cubic")
    began = time.process_time()
    made = engine.register_images(noisy(image, 1), noisy(moved, 2), RegistrationSettings("rigid"))
    seconds = time.process_time() - began
    return {"mean error, mm": float(apart(made.transform, true, inside(image)).mean()), "CPU s": seconds}


def same(case: str) -> dict[str, Any]:
    """Where the points of a grid go, with a hash of it."""
    listed = pd.read_csv(PAIRS / "hippocampus_pairs.csv").iloc[int(case)]
    fixed, moving = (isocenter.read(DATA / "hippocampus" / "images" / listed[side]) for side in ("fixed", "moving"))
    made = engine.register_images(fixed, moving, RegistrationSettings()).transform
    places = spatial_transforms.carry_points(
        made, fixed.geometry.to_world(np.argwhere(np.ones(fixed.geometry.shape))[::7])
    )
    return {"hash": sha256(places.tobytes()).hexdigest(), "places": places.ravel().tolist()}


def twice(case: str) -> Figures:
    first, again, other = (in_process("same", case, threads) for threads in (1, 1, 2))
    places = [np.reshape(one["places"], (-1, 3)) for one in (first, other)]
    return {
        "same bits twice": float(first["hash"] == again["hash"]),
        "difference with 2 threads, mm": float(np.linalg.norm(places[0] - places[1], axis=1).max()),
    }


def motion(case: str) -> Figures:
    """Frames of 2.5 mm of a head that was smoothed accordingly, each turned and shifted a little more."""
    image = head()
    image = image.with_pixels(ndimage.gaussian_filter(image.data, (0, 1, 1, 1)))
    middle, rng = image.geometry.corners.mean(axis=0), np.random.default_rng(int(case))
    grid = Geometry((50, 64, 56), np.diag([2.5, 2.5, 2.5, 1.0]))
    affine = grid.affine.copy()
    affine[:3, 3] = middle - grid.corners.mean(axis=0)
    grid = Geometry(grid.shape, affine)
    walks = rng.normal(0, 0.25, (FRAMES, 6)).cumsum(axis=0)
    walks[0] = 0
    frames = []
    for number, walk in enumerate(walks):
        true = SpatialTransform((turned(walk[:3], walk[3:], middle, middle),), grid, image.geometry)
        frames.append(
            noisy(
                spatial_transforms.carry_image(
                    image, spatial_transforms.invert_transform(SpatialTransform(true.parts)), grid, "cubic"
                ),
                number,
            ).data
        )
    series = Image(np.stack(frames, axis=1), grid, times=tuple(2.0 * n for n in range(FRAMES)))
    began = time.process_time()
    table = isocenter.register_frames(series).table
    seconds = time.process_time() - began
    shifts = table[["x_mm", "y_mm", "z_mm"]].to_numpy() - walks[:, 3:]
    turns = table[["z_deg", "y_deg", "x_deg"]].to_numpy() - walks[:, :3]
    return {
        "largest shift, mm": float(np.abs(walks[:, 3:]).max()),
        "largest turn, degrees": float(np.abs(walks[:, :3]).max()),
        "mean error, mm": float(np.abs(shifts).mean()),
        "mean error, degrees": float(np.abs(turns).mean()),
        "CPU s a frame": seconds / FRAMES,
    }


def of_prostate(case: str) -> tuple[list[Image], list[np.ndarray]]:
    """Both images, and their binary maps as the bits of one map."""
    images, bits = [], []
    for side in ("fixed", "moving"):
        images.append(isocenter.read(PAIRS / "prostate_mr_us" / f"{case}_{side}_image.nii.gz"))
        maps = np.asarray(nibabel.load(PAIRS / "prostate_mr_us" / f"{case}_{side}_label.nii.gz").dataobj) > 0
        maps = maps if maps.ndim == 4 else maps[..., None]
        bits.append(sum(maps[..., n].astype(np.uint8) << n for n in range(maps.shape[-1])))
    return images, bits


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / max(1, one.sum() + other.sum()))


def of_bits(moved: np.ndarray, true: np.ndarray, grid: Geometry, when: str) -> Figures:
    """Dice of the first map, mean distance of the centres of the others; a landmark that is lost has none."""
    figures = {f"gland Dice {when}": dice(moved & 1 > 0, true & 1 > 0)}
    gaps = []
    for n in range(1, 3):
        both = [one >> n & 1 > 0 for one in (moved, true)]
        if all(one.any() for one in both):
            centres = [grid.to_world(np.argwhere(one).mean(axis=0)) for one in both]
            gaps.append(float(np.linalg.norm(centres[0] - centres[1])))
    return {**figures, **({f"landmarks {when}, mm": float(np.mean(gaps))} if gaps else {})}


def across(case: str) -> Figures:
    (fixed, moving), (true, drawn) = of_prostate(case)
    began = time.process_time()
    made = engine.register_images(fixed, moving, RegistrationSettings(similarity="mind"))
    seconds = time.process_time() - began
    grid = fixed.geometry
    shift = np.eye(4)
    shift[:3, 3] = moving.geometry.corners.mean(axis=0) - grid.corners.mean(axis=0)
    start = SpatialTransform((Affine(shift),), grid, moving.geometry)
    figures: Figures = {}
    for when, one in (("before", start), ("after", made.transform)):
        figures |= of_bits(
            spatial_transforms.carry_labels(drawn, moving.geometry, one, grid).astype(np.uint8), true, grid, when
        )
    return {**figures, "CPU s": seconds}


def of_flat(case: str) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
    """(pixels of the fixed and the moving picture, their label maps)."""
    if case == "CT head":
        folder = PAIRS / "ct2d_head_elastix"
        images, masks = (
            [SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / f"CT_2D_head_{side}{kind}.mha")))
             for side in ("fixed", "moving")] for kind in ("", "_mask")
        )  # fmt: skip
        return images, [(one > 0).astype(np.uint8) for one in masks]
    folder = PAIRS / "brain2d_ants"
    if case == "r16 rigid":
        slices = [nibabel.load(folder / name).get_fdata() for name in ("r16slice.nii.gz", "r16slice_rigid.nii.gz")]
        return [np.squeeze(one) for one in slices], None
    images, labels = (
        [np.asarray(PIL.Image.open(folder / f"{name}{ending}").convert("L")) for name in ("r16", case)]
        for ending in (".jpg", "_tissue3.png")
    )
    return images, labels


def flat(case: str) -> Figures:
    images, labels = of_flat(case)
    grids = [Geometry(one.shape, np.eye(3)) for one in images]
    fixed, moving = (Image(one[None].astype(np.float32), grid) for one, grid in zip(images, grids, strict=True))
    similarity = "mse" if case == "CT head" else "lncc"
    kind = "rigid" if "rigid" in case else "deformable"
    began = time.process_time()
    made = engine.register_images(fixed, moving, RegistrationSettings(kind, similarity, initial="auto"))
    seconds = time.process_time() - began
    start, figures = SpatialTransform((), *grids), Figures()
    for when, one in (("before", start), ("after", made.transform)):
        moved = spatial_transforms.carry_image(moving, one, grids[0]).data[0]
        known = np.isfinite(moved)
        figures[f"correlation {when}"] = float(np.corrcoef(fixed.data[0][known], moved[known])[0, 1])
        if labels is not None:
            figures |= of_tissues(spatial_transforms.carry_labels(labels[1], grids[1], one, grids[0]), labels[0], when)
    return {**figures, "CPU s": seconds}


def of_tissues(moved: np.ndarray, true: np.ndarray, when: str) -> Figures:
    values = [one for one in np.unique(true) if one]
    return {f"mean Dice {when}": float(np.mean([dice(moved == one, true == one) for one in values]))}


def by_elastix(part: str, case: str) -> Figures:
    """Affine, then B-spline, by mutual information: elastix' own default parameters."""
    with tempfile.TemporaryDirectory() as place:
        if part == "across":
            (fixed, _), (true, drawn) = of_prostate(case)
            names = [PAIRS / "prostate_mr_us" / f"{case}_{side}_image.nii.gz" for side in ("fixed", "moving")]
            names += [Path(place) / "labels.nii.gz", Path(place) / "moved.nii.gz"]
            nibabel.Nifti1Image(drawn, nibabel.load(names[1]).affine).to_filename(names[2])
        else:
            images, labels = of_flat(case)
            assert labels is not None
            true = labels[0]
            names = [Path(place) / f"{name}.mha" for name in ("fixed", "moving", "labels", "moved")]
            for one, path in zip([*images, labels[1]], names, strict=False):
                SimpleITK.WriteImage(
                    SimpleITK.GetImageFromArray(np.ascontiguousarray(one).astype(np.float32)), str(path)
                )
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        limits = dict.fromkeys(("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1")
        command = [str(peer("elastix")), str(SIDE), "elastix", *map(str, names)]
        subprocess.run(command, check=True, env={**os.environ, **limits}, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if part == "across":
            moved = np.rint(nibabel.load(names[3]).get_fdata()).astype(np.uint8)
            return {**of_bits(moved, true, fixed.geometry, "after"), "CPU s": seconds}
        moved = np.rint(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(names[3])))).astype(np.uint8)
        return {**of_tissues(moved, true, "after"), "CPU s": seconds}


def drawn_head(name: str, side: int) -> tuple[Path, Path]:
    """(image, labels) of a label map with 256 voxels a side, or twice as many: an intensity for each number."""
    image, labels = MADE / f"{name}_{side}.nii.gz", MADE / f"{name}_{side}_labels.nii.gz"
    if not image.is_file():
        MADE.mkdir(parents=True, exist_ok=True)
        source = nibabel.load(PAIRS / "brain_labelmaps_synthseg" / f"{name}.nii.gz")
        numbers, affine = np.asarray(source.dataobj).astype(np.uint16), source.affine.copy()
        if side == 2 * numbers.shape[0]:
            numbers = numbers.repeat(2, 0).repeat(2, 1).repeat(2, 2)
            affine[:3, 3] -= affine[:3, :3].sum(axis=1) / 4
            affine[:3, :3] /= 2
        levels = np.random.default_rng(0).uniform(30, 220, 1000).astype(np.float32)
        levels[0] = 0
        drawn = ndimage.gaussian_filter(levels[numbers], 0.7 * side / 256)
        rng = np.random.default_rng(len(name) + int(name[-1]))
        for number in range(len(drawn)):
            drawn[number] += rng.normal(0, 6, drawn[number].shape)
        nibabel.Nifti1Image(numbers, affine).to_filename(labels)
        nibabel.Nifti1Image(np.clip(drawn, 0, 255).astype(np.uint8), affine).to_filename(image)
    return image, labels


def prepare_large(case: str) -> None:
    """In a process of its own, so that its memory is not counted."""
    for name in ("seg_02", "seg_05"):
        drawn_head(name, int(case[:3]))


def large(case: str) -> Figures:
    side, kind = int(case[:3]), case[4:]
    if not all((MADE / f"{name}_{side}.nii.gz").is_file() for name in ("seg_02", "seg_05")):
        subprocess.run([sys.executable, __file__, "--row", "prepare", case, "2"], check=True)
    files = [drawn_head(name, side) for name in ("seg_02", "seg_05")]
    began, used = time.perf_counter(), time.process_time()
    fixed, moving = (isocenter.read(image) for image, _ in files)
    made = engine.register_images(fixed, moving, RegistrationSettings(kind, "lncc", initial="auto"))
    spatial_transforms.carry_image(moving, made.transform, fixed.geometry)
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    true, drawn = (np.asarray(nibabel.load(labels).dataobj) for _, labels in files)
    figures = {"seconds": seconds, "CPU s": cpu, "peak memory, GiB": peak}
    for when, one in (("before", made.first_guess), ("after", made.transform)):
        moved = spatial_transforms.carry_labels(drawn, moving.geometry, one, fixed.geometry)
        figures[f"mean Dice {when}"] = float(np.mean([dice(moved == n, true == n) for n in STRUCTURES]))
    return figures


def read(case: str) -> Figures:
    """A registration of two series, its points moved by us and by what pydicomRT has read."""
    rng, turn, affine = (
        np.random.default_rng(0),
        augment_spatial.rotation_matrix(np.radians([20.0, -15.0, 10.0]), 3),
        np.eye(4),
    )
    affine[:3, :3] = turn @ np.diag([1.1, 0.9, -1.4 if "left" in case else 1.4])
    affine[:3, 3] = (12.0, -30.0, 55.0)
    grid = Geometry((40, 36, 24), affine)
    middle = grid.corners.mean(axis=0)
    bent = np.stack([ndimage.gaussian_filter(rng.normal(size=grid.shape), 5) for _ in range(3)])
    field = Displacement((4 * bent / np.abs(bent).max()).astype(np.float32), grid)
    parts = (field, turned((8, -5, 12), (4, -3, 2), middle, middle))
    true = SpatialTransform(parts if "deformable" in case else parts[1:], grid, grid)
    values = np.arange(np.prod(grid.shape)).reshape(1, *grid.shape).astype(np.int16)
    points = grid.to_world(rng.uniform(0, np.array(grid.shape) - 1, size=(500, 3)))
    sides = np.array([-1.0, -1.0, 1.0])
    with tempfile.TemporaryDirectory() as place:
        images = []
        for name in ("one", "other"):
            names = SeriesNames(name, f"study of {name}", "t1")  # frames of reference of their own
            series_writing.write_series(Image(values, grid, modality="MR"), names, Path(place) / name)
            images.append(isocenter.read(Path(place) / name))
        files = [Path(place) / name for name in ("made.dcm", "points.npy", "moved.npy")]
        isocenter.write_transform(true, files[0], fixed=images[0], moving=images[1])
        np.save(files[1], points * sides)
        side = ROOT / "bench" / "sides" / "registration_reader.py"
        subprocess.run([str(peer("pydicomrt")), str(side), *map(str, files)], check=True)
        theirs = np.load(files[2]) * sides
    return {
        "largest distance, mm": float(
            np.linalg.norm(theirs - spatial_transforms.carry_points(true, points), axis=1).max()
        )
    }


def prostate_cases() -> list[str]:
    return pd.read_csv(PAIRS / "prostate_mr_us" / "pairs.csv")["case"].tolist()


# {part: (its cases, what measures one)}
PARTS: Mapping[str, tuple[Callable[[], list[str]], Callable[[str], Any]]] = {
    "rigid": (lambda: ["0", "1", "2"], rigid),
    "warp": (lambda: ["0", "1", "2"], warp),
    "same": (lambda: ["0"], same),
    "motion": (lambda: ["0"], motion),
    "flat": (lambda: [*OTHERS, "CT head", "r16 rigid"], flat),
    "large": (lambda: ["256 deformable", "512 affine"], large),
    "across": (prostate_cases, across),
    "read": (
        lambda: [f"{kind}, {side}-handed" for kind in ("linear", "deformable") for side in ("left", "right")],
        read,
    ),
    "prepare": (list, prepare_large),
}


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """A row a part, program and figure: the mean over cases, the worst, and what is asked."""
    lines = ["| part | program | cases | figure | mean | worst | asked below |", "|---|---|---|---|---|---|---|"]
    table = pd.DataFrame(rows)
    for (part, program), own in table.groupby(["part", "program"], sort=False):
        groups = [("", own)] if part not in ("flat", "large") else [(one, rows) for one, rows in own.groupby("case")]
        for name, cases in groups:
            values = cases.drop(columns=["part", "program", "case"]).dropna(axis=1, how="all")
            for figure in values:
                numbers = values[figure].dropna()
                worst = numbers.min() if "Dice" in figure or "correlation" in figure else numbers.max()
                limit = ASKED.get((part, figure))
                cells = [f"{part} {name}".strip(), program, str(len(numbers)), figure, f"{numbers.mean():.3f}"]
                cells += [f"{worst:.3f}" if len(numbers) > 1 else "", "" if limit is None else f"{limit:g}"]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
