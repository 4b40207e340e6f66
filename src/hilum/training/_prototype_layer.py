"""The last layer as the nearest mean of features: a network answers from a handful of cases, and takes no step.

Snell et al., "Prototypical networks", NeurIPS 2017, arXiv:1703.05175, equation 8: -|f - m|^2 is linear in f but for a
term that all classes share.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from hilum.errors import PlanError
from hilum.lazy import torch
from hilum.networks import factory, network_parts
from hilum.runtime import covariate_encoding
from hilum.runtime.windows import slide
from hilum.training._training_session import TrainingSession
from hilum.training.data.prepared_store import PreparedCase
from hilum.training.weight_transfer import PROTOTYPES
from hilum.values import Floats, Region

if TYPE_CHECKING:
    from torch.nn import Module


def set_prototypes(session: TrainingSession) -> None:
    """Set w = 2 m and b = -|m|^2 of each class or structure in the last layer, where plan or objective say so.

    m: the mean of what the layer takes of the training cases, as they are: of whole images, or of voxels
    """
    is_asked = session.settings.transfer.mode == PROTOTYPES
    if not is_asked and not session.criterion.needs.prototypes:
        return
    [head] = session.settings.task.heads
    at = factory.family_of(session.settings.network.name).features
    # What learns from other weights than its own keeps its own last layer.
    is_own = not is_asked and session.criterion.needs.adapted
    modules = [session.averaged] if is_own else [session.module, session.averaged]
    layers: list[Any] = [network_parts.last_layers(one, at)[head] for one in modules]
    means = torch.from_numpy(_class_means(session, head, len(layers[0].bias)))
    with torch.no_grad():
        for layer in layers:
            layer.weight.copy_((2 * means).reshape(layer.weight.shape))
            layer.bias.copy_(-(means**2).sum(dim=1))


def _class_means(session: TrainingSession, head: str, classes: int) -> Floats:
    """(classes, entries) of the training cases; PlanError for a class that none shows, and for other targets."""
    sums = np.zeros((classes, 1))
    counts = np.zeros(classes)
    outside = session.settings.task.outside
    for case in (one.in_memory for one in session.train_cases):
        for region, inputs in last_inputs(session, session.averaged, head, case):
            target = np.asarray(case.kind.cut_region(case.target, region)).reshape(-1)
            if not np.isin(target, [*range(classes), -1 if outside is None else outside]).all():
                problem = "the target has values that are no class, as of several readers, or of structures not known"
                raise PlanError(problem, case.id, "Give another transfer.mode, such as linear_probe")
            columns = inputs.reshape(len(inputs), -1)
            is_of_class = target == np.arange(classes)[:, None]
            sums = sums + is_of_class @ columns.T.astype(np.float64)
            counts = counts + is_of_class.sum(axis=1)
    if not counts.all():
        problem = f"no training case shows class {int(np.argmin(counts))} of {classes}"
        raise PlanError(problem, "transfer.mode", "Give a case of each class, or --all, so that all cases train")
    return sums / counts[:, None]


def last_inputs(
    session: TrainingSession, module: Module, head: str, case: PreparedCase
) -> Iterator[tuple[Region, Floats]]:
    """(region, (entries, *region)) the last layer's inputs of a case; of a whole image once, the mean over windows."""
    device = session.fabric.device
    at = factory.family_of(session.settings.network.name).features
    inference = session.settings.inference
    task = session.settings.task

    def run(*images: np.ndarray) -> dict[str, np.ndarray]:
        """The inputs of windows in place of the outputs."""
        with torch.inference_mode():
            given = (torch.from_numpy(one).to(device) for one in images)
            features = network_parts.compute_features(module.eval(), *given, at=at, last=True)
        return {head: features.inputs[head].float().cpu().numpy()}

    image = case.network_input(tuple(slice(0, size) for size in case.shape))
    with_numbers = covariate_encoding.bind_context(run, case.context)
    overlap = inference.overlap
    for region, arrays in slide.slide_windows(
        with_numbers, image, inference.patch, overlap=overlap, batch=4, merge=task.merge
    ):
        yield region, np.asarray(arrays[head])
