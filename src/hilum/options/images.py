"""Options of the verbs for images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt

from hilum.files.format_options import FileChoices
from hilum.options.shared_flags import Device, Inputs, Out, Overwrite, Seed, Volume
from hilum.reading import ReadingOptions
from hilum.reading.reading_options import Input
from hilum.values import BoundingBoxes, Image, Setting, SpatialTransform

if TYPE_CHECKING:
    from hilum.runtime import Model


def _option_names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


@dataclass(frozen=True)
class ConvertOptions(FileChoices):
    """Write an image in another format. What the format cannot hold is refused, never changed.

    real_world: apply a DICOM Real World Value Mapping
    """

    source: Annotated[str | Path, Setting("An image file, or a folder of one DICOM series.", "SOURCE")]
    out: Annotated[str | Path, Setting("File to write; its suffix names the format.", "FILE", "--out")]
    _: KW_ONLY
    overwrite: Overwrite = False
    volume: Volume = None
    drop_geometry: Annotated[bool, Setting("Drop spacing and position, so that a slice can become a picture.")] = False
    adc: Annotated[bool, Setting("Write the apparent diffusion coefficient, fitted to frames at several b-values.")] = (
        False
    )
    regions: Annotated[
        str | Path | None, Setting("A label map: write the mean of each region in every frame.", "FILE")
    ] = None
    connectivity: Annotated[
        str | Path | None,
        Setting("A label map: write a table of the correlations between its regions over time.", "ATLAS"),
    ] = None
    through: Annotated[
        str | Path | SpatialTransform | None,
        Setting("Transform to carry the image through (.h5, .tfm, .nii.gz, .dcm).", "TRANSFORM"),
    ] = None
    onto: Annotated[str | Path | Image | None, Setting("Image on whose grid it shall lie.", "FIXED")] = None
    inverse: Annotated[bool, Setting("Go the other way: SOURCE was the fixed image of the transform.")] = False
    real_world: bool = False


@dataclass(frozen=True)
class EnhanceOptions(ReadingOptions):
    """Enhance images by a filter or a model, with what it changed."""

    inputs: Annotated[Input | Sequence[Input], Inputs]
    _: KW_ONLY
    out: Out = None
    overwrite: Overwrite = False
    method: Annotated[
        str | Path | Model,
        Setting(
            "nlm (non-local means), tv (total variation), n4 (bias field), clahe (local contrast), or a model.",
            "NAME|MODEL",
        ),
    ] = "nlm"
    device: Device = "auto"


@dataclass(frozen=True)
class SynthesiseOptions:
    """Synthesise images of a class, by a mask, or of neither."""

    run: Annotated[str | Path, Setting("The folder of a run of --task synthesis.", "RUN")]
    _: KW_ONLY
    count: Annotated[int, Ge(1), Setting("Images to synthesise; of each class, where none is named.", "N")] = 20
    out: Out = None
    overwrite: Overwrite = False
    label: Annotated[str | None, Setting("Class to synthesise; by default each.", "NAME")] = None
    mask: Annotated[str | Path | None, Setting("Label map by which to synthesise, or a folder of some.", "FILE")] = None
    steps: Annotated[int, Ge(1), Setting("Steps from noise to an image.", "N")] = 30
    guidance: Annotated[float, Ge(0), Setting("How strictly the class or mask is followed; 1 as learnt.", "W")] = 1.0
    data: Annotated[
        str | Path | None, Setting("Data to train on with the synthetic images: writes dataset.csv.", "DATA", "--with")
    ] = None
    features: Annotated[
        str | Path | Model | None, Setting("A run or package, in whose features copies are looked for too.", "MODEL")
    ] = None
    seed: Seed = 0
    device: Device = "auto"


@dataclass(frozen=True)
class ReconstructOptions:
    """Make images of measurements: CT and Cartesian MR."""

    inputs: Annotated[
        str | Path | Sequence[str | Path],
        Setting("Measurements (.npz, .npy, .h5), or folders of them.", "MEASUREMENT", repeats=True),
    ]
    _: KW_ONLY
    out: Out = None
    overwrite: Overwrite = False
    acquisition: Annotated[
        str | Path | None, Setting("JSON that says how it was measured, for files that do not.", "FILE")
    ] = None
    method: Annotated[
        str, Setting("auto, fbp, zero_filled, cg, tv (total variation), or a run or package.", "NAME")
    ] = "auto"
    weight: Annotated[
        float | None,
        Ge(0),
        Setting("Weight of total variation, or of the squared image of cg; by default by the noise.", "W"),
    ] = None
    iterations: Annotated[int | None, Ge(1), Setting("Steps of cg or tv.", "N")] = None


@dataclass(frozen=True)
class RegisterOptions(FileChoices):
    """Lay MOVING on FIXED, with a report."""

    fixed: Annotated[str | Path | Image, Setting("The image that stays: a file or a DICOM series.", "FIXED")]
    moving: Annotated[str | Path | Image, Setting("The image that is laid on it.", "MOVING")]
    _: KW_ONLY
    out: Out = None
    overwrite: Overwrite = False
    transform: Annotated[str, Setting("Kind of transform: rigid, affine or deformable.", "KIND")] = "deformable"
    similarity: Annotated[
        str,
        Setting(
            "What is compared: lncc (one contrast), mse (CT on CT), mi, nmi or mind (across contrasts) or auto.", "NAME"
        ),
    ] = "auto"
    initial: Annotated[
        str, Setting("First guess: world (as the headers say), centres, moments, or auto: the best.", "NAME")
    ] = "auto"
    fixed_mask: Annotated[str | Path | Image | None, Setting("Mask of the fixed image: what is compared.", "FILE")] = (
        None
    )
    labels: Annotated[str | Path | Image | None, Setting("Label map of the moving image, to carry along.", "FILE")] = (
        None
    )
    fixed_labels: Annotated[
        str | Path | Image | None, Setting("Label map of the fixed image: scored, and of lesions the organs.", "FILE")
    ] = None
    points: Annotated[
        str | Path | None, Setting("CSV of name,x,y,z (RAS+ mm) in the fixed image, to carry along.", "FILE")
    ] = None
    lesions: Annotated[
        Sequence[str | Path | Image],
        Setting("Masks of the lesions of FIXED, the baseline, and of MOVING, the follow-up.", "A B", values=2),
    ] = ()
    days: Annotated[
        float | None, Gt(0), Setting("Days from the baseline to the follow-up; by default as DICOM states.", "N")
    ] = None
    earlier: Annotated[
        Sequence[str | Path],
        Setting("response.json of a follow-up before this one, for the nadir; may be repeated.", "FILE", repeats=True),
    ] = ()
    model: Annotated[
        str | Path | Model | None, Setting("A run or package of --task registration, which answers.", "MODEL")
    ] = None
    seconds: Annotated[
        float | None, Gt(0), Setting("Longest time for the deformable part; by default all its steps.", "S")
    ] = None
    across_patients: Annotated[bool, Setting("Allow DICOM images of two patients.")] = False
    real_world: bool = False


@dataclass(frozen=True)
class RegisterFramesOptions(FileChoices):
    """Lay the frames of SERIES on one another: motion.csv."""

    series: Annotated[str | Path | Image, Setting("The series: a file or a DICOM series.", "SERIES")]
    _: KW_ONLY
    out: Out = None
    to: Annotated[str, Setting("What frames are laid on: first, or mean of all.", "NAME")] = "first"
    transform: Annotated[str, Setting("Kind of transform: rigid, or deformable as for breathing.", "KIND")] = "rigid"
    labels: Annotated[str | Path | Image | None, Setting("Label map of one frame, to carry to all.", "FILE")] = None
    labels_frame: Annotated[int, Ge(1), Setting("Number of the frame of --labels, from 1 on.", "N")] = 1
    overwrite: Overwrite = False
    real_world: bool = False


@dataclass(frozen=True)
class ViewOptions(FileChoices):
    """Write a page to browse IMAGE, with MASK on top."""

    image: Annotated[str | Path | Image, Setting("An image file or a DICOM series.", "IMAGE")]
    mask: Annotated[
        str | Path | Image | BoundingBoxes | None,
        Setting("A label map on its grid, or a file of boxes (XML, CSV).", "MASK"),
    ] = None
    _: KW_ONLY
    out: Annotated[str | Path | None, Setting("File for the page.", "FILE", path="view-<name>.html")] = None
    overwrite: Overwrite = False
    volume: Volume = None
    real_world: bool = False


@dataclass(frozen=True)
class DeidentifyOptions:
    """Write images without the identity of their patients."""

    inputs: Annotated[
        str | Path | Sequence[str | Path], Setting("DICOM files, images, or folders of them.", "INPUT", repeats=True)
    ]
    _: KW_ONLY
    out: Annotated[str | Path, Setting("Folder of what may be handed on.", "FOLDER")]
    options: Annotated[
        str | Sequence[str],
        Setting("Options of PS3.15 annex E, as clean-pixels,shift-dates.", "LIST", read=_option_names),
    ] = ()
    table: Annotated[bool, Setting("Write the way back, table.csv, into FOLDER.private.")] = False
    accept_review: Annotated[bool, Setting("Write also what review.html shows, as it is shown there.")] = False
