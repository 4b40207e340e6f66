"""Rows of a data set's table: which files are a case's images and references, and what else is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

# What trains, what decides afterwards, what chose nothing so that guarantees come from it, and what only tests.
Split = Literal["train", "val", "calibration", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


class Frame(Protocol):
    """A table in memory, as pandas has it."""

    columns: Any
    iloc: Any


@dataclass(frozen=True)
class Cell:
    """The files of one image or one reference of a case; nothing of them is read yet.

    paths:    several are the slices of a series, pieces of one mask, or the masks of `names`
    part:     what of the file is meant, a word: a "frame", a "row", a "series", or the grammar of a file of drawings
    key:      which of these, as the word's files spell it
    names:    of structures, one for each path
    reader:   who drew it, where that is known
    modality: of an image, where its file states none
    known:    what was read of the file to make the row, so that nobody reads it twice
    """

    paths: tuple[Path, ...]
    part: str = ""
    key: str = ""
    names: tuple[str, ...] = ()
    reader: str = ""
    modality: str | None = None
    known: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class CaseRow:
    """One case of a data set's table.

    name:       path without suffix relative to the data set, from which the id and the patient are made
    images:     {channel: its cell}
    references: {kind: a cell, or the value itself}; kinds as of `Case.references`
    aliases:    what a table may call it beside its name and files, alone or with others: UIDs and accession number
    """

    name: str
    images: Mapping[str, Cell]
    references: Mapping[str, Any] = field(default_factory=dict)
    split: Split | None = None
    patient: str | None = None
    group: str | None = None
    covariates: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """All that its cells name, images first."""
        cells = (*self.images.values(), *(one for one in self.references.values() if isinstance(one, Cell)))
        return tuple(dict.fromkeys(path for cell in cells for path in cell.paths))


@dataclass(frozen=True)
class DatasetTable:
    """The rows that a data set was read from, called by the ids of its cases, and what holds for all of them.

    declared: what `dataset.toml` states: classes, readers, order of channels, options of reading and so on
    """

    rows: tuple[CaseRow, ...] = ()
    declared: Mapping[str, Any] = field(default_factory=dict)
