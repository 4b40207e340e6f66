"""The header of a NRRD file: its fields and the pairs that programs add."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import FormatError

LARGEST_HEADER = 1 << 22
OF_SPACE = ("space units",)  # one for each axis of the space, and not of the array


@dataclass(frozen=True)
class Header:
    """The text of a header.

    fields: {name in lower case: text}
    pairs:  {key: value} that a program added
    end:    the first byte after the header
    """

    path: Path
    fields: Mapping[str, str]
    pairs: Mapping[str, str]
    end: int

    def get(self, name: str, otherwise: str = "") -> str:
        """The text of a field that may be absent."""
        return self.fields.get(name, otherwise)

    def field(self, name: str) -> str:
        """The text of a field. Raises FormatError where it is absent."""
        if name not in self.fields:
            raise self.damaged(f"the header has no {name!r}")
        return self.fields[name]

    def integer(self, name: str, otherwise: int) -> int:
        """The whole number in a field that may be absent."""
        return int(self.numbers(name, int)[0]) if name in self.fields else otherwise

    def numbers(self, name: str, kind: type = float) -> list[float]:
        """The numbers in a field. Raises FormatError for anything else."""
        try:
            return [kind(word) for word in self.field(name).split()]
        except ValueError as error:
            raise self.damaged(f"{name!r} is {self.field(name)!r}") from error

    @property
    def sizes(self) -> tuple[int, ...]:
        """Samples per axis, the fastest axis first."""
        sizes = tuple(int(n) for n in self.numbers("sizes", int))
        if len(sizes) != self.integer("dimension", 0) or min(sizes, default=0) < 1:
            raise self.damaged(f"sizes {self.field('sizes')} in {self.get('dimension')} dimensions")
        return sizes

    def words(self, name: str) -> list[str]:
        """One word, or one quoted string, per axis; as many empty ones where the field is absent."""
        if name not in self.fields:
            return [""] * len(self.sizes)
        words = re.findall(r'"((?:[^"\\]|\\.)*)"', self.fields[name]) or self.fields[name].split()
        if name not in OF_SPACE and len(words) != len(self.sizes):
            raise self.damaged(f"{len(self.sizes)} axes and {name!r} is {self.fields[name]!r}")
        return words

    def vectors(self, name: str) -> list[NDArray[np.float64] | None]:
        """Vectors as "(1,0,0) none (0,1,0)"; None for "none"."""
        words = re.findall(r"none|\([^)]*\)", self.field(name))
        try:
            return [np.array([float(n) for n in word[1:-1].split(",")]) if word[0] == "(" else None for word in words]
        except ValueError as error:
            raise self.damaged(f"{name!r} is {self.field(name)!r}") from error

    def damaged(self, problem: str) -> FormatError:
        """The error for a header with this problem."""
        return FormatError(problem, str(self.path), "The NRRD header is damaged: get the file again")


def read_header(path: Path) -> Header:
    """The header of a file. Raises FormatError where it is damaged or has no end."""
    with path.open("rb") as file:
        head = file.read(LARGEST_HEADER)
    if not head.startswith(b"NRRD0"):
        raise FormatError("not a NRRD file", str(path), "Check what kind of file it is")
    blank = re.search(rb"\r?\n\r?\n", head)
    end = blank.end() if blank else len(head)
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    for line in head[: blank.start() if blank else end].decode("utf-8", "replace").splitlines()[1:]:
        if fields.get("data file", fields.get("datafile", "")).upper().startswith("LIST"):
            break  # what follows are names of files
        if line.startswith("#") or not line.strip():
            continue
        if match := re.match(r"([^:]+):=(.*)", line):
            pairs[match[1]] = match[2]
        elif match := re.match(r"([^:]+):\s*(.*)", line):
            name, text = match[1].strip().lower(), match[2].strip()
            if fields.setdefault(name, text) != text:
                problem = f"the header states {name!r} twice, and not the same"
                raise FormatError(problem, str(path), "Remove the wrong one")
        else:
            raise FormatError(f"the header line {line[:60]!r}", str(path), "The header is damaged: get the file again")
    header = Header(path, fields, pairs, end)
    if blank is None and not (header.get("data file") or header.get("datafile")):
        raise header.damaged("the header has no end")
    return header
