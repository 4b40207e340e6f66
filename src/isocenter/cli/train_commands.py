"""The verbs from data to a model that has been evaluated: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import isocenter
from isocenter.cli.flags import (
    Activation,
    Backend,
    Covariates,
    Data,
    Deterministic,
    Device,
    Everything,
    Folds,
    Given,
    Groups,
    Json,
    Kind,
    Out,
    OutPlan,
    Overwrite,
    PlannedDevice,
    PlannedSeed,
    Positive,
    Pretrained,
    Resume,
    Scheduler,
    ScoredPart,
    Seed,
    Set,
    Start,
    Threads,
    Trained,
    Uncertainty,
    UsualMinutes,
    assigned,
    reads_data,
)
from isocenter.cli.shell import PartlyFailedError, default_out, fail_if, name_of, say, show


@reads_data
def check(
    data: Data,
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    threads: Threads = None,
    scheduler: Scheduler = None,
    task: Kind = None,
    groups: Annotated[
        str | None,
        typer.Option(metavar="GROUPS", help="Groups of people to count: sex,age:40:60,site,sex*age."),
    ] = None,
    population: Annotated[
        Path | None,
        typer.Option(metavar="TABLE", help="Table of the population: shares of groups, or a row for each person."),
    ] = None,
    shift: Annotated[
        str | None, typer.Option(metavar="GROUPS", help="Groups whose images are compared, such as site.")
    ] = None,
    match: Annotated[
        str | None, typer.Option(metavar="COLUMNS", help="Covariates by which --shift matches patients: age,sex.")
    ] = None,
    given: Given = None,
) -> None:
    """Check DATA and report whether a model can be trained on it."""
    target = out or default_out("check", data)
    result = isocenter.check(
        data,
        out=target,
        overwrite=overwrite,
        threads=threads,
        scheduler=scheduler,
        task=task,
        groups=groups,
        population=population,
        shift=shift,
        match=match,
        **(given or {}),
    )
    show(result, result.as_record() if json else None)
    if not result.passed:
        fatal = result.examination.fatal[0]
        raise PartlyFailedError(fatal.what, str(data), fatal.remedy)


@reads_data
def plan(
    data: Data,
    minutes: UsualMinutes = None,
    out: OutPlan = None,
    overwrite: Overwrite = False,
    json: Json = False,
    device: Device = "auto",
    device_memory: Annotated[
        float | None,
        typer.Option(
            "--device-memory",
            metavar="GIB",
            help="Memory of the GPU that --device names, as in cuda:0; the GPU need not be in this machine.",
        ),
    ] = None,
    threads: Threads = None,
    seed: Seed = 0,
    everything: Everything = False,
    folds: Folds = 0,
    assignments: Set = None,
    covariates: Covariates = None,
    groups: Groups = None,
    positive: Positive = None,
    task: Kind = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print the reasons as prose.")] = False,
    given: Given = None,
) -> None:
    """Plan a training on DATA, with a reason for every decision."""
    result = isocenter.plan(
        data,
        minutes=minutes,
        out=out or Path(f"plan-{name_of(data)}.yaml"),
        overwrite=overwrite,
        device=device,
        device_memory=device_memory,
        threads=threads,
        seed=seed,
        everything=everything,
        folds=folds,
        task=task,
        positive=positive,
        assignments=assigned(assignments, covariates, groups),
        **(given or {}),
    )
    show(result.explained if explain else result, result.as_record() if json else None)


@reads_data
def train(
    data: Annotated[
        Path | None, typer.Argument(metavar="DATA", help="Data as for `check`, or the .yaml file of a plan.")
    ] = None,
    minutes: UsualMinutes = None,
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    resume: Resume = None,
    start: Start = None,
    pretrained: Pretrained = None,
    folds: Annotated[int | None, typer.Option(min=2, metavar="K", help="Number of cross-validation folds.")] = None,
    tune: Annotated[
        float | None,
        typer.Option(metavar="M", help="Minutes, out of --minutes, to search for better decisions of the plan."),
    ] = None,
    deterministic: Deterministic = False,
    device: PlannedDevice = None,
    threads: Threads = None,
    seed: PlannedSeed = None,
    everything: Everything = False,
    assignments: Set = None,
    covariates: Covariates = None,
    groups: Groups = None,
    positive: Positive = None,
    unlabelled: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="Data of which only the images are used, for objectives.terms; repeatable."),
    ] = None,
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
        positive=positive,
        unlabelled=unlabelled or (),
        assignments=assigned(assignments, covariates, groups),
        **(given or {}),
    )
    show(result, result.as_record() if json else None)


@reads_data
def pretrain(
    data: Annotated[
        list[Path] | None,
        typer.Argument(metavar="DATA", help="Folders, tables or archives of images; references are not read."),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What teaches the network: masked (the default where it gives an output for every voxel), contrast "
            "(the default elsewhere) or rotation.",
        ),
    ] = None,
    minutes: UsualMinutes = None,
    leave_out: Annotated[
        Path | None,
        typer.Option(
            "--leave-out", metavar="RUN", help="Leave out the validation, calibration and test patients of this run."
        ),
    ] = None,
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    resume: Resume = None,
    start: Start = None,
    pretrained: Pretrained = None,
    deterministic: Deterministic = False,
    device: PlannedDevice = None,
    threads: Threads = None,
    seed: PlannedSeed = None,
    everything: Everything = False,
    assignments: Set = None,
    given: Given = None,
) -> None:
    """Train a network on images without labels."""
    first = data[0] if data else None
    result = isocenter.pretrain(
        first,
        *(data or [])[1:],
        objective=objective,
        minutes=minutes,
        leave_out=leave_out,
        out=out or (default_out("pretrain", first) if first is not None else None),
        overwrite=overwrite,
        resume=resume,
        start=start,
        pretrained=pretrained,
        deterministic=deterministic,
        device=device,
        threads=threads,
        seed=seed,
        everything=everything,
        assignments=assigned(assignments),
        **(given or {}),
    )
    show(result, result.as_record() if json else None)


@reads_data
def evaluate(
    model: Trained,
    data: Data,
    split: ScoredPart = None,
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    device: Device = "auto",
    threads: Threads = None,
    backend: Backend = "auto",
    scheduler: Scheduler = None,
    uncertainty: Uncertainty = None,
    activation: Activation = None,
    seed: Seed = 0,
    corruptions: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Also score on degraded images: all, or some, such as noise,blur,motion."),
    ] = None,
    severities: Annotated[
        str | None, typer.Option(metavar="N", help="Severities of the corruptions, 1-5 or 1,3; all by default.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also explain the answers to the best and worst cases by maps.")
    ] = False,
    screening: Annotated[
        bool,
        typer.Option("--screening", help="Also make the endpoints of screening, from a column outcome of the cases."),
    ] = False,
    groups: Groups = None,
    group_table: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE", help="Table of further columns for --groups, with a row for each case or patient."
        ),
    ] = None,
    shift: Annotated[
        bool, typer.Option("--shift", help="Compare the network's features between groups, also in matched patients.")
    ] = False,
    positive: Positive = None,
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
        backend=backend,
        scheduler=scheduler,
        uncertainty=uncertainty,
        activation=activation,
        seed=seed,
        corruptions=corruptions,
        explain=explain,
        screening=screening,
        severities=severities,
        groups=groups,
        group_table=group_table,
        shift=shift,
        positive=positive,
        **(given or {}),
    )
    show(result, result.as_record() if json else None)
    fail_if(result.failures)


def compare(
    evaluations: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL", help="Runs, or folders that `evaluate` wrote; the others are compared with the first."
        ),
    ],
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    seed: Seed = 0,
    test: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Test of differences: auto (by metric), delong, permutation, bootstrap, mcnemar or wilcoxon.",
        ),
    ] = "auto",
    margin: Annotated[
        float | None,
        typer.Option(
            metavar="M",
            help="Margin of non-inferiority in the primary metric; by default the one that the plan registered.",
        ),
    ] = None,
    correction: Annotated[
        str, typer.Option(metavar="NAME", help="Correction of p-values for multiple testing: holm, bh or none.")
    ] = "holm",
    readers: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE",
            help="Scores of human readers: columns reader, case, score; also model (as an aid), seconds and call.",
        ),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(metavar="COLUMNS", help="Groups within which models are compared: sex,age:40:60,sex*age."),
    ] = None,
) -> None:
    """Compare models on the same cases. Each difference has an interval, a test and a verdict."""
    result = isocenter.compare(
        *evaluations,
        out=out or default_out("compare", evaluations[0]),
        overwrite=overwrite,
        seed=seed,
        test=test,
        margin=margin,
        correction=correction,
        readers=readers,
        groups=groups,
    )
    show(result, result.as_record() if json else None)


def ensemble(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Two or more finished runs on the same data.")],
    out: Out = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder where the runs' data are now, if they were moved.")
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Weights of the runs: fitted to the validation cases where that is better, or equal."
        ),
    ] = "fitted",
    overwrite: Overwrite = False,
    json: Json = False,
    device: Device = "auto",
    threads: Threads = None,
    seed: Seed = 0,
) -> None:
    """Combine runs into one model. Seeds and networks may differ; the report compares it with each run."""
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
    data: Annotated[
        Path | None, typer.Argument(metavar="DATA", help="Your own data, in place of a public set.")
    ] = None,
    minutes: Annotated[float, typer.Option(metavar="M", help="Minutes from now to the finished model.")] = 7.0,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the run.")] = Path("demo"),
    overwrite: Overwrite = False,
    assignments: Set = None,
) -> None:
    """Train on public data and predict one case. The last line is the path of the report."""
    chosen = assigned(assignments)
    isocenter.demo(data, minutes=minutes, out=out, overwrite=overwrite, assignments=chosen, say=say)
