"""The verbs for single images: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import isocenter
from isocenter.cli.flags import (
    FillMissing,
    Json,
    OutPage,
    Overwrite,
    Part,
    Prefer,
    Volume,
)
from isocenter.cli.shell import fail_if, name_of, show


def convert(
    source: Annotated[Path, typer.Argument(help="Any readable file, or a folder of one DICOM series.")],
    out: Annotated[Path, typer.Option(help="File to write; its suffix names the format.")],
    overwrite: Overwrite = False,
    json: Json = False,
    volume: Volume = None,
    part: Part = None,
    prefer: Prefer = None,
    fill_missing: FillMissing = False,
    drop_geometry: Annotated[
        bool, typer.Option("--drop-geometry", help="Drop size and position, so that a slice can become a picture.")
    ] = False,
    adc: Annotated[
        bool, typer.Option("--adc", help="Write the diffusion coefficient, fitted to frames at b-values.")
    ] = False,
    regions: Annotated[
        Path | None, typer.Option(help="A label map; write the mean of each region over the frames.")
    ] = None,
) -> None:
    """Write an image in another format: same geometry, same values, or a refusal."""
    options: dict[str, Any] = {"part": part, "prefer": prefer, "fill_missing": fill_missing}
    result = isocenter.convert(
        source,
        out,
        volume=volume,
        overwrite=overwrite,
        drop_geometry=drop_geometry,
        adc=adc,
        regions=regions,
        **options,
    )
    show(result, result.as_record() if json else None)
    fail_if(result.problems)


def view(
    image: Annotated[Path, typer.Argument(help="An image file or a DICOM series.")],
    mask: Annotated[Path | None, typer.Argument(help="A label map on its grid, or a file of boxes (XML, CSV).")] = None,
    out: OutPage = None,
    overwrite: Overwrite = False,
    volume: Volume = None,
    part: Part = None,
    prefer: Prefer = None,
) -> None:
    """Write a page to look through IMAGE, with MASK on top."""
    target = out or Path(f"view-{name_of(image)}.html")
    options: dict[str, Any] = {"part": part, "prefer": prefer}
    show(isocenter.view(image, mask, out=target, overwrite=overwrite, volume=volume, **options), None)
