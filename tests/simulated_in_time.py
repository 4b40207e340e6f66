"""Series and clips that are simulated: beats of a heart as an electrocardiogram, and as a ball that becomes smaller."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

STEP = 0.005  # s between samples
FRAME = 0.04  # s between frames


def beats(seed: int, samples: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """(2, samples) leads with narrow peaks in noise, and where a peak is (0, 1)."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) * STEP
    leads, peak = rng.normal(0, 0.03, (2, samples)), np.zeros(samples, dtype=int)
    for at in np.arange(rng.uniform(0.1, 0.2), time[-1], rng.uniform(0.25, 0.35)):
        leads += np.exp(-(((time - at) / 0.012) ** 2)) * np.array([[1.0], [0.6]])
        peak[np.abs(time - at) < 0.03] = 1
    return leads, peak


def table(path: Path, columns: dict[str, np.ndarray], step: float = STEP) -> Path:
    """A CSV of samples at even steps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(len(next(iter(columns.values())))) * step
    rows = zip(time.round(6).tolist(), *(one.tolist() for one in columns.values()), strict=True)
    path.write_text("\n".join([",".join(["time (s)", *columns]), *(",".join(map(str, row)) for row in rows)]))
    return path


def electrocardiograms(root: Path, count: int = 10) -> Path:
    """images/ beside labels/, as CSV."""
    for n in range(count):
        (first, second), peak = beats(n)
        table(root / "images" / f"patient{n:02}.csv", {"I": first, "II": second})
        table(root / "labels" / f"patient{n:02}.csv", {"peak": peak})
    return root


def heartbeat(seed: int, change: float, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """(16, 16, 2, frames) of a bright disc whose area falls by a share and comes back, and its mask."""
    rng = np.random.default_rng(seed)
    area = 1 - change * (1 - np.cos(2 * np.pi * np.arange(frames) / frames)) / 2
    away = np.hypot(*(np.indices((16, 16)) - rng.uniform(7, 9, size=(2, 1, 1))))
    mask = (away[..., None, None] < 5.5 * np.sqrt(area)).astype(np.uint8).repeat(2, axis=2)
    return (100 * mask + rng.normal(0, 10, mask.shape)).astype(np.int16), mask


def cine(path: Path, voxels: np.ndarray) -> Path:
    """A 4D NIfTI of 1.5 x 1.5 x 8 mm, a frame every 40 ms."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = nibabel.Nifti1Image(voxels, np.diag([1.5, 1.5, 8.0, 1.0]))
    made.header.set_xyzt_units("mm", "sec")
    made.header["pixdim"][4] = FRAME
    made.to_filename(path)
    return path


def clips(root: Path, count: int = 16, longest: int = 12) -> Path:
    """A folder for each of weak and strong, of clips of up to so many frames, and of one to three fewer."""
    for n in range(count):
        voxels, _ = heartbeat(n, (0.2, 0.7)[n % 2], longest - 3 + n % 4)
        cine(root / ("weak", "strong")[n % 2] / f"patient{n:02}.nii.gz", voxels[:, :, :1])
    return root


def cines(root: Path, count: int = 8) -> Path:
    """images/ beside labels/, a mask for each of 4 or 5 frames."""
    for n in range(count):
        voxels, mask = heartbeat(n, 0.5, 4 + n % 2)
        cine(root / "images" / f"patient{n:02}.nii.gz", voxels[:, :, :1])
        cine(root / "labels" / f"patient{n:02}.nii.gz", mask[:, :, :1])
    return root
