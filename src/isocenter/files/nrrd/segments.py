"""Slicer's segments in the key/value pairs of a .seg.nrrd: names, values, colours, codes, layers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from isocenter.errors import FormatError
from isocenter.files.label_table import checked, clean
from isocenter.files.nrrd.header import Header
from isocenter.values import Code, Image, Label


@dataclass(frozen=True)
class Segment:
    """A label and the layer in which its value means it."""

    label: Label
    layer: int


def segments_of(header: Header, path: Path) -> tuple[Segment, ...]:
    """The segments in the order of their numbers; none where the file is no segmentation."""
    numbers = sorted({int(m[1]) for key in header.pairs if (m := re.match(r"Segment(\d+)_(?:Name|ID)$", key))})
    try:
        segments = tuple(_segment(header, number) for number in numbers)
    except ValueError as error:
        raise FormatError(f"a segment that cannot be read ({error})", str(path), "Save it again in Slicer") from error
    for layer in {segment.layer for segment in segments}:
        checked([s.label for s in segments if s.layer == layer], str(path))
    return segments


def segment_fields(image: Image) -> list[str]:
    """Key/value lines that Slicer reads as segments."""
    extent = " ".join(f"0 {n - 1}" for n in image.geometry.shape)
    lines = ["Segmentation_MasterRepresentation:=Binary labelmap"]
    for number, label in enumerate(label for label in image.labels if label.value != 0):
        start = f"Segment{number}_"
        lines += [f"{start}ID:=Segment_{label.value}", f"{start}Name:={clean(label.name)}", f"{start}Layer:=0"]
        lines += [f"{start}LabelValue:={label.value}", f"{start}Extent:={extent}"]
        if label.colour is not None:
            lines += [f"{start}Color:={' '.join(str(round(n / 255, 6)) for n in label.colour)}"]
        if label.code is not None:
            code = "^".join((label.code.scheme, label.code.value, clean(label.code.meaning)))
            lines += [f"{start}Tags:=TerminologyEntry:Isocenter~SCT^123037004^Anatomical Structure~{code}~^^~~^^~^^|"]
    return lines


def _segment(header: Header, number: int) -> Segment:
    def pair(name: str, otherwise: str = "") -> str:
        return header.pairs.get(f"Segment{number}_{name}", otherwise)

    value = int(pair("LabelValue", str(number + 1)))  # before Slicer 4.11 the values counted up
    name = clean(pair("Name") or pair("ID")) or f"{value}"
    words = pair("Color").split()
    colour = tuple(round(255 * min(max(float(word), 0.0), 1.0)) for word in words)
    code = _code(pair("Tags"))
    label = Label(value, name, (colour[0], colour[1], colour[2]) if len(colour) == 3 else None, code)
    return Segment(label, int(pair("Layer", "0")))


def _code(tags: str) -> Code | None:
    """The segment's type in Slicer's terminology entry: category~type~modifier~region~..."""
    entry = re.search(r"TerminologyEntry:([^|]*)", tags)
    parts = entry[1].split("~") if entry else []
    words = parts[2].split("^") if len(parts) > 2 else []
    return Code(words[0], words[1], words[2]) if len(words) == 3 and words[1] else None
