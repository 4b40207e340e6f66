"""The last layer of a trained network fitted anew, so that its calls are as right in every group of people."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from isocenter import networks
from isocenter.lazy import torch
from isocenter.runtime import WEIGHTS, read_tensors, slide, with_covariates
from isocenter.training.checkpoint import best_checkpoint, is_refitted, member_checkpoints, with_weights
from isocenter.training.data import CONSTRAINT, Protected
from isocenter.training.linear.reduction import Answered, reduced
from isocenter.training.session import Session

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


def constrain(session: Session) -> None:
    """Fit the last layer of the weights that a training leaves, where the plan says so; each once."""
    if session.settings.training.fairness != CONSTRAINT:
        return
    best, module = best_checkpoint(session.out), copy.deepcopy(session.averaged).eval()
    for folder in [*([best] if best.is_dir() else []), *member_checkpoints(session.out)]:
        if not is_refitted(folder):
            module.load_state_dict(read_tensors(folder / WEIGHTS))
            _refit(session, module)
            with_weights(folder, module.state_dict())
    if not best.is_dir():
        _refit(session, session.averaged.eval())


def _refit(session: Session, module: Module) -> None:
    task, cases = session.settings.task, session.train_cases
    [head] = task.heads
    layer: Any = networks.last_layers(module, networks.family_of(session.settings.network.name).features)[head]
    inputs, classes = _inputs(session, module, head), task.decoding.uncertainty == "classes"
    truth = np.stack([np.atleast_1d(np.asarray(case.target, dtype=np.float64)) for case in cases])
    protected = Protected.of(CONSTRAINT, cases)
    assert protected is not None  # noqa: S101 - the method has groups
    # How cases were drawn is taken out of probabilities: what they state of an output of zeros.
    stated = torch.as_tensor(np.asarray(task.decoding.probabilities({head: np.zeros(len(layer.bias))})[head]))
    shift = stated.log() if classes else stated.logit()
    with torch.no_grad():
        weights = torch.cat([layer.weight, layer.bias[:, None]], dim=1).cpu()
    made = reduced(inputs, weights, Answered.of(truth, protected.groups, classes=classes), shift)
    with torch.no_grad():
        layer.weight.copy_(made[:, :-1])
        layer.bias.copy_(made[:, -1])


def _inputs(session: Session, module: Module, head: str) -> Tensor:
    """(cases, entries) what the last layer takes of each training case, the mean over its windows."""
    device, at = session.fabric.device, networks.family_of(session.settings.network.name).features
    inference, merge = session.settings.inference, session.settings.task.decoding.merge
    how: Any = {"overlap": inference.overlap, "batch": 4, "merge": merge}
    seen: list[Tensor] = []

    def run(*given: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs of windows, whose inputs of the last layer are kept."""
        with torch.inference_mode():
            features = networks.features(module, *(torch.from_numpy(one).to(device) for one in given), at=at, last=True)
        seen.append(features.inputs[head].float().cpu())
        return {name: output.float().cpu().numpy() for name, output in features.outputs.items()}

    rows = []
    for case in (one.in_memory for one in session.train_cases):
        image = case.seen(tuple(slice(0, size) for size in case.shape))
        for _ in slide(with_covariates(run, case.context), image, inference.patch, **how):
            pass
        rows.append(torch.cat(seen).mean(dim=0))
        seen.clear()
    return torch.stack(rows)
