"""What a step costs by its objectives, beside a step of the task's own loss, and how long it waits for data.

    python bench/objective_cost.py --record

Sessions of `isocenter train`, as they are opened, with their own loaders and optimisers, take turns step by step: on
hippocampus a U-Net, on chest radiographs a ResNet, each with the network, batch and patch that the plan gives to the
labelled task. Unlabelled images are other cases of the same set, as many a step as labelled ones. The first steps of
each are left out; a figure is the median of the rest.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch
from beside import arguments, record

import isocenter
from isocenter.planning import PlanSettings, plan_checks
from isocenter.reading import ReadingOptions
from isocenter.runs import training_jobs
from isocenter.runtime import hardware
from isocenter.training._training_session import TrainingSession
from isocenter.training.data.batch_loading import Batch
from isocenter.training.data.prepared_store import PreparedCase
from isocenter.training.length.schedule import TrainingPace
from isocenter.training.step.train_step import Learner
from isocenter.training.training_state import State
from isocenter.values import Case

LABELLED, UNLABELLED, WARMUP = 12, 12, 2
SUPERVISED = "supervised"
# {name: what is set by hand}; the first of each set is what the others are compared with.
DENSE: dict[str, dict[str, Any]] = {
    SUPERVISED: {},
    "masked": {"objectives.terms": ["masked"]},
    "mean_teacher": {"objectives.terms": [SUPERVISED, "mean_teacher"]},
    "mean_teacher, pasted": {"objectives.terms": [SUPERVISED, "mean_teacher"], "mean_teacher.paste": 1.0},
    "fixmatch": {"objectives.terms": [SUPERVISED, "fixmatch"]},
    "co_training": {"objectives.terms": [SUPERVISED, "co_training"]},
}
WHOLE: dict[str, dict[str, Any]] = {
    SUPERVISED: {},
    "contrast, two views": {"objectives.terms": ["contrast"], "contrast.queue": 0},
    "mean_teacher": {"objectives.terms": [SUPERVISED, "mean_teacher"]},
    "fixmatch": {"objectives.terms": [SUPERVISED, "fixmatch"]},
    "co_training": {"objectives.terms": [SUPERVISED, "co_training"]},
}
SETS: Mapping[str, tuple[dict[str, dict[str, Any]], dict[str, Any]]] = {
    "hippocampus": (DENSE, {"labels": "1=anterior,2=posterior"}),
    "chest_xray": (WHOLE, {}),
}
# {objective: what is asked of it, as a multiple of the task's own step}
ASKED = {"masked": 1.3, "contrast, two views": 2.3, "mean_teacher": 2.2}
KEPT = ("network.name", "network.size", "training.batch", "training.patch", "training.precision")


class Side:
    """A training that is taken step by step, with the seconds of each and those that it waited for its batch."""

    def __init__(
        self, name: str, chosen: PlanSettings, own: list[PreparedCase], others: list[PreparedCase], place: Path
    ) -> None:
        self.name, self.seconds, self.waited, self.number = name, list[float](), list[float](), 0
        self.session = TrainingSession.from_settings(
            chosen, own, (), place / name, {}, None, others if chosen.objectives.unlabelled else ()
        )
        self.learner: Learner = self.session.learner(State(0, TrainingPace(1000), 1))
        self.batches: Generator[Batch] = self.session.loader.batches(0)

    def step(self) -> None:
        """Take one step, as the recipe does."""
        began = time.perf_counter()
        batch = next(self.batches)
        drawn = time.perf_counter()
        self.learner.learn(batch, self.number, TrainingPace(1000))
        self.number += 1
        self.seconds.append(time.perf_counter() - began)
        self.waited.append(drawn - began)


def main() -> None:
    parser = arguments(__doc__, repeats=6)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    repeats = 1 if given.small else given.repeats
    with tempfile.TemporaryDirectory() as place:
        rows = [row for name in SETS for row in measured(given.data / name, repeats, given.threads, Path(place) / name)]
    text = table(rows)
    print(text)
    if given.record:
        record("objective_cost", "Cost of a step by objective", text, {"rows": rows, "threads": given.threads})


def measured(data: Path, repeats: int, threads: int, place: Path) -> list[dict[str, Any]]:
    """A row for each objective of a set; steps of all objectives take turns."""
    jobs, reading = SETS[data.name]
    usual = isocenter.plan(data, device="cpu", threads=threads, **reading).plan
    alike = {name: usual[name] for name in KEPT}
    sides = []
    for name, by_hand in jobs.items():
        terms = by_hand.get("objectives.terms", [SUPERVISED])
        task = None if SUPERVISED in terms else "representation"
        further = {"objectives.unlabelled": [str(data)]} if len(terms) > 1 else {}
        chosen = {**alike, **further, **by_hand}
        made = isocenter.plan(data, device="cpu", threads=threads, task=task, assignments=chosen, **reading)
        cases: list[Case] = [case for case in made.examination.dataset if made.parts.get(case.id) == "train"]
        typed, options = plan_checks.checked_settings(made.plan), ReadingOptions.of_plan(made.plan.options)
        own = training_jobs.prepare_cases(cases[:LABELLED], typed, options)
        others = training_jobs.prepare_cases(cases[LABELLED:][:UNLABELLED], typed, options, with_targets=False)
        sides.append(Side(name, typed, own, others, place))
    with hardware.keep_freed_memory(), ExitStack() as stack:
        for side in sides:
            stack.enter_context(closing(side.batches))
        for _ in range(WARMUP + repeats):
            for side in sides:
                side.step()
    usual_step = statistics.median(sides[0].seconds[WARMUP:])
    return [
        {
            "set": data.name,
            "objective": side.name,
            "step_s": (step := statistics.median(side.seconds[WARMUP:])),
            "times": step / usual_step,
            "asked": ASKED.get(side.name),
            "waiting": sum(side.waited[WARMUP:]) / sum(side.seconds[WARMUP:]),
        }
        for side in sides
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    head = "| set | objective | s a step | times the task's own | asked | waiting for data |\n|---|---|---|---|---|---|"
    each = [
        f"| {row['set']} | {row['objective']} | {row['step_s']:.3f} | {row['times']:.2f} | {row['asked'] or ''} | "
        f"{100 * row['waiting']:.1f} % |"
        for row in rows
    ]
    return "\n".join([head, *each])


if __name__ == "__main__":
    main()
