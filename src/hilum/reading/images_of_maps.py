"""Images painted from label maps: of cases that have no others, and once more of cases of which others are wanted.

A painted image is made when it is read, by its case and the number of the draw: nobody stores it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from hilum import errors
from hilum.files.modality_words import UNKNOWN_MODALITY
from hilum.tasks import Task
from hilum.transforms import painting
from hilum.transforms.painting import PaintingRanges
from hilum.values import Array, Case, Dataset, Deferred, Image, LazyMapping, Problem

MASK, IMAGE = "mask", "image"
NO_IMAGE = "No real image was ever seen: those that taught, selected and set the gate were painted from label maps."


def with_painted_images(dataset: Dataset) -> Dataset:
    """The data set with an image painted from the label map of each case, where there are label maps and no images."""
    if any(case.images for case in dataset) or MASK not in dataset.kinds:
        return dataset
    cases = tuple(_with_image(case) if MASK in case.references else case for case in dataset)
    maps = errors.count_phrase(len(cases), "label map")
    words = f"an image of any contrast is painted from each of {maps}"
    problem = Problem.warning(
        f"{maps} and no images",
        why="images are painted from them, which select and calibrate too: no real image is seen, nothing is tested",
        remedy="Put the images into images/ in the same folder, where there are some",
    )
    return replace(dataset, cases=cases, painted=words, problems=(*dataset.problems, problem))


def _with_image(case: Case) -> Case:
    return replace(case, images=LazyMapping({IMAGE: partial(_image_of_mask, case)}), key=f"{case.key}|painted")


def _image_of_mask(case: Case) -> Image:
    mask: Image = case.references[MASK]
    ranges = PaintingRanges(intensities=False)
    load = partial(_paint_mask, mask, ranges, case.id)
    pixels = Deferred((1, *mask.geometry.shape), np.dtype(np.float32), load)
    return replace(
        mask, pixels=pixels, modality=UNKNOWN_MODALITY, channels=("0",), padding=None, labels=(), notes=(), facts={}
    )


def _paint_mask(mask: Image, ranges: PaintingRanges, case: str) -> Array:
    return painting.paint_case(mask.data[:1], mask.geometry.steps, ranges, case=case)


def repainted_cases(case: Case, task: Task, ranges: PaintingRanges, draws: int) -> Iterator[Case]:
    """The case so many times with other images, painted from what it teaches; none where that is no label map.

    Modality and facts of the intensities are those of no scanner; what says where the image lies stays.
    """
    if task.painting is None:
        return
    labels = np.asarray(task.target(case).data)
    shown = [np.asarray(table)[labels] for table in task.painting.shown]
    for draw in range(1, draws + 1):
        yield replace(case, images=LazyMapping(dict(_repainted(case, shown, ranges, draw))))


def _repainted(
    case: Case, shown: list[Array], ranges: PaintingRanges, draw: int
) -> Iterator[tuple[str, partial[Image]]]:
    first = 0
    for name in case.images:
        image = case.images[name]
        places = range(first, first := first + image.shape[0])
        maps = np.stack([shown[place if len(shown) > 1 else 0] for place in places])
        yield name, partial(_repaint, image, maps, ranges, f"{case.id}/{name}", draw)


def _repaint(image: Image, maps: Array, ranges: PaintingRanges, case: str, draw: int) -> Image:
    pixels = painting.paint_case(maps, image.geometry.steps, replace(ranges, intensities=False), case=case, draw=draw)
    return replace(image, pixels=pixels, modality=UNKNOWN_MODALITY, padding=None)
