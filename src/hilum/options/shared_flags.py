"""Keywords that several verbs have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le

from hilum.errors import UsageError
from hilum.planning import plan_file
from hilum.reading import reading_options
from hilum.reading.reading_options import Covariates
from hilum.runtime.package.backends import BACKENDS
from hilum.tasks.index import TASKS
from hilum.values import PlainValue, Setting

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


def _parse_assignments(texts: Sequence[str]) -> dict[str, PlainValue]:
    return {name: plan_file.parse_value(value) for name, value in reading_options.parse_pairs(texts, "--set").items()}


def _named_backends(text: str) -> tuple[str, ...] | None:
    return parse_names(text, "--backends")


Data = Setting("A folder, a table, an archive or a DICOM series.", "DATA")
Inputs = Setting("Image files, DICOM series, or folders of them.", "INPUT", repeats=True)
Trained = Setting("A run's folder, a package, or a model of nnU-Net v2, MONAI or ONNX.", "MODEL")
Node = Annotated[str | Path, Setting("The folder of a node.", "NODE")]
Models = Setting("Runs, packages or foreign models.", "MODEL", repeats=True)

RESULTS = Setting("Folder for the results.", "FOLDER", path="<verb>-<name>")
PACKAGE = Setting("Folder, or file that ends in .zip.", "PATH", path="<verb>-<name>")
Out = Annotated[str | Path | None, RESULTS]
Overwrite = Annotated[bool, Setting("Replace an older result.")]

Device = Annotated[str, Setting("Device to compute on: auto, cpu, cuda:0 or mps.", "NAME")]
Threads = Annotated[int | None, Ge(1), Setting("Cores to use; all by default.", "N")]
Seed = Annotated[int, Ge(0), Le(LARGEST_SEED), Setting("Seed of every random draw.", "N")]
Scheduler = Annotated[
    str | None, Setting("Dask scheduler whose workers process the cases: tcp://host:8786.", "ADDRESS")
]
Backend = Annotated[str, Setting(f"Backend that runs a package: auto, {', '.join(sorted(BACKENDS))}.", "NAME")]
CERTIFIED = "Backends that the certificate tries: all, none, usual (those that predict may pick here), or names"
Backends = Annotated[Sequence[str] | None, Setting(f"{CERTIFIED}; all by default.", "NAMES", read=_named_backends)]
UsualBackends = Annotated[
    Sequence[str] | None, Setting(f"{CERTIFIED}; usual by default.", "NAMES", read=_named_backends)
]
Uncertainty = Annotated[
    str | None,
    Setting(
        "Source of uncertainty: auto, none, members, laplace, variational, dropout, tta; as planned by default.",
        "METHOD",
    ),
]
Activation = Annotated[
    str | None,
    Setting(
        "Activation that an ONNX file ends in: none (outputs are logits), softmax or sigmoid; found by default.", "NAME"
    ),
]
Positive = Annotated[
    str | None,
    Setting(
        "Class that sensitivity, predictive values and thresholds are of; by default the one that has no name of "
        "absence such as normal, else the rarer of two.",
        "NAME",
    ),
]
FoldsBy = Annotated[
    str | None,
    Setting("Column, such as the site, of which each fold leaves out whole values: one each up to ten.", "COLUMN"),
]
Groups = Annotated[
    str | None,
    Setting(
        "Groups of people to compare, such as sex,age:40:60,site,sex*age; by default covariates of 2 to 8 levels.",
        "GROUPS",
    ),
]
Kind = Annotated[
    str | None,
    Setting(
        f"Kind of problem, where several fit: {', '.join(TASKS)}; several at once as in segmentation+classification.",
        "NAME",
    ),
]
CovariateTables = Annotated[
    Covariates, Setting("Table with a row for each case, patient or time; repeatable.", "TABLE", repeats=True)
]
Lesions = Annotated[
    Sequence[str],
    Setting("Structure, such as a lesion, without which cases exist; repeatable.", "NAME", repeats=True),
]
Measure = Annotated[
    Sequence[str],
    Setting(
        "A ratio of measurements as a finding: 'cdr = cup.short_axis_mm / disc.short_axis_mm'. Repeatable.",
        "RATIO",
        repeats=True,
    ),
]
Assignments = Annotated[
    Mapping[str, PlainValue] | None,
    Setting(
        "Set a decision of the plan; repeatable.", "SECTION.NAME=VALUE", "--set", repeats=True, read=_parse_assignments
    ),
]
Volume = Annotated[str | None, Setting("Volume to read, where the file holds several on different grids.", "NAME")]
