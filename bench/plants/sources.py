"""Real inputs in which faults are planted: series, volumes and pictures of the folders at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image

from .planted import Array, Random, Volume
from .series_faults import Series, series_in, series_of
from .table_faults import small_picture

VOLUMES = ("hippocampus/images", "nifti", "mri", "multimodal", "registration")
PICTURES = ("chest_xray", "dsb2018/images", "histology/images", "mri", "bccd/JPEGImages", "ultrasound", "chasedb1")
# What is planted in is cut to so many voxels a side: what goes wrong does not depend on size.
MOST_VOXELS = 40
MOST_PIXELS = 96
MOST_BYTES = 1 << 24


@dataclass(frozen=True)
class Sources:
    """What lies below some folders; where one name is in several of them, the first one counts."""

    folders: Sequence[Path]

    def below(self, names: Sequence[str], suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
        """{set: its files} of some sets, whose file names end so."""
        sets: dict[str, dict[str, Path]] = {}
        for folder in self.folders:
            for name in names:
                for path in sorted((folder / name).rglob("*")):
                    if path.name.endswith(suffixes) and path.stat().st_size < MOST_BYTES:
                        sets.setdefault(name, {}).setdefault(str(path.relative_to(folder)), path)
        return {name: list(files.values()) for name, files in sets.items()}

    @cached_property
    def volumes(self) -> dict[str, list[Path]]:
        """{set: volumes}"""
        return self.below(VOLUMES, (".nii.gz", ".nii"))

    @cached_property
    def pictures(self) -> dict[str, list[Path]]:
        """{set: pictures}"""
        return self.below(PICTURES, (".png", ".jpeg", ".jpg"))

    @cached_property
    def series(self) -> dict[str, Path]:
        """{name: folder} of series that lie evenly, by their headers alone."""
        folders: dict[str, Path] = {}
        for folder in self.folders:
            for place in sorted((folder / "dicom" / "series").glob("*/")):
                if place.name not in folders and series_in(place) is not None:
                    folders[place.name] = place
        return folders

    def some_series(self, rng: Random) -> Series:
        """A series as it lies there, or a volume as a series."""
        if rng.random() < 0.6:
            name = rng.choice(list(self.series))
            slices = series_in(self.series[name])
            assert slices is not None
            return Series.of(name, slices)
        name, volume = self.some_volume(rng)
        return Series.of(name, series_of(volume, rng))

    def some_volume(self, rng: Random) -> tuple[str, Volume]:
        """A part of a volume, and the name of its set."""
        while True:
            name = rng.choice(list(self.volumes))
            image = nibabel.load(rng.choice(self.volumes[name]))
            values = image.dataobj
            if len(values.shape) != 3 or min(values.shape) < 5 or values.dtype.kind not in "uif":
                continue
            if not (int(image.header["sform_code"]) or int(image.header["qform_code"])):
                continue
            start = [max(0, (size - MOST_VOXELS) // 2) for size in values.shape]
            part = np.asarray(values[tuple(slice(at, at + MOST_VOXELS) for at in start)])
            affine = np.array(image.affine)
            affine[:3, 3] = (affine @ [*start, 1])[:3]
            axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
            finite = bool(np.isfinite(part).all()) and bool(np.isfinite(affine).all())
            if finite and np.allclose(axes.T @ axes, np.eye(3), atol=1e-4):
                return name, Volume(part.astype(np.float32) if part.dtype.kind == "f" else plain_integers(part), affine)

    def some_picture(self, rng: Random, side: int = MOST_PIXELS) -> tuple[str, Volume]:
        """The middle of a picture, and the name of its set."""
        name = rng.choice(list(self.pictures))
        return name, Volume(small_picture(rng.choice(self.pictures[name]), side))

    def some_pictures(self, rng: Random, count: int) -> tuple[str, list[Array]]:
        """Several pictures of one set that differ, of three channels or of one."""
        name = rng.choice([name for name, paths in self.pictures.items() if len(paths) >= 4])
        paths = self.pictures[name]
        chosen = rng.sample(paths, min(count, len(paths)))
        pictures = [np.array(PIL.Image.fromarray(small_picture(path)).convert("L")) for path in chosen]
        generator = np.random.default_rng(rng.randrange(1 << 30))
        while len(pictures) < count:  # of few pictures each gives several crops
            pictures.append(np.roll(pictures[len(pictures) % len(paths)], int(generator.integers(9, 30)), axis=1))
        return name, pictures


def plain_integers(values: Array) -> Array:
    """Whole numbers of at most four bytes."""
    for kind in (np.uint8, np.int16, np.uint16):
        if np.iinfo(kind).min <= values.min() and values.max() <= np.iinfo(kind).max:
            return values.astype(kind)
    return values.astype(np.int32)


def masked_volumes(folders: Sequence[Path], rng: Random, count: int) -> list[tuple[Path, Path]]:
    """(image, mask) of some volumes of the set of hippocampi."""
    images = {path.name: path for folder in reversed(folders) for path in (folder / "hippocampus/images").glob("*.gz")}
    chosen = rng.sample(sorted(images), count)
    return [(images[name], images[name].parents[1] / "labels" / name) for name in chosen]
