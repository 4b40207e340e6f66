"""The verbs from data to a model that has been evaluated: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import isocenter
from isocenter.cli.flags import (
    Data,
    Device,
    Everything,
    Folds,
    Given,
    Json,
    Kind,
    Out,
    Overwrite,
    Scheduler,
    Seed,
    Set,
    Threads,
    Told,
    UsualMinutes,
    assigned,
    reads_data,
)
from isocenter.cli.shell import default_out, fail_if, name_of, show
from isocenter.errors import DatasetError


@reads_data
def check(
    data: Data,
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    threads: Threads = None,
    scheduler: Scheduler = None,
    task: Kind = None,
    given: Given = None,
) -> None:
    """Say what is in DATA, and whether it is fit to learn from."""
    target = out or default_out("check", data)
    result = isocenter.check(
        data, out=target, overwrite=overwrite, threads=threads, scheduler=scheduler, task=task, **(given or {})
    )
    show(result, result.as_record() if json else None)
    if not result.passed:
        fatal = result.examination.fatal[0]
        raise DatasetError(fatal.what, str(data), fatal.remedy)


@reads_data
def plan(
    data: Data,
    minutes: UsualMinutes = None,
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    device: Device = "auto",
    threads: Threads = None,
    seed: Seed = 0,
    everything: Everything = False,
    folds: Folds = 0,
    assignments: Set = None,
    covariates: Told = None,
    task: Kind = None,
    explain: Annotated[bool, typer.Option("--explain", help="The reasons as prose, on standard output.")] = False,
    given: Given = None,
) -> None:
    """Say how a model for DATA would be trained, and why."""
    result = isocenter.plan(
        data,
        minutes=minutes,
        out=out or Path(f"plan-{name_of(data)}.yaml"),
        overwrite=overwrite,
        device=device,
        threads=threads,
        seed=seed,
        everything=everything,
        folds=folds,
        task=task,
        assignments=assigned(assignments, covariates),
        **(given or {}),
    )
    show(result.explained if explain else result, result.as_record() if json else None)


@reads_data
def train(
    data: Annotated[Path | None, typer.Argument(help="A folder as for `check`, or a plan's .yaml.")] = None,
    minutes: UsualMinutes = None,
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    resume: Annotated[Path | None, typer.Option(help="A run's folder to finish.")] = None,
    start: Annotated[Path | None, typer.Option("--from", help="A model whose weights to begin from.")] = None,
    pretrained: Annotated[str | None, typer.Option(help="A file of weights, or auto for published ones.")] = None,
    folds: Annotated[int | None, typer.Option(min=2, help="Cross-validation in so many parts.")] = None,
    tune: Annotated[float | None, typer.Option(help="Minutes, of all, for trials of other decisions.")] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Alike to the bit; needs training.steps.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda:0 or mps.")] = None,
    threads: Threads = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Every random draw follows from it.")] = None,
    everything: Everything = False,
    assignments: Set = None,
    covariates: Told = None,
    task: Kind = None,
    given: Given = None,
) -> None:
    """Check, plan, train, evaluate and report: from DATA to a model."""
    result = isocenter.train(
        data,
        minutes=minutes,
        out=out or (default_out("train", data) if data is not None else None),
        overwrite=overwrite,
        resume=resume,
        start=start,
        pretrained=pretrained,
        folds=folds,
        tune=tune,
        deterministic=deterministic,
        device=device,
        threads=threads,
        seed=seed,
        everything=everything,
        task=task,
        assignments=assigned(assignments, covariates),
        **(given or {}),
    )
    show(result, result.as_record() if json else None)


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
        out=out or default_out("evaluate", data),
        overwrite=overwrite,
        device=device,
        threads=threads,
        seed=seed,
        **(given or {}),
    )
    show(result, result.as_record() if json else None)
    fail_if(result.failures)


def compare(
    evaluations: Annotated[
        list[Path], typer.Argument(help="Runs, or folders that evaluate wrote; the first is what the others go by.")
    ],
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    seed: Seed = 0,
) -> None:
    """Models that were scored on the same cases, with the intervals of their differences."""
    result = isocenter.compare(
        *evaluations, out=out or default_out("compare", evaluations[0]), overwrite=overwrite, seed=seed
    )
    show(result, result.as_record() if json else None)


def ensemble(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs on the same data, two or more.")],
    out: Out = None,
    data: Annotated[Path | None, typer.Option(help="Where the runs' data lie now, if they were moved.")] = None,
    weights: Annotated[str, typer.Option(help="fitted to the validation cases where that pays, or equal.")] = "fitted",
    overwrite: Overwrite = False,
    json: Json = False,
    device: Device = "auto",
    threads: Threads = None,
    seed: Seed = 0,
) -> None:
    """Runs of any seeds and networks as one model, beside each of them on the same test cases."""
    result = isocenter.ensemble(
        runs,
        out=out or default_out("ensemble", runs[0]),
        data=data,
        weights=weights,  # type: ignore[arg-type]
        overwrite=overwrite,
        device=device,
        threads=threads,
        seed=seed,
    )
    show(result, result.as_record() if json else None)


def demo(
    data: Annotated[Path | None, typer.Argument(help="Your own data, in place of the public set.")] = None,
    minutes: Annotated[float, typer.Option(help="From now to the finished model.")] = 8.0,
    out: Annotated[Path, typer.Option(help="The run's folder.")] = Path("demo"),
    overwrite: Overwrite = False,
    assignments: Set = None,
) -> None:
    """The main job on real data; the last line is the report's path."""
    chosen = assigned(assignments)
    isocenter.demo(data, minutes=minutes, out=out, overwrite=overwrite, assignments=chosen, say=typer.echo)
