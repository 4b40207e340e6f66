"""The verbs from data to a model that has been evaluated: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import isocenter
from isocenter.cli.flags import (
    Covariates,
    Data,
    Device,
    Everything,
    Folds,
    Given,
    Json,
    Kind,
    Out,
    OutPlan,
    Overwrite,
    Scheduler,
    Seed,
    Set,
    Threads,
    Trained,
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
    """Read DATA and report whether it is fit to learn from."""
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
    out: OutPlan = None,
    overwrite: Overwrite = False,
    json: Json = False,
    device: Device = "auto",
    threads: Threads = None,
    seed: Seed = 0,
    everything: Everything = False,
    folds: Folds = 0,
    assignments: Set = None,
    covariates: Covariates = None,
    task: Kind = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print the reasons as prose.")] = False,
    given: Given = None,
) -> None:
    """Plan a training on DATA: every choice with its reason."""
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
    data: Annotated[Path | None, typer.Argument(help="A folder as for `check`, or the .yaml of a plan.")] = None,
    minutes: UsualMinutes = None,
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    resume: Annotated[Path | None, typer.Option(help="Folder of an unfinished run to finish.")] = None,
    start: Annotated[Path | None, typer.Option("--from", help="Model whose weights to start from.")] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="File of weights, or auto for weights that the network's authors published.")
    ] = None,
    folds: Annotated[int | None, typer.Option(min=2, help="Parts of a cross-validation.")] = None,
    tune: Annotated[float | None, typer.Option(help="Minutes, out of all, for trials of other decisions.")] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Two runs are equal to the bit; needs training.steps.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda:0 or mps; auto by default.")] = None,
    threads: Threads = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of every random draw; 0 by default.")] = None,
    everything: Everything = False,
    assignments: Set = None,
    covariates: Covariates = None,
    task: Kind = None,
    given: Given = None,
) -> None:
    """Train a model on DATA: check, plan, train, evaluate and report."""
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
    model: Trained,
    data: Data,
    split: Annotated[
        str | None, typer.Option(help="Cases to score: train, val, test or all; the test cases by default.")
    ] = None,
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
        list[Path],
        typer.Argument(help="Runs, or folders that `evaluate` wrote; the others are compared with the first."),
    ],
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    seed: Seed = 0,
) -> None:
    """Compare models on the same cases, with intervals of the differences."""
    result = isocenter.compare(
        *evaluations, out=out or default_out("compare", evaluations[0]), overwrite=overwrite, seed=seed
    )
    show(result, result.as_record() if json else None)


def ensemble(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs on the same data, two or more.")],
    out: Out = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the runs' data, if they were moved.")] = None,
    weights: Annotated[
        str, typer.Option(help="fitted (to the validation cases, where that is better) or equal.")
    ] = "fitted",
    overwrite: Overwrite = False,
    json: Json = False,
    device: Device = "auto",
    threads: Threads = None,
    seed: Seed = 0,
) -> None:
    """Combine runs of any seeds and networks into one model, and compare it with each."""
    result = isocenter.ensemble(
        runs,
        out=out or default_out("ensemble", runs[0]),
        data=data,
        weights=weights,
        overwrite=overwrite,
        device=device,
        threads=threads,
        seed=seed,
    )
    show(result, result.as_record() if json else None)


def demo(
    data: Annotated[Path | None, typer.Argument(help="Your own data, in place of a public set.")] = None,
    minutes: Annotated[float, typer.Option(help="Minutes from now to the finished model.")] = 7.0,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("demo"),
    overwrite: Overwrite = False,
    assignments: Set = None,
) -> None:
    """Train on public data; the last line is the path of the report."""
    chosen = assigned(assignments)
    isocenter.demo(data, minutes=minutes, out=out, overwrite=overwrite, assignments=chosen, say=typer.echo)
