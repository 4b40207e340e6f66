"""A checkpoint of SAM, MedSAM or SAMed as a model. What is done to the image is told, as the files look alike.

Kirillov et al., arXiv:2304.02643; Ma et al., arXiv:2304.12306; Zhang and Liu, arXiv:2304.13785.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hilum.errors import IntegrityError, UsageError
from hilum.networks import weight_loading
from hilum.networks.layouts import sam_weights
from hilum.networks.layouts.weight_layout import Content
from hilum.networks.network_family import NetworkSize
from hilum.runtime import record_files, torch_networks
from hilum.runtime.inference import Inference
from hilum.runtime.model_assembly import Model
from hilum.runtime.model_schema import ModelOrigin, NetworkArguments
from hilum.runtime.preprocessing.square_preprocessing import SquarePreprocessing
from hilum.runtime.torch_networks import Networks, TorchNetwork
from hilum.tasks import Task, task_catalogue
from hilum.transforms import COLOUR


@dataclass(frozen=True)
class Usage:
    """How a checkpoint is used.

    program:  in records
    prompted: whether it marks what is pointed at; else labels, by the decoder of an adapter
    steps:    makes the preprocessing of the side
    network:  settings of the network that no shape shows
    """

    program: str
    prompted: bool
    steps: Callable[[int], SquarePreprocessing] = SquarePreprocessing
    network: NetworkSize = field(default_factory=dict)


USAGES = {
    "sam": Usage("SAM", True, partial(SquarePreprocessing, fit="pad"), {"choose": "best"}),
    "medsam": Usage(
        "MedSAM",
        True,
        partial(SquarePreprocessing, enlarged="probabilities"),
        {"choose": "first", "enlarge": "nearest"},
    ),
    "samed": Usage("SAMed", False),
}


def load_sam(path: Path, usage: str, device: str, *, adapter: Path | None = None, side: int | None = None) -> Model:
    """The model of a checkpoint.

    usage:   one of `USAGES`
    adapter: SAMed's file beside its base file
    side:    of the square in voxels, for SAMed; None is that of the base file
    Raises UsageError for what does not fit together, IntegrityError for a file that is no such checkpoint.
    """
    chosen, content = USAGES[usage], _content(path)
    if not sam_weights.is_sam(content):
        raise IntegrityError("holds no weights of SAM", str(path), "Give a checkpoint of SAM, MedSAM or SAMed's base")
    if chosen.prompted and (adapter is not None or side is not None):
        raise UsageError(f"{chosen.program} has no adapter and one size", str(path), "Leave --adapter and --size out")
    size = sam_weights.sam_size(content)
    side = size["image"] if side is None else side
    if not chosen.prompted:
        if adapter is None:
            raise UsageError("SAMed is a base file with an adapter", str(path), "Give it: --adapter FILE")
        if side < 1 or side % size["patch"]:
            problem = f"a size of {side} is no multiple of {size['patch']} voxels"
            raise UsageError(problem, "--size", "Give that of its training, as 512")
        content = sam_weights.with_adapter(content, _content(adapter), side, str(adapter))
        size = sam_weights.sam_size(content)
    task = _task(chosen, size["tokens"])
    network: NetworkArguments = {
        "name": "sam",
        "channels": len(COLOUR),
        "spatial_dims": 2,
        "size": {**size, **chosen.network},
    }
    module = torch_networks.build_module(task, network)
    try:
        module.load_state_dict(sam_weights.convert_sam(content))
    except RuntimeError as error:
        problem = f"its weights do not fit together ({str(error).splitlines()[-1].strip()})"
        raise IntegrityError(problem, str(path), "Get the file again") from error
    digest = record_files.digest_of_files([file for file in (path, adapter) if file is not None])
    record: ModelOrigin = {"origin": f"{chosen.program}: {path.name}", "weights_sha256": digest}
    networks = Networks(TorchNetwork(module.to(device).eval(), device), network)
    return Model(task, chosen.steps(side), Inference((side, side), 0.0), networks, record)


def _content(path: Path) -> Content:
    """The tensors of a file by name, also where a training program keeps them within."""
    content = weight_loading.read_weights_file(path)
    candidates = weight_loading.weight_candidates(content)
    return next((one for one in candidates if sam_weights.is_sam(one)), content)


def _task(usage: Usage, tokens: int) -> Task:
    """The task: what is pointed at, or a background and classes 1, 2, ..."""
    names = ["object"] if usage.prompted else [str(value) for value in range(1, tokens)]
    labels = [{"value": value, "name": name} for value, name in enumerate(names, start=1)]
    kind = "imported_prompted" if usage.prompted else "imported_segmentation"
    # It is not trained here; loss and tolerance say nothing of how it was.
    unused = {"loss": "dice+ce", "tolerance": 2.0}
    writes = list(range(len(names) + 1))
    return task_catalogue.build_task({"name": kind, "labels": labels, "writes": writes, "weighed": "mean", **unused})
