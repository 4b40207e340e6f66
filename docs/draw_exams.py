"""Draws the picture of the page on exams: views of unlike sizes, and the same views on the shape of the first.

python docs/draw_exams.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import ndimage

from hilum.reading import alignment
from hilum.values import Case, Geometry, Image

PICTURE = Path(__file__).parent / "pictures" / "exams.png"
SIZES = {"LCC": (200, 150), "LMLO": (260, 150), "RCC": (180, 180), "RMLO": (230, 120)}
GREY, BESIDE = "gray", (0.48, 0.56, 0.72)


def main() -> None:
    views = {name: view(name, np.random.default_rng(n)) for n, name in enumerate(SIZES)}
    exam = alignment.aligned_case(Case("exam", "phantom", views), "apart")
    rows = (views, {name: exam.images[name] for name in views})
    figure = Figure(figsize=(7.2, 4.6), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    tallest, widest = (max(size[axis] for size in SIZES.values()) for axis in (0, 1))
    for axes, (name, image) in zip(
        figure.subplots(2, len(SIZES)).flat, ((name, image) for row in rows for name, image in row.items()), strict=True
    ):
        axes.set_facecolor("white")
        rows_, columns = image.geometry.shape
        axes.imshow(np.full((*image.geometry.shape, 3), BESIDE))
        axes.imshow(np.ma.masked_invalid(image.data[0]), cmap=GREY, vmin=0, vmax=255)
        axes.set_xlim(-0.5, widest - 0.5)
        axes.set_ylim(tallest - 0.5, -0.5)
        axes.set_title(f"{name}, {rows_} x {columns}", fontsize=9)
        axes.axis("off")
    figure.savefig(PICTURE, dpi=110)


def view(name: str, rng: np.random.Generator) -> Image:
    """Half an ellipse of soft texture at the side that the name states, in RCC with a bright spot."""
    shape = SIZES[name]
    down, across = np.indices(shape) / np.array(shape)[:, None, None]
    across = across if name.startswith("R") else 1 - across
    inside = ((down - 0.5) / 0.42) ** 2 + (across / 0.8) ** 2 < 1
    texture = ndimage.gaussian_filter(rng.normal(size=shape), 5)
    pixels = np.where(inside, 120 + 40 * texture / texture.std(), 8.0)
    if name == "RCC":
        pixels += 110 * np.exp(-(((np.indices(shape) - np.array([[[80]], [[70]]])) ** 2).sum(axis=0)) / (2 * 5**2))
    return Image(ndimage.gaussian_filter(pixels, 1)[None].clip(0, 255).astype(np.float32), Geometry.of_pixels(shape))


if __name__ == "__main__":
    main()
