"""How good the averaged weights are on whole validation cases, on the network's grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from isocenter.lazy import torch
from isocenter.runtime import Model, slide, with_covariates
from isocenter.training.data import Prepared
from isocenter.training.step import Compute, each_array

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


def validate(
    model: Model, averaged: Module, cases: Sequence[Prepared], device: Any, compute: Compute
) -> dict[str, Tensor]:
    """{name: (cases, ...)} for `Task.selection`; in the precision of the training, without mirrored views."""
    averaged.eval()
    collected: dict[str, list[Tensor]] = {}
    inference, task = model.inference, model.task

    def run(images: np.ndarray, *context: np.ndarray) -> Mapping[str, np.ndarray]:
        beside = [torch.from_numpy(one).to(device) for one in context]
        with torch.inference_mode(), compute.autocast(device):
            outputs = averaged(compute.ordered(averaged, torch.from_numpy(images).to(device)), *beside)
        return {name: output.float().cpu().numpy() for name, output in outputs.items()}

    for case in (one.in_memory for one in cases):
        image = case.seen(tuple(slice(0, size) for size in case.shape))
        sums: dict[str, Tensor] = {}
        seen = with_covariates(run, case.context)
        for region, arrays in slide(seen, image, inference.patch, overlap=inference.overlap, batch=4, merge=task.merge):
            outputs = {name: torch.from_numpy(array)[None] for name, array in arrays.items()}
            part = each_array(case.kind.cut(case.target, region), lambda array: torch.from_numpy(array)[None])
            for name, value in task.quality(outputs, part).items():
                sums[name] = sums[name] + value if name in sums else value
        for name, value in sums.items():
            collected.setdefault(name, []).append(value)
    return {name: torch.cat(values) for name, values in collected.items()}
