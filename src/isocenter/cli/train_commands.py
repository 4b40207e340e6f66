"""The verbs from data to a model that has been evaluated: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import isocenter
from isocenter.cli.flags import (
    LARGEST_SEED,
    Activation,
    Backend,
    Covariates,
    Data,
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
    Positive,
    Scheduler,
    ScoredPart,
    Seed,
    Set,
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
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Finish the run in this folder.")] = None,
    start: Annotated[
        Path | None, typer.Option("--from", metavar="MODEL", help="Start from the weights of this model.")
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="File of weights, or auto for those that the network's authors published."),
    ] = None,
    folds: Annotated[int | None, typer.Option(min=2, metavar="K", help="Number of cross-validation folds.")] = None,
    tune: Annotated[
        float | None,
        typer.Option(metavar="M", help="Minutes, out of --minutes, to search for better decisions of the plan."),
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Make two runs bit-for-bit equal; needs --set training.steps=N.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Device to compute on: auto (the default), cpu, cuda:0 or mps."),
    ] = None,
    threads: Threads = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=LARGEST_SEED, metavar="N", help="Seed of every random draw; 0 by default.")
    ] = None,
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
            help="Scores of human readers: columns reader, case and score, and model where a model aided the reader.",
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
