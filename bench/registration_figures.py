"""The pictures of the page on registration: two persons, a fusion, a follow-up.

    python bench/registration_figures.py docs/images

Two persons are hippocampus volumes (MR), the fusion is a mean T1 head on the FLAIR of one person, and the follow-up is
that FLAIR head beside itself, turned and with a lesion that a known field has let grow.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
from registration_known import DATA, PAIRS, turned

import isocenter
from isocenter.report import page_blocks
from isocenter.report.figures import registration_figures, sheets, slice_figures
from isocenter.transforms import spatial_transforms
from isocenter.values import Displacement, Geometry, Image, Label, SpatialTransform
from isocenter.verbs.register import RegistrationResult

# Of a picture: pixels across, and colours, few enough for a page.
WIDTH, COLOURS = 480, 64
LESION = (Label(1, "lesion"),)
STRUCTURES = (Label(1, "anterior"), Label(2, "posterior"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=list(DRAWN), help=", ".join(DRAWN))
    given = parser.parse_args()
    for name in given.names:
        drawn = PIL.Image.open(io.BytesIO(sheets.stack_pictures(DRAWN[name]())))
        drawn = drawn.convert("RGB").resize((WIDTH, round(drawn.height * WIDTH / drawn.width)), PIL.Image.LANCZOS)
        # Colours of few pixels, as those of outlines, are kept beside many greys.
        palette = drawn.quantize(COLOURS, PIL.Image.Quantize.MAXCOVERAGE, dither=PIL.Image.Dither.NONE)
        palette.save(given.folder / f"{name}.png", optimize=True)


def persons() -> list[page_blocks.Figure]:
    folder = DATA / "hippocampus"
    listed = pd.read_csv(PAIRS / "hippocampus_pairs.csv").iloc[0]
    names = (listed["fixed"], listed["moving"])
    fixed, moving = (isocenter.read(folder / "images" / name) for name in names)
    drawn = [isocenter.read(folder / "labels" / name).data[0] for name in names]
    made = isocenter.register(fixed, moving, labels=moving.with_label_map(drawn[1], STRUCTURES))
    return [
        *of_pair(fixed, made, drawn[0], STRUCTURES),
        registration_figures.bent_grid(fixed, made.transform, "", near=drawn[0]),
    ]


def fusion() -> list[page_blocks.Figure]:
    fixed = isocenter.read(DATA / "mri" / "single_cases" / "brain_flair_image.nii.gz")
    moving = isocenter.read(DATA / "nifti" / "niivue_avg152T1_RL_sform_only.nii.gz")
    made = isocenter.register(fixed, moving, similarity="mind", initial="centres")
    return [
        registration_figures.checkerboard(fixed, made.moved, ""),
        registration_figures.bent_grid(fixed, made.transform, ""),
    ]


def follow_up() -> list[page_blocks.Figure]:
    folder = DATA / "mri" / "single_cases"
    head = isocenter.read(folder / "brain_flair_image.nii.gz")
    lesion = (isocenter.read(folder / "brain_flair_lesion_mask.nii.gz").data[0] == 1).astype(np.uint8)
    grid, middle = head.geometry, head.geometry.corners.mean(axis=0)
    true = SpatialTransform((grown(grid, lesion, 6.0), turned((6, -4, 8), (4, -3, 2), middle, middle)), grid, grid)
    back = spatial_transforms.invert_transform(true)
    later = head.with_pixels(np.nan_to_num(spatial_transforms.carry_image(head, back, grid, "cubic").data))
    larger = spatial_transforms.carry_labels(lesion, grid, back, grid)
    masks = [image.with_label_map(one, LESION) for image, one in ((head, lesion), (later, larger))]
    made = isocenter.register(head, later, initial="centres", lesions=masks, days=180, labels=masks[1])
    print(made.follow_up.table.to_string())
    return [
        *of_pair(head, made, lesion, LESION),
        registration_figures.jacobian_map(head, made.determinant, "", near=lesion),
    ]


def grown(grid: Geometry, lesion: np.ndarray, most: float) -> Displacement:
    """A field that leads away from the middle of a lesion, by at most so many mm."""
    places = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    away = places - grid.to_world(np.argwhere(lesion).mean(axis=0))
    radius = (3 * lesion.sum() * abs(np.linalg.det(grid.affine[:3, :3])) / (4 * np.pi)) ** (1 / 3)
    vectors = away * np.exp(-0.5 * (away**2).sum(axis=-1, keepdims=True) / radius**2)
    return Displacement(np.moveaxis(most * vectors / np.abs(vectors).max(), -1, 0).astype(np.float32), grid)


def of_pair(
    fixed: Image, made: RegistrationResult, drawn: np.ndarray, labels: tuple[Label, ...]
) -> list[page_blocks.Figure]:
    """A checkerboard of both images, and the outlines in the fixed and the moved one."""
    assert made.moved_labels is not None
    outlines = slice_figures.contours(fixed, drawn, made.moved_labels.data[0], labels, "", owners=("fixed", "moved"))
    return [registration_figures.checkerboard(fixed, made.moved, "", near=drawn), outlines]


DRAWN = {"registration": persons, "fusion": fusion, "follow_up": follow_up}

if __name__ == "__main__":
    main()
