"""The command line: parse, call, print."""

from __future__ import annotations

import inspect
import json as json_module
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import isocenter
from isocenter.errors import DatasetError, IsocenterError, UsageError
from isocenter.values import Problem

app = typer.Typer(
    name="isocenter",
    help="One tool that carries a medical-imaging model through its whole life.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Data = Annotated[Path, typer.Argument(help="A folder, a table, an archive or a DICOM series.")]
Out = Annotated[Path | None, typer.Option(help="Where to write; by default ./<verb>-<name>.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda:0 or mps.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Cores to use; by default all.")]
Seed = Annotated[int, typer.Option(min=0, help="Every random draw follows from it.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="section.name=value of the plan, set by hand.")]
Minutes = Annotated[float, typer.Option(help="From now to the finished model.")]
Folds = Annotated[int, typer.Option(min=0, help="Cross-validation in so many parts; 0 for one test part.")]
Everything = Annotated[bool, typer.Option("--all", help="Train on every case; nothing is estimated.")]
Kind = Annotated[str | None, typer.Option("--task", help="The kind of problem, where the data leave a choice.")]
Layout = Annotated[str | None, typer.Option(help="How the folder is to be read.")]
Labels = Annotated[str | None, typer.Option(help="What the values mean: 1=anterior,2=posterior.")]
Patient = Annotated[str | None, typer.Option(help="A column, or a regular expression on the case's name.")]
Column = Annotated[str | None, typer.Option(help="Columns of a table: image=filename,label=finding.")]
Modality = Annotated[str | None, typer.Option(help="Of all images, where the files do not say.")]
Part = Annotated[str | None, typer.Option(help="Of complex voxels: magnitude, real, imaginary or phase.")]
Prefer = Annotated[str | None, typer.Option(help="Where NIfTI forms disagree: sform or qform.")]
Volume = Annotated[str | None, typer.Option(help="One of several volumes, by name.")]
FillMissing = Annotated[bool, typer.Option("--fill-missing", help="Keep a series with gaps; they become padding.")]
Align = Annotated[bool, typer.Option("--align", help="Resample a case's images onto the grid of its first.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(isocenter.__version__)
        raise typer.Exit


@app.callback()
def isocenter_itself(
    version: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """One tool that carries a medical-imaging model through its whole life."""


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
    columns = dict(_pair(one, "--column") for one in column.split(",")) if column else None
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


@app.command()
@reads_data
def check(
    data: Data,
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    threads: Threads = None,
    given: Given = None,
) -> None:
    """Say what is in DATA, and whether it is fit to learn from."""
    target = out or _default("check", data)
    result = isocenter.check(data, out=target, overwrite=overwrite, threads=threads, **(given or {}))
    _show(result, result.as_record() if json else None)
    if not result.passed:
        fatal = result.examination.fatal[0]
        raise DatasetError(fatal.what, str(data), fatal.remedy)


@app.command()
@reads_data
def plan(
    data: Data,
    minutes: Minutes = 60.0,
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    device: Device = "auto",
    threads: Threads = None,
    seed: Seed = 0,
    everything: Everything = False,
    folds: Folds = 0,
    assignments: Set = None,
    task: Kind = None,
    explain: Annotated[bool, typer.Option("--explain", help="The reasons as prose, on standard output.")] = False,
    given: Given = None,
) -> None:
    """Say how a model for DATA would be trained, and why."""
    result = isocenter.plan(
        data,
        minutes=minutes,
        out=out or Path(f"plan-{_name(data)}.yaml"),
        overwrite=overwrite,
        device=device,
        threads=threads,
        seed=seed,
        everything=everything,
        folds=folds,
        task=task,
        assignments=_assignments(assignments),
        **(given or {}),
    )
    _show(result.explained if explain else result, result.as_record() if json else None)


@app.command()
@reads_data
def train(
    data: Annotated[Path | None, typer.Argument(help="A folder as for `check`, or a plan's .yaml.")] = None,
    minutes: Annotated[float | None, typer.Option(help="From now to the finished model; 60 by default.")] = None,
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    resume: Annotated[Path | None, typer.Option(help="A run's folder to finish.")] = None,
    start: Annotated[Path | None, typer.Option("--from", help="A model whose weights to begin from.")] = None,
    pretrained: Annotated[str | None, typer.Option(help="A file of weights, or auto for published ones.")] = None,
    folds: Annotated[int | None, typer.Option(min=2, help="Cross-validation in so many parts.")] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Alike to the bit; needs training.steps.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda:0 or mps.")] = None,
    threads: Threads = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Every random draw follows from it.")] = None,
    everything: Everything = False,
    assignments: Set = None,
    task: Kind = None,
    given: Given = None,
) -> None:
    """Check, plan, train, evaluate and report: from DATA to a model."""
    result = isocenter.train(
        data,
        minutes=minutes,
        out=out or (_default("train", data) if data is not None else None),
        overwrite=overwrite,
        resume=resume,
        start=start,
        pretrained=pretrained,
        folds=folds,
        deterministic=deterministic,
        device=device,
        threads=threads,
        seed=seed,
        everything=everything,
        task=task,
        assignments=_assignments(assignments),
        **(given or {}),
    )
    _show(result, result.as_record() if json else None)


@app.command()
@reads_data
def evaluate(
    model: Annotated[Path, typer.Argument(help="A run's folder, or a package.")],
    data: Data,
    split: Annotated[str | None, typer.Option(help="train, val, test or all.")] = None,
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    device: Device = "auto",
    threads: Threads = None,
    seed: Seed = 0,
    given: Given = None,
) -> None:
    """Score MODEL on the labelled cases of DATA, with intervals."""
    result = isocenter.evaluate(
        model,
        data,
        split=split,  # type: ignore[arg-type]
        out=out or _default("evaluate", data),
        overwrite=overwrite,
        device=device,
        threads=threads,
        seed=seed,
        **(given or {}),
    )
    _show(result, result.as_record() if json else None)
    _fail_if(result.failures)


@app.command()
@reads_data
def predict(
    model: Annotated[Path, typer.Argument(help="A run's folder, or a package.")],
    inputs: Annotated[list[Path], typer.Argument(help="Image files, DICOM series, or folders of them.")],
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    format: Annotated[str, typer.Option(help="auto, nii.gz, nii, nrrd, png, tiff or dcm (SEG).")] = "auto",
    fold: Annotated[int | None, typer.Option(min=0, help="One of a run's folds, in place of their mean.")] = None,
    mirror: Annotated[bool | None, typer.Option(help="See images mirrored too; by default as planned.")] = None,
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="Of every voxel, beside the result.")
    ] = False,
    overlay: Annotated[bool, typer.Option("--overlay", help="A picture of each image with its result.")] = False,
    device: Device = "auto",
    threads: Threads = None,
    given: Given = None,
) -> None:
    """Results of MODEL for INPUTS, each on its source's own grid."""
    result = isocenter.predict(
        model,
        *inputs,
        out=out or _default("predict", inputs[0]),
        overwrite=overwrite,
        format=format,
        fold=fold,
        mirror=mirror,
        save_probabilities=save_probabilities,
        overlay=overlay,
        device=device,
        threads=threads,
        **(given or {}),
    )
    _show(result, result.as_record() if json else None)
    _fail_if(result.failures)


@app.command()
def package(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.")],
    out: Annotated[Path | None, typer.Option(help="A folder, or a file that ends in .zip.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """The model of RUN as a MONAI bundle, which also runs without Isocenter."""
    result = isocenter.package(run, out=out or _default("package", run), overwrite=overwrite)
    _show(result, result.as_record() if json else None)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Any readable file, or a folder of one DICOM series.")],
    out: Annotated[Path, typer.Option(help="The file to write; its suffix names the format.")],
    overwrite: Overwrite = False,
    json: Json = False,
    volume: Volume = None,
    part: Part = None,
    prefer: Prefer = None,
    fill_missing: FillMissing = False,
    drop_geometry: Annotated[bool, typer.Option("--drop-geometry", help="Give up the position for a picture.")] = False,
) -> None:
    """The same image in another format: same geometry, same values, or a refusal."""
    options = {"part": part, "prefer": prefer, "fill_missing": fill_missing}
    result = isocenter.convert(source, out, volume=volume, overwrite=overwrite, drop_geometry=drop_geometry, **options)
    _show(result, result.as_record() if json else None)
    _fail_if(result.problems)


@app.command()
def view(
    image: Annotated[Path, typer.Argument(help="An image file or a DICOM series.")],
    mask: Annotated[Path | None, typer.Argument(help="A label map on its grid.")] = None,
    out: Out = None,
    overwrite: Overwrite = False,
    volume: Volume = None,
    part: Part = None,
    prefer: Prefer = None,
) -> None:
    """One self-contained page to look through IMAGE, with MASK on top."""
    target = out or Path(f"view-{_name(image)}.html")
    _show(isocenter.view(image, mask, out=target, overwrite=overwrite, volume=volume, part=part, prefer=prefer), None)


@app.command()
def networks(json: Json = False) -> None:
    """The families of network that a plan may name."""
    found = isocenter.describe_networks()
    _show(found, found.as_record() if json else None)


@app.command()
def demo(
    data: Annotated[Path | None, typer.Argument(help="Your own data, in place of the public set.")] = None,
    minutes: Minutes = 8.0,
    out: Annotated[Path, typer.Option(help="The run's folder.")] = Path("demo"),
    overwrite: Overwrite = False,
    assignments: Set = None,
) -> None:
    """The main job on real data; the last line is the report's path."""
    chosen = _assignments(assignments)
    isocenter.demo(data, minutes=minutes, out=out, overwrite=overwrite, assignments=chosen, say=typer.echo)


def main() -> None:
    """Run, and turn every failure into one line and an exit code."""
    # Threads that wait by sleeping: a fifth faster where another program takes a core, a tenth slower on a machine of
    # one's own (bench/waiting_threads.py).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    logging.getLogger("isocenter").setLevel(logging.INFO)
    try:
        code = app(args=sys.argv[1:] or ["--help"], standalone_mode=False)
        if code == 130:  # how typer says that Ctrl-C was pressed
            raise KeyboardInterrupt
    except typer.Exit as done:
        code = done.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = _end("isocenter: stopped. `isocenter train --resume RUN` goes on with a run.", 130)
    except IsocenterError as error:
        code = _end(str(error), 2 if isinstance(error, UsageError) else 1)
    except Exception as error:
        code = _end(*_unforeseen(error))
    sys.exit(code if isinstance(code, int) else 0)


def _unforeseen(error: Exception) -> tuple[str, int]:
    """The last line and the exit code for what no part of isocenter answered."""
    if said := getattr(error, "format_message", None):  # of typer's own parser, whose classes are private
        return f"isocenter: {said().rstrip('.')}. See `isocenter --help`.", 2
    if isinstance(error, OSError):
        where, reason = error.filename or "isocenter", error.strerror or str(error)
        return f"{where}: {reason}. Look at the path, and at the room on its disk.", 1
    # torch says so with a RuntimeError, on a GPU with one of its own kind.
    if isinstance(error, MemoryError) or re.search(r"out of memory|can't allocate memory", str(error)):
        return (
            "isocenter: there is not enough memory. Give smaller patches or batches by --set, or a larger machine.",
            1,
        )
    traceback.print_exception(error)
    kind = type(error).__name__
    return f"isocenter: a defect of ours ({kind}: {error}). Please report it with the lines above.", 1


def _end(line: str, code: int) -> int:
    typer.echo(" ".join(line.split()), err=True)
    return code


def _fail_if(problems: Sequence[Problem]) -> None:
    """Exit with 1 where a part of the work failed, once the rest is done."""
    if problems:
        first = problems[0]
        raise IsocenterError(f"{len(problems)} failed; the first: {first.what}", ", ".join(first.cases), first.remedy)


def _show(result: object, record: Mapping[str, Any] | None) -> None:
    typer.echo(result if record is None else json_module.dumps(record, default=str, allow_nan=False))


def _assignments(given: list[str] | None) -> dict[str, Any]:
    from isocenter.planning import parse_value  # it brings pandas, which `--help` does without

    return {name: parse_value(value) for name, value in (_pair(one, "--set") for one in given or [])}


def _pair(text: str, flag: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"{text!r} is no name=value", flag, "Write it as name=value")
    return name.strip(), value.strip()


def _name(path: Path) -> str:
    return path.resolve().name.split(".")[0] or "data"


def _default(verb: str, path: Path) -> Path:
    return Path(f"{verb}-{_name(path)}")
