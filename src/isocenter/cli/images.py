"""The verbs for single images: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import isocenter
from isocenter.cli.flags import (
    FillMissing,
    Json,
    Orientation,
    OutPage,
    Overwrite,
    Part,
    Prefer,
    Volume,
)
from isocenter.cli.shell import fail_if, name_of, show


def convert(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="An image file, or a folder of one DICOM series.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write; its suffix names the format.")],
    overwrite: Overwrite = False,
    json: Json = False,
    volume: Volume = None,
    part: Part = None,
    prefer: Prefer = None,
    orientation: Orientation = None,
    fill_missing: FillMissing = False,
    drop_geometry: Annotated[
        bool,
        typer.Option("--drop-geometry", help="Drop spacing and position, so that a slice can become a picture."),
    ] = False,
    adc: Annotated[
        bool,
        typer.Option("--adc", help="Write the apparent diffusion coefficient, fitted to frames at several b-values."),
    ] = False,
    regions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A label map: write the mean of each region in every frame.")
    ] = None,
) -> None:
    """Write an image in another format. What the format cannot hold is refused, never changed."""
    options: dict[str, Any] = {"part": part, "prefer": prefer, "orientation": orientation}
    options["fill_missing"] = fill_missing
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
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image file or a DICOM series.")],
    mask: Annotated[
        Path | None, typer.Argument(metavar="MASK", help="A label map on its grid, or a file of boxes (XML, CSV).")
    ] = None,
    out: OutPage = None,
    overwrite: Overwrite = False,
    volume: Volume = None,
    part: Part = None,
    prefer: Prefer = None,
    orientation: Orientation = None,
) -> None:
    """Write a page to browse IMAGE, with MASK on top."""
    target = out or Path(f"view-{name_of(image)}.html")
    options: dict[str, Any] = {"part": part, "prefer": prefer, "orientation": orientation}
    show(isocenter.view(image, mask, out=target, overwrite=overwrite, volume=volume, **options), None)
