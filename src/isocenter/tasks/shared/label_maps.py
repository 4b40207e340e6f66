"""Labels as settings hold them, and label maps: whole numbers on the grid of their image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from isocenter.errors import DatasetError, GeometryError
from isocenter.values import Array, Code, Image, Label, Prediction


def label_values(data: Array, where: str) -> Array:
    """(1, *spatial) as whole numbers (*spatial); a float file may hold them too. DatasetError where they are not."""
    if len(data) != 1:
        raise DatasetError(f"a mask with {len(data)} channels", where, "Give one label map per case")
    values = data[0]
    if values.dtype.kind == "f":
        whole = np.rint(values)
        if not np.array_equal(whole, values):
            raise DatasetError("a mask with values that are not whole numbers", where, "Give a label map")
        values = whole.astype(np.int64)
    return values.astype(np.uint8) if values.dtype.kind == "b" else values


def places_of(structures: Mapping[str, tuple[int, ...]], values: Array) -> dict[str, Array]:
    """{structure: (*spatial) where it is} in a label map; structures: {name: its values}."""
    return {name: place_of(own, values) for name, own in structures.items()}


def place_of(own: tuple[int, ...], values: Array) -> Array:
    """(*spatial) where a label map has one of these values."""
    return np.asarray(values == own[0] if len(own) == 1 else np.isin(values, own))


def refuse_other_names(ours: Sequence[Label], declared: Sequence[Label], where: str) -> None:
    """DatasetError where a value means something else than in training; a bare number is no name."""
    known = {label.value: label.name for label in ours}
    for label in declared:
        name = known.get(label.value, label.name)
        if name.casefold() != label.name.casefold() and str(label.value) not in (name, label.name):
            raise DatasetError(
                f"the value {label.value} is {label.name!r} in the reference and {name!r} in the model",
                where,
                "Renumber the masks, or say with --labels what their values mean",
            )


def refuse_other_image_grid(what: str, reference: Image, image: Image, where: str) -> None:
    """GeometryError where a reference (what: its name in words) lies on another grid than the image."""
    if not reference.geometry.equals(image.geometry):
        raise GeometryError(
            f"{what} and image lie on different grids: {reference.geometry.difference(image.geometry)}",
            where,
            "Resample one onto the other, or leave the case out",
        )


def refuse_other_grid(prediction: Prediction, reference: Image, where: str) -> None:
    """GeometryError where a prediction lies on another grid than the reference that it is compared with."""
    if not prediction.geometry.equals(reference.geometry):
        raise GeometryError(
            f"prediction and reference lie on different grids: {prediction.geometry.difference(reference.geometry)}",
            where,
            "Predict on the image that was labelled",
        )


def plain(label: Label) -> dict[str, Any]:
    """Plain values, from which `label_from` makes an equal label."""
    kept = {key: value for key, value in asdict(label).items() if value is not None}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}


def label_from(entry: Mapping[str, Any]) -> Label:
    """The label of a plan's or a model's record."""
    colour = tuple(int(part) for part in entry["colour"]) if entry.get("colour") else None
    code = Code(**entry["code"]) if entry.get("code") else None
    return Label(int(entry["value"]), str(entry["name"]), colour, code)  # type: ignore[arg-type]
