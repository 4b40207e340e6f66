"""The verbs of studies: parse, call, print."""

from __future__ import annotations

from typing import Annotated

import typer

import isocenter
from isocenter.cli.flags import Json, Seed
from isocenter.cli.shell import show
from isocenter.reading import pairs


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
