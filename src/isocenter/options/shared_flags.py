"""Keywords that several verbs have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from isocenter.errors import UsageError
from isocenter.keywords import Flag
from isocenter.planning import plan_file
from isocenter.reading import reading_options
from isocenter.reading.reading_options import Covariates
from isocenter.runtime.package.backends import BACKENDS
from isocenter.tasks.index import TASKS

# The limit of a seed: what every generator of random numbers takes.
LARGEST_SEED = 2**63 - 1
# Words in place of a list of names.
WORDS: dict[str, tuple[str, ...] | None] = {"all": None, "none": ()}


def parse_names(text: str, flag: str) -> tuple[str, ...] | None:
    """The names in a list; None for "all", none for "none". UsageError where one of these two stands among names."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if len(names) == 1 and names[0] in WORDS:
        return WORDS[names[0]]
    if mixed := WORDS.keys() & set(names):
        raise UsageError(f"{mixed.pop()!r} is mixed with other names: {text!r}", flag, "Give names, or only this word")
    return names


def _parse_assignments(texts: Sequence[str]) -> dict[str, Any]:
    return {name: plan_file.parse_value(value) for name, value in reading_options.parse_pairs(texts, "--set").items()}


def _named_backends(text: str) -> tuple[str, ...] | None:
    return parse_names(text, "--backends")


Data = Flag("A folder, a table, an archive or a DICOM series.", "DATA")
Inputs = Flag("Image files, DICOM series, or folders of them.", "INPUT", repeats=True)
Trained = Flag("A run's folder, a package, or a model of nnU-Net v2, MONAI or ONNX.", "MODEL")
Node = Annotated[str | Path, Flag("The folder of a node.", "NODE")]
Models = Flag("Runs, packages or foreign models.", "MODEL", repeats=True)

RESULTS = Flag("Folder for the results.", "FOLDER", path="<verb>-<name>")
PACKAGE = Flag("Folder, or file that ends in .zip.", "PATH", path="<verb>-<name>")
Out = Annotated[str | Path | None, RESULTS]
Overwrite = Annotated[bool, Flag("Replace an older result.")]

Device = Annotated[str, Flag("Device to compute on: auto, cpu, cuda:0 or mps.", "NAME")]
Threads = Annotated[int | None, Flag("Cores to use; all by default.", "N", least=1)]
Seed = Annotated[int, Flag("Seed of every random draw.", "N", least=0, most=LARGEST_SEED)]
Scheduler = Annotated[str | None, Flag("Dask scheduler whose workers process the cases: tcp://host:8786.", "ADDRESS")]
Backend = Annotated[
    str,
    Flag(
        f"Backend that runs a package: auto, {', '.join(sorted(BACKENDS))}.",
        "NAME",
    ),
]
CERTIFIED = "Backends that the certificate tries: all, none, usual (those that predict may pick here), or names"
Backends = Annotated[Sequence[str] | None, Flag(f"{CERTIFIED}; all by default.", "NAMES", read=_named_backends)]
UsualBackends = Annotated[Sequence[str] | None, Flag(f"{CERTIFIED}; usual by default.", "NAMES", read=_named_backends)]
Uncertainty = Annotated[
    str | None,
    Flag(
        "Source of uncertainty: auto, none, members, laplace, variational, dropout, tta; as planned by default.",
        "METHOD",
    ),
]
Activation = Annotated[
    str | None,
    Flag(
        "Activation that an ONNX file ends in: none (outputs are logits), softmax or sigmoid; found by default.",
        "NAME",
    ),
]
Positive = Annotated[
    str | None,
    Flag(
        "Class that sensitivity, predictive values and thresholds are of; by default the one that has no name of "
        "absence such as normal, else the rarer of two.",
        "NAME",
    ),
]
FoldsBy = Annotated[
    str | None,
    Flag("Column, such as the site, of which each fold leaves out whole values: one each up to ten.", "COLUMN"),
]
Groups = Annotated[
    str | None,
    Flag(
        "Groups of people to compare, such as sex,age:40:60,site,sex*age; by default covariates of 2 to 8 levels.",
        "GROUPS",
    ),
]
Kind = Annotated[
    str | None,
    Flag(
        f"Kind of problem, where several fit: {', '.join(TASKS)}; several at once as in segmentation+classification.",
        "NAME",
    ),
]
CovariateTables = Annotated[
    Covariates, Flag("Table with a row for each case, patient or time; repeatable.", "TABLE", repeats=True)
]
Measure = Annotated[
    Sequence[str],
    Flag(
        "A ratio of measurements as a finding: 'cdr = cup.short_axis_mm / disc.short_axis_mm'. Repeatable.",
        "RATIO",
        repeats=True,
    ),
]
Assignments = Annotated[
    Mapping[str, Any] | None,
    Flag(
        "Set a decision of the plan; repeatable.", "SECTION.NAME=VALUE", "--set", repeats=True, read=_parse_assignments
    ),
]
Volume = Annotated[str | None, Flag("Volume to read, where the file holds several on different grids.", "NAME")]
