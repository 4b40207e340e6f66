"""Zero-shot classification: the mean vector of each class's texts is the last layer of a network of images.

Radford et al., arXiv:2103.00020, section 3.1. The text side is used once, and no model holds it. It comes from a run
that `pretrain` taught by texts, or from the weights of another program with the folder of its BERT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hilum.errors import IntegrityError, UsageError
from hilum.files.storage import structured_text
from hilum.lazy import torch
from hilum.networks import text_networks, weight_loading
from hilum.networks.layouts import weight_layout
from hilum.networks.layouts.text_layouts import DEVIATION, MEAN, SCALE, SIDE, TEXT_LAYOUTS
from hilum.objectives import image_text
from hilum.objectives.objective_terms import EMBEDDING, NUMBERS
from hilum.runtime import record_files, torch_networks
from hilum.runtime.inference import Inference
from hilum.runtime.model_assembly import Model
from hilum.runtime.model_schema import ModelOrigin, NetworkArguments
from hilum.runtime.preprocessing.preprocessing import Preprocessing
from hilum.runtime.torch_networks import EMBEDDED, Networks, TorchNetwork
from hilum.tasks import Task, task_catalogue
from hilum.transforms import COLOUR

if TYPE_CHECKING:
    from torch import Tensor

LAST_CHECKPOINT, OBJECTIVES = "checkpoints/last", "objectives.safetensors"
PARTS = "parts.image_text."
BRIGHTEST = 255.0
# Said of every such model until `calibrate` has seen cases.
UNCALIBRATED = (
    "Its classes are texts, and its probabilities follow from similarities: they are not calibrated. Give it labelled "
    "cases of the site: hilum calibrate"
)

Classes = Mapping[str, Sequence[str]]


def read_classes(path: Path) -> dict[str, list[str]]:
    """{class: texts} of a JSON file; UsageError for what is none, or a class without a text."""
    remedy = 'Write {"normal": ["no sign of pneumonia"], "pneumonia": ["consolidation", "pneumonia"]}'
    try:
        content = structured_text.load_json(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot be read ({type(error).__name__})", str(path), remedy) from error
    if not isinstance(content, dict) or len(content) < 2:
        raise UsageError("names no two classes", str(path), remedy)
    for name, texts in content.items():
        if not isinstance(texts, list) or not texts or not all(isinstance(one, str) and one.strip() for one in texts):
            raise UsageError(f"gives the class {name!r} no text", str(path), remedy)
    return content


def zero_shot_of_run(run: Path, model: Model, classes: Classes) -> Model:
    """The classification of a run that texts taught.

    model: of the run's last checkpoint, with which the text side learnt
    Raises UsageError for a run without such a side.
    """
    settings = model.record.get("objectives", {}).get("image_text")
    tensors = run / LAST_CHECKPOINT / OBJECTIVES
    if settings is None or settings.get("other") == image_text.COVARIATES or not tensors.is_file():
        remedy = "Give one of pretrain --objective image_text"
        raise UsageError("is no run that texts have taught", str(run), remedy)
    kept = weight_layout.without_prefix(record_files.read_tensors(tensors), PARTS)
    parts: Any = image_text.ImageText(encoder=cast("str | None", settings["encoder"])).parts(torch.nn.Module(), 0)
    parts.load_state_dict(kept)
    parts.eval()
    with torch.no_grad():
        vectors = {name: parts[image_text.TEXT](texts) for name, texts in classes.items()}
        scale = float(parts.scale.clamp(max=image_text.MOST).exp())
    [member] = torch_networks.Differentiable.from_networks(model.networks).modules
    task = _task(classes)
    [head] = task.heads
    state = {f"network.{name.replace(f'.{EMBEDDING}.', f'.{head}.')}": one for name, one in member.state_dict().items()}
    architecture: NetworkArguments = {**model.networks.architecture, EMBEDDED: NUMBERS}
    origin: ModelOrigin = {"origin": f"zero-shot of {run.name}", "data_hash": model.record.get("data_hash")}
    return _model(task, model.preprocessing, model.inference, architecture, state, _last_layer(vectors, scale), origin)


def load_zero_shot(path: Path, program: str, folder: Path, classes: Classes) -> Model:
    """The classification of another program's weights; folder: of its BERT's settings and tokenizer.

    Raises UsageError for a folder without them, IntegrityError for weights of another program.
    """
    layout, content = TEXT_LAYOUTS[program], dict(weight_loading.read_weights_file(path))
    if not layout.fits(content) or (size := layout.image.size(content)) is None:
        remedy = "Give its file of weights, whole: safetensors, or a torch file that holds tensors only"
        raise IntegrityError(f"holds no weights of {program} for images and texts", str(path), remedy)
    tokenizer = text_networks.open_tokenizer(folder)
    transformers = text_networks.import_extra("transformers")
    settings = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    bert = transformers.AutoModel.from_config(settings).eval()
    weights = weight_layout.without_prefix(content, layout.transformer)
    lacking = [name for name in bert.load_state_dict(weights, strict=False).missing_keys if "pooler." not in name]
    if lacking:
        problem = f"holds no {lacking[0]} of the BERT that {folder.name} describes"
        raise IntegrityError(problem, str(path), "Give the folder of the same BERT")

    def vector(text: str) -> Tensor:
        ids = tokenizer(text, truncation=True, max_length=layout.longest, return_tensors="pt")
        return layout.vector(content, bert(**ids, output_hidden_states=True).hidden_states)

    with torch.no_grad():
        vectors = {name: torch.stack([vector(text) for text in texts]) for name, texts in classes.items()}
        scale = float(content[SCALE].exp())
    task, projection = _task(classes), content[layout.projection]
    [head] = task.heads
    architecture: NetworkArguments = {
        "name": layout.image.family,
        "channels": len(COLOUR),
        "spatial_dims": layout.image.axes,
        "size": dict(size),
        EMBEDDED: len(projection),
    }
    module = torch_networks.build_module(task, architecture)
    body = layout.image.renamed(content, module)
    state = {f"network.body.{name}": one for name, one in body.items() if f"network.body.{name}" in module.state_dict()}
    last = {f"network.vectors.{head}.weight": projection, f"network.vectors.{head}.bias": torch.zeros(len(projection))}
    preprocessing = Preprocessing.from_settings(
        {
            "ndim": layout.image.axes,
            "channels": list(COLOUR),
            "normalisation": [
                {"method": "range", "low": 0.0, "high": BRIGHTEST, "mean": mean, "deviation": deviation}
                for mean, deviation in zip(MEAN, DEVIATION, strict=True)
            ],
            "shape": [SIDE, SIDE],
        }
    )
    inference, origin = Inference((SIDE, SIDE), 0.0), ModelOrigin(origin=f"{program}: {path.name}")
    return _model(task, preprocessing, inference, architecture, {**state, **last}, _last_layer(vectors, scale), origin)


def _task(classes: Classes) -> Task:
    return task_catalogue.build_task(
        {"name": "classification", "classes": list(classes), "positive": None, "smoothing": 0.0}
    )


def _last_layer(vectors: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The last layer: the mean direction of each class's texts, times the scale of similarities."""
    normal = torch.nn.functional.normalize
    means = [normal(normal(own.float(), dim=1).mean(dim=0), dim=0) for own in vectors.values()]
    return {"last.weight": scale * torch.stack(means), "last.bias": torch.zeros(len(means))}


def _model(
    task: Task,
    preprocessing: Any,
    inference: Inference,
    architecture: NetworkArguments,
    state: Mapping[str, Tensor],
    last: Mapping[str, Tensor],
    origin: ModelOrigin,
) -> Model:
    module = torch_networks.build_module(task, architecture)
    try:
        module.load_state_dict({**state, **last})
    except RuntimeError as error:
        problem = f"its weights do not fit together ({str(error).splitlines()[-1].strip()})"
        raise IntegrityError(problem, str(origin["origin"]), "Get them again") from error
    return Model(task, preprocessing, inference, Networks(TorchNetwork(module.eval()), architecture), origin)
