"""The verbs of studies: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import isocenter
from isocenter.cli.flags import Json, Overwrite, Seed
from isocenter.cli.shell import show
from isocenter.reading import pairs

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of a study.")]
OutFolder = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder for what is written.")]


def size(
    design: Annotated[
        str,
        typer.Argument(
            metavar="DESIGN",
            help="proportion, proportions, paired-proportions, means, auroc, mrmc, survival, prediction-model "
            "or stepped-wedge.",
        ),
    ],
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Set an input of the design; repeatable."),
    ] = None,
    simulate: Annotated[
        int, typer.Option(min=0, metavar="N", help="Check the power by so many simulated studies.")
    ] = 0,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Size a study: how many participants it needs, or its power, or the effect that it finds."""
    result = isocenter.study_size(
        design, assignments=dict(pairs(assignments or [], "--set")), simulate=simulate, seed=seed
    )
    show(result, result.as_record() if json else None)


def plan(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="The plan of a trial: study.toml.")],
    out: OutFolder,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write protocol, plan of analysis and fields of a registry from STUDY."""
    result = isocenter.study_plan(study, out=out, overwrite=overwrite)
    show(result, result.as_record() if json else None)


def lock(
    folder: Folder,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why a locked plan is amended.")] = "",
    json: Json = False,
) -> None:
    """Seal the plan in FOLDER, or an amendment of it."""
    result = isocenter.study_lock(folder, reason=reason)
    show(result, result.as_record() if json else None)


def randomise(
    folder: Folder,
    method: Annotated[
        str, typer.Option(metavar="NAME", help="block: participants in blocks; cluster: whole clusters.")
    ],
    json: Json = False,
) -> None:
    """Draw the list of arms, encrypted by ISOCENTER_ALLOCATION_KEY."""
    result = isocenter.study_randomise(folder, method=method)
    show(result, result.as_record() if json else None)


def assign(
    folder: Folder,
    participant: Annotated[str, typer.Option(metavar="ID", help="The participant, or the cluster.")],
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="STRATUM=LEVEL", help="Level of a stratum; repeatable.")
    ] = None,
    json: Json = False,
) -> None:
    """Give a participant the next arm, once."""
    result = isocenter.study_assign(folder, participant=participant, assignments=pairs(assignments or [], "--set"))
    show(result, result.as_record() if json else None)


def analyse(
    folder: Folder,
    data: Annotated[Path, typer.Option(metavar="TABLE", help="A row a participant, with its arm and outcomes.")],
    out: OutFolder,
    explore: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=METRIC", help="Compare a further column by mean or proportion; repeatable."),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Analyse TABLE as the locked plan says."""
    result = isocenter.study_analyse(
        folder, data=data, out=out, explore=pairs(explore or [], "--explore"), overwrite=overwrite
    )
    show(result, result.as_record() if json else None)
