"""Members that a single training leaves: the ends of the cycles of its rate, or draws about the mean of its weights.

Snapshots: Huang et al., ICLR 2017, arXiv:1704.00109. Draws: SWAG, a normal distribution with the mean of the weights of
the last part of a training, half of their variances and half of their covariance, of low rank: Maddox et al., NeurIPS
2019, arXiv:1902.02476.
"""

from __future__ import annotations

import copy
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from isocenter.lazy import torch
from isocenter.runtime import read_tensors, write_tensors
from isocenter.training.checkpoint import member_checkpoint, write_checkpoint
from isocenter.training.length.schedule import cycles_over, moments_over
from isocenter.training.step.batch_statistics import measure_batch_statistics
from isocenter.training.step.compute import Compute
from isocenter.transforms import generator

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from isocenter.training.session import Session
    from isocenter.training.state import State

# Fewer weights have no variance that is worth a draw.
FEWEST = 3
# Sets the draws of weights apart from others of the same seed.
WEIGHTS_DRAW = 2**28

log = logging.getLogger("isocenter")


def keep_members(session: Session, state: State, compute: Compute) -> None:
    """Keep the members that the last step leaves; written once, so that a resumed run goes on from them."""
    chosen, out = session.chosen, session.out
    before, now = (state.pace.progress(step) for step in (state.step - 1, state.step))
    # A cycle ends with the step that is nearest to its end: with few steps none ends there.
    begun, cycle = (cycles_over(progress + state.pace.stride / 2, chosen) for progress in (before, now))
    if begun < cycle < chosen.snapshots:
        _write(session, state, compute, session.averaged, cycle)
    if not chosen.swag:
        return
    moments = _moments(out)
    if (number := moments_over(now)) > moments_over(before):
        moments.mkdir(parents=True, exist_ok=True)
        write_tensors(moments / f"{number:02}.safetensors", dict(session.module.named_parameters()))
    if state.is_over:
        for number, weights in enumerate(_draws(sorted(moments.glob("*.safetensors")), chosen.swag, chosen.seed), 1):
            module = copy.deepcopy(session.averaged)
            module.load_state_dict({**module.state_dict(), **weights})
            _write(session, state, compute, module, number)


def clear_moments(out: Path) -> None:
    """Remove what draws needed of a finished training; one killed before its last checkpoint would need it again."""
    shutil.rmtree(_moments(out), ignore_errors=True)


def _moments(out: Path) -> Path:
    return out / "checkpoints" / "moments"


def _write(session: Session, state: State, compute: Compute, module: Module, number: int) -> None:
    measure_batch_statistics(module, session.loader.of_step, session.settings, session.fabric.device, compute)
    model = session.recorded(step=state.step, member=number)
    write_checkpoint(member_checkpoint(session.out, number), model, module.state_dict())


def _draws(files: Sequence[Path], count: int, seed: int) -> list[dict[str, Tensor]]:
    """Draws of the weights; none where the training was too short for moments."""
    if len(files) < FEWEST:
        log.warning("%d weights of the last steps are too few for moments: no members are drawn", len(files))
        return []
    mean: dict[str, Tensor] = {}
    square: dict[str, Tensor] = {}
    for file in files:
        for name, weight in read_tensors(file).items():
            mean[name] = mean.get(name, 0.0) + weight.double() / len(files)
            square[name] = square.get(name, 0.0) + weight.double() ** 2 / len(files)
    return [_draw(files, mean, square, generator(seed, 0, number, WEIGHTS_DRAW)) for number in range(count)]


def _draw(
    files: Sequence[Path], mean: Mapping[str, Tensor], square: Mapping[str, Tensor], random: np.random.Generator
) -> dict[str, Tensor]:
    shares = random.standard_normal(len(files)) / math.sqrt(2 * (len(files) - 1))
    made = {}
    for name, middle in mean.items():
        noise = torch.from_numpy(random.standard_normal(tuple(middle.shape)))
        made[name] = middle + ((square[name] - middle**2).clamp(min=0) / 2).sqrt() * noise
    for share, file in zip(shares, files, strict=True):
        for name, weight in read_tensors(file).items():
            made[name] += share * (weight.double() - mean[name])
    return {name: weight.float() for name, weight in made.items()}
