"""The page of a package: the model, how to run it, its figures and their limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from hilum import errors
from hilum.report import wording
from hilum.runtime import model_identity, result_codes
from hilum.runtime.covariate_encoding import IMAGE
from hilum.runtime.guard.gate_state import NONE
from hilum.runtime.model_assembly import Model
from hilum.runtime.package import monai_metadata
from hilum.runtime.package.monai_metadata import NOT_STATED
from hilum.runtime.package.package_contents import FIRST
from hilum.runtime.preprocessing.protocol import PreprocessingKind
from hilum.tasks import properties
from hilum.transforms.channel_stack import GREY
from hilum.values import Row, grid_geometry
from hilum.values.finding import CodedName

RUN_COMMAND = (
    "python -m monai.bundle run --config_file configs/inference.json --dataset_dir IMAGES --output_dir RESULTS"
)
NOTHING = "No performance was estimated: there are no figures for this model."


def readme_text(
    model: Model, title: str, rows: Sequence[Row], limits: Sequence[str], needs: Mapping[str, str], description: str
) -> str:
    """docs/README.md. No case and no patient is named in it.

    rows:   what was measured; none where nothing was
    limits: sentences that a reader has to know beside the figures
    needs:  {package: version} beside MONAI
    """
    preprocessing, unbundled = model.preprocessing, monai_metadata.why_unbundled(model)
    ends = {1: "`.csv` or `.npy`", 2: "`.png` or `.jpg`"}.get(preprocessing.ndim, "`.nii.gz`")
    channels = preprocessing.channels
    several = len(channels) > 1 and channels != ("R", "G", "B") and preprocessing.ndim > 1
    named = ", named `<case>_0000`, `<case>_0001`, ... in the order of the channels" if several else ""
    blocks = [
        f"# {title}",
        description,
        "## Run it",
        *([unbundled] if unbundled else _monai_run(needs, f"{ends}{named}")),
        *([_covariates(model)] if model.networks.context.names else []),
        *([_absent(model)] if model.preprocessing.settings.get("absent") else []),
        "With Hilum:",
        '```python\nimport hilum\n\nhilum.load("this folder, or its .zip").predict("image")\n```',
        *([] if model.members else _what_needs_hilum(model)),
        "## What goes in, what comes out",
        *(_inputs(one) for one in model.members or (model,)),
        _outputs(model),
        "## What was measured",
        "\n".join(f"- {wording.row_words(row, model.task.metrics)}" for row in rows) if rows else NOTHING,
        "The intervals show how the figures vary with the cases. They do not show how much another training would "
        "differ. `method` of each estimate in `hilum/model.json` states how its interval was made."
        if rows
        else "",
        "## Where that ends",
        "\n".join(f"- {one}" for one in [*limits, *(LIMITS if rows else LIMITS[:-1]), _any_image(model)]),
        "## Where it comes from",
        _table(
            {
                "data hash": str(model.record.get("data_hash") or NOT_STATED),
                **model_identity.identity_facts(model),
                "made with": ", ".join(f"{name} {number}" for name, number in _versions(model).items()) or NOT_STATED,
            }
        ),
        _weights_source(model),
        "`LICENSE` is that of the files under `scripts/`, which are copies of Hilum's. Whoever "
        "owns the training data decides who may use the weights.",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _monai_run(needs: Mapping[str, str], ends: str) -> list[str]:
    """How MONAI runs it; ends: of the files that it reads."""
    return [
        f"From this folder, without Hilum, with MONAI{_and(needs)}:",
        f"```console\n$ {RUN_COMMAND}\n```",
        f"IMAGES is a file or a folder of files that end in {ends}. RESULTS is made: one label map per case, on "
        "the grid of its image, where the model marks structures, or the maps that are its answer, and "
        "`predictions.csv` and `predictions.json`.",
    ]


def _what_needs_hilum(model: Model) -> list[str]:
    """What MONAI's command leaves out."""
    return [
        "## What needs Hilum",
        "The command of MONAI states calibrated probabilities, and sets and intervals where the model has them. Only "
        "Hilum gives:",
        "\n".join(f"- {one}" for one in _only_with_hilum(model)),
    ]


# Columns that are named one by one.
MOST = 24
# The last one only where there are figures.
LIMITS = (
    "Research only: it is not a medical device, and nobody has cleared it for the care of patients.",
    "`manifest.json` shows whether a file was changed. It does not prove who made the package.",
    "The figures hold for images like those that it was tested on: the same kind of scanner, protocol and people.",
)


def _only_with_hilum(model: Model) -> list[str]:
    """Sentences on what the command of MONAI does not do."""
    guard, reasons = model.guard, list[str]()
    if guard is not None and guard.level and guard.is_calibrated:
        reasons.append(
            f"the gate: an image unlike those that trained the model is refused (`gate_p` below {guard.level:g}, and "
            "`abstained` says why)"
        )
    if guard is not None and guard.answers is not None:
        share = f"{100 * guard.answers.error:g} %"
        reasons.append(f"abstention: no answer where the model is not sure enough for {share} of wrong answers")
    if any(part.uncertainty for part in properties.leaf_tasks(model.task).values()):
        reasons.append(
            "uncertainty: `total`, `aleatoric` and `epistemic` of each case (`--uncertainty`), of label maps of each "
            "voxel too (`--maps`)"
        )
    if properties.covariate_adjustment(model.task) is not None:
        reasons.append(
            "sets and thresholds by a covariate of the patient: the command of MONAI takes those of everybody"
        )
    if properties.added_results(model.task) is not None:
        reasons.append("masks or boxes that miss little (`--covering`)")
    return [
        *reasons,
        "DICOM and further formats, in and out, and `calibrate`, which fits the model to a site's own cases",
    ]


def _any_image(model: Model) -> str:
    """Whether it knows an image that it was not made for."""
    everywhere = "answers for every image of the right size but a blank one, also where it shows something else."
    with_hilum = f"With Hilum: {model.gate}."
    if model.gate.kind == NONE:
        return f"It {everywhere} {with_hilum}"
    return f"Without Hilum it {everywhere} {with_hilum}"


def _inputs(model: Model) -> str:
    """The table of what the network gets, and how it sees it."""
    preprocessing, inference = model.preprocessing, model.inference
    channels, unit = preprocessing.channels, grid_geometry.pixels_or_voxels(preprocessing.ndim)
    return _table(
        {
            "modality": preprocessing.modality,
            "channels": "one, without a name" if channels == GREY else ", ".join(channels),
            "axes": str(preprocessing.ndim),
            "grid that the network sees": _grid(preprocessing),
            "windows": f"{_by(inference.patch)} {unit}, overlap {inference.overlap:g}",
            "mirrored views": f"along axes {', '.join(map(str, inference.flips))}" if inference.flips else "none",
            "network": model.networks.families,
            **({} if preprocessing.cascade is None else {"before it": _cascade(preprocessing.cascade)}),
        }
    )


def _outputs(model: Model) -> str:
    """The table of values, classes and codes, or of quantities."""
    measures = any(head.holds_numbers for head in model.task.heads.values())
    labels = [label for task in properties.leaf_tasks(model.task).values() for label in task.labels]
    model_codes = result_codes.codes_of_model(model)
    codes_of_labels = [model_codes.get(one.name, CodedName()).codes for one in labels]
    codes = ["; ".join(f"{code.scheme} {code.value}, {code.meaning}" for code in own) for own in codes_of_labels]
    rows = [f"| {one.value} | {_cell(one.name)} | {_cell(code)} |" for one, code in zip(labels, codes, strict=True)]
    head = "| output | quantity | code |" if measures else "| value | class | code |"
    return "\n".join([head, "|---|---|---|", *rows])


def _covariates(model: Model) -> str:
    """Covariates that have to be given beside the images, and how."""
    columns = errors.list_phrase([f"`{name}`" for name in model.networks.context.names], MOST)
    entries = errors.list_phrase(model.networks.context.entries, MOST)
    return (
        f"With each image the model gets {columns} of the patient: add `--covariates TABLE.csv`, with a row for "
        "each case, its name in the first column, and a column of each of these. A blank is filled in as in "
        "`hilum/model.json`, and `predictions.json` records it. In ONNX they are the second input, `context`, "
        f"of {len(model.networks.context)} numbers: {entries}, prepared as there."
    )


def _absent(model: Model) -> str:
    """Parts that a case may lack, and how the network is shown of it."""
    names = " and ".join(f"`{name}`" for name in cast("Sequence[str]", model.preprocessing.settings["absent"]))
    shown = [f"{IMAGE}{channel}" for channel in model.networks.context.channels]
    entries = (
        f", and 0 in its entry of `context` ({', '.join(shown)}), which is 1 for one that is there" if shown else ""
    )
    return (
        f"A case may lack {names}, as long as one image is there: leave the file out. In ONNX such an image is 0 "
        f"throughout{entries}."
    )


def _weights_source(model: Model) -> str:
    """The program whose weights training started from, with their licence and the paper to cite; empty without one."""
    source = model.record.get("weights_source")
    if not source:
        return ""
    return (
        f"Training started from weights of {source['name']}. Their licence: {source['licence']}. "
        f"Cite: {source['citation']}."
    )


def _cascade(factor: float) -> str:
    return f"the model in `{FIRST}/`, on a grid {factor:g} times as coarse, whose labels are the last channel"


def _grid(preprocessing: PreprocessingKind) -> str:
    """The grid that the network sees: as many voxels for every image, or voxels of one size."""
    unit = grid_geometry.pixels_or_voxels(preprocessing.ndim)
    if preprocessing.shape is not None:
        return f"{_by(preprocessing.shape)} {unit}"
    spacing = preprocessing.spacing
    words = f"{unit} as they are" if spacing is None else f"{_by(spacing)} {preprocessing.unit}"
    times = cast("float", preprocessing.settings.get("reduction", 1.0))
    return words + (f", {times:g} times as long" if times > 1 else "")


def _by(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)


def _and(needs: Mapping[str, str]) -> str:
    return f" (with fire), {', '.join(needs)}" if needs else " (with fire)"


def _cell(text: str) -> str:
    return text.replace("|", "\\|") or NOT_STATED


def _table(facts: Mapping[str, str]) -> str:
    return "| what | value |\n|---|---|\n" + "\n".join(f"| {name} | {_cell(value)} |" for name, value in facts.items())


def _versions(model: Model) -> Mapping[str, str]:
    environment = model.record.get("environment")
    if not environment or "versions" not in environment:
        return {}
    return {"Python": environment["python"], **environment["versions"]}
