"""Labels as settings hold them, and label maps: whole numbers on the grid of their image."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from hilum.errors import DatasetError
from hilum.evaluation import mask_overlap
from hilum.values import Array, Code, Image, Label, Prediction, Setting, StatedSettings

if TYPE_CHECKING:
    from hilum.values.plain_values import PlainValue


def label_values(data: Array, where: str) -> Array:
    """(1, *spatial) as whole numbers (*spatial); a float file may hold them too. DatasetError where they are not."""
    if len(data) != 1:
        raise DatasetError(f"a mask with {len(data)} channels", where, "Give one label map per case")
    values = data[0]
    if values.dtype.kind == "f":
        rounded = np.rint(values)
        if not np.array_equal(rounded, values):
            raise DatasetError("a mask with values that are not whole numbers", where, "Give a label map")
        values = rounded.astype(np.int64)
    return cast("Array", values.astype(np.uint8) if values.dtype.kind == "b" else values)


def structure_voxels(structures: Mapping[str, tuple[int, ...]], values: Array) -> dict[str, Array]:
    """{structure: (*spatial) where it is} in a label map; structures: {name: its values}."""
    return {name: mask_overlap.mask_of_values(own, values) for name, own in structures.items()}


def own_values(ours: Sequence[Label], declared: Sequence[Label], where: str) -> dict[int, int]:
    """{value of a reference: value of the model's label that means the same}.

    Names decide where both sides have them, and numbers elsewhere: a bare number is no name.
    ours, declared: the labels of the model and of the reference
    Raises DatasetError where a value means something else than in the model, unless other names show that the
    reference is numbered otherwise.
    """
    named = {normalise_name(label.name): label.value for label in ours}
    names = {label.value: label for label in declared if not label.is_bare}
    matched = {value: named[name] for value, one in names.items() if (name := normalise_name(one.name)) in named}
    is_numbered_alike = all(value == own for value, own in matched.items())
    for label in ours:
        other = names.get(label.value)
        if label.value in matched.values() or label.value in matched:
            continue
        if other is None or label.is_bare:
            matched[label.value] = label.value
        elif is_numbered_alike and not (other.is_ignored or other.is_background):
            raise DatasetError(
                f"the value {label.value} is {other.name!r} in the reference and {label.name!r} in the model",
                where,
                "Renumber the masks, or say with --labels what their values mean",
            )
    return matched


def renumber_mask(mask: Image, ours: Sequence[Label], where: str) -> Image:
    """A label map under the model's numbers and names; what has a name that the model does not know is background.

    Raises DatasetError as `own_values` does.
    """
    numbers_of = own_values(ours, mask.labels, where)
    others = [label for label in mask.labels if label.value and label.value not in numbers_of]
    if all(value == number for value, number in numbers_of.items()) and not {one.value for one in others} & {
        *numbers_of.values()
    }:
        return mask
    values = label_values(mask.data, where)
    unknown = 1 + max(int(values.max()), *numbers_of, *numbers_of.values(), *(one.value for one in others))
    moved = {one.value: unknown if one.is_ignored else 0 for one in others} | numbers_of
    numbers = np.arange(unknown + 1)
    numbers[list(moved)] = list(moved.values())
    labels = [label for label in ours if label.value in numbers_of.values()]
    labels += [replace(one, value=unknown) for one in others if one.is_ignored]
    renumbered_map = numbers.astype(np.min_scalar_type(unknown))[values]
    return replace(mask, pixels=renumbered_map[np.newaxis], labels=tuple(labels))


def normalise_name(name: str) -> str:
    """A name without regard to case, and to blanks, hyphens or underscores between its words."""
    return " ".join(re.split(r"[\s_-]+", name.strip().casefold()))


def refuse_other_image_grid(what: str, reference: Image, image: Image, where: str) -> None:
    """GeometryError where a reference (what: its name in words) lies on another grid than the image."""
    reference.geometry.refuse_other(
        image.geometry,
        f"{what} and image lie on different grids",
        where,
        reference.geometry.remedy_on(image.geometry),
    )


def refuse_other_grid(prediction: Prediction, reference: Image, where: str) -> None:
    """GeometryError where a prediction lies on another grid than the reference that it is compared with."""
    prediction.geometry.refuse_other(
        reference.geometry,
        "prediction and reference lie on different grids",
        where,
        "Predict on the image that was labelled",
    )


def plain_labels(labels: Sequence[Label]) -> list[dict[str, PlainValue]]:
    """Plain values, from which `labels_from` makes equal labels."""
    return [_plain(label) for label in labels]


def labels_from(entries: Sequence[StatedSettings]) -> tuple[Label, ...]:
    """The labels of a plan's or a model's record."""
    return tuple(_label_from(entry) for entry in entries)


def _plain(label: Label) -> dict[str, PlainValue]:
    stated_fields = {key: value for key, value in asdict(label).items() if value is not None}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in stated_fields.items()}


def _label_from(entry: StatedSettings) -> Label:
    colour = tuple(int(part) for part in entry["colour"]) if entry.get("colour") else None
    code = Code(**entry["code"]) if entry.get("code") else None
    return Label(int(entry["value"]), str(entry["name"]), cast("tuple[int, int, int] | None", colour), code)


# The structures of a kind of problem, as its setting `task.labels`.
LABELS = Setting(name="labels", read=labels_from, plain=plain_labels, target=True)
