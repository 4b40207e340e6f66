"""The verbs as commands: parse, call, print."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import isocenter
from isocenter.cli.flags import (
    Data,
    Device,
    Everything,
    FillMissing,
    Folds,
    Given,
    Json,
    Kind,
    Minutes,
    Out,
    Overwrite,
    Part,
    Prefer,
    Region,
    Scheduler,
    Seed,
    Set,
    Threads,
    Volume,
    assigned,
    named,
    reads_data,
)
from isocenter.cli.processes import speaks
from isocenter.errors import DatasetError, IsocenterError
from isocenter.values import Problem

app = typer.Typer(
    name="isocenter",
    help="One tool that carries a medical-imaging model through its whole life.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


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


@app.command()
@reads_data
def check(
    data: Data,
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    threads: Threads = None,
    scheduler: Scheduler = None,
    given: Given = None,
) -> None:
    """Say what is in DATA, and whether it is fit to learn from."""
    target = out or _default("check", data)
    result = isocenter.check(
        data, out=target, overwrite=overwrite, threads=threads, scheduler=scheduler, **(given or {})
    )
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
        assignments=assigned(assignments),
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
        assignments=assigned(assignments),
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
    backend: Annotated[str, typer.Option(help="auto, torch, compiled, onnx, openvino or tensorrt.")] = "auto",
    scheduler: Scheduler = None,
    region: Region = None,
    overlap: Annotated[float | None, typer.Option(help="Of neighbouring windows, 0 to below 1.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="For an image's windows, with less overlap.")] = None,
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
        backend=backend,
        scheduler=scheduler,
        region=region,
        overlap=overlap,
        seconds=seconds,
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
    backends: Annotated[str, typer.Option(help="For the certificate: all, none, or onnx,openvino.")] = "all",
    threads: Threads = None,
) -> None:
    """The model of RUN as a MONAI bundle, which also runs without Isocenter."""
    target = out or _default("package", run)
    result = isocenter.package(run, out=target, overwrite=overwrite, backends=named(backends), threads=threads)
    _show(result, result.as_record() if json else None)


@app.command()
def adopt(
    source: Annotated[Path, typer.Argument(help="A model of another program: an nnU-Net v2 result folder.")],
    out: Annotated[Path | None, typer.Option(help="A folder, or a file that ends in .zip.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
    fold: Annotated[int | None, typer.Option(min=0, help="One of its networks, in place of their mean.")] = None,
    trust: Annotated[
        list[str] | None, typer.Option(help="module.name that its checkpoint may call. This runs code.")
    ] = None,
    postprocessing: Annotated[Path | None, typer.Option(help="nnU-Net's postprocessing.pkl.")] = None,
    images: Annotated[Path | None, typer.Option(help="A cohort for the certificate.")] = None,
    backends: Annotated[str, typer.Option(help="For the certificate: all, none, or onnx,openvino.")] = "all",
    threads: Threads = None,
) -> None:
    """A model of another program as a package, which predicts as its maker does."""
    result = isocenter.adopt(
        source,
        out=out or _default("adopt", source),
        overwrite=overwrite,
        fold=fold,
        trust=trust or (),
        postprocessing=postprocessing,
        images=images,
        backends=named(backends),
        threads=threads,
    )
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
    chosen = assigned(assignments)
    isocenter.demo(data, minutes=minutes, out=out, overwrite=overwrite, assignments=chosen, say=typer.echo)


def _fail_if(problems: Sequence[Problem]) -> None:
    """Exit with 1 where a part of the work failed, once the rest is done."""
    if problems:
        first = problems[0]
        raise IsocenterError(f"{len(problems)} failed; the first: {first.what}", ", ".join(first.cases), first.remedy)


def _show(result: object, record: Mapping[str, Any] | None) -> None:
    if speaks():
        typer.echo(result if record is None else json_module.dumps(record, default=str, allow_nan=False))


def _name(path: Path) -> str:
    return path.resolve().name.split(".")[0] or "data"


def _default(verb: str, path: Path) -> Path:
    return Path(f"{verb}-{_name(path)}")
