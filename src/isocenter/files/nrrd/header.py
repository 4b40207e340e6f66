"""The text at the head of a NRRD file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import FormatError

LARGEST_HEADER = 1 << 22


@dataclass(frozen=True)
class Header:
    """fields: lower-case name to text; pairs: key to value of what a program added; end: first byte after it."""

    path: Path
    fields: Mapping[str, str]
    pairs: Mapping[str, str]
    end: int

    def get(self, name: str, otherwise: str = "") -> str:
        return self.fields.get(name, otherwise)

    def field(self, name: str) -> str:
        if name not in self.fields:
            raise self.damaged(f"the header has no {name!r}")
        return self.fields[name]

    def integer(self, name: str, otherwise: int) -> int:
        return int(self.numbers(name, int)[0]) if name in self.fields else otherwise

    def numbers(self, name: str, kind: type = float) -> list[float]:
        try:
            return [kind(word) for word in self.field(name).split()]
        except ValueError as error:
            raise self.damaged(f"{name!r} is {self.field(name)!r}") from error

    @property
    def sizes(self) -> tuple[int, ...]:
        sizes = tuple(int(n) for n in self.numbers("sizes", int))
        if len(sizes) != self.integer("dimension", 0) or min(sizes, default=0) < 1:
            raise self.damaged(f"sizes {self.field('sizes')} in {self.get('dimension')} dimensions")
        return sizes

    def words(self, name: str) -> list[str]:
        """One word, or one quoted string, per axis; as many empty ones where the field is not there."""
        if name not in self.fields:
            return [""] * len(self.sizes)
        words = re.findall(r'"((?:[^"\\]|\\.)*)"', self.fields[name]) or self.fields[name].split()
        if name != "space units" and len(words) != len(self.sizes):
            raise self.damaged(f"{len(self.sizes)} axes and {name!r} is {self.fields[name]!r}")
        return words

    def vectors(self, name: str) -> list[NDArray[np.float64] | None]:
        """Vectors as "(1,0,0) none (0,1,0)"; None for "none"."""
        found = re.findall(r"none|\(([^)]*)\)", self.field(name))
        spelled = re.findall(r"none|\([^)]*\)", self.field(name))
        try:
            return [
                None if word == "none" else np.array([float(n) for n in inner.split(",")])
                for word, inner in zip(spelled, found, strict=True)
            ]
        except ValueError as error:
            raise self.damaged(f"{name!r} is {self.field(name)!r}") from error

    def damaged(self, problem: str) -> FormatError:
        return FormatError(problem, str(self.path), "The NRRD header is damaged: get the file again")


def read_header(path: Path) -> Header:
    """Fields, key/value pairs, and where the voxels begin."""
    with path.open("rb") as file:
        head = file.read(LARGEST_HEADER)
    if not head.startswith(b"NRRD0"):
        raise FormatError("not a NRRD file", str(path), "Check what kind of file it is")
    blank = re.search(rb"\r?\n\r?\n", head)
    end = blank.end() if blank else len(head)
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    for line in head[: blank.start() if blank else end].decode("utf-8", "replace").splitlines()[1:]:
        if line.startswith("#") or not line.strip():
            continue
        if match := re.match(r"([^:]+):=(.*)", line):
            pairs[match[1]] = match[2]
        elif match := re.match(r"([^:]+):\s*(.*)", line):
            fields[match[1].strip().lower()] = match[2].strip()
        else:
            raise FormatError(f"the header line {line[:60]!r}", str(path), "The header is damaged: get the file again")
    header = Header(path, fields, pairs, end)
    if blank is None and not (header.get("data file") or header.get("datafile")):
        raise header.damaged("the header has no end")
    return header
