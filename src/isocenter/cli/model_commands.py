"""The verbs for models that are there: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import isocenter
from isocenter.cli.flags import (
    Device,
    Given,
    Json,
    Out,
    Overwrite,
    Region,
    Scheduler,
    Threads,
    named,
    reads_data,
)
from isocenter.cli.shell import default_out, fail_if, show


@reads_data
def predict(
    model: Annotated[Path, typer.Argument(help="A run's folder, or a package.")],
    inputs: Annotated[list[Path], typer.Argument(help="Image files, DICOM series, or folders of them.")],
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    format: Annotated[str, typer.Option(help="auto, nii.gz, nii, nrrd, png, tiff or dcm (SEG, of boxes SR).")] = "auto",
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
    covariates: Annotated[
        list[Path] | None, typer.Option(help="A table with a row for each case or patient, or each time; repeatable.")
    ] = None,
    given: Given = None,
) -> None:
    """Results of MODEL for INPUTS, each on its source's own grid."""
    result = isocenter.predict(
        model,
        *inputs,
        out=out or default_out("predict", inputs[0]),
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
        covariates=covariates,
        **(given or {}),
    )
    show(result, result.as_record() if json else None)
    fail_if(result.failures)


def package(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.")],
    out: Annotated[Path | None, typer.Option(help="A folder, or a file that ends in .zip.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
    backends: Annotated[str, typer.Option(help="For the certificate: all, none, or onnx,openvino.")] = "all",
    threads: Threads = None,
) -> None:
    """The model of RUN as a MONAI bundle, which also runs without Isocenter."""
    target = out or default_out("package", run)
    result = isocenter.package(
        run, out=target, overwrite=overwrite, backends=named(backends, "--backends"), threads=threads
    )
    show(result, result.as_record() if json else None)


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
        out=out or default_out("adopt", source),
        overwrite=overwrite,
        fold=fold,
        trust=trust or (),
        postprocessing=postprocessing,
        images=images,
        backends=named(backends, "--backends"),
        threads=threads,
    )
    show(result, result.as_record() if json else None)


def networks(json: Json = False) -> None:
    """The families of network that a plan may name."""
    found = isocenter.describe_networks()
    show(found, found.as_record() if json else None)
