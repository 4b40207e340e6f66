"""Draws the picture of the page on enhancement: one image with spheres, and results that differ in what they keep.

python docs/draw_fidelity.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from scipy import ndimage

from hilum.evaluation import image_fidelity, inserted_spheres
from hilum.evaluation.inserted_spheres import InsertedSphere
from hilum.transforms import corruptions, image_filters
from hilum.values import Geometry, Image

PICTURE = Path(__file__).parent / "images" / "fidelity.png"
SIDE, SEED, CUT = 160, 3, slice(8, 152)


def main() -> None:
    grid = Geometry.of_spacing((SIDE, SIDE), (1.0, 1.0))
    plain = phantom()
    inside = np.ones(plain.shape, bool)
    spheres = inserted_spheres.choose_spheres(plain, grid, inside, np.random.default_rng(SEED))
    marked = inserted_spheres.insert_spheres(plain, spheres, grid)
    damage = corruptions.draw_damage({"rician": [0.05, 0.05]}, seed=0, case="phantom")
    clean = Image(plain[None].astype(np.float32), grid, modality="MR")
    seen = [damage(clean.with_pixels(one[None].astype(np.float32)), clean) for one in (plain, marked)]
    results = {
        "noisy": [one.data[0] for one in seen],
        "non-local means": [image_filters.filter_image(one, "nlm", "phantom")[0].data[0] for one in seen],
        # What a network does that has never seen a small structure: it takes the clean image for it.
        "erases 3 mm": [plain, np.where(small(spheres, grid), plain, marked)],
    }
    smallest = [one for one in spheres if one.size == min(inserted_spheres.DIAMETERS)]
    figure = Figure(figsize=(9.2, 2.8), facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 4)
    show(panels[0], "clean, with spheres\n3 mm in circles", marked, marked.max(), smallest)
    for axes, (name, (without, result)) in zip(panels[1:], results.items(), strict=True):
        found = inserted_spheres.contrasts_found(result, without, smallest, grid)
        slope = inserted_spheres.recovery_slope([one.contrast for one in smallest], found)
        figures = f"PSNR {image_fidelity.psnr(result, marked):.1f} dB, recovery of 3 mm {slope:.2f}"
        show(axes, f"{name}\n{figures}", result, marked.max(), smallest)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.0, top=0.85, wspace=0.02)
    figure.savefig(PICTURE, dpi=110)


def show(axes: Axes, title: str, values: np.ndarray, most: float, marked: Sequence[InsertedSphere]) -> None:
    """A slice, cut to the head, with the small spheres in circles."""
    axes.imshow(values[CUT, CUT], cmap="gray", vmin=0, vmax=most)
    axes.set_title(title, fontsize=7.5)
    axes.set_axis_off()
    for one in marked:
        row, column = (place - CUT.start for place in one.centre)
        axes.add_patch(Circle((column, row), 5, fill=False, color="#f0b040", linewidth=0.8))


def phantom() -> np.ndarray:
    """A slice of a simulated head: rings, two ventricles, smooth texture."""
    rows, columns = np.indices((SIDE, SIDE)) - SIDE / 2
    away = np.hypot(rows / 1.1, columns)
    values = 300.0 * (away < 66) + 350 * ((away > 60) & (away < 66))
    for side in (-1, 1):
        values[np.hypot(rows / 2.2, columns - 14 * side) < 9] = 120
    texture = ndimage.gaussian_filter(np.random.default_rng(SEED).normal(size=values.shape), 6)
    return np.where(away < 60, values + 400 * texture, values).clip(0)


def small(spheres: tuple[InsertedSphere, ...], grid: Geometry) -> np.ndarray:
    """Where the smallest spheres are."""
    inside = np.zeros(grid.shape, bool)
    for one in spheres:
        if one.size == min(inserted_spheres.DIAMETERS):
            region, filled = one.profile(grid)
            inside[region] |= filled > 0
    return inside


if __name__ == "__main__":
    main()
