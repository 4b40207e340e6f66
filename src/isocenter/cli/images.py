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
    Out,
    OutPage,
    Overwrite,
    Part,
    Prefer,
    Volume,
)
from isocenter.cli.shell import default_out, fail_if, name_of, show
from isocenter.errors import UsageError


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
    through: Annotated[
        Path | None,
        typer.Option(metavar="TRANSFORM", help="Transform to carry the image through (.h5, .tfm, .nii.gz, .dcm)."),
    ] = None,
    onto: Annotated[Path | None, typer.Option(metavar="FIXED", help="Image on whose grid it shall lie.")] = None,
    inverse: Annotated[
        bool, typer.Option("--inverse", help="Go the other way: SOURCE was the fixed image of the transform.")
    ] = False,
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
        through=through,
        onto=onto,
        inverse=inverse,
        **options,
    )
    show(result, result.as_record() if json else None)
    fail_if(result.problems)


def register(
    fixed: Annotated[Path, typer.Argument(metavar="FIXED", help="The image that stays: a file or a DICOM series.")],
    moving: Annotated[
        Path | None, typer.Argument(metavar="MOVING", help="The image that is laid on it; none with --frames.")
    ] = None,
    out: Out = None,
    overwrite: Overwrite = False,
    json: Json = False,
    transform: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", help="Kind of transform: rigid, affine or deformable (the default; of frames rigid)."
        ),
    ] = None,
    similarity: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What is compared: lncc (within a modality), mse (CT on CT), mind (across modalities) or auto.",
        ),
    ] = "auto",
    initial: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="First guess: world (as the headers say), centres, moments, or auto: the best."
        ),
    ] = "auto",
    fixed_mask: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Mask of the fixed image: what is compared.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Label map of the moving image, or of a frame, to carry along.")
    ] = None,
    fixed_labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Label map of the fixed image: scored, and of lesions the organs."),
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CSV of name,x,y,z (RAS+ mm) in the fixed image, to carry along."),
    ] = None,
    lesions: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Masks of the lesions of FIXED, the baseline, and of MOVING, the follow-up."),
    ] = None,
    days: Annotated[
        float | None,
        typer.Option(metavar="N", help="Days from the baseline to the follow-up; by default as DICOM states."),
    ] = None,
    earlier: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="response.json of a follow-up before this one, for the nadir; may be repeated."
        ),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="A run or package of --task registration, which answers.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(metavar="S", help="Longest time for the deformable part; by default all its steps.")
    ] = None,
    across_patients: Annotated[
        bool, typer.Option("--across-patients", help="Allow DICOM images of two patients.")
    ] = False,
    frames: Annotated[
        bool, typer.Option("--frames", help="Lay the frames of the series FIXED on one another: motion.csv.")
    ] = False,
    labels_frame: Annotated[
        int,
        typer.Option(metavar="N", help="With --frames: number of the frame on which --labels were drawn, from 1 on."),
    ] = 1,
    to: Annotated[str, typer.Option(metavar="NAME", help="What frames are laid on: first, or mean of all.")] = "first",
    part: Part = None,
    prefer: Prefer = None,
    orientation: Orientation = None,
    fill_missing: FillMissing = False,
) -> None:
    """Lay MOVING on FIXED, with a report."""
    reading: dict[str, Any] = {"part": part, "prefer": prefer, "orientation": orientation}
    reading["fill_missing"] = fill_missing
    if frames == (moving is not None):
        raise UsageError("one image and --frames, or two images", "register", "Give FIXED and MOVING, or a series")
    if moving is None:
        target = out or default_out("register", fixed)
        kind = transform or "rigid"
        motion = isocenter.register_frames(
            fixed,
            out=target,
            overwrite=overwrite,
            to=to,
            transform=kind,
            labels=labels,
            labels_frame=labels_frame,
            **reading,
        )
        show(motion, motion.as_record() if json else None)
        return
    result = isocenter.register(
        fixed,
        moving,
        out=out or default_out("register", moving),
        overwrite=overwrite,
        transform=transform or "deformable",
        similarity=similarity,
        initial=initial,
        fixed_mask=fixed_mask,
        labels=labels,
        fixed_labels=fixed_labels,
        points=points,
        lesions=lesions or (),
        days=days,
        earlier=earlier or (),
        model=model,
        seconds=seconds,
        across_patients=across_patients,
        **reading,
    )
    show(result, result.as_record() if json else None)


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
