"""Flags that several verbs have, and how what they say is understood."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from isocenter.errors import UsageError

Data = Annotated[Path, typer.Argument(help="A folder, a table, an archive or a DICOM series.")]
Out = Annotated[Path | None, typer.Option(help="Where to write; by default ./<verb>-<name>.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda:0 or mps.")]
Scheduler = Annotated[
    str | None, typer.Option(help="Address of a dask scheduler whose workers do the cases: tcp://host:8786.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Cores to use; by default all.")]
Seed = Annotated[int, typer.Option(min=0, help="Every random draw follows from it.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="section.name=value of the plan, set by hand.")]
Told = Annotated[
    str | None,
    typer.Option("--covariates", help="Columns that the network is told beside the images: all, or age,sex,gene_*."),
]
UsualMinutes = Annotated[float | None, typer.Option(help="From now to the finished model; 60 by default.")]
Folds = Annotated[int, typer.Option(min=0, help="Cross-validation in so many parts; 0 for one test part.")]
Everything = Annotated[bool, typer.Option("--all", help="Train on every case; nothing is estimated.")]
Kind = Annotated[
    str | None,
    typer.Option("--task", help="The kind of problem where several fit, or a+b for both at once."),
]
Layout = Annotated[str | None, typer.Option(help="How the folder is to be read.")]
Labels = Annotated[
    str | None,
    typer.Option(help="What the values mean: 1=anterior,2=posterior; each=NAME for boxes of numbered objects."),
]
Patient = Annotated[str | None, typer.Option(help="A column, or a regular expression on the case's name.")]
Column = Annotated[list[str] | None, typer.Option(help="Columns of a table: image=filename,label=finding.")]
Modality = Annotated[str | None, typer.Option(help="Of all images, where the files do not say.")]
Part = Annotated[str | None, typer.Option(help="Of complex voxels: magnitude, real, imaginary or phase.")]
Prefer = Annotated[str | None, typer.Option(help="Where NIfTI forms disagree: sform or qform.")]
Volume = Annotated[str | None, typer.Option(help="One of several volumes, by name.")]
Region = Annotated[str | None, typer.Option(help="Voxels 0:120,40:200,10:50, or a mask's FILE[=VALUE].")]
FillMissing = Annotated[bool, typer.Option("--fill-missing", help="Keep a series with gaps; they become padding.")]
Align = Annotated[bool, typer.Option("--align", help="Resample a case's images onto the grid of its first.")]

# How data are read, as `reads_data` gathers it; no flag of its own.
Given = dict[str, Any] | None


def _reading(
    layout: Layout = None,
    labels: Labels = None,
    patient: Patient = None,
    column: Column = None,
    modality: Modality = None,
    part: Part = None,
    prefer: Prefer = None,
    fill_missing: FillMissing = False,
    align: Align = False,
) -> dict[str, Any]:
    """The flags that were given, by name."""
    columns = pairs([one for part in column or [] for one in part.split(",")], "--column")
    flags = {
        "layout": layout,
        "labels": labels,
        "patient": patient,
        "column": columns,
        "modality": modality,
        "part": part,
        "prefer": prefer,
        "fill_missing": fill_missing,
        "align": align,
    }
    return {name: value for name, value in flags.items() if value}


def reads_data(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb with the flags of `_reading` beside its own; it gets them together as `given`."""
    own, shared = (inspect.signature(one, eval_str=True).parameters for one in (verb, _reading))

    def command(**values: Any) -> None:
        reading = _reading(**{name: values.pop(name) for name in shared})
        verb(**values, given=reading)

    flags = [*(one for name, one in own.items() if name != "given"), *shared.values()]
    command.__name__, command.__doc__ = verb.__name__, verb.__doc__
    command.__signature__ = inspect.Signature(flags)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in flags}
    return command


def assigned(given: list[str] | None, covariates: str | None = None) -> dict[str, Any]:
    """{"section.name": value} of what `--set` was given, and the columns of `--covariates`."""
    from isocenter.planning import parse_value  # it brings pandas, which `--help` does without

    said = {name: parse_value(value) for name, value in pairs(given or [], "--set").items()}
    if covariates is None:
        return said
    if "network.context" in said:
        raise UsageError("says what --set network.context says too", "--covariates", "Give one of both")
    names = named(covariates, "--covariates")
    return {**said, "network.context": "all" if names is None else list(names) or None}


def named(text: str, flag: str) -> tuple[str, ...] | None:
    """The names in a list; None for "all", none for "none". UsageError where one of these two stands among names."""
    names = tuple(one.strip() for one in text.split(",") if one.strip())
    if names in (("all",), ("none",)):
        return None if names == ("all",) else ()
    if mixed := {"all", "none"} & set(names):
        raise UsageError(f"{mixed.pop()!r} stands beside other names: {text!r}", flag, "Give names, or it alone")
    return names


def pairs(texts: Sequence[str], flag: str) -> dict[str, str]:
    """Names and their values; UsageError where one is missing, or a name has two."""
    said: dict[str, str] = {}
    for name, value in (pair(text, flag) for text in texts):
        if said.setdefault(name, value) != value:
            raise UsageError(f"{name} is {said[name]!r} and {value!r}", flag, "Say it once")
    return said


def pair(text: str, flag: str) -> tuple[str, str]:
    """A name and its value; UsageError where one is missing."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"{text!r} is no name=value", flag, "Write it as name=value")
    return name.strip(), value.strip()
