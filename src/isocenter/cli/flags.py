"""Flags that several verbs have, and the values that they stand for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from isocenter import planning
from isocenter.errors import UsageError
from isocenter.reading import pairs

Data = Annotated[Path, typer.Argument(metavar="DATA", help="A folder, a table, an archive or a DICOM series.")]
Inputs = Annotated[list[Path], typer.Argument(metavar="INPUT", help="Image files, DICOM series, or folders of them.")]
Trained = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A run's folder, a package, or a model of nnU-Net v2, MONAI or ONNX.")
]
Out = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Folder for the results; by default ./<verb>-<name>.")]
OutPlan = Annotated[Path | None, typer.Option(metavar="FILE", help="File for the plan; by default ./plan-<name>.yaml.")]
OutPage = Annotated[Path | None, typer.Option(metavar="FILE", help="File for the page; by default ./view-<name>.html.")]
OutPackage = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Folder, or file that ends in .zip; by default ./<verb>-<name>."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an older result.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="Device to compute on: auto, cpu, cuda:0 or mps.")]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Dask scheduler whose workers process the cases: tcp://host:8786."),
]
Threads = Annotated[int | None, typer.Option(min=1, metavar="N", help="Cores to use; all by default.")]
# What every generator of random numbers takes.
LARGEST_SEED = 2**63 - 1
Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, metavar="N", help="Seed of every random draw.")]
# Of a training, where the plan decides what nobody gives.
PlannedDevice = Annotated[
    str | None, typer.Option(metavar="NAME", help="Device to compute on: auto (the default), cpu, cuda:0 or mps.")
]
PlannedSeed = Annotated[
    int | None, typer.Option(min=0, max=LARGEST_SEED, metavar="N", help="Seed of every random draw; 0 by default.")
]
Resume = Annotated[Path | None, typer.Option(metavar="RUN", help="Finish the run in this folder.")]
Start = Annotated[Path | None, typer.Option("--from", metavar="MODEL", help="Start from the weights of this model.")]
Pretrained = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="File of weights, or auto for those that the network's authors published."),
]
Deterministic = Annotated[
    bool, typer.Option("--deterministic", help="Make two runs bit-for-bit equal; needs --set training.steps=N.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.NAME=VALUE", help="Set a decision of the plan; repeatable."),
]
Covariates = Annotated[
    str | None,
    typer.Option(
        "--covariates",
        metavar="COLUMNS",
        help="Columns that the network gets with the images: all, none, or age,sex,gene_*; none by default.",
    ),
]
ScoredPart = Annotated[
    str | None,
    typer.Option(
        metavar="PART",
        help="Cases to score: train, val, calibration, test or all. By default the test part; of other data without "
        "one all that did not train the model.",
    ),
]
Groups = Annotated[
    str | None,
    typer.Option(
        metavar="GROUPS",
        help="Groups of people to compare, such as sex,age:40:60,site,sex*age; by default covariates of 2 to 8 levels.",
    ),
]
Positive = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Class that sensitivity, predictive values and thresholds are of; by default the one that has no name of "
        "absence such as normal, else the rarer of two.",
    ),
]
UsualMinutes = Annotated[
    float | None, typer.Option(metavar="M", help="Minutes from now to the finished model; 60 by default.")
]
Folds = Annotated[
    int, typer.Option(min=0, metavar="K", help="Number of cross-validation folds; 0 for a single test part.")
]
Everything = Annotated[bool, typer.Option("--all", help="Train on every case; no performance is estimated.")]
Kind = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="NAME",
        help="Kind of problem, where several fit: classification, detection, findings, instances, regression, "
        "registration (of pairs of images), segmentation or survival; several at once as in "
        "segmentation+classification; representation, which needs no reference.",
    ),
]
Layout = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="How the files are organised, where several layouts fit: nnunet, decathlon, bids, image_folders, "
        "image_pairs, object_masks, suffix_masks, case_folders, class_folders, voc, yolo, labelme, cvat, via, coco, "
        "box_table, medmnist, manifest, dicom_folder or plain_images.",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Names of the label values: 1=anterior,2=posterior; each=NAME where every value is one object.",
    ),
]
Patient = Annotated[
    str | None,
    typer.Option(metavar="RULE", help="Column that names the patient, or a regular expression on case names."),
]
ClassRule = Annotated[
    str | None,
    typer.Option("--class-rule", metavar="REGEX", help="Regular expression on case names whose group is the class."),
]
Column = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ROLE=COLUMN",
        help="Roles of a table's columns: image, mask, label, patient, split, modality, id, findings, finding:NAME, "
        "value:NAME, time, event, as in image=filename,label=diagnosis; repeatable.",
    ),
]
Modality = Annotated[
    str | None, typer.Option(metavar="NAME", help="Modality of all images, where the files do not state it.")
]
Part = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Part of complex voxels to read: magnitude, real, imaginary or phase."),
]
Prefer = Annotated[
    str | None,
    typer.Option(metavar="FORM", help="Transform of a NIfTI file to use where the two disagree: sform or qform."),
]
Orientation = Annotated[
    str | None,
    typer.Option(
        metavar="LETTERS",
        help="Directions in which the axes of volumes grow whose files state none, such as RAS or LPS.",
    ),
]
AllowLarge = Annotated[
    bool, typer.Option("--allow-large", help="Keep cases that are out of all proportion to the others.")
]
Volume = Annotated[
    str | None, typer.Option(metavar="NAME", help="Volume to read, where the file holds several on different grids.")
]
Region = Annotated[
    str | None,
    typer.Option(
        metavar="REGION", help="Part of each image to predict: voxels 0:120,40:200,10:50, or a mask FILE[=VALUE]."
    ),
]
Format = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="File format of dense results: auto, nii.gz, nii, nrrd, png, tiff, csv, stl or obj (surfaces), "
        "or dcm (only DICOM objects).",
    ),
]
Answers = Annotated[
    str,
    typer.Option(
        metavar="KINDS",
        help="DICOM objects: some of seg, labelmap, rtstruct, stl, pm, gsps, sc, pdf, sr; by default seg and sr.",
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Backend that runs a package: auto, compiled, onnx, openvino, openvino-bf16, "
        "tensorrt, torch or torch-bf16.",
    ),
]
Measure = Annotated[
    list[str] | None,
    typer.Option(
        metavar="RATIO",
        help="A ratio of measurements as a finding: 'cdr = cup.short_axis_mm / disc.short_axis_mm'. Repeatable.",
    ),
]
Activation = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Activation that an ONNX file ends in: none (outputs are logits), softmax or sigmoid; found by default.",
    ),
]
Mirror = Annotated[bool | None, typer.Option(help="Average over mirrored images, or do not; as planned by default.")]
Uncertainty = Annotated[
    str | None,
    typer.Option(
        metavar="METHOD",
        help="Source of uncertainty: auto, none, members, laplace, tta; as planned by default.",
    ),
]
Overlap = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="Overlap of adjacent windows, from 0 to below 1; as planned by default."),
]
Seconds = Annotated[
    float | None,
    typer.Option(
        min=0, metavar="S", help="Seconds allowed for the windows of each image; their overlap shrinks to fit."
    ),
]
CovariateTables = Annotated[
    list[Path] | None,
    typer.Option("--covariates", metavar="TABLE", help="Table with a row for each case, patient or time; repeatable."),
]
Backends = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Backends that the certificate tries: all, none, usual (those that predict may pick here), or names.",
    ),
]
# What `predict` writes beside its results.
SaveProbabilities = Annotated[
    bool, typer.Option("--save-probabilities", help="Also write the probabilities of every voxel.")
]
Overlay = Annotated[bool, typer.Option("--overlay", help="Also write a picture of each image with its result.")]
Maps = Annotated[
    bool, typer.Option("--maps", help="Also write a map of uncertainty: the entropy of each voxel's probabilities.")
]
Covering = Annotated[
    bool,
    typer.Option(
        "--covering", help="Also write covering masks, objects or boxes, which miss at most the share task.risk."
    ),
]
Calibration = Annotated[
    str,
    typer.Option(
        metavar="on|off",
        help="Write calibrated probabilities, or those of the network; decisions and sets "
        "always use the calibrated ones.",
    ),
]
Abstain = Annotated[
    str,
    typer.Option(
        metavar="on|mark|off",
        help="What images unlike the training images get: on, no result; mark, a result with a "
        "mark; off, a result without a check.",
    ),
]
# Of `explain`: its methods, and what it looks for besides their maps.
Methods = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Methods: auto, all, or names of cam, gradcam, gradcam++, scorecam, integrated_gradients, "
        "smoothgrad, occlusion, rise, attention, attention_gradients, as in gradcam,occlusion.",
    ),
]
Concepts = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="Concepts to look for in the answers: a folder with one folder of images per concept, or measured.",
    ),
]
Counterfactual = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Also find the smallest change of each image that flips its answer to this "
        "class or finding; auto picks one.",
    ),
]
FillMissing = Annotated[
    bool, typer.Option("--fill-missing", help="Accept a series with missing slices; they become padding.")
]
FillContours = Annotated[
    bool,
    typer.Option(
        "--fill-contours",
        help="Interpolate contours of DICOM structure sets between the slices on which they are drawn.",
    ),
]
Align = Annotated[
    str | None,
    typer.Option(
        metavar="HOW",
        help="Bring all images of a case onto the grid of the first: world (as the headers say) or register (rigidly).",
    ),
]
CaseNames = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Names of DICOM cases: number (of the series), or description, which is free text."
    ),
]
Exif = Annotated[
    str | None,
    typer.Option(
        metavar="PIXELS",
        help="Where references of photographs lie that EXIF turns: on stored pixels, or on upright ones.",
    ),
]
Order = Annotated[
    str | None,
    typer.Option(metavar="CLASSES", help="Classes from the lowest grade to the highest: mild,moderate,severe."),
]
Accept = Annotated[
    str | None,
    typer.Option(
        metavar="FINDINGS", help="Findings that forbid training, and that are accepted here: mixed-scale (of CT)."
    ),
]

# Words in place of a list of names.
WORDS: dict[str, tuple[str, ...] | None] = {"all": None, "none": ()}
# Reading options, as `reads_data` gathers them; no flag of its own.
Given = dict[str, Any] | None


def _reading(
    layout: Layout = None,
    labels: Labels = None,
    patient: Patient = None,
    class_rule: ClassRule = None,
    column: Column = None,
    modality: Modality = None,
    part: Part = None,
    prefer: Prefer = None,
    orientation: Orientation = None,
    fill_missing: FillMissing = False,
    fill_contours: FillContours = False,
    align: Align = None,
    case_names: CaseNames = None,
    exif: Exif = None,
    order: Order = None,
    accept: Accept = None,
    allow_large: AllowLarge = False,
) -> dict[str, Any]:
    """The options that were given, by name."""
    flags = {
        "layout": layout,
        "labels": labels,
        "patient": patient,
        "class_rule": class_rule,
        "column": column,
        "modality": modality,
        "part": part,
        "prefer": prefer,
        "orientation": orientation,
        "fill_missing": fill_missing,
        "fill_contours": fill_contours,
        "align": align,
        "case_names": case_names,
        "exif": exif,
        "order": order,
        "accept": accept,
        "allow_large": allow_large,
    }
    return {name: value for name, value in flags.items() if value}


def reads_data(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb with its own flags and those of `_reading`, which it gets as one value, `given`."""
    own, shared = (inspect.signature(one, eval_str=True).parameters for one in (verb, _reading))

    def command(**values: Any) -> None:
        """The verb, given the options of reading as one value."""
        reading = _reading(**{name: values.pop(name) for name in shared})
        verb(**values, given=reading)

    flags = [*(one for name, one in own.items() if name != "given"), *shared.values()]
    command.__name__, command.__doc__ = verb.__name__, verb.__doc__
    command.__signature__ = inspect.Signature(flags)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in flags}
    return command


def assigned(given: list[str] | None, covariates: str | None = None, groups: str | None = None) -> dict[str, Any]:
    """{"section.name": value} of what `--set` was given, the columns of `--covariates`, and `--groups`."""
    values = {name: planning.parse_value(value) for name, value in pairs(given or [], "--set").items()}
    values |= {} if groups is None else {"evaluation.groups": groups}
    if covariates is None:
        return values
    if "network.context" in values:
        raise UsageError("conflicts with --set network.context", "--covariates", "Give one of the two")
    names = named(covariates, "--covariates")
    return {**values, "network.context": "all" if names is None else list(names) or None}


def named(text: str, flag: str) -> tuple[str, ...] | None:
    """The names in a list; None for "all", none for "none". UsageError where one of these two stands among names."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if len(names) == 1 and names[0] in WORDS:
        return WORDS[names[0]]
    if mixed := WORDS.keys() & set(names):
        raise UsageError(f"{mixed.pop()!r} is mixed with other names: {text!r}", flag, "Give names, or only this word")
    return names
