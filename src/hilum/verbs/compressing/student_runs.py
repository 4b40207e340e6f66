"""Narrower networks that learn from a model: distilled from its answers, or begun from its own pruned weights."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from hilum.errors import PlanError, UsageError
from hilum.lazy import torch
from hilum.networks import network_family
from hilum.networks.network_family import NetworkSize
from hilum.planning import plan_file
from hilum.runs.plan_request import PlanRequest
from hilum.runtime import Model, record_files, torch_networks
from hilum.runtime.model_files import REPORT
from hilum.runtime.torch_networks import TorchNetwork
from hilum.scoring.case_selection import SPLIT
from hilum.scoring.data_record import DATA_RECORD
from hilum.training import channel_pruning
from hilum.values.plain_values import PlainValue
from hilum.verbs import train
from hilum.verbs.compressing import quantised_package

DISTIL, PRUNE = "distil", "prune"
# Half the width is a quarter of the parameters; shares of channels that pruning leaves out.
HALF, RATIOS = 0.5, (0.25, 0.5, 0.75)
# {variant: factor of the width}, by method.
STUDENTS: Mapping[str, Mapping[str, float]] = {
    DISTIL: {DISTIL: HALF},
    PRUNE: {f"{PRUNE}-{ratio:g}": 1 - ratio for ratio in RATIOS},
}
WEIGHTS = "pruned.safetensors"


@dataclass(frozen=True, eq=False)
class Students:
    """What narrower networks are trained with, all by the plan of the run that teaches them.

    parts:    folder for the weights that they begin from
    settings: of the plan, set by hand over ours; minutes: for each method
    """

    run: Path | None
    model: Model
    parts: Path
    settings: Mapping[str, PlainValue]
    minutes: float | None
    threads: int | None
    seed: int

    def train(self, variant: str, out: Path) -> None:
        """Train a variant into its run, or finish it. Raises what `train` raises, and PlanError for another family."""
        method = variant.partition("-")[0]
        if self.run is None:
            problem = f"a package has no plan by which {method} could train"
            raise UsageError(problem, "--methods", "Give the run that it was made of")
        if (out / REPORT).is_file():
            return
        if out.is_dir():
            train.train(resume=out)
            return
        factor = STUDENTS[method][variant]
        plan = plan_file.read_plan(self.run / "plan.yaml")
        narrower = network_family.widen_settings(plan["network.size"], factor)
        is_other = "network.name" in self.settings and method == DISTIL  # with the usual size of that family
        if narrower == plan["network.size"] and not is_other:
            family = plan["network.name"]
            raise PlanError(f"{family} has no width that could be smaller", f"--methods {method}", "Choose int8")
        own: dict[str, PlainValue] = {"network.size": {} if is_other else narrower}
        start = None
        if method == DISTIL:
            teaching = {"objectives.terms": ["supervised", "distillation"], "distillation.teacher": str(self.run)}
            own |= teaching
        else:
            run = self.run
            start = quantised_package.made_once(
                self.parts / variant, lambda folder: self._prune(run, narrower, factor, folder)
            )
        minutes = None if self.minutes is None else self.minutes / len(STUDENTS[method])
        request = PlanRequest(minutes, threads=self.threads, seed=self.seed, assignments={**own, **self.settings})
        weights = None if start is None else start / WEIGHTS
        train.make_run(self.run / "plan.yaml", request, start=weights, out=out, overwrite=False, resume=None)

    def _prune(self, run: Path, narrower: NetworkSize, factor: float, folder: Path) -> None:
        """Write the weights that remain, with the records by which it is known what they have seen."""
        networks = self.model.networks
        if len(networks.members) > 1 or self.model.first is not None:
            raise PlanError("several networks are not pruned", "--methods prune", "Give one fold's run")
        module = cast("TorchNetwork", networks.members[0]).module
        small = torch_networks.build_module(self.model.task, {**networks.architecture, "size": narrower})
        shape = (2, int(networks.architecture["channels"]), *self.model.inference.patch)
        inputs = [torch.zeros(shape), *([torch.zeros(2, len(networks.context))] if len(networks.context) else [])]
        kept = channel_pruning.prune_channels(module, small, inputs, 1 - factor)
        record_files.write_tensors(folder / WEIGHTS, kept)
        for name in (SPLIT, DATA_RECORD):
            shutil.copyfile(run / name, folder / name)
