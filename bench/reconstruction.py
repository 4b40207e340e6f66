"""Reconstructed slices of CT and MR: filtered backprojection, total variation, an unrolled network, and times.

    python bench/reconstruction.py --out DIR --minutes 10 --record

CT: head and body slices on a grid of 254 pixels are measured over half a turn, with noise of 0.5 % of the largest
integral, and answered on 127 pixels; scikit-image gets the same data. MR: FLAIR slices of 128 x 128, four times fewer
columns with 8 % centre, noise of 1 % of the 99th percentile; the test cases of the training are those of all methods.
Cells that have ended are lines of DIR/cells.jsonl, and are not repeated; those of an earlier record stay in it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import torch
from environment import ROOT
from recorded import known, measured_cell, record, row_words
from skimage.transform import iradon, radon, resize

import isocenter
from isocenter.evaluation import image_fidelity, intervals
from isocenter.reading import ReadingOptions, dataset_reading
from isocenter.transforms.operators import iterative_solvers, simulated_scans
from isocenter.transforms.operators.simulated_scans import ScanSettings

DATA = ROOT.parent / "shared" / "data"
CT = ("registration/ct2d_head_elastix", "dicom/series/ct_3slices_with_seg", "dicom/series/ct_phantom_with_rtstruct")
FLAIR = DATA / "mri" / "lgg_flair" / "images"
SIDE, NOISE, LARGE, VIEWS = 127, 0.005, 512, 720
# Of 1000 HU and water, per mm.
HOUNSFIELD, WATER = 1000.0, 0.02
SCAN = {"task.operator": "cartesian", "task.acceleration": 4, "task.centre": 0.08, "task.noise": 0.01}
MOST_TV = 24
COILS, COIL_SLICES = 4, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the training")
    parser.add_argument("--only", nargs="+", default=[""], metavar="START", help="cells whose names begin so")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)
    cells: dict[str, Callable[[], dict[str, Any]]] = {
        "CT, 60 views": lambda: of_rays(60),
        "CT, 30 views": lambda: of_rays(30),
        "512 x 512, 720 views": seconds_of_each,
        "MR, 4 times fewer columns": lambda: of_columns(given),
        "four coils without maps, 4 times fewer columns": lambda: of_coils(given.out, 4),
        "four coils without maps, 8 times fewer columns": lambda: of_coils(given.out, 8),
    }
    chosen = {name: measure for name, measure in cells.items() if name.startswith(tuple(given.only))}
    measured = {name: measured_cell(given.out, name, measure) for name, measure in chosen.items()}
    rows = {**known("reconstruction").get("rows", {}), **measured}
    lines = [f"| {name} | {row_words(row)} |" for name, row in rows.items()]
    text = "\n".join(["| what | figure |", "|---|---|", *lines])
    print(text)
    if given.record:
        record("reconstruction", "Reconstructed slices", text, {"rows": rows, "minutes": given.minutes})


def ct_slices() -> Iterator[tuple[str, np.ndarray]]:
    """(name, attenuation per mm on twice the side), inside of the circle that every view sees."""
    place = np.arange(2 * SIDE) - SIDE + 0.5
    circle = np.hypot(place[:, None], place) < SIDE - 2
    for folder in CT:
        path = DATA / folder
        files = sorted(one for one in path.glob("*.mha") if "mask" not in one.name.lower()) or [path]
        for file in files:
            image = isocenter.read(file)
            for number in range(image.shape[-1] if image.geometry.ndim == 3 else 1):
                values = image.data[0, ..., number] if image.geometry.ndim == 3 else image.data[0]
                air = -HOUNSFIELD if values.min() < -HOUNSFIELD / 2 else 0.0
                density = np.clip((values.astype(np.float32) - air) / HOUNSFIELD * WATER, 0, None)
                yield f"{file.name} {number}", resize(density, circle.shape, anti_aliasing=True) * circle


def of_rays(views: int) -> dict[str, Any]:
    """PSNR of each method, mean over slices."""
    angles = np.arange(views) * 180 / views
    shared = {"kind": "parallel", "angles_deg": angles, "bins": 181, "bin_mm": 1.0}
    scanner = isocenter.operator({**shared, "image": {"shape": (2 * SIDE, 2 * SIDE), "spacing_mm": (0.5, 0.5)}})
    operator = isocenter.operator({**shared, "image": {"shape": (SIDE, SIDE), "spacing_mm": (1, 1)}})
    scores: dict[str, list[float]] = {"FBP": [], "scikit-image's": [], "total variation": []}
    for number, (_, fine) in enumerate(ct_slices()):
        clean = fine.reshape(SIDE, 2, SIDE, 2).mean(axis=(1, 3))
        sums = scanner.forward(fine.astype(np.float32))
        noise = np.random.default_rng(number).normal(0, NOISE * sums.max(), sums.shape)
        data = (sums + noise).astype(np.float32)
        measured = torch.as_tensor(data)
        found, _ = iterative_solvers.find_weight(operator, measured, iterative_solvers.noise_deviation(operator, data))
        made = {
            "FBP": operator.plain_inverse(data),
            "scikit-image's": iradon(data.T, angles, circle=False, output_size=SIDE)[::-1].T,
            "total variation": iterative_solvers.total_variation(operator, measured, weight=found, iterations=100),
        }
        for name, image in made.items():
            known = np.ones(clean.shape, bool)
            scores[name].append(image_fidelity.psnr(np.asarray(image)[None], clean[None], known[None]))
    means = {f"{name} dB": float(np.mean(each)) for name, each in scores.items()}
    gain = float(np.mean(np.subtract(scores["total variation"], scores["FBP"])))
    return {**means, "total variation above FBP dB": gain, "slices": len(scores["FBP"])}


def seconds_of_each() -> dict[str, Any]:
    """Processor seconds, the least of three; of the projections of scikit-image one."""
    angles = np.arange(VIEWS) * 180 / VIEWS
    image = {"shape": (LARGE, LARGE), "spacing_mm": (1, 1)}
    operator = isocenter.operator(
        {"kind": "parallel", "angles_deg": angles, "bins": 725, "bin_mm": 1.0, "image": image}
    )
    values = np.random.default_rng(0).random((LARGE, LARGE)).astype(np.float32)
    sums = operator.forward(values)
    works: dict[str, tuple[Callable[[], Any], int]] = {
        "operator s": (lambda: operator.forward(values), 3),
        "adjoint s": (lambda: operator.adjoint(sums), 3),
        "FBP s": (lambda: operator.plain_inverse(sums), 3),
        "scikit-image's operator s": (lambda: radon(values, angles, circle=False), 1),
        "scikit-image's FBP s": (lambda: iradon(sums.T, angles, circle=False), 3),
    }
    return {name: min(duration_of(work) for _ in range(times)) for name, (work, times) in works.items()}


def duration_of(work: Callable[[], Any]) -> float:
    """Processor seconds of all threads, which a busy machine hardly changes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def of_columns(given: Any) -> dict[str, Any]:
    """PSNR of the test slices by zero filling, total variation (of every so many slices) and the unrolled network."""
    run = given.out / "run_mr"
    if not run.is_dir():
        isocenter.train(FLAIR, out=run, task="reconstruction", minutes=given.minutes, assignments=SCAN)
    table = pd.read_csv(run / "evaluation" / "cases.csv", dtype={"case": str}).set_index("case")
    settings = {name.removeprefix("task."): value for name, value in SCAN.items()}
    cases = {
        case.id: case
        for case in dataset_reading.open_dataset(FLAIR, ReadingOptions(), needs=("target",), settings=settings)
    }
    chosen = table.index[:: max(1, len(table) // MOST_TV)]
    by_tv = np.array([psnr_of_tv(cases[name]) for name in chosen])
    patients = table.loc[chosen, "patient"].astype(str).to_numpy()
    above = {
        "total variation above zero filling": by_tv - table.loc[chosen, "psnr_input"],
        "unrolled above total variation": table.loc[chosen, "psnr"] - by_tv,
    }
    gains = {name: str(intervals.bootstrap(each.to_numpy(float), patients, seed=0)) for name, each in above.items()}
    figures = {"zero filling dB": table.loc[chosen, "psnr_input"].mean(), "total variation dB": by_tv.mean()}
    unrolled = {"unrolled dB": float(table.loc[chosen, "psnr"].mean())}
    return {**{name: float(one) for name, one in figures.items()}, **unrolled, **gains, "slices": len(chosen)}


def of_coils(out: Path, acceleration: int) -> dict[str, Any]:
    """PSNR of total variation by ours and by BART, this at its best of four weights, with maps that each estimates."""
    found = defaultdict[str, list[float]](list)
    scan = ScanSettings(acceleration=acceleration, coils=COILS, noise=SCAN["task.noise"])
    for number, clean in enumerate(flair_slices()):
        rng = np.random.default_rng(number)
        row, column = np.meshgrid(*(np.linspace(-1, 1, size) for size in clean.shape), indexing="ij")
        turns = 2 * np.pi * np.arange(COILS) / COILS
        apart = (row - np.cos(turns)[:, None, None]) ** 2 + (column - np.sin(turns)[:, None, None]) ** 2
        maps = np.exp(-apart / 3 + 1j * turns[:, None, None])
        maps /= np.sqrt((np.abs(maps) ** 2).sum(axis=0))
        mask = np.broadcast_to(simulated_scans.sampled_columns(clean.shape[1], scan, rng), clean.shape)
        kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(maps * clean, axes=(1, 2)), norm="ortho"), axes=(1, 2))
        noise = rng.normal(0, scan.noise * np.percentile(clean, 99), (2, *kspace.shape))
        data = ((kspace + noise[0] + 1j * noise[1]) * mask).astype(np.complex64)
        file = out / f"coils_{acceleration}_{number}.npz"
        header = {"kind": "cartesian", "coils": COILS, "image": {"shape": clean.shape, "spacing_mm": [1, 1]}}
        np.savez(file, acquisition=np.array(json.dumps(header)), data=data, mask=mask)
        [plain] = isocenter.reconstruct(file, method="zero_filled").images.values()
        found["zero filling dB"].append(scaled_psnr(plain.data[0], clean))
        [ours] = isocenter.reconstruct(file, method="tv").images.values()
        found["ours, weight by the noise dB"].append(scaled_psnr(ours.data[0], clean))
        weights = [float(one) for one in np.geomspace(3e-4, 3e-2, 4)]
        found["BART, its best of 4 weights dB"].append(
            max(scaled_psnr(by_bart(data, one, out), clean) for one in weights)
        )
    ours, theirs = (
        np.array(found[name]) for name in ("ours, weight by the noise dB", "BART, its best of 4 weights dB")
    )
    means = {name: float(np.mean(one)) for name, one in found.items()}
    return {**means, "ours less BART dB": float((ours - theirs).mean()), "slices": len(ours)}


def flair_slices() -> Iterator[np.ndarray]:
    """The middle slice of 128 x 128 of some volumes."""
    for path in sorted(FLAIR.glob("*.nii*"))[:COIL_SLICES]:
        volume = np.asarray(nibabel.load(path).dataobj, np.float32)
        middle = volume[..., volume.shape[-1] // 2]
        yield resize(middle, (128, 128), anti_aliasing=True).astype(np.float32)


def by_bart(data: np.ndarray, weight: float, out: Path) -> np.ndarray:
    """(rows, columns) magnitude by ESPIRiT's maps and total variation of Debian's BART."""
    write_cfl(out / "kspace", np.moveaxis(data, 0, -1)[:, :, None, :])
    for words in (
        ["ecalib", "-m1", "kspace", "maps"],
        ["pics", "-S", "-R", f"T:3:0:{weight}", "-i", "100", "kspace", "maps", "image"],
    ):
        subprocess.run(["bart", *words], cwd=out, check=True, capture_output=True)
    sizes = [int(one) for one in (out / "image.hdr").read_text().splitlines()[1].split()]
    image = np.fromfile(out / "image.cfl", np.complex64).reshape(sizes, order="F")
    return np.abs(image.squeeze())


def write_cfl(path: Path, data: np.ndarray) -> None:
    sizes = " ".join(map(str, [*data.shape, *[1] * (16 - data.ndim)]))
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{sizes}\n")
    data.astype(np.complex64).ravel(order="F").tofile(path.with_suffix(".cfl"))


def scaled_psnr(image: np.ndarray, clean: np.ndarray) -> float:
    """PSNR once the image has the scale of the clean one: maps leave one factor open."""
    image = np.squeeze(image)
    factor = float((image * clean).sum() / (image * image).sum())
    return image_fidelity.psnr(factor * image[None], clean[None], np.ones((1, *clean.shape), bool))


def psnr_of_tv(case: Any) -> float:
    channels = next(iter(case.images.values())).data
    target = case.references["target"].data
    operator = isocenter.operator({"kind": "cartesian", "image": {"shape": channels.shape[1:]}, "mask": channels[3]})
    # Of one coil, what was measured is what is measured of the adjoint.
    data = operator.forward((channels[1] + 1j * channels[2]).astype(np.complex64))
    measured = torch.as_tensor(data)
    weight, _ = iterative_solvers.find_weight(operator, measured, iterative_solvers.noise_deviation(operator, data))
    image = iterative_solvers.total_variation(operator, measured, weight=weight, iterations=100).abs().numpy()
    return image_fidelity.psnr(image[None], target, np.ones(target.shape, bool))


if __name__ == "__main__":
    main()
