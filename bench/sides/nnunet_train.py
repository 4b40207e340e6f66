"""nnU-Net's own training of a raw data set, in nnU-Net's environment: planned, prepared, trained.

    nnunet_train.py WORK --steps N | --minutes M [--configuration 2d] [--half] [--compile] [--plans FILE] [--prepared]

WORK holds nnUNet_raw; the prepared data and the model go beside it. The network, the loss, the optimiser, the loaders
and the augmentation with their processes are nnU-Net's. Only what follows differs from its stock trainer, all of it in
its favour where time counts:

- it ends at the budget: the polynomial rate follows the clock and is zero at the end, as if the number of epochs had
  been chosen so that they just fit;
- no validation batches, pictures and checkpoints between epochs, and no validation of all cases at the end;
- --half computes in bfloat16 as nnU-Net does on a GPU; on a processor it does not by itself;
- --compile compiles the network, which nnU-Net does on a GPU and switches off on a processor.

Its last line of output is JSON: seconds of a step (median), the share of them that was waited for data, steps.
"""

from __future__ import annotations

import time

STARTED = time.time()

import argparse  # noqa: E402 - the clock runs while the rest is imported, as it does for the other side
import json  # noqa: E402
import os  # noqa: E402
import random  # noqa: E402
import statistics  # noqa: E402
from itertools import pairwise  # noqa: E402
from pathlib import Path  # noqa: E402

# What its last checkpoint takes to write, at the most.
RESERVE_SECONDS = 3.0
# Steps that warm up caches, and compile.
WARMUP = 5
FOLD = "all"


def main() -> None:
    given = _arguments()
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str((given.work / f"nnUNet_{name}").resolve())
    dataset = next((given.work / "nnUNet_raw").iterdir()).name
    if not given.prepared:
        _prepare(dataset, given.configuration, given.plans)
    prepared = time.time() - STARTED
    if given.steps or given.minutes:
        print(json.dumps({"preparing": prepared, **_train(dataset, given)}))
    else:
        print(json.dumps({"preparing": prepared}))


def _prepare(dataset: str, configuration: str, plans: Path | None) -> None:
    """Fingerprint, plan and preprocess as `nnUNetv2_plan_and_preprocess -c CONFIGURATION` does."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    number = int(dataset[7:10])
    api.extract_fingerprints([number], check_dataset_integrity=False)
    identifier = api.plan_experiments([number])
    if plans is not None:  # of the test data: the network, batch and patch that are compared
        target = _preprocessed(dataset) / f"{identifier}.json"
        target.write_text(json.dumps({**json.loads(plans.read_text()), "dataset_name": dataset}))
    api.preprocess([number], identifier, configurations=(configuration,), num_processes=(4,))


def _preprocessed(dataset: str) -> Path:
    return Path(os.environ["nnUNet_preprocessed"]) / dataset  # noqa: SIM112 - nnU-Net's own name


def _train(dataset: str, given: argparse.Namespace) -> dict[str, float]:
    import numpy as np
    import torch
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock  # noqa: N813 - a module of that name

    random.seed(given.seed)
    np.random.seed(given.seed)
    torch.manual_seed(given.seed)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    device = torch.device(given.device)
    ends = [STARTED + 60 * given.minutes - RESERVE_SECONDS if given.minutes else None]

    stamps: list[float] = []  # when each step ended
    waits: list[float] = []

    class nnUNetTrainer(stock.nnUNetTrainer):  # noqa: N801 - its models name their trainer, and are loaded by that name
        def _do_i_compile(self) -> bool:
            return bool(given.compile)

        def train_step(self, batch: dict) -> dict:
            began = time.time()
            if stamps:
                waits.append(began - stamps[-1])
            with torch.autocast("cpu", torch.bfloat16, enabled=given.half and device.type == "cpu"):
                done = super().train_step(batch)
            stamps.append(time.time())
            return done

        def run_training(self) -> None:
            self.on_train_start()
            self.network.train()
            began = time.time()
            while not self._is_over():
                if ends[0] is not None:
                    share = min(1.0, (time.time() - began) / max(1e-6, ends[0] - began))
                else:
                    share = len(stamps) / given.steps
                for group in self.optimizer.param_groups:
                    group["lr"] = self.initial_lr * (1 - share) ** 0.9
                self.train_step(next(self.dataloader_train))
            self.on_train_end()

        def _is_over(self) -> bool:
            if ends[0] is None:
                return len(stamps) >= given.steps
            lengths = [after - before for before, after in pairwise(stamps)][-20:]
            return bool(stamps) and time.time() + (statistics.median(lengths) if lengths else 0) > ends[0]

    folder = _preprocessed(dataset)
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    described = json.loads((folder / "dataset.json").read_text())
    trainer = nnUNetTrainer({**plans, "continue_training": False}, given.configuration, FOLD, described, device)
    trainer.current_epoch = 1  # it writes the number of the last epoch less one
    trainer.run_training()
    lengths = [after - before for before, after in pairwise(stamps)]
    counted = lengths[WARMUP:] or lengths
    configuration = plans["configurations"][given.configuration]
    return {
        "step": statistics.median(counted) if counted else None,  # one step alone has no length
        "waiting": sum(waits[WARMUP:] or waits) / sum(counted) if counted else None,
        "steps": len(stamps),
        "batch": configuration["batch_size"],
        "patch": configuration["patch_size"],
        "model": trainer.output_folder_base,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--half", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--plans", type=Path, help="these plans in place of its own")
    parser.add_argument("--prepared", action="store_true", help="the data were prepared before")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":  # its loaders start processes that import this file again
    main()
