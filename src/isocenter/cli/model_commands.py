"""The verbs for trained models: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import isocenter
from isocenter.cli.flags import (
    Abstain,
    Activation,
    Backend,
    Backends,
    Calibration,
    Concepts,
    Counterfactual,
    CovariateTables,
    Covering,
    Device,
    Format,
    Given,
    Inputs,
    Json,
    Maps,
    Measure,
    Methods,
    Mirror,
    Out,
    OutPackage,
    Overlap,
    Overlay,
    Overwrite,
    Positive,
    Region,
    SaveProbabilities,
    Scheduler,
    Seconds,
    Seed,
    Threads,
    Trained,
    Uncertainty,
    named,
    reads_data,
)
from isocenter.cli.shell import default_out, fail_if, show


@reads_data
def predict(
    model: Trained,
    inputs: Inputs,
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    format: Format = "auto",
    fold: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Use one fold of a run, in place of the mean of all."),
    ] = None,
    mirror: Mirror = None,
    save_probabilities: SaveProbabilities = False,
    overlay: Overlay = False,
    maps: Maps = False,
    covering: Covering = False,
    device: Device = "auto",
    threads: Threads = None,
    backend: Backend = "auto",
    scheduler: Scheduler = None,
    region: Region = None,
    overlap: Overlap = None,
    seconds: Seconds = None,
    covariates: CovariateTables = None,
    calibration: Calibration = "on",
    abstain: Abstain = "on",
    uncertainty: Uncertainty = None,
    activation: Activation = None,
    measure: Measure = None,
    given: Given = None,
) -> None:
    """Predict images with MODEL, each on its own grid."""
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
        maps=maps,
        covering=covering,
        device=device,
        threads=threads,
        backend=backend,
        scheduler=scheduler,
        region=region,
        overlap=overlap,
        seconds=seconds,
        covariates=covariates,
        abstain=abstain,
        calibration=calibration,
        uncertainty=uncertainty,
        activation=activation,
        measure=measure or (),
        **(given or {}),
    )
    show(result, result.as_record() if json else None)
    fail_if(result.failures)


@reads_data
def explain(
    model: Trained,
    inputs: Inputs,
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    method: Methods = "auto",
    target: Annotated[
        str, typer.Option(metavar="NAME", help="Class, finding, structure, value or box; auto: the model's answer.")
    ] = "auto",
    references: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="Data set with masks or boxes of the same cases, to compare the maps with."),
    ] = None,
    tests: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Number of cases for tests of methods that were never tested on MODEL."),
    ] = 20,
    seed: Seed = 0,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="S", help="Seconds for each map of occlusion or rise; by default a fixed number of masks."
        ),
    ] = None,
    fold: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Explain one fold of a run, in place of the mean of all.")
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    backend: Backend = "auto",
    covariates: CovariateTables = None,
    concepts: Concepts = None,
    counterfactual: Counterfactual = None,
    given: Given = None,
) -> None:
    """Explain MODEL's answers by maps on each image's own grid."""
    result = isocenter.explain(
        model,
        *inputs,
        out=out or default_out("explain", inputs[0]),
        overwrite=overwrite,
        method=method,
        target=target,
        references=references,
        tests=tests,
        seed=seed,
        seconds=seconds,
        fold=fold,
        device=device,
        threads=threads,
        backend=backend,
        covariates=covariates,
        concepts=concepts,
        counterfactual=counterfactual,
        **(given or {}),
    )
    show(result, result.as_record() if json else None)
    fail_if(result.failures)


@reads_data
def embed(
    model: Trained,
    inputs: Inputs,
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    fold: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Use one fold of a run, in place of the first.")
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    backend: Backend = "auto",
    covariates: CovariateTables = None,
    given: Given = None,
) -> None:
    """Write what MODEL sees in each image as a table."""
    result = isocenter.embed(
        model,
        *inputs,
        out=out or default_out("embed", inputs[0]),
        overwrite=overwrite,
        fold=fold,
        device=device,
        threads=threads,
        backend=backend,
        covariates=covariates,
        **(given or {}),
    )
    show(result, result.as_record() if json else None)
    fail_if(result.failures)


def package(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    out: OutPackage = None,
    overwrite: Overwrite = False,
    json: Json = False,
    backends: Backends = "all",
    threads: Threads = None,
    format: Annotated[str, typer.Option(metavar="FORMAT", help="monai, or triton: the network alone.")] = "monai",
    codes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A table name,scheme,value,meaning[,unit] with the codes of what results name."
        ),
    ] = None,
    measure: Measure = None,
) -> None:
    """Write the model of RUN as a MONAI bundle. It also runs without Isocenter."""
    target = out or default_out("package", run)
    result = isocenter.package(
        run,
        out=target,
        overwrite=overwrite,
        backends=named(backends, "--backends"),
        threads=threads,
        format=format,
        codes=codes,
        measure=measure or (),
    )
    show(result, result.as_record() if json else None)


@reads_data
def calibrate(
    model: Trained,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Labelled cases that the model has not seen.")],
    out: OutPackage = None,
    overwrite: Overwrite = False,
    json: Json = False,
    backends: Backends = "all",
    threads: Threads = None,
    positive: Positive = None,
    given: Given = None,
) -> None:
    """Fit MODEL's calibration and thresholds to DATA. The result is a package; a bundle or ONNX file keeps its form."""
    result = isocenter.calibrate(
        model,
        data,
        out=out or default_out("calibrate", model),
        overwrite=overwrite,
        backends=named(backends, "--backends"),
        threads=threads,
        positive=positive,
        **(given or {}),
    )
    show(result, result.as_record() if json else None)


def adopt(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A result folder of nnU-Net v2. A MONAI bundle or an ONNX file needs no package: predict with it.",
        ),
    ],
    out: OutPackage = None,
    overwrite: Overwrite = False,
    json: Json = False,
    fold: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Use one fold of SOURCE, in place of the mean of all.")
    ] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE.NAME",
            help="Function or class that the checkpoint of SOURCE may call, which runs code; repeatable.",
        ),
    ] = None,
    postprocessing: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The postprocessing.pkl of nnU-Net.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DATA", help="Images to compare the backends on for the certificate.")
    ] = None,
    backends: Backends = "usual",
    threads: Threads = None,
) -> None:
    """Write a model of another program as a package. It predicts as the original does."""
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


def networks(
    weights: Annotated[
        bool, typer.Option("--weights", help="List the programs whose weights `train --from` reads, with licences.")
    ] = False,
    json: Json = False,
) -> None:
    """List the network families that a plan may name."""
    table = isocenter.describe_weights() if weights else isocenter.describe_networks()
    show(table, table.as_record() if json else None)
