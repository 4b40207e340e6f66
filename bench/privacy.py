"""What a privacy budget costs, and what it hides: PneumoniaMNIST with and without, minutes alike.

    python bench/privacy.py --out DIR --record

Both trainings have the same minutes on the same pictures. Their membership is attacked by losses. The cost of a step is
that of one network on one batch, plain and private in turn. With --out the bench resumes; `--smoke` tries both ways in
6 steps and the cost on 4 pictures; its figures mean nothing and are not recorded.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import ROOT
from recorded import measured_cell, record

import hilum
from hilum.objectives.objective_terms import Supervised
from hilum.planning import plan_checks
from hilum.runtime import torch_networks
from hilum.training.data.batch_loading import Batch
from hilum.training.data.private_sampling import Chance
from hilum.training.step import private_step
from hilum.training.step.batch_loss import Criterion
from hilum.training.step.computation import Compute
from hilum.training.step.private_step import SampleGradients

DATA = ROOT.parent / "shared" / "data" / "medmnist" / "pneumoniamnist.npz"
MINUTES, EPSILON, DELTA = 10.0, 8.0, 1e-4
ASKED_AUROC, ASKED_COST = 0.90, 2.0
BUDGET = {"privacy.epsilon": EPSILON, "privacy.delta": DELTA}
# Pictures of a timed step, and how often each way is timed in turn.
PICTURES, TIMES = 64, 7


def trained(out: Path, assignments: dict[str, Any], *, smoke: bool) -> dict[str, Any]:
    """A training and an attack on it: AUROC, what was spent, and how well losses tell who trained."""
    length: dict[str, Any] = {} if smoke else {"minutes": MINUTES}
    short = {"training.steps": 6, "training.batch": 16} if smoke else {}
    run = hilum.train(DATA, out=out, overwrite=True, device="cpu", assignments={**assignments, **short}, **length)
    attacked = hilum.evaluate(out, DATA, membership=True, device="cpu")
    figures = {row.metric: row.estimate for row in attacked.rows if row.label in ("all", "pneumonia")}
    spent = json.loads((out / "privacy.json").read_text())["rows"] if (out / "privacy.json").is_file() else []
    named = ("auroc", "membership_auc", "membership_tpr")
    return {
        "steps": run.steps,
        "minutes": round(run.minutes, 2),
        **{name: [figures[name].value, figures[name].low, figures[name].high] for name in named},
        "spent": spent,
    }


def step_seconds(*, smoke: bool) -> dict[str, Any]:
    """s of a plain step and of a private one, of the network that a private training gets, on the same pictures."""
    settings = plan_checks.checked_settings(hilum.plan(DATA, device="cpu", assignments=BUDGET).plan)
    torch.set_num_threads(settings.training.threads)
    network = torch_networks.build_module(settings.task, settings.architecture).train()
    criterion, count, rng = (
        Criterion(settings, "cpu", {"supervised": Supervised()}),
        4 if smoke else PICTURES,
        np.random,
    )
    images = rng.default_rng(0).normal(size=(count, settings.preprocessing.inputs, *settings.training.patch))
    generators = tuple(rng.default_rng(n) for n in range(count))
    batch = Batch(images.astype(np.float32), np.arange(count) % 2, generators, (1.0, 1.0))
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-9, fused=True)
    compute = Compute.from_name(settings.training.compute or "", settings.training)

    def plain() -> None:
        optimiser.zero_grad()
        criterion.judge_batch(network, batch, compute).loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()

    def private() -> None:
        weights = dict(network.named_parameters())
        for gradients, _ in SampleGradients(criterion).of_batch(network, batch, compute):
            added, _ = private_step.clipped_gradient_sum(gradients, 1.0)
        for name, one in private_step.add_noise(added, 1.0, Chance(), 0).items():
            weights[name].grad = one / count
        optimiser.step()

    taken: dict[str, list[float]] = {"plain": [], "private": []}
    for number in range(TIMES + 1):
        for name, step in (("plain", plain), ("private", private)):
            began = time.perf_counter()
            step()
            if number:  # the first warms caches up
                taken[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    return {**medians, "times": medians["private"] / medians["plain"]}


def table(rows: dict[str, dict[str, Any]], cost: dict[str, Any]) -> str:
    """The figures beside those that were asked for."""
    lines = ["| training | steps | AUROC | attack: AUC | found at 1 % false alarms |", "|---|---|---|---|---|"]
    for name, row in rows.items():
        cells = ["{:.3f} ({:.3f} to {:.3f})".format(*row[one]) for one in ("auroc", "membership_auc", "membership_tpr")]
        lines.append(f"| {name} | {row['steps']} | {' | '.join(cells)} |")
    [*_, last] = rows["private"]["spent"]
    noises = [one["noise_multiplier"] for one in rows["private"]["spent"]]
    spent = (
        f"Epsilon {last['epsilon']:.3f} at delta {last['delta']:g}, for each {last['unit']} of {last['units']}; noise "
        f"{min(noises):.2f} to {max(noises):.2f} as steps were planned anew, chance of each to be in a batch "
        f"{last['sampling_rate']:.3f}. The set's own test part differs from its training part, so that an attack finds "
        "a difference without any memory, too."
    )
    asked = f"Asked: AUROC {ASKED_AUROC:.2f} under the budget; a private step at most {ASKED_COST:g} plain ones."
    step = f"A private step took {cost['private']:.3f} s, a plain one {cost['plain']:.3f} s: {cost['times']:.2f} times."
    return "\n".join([*lines, "", spent, step, asked])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    cost = measured_cell(asked.out, "step", partial(step_seconds, smoke=asked.smoke))
    rows = {
        name: measured_cell(asked.out, name, partial(trained, asked.out / name, chosen, smoke=asked.smoke))
        for name, chosen in (("private", BUDGET), ("plain", {}))
    }
    if asked.record and not asked.smoke:
        title = "What a privacy budget costs, and what it hides"
        record("privacy", title, table(rows, cost), {"rows": rows, "step": cost, "epsilon": EPSILON, "delta": DELTA})


if __name__ == "__main__":
    main()
