"""Cases of two images: the moving one on the grid of the fixed one, and pairs that are sampled from single images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from hilum import errors
from hilum.errors import DatasetError, GeometryError, UsageError
from hilum.lazy import pandas as pd
from hilum.transforms import random_draws, spatial_transforms
from hilum.values import (
    Affine,
    Array,
    Case,
    Dataset,
    Deferred,
    Geometry,
    Image,
    LazyMapping,
    Problem,
    SpatialTransform,
    Split,
    dataset_cases,
    spatial_transform,
)
from hilum.values.dataset_cases import References
from hilum.values.spatial_transform import ONTO, UNMOVED, Correspondence

FIELD, MASK = "field", "mask"
FIXED, MOVING = "fixed", "moving"
# Pairs of each fixed volume that trains: at the fewest, and at the most, since each is read and prepared by itself.
FEWEST_OF_VOLUME, MOST_OF_VOLUME = 5, 10
# Of one that selects or tests: pairs of one volume say much the same, and each is answered and refined in seconds.
PREDICTED_OF_VOLUME = 2
# Bytes of all prepared pairs that train, and of each voxel: two channels and a label.
PREPARED, VOXEL_BYTES = 2**31, 9
# Of the patients, the shares that test and select; volumes that select at the most, and of each part at the fewest.
TEST_SHARE, VAL_SHARE, MOST_SELECTING, FEWEST_OF_PART = 0.2, 0.15, 20, 2
DRAW = 2**18


def with_pairs(dataset: Dataset, pairs: int | None = None, *, samples: bool = True) -> Dataset:
    """The data set with each moving image on the grid of its fixed one; of single images pairs are sampled.

    pairs: of each image as the fixed one; None: as many of one that trains as fit into memory, 5 to 10, else 2
    samples: False where only listed pairs are wanted
    Patients are parted before pairs are sampled, so that no image is in two parts. The transform through which a moving
    image came there is its fact `ONTO`, the image itself `UNMOVED`.
    """
    where = str(dataset.root or dataset.name)
    is_listed = all({*case.images} >= {FIXED, MOVING} for case in dataset)
    if not is_listed and not samples:
        remedy = "Give a table with the columns fixed and moving, or x_fixed_image beside x_moving_image"
        raise UsageError("holds single images, and the model takes pairs", where, remedy)
    if is_listed:
        return replace(dataset, cases=tuple(_brought(case, case.images, case.references) for case in dataset))
    parts = _parts(dataset)
    sampled_pairs = _sample_pairs(dataset, parts, pairs)
    if not sampled_pairs:
        problem = f"{errors.count_phrase(len(dataset), 'image')}: too few to sample pairs from"
        raise DatasetError(problem, where, "Give more images, or list pairs in a table")
    words = "patients were parted first, by seed 0, and pairs lie within a part"
    counts = {part: sum(one == part for _, one in sampled_pairs) for part in ("train", "val", "test")}
    counts_text = ", ".join(f"{count} {part}" for part, count in counts.items())
    images = errors.count_phrase(len(dataset), "image")
    classes = {FIELD: dataset.classes[MASK]} if MASK in dataset.classes else {}
    return replace(
        dataset,
        cases=tuple(case for case, _ in sampled_pairs),
        splits={case.id: part for case, part in sampled_pairs},
        classes=classes,
        regions={},
        parted=words,
        derived={FIELD: f"{len(sampled_pairs)} pairs of {images} ({counts_text}), {words}"},
    )


def pairs_table(dataset: Dataset, parts: Mapping[str, str]) -> pd.DataFrame:
    """A row for each pair: case, fixed, moving (files relative to the data set) and its part; empty without pairs."""
    rows = []
    for case in dataset if FIELD in dataset.kinds else ():
        named = [_within(path, dataset.root) for path in case.files[:2]]
        rows.append({"case": case.id, FIXED: named[0], MOVING: named[-1], "split": parts.get(case.id, "")})
    return pd.DataFrame(rows)


def _within(path: Path, root: Path | None) -> str:
    folder = root if root is None or root.is_dir() else root.parent
    return (path.relative_to(folder) if folder is not None and path.is_relative_to(folder) else path).as_posix()


def _parts(dataset: Dataset) -> dict[str, Split]:
    """{patient: part}: the set's own split; without a test or a validation part some patients are sampled for it."""
    people = list(dict.fromkeys(person for case in dataset for person in dataset_cases.people_of_patient(case.patient)))
    stated_parts: dict[str, Split] = {
        person: dataset.splits[case.id]
        for case in dataset
        if case.id in dataset.splits
        for person in dataset_cases.people_of_patient(case.patient)
    }
    parts: dict[str, Split] = {person: stated_parts.get(person, "train") for person in people}
    for number, (part, share, most) in enumerate((("test", TEST_SHARE, math.inf), ("val", VAL_SHARE, MOST_SELECTING))):
        if part in stated_parts.values() or (part == "test" and dataset.painted):
            continue
        free = [person for person, now in parts.items() if now == "train"]
        count = min(max(FEWEST_OF_PART, round(share * len(free))), most, len(free) - FEWEST_OF_PART)
        chosen = random_draws.sample_generator(0, DRAW, number).permutation(len(free))[: max(0, int(count))]
        parts |= {free[place]: part for place in chosen.tolist()}
    return parts


def split_pairs(dataset: Dataset) -> Dataset:
    """Listed pairs that are to train, with their parts and without those of two parts.

    Pairs of one patient each are parted as any cases.
    """
    several = any(len(dataset_cases.people_of_patient(case.patient)) > 1 for case in dataset)
    if not several or dataset.parted:
        return dataset
    parts = _parts(dataset)
    parts_of_pairs = {
        case.id: {parts[person] for person in dataset_cases.people_of_patient(case.patient)} for case in dataset
    }
    crossing = tuple(name for name, own in parts_of_pairs.items() if len(own) > 1)
    pairs = replace(
        dataset.only({*parts_of_pairs} - {*crossing}),
        splits={n: min(own) for n, own in parts_of_pairs.items() if n not in crossing},
    )
    pairs = (
        pairs
        if dataset.splits
        else replace(pairs, parted="patients were parted by seed 0, so that no image is in two parts")
    )
    if not crossing:
        return pairs
    what = f"{errors.count_phrase(len(crossing), 'pair joins', 'pairs join')} images of two parts"
    problem = Problem.warning(what, crossing, "they are left out", "State parts in a column split")
    return replace(pairs, problems=(*dataset.problems, problem))


def _sample_pairs(dataset: Dataset, parts: Mapping[str, Split], pairs: int | None) -> list[tuple[Case, Split]]:
    sampled_pairs = list[tuple[Case, Split]]()
    for number, part in enumerate(("train", "val", "calibration", "test")):
        cases = [case for case in dataset if parts[case.patient] == part]
        most = pairs or (_that_fit(cases) if part == "train" else PREDICTED_OF_VOLUME)
        for position, fixed in enumerate(cases):
            others = [n for n in range(len(cases)) if n != position]
            order = random_draws.sample_generator(0, DRAW, 2 + number, position).permutation(others)[
                : min(most, len(others))
            ]
            sampled_pairs += [(_of_two(fixed, cases[n]), part) for n in order.tolist()]  # type: ignore[misc]  # the part is one of the data set's
    return sampled_pairs


def _that_fit(cases: Sequence[Case]) -> int:
    """Pairs of each volume that fit into memory together, by the size of the first; at least five."""
    if not cases:
        return FEWEST_OF_VOLUME
    voxels = math.prod(_one_channel(_first_image(cases[0]), cases[0].id).geometry.shape)
    fitting = PREPARED // (VOXEL_BYTES * voxels * len(cases))
    return int(min(max(fitting, FEWEST_OF_VOLUME), MOST_OF_VOLUME))


def _first_image(case: Case) -> Image:
    return next(iter(case.images.values()))


def _of_two(fixed: Case, moving: Case) -> Case:
    """The case of two single images; what is contoured in both goes with them."""
    images = {FIXED: partial(_first_image, fixed), MOVING: partial(_first_image, moving)}
    case = Case(
        f"{moving.id}_on_{fixed.id}",
        spatial_transform.patients_of_pair(fixed.patient, moving.patient),
        {},
        covariates=fixed.covariates,
        files=(*fixed.files[:1], *moving.files[:1], *fixed.files[1:], *moving.files[1:]),
        key=f"{fixed.key}|{moving.key}",
    )
    references = {FIELD: partial(_both_masks, fixed, moving)}
    return _brought(case, LazyMapping(images), LazyMapping(references))


def pair_of_images(fixed: Image, moving: Image, where: str, *, one_world: bool) -> Case:
    """The case of two images that are in memory.

    one_world: whether both are of one patient, whose headers may share a world
    """
    case = Case(where, where if one_world else spatial_transform.patients_of_pair(f"{where} 1", f"{where} 2"), {})
    return _brought(case, {FIXED: fixed, MOVING: moving}, {})


def _both_masks(fixed: Case, moving: Case) -> Correspondence:
    return Correspondence(*(case.references.get(MASK) for case in (fixed, moving)))


def _brought(case: Case, images: Mapping[str, Image], references: References) -> Case:
    """The case with its moving image on the fixed grid, and the transform in what is known of the pair."""
    same = len(dataset_cases.people_of_patient(case.patient)) == 1
    given = (images, case.id, same)
    loaders: dict[str, Callable[[], Image]] = {FIXED: partial(_fixed_image, *given), MOVING: partial(_moving, *given)}
    known = partial(_known_correspondence, references, *given)
    return replace(case, images=LazyMapping(loaders), references=LazyMapping({FIELD: known}))


def _fixed_image(images: Mapping[str, Image], where: str, same: bool) -> Image:
    del same
    return _one_channel(images[FIXED], where)


def _moving(images: Mapping[str, Image], where: str, same: bool) -> Image:
    fixed, moving = (_one_channel(images[side], where) for side in (FIXED, MOVING))
    onto = initial_transform(fixed.geometry, moving.geometry, where, one_world=same)
    # Read when it is asked for: a case is looked at several times before its voxels are.
    load = partial(_on_fixed_grid, moving, onto, fixed.geometry)
    pixels = Deferred((1, *fixed.geometry.shape), np.dtype(np.float32), load)
    facts = {**moving.facts, ONTO: onto, UNMOVED: moving}
    return replace(moving, pixels=pixels, geometry=fixed.geometry, padding=None, facts=facts)


def _on_fixed_grid(moving: Image, onto: SpatialTransform, grid: Geometry) -> Array:
    return spatial_transforms.carry_image(moving, onto, grid, beyond="edge").data


def _known_correspondence(
    references: References, images: Mapping[str, Image], where: str, same: bool
) -> Correspondence:
    pair: Correspondence = references[FIELD] if FIELD in references else Correspondence()
    fixed, moving = (_one_channel(images[side], where).geometry for side in (FIXED, MOVING))
    return replace(pair, onto=initial_transform(fixed, moving, where, one_world=same))


def _one_channel(image: Image, where: str) -> Image:
    """A still image of one channel: of several their mean."""
    if image.frames is not None:
        raise GeometryError(f"an image of {image.frames} frames", where, "Give two still images")
    if image.shape[0] == 1:
        return image
    return replace(image, pixels=image.data.astype(np.float32).mean(axis=0)[None], channels=("0",), facts={})


def initial_transform(fixed: Geometry, moving: Geometry, where: str, *, one_world: bool) -> SpatialTransform:
    """The transform from which a registration begins: places as the headers state them, else centre on centre.

    one_world: whether both images are of one patient, whose headers may share a world
    Raises GeometryError for a picture with a volume, and where the size of a voxel is known of one image only.
    """
    spatial_transforms.refuse_unlike_axes((fixed, moving), where)
    if fixed.physical != moving.physical:
        problem = f"the size of a voxel is known of the {FIXED if fixed.physical else MOVING} image only"
        raise GeometryError(problem, where, "Give two images with a size in mm, or two without")
    shared = fixed.frame_of_reference is not None and fixed.frame_of_reference == moving.frame_of_reference
    apart = None not in (fixed.frame_of_reference, moving.frame_of_reference) and not shared
    if (shared or (one_world and not apart and fixed.physical)) and fixed.meets(moving):
        return SpatialTransform((), fixed, moving)
    matrix = np.eye(fixed.ndim + 1)
    matrix[:-1, -1] = moving.corners.mean(axis=0) - fixed.corners.mean(axis=0)
    return SpatialTransform((Affine(matrix),), fixed, moving)
