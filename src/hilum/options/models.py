"""Options of the verbs for trained models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Lt

from hilum.options.shared_flags import (
    PACKAGE,
    RESULTS,
    Activation,
    Assignments,
    Backend,
    Backends,
    CovariateTables,
    Device,
    Groups,
    Inputs,
    Measure,
    Out,
    Overwrite,
    Positive,
    Scheduler,
    Seed,
    Threads,
    Trained,
    Uncertainty,
    UsualBackends,
)
from hilum.reading import ReadingOptions
from hilum.reading.reading_options import Input
from hilum.values import Dataset, Prompts, Setting

if TYPE_CHECKING:
    from hilum.runtime import Model


def _listed(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


@dataclass(frozen=True)
class PredictOptions(ReadingOptions):
    """Predict images with MODEL, each on its own grid."""

    model: Annotated[str | Path | Model, Trained]
    inputs: Annotated[Input | Sequence[Input], Inputs]
    _: KW_ONLY
    out: Out = None
    overwrite: Overwrite = False
    format: Annotated[
        str,
        Setting(
            "File format of dense results: auto, nii.gz, nii, nrrd, png, tiff, csv, stl or obj (surfaces), "
            "or dcm (only DICOM objects).",
            "NAME",
        ),
    ] = "auto"
    answers: Annotated[
        str | Sequence[str],
        Setting(
            "DICOM objects: some of seg, labelmap, rtstruct, stl, pm, series, gsps, sc, pdf, sr; usually seg and sr.",
            "KINDS",
        ),
    ] = ""
    fold: Annotated[int | None, Ge(0), Setting("Use one fold of a run, in place of the mean of all.", "N")] = None
    mirror: Annotated[bool | None, Setting("Average over mirrored images, or do not; as planned by default.")] = None
    save_probabilities: Annotated[bool, Setting("Also write the probabilities of every voxel.")] = False
    overlay: Annotated[bool, Setting("Also write a picture of each image with its result.")] = False
    maps: Annotated[bool, Setting("Also write a map of uncertainty: the entropy of each voxel's probabilities.")] = (
        False
    )
    covering: Annotated[
        bool, Setting("Also write covering masks, objects or boxes, which miss at most the share task.risk.")
    ] = False
    device: Device = "auto"
    threads: Threads = None
    backend: Backend = "auto"
    scheduler: Scheduler = None
    region: Annotated[
        str | None,
        Setting("Part of each image to predict: voxels 0:120,40:200,10:50, or a mask FILE[=VALUE].", "REGION"),
    ] = None
    box: Annotated[
        Sequence[str],
        Setting(
            "Box around an object, for a model that takes prompts; repeatable.", "x0,y0[,z0],x1,y1[,z1]", repeats=True
        ),
    ] = ()
    point: Annotated[
        Sequence[str],
        Setting("Point inside an object (:1) or outside (:0), a voxel's index; repeatable.", "x,y[,z]:1", repeats=True),
    ] = ()
    scribble: Annotated[
        str | Path | None, Setting("Mask on the image's grid of scribbles inside (1) and outside (2).", "FILE")
    ] = None
    unit: Annotated[str, Setting("Unit of boxes and points: voxel, or mm (RAS+).", "voxel|mm")] = "voxel"
    prompts: Annotated[
        str | Path | Prompts | Sequence[Prompts] | None,
        Setting("Prompts of each case: a JSON file, or the predictions.csv of a detector.", "FILE"),
    ] = None
    overlap: Annotated[
        float | None,
        Ge(0),
        Lt(1),
        Setting("Overlap of adjacent windows, from 0 to below 1; as planned by default.", "SHARE"),
    ] = None
    seconds: Annotated[
        float | None,
        Ge(0),
        Setting("Seconds allowed for the windows of each image; their overlap shrinks to fit.", "S"),
    ] = None
    covariates: CovariateTables = None
    calibration: Annotated[
        str,
        Setting(
            "Write calibrated probabilities, or those of the network; decisions and sets "
            "always use the calibrated ones.",
            "on|off",
        ),
    ] = "on"
    abstain: Annotated[
        str,
        Setting(
            "What images unlike the training images get: on, no result; mark, a result with a "
            "mark; off, a result without a check.",
            "on|mark|off",
        ),
    ] = "on"
    uncertainty: Uncertainty = None
    activation: Activation = None
    measure: Measure = ()
    prior: Annotated[
        Input | None, Setting("Earlier image of the same patient: the answer also says what changed since.", "OLD")
    ] = None
    lesions: Annotated[
        Sequence[str],
        Setting("Structure of which each piece is a lesion, followed since --prior; repeatable.", "NAME", repeats=True),
    ] = ()
    days: Annotated[
        float | None, Gt(0), Setting("Days since --prior; by default by the dates in the headers.", "N")
    ] = None


@dataclass(frozen=True)
class ExplainOptions(ReadingOptions):
    """Explain MODEL's answers by maps on each image's own grid."""

    model: Annotated[str | Path | Model, Trained]
    inputs: Annotated[Input | Sequence[Input], Inputs]
    _: KW_ONLY
    out: Out = None
    overwrite: Overwrite = False
    method: Annotated[
        str | Sequence[str],
        Setting(
            "Methods: auto, all, or names of cam, gradcam, gradcam++, scorecam, integrated_gradients, "
            "smoothgrad, occlusion, rise, attention, attention_gradients, as in gradcam,occlusion.",
            "NAMES",
        ),
    ] = "auto"
    target: Annotated[str, Setting("Class, finding, structure, value or box; auto: the model's answer.", "NAME")] = (
        "auto"
    )
    references: Annotated[
        str | Path | Dataset | None,
        Setting("Data set with masks or boxes of the same cases, to compare the maps with.", "DATA"),
    ] = None
    tests: Annotated[
        int, Ge(0), Setting("Number of cases for tests of methods that were never tested on MODEL.", "N")
    ] = 20
    seed: Seed = 0
    seconds: Annotated[
        float | None,
        Ge(0),
        Setting("Seconds for each map of occlusion or rise; by default a fixed number of masks.", "S"),
    ] = None
    fold: Annotated[int | None, Ge(0), Setting("Explain one fold of a run, in place of the mean of all.", "N")] = None
    device: Device = "auto"
    threads: Threads = None
    backend: Backend = "auto"
    covariates: CovariateTables = None
    concepts: Annotated[
        str | Path | None,
        Setting(
            "Concepts to look for in the answers: a folder with one folder of images per concept, or measured.",
            "FOLDER",
        ),
    ] = None
    counterfactual: Annotated[
        str | None,
        Setting(
            "Also find the smallest change of each image that flips its answer to this "
            "class or finding; auto picks one.",
            "NAME",
        ),
    ] = None


@dataclass(frozen=True)
class EmbedOptions(ReadingOptions):
    """Write what MODEL sees in each image as a table."""

    model: Annotated[str | Path | Model, Trained]
    inputs: Annotated[Input | Sequence[Input], Inputs]
    _: KW_ONLY
    out: Out = None
    overwrite: Overwrite = False
    fold: Annotated[int | None, Ge(0), Setting("Use one fold of a run, in place of the first.", "N")] = None
    device: Device = "auto"
    threads: Threads = None
    backend: Backend = "auto"
    covariates: CovariateTables = None


@dataclass(frozen=True)
class PackageOptions:
    """Write the model of RUN as a MONAI bundle. It also runs without Hilum."""

    run: Annotated[str | Path, Setting("The folder of a finished run.", "RUN")]
    _: KW_ONLY
    out: Annotated[str | Path, PACKAGE]
    overwrite: Overwrite = False
    backends: Backends = None
    threads: Threads = None
    format: Annotated[str, Setting("monai, or triton: the network alone.", "FORMAT")] = "monai"
    codes: Annotated[
        str | Path | None,
        Setting("A table name,scheme,value,meaning[,unit] with the codes of what results name.", "FILE"),
    ] = None
    measure: Measure = ()
    repeats: Annotated[
        str | Path | None,
        Setting("What evaluate wrote of RUN on repeated images: how far its measurements of them differ.", "FOLDER"),
    ] = None


@dataclass(frozen=True)
class CompressOptions(ReadingOptions):
    """Make MODEL smaller and faster. Each variant has its price on cases that decided nothing of it."""

    model: Annotated[str | Path, Setting("A run's folder or a package.", "MODEL")]
    _: KW_ONLY
    data: Annotated[
        str | Path | Dataset, Setting("Labelled cases: the training cases of MODEL, and others.", "DATA", "--data")
    ]
    out: Annotated[str | Path, RESULTS]
    overwrite: Overwrite = False
    methods: Annotated[
        Sequence[str],
        Setting(
            "Variants to make: int8, int4, distil, prune; or recertify, which tries those of a package here.",
            "NAMES",
            read=_listed,
        ),
    ] = ("int8",)
    loss: Annotated[float, Gt(0), Setting("Largest accepted loss, in the primary metric.", "LOSS")] = 0.005
    samples: Annotated[int, Ge(1), Setting("Number of training cases that give the ranges of 8-bit numbers.", "N")] = 32
    target: Annotated[
        str | None,
        Setting("Most that a variant may cost: latency=MS, size=MB or memory=MIB; the best one is named.", "COST"),
    ] = None
    minutes: Annotated[
        float | None, Ge(0), Setting("Minutes for each method that trains; by default those of the run.", "M")
    ] = None
    assignments: Assignments = None
    groups: Groups = None
    threads: Threads = None
    seed: Seed = 0
    resume: Annotated[bool, Setting("Go on with what a stopped command left in the folder.")] = False


@dataclass(frozen=True)
class NetworksOptions:
    """List the network families that a plan may name."""


@dataclass(frozen=True)
class WeightsOptions:
    """List the weights that `train --from` reads, with licences."""


@dataclass(frozen=True)
class CalibrateOptions(ReadingOptions):
    """Fit MODEL's calibration and thresholds to DATA. The result is a package; a bundle or ONNX file keeps its form."""

    model: Annotated[str | Path, Trained]
    data: Annotated[str | Path | Dataset, Setting("Labelled cases that the model has not seen.", "DATA")]
    _: KW_ONLY
    out: Annotated[str | Path, PACKAGE]
    overwrite: Overwrite = False
    backends: Backends = None
    threads: Threads = None
    positive: Positive = None


@dataclass(frozen=True)
class AdoptOptions:
    """Write a model of another program as a package. It predicts as the original does."""

    source: Annotated[
        str | Path,
        Setting(
            "A result folder of nnU-Net v2, a checkpoint of SAM, MedSAM or SAMed with --as, or with --classes a run "
            "that texts taught. A MONAI bundle or an ONNX file needs no package: predict with it.",
            "SOURCE",
        ),
    ]
    _: KW_ONLY
    out: Annotated[str | Path, PACKAGE]
    overwrite: Overwrite = False
    program: Annotated[
        str | None,
        Setting(
            "How a file is used, which it does not show: sam, medsam or samed; with --classes openclip or medclip.",
            "PROGRAM",
            name="--as",
        ),
    ] = None
    classes: Annotated[str | Path | None, Setting("JSON file that gives a list of texts for each class.", "FILE")] = (
        None
    )
    text: Annotated[
        str | Path | None, Setting("Settings and tokenizer of the BERT of openclip or medclip.", "FOLDER")
    ] = None
    adapter: Annotated[str | Path | None, Setting("The adapter of SAMed; SOURCE is its base file.", "FILE")] = None
    size: Annotated[
        int | None,
        Ge(1),
        Setting("Voxels along each side of the square that SAMed sees; by default those of SOURCE.", "VOXELS"),
    ] = None
    fold: Annotated[int | None, Ge(0), Setting("Use one fold of SOURCE, in place of the mean of all.", "N")] = None
    trust: Annotated[
        Sequence[str],
        Setting(
            "Function or class that the checkpoint of SOURCE may call, which runs code; repeatable.",
            "MODULE.NAME",
            repeats=True,
        ),
    ] = ()
    postprocessing: Annotated[str | Path | None, Setting("The postprocessing.pkl of nnU-Net.", "FILE")] = None
    images: Annotated[str | Path | None, Setting("Images to compare the backends on for the certificate.", "DATA")] = (
        None
    )
    backends: UsualBackends = ("usual",)
    threads: Threads = None
